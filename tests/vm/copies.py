#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Programs that live on: over pauses and a restart of the daemon, in copies and in templates, each as somebody of its own. T44, T45, T47.

    copies.py [--cycles N]        pauses with hashes of disk and memory: 50, in `make soak` 1,000

What they have in common with jails is tested by the files of tests/integration with AVIARY_TEST_ISOLATION=vm
(tools/check-deep vm)."""
import concurrent.futures
import hashlib
import json
import os
import subprocess
import sys
import time

os.environ["AVIARY_TEST_ISOLATION"] = "vm"
import aviary_test  # noqa: E402 pylint: disable=wrong-import-position
from aviary_test import contains, equal, main, ok, wait_for  # noqa: E402 pylint: disable=wrong-import-position
from vm_templates import cli  # noqa: E402 pylint: disable=wrong-import-position

CYCLES = 50
if "--cycles" in sys.argv:
    at = sys.argv.index("--cycles")
    CYCLES = int(sys.argv[at + 1])
    del sys.argv[at:at + 2]

# Counts in memory, and says every 20 ms in one line who it is: what a copy must not have in common with another.
COUNTER = """
import fcntl, os, random, socket, struct, time, uuid
r = random.SystemRandom()
def read(p):
    return open(p).read().strip()
def mac():
    for n in sorted(os.listdir("/sys/class/net")):
        if n != "lo":
            return read(f"/sys/class/net/{n}/address")
    return ""
def address():
    for n in sorted(os.listdir("/sys/class/net")):
        if n != "lo":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                try:
                    return socket.inet_ntoa(fcntl.ioctl(s.fileno(), 0x8915, struct.pack("256s", n.encode()))[20:24])
                except OSError:
                    pass
    return ""
n, last = 0, ""
while True:
    n += 1
    who = read("/etc/machine-id")
    line = " ".join([str(n), who, socket.gethostname(), mac() or "-", os.urandom(8).hex(), str(uuid.uuid4()), f"{r.random():.17f}",
                     read("/proc/sys/kernel/random/boot_id"), address() or "-", f"{time.time():.3f}", f"{time.monotonic():.3f}"])
    with open("/tmp/now.new", "w") as f:
        f.write(line)
    os.rename("/tmp/now.new", "/tmp/now")
    if who != last:  # the first thing that it does as somebody else
        with open("/tmp/first", "a") as f:
            f.write(line + "\\n")
        last = who
    time.sleep(0.02)
"""
NAMES = ("machine-id", "hostname", "MAC address", "urandom", "uuid4", "random", "boot_id", "address")


def path(sb, rest=""):
    return f"/v1/sandboxes/{sb['id']}{rest}"


def out(d, sb, script, **more):
    r = d.exec(sb["id"], script, **more)
    equal(r["exit_code"], 0, f"{script}: {r['stdout']}{r['stderr']}")
    return r["stdout"]


def pause(d, sb):
    return d.expect(200, "POST", path(sb, "/pause"), timeout=120).json()


def resume(d, sb):
    return d.expect(200, "POST", path(sb, "/resume"), timeout=120).json()


def counter(d, **body):
    """A sandbox in which the counter runs, with internet access off unless the body says otherwise."""
    sb = d.create(memory_mb=128, **body)
    out(d, sb, "cat >/root/count.py <<'END'\n" + COUNTER + "\nEND\n")
    d.expect(202, "POST", path(sb, "/exec"), {"cmd": "python3", "args": ["/root/count.py"], "background": True, "tag": "count"})
    counting(d, sb, 3)
    return sb


def counting(d, sb, since):
    """Waits until it has counted on. Asks seldom: in an emulated machine the question costs more than the count."""
    end = time.monotonic() + 120 * aviary_test.SLOW
    while count(d, sb) <= since:
        ok(time.monotonic() < end, f"it counts on from {since}")
        time.sleep(0.3)


def count(d, sb):
    return int((d.exec(sb["id"], "cat /tmp/now")["stdout"] or "0").split()[0])


def first_words(d, sb):
    """What the counter said first in the life that it leads now."""
    return out(d, sb, "tail -n 1 /tmp/first").split()


def test_the_kernel_is_its_own(d):
    r = cli(d, "run", "--isolation", "vm", "--", "uname", "-a").stdout
    ok(os.uname().release not in r, f"not the host's kernel: {r}")
    contains(r, "cloud-amd64", "Debian's kernel")
    sb = d.create(memory_mb=128)
    equal(sb["isolation"], "vm", "its isolation")
    contains(r, out(d, sb, "uname -r").strip(), "the same by the API")
    contains(out(d, sb, "cat /proc/1/cmdline"), "--guest", "the agent is the first process")
    ok(0.8 * 128 * 1024 < int(out(d, sb, "grep MemTotal /proc/meminfo").split()[1]) + 40 * 1024 <= 170 * 1024, "its memory")
    one = {i["name"]: i for i in d.expect(200, "GET", "/v1/isolations").json()["isolations"]}["vm"]
    ok(one["available"] and one["ready"] and one["speed"] in ("emulated", "hardware") and one["about"], f"what the API says: {one}")
    d.delete(sb["id"])


def test_on_a_terminal(d):
    r = subprocess.run(["script", "-qec", f"'{aviary_test.program('aviary')}' run -it --isolation vm -- sh -c 'tty; stty size; uname -r'", "/dev/null"],
                       capture_output=True, text=True, timeout=60 * aviary_test.SLOW, check=False, stdin=subprocess.DEVNULL,
                       env={**os.environ, "AVIARY_URL": d.url, "AVIARY_CONFIG_DIR": os.path.join(d.dir, "config")})
    contains(r.stdout, "/dev/pts/", f"a terminal: {r.stderr}")
    contains(r.stdout, "cloud-amd64", "in the machine")


def test_files_and_a_port(d):
    sb = d.create(memory_mb=128)
    blob = os.urandom(3_000_000)
    d.expect(204, "PUT", path(sb, "/files?path=/root/blob"), blob)
    equal(out(d, sb, "sha256sum </root/blob").split()[0], hashlib.sha256(blob).hexdigest(), "what went in")
    equal(d.expect(200, "GET", path(sb, "/files?path=/root/blob")).body, blob, "and comes out")
    d.expect(202, "POST", path(sb, "/exec"), {"cmd": "python3", "args": ["-m", "http.server", "8000", "--directory", "/root"], "background": True})
    host = {"Host": f"8000-{sb['id']}.localhost:{d.port}"}
    wait_for(lambda: d.request("GET", "/blob", headers=host).status == 200, 30, "the port answers")
    equal(d.expect(200, "GET", "/blob", headers=host).body, blob, "through the proxy")
    d.delete(sb["id"])


def test_pause_frees_the_memory_and_outlives_the_daemon(d):
    sb = counter(d)
    before, began = count(d, sb), time.monotonic()
    who = first_words(d, sb)
    out(d, sb, "head -c 30000000 /dev/urandom >/dev/shm/x")
    sums = out(d, sb, "sha256sum /dev/shm/x")
    equal(pause(d, sb)["status"], "paused", "paused")
    equal(qemus(d), 0, "no QEMU is left")
    d.stop()
    d.start()
    equal(d.expect(200, "GET", path(sb)).json()["status"], "paused", "after a restart of the daemon")
    time.sleep(2)
    resume(d, sb)
    line = out(d, sb, "cat /tmp/now").split()
    ok(before < int(line[0]) < before + (time.monotonic() - began) * 60, f"it goes on where it was: {before}, then {line[0]}")
    ok(abs(float(line[9]) - time.time()) < 5 * aviary_test.SLOW, f"its clock is right: {line[9]} at {time.time()}")
    equal(out(d, sb, "sha256sum /dev/shm/x"), sums, "memory")
    now = count(d, sb)
    counting(d, sb, now)
    equal(first_words(d, sb), who, "it is who it was")
    d.delete(sb["id"])


def qemus(d):
    return sum(b"qemu-system" in aviary_test.cmdline(pid) for pid in aviary_test.processes_of(d))


def fork(d, sb, n):
    made = d.expect(201, "POST", path(sb, "/fork"), {"count": n}, timeout=240).json()
    copies = [m["sandbox"] for m in made if "sandbox" in m]
    d.ids.update(c["id"] for c in copies)
    equal(len(copies), n, f"copies: {made}")
    return copies


def begun_anew(d, sb):
    wait_for(lambda: len(out(d, sb, "cat /tmp/first").splitlines()) > 1, 60, "it has seen that it is another")
    return first_words(d, sb)


def test_eight_forks_are_eight_others(d):
    """T44: what each says within its first moments is its own; the source goes on."""
    sb = counter(d, internet=True)
    source = first_words(d, sb)
    ok(source[NAMES.index("address") + 1] != "-", f"it has an address: {source}")
    before = count(d, sb)
    copies = fork(d, sb, 8)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        lines = list(pool.map(lambda c: begun_anew(d, c), copies))
        numbers = list(pool.map(lambda c: count(d, c), copies))
    ok(all(n >= before for n in numbers), f"they go on from {before}: {numbers}")
    for i, what in enumerate(NAMES, 1):
        values = [line[i] for line in lines] + [source[i]]
        equal(len(set(values)), 9, f"different {what}: {values}")
    now = count(d, sb)
    counting(d, sb, now)
    for c in [sb, *copies]:
        d.delete(c["id"])


def test_a_template_with_processes(d):
    sb = counter(d)
    d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sb["id"], "name": "counting", "keep_running": True}, timeout=120)
    taken = count(d, sb)
    out(d, sb, "echo later >/root/later")
    made = d.create(template="counting")
    ok(count(d, made) > 3, "its processes run in a sandbox of it")
    equal(d.exec(made["id"], "cat /root/later")["stdout"], "", "and nothing of later")
    time.sleep(1)
    here = count(d, sb)
    got = d.expect(200, "POST", path(sb, "/rollback"), {"snapshot": "counting"}, timeout=120).json()
    equal((got["id"], got["status"]), (sb["id"], "running"), "rolled back in place")
    back = count(d, sb)
    ok(back < here + 50, f"it counts from the snapshot on: taken at {taken}, was at {here}, now {back}")
    equal(d.exec(sb["id"], "cat /root/later")["stdout"], "", "the disk is that of the snapshot")
    for s in (sb, made):
        d.delete(s["id"])
    d.expect(204, "DELETE", "/v1/snapshots/counting")


def test_cycles_of_pause_and_resume(d):
    """T47: disk and memory have the same contents after each, and what counts goes on."""
    sb = counter(d)
    out(d, sb, "head -c 8000000 /dev/urandom >/dev/shm/m; head -c 8000000 /dev/urandom >/root/disk; sync")
    script = "cat /dev/shm/m /root/disk | sha256sum; for i in 1 2 3; do head -c 100000 /dev/urandom >/root/part$i; done; " \
             "cat /root/part? >/dev/shm/part; cat /dev/shm/part | sha256sum"
    check = "cat /dev/shm/m /root/disk | sha256sum; cat /root/part? | sha256sum; cat /tmp/now"
    sums, last, times = out(d, sb, script).split("\n")[:2], 0, []
    began = time.monotonic()
    for i in range(CYCLES):
        start = time.monotonic()
        pause(d, sb)
        paused = time.monotonic()
        resume(d, sb)
        times.append((paused - start, time.monotonic() - paused))
        got = out(d, sb, check).split("\n")
        equal(got[:2], sums, f"contents after cycle {i + 1}")
        number = int(got[2].split()[0])
        ok(number >= last, f"cycle {i + 1}: the counter is at {number}, was at {last}")
        last = number
        if i % 10 == 9:
            sums = out(d, sb, script).split("\n")[:2]
    median = [sorted(t[k] for t in times)[len(times) // 2] * 1000 for k in (0, 1)]
    print(f"# {CYCLES} cycles in {time.monotonic() - began:.1f} s; pause {median[0]:.0f} ms, resume {median[1]:.0f} ms (medians)")
    d.delete(sb["id"])


for test in [f for name, f in list(globals().items()) if name.startswith("test_")]:
    test.timeout_s = 240
test_cycles_of_pause_and_resume.timeout_s = 240 + 4 * CYCLES

main(globals())
