#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Internet access of sandboxes: what is reached, what is refused, and what is left. T30, T35, T36.

The attacks run twice: as they are, and with the sandbox's own rules taken away from outside, so that the host's
stand alone.
"""
import http.client
import os
import re
import signal
import socket
import subprocess
import sys

import aviary_test
import fake_internet
from aviary_test import (IN_VM, Daemon, children_of, cmdline, contains, equal, instance_tag, links_of, nothing_left, ok, program,
                         tables_of, vm_only, wait_for)
from escape import judge, put, upload
from fake_internet import CGNAT, GATEWAY, HOME, PRIVATE, PUBLIC, RESOLVER, UPLINK, run
from vm_templates import import_templates

def agent_pid(d, sandbox):
    with open(os.path.join(d.run, sandbox, "process"), encoding="ascii") as f:
        return f.read().split()[0]


def address_of(d, sandbox):
    with open(os.path.join(d.run, sandbox, "net"), encoding="ascii") as f:
        return f.read().split()[0]


def link_of(d, sandbox):
    with open(os.path.join(d.run, sandbox, "net"), encoding="ascii") as f:
        return f.read().split()[1]


def in_namespace(d, sandbox, *words, check=True):
    """As the host's root in the network namespace of the sandbox, or of its QEMU: more than anybody inside can do."""
    return run("nsenter", "-t", agent_pid(d, sandbox), "-n", *words, check=check)


def guest_network(d, sandbox):
    """What QEMU gives its guest: gateway, resolver, address, and whether it lets nothing out."""
    for pid in children_of(int(agent_pid(d, sandbox))):
        found = re.search(rb"\0user,.*host=([\d.]+),dns=([\d.]+),dhcpstart=([\d.]+),restrict=(\w+)", cmdline(pid))
        if found:
            gateway, resolver, address, restrict = (x.decode() for x in found.groups())
            return gateway, resolver, address, restrict == "on"
    raise aviary_test.Failure("there is no QEMU")


def attack(d, sandbox, *words):
    if not hasattr(d, "uploaded"):
        d.uploaded = set()
    if sandbox not in d.uploaded:
        upload(d, sandbox, "t30_internet")
        d.uploaded.add(sandbox)
    result = d.exec(sandbox, "/tmp/t30_internet " + " ".join(str(w) for w in words), timeout_sec=60)
    judge("t30_internet", result)
    return result["stdout"]


def online(d, **body):
    return d.create(internet=True, **body)["id"]


def pair(d):
    """Two sandboxes that the tests share; nobody harms them for long."""
    if not hasattr(d, "pair"):
        d.pair = online(d), online(d)
    return d.pair


def metadata_forms():
    forms = ["169.254.169.254", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "169.254.43518", "100.100.100.200",
             "168.63.129.16", "192.0.0.192", "169.254.253.1", "169.254.253.53"]
    return [w for f in forms for w in ("refuse", f, 80)]


def private_forms():
    hosts = [PRIVATE, CGNAT, HOME, RESOLVER, "172.16.0.1", "127.0.0.1", "127.1.2.3", "0.0.0.0", "0x7f.1", "224.0.0.1",
             "240.0.0.1", "255.255.255.255", "198.18.0.1"]
    return [w for h in hosts for w in ("refuse", h, 80)]


# ---- what works ----


def test_off_is_the_default(d):
    sandbox = d.create()
    equal(sandbox["internet"], False, "internet of a sandbox that did not ask")
    routes = d.exec(sandbox["id"], "cat /proc/net/route")["stdout"]
    ok("eth0" not in routes, f"it has a route: {routes}")
    links = [line.split()[1] for line in in_namespace(d, sandbox["id"], "ip", "-o", "link").splitlines()]
    equal(links, ["lo:"], "interfaces of the sandbox, or of its QEMU")
    equal(tables_of(d), [], "tables of an Aviary that nobody asked for internet access")
    d.delete(sandbox["id"])


def test_the_internet_is_reached(d):
    a, _b = pair(d)
    # Whoever has a kernel of its own has these rights: what it does with them is tested below.
    attack(d, a, "reach", PUBLIC, 80, *([] if IN_VM else ["own"]), "ipv6")
    names = d.exec(a, "cat /etc/resolv.conf; getent ahostsv4 www.example")
    server = guest_network(d, a)[1] if IN_VM else "169.254.253.53"
    ok(f"nameserver {server}\n" in names["stdout"] and PUBLIC in names["stdout"], f"names: {names}")
    seen = d.exec(a, f"bash -c 'exec 3<>/dev/tcp/{PUBLIC}/80; printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3'")
    ok(seen["stdout"].rstrip().endswith(UPLINK), f"the server saw another source: {seen['stdout']!r}")


def cli(d, *words):
    env = {"PATH": os.environ["PATH"], "HOME": d.dir, "AVIARY_URL": d.url, "AVIARY_CONFIG_DIR": os.path.join(d.dir, "config")}
    return subprocess.run([program("aviary"), *words], capture_output=True, text=True, env=env, timeout=60, check=False)


def test_the_command_line(d):
    r = cli(d, "run", "--internet", "--", "cat", "/proc/net/route")
    ok(r.returncode == 0 and "eth0" in r.stdout, f"run --internet: {r}")
    r = cli(d, "run", "--", "cat", "/proc/net/route")
    ok(r.returncode == 0 and "eth0" not in r.stdout, f"run: {r}")


# ---- T30 ----


def test_t30_refused_at_once(d):
    a, _b = pair(d)
    host = [w for h in (UPLINK, d.host) for w in ("refuse" if h != UPLINK else "silent", h, d.port)]
    out = attack(d, a, *metadata_forms(), *private_forms(), *host, "refuse", PUBLIC, 25, "udp", PRIVATE, 53, "udp", RESOLVER, 53,
                 "udp", "255.255.255.255", 67, "udp", "224.0.0.251", 5353)
    how = "Connection refused" if IN_VM else "No route to host"
    for host, port in ((PRIVATE, 80), ("169.254.169.254", 80), (PUBLIC, 25)):
        contains(out, f"::ffff:{host} port {port} too ({how})", "what a program sees")


def host_addresses():
    found = []
    for line in run("ip", "-4", "-o", "address").splitlines():
        found.append(line.split()[3].split("/")[0])
    return found


def gateways():
    return [line.split()[2] for line in run("ip", "-4", "route", "show", "default").splitlines() if " via " in line]


def test_t30_the_host_itself(d):
    a, _b = pair(d)
    words = [w for h in host_addresses() + gateways() + [GATEWAY] for w in ("silent", h, d.port, "silent", h, 22)]
    attack(d, a, *words)


def test_t30_the_host_s_rules_alone(d):
    a, b = pair(d)
    in_namespace(d, a, "nft", "delete", "table", "inet", "aviary")
    try:
        attack(d, a, "reach", PUBLIC, 80)
        hosts = ["169.254.169.254", "169.254.253.1", PRIVATE, CGNAT, HOME, RESOLVER, UPLINK, address_of(d, b), "240.0.0.1"]
        words = [w for h in hosts for w in ("silent", h, 80)]
        attack(d, a, *words, "silent", PUBLIC, 25, "udp", RESOLVER, 53, "silent", UPLINK, d.port, "ipv6")
    finally:
        d.delete(a)
        d.pair = online(d), b


# ---- T35 ----


def test_t35_neighbours(d):
    a, b = pair(d)
    server = "import socket\ns = socket.create_server(('', 8080))\nwhile True: s.accept()"
    d.expect(202, "POST", f"/v1/sandboxes/{b}/exec", {"cmd": "python3", "args": ["-c", server], "background": True})
    wait_for(lambda: d.exec(b, "bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080'")["exit_code"] == 0, 10, "a server in the neighbour")
    theirs = address_of(d, b)
    attack(d, a, "refuse", theirs, 8080, "refuse", theirs, 22, "udp", theirs, 53, *([] if IN_VM else ["source", theirs]))
    # Neither does the host reach into it, nor the internet.
    r = run("bash", "-c", f"exec 3<>/dev/tcp/{theirs}/8080 && echo connected", check=False)
    ok("connected" not in r, "the host connects to a sandbox")
    NET.inside("ip", "route", "replace", f"{theirs}/32", "via", UPLINK)
    r = NET.inside("timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/{theirs}/8080 && echo connected", check=False)
    ok("connected" not in r, "the internet connects to a sandbox")


def test_t35_spoofed_sources(d):
    """With a neighbour's address, forced upon it from outside, a sandbox gets no answer."""
    a, b = pair(d)
    theirs, mine = address_of(d, b), address_of(d, a)
    in_namespace(d, a, "nft", "delete", "table", "inet", "aviary")
    for address in (theirs, "198.51.100.70", UPLINK, "8.8.8.8"):
        in_namespace(d, a, "ip", "address", "add", address + "/32", "dev", "eth0")
        r = in_namespace(d, a, "timeout", "1", "python3", "-c", "import socket\ns = socket.socket()\n"
                         f"s.bind(('{address}', 0))\ns.connect(('{PUBLIC}', 80))\nprint('connected')", check=False)
        ok("connected" not in r, f"connected as {address}")
    # Its own still works, and so does the neighbour; ARP is not even listened to.
    r = in_namespace(d, a, "python3", "-c", "import socket\ns = socket.socket()\n"
                     f"s.bind(('{mine}', 0))\ns.connect(('{PUBLIC}', 80))\nprint('connected')")
    ok("connected" in r, "its own address works")
    spoof = ("import socket, struct\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\ns.bind(('eth0', 0x0806))\n"
             f"m = bytes.fromhex('026176696172')\nfor t in ('{theirs}', '169.254.253.1', '{UPLINK}'):\n"
             "    s.send(b'\\xff' * 6 + m + b'\\x08\\x06' + struct.pack('!HHBBH', 1, 0x800, 6, 4, 2) + m\n"
             "           + socket.inet_aton(t) + m + socket.inet_aton(t))\n")
    in_namespace(d, a, "python3", "-c", spoof)
    equal(run("ip", "neighbour", "show", "dev", link_of(d, a)).count("lladdr"), 0, "neighbours learnt by ARP")
    attack(d, b, "reach", PUBLIC, 80)
    d.delete(a)
    d.pair = online(d), b


class Tap:
    """What comes out of a sandbox, or of its QEMU, as [(kind of frame, source, target)]; as the host's side sees it."""

    def __init__(self, link):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
        self.socket.bind((link, 0))

    def seen(self):
        found = set()
        self.socket.settimeout(0.5)
        with self.socket:
            while True:
                try:
                    frame, (_link, kind, direction, *_rest) = self.socket.recvfrom(2048)
                except TimeoutError:
                    return found
                except OSError:  # its sandbox is gone: that is said before what came until then
                    continue
                if direction != socket.PACKET_OUTGOING:
                    ipv4 = kind == 0x800 and len(frame) >= 34
                    found.add((kind, *(socket.inet_ntoa(frame[i:i + 4]) if ipv4 else "" for i in (26, 30))))


def by_hand(d, sandbox, gateway, neighbour, answering, *how):
    """The body of an exec that sends what root of a guest likes to."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest_frames.py"), "rb") as f:
        equal(put(d, sandbox, "/tmp/guest_frames.py", f.read()).status // 100, 2, "upload")
    refused = ["169.254.169.254", PRIVATE, RESOLVER, CGNAT, UPLINK, GATEWAY, neighbour, "169.254.253.1", "240.0.0.1", "224.0.0.251"]
    script = " ".join(["python3 /tmp/guest_frames.py", *how, gateway, neighbour, answering, *refused])
    return {"cmd": "/bin/sh", "args": ["-c", script], "timeout_sec": 30}


def send_by_hand(d, sandbox, gateway, neighbour, answering):
    body = by_hand(d, sandbox, gateway, neighbour, answering)
    judge("guest_frames", d.expect(200, "POST", f"/v1/sandboxes/{sandbox}/exec", body, timeout=60).json())


@vm_only("root of a jail cannot send by hand: see `own` in t30_internet.c")
def test_t35_by_hand(d):
    """Root of a guest sends whatever it likes. What leaves its QEMU comes from the sandbox's own address and goes where the sandbox
    may go; without the rules of QEMU's jail the host's stand alone."""
    _a, b = pair(d)
    victim = online(d)
    mine, gateway = address_of(d, victim), guest_network(d, victim)[0]
    for rules in (True, False):
        if not rules:
            in_namespace(d, victim, "nft", "delete", "table", "inet", "aviary")
        tap = Tap(link_of(d, victim))
        send_by_hand(d, victim, gateway, address_of(d, b), PUBLIC)
        attack(d, victim, "reach", PUBLIC, 80)
        seen = tap.seen()
        equal({s[:2] for s in seen}, {(0x800, mine)}, "kinds of frames that came out, with their sources")
        targets = {s[2] for s in seen}
        ok(PUBLIC in targets and (not rules or targets <= {PUBLIC, "169.254.253.53"}), f"they went to {targets}")
        ok(rules or PRIVATE in targets, f"the attack does not get as far as the host's rules: {targets}")
    attack(d, b, "reach", PUBLIC, 80)
    d.delete(victim)


@vm_only("a jail's kernel puts pieces together by itself")
def test_t35_in_pieces(d):
    """libslirp 4.7 (Debian 12) may crash of pieces that come twice: a guest that sends them ends its own QEMU, is told so, and nothing
    comes out of it that may not."""
    _a, b = pair(d)
    victim = online(d)
    mine, gateway = address_of(d, victim), guest_network(d, victim)[0]
    body = by_hand(d, victim, gateway, address_of(d, b), "-", "--fragments")
    tap = Tap(link_of(d, victim))
    answer = d.request("POST", f"/v1/sandboxes/{victim}/exec", body, timeout=60)
    seen = tap.seen()
    ok({s[:2] for s in seen} <= {(0x800, mine)}, f"kinds of frames that came out, with their sources: {seen}")
    ok({s[2] for s in seen} <= {"169.254.253.53"}, f"they went to {seen}")
    if answer.status == 200:
        judge("guest_frames", answer.json())
        attack(d, victim, "reach", PUBLIC, 80)
    else:
        equal((answer.status, answer.code), (409, "invalid_state"), "the answer when QEMU crashed")
        contains(answer.message, "QEMU crashed", "the reason")
    attack(d, b, "reach", PUBLIC, 80)
    d.delete(victim)


@vm_only("a jail without internet access has no interface")
def test_off_and_root_inside(d):
    """The card of a guest without internet access leads nowhere, not even to the loopback of QEMU's jail."""
    sandbox = d.create()["id"]
    gateway, resolver, address, restricted = guest_network(d, sandbox)
    ok(restricted, "QEMU was told to let everything out")
    server = "import socket\ns = socket.create_server(('', 80))\nprint(flush=True)\nwhile True: s.accept()[0].send(b'x')"
    with subprocess.Popen(["nsenter", "-t", agent_pid(d, sandbox), "-n", sys.executable, "-c", server], stdout=subprocess.PIPE) as p:
        try:
            p.stdout.readline()
            in_namespace(d, sandbox, "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/80")
            up = d.exec(sandbox, f"ip link set eth0 up && ip address add {address}/27 dev eth0 && ip route add default via {gateway} && ip route")
            contains(up["stdout"], f"default via {gateway}", "root brings it up")
            hosts = [gateway, resolver, PUBLIC, PRIVATE, "169.254.169.254", "169.254.253.53", UPLINK]
            attack(d, sandbox, *[w for h in hosts for w in ("silent", h, 80, "udp", h, 53)], "ipv6")
            send_by_hand(d, sandbox, gateway, address_of(d, pair(d)[1]), "-")
        finally:
            p.kill()
    equal(d.exec(sandbox, "echo alive")["stdout"], "alive\n", "the machine")
    d.delete(sandbox)


@vm_only("a jail's loopback is its own")
def test_nothing_listens_around_a_guest(d):
    """libslirp turns its own address into the loopback of QEMU's jail: nobody must be there."""
    a, _b = pair(d)
    for name in ("tcp", "udp", "tcp6", "udp6"):
        with open(f"/proc/{agent_pid(d, a)}/net/{name}", encoding="ascii") as f:
            listening = [line for line in f.readlines()[1:] if line.split()[3] in ("0A", "07") and name.startswith("tcp")]
        equal(listening, [], f"sockets of {name} that listen")
    gateway, resolver, _address, _restricted = guest_network(d, a)
    ports = (22, 53, 67, 80, 111, 139, 445, d.port)
    attack(d, a, *[w for p in ports for w in ("refuse", gateway, p)], "refuse", resolver, 80, "udp", gateway, 69)


def test_t35_an_address_used_again(d):
    """What the host tracks of a dead sandbox goes with it."""
    a = online(d)
    theirs = address_of(d, a)
    attack(d, a, "flood", PUBLIC, 200)
    if not os.path.exists("/proc/net/nf_conntrack"):
        return
    ok(tracked(theirs) > 100, f"{tracked(theirs)} connections are tracked")
    d.delete(a)
    wait_for(lambda: tracked(theirs) == 0, 10, "no connection of a dead sandbox is tracked")


# ---- T36 ----


def tracked(address):
    with open("/proc/net/nf_conntrack", encoding="ascii") as f:
        return sum(f"src={address} " in line.split("[")[0] for line in f)


def test_t36_connections_of_one_sandbox(d):
    a, b = pair(d)
    victim = online(d)
    attack(d, victim, "flood", PUBLIC, 30000)
    if os.path.exists("/proc/net/nf_conntrack"):
        n = tracked(address_of(d, victim))
        print(f"# {n} connections")
        ok(200 < n <= 8193, f"{n} connections of a sandbox that sent to 30,000 ports")
    attack(d, b, "reach", PUBLIC, 80)
    attack(d, a, "reach", PUBLIC, 80)
    equal(d.exec(victim, "echo alive")["stdout"], "alive\n", "the one that did it")
    d.delete(victim)


# ---- what lives on, and what is left ----


def restart(d, role):
    before = d.pids()[role]
    os.kill(before, signal.SIGKILL)

    def again():
        try:
            return d.pids().get(role) not in (None, before) and d.request("GET", "/ready", key=False, timeout=5).status == 200
        except (OSError, http.client.HTTPException):
            return False
    wait_for(again, 30, f"a new {role}")


def test_restarts(d):
    a, _b = pair(d)
    for role in ("worker", "daemon"):
        restart(d, role)
        attack(d, a, "reach", PUBLIC, 80, "refuse", PRIVATE, 80)
        fresh = online(d)
        attack(d, fresh, "reach", PUBLIC, 80, "refuse", address_of(d, a), 80)
        d.delete(fresh)
    # A name server that the host has from now on.
    ok(tables_of(d), "the table is there")


def die_at(d, point):
    """The worker dies in the middle of a create: nothing of it is left, and the next one works."""
    d.env = {"AVIARY_FAILPOINT": f"{point}=kill@1"}
    d.start()
    r = d.request("POST", "/v1/sandboxes", {"internet": True}, timeout=30)
    ok(r.status >= 500, f"{point}: nobody died: {r.status}")

    def works():
        r = d.request("POST", "/v1/sandboxes", {"internet": True}, timeout=30)
        if r.status == 201:
            d.ids.add(r.json()["id"])
        return r.status == 201
    wait_for(works, 30, f"{point}: a create after it")
    d.delete_all()
    wait_for(lambda: not links_of(d), 10, f"{point}: no interface is left")
    d.stop()
    nothing_left(d)
    d.env = {}


def test_allowed_ranges_and_a_second_aviary(d):
    a, _b = pair(d)
    other = Daemon(args=["--allow-net", f"{PRIVATE},{UPLINK}", "--resolver", "10.99.77.99", "--net-pool", "10.213.0.0/16"])
    try:
        for point in () if IN_VM else ("create.veth", "create.net"):
            die_at(other, point)
        other.start()  # of jails in any case
        sandbox = online(other)
        attack(other, sandbox, "reach", PRIVATE, 80, "reach", PRIVATE, 25, "reach", PUBLIC, 80, "refuse", HOME, 80,
               "refuse", RESOLVER, 80, "silent", UPLINK, other.port, "refuse", address_of(d, a), 80)
        attack(d, a, "refuse", address_of(other, sandbox), 80, "refuse", PRIVATE, 80)
        ok(address_of(d, a) != address_of(other, sandbox), "one address twice")
        other.kill()
        subprocess.run([program("aviary-spawn"), "--cleanup", "--state", other.state, "--run", other.run], timeout=60, check=True)
        nothing_left(other)
        # The first is none the worse for it.
        attack(d, a, "reach", PUBLIC, 80)
    finally:
        other.sweep()
        other.remove_dir()


def test_the_operator_s_no(d):
    other = Daemon(args=["--internet", "no", *(["--default-isolation", "vm", "--vm-pool", "0"] if IN_VM else [])])
    try:
        other.start()
        if IN_VM:
            import_templates(other)
        r = other.request("POST", "/v1/sandboxes", {"internet": True})
        equal((r.status, r.code), (501, "unsupported"), "create with internet access")
        ok("internet = no" in r.message, f"the message names the cause: {r.message}")
        r = cli(other, "run", "--internet", "--", "true")
        ok(r.returncode == 125 and "internet = no" in r.stderr, f"run --internet: {r}")
        equal(tables_of(other), [], "tables")
    finally:
        other.sweep()
        other.remove_dir()


def test_a_world_without_route(d):
    """The uplink of the moment counts: what comes later is forwarded too."""
    a, _b = pair(d)
    path = f"/proc/sys/net/ipv4/conf/{NET.link}/forwarding"
    with open(path, encoding="ascii") as f:
        equal(f.read(), "1\n", "forwarding of the uplink")
    guard = run("nft", "list", "chain", "inet", f"aviary-{instance_tag(d)}", "forward")
    ok(f'iifname "{NET.link}" oifname != "avy*" drop' in guard, f"the uplink is guarded: {guard}")
    with open(path, "w", encoding="ascii") as f:
        f.write("0")
    online_again = online(d)
    wait_for(lambda: open(path, encoding="ascii").read() == "1\n", 15, "forwarding is on again")
    attack(d, a, "reach", PUBLIC, 80)
    d.delete(online_again)


def test_nothing_of_a_deleted_one(d):
    ids = [online(d) for _ in range(5)]
    links = set()
    for i in ids:
        with open(os.path.join(d.run, i, "net"), encoding="ascii") as f:
            links.add(f.read().split()[1])
    ok(len(links) == 5 and links < set(links_of(d)), f"interfaces: {links}")
    ok(all(any(link in line for line in run("ip", "route").splitlines()) for link in links), "each has its route")
    for i in ids:
        d.delete(i)
    wait_for(lambda: not links & set(links_of(d)), 10, "the interfaces are gone")
    routes = run("ip", "route")
    ok(not any(link in routes for link in links), f"routes are left: {routes}")


NET = fake_internet.make()
aviary_test.main(globals(), args=["--resolver", RESOLVER])
