#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From one build to the next with sandboxes that live on, and back. T58.

Builds an older commit of this repository, lets its daemon make sandboxes, stops or kills it, and starts
this build on the same directories. The agents are then those of the old build, and everything must work
with them. Then old against new on the command line, and an older program on a newer database.

Which commit: the parent of the newest one that changed agent, node or proto, or that of the newest migration
of the last MIGRATION_WITHIN commits, whichever is older; so that the agent differs, and where possible the
database too. AVIARY_UPGRADE_FROM names another. Without history (a shallow clone, no git) the test skips.
"""
import base64
import http.client
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile

import aviary_test
import ws
from aviary_test import SLOW, Daemon, contains, equal, ok, program, wait_for

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
NEW = os.path.abspath(os.environ.get("AVIARY_BUILD_DIR") or os.environ.get("AVIARY_BUILD", "build"))
TARGETS = ("src/daemon/aviaryd", "src/spawn/aviary-spawn", "src/agent/aviary-agent", "src/cli/aviary")
PROTOCOLS = ("src/agent", "src/node", "src/proto")
MIGRATIONS = "src/store/migrations"
MIGRATION_WITHIN = 60  # commits; one further back says nothing about the next upgrade
BUILD_TIMEOUT_S = 900
PORT = 3000
OLD = {}  # "build": directory, "commit": full name


def skip_all(why):
    print(f"1..0 # SKIP {why}")
    sys.exit(0)


# -- the older build ----------------------------------------------------------------------------


def git(*args):
    """Output of a git command in the source tree, None when it fails."""
    try:
        r = subprocess.run(["git", "-C", ROOT, *args], capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return None
    return r.stdout.strip() if r.returncode == 0 else None


def older_commit():
    named = os.environ.get("AVIARY_UPGRADE_FROM")
    if named:
        commit = git("rev-parse", "--verify", "--quiet", f"{named}^{{commit}}")
        if not commit:
            raise SystemExit(f"Bail out! AVIARY_UPGRADE_FROM: there is no commit {named}")
        return commit
    if git("rev-parse", "--git-dir") is None:
        skip_all("the source tree is no git repository, or git is not there: no older build to come from")
    if git("rev-parse", "--is-shallow-repository") != "false":
        skip_all("a shallow clone has no older commit to build; git fetch --unshallow gets them")
    changed = git("log", "-1", "--format=%H", "--", *PROTOCOLS)
    migrated = git("log", f"-{MIGRATION_WITHIN}", "--format=%H", "--", MIGRATIONS) or ""
    near = set((git("log", f"-{MIGRATION_WITHIN}", "--format=%H") or "").split())
    parents = [git("rev-parse", "--verify", "--quiet", f"{c}^")
               for c in [changed, *migrated.split()[:1]] if c and (c == changed or c in near)]
    parents = [p for p in parents if p]
    if not parents:
        skip_all("the history has no commit before this agent")
    return max(parents, key=lambda p: int(git("rev-list", "--count", f"{p}..HEAD")))


def build_older(commit):
    """Configures and builds what is needed of the commit, once; returns the build directory."""
    top = os.path.join(NEW, "upgrade", commit[:12])
    source, build = os.path.join(top, "source"), os.path.join(top, "build")
    if not all(os.access(os.path.join(build, t), os.X_OK) for t in TARGETS):
        shutil.rmtree(os.path.join(NEW, "upgrade"), ignore_errors=True)  # others grow old here
        os.makedirs(source)
        with subprocess.Popen(["git", "-C", ROOT, "archive", commit], stdout=subprocess.PIPE) as archive:
            subprocess.run(["tar", "-x", "-C", source], stdin=archive.stdout, timeout=60, check=True)
        for argv in (["meson", "setup", build, source, "-Dbuildtype=debug", "-Doptimization=0", "-Dwerror=false"],
                     ["ninja", "-C", build, "--quiet", *TARGETS]):
            # meson's own environment of a test run is none of the inner one's business
            r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                               stdin=subprocess.DEVNULL, timeout=BUILD_TIMEOUT_S, check=False)
            if r.returncode:
                print("\n".join(f"# {line}" for line in r.stdout.splitlines()[-30:]))
                raise SystemExit(f"Bail out! {commit[:12]} does not build: {' '.join(argv)} exits {r.returncode}")
    return build


def use(build):
    """Daemons that start from here on, and program(), are of this build."""
    os.environ["AVIARY_BUILD_DIR"] = build


def versions():
    """Schema versions that the old and the new build write."""
    return [len([n for n in os.listdir(os.path.join(root, MIGRATIONS)) if n.endswith(".sql")])
            for root in (os.path.join(OLD["build"], "..", "source"), ROOT)]


# -- life in a sandbox --------------------------------------------------------------------------


def path(sandbox, rest=""):
    return f"/v1/sandboxes/{sandbox}{rest}"


def background(d, sandbox, script, tag):
    return d.expect(202, "POST", path(sandbox, "/exec"), {"cmd": "/bin/sh", "args": ["-c", script],
                                                          "background": True, "tag": tag}).json()["pid"]


def socket_of(d, sandbox, rest):
    return ws.WebSocket(d.host, d.port, path(sandbox, rest), headers={"X-API-Key": d.key}, timeout=30 * SLOW)


def collect(s, kinds, until):
    """Reads messages of these types until their text has `until`; returns it."""
    seen = ""
    while until not in seen:
        m = s.recv_json()
        ok(m is not None and m["type"] not in ("exit", "error"), f"waiting for {until!r} after {seen[-200:]!r}: {m}")
        if m["type"] in kinds:
            seen += m["data"] if m["type"] != "output" else base64.b64decode(m["data"]).decode("utf-8", "replace")
    return seen


def run_code(d, sandbox, code):
    r = d.expect(200, "POST", path(sandbox, "/run_code"), {"code": code}, timeout=60).json()
    equal(r["status"], "ok", f"run_code of {code!r}: {r}")
    return r["results"][0]["data"]["text/plain"] if r["results"] else None


def ask_port(d, sandbox):
    conn = http.client.HTTPConnection(d.host, d.port, timeout=30 * SLOW)
    try:
        conn.request("GET", "/hello", headers={"Host": f"{PORT}-{sandbox}.localhost:{d.port}", "X-API-Key": d.key})
        answer = conn.getresponse()
        return answer.status, answer.read()
    finally:
        conn.close()


def populate(d):
    """Sandboxes of the old build with something going on in each of them; returns what to look for."""
    busy, paused, source = (d.create(metadata={"who": who}, timeout_sec=3600)["id"] for who in ("busy", "paused", "source"))
    was = {"busy": busy, "paused": paused, "source": source}
    was["counter"] = background(d, busy, "n=0; while :; do n=$((n+1)); echo line $n; echo $n >/tmp/c; mv /tmp/c /tmp/count; sleep 0.05; done",
                                "counter")
    background(d, busy, "mkdir -p /tmp/www; echo from the port >/tmp/www/hello; cd /tmp/www; "
               f"exec python3 -m http.server --bind 127.0.0.1 {PORT}", "server")
    with socket_of(d, busy, "/pty") as s:
        s.send_json({"type": "start", "cmd": "/bin/sh", "tag": "shell"})
        equal(s.recv_json()["type"], "started", "a terminal of the old build")
        s.send_json({"type": "input", "data": base64.b64encode(b"OLD=$((40+2)); echo set-$OLD\n").decode()})
        collect(s, ("output",), "set-42")
    run_code(d, busy, "kept = 41")
    d.expect(204, "PUT", path(busy, "/files?path=/root/file"), b"old \0 bytes")
    wait_for(lambda: ask_port(d, busy)[0] == 200, 20, "the server in the sandbox listens")
    was["paused_counter"] = background(d, paused, "while :; do echo >>/tmp/n; sleep 0.02; done", "ticks")
    was["can_pause"] = d.request("POST", path(paused, "/pause")).status == 200
    d.exec(source, "echo in the snapshot >/root/snap")
    r = d.request("POST", "/v1/snapshots", {"sandbox_id": source, "name": "old-snapshot", "stop": not was["can_pause"]},
                  timeout=60)
    equal(r.status, 201, f"snapshot of the old build: {r.body}")
    was["made"] = d.create(template="old-snapshot")["id"]
    was["ended"] = d.create()["id"]
    d.delete(was["ended"])
    return was


def check_processes(d, was):
    busy = was["busy"]
    listed = d.expect(200, "GET", path(busy, "/processes")).json()["processes"]
    tags = {p.get("tag"): p["pid"] for p in listed}
    equal(tags.get("counter"), was["counter"], f"pid of the old background process: {listed}")
    ok("shell" in tags and "server" in tags, f"the other processes: {listed}")
    first = int(d.exec(busy, "cat /tmp/count")["stdout"])
    wait_for(lambda: int(d.exec(busy, "cat /tmp/count")["stdout"] or 0) > first, 10, "the counter counts on")
    with socket_of(d, busy, "/processes/counter/stream") as s:
        collect(s, ("stdout",), f"line {first + 1}\n")
    with socket_of(d, busy, "/pty") as s:
        s.send_json({"type": "connect", "tag": "shell"})
        s.send_json({"type": "resize", "cols": 133, "rows": 40})
        s.send_json({"type": "input", "data": base64.b64encode(b"echo still-$OLD; stty size\n").decode()})
        collect(s, ("output",), "40 133")
        s.send_json({"type": "input", "data": base64.b64encode(b"exit 5\n").decode()})
        m = s.recv_json()
        while m["type"] in ("output", "ping"):
            m = s.recv_json()
        equal((m["type"], m.get("exit_code")), ("exit", 5), "end of the old terminal")
    d.expect(204, "DELETE", path(busy, "/processes/counter"))
    wait_for(lambda: "counter" not in [p.get("tag") for p in d.expect(
        200, "GET", path(busy, "/processes")).json()["processes"]], 10, "the old process is killed")


def check_new_work(d, sandbox):
    """Everything that begins anew in a sandbox whose agent is the old build's."""
    r = d.exec(sandbox, "echo out; echo err >&2; exit 3")
    equal((r["stdout"], r["stderr"], r["exit_code"]), ("out\n", "err\n", 3), "exec")
    equal(d.expect(504, "POST", path(sandbox, "/exec"), {"cmd": "sleep", "args": ["600"], "timeout_sec": 1}).code,
          "agent_error", "time-out of an exec")
    with socket_of(d, sandbox, "/exec/stream") as s:
        s.send_json({"type": "start", "cmd": "cat", "stdin": True})
        equal(s.recv_json()["type"], "start", "exec stream")
        s.send_json({"type": "stdin", "data": "to and fro\n"})
        collect(s, ("stdout",), "to and fro")
        s.send_json({"type": "stdin_close"})
        equal(s.recv_json()["exit_code"], 0, "end of the stream")
    data = os.urandom(3 << 20)
    d.expect(204, "PUT", path(sandbox, "/files?path=/root/new/big"), data)
    ok(d.expect(200, "GET", path(sandbox, "/files?path=/root/new/big")).body == data, "a file there and back")
    entry = d.expect(200, "POST", path(sandbox, "/files/stat"), {"path": "/root/new/big"}).json()["entry"]
    equal((entry["type"], entry["size"]), ("file", len(data)), "stat")
    names = [e["name"] for e in d.expect(200, "POST", path(sandbox, "/files/list"), {"path": "/root/new"}).json()["entries"]]
    equal(names, ["big"], "list")
    archive = d.expect(200, "GET", path(sandbox, "/files/tar?path=/root/new")).body
    r = d.expect(200, "PUT", path(sandbox, "/files/tar?path=/root/copy"), archive).json()
    equal(r["entries"] > 0, True, "tar there and back")
    d.expect(204, "POST", path(sandbox, "/files/remove"), {"path": "/root/new"})
    equal(d.exec(sandbox, "wc -c </root/copy/big; ls /root")["stdout"].split()[0], str(len(data)), "what tar brought")


def check_pause(d, was):
    if not was["can_pause"]:
        print("# nothing can be paused on this machine")
        return
    paused = was["paused"]
    equal(d.expect(200, "GET", path(paused)).json()["status"], "paused", "what the old build paused")
    d.expect(200, "POST", path(paused, "/resume"))

    def count():
        return int(d.exec(paused, "wc -l </tmp/n")["stdout"])

    now = count()
    wait_for(lambda: count() > now, 10, "it goes on")
    d.expect(200, "POST", path(paused, "/pause"))
    d.expect(200, "POST", path(paused, "/resume"))
    equal(d.expect(200, "GET", path(was["source"])).json()["status"], "paused", "the source of the old snapshot")


def check_snapshots(d, was):
    contains([t["name"] for t in d.expect(200, "GET", "/v1/snapshots").json()], "old-snapshot", "templates")
    equal(d.exec(was["made"], "cat /root/snap")["stdout"], "in the snapshot\n", "a sandbox of the old snapshot")
    fresh = d.create(template="old-snapshot")["id"]
    equal(d.exec(fresh, "cat /root/snap")["stdout"], "in the snapshot\n", "a new one of the old snapshot")
    body = {"sandbox_id": was["busy"], "name": "new-of-old", "stop": not was["can_pause"]}
    equal(d.request("POST", "/v1/snapshots", body, timeout=60).status, 201, "a new snapshot of an old sandbox")
    copy = d.create(template="new-of-old")["id"]
    equal(d.expect(200, "GET", path(copy, "/files?path=/root/file")).body, b"old \0 bytes", "what is in it")


def check_all(d, was):
    living = {was[k] for k in ("busy", "paused", "source", "made")}
    if not was["can_pause"]:
        living.discard(was["source"])
    equal({s["id"] for s in d.expect(200, "GET", "/v1/sandboxes").json()}, living, "what lives")
    equal(d.expect(200, "GET", path(was["busy"])).json()["metadata"], {"who": "busy"}, "a record")
    ok(any(s["id"] == was["ended"] for s in d.expect(200, "GET", "/v1/sandboxes?status=all").json()), "the past")
    check_processes(d, was)
    check_new_work(d, was["busy"])
    equal(run_code(d, was["busy"], "kept + 1"), "42", "the old kernel and its variable")
    equal(ask_port(d, was["busy"]), (200, b"from the port\n"), "a port, through the old agent")
    equal(d.expect(200, "GET", path(was["busy"], "/files?path=/root/file")).body, b"old \0 bytes", "an old file")
    check_pause(d, was)
    check_snapshots(d, was)


def kill_daemon(d):
    """kill -9 of all three processes; the children may not end later than the supervisor."""
    pids = list(d.pids().values())
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    d.process.wait()
    d.process.stdout.close()
    d.process = None
    wait_for(lambda: not any(os.path.exists(f"/proc/{p}") for p in pids[1:]), 10, "its processes are gone")


def options_known(args):
    """Of pairs (option, value) those that the program in use knows: an old one may lack some."""
    known = subprocess.run([program("aviaryd"), "--help"], capture_output=True, text=True, timeout=30, check=True).stdout
    return [word for i in range(0, len(args), 2) for word in args[i:i + 2] if f"{args[i]} " in known]


def upgrade(end, also_before=None):
    d = Daemon()
    args = d.args
    try:
        use(OLD["build"])
        d.args = options_known(args)
        d.start()
        key = d.key
        was = populate(d)
        use(NEW)
        if also_before:
            also_before(d)
        end(d)
        d.args = args
        d.start()
        equal(d.key, key, "the key stays")
        check_all(d, was)
        d.delete_all()
        for name in ("new-of-old", "old-snapshot"):
            d.expect(204, "DELETE", f"/v1/snapshots/{name}")
        equal(d.stop(), 0, "exit status")
        aviary_test.nothing_left(d)
    except BaseException:
        print("\n".join(f"# {line}" for line in d.log_tail().splitlines()))
        raise
    finally:
        use(NEW)
        d.sweep()
        d.remove_dir()


# -- tests --------------------------------------------------------------------------------------


def first_day(d):
    """What a user does with the command line, this one of the build in use."""
    aviary, env = program("aviary"), {"PATH": os.environ["PATH"], "AVIARY_URL": d.url, "AVIARY_API_KEY": d.key}

    def run(*args, code=0):
        r = subprocess.run([aviary, *args], env=env, capture_output=True, text=True, timeout=50 * SLOW,
                           stdin=subprocess.DEVNULL, check=False)
        equal(r.returncode, code, f"exit status of {args}: {r.stderr}")
        return r.stdout

    with tempfile.TemporaryDirectory(prefix="aviary-test-") as own:
        with open(os.path.join(own, "file"), "wb") as f:
            f.write(os.urandom(1 << 20))
        sandbox = run("create").strip()
        contains(run("ls", "-q"), sandbox, "ls")
        equal(run("exec", sandbox, "--", "sh", "-c", "echo hello; exit 4", code=4), "hello\n", "exec")
        run("cp", f"{own}/file", f"{sandbox}:/root/file")
        run("cp", f"{sandbox}:/root/file", f"{own}/back")
        with open(f"{own}/file", "rb") as a, open(f"{own}/back", "rb") as b:
            ok(a.read() == b.read(), "a file there and back")
        contains(run("ps", sandbox), "PID", "ps")
        run("rm", sandbox)
        equal(run("run", "--", "echo", "hi"), "hi\n", "run")
        ok(sandbox not in run("ls", "-q"), "rm")


def test_upgrade_after_a_stop(_d):
    """Before that, the new command line with the old daemon."""
    upgrade(lambda d: equal(d.stop(), 0, "exit status of the old daemon"), also_before=first_day)


def test_upgrade_after_kill(_d):
    upgrade(kill_daemon)


def test_old_command_line_with_the_new_daemon(d):
    use(OLD["build"])
    try:
        first_day(d)
    finally:
        use(NEW)


def database(d):
    return os.path.join(d.state, "db", "aviary.db")


def set_version(d, version):
    """Writes the schema version, keeping the owner of all files; returns what it was."""
    owner = os.stat(database(d))
    db = sqlite3.connect(database(d))
    before = db.execute("PRAGMA user_version").fetchone()[0]
    if version is not None:
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    for name in os.listdir(os.path.dirname(database(d))):
        os.chown(os.path.join(os.path.dirname(database(d)), name), owner.st_uid, owner.st_gid)
    return before


def content(d):
    """All that is in the database, as SQL."""
    db = sqlite3.connect(f"file:{database(d)}?mode=ro", uri=True)
    try:
        return db.execute("PRAGMA user_version").fetchone()[0], "\n".join(db.iterdump())
    finally:
        db.close()


def refused(d, build, parts):
    """The reason is told. This build gives up then; older ones went on trying, so they are stopped."""
    use(build)
    log = os.path.join(d.dir, "refused")
    with open(log, "wb") as f, \
            subprocess.Popen([program("aviaryd"), "--state", d.state, "--run", d.run, "--listen", "127.0.0.1:0",
                              "--config", "/dev/null", "--credentials", d.credentials], stdin=subprocess.DEVNULL,
                             stdout=f, stderr=f) as p:
        use(NEW)

        def said():
            with open(log, encoding="utf-8", errors="replace") as text:
                return text.read()
        try:
            wait_for(lambda: all(part in said() for part in parts) or p.poll() is not None, 20, f"the refusal: {said()}")
            for part in parts:
                contains(said(), part, "the reason")
            if build == NEW:
                equal(p.wait(20 * SLOW), 78, f"exit status, and no attempt after attempt: {said()}")
        finally:
            p.terminate()
            try:
                p.wait(20 * SLOW)
            except subprocess.TimeoutExpired:
                p.kill()


def test_downgrade_is_refused(_d):
    """By the old build where its database is older, and by this one, which is the older one of tomorrow."""
    d = Daemon()
    try:
        d.start()
        sandbox = d.create()["id"]
        pid = background(d, sandbox, "exec sleep 1000", "sleeper")
        equal(d.stop(), 0, "exit status")
        old, new = versions()
        equal(set_version(d, None), new, "version of the database")
        tries = [(NEW, new + 1, new)] + ([(OLD["build"], new, old)] if old < new else [])
        for build, version, knows in tries:
            set_version(d, version)
            before = content(d)
            refused(d, build, (f"schema version {version}", f"knows versions up to {knows}", "newer Aviary",
                               database(d)))
            equal(content(d), before, "the database after the refusal")
        if old == new:
            print("# both builds write the same version of the database")
        set_version(d, new)
        d.start()
        listed = d.expect(200, "GET", path(sandbox, "/processes")).json()["processes"]
        ok(any(p["pid"] == pid for p in listed), f"the sandbox has noticed nothing: {listed}")
        d.delete_all()
        d.stop()
        aviary_test.nothing_left(d)
    finally:
        d.sweep()
        d.remove_dir()


def go_back(d, version):
    """As docs/operations.md says it, with the daemon stopped."""
    kept = f"{database(d)}.v{version}"
    equal(os.stat(kept).st_mode & 0o777, 0o600, "the database of before is kept, for nobody else to read")
    equal(os.stat(kept).st_uid, os.stat(database(d)).st_uid, "it is the daemon's")
    for end in ("-wal", "-shm"):
        if os.path.exists(database(d) + end):
            os.unlink(database(d) + end)
    os.rename(kept, database(d))


def test_forward_and_back(_d):
    """The older build on the database that the upgrade kept, and forward once more."""
    old, new = versions()
    if old == new:
        raise aviary_test.Skip("both builds write the same version of the database")
    d = Daemon()
    args = d.args
    try:
        use(OLD["build"])
        d.args = options_known(args)
        d.start()
        sandbox = d.create()["id"]
        d.exec(sandbox, "echo content >/root/file")
        key = d.key
        equal(d.stop(), 0, "exit status of the old daemon")
        use(NEW)
        d.args = args
        d.start()
        later = d.create()["id"]
        equal(d.stop(), 0, "exit status of the new daemon")
        go_back(d, old)
        use(OLD["build"])
        d.args = options_known(args)
        d.start()
        equal(d.key, key, "the key stays")
        equal(d.exec(sandbox, "cat /root/file")["stdout"], "content\n", "the sandbox of before goes on")
        equal(d.request("GET", path(later)).status, 404, "one of the new version is not known")
        d.delete(d.create()["id"])
        equal(d.stop(), 0, "exit status of the old daemon")
        use(NEW)
        d.args = args
        d.start()
        equal(d.exec(sandbox, "cat /root/file")["stdout"], "content\n", "forward once more")
        d.delete_all()
        equal(d.stop(), 0, "exit status")
        aviary_test.nothing_left(d)
    finally:
        use(NEW)
        d.sweep()
        d.remove_dir()


for _function in (test_upgrade_after_a_stop, test_upgrade_after_kill, test_forward_and_back):
    _function.timeout_s = 120

if __name__ == "__main__":
    OLD["commit"] = older_commit()
    OLD["build"] = build_older(OLD["commit"])
    print(f"# from {git('log', '-1', '--format=%h %s', OLD['commit'])}; "
          f"database versions {' and '.join(map(str, versions()))}")
    aviary_test.main(globals())
