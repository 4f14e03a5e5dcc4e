# SPDX-License-Identifier: Apache-2.0
"""guest_kernel.py - Debian's kernel for machines of QEMU, unpacked and never installed"""
import fcntl
import os
import pathlib
import re
import shutil
import subprocess


class NoKernel(Exception):
    """The package cannot be had; the message says why."""


def _package():
    for update in (False, True):
        if update:  # the package lists of a fresh machine are empty
            subprocess.run(["apt-get", "update", "-qq"], check=False)
        depends = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], capture_output=True, text=True, check=False).stdout
        found = re.search(r"Depends: (linux-image-\d\S+)", depends)
        if found:
            return found.group(1)
    raise NoKernel("linux-image-cloud-amd64 is not in the package lists; type: apt-get update")


def _unpack(name, work, tree):
    """A tree that is there is whole."""
    debs, new = work / "debs", work / "kernel.new"
    debs.mkdir(exist_ok=True)
    got = subprocess.run(["apt-get", "download", "-q", name], cwd=debs, capture_output=True, text=True, check=False)
    packages = list(debs.glob("linux-image-*.deb"))
    if not packages:
        raise NoKernel(f"apt-get download {name}: {got.stderr.strip()[-200:]}")
    shutil.rmtree(new, ignore_errors=True)
    subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(new)], check=True)
    new.rename(tree)


def fetch_kernel(work):
    """Unpacks Debian's cloud kernel below work, unless it is there; returns its tree (boot/, lib/modules/). AVIARY_GUEST_KERNEL names
    one that is unpacked already."""
    given = os.environ.get("AVIARY_GUEST_KERNEL")
    if given:
        return pathlib.Path(given)
    work = pathlib.Path(work)
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "kernel.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run beside each other
        tree = work / "kernel"
        if not tree.exists():
            _unpack(_package(), work, tree)
    return tree
