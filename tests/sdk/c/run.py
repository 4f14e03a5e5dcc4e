#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A C program that uses libaviary, against a daemon of its own: run.py PROGRAM [ARGUMENT...]

The program prints TAP (tests/lib/tap.h) and runs twice: driven by itself, then with the library's thread
(AVIARY_TEST_THREADED). It finds the daemon by AVIARY_URL and AVIARY_API_KEY, and a directory to write into by
AVIARY_TEST_DIR. AVIARY_TEST_WRAP is put before it ("valgrind ...").
"""
import os
import re
import shlex
import subprocess
import sys
import tempfile

import aviary_test as t

LINE = re.compile(r"^(ok|not ok) \d+(.*)$")


def run(d, program, arguments, threaded):
    """Prints its lines anew numbered; returns what is wrong beyond them, or None."""
    with tempfile.TemporaryDirectory(prefix="aviary-sdk-") as directory:
        env = dict(os.environ, AVIARY_URL=d.url, AVIARY_API_KEY=d.key, AVIARY_TEST_DIR=directory,
                   AVIARY_TEST_DAEMON_PID=str(d.process.pid))
        if threaded:
            env["AVIARY_TEST_THREADED"] = "1"
        command = shlex.split(os.environ.get("AVIARY_TEST_WRAP", "")) + [program, *arguments]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as p:
            plan = None
            for line in p.stdout:
                m = LINE.match(line.rstrip("\n"))
                if m:
                    run.count += 1
                    print(f"{m[1]} {run.count}{' threaded' if threaded else ''}{m[2]}", flush=True)
                    run.failed += m[1] == "not ok"
                elif line.startswith("1.."):
                    plan = line
                else:
                    print(line.rstrip("\n"), flush=True)
        if plan is None or p.returncode not in (0, 1):
            return f"the program ended with {p.returncode} before its plan"
    return None


def main():
    program, arguments = sys.argv[1], sys.argv[2:]
    wrong = None
    run.count = run.failed = 0
    d = t.Daemon()
    try:
        d.start()
        for threaded in (False, True):
            wrong = wrong or run(d, program, arguments, threaded)
        left = [s["id"] for s in d.expect(200, "GET", "/v1/sandboxes").json() if s["status"] != "stopped"]
        run.count += 1
        run.failed += bool(left)
        print(f"{'not ok' if left else 'ok'} {run.count} - no sandbox is left {' '.join(left)}")
        d.delete_all()
        d.stop()
    except t.Failure as error:
        wrong = str(error)
    finally:
        if wrong or run.failed:
            print("\n".join("# " + line for line in d.log_tail().splitlines()))
        d.sweep()
        d.remove_dir()
    if wrong:
        print("Bail out! " + wrong.replace("\n", "\n# "))
    print(f"1..{run.count}")
    sys.exit(1 if wrong or run.failed else 0)


if __name__ == "__main__":
    main()
