"""Real clients and real mail servers around weir: smtplib, swaks, smtp-source; smtp-sink, Postfix, Exim, aiosmtpd."""

import os
import smtplib
import subprocess
import time
import unittest

from servers import Aiosmtpd, Exim, Postfix, SmtpSink, program
from weirtest import Case, Client, first_difference, message, wait_until


def body(tag, size=0):
    """As `message`, but with what servers insist on, so that they add nothing of their own."""
    head = f"Subject: {tag}\r\nFrom: a@client.test\r\nTo: b@weir.test\r\nDate: Mon, 02 Jan 2006 15:04:05 +0000\r\nMessage-ID: <{tag}@client.test>\r\n"
    return head.encode() + message(tag, size).partition(b"\r\n")[2]


class ByteForByte:
    """The same messages through every server, by DATA and by BDAT, small and large."""

    server = None

    def test_messages_arrive_unchanged(self):
        server = type(self).server(self)
        weir = self.weir(upstreams=[server])
        sent = {}
        for way in ("data", "bdat"):
            for size in (0, 5_000, 100_000, 2_000_000):
                tag = f"{way}-{size}"
                sent[tag] = body(tag, size)
                with weir.client(hello="client.test") as client:
                    reply = getattr(client, way)(sent[tag])
                    self.assertEqual(reply.code, 250, f"{reply}\n{weir.log()[-1500:]}")
                    client.quit()
        wait_until(lambda: len(server.messages()) == len(sent), f"{len(sent)} messages in the mailbox", 30, 0.2)
        self.compare(server.messages(), sent)

    def test_smtplib_swaks_and_smtp_source(self):
        server = type(self).server(self)
        weir = self.weir(upstreams=[server])
        with smtplib.SMTP("127.0.0.1", weir.port, timeout=30) as client:
            client.sendmail("a@client.test", ["b@weir.test"], body("smtplib"))
        path = os.path.join(self.folder, "swaks.eml")
        with open(path, "wb") as file:
            file.write(body("swaks").replace(b"\r\n", b"\n"))
        done = subprocess.run(
            [program("swaks"), "--server", f"127.0.0.1:{weir.port}", "--from", "a@client.test", "--to", "b@weir.test", "--data", f"@{path}"],
            capture_output=True, text=True, timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        source = smtp_source(weir.port, "-m", 20, "-s", 5, "-l", 5000)
        self.assertEqual(source.returncode, 0, source.stdout + source.stderr)
        wait_until(lambda: len(server.messages()) >= 22, "22 messages in the mailbox", 30, 0.2)
        got = b"".join(server.messages())
        for tag in (b"smtplib", b"swaks"):
            self.assertIn(b"X-Tag: " + tag, got)
        self.assertEqual(len(server.messages()), 22)

    def test_refusals_are_the_servers(self):
        server = type(self).server(self)
        weir = self.weir(upstreams=[server])
        with Client(server.port, hello="client.test") as direct, weir.client(hello="client.test") as proxied:
            for recipient in ("x@elsewhere.example",):
                for client in (direct, proxied):
                    client.expect(250, "MAIL FROM:<a@client.test>")
                replies = [client.command(f"RCPT TO:<{recipient}>") for client in (direct, proxied)]
                self.assertEqual(replies[0].code // 100, replies[1].code // 100, replies)
                for client in (direct, proxied):
                    client.expect(250, "RSET")

    def compare(self, got, sent):
        for one in got:
            tag = one.split(b"\r\nX-Tag: ")[1].split(b"\r\n")[0].decode()
            self.assertTrue(one == sent[tag], f"{tag}: {first_difference(one, sent[tag])}")
        self.assertEqual(len(got), len(sent))


def smtp_source(port, *flags, host="127.0.0.1"):
    argv = [program("smtp-source"), *map(str, flags), "-S", "load", "-f", "a@client.test", "-t", "b@weir.test", "-M", "client.test", f"{host}:{port}"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120)


class WithPostfix(ByteForByte, Case):
    server = Postfix

    def test_many_messages_on_pooled_connections(self):
        # Postfix counts errors and junk commands of a connection: weir must not run into that for its clients.
        server = Postfix(self)
        weir = self.weir("--pool-max", 2, upstreams=[server], shards=1)
        for turn in range(40):
            # From an address of its own each: weir itself remembers who errs, and slows it down.
            with weir.client(hello="client.test", source=f"127.0.30.{turn + 1}") as client:
                client.expect(250, "MAIL FROM:<a@client.test>")
                self.assertEqual(client.command("RCPT TO:<x@elsewhere.example>").code, 554)
                client.expect(250, "RSET")
                client.envelope()
                client.expect(250, "RSET")
                self.assertEqual(client.data(body(f"turn-{turn}")).code, 250)
        wait_until(lambda: len(server.messages()) == 40, "all of them in the mailbox", 30, 0.2)
        self.assertNotIn("too many errors", server.log())


class WithPostfixPlain(ByteForByte, Case):
    """A Postfix that offers no CHUNKING, no PIPELINING: DATA, one command at a time."""

    @staticmethod
    def server(case):
        return Postfix(case, smtpd_discard_ehlo_keywords="chunking, pipelining, silent-discard")


class WithExim(ByteForByte, Case):
    server = Exim


class WithAiosmtpd(ByteForByte, Case):
    server = Aiosmtpd


class WithSmtpSink(Case):
    def load(self, weir, *flags, count=2000):
        done = smtp_source(weir.port, "-m", count, "-s", 50, *flags)
        self.assertEqual(done.returncode, 0, f"{done.stdout}{done.stderr}\n{weir.log()[-1500:]}")
        self.assertEqual((done.stdout + done.stderr).strip(), "")

    def test_load_new_connection_per_message(self):
        sink = SmtpSink(self, keep=False)
        weir = self.weir("--client-concurrency", 0, upstreams=[sink])
        self.load(weir, "-l", 4096)

    def test_load_persistent(self):
        sink = SmtpSink(self, keep=False)
        weir = self.weir("--client-concurrency", 0, "--max-messages", 0, upstreams=[sink])
        self.load(weir, "-d", "-l", 4096)

    def test_load_persistent_100_kib(self):
        sink = SmtpSink(self, keep=False)
        weir = self.weir("--client-concurrency", 0, "--max-messages", 0, upstreams=[sink])
        self.load(weir, "-d", "-l", 102400, count=500)

    def test_messages_are_whole(self):
        sink = SmtpSink(self)
        weir = self.weir("--client-concurrency", 0, upstreams=[sink])
        self.load(weir, "-l", 30000, "-N", count=200)
        wait_until(lambda: len(sink.messages()) == 200, "200 files", 20)
        sizes = {len(m.partition(b"\n\n")[2]) for m in sink.messages()}
        self.assertEqual(len(sizes), 1, f"all bodies are of one size: {sizes}")

    def test_sink_variants(self):
        for flags in (["-p"], ["-e"], ["-P"], ["-8", "-N", "-E"], ["-a"]):
            with self.subTest(flags=flags):
                sink = SmtpSink(self, *flags, keep=False)
                weir = self.weir(upstreams=[sink])
                with weir.client(hello="client.test") as client:
                    self.assertEqual(client.data(b"Subject: x\r\n\r\nhello\r\n").code, 250)

    def test_sink_that_hangs_up(self):
        for command in ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."):
            for flag in ("-q", "-Q"):
                with self.subTest(command=command, flag=flag):
                    sink = SmtpSink(self, flag, command, keep=False)
                    weir = self.weir("--queue-wait", "1s", upstreams=[sink], ready=False)
                    wait_until(lambda: weir.get("/healthz")[0] == 200, "weir to live")
                    with weir.client(hello="client.test") as client:
                        client.expect(250, "MAIL FROM:<a@client.test>")
                        reply = client.command("RCPT TO:<b@weir.test>")
                        if reply.code == 250:
                            client.expect(354, "DATA")
                            client.send(b"x\r\n.\r\n")
                            reply = client.reply()
                        self.assertEqual(reply.code // 100, 4, reply)

    def test_sink_that_refuses(self):
        for flag, code in (("-r", 4), ("-f", 5)):
            for command in ("MAIL", "RCPT", "DATA", "."):
                with self.subTest(command=command, flag=flag):
                    sink = SmtpSink(self, flag, command, keep=False)
                    weir = self.weir(upstreams=[sink])
                    with weir.client(hello="client.test") as client:
                        client.expect(250, "MAIL FROM:<a@client.test>")
                        reply = client.command("RCPT TO:<b@weir.test>")
                        if reply.code == 250:
                            client.expect(354, "DATA")
                            client.send(b"x\r\n.\r\n")
                            reply = client.reply()
                        self.assertEqual(reply.code // 100, code, reply)


class RestartUnderLoad(Case):
    def test_sink_killed_and_restarted_while_smtp_source_sends(self):
        sink = SmtpSink(self, keep=False)
        weir = self.weir("--client-concurrency", 0, upstreams=[sink])
        argv = [program("smtp-source"), "-A", "-m", "3000", "-s", "20", "-l", "4096", "-f", "a@client.test", "-t", "b@weir.test", f"127.0.0.1:{weir.port}"]
        source = self.process(argv, "smtp-source")
        for _ in range(3):
            time.sleep(0.3)
            sink.process.kill()
            time.sleep(0.2)
            sink = SmtpSink(self, keep=False, port=sink.port)
        wait_until(lambda: not source.running(), "smtp-source to end", 60, 0.1)
        self.assertTrue(weir.running())
        with weir.client(hello="client.test") as client:
            wait_until(lambda: passes(client), "recovery", 40, 0.3)


def passes(client):
    client.expect(250, "RSET")
    client.expect(250, "MAIL FROM:<a@client.test>")
    return client.command("RCPT TO:<b@weir.test>").code == 250


if __name__ == "__main__":
    unittest.main()
