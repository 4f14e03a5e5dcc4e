#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line at a terminal, and what belongs to it: sh, logs, code, top, stats, stop, login"""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import termios
import threading
import time

from aviary_test import SLOW, Failure, contains, equal, main, ok, program, wait_for

AVIARY = program("aviary")
# A run in a script's background would hand its ignored signals down to what is started here.
for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(sig, signal.SIG_DFL)


def environment(d, **more):
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "AVIARY_URL": d.url, "AVIARY_API_KEY": d.key, "TERM": "xterm", **more}
    return {k: v for k, v in env.items() if v is not None}


def aviary(d, *args, code=0, stdin=b"", **more):
    p = subprocess.run([AVIARY, *args], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       env=environment(d, **more), timeout=50 * SLOW, check=False)
    equal(p.returncode, code, f"exit status of {args}: {p.stderr}")
    return p.stdout.decode("utf-8", "replace"), p.stderr.decode("utf-8", "replace")


class Terminal:
    """A program on a terminal of its own, and what it shows."""

    def __init__(self, d, *args, rows=24, cols=100, **more):
        self.master, self.slave = pty.openpty()
        self.resize(rows, cols)
        self.before = termios.tcgetattr(self.slave)
        self.text = ""
        self.p = subprocess.Popen([AVIARY, *args], stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                  env=environment(d, **more), start_new_session=True,
                                  preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()
        os.close(self.master)
        os.close(self.slave)

    def resize(self, rows, cols):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def read(self, timeout_s):
        if select.select([self.master], [], [], timeout_s)[0]:
            self.text += os.read(self.master, 65536).decode("utf-8", "replace")

    def expect(self, pattern, timeout_s=20):
        """What was shown since the last one, up to the end of the pattern."""
        end = time.monotonic() + timeout_s * SLOW
        while not (m := re.search(pattern, self.text, re.S)):
            if time.monotonic() > end:
                raise Failure(f"not shown: {pattern!r}; but {self.text[-600:]!r}")
            self.read(0.2)
        shown, self.text = self.text[:m.end()], self.text[m.end():]
        return shown

    def end(self, timeout_s=20):
        """Its exit status; the terminal must be as it was."""
        end = time.monotonic() + timeout_s * SLOW
        while self.p.poll() is None:
            self.read(0.1)
            if time.monotonic() > end:
                raise Failure(f"it does not end: {self.text[-600:]!r}")
        self.read(0)
        equal(termios.tcgetattr(self.slave), self.before, "the terminal is as it was")
        return self.p.returncode


def clean(d):
    """Without what earlier tests left."""
    for sandbox in d.expect(200, "GET", "/v1/sandboxes").json():
        d.delete(sandbox["id"])


class Way:
    """A way to the daemon that can be cut."""

    def __init__(self, d):
        self.target, self.open = (d.host, d.port), True
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.sockets = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                a = self.listener.accept()[0]
            except OSError:
                return
            if not self.open:
                a.close()
                continue
            b = socket.create_connection(self.target)
            self.sockets += [a, b]
            for x, y in ((a, b), (b, a)):
                threading.Thread(target=self.pump, args=(x, y), daemon=True).start()

    @staticmethod
    def pump(a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def cut(self):
        self.open = False
        for s in self.sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.cut()
        self.listener.close()


# -- sh -------------------------------------------------------------------------------------------


def processes(d, name):
    return json.loads(aviary(d, "ps", "--json", name)[0])


def test_sh(d):
    d.create(metadata={"name": "den"})
    with Terminal(d, "sh", "-e", "PS1=$ ", "den", "--", "sh", rows=33, cols=91) as t:
        t.expect(r"\$ ")
        t.type("echo $TERM a$((1+1))b; stty size\n")
        t.expect("xterm a2b.*33 91.*\\$ ")
        t.resize(20, 50)
        t.type("until stty size | grep '20 50'; do sleep 0.1; done\n")
        t.expect("\n20 50.*\\$ ")
        t.type("sleep 60\n")
        time.sleep(0.3)
        t.type("\x03")
        t.expect(r"\$ ")
        t.type("\x10x\n")  # the beginning of the keys that detach, and then something else
        t.expect(r"\$ ")
        t.type("exit 3\n")
        equal(t.end(), 3, "the shell's exit status")
    with Terminal(d, "sh", "den") as t:
        t.expect(r"[#$] ")
        t.type("echo from-$0\n")
        t.expect("from-.*sh")
        t.type("\x04")
        equal(t.end(), 0, "the usual shell")
    equal(processes(d, "den"), [], "nothing is left")


def test_sh_detach(d):
    d.create(metadata={"name": "cave"})
    with Terminal(d, "sh", "-e", "PS1=$ ", "--tag", "mine", "cave", "--", "sh") as t:
        t.expect(r"\$ ")
        t.type("x=kept\n")
        t.expect(r"\$ ")
        t.type("\x10\x11")
        t.expect("detached; 'aviary sh cave --attach mine'")
        equal(t.end(), 0, "exit status")
    equal([p["tag"] for p in processes(d, "cave")], ["mine"], "it goes on")
    with Terminal(d, "sh", "cave", "--attach", "mine", "--detach-keys", "ctrl-]") as t:
        t.type("echo it-is-$x\n")
        t.expect("it-is-kept")
        t.type("\x1d")
        t.expect("detached")
        equal(t.end(), 0, "other keys")
    with Terminal(d, "sh", "cave", "-a", "mine", "--json") as t:
        t.type("exit 5\n")
        t.expect('"exit_code": 5')
        equal(t.end(), 5, "its exit status")
    with Terminal(d, "sh", "cave", "-a", "mine9") as t:
        t.expect("mine9")
        equal(t.end(), 125, "none of that name")


def test_sh_mistakes(d):
    d.create(metadata={"name": "pit"})
    contains(aviary(d, "sh", "pit", code=2)[1], "no terminal", "a pipe")
    for args, code, text in ((["pit", "--", "no-such-program"], 127, "no-such-program"), (["pit", "--", "/etc/passwd"], 126, "passwd"),
                             (["nosuch"], 125, "no sandbox"), (["pit", "--attach", "x", "--", "sh"], 2, "--attach"),
                             (["pit", "--detach-keys", "ctrl-"], 2, "ctrl-p,ctrl-q")):
        with Terminal(d, "sh", *args) as t:
            t.expect(re.escape(text))
            equal(t.end(), code, f"exit status of {args}")


def test_sh_hang_up(d):
    d.create(metadata={"name": "attic"})
    for keep in ([], ["--keep"]):
        with Terminal(d, "sh", *keep, "attic") as t:
            t.expect(r"[#$] ")
            t.p.send_signal(signal.SIGHUP)
            equal(t.end(), 129, "exit status")
            wait_for(lambda k=keep: len(processes(d, "attic")) == len(k), 10, f"the shell ends, or not: {keep}")


def test_sh_broken(d):
    """A connection that breaks, and comes back; or does not."""
    d.create(metadata={"name": "loft"})
    way = Way(d)
    try:
        with Terminal(d, "sh", "-e", "PS1=$ ", "--tag", "t", "loft", "--", "sh", AVIARY_URL=way.url) as t:
            t.expect(r"\$ ")
            t.type("y=still\n")
            t.expect(r"\$ ")
            way.cut()
            t.expect("connecting again")
            way.open = True
            time.sleep(1)
            t.type("echo $y-here\n")
            t.expect("still-here")
            way.cut()
            t.expect("connecting again")
            time.sleep(0.3)
            t.type("\x03")
            t.expect("--attach t")
            equal(t.end(), 130, "Ctrl-C gives up")
        equal(len(processes(d, "loft")), 1, "the shell goes on")
        with Terminal(d, "sh", "-a", "t", "loft") as t:
            t.type("echo $y-there; exit\n")
            t.expect("still-there")
            equal(t.end(), 0, "and can be come back to")
    finally:
        way.close()


def test_sh_sandbox_ends(d):
    sandbox = d.create(metadata={"name": "barn"})["id"]
    with Terminal(d, "sh", "barn") as t:
        t.expect(r"[#$] ")
        d.delete(sandbox)
        equal(t.end(), 125, "exit status")


# -- stats, top -----------------------------------------------------------------------------------


def test_stats(d):
    clean(d)
    busy, idle = d.create(metadata={"name": "busy"}, cpus=1)["id"], d.create()["id"]
    aviary(d, "exec", "-d", "busy", "--", "sh", "-c", "while :; do :; done")
    time.sleep(0.2)
    lines = aviary(d, "stats")[0].splitlines()
    equal(lines[0].split(), ["ID", "NAME", "STATE", "CPU%", "CPUS", "MEMORY", "DISK", "PROCS", "AGE"], "titles")
    equal([line.split()[0] for line in lines[1:]], [busy, idle], "the busy one first")
    (one,) = json.loads(aviary(d, "stats", "--json", "busy")[0])
    equal((one["id"], one["name"], one["status"], one["cpus"]), (busy, "busy", "running", 1), "whose")
    if one["cpu_percent"] is not None:  # rootless without delegation nobody counts
        ok(20 < one["cpu_percent"] < 130, f"its processor: {one}")
        ok(one["memory_bytes"] > 0 and one["processes"] == 2, f"its use: {one}")
    equal([s["id"] for s in json.loads(aviary(d, "stats", "--json", "--sort", "age")[0])], [idle, busy], "newest first")
    aviary(d, "stats", "nosuch", code=125)
    contains(aviary(d, "stats", "--sort", "size", code=2)[1], "memory", "orders")
    tables = aviary(d, "top", "-n", "2", "--interval", "300ms")[0]
    equal(tables.count("CPU%"), 2, "tables in a pipe")
    lines = aviary(d, "top", "-n", "2", "--json", "--interval", "300ms", "busy")[0].splitlines()
    equal([[s["id"] for s in json.loads(line)] for line in lines], [[busy], [busy]], "an array a line")


def test_top(d):
    clean(d)
    d.create(metadata={"name": "nest"})
    with Terminal(d, "top", "--interval", "300ms") as t:
        contains(t.expect("nest"), "\033[?1049h", "a screen of its own")
        t.expect("by cpu")
        t.type("m")
        t.expect("by memory")
        t.resize(10, 40)
        t.expect("sandboxes, ")
        lines = re.sub(r"\033\[[^a-zA-Z]*[a-zA-Z]", "", t.expect(r"STATE.*?nest.*?\033\[J")).splitlines()
        ok(all(len(line) <= 40 for line in lines), f"as wide as the terminal: {lines}")
        d.create(metadata={"name": "egg"})
        t.expect("egg")
        t.type("q")
        equal(t.end(), 0, "exit status")
        contains(t.text, "\033[?1049l", "back to the screen of before")
    with Terminal(d, "top") as t:
        t.expect("nest")
        t.type("\x03")
        equal(t.end(), 0, "Ctrl-C")
    with Terminal(d, "top") as t:
        t.expect("nest")
        t.p.send_signal(signal.SIGTERM)
        equal(t.end(), 143, "ended from outside")
    with Terminal(d, "top", NO_COLOR="1") as t:
        shown = t.expect("nest")
        ok("\033[1m" not in shown, "no colours")
        t.type("q")
        t.end()


def test_top_closed_pipe(d):
    d.create()
    p = subprocess.run(["sh", "-c", '"$0" top --interval 200ms | head -1', AVIARY], env=environment(d), stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=30 * SLOW, check=True)
    equal((p.stdout.count(b"\n"), p.stderr), (1, b""), "a reader that goes away ends it, without a word")


def test_top_without_daemon(d):
    with Terminal(d, "top", AVIARY_URL="http://127.0.0.1:1") as t:
        t.expect("no daemon")
        equal(t.end(), 125, "exit status")


# -- logs -----------------------------------------------------------------------------------------


def test_logs(d):
    sandbox = d.create(metadata={"name": "press"}, command=["sh", "-c", "echo one; echo two >&2; echo three; printf '\\377\\n'; exit 3"])["id"]
    wait_for(lambda: d.expect(200, "GET", f"/v1/sandboxes/{sandbox}").json()["status"] == "stopped", 20, "it is over")
    equal(aviary(d, "logs", "press"), ("one\nthree\n\ufffd\n", "two\n"), "each where it went, by name, after the end")
    equal(aviary(d, "logs", sandbox, "--stream", "stderr"), ("", "two\n"), "one output")
    equal(len("".join(aviary(d, "logs", sandbox, "--tail", "2")).splitlines()), 2, "the last ones")
    ok(re.fullmatch(r"20\d\d-\d\d-\d\dT\S+Z one\n.*", aviary(d, "logs", "-t", sandbox)[0], re.S), "times")
    lines = [json.loads(line) for line in aviary(d, "logs", "--json", "-f", sandbox)[0].splitlines()]
    equal([line.get("text") for line in lines if line.get("stream") == "stdout"], ["one", "three", None], "objects")
    equal([line["base64"] for line in lines if "base64" in line], ["/w=="], "what is no text")
    equal(lines[-1], {"exit_code": 3}, "the end")
    equal(aviary(d, "logs", "--since", "offset:99", sandbox), ("", ""), "nothing so far on")
    for args, code, text in ((["--since", "yesterday", sandbox], 125, "since"), (["--stream", "x", sandbox], 2, "stdout"),
                             (["nosuch"], 125, "no sandbox"), ([d.create()["id"]], 125, "main command")):
        contains(aviary(d, "logs", *args, code=code)[1], text, f"logs {args}")


def test_logs_follow(d):
    aviary(d, "create", "--name", "clock", "--workdir", "/tmp", "--", "sh", "-c", "i=0; while :; do echo tick-$i; i=$((i+1)); sleep 0.1; done")
    with Terminal(d, "logs", "-f", "clock") as t:
        t.expect("tick-5")
        t.type("\x03")
        equal(t.end(), 130, "Ctrl-C")
    way = Way(d)
    try:
        with Terminal(d, "logs", "-f", "clock", AVIARY_URL=way.url) as t:
            text = t.expect("tick-8")
            way.cut()
            time.sleep(0.5)
            way.open = True
            text += t.expect("tick-3[0-9]")
            t.p.send_signal(signal.SIGTERM)
            equal(t.end(), 143, "ended from outside")
        numbers = [int(n) for n in re.findall(r"tick-(\d+)", text)]
        equal(numbers, list(range(len(numbers))), "each line once, over a connection that broke")
    finally:
        way.close()
    p = subprocess.run(["sh", "-c", '"$0" logs -f clock | head -3', AVIARY], env=environment(d), stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=30 * SLOW, check=True)
    equal((p.stdout, p.stderr), (b"tick-0\ntick-1\ntick-2\n", b""), "a reader that goes away")
    (clock,) = [s for s in json.loads(aviary(d, "ls", "--json")[0]) if s["metadata"].get("name") == "clock"]
    equal((clock["workdir"], clock["on_exit"]), ("/tmp", "stop"), "its main command")
    contains(aviary(d, "create", "--on-exit", "keep", code=2)[1], "COMMAND", "what is for a command only")
    contains(aviary(d, "create", "--", "no-such-program", code=125)[1], "no-such-program", "one that cannot be started")
    aviary(d, "logs", "clock", "--tail", "x", code=2)
    aviary(d, "exec", "-d", "--tag", "b", "clock", "--", "echo", "aside")
    equal(aviary(d, "logs", "clock", "b")[0], "aside\n", "of another process")
    contains(aviary(d, "logs", "--tail", "1", "clock", "b", code=2)[1], "main command", "what is not for that")


# -- stop ----------------------------------------------------------------------------------------


def test_stop(d):
    quick = d.create(metadata={"name": "quick"}, command=["sh", "-c", "trap 'exit 7' TERM; touch /tmp/up; while :; do sleep 0.05; done"])["id"]
    stubborn = d.create(metadata={"name": "stubborn"}, command=["sh", "-c", "trap '' TERM; touch /tmp/up; while :; do sleep 0.05; done"])["id"]
    for sandbox in (quick, stubborn):
        wait_for(lambda s=sandbox: d.exec(s, "test -e /tmp/up")["exit_code"] == 0, 20, "it listens to signals")
    began = time.monotonic()
    out, err = aviary(d, "stop", "--grace", "1s", "quick", "stubborn", "nosuch", code=125)
    equal(out.split(), [quick, stubborn], "those that are stopped")
    contains(err, "no sandbox 'nosuch'", "and the one that is not there")
    contains(err, "stubborn: killed", "what was not in order")
    ok("quick: killed" not in err, "what was")
    ok(time.monotonic() - began < 10 * SLOW, "both at once")
    equal(d.expect(200, "GET", f"/v1/sandboxes/{quick}").json()["exit_code"], 7, "its exit status")
    result = json.loads(aviary(d, "stop", "--json", quick)[0])
    equal(result["sandbox"]["status"], "stopped", "once more tells what is known")
    equal(aviary(d, "stop", "--missing-ok", "nosuch", "sb" + "0" * 25)[0], "", "one that is not there")
    aviary(d, "stop", "sb" + "0" * 25, code=125)
    contains(aviary(d, "stop", "--grace", "1h", "x", code=2)[1], "600", "the longest grace")
    aviary(d, "stop", "--snapshot", "s", "x", "y", code=2)
    kept = d.create()["id"]
    d.exec(kept, "echo kept >/root/z")
    aviary(d, "stop", "-q", "--snapshot", "kept", kept)
    equal(aviary(d, "run", "--template", "kept", "--", "cat", "/root/z")[0], "kept\n", "its files")
    aviary(d, "snapshot", "rm", "-q", "kept")


def test_stop_interrupted(d):
    slow = d.create(metadata={"name": "slow"}, command=["sh", "-c", "trap '' TERM; touch /tmp/up; while :; do sleep 0.05; done"])["id"]
    wait_for(lambda: d.exec(slow, "test -e /tmp/up")["exit_code"] == 0, 20, "it listens to signals")
    with Terminal(d, "stop", "--grace", "60s", "slow") as t:
        t.expect("waiting for its end")
        t.type("\x03")
        equal(t.end(), 130, "Ctrl-C")
    aviary(d, "rm", "-q", "slow")


# -- code -----------------------------------------------------------------------------------------

PICTURE = """
class P:
    def _repr_png_(self):
        return b"\\x89PNG\\r\\n\\x1a\\n picture"
P()
"""


def test_code(d):
    d.create(metadata={"name": "lab"})
    aviary(d, "code", "lab", "-c", "x = 40")
    equal(aviary(d, "code", "lab", "-c", "x + 2")[0], "42\n", "what was defined stays")
    equal(aviary(d, "code", "lab", stdin=b"print(x)\nimport sys; print('e', file=sys.stderr)"), ("40\n", "e\n"), "standard input")
    out, err = aviary(d, "code", "lab", "-c", "1/0", code=1)
    contains(err, "ZeroDivisionError", "what was raised")
    equal((out, "\033" in err), ("", False), "nothing else, no colours")
    aviary(d, "code", "lab", "--timeout", "500ms", "-c", "while True: pass", code=124)
    contains(aviary(d, "code", "lab", "-c", "import os; os._exit(3)", code=125)[1], "exit status 3", "its process ended")
    answer = json.loads(aviary(d, "code", "lab", "--json", "-e", "A=b", "-c", "import os; os.environ['A']")[0])
    equal(answer["results"][0]["data"]["text/plain"], "'b'", "the answer as it is")
    aviary(d, "code", "lab", "/nonexistent", code=125)
    aviary(d, "code", "lab", "-c", "1", "file", code=2)
    aviary(d, "code", "nosuch", "-c", "1", code=125)


def test_code_pictures(d):
    d.create(metadata={"name": "easel"})
    with tempfile.TemporaryDirectory() as top:
        path = os.path.join(top, "p.py")
        with open(path, "w", encoding="ascii") as f:
            f.write(PICTURE)
        out = aviary(d, "code", "easel", path, "--images", top)[0]
        equal(out, f"[image/png: {top}/1.png]\n", "where it is")
        with open(os.path.join(top, "1.png"), "rb") as f:
            equal(f.read(), b"\x89PNG\r\n\x1a\n picture", "the picture")
        contains(aviary(d, "code", "easel", path, "--images", top)[0], "2.png", "none is written over")
        ok(aviary(d, "code", "easel", path, "--no-images")[0].startswith("<"), "its text")
        for env, pattern in (({"KITTY_WINDOW_ID": "1"}, r"\033_Gf=100,a=T,m=0;iVBOR[^\033]*\033\\"),
                             ({"TERM_PROGRAM": "iTerm.app"}, r"\033\]1337;File=inline=1;size=16:iVBOR[^\007]*\007")):
            with Terminal(d, "code", "easel", path, **env) as t:
                t.expect(pattern)
                equal(t.end(), 0, "exit status")


def test_code_prompt(d):
    d.create(metadata={"name": "desk"})
    with Terminal(d, "code", "desk") as t:
        for line, shown in (("x = 20", ">>> "), ("x * 2", "40.*>>> "), ("for i in range(3):", r"\.\.\. "),
                            ("  print('n', i)", r"\.\.\. "), ("", "n 0.*n 2.*>>> "), ("def f(", r"\.\.\. ")):
            t.type(line + "\n")
            t.expect(shown)
        t.type("\x03")
        t.expect(">>> ")
        t.type("import time; print('be' + 'gun', flush=True); time.sleep(60)\n")
        t.expect("begun")  # output comes before the end
        t.type("\x03")
        t.expect("interrupted.*>>> ")
        t.type("1/0\n")
        t.expect("ZeroDivisionError: .*>>> ")
        t.type("x\n")
        t.expect("20.*>>> ")
        t.type("\x1b[A\x1b[A")  # two lines back
        t.expect("1/0")
        t.type("\x03")
        t.expect(">>> ")
        t.type("\x04")
        equal(t.end(), 0, "the end of the input")
    with Terminal(d, "code", "desk") as t:
        t.expect(">>> ")
        t.type("x\n")
        t.expect("20.*>>> ")
        t.p.send_signal(signal.SIGTERM)
        equal(t.end(), 143, "ended from outside")
    with Terminal(d, "code", "desk") as t:
        t.expect(">>> ")
        t.type("\0")  # ^Space ends nothing
        t.type("x\n")
        t.expect("20.*>>> ")
        t.type("import time; print('be' + 'gun', flush=True); time.sleep(1)\n")
        t.expect("begun")
        t.type("\x04")  # while it runs, for the prompt that comes
        equal(t.end(), 0, "the end of the input, typed ahead")


# -- login ----------------------------------------------------------------------------------------


def test_login(d):
    with tempfile.TemporaryDirectory() as top:
        own = {"AVIARY_CONFIG_DIR": os.path.join(top, "a", "b"), "AVIARY_API_KEY": None, "AVIARY_URL": None}
        path = os.path.join(top, "a", "b", "credentials.json")
        out, err = aviary(d, "login", "--url", d.url, stdin=d.key.encode() + b"\n", **own)
        contains(out, path, "where it is")
        ok(d.key not in out + err, "the key is not shown")
        equal(stat.S_IMODE(os.stat(path).st_mode), 0o600, "mode")
        aviary(d, "ls", **own)
        equal(sorted(os.listdir(os.path.dirname(path))), ["credentials.json"], "nothing else")
        contains(aviary(d, "login", "--url", d.url, stdin=b"av_" + b"0" * 40 + b"\n", code=125, **own)[1], "not valid", "wrong key")
        with open(path, encoding="ascii") as f:
            equal(json.load(f), {"url": d.url, "api_key": d.key}, "what was there stays")
        aviary(d, "login", "--url", d.url, code=2, **own)
        aviary(d, "login", "--url", "http://127.0.0.1:1", stdin=b"av_x\n", code=125, **own)
        aviary(d, "logout", **own)
        aviary(d, "ls", "--url", d.url, code=125, **own)
        aviary(d, "logout", **own)


def test_login_with_password(d):
    aviary(d, "users", "create", "--password", "ada@example.com", stdin=b"correct horse\n")
    with tempfile.TemporaryDirectory() as top:
        own = {"AVIARY_CONFIG_DIR": top, "AVIARY_API_KEY": None, "AVIARY_URL": None}
        aviary(d, "login", "--url", d.url, stdin=d.key.encode() + b"\n", **own)
        with Terminal(d, "login", "--url", d.url, "--email", "ada@example.com", **own) as t:
            t.expect("password: ")
            t.type("correct horse\n")
            contains(t.expect("knows you"), "", "logged in")
            equal(t.end(), 0, "exit status")
            ok("correct" not in t.text, "not echoed")
        (key,) = json.loads(aviary(d, "keys", "ls", "--json", **own)[0])
        contains(key["name"], "aviary login", "its key")
        ok(key["expires_at"], "it ends")
        with open(os.path.join(top, "credentials.json.before"), encoding="ascii") as f:
            equal(json.load(f)["api_key"], d.key, "the key of before is kept")
        aviary(d, "login", "--url", d.url, "--email", "ada@example.com", stdin=b"wrong\n", code=125, **own)
        aviary(d, "login", "--email", "a@b", "--key-file", "-", code=2, **own)


main(globals())
