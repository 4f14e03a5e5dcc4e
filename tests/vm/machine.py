# SPDX-License-Identifier: Apache-2.0
"""machine.py - aviary-vm with a real QEMU, a real kernel and the agent in the guest: its whole life, and what goes wrong in it

No KVM and no privilege is needed (but for the test with a disk that is full). TAP."""

import errno
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

from aviary_test import Failure, SLOW, Skip, contains, equal, ok, wait_for
from machine_lib import (DROP, FAILED, GOLDEN, HAND_OVER, HELD, HOLD, IMAGE, MADE, MIB, PAUSE, PAUSED, RESTORE, RESUME, RUNNING, SAVE, START, Machine,
                         Refused, identity, kernel, small_root, start)

WORK = None  # of this run: golden/ is a directory with /vm of a golden
OTHER = "sb" + "b" * 25
SAME = identity(sandbox="")  # in a RESUME: who it was


def refused(what, number, f, *args, **more):
    try:
        f(*args, **more)
    except Refused as e:
        equal(e.args[0], number, f"{what}: errno of {e.args[1]!r}")
        return e.args[1]
    raise Failure(f"{what} was not refused")


def copy(name, source="golden"):
    """The files of a machine, as a layer below another would show them."""
    path = f"{WORK}/{name}"
    subprocess.run(["cp", "-a", "--reflink=auto", "--sparse=always", f"{WORK}/{source}/.", path + "/"] if os.path.isdir(path) else
                   ["cp", "-a", "--reflink=auto", "--sparse=always", f"{WORK}/{source}", path], check=True)
    return path


def running(name, source="golden", who=None, **more):
    m = Machine(copy(name, source), **more)
    st = m.ask(START, start(RESTORE, who=who))
    equal(st["state"], RUNNING, "restored")
    return m


def test_image_and_golden():
    root = f"{WORK}/golden"
    os.makedirs(root)
    small_root(root + "/template")
    os.symlink(kernel(), root + "/kernel")
    with Machine(root) as m:
        equal(m.ask(START, start(IMAGE))["state"], MADE, "state after the image")
        contains(refused("a second START", errno.EINVAL, m.ask, START, start(IMAGE)), "already", "why")
    for name in ("root.erofs", "kernel", "initrd"):
        ok(os.path.getsize(f"{root}/vm/image/{name}") > 0, f"/vm/image/{name}")
    with Machine(root) as m:
        equal(m.ask(START, start(GOLDEN))["state"], MADE, "state after the golden")
        ok(any(stage == "starting the guest" for _, stage in m.progress), "progress was told")
    equal(open(f"{root}/vm/current", encoding="ascii").read(), "1\n", "current")
    ok(os.stat(f"{root}/vm/saves/1/memory").st_blocks * 512 < 200 * MIB, "its memory is sparse")
    os.unlink(f"{root}/kernel")
    shutil.rmtree(f"{root}/template")


def test_life():
    with running("life") as m:
        equal(m.run("hostname").strip(), "guest-a", "host name")
        ok(abs(int(m.run("date +%s")) - time.time()) < 10 * SLOW, "the clock is right")
        before = m.run("cat /etc/machine-id /proc/sys/kernel/random/boot_id")
        m.run("(i=0; while true; do i=$((i+1)); echo $i >/tmp/n; mv /tmp/n /tmp/count; sleep 0.05; done) >/dev/null 2>&1 &")
        m.run("dd if=/dev/urandom of=/root/file bs=1M count=20; md5sum /root/file > /root/sum; sync")
        saved = m.ask(PAUSE)
        equal(m.status()["state"], PAUSED, "paused")
        equal(m.qemu_pid(), 0, "a paused machine has no QEMU")
        ok(saved["memory_bytes"] < 128 * MIB, "only what was written is saved")
        refused("PAUSE when paused", errno.EBUSY, m.ask, PAUSE)
        equal(m.ask(RESUME, SAME)["state"], RUNNING, "resumed")
        equal(m.run("cat /etc/machine-id /proc/sys/kernel/random/boot_id"), before, "it is who it was")
        count = int(m.run("cat /tmp/count"))
        time.sleep(0.5)
        ok(int(m.run("cat /tmp/count")) > count, "its processes go on")
        saved = m.ask(SAVE)
        equal(m.status()["state"], RUNNING, "runs on after a save")
        m.run("echo later > /root/later")
        shutil.copytree(f"{m.root}/vm/saves/{saved['save']}", f"{WORK}/saved/vm/saves/{saved['save']}")
        with open(f"{WORK}/saved/vm/current", "w", encoding="ascii") as f:
            f.write(f"{saved['save']}\n")
        os.symlink(f"{WORK}/golden/vm/image", f"{WORK}/saved/vm/image")
        refused("DROP of what it runs on", errno.EBUSY, m.ask, DROP, struct.pack("=I", saved["save"] - 1))
        m.ask(DROP, struct.pack("=I", saved["save"]))
        ok(not os.path.exists(f"{m.root}/vm/saves/{saved['save']}"), "the save is gone")
        m.ask(PAUSE)
        m.ask(RESUME, SAME)
        contains(m.run("md5sum -c /root/sum && cat /root/later"), "later", "its files")
        m.process.terminate()
        equal(m.end()[1:], (1, "told to end"), "exit record")


def test_twice_of_one_save():
    with running("one", "saved") as a, running("two", "saved", identity(OTHER, "guest-b", 8)) as b:
        ids = [m.run("cat /etc/machine-id; cat /proc/sys/kernel/random/uuid; hostname").split() for m in (a, b)]
        ok(all(x != y for x, y in zip(*ids)), f"machine-id, random numbers and name differ: {ids}")
        ok(int(a.run("cat /tmp/count")) > 0 and int(b.run("cat /tmp/count")) > 0, "processes of the save run in both")
        for m in (a, b):
            ok("later" not in m.run("ls /root"), "nothing of later")
            m.run("md5sum -c /root/sum")


def test_hold():
    with Machine(copy("hold")) as m:
        refused("HOLD of a machine that was not started", errno.EBUSY, m.ask, HOLD)
        m.ask(START, start(RESTORE))
        count = "n=0; while :; do n=$((n+1)); echo $n >/tmp/n; mv /tmp/n /tmp/count; sleep 0.02; done"
        m.run(f"({count}) >/dev/null 2>&1 </dev/null & while [ ! -s /tmp/count ]; do sleep 0.1; done; hostname >/tmp/name")
        equal(m.ask(HOLD)["state"], HELD, "held")
        refused("HOLD of a held machine", errno.EBUSY, m.ask, HOLD)
        refused("PAUSE of a held machine", errno.EBUSY, m.ask, PAUSE)
        refused("another number", errno.EINVAL, m.ask, HAND_OVER, identity(number=9))
        m.ask(DROP, struct.pack("=I", 77))
        equal(m.ask(HAND_OVER, identity(OTHER, "handed"))["state"], RUNNING, "handed over")
        equal(m.run("hostname; cat /etc/machine-id /tmp/name").split()[0], "handed", "host name")
        n = int(m.run("cat /tmp/count"))
        ok(int(m.run("sleep 1; cat /tmp/count")) > n, "what ran before goes on")
        refused("DROP of what it runs on, after that of another save", errno.EBUSY, m.ask, DROP, struct.pack("=I", 1))


def test_told_to_end_while_starting():
    path = f"{WORK}/idle.sh"
    with open(path, "w", encoding="ascii") as f:
        f.write("#!/bin/sh\nexec sleep 1000\n")
    os.chmod(path, 0o755)
    with Machine(copy("told"), qemu=path) as m:
        s = m.send(START, start(RESTORE))
        deadline = time.monotonic() + 20 * SLOW
        while not m.qemu_pid() and time.monotonic() < deadline:
            time.sleep(0.02)
        m.process.terminate()
        try:
            m.answer(s)
        except (Refused, Failure):  # why, or the end of the connection
            pass
        else:
            raise Failure("START succeeded without a QEMU")
        equal(m.end()[1:], (1, "told to end"), "exit record")


def test_first_step_fails():
    """What is undone then is nothing of the save that the machine runs on."""
    for stage, op in (("preparing the save", PAUSE), ("copying memory", SAVE)):
        os.environ["AVIARY_FAILPOINT"] = f"{stage}=error@1"
        try:
            m = running("first-step")
        finally:
            del os.environ["AVIARY_FAILPOINT"]
        with m:
            try:
                m.ask(op)
                raise Skip("built without failpoints")
            except Refused as e:
                contains(e.args[1], "failpoint", f"{stage}: why")
            ok(os.path.exists(f"{m.root}/vm/saves/1/memory"), f"{stage}: what QEMU maps is still there")
            ok(m.ask(op)["save"] > 1, f"{stage}: the next time it works")
        shutil.rmtree(m.root)


def test_resumed_all_the_same():
    """What is only tidied up after a resume cannot take the guest back, which runs by then."""
    os.environ["AVIARY_FAILPOINT"] = "removing what was saved=error@1"
    try:
        m = running("tidy")
    finally:
        del os.environ["AVIARY_FAILPOINT"]
    with m:
        m.run("echo here > /root/here")
        m.ask(PAUSE)
        equal(m.ask(RESUME, SAME)["state"], RUNNING, "resumed")
        contains(m.run("cat /root/here"), "here", "its files")
        m.ask(PAUSE)
        equal(m.ask(RESUME, SAME)["state"], RUNNING, "and once more")
    shutil.rmtree(m.root)


def test_wrong_requests():
    with Machine(copy("wrong")) as m:
        for packet in (b"", b"x", b"x" * 159, b"x" * 161, bytes(160)):
            s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            s.settimeout(10 * SLOW)
            s.connect(m.vm_path)
            if packet:
                s.send(packet)
            else:
                s.shutdown(socket.SHUT_WR)
            equal(s.recv(1000), b"", f"a packet of {len(packet)} bytes ends the connection")
            s.close()
        contains(refused("another protocol", errno.ENOSYS, m.ask, START, start(RESTORE), protocol=99), "another version", "why")
        for what, body in (("memory", start(RESTORE, memory=3 * MIB)), ("vcpus", start(RESTORE, vcpus=65)), ("mode", start(4)), ("accel", start(RESTORE, accel=3)),
                           ("KVM without a descriptor", start(RESTORE, accel=2)), ("flags", start(RESTORE, flags=8)),
                           ("number", start(RESTORE, who=identity(number=4096))), ("host name", start(RESTORE, who=identity(hostname="")))):
            refused(what, errno.EINVAL, m.ask, START, body)
        refused("RESUME of nothing", errno.EBUSY, m.ask, RESUME, SAME)
        text = refused("another shape", errno.EINVAL, m.ask, START, start(RESTORE, memory=512 * MIB))
        contains(text, "256 MiB", "what it has")
        equal(m.status()["state"], FAILED, "failed")
        contains(m.status()["text"], "256 MiB", "and says why")


def test_damage():
    """A save that is not what it was is noticed before the guest runs on it."""
    for name, harm in (("cut state", lambda p: os.truncate(f"{p}/state", 1000)), ("changed state", lambda p: poke(f"{p}/state", 5000)),
                       ("changed memory", lambda p: poke_page(p)), ("cut disk", lambda p: os.truncate(f"{p}/disk", MIB)),
                       ("no info", lambda p: os.unlink(f"{p}/info"))):
        path = copy("damage", "saved")
        save = open(f"{path}/vm/current", encoding="ascii").read().strip()
        harm(f"{path}/vm/saves/{save}")
        with Machine(path) as m:
            try:
                m.ask(START, start(RESTORE))
                raise Failure(f"{name}: restored all the same")
            except Refused as e:
                ok(e.args[0] in (errno.EBADMSG, errno.ENOENT), f"{name}: {e.args}")
            wait_for(lambda m=m: m.qemu_pid() == 0, 10, f"{name}: no QEMU is left")
        shutil.rmtree(path)


def poke(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        old = f.read(1)[0]
        f.seek(at)
        f.write(bytes([old ^ 1]))


def poke_page(path):
    """Into the first page that the save has a sum of."""
    block = next(line.split() for line in open(f"{path}/info", encoding="ascii") if line.startswith("block "))
    mask = int(block[2], 16)
    page = (mask & -mask).bit_length() - 1
    poke(f"{path}/memory", int(block[1]) * MIB + page * 4096 + 17)


def test_ends():
    """What the exit record says of a machine that ended."""
    for what, f, reason, text in (
            ("panic", lambda m: m.send_shell("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger"), 2, "panicked"),
            ("power off", lambda m: m.send_shell("poweroff -f"), 1, "powered off"),
            ("restart", lambda m: m.send_shell("reboot -f"), 2, "restarted"),
            ("QEMU killed", lambda m: os.kill(m.qemu_pid(), signal.SIGKILL), 2, "QEMU was killed"),
            ("QEMU crashed", lambda m: os.kill(m.qemu_pid(), signal.SIGSEGV), 2, "signal 11")):
        with running("ends") as m:
            f(m)
            _, got, said = m.end(60)
            equal(got, reason, f"{what}: reason")
            contains(said, text, f"{what}: text")
        shutil.rmtree(m.root)


def test_qemu_dies_in_a_save():
    for stage, op in (("a pause", PAUSE), ("a save", SAVE)):
        with running("dies") as m:
            m.run("dd if=/dev/urandom of=/run/x bs=1M count=12")
            s = m.send(op)
            time.sleep(random.uniform(0, 0.08))
            pid = m.qemu_pid()
            if pid:
                os.kill(pid, signal.SIGKILL)
            try:
                m.answer(s)
                done = True
            except Refused as e:
                done = False
                contains(e.args[1], "QEMU", f"{stage}: why")
            if op == PAUSE and done:
                equal(m.ask(RESUME, SAME)["state"], RUNNING, f"{stage} that was done first can be resumed")
            elif not done:
                contains(m.end()[2], "QEMU", f"{stage}: exit record")
                equal(open(f"{m.root}/vm/current", encoding="ascii").read(), "1\n", f"{stage}: the old save counts")
        shutil.rmtree(m.root)


def test_killed_in_a_pause():
    """kill -9 of aviary-vm at some instruction: the old save is there, or the new one."""
    for _ in range(4):
        with running("killed") as m:
            m.run("echo new > /root/new; sync")
            m.send(PAUSE)
            time.sleep(random.uniform(0, 0.25))
            qemu = m.qemu_pid()
            m.kill()
        deadline = time.monotonic() + 10 * SLOW
        while qemu and os.path.exists(f"/proc/{qemu}/exe") and time.monotonic() < deadline:
            time.sleep(0.02)
        ok(not qemu or not os.path.exists(f"/proc/{qemu}/exe"), "QEMU died with it")
        with Machine(m.root) as again:
            current = open(f"{m.root}/vm/current", encoding="ascii").read().strip()
            equal(again.ask(START, start(RESTORE))["state"], RUNNING, f"restored from save {current}")
            equal("new" in again.run("ls /root"), current != "1", f"files of save {current}")
        shutil.rmtree(m.root)


def test_wrong_qemu():
    path = f"{WORK}/qemu.sh"
    for script, what in (("echo 'no such machine' >&2; exit 1", "no such machine"), ("echo '{\"QMP\": 1}' >&3; sleep 100", "no QMP"),
                         ("exec 3>&-; sleep 100", "QEMU was killed"),
                         ("head -c 1000000 /dev/zero >&3; sleep 100", "too long"), ("kill -9 $$", "killed"), (None, "cannot be run")):
        if script:
            with open(path, "w", encoding="ascii") as f:
                f.write(f"#!/bin/sh\n{script}\n")
            os.chmod(path, 0o755)
        else:
            os.unlink(path)
        with Machine(copy("wrong-qemu"), qemu=path) as m:
            try:
                m.ask(START, start(RESTORE))
                raise Failure(f"{script}: restored")
            except Refused as e:
                contains(e.args[1], what, f"{script}: why")


def test_full_disk():
    root = f"{WORK}/full"
    os.makedirs(root)
    used = sum(os.stat(os.path.join(d, f)).st_blocks * 512 for d, _, files in os.walk(f"{WORK}/golden") for f in files)
    # not a tmpfs: there, even reading a hole of the memory file needs room
    image = root + ".img"
    with open(image, "wb") as f:
        f.truncate(used + 60 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", image], check=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
    if subprocess.run(["mount", "-o", "loop", image, root], capture_output=True, check=False).returncode:
        raise Skip("needs root and a loop device, to mount a small file system")
    try:
        with running("full") as m:
            m.run("dd if=/dev/urandom of=/run/x bs=1M count=12; sleep 1")
            with open(f"{root}/fill", "wb") as f:
                try:
                    while True:
                        f.write(bytes(MIB))
                except OSError:
                    pass
            for op in (PAUSE, SAVE):
                refused("a save on a full disk", errno.ENOSPC, m.ask, op)
                equal(m.status()["state"], RUNNING, "it runs on")
                m.run("true")
            equal(os.listdir(f"{root}/vm/saves"), ["1"], "nothing is left of them")
            os.unlink(f"{root}/fill")
    finally:
        subprocess.run(["umount", "-l", root], check=False)


def main():
    global WORK
    names = [a for a in sys.argv[1:] if a.startswith("test_")]
    tests = [(n, f) for n, f in globals().items() if n.startswith("test_") and callable(f)]
    needed = ("test_image_and_golden", "test_life")
    tests = [(n, f) for n, f in tests if not names or n in names or n in needed]
    WORK = tempfile.mkdtemp(prefix="aviary-vm-", dir=os.environ.get("AVIARY_TEST_DIR"))
    failed = False
    print(f"1..{len(tests)}")
    try:
        for i, (name, f) in enumerate(tests, 1):
            t0 = time.monotonic()
            try:
                f()
                print(f"ok {i} - {name} # {time.monotonic() - t0:.1f} s", flush=True)
            except Skip as e:
                if name == "test_image_and_golden":
                    print(f"Bail out! {e}" if os.environ.get("CI") else f"ok {i} - {name} # SKIP {e}")
                    for j, (other, _) in enumerate(tests[i:], i + 1):
                        print(f"ok {j} - {other} # SKIP {e}")
                    break
                print(f"ok {i} - {name} # SKIP {e}", flush=True)
            except Exception:
                failed = True
                print(f"not ok {i} - {name}")
                print("# " + traceback.format_exc().replace("\n", "\n# "), flush=True)
                if name in needed[:1]:
                    break
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
