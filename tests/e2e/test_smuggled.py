"""Clients that try to say something in weir's name to the server behind it: it trusts weir, and sees each client's own lines."""

import socket
import unittest

from test_leaks import Eaten
from test_tls_lies import XclientUpstream
from tlstest import Inside, Papers, TlsCase, TlsDialogue, TlsUpstream
from weirtest import Client, Closed, Upstream, message


def tearDownModule():
    Papers.burn()


class Server(Upstream):
    """It has AUTH, and takes whatever it is told."""

    def dialogue(self, sock):
        return Told(self, sock)


class Told(Eaten):
    def handle(self, verb, line):
        if verb == "AUTH":
            self.sock.sendall(b"334 VXNlcm5hbWU6\r\n")
            with self.server.lock:
                self.server.commands.append(b"[auth] " + self.line())
            self.sock.sendall(b"535 5.7.8 No\r\n")
            return
        super().handle(verb, line)


class Smuggled(TlsCase):
    EXTENSIONS = ("PIPELINING", "SIZE 50000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING", "AUTH LOGIN PLAIN", "ETRN", "XCLIENT ADDR LOGIN", "XFORWARD ADDR")
    TAIL = b"XCLIENT ADDR=10.0.0.1 LOGIN=root"

    def dialogues(self):
        tail = self.TAIL
        for end in (b"\n", b"\r", b"\0", b"\r\r\n", b"\n\r\n", b"\x0b", b"\x85"):
            for before in (b"NOOP x", b"VRFY x", b"EXPN x", b"HELP x", b"RSET x", b"EHLO x", b"HELO x", b"MAIL FROM:<a@client.test>", b"AUTH LOGIN eA==", b"QUIT x", b"BOGUS"):
                yield before + end + tail + b"\r\n"
            yield b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@weir.test>" + end + tail + b"\r\n"
            yield b"MAIL FROM:<\"a" + end + b"b\"@client.test>\r\n"
            yield b"AUTH LOGIN\r\neA==" + end + tail + b"\r\n"
            yield b"AUTH LOGIN\r\n" + tail + b"\r\n" + tail + b"\r\n"
        for word in (b"XCLIENT", b"xclient", b" XCLIENT", b"\tXCLIENT", b"XFORWARD", b"xForward", b"ETRN weir.test", b"TURN", b"ATRN", b"XEXCH50 1 1", b"X-ANONYMOUSTLS", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2"):
            yield word + b" ADDR=10.0.0.1\r\n"
            yield b"MAIL FROM:<a@client.test>\r\n" + word + b" ADDR=10.0.0.1\r\n"
        yield b"A" * 600 + b"\r\n" + tail + b"\r\n"
        yield b"NOOP " + b"A" * 3000 + tail + b"\r\n"
        # Behind the mark that ends a body for some.
        for end in (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\n.\r", b"\r\n\x00.\r\n"):
            yield b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@weir.test>\r\nDATA\r\n\0" + b"Subject: x\r\n\r\nx" + end + tail + b"\r\nMAIL FROM:<smuggled@evil.test>\r\n"

    def check(self, weir, upstream):
        verbs = set()
        for number, dialogue in enumerate(self.dialogues()):
            with Client(weir.port, hello="client.test", source=f"127.0.{1 + number % 50}.7") as client:
                try:
                    for part in dialogue.split(b"\0Subject"):
                        client.send(part if part is dialogue or not part.startswith(b": x") else b"Subject" + part)
                        if part.endswith(b"DATA\r\n"):
                            # What comes together with DATA is refused before it gets anywhere.
                            [client.reply() for _ in range(3)]
                    client.sock.shutdown(socket.SHUT_WR)
                    client.rest(10)
                except (Closed, OSError):
                    pass
            forged = [line for line in upstream.commands if self.forged(line)]
            self.assertEqual(forged, [], f"told by {dialogue!r}")
            verbs.update(line.split()[0].upper() for line in upstream.commands if line.split())
            self.assertFalse(any(b"smuggled" in m.sender.encode() for m in upstream.messages), dialogue)
            del upstream.commands[:]
        self.assertEqual(weir.metric("weir_panics_total"), 0)
        return verbs

    def forged(self, line):
        if line.startswith(b"[auth]"):
            return any(octet in line for octet in b"\r\n\0")
        words = line.strip().upper().split()
        verb = words[0] if words else b""
        return any(octet in line for octet in b"\r\n\0") or verb in (b"XCLIENT", b"XFORWARD", b"ETRN", b"TURN", b"ATRN", b"XEXCH50", b"X-ANONYMOUSTLS", b"PROXY")

    def test_to_a_server_of_ones_own(self):
        upstream = Server(extensions=self.EXTENSIONS)
        self.addCleanup(upstream.stop)
        weir = self.weir("--identity", "proxy-v2", "--on", "errors-soft=log", "--on", "non-smtp=log", upstreams=[upstream], relay=False)
        verbs = self.check(weir, upstream)
        self.assertLessEqual({b"EHLO", b"MAIL", b"RCPT", b"DATA", b"NOOP", b"[AUTH]"}, verbs, "it is a dialogue all the same")

    def test_to_a_server_that_is_shared(self):
        upstream = self.upstream(extensions=self.EXTENSIONS)
        weir = self.weir("--on", "errors-soft=log", "--on", "non-smtp=log", upstreams=[upstream])
        self.assertLessEqual({b"EHLO", b"MAIL", b"RCPT"}, self.check(weir, upstream), "it is a dialogue all the same")


class Claims(TlsCase):
    """XCLIENT is weir's alone to say."""

    def test_what_a_client_is_called_says_nothing_else(self):
        upstream = XclientUpstream(self.papers.mx)
        self.addCleanup(upstream.stop)
        weir = self.weir("--identity", "xclient", "--on", "errors-soft=log", upstreams=[upstream], relay=False)
        names = ["a+0Ab", "x ADDR=10.0.0.1", "x\tLOGIN=root", "[UNAVAILABLE]", "h" * 250, "a=b", "\u00e9.test", "x+20LOGIN=root", "(c) x", "127.0.0.1"]
        for number, name in enumerate(names):
            source = f"127.0.0.{40 + number}"
            with Client(weir.port, source=source) as client:
                reply = client.command(b"EHLO " + name.encode())
                if reply.code == 250:
                    client.command("MAIL FROM:<a@client.test>")
            said = [line for line in upstream.commands if line.startswith(b"XCLIENT")]
            del upstream.commands[:]
            words = [word for line in said for word in line.split()[1:]]
            if reply.code != 250:
                continue
            self.assertEqual([word for word in words if word.startswith(b"ADDR=")], [f"ADDR={source}".encode()], name)
            self.assertFalse([word for word in words if word.startswith(b"LOGIN=") and b"UNAVAILABLE" not in word], words)
            self.assertTrue(all(len(line) <= 510 for line in said))


class Fence(TlsCase):
    """Recipients that mean somebody else to the server than to weir."""

    RECIPIENTS = [
        b"<victim@elsewhere.example>", b"victim@elsewhere.example", b"<@weir.test:victim@elsewhere.example>", b"<victim%elsewhere.example@weir.test>",
        b"<elsewhere.example!victim@weir.test>", b"<\"victim@elsewhere.example\"@weir.test>", b"<victim@elsewhere.example@weir.test>", b"<victim@elsewhere.example>@weir.test>",
        b"<b@weir.test>,<victim@elsewhere.example>", b"<b@weir.test> <victim@elsewhere.example>", b"<victim@elsewhere.example> <b@weir.test>", b"<victim@elsewhere.example\0@weir.test>",
        b"<victim@elsewhere.example\n@weir.test>", b"<b@weir.test.elsewhere.example>", b"<b@weir.test.>", b"<victim@[192.0.2.1]>", b"<b@elsewhere.example#weir.test>",
        b"<\"b\\\"@weir.test\"@elsewhere.example>", b"<b@weir.test ORCPT=rfc822;x>", b"<victim@elsewhere.example(>@weir.test)", b"victim@elsewhere.example <b@weir.test>", b"<\xff@elsewhere.example>", b"<:victim@elsewhere.example>",
    ]

    def check(self, *flags, **options):
        upstream = Server(extensions=Smuggled.EXTENSIONS) if options.pop("own", False) else self.upstream()
        self.addCleanup(upstream.stop)
        weir = self.weir("--relay-domains", "weir.test", "--on", "errors-soft=log", "--on", "errors-hard=log", "--on", "relay=reject", *flags, upstreams=[upstream], relay=False)
        for number, recipient in enumerate(self.RECIPIENTS):
            with Client(weir.port, hello="client.test", source=f"127.0.{1 + number}.8") as client:
                try:
                    client.send(b"MAIL FROM:<a@client.test>\r\nRCPT TO:" + recipient + b"\r\nRCPT TO:<b@weir.test>\r\nDATA\r\n")
                    client.sock.shutdown(socket.SHUT_WR)
                    client.rest(10)
                except (Closed, OSError):
                    pass
            got = [line for line in upstream.commands if line.upper().startswith(b"RCPT")]
            del upstream.commands[:]
            for line in got:
                self.assertIn(line.split(b" ORCPT")[0].lower(), (b"rcpt to:<b@weir.test>", b"rcpt to:<b@weir.test.>"), f"for {recipient!r}")

    def test_shared(self):
        self.check()

    def test_own(self):
        self.check("--identity", "proxy-v2", own=True)


class Tunnelled(Eaten, TlsDialogue):
    """The header comes first, then STARTTLS as ever."""


class Far(TlsUpstream):
    def dialogue(self, sock):
        return Tunnelled(self, sock)


class Tunnels(TlsCase):
    def test_what_is_glued_behind_starttls_goes_neither_way(self):
        server = Far(self.papers.mx)
        self.addCleanup(server.stop)
        weir = self.weir("--identity", "proxy-v2", "--transparent-starttls", "tunnel", upstreams=[server], relay=False)
        with weir.client(hello="plain.test") as client:
            client.send(b"STARTTLS\r\nMAIL FROM:<injected@evil.test>\r\n")
            self.assertEqual(client.reply().code, 220)
            client.sock = Inside(client.sock).handshake()
            client.hello()
            self.assertEqual(client.data(message("through-the-tunnel", 50_000)).code, 250)
        self.assert_relayed(server, "through-the-tunnel", message("through-the-tunnel", 50_000))
        self.assertFalse(any(b"evil" in line for line in server.commands), server.commands)
        self.assertEqual(weir.metric("weir_tunnel_plaintext_discarded_total"), 1)
        # And from the server: the client hears none of it, and does not stay.
        server.on["STARTTLS"] = lambda dialogue: (dialogue.sock.sendall(b"220 Go\r\n250 forged\r\n"), b"")[1]
        with weir.client(hello="plain.test") as client:
            client.send(b"STARTTLS\r\n")
            self.assertNotIn(b"forged", client.rest(5))
        self.assertEqual(weir.metric("weir_tunnel_plaintext_discarded_total"), 2)


if __name__ == "__main__":
    unittest.main()
