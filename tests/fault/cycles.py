#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Create, exec, delete, again and again: everything returns to where it was. T55.

    cycles.py [--cycles N] [--internet]     default 1,000; the soak run takes 10,000 and more

--internet: each sandbox has internet access and uses it.
"""
import os
import subprocess
import sys
import threading
import time

import aviary_test
import fake_internet
from aviary_test import equal, ok, wait_for

CYCLES = 1000
if "--cycles" in sys.argv:
    at = sys.argv.index("--cycles")
    CYCLES = int(sys.argv[at + 1])
    del sys.argv[at:at + 2]
INTERNET = "--internet" in sys.argv
if INTERNET:
    sys.argv.remove("--internet")
THREADS = 4


def count_lines(path):
    with open(path, "rb") as f:
        return sum(1 for _ in f)


def census(d):
    """Everything that could leak, as numbers."""
    pids = d.pids()
    namespaces = set()
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            for kind in ("net", "mnt", "pid", "user"):
                try:
                    namespaces.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
                except OSError:
                    pass
    cgroups = sum(len(dirs) for _top, dirs, _files in os.walk("/sys/fs/cgroup"))
    rss = {}
    for role, pid in pids.items():
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            rss[role] = next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))
    network = {
        "interfaces": len(os.listdir("/sys/class/net")),
        "routes": count_lines("/proc/net/route") + count_lines("/proc/net/fib_trie"),
        "neighbours": count_lines("/proc/net/arp"),
        "tracked connections": sum(f"dst={fake_internet.PUBLIC} " in line for line in open(
            "/proc/net/nf_conntrack", encoding="ascii")) if os.path.exists("/proc/net/nf_conntrack") else 0,
        "rules": len(subprocess.run(["nft", "list", "ruleset"], capture_output=True, timeout=30,
                                    check=True).stdout.splitlines()),
    } if INTERNET else {}
    return {
        **network,
        "mounts of the worker": count_lines(f"/proc/{pids['worker']}/mountinfo"),
        "mounts of the host": count_lines("/proc/self/mountinfo"),
        "cgroups": cgroups,
        "namespaces": len(namespaces),
        "descriptors of the daemon": len(os.listdir(f"/proc/{pids['daemon']}/fd")),
        "descriptors of the worker": len(os.listdir(f"/proc/{pids['worker']}/fd")),
        "descriptors of the supervisor": len(os.listdir(f"/proc/{pids['supervisor']}/fd")),
        "entries of the run directory": len(os.listdir(d.run)),
        "entries of sandboxes/": len(os.listdir(os.path.join(d.state, "sandboxes"))),
        "rss of the daemon, KiB": rss["daemon"],
        "rss of the worker, KiB": rss["worker"],
        "processes": sum(p.isdigit() for p in os.listdir("/proc")),
        "database, KiB": sum(os.path.getsize(os.path.join(d.state, "db", f)) for f in os.listdir(
            os.path.join(d.state, "db"))) // 1024,
    }


def cycle(d, n):
    sandbox = d.create(internet=INTERNET)["id"]
    use = f"bash -c 'exec 3<>/dev/tcp/{fake_internet.PUBLIC}/80' || exit 1;" if INTERNET else ""
    r = d.expect(200, "POST", f"/v1/sandboxes/{sandbox}/exec",
                 {"cmd": "/bin/sh", "args": ["-c", f"{use} echo {n} >/root/x; cat /root/x"]}).json()
    equal(r["stdout"], f"{n}\n", "the echo")
    d.delete(sandbox)


def run(d, cycles):
    failures, left, lock = [], list(range(cycles)), threading.Lock()

    def work():
        while not failures:
            with lock:
                if not left:
                    return
                n = left.pop()
            try:
                cycle(d, n)
            except Exception as error:  # pylint: disable=broad-except
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    began = time.monotonic()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failures:
        raise failures[0]
    print(f"# {cycles} cycles in {time.monotonic() - began:.1f} s")


# What may be more after than before, and by how much; memory pools fill up once.
SLACK = {"rss of the daemon, KiB": 4096, "rss of the worker, KiB": 1024, "processes": 12, "cgroups": 0,
         "namespaces": 2, "descriptors of the daemon": 8,
         # A record of each sandbox is kept as history; its growth per sandbox is bounded.
         "database, KiB": max(8192, CYCLES * 3)}


def test_everything_returns_to_where_it_was(d):
    run(d, 50)
    time.sleep(1)
    before = census(d)
    run(d, CYCLES)

    def settled():
        after = census(d)
        return all(after[k] <= before[k] + SLACK.get(k, 0) for k in before)

    try:
        wait_for(settled, 30, "the return to where it was")
    finally:
        after = census(d)
        for k, value in before.items():
            print(f"#   {k}: {value} -> {after[k]}")


def test_deletes_race_with_everything(d):
    """T56: the same sandbox deleted twice, by four threads, while it is being used."""
    for _ in range(25):
        sandbox = d.create()["id"]
        statuses = []

        def use(s=sandbox):
            r = d.request("POST", f"/v1/sandboxes/{s}/exec", {"cmd": "/bin/sleep", "args": ["0.05"]})
            statuses.append(("exec", r.status))

        def remove(s=sandbox):
            statuses.append(("delete", d.request("DELETE", f"/v1/sandboxes/{s}").status))

        threads = [threading.Thread(target=f) for f in (use, remove, remove, use, remove)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        ok(all(s == 204 for kind, s in statuses if kind == "delete"), f"deletes: {statuses}")
        ok(all(s in (200, 404, 409, 502, 503) for kind, s in statuses if kind == "exec"), f"execs: {statuses}")


test_everything_returns_to_where_it_was.timeout_s = max(120, CYCLES // 20)
if os.geteuid() != 0:
    print("1..0 # SKIP counts the things of root's sandboxes")
    sys.exit(0)
if INTERNET:
    fake_internet.make()
aviary_test.main(globals())
