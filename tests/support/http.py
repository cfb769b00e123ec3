"""What tests of http:// share: both ends as drivers, plain clients, and a sender that says what it likes."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import threading
import time

from simlink.channels.driver import Mode, ReceiverOptions, Settlement
from simlink.channels.http import HttpDriver
from simlink.channels.url import parse_url
from simlink.channels.wire.codec import HEAD, encode
from simlink.channels.wire.framing import read_frames
from simlink.message import Batch, Same, Verdict

LOCAL = "127.0.0.1"
PATIENCE = 20.0
QUICK = {"heartbeat": 0.05, "dead": 0.4, "orphan_after": 0.8}
JSON = {"content-type": "application/json"}
FRAMES = "application/vnd.simlink.frames"


def until(condition, what="it", tick=lambda: threading.Event().wait(0.002)):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE} s"
        tick()
    return found


def driver(port=0, *, name="orders", mode=Mode.QUEUE, **options):
    return HttpDriver(parse_url(f"http://{LOCAL}:{port}/{name}"), mode=mode, **options)


@contextlib.contextmanager
def receiving(d, subscription=None, **options):
    rx = d.receiver(subscription, ReceiverOptions(**{"prefetch": 100_000, **options}))
    rx.open(5.0)
    try:
        yield rx
    finally:
        rx.close(5.0)


@contextlib.contextmanager
def sending(d):
    tx = d.sender()
    try:
        tx.open(5.0)
        yield tx
    finally:
        tx.close(1.0)


def numbered(first, count, producer=b"p" * 16):
    return Batch(
        [b"%d" % i for i in range(first, first + count)],
        producers=Same(producer, count),
        sequences=range(first, first + count),
    )


def take(rx, count, *, settle=True, meanwhile=lambda: None):
    """``(body, attempt)`` of the next messages."""
    got = []

    def more():
        meanwhile()
        for incoming in rx.receive(count - len(got), 0.02):
            got.extend(zip(incoming.batch.bodies, incoming.attempts, strict=True))
            if settle:
                rx.settle([Settlement(incoming.lease, Verdict.ACK, incoming.tokens[0], incoming.tokens[-1])])
        return len(got) >= count

    until(more, f"receiving {count}")
    return got


def listen_for(tx, kind, count):
    """Every outcome until ``count`` messages had one of this kind."""
    seen = []

    def enough():
        seen.extend(tx.outcomes(0.05))
        return sum(o.stop - o.first for o in seen if o.kind is kind) >= count

    until(enough, f"{count} × {kind.value}")
    return seen


def ask(port, method, path, body=None, headers=None, *, connection=None):
    """``(status, headers, JSON or bytes)`` of one request."""
    own = connection or http.client.HTTPConnection(LOCAL, port, timeout=PATIENCE)
    try:
        own.request(method, path, body, headers or {})
        reply = own.getresponse()
        data = reply.read()
        return (
            reply.status,
            dict(reply.getheaders()),
            json.loads(data) if "json" in reply.headers["content-type"] else data,
        )
    finally:
        if connection is None:
            own.close()


def curl(*arguments, stdin=b""):
    """``(status, JSON)`` of a request by curl."""
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", *arguments],
        input=stdin,
        capture_output=True,
        check=True,
    )
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), json.loads(body)


class Stream:
    """A sender that says what it likes: a stream of settlements, and posts of frames."""

    def __init__(self, port, *, name="orders", sender=b"r" * 16, query="mode=queue"):
        self.port = port
        self.name = name
        self.connection = http.client.HTTPConnection(LOCAL, port, timeout=PATIENCE)
        self.connection.request("GET", f"/{name}/~settled?producer={sender.hex()}&{query}")
        self.reply = self.connection.getresponse()
        self.session = self.reply.headers.get("simlink-session", "")
        self.data = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.reply.close()
        self.connection.close()

    def hear(self, kind):
        """The next frame of this kind; None when the stream ends first."""
        while True:
            while len(self.data) >= 5 and len(self.data) >= (size := 4 + HEAD.unpack_from(self.data)[0]):
                (frame,) = read_frames(self.data[:size])
                self.data = self.data[size:]
                if isinstance(frame, kind):
                    return frame
            try:
                more = self.reply.read1(65536)
            except (http.client.IncompleteRead, ConnectionError):
                return None
            if not more:
                return None
            self.data += more

    def post(self, *frames, raw=None):
        body = b"".join(map(encode, frames)) if raw is None else raw
        status, _, said = ask(
            self.port, "POST", f"/{self.name}", body, {"content-type": FRAMES, "simlink-session": self.session}
        )
        return status, read_frames(said) if status == 202 else said


def free_port():
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def http_raw(port, data):
    """What the server says to these bytes until it closes."""
    with socket.create_connection((LOCAL, port), timeout=PATIENCE) as sock:
        sock.sendall(data)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while more := sock.recv(65536):
                said += more
        yield said
