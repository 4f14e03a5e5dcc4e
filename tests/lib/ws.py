# SPDX-License-Identifier: Apache-2.0
"""ws - a small WebSocket client (RFC 6455) for tests: blocking, standard library only

Sends exactly what it is told to, also wrong things (send_raw), and answers pings by itself.
"""

import base64
import hashlib
import json
import os
import socket
import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class HandshakeError(Exception):
    """The server answered something else than 101; status, headers and body tell what."""

    def __init__(self, status, headers, body):
        super().__init__(f"handshake answered {status}: {body[:200]!r}")
        self.status, self.headers, self.body = status, headers, body


class WebSocket:
    def __init__(self, host, port, path, headers=None, protocols=(), timeout=30, rcvbuf=None,
                 authority=None, tls=None, server_name=None):
        """authority: what Host says, when it is not where to connect; tls: an ssl.SSLContext, with server_name
        as the name to ask for and to check."""
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(timeout)
        self.sock.connect((host, port))
        if tls:
            self.sock = tls.wrap_socket(self.sock, server_hostname=server_name or host)
        self.buffer = b""
        self.close_code = None
        self.subprotocol = None
        try:
            self._handshake(authority or f"{host}:{port}", path, headers or {}, protocols)
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.abort()

    def _handshake(self, authority, path, headers, protocols):
        key = base64.b64encode(os.urandom(16))
        lines = [f"GET {path} HTTP/1.1", f"Host: {authority}", "Upgrade: websocket",
                 "Connection: Upgrade", f"Sec-WebSocket-Key: {key.decode()}",
                 "Sec-WebSocket-Version: 13"]
        if protocols:
            lines.append("Sec-WebSocket-Protocol: " + ", ".join(protocols))
        lines += [f"{k}: {v}" for k, v in headers.items()]
        self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while b"\r\n\r\n" not in self.buffer:
            self._fill()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        status, *fields = head.decode("latin-1").split("\r\n")
        got = {}
        for field in fields:
            name, _, value = field.partition(":")
            got[name.strip().lower()] = value.strip()
        code = int(status.split()[1])
        if code != 101:
            length = int(got.get("content-length", 0))
            while len(self.buffer) < length:
                self._fill()
            raise HandshakeError(code, got, self.buffer[:length])
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        if got.get("sec-websocket-accept") != accept:
            raise HandshakeError(code, got, b"wrong Sec-WebSocket-Accept")
        self.subprotocol = got.get("sec-websocket-protocol")

    def _fill(self):
        part = self.sock.recv(262144)
        if not part:
            raise ConnectionError("the server closed the connection")
        self.buffer += part

    def _take(self, n):
        while len(self.buffer) < n:
            self._fill()
        part, self.buffer = self.buffer[:n], self.buffer[n:]
        return part

    def send(self, opcode, payload, fin=True):
        mask = os.urandom(4)
        head = bytes([(0x80 if fin else 0) | opcode])
        n = len(payload)
        if n < 126:
            head += bytes([0x80 | n])
        elif n < 65536:
            head += bytes([0x80 | 126]) + struct.pack(">H", n)
        else:
            head += bytes([0x80 | 127]) + struct.pack(">Q", n)
        pad = (mask * (n // 4 + 1))[:n]
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(n, "big")
        self.sock.sendall(head + mask + masked)

    def send_raw(self, data):
        self.sock.sendall(data)

    def send_json(self, value):
        self.send(TEXT, json.dumps(value).encode())

    def send_text(self, text):
        self.send(TEXT, text.encode())

    def send_binary(self, data):
        self.send(BINARY, data)

    def _frame(self):
        first, second = self._take(2)
        if second & 0x80:
            raise ConnectionError("the server sent a masked frame")
        n = second & 0x7F
        if n == 126:
            (n,) = struct.unpack(">H", self._take(2))
        elif n == 127:
            (n,) = struct.unpack(">Q", self._take(8))
        return bool(first & 0x80), first & 0x0F, self._take(n)

    def recv(self):
        """(opcode, payload) of the next whole message, or None after a close frame."""
        opcode, parts = None, []
        while True:
            fin, code, payload = self._frame()
            if code == PING:
                self.send(PONG, payload)
                continue
            if code == PONG:
                continue
            if code == CLOSE:
                self.close_code = struct.unpack(">H", payload[:2])[0] if payload else 1005
                try:
                    self.send(CLOSE, payload[:2])
                except OSError:
                    pass
                return None
            if code != CONTINUATION:
                opcode = code
            parts.append(payload)
            if fin:
                return opcode, b"".join(parts)

    def recv_json(self):
        """The next text message as a value, or None after a close frame."""
        message = self.recv()
        return None if message is None else json.loads(message[1])

    def close(self, code=1000):
        """The polite way: close frame, then everything up to the server's."""
        self.send(CLOSE, struct.pack(">H", code))
        while self.recv() is not None:
            pass
        self.sock.close()

    def abort(self):
        """As if the client's machine had vanished, as far as a socket can."""
        self.sock.close()


# -- agent frames (subprotocol aviary-frames.v1) ------------------------------------------------

CONTROL, STDIN, STDOUT, STDERR, PTY = 0, 1, 2, 3, 4


def frame(channel, payload):
    if isinstance(payload, dict):
        payload = json.dumps(payload).encode()
    return struct.pack(">IB", len(payload), channel) + payload


def frames(data):
    """Splits one binary message into (channel, payload); it must hold whole frames."""
    out, at = [], 0
    while at < len(data):
        if at + 5 > len(data):
            raise ValueError(f"cut frame header at byte {at} of {len(data)}")
        n, channel = struct.unpack_from(">IB", data, at)
        if at + 5 + n > len(data):
            raise ValueError(f"cut frame at byte {at} of {len(data)}")
        out.append((channel, data[at + 5:at + 5 + n]))
        at += 5 + n
    return out
