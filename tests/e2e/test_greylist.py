"""Greylisting, spamtraps, history and origin: what is remembered of networks, and who has to come again.

Sources are addresses of 127.0.0.0/8: 127.0.40.x and 127.0.41.x are two networks. Times are short by flags. Nobody answers
for DNS, which must not matter.
"""

import os
import signal
import time
import unittest

import mmdb
from weirtest import Case, Client, message, stuff, wait_until

DELAY = 3
QUICK = ("--greylist-delay", f"{DELAY}s", "--greylist-window", "60s", "--resolver", "127.0.0.1:9")
DEFER = ("--on", "greylist=defer")


class Greylisting(Case):
    def send(self, weir, source, sender="a@client.test", recipient="b@weir.test", tag="mail"):
        """The code of the reply that decided."""
        with Client(weir.port, source=source, hello="client.test") as client:
            client.expect(250, f"MAIL FROM:<{sender}>")
            reply = client.command(f"RCPT TO:<{recipient}>")
            if reply.code != 250:
                self.assertEqual(reply.enhanced, "4.7.1" if reply.code < 500 else "5.7.1", reply)
                return reply.code
            reply = client.command("DATA")
            if reply.code != 354:
                self.assertEqual((reply.code, reply.enhanced), (451, "4.7.1"))
                return reply.code
            client.send(stuff(message(tag)) + b".\r\n")
            return client.reply().code

    def logged(self, weir, text):
        wait_until(lambda: text in weir.log(), f"{text!r} in the log")

    def write(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path + ".new", "wb") as file:
            file.write(content)
        os.rename(path + ".new", path)
        return path

    def reload(self, weir, word="reloaded"):
        before = weir.log().count(word)
        weir.signal(signal.SIGHUP)
        wait_until(lambda: weir.log().count(word) > before, f"{word!r} in the log")


class Retries(Greylisting):
    def test_who_comes_again_in_time_passes_and_its_network_is_proven(self):
        mx = self.upstream()
        weir = self.weir("--greylist", "all", *DEFER, *QUICK, upstreams=[mx], shards=2)
        began = time.monotonic()
        self.assertEqual(self.send(weir, "127.0.40.1"), 451)
        self.assertEqual(self.send(weir, "127.0.40.1"), 451, "too early")
        # What one shard has seen the others know within two seconds or so.
        time.sleep(max(0, began + DELAY + 1.5 - time.monotonic()))
        self.assertEqual(self.send(weir, "127.0.40.77", tag="first"), 250, "from another address of the network")
        wait_until(lambda: mx.by_tag("first"), "the message")

        def proven(source):
            return self.send(weir, source, sender="other@client.test", recipient="new@weir.test") == 250

        wait_until(lambda: all(proven(f"127.0.40.{n}") for n in range(1, 9)), "all shards to know that it is proven", 10, 0.2)
        self.assertEqual(self.send(weir, "127.0.41.1"), 451, "another network")
        self.assertEqual(self.send(weir, "127.0.41.1", recipient="c@weir.test"), 451, "per recipient")
        self.assertGreaterEqual(weir.metric("weir_greylist_total", tried="first"), 3)
        self.assertEqual(weir.metric("weir_greylist_total", tried="passed"), 1)
        self.assertGreaterEqual(weir.metric("weir_findings_total", finding="greylist", action="defer"), 4)
        self.logged(weir, "finding=greylist")

    def test_a_retry_after_the_window_is_a_first_try(self):
        weir = self.weir("--greylist", "all", *DEFER, "--greylist-delay", "1s", "--greylist-window", "2s", "--resolver", "127.0.0.1:9", upstreams=[self.upstream()])
        self.assertEqual(self.send(weir, "127.0.40.1"), 451)
        time.sleep(4.2)
        self.assertEqual(self.send(weir, "127.0.40.1"), 451)
        time.sleep(1.2)
        self.assertEqual(self.send(weir, "127.0.40.1"), 250)

    def test_the_null_sender_is_answered_at_rcpt_and_deferred_at_data(self):
        mx = self.upstream()
        weir = self.weir("--greylist", "all", *DEFER, *QUICK, upstreams=[mx])
        with Client(weir.port, source="127.0.40.1", hello="client.test") as callout:
            callout.expect(250, "MAIL FROM:<>")
            callout.expect(250, "RCPT TO:<b@weir.test>")
            callout.quit()
        self.assertEqual(weir.metric("weir_greylist_total"), 0, "a callout leaves no trace")
        self.assertEqual(self.send(weir, "127.0.40.1", sender=""), 451)
        with Client(weir.port, source="127.0.40.1", hello="client.test") as client:
            client.expect(250, "MAIL FROM:<>")
            client.expect(250, "RCPT TO:<b@weir.test>")
            reply = client.command("DATA")
            self.assertEqual((reply.code, reply.enhanced), (451, "4.7.1"))
            client.expect(250, "RSET")
            client.expect(250, "NOOP")
        time.sleep(DELAY + 0.5)
        self.assertEqual(self.send(weir, "127.0.40.1", sender="", tag="bounce"), 250)
        wait_until(lambda: mx.by_tag("bounce"), "the bounce")

    def test_several_recipients_are_each_their_own(self):
        mx = self.upstream()
        weir = self.weir("--greylist", "all", *DEFER, *QUICK, upstreams=[mx])
        self.assertEqual(self.send(weir, "127.0.40.1", recipient="old@weir.test"), 451)
        time.sleep(DELAY + 0.5)
        with Client(weir.port, source="127.0.40.1", hello="client.test") as client:
            client.send(b"MAIL FROM:<a@client.test>\r\nRCPT TO:<new@weir.test>\r\nRCPT TO:<old@weir.test>\r\nRCPT TO:<later@weir.test>\r\n")
            codes = [client.reply().code for _ in range(4)]
        # With the second the network is proven, so the third is not asked any more.
        self.assertEqual(codes, [250, 451, 250, 250])

    def test_log_mode_only_counts(self):
        mx = self.upstream()
        weir = self.weir("--greylist", "all", *QUICK, upstreams=[mx])
        self.assertEqual(self.send(weir, "127.0.40.1", tag="one"), 250)
        self.assertEqual(self.send(weir, "127.0.41.1", sender="", tag="two"), 250)
        self.assertEqual(weir.metric("weir_findings_total", finding="greylist", action="log"), 2)
        self.assertEqual(weir.metric("weir_greylist_total", tried="first"), 2)
        wait_until(lambda: weir.metric("weir_memory_tuples") >= 2, "the level of tuples")

    def test_nobody_is_asked_by_default(self):
        weir = self.weir(upstreams=[self.upstream()])
        self.assertEqual(self.send(weir, "127.0.40.1"), 250)
        self.assertEqual(weir.metric("weir_greylist_total"), 0)
        self.assertEqual(weir.metric("weir_memory_networks"), 0)

    def test_lists_exempt_clients_senders_and_recipients(self):
        weir = self.weir(
            "--greylist", "all", *DEFER, *QUICK,
            "--allow-list", self.write("al", b"127.0.42.0/24\n"),
            "--allow-sender", self.write("as", b"@friend.test\n"),
            "--allow-recipient", self.write("ar", b"postmaster@\n"),
            upstreams=[self.upstream()],
        )  # fmt: skip
        self.assertEqual(self.send(weir, "127.0.42.1"), 250)
        self.assertEqual(self.send(weir, "127.0.40.1", sender="x@friend.test"), 250)
        self.assertEqual(self.send(weir, "127.0.40.1", recipient="postmaster@weir.test"), 250)
        self.assertEqual(self.send(weir, "127.0.40.1"), 451)


class Origins(Greylisting):
    def test_only_who_has_a_score_is_greylisted_and_places_are_read_again(self):
        path = self.write("countries", mmdb.countries({"127.0.41.0/24": "XX", "127.0.42.0/24": "YY"}))
        asn = self.write("asn", mmdb.providers({"127.0.43.0/24": 64500}))
        weir = self.weir(
            "--greylist", "score", "--greylist-score", 2, *DEFER, *QUICK,
            "--geo-country", path, "--geo-asn", asn, "--origin", "XX*2 YY*1 AS64500*5",
            upstreams=[self.upstream()],
        )  # fmt: skip
        for source, code in [("127.0.40.1", 250), ("127.0.41.1", 451), ("127.0.42.1", 250), ("127.0.43.1", 451)]:
            self.assertEqual(self.send(weir, source), code, source)
        self.logged(weir, 'detail="AS64500"')
        self.write("countries", b"something else")
        self.reload(weir, "stays as it was")
        self.assertEqual(self.send(weir, "127.0.41.2", recipient="x@weir.test"), 451)
        self.write("countries", mmdb.countries({"127.0.40.0/24": "XX"}))
        self.reload(weir)
        wait_until(lambda: self.send(weir, "127.0.40.1") == 451, "the new file")
        self.assertEqual(self.send(weir, "127.0.41.9", recipient="y@weir.test"), 250)


class Traps(Greylisting):
    def test_who_writes_to_a_trap_is_held_to_it_with_its_network(self):
        traps = self.write("traps", b"trap@weir.test\n@trap.weir.test\n")
        weir = self.weir(
            "--spamtraps", traps, "--trap-time", "1h", "--resolver", "127.0.0.1:9",
            "--on", "spamtrap=reject", "--on", "trapped=reject",
            upstreams=[self.upstream()],
        )  # fmt: skip
        # The null sender springs no trap.
        self.assertEqual(self.send(weir, "127.0.40.1", sender="", recipient="trap@weir.test"), 250)
        self.assertEqual(self.send(weir, "127.0.40.1"), 250)
        self.assertEqual(self.send(weir, "127.0.40.1", recipient="TRAP@weir.test"), 550)
        wait_until(lambda: all(self.send(weir, f"127.0.40.{n}") == 550 for n in range(1, 9)), "all shards to know", 10, 0.2)
        self.assertEqual(self.send(weir, "127.0.41.1"), 250)
        self.assertGreaterEqual(weir.metric("weir_findings_total", finding="trapped", action="reject"), 8)
        # A list with an error is told by its line, and the old one stays.
        self.write("traps", b"trap@weir.test\nno address at all\n")
        self.reload(weir, "stays as it was")
        self.logged(weir, "line 2")
        self.write("traps", b"other@weir.test\n")
        self.reload(weir)
        wait_until(lambda: self.send(weir, "127.0.42.1", recipient="trap@weir.test") == 250, "the new list")
        self.assertEqual(self.send(weir, "127.0.42.1", recipient="other@weir.test"), 550)


class History(Greylisting):
    def test_a_network_that_knows_nobody_is_remembered_for_it(self):
        strict = [True]
        mx = self.upstream(on={"RCPT": lambda _: b"550 5.1.1 No such user\r\n" if strict[0] else None})
        weir = self.weir("--reputation", "on", "--on", "history=reject", "--resolver", "127.0.0.1:9", "--errors-soft", 0, "--errors-hard", 0, upstreams=[mx])
        with Client(weir.port, source="127.0.40.1", hello="client.test") as client:
            client.expect(250, "MAIL FROM:<a@client.test>")
            for n in range(12):
                reply = client.command(f"RCPT TO:<user{n}@weir.test>")
                self.assertEqual((reply.code, reply.enhanced), (550, "5.1.1"))
        strict[0] = False
        self.assertEqual(self.send(weir, "127.0.41.1"), 250)
        wait_until(lambda: all(self.send(weir, f"127.0.40.{n}") == 550 for n in range(1, 9)), "the history", 10, 0.2)
        self.logged(weir, "finding=history")
        wait_until(lambda: weir.metric("weir_memory_networks") >= 2, "the level of networks")


if __name__ == "__main__":
    unittest.main()
