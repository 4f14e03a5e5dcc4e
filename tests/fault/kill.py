#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of every part at every step. T49, T54, and DESIGN's promise: sandboxes outlive the daemon.

After each death: what was running runs on (its processes never noticed), every answered create is there, a
delete that was answered stays deleted, and no process, mount, cgroup, namespace or socket has no owner.
"""
import http.client
import os
import re
import signal
import sys
import threading
import time

import aviary_test
import death
from aviary_test import Daemon, Failure, cgroups_of, equal, ok, wait_for
from death import failpoints, ready


def counter(d):
    """A sandbox in which a program counts; returns its id and pid inside."""
    sandbox = d.create()["id"]
    r = d.expect(202, "POST", f"/v1/sandboxes/{sandbox}/exec", {
        "cmd": "/bin/sh", "args": ["-c", "n=0; while :; do n=$((n+1)); echo $n >/tmp/count; sleep 0.02; done"],
        "background": True, "tag": "counter"}).json()
    return sandbox, r["pid"]


def counts_on(d, sandbox, pid):
    read = "cat /tmp/count"
    first = int(d.exec(sandbox, f"sleep 0.1; {read}")["stdout"] or 0)
    wait_for(lambda: int(d.exec(sandbox, read)["stdout"] or 0) > first, 10, f"{sandbox} counts on")
    procs = d.expect(200, "GET", f"/v1/sandboxes/{sandbox}/processes").json()["processes"]
    ok(any(p["pid"] == pid for p in procs), f"process {pid} is the same as before: {procs}")


def listed(d):
    return {s["id"] for s in d.expect(200, "GET", "/v1/sandboxes").json()}


def instance_tag(d):
    """As aviary-spawn names the cgroups of a state directory: FNV-1a of its path."""
    h = 2166136261
    for byte in d.state.encode():
        h = ((h ^ byte) * 16777619) & 0xffffffff
    return f"aviary-{h:08x}"


def kernel_ids(d):
    """Sandbox ids of this instance that the kernel still knows: processes, cgroups, run directories."""
    found = {entry for entry in os.listdir(d.run) if entry.startswith("sb")}
    tag = instance_tag(d)
    for top, dirs, _files in os.walk("/sys/fs/cgroup"):
        if os.path.basename(top) == tag:
            found |= {x for x in dirs if x.startswith("sb")}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/cgroup", encoding="ascii") as f:
                m = re.search(tag + r"/(sb[0-9a-z]{25})", f.read())
        except OSError:
            continue
        if m:
            found.add(m.group(1))
    return found


def settles(d, timeout_s=15):
    """The kernel and the API name the same sandboxes, those of the pool apart."""
    def same():
        names = listed(d)
        d.ids |= names
        pool = int(sum(v for k, v in d.metrics().items() if k.startswith("aviary_pool_sandboxes")))
        extra = kernel_ids(d) - names
        return names <= kernel_ids(d) and len(extra) == pool
    try:
        wait_for(same, timeout_s, "kernel and API agree")
    except Failure:
        raise Failure(f"the kernel knows {sorted(kernel_ids(d) - listed(d))} beyond the API, "
                      f"the API {sorted(listed(d) - kernel_ids(d))} beyond the kernel") from None


def kill_role(d, role):
    pid = d.pids()[role]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: d.pids().get(role, pid) != pid, 15, f"a new {role}")


def test_daemon_killed(d):
    sandbox, pid = counter(d)
    kill_role(d, "daemon")
    ready(d)
    counts_on(d, sandbox, pid)
    settles(d)
    d.delete(sandbox)
    settles(d)


def test_worker_killed(d):
    sandbox, pid = counter(d)
    kill_role(d, "worker")
    ready(d)
    counts_on(d, sandbox, pid)
    other = d.create()["id"]
    equal(d.exec(other, "echo new")["stdout"], "new\n", "a sandbox made by the new worker")
    d.delete(sandbox)
    d.delete(other)
    settles(d)


def test_both_killed(d):
    sandbox, pid = counter(d)
    for role in ("worker", "daemon"):
        os.kill(d.pids()[role], signal.SIGKILL)
    time.sleep(0.2)
    ready(d)
    counts_on(d, sandbox, pid)
    d.delete(sandbox)
    settles(d)


def test_supervisor_killed_then_started_by_hand(d):
    sandbox, pid = counter(d)
    children = [p for role, p in d.pids().items() if role != "supervisor"]
    d.process.kill()
    d.process.wait()
    wait_for(lambda: not any(os.path.exists(f"/proc/{p}") for p in children), 10, "its children end with it")
    ok(sandbox in kernel_ids(d), "the sandbox lives on without any of us")
    d.start()
    ready(d)
    counts_on(d, sandbox, pid)
    d.delete(sandbox)
    settles(d)


def test_graceful_stop_leaves_sandboxes_running(d):
    sandbox, pid = counter(d)
    equal(d.stop(), 0, "exit status")
    ok(sandbox in kernel_ids(d), "the sandbox runs on")
    d.start()
    counts_on(d, sandbox, pid)
    d.delete(sandbox)
    settles(d)


def test_in_the_middle_of_fifty_running_and_twenty_creates(d):
    running = [counter(d) for _ in range(50)]
    for role in ("daemon", "worker"):
        answered, lock, go = [], threading.Lock(), threading.Event()

        def create(go=go, lock=lock, answered=answered):
            go.wait()
            conn = http.client.HTTPConnection(d.host, d.port, timeout=30)
            try:
                conn.request("POST", "/v1/sandboxes", "{}", {"X-API-Key": d.key})
                r = conn.getresponse()
                body = r.read()
                if r.status == 201:
                    with lock:
                        answered.append(aviary_test.Response(201, {}, body).json()["id"])
            except (OSError, http.client.HTTPException):
                pass

        threads = [threading.Thread(target=create) for _ in range(20)]
        for t in threads:
            t.start()
        go.set()
        # In the middle: some are answered, others are not.
        end = time.monotonic() + 5
        while len(answered) < 6 and time.monotonic() < end:
            time.sleep(0.0005)
        kill_role(d, role)
        for t in threads:
            t.join()
        ready(d)
        names = listed(d)
        print(f"# {role} killed with 20 creates in flight: {len(answered)} had been answered")
        ok(set(answered) <= names, f"answered creates are lost: {set(answered) - names}")
        ok({s for s, _ in running} <= names, "running sandboxes are lost")
        settles(d)
        for sandbox in answered:
            equal(d.exec(sandbox, "echo x")["stdout"], "x\n", "an answered sandbox works")
    for sandbox, pid in running[::10]:
        counts_on(d, sandbox, pid)
    for sandbox in listed(d):
        d.delete(sandbox)
    settles(d, 30)


def frozen(d, sandbox):
    """Whether the kernel has it frozen, in whichever tree it can be."""
    for path in cgroups_of(d):
        if os.path.basename(path) != sandbox:
            continue
        for name, want in (("cgroup.events", "frozen 1"), ("freezer.state", "FROZEN")):
            try:
                with open(os.path.join(path, name), encoding="ascii") as f:
                    if want in f.read():
                        return True
            except OSError:
                pass
    return False


def live_through(d, steps):
    """Create, exec, pause, resume, exec, delete; steps gets (what, status, id) of each that was answered."""
    sandbox = None
    for what, method, rest, body in (("create", "POST", "", {}), ("exec", "POST", "/exec", {"cmd": "/bin/true"}),
                                     ("pause", "POST", "/pause", None), ("resume", "POST", "/resume", None),
                                     ("exec", "POST", "/exec", {"cmd": "/bin/true"}), ("delete", "DELETE", "", None)):
        r = d.request(method, f"/v1/sandboxes{'/' + sandbox if sandbox else ''}{rest}", body, timeout=20)
        steps.append(f"{what} {r.status}")
        if what == "create":
            if r.status != 201:
                return
            sandbox = r.json()["id"]
            steps.append(sandbox)


def is_as_answered(d, sandbox, last):
    """The kernel fits what the API says, and that the last answer, unless what came after it may have been done."""
    d.ids.add(sandbox)
    status = d.expect(200, "GET", f"/v1/sandboxes/{sandbox}").json()["status"]
    ok(status in ("running", "paused"), f"after {last}: {status}")
    if last == "resume 200":
        equal(status, "running", f"after {last}")
    equal(frozen(d, sandbox), status == "paused", f"after {last}, {status}: frozen")
    if status == "paused":
        d.expect(200, "POST", f"/v1/sandboxes/{sandbox}/resume")
    equal(d.exec(sandbox, "echo awake")["stdout"], "awake\n", f"after {last}")


def die_at(point, _layer):
    """One create, exec, pause, resume and delete with the death of one process at one point; then the accounts."""
    pooled = point.startswith("pool.")
    # The pool's first one is made before anybody asks.
    d = Daemon(env={"AVIARY_FAILPOINT": f"{point}=kill@{2 if point == 'pool.made' else 1}"}, pool=3 if pooled else 0)
    with death.dying(d, point):
        before, steps = death.generation(d), []
        if pooled:
            wait_for(lambda: d.pool_ready() >= 1, 20, "a ready one")
        death.attempt(live_through, steps, d, steps)
        answered = steps.pop(1) if len(steps) > 1 and steps[0] == "create 201" else None
        deleted = "delete 204" in steps
        died = death.who_died(d, before)
        names = listed(d)
        if deleted:
            ok(answered not in names, f"{steps}: a deleted sandbox is back")
        if answered and len(steps) < 6:  # the delete was not asked for
            ok(answered in names, f"{steps}: an answered create is lost")
            is_as_answered(d, answered, steps[-2])
        d.ids |= names
        settles(d)
        fresh = d.create()["id"]
        equal(d.exec(fresh, "echo works")["stdout"], "works\n", "after the death")
        d.delete_all()
        settles(d)
        death.stops_clean(d)
        return died, steps


def test_killed_while_the_pool_is_emptied(_d):
    d = Daemon(env={"AVIARY_FAILPOINT": "pool.discarded=kill@1"}, pool=3)
    try:
        d.start()
        wait_for(lambda: d.pool_ready() >= 1, 20, "a ready one")
        d.stop()
        d.env, d.args = {}, ["--pool", "0"]
        d.start()
        settles(d)
        equal(kernel_ids(d), set(), "the next daemon gives it to nobody")
        death.stops_clean(d)
    finally:
        d.sweep()
        d.remove_dir()


def judge(point, _layer, outcome):
    died, steps = outcome
    print(f"# {point}: {', '.join(steps)}{'' if died else ' (not passed)'}")
    ok(died, f"nobody died: the failpoint {point} was not passed by create, exec, pause, resume and delete")


# The worker's; tests/fault/test_spawn.c goes through all of them without a daemon.
WORKER_POINTS = ["cgroup_made", "disk_subvol_made", "destroy.kill", "destroy.rundir", "destroy.done"]
# What live_through passes. What the pool discards at the end is another story, and snapshots and templates
# have one of their own (kill_templates.py).
LIFE = ("create.", "exec.", "pause.", "resume.", "delete.", "pool.")
POINTS = [(p, "control") for p in failpoints("control") if p.startswith(LIFE) and p != "pool.discarded"] + \
    [(p, "spawn") for p in WORKER_POINTS]
if os.geteuid() != 0:
    print("1..0 # SKIP needs root's worker and cgroups")
    sys.exit(0)
names = {n: f for n, f in list(globals().items()) if n.startswith("test_")}
aviary_test.main({**names, **death.tests(POINTS, die_at, judge)})
