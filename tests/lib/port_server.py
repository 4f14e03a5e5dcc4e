# SPDX-License-Identifier: Apache-2.0
"""port_server - a server for tests of the port proxy; runs inside a sandbox, standard library only

usage: port_server.py PORT

Reads requests as bytes and answers by path, well-formed or not as the path says. One thread for each
connection. A path it does not know is answered with what was received, so that a test sees each byte
that came through the proxy.
"""

import base64
import hashlib
import socket
import struct
import sys
import threading
import time

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Peer:
    def __init__(self, sock):
        self.sock, self.buffer = sock, b""

    def fill(self):
        part = self.sock.recv(65536)
        if not part:
            raise EOFError
        self.buffer += part

    def line(self):
        while b"\r\n" not in self.buffer:
            self.fill()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def take(self, n):
        while len(self.buffer) < n:
            self.fill()
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def head(self):
        lines = [self.line()]
        while lines[-1]:
            lines.append(self.line())
        return lines[:-1]


def field(head, name):
    for line in head[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return b""


def body_pieces(peer, head):
    if field(head, b"transfer-encoding") == b"chunked":
        while True:
            n = int(peer.line(), 16)
            if n == 0:
                peer.head()
                return
            while n:
                if not peer.buffer:
                    peer.fill()
                part = peer.take(min(n, len(peer.buffer)))
                n -= len(part)
                yield part
            peer.line()
    left = int(field(head, b"content-length") or b"0")
    while left:
        if not peer.buffer:
            peer.fill()
        part = peer.take(min(left, len(peer.buffer)))
        left -= len(part)
        yield part


def answer(sock, body, headers=b"", status=b"200 OK"):
    sock.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n" % len(body) + headers + b"\r\n" + body)


def websocket(peer, head):
    accept = base64.b64encode(hashlib.sha1(field(head, b"sec-websocket-key") + GUID).digest())
    peer.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    while True:
        first, second = peer.take(2)
        n = second & 127
        if n == 126:
            n = struct.unpack(">H", peer.take(2))[0]
        elif n == 127:
            n = struct.unpack(">Q", peer.take(8))[0]
        mask = peer.take(4)
        data = peer.take(n)
        key = (mask * (n // 4 + 1))[:n]
        data = (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(n, "big")
        size = bytes([n]) if n < 126 else b"\x7e" + struct.pack(">H", n) if n < 65536 else b"\x7f" + struct.pack(">Q", n)
        peer.sock.sendall(bytes([first]) + size + data)
        if first & 15 == 8:
            return


PAGE = b"""<!doctype html><title>loading</title><script>
const ws = new WebSocket("ws://" + location.host + "/ws");
ws.onopen = () => ws.send("hello through the proxy");
ws.onmessage = async (m) => {
  const r = await fetch("/data", {method: "POST", body: "posted"});
  document.title = "ws:" + m.data + " fetch:" + await r.text() + " cookie:" + document.cookie + ".";
};
ws.onerror = () => { document.title = "ws failed"; };
</script><p id=p>a page from a sandbox</p>"""


def serve_big(sock, head):
    n = int(field(head, b"x-size"))
    block = bytes(range(256)) * 1024
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n)
    while n > 0:
        sock.sendall(block[:min(n, len(block))])
        n -= len(block)


def serve_ticks(sock):
    sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
    for i in range(5):
        sock.sendall(b"5\r\ntick" + b"%d" % i + b"\r\n")
        time.sleep(0.1)
    sock.sendall(b"0\r\nX-Sum: five\r\nSet-Cookie: late=1\r\n\r\n")


HOSTILE = {
    b"/bad/cl-te": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"/bad/two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"/bad/fold": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n X-B: 2\r\nContent-Length: 0\r\n\r\n",
    b"/bad/lf": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    b"/bad/nul": b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 0\r\n\r\n",
    b"/bad/version": b"HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"/bad/status": b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
    b"/bad/ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    b"/bad/empty": b"",
    b"/bad/half-head": b"HTTP/1.1 200 OK\r\nContent-Le",
    b"/bad/101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil\r\nConnection: Upgrade\r\n\r\n",
    b"/bad/huge-head": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 4000) for i in range(40)) + b"\r\n",
    b"/bad/many-headers": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: a\r\n" % i for i in range(2000)) + b"\r\n",
    b"/bad/chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    # Two answers to one request: the second must reach nobody.
    b"/bad/two-answers": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst" b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond",
    b"/bad/short": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nfirst",
}

FIXED = {
    b"/cookies": b"Set-Cookie: a=1; Domain=localhost; Path=/\r\nSet-Cookie: aviary_port=forged\r\n"
                 b"Set-Cookie: __Host-aviary_port=forged; Secure\r\nSet-Cookie: =aviary_port=forged\r\n"
                 b"Set-Cookie: b=2; HttpOnly\r\nClear-Site-Data: \"*\"\r\nAlt-Svc: h2=\":1\"\r\n"
                 b"Connection: X-Hop\r\nX-Hop: secret\r\nServer: mine\r\nDate: today\r\n",
}


def serve(sock, port):
    peer = Peer(sock)
    head = peer.head()
    path = head[0].split(b" ")[1].split(b"?")[0]
    if path == b"/ws":
        websocket(peer, head)
    elif path == b"/page":
        answer(sock, PAGE, b"Content-Type: text/html\r\nSet-Cookie: seen=yes\r\n")
    elif path == b"/data":
        answer(sock, b"got " + b"".join(body_pieces(peer, head)))
    elif path == b"/big":
        serve_big(sock, head)
    elif path == b"/ticks":
        serve_ticks(sock)
    elif path == b"/sink":
        total = sum(len(p) for p in body_pieces(peer, head))
        answer(sock, b"%d" % total)
    elif path == b"/early":
        answer(sock, b"no thanks", status=b"413 Too Large")
    elif path == b"/rude":
        peer.take(100000)
        answer(sock, b"enough", status=b"413 Too Large")
        sock.close()  # with bytes unread: the other side gets a reset behind the answer
    elif path == b"/slow-sink":
        time.sleep(3600)
    elif path == b"/hints":
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        answer(sock, b"after hints")
    elif path == b"/raw":
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: raw\r\nConnection: Upgrade\r\n\r\nwelcome\n")
        while True:
            peer.fill()
            sock.sendall(peer.buffer[::-1])
            peer.buffer = b""
    elif path == b"/close":
        sock.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end")
    elif path == b"/redirect":
        to = field(head, b"x-to") or b"http://localhost:%d/landed?x=1" % port
        answer(sock, b"", b"Location: " + to + b"\r\n", b"302 Found")
    elif path == b"/304":
        sock.sendall(b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 77\r\n\r\n")
    elif path in FIXED:
        answer(sock, b"ok", FIXED[path])
    elif path in HOSTILE:
        sock.sendall(HOSTILE[path])
    else:
        body = b"".join(body_pieces(peer, head))
        answer(sock, b"" if head[0].startswith(b"HEAD") else b"\r\n".join(head) + b"\r\n\r\n" + body,
               b"Content-Type: text/plain\r\n")


def connection(sock, port):
    try:
        with sock:
            serve(sock, port)
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(2)
            while sock.recv(65536):
                pass
    except (EOFError, OSError, ValueError, IndexError):
        pass


def main():
    port = int(sys.argv[1])
    with socket.create_server(("127.0.0.1", port), backlog=256) as listener:
        print("ready", flush=True)
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=connection, args=(sock, port), daemon=True).start()


main()
