#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Installed, used, uninstalled: everything is where it belongs, runs from there, and nothing of it is left."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import aviary_test
from aviary_test import SLOW, Daemon, contains, equal, nothing_left, ok
from installing import install

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = os.path.abspath(os.environ.get("AVIARY_BUILD_DIR") or os.environ.get("AVIARY_BUILD", "build"))
EXPECTED = """bin/aviary bin/aviaryd libexec/aviary/aviary-spawn libexec/aviary/aviary-agent
libexec/aviary/aviary-watchdog
lib/systemd/system/aviary.service lib/systemd/system/aviary-sandboxes.service lib/systemd/user/aviary.service
lib/systemd/user/aviary-sandboxes.service share/man/man1/aviary.1 share/man/man1/aviary-run.1
share/man/man3/libaviary.3 share/man/man3/aviary_sandbox_exec.3 share/man/man8/aviaryd.8
share/bash-completion/completions/aviary share/zsh/site-functions/_aviary share/fish/vendor_completions.d/aviary.fish
include/aviary/aviary.h include/aviary/models.h share/doc/aviary/aviary.conf.example share/doc/aviary/operations.md share/aviary/templates/base/build""".split()


def files(top):
    return {os.path.relpath(os.path.join(d, n), top): os.lstat(os.path.join(d, n)).st_mode
            for d, dirs, names in os.walk(top) for n in names + dirs}


class Installed:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="aviary-install-")
        os.chmod(self.dir, 0o755)
        options = json.loads(run("meson", "introspect", BUILD, "--buildoptions").stdout)
        self.prefix = [o["value"] for o in options if o["name"] == "prefix"][0]
        self.top = self.dir + self.prefix


def run(*words, check=True, env=None):
    r = subprocess.run(words, capture_output=True, text=True, timeout=120 * SLOW, check=False,
                       env={**os.environ, **(env or {})})
    if check:
        equal(r.returncode, 0, f"{' '.join(words)}: {r.stderr} {r.stdout[-300:]}")
    return r


def test_install(i):
    install(BUILD, i.dir)
    found = files(i.top)
    missing = [n for n in EXPECTED if n not in found]
    equal(missing, [], "what is missing")
    for name, mode in files(i.dir).items():
        ok(not mode & 0o6022 or os.path.islink(os.path.join(i.dir, name)), f"{name}: mode {mode:o}")
    with open(i.top + "/lib/systemd/system/aviary.service", encoding="utf-8") as f:
        contains(f.read(), f"ExecStart={i.prefix}/bin/aviaryd\n", "the unit starts what is installed")
    with open(i.top + "/share/bash-completion/completions/aviary", encoding="utf-8") as f:
        contains(f.read(), "aviary", "completion")
    r = run(i.top + "/bin/aviary", "config", "check", i.top + "/share/doc/aviary/aviary.conf.example")
    contains(r.stdout, "no mistakes", "the example has no mistakes")


def test_use_and_cleanup(i):
    """The daemon runs from there; `cleanup --all` takes back what it made, its key included."""
    own = Daemon()
    config = os.path.join(own.dir, "config")
    env = {"AVIARY_CONFIG_DIR": config, "HOME": own.dir, "AVIARYD_PROGRAM": i.top + "/bin/aviaryd"}
    saved = dict(os.environ)
    os.environ["AVIARYD_PROGRAM"] = i.top + "/bin/aviaryd"
    try:
        before = files(own.dir)
        own.start()
        ok(os.readlink(f"/proc/{own.process.pid}/exe").startswith(i.top), "the installed one runs")
        aviary = i.top + "/bin/aviary"
        equal(run(aviary, "run", "--", "echo", "hello", env=env).stdout, "hello\n", "a sandbox")
        left = run(aviary, "create", "-q", env=env).stdout.strip()
        own.ids.add(left)
        r = run(aviary, "cleanup", "--all", "--yes", "--state", own.state, "--run", own.run, env=env, check=False)
        ok(r.returncode != 0 and "another Aviary (process" in r.stderr, f"not while it runs: {r.stderr}")
        ok(os.path.exists(own.credentials), "and nothing is removed then")
        own.stop()
        run(aviary, "cleanup", "--all", "--yes", env={**env, "AVIARY_STATE": own.state, "AVIARY_RUN": own.run})
        ok(os.path.exists(own.credentials), "the key of an instance elsewhere stays")
        nothing_left(own)
        shutil.rmtree(config)
        os.unlink(own.log_path)
        equal(files(own.dir), before, "nothing is left of it")
    finally:
        os.environ.clear()
        os.environ.update(saved)
        own.sweep()
        own.remove_dir()


def test_uninstall(i):
    run(os.path.join(ROOT, "tools", "uninstall"), BUILD, env={"DESTDIR": i.dir})
    left = [n for n in files(i.dir) if not (i.prefix + "/").startswith("/" + n + "/")]
    equal(left, [], "nothing is left")


def main():
    if not shutil.which("meson") or not os.path.isdir(os.path.join(BUILD, "meson-private")):
        print("1..0 # SKIP no build tree of meson to install from")
        return
    tap = aviary_test._Tap()  # pylint: disable=protected-access
    i = Installed()
    try:
        for f in (test_install, test_use_and_cleanup, test_uninstall):
            tap.run(f.__name__[5:].replace("_", " "), lambda g=f: g(i), 90)
    finally:
        shutil.rmtree(i.dir, ignore_errors=True)
    print(f"1..{tap.number}")
    sys.exit(1 if tap.failed else 0)


main()
