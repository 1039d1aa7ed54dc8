"""A small network of namespaces: a client host, a router and a server host, joined by veth pairs, IPv4 and IPv6.

    client 10.91.1.2, fd91:1::2  --  10.91.1.1  router  10.91.2.1  --  10.91.2.2, fd91:2::2 server
    (and all of 10.91.64.0/22, and fd91:64::1)                          (and 10.91.2.3, 10.91.2.4)

A thread is in one namespace at a time (setns(2)), and what it starts, processes, threads and sockets, belongs there.
Namespaces carry the pid of the test run in their names; those whose run is gone are removed by the next.
"""

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
import unittest

_libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
RULES = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", "tuning", "transparent", "weir-transparent"))


def run(*words, check=True, timeout=30):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, errors="backslashreplace", timeout=timeout, stdin=subprocess.DEVNULL)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, words))}: {done.stdout}{done.stderr}")
    return done


def why_not():
    """None where such a network can be made."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    for tool, package in (("ip", "iproute2"), ("nft", "nftables")):
        if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
            return f"{tool} is not installed (package {package})"
    name = f"weirlab-{os.getpid()}-probe"
    done = run("ip", "netns", "add", name, check=False)
    try:
        if done.returncode != 0:
            return f"no network namespaces here: {done.stderr.strip()}"
        run("ip", "-n", name, "link", "set", "lo", "up")
        done = run("ip", "netns", "exec", name, RULES, "up", "--clients", "192.0.2.1", check=False)
        return f"no TPROXY here: {done.stderr.strip()}" if done.returncode != 0 else None
    finally:
        run("ip", "netns", "del", name, check=False)


@contextlib.contextmanager
def inside(name):
    """The calling thread, and all it starts, in that namespace."""
    with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{name}") as there:
        _enter(there)
        try:
            yield
        finally:
            _enter(before)


def _enter(file):
    if _libc.setns(file.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Lab:
    CLIENT4, CLIENT6 = "10.91.1.2", "fd91:1::2"
    ROUTER4, ROUTER6 = "10.91.1.1", "fd91:1::1"
    SERVER4, SERVER6, SECOND4, EMPTY4 = "10.91.2.2", "fd91:2::2", "10.91.2.3", "10.91.2.4"

    def __init__(self):
        self.client, self.router, self.server = (f"weirlab-{os.getpid()}-{who}" for who in ("client", "router", "server"))

    def make(self):
        remove_left_over()
        for name in self.names():
            run("ip", "netns", "add", name)
        self._link(self.client, "c0", self.router, "r0")
        self._link(self.server, "s0", self.router, "r1")
        self._ip(
            self.client,
            f"addr add {self.CLIENT4}/24 dev c0", f"addr add {self.CLIENT6}/64 dev c0 nodad",
            f"route add default via {self.ROUTER4}", f"-6 route add default via {self.ROUTER6}",
            "route add local 10.91.64.0/22 dev lo", "-6 addr add fd91:64::1/128 dev lo nodad",
        )
        self._ip(
            self.router,
            f"addr add {self.ROUTER4}/24 dev r0", f"addr add {self.ROUTER6}/64 dev r0 nodad",
            "addr add 10.91.2.1/24 dev r1", "addr add fd91:2::1/64 dev r1 nodad",
            f"route add 10.91.64.0/22 via {self.CLIENT4}", f"-6 route add fd91:64::/64 via {self.CLIENT6}",
        )
        self._ip(
            self.server,
            *(f"addr add {address}/24 dev s0" for address in (self.SERVER4, self.SECOND4, self.EMPTY4)),
            f"addr add {self.SERVER6}/64 dev s0 nodad",
            "route add default via 10.91.2.1", "-6 route add default via fd91:2::1",
        )
        with inside(self.router):
            run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")

    def names(self):
        return (self.client, self.router, self.server)

    def remove(self):
        for name in self.names():
            run("ip", "netns", "del", name, check=False)

    def rules(self, *options, where=None, check=True):
        """Runs weir-transparent on the router."""
        with inside(where or self.router):
            return run(RULES, *options, check=check)

    def _link(self, one, interface, other, peer):
        run("ip", "link", "add", interface, "netns", one, "type", "veth", "peer", "name", peer, "netns", other)
        for name, link in ((one, interface), (other, peer)):
            self._ip(name, "link set lo up", f"link set {link} up")

    def _ip(self, name, *commands):
        for command in commands:
            run("ip", "-n", name, *command.split())


def remove_left_over():
    for line in run("ip", "netns", "list").stdout.splitlines():
        found = re.match(r"weirlab-(\d+)-\w+", line)
        if found and not os.path.exists(f"/proc/{found.group(1)}"):
            run("ip", "netns", "del", found.group(0), check=False)


def needed(case_class):
    """For setUpClass: a network for all tests of a class."""
    reason = why_not()
    if reason:
        raise unittest.SkipTest(reason)
    lab = Lab()
    case_class.addClassCleanup(lab.remove)
    lab.make()
    return lab
