"""Clients behind proxies: PROXY headers, XCLIENT, and who is believed."""

import contextlib
import socket
import struct
import time

from weirtest import Case, Client, Closed, message, wait_until

PROXY = "127.0.8.1"
STRANGER = "127.0.8.2"


def line(client, port=4711):
    return f"PROXY TCP4 {client} 192.0.2.25 {port} 25\r\n".encode()


def binary(client, port=4711):
    ends = socket.inet_aton(client) + socket.inet_aton("192.0.2.25") + struct.pack(">HH", port, 25)
    tlv = b"\x05\x00\x04id-7"
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(">H", len(ends + tlv)) + ends + tlv


class Proxied(Case):
    def behind(self, *flags, **options):
        """weir behind a proxy at 127.0.8.1."""
        upstream = options.pop("upstream", None) or self.upstream()
        return self.weir("--trust", PROXY, *flags, upstreams=[upstream], listen=["127.0.0.1:{port},proxy"], **options)

    def through(self, weir, header, source=PROXY):
        """A client of the proxy; in the order of things it is greeted next."""
        client = Client(weir.port, source=source, greeting=False)
        client.send(header)
        return client

    def test_mail_comes_through_with_the_clients_own_name_in_the_log(self):
        upstream = self.upstream()
        weir = self.behind(upstream=upstream)
        for number, header in enumerate([line("203.0.113.7"), binary("203.0.113.7")]):
            client = self.through(weir, header)
            self.assertEqual(client.reply().code, 220)
            client.hello()
            self.assertEqual(client.data(message(f"proxied-{number}")).code, 250)
            client.quit()
        wait_until(lambda: weir.log().count("client=[203.0.113.7]:4711 by=[127.0.8.1]:") >= 4, "lines that name the client")
        self.assertIn('by_id="id-7"', weir.log())
        self.assertEqual(weir.metric("weir_introductions_total", result="client"), 2)

    def test_limits_are_exact_over_shards(self):
        weir = self.behind("--client-concurrency", 10, shards=4)
        clients = []
        for number in range(30):
            client = self.through(weir, line("203.0.113.9", 1000 + number))
            clients.append((client, client.reply().code))
        self.assertEqual(sum(code == 220 for _, code in clients), 10)
        self.assertGreater(weir.metric("weir_handed_over_total"), 10)
        other = self.through(weir, line("203.0.113.10"))
        self.assertEqual(other.reply().code, 220)
        # Places come free on the shard that keeps the books.
        greeted = [client for client, code in clients if code == 220]
        greeted[0].quit()
        wait_until(lambda: self.through(weir, line("203.0.113.9")).reply().code == 220, "a place to become free", 10, 0.1)

    def test_many_clients_move_and_none_is_lost(self):
        weir = self.behind(shards=4)
        clients = [self.through(weir, line(f"203.0.{n % 4}.{n % 250 + 1}", 1000 + n) + b"EHLO early.test\r\n") for n in range(400)]
        for client in clients:
            self.assertEqual(client.reply().code, 220)
            self.assertEqual(client.reply().code, 250)
            client.quit()
        wait_until(lambda: weir.metric("weir_sessions_active") == 0, "the last one to leave")
        self.assertEqual(weir.metric("weir_ring_stale_total"), 0)
        self.assertLess(weir.descriptors(), 200)

    def test_a_proxy_without_a_header_is_dropped(self):
        weir = self.behind("--proxy-timeout", "500ms")
        silent = Client(weir.port, source=PROXY, greeting=False)
        begun = time.monotonic()
        self.assertEqual(silent.rest(5), b"")
        self.assertGreater(time.monotonic() - begun, 0.4)
        wrong = self.through(weir, b"EHLO proxy.test\r\n")
        with contextlib.suppress(OSError, Closed):
            self.assertEqual(wrong.rest(5), b"")
        wait_until(lambda: "proxy_failed" in weir.log() and "why=no_header" in weir.log(), "a line in the log")
        self.assertEqual(weir.metric("weir_introductions_total", result="timeout"), 1)
        self.assertEqual(weir.metric("weir_introductions_total", result="malformed"), 1)

    def test_nobody_else_is_believed(self):
        weir = self.behind()
        forger = self.through(weir, line("203.0.113.7"), source=STRANGER)
        codes = [forger.reply().code]
        if codes[0] == 220:
            codes.append(forger.reply().code)
        self.assertEqual(codes[-1], 554)
        direct = Client(weir.port, source=STRANGER)
        self.assertEqual(direct.greeting.code, 220)
        self.assertEqual(direct.command("XCLIENT ADDR=203.0.113.7").code, 550)
        direct.quit()
        self.assertEqual(weir.metric("weir_findings_total", finding="forged-proxy"), 1)
        self.assertEqual(weir.metric("weir_findings_total", finding="forged-xclient"), 1)
        wait_until(lambda: "client=[127.0.8.2]:" in weir.log(), "the forger's own address")

    def test_xclient_names_the_client(self):
        weir = self.weir("--trust", PROXY, upstreams=[self.upstream()])
        client = Client(weir.port, source=PROXY)
        self.assertIn(b"XCLIENT", client.command("EHLO proxy.test").text)
        self.assertEqual(client.command("XCLIENT ADDR=203.0.113.7 PORT=4711 NAME=c.test").code, 220)
        client.hello()
        self.assertEqual(client.data(message("claimed")).code, 250)
        client.quit()
        wait_until(lambda: weir.log().count("client=[203.0.113.7]:4711 by=[127.0.8.1]:") >= 2, "lines that name the client")
