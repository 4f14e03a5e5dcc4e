#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The daemon as a service: what systemd is told, signals, logs that keep secrets, one daemon per directory."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.parse

from aviary_test import SLOW, Daemon, Skip, contains, equal, main, nothing_left, ok, program, wait_for

WATCHDOG_S = 2 * max(1.0, SLOW)


class Manager:
    """Stands in for systemd: a datagram socket of an abstract name, and what came over it."""

    def __init__(self, daemon):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = f"aviary-test-{os.getpid()}-{id(self)}"
        self.socket.bind("\0" + name)
        self.socket.setblocking(False)
        self.messages = []
        daemon.env.update(NOTIFY_SOCKET="@" + name, WATCHDOG_USEC=str(int(WATCHDOG_S * 1e6)))

    def read(self):
        """Everything that came since the last call, as a list of dicts."""
        new = []
        while True:
            try:
                text = self.socket.recv(4096).decode()
            except BlockingIOError:
                break
            new.append(dict(line.split("=", 1) for line in text.split("\n")))
        self.messages += new
        return new

    def wait(self, key, what, timeout_s=20):
        return wait_for(lambda: [m for m in self.read() if key in m], timeout_s, what)[-1]


def silence(manager, seconds):
    """Whether no WATCHDOG=1 comes for so long."""
    manager.read()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any("WATCHDOG" in m for m in manager.read()):
            return False
        time.sleep(0.05)
    return True


def test_what_systemd_is_told(_d):
    own = Daemon()
    manager = Manager(own)
    try:
        own.start()
        wait_for(lambda: manager.read() and False or any("READY" in m for m in manager.messages), 20, "READY=1")
        ready = [m for m in manager.messages if "READY" in m]
        equal(ready[0].get("MAINPID"), str(own.process.pid), "main process")
        before = manager.messages[:manager.messages.index(ready[0])]
        ok(all("EXTEND_TIMEOUT_USEC" in m for m in before if "WATCHDOG" not in m), f"before: {before}")
        manager.wait("WATCHDOG", "the watchdog is told")
        for role in ("worker", "daemon"):
            with open(f"/proc/{own.pids()[role]}/environ", "rb") as f:
                ok(b"NOTIFY_SOCKET" not in f.read(), f"{role} cannot speak for us")
        own.process.send_signal(signal.SIGHUP)
        contains(manager.wait("RELOADING", "a reload begins"), "MONOTONIC_USEC", "as newer ones want it")
        wait_for(lambda: manager.read() and False or manager.messages[-1].get("READY") or
                 [m for m in manager.messages if "READY" in m][1:], 10, "and ends")
        equal(own.request("GET", "/health", key=False).status, 200, "the daemon lives on")
        os.kill(own.pids()["daemon"], signal.SIGKILL)
        wait_for(lambda: [m for m in manager.read() if "starting it again" in m.get("STATUS", "")], 10,
                 "the end of aviaryd is told")
        wait_for(lambda: manager.read() and False or "READY" in
                 [m for m in manager.messages if "READY" in m or "again" in m.get("STATUS", "")][-1], 10,
                 "and its return")
        equal(own.stop(), 0, "exit status")
        manager.read()
        ok([m for m in manager.messages if m.get("STOPPING") == "1"], "the stop is told")
        nothing_left(own)
    finally:
        own.sweep()
        own.remove_dir()


test_what_systemd_is_told.timeout_s = 120


def test_watchdog_fails_with_what_hangs(_d):
    own = Daemon()
    manager = Manager(own)
    try:
        own.start()
        for role in ("daemon", "worker"):
            manager.wait("WATCHDOG", "all is well")
            pid = own.pids()[role]
            os.kill(pid, signal.SIGSTOP)
            try:
                wait_for(lambda: silence(manager, 1.5 * WATCHDOG_S), 30, f"silence while the {role} hangs")
            finally:
                os.kill(pid, signal.SIGCONT)
            manager.wait("WATCHDOG", f"the {role} goes on")
        contains(own.log_text(), "does not answer: the watchdog is told no more", "the log")
        equal(own.stop(), 0, "exit status")
    finally:
        own.sweep()
        own.remove_dir()


test_watchdog_fails_with_what_hangs.timeout_s = 120


def test_signals(d):
    d.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "SIGHUP: certificates are read again" in d.log_text(), 10, "SIGHUP")
    own = Daemon(args=["--log-level", "warn"])
    try:
        own.start()
        equal(own.log_text(), "", "nothing to warn of")
        own.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: "logging at debug" in own.log_text(), 10, "SIGUSR1")
        own.request("GET", "/v1/sandboxes")
        # When it is over, which may be after its answer was read.
        wait_for(lambda: "/v1/sandboxes" in own.log_text(), 10, "a request is logged")
        own.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: "as configured again" in own.log_text(), 10, "SIGUSR1 again")
        before = own.log_text()
        own.request("GET", "/v1/sandboxes")
        equal(own.log_text(), before, "nothing is logged any more")
        equal(own.stop(), 0, "exit status")
    finally:
        own.sweep()
        own.remove_dir()


SECRETS = {"env": "hunter2-in-an-environment", "argument": "hunter2-as-an-argument", "body": "hunter2-in-a-file",
           "query": "hunter2-in-a-query", "header": "hunter2-in-a-header", "output": "hunter2-in-output",
           "password": "Hunter2-is-a-password", "cookie": "hunter2-in-a-cookie", "metadata": "hunter2-in-metadata"}
HOSTILE = ("x\n2026-01-01T00:00:00.000Z error aviaryd: forged", "\x1b[2J\x1b]0;title\x07", "\u202etxt", "\u009b31m", '"},{"a":"')


def keep_and_tell(own, as_json):
    """A life of a sandbox with secrets and hostile names at every place that takes text, at level debug."""
    wrong = "av_" + "ab" * 20
    sb = own.create(envs={"TOKEN": SECRETS["env"]}, metadata={"note": SECRETS["metadata"]})["id"]
    out = own.exec(sb, f"echo {SECRETS['output']} # {SECRETS['argument']}")
    contains(out["stdout"], SECRETS["output"], "the program ran")
    head = {"Authorization": "Bearer " + SECRETS["header"], "X-API-Key": wrong, "Cookie": "session=" + SECRETS["cookie"]}
    own.request("GET", f"/v1/sandboxes/{sb}?token={SECRETS['query']}", headers=head, key=False)
    own.request("GET", f"/v1/sandboxes?signature={SECRETS['query']}")
    own.request("GET", f"/v1/no-such-place/{own.key}/{wrong}")
    own.request("PUT", f"/v1/sandboxes/{sb}/files?path=/root/{SECRETS['query']}", SECRETS["body"].encode())
    for path in ("/v1/auth/login", "/v1/auth/signup", "/v1/me/password"):
        own.request("POST", path, {"email": "a@example.com", "password": SECRETS["password"], "name": "x",
                                   "username": "xyz", "new_password": SECRETS["password"]}, key=False)
    own.request("POST", "/v1/channels", {"name": "n", "provider": "webhook", "events": ["capsule.create"],
                                         "config": {"url": f"https://user:{SECRETS['password']}@127.0.0.1:1/"}})
    for text in HOSTILE:
        own.request("POST", "/v1/sandboxes", {"template": text, "metadata": {text: text}})
        own.request("POST", f"/v1/sandboxes/{sb}/exec", {"cmd": text, "args": [text]})
        own.request("POST", "/v1/api-keys", {"name": text})
        own.request("GET", "/v1/sandboxes/" + urllib.parse.quote(text))
        own.raw(f"GET /{text} HTTP/1.1\r\nHost: x\r\nX-API-Key: {text}\r\nConnection: close\r\n\r\n".encode(), close_write=True)
    # Ends of sandboxes are told at info with what they said.
    own.exec(sb, "kill -9 -1 2>/dev/null; true")
    own.delete(sb)
    own.stop()
    log = own.log_text()
    contains(log, "/v1/sandboxes", "requests were logged")
    for what, secret in {**SECRETS, "key": own.key[3:], "a wrong key": wrong[3:]}.items():
        ok(secret not in log, f"{what} is in the log: " + next((x for x in log.splitlines() if secret in x), ""))
    with open(own.log_path, "rb") as f:
        for line in f.read().split(b"\n")[:-1]:
            ok(all(0x20 <= b < 0x7f for b in line), f"a line of printable ASCII: {line}")
            if as_json:
                ok(isinstance(json.loads(line), dict), f"a line of JSON: {line}")
            else:
                ok(re.match(rb"\d{4}-\d\d-\d\dT[\d:.]+Z (debug|info |warn |error) aviary", line), f"a line of ours: {line}")
                ok(not line.startswith(b"2026-01-01T00:00:00.000Z"), "nothing is forged")


def test_logs_keep_secrets_and_their_shape(_d):
    for form in ("text", "json"):
        own = Daemon(args=["--log-format", form])
        try:
            own.start()
            keep_and_tell(own, form == "json")
        finally:
            own.sweep()
            own.remove_dir()


test_logs_keep_secrets_and_their_shape.timeout_s = 120


def test_configuration_is_shown_and_checked(d):
    conf = os.path.join(d.dir, "shown.conf")
    with open(conf, "w", encoding="utf-8") as f:
        f.write("log-level = warn\ninternet = off\n")
    env = {**{k: v for k, v in os.environ.items() if not k.startswith("AVIARY_")}, "AVIARY_POOL": "3"}

    def config(*words, **more):
        return subprocess.run([program("aviary"), "config", *words], capture_output=True, text=True, timeout=30, check=False,
                              env={**env, **more})

    r = config("show", "--config", conf)
    equal((r.returncode, r.stderr), (0, ""), "show")
    for line in (r"pool +3 +AVIARY_POOL\n", rf"log-level +warn +{conf}:1\n", rf"internet +no +{conf}:2\n",
                 r"listen +127.0.0.1:7878 +default\n", r"domain +- +not set\n"):
        ok(re.search(line, r.stdout), f"{line} in {r.stdout}")
    shown = {o["name"]: o for o in json.loads(config("show", "--json", "--config", conf).stdout)["options"]}
    equal(shown["pool"], {"name": "pool", "value": "3", "origin": "AVIARY_POOL"}, "as JSON")
    top = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    for page, form in (("docs/configuration.md", "`{}`"), ("man/aviaryd.8", "\\-{}")):
        with open(os.path.join(top, page), encoding="utf-8") as f:
            text = f.read()
        missing = [o for o in shown if form.format(o.replace("-", "\\-") if "man" in page else o) not in text]
        equal(missing, [], f"options that {page} does not have")
    r = config("show", AVIARY_LOGLEVEL="debug", AVIARY_CONFIG_DIR=d.dir)
    contains(r.stderr, "AVIARY_LOGLEVEL is no option of aviaryd (did you mean AVIARY_LOG_LEVEL?)", "a misspelt variable")
    r = config("show", "--config", conf, AVIARY_DISK="floppy")
    equal(r.returncode, 2, "one that would not start")
    contains(r.stderr, "AVIARY_DISK: bad value for --disk: floppy", "and why, with the place")
    r = config("check", conf)
    equal((r.returncode, r.stdout), (0, f"{conf}: no mistakes\n"), "check")
    with open(conf, "w", encoding="utf-8") as f:
        f.write("lisen = 127.0.0.1:1\ndisk = floppy\n# fine\npool = many\nallow-net = 10.0.0.0/99\n")
    r = config("check", conf)
    equal((r.returncode, r.stdout.count("\n")), (2, 4), f"all mistakes: {r.stdout}")
    for part in (f"{conf}:1: unknown key 'lisen' (did you mean 'listen'?)", f"{conf}:2: bad value for --disk: floppy",
                 f"{conf}:4: 'many' is not a number", f"{conf}:5: --allow-net: '10.0.0.0/99'"):
        contains(r.stdout, part, "each with its line")


def test_memory_of_the_daemon_is_its_own(d):
    if d.sanitized():
        raise Skip("an instrumented daemon")
    pid = d.pids()["daemon"]
    with open(f"/proc/{pid}/limits", encoding="ascii") as f:
        ok(re.search(r"Max core file size +0 +0 ", f.read()), "no core file")
    if os.geteuid() == 0:
        owner = os.stat(f"/proc/{pid}/environ").st_uid
        equal(owner, 0, "its /proc is not the daemon's user's: it is not dumpable")


def test_one_daemon_per_directory(d):
    """Also of those that start at the same instant; who is refused names the other."""
    other = Daemon()
    try:
        for state, run, what in ((d.state, other.run, "--state"), (other.state, d.run, "--run")):
            r = subprocess.run([program("aviaryd"), "--state", state, "--run", run, "--listen", "127.0.0.1:0",
                                "--config", "/dev/null"], capture_output=True, text=True, timeout=30, check=False)
            equal(r.returncode, 78, "refused")
            contains(r.stderr, f"another Aviary (process {d.process.pid}) uses", f"names the other: {what}")
            contains(r.stderr, f"another {what}", "and the cure")
        argv = [program("aviary-spawn"), "--no-daemon", "--state", other.state, "--run", other.run, "--log-level", "error"]
        for turn in range(10):
            two = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) for _ in range(2)]
            try:
                wait_for(lambda: any(p.poll() is not None for p in two), 20, f"one of two gives up, turn {turn}")
                lost = [p for p in two if p.poll() is not None]
                equal(len(lost), 1, "exactly one")
                won = two[1 - two.index(lost[0])]
                equal(lost[0].returncode, 78, "refused")
                contains(lost[0].stderr.read(), f"another Aviary (process {won.pid}) uses", f"turn {turn}")
                won.send_signal(signal.SIGTERM)
                equal(won.wait(30), 0, "the other one ran")
            finally:
                for p in two:
                    p.kill()
                    p.wait()
                    p.stderr.close()
        nothing_left(other)
    finally:
        other.sweep()
        other.remove_dir()


test_one_daemon_per_directory.timeout_s = 90


def test_control_group_of_its_own(_d):
    """As in the units of systemd: sandboxes are made below a group that is not the daemon's."""
    if os.geteuid() != 0:
        raise Skip("needs root")
    mounts = [line.split() for line in open("/proc/self/mountinfo", encoding="utf-8")]
    tree = [m[4] for m in mounts if " cgroup2 " in " ".join(m)]
    if not tree or not os.access(tree[0], os.W_OK):
        raise Skip("no cgroup v2 tree")
    group = f"/aviary-test-{os.getpid()}"
    own = Daemon(args=["--cgroup", group])
    r = subprocess.run([program("aviaryd"), "--state", own.state, "--run", own.run, "--cgroup", group],
                       capture_output=True, text=True, timeout=30, check=False)
    ok(r.returncode != 0, "a group that is not there is refused")
    contains(r.stderr, f"there is no control group {group}", "and named")
    # A hybrid: systemd delegates in the trees of controllers as well.
    memory = [m[4] for m in mounts if re.search(r" - cgroup \S+ \S*\bmemory\b", " ".join(m))][:1]
    for top in tree[:1] + memory:
        os.mkdir(top + group)
    try:
        own.start()
        sandbox = own.create()["id"]
        own.exec(sandbox, "true")
        found = [top for top, _dirs, _files in os.walk(tree[0]) if os.path.basename(top) == sandbox]
        equal(len(found), 1, f"one group: {found}")
        ok(found[0].startswith(tree[0] + group + "/aviary-"), f"below the one asked for: {found[0]}")
        with open(found[0] + "/cgroup.procs", encoding="ascii") as f:
            ok(f.read().strip(), "with processes in it")
        for top in memory:
            limited = [t for t, _dirs, _files in os.walk(top + group) if os.path.basename(t) == sandbox]
            equal(len(limited), 1, "the same in the tree of memory")
        own.kill()
        r = subprocess.run([program("aviary"), "cleanup", "--state", own.state, "--run", own.run], timeout=60,
                           capture_output=True, text=True, check=False)
        equal((r.returncode, r.stderr), (0, ""), "cleanup")
        equal(os.path.isdir(found[0]), False, "cleanup finds it without being told where")
        for top in tree[:1] + memory:
            equal([d for d in os.listdir(top + group) if d.startswith("aviary-")], [], f"and its parent in {top}")
        own.stop()
        nothing_left(own)
    finally:
        own.sweep()
        own.remove_dir()
        for start in tree[:1] + memory:
            for top, _dirs, _files in os.walk(start + group, topdown=False):
                os.rmdir(top)


main(globals())
