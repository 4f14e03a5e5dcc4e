#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""aviary backup under load, and aviary restore into an empty directory: identical answers.

What is torn, damaged or foreign is refused; a restore that dies at any of its steps leaves nothing that a daemon
takes; a daemon that dies while it is backed up leaves a file that no restore takes.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import aviary_test
from aviary_test import Daemon, contains, equal, ok, program, short, wait_for

ROUTES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src", "api", "routes.def")
# Not an answer about what is remembered: streams, what is asked of a living sandbox, the backup itself.
LIVE = re.compile(r"/(stream|exec|processes|files|pty|usage|kernels|backup|export|metrics)\b|^/v1/sandboxes/stats")
# What changes by itself, or because somebody asked: the time, the last use of the key that asks, who lives.
VOLATILE = {"last_used", "last_used_at", "last_active_at", "last_updated", "updated_at", "in_use", "uptime", "host_ip",
            "guest_ip", "running", "used", "age_sec", "retry_after", "active_sandbox_count",
            "address", "last_heartbeat_at"}
# How a sandbox that lived when the backup was made shows afterwards.
ENDED = {"status", "reason", "reason_text", "template_note", "stopped_at"}


def aviary(d, *args, stdin=None, status=0, env=None, check=True):
    full = {**os.environ, "AVIARY_CONFIG_DIR": os.path.join(d.dir, "config"), "AVIARY_URL": d.url or "", **(env or {})}
    r = subprocess.run([program("aviary"), *args], input=stdin, capture_output=True, timeout=100, env=full, check=False)
    if check:
        equal(r.returncode, status, f"aviary {' '.join(args)}: {r.stdout!r} {r.stderr!r}")
    return r


def file_of(d, name="b.tar"):
    return os.path.join(d.dir, name)


@contextlib.contextmanager
def restored(d, file, into=None):
    """A second daemon on what is restored, with the first one's key."""
    other = Daemon(args=d.args[2:])
    try:
        aviary(d, "restore", file, "--state", other.state)
        os.makedirs(os.path.dirname(other.credentials))
        shutil.copy(d.credentials, other.credentials)
        with reuse_host(d, other):
            other.start()
        other.key = d.key
        yield other
        other.delete_all()
        other.stop()
    finally:
        other.sweep()
        other.remove_dir()


@contextlib.contextmanager
def reuse_host(d, other):
    """Template host, which is no part of a backup, need not be made again."""
    source, target = (os.path.join(x.state, "templates", "host") for x in (d, other))
    if os.path.isdir(source) and not os.path.exists(target):
        subprocess.run(["cp", "-al", source, target], check=True)
    yield


def routes():
    with open(ROUTES, encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    found = re.findall(r'API_ROUTE\(\s*\w+,\s*GET,\s*"(/v1/[^"]+)",\s*\w+,\s*(KEY|USER)', text)
    return sorted({path for path, _ in found if not LIVE.search(path)})


def clean(value, live):
    if isinstance(value, dict):
        drop = VOLATILE | (ENDED if value.get("id") in live else set())
        return {k: clean(v, live) for k, v in value.items() if k not in drop}
    if isinstance(value, list):  # lists hold who lives
        return [clean(v, live) for v in value if not (isinstance(v, dict) and v.get("id") in live)]
    return value


def names_for(d, sandboxes):
    """Values of every {name} in a path."""
    get = lambda path: d.expect(200, "GET", path).json()  # noqa: E731
    return {"id": sandboxes, "sandbox": sandboxes, "name": [t["name"] for t in get("/v1/snapshots")],
            "api_key": [k["id"] for k in get("/v1/api-keys")], "team": [t["id"] for t in get("/v1/teams")]}


def answers(d, names, live):
    """(path, query): status and cleaned body of all that can be read."""
    seen = {}
    for pattern in routes():
        parameter = re.search(r"\{(\w+)\}", pattern)
        values = names.get(parameter.group(1), []) if parameter else [None]
        for value in values:
            path = pattern if value is None else pattern.replace(parameter.group(0), value)
            if "audit" in path:
                continue  # asking is written down; looked at by itself
            r = d.request("GET", path)
            body = r.json() if r.body[:1] in b"{[" and r.status < 500 else r.body.decode("latin1")
            seen[path] = (r.status, clean(body, live))
    return seen


def audit(d):
    got = d.request("GET", "/v1/audit-logs?limit=200")
    rows = got.json() if got.status == 200 else []
    rows = rows if isinstance(rows, list) else next((v for v in rows.values() if isinstance(v, list)), [])
    return {r.get("id", json.dumps(r, sort_keys=True)): r for r in rows}


class Load:
    """Sandboxes, snapshots and keys come and go; what was answered before a moment is known."""

    def __init__(self, d):
        self.d, self.stop, self.errors = d, threading.Event(), []
        self.made, self.deleted, self.keys, self.lock = {}, {}, {}, threading.Lock()
        self.templates = {}
        self.threads = [threading.Thread(target=self._run, args=(f,), daemon=True)
                        for f in (self._sandboxes, self._sandboxes, self._snapshots, self._keys)]

    def _run(self, step):
        n = 0
        try:
            while not self.stop.is_set():
                n += 1
                step(n)
        except Exception as error:  # pylint: disable=broad-except
            self.errors.append(repr(error))

    def _sandboxes(self, _n):
        sandbox = self.d.create(metadata={"load": "1"})["id"]
        with self.lock:
            self.made[sandbox] = time.monotonic()
        self.d.delete(sandbox)
        with self.lock:
            self.deleted[sandbox] = time.monotonic()

    def _snapshots(self, n):
        sandbox = self.d.create()["id"]
        self.d.exec(sandbox, f"echo {n} >/root/n; head -c 300000 /dev/urandom >/root/r")
        self.d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sandbox, "name": f"load-{n}", "stop": True})
        with self.lock:
            self.templates[f"load-{n}"] = [time.monotonic(), None]
        if n > 2:
            self.d.expect(204, "DELETE", f"/v1/snapshots/load-{n - 2}")
            with self.lock:
                self.templates[f"load-{n - 2}"][1] = time.monotonic()

    def _keys(self, n):
        key = self.d.expect(201, "POST", "/v1/api-keys", {"name": f"load {n}"}).json()
        with self.lock:
            self.keys[key["key"]] = [time.monotonic(), None]
        if n % 2:
            self.d.expect(204, "DELETE", f"/v1/api-keys/{key['id']}")
            with self.lock:
                self.keys[key["key"]][1] = time.monotonic()
        time.sleep(0.02)

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for t in self.threads:
            t.join(30)
        equal(self.errors, [], "the load was served")


LOOK = ("cd /root/w && { find . -type d -printf '%p %m %U %G %T@\\n'; find . ! -type d -printf '%p %m %U %G %s %n %T@ %l\\n'; "
        "} | sort | sha256sum && cat file hole | sha256sum")
FILES = ("mkdir /root/w && cd /root/w && echo content >file && ln file again && ln -s file link && mkdir -p a/b && chmod 2750 a && "
         "truncate -s 50M hole && echo end >>hole && chown 1000:1000 a/b && touch -d '2001-02-03 04:05:06.7' file && "
         "printf '#!/bin/sh\\nid -u\\n' >suid && chmod 4755 suid && rm -f /etc/motd && "
         "mkfifo pipe && python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")' && ")


def prepare(d):
    """What the load does not touch, of each kind that there is."""
    stable = {"ended": [], "files": {}}
    for i in range(6):
        stable["ended"].append(d.create(metadata={"number": str(i)}, tags=["kept"])["id"])
        d.delete(stable["ended"][-1])
    base = d.create()["id"]
    stable["files"]["first"] = d.exec(base, FILES + LOOK)["stdout"]
    d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": base, "name": "first"})
    d.delete(base)
    second = d.create(template="first")["id"]
    stable["files"]["second"] = d.exec(second, "cd /root/w && echo more >>file && rm again && " + LOOK)["stdout"]
    d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": second, "name": "second", "stop": True})
    stable["key"] = d.expect(201, "POST", "/v1/api-keys", {"name": "stable", "scopes": ["sandboxes:read"]}).json()
    gone = d.expect(201, "POST", "/v1/api-keys", {"name": "gone"}).json()
    d.expect(204, "DELETE", f"/v1/api-keys/{gone['id']}")
    stable["gone"] = gone
    stable["running"] = d.create(metadata={"is": "running"})["id"]
    stable["paused"] = d.create(metadata={"is": "paused"})["id"]
    d.request("POST", f"/v1/sandboxes/{stable['paused']}/pause")
    return stable


def check_templates(other, stable):
    for name, seen in stable["files"].items():
        sandbox = other.create(template=name)["id"]
        equal(other.exec(sandbox, LOOK)["stdout"], seen, f"the files of template {name}")
        equal(other.exec(sandbox, "test -e /etc/motd")["exit_code"], 1, "what was removed stays removed")
        other.delete(sandbox)


def check_keys(other, stable):
    head = lambda key: {"headers": {"X-API-Key": key["key"]}, "key": False}  # noqa: E731
    other.expect(200, "GET", "/v1/sandboxes", **head(stable["key"]))
    other.expect(403, "POST", "/v1/sandboxes", {}, **head(stable["key"]))
    other.expect(401, "GET", "/v1/sandboxes", **head(stable["gone"]))


def check_live(other, stable):
    for name in ("running", "paused"):
        got = other.expect(200, "GET", f"/v1/sandboxes/{stable[name]}").json()
        equal((got["status"], got["reason"]), ("stopped", "restored"), f"one that was {name}")
        equal(got["metadata"], {"is": name}, "is known")


def check_load(other, load, began, ended):
    """What was there all the time of the backup is there; what was deleted before it began does not come back."""
    for sandbox, at in load.made.items():
        status = other.request("GET", f"/v1/sandboxes/{sandbox}").status
        if at < began:
            equal(status, 200, f"{sandbox}, made before the backup")
    templates = {t["name"] for t in other.expect(200, "GET", "/v1/snapshots").json()}
    for name, (made, deleted) in load.templates.items():
        if made < began and (deleted is None or deleted > ended):
            ok(name in templates, f"{name}, there all the time")
        if deleted is not None and deleted < began:
            ok(name not in templates, f"{name}, deleted before")
    for name in sorted(t for t in templates if t.startswith("load-")):
        sandbox = other.create(template=name)["id"]
        equal(other.exec(sandbox, "cat /root/n")["stdout"], f"{name[5:]}\n", f"{name} has its files")
        other.delete(sandbox)
    for key, (made, deleted) in load.keys.items():
        status = other.request("GET", "/v1/sandboxes", headers={"X-API-Key": key}, key=False).status
        if made < began and (deleted is None or deleted > ended):
            equal(status, 200, "a key that was there all the time works")
        if deleted is not None and deleted < began:
            equal(status, 401, "a key deleted before does not come back")


def test_identical_answers(d):
    stable = prepare(d)
    with Load(d) as load:
        time.sleep(1)
        for file in ("under-load.tar", "under-load.tar.zst"):
            began = time.monotonic()
            aviary(d, "backup", file_of(d, file))
            ended = time.monotonic()
    ok(len(load.made) > 10 and len(load.keys) > 5 and load.templates, "there was a load")
    print(f"# {len(load.made)} creates, {len(load.templates)} snapshots, {len(load.keys)} keys meanwhile; "
          f"{ended - began:.2f} s for {os.path.getsize(file_of(d, 'under-load.tar')) >> 10} KiB")
    equal(os.stat(file_of(d, "under-load.tar.zst")).st_mode & 0o777, 0o600, "nobody else reads a backup")
    ok(not [n for n in os.listdir(d.dir) if "partial" in n], "nothing unfinished is left")
    with restored(d, file_of(d, "under-load.tar.zst")) as other:
        check_live(other, stable)
        check_load(other, load, began, ended)
        check_templates(other, stable)
        check_keys(other, stable)
    ids = stable["ended"] + list(load.made)[-20:] + [stable["running"], stable["paused"]]
    live = {stable["running"], stable["paused"]}
    names = names_for(d, ids)
    aviary(d, "backup", file_of(d))
    before, log = answers(d, names, live), audit(d)
    ok(len(before) > 40 and sum(s == 200 for s, _ in before.values()) > 35, f"{len(before)} answers")
    with restored(d, file_of(d)) as other:
        after, log_after = answers(other, names, live), audit(other)
        different = {p: (before[p], after.get(p)) for p in before if before[p] != after.get(p)}
        for path, (was, now) in list(different.items())[:5]:
            print(f"# {path}\n#  was {was!r}\n#  now {now!r}"[:6000])
        equal(sorted(different), [], "answers that differ")
        # The newest of a page; what was audited here since has pushed the oldest off it.
        missing = [r for i, r in list(log.items())[:100] if i not in log_after and "backup" not in json.dumps(r)]
        ok(len(log) > 100, f"there is an audit log: {len(log)}")
        equal(missing, [], "what was audited is there")
    print(f"# {len(before)} answers are the same")


test_identical_answers.timeout_s = 150


def test_a_stopped_reader_ends_its_backup_and_nobody_elses(d):
    """Templates that are deleted during a backup lose their files afterwards."""
    sandbox = d.create()["id"]
    d.exec(sandbox, "head -c 30000000 /dev/urandom >/root/r")
    made = d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sandbox, "name": "held", "stop": True}).json()
    where = os.path.join(d.state, "templates", made["id"])
    for _ in range(4):  # more than the worker lets go on at once
        with contextlib.closing(d.connection()) as conn:
            conn.request("GET", "/v1/admin/backup", headers={"X-API-Key": d.key})
            equal(conn.getresponse().status, 200, "a backup whose reader goes away")
        wait_for(lambda: aviary(d, "backup", file_of(d, "next.tar"), check=False).returncode == 0, 20, "the next one")
    with contextlib.closing(d.connection()) as conn:
        conn.request("GET", "/v1/admin/backup", headers={"X-API-Key": d.key})
        equal(conn.getresponse().status, 200, "a backup begins")
        d.expect(204, "DELETE", "/v1/snapshots/held")
        d.expect(404, "GET", "/v1/snapshots/held")
        r = aviary(d, "backup", file_of(d, "second.tar"), check=False)
        ok(r.returncode != 0 and b"another backup" in r.stderr, f"a second one is refused: {r.stderr!r}")
        ok(not os.path.exists(file_of(d, "second.tar")), "and leaves no file")
        ok(os.path.isdir(where), "its files wait for the backup")
    wait_for(lambda: not os.path.isdir(where), 20, "then they go")
    wait_for(lambda: d.request("GET", "/v1/admin/backup").status == 200, 10, "another backup")


def restore_fails(d, file, part, stdin=None):
    state = os.path.join(d.dir, "other")
    r = aviary(d, "restore", file, "--state", state, check=False, stdin=stdin)
    ok(r.returncode != 0, f"{part}: it is refused")
    contains(r.stderr.decode(), part, "with the reason")
    if os.path.isdir(state) and os.listdir(state) not in ([], ["lock"]):
        started = subprocess.run([program("aviaryd"), "--state", state, "--run", os.path.join(d.dir, "other-run"),
                                  "--listen", "127.0.0.1:0"], capture_output=True, timeout=30, check=False)
        ok(started.returncode != 0, "no daemon takes what is left of it")
        contains(started.stderr.decode(), "restore", "and says why")
    aviary(d, "cleanup", "--all", "--yes", "--state", state, "--run", os.path.join(d.dir, "other-run"), check=False)
    shutil.rmtree(state, ignore_errors=True)


def test_what_is_refused(d):
    good = file_of(d)
    with open(good, "rb") as f:
        data = f.read()
    bad = file_of(d, "bad.tar")

    def write(content):
        with open(bad, "wb") as f:
            f.write(content)
        return bad

    for cut in (1, 3000, len(data) // 3, len(data) // 2, len(data) - 5000, len(data) - 1500, len(data) - 513):
        restore_fails(d, write(data[:cut]), "")
    restore_fails(d, write(data[:len(data) // 2]), "torn")
    at = data.index(b"content\n")
    restore_fails(d, write(data[:at] + b"CONTENT\n" + data[at + 8:]), "checksum error")
    database = data.index(b"SQLite format 3")
    restore_fails(d, write(data[:database + 5000] + b"?" + data[database + 5001:]), "checksum")
    restore_fails(d, write(b""), "torn")
    restore_fails(d, write(b"hello\n" * 1000), "no backup")
    restore_fails(d, "/etc/passwd", "")
    restore_fails(d, write(data.replace(b"aviary-backup 1\n", b"aviary-backup 9\n", 1)), "does not know")
    # Not over anything.
    for state, part in ((d.state, "not empty"), (os.path.dirname(d.credentials), "not empty")):
        r = aviary(d, "restore", good, "--state", state, check=False)
        ok(r.returncode != 0, f"{state} is refused")
        contains(r.stderr.decode(), part, "with the reason")
    d.expect(200, "GET", "/v1/sandboxes")
    if os.geteuid() == 0:
        theirs = os.path.join(d.dir, "theirs")
        os.mkdir(theirs, 0o755)
        os.chown(theirs, 12345, 12345)
        r = aviary(d, "restore", good, "--state", theirs, check=False)
        ok(r.returncode != 0 and not os.listdir(theirs), "into somebody else's directory nothing is restored")
        contains(r.stderr.decode(), "belongs to user 12345", "with the reason")
    # A directory that is there and empty, from standard input.
    state = os.path.join(d.dir, "empty")
    os.mkdir(state)
    aviary(d, "restore", "-", "--state", state, stdin=data)
    aviary(d, "cleanup", "--all", "--yes", "--state", state, "--run", os.path.join(d.dir, "other-run"))


test_what_is_refused.timeout_s = 120


def test_killed_while_it_restores(d):
    state = os.path.join(d.dir, "other")
    for point in ("restore.begun", "restore.database", "restore.template", "restore.verified"):
        r = aviary(d, "restore", file_of(d), "--state", state, check=False, env={"AVIARY_FAILPOINT": f"{point}=kill@1"})
        ok(r.returncode != 0, f"{point}: killed")
        restore_fails_again = aviary(d, "restore", file_of(d), "--state", state, check=False)
        contains(restore_fails_again.stderr.decode(), "did not end", "the next one says what is there")
        started = subprocess.run([program("aviaryd"), "--state", state, "--run", os.path.join(d.dir, "other-run"),
                                  "--listen", "127.0.0.1:0"], capture_output=True, timeout=30, check=False)
        ok(started.returncode != 0 and b"restore" in started.stderr, f"no daemon takes it: {short(started.stderr)}")
        aviary(d, "cleanup", "--all", "--yes", "--state", state, "--run", os.path.join(d.dir, "other-run"))
        ok(not os.path.exists(state), "it can be removed as it says")


def test_killed_while_it_is_backed_up(d):
    sandbox = d.create()["id"]
    d.exec(sandbox, "head -c 60000000 /dev/urandom >/root/r")
    d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sandbox, "name": "large", "stop": True})
    for victim in ("daemon", "worker"):
        wait_for(lambda: aviary(d, "backup", file_of(d, "whole.tar"), check=False).returncode == 0, 30, "a backup")
        with subprocess.Popen([program("aviary"), "backup", "-"], bufsize=0, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env={
                **os.environ, "AVIARY_CONFIG_DIR": os.path.join(d.dir, "config"), "AVIARY_URL": d.url}) as p:
            some = b""
            while len(some) < 5000000:  # within the large template; nobody reads the rest
                more = p.stdout.read(1000000)
                if not more:
                    raise aviary_test.Failure(f"before {victim} died: {p.communicate()[1]!r}")
                some += more
            os.kill(d.pids()[victim], signal.SIGKILL)
            rest, error = p.communicate(timeout=60)
        ok(p.returncode != 0, f"{victim} dies: {error!r}")
        restore_fails(d, "-", "torn", stdin=some + rest)
        wait_for(lambda: _ready(d), 30, "ready again")
    wait_for(lambda: aviary(d, "backup", file_of(d, "whole.tar"), check=False).returncode == 0, 30, "a backup again")
    d.expect(204, "DELETE", "/v1/snapshots/large")


def _ready(d):
    try:
        return d.request("GET", "/ready", key=False, timeout=5).status == 200
    except OSError:
        return False


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("1..0 # SKIP needs root")
        sys.exit(0)
    aviary_test.main(dict(globals()))
