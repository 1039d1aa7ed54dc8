"""Connections that were meant for others, by REDIRECT on one host, in a network namespace of this module's own."""

import ctypes
import os
import shutil
import subprocess
import unittest

from tlstest import Papers, TlsClient, TlsUpstream
from test_upstream_tls import refuses
from weirtest import Case, Client, Upstream, message, wait_until

CLONE_NEWNET = 0x40000000
MARK = 37


def setUpModule():
    if os.getuid() != 0:
        raise unittest.SkipTest("a network namespace needs root")
    if not shutil.which("nft") or not shutil.which("ip"):
        raise unittest.SkipTest("nftables and iproute2 are not installed")
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise unittest.SkipTest("no network namespace is to be had here")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def nft(*rules):
    subprocess.run(["nft", "-f", "-"], input="\n".join(rules).encode(), check=True)


class Redirected(Case):
    def intercept(self, *flags, spares=True, ports=(), **options):
        """weir, and rules that bring it what goes to these ports; its own packets pass if it marks them."""
        weir = self.weir("--transparent", "redirect", *flags, **options)
        own = [f"add rule ip path output meta mark {MARK} accept"] if spares else []
        nft(
            "add table ip path",
            "add chain ip path output { type nat hook output priority -100; }",
            *own,
            f"add rule ip path output tcp dport {{ {', '.join(map(str, ports))} }} redirect to :{weir.port}",
        )
        self.addCleanup(nft, "delete table ip path")
        return weir

    def test_a_client_comes_where_it_wanted_to_under_its_own_address(self):
        upstream = Upstream()
        self.addCleanup(upstream.stop)
        flags = ("--identity", "transparent", "--transparent-mark", MARK)
        weir = self.intercept(*flags, ports=[upstream.port], relay=False)
        self.assertEqual(weir.status()["mode"], "dedicated")
        body = message("here", 100_000)
        with Client(upstream.port, source="127.0.0.7", hello="client.test") as client:
            self.assertEqual(client.data(body).code, 250, weir.log()[-1500:])
            client.quit()
        self.assertEqual(upstream.messages[0].body, body)
        wait_until(lambda: f'upstream="127.0.0.1:{upstream.port}"' in weir.log(), "the host in the log")
        self.assertEqual(weir.metric("weir_upstream_connects_total", upstream="original"), 1)

    def test_tls_ends_at_weir_on_both_sides(self):
        papers = Papers.get()
        whole, broken = TlsUpstream(papers.mx), TlsUpstream(papers.mx, on={"STARTTLS": refuses})
        self.addCleanup(whole.stop)
        self.addCleanup(broken.stop)
        flags = ("--identity", "transparent", "--transparent-mark", MARK, "--tls-cert", papers.weir[0], "--tls-key", papers.weir[1])
        ways = ("--transparent-starttls", "terminate", "--upstream-tls", "may")
        weir = self.intercept(*flags, *ways, ports=[whole.port, broken.port], relay=False, shards=1)
        with TlsClient(whole.port, source="127.0.0.7") as client:
            self.assertEqual(client.data(message("inside")).code, 250, weir.log()[-1500:])
        self.assertEqual((whole.handshakes, len(whole.messages)), (1, 1))
        self.assertFalse([line for line in whole.plain if line.upper().startswith(b"MAIL")])
        wait_until(lambda: f'upstream="127.0.0.1:{whole.port}" upstream_tls=1.3 ' in weir.log(), "the transaction's line")
        with Client(broken.port, source="127.0.0.7") as client:
            self.assertEqual(client.command("EHLO client.test").code, 421)
        with TlsClient(broken.port, source="127.0.0.7") as client:
            self.assertEqual(client.data(message("plain")).code, 250, weir.log()[-1500:])
        self.assertEqual((broken.handshakes, len(broken.messages)), (0, 1))
        with TlsClient(whole.port, source="127.0.0.7") as client:
            self.assertEqual(client.data(message("again")).code, 250)
        self.assertEqual(whole.handshakes, 2, "another host's trouble is not its own")

    def looped(self, *flags):
        """Without a mark its own connections come back to weir: the chain ends soon, and nobody else notices."""
        upstream = Upstream()
        self.addCleanup(upstream.stop)
        weir = self.intercept(*flags, spares=False, ports=[upstream.port], relay=False)
        with Client(upstream.port, source="127.0.0.7", greeting=False) as client:
            self.assertTrue(client.line().startswith(b"421 4.4.6 "))
        wait_until(lambda: weir.metric("weir_sessions_active") == 0, "the chain to end")
        self.assertLess(weir.metric("weir_sessions_accepted_total"), 150)
        with weir.client(source="127.0.0.7", greeting=False) as client:
            self.assertTrue(client.line().startswith(b"421 4.4.6 "), "it is weir that is connected to")
        self.assertEqual(upstream.connections, 0)

    def test_a_chain_of_its_own_connections_ends(self):
        self.looped("--relay-domains", "any")

    def test_a_chain_under_the_clients_address_ends(self):
        self.looped("--identity", "transparent")

    def test_a_host_that_is_not_there_is_told_of(self):
        flags = ("--relay-domains", "any", "--transparent-mark", MARK)
        weir = self.intercept(*flags, ports=[2599], relay=False)
        for _ in range(3):
            with Client(2599, greeting=False) as client:
                self.assertTrue(client.line().startswith(b"421 4.4.1 "))
        self.assertEqual(weir.metric("weir_destinations_spared_total"), 2)
        self.assertEqual(weir.metric("weir_upstream_connect_failures_total", upstream="original"), 1)


if __name__ == "__main__":
    unittest.main()
