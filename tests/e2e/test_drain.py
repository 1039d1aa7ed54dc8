"""SIGTERM: no new sessions, running transactions finish, nothing accepted is lost."""

import signal
import time
import unittest

from weirtest import Case, Client, Closed, Load, message, stuff


class Drain(Case):
    def test_under_load_loses_nothing(self):
        mx = self.upstream(delay={".": 0.01})
        weir = self.weir("--drain-timeout", "20s", upstreams=[mx])
        load = Load(weir.port, threads=12, size=20_000)
        load.wait_accepted(100)
        weir.signal(signal.SIGTERM)
        code = weir.wait(25)
        load.stop()
        self.assertEqual(code, 0, weir.log()[-2000:])
        for tag, (body, reply) in load.accepted.items():
            self.assertEqual(len(mx.by_tag(tag)), 1, f"{tag} was accepted and is gone")
            self.assertTrue(mx.by_tag(tag)[0].body == body)
        # A client whose dot was up hears the upstream's word, even in a drain.
        lost = [t for t in load.unknown if mx.by_tag(t)]
        self.assertEqual(lost, [], "the upstream said 250 and the client did not hear it")
        for tag, (_, reply) in load.refused.items():
            self.assertIn(reply.code, (421, 451), reply)

    def test_idle_session_hears_421(self):
        weir = self.weir(upstreams=[self.upstream()])
        client = weir.client(hello="idle.test")
        weir.signal(signal.SIGTERM)
        self.assertEqual(client.reply().code, 421)
        self.assertEqual(client.rest(), b"")
        self.assertEqual(weir.wait(), 0)

    def test_a_final_reply_that_is_owed_is_waited_for(self):
        mx = self.upstream(delay={".": 2})
        weir = self.weir("--drain-timeout", "20s", upstreams=[mx])
        client = weir.client(hello="client.test")
        client.envelope()
        client.expect(354, "DATA")
        body = message("owed")
        client.send(stuff(body) + b".\r\n")
        time.sleep(0.3)
        weir.signal(signal.SIGTERM)
        reply = client.reply()
        self.assertEqual(reply.code, 250, reply)
        self.assert_relayed(mx, "owed", body)
        self.assertEqual(weir.wait(), 0)

    def test_an_open_transaction_may_finish(self):
        mx = self.upstream()
        weir = self.weir("--drain-timeout", "20s", upstreams=[mx])
        client = weir.client(hello="client.test")
        client.envelope()
        client.expect(354, "DATA")
        body = message("open", 3000)
        client.send(stuff(body)[:500])
        time.sleep(0.1)
        weir.signal(signal.SIGTERM)
        time.sleep(0.3)
        client.send(stuff(body)[500:] + b".\r\n")
        self.assertEqual(client.reply().code, 250)
        self.assert_relayed(mx, "open", body)
        self.assertEqual(client.reply().code, 421)
        self.assertEqual(weir.wait(), 0)

    def test_new_sessions_are_not_taken(self):
        mx = self.upstream(delay={".": 2})
        weir = self.weir("--drain-timeout", "20s", upstreams=[mx])
        client = weir.client(hello="client.test")
        client.envelope()
        client.expect(354, "DATA")
        client.send(b"x\r\n.\r\n")
        time.sleep(0.2)
        weir.signal(signal.SIGTERM)
        time.sleep(0.5)
        with self.assertRaises((OSError, Closed, AssertionError)):
            late = Client(weir.port, patience=1)
            if late.greeting.code != 220:
                raise Closed
        self.assertNotEqual(weir.get("/readyz")[0], 200)
        self.assertEqual(client.reply().code, 250)
        self.assertEqual(weir.wait(), 0)

    def test_the_drain_is_bounded(self):
        weir = self.weir("--drain-timeout", "1s", upstreams=[self.upstream()])
        client = weir.client(hello="client.test")
        client.envelope()
        client.expect(354, "DATA")
        client.send(b"never ends\r\n")
        weir.signal(signal.SIGTERM)
        began = time.monotonic()
        weir.wait(10)
        self.assertLess(time.monotonic() - began, 6)

    def test_a_second_signal_ends_at_once(self):
        mx = self.upstream(faults={".": "silent"})
        weir = self.weir("--drain-timeout", "1h", upstreams=[mx])
        client = weir.client(hello="client.test")
        client.envelope()
        client.expect(354, "DATA")
        client.send(b"x\r\n.\r\n")
        time.sleep(0.2)
        weir.signal(signal.SIGINT)
        time.sleep(0.5)
        self.assertTrue(weir.running(), "the first signal drains")
        weir.signal(signal.SIGINT)
        weir.wait(5)

    def test_an_idle_weir_ends_quickly_and_closes_its_upstreams_politely(self):
        mx = self.upstream()
        weir = self.weir(upstreams=[mx])
        self.assert_alive(weir)
        began = time.monotonic()
        weir.signal(signal.SIGTERM)
        self.assertEqual(weir.wait(), 0)
        self.assertLess(time.monotonic() - began, 5)


if __name__ == "__main__":
    unittest.main()
