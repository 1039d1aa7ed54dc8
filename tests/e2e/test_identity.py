"""Whom a real mail server sees behind weir: PROXY headers and XCLIENT to Postfix's smtpd and postscreen, AUTH passed through."""

import base64
import os
import smtplib
import ssl
import subprocess
import unittest

from servers import DovecotAuth, Postfix, program
from weirtest import Case, first_difference, message, wait_until

RELAY = "permit_mynetworks, reject_unauth_destination"
BODY = (
    b"Subject: identity\r\nFrom: a@client.test\r\nTo: b@weir.test\r\nDate: Mon, 02 Jan 2006 15:04:05 +0000\r\n"
    b"Message-ID: <identity@client.test>\r\n"
)


def body(size=0):
    return BODY + message("identity", size).partition(b"\r\n")[2]


class Identity(Case):
    """One dialogue through each way of telling a server who the client is."""

    def deliver(self, weir, source, size=0):
        with weir.client(source=source, hello="client.test") as client:
            reply = client.data(body(size))
            self.assertEqual(reply.code, 250, f"{reply}\n{weir.log()[-1500:]}")
            client.quit()

    def seen(self, postfix, source, helo="client.test"):
        """The server's log and the message's Received field name the client itself."""
        wait_until(lambda: postfix.messages(), "a message in the mailbox", 30, 0.2)
        wait_until(lambda: f"[{source}]" in postfix.log(), f"{source} in Postfix's log")
        raw = postfix.delivered()
        self.assertTrue(any(f"from {helo} (".encode() in one and f"[{source}]".encode() in one for one in raw), raw)

    def proxied(self, identity):
        postfix = Postfix(self, smtpd_upstream_proxy_protocol="haproxy", smtpd_upstream_proxy_timeout="5s", mynetworks="127.0.0.9/32", smtpd_relay_restrictions=RELAY)
        weir = self.weir("--identity", identity, upstreams=[postfix], relay=False)
        self.assertEqual(weir.status()["mode"], "dedicated")
        self.deliver(weir, "127.0.0.7", 200_000)
        self.seen(postfix, "127.0.0.7")
        self.assertEqual(weir.metric("weir_upstream_probes_total", result="failed"), 0, "probes speak PROXY too")
        self.assertNotIn("proxy protocol error", postfix.log().lower())
        # Who may relay is the server's to decide, by the client's own address.
        for source, code in (("127.0.0.7", 554), ("127.0.0.9", 250)):
            with weir.client(source=source, hello="client.test") as client:
                client.expect(250, "MAIL FROM:<a@client.test>")
                self.assertEqual(client.command("RCPT TO:<x@elsewhere.example>").code, code, source)

    def test_proxy_v1(self):
        self.proxied("proxy-v1")

    def test_proxy_v2(self):
        self.proxied("proxy-v2")

    def test_xclient(self):
        postfix = Postfix(self, smtpd_authorized_xclient_hosts="127.0.0.1", mynetworks="127.0.0.9/32", smtpd_relay_restrictions=RELAY)
        weir = self.weir("--identity", "xclient", upstreams=[postfix], relay=False)
        self.deliver(weir, "127.0.0.7", 200_000)
        self.seen(postfix, "127.0.0.7")
        for source, code in (("127.0.0.7", 554), ("127.0.0.9", 250)):
            with weir.client(source=source, hello="client.test") as client:
                client.expect(250, "MAIL FROM:<a@client.test>")
                self.assertEqual(client.command("RCPT TO:<x@elsewhere.example>").code, code, source)

    def test_a_server_that_takes_no_xclient_from_weir_gets_no_mail(self):
        postfix = Postfix(self)
        weir = self.weir("--identity", "xclient", upstreams=[postfix], relay=False)
        with weir.client(source="127.0.0.7") as client:
            self.assertEqual(client.command("EHLO client.test").code, 421)
        wait_until(lambda: "xclient_not_offered" in weir.log(), "a line in the log")

    def test_postscreen_sees_the_client(self):
        postfix = Postfix(
            self,
            postscreen=True,
            postscreen_upstream_proxy_protocol="haproxy",
            postscreen_greet_wait="1s",
            postscreen_greet_action="enforce",
            postscreen_access_list="",
            postscreen_cache_map="",
        )
        weir = self.weir("--identity", "proxy-v2", "--greet-wait", "0", upstreams=[postfix], relay=False)
        self.deliver(weir, "127.0.0.7")
        wait_until(lambda: "CONNECT from [127.0.0.7]" in postfix.log(), "postscreen's word for the client")
        self.seen(postfix, "127.0.0.7")

    def test_mail_passes_byte_for_byte_both_ways(self):
        postfix = Postfix(self, smtpd_upstream_proxy_protocol="haproxy")
        weir = self.weir("--identity", "proxy-v1", upstreams=[postfix], relay=False)
        sent = body(500_000)
        for way in ("data", "bdat"):
            with weir.client(hello="client.test") as client:
                self.assertEqual(getattr(client, way)(sent).code, 250, weir.log()[-1500:])
                client.quit()
        wait_until(lambda: len(postfix.messages()) == 2, "two messages in the mailbox", 30, 0.2)
        for one in postfix.messages():
            self.assertTrue(one == sent, first_difference(one, sent))
        wait_until(lambda: weir.metric("weir_pool_active") == 0, "no connection to be left")


class Auth(Case):
    """AUTH is the server's: its exchange passes line by line, and who it knows may send where it says."""

    def test_a_server_knows_its_user_and_weir_tells_nobody(self):
        door = DovecotAuth("somebody", "open sesame")
        self.addCleanup(door.stop)
        postfix = Postfix(
            self,
            smtpd_upstream_proxy_protocol="haproxy",
            mynetworks="",
            smtpd_sasl_auth_enable="yes",
            smtpd_sasl_type="dovecot",
            smtpd_sasl_path=f"inet:127.0.0.1:{door.port}",
            smtpd_relay_restrictions="permit_sasl_authenticated, reject_unauth_destination",
        )
        weir = self.weir("--identity", "proxy-v1", "--relay-domains", "weir.test", upstreams=[postfix], relay=False)
        secret = base64.b64encode(b"\0somebody\0open sesame").decode()
        with weir.client(source="127.0.0.7", hello="client.test") as client:
            client.expect(250, "MAIL FROM:<a@client.test>")
            self.assertEqual(client.command("RCPT TO:<x@elsewhere.example>").code, 550, "not without a password")
            client.expect(250, "RSET")
            client.expect(535, "AUTH PLAIN " + base64.b64encode(b"\0somebody\0guess").decode())
            client.expect(334, "AUTH PLAIN")
            client.expect(235, secret)
            client.expect(503, f"AUTH PLAIN {secret}")
            client.expect(250, "MAIL FROM:<a@client.test>")
            client.expect(250, "RCPT TO:<x@elsewhere.example>")
            client.quit()
        wait_until(lambda: "sasl_username=somebody" in postfix.log(), "the user in Postfix's log")
        self.assertNotIn(secret, weir.log())


class Tunnel(Case):
    """STARTTLS between client and server: the client checks the server's certificate through weir."""

    def test_tls_is_end_to_end(self):
        key, certificate = (os.path.join(self.folder, name) for name in ("key.pem", "cert.pem"))
        subprocess.run(
            [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=postfix.test",
             "-addext", "subjectAltName=DNS:postfix.test", "-keyout", key, "-out", certificate],
            check=True, capture_output=True, timeout=60,
        )
        postfix = Postfix(
            self,
            smtpd_upstream_proxy_protocol="haproxy",
            smtpd_tls_security_level="may",
            smtpd_tls_cert_file=certificate,
            smtpd_tls_key_file=key,
            smtpd_tls_loglevel="1",
        )
        weir = self.weir("--identity", "proxy-v2", "--transparent-starttls", "tunnel", upstreams=[postfix], relay=False)
        sent = body(3_000_000)
        with smtplib.SMTP("127.0.0.1", weir.port, source_address=("127.0.0.7", 0), timeout=60) as client:
            self.secure(client, certificate)
            client.sendmail("a@client.test", ["b@weir.test"], sent)
            self.assertEqual(weir.metric("weir_tunnels"), 1)
        wait_until(lambda: postfix.messages(), "a message in the mailbox", 60, 0.2)
        self.assertTrue(postfix.messages()[0] == sent, first_difference(postfix.messages()[0], sent))
        self.assertIn("[127.0.0.7]", postfix.log())
        self.assertIn("TLS connection established", postfix.log())
        wait_until(lambda: weir.metric("weir_sessions_ended_total", by="tunnel") == 1, "the tunnel to end")
        self.assertGreater(weir.metric("weir_tunnel_bytes_total", way="in"), len(sent))

    def secure(self, client, certificate):
        """STARTTLS with the name that the certificate has to carry."""
        client.ehlo("client.test")
        self.assertEqual(client.docmd("STARTTLS")[0], 220)
        context = ssl.create_default_context(cafile=certificate)
        client.sock = context.wrap_socket(client.sock, server_hostname="postfix.test")
        client.file = None
        client.ehlo_resp = client.helo_resp = None
        client.esmtp_features, client.does_esmtp = {}, False


if __name__ == "__main__":
    unittest.main()
