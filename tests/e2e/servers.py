"""Real mail servers as upstreams, each in a folder of its own, on a port above 1024, ended by pid.

Every server keeps what it took as files; `messages()` gives their bytes with the server's own header fields cut off and
line ends as CRLF. A server that is not installed raises unittest.SkipTest with the reason.
"""

import base64
import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

from weirtest import TOOLS, free_port, wait_listening

EXIM = os.path.join(TOOLS, "exim", "usr", "sbin", "exim4")
# With all that Debian builds into it, among it hosts_proxy.
HEAVY = os.path.join(TOOLS, "exim-heavy")


def program(name):
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin:/usr/lib/postfix/sbin")
    if not path:
        raise unittest.SkipTest(f"{name} is not installed")
    return path


def need_root(what):
    if os.getuid() != 0:
        raise unittest.SkipTest(f"{what} has to be started by root")


def without_added(raw, first=b"Subject:"):
    """The message from its own first field on."""
    raw = raw.replace(b"\r\n", b"\n")
    at = raw.index(first) if raw.startswith(first) else raw.index(b"\n" + first) + 1
    return raw[at:].replace(b"\n", b"\r\n")


class SmtpSink:
    """Postfix's smtp-sink; dumps every message to a file when asked to."""

    def __init__(self, case, *flags, keep=True, port=None):
        self.port = port or free_port()
        self.folder = os.path.join(case.folder, f"sink-{self.port}")
        os.makedirs(self.folder, exist_ok=True)
        user = []
        if os.getuid() == 0:
            os.chown(self.folder, pwd.getpwnam("nobody").pw_uid, -1)
            os.chmod(case.folder, 0o755)
            user = ["-u", "nobody"]
        dump = ["-d", os.path.join(self.folder, "m.")] if keep else []
        argv = [program("smtp-sink"), *user, "-m", "1000", *dump, *map(str, flags), f"127.0.0.1:{self.port}", "1000"]
        self.process = case.process(argv, f"smtp-sink-{self.port}")
        wait_listening(self.port)

    def messages(self):
        found = []
        for path in glob.glob(os.path.join(self.folder, "m.*")):
            with open(path, "rb") as file:
                found.append(file.read())
        return found


class Postfix:
    """A Postfix of its own: smtpd, queue manager, delivery into one maildir. `addresses`: it has port 25 of all these."""

    def __init__(self, case, postscreen=False, addresses=None, **settings):
        need_root("Postfix")
        self.port = 25 if addresses else free_port()
        self.base = os.path.join(case.folder, "postfix")
        self.config = os.path.join(self.base, "etc")
        queue, data, self.box = (os.path.join(self.base, n) for n in ("queue", "data", "box"))
        sbin = os.path.dirname(program("master")) if shutil.which("master", path="/usr/lib/postfix/sbin") else None
        if sbin is None or not os.path.exists(os.path.join(sbin, "smtpd")):
            raise unittest.SkipTest("Postfix's daemons are not installed")
        for folder in (self.config, queue, data, self.box):
            os.makedirs(folder)
        shutil.chown(data, "postfix")
        shutil.chown(self.box, "postfix", "postfix")
        values = {
            "compatibility_level": "3.6",
            "queue_directory": queue,
            "data_directory": data,
            "command_directory": os.path.dirname(program("postfix")),
            "daemon_directory": sbin,
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "inet_interfaces": ", ".join(addresses or ["127.0.0.1"]),
            "inet_protocols": "all" if addresses else "ipv4",
            "myhostname": "postfix.test",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "smtpd_relay_restrictions": "reject_unauth_destination",
            "virtual_mailbox_domains": "weir.test",
            "virtual_mailbox_base": self.box,
            "virtual_mailbox_maps": "static:all/",
            "virtual_minimum_uid": "1",
            "virtual_uid_maps": f"static:{pwd.getpwnam('postfix').pw_uid}",
            "virtual_gid_maps": f"static:{pwd.getpwnam('postfix').pw_gid}",
            "maillog_file": os.path.join(self.base, "maillog"),
            "maillog_file_prefixes": self.base,
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            "message_size_limit": "30000000",
            "virtual_mailbox_limit": "0",
            "smtputf8_enable": "yes",
            "smtpd_client_connection_count_limit": "0",
            "in_flow_delay": "0",
            # Nothing of the header is rewritten or added but the trace fields at the top.
            "local_header_rewrite_clients": "",
        }
        values.update(settings)
        with open(os.path.join(self.config, "main.cf"), "w") as file:
            file.writelines(f"{k} = {v}\n" for k, v in values.items())
        door = "100 smtpd"
        if postscreen:
            door = "1 postscreen\nsmtpd pass - - n - - smtpd\ndnsblog unix - - n - 0 dnsblog\ntlsproxy unix - - n - 0 tlsproxy"
        with open(os.path.join(self.config, "master.cf"), "w") as file:
            file.write(
                f"{'' if addresses else '127.0.0.1:'}{self.port} inet n - n - {door}\n"
                "pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n"
                "rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n"
                "trace unix - - n - 0 bounce\nverify unix - - n - 1 verify\nflush unix n - n 1000? 0 flush\n"
                "proxymap unix - - n - - proxymap\nshowq unix n - n - - showq\nerror unix - - n - - error\nretry unix - - n - - error\n"
                "discard unix - - n - - discard\nvirtual unix - n n - - virtual\nanvil unix - - n - 1 anvil\n"
                "scache unix - - n - 1 scache\ntlsmgr unix - - n 1000? 1 tlsmgr\npostlog unix-dgram n - n - 1 postlogd\n"
            )
        postfix = program("postfix")
        # `postfix check` makes the queue's folders; master itself then runs in our foreground.
        subprocess.run([postfix, "-c", self.config, "check"], capture_output=True, timeout=60)
        self.process = case.process([os.path.join(sbin, "master"), "-c", self.config, "-d"], f"postfix-{self.port}")
        try:
            wait_listening(self.port)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def log(self):
        path = os.path.join(self.base, "maillog")
        if not os.path.exists(path):
            return self.process.log()
        with open(path) as file:
            return self.process.log() + file.read()

    def delivered(self):
        """The messages as they lie in the mailbox, with all that was added on the way."""
        found = []
        for path in glob.glob(os.path.join(self.box, "all", "new", "*")):
            with open(path, "rb") as file:
                found.append(file.read())
        return found

    def messages(self):
        return [without_added(text) for text in self.delivered()]


class DovecotAuth:
    """Who asks it by Dovecot's auth protocol (Postfix does) hears that this one password is right."""

    def __init__(self, user, password):
        self.right = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        self.user = user
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        with sock, contextlib.suppress(OSError):
            sock.sendall(b"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\tc\nDONE\n")
            for line in sock.makefile("r"):
                words = line.rstrip("\n").split("\t")
                if words[0] == "CONT":
                    said = words[2:3]
                elif words[0] == "AUTH":
                    said = [word[5:] for word in words if word.startswith("resp=")]
                else:
                    continue
                if not said:
                    sock.sendall(f"CONT\t{words[1]}\t\n".encode())
                    continue
                verdict = f"OK\t{words[1]}\tuser={self.user}\n" if said == [self.right] else f"FAIL\t{words[1]}\n"
                sock.sendall(verdict.encode())


def heavy_exim():
    """An Exim that knows PROXY, and the environment in which its libraries are found."""
    binary = os.path.join(HEAVY, "usr", "sbin", "exim4")
    folders = [os.path.dirname(path) for path in glob.glob(os.path.join(HEAVY, "usr", "lib", "**", "*.so*"), recursive=True)]
    env = {**os.environ, "LD_LIBRARY_PATH": ":".join(sorted(set(folders)))}
    if not os.path.exists(binary):
        raise unittest.SkipTest(f"no Exim in {binary}: tests/run install unpacks it")
    said = subprocess.run([binary, "-bV"], env=env, capture_output=True, text=True, timeout=20)
    if " PROXY " not in said.stdout:
        raise unittest.SkipTest(f"{binary} knows no PROXY: {(said.stderr or said.stdout)[:200]}")
    return binary, env


class Exim:
    """Exim from an unpacked package: daemon, delivery into files. proxy=True: it takes PROXY headers from 127.0.0.1, and delivers nothing."""

    def __init__(self, case, proxy=False):
        need_root("Exim")
        binary, env, more = (heavy_exim() + ("hosts_proxy = 127.0.0.1\n",)) if proxy else (EXIM, None, "")
        if not os.path.exists(binary):
            raise unittest.SkipTest(f"no Exim in {binary}: tests/run install unpacks it")
        try:
            user = pwd.getpwnam("Debian-exim")
        except KeyError:
            raise unittest.SkipTest("Exim wants the user Debian-exim: tests/run install makes it") from None
        self.port = free_port()
        self.base = os.path.join(case.folder, "exim")
        self.box = os.path.join(self.base, "box")
        for folder in (self.base, self.box, os.path.join(self.base, "spool"), os.path.join(self.base, "log")):
            os.makedirs(folder)
            os.chown(folder, user.pw_uid, user.pw_gid)
        config = os.path.join(self.base, "exim.conf")
        with open(config, "w") as file:
            file.write(
                f"""
primary_hostname = exim.test
exim_path = {binary}
{more}keep_environment =
domainlist local_domains = weir.test
spool_directory = {self.base}/spool
log_file_path = {self.base}/log/%slog
local_interfaces = <; 127.0.0.1
daemon_smtp_ports = {self.port}
tls_advertise_hosts =
chunking_advertise_hosts = *
smtp_accept_max = 200
smtp_accept_max_per_connection = 1000
smtp_enforce_sync = true
message_size_limit = 50M
rfc1413_query_timeout = 0s
accept_8bitmime = true
smtputf8_advertise_hosts = *
acl_smtp_rcpt = rcpt
acl_smtp_data = accept
queue_run_max = 5
begin acl
rcpt:
  accept domains = +local_domains
  deny message = relay not permitted
begin routers
all:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  directory = {self.box}
  maildir_format = true
  user = Debian-exim
  delivery_date_add = false
  envelope_to_add = false
  return_path_add = false
"""
            )
        self.process = case.process([binary, "-C", config, "-bdf", "-odq" if proxy else "-odb"], f"exim-{self.port}", env=env)
        try:
            wait_listening(self.port)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def log(self):
        text = self.process.log()
        for path in glob.glob(os.path.join(self.base, "log", "*")):
            with open(path) as file:
                text += file.read()
        return text

    def messages(self):
        found = []
        for path in glob.glob(os.path.join(self.box, "new", "*")):
            with open(path, "rb") as file:
                found.append(without_added(file.read()))
        return found


class Aiosmtpd:
    """Python's aiosmtpd, in a process of its own."""

    def __init__(self, case):
        if not os.path.isdir(os.path.join(TOOLS, "python", "aiosmtpd")):
            raise unittest.SkipTest("no aiosmtpd: tests/run install fetches it")
        self.port = free_port()
        self.box = os.path.join(case.folder, f"aiosmtpd-{self.port}")
        os.makedirs(self.box)
        self.process = case.process([sys.executable, os.path.abspath(__file__), "aiosmtpd", str(self.port), self.box], f"aiosmtpd-{self.port}")
        try:
            wait_listening(self.port)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def log(self):
        return self.process.log()

    def messages(self):
        found = []
        for path in glob.glob(os.path.join(self.box, "*.eml")):
            with open(path, "rb") as file:
                found.append(file.read())
        return found


def serve_aiosmtpd(port, box):
    sys.path.append(os.path.join(TOOLS, "python"))
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import SMTP

    class Keep:
        count = 0

        async def handle_DATA(self, server, session, envelope):
            Keep.count += 1
            path = os.path.join(box, f"{Keep.count}")
            with open(path, "wb") as file:
                file.write(envelope.content)
            os.rename(path, path + ".eml")
            return f"250 2.0.0 Ok: kept as {Keep.count}"

    class Plain(Controller):
        def factory(self):
            return SMTP(self.handler, hostname="aiosmtpd.test", data_size_limit=30_000_000, enable_SMTPUTF8=True, decode_data=False)

    controller = Plain(Keep(), hostname="127.0.0.1", port=port)
    controller.start()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    if sys.argv[1:2] == ["aiosmtpd"]:
        serve_aiosmtpd(int(sys.argv[2]), sys.argv[3])
