"""Lists of clients, names, senders and recipients: who is refused, and that reading them anew stops nobody."""

import os
import random
import signal
import socket
import threading
import time
import unittest

from weirtest import Case, Client, message, wait_until

MANY = int(os.environ.get("WEIR_LISTED", "1000000"))  # lines of the long list


class Lists(Case):
    def write(self, name, *lines):
        """Replaced by renaming, as the manual says."""
        path = os.path.join(self.folder, name)
        with open(path + ".new", "w") as file:
            file.write("".join(f"{line}\n" for line in lines))
        os.rename(path + ".new", path)
        return path

    def reload(self, weir, word="reloaded", patience=60):
        before = weir.log().count(word)
        weir.signal(signal.SIGHUP)
        wait_until(lambda: weir.log().count(word) > before, f"{word!r} in the log", patience)


class Refusals(Lists):
    def test_names_senders_and_recipients_are_refused_and_friends_are_not(self):
        mx = self.upstream()
        weir = self.weir(
            "--deny-helo", self.write("dh", "ylmf-pc", ".bad.test"),
            "--allow-helo", self.write("ah", "good.bad.test"),
            "--deny-sender", self.write("ds", "@spam.test", "joe@client.test", "# nobody else"),
            "--allow-sender", self.write("as", "news@spam.test"),
            "--deny-recipient", self.write("dr", "gone@weir.test", "@closed.test"),
            "--allow-recipient", self.write("ar", "postmaster@"),
            "--allow-list", self.write("al", "127.0.20.7"),
            upstreams=[mx],
        )  # fmt: skip
        with weir.client() as client:
            for name, code in [("YLMF-PC", 550), ("a.bad.test", 550), ("bad.test", 250), ("good.bad.test", 250)]:
                self.assertEqual(client.command(f"EHLO {name}").code, code, name)
            for sender, code in [
                ("x@spam.test", 550),
                ("JOE@Client.test", 550),
                ('"joe"@client.test', 550),
                ("news@spam.test", 250),
                ("jane@client.test", 250),
                ("", 250),
            ]:
                reply = client.command(f"MAIL FROM:<{sender}>")
                self.assertEqual(reply.code, code, sender)
                if code == 550:
                    self.assertEqual(reply.enhanced, "5.7.1")
                client.command("RSET")
            client.command("MAIL FROM:<a@client.test>")
            for recipient, code in [
                ("gone@weir.test", 550),
                ("GONE@weir.test", 550),
                ("x@closed.test", 550),
                ("postmaster@closed.test", 550),
                ("postmaster@weir.test", 250),
                ("b@weir.test", 250),
            ]:
                self.assertEqual(client.command(f"RCPT TO:<{recipient}>").code, code, recipient)
            client.quit()
        for finding, least in [("deny-helo", 2), ("deny-sender", 3), ("deny-recipient", 4)]:
            wait_until(lambda: weir.metric("weir_findings_total", finding=finding, action="reject") == least, finding)
            wait_until(lambda: f"finding={finding}" in weir.log(), f"{finding} in the log")
        with weir.client(source="127.0.20.7", hello="ylmf-pc") as friend:
            self.assertEqual(friend.data(message("friend"), sender="x@spam.test", recipients=("gone@weir.test",)).code, 250)
            friend.quit()

    def test_an_error_in_one_list_leaves_all_as_they_were(self):
        deny, senders = self.write("deny", "127.0.20.0/24"), self.write("senders", "@spam.test")
        weir = self.weir("--deny-list", deny, "--deny-sender", senders, upstreams=[self.upstream()])
        self.write("deny", "127.0.21.0/24")
        self.write("senders", "@other.test", "", "spam")
        self.reload(weir, "everything stays as it was")
        self.assertIn('line 3: "spam": not an address', weir.log().replace("\\", ""))
        with open(senders, "wb") as file:
            file.write(b"@other.test\n\xff\xfe\n")
        self.reload(weir, "everything stays as it was")
        self.assertIn("not UTF-8 text", weir.log())
        with weir.client(hello="client.test") as client:
            self.assertEqual(client.command("MAIL FROM:<x@spam.test>").code, 550)
            self.assertEqual(client.command("MAIL FROM:<x@other.test>").code, 250)
        with Client(weir.port, source="127.0.20.1") as bad:
            self.assertEqual(bad.greeting.code // 100, 5)
        self.write("senders", "@other.test")
        self.reload(weir)
        with weir.client(hello="client.test") as client:
            self.assertEqual(client.command("MAIL FROM:<x@other.test>").code, 550)


class Talker(threading.Thread):
    """A client that says something all the while; remembers how long it ever waited for an answer, and when."""

    def __init__(self, weir, source):
        super().__init__(daemon=True)
        self.client = Client(weir.port, source=source, hello="client.test")
        self.waits, self.over, self.error = [], threading.Event(), None
        self.start()

    def run(self):
        try:
            while not self.over.is_set():
                asked = time.monotonic()
                self.client.expect(250, "NOOP")
                self.waits.append((asked, time.monotonic() - asked))
                time.sleep(0.001)
        except Exception as error:  # told by the test
            self.error = error

    def longest(self, since, until):
        return max(wait for asked, wait in self.waits if since <= asked <= until)

    def stop(self):
        self.over.set()
        self.join(20)
        self.client.close()


class Reloads(Lists):
    def long_list(self, seed):
        """Half of it IPv4 addresses, half IPv6 networks; never one of loopback's."""
        chance = random.Random(seed)
        path = os.path.join(self.folder, "deny")
        with open(path + ".new", "w") as file:
            file.write(f"127.0.{seed}.0/24\n")
            for _ in range(MANY // 2):
                bits = chance.getrandbits(32) | 0x80000000
                file.write(socket.inet_ntoa(bits.to_bytes(4, "big")) + "\n")
                high, low = chance.getrandbits(16), chance.getrandbits(16)
                file.write(f"2a02:{high:x}:{low:x}:{chance.getrandbits(16):x}::/64\n")
        os.rename(path + ".new", path)
        return path

    def test_a_long_list_is_read_while_clients_talk(self):
        path = self.write("deny", "127.0.20.0/24")
        weir = self.weir("--deny-list", path, "--junk-max", "0", upstreams=[self.upstream()], shards=2)
        talkers = [Talker(weir, f"127.0.30.{n}") for n in range(1, 5)]

        def greeting(source):
            with Client(weir.port, source=source) as client:
                return client.greeting.code

        try:
            time.sleep(1)
            began = time.monotonic()
            quiet = max(talker.longest(began - 1, began) for talker in talkers)
            sizes, took, gaps = [], [], []
            for seed in (21, 22, 23, 24):
                self.long_list(seed)
                time.sleep(0.5)
                asked = time.monotonic()
                self.reload(weir)
                took.append(time.monotonic() - asked)
                self.assertEqual(greeting(f"127.0.{seed}.1"), 521)
                self.assertEqual(greeting(f"127.0.{seed - 1}.1"), 220)
                time.sleep(2)  # what it replaced is freed
                gaps.append(max(talker.longest(asked, time.monotonic()) for talker in talkers))
                sizes.append(weir.memory_kib())
            self.write("deny", "127.0.20.0/24")
            self.reload(weir)
            self.assertEqual(greeting("127.0.24.1"), 220)
        finally:
            for talker in talkers:
                talker.stop()
        print(
            f"\n{MANY} lines: read in {max(took):.2f} s; longest wait of a client meanwhile "
            f"{max(gaps) * 1000:.0f} ms (before: {quiet * 1000:.0f} ms); resident {sizes} KiB"
        )
        self.assertEqual([talker.error for talker in talkers], [None] * 4)
        # A second core may be busy with anything here; what a shard would stop for takes most of a second.
        self.assertLess(max(gaps), 0.25)
        self.assertLess(sizes[-1], sizes[1] * 1.5, "lists that were replaced are given back")

    def test_signals_in_a_row_end_in_what_is_in_the_file(self):
        path = self.write("deny", "127.0.20.0/24")
        weir = self.weir("--deny-list", path, upstreams=[self.upstream()])
        for n in range(21, 41):
            self.write("deny", f"127.0.{n}.0/24")
            weir.signal(signal.SIGHUP)
            time.sleep(0.002 * (n % 3))

        def refused(source):
            with Client(weir.port, source=source) as client:
                return client.greeting.code == 521

        wait_until(lambda: refused("127.0.40.1"), "the last list")
        self.assertFalse(refused("127.0.39.1"))
        self.assert_alive(weir)


if __name__ == "__main__":
    unittest.main()
