# SPDX-License-Identifier: Apache-2.0
"""saved.py - whole machines, saved and restored by aviary-vm: what they have is what they had, or they do not run

T47 with a real guest; what is damaged is named. No KVM and no privilege is needed. TAP."""

import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback

import machine_lib as lib
from aviary_test import Failure, SLOW, Skip, contains, equal, ok, wait_for
from machine_lib import MIB, Machine, Refused

CYCLES = int(os.environ.get("AVIARY_TEST_CYCLES", "2"))


def prepare(root):
    """Image and golden snapshot in root."""
    lib.small_root(f"{root}/template")
    os.symlink(lib.kernel(), f"{root}/kernel")
    for mode in (lib.IMAGE, lib.GOLDEN):
        with Machine(root) as m:
            m.ask(lib.START, lib.start(mode))


def hashes(m):
    return m.run("cat /tmp/memory /root/disk | md5sum; md5sum /bin/busybox").split()


def test_pauses_keep_memory_and_disk(root):
    with Machine(root) as m:
        m.ask(lib.START, lib.start(lib.RESTORE))
        m.run("mount -t tmpfs t /tmp; dd if=/dev/urandom of=/tmp/memory bs=1M count=20; dd if=/dev/urandom of=/root/disk bs=1M count=4; echo 0 >/tmp/count; "
              "(while true; do read n </tmp/count; echo $((n + 1)) >/tmp/count.new; mv /tmp/count.new /tmp/count; sleep 0.05; done) >/dev/null 2>&1 &")
        before, counted, times = hashes(m), 0, []
        for n in range(CYCLES):
            if n % 2:
                saved = m.ask(lib.SAVE)
                ok(saved["memory_bytes"] <= 150 * MIB, f"only what is private is stored: {saved}")
                times.append(("save", saved["stopped_us"] // 1000, saved["total_us"] // 1000))
                equal(hashes(m), before, f"contents after save {n}")
                m.ask(lib.DROP, saved["save"].to_bytes(4, "little"))
            saved = m.ask(lib.PAUSE)
            times.append(("pause", saved["stopped_us"] // 1000, saved["total_us"] // 1000))
            equal(m.qemu_pid(), 0, "QEMU is gone, and the memory with it")
            st = m.ask(lib.RESUME, lib.identity())
            times.append(("resume", st["total_us"] // 1000))
            equal(hashes(m), before, f"contents after pause {n}")
            count = int(m.run("cat /tmp/count"))
            ok(count > counted, f"it goes on counting: {count} after {counted}")
            counted = count
            m.run(f"dd if=/dev/urandom of=/tmp/memory bs=1M count=3 seek={n} conv=notrunc 2>/dev/null")
            before = hashes(m)
        st = m.status()
        print(f"# ms: {times}")
        print(f"# private {st['private_bytes'] // MIB} MiB, QEMU's own {st['overhead_bytes'] // MIB} MiB")


def test_memory_is_given_back(root):
    with Machine(root) as m:
        m.ask(lib.START, lib.start(lib.RESTORE))
        m.run("mount -t tmpfs t /tmp; dd if=/dev/urandom of=/tmp/x bs=1M count=80 2>/dev/null")
        full = m.status()["private_bytes"]
        m.run("rm /tmp/x")
        deadline = time.monotonic() + 40 * SLOW
        while m.status()["private_bytes"] > full - 50 * MIB:
            ok(time.monotonic() < deadline, f"80 MiB that were freed come back: {full} before, {m.status()['private_bytes']} now")
            time.sleep(0.5)
        m.ask(lib.PAUSE)
        m.ask(lib.RESUME, lib.identity())
        zero = m.run("dd if=/dev/zero of=/tmp/y bs=1M count=60 2>/dev/null; md5sum </tmp/y").split()[0]
        equal(zero, hashlib.md5(bytes(60 * MIB)).hexdigest(), "new pages are zero, whatever was in them")


def test_damaged_saves_do_not_run(root):
    with Machine(root) as m:
        m.ask(lib.START, lib.start(lib.RESTORE))
        m.run("mount -t tmpfs t /tmp; dd if=/dev/urandom of=/tmp/memory bs=1M count=20; echo 1 >/root/disk")
        before = hashes(m)
        save = m.ask(lib.PAUSE)["save"]
        path = f"{root}/vm/saves/{save}"
        for name, damage in (("memory", flip), ("memory", cut), ("state", flip), ("state", cut), ("info", flip), ("info", cut)):
            shutil.copy(f"{path}/{name}", f"{path}/{name}.kept")
            damage(f"{path}/{name}")
            try:
                m.ask(lib.RESUME, lib.identity())
            except Refused as e:
                contains(str(e), name, f"the message about a {name} with {damage.__name__}")
                print(f"# {e.args[1]}")
            else:
                raise Failure(f"a machine runs with a {name} after {damage.__name__}")
            wait_for(lambda: m.qemu_pid() == 0, 10, "nothing runs")
            os.rename(f"{path}/{name}.kept", f"{path}/{name}")
        m.ask(lib.RESUME, lib.identity())
        equal(hashes(m), before, "as it was, once all is mended")


def flip(path):
    """One bit: of the memory one that the save has written."""
    with open(path, "r+b") as f:
        at = os.path.getsize(path) // 2
        if path.endswith("/memory"):
            at = written_place(path)
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes((byte ^ 1,)))


def written_place(path):
    with open(os.path.dirname(path) + "/info", encoding="ascii") as f:
        for line in f:
            words = line.split()
            if words[0] == "block":
                mask = int(words[2], 16)
                return int(words[1]) * MIB + ((mask & -mask).bit_length() - 1) * 4096 + 100
    raise Failure("the save has no block")


def cut(path):
    os.truncate(path, os.path.getsize(path) - 4096 if os.path.getsize(path) > 8192 else os.path.getsize(path) // 2)


def main():
    signal.alarm(int(250 * SLOW))
    for program in ("qemu-system-x86_64", "mkfs.erofs", "mke2fs", "curl", "busybox"):
        if shutil.which(program) is None and not os.path.exists(f"/usr/sbin/{program}"):
            print(f"1..0 # SKIP {program} is not installed")
            sys.exit(1 if os.environ.get("CI") else 0)
    tests = {n: f for n, f in globals().items() if n.startswith("test_")}
    chosen = sys.argv[1:] or list(tests)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="aviary-test-saved-") as work:
        try:
            prepare(f"{work}/golden")
        except Skip as e:
            print(f"1..0 # SKIP {e}")
            sys.exit(1 if os.environ.get("CI") else 0)
        for n, name in enumerate(chosen, 1):
            root = f"{work}/{name}"
            shutil.copytree(f"{work}/golden", root, symlinks=True, ignore=lambda _, names: [x for x in names if x.endswith(".sock")])
            start = time.monotonic()
            try:
                tests[name](root)
                print(f"ok {n} - {name} ({time.monotonic() - start:.1f} s)")
            except Exception:  # a failure of any kind is this test's
                failed += 1
                print(f"not ok {n} - {name}\n" + "".join(f"# {l}\n" for l in traceback.format_exc().splitlines()))
            sys.stdout.flush()
            shutil.rmtree(root, ignore_errors=True)
    print(f"1..{len(chosen)}")
    sys.exit(1 if failed else 0)


main()
