#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The whole thing as an ordinary user: one uid, no cgroups of its own, disk in memory, and it says so."""
import os
import shutil
import subprocess

import aviary_test
from aviary_test import contains, equal, ok, program, wait_for
from ordinary_user import as_user, main

def cli(d, *words, check=True):
    env = {k: v for k, v in os.environ.items() if not k.startswith("AVIARY_")}
    env.update({"AVIARY_URL": d.url, "AVIARY_CONFIG_DIR": os.path.join(d.dir, "config"), "HOME": d.dir})
    r = subprocess.run([program("aviary"), *words], capture_output=True, text=True, env=env, timeout=60,
                       cwd="/", check=False, **as_user())
    if check:
        equal(r.returncode, 0, f"aviary {' '.join(words)}: {r.stderr}")
    return r


def test_root_of_a_little_world(d):
    sandbox = d.create()["id"]
    out = d.exec(sandbox, "id -u; cat /proc/1/cmdline | tr '\\0' ' '; echo; ls /proc | grep -c '^[0-9]'; hostname")["stdout"]
    lines = out.splitlines()
    equal(lines[0], "0", "uid inside")
    contains(lines[1], "aviary-agent", "process 1")
    ok(int(lines[2]) < 10, "only own processes")
    d.delete(sandbox)


def test_pause_or_the_reason_why_not(d):
    """With cgroups of its own a sandbox is paused; without, that is said, and idleness deletes."""
    sandbox = d.create()["id"]
    r = d.request("POST", f"/v1/sandboxes/{sandbox}/pause")
    if r.status == 200:
        d.expect(200, "POST", f"/v1/sandboxes/{sandbox}/resume")
        equal(d.exec(sandbox, "echo awake")["stdout"], "awake\n", "after the resume")
    else:
        equal((r.status, r.code), (501, "unsupported"), "pause")
        contains(r.message, "doctor", "and where to look")
        d.expect(200, "PATCH", f"/v1/sandboxes/{sandbox}", {"timeout_sec": 0.3})
        wait_for(lambda: d.expect(200, "GET", f"/v1/sandboxes/{sandbox}").json().get("reason") == "timeout", 20,
                 "idle: deleted, as it cannot be paused")
    d.delete(sandbox)


def test_work_files_and_limits(d):
    sandbox = d.create(disk_mb=32)["id"]
    r = d.exec(sandbox, "cd /root && echo hello >a && cat a && python3 -c 'print(6*7)'")
    equal(r["stdout"], "hello\n42\n", "work inside")
    r = d.exec(sandbox, "head -c 200M /dev/zero >/root/fill; echo $?; rm /root/fill")
    ok(not r["stdout"].startswith("0"), f"the disk has no limit: {r}")
    r = d.request("PUT", f"/v1/sandboxes/{sandbox}/files?path=/tmp/x", b"up",
                  headers={"Content-Type": "application/octet-stream"})
    ok(r.status in (200, 201, 204), f"upload: {r.status} {r.body}")
    equal(d.exec(sandbox, "cat /tmp/x")["stdout"], "up", "uploaded")
    d.delete(sandbox)


def test_port(d):
    sandbox = d.create(public_ports=[8000])["id"]
    d.exec(sandbox, "cd /tmp && echo served >page && { python3 -m http.server 8000 --bind 127.0.0.1 >/dev/null 2>&1 & }")

    def page():
        r = d.request("GET", "/page", headers={"Host": f"8000-{sandbox}.localhost:{d.port}"}, key=False)
        ok(r.status in (200, 502), f"{r.status} {r.body}")
        return r.body if r.status == 200 else None

    equal(aviary_test.wait_for(page, 20, "the server answers"), b"served\n", "through the proxy")
    d.delete(sandbox)


def test_nothing_of_the_user_is_inside(d):
    secret = os.path.join(d.dir, "secret")
    with open(secret, "w", encoding="ascii") as f:
        f.write("mine")
    os.chmod(secret, 0o644)
    sandbox = d.create()["id"]
    r = d.exec(sandbox, f"cat {secret} /proc/1/root{secret} 2>/dev/null; ls {d.dir} 2>/dev/null; true")
    equal(r["stdout"], "", "what a sandbox sees of the user's files")
    d.delete(sandbox)


def test_command_line(d):
    r = cli(d, "run", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    equal((r.stdout, r.returncode), ("out\n", 7), "aviary run")
    contains(r.stderr, "err", "standard error")


def test_doctor_says_what_is_weaker(d):
    text = cli(d, "doctor", check=False).stdout.lower()
    for word in ("root", "sudo", "disk"):
        contains(text, word, "doctor")
    ok("tmpfs" in text or "memory" in text, f"the disk lies in memory: {text}")


def test_backup_and_restore(d):
    """By the user who runs it; what was made without root is not restored with it."""
    sandbox = d.create()["id"]
    equal(d.exec(sandbox, "mkdir /root/w; cd /root/w; echo x >a; ln a b; chmod 0 a; mkdir -m 0 closed; mkfifo p")["exit_code"],
          0, "files that an ordinary user could not read")
    d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sandbox, "name": "kept", "stop": True})
    file = os.path.join(d.dir, "b.tar.zst")
    cli(d, "backup", file)
    other = aviary_test.Daemon(popen=d.popen, owner=d.popen.get("user"))
    try:
        if os.geteuid() == 0:
            r = subprocess.run([program("aviary"), "restore", file, "--state", os.path.join(other.dir, "root")],
                               capture_output=True, timeout=60, check=False)
            ok(r.returncode != 0 and b"as an ordinary user" in r.stderr, f"root is told: {r.stderr!r}")
        cli(d, "restore", file, "--state", other.state)
        os.makedirs(os.path.dirname(other.credentials))
        shutil.copy(d.credentials, other.credentials)
        for path in (os.path.dirname(other.credentials), other.credentials):
            os.chown(path, os.stat(d.credentials).st_uid, -1)
        other.start()
        again = other.create(template="kept")["id"]
        equal(other.exec(again, "cd /root/w; cat a; stat -c '%a %h' a closed; test -p p")["stdout"], "x\n0 2\n0 2\n",
              "the files are there")
        other.delete_all()
        other.stop()
    finally:
        other.sweep()
        other.remove_dir()
    d.expect(204, "DELETE", "/v1/snapshots/kept")


def test_many(d):
    ids = [d.create()["id"] for _ in range(10)]
    for i in ids:
        equal(d.exec(i, "echo $$ >/dev/null; echo y")["stdout"], "y\n", "one of ten")
    for i in ids:
        d.delete(i)


main(globals())
