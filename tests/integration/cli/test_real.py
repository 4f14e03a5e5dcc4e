#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line against a real daemon: what a user does on the first day"""

import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time

from aviary_test import Skip, contains, equal, main, ok, program, wait_for

AVIARY = program("aviary")


def command(d, args, **kwargs):
    return subprocess.Popen([AVIARY, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={"PATH": os.environ["PATH"], "AVIARY_URL": d.url,
                                 "AVIARY_API_KEY": d.key}, **kwargs)


def aviary(d, *args, code=0, stdin=b""):
    p = command(d, args, stdin=subprocess.PIPE)
    out, err = p.communicate(stdin, timeout=50)
    equal(p.returncode, code, f"exit status of {args}: {err}")
    return out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "surrogateescape")


def ids(d):
    return aviary(d, "ls", "-q")[0].split()


def test_run(d):
    out, _ = aviary(d, "run", "--", "sh", "-c", "id -u; hostname; echo $0; exit 7", code=7)
    equal(out.split()[0], "0", "user inside")
    aviary(d, "run", "no-such-program", code=127)
    aviary(d, "run", "/etc/passwd", code=126)
    aviary(d, "run", "sh", "-c", "kill -TERM $$", code=143)
    aviary(d, "run", "--timeout", "300ms", "sleep", "60", code=124)
    aviary(d, "run", "--template", "nosuch", "true", code=125)
    equal(ids(d), [], "sandboxes left")


def test_environment_and_directory(d):
    out, _ = aviary(d, "run", "-e", "A=b c", "-w", "/tmp", "sh", "-c", 'echo "$A,$PWD"')
    equal(out, "b c,/tmp\n", "environment and directory")


def test_input_and_output_of_any_size(d):
    data = os.urandom(20 << 20)
    p = command(d, ["run", "-i", "cat"], stdin=subprocess.PIPE)
    out, err = p.communicate(data, timeout=50)
    equal((p.returncode, err), (0, b""), "cat")
    equal(hashlib.sha256(out).digest(), hashlib.sha256(data).digest(), "what came back")


def test_interrupted_run_leaves_nothing(d):
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        p = command(d, ["run", "sh", "-c", "echo ready; exec sleep 60"], stdin=subprocess.DEVNULL)
        equal(p.stdout.readline(), b"ready\n", "started")
        p.send_signal(sig)
        equal(p.wait(20), 128 + sig, "exit status")
        p.communicate()
        equal(ids(d), [], "sandboxes left")


def test_killed_run_ends_its_process(d):
    p = command(d, ["run", "--name", "orphan", "sh", "-c", "echo ready; sleep 60"],
                stdin=subprocess.DEVNULL)
    equal(p.stdout.readline(), b"ready\n", "started")
    p.kill()
    p.communicate()
    wait_for(lambda: "sleep" not in aviary(d, "ps", "orphan")[0], 10, "process inside ended")
    got = json.loads(aviary(d, "ls", "--json", "--metadata", "name=orphan")[0])[0]
    equal((got["timeout_sec"], got["on_timeout"]), (60, "delete"), "the daemon will delete what is left")
    aviary(d, "rm", "orphan")


def test_pause_and_resume(d):
    aviary(d, "create", "--name", "nap", "--tag", "a", "--tag", "b", "--idle-timeout", "1h", "--on-timeout", "delete",
           "--auto-resume", "--public-port", "8080", "--lifetime", "2h")
    aviary(d, "create", "--name", "other", "--tag", "a")
    if b"freezer" in subprocess.run([AVIARY, "pause", "nap"], env={"AVIARY_URL": d.url, "AVIARY_API_KEY": d.key},
                                    stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, check=False).stderr:
        raise Skip("nothing can be paused here")
    contains(aviary(d, "ls")[0], "paused", "ls")
    got = json.loads(aviary(d, "ls", "--json", "--status", "paused", "--tag", "a", "--tag", "b")[0])
    equal([(s["metadata"]["name"], s["tags"], s["timeout_sec"], s["max_lifetime_sec"], s["on_timeout"],
            s["auto_resume"], s["public_ports"]) for s in got],
          [("nap", ["a", "b"], 3600, 7200, "delete", True, [8080])], "what was asked for")
    equal(len(aviary(d, "ls", "-q", "--tag", "a")[0].split()), 2, "both have the tag")
    contains(aviary(d, "pause", "nap", code=125)[1], "not running", "twice")
    aviary(d, "resume", "nap")
    equal(len(aviary(d, "ls", "-q", "--status", "running,paused", "--tag", "a")[0].split()), 2, "states")
    aviary(d, "pause", "nap")
    aviary(d, "exec", "nap", "true")
    contains(aviary(d, "resume", "nap", "nobody", code=125)[1], "nobody", "what is not there is named")
    contains(aviary(d, "ls", "--status", "asleep", code=125)[1], "asleep", "a bad state")
    contains(aviary(d, "create", "--on-timeout", "sleep", code=2)[1], "pause", "a bad word")
    contains(aviary(d, "create", "--public-port", "0", code=2)[1], "65535", "a bad port")
    aviary(d, "rm", "nap", "other")
    ok(len(aviary(d, "ls", "-q", "--all", "--tag", "b")[0].split()) >= 1, "the past")


def test_isolation(d):
    """What holds with and without virtual machines on this machine: nothing is built here."""
    contains(aviary(d, "run", "--isolation", "gas", "true", code=2)[1], "'jail'", "no such isolation")
    contains(aviary(d, "run", "--isolation", "vm", "true", code=125)[1], "isolation vm", "it says what is missing")
    contains(aviary(d, "run", "--isolation", "vm", "--template", "host", "true", code=125)[1], "only a jail", "not of this machine's programs")
    equal(aviary(d, "run", "--isolation", "jail", "echo", "x")[0], "x\n", "a jail by its name")
    state = json.loads(command(d, ["vm", "status", "--json"], stdin=subprocess.DEVNULL).communicate(timeout=30)[0])
    jail, vm = state["isolations"]
    equal((jail["name"], jail["available"], jail["speed"], jail["is_default"], jail["missing"]), ("jail", True, "native", True, []), "the jail")
    equal(sorted(vm["missing"]), ["base", "vm-kernel"], "nothing is built here")
    out = aviary(d, "vm", "status", code=0 if vm["available"] else 125)[0]
    contains(out, "missing: 'aviary vm setup'", "in words")
    contains(out, "can be made" if vm["available"] else vm["reason"], "whether, or why not")
    if not vm["available"]:
        contains(aviary(d, "vm", "setup", code=125)[1], vm["reason"][:40], "nothing to set up")
    aviary(d, "create", "--name", "plain")
    contains(aviary(d, "fork", "plain", code=125)[1], "is a jail", "what cannot be forked")
    contains(aviary(d, "fork", "-n", "101", "plain", code=125)[1], "100", "too many")
    aviary(d, "exec", "plain", "sh", "-c", "echo 1 >/root/x")
    aviary(d, "snapshot", "create", "plain", "then", "--resume")
    aviary(d, "exec", "plain", "sh", "-c", "echo 2 >/root/x")
    aviary(d, "snapshot", "rollback", "plain", "then")
    equal(aviary(d, "exec", "plain", "cat", "/root/x")[0], "1\n", "as it was")
    contains(aviary(d, "snapshot", "rollback", "plain", "never", code=125)[1], "never", "no such snapshot")
    aviary(d, "rm", "plain")
    aviary(d, "snapshot", "rm", "then")


def test_doctor(d):
    """What a first machine would show is not known yet; what is missing has a name."""
    vm = d.expect(200, "GET", "/v1/isolations").json()["isolations"][1]
    report = json.loads(aviary(d, "doctor", "--json")[0])
    equal(report["isolation"], {"jail": True, "vm": vm["available"]}, "as the daemon has it")
    equal({"kvm", "vm_programs", "vm_memory"} - {f["name"] for f in report["facts"]}, set(), "facts about machines")
    if vm["available"]:
        equal(report["vm"]["speed"], vm["speed"], "the same word for the speed")
        contains(report["vm"]["cure"], "vm-kernel", "what is not built")
    else:
        contains(report["vm"]["reason"], vm["reason"][:60], "why there are none")
    contains(aviary(d, "doctor")[0], report["vm"]["found"], "in words")


def test_closed_output(d):
    p = command(d, ["run", "yes"], stdin=subprocess.DEVNULL)
    equal(p.stdout.read(2), b"y\n", "output")
    p.stdout.close()
    equal(p.wait(20), 141, "exit status")
    equal(p.stderr.read(), b"", "messages")
    equal(ids(d), [], "sandboxes left")


def test_terminal(d):
    out, _ = aviary(d, "run", "-t", "sh", "-c", "test -t 0 && test -t 1 && stty size")
    equal(out, "24 80\r\n", "size of the terminal inside")


def test_create_exec_background(d):
    aviary(d, "create", "--name", "work", "--memory", "256M", "--cpus", "0.5")
    contains(aviary(d, "ls")[0], "256", "table")
    pid, tag = aviary(d, "exec", "-d", "--tag", "job", "work", "sleep", "60")[0].split()
    equal(tag, "job", "tag")
    contains(aviary(d, "ps", "work")[0], "job", "processes")
    equal(aviary(d, "ps", "-q", "work")[0], pid + "\n", "pids only")
    aviary(d, "exec", "work", "kill", pid)
    aviary(d, "logs", "work", "nosuch", code=125)
    aviary(d, "exec", "-d", "work", "nosuch", code=127)
    aviary(d, "exec", "sb" + "0" * 25, "true", code=125)


def test_logs(d):
    pid, _ = aviary(d, "exec", "-d", "--tag", "talk", "work", "sh", "-c",
                    "echo one; sleep 1; echo two; exec sleep 60")[0].split()
    wait_for(lambda: aviary(d, "logs", "work")[0] == "one\ntwo\n", 20, "output so far")
    equal(aviary(d, "logs", "work", pid)[0], "one\ntwo\n", "output so far, by pid")
    p = command(d, ["logs", "-f", "work", "talk"], stdin=subprocess.DEVNULL)
    time.sleep(0.5)
    aviary(d, "exec", "work", "kill", pid)
    out, _ = p.communicate(timeout=20)
    equal((out, p.returncode), (b"one\ntwo\n", 0), "followed to the end")


def test_events(d):
    def opened(n):
        return d.metrics()["aviary_event_streams_open"] == n
    people = command(d, ["events", "work", "-e", "capsule.pause", "-e", "capsule.resume"], stdin=subprocess.DEVNULL)
    lines = command(d, ["events", "--json"], stdin=subprocess.DEVNULL)
    wait_for(lambda: opened(2), 20, "both follow")
    aviary(d, "pause", "work")
    contains(people.stdout.readline().decode(), "capsule.pause", "for people")
    first = json.loads(lines.stdout.readline())
    equal((first["event"], first["metadata"]["to"]), ("capsule.state.changed", "paused"), "an object a line")
    os.kill(d.pids()["daemon"], signal.SIGKILL)
    wait_for(lambda: is_up(d) and opened(2), 30, "they come back")
    aviary(d, "resume", "work")
    text = people.stdout.readline().decode()
    contains(text, "capsule.resume", "it goes on")
    contains(text, "by admin", "and says who did it")
    for p in (people, lines):
        p.send_signal(signal.SIGINT)
        err = p.communicate(timeout=20)[1].decode()
        equal(p.returncode, 130, "interrupted")
        contains(err, "restarted", "what is missing is said")
    contains(aviary(d, "events", "-e", "nonsense", code=125)[1], "capsule.create", "what there is")
    aviary(d, "events", "nosuch", code=125)


def is_up(d):
    try:
        return d.request("GET", "/ready", key=False).status == 200
    except OSError:
        return False


def test_copy(d):
    box, _ = aviary(d, "create", "-q", "--name", "copy")
    with tempfile.TemporaryDirectory() as local:
        tree = os.path.join(local, "tree")
        os.makedirs(os.path.join(tree, "sub"))
        with open(os.path.join(tree, "sub", "big"), "wb") as f:
            f.write(os.urandom(5 << 20))
        with open(os.path.join(tree, "script"), "w", encoding="ascii") as f:
            f.write("#!/bin/sh\necho works\n")
        os.chmod(os.path.join(tree, "script"), 0o755)
        os.symlink("sub/big", os.path.join(tree, "link"))
        aviary(d, "cp", tree, "copy:/root/tree")
        equal(aviary(d, "exec", box[:8], "/root/tree/script")[0], "works\n", "script inside")
        aviary(d, "cp", "copy:/root/tree", os.path.join(local, "back"))
        subprocess.run(["diff", "-r", "--no-dereference", tree, os.path.join(local, "back")],
                       check=True)
        aviary(d, "cp", os.path.join(tree, "script"), "copy:other")
        equal(aviary(d, "exec", "copy", "stat", "-c", "%a", "/root/other")[0], "755\n", "mode")
        aviary(d, "cp", "-", "copy:piped", stdin=b"from a pipe")
        equal(aviary(d, "cp", "copy:piped", "-")[0], "from a pipe", "content")
        aviary(d, "cp", "copy:nosuch", local, code=125)
        ok(not os.path.exists(os.path.join(local, "nosuch")), "no half files")


def test_rm_all(d):
    aviary(d, "rm", "--all")
    equal(ids(d), [], "sandboxes left")


def test_url(d):
    sid = d.create(public_ports=[81])["id"]
    url = aviary(d, "url", sid, "80", "--path", "/x", "--expires", "2m")[0].strip()
    ok(url.startswith(f"http://80-{sid}.localhost:{d.port}/x?aviary_token="), url)
    equal(aviary(d, "url", sid, "81")[0], f"http://81-{sid}.localhost:{d.port}/\n", "a public port")
    equal(aviary(d, "url", sid, "80", "--public")[0], f"http://80-{sid}.localhost:{d.port}/\n", "made public")
    equal(d.expect(200, "GET", f"/v1/sandboxes/{sid}").json()["public_ports"], [81, 80], "beside the other")
    contains(aviary(d, "url", sid, "80", "--private")[0], "aviary_token=", "and taken back")
    equal(d.expect(200, "GET", f"/v1/sandboxes/{sid}").json()["public_ports"], [81], "only that")
    d.delete(sid)


def test_keys(d):
    secret, _ = aviary(d, "keys", "create", "ci", "--expires", "2h", "--scope", "sandboxes:*", "--quota", "sandboxes=1",
                       "--quota", "memory=1G")
    ok(secret.startswith("av_") and len(secret) == 44, "standard output is the secret")
    key = [k for k in json.loads(aviary(d, "keys", "ls", "--json")[0]) if k["name"] == "ci"][0]
    equal((key["scopes"], key["quota"]["sandboxes"], key["quota"]["memory_mb"]),
          (["sandboxes:read", "sandboxes:write"], 1, 1024), "as asked for")
    table = aviary(d, "keys", "ls")[0]
    for part in ("ci", "sandboxes 1, memory 1.0 GiB", key["key_prefix"], "sandboxes:read sandboxes:write"):
        contains(table, part, "the table")
    fresh = aviary(d, "keys", "rotate", "ci", "--grace", "1m")[0]
    ok(fresh != secret, "another secret")
    contains(aviary(d, "keys", "rm", "ci", code=125)[1], "2 keys are called so", "which one?")
    aviary(d, "keys", "rm", *[k["id"] for k in json.loads(aviary(d, "keys", "ls", "--json")[0]) if k["name"] == "ci"])
    contains(aviary(d, "keys", "create", "--quota", "gpus=1", code=2)[1], "no quota", "a quota that there is not")
    contains(aviary(d, "keys", "make", code=2)[1], "ls, create, rotate or rm", "verbs")


def test_teams_and_limits(d):
    team = aviary(d, "teams", "create", "cli team")[0].strip()
    contains(aviary(d, "teams", "ls")[0], "cli team", "listed")
    contains(aviary(d, "teams", "ls", "-q")[0].split(), team, "ids only")
    equal(aviary(d, "teams", "ls", "--json")[0], d.expect(200, "GET", "/v1/teams").body.decode() + "\n", "as the daemon said it")
    aviary(d, "teams", "quota", "cli team", "sandboxes=3", "memory=2G", "creates=none")
    contains(aviary(d, "teams", "ls", "--all")[0], "sandboxes 3, memory 2.0 GiB", "its quota")
    contains(aviary(d, "teams", "rm", team, code=125)[1], "switch", "the key is for another team")
    aviary(d, "teams", "rm", "--all", team)
    aviary(d, "teams", "rename", "home")
    out, _ = aviary(d, "teams", "show")
    contains(out, "home", "the team of the key")
    contains(out, "owner", "and its people")
    me = json.loads(aviary(d, "teams", "members", "--json")[0])[0]
    contains(aviary(d, "teams", "role", me["user_id"], "member", code=125)[1], "owner", "the owner stays that")
    contains(aviary(d, "teams", "add", "nobody@example.com", code=125)[1], "no active user", "who is not there")
    contains(aviary(d, "teams", "remove", "nobody@example.com", code=125)[1], "nobody in the team", "nor in the team")
    table = aviary(d, "limits")[0]
    for part in ("memory_mb_max", "create_body", "api_keys"):
        contains(table, part, "limits")
    ok(json.loads(aviary(d, "limits", "--json")[0])["limits"], "as JSON")


main(globals())
