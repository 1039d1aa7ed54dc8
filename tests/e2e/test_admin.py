"""The admin page, the logs, reload, access lists."""

import json
import os
import re
import signal
import time
import unittest

from weirtest import Case, Client, Closed, message, wait_until


class Pages(Case):
    def test_metrics_are_prometheus_text_and_move(self):
        mx = self.upstream()
        weir = self.weir(upstreams=[mx])
        code, text = weir.get("/metrics")
        self.assertEqual(code, 200)
        names = set(re.findall(r"^# TYPE (\S+) (?:counter|gauge|histogram)$", text, re.M))
        self.assertTrue(names)
        self.assertTrue(all(n.startswith(("weir_", "process_")) for n in names), names)
        self.assertEqual(set(re.findall(r"^# HELP (\S+) \S+", text, re.M)), names)
        before = weir.metrics()
        for n in range(5):
            with weir.client(hello="client.test") as client:
                client.data(message(f"count-{n}"))
                client.quit()
        grown = {k for k, v in weir.metrics().items() if v == before.get(k, 0) + 5}
        self.assertTrue(any("message" in k for k in grown), "a counter of messages grew by the five that were sent")
        self.assertTrue(any("session" in k or "connection" in k for k in grown))

    def test_probes_and_status(self):
        mx = self.upstream()
        weir = self.weir(upstreams=[mx])
        self.assertEqual(weir.get("/healthz")[0], 200)
        self.assertEqual(weir.get("/readyz")[0], 200)
        status = weir.status()
        self.assertIn(str(mx.port), json.dumps(status), "the upstream is listed")
        self.assertEqual(weir.get("/nothing-here")[0], 404)

    def test_not_ready_while_all_upstreams_are_down(self):
        mx = self.upstream()
        weir = self.weir(upstreams=[mx])
        mx.stop()
        mx.close_idle()
        with weir.client(hello="client.test") as client:
            client.command("MAIL FROM:<a@client.test>")
            client.command("RCPT TO:<b@weir.test>")
        self.assertEqual(weir.get("/healthz")[0], 200)
        wait_until(lambda: weir.get("/readyz")[0] == 503, "/readyz to say so", 60, 0.5)
        mx.start()
        wait_until(lambda: weir.get("/readyz")[0] == 200, "/readyz to recover", 60, 0.5)

    def test_admin_survives_rubbish(self):
        weir = self.weir(upstreams=[self.upstream()])
        for opening in (b"\x00\xff" * 500, b"GET /" + b"x" * 100_000 + b"\r\n", b"BREW / HTTP/9.9\r\n\r\n", b""):
            client = Client(weir.admin, greeting=False)
            try:
                client.send(opening)
                client.half_close()
                client.rest(10)
            except (Closed, OSError):
                pass
            client.close()
        self.assertEqual(weir.get("/healthz")[0], 200)


class Logs(Case):
    def talk(self, weir):
        with weir.client(hello="evil\"name") as client:
            client.data(message("logged"), sender="a\u2603@client.test".encode("ascii", "ignore").decode())
            client.quit()

    def test_text_has_a_line_per_transaction_and_session(self):
        weir = self.weir(upstreams=[self.upstream()])
        self.talk(weir)
        line = wait_until(lambda: next((l for l in weir.log().splitlines() if "b@weir.test" in l), None), "the transaction's line")
        for word in ("a@client.test", "127.0.0.1", "250", "127.0.0.1"):
            self.assertIn(word, line)

    def test_json_lines_parse(self):
        weir = self.weir("--log-format", "json", upstreams=[self.upstream()])
        self.talk(weir)
        wait_until(lambda: "b@weir.test" in weir.log(), "the transaction's line")
        with weir.client() as client:
            client.command(b"FROB \"\\\x1b[31m\xff\xfe")
            client.quit()
        time.sleep(0.5)
        rows = [json.loads(l) for l in weir.log().splitlines() if l.strip()]
        found = [r for r in rows if "b@weir.test" in json.dumps(r)]
        self.assertEqual(len(found), 1)
        self.assertNotIn("\x1b", weir.log())

    def test_peer_bytes_are_escaped(self):
        weir = self.weir(upstreams=[self.upstream()])
        with weir.client() as client:
            client.command(b"EHLO bad\x1b[2Jname\x07")
            client.command(b"MAIL FROM:<a\x1b@client.test>")
            client.quit()
        time.sleep(0.5)
        log = weir.log()
        self.assertNotIn("\x1b", log)
        self.assertNotIn("\x07", log)

    def test_log_file_is_reopened_on_sighup(self):
        path = os.path.join(self.folder, "mail.log")
        weir = self.weir("--log-file", path, upstreams=[self.upstream()])
        self.talk(weir)
        wait_until(lambda: "b@weir.test" in open(path).read(), "the line")
        os.rename(path, path + ".1")
        weir.signal(signal.SIGHUP)
        wait_until(lambda: os.path.exists(path), "the new file")
        self.talk(weir)
        wait_until(lambda: "b@weir.test" in open(path).read(), "the line in the new file")


class Reload(Case):
    def write(self, name, *lines):
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write("".join(f"{line}\n" for line in lines))
        return path

    def test_deny_and_allow_lists(self):
        deny = self.write("deny", "# bad people", "127.0.20.0/24", "2001:db8::/32")
        allow = self.write("allow", "127.0.20.7")
        weir = self.weir("--deny-list", deny, "--allow-list", allow, upstreams=[self.upstream()])
        with Client(weir.port, source="127.0.20.1") as bad:
            self.assertEqual(bad.greeting.code // 100, 5)
        with Client(weir.port, source="127.0.20.7") as good:
            self.assertEqual(good.greeting.code, 220)

        def greeting(source):
            with Client(weir.port, source=source) as client:
                return client.greeting.code

        self.write("deny", "127.0.21.0/24")
        weir.signal(signal.SIGHUP)
        wait_until(lambda: greeting("127.0.21.1") // 100 == 5, "the new list", 10, 0.1)
        self.assertEqual(greeting("127.0.20.1"), 220)

    def test_a_broken_list_keeps_the_old_one(self):
        deny = self.write("deny", "127.0.20.0/24")
        weir = self.weir("--deny-list", deny, upstreams=[self.upstream()])
        self.write("deny", "this is no network")
        weir.signal(signal.SIGHUP)
        wait_until(lambda: "this is no network" in weir.log(), "an error in the log", 10)
        with Client(weir.port, source="127.0.20.1") as bad:
            self.assertEqual(bad.greeting.code // 100, 5)
        self.assertTrue(weir.running())

    def test_upstreams_from_a_file(self):
        one, two = self.upstream(), self.upstream()
        path = self.write("upstreams", f"127.0.0.1:{one.port}")
        weir = self.weir(upstreams=[f"@{path}"])
        self.assert_alive(weir, "first")
        self.assertEqual(one.tags(), ["first"])
        self.write("upstreams", f"127.0.0.1:{two.port}")
        weir.signal(signal.SIGHUP)

        def moved():
            self.assert_alive(weir, f"later-{time.monotonic()}")
            return bool(two.messages)

        wait_until(moved, "the new upstream to be used", 20, 0.3)


if __name__ == "__main__":
    unittest.main()
