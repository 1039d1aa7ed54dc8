"""Hostile and broken clients: a defined reply, no panic, no leak, and never an open relay."""

import os
import random
import time
import unittest

from weirtest import Case, Client, Closed, message, stuff, wait_until

DATA_ONLY = ("PIPELINING", "SIZE 50000000", "8BITMIME", "ENHANCEDSTATUSCODES")


class Commands(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()

    def setUp(self):
        super().setUp()
        self.mx = self.upstream()
        self.proxy = self.weir(upstreams=[self.mx])

    def test_malformed_commands_get_5xx_and_the_session_goes_on(self):
        lines = [
            b"", b" ", b"\t", b"EHLO", b"HELO", b"MAIL", b"MAIL FROM", b"MAIL FROM:", b"MAIL FROM:a@b", b"MAIL FROM:<a@b", b"MAIL TO:<a@b>",
            b"RCPT TO:<>", b"RCPT", b"DATA x", b"BDAT", b"BDAT -1", b"BDAT 1x", b"BDAT LAST", b"BDAT 99999999999999999999", b"FOO", b"FOO BAR",
            b"MAIL FROM:<a@b> SIZE", b"MAIL FROM:<a@b> SIZE=", b"MAIL FROM:<a@b> SIZE=-1", b"MAIL FROM:<a@b> X", b"\x80\x81\x82", b"NOOP\x00",
            b"MAIL FROM:<\x00@b>", b"MAIL\x00FROM:<a@b>", b"M\xc3\xa4IL FROM:<a@b>", b"%s%n%d", b"../../etc/passwd", b"RCPT TO:<b@weir.test>",
        ]
        for line in lines:
            with self.subTest(line=line), self.proxy.client(hello="client.test") as client:
                reply = client.command(line)
                self.assertEqual(reply.code // 100, 5, reply)
                self.assertIsNotNone(reply.enhanced, reply)
                try:
                    self.assertEqual(client.command("NOOP").code, 250)
                except Closed:
                    self.assertIn(reply.code, (521, 501, 500), f"{reply} closed the session")
        self.assert_alive(self.proxy)

    def test_long_lines(self):
        for length in (500, 1000, 2000, 4096, 5000, 20_000, 1_000_000):
            with self.subTest(length=length), self.proxy.client(hello="client.test") as client:
                reply = client.command(b"NOOP " + b"x" * length)
                self.assertIn(reply.code, (250,) if length < 4000 else (250, 500))
                client.expect(250, "NOOP")
        with self.proxy.client(hello="client.test") as client:
            self.assertIn(client.command("MAIL FROM:<" + "a" * 10_000 + "@client.test>").code // 100, (5,))
            client.expect(250, "NOOP")

    def test_endless_line_without_newline(self):
        client = self.proxy.client(hello="client.test")
        with self.assertRaises((Closed, OSError)):
            for _ in range(200):
                client.send(b"x" * 65536)
                time.sleep(0.005)
            client.sock.settimeout(5)
            if client.sock.recv(1000).startswith(b"5"):
                raise Closed
        client.close()
        self.assert_alive(self.proxy)

    def test_bare_newlines_in_commands(self):
        with self.proxy.client(hello="client.test") as client:
            client.send(b"NOOP\rNOOP\r\n")
            self.assertEqual(client.reply().code // 100, 5)
            client.expect(250, "NOOP")

    def test_smuggling_attempts_never_make_a_second_message(self):
        ends = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\r\n\x00.\r\n", b"\r\n.\x00\r\n", b"\n\r.\n\r"]
        evil = b"MAIL FROM:<evil@client.test>\r\nRCPT TO:<b@weir.test>\r\nDATA\r\nX-Tag: evil\r\n\r\nevil\r\n.\r\n"
        for extensions in (DATA_ONLY, self.mx.EXTENSIONS):
            for policy in ("reject", "normalize", "pass"):
                mx = self.upstream(extensions)
                weir = self.weir("--bare-newline", policy, upstreams=[mx], shards=1)
                for end in ends:
                    with self.subTest(end=end, policy=policy, extensions=extensions), weir.client(hello="client.test") as client:
                        client.envelope()
                        client.expect(354, "DATA")
                        client.send(b"X-Tag: carrier\r\n\r\nbody" + end + evil)
                        client.reply()
                        client.expect(250, "NOOP")
                    self.assertEqual([m.sender for m in mx.messages if m.sender != "a@client.test"], [])
                if extensions is DATA_ONLY or policy != "pass":
                    self.assertNotIn("bare newline in a body", mx.violations)

    def test_bare_newline_policies(self):
        body = b"X-Tag: bare\r\n\r\none\ntwo\rthree\r\n"
        want = {"reject": None, "normalize": b"X-Tag: bare\r\n\r\none\r\ntwo\r\nthree\r\n", "pass": body}
        for policy, kept in want.items():
            mx = self.upstream()
            weir = self.weir("--bare-newline", policy, upstreams=[mx], shards=1)
            for way in ("data", "bdat"):
                with self.subTest(policy=policy, way=way), weir.client(hello="client.test") as client:
                    reply = getattr(client, way)(body)
                    self.assertEqual(reply.code, 250 if kept else 550, reply)
                    if kept:
                        self.assertEqual(mx.messages.pop().body, kept)
                    client.expect(250, "NOOP")

    def test_reject_is_the_default(self):
        with self.proxy.client(hello="client.test") as client:
            reply = client.data(b"one\ntwo\r\n")
            self.assertEqual((reply.code, reply.enhanced), (550, "5.5.2"))

    def test_other_protocols_are_sent_away(self):
        for opening in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST / HTTP/1.0\r\n\r\n", b"CONNECT x:25 HTTP/1.1\r\n\r\n", b"Subject: x\r\nFrom: y\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(11, 250)) + b"\r\n"):
            with self.subTest(opening=opening[:20]), self.proxy.client() as client:
                try:
                    client.send(opening)
                    answer = client.rest(5)
                    self.assertRegex(answer, rb"^5\d\d ")
                except TimeoutError:
                    self.fail(f"{opening[:20]!r} was not sent away")
        self.assert_alive(self.proxy)

    def test_random_bytes(self):
        chance = random.Random(25)
        for _ in range(40):
            client = self.proxy.client()
            try:
                for _ in range(chance.randrange(1, 6)):
                    client.send(chance.randbytes(chance.randrange(1, 4000)))
                client.half_close()
                client.rest(10)
            except (Closed, OSError):
                pass
            client.close()
        self.assert_alive(self.proxy)
        self.assertEqual([m.tag for m in self.mx.messages], ["alive-after-all"])

    def test_wrong_order(self):
        with self.proxy.client() as client:
            client.expect(503, "MAIL FROM:<a@client.test>")
            client.hello()
            client.expect(503, "RCPT TO:<b@weir.test>")
            client.expect(503, "DATA")
            client.send(b"BDAT 6 LAST\r\nQUIT\r\n")
            self.assertEqual(client.reply().code, 503)
            client.expect(250, "MAIL FROM:<a@client.test>")
            client.expect(503, "MAIL FROM:<a@client.test>")

    def test_half_closed_connections_are_ended(self):
        clients = [self.proxy.client(hello=f"half{n}.test") for n in range(20)]
        for client in clients:
            client.half_close()
        for client in clients:
            client.rest(10)
            client.close()
        self.assert_alive(self.proxy)

    def test_clients_that_never_read(self):
        clients = [self.proxy.client(hello="deaf.test") for _ in range(10)]
        before = self.proxy.memory_kib()
        for client in clients:
            client.sock.settimeout(1)
            try:
                for _ in range(300):
                    client.send(b"HELP\r\n" * 500)
            except (OSError, Closed):
                pass
        self.assertLess(self.proxy.memory_kib() - before, 60_000, "unread replies are bounded")
        self.assert_alive(self.proxy)
        for client in clients:
            client.reset()

    def test_connect_and_vanish(self):
        for turn in range(300):
            client = Client(self.proxy.port, greeting=False)
            client.reset() if turn % 2 else client.close()
        self.assert_alive(self.proxy)


class SlowLoris(Case):
    def test_slow_clients_do_not_stand_in_the_way(self):
        mx = self.upstream()
        weir = self.weir("--pool-max", 2, upstreams=[mx])
        slow = []
        for n in range(50):
            client = weir.client(hello="slow.test")
            client.envelope()
            client.expect(354, "DATA")
            client.send(b"X-Tag: slow\r\n")
            slow.append(client)
        began = time.monotonic()
        self.assert_alive(weir)
        self.assertLess(time.monotonic() - began, 3)
        for client in slow:
            client.send(b".\r\n")
        for client in slow:
            self.assertEqual(client.reply().code, 250)
            client.close()

    def test_command_timeout(self):
        weir = self.weir("--timeout-command", "1s", "--timeout-idle", "1s", upstreams=[self.upstream()])
        client = weir.client(hello="slow.test")
        for byte in b"NOO":
            client.send(bytes([byte]))
            time.sleep(0.2)
        reply = client.reply()
        self.assertEqual((reply.code, reply.enhanced), (421, "4.4.2"))
        self.assertEqual(client.rest(5), b"")

    def test_minimum_data_rate_while_an_upstream_is_held(self):
        mx = self.upstream(DATA_ONLY)
        weir = self.weir("--min-data-rate", "100KiB/s", upstreams=[mx])
        client = weir.client(hello="slow.test")
        client.envelope()
        client.expect(354, "DATA")
        client.send(stuff(message("too-slow", 400_000)))
        with self.assertRaises((Closed, AssertionError)):
            # Judged at the end of a window of 30 s, after a grace of 10 s.
            for _ in range(250):
                client.send(b"x\r\n")
                time.sleep(0.2)
                if not client.quiet(0):
                    raise Closed
        text = client.rest(5)
        self.assertRegex(text, rb"^4\d\d ")
        self.assert_alive(weir)
        self.assertEqual(mx.by_tag("too-slow"), [])


class OpenRelay(Case):
    def test_foreign_recipients_are_refused(self):
        mx = self.upstream()
        weir = self.weir("--relay-domains", "weir.test,.sub.test", relay=False, upstreams=[mx])
        refused = [
            "x@elsewhere.test", "x@weir.test.evil.test", "x@evil-weir.test", "x%elsewhere.test@other.test", "@weir.test:x@elsewhere.test",
            '"x@weir.test"@elsewhere.test', "x@[192.0.2.1]", "elsewhere.test!x@other.test", "x@WEIR.TEST.evil.test", "x@weir.test@elsewhere.test",
        ]
        with weir.client(hello="client.test") as client:
            client.expect(250, "MAIL FROM:<b@weir.test>")
            for recipient in refused:
                reply = client.command(f"RCPT TO:<{recipient}>")
                self.assertEqual(reply.code // 100, 5, f"{recipient} got {reply}")
            reply = client.command("RCPT TO:<x@elsewhere.test>")
            self.assertEqual((reply.code, reply.enhanced), (550, "5.7.1"))
            client.expect(250, "RCPT TO:<b@Weir.Test>")
            client.expect(250, "RCPT TO:<Postmaster>")
        for command in mx.commands:
            self.assertNotIn(b"elsewhere", command)

    def test_percent_and_bang_hacks_within_a_relay_domain(self):
        weir = self.weir("--relay-domains", "weir.test", relay=False, upstreams=[self.upstream()])
        with weir.client(hello="client.test") as client:
            client.expect(250, "MAIL FROM:<>")
            for recipient in ("x%elsewhere.test@weir.test", "elsewhere.test!x@weir.test", '"x@elsewhere.test"@weir.test'):
                reply = client.command(f"RCPT TO:<{recipient}>")
                self.assertEqual(reply.code, 550, f"{recipient} would be routed on by a trusting server: {reply}")

    def test_relay_from(self):
        mx = self.upstream()
        weir = self.weir("--relay-domains", "weir.test", "--relay-from", "127.0.3.0/24", relay=False, upstreams=[mx])
        for source, code in (("127.0.3.7", 250), ("127.0.4.7", 550)):
            with weir.client(hello="client.test", source=source) as client:
                client.expect(250, "MAIL FROM:<a@client.test>")
                self.assertEqual(client.command("RCPT TO:<x@elsewhere.test>").code, code)

    def test_domains_from_a_file(self):
        path = os.path.join(self.folder, "domains")
        with open(path, "w") as file:
            file.write("# ours\nweir.test\n\nother.test\n")
        weir = self.weir("--relay-domains", f"@{path}", relay=False, upstreams=[self.upstream()])
        with weir.client(hello="client.test") as client:
            client.expect(250, "MAIL FROM:<a@client.test>")
            client.expect(250, "RCPT TO:<x@other.test>")
            client.expect(550, "RCPT TO:<x@elsewhere.test>")

    def test_an_upstream_that_relays_for_the_world_is_warned_about(self):
        weir = self.weir("--relay-domains", "weir.test", relay=False, relay_test=True, upstreams=[self.upstream()])
        wait_until(lambda: "relays" in weir.log().lower() and "warn" in weir.log().lower(), "a warning about an upstream that relays", 10)


if __name__ == "__main__":
    unittest.main()
