#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The escape suite: uploads each attack into a sandbox, runs it as root there, and wants it to fail.

    escape.py [--mode MODE] [test...]

Modes: default; noseccomp (the filter off: what must hold without it); fd, names, shifted (one way of
mounting layers forced); sudo-off. After each attack the daemon answers, a bystander sandbox works, and the
host is as it was.
"""
import io
import os
import shlex
import socket
import stat
import sys
import tarfile
import threading
import time
import urllib.parse

import aviary_test
import ws
from aviary_test import SLOW, Failure, equal, ok

MODE = "default"
if "--mode" in sys.argv:
    at = sys.argv.index("--mode")
    MODE = sys.argv[at + 1]
    del sys.argv[at:at + 2]
SPAWN_OPTIONS = {"noseccomp": "--no-seccomp", "fd": "--overlay fd", "names": "--overlay names",
                 "shifted": "--overlay shifted"}
BUILD = os.environ.get("AVIARY_BUILD", "build")
MEMORY_MIB = 256


def attack_program(name):
    for path in (os.path.join(BUILD, name), os.path.join(BUILD, "tests", "escape", name)):
        if os.path.isfile(path):
            return path
    raise Failure(f"{name} is not built")


def put(d, sandbox, path, data):
    query = urllib.parse.urlencode({"path": path})
    return d.request("PUT", f"/v1/sandboxes/{sandbox}/files?{query}", data,
                     headers={"Content-Type": "application/octet-stream"})


def get(d, sandbox, path, timeout=30):
    query = urllib.parse.urlencode({"path": path})
    return d.request("GET", f"/v1/sandboxes/{sandbox}/files?{query}", timeout=timeout)


def upload(d, sandbox, name):
    with open(attack_program(name), "rb") as f:
        r = put(d, sandbox, f"/tmp/{name}", f.read())
    if r.status not in (200, 201, 204):
        raise Failure(f"upload of {name}: {r.status} {r.body[:200]}")
    d.exec(sandbox, f"chmod 755 /tmp/{name}")


def bystander(d):
    if not hasattr(d, "bystander"):
        d.bystander = d.create()["id"]
    return d.bystander


def host_is_well(d):
    equal(d.exec(bystander(d), "echo alive")["stdout"], "alive\n", "the bystander's echo")
    for name in ("/usr/.aviary-escape", "/.aviary-escape", "/etc/.aviary-escape"):
        ok(not os.path.lexists(name), f"{name} exists on the host")


def judge(name, result):
    """Every check of the program inside must have passed."""
    lines = result["stdout"].splitlines()
    for line in lines:
        print(f"#   {name}: {line}")
    bad = [line for line in lines if line.startswith("not ok")]
    good = [line for line in lines if line.startswith("ok")]
    ok(result["exit_code"] == 0 and good and not bad,
       f"{name}: exit {result['exit_code']}, {len(good)} held, broken: {bad} {result['stderr'][-500:]}")


def run_attack(d, name, *args, **create):
    create.setdefault("memory_mb", MEMORY_MIB)
    sandbox = d.create(**create)["id"]
    upload(d, sandbox, name)
    words = [f"/tmp/{name}"] + (["noseccomp"] if MODE == "noseccomp" else []) + [str(a) for a in args]
    judge(name, d.exec(sandbox, shlex.join(words), timeout_sec=60))
    d.delete(sandbox)
    host_is_well(d)


def test_t11_proc(d):
    run_attack(d, "t11_proc")


def test_t12_leaked_descriptors(d):
    run_attack(d, "t12_fds")


def test_t12_working_directory_through_a_descriptor(d):
    sandbox = d.create()["id"]
    for n in range(0, 20):
        r = d.request("POST", f"/v1/sandboxes/{sandbox}/exec",
                      {"cmd": "/bin/sh", "args": ["-c", "pwd -P; cat etc/hostname ../etc/hostname 2>/dev/null"],
                       "cwd": f"/proc/self/fd/{n}"})
        if r.status == 200:
            out = r.json()["stdout"]
            ok(out.startswith("/") or r.json()["exit_code"] != 0, f"cwd fd {n}: {out!r}")
            ok("(unreachable)" not in out and socket.gethostname() not in out.split("\n")[1:],
               f"cwd fd {n} leads out: {out!r}")
        else:
            ok(400 <= r.status < 500, f"cwd fd {n}: status {r.status}")
    d.delete(sandbox)
    host_is_well(d)


def test_t13_own_dev_and_proc_replaced(d):
    """A sandbox that turns its mount points into links harms only itself, also in later execs."""
    sandbox = d.create()["id"]
    d.exec(sandbox, "rm -rf /dev/null; ln -sfn /etc /dev/null 2>/dev/null; mv /proc /proc2 2>/dev/null; "
           "ln -sfn / /dev/pts/ptmx2 2>/dev/null; ln -sfn /etc/passwd /dev/stdin; true")
    d.request("POST", f"/v1/sandboxes/{sandbox}/exec", {"cmd": "/bin/true"})
    mode = os.lstat("/dev/null")
    ok(stat.S_ISCHR(mode.st_mode) and mode.st_rdev == os.makedev(1, 3), "the host's /dev/null is intact")
    d.delete(sandbox)
    host_is_well(d)


def test_t14_ptrace(d):
    run_attack(d, "t14_ptrace")


def test_t15_mounts(d):
    run_attack(d, "t15_mounts")


def test_t16_system_calls(d):
    run_attack(d, "t16_syscalls")


def test_t17_privilege(d):
    run_attack(d, "t17_privilege", "sudo")
    run_attack(d, "t17_privilege", "nosudo", sudo=False)


def test_t18_devices(d):
    before = os.lstat("/dev/null")
    run_attack(d, "t18_devices")
    after = os.lstat("/dev/null")
    equal((after.st_mode, after.st_uid), (before.st_mode, before.st_uid), "mode and owner of the host's /dev/null")


def test_t19_cgroups(d):
    run_attack(d, "t19_cgroups", MEMORY_MIB)


def test_t20_sockets(d):
    name = f"aviary-escape-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as abstract, socket.socket() as tcp:
        abstract.bind(b"\0" + name.encode())
        abstract.listen(1)
        tcp.bind(("127.0.0.1", 0))
        tcp.listen(1)
        run_attack(d, "t20_sockets", name, tcp.getsockname()[1])


def test_t23_two_sandboxes_do_not_meet(d):
    a, b = d.create()["id"], d.create()["id"]
    d.exec(a, "echo secret | tee /tmp/meet /dev/shm/meet /run/meet /var/tmp/meet /root/meet >/dev/null; "
           "python3 -c 'import socket; s=socket.socket(socket.AF_UNIX); s.bind(\"\\0meet\")' || true")
    found = d.exec(b, "cat /tmp/meet /dev/shm/meet /run/meet /var/tmp/meet /root/meet 2>/dev/null")["stdout"]
    equal(found, "", "what the second finds of the first")
    procs = d.exec(b, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")["stdout"]
    ok(a not in procs, f"the other's processes are visible: {procs}")
    for s in (a, b):
        d.delete(s)


HOSTILE_PATHS = ["../../../../etc/aviary-escape", "/../../etc/aviary-escape", "//etc//../../../aviary-escape",
                 "/proc/1/root/aviary-escape", "/proc/self/root/../../aviary-escape", "..%2f..%2faviary-escape",
                 "/tmp/" + "x" * 300, "/" + "a/" * 3000, "", "\udcff\udcfe", "/tmp/\u202eevil", "/tmp/a\nb"]


def test_t24_path_traversal(d):
    sandbox = d.create()["id"]
    canary = os.path.join(d.dir, "canary")
    with open(canary, "w", encoding="ascii") as f:
        f.write("untouched")
    for path in HOSTILE_PATHS + [canary, d.state + "/db/aviary.db", d.run + "/url"]:
        encoded = urllib.parse.quote(path.encode("utf-8", "surrogateescape"), safe="")
        for method, body in (("PUT", b"evil"), ("GET", None)):
            r = d.request(method, f"/v1/sandboxes/{sandbox}/files?path={encoded}", body,
                          headers={"Content-Type": "application/octet-stream"})
            ok(r.status < 500, f"{method} {path[:60]!r}: {r.status} {r.body[:200]}")
            ok(b"untouched" not in r.body, f"{method} {path[:60]!r} read the host's file")
    for raw in ("/tmp/a%00b", "%2e%2e/%2e%2e/etc/passwd%00.txt"):
        r = d.request("GET", f"/v1/sandboxes/{sandbox}/files?path={raw}")
        ok(400 <= r.status < 500, f"NUL in a path: {r.status}")
        ok(r.code == "invalid_request", f"NUL in a path: {r.body}")
    with open(canary, encoding="ascii") as f:
        equal(f.read(), "untouched", "the host's file")
    for place in ("/etc/aviary-escape", "/aviary-escape", d.dir + "/aviary-escape"):
        ok(not os.path.lexists(place), f"{place} was made on the host")
    d.delete(sandbox)
    host_is_well(d)


def test_t25_link_races(d):
    """While the sandbox swaps a directory and a link, uploads and downloads stay inside of it."""
    sandbox = d.create()["id"]
    upload(d, sandbox, "swap_race")
    d.exec(sandbox, "mkdir -p /race && chmod 777 /race")
    result = {}
    racer = threading.Thread(target=lambda: result.update(d.exec(sandbox, "/tmp/swap_race /race 6", timeout_sec=30)))
    racer.start()
    before = os.stat("/etc")
    names = set(os.listdir("/etc"))
    end, n, statuses = time.monotonic() + 5, 0, {}
    while time.monotonic() < end:
        for path, method in ((f"/race/d/new{n % 50}", "PUT"), ("/race/f", "PUT"), ("/race/f", "GET"),
                             ("/race/d/hostname", "GET"), ("/race/t/etc/hostname", "GET"),
                             (f"/race/t{d.dir}/log", "GET")):
            r = put(d, sandbox, path, b"race") if method == "PUT" else get(d, sandbox, path)
            statuses[r.status] = statuses.get(r.status, 0) + 1
            ok(r.status < 500 or r.status == 507, f"{method} {path}: {r.status} {r.body[:200]}")
            ok(socket.gethostname().encode() not in r.body or method == "PUT" or b"race" in r.body,
               f"{method} {path} shows the host's name")
        n += 1
    racer.join()
    print(f"# {n} rounds, answers {statuses}")
    judge("swap_race", result)
    ok(set(os.listdir("/etc")) == names and os.stat("/etc").st_mtime == before.st_mtime, "the host's /etc changed")
    d.delete(sandbox)
    host_is_well(d)


def test_t26_not_a_file(d):
    sandbox = d.create()["id"]
    d.exec(sandbox, "cd /tmp && mkfifo fifo && mkdir dir && ln -s dir dirlink && ln -s loop loop && ln -s /nowhere dangling "
           "&& python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'; true")
    for name in ("fifo", "dir", "dirlink", "loop", "sock"):
        for method in ("GET", "PUT"):
            began = time.monotonic()
            r = get(d, sandbox, f"/tmp/{name}") if method == "GET" else put(d, sandbox, f"/tmp/{name}", b"x")
            ok(400 <= r.status < 500, f"{method} of a {name}: {r.status} {r.body[:200]}")
            ok(time.monotonic() - began < 5 * SLOW, f"{method} of a {name} took {time.monotonic() - began:.1f} s")
            ok(r.message, f"{method} of a {name} explains itself")
    for path in ("/dev/zero", "/dev/urandom", "/dev/tty", "/dev/full"):
        r = get(d, sandbox, path)
        ok(400 <= r.status < 500, f"GET {path}: {r.status}")
    for path in ("/proc/kmsg", "/proc/self/mem", "/proc/1/mem", "/proc/kcore"):
        began = time.monotonic()
        r = get(d, sandbox, path, timeout=20)
        ok(time.monotonic() - began < 15 * SLOW and len(r.body) < 64 << 20, f"GET {path} ends, with {len(r.body)} bytes")
    r = get(d, sandbox, "/proc/cpuinfo")
    ok(r.status == 200 and b"processor" in r.body, "a file of /proc, whose size is 0, is read to its end")
    d.delete(sandbox)
    host_is_well(d)


def files(d, sandbox, verb, **body):
    return d.request("POST", f"/v1/sandboxes/{sandbox}/files/{verb}", body)


def tar(d, sandbox, path, data=None):
    query = urllib.parse.urlencode({"path": path})
    return d.request("GET" if data is None else "PUT", f"/v1/sandboxes/{sandbox}/files/tar?{query}", data)


def archive(*names):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 4
            t.addfile(info, io.BytesIO(b"evil"))
    return out.getvalue()


def watch(d, sandbox, path, **query):
    query = urllib.parse.urlencode({"path": path, **query})
    return ws.WebSocket(d.host, d.port, f"/v1/sandboxes/{sandbox}/files/watch?{query}", {"X-API-Key": d.key})


def test_t24_every_file_call(d):
    sandbox = d.create()["id"]
    canary = os.path.join(d.dir, "canary")
    os.makedirs(os.path.join(d.dir, "tree"), exist_ok=True)
    with open(canary, "w", encoding="ascii") as f:
        f.write("untouched")
    mode = os.stat(canary).st_mode
    for path in HOSTILE_PATHS + [canary, d.dir, d.dir + "/tree", d.state + "/db", "/proc/self/fd/0", "/proc/1/cwd"]:
        shown = repr(path[:60])
        for verb, body in (("stat", {}), ("list", {"depth": 3}), ("chmod", {"mode": "777"}), ("remove", {}), ("url", {})):
            r = files(d, sandbox, verb, path=path, **body)
            ok(r.status < 500, f"{verb} {shown}: {r.status} {r.body[:200]}")
            ok(b"aviary.db" not in r.body or verb == "url", f"{verb} {shown} shows the host")
        for body in ({"source": path, "destination": "/tmp/moved"}, {"source": "/tmp/moved", "destination": path}):
            r = files(d, sandbox, "move", **body)
            ok(r.status < 500, f"move {body}: {r.status} {r.body[:200]}")
        if any(0xdc80 <= ord(c) < 0xdd00 for c in path):
            continue
        for r in (tar(d, sandbox, path), tar(d, sandbox, path, archive("canary", "aviary-escape")),
                  files(d, sandbox, "mkdir", path=path)):
            ok(r.status < 500 and b"untouched" not in r.body, f"{shown}: {r.status} {r.body[:200]}")
        try:
            with watch(d, sandbox, path) as w:
                w.recv_json()
        except ws.HandshakeError as e:
            ok(400 <= e.status < 500, f"watch {shown}: {e.status}")
    with open(canary, encoding="ascii") as f:
        equal((f.read(), os.fstat(f.fileno()).st_mode), ("untouched", mode), "the host's file")
    equal(os.listdir(os.path.join(d.dir, "tree")), [], "the host's directory")
    for place in ("/etc/aviary-escape", "/aviary-escape", d.dir + "/aviary-escape"):
        ok(not os.path.lexists(place), f"{place} was made on the host")
    d.delete(sandbox)
    host_is_well(d)


def test_t25_races_against_trees(d):
    """A user swaps a directory and a link to /etc while root's calls go through the tree around them:
    none of them may reach /etc of the sandbox, let alone of the host."""
    sandbox = d.create()["id"]
    upload(d, sandbox, "swap_race")
    state = "stat -c '%a %U %n' /etc /etc/passwd /etc/hostname; ls /etc | wc -l"
    d.exec(sandbox, "mkdir -m 777 /race /race2 && mkdir /race/deep")
    before = d.exec(sandbox, state)["stdout"]
    host = (set(os.listdir("/etc")), os.stat("/etc").st_mtime)
    result = {}
    churn = ("end=$(($(date +%s) + 6)); while [ $(date +%s) -lt $end ]; do for i in 1 2 3 4 5 6 7 8 9; do "
             "mkdir -p /race2/d/s; rm -rf /race2/d; ln -s /etc /race2/d; rm -f /race2/d; done; done 2>/dev/null; true")
    threads = [threading.Thread(target=lambda: result.update(d.exec(sandbox, "/tmp/swap_race /race 6", timeout_sec=30))),
               threading.Thread(target=lambda: d.exec(sandbox, churn, user="user", timeout_sec=30))]
    for t in threads:
        t.start()
    watcher = watch(d, sandbox, "/race", recursive="true")
    end, n, statuses = time.monotonic() + 5, 0, {}
    while time.monotonic() < end:
        listing = files(d, sandbox, "list", path="/race", depth=9)
        packed = tar(d, sandbox, "/race")
        for r in (listing, packed, files(d, sandbox, "chmod", path="/race", mode="777", owner="user", recursive=True),
                  files(d, sandbox, "chmod", path="/race2", mode="777", owner="user", recursive=True),
                  files(d, sandbox, "remove", path="/race2/d"), tar(d, sandbox, "/race", archive("d/evil-entry", "deep/x")),
                  files(d, sandbox, "stat", path="/race/d")):
            statuses[r.status] = statuses.get(r.status, 0) + 1
            ok(r.status < 500, f"round {n}: {r.status} {r.body[:200]}")
        ok(b"d/passwd" not in listing.body and b"d/passwd" not in packed.body, "a tree leads through the link")
        n += 1
    for t in threads:
        t.join()
    print(f"# {n} rounds, answers {statuses}")
    ok(n > 3 and statuses.get(200, 0) > n, "the calls did their work")
    judge("swap_race", result)
    equal(d.exec(sandbox, state)["stdout"], before, "/etc of the sandbox")
    while True:
        message = watcher.recv_json()
        ok(message["type"] != "error" and not message.get("name", "").startswith(("d/passwd", "d.link/passwd")), message)
        if message.get("name") == "deep/x" or message["type"] == "overflow":
            break
    watcher.abort()
    equal((set(os.listdir("/etc")), os.stat("/etc").st_mtime), host, "the host's /etc")
    d.delete(sandbox)
    host_is_well(d)


def test_t26_every_file_call(d):
    sandbox = d.create()["id"]
    d.exec(sandbox, "mkdir /odd && cd /odd && mkfifo fifo && ln -s loop loop && ln -s /nowhere dangling && ln -s /dev/zero zero "
           "&& python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'; true")
    began = time.monotonic()
    for name in ("/odd/fifo", "/odd/sock", "/odd/loop", "/odd/dangling", "/odd/zero", "/dev/tty", "/dev/ptmx"):
        equal(files(d, sandbox, "stat", path=name).json()["entry"]["type"] in ("file", "symlink"), True, f"stat of {name}")
        for r in (files(d, sandbox, "list", path=name), tar(d, sandbox, name), tar(d, sandbox, name, archive("x"))):
            ok(400 <= r.status < 500 and r.message, f"{name}: {r.status} {r.body[:200]}")
        with watch(d, sandbox, name) as w:
            equal(w.recv_json()["type"], "error", f"watch of {name}")
    ok(files(d, sandbox, "list", path="/odd").status == 200, "a list of such")
    equal(tarfile.open(fileobj=io.BytesIO(tar(d, sandbox, "/odd").body)).getnames(), [".", "./dangling", "./loop", "./zero"],
          "an archive of such holds the links")
    ok(files(d, sandbox, "list", path="/proc", depth=3).status == 200, "a list of procfs")
    equal(tar(d, sandbox, "/proc").status, 400, "an archive of procfs")
    for name in ("fifo", "sock", "loop", "dangling", "zero"):
        equal(files(d, sandbox, "remove", path=f"/odd/{name}").status, 204, f"removal of {name}")
    equal(d.exec(sandbox, "test -c /dev/zero && echo there")["stdout"], "there\n", "the device")
    ok(time.monotonic() - began < 20 * SLOW, f"all of it took {time.monotonic() - began:.1f} s")
    d.delete(sandbox)
    host_is_well(d)


if os.geteuid() != 0:
    print("1..0 # SKIP the escape suite needs root: it proves what root's sandboxes cannot do")
    sys.exit(0)
if __name__ == "__main__":
    aviary_test.main(globals(), spawn_options=SPAWN_OPTIONS.get(MODE, ""))
