#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line against a daemon of a few lines: arguments, exit codes, streams, copies"""

import fcntl
import io
import json
import os
import pty
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import termios
import time
import traceback

from aviary_test import contains, equal, ok, program, wait_for
from fake_daemon import KEY, FakeDaemon

# A run under nohup or in a script's background would hand its ignored signals down to what is started here.
for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(sig, signal.SIG_DFL)
AVIARY = program("aviary")
DAEMON = FakeDaemon()
CONFIG = tempfile.mkdtemp(prefix="aviary-cli-")
with open(os.path.join(CONFIG, "credentials.json"), "w", encoding="ascii") as f:
    json.dump({"url": DAEMON.url, "api_key": KEY}, f)
ENV = {"PATH": os.environ["PATH"], "HOME": CONFIG, "AVIARY_CONFIG_DIR": CONFIG}


def aviary(*args, env=None, **kwargs):
    return subprocess.run([AVIARY, *args], env={**ENV, **(env or {})}, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=30,
                          **({"stdin": subprocess.DEVNULL} if "input" not in kwargs else {}),
                          **kwargs)


def start(*args, **kwargs):
    return subprocess.Popen([AVIARY, *args], env=ENV, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)


def check(r, code, out=None, err=None):
    equal(r.returncode, code, f"exit status (stderr {r.stderr})")
    if out is not None:
        equal(r.stdout, out, "standard output")
    if err is not None:
        contains(r.stderr.decode(), err, "standard error")
    return r


def create(*args):
    return check(aviary("create", "-q", *args), 0).stdout.decode().strip()


# -- arguments ------------------------------------------------------------------------------------


def test_usage_errors():
    check(aviary(), 2)
    check(aviary("rnu"), 2, err="did you mean 'run'")
    check(aviary("run"), 2, err="too few arguments")
    check(aviary("run", "--memroy", "1G", "true"), 2, err="did you mean '--memory'")
    check(aviary("run", "--memory", "lots", "true"), 2, err="lots")
    check(aviary("run", "--memory"), 2, err="--memory needs a value")
    check(aviary("run", "--keep=yes", "true"), 2, err="takes no value")
    check(aviary("run", "-x", "true"), 2, err="unknown option '-x'")
    check(aviary("ls", "more"), 2, err="unexpected argument")
    check(aviary("run", "--metadata", "novalue", "true"), 2, err="KEY=VALUE")
    check(aviary("rm"), 2, err="which sandboxes")
    check(aviary("rm", "--all", "sb1"), 2, err="exclude")
    check(aviary("cp", "a", "b"), 2, err="SANDBOX:PATH")
    check(aviary("exec", "-d", "-t", "sb1", "true"), 2, err="excludes")


def test_help_of_every_command():
    overview = check(aviary("help"), 0).stdout.decode()
    for line in overview.splitlines():
        if not line.startswith("  ") or line.startswith("  aviary"):
            continue
        command = line.split()[0]
        text = check(aviary(command, "--help"), 0).stdout.decode()
        contains(text, f"usage: aviary {command}", "help")
        contains(text, "--json", f"{command} answers in JSON")
        contains(text, "-q, --quiet", f"{command} is quiet when asked to")
        for row in text.split("Examples")[0].splitlines():
            ok(len(row) <= 100, f"a row of help is too long: {row!r}")
    ok(overview.count("\n") > 10, "overview")


def complete(*words, shell="fish", env=None):
    """What is offered: values, and wishes to the shell."""
    r = check(aviary("complete", shell, *words, env=env), 0)
    equal(r.stderr, b"", "silence")
    return [line.split("\t")[0] for line in r.stdout.decode().splitlines()]


def test_completion_of_words():
    equal(complete("r"), ["run", "rm", "resume", "restore"], "commands")
    equal(complete("run", "--mem"), ["--memory"], "options")
    equal(complete("create", "--on-timeout", ""), ["pause", "delete"], "values")
    equal(complete("create", "--on-timeout=p"), ["--on-timeout=pause"], "values with their option")
    equal(complete("create", "--on-timeout", "=", "p", shell="bash"), ["pause"], "as bash breaks words")
    equal(complete("keys", "r"), ["rotate", "rm"], "verbs")
    equal(complete("teams", "role", "a@b", ""), ["admin", "member"], "words of a verb")
    equal(complete("run", "-m", ""), [], "the value of an option")
    equal(complete("run", "-m", "1G", ""), [":commands"], "a program")
    equal(complete("run", "ls", "--k"), [":files"], "what follows a program is the program's")
    equal(complete("exec", "x", "sh", ""), [":files"], "of exec too")
    equal(complete("config", "check", ""), [":files"], "files")
    equal(complete("nosuch", ""), [], "of no command")
    equal(complete("help", "vers"), ["version"], "of help")
    ok("complete" not in complete(""), "hidden commands stay so")


def test_completion_asks_the_daemon():
    name, other = create("--name", "nest"), create()
    create("--name", "$(reboot)")
    create("--name", "--all", "--template", "a\nreboot")  # what is behind a name makes no line of its own
    equal(sorted(complete("rm", "")), sorted(["nest", other] + [s.id for s in DAEMON.running()[2:]]), "names, else ids")
    ok(name in complete("rm", name[:6]), "ids of those with a name")
    equal(complete("rm", "nest", "ne"), ["nest"], "each of several")
    equal(complete("ps", "nest", ""), [], "one is all")
    equal(complete("cp", "ne"), [":files", "nest:", ":nospace"], "paths")
    equal(complete("logs", "--url", DAEMON.url, "ne", env={"AVIARY_URL": "http://127.0.0.1:1"}), ["nest"], "of that daemon")
    began = time.monotonic()
    equal(complete("rm", "ne", env={"AVIARY_URL": "http://127.0.0.1:1"}), [], "without a daemon")
    equal(complete("rm", "ne", env={"AVIARY_API_KEY": "av_wrong"}), [], "with a wrong key")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        equal(complete("rm", "ne", env={"AVIARY_URL": url}), [], "of one that says nothing")
    ok(time.monotonic() - began < 15, "and does not wait for it")
    check(aviary("rm", "-aq"), 0)


def test_completion_scripts():
    with tempfile.TemporaryDirectory() as d:
        os.symlink(AVIARY, os.path.join(d, "aviary"))
        env = {**ENV, "PATH": d + ":" + ENV["PATH"]}
        for shell in ("bash", "zsh", "fish"):
            with open(os.path.join(d, shell), "wb") as f:
                f.write(check(aviary("completion", shell), 0).stdout)
        r = subprocess.run(["bash", "-c", f"source {d}/bash" + """
            try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _aviary 2>/dev/null; echo "${COMPREPLY[*]}"; }
            try aviary run --mem
            try aviary r
            try aviary create --on-timeout = d
            try aviary config check /etc/host.con"""], env=env, stdout=subprocess.PIPE, check=True)
        equal(r.stdout.decode().split("\n")[:4], ["--memory", "run rm resume restore", "delete", "/etc/host.conf"], "bash")
        if shutil.which("zsh"):
            subprocess.run(["zsh", "-n", f"{d}/zsh"], check=True)
        if shutil.which("fish"):
            r = subprocess.run(["fish", "-c", f"source {d}/fish; complete -C 'aviary create --on-timeout='; complete -C 'aviary keys ro'"],
                               env=env, stdout=subprocess.PIPE, check=True)
            equal([line.split("\t")[0] for line in r.stdout.decode().split("\n")],
                  ["--on-timeout=delete", "--on-timeout=pause", "rotate", ""], "fish")
    check(aviary("completion", "tcsh"), 2)


# -- connection -----------------------------------------------------------------------------------


def test_no_daemon():
    r = check(aviary("ls", "--url", "http://127.0.0.1:1"), 125, out=b"")
    equal(r.stderr.count(b"\n"), 1, "lines of the message")
    contains(r.stderr.decode(), "start one with", "message")
    check(aviary("ls", "--url", "gopher://x"), 125, err="http://HOST:PORT")


def test_keys():
    check(aviary("ls", env={"AVIARY_API_KEY": "av_wrong"}), 125, err="API key")
    check(aviary("ls", env={"AVIARY_CONFIG_DIR": "/nonexistent", "AVIARY_URL": DAEMON.url}), 125,
          err="AVIARY_API_KEY")
    path = os.path.join(CONFIG, "key")
    with open(path, "w", encoding="ascii") as file:
        file.write(KEY + "\n")
    env = {"AVIARY_CONFIG_DIR": "/nonexistent", "AVIARY_URL": DAEMON.url}
    check(aviary("ls", "--key-file", path, env=env), 0)
    check(aviary("ls", "--key-file", "-", env=env, input=KEY.encode()), 0)
    check(aviary("ls", "--key-file", "/nonexistent"), 125, err="/nonexistent")


def test_key_of_the_file_stays_with_its_url():
    path = os.path.join(CONFIG, "elsewhere")
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, "credentials.json"), "w", encoding="ascii") as file:
        json.dump({"url": "https://aviary.example", "api_key": KEY}, file)
    check(aviary("ls", "--url", DAEMON.url, env={"AVIARY_CONFIG_DIR": path}), 125,
          err="credentials.json is for https://aviary.example")


def test_version():
    r = json.loads(check(aviary("version", "--json"), 0).stdout)
    equal(r["daemon"], "fake", "daemon's version")
    check(aviary("--version"), 0)


# -- sandboxes ------------------------------------------------------------------------------------


def test_create_ls_rm():
    name = create("--name", "nest", "--memory", "1G", "--cpus", "0.5", "--disk", "3G", "--env",
                  "A=1", "--metadata", "team=x=y", "--lifetime", "90s")
    body = DAEMON.bodies[-1]
    equal(body, {"memory_mb": 1024, "disk_mb": 3072, "cpus": 0.5, "envs": {"A": "1"},
                 "metadata": {"team": "x=y", "name": "nest"}, "max_lifetime_sec": 90}, "request")
    table = check(aviary("ls"), 0).stdout.decode()
    contains(table, "nest", "table")
    contains(table, "1.0 GiB" if "1.0 GiB" in table else "1 GiB", "table")
    ok("\033" not in table, "no colours in a pipe")
    equal(check(aviary("ls", "-q"), 0).stdout.decode().split(), [name], "ids")
    equal(json.loads(check(aviary("ls", "--json"), 0).stdout)[0]["id"], name, "JSON")
    second = create()
    check(aviary("rm", "nosuch", "nest"), 125, out=name.encode() + b"\n", err="no sandbox 'nosuch'")
    equal(json.loads(check(aviary("rm", "--json", second[:9]), 0).stdout), {"id": second}, "JSON of what is done")
    create(), create()
    equal(check(aviary("rm", "--all"), 0).stdout.count(b"\n"), 2, "removed")
    equal(DAEMON.running(), [], "sandboxes left")


def test_ambiguous_abbreviation():
    create(), create()
    check(aviary("exec", "sb", "true"), 125, err="fits 2 sandboxes")
    check(aviary("exec", "", "true"), 125, err="empty")
    check(aviary("rm", "-aq"), 0, out=b"")


def test_create_errors():
    check(aviary("create", "--template", "nosuch"), 125, err="no template 'nosuch'")


# -- run and exec ---------------------------------------------------------------------------------


def test_run_output_and_status():
    check(aviary("run", "sh", "-c", "echo out; echo err >&2; exit 7"), 7, out=b"out\n", err="err")
    check(aviary("run", "--", "sh", "-c", "exit 0"), 0)
    check(aviary("run", "echo", "--", "--keep", "-x"), 0, out=b"-- --keep -x\n")
    check(aviary("run", "no-such-program"), 127, err="no-such-program")
    check(aviary("run", "/etc/passwd"), 126, err="not executable")
    check(aviary("run", "sh", "-c", "kill -9 $$"), 128 + 9)
    check(aviary("run", "--timeout", "300ms", "sleep", "60"), 124, err="--timeout")
    check(aviary("run", "--template", "nosuch", "true"), 125)
    equal(DAEMON.running(), [], "sandboxes left")


def test_run_json():
    r = json.loads(check(aviary("run", "--json", "sh", "-c", "echo out; echo err >&2; exit 7"), 7, err="").stdout)
    equal((r["stdout"], r["stderr"], r["exit_code"], r["encoding"], r["timed_out"]), ("out\n", "err\n", 7, "utf-8", False), "result")
    r = json.loads(check(aviary("run", "--json", "-i", "cat", input=b"\xff\x00"), 0).stdout)
    equal((r["stdout"], r["encoding"]), ("/wA=", "base64"), "bytes")
    r = json.loads(check(aviary("run", "--json", "--timeout", "300ms", "sleep", "60"), 124).stdout)
    equal(r["timed_out"], True, "its time was over")
    check(aviary("run", "--json", "no-such-program"), 127, out=b"")


def test_run_keep():
    r = check(aviary("run", "--keep", "true"), 0, err="kept sb")
    equal(len(DAEMON.running()), 1, "sandboxes left")
    contains(r.stderr.decode(), "aviary rm", "hint")
    check(aviary("rm", "--all"), 0)


def test_env_workdir_user():
    r = check(aviary("run", "-e", "A=b c", "-e", "HERE", "-e", "NOT_SET", "-w", "/", "sh", "-c",
                     'echo "$A,$HERE,${NOT_SET-unset},$PWD"', env={"HERE": "x"}), 0)
    equal(r.stdout, b"b c,x,unset,/\n", "environment and directory")


def test_stdin():
    check(aviary("run", "cat", input=b"not passed"), 0, out=b"")
    data = os.urandom(3 << 20)
    check(aviary("run", "-i", "cat", input=data), 0, out=data)
    check(aviary("run", "-i", "wc", "-c", input=b""), 0, out=b"0\n")
    # A program that ends before it read its input is no failure.
    check(aviary("run", "-i", "true", input=data), 0)


def test_large_output_and_slow_reader():
    p = start("run", "sh", "-c", "head -c 50000000 /dev/zero; echo end >&2")
    time.sleep(0.5)
    with open(f"/proc/{p.pid}/status", encoding="ascii") as status:
        rss = [int(x.split()[1]) for x in status if x.startswith("VmRSS")][0]
    out, err = p.communicate(timeout=30)
    equal((len(out), err, p.returncode), (50000000, b"end\n", 0), "output")
    ok(rss < 40000, f"memory while the reader sleeps: {rss} KiB")


def test_closed_output_ends_quietly():
    r = subprocess.run(["bash", "-o", "pipefail", "-c", f"{AVIARY} run yes | head -n 1"], env=ENV,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
    equal((r.stdout, r.stderr, r.returncode), (b"y\n", b"", 141), "yes | head")
    wait_for(lambda: not DAEMON.running(), 5, "sandbox deleted")


def test_full_disk_is_an_error():
    with open("/dev/full", "wb") as full:
        r = subprocess.run([AVIARY, "run", "echo", "x"], env=ENV, stdout=full,
                           stderr=subprocess.PIPE, timeout=30)
    contains(r.stderr.decode(), "No space left", "message")
    equal(r.returncode, 125, "exit status")


def test_signals_are_forwarded():
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        p = start("run", "sh", "-c", "trap 'echo got; exit 5' INT TERM HUP; echo ready; "
                  "while :; do sleep 0.05; done")
        equal(p.stdout.readline(), b"ready\n", "ready")
        p.send_signal(sig)
        out, _ = p.communicate(timeout=10)
        equal((out, p.returncode), (b"got\n", 5), f"signal {sig}")
    p = start("run", "sleep", "60")
    wait_for(DAEMON.running, 5, "sandbox")
    time.sleep(0.3)
    p.send_signal(signal.SIGINT)
    equal(p.wait(10), 130, "status after SIGINT")
    equal(DAEMON.running(), [], "sandboxes left")


def test_third_signal_kills():
    p = start("run", "sh", "-c", "trap '' INT; echo ready; while :; do sleep 0.05; done")
    equal(p.stdout.readline(), b"ready\n", "ready")
    for _ in range(3):
        p.send_signal(signal.SIGINT)
        time.sleep(0.2)
    equal(p.wait(10), 130, "exit status")
    contains(p.stderr.read().decode(), "once more kills it", "hint")
    wait_for(lambda: not DAEMON.running(), 5, "sandbox deleted")


def test_signal_during_create():
    DAEMON.create_delay_s = 4
    asked = len(DAEMON.bodies)
    try:
        p = start("run", "true")
        wait_for(lambda: len(DAEMON.bodies) > asked, 5, "it is asked for")
        p.send_signal(signal.SIGINT)
        equal(p.wait(10), 130, "exit status")
    finally:
        DAEMON.create_delay_s = 0
    equal(DAEMON.running(), [], "sandboxes left")


def test_terminal():
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.clear()
        os.environ.update(ENV)
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
        os.execv(AVIARY, [AVIARY, "run", "-it", "sh", "-c", "stty size; tty -s && echo terminal; "
                          "read x; echo got $x; sleep 60"])
    before = termios.tcgetattr(fd)
    text = read_until(fd, b"terminal")
    contains(text.decode(), "31 97", "size of the terminal")
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    wait_for(lambda: {"resize": {"cols": 100, "rows": 40}} in DAEMON.bodies, 5, "new size sent")
    os.write(fd, b"hello\r")
    text += read_until(fd, b"got hello")
    ok(not termios.tcgetattr(fd)[3] & termios.ECHO, "terminal is raw")
    os.write(fd, b"\x03")  # the inner terminal makes the signal
    _, status = os.waitpid(pid, 0)
    after = termios.tcgetattr(fd)
    equal(os.waitstatus_to_exitcode(status), 130, f"exit status after Ctrl-C; {text}")
    equal(after[3], before[3], "terminal restored")
    os.close(fd)


def read_until(fd, what, timeout_s=10):
    text, end = b"", time.monotonic() + timeout_s
    while what not in text:
        ok(time.monotonic() < end, f"waiting for {what}, got {text}")
        if select.select([fd], [], [], 0.2)[0]:
            text += os.read(fd, 4096)
    return text


def test_exec():
    box = create("--name", "work")
    check(aviary("exec", "work", "sh", "-c", "echo hi; exit 3"), 3, out=b"hi\n")
    check(aviary("exec", box[:6], "--", "echo", "-n", "x"), 0, out=b"x")
    check(aviary("exec", "-i", "work", "cat", input=b"data"), 0, out=b"data")
    check(aviary("exec", "sb" + "0" * 25, "true"), 125, err="no sandbox")
    check(aviary("exec", "-d", "work", "nosuch"), 127)
    check(aviary("exec", "-d", "sb" + "0" * 25, "true"), 125)


def test_background_and_logs():
    r = check(aviary("exec", "-d", "--tag", "job", "work", "sh", "-c", "echo line"), 0)
    pid, tag = r.stdout.decode().split()
    equal(tag, "job", "tag")
    table = check(aviary("ps", "work"), 0).stdout.decode()
    contains(table, "sh -c echo line", "table of processes")
    check(aviary("logs", "work"), 0, out=b"line\n", err="7 bytes of output are missing")
    check(aviary("logs", "-f", "work", pid), 0, out=b"line\n")
    check(aviary("logs", "work", "job"), 0, out=b"line\n")
    check(aviary("logs", "work", "other"), 125, err="no such process")


# -- cp -------------------------------------------------------------------------------------------


def box():
    return next(s for s in DAEMON.running() if s.body.get("metadata", {}).get("name") == "work")


def box_dir():
    return box().dir


def make_tree(root):
    os.makedirs(os.path.join(root, "sub/empty"))
    with open(os.path.join(root, "script"), "wb") as file:
        file.write(b"#!/bin/sh\n")
    os.chmod(os.path.join(root, "script"), 0o755)
    with open(os.path.join(root, "sub", "n" * 150 + " ü"), "wb") as file:
        file.write(os.urandom(300000))
    os.symlink("../script", os.path.join(root, "sub/link"))
    os.mkfifo(os.path.join(root, "fifo"))
    os.chmod(os.path.join(root, "sub"), 0o750)


def same_tree(a, b):
    subprocess.run(["rm", "-f", os.path.join(a, "fifo")], check=True)
    subprocess.run(["diff", "-r", "--no-dereference", a, b], check=True, stdout=sys.stderr)
    equal(stat.S_IMODE(os.stat(os.path.join(b, "script")).st_mode), 0o755, "mode")
    equal(stat.S_IMODE(os.stat(os.path.join(b, "sub")).st_mode), 0o750, "mode of a directory")


def test_copy_files():
    local = tempfile.mkdtemp(dir=CONFIG)
    data = os.urandom(2 << 20)
    path = os.path.join(local, "file")
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, 0o750)
    check(aviary("cp", path, "work:in"), 0)
    inside = os.path.join(box_dir(), "in")
    equal(open(inside, "rb").read(), data, "content")
    equal(stat.S_IMODE(os.stat(inside).st_mode), 0o750, "mode")
    check(aviary("cp", path, "work:"), 0)
    ok(os.path.exists(os.path.join(box_dir(), "file")), "copied under its own name")
    check(aviary("cp", "work:in", os.path.join(local, "back")), 0)
    equal(open(os.path.join(local, "back"), "rb").read(), data, "content")
    equal(stat.S_IMODE(os.stat(os.path.join(local, "back")).st_mode), 0o750, "mode")
    check(aviary("cp", "work:in", "-"), 0, out=data)
    check(aviary("cp", "-", "work:piped", input=data), 0)
    equal(open(os.path.join(box_dir(), "piped"), "rb").read(), data, "content")
    check(aviary("cp", "-", "work:", input=b""), 125, err="needs a file name")
    check(aviary("cp", "work:nosuch", local), 125, err="does not exist")
    check(aviary("cp", "/nonexistent", "work:x"), 125, err="/nonexistent")
    check(aviary("cp", path, "/etc/passwd", "work:in"), 125, err="not a directory")
    check(aviary("cp", path, "/etc/passwd", "work:"), 0)


def test_copy_directories():
    local = os.path.join(tempfile.mkdtemp(dir=CONFIG), "tree")
    make_tree(local)
    check(aviary("cp", local, "work:copied"), 0, err="left out")
    same_tree(local, os.path.join(box_dir(), "copied"))
    check(aviary("cp", local, "work:"), 0)
    same_tree(local, os.path.join(box_dir(), "tree"))
    check(aviary("cp", local + "/.", "work:new/deep"), 0)
    same_tree(local, os.path.join(box_dir(), "new/deep"))
    back = os.path.join(os.path.dirname(local), "back")
    check(aviary("cp", "work:copied", back), 0)
    same_tree(local, back)
    r = check(aviary("cp", "work:copied", "-"), 0)
    names = tarfile.open(fileobj=io.BytesIO(r.stdout)).getnames()
    ok("./script" in names, f"tar on standard output: {names}")


def hostile_tar():
    """Entries that try to leave the target directory; and one that is harmless."""
    out = io.BytesIO()
    tar = tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT)

    def add(name, kind=tarfile.REGTYPE, target="", content=b"", mode=0o644):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size, info.mode = kind, target, len(content), mode
        tar.addfile(info, io.BytesIO(content))

    return out, tar, add


def test_hostile_archives():
    """A sandbox that lies cannot write outside the target."""
    victim = tempfile.mkdtemp(dir=CONFIG)
    secret = os.path.join(victim, "secret")
    cases = {
        "dotdot": lambda add: add("../escaped", content=b"x"),
        "absolute": lambda add: add(secret, content=b"x"),
        "through link": lambda add: (add("l", tarfile.SYMTYPE, victim), add("l/secret", content=b"x")),
        "link then overwrite": lambda add: (add("l", tarfile.SYMTYPE, secret),
                                            add("l", content=b"x"), add("../escaped", content=b"x")),
        "hard link out": lambda add: (add("h", tarfile.LNKTYPE, secret), add("h", content=b"x")),
        "hard link dotdot": lambda add: add("h", tarfile.LNKTYPE, "../escaped"),
        "hard link through link": lambda add: (add("l", tarfile.SYMTYPE, victim),
                                               add("h", tarfile.LNKTYPE, "l/secret")),
        "rubbish": None,
    }
    for name, make in cases.items():
        with open(secret, "w", encoding="ascii") as file:
            file.write("untouched")
        out, tar, add = hostile_tar()
        add("./harmless", content=b"y", mode=0o4755)
        if make:
            make(add)
            tar.close()
        else:
            out = io.BytesIO(os.urandom(70000))
        os.makedirs(os.path.join(box_dir(), "dir"), exist_ok=True)
        parent = tempfile.mkdtemp(dir=CONFIG)
        target = os.path.join(parent, "target")
        box().lie = out.getvalue()
        try:
            r = aviary("cp", "work:dir", target)
        finally:
            box().lie = None
        equal(r.returncode, 125, f"{name}: refused, {r.stderr}")
        equal(open(secret, encoding="ascii").read(), "untouched", f"{name}: file outside")
        equal(os.stat(secret).st_nlink, 1, f"{name}: links to the file outside")
        equal(os.listdir(parent), ["target"], f"{name}: files beside the target")
        if make:
            mode = os.stat(os.path.join(target, "harmless")).st_mode
            equal(stat.S_IMODE(mode), 0o755, f"{name}: set-uid bit dropped")


def test_devices_are_left_out():
    out, tar, add = hostile_tar()
    add("./dev", tarfile.CHRTYPE)
    add("./pipe", tarfile.FIFOTYPE)
    add("./file\x1b[31m", content=b"x")
    tar.close()
    target = os.path.join(tempfile.mkdtemp(dir=CONFIG), "target")
    box().lie = out.getvalue()
    try:
        r = check(aviary("cp", "work:dir", target), 0, err="left out")
    finally:
        box().lie = None
    equal(os.listdir(target), ["file\x1b[31m"], "files made")
    ok(b"\x1b" not in r.stderr, "no escapes in messages")


def main():
    failed = 0
    tests = [(n, t) for n, t in globals().items() if n.startswith("test_")]
    print(f"1..{len(tests)}", flush=True)
    for i, (name, test) in enumerate(tests, 1):
        try:
            test()
            print(f"ok {i} - {name}", flush=True)
        except BaseException as error:  # the report goes on with the next test
            failed += 1
            print(f"not ok {i} - {name}", flush=True)
            for line in "".join(traceback.format_exception(error)).splitlines():
                print(f"# {line}", flush=True)
    DAEMON.close()
    subprocess.run(["rm", "-rf", CONFIG], check=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
