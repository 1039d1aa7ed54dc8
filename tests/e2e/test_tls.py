"""TLS with clients and with upstreams: mail inside it, and everything that goes wrong on the way there and in it."""

import contextlib
import signal
import ssl
import subprocess
import time
import unittest

from servers import Postfix, program
from test_identity import body
from tlstest import Inside, Papers, TlsCase, TlsClient, context
from weirtest import Client, Closed, first_difference, free_port, message, reset, stuff, wait_until


def tearDownModule():
    Papers.burn()


OLD = dict(maximum_version=ssl.TLSVersion.TLSv1_2)


class Mail(TlsCase):
    """Messages arrive byte for byte, whatever the way in and the way on."""

    def test_all_ways_in(self):
        upstream = self.upstream()
        weir = self.certified(upstreams=[upstream])
        for version in ("1.2", "1.3"):
            by = context(**(OLD if version == "1.2" else {}))
            for implicit in (False, True):
                for way in ("data", "bdat"):
                    tag = f"{version}-{implicit}-{way}"
                    text = message(tag, 300_000)
                    with self.subTest(tag):
                        port = weir.tls if implicit else weir.port
                        with TlsClient(port, implicit=implicit, by=by) as client:
                            self.assertEqual(client.sock.tls.version(), f"TLSv{version}")
                            self.assertEqual(getattr(client, way)(text).code, 250)
                            self.assertEqual(client.command("QUIT").code, 221)
                            self.assertEqual(client.rest(), b"")
                            self.assertTrue(client.sock.clean, "close_notify comes before the end")
                        self.assert_relayed(upstream, tag, text)
        self.assertEqual(weir.metric("weir_tls_handshakes_total", side="client"), 4 * 2)
        self.assertEqual(weir.metric("weir_tls_injections_total"), 0)
        self.assertIn("tls=1.3", weir.log())
        wait_until(lambda: weir.metric("weir_tls_sessions") == 0, "no session to be left")

    def test_a_clients_certificate_is_told(self):
        papers = Papers.get()
        upstream = self.upstream()
        weir = self.certified("--tls-client-certs", "ask", "--tls-client-ca", papers.ca, upstreams=[upstream])
        for shown, word in ((None, ""), (papers.mx, "trusted"), (papers.foreign, "untrusted"), (papers.expired, "untrusted")):
            by = context()
            if shown:
                by.load_cert_chain(*shown)
            tag = f"shown-{shown and shown[0].rsplit('/', 1)[1]}"
            text = message(tag, 1000)
            with self.subTest(tag), TlsClient(weir.tls, implicit=True, by=by) as client:
                self.assertEqual(client.data(text).code, 250)
                client.command("QUIT")
                self.assert_relayed(upstream, tag, text)
                ended = lambda: [line for line in weir.log().splitlines() if " session " in line]
                wait_until(lambda: len(ended()) == 1 + [None, papers.mx, papers.foreign, papers.expired].index(shown), "the session's line")
                self.assertEqual("certificate=" in ended()[-1], bool(word), ended()[-1])
                self.assertIn(f"certificate={word}" if word else "tls=1.3", ended()[-1].split())

    def test_records_of_any_size(self):
        upstream = self.upstream()
        weir = self.certified(upstreams=[upstream])
        for size in (1, 2, 3, 5, 1000, 16383, 16384):
            tag = f"records-{size}"
            text = message(tag, 3000 if size < 1000 else 200_000)
            with TlsClient(weir.tls, implicit=True) as client:
                client.envelope()
                client.expect(354, "DATA")
                sealed = client.sock.records(stuff(text) + b".\r\n", size)
                # Segments that keep to nothing.
                for at in range(0, len(sealed), 7919):
                    client.raw.sendall(sealed[at : at + 7919])
                self.assertEqual(client.reply().code, 250)
            self.assert_relayed(upstream, tag, text)

    def test_ciphertext_byte_by_byte(self):
        upstream = self.upstream()
        weir = self.certified(upstreams=[upstream])
        text = message("trickle")[:300] + b"\r\n"
        with TlsClient(weir.tls, implicit=True) as client:
            client.envelope()
            client.expect(354, "DATA")
            for octet in client.sock.records(stuff(text) + b".\r\n", 50):
                client.raw.sendall(bytes([octet]))
            self.assertEqual(client.reply().code, 250)
        self.assert_relayed(upstream, "trickle", text)

    def test_openssl_and_upstream_inside_tls(self):
        for implicit in (False, True):
            upstream = self.tls_upstream(implicit=implicit)
            spec = f"127.0.0.1:{upstream.port},sni=mx.test,tls=verify" + (",implicit-tls" if implicit else "")
            weir = self.certified("--upstream-ca", self.papers.ca, upstreams=[spec])
            text = b"Subject: s_client\r\nX-Tag: s-client\r\n\r\n..dots\r\n"
            talk = [b"EHLO s.client.test\r\n", b"MAIL FROM:<a@client.test>\r\n", b"RCPT TO:<b@weir.test>\r\n", b"DATA\r\n", b".\r\n".join([stuff(text), b""]), b"QUIT\r\n"]
            said = self.s_client(weir, talk)
            self.assertIn("Verify return code: 0 (ok)", said)
            self.assertEqual(said.count("\n250 2.0.0 Ok: kept"), 1, said)
            self.assert_relayed(upstream, "s-client", text)
            self.assertFalse(any(line[:4].upper() in (b"MAIL", b"RCPT") for line in upstream.plain))
            self.assertEqual(upstream.violations, [])

    def s_client(self, weir, talk):
        argv = [program("openssl"), "s_client", "-connect", f"127.0.0.1:{weir.port}", "-starttls", "smtp", "-CAfile", self.papers.ca,
                "-verify_hostname", "weir.test", "-servername", "weir.test", "-crlf", "-ign_eof", "-nocommands"]
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            for part in talk:
                child.stdin.write(part.replace(b"\r\n", b"\n"))
                child.stdin.flush()
                time.sleep(0.15)
            return child.communicate(timeout=20)[0].decode()
        finally:
            child.kill()
            child.wait()

    def test_postfix_inside_tls_on_both_sides(self):
        postfix = Postfix(
            self, smtpd_tls_security_level="encrypt", smtpd_tls_cert_file=self.papers.mx[0], smtpd_tls_key_file=self.papers.mx[1], smtpd_tls_loglevel="1"
        )
        spec = f"127.0.0.1:{postfix.port},sni=mx.test"
        weir = self.certified("--tls", "require", "--upstream-tls", "verify", "--upstream-ca", self.papers.ca, upstreams=[spec])
        sent = body(400_000)
        for way in ("data", "bdat"):
            with TlsClient(weir.port) as client:
                self.assertEqual(getattr(client, way)(sent).code, 250, weir.log()[-1500:])
                client.quit()
        wait_until(lambda: len(postfix.messages()) == 2, "two messages in the mailbox", 30, 0.2)
        for one in postfix.messages():
            self.assertTrue(one == sent, first_difference(one, sent))
        self.assertIn("TLS connection established", postfix.log())

    def test_one_pooled_connection_keeps_its_tls(self):
        upstream = self.tls_upstream()
        spec = f"127.0.0.1:{upstream.port},sni=mx.test,max=1"
        weir = self.certified("--upstream-tls", "verify", "--upstream-ca", self.papers.ca, upstreams=[spec], shards=1)
        for number in range(20):
            secured = number % 2 == 0
            with TlsClient(weir.port) if secured else weir.client(hello="client.test") as client:
                self.assertEqual(client.data(message(f"pooled-{number}")).code, 250)
                client.quit()
        self.assertEqual(len(upstream.messages), 20)
        self.assertLessEqual(upstream.handshakes, 3, "probe and pool")
        self.assertEqual({line.split(b" ")[0] for line in upstream.plain}, {b"EHLO", b"STARTTLS"})


class Required(TlsCase):
    def test_no_mail_without_it(self):
        upstream = self.upstream()
        weir = self.certified("--tls", "require", upstreams=[upstream])
        with weir.client() as client:
            self.assertIn(b"STARTTLS", client.hello().text)
            for command in ("MAIL FROM:<a@client.test>", "RCPT TO:<b@weir.test>", "DATA", "VRFY b", "AUTH PLAIN AGEAYg=="):
                reply = client.command(command)
                self.assertIn(reply.code, (530, 502, 503) if command[:4] in ("AUTH", "VRFY") else (530,), command)
                if reply.code == 530:
                    self.assertEqual(reply.enhanced, "5.7.0")
            for command in ("NOOP", "RSET"):
                client.expect(250, command)
            client.send(b"BDAT 6 LAST\r\nNOOP\r\n")
            self.assertEqual(client.reply().code, 530)
            client.expect(220, "STARTTLS")
            client.sock = Inside(client.sock).handshake()
            client.hello()
            self.assertEqual(client.data(message("required")).code, 250)
        self.assertEqual(upstream.tags(), ["required"])

    def test_a_listener_may_differ(self):
        port = free_port()
        weir = self.certified(listen=["127.0.0.1:{port}", f"127.0.0.1:{port},tls=require"])
        with Client(port, hello="client.test") as client:
            client.expect(530, "MAIL FROM:<a@client.test>")
        self.assert_alive(weir)


class Glued(TlsCase):
    """What comes behind STARTTLS in plaintext is never a command: not answered, not counted, not passed on."""

    MARK = b"MAIL FROM:<injected@evil.test>\r\nRCPT TO:<injected@evil.test>\r\nDATA\r\n"

    def secured(self, weir, pieces, pause=0.0):
        """Sends these pieces, ending in STARTTLS and something behind it; then TLS, if weir goes there."""
        with weir.client(hello="plain.test") as client:
            for piece in pieces:
                client.send(piece)
                if pause:
                    time.sleep(pause)
            reply = client.reply()
            self.assertEqual(reply.code, 220, reply)
            self.assertIn(client.buffer[:1], (b"", b"\x15"), "nothing but the 220 in plaintext, and perhaps an alert")
            if client.buffer:
                self.assertEqual(client.rest(5)[7:], b"")
                return False
            try:
                client.sock = Inside(client.sock).handshake()
            except (ssl.SSLError, OSError):
                return False
            self.assertTrue(client.quiet(0.02), "no reply to what was injected")
            client.hello()
            self.assertEqual(client.command("DATA").code, 503)
            self.assertEqual(client.command("QUIT").code, 221)
            return True

    def check(self, weir, upstream):
        self.assertNotIn("injected", weir.log().replace("tls-injection", "").replace("tls_injection", ""))
        self.assertFalse(any(b"evil" in line for line in upstream.commands), upstream.commands)
        self.assertEqual(upstream.messages, [])

    def test_in_the_same_segment(self):
        upstream = self.upstream()
        weir = self.certified(upstreams=[upstream])
        tails = (b"NOOP\r\n", b"\r\n", b"\n", b"X", self.MARK, b"QUIT\r\n", b"STARTTLS\r\n", b"\0" * 5000, b"x" * 9000, b"\x16\x03\x01\x00\x05hello")
        for number, tail in enumerate(tails):
            with self.subTest(tail=tail[:20]):
                self.assertTrue(self.secured(weir, [b"STARTTLS\r\n" + tail]))
                self.assertEqual(weir.metric("weir_tls_injections_total"), number + 1)
        self.check(weir, upstream)
        self.assertEqual(weir.metric("weir_findings_total", finding="tls-injection"), len(tails))

    def test_split_at_every_byte(self):
        upstream = self.upstream()
        weir = self.certified(upstreams=[upstream])
        whole = b"STARTTLS\r\nRSET\r\n"
        for at in range(6, len(whole)):
            with self.subTest(at=at):
                # The second piece comes with the 220's way out, or after it: then it is no ClientHello.
                self.secured(weir, [whole[:at], whole[at:]], 0.004)
        self.check(weir, upstream)
        failures = weir.metric("weir_tls_failures_total", side="client", reason="garbage")
        self.assertGreaterEqual(weir.metric("weir_tls_injections_total") + failures, len(whole) - 6)
        self.assertGreaterEqual(weir.metric("weir_tls_injections_total"), 4)

    def test_in_a_pipelined_group(self):
        upstream = self.upstream()
        weir = self.certified(upstreams=[upstream])
        with weir.client(hello="plain.test") as client:
            client.send(b"NOOP\r\nRSET\r\nSTARTTLS\r\n" + self.MARK)
            self.assertEqual([client.reply().code for _ in range(3)], [250, 250, 220])
            client.sock = Inside(client.sock).handshake()
            self.assertTrue(client.quiet(0.1))
            client.hello()
            client.quit()
        self.check(weir, upstream)

    def test_while_the_220_is_held_back(self):
        upstream = self.upstream()
        weir = self.certified("--delay", "300ms", "--on", "junk=delay", "--on", "tls-injection=drop", upstreams=[upstream])
        with weir.client(hello="plain.test") as client:
            client.send(b"STARTTLS\r\n" + self.MARK)
            self.assertEqual(client.reply().code, 220)
            client.sock = Inside(client.sock).handshake()
            # Said inside TLS, and to nobody else.
            reply = client.reply()
            self.assertEqual(reply.code, 421, reply)
            self.assertEqual(client.rest(), b"")
        self.check(weir, upstream)

    def test_nothing_survives_the_switch(self):
        upstream = self.upstream()
        weir = self.certified(upstreams=[upstream])
        with weir.client(hello="plain.test") as client:
            client.send(b"STARTTLS\r\nMAIL FROM:<in")
            self.assertEqual(client.reply().code, 220)
            client.sock = Inside(client.sock).handshake()
            # The rest of a line whose beginning was plaintext.
            self.assertEqual(client.command(b"jected@evil.test>").code, 500)
            self.assertIn(client.command("MAIL FROM:<a@client.test>").code, (503, 250), "EHLO is forgotten or not asked for")
        self.assertFalse(any(b"injected" in line for line in upstream.commands))


class Misuse(TlsCase):
    def test_starttls_where_it_does_not_belong(self):
        weir = self.certified("--on", "errors-soft=log")
        with weir.client() as client:
            self.assertIn(client.command("STARTTLS").code, (220, 503), "before EHLO")
        with weir.client(hello="client.test") as client:
            self.assertEqual(client.command("STARTTLS now").code, 501)
            client.expect(250, "MAIL FROM:<a@client.test>")
            self.assertEqual(client.command("STARTTLS").code, 503)
            client.expect(250, "RCPT TO:<b@weir.test>")
            self.assertEqual(client.command("STARTTLS").code, 503)
            client.expect(354, "DATA")
            client.send(message("with-starttls-inside") + b"STARTTLS\r\n.\r\n")
            self.assertEqual(client.reply().code, 250)
        with TlsClient(weir.port) as client:
            self.assertNotIn(b"STARTTLS", client.hello().text)
            reply = client.command("STARTTLS")
            self.assertIn(reply.code, (503, 554), reply)
            self.assertEqual(client.data(message("after-twice")).code, 250)
        with TlsClient(weir.tls, implicit=True) as client:
            self.assertNotIn(b"STARTTLS", client.hello().text)
            self.assertIn(client.command("STARTTLS").code, (503, 554))
            self.assertEqual(client.data(message("after-implicit")).code, 250)

    def test_starttls_between_chunks(self):
        upstream = self.upstream()
        weir = self.certified(upstreams=[upstream])
        with weir.client(hello="client.test") as client:
            client.envelope()
            client.send(b"BDAT 5\r\nabcde")
            self.assertEqual(client.reply().code, 250)
            self.assertEqual(client.command("STARTTLS").code, 503)
        self.assertEqual(upstream.messages, [])

    def test_no_certificate(self):
        weir = self.weir(upstreams=[self.upstream()])
        with weir.client() as client:
            self.assertNotIn(b"STARTTLS", client.hello().text)
            self.assertIn(client.command("STARTTLS").code, (500, 502, 503, 454))
            self.assertEqual(client.data(message("never-offered")).code, 250)


class Handshakes(TlsCase):
    SSL2 = bytes.fromhex("802e0100020015000000100100800300800700c00600400200800400800000000000000000000000000000000000000000")

    def both(self, weir):
        """A socket in front of each kind of handshake."""
        yield Client(weir.tls, greeting=False)
        client = weir.client(hello="client.test")
        client.expect(220, "STARTTLS")
        yield client

    def test_garbage_in_place_of_a_hello(self):
        weir = self.certified()
        kinds = {
            "smtp": b"EHLO plain.test\r\n",
            "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "zero": b"\0" * 600,
            "ones": b"\xff" * 70000,
            "sslv2": self.SSL2,
            "alert": b"\x15\x03\x01\x00\x02\x02\x28",
            "data": b"\x17\x03\x03\x00\x05hello",
            "ccs": b"\x14\x03\x03\x00\x01\x01" * 200,
            "huge": b"\x16\x03\x01\xff\xff" + b"\x01" * 1000,
            "empty": b"\x16\x03\x01\x00\x00" * 1000,
            "proxy": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            "server hello": b"\x16\x03\x03\x00\x04\x02\x00\x00\x00",
            "endless hello": b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + b"\0" * (16384 - 4) + (b"\x16\x03\x01\x40\x00" + b"\0" * 16384) * 8,
        }
        began = time.monotonic()
        for name, garbage in kinds.items():
            for client in self.both(weir):
                with self.subTest(name), client:
                    with contextlib.suppress(Closed, OSError):
                        client.send(garbage)
                    rest = client.rest(8)
                    self.assertTrue(rest == b"" or rest[:1] == b"\x15", f"an alert or nothing, not {rest[:60]!r}")
        self.assertLess(time.monotonic() - began, 15, "nobody waits for a handshake that cannot be")
        self.assertEqual(weir.metric("weir_tls_failures_total", side="client"), 2 * len(kinds))
        self.assertEqual(weir.metric("weir_findings_total", finding="tls-failed"), 2 * len(kinds))
        wait_until(lambda: weir.metric("weir_tls_sessions") == 0, "no connection to be left")
        self.assert_alive(weir)

    def test_half_a_handshake(self):
        weir = self.certified("--tls-handshake-timeout", "1s")
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            context().wrap_bio(incoming, outgoing).do_handshake()
        hello = outgoing.read()
        began, clients = time.monotonic(), []
        for sent in (b"", hello[:1], hello[:5], hello[:-1], hello):
            for client in self.both(weir):
                client.send(sent)
                clients.append(client)
        for client in clients:
            client.rest(5)
            client.close()
        self.assertLess(time.monotonic() - began, 4)
        self.assertGreater(time.monotonic() - began, 0.9)
        # A drop every now and then does not make it longer.
        with Client(weir.tls, greeting=False) as client, contextlib.suppress(Closed, OSError):
            began = time.monotonic()
            for octet in hello:
                client.send(bytes([octet]))
                time.sleep(0.05)
                if time.monotonic() - began > 3:
                    self.fail("a handshake of drops is kept for ever")
        self.assertGreaterEqual(weir.metric("weir_tls_failures_total", side="client", reason="timeout"), 11)
        wait_until(lambda: weir.metric("weir_tls_sessions") == 0, "no connection to be left")

    def test_a_drain_does_not_wait_for_them(self):
        weir = self.certified("--drain-timeout", "1s")
        clients = [client for _ in range(5) for client in self.both(weir)]
        began = time.monotonic()
        weir.signal(signal.SIGTERM)
        for client in clients:
            self.assertEqual(client.rest(5), b"")
            client.close()
        self.assertEqual(weir.wait(10), 0)
        self.assertLess(time.monotonic() - began, 5)

    def test_plaintext_for_tls_and_tls_for_plaintext(self):
        weir = self.certified("--greet-wait", "0")
        with Client(weir.tls, greeting=False) as client:
            self.assertTrue(client.quiet(0.3), "no greeting in plaintext")
        # A ClientHello on a plaintext listener: refused or hung up, never believed.
        with weir.client() as client:
            inside = Inside(client.sock, context())
            with self.assertRaises((ssl.SSLError, OSError)):
                inside.handshake()
        self.assert_alive(weir)

    def test_a_flood_is_held_to_its_rate(self):
        weir = self.certified("--rate-handshakes", "5/h", "--client-concurrency", "0")
        codes = []
        for _ in range(8):
            with weir.client(hello="client.test") as client:
                reply = client.command("STARTTLS")
                codes.append(reply.code)
                if reply.code == 220:
                    Inside(client.sock).handshake()
                else:
                    self.assertEqual(reply.enhanced, "4.7.0")
                    self.assertEqual(client.data(message("no-more-tls")).code, 250, "in plaintext it goes on")
        self.assertEqual(codes, [220] * 5 + [454] * 3)
        with Client(weir.tls, greeting=False) as client, contextlib.suppress(OSError):
            self.assertEqual(client.rest(3), b"")
        # Another address is another client.
        with TlsClient(weir.tls, implicit=True, source="127.0.0.9") as client:
            client.quit()
        self.assertEqual(weir.metric("weir_findings_total", finding="rate-handshakes"), 4)

    def test_alerts(self):
        weir = self.certified()
        strict = ssl.create_default_context(cafile=self.papers.path("stranger.crt"))
        with Client(weir.tls, greeting=False) as client:
            with self.assertRaises(ssl.SSLCertVerificationError):
                Inside(client.sock, strict, "weir.test").handshake()
            client.sock.close()
        wait_until(lambda: weir.metric("weir_tls_failures_total", side="client", reason="alert") == 1, "the client's alert")
        # TLS 1.1 and before: no version in common.
        old = subprocess.run(
            [program("openssl"), "s_client", "-connect", f"127.0.0.1:{weir.tls}", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"],
            input=b"", capture_output=True, timeout=20,
        )
        self.assertNotEqual(old.returncode, 0)
        wait_until(lambda: weir.metric("weir_tls_failures_total", side="client", reason="incompatible") == 1, "the old version")
        self.assert_alive(weir)

    def test_renegotiation(self):
        weir = self.certified()
        argv = [program("openssl"), "s_client", "-connect", f"127.0.0.1:{weir.tls}", "-tls1_2", "-no_ign_eof", "-legacy_renegotiation"]
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            for part in (b"EHLO s.client.test\n", b"R\n"):
                time.sleep(0.4)
                child.stdin.write(part)
                child.stdin.flush()
            said = child.communicate(timeout=15)[0]
        finally:
            child.kill()
            child.wait()
        self.assertIn(b"RENEGOTIATING", said)
        wait_until(lambda: weir.metric("weir_tls_sessions") == 0, "the session to end")
        self.assertEqual(weir.metric("weir_tls_handshakes_total", side="client"), 1)
        self.assertTrue(weir.metric("weir_tls_failures_total", side="client") + weir.metric("weir_tls_cut_total", side="client") >= 1)
        self.assert_alive(weir)


class Cut(TlsCase):
    """A stream that ends without close_notify was cut, perhaps by somebody else: nothing passes for whole that is not."""

    def session(self, weir):
        return TlsClient(weir.tls, implicit=True)

    def ways(self, client, clean):
        """Close_notify or not, FIN or reset."""
        if clean == "clean":
            client.sock.notify()
            client.cut()
        elif clean == "fin":
            client.cut()
        elif clean == "reset":
            reset(client.raw)
        else:
            client.raw.sendall(b"\x17\x03\x03\x00\x30" + b"\x55" * 48)

    def test_in_the_middle(self):
        upstream = self.upstream()
        weir = self.certified(upstreams=[upstream])
        whole = stuff(message("cut-anywhere", 60_000))
        points = {
            "first byte": b"S",
            "a line": whole[:1000],
            "line end": whole[: whole.index(b"\r\n", 30_000) + 2],
            "large": whole,
            "before the dot": whole.rstrip(b"\r\n") + b"\r\n",
            "dot": whole + b".",
            "dot and CR": whole + b".\r",
        }
        count = 0
        for how in ("clean", "fin", "reset", "garbage"):
            for name, sent in points.items():
                with self.subTest(how=how, at=name):
                    client = self.session(weir)
                    client.envelope()
                    client.expect(354, "DATA")
                    client.send(sent)
                    self.ways(client, how)
                    if how != "reset":
                        rest = client.rest(5)
                        self.assertNotIn(b"250", rest)
                    client.close()
                    count += 1
        for how in ("clean", "fin", "reset", "garbage"):
            for name, sent in (("header", b"BDAT 60"), ("chunk", b"BDAT 60000 LAST\r\n" + whole[:59_999]), ("second", b"BDAT 100\r\n" + whole[:100] + b"BDAT 100 LAST\r\n" + whole[:99])):
                with self.subTest(how=how, bdat=name):
                    client = self.session(weir)
                    client.envelope()
                    client.send(sent)
                    self.ways(client, how)
                    if how != "reset":
                        client.rest(5)
                    client.close()
                    count += 1
        wait_until(lambda: weir.metric("weir_tls_sessions") == 0, "all sessions to end")
        self.assertEqual(upstream.messages, [], "half a message was delivered")
        self.assertGreaterEqual(weir.metric("weir_tls_cut_total", side="client"), len(points) + 3)
        self.assertGreaterEqual(weir.metric("weir_tls_failures_total", side="client", reason="misbehaved"), len(points) + 3)
        wait_until(lambda: weir.log().count(" transaction ") >= count, "a line for each")
        self.assertNotIn("outcome=accepted", weir.log())
        self.assert_alive(weir)

    def test_right_after_the_dot(self):
        upstream = self.upstream(delay={".": 0.1})
        weir = self.certified(upstreams=[upstream])
        want = []
        for how in ("clean", "fin", "reset", "garbage"):
            for way in ("data", "bdat"):
                tag = f"after-{how}-{way}"
                text = message(tag, 5000)
                want.append(tag)
                client = self.session(weir)
                client.envelope()
                if way == "data":
                    client.expect(354, "DATA")
                    client.send(stuff(text) + b".\r\n")
                else:
                    client.send(b"BDAT %d LAST\r\n" % len(text) + text)
                time.sleep(0.03)
                self.ways(client, how)
                if how != "reset":
                    rest = client.rest(5)
                    if how == "clean":
                        self.assertIn(b"250 ", rest, "who has said goodbye still hears the answer")
                client.close()
        # It was said in full: it is delivered, once, and logged.
        upstream.wait_messages(len(want))
        self.assertEqual(sorted(upstream.tags()), sorted(want))
        wait_until(lambda: weir.log().count("outcome=accepted") == len(want), "a line for each")

    def test_commands_before_the_cut(self):
        upstream = self.upstream()
        weir = self.certified(upstreams=[upstream])
        for how in ("fin", "reset", "garbage"):
            client = self.session(weir)
            client.envelope()
            client.send(b"DATA\r")
            self.ways(client, how)
            client.close()
        wait_until(lambda: weir.metric("weir_tls_sessions") == 0, "all sessions to end")
        self.assertNotIn(b"DATA", [line.strip() for line in upstream.commands])
        self.assert_alive(weir)


class Waiting(TlsCase):
    """The greeting's wait and the pit, inside TLS."""

    def test_greet_wait_and_pregreet(self):
        weir = self.certified("--greet-wait", "700ms", "--on", "pregreet=drop")
        began = time.monotonic()
        with TlsClient(weir.tls, implicit=True) as client:
            self.assertGreater(time.monotonic() - began, 0.6)
            self.assertEqual(client.data(message("patient")).code, 250)
            client.quit()
        # Together with the end of the handshake, and after it.
        for pause in (0, 0.2):
            with Client(weir.tls, greeting=False, source="127.0.0.8") as client:
                inside = Inside(client.sock)
                if pause:
                    client.sock = inside.handshake()
                    time.sleep(pause)
                    client.send(b"EHLO early.test\r\n")
                else:
                    while True:
                        try:
                            inside.tls.do_handshake()
                            break
                        except ssl.SSLWantReadError:
                            inside.flush()
                            inside.more()
                    client.sock.sendall(inside.outgoing.read() + inside.records(b"EHLO early.test\r\n"))
                    client.sock = inside
                reply = client.reply()
                while reply.code == 220:
                    reply = client.reply()
                self.assertGreaterEqual(reply.code, 421, reply)
                self.assertEqual(client.rest(5), b"")
        self.assertEqual(weir.metric("weir_findings_total", finding="pregreet"), 2)
        self.assertIn("stage=connect", weir.log())

    def test_stutter_inside_tls(self):
        weir = self.certified("--greet-wait", "300ms", "--on", "pregreet=stutter", "--stutter-interval", "100ms")
        with Client(weir.tls, greeting=False) as client:
            client.sock = Inside(client.sock).handshake()
            client.send(b"HELO early.test\r\n")
            began = time.monotonic()
            self.assertEqual(client.reply().code, 220)
            self.assertEqual(client.reply().code, 250)
            self.assertGreater(time.monotonic() - began, 0.3)
            self.assertGreaterEqual(weir.metric("weir_tls_sessions"), 1)
            client.send(b"QUIT\r\n")
            self.assertEqual(client.reply().code, 221)
            self.assertEqual(client.rest(5), b"")
            self.assertTrue(client.sock.clean)

    def test_parked_clients_have_a_cap_of_their_own(self):
        weir = self.certified(
            "--greet-wait", "200ms", "--on", "pregreet=stutter", "--stutter-interval", "100ms", "--tls-parked-max", "4", "--tarpit-time", "1s", shards=1
        )
        clients = []
        for _ in range(10):
            client = Client(weir.tls, greeting=False)
            client.sock = Inside(client.sock).handshake()
            with contextlib.suppress(Closed, OSError):
                client.send(b"HELO early.test\r\n")
            clients.append(client)
        began = time.monotonic()
        first = []
        for client in clients:
            try:
                first.append(client.line()[:3])
            except Closed:
                first.append(b"")
        self.assertEqual(first.count(b"220"), 4, first)
        self.assertTrue(all(code in (b"220", b"421", b"") for code in first), first)
        self.assertLess(time.monotonic() - began, 10)
        for client in clients:
            client.close()
        wait_until(lambda: weir.metric("weir_tls_sessions") == 0, "all of them to leave")
        self.assert_alive(weir)


if __name__ == "__main__":
    unittest.main()
