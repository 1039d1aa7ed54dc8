"""Messages go through unchanged, by every way in and every way out, over a small pool."""

import smtplib
import socket
import threading
import unittest

from weirtest import Case, Client, Upstream, message, stuff, wait_until

DATA_ONLY = ("PIPELINING", "SIZE 50000000", "8BITMIME", "ENHANCEDSTATUSCODES")


class Ways(Case):
    """DATA and BDAT on both legs, in all four combinations."""

    def through(self, extensions, send, by):
        upstream = self.upstream(extensions)
        weir = self.weir(upstreams=[upstream])
        for size in (0, 4096, 16384, 70_000, 300_000, 3_000_000):
            tag = f"way-{by}-{size}"
            body = message(tag, size)
            with weir.client(hello="client.test") as client:
                reply = send(client, body)
                self.assertEqual(reply.code, 250, reply)
                self.assertIn(b"kept as", reply.text, "the final reply is the upstream's own")
            self.assert_relayed(upstream, tag, body, by=by)
        self.assertEqual(upstream.violations, [])
        self.assertEqual(upstream.halves, [])

    def test_data_to_bdat(self):
        self.through(Upstream.EXTENSIONS, lambda c, b: c.data(b), "bdat")

    def test_data_to_data(self):
        self.through(DATA_ONLY, lambda c, b: c.data(b), "data")

    def test_bdat_to_bdat(self):
        self.through(Upstream.EXTENSIONS, lambda c, b: c.bdat(b), "bdat")

    def test_bdat_to_data(self):
        self.through(DATA_ONLY, lambda c, b: c.bdat(b), "data")

    def test_bdat_in_chunks_to_data(self):
        self.through(DATA_ONLY, lambda c, b: c.bdat(b, chunk=9973), "data")

    def test_bdat_in_chunks_to_bdat(self):
        self.through(Upstream.EXTENSIONS, lambda c, b: c.bdat(b, chunk=20011), "bdat")

    def test_upstream_without_pipelining(self):
        self.through(("SIZE", "8BITMIME"), lambda c, b: c.data(b), "data")

    def test_upstream_without_any_extension(self):
        self.through((), lambda c, b: c.data(b), "data")


class Session(Case):
    def setUp(self):
        super().setUp()
        self.mx = self.upstream()
        self.proxy = self.weir(upstreams=[self.mx])

    def test_smtplib_sends_to_several_recipients(self):
        body = message("smtplib", 5000)
        with smtplib.SMTP("127.0.0.1", self.proxy.port, timeout=20) as client:
            refused = client.sendmail("a@client.test", ["b@weir.test", "c@weir.test"], body, ["BODY=8BITMIME"])
        self.assertEqual(refused, {})
        kept = self.assert_relayed(self.mx, "smtplib", body)
        self.assertEqual(kept.recipients, ["b@weir.test", "c@weir.test"])
        self.assertIn(b"BODY=8BITMIME", kept.mail.upper())

    def test_whole_session_in_one_flight(self):
        bodies = [message(f"flight-{n}", 900) for n in range(5)]
        flight = b"EHLO client.test\r\n"
        for n, body in enumerate(bodies):
            flight += b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@weir.test>\r\n"
            flight += b"BDAT %d LAST\r\n" % len(body) + body
        with self.proxy.client() as client:
            client.send(flight + b"QUIT\r\n")
            codes = [client.reply().code for _ in range(1 + 3 * len(bodies) + 1)]
        self.assertEqual(codes, [250] + [250] * 3 * len(bodies) + [221])
        for n, body in enumerate(bodies):
            self.assert_relayed(self.mx, f"flight-{n}", body)

    def test_one_byte_at_a_time(self):
        body = message("bytewise")
        stream = b"EHLO c.test\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@weir.test>\r\nDATA\r\n"
        with self.proxy.client() as client:
            for byte in stream:
                client.send(bytes([byte]))
            self.assertEqual([client.reply().code for _ in range(4)], [250, 250, 250, 354])
            for byte in stuff(body) + b".\r\nQUIT\r\n":
                client.send(bytes([byte]))
            self.assertEqual([client.reply().code for _ in range(2)], [250, 221])
        self.assert_relayed(self.mx, "bytewise", body)

    def test_helo_only_client(self):
        body = message("helo")
        with self.proxy.client() as client:
            self.assertNotIn(b"-", client.expect(250, "HELO old.test").text[:4])
            self.assertEqual(client.data(body).code, 250)
        self.assert_relayed(self.mx, "helo", body)

    def test_paths_pass_as_written(self):
        senders = ["", '"quoted \\" local"@client.test', "a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", "a+b=c%d@client.test"]
        for n, sender in enumerate(senders):
            body = message(f"path-{n}")
            with self.proxy.client(hello="client.test") as client:
                self.assertEqual(client.data(body, sender=sender, recipients=["Postmaster", "@x.test,@y.test:b@weir.test"]).code, 250)
            kept = self.assert_relayed(self.mx, f"path-{n}", body)
            self.assertEqual(kept.sender, sender)
            self.assertEqual(kept.recipients[0], "Postmaster")

    def test_utf8_paths(self):
        body = message("utf8")
        with self.proxy.client(hello="client.test") as client:
            client.expect(250, "MAIL FROM:<jos\u00e9@client.test> SMTPUTF8")
            client.expect(250, "RCPT TO:<m\u00fcller@weir.test>")
            client.expect(354, "DATA")
            client.send(stuff(body) + b".\r\n")
            self.assertEqual(client.reply().code, 250)
        self.assertEqual(self.assert_relayed(self.mx, "utf8", body).recipients, ["m\u00fcller@weir.test"])

    def test_parameters_pass_byte_exact(self):
        with self.proxy.client(hello="client.test") as client:
            client.expect(250, "MAIL FROM:<a@client.test> RET=hdrs ENVID=QQ+2B31 BODY=8bitmime")
            client.expect(250, "RCPT TO:<b@weir.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B+2Bx@Weir.Test")
            client.expect(354, "DATA")
            client.send(stuff(message("dsn")) + b".\r\n")
            self.assertEqual(client.reply().code, 250)
        kept = self.mx.by_tag("dsn")[0]
        self.assertIn(b" RET=hdrs ENVID=QQ+2B31 BODY=8bitmime", kept.mail)
        self.assertIn(b" NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B+2Bx@Weir.Test", kept.rcpts[0])

    def test_missing_last_newline_is_kept_by_bdat(self):
        body = message("no-newline") + b"the end"
        with self.proxy.client(hello="client.test") as client:
            self.assertEqual(client.bdat(body).code, 250)
        self.assert_relayed(self.mx, "no-newline", body, by="bdat")

    def test_early_354_and_nothing_upstream_before_the_end(self):
        with self.proxy.client(hello="client.test") as client:
            client.envelope()
            client.expect(354, "DATA")
            seen = len(self.mx.commands)
            body = message("early")
            client.send(stuff(body))
            self.assertTrue(client.quiet(0.3))
            self.assertNotIn(b"BDAT", b"".join(self.mx.commands[seen:]))
            client.send(b".\r\n")
            self.assertEqual(client.reply().code, 250)
        self.assert_relayed(self.mx, "early", body)

    def test_slow_client_does_not_hold_an_upstream(self):
        with self.proxy.client(hello="client.test") as slow:
            slow.envelope()
            slow.expect(354, "DATA")
            body = message("slow")
            slow.send(stuff(body)[:50])
            wait_until(lambda: b"RSET" in self.mx.commands, "the upstream to be given back", 5)
            slow.send(stuff(body)[50:] + b".\r\n")
            self.assertEqual(slow.reply().code, 250)
        self.assert_relayed(self.mx, "slow", body)

    def test_rset_and_second_message(self):
        with self.proxy.client(hello="client.test") as client:
            client.envelope(sender="first@client.test")
            client.expect(250, "RSET")
            self.assertEqual(client.data(message("second"), sender="second@client.test").code, 250)
        self.assertEqual(self.mx.by_tag("second")[0].sender, "second@client.test")

    def test_normal_log_and_no_leak(self):
        for n in range(20):
            with self.proxy.client(hello="client.test") as client:
                client.data(message(f"leak-{n}"))
                client.quit()
        before = self.proxy.descriptors()
        for n in range(100):
            with self.proxy.client(hello="client.test") as client:
                client.data(message(f"leak2-{n}"))
                client.quit()
        self.assertLessEqual(self.proxy.descriptors(), before + 4)


class Replies(Case):
    def test_recipient_replies_are_the_upstreams(self):
        words = iter([b"550-5.1.1 No such user.\r\n550 5.1.1 Ask postmaster.\r\n", b"450 4.2.1 Busy\r\n", b"250 2.1.5 Fine\r\n"])
        mx = self.upstream(on={"RCPT": lambda _: next(words)})
        weir = self.weir(upstreams=[mx])
        with weir.client(hello="client.test") as client:
            client.expect(250, "MAIL FROM:<a@client.test>")
            self.assertEqual(client.command("RCPT TO:<one@weir.test>").text, b"550-5.1.1 No such user.\r\n550 5.1.1 Ask postmaster.\r\n")
            self.assertEqual(client.command("RCPT TO:<two@weir.test>").text, b"450 4.2.1 Busy\r\n")
            self.assertEqual(client.command("RCPT TO:<three@weir.test>").text, b"250 2.1.5 Fine\r\n")
            client.expect(354, "DATA")
            client.send(stuff(message("replies")) + b".\r\n")
            self.assertEqual(client.reply().code, 250)
        self.assertEqual(mx.by_tag("replies")[0].recipients, ["three@weir.test"])

    def test_enhanced_codes_are_added(self):
        mx = self.upstream(("PIPELINING",), on={"RCPT": b"250 yes\r\n", ".": b"554 no thanks\r\n"})
        weir = self.weir(upstreams=[mx])
        with weir.client(hello="client.test") as client:
            client.expect(250, "MAIL FROM:<a@client.test>")
            self.assertEqual(client.command("RCPT TO:<b@weir.test>").enhanced, "2.0.0")
            client.expect(354, "DATA")
            client.send(b"x\r\n.\r\n")
            self.assertEqual(client.reply().text, b"554 5.0.0 no thanks\r\n")

    def test_mail_refusal_is_remembered(self):
        mx = self.upstream(on={"MAIL": b"553 5.7.1 Not you\r\n"})
        weir = self.weir(upstreams=[mx])
        with weir.client(hello="client.test") as client:
            client.expect(250, "MAIL FROM:<a@client.test>")
            for _ in range(3):
                self.assertEqual(client.command("RCPT TO:<b@weir.test>").text, b"553 5.7.1 Not you\r\n")
            self.assertIn(client.command("DATA").code, (553, 554))
            client.expect(250, "RSET")

    def test_all_recipients_refused(self):
        mx = self.upstream(on={"RCPT": b"550 5.1.1 No\r\n"})
        weir = self.weir(upstreams=[mx])
        with weir.client(hello="client.test") as client:
            client.send(b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@weir.test>\r\nDATA\r\nRSET\r\n")
            self.assertEqual([client.reply().code for _ in range(4)], [250, 550, 554, 250])
        self.assertNotIn(b"DATA", mx.commands)


class Pool(Case):
    def test_many_clients_share_few_connections(self):
        mx = self.upstream()
        weir = self.weir("--pool-max", 4, upstreams=[mx])
        failures = []

        def work(number):
            try:
                with Client(weir.port, source=f"127.0.2.{number + 1}", hello="client.test") as client:
                    for turn in range(5):
                        reply = client.data(message(f"pool-{number}-{turn}", 3000))
                        if reply.code != 250:
                            failures.append(reply)
            except Exception as error:  # reported below, in the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(40)]
        [t.start() for t in threads]
        [t.join(60) for t in threads]
        self.assertEqual(failures, [])
        self.assertEqual(len(mx.messages), 200)
        self.assertEqual(len(set(mx.tags())), 200)
        # One more for the probe, which is no part of the pool.
        self.assertLessEqual(mx.open_max, 5, "--pool-max is kept over all shards")
        self.assertLess(mx.connections, 60, "connections are used again")

    def test_an_idle_session_holds_no_upstream(self):
        mx = self.upstream()
        weir = self.weir("--pool-max", 1, upstreams=[mx])
        idle = [weir.client(hello=f"idle{n}.test") for n in range(20)]
        for client in idle:
            client.expect(250, "MAIL FROM:<a@client.test>")
        with weir.client(hello="client.test") as client:
            self.assertEqual(client.data(message("busy")).code, 250)
        for client in idle:
            client.close()

    def test_connection_closed_while_idle_is_replaced(self):
        mx = self.upstream()
        weir = self.weir(upstreams=[mx])
        for turn in range(5):
            with weir.client(hello="client.test") as client:
                self.assertEqual(client.data(message(f"idle-{turn}")).code, 250)
            mx.close_idle()
        self.assertEqual(len(mx.messages), 5)

    def test_421_on_an_idle_connection_is_noticed(self):
        mx = self.upstream()
        weir = self.weir(upstreams=[mx])
        for turn in range(4):
            with weir.client(hello="client.test") as client:
                self.assertEqual(client.data(message(f"idle421-{turn}")).code, 250)
            with mx.lock:
                socks = list(mx.socks)
            for sock in socks:
                sock.sendall(b"421 4.4.2 mx.test Error: timeout exceeded\r\n")
        self.assertEqual(len(mx.messages), 4)


class Addresses(Case):
    def test_ipv6_on_both_sides(self):
        if not socket.has_ipv6 or not ipv6_works():
            self.skipTest("no IPv6 loopback here")
        mx = self.upstream(host="::1")
        weir = self.weir(upstreams=[f"[::1]:{mx.port}"], listen=["[::1]:{port}", "127.0.0.1:{port}"])
        for host in ("::1", "127.0.0.1"):
            body = message(f"from-{host}")
            with weir.client(host=host, hello="client.test") as client:
                self.assertEqual(client.data(body).code, 250)
            self.assert_relayed(mx, f"from-{host}", body)

    def test_upstream_by_name(self):
        mx = self.upstream()
        weir = self.weir(upstreams=[f"localhost:{mx.port}"])
        with weir.client(hello="client.test") as client:
            self.assertEqual(client.data(message("by-name")).code, 250)


def ipv6_works():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


if __name__ == "__main__":
    unittest.main()
