# SPDX-License-Identifier: Apache-2.0
"""What the two older clients share: requests as they send them, and answers read as strictly as they read them: a word
that is not in an enumeration, a time without a zone, or a member of another type raises."""

import base64
import datetime
import http.client
import json
import os
import time
import urllib.parse
import uuid

from ws import WebSocket

TIMEOUT_S = 30  # they know 5 seconds for everything; a test machine may be slow
SLOW = float(os.environ.get("AVIARY_TEST_SLOW", "1"))


class ApiError(Exception):
    def __init__(self, code, message, status, body):
        super().__init__(f"{status} {code}: {message}")
        self.code, self.message, self.status = code, message, status
        # From the top level, not from inside the error.
        self.sandbox_ids = body.get("sandbox_ids") or body.get("capsule_ids") or []


class StatusError(Exception):
    """What some methods raise instead: the bare status."""

    def __init__(self, status):
        super().__init__(f"status {status}")
        self.status = status


ERRORS = {"invalid_request": "Validation", "unauthorized": "Authentication", "forbidden": "Forbidden", "not_found": "NotFound",
          "invalid_state": "Conflict", "conflict": "Conflict", "host_has_sandboxes": "HostHasSandboxes",
          "host_unavailable": "HostUnavailable", "agent_error": "Agent", "internal_error": "Internal"}

# ---- models: name of a member -> what it must be when it is there and not null ----


def enum(*words):
    def check(v):
        if v not in words:
            raise ValueError(f"{v!r} is not one of {words}")
    return check


def when(v):
    if datetime.datetime.fromisoformat(v.replace("Z", "+00:00")).tzinfo is None:
        raise ValueError(f"{v!r} has no zone")


def kind(*types):
    def check(v):
        if not isinstance(v, types) or (isinstance(v, bool) and bool not in types):
            raise ValueError(f"{v!r} is not of {types}")
    return check


def many(model):
    def check(v):
        for one in v:
            parse(one, model)
    return check


STR, INT, BOOL = kind(str), kind(int), kind(bool)
NUMBER = kind(int, float)
ROLE = enum("owner", "admin", "member")
EVENTS = ("capsule.created", "capsule.running", "capsule.paused", "capsule.destroyed", "template.snapshot.created",
          "template.snapshot.deleted", "host.up", "host.down")


def each(check):
    def all_of(v):
        for one in v:
            check(one)
    return all_of


AUTH = {"token": STR, "user_id": STR, "team_id": STR, "email": STR, "name": STR}
KEY = {"id": STR, "team_id": STR, "name": STR, "key_prefix": STR, "created_by": STR, "creator_email": STR, "created_at": when,
       "last_used": when, "key": STR}
SANDBOX = {"id": STR, "status": enum("pending", "starting", "running", "paused", "hibernated", "stopped", "missing", "error"),
           "template": STR, "vcpus": INT, "memory_mb": INT, "timeout_sec": INT, "guest_ip": STR, "host_ip": STR,
           "created_at": when, "started_at": when, "last_active_at": when, "last_updated": when, "metadata": kind(dict)}
TEMPLATE = {"name": STR, "type": enum("base", "snapshot"), "vcpus": INT, "memory_mb": INT, "size_bytes": INT, "created_at": when,
            "platform": BOOL}
HOST = {"id": STR, "type": enum("regular", "byoc"), "team_id": STR, "team_name": STR, "provider": STR, "availability_zone": STR,
        "arch": STR, "cpu_cores": INT, "memory_mb": INT, "disk_gb": INT, "address": STR,
        "status": enum("pending", "online", "offline", "draining", "unreachable"), "last_heartbeat_at": when,
        "created_by": STR, "created_at": when, "updated_at": when}
REGISTRATION = {"host": lambda v: parse(v, HOST), "registration_token": STR}
CREDENTIALS = {"host": lambda v: parse(v, HOST), "token": STR, "refresh_token": STR, "cert_pem": STR, "key_pem": STR,
               "ca_cert_pem": STR}
PREVIEW = {"host": lambda v: parse(v, HOST), "sandbox_ids": each(STR)}
EXEC = {"sandbox_id": STR, "cmd": STR, "stdout": STR, "stderr": STR, "exit_code": INT, "duration_ms": INT,
        "encoding": enum("utf-8", "base64")}
FILE = {"name": STR, "path": STR, "type": enum("file", "directory", "symlink"), "size": INT, "mode": INT, "permissions": STR,
        "owner": STR, "group": STR, "modified_at": INT, "symlink_target": STR}
ME = {"name": STR, "email": STR, "has_password": BOOL, "providers": each(STR)}
TEAM = {"id": STR, "name": STR, "slug": STR, "is_byoc": BOOL, "created_at": when, "role": ROLE}
MEMBER = {"user_id": STR, "name": STR, "email": STR, "role": ROLE, "joined_at": when}
CHANNEL = {"id": STR, "team_id": STR, "name": STR,
           "provider": enum("discord", "slack", "teams", "googlechat", "telegram", "matrix", "webhook"),
           "events": each(enum(*EVENTS)), "created_at": when, "updated_at": when, "secret": STR}
PROCESS = {"pid": INT, "tag": STR, "cmd": STR, "args": each(STR)}
STATS = {"range": STR, "current": kind(dict), "peaks": kind(dict), "series": kind(dict)}
USAGE = {"from": STR, "to": STR, "points": many({"date": STR, "cpu_minutes": NUMBER, "ram_mb_minutes": NUMBER})}
METRICS = {"sandbox_id": STR, "range": STR,
           "points": many({"timestamp_unix": INT, "cpu_pct": NUMBER, "mem_bytes": INT, "disk_bytes": INT})}


def parse(value, model):
    """As their models do: members that are unknown do not matter, those that are absent or null neither."""
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is no object")
    for name, check in model.items():
        if value.get(name) is not None:
            try:
                check(value[name])
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"{name}: {error}") from None
    return value


class Wire:
    """Sends a request as they do: keys that are not set are not there at all."""

    def __init__(self, base_url, api_key=None, token=None, both=True):
        self.base = urllib.parse.urlsplit(base_url)
        self.api_key, self.token, self.both = api_key, token, both

    def head(self, path):
        """Everything of theirs on every request; or the key for sandboxes and snapshots, the session for all else."""
        if self.both:
            use_key = use_token = True
        else:
            use_key = path.startswith(("/v1/capsules", "/v1/snapshots"))
            use_token = not use_key
        head = {}
        if self.api_key and use_key:
            head["X-API-Key"] = self.api_key
        if self.token and (use_token or not self.api_key):
            head["Authorization"] = f"Bearer {self.token}"
        return head

    def send(self, method, path, body=None, headers=None, host=None, **query):
        conn = http.client.HTTPConnection(self.base.hostname, self.base.port, timeout=TIMEOUT_S * SLOW)
        head = {**self.head(path), **(headers or {})}
        target = path if host else self.base.path.rstrip("/") + path
        query = {k: v for k, v in query.items() if v is not None}
        if query:
            target += "?" + urllib.parse.urlencode(query)
        if body is not None and not isinstance(body, bytes) and not hasattr(body, "__next__"):
            body = json.dumps({k: v for k, v in body.items() if v is not None}).encode()
            head["Content-Type"] = "application/json"
        if host:
            head["Host"] = f"{host}:{self.base.port}"
        try:
            conn.request(method, target, body, head, encode_chunked=hasattr(body, "__next__"))
            answer = conn.getresponse()
            return answer.status, answer.read()
        finally:
            conn.close()

    def call(self, method, path, body=None, headers=None, model=None, rows=None, **query):
        """The parsed answer; errors by their code."""
        status, data = self.send(method, path, body, headers, **query)
        if status >= 400:
            try:
                answer = json.loads(data)
                error = answer["error"]
            except (ValueError, KeyError):
                raise ApiError("internal_error", data.decode(errors="replace"), status, {}) from None
            raise ApiError(error["code"], error["message"], status, answer)
        if status == 204:
            return None
        value = json.loads(data)
        if rows:
            return [parse(one, rows) for one in value]
        return parse(value, model) if model else value

    def bare(self, method, path, body=None, headers=None, model=None):
        """The same, for methods that only raise the status."""
        status, data = self.send(method, path, body, headers)
        if status >= 400:
            raise StatusError(status)
        return parse(json.loads(data), model) if model else data

    def socket(self, path, host=None):
        authority = f"{host}:{self.base.port}" if host else None
        return WebSocket(self.base.hostname, self.base.port, (path if host else self.base.path.rstrip("/") + path),
                         headers=self.head(path), authority=authority)


class Box:
    """One sandbox, as the object of both generations; prefix says which."""

    prefix = None

    def __init__(self, wire, record):
        self.wire, self.id, self.status = wire, record["id"], record["status"]
        self.kernel = None

    def at(self, tail=""):
        return f"{self.prefix}/{self.id}{tail}"

    def wait_ready(self):
        end = time.monotonic() + 30 * SLOW
        while time.monotonic() < end:
            self.status = self.wire.call("GET", self.at(), model=SANDBOX)["status"]
            if self.status == "running":
                return self
            if self.status in ("error", "stopped"):
                raise RuntimeError(self.status)
            time.sleep(0.5)
        raise TimeoutError(self.status)

    def exec(self, cmd, args=None, timeout_sec=30):
        r = self.wire.bare("POST", self.at("/exec"), {"cmd": cmd, "args": args, "timeout_sec": timeout_sec}, model=EXEC)
        if r["encoding"] == "base64":
            r["stdout"], r["stderr"] = (base64.b64decode(r[k]).decode(errors="replace") for k in ("stdout", "stderr"))
        return r

    def exec_stream(self, cmd, args):
        with self.wire.socket(self.at("/exec/stream")) as s:
            s.send_json({"type": "start", "cmd": cmd, "args": args})
            while True:
                event = s.recv_json()
                if event is None:
                    return
                yield event
                if event["type"] in ("exit", "error"):
                    return

    def form(self, path, data):
        mark = uuid.uuid4().hex
        head = (f'--{mark}\r\nContent-Disposition: form-data; name="path"\r\n\r\n{path}\r\n--{mark}\r\nContent-Disposition: '
                f'form-data; name="file"; filename="upload"\r\nContent-Type: application/octet-stream\r\n\r\n').encode()
        return {"Content-Type": f"multipart/form-data; boundary={mark}"}, head, data, f"\r\n--{mark}--\r\n".encode()

    def upload(self, path, data):
        headers, *parts = self.form(path, data)
        self.wire.bare("POST", self.at("/files/write"), b"".join(parts), headers)

    def stream_upload(self, path, pieces):
        headers, head, _, tail = self.form(path, b"")
        headers["Transfer-Encoding"] = "chunked"
        self.wire.bare("POST", self.at("/files/stream/write"), iter([head, *pieces, tail]), headers)

    def download(self, path):
        return self.wire.bare("POST", self.at("/files/read"), {"path": path})

    def stream_download(self, path):
        return self.wire.bare("POST", self.at("/files/stream/read"), {"path": path})

    def list_dir(self, path, depth=1):
        r = self.wire.call("POST", self.at("/files/list"), {"path": path, "depth": depth}, model={"entries": many(FILE)})
        return r["entries"]

    def mkdir(self, path):
        try:
            return self.wire.call("POST", self.at("/files/mkdir"), {"path": path}, model={"entry": lambda v: parse(v, FILE)})["entry"]
        except ApiError as error:
            if error.code != "conflict":
                raise
            parent, _, name = path.rpartition("/")
            return [e for e in self.list_dir(parent or "/", 0) if e["name"] == name][0]

    def remove(self, path):
        self.wire.call("POST", self.at("/files/remove"), {"path": path})

    def ping(self):
        self.wire.bare("POST", self.at("/ping"))

    def pause(self):
        self.status = self.wire.bare("POST", self.at("/pause"), model=SANDBOX)["status"]

    def resume(self):
        self.status = self.wire.bare("POST", self.at("/resume"), model=SANDBOX)["status"]

    def destroy(self):
        self.wire.bare("DELETE", self.at())

    def pty(self, cmd="/bin/sh", args=None, envs=None):
        return Pty(self.wire.socket(self.at("/pty")),
                   {"type": "start", "cmd": cmd, "cols": 80, "rows": 24, **({"args": args} if args else {}),
                    **({"envs": envs} if envs else {})})

    def pty_connect(self, tag):
        return Pty(self.wire.socket(self.at("/pty")), {"type": "connect", "tag": tag})

    def run_code(self, code, timeout=30):
        host = f"8888-{self.id}.localhost"
        while not self.kernel:
            status, data = self.wire.send("POST", "/api/kernels", host=host)
            if status < 500:
                self.kernel = json.loads(data)["id"]
            else:
                time.sleep(0.5)
        me = uuid.uuid4().hex
        result = {"text": None, "data": {}, "stdout": "", "stderr": "", "error": None}
        with self.wire.socket(f"/api/kernels/{self.kernel}/channels", host) as s:
            s.send_json({"header": {"msg_id": me, "msg_type": "execute_request", "username": "older", "session": uuid.uuid4().hex,
                                    "date": "2026-04-10T00:00:00.000Z", "version": "5.3"}, "msg_id": me,
                         "msg_type": "execute_request", "parent_header": {}, "metadata": {}, "buffers": [], "channel": "shell",
                         "content": {"code": code, "silent": False, "store_history": True, "user_expressions": {},
                                     "allow_stdin": False, "stop_on_error": True}})
            end = time.monotonic() + timeout * SLOW
            while time.monotonic() < end:
                message = s.recv_json()
                if message["parent_header"].get("msg_id") != me:
                    continue
                word, content = message.get("msg_type") or message["header"]["msg_type"], message["content"]
                if word == "stream":
                    result["stderr" if content["name"] == "stderr" else "stdout"] += content["text"]
                elif word == "execute_result":
                    result["data"], result["text"] = content["data"], content["data"].get("text/plain")
                elif word == "error":
                    result["error"] = "\n".join(content["traceback"])
                elif word == "status" and content["execution_state"] == "idle":
                    return result
        raise TimeoutError(code)


class Pty:
    WORDS = ("started", "output", "exit", "error", "ping")

    def __init__(self, socket, first):
        self.socket, self.tag = socket, first.get("tag")
        socket.send_json(first)

    def events(self):
        while True:
            event = self.socket.recv_json()
            if event is None:
                return
            if event["type"] not in self.WORDS:
                raise ValueError(event["type"])
            if event["type"] == "started":
                self.tag = event["tag"]
            yield event
            if event["type"] == "exit" or (event["type"] == "error" and event.get("fatal")):
                return

    def write(self, data):
        self.socket.send_json({"type": "input", "data": base64.b64encode(data).decode()})

    def resize(self, cols, rows):
        self.socket.send_json({"type": "resize", "cols": cols, "rows": rows})

    def read_until(self, part):
        got = b""
        for event in self.events():
            if event["type"] == "output":
                got += base64.b64decode(event["data"])
            if part in got:
                return got
        raise EOFError(got)

    def close(self):
        self.socket.abort()
