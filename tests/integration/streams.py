#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""WebSocket conversations with processes: JSON text messages and binary agent frames."""

import json
import re
import threading
import time

import ws
from aviary_test import contains, equal, main, ok, wait_for

SHARED = {}
FRAMES = ("aviary-frames.v1",)


def sandbox(d):
    if "id" not in SHARED:
        SHARED["id"] = d.create()["id"]
    return SHARED["id"]


def connect(d, path="exec/stream", base="/v1/sandboxes", sandbox_id=None, **kw):
    return ws.WebSocket(d.host, d.port, f"{base}/{sandbox_id or sandbox(d)}/{path}",
                        headers={"X-API-Key": d.key}, **kw)


def shell(script, **more):
    return {"type": "start", "cmd": "/bin/sh", "args": ["-c", script], **more}


def start_frame(script, **more):
    return ws.frame(ws.CONTROL, {"process": {"cmd": "/bin/sh", "args": ["-c", script]}, **more})


def collect(session):
    """(types in order, stdout, stderr, last message) of a text session until its close."""
    types, out, err, last = [], "", "", None
    while True:
        message = session.recv_json()
        if message is None:
            return types, out, err, last
        last = message
        if not types or types[-1] != message["type"]:
            types.append(message["type"])
        out += message["data"] if message["type"] == "stdout" else ""
        err += message["data"] if message["type"] == "stderr" else ""


def collect_frames(session):
    """(control objects, {channel: bytes}) of a frames session until its close."""
    control, data = [], {}
    while True:
        message = session.recv()
        if message is None:
            return control, data
        equal(message[0], ws.BINARY, "frames come in binary messages")
        for channel, payload in ws.frames(message[1]):
            if channel == ws.CONTROL:
                control.append(json.loads(payload))
            else:
                data[channel] = data.get(channel, b"") + payload


def alive(d, marker):
    script = f"grep -l -a '{marker[0]}[{marker[1]}]{marker[2:]}' /proc/[0-9]*/cmdline 2>/dev/null | wc -l"
    return int(d.exec(sandbox(d), script)["stdout"]) > 0


def background(d, script, tag):
    return d.expect(202, "POST", f"/v1/sandboxes/{sandbox(d)}/exec",
                    {"cmd": "/bin/sh", "args": ["-c", script], "background": True, "tag": tag}).json()


# -- text ---------------------------------------------------------------------------------------


def test_text_start_output_exit(d):
    for base in ("/v1/sandboxes", "/api/v1/capsules"):
        with connect(d, base=base) as s:
            s.send_json(shell("echo out; sleep 0.1; echo err >&2; exit 3"))
            types, out, err, last = collect(s)
        equal(types, ["start", "stdout", "stderr", "exit"], "order of messages")
        equal((out, err, last["exit_code"]), ("out\n", "err\n", 3), "what they say")
        equal(s.close_code, 1000, "close code")


def test_text_environment_and_directory(d):
    with connect(d) as s:
        s.send_json(shell("echo $A $(pwd)", envs={"A": "1"}, cwd="/tmp"))
        equal(collect(s)[1], "1 /tmp\n", "honoured")


def test_text_program_without_arguments(d):
    with connect(d) as s:
        s.send_json({"type": "start", "cmd": "uname"})
        equal(collect(s)[1], "Linux\n", "looked up in PATH")


def test_text_characters_are_never_cut(d):
    text = "aä✓🎈" * 30000
    with connect(d) as s:
        s.send_json(shell("i=0; while [ $i -lt 300 ]; do printf 'aä✓🎈%.0s' $(seq 100); i=$((i+1)); done"))
        _types, out, _err, last = collect(s)
    equal(last["exit_code"], 0, "exit")
    ok("\ufffd" not in out, "no character was cut")
    equal(out, text, "text")


def test_text_invalid_bytes_are_replaced(d):
    with connect(d) as s:
        s.send_json(shell("printf 'a\\377b\\342\\202'"))
        out = collect(s)[1]
    ok(re.fullmatch("a\ufffdb\ufffd{1,2}", out), f"replaced: {out!r}")


def test_text_stop_kills_the_group(d):
    with connect(d) as s:
        s.send_json(shell("sleep 5151 & sleep 5151"))
        equal(s.recv_json()["type"], "start", "started")
        s.send_json({"type": "stop"})
        last = collect(s)[3]
    equal((last["type"], last["exit_code"]), ("exit", 137), "killed")
    wait_for(lambda: not alive(d, "sleep.5151"), 3, "its child too")


def test_text_stop_overtakes_input(d):
    """More input than the sandbox takes, for a process that reads none: it can be stopped all the same."""
    for path, start, kill, stdin in (
            ("exec/stream", {"type": "start", "cmd": "sleep", "args": ["100"], "stdin": True}, "stop",
             {"type": "stdin", "data": "x" * 50000}),
            ("pty", {"type": "start", "cmd": "/bin/sh", "args": ["-c", "stty raw -echo; sleep 100"]}, "kill",
             {"type": "input", "data": "eHh4" * 12500})):
        with connect(d, path) as s:
            s.send_json(start)
            s.recv_json()
            time.sleep(0.3)
            for _ in range(9):
                s.send_json(stdin)
            s.send_json({"type": kill})
            while True:
                m = s.recv_json()
                if m["type"] in ("exit", "error"):
                    break
            equal((m["type"], m.get("exit_code")), ("exit", 137), f"{path} is stopped")


def test_text_timeout(d):
    with connect(d) as s:
        s.send_json(shell("sleep 100", timeout_sec=0.5))
        last = collect(s)[3]
    ok(last["type"] == "exit" and last["timed_out"], f"says so: {last}")


def test_text_stdin(d):
    with connect(d) as s:
        s.send_json(shell("cat", stdin=True))
        s.send_json({"type": "stdin", "data": "grün\n"})
        s.send_json({"type": "stdin", "data": "x" * 300000})
        s.send_json({"type": "stdin_close"})
        _types, out, _err, last = collect(s)
    equal((out, last["exit_code"]), ("grün\n" + "x" * 300000, 0), "echoed")


def test_text_client_that_leaves_kills(d):
    s = connect(d)
    s.send_json(shell("sleep 5252 & sleep 5252"))
    equal(s.recv_json()["type"], "start", "started")
    s.abort()
    wait_for(lambda: not alive(d, "sleep.5252"), 5, "killed with its group")


def test_text_on_disconnect(d):
    with connect(d) as s:
        s.send_json(shell("sleep 5252 & sleep 5252", on_disconnect="kill"))
        equal(s.recv_json()["type"], "start", "started")
    wait_for(lambda: not alive(d, "sleep.5252"), 5, "killed with its group")
    with connect(d) as s:
        s.send_json(shell("sleep 1; echo kept; sleep 5", on_disconnect="keep", tag="stays"))
        equal(s.recv_json()["tag"], "stays", "started")
    with connect(d, "processes/stays/stream") as s:
        s.recv_json()
        equal(s.recv_json()["data"], "kept\n", "it lived on")
        s.send_json({"type": "stop"})
        equal(collect(s)[3]["exit_code"], 137, "stopped by another socket")


def test_text_stdin_that_is_not_there(d):
    with connect(d) as s:
        s.send_json(shell("sleep 5"))
        s.send_json({"type": "stdin", "data": "x"})
        contains(collect(s)[3]["data"], "stdin", "says what to do")


def test_text_user(d):
    with connect(d) as s:
        s.send_json(shell("id -un; echo $HOME", user="nobody"))
        contains(collect(s)[1], "nobody\n", "user")


def test_text_bad_first_messages(d):
    for message in ("{", "[]", '"x"', "{}", '{"type":"stop"}', '{"type":"start"}',
                    '{"type":"start","cmd":""}', '{"type":"start","cmd":7}',
                    '{"type":"start","cmd":"x","on_disconnect":"x"}', '{"type":"start","cmd":"x","stdin":"y"}',
                    '{"type":"start","cmd":"x","args":[1]}', '{"type":"start","cmd":"a\\u0000b"}'):
        with connect(d) as s:
            s.send_text(message)
            types, _out, _err, last = collect(s)
        equal(types, ["error"], f"answer to {message}")
        ok(last["data"], "says why")
    with connect(d) as s:
        s.send_binary(b"\0\0\0\0\0")
        equal(collect(s)[0], ["error"], "a binary message")


def test_text_unknown_messages_are_ignored(d):
    with connect(d) as s:
        s.send_json(shell("sleep 0.2; echo x"))
        s.send_json({"type": "resize", "cols": 1})
        equal(collect(s)[1], "x\n", "it goes on")


def test_sandbox_dies_meanwhile(d):
    sb = d.create()["id"]
    for protocols in ((), FRAMES):
        s = connect(d, sandbox_id=sb, protocols=protocols)
        if protocols:
            s.send_binary(start_frame("sleep 100"))
        else:
            s.send_json(shell("sleep 100"))
        s.recv()
        SHARED[protocols] = s
    d.delete(sb)
    last = collect(SHARED[()])[3]
    ok(last["type"] == "error" and last["data"], f"a definite last message: {last}")
    control, _data = collect_frames(SHARED[FRAMES])
    contains(control[-1], "error", "in frames too")


# -- before the upgrade -------------------------------------------------------------------------


def refused(d, status, path, base="/v1/sandboxes", protocols=(), headers=None):
    try:
        ws.WebSocket(d.host, d.port, f"{base}/{path}", protocols=protocols,
                     headers={"X-API-Key": d.key} if headers is None else headers)
    except ws.HandshakeError as e:
        equal(e.status, status, f"status for {path}")
        return json.loads(e.body)["error"]["code"]
    raise AssertionError("it was accepted")


def test_refused_handshakes(d):
    unknown = "sb" + "0" * 25
    equal(refused(d, 404, f"{unknown}/exec/stream"), "not_found", "unknown sandbox")
    equal(refused(d, 404, f"{unknown}/exec/stream", base="/v1/capsules", protocols=FRAMES), "not_found",
          "frames")
    equal(refused(d, 400, "nonsense/exec/stream"), "invalid_request", "malformed id")
    equal(refused(d, 401, f"{unknown}/exec/stream", headers={"X-API-Key": "av_" + "0" * 40}), "unauthorized",
          "a wrong key")
    sb = d.create()["id"]
    d.delete(sb)
    equal(refused(d, 409, f"{sb}/exec/stream"), "invalid_state", "stopped sandbox")


def test_younger_clients_get_a_message(d):
    with connect(d, base="/v1/capsules", sandbox_id="sb" + "0" * 25) as s:
        types, _out, _err, last = collect(s)
    equal(types, ["error"], "after the upgrade")
    contains(last["data"], "sandbox", "says what is not there")


# -- a key in the first message -----------------------------------------------------------------


def stranger(d, path="exec/stream", base="/v1/capsules", headers=None, sandbox_id=None, protocols=()):
    return ws.WebSocket(d.host, d.port, f"{base}/{sandbox_id or sandbox(d)}/{path}", headers=headers or {},
                        protocols=protocols)


def auth(d, key=None):
    return {"type": "auth", "token": key or d.key}


def test_key_in_the_first_message(d):
    background(d, "echo attached; sleep 0.5", "auth-1")
    for base in ("/v1/capsules", "/v1/sandboxes"):
        with stranger(d, base=base) as s:
            s.send_json(auth(d))
            s.send_json(shell("echo hello"))
            equal(collect(s)[1], "hello\n", "then the usual conversation")
        with stranger(d, path="processes/auth-1/stream", base=base) as s:
            s.send_json(auth(d))
            equal(collect(s)[1], "attached\n", "attaching begins by itself")
        with stranger(d, base=base, protocols=FRAMES) as s:
            s.send_json(auth(d))
            s.send_binary(start_frame("echo frames"))
            equal(collect_frames(s)[1], {ws.STDOUT: b"frames\n"}, "frames")
    with stranger(d, sandbox_id="sb" + "0" * 25) as s:
        s.send_json(auth(d))
        contains(collect(s)[3]["data"], "sandbox", "what is not there is said after the key")


def test_strangers_are_refused(d):
    bad = [auth(d, "av_" + "0" * 40), auth(d, "x" * 200), {"type": "auth"}, {"type": "auth", "token": 7},
           shell("echo not-reached"), {}]
    for message in bad:
        for unknown in (False, True):
            with stranger(d, sandbox_id="sb" + "0" * 25 if unknown else None) as s:
                s.send_json(message)
                types, _out, _err, last = collect(s)
            equal((types, last["data"]), (["error"], "authentication failed"), f"answer to {message}")
    with stranger(d) as s:
        s.send_binary(start_frame("echo not-reached"))
        equal(collect(s)[3]["data"], "authentication failed", "a binary message")
    with stranger(d, protocols=FRAMES) as s:
        s.send_binary(start_frame("echo not-reached"))
        equal(collect_frames(s)[0][-1]["error"]["code"], "unauthorized", "frames")
    with stranger(d, path="pty") as s:
        s.send_json({"type": "start"})
        equal(s.recv_json(), {"type": "error", "data": "authentication failed", "fatal": True}, "terminal")
        equal(s.recv(), None, "closed at once")


def test_wrong_key_of_younger_clients(d):
    with stranger(d, headers={"X-API-Key": "wrn_" + "0" * 40}) as s:
        s.send_json(shell("echo not-reached"))
        equal(collect(s)[3]["data"], "authentication failed", "after the upgrade")


def test_strangers_get_little_room_and_time(d):
    with stranger(d) as s:
        s.send_text(json.dumps({"type": "auth", "token": "x" * 5000}))
        equal(s.recv(), None, "a long first message")
        equal(s.close_code, 1009, "close code")
    with stranger(d) as s:
        start = time.monotonic()
        last = collect(s)[3]
        ok(4 < time.monotonic() - start < 20, "after five seconds")
        contains(last["data"], "authentication failed", "says why")


# -- frames -------------------------------------------------------------------------------------


def test_frames_start_output_end(d):
    with connect(d, protocols=FRAMES) as s:
        equal(s.subprotocol, FRAMES[0], "subprotocol")
        s.send_binary(start_frame("echo out; echo err >&2; exit 3"))
        control, data = collect_frames(s)
    ok(control[0]["start"]["pid"] > 0, "start first")
    equal(data, {ws.STDOUT: b"out\n", ws.STDERR: b"err\n"}, "data")
    equal((control[-1]["end"]["exitCode"], control[-1]["end"]["exited"]), (3, True), "end last")
    equal(s.close_code, 1000, "close code")


def test_frames_stdin_in_the_first_message(d):
    with connect(d, protocols=FRAMES) as s:
        s.send_binary(start_frame("cat", stdin=True) + ws.frame(ws.STDIN, b"a\0\xff") +
                      ws.frame(ws.STDIN, b""))
        control, data = collect_frames(s)
    equal(data, {ws.STDOUT: b"a\0\xff"}, "bytes are bytes")
    equal(control[-1]["end"]["exitCode"], 0, "end of input was seen")


def test_frames_much_data_both_ways(d):
    piece, rounds = bytes(range(256)) * 256, 128
    with connect(d, protocols=FRAMES) as s:
        s.send_binary(start_frame("cat", stdin=True))

        def send():
            for _ in range(rounds // 8):
                s.send_binary(ws.frame(ws.STDIN, piece) * 8)
            s.send_binary(ws.frame(ws.STDIN, b""))

        # While nobody reads what cat writes, cat does not read: one thread would wait for itself.
        sender = threading.Thread(target=send)
        sender.start()
        control, data = collect_frames(s)
        sender.join()
    equal(len(data[ws.STDOUT]), rounds * len(piece), "length")
    ok(data[ws.STDOUT] == piece * rounds, "content")
    equal(control[-1]["end"]["exitCode"], 0, "exit")


def test_process_that_does_not_read_stops_the_client(d):
    before = d.rss_kib()
    with connect(d, protocols=FRAMES) as s:
        s.send_binary(start_frame("sleep 2; wc -c", stdin=True))
        sent = 0
        s.sock.settimeout(1)
        try:
            while sent < 256 << 20:
                s.send_binary(ws.frame(ws.STDIN, bytes(65536)) * 8)
                sent += 8 * 65536
        except TimeoutError:
            pass
        ok(sent < 64 << 20, f"{sent >> 20} MiB were taken for a process that reads nothing")
        d.memory_within(before, 12288)


def test_frames_pty_and_resize(d):
    with connect(d, protocols=FRAMES) as s:
        s.send_binary(ws.frame(ws.CONTROL, {"process": {"cmd": "/bin/sh"},
                                            "pty": {"size": {"cols": 80, "rows": 24}}}))
        s.send_binary(ws.frame(ws.PTY, b"stty size\n"))
        s.send_binary(ws.frame(ws.CONTROL, {"resize": {"cols": 132, "rows": 50}}))
        s.send_binary(ws.frame(ws.PTY, b"sleep 0.3; stty size; exit 4\n"))
        control, data = collect_frames(s)
    contains(data[ws.PTY], b"50 132", "size after the resize")
    equal(control[-1]["end"]["exitCode"], 4, "exit")


def test_frames_signal_to_the_group(d):
    with connect(d, protocols=FRAMES) as s:
        s.send_binary(start_frame("sleep 5353 & sleep 5353"))
        s.recv()
        s.send_binary(ws.frame(ws.CONTROL, {"signal": "SIGTERM", "scope": "group"}))
        control, _data = collect_frames(s)
    equal(control[-1]["end"]["signal"], 15, "signal")
    wait_for(lambda: not alive(d, "sleep.5353"), 3, "all of them")


def test_frames_on_detach(d):
    for how, stays in (("keep", True), ("kill", False)):
        s = connect(d, protocols=FRAMES)
        s.send_binary(start_frame("sleep 5454 & sleep 5454", onDetach=how, killGroup=True))
        s.recv()
        s.abort()
        if stays:
            time.sleep(0.5)
            ok(alive(d, "sleep.5454"), "it lives on")
            d.exec(sandbox(d), "pkill -f '[s]leep 5454'")
        wait_for(lambda: not alive(d, "sleep.5454"), 5, f"gone ({how})")


def test_frames_bad_first_messages(d):
    for data in (b"", b"\0", ws.frame(ws.STDIN, b"x"), ws.frame(ws.CONTROL, b"{"),
                 ws.frame(ws.CONTROL, b"[]"), ws.frame(ws.CONTROL, {}), b"\0\0\xff\xff\0{}",
                 b"\xff\xff\xff\xff\0{}", ws.frame(9, b"{}"),
                 ws.frame(ws.CONTROL, {"process": {"cmd": 1}})):
        with connect(d, protocols=FRAMES) as s:
            s.send_binary(data)
            control, _data = collect_frames(s)
        ok("error" in control[-1] and control[-1]["error"]["message"], f"{data[:40]!r}: {control}")
    with connect(d, protocols=FRAMES) as s:
        s.send_text("{}")
        contains(collect_frames(s)[0][-1], "error", "a text message")


def test_frames_bad_later_messages(d):
    for data in (b"\0\0\0\5", ws.frame(ws.STDOUT, b"x"), ws.frame(7, b"x"), b"\0\2\0\0\1" + b"x" * 131072):
        with connect(d, protocols=FRAMES) as s:
            s.send_binary(start_frame("sleep 100", onDetach="kill"))
            s.recv()
            s.send_binary(data)
            control, _data = collect_frames(s)
        ok("error" in control[-1], f"{data[:40]!r}: {control}")


# -- attaching ----------------------------------------------------------------------------------


def test_attach_replays_and_follows(d):
    background(d, "echo early; sleep 1; echo late; exit 5", "att-1")
    time.sleep(0.4)
    with connect(d, "processes/att-1/stream") as s:
        types, out, _err, last = collect(s)
    equal((types[0], out, last["exit_code"]), ("start", "early\nlate\n", 5), "text")


def test_attach_without_replay(d):
    p = background(d, "echo early; sleep 1; echo late", "att-2")
    time.sleep(0.4)
    with connect(d, f"processes/{p['pid']}/stream?replay=false") as s:
        equal(collect(s)[1], "late\n", "only what came afterwards")


def test_attach_with_frames_tells_of_the_gap(d):
    background(d, "head -c 3000000 /dev/zero | tr '\\0' x; echo the-end; sleep 2", "att-3")
    time.sleep(1)
    with connect(d, "processes/att-3/stream", protocols=FRAMES) as s:
        control, data = collect_frames(s)
    gap = [c["gap"]["dropped"] for c in control if "gap" in c]
    ok(len(gap) == 1 and gap[0] > 1000000, f"a gap: {control}")
    equal(gap[0] + len(data[ws.STDOUT]), 3000000 + len("the-end\n"), "dropped and kept are all there was")
    ok(data[ws.STDOUT].endswith(b"the-end\n"), "the newest is kept")


def test_attach_after_the_end(d):
    background(d, "echo short; exit 6", "att-4")
    time.sleep(0.5)
    with connect(d, "processes/att-4/stream") as s:
        _types, out, _err, last = collect(s)
    equal((out, last["exit_code"]), ("short\n", 6), "remembered")


def test_detaching_leaves_the_process(d):
    background(d, "sleep 5555", "att-5")
    s = connect(d, "processes/att-5/stream")
    s.recv()
    s.abort()
    time.sleep(0.5)
    ok(alive(d, "sleep.5555"), "it lives on")
    d.expect(204, "DELETE", f"/v1/sandboxes/{sandbox(d)}/processes/att-5")


def test_attach_to_nothing(d):
    with connect(d, "processes/no-such-tag/stream") as s:
        types, _out, _err, last = collect(s)
    equal(types, ["error"], "text")
    contains(last["data"], "not found", "as clients look for it")
    with connect(d, "processes/99999/stream", protocols=FRAMES) as s:
        contains(collect_frames(s)[0][-1], "error", "frames")


# -- pressure -----------------------------------------------------------------------------------


def test_slow_reader_stops_the_process_and_loses_nothing(d):
    before = d.rss_kib()
    count = 400000
    for protocols in ((), FRAMES):
        with connect(d, protocols=protocols, rcvbuf=65536, timeout=60) as s:
            if protocols:
                s.send_binary(start_frame(f"seq {count}; echo done >/tmp/seq-done"))
            else:
                s.send_json(shell(f"seq {count}; echo done >/tmp/seq-done", timeout_sec=0))
            time.sleep(1.5)
            d.memory_within(before, 12288)
            if protocols:
                out = collect_frames(s)[1][ws.STDOUT].decode()
            else:
                out = collect(s)[1]
        ok(out == "".join(f"{i}\n" for i in range(1, count + 1)), "every line, in order")


def test_endless_output_waits_for_its_reader(d):
    with connect(d, protocols=FRAMES, rcvbuf=65536) as s:
        s.send_binary(start_frame("exec yes | tee /dev/null", onDetach="kill"))
        s.recv()
        time.sleep(1)
        first = cpu_of(d, "yes")
        time.sleep(1)
        equal(cpu_of(d, "yes"), first, "the process is stopped, its cpu time stands still")


def cpu_of(d, name):
    script = f"for p in $(pgrep -x {name}); do cut -d' ' -f14,15 /proc/$p/stat; done"
    return d.exec(sandbox(d), script)["stdout"]


main(globals())
