# SPDX-License-Identifier: Apache-2.0
"""ordinary_user - a daemon as it is started by somebody who is not root"""
import atexit
import os
import shutil
import subprocess
import sys
import tempfile

import aviary_test
from aviary_test import program

UID = 54321  # has no entry in /etc/passwd, as in many containers


def as_user():
    """Popen arguments that make the child an ordinary user; {} when we are one already."""
    if os.geteuid() != 0:
        return {}
    return {"user": UID, "group": UID, "extra_groups": []}


def programs_for_everybody(*more):
    """A directory with copies of the programs, until the test ends: the build may lie where an ordinary user cannot look."""
    target = tempfile.mkdtemp(prefix="aviary-rootless-")
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    os.chmod(target, 0o755)
    for name in ("aviary", "aviaryd", "aviary-spawn", "aviary-agent", *more):
        shutil.copy2(program(name), os.path.join(target, name))
        os.chmod(os.path.join(target, name), 0o755)
    return target


def skip_without_namespaces():
    """Ends the test where ordinary users get no user namespace."""
    probe = subprocess.run(["unshare", "-Ur", "true"], capture_output=True, check=False, cwd="/", **as_user())
    if os.geteuid() == 0 and probe.returncode:
        print(f"1..0 # SKIP ordinary users get no user namespace here: {probe.stderr.decode().strip()}")
        sys.exit(0)


def main(names, *programs):
    """As aviary_test.main, of a daemon that an ordinary user runs; programs: what the test uses besides the usual ones."""
    skip_without_namespaces()
    os.environ["AVIARY_BUILD"] = programs_for_everybody(*programs)
    aviary_test.main(names, popen=as_user(), owner=UID if os.geteuid() == 0 else None)
