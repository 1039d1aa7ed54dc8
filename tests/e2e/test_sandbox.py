"""What weir gives up once its ports are open, seen from outside and by calls made inside its threads; and that it still works."""

import os
import pwd
import re
import resource
import shutil
import signal
import socket
import subprocess
import unittest

import inside
from test_certificates import Certificates
from weirtest import BIN, Case, Client, Upstream, free_port, message, wait_until

IS_ROOT = os.geteuid() == 0
DENIED, NOT_PERMITTED = -13, -1
NET_RAW, IPC_LOCK, SYS_RESOURCE = 1 << 13, 1 << 14, 1 << 24
LOCKED_AMPLE = 64 << 20


def threads(pid):
    """What /proc says of each thread, by its number."""
    found = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/status") as file:
            found[int(tid)] = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return found


def kept_for_memory():
    """CAP_IPC_LOCK stays where the rings may meet a limit of locked memory that cannot be raised."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    has = int(threads(os.getpid())[os.getpid()]["CapEff"], 16)
    short = limit != resource.RLIM_INFINITY and limit < LOCKED_AMPLE and not has & SYS_RESOURCE
    return has & IPC_LOCK if short else 0


def fenced():
    """Whether the kernel here has Landlock."""
    return "Landlock with all that is used" in subprocess.run([BIN, "doctor"], capture_output=True, text=True, timeout=20).stdout


class Confined(Case):
    def setUp(self):
        super().setUp()
        if not IS_ROOT:
            self.skipTest("needs root to give it up")
        self.nobody = pwd.getpwnam("nobody")
        self.logs = self.make("log", self.nobody.pw_uid)
        self.log_file = os.path.join(self.logs, "weir.log")

    def make(self, name, uid=0):
        path = os.path.join(self.folder, name)
        os.mkdir(path, 0o755)
        os.chown(path, uid, -1)
        return path

    def write(self, folder, name, text, mode=0o644):
        """As those do who replace files: under another name first."""
        path = os.path.join(folder, name)
        with open(path + ".new", "w") as file:
            file.write(text)
        os.chmod(path + ".new", mode)
        os.rename(path + ".new", path)
        return path

    def confined(self, *flags, **options):
        return self.weir("--user", "nobody", "--log-file", self.log_file, *flags, **options)

    def logged(self):
        with open(self.log_file) as file:
            return file.read()

    def send(self, weir, upstream, tag):
        body = message(tag)
        with weir.client(hello="client.test") as client:
            self.assertEqual(client.data(body).code, 250)
            client.quit()
        self.assert_relayed(upstream, tag, body)

    def assert_given_up(self, weir, uid, kept=0):
        found = threads(weir.pid)
        self.assertGreater(len(found), 4, "shards, the log, the control thread at least")
        for status in found.values():
            name = status["Name"]
            self.assertEqual(set(status["Uid"].split()), {str(uid)}, name)
            if uid:
                self.assertEqual(set(status["Gid"].split()), {str(self.nobody.pw_gid)}, name)
                groups = {str(gid) for gid in os.getgrouplist("nobody", self.nobody.pw_gid)}
                self.assertEqual(set(status["Groups"].split()), groups, name)
            for which in ("CapEff", "CapPrm", "CapBnd"):
                self.assertEqual(int(status[which], 16), kept | kept_for_memory(), f"{name} {which}")
            for which in ("CapInh", "CapAmb"):
                self.assertEqual(int(status[which], 16), 0, f"{name} {which}")
            self.assertEqual(status["NoNewPrivs"], "1", name)

    def assert_shut_in(self, weir, outside):
        """By calls that every thread is made to do."""
        reason = inside.why_not() or (None if fenced() else "no Landlock here")
        if reason:
            self.skipTest(reason)
        for tid, status in threads(weir.pid).items():
            with inside.stopped(weir.pid, tid) as thread:
                name = status["Name"]
                hosts = thread.call(inside.OPENAT, inside.AT_FDCWD, b"/etc/hosts", os.O_RDONLY)
                self.assertGreaterEqual(hosts, 0, f"{name}: what it needs")
                self.assertEqual(thread.call(inside.CLOSE, hosts), 0)
                for path, how in ((b"/etc/shadow", os.O_RDONLY), (outside.encode(), os.O_RDONLY), (b"/tmp/x", os.O_CREAT | os.O_WRONLY), (b"/etc/hosts", os.O_WRONLY)):
                    self.assertEqual(thread.call(inside.OPENAT, inside.AT_FDCWD, path, how, 0o600), DENIED, f"{name} opens {path}")
                self.assertEqual(thread.call(inside.EXECVE, b"/bin/true", 0, 0), DENIED, name)
                if status["Uid"].split()[0] != "0":
                    self.assertEqual(thread.call(inside.SETRESUID, 0, 0, 0), NOT_PERMITTED, name)
                self.assertEqual(thread.call(inside.KILL, os.getpid(), 0), NOT_PERMITTED, name)
                self.assertEqual(thread.call(inside.SOCKET, socket.AF_PACKET, socket.SOCK_RAW, 0), NOT_PERMITTED, name)


class Nobody(Confined):
    def test_every_thread_has_given_up_everything(self):
        outside = self.write(self.make("outside"), "file", "for all to read")
        upstream = self.upstream()
        weir = self.confined("--upstream", "localhost:1", upstreams=[upstream])
        self.send(weir, upstream, "before")
        self.assert_given_up(weir, self.nobody.pw_uid)
        self.assert_shut_in(weir, outside)
        self.send(weir, upstream, "after")

    def test_the_sink_of_the_demo_too(self):
        port, admin = free_port(), free_port()
        argv = [BIN, "--demo", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", "--user", "nobody"]
        demo = self.process(argv, "demo")
        wait_until(lambda: "swaks" in demo.log(), "the demo to say what to try")
        with Client(port, hello="c.test") as client:
            self.assertEqual(client.data(message("demo")).code, 250)
            self.assertIn("weir-sink", {status["Name"] for status in threads(demo.pid).values()})
            self.assert_given_up(demo, self.nobody.pw_uid)
            self.assert_shut_in(demo, self.write(self.make("outside"), "file", "for all to read"))
        demo.signal(signal.SIGTERM)
        self.assertEqual(demo.wait(10), 0)

    def test_privileged_ports(self):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.29", 25))
            except OSError as error:
                self.skipTest(f"127.0.0.29:25: {error}")
        upstream = self.upstream()
        self.confined(upstreams=[upstream], listen=["127.0.0.29:25"])
        with Client(25, host="127.0.0.29", hello="c.test") as client:
            self.assertEqual(client.data(message("low")).code, 250)

    def test_many_shards_fit_an_ordinary_users_limits(self):
        upstream = self.upstream()
        weir = self.confined(upstreams=[upstream], shards=8)
        self.send(weir, upstream, "eight")

    def test_lists_are_read_again(self):
        lists, outside = self.make("lists"), self.make("outside")
        deny = self.write(lists, "deny", "127.0.20.0/24\n")
        weir = self.confined("--deny-list", deny, upstreams=[self.upstream()])

        def greeting(source):
            with Client(weir.port, source=source) as client:
                return client.greeting.code

        self.assertEqual((greeting("127.0.20.1"), greeting("127.0.21.1")), (521, 220))
        self.write(lists, "deny", "127.0.21.0/24\n")
        weir.signal(signal.SIGHUP)
        wait_until(lambda: greeting("127.0.21.1") == 521, "the new list")
        # A link to where weir has no business is not followed, whoever may read there.
        elsewhere = self.write(outside, "deny", "127.0.22.0/24\n")
        os.unlink(deny)
        os.symlink(elsewhere, deny)
        if fenced():
            weir.signal(signal.SIGHUP)
            wait_until(lambda: "cannot be read: Permission denied" in self.logged(), "the reload to fail")
            self.assertEqual((greeting("127.0.21.1"), greeting("127.0.22.1")), (521, 220))

    def test_the_log_is_opened_again_after_rotation(self):
        upstream = self.upstream()
        weir = self.confined(upstreams=[upstream])
        self.send(weir, upstream, "first")
        wait_until(lambda: "b@weir.test" in self.logged(), "the line")
        os.rename(self.log_file, self.log_file + ".1")
        weir.signal(signal.SIGHUP)
        wait_until(lambda: os.path.exists(self.log_file), "the new file")
        self.send(weir, upstream, "second")
        wait_until(lambda: "b@weir.test" in self.logged(), "the line in the new file")
        self.assertEqual(os.stat(self.log_file).st_uid, self.nobody.pw_uid)

    def test_the_admin_page_knows_the_process(self):
        weir = self.confined(upstreams=[self.upstream()])
        self.assertEqual(weir.status()["state"], "running")
        for name in ("process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds"):
            self.assertGreater(weir.metric(name), 0, name)

    def test_names_are_looked_up(self):
        upstream = self.upstream()
        weir = self.confined("--resolve-interval", "1s", upstreams=[f"localhost:{upstream.port}"])
        self.send(weir, upstream, "by-name")


class Renewed(Confined, Certificates):
    """Certificates as certbot keeps them: links in one folder to numbered files in another."""

    def issue(self, number):
        certificate, key, shown = self.pair(f"mx{number}", "weir.test", into=self.archive)
        os.chown(key, -1, self.nobody.pw_gid)
        os.chmod(key, 0o640)
        for end, target in (("crt", certificate), ("key", key)):
            link = os.path.join(self.live, f"mx.{end}")
            os.symlink(os.path.relpath(target, self.live), link + ".new")
            os.rename(link + ".new", link)
        return shown

    def setUp(self):
        super().setUp()
        self.archive, self.live = self.make("archive"), self.make("live")

    def renew(self, *flags):
        first = self.issue(1)
        weir = self.confined(*flags, upstreams=[self.upstream()])
        self.assertEqual(self.shown(weir), first)
        second = self.issue(2)
        weir.signal(signal.SIGHUP)
        self.wait_shown(weir, second)
        self.assertEqual(weir.metric("weir_tls_reload_failing"), 0)

    def test_named_by_their_links(self):
        self.renew("--tls-cert", os.path.join(self.live, "mx.crt"), "--tls-key", os.path.join(self.live, "mx.key"))

    def test_in_a_folder_of_links(self):
        self.renew("--tls-dir", self.live)

    def test_a_key_that_is_roots_own(self):
        self.issue(1)
        os.chmod(os.path.join(self.archive, "mx1.key"), 0o600)
        argv = [BIN, "--listen", f"127.0.0.1:{free_port()}", "--upstream", "127.0.0.1:1", "--user", "nobody", "--tls-dir", self.live]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
        self.assertEqual(done.returncode, 69, done.stderr)
        self.assertIn("mx.key: cannot be read as nobody", done.stderr)


class Managed(Confined):
    def test_as_the_unit_starts_it(self):
        # An ordinary user with one capability for the ports, which goes with them.
        if not shutil.which("setpriv"):
            self.skipTest("no setpriv (util-linux)")
        upstream, admin = self.upstream(), free_port()
        binary = os.path.join(self.folder, "weir")
        shutil.copy(BIN, binary)
        argv = ["setpriv", "--reuid", "nobody", "--regid", str(self.nobody.pw_gid), "--clear-groups", "--no-new-privs"]
        argv += ["--inh-caps", "-all,+net_bind_service", "--ambient-caps", "-all,+net_bind_service", "--bounding-set", "-all,+net_bind_service"]
        argv += [binary, "--listen", "127.0.0.31:25", "--admin", f"127.0.0.1:{admin}", "--upstream", f"127.0.0.1:{upstream.port}", "--relay-domains", "any"]
        weir = self.process([*argv, "--relay-test", "no", "--log-file", self.log_file, "--shards", "1"], "managed")
        wait_until(lambda: "listens on" in (self.logged() if os.path.exists(self.log_file) else weir.log()), "weir to listen")
        body = message("managed")
        with Client(25, host="127.0.0.31", hello="c.test") as client:
            self.assertEqual(client.data(body).code, 250)
        self.assert_relayed(upstream, "managed", body)
        for status in threads(weir.pid).values():
            for which in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
                self.assertEqual(int(status[which], 16), 0, f"{status['Name']} {which}")
            self.assertEqual(status["NoNewPrivs"], "1", status["Name"])


class Seeing(Upstream):
    """Remembers who connects."""

    def __init__(self):
        self.peers = set()
        super().__init__()

    def _serve(self, sock):
        self.peers.add(sock.getpeername()[0])
        super()._serve(sock)


class Kept(Confined):
    def test_foreign_addresses_keep_one_capability(self):
        for flags in (["--identity", "transparent"], ["--transparent-mark", "7"]):
            with self.subTest(flags):
                weir = self.confined(*flags, upstreams=[self.upstream()])
                self.assert_given_up(weir, self.nobody.pw_uid, NET_RAW)

    def test_the_one_kept_is_enough(self):
        # From the client's address, with a mark: IP_TRANSPARENT and SO_MARK.
        upstream = Seeing()
        self.addCleanup(upstream.stop)
        weir = self.confined("--identity", "transparent", "--transparent-mark", "7", upstreams=[upstream])
        with Client(weir.port, source="127.0.0.50", hello="c.test") as client:
            self.assertEqual(client.data(message("seen")).code, 250)
        self.assertIn("127.0.0.50", upstream.peers)

    def test_root_is_shut_in_and_warned_of(self):
        upstream = self.upstream()
        weir = self.weir(upstreams=[upstream])
        self.assert_given_up(weir, 0)
        self.assertIn("weir keeps running as root", weir.log())
        self.send(weir, upstream, "root")
        self.assert_shut_in(weir, self.write(self.make("outside"), "file", "for all to read"))

    def test_without_a_sandbox_only_the_user_changes(self):
        weir = self.confined("--sandbox", "no", upstreams=[self.upstream()])
        for status in threads(weir.pid).values():
            self.assertEqual(set(status["Uid"].split()), {str(self.nobody.pw_uid)}, status["Name"])
            self.assertEqual((int(status["CapEff"], 16), status["NoNewPrivs"]), (kept_for_memory(), "0"), status["Name"])
        plain = self.weir("--sandbox", "no", upstreams=[self.upstream()])
        own = {status["CapEff"] for status in threads(os.getpid()).values()}
        self.assertEqual({status["CapEff"] for status in threads(plain.pid).values()}, own)


class Refused(Confined):
    def run_weir(self, *flags, binary=BIN, uid=None, listen=None, locked=None):
        argv = [binary, "--listen", listen or f"127.0.0.1:{free_port()}", "--upstream", "127.0.0.1:1", *flags]

        def become():
            if locked:
                resource.setrlimit(resource.RLIMIT_MEMLOCK, (locked, locked))
            if uid:
                os.setresuid(uid, uid, uid)

        return subprocess.run(argv, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL, preexec_fn=become)

    def by_nobody(self, *flags, **options):
        binary = os.path.join(self.folder, "weir")
        if not os.path.exists(binary):
            shutil.copy(BIN, binary)
        return self.run_weir(*flags, binary=binary, uid=self.nobody.pw_uid, **options)

    def assert_refused(self, done, code, *words):
        self.assertEqual(done.returncode, code, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_unknown_users(self):
        for user in ("no-such-user", "root"):
            self.assert_refused(self.run_weir("--user", user), 64, "--user", user)

    def test_a_change_of_user_without_the_right_to(self):
        self.assert_refused(self.by_nobody("--user", "daemon"), 69, "--user daemon", "start weir as root", "User=")

    def test_a_privileged_port(self):
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
            if int(file.read()) <= 25:
                self.skipTest("port 25 is for everybody here")
        self.assert_refused(self.by_nobody(listen="127.0.0.1:25"), 69, "127.0.0.1:25", "CAP_NET_BIND_SERVICE", "--user")

    def test_foreign_addresses_without_the_right_to(self):
        self.assert_refused(self.by_nobody("--identity", "transparent"), 69, "CAP_NET_RAW", "CAP_NET_ADMIN", "AmbientCapabilities")

    def test_locked_memory_that_does_not_suffice(self):
        # One executor fits, its ring does not; or not even that. Neither is waited for.
        release = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])
        if release < (6, 14):
            self.skipTest("this kernel does not count rings")
        for locked in (256 << 10, 1 << 20, 3 << 19):
            with self.subTest(locked):
                self.assert_refused(self.by_nobody("--shards", "2", locked=locked), 69, "locked memory", "LimitMEMLOCK=", "--shards")

    def test_a_list_that_could_not_be_read_again(self):
        deny = self.write(self.make("lists"), "deny", "192.0.2.0/24\n", mode=0o600)
        self.assert_refused(self.run_weir("--user", "nobody", "--deny-list", deny), 69, "--deny-list", deny, "nobody", "readable")

    def test_a_log_that_is_not_its_own(self):
        path = os.path.join(self.make("roots"), "weir.log")
        self.assert_refused(self.run_weir("--user", "nobody", "--log-file", path), 69, path, "Permission denied")

    def test_the_plan_and_the_doctor_tell(self):
        argv = [BIN, "check", "--listen", "127.0.0.1:25", "--upstream", "127.0.0.1:1", "--user", "nobody", "--log-file", self.log_file]
        plan = subprocess.run(argv, capture_output=True, text=True, timeout=20).stdout
        self.assertRegex(plan, rf"sandbox +runs as nobody \(uid {self.nobody.pw_uid}\); keeps no capability")
        self.assertRegex(plan, r"(?m)^ +reads .*/etc .*$")
        self.assertRegex(plan, rf"(?m)^ +writes {re.escape(self.logs)}$")
        doctor = subprocess.run([BIN, "doctor", "--user", "nobody"], capture_output=True, text=True, timeout=20).stdout
        self.assertIn(f"weir runs as user {self.nobody.pw_uid}", doctor)
        self.assertIn("Landlock", doctor)


if __name__ == "__main__":
    unittest.main()
