#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The templates that ship, built from Debian's packages by a daemon of their own, and what programs do with them.

Both are built beside each other: code-interpreter in a pipe; on a terminal base, after a first try that ends with Ctrl-C.
"""
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time

import aviary_test
from aviary_test import Failure, contains, equal, ok, program, wait_for

CODE = ("code-interpreter", "code-runner-beta", "code-interpreter-v1", "python-interpreter-v0-beta")
PLAIN = ("base", "minimal")
COLUMNS = 72
SDK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "sdk", "wrenn", "main.py")
piped = {}  # the build of code-interpreter: process, its lines, when it began


def scratch(d, name):
    """A directory for what a build unpacks: within the daemon's, so that what stays there is noticed."""
    path = os.path.join(d.dir, name)
    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o1777)
    return path


def environment(d, place, **more):
    env = {k: v for k, v in os.environ.items() if not k.startswith("AVIARY_")}
    return {**env, "AVIARY_URL": d.url, "AVIARY_CONFIG_DIR": os.path.join(d.dir, "config"), "TMPDIR": scratch(d, place),
            "TERM": "xterm", **more}


def build(d, name, place, **more):
    r = subprocess.run([program("aviary"), "template", "build", name], capture_output=True, text=True, timeout=100, check=False,
                       env=environment(d, place, **more), stdin=subprocess.DEVNULL)
    return r.returncode, r.stdout, r.stderr


def on_terminal(d, name, place, stop_at=None):
    """Builds as a person does who looks on; Ctrl-C once that text is seen. Exit status, and all that was written."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    p = subprocess.Popen([program("aviary"), "template", "build", name], stdin=slave, stdout=slave, stderr=slave,
                         env=environment(d, place), start_new_session=True,
                         preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(slave)
    seen = b""
    try:
        while True:
            if not select.select([master], [], [], 60)[0]:
                raise Failure(f"nothing is shown for a minute after {seen[-200:]}")
            try:
                part = os.read(master, 4096)
            except OSError:  # its end
                break
            seen += part
            if stop_at and stop_at in seen:
                os.write(master, b"\x03")
                stop_at = None
        return p.wait(30), seen
    finally:
        os.close(master)
        if p.poll() is None:
            p.terminate()
            p.wait(40)


def nothing_left(d, place):
    equal(os.listdir(scratch(d, place)), [], "what is left of a build")
    with open("/proc/self/mounts", encoding="utf-8") as f:
        equal([line for line in f if place in line], [], "mounts that are left")


def test_until_they_are_built_the_host_answers(d):
    for name in (*PLAIN, *CODE):
        b = d.create(template=name)
        contains(b.get("template_note", ""), "host", f"a note at {name}")
        d.delete(b["id"])


def test_errors_say_what_to_do(d):
    tools = os.path.join(d.dir, "tools")
    os.makedirs(tools)
    for word in ("sh", "dirname", "sed", "awk", "id", "tr", "apt-get", "apt-config"):
        path = "/usr/bin/" + word if os.path.exists("/usr/bin/" + word) else "/bin/" + word
        os.symlink(path, os.path.join(tools, word))
    status, _, err = build(d, "base", "errors", PATH=tools)
    equal(status, 125, "without mmdebstrap")
    contains(err, "apt-get install mmdebstrap", "what to type")
    status, _, err = build(d, "base", "errors", AVIARY_MIRROR="http://127.0.0.1:9/debian")
    equal(status, 125, "a mirror that does not answer")
    contains(err.splitlines()[-1], "AVIARY_MIRROR=URL names another mirror", "what else there is")
    ok(len(err.splitlines()) < 10, f"in few lines: {err}")
    nothing_left(d, "errors")


def test_the_build_in_a_pipe_begins(d):
    p = subprocess.Popen([program("aviary"), "template", "build", "code-interpreter"], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment(d, "piped"))
    piped.update(process=p, began=time.monotonic())

    def read():
        piped["out"], piped["err"] = p.communicate()
        piped["took"] = time.monotonic() - piped["began"]

    piped["reader"] = threading.Thread(target=read, daemon=True)
    piped["reader"].start()


def test_interrupted_on_a_terminal(d):
    status, seen = on_terminal(d, "base", "interrupted", stop_at=b"installing the")
    equal(status, 128 + 2, f"Ctrl-C: {seen[-300:]}")
    ok(seen.endswith(b"\r\x1b[K"), f"the line is taken away: {seen[-100:]}")
    nothing_left(d, "interrupted")
    names = [t["name"] for t in d.expect(200, "GET", "/v1/snapshots").json()]
    ok("base" not in names, f"no template: {names}")


test_interrupted_on_a_terminal.timeout_s = 120


def test_base_on_a_terminal(d):
    began = time.monotonic()
    status, seen = on_terminal(d, "base", "terminal")
    took = time.monotonic() - began
    print(f"# base: {took:.0f} s")
    equal(status, 0, f"the build: {seen[-500:]}")
    progress, _, last = seen.rpartition(b"\r\x1b[K")
    ok(re.fullmatch(rb"base: built in \d+ s, \d+ MiB\r\n", last), f"what stays on the screen: {last}")
    drawn = progress.split(b"\r\x1b[K")[1:]
    ok(b"\n" not in progress, "one line that is drawn again")
    equal([line for line in drawn if len(line.decode()) >= COLUMNS], [], "lines that wrap")
    ok(took < len(drawn) < took * 8 + 50, f"drawn {len(drawn)} times in {took:.0f} s")
    for part in (b"downloading packages", b"Setting up", b"copying, ", b"restoring owners", b"taking the snapshot"):
        contains(progress, part, "a step")
    nothing_left(d, "terminal")


test_base_on_a_terminal.timeout_s = 240


def test_code_interpreter_in_a_pipe(d):
    piped["reader"].join(300 * aviary_test.SLOW)
    ok(not piped["reader"].is_alive(), "it ends")
    print(f"# code-interpreter, beside base: {piped['took']:.0f} s")
    text = piped["err"].decode()
    equal(piped["process"].returncode, 0, text)
    ok(re.fullmatch(rb"code-interpreter: built in \d+ s, [0-9.]+ [MG]iB\n", piped["out"]), f"the result: {piped['out']}")
    ok("\r" not in text and "\x1b" not in text, "plain lines")
    lines = text.splitlines()
    ok(8 <= len(lines) <= 30 and all(line.startswith("code-interpreter: ") for line in lines), f"few of them: {lines}")
    at = 0
    for step in ("Debian", "downloading packages", "installing the other packages", "copying", "restoring owners",
                 "taking the snapshot"):
        found = [i for i, line in enumerate(lines) if line.startswith(f"code-interpreter: {step}")]
        ok(found and found[0] >= at, f"{step} in its place: {lines}")
        at = found[0]
    nothing_left(d, "piped")


test_code_interpreter_in_a_pipe.timeout_s = 320


def as_user(d, sandbox, script):
    r = d.exec(sandbox, script, user="user", timeout_sec=50)
    equal(r["exit_code"], 0, f"{script}: {r}")
    return r["stdout"]


def test_what_is_in_base(d):
    for name in PLAIN:
        b = d.create(template=name)
        ok("template_note" not in b, f"{name} is what was built: {b.get('template_note')}")
        text = as_user(d, b["id"], "set -e; id -un; sudo -n id -un; echo $HOME; stat -c %U:%a ~ /tmp; . /etc/os-release; echo $ID;"
                       "for p in git curl python3 sudo; do $p --version >/dev/null; done; ls ~/.bashrc; touch ~/x; "
                       "python3 -m venv /tmp/v; ls /var/lib/aviary /etc/apt/apt.conf.d/99mmdebstrap 2>/dev/null || true; "
                       "grep -c '//.*@' /etc/apt/sources.list || true")
        equal(text.splitlines(), ["user", "root", "/home/user", "user:700" if "user:700" in text else "user:755", "root:1777",
                                  "debian", "/home/user/.bashrc", "0"], f"in {name}")
        equal(as_user(d, b["id"], "grep -c -- '-security main' /etc/apt/sources.list").strip(), "1", "security updates")
        equal(d.exec(b["id"], "python3 -c 'import numpy'")["exit_code"], 1, "and no more than that")
        d.delete(b["id"])


def test_what_is_in_code_interpreter(d):
    for name in CODE:
        b = d.create(template=name)
        ok("template_note" not in b, f"{name} is what was built: {b.get('template_note')}")
        equal(b["memory_mb"], 1024, "its memory")
        as_user(d, b["id"], "sudo -n true && git --version && node -e 'if (6 * 7 !== 42) process.exit(1)'")
        d.delete(b["id"])
    b = d.create(template="code-interpreter")["id"]
    as_user(d, b, "python3 -c 'import IPython, numpy, pandas, matplotlib'")
    d.delete(b)


def run(d, sandbox, code, **more):
    return d.expect(200, "POST", f"/v1/sandboxes/{sandbox}/run_code", {"code": code, "timeout_sec": 50, **more}, timeout=60).json()


def test_rich_results(d):
    b = d.create(template="code-interpreter")["id"]
    contains(run(d, b, "get_ipython().__class__.__name__")["results"][0]["data"]["text/plain"], "Shell", "IPython runs it")
    plot = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.title('é')\nplt.show()"
    (data,) = [r["data"] for r in run(d, b, plot)["results"]]
    ok(data["image/png"].startswith("iVBORw0KGgo") and "image/svg+xml" not in data, f"a picture: {list(data)}")
    (data,) = [r["data"] for r in run(d, b, plot, figure_formats=["svg"])["results"]]
    contains(data["image/svg+xml"], "<svg", "on request as SVG")
    data = run(d, b, "import pandas as pd, numpy as np\npd.DataFrame({'a': np.arange(2), 'b': ['x', 'ü']})")["results"][0]["data"]
    contains(data["text/html"], "<table", "a DataFrame")
    contains(data["text/html"], "ü", "a DataFrame")
    data = run(d, b, "from IPython.display import Latex, JSON\nLatex('$x^2$')")["results"][0]["data"]
    equal(data["text/latex"], "$x^2$", "LaTeX")
    data = run(d, b, "JSON({'a': [1, None]})")["results"][0]["data"]
    equal(data["application/json"], {"a": [1, None]}, "JSON")
    r = run(d, b, "%%timeit -n1 -r1\npass")
    contains(r["stdout"], "loop", "a magic")
    r = run(d, b, "!node -p 6*7")
    equal(r["stdout"].strip(), "42", "a command")
    d.delete(b)


def test_from_the_pool_with_a_warm_kernel(d):
    """Counted as a hit, the kernel is there before anybody asked for it, and every sandbox is a fresh one."""
    hit = 'aviary_pool_creates_total{result="hit"}'
    times = []
    for _ in range(4):
        before = d.metrics()[hit]

        def pooled():
            began = time.monotonic()
            b = d.create(template="code-interpreter")["id"]
            if d.metrics()[hit] > before:
                return b, time.monotonic() - began
            d.delete(b)
            time.sleep(1)
            return None

        b, created = wait_for(pooled, 40, "a ready sandbox")
        tags = [p.get("tag") or "" for p in d.expect(200, "GET", f"/v1/sandboxes/{b}/processes").json()["processes"]]
        ok(any(t.startswith("kernel-") for t in tags), f"a kernel is up: {tags}")
        began = time.monotonic()
        r = run(d, b, "'x' in globals(), 1 + 1")
        times.append((time.monotonic() - began, created))
        equal((r["results"][0]["data"]["text/plain"], r["execution_count"]), ("(False, 2)", 1), "nobody was here before")
        run(d, b, "x = 1")
        d.delete(b)
    print("# first run_code from the pool, IPython: " + ", ".join(f"{1000 * t:.1f}" for t, _ in times) + " ms")
    # Of a shape that the pool does not have.
    cold = []
    for memory in (901, 902, 903):
        b = d.create(template="code-interpreter", memory_mb=memory)["id"]
        began = time.monotonic()
        equal(run(d, b, "1 + 1")["status"], "ok", "without a warm kernel")
        cold.append(time.monotonic() - began)
        d.delete(b)
    print("# cold IPython: " + ", ".join(f"{1000 * t:.0f}" for t in cold) + " ms")


test_from_the_pool_with_a_warm_kernel.timeout_s = 170


def sdk(d, version):
    names = ["test_run_code", "test_run_code_async", "test_plots", "test_plots_async"]
    r = subprocess.run([sys.executable, SDK, version, *names], capture_output=True, text=True, timeout=150, check=False,
                       env={**os.environ, "AVIARY_TEST_DAEMON": f"{d.url} {d.key}"})
    done = [line for line in r.stdout.splitlines() if line.startswith("ok ") and "SKIP" not in line]
    equal((r.returncode, len(done)), (0, len(names)), f"the SDK {version}:\n{r.stdout}\n{r.stderr[-1000:]}")


def test_the_wrenn_sdk_with_plots(d):
    for version in ("0.1.2", "0.3.0"):
        sdk(d, version)


test_the_wrenn_sdk_with_plots.timeout_s = 170


if os.geteuid() != 0:
    print("1..0 # SKIP needs root")
    sys.exit(0)
try:
    aviary_test.main(globals(), pool=6)
finally:
    if piped and piped["process"].poll() is None:
        piped["process"].terminate()
        piped["reader"].join(40)
