# SPDX-License-Identifier: Apache-2.0
"""memory.py - the memory of a real QEMU: mapped privately, captured, summed, restored

The guest is guest.c, which fills and sums its memory as it is told; QEMU is kept by memory_tool.c, with the code that aviary-vm has.
No kernel, no KVM and no privilege is needed. TAP."""

import contextlib
import hashlib
import json
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

from aviary_test import Failure, SLOW, contains, equal, ok

BUILD = os.environ.get("AVIARY_BUILD", "build")
QEMU = "qemu-system-x86_64"
MIB = 1 << 20
PAGE = 4096
MEMORY = 128 * MIB
FIRST = 4096  # the first page that tests use: at 16 MiB
LAST = MEMORY // PAGE - 4096  # firmware has its tables at the end
TIMEOUT_S = 30 * SLOW


class Machine:
    """QEMU under memory_tool, with its monitor and the guest's serial line."""

    def __init__(self, work, memory, golden=False, state=None, extra=(), bytes_=MEMORY):
        self.work, self.memory = work, memory
        qmp, self.qmp_there = socket.socketpair()
        line, self.line_there = socket.socketpair()
        for s in (qmp, line):
            s.settimeout(TIMEOUT_S)
        self.line = line.makefile("rw", newline="\n")
        self.qmp = qmp.makefile("rw", newline="\n")
        self.sockets = (qmp, line)
        fds = (self.qmp_there.fileno(), self.line_there.fileno())
        args = [QEMU, "-M", "q35", "-accel", "tcg,tb-size=32", "-m", f"{bytes_ // MIB}M", "-nodefaults", "-no-user-config", "-display", "none",
                "-global", "migration.send-configuration=off", "-global", "migration.store-global-state=off",
                "-object", f"memory-backend-file,id=ram,size={bytes_},mem-path={memory},share={'on' if golden else 'off'}",
                "-machine", "memory-backend=ram", "-kernel", f"{BUILD}/tests/vm/guest",
                "-chardev", f"socket,id=qmp,fd={fds[0]}", "-mon", "chardev=qmp,mode=control",
                "-chardev", f"socket,id=line,fd={fds[1]}", "-serial", "chardev:line", *extra]
        if state:
            args += ["-S", "-incoming", f"exec:cat {state}"]
        self.errors = open(f"{work}/qemu.err", "w+", encoding="utf-8")
        self.tool = subprocess.Popen([f"{BUILD}/tests/vm/memory_tool", "-" if golden else memory, str(bytes_), *args], text=True,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, pass_fds=fds)
        self.qmp_there.close()
        self.line_there.close()
        try:
            ok(self.qmp.readline(), "QEMU says something")
            self.do("qmp_capabilities")
            self.pid = int(self.ask("pid")[0])
            if state:
                deadline = time.monotonic() + TIMEOUT_S
                while self.do("query-status")["status"] == "inmigrate":
                    ok(time.monotonic() < deadline, "the state is loaded in time")
                    time.sleep(0.002)
                self.do("cont")
            else:
                equal(self.line.readline(), "00000000\n", "the guest says that it is there")
        except Exception as e:
            self.errors.seek(0)
            raise Failure(f"QEMU: {self.errors.read()[:2000]} ({e})") from e

    def do(self, command, **arguments):
        self.qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.qmp.flush()
        while True:
            answer = json.loads(self.qmp.readline())
            if "error" in answer:
                raise Failure(f"{command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def ask(self, words):
        self.tool.stdin.write(words + "\n")
        self.tool.stdin.flush()
        answer = self.tool.stdout.readline().strip()
        if not answer.startswith("ok"):
            raise Failure(f"{words}: {answer}")
        return answer.split()[1:]

    def guest(self, *words):
        self.line.write(" ".join(w if isinstance(w, str) else f"{w:x}" for w in words) + "\n")
        self.line.flush()
        return int(self.line.readline(), 16)

    def save(self, name, ahead=False, between=None):
        """-> (directory, what was written); the machine stands still afterwards."""
        path = f"{self.work}/{name}"
        os.mkdir(path)
        if ahead:
            self.ask(f"begin {path}/memory 1")
            if between:
                between()
        self.do("stop")
        if not ahead:
            self.ask(f"begin {path}/memory 0")
        self.do("xen-save-devices-state", filename=f"{path}/state", live=False)
        words = self.ask(f"finish {path}/state {path}/info")
        return path, dict(zip(("private", "written", "again", "us"), map(int, words)))

    def check(self, path):
        return int(self.ask(f"check {path}/memory {path}/state {path}/info")[0])

    def close(self):
        self.tool.stdin.close()
        try:
            self.tool.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.tool.kill()
            self.tool.wait()
        for s in self.sockets:
            s.close()
        self.errors.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def hash_of(path):
    with open(path, "rb") as f:
        return hashlib.blake2b(f.read()).hexdigest()


def page_of(word):
    return struct.pack("<I", word & 0xffffffff) * (PAGE // 4)


def file_has(path, seed, first, pages):
    with open(path, "rb") as f:
        f.seek(first * PAGE)
        for i in range(first, first + pages):
            if f.read(PAGE) != (page_of(seed + i) if seed is not None else bytes(PAGE)):
                raise Failure(f"page {i} of {path} is not what the guest wrote")


def golden(work):
    """A machine that has booted and filled some memory, saved: -> directory."""
    path = f"{work}/golden"
    os.mkdir(path)
    with open(f"{path}/memory", "wb") as f:
        f.truncate(MEMORY)
    with Machine(work, f"{path}/memory", golden=True) as m:
        m.guest("f", 0x1000000, FIRST, 2000)
        m.do("stop")
        m.do("xen-save-devices-state", filename=f"{path}/state", live=False)
    file_has(f"{path}/memory", 0x1000000, FIRST, 2000)
    return path


def restore(work, path):
    return Machine(work, f"{path}/memory", state=f"{path}/state")


# ---- tests


def test_the_file_is_never_written(work):
    g = golden(work)
    os.chmod(f"{g}/memory", 0o400)
    before, stat = hash_of(f"{g}/memory"), os.stat(f"{g}/memory")
    with restore(work, g) as m:
        equal(m.guest("f", 7, FIRST, 3000), 3000, "the guest writes to its memory")
        with open(f"/proc/{m.pid}/maps", encoding="utf-8") as f:
            maps = [l for l in f if l.rstrip().endswith(f"{g}/memory")]
        ok(maps and all(l.split()[1] == "rw-p" for l in maps), f"mapped privately: {maps}")
        for fd in os.listdir(f"/proc/{m.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"/proc/{m.pid}/fd/{fd}") == f"{g}/memory":
                    with open(f"/proc/{m.pid}/fdinfo/{fd}", encoding="utf-8") as f:
                        flags = int(f.read().split("flags:")[1].split()[0], 8)
                    equal(flags & os.O_ACCMODE, os.O_RDONLY, "the file is open for reading only")
        with open(f"/proc/{m.pid}/environ", "rb") as f:
            ok(b"AVIARY" in f.read(), "the environment it was started with")
        private, overhead = map(int, m.ask("usage"))
        ok(3000 * PAGE <= private <= 3000 * PAGE + 8 * MIB, f"what is private is what it wrote: {private >> 10} KiB")
        print(f"# QEMU's own memory: {overhead >> 10} KiB, the guest's: {private >> 10} KiB")
    after = os.stat(f"{g}/memory")
    equal(hash_of(f"{g}/memory"), before, "the file's content")
    equal((after.st_mtime_ns, after.st_blocks), (stat.st_mtime_ns, stat.st_blocks), "and its dates and blocks")


def test_many_saves_and_restores(work):
    """What the guest has is what it had, again and again; the seed is told, so that a failure can be seen again."""
    seed = int(os.environ.get("AVIARY_TEST_SEED", str(time.time_ns() % 1000000)))
    print(f"# AVIARY_TEST_SEED={seed}")
    rng = random.Random(seed)
    path, machine = golden(work), None
    times = []
    for cycle in range(int(os.environ.get("AVIARY_TEST_CYCLES", "6"))):
        machine = restore(work, path)
        with machine as m:
            if cycle:
                equal(m.guest("h", FIRST, LAST - FIRST), memory_sum, f"the memory's checksum in cycle {cycle}")
                ok(m.guest("c") > counted, "it goes on counting")
            written = []
            for _ in range(12):
                first = rng.randrange(FIRST, LAST - 900)
                pages = rng.choice((1, 3, 70, 800))
                word = rng.choice((None, rng.getrandbits(32)))
                m.guest(*(("z", first, pages) if word is None else ("f", word, first, pages)))
                written = [w for w in written if w[1] + w[2] <= first or w[1] >= first + pages] + [(word, first, pages)]
            memory_sum, counted = m.guest("h", FIRST, LAST - FIRST), m.guest("c")
            old, (path, how) = path, m.save(f"save{cycle}", ahead=cycle % 2 == 1)
            times.append(how["us"])
            m.check(path)
            for w in written:
                file_has(f"{path}/memory", *w)
        shutil.rmtree(old)
    print(f"# stopped for {sorted(times)} us")


def test_what_changes_between_the_passes(work):
    g = golden(work)
    with restore(work, g) as m:
        m.guest("f", 5, FIRST, 6000)

        def between():
            m.guest("f", 9, FIRST + 100, 50)  # again
            m.guest("z", FIRST + 500, 200)  # zero now
            m.guest("f", 11, FIRST + 9000, 300)  # new

        path, how = m.save("save", ahead=True, between=between)
        ok(550 * PAGE <= how["again"] <= 550 * PAGE + 4 * MIB, f"only what changed is written again: {how}")
        m.check(path)
    memory = f"{path}/memory"
    file_has(memory, 5, FIRST, 100)
    file_has(memory, 9, FIRST + 100, 50)
    file_has(memory, 5, FIRST + 150, 350)
    file_has(memory, None, FIRST + 500, 200)
    file_has(memory, 5, FIRST + 700, 5300)
    file_has(memory, 11, FIRST + 9000, 300)


def test_zeros_are_not_stored(work):
    g = golden(work)
    with restore(work, g) as m:
        m.guest("z", FIRST, 12000)
        path, how = m.save("save")
        ok(how["private"] >= 12000 * PAGE, f"the guest wrote them: {how}")
        ok(how["written"] <= 8 * MIB, f"but they are not in the file: {how}")
        file_has(f"{path}/memory", None, FIRST, 12000)
        m.check(path)
    with restore(work, path) as m:
        expected = 2166136261
        for _ in range(PAGE // 4):
            expected = expected * 16777619 & 0xffffffff
        equal(m.guest("h", FIRST + 3, 1), expected, "the guest reads zeros")


def test_damage_is_found(work):
    g = golden(work)
    with restore(work, g) as m:
        m.guest("f", 5, FIRST, 2000)
        path, _ = m.save("save")
        with open(f"{path}/memory", "r+b") as f:
            f.seek((FIRST + 1234) * PAGE + 77)
            f.write(b"!")
        damaged(m, path, "MiB 20")
        with open(f"{path}/memory", "r+b") as f:
            f.truncate(MEMORY - PAGE)
        damaged(m, path, f"{MEMORY - PAGE} bytes instead of {MEMORY}")
        with open(f"{path}/state", "r+b") as f:
            f.truncate(100)
        damaged(m, path, "100 bytes instead of")
        with open(f"{path}/info", "r+b") as f:
            f.seek(60)
            f.write(b"?")
        damaged(m, path, "the record of a save")


def damaged(m, path, words):
    try:
        m.check(path)
    except Failure as e:
        contains(str(e), words, "the message")
        return
    raise Failure(f"damage was not found: {words}")


def test_a_full_disk(work):
    """A file system of 8 MiB; nothing is left on it, and the machine goes on."""
    if os.geteuid() != 0:
        print("# not root: the limit of a file's size in unit/test_vm_pages stands for it")
        return
    small = f"{work}/small"
    os.mkdir(small)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", small], stderr=subprocess.DEVNULL, check=False).returncode:
        print("# nothing can be mounted here")
        return
    try:
        g = golden(work)
        with restore(work, g) as m:
            m.guest("f", 5, FIRST + 6000, 3000)
            for ahead in (False, True):
                try:
                    m.work = small
                    m.save(f"save{ahead}", ahead)
                except Failure as e:
                    contains(str(e), "No space left", "the message")
                else:
                    raise Failure("12 MiB fit into 8")
                ok(not os.path.exists(f"{small}/save{ahead}/memory"), "no half file")
                m.do("cont")
                equal(m.guest("f", 6, FIRST, 10), 10, "the machine goes on")
    finally:
        subprocess.run(["umount", small], check=False)


def main():
    if shutil.which(QEMU) is None:
        print(f"1..0 # SKIP {QEMU} is not installed")
        sys.exit(1 if os.environ.get("CI") else 0)
    # Mounts of tests are nobody else's.
    if os.geteuid() == 0 and "AVIARY_TEST_UNSHARED" not in os.environ:
        os.environ["AVIARY_TEST_UNSHARED"] = "1"
        probe = subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL, check=False)
        if probe.returncode == 0:
            os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])
    signal.alarm(int(250 * SLOW))
    tests = {n: f for n, f in globals().items() if n.startswith("test_")}
    chosen = sys.argv[1:] or list(tests)
    failed = 0
    for n, name in enumerate(chosen, 1):
        with tempfile.TemporaryDirectory(prefix="aviary-test-memory-") as work:
            start = time.monotonic()
            try:
                tests[name](work)
                print(f"ok {n} - {name} ({time.monotonic() - start:.1f} s)")
            except Exception:  # a failure of any kind is this test's
                failed += 1
                print(f"not ok {n} - {name}\n" + "".join(f"# {l}\n" for l in traceback.format_exc().splitlines()))
        sys.stdout.flush()
    print(f"1..{len(chosen)}")
    sys.exit(1 if failed else 0)


main()
