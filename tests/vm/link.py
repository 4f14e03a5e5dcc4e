# SPDX-License-Identifier: Apache-2.0
"""link.py - connections over virtio ports: src/vlink at both ends, on one machine and through a real QEMU

The inside is link_tool.c, in a guest as its first process, with the code that the agent has. No KVM and no privilege. TAP."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from aviary_test import Failure, SLOW, equal, ok, wait_for
from guest_kernel import fetch_kernel

BUILD = pathlib.Path(os.environ.get("AVIARY_BUILD", "build"))
TOOL = BUILD / "tests/vm/link_tool"
QEMU = "qemu-system-x86_64"
TIMEOUT_S = 60 * SLOW
LINKS = 4
MIB = 1 << 20


class Outside:
    """link_tool as what is outside of some ports."""

    def __init__(self, path, control, links):
        self.path = path
        fds = [s.fileno() for s in links] + ([control.fileno()] if control else [])
        self.process = subprocess.Popen([TOOL, "outside", path, str(control.fileno()) if control else "-", *[str(s.fileno()) for s in links]],
                                        pass_fds=fds, stdout=subprocess.PIPE, text=True)
        self.says("ready")

    def says(self, text):
        equal(self.process.stdout.readline().strip(), text, "what the outside says")

    def connect(self, mode, n=0):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(TIMEOUT_S)
        s.connect(self.path)
        s.sendall(mode + struct.pack("<Q", n))
        return s

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def running(args, **kw):
    p = subprocess.Popen([str(a) for a in args], **kw)
    try:
        yield p
    finally:
        p.kill()
        p.wait()


def machine_args(work):
    """QEMU with link_tool as the first process of a guest; without its ports."""
    kernel = fetch_kernel(BUILD / "qemu")
    subprocess.run([BUILD / "tests/vm/initrd_tool", TOOL, kernel, f"{work}/initrd", f"{work}/vmlinuz"], check=True, stdout=subprocess.DEVNULL)
    return [QEMU, "-M", "q35", "-accel", "tcg", "-cpu", "max,-erms", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-serial", f"file:{work}/console", "-kernel", f"{work}/vmlinuz", "-initrd", f"{work}/initrd",
            "-append", "console=ttyS0 quiet panic=-1", "-device", "virtio-serial-pci"]


def port_args(i, chardev):
    name = "aviary.control" if i == LINKS else f"aviary.link{i}"
    return ["-chardev", f"socket,id=c{i},{chardev}", "-device", f"virtserialport,chardev=c{i},name={name}"]


def console(work):
    try:
        return pathlib.Path(f"{work}/console").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def wait_ready(work, qemu):
    def ready():
        ok(qemu.poll() is None, f"the guest runs: {console(work)[-1000:]}")
        return "guest: ready" in console(work)
    wait_for(ready, TIMEOUT_S, "the guest to open its ports")


def receive(s, n):
    got = bytearray()
    while len(got) < n:
        piece = s.recv(min(n - len(got), 1 << 17))
        if not piece:
            raise Failure(f"the connection ended after {len(got)} of {n} bytes")
        got += piece
    return bytes(got)


def echo(s, n):
    """n random bytes there and back."""
    sent = os.urandom(n)
    t = threading.Thread(target=s.sendall, args=(sent,))
    t.start()
    got = receive(s, n)
    t.join()
    ok(got == sent, f"{n} bytes came back as they went")


def ping_us(s, n=300):
    times = []
    for _ in range(n):
        t = time.perf_counter()
        s.sendall(b"p" * 100)
        receive(s, 100)
        times.append(time.perf_counter() - t)
    return sorted(times)[n // 2] * 1e6


def speeds(out, n):
    """MB/s inwards and outwards."""
    with out.connect(b"s", n) as s:
        t = time.perf_counter()
        for _ in range(n >> 16):
            s.sendall(b"s" * 65536)
        receive(s, 1)
        inwards = n / (time.perf_counter() - t) / 1e6
    with out.connect(b"g", n) as s:
        t = time.perf_counter()
        receive(s, n)
        return inwards, n / (time.perf_counter() - t) / 1e6


def ends(s):
    try:
        return s.recv(1) == b""
    except ConnectionResetError:
        return True


def use(out, size):
    """What connections are there for."""
    for _ in range(3):
        with out.connect(b"e") as s:
            echo(s, size)
            echo(s, 1)
    with out.connect(b"c") as s:
        ok(ends(s), "the inside ends a connection")
    # All links at once, and one more, which waits for the first that is free.
    waiting = [out.connect(b"e") for _ in range(LINKS)]
    for s in waiting:
        echo(s, 10000)
    late = out.connect(b"e")
    late.sendall(b"late")
    late.settimeout(0.2)
    try:
        late.recv(1)
        raise Failure("one more than there are links is served")
    except TimeoutError:
        pass
    late.settimeout(TIMEOUT_S)
    waiting.pop(1).close()
    equal(receive(late, 4), b"late", "who waited")
    for s in (*waiting, late):
        echo(s, 1000)
        s.close()


def deaf(out):
    """An inside that does not read for a while holds its own link up, and nobody else."""
    s = out.connect(b"q", 2500)
    s.settimeout(0.5)
    sent = 0
    try:
        for _ in range(1000):
            sent += s.send(b"x" * 65536)
    except TimeoutError:
        pass
    ok(sent < 16 * MIB, f"{sent} bytes were taken for who does not read them")
    with out.connect(b"e") as other:
        echo(other, 100000)
    s.close()
    # All links, so that of who did not read too: it begins anew when that reads again.
    time.sleep(1.2)
    others = [out.connect(b"e") for _ in range(LINKS)]
    for other in others:
        echo(other, 1000)
        other.close()


def pairs(n):
    made = [socket.socketpair() for _ in range(n)]
    return [a for a, _ in made], [b for _, b in made]


def test_on_one_machine(work):
    ours, theirs = pairs(LINKS)
    fds = [s.fileno() for s in theirs]
    with running([TOOL, "inside", *fds], pass_fds=fds):
        out = Outside(f"{work}/s", None, ours)
        try:
            use(out, 5 * MIB)
            deaf(out)
            with out.connect(b"e") as s:
                print(f"# a round trip {ping_us(s):.0f} us")
            print("# MB/s to and from: %.0f, %.0f" % speeds(out, 64 * MIB))
        finally:
            out.kill()


def test_in_a_guest(work):
    ours, theirs = pairs(LINKS + 1)
    args = machine_args(work)
    for i, s in enumerate(theirs):
        args += port_args(i, f"fd={s.fileno()}")
    with running(args, pass_fds=[s.fileno() for s in theirs]) as qemu:
        wait_ready(work, qemu)
        out = Outside(f"{work}/s", ours[LINKS], ours[:LINKS])
        try:
            for _ in range(2):  # a new beginning is no end
                out.process.send_signal(signal.SIGUSR1)
                for text in ("control begins", "control HELLO", "control message"):
                    out.says(text)
            use(out, MIB)
            deaf(out)
            with out.connect(b"e") as s:
                print(f"# a round trip {ping_us(s):.0f} us")
            print("# MB/s to and from: %.0f, %.0f" % speeds(out, 32 * MIB))
        finally:
            out.kill()
        # Another process outside, each time in the middle of everything, as after a restore.
        for i in range(3):
            out = Outside(f"{work}/s{i}", ours[LINKS], ours[:LINKS])
            try:
                with out.connect(b"e") as s:
                    echo(s, 100000)
                torn = [out.connect(b"g", 1 << 40), out.connect(b"s", 1 << 40)]
                receive(torn[0], MIB)
                torn[1].sendall(b"x" * MIB)
                out.process.send_signal(signal.SIGUSR1)
                out.says("control begins")
            finally:
                out.kill()
        equal(console(work).splitlines()[-1], "guest: ready", "what the guest said last")


def cpu_s(pid):
    fields = open(f"/proc/{pid}/stat", encoding="utf-8").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_nobody_outside(work):
    """Ports whose other end comes and goes: the inside does not spin meanwhile."""
    args = machine_args(work)
    for i in range(LINKS + 1):
        args += port_args(i, f"path={work}/p{i},server=on,wait=off")
    with running(args) as qemu:
        wait_ready(work, qemu)
        for i in range(2):
            time.sleep(0.5)
            before, began = cpu_s(qemu.pid), time.monotonic()
            time.sleep(1.5)
            share = (cpu_s(qemu.pid) - before) / (time.monotonic() - began)
            ok(share < 0.25, f"the guest uses {100 * share:.0f} % of a processor while nobody is there")
            socks = []
            for k in range(LINKS + 1):
                s = socket.socket(socket.AF_UNIX)
                s.connect(f"{work}/p{k}")
                socks.append(s)
            out = Outside(f"{work}/s{i}", socks[LINKS], socks[:LINKS])
            for s in socks:
                s.close()
            try:
                with out.connect(b"e") as s:
                    echo(s, 200000)
                torn = out.connect(b"g", 1 << 40)
                receive(torn, MIB)
            finally:
                out.kill()
                torn.close()


def why_no_guest():
    if shutil.which(QEMU) is None:
        return f"{QEMU} is not installed"
    with open(TOOL, "rb") as f:
        return "it is linked dynamically in this build" if b"ld-linux" in f.read(8192) else None


def main():
    signal.alarm(int(250 * SLOW))
    tests = {n: f for n, f in globals().items() if n.startswith("test_")}
    chosen = sys.argv[1:] or list(tests)
    failed, no_guest = 0, why_no_guest()
    for n, name in enumerate(chosen, 1):
        if no_guest and name != "test_on_one_machine":
            failed += bool(os.environ.get("CI"))
            print(f"{'not ok' if os.environ.get('CI') else 'ok'} {n} - {name} # SKIP {no_guest}", flush=True)
            continue
        with tempfile.TemporaryDirectory(prefix="aviary-test-link-") as work:
            start = time.monotonic()
            try:
                tests[name](work)
                print(f"ok {n} - {name} ({time.monotonic() - start:.1f} s)", flush=True)
            except Exception:  # a failure of any kind is this test's
                failed += 1
                print(f"not ok {n} - {name}\n" + "".join(f"# {l}\n" for l in traceback.format_exc().splitlines()), flush=True)
    print(f"1..{len(chosen)}")
    sys.exit(1 if failed else 0)


main()
