"""weir in the path: a client host, a router that runs weir, a server host with a real Postfix, each a network namespace."""

import glob
import os
import re
import shutil
import smtplib
import ssl
import subprocess
import tempfile
import time
import unittest

import netlab
from netlab import inside
from servers import DovecotAuth, Postfix, program
from weirtest import Case, Client, Closed, Process, Upstream, Weir, first_difference, message, wait_until

IDENTITY = ("--identity", "transparent", "--transparent-mark", "0x7702")
FROM_CLIENTS = ("--clients-if", "r0")


def body(tag, size=0):
    """As `message`, but with what servers insist on, so that they add nothing of their own."""
    head = f"Subject: {tag}\r\nFrom: a@client.test\r\nTo: b@weir.test\r\nDate: Mon, 02 Jan 2006 15:04:05 +0000\r\nMessage-ID: <{tag}@client.test>\r\n"
    return head.encode() + message(tag, size).partition(b"\r\n")[2]


class OnRouter(Weir):
    """weir on the router (or another host); its admin page is asked there."""

    def __init__(self, host, *flags, **options):
        self.host = host
        with inside(host):
            super().__init__(*flags, listen=["0.0.0.0:{port}", "[::]:{port}"], relay=False, **options)

    def get(self, path):
        with inside(self.host):
            return super().get(path)


class Hosts:
    """What lives as long as a class of tests: the hosts, and Postfix on one of them."""

    def __init__(self, case_class):
        self.lab = netlab.needed(case_class)
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
    @classmethod
    def setUpClass(cls):
        cls.hosts = Hosts(cls)
        cls.lab, cls.postfix = cls.hosts.lab, cls.hosts.postfix

    def setUp(self):
        super().setUp()
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

    def intercept(self, *flags, rules=FROM_CLIENTS, way="tproxy", identity=IDENTITY):
        weir = self.weir("--transparent", way, *identity, *flags)
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
        wait_until(lambda: f"connect from unknown[{address}]" in self.postfix_log(), f"{address} in Postfix's log")
        others = set(re.findall(r"connect from \S+\[([^]]+)\]", self.postfix_log())) - {address, "127.0.0.1", "::1"}
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


if __name__ == "__main__":
    unittest.main()
