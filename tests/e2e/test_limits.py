"""Limits, rates, and what makes bad clients slow."""

import time
import unittest

from weirtest import Case, Client, Closed, message, stuff, wait_until


class Limits(Case):
    def test_client_concurrency(self):
        weir = self.weir("--client-concurrency", 3, upstreams=[self.upstream()])
        held = [weir.client(source="127.0.5.1", hello="c.test") for _ in range(3)]
        fourth = Client(weir.port, source="127.0.5.1")
        self.assertEqual(fourth.greeting.code, 421)
        self.assertEqual(fourth.rest(5), b"")
        other = weir.client(source="127.0.5.2", hello="c.test")
        held.pop().quit()
        wait_until(lambda: Client(weir.port, source="127.0.5.1").greeting.code == 220, "a place to become free", 10, 0.1)
        other.close()

    def test_concurrency_is_exact_over_shards(self):
        weir = self.weir("--client-concurrency", 10, upstreams=[self.upstream()], shards=4)
        codes = [Client(weir.port, source="127.0.5.9") for _ in range(30)]
        self.assertEqual(sum(c.greeting.code == 220 for c in codes), 10)

    def test_max_connections(self):
        weir = self.weir("--max-connections", 5, upstreams=[self.upstream()])
        clients = [Client(weir.port, source=f"127.0.6.{n + 1}", greeting=False) for n in range(12)]
        greeted = refused = 0
        for client in clients:
            client.sock.settimeout(1)
            try:
                code = client.reply().code
                greeted += code == 220
                refused += code == 421
            except (TimeoutError, Closed):
                refused += 1
        self.assertEqual((greeted, refused), (5, 7))
        for client in clients:
            client.close()
        wait_until(lambda: Client(weir.port).greeting.code == 220, "recovery", 10, 0.2)

    def test_rate_of_connections(self):
        weir = self.weir("--rate-connections", "5/m", upstreams=[self.upstream()])
        codes = []
        for _ in range(10):
            with Client(weir.port, source="127.0.7.1") as client:
                codes.append(client.greeting.code)
        self.assertEqual(codes[0], 220)
        self.assertEqual(codes[-1], 421)
        self.assertLessEqual(codes.count(220), 6)
        with Client(weir.port, source="127.0.7.2") as client:
            self.assertEqual(client.greeting.code, 220)

    def test_rate_of_messages(self):
        weir = self.weir("--rate-messages", "3/m", upstreams=[self.upstream()])
        codes = []
        with weir.client(hello="client.test") as client:
            for _ in range(8):
                codes.append(client.command("MAIL FROM:<a@client.test>").code)
                client.expect(250, "RSET")
        self.assertEqual(codes[0], 250)
        self.assertEqual(codes[-1], 450)

    def test_rate_of_recipients(self):
        weir = self.weir("--rate-recipients", "5/m", upstreams=[self.upstream()])
        with weir.client(hello="client.test") as client:
            client.expect(250, "MAIL FROM:<a@client.test>")
            codes = [client.command(f"RCPT TO:<u{n}@weir.test>").code for n in range(10)]
        self.assertEqual(codes[0], 250)
        self.assertEqual(codes[-1] // 100, 4)

    def test_recipients_of_a_message(self):
        mx = self.upstream()
        weir = self.weir("--max-recipients", 100, upstreams=[mx])
        with weir.client(hello="client.test") as client:
            client.expect(250, "MAIL FROM:<a@client.test>")
            for n in range(100):
                client.expect(250, f"RCPT TO:<u{n}@weir.test>")
            reply = client.command("RCPT TO:<toomany@weir.test>")
            self.assertEqual((reply.code, reply.enhanced), (452, "4.5.3"))
            client.expect(354, "DATA")
            client.send(stuff(message("hundred")) + b".\r\n")
            self.assertEqual(client.reply().code, 250)
        self.assertEqual(len(mx.by_tag("hundred")[0].recipients), 100)

    def test_messages_of_a_connection(self):
        weir = self.weir("--max-messages", 3, upstreams=[self.upstream()])
        with weir.client(hello="client.test") as client:
            for n in range(3):
                self.assertEqual(client.data(message(f"m{n}")).code, 250)
            self.assertEqual(client.command("MAIL FROM:<a@client.test>").code // 100, 4)

    def test_message_size(self):
        mx = self.upstream()
        weir = self.weir("--max-message-size", "100KB", upstreams=[mx])
        with weir.client() as client:
            self.assertRegex(client.hello().text, rb"SIZE (100000|102400)\r\n")
            reply = client.command("MAIL FROM:<a@client.test> SIZE=200000")
            self.assertEqual((reply.code, reply.enhanced), (552, "5.3.4"))
            reply = client.data(message("big", 300_000))
            self.assertEqual((reply.code, reply.enhanced), (552, "5.3.4"))
            client.expect(250, "RSET")
            self.assertEqual(client.bdat(message("big", 300_000)).code, 552)
            client.expect(250, "RSET")
            self.assertEqual(client.data(message("small", 50_000)).code, 250)
        self.assertEqual(mx.by_tag("big"), [])

    def test_errors_are_counted(self):
        weir = self.weir(upstreams=[self.upstream()])
        client = weir.client(hello="client.test")
        began = time.monotonic()
        with self.assertRaises(Closed):
            for count in range(60):
                last = client.command("FROBNICATE")
                if last.code == 421:
                    raise Closed
        self.assertEqual(last.code, 421)
        self.assertGreaterEqual(count, 15)
        self.assertLessEqual(count, 25)
        self.assertGreater(time.monotonic() - began, 2, "from the tenth error on replies are delayed")

    def test_zero_lifts_a_limit(self):
        weir = self.weir("--client-concurrency", 0, "--max-messages", 0, "--max-recipients", 0, upstreams=[self.upstream()])
        clients = [Client(weir.port) for _ in range(120)]
        self.assertTrue(all(c.greeting.code == 220 for c in clients))
        clients[0].hello()
        for n in range(110):
            self.assertEqual(clients[0].data(b"x\r\n").code, 250)


class Shortage(Case):
    """What runs out sheds load with 4xx, and comes back."""

    def test_a_full_file_table(self):
        weir = self.weir(upstreams=[self.upstream()], files=256, shards=1)
        clients = []
        for number in range(300):
            try:
                clients.append(Client(weir.port, greeting=False, source=f"127.0.13.{number % 200 + 1}", patience=0.05))
            except OSError:
                break
        greeted = 0
        for client in clients:
            try:
                code = client.reply().code
                self.assertIn(code, (220, 421))
                greeted += code == 220
            except (TimeoutError, Closed):
                continue
        self.assertGreater(greeted, 50)
        self.assertLess(greeted, 256)
        for client in clients:
            client.close()
        wait_until(lambda: Client(weir.port).greeting.code == 220, "recovery", 20, 0.2)
        self.assert_alive(weir)

    def test_a_full_wait_queue(self):
        mx = self.upstream(delay={".": 3})
        weir = self.weir("--pool-max", 1, "--queue-max", 1, upstreams=[mx], shards=1)
        busy = weir.client(hello="busy.test")
        busy.envelope()
        busy.expect(354, "DATA")
        busy.send(b"x\r\n.\r\n")
        time.sleep(0.3)
        waiting = weir.client(hello="waits.test")
        waiting.send(b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@weir.test>\r\n")
        self.assertEqual(waiting.reply().code, 250)
        time.sleep(0.3)
        with weir.client(hello="late.test") as late:
            late.expect(250, "MAIL FROM:<a@client.test>")
            began = time.monotonic()
            reply = late.command("RCPT TO:<b@weir.test>")
            self.assertEqual((reply.code, reply.enhanced), (451, "4.3.2"))
            self.assertLess(time.monotonic() - began, 1, "at once")
        self.assertEqual(busy.reply().code, 250)
        self.assertEqual(waiting.reply().code, 250)
        for client in (busy, waiting):
            client.close()

    def test_an_upstream_slow_for_everybody(self):
        mx = self.upstream(delay={".": 0.5})
        weir = self.weir("--pool-max", 2, "--queue-wait", "1s", upstreams=[mx], shards=1)
        clients = [weir.client(hello="many.test", source=f"127.0.14.{n + 1}") for n in range(20)]
        for client in clients:
            client.send(b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@weir.test>\r\n")
        codes = []
        for client in clients:
            self.assertEqual(client.reply().code, 250)
        for client in clients:
            codes.append(client.reply().code)
        self.assertTrue(set(codes) <= {250, 451}, codes)
        for client in clients:
            client.close()
        self.assert_alive(weir)


class Steering(Case):
    def test_kernel_steering_relays_too(self):
        weir = self.weir("--steer", "kernel", upstreams=[self.upstream()], shards=4)
        for n in range(20):
            self.assert_alive(weir, f"steered-{n}")


class GreetWait(Case):
    def test_patient_client_is_greeted(self):
        weir = self.weir("--greet-wait", "1s", upstreams=[self.upstream()])
        began = time.monotonic()
        with Client(weir.port) as client:
            self.assertGreater(time.monotonic() - began, 0.9)
            self.assertEqual(client.greeting.code, 220)
            self.assertTrue(client.greeting.text.startswith(b"220-"), "the teaser")
            client.hello()
            self.assertEqual(client.data(message("patient")).code, 250)

    def test_pregreet_is_found(self):
        weir = self.weir("--greet-wait", "1s", "--on", "pregreet=reject", upstreams=[self.upstream()])
        client = Client(weir.port, greeting=False)
        client.send(b"EHLO early.test\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@weir.test>\r\n")
        answers = client.rest(6) if True else b""
        self.assertRegex(answers, rb"5\d\d[ -]5\.5\.1")
        wait_until(lambda: "pregreet" in weir.log().lower(), "a log line", 5)

    def test_pregreet_dropped(self):
        weir = self.weir("--greet-wait", "1s", "--on", "pregreet=drop", upstreams=[self.upstream()])
        client = Client(weir.port, greeting=False)
        client.send(b"EHLO early.test\r\n")
        answers = client.rest(6)
        self.assertIn(b"521 5.5.1", answers)

    def test_waiting_clients_do_not_stand_in_the_way(self):
        weir = self.weir("--greet-wait", "2s", upstreams=[self.upstream()])
        waiting = [Client(weir.port, greeting=False, source=f"127.0.8.{n % 200 + 1}") for n in range(400)]
        began = time.monotonic()
        for client in waiting:
            self.assertEqual(client.reply().code, 220)
        self.assertLess(time.monotonic() - began, 6)
        for client in waiting[::7]:
            client.hello()
        for client in waiting:
            client.close()
        self.assert_alive(weir)

    def test_clients_that_leave_while_waiting(self):
        weir = self.weir("--greet-wait", "1s", upstreams=[self.upstream()])
        for turn in range(100):
            client = Client(weir.port, greeting=False)
            client.reset() if turn % 2 else client.close()
        self.assert_alive(weir)


class Tarpit(Case):
    """A client found bad is answered a byte at a time, and costs nothing else."""

    def stuttering(self, weir, source="127.0.9.1"):
        client = Client(weir.port, source=source, greeting=False)
        client.send(b"EHLO early.test\r\n")
        return client

    def test_stutter_drips(self):
        weir = self.weir("--greet-wait", "500ms", "--on", "pregreet=stutter", upstreams=[self.upstream()])
        client = self.stuttering(weir)
        time.sleep(1.0)
        first = client.sock.recv(1000)
        arrivals = 0
        client.sock.settimeout(6)
        for _ in range(3):
            piece = client.sock.recv(1000)
            self.assertLessEqual(len(piece), 4, f"dripped, not {piece!r}")
            arrivals += 1
        self.assertEqual(arrivals, 3)
        self.assertTrue(first)
        with weir.client(source="127.0.9.2", hello="good.test") as good:
            self.assertEqual(good.data(message("good")).code, 250)
        client.close()

    def test_parked_clients_leave_unnoticed(self):
        weir = self.weir("--greet-wait", "200ms", "--on", "pregreet=stutter", upstreams=[self.upstream()])
        parked = [self.stuttering(weir, f"127.0.10.{n % 200 + 1}") for n in range(200)]
        time.sleep(1.5)
        for number, client in enumerate(parked):
            client.reset() if number % 2 else client.close()
        wait_until(lambda: sessions(weir) == 0, "the rows to be freed", 30, 0.5)
        self.assert_alive(weir)

    def test_a_full_pit(self):
        weir = self.weir("--greet-wait", "200ms", "--on", "pregreet=stutter", "--pit-max", 10, upstreams=[self.upstream()])
        parked = [self.stuttering(weir, f"127.0.11.{n + 1}") for n in range(40)]
        time.sleep(2)
        self.assert_alive(weir)
        for client in parked:
            client.close()

    def test_drain_cuts_the_parked_on_a_line_of_its_own(self):
        weir = self.weir("--greet-wait", "200ms", "--on", "pregreet=stutter", upstreams=[self.upstream()])
        client = self.stuttering(weir)
        time.sleep(2)
        weir.child.terminate()
        answers = client.rest(10)
        self.assertRegex(answers, rb"(^|\r\n)421 [^\r\n]*\r\n$")
        self.assertEqual(weir.wait(), 0)


def sessions(weir):
    found = {k: v for k, v in weir.metrics().items() if k.partition("{")[0] == "weir_sessions_active"}
    assert found, "no gauge of sessions"
    return sum(found.values())


if __name__ == "__main__":
    unittest.main()
