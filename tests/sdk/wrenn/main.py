#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The unmodified `wrenn` package from its registry against a real daemon, with nothing but base URL and key set.

    main.py VERSION [test_name...]

Every test runs twice, with the synchronous classes and with the asynchronous ones (blocking.py), and the last one asks
whether any public method of either was not called (driven.py).

The package is installed below the build tree (WRENN_SITE names a ready directory instead). Its wish for Python 3.13 is not
heard: it runs on 3.11. The one thing the tests do to the process is to resolve *.localhost, which glibc does not.
"""
import base64
import hashlib
import os
import pathlib
import queue
import re
import shutil
import socket
import subprocess
import sys
import time
import warnings

import aviary_test
from aviary_test import Failure, Skip, contains, equal, ok, wait_for

import blocking
import driven

VERSION = sys.argv.pop(1)
MIB = 1 << 20
CHOSEN = len(sys.argv) > 1  # some tests only


def install():
    """A directory with the package and what it needs."""
    site = pathlib.Path(os.environ.get("WRENN_SITE") or
                        pathlib.Path(os.environ.get("AVIARY_BUILD", "build")) / "sdk" / f"wrenn-{VERSION}")
    if not (site / "wrenn").is_dir():
        part = site.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        run = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--ignore-requires-python", "--target", str(part),
                              f"wrenn=={VERSION}"], capture_output=True, text=True, check=False, timeout=150)
        if run.returncode != 0:
            print(f"1..0 # SKIP wrenn {VERSION} cannot be installed: {run.stderr.strip().splitlines()[-1:]}")
            sys.exit(0)
        shutil.rmtree(site, ignore_errors=True)
        part.rename(site)
    sys.path.insert(0, str(site))


install()
warnings.simplefilter("ignore", FutureWarning)  # names that a later version calls otherwise
import httpx  # noqa: E402
import wrenn  # noqa: E402
driven.watch(wrenn)
from wrenn import exceptions  # noqa: E402
from wrenn.client import AsyncWrennClient, WrennClient  # noqa: E402
import wrenn.code_interpreter as code  # noqa: E402

resolve = socket.getaddrinfo


def resolve_localhost(host, *args, **more):
    name = host.decode() if isinstance(host, bytes) else host
    return resolve("127.0.0.1" if name and name.endswith(".localhost") else host, *args, **more)


socket.getaddrinfo = resolve_localhost


class Synchronous:
    name = ""
    Capsule, Code, Client = wrenn.Capsule, code.Capsule, WrennClient

    @staticmethod
    def close(client):
        client.close()


class Asynchronous:
    name = "async"
    Capsule, Code, Client = blocking.all_of(wrenn.AsyncCapsule, code.AsyncCapsule, AsyncWrennClient)

    @staticmethod
    def close(client):
        client.aclose()


def point_at(d, prefix="/api"):
    os.environ["WRENN_API_KEY"] = "wrn_" + d.key.split("_", 1)[1]
    os.environ["WRENN_BASE_URL"] = f"http://localhost:{d.port}{prefix}"


def raises(kind, code_expected, function, *args, **more):
    try:
        function(*args, **more)
    except kind as e:
        equal(getattr(e, "code", code_expected), code_expected, f"the code of {e!r}")
        return e
    raise Failure(f"{function} raised no {kind.__name__}")


def warm_up(d):
    d.delete(d.create()["id"])  # template host is made once, the SDK waits 5 s


def lifecycle(api, d):
    warm_up(d)
    for prefix in ("/api", ""):
        point_at(d, prefix)
        with api.Capsule.create(wait=True) as c:
            ok(c.is_running(), "it runs")
            equal((c.info.vcpus, c.info.memory_mb, c.info.template), (1, 512, "minimal"), "the defaults")
            c.ping()
            ok(c.capsule_id in [x.id for x in api.Capsule.list()], "it is listed")
            equal(c.pause().status.value, "paused", "pause")
            raises(exceptions.WrennConflictError, "invalid_state", c.commands.run, "true")
            raises(exceptions.WrennConflictError, "invalid_state", c.pause)
            equal(c.resume().status.value, "running", "resume")
            c.pause()
            again = api.Capsule.connect(c.capsule_id)
            equal(again.commands.run("echo $((6*7))").stdout, "42\n", "connect resumes")
        equal(api.Capsule.get_info(c.capsule_id).status.value, "stopped", "after the block")
        api.Capsule.destroy(c.capsule_id)
    c = api.Capsule.create(template="minimal", vcpus=2, memory_mb=256, timeout=60)
    c.wait_ready()
    equal((c.get_info().vcpus, c.get_info().memory_mb, c.get_info().timeout_sec), (2, 256, 60), "the wishes")
    equal(api.Capsule.pause(c.capsule_id).status.value, "paused", "by id")
    equal(api.Capsule.resume(c.capsule_id).status.value, "running", "by id")
    c.destroy()
    equal(c.get_info().status.value, "stopped", "destroyed")


def client(api, d):
    point_at(d)
    with api.Client() as w:
        c = w.capsules.create(template="minimal")
        equal(w.capsules.get(c.id).id, c.id, "get")
        ok(c.id in [x.id for x in w.capsules.list()], "list")
        w.capsules.ping(c.id)
        equal(w.capsules.pause(c.id).status.value, "paused", "pause")
        equal(w.capsules.resume(c.id).status.value, "running", "resume")
        if hasattr(WrennClient(), "events"):
            for span in (None, "5m", "1h", "6h", "24h", "30d"):
                ok(w.capsules.stats(range=span).current.running_count >= 1, "stats")
            ok(w.capsules.usage().points is not None, "usage")
            today = time.strftime("%Y-%m-%d", time.gmtime())
            ok(w.capsules.usage(from_=today, to=today).points is not None, "usage of a day")
            raises(exceptions.WrennValidationError, "invalid_request", w.capsules.usage, from_="2024-01-01", to="2023-01-01")
            for span in (None, "5m", "10m", "1h", "2h", "6h", "12h", "24h"):
                equal(w.capsules.metrics(c.id, range=span).sandbox_id, c.id, "metrics")
        w.capsules.destroy(c.id)
        # What the methods lack is asked for through the client below them.
        answer = w.http.get(f"/v1/capsules/{c.id}")
        equal(answer.json()["status"], "stopped", "a request of one's own")
    w = api.Client(api_key=os.environ["WRENN_API_KEY"], base_url=os.environ["WRENN_BASE_URL"])
    ok(w.capsules.list() is not None, "what the environment says may be said as well")
    api.close(w)


def commands(api, d):
    point_at(d)
    with api.Capsule.create(wait=True) as c:
        r = c.commands.run("echo out; echo err >&2; pwd; echo $X; exit 3", cwd="/tmp", envs={"X": "\u00e4\u20ac"})
        equal((r.stdout, r.stderr, r.exit_code), ("out\n/tmp\n\u00e4\u20ac\n", "err\n", 3), "a command")
        ok("\ufffd" in c.commands.run(r"printf '\377\376'").stdout, "bytes that are no text")
        began = time.monotonic()
        raises(exceptions.WrennError, "agent_error", c.commands.run, "sleep 60 & sleep 60", timeout=1)
        ok(time.monotonic() - began < 20, "a time-out ends it")
        equal(c.commands.run("pgrep -c sleep || true").stdout, "0\n", "nothing of it goes on")
        h = c.commands.run("echo begin; sleep 60", background=True, tag="mine")
        ok(h.pid > 0 and h.tag == "mine", f"a handle: {h}")
        p = wait_for(lambda: [p for p in c.commands.list() if p.pid == h.pid], 5, "the process in the list")[0]
        equal((p.tag, p.cmd), ("mine", "/bin/sh"), "what it is")
        c.commands.kill(h.pid)
        wait_for(lambda: h.pid not in [p.pid for p in c.commands.list()], 5, "its end")
        raises(exceptions.WrennNotFoundError, "not_found", c.commands.kill, 999999)


def streams(api, d):
    point_at(d)
    with api.Capsule.create(wait=True) as c:
        events = list(c.commands.stream("echo one; echo two >&2; printf '\u00e4%.0s' 1 2 3; exit 4"))
        equal((events[0].type, events[-1].type, events[-1].exit_code), ("start", "exit", 4), "ends")
        equal("".join(e.data for e in events if e.type == "stdout"), "one\n" + "\u00e4" * 3, "output")
        equal("".join(e.data for e in events if e.type == "stderr"), "two\n", "errors")
        equal([e.data for e in c.commands.stream("printf", ["%s", "a b"]) if e.type == "stdout"], ["a b"], "arguments")
        n = sum(len(e.data) for e in c.commands.stream("head -c 20000000 /dev/zero | tr '\\0' x") if e.type == "stdout")
        equal(n, 20000000, "much output")
        h = c.commands.run("for i in 1 2 3; do sleep 0.3; echo $i; done; exit 5", background=True)
        events = list(c.commands.connect(h.pid))
        equal((events[-1].type, events[-1].exit_code), ("exit", 5), "the end of a process attached to")
        contains("".join(e.data for e in events if e.type == "stdout"), "3\n", "its output")
        equal([e.type for e in c.commands.connect(999999)][-1], "error", "no such process")


def read_until(term, what):
    seen = b""
    for event in term:
        if event.type == "output":
            seen += event.data or b""  # nothing: 0.3.0 was slow to say that it wants bytes, and gets them again
            if what in seen:
                return seen
    raise Failure(f"the terminal ended before {what!r}: {seen!r}")


def pty(api, d):
    point_at(d)
    with api.Capsule.create(wait=True) as c:
        with c.pty(envs={"MARK": "here"}, cwd="/tmp", cols=100, rows=30) as term:
            term.write(b"echo $MARK-$PWD; stty size; KEEP=kept\n")
            seen = read_until(term, b"30 100")
            contains(seen, b"here-/tmp", "environment and directory")
            term.resize(120, 40)
            term.write(b"stty size\n")
            read_until(term, b"40 120")
            tag = term.tag
            ok(tag and tag.startswith("pty-") and term.pid > 0, f"tag {tag}")
        with c.pty_connect(tag) as term:
            term.write(b"echo still-$KEEP\n")
            read_until(term, b"still-kept")
            term.write(b"exit 7\n")
            end = [e for e in term][-1]
            equal((end.type.value, end.exit_code), ("exit", 7), "the end")
        with c.pty(cmd="/bin/cat") as term:
            with term:
                term.write(b"x\n")
                read_until(term, b"x")
        wait_for(lambda: not any(p.cmd == "/bin/cat" for p in c.commands.list()), 5, "the block kills")
        with c.pty(cmd="/bin/sh", args=["-c", "echo up; sleep 60"]) as term:
            read_until(term, b"up")  # without a word from us
            term.kill()
            equal([e for e in term][-1].type.value, "exit", "killed")

        def at_once():
            with c.pty(cmd="/bin/echo", args=["all of it"]) as term:
                return any(b"all of it" in (e.data or b"") for e in term if e.type == "output")
        wait_for(at_once, 20, "what ends at once is heard, unless this machine is very busy")
        with c.pty_connect("pty-00000000") as term:
            end = [e for e in term][-1]
            ok(end.type == "error" and end.fatal, f"an unknown tag: {end}")


def files(api, d):
    point_at(d)
    with api.Capsule.create(wait=True) as c:
        c.files.write("/tmp/deep/er/a.txt", "h\u00e4llo")
        equal(c.files.read("/tmp/deep/er/a.txt"), "h\u00e4llo", "text")
        c.files.write("/tmp/empty", b"")
        equal(c.files.read_bytes("/tmp/empty"), b"", "nothing at all")
        blob = os.urandom(5 * MIB)
        c.files.write("/tmp/blob", blob)
        ok(c.files.read_bytes("/tmp/blob") == blob, "5 MiB")
        # 64 MiB in pieces of all sizes, back and forth.
        c.files.upload_stream("/tmp/streamed", (blob[i % 4096:i % 4096 + 1 + i * 7919 % 131072] for i in range(1024)))
        there = c.commands.run("sha256sum < /tmp/streamed").stdout.split()[0]
        mine = hashlib.sha256(b"".join(blob[i % 4096:i % 4096 + 1 + i * 7919 % 131072] for i in range(1024))).hexdigest()
        equal(there, mine, "streamed up")
        down = hashlib.sha256()
        for part in c.files.download_stream("/tmp/streamed"):
            down.update(part)
        equal(down.hexdigest(), mine, "streamed down")
        entry = {e.name: e for e in c.files.list("/tmp")}["blob"]
        equal((entry.type.value, entry.size, entry.permissions), ("file", len(blob), "-rw-r--r--"), "an entry")
        c.commands.run("ln -s /nowhere /tmp/dangling; mkfifo /tmp/fifo")
        ok({"dangling", "fifo"} <= {e.name for e in c.files.list("/tmp")}, "odd files do not break a listing")
        contains([e.path for e in c.files.list("/tmp", depth=3)], "/tmp/deep/er/a.txt", "recursive")
        ok(c.files.exists("/tmp/blob") and not c.files.exists("/tmp/nothing") and not c.files.exists("/no/such/dir"), "exists")
        equal(c.files.make_dir("/tmp/x/y").name, "y", "make_dir")
        equal(c.files.make_dir("/tmp/x/y").name, "y", "make_dir again")
        raises(exceptions.WrennValidationError, "invalid_request", c.files.make_dir, "/tmp/blob")
        c.files.remove("/tmp/x")
        raises(exceptions.WrennNotFoundError, "not_found", c.files.remove, "/tmp/x")
        raises(exceptions.WrennNotFoundError, "not_found", c.files.read, "/tmp/x")
        raises(exceptions.WrennNotFoundError, "not_found", c.files.list, "/tmp/x")
        raises(httpx.HTTPStatusError, None, lambda: list(c.files.download_stream("/tmp/x")))


def git(api, d):
    point_at(d)
    with api.Capsule.create(wait=True) as c:
        equal(c.commands.run("mkdir -p /tmp/origin /tmp/repo").exit_code, 0, "directories")
        g = c.git
        g.init("/tmp/origin", bare=True, initial_branch="main")
        g.init("/tmp/repo", initial_branch="main")
        here = {"cwd": "/tmp/repo"}
        g.configure_user("A User", "a@example.org")
        equal(g.get_config("user.name", scope="global"), "A User", "configuration")
        g.set_config("core.editor", "true", **here)
        equal((g.get_config("core.editor", **here), g.get_config("no.such", **here)), ("true", None), "of one repository")
        c.files.write("/tmp/repo/a", "1\n")
        status = g.status(**here)
        equal((status.branch, status.is_clean, status.has_untracked, status.has_staged), ("main", False, True, False), "status")
        g.add(all=True, **here)
        status = g.status(**here)
        equal([(f.path, f.staged, f.status) for f in status.files], [("a", True, "added")], "staged")
        ok(status.has_staged and not status.has_conflicts, "staged")
        g.commit("first", author_name="B", author_email="b@example.org", **here)
        ok(g.status(**here).is_clean, "committed")
        g.remote_add("origin", "/tmp/origin", **here)
        equal(g.remote_get("origin", **here), "/tmp/origin", "remote")
        equal(g.remote_get("nowhere", **here), None, "no such remote")
        g.push("origin", "main", set_upstream=True, **here)
        g.create_branch("other", **here)
        g.checkout_branch("main", **here)
        ok({"main", "other"} <= {b.name for b in g.branches(**here)}, "branches")
        g.delete_branch("other", **here)
        g.clone("/tmp/origin", "/tmp/copy")
        equal(c.files.read("/tmp/copy/a"), "1\n", "clone")
        c.files.write("/tmp/repo/a", "2\n")
        g.restore(["a"], **here)
        equal(c.files.read("/tmp/repo/a"), "1\n", "restore")
        c.files.write("/tmp/repo/a", "ours\n")
        g.add(["a"], **here)
        g.commit("second", **here)
        g.push(**here)
        c.files.write("/tmp/copy/a", "theirs\n")
        g.add(all=True, cwd="/tmp/copy")
        g.commit("against it", cwd="/tmp/copy")
        raises(wrenn.GitCommandError, None, g.push, cwd="/tmp/copy")
        raises(wrenn.GitCommandError, None, g.pull, rebase=True, cwd="/tmp/copy")
        ok(g.status(cwd="/tmp/copy").has_conflicts, "a conflict is seen")
        g.reset(mode="hard", ref="HEAD", **here)


def git_passwords(api, d):
    """Against a server in the same sandbox, which wants a password: sandboxes do not reach the test's own."""
    point_at(d)
    with api.Capsule.create(wait=True) as c:
        c.files.write("/tmp/server.py", pathlib.Path(__file__).with_name("git_server.py").read_bytes())
        g = c.git
        g.init("/tmp/served/repo.git", bare=True, initial_branch="main")
        c.commands.run("exec python3 /tmp/server.py 8091 /tmp/served ann s3cret", background=True)
        wait_for(lambda: c.commands.run("python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8091))'").exit_code == 0,
                 20, "the server inside")
        url, known = "http://127.0.0.1:8091/repo.git", {"username": "ann", "password": "s3cret"}
        raises(wrenn.GitAuthError, None, g.clone, url, "/tmp/no")
        raises(wrenn.GitAuthError, None, g.clone, url, "/tmp/no", username="ann", password="wrong")
        raises(ValueError, None, g.clone, url, "/tmp/no", password="s3cret")
        g.clone(url, "/tmp/clone", **known)
        here = {"cwd": "/tmp/clone"}
        equal(g.remote_get("origin", **here), url, "no password stays behind")
        g.configure_user("Ann", "ann@example.org", scope="local", **here)
        c.files.write("/tmp/clone/a", os.urandom(2 * MIB).hex())
        g.add(all=True, **here)
        g.commit("first", **here)
        raises(wrenn.GitAuthError, None, g.push, "origin", "HEAD:main", **here)
        g.push("origin", "HEAD:main", **known, **here)
        g.pull("origin", "main", **known, **here)
        equal(g.remote_get("origin", **here), url, "nor does it here")
        g.clone(url, "/tmp/stored", dangerously_store_credentials=True, **known)
        contains(g.remote_get("origin", cwd="/tmp/stored"), "ann:s3cret@", "unless that is asked for")
        g.dangerously_authenticate("ann", "s3cret", host="127.0.0.1:8091", protocol="http")
        g.commit("second", allow_empty=True, **here)
        g.push("origin", "HEAD:main", **here)
        g.clone(url, "/tmp/third", depth=1)
        equal(c.commands.run("git log -1 --format=%s", cwd="/tmp/third").stdout, "second\n", "by the stored password")
        contains(c.files.read("~/.git-credentials"), "http://ann:s3cret@127.0.0.1", "where it is")


def snapshots(api, d):
    point_at(d)
    name = "sdk-snapshot" + api.name
    with api.Capsule.create(wait=True) as c, api.Client() as w:
        c.files.write("/root/kept", "yes")
        t = c.create_snapshot(name)
        equal((t.name, t.type.value), (name, "snapshot"), "the template")
        equal(c.get_info().status.value, "paused", "its source")
        c.resume()
        ok(name in [x.name for x in w.snapshots.list(type="snapshot")], "listed")
        ok(name not in [x.name for x in w.snapshots.list(type="base")], "by type")
        with api.Capsule.create(template=name, wait=True) as child:
            equal(child.files.read("/root/kept"), "yes", "what is in it")
            raises(exceptions.WrennConflictError, "conflict", c.create_snapshot, name)
            c.files.write("/root/kept", "changed")
            c.create_snapshot(name, overwrite=True)
            equal(child.files.read("/root/kept"), "yes", "a sandbox that stands on the old one")
        with api.Capsule.create(template=name, wait=True) as child:
            equal(child.files.read("/root/kept"), "changed", "the new one")
        w.snapshots.delete(name)
        raises(exceptions.WrennNotFoundError, "not_found", w.snapshots.delete, name)
        raises(exceptions.WrennNotFoundError, "not_found", api.Capsule.create, template=name)
        raises(exceptions.WrennForbiddenError, "forbidden", w.snapshots.delete, "minimal")
        unnamed = w.snapshots.create(c.capsule_id)
        ok(unnamed.name.startswith("template-"), f"a name is found: {unnamed.name}")
        w.snapshots.delete(unnamed.name)


def run_code(api, d):
    point_at(d)
    with api.Code.create(wait=True) as c:
        equal(c.run_code("x = 20\nx + 1").text, "21", "an expression")
        equal(c.run_code("x * 2").text, "40", "state lasts")
        outs, errs, results, errors = [], [], [], []
        e = c.run_code("import sys\nprint('a')\nprint('b', file=sys.stderr)\n7", on_stdout=outs.append, on_stderr=errs.append,
                       on_result=results.append)
        equal(("".join(outs), "".join(errs), e.text, results[-1].text), ("a\n", "b\n", "7", "7"), "streams")
        e = c.run_code("def f():\n  return 1/0\nf()", on_error=errors.append)
        equal((e.error.name, e.error.value, len(errors)), ("ZeroDivisionError", "division by zero", 1), "an error")
        contains(e.error.traceback, "f()", "its traceback")
        e = c.run_code("class P:\n  def _repr_html_(self): return '<b>x</b>'\n  def _repr_png_(self): return b'\\x89PNG'\n"
                       "  def _repr_latex_(self): return '$x$'\nP()")
        r = e.results[0]
        equal((r.html, r.png, r.latex, r.is_main_result), ("<b>x</b>", "iVBORw==", "$x$", True), "rich results")
        ok({"html", "png", "latex"} <= set(r.formats()), f"by name: {r.formats()}")
        began = time.monotonic()
        try:
            equal(c.run_code("import time\ntime.sleep(60)", timeout=1).text, None, "a time-out")
        except queue.Empty:
            pass  # how the synchronous one of 0.3.0 says it
        ok(time.monotonic() - began < 20, "in time")
        equal(c.commands.run("echo shell").stdout, "shell\n", "a sandbox like others")
        c.close()
    other = api.Code.create(wait=True)
    equal(other.run_code("6 * 7").text, "42", "run_code")
    other.destroy()


def plots(api, d):
    point_at(d)
    with api.Code.create(wait=True) as c:
        plot = c.run_code("import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()")
        if plot.error and plot.error.name == "ModuleNotFoundError" and "AVIARY_TEST_DAEMON" not in os.environ:
            raise Skip("this machine's Python, which is the template's, has no matplotlib; the suite 'templates' has it")
        equal([base64.b64decode(r.png)[:8] for r in plot.results], [b"\x89PNG\r\n\x1a\n"], f"a plot: {plot}")
        ok("png" in plot.results[0].formats(), "by name")
        table = c.run_code("import pandas as pd\npd.DataFrame({'a': [1, 2]})").results[0]
        contains(table.html, "<table", "a DataFrame")


def events(api, d):
    point_at(d)
    if not hasattr(WrennClient(), "events"):
        raise Skip(f"wrenn {VERSION} has no events")
    with api.Client(api_key="wrn_" + "0" * 40) as w:
        raises(exceptions.WrennAuthenticationError, "unauthorized", lambda: list(w.events.stream()))
    with api.Client() as w:
        seen = []
        for e in w.events.stream():
            if not seen:
                equal((e.event.value, e.timestamp is not None), ("connected", True), "first")
                c = api.Capsule.create(timeout=600)
                c.pause()
                c.create_snapshot("of-events" + api.name)
                w.snapshots.delete("of-events" + api.name)
                c.destroy()
            seen.append(e)
            if e.event.value == "capsule.destroy":
                break
    mine = [e for e in seen[1:] if e.resource.id == c.capsule_id and e.event.value != "capsule.state.changed"]
    equal([(e.event.value, e.outcome.value, e.actor.type.value, e.sandbox.status.value) for e in mine],
          [("capsule.create", "success", "api_key", "running"), ("capsule.pause", "success", "api_key", "paused"),
           ("capsule.destroy", "success", "api_key", "stopped")], "what happened to it")
    equal(mine[0].sandbox.timeout_sec, 600, "as it is")
    equal([(e.event.value, e.resource.type) for e in seen[1:] if e.resource.id == "of-events" + api.name],
          [("template.snapshot.create", "snapshot"), ("template.snapshot.delete", "snapshot")], "and to the template")
    equal([e.metadata for e in seen[1:] if e.event.value == "capsule.state.changed"],
          [{"from": "starting", "to": "running"}, {"from": "running", "to": "paused"},
           {"from": "paused", "to": "stopped", "reason": "deleted"}], "changes of its state")


def errors(api, d):
    point_at(d)
    with api.Client() as w:
        for wrong in ("sb0000000000000000000000000", "cl-nonexistent00000000000000000"):
            try:
                w.capsules.get(wrong)
                raise Failure(f"{wrong} exists")
            except (exceptions.WrennNotFoundError, exceptions.WrennValidationError):
                pass
        raises(exceptions.WrennNotFoundError, "not_found", w.capsules.create, template="no-such-template")
        raises(exceptions.WrennValidationError, "invalid_request", w.capsules.create, vcpus=100000)
        raises(exceptions.WrennValidationError, "invalid_request", w.capsules.create, template="../x")
    with api.Client(api_key="wrn_" + "0" * 40) as w:
        raises(exceptions.WrennAuthenticationError, "unauthorized", w.capsules.list)
    c = api.Capsule.create(wait=True)
    api.Capsule.destroy(c.capsule_id)
    raises(exceptions.WrennConflictError, "invalid_state", c.commands.run, "true")
    raises(exceptions.WrennConflictError, "invalid_state", c.files.read, "/etc/passwd")
    raises(exceptions.WrennConflictError, "invalid_state", c.resume)
    raises(exceptions.WrennConflictError, "invalid_state", c.create_snapshot, "of-nothing")
    raises(exceptions.WrennConflictError, "invalid_state", c.commands.list)


def url(api, d):
    point_at(d)
    with api.Capsule.create(wait=True) as c:
        c.commands.run("cd /etc && exec python3 -m http.server 8000 --bind 127.0.0.1", background=True)
        address = re.sub("^ws", "http", c.get_url(8000)) + "/hostname"
        key = {"X-API-Key": os.environ["WRENN_API_KEY"]}

        def page():
            r = httpx.get(address, headers=key)
            return r.text if r.status_code == 200 else None
        equal(wait_for(page, 10, "the page"), c.commands.run("cat /etc/hostname").stdout, "a page from inside")
        ok(httpx.get(address).status_code in (401, 403), "not without the key")


def test_made_directly(d):
    """As the examples of its README do it."""
    warm_up(d)
    point_at(d)
    with wrenn.Capsule(wait=True) as c:
        equal(c.commands.run("echo hello").stdout, "hello\n", "a capsule")
    with code.Capsule(wait=True) as c:
        equal(c.run_code("1 + 1").text, "2", "one for code")


def both(body):
    for api in (Synchronous, Asynchronous):
        def test(d, api=api):
            body(api, d)
        test.__name__ = "_".join(filter(None, ("test", body.__name__, api.name)))
        test.timeout_s = 90
        globals()[test.__name__] = test


for one in (lifecycle, client, commands, streams, pty, files, git, git_passwords, snapshots, run_code, plots, events, errors, url):
    both(one)


def test_no_method_was_left_out(_d):
    if CHOSEN:
        raise Skip("only some tests were asked for")
    ok(len(driven.known) > 150, f"methods are found: {len(driven.known)}")
    equal(driven.missing(), [], "public methods that no test called")


print(f"# wrenn {VERSION}")
aviary_test.main(globals())
