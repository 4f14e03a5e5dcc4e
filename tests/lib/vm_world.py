# SPDX-License-Identifier: Apache-2.0
"""vm_world - a real aviaryd with what its first virtual machine needs: templates `vm-kernel` and `tiny`

`tiny` is busybox and the programs given, so that its image and golden machine are made in seconds. Everything is below the daemon's own
directory. Needs root and QEMU."""
import os
import shutil
import subprocess
import tempfile

import death
from aviary_test import Failure, SLOW, Skip, cmdline, equal, program, wait_for
from guest_kernel import NoKernel, fetch_kernel

BUILD = os.path.abspath(os.environ.get("AVIARY_BUILD", "build"))
TOOLS = (("qemu-system-x86_64", "qemu-system-x86"), ("mkfs.erofs", "erofs-utils"), ("mke2fs", "e2fsprogs"), ("busybox", "busybox-static"))
SIZE = {"isolation": "vm", "template": "tiny", "memory_mb": 128, "disk_mb": 256}
CREATE_S = 240


def missing():
    """Why there can be no virtual machine here, or None."""
    if os.geteuid() != 0:
        return "only root gives its daemon templates with several owners"
    for tool, package in TOOLS:
        if not shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin"):
            return f"{tool} is not installed (package {package})"
    return None


def cli(d, *words):
    env = {k: v for k, v in os.environ.items() if not k.startswith("AVIARY_")}
    env.update({"AVIARY_URL": d.url, "AVIARY_CONFIG_DIR": os.path.join(d.dir, "config"), "HOME": d.dir})
    r = subprocess.run([program("aviary"), *words], capture_output=True, text=True, env=env, timeout=120 * SLOW, cwd="/", check=False)
    equal(r.returncode, 0, f"aviary {' '.join(words)}: {r.stderr}")
    return r.stdout


def archive(path, *what):
    subprocess.run(["tar", "--numeric-owner", "--owner=0", "--group=0", "-cf", path, *what], check=True)


def tiny(work, programs):
    for name in ("bin", "etc", "dev", "proc", "sys", "run", "tmp", "root", "var", "usr", "home"):
        os.makedirs(f"{work}/{name}")
    shutil.copy(shutil.which("busybox"), f"{work}/bin/busybox")
    for name in subprocess.run([f"{work}/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            os.symlink("busybox", f"{work}/bin/{name}")
    for path in programs:
        shutil.copy(path, f"{work}/bin/{os.path.basename(path)}")
    for name, text in (("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "root:x:0:\n")):
        with open(f"{work}/etc/{name}", "w", encoding="ascii") as f:
            f.write(text)


def furnish(d, programs=()):
    """Gives a daemon both templates, the programs in /bin of `tiny`."""
    why = missing()
    if why:
        raise Skip(why)
    try:
        kernel = fetch_kernel(os.path.join(BUILD, "qemu"))
    except NoKernel as e:
        raise Skip(f"no kernel for the guest: {e}") from e
    with tempfile.TemporaryDirectory(prefix="aviary-test-") as work:
        tiny(f"{work}/root", programs)
        archive(f"{work}/root.tar", "-C", f"{work}/root", ".")
        cli(d, "template", "import", "tiny", f"{work}/root.tar")
        # Every template has a shell, which is how owners are put right.
        archive(f"{work}/kernel.tar", "-C", f"{work}/root", ".", "-C", str(kernel), "./boot", "./lib")
        cli(d, "template", "import", "vm-kernel", f"{work}/kernel.tar")


def another(d, name):
    """A template like `tiny`, of which there is no image yet."""
    with tempfile.TemporaryDirectory(prefix="aviary-test-") as work:
        tiny(f"{work}/root", ())
        with open(f"{work}/root/etc/name", "w", encoding="ascii") as f:
            f.write(name)
        archive(f"{work}/root.tar", "-C", f"{work}/root", ".")
        cli(d, "template", "import", name, f"{work}/root.tar")


def again(d, **env):
    """The daemon anew, with failpoints; sandboxes live on."""
    d.stop()
    d.env = {k: v for k, v in env.items() if v}
    d.start()
    death.ready(d)


def is_held(pid):
    """A failpoint makes it sleep."""
    try:
        with open(f"/proc/{pid}/wchan", encoding="ascii") as f:
            return "nanosleep" in f.read()
    except OSError:
        return False


def makers(d):
    """aviary-vm of what is being made, an image or a golden machine: {pid: jail}."""
    found = {}
    for entry in os.listdir("/proc"):
        words = cmdline(entry).split(b"\0") if entry.isdigit() else []
        if words[:1] == [b"aviary-vm"]:
            jail = words[1].decode()
            if jail not in d.ids and os.path.exists(os.path.join(d.run, jail)):
                found[int(entry)] = jail
    return found


def create(d, **more):
    """A virtual machine; its id. The first one waits for image and golden machine."""
    r = d.request("POST", "/v1/sandboxes", {**SIZE, **more}, timeout=CREATE_S)
    if r.status != 201:
        raise Failure(f"no virtual machine: {r.status} {r.body}")
    d.ids.add(r.json()["id"])
    return r.json()["id"]


def qemus(d, sandbox=None):
    """Processes of QEMU, of all sandboxes of the daemon or of one: {pid: sandbox}."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/comm", encoding="ascii", errors="replace") as f:
                if not f.read().startswith("qemu-system"):
                    continue
            with open(f"/proc/{entry}/cgroup", encoding="ascii") as f:
                text = f.read()
        except OSError:
            continue
        for i in [sandbox] if sandbox else d.ids:
            if i in text:
                found[int(entry)] = i
    return found


def vm_pid(d, sandbox):
    """aviary-vm of a sandbox: QEMU's parent, or without QEMU the process that has its id as argument."""
    for pid in qemus(d, sandbox):
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return int(f.read().rpartition(")")[2].split()[1])
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as f:
                    if f.read() == f"aviary-vm\0{sandbox}\0".encode():
                        return int(entry)
            except OSError:
                pass
    raise Failure(f"{sandbox} has no aviary-vm")


def gone(d, sandbox, timeout_s=20):
    """Nothing of a sandbox is left that the kernel or a directory knows."""
    def left():
        found = [f"process {p}" for p in os.listdir("/proc") if p.isdigit() and of(p, sandbox)]
        for top, dirs, _files in os.walk("/sys/fs/cgroup"):
            found += [os.path.join(top, x) for x in dirs if x == sandbox]
        for path in (os.path.join(d.run, sandbox), os.path.join(d.state, "sandboxes", sandbox)):
            found += [path] if os.path.exists(path) else []
        return found
    try:
        wait_for(lambda: not left(), timeout_s, "nothing is left")
    except Failure:
        raise Failure(f"left of {sandbox}: {left()}") from None


def of(pid, sandbox):
    try:
        with open(f"/proc/{pid}/cgroup", encoding="ascii") as f:
            return sandbox in f.read()
    except OSError:
        return False
