"""Trouble on either side: a defined reply, no half message, no lost one, and weir goes on."""

import time
import unittest

from weirtest import Case, Closed, Upstream, message, reset, stuff, wait_until

DATA_ONLY = ("PIPELINING", "SIZE 50000000", "8BITMIME", "ENHANCEDSTATUSCODES")
FAULTS = ("close", "reset", "half", "garbage", "mixed", "endless", "long", "wrong")


class UpstreamFaults(Case):
    """Every fault at every command: 4xx for the client, never 250, and the next message passes."""

    def faulty(self, extensions, verb):
        mx = self.upstream(extensions)
        weir = self.weir("--queue-wait", "1s", "--probe-interval", "1s", upstreams=[mx])
        for fault in FAULTS:
            with self.subTest(verb=verb, fault=fault):
                mx.faults = {verb: fault}
                if verb == "CONNECT":
                    mx.close_idle()
                    time.sleep(0.1)
                tag = f"{verb}-{fault}"
                with weir.client(hello="client.test") as client:
                    reply = self.attempt(client, message(tag))
                    self.assertIn(reply.code // 100, (4,), f"{reply}\n{weir.log()[-1500:]}")
                    self.assertIsNotNone(reply.enhanced, reply)
                    self.assertEqual(client.command("NOOP").code, 250, "the session goes on")
                self.assertEqual(mx.by_tag(tag), [])
                mx.faults = {}
                wait_until(lambda: self.recovered(weir, tag), "recovery", 20, 0.2)
        self.assertTrue(weir.running())

    def attempt(self, client, body):
        reply = client.command("MAIL FROM:<a@client.test>")
        if reply.code != 250:
            return reply
        reply = client.command("RCPT TO:<b@weir.test>")
        if reply.code != 250:
            return reply
        reply = client.command("DATA")
        if reply.code != 354:
            return reply
        client.send(stuff(body) + b".\r\n")
        return client.reply()

    def recovered(self, weir, tag):
        with weir.client(hello="client.test") as client:
            return self.attempt(client, message(f"after-{tag}")).code == 250

    def test_at_connect(self):
        self.faulty(Upstream.EXTENSIONS, "CONNECT")

    def test_at_mail(self):
        self.faulty(Upstream.EXTENSIONS, "MAIL")

    def test_at_rcpt(self):
        self.faulty(Upstream.EXTENSIONS, "RCPT")

    def test_at_data(self):
        self.faulty(DATA_ONLY, "DATA")

    def test_at_the_end_of_data(self):
        self.faulty(DATA_ONLY, ".")

    def test_at_the_last_chunk(self):
        self.faulty(Upstream.EXTENSIONS, ".")

    def test_at_a_streamed_chunk(self):
        mx = self.upstream()
        weir = self.weir(upstreams=[mx])
        for fault in FAULTS:
            with self.subTest(fault=fault):
                mx.faults = {"BDAT": fault}
                body = message(f"chunk-{fault}", 2_000_000)
                with weir.client(hello="client.test") as client:
                    reply = self.attempt(client, body)
                    # Where the body fitted weir's budget no chunk but the last was sent.
                    self.assertIn(reply.code // 100, (2, 4), reply)
                    if reply.code == 250:
                        self.assertEqual(len(mx.by_tag(f"chunk-{fault}")), 1)
                    else:
                        self.assertEqual(mx.by_tag(f"chunk-{fault}"), [])
                mx.faults = {}
                wait_until(lambda: self.recovered(weir, f"chunk-{fault}"), "recovery", 20, 0.2)

    def test_ehlo_faults(self):
        for fault in ("close", "garbage", "long"):
            with self.subTest(fault=fault):
                mx = self.upstream(faults={"EHLO": fault})
                weir = self.weir("--queue-wait", "1s", upstreams=[mx], ready=False)
                wait_until(lambda: weir.get("/healthz")[0] == 200, "weir to live")
                with weir.client(hello="client.test") as client:
                    client.expect(250, "MAIL FROM:<a@client.test>")
                    self.assertEqual(client.command("RCPT TO:<b@weir.test>").code // 100, 4)

    def test_rset_refused_by_the_upstream(self):
        mx = self.upstream(on={"RSET": b"503 5.5.1 Whatever\r\n"})
        weir = self.weir(upstreams=[mx])
        for turn in range(3):
            with weir.client(hello="client.test") as client:
                client.envelope(sender=f"dropped{turn}@client.test")
                client.expect(250, "RSET")
                body = message(f"rset-{turn}")
                self.assertEqual(client.data(body, sender=f"kept{turn}@client.test").code, 250)
            kept = self.assert_relayed(mx, f"rset-{turn}", body)
            self.assertEqual((kept.sender, kept.recipients), (f"kept{turn}@client.test", ["b@weir.test"]))
        self.assertEqual(mx.violations, [])

    def test_stray_bytes_behind_the_final_reply(self):
        mx = self.upstream(on={".": b"250 2.0.0 Ok\r\n250 2.0.0 and again\r\n"})
        weir = self.weir(upstreams=[mx])
        for turn in range(3):
            with weir.client(hello="client.test") as client:
                self.assertEqual(client.data(message(f"stray-{turn}")).code, 250)
        self.assertEqual(len(mx.messages), 3)

    def test_silent_upstream_and_impatient_client(self):
        mx = self.upstream(faults={".": "silent"})
        weir = self.weir(upstreams=[mx])
        client = weir.client(hello="client.test")
        client.envelope()
        client.expect(354, "DATA")
        client.send(stuff(message("silent")) + b".\r\n")
        self.assertTrue(client.quiet(1.5), "no reply may be invented")
        client.close()
        mx.faults = {}
        self.assert_alive(weir)


class UpstreamCuts(Case):
    """The upstream's side of a session ends at any byte: never a 250 that the upstream did not say whole."""

    SCRIPT = b"250 2.1.0 Sender ok\r\n250 2.1.5 Recipient ok\r\n"

    def cut(self, end):
        mx = self.upstream()
        weir = self.weir(upstreams=[mx])
        final = b"250 2.0.0 Ok: queued\r\n"
        for offset in range(0, len(final), 2):
            with self.subTest(offset=offset):

                def half(dialogue, offset=offset):
                    dialogue.sock.sendall(final[:offset])
                    time.sleep(0.01)
                    if end == "reset":
                        reset(dialogue.sock)
                    raise Closed

                mx.on = {".": lambda d: self.swallow(half, d)}
                with weir.client(hello="client.test") as client:
                    reply = client.data(message(f"cut-{offset}"))
                    self.assertEqual(reply.code, 451, reply)
                self.assertEqual(mx.by_tag(f"cut-{offset}"), [])
        mx.on = {}
        self.assert_alive(weir)

    @staticmethod
    def swallow(half, dialogue):
        try:
            half(dialogue)
        except Closed:
            raise OSError("cut") from None

    def test_close_within_the_final_reply(self):
        self.cut("close")

    def test_reset_within_the_final_reply(self):
        self.cut("reset")


class ClientCuts(Case):
    """The client goes away at any byte: the upstream never gets a message with a made-up end."""

    def session(self, bdat):
        """The client's side as (bytes, replies to wait for behind them), and the message."""
        body = message("cut-client", 600)
        head = b"EHLO c.test\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@weir.test>\r\n"
        if bdat:
            return [(head + b"BDAT %d\r\n" % 100 + body[:100] + b"BDAT %d LAST\r\n" % (len(body) - 100) + body[100:], 0)], body
        return [(head + b"DATA\r\n", 4), (stuff(body) + b".\r\n", 0)], body

    def cut(self, extensions, bdat, how):
        mx = self.upstream(extensions)
        weir = self.weir(upstreams=[mx])
        flights, body = self.session(bdat)
        length = sum(len(flight) for flight, _ in flights)
        for offset in sorted(set(range(0, length, 41)) | set(range(length - 8, length))):
            client = weir.client()
            left = offset
            for flight, replies in flights:
                client.send(flight[:left])
                left -= len(flight)
                if left <= 0:
                    break
                for _ in range(replies):
                    client.reply()
            if offset % 2:
                time.sleep(0.005)
            {"reset": client.reset, "close": client.close, "half": client.half_close}[how]()
            if how == "half":
                client.rest()
                client.close()
        self.assert_alive(weir)
        self.assertEqual(mx.by_tag("cut-client"), [], "no whole message was sent")
        self.assertEqual([m.tag for m in mx.messages], ["alive-after-all"])
        wait_until(lambda: weir_sessions(weir) == 0, "all sessions to end", 10)

    def test_reset_data_to_bdat(self):
        self.cut(Upstream.EXTENSIONS, False, "reset")

    def test_reset_data_to_data(self):
        self.cut(DATA_ONLY, False, "reset")

    def test_reset_bdat_to_bdat(self):
        self.cut(Upstream.EXTENSIONS, True, "reset")

    def test_reset_bdat_to_data(self):
        self.cut(DATA_ONLY, True, "reset")

    def test_close_data(self):
        self.cut(DATA_ONLY, False, "close")

    def test_half_close_data(self):
        self.cut(Upstream.EXTENSIONS, False, "half")

    def test_reset_in_a_large_streamed_body(self):
        mx = self.upstream(DATA_ONLY)
        weir = self.weir(upstreams=[mx])
        body = message("cut-client", 3_000_000)
        for part in (100_000, 500_000, 1_500_000, 2_900_000):
            client = weir.client(hello="client.test")
            client.envelope()
            client.expect(354, "DATA")
            client.send(stuff(body)[:part])
            client.reset()
        self.assert_alive(weir)
        self.assertEqual(mx.by_tag("cut-client"), [])

    def test_half_close_after_a_whole_session_still_gets_replies(self):
        mx = self.upstream()
        weir = self.weir(upstreams=[mx])
        flights, _ = self.session(True)
        with weir.client() as client:
            client.send(flights[0][0])
            client.half_close()
            answers = client.rest()
        self.assertEqual(len(mx.by_tag("cut-client")), 1)
        self.assertIn(b"kept as", answers, "a client that only shut its sending side hears the final reply")

    def test_client_gone_after_its_dot(self):
        mx = self.upstream(delay={".": 0.3})
        weir = self.weir(upstreams=[mx])
        body = message("gone")
        client = weir.client(hello="client.test")
        client.envelope()
        client.expect(354, "DATA")
        client.send(stuff(body) + b".\r\n")
        client.close()
        mx.wait_messages(1)
        self.assert_relayed(mx, "gone", body)
        self.assert_alive(weir)


def weir_sessions(weir):
    sessions = [v for k, v in weir.metrics().items() if k.partition("{")[0] == "weir_sessions_active"]
    assert sessions, "the metric weir_sessions_active is missing"
    return sum(sessions)


if __name__ == "__main__":
    unittest.main()
