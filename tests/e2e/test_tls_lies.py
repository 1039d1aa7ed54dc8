"""TLS with upstreams that lie about it: no mail goes out in plaintext where TLS is asked for, and no reply from before it is believed."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import unittest

from tlstest import Papers, TlsCase, TlsClient, TlsDialogue, TlsUpstream
from weirtest import TOP, Client, EndOfDialogue, free_port, message, wait_listening, wait_until

BENCH = os.environ.get("WEIR_BENCH_BIN", os.path.join(TOP, "target", "debug", "weir-bench"))


def tearDownModule():
    Papers.burn()


class Lies:
    """Servers that lie, for both ways to speak to them."""

    def ask(self, weir, tag):
        """The code that a message gets, wherever in its transaction."""
        with Client(weir.port, hello="client.test") as client:
            for line in ("MAIL FROM:<a@client.test>", "RCPT TO:<b@weir.test>", "DATA"):
                reply = client.command(line)
                if reply.code // 100 not in (2, 3):
                    return reply.code
            client.send(message(tag) + b".\r\n")
            return client.reply().code

    def front(self, upstream, mode, *flags, **options):
        spec = f"127.0.0.1:{upstream.port},tls={mode},sni=mx.test"
        weir = self.weir("--upstream-ca", self.papers.ca, "--queue-wait", "500ms", "--probe-interval", "1s", *flags, upstreams=[spec], ready=False, **options)
        wait_until(lambda: weir.get("/healthz")[0] == 200, "weir to start")
        return weir

    def never_in_the_clear(self, upstream):
        words = {line.split(b" ")[0].upper() for line in upstream.plain}
        self.assertLessEqual(words, {b"EHLO", b"HELO", b"STARTTLS", b"QUIT"}, "mail in plaintext")
        self.assertEqual(upstream.messages, [])

    def deferred(self, weir, upstream, why=None):
        self.assertEqual(self.ask(weir, "never") // 100, 4)
        self.never_in_the_clear(upstream)
        if why:
            wait_until(lambda: why in weir.log(), f"{why} in the log:\n{weir.log()[-1500:]}")

    def test_no_starttls(self):
        for mode in ("require", "verify"):
            with self.subTest(mode):
                upstream = self.tls_upstream(starttls=False)
                self.deferred(self.front(upstream, mode), upstream, "why=not_offered")
        upstream = self.tls_upstream(starttls=False)
        self.assertEqual(self.ask(self.front(upstream, "may"), "plain"), 250)

    def test_starttls_refused(self):
        for said in (b"454 4.7.0 Not now\r\n", b"554 5.7.0 Never\r\n", b"502 5.5.1 What?\r\n", b"421 4.3.2 Bye\r\n"):
            for mode in ("require", "verify"):
                with self.subTest(said=said, mode=mode):
                    upstream = self.tls_upstream(on={"STARTTLS": said})
                    self.deferred(self.front(upstream, mode), upstream)
        upstream = self.tls_upstream(on={"STARTTLS": b"454 4.7.0 Not now\r\n"})
        self.assertEqual(self.ask(self.front(upstream, "may"), "plain"), 250)

    def test_odd_answers_to_starttls(self):
        for fault in ("garbage", "mixed", "wrong", "half", "reset", "close", "long"):
            for mode in ("may", "verify"):
                with self.subTest(fault=fault, mode=mode):
                    upstream = self.tls_upstream(faults={"STARTTLS": fault})
                    self.deferred(self.front(upstream, mode), upstream)

    def glue(self, tail, pause=0.0, before=b"220 2.0.0 Go ahead\r\n"):
        def say(dialogue):
            if pause:
                dialogue.sock.sendall(before)
                time.sleep(pause)
                dialogue.sock.sendall(tail)
            else:
                dialogue.sock.sendall(before + tail)
            with contextlib.suppress(ssl.SSLError, OSError, EndOfDialogue):
                dialogue.secure()
                while not dialogue.line().startswith(b"QUIT"):
                    pass
            raise EndOfDialogue

        return {"STARTTLS": say}

    def test_replies_glued_behind_the_220(self):
        lies = b"250-mx.test\r\n250 AUTH PLAIN\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go\r\n250 2.0.0 kept\r\n"
        for mode in ("may", "require", "verify"):
            for tail in (lies, b"2", b"\r\n", b"\0"):
                with self.subTest(mode=mode, tail=tail[:10]):
                    upstream = self.tls_upstream(on=self.glue(tail))
                    weir = self.front(upstream, mode)
                    if mode == "may":
                        # On another connection it goes on without; the forged replies are believed on none.
                        code = self.ask(weir, "without")
                        self.assertEqual(upstream.tags(), ["without"] if code == 250 else [])
                    else:
                        self.deferred(weir, upstream)
                    wait_until(lambda: "upstream_tls_injection" in weir.log(), "the injection in the log")
                    self.assertGreaterEqual(weir.metric("weir_upstream_closes_total", reason="tls_injection"), 1)
        # Too late for the 220's segment: then it is no record.
        upstream = self.tls_upstream(on=self.glue(lies, 0.05))
        self.deferred(self.front(upstream, "verify"), upstream, "upstream_tls_failed")

    def test_certificates_that_do_not_convince(self):
        kinds = {"expired": self.papers.expired, "another name": self.papers.other, "another CA": self.papers.foreign, "self-signed": self.papers.own}
        for name, papers in kinds.items():
            for implicit in (False, True):
                with self.subTest(name, implicit=implicit):
                    upstream = self.tls_upstream(papers, implicit=implicit)
                    tail = ",implicit-tls" if implicit else ""
                    weir = self.front(upstream, "verify" + tail)
                    self.deferred(weir, upstream, "upstream_tls_failed")
                    self.assertIn("why=certificate", weir.log())
                    self.assertGreaterEqual(weir.metric("weir_tls_failures_total", side="upstream", reason="certificate"), 1)
            with self.subTest(name, mode="require"):
                upstream = self.tls_upstream(papers)
                weir = self.front(upstream, "require")
                self.assertEqual(self.ask(weir, "any"), 250, "any certificate will do")
                self.assertEqual(upstream.tags(), ["any"])
                self.assertEqual({line.split(b" ")[0] for line in upstream.plain}, {b"EHLO", b"STARTTLS"})

    def test_cut_while_a_reply_is_owed(self):
        for verb in ("MAIL", "RCPT", "."):
            for how in ("close", "reset", "half"):
                with self.subTest(verb=verb, how=how):
                    upstream = self.tls_upstream(faults={verb: how})
                    weir = self.front(upstream, "verify")
                    code = self.ask(weir, "cut")
                    self.assertEqual(code // 100, 4)
                    self.assertFalse(any(line.startswith(b"MAIL") for line in upstream.plain))

    def test_garbage_inside(self):
        def spoil(dialogue):
            os.write(dialogue.sock.fileno(), b"\x17\x03\x03\x00\x20" + b"\x99" * 32)
            time.sleep(0.2)
            return b"250 2.0.0 forged\r\n"

        upstream = self.tls_upstream(on={".": spoil})
        weir = self.front(upstream, "verify")
        self.assertEqual(self.ask(weir, "spoilt") // 100, 4)
        self.assertGreaterEqual(weir.metric("weir_tls_failures_total", side="upstream", reason="misbehaved"), 1)


class Pooled(Lies, TlsCase):
    def test_no_handshake_follows(self):
        def silent(dialogue):
            dialogue.sock.sendall(b"220 2.0.0 Go ahead\r\n")
            while dialogue.sock.recv(65536):
                pass
            raise EndOfDialogue

        upstream = self.tls_upstream(on={"STARTTLS": silent})
        weir = self.front(upstream, "may")
        self.deferred(weir, upstream)

    def test_nothing_learned_in_plaintext_is_used(self):
        upstream = self.tls_upstream()

        def ehlo(dialogue):
            if dialogue.secured:
                return b"250-mx.test\r\n250 SIZE 5000\r\n"
            return b"250-mx.test\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250-XCLIENT ADDR\r\n250 STARTTLS\r\n"

        upstream.on["EHLO"] = ehlo
        weir = self.front(upstream, "verify")
        self.assertEqual(self.ask(weir, "again"), 250)
        self.assertEqual([m.by for m in upstream.messages], ["data"], "CHUNKING was not offered inside")
        with Client(weir.port) as client:
            said = client.hello().text
            self.assertNotIn(b"SMTPUTF8", said)
            self.assertIn(b"SIZE 5000\r\n", said)

    def test_idle_connections_that_go_away(self):
        upstream = self.tls_upstream()
        weir = self.front(upstream, "verify")
        for number in range(4):
            self.assertEqual(self.ask(weir, f"again-{number}"), 250)
            upstream.close_idle()
        self.assertEqual(len(upstream.messages), 4)

    def test_asked_for_later_pooled_plaintext_is_not_used(self):
        upstream = self.tls_upstream()
        spec = os.path.join(self.folder, "upstreams")

        def write(mode):
            with open(spec, "w") as file:
                file.write(f"127.0.0.1:{upstream.port},tls={mode},sni=mx.test\n")

        write("off")
        weir = self.weir("--upstream-ca", self.papers.ca, upstreams=[f"@{spec}"])
        with Client(weir.port, hello="client.test") as early:
            self.assertEqual(self.ask(weir, "before"), 250)
            early.expect(250, "MAIL FROM:<a@client.test>")
            write("verify")
            weir.signal(signal.SIGHUP)
            wait_until(lambda: "reloaded" in weir.log(), "the reload")
            for number in range(6):
                self.assertEqual(self.ask(weir, f"after-{number}"), 250)
        secured = [line for line in upstream.plain if line.startswith(b"MAIL")]
        self.assertLessEqual(len(secured), 2, "what began before the reload, and nothing else")
        # And the other way round: what was verified is not passed for what is not asked for.
        self.assertGreaterEqual(upstream.handshakes, 1)


class Dedicated(Lies, TlsCase):
    """The same servers behind connections that belong to one client each."""

    def front(self, upstream, mode, *flags, **options):
        upstream.on.setdefault("PROXY", b"")
        return super().front(upstream, mode, "--identity", "xclient", *flags, relay=False, **options)

    def ask(self, weir, tag):
        try:
            with Client(weir.port, greeting=False) as client:
                for line in (None, "EHLO client.test", "MAIL FROM:<a@client.test>", "RCPT TO:<b@weir.test>", "DATA"):
                    reply = client.command(line) if line else client.reply()
                    if reply.code // 100 not in (2, 3):
                        return reply.code
                client.send(message(tag) + b".\r\n")
                return client.reply().code
        except Exception as error:
            raise AssertionError(f"{error!r}\n{weir.log()[-1500:]}") from error

    def tls_upstream(self, papers=None, **options):
        upstream = XclientUpstream(papers or self.papers.mx, **options)
        self.addCleanup(upstream.stop)
        return upstream

    def test_idle_connections_that_go_away(self):
        upstream = self.tls_upstream()
        weir = self.front(upstream, "verify")
        with Client(weir.port, hello="client.test") as client:
            upstream.close_idle()
            self.assertEqual(client.reply().code, 421)


class XclientUpstream(TlsUpstream):
    """It takes XCLIENT from everybody."""

    def __init__(self, *arguments, **options):
        options["extensions"] = ("PIPELINING", "8BITMIME", "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT")
        super().__init__(*arguments, **options)

    def dialogue(self, sock):
        return XclientDialogue(self, sock)


class XclientDialogue(TlsDialogue):
    def handle(self, verb, line):
        if verb == "XCLIENT":
            if not self.secured:
                with self.server.lock:
                    self.server.plain.append(line)
            return self.answer("XCLIENT", b"220 mx.test ESMTP again\r\n")
        super().handle(verb, line)


class Sink(TlsCase):
    def test_the_bench_sink_inside_tls(self):
        if not os.path.exists(BENCH):
            self.skipTest(f"no {BENCH}: cargo build -p weir-bench")
        port, control = free_port(), free_port()
        helped = subprocess.run([BENCH, "sink", "--help"], capture_output=True, text=True, timeout=20).stdout
        if "--tls" not in helped:
            self.skipTest(f"{BENCH} knows no TLS: cargo build -p weir-bench")
        self.process([BENCH, "sink", "--listen", f"127.0.0.1:{port}", "--control", f"127.0.0.1:{control}", "--starttls"], "sink")
        wait_listening(port)
        weir = self.certified(upstreams=[f"127.0.0.1:{port},tls=require"])
        for number in range(10):
            with TlsClient(weir.port) as client:
                self.assertEqual(client.bdat(message(f"sink-{number}", 30_000)).code, 250)
        with socket.create_connection(("127.0.0.1", control), 10) as asked:
            asked.settimeout(10)
            asked.sendall(b"counters\n")
            asked.shutdown(socket.SHUT_WR)
            said = asked.makefile("r").read()
        counters = json.loads(said.removeprefix("ok "))
        self.assertEqual((counters["accepted"], counters["altered"], counters["violations"]), (10, 0, {}), counters)
        self.assertGreaterEqual(weir.metric("weir_tls_handshakes_total", side="upstream"), 1)


if __name__ == "__main__":
    unittest.main()
