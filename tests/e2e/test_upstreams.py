"""Several upstreams, dying and returning, under load."""

import time
import unittest

from weirtest import Case, Load, message, wait_until


class Failover(Case):
    def check(self, load, *upstreams):
        """Every 250 has its message at exactly one upstream, byte for byte."""
        for tag, (body, reply) in load.accepted.items():
            found = [m for u in upstreams for m in u.by_tag(tag)]
            self.assertGreaterEqual(len(found), 1, f"{tag} was accepted ({reply}) and is nowhere")
            self.assertEqual(len(found), 1, f"{tag}: {len(found)} copies, and the client sent it once")
            self.assertTrue(found[0].body == body, f"{tag}: bytes differ")
        for tag, (_, reply) in load.refused.items():
            self.assertIn(reply.code // 100, (4,), f"{tag}: {reply}: own troubles are 4xx")
        for upstream in upstreams:
            self.assertEqual(upstream.violations, [])

    def test_killed_and_restarted_under_load(self):
        mx = self.upstream()
        weir = self.weir(upstreams=[mx])
        load = Load(weir.port, threads=8)
        load.wait_accepted(50)
        for abort in (True, False):
            mx.stop(abort=abort)
            time.sleep(0.5)
            mx.start()
            load.wait_accepted(len(load.accepted) + 50, 60)
        load.stop()
        self.check(load, mx)

    def test_one_of_two_dies_under_load(self):
        one, two = self.upstream(), self.upstream()
        weir = self.weir(upstreams=[one, two])
        load = Load(weir.port, threads=8)
        load.wait_accepted(50)
        wait_until(lambda: one.messages and two.messages, "both upstreams to get messages")
        one.stop(abort=True)
        mark = len(load.accepted)
        load.wait_accepted(mark + 100, 60)
        one.start()
        mark = len(one.messages)
        wait_until(lambda: len(one.messages) > mark, "the returned upstream to be used again", 60)
        load.stop()
        self.check(load, one, two)

    def test_one_is_down_from_the_start(self):
        dead, live = self.upstream(), self.upstream()
        dead.stop()
        weir = self.weir(upstreams=[dead, live])
        for n in range(10):
            with weir.client(hello="client.test") as client:
                self.assertEqual(client.data(message(f"half-{n}")).code, 250)
        self.assertEqual(len(live.messages), 10)

    def test_all_down_then_back(self):
        mx = self.upstream()
        weir = self.weir(upstreams=[mx])
        mx.stop()
        mx.close_idle()
        with weir.client(hello="client.test") as client:
            client.expect(250, "MAIL FROM:<a@client.test>")
            began = time.monotonic()
            reply = client.command("RCPT TO:<b@weir.test>")
            self.assertEqual((reply.code, reply.enhanced), (451, "4.4.1"))
            self.assertLess(time.monotonic() - began, 35)
            mx.start()

            def passes():
                client.expect(250, "RSET")
                client.expect(250, "MAIL FROM:<a@client.test>")
                return client.command("RCPT TO:<b@weir.test>").code == 250

            wait_until(passes, "the upstream to be used again", 60, 0.3)

    def test_421_is_retried_at_the_other(self):
        busy, free = self.upstream(), self.upstream()
        weir = self.weir(upstreams=[busy, free])
        busy.on = {"MAIL": b"421 4.3.2 Too busy\r\n"}
        for n in range(6):
            body = message(f"busy-{n}")
            with weir.client(hello="client.test") as client:
                self.assertEqual(client.data(body).code, 250, "the client notices nothing")
            self.assert_relayed(free, f"busy-{n}", body)

    def test_421_greeting_is_retried_at_the_other(self):
        busy, free = self.upstream(), self.upstream()
        weir = self.weir(upstreams=[busy, free])
        busy.on = {"CONNECT": b"421 4.3.2 Too busy\r\n"}
        busy.close_idle()
        for n in range(6):
            with weir.client(hello="client.test") as client:
                self.assertEqual(client.data(message(f"greet-{n}")).code, 250)
        self.assertEqual(len(free.messages), 6)

    def test_no_slot_is_451_after_a_bounded_wait(self):
        mx = self.upstream(delay={".": 3})
        weir = self.weir("--pool-max", 1, upstreams=[mx])
        first = weir.client(hello="one.test")
        first.envelope()
        first.expect(354, "DATA")
        first.send(b"x\r\n.\r\n")
        with weir.client(hello="two.test") as second:
            reply = second.data(message("waits"))
            self.assertEqual(reply.code, 250, "it waits for the slot inside its reply's deadline")
        self.assertEqual(first.reply().code, 250)
        first.close()

    def test_weight_and_max_are_kept(self):
        heavy, light = self.upstream(delay={".": 0.02}), self.upstream(delay={".": 0.02})
        weir = self.weir(upstreams=[f"127.0.0.1:{heavy.port},weight=3", f"127.0.0.1:{light.port},weight=1,max=1"])
        load = Load(weir.port, threads=12)
        load.wait_accepted(200, 60)
        load.stop()
        self.check(load, heavy, light)
        self.assertLessEqual(light.open_max, 2, "max=1, and one probe")
        self.assertGreater(len(heavy.messages), len(light.messages))

    def test_capabilities_are_the_intersection(self):
        full, poor = self.upstream(), self.upstream(("PIPELINING", "SIZE 1000000"))
        weir = self.weir(upstreams=[full, poor])
        with weir.client() as client:
            words = client.hello().text
            for keyword in (b"8BITMIME", b"SMTPUTF8", b"DSN"):
                self.assertNotIn(keyword, words)
            for keyword in (b"PIPELINING", b"CHUNKING", b"ENHANCEDSTATUSCODES", b"SIZE 1000000"):
                self.assertIn(keyword, words)

    def test_connection_uses_are_capped_and_replaced(self):
        mx = self.upstream()
        weir = self.weir(shards=1, upstreams=[mx])
        for _ in range(3):
            with weir.client(hello="client.test") as client:
                for n in range(80):
                    self.assertEqual(client.data(b"x\r\n").code, 250)
        self.assertEqual(len(mx.messages), 240)
        self.assertGreaterEqual(mx.connections, 3, "100 uses a connection")


if __name__ == "__main__":
    unittest.main()
