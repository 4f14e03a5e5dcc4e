#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Foreground and background exec: output, environment, limits of time, signals, encodings."""

import base64
import time

from aviary_test import contains, equal, least, main, ok, wait_for

SHARED = {}


def sandbox(d):
    """One sandbox for the tests that leave no trace in it."""
    if "id" not in SHARED:
        SHARED["id"] = d.create()["id"]
    return SHARED["id"]


def processes(d, sandbox_id):
    return d.expect(200, "GET", f"/v1/sandboxes/{sandbox_id}/processes").json()["processes"]


def alive(d, marker):
    """Whether a process with this text in its command line runs inside."""
    script = f"grep -l -a '{marker[0]}[{marker[1]}]{marker[2:]}' /proc/[0-9]*/cmdline 2>/dev/null | wc -l"
    return int(d.exec(sandbox(d), script)["stdout"]) > 0


def test_output_and_exit_code(d):
    r = d.exec(sandbox(d), "echo out; echo err >&2; exit 7")
    equal((r["stdout"], r["stderr"], r["exit_code"]), ("out\n", "err\n", 7), "result")
    equal((r["sandbox_id"], r["cmd"], r["encoding"]), (sandbox(d), "/bin/sh", "utf-8"), "the rest")
    ok(isinstance(r["duration_ms"], int) and 0 <= r["duration_ms"] < 10000, "duration")


def test_program_from_path_with_arguments(d):
    r = d.expect(200, "POST", f"/v1/sandboxes/{sandbox(d)}/exec",
                 {"cmd": "echo", "args": ["a b", "$HOME", "*"], "timeout_sec": 30}).json()
    equal(r["stdout"], "a b $HOME *\n", "no shell in between")


def test_environment_and_directory(d):
    r = d.exec(sandbox(d), "echo $A; pwd; echo $HOME; id -un", envs={"A": "ä=b c"}, cwd="/tmp")
    equal(r["stdout"].split("\n")[:4], ["ä=b c", "/tmp", "/root", "root"], "envs, cwd, user")
    r = d.expect(400, "POST", f"/v1/sandboxes/{sandbox(d)}/exec", {"cmd": "true", "cwd": "/nowhere"})
    equal(r.code, "invalid_request", "a directory that is not there")


def test_environment_of_the_sandbox(d):
    sb = d.create(envs={"FROM_CREATE": "1", "BOTH": "create"})
    r = d.exec(sb["id"], "echo $FROM_CREATE $BOTH", envs={"BOTH": "exec"})
    equal(r["stdout"], "1 exec\n", "create's and exec's variables")
    d.delete(sb["id"])


def test_stdin_is_closed(d):
    equal(d.exec(sandbox(d), "cat; echo end")["stdout"], "end\n", "no input")


def test_program_that_does_not_exist(d):
    r = d.request("POST", f"/v1/sandboxes/{sandbox(d)}/exec", {"cmd": "no-such-program-here"})
    if r.status == 200:
        equal(r.json()["exit_code"], 127, "as a shell says it")
    else:
        equal((r.status, r.code), (404, "not_found"), "not found")


def test_program_of_another_processor_is_no_script(d):
    sb = sandbox(d)
    d.exec(sb, "printf '\\177ELF\\002echo no\\n' >/tmp/foreign; echo 'echo yes' >/tmp/plain; chmod 755 /tmp/foreign /tmp/plain")
    r = d.request("POST", f"/v1/sandboxes/{sb}/exec", {"cmd": "/tmp/foreign"})
    ok(r.status != 200 or r.json()["exit_code"] == 126, f"not executed: {r.status} {r.body[:200]}")
    contains(r.body.decode().lower(), "format", "why")
    r = d.expect(200, "POST", f"/v1/sandboxes/{sb}/exec", {"cmd": "/tmp/plain"}).json()
    equal(r["stdout"], "yes\n", "without a first line it is the shell's")


def test_binary_output_is_base64(d):
    r = d.exec(sandbox(d), "printf 'a\\377b'; echo text >&2")
    equal(r["encoding"], "base64", "encoding of both")
    equal(base64.b64decode(r["stdout"]), b"a\xffb", "stdout")
    equal(base64.b64decode(r["stderr"]), b"text\n", "stderr")
    r = d.exec(sandbox(d), "printf 'gr\\303\\274n \\000 \\001'")
    equal((r["encoding"], r["stdout"]), ("utf-8", "grün \0 \1"), "text with control characters")


def test_large_output(d):
    r = d.exec(sandbox(d), "head -c 3000000 /dev/zero | tr '\\0' x")
    equal(len(r["stdout"]), 3000000, "length")
    ok("stdout_truncated" not in r, "nothing was cut")


def test_output_over_the_limit_is_cut_and_said_so(d):
    r = d.exec(sandbox(d), "head -c 40000000 /dev/zero | tr '\\0' x; echo done >&2", timeout_sec=60)
    ok(r["stdout_truncated"], "flag")
    ok(1000000 <= len(r["stdout"]) < 40000000, "what was kept")
    equal((r["exit_code"], r["stderr"]), (0, "done\n"), "it ran to its end")


def test_timeout_kills_the_group(d):
    start = time.monotonic()
    r = d.request("POST", f"/v1/sandboxes/{sandbox(d)}/exec",
                  {"cmd": "/bin/sh", "args": ["-c", "echo before; sleep 3131 & sleep 3131"],
                   "timeout_sec": 3})
    took = time.monotonic() - start
    equal((r.status, r.code), (504, "agent_error"), "status and the code that clients know")
    equal(r.json()["error"]["reason"], "timeout", "reason")
    equal(r.json()["stdout"], "before\n", "what it printed before")
    ok(2.9 < took < 10, f"after {took:.1f} s")
    wait_for(lambda: not alive(d, "sleep.3131"), 3, "its children are gone")


def test_timeout_of_zero_is_none(d):
    equal(d.exec(sandbox(d), "sleep 0.2; echo x", timeout_sec=0)["stdout"], "x\n", "no limit")
    equal(d.exec(sandbox(d), "sleep 0.2; echo x", timeout_sec=4.5)["stdout"], "x\n", "a fraction")


def test_killed_by_a_signal(d):
    r = d.exec(sandbox(d), "kill -TERM $$")
    equal((r["exit_code"], r["signal"]), (143, 15), "as a shell says it, and the number")


def test_killed_for_memory(d):
    """Said of the command, also where a shell only hands it on; a kill that is none of the kernel's is not taken for one."""
    sb = d.create(memory_mb=least(64, 512))["id"]
    for i, script in enumerate(("exec tail /dev/zero", "tail /dev/zero; exit $?")):
        r = d.exec(sb, script)
        equal((r["exit_code"], r.get("oom_killed")), (137, True), script)
        equal(d.expect(200, "GET", f"/v1/sandboxes/{sb}").json()["oom_kills"], i + 1, "and counted")
    r = d.exec(sb, "kill -KILL $$")
    equal((r["exit_code"], r.get("oom_killed", False)), (137, False), "killed otherwise")
    d.delete(sb)


def test_ends_when_all_holders_of_the_output_are_done(d):
    r = d.exec(sandbox(d), "(sleep 0.4; echo late) & echo soon")
    equal(r["stdout"], "soon\nlate\n", "output of the child that stayed")


def test_background(d):
    r = d.expect(202, "POST", f"/v1/sandboxes/{sandbox(d)}/exec",
                 {"cmd": "sleep", "args": ["3232"], "background": True, "tag": "bg-1"}).json()
    ok(r["pid"] > 0 and r["tag"] == "bg-1", "pid and tag")
    mine = [p for p in processes(d, sandbox(d)) if p["pid"] == r["pid"]]
    equal([(p["tag"], p["cmd"], p["args"]) for p in mine], [("bg-1", "sleep", ["3232"])], "listed")
    d.expect(204, "DELETE", f"/v1/sandboxes/{sandbox(d)}/processes/{r['pid']}")
    wait_for(lambda: all(p["pid"] != r["pid"] for p in processes(d, sandbox(d))), 2, "gone from the list")
    equal(d.expect(404, "DELETE", f"/v1/sandboxes/{sandbox(d)}/processes/{r['pid']}").code, "not_found",
          "the second time")


def test_background_without_tag_gets_one(d):
    r = d.expect(202, "POST", f"/v1/sandboxes/{sandbox(d)}/exec",
                 {"cmd": "sleep", "args": ["3233"], "background": True, "timeout_sec": None}).json()
    ok(r["tag"].startswith("proc-"), "a tag")
    d.expect(204, "DELETE", f"/v1/sandboxes/{sandbox(d)}/processes/{r['tag']}?signal=SIGTERM")
    wait_for(lambda: all(p["pid"] != r["pid"] for p in processes(d, sandbox(d))), 2, "gone from the list")


def test_background_honours_environment_and_directory(d):
    d.expect(202, "POST", f"/v1/sandboxes/{sandbox(d)}/exec",
             {"cmd": "/bin/sh", "args": ["-c", "echo $A $(pwd) >/tmp/bg"], "background": True,
              "envs": {"A": "1"}, "cwd": "/usr"})
    wait_for(lambda: d.exec(sandbox(d), "cat /tmp/bg 2>/dev/null")["stdout"] == "1 /usr\n", 5, "written")


def test_signals_are_limited(d):
    path = f"/v1/sandboxes/{sandbox(d)}/processes"
    equal(d.expect(400, "DELETE", f"{path}/1234?signal=SIGSTOP").code, "invalid_request", "SIGSTOP")
    equal(d.expect(404, "DELETE", f"{path}/no-such-tag").code, "not_found", "unknown tag")
    equal(d.expect(404, "DELETE", f"{path}/4294967296").code, "not_found", "no pid, so a tag")


def test_client_that_leaves_kills_what_it_started(d):
    conn = d.connection()
    conn.request("POST", f"/v1/sandboxes/{sandbox(d)}/exec",
                 b'{"cmd":"/bin/sh","args":["-c","sleep 3434 & sleep 3434"],"timeout_sec":0}',
                 {"X-API-Key": d.key})
    wait_for(lambda: alive(d, "sleep.3434"), 5, "it runs")
    conn.close()
    wait_for(lambda: not alive(d, "sleep.3434"), 5, "it is killed with its group")


def test_hundred_in_a_row(d):
    for i in range(100):
        equal(d.exec(sandbox(d), f"echo {i}")["stdout"], f"{i}\n", "output")


def test_sandbox_dies_during_exec(d):
    sb = d.create()["id"]
    conn = d.connection()
    conn.request("POST", f"/v1/sandboxes/{sb}/exec", b'{"cmd":"sleep","args":["100"],"timeout_sec":0}',
                 {"X-API-Key": d.key})
    wait_for(lambda: processes(d, sb), 5, "it runs")
    d.delete(sb)
    answer = conn.getresponse()
    body = answer.read()
    ok(answer.status in (409, 502, 503), f"a definite end: {answer.status} {body!r}")
    conn.close()


main(globals())
