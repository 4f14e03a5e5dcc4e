#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`aviary template` and `aviary snapshot`, with a root file system of a few programs; --rootless: as an ordinary user."""
import fcntl
import io
import json
import os
import pty
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import termios

import aviary_test
import ordinary_user
from aviary_test import contains, equal, ok, program

ROOTLESS = "--rootless" in sys.argv
if ROOTLESS:
    sys.argv.remove("--rootless")
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "templates")


def as_user():
    return ordinary_user.as_user() if ROOTLESS else {}


def environment(d, **more):
    env = {k: v for k, v in os.environ.items() if not k.startswith("AVIARY_")}
    env.update({"AVIARY_URL": d.url, "AVIARY_CONFIG_DIR": os.path.join(d.dir, "config"), "HOME": d.dir, **more})
    return env


def cli(d, *words, check=True, stdin=None, **env):
    r = subprocess.run([program("aviary"), *words], capture_output=True, env=environment(d, **env), timeout=60,
                       cwd="/", check=False, stdin=stdin, **as_user())
    r.stdout, r.stderr = r.stdout.decode(), r.stderr.decode()
    if check:
        equal(r.returncode, 0, f"aviary {' '.join(words)}: {r.stderr}")
    return r


PROGRAMS = ("sh", "cat", "id", "rm", "rmdir", "chown", "chmod", "stat", "echo", "ls")


def libraries(path):
    out = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    return {w for line in out.splitlines() for w in line.split() if w.startswith("/")}


def make_root():
    """A root file system as a tar archive: some programs of this machine, and what is easy to lose."""
    files = {}
    for name in PROGRAMS:
        path = os.path.realpath(shutil.which(name))
        files[f"bin/{name}"] = path
        for lib in libraries(path):
            files[lib.lstrip("/")] = os.path.realpath(lib)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        def add(name, kind=tarfile.REGTYPE, data=b"", mode=0o755, link=""):
            t = tarfile.TarInfo(f"./{name}")
            t.type, t.mode, t.size, t.linkname, t.mtime = kind, mode, len(data), link, 1700000000
            tar.addfile(t, io.BytesIO(data))

        for name in ("", "dev", "proc", "etc", "root", "tmp", "home/user", "var/lib/aviary"):
            add(name, tarfile.DIRTYPE, mode=0o1777 if name == "tmp" else 0o755)
        t = tarfile.TarInfo("./dev/console")
        t.type, t.devmajor, t.devminor = tarfile.CHRTYPE, 5, 1
        tar.addfile(t)
        for name, path in sorted(files.items()):
            with open(path, "rb") as f:
                add(name, data=f.read())
        add("etc/passwd", data=b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n", mode=0o644)
        add("etc/group", data=b"root:x:0:\nuser:x:1000:\n", mode=0o644)
        add("etc/os-release", data=b"NAME=little\n", mode=0o644)
        add("bin/link", tarfile.SYMTYPE, link="sh")
        add("var/lib/aviary/owners", mode=0o644,
            data=b'chown 1000:1000 "home/user"; chmod 700 "home/user"\nchown 0:0 "bin/id"; chmod 4755 "bin/id"\n')
    return out.getvalue()


def write(d, name, data):
    path = os.path.join(d.dir, name)
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, 0o755)
    return path


def is_little(d, name):
    b = d.create(template=name)["id"]
    r = d.exec(b, "cat /etc/os-release; cd /; stat -c '%a %u %g' home/user bin/id; ls /var/lib/; id -u; echo x >/root/y; cat /root/y")
    owner = "0 0" if ROOTLESS else "1000 1000"
    equal(r["stdout"], f"NAME=little\n700 {owner}\n4755 0 0\n0\nx\n", f"a sandbox of {name}: {r['stderr']}")
    d.delete(b)


def test_import(d):
    tar = write(d, "root.tar", make_root())
    text = cli(d, "template", "import", "little", tar).stdout
    contains(text, "little: built in", "the last word")
    is_little(d, "little")
    with open(tar, "rb") as f:
        made = json.loads(cli(d, "template", "import", "little", "--json", stdin=f).stdout)
    equal((made["name"], made["type"], made["platform"], made["parent"]), ("little", "base", True, "empty"), "again, from a pipe")
    is_little(d, "little")
    equal(d.expect(200, "GET", "/v1/sandboxes").json(), [], "no sandbox is left")


def test_ls_show_rm(d):
    text = cli(d, "template", "ls").stdout
    for word in ("NAME", "little", "minimal", "host"):
        contains(text, word, "the list")
    equal(cli(d, "template", "ls", "-q").stdout.split(), ["little", "minimal", "host"], "names only")
    equal(json.loads(cli(d, "template", "show", "little").stdout)["name"], "little", "show")
    r = cli(d, "template", "rm", "nothing", "little", check=False)
    equal((r.returncode, r.stdout), (125, "little\n"), "one is not there, the other goes")
    contains(r.stderr, "nothing", "the message names it")
    for words in (("template",), ("template", "what"), ("template", "show"), ("template", "ls", "x"),
                  ("template", "build", "nothing"), ("template", "build", "../base")):
        equal(cli(d, *words, check=False).returncode, 2, f"{words}")


def test_bad_archives(d):
    for data, what in ((b"no tar at all" * 100, "tar"), (make_root()[:5000], "")):
        r = cli(d, "template", "import", "bad", write(d, "bad.tar", data), check=False)
        equal(r.returncode, 125, f"an archive that is none: {r.stderr}")
        contains(r.stderr.lower(), what, "why")
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    r = cli(d, "template", "import", "bad", write(d, "empty.tar", empty.getvalue()), check=False)
    equal(r.returncode, 125, "an empty root file system")
    contains(r.stderr, "/bin/sh", "what it lacks")
    equal(d.expect(200, "GET", "/v1/sandboxes").json(), [], "no sandbox is left")
    ok("bad" not in cli(d, "template", "ls", "-q").stdout, "and no template")


RECIPE = """#!/bin/sh
echo 'I: first step' >&2
echo 'noise of a program, and quite a lot of it, more than a line' >&2
sleep 0.4
for i in $(seq 500); do echo 'W: second step' >&2; done
cat "$ROOT_TAR"
"""


def test_build(d):
    """A recipe of one's own, as a person sees it on a terminal and as lines in a pipe."""
    tar = write(d, "root.tar", make_root())
    os.makedirs(os.path.join(d.dir, "recipes", "mine"), exist_ok=True)
    write(d, "recipes/mine/build", RECIPE.encode())
    env = {"AVIARY_TEMPLATES": os.path.join(d.dir, "recipes"), "ROOT_TAR": tar}
    lines = cli(d, "template", "build", "mine", **env).stderr.splitlines()
    equal(lines, ["mine: first step", "mine: W: second step", "mine: restoring owners", "mine: taking the snapshot"], "in a pipe")
    is_little(d, "mine")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    p = subprocess.Popen([program("aviary"), "template", "build", "mine"], stdout=subprocess.PIPE, stderr=slave,
                         env=environment(d, **env), cwd="/", **as_user())
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:
            break
        if not part:
            break
        seen += part
    contains(p.communicate(timeout=30)[0].decode(), "built in", "the result")
    equal(p.returncode, 0, "exit status")
    ok(b"\r\x1b[Kmine: noise of a program" in seen and b"\n" not in seen and seen.endswith(b"\r\x1b[K"),
       f"one line that is drawn again and taken away: {seen}")
    equal([part for part in seen.split(b"\r\x1b[K") if len(part) >= 40], [], "nothing that a narrow terminal would wrap")


def test_build_that_fails(d):
    write(d, "recipes/mine/build", b"#!/bin/sh\necho 'I: trying' >&2\necho 'E: no mirror' >&2\nexit 3\n")
    env = {"AVIARY_TEMPLATES": os.path.join(d.dir, "recipes")}
    r = cli(d, "template", "build", "mine", check=False, **env)
    equal(r.returncode, 125, "exit status")
    contains(r.stderr, "the recipe failed: no mirror", "the reason")
    is_little(d, "mine")  # the old one is there
    for where in ("before", "in"):
        interrupt(d, env, where)


FOR_EVER = """#!/bin/sh
trap 'sleep 0.5; rm -f "$PID"; exit 1' TERM
[ "$WHERE" = before ] || head -c 5000 "$ROOT_TAR"
sleep 1000 & echo $! >"$PID.new"
mv "$PID.new" "$PID"
wait
"""


def interrupt(d, env, where):
    """Ctrl-C, more or less, before the archive begins and in the midst of it."""
    path = os.path.join(d.dir, "recipes", "pid")
    write(d, "recipes/mine/build", FOR_EVER.encode())
    os.chmod(os.path.dirname(path), 0o777)
    p = subprocess.Popen([program("aviary"), "template", "build", "mine"], stderr=subprocess.PIPE,
                         env=environment(d, **env, WHERE=where, PID=path, ROOT_TAR=os.path.join(d.dir, "root.tar")),
                         cwd="/", **as_user())
    aviary_test.wait_for(lambda: os.path.exists(path), 10, "the recipe runs")
    with open(path, encoding="ascii") as f:
        pid = int(f.read())
    if where == "in":
        aviary_test.wait_for(lambda: d.expect(200, "GET", "/v1/sandboxes").json(), 10, "a sandbox to build in")
    p.terminate()
    equal((p.wait(20), p.stderr.read()), (128 + 15, b"mine: stopping\n"), f"interrupted {where} the archive")
    ok(not os.path.exists(path), "the recipe had the time to clean up")
    aviary_test.wait_for(lambda: not os.path.exists(f"/proc/{pid}") or "Z" in open(f"/proc/{pid}/stat", encoding="ascii").read(), 10,
                         "it is gone with all of its processes")
    equal(d.expect(200, "GET", "/v1/sandboxes").json(), [], "no sandbox is left")


def ready(d):
    def probe():
        try:
            return d.request("GET", "/ready", key=False, timeout=5).status == 200
        except OSError:
            return False
    aviary_test.wait_for(probe, 30, "ready again")


def test_deaths_in_the_middle_of_a_build(d):
    """Daemon, worker or the command itself killed during the upload: no template, nothing that stays, and again works."""
    data = make_root()
    for victim in ("daemon", "worker", "command"):
        p = subprocess.Popen([program("aviary"), "template", "import", "late"], stdin=subprocess.PIPE,
                             stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(d), cwd="/", **as_user())
        p.stdin.write(data[:len(data) // 2])
        p.stdin.flush()
        aviary_test.wait_for(lambda: d.expect(200, "GET", "/v1/sandboxes").json(), 10, "a sandbox to build in")
        pid = p.pid if victim == "command" else d.pids()[victim]
        os.kill(pid, signal.SIGKILL)
        if victim == "daemon":
            aviary_test.wait_for(lambda: d.pids().get("daemon", pid) != pid, 15, "another daemon")
        try:
            p.stdin.write(data[len(data) // 2:])
            p.stdin.close()
        except BrokenPipeError:
            pass
        p.stdin = None
        p.communicate(timeout=60)
        ready(d)
        if victim == "worker" and p.returncode == 0:
            is_little(d, "late")  # only the snapshot needs it, and that came later
            cli(d, "template", "rm", "late")
        else:
            ok(p.returncode != 0, f"{victim} died, and the command says so")
        ok("late" not in cli(d, "template", "ls", "-q").stdout.split(), "no template")
        for left in d.expect(200, "GET", "/v1/sandboxes").json():
            equal((left["on_timeout"], left["timeout_sec"]), ("delete", 300), "what is left goes by itself")
            d.delete(left["id"])
    cli(d, "template", "import", "late", write(d, "root.tar", data))
    is_little(d, "late")
    cli(d, "template", "rm", "late")


def test_snapshot(d):
    sandbox = d.create(template="mine", metadata={"name": "work"})["id"]
    d.exec(sandbox, "echo kept >/root/z")
    if ROOTLESS:
        r = cli(d, "snapshot", "create", "work", "s1", check=False)
        if r.returncode:
            contains(r.stderr, "stop", "where nothing can be frozen: what else there is")
            equal(cli(d, "snapshot", "create", "work", "s1", "--stop").stdout, "s1\n", "its name")
    else:
        equal(cli(d, "snapshot", "create", "work", "s1", "--resume").stdout, "s1\n", "its name")
        equal(d.exec(sandbox, "cat /root/z")["stdout"], "kept\n", "it goes on")
        r = cli(d, "snapshot", "create", "work", "s1", check=False)
        equal(r.returncode, 125, "the name is taken")
        contains(r.stderr, "overwrite", "and what can be done")
        cli(d, "snapshot", "create", "work", "s1", "--overwrite", "--stop")
    aviary_test.wait_for(lambda: not d.expect(200, "GET", "/v1/sandboxes").json(), 10, "the sandbox is gone")
    equal(cli(d, "snapshot", "ls", "-q").stdout, "s1\n", "the snapshots, and no other template")
    r = cli(d, "run", "--template", "s1", "--", "cat", "/root/z")
    equal(r.stdout, "kept\n", "a sandbox of it")
    equal(cli(d, "snapshot", "rm", "s1").stdout, "s1\n", "removed")
    equal(cli(d, "snapshot", "rm", "s1", check=False).returncode, 125, "and gone")
    cli(d, "template", "rm", "-q", "mine")


def test_recipes_that_come_along(d):
    text = cli(d, "template", "build").stdout
    for name in ("base", "code-interpreter", "vm-kernel"):
        contains(text, name, "the list")
        mode = os.stat(os.path.join(SOURCE, name, "build")).st_mode
        ok(mode & stat.S_IXUSR, f"{name} can be run")
    # With an mmdebstrap of ours: what the recipe asks it for.
    fake = os.path.join(d.dir, "fake")
    os.makedirs(fake, exist_ok=True)
    tar = write(d, "root.tar", make_root())
    write(d, "fake/mmdebstrap", b'#!/bin/sh\n(echo "$*"; cat) >"$ASKED"\necho "I: installing" >&2\ncat "$ROOT_TAR"\n')
    asked = os.path.join(d.dir, "asked")
    if ROOTLESS:
        return  # needs ranges of ids, which this user without a name has not
    r = cli(d, "template", "build", "code-interpreter", PATH=fake + ":" + os.environ["PATH"], ASKED=asked, ROOT_TAR=tar,
            AVIARY_SUITE="bookworm", AVIARY_MIRROR="http://mirror.example/debian", AVIARY_TEMPLATES=SOURCE)
    contains(r.stderr, "http://mirror.example/debian", "it says from where")
    with open(asked, encoding="ascii") as f:
        words = f.read()
    for part in ("--mode=root", "--format=tar", "python3-ipython", "python3-numpy", "nodejs", "sudo", "git",
                 "] http://mirror.example/debian bookworm main\n"):
        contains(words, part, "what mmdebstrap is asked for")
    made = d.expect(200, "GET", "/v1/snapshots/code-interpreter").json()
    ok(made["kernel_warm"] and made["memory_mb"] == 1024, f"its defaults: {made}")
    for name, noted in (("code-interpreter-v1", False), ("code-interpreter", False), ("base", True)):
        b = d.create(template=name)
        equal("template_note" in b, noted, f"{name}: {b.get('template_note')}")
        d.delete(b["id"])
    d.expect(204, "DELETE", "/v1/snapshots/code-interpreter")


def test_kernel_recipe(d):
    """vm-kernel: the package that the name depends on, unpacked; nothing in it is run."""
    fake = os.path.join(d.dir, "fake-apt")
    os.makedirs(fake, exist_ok=True)
    asked = os.path.join(d.dir, "asked-apt")
    write(d, "fake-apt/apt-get", b'''#!/bin/sh
echo "$*" >>"$ASKED"
case $* in
*download*) [ -z "${FAIL:-}" ] || { echo "E: Failed to fetch it" >&2; exit 100; }; echo >kernel.deb ;;
esac
''')
    write(d, "fake-apt/apt-cache", b'#!/bin/sh\necho "Package: x"\necho "Depends: linux-image-6.1.0-99-cloud (= 6), y"\n')
    write(d, "fake-apt/dpkg-deb", b'''#!/bin/sh
mkdir -p "$3/boot" "$3/lib/modules/6.1.0-99" "$3/usr/share/doc"
echo kernel >"$3/boot/vmlinuz-6.1.0-99"; echo symbols >"$3/boot/System.map-6.1.0-99"; echo m >"$3/lib/modules/6.1.0-99/m.ko"
''')
    env = dict(PATH=fake + ":" + os.environ["PATH"], ASKED=asked, AVIARY_SUITE="bookworm",
               AVIARY_MIRROR="http://mirror.example/debian", AVIARY_TEMPLATES=SOURCE)
    if not os.path.exists("/usr/share/keyrings/debian-archive-keyring.gpg"):
        raise aviary_test.Skip("Debian's keys are not installed (debian-archive-keyring)")
    r = cli(d, "template", "build", "vm-kernel", check=False, FAIL="1", **env)
    equal(r.returncode, 125, "apt cannot fetch it")
    contains(r.stderr, "AVIARY_MIRROR", "and it says what can be done")
    r = cli(d, "template", "build", "vm-kernel", **env)
    contains(r.stderr, "downloading linux-image-6.1.0-99-cloud", "the newest kernel")
    with open(asked, encoding="ascii") as f:
        words = f.read()
    contains(words, "download linux-image-6.1.0-99-cloud", "what apt is asked for")
    contains(words, "Dir::Etc::SourceParts=-", "with lists of its own")
    made = d.expect(200, "GET", "/v1/snapshots/vm-kernel").json()
    ok(made["size_bytes"] > 0 and made["layers"] == 1, f"a template: {made}")
    d.expect(204, "DELETE", "/v1/snapshots/vm-kernel")


if ROOTLESS:
    ordinary_user.main(globals())
elif os.geteuid() != 0:
    print("1..0 # SKIP needs root; --rootless is the same without")
else:
    aviary_test.main(globals())
