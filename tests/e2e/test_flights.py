"""How often weir speaks: replies of one flight leave in one send, and a message costs few round trips upstream.

The upstream is far away: it answers a flight only after a round trip, and counts flights. What the client reads at once
is one send, since sends that depend on a round trip are far apart.
"""

import functools
import time
import unittest

from weirtest import Case, Dialogue, Upstream, message, stuff, wait_until

ROUND_TRIP = 0.15
MAIL, RCPT = b"MAIL FROM:<a@client.test>\r\n", b"RCPT TO:<b@weir.test>\r\n"
NO_CHUNKING = tuple(word for word in Upstream.EXTENSIONS if word != "CHUNKING")


def unless_cut(test):
    """Once a second weir sends what has gathered, a flight in the making too. Who met that moment is tried again."""

    @functools.wraps(test)
    def tried(case):
        for tries_left in (2, 1, 0):
            try:
                return test(case)
            except AssertionError:
                if not tries_left:
                    raise

    return tried


class FarUpstream(Upstream):
    """Counts flights: what is read after everything before it was answered."""

    flights = 0

    def dialogue(self, sock):
        return FarDialogue(self, sock)


class FarDialogue(Dialogue):
    answered = False

    def say(self, verb, text):
        self.answered = True
        super().say(verb, text)

    def more(self):
        super().more()
        self.arrived()

    def body(self):
        whole = super().body()
        self.arrived()
        return whole

    def arrived(self):
        if self.answered:
            self.answered = False
            self.server.flights += 1
            time.sleep(ROUND_TRIP)


class Far(Case):
    def far(self, extensions=Upstream.EXTENSIONS, flags=(), **options):
        """An upstream and weir with a connection to it that is in use already."""
        upstream = FarUpstream(extensions, **options)
        self.addCleanup(upstream.stop)
        weir = self.weir(*flags, upstreams=[upstream], shards=1)
        with weir.client(hello="client.test") as client:
            client.data(message("opens-a-connection"))
        upstream.flights = 0
        self.connections = upstream.connections
        return upstream, weir


class ToTheClient(Far):
    def sends(self, client, flight, replies):
        """What each send brought, as codes, until there are so many replies."""
        client.send(flight)
        sends = []
        while sum(map(len, sends)) < replies:
            data = client.sock.recv(65536)
            self.assertTrue(data, f"closed after {sends}")
            self.assertTrue(data.endswith(b"\r\n"))
            sends.append([int(line[:3]) for line in data.splitlines()])
        self.assertTrue(client.quiet(0.05))
        return sends

    @unless_cut
    def test_the_replies_to_mail_rcpt_and_data_leave_together(self):
        upstream, weir = self.far()
        body = message("group")
        with weir.client(hello="client.test") as client:
            self.assertEqual(self.sends(client, MAIL + RCPT + b"DATA\r\n", 3), [[250, 250, 354]])
            self.assertEqual(self.sends(client, stuff(body) + b".\r\n", 1), [[250]])
        self.assert_relayed(upstream, "group", body)

    @unless_cut
    def test_replies_to_several_recipients_leave_together(self):
        third_refused = lambda dialogue: b"550 5.1.1 Who?\r\n" if len(dialogue.rcpts) == 2 and self.refuse.pop() else None
        self.refuse = [False] * 20 + [True]
        upstream, weir = self.far(on={"RCPT": third_refused})
        rcpts = b"".join(b"RCPT TO:<r%d@weir.test>\r\n" % n for n in range(20))
        body = message("many")
        with weir.client(hello="client.test") as client:
            sends = self.sends(client, MAIL + rcpts + b"DATA\r\n", 22)
            self.assertEqual(sends, [[250] * 3 + [550] + [250] * 17 + [354]])
            self.assertEqual(self.sends(client, stuff(body) + b".\r\n", 1), [[250]])
        self.assertEqual(len(self.assert_relayed(upstream, "many", body).recipients), 19)

    @unless_cut
    def test_a_chunk_in_the_same_flight_is_answered_with_its_recipients(self):
        upstream, weir = self.far()
        body = message("chunk")
        with weir.client(hello="client.test") as client:
            flight = MAIL + RCPT + b"BDAT %d LAST\r\n" % len(body) + body
            self.assertEqual(self.sends(client, flight, 3), [[250, 250, 250]])
        self.assert_relayed(upstream, "chunk", body)

    @unless_cut
    def test_a_transaction_begins_in_the_send_that_ends_the_one_before(self):
        upstream, weir = self.far()
        bodies = [message(f"row-{n}") for n in range(3)]
        flight = b"".join(MAIL + RCPT + b"BDAT %d LAST\r\n" % len(body) + body for body in bodies)
        with weir.client(hello="client.test") as client:
            sends = self.sends(client, flight, 9)
        self.assertEqual(sends, [[250] * 4, [250] * 3, [250] * 2])
        self.assertEqual(upstream.connections, self.connections, "each takes the connection of the one before")
        for n, body in enumerate(bodies):
            self.assert_relayed(upstream, f"row-{n}", body)

    def test_who_waits_for_each_reply_gets_it_at_once(self):
        _, weir = self.far()
        with weir.client(hello="client.test") as client:
            for command, round_trips in ((MAIL, 0), (RCPT, 1), (RCPT, 1), (b"DATA\r\n", 0)):
                began = time.monotonic()
                self.sends(client, command, 1)
                self.assertLess(time.monotonic() - began, (round_trips + 0.5) * ROUND_TRIP + 0.05)

    @unless_cut
    def test_replies_do_not_wait_for_octets_of_a_chunk(self):
        # Exim sends BDAT with the recipients, and its octets only when those are answered
        upstream, weir = self.far()
        body = message("exim")
        with weir.client(hello="client.test") as client:
            began = time.monotonic()
            flight = MAIL + RCPT + b"BDAT %d LAST\r\n" % len(body)
            self.assertEqual(self.sends(client, flight, 2), [[250, 250]])
            self.assertLess(time.monotonic() - began, 2 * ROUND_TRIP)
            self.assertEqual(self.sends(client, body, 1), [[250]])
        self.assert_relayed(upstream, "exim", body)

    def test_replies_wait_for_a_slow_upstream_a_second_at_most(self):
        _, weir = self.far(delay={"RCPT": 3})
        with weir.client(hello="client.test") as client:
            began = time.monotonic()
            self.assertEqual(self.sends(client, MAIL + RCPT + b"DATA\r\n", 1), [[250]])
            self.assertLess(time.monotonic() - began, 2)
            self.assertEqual([client.reply().code for _ in range(2)], [250, 354])
            self.assertGreater(time.monotonic() - began, 2.5)

    def test_a_refused_session_is_told_all_it_is_owed_before_it_is_closed(self):
        _, weir = self.far()
        with weir.client(hello="client.test") as client:
            client.send(MAIL + RCPT + b"QUIT\r\n")
            codes = [int(line[:3]) for line in client.rest().splitlines()]
        self.assertEqual(codes, [250, 250, 221])


def nobody_refused(dialogue):
    return b"550 5.1.1 Who?\r\n" if b"nobody" in dialogue.server.commands[-1] else None


class ToTheUpstream(Far):
    def round_trips(self, extensions, recipients, send, messages=2):
        """Round trips of one message, the same for each on a connection."""
        upstream, weir = self.far(extensions)
        with weir.client(hello="client.test") as client:
            for n in range(messages):
                before = upstream.flights
                body = message(f"trip-{n}", 20_000)
                self.assertEqual(send(client, body, recipients).code, 250)
                self.assert_relayed(upstream, f"trip-{n}", body)
                trips = upstream.flights - before
                self.assertEqual(trips, self.expected, f"message {n}")
        self.assertEqual(upstream.violations, [])

    @staticmethod
    def pipelined(client, body, recipients):
        client.send(MAIL + b"".join(b"RCPT TO:<%s>\r\n" % r.encode() for r in recipients) + b"DATA\r\n")
        codes = [client.reply().code for _ in range(len(recipients) + 2)]
        assert codes == [250] * (len(recipients) + 1) + [354], codes
        client.send(stuff(body) + b".\r\n")
        return client.reply()

    @staticmethod
    def patient(client, body, recipients):
        return client.data(body, recipients=recipients)

    def test_two_with_chunking(self):
        self.expected = 2
        self.round_trips(Upstream.EXTENSIONS, ["b@weir.test"], self.patient)

    def test_two_with_chunking_for_many_recipients(self):
        self.expected = 2
        self.round_trips(Upstream.EXTENSIONS, [f"r{n}@weir.test" for n in range(50)], self.pipelined)

    def test_three_without_chunking(self):
        self.expected = 3
        self.round_trips(NO_CHUNKING, ["b@weir.test"], self.patient)

    def test_three_without_chunking_for_many_recipients(self):
        self.expected = 3
        self.round_trips(NO_CHUNKING, [f"r{n}@weir.test" for n in range(50)], self.pipelined)

    def test_a_client_that_sends_all_at_once_costs_the_same(self):
        self.expected = 2
        flight = lambda c, b, r: (c.send(MAIL + RCPT + b"BDAT %d LAST\r\n" % len(b) + b), [c.reply() for _ in range(3)])[1][2]
        self.round_trips(Upstream.EXTENSIONS, ["b@weir.test"], flight)

    def test_a_reset_and_the_next_transaction_are_one_flight(self):
        upstream, weir = self.far(on={"RCPT": nobody_refused})
        body = message("after-reset")
        with weir.client(hello="client.test") as client:
            client.send(MAIL + b"RCPT TO:<nobody@weir.test>\r\n" + b"RSET\r\n" + MAIL + RCPT + b"BDAT %d LAST\r\n" % len(body) + body)
            codes = [client.reply().code for _ in range(6)]
        self.assertEqual(codes, [250, 550, 250, 250, 250, 250])
        self.assert_relayed(upstream, "after-reset", body)
        verbs = [command.split(b" ")[0] for command in upstream.commands]
        last = len(verbs) - verbs[::-1].index(b"RSET") - 1
        self.assertEqual(verbs[last - 2 : last + 4], [b"MAIL", b"RCPT", b"RSET", b"MAIL", b"RCPT", b"BDAT"])
        self.assertEqual(upstream.flights, 3)

    def test_a_reset_that_nobody_waits_for_goes_up_at_once(self):
        upstream, weir = self.far(on={"RCPT": nobody_refused})
        with weir.client(hello="client.test") as client:
            client.expect(250, "MAIL FROM:<a@client.test>")
            client.expect(550, "RCPT TO:<nobody@weir.test>")
            client.expect(250, "RSET")
            wait_until(lambda: upstream.commands[-1] == b"RSET", "RSET")
            self.assertEqual(client.data(message("later")).code, 250)


if __name__ == "__main__":
    unittest.main()
