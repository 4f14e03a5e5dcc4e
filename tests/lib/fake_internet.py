# SPDX-License-Identifier: Apache-2.0
"""An internet for tests: a network namespace behind a veth pair, with a public-looking address, private networks
and a name server. The machine's own interfaces are not touched and nothing leaves the machine."""
import atexit
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile

from aviary_test import Failure, equal

PUBLIC, UPLINK = "198.51.100.66", "198.51.100.65"  # of TEST-NET-2: nobody has them
GATEWAY = "198.51.100.67"
PRIVATE, RESOLVER = "10.99.77.5", "10.99.77.53"
CGNAT, HOME = "100.127.77.5", "192.168.250.5"
SERVER = """
import ctypes, http.server, socket, socketserver, struct, threading
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: ends with the test
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(self.client_address[0].encode() + b"\\n")
    def log_message(self, *a): pass
class S(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128
def names():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("%s", 53))
    while True:
        q, who = s.recvfrom(512)
        a = struct.pack("!HHHIH", 0xc00c, 1, 1, 60, 4) + socket.inet_aton("%s")
        end = q.index(b"\\0", 12) + 5
        is_a = q[end - 4:end - 2] == b"\\0\\1"
        s.sendto(q[:2] + struct.pack("!HHHHH", 0x8180, 1, int(is_a), 0, 0) + q[12:end] + (a if is_a else b""), who)
threading.Thread(target=names, daemon=True).start()
threading.Thread(target=S(("0.0.0.0", 25), H).serve_forever, daemon=True).start()
server = S(("0.0.0.0", 80), H)
print("ready", flush=True)
server.serve_forever()
""" % (RESOLVER, PUBLIC)


def run(*words, check=True):
    r = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    if check and r.returncode:
        raise Failure(f"{' '.join(words)}: {r.stderr.strip()}")
    return r.stdout


class Internet:
    """A namespace behind a veth pair; remove() also after half of it was made."""

    def __init__(self):
        self.name, self.link = f"avtest-{os.getpid()}", f"avt{os.getpid() % 100000}"
        self.server = None

    def make(self):
        inside = ("ip", "netns", "exec", self.name)
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "wan", "netns", self.name)
        run("ip", "address", "add", UPLINK + "/28", "dev", self.link)
        run("ip", "link", "set", self.link, "up")
        run(*inside, "ip", "link", "set", "lo", "up")
        run(*inside, "ip", "link", "set", "wan", "up")
        run(*inside, "ip", "address", "add", PUBLIC + "/28", "dev", "wan")
        run(*inside, "ip", "route", "add", "default", "via", UPLINK)
        run(*inside, "ip", "address", "add", GATEWAY + "/28", "dev", "wan")
        for address in (PRIVATE, RESOLVER, CGNAT, HOME):
            run(*inside, "ip", "address", "add", address + "/32", "dev", "wan")
            run("ip", "route", "add", address + "/32", "via", GATEWAY)
        self.server = subprocess.Popen([*inside, sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
        equal(self.server.stdout.readline(), b"ready\n", "the server of the test")

    def inside(self, *words, check=True):
        return run("ip", "netns", "exec", self.name, *words, check=check)

    def remove(self):
        if self.server:
            self.server.kill()
            self.server.wait()
            self.server = None
        run("ip", "link", "delete", self.link, check=False)
        run("ip", "netns", "delete", self.name, check=False)


def skip(reason):
    print(f"1..0 # SKIP {reason}")
    sys.exit(0)


def remove_stale():
    """Of a test that was killed; under the lock there is no other."""
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else ():
        if name.startswith("avtest-"):
            run("ip", "link", "delete", f"avt{int(name[7:]) % 100000}", check=False)
            run("ip", "netns", "delete", name, check=False)


def make():
    """The internet of a test that needs one; it goes with the process. Ends a test that cannot have one."""
    if os.geteuid() != 0:
        skip("needs root")
    for name in ("ip", "nft", "nsenter"):
        if not shutil.which(name):
            skip(f"needs {name}(8)")
    # Its addresses are this machine's: one test at a time, and no open descriptor for children.
    lock = os.open(os.path.join(tempfile.gettempdir(), "aviary-fake-internet.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    remove_stale()
    net = Internet()
    atexit.register(net.remove)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        net.make()
    except Failure as error:
        skip(f"no namespaces of the network here: {error}")
    return net
