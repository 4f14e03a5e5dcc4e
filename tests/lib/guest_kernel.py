# SPDX-License-Identifier: Apache-2.0
"""guest_kernel.py - Debian's kernel for machines of QEMU, unpacked and never installed"""
import os
import pathlib
import re
import subprocess


class NoKernel(Exception):
    """The package cannot be had; the message says why."""


def fetch_kernel(work):
    """Unpacks Debian's cloud kernel below work, unless it is there; returns its tree (boot/, lib/modules/). AVIARY_GUEST_KERNEL names
    one that is unpacked already."""
    given = os.environ.get("AVIARY_GUEST_KERNEL")
    if given:
        return pathlib.Path(given)
    tree = pathlib.Path(work) / "kernel"
    if list(tree.glob("boot/vmlinuz-*")):
        return tree
    for update in (False, True):
        if update:  # the package lists of a fresh machine are empty
            subprocess.run(["apt-get", "update", "-qq"], check=False)
        depends = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], capture_output=True, text=True, check=False).stdout
        found = re.search(r"Depends: (linux-image-\d\S+)", depends)
        if found:
            break
    if not found:
        raise NoKernel("linux-image-cloud-amd64 is not in the package lists; type: apt-get update")
    debs = pathlib.Path(work) / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    got = subprocess.run(["apt-get", "download", "-q", found.group(1)], cwd=debs, capture_output=True, text=True, check=False)
    packages = list(debs.glob("linux-image-*.deb"))
    if not packages:
        raise NoKernel(f"apt-get download {found.group(1)}: {got.stderr.strip()[-200:]}")
    subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(tree)], check=True)
    return tree
