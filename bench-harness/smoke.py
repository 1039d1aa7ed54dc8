#!/usr/bin/env python3
"""A short run of every profile, against the sink alone and through weir, in plaintext and in TLS: does the mail arrive whole, and only once?

usage: bench-harness/smoke.py        (or tests/run bench, which builds what it needs)

Asserts integrity, never a speed: it may run on any machine, however busy. Needs weir (WEIR_BIN) and weir-bench (WEIR_BENCH_BIN).
"""

import json
import os
import subprocess
import sys
import tempfile
import time

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
sys.path.insert(0, os.path.join(TOP, "tests", "e2e"))
from weirtest import Process, Weir, free_port, wait_listening  # noqa: E402

TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(TOP, "target"))
BENCH = os.environ.get("WEIR_BENCH_BIN", os.path.join(TARGET, "debug", "weir-bench"))
LASTS = "4s"

# Each stream comes from addresses of its own, so that no server holds one's deeds against another.
COME_AND_GO = {
    "per-message": "profile=per-message rate=20/s",
    "persistent": "profile=persistent rate=60/s messages=7 size=1k*5,40k*1",
    "pipelined": "profile=pipelined rate=60/s messages=7",
    "bdat": "profile=bdat rate=60/s messages=7 size=1k*5,40k*1",
    "recipients": "profile=per-message rate=5/s recipients=20",
    "slow-body": "profile=slow-body rate=3/s size=2k speed=2k/s",
    "circle": "profile=per-message sessions=2",
    "mail": "profile=persistent rate=10/s mail={mail}",
}
RUDE = {"hang-up": "profile=hang-up rate=20/s"}
KEPT = {
    "pregreet": "profile=pregreet connections=20",
    "slow-loris": "profile=slow-loris connections=20 every=300ms",
    "idle": "profile=idle connections=20",
    "silent": "profile=silent connections=20",
    "spambot": "profile=spambot connections=20",
}
MAIL = b"""From: a@client.test\r\nTo: b@weir.test\r\nSubject: dots\r\n\r\n.\r\n..\r\n.leading\r\nbare \xc3\xbc and no end\r\n"""


def main():
    for binary in (BENCH, os.environ.get("WEIR_BIN", "")):
        if not os.access(binary, os.X_OK):
            print(f"no binary at '{binary}': run tests/run bench")
            return 66
    bad = []
    with tempfile.TemporaryDirectory(prefix="weir-smoke-") as folder:
        identity = certificate(folder)
        bad += against("the sink alone", folder, identity, proxy=False)
        bad += against("the sink alone, STARTTLS", folder, identity, proxy=False, tls="starttls")
        bad += against("the sink alone, TLS", folder, identity, proxy=False, tls="implicit")
        bad += against("weir and the sink", folder, identity, proxy=True)
        bad += against("weir and the sink, STARTTLS", folder, identity, proxy=True, tls="starttls")
        bad += against("weir and the sink, TLS", folder, identity, proxy=True, tls="implicit")
    for complaint in bad:
        print(f"FAILED {complaint}")
    return 1 if bad else 0


def certificate(folder):
    """A certificate for the loopback address, and its key."""
    files = os.path.join(folder, "certificate.pem"), os.path.join(folder, "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=mail.weir.test",
         "-addext", "subjectAltName=DNS:mail.weir.test,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE", "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True, timeout=60,
    )
    return files


def against(name, folder, identity, proxy, tls=None):
    """One run to the sink, or to weir before it. With `tls` whoever is in front has the certificate."""
    smtp, secured, control = free_port(), free_port(), free_port()
    argv = [BENCH, "sink", "--listen", f"127.0.0.1:{smtp}", "--control", f"127.0.0.1:{control}", "--threads", "1"]
    own = ["--tls-cert", identity[0], "--tls-key", identity[1], "--listen-tls", f"127.0.0.1:{secured}"]
    if tls and not proxy:
        argv += ["--starttls", *own]
    sink = Process(argv, folder, f"sink-{smtp}")
    weir = None
    try:
        wait_listening(smtp)
        wait_listening(control)
        if proxy:
            # Nobody is turned away for his manners: what counts here is mail.
            flags = ["--max-messages", "0", "--greet-wait", "200ms", *(own if tls else [])]
            weir = Weir(*flags, upstreams=[f"127.0.0.1:{smtp}"], folder=folder)
        plain = weir.port if weir else smtp
        flags = ["--tls", tls, "--tls-ca", identity[0]] if tls else []
        found = run(name, folder, secured if tls == "implicit" else plain, control, flags)
        complaints = [f"{name}: {complaint}" for complaint in found]
        if complaints and weir:
            print(weir.log()[-2000:])
        return complaints
    finally:
        if weir:
            weir.stop()
        sink.stop()


def run(name, folder, port, control, flags):
    mail = os.path.join(folder, "mail")
    os.makedirs(mail, exist_ok=True)
    with open(os.path.join(mail, "one.eml"), "wb") as file:
        file.write(MAIL)
    results = os.path.join(folder, f"{port}.json")
    argv = [BENCH, "source", f"127.0.0.1:{port}", "--ledger", f"127.0.0.1:{control}", "--for", LASTS, "--quiet", "--json", results, *flags]
    streams = {**COME_AND_GO, **RUDE, **KEPT}
    for number, (stream, keys) in enumerate(streams.items()):
        argv += ["--stream", f"{stream}: {keys.format(mail=mail)} from=127.70.{number}.1+16"]
    began = time.monotonic()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    if done.returncode not in (0, 1):
        return [f"exit code {done.returncode}: {done.stderr}"]
    with open(results) as file:
        outcome = json.load(file)["runs"][0]
    complaints = list(judge(outcome, in_tls=bool(flags)))
    if complaints:
        print(done.stdout)
    integrity = outcome["integrity"]
    print(f"{name}: {len(streams)} streams, {integrity['arrived']} messages arrived, {time.monotonic() - began:.0f} s")
    return complaints


def judge(outcome, in_tls):
    """What is wrong with a run, in words."""
    integrity = outcome["integrity"]
    for count in ("lost", "duplicated", "altered", "invented", "unknown"):
        if integrity[count]:
            yield f"{integrity[count]} messages {count}"
    for stream in outcome["streams"]:
        name, counts = stream["name"], stream["counts"]
        if counts["garbled"]:
            yield f"{name}: {counts['garbled']} replies are no SMTP"
        if counts["handshakes_failed"]:
            yield f"{name}: {counts['handshakes_failed']} handshakes failed: {stream['words']}"
        if in_tls and name in COME_AND_GO and not counts["handshakes"]:
            yield f"{name}: nobody came in TLS"
        if name in KEPT:
            if not any(second["open"] for second in stream["seconds"]):
                yield f"{name}: no client was ever connected"
        elif name in RUDE:
            if not counts["starts"]:
                yield f"{name}: nobody came"
        else:
            yield from judge_polite(name, counts)


def judge_polite(name, counts):
    if not counts["accepted"]:
        yield f"{name}: nothing was accepted: {counts}"
    for count in ("deferred", "rejected", "unanswered", "not_sent", "turned_away", "connect_failed", "resets", "closed_early", "timed_out", "unfinished"):
        if counts[count]:
            yield f"{name}: {counts[count]} {count}"


if __name__ == "__main__":
    sys.exit(main())
