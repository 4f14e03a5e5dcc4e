# SPDX-License-Identifier: Apache-2.0
"""guest_frames.py - what root of a virtual machine sends by hand: T30, T35. Runs inside.

    guest_frames.py [--fragments] GATEWAY NEIGHBOUR OPEN REFUSED...

Frames with the addresses of others, to whom nobody may talk, in every protocol that could lead out of libslirp
on another way than a socket's. Whoever is refused must not answer, but for being told so (a reset, ICMP); OPEN must, unless
it is "-": that shows that the frames are taken. What leaves the machine is judged outside. With --fragments it sends packets in pieces
instead, each piece twice, which libslirp 4.7 may crash of.
"""
import fcntl
import socket
import struct
import sys
import time

IN_PIECES = sys.argv[1] == "--fragments"
GATEWAY, NEIGHBOUR, OPEN, *REFUSED = sys.argv[2 if IN_PIECES else 1:]
TCP, UDP, ICMP = 6, 17, 1
OTHER_PROTOCOLS = (2, 4, 41, 47, 50, 89, 103, 112, 132, 255)  # IGMP, tunnels, ESP, routers' own, SCTP, raw
with open("/sys/class/net/eth0/address", encoding="ascii") as f:
    MAC = bytes.fromhex(f.read().strip().replace(":", ""))
ROUTER = b"\x52\x55" + socket.inet_aton(GATEWAY)
count = {"checks": 0}


def check(good, what):
    count["checks"] += 1
    print(f"{'ok' if good else 'not ok'} {count['checks']} - {what}")


def checksum(data):
    data += b"\0" * (len(data) % 2)
    n = sum(struct.unpack(f"!{len(data) // 2}H", data))
    n = (n >> 16) + (n & 0xffff)
    return ~(n + (n >> 16)) & 0xffff


def ip(source, target, protocol, payload, options=b"", fragment=0, length=None):
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH4s4s", 0x40 | words, 0, length or words * 4 + len(payload), 7, fragment, 64, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(target)) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def transport(source, target, protocol, sport, dport):
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    if protocol == UDP:
        return struct.pack("!HHHH", sport, dport, 9, 0) + b"?"
    if protocol == TCP:
        syn = struct.pack("!HHIIHHHH", sport, dport, 1, 0, 0x5002, 65535, 0, 0)
        return syn[:16] + struct.pack("!H", checksum(ends + struct.pack("!HH", TCP, len(syn)) + syn)) + syn[18:]
    echo = struct.pack("!BBHHH", 8, 0, 0, sport, 1)
    return echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]


def packets(source, target):
    for n, protocol in enumerate((UDP, TCP, ICMP)):
        yield ip(source, target, protocol, transport(source, target, protocol, 40000 + n, 80))
    yield ip(source, target, UDP, transport(source, target, UDP, 40010, 53))


def odd_packets(source, target):
    for protocol in OTHER_PROTOCOLS:
        yield ip(source, target, protocol, b"\x45" + bytes(31))
    whole = transport(source, target, UDP, 40020, 53)
    hop = socket.inet_aton(target)
    for option in (131, 137):  # loose and strict source routes, through PUBLIC's place
        yield ip(source, REFUSED[0], UDP, whole, options=bytes((option, 7, 4)) + hop + b"\0")
    yield ip(source, target, UDP, whole, length=1400)
    yield ip(source, target, UDP, whole, options=bytes(40))[:34]
    yield b""
    yield b"\x4f"


def pieces(source, target):
    whole = transport(source, target, UDP, 40020, 53)
    yield ip(source, target, UDP, whole[:8], fragment=0x2000)
    yield ip(source, target, UDP, whole[8:], fragment=1)


def arp(address):
    return b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 2) + (MAC + socket.inet_aton(address)) * 2


def others():
    for address in (NEIGHBOUR, GATEWAY, "169.254.253.1", "169.254.253.53", *REFUSED):
        yield arp(address)
    within = ip(NEIGHBOUR, REFUSED[0], UDP, transport(NEIGHBOUR, REFUSED[0], UDP, 40030, 53))
    yield b"\x81\0\0\x05\x08\0" + within  # VLAN 5
    v6 = struct.pack("!IHBB", 0x60000000, 9, UDP, 64)
    for target in ("fe80::2", "ff02::1", "fd00:ec2::254", "2606:4700::1111", "::ffff:169.254.169.254"):
        yield b"\x86\xdd" + v6 + socket.inet_pton(socket.AF_INET6, "fe80::1") + \
            socket.inet_pton(socket.AF_INET6, target) + transport(NEIGHBOUR, NEIGHBOUR, UDP, 40040, 53)
    for kind in (0x8863, 0x88cc, 0x888e, 0x0842, 0x8847):  # PPPoE, LLDP, 802.1X, wake-on-LAN, MPLS
        yield struct.pack("!H", kind) + bytes(46)


def own_address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        return socket.inet_ntoa(fcntl.ioctl(s, 0x8915, b"eth0".ljust(40, b"\0"))[20:24])  # SIOCGIFADDR


def frames():
    sources = (NEIGHBOUR, "8.8.8.8", "127.0.0.1", "255.255.255.255", REFUSED[0], "0.0.0.0")
    own = own_address()
    if IN_PIECES:
        yield from (b"\x08\0" + packet for target in REFUSED for source in (own, *sources) for packet in pieces(source, target))
        return
    if OPEN != "-":
        yield from (b"\x08\0" + packet for packet in packets(own, OPEN))
    for source in (own, *sources):
        for target in REFUSED:
            for packet in packets(source, target):
                yield b"\x08\0" + packet
    for source in (own, NEIGHBOUR):
        for packet in odd_packets(source, REFUSED[0]):
            yield b"\x08\0" + packet
    yield from others()


def refusal(packet):
    """A reset, or ICMP's word that it is unreachable."""
    head = (packet[0] & 15) * 4
    return packet[9] == TCP and packet[head + 13] & 4 or packet[9] == ICMP and packet[head] == 3


def answers(s, seconds):
    found, end = set(), time.monotonic() + seconds
    while True:
        s.settimeout(max(0.01, end - time.monotonic()))
        try:
            frame, (_name, _protocol, kind, *_rest) = s.recvfrom(2048)
        except TimeoutError:
            return found
        if kind != socket.PACKET_OUTGOING and frame[12:14] == b"\x08\0" and len(frame) >= 34:
            source = socket.inet_ntoa(frame[26:30])
            if source in (OPEN, *REFUSED) and not refusal(frame[14:]):
                found.add(source)


def main():
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    s.bind(("eth0", 0))
    sent = 0
    for frame in frames():
        for target, source in ((ROUTER, MAC), (b"\xff" * 6, b"\x02\x61\x76\x69\x61\x72")):
            try:
                sent += s.send(target + source + frame) > 0
            except OSError:  # one that no driver takes
                pass
    check(sent > 200, f"{sent} frames were sent")
    found = answers(s, 1)
    check(found == {OPEN} - {"-"}, f"answers come from {sorted(found)} only")
    print(f"1..{count['checks']}")


main()
