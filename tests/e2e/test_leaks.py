"""Thousands of connections that die where it hurts: afterwards weir holds no socket, no memory and no upstream more than before."""

import contextlib
import os
import socket
import ssl
import struct
import threading
import unittest

from tlstest import Papers, TlsCase, TlsClient, context
from weirtest import Client, Closed, Dialogue, Upstream, message, reset, stuff, wait_until

COUNT = int(os.environ.get("WEIR_LEAKS", "4000"))


def tearDownModule():
    Papers.burn()


class Eaten(Dialogue):
    """It takes the header of version 2 from in front of the dialogue."""

    def run(self):
        while len(self.buffer) < 16:
            self.more()
        length = 16 + struct.unpack(">H", self.buffer[14:16])[0]
        while len(self.buffer) < length:
            self.more()
        self.buffer = self.buffer[length:]
        super().run()


class Eater(Upstream):
    def dialogue(self, sock):
        return Eaten(self, sock)


def hello():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context().wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


class Leaks(TlsCase):
    def crowd(self, count, one, threads=8):
        """`one(number)` so many times, by several threads; what peers do to it is not our failure."""
        errors = []

        def run(first):
            for number in range(first, count, threads):
                try:
                    one(number)
                except (Closed, OSError, ssl.SSLError):
                    continue
                except AssertionError as error:
                    errors.append(error)

        crew = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join(120)
        self.assertEqual(errors[:3], [])

    def calm(self, weir):
        """Nobody is left, on either side."""
        wait_until(lambda: weir.metric("weir_sessions_active") == 0, "the last session to end", 40)
        wait_until(lambda: weir.metric("weir_tls_sessions") <= weir.metric("weir_pool_idle"), "the last TLS session to end", 40)
        wait_until(lambda: weir.metric("weir_pool_active") == 0, "the last upstream connection to come back", 40)
        return weir.descriptors(), weir.memory_kib()

    def hold(self, weir, one, count=COUNT):
        """The second half costs nothing that the first has not cost."""
        self.crowd(count // 2, one)
        descriptors, memory = self.calm(weir)
        self.crowd(count // 2, one)
        now = self.calm(weir)
        self.assertLessEqual(now[0], descriptors + 10, "descriptors")
        self.assertLessEqual(now[1], memory + 3000, "KiB")
        self.assertEqual(weir.metric("weir_panics_total"), 0)
        self.assertEqual(weir.metric("weir_ring_stale_total"), 0)

    def test_aborted_handshakes(self):
        weir = self.certified("--on", "tls-failed=log", "--log-level", "error")
        first = hello()
        cuts = [0, 1, 5, 6, 100, len(first) - 1, len(first)]

        def one(number):
            sock = socket.create_connection(("127.0.0.1", weir.tls), 10)
            sock.sendall(first[: cuts[number % 7]])
            if number % 3 == 0:
                with contextlib.suppress(OSError):
                    sock.settimeout(0.05)
                    sock.recv(100)
            if number % 2:
                reset(sock)
            else:
                sock.close()

        self.hold(weir, one)
        self.assert_alive(weir)

    def test_aborted_starttls_and_bodies(self):
        upstream = self.upstream()
        weir = self.certified(upstreams=[upstream])
        first = hello()

        def one(number):
            if number % 2:
                client = weir.client(hello="c.test")
                client.send(b"STARTTLS\r\n" + (b"NOOP\r\n" if number % 4 == 1 else b""))
                client.reply()
                client.send(first[: number % 300])
            else:
                client = TlsClient(weir.tls, implicit=True)
                client.envelope()
                client.expect(354, "DATA")
                client.send(stuff(message("leak", 40_000))[:-3])
            sock = client.raw if isinstance(client, TlsClient) else client.sock
            reset(sock) if number % 3 else sock.close()

        self.hold(weir, one, COUNT // 8)
        self.assertEqual(upstream.messages, [])
        self.assert_alive(weir)

    def test_dedicated_sessions_that_die_in_mid_body(self):
        upstream = Eater()
        self.addCleanup(upstream.stop)
        weir = self.weir("--identity", "proxy-v2", "--client-concurrency", "0", "--pool-max", "50", upstreams=[upstream], relay=False)

        def one(number):
            client = weir.client(hello="c.test")
            client.expect(250, "MAIL FROM:<a@client.test>")
            client.expect(250, "RCPT TO:<b@weir.test>")
            if number % 2:
                client.expect(354, "DATA")
                client.send(stuff(message("leak", 3000))[:-3])
            else:
                client.send(b"BDAT 5000 LAST\r\n" + b"x" * (number % 4999))
            reset(client.sock) if number % 3 else client.close()

        self.hold(weir, one, COUNT // 2)
        self.assertEqual(upstream.messages, [])
        wait_until(lambda: upstream.open_now <= 2, "the server's connections to end")
        with weir.client(hello="client.test") as client:
            self.assertEqual(client.data(message("alive")).code, 250)

    def test_headers_that_stop(self):
        weir = self.weir("--trust", "127.0.0.1", "--proxy-timeout", "1s", upstreams=[self.upstream()], listen=["127.0.0.1:{port},proxy"], shards=2)
        header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(">H", 12) + socket.inet_aton("203.0.113.7") + socket.inet_aton("192.0.2.1") + struct.pack(">HH", 1, 25)

        def one(number):
            sock = socket.create_connection(("127.0.0.1", weir.port), 10)
            # Whole ones move to the shard that keeps the client's books, and die on the way.
            sock.sendall(header[: number % 32])
            reset(sock) if number % 2 else sock.close()

        self.hold(weir, one)
        with Client(weir.port, greeting=False) as client:
            client.send(header)
            self.assertEqual(client.reply().code, 220)


if __name__ == "__main__":
    unittest.main()
