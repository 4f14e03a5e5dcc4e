#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""examples/: each compiled as its users would, and run against a daemon; what it prints is what it says."""
import os
import re
import shlex
import subprocess

import aviary_test as t

BUILD = os.path.abspath(os.environ.get("AVIARY_BUILD", "build"))
SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "examples")
RAN = set()
WRAP = shlex.split(os.environ.get("AVIARY_TEST_WRAP", ""))


def run(d, name, *args, text=None, timeout=60):
    RAN.add(name)
    r = subprocess.run(WRAP + [os.path.join(BUILD, "examples", "example_" + name), *args], input=text, capture_output=True,
                       text=True, timeout=timeout * t.SLOW, check=False,
                       env={**os.environ, "AVIARY_URL": d.url, "AVIARY_API_KEY": d.key})
    t.equal(r.returncode, 0, f"{name}: {r.stderr[-800:]}")
    t.equal(r.stderr, "", f"{name}: nothing on stderr")
    return r.stdout


def test_quickstart(d):
    t.ok(re.fullmatch(r"hello from \S+\nexit code 3\n", run(d, "quickstart")), "greets")


def test_streaming(d):
    t.equal(run(d, "streaming"), "out: step 1\nout: step 2\nout: step 3\nerr: all done\nexit code 0\n", "lines")


def test_batch(d):
    t.equal(run(d, "batch"), "sum of squares: 140\n", "eight at once")


def test_session(d):
    t.equal(run(d, "session"), "good morning, ann\ngood morning, bob\ngood morning, cyd\n3 sandboxes\n0 left\n",
            "three with defaults")


def test_stdin_pipe(d):
    lines = [f"{(i * 7919) % 100003:06d}" for i in range(200000)]
    out = run(d, "stdin_pipe", text="\n".join(lines) + "\n")
    t.ok(out.split() == sorted(lines), "1.4 MB are sorted")


def test_remote(d):
    if WRAP:  # what it ships is /proc/self/exe, which is the wrapper
        RAN.add("remote")
        return
    t.equal(run(d, "remote"), "230209 primes below 3200000\n", "over 32 sandboxes")


def test_terminal(d):
    out = run(d, "terminal", text="tty\nstty size\nexit\n")
    t.contains(out, "/dev/pts/", "a terminal")


def test_port_http(d):
    out = run(d, "port_http")
    t.ok(re.fullmatch(r"200, text/plain: hello, web\nfor ten minutes: http://\S+/hello\.txt\?\S+\n", out), out)


def test_snapshot(d):
    t.equal(run(d, "snapshot"), "set up once\n", "made from it")
    left = [s["name"] for s in d.expect(200, "GET", "/v1/snapshots").json() if s["name"].startswith("example-")]
    t.equal(left, [], "snapshots")


def test_event_loops(d):
    t.equal(run(d, "event_loop_poll"), "10 of 10 answered\n", "poll")
    t.equal(run(d, "event_loop_uv"), "done in the sandbox\nthe loop's own timer came often meanwhile\n", "libuv")
    t.equal(run(d, "event_loop_glib"), "answered\n", "GLib")


def test_no_example_is_left_out(d):
    del d
    names = {n[:-2] for n in os.listdir(SOURCES) if n.endswith(".c")}
    t.equal(sorted(names - RAN), [], "examples that were not run")


def test_no_sandbox_is_left(d):
    left = [s for s in d.expect(200, "GET", "/v1/sandboxes").json() if s["status"] != "stopped"]
    t.equal(left, [], "sandboxes")


if __name__ == "__main__":
    t.main(globals())
