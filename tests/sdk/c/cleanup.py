#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sandboxes that end with their program: cleanup.py PROGRAM (cleanup_child.c), really killed, against a real daemon."""
import os
import shlex
import signal
import subprocess
import sys
import time

import aviary_test as t

BUILD = os.path.abspath(os.environ.get("AVIARY_BUILD", "build"))
ATEXIT, SIGNALS, WATCHDOG = 1, 2, 4
PROGRAM = shlex.split(os.environ.get("AVIARY_TEST_WRAP", "")) + [sys.argv[1]]


class Child:
    def __init__(self, d, flags, how, threaded=False, shell=False):
        env = dict(os.environ, AVIARY_URL=d.url, AVIARY_API_KEY=d.key,
                   AVIARY_WATCHDOG=os.path.join(BUILD, "src", "client", "aviary-watchdog"))
        if threaded:
            env["AVIARY_TEST_THREADED"] = "1"
        words = ["sh", "-c", '"$@"; echo "code $?"', "sh"] if shell else []
        self.p = subprocess.Popen(words + PROGRAM + [str(flags), how], env=env, text=True,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.id = None

    def line(self):
        return self.p.stdout.readline().strip()

    def made(self):
        self.id = self.line()
        t.equal(self.id[:2], "sb", f"an id, not {self.id!r}")
        return self.id

    def ready(self):
        t.equal(self.line(), "ready", "it waits")

    def ask(self, word):
        self.p.stdin.write(word + "\n")
        self.p.stdin.flush()

    def end(self):
        code = self.p.wait(60 * t.SLOW)
        self.p.stdin.close()
        self.p.stdout.close()
        return code


def status(d, sandbox):
    return d.expect(200, "GET", f"/v1/sandboxes/{sandbox}").json()["status"]


def gone(d, sandbox, seconds=0):
    """It has ended, within that time."""
    end = time.monotonic() + seconds * t.SLOW
    while status(d, sandbox) != "stopped":
        if time.monotonic() > end:
            raise t.Failure(f"{sandbox} is still {status(d, sandbox)}")
        time.sleep(0.05)


def none_lives(d, seconds):
    end = time.monotonic() + seconds * t.SLOW
    while True:
        left = [s["id"] for s in d.expect(200, "GET", "/v1/sandboxes").json()]
        if not left:
            return
        if time.monotonic() > end:
            raise t.Failure(f"still there: {left}")
        time.sleep(0.05)


def test_exit_keeps_its_code(d):
    for threaded in (False, True):
        c = Child(d, ATEXIT, "exit7", threaded)
        c.made()
        t.equal(c.end(), 7, "exit code")
        gone(d, c.id)


def test_exit_after_the_client_was_freed(d):
    c = Child(d, ATEXIT | SIGNALS, "free")
    c.made()
    t.equal(c.end(), 0, "exit code")
    gone(d, c.id)


def test_first_signal_ends_it_by_that_signal(d):
    for sig, threaded in ((signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGTERM, True)):
        c = Child(d, ATEXIT | SIGNALS, "wait", threaded)
        c.made()
        c.ready()
        c.p.send_signal(sig)
        t.equal(c.end(), -sig, "died by the signal")
        gone(d, c.id)


def test_shells_see_143_and_130(d):
    for sig, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        c = Child(d, SIGNALS, "wait", shell=True)
        c.made()
        c.ready()
        with open(f"/proc/{c.p.pid}/task/{c.p.pid}/children", encoding="ascii") as f:
            os.kill(int(f.read().split()[0]), sig)
        t.equal(c.line(), f"code {code}", f"$? after signal {sig}")
        t.equal(c.end(), 0, "the shell")
        gone(d, c.id)


def test_second_signal_while_stopping_ends_it_at_once(d):
    c = Child(d, ATEXIT | SIGNALS, "slow")
    c.made()
    c.ready()
    began = time.monotonic()
    c.p.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    t.equal(c.p.poll(), None, "it gives the stop its grace")
    c.p.send_signal(signal.SIGINT)
    t.equal(c.end(), 128 + signal.SIGINT, "exit code")
    t.ok(time.monotonic() - began < 4.5 * t.SLOW, "without waiting for the grace")
    d.expect(204, "DELETE", f"/v1/sandboxes/{c.id}")


def test_ignored_before_goes_on_and_again(d):
    c = Child(d, SIGNALS, "ignore")
    c.made()
    c.ready()
    c.p.send_signal(signal.SIGTERM)
    gone(d, c.id, 30)
    c.ask("x")
    t.equal(c.line(), "alive", "it goes on")
    c.ask("n")
    second = c.made()
    t.equal(c.line(), "alive", "another sandbox")
    c.ask("c")
    t.equal(c.line(), "count 1", "tracked")
    t.equal(c.line(), "alive", "")
    time.sleep(0.2)
    c.p.send_signal(signal.SIGINT)
    gone(d, second, 30)
    c.ask("q")
    t.equal(c.end(), 0, "and ends by itself")


def test_handler_of_before_is_called_afterwards(d):
    c = Child(d, SIGNALS, "handler")
    c.made()
    c.ready()
    c.p.send_signal(signal.SIGTERM)
    line = c.line()
    t.equal(line, f"handled {int(signal.SIGTERM)} by parent", "with what the signal brought")
    gone(d, c.id)
    t.equal(c.end(), 9, "its own exit code")


def test_forked_children_have_nothing_of_it(d):
    c = Child(d, ATEXIT | SIGNALS, "fork")
    c.made()
    t.equal(c.line(), "child 3", "exit in a child")
    t.equal(c.line(), "child 143", "a signal in a child")
    c.ready()
    t.equal(status(d, c.id), "running", "touch nothing")
    c.ask("q")
    t.equal(c.end(), 0, "")
    t.equal(status(d, c.id), "running", "nor does a program that has removed it")
    d.expect(204, "DELETE", f"/v1/sandboxes/{c.id}")


def test_detached_and_removed_live_on(d):
    for how in ("detach", "remove"):
        c = Child(d, ATEXIT | SIGNALS | WATCHDOG, how)
        c.made()
        t.equal(c.end(), 0, "exit code")
        time.sleep(0.5)
        t.equal(status(d, c.id), "running", how)
        d.expect(204, "DELETE", f"/v1/sandboxes/{c.id}")


def test_watchdog_covers_what_nothing_else_does(d):
    for how, code in (("crash", -signal.SIGABRT), ("_exit", 5)):
        c = Child(d, WATCHDOG, how)
        c.made()
        t.equal(c.end(), code, how)
        gone(d, c.id, 30)
    c = Child(d, ATEXIT | SIGNALS | WATCHDOG, "wait")
    c.made()
    c.ready()
    c.p.kill()
    t.equal(c.end(), -signal.SIGKILL, "killed")
    gone(d, c.id, 30)


def test_watchdog_when_the_program_becomes_another(d):
    c = Child(d, WATCHDOG, "exec")
    c.made()
    gone(d, c.id, 30)
    t.equal(c.p.poll(), None, "the other program lives")
    c.p.kill()
    c.end()


def test_killed_while_a_create_is_on_its_way(d):
    for _ in range(3):
        c = Child(d, WATCHDOG, "create")
        t.equal(c.end(), -signal.SIGKILL, "killed")
    time.sleep(0.3)  # the request may be read only now
    none_lives(d, 30)


def watchdogs():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().split(b"\0")
            with open(f"/proc/{pid}/environ", "rb") as f:
                environment = f.read()
        except OSError:
            continue
        if words[0] == b"aviary-watchdog":
            found.append((int(pid), words, environment))
    return found


def test_watchdog_is_told_no_secret_where_others_see_it(d):
    before = {w[0] for w in watchdogs()}
    c = Child(d, WATCHDOG, "wait")
    c.made()
    c.ready()
    mine = [w for w in watchdogs() if w[0] not in before]
    t.equal(len(mine), 1, "one watchdog")
    pid, words, environment = mine[0]
    t.ok(d.key.encode() not in b" ".join(words) + environment, "no key in its arguments and environment")
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        t.ok(int(f.read().rsplit(")", 1)[1].split()[1]) != c.p.pid, "it is not the program's child")
    c.p.kill()
    c.end()
    gone(d, c.id, 30)
    end = time.monotonic() + 30 * t.SLOW
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.05)
    t.ok(not os.path.exists(f"/proc/{pid}"), "it ends when its work is done")


def test_watchdog_that_stalls_harms_no_program_that_lives(d):
    before = {w[0] for w in watchdogs()}
    c = Child(d, WATCHDOG, "ignore")
    c.made()
    c.ready()
    pid = next(w[0] for w in watchdogs() if w[0] not in before)
    os.kill(pid, signal.SIGSTOP)
    try:
        c.ask("b")
        t.equal(c.line(), "watched 0", "the program is told")
        t.equal(c.line(), "alive", "and goes on")
    finally:
        os.kill(pid, signal.SIGCONT)
    time.sleep(1)
    t.equal(status(d, c.id), "running", "as does its sandbox")
    c.p.kill()
    c.end()
    gone(d, c.id, 30)


def test_no_watchdog_program(d):
    env = dict(os.environ, AVIARY_URL=d.url, AVIARY_API_KEY=d.key, AVIARY_WATCHDOG="/nonexistent/watchdog")
    p = subprocess.run(PROGRAM + [str(WATCHDOG), "exit7"], env=env, capture_output=True, text=True,
                       timeout=60 * t.SLOW, check=False)
    t.equal(p.returncode, 99, "refused")
    t.contains(p.stdout, "AVIARY_WATCHDOG", "with the cure")
    p = subprocess.run(PROGRAM + ["64", "exit7"], env=env, capture_output=True, text=True, timeout=60 * t.SLOW,
                       check=False)
    t.contains(p.stdout, "unknown bit", "flags that are none")


def main():
    tests = [(name[5:].replace("_", " "), f) for name, f in globals().items() if name.startswith("test_")]
    failed = 0
    d = t.Daemon()
    try:
        d.start()
        for n, (name, f) in enumerate(tests, 1):
            try:
                f(d)
                print(f"ok {n} - {name}", flush=True)
            except (t.Failure, subprocess.TimeoutExpired) as error:
                failed += 1
                print(f"not ok {n} - {name}\n# {error}", flush=True)
        d.delete_all()
        d.stop()
    finally:
        d.sweep()
        d.remove_dir()
    print(f"1..{len(tests)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
