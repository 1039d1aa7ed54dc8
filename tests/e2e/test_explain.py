"""What weir tells of an address, connected or not, by its page and by its command."""

import json
import os
import subprocess
import unittest

from dnsservers import LISTED4, Rbldnsd, Unbound, needs, reversed4
from weirtest import BIN, Case, Client, message, wait_until


class Explain(Case):
    def page(self, weir, address):
        code, text = weir.get(f"/status/client/{address}")
        self.assertEqual(code, 200, text)
        return json.loads(text)

    def command(self, *words):
        run = subprocess.run([BIN, "explain", *words], capture_output=True, text=True, timeout=20, env={"PATH": os.environ["PATH"]})
        return run.returncode, run.stdout, run.stderr

    def list(self, name, *lines):
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write("".join(f"{line}\n" for line in lines))
        return path

    def test_a_stranger_and_those_on_lists(self):
        weir = self.weir(
            "--deny-list", self.list("deny", "127.0.20.0/24"), "--allow-list", self.list("allow", "127.0.20.7"), upstreams=[self.upstream()]
        )
        stranger = self.page(weir, "192.0.2.1")
        self.assertEqual((stranger["complete"], stranger["list"], stranger["shards"]), (True, None, []))
        self.assertIsNone(stranger["would"]["refuse_at"])
        denied = self.page(weir, "::ffff:127.0.20.1")
        self.assertEqual((denied["address"], denied["list"]), ("127.0.20.1", "deny"))
        self.assertEqual((denied["would"]["refuse_at"], denied["would"]["finding"]), ("connect", "deny-list"))
        self.assertEqual(self.page(weir, "127.0.20.7")["list"], "allow")
        self.assertEqual(weir.get("/status/client/mx.example")[0], 400)

    def test_limits_of_a_client_are_told_from_its_shard(self):
        weir = self.weir("--rate-messages", "10/h", "--client-concurrency", "9", upstreams=[self.upstream()], shards=2)
        for last in range(1, 9):  # some on each shard
            source = f"127.0.40.{last}"
            with Client(weir.port, source=source, hello="client.test") as client:
                for number in range(3):
                    client.data(message(f"rated-{last}-{number}"))
                page = self.page(weir, source)
                self.assertTrue(page["complete"])
                (shard,) = page["shards"]
                self.assertEqual(shard["connections"], 1)
                self.assertGreater(shard["known_seconds"], 600_000)
                self.assertEqual([(r["finding"], r["left"]) for r in shard["rates"]], [("rate-messages", 7)])
                self.assertEqual(self.page(weir, source)["shards"][0]["rates"][0]["left"], 7, "looking takes nothing")
                client.quit()
            wait_until(lambda: self.page(weir, source)["shards"][0]["connections"] == 0, "its end")

    def test_the_command_says_it_in_lines(self):
        weir = self.weir("--deny-list", self.list("deny", "127.0.20.0/24"), upstreams=[self.upstream()])
        code, out, _ = self.command("127.0.20.1", "--admin", f"127.0.0.1:{weir.admin}")
        self.assertEqual(code, 0)
        self.assertIn("would       be turned away when it connects: deny-list=drop", out)
        self.assertIn("list        on --deny-list", out)
        code, out, _ = self.command("2001:db8::1", "--admin", f"127.0.0.1:{weir.admin}")
        self.assertEqual(code, 0)
        self.assertIn("would       be served", out)
        flags = self.list("flags", f"--admin 127.0.0.1:{weir.admin}", "--listen 127.0.0.1:25")
        self.assertEqual(self.command("192.0.2.1", f"@{flags}")[0], 0)

    def test_what_cannot_be_asked_is_told(self):
        weir = self.weir(upstreams=[self.upstream()])
        for words, why in [
            (["mx.example", "--admin", f"127.0.0.1:{weir.admin}"], "no IP address"),
            (["192.0.2.1"], "--admin"),
            (["192.0.2.1", "--admin", "127.0.0.1:1"], "is weir running?"),
            (["192.0.2.1", "--admin", f"127.0.0.1:{weir.port}"], "admin page"),
        ]:
            code, out, err = self.command(*words)
            self.assertNotEqual(code, 0, words)
            self.assertIn(why, err)
        self.assert_alive(weir)

    @needs("rbldnsd", "unbound")
    def test_lists_and_names_are_asked_and_told_with_their_weight_and_time(self):
        zone = "0123456789abcdef0.bl.test"
        rbldnsd = Rbldnsd(self, {zone: LISTED4 + ["127.0.0.66 :127.0.0.3:spam"]}, ttl=60)
        named = ["mx.named.test. 60 IN A 127.0.0.67", f"{reversed4('127.0.0.67')}.in-addr.arpa. 60 IN PTR mx.named.test."]
        unbound = Unbound(self, {zone: rbldnsd.port}, data=named, ttl_max=60)
        lists = ("--resolver", unbound.flag, "--dnsbl", f"{zone}=127.0.0.[2..11]*5", "--on", "no-reverse=log,score=1")
        score = ("--score-reject", "5", "--score-delay", "3", "--on", "score-delay=delay", "--greylist", "all", "--on", "greylist=defer")
        weir = self.weir(*lists, *score, upstreams=[self.upstream()])

        def tested():
            return [one for one in weir.status()["lists"] if one["ipv4"] == "passed"]

        wait_until(tested, "the list to be tested")
        page = self.page(weir, "127.0.0.66")
        self.assertEqual((page["complete"], page["score"], page["unanswered"]), (True, 6, []))
        marks = {mark["finding"]: mark for mark in page["marks"]}
        self.assertEqual(set(marks), {"dnsbl", "no-reverse"})
        listed = marks["dnsbl"]
        self.assertEqual((listed["weight"], listed["detail"], listed["check"]), (5, "bl.test", "dns list"))
        self.assertIn(listed["seconds"], range(1, 61))
        self.assertEqual(page["would"]["only_logged"], ["score-reject"])
        self.assertEqual((page["would"]["temper"], page["would"]["greylist"]), ("delayed", True))
        self.assertNotIn("0123456789abcdef0", json.dumps(page))
        code, out, _ = self.command("127.0.0.66", "--admin", f"127.0.0.1:{weir.admin}")
        self.assertEqual(code, 0)
        self.assertIn("would       be served with delays; its recipients would be greylisted (only logged: score-reject)", out)
        self.assertIn("+5 dnsbl bl.test (dns list, action log, for ", out)
        # Not listed, and its name leads back to it.
        page = self.page(weir, "127.0.0.67")
        self.assertEqual((page["complete"], page["score"], page["marks"]), (True, 0, []))
        self.assertEqual(page["network"], {"proven_seconds": 0, "trapped_seconds": 0, "history": 0, "provider_history": 0})
        unbound.process.stop()
        page = self.page(weir, "127.0.0.68")
        self.assertEqual((page["score"], page["marks"]), (0, []), "what is not known is not held against anybody")
        self.assertIn("bl.test", page["unanswered"])


if __name__ == "__main__":
    unittest.main()
