"""weir in the path: a client host, a router that runs weir, a server host with a real Postfix, each a network namespace."""

import asyncio
import glob
import json
import os
import re
import shutil
import signal
import smtplib
import ssl
import sys
import tempfile
import threading
import time
import unittest

import netlab
from netlab import inside
from servers import DovecotAuth, Postfix, program
from weirtest import BIN, Case, Client, Closed, Process, Weir, first_difference, message, wait_listening, wait_until

IDENTITY = ("--identity", "transparent", "--transparent-mark", "0x7702")
FROM_CLIENTS = ("--clients-if", "r0")


def body(tag, size=0):
    """As `message`, but with what servers insist on, so that they add nothing of their own."""
    head = f"Subject: {tag}\r\nFrom: a@client.test\r\nTo: b@weir.test\r\nDate: Mon, 02 Jan 2006 15:04:05 +0000\r\nMessage-ID: <{tag}@client.test>\r\n"
    return head.encode() + message(tag, size).partition(b"\r\n")[2]


class OnRouter(Weir):
    """weir on the router (or another host); its admin page is asked there."""

    def __init__(self, host, *flags, **options):
        self.host, self.flags = host, flags
        with inside(host):
            super().__init__(*flags, listen=["0.0.0.0:{port}", "[::]:{port}"], relay=False, **options)

    def get(self, path):
        with inside(self.host):
            return super().get(path)

    def again(self):
        """The same weir once more: its ports are what the rules know."""
        return OnRouter(self.host, *self.flags, port=self.port, folder=os.path.dirname(self.log_path))


class Hosts:
    """What lives as long as a class of tests: the hosts, and Postfix on one of them."""

    def __init__(self, case_class):
        self.lab = netlab.needed(case_class)
        self.postfix = None
        if case_class.has_postfix:
            self.start_postfix(case_class)

    def start_postfix(self, case_class):
        self.folder = tempfile.mkdtemp(prefix="weir-e2e-net-")
        os.chmod(self.folder, 0o755)
        case_class.addClassCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.case_class = case_class
        certificates(self.folder)
        with inside(self.lab.server):
            door = DovecotAuth("somebody", "open sesame")
            case_class.addClassCleanup(door.stop)
            self.postfix = Postfix(
                self,
                addresses=("127.0.0.1", self.lab.SERVER4, self.lab.SERVER6),
                mynetworks="",
                smtpd_peername_lookup="no",
                smtpd_tls_security_level="may",
                smtpd_tls_chain_files=f"{self.folder}/postfix.pem",
                smtpd_sasl_auth_enable="yes",
                smtpd_sasl_type="dovecot",
                smtpd_sasl_path=f"inet:127.0.0.1:{door.port}",
                smtpd_relay_restrictions="permit_sasl_authenticated, reject_unauth_destination",
                smtpd_client_connection_rate_limit="0",
                default_process_limit="200",
            )

    def process(self, argv, name, **options):
        process = Process(argv, self.folder, name, **options)
        self.case_class.addClassCleanup(process.stop)
        return process


def certificates(folder):
    """A CA; by it a certificate for Postfix, and one for weir."""
    path = lambda name: os.path.join(folder, name)

    def openssl(*words):
        netlab.run(program("openssl"), *words)

    new = ("-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    openssl("req", "-x509", *new, "-days", "2", "-subj", "/CN=test CA", "-keyout", path("ca.key"), "-out", path("ca.pem"))
    for name in ("postfix", "weir"):
        openssl("req", *new, "-subj", f"/CN={name}.test", "-addext", f"subjectAltName=DNS:{name}.test", "-keyout", path(f"{name}.key"), "-out", path("csr"))
        openssl(
            "x509", "-req", "-in", path("csr"), "-CA", path("ca.pem"), "-CAkey", path("ca.key"), "-CAcreateserial",
            "-days", "2", "-copy_extensions", "copy", "-out", path(f"{name}.crt"),
        )
        with open(path(f"{name}.pem"), "w") as file:
            for part in ("key", "crt"):
                with open(path(f"{name}.{part}")) as source:
                    file.write(source.read())


class Transparent(Case):
    has_postfix = True

    @classmethod
    def setUpClass(cls):
        cls.hosts = Hosts(cls)
        cls.lab, cls.postfix = cls.hosts.lab, cls.hosts.postfix

    def setUp(self):
        super().setUp()
        if not self.has_postfix:
            return
        for path in glob.glob(os.path.join(self.postfix.box, "all", "new", "*")):
            os.unlink(path)
        self.log_start = len(self.postfix.log())

    def postfix_log(self):
        """What Postfix logged during this test."""
        return self.postfix.log()[self.log_start :]

    def weir(self, *flags, host=None, **options):
        weir = OnRouter(host or self.lab.router, *flags, folder=self.folder, **options)
        self.weirs.append(weir)
        self.addCleanup(self._end, weir)
        return weir

    def rules(self, *options, host=None):
        """The rules that this test goes by, and none after it."""
        self.addCleanup(self.lab.rules, "down", where=host)
        return self.lab.rules("up", *options, where=host).stdout

    def intercept(self, *flags, rules=FROM_CLIENTS, way="tproxy", identity=IDENTITY, **options):
        weir = self.weir("--transparent", way, *identity, *flags, **options)
        self.rules(*rules, "--listen-port", weir.port, "--flavour", way)
        return weir

    def client(self, host=None, port=25, **options):
        with inside(self.lab.client):
            return Client(port, host=host or self.lab.SERVER4, **options)

    def swaks(self, *options):
        with inside(self.lab.client):
            return netlab.run(program("swaks"), "--from", "a@client.test", "--to", "b@weir.test", *options, check=False, timeout=60)

    def delivered(self, count):
        wait_until(lambda: len(self.postfix.messages()) >= count, f"{count} messages in the mailbox", 40, 0.2)
        found = self.postfix.messages()
        self.assertEqual(len(found), count)
        return found

    def assert_seen(self, address):
        """Postfix heard it from the client's own address, and from nobody else's."""
        wait_until(lambda: f": connect from unknown[{address}]" in self.postfix_log(), f"{address} in Postfix's log")
        others = set(re.findall(r": connect from \S+\[([^]]+)\]", self.postfix_log())) - {address, "127.0.0.1", "::1"}
        self.assertEqual(others, set())


class Mail(Transparent):
    def setUp(self):
        super().setUp()
        self.sent = body("whole", 200_000)
        self.path = os.path.join(self.folder, "whole.eml")
        with open(self.path, "wb") as file:
            file.write(self.sent.replace(b"\r\n", b"\n"))

    def test_swaks_byte_for_byte(self):
        # IPv6 it speaks only with a Perl module that few have.
        self.compare(lambda server: self.swaks("--server", server, "--data", f"@{self.path}"), 1, families=1)

    def test_smtp_source_byte_for_byte(self):
        def source(server):
            server = f"[{server}]" if ":" in server else server
            flags = ("-F", self.path, "-m", 20, "-s", 5, "-f", "a@client.test", "-t", "b@weir.test")
            with inside(self.lab.client):
                return netlab.run(program("smtp-source"), *flags, f"inet:{server}:25", timeout=60)

        self.compare(source, 20)

    def compare(self, send, count, families=2):
        """What arrives through weir is what arrives without it: the programs add an empty line of their own."""
        send(self.lab.SERVER4)
        direct = self.delivered(count)[0]
        self.assertTrue(direct.startswith(self.sent), first_difference(direct, self.sent))
        weir = self.intercept()
        pairs = ((self.lab.SERVER4, self.lab.CLIENT4), (self.lab.SERVER6, self.lab.CLIENT6))[:families]
        for number, (server, client) in enumerate(pairs, start=2):
            self.log_start = len(self.postfix.log())
            done = send(server)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            for one in self.delivered(number * count):
                self.assertTrue(one == direct, first_difference(one, direct))
            self.assert_seen(client)
        self.assertEqual(weir.metric("weir_messages_total", outcome="accepted"), families * count)

    def test_redirect(self):
        self.intercept(way="redirect")
        for number, (server, client) in enumerate(((self.lab.SERVER4, self.lab.CLIENT4), (self.lab.SERVER6, self.lab.CLIENT6))):
            self.log_start = len(self.postfix.log())
            with self.client(server, hello="client.test") as session:
                self.assertEqual(session.data(body("redirect", 100_000)).code, 250)
                session.quit()
            self.assertEqual(self.delivered(number + 1)[number], body("redirect", 100_000))
            self.assert_seen(client)

    def test_without_the_clients_address_the_server_sees_the_router(self):
        self.intercept("--relay-domains", "weir.test", identity=())
        with self.client(hello="client.test") as session:
            self.assertEqual(session.data(body("router")).code, 250)
            session.expect(250, "MAIL FROM:<a@client.test>")
            self.assertEqual(session.command("RCPT TO:<x@elsewhere.example>").code, 550)
        self.assert_seen("10.91.2.1")

    def test_by_destination(self):
        self.intercept(rules=("--servers", f"{self.lab.SERVER4},{self.lab.SERVER6}"))
        with self.client(hello="client.test") as session:
            self.assertEqual(session.data(body("inbound")).code, 250)
        self.assert_seen(self.lab.CLIENT4)
        weir = self.weirs[0]
        before = weir.metric("weir_sessions_accepted_total")
        with self.assertRaises(OSError):
            self.client(self.lab.SECOND4, patience=3)  # not one of these servers: nobody is there, and weir is not asked
        self.assertEqual(weir.metric("weir_sessions_accepted_total"), before)

    def test_exceptions_go_past_weir(self):
        weir = self.intercept(rules=(*FROM_CLIENTS, "--except", f"10.91.65.0/24,{self.lab.SERVER6}"))
        for host, source in ((self.lab.SERVER4, "10.91.65.7"), (self.lab.SERVER6, None)):
            with self.client(host, source=source, hello="client.test") as session:
                session.quit()
        self.assertEqual(weir.metric("weir_sessions_accepted_total"), 0)
        with self.client(source="10.91.64.7", hello="client.test") as session:
            session.quit()
        self.assertEqual(weir.metric("weir_sessions_accepted_total"), 1)


class Tls(Transparent):
    """Whose TLS it is."""

    def context(self):
        return ssl.create_default_context(cafile=os.path.join(self.hosts.folder, "ca.pem"))

    def smtp(self, name, host=None, source=None):
        """smtplib after STARTTLS, its peer's certificate checked for that name."""
        client = smtplib.SMTP(timeout=30)
        with inside(self.lab.client):
            client.connect(host or self.lab.SERVER4, 25)
        self.addCleanup(client.close)
        client._host = name
        client.starttls(context=self.context())
        return client

    def test_a_tunnel_leaves_it_to_client_and_server(self):
        weir = self.intercept()
        sent = body("tunnel", 2_000_000)
        for server in (self.lab.SERVER4, self.lab.SERVER6):
            client = self.smtp("postfix.test", server)
            client.sendmail("a@client.test", ["b@weir.test"], sent)
            client.quit()
        for one in self.delivered(2):
            self.assertTrue(one == sent, first_difference(one, sent))
        wait_until(lambda: weir.metric("weir_tunnels") == 0, "the tunnels to end")
        self.assertIn(f"connect from unknown[{self.lab.CLIENT4}]", self.postfix_log())
        done = self.swaks("--server", self.lab.SERVER4, "--tls", "--tls-verify", "--tls-ca-path", os.path.join(self.hosts.folder, "ca.pem"), "--body", "x")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.delivered(3)

    def test_weir_terminates_where_it_has_the_certificate(self):
        folder = self.hosts.folder
        self.intercept("--transparent-starttls", "terminate", "--tls-cert", f"{folder}/weir.crt", "--tls-key", f"{folder}/weir.key")
        client = self.smtp("weir.test")
        client.sendmail("a@client.test", ["b@weir.test"], body("terminate", 200_000))
        client.quit()
        self.assertEqual(self.delivered(1), [body("terminate", 200_000)])
        self.assert_seen(self.lab.CLIENT4)

    def test_refused_starttls_is_offered_all_the_same(self):
        self.intercept("--transparent-starttls", "refuse")
        with self.client() as session:
            self.assertIn(b"STARTTLS", session.hello().text)
            self.assertEqual(session.command("STARTTLS").code, 454)
            self.assertEqual(session.data(body("refuse")).code, 250)

    def test_auth_is_the_servers_plain_and_in_a_tunnel(self):
        self.intercept()
        with inside(self.lab.client):
            plain = smtplib.SMTP(self.lab.SERVER4, 25, timeout=30)
        for client in (plain, self.smtp("postfix.test")):
            with self.assertRaises(smtplib.SMTPAuthenticationError):
                client.login("somebody", "open barley")
            client.login("somebody", "open sesame")
            self.assertEqual(client.docmd("MAIL FROM:<a@client.test>")[0], 250)
            self.assertEqual(client.docmd("RCPT TO:<x@elsewhere.example>")[0], 250)
            client.quit()


class Failing(Transparent):
    """What becomes of mail when somebody is not there."""

    def attempts(self, seconds, until=lambda: False):
        """A message after the other, each on a connection of its own: how many were accepted, and what happened to the others."""
        accepted, lost, end = 0, [], time.monotonic() + seconds
        while time.monotonic() < end and not until():
            try:
                with self.client(hello="client.test", patience=8) as session:
                    reply = session.data(body("attempt"))
                    accepted += reply.code == 250
                    if reply.code != 250:
                        lost.append(repr(reply))
            except (OSError, Closed, AssertionError) as error:
                lost.append(repr(error))
        return accepted, lost

    def restart(self, fail):
        weir = self.intercept(rules=(*FROM_CLIENTS, "--fail", fail))
        before, lost = self.attempts(1)
        self.assertTrue(before > 0 and not lost, (before, lost))
        weir.stop()
        down = self.attempts(1)
        again = OnRouter.again(weir)
        self.weirs.append(again)
        self.addCleanup(self._end, again)
        after, lost = self.attempts(1)
        self.assertTrue(after > 0 and not lost, (after, lost))
        self.assertGreaterEqual(again.metric("weir_messages_total", outcome="accepted"), after)
        return before, down, after

    def test_fail_open_mail_goes_on_while_weir_restarts(self):
        before, (down, lost), after = self.restart("open")
        self.assertTrue(down > 0 and not lost, (down, lost))
        self.delivered(before + down + after)
        self.assert_seen(self.lab.CLIENT4)

    def test_fail_closed_nobody_gets_past_a_weir_that_is_down(self):
        before, (down, lost), after = self.restart("closed")
        self.assertEqual((down, {word for word in lost if "refused" not in word}), (0, set()))
        self.delivered(before + after)

    def test_what_was_made_past_weir_goes_on_past_it(self):
        with self.client(hello="client.test") as session:
            self.intercept()
            self.assertEqual(session.data(body("past")).code, 250)
        self.assertEqual(self.weirs[0].metric("weir_sessions_accepted_total"), 0)

    def test_under_load_a_restart_drains(self):
        weir = self.intercept()
        counted = []
        traffic = threading.Thread(target=lambda: counted.append(self.attempts(4.5)))
        traffic.start()
        for _ in range(2):
            time.sleep(1)
            weir.signal(signal.SIGTERM)
            self.assertEqual(weir.wait(), 0)
            weir = OnRouter.again(weir)
            self.weirs.append(weir)
            self.addCleanup(self._end, weir)
        traffic.join(30)
        [(accepted, lost)] = counted
        # Each time one session may hear 421, and connections that had reached the listener and were not accepted yet end with
        # it: how many depends on how quickly the client comes again.
        self.assertTrue(accepted > 10 and len(lost) <= 3 * 2, (accepted, lost))
        self.delivered(accepted)

    def test_a_server_that_is_down_costs_nobody_time(self):
        weir = self.intercept("--upstream-connect-timeout", "2s")
        with inside(self.lab.server):
            other = self.upstream(host=self.lab.SECOND4, port=25)
        silent = "10.91.2.99"  # no such host: nothing answers, not even with a reset
        for down, patience in ((self.lab.EMPTY4, 1), (silent, 4)):
            began = time.monotonic()
            for _ in range(4):
                with self.client(down, greeting=False) as session:
                    self.assertRegex(session.rest(), rb"^421 4\.4\.1 ")
                # The first may have tried; who comes after it hears at once.
                took, began = time.monotonic() - began, time.monotonic()
                self.assertLess(took, patience)
                patience = 1
                with self.client(self.lab.SECOND4, hello="client.test") as session:
                    self.assertEqual(session.data(message("other")).code, 250)
                self.assertLess(time.monotonic() - began, 1)
                began = time.monotonic()
        self.assertEqual(len(other.messages), 8)
        self.assertEqual(weir.metric("weir_destinations_dead"), 2)
        self.assertGreater(weir.metric("weir_destinations_spared_total"), 0)
        # A host that wants nothing to do with one subscriber is there for the others.
        reject = "table ip t { chain c { type filter hook input priority 0; ip saddr 10.91.64.9 tcp dport 25 reject with tcp reset; }; }"
        with inside(self.lab.server):
            netlab.run("nft", reject)
            self.addCleanup(netlab.run, "ip", "netns", "exec", self.lab.server, "nft", "delete table ip t")
        for _ in range(3):
            with self.client(self.lab.SECOND4, source="10.91.64.9", greeting=False) as session:
                self.assertRegex(session.rest(), rb"^421 4\.4\.1 ")
            with self.client(self.lab.SECOND4, source="10.91.64.8", hello="client.test") as session:
                session.quit()
        # It is back: seen after the pause.
        with inside(self.lab.server):
            self.upstream(host=self.lab.EMPTY4, port=25)

        def back():
            with self.client(self.lab.EMPTY4, greeting=False) as session:
                return session.line().startswith(b"220 ")

        wait_until(back, "the server to be used again", 30, 0.5)


class Many(Transparent):
    """Subscribers: many, and some that ask for much."""

    def test_a_thousand_subscribers_at_once(self):
        weir = self.intercept("--max-connections", "4000", files=8192)
        with inside(self.lab.server):
            server = self.process([sys.executable, os.path.abspath(__file__), "serve", self.lab.SECOND4], "server")
            wait_listening(25, self.lab.SECOND4)
        with inside(self.lab.client):
            sources = [f"10.91.{64 + number // 250}.{1 + number % 250}" for number in range(1000)]
            results = asyncio.run(subscribers(sources, self.lab.SECOND4))
        self.assertEqual([result for result in results if result != "250"], [])
        self.assertEqual(weir.metric("weir_messages_total", outcome="accepted"), 1000)
        self.assertEqual(weir.metric("weir_findings_total", finding="intercept-loop"), 0)
        server.signal(signal.SIGTERM)
        server.wait()
        # By the server's own count: who was connected at the same time, and from where.
        [told] = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")] or [server.log()]
        self.assertEqual((told["most"], sorted(peer for peer in told["peers"] if peer.startswith("10.91.6"))), (1000, sorted(sources)))

    def test_limits_count_by_prefix(self):
        self.intercept("--client-prefix", "24/64", "--client-concurrency", "3")
        held = [self.client(source=f"10.91.64.{host}") for host in (1, 2, 3)]
        with self.client(source="10.91.64.4", greeting=False) as fourth:
            self.assertRegex(fourth.rest(), rb"^421 ")
        with self.client(source="10.91.65.4", hello="client.test") as elsewhere:
            elsewhere.quit()
        held.append(self.client(self.lab.SERVER6, source="fd91:64::1"))
        for session in held:
            session.quit()
        wait_until(lambda: self.client(source="10.91.64.5", greeting=False).line().startswith(b"220"), "a place in the prefix")

    def test_connections_to_weir_itself_end(self):
        weir = self.intercept()
        for address in (self.lab.ROUTER4, "10.91.2.1", self.lab.ROUTER6):
            with self.client(address, port=weir.port, greeting=False) as session:
                self.assertRegex(session.rest(), rb"^421 4\.4\.6 ", address)
        self.assertEqual(weir.metric("weir_findings_total", finding="intercept-loop"), 3)

    def test_the_routers_own_port_is_its_own(self):
        weir = self.intercept()
        for address in (self.lab.ROUTER4, "10.91.2.1", self.lab.ROUTER6):
            with self.assertRaises(ConnectionRefusedError):
                self.client(address)
        self.assertEqual(weir.metric("weir_sessions_accepted_total"), 0)

    def test_rules_that_give_weir_its_own_connections_back(self):
        weir = self.weir("--transparent", "redirect", "--relay-domains", "any", host=self.lab.server)
        # No mark, and everything that this host sends is taken.
        self.rules("--clients-here", "--flavour", "redirect", "--listen-port", weir.port, host=self.lab.server)
        with inside(self.lab.server), Client(25, host=self.lab.CLIENT4, greeting=False) as session:
            self.assertRegex(session.rest(), rb"^421 ")
        self.assertGreater(weir.metric("weir_findings_total", finding="intercept-loop"), 0)
        self.assertLess(weir.metric("weir_sessions_accepted_total"), 300)

    def test_without_privileges(self):
        weir = self.intercept("--user", "nobody")
        for server, client in ((self.lab.SERVER4, self.lab.CLIENT4), (self.lab.SERVER6, self.lab.CLIENT6)):
            self.log_start = len(self.postfix.log())
            with self.client(server, hello="client.test") as session:
                self.assertEqual(session.data(body("nobody")).code, 250, weir.log())
                session.quit()
            self.assert_seen(client)
        self.assertIn("runs as user", weir.log())

    def test_a_busy_client_of_a_slow_host_is_no_loop(self):
        weir = self.intercept()
        with inside(self.lab.server):
            slow = self.upstream(host=self.lab.SECOND4, port=25, delay={"CONNECT": 2})
        clients = [self.client(self.lab.SECOND4, greeting=False) for _ in range(60)]
        for client in clients:
            self.assertEqual(client.reply().code, 220)
            client.close()
        self.assertEqual(slow.open_max, 60)
        self.assertEqual(weir.metric("weir_findings_total", finding="intercept-loop"), 0)


class OneHost(Transparent):
    """weir where the server is, and where clients are."""

    def test_a_server_on_this_host_sees_the_client(self):
        for way in ("tproxy", "redirect"):
            with self.subTest(way):
                self.a_server_on_this_host(way)

    def a_server_on_this_host(self, way):
        before = len(self.postfix.messages())
        rules = ("--servers", f"{self.lab.SERVER4},{self.lab.SERVER6}", "--servers-here")
        weir = self.weir("--transparent", way, *IDENTITY, host=self.lab.server)
        self.rules(*rules, "--listen-port", weir.port, "--flavour", way, host=self.lab.server)
        for server, client in ((self.lab.SERVER4, self.lab.CLIENT4), (self.lab.SERVER6, self.lab.CLIENT6)):
            self.log_start = len(self.postfix.log())
            with self.client(server, hello="client.test") as session:
                self.assertEqual(session.data(body("here", 200_000)).code, 250)
                session.quit()
            self.assert_seen(client)
        self.assertEqual(weir.metric("weir_messages_total", outcome="accepted"), 2)
        self.delivered(before + 2)

    def test_programs_of_this_host_are_clients(self):
        weir = self.weir("--transparent", "redirect", "--transparent-mark", "0x7702", "--relay-domains", "any", host=self.lab.client)
        self.rules("--clients-here", "--flavour", "redirect", "--listen-port", weir.port, host=self.lab.client)
        for server in (self.lab.SERVER4, self.lab.SERVER6):
            with self.client(server, hello="client.test") as session:
                self.assertEqual(session.data(body("local", 100_000)).code, 250)
                session.quit()
        self.assertEqual(weir.metric("weir_messages_total", outcome="accepted"), 2)
        self.delivered(2)


class Rules(Transparent):
    """The script."""

    has_postfix = False

    def state(self):
        with inside(self.lab.router):
            words = (("nft", "list", "ruleset"), ("ip", "rule"), ("ip", "-6", "rule"), ("ip", "route", "show", "table", "all"), ("ip", "-6", "route", "show", "table", "all"))
            told = "".join(netlab.run(*command).stdout for command in words)
        # Link-local addresses come by themselves, some seconds after a link is up.
        return "".join(line for line in told.splitlines(True) if "proto kernel" not in line)

    def test_applied_and_removed_as_often_as_one_likes(self):
        before = self.state()
        self.assertEqual(self.lab.rules("status", check=False).returncode, 1)
        self.rules(*FROM_CLIENTS)
        once = self.state()
        self.assertIn("0x7701", once)
        self.assertEqual(self.rules(*FROM_CLIENTS).count("ip "), 0)
        self.assertEqual(self.state(), once)
        self.assertEqual(self.lab.rules("status", check=False).returncode, 0)
        for _ in range(2):
            self.lab.rules("down")
            self.assertEqual(self.state(), before)

    def test_options_from_a_file(self):
        path = os.path.join(self.folder, "options")
        with open(path, "w") as file:
            file.write("# ours\n--clients=10.91.64.0/22,fd91:64::/64\n--ports 25,587\n--fail closed\n\n--listen-port=4025")
        self.rules("-c", path)
        state = self.state()
        for words in ("10.91.64.0/22", "fd91:64::/64", "25, 587", "reject with tcp reset", "tproxy ip6 to :4025"):
            self.assertIn(words, state)

    def test_what_is_wrong_is_told_and_nothing_is_done(self):
        before = self.state()
        for code, options in (
            (64, ("up",)),
            (64, ("up", "--clients-if")),
            (64, ("up", *FROM_CLIENTS, "--fail", "open", "--flavour", "redirect")),
            (64, ("up", *FROM_CLIENTS, "--listen-port", "smtp")),
            (64, ("up", *FROM_CLIENTS, "--own-mark", "0x7701")),
            (64, ("sideways",)),
            (1, ("up", "--clients", "10.91.300.0/22")),
            (1, ("up", *FROM_CLIENTS, "--table", "main")),
        ):
            done = self.lab.rules(*options, check=False)
            self.assertEqual((done.returncode, bool(done.stderr)), (64 if "main" in options else code, True), (options, done.stderr))
        with inside(self.lab.router):
            netlab.run("ip", "route", "add", "192.0.2.0/24", "via", self.lab.CLIENT4, "table", "7701")
            self.addCleanup(self.lab.rules, "down")
            self.assertIn("in use", self.lab.rules("up", *FROM_CLIENTS, check=False).stderr)
            netlab.run("ip", "route", "flush", "table", "7701")
        self.assertEqual(self.state(), before)


class Doctor(Transparent):
    """weir doctor --transparent on the router: what it finds, and that each remedy helps."""

    has_postfix = False

    def doctor(self, *flags):
        argv = [BIN, "doctor", "--listen", "0.0.0.0:2525", "--listen", "[::]:2525", *(flags or ("--transparent", *IDENTITY))]
        with inside(self.lab.router):
            told = netlab.run(*argv, check=False).stdout
        # Everything but what changes by the second.
        return "".join(line for line in told.splitlines(True) if "memory" not in line)

    def test_step_by_step_to_a_host_that_is_fit(self):
        with inside(self.lab.router):
            netlab.run("sysctl", "-qw", *(f"net.ipv4.conf.{name}.rp_filter=0" for name in ("all", "default", "r0", "r1")))
        bare = self.doctor()
        for words in ("WARNING  no tproxy rule for IPv4", "WARNING  no tproxy rule for IPv6", "FAILED   no packet rule knows", "ok       IP_TRANSPARENT can be set (IPv6)", "ok       the kernel knows tproxy", "weir-transparent up"):
            self.assertIn(words, bare)
        self.rules(*FROM_CLIENTS, "--listen-port", 2526)
        self.assertIn("none to --listen port 2525", self.doctor())
        self.rules(*FROM_CLIENTS)
        fit = self.doctor()
        for words in ("ok       IPv4: tproxy to port 2525", "ok       IPv6: tproxy to port 2525", "ok       IPv4: marked packets are routed", "ok       IPv6: marked packets are routed", "ok       this host forwards", "ok       rp_filter"):
            self.assertIn(words, fit)
        self.assertIn("rules of the other way", self.doctor("--transparent", "redirect", *IDENTITY))
        with inside(self.lab.router):
            netlab.run("ip", "-6", "rule", "del", "fwmark", "0x7701", "lookup", "7701")
            netlab.run("ip", "route", "flush", "table", "7701")
            netlab.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv4.conf.r0.rp_filter=1", "net.ipv4.conf.r1.src_valid_mark=1")
        sick = self.doctor()
        for words in (
            "FAILED   IPv4: table 7701 of mark 0x7701 has no local route",
            "FAILED   IPv6: no rule leads mark 0x7701 to a table",
            "WARNING  net.ipv4.ip_forward is 0",
            "WARNING  rp_filter is strict on r0",
            "FAILED   src_valid_mark is set on r1",
        ):
            self.assertIn(words, sick)
        with inside(self.lab.router):
            netlab.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.r0.rp_filter=0", "net.ipv4.conf.r1.src_valid_mark=0")
        self.rules(*FROM_CLIENTS)
        self.assertEqual(self.doctor(), fit)

    def test_redirect_and_what_this_host_sends(self):
        self.rules("--clients-here", "--flavour", "redirect")
        flags = ("--transparent", "redirect", "--relay-domains", "any")
        careless = self.doctor(*flags)
        self.assertIn("ok       IPv4: redirect to port 2525", careless)
        self.assertIn("FAILED   a packet rule takes what this host sends", careless)
        self.assertRegex(careless, r"conntrack (for \d+ connections|_max is)|nf_conntrack_max is \d+")
        self.assertNotIn("weir's own connections too", self.doctor(*flags, "--transparent-mark", "0x7702"))


async def subscribers(sources, server):
    """One session from each, all connected before the first goes on."""
    together = asyncio.Barrier(len(sources))

    async def session(source):
        reader, writer = await asyncio.open_connection(server, 25, local_addr=(source, 0))
        try:
            greeting = await reader.readline()
            await together.wait()
            for line in (b"EHLO client.test", b"MAIL FROM:<a@client.test>", b"RCPT TO:<b@weir.test>", b"DATA", message(source, 2000) + b"."):
                writer.write(line + b"\r\n")
                reply = await reader.readline()
                while reply[3:4] == b"-":
                    reply = await reader.readline()
            return reply[:3].decode() if greeting.startswith(b"220") else repr(greeting)
        finally:
            writer.close()

    async def told(source):
        try:
            return await asyncio.wait_for(session(source), 30)
        except (OSError, asyncio.TimeoutError, asyncio.BrokenBarrierError) as error:
            return f"{source}: {error!r}"

    return await asyncio.gather(*(told(source) for source in sources))


async def serve(address):
    """A mail server for thousands, which says at its end who was there."""
    peers, now, most = [], 0, 0

    async def session(reader, writer):
        nonlocal now, most
        now += 1
        most = max(most, now)
        peers.append(writer.get_extra_info("peername")[0])
        writer.write(b"220 server.test ESMTP\r\n")
        in_body = False
        while line := await reader.readline():
            if in_body and line != b".\r\n":
                continue
            said = b"354 go on" if line == b"DATA\r\n" else b"250 ok"
            in_body = line == b"DATA\r\n"
            writer.write(said + b"\r\n")
        now -= 1
        writer.close()

    server = await asyncio.start_server(session, address, 25, backlog=2048)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await over.wait()
    server.close()
    print(json.dumps({"most": most, "peers": peers}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(sys.argv[2]))
    else:
        unittest.main()
