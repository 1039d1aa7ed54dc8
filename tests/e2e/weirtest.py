"""What the end-to-end tests share: start weir, talk raw SMTP on both sides of it, wait without sleeping blindly.

Every socket and every wait here has a deadline; every process is ended by its own pid; every server has its own port.
"""

import contextlib
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
TOOLS = os.environ.get("WEIR_TOOLS", os.path.join(TOP, "target", "tools"))
BIN = os.environ.get("WEIR_BIN", os.path.join(TOP, "target", "release", "weir"))
if os.path.isdir(os.path.join(TOOLS, "python")):
    sys.path.append(os.path.join(TOOLS, "python"))

PATIENCE = 20.0  # seconds any single wait may take before the test fails
_ports = random.Random(os.getpid() * 7919 + int(time.time()))


def free_port():
    """A port below the ephemeral range that nobody listens on."""
    while True:
        port = _ports.randrange(10000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def wait_until(condition, what, patience=PATIENCE, pause=0.02):
    """Waits until `condition()` is true and returns its value."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience:.0f} s in vain for {what}")
        time.sleep(pause)


def wait_listening(port, host="127.0.0.1", patience=PATIENCE):
    def reachable():
        try:
            socket.create_connection((host, port), 1).close()
            return True
        except OSError:
            return False

    wait_until(reachable, f"{host}:{port} to listen", patience)


class Process:
    """A child with a log file, ended by its pid."""

    def __init__(self, argv, folder, name, env=None, **options):
        self.name = name
        self.log_path = os.path.join(folder, f"{name}.log")
        self._log = open(self.log_path, "ab")
        self.child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, env=env, **options
        )

    @property
    def pid(self):
        return self.child.pid

    def running(self):
        return self.child.poll() is None

    def signal(self, number):
        self.child.send_signal(number)

    def wait(self, patience=PATIENCE):
        return self.child.wait(patience)

    def stop(self, patience=5):
        if self.running():
            self.child.terminate()
            try:
                self.child.wait(patience)
            except subprocess.TimeoutExpired:
                self.kill()
        self._log.close()

    def kill(self):
        if self.running():
            self.child.kill()
            self.child.wait(PATIENCE)

    def log(self):
        with open(self.log_path, "rb") as file:
            return file.read().decode("utf-8", "backslashreplace")


class Weir(Process):
    """The real binary, ready when this returns (unless ready=False)."""

    def __init__(self, *flags, upstreams=(), folder, ready=True, relay=True, listen=None, shards=2, env=None, hostname="weir.test", relay_test=False, files=None, port=None):
        self.port = port or free_port()
        self.admin = free_port()
        argv = [BIN]
        for address in listen or [f"127.0.0.1:{self.port}"]:
            argv += ["--listen", address.format(port=self.port)]
        argv += ["--admin", f"127.0.0.1:{self.admin}", "--hostname", hostname, "--shards", str(shards)]
        for upstream in upstreams:
            address = upstream if isinstance(upstream, str) else f"127.0.0.1:{upstream.port}"
            argv += ["--upstream", address]
        if relay:
            argv += ["--relay-domains", "any"]
        if not relay_test:
            # The question whether the server would relay would mix with what a test scripts.
            argv += ["--relay-test", "no"]
        argv += [str(flag) for flag in flags]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")}
        clean.setdefault("RUST_BACKTRACE", "0")
        clean.update(env or {})
        limit = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))) if files else None
        super().__init__(argv, folder, f"weir-{self.port}", env=clean, preexec_fn=limit)
        if ready:
            self.wait_ready()

    def wait_ready(self, patience=PATIENCE):
        def ready():
            if not self.running():
                raise AssertionError(f"weir ended with {self.child.returncode}:\n{self.log()}")
            return self.get("/readyz")[0] == 200

        try:
            wait_until(ready, "/readyz", patience)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()[-4000:]}") from None

    def get(self, path):
        """Status and text of an admin page; status 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (OSError, urllib.error.URLError):
            return 0, ""

    def status(self):
        return json.loads(self.get("/status")[1])

    def metrics(self):
        """Samples by name and labels, as Prometheus prints them."""
        samples = {}
        for line in self.get("/metrics")[1].splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def metric(self, name, **labels):
        """Sum over all samples of one metric that carry these labels."""
        total = 0.0
        for sample, value in self.metrics().items():
            base, _, rest = sample.partition("{")
            if base == name and all(f'{k}="{v}"' in rest for k, v in labels.items()):
                total += value
        return total

    def client(self, **options):
        return Client(self.port, **options)

    def memory_kib(self):
        with open(f"/proc/{self.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


class Closed(Exception):
    """The peer closed or reset the connection."""


class Client:
    """A raw SMTP client that shows exactly what came back."""

    def __init__(self, port, host="127.0.0.1", source=None, patience=PATIENCE, greeting=True, hello=None):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(patience)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            self.sock.bind((source, 0))
        self.sock.connect((host, port))
        self.buffer = b""
        self.greeting = self.reply() if greeting else None
        if hello:
            self.hello(hello)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from None

    def line(self):
        while b"\n" not in self.buffer:
            try:
                more = self.sock.recv(65536)
            except ConnectionResetError as error:
                raise Closed(str(error)) from None
            if not more:
                raise Closed(f"end of input, {self.buffer!r} left over")
            self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line + b"\n"

    def reply(self):
        """One whole reply: code and bytes."""
        text = b""
        while True:
            line = self.line()
            text += line
            if not re.match(rb"\d\d\d[ -]", line) and not re.match(rb"\d\d\d\r\n", line):
                raise AssertionError(f"not a reply line: {line!r}")
            if not line.endswith(b"\r\n"):
                raise AssertionError(f"a reply line without CRLF: {line!r}")
            if line[3:4] != b"-":
                return Reply(int(line[:3]), text)

    def command(self, line):
        self.send(line.encode() + b"\r\n" if isinstance(line, str) else line + b"\r\n")
        return self.reply()

    def expect(self, code, line):
        reply = self.command(line)
        if reply.code != code:
            raise AssertionError(f"{line!r} got {reply.text!r}, not {code}")
        return reply

    def hello(self, name="client.test"):
        return self.expect(250, f"EHLO {name}")

    def envelope(self, sender="a@client.test", recipients=("b@weir.test",)):
        self.expect(250, f"MAIL FROM:<{sender}>")
        for recipient in recipients:
            self.expect(250, f"RCPT TO:<{recipient}>")

    def data(self, body, sender="a@client.test", recipients=("b@weir.test",)):
        """A whole transaction; `body` is content that ends in CRLF. Returns the final reply."""
        self.envelope(sender, recipients)
        self.expect(354, "DATA")
        self.send(stuff(body) + b".\r\n")
        return self.reply()

    def bdat(self, body, chunk=None, sender="a@client.test", recipients=("b@weir.test",)):
        self.envelope(sender, recipients)
        chunk = chunk or max(1, len(body))
        parts = [body[i : i + chunk] for i in range(0, len(body), chunk)] or [b""]
        for part in parts[:-1]:
            self.send(b"BDAT %d\r\n" % len(part) + part)
            reply = self.reply()
            if reply.code != 250:
                return reply
        self.send(b"BDAT %d LAST\r\n" % len(parts[-1]) + parts[-1])
        return self.reply()

    def rest(self, patience=PATIENCE):
        """Everything until the peer closes; raises when it does not."""
        self.sock.settimeout(patience)
        data, self.buffer = self.buffer, b""
        while True:
            try:
                more = self.sock.recv(65536)
            except ConnectionResetError:
                return data
            if not more:
                return data
            data += more

    def quiet(self, seconds):
        """True when nothing arrives for that long."""
        return not self.buffer and not select.select([self.sock], [], [], seconds)[0]

    def quit(self):
        reply = self.command("QUIT")
        self.close()
        return reply

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        reset(self.sock)

    def close(self):
        self.sock.close()


class Reply:
    def __init__(self, code, text):
        self.code = code
        self.text = text

    def __repr__(self):
        return f"{self.text!r}"

    @property
    def enhanced(self):
        found = re.match(rb"\d\d\d[ -](\d\.\d+\.\d+)(\s|$)", self.text)
        return found.group(1).decode() if found else None


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def stuff(body):
    return re.sub(rb"(^|\r\n)\.", rb"\1..", body)


def unstuff(body):
    return re.sub(rb"(^|\r\n)\.", rb"\1", body)


def message(tag, size=0, seed=None):
    """A message that is easy to recognise and hard to get right: dots, 8-bit, long lines, no secrets."""
    chance = random.Random(seed if seed is not None else tag)
    lines = [f"Subject: {tag}", f"X-Tag: {tag}", "", ".", "..", ". x", "text . with dots", "", "caf\u00e9 \u2603", "x" * 998]
    text = "\r\n".join(lines).encode() + b"\r\n"
    while len(text) < size:
        width = chance.choice([0, 1, 2, 63, 64, 65, 76, 998])
        text += (chance.choice([b"", b".", b"..", b" "]) + bytes(chance.choices(b"abcdefgh .\xe9", k=width)))[:998] + b"\r\n"
    return text


class Message:
    def __init__(self, sender, recipients, body, by, mail, rcpts, upstream):
        self.sender, self.recipients, self.body, self.by = sender, recipients, body, by
        self.mail, self.rcpts, self.upstream = mail, rcpts, upstream

    @property
    def tag(self):
        found = re.search(rb"^X-Tag: (\S+)\r$", self.body, re.M)
        return found.group(1).decode() if found else None


class Upstream:
    """A scriptable SMTP server that keeps every message byte for byte.

    `on` maps a verb (CONNECT, EHLO, HELO, MAIL, RCPT, DATA, BDAT, ".", RSET, QUIT) to what happens in place of the
    usual reply: bytes to send, or a function of the connection that returns bytes, or None for the usual. `faults`
    maps a verb to one of: close, reset, silent, half, garbage, mixed, endless, long, wrong.
    """

    EXTENSIONS = ("PIPELINING", "SIZE 50000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING")

    def __init__(self, extensions=EXTENSIONS, port=None, on=None, faults=None, host="127.0.0.1", delay=None, name="mx.test"):
        self.extensions, self.on, self.faults, self.host, self.name = tuple(extensions), dict(on or {}), dict(faults or {}), host, name
        self.delay = dict(delay or {})
        self.port = port or free_port()
        self.messages, self.halves, self.commands, self.violations = [], [], [], []
        self.connections = self.open_now = self.open_max = 0
        self.lock = threading.Lock()
        self.socks = set()
        self.stopping = False
        self.listener = None
        self.start()

    def start(self):
        self.stopping = False
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((self.host, self.port))
        self.listener.listen(512)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def stop(self, abort=False):
        """Stops listening and drops every connection, as a killed server does."""
        self.stopping = True
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            socks, self.socks = self.socks, set()
        for sock in socks:
            with contextlib.suppress(OSError):
                reset(sock) if abort else sock.shutdown(socket.SHUT_RDWR)

    def close_idle(self):
        with self.lock:
            socks = list(self.socks)
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def tags(self):
        with self.lock:
            return [m.tag for m in self.messages]

    def by_tag(self, tag):
        with self.lock:
            return [m for m in self.messages if m.tag == tag]

    def wait_messages(self, count, patience=PATIENCE):
        wait_until(lambda: len(self.messages) >= count, f"{count} messages at the upstream", patience)
        return self.messages

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            if self.stopping:
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def dialogue(self, sock):
        return Dialogue(self, sock)

    def _serve(self, sock):
        with self.lock:
            self.socks.add(sock)
            self.connections += 1
            self.open_now += 1
            self.open_max = max(self.open_max, self.open_now)
        try:
            self.dialogue(sock).run()
        except (OSError, EndOfDialogue):
            pass
        finally:
            with self.lock:
                self.socks.discard(sock)
                self.open_now -= 1
            with contextlib.suppress(OSError):
                sock.close()


class EndOfDialogue(Exception):
    pass


class Dialogue:
    """One connection of an Upstream."""

    def __init__(self, server, sock):
        self.server, self.sock = server, sock
        sock.settimeout(120)
        self.buffer = b""
        self.mail = None
        self.rcpts, self.chunks = [], []

    def run(self):
        self.answer("CONNECT", b"220 %s ESMTP\r\n" % self.server.name.encode())
        while True:
            line = self.line()
            verb = line.split(b" ")[0].split(b":")[0].strip().upper().decode("latin-1")
            with self.server.lock:
                self.server.commands.append(line)
            self.handle(verb, line)

    def handle(self, verb, line):
        if verb == "EHLO":
            self.clear()
            words = [self.server.name, *self.server.extensions]
            lines = [f"250{'-' if i + 1 < len(words) else ' '}{w}\r\n" for i, w in enumerate(words)]
            self.answer("EHLO", "".join(lines).encode())
        elif verb == "HELO":
            self.clear()
            self.answer("HELO", b"250 %s\r\n" % self.server.name.encode())
        elif verb == "MAIL":
            if self.mail is not None:
                self.violation("nested MAIL")
            if self.answer("MAIL", b"250 2.1.0 Sender ok\r\n"):
                self.mail = line
        elif verb == "RCPT":
            if self.mail is None:
                return self.answer("", b"503 5.5.1 Need MAIL\r\n")
            if self.answer("RCPT", b"250 2.1.5 Recipient ok\r\n"):
                self.rcpts.append(line)
        elif verb == "DATA":
            if not self.rcpts:
                return self.answer("", b"554 5.5.1 No valid recipients\r\n")
            if self.answer("DATA", b"354 Go ahead\r\n"):
                self.keep(unstuff(self.body()), "data")
        elif verb == "BDAT":
            if not any(e.startswith("CHUNKING") for e in self.server.extensions):
                self.violation("BDAT was not offered")
            words = line.split()
            self.chunks.append(self.octets(int(words[1])))
            if not self.rcpts:
                return self.answer("", b"503 5.5.1 Need RCPT\r\n")
            if words[-1].upper() == b"LAST":
                self.keep(b"".join(self.chunks), "bdat")
            else:
                self.answer("BDAT", b"250 2.0.0 Chunk ok\r\n")
        elif verb == "RSET":
            self.clear()
            self.answer("RSET", b"250 2.0.0 Reset\r\n")
        elif verb == "NOOP":
            self.answer("NOOP", b"250 2.0.0 Ok\r\n")
        elif verb == "QUIT":
            self.answer("QUIT", b"221 2.0.0 Bye\r\n")
            raise EndOfDialogue
        else:
            self.violation(f"command {line!r}")
            self.answer("", b"500 5.5.2 What?\r\n")

    def keep(self, body, by):
        path = lambda line: line[line.index(b"<") + 1 : line.rindex(b">")].decode("utf-8", "backslashreplace")
        kept = Message(path(self.mail), [path(r) for r in self.rcpts], body, by, self.mail, list(self.rcpts), self.server)
        mark = re.search(rb"[\r\n]", body.replace(b"\r\n", b""))
        if mark:
            self.violation("bare newline in a body")
        number = len(self.server.messages) + 1
        self.clear()
        # Kept before it is said: whoever hears the 250 finds the message.
        accepted = self.outcome(".", b"250 2.0.0 Ok: kept as %d\r\n" % number)
        if accepted is not None and accepted[:1] == b"2":
            with self.server.lock:
                self.server.messages.append(kept)
        self.say(".", accepted)

    def clear(self):
        self.mail = None
        self.rcpts, self.chunks = [], []

    def violation(self, text):
        with self.server.lock:
            self.server.violations.append(text)

    def outcome(self, verb, usual):
        """What will be said, None when a fault takes its place."""
        if verb in self.server.delay:
            time.sleep(self.server.delay[verb])
        if verb in self.server.faults:
            return None
        special = self.server.on.get(verb)
        if callable(special):
            special = special(self)
        return usual if special is None else special

    def answer(self, verb, usual):
        """Says it; true when it was positive or intermediate."""
        text = self.outcome(verb, usual)
        self.say(verb, text)
        return text is not None and text[:1] in b"23"

    def say(self, verb, text):
        if text is not None:
            self.sock.sendall(text)
            return
        fault = self.server.faults[verb]
        if fault == "close":
            raise EndOfDialogue
        if fault == "reset":
            reset(self.sock)
            raise EndOfDialogue
        if fault == "silent":
            while self.sock.recv(65536):
                pass
            raise EndOfDialogue
        if fault == "half":
            self.sock.sendall(b"250 2.")
            raise EndOfDialogue
        words = {
            "garbage": b"\x00\xff<html>hello\r\n",
            "mixed": b"250-2.0.0 Ok\r\n550 5.0.0 No\r\n",
            "endless": b"250-2.0.0 more and more\r\n" * 4000 + b"250 2.0.0 Ok\r\n",
            "long": b"250 " + b"x" * 100000 + b"\r\n",
            "wrong": b"199 2.0.0 Ok\r\n",
        }
        self.sock.sendall(words[fault])
        while self.sock.recv(65536):
            pass
        raise EndOfDialogue

    def more(self):
        data = self.sock.recv(262144)
        if not data:
            raise EndOfDialogue
        self.buffer += data

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def octets(self, count):
        parts, have = [self.buffer[:count]], min(count, len(self.buffer))
        self.buffer = self.buffer[count:]
        try:
            while have < count:
                data = self.sock.recv(min(262144, count - have))
                if not data:
                    raise EndOfDialogue
                parts.append(data)
                have += len(data)
        except (OSError, EndOfDialogue):
            with self.server.lock:
                self.server.halves.append(b"".join(parts))
            raise
        return b"".join(parts)

    def body(self):
        data = bytearray(b"\r\n" + self.buffer)
        self.buffer = b""
        start = 0
        while True:
            end = data.find(b"\r\n.\r\n", start)
            if end >= 0:
                self.buffer = bytes(data[end + 5 :])
                return bytes(data[2 : end + 2])
            start = max(0, len(data) - 4)
            try:
                more = self.sock.recv(262144)
            except OSError:
                more = b""
            if not more:
                with self.server.lock:
                    self.server.halves.append(bytes(data[2:]))
                raise EndOfDialogue
            data += more


class Case(unittest.TestCase):
    """A test with a folder of its own; what it starts is ended with it."""

    maxDiff = 2000

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="weir-e2e-")
        os.chmod(self.folder, 0o755)
        self.weirs = []
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def weir(self, *flags, **options):
        weir = Weir(*flags, folder=self.folder, **options)
        self.weirs.append(weir)
        self.addCleanup(self._end, weir)
        return weir

    def _end(self, weir):
        alive = weir.running()
        weir.stop(patience=3)
        log = weir.log()
        if alive and weir.child.returncode not in (0, -signal.SIGKILL):
            print(f"weir ended with {weir.child.returncode}", file=sys.stderr)
        if os.environ.get("WEIR_LOGS"):
            print(log, file=sys.stderr)
        if "panicked at" in log or "assertion" in log:
            at = max(0, log.find("panicked at") - 200)
            raise AssertionError(f"weir panicked:\n{log[at : at + 1800]}")

    def upstream(self, *arguments, **options):
        upstream = Upstream(*arguments, **options)
        self.addCleanup(upstream.stop)
        return upstream

    def process(self, argv, name, **options):
        process = Process(argv, self.folder, name, **options)
        self.addCleanup(process.stop)
        return process

    def assert_relayed(self, upstream, tag, body, **want):
        """The upstream has this message exactly once, byte for byte."""
        found = upstream.by_tag(tag)
        self.assertEqual(len(found), 1, f"{tag}: {len(found)} copies at the upstream")
        self.assertTrue(found[0].body == body, f"{tag}: bytes differ: {first_difference(found[0].body, body)}")
        for name, value in want.items():
            self.assertEqual(getattr(found[0], name), value)
        return found[0]

    def assert_alive(self, weir, tag="alive-after-all"):
        """weir still relays: the end of every hostile test."""
        with weir.client(hello="client.test") as client:
            reply = client.data(message(tag))
            self.assertEqual(reply.code, 250, f"weir no longer relays: {reply}\n{weir.log()[-3000:]}")
            client.quit()


def first_difference(got, want):
    for at, (a, b) in enumerate(zip(got, want)):
        if a != b:
            return f"at {at}: got {got[at - 10 : at + 30]!r}, want {want[at - 10 : at + 30]!r}"
    return f"lengths {len(got)} and {len(want)}, got ends in {got[-40:]!r}"


class Load:
    """Clients in threads that keep sending tagged messages and remember what each was told."""

    def __init__(self, port, threads=8, size=2000, sources=False, per_session=5, chunked=False, mix=True):
        self.port, self.size, self.per_session, self.mix = port, size, per_session, mix
        self.accepted, self.refused, self.unknown, self.errors = {}, {}, {}, []
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.threads = [
            threading.Thread(target=self._run, args=(n, f"127.0.1.{n + 1}" if sources else None), daemon=True) for n in range(threads)
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, number, source):
        count = 0
        while not self.over.is_set():
            try:
                with Client(self.port, source=source, hello="load.test") as client:
                    for _ in range(self.per_session):
                        if self.over.is_set():
                            break
                        count += 1
                        self._one(client, f"load-{id(self)}-{number}-{count}")
                    client.quit()
            except (Closed, OSError, AssertionError) as error:
                with self.lock:
                    self.errors.append(repr(error))
                time.sleep(0.02)

    def _one(self, client, tag):
        body = message(tag, self.size)
        sent = False
        try:
            if self.mix and hash(tag) % 2:
                client.envelope()
                client.send(b"BDAT %d LAST\r\n" % len(body) + body)
            else:
                client.envelope()
                client.expect(354, "DATA")
                client.send(stuff(body) + b".\r\n")
            sent = True
            reply = client.reply()
            with self.lock:
                (self.accepted if reply.code == 250 else self.refused)[tag] = (body, reply)
        except (Closed, OSError, AssertionError):
            if sent:
                with self.lock:
                    self.unknown[tag] = body
            raise

    def stop(self, patience=30):
        self.over.set()
        for thread in self.threads:
            thread.join(patience)

    def wait_accepted(self, count, patience=PATIENCE):
        wait_until(lambda: len(self.accepted) >= count, f"{count} accepted messages (errors: {self.errors[-3:]})", patience)
