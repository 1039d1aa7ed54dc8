#!/usr/bin/env python3
"""The figures of docs/PERFORMANCE.md: weir beside HAProxy in tcp mode, on this machine, in this run.

usage: bench-harness/figures.py [cpu] [memory] [idle] [steady] [--rounds N] [--scale F] [--sessions N] [--json FILE]

  cpu     a, b, c: CPU time of the proxy process per message, smtp-source -> proxy -> smtp-sink,
          50 sessions, as many source addresses, rounds of both proxies interleaved, medians
  memory  d: RSS growth per parked client and per idle session, CPU per message beside parked ones
  idle    d: CPU of a weir that has nothing to do
  steady  e: system calls and heap allocations per message on persistent sessions

Needs postfix (smtp-source, smtp-sink), haproxy, a C compiler; strace and perf for `steady`.
CPU time is utime + stime of /proc/PID/stat, all threads. What it does not show: latency, other machines' networks,
the kernel's work in softirq that is charged to whoever was running, and the load and sink, which share these cores.
"""

import argparse
import json
import os
import platform
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(HERE)
BIN = os.environ.get("WEIR_BIN", os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(TOP, "target")), "release", "weir"))
TICK = os.sysconf("SC_CLK_TCK")
PATHS = os.environ["PATH"] + ":/usr/sbin:/sbin:/usr/lib/postfix/sbin"
FOLDER = tempfile.mkdtemp(prefix="weir-figures-")
STARTED = []

WORKLOADS = {
    # name: (title, smtp-source flags, messages at scale 1, target ratio)
    "a": ("new connection per message, 4 KiB", ["-l", "4096"], 20000, 0.6),
    "b": ("persistent sessions, 4 KiB", ["-d", "-l", "4096"], 40000, 0.8),
    "c": ("persistent sessions, 100 KiB", ["-d", "-l", "102400"], 8000, 0.8),
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", nargs="*", choices=["cpu", "memory", "idle", "steady", []])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--scale", type=float, default=1.0, help="factor on the number of messages")
    arguments.add_argument("--sessions", type=int, default=50)
    arguments.add_argument("--held", type=int, default=15000, help="connections held open by `memory`")
    arguments.add_argument("--shards", type=int, default=2)
    arguments.add_argument("--json", default=None)
    arguments.add_argument("--weir-flags", default="", help="further flags for weir")
    global options
    options = arguments.parse_args()
    what = options.what or ["cpu", "memory", "idle", "steady"]
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    machine = describe_machine()
    print(machine_line(machine))
    results = {"machine": machine, "command": " ".join(sys.argv)}
    try:
        if "cpu" in what:
            results["cpu"] = cpu()
        if "memory" in what:
            results["memory"] = memory()
        if "idle" in what:
            results["idle"] = idle()
        if "steady" in what:
            results["steady"] = steady()
    finally:
        for child in STARTED:
            end(child)
        shutil.rmtree(FOLDER, ignore_errors=True)
    path = options.json or os.path.join(HERE, "results", time.strftime("%Y-%m-%d-%H%M") + ".json")
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w") as file:
        json.dump(results, file, indent=1)
    print(f"\nwritten to {os.path.relpath(path)}")


# -- a, b, c ---------------------------------------------------------------------------------------------------------


def cpu():
    sink = start_sink()
    proxies = {"haproxy": start_haproxy(sink.port), "weir": start_weir(sink.port)}
    figures = {}
    for name, (title, flags, count, target) in WORKLOADS.items():
        count = max(options.sessions, int(count * options.scale))
        for proxy in proxies.values():
            load(proxy.port, flags, max(options.sessions, count // 10))
        rounds = {who: [] for who in proxies}
        walls = {who: [] for who in proxies}
        for _ in range(options.rounds):
            for who, proxy in proxies.items():
                before = cpu_seconds(proxy.pid)
                began = time.monotonic()
                load(proxy.port, flags, count)
                walls[who].append(time.monotonic() - began)
                time.sleep(0.3)
                rounds[who].append((cpu_seconds(proxy.pid) - before) / count * 1e6)
        median = {who: statistics.median(values) for who, values in rounds.items()}
        ratio = median["weir"] / median["haproxy"]
        figures[name] = {
            "title": title, "messages": count, "rounds_us": rounds, "median_us": median, "ratio": ratio, "target": target,
            "messages_per_second": {who: count / statistics.median(values) for who, values in walls.items()},
        }
        if name == "a":
            print(f"\n{'':38}  {'CPU per message (µs), median of ' + str(options.rounds):>33}      {'ratio':>6}  target")
            print(f"{'':38}  {'HAProxy':>10}  {'weir':>10}  {'msg/s weir':>10}")
        rate = figures[name]["messages_per_second"]["weir"]
        verdict = "met" if ratio <= target else "MISSED"
        print(f"{name}. {title:35}  {median['haproxy']:10.1f}  {median['weir']:10.1f}  {rate:10.0f}  {ratio:8.2f}  {target} {verdict}", flush=True)
    for proxy in (*proxies.values(), sink):
        end(proxy)
    return figures


def load(port, flags, count, sessions=None, first="127.4.0.1"):
    """Sends `count` messages and fails loudly if one was not taken."""
    sessions = sessions or options.sessions
    argv = [tool("smtp-source"), "-s", str(sessions), "-m", str(count), "-f", "a@client.test", "-t", "b@weir.test", "-M", "client.test", *flags, f"127.0.0.1:{port}"]
    env = dict(os.environ, LD_PRELOAD=sources_library(), WEIR_SOURCES=f"{first} {sessions}")
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=600)
    if done.returncode != 0 or done.stderr.strip():
        raise SystemExit(f"smtp-source: {done.returncode} {done.stderr}")


def sources_library():
    path = os.path.join(FOLDER, "sources.so")
    if not os.path.exists(path):
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", path, os.path.join(HERE, "sources.c"), "-ldl"], check=True)
    return path


# -- d ---------------------------------------------------------------------------------------------------------------


def memory():
    figures = {}
    count = options.held
    sink = start_sink()

    weir = start_weir(sink.port, "--max-connections", str(count * 2))
    figures["idle_session_bytes"] = growth(weir, "ehlo", count)
    print(f"\nd. user memory per idle session after EHLO, {count} held: {figures['idle_session_bytes']:.0f} bytes (target 640)")
    end(weir)

    weir = start_weir(sink.port, "--max-connections", str(count * 2), "--greet-wait", "60s")
    figures["greet_wait_bytes"] = growth(weir, "silent", count)
    print(f"d. user memory per client that waits for its greeting:   {figures['greet_wait_bytes']:.0f} bytes (target 256)")
    end(weir)

    # Only the early talkers are parked; the load comes from an allowed network. The drip is slow, so that what is
    # measured is the presence of the parked, not their bytes.
    allow = os.path.join(FOLDER, "allow")
    with open(allow, "w") as file:
        file.write("127.4.0.0/16\n")
    flags = ["--max-connections", str(count * 2), "--greet-wait", "100ms", "--on", "pregreet=stutter", "--stutter-interval", "30s", "--allow-list", allow]
    weir = start_weir(sink.port, *flags)
    messages = max(options.sessions, int(WORKLOADS["b"][2] * options.scale))
    figures["parked_bytes"], holder = growth(weir, "early", count, keep=True)
    print(f"d. user memory per tarpitted (stuttered) client:         {figures['parked_bytes']:.0f} bytes (target 256)")
    # A second weir without any, and rounds of both interleaved: the machine's mood is the same for both.
    other = start_weir(sink.port, *flags)
    rounds = [(busy(other, messages), busy(weir, messages)) for _ in range(options.rounds)]
    without, beside = (statistics.median(column) for column in zip(*rounds))
    end(other)
    figures["cpu_beside_parked"] = {"without_us": without, "beside_us": beside, "ratio": beside / without}
    print(f"d. CPU per message beside {count} parked: {beside:.1f} µs, without {without:.1f} µs, ratio {beside / without:.2f} (target 1.1)")
    resting = cpu_share(weir.pid, 10)
    figures["cpu_share_with_parked"] = resting
    print(f"   CPU of a core with {count} parked and nothing else:   {resting * 100:.2f} %")
    end(holder)
    end(weir)
    end(sink)
    return figures


def busy(weir, messages):
    before = cpu_seconds(weir.pid)
    load(weir.port, WORKLOADS["b"][1], messages)
    time.sleep(0.3)
    return (cpu_seconds(weir.pid) - before) / messages * 1e6


def growth(weir, mode, count, keep=False):
    """RSS growth per connection; a first thousand warms up what is allocated once."""
    warm = hold(weir.port, mode, 1000)
    end(warm)
    time.sleep(2)
    before = rss_bytes(weir.pid)
    holder = hold(weir.port, mode, count)
    time.sleep(2)
    each = (rss_bytes(weir.pid) - before) / count
    really = gauge(weir, "weir_sessions_active" if mode == "ehlo" else "weir_pit_rows")
    if really < count * 0.98:
        raise SystemExit(f"weir holds {really:.0f} of {count} {mode} clients: the figure would be wrong")
    if keep:
        return each, holder
    end(holder)
    return each


def hold(port, mode, count):
    """A process of its own that holds connections: its files are not weir's."""
    child = spawn([sys.executable, os.path.join(HERE, "hold.py"), str(port), mode, str(count)], "hold", stdout=subprocess.PIPE)
    line = child.stdout.readline().decode().strip()
    if not line.startswith("holding "):
        raise SystemExit(f"hold.py: {line!r}")
    held = int(line.split()[1])
    if held < count:
        raise SystemExit(f"only {held} of {count} connections could be held")
    return child


def idle():
    sink = start_sink()
    weir = start_weir(sink.port)
    load(weir.port, ["-l", "4096"], 200)
    time.sleep(2)
    share = cpu_share(weir.pid, 20)
    print(f"\nd. CPU of an idle weir: {share * 100:.2f} % of a core (target 1 %)")
    end(weir)
    end(sink)
    return {"share": share}


def cpu_share(pid, seconds):
    before = cpu_nanoseconds(pid)
    time.sleep(seconds)
    return (cpu_nanoseconds(pid) - before) / 1e9 / seconds


# -- e ---------------------------------------------------------------------------------------------------------------


def steady():
    figures = {}
    sink = start_sink()
    weir = start_weir(sink.port)
    messages = max(options.sessions, int(5000 * options.scale))
    load(weir.port, ["-d", "-l", "4096"], messages)
    figures["syscalls"] = system_calls(weir, messages)
    figures["allocations"] = allocations(weir, messages)
    end(weir)
    end(sink)
    return figures


def system_calls(weir, messages):
    """Counted by strace; it slows the proxy down, which makes batches larger: perf counts beside it where it may."""
    counted = {}
    if shutil.which("perf"):
        log = os.path.join(FOLDER, "perf.txt")
        perf = spawn(["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", str(weir.pid), "-o", log], "perf")
        time.sleep(1)
        load(weir.port, ["-d", "-l", "4096"], messages)
        perf.send_signal(2)
        perf.wait(20)
        found = re.search(r"^(\d+),", open(log).read(), re.M) if os.path.exists(log) else None
        if found:
            counted["perf_all"] = int(found.group(1)) / messages
            print(f"\ne. system calls per message (perf): {counted['perf_all']:.2f}")
        else:
            print("\ne. perf may not count system calls here")
    if shutil.which("strace"):
        log = os.path.join(FOLDER, "strace.txt")
        strace = spawn(["strace", "-f", "-c", "-U", "name,calls", "-p", str(weir.pid), "-o", log], "strace")
        time.sleep(1)
        load(weir.port, ["-d", "-l", "4096"], messages)
        strace.send_signal(2)
        strace.wait(20)
        rows = re.findall(r"^\s*(\w+)\s+(\d+)\s*$", open(log).read(), re.M)
        counted["strace"] = {name: int(calls) / messages for name, calls in rows if name != "total"}
        words = ", ".join(f"{name} {each:.2f}" for name, each in sorted(counted["strace"].items(), key=lambda r: -r[1])[:6])
        print(f"e. system calls per message (strace): {words}")
    return counted


ALLOCATORS = ("mi_malloc", "mi_malloc_aligned", "mi_zalloc", "mi_zalloc_aligned", "mi_realloc", "mi_realloc_aligned", "mi_malloc_small", "mi_calloc")


def allocations(weir, messages):
    """Heap allocations, counted by uprobes on the allocator that is linked into the binary."""
    if not shutil.which("perf"):
        return {"reason": "perf is not installed"}
    made = []
    try:
        for name in ALLOCATORS:
            done = subprocess.run(["perf", "probe", "-q", "-x", BIN, "--add", f"weir_{name}={name}"], capture_output=True, text=True)
            if done.returncode == 0:
                made.append(f"probe_weir:weir_{name}")
        if not made:
            reason = (done.stderr.strip().splitlines() or ["perf probe failed"])[-1]
            print(f"e. allocations were not counted: {reason}")
            return {"reason": reason}
        figures = {}
        for flags, title in ((["-d", "-l", "4096"], "persistent"), (["-l", "4096"], "new connection")):
            log = os.path.join(FOLDER, "allocations.txt")
            perf = spawn(["perf", "stat", "-x", ",", "-e", ",".join(made), "-p", str(weir.pid), "-o", log], "perf")
            time.sleep(1)
            load(weir.port, flags, messages)
            perf.send_signal(2)
            perf.wait(20)
            total = sum(int(n) for n in re.findall(r"^(\d+),", open(log).read(), re.M))
            figures[title] = total / messages
            print(f"e. heap allocations per message, {title}: {total / messages:.3f} ({total} in {messages})")
        return figures
    finally:
        for event in made:
            subprocess.run(["perf", "probe", "-q", "--del", event], capture_output=True)


# -- processes -------------------------------------------------------------------------------------------------------


def start_sink():
    port = free_port()
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    sink = spawn([tool("smtp-sink"), *user, "-m", "2000", f"127.0.0.1:{port}", "2000"], "smtp-sink")
    return listening(sink, port)


def start_haproxy(upstream):
    port = free_port()
    config = os.path.join(FOLDER, f"haproxy-{port}.cfg")
    with open(config, "w") as file:
        file.write(
            f"global\n  nbthread 2\n  maxconn 8000\ndefaults\n  mode tcp\n  timeout connect 30s\n  timeout client 300s\n  timeout server 300s\n"
            f"listen smtp\n  bind 127.0.0.1:{port} backlog 4096\n  server sink 127.0.0.1:{upstream}\n"
        )
    return listening(spawn([tool("haproxy"), "-db", "-f", config], "haproxy"), port)


def start_weir(upstream, *flags):
    port, admin = free_port(), free_port()
    argv = [
        BIN, "--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{upstream}", "--relay-domains", "any", "--relay-test", "no",
        "--hostname", "weir.test", "--shards", str(options.shards), "--admin", f"127.0.0.1:{admin}", "--max-messages", "0",
        *flags, *options.weir_flags.split(),
    ]
    clean = {n: v for n, v in os.environ.items() if not n.startswith("WEIR_")}
    weir = listening(spawn(argv, "weir", env=clean), port)
    weir.admin = admin
    time.sleep(1)
    return weir


def spawn(argv, name, **more):
    more.setdefault("stdout", open(os.path.join(FOLDER, f"{name}.out"), "ab"))
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=open(os.path.join(FOLDER, f"{name}.err"), "ab"), **more)
    STARTED.append(child)
    return child


def listening(child, port):
    child.port = port
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if child.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return child
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{child.args[0]} does not listen on {port}: {[open(os.path.join(FOLDER, f)).read()[-800:] for f in os.listdir(FOLDER) if f.endswith('.err')]}")


def end(child):
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(3)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def tool(name):
    path = shutil.which(name, path=PATHS)
    if not path:
        raise SystemExit(f"{name} is missing: apt-get install postfix haproxy")
    return path


def free_port():
    while True:
        port = 10000 + int.from_bytes(os.urandom(2), "big") % 20000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


# -- readings --------------------------------------------------------------------------------------------------------


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def cpu_nanoseconds(pid):
    """Finer than a tick: time on a core, all threads, from the scheduler."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        total += int(open(f"/proc/{pid}/task/{thread}/schedstat").read().split()[0])
    return total


def rss_bytes(pid):
    return int(re.search(r"^Rss:\s+(\d+)", open(f"/proc/{pid}/smaps_rollup").read(), re.M).group(1)) * 1024


def describe_machine():
    cpuinfo = open("/proc/cpuinfo").read()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    commit = subprocess.run(["git", "-C", TOP, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"), "kernel": platform.release(), "cores": os.cpu_count(), "model": model.group(1) if model else "?",
        "commit": commit, "load_average": os.getloadavg()[0], "haproxy": version([tool("haproxy"), "-v"]), "postfix": version([tool("postconf"), "-d", "-h", "mail_version"]),
        "weir": version([BIN, "--version"]),
    }


def gauge(weir, name):
    """Sum over all shards, as the admin page tells it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{weir.admin}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{") or line.startswith(name + " "))


def machine_line(m):
    quiet = "" if m["load_average"] < 0.5 else f"; NOT QUIET: load average {m['load_average']:.1f} before the run"
    return f"{m['date']}, commit {m['commit']}, {m['cores']} cores {m['model']}, Linux {m['kernel']}, {m['weir']}, {m['haproxy'].split(' - ')[0]}, Postfix {m['postfix']}{quiet}"


def version(argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    return (done.stdout.splitlines() or ["?"])[0].strip()


if __name__ == "__main__":
    main()
