#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Guests that do what they can against the daemon: the agent's place taken by a liar, panics, ends, full disks, no memory. T53.

Each in a machine of its own, with two bystanders, a jail and a machine, that answer all along. What is asked of the hostile one is answered
in time with the reason, a delete always works, and nothing of it is left. AVIARY_TEST_LONG=1: those too that mostly wait."""
import concurrent.futures
import os
import threading
import time

import aviary_test
import vm_world
from aviary_test import contains, equal, ok, wait_for

S = "/v1/sandboxes"
TOOL = os.path.join(vm_world.BUILD, "tests", "vm", "hostile_guest")
world = {}


class Bystanders:
    """A jail and a machine, asked again and again until the end."""

    def __init__(self, d):
        self.d, self.ids = d, [d.create()["id"], vm_world.create(d)]
        self.answers, self.wrong, self.longest = 0, [], 0.0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.over.wait(0.3):
            for sandbox in self.ids:
                began = time.monotonic()
                try:
                    r = self.d.request("POST", f"{S}/{sandbox}/exec", {"cmd": "/bin/echo", "args": ["here"]}, timeout=30)
                    if r.status != 200 or r.json()["stdout"] != "here\n":
                        self.wrong.append(f"{sandbox}: {r.status} {r.body[:200]}")
                except OSError as e:
                    self.wrong.append(f"{sandbox}: {e}")
                self.answers += 1
                self.longest = max(self.longest, time.monotonic() - began)

    def end(self):
        self.over.set()
        self.thread.join(60)
        ok(not self.wrong, f"of {self.answers} answers: {self.wrong[:3]}")
        ok(self.answers > 10, f"only {self.answers} answers")
        print(f"# bystanders gave {self.answers} answers, the slowest after {self.longest:.2f} s")
        for sandbox in self.ids:
            self.d.delete(sandbox)


def start(d, script):
    """A machine in which root runs a script in the background."""
    sandbox = vm_world.create(d)
    d.expect(202, "POST", f"{S}/{sandbox}/exec", {"cmd": "/bin/sh", "args": ["-c", script], "background": True})
    return sandbox


def ask(d, sandbox, verb, body=None):
    return d.request("POST", f"{S}/{sandbox}/{verb}", body or {}, timeout=100)


def refused(r, *words):
    """An error that names its reason, of which one of the words is part."""
    ok(r.status in (409, 500, 502, 504), f"{r.status} {r.body}")
    ok(any(w in r.message for w in words), f"the reason: {r.message}")
    ok(r.message.isprintable(), f"for terminals: {r.message!r}")


def ended(d, sandbox, *words):
    """It has ended by itself, and says why."""
    def over():
        r = d.request("GET", f"{S}/{sandbox}")
        return r.json() if r.status != 200 or r.json()["status"] == "stopped" else None
    now = wait_for(over, 30, f"{sandbox} has ended")
    text = now.get("reason_text", "")
    ok(any(w in text for w in words), f"why it ended: {now}")
    ok(text.isprintable(), f"for terminals: {text!r}")


def taken(d, mode):
    """A machine in which the agent's place has been taken: what is started there is not answered any more."""
    sandbox = start(d, f"exec hostile_guest {mode}")

    def mute():
        r = d.request("POST", f"{S}/{sandbox}/exec", {"cmd": "/bin/true", "timeout_sec": 2}, timeout=60)
        return r if r.status != 200 else None
    refused(wait_for(mute, 30, "the agent's place is taken"), "agent")
    return sandbox


def mute(d, mode):
    """It cannot be talked to: asked once more, then it is at its end."""
    sandbox = taken(d, mode)
    refused(ask(d, sandbox, "pause"), "the guest")
    ended(d, sandbox, "the guest does not answer any more", "its virtual machine does not answer")
    return sandbox


def liar(d, mode, *words):
    """Pauses as told, and lies when it goes on: it is not handed over, and stays paused."""
    sandbox = taken(d, mode)
    equal(ask(d, sandbox, "pause").status, 200, f"{mode}: pause")
    refused(ask(d, sandbox, "resume"), *words)
    equal(d.expect(200, "GET", f"{S}/{sandbox}").json()["status"], "paused", f"{mode}: after a resume that failed")
    return sandbox


def dies(d, script, *words):
    sandbox = start(d, f"sleep 1; {script}")
    ended(d, sandbox, *words)
    return sandbox


def full_disk(d):
    sandbox = vm_world.create(d)
    r = d.exec(sandbox, "dd if=/dev/zero of=/fill bs=1M; echo x >/more; echo end")
    contains(r["stderr"] + r["stdout"], "No space left", "its disk is full")
    made = f"full-{os.getpid()}"
    d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sandbox, "name": made, "keep_running": True}, timeout=100)
    for verb in ("pause", "resume"):
        equal(ask(d, sandbox, verb).status, 200, f"{verb} with a full disk")
    equal(d.exec(sandbox, "rm /fill; echo x >/more; cat /more")["stdout"], "x\n", "its disk, emptied")
    d.expect(204, "DELETE", f"/v1/snapshots/{made}")
    return sandbox


def memory_events(sandbox):
    """What the host's kernel counted for its cgroup: times at the limit's end, and kills."""
    found = 0
    for top, _dirs, files in os.walk("/sys/fs/cgroup"):
        if os.path.basename(top) != sandbox:
            continue
        for name, key in (("memory.events", "oom_kill"), ("memory.oom_control", "oom_kill")):
            if name in files:
                with open(os.path.join(top, name), encoding="ascii") as f:
                    found += sum(int(line.split()[1]) for line in f if line.split()[0] == key)
    return found


def no_memory(d):
    sandbox = vm_world.create(d)
    r = d.exec(sandbox, "for i in 1 2 3; do tail /dev/zero >/dev/null 2>&1; echo $?; done", timeout_sec=50)
    equal(r["stdout"], "137\n" * 3, "what takes all memory is killed inside")
    equal(memory_events(sandbox), 0, "kills outside")
    for verb in ("pause", "resume"):
        equal(ask(d, sandbox, verb).status, 200, f"{verb} after that")
    equal(d.exec(sandbox, "echo on")["stdout"], "on\n", "it goes on")
    return sandbox


def spins(d):
    sandbox = start(d, "while :; do :; done & while :; do :; done & while :; do :; done")
    for verb in ("pause", "resume"):
        equal(ask(d, sandbox, verb).status, 200, f"{verb} of one that spins")
    return sandbox


SLOW_ONES = ("silent", "lengths", "nonce", "another_name", "another_time", "never_goes_on", "powers_off")
CASES = {
    "silent": (mute, "silent"), "garbage": (mute, "garbage"), "flood": (mute, "flood"), "lengths": (mute, "lengths"), "nonce": (liar, "nonce", "the guest does not answer", "not done within"),
    "another_machine_id": (liar, "machine", "another machine-id"), "another_name": (liar, "name", "another host name"),
    "another_time": (liar, "clock", "another clock"), "another_version": (liar, "version", "another version"),
    "never_goes_on": (liar, "deaf", "letting the guest go on"),
    "record_for_terminals": (dies, "exec hostile_guest record", "owned"),
    "panic": (dies, "echo c >/proc/sysrq-trigger", "the guest's kernel panicked"),
    "agent_ended": (dies, "kill -TERM 1", "the guest powered off", "told to end"), "powers_off": (dies, "poweroff -f", "the guest powered off"),
    "restarts": (dies, "reboot -f", "the guest restarted"),
    "disk_full": (full_disk,), "memory_full": (no_memory,), "spins": (spins,),
}
if "AVIARY_TEST_LONG" not in os.environ:
    CASES = {name: case for name, case in CASES.items() if name not in SLOW_ONES}


def live_and_leave(d, name):
    function, *args = CASES[name]
    began = time.monotonic()
    sandbox = function(d, *args)
    d.expect(204, "DELETE", f"{S}/{sandbox}", timeout=60)
    vm_world.gone(d, sandbox)
    return time.monotonic() - began


def test_a_first_machine(d):
    vm_world.furnish(d, [TOOL])
    world["bystanders"] = Bystanders(d)
    # They mostly wait, for limits of time.
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=6)
    world["lives"] = {name: pool.submit(live_and_leave, d, name) for name in CASES}


test_a_first_machine.timeout_s = 240


def case(name):
    def test(_d):
        print(f"# {world['lives'][name].result():.1f} s")
    test.__name__ = f"test_guest_{name}"
    test.timeout_s = 200
    return test


for each in CASES:
    globals()[f"test_guest_{each}"] = case(each)


def test_bystanders(_d):
    world["bystanders"].end()


if __name__ == "__main__":
    aviary_test.main(globals())
