#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Virtual machines through the API: made, paused to the disk over a restart of the daemon, forked, taken back."""
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
import threading
import time

import guest_kernel
from aviary_test import Skip, contains, equal, main, ok, program, wait_for

BUSYBOX = "/bin/busybox"
APPLETS = ("sh", "cat", "ls", "rm", "echo", "sleep", "uname", "hostname", "head", "od", "true", "id", "chown", "chmod", "rmdir", "wc", "date", "df")
COUNT = "n=0; while :; do n=$((n+1)); echo $n >/root/n.new; mv /root/n.new /root/n; sleep 0.05; done"


def little_root():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        def add(name, data=None, link=None, mode=0o755):
            t = tarfile.TarInfo("./" + name)
            t.mode = mode
            if link:
                t.type, t.linkname = tarfile.SYMTYPE, link
            elif data is None:
                t.type = tarfile.DIRTYPE
            else:
                t.size = len(data)
            tar.addfile(t, io.BytesIO(data or b""))
        for name in ("", "bin", "dev", "proc", "sys", "etc", "root", "run", "tmp", "var", "home", "home/user"):
            add(name)
        with open(BUSYBOX, "rb") as f:
            add("bin/busybox", f.read())
        for name in APPLETS + ("mv",):
            add(f"bin/{name}", link="busybox")
        add("etc/passwd", b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n", mode=0o644)
        add("etc/group", b"root:x:0:\nuser:x:1000:\n", mode=0o644)
    return out.getvalue()


def cli(d, *words, stdin=None, **env):
    r = subprocess.run([program("aviary"), *words], input=stdin, capture_output=True, timeout=200, check=False,
                       env={"PATH": os.environ["PATH"], "HOME": d.dir, "AVIARY_URL": d.url, "AVIARY_API_KEY": d.key, **env})
    equal(r.returncode, 0, f"aviary {words}: {r.stderr[-400:]}")
    return r.stdout.decode()


def vm_of(d):
    return next(i for i in d.expect(200, "GET", "/v1/isolations").json()["isolations"] if i["name"] == "vm")


def count(d, sandbox):
    return int(d.exec(sandbox, "cat /root/n")["stdout"])


def goes_on(d, sandbox, since):
    wait_for(lambda: count(d, sandbox) > since, 20, f"it counts on from {since}")


def test_what_is_missing_is_built(d):
    vm = vm_of(d)
    if not vm["available"]:
        raise Skip(vm["reason"])
    equal(sorted(vm["missing"]), ["base", "vm-kernel"], "nothing is built")
    r = d.request("POST", "/v1/sandboxes", {"isolation": "vm"})
    equal((r.status, r.code), (501, "unsupported"), "so there are no machines")
    contains(r.message, "aviary vm setup", "and what to do")
    try:
        kernel = guest_kernel.fetch_kernel(os.environ.get("AVIARY_TEST_TEMPLATES", d.dir))
    except guest_kernel.NoKernel as why:
        raise Skip(str(why)) from None
    if subprocess.run([BUSYBOX, "true"], check=False).returncode or b"static" not in subprocess.run(
            ["file", "-L", BUSYBOX] if shutil.which("file") else ["echo", "static"], capture_output=True, check=False).stdout:
        raise Skip("busybox-static is not installed")
    recipe = os.path.join(d.dir, "recipes", "vm-kernel")
    os.makedirs(recipe)
    with open(os.path.join(recipe, "build"), "w", encoding="ascii") as f:
        f.write(f"#!/bin/sh\nexec tar -C {kernel} -cf - ./boot ./lib/modules\n")
    os.chmod(os.path.join(recipe, "build"), 0o755)
    cli(d, "template", "build", "vm-kernel", AVIARY_TEMPLATES=os.path.join(d.dir, "recipes"))
    cli(d, "template", "import", "base", "-", stdin=little_root())
    equal(vm_of(d)["missing"], [], "now nothing is missing")


def need_machines(d):
    vm = vm_of(d)
    if not vm["available"] or vm["missing"]:
        raise Skip("no machines: see the first test")


def test_a_machine(d):
    need_machines(d)
    seen = []

    def look():
        while not seen or seen[-1] != "stop":
            seen.extend(m["stage"] for m in d.request("GET", "/v1/isolations").json()["making"])
            time.sleep(0.1)
    t = threading.Thread(target=look, daemon=True)
    t.start()
    b = d.expect(201, "POST", "/v1/sandboxes", {"isolation": "vm", "memory_mb": 128, "cpus": 0.5}, timeout=200).json()
    seen.append("stop")
    t.join()
    equal((b["isolation"], b["template"], b["vcpus"], b["memory_mb"]), ("vm", "base", 1, 128), "what it is")
    ok(len(seen) > 1, "while its image was made, that was said")
    release = d.exec(b["id"], "uname -r; hostname; cat /etc/machine-id")["stdout"].split()
    ok(release[0] != platform.release(), f"a kernel of its own: {release[0]}")
    equal(release[1], b["id"][:12], "its name, as a jail's")
    ok(vm_of(d)["speed"] in ("hardware", "emulated"), "how fast it is is known now")
    d.delete(b["id"])


def test_pause_over_a_restart(d):
    need_machines(d)
    b = d.create(isolation="vm", memory_mb=128)["id"]
    d.expect(202, "POST", f"/v1/sandboxes/{b}/exec", {"cmd": "sh", "args": ["-c", COUNT], "background": True})
    wait_for(lambda: d.exec(b, "cat /root/n")["stdout"], 20, "it counts")
    equal(d.expect(200, "POST", f"/v1/sandboxes/{b}/pause", timeout=100).json()["status"], "paused", "to the disk")
    d.stop()
    d.start()
    equal(d.expect(200, "GET", f"/v1/sandboxes/{b}").json()["status"], "paused", "the next daemon knows")
    d.expect(200, "POST", f"/v1/sandboxes/{b}/resume", timeout=100)
    goes_on(d, b, count(d, b))
    d.delete(b)


def test_disks(d):
    """As large as asked for, whatever the machine was saved with."""
    need_machines(d)
    for mb in (300, 5120, 7000):
        b = d.expect(201, "POST", "/v1/sandboxes", {"isolation": "vm", "memory_mb": 128, "disk_mb": mb}, timeout=100).json()
        d.ids.add(b["id"])

        def size(b=b):
            return int(d.exec(b["id"], "df -Pm /")["stdout"].split()[-5])
        wait_for(lambda n=mb, f=size: n * 0.9 < f() <= n, 20, f"a disk of {mb} MiB, and not {size()}")
        d.delete(b["id"])


def test_ready_ahead_of_time(d):
    need_machines(d)
    hits = d.metrics()['aviary_pool_creates_total{result="hit"}']
    made = [d.create(isolation="vm", memory_mb=128) for _ in range(2)]
    wait_for(lambda: d.pool_ready() >= 2, 60, "after two creates, two more are ready")
    time.sleep(1.5)  # in which they stand still: whose clock did is seen below
    made += [d.create(isolation="vm", memory_mb=128, envs={"WHO": "me"}) for _ in range(2)]
    equal(d.metrics()['aviary_pool_creates_total{result="hit"}'] - hits, 2, "two creates were given them")
    marks = set()
    for b in made:
        said = d.exec(b["id"], "cat /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1; hostname; date +%s; ls -A /root /tmp; echo $WHO")["stdout"]
        marks.update(said.split("\n")[:2])
        name, clock, *rest = said.split("\n")[2:]
        equal(name, b["id"][:12], "whose name it has")
        ok(abs(int(clock) - time.time()) < 3, f"what time it is: {clock}, and {time.time()} outside")
        equal([x for x in rest if x], ["/root:", "/tmp:"] + ["me"] * (b in made[2:]), "nothing of what it was tried out with")
    equal(len(marks), 8, f"each has ids and random numbers of its own: {marks}")
    for b in made:
        d.delete(b["id"])


def test_fork_and_back(d):
    need_machines(d)
    b = d.create(isolation="vm", memory_mb=128, metadata={"name": "work", "who": "me"})["id"]
    d.expect(202, "POST", f"/v1/sandboxes/{b}/exec", {"cmd": "sh", "args": ["-c", COUNT], "background": True})
    wait_for(lambda: d.exec(b, "cat /root/n")["stdout"], 20, "it counts")
    before = count(d, b)
    r = d.request("POST", f"/v1/sandboxes/{b}/fork", {"count": 3}, headers={"Idempotency-Key": "three"}, timeout=100)
    equal(r.status, 201, f"three copies: {r.body[:300]}")
    copies = [c["sandbox"] for c in r.json()]
    d.ids.update(c["id"] for c in copies)
    again = d.request("POST", f"/v1/sandboxes/{b}/fork", {"count": 3}, headers={"Idempotency-Key": "three"}, timeout=100).json()
    equal(json.dumps(sorted(c["sandbox"]["id"] for c in again)), json.dumps(sorted(c["id"] for c in copies)), "asked again: the same")
    marks = set()
    for c in [{"id": b}, *copies]:
        said = d.exec(c["id"], "cat /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1; hostname")["stdout"].split("\n")
        equal(said[2], c["id"][:12], "whose name it has")
        marks.update(said[:2])
        goes_on(d, c["id"], before)
    equal(len(marks), 8, f"each has ids and random numbers of its own: {marks}")
    equal(copies[0]["metadata"], {"who": "me"}, "labels, without the name")
    for c in copies:
        d.delete(c["id"])
    t = d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": b, "name": "then", "keep_running": True}, timeout=100).json()
    equal((t["memory"], t["isolation"], t["memory_mb"], t["vcpus"]), (True, "vm", 128, 1), "what was taken")
    equal(d.expect(200, "GET", f"/v1/sandboxes/{b}").json()["status"], "running", "it runs on")
    d.exec(b, "echo later >/root/later")
    back = d.expect(200, "POST", f"/v1/sandboxes/{b}/rollback", {"snapshot": "then"}, timeout=100).json()
    equal((back["id"], back["status"], back["template"]), (b, "running", "then"), "the same sandbox")
    equal(d.exec(b, "ls /root/later 2>/dev/null")["stdout"], "", "as it was")
    goes_on(d, b, count(d, b))
    d.expect(400, "POST", "/v1/sandboxes", {"template": "then", "memory_mb": 256})
    d.expect(400, "POST", "/v1/sandboxes", {"template": "then", "isolation": "jail"})
    d.delete(b)
    d.expect(204, "DELETE", "/v1/snapshots/then")
    for name in ("base", "vm-kernel"):
        d.expect(204, "DELETE", f"/v1/snapshots/{name}")
    left = os.path.join(d.state, "templates")
    wait_for(lambda: not [n for n in os.listdir(left) if n.startswith("tp")], 30, f"templates are gone: {os.listdir(left)}")


main(dict(globals()))
