"""Real DNS servers for made-up zones: rbldnsd serves lists, unbound resolves. Nothing outside loopback is asked.

Each runs in the foreground in a folder of its own, on a port of its own, and is ended by its pid. What unbound does not
find in its own data or in a stub zone does not exist. `Meddler` stands between and changes answers, as bad networks do.
"""

import os
import random
import shutil
import socket
import struct
import threading
import unittest

import weirtest
from weirtest import wait_until

KINDS = {"A": 1, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28}
NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3


def free_port():
    """Free for TCP and UDP."""
    while True:
        port = weirtest.free_port()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def reversed4(address):
    return ".".join(reversed(address.split(".")))


def reversed6(address):
    digits = socket.inet_pton(socket.AF_INET6, address).hex()
    return ".".join(reversed(digits))


def ask(port, name, kind="A", patience=2.0):
    """The reply code and the number of answers; None for silence."""
    number = random.randrange(65536)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    query = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", KINDS[kind], 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(patience)
        try:
            sock.sendto(query, ("127.0.0.1", port))
            reply = sock.recv(4096)
        except OSError:
            return None
    return reply[3] & 15, struct.unpack(">H", reply[6:8])[0]


def needs(*programs):
    """Skips a test where a server is not installed."""
    missing = [program for program in programs if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin")]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


class Rbldnsd:
    """Lists: `zones` maps a name to lines of an ip4trie and, as a pair, of an ip6trie.

    A line is an address or a network, ":127.0.0.2:text" sets what follows is listed as. The test points of RFC 5782 are the
    lines' own business: `LISTED` has them.
    """

    def __init__(self, case, zones, ttl=1):
        self.port, self.ttl = free_port(), ttl
        self.folder = os.path.join(case.folder, f"rbldnsd-{self.port}")
        os.mkdir(self.folder, 0o755)
        specs = []
        for zone, lines in zones.items():
            specs += self._write(zone, lines)
        program = shutil.which("rbldnsd", path=os.environ["PATH"] + ":/usr/sbin")
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        argv = [program, "-n", *user, "-b", f"127.0.0.1/{self.port}", "-w", self.folder, "-c", "1s", *specs]
        self.process = case.process(argv, f"rbldnsd-{self.port}")
        wait_until(lambda: ask(self.port, f"2.0.0.127.{next(iter(zones))}", patience=0.2), "rbldnsd to answer")

    def _write(self, zone, lines):
        v4, v6 = lines if isinstance(lines, tuple) else (lines, [])
        specs = []
        for kind, rows in (("ip4trie", v4), ("ip6trie", v6)):
            path = os.path.join(self.folder, f"{zone}.{kind}")
            # A reader sees the old file or the new one, never half of it.
            with open(path + ".new", "w") as file:
                head = [f"$TTL {self.ttl}", f"$SOA {self.ttl} ns.{zone}. root.{zone}. 1 600 300 86400 {self.ttl}"]
                file.write("\n".join(head + list(rows)) + "\n")
            os.replace(path + ".new", path)
            specs.append(f"{zone}:{kind}:{zone}.{kind}")
        return specs

    def change(self, zone, lines):
        """The list is another within about a second."""
        self._write(zone, lines)


# The test points of RFC 5782, 5, listed as they should be.
LISTED4 = ["127.0.0.2 :127.0.0.2:test point"]
LISTED6 = ["::ffff:7f00:2 :127.0.0.2:test point"]
# A domain that was parked, or a list that is angry: it "lists" the world.
EVERYTHING = (["0.0.0.0/0 :127.0.0.2:everybody"], ["::/0 :127.0.0.2:everybody"])


class Unbound:
    """A resolver. `stubs` maps zones to ports of their servers; `data` are local-data lines, as in "a.test. 60 IN A 192.0.2.1"."""

    def __init__(self, case, stubs=None, data=(), port=None, ttl_max=1, name="unbound"):
        self.port = port or free_port()
        folder = os.path.join(case.folder, f"{name}-{self.port}")
        os.makedirs(folder, exist_ok=True)
        lines = [
            "server:",
            f"  interface: 127.0.0.1@{self.port}",
            f"  directory: {folder}",
            '  username: ""',
            '  chroot: ""',
            '  pidfile: ""',
            "  use-syslog: no",
            "  do-daemonize: no",
            "  do-not-query-localhost: no",
            "  access-control: 127.0.0.0/8 allow",
            '  module-config: "iterator"',
            "  num-threads: 1",
            # Zones change under the tests' feet: an answer is not to outlive them.
            f"  cache-max-ttl: {ttl_max}",
            f"  cache-max-negative-ttl: {ttl_max}",
            "  infra-host-ttl: 1",
            "  unblock-lan-zones: yes",
            "  insecure-lan-zones: yes",
            # What is nobody's does not exist; nobody outside is asked.
            '  local-zone: "." static',
        ]
        for zone in stubs or {}:
            lines.append(f'  local-zone: "{zone}." transparent')
        for line in data:
            lines.append(f"  local-data: '{line}'")
        for zone, server in (stubs or {}).items():
            lines += ["stub-zone:", f"  name: {zone}.", f"  stub-addr: 127.0.0.1@{server}"]
        lines += ["remote-control:", "  control-enable: no"]
        path = os.path.join(folder, "unbound.conf")
        with open(path, "w") as file:
            file.write("\n".join(lines) + "\n")
        program = shutil.which("unbound", path=os.environ["PATH"] + ":/usr/sbin")
        self.process = case.process([program, "-d", "-c", path], f"{name}-{self.port}")

        def ready():
            if not self.process.running():
                raise AssertionError(f"unbound ended:\n{self.process.log()}")
            return ask(self.port, "nobody.test", patience=0.2)

        wait_until(ready, "unbound to answer")

    @property
    def flag(self):
        return f"127.0.0.1:{self.port}"


class Meddler:
    """Stands in front of a server and passes datagrams on; `meddle(query, reply)` returns what is said instead, or None."""

    def __init__(self, case, server, meddle):
        self.server, self.meddle = server, meddle
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.over = False
        case.addCleanup(self.stop)
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def flag(self):
        return f"127.0.0.1:{self.port}"

    def stop(self):
        self.over = True
        self.sock.close()

    def _run(self):
        while not self.over:
            try:
                query, client = self.sock.recvfrom(4096)
            except OSError:
                return
            threading.Thread(target=self._answer, args=(query, client), daemon=True).start()

    def _answer(self, query, client):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            try:
                sock.sendto(query, ("127.0.0.1", self.server))
                reply = self.meddle(query, sock.recv(4096))
                if reply is not None:
                    self.sock.sendto(reply, client)
            except OSError:
                return


def rewriting(address="198.51.100.1"):
    """What some resolvers do with names that do not exist: they make up an address where one was asked for."""

    def meddle(query, reply):
        end = query.index(b"\0", 12) + 5
        if reply[3] & 15 != NXDOMAIN or query[end - 4 : end - 2] != b"\0\1":
            return reply
        head = query[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, 1, 0, 0)
        record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(address)
        return head + query[12:end] + record

    return meddle


class Silent:
    """A server that takes questions and says nothing."""

    def __init__(self, case):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        case.addCleanup(self.sock.close)

    @property
    def flag(self):
        return f"127.0.0.1:{self.port}"
