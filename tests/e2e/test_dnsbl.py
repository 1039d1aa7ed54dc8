"""DNS lists and names, with real rbldnsd behind real unbound: who is listed, what lists say that are none, what cannot be known.

Clients come from addresses of 127.0.0.0/8 and from ::1, which the made-up zones list or not.
"""

import time
import unittest

import weirtest
from dnsservers import EVERYTHING, LISTED4, LISTED6, Meddler, Rbldnsd, Silent, Unbound, needs, rewriting
from weirtest import Client, message, wait_until

SPAMMER, BOTH, CLEAN, SHY = "127.0.0.66", "127.0.0.67", "127.0.0.10", "127.0.0.11"
REJECT = ("--score-reject", "5", "--on", "score-reject=reject")


class Listed(weirtest.Case):
    def setUp(self):
        super().setUp()
        self.server = self.upstream()

    def start(self, resolver, *flags, **options):
        return self.weir("--resolver", resolver, *flags, upstreams=[self.server], **options)

    def standings(self, weir):
        return {one["name"]: (one["ipv4"], one["ipv6"]) for one in weir.status()["lists"]}

    def wait_tested(self, weir):
        def tested():
            standings = self.standings(weir)
            return "untested" not in str(standings) and standings

        return wait_until(tested, "all lists to be tested")

    def rcpt(self, weir, source, helo="client.test", sender="a@client.test", host="127.0.0.1"):
        """What a client hears at its first recipient."""
        with Client(weir.port, host=host, source=source, hello=helo) as client:
            client.expect(250, f"MAIL FROM:<{sender}>")
            return client.command("RCPT TO:<b@weir.test>")

    def assert_mail(self, weir, source, tag):
        with Client(weir.port, source=source, hello="client.test") as client:
            body = message(tag)
            self.assertEqual(client.data(body).code, 250)
            client.quit()
        self.assert_relayed(self.server, tag, body)


@needs("rbldnsd", "unbound")
class Lists(Listed):
    def lists(self):
        reason = ":127.0.0.3:Spam from $, see https://bl.test/"
        rbldnsd = Rbldnsd(
            self,
            {
                "0123456789abcdef0.bl.test": (LISTED4 + [f"{SPAMMER} {reason}", f"{BOTH} {reason}"], LISTED6 + [f"::1 {reason}"]),
                "wl.test": LISTED4 + [f"{BOTH} :127.0.0.9:well known"],
            },
        )
        return Unbound(self, {"0123456789abcdef0.bl.test": rbldnsd.port, "wl.test": rbldnsd.port})

    def flags(self):
        return ("--dnsbl", "0123456789abcdef0.bl.test=127.0.0.[2..11]*5,txt", "--dnsbl", "wl.test*-3", *REJECT)

    def test_a_listed_client_is_refused_and_told_why(self):
        weir = self.start(self.lists().flag, *self.flags())
        standings = self.wait_tested(weir)
        self.assertEqual(standings, {"bl.test": ("passed", "passed"), "wl.test": ("passed", "passed")})
        with Client(weir.port, source=SPAMMER, hello="client.test") as client:
            # The list's reason is asked for once it has answered, and nobody waits for it.
            wait_until(lambda: weir.metric("weir_dnsbl_answers_total", list="bl.test", says="listed") > 0, "the list's answer")
            time.sleep(0.3)
            client.expect(250, "MAIL FROM:<a@client.test>")
            want = f"550 5.7.1 Service unavailable; client [{SPAMMER}] blocked using bl.test; Spam from {SPAMMER}, see https://bl.test/\r\n"
            self.assertEqual(client.command("RCPT TO:<b@weir.test>").text.decode(), want)
            client.quit()
        self.assertNotIn("0123456789abcdef0", weir.log() + weir.get("/status")[1] + weir.get("/metrics")[1])
        self.assert_mail(weir, CLEAN, "clean-client")
        self.assert_mail(weir, BOTH, "well-known-client")
        line = wait_until(lambda: [line for line in weir.log().splitlines() if "dnsbl" in line and SPAMMER in line], "the finding's line")[0]
        self.assertIn("bl.test", line)
        said = {one["name"]: one for one in weir.status()["lists"]}["bl.test"]
        self.assertEqual((said["listed"], said["unlisted"], said["faults"]), (2, 1, 0))

    def test_an_ipv6_client_is_looked_up_too(self):
        weir = self.start(self.lists().flag, *self.flags(), listen=["[::1]:{port}"])
        self.wait_tested(weir)
        reply = self.rcpt(weir, None, host="::1")
        self.assertEqual(reply.code, 550)
        self.assertIn(b"client [::1] blocked using bl.test", reply.text)

    def test_only_logged_it_is_counted_as_what_would_have_been(self):
        weir = self.start(self.lists().flag, *self.flags()[:-2])
        self.wait_tested(weir)
        self.assert_mail(weir, SPAMMER, "logged-only")
        wait_until(lambda: weir.metric("weir_findings_total", finding="score-reject", action="log") == 1, "the finding")
        self.assertEqual(weir.metric("weir_findings_total", finding="dnsbl", action="log"), 1)


@needs("rbldnsd", "unbound")
class Faults(Listed):
    """Lists that do not work as lists, and resolvers that do not work: mail goes on, nothing is invented, the operator is told."""

    def test_lists_that_lie_are_suspended_until_they_do_not(self):
        angry = (["0.0.0.0/0 :127.255.255.254:public resolver"], ["::/0 :127.255.255.254:public resolver"])
        good = LISTED4 + [f"{SPAMMER} :127.0.0.2:spam"]
        rbldnsd = Rbldnsd(self, {"good.test": (good, LISTED6), "all.test": EVERYTHING, "angry.test": angry, "empty.test": [f"{SPAMMER} :127.0.0.2:spam"]})
        stubs = {f"{name}.test": rbldnsd.port for name in ("good", "all", "angry", "empty")}
        unbound = Unbound(self, {**stubs, "dead.test": Silent(self).port})
        zones = ("good.test*1", "all.test*9", "angry.test*9", "empty.test*9", "gone.test*9", "dead.test*9")
        flags = [word for zone in zones for word in ("--dnsbl", zone)]
        weir = self.start(unbound.flag, *flags, *REJECT, "--lookup-wait", "2s")
        # At once, with the lists not tested yet: nobody believes them.
        self.assert_mail(weir, CLEAN, "before-the-tests")
        standings = self.wait_tested(weir)
        nothing, everything, wrong, silent = "lists_nothing", "lists_everything", "wrong_answer", "no_answer"
        want = {"good.test": "passed", "all.test": everything, "angry.test": wrong, "empty.test": nothing, "gone.test": nothing, "dead.test": silent}
        self.assertEqual({name: v4 for name, (v4, _) in standings.items()}, want)
        for name, word in want.items():
            told = [line for line in weir.log().splitlines() if "dnsbl_suspended" in line and name in line]
            self.assertEqual(len(told), 0 if word == "passed" else 1, f"{name}: {told}")
        began = time.monotonic()
        self.assert_mail(weir, CLEAN, "with-liars")
        self.assert_mail(weir, SPAMMER, "listed-by-the-good-one-alone")
        self.assertLess(time.monotonic() - began, 1.5, "nobody waits for a list that is suspended")
        self.assertEqual(weir.metric("weir_findings_total", finding="dnsbl", action="log"), 1)
        self.assertEqual(weir.metric("weir_findings_total", finding="score-reject"), 0)
        # It is tested again each minute.
        rbldnsd.change("all.test", (LISTED4 + [f"{SPAMMER} :127.0.0.2:spam"], LISTED6))
        wait_until(lambda: self.standings(weir)["all.test"] == ("passed", "passed"), "the list to be believed again", patience=75)
        wait_until(lambda: "dnsbl_resumed" in weir.log(), "the log to say so")
        self.assertEqual(self.rcpt(weir, SPAMMER).code, 550)
        self.assert_mail(weir, CLEAN, "after-all")

    def test_a_resolver_that_makes_up_addresses_lists_nobody(self):
        rbldnsd = Rbldnsd(self, {"bl.test": (LISTED4, LISTED6)})
        unbound = Unbound(self, {"bl.test": rbldnsd.port})
        weir = self.start(Meddler(self, unbound.port, rewriting()).flag, "--dnsbl", "bl.test*9", *REJECT)
        self.assertEqual(self.wait_tested(weir), {"bl.test": ("wrong_answer", "wrong_answer")})
        self.assertIn("198.51.100.1, which is no listing", weir.log())
        self.assert_mail(weir, CLEAN, "rewritten")

    def test_untested_lists_are_believed_and_their_faults_still_are_none(self):
        angry = ["0.0.0.0/0 :127.255.255.254:public resolver"]
        rbldnsd = Rbldnsd(self, {"angry.test": angry, "bl.test": [f"{SPAMMER} :127.0.0.2:spam"]})
        unbound = Unbound(self, {"angry.test": rbldnsd.port, "bl.test": rbldnsd.port})
        flags = ("--dnsbl", "angry.test*9", "--dnsbl", "bl.test*9", "--dnsbl-recheck", "0")
        weir = self.start(unbound.flag, *flags, *REJECT)
        self.assertEqual(self.rcpt(weir, SPAMMER).code, 550)
        self.assert_mail(weir, CLEAN, "angry")
        self.assertGreaterEqual(weir.metric("weir_dnsbl_answers_total", list="angry.test", says="fault"), 2)

    def test_a_resolver_that_says_nothing_costs_the_wait_and_no_mail(self):
        weir = self.start(Silent(self).flag, "--dnsbl", "bl.test*9", *REJECT, "--lookup-wait", "1s")
        began = time.monotonic()
        self.assert_mail(weir, CLEAN, "silent")
        self.assertLess(time.monotonic() - began, 4)
        self.assertEqual(self.wait_tested(weir), {"bl.test": ("no_answer", "no_answer")})
        began = time.monotonic()
        self.assert_mail(weir, CLEAN, "silent-and-known-to-be")
        self.assertLess(time.monotonic() - began, 0.9, "a list that is silent is not waited for")


@needs("unbound")
class Names(Listed):
    DATA = (
        f"{'.'.join(reversed(CLEAN.split('.')))}.in-addr.arpa. 60 IN PTR mail.client.test.",
        f"mail.client.test. 60 IN A {CLEAN}",
        "client.test. 60 IN MX 10 mail.client.test.",
        f"{'.'.join(reversed(SPAMMER.split('.')))}.in-addr.arpa. 60 IN PTR mail.client.test.",
        "null.test. 60 IN MX 0 .",
        "implicit.test. 60 IN A 192.0.2.1",
    )

    def found(self, weir):
        samples = weir.metrics().items()
        prefix = 'weir_findings_total{finding="'
        return sorted(name[len(prefix) :].split('"')[0] for name, value in samples if name.startswith(prefix) and value)

    def test_a_client_with_its_names_in_order_is_not_found_fault_with(self):
        weir = self.start(Unbound(self, data=self.DATA).flag, "--reputation", "on")
        with Client(weir.port, source=CLEAN, hello="mail.client.test") as client:
            self.assertEqual(client.data(message("in-order")).code, 250)
            client.quit()
        self.assertEqual(self.found(weir), [])

    def test_names_that_are_not_in_order_are_found(self):
        unbound = Unbound(self, data=self.DATA)
        table = [
            (SHY, "mail.client.test", "a@client.test", ["helo-mismatch", "no-reverse"]),
            (SPAMMER, "mail.client.test", "a@client.test", ["reverse-mismatch"]),
            (CLEAN, "nobody.test", "a@client.test", ["helo-unresolved"]),
            (CLEAN, "localhost", "a@implicit.test", ["helo-syntax"]),
            (CLEAN, "[192.0.2.1]", "a@client.test", ["helo-literal"]),
            (CLEAN, f"[{CLEAN}]", "", []),
            (CLEAN, "mail.client.test", "a@nobody.test", ["sender-unresolved"]),
            (CLEAN, "mail.client.test", "a@null.test", ["sender-null-mx"]),
        ]
        for source, helo, sender, want in table:
            with self.subTest(source=source, helo=helo, sender=sender):
                weir = self.start(unbound.flag, "--reputation", "on", shards=1)
                with Client(weir.port, source=source, hello=helo) as client:
                    client.expect(250, f"MAIL FROM:<{sender}>")
                    client.expect(250, "RCPT TO:<b@weir.test>")
                    wait_until(lambda: self.found(weir) == want, f"{want}, not {self.found(weir)}", patience=5)
                weir.stop()

    def test_a_finding_about_names_refuses_where_that_is_asked_for(self):
        flags = ("--on", "sender-null-mx=reject", "--on", "no-reverse=log,score=3", "--on", "helo-unresolved=log,score=2")
        weir = self.start(Unbound(self, data=self.DATA).flag, *flags, *REJECT)
        self.assertEqual(self.rcpt(weir, CLEAN, sender="a@null.test").enhanced, "5.7.27")
        self.assertEqual(self.rcpt(weir, SHY, helo="nobody.test").enhanced, "5.7.1")
        self.assertEqual(self.rcpt(weir, SHY, helo="mail.client.test").code, 250)


if __name__ == "__main__":
    unittest.main()
