# SPDX-License-Identifier: Apache-2.0
"""machine_lib - runs aviary-vm as an ordinary process in a directory of its own, and talks to it as the daemon does (vm_wire.h)

The kernel is that of the other tests of guests (guest_kernel.py). AVIARY_TEST_AGENT is another agent than that of the build."""

import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile

from aviary_test import Failure, SLOW, Skip
from guest_kernel import NoKernel, fetch_kernel

BUILD = os.path.abspath(os.environ.get("AVIARY_BUILD", "build"))
STATUS, START, HOLD, HAND_OVER, PAUSE, RESUME, SAVE, DROP, PROGRESS = range(1, 10)
IMAGE, GOLDEN, RESTORE = 1, 2, 3
TCG, KVM = 1, 2
NEW, BUSY, MADE, HELD, RUNNING, PAUSED, FAILED = range(1, 8)
INTERNET, NO_SUDO = 1, 2
PROTOCOL = 2
LIBC, PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
MIB = 1 << 20
TIMEOUT_S = 120 * SLOW
REPLY = struct.Struct("=IIi212s160s")
STATUS_FIELDS = struct.Struct("=IIIIQQQ5I32s64sI")
SAVED_FIELDS = struct.Struct("=IIQQII")


class Refused(Exception):
    """An answer with an error: (errno, text)."""


def kernel():
    try:
        return os.path.abspath(fetch_kernel(pathlib.Path(BUILD) / "qemu"))
    except NoKernel as e:
        raise Skip(f"no kernel for the guest: {e}") from e


def small_root(path):
    """A template: busybox and the directories that a system has."""
    for name in ("bin", "etc", "dev", "proc", "sys", "run", "tmp", "root", "var", "usr"):
        os.makedirs(f"{path}/{name}", exist_ok=True)
    shutil.copy(shutil.which("busybox"), f"{path}/bin/busybox")
    for name in ("sh", "true", "cat", "echo", "sleep", "date", "hostname", "dd", "ls", "md5sum", "poweroff", "reboot", "mount", "df", "ip", "stat", "sync"):
        os.symlink("busybox", f"{path}/bin/{name}")
    for name, text in (("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "root:x:0:\n"), ("hostname", "template\n")):
        with open(f"{path}/etc/{name}", "w", encoding="ascii") as f:
            f.write(text)


def identity(sandbox="sb" + "a" * 25, hostname="guest-a", number=7, flags=0, pids_max=0, disk=512 * MIB):
    return struct.pack("=32s64sIIIIQ", sandbox.encode(), hostname.encode(), number, flags, pids_max, 0, disk)


def start(mode, accel=TCG, vcpus=1, memory=256 * MIB, flags=0, who=None):
    return struct.pack("=IIIIQ", mode, accel, vcpus, flags, memory) + (who or identity(disk=(256 if mode == GOLDEN else 512) * MIB))


class Machine:
    """aviary-vm in a directory `root`, which is kept between machines like the disk area of a sandbox."""

    def __init__(self, root, qemu=None, agent=None, kvm=False):
        self.root = root
        self.agent_path, self.vm_path = f"{root}/agent.sock", f"{root}/vm.sock"
        for path in (self.agent_path, self.vm_path):
            if os.path.exists(path):
                os.unlink(path)
        agent_listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        vm_listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for s, path in ((agent_listener, self.agent_path), (vm_listener, self.vm_path)):
            s.bind(path)
            s.listen(64)
        self.record_path = f"{root}/record"
        record = os.open(self.record_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        agent_fd = os.open(agent or os.environ.get("AVIARY_TEST_AGENT") or f"{BUILD}/src/agent/aviary-agent", os.O_RDONLY)
        fds = {3: agent_listener.fileno(), 4: record, 5: vm_listener.fileno(), 7: agent_fd}
        if kvm:
            fds[6] = os.open("/dev/kvm", os.O_RDWR)
        args = [f"{BUILD}/src/vm/aviary-vm", "--root", root]
        if qemu:
            args += ["--qemu", qemu]
        high = {to: 100 + i for i, to in enumerate(fds)}

        def prepare():  # in the child
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a test that is killed leaves nothing behind
            for to, fd in fds.items():
                os.dup2(fd, high[to], inheritable=False)
            for fd in range(3, 100):
                try:
                    os.close(fd)
                except OSError:
                    pass
            for to, fd in high.items():
                os.dup2(fd, to)

        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(args + ["sb" + "a" * 25], stderr=self.errors, close_fds=False, preexec_fn=prepare, start_new_session=True)
        for fd in list(fds.values())[1:2] + list(fds.values())[3:]:
            os.close(fd)
        agent_listener.close()
        vm_listener.close()
        self.seq = 0
        self.progress = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def send(self, op, body=b"", protocol=PROTOCOL):
        self.seq += 1
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.settimeout(TIMEOUT_S)
        s.connect(self.vm_path)
        s.send(struct.pack("=IIII", op, self.seq, protocol, 0) + body.ljust(144, b"\0"))
        return s

    def answer(self, s):
        while True:
            packet = s.recv(4096)
            if not packet:
                raise Failure("aviary-vm closed the connection")
            op, _, error, text, rest = REPLY.unpack(packet)
            text = text.rstrip(b"\0").decode()
            if op == PROGRESS:
                self.progress.append((struct.unpack_from("=I", rest)[0], rest[4:64].rstrip(b"\0").decode()))
                continue
            s.close()
            if error:
                raise Refused(error, text)
            if op in (PAUSE, SAVE):
                return dict(zip(("save", "stopped_us", "memory_bytes", "disk_bytes", "total_us"), SAVED_FIELDS.unpack_from(rest)))
            names = ("protocol", "state", "accel", "vcpus", "memory_bytes", "private_bytes", "overhead_bytes", "qemu_us", "load_us", "hello_us", "confirm_us",
                     "total_us", "qemu", "kernel", "kills")
            st = dict(zip(names, STATUS_FIELDS.unpack_from(rest)))
            st["qemu"], st["kernel"] = (st[k].rstrip(b"\0").decode() for k in ("qemu", "kernel"))
            st["text"] = text
            return st

    def ask(self, op, body=b"", **more):
        return self.answer(self.send(op, body, **more))

    def status(self):
        return self.ask(STATUS)

    def run(self, command, timeout_s=60):
        """A command by the agent's own HTTP/2: what it printed. Raises Failure unless it ends with 0."""
        data = {"process": {"cmd": "/bin/sh", "args": ["-c", command]}}
        out = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", "--unix-socket", self.agent_path, "--max-time", str(timeout_s * SLOW),
                              "-H", "Content-Type: application/connect+json", "--data-binary", "@-", "http://agent/process.Process/Start"],
                             input=b"\0" + struct.pack(">I", len(json.dumps(data))) + json.dumps(data).encode(), capture_output=True, check=False)
        if out.returncode:
            raise Failure(f"{command!r}: curl {out.returncode}: {out.stderr.decode()}")
        return events(out.stdout, command)

    def send_shell(self, command):
        """A command after which there may be nobody to answer."""
        try:
            self.run(command, 20)
        except Failure:
            pass

    def qemu_pid(self):
        pids = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False).stdout.split()
        return int(pids[0]) if pids else 0

    def end(self, timeout_s=30):
        """Waits until it has ended: (exit status, reason, text) of the exit record."""
        self.process.wait(timeout_s * SLOW)
        with open(self.record_path, "rb") as f:
            record = f.read()
        if not record:
            return self.process.returncode, 0, ""
        return self.process.returncode, struct.unpack_from(">I", record, 4)[0], record[24:].rstrip(b"\0").decode()


def events(stream, command):
    import base64
    out, code = b"", None
    while len(stream) >= 5:
        size = struct.unpack_from(">I", stream, 1)[0]
        event = json.loads(stream[5:5 + size]).get("event", {})
        stream = stream[5 + size:]
        data = event.get("data", {})
        out += base64.b64decode(data.get("stdout", "")) + base64.b64decode(data.get("stderr", ""))
        if "end" in event:
            code = event["end"].get("exitCode", 0)
    if code != 0:
        raise Failure(f"{command!r} ended with {code}: {out.decode(errors='replace')}")
    return out.decode(errors="replace")
