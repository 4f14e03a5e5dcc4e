#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The daemon as a program: options, first start, files it leaves for clients, start, stop, memory."""

import json
import os
import shutil
import signal
import stat
import subprocess
import time

import ws
from aviary_test import Daemon, Skip, Stopwatch, contains, equal, main, nothing_left, ok, program, wait_for


def aviaryd(*args, env=None):
    return subprocess.run([program("aviaryd"), *args], capture_output=True, text=True, timeout=30,
                          env={**os.environ, **(env or {})}, check=False)


def test_help_and_version(_d):
    r = aviaryd("--help")
    equal((r.returncode, r.stderr), (0, ""), "help")
    contains(r.stdout, "--listen ADDRESS:PORT", "options are listed")
    ok("spawn-socket" not in r.stdout, "not those between our own programs")
    r = aviaryd("--version")
    ok(r.returncode == 0 and r.stdout.startswith("aviaryd "), "version")


def test_wrong_options(d):
    conf = os.path.join(d.dir, "test.conf")
    with open(conf, "w", encoding="utf-8") as f:
        f.write("# ours\nlisten = 127.0.0.1:0\nlog-levle = debug\n")
    for args, part in ((["--nonsense"], "unknown option --nonsense"), (["--listen"], "needs a value"),
                       (["--listen", "0.0.0.0:1"], "--insecure-http"),
                       (["--listen", "example.com:1"], "is not an address"),
                       (["--config", conf], f"{conf}:3: unknown key 'log-levle' (did you mean 'log-level'?)"),
                       (["--config", "/nonexistent"], "cannot read the configuration file"),
                       (["--log-format", "xml"], "neither text nor json"),
                       (["--state", "relative"], "absolute path"), (["--user", "no-such-user"], "user")):
        r = aviaryd(*args)
        equal(r.returncode, 2, f"exit status for {args}")
        contains(r.stderr, part, f"message for {args}")
        equal(r.stderr.count("\n"), 1, "one line")


def test_credentials(d):
    mode = os.stat(d.credentials)
    equal(stat.S_IMODE(mode.st_mode), 0o600, "mode of the file")
    equal(mode.st_uid, os.geteuid(), "owner of the file")
    with open(d.credentials, encoding="utf-8") as f:
        text = json.load(f)
    equal(text["url"], d.url, "url")
    ok(text["api_key"].startswith("av_") and len(text["api_key"]) == 43, "key")


def test_not_ready_before_the_first_template(_d):
    """A create waits for it; who asks before is told."""
    own = Daemon(env={"AVIARY_FAILPOINT": "host_template_built=sleep:2500"})
    own.templates = None  # none that is ready
    try:
        own.start(ready=False)
        r = own.request("GET", "/ready", key=False)
        equal((r.status, r.code), (503, "host_unavailable"), "at first")
        contains(r.message, "template host", "why")
        sandbox = own.create()["id"]
        wait_for(lambda: own.request("GET", "/ready", key=False).status == 200, 5, "ready")
        contains(own.log_text(), "made template host", "the log")
        own.delete(sandbox)
        own.stop()
    finally:
        own.sweep()
        own.remove_dir()


def test_credentials_of_a_daemon_gone_bad(_d):
    """The supervisor neither waits for them nor takes more than belongs there."""
    own = Daemon()
    fake, keys = os.path.join(own.dir, "fake"), os.path.join(own.dir, "keys.json")
    os.chmod(own.dir, 0o755)
    try:
        for script, wait, written in (("printf good >&3; exec 3>&-; exec sleep 60", 5, "good"),
                                      ("printf last >&3; sleep 0.1; exit 78", 5, "last"),
                                      ("printf half >&3; exec sleep 60", 5.5, None),
                                      ("printf '%0600d' 0 >&3; exec 3>&-; exec sleep 60", 0.5, None)):
            with open(fake, "w", encoding="ascii") as f:
                f.write(f"#!/bin/sh\n{script}\n")
            os.chmod(fake, 0o755)
            with subprocess.Popen([program("aviary-spawn"), "--state", own.state, "--run", own.run, "--daemon", fake,
                                   "--credentials", keys], stderr=subprocess.DEVNULL) as p:
                try:
                    if written:
                        wait_for(lambda: os.path.exists(keys), wait, f"credentials after {script}")
                        with open(keys, encoding="ascii") as f:
                            equal(f.read(), written, script)
                        os.unlink(keys)
                    else:
                        time.sleep(wait)
                    with Stopwatch() as watch:
                        p.terminate()
                        ok(p.wait(10) in (0, 78), f"exit status after {script}: {p.returncode}")
                    ok(watch.seconds < 3, f"it stops at once after {script}")
                    ok(not os.path.exists(keys), f"nothing else is written after {script}")
                finally:
                    p.kill()
    finally:
        own.sweep()
        own.remove_dir()


def test_url_file(d):
    path = os.path.join(d.run, "url")
    with open(path, encoding="ascii") as f:
        equal(f.read().strip(), d.url, "url")
    equal(stat.S_IMODE(os.stat(path).st_mode), 0o644, "mode")


def test_who_runs_it(d):
    pids = d.pids()
    with open(f"/proc/{pids['daemon']}/status", encoding="ascii") as f:
        status = {name: value.strip() for name, _, value in (line.partition(":") for line in f)}
    if os.geteuid() == 0:
        ok("0" not in status["Uid"].split(), f"not root: {status['Uid']}")
        ok("0" not in status["Gid"].split() and not status["Groups"].split(), "no groups of root's")
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        equal(int(status[name], 16), 0, name)
    equal(status["NoNewPrivs"], "1", "no new privileges")


def test_idle_memory(d):
    sb = d.create()["id"]
    d.exec(sb, "true")
    d.delete(sb)
    kib = d.rss_kib()
    print(f"# resident memory of the daemon: {kib} KiB")
    d.memory_within(0, 8192)


def test_own_daemon_with_json_log_and_file(_d):
    own = Daemon(args=["--log-format", "json"])
    with open(os.path.join(own.dir, "own.conf"), "w", encoding="utf-8") as f:
        f.write("log-level = warn\n")
    own.args += ["--config", os.path.join(own.dir, "own.conf")]
    try:
        own.start()
        for line in own.log_text().splitlines():
            ok(isinstance(json.loads(line), dict), f"a line of JSON: {line}")
        equal(own.stop(), 0, "exit status")
        nothing_left(own)
    finally:
        own.kill()
        own.remove_dir()


def test_second_daemon_on_the_same_state_is_refused(d):
    r = aviaryd("--state", d.state, "--run", d.run, "--listen", "127.0.0.1:0", "--config", "/dev/null")
    ok(r.returncode != 0, "refused")
    ok(r.stderr.strip(), "and says why")
    d.expect(200, "GET", "/ready", key=False)


def test_address_in_use(d):
    own = Daemon()
    try:
        r = aviaryd("--state", own.state, "--run", own.run, "--listen", f"{d.host}:{d.port}", "--config",
                    "/dev/null", "--credentials", own.credentials)
        equal(r.returncode, 78, "it gives up instead of trying for ever")
        contains(r.stderr, f"--listen {d.host}:{d.port}", "and says why")
    finally:
        own.sweep()
        own.remove_dir()


def test_state_below_a_closed_directory(_d):
    """As of mktemp -d: root gets there, the daemon's user does not."""
    if os.geteuid() != 0:
        raise Skip("needs root, which starts the daemon as another user")
    own = Daemon()
    try:
        os.chmod(own.dir, 0o700)
        r = aviaryd("--state", own.state, "--run", own.run, "--listen", "127.0.0.1:0", "--config", "/dev/null",
                    "--credentials", own.credentials)
        equal(r.returncode, 78, "it gives up instead of trying for ever")
        contains(r.stderr, f"`chmod o+x {own.dir}`", "and says what to do")
    finally:
        own.sweep()
        own.remove_dir()


def test_the_home_of_a_new_user(_d):
    """Nothing is in it yet, not even ~/.config."""
    own = Daemon()
    state, run = os.path.join(own.dir, ".local", "state", "aviary"), os.path.join(own.dir, "new", "run")
    credentials = os.path.join(own.dir, ".config", "aviary", "credentials.json")
    own.state, own.run, own.credentials, own.templates = state, run, credentials, None
    own.args += ["--credentials", credentials]
    try:
        own.start()
        equal(stat.S_IMODE(os.stat(credentials).st_mode), 0o600, "the key is written")
        equal(stat.S_IMODE(os.stat(os.path.dirname(credentials)).st_mode), 0o700, "for its owner")
        equal(own.expect(200, "GET", "/v1/sandboxes").json(), [], "and is good")
        own.stop()
    finally:
        own.sweep()
        own.remove_dir()


def test_files_of_somebody_else(_d):
    """It says what is wrong with which file and gives up, and works once that is mended."""
    if os.geteuid() != 0:
        raise Skip("needs root, to give files away")
    own = Daemon()
    db = os.path.join(own.state, "db", "aviary.db")

    def start():
        return aviaryd("--state", own.state, "--run", own.run, "--listen", "127.0.0.1:0", "--config", "/dev/null",
                       "--credentials", own.credentials)
    try:
        own.start()
        aviary = shutil.copy(program("aviary"), os.path.join(own.dir, "aviary"))  # the build may be out of that user's reach
        r = subprocess.run([aviary, "ls"], capture_output=True, text=True, timeout=30, user=65534,
                           env={"PATH": os.environ["PATH"], "AVIARY_CONFIG_DIR": os.path.dirname(own.credentials)},
                           check=False)
        equal(r.returncode != 0, True, "credentials of somebody else")
        contains(r.stderr, "Permission denied", "the reason")
        contains(r.stderr, os.path.dirname(own.credentials), "the file")
        equal(own.stop(), 0, "exit status")
        was = os.stat(db)
        os.chown(db, 0, 0)
        r = start()
        equal(r.returncode, 78, f"a database of root's: {r.stderr}")
        contains(r.stderr, f"{db}, which must be a plain file of user {was.st_uid}", "the file and the cure")
        os.chown(db, was.st_uid, was.st_gid)
        for path in (own.state, own.run):
            os.chown(path, 65534, 65534)
            r = start()
            ok(r.returncode != 0, f"{path} of another user")
            contains(r.stderr, f"{path} belongs to user 65534", "the directory and whose it is")
            os.chown(path, 0, 0)
            os.chmod(path, 0o777)
        own.start()
        for path in (own.state, own.run):
            equal(stat.S_IMODE(os.stat(path).st_mode) & 0o022, 0, f"nobody else may write {path} any more")
        equal(own.stop(), 0, "exit status")
        nothing_left(own)
    finally:
        own.sweep()
        own.remove_dir()


def test_stop_and_start_again(d):
    sb = d.create()["id"]
    key, url = d.key, d.url
    p = d.expect(202, "POST", f"/v1/sandboxes/{sb}/exec",
                 {"cmd": "sleep", "args": ["1000"], "background": True}).json()
    start = time.monotonic()
    equal(d.stop(), 0, "exit status")
    ok(time.monotonic() - start < 10, "within seconds")
    d.start()
    equal((d.key, d.url), (key, url), "same key, same URL")
    listed = d.expect(200, "GET", f"/v1/sandboxes/{sb}/processes").json()["processes"]
    ok(any(x["pid"] == p["pid"] for x in listed), "its process never noticed")
    d.delete(sb)


def test_stop_ends_streams_with_a_message(d):
    sb = d.create()["id"]
    s = ws.WebSocket(d.host, d.port, f"/v1/sandboxes/{sb}/exec/stream", headers={"X-API-Key": d.key})
    s.send_json({"type": "start", "cmd": "sleep", "args": ["100"]})
    equal(s.recv_json()["type"], "start", "started")
    os.kill(d.process.pid, signal.SIGTERM)
    last = s.recv_json()
    equal(last["type"], "error", "a definite last message")
    ok(last["data"], "with a reason")
    equal(s.recv_json(), None, "then the close")
    equal(d.process.wait(30), 0, "exit status")
    d.process.stdout.close()
    d.start()
    d.delete(sb)


def test_daemon_is_started_again(d):
    before = d.pids()["daemon"]
    os.kill(before, signal.SIGKILL)

    def again():
        try:
            return d.pids().get("daemon", before) != before and \
                d.request("GET", "/ready", key=False).status == 200
        except OSError:
            return False

    wait_for(again, 15, "a new daemon at the same URL")
    sb = d.create()["id"]
    d.delete(sb)


main(globals())
