#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Main commands: how they start and end, their logs, files before them, stops that give them time."""

import base64
import concurrent.futures
import datetime
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import tempfile
import time

from aviary_test import Skip, contains, equal, least, main, ok
from aviary_test import wait_for as wait_for_s

S = "/v1/sandboxes"


POOL = concurrent.futures.ThreadPoolExecutor(8)


def wait_for(condition, what):
    return wait_for_s(condition, 20, what)


def kill_daemon(d):
    """SIGKILL; the supervisor starts the next one."""
    before = d.pids()["daemon"]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: d.pids().get("daemon", before) != before, "another daemon")

    def is_ready():
        try:
            return d.request("GET", "/ready", key=False).status == 200
        except OSError:
            return False
    wait_for(is_ready, "it is ready")


def get(d, sb):
    return d.expect(200, "GET", f"{S}/{sb}").json()


def ended(d, sb, what="the sandbox has ended"):
    def is_ended():
        now = get(d, sb)
        # "stopped" is also what a client sees while it is being taken down.
        return now if now["status"] in ("stopped", "error") and "stopped_at" in now else None
    return wait_for(is_ended, what)


def test_exit_codes(d):
    for command, code, signal in (("exit 0", 0, None), (["/bin/sh", "-c", "exit 3"], 3, None), ("kill -9 $$", 137, 9),
                                  ("kill -TERM $$; sleep 60", 143, 15)):
        sb = d.create(command=command)
        equal(sb["status"], "running", "the answer to a create")
        ok(sb["command_pid"] > 1, "a pid")
        equal(sb["command"], command if isinstance(command, list) else ["/bin/sh", "-c", command], "shown")
        now = ended(d, sb["id"])
        equal((now["status"], now["reason"], now["command_state"], now["exit_code"], now.get("exit_signal")),
              ("stopped", "exited", "exited", code, signal), f"{command}")
        contains(now["reason_text"], f"signal {signal}" if signal else f"status {code}", "said to people")
        ok(sb["created_at"] <= now["finished_at"] <= now["stopped_at"], "in order")
        d.expect(409, "POST", f"{S}/{sb['id']}/exec", {"cmd": "true"})


def test_without_one(d):
    sb = d.create()
    ok(not {"command", "exit_code", "command_state", "finished_at", "stopping"} & set(sb), "nothing is said of one")
    d.delete(sb["id"])


def test_workdir_user_envs_and_output(d):
    sb = d.create(command="pwd >/tmp/out; id -un >>/tmp/out; echo $MINE >>/tmp/out; sleep 600", workdir="/tmp",
                  user="root", envs={"MINE": "yes"})
    equal((sb["workdir"], sb["on_exit"]), ("/tmp", "stop"), "shown")
    wait_for(lambda: d.exec(sb["id"], "cat /tmp/out 2>/dev/null | wc -l")["stdout"].strip() == "3", "its output")
    equal(d.exec(sb["id"], "cat /tmp/out")["stdout"], f"/tmp\n{sb['user']}\nyes\n", "directory, user, environment")
    listed = d.expect(200, "GET", f"{S}/{sb['id']}/processes").json()["processes"]
    equal([(p["pid"], p["tag"]) for p in listed], [(sb["command_pid"], "main")], "in the list of processes")
    d.delete(sb["id"])
    now = get(d, sb["id"])
    equal((now["reason"], now["command_state"]), ("deleted", "killed"), "a deletion")
    ok("exit_code" not in now, "no exit status was seen")


def test_kept_after_its_end(d):
    sb = d.create(command="echo data >/tmp/result; exit 7", on_exit="keep")
    now = wait_for(lambda: (lambda s: s if s["command_state"] == "exited" else None)(get(d, sb["id"])), "its end")
    equal((now["status"], now["exit_code"], now["on_exit"]), ("running", 7, "keep"), "it lives on")
    equal(d.exec(sb["id"], "cat /tmp/result")["stdout"], "data\n", "with what was made")
    d.delete(sb["id"])
    equal(get(d, sb["id"])["exit_code"], 7, "also afterwards")


def test_out_of_memory(d):
    if os.geteuid() != 0:
        raise Skip("an ordinary user's limits of memory may be those of single processes")
    for command in ("exec tail /dev/zero", "tail /dev/zero; exit $?"):
        now = ended(d, d.create(command=command, memory_mb=least(32, 512))["id"])
        equal((now["reason"], now["exit_code"], now["status"]), ("oom", 137, "stopped"), command)


def test_in_use_while_it_runs(d):
    """Not idle while it runs, and idle afterwards; a lifetime ends it all the same. What ends it saves the log."""
    idle = d.create(command="echo idle; sleep 6", on_exit="keep", timeout_sec=1, on_timeout="delete")["id"]
    life = d.create(command="echo life; sleep 600", max_lifetime_sec=1.5)["id"]
    now = ended(d, life)
    equal((now["reason"], now["command_state"], logs(d, life).body), ("lifetime", "killed", b"life\n"), "lifetime")
    equal(get(d, idle)["command_state"], "running", "longer than the sandbox may be idle")
    now = ended(d, idle)
    equal((now["reason"], now["exit_code"], logs(d, idle).body), ("timeout", 0, b"idle\n"), "then it is idle")
    ok(lines(d, life)[-1] == {"type": "end", "reason": "lifetime"}, "a log without an exit status")


def test_what_cannot_start(d):
    for body, part in (({"command": ["no-such-program"]}, "no-such-program"), ({"command": ["/etc/passwd"]}, "/etc/passwd"),
                       ({"command": "true", "workdir": "/no/such"}, "/no/such"),
                       ({"command": "true", "user": "nobody-of-that-name"}, "nobody-of-that-name")):
        r = d.request("POST", S, body)
        equal(r.status, 400, f"{body}: {r.body[:200]!r}")
        contains(r.message, part, "the message names it")
        contains(r.message, "command", "and where it stood")
    for body, part in (({"command": []}, "command"), ({"command": [""]}, "command"), ({"command": ""}, "command"),
                       ({"command": ["x"] * 257}, "256"), ({"workdir": "/tmp"}, "command"), ({"on_exit": "keep"}, "command"),
                       ({"command": "true", "workdir": "tmp"}, "absolute"), ({"command": "true", "on_exit": "go"}, "on_exit"),
                       ({"command": "x" * 70000}, "65536")):
        r = d.request("POST", S, body)
        ok(r.status in (400, 413), f"{str(body)[:60]}: {r.status}")
        contains(r.message, part, f"{str(body)[:60]}")
    wait_for(lambda: not [s for s in d.expect(200, "GET", S).json() if s["id"] not in d.ids], "nothing is left")


def test_files(d):
    binary = bytes(range(256))
    sb = d.create(command="cat /tmp/a/b/one > /tmp/seen; sleep 600", files=[
        {"path": "/tmp/a/b/one", "content": "täxt\n"},
        {"path": "/tmp/two", "content_base64": base64.b64encode(binary).decode(), "mode": "0755"},
        {"path": "three"}, {"path": "/tmp/one-more", "content": "x", "mode": 0o600}])["id"]
    equal(d.exec(sb, "cat /tmp/a/b/one; stat -c %a /tmp/two /tmp/one-more; stat -c %s ~/three")["stdout"],
          "täxt\n755\n600\n0\n", "contents, modes, sizes")
    equal(d.expect(200, "GET", f"{S}/{sb}/files?path=/tmp/two").body, binary, "bytes")
    wait_for(lambda: d.exec(sb, "cat /tmp/seen")["stdout"] == "täxt\n", "the command saw them")
    d.delete(sb)


def test_files_that_cannot_be(d):
    many = [{"path": f"/tmp/{i}"} for i in range(65)]
    for files, part in ((many, "64"), ([{"content": "x"}], "path"), ([{"path": ""}], "path"), ([5], "object"),
                        ([{"path": "/tmp/x", "content": "a", "content_base64": "YQ=="}], "one of them"),
                        ([{"path": "/tmp/x", "content_base64": "a"}], "base64"), ([{"path": "/tmp/x", "mode": "9"}], "mode"),
                        ([{"path": "/tmp/x", "content": "x" * 600000}, {"path": "/tmp/y", "content": "x" * 600000}], "1048576"),
                        ([{"path": "/tmp"}], "/tmp"), ([{"path": "/tmp/ok"}, {"path": "/proc/version"}], "files[1]"),
                        ([{"path": "/etc/passwd/x", "content": "x"}], "/etc/passwd/x"), ([{"path": "/" + "x" * 5000}], "4095")):
        r = d.request("POST", S, {"files": files})
        ok(r.status in (400, 413), f"{str(files)[:60]}: {r.status} {r.body[:200]!r}")
        contains(r.message, part, f"{str(files)[:60]}")


def test_files_stay_inside(d):
    """Whatever a path says, it is one of the sandbox: the host sees nothing of it."""
    with tempfile.TemporaryDirectory() as name:
        outside = pathlib.Path(name)
        sb = d.create(files=[{"path": f"{outside}/x", "content": "inside"}, {"path": "/../../../tmp/y", "content": "y"},
                             {"path": f"../../../../../..{outside}/z", "content": "z"}])["id"]
        equal(sorted(p.name for p in outside.iterdir()), [], "nothing outside")
        equal(d.exec(sb, f"cat {outside}/x /tmp/y {outside}/z")["stdout"], "insideyz", "all inside")
        d.delete(sb)


def test_idempotent_with_a_command(d):
    body = {"command": "sleep 600", "files": [{"path": "/tmp/x", "content": "1"}]}
    first = d.request("POST", S, body, headers={"Idempotency-Key": "main-command"})
    again = d.request("POST", S, body, headers={"Idempotency-Key": "main-command"})
    equal((first.status, again.status, first.json()["id"]), (201, 201, again.json()["id"]), "the same")
    d.delete(first.json()["id"])


# ---- logs ----


def logs(d, sb, query="", status=200, **kw):
    return d.expect(status, "GET", f"{S}/{sb}/logs{query}", timeout=60, **kw)


def lines(d, sb, query=""):
    r = logs(d, sb, "?format=json" + query)
    return [json.loads(line) for line in r.body.splitlines()]


class Following:
    """A reader that gets a log as it comes."""

    def __init__(self, d, sb, query=""):
        self.c = d.connection(timeout=60)
        self.c.request("GET", f"{S}/{sb}/logs?follow=true{query}", headers={"X-API-Key": d.key})
        self.r = self.c.getresponse()
        equal(self.r.status, 200, "follow")

    def read(self, n):
        return self.r.read(n)

    def line(self):
        return self.r.readline()

    def rest(self):
        data = self.r.read()
        self.c.close()
        return data


def test_log_of_both_streams(d):
    sb = d.create(command="echo one; sleep 0.3; echo two >&2; sleep 0.3; printf three; sleep 1.5; echo -done; sleep 600")["id"]
    wait_for(lambda: logs(d, sb).body == b"one\ntwo\nthree-done\n", "all of it")
    r = logs(d, sb)
    equal(r.headers["Content-Type"], "text/plain; charset=utf-8", "type")
    equal(logs(d, sb, "?stream=stderr").body, b"two\n", "one stream")
    equal(d.expect(200, "GET", f"/api/v1/capsules/{sb}/logs?stream=stderr").body, b"two\n", "by the other name")
    got = lines(d, sb)
    equal([(x["offset"], x["stream"], x["text"]) for x in got[:2]], [(0, "stdout", "one"), (1, "stderr", "two")], "lines")
    equal("".join(x["text"] for x in got[2:]), "three-done", "a line that came in parts")
    ok(got[2].get("partial") and got[-1].get("continued"), f"parts say so: {got[2:]}")
    now = time.time()
    for x in got:
        at = datetime.datetime.fromisoformat(x["time"].replace("Z", "+00:00")).timestamp()
        ok(now - 60 < at < now + 5, f"time {x['time']}")
    ok(got[0]["time"] < got[1]["time"] < got[2]["time"], "in order")
    first = logs(d, sb, "?timestamps=true").body.decode().splitlines()
    equal([x.split(" ", 1)[1] for x in first], ["one", "two", "three-done"], "with times")
    equal(first[0].split(" ")[0], got[0]["time"], "the same times")
    ok(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", got[0]["time"]), "RFC 3339")
    equal(logs(d, sb, headers={"Accept": "application/x-ndjson"}).headers["Content-Type"], "application/x-ndjson", "by Accept")
    d.delete(sb)


def test_tail_and_since(d):
    sb = d.create(command="for i in $(seq 1 20); do echo line $i; done; sleep 1.2; echo late; sleep 600")["id"]
    wait_for(lambda: logs(d, sb).body.endswith(b"late\n"), "all of it")
    everything = lines(d, sb)
    for where in ("live", "saved"):
        equal(logs(d, sb, "?tail=2").body, b"line 20\nlate\n", f"tail, {where}")
        equal(logs(d, sb, "?tail=0").body, b"", f"none, {where}")
        equal(logs(d, sb, "?tail=1000").body.count(b"\n"), 21, f"more than there is, {where}")
        equal(logs(d, sb, "?since=offset:19").body, b"line 20\nlate\n", f"by offset, {where}")
        equal(logs(d, sb, "?since=offset:21").body, b"", f"behind the last, {where}")
        equal(logs(d, sb, f"?since={everything[-1]['time']}").body.splitlines()[-1], b"late", f"by time, {where}")
        between = datetime.datetime.fromisoformat(everything[-1]["time"].replace("Z", "+00:00")).timestamp() - 0.6
        equal(logs(d, sb, f"?since={between:.3f}").body, b"late\n", f"by seconds, {where}")
        equal(logs(d, sb, "?since=10m").body.count(b"\n"), 21, f"ago, {where}")
        equal([x.get("text") for x in lines(d, sb, "&tail=1")][0], "late", f"tail of JSON, {where}")
        if where == "live":
            equal(stop(d, sb, grace_sec=5).status, 200, "stopped")
    equal(lines(d, sb)[:21], everything, "saved as it was")
    equal((lines(d, sb)[-1]["type"], lines(d, sb)[-1]["exit_code"]), ("end", 143), "and how it ended")


def test_what_is_wrong_with_a_question(d):
    sb = d.create(command="sleep 600")["id"]
    for query, name in (("tail=-1", "tail"), ("tail=x", "tail"), ("since=yesterday", "since"), ("since=offset:x", "since"),
                        ("since=-5", "since"), ("follow=maybe", "follow"), ("timestamps=2", "timestamps"), ("format=xml", "format"),
                        ("stream=stdin", "stream"), ("since=%00", "since"), ("tail=99999999999999999999", "tail")):
        r = logs(d, sb, "?" + query, 400)
        contains(r.message, name, query)
    d.delete(sb)
    other = d.create()["id"]
    contains(logs(d, other, status=409).message, "command", "without a main command")
    d.delete(other)
    contains(logs(d, other, status=409).message, "command", "also when it has gone")
    logs(d, "sb" + "0" * 25, status=404)


def test_follow(d):
    sb = d.create(command="echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo second; exit 6")["id"]
    text, js = Following(d, sb), Following(d, sb, "&format=json")
    equal(text.line(), b"first\n", "at once")
    d.exec(sb, "touch /tmp/go")
    equal(text.rest(), b"second\n", "then it ends")
    got = [json.loads(x) for x in js.rest().splitlines()]
    equal([x.get("text") for x in got[:2]], ["first", "second"], "as JSON")
    equal((got[-1]["type"], got[-1]["exit_code"]), ("end", 6), "with how it ended")
    now = ended(d, sb)
    equal(logs(d, sb).body, b"first\nsecond\n", "saved")
    equal(lines(d, sb)[-1]["exit_code"], now["exit_code"], "with its end")
    equal(Following(d, sb).rest(), b"first\nsecond\n", "to follow what is over ends at once")


def test_follow_ends_with_the_sandbox(d):
    for end, reason in ((lambda sb: d.delete(sb), "deleted"), (lambda sb: stop(d, sb, grace_sec=0), None)):
        sb = d.create(command="echo up; sleep 600")["id"]
        reader = Following(d, sb, "&format=json")
        equal(json.loads(reader.line())["text"], "up", "at once")
        end(sb)
        last = json.loads(reader.rest().splitlines()[-1])
        equal((last["type"], last.get("reason")), ("end", reason), f"{last}")
    sb = d.create(command="echo up; sleep 600")["id"]
    reader = Following(d, sb, "&format=json")
    reader.line()
    kill_daemon(d)
    try:
        rest = reader.rest()
    except (OSError, http.client.HTTPException):
        rest = b""
    ok(b'"end"' not in rest, "a daemon that dies does not say that the command has ended")
    equal(logs(d, sb).body, b"up\n", "the next daemon goes on")
    equal(lines(d, sb, "&since=offset:1"), [], "from where one was")
    d.delete(sb)


def test_output_that_is_no_text(d):
    sb = d.create(command=r"printf 'a\377b\n\000\n\033[0m\n'; head -c 40000 /dev/zero | tr '\0' x; echo; sleep 600")["id"]
    expected = b"a\xffb\n\0\n\033[0m\n" + b"x" * 40000 + b"\n"
    wait_for(lambda: logs(d, sb).body == expected, "the bytes")
    got = lines(d, sb)
    equal(base64.b64decode(got[0]["base64"]), b"a\xffb", "not UTF-8")
    equal((got[1]["text"], got[2]["text"]), ("\0", "\033[0m"), "control characters")
    equal([len(x["text"]) for x in got[3:]], [16384, 16384, 7232], "a long line is cut")
    equal(logs(d, sb, "?tail=1").body, b"x" * 40000 + b"\n", "and is one line")
    d.delete(sb)


def test_flood(d):
    """More output than anybody wants: the newest MiB, bounded memory on both sides, and nobody waits for it."""
    before = d.rss_kib()
    sb = d.create(command="yes 0123456789abcdef | head -c 100000000; yes | head -n 500000; echo the end; exit 2", memory_mb=least(64, 128))["id"]
    reader = Following(d, sb)  # one that does not read
    now = ended(d, sb)
    equal((now["reason"], now["exit_code"]), ("exited", 2), "it was not slowed or killed")
    d.memory_within(before, 60000)
    got = lines(d, sb)
    equal(got[0]["type"], "gap", "what is missing is said")
    ok(got[0]["dropped"] == got[0]["offset"] == got[1]["offset"], f"{got[:2]}")
    equal((got[-2]["text"], got[-1]["type"]), ("the end", "end"), "the newest is there")
    # A line is counted twice where it was waited for in the middle.
    ok(0 <= got[-1]["offset"] - (100000000 // 17 + 1 + 500000) < 1000, f"every line was counted: {got[-1]}")
    body = logs(d, sb).body
    ok(30000 < len(body) < 1 << 20, f"{len(body)} bytes are kept")
    tail = reader.rest()
    ok(tail.endswith(b"the end\n"), "the slow reader gets the newest")


def test_who_does_not_read_keeps_a_share(d):
    # Six times as much as JSON, so that it fits into no buffer on the way.
    sb = d.create(command="head -c 1200000 /dev/zero | tr '\\0' '\\1'")["id"]
    ended(d, sb)
    size = len(logs(d, sb).body)
    ok(size > 900_000, f"{size} bytes are kept")
    readers = []
    try:
        for _ in range(24):
            s = socket.socket()
            readers.append(s)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect((d.host, d.port))
            s.sendall(f"GET {S}/{sb}/logs?format=json HTTP/1.1\r\nHost: x\r\nX-API-Key: {d.key}\r\n\r\n".encode())
        answers = []
        for s in readers:
            s.settimeout(20)
            answers.append(s.recv(12))
        n = answers.count(b"HTTP/1.1 429")
        ok(n >= 4 and answers.count(b"HTTP/1.1 200") == 24 - n, f"a share of the team's: {answers}")
        contains(logs(d, sb, status=429).message, "16", "what is allowed")
    finally:
        for s in readers:
            s.close()
    wait_for(lambda: d.request("GET", f"{S}/{sb}/logs").status == 200, "readers that left hold nothing")


def test_logs_outlive_the_daemon(d):
    sb = d.create(command="echo kept; exit 1")["id"]
    ended(d, sb)
    live = d.create(command="echo still; sleep 600")["id"]
    wait_for(lambda: logs(d, live).body == b"still\n", "its output")
    kill_daemon(d)
    equal((logs(d, sb).body, logs(d, live).body), (b"kept\n", b"still\n"), "both")
    d.delete(live)
    equal(lines(d, live), [{"type": "end", "reason": "deleted"}], "a deletion keeps nothing")


def test_paused(d):
    sb = d.create(command="echo up; sleep 600")["id"]
    wait_for(lambda: logs(d, sb).body == b"up\n", "its output")
    r = d.request("POST", f"{S}/{sb}/pause")
    if r.status == 501:
        d.delete(sb)
        raise Skip(r.message)
    contains(logs(d, sb, status=409).message, "paused", "nothing answers")
    equal(stop(d, sb).status, 200, "stopped")
    equal(logs(d, sb).body, b"up\n", "its log was saved")


# ---- stop ----


def stop(d, sb, **body):
    return d.request("POST", f"{S}/{sb}/stop", body, timeout=60)


def test_stop_with_grace(d):
    sb = d.create(command="trap 'sleep 0.3; exit 5' TERM; echo up >/tmp/up; while :; do sleep 0.05; done")["id"]
    wait_for(lambda: d.exec(sb, "cat /tmp/up")["exit_code"] == 0, "it listens")
    r = stop(d, sb, grace_sec=30)
    equal(r.status, 200, r.body)
    equal(r.json()["grace_exceeded"], False, "it had time")
    now = r.json()["sandbox"]
    equal((now["status"], now["reason"], now["exit_code"]), ("stopped", "stopped", 5), "what became of it")
    ok("stopping" not in now and "snapshot" not in r.json(), "nothing else")
    again = d.request("POST", f"/v1/capsules/{sb}/stop")
    equal((again.status, again.json()["sandbox"]["exit_code"]), (200, 5), "again")


def test_stop_when_the_grace_is_over(d):
    sb = d.create(command="trap '' TERM; echo up >/tmp/up; while :; do sleep 0.05; done")["id"]
    wait_for(lambda: d.exec(sb, "cat /tmp/up")["exit_code"] == 0, "it listens")
    begun = time.monotonic()
    r = stop(d, sb, grace_sec=0.5)
    took = time.monotonic() - begun
    equal((r.status, r.json()["grace_exceeded"]), (200, True), "it had to be killed")
    equal((r.json()["sandbox"]["exit_code"], r.json()["sandbox"]["exit_signal"]), (137, 9), "by a signal")
    ok(0.4 < took < 20, f"{took:.1f} s")


def test_stop_without_anything_to_wait_for(d):
    sb = d.create()["id"]
    r = stop(d, sb)
    equal((r.status, r.json()["sandbox"]["reason"]), (200, "stopped"), "no main command")
    sb = d.create(command="sleep 600")["id"]
    if d.request("POST", f"{S}/{sb}/pause").status == 200:
        r = stop(d, sb)
        equal((r.status, r.json()["sandbox"]["reason"], r.json()["sandbox"]["command_state"]), (200, "stopped", "killed"), "paused")
    d.delete(sb)
    sb = d.create()["id"]
    d.delete(sb)
    equal((stop(d, sb).json()["sandbox"]["reason"]), "deleted", "of one that is gone already")


def test_stop_says_what_is_wrong(d):
    sb = d.create()["id"]
    for body, status, part in (({"grace_sec": -1}, 400, "grace_sec"), ({"grace_sec": 601}, 400, "600"),
                               ({"snapshot": ""}, 400, "snapshot"), ({"snapshot": "no/such name"}, 400, "name"),
                               ({"snapshot": "minimal"}, 409, "minimal")):
        r = stop(d, sb, **body)
        equal(r.status, status, f"{body}: {r.body!r}")
        contains(r.message, part, f"{body}")
    equal(get(d, sb)["status"], "running", "it runs on")
    equal(d.request("POST", f"{S}/sb{'0' * 25}/stop", {}).status, 404, "of none")
    d.delete(sb)


def test_stop_with_a_snapshot(d):
    sb = d.create(command="trap 'echo late >/root/late; exit 0' TERM; echo early >/root/early; while :; do sleep 0.05; done")["id"]
    wait_for(lambda: d.exec(sb, "cat /root/early")["exit_code"] == 0, "it listens")
    r = stop(d, sb, grace_sec=30, snapshot="stopped-one")
    equal((r.status, r.json().get("snapshot"), r.json()["sandbox"]["reason"], r.json()["sandbox"]["exit_code"]),
          (200, "stopped-one", "stopped", 0), r.body)
    made = d.create(template="stopped-one")["id"]
    equal(d.exec(made, "cat /root/early /root/late")["stdout"], "early\nlate\n", "with what was written at the end")
    d.delete(made)
    d.expect(204, "DELETE", "/v1/snapshots/stopped-one")


def deaf(d):
    """A sandbox whose command takes no notice of SIGTERM any more."""
    sb = d.create(command="trap '' TERM; touch /tmp/deaf; while :; do sleep 0.05; done")["id"]
    wait_for(lambda: d.exec(sb, "test -e /tmp/deaf")["exit_code"] == 0, "it is deaf")
    return sb


def test_delete_is_immediate_also_during_a_stop(d):
    sb = deaf(d)
    waiting = POOL.submit(stop, d, sb, grace_sec=300)
    wait_for(lambda: get(d, sb).get("stopping"), "being stopped")
    equal(get(d, sb)["status"], "running", "it has time")
    begun = time.monotonic()
    d.delete(sb)
    ok(time.monotonic() - begun < 15, "at once")
    r = waiting.result(timeout=30)
    equal((r.status, r.json()["sandbox"]["reason"]), (200, "deleted"), "whoever stopped it hears what became of it")


def test_a_second_stop_makes_it_sooner(d):
    sb = deaf(d)
    first = POOL.submit(stop, d, sb, grace_sec=300)
    wait_for(lambda: get(d, sb).get("stopping"), "being stopped")
    equal(stop(d, sb, grace_sec=300, snapshot="another").status, 409, "not with something else")
    second = stop(d, sb, grace_sec=0)
    equal((second.status, first.result(timeout=30).json()["grace_exceeded"]), (200, True), "both hear it")


# ---- the daemon dies ----


def test_daemon_dies_meanwhile(d):
    codes = {code: d.create(command=f"while [ ! -e /tmp/go ]; do sleep 0.05; done; exit {code}")["id"] for code in (0, 4)}
    stays = d.create(command="trap 'exit 9' TERM; echo up >/tmp/up; while :; do sleep 0.05; done")["id"]
    wait_for(lambda: d.exec(stays, "cat /tmp/up")["exit_code"] == 0, "it listens")
    d.exec(codes[4], "(sleep 0.7; touch /tmp/go) >/dev/null 2>&1 &")
    kill_daemon(d)
    for code, sb in codes.items():
        if code == 0:
            d.exec(sb, "touch /tmp/go")
        now = ended(d, sb)
        equal((now["reason"], now["exit_code"]), ("exited", code), "its end was seen")
    equal(get(d, stays)["command_state"], "running", "adopted")
    waiting = POOL.submit(stop, d, stays, grace_sec=0.01)
    waiting.result(timeout=30)
    equal(get(d, stays)["reason"], "stopped", "and stopped")


def test_daemon_dies_during_a_stop(d):
    sb = d.create(command="trap 'sleep 1.5; exit 9' TERM; echo up >/tmp/up; while :; do sleep 0.05; done")["id"]
    wait_for(lambda: d.exec(sb, "cat /tmp/up")["exit_code"] == 0, "it listens")
    waiting = POOL.submit(stop, d, sb, grace_sec=60)
    wait_for(lambda: get(d, sb).get("stopping"), "being stopped")
    kill_daemon(d)
    waiting.exception(timeout=30)
    now = ended(d, sb)
    equal((now["reason"], now["exit_code"]), ("stopped", 9), "the next daemon went on with it")


if __name__ == "__main__":
    main(dict(globals()), pool=2)
