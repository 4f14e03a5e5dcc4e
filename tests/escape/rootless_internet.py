#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Internet access for sandboxes of an ordinary user, by pasta. T30 where no rule of the host's helps."""
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile

import aviary_test
import fake_internet
from aviary_test import IN_VM, contains, equal, ok, wait_for
from fake_internet import CGNAT, HOME, PRIVATE, PUBLIC, RESOLVER, UPLINK
from ordinary_user import programs_for_everybody

UID = 54322
BUILD = os.environ.get("AVIARY_BUILD", "build")


def with_tun():
    """Starts this test again where /dev/net/tun can be opened by everybody, as on most machines."""
    if "AVIARY_TEST_TUN" in os.environ or os.stat("/dev/net/tun").st_mode & 0o006 == 0o006:
        return
    where = tempfile.mkdtemp(prefix="aviary-tun-")
    os.mknod(f"{where}/tun", stat.S_IFCHR, os.makedev(10, 200))
    os.chmod(f"{where}/tun", 0o666)
    os.environ["AVIARY_TEST_TUN"] = where
    os.execvp("unshare", ["unshare", "-m", "sh", "-c",
                          'mount --bind "$AVIARY_TEST_TUN/tun" /dev/net/tun && exec "$@"', "sh", sys.executable] + sys.argv)


def attack(d, sandbox, *words):
    with open(ATTACK, "rb") as f:
        r = d.request("PUT", f"/v1/sandboxes/{sandbox}/files?path=/tmp/t30", f.read(),
                      headers={"Content-Type": "application/octet-stream"})
    ok(r.status in (200, 201, 204), f"upload: {r.status}")
    r = d.exec(sandbox, "chmod 755 /tmp/t30; /tmp/t30 " + " ".join(str(w) for w in words), timeout_sec=60)
    bad = [line for line in r["stdout"].splitlines() if line.startswith("not ok")]
    ok(r["exit_code"] == 0 and not bad and "ok 1" in r["stdout"], f"exit {r['exit_code']}: {bad} {r['stderr'][-300:]}")


def pastas(d):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().split(b"\0")
            if words[0] == b"pasta" and os.stat(f"/proc/{pid}").st_uid in (UID, 0) and b"--userns" in words:
                with open(f"/proc/{pid}/status", encoding="ascii") as f:
                    if f"Uid:\t{UID}\t" in f.read():
                        found.append(int(pid))
        except OSError:
            pass
    return found


def test_what_is_reached_and_what_not(d):
    sandbox = d.create(internet=True)["id"]
    attack(d, sandbox, "reach", PUBLIC, 80, "ipv6")
    names = d.exec(sandbox, "cat /etc/resolv.conf; getent ahostsv4 www.example")["stdout"]
    ok(("nameserver 198.1" if IN_VM else "169.254.253.53") in names and PUBLIC in names, f"names: {names!r}")
    refused = ["169.254.169.254", "0xa9fea9fe", PRIVATE, CGNAT, HOME, RESOLVER, "127.0.0.1", UPLINK, "169.254.253.1",
               "192.0.0.192", "224.0.0.1"]
    attack(d, sandbox, *[w for h in refused for w in ("refuse", h, 80)], "refuse", d.host, d.port, "refuse", UPLINK, d.port,
           "refuse", PUBLIC, 25, "udp", PRIVATE, 53)
    equal(len(pastas(d)), 1, "processes of pasta")
    d.delete(sandbox)
    wait_for(lambda: not pastas(d), 10, "pasta ends with the sandbox")


def test_a_new_worker_ends_it_too(d):
    sandbox = d.create(internet=True)["id"]
    before = d.pids()["worker"]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: d.pids().get("worker") not in (None, before) and
             d.request("GET", "/ready", key=False).status == 200, 30, "a new worker")
    attack(d, sandbox, "reach", PUBLIC, 80, "refuse", PRIVATE, 80)
    d.delete(sandbox)
    wait_for(lambda: not pastas(d), 10, "pasta ends with the sandbox")


def test_it_is_started_again(d):
    """pasta is killed: access comes back, with the rules that were there."""
    sandbox = d.create(internet=True)["id"]
    for _ in range(2):
        attack(d, sandbox, "reach", PUBLIC, 80)
        before = pastas(d)
        equal(len(before), 1, "processes of pasta")
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: len(pastas(d)) == 1 and pastas(d) != before, 20, "another pasta")
        wait_for(lambda: d.exec(sandbox, f"/tmp/t30 reach {PUBLIC} 80")["exit_code"] == 0, 20, "access again")
    attack(d, sandbox, "reach", PUBLIC, 80, "ipv6", "refuse", PRIVATE, 80, "refuse", HOME, 80, "refuse", d.host, d.port)
    contains(d.log_text(), "pasta ended", "the log says so")
    d.delete(sandbox)
    wait_for(lambda: not pastas(d), 10, "pasta ends with the sandbox")


def test_off_is_the_default(d):
    sandbox = d.create()["id"]
    ok("eth0" not in d.exec(sandbox, "cat /proc/net/route")["stdout"], "it has a route")
    equal(pastas(d), [], "processes of pasta")
    d.delete(sandbox)


if os.geteuid() != 0:
    fake_internet.skip("needs root to make an internet for the test")
if not os.path.exists("/usr/bin/pasta") or not os.path.exists("/dev/net/tun"):
    fake_internet.skip("needs passt and /dev/net/tun")
USER = {"user": UID, "group": UID, "extra_groups": []}
if subprocess.run(["unshare", "-Ur", "true"], capture_output=True, check=False, cwd="/", **USER).returncode:
    fake_internet.skip("ordinary users get no user namespace here")
with_tun()
shutil.rmtree(os.environ.get("AVIARY_TEST_TUN", "/nonexistent"), ignore_errors=True)
fake_internet.make()
ATTACK = os.path.abspath(os.path.join(BUILD, "tests", "escape", "t30_internet"))
os.environ["AVIARY_BUILD_DIR"] = programs_for_everybody(*(["aviary-vm"] if IN_VM else []))
aviary_test.main(globals(), args=["--resolver", RESOLVER], popen=USER, owner=UID)
