#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Virtual machines of a daemon that an ordinary user runs: made, paused to what is its disk, copied; one user inside, who is root of a kernel."""
from aviary_test import contains, equal, ok, wait_for
import ordinary_user
import vm_world

COUNT = "n=0; while :; do n=$((n+1)); echo $n >/root/n.new; mv /root/n.new /root/n; sleep 0.05; done"


def count(d, sandbox):
    return int(d.exec(sandbox, "cat /root/n")["stdout"] or 0)


def counter(d):
    sandbox = vm_world.create(d)
    d.expect(202, "POST", f"/v1/sandboxes/{sandbox}/exec", {"cmd": "/bin/sh", "args": ["-c", COUNT], "background": True})
    wait_for(lambda: count(d, sandbox) > 0, 20, "it counts")
    return sandbox


def test_a_machine(d):
    vm_world.furnish(d)
    sandbox = vm_world.create(d)
    out = d.exec(sandbox, "id -u; uname -r; hostname; dd if=/dev/urandom of=/root/x bs=1M count=5 2>/dev/null; wc -c </root/x")["stdout"].split()
    equal(out[0], "0", "who it is")
    contains(out[1], "cloud-amd64", "a kernel of its own")
    equal(out[2:], [sandbox[:12], str(5 << 20)], "its name and its disk")
    d.delete(sandbox)


def test_pause_restart_resume(d):
    sandbox = counter(d)
    d.expect(200, "POST", f"/v1/sandboxes/{sandbox}/pause", timeout=60)
    equal(vm_world.qemus(d, sandbox), {}, "no QEMU is left")
    d.stop()
    d.start()
    d.expect(200, "POST", f"/v1/sandboxes/{sandbox}/resume", timeout=60)
    now = count(d, sandbox)
    ok(now > 0, f"it has not begun anew: {now}")
    wait_for(lambda: count(d, sandbox) > now, 20, "it counts on")
    d.delete(sandbox)


def test_copies(d):
    sandbox = counter(d)
    made = d.expect(201, "POST", f"/v1/sandboxes/{sandbox}/fork", {"count": 2}, timeout=60).json()
    copies = [m["sandbox"]["id"] for m in made]
    d.ids.update(copies)
    for copy in copies:
        then = count(d, copy)
        ok(then > 0, f"a copy goes on: {then}")
        wait_for(lambda c=copy, n=then: count(d, c) > n, 20, "and on")
    equal(len({d.exec(s, "cat /etc/machine-id; hostname")["stdout"] for s in (sandbox, *copies)}), 3, "each is somebody of its own")
    for each in (sandbox, *copies):
        d.delete(each)


for test in (test_a_machine, test_pause_restart_resume, test_copies):
    test.timeout_s = 200

if __name__ == "__main__":
    ordinary_user.main(globals(), "aviary-vm")
