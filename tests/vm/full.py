#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A disk that is full while virtual machines run, are paused, resumed, snapshotted, forked and made. T51.

The file system of the state directory has no block left, or too few, or a sandbox has used up what is its own. Each time: what cannot be done is refused with 507 and a text that names cause and cure, the machine
goes on as it was, nothing is left behind, and when there is room the same call works, with everything that was answered.
AVIARY_TEST_LONG=1: with more amounts of room, at which it fails elsewhere."""
import concurrent.futures
import contextlib
import json
import os
import subprocess
import tempfile
import time

import aviary_test
import vm_world
from aviary_test import Daemon, Failure, Skip, equal, ok, wait_for

S = "/v1/sandboxes"
LONG = "AVIARY_TEST_LONG" in os.environ
MIB = 1 << 20
HELD_MS = 3000  # long enough to find it and fill the disk
COUNT = "n=0; while :; do n=$((n+1)); echo $n >/dev/shm/count; sleep 0.05; done"
WRITES = "dd if=/dev/urandom of=/root/data bs=1M count=8 2>/dev/null; sha1sum </root/data >/dev/shm/sum; sync; sha1sum </root/data >/dev/shm/synced"
worlds = {}


# -- worlds ---------------------------------------------------------------------------------------


class Small:
    """The state directory is a file system of its own, but for the database: what that does is tested elsewhere."""

    def __init__(self):
        self.mounted, self.d = [], Daemon(["--vm-pool", "0"], spawn_options="--disk none")
        self.d.templates = None
        with tempfile.NamedTemporaryFile(prefix="aviary-test-", delete=False) as f:
            self.image = f.name
            f.truncate(60 << 30)  # sparse; above the room that Aviary leaves to the machine
        try:
            run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,nodiscard", self.image)
            self._mount("-o", "loop", self.image, self.d.state)
            self._mount("-t", "tmpfs", "-o", "size=64M", "tmpfs", os.path.join(self.d.state, "db"))
            self.d.start()
            vm_world.furnish(self.d)
        except BaseException:
            self.end()
            raise

    def _mount(self, *words):
        os.makedirs(words[-1], exist_ok=True)
        run("mount", *words)
        self.mounted.append(words[-1])

    def _calm(self):
        """Nothing is on its way out, which would make room."""
        def names(what):
            return set(os.listdir(os.path.join(self.d.state, what)))
        living = {s["id"] for s in self.d.expect(200, "GET", S).json()}
        kept = {t["id"] for t in self.d.expect(200, "GET", "/v1/snapshots").json()}
        return not names("trash") and names("sandboxes") <= living and {n for n in names("templates") if n.startswith("tp")} <= kept

    def fill(self, room_mib=0, calm=True):
        if calm:
            wait_for(self._calm, 30, "what was deleted is gone")
        fill(os.path.join(self.d.state, "filler"), room_mib)

    def empty(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.d.state, "filler"))
        run("sync", "-f", self.d.state)

    def left(self):
        """Files of templates and of saves, but for the memory that a resumed machine goes on from."""
        found, memories = set(), {}
        for top, dirs, files in os.walk(self.d.state):
            if "/templates" in top:
                found |= {os.path.join(top, x) for x in files + dirs}
            elif "/saves/" in top:
                regular = {f for f in files if os.path.isfile(os.path.join(top, f))}  # not what hides a golden machine's
                found |= {os.path.join(top, f) for f in regular - {"memory"}}
                sandbox = os.path.dirname(top)
                memories[sandbox] = memories.get(sandbox, 0) + ("memory" in regular)
        return found | {f"memory {n} of {path}" for path, n in memories.items() if n > 1}

    def end(self):
        with contextlib.suppress(OSError, Failure):
            self.empty()
            self.d.delete_all()
            self.d.stop()
        self.d.sweep()
        for path in reversed(self.mounted):
            wait_for(lambda p=path: subprocess.run(["umount", p], check=False, capture_output=True).returncode == 0, 20, "the disk is let go")
        os.unlink(self.image)
        self.d.remove_dir()


class Own:
    """What one sandbox may use of the image that all disks lie in: its area is filled from outside."""

    def __init__(self, d, sandbox):
        self.d = d
        self.top = f"/proc/{d.pids()['worker']}/root/disk/{sandbox}/fs/root/vm"
        if not os.path.isdir(self.top):
            raise Skip("disks of sandboxes are not in an image here")

    def fill(self, room_mib=0):
        spare = os.path.join(self.top, "spare")
        if room_mib:  # the filler cannot be cut where a quota is used up
            with open(spare, "wb") as f:
                os.posix_fallocate(f.fileno(), 0, room_mib * MIB)
        fill(os.path.join(self.top, "filler"), 0)
        if room_mib:
            os.unlink(spare)

    def empty(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.top, "filler"))
        run("sync", "-f", self.top)

    def left(self):
        saves = {os.path.join(top, f) for top, _, files in os.walk(f"{self.top}/saves") for f in files
                 if f != "memory" and os.path.isfile(os.path.join(top, f))}
        return saves | {n for n in os.listdir(os.path.join(self.d.state, "templates")) if n.startswith(("tp", "new-"))}


def fill(path, room_mib):
    """To the last block, or less."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        at, step = os.fstat(fd).st_size, 32 << 30
        while step >= 4096:
            try:
                os.posix_fallocate(fd, at, step)
                at += step
            except OSError:
                step //= 2
        if room_mib:
            os.ftruncate(fd, at - room_mib * MIB)
        os.fsync(fd)
    finally:
        os.close(fd)


def run(*words):
    r = subprocess.run(words, capture_output=True, timeout=60, check=False)
    ok(r.returncode == 0, f"{words}: {r.stderr}")


def small():
    if "small" not in worlds:
        worlds["small"] = Small()
    worlds["small"].empty()
    return worlds["small"]


# -- machines -------------------------------------------------------------------------------------


def counter(d, **more):
    sandbox = vm_world.create(d, **more)
    background(d, sandbox, COUNT)
    wait_for(lambda: count(d, sandbox) > 0, 20, "it counts")
    return sandbox


def background(d, sandbox, script):
    d.expect(202, "POST", f"{S}/{sandbox}/exec", {"cmd": "/bin/sh", "args": ["-c", script], "background": True})


def count(d, sandbox):
    # It is empty while it is written.
    script = "for i in 1 2 3 4 5 6 7 8 9; do n=$(cat /dev/shm/count 2>/dev/null); [ -n \"$n\" ] && break; sleep 0.02; done; echo $n"
    return int(d.exec(sandbox, script)["stdout"].strip() or 0)


def counts_on(d, sandbox, least):
    first = count(d, sandbox)
    ok(first >= least, f"it went on from {least}: {first}")
    wait_for(lambda: count(d, sandbox) > first, 20, f"{sandbox} counts on")


def status(d, sandbox):
    return d.expect(200, "GET", f"{S}/{sandbox}").json()["status"]


def no_room(r, what):
    ok(r.status == 507 and r.code == "no_space", f"{what}: {r.status} {r.body}")
    ok(any(w in r.message for w in ("No space", "no space", "quota exceeded", "below the reserve")), f"{what}: the cause: {r.message}")
    ok("free space" in r.message or "delete" in r.message, f"{what}: the cure: {r.message}")
    if "AVIARY_TEST_VERBOSE" in os.environ:
        print(f"# {what}: {r.message}", flush=True)


def requests(sandbox):
    return {
        "pause": (f"{S}/{sandbox}/pause", {}),
        "snapshot": ("/v1/snapshots", {"sandbox_id": sandbox, "name": "full", "keep_running": True}),
        "stop": ("/v1/snapshots", {"sandbox_id": sandbox, "name": "full", "stop": True}),
        "fork": (f"{S}/{sandbox}/fork", {"count": 2}),
    }


def refused(w, what, sandbox, rooms):
    """With each amount of room: 507, as it was, nothing left. Those that suffice are none."""
    d, before = w.d, w.left()
    state, path, body = status(d, sandbox), *requests(sandbox)[what]
    for mib in rooms:
        w.empty()
        if state == "running":  # else what it has yet to write is written now, and it stands still for that
            d.exec(sandbox, "sync")
        w.fill(mib)
        n = count(d, sandbox) if state == "running" else 0
        no_room(d.request("POST", path, body, timeout=60), f"{what} with {mib} MiB")
        equal(status(d, sandbox), state, f"{what} with {mib} MiB leaves it")
        if state == "running":
            counts_on(d, sandbox, n)
        wait_for(lambda: w.left() <= before, 10, f"nothing is left of {what} with {mib} MiB: {w.left() - before}")
        equal([s["name"] for s in d.expect(200, "GET", "/v1/snapshots?type=snapshot").json()], [], "snapshots")
    w.empty()


def works(d, what, sandbox, n):
    """The same, with room; what it made is deleted."""
    path, body = requests(sandbox)[what]
    r = d.request("POST", path, body, timeout=60)
    ok(r.status in (200, 201), f"{what} with room: {r.status} {r.body}")
    if what == "pause":
        d.expect(200, "POST", f"{S}/{sandbox}/resume", {}, timeout=60)
        counts_on(d, sandbox, n)
    elif what == "fork":
        for copy in r.json():
            ok("sandbox" in copy, f"a copy with room: {copy}")
            d.ids.add(copy["sandbox"]["id"])
            counts_on(d, copy["sandbox"]["id"], n)
            d.delete(copy["sandbox"]["id"])
    else:
        copy = d.expect(201, "POST", S, {"template": "full", "isolation": "vm"}, timeout=60).json()["id"]
        d.ids.add(copy)
        counts_on(d, copy, n)
        d.delete(copy)
        d.expect(204, "DELETE", "/v1/snapshots/full")


# -- no block left --------------------------------------------------------------------------------

# MiB: at 0 nothing can be begun; at others memory, the save's end, or the layer does not fit; the layer is not begun below the reserve.
ROOMS = {"pause": (0, 8), "snapshot": (0, 8, 400), "stop": (0, 400), "fork": (0, 400)}
LONG_ROOMS = {"pause": (0, 1, 4, 8, 16, 24, 32), "snapshot": (0, 1, 8, 24, 60, 400), "stop": (0, 8, 400), "fork": (0, 1, 8, 24, 60, 400)}


def test_no_block_left(_d):
    w = small()
    d, rooms = w.d, LONG_ROOMS if LONG else ROOMS
    sandbox = counter(d)
    for what in ("pause", "snapshot", "fork", "stop"):
        n = count(d, sandbox)
        refused(w, what, sandbox, rooms[what])
        works(d, what, sandbox, n)


def test_no_block_left_for_a_paused_one(_d):
    w = small()
    d = w.d
    sandbox = counter(d)
    n = count(d, sandbox)
    d.expect(200, "POST", f"{S}/{sandbox}/pause", {}, timeout=60)
    refused(w, "stop", sandbox, (0, 400))
    w.fill()
    before = w.left()
    no_room(d.request("POST", f"{S}/{sandbox}/resume", {}, timeout=60), "resume")
    equal(status(d, sandbox), "paused", "it stays")
    equal(w.left(), before, "what it saved")
    no_room(d.request("POST", S, vm_world.SIZE, timeout=60), "create")
    w.empty()
    d.expect(200, "POST", f"{S}/{sandbox}/resume", {}, timeout=60)
    counts_on(d, sandbox, n)
    d.delete(sandbox)


test_no_block_left.timeout_s = 240
test_no_block_left_for_a_paused_one.timeout_s = 120


def test_what_a_guest_writes_waits_for_room(_d):
    w = small()
    sandbox = counter(w.d)
    waits_for_room(w, sandbox)
    w.d.delete(sandbox)


def waits_for_room(w, sandbox):
    d = w.d
    n = count(d, sandbox)
    w.fill()
    background(d, sandbox, WRITES)
    wait_for(lambda: time.sleep(0.5) or w.fill() or "stands still" in pause_refused(d, sandbox).message, 60, "it stands still")
    no_room(pause_refused(d, sandbox), "pause")
    no_room(d.request("POST", *requests(sandbox)["snapshot"], timeout=60), "snapshot")
    equal(status(d, sandbox), "running", "for the API")
    w.empty()
    wait_for(lambda: d.exec(sandbox, "cat /dev/shm/synced 2>/dev/null")["stdout"], 30, "it goes on")
    d.exec(sandbox, "sync; echo 3 >/proc/sys/vm/drop_caches")
    data, written = d.exec(sandbox, "sha1sum </root/data; cat /dev/shm/sum")["stdout"].splitlines()
    equal(data, written, "what it wrote")
    equal(d.exec(sandbox, "dmesg | grep -c 'I/O error'")["stdout"], "0\n", "errors that the guest saw")
    counts_on(d, sandbox, n)
    works(d, "pause", sandbox, n)


def pause_refused(d, sandbox):
    r = d.request("POST", f"{S}/{sandbox}/pause", {}, timeout=60)
    ok(r.status == 507, f"pause without room: {r.status} {r.body}")
    return r


test_what_a_guest_writes_waits_for_room.timeout_s = 120


# -- what is made when it is first needed ---------------------------------------------------------

IMAGE_STEPS = ["preparing the image", "packing the template", "preparing the kernel"]
GOLDEN_STEPS = ["preparing the machine", "making its disk", "starting QEMU", "starting the guest", "saving its devices", "saving its memory"]
USUAL_STEPS = ("packing the template",)


def test_no_block_left_for_what_machines_are_made_of(_d):
    w = small()
    d = w.d
    d.delete(vm_world.create(d))  # so that there is an image of the other one
    vm_world.another(d, "tiny-2")
    for step in [s for s in IMAGE_STEPS + GOLDEN_STEPS if LONG or s in USUAL_STEPS]:
        shape = {**vm_world.SIZE, **({"template": "tiny-2"} if step in IMAGE_STEPS else {"memory_mb": 160})}
        vm_world.again(d, AVIARY_VM_FAILPOINT=f"{step}=sleep:{HELD_MS}@1")
        before = w.left()
        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
            answer = pool.submit(lambda s=shape: create_apart(d, s))
            wait_for(lambda: any(vm_world.is_held(p) for p in vm_world.makers(d)), 40, f"{step} is held up")
            w.fill(calm=False)
            no_room(answer.result(), f"a first create, when {step}")
        wait_for(lambda: not vm_world.makers(d) and w.left() <= before, 20, f"nothing is left, when {step}: {w.left() - before}")
        w.empty()
        equal(d.expect(200, "GET", S).json(), [], "sandboxes")
    vm_world.again(d)
    for shape in ({"template": "tiny-2"}, {"memory_mb": 160})[:2 if LONG else 1]:
        d.delete(vm_world.create(d, **shape))


def create_apart(d, body):
    """Not on the thread's connection of all other requests."""
    conn = d.connection(vm_world.CREATE_S)
    conn.request("POST", S, json.dumps(body), {"X-API-Key": d.key, "Content-Type": "application/json"})
    r = conn.getresponse()
    return aviary_test.Response(r.status, r.headers, r.read())


test_no_block_left_for_what_machines_are_made_of.timeout_s = 300


def test_the_end_of_the_small_disk(_d):
    worlds.pop("small").end()


# -- the sandbox's own limit ----------------------------------------------------------------------


def test_no_room_in_the_sandboxs_own_disk(d):
    vm_world.furnish(d)
    sandbox = counter(d)
    w = Own(d, sandbox)
    waits_for_room(w, sandbox)
    for what in ("pause", "snapshot", "fork", "stop"):
        n = count(d, sandbox)
        refused(w, what, sandbox, (0, 1, 3) if LONG and what != "stop" else (0,))
        works(d, what, sandbox, n)


test_no_room_in_the_sandboxs_own_disk.timeout_s = 200


if __name__ == "__main__":
    aviary_test.main(globals())
