#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""chain: sandboxes with a kernel of their own, from the API through aviaryd, aviary-spawn, aviary-vm and QEMU to the agent inside and back"""

import concurrent.futures
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from aviary_test import SLOW, Skip, equal, main, ok, program, wait_for
from machine_lib import kernel, small_root

COUNT = "i=0; while :; do i=$((i + 1)); echo $i > /tmp/n; sleep 0.1; done"
VM = {"isolation": "vm", "template": "small", "memory_mb": 256, "disk_mb": 512}


def cli(d, *words, **env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AVIARY_")}
    clean.update({"AVIARY_CONFIG_DIR": os.path.dirname(d.credentials), "AVIARY_URL": d.url}, **env)
    r = subprocess.run([program("aviary"), *words], capture_output=True, text=True, env=clean, timeout=200 * SLOW, cwd="/", check=False)
    equal(r.returncode, 0, f"aviary {' '.join(words)}: {r.stderr}")


def create(d, **more):
    return d.expect(201, "POST", "/v1/sandboxes", {**VM, **more}, timeout=120 * SLOW).json()["id"]


def run(d, sandbox, script):
    r = d.expect(200, "POST", f"/v1/sandboxes/{sandbox}/exec", {"cmd": "/bin/sh", "args": ["-c", script]}, timeout=60 * SLOW).json()
    equal(r["exit_code"], 0, f"{script}: {r}")
    return r["stdout"]


def count(d, sandbox):
    """Empty for a moment at each step."""
    return int(wait_for(lambda: run(d, sandbox, "cat /tmp/n").strip(), 20 * SLOW, "a number"))


def change(d, sandbox, what, **body):
    return d.expect(200, "POST", f"/v1/sandboxes/{sandbox}/{what}", body, timeout=60 * SLOW).json()


def delete(d, *sandboxes):
    for sandbox in sandboxes:
        d.delete(sandbox)


def qemu_of(d, sandbox):
    """The QEMU in whose jail a sandbox is: its identity shows in nothing outside, its parent's command line does."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"aviary-vm", sandbox.encode()]:
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
                return [int(p) for p in f.read().split()]
    return []


def test_templates(d):
    """A kernel and the smallest system there is, as any template is made."""
    vm = next(i for i in d.expect(200, "GET", "/v1/isolations").json()["isolations"] if i["name"] == "vm")
    if not vm["available"]:
        raise Skip(f"no virtual machines here: {vm}")
    with tempfile.TemporaryDirectory() as tmp:
        os.chmod(tmp, 0o755)
        root, recipes = f"{tmp}/root", f"{tmp}/recipes"
        small_root(root)
        os.makedirs(f"{recipes}/vm-kernel")
        with open(f"{recipes}/vm-kernel/build", "w", encoding="ascii") as f:
            f.write(f"#!/bin/sh\nexec tar -C '{kernel()}' --owner=0 --group=0 --numeric-owner -cf - .\n")
        os.chmod(f"{recipes}/vm-kernel/build", stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
        cli(d, "template", "build", "vm-kernel", AVIARY_TEMPLATES=recipes)
        subprocess.run(["tar", "-C", root, "--owner=0", "--group=0", "--numeric-owner", "-cf", f"{tmp}/small.tar", "."], check=True, timeout=60)
        cli(d, "template", "import", "small", f"{tmp}/small.tar")


def test_first(d):
    """The first makes an image and a machine to start from, and says how far it is; the second finds them."""
    seen = []

    def look():
        seen.extend(m["stage"] for m in d.expect(200, "GET", "/v1/isolations").json()["making"])
        return bool(seen)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(create, d)
        wait_for(look, 30 * SLOW, "something is being made")
        sandbox = first.result()
    with open(os.path.join(kernel(), "boot", next(n for n in os.listdir(f"{kernel()}/boot") if n.startswith("vmlinuz-"))), "rb") as f:
        release = f.name.rsplit("vmlinuz-", 1)[1]
    equal(run(d, sandbox, "cat /proc/sys/kernel/osrelease; hostname"), f"{release}\n{sandbox[:12]}\n", "a kernel of its own, and a name")
    listed = [s["id"] for s in d.expect(200, "GET", "/v1/sandboxes").json()]
    equal(listed, [sandbox], "nobody sees those that images are made in")
    other = create(d)
    ok(run(d, other, "cat /proc/sys/kernel/random/uuid") != run(d, sandbox, "cat /proc/sys/kernel/random/uuid"), "their own random numbers")
    delete(d, sandbox, other)


def test_pause_over_a_restart(d):
    sandbox = create(d)
    d.expect(202, "POST", f"/v1/sandboxes/{sandbox}/exec", {"cmd": "/bin/sh", "args": ["-c", COUNT], "background": True})
    wait_for(lambda: run(d, sandbox, "cat /tmp/n || true").strip() != "", 20 * SLOW, "it counts")
    equal(change(d, sandbox, "pause")["status"], "paused", "paused")
    equal(qemu_of(d, sandbox), [], "no QEMU is left of it")
    d.stop()
    d.start()
    equal(d.expect(200, "GET", f"/v1/sandboxes/{sandbox}").json()["status"], "paused", "a new daemon knows it")
    equal(change(d, sandbox, "resume")["status"], "running", "resumed")
    before = count(d, sandbox)
    wait_for(lambda: count(d, sandbox) > before, 20 * SLOW, "it goes on counting")
    d.stop()
    d.start()
    ok(count(d, sandbox) > before, "also under a daemon that finds it running")
    delete(d, sandbox)


def test_fork_and_rollback(d):
    sandbox = create(d)
    run(d, sandbox, "echo before > /root/file")
    copies = [c["sandbox"]["id"] for c in d.expect(201, "POST", f"/v1/sandboxes/{sandbox}/fork", {"count": 2}, timeout=60 * SLOW).json()]
    facts = [run(d, s, "cat /proc/sys/kernel/random/uuid /etc/machine-id; hostname; ip link show eth0 | grep ether").split("\n") for s in (sandbox, *copies)]
    for i, what in enumerate(("random numbers", "machine-id", "host name", "hardware address")):
        equal(len({f[i] for f in facts}), 3, f"each has its own {what}: {[f[i] for f in facts]}")
    equal({run(d, s, "cat /root/file") for s in copies}, {"before\n"}, "files are there")
    d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sandbox, "name": "saved"}, timeout=60 * SLOW)
    wait_for(lambda: d.expect(200, "GET", f"/v1/sandboxes/{sandbox}").json()["status"] in ("running", "paused"), 20, "it is not in between")
    if d.expect(200, "GET", f"/v1/sandboxes/{sandbox}").json()["status"] == "paused":
        change(d, sandbox, "resume")
    run(d, sandbox, "echo after > /root/file")
    change(d, sandbox, "rollback", snapshot="saved")
    equal(run(d, sandbox, "cat /root/file"), "before\n", "what came after the snapshot is undone")
    delete(d, sandbox, *copies)
    d.expect(204, "DELETE", "/v1/snapshots/saved")


def test_ends(d):
    """Whoever ends, the reason is known and others live on."""
    bystander, sandbox = create(d), create(d)
    for pid in qemu_of(d, sandbox):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: d.expect(200, "GET", f"/v1/sandboxes/{sandbox}").json()["status"] == "stopped", 20 * SLOW, "it ended")
    record = d.expect(200, "GET", f"/v1/sandboxes/{sandbox}").json()
    ok("QEMU" in json.dumps(record), f"with a reason: {record}")
    run(d, bystander, "true")
    delete(d, bystander)


def is_ready(d):
    try:
        return d.request("GET", "/ready", key=False).status == 200
    except OSError:
        return False


def test_daemon_killed_while_it_makes(d):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        broken = pool.submit(lambda: d.request("POST", "/v1/sandboxes", {**VM, "memory_mb": 320}, timeout=60 * SLOW))
        wait_for(lambda: d.expect(200, "GET", "/v1/isolations").json()["making"], 30 * SLOW, "one is being made")
        os.kill(d.pids()["daemon"], signal.SIGKILL)
        ok(broken.exception(timeout=60 * SLOW) is not None or broken.result().status >= 500, "its request fails")
    wait_for(lambda: is_ready(d), 30 * SLOW, "the next daemon")
    known = {s["id"] for s in d.expect(200, "GET", "/v1/sandboxes").json()}
    wait_for(lambda: not {n for n in os.listdir(d.run) if n.startswith("sb")} - known, 30 * SLOW, "nothing is left of it")
    sandbox = create(d, memory_mb=320)
    run(d, sandbox, "true")
    delete(d, sandbox)


for function in (test_templates, test_first, test_pause_over_a_restart, test_fork_and_rollback, test_ends, test_daemon_killed_while_it_makes):
    function.timeout_s = 240
main(globals())
