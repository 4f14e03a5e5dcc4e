#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of everything that makes a virtual machine, at every step of its life. T49.

The daemon and the worker die at their failpoints; aviary-vm and QEMU, and all of aviary-spawn's halves while an image, a golden machine, a
fork or a rollback is made, are killed from outside while a step is held up. Whatever was
answered is there afterwards, with its memory; a pause or snapshot that was not leaves the machine as it was, or ended and named; nothing is
left of what is gone. AVIARY_TEST_LONG=1: all steps, else those at which most is at stake."""
import concurrent.futures
import http.client
import os
import signal
import time

import aviary_test
import death
import vm_world
from aviary_test import Failure, equal, ok, wait_for
from vm_world import again, is_held, makers

S = "/v1/sandboxes"
LONG = "AVIARY_TEST_LONG" in os.environ
HELD_MS = 4000  # long enough to find and kill it
COUNT = "n=0; while :; do n=$((n+1)); echo $n >/tmp/count; sleep 0.05; done"

# Passed once in each life below; the steps of plans, as src/vm names them.
POINTS = ["create.requested", "create.made", "create.committed", "pause.checked", "pause.frozen", "pause.committed", "resume.recorded",
          "resume.thawed", "snapshot.requested", "snapshot.captured", "snapshot.published", "delete.recorded", "delete.destroyed",
          "create.clone", "snapshot.done", "destroy.kill"]
USUAL_POINTS = ("create.made", "pause.frozen", "resume.recorded", "snapshot.captured", "delete.recorded", "create.clone")
PAUSE_STEPS = ["preparing the save", "stopping the guest", "stopping the machine", "saving its devices", "saving its memory",
               "completing the save", "ending QEMU", "removing what was replaced"]
COMMITTED = ("ending QEMU", "removing what was replaced")
SAVE_STEPS = ["copying memory", "stopping the guest", "stopping the machine", "saving its devices", "saving its memory",
              "letting the machine go on", "letting the guest go on", "summing it up"]
RESUME_STEPS = ["starting QEMU", "restoring the machine", "giving the guest its disk", "giving the guest its identity",
                "waiting for the guest", "letting the guest go on"]
USUAL_STEPS = ("saving its memory", "completing the save", "ending QEMU", "giving the guest its identity")


def some(steps, usual):
    return [s for s in steps if LONG or s in usual]


def counter(d, **more):
    sandbox = vm_world.create(d, **more)
    d.expect(202, "POST", f"{S}/{sandbox}/exec", {"cmd": "/bin/sh", "args": ["-c", COUNT], "background": True})
    wait_for(lambda: count(d, sandbox) > 0, 20, "it counts")
    return sandbox


def count(d, sandbox):
    # It is empty while it is written.
    script = "for i in 1 2 3 4 5 6 7 8 9; do n=$(cat /tmp/count 2>/dev/null); [ -n \"$n\" ] && break; sleep 0.02; done; echo $n"
    return int(d.exec(sandbox, script)["stdout"].strip() or 0)


def counts_on(d, sandbox, least=1):
    first = count(d, sandbox)
    ok(first >= least, f"it went on counting from {least}: {first}")
    wait_for(lambda: count(d, sandbox) > first, 20, f"{sandbox} counts on")


def status(d, sandbox):
    r = d.request("GET", f"{S}/{sandbox}")
    return r.json()["status"] if r.status == 200 else "gone"


def ends(d, sandbox):
    wait_for(lambda: status(d, sandbox) in ("stopped", "gone"), 30, "it has ended")
    r = d.request("GET", f"{S}/{sandbox}")
    ok(r.status != 200 or r.json().get("reason_text"), f"why it ended: {r.body}")


def leave(d, sandbox):
    d.request("DELETE", f"{S}/{sandbox}", timeout=60)
    vm_world.gone(d, sandbox)


def test_a_first_machine(d):
    vm_world.furnish(d)
    d.bystander = counter(d)


test_a_first_machine.timeout_s = 240


# -- daemon and worker ----------------------------------------------------------------------------


def live(d, steps):
    """steps gets each answer, and what it was about."""
    r = d.request("POST", S, vm_world.SIZE, timeout=60)
    steps.append(("create", r.status, r.json().get("id")))
    sandbox = r.json()["id"]
    d.expect(202, "POST", f"{S}/{sandbox}/exec", {"cmd": "/bin/sh", "args": ["-c", COUNT], "background": True})
    wait_for(lambda: count(d, sandbox) > 0, 20, "it counts")
    steps.append(("count", 200, count(d, sandbox)))
    for verb in ("pause", "resume"):
        steps.append((verb, d.request("POST", f"{S}/{sandbox}/{verb}", {}, timeout=60).status, None))
    r = d.request("POST", "/v1/snapshots", {"sandbox_id": sandbox, "name": f"kept-{sandbox}", "keep_running": True}, timeout=60)
    steps.append(("snapshot", r.status, f"kept-{sandbox}"))
    steps.append(("delete", d.request("DELETE", f"{S}/{sandbox}", timeout=60).status, None))


def is_as_answered(d, steps):
    done = {what: about for what, code, about in steps if code < 300}
    sandbox = done.get("create")
    if "delete" in done:
        equal(status(d, sandbox) in ("stopped", "gone"), True, "a deleted one")
    elif sandbox and "count" in done and not any(what == "snapshot" for what, _, _ in steps):
        if status(d, sandbox) == "paused":
            d.expect(200, "POST", f"{S}/{sandbox}/resume", {}, timeout=60)
        counts_on(d, sandbox, done["count"])
    if "snapshot" in done:
        copy = counter_of(d, done["snapshot"])
        counts_on(d, copy, done["count"])
        leave(d, copy)
        d.expect(204, "DELETE", f"/v1/snapshots/{done['snapshot']}")


def point(name):
    def test(d):
        again(d, AVIARY_FAILPOINT=f"{name}=kill@1")
        before, steps = death.generation(d), []
        try:
            live(d, steps)
        except (OSError, http.client.HTTPException, Failure, KeyError) as e:
            steps.append((type(e).__name__, 999, None))
        died = death.who_died(d, before)
        ok(died, f"nobody died at {name}: {steps}")
        is_as_answered(d, steps)
        counts_on(d, d.bystander)
        mine = {s["id"] for s in d.expect(200, "GET", S).json()} - {d.bystander}
        made = {about for what, _, about in steps if what == "create" and about}
        d.ids |= mine
        for sandbox in mine | made:
            leave(d, sandbox)
        for kept in d.expect(200, "GET", "/v1/snapshots").json():
            if kept["name"].startswith("kept-"):
                d.request("DELETE", f"/v1/snapshots/{kept['name']}")
        wait_for(lambda: set(vm_world.qemus(d).values()) <= {d.bystander}, 20, "no QEMU without a sandbox")
        print(f"# {'+'.join(died)} died; {[s[:2] for s in steps]}")
    test.__name__ = f"test_death_at_{name}"
    test.timeout_s = 120
    return test


for each in some(POINTS, USUAL_POINTS):
    globals()[f"test_death_at_{each}"] = point(each)


# -- aviary-vm and QEMU ---------------------------------------------------------------------------


def held(d, sandbox, pid):
    """Waits until a step of its aviary-vm is held up."""
    wait_for(lambda: is_held(pid), 30, f"{sandbox} is held up")


def during(d, sandbox, request, kill, pool):
    """request() goes on while kill is killed; what was answered."""
    vm = vm_world.vm_pid(d, sandbox)
    answer = pool.submit(request)
    held(d, sandbox, vm)
    if kill == "vm":
        os.kill(vm, signal.SIGKILL)
    else:
        for pid in vm_world.qemus(d, sandbox):
            os.kill(pid, signal.SIGKILL)
    return answer.result()


def attempt(d, method, path, body):
    conn = d.connection(100)
    conn.request(method, path, aviary_test.json.dumps(body), {"X-API-Key": d.key, "Content-Type": "application/json"})
    r = conn.getresponse()
    return aviary_test.Response(r.status, r.headers, r.read())


def kill_in_pause(d, step, kill, pool):
    sandbox = counter(d)
    n = count(d, sandbox)
    r = during(d, sandbox, lambda: attempt(d, "POST", f"{S}/{sandbox}/pause", {}), kill, pool)
    if kill == "qemu" and step in COMMITTED:
        equal(r.status, 200, f"a pause whose save was complete: {r.body}")
    if r.status == 200:
        d.expect(200, "POST", f"{S}/{sandbox}/resume", {}, timeout=60)
        counts_on(d, sandbox, n)
    else:
        ok(r.message, "it says why")
        ends(d, sandbox)
    leave(d, sandbox)


def kill_in_resume(d, step, kill, pool):
    sandbox = counter(d)
    n = count(d, sandbox)
    d.expect(200, "POST", f"{S}/{sandbox}/pause", {}, timeout=60)
    r = during(d, sandbox, lambda: attempt(d, "POST", f"{S}/{sandbox}/resume", {}), kill, pool)
    ok(r.status >= 409 and r.message, f"{r.status} {r.body}")
    if kill == "qemu" and step != "starting QEMU":
        d.expect(200, "POST", f"{S}/{sandbox}/resume", {}, timeout=60)
        counts_on(d, sandbox, n)
    else:
        ends(d, sandbox)
    leave(d, sandbox)


def kill_in_save(d, step, kill, pool):
    sandbox = counter(d)
    name = f"never-{step.replace(' ', '-')}-{kill}".lower()
    r = during(d, sandbox, lambda: attempt(d, "POST", "/v1/snapshots", {"sandbox_id": sandbox, "name": name, "keep_running": True}), kill, pool)
    ok(r.status >= 409 and r.message, f"{r.status} {r.body}")
    equal(d.request("GET", f"/v1/snapshots/{name}").status, 404, "the snapshot")
    ends(d, sandbox)
    leave(d, sandbox)


def killed(what, function, step, nth):
    def test(d):
        first = 2 if what == "save" and step == "letting the guest go on" else nth  # a start has that step as well
        again(d, AVIARY_VM_FAILPOINT=f"{step}=sleep:{HELD_MS}@{first}")
        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
            for kill in ("qemu", "vm") if step != "starting QEMU" else ("vm",):
                function(d, step, kill, pool)
        counts_on(d, d.bystander)
    test.__name__ = f"test_killed_in_{what}_{step.replace(' ', '_')}"
    test.timeout_s = 150
    return test


for each, do, steps_of, at in (("pause", kill_in_pause, PAUSE_STEPS, 1), ("resume", kill_in_resume, RESUME_STEPS, 2), ("save", kill_in_save, SAVE_STEPS, 1)):
    for words in some(steps_of, USUAL_STEPS):
        globals()[f"test_killed_in_{each}_{words}"] = killed(each, do, words, at)


# -- steps that fail ------------------------------------------------------------------------------


def fails(step, verb):
    def test(d):
        again(d, AVIARY_VM_FAILPOINT=f"{step}=error@1")
        sandbox = counter(d)
        body = {"sandbox_id": sandbox, "name": "undone", "keep_running": True}
        path, body = ("/v1/snapshots", body) if verb == "save" else (f"{S}/{sandbox}/pause", {})
        r = d.request("POST", path, body, timeout=60)
        ok(r.status >= 409 and step in r.message, f"{r.status} {r.body}")
        equal(status(d, sandbox), "running", "the machine goes on")
        counts_on(d, sandbox)
        r = d.request("POST", path, body, timeout=60)
        ok(r.status in (200, 201), f"asked again: {r.status} {r.body}")
        d.request("DELETE", "/v1/snapshots/undone")
        leave(d, sandbox)
    test.__name__ = f"test_{verb}_fails_{step.replace(' ', '_')}"
    test.timeout_s = 100
    return test


for each, steps_of in (("pause", PAUSE_STEPS[:6]), ("save", SAVE_STEPS[:5])):
    for words in some(steps_of, ("saving its memory",)):
        globals()[f"test_{each}_fails_{words}"] = fails(words, each)


# -- while an image and a golden machine are made -------------------------------------------------

IMAGE_STEPS = ["preparing the image", "packing the template", "preparing the kernel", "finishing the image"]
GOLDEN_STEPS = ["preparing the machine", "making its disk", "starting the guest", "warming the guest up", "stopping the guest",
                "saving its devices", "saving its memory"]
WITH_QEMU = GOLDEN_STEPS[2:6]
USUAL_MAKING = {("finishing the image", "supervisor")}
templates = []


def kill(d, victim, vm):
    """Kills one of daemon, worker, supervisor, vm and qemu, and has all of Aviary back."""
    if victim == "vm":
        os.kill(vm, signal.SIGKILL)
    elif victim == "qemu":
        for pid in aviary_test.children_of(vm):
            os.kill(pid, signal.SIGKILL)
    elif victim == "supervisor":
        d.process.kill()
        d.process.wait()
        d.env = {}
        d.start()
    else:
        os.kill(d.pids()[victim], signal.SIGKILL)
    death.ready(d)


def tried(d, *request):
    """The answer, or None when there was none."""
    try:
        return attempt(d, *request)
    except (OSError, http.client.HTTPException):
        return None


def nothing_half_made(d):
    def left():
        half = [n for n in os.listdir(os.path.join(d.state, "templates")) if n.startswith("new-")]
        return list(makers(d).values()) + half + list(set(vm_world.qemus(d).values()) - {s["id"] for s in d.expect(200, "GET", S).json()})
    wait_for(lambda: not left(), 30, f"nothing is left of what was being made: {left()}")


def killed_making(step, victim):
    def test(d):
        image = step in IMAGE_STEPS
        if image:
            templates.append(f"tiny-{len(templates)}")
            vm_world.another(d, templates[-1])
            shape = {**vm_world.SIZE, "template": templates[-1]}
        else:
            templates.append("")
            shape = {**vm_world.SIZE, "memory_mb": 128 + 2 * len(templates)}
        again(d, AVIARY_VM_FAILPOINT=f"{step}=sleep:{HELD_MS}@1")
        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
            answer = pool.submit(tried, d, "POST", S, shape)
            vm = wait_for(lambda: next((p for p in makers(d) if is_held(p)), None), 40, f"{step} is held up")
            jail = makers(d)[vm]
            kill(d, victim, vm)
            r = answer.result()
        again(d)
        if r and r.status == 201:  # it was made after all
            d.ids.add(r.json()["id"])
        elif r:
            ok(r.status >= 409 and r.message, f"{r.status} {r.body}")
        vm_world.gone(d, jail)
        nothing_half_made(d)
        for s in d.expect(200, "GET", S).json():
            d.ids.add(s["id"])
            if s["id"] != d.bystander:
                leave(d, s["id"])
        sandbox = counter(d, **shape)
        counts_on(d, sandbox)
        leave(d, sandbox)
        nothing_half_made(d)
        counts_on(d, d.bystander)
        if image:
            d.expect(204, "DELETE", f"/v1/snapshots/{shape['template']}")
        print(f"# {r.status if r else 'no answer'}")
    test.__name__ = f"test_{victim}_killed_while_{step.replace(' ', '_')}"
    test.timeout_s = 150
    return test


for words in IMAGE_STEPS + GOLDEN_STEPS:
    for who in ("daemon", "worker", "supervisor", "vm") + (("qemu",) if words in WITH_QEMU else ()):
        if LONG or (words, who) in USUAL_MAKING:
            globals()[f"test_{who}_killed_while_{words}"] = killed_making(words, who)


# -- forks and rollbacks --------------------------------------------------------------------------

FORK_POINTS = ["fork.recorded", "fork.saved", "fork.kept"]
BACK_POINTS = ["rollback.checked", "rollback.recorded", "rollback.destroyed", "rollback.made", "rollback.committed"]
USUAL_COPIES = {("fork.saved", "daemon"), ("rollback.destroyed", "supervisor")}


def kept(d):
    return {n for n in os.listdir(os.path.join(d.state, "templates")) if not n.startswith("vm")}


def killed_at(d, point, victim, path, body):
    """The answer to a request during which the daemon comes to a point; there somebody is killed."""
    again(d, AVIARY_FAILPOINT=f"{point}=kill@1" if victim == "daemon" else f"{point}=sleep:{HELD_MS // 2}@1")
    before = death.generation(d)
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
        answer = pool.submit(tried, d, "POST", path, body)
        if victim != "daemon":
            wait_for(lambda: is_held(before["daemon"]), 30, f"the daemon is at {point}")
            kill(d, victim, None)
        r = answer.result()
    ok(death.who_died(d, before), f"nobody died at {point}")
    again(d)
    return r


def killed_in_fork(point, victim):
    def test(d):
        sandbox, before = counter(d), kept(d)
        n = count(d, sandbox)
        r = killed_at(d, point, victim, f"{S}/{sandbox}/fork", {"count": 2})
        counts_on(d, sandbox, n)
        copies = {s["id"]: s["status"] for s in d.expect(200, "GET", S).json() if s["id"] not in (d.bystander, sandbox)}
        d.ids |= set(copies)
        if r and r.status == 201:
            answered = {x["sandbox"]["id"] for x in r.json() if x.get("sandbox")}
            ok(answered <= set(copies), f"copies that were answered: {answered} of {copies}")
        elif r:
            ok(r.status >= 409 and r.message, f"{r.status} {r.body}")
        for copy in copies:
            counts_on(d, copy, n)
            leave(d, copy)
        wait_for(lambda: kept(d) <= before, 30, f"nothing is left of what the copies were made of: {kept(d) - before}")
        leave(d, sandbox)
        nothing_half_made(d)
        print(f"# {r.status if r else 'no answer'}, {len(copies)} copies")
    test.__name__ = f"test_{victim}_killed_at_{point}"
    test.timeout_s = 100
    return test


def killed_in_rollback(point, victim):
    def test(d):
        sandbox = counter(d)
        n = count(d, sandbox)
        d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sandbox, "name": "back", "keep_running": True}, timeout=60)
        d.exec(sandbox, "touch /root/later")
        r = killed_at(d, point, victim, f"{S}/{sandbox}/rollback", {"snapshot": "back"})
        if r and r.status != 200:
            ok(r.status >= 409 and r.message, f"{r.status} {r.body}")
        wait_for(lambda: status(d, sandbox) == "running", 60, "it runs again")
        counts_on(d, sandbox, n)
        later = d.exec(sandbox, "test -e /root/later")["exit_code"] == 0
        went_back = point != "rollback.checked" or (r and r.status == 200)
        equal(later, not went_back, f"whether it is as it was, after {point}")
        leave(d, sandbox)
        d.expect(204, "DELETE", "/v1/snapshots/back")
        nothing_half_made(d)
        print(f"# {r.status if r else 'no answer'}")
    test.__name__ = f"test_{victim}_killed_at_{point}"
    test.timeout_s = 100
    return test


# The other half of aviary-spawn, and the daemon with it, at the steps of a life.
LIFE_POINTS = ["pause.checked", "pause.frozen", "pause.committed", "resume.recorded", "resume.thawed", "snapshot.requested", "snapshot.captured",
               "snapshot.published"]
USUAL_LIFE = ("pause.frozen", "snapshot.captured")


def killed_in_life(point):
    def test(d):
        sandbox = counter(d)
        n = count(d, sandbox)
        verb = point.split(".", maxsplit=1)[0]
        if verb == "resume":
            d.expect(200, "POST", f"{S}/{sandbox}/pause", {}, timeout=60)
        request = ("/v1/snapshots", {"sandbox_id": sandbox, "name": "life", "keep_running": True}) if verb == "snapshot" else (f"{S}/{sandbox}/{verb}", {})
        r = killed_at(d, point, "supervisor", *request)
        if r and r.status >= 300:
            ok(r.status >= 409 and r.message, f"{r.status} {r.body}")
        wait_for(lambda: status(d, sandbox) in ("running", "paused"), 60, "it runs or is paused")
        if status(d, sandbox) == "paused":
            d.expect(200, "POST", f"{S}/{sandbox}/resume", {}, timeout=60)
        counts_on(d, sandbox, n)
        leave(d, sandbox)
        kept_one = [s["name"] for s in d.expect(200, "GET", "/v1/snapshots").json() if s["name"] == "life"]
        ok(kept_one or verb != "snapshot" or not (r and r.status < 300), "a snapshot that was answered is there")
        for name in kept_one:
            copy = counter_of(d, name)
            counts_on(d, copy, n)
            leave(d, copy)
            d.expect(204, "DELETE", f"/v1/snapshots/{name}")
        nothing_half_made(d)
        counts_on(d, d.bystander)
        print(f"# {r.status if r else 'no answer'}, {len(kept_one)} snapshots")
    test.__name__ = f"test_supervisor_killed_at_{point}"
    test.timeout_s = 100
    return test


def counter_of(d, snapshot):
    """A sandbox of a snapshot, in which the counter runs already."""
    copy = d.expect(201, "POST", S, {"template": snapshot, "isolation": "vm"}, timeout=60).json()["id"]
    d.ids.add(copy)
    return copy


for name in some(LIFE_POINTS, USUAL_LIFE):
    globals()[f"test_supervisor_killed_at_{name}"] = killed_in_life(name)
for name in FORK_POINTS + BACK_POINTS:
    for who in ("daemon", "worker", "supervisor"):
        if LONG or (name, who) in USUAL_COPIES:
            globals()[f"test_{who}_killed_at_{name}"] = (killed_in_fork if name in FORK_POINTS else killed_in_rollback)(name, who)


if __name__ == "__main__":
    aviary_test.main(globals())
