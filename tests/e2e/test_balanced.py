"""HAProxy in front of weir and behind it, Exim behind it, and PROXY headers as only an enemy writes them."""

import contextlib
import os
import struct
import time
import unittest

from servers import Exim, program
from test_identity import body
from test_proxied import PROXY, STRANGER, binary, line
from tlstest import Papers, TlsCase, TlsClient
from weirtest import Client, Closed, Dialogue, Upstream, free_port, message, wait_listening, wait_until


def tearDownModule():
    Papers.burn()


class ProxiedUpstream(Upstream):
    """One that is told of the client by a PROXY line before it speaks."""

    def __init__(self, **options):
        self.headers = []
        super().__init__(**options)

    def dialogue(self, sock):
        return ProxiedDialogue(self, sock)


class ProxiedDialogue(Dialogue):
    def run(self):
        header = self.line()
        with self.server.lock:
            self.server.headers.append(header)
        super().run()


class Haproxy(TlsCase):
    def haproxy(self, *sections):
        """Each section: how to listen, and the server behind it. Returns the ports."""
        path, ports = os.path.join(self.folder, "haproxy.cfg"), []
        with open(path, "w") as file:
            file.write("global\n  maxconn 500\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n")
            for number, (bind, server) in enumerate(sections):
                ports.append(free_port())
                file.write(f"listen l{number}\n  bind 127.0.0.1:{ports[-1]}{bind}\n  server s {server}\n")
        self.process([program("haproxy"), "-db", "-f", path], "haproxy")
        for port in ports:
            wait_listening(port)
        return ports

    def front(self, *flags, **options):
        """weir behind an HAProxy at 127.0.0.1."""
        return self.certified("--trust", "127.0.0.1", *flags, listen=["127.0.0.1:{port},proxy"], implicit=",proxy", **options)

    def test_in_front_of_weir(self):
        upstream = self.upstream()
        weir = self.front("--client-concurrency", 3, upstreams=[upstream])
        ports = self.haproxy(
            ("", f"127.0.0.1:{weir.port} send-proxy"),
            ("", f"127.0.0.1:{weir.port} send-proxy-v2"),
            ("", f"127.0.0.1:{weir.tls} send-proxy-v2"),
            ("", f"127.0.0.1:{weir.tls} send-proxy ssl verify none"),
        )
        for number, port in enumerate(ports):
            source = f"127.0.0.{20 + number}"
            text = message(f"in-front-{number}", 50_000)
            inside = number == 2
            client = TlsClient(port, implicit=True, source=source) if inside else Client(port, source=source, hello="client.test")
            with client:
                self.assertEqual(client.data(text).code, 250, weir.log()[-1500:])
                client.quit()
            self.assert_relayed(upstream, f"in-front-{number}", text)
            wait_until(lambda: f"client=[{source}]" in weir.log(), f"{source} in the log")
        # STARTTLS through HAProxy.
        with TlsClient(ports[0], source="127.0.0.30") as client:
            self.assertEqual(client.bdat(message("in-front-starttls")).code, 250)
        # The limit counts each client, not HAProxy.
        clients = [Client(ports[n % 2], source=f"127.0.0.{40 + n % 2}", greeting=False) for n in range(12)]
        codes = [client.reply().code for client in clients]
        self.assertEqual((codes[0::2].count(220), codes[1::2].count(220)), (3, 3), codes)
        self.assertNotIn("proxy_failed", weir.log())
        for client in clients:
            client.close()

    def test_health_checks_of_the_balancer(self):
        weir = self.front("--proxy-timeout", "1s", "--client-concurrency", 2)
        self.haproxy(
            ("", f"127.0.0.1:{weir.port} send-proxy-v2 check-send-proxy check inter 100ms"),
            ("\n  option smtpchk EHLO check.test", f"127.0.0.1:{weir.port} send-proxy check-send-proxy check inter 100ms"),
        )
        time.sleep(2)
        self.assertNotIn("forged", weir.log())
        self.assertGreater(weir.metric("weir_introductions_total"), 10)
        self.assertEqual(weir.metric("weir_introductions_total", result="malformed"), 0)
        self.assertLess(weir.descriptors(), 120)

    def test_behind_weir(self):
        for identity in ("proxy-v1", "proxy-v2"):
            with self.subTest(identity):
                upstream = ProxiedUpstream()
                self.addCleanup(upstream.stop)
                (port,) = self.haproxy((" accept-proxy", f"127.0.0.1:{upstream.port} send-proxy"))
                weir = self.weir("--identity", identity, upstreams=[f"127.0.0.1:{port}"], relay=False)
                for number in range(3):
                    text = message(f"{identity}-{number}", 100_000)
                    with weir.client(source=f"127.0.0.{60 + number}", hello="client.test") as client:
                        self.assertEqual(client.data(text).code, 250)
                        client.quit()
                    self.assert_relayed(upstream, f"{identity}-{number}", text)
                    self.assertTrue(any(f"TCP4 127.0.0.{60 + number} ".encode() in header for header in upstream.headers), upstream.headers)
                self.assertEqual(weir.metric("weir_upstream_probes_total", result="failed"), 0)

    def test_on_both_sides(self):
        """A balancer, weir, and a server that both tell and are told: the client comes out as it went in."""
        upstream = ProxiedUpstream()
        self.addCleanup(upstream.stop)
        weir = self.front("--identity", "proxy-v1", "--relay-from", "127.0.0.0/8", upstreams=[upstream], relay=False)
        plain, inside = self.haproxy(("", f"127.0.0.1:{weir.port} send-proxy-v2"), ("", f"127.0.0.1:{weir.tls} send-proxy-v2"))
        for number in range(8):
            source = f"127.0.0.{70 + number}"
            text = message(f"both-{number}", 20_000)
            with TlsClient(inside, implicit=True, source=source) if number % 2 else Client(plain, source=source, hello="c.test") as client:
                ours = client.sock.getsockname()[1]
                self.assertEqual(client.data(text).code, 250)
                client.quit()
            self.assert_relayed(upstream, f"both-{number}", text)
            self.assertTrue(any(f"TCP4 {source} ".encode() in h and f" {ours} ".encode() in h for h in upstream.headers), upstream.headers)


class Eximed(TlsCase):
    def test_exim_sees_the_client(self):
        exim = Exim(self, proxy=True)
        for number, identity in enumerate(("proxy-v1", "proxy-v2")):
            weir = self.weir("--identity", identity, upstreams=[exim], relay=False)
            with weir.client(source=f"127.0.0.{7 + number}", hello=f"{identity}.client.test") as client:
                self.assertEqual(client.data(body(30_000)).code, 250, exim.log()[-1500:])
                client.quit()
            wait_until(lambda: f"H=({identity}.client.test) [127.0.0.{7 + number}]" in exim.log(), f"the client in Exim's log\n{exim.log()[-1500:]}")
        self.assertNotIn("proxy protocol error", exim.log().lower())


class Headers(TlsCase):
    """What stands in front of the first byte."""

    def behind(self, *flags, **options):
        options.setdefault("upstreams", [self.upstream()])
        return self.weir("--trust", PROXY, *flags, listen=["127.0.0.1:{port},proxy"], **options)

    def through(self, weir, *pieces, source=PROXY, pause=0.003):
        client = Client(weir.port, source=source, greeting=False)
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(pause)
            client.send(piece)
        return client

    def test_split_at_every_byte(self):
        weir = self.behind()
        for header in (line("203.0.113.7"), binary("203.0.113.7")):
            for at in range(1, len(header)):
                with self.through(weir, header[:at], header[at:]) as client:
                    self.assertEqual(client.reply().code, 220, f"at {at} of {header}")
            with self.through(weir, *(bytes([octet]) for octet in header), pause=0) as client:
                self.assertEqual(client.reply().code, 220)
        total = weir.metric("weir_introductions_total", result="client")
        self.assertEqual(total, len(line("203.0.113.7")) + len(binary("203.0.113.7")))
        wait_until(lambda: weir.log().count("client=[203.0.113.7]:4711") == total, "every session's line")

    def test_commands_in_the_same_segment(self):
        upstream = self.upstream()
        weir = self.behind(upstreams=[upstream])
        talk = b"EHLO early.test\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@weir.test>\r\nQUIT\r\n"
        for header in (line("203.0.113.7"), binary("203.0.113.7")):
            with self.through(weir, header + talk) as client:
                self.assertEqual([client.reply().code for _ in range(5)], [220, 250, 250, 250, 221])

    def test_malformed_headers_end_the_connection(self):
        weir = self.behind("--proxy-timeout", "1s")
        two = binary("203.0.113.7")
        bad = {
            "too long": b"PROXY TCP4 " + b"1" * 200 + b"\r\n",
            "no CR": b"PROXY TCP4 203.0.113.7 192.0.2.25 1 25\n",
            "no ports": b"PROXY TCP4 203.0.113.7 192.0.2.25\r\n",
            "port": b"PROXY TCP4 203.0.113.7 192.0.2.25 65536 25\r\n",
            "leading zero": b"PROXY TCP4 203.0.113.007 192.0.2.25 1 25\r\n",
            "name": b"PROXY TCP4 localhost 192.0.2.25 1 25\r\n",
            "family": b"PROXY TCP4 2001:db8::1 2001:db8::2 1 25\r\n",
            "lower": b"proxy TCP4 203.0.113.7 192.0.2.25 1 25\r\n",
            "signature": two[:11] + b"\x0b" + two[12:],
            "version": two[:12] + b"\x31" + two[13:],
            "command": two[:12] + b"\x2f" + two[13:],
            "short": two[:14] + struct.pack(">H", 4) + b"abcd",
            "huge": two[:14] + b"\xff\xff" + b"\0" * 65535,
            "tlv": two[:14] + struct.pack(">H", 15) + two[16:28] + b"\x05\xff\xff",
            "twice": line("203.0.113.7") + line("203.0.113.8"),
        }
        for name, header in bad.items():
            with self.subTest(name):
                client = None
                try:
                    client = self.through(weir, header)
                    said = client.rest(4)
                except Closed:
                    said = b""
                except OSError:
                    self.fail(f"{name}: still open after 4 s")
                finally:
                    if client:
                        client.close()
                if name == "twice":
                    self.assertNotIn(b"250", said)
                else:
                    self.assertEqual(said, b"", name)
        wait_until(lambda: weir.metric("weir_sessions_active") == 0, "all of them to leave")
        self.assertNotIn("203.0.113.8", weir.log().replace("PROXY TCP4 203.0.113.8", ""), "the second header counts for nothing")

    def test_a_header_that_comes_by_drops(self):
        weir = self.behind("--proxy-timeout", "1s")
        began = time.monotonic()
        header = line("203.0.113.7")
        client = Client(weir.port, source=PROXY, greeting=False)
        with contextlib.suppress(Closed, OSError):
            for octet in header:
                client.send(bytes([octet]))
                time.sleep(0.1)
        client.rest(2)
        self.assertLess(time.monotonic() - began, 4.5)
        self.assertEqual(weir.metric("weir_introductions_total", result="timeout"), 1)

    def test_a_stranger_gains_nothing(self):
        upstream = self.upstream()
        weir = self.behind("--relay-from", "203.0.113.0/24", "--relay-domains", "weir.test", relay=False, upstreams=[upstream])
        talk = b"EHLO x\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<victim@elsewhere.example>\r\n"
        for header in (line("203.0.113.7"), binary("203.0.113.7"), b"XCLIENT ADDR=203.0.113.7\r\n", b"EHLO a\r\nXCLIENT ADDR=203.0.113.7 LOGIN=root\r\n", b"RSET\r\n" + line("203.0.113.7")):
            with self.through(weir, header, talk, source=STRANGER) as client:
                client.half_close()
                said = client.rest(5)
                self.assertNotIn(b"354", said)
                self.assertNotIn(b"2.1.5", said)
        self.assertFalse(any(b"elsewhere" in command for command in upstream.commands), upstream.commands)
        # The proxy's clients may.
        with self.through(weir, line("203.0.113.7")) as client:
            client.reply()
            client.hello()
            client.envelope(recipients=("someone@elsewhere.example",))
        # What XCLIENT claims never opens the relay, not even from the proxy.
        with self.through(weir, line("198.51.100.9")) as client:
            client.reply()
            client.hello()
            client.command("XCLIENT ADDR=203.0.113.7")
            client.command("EHLO x")
            client.command("MAIL FROM:<a@client.test>")
            self.assertGreaterEqual(client.command("RCPT TO:<victim@elsewhere.example>").code, 400)

    def test_exact_counts_over_shards_for_connections_and_rates(self):
        weir = self.behind("--client-concurrency", 7, "--rate-messages", "5/h", shards=2)
        for way in (line, binary):
            address = "203.0.113.9" if way is line else "203.0.113.10"
            clients = [self.through(weir, way(address, 1000 + n)) for n in range(25)]
            codes = [client.reply().code for client in clients]
            self.assertEqual(codes.count(220), 7, codes)
            for client, code in zip(clients, codes):
                if code != 220:
                    client.close()
            greeted = [client for client, code in zip(clients, codes) if code == 220]
            taken = 0
            for client in greeted:
                client.hello()
                for _ in range(2):
                    reply = client.command("MAIL FROM:<a@client.test>")
                    if reply.code == 250:
                        client.expect(250, "RCPT TO:<b@weir.test>")
                        client.expect(354, "DATA")
                        client.send(b"Subject: x\r\n\r\n.\r\n")
                        taken += client.reply().code == 250
                client.quit()
            self.assertEqual(taken, 5, "messages in an hour, by whatever shard")
        self.assertGreater(weir.metric("weir_handed_over_total"), 5)


if __name__ == "__main__":
    unittest.main()
