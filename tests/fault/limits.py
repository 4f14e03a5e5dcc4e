#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sandboxes that take all they can get: processes, memory, disk, output. T01, T02, T04, T05, T06, T08, T09, T10.

Each is held by its own limits (--cpus 1 here), ends with the reason that fits, and a bystander's `exec true`
keeps its pace meanwhile. Each carries an outer guard: the attack ends by itself after some seconds.
"""
import json
import os
import subprocess
import sys
import threading
import time

import aviary_test
import ws
from aviary_test import SLOW, Failure, Skip, Stopwatch, contains, equal, ok, program, wait_for

SOAK = "AVIARY_SOAK" in os.environ
QUICK = {"cpus": 1, "memory_mb": 128, "pids_max": 128, "disk_mb": 64}


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p))]


class Bystander:
    """A sandbox that behaves, and how long its `exec true` takes."""

    def __init__(self, d):
        self.d, self.id = d, d.create()["id"]

    def times(self, seconds):
        """Durations in ms of execs one after the other, for so many seconds."""
        out, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            r = self.d.expect(200, "POST", f"/v1/sandboxes/{self.id}/exec", {"cmd": "/bin/true"}).json()
            equal(r["exit_code"], 0, "the bystander's exit code")
            out.append((time.monotonic() - began) * 1000)
        return out


def background(d, sandbox, script, **more):
    body = {"cmd": "/bin/sh", "args": ["-c", script], "background": True, **more}
    return d.expect(202, "POST", f"/v1/sandboxes/{sandbox}/exec", body).json()


def get(d, sandbox):
    return d.expect(200, "GET", f"/v1/sandboxes/{sandbox}").json()


def deleted_with_reason(d, sandbox, reason="deleted", within_s=1.0):
    with Stopwatch() as watch:
        d.delete(sandbox)
    ok(watch.seconds < within_s * SLOW, f"delete took {watch.seconds:.2f} s")
    record = get(d, sandbox)
    equal((record["status"], record["reason"]), ("stopped", reason), "status and reason")


def stored_mib(d):
    """What the daemon's state takes of the host's file system."""
    return sum(os.lstat(os.path.join(top, name)).st_blocks for top, _dirs, names in os.walk(d.state)
               for name in names) * 512 >> 20


# The first of all: what others deleted would go back meanwhile.
def test_t04_space_goes_back_to_the_host(d):
    """What sandboxes delete, and what those that are deleted leave, is the host's again (btrfs waits some ten seconds)."""
    if subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", d.state], capture_output=True, text=True,
                      check=False).stdout.strip() == "tmpfs":
        raise Skip("the state is on a tmpfs")
    before = stored_mib(d)
    ids = [d.create(disk_mb=200)["id"] for _ in range(2)]
    for sandbox in ids:
        d.exec(sandbox, "head -c 120M /dev/urandom >/root/fill; sync", timeout_sec=60)
    wait_for(lambda: stored_mib(d) > before + 200, 30, "240 MiB are stored")
    d.exec(ids[0], "rm /root/fill; sync")
    deleted_with_reason(d, ids[1])
    wait_for(lambda: stored_mib(d) < before + 40, 80, f"the host has its space back; {before} MiB before")
    deleted_with_reason(d, ids[0])


test_t04_space_goes_back_to_the_host.timeout_s = 150


def test_t01_fork_bomb(d):
    sandbox = d.create(**QUICK)["id"]
    background(d, sandbox, "timeout 20 sh -c 'f() { f | f & }; f; sleep 15'")
    time.sleep(1)
    r = d.request("POST", f"/v1/sandboxes/{sandbox}/exec", {"cmd": "/bin/true"}, timeout=60)
    ok(r.status in (200, 429, 502, 503, 507, 409), f"exec in the bombed sandbox: {r.status} {r.body[:300]}")
    ok(r.status == 200 or r.message, "a refusal says why")
    deleted_with_reason(d, sandbox)


def test_t01_thread_bomb(d):
    sandbox = d.create(**QUICK)["id"]
    code = ("import threading,time\nn=0\ntry:\n  while n < 5000:\n    threading.Thread(target=time.sleep,args=(20,),"
            "daemon=True).start(); n+=1\nexcept RuntimeError: pass\nprint(n, flush=True)\nimport os; os._exit(0)")
    r = d.exec(sandbox, f"python3 -c '{code}'", timeout_sec=30)
    ok(r["stdout"].strip().isdigit() and int(r["stdout"]) < 128, f"threads are limited: {r}")
    deleted_with_reason(d, sandbox)


def test_t02_memory_bomb(d):
    sandbox = d.create(**QUICK)["id"]
    r = d.exec(sandbox, "python3 -c 'x=[bytearray(1<<20) for _ in range(4096)]'", timeout_sec=30)
    ok(r["exit_code"] != 0, f"4 GiB fit into 128 MiB: {r}")
    record = get(d, sandbox)
    print(f"# after the bomb: {record['status']} {record.get('reason')}, exec said {r}")
    ok((record["status"], record.get("reason")) == ("stopped", "oom") or r.get("reason") == "oom" or
       r.get("oom_killed"), f"the reason 'oom' is recorded nowhere: {record} {r}")
    d.delete(sandbox)


BOMB = "x=[bytearray(1<<20) for _ in range(4096)]"


def test_t02_the_reason_everywhere(d):
    sandbox = d.create(**QUICK)["id"]
    path = f"/v1/sandboxes/{sandbox}/exec/stream"
    with ws.WebSocket(d.host, d.port, path, headers={"X-API-Key": d.key}) as w:
        w.send_json({"type": "start", "cmd": "python3", "args": ["-c", BOMB]})
        last = [m for m in iter(w.recv_json, None)][-1]
    equal((last["type"], last.get("signal"), last.get("oom_killed")), ("exit", 9, True), "the stream's last message")
    with ws.WebSocket(d.host, d.port, path, headers={"X-API-Key": d.key}, protocols=("aviary-frames.v1",)) as w:
        w.send_binary(ws.frame(ws.CONTROL, {"process": {"cmd": "python3", "args": ["-c", BOMB]}}))
        payloads = [p for m in iter(w.recv, None) for _, p in ws.frames(m[1])]
    equal(json.loads(payloads[-1])["end"].get("oomKilled"), True, "the frames' end")
    r = subprocess.run([program("aviary"), "exec", sandbox, "python3", "-c", BOMB], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, timeout=60, check=False,
                       env={**os.environ, "AVIARY_URL": d.url, "AVIARY_API_KEY": d.key})
    equal((r.returncode, r.stderr.count("\n")), (137, 1), f"aviary exec: {r.stderr}")
    contains(r.stderr, "the sandbox is out of memory (128 MiB); use --memory", "what aviary exec says")
    equal(get(d, sandbox)["oom_kills"], 3, "kills in the record")
    r = d.exec(sandbox, "kill -9 $$")
    equal((r["exit_code"], r.get("oom_killed")), (137, None), "a kill from inside")
    contains(d.log_text(), "the kernel killed in a sandbox for memory", "the log")
    contains(d.expect(200, "GET", "/metrics").body.decode(), "aviary_oom_kills_total ", "the metrics")
    d.delete(sandbox)


def test_t02_the_agent_survives(d):
    """Whoever asks for most memory, the agent is chosen last: ten bombs one after the other."""
    sandbox = d.create(**QUICK)["id"]
    for i in range(10):
        r = d.exec(sandbox, f"python3 -c '{BOMB}'" if i % 2 else f"for i in 1 2 3 4; do python3 -c '{BOMB}' & done; wait $!",
                   timeout_sec=30)
        ok(r["exit_code"] != 0 and r.get("oom_killed"), f"bomb {i}: {r}")
        equal(d.exec(sandbox, "echo alive")["stdout"], "alive\n", f"after bomb {i}")
    d.delete(sandbox)


def test_t02_the_agent_dies_of_it(d):
    """Memory that no process's end frees, and then the agent's own buffers: when nothing else is left it is
    chosen, and the sandbox says so."""
    sandbox = d.create(**QUICK)["id"]
    code = ("import ctypes\nc=ctypes.CDLL(None)\nc.shmat.restype=ctypes.c_void_p\nfor _ in range(64):\n"
            "  ctypes.memset(c.shmat(c.shmget(0, 2<<20, 0o1600), None, 0), 1, 2<<20)")
    fill = f"python3 -c '{code}'; head -c 16M /dev/zero >/dev/shm/1; head -c 16M /dev/zero >/dev/shm/2"
    r = d.request("POST", f"/v1/sandboxes/{sandbox}/exec",
                  {"cmd": "/bin/sh", "args": ["-c", fill], "timeout_sec": 30}, timeout=120)
    ok(r.status != 200 or r.json().get("oom_killed"), f"the limit was not reached: {r.body}")
    answers = []

    def ended():
        r = d.request("POST", f"/v1/sandboxes/{sandbox}/exec", {
            "cmd": "/bin/sh", "args": ["-c", "head -c 2M /dev/zero; exec sleep 20"], "background": True})
        answers.append(r.status)
        return get(d, sandbox)["status"] == "stopped"
    try:
        wait_for(ended, 20, "the end of the sandbox")
    except Failure as e:
        raise Failure(f"{e}; answers {answers}, usage {d.request('GET', f'/v1/sandboxes/{sandbox}/usage').body}") from e
    record = get(d, sandbox)
    equal((record["status"], record.get("reason")), ("stopped", "oom"), "status and reason")
    contains(d.request("POST", f"/v1/sandboxes/{sandbox}/exec", {"cmd": "true"}).message, "memory", "a later exec")


def test_t02_memory_by_other_means(d):
    """tmpfs, shared memory and many small maps count as well."""
    for script in ("head -c 1G /dev/zero >/dev/shm/fill", "head -c 1G /dev/zero >/tmp/fill",
                   "head -c 1G /dev/zero >/run/fill",
                   "python3 -c 'import mmap; m=[mmap.mmap(-1,4096) for _ in range(300000)];"
                   "[x.__setitem__(0,1) for x in m]'"):
        sandbox = d.create(**QUICK)["id"]
        r = d.request("POST", f"/v1/sandboxes/{sandbox}/exec",
                      {"cmd": "/bin/sh", "args": ["-c", script], "timeout_sec": 40}, timeout=60)
        ok(r.status != 200 or r.json()["exit_code"] != 0, f"{script}: {r.body[:300]}")
        d.delete(sandbox)


def test_t04_disk_fill(d):
    sandbox = d.create(**QUICK)["id"]
    r = d.exec(sandbox, "head -c 1G /dev/zero >/root/fill; echo $?; stat -c %s /root/fill", timeout_sec=60)
    code, size = r["stdout"].split()
    ok(code != "0", "1 GiB fits into 64 MiB")
    ok("space" in r["stderr"].lower() or "quota" in r["stderr"].lower(), f"the error inside: {r['stderr']}")
    ok(int(size) <= 64 << 20, f"{size} bytes were stored")
    r = d.exec(sandbox, "rm /root/fill && echo again >/root/small && cat /root/small")
    equal(r["stdout"], "again\n", "space comes back")
    r = d.request("PUT", f"/v1/sandboxes/{sandbox}/files?path=/root/big", b"\0" * (80 << 20),
                  headers={"Content-Type": "application/octet-stream"})
    equal(r.status, 507, "an upload over the limit")
    deleted_with_reason(d, sandbox)


def test_t04_many_files_and_holes(d):
    sandbox = d.create(**QUICK)["id"]
    r = d.exec(sandbox, "cd /root && i=0; while [ $i -lt 20000 ]; do true >f$i || exit 3; i=$((i+1)); done; echo all",
               timeout_sec=60)
    ok(r["exit_code"] in (0, 3), f"many empty files: {r['exit_code']} {r['stderr'][:200]}")
    r = d.exec(sandbox, "truncate -s 8E /root/hole; fallocate -l 1G /root/real; echo $?", timeout_sec=60)
    ok(not r["stdout"].endswith("\n0\n"), f"fallocate of 1 GiB: {r}")
    deleted_with_reason(d, sandbox)


def test_t05_output_flood(d):
    """10 GB to nobody and to a reader that stops at its cap; memory of the daemon stays."""
    mib = int(10240 / SLOW)
    sandbox = d.create(cpus=1)["id"]
    before = d.rss_kib()
    p = background(d, sandbox, f"head -c {mib}M /dev/zero", tag="flood")
    r = d.exec(sandbox, f"head -c {mib // 10}M /dev/zero", timeout_sec=60)
    equal(r["exit_code"], 0, "the flooding command's exit code")
    ok(r.get("truncated") or r.get("stdout_truncated"), f"the cut is told: { {k: v for k, v in r.items() if k not in ('stdout', 'stderr')} }")
    wait_for(lambda: all(x["pid"] != p["pid"] for x in d.expect(
        200, "GET", f"/v1/sandboxes/{sandbox}/processes").json()["processes"]), 50, f"the end of {mib} MiB of output")
    grown = d.rss_kib() - before
    ok(grown < 64 * 1024, f"the daemon grew by {grown} KiB")
    deleted_with_reason(d, sandbox)


def test_t06_descriptors_and_friends(d):
    sandbox = d.create(**QUICK)["id"]
    code = ("import os,sys\nn=0\ntry:\n  while n < 3000000:\n    os.dup(0); n+=1\nexcept OSError: pass\nprint(n)")
    r = d.exec(sandbox, f"ulimit -n; python3 -c '{code}'", timeout_sec=30)
    ok(int(r["stdout"].split()[-1]) < 1100000, f"descriptors are limited: {r['stdout']}")
    d.delete(sandbox)


def test_t08_t09_survivors_and_zombies(d):
    sandbox = d.create(**QUICK)["id"]
    d.exec(sandbox, "for i in 1 2 3 4 5; do setsid sh -c 'trap \"\" TERM HUP INT; (sleep 1000 &) ; sleep 1000' "
           ">/dev/null 2>&1 & done; sleep 0.2")
    n = int(3000 / SLOW)
    r = d.exec(sandbox, f"i=0; while [ $i -lt {n} ]; do (sh -c 'true &' &); i=$((i+1)); done; sleep 0.5; "
               "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l", timeout_sec=60)
    equal(r["stdout"].strip(), "0", f"zombies after {n} orphans")
    deleted_with_reason(d, sandbox)


def test_t10_time_limits(d):
    sandbox = d.create(**QUICK)["id"]
    for script in ("while :; do :; done", "sleep 100", "kill -STOP $$", "trap '' TERM INT HUP; sleep 100 & wait; sleep 100"):
        began = time.monotonic()
        with Stopwatch() as watch:
            r = d.request("POST", f"/v1/sandboxes/{sandbox}/exec",
                          {"cmd": "/bin/sh", "args": ["-c", script], "timeout_sec": 1}, timeout=30)
        ok(r.status in (502, 504, 408), f"{script}: status {r.status} {r.body[:200]}")
        ok(time.monotonic() - began > 0.9 and watch.seconds < 1 + 0.5 * SLOW, f"{script}: ended after {watch.seconds:.2f} s")
    left = d.exec(sandbox, "ls /proc | grep -c '^[0-9]'")["stdout"]
    ok(int(left) <= 4, f"{left} processes are left after the time-outs")
    d.delete(sandbox)


def test_t03_busy_sandboxes_keep_to_their_cpus(d):
    """Two loops under a quota of one CPU end up on one CPU, two such sandboxes on two; quiet, they may run anywhere."""
    cpus = len(os.sched_getaffinity(0))
    if cpus < 2 or not any(os.access(f"/sys/fs/cgroup/{p}", os.R_OK) for p in ("cpuset/cpuset.cpus", "cpuset.cpus.effective")):
        raise Skip("needs two CPUs and the cpuset controller")
    ids = [d.create(cpus=1)["id"] for _ in range(2)]
    allowed = "sed -n 's/^Cpus_allowed_list:.//p' /proc/self/status"
    everywhere = [d.exec(s, allowed)["stdout"] for s in ids]
    for s in ids:
        background(d, s, "while :; do :; done & while :; do :; done", tag="hog")

    def apart():
        where = [d.exec(s, allowed)["stdout"].strip() for s in ids]
        return where if all(w.isdigit() for w in where) and where[0] != where[1] else None
    print(f"# confined to CPUs {wait_for(apart, 10, 'each on a CPU of its own')}")
    for s in ids:
        d.expect(204, "DELETE", f"/v1/sandboxes/{s}/processes/hog")
    wait_for(lambda: [d.exec(s, allowed)["stdout"] for s in ids] == everywhere, 20, "all CPUs again")
    for s in ids:
        d.delete(s)


def test_t03_together_they_weigh_more(d):
    """Not as one process of the host: a busy one would take the weight of all to its CPUs."""
    sandbox = d.create()["id"]
    found = {}
    for path in aviary_test.cgroups_of(d):
        for name, unit in (("cpu.shares", 1024), ("cpu.weight", 100)):
            file = os.path.join(os.path.dirname(path), name)
            if path.endswith(sandbox) and os.path.exists(file):
                with open(file, encoding="ascii") as f:
                    found[file] = int(f.read()) / unit
    equal(sorted(found.values()), [8.0], f"the parent's weight, of one process: {found}")
    d.delete(sandbox)


def test_t03_t60_bystander_keeps_its_pace(d):
    """All of it at once in one sandbox with one CPU; the bystander's p99 stays under twice its usual."""
    by = Bystander(d)
    by.times(1)
    usual = by.times(5)
    sandbox = d.create(cpus=1, memory_mb=256, pids_max=200, disk_mb=128)["id"]
    for script in ("timeout 12 sh -c 'f() { f | f & }; f; sleep 12'",
                   "timeout 12 sh -c 'while :; do python3 -c \"x=[bytearray(1<<20) for _ in range(4096)]\"; done'",
                   "timeout 12 sh -c 'while :; do head -c 1G /dev/zero >/root/fill; rm -f /root/fill; done'",
                   "timeout 12 head -c 10G /dev/zero"):
        d.request("POST", f"/v1/sandboxes/{sandbox}/exec",
                  {"cmd": "/bin/sh", "args": ["-c", script], "background": True})
    time.sleep(2)  # a busy sandbox is noticed within a second
    during = by.times(8)
    p50, p99 = percentile(usual, 0.5), percentile(usual, 0.99)
    q50, q99 = percentile(during, 0.5), percentile(during, 0.99)
    print(f"# exec true, ms: usual p50 {p50:.2f} p99 {p99:.2f} (n {len(usual)}); "
          f"beside the attack p50 {q50:.2f} p99 {q99:.2f} (n {len(during)})")
    d.delete(sandbox)
    # A shared machine has its own noise: here it must stay usable, `make soak` holds it to the promise.
    ok(q50 < 3 * p50 + 2 * SLOW, f"p50 went from {p50:.2f} to {q50:.2f} ms")
    ok(q99 < (2 * p99 if SOAK else 250 * SLOW), f"p99 went from {p99:.2f} to {q99:.2f} ms")


def test_many_at_once(d):
    """Eight bombs together end as well."""
    ids = [d.create(**QUICK)["id"] for _ in range(8)]
    threads = [threading.Thread(target=lambda s=s: d.request(
        "POST", f"/v1/sandboxes/{s}/exec", {"cmd": "/bin/sh", "args": ["-c",
        "python3 -c 'x=[bytearray(1<<20) for _ in range(4096)]'; head -c 1G /dev/zero >/root/fill"],
        "timeout_sec": 30}, timeout=60)) for s in ids]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for s in ids:
        d.delete(s)


if os.geteuid() != 0:
    print("1..0 # SKIP limits by cgroup and disk need root here")
    sys.exit(0)
for t in [f for n, f in list(globals().items()) if n.startswith("test_")]:
    t.timeout_s = 120
aviary_test.main(globals())
