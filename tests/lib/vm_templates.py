# SPDX-License-Identifier: Apache-2.0
"""vm_templates.py - what a daemon needs for virtual machines: template `vm-kernel`, and a small `base` of this machine's own files

Both are archives, made once for a build directory."""
import fcntl
import os
import pathlib
import shutil
import subprocess

from aviary_test import SLOW, Failure, Skip, program
from guest_kernel import NoKernel, fetch_kernel
from system_tree import Tree

# What the integration tests call inside.
PROGRAMS = """
bash sh cat chgrp chmod chown cmp cp curl cut date dash dd df diff du echo env false find getent grep gzip head hostname id kill ln ls md5sum mkdir mkfifo
mknod mktemp mount mv nice nohup nproc od pgrep pkill printf ps pwd python3 readlink rm rmdir sed seq setpriv setsid sha256sum sleep sort stat strace stty
su sudo sync tail tar tee test timeout touch tr true truncate tty umount uname uniq unshare wc which whoami xargs yes ip
""".split()
TREES = ["/usr/lib/python3.11", "/usr/lib/python3.12", "/usr/lib/python3.13", "/usr/lib/sudo", "/usr/libexec/sudo", "/etc/pam.d", "/etc/security"]
FILES = ["/etc/nsswitch.conf", "/etc/login.defs", "/etc/pam.conf", "/etc/profile", "/etc/bash.bashrc", "/etc/os-release", "/usr/lib/os-release",
         "/etc/debian_version", "/etc/ld.so.conf", "/etc/environment", "/etc/services", "/etc/protocols"]
LIBS = "libnss_files.so.2 libnss_dns.so.2 libgcc_s.so.1 libresolv.so.2".split()  # opened late


def missing():
    """Why there can be no virtual machine here, or None."""
    for tool, package in (("qemu-system-x86_64", "qemu-system-x86"), ("mkfs.erofs", "erofs-utils"), ("mke2fs", "e2fsprogs")):
        if not shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin"):
            return f"{tool} is not installed (package {package})"
    return None


def make_base(archive, work):
    tree = Tree(work)
    for name in PROGRAMS:
        found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
        if found:
            tree.add_program(found)
    for lib in LIBS:
        tree.add(f"/usr/lib/x86_64-linux-gnu/{lib}")
    for top in TREES:
        tree.add_tree(top)
    for path in FILES:
        tree.add(path)
    etc = work / "etc"
    (etc / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\nuser:x:1000:1000::/home/user:/bin/bash\n")
    (etc / "group").write_text("root:x:0:\ntty:x:5:\nshadow:x:42:\nsudo:x:27:user\nnogroup:x:65534:\nuser:x:1000:\n")
    (etc / "shadow").write_text("root:*:19000:0:99999:7:::\nuser:*:19000:0:99999:7:::\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    (work / "root").chmod(0o700)
    (work / "usr/local/bin").mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (work / name).chmod(0o1777)
    (work / "home/user").mkdir()
    # What an upload leaves out; `aviary template import` has it carried out inside.
    owners = work / "var/lib/aviary/owners"
    owners.parent.mkdir(parents=True)
    owners.write_text("chown 1000:1000 home/user\nchown 0:42 etc/shadow\nchmod 640 etc/shadow\nchmod 4755 usr/bin/su usr/bin/sudo usr/bin/mount usr/bin/umount\n")
    subprocess.run(["/sbin/ldconfig", "-r", str(work)], check=True)
    subprocess.run(["tar", "-C", str(work), "--numeric-owner", "-cf", str(archive), "."], check=True)


def make_kernel(archive, _work):
    tree = fetch_kernel(archive.parent.parent / "qemu")
    subprocess.run(["tar", "-C", str(tree), "--numeric-owner", "--owner=0", "--group=0", "-cf", str(archive), "./boot", "./lib"], check=True)


def archive_of(name):
    """Path of the archive of template `base` or `vm-kernel`, made if it is not there. Raises Skip when it cannot be made here."""
    why = missing() or (os.geteuid() != 0 and "making a root file system with several owners needs root")
    if why:
        raise Skip(why)
    directory = pathlib.Path(os.environ.get("AVIARY_BUILD", "build")).absolute() / "vm-templates"
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}.tar"
    with open(directory / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run beside each other
        if not path.exists() or path.stat().st_mtime < os.stat(__file__).st_mtime:
            work = directory / "work"
            shutil.rmtree(work, ignore_errors=True)
            try:
                (make_base if name == "base" else make_kernel)(path.with_suffix(".new"), work)
            except NoKernel as e:
                raise Skip(f"no kernel for the guest: {e}") from e
            finally:
                shutil.rmtree(work, ignore_errors=True)
            path.with_suffix(".new").rename(path)
    return path


def cli(d, *words, timeout_s=60, check=True, binary=False, **more):
    """The command line for this daemon; its result."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("AVIARY_")}
    env.update({"AVIARY_URL": d.url, "AVIARY_CONFIG_DIR": os.path.join(d.dir, "config"), "HOME": d.dir, **more})
    r = subprocess.run([program("aviary"), *words], capture_output=True, text=not binary, env=env, timeout=timeout_s * SLOW, cwd="/", check=False)
    if check and r.returncode:
        raise Failure(f"aviary {' '.join(words)} ended with {r.returncode}: {r.stderr}")
    return r


def import_templates(d):
    """Gives a daemon `vm-kernel`, by a recipe that has its archive already, and `base`."""
    recipe = pathlib.Path(d.dir) / "recipes/vm-kernel/build"
    recipe.parent.mkdir(parents=True)
    recipe.write_text(f"#!/bin/sh\nexec cat '{archive_of('vm-kernel')}'\n")
    recipe.chmod(0o755)
    cli(d, "template", "build", "vm-kernel", AVIARY_TEMPLATES=str(recipe.parent.parent))
    cli(d, "template", "import", "base", str(archive_of("base")))
