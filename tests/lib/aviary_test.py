# SPDX-License-Identifier: Apache-2.0
"""aviary_test - runs a real aviaryd for an integration test, talks to it, and checks what it leaves

A test file is a program:

    from aviary_test import main, equal, ok

    def test_create(d):                 # d: the Daemon of this file
        sb = d.create()
        equal(sb["status"], "running", "status of a new sandbox")

    main(globals())

main() starts one aviaryd on a state and run directory of its own, runs every test_* function in
order of definition with a time limit, deletes all sandboxes, stops the daemon, and makes the last
test of the question whether anything is left: processes, mounts, cgroups, loop devices, sockets.
Output is TAP. Only the standard library is used.

The programs under test come from the build directory: AVIARY_BUILD_DIR, else ./build. On an emulated
machine AVIARY_TEST_SLOW stretches every time limit by that factor; what is checked stays.
AVIARY_TEST_DAEMON, "URL KEY", is a daemon that runs: the tests are for that one, which is left alone afterwards.
AVIARY_TEST_SPAWN_OPTIONS are options of aviary-spawn for all daemons: `--disk loop`. AVIARY_TEST_TEMPLATES is a directory
in which daemons of one run leave their template `host` for the next: without it each makes its own, which takes
seconds (ext4 looks at every inode deleted in the last minutes before it gives out one). AVIARY_TEST_ISOLATION=vm makes
the sandboxes of a file virtual machines, of a small template (vm_templates.py), unless a test says otherwise: tests
that are about jails have the mark @jail_only, with the reason; time limits are longer, and sizes those of least().
"""

import fcntl
import http.client
import inspect
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse

IN_VM = os.environ.get("AVIARY_TEST_ISOLATION", "jail") == "vm"
# How much slower than usual this machine is, and what its sandboxes are carried out by: stretches time limits.
SLOW = float(os.environ.get("AVIARY_TEST_SLOW", "1")) * (3 if IN_VM else 1)
START_TIMEOUT_S = 60 * SLOW
STOP_TIMEOUT_S = 30 * SLOW
TEST_TIMEOUT_S = 60


class Failure(AssertionError):
    """A check that did not hold; the message is the diagnostic."""


class Skip(Exception):
    """Raised by a test that cannot run here; the message says why."""


def jail_only(why):
    """A test that is about jails, not about every sandbox."""
    def mark(test):
        test.skip_in_vm = why
        return test
    return mark


def vm_only(why):
    """A test of what virtual machines do otherwise."""
    def mark(test):
        test.skip_in_jail = why
        return test
    return mark


def least(jail, vm):
    """A small size of a sandbox: of a jail, or of a virtual machine where the sandboxes are such."""
    return vm if IN_VM else jail


def ok(condition, what):
    if not condition:
        raise Failure(what)


def equal(got, expected, what):
    if got != expected:
        raise Failure(f"{what}: got {short(got)}, expected {short(expected)}")


def contains(text, part, what):
    if part not in text:
        raise Failure(f"{what}: {short(part)} is not in {short(text)}")


def short(value):
    text = repr(value)
    return text if len(text) <= 300 else text[:200] + f"... ({len(text)} characters)"


def wait_for(condition, timeout_s, what):
    """Polls until condition() is true and returns its value. Time in which the machine stood still hardly counts."""
    left = timeout_s * SLOW
    while True:
        began = time.monotonic()
        value = condition()
        if value:
            return value
        if left < 0:
            raise Failure(f"after {timeout_s} s still not: {what}")
        time.sleep(0.02)
        left -= min(time.monotonic() - began, 1)


class Stopwatch:
    """with Stopwatch() as watch: ... then watch.seconds, without those in which the machine stood still: a host may hold a
    machine up for a second, and that is not the time that a program under test took."""

    def __enter__(self):
        self._held, self._over = 0, threading.Event()
        self._began = time.monotonic()
        self._ticks = threading.Thread(target=self._tick, daemon=True)
        self._ticks.start()
        return self

    def _tick(self):
        last = time.monotonic()
        while not self._over.wait(0.02):
            now = time.monotonic()
            self._held += now - last if now - last > 0.15 else 0
            last = now

    def __exit__(self, *_):
        self._over.set()
        self._ticks.join()
        self.seconds = time.monotonic() - self._began - self._held


def program(name):
    """Path of a freshly built program."""
    build = os.environ.get("AVIARY_BUILD_DIR") or os.environ.get("AVIARY_BUILD", "build")
    env = os.environ.get(name.upper().replace("-", "_") + "_PROGRAM")
    candidates = [env] if env else []
    candidates += [os.path.join(build, name)]
    candidates += [os.path.join(build, "src", d, name) for d in ("daemon", "spawn", "agent", "cli")]
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return os.path.abspath(path)
    raise SystemExit(f"Bail out! {name} is not built; tried {', '.join(candidates)}")


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Failure(f"status {self.status}: not JSON: {short(self.body)}") from error

    @property
    def code(self):
        """Machine code of an error answer."""
        return self.json()["error"]["code"]

    @property
    def message(self):
        return self.json()["error"]["message"]


class Daemon:
    """One aviaryd with directories of its own below a new directory in /tmp."""

    def __init__(self, args=(), env=None, popen=None, owner=None, spawn_options="",
                 pool=0, ca=None):
        """pool: sandboxes made ahead of time; none, unless a test says otherwise, as most count what
        there is. popen: further arguments of Popen (another user); owner: the uid that gets the directory;
        spawn_options: of aviary-spawn, which then starts through a wrapper; ca: file of what to trust when
        args make it serve HTTPS."""
        self.dir = tempfile.mkdtemp(prefix="aviary-test-")
        os.chmod(self.dir, 0o755)
        if owner is not None:
            os.chown(self.dir, owner, owner)
        self.popen = dict(popen or {})
        self.templates = os.environ.get("AVIARY_TEST_TEMPLATES")
        if self.templates:
            self.templates = os.path.join(self.templates, str(owner or os.geteuid()))
        self.state = os.path.join(self.dir, "state")
        self.run = os.path.join(self.dir, "run")
        self.credentials = os.path.join(self.dir, "config", "credentials.json")
        self.log_path = os.path.join(self.dir, "log")
        self.args, self.env = ["--pool", str(pool), *args], dict(env or {})
        options = f"{os.environ.get('AVIARY_TEST_SPAWN_OPTIONS', '')} {spawn_options}".strip()
        if options:
            self.args += ["--spawn-program", self._wrapper(options)]
        self.ca, self.tls = ca, None
        self.process = None
        self.url = self.host = self.port = self.key = None
        self.ids = set()  # every sandbox ever made here
        self.local = threading.local()

    def _wrapper(self, options):
        path = os.path.join(self.dir, "aviary-spawn")
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"#!/bin/sh\nexec {program('aviary-spawn')} {options} \"$@\"\n")
        os.chmod(path, 0o755)
        return path

    # -- life -----------------------------------------------------------------------------------

    def start(self, ready=True):
        """ready: waits until sandboxes can be made at once as well."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("AVIARY_")}
        env["AVIARY_CONFIG_DIR"] = os.path.join(self.dir, "config")
        env.update(self.env)
        argv = [program("aviaryd"), "--state", self.state, "--run", self.run, "--listen",
                "127.0.0.1:0", "--print-ready", "--log-level", "debug"] + self.args
        self._reuse_template()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                            stderr=log, env=env, cwd="/", **self.popen)
        self.url = self._wait_ready()
        parsed = urllib.parse.urlsplit(self.url)
        self.host, self.port = parsed.hostname, parsed.port
        self.tls = ssl.create_default_context(cafile=self.ca) if parsed.scheme == "https" else None
        wait_for(lambda: os.path.exists(self.credentials), 5, "credentials written")
        with open(self.credentials, encoding="utf-8") as f:
            self.key = json.load(f)["api_key"]
        if ready:
            wait_for(lambda: self.request("GET", "/ready", key=False).status == 200, 90, "ready")
        return self

    def _reuse_template(self):
        """Links a generation of `host` that an earlier daemon made into a new state directory; aviary-spawn looks
        whether it is what the host calls for, and makes another one where not."""
        if not self.templates or os.path.exists(self.state) or not os.path.isdir(self.templates):
            return
        templates = os.path.join(self.state, "templates")
        os.mkdir(self.state, 0o711)
        os.mkdir(templates, 0o700)
        subprocess.run(["cp", "-al", self.templates, os.path.join(templates, "host")], check=True)
        uid = os.stat(self.dir).st_uid
        for path in (self.state, templates, os.path.join(templates, "host")):
            os.chown(path, uid, uid)

    def _leave_template(self):
        host = os.path.join(self.state, "templates", "host")
        if not self.templates or not os.path.isdir(host):
            return
        os.makedirs(self.templates, 0o700, exist_ok=True)
        for name in os.listdir(host):
            if name.startswith("g-"):  # complete: it has its name since then
                try:
                    os.rename(os.path.join(host, name), os.path.join(self.templates, name))
                except OSError:
                    pass  # another one left it first

    def _wait_ready(self):
        line = []

        def read():
            for raw in self.process.stdout:
                line.append(raw.decode())
                if line[-1].startswith("ready "):
                    return

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(START_TIMEOUT_S)
        if not line or not line[-1].startswith("ready "):
            self.kill()
            raise Failure(f"aviaryd is not ready: stdout {line}, log:\n{self.log_tail()}")
        return line[-1].split()[1]

    def stop(self):
        """SIGTERM, and waits; returns the exit status."""
        if self.process is None:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"aviaryd does not stop on SIGTERM; log:\n{self.log_tail()}") from None
        self.process.stdout.close()
        self.process = None
        return status

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def remove_dir(self):
        self._leave_template()
        shutil.rmtree(self.dir, ignore_errors=True)

    def sweep(self):
        """After a failure: ends what the daemon left, so that one failed test does not spoil the next."""
        self.kill()
        if os.path.isdir(self.run):
            self.ids.update(i for i in os.listdir(self.run) if i.startswith("sb"))
        for pid in processes_of(self):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.2)
        if tables_of(self):
            subprocess.run([program("aviary-spawn"), "--cleanup", "--state", self.state, "--run", self.run],
                           timeout=30, check=False)
        for path in sorted(cgroups_of(self), key=len, reverse=True):
            try:
                os.rmdir(path)
            except OSError:
                pass

    def log_text(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def log_tail(self, lines=40):
        return "\n".join(self.log_text().splitlines()[-lines:])

    def pids(self):
        """pid by role: supervisor (what we started), worker, daemon."""
        found = {"supervisor": self.process.pid}
        for pid in children_of(self.process.pid):
            words = cmdline(pid).split(b"\0")
            if b"--worker" in words:
                found["worker"] = pid
            elif b"--spawn-socket" in words:
                found["daemon"] = pid
        return found

    def rss_kib(self):
        """Resident memory of the daemon proper, in KiB."""
        with open(f"/proc/{self.pids()['daemon']}/status", encoding="ascii") as f:
            for text in f:
                if text.startswith("VmRSS:"):
                    return int(text.split()[1])
        raise Failure("no VmRSS")

    def sanitized(self):
        """Whether the daemon is instrumented: its memory then says nothing."""
        with open(f"/proc/{self.pids()['daemon']}/maps", encoding="ascii", errors="replace") as f:
            return "libasan" in f.read()

    def memory_within(self, before_kib, grow_kib):
        """Fails when the daemon has grown by more than that; returns what it has now."""
        now = self.rss_kib()
        if now > before_kib + grow_kib and not self.sanitized():
            raise Failure(f"the daemon's memory grew from {before_kib} to {now} KiB")
        return now

    # -- HTTP -----------------------------------------------------------------------------------

    def connection(self, timeout=30):
        if self.tls:
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout * SLOW, context=self.tls)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout * SLOW)

    def request(self, method, path, body=None, headers=None, key=True, timeout=30):
        """One request on this thread's kept-alive connection; body: bytes, or a value sent as JSON."""
        head = dict(headers or {})
        if key:
            head.setdefault("X-API-Key", self.key)
        if body is not None and not isinstance(body, (bytes, bytearray)):
            body = json.dumps(body).encode()
            head.setdefault("Content-Type", "application/json")
        for attempt in (0, 1):
            conn = getattr(self.local, "conn", None)
            reused = conn is not None
            if not reused:
                conn = self.local.conn = self.connection(timeout)
            elif conn.sock is not None:
                conn.sock.settimeout(timeout * SLOW)
            conn.timeout = timeout * SLOW
            try:
                conn.request(method, path, body=body, headers=head)
                answer = conn.getresponse()
                data = answer.read()
                if answer.will_close:
                    self.local.conn = None
                return Response(answer.status, answer.headers, data)
            except (ConnectionError, http.client.BadStatusLine):
                self.local.conn = None
                conn.close()
                if attempt or not reused:
                    raise
            except Exception:
                self.local.conn = None
                conn.close()
                raise
        return None

    def expect(self, status, method, path, body=None, **kw):
        r = self.request(method, path, body, **kw)
        if r.status != status:
            raise Failure(f"{method} {path}: status {r.status}, expected {status}: {short(r.body)}")
        return r

    def raw(self, data, timeout=10, close_write=False):
        """Sends bytes on a new connection and returns all that comes until the other side closes."""
        with socket.create_connection((self.host, self.port), timeout=timeout) as s:
            s.sendall(data)
            if close_write:
                s.shutdown(socket.SHUT_WR)
            out = b""
            while True:
                try:
                    part = s.recv(65536)
                except ConnectionResetError:
                    return out
                if not part:
                    return out
                out += part

    def metrics(self):
        """What /metrics says: value by name with labels."""
        values = {}
        for line in self.expect(200, "GET", "/metrics").body.decode().splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def pool_ready(self):
        return int(self.metrics()['aviary_pool_sandboxes{state="ready"}'])

    # -- sandboxes ------------------------------------------------------------------------------

    def create(self, **body):
        sandbox = self.expect(201, "POST", "/v1/sandboxes", body).json()
        self.ids.add(sandbox["id"])
        return sandbox

    def delete(self, sandbox_id):
        return self.expect(204, "DELETE", f"/v1/sandboxes/{sandbox_id}")

    def exec(self, sandbox_id, script, **body):
        """Foreground exec of a shell script; returns the answer's object."""
        body = {"cmd": "/bin/sh", "args": ["-c", script], **body}
        if "timeout_sec" in body:
            body["timeout_sec"] = int(body["timeout_sec"] * SLOW)
        return self.expect(200, "POST", f"/v1/sandboxes/{sandbox_id}/exec", body, timeout=60).json()

    def delete_all(self):
        for sandbox in self.expect(200, "GET", "/v1/sandboxes").json():
            self.ids.add(sandbox["id"])
            self.delete(sandbox["id"])


class Attached(Daemon):
    """A daemon that somebody else started and looks after."""

    def __init__(self, url, key):  # pylint: disable=super-init-not-called
        parsed = urllib.parse.urlsplit(url)
        self.url, self.host, self.port, self.key = url, parsed.hostname, parsed.port, key
        self.tls = None
        self.ids, self.local = set(), threading.local()


# -- what is left -------------------------------------------------------------------------------


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read()
    except OSError:
        return b""


def children_of(pid):
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as f:
                fields = f.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(entry))
    return found


def processes_of(daemon):
    """Processes that belong to this daemon or one of its sandboxes, as {pid: why}."""
    marks = [daemon.dir.encode()] + [i.encode() for i in daemon.ids]
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        text = cmdline(entry)
        try:
            with open(f"/proc/{entry}/cgroup", "rb") as f:
                text += f.read()
        except OSError:
            pass
        for mark in marks:
            if mark in text:
                found[int(entry)] = mark.decode()
    return found


def mounts_of(daemon):
    """Mount lines that name our directory, in whatever mount namespace is alive."""
    found, seen = [], set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            namespace = os.readlink(f"/proc/{entry}/ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            with open(f"/proc/{entry}/mountinfo", encoding="utf-8", errors="replace") as f:
                found += [line.strip() for line in f if daemon.dir in line]
        except OSError:
            continue
    return found


def cgroups_of(daemon):
    found = []
    for top, dirs, _files in os.walk("/sys/fs/cgroup"):
        found += [os.path.join(top, d) for d in dirs if d in daemon.ids]
        if top.count("/") > 9:
            dirs.clear()
    return found


LOOP_GET_STATUS64 = 0x4C05


def loops_of(daemon):
    """Loop devices on our image, known by its inode: the name they show is the worker's own."""
    try:
        image = os.stat(os.path.join(daemon.state, "disk.img"))
    except OSError:
        return []
    found = []
    for name in os.listdir("/sys/block") if os.geteuid() == 0 else []:
        if not os.path.isdir(f"/sys/block/{name}/loop"):
            continue
        try:
            fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            status = fcntl.ioctl(fd, LOOP_GET_STATUS64, bytes(232))
            if struct.unpack_from("QQ", status) == (image.st_dev, image.st_ino):
                found.append(name)
        except OSError:
            pass
        finally:
            os.close(fd)
    return found


def sockets_of(daemon):
    found = []
    for top, _dirs, files in os.walk(daemon.run):
        for name in files:
            path = os.path.join(top, name)
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                found.append(path)
    found += [os.path.join(daemon.run, i) for i in daemon.ids
              if os.path.exists(os.path.join(daemon.run, i))]
    return found


def instance_tag(daemon):
    """As in src/spawn/instance.c."""
    h = 2166136261
    for byte in daemon.state.encode():
        h = (h ^ byte) * 16777619 & 0xffffffff
    return f"{h:08x}"


def links_of(daemon):
    """Interfaces of its sandboxes on the host."""
    return [name for name in os.listdir("/sys/class/net") if name.startswith("avy" + instance_tag(daemon))]


def tables_of(daemon):
    """Its table of nftables on the host, where nft(8) is there to ask."""
    if os.geteuid() != 0 or not shutil.which("nft"):
        return []
    out = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, timeout=20, check=False).stdout
    return [line for line in out.splitlines() if f"aviary-{instance_tag(daemon)}" in line]


LEAKS = (("processes", processes_of), ("mounts", mounts_of), ("cgroups", cgroups_of),
         ("loop devices", loops_of), ("sockets", sockets_of), ("links", links_of), ("tables", tables_of))


def nothing_left(daemon, timeout_s=10, kinds=LEAKS):
    """Waits until nothing of the (stopped) daemon is left; what remains is the failure's text."""
    end = time.monotonic() + timeout_s * SLOW
    while True:
        left = {name: find(daemon) for name, find in kinds}
        left = {name: value for name, value in left.items() if value}
        if not left:
            return
        if time.monotonic() > end:
            raise Failure(f"left behind: {left}")
        time.sleep(0.1)


# -- running ------------------------------------------------------------------------------------


def _on_alarm(_signal, _frame):
    raise Failure("the test's time is over")


class _Tap:
    def __init__(self):
        self.number = self.failed = 0

    def run(self, name, function, timeout_s):
        self.number += 1
        began = time.monotonic()
        signal.signal(signal.SIGALRM, _on_alarm)
        signal.alarm(int(timeout_s * SLOW))
        try:
            function()
            print(f"ok {self.number} - {name}", flush=True)
            return True
        except Skip as why:
            print(f"ok {self.number} - {name} # SKIP {why}", flush=True)
            return True
        except Exception as error:  # pylint: disable=broad-except
            self.failed += 1
            print(f"not ok {self.number} - {name}", flush=True)
            text = str(error) if isinstance(error, Failure) else ""
            for line in (text + "\n" + traceback.format_exc()).strip().splitlines():
                print(f"# {line}", flush=True)
            return False
        finally:
            signal.alarm(0)
            if time.monotonic() - began > 3:
                print(f"# took {time.monotonic() - began:.1f} s", flush=True)


def _tests(names):
    functions = [f for n, f in names.items() if n.startswith("test_") and inspect.isfunction(f)]
    return sorted(functions, key=lambda f: f.__code__.co_firstlineno)


def _prepare_vm(daemon):
    """Templates for virtual machines, and the first machine, for which all others would wait."""
    from vm_templates import import_templates  # pylint: disable=import-outside-toplevel
    began = time.monotonic()
    import_templates(daemon)
    made = time.monotonic()
    daemon.delete(daemon.expect(201, "POST", "/v1/sandboxes", {}, timeout=200).json()["id"])
    print(f"# templates in {made - began:.1f} s, the first machine in {time.monotonic() - made:.1f} s", flush=True)


def _run_here(function, daemon):
    why = getattr(function, "skip_in_vm" if IN_VM else "skip_in_jail", None)
    if why:
        raise Skip(why)
    function(daemon)


def main(names, args=(), env=None, popen=None, owner=None, spawn_options="", pool=0, ca=None):
    """Runs every test_* of the module. A test with the attribute timeout_s has that limit."""
    wanted = sys.argv[1:]
    tests = [f for f in _tests(names) if not wanted or f.__name__ in wanted]
    tap = _Tap()
    if IN_VM:
        from vm_templates import missing  # pylint: disable=import-outside-toplevel
        if missing():
            print(f"1..0 # SKIP {missing()}")
            sys.exit(0)
        args = ["--default-isolation", "vm", "--vm-pool", "0", *args]
    if "AVIARY_TEST_DAEMON" in os.environ:
        daemon = Attached(*os.environ["AVIARY_TEST_DAEMON"].split())
        for function in tests:
            tap.run(function.__name__[5:].replace("_", " "), lambda f=function: f(daemon),
                    getattr(function, "timeout_s", TEST_TIMEOUT_S))
        print(f"1..{tap.number}", flush=True)
        sys.exit(1 if tap.failed else 0)
    daemon = Daemon(args=args, env=env, popen=popen, owner=owner, spawn_options=spawn_options,
                    pool=pool, ca=ca)
    try:
        daemon.start()
        for line in daemon.log_text().splitlines():
            if "worker ready" in line or "isolation=" in line:
                print(f"# {line}")
        if IN_VM:
            _prepare_vm(daemon)
        for function in tests:
            title = function.__name__[5:].replace("_", " ")
            limit = getattr(function, "timeout_s", TEST_TIMEOUT_S)
            tap.run(title, lambda f=function: _run_here(f, daemon), limit)
        tap.run("delete everything and stop", lambda: (daemon.delete_all(), daemon.stop()), 60)
        tap.run("nothing is left behind", lambda: nothing_left(daemon), 60)
    except Failure as error:
        print("Bail out! " + str(error).replace("\n", "\n# "), flush=True)
        tap.failed += 1
    finally:
        if tap.failed:
            print("# last lines of the daemon's log:")
            for line in daemon.log_tail().splitlines():
                print(f"# {line}")
        daemon.sweep()
        if "AVIARY_TEST_KEEP" in os.environ:
            print(f"# kept: {daemon.dir}")
        else:
            daemon.remove_dir()
    print(f"1..{tap.number}", flush=True)
    sys.exit(1 if tap.failed else 0)
