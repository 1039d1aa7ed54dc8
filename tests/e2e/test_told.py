"""What a real Postfix is told of the clients that share a connection to it: XFORWARD in its log, a Received field in its mail."""

import re

from servers import Postfix
from test_servers import body
from weirtest import Case, wait_until

SOURCES = ("127.0.0.2", "127.0.0.3")


def header(*messages):
    """The header fields of all of them."""
    texts = (message.replace(b"\r\n", b"\n").partition(b"\n\n")[0] for message in messages)
    return b"\n".join(texts).decode()


class Told(Case):
    def deliver(self, weir, server, source, tag):
        with weir.client(source=source, hello=f"{tag}.client.test") as client:
            reply = client.data(body(tag))
            self.assertEqual(reply.code, 250, f"{reply}\n{weir.log()[-1500:]}\n{server.log()[-1500:]}")
            client.quit()

    def test_xforward_names_each_client_in_the_log(self):
        server = Postfix(self, smtpd_authorized_xforward_hosts="127.0.0.0/8")
        weir = self.weir("--identity", "xforward", upstreams=[server])
        for number, source in enumerate(SOURCES * 2):
            self.deliver(weir, server, source, f"x{number}")
        wait_until(lambda: len(server.messages()) == 4, "four messages in the mailbox", 30, 0.2)
        named = re.findall(r"orig_client=(\S+)", server.log())
        self.assertEqual(named, [f"unknown[{source}]" for source in SOURCES * 2], server.log())
        self.assertNotRegex(server.log(), r"(?i)bad xforward|syntax")
        self.assertNotIn(SOURCES[0], header(*server.delivered()), "XFORWARD is for the log")

    def test_xforward_of_long_and_odd_names(self):
        server = Postfix(self, smtpd_authorized_xforward_hosts="127.0.0.0/8")
        weir = self.weir("--identity", "xforward", upstreams=[server])
        for name in ("h" * 250, "a+b=c", "[IPv6:2001:db8::1]", "(comment)", "two words"):
            with weir.client(source=SOURCES[0], hello=name) as client:
                reply = client.data(body("odd"))
                self.assertEqual(reply.code, 250, f"{name}: {reply}\n{server.log()[-1500:]}")
                client.quit()
        log = server.log()
        self.assertEqual(len(re.findall(r"orig_client=unknown\[127\.0\.0\.2\]", log)), 5, log)
        self.assertNotRegex(log, r"(?i)bad xforward|syntax")

    def test_received_names_the_client_above_the_message(self):
        server = Postfix(self)
        weir = self.weir("--identity", "received", upstreams=[server])
        self.deliver(weir, server, SOURCES[0], "stamped")
        wait_until(lambda: len(server.messages()) == 1, "one message in the mailbox", 30, 0.2)
        text = header(*server.delivered())
        fields = re.findall(r"(?m)^Received: .*(?:\n[ \t].*)*", text)
        self.assertEqual(len(fields), 2, text)
        ours = re.fullmatch(
            r"Received: from stamped\.client\.test \(unknown \[127\.0\.0\.2\]\)\n"
            r"\tby weir\.test \(weir\) with ESMTP id (\S+);\n"
            r"\t\w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d \+0000",
            fields[1],
        )
        self.assertIsNotNone(ours, fields[1])
        shard, session, transaction = ours.group(1).split(".")
        line = next(line for line in weir.log().splitlines() if " transaction " in line)
        self.assertIn(f"session={session} ", line)
        self.assertIn(f"transaction={transaction} ", line)
        self.assertIn(f"shard={shard} ", line)

    def test_a_postfix_that_trusts_nobody_takes_the_mail_all_the_same(self):
        server = Postfix(self)
        weir = self.weir("--identity", "xforward", upstreams=[server])
        self.deliver(weir, server, SOURCES[0], "plain")
        wait_until(lambda: len(server.messages()) == 1, "one message in the mailbox", 30, 0.2)
        self.assertNotIn("orig_client", server.log())
