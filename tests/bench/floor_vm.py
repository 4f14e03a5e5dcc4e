#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""floor_vm - a plain QEMU that goes on from the same saved guest as a sandbox of Aviary, with nothing around it

    floor_vm PID COUNT BYTES DIR

PID is a running sandbox's aviary-vm: its QEMU's own command line is used again, on copies in DIR of the files that it stands on. COUNT times
the machine is restored (no jail, no checksums, no identity) until its first command has answered; in the last one commands are timed, then BYTES
are touched, and it is paused and restored again. Prints one object of JSON: lists of milliseconds, and of MiB.

    floor_vm --status SOCKET

Prints what an aviary-vm says of itself.

    floor_vm --memory PID

Prints the private memory of a sandbox and what it is.
"""
import base64
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time

PAYLOAD_MAX = 16384
RESET, ECHO, DATA, CLOSE = 1, 2, 3, 4
THAW = 2
WAIT_S = 120
EXECS = 100
REPORTS_S = 4  # a guest gives memory back two seconds after it was freed
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, WINDOW_UPDATE, HEADERS, H2_DATA = 4, 8, 1, 0
END_STREAM, END_HEADERS, ACK = 1, 4, 1


class Port:
    """The outside of one port of the guest (proto/vlink.h)."""

    def __init__(self, sock):
        self.sock = sock
        self.held = b""
        sock.settimeout(WAIT_S)

    def begin(self):
        nonce = os.urandom(16)
        self.sock.sendall(bytes(PAYLOAD_MAX + 16) + record(RESET, b"AVL1" + nonce))
        echo = record(ECHO, b"AVL1" + nonce)
        while echo not in self.held:
            self.more()
        self.held = self.held[self.held.index(echo) + len(echo):]

    def more(self):
        got = self.sock.recv(65536)
        if not got:
            raise OSError("QEMU has ended")
        self.held += got

    def send(self, payload):
        self.sock.sendall(record(DATA, payload))

    def receive(self):
        while len(self.held) < 3 or len(self.held) < 3 + struct.unpack("<H", self.held[:2])[0]:
            self.more()
        n = struct.unpack("<H", self.held[:2])[0]
        kind, payload, self.held = self.held[2 + n], self.held[2:2 + n], self.held[3 + n:]
        if kind != DATA:
            raise OSError("the guest has closed a link")
        return payload


def record(kind, payload):
    return struct.pack("<H", len(payload)) + payload + bytes([kind])


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name, value):
    """A header field of HPACK, not indexed and not compressed."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Link(Port):
    """A connection to the agent: HTTP/2, one request at a time."""

    def connect(self):
        self.begin()
        self.stream = -1
        self.bytes = b""
        self.send(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 30)) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))

    def read_frame(self):
        while len(self.bytes) < 9 or len(self.bytes) < 9 + int.from_bytes(self.bytes[:3], "big"):
            self.bytes += self.receive()
        n = int.from_bytes(self.bytes[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", self.bytes[3:9])
        payload, self.bytes = self.bytes[9:9 + n], self.bytes[9 + n:]
        return kind, flags, stream, payload

    def run(self, cmd, *args):
        """What the command printed."""
        body = json.dumps({"process": {"cmd": cmd, "args": args}}).encode()
        self.stream += 2
        head = b"".join(literal(*f) for f in ((b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"agent"),
                                              (b":path", b"/process.Process/Start"), (b"content-type", b"application/connect+json")))
        self.send(frame(HEADERS, END_HEADERS, self.stream, head) + frame(H2_DATA, END_STREAM, self.stream, struct.pack(">BI", 0, len(body)) + body))
        got = b""
        while True:
            kind, flags, stream, payload = self.read_frame()
            if kind == SETTINGS and not flags & ACK:
                self.send(frame(SETTINGS, ACK, 0, b""))
            if stream == self.stream and kind == H2_DATA:
                got += payload
            if stream == self.stream and kind in (H2_DATA, HEADERS) and flags & END_STREAM:
                break
        out, code = b"", None
        while len(got) >= 5:
            n = struct.unpack(">I", got[1:5])[0]
            event = json.loads(got[5:5 + n]).get("event", {})
            got = got[5 + n:]
            out += b"".join(base64.b64decode(d) for d in event.get("data", {}).values())
            if "end" in event:
                code = event["end"].get("exitCode", 0)
        if code:
            raise OSError(f"{cmd} ended with {code}: {out.decode(errors='replace')[:200]}")
        return out


def ms(since):
    return (time.monotonic() - since) * 1e3


class Machine:
    """The command line of a QEMU that runs, on other files."""

    def __init__(self, args, files, saved="state"):
        at = {"/vm/saves/[0-9]+/memory": f"{files}/memory.own", "/vm/image/root.erofs": f"{files}/root.erofs", "/vm/run/disk": f"{files}/disk.own"}
        for what, path in at.items():
            args = [re.sub(r"(?<==)[^=,]*" + what, path, a) for a in args]
        fds = {m[1]: int(m[2]) for a in args if (m := re.match(r"socket,id=(\w+),fd=(\d+)", a))}
        state = int(args[args.index("-incoming") + 1].removeprefix("fd:"))
        pairs = {name: socket.socketpair() for name in fds}
        source = os.open(f"{files}/{saved}", os.O_RDONLY)
        # Out of the way of the numbers that they get.
        high = {to: 200 + i for i, to in enumerate([*fds.values(), state])}
        for (name, to), (_, theirs) in zip(fds.items(), pairs.values()):
            os.dup2(theirs.fileno(), high[to], inheritable=False)
            theirs.close()
        os.dup2(source, high[state], inheritable=False)
        os.close(source)
        null = os.open("/dev/null", os.O_RDWR)
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
        actions += [(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in high.items()]
        self.began = time.monotonic()
        self.pid = os.posix_spawn(args[0], args, {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "MALLOC_ARENA_MAX": "1"}, file_actions=actions)
        for fd in high.values():
            os.close(fd)
        os.close(null)
        ours = {name: pair[0] for name, pair in pairs.items()}
        self.console = ours["console"]
        ours["qmp"].settimeout(WAIT_S)
        self.monitor = ours["qmp"].makefile("rw", newline="\n")
        self.control, self.link = Port(ours["port0"]), Link(ours["port1"])
        self.others = [ours[name] for name in ours]

    def qmp(self, command, **arguments):
        self.monitor.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.monitor.flush()
        while line := self.monitor.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise OSError(f"{command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]
        raise OSError(f"QEMU has ended at {command}")

    def go(self):
        """Loads the state (cont waits for it), lets the processors run, and the users' processes: they were frozen for the save."""
        self.monitor.readline()
        self.qmp("qmp_capabilities")
        start = ms(self.began)
        self.qmp("cont")
        self.control.begin()
        self.control.receive()  # HELLO
        hello = ms(self.began)
        self.control.send(struct.pack("<4sHHII", b"AVG1", THAW, 0, 1, 0))
        self.control.receive()  # DONE
        self.link.connect()
        return start, hello

    def end(self):
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        for s in self.others:
            s.close()


def copy_sparse(source, target):
    """In the page cache afterwards, as a reflink's would not be."""
    subprocess.run(["cp", "--reflink=never", "--sparse=always", source, target], check=True)


def pause(m, files, n):
    """Stops it, saves the devices, and writes as many bytes as were touched."""
    began = time.monotonic()
    m.qmp("stop")
    m.qmp("xen-save-devices-state", filename=f"{files}/paused", live=False)
    piece = os.urandom(1 << 20)
    with open(f"{files}/touched", "wb", buffering=0) as f:
        for _ in range(n >> 20):
            f.write(piece)
    m.end()
    return ms(began)


def qemu_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        for child in f.read().split():
            with open(f"/proc/{child}/cmdline", "rb") as c:
                args = c.read().rstrip(b"\0").decode().split("\0")
            if "-incoming" in args:
                return int(child), args
    raise OSError("the sandbox has no QEMU that was restored")


def stand_still(m, files):
    """How long a machine stands still while its devices are saved."""
    began = time.monotonic()
    m.qmp("stop")
    m.qmp("xen-save-devices-state", filename=f"{files}/still", live=False)
    m.qmp("cont")
    return ms(began)


def smaps(pid):
    """(name, MiB of anonymous memory) of each mapping."""
    name = ""
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as f:
        for line in f:
            words = line.split()
            if not words[0].endswith(":"):
                name = words[5] if len(words) > 5 else "rwx" if words[1].startswith("rwx") else ""
            elif words[0] == "Anonymous:":
                yield name, int(words[1]) / 1024


def page_tables(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) / 1024 for line in f if line.startswith("VmPTE:"))


def qemu_memory(pid):
    """What is this process's alone, in MiB: the guest's pages that differ from the saved ones, and QEMU's own."""
    parts = {"guest_mib": 0.0, "qemu_heap_mib": 0.0, "qemu_code_mib": 0.0, "qemu_other_mib": 0.0}
    for name, mib in smaps(pid):
        kind = "guest" if name.endswith(("/memory", "/memory.own")) else "qemu_heap" if name == "[heap]" else "qemu_code" if name == "rwx" else "qemu_other"
        parts[f"{kind}_mib"] += mib
    return {**parts, "page_tables_mib": page_tables(pid)}


def memory(pid):
    """Of a sandbox: its aviary-vm and its QEMU."""
    qemu, _ = qemu_of(pid)
    parts = {**qemu_memory(qemu), "aviary_vm_mib": sum(mib for _, mib in smaps(pid))}
    parts["page_tables_mib"] += page_tables(pid)
    print(json.dumps({"total_mib": sum(parts.values()), **parts}))


def measure(pid, count, n, files):
    _, args = qemu_of(pid)
    jail = f"/proc/{pid}/root/vm"
    with open(f"{jail}/current", encoding="ascii") as f:
        save = f"{jail}/saves/{f.read().strip()}"
    for name in ("memory", "state", "disk"):
        copy_sparse(f"{save}/{name}", f"{files}/{name}")
    copy_sparse(f"{jail}/image/root.erofs", f"{files}/root.erofs")
    result = {k: [] for k in ("first_byte", "qemu", "hello", "exec", "stopped", "pause", "memory")}
    for i in range(count + 2):
        # What the guest frees is dropped from the file: each has one of its own.
        copy_sparse(f"{files}/memory", f"{files}/memory.own")
        copy_sparse(f"{files}/disk", f"{files}/disk.own")
        m = Machine(args, files)
        try:
            start, hello = m.go()
            if m.link.run("/bin/echo", "x") != b"x\n":
                raise OSError("the first command printed something else")
            took = ms(m.began)
            if i >= 2:
                for k, v in (("first_byte", took), ("qemu", start), ("hello", hello)):
                    result[k].append(v)
            if i == count + 1:
                for _ in range(EXECS):
                    began = time.monotonic()
                    m.link.run("true")
                    result["exec"].append(ms(began))
                time.sleep(REPORTS_S)
                result["memory"].append(sum(qemu_memory(m.pid).values()))
                m.link.run("/bin/sh", "-c", f"head -c {n} /dev/urandom > /dev/shm/touched")
                for _ in range(3):
                    result["stopped"].append(stand_still(m, files))
                result["pause"].append(pause(m, files, n))
        finally:
            try:
                m.end()
            except OSError:
                pass
    print(json.dumps(result), flush=True)


def status(path):
    """STATUS of src/vm/vm_wire.h."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(10)
    s.connect(path)
    s.send(struct.pack("=IIII", 1, 1, 1, 0).ljust(160, b"\0"))
    _, _, error, _, body = struct.unpack("=IIi212s160s", s.recv(384))
    if error:
        raise OSError(error, os.strerror(error))
    names = ("qemu_ms", "load_ms", "hello_ms", "confirm_ms", "total_ms")
    v = struct.unpack_from("=QQ5I", body, 24)
    print(json.dumps({"private_mib": v[0] / 2**20, "overhead_mib": v[1] / 2**20, **{k: x / 1e3 for k, x in zip(names, v[2:])}}))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends QEMU as well
    try:
        if sys.argv[1] == "--status":
            status(sys.argv[2])
        elif sys.argv[1] == "--memory":
            memory(int(sys.argv[2]))
        else:
            measure(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    except (OSError, IndexError, ValueError, subprocess.CalledProcessError) as e:
        print(json.dumps({"error": str(e)}))
        sys.exit(1)
