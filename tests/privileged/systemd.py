#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The units as they are installed, under a systemd of the test's own.

Needs root and Debian's package systemd. `systemd --system` runs as PID 1 of namespaces of its own, with a pure cgroup v2
tree, directories of the test's own where it and Aviary write, and no units but the ones under test and empty targets.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

from aviary_test import SLOW, Failure, Skip, _Tap, children_of, contains, equal, ok, program, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
UNITS = os.path.join(HERE, "..", "..", "packaging", "systemd")
SYSTEMD = "/lib/systemd/systemd"
TARGETS = ("sysinit", "basic", "shutdown", "umount", "network", "multi-user", "initrd-switch-root", "emergency", "rescue")
UID = 54321
PREPARE = """
set -e
while [ ! -e {dir}/go ]; do sleep 0.1; done
mount --make-rprivate /
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/etc /run/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work overlay /etc
mount --bind {dir}/lib /var/lib
mount -t proc proc /proc
echo "aviary-test:x:{uid}:{uid}::/run/home:/bin/sh" >>/etc/passwd
mkdir -p /run/user/{uid} /run/home
cp -r {dir}/bin /run/programs
chown {uid}:{uid} /run/user/{uid} /run/home
exec {systemd} --system --unit=aviary-test.target --log-target=console --show-status=no --log-level=info
"""


def make_group():
    """This process's group, and the root of the machine's tree: below this process's own group, with every controller that may be had there."""
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        tree = [line.split()[4] for line in f if " - cgroup2 " in line][0]
    with open("/proc/self/cgroup", encoding="utf-8") as f:
        own = [line.strip()[3:] for line in f if line.startswith("0::")][0].rstrip("/")
    for control in ("+memory", "+pids", "+cpu", "+io", "+cpuset"):
        try:
            with open(f"{tree}{own}/cgroup.subtree_control", "w", encoding="ascii") as f:
                f.write(control)
        except OSError:
            pass
    group = f"{tree}{own}/aviary-test-{os.getpid()}"
    os.mkdir(group)
    return tree + own, group


def remove_group(group):
    for path, _dirs, _files in os.walk(group, topdown=False):
        for _ in range(50):
            try:
                os.rmdir(path)
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.1)


class Machine:
    """A running systemd."""

    def __init__(self, watchdog_s):
        self.dir = tempfile.mkdtemp(prefix="aviary-systemd-")
        os.chmod(self.dir, 0o755)
        self.units = os.path.join(self.dir, "units")
        os.mkdir(os.path.join(self.dir, "lib"))
        os.makedirs(os.path.join(self.units, "aviary.service.d"))
        for name in TARGETS:
            self.unit(name + ".target", "[Unit]\nDefaultDependencies=no\n")
        self.unit("aviary-test.target", "[Unit]\nWants=aviary.service\n")
        with open(os.path.join(UNITS, "aviary.service.in"), encoding="utf-8") as f:
            # Not where the build is: that may be below /tmp, and the service has another one.
            self.unit("aviary.service", f.read().replace("@bindir@", "/run/programs"))
        shutil.copy(os.path.join(UNITS, "aviary-sandboxes.service"), self.units)
        self.unit("aviary.service.d/test.conf", f"[Service]\nWatchdogSec={watchdog_s}\n"
                  f"StandardError=append:{self.dir}/service.log\n"
                  "Environment=AVIARY_LISTEN=127.0.0.1:0 AVIARY_DISK_IMAGE=2G\n")
        self.prepare_user()
        self.log = open(os.path.join(self.dir, "log"), "wb")
        env = {"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": self.units, "container": "aviary-test", "LANG": "C.UTF-8"}
        own, self.group = make_group()
        self.process = subprocess.Popen(
            ["sh", "-c", f"echo 0 >{self.group}/cgroup.procs; exec \"$@\"", "sh", "unshare", "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--fork", "--kill-child", "sh", "-c",
             PREPARE.format(systemd=SYSTEMD, dir=self.dir, uid=UID)], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=env)
        wait_for(self.pid, 10, "the namespaces")
        # A group that has processes cannot give controllers on: who waits outside goes back.
        with open(own + "/cgroup.procs", "w", encoding="ascii") as f:
            f.write(str(self.process.pid))
        with open(os.path.join(self.dir, "go"), "w", encoding="ascii"):
            pass

    def prepare_user(self):
        """A manager of an ordinary user's, with the units for that; the build may lie where users cannot look."""
        programs = os.path.join(self.dir, "bin")
        os.makedirs(os.path.join(self.dir, "user", "aviary.service.d"))
        os.mkdir(programs)
        for name in ("aviary", "aviaryd", "aviary-spawn", "aviary-agent"):
            shutil.copy(program(name), programs)
            os.chmod(os.path.join(programs, name), 0o755)
        for name in TARGETS:
            self.unit(f"../user/{name}.target", "[Unit]\nDefaultDependencies=no\n")
        self.unit("../user/default.target", "[Unit]\nWants=aviary.service\n")
        with open(os.path.join(UNITS, "user", "aviary.service.in"), encoding="utf-8") as f:
            self.unit("../user/aviary.service", f.read().replace("@bindir@", programs))
        shutil.copy(os.path.join(UNITS, "user", "aviary-sandboxes.service"), os.path.join(self.dir, "user"))
        self.unit("../user/aviary.service.d/test.conf", "[Service]\nStandardError=append:/run/home/log\n"
                  "Environment=AVIARY_LISTEN=127.0.0.1:0\n")
        self.unit("manager.service", f"[Service]\nType=notify\nUser={UID}\nDelegate=yes\n"
                  f"Environment=XDG_RUNTIME_DIR=/run/user/{UID} HOME=/run/home SYSTEMD_UNIT_PATH={self.dir}/user\n"
                  f"ExecStart={SYSTEMD} --user\n")

    def as_user(self, *words, check=True):
        return self.run("setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", "env",
                        f"XDG_RUNTIME_DIR=/run/user/{UID}", "HOME=/run/home", f"SYSTEMD_UNIT_PATH={self.dir}/user",
                        *words, check=check)

    def unit(self, name, text):
        with open(os.path.join(self.units, name), "w", encoding="utf-8") as f:
            f.write(text)

    def pid(self):
        found = children_of(self.process.pid)
        return found[0] if found else None

    def run(self, *words, check=True, timeout=60):
        env = {"PATH": os.environ["PATH"], "HOME": "/run/root", "LANG": "C.UTF-8", "SYSTEMD_UNIT_PATH": self.units}
        r = subprocess.run(["nsenter", "-t", str(self.pid()), "-m", "-p", "-C", "-u", "-i", "--", *words],
                           capture_output=True, text=True, timeout=timeout * SLOW, env=env, check=False)
        if check and r.returncode:
            raise Failure(f"{' '.join(words)}: {r.returncode}: {r.stderr}\n{r.stdout}")
        return r

    def show(self, unit, name):
        return self.run("systemctl", "show", "-P", name, unit).stdout.strip()

    def aviary(self, *words, check=True):
        return self.run(program("aviary"), *words, check=check)

    def text(self):
        texts = []
        for name in ("log", "service.log"):
            with open(os.path.join(self.dir, name), encoding="utf-8", errors="replace") as f:
                texts.append(f.read())
        return "".join(texts)

    def stop(self):
        try:
            self.process.kill()
            self.process.wait(30)
        finally:
            self.log.close()
            shutil.rmtree(self.dir, ignore_errors=True)
            remove_group(self.group)


def test_starts_and_is_ready(m):
    wait_for(m.pid, 10, "systemd runs")
    wait_for(lambda: m.run("systemctl", "is-system-running", check=False).returncode != 127 and
             os.path.exists(f"/proc/{m.pid()}/root/run/systemd/private"), 30, "it can be asked")
    wait_for(lambda: m.show("aviary.service", "ActiveState") == "active", 60, "aviary.service is active")
    equal(m.show("aviary.service", "StatusText"), "serving", "its status")
    equal(m.show("aviary-sandboxes.service", "ActiveState"), "active", "the sandboxes' unit")
    main_pid = m.show("aviary.service", "MainPID")
    contains(m.run("cat", f"/proc/{main_pid}/comm").stdout, "aviary-spawn", "the main process")
    out = m.aviary("run", "--", "sh", "-c", "id -u; echo hello >/tmp/x; cat /tmp/x; ls /proc | head -1").stdout
    contains(out, "0\nhello\n1\n", "a sandbox in it")


def test_sandboxes_have_their_own_group(m):
    m.sandbox = m.aviary("create", "-q").stdout.strip()
    path = m.run("sh", "-c", f"find /sys/fs/cgroup -type d -name {m.sandbox}").stdout.strip()
    ok(path.startswith("/sys/fs/cgroup/system.slice/aviary-sandboxes.service/aviary-"), f"where: {path}")
    ok(m.run("cat", path + "/cgroup.procs").stdout.strip(), "and processes in it")
    if "memory" in m.run("cat", "/sys/fs/cgroup/cgroup.controllers").stdout:
        ok(int(m.run("cat", path + "/memory.max").stdout) > 0, "with a limit")
    else:
        print("# no controllers in the v2 tree of this machine")
    own = m.run("sh", "-c", "cat /sys/fs/cgroup/system.slice/aviary.service/cgroup.procs").stdout.split()
    ok(3 <= len(own) <= 6, f"the service's own group has ours only: {own}")
    main_pid = m.show("aviary.service", "MainPID")
    with open("/proc/self/status", encoding="ascii") as f:
        capable = int(re.search(r"CapEff:\s*(\w+)", f.read())[1], 16) >> 24 & 1  # CAP_SYS_RESOURCE
    with open(f"/proc/{m.pid()}/root/proc/{main_pid}/oom_score_adj", encoding="ascii") as f:
        equal(f.read().strip(), "-250" if capable else "0", "the supervisor is spared, where that is possible")
    score = m.aviary("exec", m.sandbox, "--", "cat", "/proc/self/oom_score_adj").stdout
    ok(int(score) >= 0, f"a sandbox is not: {score}")


def test_restart_ends_no_sandbox(m):
    m.aviary("exec", m.sandbox, "--", "sh", "-c", "echo kept >/root/f; (sleep 1000 >/dev/null 2>&1 &)")
    for how in ("restart", "stop-start"):
        if how == "restart":
            m.run("systemctl", "restart", "aviary")
        else:
            m.run("systemctl", "stop", "aviary")
            equal(m.show("aviary.service", "ActiveState"), "inactive", "stopped")
            m.run("systemctl", "start", "aviary")
        out = m.aviary("exec", m.sandbox, "--", "sh", "-c", "cat /root/f; ps ax | grep -c '[s]leep 1000'").stdout
        equal(out, "kept\n1\n", f"files and processes after {how}")
    m.aviary("run", "--", "true")


def test_reload(m):
    before = m.show("aviary.service", "MainPID")
    m.run("systemctl", "reload", "aviary")
    wait_for(lambda: m.show("aviary.service", "ActiveState") == "active", 20, "active again")
    equal(m.show("aviary.service", "MainPID"), before, "the same process")
    contains(m.text(), "SIGHUP: certificates are read again", "the daemon heard it")


def test_watchdog(m):
    """What hangs is ended and started again, and sandboxes do not notice."""
    before = m.show("aviary.service", "MainPID")
    ours = m.run("sh", "-c", "cat /sys/fs/cgroup/system.slice/aviary.service/cgroup.procs").stdout.split()
    daemon = [p for p in ours if "--spawn-socket" in m.run("cat", f"/proc/{p}/cmdline").stdout]
    m.run("kill", "-STOP", daemon[0])
    wait_for(lambda: m.show("aviary.service", "MainPID") not in (before, "0") and
             m.show("aviary.service", "ActiveState") == "active", 60, "started again by the watchdog")
    equal(m.show("aviary.service", "NRestarts"), "1", "restarts")
    out = m.aviary("exec", m.sandbox, "--", "sh", "-c", "cat /root/f; ps ax | grep -c '[s]leep 1000'").stdout
    equal(out, "kept\n1\n", "files and processes")
    gone = m.run("cat", f"/proc/{daemon[0]}/cmdline", check=False)
    ok(gone.returncode != 0, "the daemon that hung is gone")


test_watchdog.timeout_s = 120


def test_wrong_options_are_not_tried_again(m):
    m.unit("aviary.service.d/wrong.conf", "[Service]\nEnvironment=AVIARY_POOL=nonsense\n")
    m.run("systemctl", "daemon-reload")
    r = m.run("systemctl", "restart", "aviary", check=False)
    ok(r.returncode != 0, "it does not start")
    equal(m.show("aviary.service", "ExecMainStatus"), "2", "exit status")
    time.sleep(2)
    equal(m.show("aviary.service", "ActiveState"), "failed", "and is left alone")
    contains(m.text(), "AVIARY_POOL: 'nonsense' is not a number", "the log says why")
    os.unlink(os.path.join(m.units, "aviary.service.d", "wrong.conf"))
    m.run("systemctl", "daemon-reload")
    m.run("systemctl", "restart", "aviary")
    equal(m.aviary("exec", m.sandbox, "--", "cat", "/root/f").stdout, "kept\n", "the sandbox is still there")


def test_the_end(m):
    path = m.run("sh", "-c", f"find /sys/fs/cgroup -type d -name {m.sandbox}").stdout.strip()
    m.run("systemctl", "stop", "aviary-sandboxes")
    equal(m.show("aviary.service", "ActiveState"), "inactive", "the daemon is stopped with them")
    ok(m.run("cat", path + "/cgroup.procs", check=False).returncode != 0, "no sandbox is left")
    r = m.run(program("aviary"), "cleanup", "--all", "--yes")
    for where in ("/var/lib/aviary", "/run/aviary", "/etc/aviary"):
        ok(m.run("test", "-e", where, check=False).returncode != 0, f"{where} is gone: {r.stdout} {r.stderr}")


def test_an_ordinary_user(m):
    """The units for users: a restart ends no sandbox there either, and limits hold where groups are delegated."""
    aviary = os.path.join(m.dir, "bin", "aviary")
    m.run("systemctl", "start", "manager.service")

    def state(unit):
        return m.as_user("systemctl", "--user", "show", "-P", "ActiveState", unit, check=False).stdout.strip()

    def told():
        return m.run("cat", "/run/home/log", check=False).stdout[-1500:]

    try:
        wait_for(lambda: state("aviary.service") == "active", 40, "aviary.service is active")
    except Failure as error:
        raise Failure(f"{error}: {told()}") from error
    first = m.as_user(aviary, "run", "--", "true", check=False)
    if first.returncode:
        able = m.as_user("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "true", check=False)
        if able.returncode:
            raise Skip(f"no sandboxes for users here: {able.stderr[:150]} {first.stderr[:150]}")
        raise Failure(f"an ordinary user's sandbox: {first.stderr[:300]} {told()}")
    sandbox = m.as_user(aviary, "create", "-q").stdout.strip()
    m.as_user(aviary, "exec", sandbox, "--", "sh", "-c", "echo kept >/root/f; (sleep 1000 >/dev/null 2>&1 &)")
    path = m.run("sh", "-c", f"find /sys/fs/cgroup -type d -name {sandbox}").stdout.strip()
    contains(path, "/aviary-sandboxes.service/aviary-", "where its group is")
    if "memory" in m.run("cat", "/sys/fs/cgroup/cgroup.controllers").stdout:
        ok(int(m.run("cat", path + "/memory.max").stdout) > 0, "with a limit")
    m.as_user("systemctl", "--user", "restart", "aviary")
    out = m.as_user(aviary, "exec", sandbox, "--", "sh", "-c", "cat /root/f; ps ax | grep -c '[s]leep 1000'").stdout
    equal(out, "kept\n1\n", "files and processes after a restart")
    m.as_user("systemctl", "--user", "stop", "aviary-sandboxes")
    equal(state("aviary.service"), "inactive", "stopped with them")
    ok(m.run("cat", path + "/cgroup.procs", check=False).returncode != 0, "no sandbox is left")


def test_what_systemd_thinks_of_them(m):
    r = m.run("systemd-analyze", "verify", "--man=no", "aviary.service", "aviary-sandboxes.service", check=False)
    equal((r.returncode, re.sub(r".*modprobe@.*\n", "", r.stderr)), (0, ""), "systemd-analyze verify")
    worst = {"aviary.service": 6.5, "aviary-sandboxes.service": 2.0}
    for unit, limit in worst.items():
        r = m.run("systemd-analyze", "security", "--offline=true", os.path.join(m.units, unit), check=False)
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", r.stdout)
        ok(found, f"a score: {r.stdout[-200:]} {r.stderr}")
        print(f"# exposure of {unit}: {found[1]}")
        ok(float(found[1]) <= limit, f"exposure of {unit} is {found[1]}, at most {limit}")


def main():
    if os.geteuid() != 0 or not os.path.exists(SYSTEMD):
        why = "needs root" if os.geteuid() else "needs Debian's package systemd"
        if os.environ.get("CI"):
            print(f"Bail out! {why}, which CI must have")
            sys.exit(1)
        print(f"1..0 # SKIP {why}")
        return
    tap = _Tap()
    m = Machine(3 * max(1, SLOW))
    try:
        for name, function in [(n, f) for n, f in globals().items() if n.startswith("test_")]:
            tap.run(name[5:].replace("_", " "), lambda f=function: f(m), getattr(function, "timeout_s", 90))
            if tap.failed:
                for line in m.text().splitlines()[-40:]:
                    print(f"# {line}")
                break
    finally:
        m.stop()
    print(f"1..{tap.number}")
    sys.exit(1 if tap.failed else 0)


if __name__ == "__main__":
    main()
