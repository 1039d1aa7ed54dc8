"""Upstreams whose handshakes fail: where TLS is not a must mail goes there without, where it is a must it waits."""

import ssl
import time

from tlstest import TlsCase
from weirtest import message, wait_until


def refuses(dialogue):
    """Says 220, and has no TLS to speak."""
    dialogue.sock.sendall(b"220 2.0.0 Go ahead\r\n")
    dialogue.sock.recv(65536)
    dialogue.sock.sendall(b"454 4.7.0 TLS not available due to local problem\r\n")
    return b""


def hangs_up(dialogue):
    dialogue.sock.sendall(b"220 2.0.0 Go ahead\r\n")
    dialogue.sock.recv(65536)
    dialogue.sock.close()
    return b""


class Forgone(TlsCase):
    def old(self):
        """A server that knows only what nobody speaks any more. OpenSSL says so at once, ahead of any hello."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        return context

    def check(self, **options):
        upstream = self.tls_upstream(**options)
        weir = self.weir("--upstream-tls", "may", upstreams=[upstream], shards=1)
        for n in range(4):
            with weir.client(hello="client.test") as client:
                self.assertEqual(client.data(message(f"plain-{n}")).code, 250)
        self.assertEqual(len(upstream.messages), 4)
        self.assertEqual(upstream.handshakes, 0)
        said = [line.split()[0].upper() for line in upstream.plain]
        self.assertEqual(said.count(b"STARTTLS"), 1, "asked once, by the probe")
        self.assertGreaterEqual(weir.metric("weir_upstream_tls_forgone_total"), 1)
        self.assertEqual(weir.metric("weir_upstream_ejections_total") or 0, 0)
        self.assertEqual(weir.log().count(" upstream_tls_forgone "), 1)
        self.assertNotIn("upstream_tls=", weir.log())
        return weir

    def test_an_answer_in_plaintext(self):
        self.check(on={"STARTTLS": refuses})

    def test_a_server_that_hangs_up(self):
        self.check(on={"STARTTLS": hangs_up})

    def test_versions_that_nobody_speaks(self):
        self.check(by=self.old())

    def test_required_tls_is_waited_for(self):
        upstream = self.tls_upstream(on={"STARTTLS": refuses})
        weir = self.weir("--upstream-tls", "require", upstreams=[upstream], shards=1, ready=False)
        wait_until(lambda: "upstream_tls_failed" in weir.log(), "a handshake to fail")
        upstream.on.clear()
        began = time.monotonic()
        with weir.client(hello="client.test") as client:
            self.assertEqual(client.data(message("inside")).code, 250)
        self.assertLess(time.monotonic() - began, 30)
        self.assertGreaterEqual(upstream.handshakes, 1)
        self.assertFalse([line for line in upstream.plain if line.upper().startswith(b"MAIL")])
        self.assertNotIn("upstream_tls_forgone", weir.log())
        wait_until(lambda: " transaction " in weir.log(), "the transaction's line")
        self.assertIn(f' upstream="127.0.0.1:{upstream.port}" upstream_tls=1.3 outcome=accepted ', weir.log())
