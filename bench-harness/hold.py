#!/usr/bin/env python3
"""Holds many connections to an SMTP server from many loopback addresses, until it is ended.

usage: hold.py PORT silent|ehlo|early COUNT      (says nothing; said EHLO and read the reply; spoke before the greeting)

Prints "holding N" once all of them are where they should be.
"""

import resource
import selectors
import signal
import socket
import sys
import time

PATIENCE = 120


def main():
    port, mode, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    until = time.monotonic() + PATIENCE
    held, waiting = [], selectors.DefaultSelector()
    for number in range(count):
        sock = socket.socket()
        # Addresses of 127.8.0.0/16, a hundred connections each.
        address = number // 100
        sock.bind((f"127.8.{address // 250}.{address % 250 + 1}", 0))
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        if mode == "early":
            sock.send(b"EHLO early.test\r\n")
        if mode == "ehlo":
            waiting.register(sock, selectors.EVENT_READ, b"greeting")
        held.append(sock)
        if number % 200 == 199:
            progress(waiting, 0)
    while waiting.get_map() and time.monotonic() < until:
        progress(waiting, 1)
    if mode == "early":
        time.sleep(3)
    print(f"holding {len(held) - len(waiting.get_map())}", flush=True)
    while True:
        time.sleep(3600)


def progress(waiting, patience):
    for key, _ in waiting.select(patience):
        sock, state = key.fileobj, key.data
        text = sock.recv(4096)
        if state == b"greeting" and text.startswith(b"220 "):
            sock.send(b"EHLO held.test\r\n")
            waiting.modify(sock, selectors.EVENT_READ, b"ehlo")
        elif state == b"ehlo" and b"250 " in text:
            waiting.unregister(sock)
        elif not text or text[:1] in b"45":
            raise SystemExit(f"refused: {text!r}")


if __name__ == "__main__":
    main()
