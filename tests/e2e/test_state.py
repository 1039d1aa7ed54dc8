"""What is learnt outlives restarts, crashes, damaged files and full disks (--state FILE), and reaches other hosts by a real
redis-server that dies and comes back (--state redis://).

Hosts tell each other in a stream whose form is written down in src/state/codec.rs; here a third host is played, which tells
what the tests want weir to know. `Mailing` and `Together` play nobody: mail is greylisted, and what comes of it is counted where it ends.
"""

import hashlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import unittest

from test_greylist import DEFER, DELAY, QUICK, Greylisting
from weirtest import Case, Process, free_port, wait_listening, wait_until

STREAM = b"weir:news"
TUPLE, PROVEN = 1, 2


def batch(news, prefix=(24, 64)):
    """News as hosts write them."""
    text = b"WN\x01\x00" + bytes(prefix) + b"".join(struct.pack(">BQI", *one) for one in news)
    return text + hashlib.sha256(text).digest()[:8]


def tuples(count, start=0):
    now = int(time.time())
    # Spread as hashes are.
    return [(TUPLE, (n * 0x9E3779B97F4A7C15) % 2**64, now) for n in range(start, start + count)]


def proven(count, start=0):
    until = int(time.time()) + 86400
    return [(PROVEN, 0xFFFF_0A00_0000 + 256 * n, until) for n in range(start, start + count)]


class Redis:
    """A real server in a folder of its own, and a client of it."""

    def __init__(self, case, keeps=False):
        self.case, self.keeps, self.port, self.process = case, keeps, free_port(), None
        self.folder = os.path.join(case.folder, f"redis-{self.port}")
        os.mkdir(self.folder)
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def start(self):
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        argv = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder, "--save", ""]
        argv += ["--appendonly", "yes" if self.keeps else "no"]
        self.process = Process(argv, self.folder, "redis")
        self.case.addCleanup(self.process.stop)
        wait_listening(self.port)

    def kill(self):
        self.process.kill()

    def call(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
            return sock.makefile("rb").readline()

    def tell(self, news, host="third"):
        for at in range(0, len(news), 1024):
            answer = self.call("XADD", STREAM, "*", "host", host, "news", batch(news[at : at + 1024]))
            assert answer.startswith(b"$"), answer

    def length(self):
        return int(self.call("XLEN", STREAM)[1:])


def entries(weir, table):
    return weir.metric("weir_state_entries", table=table)


def heard(weir):
    return weir.metric("weir_state_shared_news_total", way="in")


@unittest.skipUnless(shutil.which("redis-server") or shutil.which("valkey-server"), "no redis-server here")
class Lasting(Case):
    def setUp(self):
        super().setUp()
        self.file = os.path.join(self.folder, "state")

    def host(self, *flags, shards=1, **options):
        return self.weir(*flags, upstreams=[self.upstream()], shards=shards, **options)

    def taught(self, redis, news, *flags):
        """A weir with a file in which this is written."""
        weir = self.host("--state", self.file, "--state", redis.url, *flags)
        wait_until(lambda: weir.metric("weir_state_shared_up") == 1, "the server to be found")
        redis.tell(news)
        count = len(news)
        wait_until(lambda: entries(weir, "tuples") + entries(weir, "networks") == count, "it to be written")
        return weir

    def restarted(self, **options):
        """With the file alone."""
        weir = self.host("--state", self.file, **options)
        wait_until(lambda: weir.metric("weir_state_loaded") == 1, "the file to be read")
        return weir

    def test_a_restart_keeps_what_was_learnt(self):
        weir = self.taught(Redis(self), tuples(500) + proven(200))
        weir.stop()
        self.assertEqual(weir.child.returncode, 0)
        weir = self.restarted(shards=2)
        self.assertEqual(weir.metric("weir_state_loaded_entries_total"), 700)
        # All shards are told.
        wait_until(lambda: weir.metric("weir_news_learnt_total") == 1400, "the shards to know")
        self.assertEqual(os.stat(self.file).st_mode & 0o077, 0)
        self.assert_alive(weir)

    def test_a_kill_costs_the_last_seconds_at_most(self):
        redis = Redis(self)
        weir = self.taught(redis, tuples(2000))
        # In the middle of writing: news come on and on.
        for round in range(20):
            redis.tell(tuples(500, start=10_000 * (round + 1)))
            time.sleep(0.15)
        known = entries(weir, "tuples")
        weir.kill()
        weir = self.restarted()
        self.assertGreaterEqual(entries(weir, "tuples"), known)
        self.assertEqual(weir.metric("weir_state_set_aside_total"), 0)

    def test_copies_of_the_file_at_any_moment_can_be_read(self):
        redis = Redis(self)
        weir = self.taught(redis, tuples(2000))
        copies = []
        for round in range(8):
            redis.tell(tuples(1000, start=10_000 * (round + 1)))
            time.sleep(0.37)
            # A machine that stops leaves the file as of one moment; so does a process that cannot run.
            weir.signal(signal.SIGSTOP)
            copies.append(shutil.copy(self.file, f"{self.file}.{round}"))
            weir.signal(signal.SIGCONT)
        weir.stop()
        for copy in copies:
            os.replace(copy, self.file)
            weir = self.restarted()
            self.assertGreaterEqual(weir.metric("weir_state_loaded_entries_total"), 2000)
            self.assertEqual(weir.metric("weir_state_set_aside_total"), 0, weir.log())
            weir.stop()

    def test_a_damaged_file_is_put_aside_loudly(self):
        weir = self.taught(Redis(self), tuples(3000))
        weir.stop()
        with open(self.file, "r+b") as file:
            file.write(os.urandom(8192))
        weir = self.host("--state", self.file)
        wait_until(lambda: weir.metric("weir_state_set_aside_total") == 1, "it to be put aside")
        wait_until(lambda: weir.metric("weir_state_loaded") == 1, "a new one to be begun")
        self.assertRegex(weir.log(), r"put aside as \S+state\.aside")
        self.assertTrue(os.path.exists(self.file + ".aside"))
        self.assert_alive(weir)

    def test_a_file_of_something_else_is_put_aside(self):
        with open(self.file, "w") as file:
            file.write("# my notes\n" * 1000)
        weir = self.host("--state", self.file)
        wait_until(lambda: weir.metric("weir_state_loaded") == 1, "a new one to be begun")
        with open(self.file + ".aside") as file:
            self.assertTrue(file.read().startswith("# my notes"))

    def test_a_file_of_other_networks_is_put_aside(self):
        weir = self.taught(Redis(self), proven(30))
        weir.stop()
        weir = self.restarted()
        self.assertEqual(weir.metric("weir_state_loaded_entries_total"), 30)
        weir.stop()
        weir = self.host("--state", self.file, "--network-prefix", "16/64")
        wait_until(lambda: weir.metric("weir_state_loaded") == 1, "a new one to be begun")
        self.assertEqual(weir.metric("weir_state_loaded_entries_total"), 0)
        self.assertIn("its networks are those of --network-prefix 24/64, not 16/64; put aside", weir.log())
        weir.stop()
        # Whoever mistyped has it back by its name.
        os.replace(self.file + ".aside", self.file)
        self.assertEqual(self.restarted().metric("weir_state_loaded_entries_total"), 30)

    def test_a_second_weir_waits_for_the_file(self):
        first = self.host("--state", self.file)
        second = self.host("--state", self.file)
        wait_until(lambda: second.metric("weir_state_failing") == 1, "it to notice")
        self.assert_alive(second)
        first.stop()
        wait_until(lambda: second.metric("weir_state_failing") == 0, "it to get the file")
        self.assertEqual(second.log().count("another process has it open"), 1)

    def test_a_full_disk_is_told_once_and_waited_for(self):
        disk = os.path.join(self.folder, "disk")
        os.mkdir(disk)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", disk], capture_output=True).returncode:
            self.skipTest("no tmpfs can be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", disk])
        self.file = os.path.join(disk, "state")
        redis = Redis(self)
        weir = self.taught(redis, tuples(100))
        ballast = os.path.join(disk, "ballast")
        with open(ballast, "wb", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(4096))
                except OSError:
                    break
        redis.tell(tuples(60_000, start=1000))
        wait_until(lambda: weir.metric("weir_state_failing") == 1, "the disk to be full")
        self.assert_alive(weir)
        time.sleep(6)
        self.assertEqual(weir.log().count("stays in memory"), 1, weir.log())
        self.assertGreater(weir.metric("weir_state_pending"), 50_000)
        os.remove(ballast)
        wait_until(lambda: entries(weir, "tuples") == 60_100, "it to be written after all", 40)
        self.assertEqual(weir.metric("weir_state_failing"), 0)
        self.assertEqual(weir.metric("weir_state_set_aside_total"), 0)

    def test_it_works_as_nobody_inside_the_fence(self):
        if os.geteuid() != 0:
            self.skipTest("needs root to give it up")
        folder = os.path.join(self.folder, "lib")
        os.mkdir(folder)
        shutil.chown(folder, "nobody")
        self.file = os.path.join(folder, "state")
        with open(self.file, "w") as file:
            file.write("not a database " * 1000)
        shutil.chown(self.file, "nobody")
        weir = self.taught(Redis(self), tuples(100), "--user", "nobody")
        self.assertTrue(os.path.exists(self.file + ".aside"), weir.log())

    def test_a_folder_that_is_not_there_is_told_before_the_start(self):
        self.file = os.path.join(self.folder, "nowhere", "state")
        weir = self.host("--state", self.file, ready=False)
        self.assertEqual(weir.wait(), 69)
        self.assertIn("--state", weir.log())


@unittest.skipUnless(shutil.which("redis-server") or shutil.which("valkey-server"), "no redis-server here")
class Sharing(Case):
    def hosts(self, redis, *flags):
        both = [self.weir("--state", redis.url, *flags, upstreams=[self.upstream()], shards=1) for _ in range(2)]
        for weir in both:
            wait_until(lambda weir=weir: weir.metric("weir_state_shared_up") == 1, "the server to be found")
        return both

    def test_all_hosts_hear_and_a_newcomer_hears_what_was_told_before(self):
        redis = Redis(self)
        both = self.hosts(redis)
        redis.tell(proven(3000))
        for weir in both:
            wait_until(lambda weir=weir: heard(weir) == 3000, "it to be heard")
            wait_until(lambda weir=weir: weir.metric("weir_news_learnt_total") == 3000, "the shard to know")
        late = self.weir("--state", redis.url, upstreams=[self.upstream()], shards=1)
        wait_until(lambda: heard(late) == 3000, "the newcomer to know")

    def test_the_server_dies_in_the_middle_and_comes_back(self):
        for keeps in (True, False):
            with self.subTest(keeps=keeps):
                redis = Redis(self, keeps=keeps)
                both = self.hosts(redis)
                redis.tell(proven(100))
                for weir in both:
                    wait_until(lambda weir=weir: heard(weir) == 100, "it to be heard")
                redis.kill()
                for weir in both:
                    wait_until(lambda weir=weir: weir.metric("weir_state_shared_up") == 0, "the loss to be noticed")
                    self.assert_alive(weir)
                time.sleep(5)
                for weir in both:
                    self.assertEqual(weir.metric("weir_state_shared_losses_total"), 1)
                    self.assertEqual(weir.log().count("each host goes by what it knows itself"), 1, weir.log())
                redis.start()
                for weir in both:
                    wait_until(lambda weir=weir: weir.metric("weir_state_shared_up") == 1, "it to be found again")
                redis.tell(proven(50, start=1000))
                for weir in both:
                    wait_until(lambda weir=weir: heard(weir) == 150, "the rest to be heard")
                    weir.stop()

    def tries(self, weir, count, source="127.0.0.1"):
        """Of so many, how many mails may begin."""
        with weir.client(source=source, hello="client.test") as client:
            codes = []
            for _ in range(count):
                codes.append(client.command("MAIL FROM:<a@client.test>").code)
                client.expect(250, "RSET")
            client.quit()
        return codes.count(250)

    def test_hosts_hold_a_client_to_one_rate_together(self):
        redis = Redis(self)
        one, other = self.hosts(redis, "--rate-messages", "20/h")
        self.assertEqual(self.tries(one, 12), 12)
        wait_until(lambda: one.metric("weir_state_shared_rates_total") >= 1, "it to be told")
        # The other knows of a client what it has spent once it spends there as well: a lease of a second or two.
        self.assertEqual(self.tries(other, 1), 1)
        wait_until(lambda: other.metric("weir_state_shared_rates_total") >= 1, "it to be counted together")
        time.sleep(0.3)
        self.assertIn(self.tries(other, 20), (7, 8))
        self.assertEqual(self.tries(other, 20, source="127.0.0.9"), 20, "somebody else is not held to it")

    def test_without_the_server_each_host_keeps_the_rate_alone(self):
        redis = Redis(self)
        both = self.hosts(redis, "--rate-messages", "20/h")
        redis.kill()
        for weir in both:
            wait_until(lambda weir=weir: weir.metric("weir_state_shared_up") == 0, "the loss to be noticed")
            self.assertEqual(self.tries(weir, 30), 20)

    def test_weir_starts_without_the_server(self):
        weir = self.weir("--state", f"redis://127.0.0.1:{free_port()}", upstreams=[self.upstream()])
        wait_until(lambda: weir.metric("weir_state_shared_losses_total") == 1, "it to be missed")
        self.assert_alive(weir)

    def test_hosts_with_other_networks_do_not_hear_each_other(self):
        redis = Redis(self)
        both = self.hosts(redis)
        other = self.weir("--state", redis.url, "--network-prefix", "16/48", upstreams=[self.upstream()], shards=1)
        redis.tell(proven(3))
        wait_until(lambda: other.metric("weir_state_shared_unreadable_total") == 1, "it to be passed over")
        for number in range(2):
            redis.call("XADD", STREAM, "*", "host", "fourth", "news", batch(proven(5, start=10 * number), prefix=(16, 48)))
        wait_until(lambda: heard(other) == 10, "its like to be heard")
        for weir in both:
            wait_until(lambda weir=weir: weir.metric("weir_state_shared_unreadable_total") == 2, "others to be passed over")
            self.assertEqual(heard(weir), 3)
            self.assertEqual(weir.log().count("another host has --network-prefix 16/48, this one 24/64"), 1, weir.log())

    def test_what_others_write_there_is_passed_over(self):
        redis = Redis(self)
        both = self.hosts(redis)
        redis.call("XADD", STREAM, "*", "cats", "many")
        redis.call("XADD", STREAM, "*", "host", "x", "news", b"WN\x07\x00something")
        redis.call("XADD", STREAM, "*", "host", "x", "news", batch(proven(3))[:-1])
        redis.tell(proven(2))
        for weir in both:
            wait_until(lambda weir=weir: heard(weir) == 2, "what is right to be heard")
            self.assertEqual(weir.metric("weir_state_shared_unreadable_total"), 3)
            self.assertEqual(weir.log().count("is passed over"), 1)


def loaded(weir):
    wait_until(lambda: weir.metric("weir_state_loaded") == 1, "the file to be read")
    # What was told has been taken up as well: shards read their letters in between.
    wait_until(lambda: weir.metric("weir_news_learnt_total") >= weir.metric("weir_state_loaded_entries_total"), "the shards to know")
    return weir


class Mailing(Greylisting):
    def setUp(self):
        super().setUp()
        self.file = os.path.join(self.folder, "state")
        self.mx = self.upstream()

    def host(self):
        return loaded(self.weir("--state", self.file, "--greylist", "all", *DEFER, *QUICK, upstreams=[self.mx], shards=1))

    def one_more(self, weir, source, tag):
        """From somebody who has not written before."""
        return self.send(weir, source, sender=f"{tag}@client.test", tag=tag)

    def test_who_was_deferred_before_a_restart_passes_after_it(self):
        weir = self.host()
        self.assertEqual(self.send(weir, "127.0.40.1"), 451)
        began = time.monotonic()
        weir.stop()
        self.assertEqual(weir.child.returncode, 0)
        weir = self.host()
        self.assertEqual(self.one_more(weir, "127.0.41.1", "stranger"), 451)
        time.sleep(max(0, began + DELAY + 1 - time.monotonic()))
        self.assertEqual(self.send(weir, "127.0.40.1", tag="retry"), 250)
        # It is proven from now on, whatever it sends, and after the next restart as well.
        self.assertEqual(self.one_more(weir, "127.0.40.9", "second"), 250)
        weir.stop()
        weir = self.host()
        self.assertEqual(self.one_more(weir, "127.0.40.9", "third"), 250)
        self.assertEqual(self.one_more(weir, "127.0.42.1", "another"), 451)
        wait_until(lambda: sorted(self.mx.tags()) == ["retry", "second", "third"], "three messages")

    def test_a_kill_costs_who_came_in_the_last_seconds_one_more_try(self):
        weir = self.host()
        self.assertEqual(self.send(weir, "127.0.40.1"), 451)
        wait_until(lambda: entries(weir, "tuples") == 1, "it to be written")
        began = time.monotonic()
        self.assertEqual(self.send(weir, "127.0.41.1"), 451)
        weir.kill()
        weir = self.host()
        self.assertEqual(weir.metric("weir_state_set_aside_total"), 0)
        time.sleep(max(0, began + DELAY + 1 - time.monotonic()))
        self.assertEqual(self.send(weir, "127.0.40.1", tag="known"), 250)
        # Whoever was deferred just before is not known any more: deferred once more, and served then.
        wait_until(lambda: self.send(weir, "127.0.41.1", tag="late") == 250, "the other to pass", 3 * DELAY, 0.5)
        wait_until(lambda: sorted(self.mx.tags()) == ["known", "late"], "both messages, once each")


@unittest.skipUnless(shutil.which("redis-server") or shutil.which("valkey-server"), "no redis-server here")
class Together(Greylisting):
    """Two hosts before one server of mail."""

    def setUp(self):
        super().setUp()
        self.mx, self.redis = self.upstream(), Redis(self)
        self.hosts = [self.host(), self.host()]
        self.ended, self.sent, self.deferred, self.asked = threading.Event(), [], 0, 0

    def host(self):
        flags = ("--state", self.redis.url, "--greylist", "all", *DEFER, *QUICK)
        weir = self.weir(*flags, upstreams=[self.mx], shards=1)
        wait_until(lambda: weir.metric("weir_state_shared_up") == 1, "the server to be found")
        return weir

    def prove(self, weir, source, tag):
        """As a sender that comes back until it is served, always to this host."""
        self.assertEqual(self.send(weir, source, tag=tag), 451)
        wait_until(lambda: self.send(weir, source, tag=tag) == 250, f"{source} to pass", 3 * DELAY, 0.5)

    def is_known(self, weir, source):
        """Asked with a sender that never wrote before, or it would be a retry: at RCPT, and no mail is sent."""
        self.asked += 1
        tag = f"ask-{self.asked}"
        with weir.client(source=source, hello="client.test") as client:
            client.expect(250, f"MAIL FROM:<{tag}@asks.test>")
            return client.command(f"RCPT TO:<{tag}@weir.test>").code == 250

    def traffic(self, number):
        """Senders of many networks, each with a message that it tries again at one host and the other until it is taken."""
        queue = []
        while not self.ended.is_set() or queue:
            if not self.ended.is_set():
                at = len(self.sent)
                self.sent.append(f"mail-{number}-{at}")
                queue.append((f"127.0.{100 + at % 100}.{1 + number}", self.sent[-1]))
            for place, (source, tag) in enumerate(list(queue)):
                weir = self.hosts[(number + place) % 2]
                if self.send(weir, source, sender=f"{tag}@client.test", tag=tag) == 250:
                    queue.remove((source, tag))
                else:
                    self.deferred += 1
            time.sleep(0.25)

    def test_proven_on_one_host_is_proven_on_the_other_and_the_server_may_die_meanwhile(self):
        one, other = self.hosts
        errors = []

        def run():
            try:
                self.traffic(7)
            except BaseException as error:
                errors.append(error)
                raise

        sender = threading.Thread(target=run)
        sender.start()
        self.addCleanup(self.ended.set)
        self.prove(one, "127.0.40.1", "first")
        wait_until(lambda: self.is_known(other, "127.0.40.9"), "the other host to know", 10, 0.2)
        self.redis.kill()
        for weir in self.hosts:
            wait_until(lambda weir=weir: weir.metric("weir_state_shared_up") == 0, "the loss to be noticed")
        # Each goes by what it knows.
        self.prove(one, "127.0.41.1", "second")
        self.assertTrue(self.is_known(other, "127.0.40.9"))
        self.assertFalse(self.is_known(other, "127.0.41.9"))
        self.redis.start()
        for weir in self.hosts:
            wait_until(lambda weir=weir: weir.metric("weir_state_shared_up") == 1, "it to be found again")
        wait_until(lambda: self.is_known(other, "127.0.41.9"), "what was learnt meanwhile", 10, 0.2)
        self.prove(other, "127.0.42.1", "third")
        wait_until(lambda: self.is_known(one, "127.0.42.9"), "the way back", 10, 0.2)
        late = self.host()
        wait_until(lambda: self.is_known(late, "127.0.42.9"), "a newcomer to know", 10, 0.2)
        self.ended.set()
        sender.join(6 * DELAY)
        self.assertFalse(sender.is_alive() or errors, errors)
        wanted = sorted([*self.sent, "first", "second", "third"])
        wait_until(lambda: len(self.mx.tags()) >= len(wanted), "all mail")
        self.assertEqual(sorted(self.mx.tags()), wanted, "all of it, once each")
        self.assertGreater(self.deferred, 20)
        print(f"{len(wanted)} messages, all there once, {self.deferred} times deferred")


if __name__ == "__main__":
    unittest.main()
