#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The unmodified `wrenn` package from its registry against a real daemon, with nothing but base URL and key set.

    wrenn.py VERSION [test_name...]

It is installed below the build tree (WRENN_SITE names a ready directory instead). Its wish for Python 3.13 is not heard:
it runs on 3.11. The one thing the tests do to the process is to resolve *.localhost, which glibc does not.
"""
import asyncio
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

sys.path = [p for p in sys.path if pathlib.Path(p or ".").resolve() != pathlib.Path(__file__).resolve().parent]
import aviary_test  # noqa: E402
from aviary_test import Failure, Skip, contains, equal, ok, wait_for  # noqa: E402

VERSION = sys.argv.pop(1)
MIB = 1 << 20


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
import httpx  # noqa: E402
import wrenn  # noqa: E402
from wrenn import AsyncCapsule, Capsule, WrennClient, exceptions  # noqa: E402
from wrenn.code_interpreter import AsyncCapsule as AsyncCode, Capsule as Code  # noqa: E402
from wrenn.client import AsyncWrennClient  # noqa: E402

resolve = socket.getaddrinfo


def resolve_localhost(host, *args, **more):
    name = host.decode() if isinstance(host, bytes) else host
    return resolve("127.0.0.1" if name and name.endswith(".localhost") else host, *args, **more)


socket.getaddrinfo = resolve_localhost


def point_at(d, prefix="/api"):
    os.environ["WRENN_API_KEY"] = "wrn_" + d.key.split("_", 1)[1]
    os.environ["WRENN_BASE_URL"] = f"http://localhost:{d.port}{prefix}"


def raises(kind, code, function, *args, **more):
    try:
        function(*args, **more)
    except kind as e:
        equal(getattr(e, "code", code), code, f"the code of {e!r}")
        return e
    raise Failure(f"{function} raised no {kind.__name__}")


def test_lifecycle(d):
    d.delete(d.create()["id"])  # template host is made once, the SDK waits 5 s
    for prefix in ("/api", ""):
        point_at(d, prefix)
        with Capsule(wait=True) as c:
            ok(c.is_running(), "it runs")
            equal((c.info.vcpus, c.info.memory_mb, c.info.template), (1, 512, "minimal"), "the defaults")
            c.ping()
            ok(c.capsule_id in [x.id for x in Capsule.list()], "it is listed")
            equal(c.pause().status.value, "paused", "pause")
            raises(exceptions.WrennConflictError, "invalid_state", c.commands.run, "true")
            raises(exceptions.WrennConflictError, "invalid_state", c.pause)
            equal(c.resume().status.value, "running", "resume")
            c.pause()
            again = Capsule.connect(c.capsule_id)
            equal(again.commands.run("echo $((6*7))").stdout, "42\n", "connect resumes")
        equal(Capsule.get_info(c.capsule_id).status.value, "stopped", "after the block")
        Capsule.destroy(c.capsule_id)
    c = Capsule.create(template="minimal", vcpus=2, memory_mb=256, timeout=60)
    c.wait_ready()
    equal((c.get_info().vcpus, c.get_info().memory_mb, c.get_info().timeout_sec), (2, 256, 60), "the wishes")
    Capsule.pause(c.capsule_id)
    equal(Capsule.resume(c.capsule_id).status.value, "running", "by id")
    Capsule.destroy(c.capsule_id)


def test_client(d):
    point_at(d)
    with WrennClient() as client:
        c = client.capsules.create(template="minimal")
        equal(client.capsules.get(c.id).id, c.id, "get")
        ok(c.id in [x.id for x in client.capsules.list()], "list")
        client.capsules.ping(c.id)
        equal(client.capsules.pause(c.id).status.value, "paused", "pause")
        equal(client.capsules.resume(c.id).status.value, "running", "resume")
        if hasattr(client.capsules, "stats"):
            ok(client.capsules.stats().current.running_count >= 1, "stats")
            ok(client.capsules.usage().points is not None, "usage")
            equal(client.capsules.metrics(c.id).sandbox_id, c.id, "metrics")
        client.capsules.destroy(c.id)


def test_commands(d):
    point_at(d)
    with Capsule(wait=True) as c:
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


def test_streams(d):
    point_at(d)
    with Capsule(wait=True) as c:
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
            seen += event.data
            if what in seen:
                return seen
    raise Failure(f"the terminal ended before {what!r}: {seen!r}")


def test_pty(d):
    point_at(d)
    with Capsule(wait=True) as c:
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
        with c.pty_connect("pty-00000000") as term:
            end = [e for e in term][-1]
            ok(end.type == "error" and end.fatal, f"an unknown tag: {end}")


def test_files(d):
    point_at(d)
    with Capsule(wait=True) as c:
        c.files.write("/tmp/deep/er/a.txt", "h\u00e4llo")
        equal(c.files.read("/tmp/deep/er/a.txt"), "h\u00e4llo", "text")
        blob = os.urandom(5 * MIB)
        c.files.write("/tmp/blob", blob)
        ok(c.files.read_bytes("/tmp/blob") == blob, "5 MiB")
        c.files.upload_stream("/tmp/streamed", (blob[i:i + 65536] for i in range(0, len(blob), 65536)))
        ok(b"".join(c.files.download_stream("/tmp/streamed")) == blob, "streamed both ways")
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


def test_git(d):
    point_at(d)
    with Capsule(wait=True) as c:
        equal(c.commands.run("mkdir -p /tmp/origin /tmp/repo").exit_code, 0, "directories")
        git = c.git
        git.init("/tmp/origin", bare=True, initial_branch="main")
        git.init("/tmp/repo", initial_branch="main")
        here = {"cwd": "/tmp/repo"}
        git.configure_user("A User", "a@example.org")
        equal(git.get_config("user.name", scope="global"), "A User", "configuration")
        c.files.write("/tmp/repo/a", "1\n")
        status = git.status(**here)
        equal((status.branch, status.is_clean, status.has_untracked), ("main", False, True), "status")
        git.add(all=True, **here)
        git.commit("first", **here)
        git.remote_add("origin", "/tmp/origin", **here)
        equal(git.remote_get("origin", **here), "/tmp/origin", "remote")
        git.push("origin", "main", set_upstream=True, **here)
        git.create_branch("other", **here)
        git.checkout_branch("main", **here)
        ok({"main", "other"} <= {b.name for b in git.branches(**here)}, "branches")
        git.delete_branch("other", **here)
        git.clone("/tmp/origin", "/tmp/copy")
        equal(c.files.read("/tmp/copy/a"), "1\n", "clone")
        git.pull(cwd="/tmp/copy")
        c.files.write("/tmp/repo/a", "2\n")
        git.restore(["a"], **here)
        equal(c.files.read("/tmp/repo/a"), "1\n", "restore")
        git.reset(mode="hard", ref="HEAD", **here)


def test_snapshots(d):
    point_at(d)
    with Capsule(wait=True) as c, WrennClient() as client:
        c.files.write("/root/kept", "yes")
        t = c.create_snapshot("sdk-snapshot")
        equal((t.name, t.type.value), ("sdk-snapshot", "snapshot"), "the template")
        equal(c.get_info().status.value, "paused", "its source")
        c.resume()
        ok("sdk-snapshot" in [x.name for x in client.snapshots.list(type="snapshot")], "listed")
        ok("sdk-snapshot" not in [x.name for x in client.snapshots.list(type="base")], "by type")
        with Capsule(template="sdk-snapshot", wait=True) as child:
            equal(child.files.read("/root/kept"), "yes", "what is in it")
            raises(exceptions.WrennConflictError, "conflict", c.create_snapshot, "sdk-snapshot")
            c.files.write("/root/kept", "changed")
            c.create_snapshot("sdk-snapshot", overwrite=True)
            equal(child.files.read("/root/kept"), "yes", "a sandbox that stands on the old one")
        with Capsule(template="sdk-snapshot", wait=True) as child:
            equal(child.files.read("/root/kept"), "changed", "the new one")
        client.snapshots.delete("sdk-snapshot")
        raises(exceptions.WrennNotFoundError, "not_found", client.snapshots.delete, "sdk-snapshot")
        raises(exceptions.WrennNotFoundError, "not_found", Capsule, template="sdk-snapshot")
        raises(exceptions.WrennForbiddenError, "forbidden", client.snapshots.delete, "minimal")


def test_run_code(d):
    point_at(d)
    with Code(wait=True) as c:
        equal(c.run_code("x = 20\nx + 1").text, "21", "an expression")
        equal(c.run_code("x * 2").text, "40", "state lasts")
        outs, errs = [], []
        e = c.run_code("import sys\nprint('a')\nprint('b', file=sys.stderr)", on_stdout=outs.append, on_stderr=errs.append)
        equal(("".join(outs), "".join(errs), e.text), ("a\n", "b\n", None), "streams")
        e = c.run_code("def f():\n  return 1/0\nf()")
        equal((e.error.name, e.error.value), ("ZeroDivisionError", "division by zero"), "an error")
        contains(e.error.traceback, "f()", "its traceback")
        e = c.run_code("class P:\n  def _repr_html_(self): return '<b>x</b>'\n  def _repr_png_(self): return b'\\x89PNG'\n"
                       "  def _repr_latex_(self): return '$x$'\nP()")
        r = e.results[0]
        equal((r.html, r.png, r.latex, r.is_main_result), ("<b>x</b>", "iVBORw==", "$x$", True), "rich results")
        equal(c.commands.run("echo shell").stdout, "shell\n", "a sandbox like others")


def test_plots(d):
    point_at(d)
    with Code(wait=True) as c:
        plot = c.run_code("import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()")
        if plot.error and plot.error.name == "ModuleNotFoundError":
            raise Skip("this machine's Python, which is the template's, has no matplotlib")
        ok(any(r.png for r in plot.results), f"a plot: {plot}")


def test_errors(d):
    point_at(d)
    with WrennClient() as client:
        for wrong in ("sb0000000000000000000000000", "cl-nonexistent00000000000000000"):
            try:
                client.capsules.get(wrong)
                raise Failure(f"{wrong} exists")
            except (exceptions.WrennNotFoundError, exceptions.WrennValidationError):
                pass
        raises(exceptions.WrennNotFoundError, "not_found", client.capsules.create, template="no-such-template")
        raises(exceptions.WrennValidationError, "invalid_request", client.capsules.create, vcpus=100000)
        raises(exceptions.WrennValidationError, "invalid_request", client.capsules.create, template="../x")
    with WrennClient(api_key="wrn_" + "0" * 40) as client:
        raises(exceptions.WrennAuthenticationError, "unauthorized", client.capsules.list)
    c = Capsule(wait=True)
    Capsule.destroy(c.capsule_id)
    raises(exceptions.WrennConflictError, "invalid_state", c.commands.run, "true")
    raises(exceptions.WrennConflictError, "invalid_state", c.files.read, "/etc/passwd")
    raises(exceptions.WrennConflictError, "invalid_state", c.resume)


def test_url(d):
    point_at(d)
    with Capsule(wait=True) as c:
        c.commands.run("cd /etc && exec python3 -m http.server 8000 --bind 127.0.0.1", background=True)
        url = re.sub("^ws", "http", c.get_url(8000)) + "/hostname"
        key = {"X-API-Key": os.environ["WRENN_API_KEY"]}

        def page():
            r = httpx.get(url, headers=key)
            return r.text if r.status_code == 200 else None
        equal(wait_for(page, 10, "the page"), c.commands.run("cat /etc/hostname").stdout, "a page from inside")
        ok(httpx.get(url).status_code in (401, 403), "not without the key")


async def asynchronous():
    async with await AsyncCapsule.create(wait=True) as c:
        r = await c.commands.run("echo hi", envs={"A": "b"})
        equal(r.stdout, "hi\n", "a command")
        h = await c.commands.run("sleep 0.5; echo late; exit 2", background=True)
        ok(h.pid in [p.pid for p in await c.commands.list()], "listed")
        events = [e async for e in c.commands.connect(h.pid)]
        equal((events[-1].type, events[-1].exit_code), ("exit", 2), "attached")
        events = [e async for e in c.commands.stream("echo a")]
        equal([e.type for e in events], ["start", "stdout", "exit"], "a stream")
        h = await c.commands.run("sleep 60", background=True)
        await c.commands.kill(h.pid)
        await c.files.write("/tmp/a", b"1")
        equal(await c.files.read("/tmp/a"), "1", "a file")
        equal(await c.files.read_bytes("/tmp/a"), b"1", "its bytes")

        async def parts():
            for _ in range(100):
                yield b"x" * 10000
        await c.files.upload_stream("/tmp/b", parts())
        equal(sum([len(p) async for p in c.files.download_stream("/tmp/b")]), 10 ** 6, "streams of files")
        ok(await c.files.exists("/tmp/b") and (await c.files.list("/tmp")), "a listing")
        await c.files.make_dir("/tmp/d")
        await c.files.remove("/tmp/d")
        async with c.pty(cmd="/bin/sh") as term:
            await term.write(b"echo a$((1+1))b; exit 3\n")
            seen, end = b"", None
            async for event in term:
                seen += event.data if event.type == "output" else b""
                end = event
            contains(seen, b"a2b", "a terminal")
            equal(end.exit_code, 3, "its end")
        await c.ping()
        await c.pause()
        await c.resume()
        await c.files.make_dir("/tmp/g")
        await c.git.init("/tmp/g")
        await c.create_snapshot("sdk-async")
    equal((await AsyncCapsule.get_info(c.capsule_id)).status.value, "stopped", "after the block")
    async with AsyncWrennClient() as client:
        ok([t for t in await client.snapshots.list() if t.name == "sdk-async"], "the snapshot")
        await client.snapshots.delete("sdk-async")
        info = await client.capsules.create()
        equal((await client.capsules.get(info.id)).id, info.id, "get")
        await client.capsules.destroy(info.id)
    async with await AsyncCode.create(wait=True) as c:
        equal((await c.run_code("6 * 7")).text, "42", "run_code")


def test_async(d):
    point_at(d)
    asyncio.run(asynchronous())


for test in [f for n, f in list(globals().items()) if n.startswith("test_")]:
    test.timeout_s = 90
print(f"# wrenn {wrenn.__version__ if hasattr(wrenn, '__version__') else VERSION}")
aviary_test.main(globals())
