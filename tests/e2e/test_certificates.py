"""Certificates: who is shown which, and how they are replaced while weir runs, by file change and by SIGHUP."""

import hashlib
import os
import signal
import ssl

from tlstest import context, openssl
from weirtest import Case, Client, Dialogue, Upstream, message, wait_until

# weir looks at its files every 5 s.
LOOK = 12


def starttls(client, sni=None, by=None, session=None):
    """STARTTLS on a Client: from here on it speaks inside TLS. Returns the certificate's fingerprint."""
    client.expect(220, "STARTTLS")
    client.sock = (by or context()).wrap_socket(client.sock, server_hostname=sni, session=session)
    client.hello()
    return fingerprint(client.sock.getpeercert(binary_form=True))


def fingerprint(der):
    return hashlib.sha256(der).hexdigest()


class Certificates(Case):
    def pair(self, name, *names, days=90, kind="ec", into=None):
        """Makes NAME.crt and NAME.key, and moves both into place. Returns (certificate file, key file, fingerprint)."""
        into = into or self.folder
        kinds = {"ec": ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), "rsa": ("rsa:2048",)}
        new = [os.path.join(self.folder, f"new-{name}.{end}") for end in ("crt", "key")]
        openssl(
            "req", "-x509", "-nodes", "-newkey", *kinds[kind], "-subj", "/CN=weir.test", "-days", str(days),
            "-addext", "subjectAltName=" + ",".join(f"DNS:{dns}" for dns in names), "-out", new[0], "-keyout", new[1],
        )
        paths = [os.path.join(into, f"{name}.{end}") for end in ("crt", "key")]
        for made, path in zip(new, paths):
            os.rename(made, path)
        with open(paths[0]) as file:
            return (*paths, fingerprint(ssl.PEM_cert_to_DER_cert(file.read())))

    def expired(self):
        """One that was good on the first day of 2020."""
        path = lambda name: os.path.join(self.folder, name)
        config = "[ca]\ndefault_ca=c\n[c]\ndatabase={0}\nserial={1}\nnew_certs_dir={2}\ndefault_md=sha256\npolicy=p\nx509_extensions=e\n[p]\ncommonName=supplied\n[e]\nsubjectAltName=DNS:weir.test\n"
        for name, text in (("index", ""), ("serial", "01\n"), ("config", config.format(path("index"), path("serial"), self.folder))):
            with open(path(name), "w") as file:
                file.write(text)
        openssl("req", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=weir.test", "-keyout", path("old.key"), "-out", path("csr"))
        openssl(
            "ca", "-batch", "-selfsign", "-notext", "-config", path("config"), "-keyfile", path("old.key"), "-in", path("csr"),
            "-out", path("old.crt"), "-startdate", "20200101000000Z", "-enddate", "20200101235959Z",
        )
        return path("old.crt"), path("old.key")

    def shown(self, weir, sni=None, **options):
        with weir.client(hello="client.test") as client:
            return starttls(client, sni, context(**options))

    def wait_shown(self, weir, want, sni=None):
        wait_until(lambda: self.shown(weir, sni) == want, "the new certificate", LOOK, 0.2)

    def serve(self, *flags, **options):
        return self.weir(*flags, upstreams=[self.upstream()], **options)


class Choice(Certificates):
    def test_names_choose(self):
        folder = os.path.join(self.folder, "certs")
        os.mkdir(folder)
        first = self.pair("first", "weir.test")
        wild = self.pair("wild", "*.example.org", into=folder)
        rsa = self.pair("rsa", "weir.test", kind="rsa", into=folder)
        weir = self.serve("--tls-cert", first[0], "--tls-key", first[1], "--tls-dir", folder)
        for sni, want in ((None, first), ("weir.test", first), ("a.example.org", wild), ("A.Example.ORG", wild), ("b.a.example.org", first), ("elsewhere.test", first)):
            with self.subTest(sni=sni):
                self.assertEqual(self.shown(weir, sni), want[2])
        old = context(maximum_version=ssl.TLSVersion.TLSv1_2)
        old.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
        with weir.client(hello="client.test") as client:
            self.assertEqual(starttls(client, "weir.test", old), rsa[2], "who can only check RSA gets RSA")


class Replaced(Certificates):
    def test_by_file_change_and_open_sessions_go_on(self):
        old = self.pair("mx", "weir.test")
        weir = self.serve("--tls-cert", old[0], "--tls-key", old[1])
        with weir.client(hello="client.test") as client:
            self.assertEqual(starttls(client), old[2])
            new = self.pair("mx", "weir.test")
            self.wait_shown(weir, new[2])
            self.assertEqual(client.data(message("over-the-change", 5000)).code, 250)
            client.quit()
        self.assertIn("files have changed", weir.log())
        self.assertEqual(weir.metric("weir_tls_reload_failing"), 0)

    def test_by_sighup_at_once(self):
        old = self.pair("mx", "weir.test")
        weir = self.serve("--tls-cert", old[0], "--tls-key", old[1])
        self.assertEqual(self.shown(weir), old[2])
        new = self.pair("mx", "weir.test")
        weir.signal(signal.SIGHUP)
        wait_until(lambda: "reloaded" in weir.log(), "the reload", 4)
        self.wait_shown(weir, new[2])

    def test_what_does_not_do_keeps_the_old_ones_and_is_mended(self):
        folder = os.path.join(self.folder, "certs")
        os.mkdir(folder)
        mx = self.pair("mx", "weir.test", into=folder)
        other = self.pair("other", "other.test", into=folder)
        weir = self.serve("--tls-dir", folder)
        with open(mx[1]) as file:
            secret = file.read()
        with open(mx[1], "w") as file:
            file.write(secret[: len(secret) // 2])
        self.pair("other", "other.test", into=folder)
        wait_until(lambda: weir.metric("weir_tls_reload_failing") == 1, "the failure to be told", LOOK, 0.2)
        self.assertIn("mx.key ends in the middle", weir.log())
        self.assertNotIn(secret.splitlines()[1][:30], weir.log(), "no key in the log")
        self.assertEqual(self.shown(weir, "weir.test"), mx[2])
        self.assertEqual(self.shown(weir, "other.test"), other[2], "all or nothing")
        weir.signal(signal.SIGHUP)
        wait_until(lambda: "everything stays as it was" in weir.log(), "the failure of the reload", 5)
        self.assertEqual(self.shown(weir, "weir.test"), mx[2])
        mended = self.pair("mx", "weir.test", into=folder)
        self.wait_shown(weir, mended[2], "weir.test")
        self.assertEqual(weir.metric("weir_tls_reload_failing"), 0)
        self.assertGreaterEqual(weir.metric("weir_tls_reloads_total", result="failed"), 1)

    def test_a_new_name_in_the_folder(self):
        folder = os.path.join(self.folder, "certs")
        os.mkdir(folder)
        first = self.pair("a", "a.test", into=folder)
        weir = self.serve("--tls-dir", folder)
        self.assertEqual(self.shown(weir, "b.test"), first[2])
        second = self.pair("b", "b.test", into=folder)
        self.wait_shown(weir, second[2], "b.test")
        self.assertEqual(self.shown(weir, "a.test"), first[2])
        files = [certificate["file"] for certificate in weir.status()["certificates"]]
        self.assertEqual(sorted(files), [first[0], second[0]])

    def test_an_expired_certificate_is_no_reason_not_to_start(self):
        certificate, key = self.expired()
        weir = self.serve("--tls-cert", certificate, "--tls-key", key)
        self.shown(weir)
        wait_until(lambda: "HAS EXPIRED" in weir.log(), "a loud warning")
        ends = weir.metric("weir_tls_certificate_end_time_seconds", certificate=certificate)
        self.assertEqual(ends, 1577923199)


class Sessions(Certificates):
    def resumed(self, weir, by, session=None):
        """A handshake; returns whether it was resumed, and a session for the next."""
        with weir.client(hello="client.test") as client:
            starttls(client, "weir.test", by, session)
            client.expect(250, "NOOP")
            was, session = client.sock.session_reused, client.sock.session
            client.quit()
            return was, session

    def test_on_any_shard_and_after_a_new_certificate(self):
        mx = self.pair("mx", "weir.test")
        weir = self.serve("--tls-cert", mx[0], "--tls-key", mx[1], "--steer", "kernel", shards=4)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            by = context(maximum_version=version)
            was, session = self.resumed(weir, by)
            self.assertFalse(was)
            for _ in range(8):
                was, session = self.resumed(weir, by, session)
                self.assertTrue(was, f"{version} on another shard")
        new = self.pair("mx", "weir.test")
        self.wait_shown(weir, new[2])
        self.assertTrue(self.resumed(weir, by, session)[0])

    def test_among_hosts_with_one_file_of_keys(self):
        mx = self.pair("mx", "weir.test")
        keys = os.path.join(self.folder, "tickets")
        with open(keys, "w") as file:
            file.write("a1" * 32 + "\n" + "b2" * 32 + "\n")
        flags = ("--tls-cert", mx[0], "--tls-key", mx[1])
        one, two, alone = self.serve(*flags, "--tls-tickets-file", keys), self.serve(*flags, "--tls-tickets-file", keys), self.serve(*flags)
        by = context()
        session = self.resumed(one, by)[1]
        was, session = self.resumed(two, by, session)
        self.assertTrue(was)
        self.assertFalse(self.resumed(alone, by, session)[0])
        # Both keys leave at once: sessions made with them are worth nothing.
        with open(keys, "w") as file:
            file.write("c3" * 32 + "\n")
        two.signal(signal.SIGHUP)
        wait_until(lambda: "reloaded" in two.log(), "the reload", 5)
        wait_until(lambda: not self.resumed(two, by, session)[0], "the new keys", 5, 0.2)


class TlsUpstream(Upstream):
    """One that begins with the handshake."""

    def __init__(self, certificate, key):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        super().__init__()

    def dialogue(self, sock):
        return Dialogue(self, self.context.wrap_socket(sock, server_side=True))


class Upstreams(Certificates):
    def test_the_ca_file_is_read_again(self):
        mx, stranger = self.pair("mx", "mx.test"), self.pair("stranger", "mx.test")
        ca = os.path.join(self.folder, "ca.pem")

        def trust(certificate):
            with open(certificate) as file, open(ca + ".new", "w") as new:
                new.write(file.read())
            os.rename(ca + ".new", ca)

        trust(stranger[0])
        upstream = TlsUpstream(mx[0], mx[1])
        self.addCleanup(upstream.stop)
        spec = f"127.0.0.1:{upstream.port},implicit-tls,tls=verify,sni=mx.test"
        weir = self.weir("--upstream-ca", ca, "--queue-wait", "500ms", "--probe-interval", "1s", upstreams=[spec], ready=False)
        wait_until(lambda: weir.get("/healthz")[0] == 200, "weir to start")

        def code(tag):
            with Client(weir.port, hello="client.test") as client:
                reply = client.command("MAIL FROM:<a@client.test>")
                if reply.code == 250:
                    reply = client.command("RCPT TO:<b@weir.test>")
                return reply.code

        self.assertEqual(code("stranger"), 451, "nobody is spoken to who cannot show a certificate of that CA")
        trust(mx[0])
        wait_until(lambda: code("known") == 250, "the new CA", 30, 0.5)
        self.assert_alive(weir, "inside-tls")
        self.assertEqual(upstream.tags(), ["inside-tls"])
