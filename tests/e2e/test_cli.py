"""The command line: all errors at once, the plan, the doctor, the demo."""

import ctypes
import os
import re
import signal
import smtplib
import socket
import struct
import subprocess
import unittest

from weirtest import BIN, Case, Client, Process, free_port, message, wait_listening, wait_until


def run(*arguments, env=None, patience=20):
    clean = {n: v for n, v in os.environ.items() if not n.startswith("WEIR_")}
    clean.update(env or {})
    return subprocess.run([BIN, *map(str, arguments)], capture_output=True, text=True, timeout=patience, env=clean, stdin=subprocess.DEVNULL)


UNIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tuning", "weir.service")


def only_families(numbers):
    """From here on this process makes sockets of these families alone, as RestrictAddressFamilies= has it."""
    call = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
    refused, granted = (0x06, 0, 0, 0x00050000 | 97), (0x06, 0, 0, 0x7FFF0000)  # EAFNOSUPPORT
    looks = [(0x15, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    program = [(0x20, 0, 0, 0), (0x15, 0, len(looks) + 2, call), (0x20, 0, 0, 16), *looks, refused, granted]
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(filters)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, header, 0, 0):  # no_new_privs, seccomp
        raise OSError(ctypes.get_errno(), "prctl")


class UnderItsUnit(unittest.TestCase):
    """The unit once forbade netlink, which tells the addresses of the host, and weir did not start under it."""

    def ends(self, families, *flags):
        """How weir ends with these sockets, and what it says: SIGTERM comes as soon as it listens."""
        numbers = [getattr(socket, family) for family in families]
        argv = [BIN, "--listen", f"127.0.0.1:{free_port()}", "--upstream", f"127.0.0.1:{free_port()}", *flags]
        child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: only_families(numbers))
        said = []
        for line in child.stderr:
            said.append(line)
            if " listens on " in line:
                child.send_signal(signal.SIGTERM)
        child.stderr.close()
        return child.wait(timeout=20), "".join(said)

    def test_the_families_of_the_unit_suffice(self):
        with open(UNIT) as unit:
            families = re.search(r"^RestrictAddressFamilies=(.*)$", unit.read(), re.M).group(1).split()
        for flags in ([], ["--identity", "proxy-v2"]):
            code, said = self.ends(families, *flags)
            self.assertEqual(code, 0, said)

    def test_what_is_missing_is_said(self):
        code, said = self.ends(["AF_INET", "AF_INET6", "AF_UNIX"], "--identity", "proxy-v2")
        self.assertEqual(code, 69, said)
        self.assertIn("AF_NETLINK", said)


class BadFlags(unittest.TestCase):
    def test_all_errors_at_once_and_nothing_opened(self):
        port = free_port()
        done = run(
            "--listen", f"127.0.0.1:{port}", "--upstream", "nonsense::::", "--max-message-size", "much", "--rate-messages", "3/fortnight",
            "--drain-timeout", "soon", "--relay-domains", "any", "--bare-newline", "maybe", "--relay-from", "10.0.0.0/99",
        )
        self.assertEqual(done.returncode, 64, done.stderr)
        for flag, value in (("--upstream", "nonsense"), ("--max-message-size", "much"), ("--rate-messages", "fortnight"), ("--drain-timeout", "soon"), ("--bare-newline", "maybe"), ("--relay-from", "10.0.0.0/99")):
            self.assertIn(flag, done.stderr)
            self.assertIn(value, done.stderr)
        self.assertNotIn("panicked", done.stderr)

    def test_single_mistakes(self):
        good = ["--listen", "127.0.0.1:2525", "--upstream", "127.0.0.1:2526", "--relay-domains", "any"]
        for extra in (
            ["--no-such-flag"], ["--listen", "nowhere"], ["--listen", "127.0.0.1:99999"], ["--shards", "0x"], ["--pool-max", "-3"],
            ["--upstream", "h:25,weight=0"], ["--upstream", "h:25,colour=red"], ["--log-format", "xml"], ["--on", "pregreet=explode"],
            ["--on", "nothing=drop"], ["--relay-domains", "@/does/not/exist"], ["--deny-list", "/does/not/exist"], ["--greet-wait", "-1s"],
            ["--max-recipients", "50"], ["--hostname", "bad host"], ["surplus"],
        ):
            with self.subTest(extra=extra):
                done = run("check", *good, *extra)
                self.assertEqual(done.returncode, 64, f"{extra}: {done.returncode}\n{done.stdout}{done.stderr}")
                self.assertTrue(done.stderr.strip())

    def test_an_open_relay_is_refused(self):
        done = run("check", "--listen", "0.0.0.0:2525", "--upstream", "127.0.0.1:2526")
        self.assertEqual(done.returncode, 64)
        self.assertIn("--relay-domains", done.stderr)
        for flags in (["--relay-domains", "any"], ["--relay-domains", "weir.test"], ["--relay-from", "10.0.0.0/8"]):
            done = run("check", "--listen", "0.0.0.0:2525", "--upstream", "127.0.0.1:2526", *flags)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_nothing_at_all(self):
        done = run()
        self.assertEqual(done.returncode, 64)
        self.assertIn("--upstream", done.stderr)

    def test_a_port_in_use(self):
        port = free_port()
        import socket

        with socket.socket() as other:
            other.bind(("127.0.0.1", port))
            other.listen()
            done = run("--listen", f"127.0.0.1:{port}", "--upstream", "127.0.0.1:1", "--relay-domains", "any")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(str(port), done.stderr)


class Talk(unittest.TestCase):
    def test_help_is_grouped(self):
        done = run("--help")
        self.assertEqual(done.returncode, 0)
        for flag in (
            "--listen", "--upstream", "--relay-domains", "--relay-from", "--hostname", "--shards", "--admin", "--pool-max", "--max-connections",
            "--max-message-size", "--max-recipients", "--max-messages", "--client-concurrency", "--rate-connections", "--rate-messages",
            "--rate-recipients", "--greet-wait", "--bare-newline", "--log-format", "--drain-timeout", "--steer", "--pit-max", "--allow-list", "--deny-list",
        ):
            self.assertIn(flag, done.stdout)
        self.assertGreaterEqual(len(re.findall(r"^\S.*:$", done.stdout, re.M)), 4, "headings")
        self.assertIn("WEIR_LISTEN", done.stdout)

    def test_version(self):
        self.assertRegex(run("--version").stdout, r"weir \d+\.\d+\.\d+")

    def test_check_prints_the_plan(self):
        done = run("check", "--listen", "127.0.0.1:2525", "--upstream", "127.0.0.1:2526", "--relay-domains", "weir.test", "--shards", 2)
        self.assertEqual(done.returncode, 0, done.stderr)
        for word in ("multiplexed", "shards", "memory"):
            self.assertIn(word, done.stdout.lower())

    def test_doctor(self):
        done = run("doctor")
        self.assertIn(done.returncode, (0, 1, 69, 78), done.stderr)
        for word in ("kernel", "io_uring", "locked memory", "open files", "somaxconn", "local ports", "cores"):
            self.assertIn(word, done.stdout.lower() + done.stderr.lower())

    def test_environment_and_argument_file(self):
        done = run("check", "--relay-domains", "any", env={"WEIR_LISTEN": "127.0.0.1:2599", "WEIR_UPSTREAM": "127.0.0.1:2598"})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("2599", done.stdout)
        self.assertIn("2598", done.stdout)
        path = f"/tmp/weir-e2e-{os.getpid()}.flags"
        with open(path, "w") as file:
            file.write("# a file of flags\n--listen 127.0.0.1:2597\n--upstream=127.0.0.1:2596\n--relay-domains=any\n")
        try:
            done = run("check", f"@{path}")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("2597", done.stdout)
        finally:
            os.unlink(path)


class Demo(Case):
    def test_the_first_minute(self):
        # The demo has fixed ports; --listen and --admin move them.
        port, admin = free_port(), free_port()
        demo = self.process([BIN, "--demo", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"], "demo")
        wait_listening(port)
        wait_until(lambda: "swaks" in demo.log(), "the demo to say what to try")
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            client.sendmail("me@demo.test", ["you@demo.test"], message("demo-message"))
        wait_until(lambda: "demo-message" in demo.log(), "the sink to show what arrived", 10)
        demo.signal(signal.SIGTERM)
        self.assertEqual(demo.wait(10), 0)

    def test_without_any_flag(self):
        import socket

        for port in (2525, 9025):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    self.skipTest(f"port {port} is taken here")
        demo = self.process([BIN, "--demo"], "demo")
        wait_listening(2525)
        wait_listening(9025)
        with Client(2525, hello="c.test") as client:
            self.assertEqual(client.data(message("plain-demo")).code, 250)
        demo.signal(signal.SIGINT)
        self.assertEqual(demo.wait(10), 0)


if __name__ == "__main__":
    unittest.main()
