# SPDX-License-Identifier: Apache-2.0
"""fake_daemon - an aviaryd of a few lines, to test the command line and the client library alone

It answers the native routes that the command line uses; a "sandbox" is a directory, its processes
are plain processes of this machine (no isolation whatsoever). Real isolation has its own tests.
"""

import base64
import fcntl
import hashlib
import http.server
import json
import os
import pty
import random
import select
import shutil
import signal
import socketserver
import string
import struct
import subprocess
import tempfile
import termios
import threading
import time
import urllib.parse

from ws import GUID

CONTROL, STDIN, STDOUT, STDERR, PTY = range(5)
KEY = "av_" + "0123456789" * 4


class Sandbox:
    def __init__(self, body):
        self.id = "sb" + "".join(random.choice(string.ascii_lowercase) for _ in range(25))
        self.dir = tempfile.mkdtemp(prefix="aviary-fake-")
        self.body = body
        self.status = "running"
        self.lie = None  # bytes of every archive that is asked for
        self.background = {}  # pid: (tag, argv, output)

    def json(self):
        return {"id": self.id, "status": self.status, "template": self.body.get("template", "host"),
                "isolation": "jail", "vcpus": 1, "cpus": self.body.get("cpus", 1),
                "memory_mb": self.body.get("memory_mb", 512), "disk_mb": self.body.get("disk_mb", 0),
                "created_at": "2026-01-01T00:00:00Z", "metadata": self.body.get("metadata", {})}

    def path(self, path):
        return os.path.join(self.dir, path)

    def popen(self, process, **kwargs):
        env = {"PATH": os.environ["PATH"], "HOME": self.dir, **self.body.get("envs", {}),
               **(process.get("envs") or {})}
        return subprocess.Popen([process["cmd"], *(process.get("args") or [])],
                                cwd=self.path(process.get("cwd") or "."), env=env,
                                start_new_session=True, **kwargs)


class Frames:
    """Server side of a WebSocket that carries frames."""

    def __init__(self, rfile, wfile):
        self.rfile, self.wfile = rfile, wfile
        self.lock = threading.Lock()

    def message(self, opcode, data):
        head = bytes([0x80 | opcode])
        if len(data) < 126:
            head += bytes([len(data)])
        elif len(data) < 65536:
            head += bytes([126]) + struct.pack(">H", len(data))
        else:
            head += bytes([127]) + struct.pack(">Q", len(data))
        with self.lock:
            self.wfile.write(head + data)
            self.wfile.flush()

    def send(self, channel, data):
        self.message(2, struct.pack(">IB", len(data), channel) + data)

    def control(self, **what):
        self.send(CONTROL, json.dumps(what).encode())

    def recv(self):
        """[(channel, payload)] of the next message; None at the end."""
        while True:
            head = self.rfile.read(2)
            if len(head) < 2:
                return None
            opcode, n = head[0] & 15, head[1] & 127
            if n == 126:
                n = struct.unpack(">H", self.rfile.read(2))[0]
            elif n == 127:
                n = struct.unpack(">Q", self.rfile.read(8))[0]
            mask = self.rfile.read(4)
            raw = self.rfile.read(n)
            data = (int.from_bytes(raw, "big") ^ int.from_bytes(
                (mask * (n // 4 + 1))[:n], "big")).to_bytes(n, "big") if n else b""
            if opcode == 8:
                return None
            if opcode != 2:
                continue
            frames = []
            while data:
                size, channel = struct.unpack(">IB", data[:5])
                frames.append((channel, data[5:5 + size]))
                data = data[5 + size:]
            return frames


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, value=None, raw=None):
        body = raw if raw is not None else b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def fail(self, status, code, message):
        self.close_connection = True
        self.answer(status, {"error": {"code": code, "message": message}})

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while True:
                n = int(self.rfile.readline(), 16)
                data += self.rfile.read(n)
                self.rfile.readline()
                if n == 0:
                    return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def route(self):
        daemon = self.server.daemon
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        daemon.requests.append((self.command, url.path))
        if url.path == "/health":
            return self.answer(200, {"status": "ok", "version": "fake"})
        if self.headers.get("X-API-Key") != KEY:
            return self.fail(401, "unauthorized", "the API key is wrong")
        parts = url.path.strip("/").split("/")
        if parts[:2] != ["v1", "sandboxes"]:
            return self.fail(404, "not_found", "no such route")
        if len(parts) == 2:
            return self.collection()
        sandbox = daemon.sandboxes.get(parts[2])
        if not sandbox:
            return self.fail(404, "not_found", f"there is no sandbox {parts[2]}")
        return self.member(sandbox, "/".join(parts[3:]), query)

    do_GET = do_POST = do_PUT = do_DELETE = route

    def collection(self):
        daemon = self.server.daemon
        if self.command == "GET":
            return self.answer(200, [s.json() for s in reversed(daemon.sandboxes.values())
                                     if s.status == "running"])
        body = json.loads(self.body())
        daemon.bodies.append(body)
        time.sleep(daemon.create_delay_s)
        if body.get("template") == "nosuch":
            return self.fail(404, "not_found", "there is no template 'nosuch'")
        sandbox = Sandbox(body)
        daemon.sandboxes[sandbox.id] = sandbox
        return self.answer(201, sandbox.json())

    def member(self, sandbox, what, query):
        if (self.command, what) == ("GET", ""):
            return self.answer(200, sandbox.json())
        if (self.command, what) == ("DELETE", ""):
            sandbox.status = "stopped"
            shutil.rmtree(sandbox.dir, ignore_errors=True)
            return self.answer(204)
        if sandbox.status != "running":
            return self.fail(409, "invalid_state", "the sandbox has stopped")
        if (self.command, what) == ("POST", "exec"):
            return self.exec(sandbox, json.loads(self.body()))
        if (self.command, what) == ("GET", "processes"):
            return self.answer(200, {"processes": [
                {"pid": pid, "tag": tag, "cmd": argv[0], "args": argv[1:]}
                for pid, (tag, argv, _) in sandbox.background.items()]})
        if (self.command, what) == ("PUT", "files"):
            with open(sandbox.path(query["path"]), "wb") as f:
                f.write(self.body())
            return self.answer(204)
        if (self.command, what) == ("GET", "files"):
            try:
                with open(sandbox.path(query["path"]), "rb") as f:
                    return self.answer(200, raw=f.read())
            except FileNotFoundError:
                return self.fail(404, "not_found", "no such file")
        if what == "files/tar":
            return self.tar(sandbox, query["path"])
        if (self.command, what) in (("POST", "files/stat"), ("POST", "files/chmod")):
            return self.entry(sandbox, what, json.loads(self.body()))
        if (self.command, what) == ("GET", "exec/stream"):
            return self.stream(sandbox)
        return self.fail(404, "not_found", "no such route")

    def entry(self, sandbox, what, body):
        path = sandbox.path(body["path"])
        if not os.path.exists(path):
            return self.fail(404, "not_found", f"path '{path}' does not exist")
        if what == "files/chmod":
            os.chmod(path, body["mode"])
            return self.answer(204)
        st = os.stat(path)
        return self.answer(200, {"entry": {
            "name": os.path.basename(path), "path": path, "size": st.st_size, "mode": st.st_mode & 0o7777,
            "type": "directory" if os.path.isdir(path) else "file"}})

    def tar(self, sandbox, path):
        """Out: what sandbox.lie says, if anything."""
        if self.command == "GET" and sandbox.lie is not None:
            return self.answer(200, raw=sandbox.lie)
        if self.command == "GET":
            out = subprocess.run(["tar", "-c", "-C", sandbox.path(path), "."], stdout=subprocess.PIPE, check=True)
            return self.answer(200, raw=out.stdout)
        os.makedirs(sandbox.path(path), exist_ok=True)
        subprocess.run(["tar", "-x", "-p", "-o", "-C", sandbox.path(path)], input=self.body(), check=True)
        return self.answer(200, {"entries": 1, "bytes": 1, "skipped": 0})

    def exec(self, sandbox, body):
        try:
            p = sandbox.popen(body, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        except FileNotFoundError:
            return self.fail(404, "not_found", f"command not found: '{body['cmd']}'")
        if body.get("background"):
            out = p.communicate()[0]  # short ones only
            tag = body.get("tag") or "proc-1"
            sandbox.background[p.pid] = (tag, [body["cmd"], *body.get("args", [])], out)
            return self.answer(202, {"sandbox_id": sandbox.id, "pid": p.pid, "tag": tag})
        out, err = p.communicate()
        return self.answer(200, {"exit_code": p.returncode, "stdout": out.decode(),
                                 "stderr": err.decode(), "encoding": "utf-8"})

    # -- streams ----------------------------------------------------------------------------------

    def stream(self, sandbox):
        key = self.headers["Sec-WebSocket-Key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        self.close_connection = True
        self.wfile.write(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
                          f"Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: "
                          "aviary-frames.v1\r\n\r\n").encode())
        ws = Frames(self.rfile, self.wfile)
        (channel, payload), *_ = ws.recv()
        assert channel == CONTROL
        first = json.loads(payload)
        self.server.daemon.bodies.append(first)
        try:
            if "connect" in first:
                self.attach(sandbox, ws, first)
            else:
                self.start(sandbox, ws, first)
            ws.message(8, struct.pack(">H", 1000))
        except (BrokenPipeError, ConnectionResetError):
            pass

    def attach(self, sandbox, ws, first):
        first = {**first, **first["connect"]}
        which = first["process"]
        for pid, (tag, _, out) in sandbox.background.items():
            if which in ({"pid": pid}, {"tag": tag}):
                ws.control(start={"pid": pid})
                ws.control(gap={"dropped": 7})
                ws.send(STDOUT, out)
                if first["follow"]:
                    ws.control(end={"exitCode": 3, "exited": True})
                return
        ws.control(error={"code": "not_found", "message": "no such process"})

    def start(self, sandbox, ws, first):
        process = first["process"]
        master = None
        try:
            if "pty" in first:
                master, slave = pty.openpty()
                size = first["pty"]["size"]
                fcntl.ioctl(slave, termios.TIOCSWINSZ,
                            struct.pack("HHHH", size["rows"], size["cols"], 0, 0))
                p = sandbox.popen(process, stdin=slave, stdout=slave, stderr=slave,
                                  preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
                os.close(slave)
                readers = {master: PTY}
            else:
                p = sandbox.popen(
                    process, stdin=subprocess.PIPE if first.get("stdin") else subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                readers = {p.stdout.fileno(): STDOUT, p.stderr.fileno(): STDERR}
        except FileNotFoundError:
            ws.control(error={"code": "not_found", "exitCode": 127,
                              "message": f"command not found: '{process['cmd']}'"})
            return
        except PermissionError:
            ws.control(error={"code": "forbidden", "exitCode": 126,
                              "message": f"{process['cmd']}: not executable"})
            return
        ws.control(start={"pid": p.pid})
        timed_out = []
        if first.get("timeoutMs"):
            def expire():
                timed_out.append(True)
                os.killpg(p.pid, signal.SIGKILL)
            timer = threading.Timer(first["timeoutMs"] / 1000, expire)
            timer.daemon = True
            timer.start()
        threading.Thread(target=self.input, args=(ws, p, master, first), daemon=True).start()
        while readers:
            for fd in select.select(list(readers), [], [])[0]:
                try:
                    data = os.read(fd, 32768)
                except OSError:
                    data = b""
                if data:
                    ws.send(readers[fd], data)
                else:
                    del readers[fd]
        code = p.wait()
        ws.control(end={"exitCode": code if code >= 0 else -1, "exited": code >= 0,
                        "signal": -min(code, 0), "timedOut": bool(timed_out)})

    def input(self, ws, p, master, first):
        try:
            while (frames := ws.recv()) is not None:
                for channel, payload in frames:
                    if channel == STDIN and payload:
                        p.stdin.write(payload)
                        p.stdin.flush()
                    elif channel == STDIN:
                        p.stdin.close()
                    elif channel == PTY:
                        os.write(master, payload)
                    elif channel == CONTROL:
                        self.server.daemon.bodies.append(json.loads(payload))
                        name = json.loads(payload).get("signal")
                        if name:
                            os.killpg(p.pid, getattr(signal, name))
        except (OSError, ValueError):
            pass
        if first.get("onDetach") == "kill" and p.poll() is None:
            os.killpg(p.pid, signal.SIGKILL)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    allow_reuse_address = True


class FakeDaemon:
    def __init__(self):
        self.sandboxes = {}
        self.requests = []  # (method, path)
        self.bodies = []    # of creates, and first and later CONTROL frames
        self.create_delay_s = 0
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon = self
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def running(self):
        return [s for s in self.sandboxes.values() if s.status == "running"]

    def close(self):
        self.server.shutdown()
        for s in self.sandboxes.values():
            shutil.rmtree(s.dir, ignore_errors=True)
