"""What the TLS tests share: certificates, a client and an upstream that speak TLS and can be made to speak it badly."""

import os
import shutil
import socket
import ssl
import subprocess
import tempfile

from weirtest import Case, Client, Dialogue, EndOfDialogue, Upstream, free_port


def openssl(*words):
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise AssertionError(f"openssl {' '.join(words)}: {done.stderr}")
    return done.stdout


def context(**options):
    """A client's: any certificate will do."""
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    for name, value in options.items():
        setattr(made, name, value)
    return made


class Papers:
    """A CA, and what it and others have signed: made once for a module."""

    made = None

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="weir-papers-")
        os.chmod(self.folder, 0o755)
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        for name in ("ca", "stranger"):
            openssl("req", "-x509", *curve, "-subj", f"/CN={name}", "-days", "90", "-keyout", self.path(f"{name}.key"), "-out", self.path(f"{name}.crt"))
        self.weir = self.pair("weir", "weir.test", curve=curve)
        self.mx = self.pair("mx", "mx.test", curve=curve)
        self.other = self.pair("other", "other.test", curve=curve)
        self.foreign = self.pair("foreign", "mx.test", curve=curve, ca="stranger")
        self.expired = self.pair("expired", "mx.test", curve=curve, over=True)
        openssl("req", "-x509", *curve, "-subj", "/CN=mx.test", "-addext", "subjectAltName=DNS:mx.test", "-days", "90", "-keyout", self.path("own.key"), "-out", self.path("own.crt"))
        self.own = (self.path("own.crt"), self.path("own.key"))
        self.ca = self.path("ca.crt")

    @classmethod
    def get(cls):
        if Papers.made is None:
            Papers.made = Papers()
        return Papers.made

    @classmethod
    def burn(cls):
        if Papers.made is not None:
            shutil.rmtree(Papers.made.folder, ignore_errors=True)
            Papers.made = None

    def path(self, name):
        return os.path.join(self.folder, name)

    def pair(self, name, dns, curve, ca="ca", over=False):
        key, csr, crt = (self.path(f"{name}.{end}") for end in ("key", "csr", "crt"))
        openssl("req", "-new", *curve, "-subj", f"/CN={dns}", "-keyout", key, "-out", csr)
        extensions, config = self.path(f"{name}.ext"), self.path(f"{name}.cnf")
        for path, text in (
            (extensions, f"subjectAltName=DNS:{dns}\nbasicConstraints=CA:FALSE\n"),
            (self.path(f"{name}.index"), ""),
            (self.path(f"{name}.serial"), "01\n"),
            (config, f"[ca]\ndefault_ca=c\n[c]\ndatabase={self.path(name)}.index\nserial={self.path(name)}.serial\nnew_certs_dir={self.folder}\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"),
        ):
            with open(path, "w") as file:
                file.write(text)
        dates = ("-startdate", "20200101000000Z", "-enddate", "20200102000000Z") if over else ("-days", "60")
        openssl(
            "ca", "-batch", "-notext", "-config", config, "-cert", self.path(f"{ca}.crt"), "-keyfile", self.path(f"{ca}.key"),
            "-in", csr, "-out", crt, "-extfile", extensions, *dates,
        )
        return crt, key


class Inside:
    """TLS by hand over a socket: records as large as the caller likes, and an end that can be told from a cut."""

    def __init__(self, sock, by=None, sni=None, session=None):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (by or context()).wrap_bio(self.incoming, self.outgoing, server_hostname=sni, session=session)
        self.clean = False  # the peer has said close_notify
        self.alert = None  # or why not

    def more(self):
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        self.incoming.write(data) if data else self.incoming.write_eof()

    def flush(self):
        self.sock.sendall(self.outgoing.read())

    def handshake(self):
        while True:
            try:
                self.tls.do_handshake()
                self.flush()
                return self
            except ssl.SSLWantReadError:
                self.flush()
                self.more()
            except ssl.SSLError:
                self.flush()
                raise

    def records(self, data, size=16384):
        """Ciphertext of these octets, in records of this size; nothing is sent."""
        for at in range(0, len(data), size):
            self.tls.write(data[at : at + size])
        return self.outgoing.read()

    def sendall(self, data):
        self.sock.sendall(self.records(data))

    def recv(self, count):
        while True:
            try:
                data = self.tls.read(count)
                if not data:
                    self.clean = True
                return data
            except ssl.SSLWantReadError:
                self.more()
            except ssl.SSLZeroReturnError:
                self.clean = True
                return b""
            except ssl.SSLEOFError:
                return b""
            except ssl.SSLError as error:
                self.alert = str(error)
                return b""

    def notify(self):
        """close_notify; more can be received."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        self.flush()

    def __getattr__(self, name):
        return getattr(self.sock, name)


class TlsClient(Client):
    """A Client inside TLS: at once on a listener for that (implicit=True), else after STARTTLS."""

    def __init__(self, port, implicit=False, by=None, sni=None, session=None, hello="client.test", greeting=True, **options):
        super().__init__(port, greeting=greeting and not implicit, hello=None if implicit or not hello else "plain.test", **options)
        if not implicit and hello:
            self.expect(220, "STARTTLS")
        self.by, self.sni, self.session = by, sni, session
        if implicit or hello:
            self.secure(sni)
        if implicit and greeting:
            self.greeting = self.reply()
        if hello:
            self.hello(hello)

    def secure(self, sni=None):
        self.sock = Inside(self.sock, self.by, sni or self.sni, self.session).handshake()
        return self

    @property
    def raw(self):
        return self.sock.sock

    def cut(self):
        """FIN, and no close_notify."""
        self.raw.shutdown(socket.SHUT_WR)


class TlsUpstream(Upstream):
    """An Upstream with STARTTLS, or TLS from the first byte. `on["STARTTLS"]` is what it says to that: bytes, or a function that says it all by itself
    and returns b"". What it has been told in plaintext is in `plain`, which messages came inside TLS in `secured`."""

    def __init__(self, papers, implicit=False, starttls=True, by=None, **options):
        self.context = by or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*papers)
        self.implicit, self.starttls = implicit, starttls
        self.plain, self.handshakes, self.failures, self.resumed = [], 0, [], 0
        super().__init__(**options)

    def dialogue(self, sock):
        return TlsDialogue(self, sock)


class TlsDialogue(Dialogue):
    secured = False

    def run(self):
        try:
            if self.server.implicit:
                self.secure()
            super().run()
        finally:
            # Who called has the socket from before the handshake.
            with self.server.lock:
                self.server.socks.discard(self.sock)
            self.sock.close()

    def secure(self):
        try:
            self.sock = self.server.context.wrap_socket(self.sock, server_side=True)
        except (ssl.SSLError, OSError) as error:
            with self.server.lock:
                self.server.failures.append(str(error))
            raise EndOfDialogue from None
        with self.server.lock:
            self.server.handshakes += 1
            self.server.resumed += self.sock.session_reused
            self.server.socks.add(self.sock)
        self.secured, self.buffer = True, b""
        self.clear()

    def handle(self, verb, line):
        if not self.secured:
            with self.server.lock:
                self.server.plain.append(line)
        if verb == "STARTTLS" and not self.secured:
            if self.answer("STARTTLS", b"220 2.0.0 Go ahead\r\n") and self.sock.fileno() >= 0:
                self.secure()
            return
        if verb == "EHLO" and self.server.starttls and not self.secured:
            words = [self.server.name, *self.server.extensions, "STARTTLS"]
            lines = [f"250{'-' if i + 1 < len(words) else ' '}{w}\r\n" for i, w in enumerate(words)]
            self.clear()
            return self.answer("EHLO", "".join(lines).encode())
        super().handle(verb, line)


class TlsCase(Case):
    @classmethod
    def setUpClass(cls):
        cls.papers = Papers.get()

    def certified(self, *flags, **options):
        """weir with a certificate, and an implicit listener at `weir.tls`."""
        port = free_port()
        tail = options.pop("implicit", "")
        options.setdefault("upstreams", None)
        if options["upstreams"] is None:
            options["upstreams"] = [self.upstream()]
        weir = self.weir("--tls-cert", self.papers.weir[0], "--tls-key", self.papers.weir[1], "--listen-tls", f"127.0.0.1:{port}{tail}", *flags, **options)
        weir.tls = port
        return weir

    def tls_upstream(self, papers=None, **options):
        upstream = TlsUpstream(papers or self.papers.mx, **options)
        self.addCleanup(upstream.stop)
        return upstream
