#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Looking at and changing the files of a sandbox: stat, list, mkdir, move, chmod, remove."""

import json
import time
import urllib.parse

from aviary_test import IN_VM, equal, main, ok
from ws import HandshakeError, WebSocket

SHARED = {}
TYPES = ("file", "directory", "symlink")


def sandbox(d):
    if "id" not in SHARED:
        SHARED["id"] = d.create(memory_mb=512)["id"]
    return SHARED["id"]


def call(d, verb, status=200, generation="sandboxes", **body):
    return d.expect(status, "POST", f"/v1/{generation}/{sandbox(d)}/files/{verb}", body)


def entry(d, verb, **body):
    return call(d, verb, **body).json()["entry"]


def listing(d, path, **body):
    return call(d, "list", path=path, **body).json()["entries"]


def sh(d, script, **body):
    r = d.exec(sandbox(d), script, **body)
    equal((r["exit_code"], r["stderr"]), (0, ""), script)
    return r["stdout"]


def test_stat(d):
    sh(d, "mkdir -p /w/sub && cd /w && printf hello >f && chmod 640 f && touch -d @1700000000 f && ln -s f link && "
          "ln -s sub dirlink && ln -s nowhere dangling && mkfifo fifo && ln -s loop loop && chown 1000:1000 f")
    e = entry(d, "stat", path="/w/f")
    equal(e, {"name": "f", "path": "/w/f", "type": "file", "size": 5, "mode": 0o640, "permissions": "-rw-r-----",
              "owner": "user", "group": "user", "modified_at": 1700000000}, "a file")
    e = entry(d, "stat", path="/w/link", generation="capsules")
    equal((e["type"], e["mode"], e["symlink_target"], e["permissions"]), ("file", 0o640, "/w/f", "Lrwxrwxrwx"), "a link")
    equal(entry(d, "stat", path="/w/dirlink")["type"], "directory", "a link to a directory")
    e = entry(d, "stat", path="/w/dangling")
    equal((e["type"], e["symlink_target"]), ("symlink", "nowhere"), "a link to nowhere")
    equal(entry(d, "stat", path="/w/loop")["type"], "symlink", "a loop")
    equal(entry(d, "stat", path="/w/fifo")["type"], "file", "a pipe")
    equal(entry(d, "stat", path="/dev/null")["type"], "file", "a device")
    equal(entry(d, "stat", path="~")["path"], "/root", "the home")
    equal(entry(d, "stat", path="~", user="user")["path"], "/home/user", "somebody else's")
    equal(call(d, "stat", 404, path="/w/none").code, "not_found", "a missing file")
    equal(call(d, "stat", 401, path="/w/f", user="nobody-knows").code, "unauthorized", "an unknown user")


def test_list(d):
    names = [e["name"] for e in listing(d, "/w")]
    equal(names, ["dangling", "dirlink", "f", "fifo", "link", "loop", "sub"], "names, in order")
    ok(all(e["type"] in TYPES for e in listing(d, "/dev")), "only types that clients know")
    sh(d, "mkdir -p /w/sub/a/b && touch /w/sub/a/b/c")
    paths = [e["path"] for e in listing(d, "/w/dirlink", depth=9)]
    equal(paths, ["/w/dirlink/a", "/w/dirlink/a/b", "/w/dirlink/a/b/c"], "to any depth, under the name asked for")
    equal([e["path"] for e in listing(d, "/w/sub", depth=0)], ["/w/sub/a"], "depth 0 is 1")
    equal(listing(d, "/w/sub/a/b/"), [{**listing(d, "/w/sub/a/b")[0]}], "a slash at the end")
    sh(d, "mkdir /w/empty")
    equal(listing(d, "/w/empty"), [], "an empty directory")
    equal(call(d, "list", 404, path="/w/none").code, "not_found", "a missing directory")
    equal(call(d, "list", 400, path="/w/f").code, "invalid_request", "a file")
    equal(call(d, "list", 400, path="/w", depth=-1).code, "invalid_request", "a bad depth")
    equal(call(d, "list", 400, path="/w", depth="1").code, "invalid_request", "a depth that is no number")
    equal(call(d, "list", 400, path="").code, "invalid_request", "no path")
    sh(d, "mkdir -m 700 /w/private")
    equal(call(d, "list", 403, path="/w/private", user="user").code, "forbidden", "not theirs")


def test_list_large(d):
    """20,000 entries: streamed, and the daemon's memory does not follow."""
    sh(d, "mkdir -p /w/many && cd /w/many && seq -f name-of-some-length-%06g 20000 | xargs touch")
    before = d.rss_kib()
    began = time.monotonic()
    names = [e["name"] for e in listing(d, "/w/many")]
    ok(len(names) == 20000 and names == sorted(names), f"{len(names)} names")
    print(f"# 20,000 entries in {time.monotonic() - began:.2f} s")
    d.memory_within(before, 16384)
    # A client that goes away in the middle costs nothing and hurts nobody.
    for _ in range(5):
        conn = d.connection()
        conn.request("POST", f"/v1/sandboxes/{sandbox(d)}/files/list", json.dumps({"path": "/w/many"}),
                     headers={"X-API-Key": d.key, "Content-Type": "application/json"})
        conn.getresponse().read(100)
        conn.close()
    equal(len(listing(d, "/w/many")), 20000, "entries afterwards")


def test_odd_names(d):
    for name in ("new\nline", "quote\"back\\slash", "ümläut-✓", "-rf", "100%", "a" * 255):
        equal(entry(d, "mkdir", path="/w/odd/" + name)["name"], name, f"mkdir {name!r}")
        equal(entry(d, "move", source="/w/odd/" + name, destination="/w/odd/x")["name"], "x", f"move {name!r}")
        call(d, "remove", 204, path="/w/odd/x")
    sh(d, "cd /w/odd && touch \"$(printf 'bad\\377utf8')\"")
    equal([e["name"] for e in listing(d, "/w/odd")], ["bad\ufffdutf8"], "a name that is not UTF-8 shows so")


def test_mkdir(d):
    e = entry(d, "mkdir", path="/w/new/deep/er")
    equal((e["type"], e["path"], e["mode"], e["owner"]), ("directory", "/w/new/deep/er", 0o755, "root"), "a new directory")
    equal(call(d, "mkdir", 409, path="/w/new/deep/er").code, "conflict", "it is there already")
    equal(call(d, "mkdir", 400, path="/w/f").code, "invalid_request", "a file is there")
    equal(entry(d, "mkdir", path="mine/too", user="user")["owner"], "user", "a user's own")
    equal(call(d, "mkdir", 403, path="/w/theirs", user="user").code, "forbidden", "where they may not")


def test_move(d):
    sh(d, "printf one >/w/one; printf two >/w/two")
    equal(entry(d, "move", source="/w/one", destination="/w/into/new/one")["path"], "/w/into/new/one", "parents are made")
    entry(d, "move", source="/w/two", destination="/w/into/new/one")
    equal(sh(d, "cat /w/into/new/one; ls /w/one /w/two 2>/dev/null; true"), "two", "replaces, as rename does")
    equal(call(d, "move", 404, source="/w/none", destination="/w/x").code, "not_found", "a missing source")
    equal(call(d, "move", 400, source="/w/into", destination="/w/into/itself").code, "invalid_request", "into itself")
    equal(call(d, "move", 400, source="/w/into").code, "invalid_request", "no destination")
    equal(call(d, "move", 409, source="/w/sub", destination="/w/into").code, "conflict", "onto a full directory")


def test_chmod(d):
    sh(d, "mkdir -p /w/c/d && touch /w/c/d/e && ln -s /etc/hostname /w/c/out")
    for mode, want in (("600", 0o600), ("0644", 0o644), ("04755", 0o4755), (420, 0o644), ("0", 0)):
        call(d, "chmod", 204, path="/w/c/d/e", mode=mode)
        equal(entry(d, "stat", path="/w/c/d/e")["mode"], want, f"mode {mode!r}")
    call(d, "chmod", 204, path="/w/c", mode="750", owner="user", group="1000", recursive=True)
    equal(sh(d, "stat -c '%a %U %g' /w/c /w/c/d /w/c/d/e"), "750 user 1000\n" * 3, "a tree")
    equal(sh(d, "stat -c %u /etc/hostname"), "0\n", "what a link leads to is left alone")
    for mode in ("8", "0o644", "-1", "77777", "", -1, 4096, True, 1.5, "u+x"):
        equal(call(d, "chmod", 400, path="/w/c", mode=mode).code, "invalid_request", f"mode {mode!r}")
    equal(call(d, "chmod", 400, path="/w/c").code, "invalid_request", "nothing to do")
    equal(call(d, "chmod", 400, path="/w/c", owner="no-such-user").code, "invalid_request", "an unknown owner")
    equal(call(d, "chmod", 404, path="/w/none", mode="644").code, "not_found", "a missing file")
    equal(call(d, "chmod", 403, path="/w/f2", mode="644", user="user").code if
          not sh(d, "touch /w/f2") else "", "forbidden", "somebody else's file")


def test_remove(d):
    call(d, "remove", 204, path="/w/many")
    sh(d, "mkdir /w/r && ln -s /etc /w/r/etc && ln -s /w/sub /w/r-link")
    call(d, "remove", 204, path="/w/r")
    call(d, "remove", 204, path="/w/r-link")
    equal(sh(d, "ls -d /etc/passwd /w/sub /w/r /w/many 2>/dev/null; true"), "/etc/passwd\n/w/sub\n",
          "trees go, what links lead to stays")
    equal(call(d, "remove", 404, path="/w/r").code, "not_found", "a second time")
    for path in ("/", "/..", "/w/../"):
        equal(call(d, "remove", 400, path=path).code, "invalid_request", f"not {path}")
    equal(call(d, "remove", 400, path="").code, "invalid_request", "not nothing")
    equal(call(d, "remove", 403, path="/w/sub", user="user").code, "forbidden", "not theirs")


def signed(d, path, **body):
    """Path and query of a signed URL, after a look at the answer."""
    answer = d.expect(200, "POST", f"/v1/sandboxes/{sandbox(d)}/files/url", {"path": path, **body}).json()
    equal(answer["method"], body.get("method", "GET"), "method")
    ok(answer["url"].startswith(f"http://{d.host}:{d.port}/v1/sandboxes/{sandbox(d)}/files/signed?"), answer["url"])
    ok(d.key not in answer["url"], "the key is not in it")
    parsed = urllib.parse.urlsplit(answer["url"])
    return parsed.path + "?" + parsed.query


def test_signed_urls(d):
    name = "/w/signed ümläut?&#%.txt"
    up, down = signed(d, name, method="PUT", user="user"), signed(d, name)
    sh(d, "chmod 777 /w")
    d.expect(204, "PUT", up, b"by a stranger", key=False)
    r = d.expect(200, "GET", down, key=False)
    equal(r.body, b"by a stranger", "content")
    equal(r.headers["Content-Disposition"],
          "attachment; filename*=UTF-8''" + urllib.parse.quote(name[3:], safe=""), "to be saved")
    equal((r.headers["Content-Type"], r.headers["X-Content-Type-Options"]), ("application/octet-stream", "nosniff"), "type")
    equal(d.expect(200, "HEAD", down, key=False).body, b"", "only the head")
    equal(sh(d, "stat -c %U /w/signed*"), "user\n", "written as the user of the URL")
    equal(d.expect(404, "GET", signed(d, "/w/none"), key=False).code, "not_found", "a file that is not there")
    equal(d.expect(403, "GET", signed(d, "/etc/shadow", user="user"), key=False).code, "forbidden", "the user's rights")


def test_signed_urls_refused(d):
    down = signed(d, "/w/f")
    other = d.create()["id"]
    token = down.rpartition("token=")[2]
    expiry, _, mac = token.partition(".")
    altered = [
        down.replace("path=/w/f", "path=/etc/passwd"), down.replace("path=/w/f", "path=/w/./f"),
        down.replace(sandbox(d), other), down.replace("&token", "&user=root&token"),
        down.replace(token, f"{int(expiry) + 1}.{mac}"), down.replace(token, f"0{expiry}.{mac}"),
        down.replace(token, f"0.{mac}"), down.replace(token, expiry), down.replace(token, f"{expiry}."),
        down.replace(token, f"{expiry}.{mac[:-1]}{'0' if mac[-1] != '0' else '1'}"), down.replace(token, "x" * 95),
        down.partition("&token=")[0], down.replace("path=/w/f", "path=/w/f%00"),
        "&".join([down.replace("path=/w/f", "path=/w/f2"), "path=/w/f"]),
    ]
    for target in altered:
        r = d.request("GET", target, key=False)
        ok(r.status == 403 or (r.status == 400 and ("%00" in target or "x" * 95 in target)), f"{target}: {r.status} {r.body}")
        ok(b"root:" not in r.body, target)
    equal(d.request("PUT", down, b"evil", key=False).code, "forbidden", "another method")
    equal(d.request("GET", signed(d, "/w/f", method="PUT"), key=False).code, "forbidden", "another method")
    ok("expired" not in d.request("GET", altered[0], key=False).message, "what is forged is not called old")
    short = signed(d, "/w/f", expires_sec=1)
    d.expect(200, "GET", short, key=False)
    time.sleep(2.1)
    r = d.expect(403, "GET", short, key=False)
    ok(r.code == "forbidden" and "expired at 20" in r.message, r.message)
    for body in ({}, {"path": ""}, {"path": "/w/f", "method": "DELETE"}, {"path": "/w/f", "expires_sec": 0},
                 {"path": "/w/f", "expires_sec": 604801}, {"path": "/w/f", "expires_sec": "1"}, {"path": "/" * 5000}):
        r = d.expect(400, "POST", f"/v1/sandboxes/{sandbox(d)}/files/url", body)
        equal(r.code, "invalid_request", str(body)[:60])
    d.delete(other)
    d.expect(409, "POST", f"/v1/sandboxes/{other}/files/url", {"path": "/w/f"})
    d.expect(404, "POST", "/v1/sandboxes/sb" + "0" * 25 + "/files/url", {"path": "/w/f"})


def watch(d, path, headers=None, **query):
    query = urllib.parse.urlencode({"path": path, **query})
    return WebSocket(d.host, d.port, f"/v1/sandboxes/{sandbox(d)}/files/watch?{query}",
                     {"X-API-Key": d.key} if headers is None else headers)


def until(ws, type_, name):
    """All messages up to this one."""
    seen = []
    while not seen or (seen[-1]["type"], seen[-1].get("name")) != (type_, name):
        seen.append(ws.recv_json())
        ok(len(seen) < 1000 and seen[-1]["type"] != "error", seen[-1])
    return [(m["type"], m["name"]) for m in seen]


def test_watch(d):
    sh(d, "mkdir -p /watch/sub")
    with watch(d, "/watch") as flat, watch(d, "/watch", recursive="true") as deep:
        equal([flat.recv_json(), deep.recv_json()], [{"type": "start"}] * 2, "both begin")
        d.expect(204, "PUT", f"/v1/sandboxes/{sandbox(d)}/files?path=/watch/a", b"x")
        for ws in (flat, deep):
            equal(until(ws, "write", "a"), [("create", "a"), ("chmod", "a"), ("write", "a")], "an upload")
        sh(d, "cd /watch && echo >sub/b && mv a c && chmod 600 c && mkdir -p n/m && touch n/m/o && rm c")
        equal(until(flat, "remove", "c"), [("rename", "a"), ("create", "c"), ("chmod", "c"), ("create", "n"),
                                           ("remove", "c")], "what happens in the directory")
        seen = until(deep, "remove", "c")
        for what in (("create", "sub/b"), ("write", "sub/b"), ("create", "n/m"), ("create", "n/m/o")):
            ok(what in seen, f"{what} is in {seen}")
    with watch(d, "~", user="user") as ws:
        equal(ws.recv_json(), {"type": "start"}, "somebody's home")


def test_watch_refusals(d):
    for path, text in (("/w/none", "does not exist"), ("/w/f", "not a directory")):
        with watch(d, path) as ws:
            message = ws.recv_json()
            ok(message["type"] == "error" and text in message["data"], message)
    with watch(d, "/root", user="user") as ws:
        ok("Permission denied" in ws.recv_json()["data"], "not theirs")
    for query in ({"path": ""}, {"path": "/w", "recursive": "maybe"}, {"path": "/" + "a" * 4500}, {"path": "/w", "user": "u" * 99}):
        try:
            watch(d, **query).abort()
            ok(False, f"{query} was taken")
        except HandshakeError as e:
            equal(e.status, 400, f"{str(query)[:60]}")
    equal(d.expect(400, "GET", f"/v1/sandboxes/{sandbox(d)}/files/watch?path=/w").code, "invalid_request", "no WebSocket")
    with watch(d, "/w", headers={}) as ws:
        ws.send_json({"type": "auth", "token": "av_" + "0" * 40})
        message = ws.recv_json()
        ok(message["type"] == "error" and "authentication" in message["data"], message)


def test_watch_of_too_much(d):
    """One directory with far more in it than can be watched: said, and not remembered by the agent."""
    def peak():
        return int(sh(d, "grep VmHWM /proc/1/status").split()[1])

    count = 50000 if IN_VM else 80000  # what fits into half of a machine's memory
    sh(d, f"mkdir /dev/shm/many && cd /dev/shm/many && python3 -c 'import os\nfor i in range({count}): os.mkdir(\"%0100d\" % i)'")
    before = peak()
    with watch(d, "/dev/shm/many", recursive="true") as ws:
        message = ws.recv_json()
    ok(message["type"] == "error" and "at most 8192" in message["data"], f"refused: {message}")
    ok(d.sanitized() or peak() - before < 6000, f"the agent grew from {before} to {peak()} KiB")
    sh(d, "rm -r /dev/shm/many")


def test_watch_ends_with_the_sandbox(d):
    sb = d.create()["id"]
    ws = WebSocket(d.host, d.port, f"/v1/sandboxes/{sb}/files/watch?path=/tmp", {"X-API-Key": d.key})
    equal(ws.recv_json(), {"type": "start"}, "begins")
    d.delete(sb)
    equal(ws.recv_json()["type"], "error", "a definite end")
    ws.abort()


def test_watch_that_nobody_reads(d):
    """A storm of changes: the daemon and the agent keep their memory, and the loss is told."""
    before = d.rss_kib()
    with watch(d, "/watch") as ws:
        equal(ws.recv_json(), {"type": "start"}, "begins")
        rounds = 15 if IN_VM else 60
        sh(d, f"cd /watch && for i in $(seq {rounds}); do seq -f %06g 1000 | xargs touch; seq -f %06g 1000 | xargs rm; done",
           timeout_sec=60)
        d.memory_within(before, 16384)
        types = set()
        while "overflow" not in types:
            types.add(ws.recv_json()["type"])
        equal(types, {"create", "chmod", "remove", "overflow"}, "types")


def test_state_and_shape(d):
    gone = d.create()["id"]
    d.delete(gone)
    for verb in ("stat", "list", "mkdir", "remove"):
        r = d.expect(409, "POST", f"/v1/sandboxes/{gone}/files/{verb}", {"path": "/w"})
        equal(r.code, "invalid_state", f"{verb} in a sandbox that is gone")
        for body in ({}, {"path": 1}, {"path": None}, {"path": "/w", "user": 5}, {"path": "/" + "a" * 5000},
                     {"path": "/" + "a" * 300}, {"path": "/w\0x"}):
            r = d.request("POST", f"/v1/sandboxes/{sandbox(d)}/files/{verb}", body)
            equal((r.status, r.code), (400, "invalid_request"), f"{verb} {str(body)[:60]}")


main(globals())
