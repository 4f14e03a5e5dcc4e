#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A virtual machine on a working KVM; runs in a machine of machine.py whose processor offers virtualisation

Hand-run, in the machine: python3 tests/qemu/nested.py. Needs /aviary/vm-kernel.tar (machine.py --guest-kernel).
"""
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time

import aviary_test
from aviary_test import contains, equal, ok

KERNEL = "/aviary/vm-kernel.tar"
# What the steps take when two emulations lie above each other; a machine's own limits are shorter.
STEP_S = 300
COUNT = "n=0; while :; do n=$((n + 1)); echo $n >/tmp/count.new; mv /tmp/count.new /tmp/count; sleep 0.2; done"


def cli(d, *args, code=0, env=None):
    """Standard output of `aviary`, which has to end with code."""
    env = {**os.environ, "AVIARY_CONFIG_DIR": os.path.join(d.dir, "config"), "AVIARY_URL": d.url, **(env or {})}
    began = time.monotonic()
    p = subprocess.run([aviary_test.program("aviary"), *args], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                       timeout=STEP_S, check=False)
    print(f"# aviary {' '.join(args)[:60]}: {time.monotonic() - began:.1f} s", flush=True)
    equal(p.returncode, code, f"exit status of aviary {args[0]}, which said {p.stdout[-300:]!r} {p.stderr[-600:]!r}")
    return p.stdout


def busybox_template(path):
    """A root file system of one program."""
    with tarfile.open(path, "w") as tar:
        for name in ("bin", "etc", "root", "tmp", "home", "proc", "sys", "dev", "run", "var", "usr", "usr/bin"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(info)
        tar.add(shutil.which("busybox"), "bin/busybox")
        for name in ("sh", "uname", "cat", "sleep", "echo", "mv", "true", "id", "ls", "dmesg"):
            info = tarfile.TarInfo(f"bin/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
        for name, text in (("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("etc/group", "root:x:0:\n")):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))


def vm_of(d):
    reply = d.expect(200, "GET", "/v1/isolations").json()
    return next(o for o in reply["isolations"] if o["name"] == "vm")


def test_the_templates_are_imported(d):
    vm = vm_of(d)
    ok(vm["available"], f"virtual machines can be made: {vm}")
    with tempfile.TemporaryDirectory() as tmp:
        base = os.path.join(tmp, "base.tar")
        busybox_template(base)
        cli(d, "template", "import", "base", base)
        # A recipe of one line: an import would want a shell in it.
        recipe = os.path.join(tmp, "vm-kernel", "build")
        os.mkdir(os.path.dirname(recipe))
        with open(recipe, "w", encoding="ascii") as f:
            f.write(f"#!/bin/sh\nexec cat {KERNEL}\n")
        os.chmod(recipe, 0o755)
        cli(d, "template", "build", "vm-kernel", env={"AVIARY_TEMPLATES": tmp})
    equal(vm_of(d)["missing"], [], "nothing is missing")


def test_a_machine_boots_on_kvm(d):
    out = cli(d, "run", "--isolation", "vm", "--memory", "256M", "--cpus", "1", "--", "/bin/uname", "-a")
    print(f"# {out.strip()}")
    contains(out, "cloud-amd64", "the guest's kernel")
    vm = vm_of(d)
    print(f"# {json.dumps(vm)}")
    equal(vm.get("accelerator"), "kvm", f"the probe found a KVM that works: {vm}")
    equal(vm["speed"], "hardware", "its speed")
    contains(cli(d, "vm", "status"), "KVM with hardware virtualisation", "what vm status says")


def test_it_is_paused_and_resumed(d):
    sandbox = json.loads(cli(d, "create", "--isolation", "vm", "--memory", "256M", "--cpus", "1", "--json"))["id"]
    cli(d, "exec", "--detach", sandbox, "--", "/bin/sh", "-c", COUNT)
    aviary_test.wait_for(lambda: cli(d, "exec", sandbox, "--", "/bin/sh", "-c", "cat /tmp/count || echo 0").strip() != "0", 60, "counting")
    cli(d, "pause", sandbox)
    equal(d.expect(200, "GET", f"/v1/sandboxes/{sandbox}").json()["status"], "paused", "its state")
    cli(d, "resume", sandbox)
    first = int(cli(d, "exec", sandbox, "--", "/bin/cat", "/tmp/count"))
    aviary_test.wait_for(lambda: int(cli(d, "exec", sandbox, "--", "/bin/cat", "/tmp/count")) > first, 60, "it goes on counting")
    cli(d, "rm", sandbox)


for step in (test_the_templates_are_imported, test_a_machine_boots_on_kvm, test_it_is_paused_and_resumed):
    step.timeout_s = STEP_S

if __name__ == "__main__":
    aviary_test.main(globals())
