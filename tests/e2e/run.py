#!/usr/bin/env python3
"""Runs the end-to-end modules, two at a time, each in a process of its own with a time limit.

usage: tests/e2e/run.py [module ...]      (hostile, servers, ...; default: all)
"""

import glob
import os
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT = int(os.environ.get("WEIR_E2E_LIMIT", "420"))  # seconds a module
LANES = int(os.environ.get("WEIR_E2E_LANES", "2"))


def main():
    wanted = sys.argv[1:]
    modules = sorted(os.path.basename(p)[:-3] for p in glob.glob(os.path.join(HERE, "test_*.py")))
    if wanted:
        unknown = [w for w in wanted if f"test_{w}" not in modules]
        if unknown:
            print(f"no such module: {' '.join(unknown)}; there are: {' '.join(m[5:] for m in modules)}")
            return 64
        modules = [m for m in modules if m[5:] in wanted]
    binary = os.environ.get("WEIR_BIN", "")
    if not os.access(binary, os.X_OK):
        print(f"no binary at WEIR_BIN={binary!r}: run tests/run e2e")
        return 66
    queue, results, lock = list(modules), {}, threading.Lock()

    def lane():
        while True:
            with lock:
                if not queue:
                    return
                module = queue.pop(0)
            began = time.monotonic()
            code, text = run(module)
            with lock:
                results[module] = code
                skipped = text.count("... skipped")
                print(f"{'ok    ' if code == 0 else 'FAILED'} {module}  {time.monotonic() - began:.0f} s" + (f", {skipped} skipped" if skipped else ""), flush=True)
                if code != 0 or os.environ.get("WEIR_E2E_VERBOSE"):
                    print(text, flush=True)
                elif skipped:
                    print("\n".join(line for line in text.splitlines() if "... skipped" in line), flush=True)

    lanes = [threading.Thread(target=lane) for _ in range(LANES)]
    for one in lanes:
        one.start()
    for one in lanes:
        one.join()
    bad = [m for m in modules if results[m] != 0]
    print(f"end to end: {len(modules) - len(bad)} of {len(modules)} modules passed" + (f", failed: {' '.join(bad)}" if bad else ""))
    return 1 if bad else 0


def run(module):
    argv = [sys.executable, "-W", "ignore::ResourceWarning", "-m", "unittest", "-v", module]
    child = subprocess.Popen(argv, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="backslashreplace", start_new_session=True)
    try:
        text, _ = child.communicate(timeout=LIMIT)
        return child.returncode, text
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)  # the session this function started, by its id
        text, _ = child.communicate()
        return 124, text + f"\n{module} took more than {LIMIT} s\n"


if __name__ == "__main__":
    sys.exit(main())
