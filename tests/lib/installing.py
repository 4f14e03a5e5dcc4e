# SPDX-License-Identifier: Apache-2.0
"""Installs a build below a directory. The tests that do run beside each other: one at a time, as meson's log of the
last installation, which is put back as it was, is one file."""
import fcntl
import os
import subprocess

from aviary_test import SLOW, equal


def install(build, destdir):
    log = os.path.join(build, "meson-logs", "install-log.txt")
    with open(os.path.join(build, "meson-logs", "test-install.lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = open(log, "rb").read() if os.path.exists(log) else None
        r = subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", destdir],
                           capture_output=True, text=True, timeout=120 * SLOW, check=False)
        equal(r.returncode, 0, f"meson install: {r.stderr[-1500:]} {r.stdout[-300:]}")
        if before is None:
            os.unlink(log)
        else:
            with open(log, "wb") as f:
                f.write(before)
