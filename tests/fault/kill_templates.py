#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of daemon and worker at every step of a snapshot and of deleting a template. T49.

After each death: a snapshot that was answered is there and whole, one that was not is there as a whole or not at
all, its source lives, a template that was deleted stays deleted, and no file of a template has no record.
"""
import os
import sys
import time

import aviary_test
import death
from aviary_test import Daemon, equal, ok, wait_for
from death import failpoints

# The worker's own; those of its children are gone through by test_templates.
WORKER = ["snapshot.begin", "snapshot.frozen", "snapshot.done", "template.trashed"]


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


def die_going_back(point, _of):
    """It becomes what the snapshot holds, or stays as it was when that was not recorded."""
    d = Daemon(env={"AVIARY_FAILPOINT": f"{point}=kill@1"})
    with death.dying(d, point):
        before, steps = death.generation(d), []
        a = d.create(metadata={"name": "work"})["id"]
        d.exec(a, "echo then >/root/x")
        d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": a, "name": "t", "keep_running": True}, timeout=30)
        d.exec(a, "echo later >/root/x")
        death.attempt(lambda: steps.append(d.request("POST", f"/v1/sandboxes/{a}/rollback", {"snapshot": "t"}).status), steps)
        died = death.who_died(d, before)
        wait_for(lambda: d.expect(200, "GET", f"/v1/sandboxes/{a}").json()["status"] == "running", 20, "it runs")
        equal(d.exec(a, "cat /root/x")["stdout"], "later\n" if point == "rollback.checked" else "then\n", "what it is")
        equal(d.expect(200, "GET", f"/v1/sandboxes/{a}").json()["metadata"], {"name": "work"}, "whose it is")
        d.expect(200, "POST", f"/v1/sandboxes/{a}/rollback", {"snapshot": "t"}, timeout=30)
        d.expect(204, "DELETE", "/v1/snapshots/t")
        d.delete_all()
        wait_for(lambda: not stored(d), 15, f"no files of templates: {stored(d)}")
        death.stops_clean(d)
        return died, steps


def die_at(point, of):
    return (die_going_back if point.startswith("rollback.") else die_with_template)(point, of)


def die_with_template(point, _of):
    d = Daemon(env={"AVIARY_FAILPOINT": f"{point}=kill@1"})
    with death.dying(d, point):
        before, steps = death.generation(d), []
        sandbox = d.create()["id"]
        d.exec(sandbox, "echo content >/root/x")
        death.attempt(live_through, steps, d, steps, sandbox)
        # What is removed in the background may be where it dies.
        end = time.monotonic() + 2
        while death.generation(d) == before and time.monotonic() < end:
            time.sleep(0.02)
        died = death.who_died(d, before)
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
        death.stops_clean(d)
        return died, steps


def judge(point, of, outcome):
    died, steps = outcome
    print(f"# {point}: {', '.join(map(str, steps))}; died: {', '.join(died) or 'nobody'}")
    ok(of in died, f"the {of} did not die: the failpoint {point} was not passed")


POINTS = [(p, "daemon") for p in failpoints("control") if p.startswith(("snapshot.", "template.", "rollback."))] + \
    [(p, "worker") for p in WORKER]
if os.geteuid() != 0:
    print("1..0 # SKIP needs root's worker and cgroups")
    sys.exit(0)
aviary_test.main(death.tests(POINTS, die_at, judge))
