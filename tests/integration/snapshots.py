#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Snapshots and templates over the API: take, use, overwrite, delete, what is refused, and deaths on the way."""
import os
import sys
import threading
import time

import aviary_test
from aviary_test import IN_VM, Failure, contains, equal, jail_only, least, ok, wait_for

DISK = sys.argv[sys.argv.index("--disk") + 1] if "--disk" in sys.argv else ""
if DISK:
    at = sys.argv.index("--disk")
    del sys.argv[at:at + 2]


PLATFORM = ["base", "vm-kernel", "minimal", "host"] if IN_VM else ["minimal", "host"]
SHARED = {}


def snapshot(d, sandbox, name=None, status=201, query="", **more):
    stored(d)
    body = {"sandbox_id": sandbox, **more}
    if name:
        body["name"] = name
    return d.expect(status, "POST", f"/v1/snapshots{query}", body, timeout=60)


def names(d, query=""):
    return [t["name"] for t in d.expect(200, "GET", f"/v1/snapshots{query}").json()]


def delete(d, name, status=204):
    return d.expect(status, "DELETE", f"/v1/snapshots/{name}")


def resume(d, sandbox):
    d.expect(200, "POST", f"/v1/sandboxes/{sandbox}/resume")


def out(d, sandbox, script):
    return d.exec(sandbox, script)["stdout"]


def stored(d):
    """Templates that the disk holds; not those that it held at first, in the trash, and images of virtual machines."""
    found = {n for n in os.listdir(os.path.join(d.state, "templates")) if not n.startswith("vm")}
    return list(found - SHARED.setdefault("first", found))


def no_templates_left(d):
    wait_for(lambda: not stored(d), 10, f"no template on the disk: {stored(d)}")


def test_take_and_use(d):
    a = d.create(memory_mb=300, envs={"SECRET": "of a"})["id"]
    out(d, a, "echo hello >/root/file; echo own >/usr/local/own; rm /usr/bin/yes")
    t = snapshot(d, a, "first").json()
    equal((t["name"], t["type"], t["platform"], t["memory_mb"]), ("first", "snapshot", False, 300), "the template")
    ok(t["size_bytes"] > 0 and t["created_at"].endswith("Z") and t["vcpus"] == 1, f"its fields: {t}")
    equal(d.expect(200, "GET", f"/v1/sandboxes/{a}").json()["status"], "paused", "the source afterwards")
    resume(d, a)
    equal(out(d, a, "cat /root/file"), "hello\n", "the source lives on")
    made = [d.create(template="first") for _ in range(3)]
    for b in made:
        equal((b["template"], b["memory_mb"]), ("first", 300), "a sandbox of it")
        ok("template_note" not in b, f"nothing to note: {b}")
        equal(out(d, b["id"], "cat /root/file /usr/local/own; ls /usr/bin/yes 2>&1 | grep -c cannot; echo $SECRET-$AVIARY_TEMPLATE_ID"),
              "hello\nown\n1\n-first\n", "what is in it, without the creator's environment")
    if IN_VM:
        contains(d.expect(400, "POST", "/v1/sandboxes", {"template": "first", "memory_mb": 200}).message, "300", "a machine stays what it is")
    else:
        made.append(d.create(template="first", memory_mb=200))
        equal(made[-1]["memory_mb"], 200, "the request has the last word")
    equal(names(d)[0], "first", "newest first")
    equal(d.expect(200, "GET", "/v1/snapshots/first").json()["in_use"], len(made), "sandboxes that use it")
    d.delete_all()
    delete(d, "first")
    no_templates_left(d)
    d.expect(404, "GET", "/v1/snapshots/first")
    r = d.request("POST", "/v1/sandboxes", {"template": "first"})
    equal((r.status, r.code), (404, "not_found"), "a create of what is gone")


def test_paused_source_and_random_name(d):
    a = d.create()["id"]
    out(d, a, "echo 1 >/root/x; (sleep 1000 >/dev/null 2>&1 &); true")
    d.expect(200, "POST", f"/v1/sandboxes/{a}/pause")
    t = snapshot(d, a).json()
    ok(t["name"].startswith("template-") and len(t["name"]) == 17, f"a name: {t['name']}")
    equal(d.expect(200, "GET", f"/v1/sandboxes/{a}").json()["status"], "paused", "it stays paused")
    b = d.create(template=t["name"])["id"]
    equal(out(d, b, "cat /root/x; pgrep sleep | wc -l"), "1\n1\n" if IN_VM else "1\n0\n", "disk; processes of a machine only")
    d.delete(a)
    d.delete(b)
    delete(d, t["name"])
    no_templates_left(d)


def test_going_back(d):
    """A source that runs on; and back to what it was, under its id."""
    a = d.create(metadata={"name": "work"}, timeout_sec=1000)["id"]
    out(d, a, "echo 1 >/root/x; (sleep 1000 >/dev/null 2>&1 &); true")
    t = snapshot(d, a, name="then", keep_running=True).json()
    equal((t["memory"], t["isolation"]), (True, "vm") if IN_VM else (False, "jail"), "a disk, with memory of a machine only")
    equal(out(d, a, "echo 2 >/root/x; echo more >/root/y; pgrep sleep | wc -l"), "1\n", "it ran on")
    b = d.expect(200, "POST", f"/v1/sandboxes/{a}/rollback", {"snapshot": "then"}).json()
    equal((b["id"], b["status"], b["template"], b["timeout_sec"], b["metadata"]),
          (a, "running", "then", 1000, {"name": "work"}), "the same sandbox")
    equal(out(d, a, "cat /root/x; ls /root/y 2>&1 | grep -c cannot; pgrep sleep | wc -l"), "1\n1\n1\n" if IN_VM else "1\n1\n0\n", "as it was")
    equal(d.expect(200, "GET", "/v1/snapshots/then").json()["in_use"], 1, "who uses it")
    d.delete(a)
    delete(d, "then")
    no_templates_left(d)


def test_list(d):
    equal([t["name"] for t in d.expect(200, "GET", "/v1/snapshots?type=base").json()], PLATFORM, "base ones")
    equal(names(d, "?type=snapshot"), [], "snapshots")
    equal(names(d, "?type=nonsense"), [], "an unknown type")
    for t in d.expect(200, "GET", "/v1/snapshots").json():
        ok(t["platform"] and t["type"] == "base", f"of the platform: {t}")


@jail_only("none of the names answers for a virtual machine but a template that is built")
def test_default_names(d):
    for name in ("minimal", "base", "code-runner-beta", "code-interpreter-v1", "python-interpreter-v0-beta",
                 "code-interpreter"):
        b = d.create(template=name)
        equal(b["template"], name, "the name that was asked for")
        contains(b["template_note"], "not built", f"{name} says what answers")
        contains(b["template_note"], f"build {'base' if name in ('minimal', 'base') else 'code-interpreter'}`", "and what to type")
        d.delete(b["id"])
    ok("template_note" not in d.create(template="host"), "host is what it is")
    d.delete_all()


def test_overwrite(d):
    a = d.create()["id"]
    out(d, a, "echo one >/root/x")
    snapshot(d, a, "v")
    user = d.create(template="v")["id"]
    resume(d, a)
    out(d, a, "echo two >/root/x")
    r = snapshot(d, a, "v", status=409)
    equal(r.code, "conflict", "the name is taken")
    equal(d.expect(200, "GET", f"/v1/sandboxes/{a}").json()["status"], "running", "a refusal changes nothing")
    snapshot(d, a, "v", query="?overwrite=true")
    equal(names(d).count("v"), 1, "one of that name")
    equal(out(d, user, "cat /root/x; echo y >/root/y; cat /root/y"), "one\ny\n", "who stands on the old one lives on")
    b = d.create(template="v")["id"]
    equal(out(d, b, "cat /root/x"), "two\n", "new ones get the new one")
    equal(len(stored(d)), 2, "the old one's files are in use")
    d.delete(user)
    wait_for(lambda: len(stored(d)) == 1, 10, "the old one's files are gone")
    # A snapshot of a sandbox that stands on it: then the lower one outlives its name.
    snapshot(d, b, "w")
    delete(d, "v")
    d.delete(b)
    d.delete(a)
    c = d.create(template="w")["id"]
    equal(out(d, c, "cat /root/x"), "two\n", "the lower layer is there")
    d.delete(c)
    equal(len(stored(d)), 1 if IN_VM else 2, "what it stands on is there: a save of a machine is whole")
    delete(d, "w")
    no_templates_left(d)


def test_refusals(d):
    a = d.create()["id"]
    for body, what in (({}, "sandbox_id"), ({"sandbox_id": "cl-x"}, "sandbox_id"), ({"sandbox_id": 7}, "sandbox_id"),
                       ({"sandbox_id": a, "name": "-x"}, "letters"), ({"sandbox_id": a, "name": "a/b"}, "letters"),
                       ({"sandbox_id": a, "name": "x" * 65}, "64"), ({"sandbox_id": a, "name": ""}, "letters"),
                       ({"sandbox_id": a, "type": "vm"}, "type"), ({"sandbox_id": a, "workdir": "x"}, "absolute"),
                       ({"sandbox_id": a, "user": "u" * 64}, "user"), ({"sandbox_id": a, "envs": {"A": 1}}, "envs"),
                       ({"sandbox_id": a, "stop": "yes"}, "stop")):
        r = d.request("POST", "/v1/snapshots", body)
        equal((r.status, r.code), (400, "invalid_request"), f"{body}: {r.body}")
        contains(r.message, what, "the message names it")
    equal(d.request("POST", "/v1/snapshots?overwrite=maybe", {"sandbox_id": a}).status, 400, "overwrite=maybe")
    equal(snapshot(d, a, "minimal", status=409).code, "conflict", "a name of the platform")
    equal(snapshot(d, "sb" + "0" * 25, status=404).code, "not_found", "an unknown sandbox")
    d.delete(a)
    r = d.request("POST", "/v1/snapshots", {"sandbox_id": a})
    equal((r.status, r.code), (409, "invalid_state"), f"a stopped sandbox: {r.body}")
    for name in ("minimal", "host", "empty"):
        equal(delete(d, name, 403).code, "forbidden", name)
    equal(delete(d, "nothing", 404).code, "not_found", "an unknown template")
    for method, path in (("POST", "/v1/admin/builds"), ("GET", "/v1/admin/builds"), ("GET", "/v1/admin/builds/bld-1"),
                         ("POST", "/v1/admin/builds/bld-1/cancel")):
        r = d.expect(501, method, path, {} if method == "POST" else None)
        contains(r.message, "aviary template build", "the way that there is")
    equal(names(d), PLATFORM, "nothing was made")


def test_defaults_and_stop(d):
    a = d.create(memory_mb=least(512, 128))["id"]
    out(d, a, "mkdir -p /srv/app; echo main >/srv/app/x")
    t = snapshot(d, a, "app", stop=True, type="base", workdir="/srv/app", envs={"MODE": "prod"}, platform=True,
                 memory_mb=128).json()
    equal((t["type"], t["platform"], t["workdir"], t["envs"], t["memory_mb"]),
          ("base", True, "/srv/app", {"MODE": "prod"}, 128), "what was asked for")
    wait_for(lambda: d.expect(200, "GET", f"/v1/sandboxes/{a}").json()["status"] == "stopped", 10, "stopped")
    b = d.create(template="app", envs={"OTHER": "1"})["id"]
    equal(out(d, b, "pwd; echo $MODE $OTHER; cat x"), "/srv/app\nprod 1\nmain\n", "they hold")
    # Again after a restart of the daemon: the agent is told once more.
    d.stop()
    d.start()
    equal(out(d, b, "pwd; echo $MODE"), "/srv/app\nprod\n", "after a restart")
    equal(d.create(template="app")["memory_mb"], 128, "and for new ones")
    d.delete_all()
    delete(d, "app")
    no_templates_left(d)


def test_start_command(d):
    """It runs in every sandbox of the template, once, with its defaults, and the create does not wait."""
    a = d.create()["id"]
    command = "echo $MODE $OTHER $PWD >>/srv/started; exec sleep 1000"
    snapshot(d, a, "served", stop=True, workdir="/srv", envs={"MODE": "prod"}, start_command=command)
    b = d.create(template="served", envs={"OTHER": "1"})["id"]
    wait_for(lambda: d.exec(b, "cat /srv/started")["stdout"] == "prod 1 /srv\n", 10, "it ran")
    found = d.expect(200, "GET", f"/v1/sandboxes/{b}/processes").json()["processes"]
    equal([p["tag"] for p in found], ["start-command"], "it is a process like any other")
    d.stop()
    d.start()
    equal(d.exec(b, "cat /srv/started")["stdout"], "prod 1 /srv\n", "not again after a restart")
    d.expect(204, "DELETE", f"/v1/sandboxes/{b}/processes/start-command")
    snapshot(d, b, "quiet", stop=True, start_command="")
    c = d.create(template="quiet")["id"]
    equal(d.exec(c, "cat /srv/started; wc -l </srv/started")["stdout"], "prod 1 /srv\n1\n", "none where it was taken away")
    d.delete_all()
    for name in ("quiet", "served"):
        delete(d, name)
    no_templates_left(d)


def test_while_others_work(d):
    """Snapshots, creates from one template and deletes, all at once."""
    a = d.create()["id"]
    out(d, a, "echo base >/root/x; head -c 3000000 /dev/urandom >/root/big")
    snapshot(d, a, "busy")
    resume(d, a)
    errors = []

    def use(n):
        try:
            for i in range(3):
                b = d.create(template="busy")["id"]
                equal(out(d, b, "cat /root/x"), "base\n", "content")
                if n == 0:
                    snapshot(d, b, f"busy-{n}-{i}")
                d.delete(b)
        except Exception as error:  # pylint: disable=broad-except
            errors.append(error)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    ok(not errors, f"{errors}")
    d.delete(a)
    for name in names(d, "?type=snapshot"):
        delete(d, name)
    no_templates_left(d)


def test_delete_during_snapshot(d):
    for delay in (0, 0.01, 0.05):
        a = d.create()["id"]
        out(d, a, "for i in $(seq 200); do head -c 50000 /dev/urandom >/root/$i; done")
        answer = []
        t = threading.Thread(target=lambda s=a: answer.append(d.request("POST", "/v1/snapshots", {"sandbox_id": s, "name": "gone"},
                                                                       timeout=60)))
        t.start()
        time.sleep(delay)
        d.delete(a)
        t.join(60)
        r = answer[0]
        ok(r.status in (201, 409, 404), f"a definite answer: {r.status} {r.body}")
        if r.status == 201:
            delete(d, "gone")
        d.expect(404, "GET", "/v1/snapshots/gone")
        no_templates_left(d)


def held(d):
    """What the worker has open of templates."""
    pid = d.pids()["worker"]
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            pass
    return [path for path in found if ".layers/" in path or "/templates/tp" in path or "(deleted)" in path]


def test_a_deleted_template_holds_nothing(d):
    before = held(d)
    a = d.create()["id"]
    d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": a, "name": "held"})
    copy = d.create(template="held")["id"]
    ok(len(held(d)) > len(before), "a template that is used is kept open")
    for one in (copy, a):
        d.delete(one)
    delete(d, "held")
    wait_for(lambda: len(held(d)) <= len(before), 10, "what is open of it is closed")


aviary_test.main(globals(), spawn_options=f"--disk {DISK}" if DISK else "")
