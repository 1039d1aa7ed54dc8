"""How weir asks for names: with a real resolver, and with ones that are dead, slow, confused or lie.

Each test has a list, bl.test, on which 127.0.0.66 is and 127.0.0.5 is not, and --on dnsbl=reject: so what weir has made of
an answer is what the client hears at RCPT. A listing is never made up, a listed client is found through all that can be told from the
truth, and where nothing can be known mail goes on.
"""

import os
import subprocess
import time
import unittest

import dnslies
from dnslies import Liar
from dnsservers import LISTED4, Meddler, Rbldnsd, Silent, Unbound, needs, reversed4, rewriting
from weirtest import BIN, Case, Upstream, wait_until

LISTED, CLEAN = "127.0.0.66", "127.0.0.5"
ZONE = "bl.test"
ANSWER = b"\x7f\0\0\2"
NAMES = {(f"{reversed4(ip)}.{ZONE}", "A"): [ANSWER] for ip in (LISTED, "127.0.0.2")}


class Dns(Case):
    def start(self, *servers, flags=(), tested=False):
        """weir that asks these servers; its list is believed untested unless told otherwise."""
        upstream = Upstream()
        self.addCleanup(upstream.stop)
        named = [word for server in servers for word in ("--resolver", server if isinstance(server, str) else server.flag)]
        recheck = [] if tested else ["--dnsbl-recheck", "0"]
        return self.weir(
            *named, "--dnsbl", ZONE, "--on", "dnsbl=reject", *recheck, "--greet-wait", "0", *flags, upstreams=[upstream], shards=1
        )

    def verdict(self, weir, source):
        """What the client hears at RCPT, and how long that took."""
        with weir.client(source=source, hello="client.test") as client:
            client.expect(250, "MAIL FROM:<a@client.test>")
            begun = time.monotonic()
            reply = client.command("RCPT TO:<b@weir.test>")
            took = time.monotonic() - begun
            client.quit()
        return reply.code, took

    def verdicts(self, weir):
        return self.verdict(weir, LISTED)[0], self.verdict(weir, CLEAN)[0]


@needs("unbound", "rbldnsd")
class RealServers(Dns):
    def test_a_list_of_rbldnsd_is_asked_through_unbound(self):
        lists = Rbldnsd(self, {ZONE: [*LISTED4, f"{LISTED} :127.0.0.2:spam"]})
        resolver = Unbound(self, {ZONE: lists.port})
        weir = self.start(resolver, tested=True)
        wait_until(lambda: self.verdicts(weir) == (550, 250), "the list to be believed", pause=0.2)
        self.assertEqual(weir.metric("weir_dns_servers_up"), 1)
        for outcome in ("records", "no_name"):
            wait_until(lambda: weir.metric("weir_dns_answers_total", outcome=outcome) > 0, f"{outcome} to be counted")
        self.assertEqual(weir.metric("weir_dns_odd_total"), 0)

    def test_a_resolver_that_falls_silent_is_left_for_the_other(self):
        data = [f"{reversed4(LISTED)}.{ZONE}. 60 IN A 127.0.0.2"]
        first, second = (Unbound(self, data=data, name=name) for name in ("first", "second"))
        weir = self.start(first, second, flags=["--resolver-timeout", "300ms", "--resolver-ttl", "0:1s"])
        self.assertEqual(self.verdicts(weir), (550, 250))
        first.process.kill()
        for _ in range(3):
            time.sleep(1.1)
            self.assertEqual(self.verdicts(weir), (550, 250))
        self.assertEqual(self.verdict(weir, LISTED)[0], 550)

    def test_a_changed_resolv_conf_is_used(self):
        # resolv.conf has no ports: both are on 53, if they may be.
        if os.geteuid() != 0:
            self.skipTest("port 53 is for root")
        path = os.path.join(self.folder, "resolv.conf")
        with open(path, "w") as file:
            file.write("# none yet\nnameserver 127.0.0.53\n")
        weir = self.start(f"@{path}", flags=["--resolver-timeout", "200ms", "--resolver-ttl", "0:1s"])
        self.assertEqual(self.verdict(weir, LISTED)[0], 250)
        answers = dict(NAMES)
        server = Liar(self, names=answers, host="127.0.0.54", port=53)
        with open(path + ".new", "w") as file:
            file.write("search test\nnameserver 127.0.0.54\n")
        os.replace(path + ".new", path)
        wait_until(lambda: "names are asked of 127.0.0.54:53" in weir.log(), "the new server to be told", 15)
        wait_until(lambda: self.verdict(weir, LISTED)[0] == 550, "the new server to be asked", pause=0.3)
        self.assertGreater(server.count(f"{reversed4(LISTED)}.{ZONE}"), 0)


class Lies(Dns):
    # What is said, and what a listed and a clean client hear.
    TABLE = [
        (dnslies.truth, 550, 250),
        (dnslies.slow, 550, 250),
        (dnslies.wrong_id_first, 550, 250),
        (dnslies.forged, 550, 250),
        (dnslies.wrong_question_first, 550, 250),
        (dnslies.spoofed_source, 550, 250),
        (dnslies.truncated, 550, 250),
        (dnslies.garbage_first, 550, 250),
        (dnslies.huge_ttl, 550, 250),
        (dnslies.negative_ttl, 550, 250),
        (dnslies.many_records, 550, 250),
        (dnslies.other_case, 550, 250),
        (dnslies.no_edns, 550, 250),
        (dnslies.rewriting, 550, 250),
        (dnslies.dead, 250, 250),
        (dnslies.servfail, 250, 250),
        (dnslies.refused, 250, 250),
        (dnslies.wrong_id, 250, 250),
        (dnslies.wrong_question, 250, 250),
        (dnslies.truncated_for_ever, 250, 250),
        (dnslies.half_truncated, 250, 250),
        (dnslies.loop, 250, 250),
        (dnslies.pointer_loop, 250, 250),
        (dnslies.garbage, 250, 250),
        (dnslies.of_another_class, 250, 250),
        (dnslies.a_question_back, 250, 250),
    ]

    def test_the_truth_is_found_and_nothing_is_made_up(self):
        for lie, listed, clean in self.TABLE:
            with self.subTest(lie=lie.__name__):
                server = Liar(self, lie, NAMES)
                weir = self.start(server, flags=["--resolver-timeout", "2s"])
                self.assertEqual(self.verdicts(weir), (listed, clean), f"{server.asked}\n{weir.log()[-1500:]}")
                self.assertEqual(weir.metric("weir_panics_total"), 0)
                weir.stop()

    def test_what_is_odd_is_counted(self):
        for lie, what in [
            (dnslies.wrong_id_first, "stray"),
            (dnslies.wrong_question_first, "stray"),
            (dnslies.garbage_first, "garbage"),
            (dnslies.truncated, "truncated"),
            (dnslies.other_case, "other_case"),
        ]:
            with self.subTest(lie=lie.__name__):
                weir = self.start(Liar(self, lie, NAMES))
                self.assertEqual(self.verdict(weir, LISTED)[0], 550)
                wait_until(lambda: weir.metric("weir_dns_odd_total", what=what) > 0, f"{what} to be counted")
                weir.stop()

    def test_a_client_waits_no_longer_than_it_may(self):
        weir = self.start(Silent(self), Silent(self), flags=["--lookup-wait", "1s"])
        code, took = self.verdict(weir, LISTED)
        self.assertEqual(code, 250)
        self.assertLess(took, 2.0)
        wait_until(lambda: weir.metric("weir_dns_answers_total", outcome="timeout") > 0, "the question to be given up")
        wait_until(lambda: weir.metric("weir_dns_open") == 0, "nothing to be open")

    def test_a_living_server_is_found_behind_dead_ones(self):
        dead = "127.0.0.1:9"  # nobody listens
        weir = self.start(dead, Silent(self), Liar(self, names=NAMES), flags=["--resolver-timeout", "300ms"])
        self.assertEqual(self.verdicts(weir), (550, 250))
        code, took = self.verdict(weir, "127.0.0.67")
        self.assertEqual(code, 250)
        self.assertLess(took, 1.5)

    def test_a_server_is_asked_over_ipv6(self):
        weir = self.start(Liar(self, names=NAMES, host="::1"))
        self.assertEqual(self.verdicts(weir), (550, 250))

    def test_an_answer_that_never_ends_ends(self):
        server = Liar(self, dnslies.huge_ttl, NAMES)
        weir = self.start(server, flags=["--resolver-ttl", "0:1s"])
        name = f"{reversed4(LISTED)}.{ZONE}"
        self.assertEqual(self.verdict(weir, LISTED)[0], 550)
        self.assertEqual(self.verdict(weir, LISTED)[0], 550)
        asked = server.count(name)
        time.sleep(1.2)
        self.assertEqual(self.verdict(weir, LISTED)[0], 550)
        self.assertEqual(server.count(name), asked + 1)

    def test_one_question_is_one_datagram_and_no_call_of_the_system(self):
        """A session whose questions are all new costs as many enters of the ring as one without any."""
        asked, sessions = Liar(self, names=NAMES), 50
        enters = {}
        for reputation in ("off", "on"):
            weir = self.start(asked, flags=["--reputation", reputation])
            self.verdict(weir, CLEAN)
            time.sleep(1.2)  # counts of the ring are shown once a second
            before = weir.metric("weir_ring_enters_total")
            for number in range(sessions):
                self.assertEqual(self.verdict(weir, f"127.0.1.{100 + number}")[0], 250)
            time.sleep(1.2)
            enters[reputation] = weir.metric("weir_ring_enters_total") - before
        self.assertEqual(asked.count(f"{reversed4('127.0.1.100')}.{ZONE}"), 1)
        self.assertEqual(asked.datagrams, weir.metric("weir_dns_queries_total", by="datagram"))
        questions = weir.metric("weir_dns_questions_total", how="asked")
        self.assertEqual(asked.datagrams, questions + weir.metric("weir_dns_repeats_total"))
        self.assertGreaterEqual(asked.datagrams, sessions)
        self.assertLess(enters["on"], enters["off"] + sessions * 3, "what comes at once costs a wake-up at most, not a call each")
        self.assertGreater(len(asked.ports), 3, "from changing ports")
        self.assertLessEqual(weir.metric("weir_dns_sockets_total", kind="port"), 32)

    def test_a_drain_does_not_wait_for_answers(self):
        weir = self.start(Silent(self), flags=["--lookup-wait", "1s"])
        self.assertEqual(self.verdict(weir, LISTED)[0], 250)
        begun = time.monotonic()
        weir.stop()
        self.assertLess(time.monotonic() - begun, 3)
        self.assertEqual(weir.child.returncode, 0, weir.log()[-1500:])


class Doctor(Dns):
    def doctor(self, *servers, timeout="300ms"):
        words = [word for server in servers for word in ("--resolver", server if isinstance(server, str) else server.flag)]
        argv = [BIN, "doctor", *words, "--resolver-timeout", timeout, "--dnsbl", ZONE]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout

    def test_each_server_is_asked_whether_it_tells_the_truth(self):
        dead = "127.0.0.1:9"
        servers = [Liar(self), Liar(self, dnslies.rewriting), Liar(self, dnslies.servfail), Silent(self)]
        report = self.doctor(*servers, dead)
        for server, words in zip(servers, ["answers", "makes up answers", "refuses", "does not answer within 300ms"]):
            self.assertIn(f"resolver {server.flag} {words}", report)
        self.assertRegex(report, rf"resolver {dead}: .*refused")

    @needs("unbound")
    def test_unbound_is_good_and_who_rewrites_it_is_not(self):
        resolver = Unbound(self)
        meddler = Meddler(self, resolver.port, rewriting())
        report = self.doctor(resolver, meddler, timeout="2s")
        self.assertIn(f"resolver {resolver.flag} answers", report)
        self.assertIn(f"resolver {meddler.flag} makes up", report)


if __name__ == "__main__":
    unittest.main()
