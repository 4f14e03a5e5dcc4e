#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Debian 12 as users have it: its own kernel and pure cgroup v2, in a QEMU machine without KVM.

    machine.py --build BUILD [--memory MIB] [--seconds N] [--keep] NAME=COMMAND...

Downloads Debian's cloud kernel as a package, unpacks it (nothing is installed), makes a root image from a
hand-picked tree of this machine's own files plus the tests and the fresh binaries, boots it and runs the
commands one after the other. Each command prints TAP; what it printed comes out here with its name before it.
Ends with the machine switched off, whatever happened; exit 0 if every check passed.
"""
import argparse
import gzip
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

from guest_kernel import NoKernel, fetch_kernel
from system_tree import Tree, libraries

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# In dependency order is not needed: the guest's modprobe of busybox reads modules.dep.
MODULES = ["virtio_pci", "virtio_blk", "virtio_console", "ext4", "overlay", "loop", "btrfs", "quota_v2", "veth",
           "nf_tables", "nft_fib_inet", "nft_ct", "nft_connlimit", "nft_masq", "nft_nat", "nft_chain_nat",
           "nft_reject_inet", "nf_conntrack_netlink"]
# Those of a virtual machine in the machine (src/vm/initrd.c).
GUEST_MODULES = ["virtio_pci", "virtio_console", "virtio_blk", "crc32c_intel", "erofs", "ext4", "overlay", "virtio_net",
                 "virtio_balloon", "vmgenid", "pvpanic_mmio", "pvpanic_pci"]
# What the guest's user space consists of: programs with their libraries, and whole directories.
PROGRAMS = """
bash cat chgrp chmod chown cp cut date dash dd df du echo env false find getent getfacl grep head hostname id kill
ln ls mkdir mkfifo mknod mktemp mount mv nice nohup nproc od printf ps pwd python3 readlink rm rmdir sed seq setpriv
setsid sh sha256sum sleep sort stat strace stty su sudo sync tail tar tee test timeout touch tr true truncate tty umount uname uniq
unshare wc which whoami xargs yes mkfs.btrfs mkfs.ext4 mke2fs losetup busybox ip nft nsenter
""".split()
TREES = ["/usr/lib/python3.11", "/usr/lib/sudo", "/usr/libexec/sudo", "/etc/pam.d", "/etc/security", "/etc/alternatives",
         "/usr/share/pam-configs", "/usr/lib/x86_64-linux-gnu/security", "/usr/share/zoneinfo/Etc"]
FILES = ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/login.defs", "/etc/sudoers", "/etc/pam.conf",
         "/etc/profile", "/etc/bash.bashrc", "/etc/mke2fs.conf", "/etc/os-release", "/usr/lib/os-release",
         "/etc/debian_version", "/etc/ld.so.conf", "/var/lib/dpkg/status", "/etc/environment", "/etc/services"]
# What programs open late.
LIBS = "libnss_files.so.2 libnss_compat.so.2 libgcc_s.so.1 libresolv.so.2 libcap.so.2 libarchive.so.13".split()

SLOW = "4"  # TCG against native, for the time limits of the tests
GUEST_INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm; mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm; mount -t tmpfs -o mode=755 tmpfs /run; mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up 2>/dev/null || busybox ifconfig lo 127.0.0.1 up
hostname aviary-guest
ulimit -n 65536
exec >/dev/ttyS1 2>&1 </dev/null
echo "== kernel $(uname -r), cgroup controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
cd /aviary
while IFS='=' read -r name command; do
	echo "== begin $name"
	began=$(date +%s)
	CI=$(cat /aviary/ci) TMPDIR=/var/tmp AVIARY_TEST_SLOW=SLOW_FACTOR AVIARY_BUILD=/aviary/build PYTHONPATH=/aviary/tests/lib sh -c "$command"
	status=$?
	echo "== end $name $status $(($(date +%s) - began))"
done </aviary/run.list
sync
echo "== done"
sleep 0.2
echo o >/proc/sysrq-trigger
sleep 10
"""

RAM_INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
for m in MODULES; do /bin/busybox modprobe $m || echo "modprobe $m failed"; done
/bin/busybox mount -t ext4 -o prjquota /dev/vda /root || /bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox umount /proc /sys 2>/dev/null
exec /bin/busybox switch_root /root /sbin/init
"""


def sh(*cmd, **kw):
    return subprocess.run(cmd, check=True, **kw)


def kernel_of(work):
    """(vmlinuz, modules directory) of Debian's cloud kernel, with its list of dependencies."""
    try:
        tree = fetch_kernel(work)
    except NoKernel as e:
        sys.exit(str(e))
    kernel = next(tree.glob("boot/vmlinuz-*"))
    modules = next(tree.glob("lib/modules/*"))
    if not (modules / "modules.dep").exists():
        sh("/sbin/depmod", "-b", str(tree), modules.name)
    return kernel, modules


def module_closure(modules, names):
    """Paths (below modules) of the wanted modules and all that they need."""
    deps = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        deps[path] = needs.split()
    by_name = {pathlib.PurePath(p).name.split(".ko")[0].replace("-", "_"): p for p in deps}
    wanted = set()
    for name in names:
        name = name.replace("-", "_")
        if name in by_name:
            wanted.add(by_name[name])
            wanted.update(deps[by_name[name]])
    return sorted(wanted)


def make_initramfs(work, modules, wanted):
    tree = work / "initramfs"
    shutil.rmtree(tree, ignore_errors=True)
    for d in ("bin", "proc", "sys", "dev", "root", f"lib/modules/{modules.name}"):
        (tree / d).mkdir(parents=True)
    shutil.copy2(shutil.which("busybox"), tree / "bin/busybox")
    for path in module_closure(modules, wanted):
        target = tree / "lib/modules" / modules.name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(modules / path, target)
    for name in ("modules.dep", "modules.alias", "modules.symbols", "modules.builtin"):
        if (modules / name).exists():
            shutil.copy2(modules / name, tree / "lib/modules" / modules.name / name)
    init = tree / "init"
    init.write_text(RAM_INIT.replace("MODULES", " ".join(wanted)))
    init.chmod(0o755)
    names = "\n".join(str(p.relative_to(tree)) for p in sorted(tree.rglob("*")))
    out = work / "initramfs.cpio.gz"
    cpio = sh("cpio", "--quiet", "-o", "-H", "newc", cwd=tree, input=names.encode(), stdout=subprocess.PIPE).stdout
    out.write_bytes(gzip.compress(cpio, 1))
    return out


def binaries(build):
    """The programs that the tests use: executables in the build tree, not objects or libraries."""
    for path in build.rglob("*"):
        if path.is_symlink() or not path.is_file() or not os.access(path, os.X_OK):
            continue
        if path.suffix in (".so", ".o", ".a") or any(p.endswith(".p") or p in ("qemu", "upgrade", "meson-private") for p in path.parts):
            continue
        with path.open("rb") as f:
            if f.read(4) == b"\x7fELF":
                yield path


def leave_guest_kernel(tree, target):
    """The kernel of tree with the modules that a guest loads: all of them would take an emulated machine minutes."""
    modules = next(tree.glob("lib/modules/*"))
    names = [f"boot/{p.name}" for p in tree.glob("boot/vmlinuz-*")]
    names += [f"lib/modules/{modules.name}/{p}" for p in module_closure(modules, GUEST_MODULES)]
    names += [str(p.relative_to(tree)) for p in modules.glob("modules.*")]
    sh("tar", "-C", str(tree), "--owner=0", "--group=0", "--numeric-owner", "-cf", str(target), *names)


def make_image(work, build, commands, programs, trees, guest_kernel):
    """guest_kernel: a tree that the machine has as the archive /aviary/vm-kernel.tar, or None."""
    tree = Tree(work / "root")
    which_path = "/usr/sbin:/usr/bin:/sbin:/bin"
    for name in programs:
        found = shutil.which(name, path=which_path)
        if found:
            tree.add_program(found)
    for lib in LIBS:
        tree.add_program(f"/usr/lib/x86_64-linux-gnu/{lib}")
    for top in TREES + trees:
        tree.add_tree(top)
    for path in FILES:
        tree.add(path)
    aviary = tree.path / "aviary"
    shutil.copytree(ROOT / "tests", aviary / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "packaging/systemd", aviary / "packaging/systemd")
    for path in binaries(build):
        target = aviary / "build" / path.relative_to(build)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
        for lib in libraries(str(path)):
            if build not in pathlib.Path(os.path.normpath(lib)).parents:
                tree.add(lib)
    # The programs, and the names of libaviary by which those that are linked with it find it.
    for link in (*build.iterdir(), *(build / "src/client").iterdir()):
        if link.is_symlink():
            (aviary / "build" / link.relative_to(build)).symlink_to(os.readlink(link))
    if guest_kernel:
        leave_guest_kernel(guest_kernel, aviary / "vm-kernel.tar")
    (aviary / "run.list").write_text("".join(f"{c}\n" for c in commands))
    (aviary / "ci").write_text(os.environ.get("CI", ""))
    init = tree.path / "usr/sbin/init"
    init.write_text(GUEST_INIT.replace("SLOW_FACTOR", SLOW))
    init.chmod(0o755)
    for name in ("tmp", "var/tmp"):
        (tree.path / name).chmod(0o1777)
    (tree.path / "etc/hosts").write_text("127.0.0.1 localhost aviary-guest\n")
    (tree.path / "etc/shadow").write_text("root:*:19000:0:99999:7:::\n")
    os.chmod(tree.path / "etc/shadow", 0o640)
    sh("/sbin/ldconfig", "-r", str(tree.path))
    image = work / "root.img"
    image.unlink(missing_ok=True)
    with image.open("wb") as f:
        f.truncate(6 << 30)
    sh("/sbin/mke2fs", "-q", "-t", "ext4", "-O", "quota,project", "-E", "quotatype=prjquota,lazy_itable_init=1,root_owner=0:0",
       "-m", "0", "-d", str(tree.path), str(image))
    shutil.rmtree(tree.path)
    return image


CPUS = 2
LOCKED_UP = re.compile(r"soft lockup - CPU#(\d+) stuck")


def is_locked_up(console):
    """Whether the kernel said of each processor, and again half a minute later, that it gets nowhere. Seen with an emulated
    machine on a busy one; what runs in it must not be able to do that, and does it again if it is."""
    said = LOCKED_UP.findall(console.read_text(errors="replace"))
    return sum(said.count(cpu) > 1 for cpu in set(said)) == CPUS


def boot(work, kernel, initramfs, image, cpu, memory_mib, seconds):
    """Runs the machine to its end; returns its output and how it ended: "by itself", "late" or "locked up"."""
    console, out = work / "console.log", work / "tap.log"
    deadline = time.monotonic() + seconds
    for f in (console, out):
        f.write_text("")
    qemu = subprocess.Popen(
        ["qemu-system-x86_64", "-M", "q35", "-cpu", cpu, "-accel", "tcg,thread=multi", "-smp", str(CPUS), "-m",
         str(memory_mib), "-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot",
         "-kernel", str(kernel), "-initrd", str(initramfs),
         "-append", "console=ttyS0 panic=-1 mitigations=off loglevel=5",
         "-drive", f"file={image},if=none,id=root,format=raw,snapshot=on,cache=unsafe", "-device", "virtio-blk-pci,drive=root",
         "-serial", f"file:{console}", "-serial", f"file:{out}"], stdin=subprocess.DEVNULL, stderr=(work / "qemu.log").open("w"))
    try:
        ended = None
        while not ended:
            try:
                qemu.wait(timeout=2)
                ended = "by itself"
            except subprocess.TimeoutExpired:
                ended = "locked up" if is_locked_up(console) else "late" if time.monotonic() > deadline else None
    finally:
        if qemu.poll() is None:
            qemu.kill()
            qemu.wait()
    text = out.read_text(errors="replace").replace("\r", "")
    if "== done" not in text:
        print("# last lines of the machine's console:")
        for line in console.read_text(errors="replace").splitlines()[-30:]:
            print("#  ", line)
    return text, ended


def report(text, ended, commands):
    """Prints one TAP stream for all commands; returns whether all is well."""
    number = failed = had = had_failed = 0
    name = None
    finished = set()  # names of commands

    def line(good, what):
        nonlocal number, failed
        number += 1
        failed += not good
        print(f"{'ok' if good else 'not ok'} {number} - {what}")

    for raw in text.splitlines():
        m = re.match(r"^== begin (\S+)$", raw)
        if m:
            name, had, had_failed = m.group(1), number, failed
            continue
        m = re.match(r"^== end (\S+) (\d+) (\d+)$", raw)
        if m:
            finished.add(m.group(1))
            if int(m.group(2)) != 0 and failed == had_failed:
                line(False, f"{m.group(1)}: exit status {m.group(2)}")
            elif number == had:
                line(False, f"{m.group(1)}: checked nothing")
            print(f"# {name} took {m.group(3)} s")
            name = None
            continue
        m = re.match(r"^(ok|not ok)\b\s*\d*\s*-?\s*(.*)$", raw)
        if m and name:
            line(m.group(1) == "ok", f"{name}: {m.group(2)}")
        elif name and re.match(r"^(1\.\.0\b.*skip|Bail out!)", raw, re.I):
            line(False, f"{name}: {raw}")
        elif raw and not re.match(r"^1\.\.\d+", raw):
            print(f"# {raw}")
    for c in commands:
        if c.split("=", 1)[0] not in finished:
            line(False, f"{c.split('=', 1)[0]}: did not finish" + ("" if ended == "by itself" else f", the machine ended {ended}"))
    print(f"1..{number}")
    return failed == 0 and number > 0


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--build", default=os.environ.get("AVIARY_BUILD", "build"))
    args.add_argument("--memory", type=int, default=3072, help="of the machine, in MiB")
    args.add_argument("--seconds", type=int, default=200, help="after which it is switched off")
    args.add_argument("--program", action="append", default=[], help="one more program for its root image")
    args.add_argument("--cpu", default="max,la57=off", help="its model, as QEMU names them")
    args.add_argument("--module", action="append", default=[], help="one more kernel module that is loaded")
    args.add_argument("--tree", action="append", default=[], help="one more directory for its root image")
    args.add_argument("--guest-kernel", action="store_true", help="leave an archive of its kernel in /aviary/vm-kernel.tar")
    args.add_argument("commands", nargs="+", metavar="NAME=COMMAND")
    opts = args.parse_args()
    for tool, package in (("qemu-system-x86_64", "qemu-system-x86"), ("cpio", "cpio"), ("busybox", "busybox-static")):
        if not shutil.which(tool):
            print(f"1..0 # SKIP {tool} is not installed (package {package})")
            return 0
    if os.geteuid() != 0:
        print("1..0 # SKIP making the root image needs root")
        return 0
    build = pathlib.Path(opts.build).resolve()
    work = build / "qemu"
    work.mkdir(exist_ok=True)
    began = time.monotonic()
    kernel, modules = kernel_of(work)
    initramfs = make_initramfs(work, modules, MODULES + opts.module)
    image = make_image(work, build, opts.commands, PROGRAMS + opts.program, opts.tree, kernel.parent.parent if opts.guest_kernel else None)
    print(f"# image made in {time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    for _ in range(2):
        text, ended = boot(work, kernel, initramfs, image, opts.cpu, opts.memory, opts.seconds)
        print(f"# machine ran for {time.monotonic() - began:.0f} s and ended {ended}", flush=True)
        if ended != "locked up":
            break
    return 0 if report(text, ended, opts.commands) else 1


sys.exit(main())
