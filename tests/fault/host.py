#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A host that fails: full disk, no inodes, a broken disk, no descriptors, no threads, death at any moment. T51, T52.

Each time: what cannot be done is refused with a status and a text that name the cause, what can be read is read,
sandboxes run on, everything works again by itself when the cause is gone, and nothing that was answered is lost.
"""
import contextlib
import ctypes
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time

import aviary_test
from aviary_test import Daemon, equal, main, ok, short, wait_for

BIG = "x" * 100000
EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)


def mount(*args):
    subprocess.run(["mount", *args], check=True, capture_output=True, timeout=20)


def ready(d):
    try:
        return d.request("GET", "/ready", key=False, timeout=5).status == 200
    except OSError:
        return False


@contextlib.contextmanager
def daemon(before=lambda d: None, after=lambda d: None, args=(), **kw):
    """One of its own, stopped and swept at the end; before and after: what is mounted below it."""
    d = Daemon(args=args, **kw)
    try:
        before(d)
        d.start()
        yield d
        d.delete_all()
        d.stop()
    finally:
        d.sweep()
        after(d)
        if "AVIARY_TEST_KEEP" not in os.environ:
            d.remove_dir()


def under(d, *parts):
    path = os.path.join(d.dir, *parts)
    os.makedirs(path, exist_ok=True)
    return path


def umount(path):
    subprocess.run(["umount", "-l", path], check=False, capture_output=True, timeout=20)


def disk():
    return tempfile.NamedTemporaryFile(prefix="aviary-disk-")


def mount_copy(image, path):
    """What a disk holds that was broken, on another, which is to be kept. Whoever copied our mounts meanwhile, as each
    worker does that starts on this machine, keeps the broken one, and the same file would give that again."""
    other = disk()
    subprocess.run(["cp", "--sparse=always", image.name, other.name], check=True, capture_output=True, timeout=60)
    mount("-o", "loop", other.name, path)
    return other


def serves_reads(d, sandbox):
    """With a database that cannot be written."""
    d.expect(200, "GET", "/v1/sandboxes")
    equal(d.expect(200, "GET", f"/v1/sandboxes/{sandbox}").json()["status"], "running", "a sandbox is shown")
    d.expect(200, "GET", "/v1/snapshots")
    d.expect(200, "GET", "/health", key=False)
    equal(d.exec(sandbox, "echo alive")["stdout"], "alive\n", "commands run in it")


def refused(r, statuses, *parts):
    ok(r.status in statuses, f"refused with {statuses}: {r.status} {short(r.body)}")
    ok(any(p in r.message for p in parts), f"the text names the cause ({parts}): {r.message}")


def known(d, made):
    """All that was answered is there, after a death too."""
    for sandbox in made:
        equal(d.request("GET", f"/v1/sandboxes/{sandbox}").status, 200, f"{sandbox} was answered and is known")


def test_a_full_disk_below_the_database(_d):
    db = lambda d: under(d, "state", "db")  # noqa: E731

    with daemon(before=lambda d: mount("-t", "tmpfs", "-o", "size=12m,mode=0700", "none", db(d)),
                after=lambda d: umount(db(d))) as d:
        keep = d.create()["id"]
        made = [keep]
        filler = os.path.join(db(d), "filler")
        with open(filler, "wb") as f:
            with contextlib.suppress(OSError):
                while True:
                    f.write(b"x" * 65536)
                    f.flush()
        seen = None
        for _ in range(200):
            r = d.request("POST", "/v1/sandboxes", {"metadata": {"big": BIG[:4000]}, "envs": {"BIG": BIG}})
            if r.status != 201:
                seen = r
                break
            made.append(r.json()["id"])
        ok(seen is not None, "a full disk is noticed")
        refused(seen, (507, 503), "space")
        serves_reads(d, keep)
        refused(d.request("POST", "/v1/api-keys", {"name": "x"}), (507, 503), "space")
        refused(d.request("GET", "/v1/admin/backup"), (507, 503), "space")
        equal(d.request("DELETE", f"/v1/sandboxes/{keep}").status in (204, 507), True, "a delete is carried out or refused")
        os.unlink(filler)
        wait_for(lambda: d.request("POST", "/v1/sandboxes", {}).status == 201, 15, "creates work again by themselves")
        d.kill()
        d.start()
        known(d, made)


def test_no_inodes_in_the_run_directory(_d):
    run = lambda d: under(d, "run")  # noqa: E731

    with daemon(before=lambda d: mount("-t", "tmpfs", "-o", "nr_inodes=40,mode=0755", "none", run(d)),
                after=lambda d: umount(run(d))) as d:
        made, seen = [], None
        for _ in range(30):
            r = d.request("POST", "/v1/sandboxes", {})
            if r.status != 201:
                seen = r
                break
            made.append(r.json()["id"])
        ok(seen is not None and made, f"{len(made)} fit")
        ok(seen.status >= 500 and ("space" in seen.message or "directory" in seen.message), f"told: {seen.message}")
        serves_reads(d, made[0])
        for sandbox in made[:4]:
            d.delete(sandbox)
        wait_for(lambda: d.request("POST", "/v1/sandboxes", {}).status == 201, 15, "there is room again")
        known(d, made)


def test_a_disk_that_breaks(_d):
    """ext4 that was shut down, as after an I/O error: every access fails until it is mounted afresh."""
    image = disk()
    image.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image.name], check=True, capture_output=True, timeout=30)
    db = lambda d: under(d, "state", "db")  # noqa: E731

    with daemon(before=lambda d: mount("-o", "loop", image.name, db(d)), after=lambda d: umount(db(d))) as d:
        keep = d.create()["id"]
        key = d.expect(201, "POST", "/v1/api-keys", {"name": "kept"}).json()
        break_disk(db(d))
        refused(d.request("POST", "/v1/sandboxes", {}), (500, 503, 507), "disk", "database")
        refused(d.request("POST", "/v1/api-keys", {"name": "x"}), (500, 503, 507), "disk", "database")
        serves_reads(d, keep)
        d.kill()
        umount(db(d))
        other = mount_copy(image, db(d))
        d.start()
        d.expect(200, "GET", "/v1/sandboxes", headers={"X-API-Key": key["key"]}, key=False)
        known(d, [keep])
        equal(d.exec(keep, "echo alive")["stdout"], "alive\n", "the sandbox never noticed")
    image.close()
    other.close()


def break_disk(path):
    """What was synced stays, nothing else does, and every access fails until it is mounted afresh."""
    fd = os.open(path, os.O_RDONLY)
    try:
        flags = ctypes.c_uint32(2)
        if ctypes.CDLL(None, use_errno=True).ioctl(fd, EXT4_IOC_SHUTDOWN, ctypes.byref(flags)) != 0:
            raise aviary_test.Skip("this kernel cannot shut ext4 down")
    finally:
        os.close(fd)


def test_the_power_goes(_d):
    """T50: under a load of snapshots and keys the whole state is cut off from its disk, and what was not synced is lost."""
    image = disk()
    image.truncate(60 << 30)  # sparse; above the room that the host's disk is to keep
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", image.name], check=True,
                   capture_output=True, timeout=60)
    state = lambda d: under(d, "state")  # noqa: E731
    keys, templates, stop = [], {}, threading.Event()

    def load(d):
        n = 0
        with contextlib.suppress(Exception):
            while not stop.is_set():
                n += 1
                keys.append(d.expect(201, "POST", "/v1/api-keys", {"name": f"{n}"}).json()["key"])
                sandbox = d.create()["id"]
                text = d.exec(sandbox, f"head -c 100000 /dev/urandom >/root/r; echo {n} >>/root/r; sha256sum </root/r")["stdout"]
                name = f"t{threading.get_ident()}-{n}"
                d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sandbox, "name": name, "stop": True})
                templates[name] = text

    with daemon(args=("--disk", "none"), before=lambda d: mount("-o", "loop", image.name, state(d)),
                after=lambda d: umount(state(d))) as d:
        threads = [threading.Thread(target=load, args=(d,), daemon=True) for _ in range(2)]
        for t in threads:
            t.start()
        wait_for(lambda: len(templates) > 3 and len(keys) > 5, 30, "a load")
        break_disk(state(d))
        stop.set()
        d.kill()
        for t in threads:
            t.join(30)
        answered, made = list(keys), dict(templates)
        d.sweep()
        wait_for(lambda: subprocess.run(["umount", state(d)], check=False, capture_output=True).returncode == 0, 20,
                 "the disk is let go")
        other = mount_copy(image, state(d))
        d.start()
        for key in answered:
            d.expect(200, "GET", "/v1/sandboxes", headers={"X-API-Key": key}, key=False)
        listed = {t["name"] for t in d.expect(200, "GET", "/v1/snapshots").json()}
        for name, text in made.items():
            ok(name in listed, f"{name} was answered and is there")
        for name in sorted(n for n in listed if n.startswith("t") and "-" in n):
            sandbox = d.create(template=name)["id"]  # its files are compared with their checksum first
            got = d.exec(sandbox, "sha256sum </root/r")["stdout"]
            ok(name not in made or got == made[name], f"{name} is whole")
            d.delete(sandbox)
        print(f"# {len(answered)} keys and {len(made)} snapshots were answered and are there")
    image.close()
    other.close()


test_the_power_goes.timeout_s = 150


def cpu_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_no_descriptors_left(_d):
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))  # noqa: E731

    with daemon(popen={"preexec_fn": limit}) as d:
        keep = d.create()["id"]
        first = d.connection()
        first.request("GET", "/health")
        first.getresponse().read()
        held = []
        for _ in range(300):
            s = socket.create_connection((d.host, d.port), timeout=5)
            held.append(s)
        pid = d.pids()["daemon"]
        time.sleep(0.5)
        before = cpu_s(pid)
        time.sleep(2)
        spent = cpu_s(pid) - before
        ok(spent < 1.0, f"it does not spin: {spent:.2f} s of CPU in 2 s")
        first.request("GET", "/health")
        equal(first.getresponse().status, 200, "a connection that was there is served")
        for s in held:
            s.close()
        wait_for(lambda: ready(d), 20, "new ones are served again")
        equal(d.exec(keep, "echo alive")["stdout"], "alive\n", "and sandboxes are there")
        sandbox = d.create()["id"]
        d.delete(sandbox)


def test_no_threads_to_start_with(_d):
    """As long as there are none it does not start, and says so; then it does by itself."""
    d = Daemon()
    try:
        d.start()
        uid = os.stat(os.path.join(d.state, "db")).st_uid
        if uid == 0:
            raise aviary_test.Skip("the daemon runs as root")
        keep = d.create()["id"]
        pids = d.pids()
        was = resource.prlimit(pids["supervisor"], resource.RLIMIT_NPROC)
        resource.prlimit(pids["supervisor"], resource.RLIMIT_NPROC, (1, was[1]))
        with contextlib.suppress(PermissionError):
            os.kill(pids["daemon"], 9)
        wait_for(lambda: "thread" in d.log_text().lower() or "cannot start aviaryd" in d.log_text(), 15, "it is told")
        resource.prlimit(pids["supervisor"], resource.RLIMIT_NPROC, was)
        wait_for(lambda: ready(d), 30, "it starts when there are threads again")
        equal(d.exec(keep, "echo alive")["stdout"], "alive\n", "the sandbox lives")
        d.delete_all()
        d.stop()
    except PermissionError:
        raise aviary_test.Skip("limits cannot be set here") from None
    finally:
        d.sweep()
        d.remove_dir()


def test_killed_at_any_moment(d):
    """As the OOM killer does it. Answered is answered."""
    made, deleted, keys, stop = [], [], [], threading.Event()

    def load():
        while not stop.is_set():
            try:
                r = d.request("POST", "/v1/sandboxes", {}, timeout=10)
                if r.status == 201:
                    sandbox = r.json()["id"]
                    made.append(sandbox)
                    if len(made) % 2 and d.request("DELETE", f"/v1/sandboxes/{sandbox}", timeout=10).status == 204:
                        deleted.append(sandbox)
                r = d.request("POST", "/v1/api-keys", {"name": "k"}, timeout=10)
                if r.status == 201:
                    keys.append(r.json()["key"])
            except Exception:  # pylint: disable=broad-except
                time.sleep(0.05)

    threads = [threading.Thread(target=load, daemon=True) for _ in range(2)]
    for t in threads:
        t.start()
    for round_ in range(6):
        time.sleep(random.uniform(0.1, 0.5))
        os.kill(d.pids()["worker" if round_ % 3 == 2 else "daemon"], 9)
        wait_for(lambda: ready(d), 40, "back")
    stop.set()
    for t in threads:
        t.join(30)
    wait_for(lambda: ready(d), 40, "back")
    ok(made and keys, "something was answered")
    listed = {s["id"]: s for s in d.expect(200, "GET", "/v1/sandboxes").json()}
    for sandbox in made:
        r = d.request("GET", f"/v1/sandboxes/{sandbox}")
        equal(r.status, 200, f"{sandbox} is known")
        if sandbox in deleted:
            ok(sandbox not in listed, f"{sandbox} was deleted and stays so: {r.json()['status']}")
        elif r.json()["status"] == "running":
            ok(sandbox in listed, f"{sandbox} is listed")
    for key in keys:
        equal(d.request("GET", "/v1/sandboxes", headers={"X-API-Key": key}, key=False).status, 200, "a key is known")
    print(f"# {len(made)} creates, {len(deleted)} deletes, {len(keys)} keys over six deaths")


test_killed_at_any_moment.timeout_s = 150
test_a_full_disk_below_the_database.timeout_s = 120


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("1..0 # SKIP needs root")
        sys.exit(0)
    main(dict(globals()))
