# SPDX-License-Identifier: Apache-2.0
"""guest_machine.py - a virtual machine with the agent as its first process, as aviary-vm makes it

Below the tests stand QEMU without KVM, the ports with the link layer of src/proto/vlink.h, and the messages of src/proto/guest.h. Both
are written a second time here on purpose: what inside and outside got wrong together would not be seen otherwise.
"""
import base64
import json
import os
import queue
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

from aviary_test import Failure, SLOW, equal, ok, program, wait_for

QEMU = "qemu-system-x86_64"
TIMEOUT_S = 120 * SLOW
PAYLOAD_MAX = 16384
RESET, ECHO, DATA, CLOSE = 1, 2, 3, 4
FREEZE, THAW, IDENTITY, WARM, HELLO, DONE, CONFIRM, RECORD = 1, 2, 3, 4, 32, 33, 34, 35
INTERNET, NO_SUDO = 1, 2


def missing():
    """Why no machine can be made here, or None."""
    for tool, package in ((QEMU, "qemu-system-x86"), ("mkfs.erofs", "erofs-utils"), ("mke2fs", "e2fsprogs"), ("busybox", "busybox-static"),
                          ("curl", "curl")):
        if not shutil.which(tool, path=os.environ["PATH"] + ":/sbin:/usr/sbin"):
            return f"{tool} is not installed (package {package})"
    return None


def run(*cmd):
    done = subprocess.run([str(c) for c in cmd], capture_output=True, text=True, check=False)
    ok(done.returncode == 0, f"{cmd[0]}: {done.stderr.strip()}")
    return done.stdout


class Port:
    """The outside of one port: connections of records."""

    def __init__(self, sock):
        self.sock = sock
        self.records = queue.Queue()
        self.nonce = None
        self.open = threading.Event()
        self.turn = threading.Lock()  # what came for the last connection is not taken for the next one's
        threading.Thread(target=self._read, daemon=True).start()

    def begin(self):
        with self.turn:
            self.open.clear()
            self.records = queue.Queue()
            self.nonce = os.urandom(16)
        self.sock.sendall(bytes(PAYLOAD_MAX + 16) + self._record(RESET, b"AVL1" + self.nonce))

    def send(self, payload):
        for at in range(0, len(payload), PAYLOAD_MAX):
            self.sock.sendall(self._record(DATA, payload[at:at + PAYLOAD_MAX]))

    def end(self):
        self.sock.sendall(self._record(CLOSE, b""))

    @staticmethod
    def _record(kind, payload):
        return struct.pack("<H", len(payload)) + payload + bytes([kind])

    def _read(self):
        held = b""
        while True:
            try:
                got = self.sock.recv(65536)
            except OSError:
                got = b""
            if not got:
                self.records.put(None)
                return
            with self.turn:
                held = self._take(held + got)

    def _take(self, held):
        """The rest of what came, which is no whole record yet."""
        if self.nonce and not self.open.is_set():
            echo = self._record(ECHO, b"AVL1" + self.nonce)
            at = held.find(echo)
            if at < 0:
                return held[-len(echo):]
            held = held[at + len(echo):]
            self.open.set()
        while self.open.is_set() and len(held) >= 3 and len(held) >= 3 + struct.unpack("<H", held[:2])[0]:
            n = struct.unpack("<H", held[:2])[0]
            kind, payload, held = held[2 + n], held[2:2 + n], held[3 + n:]
            if kind == DATA:
                self.records.put(payload)
            else:
                self.open.clear()
                self.nonce = None
                held = b""
                self.records.put(None)
        return held


class Control(Port):
    """The control port: messages with answers."""
    seq = 0

    def receive(self, kind, timeout_s=TIMEOUT_S):
        """(number, body) of the next message, which must be of that kind."""
        try:
            record = self.records.get(timeout=timeout_s)
        except queue.Empty:
            raise Failure(f"no message {kind} from the guest in {timeout_s:.0f} s") from None
        ok(record is not None, f"message {kind} came before the port ended")
        magic, got, zero, seq, n = struct.unpack("<4sHHII", record[:16])
        equal((magic, got, zero, n), (b"AVG1", kind, 0, len(record) - 16), "head of a message")
        return seq, record[16:]

    def hello(self, timeout_s=TIMEOUT_S):
        self.begin()
        _, body = self.receive(HELLO, timeout_s)
        return struct.unpack("<I32s64s", body)

    def ask(self, kind, body=b""):
        self.seq += 1
        self.send(struct.pack("<4sHHII", b"AVG1", kind, 0, self.seq, len(body)) + body)

    def answer(self, kind, timeout_s=TIMEOUT_S):
        seq, body = self.receive(kind, timeout_s)
        equal(seq, self.seq, "number of the answer")
        return body

    def do(self, kind):
        """(errno, text) of FREEZE, THAW or WARM."""
        self.ask(kind)
        error, text = struct.unpack("<i128s", self.answer(DONE))
        return error, text.rstrip(b"\0").decode()

    def must(self, kind):
        equal(self.do(kind), (0, ""), f"message {kind}")

    def identity(self, **given):
        who = {"id": "sb" + "1" * 25, "hostname": "one", "machine_id": bytes(range(16)), "entropy": os.urandom(64), "mac": bytes.fromhex("02aabbccdd01"),
               "prefix": 27, "flags": INTERNET, "address": 0xC6120005, "gateway": 0xC6120002, "resolver": 0xC6120003, "real_ns": time.time_ns(),
               "disk_bytes": 0, "pids_max": 0, **given}
        self.ask(IDENTITY, struct.pack("<28s64s16s64s6sBBIIIqQI", who["id"].encode(), who["hostname"].encode(), who["machine_id"], who["entropy"],
                                       who["mac"], who["prefix"], who["flags"], who["address"], who["gateway"], who["resolver"], who["real_ns"],
                                       who["disk_bytes"], who["pids_max"]))
        names = ("error", "text", "hostname", "machine_id", "mac", "address", "real_ns")
        got = dict(zip(names, struct.unpack("<i128s64s16s6sIq", self.answer(CONFIRM))))
        for name in ("text", "hostname"):
            got[name] = got[name].rstrip(b"\0").decode()
        return got


class Link(Port):
    """A port for connections to the agent, reachable at a unix socket for one connection at a time."""

    def __init__(self, sock, path):
        super().__init__(sock)
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                conn, _ = self.listener.accept()
                self.begin()
            except OSError:
                return
            inwards = threading.Thread(target=self._inwards, args=(conn,), daemon=True)
            inwards.start()
            records = self.records
            while (record := records.get()) is not None:
                try:
                    conn.sendall(record)
                except OSError:
                    break
            try:
                conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            inwards.join()  # else the end of this connection might be sent when the next has begun
            conn.close()

    def _inwards(self, conn):
        records = self.records
        try:
            while data := conn.recv(PAYLOAD_MAX):
                self.send(data)
            self.end()
        except OSError:
            pass
        records.put(None)


class Machine:
    """QEMU with a guest (without ERMS, which an emulated processor copies by bytes with). files: work directory with kernel, initrd, root.erofs and disk. memory: file that the machine's memory is in, from its
    beginning (to be saved) or, with save, as a private copy of what was saved there."""

    def __init__(self, files, memory_mib=256, memory=None, save=None, extra=(), arguments="console=ttyS0"):
        self.files = files
        self.work = tempfile.mkdtemp(prefix="machine-", dir=files)
        there = []

        def pair():
            here, other = socket.socketpair()
            there.append(other)
            return here, other.fileno()

        qmp, qmp_fd = pair()
        control, control_fd = pair()
        links = [pair() for _ in range(4)]
        disk = f"{self.work}/disk"
        run("cp", "--sparse=always", f"{save}.disk" if save else f"{files}/disk", disk)
        args = [QEMU, "-M", "q35", "-accel", "tcg", "-cpu", "max,-erms", "-m", str(memory_mib), "-smp", "1", "-nodefaults", "-no-user-config", "-no-reboot", "-global",
                "migration.send-configuration=off", "-display", "none", "-serial", f"file:{self.work}/console", "-kernel", f"{files}/vmlinuz", "-initrd", f"{files}/initrd",
                "-append", f"{arguments} {KERNEL_ARGS}",
                "-blockdev", f"driver=file,node-name=f0,filename={files}/root.erofs,read-only=on", "-blockdev", "driver=raw,node-name=root,file=f0,read-only=on",
                "-device", "virtio-blk-pci,drive=root,serial=root",
                "-blockdev", f"driver=file,node-name=f1,filename={disk}", "-blockdev", "driver=raw,node-name=disk,file=f1,discard=unmap",
                "-device", "virtio-blk-pci,drive=disk,serial=disk",
                "-netdev", "user,id=net,net=198.18.0.0/27,restrict=on,ipv6=off", "-device", "virtio-net-pci,netdev=net,romfile=",
                "-device", "virtio-balloon-pci,free-page-reporting=on,page-poison=off", "-device", "pvpanic-pci",
                "-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control", "-device", "virtio-serial-pci",
                "-chardev", f"socket,id=control,fd={control_fd}", "-device", "virtserialport,chardev=control,name=aviary.control"]
        for i, (_, fd) in enumerate(links):
            args += ["-chardev", f"socket,id=link{i},fd={fd}", "-device", f"virtserialport,chardev=link{i},name=aviary.link{i}"]
        if memory:
            extra = [*extra, "-object", f"memory-backend-file,id=ram,size={memory_mib}M,mem-path={memory},share={'off' if save else 'on'}", "-machine",
                     "memory-backend=ram"]
        if save:
            extra = [*extra, "-S", "-incoming", f"exec:cat {save}.state"]
        self.began = time.monotonic()
        self.errors = open(f"{self.work}/qemu.err", "w+", encoding="utf-8")
        self.process = subprocess.Popen([*args, *extra], pass_fds=[s.fileno() for s in there], stdin=subprocess.DEVNULL, stderr=self.errors)
        for s in there:
            s.close()
        qmp.settimeout(TIMEOUT_S)
        self.qmp_file = qmp.makefile("rw", newline="\n")
        self.events = []
        try:
            ok(self.qmp_file.readline(), "QEMU says something")
            self.qmp("qmp_capabilities")
            if save:
                wait_for(lambda: self.qmp("query-status")["status"] != "inmigrate", 30, "the state is loaded")
                self.qmp("cont")
        except Exception as e:
            raise Failure(f"QEMU: {self.complaints()} ({e})") from e
        self.control = Control(control)
        self.links = [Link(s, f"{self.work}/link{i}") for i, (s, _) in enumerate(links)]

    def complaints(self):
        self.errors.seek(0)
        with open(f"{self.work}/console", encoding="utf-8", errors="replace") as f:
            return self.errors.read()[-2000:] + "\n".join(f.read().splitlines()[-15:])

    def qmp(self, command, **arguments):
        self.qmp_file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.qmp_file.flush()
        while True:
            line = self.qmp_file.readline()
            ok(line, f"QEMU lives: {self.complaints()}")
            answer = json.loads(line)
            if "error" in answer:
                raise Failure(f"{command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]
            self.events.append(answer)

    def save(self, path):
        """Stops the machine for good: what it is stands in its memory's file, path.state and path.disk."""
        self.qmp("stop")
        self.qmp("xen-save-devices-state", filename=f"{path}.state", live=False)
        run("cp", "--sparse=always", f"{self.work}/disk", f"{path}.disk")

    def wait_end(self):
        """Until QEMU has ended; the reason of its event SHUTDOWN."""
        self.process.wait(TIMEOUT_S)
        for line in self.qmp_file:
            self.events.append(json.loads(line))
        return next((e["data"]["reason"] for e in self.events if e.get("event") == "SHUTDOWN"), None)

    def curl(self, path, *args, link=0, timeout_s=60):
        return subprocess.run(["curl", "-sS", "--http2-prior-knowledge", "--unix-socket", self.links[link].path, "--max-time", str(timeout_s * SLOW), *args,
                               f"http://agent{path}"], capture_output=True, check=False)

    def exec(self, script, user=None, link=0, timeout_s=60):
        """Runs a script of sh; (exit code, output)."""
        body = json.dumps({"process": {"cmd": "/bin/sh", "args": ["-c", script]}}).encode()
        head = ["-H", "content-type: application/connect+json"]
        if user:
            head += ["-H", "authorization: Basic " + base64.b64encode(f"{user}:".encode()).decode()]
        with tempfile.NamedTemporaryFile(dir=self.work) as f:
            f.write(struct.pack(">BI", 0, len(body)) + body)
            f.flush()
            got = self.curl("/process.Process/Start", "-X", "POST", *head, "--data-binary", f"@{f.name}", link=link, timeout_s=timeout_s)
        out, code, rest = b"", None, got.stdout
        while len(rest) >= 5:
            n = struct.unpack(">I", rest[1:5])[0]
            event = json.loads(rest[5:5 + n]).get("event", {})
            rest = rest[5 + n:]
            out += b"".join(base64.b64decode(d) for d in event.get("data", {}).values())
            if "end" in event:
                code = event["end"].get("exitCode", 0)
        ok(code is not None, f"'{script}' ended: {got.stderr.decode()} {got.stdout[-300:]}")
        return code, out.decode(errors="replace")

    def sh(self, script, **kw):
        code, out = self.exec(script, **kw)
        equal(code, 0, f"exit code of '{script}' ({out.strip()})")
        return out.strip()

    def close(self):
        for link in self.links:
            link.listener.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(TIMEOUT_S)
        self.errors.close()
        shutil.rmtree(self.work, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            print("".join(f"# console: {l}\n" for l in self.complaints().splitlines()), end="")
        self.close()


KERNEL_ARGS = "quiet panic=-1 -- --guest"


def make_files(work, kernel, tool, root):
    """kernel, initrd, root.erofs (of the tree root) and disk in work; says how large the initrd is."""
    said = run(tool, program("aviary-agent"), kernel, f"{work}/initrd", f"{work}/vmlinuz")
    run("mkfs.erofs", "--quiet", "-T0", f"{work}/root.erofs", root)
    with open(f"{work}/disk", "wb") as f:
        f.truncate(256 << 20)
    run("/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-J", "size=8", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0", f"{work}/disk")
    return said.split()


def make_root(path, template=None):
    """A root file system of busybox, with two users."""
    os.makedirs(f"{path}/bin")
    shutil.copy(shutil.which("busybox"), f"{path}/bin/busybox")
    for name in run(f"{path}/bin/busybox", "--list").split():
        if name != "busybox":
            os.symlink("busybox", f"{path}/bin/{name}")
    for d in ("etc", "root", "tmp", "home/user", "var"):
        os.makedirs(f"{path}/{d}", exist_ok=True)
    os.chmod(f"{path}/tmp", 0o1777)
    for name, text in {"passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n", "group": "root:x:0:\nuser:x:1000:\n",
                       "hostname": "template\n", "resolv.conf": "nameserver 9.9.9.9\n"}.items():
        with open(f"{path}/etc/{name}", "w", encoding="utf-8") as f:
            f.write(text)
