"""Reputation under attack: floods that would silence lists, forged and senseless answers, names written otherwise, clients that
change their mind while a recipient waits, state that is broken, and a weir that is told to stop in the middle.

Nothing here may cost a good message, let a listed client in, or make weir find what is not so.
"""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import unittest

import weirtest
from dnslies import Liar, dead, half_truncated, packed, servfail, truncated_for_ever
from dnsservers import NXDOMAIN, Unbound, needs, reversed4
from tlstest import Papers, context
from weirtest import BIN, Client, Closed, Dialogue, Upstream, message, stuff, wait_until

LISTED, GOOD = "127.0.0.66", "127.0.0.10"
LISTING = f"{reversed4(LISTED)}.bl.test"
NAMES = {(LISTING, "A"): [b"\x7f\0\0\2"], ("2.0.0.127.bl.test", "A"): [b"\x7f\0\0\2"]}
ENFORCED = ("no-reverse", "reverse-mismatch", "helo-unresolved", "helo-mismatch", "sender-unresolved", "sender-null-mx")


def late(seconds):
    """The truth, after a while."""

    def lie(query):
        time.sleep(seconds)
        query.answer()

    return lie


def codes(client, count):
    return [client.reply().code for _ in range(count)]


class Hostile(weirtest.Case):
    def setUp(self):
        super().setUp()
        self.mx = self.upstream()

    def start(self, liar, *flags, **options):
        """weir that refuses who is listed, and believes the list untested."""
        options = {"shards": 1, "upstreams": [self.mx], **options}
        return self.weir("--resolver", getattr(liar, "flag", liar), "--dnsbl", "bl.test", "--on", "dnsbl=reject", "--dnsbl-recheck", "0", *flags, **options)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path + ".new", "w") as file:
            file.write(text)
        os.replace(path + ".new", path)
        return path

    def rcpt(self, weir, source, recipient="b@weir.test", sender="a@client.test"):
        with Client(weir.port, source=source, hello="client.test") as client:
            client.expect(250, f"MAIL FROM:<{sender}>")
            return client.command(f"RCPT TO:<{recipient}>")

    def assert_mail(self, weir, tag, source=GOOD):
        with Client(weir.port, source=source, hello="client.test") as client:
            body = message(tag)
            self.assertEqual(client.data(body).code, 250)
            client.quit()
        self.assert_relayed(self.mx, tag, body)

    def found(self, weir):
        prefix = 'weir_findings_total{finding="'
        return sorted(name[len(prefix) :].split('"')[0] for name, value in weir.metrics().items() if name.startswith(prefix) and value)


class Floods(Hostile):
    def test_names_of_dead_servers_leave_room_for_lists(self):
        def lie(query):
            if not query.name.endswith("dead.test"):
                query.answer()

        weir = self.start(Liar(self, lie, NAMES), "--junk-max", "0")
        over = threading.Event()

        def flood(number):
            with contextlib.suppress(Closed, OSError), Client(weir.port, source=f"127.0.9.{number}") as client:
                # Until it is seen: what fills in a moment is over as soon.
                for round in itertools.takewhile(lambda _: not over.is_set(), range(100_000)):
                    client.send(b"".join(b"EHLO a%d.b%d.n%d.dead.test\r\n" % (one, round, number) for one in range(10)))
                    for _ in range(10):
                        client.reply()

        threads = [threading.Thread(target=flood, args=(number,), daemon=True) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: weir.metric("weir_dns_open") >= 3072, "the flood to fill what there is for names")
            self.assertEqual(self.rcpt(weir, LISTED).code, 550)
            self.assertEqual(weir.metric("weir_dnsbl_answers_total", says="unknown"), 0)
            self.assert_mail(weir, "in-the-flood")
        finally:
            over.set()
            for thread in threads:
                thread.join(10)

    def test_many_connections_of_a_listed_client_hear_all_the_same(self):
        weir = self.start(Liar(self, late(1.0), NAMES))
        clients = [Client(weir.port, source=LISTED) for _ in range(300)]
        for client in clients:
            client.send(b"EHLO client.test\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@weir.test>\r\n")
        heard = [codes(client, 3)[-1] for client in clients]
        for client in clients:
            client.close()
        self.assertEqual(heard, [550] * 300)

    def test_thousands_that_leave_before_the_answer_leave_nothing_behind(self):
        weir = self.start(Liar(self, dead), shards=2)
        for number in range(1000):
            with contextlib.suppress(OSError), socket.socket() as sock:
                sock.bind((f"127.0.{number // 250 + 20}.{number % 250 + 1}", 0))
                sock.connect(("127.0.0.1", weir.port))
                sock.sendall(b"EHLO client.test\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@weir.test>\r\n")
        wait_until(lambda: weir.metric("weir_sessions_active") == 0, "all to be gone")
        wait_until(lambda: weir.metric("weir_inquiries") == 0, "nothing to be inquired any more")
        wait_until(lambda: weir.metric("weir_dns_open") == 0, "all questions to be over")
        self.assert_mail(weir, "after-thousands")


class Lies(Hostile):
    def test_answers_without_sense_find_nothing(self):
        """Every finding about names refuses; the resolver says only what says nothing."""
        lies = {
            "to something else": lambda query: query.send(query.reply([query.record("other.test", 1, b"\x7f\0\0\2")])),
            "an alias and no more": lambda query: query.send(query.reply([query.record(None, 5, packed("nowhere.test"))])),
            "no such name, and another's record": lambda query: query.send(query.reply([query.record("other.test", 1, b"\x7f\0\0\2")], code=NXDOMAIN)),
            "records cut short": lambda query: query.send(query.reply([query.record(None, query.kind, b"")])),
            "a refusal": lambda query: query.send(query.reply(code=9)),
            "servfail": servfail,
            "cut": half_truncated,
            "cut for ever": truncated_for_ever,
        }
        on = [word for finding in ENFORCED for word in ("--on", f"{finding}=reject")]
        liar = Liar(self)
        for number, (label, lie) in enumerate(lies.items()):
            with self.subTest(label):
                liar.lie = lie
                weir = self.start(liar, *on, "--lookup-wait", "300ms")
                self.assert_mail(weir, f"senseless-{number}")
                self.assertEqual(self.found(weir), [])
                weir.stop()

    def test_a_forged_name_of_the_address_is_none(self):
        big = "mail-oi1-f1.google.com"
        names = {(f"{reversed4(GOOD)}.in-addr.arpa", "PTR"): [packed(big)], (big, "A"): [socket.inet_aton("209.85.167.1")]}
        weir = self.start(Liar(self, names={**names, ("client.test", "MX"): [b"\0\1" + packed(big)]}))
        with Client(weir.port, source=GOOD, hello=big) as client:
            client.envelope()
            wait_until(lambda: self.found(weir) == ["reverse-mismatch"], "the name to be found out")

    def test_a_reason_cannot_say_more_than_it_is(self):
        reason = b"a\r\n250 2.0.0 OK\x1b[2J\0\x07 %s \"\\ \xc3\xa9"
        long = b"".join(bytes([255]) + b"x" * 255 for _ in range(12))
        weir = self.start(Liar(self, names={**NAMES, (LISTING, "TXT"): [bytes([len(reason)]) + reason + long]}), "--dnsbl", "bl.test,txt,as=other")
        with Client(weir.port, source=LISTED, hello="client.test") as client:
            wait_until(lambda: weir.metric("weir_dns_answers_total", outcome="records") >= 2, "the reason")
            client.expect(250, "MAIL FROM:<a@client.test>")
            reply = client.command("RCPT TO:<b@weir.test>")
            self.assertEqual(reply.code, 550)
            self.assertLessEqual(len(reply.text), 512)
            self.assertRegex(reply.text, rb"\A[ -~]+\r\n\Z")
            client.expect(250, "NOOP")


    def test_nobody_stutters_whom_a_list_may_still_speak_for(self):
        def lie(query):
            if query.name.endswith("wl.test"):
                time.sleep(1.0)
            query.answer()

        names = {**NAMES, (f"{reversed4(LISTED)}.wl.test", "A"): [b"\x7f\0\0\5"]}
        flags = ("--dnsbl", "bl.test*9", "--dnsbl", "wl.test*-9", "--score-stutter", 5, "--on", "score-stutter=stutter", "--score-drop", 5, "--on", "score-drop=drop")
        weir = self.weir("--resolver", Liar(self, lie, names).flag, *flags, "--dnsbl-recheck", "0", upstreams=[self.mx], shards=1)
        began = time.monotonic()
        self.assert_mail(weir, "spoken-for", source=LISTED)
        self.assertLess(time.monotonic() - began, 8, "it was held in the pit")
        self.assertEqual(weir.metric("weir_findings_total", finding="score-stutter"), 0)


class Disguises(Hostile):
    def test_a_recipient_that_is_written_otherwise_is_the_same(self):
        denied = self.write("denied", "denied@weir.test\n")
        traps = self.write("traps", "trap@weir.test\n")
        flags = ("--deny-recipient", denied, "--spamtraps", traps, "--on", "spamtrap=reject", "--trap-time", "1s", "--errors-soft", 0, "--errors-hard", 0)
        weir = self.start("127.0.0.1:9", *flags, "--lookup-wait", 0)
        forms = ("{0}@weir.test", "{1}@WEIR.Test", '"{0}"@weir.test', '"\\{0}"@weir.test', "@a.test,@b.test:{0}@weir.test", '@a.test:"{1}"@weir.test')
        for word in ("denied", "trap"):
            with Client(weir.port, source=GOOD, hello="client.test") as client:
                client.expect(250, "MAIL FROM:<a@client.test>")
                for form in forms:
                    with self.subTest(form, word=word):
                        client.expect(550, f"RCPT TO:<{form.format(word, word.upper())}>")
                for form in ("{0}@weir.test.", "{0} @weir.test", '{0}.""@weir.test', "<{0}@weir.test", "({0}){0}@weir.test"):
                    with self.subTest(form, word=word):
                        client.expect(501, f"RCPT TO:<{form.format(word)}>")
        self.assertFalse(any(b"denied" in line or b"trap" in line for line in self.mx.commands))

    def test_greylisting_is_not_passed_by_writing_otherwise(self):
        weir = self.start("127.0.0.1:9", "--greylist", "all", "--on", "greylist=defer", "--greylist-delay", "1s", "--lookup-wait", 0)
        self.assertEqual(self.rcpt(weir, GOOD).code, 451)
        # A retry in another case is a retry; who makes up an address for each try is always new.
        time.sleep(1.1)
        for number in range(3):
            self.assertEqual(self.rcpt(weir, "127.0.70.1", sender=f"a+{number}@client.test").code, 451)
        self.assertEqual(self.rcpt(weir, GOOD, "B@WEIR.test", "A@Client.Test").code, 250)

    def test_nobody_becomes_another_by_saying_so(self):
        weir = self.start(Liar(self, names=NAMES))
        with Client(weir.port, source=LISTED, hello="client.test") as client:
            self.assertEqual(client.command(f"XCLIENT ADDR={GOOD} NAME=good.test HELO=good.test").code, 550)
            with contextlib.suppress(Closed, OSError):
                client.hello()
                client.expect(250, "MAIL FROM:<a@client.test>")
                client.expect(550, "RCPT TO:<b@weir.test>")

    def test_who_a_proxy_speaks_for_is_judged_and_the_proxy_is_not(self):
        weir = self.start(Liar(self, late(0.3), NAMES), "--trust", "127.0.8.1")
        for address, code in ((LISTED, 550), (GOOD, 250), (LISTED, 550)):
            with Client(weir.port, source="127.0.8.1", hello="proxy.test") as client:
                client.send(b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@weir.test>\r\nRSET\r\n")
                codes(client, 3)
                client.expect(220, f"XCLIENT ADDR={address} PORT=4711")
                client.hello()
                client.expect(250, "MAIL FROM:<a@client.test>")
                client.expect(code, "RCPT TO:<b@weir.test>")


class Changes(Hostile):
    """What a client does while its recipients wait."""

    HEAD = b"EHLO client.test\r\nMAIL FROM:<a@client.test>\r\n"
    HUNDRED = b"".join(b"RCPT TO:<u%d@weir.test>\r\n" % number for number in range(100))
    PAID = ("--errors-soft", 0, "--errors-hard", 0)

    def said(self, weir, source, flight, count):
        with Client(weir.port, source=source) as client:
            client.send(flight)
            return codes(client, count)

    def test_all_in_one_flight(self):
        liar = Liar(self, late(0.4), NAMES, ttl=1)
        weir = self.start(liar, "--resolver-ttl", "1s:1s", *self.PAID)
        head, hundred = self.HEAD, self.HUNDRED
        body = message("in-one-flight")
        chunks = b"BDAT 100\r\n" + body[:100] + b"BDAT %d LAST\r\n" % (len(body) - 100) + body[100:]
        second = b"MAIL FROM:<c@d.test>\r\nRCPT TO:<e@weir.test>\r\nDATA\r\n"
        table = [
            ("DATA", hundred + b"DATA\r\n", [250] * 100 + [354], [550] * 100 + [554]),
            ("QUIT", hundred + b"QUIT\r\n", [250] * 100 + [221], [550] * 100 + [221]),
            ("RSET and another", hundred + b"RSET\r\n" + second, [250] * 103 + [354], [550] * 100 + [250, 250, 550, 554]),
            ("EHLO and another", hundred + b"EHLO client.test\r\n" + second, [250] * 103 + [354], [550] * 100 + [250, 250, 550, 554]),
            ("BDAT and another", hundred + chunks + b"RSET\r\n" + second, [250] * 105 + [354], [550] * 100 + [554, 554, 250, 250, 550, 554]),
        ]
        for label, flight, good, listed in table:
            with self.subTest(label):
                time.sleep(1.1)  # nothing is known any more
                self.assertEqual(self.said(weir, GOOD, head + flight, len(good) + 2)[2:], good)
                self.assertEqual(self.said(weir, LISTED, head + flight, len(listed) + 2)[2:], listed)
        self.assertEqual(len(self.assert_relayed(self.mx, "in-one-flight", body).recipients), 100)
        self.assertEqual((len(self.mx.messages), self.mx.violations), (1, []))
        self.assertGreater(weir.metric("weir_recipient_waits_total", end="answered"), 500)

    def test_a_later_transaction_waits_for_its_own_questions(self):
        def lie(query):
            time.sleep(1.0 if query.name == "nowhere.test" else 0.3)
            query.answer()

        names = {**NAMES, ("client.test", "MX"): [b"\0\1" + packed("client.test")]}
        weir = self.start(Liar(self, lie, names), "--on", "sender-unresolved=reject")
        second = b"RCPT TO:<b@weir.test>\r\nRSET\r\nMAIL FROM:<a@nowhere.test>\r\nRCPT TO:<c@weir.test>\r\n"
        self.assertEqual(self.said(weir, GOOD, self.HEAD + second, 6), [250] * 5 + [550])

    def test_who_hangs_up_is_forgotten_and_who_half_closes_is_answered(self):
        weir = self.start(Liar(self, late(0.5), NAMES))
        with Client(weir.port, source=GOOD) as client:
            client.send(self.HEAD + self.HUNDRED)
            client.reset()
        with Client(weir.port, source=LISTED) as client:
            client.send(self.HEAD + b"RCPT TO:<b@weir.test>\r\n")
            client.half_close()
            with contextlib.suppress(Closed):
                self.assertIn(codes(client, 3)[-1], (550, 421))
        wait_until(lambda: weir.metric("weir_inquiries") == 0, "nobody to be inquired of")
        self.assert_mail(weir, "after-hangups")

    def test_reload_while_a_recipient_waits(self):
        path = self.write("denied", "x@weir.test\n")
        weir = self.start(Liar(self, late(0.8), NAMES), "--deny-recipient", path, "--spamtraps", self.write("traps", "t@weir.test\n"))
        body = message("reloaded")
        with Client(weir.port, source=GOOD) as client, Client(weir.port, source=LISTED) as listed:
            for one in (client, listed):
                one.send(self.HEAD + b"RCPT TO:<b@weir.test>\r\nDATA\r\n")
            self.write("denied", "")
            self.write("traps", "")
            weir.signal(signal.SIGHUP)
            self.assertEqual(codes(client, 4), [250, 250, 250, 354])
            self.assertEqual(codes(listed, 4), [250, 250, 550, 554])
            client.send(stuff(body) + b".\r\n")
            self.assertEqual(client.reply().code, 250)
        self.assert_relayed(self.mx, "reloaded", body)

    def test_drain_while_a_recipient_waits(self):
        weir = self.start(Liar(self, late(0.8), NAMES), "--drain-timeout", "10s")
        body = message("drained")
        with Client(weir.port, source=GOOD) as client:
            client.send(self.HEAD + b"RCPT TO:<b@weir.test>\r\nDATA\r\n")
            self.assertEqual(codes(client, 2), [250, 250])
            weir.signal(signal.SIGTERM)
            heard = codes(client, 2)
            if heard == [250, 354]:
                client.send(stuff(body) + b".\r\n")
                self.assertEqual(client.reply().code, 250)
                self.assert_relayed(self.mx, "drained", body)
            else:
                self.assertTrue(all(400 <= code < 500 or code == 250 for code in heard), heard)
        self.assertEqual(weir.wait(15), 0)

    def test_a_greet_wait_that_is_not_waited_for_is_no_way_around(self):
        weir = self.start(Liar(self, late(0.6), NAMES), "--greet-wait", "300ms")
        with Client(weir.port, source=LISTED, greeting=False) as client:
            client.send(self.HEAD + b"RCPT TO:<b@weir.test>\r\nDATA\r\n")
            self.assertEqual(codes(client, 5)[-2:], [550, 554])
        self.assert_mail(weir, "patient")

    def test_encrypted_as_in_the_clear(self):
        papers = Papers.get()
        self.addCleanup(Papers.burn)
        weir = self.start(Liar(self, late(0.4), NAMES), "--tls-cert", papers.weir[0], "--tls-key", papers.weir[1])
        for source, want in ((LISTED, [250, 250, 550, 554]), (GOOD, [250, 250, 250, 354])):
            with Client(weir.port, source=source, hello="client.test") as client:
                client.expect(220, "STARTTLS")
                client.sock = context().wrap_socket(client.sock)
                client.send(self.HEAD + b"RCPT TO:<b@weir.test>\r\nDATA\r\n")
                self.assertEqual(codes(client, 4), want)

    def test_with_a_connection_of_its_own_to_the_server(self):
        self.mx = Introduced()
        self.addCleanup(self.mx.stop)
        weir = self.start(Liar(self, late(0.4), NAMES), "--identity", "proxy-v2", *self.PAID)
        body = message("dedicated")
        with Client(weir.port, source=GOOD, hello="client.test") as client:
            client.send(b"MAIL FROM:<a@client.test>\r\n" + self.HUNDRED + b"DATA\r\n")
            self.assertEqual(codes(client, 102), [250] * 101 + [354])
            client.send(stuff(body) + b".\r\n")
            self.assertEqual(client.reply().code, 250)
        self.assert_relayed(self.mx, "dedicated", body)
        with Client(weir.port, source=LISTED, hello="client.test") as client:
            client.send(b"MAIL FROM:<a@client.test>\r\n" + self.HUNDRED + b"DATA\r\nRSET\r\nQUIT\r\n")
            self.assertEqual(codes(client, 104), [250] + [550] * 100 + [554, 250, 221])

    @needs("unbound")
    def test_a_resolver_that_dies_in_the_middle_costs_no_mail(self):
        unbound = Unbound(self, data=[f"{LISTING}. 60 IN A 127.0.0.2"])
        weir = self.start(unbound, "--lookup-wait", "1s", "--resolver-ttl", "1s:1s")
        self.assertEqual(self.rcpt(weir, LISTED).code, 550)
        with Client(weir.port, source=GOOD, hello="client.test") as client:
            unbound.process.kill()
            self.assertEqual(client.data(message("died")).code, 250)
        self.assert_mail(weir, "dead", source="127.0.0.11")


class Introduced(Upstream):
    """Hears a PROXY header first, of version 2."""

    def dialogue(self, sock):
        return IntroducedDialogue(self, sock)


class IntroducedDialogue(Dialogue):
    def run(self):
        head = self.octets(16)
        self.octets(struct.unpack(">H", head[14:])[0])
        super().run()


class State(Hostile):
    def try_with(self, weir):
        self.assertEqual(self.rcpt(weir, GOOD).code, 451)
        wait_until(lambda: self.rcpt(weir, GOOD).code == 250, "greylisting to let it pass", 10, 0.2)

    def greylisting(self, *flags, **options):
        return self.start("127.0.0.1:9", "--greylist", "all", "--on", "greylist=defer", "--greylist-delay", "1s", "--lookup-wait", 0, *flags, **options)

    def test_files_that_are_none(self):
        path = os.path.join(self.folder, "state")
        for label, make in (("empty", lambda: open(path, "w").close()), ("a few octets", lambda: self.write("state", "redb\x1a\n")), ("a pipe", lambda: os.mkfifo(path)), ("full", lambda: os.symlink("/dev/full", path))):
            with self.subTest(label):
                make()
                weir = self.greylisting("--state", path)
                self.try_with(weir)
                weir.stop()
                self.assertEqual(weir.child.returncode, 0)
                for name in (path, path + ".aside"):
                    with contextlib.suppress(FileNotFoundError):
                        os.remove(name)
        os.mkdir(path)
        weir = self.greylisting("--state", path, ready=False)
        self.assertEqual(weir.wait(), 64)
        self.assertIn("is no file name", weir.log())

    def test_servers_that_are_no_redis(self):
        def garbage(sock):
            while sock.recv(65536):
                sock.sendall(b"\0\xff<html>no\r\n\r\n")

        def deep(sock):
            while sock.recv(65536):
                sock.sendall(b"*1\r\n" * 500_000)

        def flood(sock):
            while True:
                sock.sendall(b"+OK\r\n" * 10_000)

        for how in (garbage, deep, flood):
            with self.subTest(how.__name__):
                server = self.server(how)
                weir = self.greylisting("--state", f"redis://127.0.0.1:{server}", "--rate-messages", "100/m")
                self.try_with(weir)
                wait_until(lambda: weir.metric("weir_state_shared_losses_total") == 1, "the loss to be noticed")
                self.assertLess(weir.memory_kib(), 300_000)
                weir.stop(patience=10)
                self.assertEqual(weir.child.returncode, 0)

    def server(self, how):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def serve(sock):
            with contextlib.suppress(OSError), sock:
                how(sock)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return listener.getsockname()[1]

    @unittest.skipUnless(shutil.which("redis-server"), "no redis-server here")
    def test_a_redis_that_wants_a_password(self):
        port = weirtest.free_port()
        self.process(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", "s3cret", "--dir", self.folder], "redis")
        weirtest.wait_listening(port)
        weir = self.greylisting("--state", f"redis://127.0.0.1:{port}")
        self.try_with(weir)
        wait_until(lambda: "NOAUTH" in weir.log(), "the operator to be told")
        weir.stop()
        weir = self.greylisting("--state", f"redis://:s3cret@127.0.0.1:{port}")
        wait_until(lambda: weir.metric("weir_state_shared_up") == 1, "the server to let it in")
        self.assertNotIn("s3cret", weir.log() + weir.get("/status")[1] + weir.get("/metrics")[1])


class Questions(Hostile):
    def test_explain_is_asked_strange_things(self):
        weir = self.start(Liar(self, names=NAMES))
        admin = f"127.0.0.1:{weir.admin}"
        said = subprocess.run([BIN, "explain", LISTED, "--admin", admin], capture_output=True, text=True, timeout=20)
        self.assertEqual((said.returncode, "dnsbl" in said.stdout), (0, True), said)
        for words in ([], [""], ["x"], ["127.0.0.1/8"], ["::1%lo"], ["127.1"], ["-1"], ["1.2.3.4\r\nHost: x"], ["9" * 5000]):
            with self.subTest(words):
                said = subprocess.run([BIN, "explain", *words, "--admin", admin], capture_output=True, text=True, timeout=20)
                self.assertNotIn(said.returncode, (0, 101, -6), said)
        for path in ("", "x", "1.2.3.4/5", "%00", "::ffff:127.0.0.66", "[::1]", "9" * 3000, "../../etc/passwd"):
            with self.subTest(path):
                code, _ = weir.get(f"/status/client/{path}")
                self.assertIn(code, (200, 400, 404))
        self.assert_mail(weir, "explained")

    def test_lists_with_lines_without_end(self):
        long = "a" * 5_000_000 + "@weir.test\n" + "good@weir.test\n"
        path = self.write("denied", long)
        weir = self.start("127.0.0.1:9", "--deny-recipient", path, ready=False)
        self.assertEqual(weir.wait(), 64, weir.log()[-300:])
        self.assertIn("line 1", weir.log())
        self.assertLess(len(weir.log()), 5000)


if __name__ == "__main__":
    unittest.main()
