"""Slow peers by the hundred, as a program of its own: it drips, or says nothing, and tells when it was cut off.

    python tests/support/crowd.py TRANSPORT PORT COUNT SECONDS

COUNT connections of each kind: ``head`` drips what introduces a peer (an HTTP head, a Hello, the preface of HTTP/2),
``body`` introduces itself well and drips a frame or a body, ``silent`` says nothing. The first line says that all are
connected; after SECONDS at most the last line is JSON, kind → [how many were closed, the slowest in seconds since its
first byte was due]. Needs nothing but Python.
"""

from __future__ import annotations

import contextlib
import json
import resource
import selectors
import socket
import struct
import sys
import time

LOCAL = "127.0.0.1"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, HEADERS, DATA = 4, 6, 1, 0
DRIP = 0.25
"""Seconds between two bytes of a peer."""


def h2(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def hpack(*fields: tuple[str, str]) -> bytes:
    """Headers as literals without indexing (RFC 7541, 6.2.2), each shorter than 127 bytes."""
    out = b""
    for name, value in fields:
        out += b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return out


def call(method: str) -> bytes:
    """The headers of a gRPC call on stream 1."""
    path = f"/simlink.v1.Receiver/{method}"
    fields = hpack(
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    return h2(HEADERS, 4, 1, fields)


def tcp_hello(sender: bytes, name: bytes = b"orders") -> bytes:
    """A Hello by hand: field 1 of Frame; sender, destination, mode queue, heartbeat 100 ms."""
    hello = b"\x0a\x10" + sender + b"\x12" + bytes([len(name)]) + name + b"\x18\x01" + b"\x40\x64"
    frame = b"\x0a" + bytes([len(hello)]) + hello
    return struct.pack(">IB", len(frame) + 1, 1) + frame


def script(transport: str, kind: str, number: int) -> tuple[bytes, bytes]:
    """What a peer says at once, and what it drips, over and over at its end."""
    if kind == "silent":
        return b"", b""
    if transport == "http":
        if kind == "head":
            return b"", b"POST /orders HTTP/1.1\r\nHost: x\r\nX-Drip: " + b"a" * 10_000
        return (
            b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n",
            b"1" * 10_000,
        )
    if transport == "tcp":
        hello = tcp_hello(number.to_bytes(16, "big"))
        if kind == "head":
            return b"", hello[:-1]
        return hello, struct.pack(">IB", 100_000, 1) + b"\0" * 10_000
    if kind == "head":
        # Half of them get as far as the headers of a call.
        if number % 2:
            return b"", PREFACE[:-1]
        return PREFACE + h2(SETTINGS, 0, 0, b""), h2(HEADERS, 4, 1, b"\0" * 5_000)
    method = ("Link", "Publish")[number % 2]
    begun = PREFACE + h2(SETTINGS, 0, 0, b"") + call(method) + h2(DATA, 0, 1, struct.pack(">BI", 0, 100_000))
    drip = h2(DATA, 0, 1, b"\0") * 1_000
    return begun, drip


class Peer:
    def __init__(self, transport: str, kind: str, number: int, port: int) -> None:
        self.kind = kind
        self.http2 = transport == "grpc" and kind != "silent"
        self.first, self.drip = script(transport, kind, number)
        self.sock = socket.create_connection((LOCAL, port), timeout=20.0)
        self.sock.setblocking(False)
        self.since = time.monotonic()
        self.closed: float | None = None
        self.heard = b""

    def begin(self) -> None:
        self.since = time.monotonic()
        self.send(self.first)

    def send(self, data: bytes) -> None:
        # A full buffer, or a peer that has gone: both show when reading.
        with contextlib.suppress(OSError):
            self.sock.send(data)

    def trickle(self) -> None:
        # A whole frame of HTTP/2 a time where those are dripped, so that answers may stand between two of them.
        step = 10 if self.http2 and self.kind == "body" else 1
        self.send(self.drip[:step])
        self.drip = self.drip[step:]

    def hear(self) -> bool:
        """Read what is there; False when the connection was closed."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if self.http2:
            self.answer(data)
        return bool(data)

    def answer(self, data: bytes) -> None:
        """Acknowledge settings and pings, as a peer does that wants to stay."""
        self.heard += data
        while len(self.heard) >= 9:
            size = int.from_bytes(self.heard[:3], "big")
            if len(self.heard) < 9 + size:
                return
            kind, flags, payload = self.heard[3], self.heard[4], self.heard[9 : 9 + size]
            self.heard = self.heard[9 + size :]
            if kind in {SETTINGS, PING} and not flags & 1 and self.kind == "body":
                self.send(h2(kind, 1, 0, payload if kind == PING else b""))


def crowd(transport: str, port: int, count: int, seconds: float) -> dict[str, list[float]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    kinds = ("head", "body", "silent")
    peers = [Peer(transport, kind, n * 4 + i, port) for n in range(count) for i, kind in enumerate(kinds)]
    for number, peer in enumerate(peers):
        if transport == "grpc":
            peer.first, peer.drip = script(transport, peer.kind, number // 3)
    selector = selectors.DefaultSelector()
    for peer in peers:
        selector.register(peer.sock, selectors.EVENT_READ, peer)
        peer.begin()
    print("ready", flush=True)
    deadline = time.monotonic() + seconds
    due = time.monotonic()
    left = set(peers)
    while left and (now := time.monotonic()) < deadline:
        if now >= due:
            due = now + DRIP
            for peer in left:
                if peer.drip:
                    peer.trickle()
        for key, _ in selector.select(max(0.0, due - time.monotonic())):
            peer = key.data
            if not peer.hear():
                peer.closed = time.monotonic() - peer.since
                selector.unregister(peer.sock)
                peer.sock.close()
                left.discard(peer)
    for peer in left:
        peer.sock.close()
    out: dict[str, list[float]] = {}
    for kind in kinds:
        closed = [p.closed for p in peers if p.kind == kind and p.closed is not None]
        out[kind] = [len(closed), round(max(closed, default=0.0), 3)]
    return out


if __name__ == "__main__":
    print(json.dumps(crowd(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))), flush=True)
