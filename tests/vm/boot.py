# SPDX-License-Identifier: Apache-2.0
"""boot.py - the agent as the first process of a real guest: boots, stands still, becomes somebody, grows, ends

Debian's kernel in QEMU without KVM, the initramfs of src/vm/initrd.c, a root of busybox. No privilege is needed. TAP."""
import os
import pathlib
import re
import signal
import sys
import tempfile
import threading
import time
import traceback

import guest_machine as gm
from aviary_test import SLOW, contains, equal, ok, wait_for
from guest_kernel import NoKernel, fetch_kernel

BUILD = pathlib.Path(os.environ.get("AVIARY_BUILD", "build")).resolve()


def test_boot(m):
    _, agent, kernel = m.control.hello()
    print(f"# from QEMU's start to HELLO: {time.monotonic() - m.began:.2f} s")
    ok(re.fullmatch(rb"\d+\.\d+\.\d+", agent.rstrip(b"\0")), "the agent says its version")
    equal(kernel.rstrip(b"\0").decode(), m.release, "the kernel is Debian's")
    m.control.must(gm.WARM)


def test_a_sandbox_as_usual(m):
    health = m.curl("/health").stdout
    contains(health, b"agent_version", "the agent's server answers over a link")
    equal(m.sh("id -u; pwd; uname -r").split(), ["0", "/root", m.release], "a command of root")
    equal(m.sh("id -u; id -g", user="user").split(), ["1000", "1000"], "a command of another user")
    mounts = m.sh("cat /proc/mounts")
    for line in (" / overlay ", " /proc proc ", " /sys sysfs ", " /sys/fs/cgroup cgroup2 ", " /dev devtmpfs ", " /dev/pts devpts ", " /dev/shm tmpfs ",
                 " /dev/mqueue mqueue ", " /run tmpfs "):
        contains(mounts, line, "mounts")
    ok("rootfs" not in mounts and " /image " not in mounts and "ext4" not in mounts, f"nothing of the way there is left: {mounts}")
    equal(m.sh("cat /proc/self/cgroup; ls /sys/fs/cgroup/user >/dev/null; cat /proc/1/cgroup").split(), ["0::/user", "0::/../agent"], "control groups")
    equal(m.sh("ulimit -c; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj").split(), ["0", "1024", "1048576", "100"], "limits")
    equal(m.sh("echo in >/a && cat /a && rm /bin/ed && ! ls /bin/ed 2>/dev/null && ping -c1 -W5 127.0.0.1 >/dev/null && echo up").split(), ["in", "up"],
          "files and loopback")
    equal(m.sh("for f in stdin stdout stderr fd; do readlink /dev/$f; done | head -1; echo x >/dev/shm/x; stty -F /dev/ptmx >/dev/null && echo tty").split(),
          ["/proc/self/fd/0", "tty"], "/dev")
    equal(m.sh("mkdir /m && mount -t tmpfs none /m && umount /m && echo yes"), "yes", "root may mount")
    ok(m.exec("mount -t tmpfs none /m", user="user")[0] != 0, "others may not")
    equal(m.exec("exec 3<>/dev/vport$(cd /dev; ls -d vport* | head -1 | cut -c6-)")[0] != 0, True, "ports of the agent are busy")


def test_all_stand_still(m):
    m.sh("(i=0; while :; do i=$((i+1)); echo $i >>/count; sleep 0.01; done) >/dev/null 2>&1 &")
    time.sleep(0.5)
    m.control.must(gm.FREEZE)
    m.control.must(gm.FREEZE)
    late = {}
    asker = threading.Thread(target=lambda: late.update(out=m.exec("tail -1 /count")[1], at=time.monotonic()))
    asker.start()
    # A child of the agent's own does not wait for what is frozen.
    m.control.must(gm.WARM)
    time.sleep(1)
    equal(late, {}, "answers while all stand still")
    thawed = time.monotonic()
    m.control.must(gm.THAW)
    asker.join(30 * SLOW)
    ok(late and late["at"] > thawed, "what was asked meanwhile is answered then")
    before = int(m.sh("tail -1 /count; sleep 0.3"))
    ok(int(m.sh("tail -1 /count")) > before, "and what ran goes on")


def test_who_does_not_stand_still(m):
    """A message while another one is carried out, and one that is none."""
    m.control.send(b"nonsense")
    m.control.ask(gm.WARM)
    m.control.ask(gm.FREEZE)
    errors = sorted(int.from_bytes(m.control.receive(gm.DONE)[1][:4], "little") for _ in range(2))
    equal(errors, [0, 16], "one is done, the other refused: EBUSY")
    equal(m.sh("echo on"), "on", "and nothing stands still")


def test_identity(m):
    size = int(m.sh("df -P / | tail -1").split()[1])
    random = m.sh("cat /proc/sys/kernel/random/boot_id")
    m.control.must(gm.FREEZE)
    m.qmp("block_resize", **{"node-name": "disk", "size": 384 << 20})
    began = time.monotonic()
    got = m.control.identity(disk_bytes=384 << 20, real_ns=1900000000 * 10**9, pids_max=50)
    print(f"# identity: {(time.monotonic() - began) * 1e3:.0f} ms")
    equal((got["error"], got["text"]), (0, ""), "no error")
    equal((got["hostname"], got["machine_id"], got["mac"].hex(), got["address"]), ("one", bytes(range(16)), "02aabbccdd01", 0xC6120005), "read back")
    ok(0 <= got["real_ns"] - 1900000000 * 10**9 < 10**10, "the clock, read back")
    m.control.must(gm.THAW)
    wait_for(lambda: int(m.sh("df -P / | tail -1").split()[1]) > size + 100000, 30, "the disk has grown")
    equal(m.sh("hostname; cat /etc/hostname /etc/machine-id /etc/resolv.conf; tail -1 /etc/hosts").split(),
          ["one", "one", "000102030405060708090a0b0c0d0e0f", "nameserver", "198.18.0.3", "127.0.1.1", "one"], "files")
    equal(m.sh("echo $AVIARY_SANDBOX_ID"), "sb" + "1" * 25, "its own id")
    ok(m.sh("cat /proc/sys/kernel/random/boot_id") != random, "another boot id")
    text = m.sh("ifconfig eth0; route -n; date +%Y")
    for part in ("02:AA:BB:CC:DD:01", "inet addr:198.18.0.5", "255.255.255.224", "UP", "198.18.0.2", "2030"):
        contains(text, part, "interface, routes and clock")
    equal(m.sh("cat /sys/fs/cgroup/pids.max"), "50", "the limit of processes")
    contains(m.exec("for i in $(seq 100); do sleep 1 & done 2>&1")[1], "fork", "which holds")


def test_the_same_again(m):
    m.sh("echo mine >/etc/hosts; echo 1.1.1.1 >/etc/resolv.conf; rm /etc/machine-id")
    boot_id = m.sh("cat /proc/sys/kernel/random/boot_id")
    got = m.control.identity()
    equal((got["error"], got["text"], got["machine_id"]), (0, "", bytes(range(16))), "who it was goes on")
    equal(m.sh("cat /etc/hosts /etc/resolv.conf; ls /etc/machine-id 2>/dev/null; cat /proc/sys/kernel/random/boot_id").split(), ["mine", "1.1.1.1", boot_id],
          "with the files of its own")


def test_another(m):
    m.sh("rm /etc/hosts; ln -s /root /etc/hosts; dd if=/dev/zero of=/full bs=1M >/dev/null 2>&1; true", timeout_s=200)
    got = m.control.identity(id="sb" + "2" * 25, hostname="two", machine_id=bytes(16), mac=bytes.fromhex("02aabbccdd02"), flags=gm.NO_SUDO, address=0,
                             prefix=0, gateway=0, resolver=0)
    m.sh("rm /full")
    equal((got["error"], got["text"]), (0, ""), "a new one on a disk that is full, without internet")
    equal((got["hostname"], got["machine_id"], got["mac"].hex(), got["address"]), ("two", bytes(16), "02aabbccdd02", 0), "read back")
    ok("UP" not in m.sh("ifconfig eth0"), "the interface is down")
    equal(m.sh("cat /etc/machine-id; tail -1 /etc/hosts; grep NoNewPrivs /proc/self/status").split(), ["0" * 32, "127.0.1.1", "two", "NoNewPrivs:", "1"],
          "files; and nobody gains privileges")
    equal(m.sh("cat /sys/fs/cgroup/pids.max"), "max", "no limit of processes")


def test_groups_of_users(m):
    """A container engine makes groups with controllers of their own; they stand still as well."""
    equal(m.sh("cd /sys/fs/cgroup && echo '+pids +memory' >cgroup.subtree_control && mkdir engine && echo 7 >engine/pids.max && cat engine/pids.max"), "7",
          "a group with a limit")
    m.sh("(echo 0 >/sys/fs/cgroup/engine/cgroup.procs; while :; do echo . >>/dots; sleep 0.01; done) >/dev/null 2>&1 &")
    time.sleep(0.5)
    m.control.must(gm.FREEZE)
    m.control.must(gm.THAW)
    ok(int(m.sh("wc -c </dots")) > 0, "it ran")


def test_reconnect(m):
    m.control.hello(10 * SLOW)
    for link in range(4):
        equal(m.sh("echo in", link=link), "in", f"link {link}")
    equal(len(m.sh("head -c 3000000 /dev/zero | tr '\\0' x")), 3000000, "bulk")


def test_footprint(m):
    text = m.sh("sync; echo 3 >/proc/sys/vm/drop_caches; cat /proc/meminfo; grep -E 'VmRSS|Anon' /proc/1/status; df -h / | tail -1")
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB", text, re.M))
    print(f"# memory: total {found['MemTotal']}, free {found['MemFree']}, agent {found['VmRSS']} kB resident")
    began = time.monotonic()
    for _ in range(10):
        m.sh("true")
    print(f"# one exec, with a new connection and curl's start: {(time.monotonic() - began) * 100:.0f} ms")
    print("# " + m.sh("i=0; s=$(cut -d' ' -f1 /proc/uptime); while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done; echo 100 processes from $s to $(cut -d' ' -f1 /proc/uptime) s"))


def test_end(m):
    m.exec("sync; kill -TERM 1; sleep 60")
    body = m.control.receive(gm.RECORD)[1]
    equal((body[:4], body[4:8], body[24:35]), (b"AVX1", b"\0\0\0\1", b"told to end"), "the exit record")
    equal(m.wait_end(), "guest-shutdown", "the machine is off")


def restored(work, number, wait_s):
    """One of the machines that come out of a save; what its processes and its random numbers say."""
    with gm.Machine(work, memory_mib=128, memory=f"{work}/golden", save=f"{work}/golden") as m:
        m.control.hello(20 * SLOW)
        print(f"# from QEMU's start to HELLO of a restored machine: {(time.monotonic() - m.began) * 1e3:.0f} ms")
        time.sleep(wait_s)
        digit = str(number)
        got = m.control.identity(id="sb" + digit * 25, hostname=f"host{number}", machine_id=digit.encode() * 16)
        equal((got["error"], got["hostname"]), (0, f"host{number}"), "who it is")
        m.control.must(gm.THAW)
        print(f"# and to THAW: {(time.monotonic() - m.began - wait_s) * 1e3:.0f} ms")
        ok(abs(int(m.sh("date +%s")) - time.time()) < 5 * SLOW, "the clock is that of the outside")
        wait_for(lambda: f"host{number}" in m.sh("tail -1 /log"), 30, "what ran goes on, and sees the new name")
        return {"names": m.sh("cut -d' ' -f1 /log"), "random": m.sh("head -c 16 /dev/urandom | od -An -tx1"), "boot": m.sh("cat /proc/sys/kernel/random/boot_id"),
                "machine": m.sh("cat /etc/machine-id"), "id": m.sh("echo $AVIARY_SANDBOX_ID")}


def test_two_of_one(m):
    """T44, T45: two machines of one memory file have nothing in common that they should not, and nothing runs in them before they know it."""
    m.close()
    work = m.files
    with open(f"{work}/golden", "wb") as f:
        f.truncate(128 << 20)
    with gm.Machine(work, memory_mib=128, memory=f"{work}/golden") as g:
        g.control.hello()
        g.control.must(gm.WARM)
        g.sh("(while :; do echo $(hostname) $(head -c 4 /dev/urandom | od -An -tx1) >>/log; sleep 0.01; done) >/dev/null 2>&1 &")
        wait_for(lambda: "aviary" in g.sh("cat /log 2>/dev/null; true"), 30, "something runs")
        g.control.must(gm.FREEZE)
        g.save(f"{work}/golden")
    print(f"# memory of a machine of 128 MiB: {os.stat(work + '/golden').st_blocks >> 11} MiB in its file")
    one, two = restored(work, 1, 0), restored(work, 2, 1)
    equal(two["names"].count("aviary"), one["names"].count("aviary"), "lines written under the old name, whatever the time until the identity")
    for what in ("random", "boot", "machine", "id"):
        ok(one[what] != two[what], f"{what} differs: {one[what]}")


def main():
    kernel, why = None, gm.missing()
    try:
        kernel = None if why else fetch_kernel(BUILD / "qemu")
    except NoKernel as e:
        why = f"no kernel for the guest: {e}"
    if why:
        print(f"1..0 # SKIP {why}")
        return 1 if os.environ.get("CI") else 0
    signal.alarm(int(250 * SLOW))
    tests = {n: f for n, f in globals().items() if n.startswith("test_")}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="aviary-test-boot-") as work:
        gm.make_root(f"{work}/tree")
        release, modules, size = gm.make_files(work, kernel, BUILD / "tests/vm/initrd_tool", f"{work}/tree")
        print(f"# {release}: initrd of {int(size) >> 10} KiB with {modules} modules")
        # With a word that the kernel does not know, and gives to its first process.
        with gm.Machine(work, arguments="console=ttyS0 aviary_unknown mitigations=off") as m:
            m.release = release
            for n, name in enumerate(tests, 1):
                began = time.monotonic()
                try:
                    tests[name](m)
                    print(f"ok {n} - {name} ({time.monotonic() - began:.1f} s)", flush=True)
                except Exception:  # a failure of any kind is this test's
                    failed += 1
                    print(f"not ok {n} - {name}\n" + "".join(f"# {l}\n" for l in traceback.format_exc().splitlines()), end="", flush=True)
                    if name == "test_boot":
                        break
            if failed:
                print("".join(f"# console: {l}\n" for l in m.complaints().splitlines()), end="")
        print(f"1..{n}")
    return 1 if failed else 0


sys.exit(main())
