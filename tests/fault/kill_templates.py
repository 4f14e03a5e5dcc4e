#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of daemon and worker at every step of a snapshot and of deleting a template. T49.

After each death: a snapshot that was answered is there and whole, one that was not is there as a whole or not at
all, its source lives, a template that was deleted stays deleted, and no file of a template has no record.
"""
import concurrent.futures
import http.client
import os
import re
import sys
import time

import aviary_test
from aviary_test import Daemon, Failure, cgroups_of, equal, ok, processes_of, wait_for

SRC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src")


def failpoints():
    with open(os.path.join(SRC, "control", "failpoints.def"), encoding="utf-8") as f:
        return re.findall(r'^CONTROL_FAILPOINT\("((?:snapshot|template)\.[a-z]+)"', f.read(), re.M)


# The worker's own; those of its children are gone through by test_templates.
WORKER = ["snapshot.begin", "snapshot.frozen", "snapshot.done", "template.trashed"]


def ready(d, timeout_s=30):
    def probe():
        try:
            return d.request("GET", "/ready", key=False, timeout=5).status == 200
        except (OSError, http.client.HTTPException):
            return False
    wait_for(probe, timeout_s, "ready again")


def stored(d):
    return {n for n in os.listdir(os.path.join(d.state, "templates")) if n not in ("host", "empty")}


def templates(d):
    return {t["name"]: t for t in d.expect(200, "GET", "/v1/snapshots?type=snapshot").json()}


def live_through(d, steps, sandbox):
    """Snapshot, the same again over it, delete."""
    for what, method, path, body in (
            ("snapshot", "POST", "/v1/snapshots", {"sandbox_id": sandbox, "name": "t"}),
            ("overwrite", "POST", "/v1/snapshots?overwrite=true", {"sandbox_id": sandbox, "name": "t"}),
            ("delete", "DELETE", "/v1/snapshots/t", None)):
        r = d.request(method, path, body, timeout=30)
        steps.append(f"{what} {r.status}")


def is_as_answered(d, steps):
    have = templates(d)
    if steps and steps[-1] == "delete 204":
        ok("t" not in have, f"{steps}: a deleted template is back")
    elif "snapshot 201" in steps and not any(s.startswith("delete") for s in steps) and len(steps) < 3:
        ok("t" in have, f"{steps}: an answered snapshot is lost")
    if "t" in have:
        b = d.create(template="t")["id"]
        equal(d.exec(b, "cat /root/x")["stdout"], "content\n", f"{steps}: a template that is there is whole")
        d.delete(b)
        d.expect(204, "DELETE", "/v1/snapshots/t")
    wait_for(lambda: not stored(d), 15, f"no files of templates: {stored(d)}")


def die_at(point, of):
    d = Daemon(env={"AVIARY_FAILPOINT": f"{point}=kill@1"})
    try:
        d.start()
        generation = {r: p for r, p in d.pids().items() if r != "supervisor"}
        sandbox = d.create()["id"]
        d.exec(sandbox, "echo content >/root/x")
        steps = []
        try:
            live_through(d, steps, sandbox)
        except (OSError, http.client.HTTPException) as error:
            steps.append(type(error).__name__)
        # What is removed in the background may be where it dies.
        end = time.monotonic() + 2
        while {r: p for r, p in d.pids().items() if r != "supervisor"} == generation and time.monotonic() < end:
            time.sleep(0.02)
        ready(d)
        time.sleep(0.1)
        ready(d)
        died = [r for r, p in d.pids().items() if r != "supervisor" and generation.get(r) != p]
        is_as_answered(d, steps)
        status = d.expect(200, "GET", f"/v1/sandboxes/{sandbox}").json()["status"]
        ok(status in ("running", "paused"), f"{steps}: the source is {status}")
        if status == "paused":
            d.expect(200, "POST", f"/v1/sandboxes/{sandbox}/resume")
        equal(d.exec(sandbox, "cat /root/x")["stdout"], "content\n", f"{steps}: the source lives")
        d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sandbox, "name": "after"}, timeout=30)
        d.expect(204, "DELETE", "/v1/snapshots/after")
        d.delete_all()
        wait_for(lambda: not stored(d), 15, f"no files of templates: {stored(d)}")
        d.stop()
        left = {"processes": processes_of(d), "cgroups": cgroups_of(d)}
        ok(not any(left.values()), f"left behind: {left}")
        return died, steps
    except Failure:
        print(f"# log of the daemon that died at {point}:")
        for line in d.log_tail(25).splitlines():
            print(f"# {line}")
        raise
    finally:
        d.kill()
        d.remove_dir()


POOL = concurrent.futures.ThreadPoolExecutor(max_workers=4)
DEATHS = {}
POINTS = [(p, "daemon") for p in failpoints()] + [(p, "worker") for p in WORKER]


def _make_test(point, of):
    def test(_d):
        for p, o in POINTS:
            if p not in DEATHS:
                DEATHS[p] = POOL.submit(die_at, p, o)
        died, steps = DEATHS[point].result()
        print(f"# {point}: {', '.join(steps)}; died: {', '.join(died) or 'nobody'}")
        ok(of in died, f"the {of} did not die: the failpoint {point} was not passed")
    test.__name__ = f"test_death_at_{of}_{point}"
    test.timeout_s = 120
    return test


if os.geteuid() != 0:
    print("1..0 # SKIP needs root's worker and cgroups")
    sys.exit(0)
names = {}
for point, of in POINTS:
    t = _make_test(point, of)
    names[t.__name__] = t
aviary_test.main(names)
