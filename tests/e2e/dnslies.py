"""A DNS server that does what real ones must not: it is slow, dead, confused, or lies.

`Liar(case, lie, names)` answers for `names` ((name, kind) -> list of values; everything else does not exist) in the manner of
`lie`, a function of the query that sends what it likes: see `LIES`. It counts what it was asked, so that tests can say how often
a question left. UDP and TCP on one port of the kernel's choice.
"""

import contextlib
import socket
import struct
import threading
import time

from dnsservers import KINDS, NOERROR, NXDOMAIN, SERVFAIL

REFUSED = 5
TC, AA, QR, RA = 0x0200, 0x0400, 0x8000, 0x0080


def packed(name):
    labels = [label for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label.encode("latin-1") for label in labels) + b"\0"


class Query:
    """One question, and what can be said to it."""

    def __init__(self, liar, octets, send, stream):
        self.liar, self.octets, self._send, self.stream = liar, octets, send, stream
        self.id = octets[:2]
        end = octets.index(b"\0", 12) + 1
        self.question = octets[12 : end + 4]
        self.kind = struct.unpack(">H", octets[end : end + 2])[0]
        labels, at = [], 12
        while octets[at]:
            labels.append(octets[at + 1 : at + 1 + octets[at]].decode("latin-1"))
            at += octets[at] + 1
        self.asked_name = ".".join(labels)
        self.name = self.asked_name.lower()

    def send(self, octets):
        with contextlib.suppress(OSError):
            self._send(octets)

    def reply(self, records=(), code=NOERROR, flags=0, id=None, question=None):
        """`records`: octets of whole records. Without any, a SOA says for how long there are none."""
        authority = b"" if records or code not in (NOERROR, NXDOMAIN) else self.soa()
        head = (id or self.id) + struct.pack(">HHHHH", QR | RA | 0x0100 | flags | code, 1, len(records), bool(authority), 0)
        return head + (self.question if question is None else question) + b"".join(records) + authority

    def soa(self):
        data = packed("ns.test") + packed("root.test") + struct.pack(">IIIII", 1, 600, 300, 86400, self.liar.ttl)
        return self.record("test", 6, data)

    def record(self, owner, kind, data, ttl=None):
        owner = b"\xc0\x0c" if owner is None else packed(owner)
        return owner + struct.pack(">HHIH", kind, 1, self.liar.ttl if ttl is None else ttl, len(data)) + data

    def truth(self, ttl=None):
        """The records that there are, and the code."""
        values = self.liar.names.get((self.name, self.kind))
        if values is None:
            exists = any(name == self.name for name, _ in self.liar.names)
            return [], NOERROR if exists else NXDOMAIN
        return [self.record(None, self.kind, value, ttl) for value in values], NOERROR

    def answer(self, **how):
        records, code = self.truth()
        self.send(self.reply(records, code, **how))


def truth(query):
    query.answer()


def dead(query):
    """Says nothing at all."""


def slow(query):
    time.sleep(1.0)
    query.answer()


def servfail(query):
    query.send(query.reply(code=SERVFAIL))


def refused(query):
    query.send(query.reply(code=REFUSED))


def wrong_id(query):
    """Answers the question of somebody else."""
    query.answer(id=bytes([query.id[0] ^ 0x55, query.id[1]]))


def wrong_id_first(query):
    wrong_id(query)
    query.answer()


def forged(query):
    """What a forger would send who hears the question: everybody is fine. Then the truth."""
    for guess in range(20):
        query.send(query.reply(code=NXDOMAIN, id=struct.pack(">H", (int.from_bytes(query.id, "big") + 1 + guess) % 65536)))
    query.answer()


def wrong_question(query):
    """The right id, and an answer to something else."""
    lie = query.record("other.test", 1, socket.inet_aton("127.0.0.2"))
    query.send(query.reply([lie], question=packed("other.test") + struct.pack(">HH", 1, 1)))


def wrong_question_first(query):
    wrong_question(query)
    query.answer()


def spoofed_source(query):
    """From another port of the same host: a lie that never arrives at a connected socket. Then the truth."""
    if not query.stream:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(query.reply(code=NXDOMAIN), query.liar.client)
    query.answer()


def truncated(query):
    """Too long for a datagram: the answer is to be had by TCP."""
    if query.stream:
        query.answer()
    else:
        query.send(query.reply(flags=TC))


def truncated_for_ever(query):
    query.send(query.reply(flags=TC))


def half_truncated(query):
    """Cut in the middle of a record, without saying so."""
    records, code = query.truth()
    query.send(query.reply(records, code)[:-3])


def huge_ttl(query):
    records, code = query.truth(ttl=0x7FFFFFFF)
    query.send(query.reply(records, code))


def negative_ttl(query):
    """RFC 2181, 8: the top bit makes it none."""
    records, code = query.truth(ttl=0xFFFFFFFF)
    query.send(query.reply(records, code))


def rewriting(query):
    """Names that do not exist lead to an advertisement."""
    records, code = query.truth()
    if code == NXDOMAIN and query.kind == KINDS["A"]:
        return query.send(query.reply([query.record(None, 1, socket.inet_aton("198.51.100.1"))]))
    query.send(query.reply(records, code))


def loop(query):
    """A is B and B is A."""
    first, second = packed(query.name), packed("loop.test")
    records = [query.record(None, 5, second), query.record("loop.test", 5, first)]
    query.send(query.reply(records))


def pointer_loop(query):
    """A compressed name that points to itself."""
    at = 12 + len(query.question)
    pointer = struct.pack(">H", 0xC000 | at)
    query.send(query.reply([pointer + struct.pack(">HHIH", 1, 1, 60, 4) + b"\x7f\0\0\2"]))


def garbage(query):
    query.send(b"")
    query.send(b"\0")
    query.send(query.id + b"\xff" * 40)
    query.send(query.octets)
    query.send(query.reply()[:7])


def garbage_first(query):
    garbage(query)
    query.answer()


def many_records(query):
    """A thousand where one was asked for; no resolver should keep them all."""
    records, code = query.truth()
    if records and not query.stream:
        return query.send(query.reply(flags=TC))
    query.send(query.reply(records * 1000, code))


def other_case(query):
    """Forgets in what case the question was asked."""
    query.answer(question=query.question.lower())


def of_another_class(query):
    """CHAOS."""
    question = query.question[:-2] + b"\0\3"
    query.answer(question=question)


def a_question_back(query):
    """The answer lacks the bit that makes it one."""
    records, code = query.truth()
    reply = bytearray(query.reply(records, code))
    reply[2] &= 0x7F
    query.send(bytes(reply))


def no_edns(query):
    """As servers of the nineties: what has an additional record is a format error."""
    if query.octets[11]:
        return query.send(query.id + struct.pack(">HHHHH", QR | RA | 1, 0, 0, 0, 0))
    query.answer()


class Liar:
    def __init__(self, case, lie=truth, names=None, ttl=60, host="127.0.0.1", port=0, tcp=True):
        self.lie, self.ttl, self.host = lie, ttl, host
        self.names = {(name.lower(), KINDS[kind]): values for (name, kind), values in (names or {}).items()}
        self.asked, self.datagrams, self.streams, self.ports = [], 0, 0, set()
        self.client = None
        self.lock = threading.Lock()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        while True:
            self.tcp = socket.socket(family, socket.SOCK_STREAM)
            self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.tcp.bind((host, port))
            self.port = self.tcp.getsockname()[1]
            self.udp = socket.socket(family, socket.SOCK_DGRAM)
            try:
                self.udp.bind((host, self.port))
                break
            except OSError:
                self.tcp.close()
                self.udp.close()
        case.addCleanup(self.stop)
        threading.Thread(target=self._datagrams, daemon=True).start()
        if tcp:
            self.tcp.listen(64)
            threading.Thread(target=self._connections, daemon=True).start()

    @property
    def flag(self):
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def stop(self):
        for sock in (self.udp, self.tcp):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def count(self, name):
        """How often a name was asked for."""
        with self.lock:
            return self.asked.count(name.lower())

    def _heard(self, query):
        with self.lock:
            self.asked.append(query.name)
        self.lie(query)

    def _datagrams(self):
        while True:
            try:
                octets, client = self.udp.recvfrom(4096)
            except OSError:
                return
            if client is None:  # shut down
                return
            with self.lock:
                self.datagrams += 1
                self.ports.add(client[1])
                self.client = client
            query = Query(self, octets, lambda reply, client=client: self.udp.sendto(reply, client), False)
            threading.Thread(target=self._heard, args=(query,), daemon=True).start()

    def _connections(self):
        while True:
            try:
                sock, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        sock.settimeout(30)
        with contextlib.suppress(OSError, EOFError, struct.error), sock:
            while True:
                length = struct.unpack(">H", self._octets(sock, 2))[0]
                octets = self._octets(sock, length)
                with self.lock:
                    self.streams += 1
                self._heard(Query(self, octets, lambda reply: sock.sendall(struct.pack(">H", len(reply)) + reply), True))

    @staticmethod
    def _octets(sock, count):
        octets = b""
        while len(octets) < count:
            more = sock.recv(count - len(octets))
            if not more:
                raise EOFError
            octets += more
        return octets
