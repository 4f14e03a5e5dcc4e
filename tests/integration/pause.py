#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pause and resume, what stalls and what goes on, idleness, changes of a living sandbox, deletes from everywhere."""

import concurrent.futures
import http.client
import os
import signal
import time

import ws
from aviary_test import IN_VM, SLOW, Skip, contains, equal, jail_only, main, ok, vm_only, wait_for


def path(sb, rest=""):
    return f"/v1/sandboxes/{sb['id']}{rest}"


def stream(d, sb):
    return ws.WebSocket(d.host, d.port, path(sb, "/exec/stream"), headers={"X-API-Key": d.key})


def status(d, sb):
    return d.expect(200, "GET", path(sb)).json()["status"]


def pause(d, sb):
    r = d.request("POST", path(sb, "/pause"))
    if r.status == 501:
        raise Skip(r.message)
    equal(r.status, 200, f"pause: {r.body}")
    got = r.json()
    equal(got["status"], "paused", "the answer to pause")
    ok("paused_at" in got, "with the time")
    return got


def resume(d, sb):
    got = d.expect(200, "POST", path(sb, "/resume")).json()
    equal(got["status"], "running", "the answer to resume")
    ok("paused_at" not in got, "and no time of a pause")
    return got


def counter(d, sb):
    """Starts something that counts in a file; returns a function that reads it, also while paused."""
    d.expect(202, "POST", path(sb, "/exec"),
             {"cmd": "/bin/sh", "args": ["-c", "while :; do echo >> /tmp/n; sleep 0.02; done"],
              "background": True})
    return lambda: int(d.exec(sb["id"], "[ ! -e /tmp/n ] || wc -l < /tmp/n")["stdout"] or 0)


def test_pause_stops_and_resume_goes_on(d):
    sb = d.create()
    count = counter(d, sb)
    wait_for(lambda: count() > 3, 10, "it counts")
    pause(d, sb)
    equal(d.expect(200, "GET", path(sb)).json()["status"], "paused", "get")
    ok(any(s["id"] == sb["id"] for s in d.expect(200, "GET", "/v1/sandboxes").json()), "it is listed")
    for method, rest, body in (("POST", "/exec", {"cmd": "true"}), ("GET", "/processes", None),
                               ("GET", "/files?path=/etc/passwd", None), ("POST", "/ping", None),
                               ("POST", "/pause", None)):
        r = d.expect(409, method, path(sb, rest), body)
        equal(r.code, "invalid_state", f"{rest} while paused")
    d.expect(200, "GET", path(sb, "/usage"))
    before = time.monotonic()
    time.sleep(0.5)
    resume(d, sb)
    ok(count() < 3 + (time.monotonic() - before) * 50 + 50, "sane")
    now = count()
    wait_for(lambda: count() > now, 10, "it goes on counting")
    equal(d.expect(409, "POST", path(sb, "/resume")).code, "invalid_state", "resume of what runs")
    d.delete(sb["id"])


def test_time_stands_still_inside(d):
    """A program that looks at the clock finds that it was away, and did nothing meanwhile."""
    sb = d.create()
    d.expect(202, "POST", path(sb, "/exec"),
             {"cmd": "/bin/sh", "background": True,
              "args": ["-c", "while :; do date +%s.%N >> /tmp/t; sleep 0.05; done"]})
    time.sleep(0.3)
    pause(d, sb)
    time.sleep(1)
    resume(d, sb)
    time.sleep(0.3)
    times = [float(t) for t in d.exec(sb["id"], "cat /tmp/t")["stdout"].split()]
    gaps = [b - a for a, b in zip(times, times[1:])]
    ok(max(gaps) >= 0.9, f"the longest gap is {max(gaps)}")
    d.delete(sb["id"])


@jail_only("a pause ends what is attached to a virtual machine")
def test_streams_stall_and_go_on(d):
    sb = d.create()
    with stream(d, sb) as session:
        session.send_json({"type": "start", "cmd": "/bin/sh",
                      "args": ["-c", "i=0; while [ $i -lt 50 ]; do echo $i; i=$((i+1)); sleep 0.02; done"]})
        equal(session.recv_json()["type"], "start", "first")
        text = session.recv_json()["data"]
        pause(d, sb)
        time.sleep(1)
        resume(d, sb)
        last = None
        while True:
            last = message = session.recv_json()
            if message["type"] == "stdout":
                text += message["data"]
            if message["type"] in ("exit", "error"):
                break
        equal(last, {**last, "type": "exit", "exit_code": 0}, "the end")
        equal(text.split(), [str(i) for i in range(50)], "all of its output")
    d.delete(sb["id"])


@jail_only("a pause ends what is attached to a virtual machine")
def test_foreground_exec_waits(d):
    sb = d.create()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(d.exec, sb["id"], "sleep 0.5; echo done")
        wait_for(lambda: d.expect(200, "GET", path(sb, "/processes")).json()["processes"], 10, "it runs")
        pause(d, sb)
        time.sleep(1)
        ok(not answer.done(), "it does not end while paused")
        resume(d, sb)
        equal(answer.result()["stdout"], "done\n", "it ends after the resume")
    d.delete(sb["id"])


@jail_only("a pause ends what is attached to a virtual machine")
def test_time_does_not_count_while_paused(d):
    """A command with a timeout that passes during a pause has the rest of its time afterwards."""
    sb = d.create()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(d.exec, sb["id"], "sleep 1.5; echo in time", timeout_sec=3)
        late = pool.submit(d.request, "POST", path(sb, "/exec"), {"cmd": "sleep", "args": ["60"], "timeout_sec": 3 * SLOW})
        wait_for(lambda: len(d.expect(200, "GET", path(sb, "/processes")).json()["processes"]) >= 2, 10, "they run")
        pause(d, sb)
        time.sleep(3.5 * SLOW)
        resume(d, sb)
        equal(answer.result()["stdout"], "in time\n", "the command ended by itself")
        equal(late.result().status, 504, "the other's time comes too")
    d.delete(sb["id"])


@vm_only("a pause of a jail leaves open what is attached")
def test_what_is_attached_to_a_machine_ends(d):
    """It is told why; a process of a stream with on_disconnect goes on where it was, one in the foreground has lost its caller."""
    sb = d.create()
    script = "echo begun; for i in $(seq 40); do sleep 0.05; done; echo done > /tmp/done-"
    with stream(d, sb) as session, concurrent.futures.ThreadPoolExecutor() as pool:
        session.send_json({"type": "start", "cmd": "/bin/sh", "args": ["-c", script + "stream"], "on_disconnect": "keep"})
        equal([session.recv_json()["type"] for _ in range(2)], ["start", "stdout"], "a stream")
        answer = pool.submit(d.request, "POST", path(sb, "/exec"), {"cmd": "/bin/sh", "args": ["-c", script + "exec"]})
        wait_for(lambda: len(d.expect(200, "GET", path(sb, "/processes")).json()["processes"]) == 2, 10, "both run")
        pause(d, sb)
        last = session.recv_json()
        equal(last["type"], "error", f"the end of the stream: {last}")
        contains(last["data"], "paused meanwhile", "says why")
        r = answer.result()
        equal((r.status, r.code), (409, "invalid_state"), "the end of the exec")
        contains(r.message, "paused meanwhile", "says why")
    resume(d, sb)
    wait_for(lambda: d.exec(sb["id"], "cat /tmp/done-stream 2>/dev/null")["stdout"] == "done\n", 20, "the process went on")
    d.delete(sb["id"])


def test_auto_resume(d):
    sb = d.create(auto_resume=True)
    pause(d, sb)
    equal(d.exec(sb["id"], "echo awake")["stdout"], "awake\n", "an exec wakes it")
    equal(status(d, sb), "running", "it runs")
    pause(d, sb)
    equal(d.expect(200, "GET", path(sb, "/files?path=/etc/hostname")).status, 200, "a download wakes it")
    pause(d, sb)
    with stream(d, sb) as session:
        session.send_json({"type": "start", "cmd": "echo", "args": ["x"]})
        equal([session.recv_json()["type"] for _ in range(3)], ["start", "stdout", "exit"], "a stream wakes it")
    pause(d, sb)
    form = b'--b\r\nContent-Disposition: form-data; name="path"\r\n\r\n/tmp/f\r\n' \
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nxyz\r\n--b--\r\n'
    d.expect(204, "POST", path(sb, "/files/write"), form, headers={"Content-Type": "multipart/form-data; boundary=b"})
    equal(d.exec(sb["id"], "cat /tmp/f")["stdout"], "xyz", "an upload wakes it")
    pause(d, sb)
    equal(d.expect(409, "POST", path(sb, "/ping")).code, "invalid_state", "a ping does not")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(d.exec, sb["id"], f"echo {i}") for i in range(8)]
        equal([a.result()["stdout"] for a in answers], [f"{i}\n" for i in range(8)], "many at once")
    d.delete(sb["id"])


def test_delete_from_paused(d):
    sb = d.create()
    counter(d, sb)
    pause(d, sb)
    begin = time.monotonic()
    d.delete(sb["id"])
    ok(time.monotonic() - begin < 5 * SLOW, "at once")
    equal(d.expect(200, "GET", path(sb)).json()["reason"], "deleted", "reason")
    d.delete(sb["id"])


def test_everything_at_once(d):
    """Deletes, execs, pauses, resumes and the end of the timeout at the same time, many times."""
    def one(i):
        sb = d.create(timeout_sec=0.2, auto_resume=i % 2 == 0, on_timeout="pause" if i % 3 else "delete")
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            calls = [("POST", "/pause", None), ("POST", "/exec", {"cmd": "true"}), ("POST", "/resume", None),
                     ("POST", "/pause", None), ("PATCH", "", {"tags": ["x"]})]
            answers = [pool.submit(d.request, m, path(sb, rest), body) for m, rest, body in calls]
            time.sleep(0.01 * i)
            deletes = [pool.submit(d.request, "DELETE", path(sb)) for _ in range(2)]
            for a in answers:
                ok(a.result().status in (200, 404, 409, 502), f"{a.result().status}: {a.result().body}")
            for a in deletes:
                equal(a.result().status, 204, f"delete: {a.result().body}")
        got = d.expect(200, "GET", path(sb)).json()
        ok(got["reason"] in ("deleted", "timeout"), got["reason"])

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for f in [pool.submit(one, i) for i in range(24)]:
            f.result()


def test_idle_sandbox_is_paused(d):
    idle = 4 if IN_VM else 0.5  # longer than it takes to make all of these
    sb = d.create(timeout_sec=idle)
    busy = d.create(timeout_sec=idle)
    gone = d.create(timeout_sec=idle, on_timeout="delete")
    work = d.create(timeout_sec=idle)
    kernel = d.create(timeout_sec=idle)
    d.expect(200, "POST", path(kernel, "/run_code"), {"code": "x = 41"})
    d.expect(202, "POST", path(work, "/exec"), {"cmd": "sleep", "args": ["1000"], "background": True, "tag": "w"})
    with stream(d, busy) as session:
        session.send_json({"type": "start", "cmd": "cat", "stdin": True})
        equal(session.recv_json()["type"], "start", "a stream")
        equal(wait_for(lambda: status(d, sb) == "paused", 20, "it is paused"), True, "idle")
        wait_for(lambda: status(d, gone) == "stopped", 20, "the other is deleted")
        wait_for(lambda: status(d, kernel) == "paused", 20, "a kernel that waits for code is no use")
        resume(d, kernel)
        equal(d.expect(200, "POST", path(kernel, "/run_code"), {"code": "print(x + 1)"}).json()["stdout"], "42\n",
              "and keeps its state")
        equal(d.expect(200, "GET", path(gone)).json()["reason"], "timeout", "reason")
        time.sleep(2 * idle)
        equal(status(d, busy), "running", "what has a stream attached runs")
        equal(status(d, work), "running", "what has a command running too, though nobody listens")
    wait_for(lambda: status(d, busy) == "paused", 20, "without the stream it is paused")
    d.expect(204, "DELETE", path(work, "/processes/w"))
    wait_for(lambda: status(d, work) == "paused", 20, "and without the command")
    got = resume(d, sb)
    equal(got["timeout_sec"], idle, "the timeout is kept")
    for s in (sb, busy, work, kernel):
        d.delete(s["id"])


def test_change(d):
    sb = d.create(metadata={"a": "1", "b": "2"}, tags=["x"])
    got = d.expect(200, "PATCH", path(sb), {"timeout_sec": 3600, "max_lifetime_sec": 7200, "tags": ["y", "z"],
                                            "metadata": {"a": None, "c": "3"}, "on_timeout": "delete",
                                            "auto_resume": True, "public_ports": [8080]}).json()
    want = {"timeout_sec": 3600, "max_lifetime_sec": 7200, "tags": ["y", "z"], "metadata": {"b": "2", "c": "3"},
            "on_timeout": "delete", "auto_resume": True, "public_ports": [8080]}
    equal({k: got[k] for k in want}, want, "changed")
    got = d.expect(200, "PATCH", path(sb), {"tags": None, "timeout_sec": None, "metadata": {}}).json()
    equal((got["tags"], got["timeout_sec"], got["metadata"]), ([], 0, {"b": "2", "c": "3"}), "null is the default")
    for body, part in (({"cpus": 2}, "cpus"), ({"timeout": 2}, "timeout_sec"), ({}, "nothing"),
                       ({"timeout_sec": -1}, "timeout_sec"), ({"timeout_sec": "1"}, "timeout_sec"),
                       ({"timeout_sec": 1e12}, "timeout_sec"), ({"metadata": []}, "metadata"),
                       ({"metadata": {"a": 1}}, "metadata.a"), ({"tags": [""]}, "tags[0]"),
                       ({"public_ports": [0]}, "public_ports[0]"), ({"on_timeout": "x"}, "on_timeout")):
        r = d.expect(400, "PATCH", path(sb), body)
        equal(r.code, "invalid_request", f"{body}")
        contains(r.message, part, f"{body}")
    d.expect(200, "PATCH", path(sb), {"max_lifetime_sec": 0.001})
    wait_for(lambda: status(d, sb) == "stopped", 10, "a lifetime that is over ends it")
    equal(d.expect(409, "PATCH", path(sb), {"tags": []}).code, "invalid_state", "what is over stays")


def test_paused_over_a_restart(d):
    sb = d.create()
    awake = d.create()
    count = counter(d, sb)
    wait_for(lambda: count() > 3, 10, "it counts")
    pause(d, sb)
    pids = d.pids()
    os.kill(pids["daemon"], signal.SIGKILL)
    wait_for(lambda: d.pids().get("daemon", pids["daemon"]) != pids["daemon"], 20, "a new daemon")

    def ready():
        try:
            return d.request("GET", "/ready", key=False).status == 200
        except (OSError, http.client.HTTPException):
            return False

    wait_for(ready, 30, "ready again")
    equal((status(d, sb), status(d, awake)), ("paused", "running"), "after the restart")
    d.expect(409, "POST", path(sb, "/exec"), {"cmd": "true"})
    resume(d, sb)
    now = count()
    wait_for(lambda: count() > now, 10, "it goes on counting")
    pause(d, sb)
    for s in (sb, awake):
        d.delete(s["id"])


main(globals())
