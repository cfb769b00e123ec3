"""What tests of http:// share: plain clients, and a sender that says what it likes."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
from collections import deque
from urllib.parse import urlencode

from simlink.channels.wire.codec import encode
from simlink.channels.wire.frames import Welcome
from simlink.channels.wire.framing import FrameReader, read_frames
from tests.support.brokerless import LOCAL, PATIENCE

JSON = {"content-type": "application/json"}
FRAMES = "application/vnd.simlink.frames"


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


class Raw:
    """A sender by hand: a stream of settlements, and posts of frames."""

    def __init__(self, port):
        self.port = port
        self.connection = http.client.HTTPConnection(LOCAL, port, timeout=PATIENCE)
        self.reply = None
        self.session = ""
        self.reader = FrameReader()
        self.answers = deque()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.reply is not None:
            self.reply.close()
        self.connection.close()

    def ask(self, query):
        """For the stream."""
        self.connection.request("GET", f"/orders/~settled?{query}")
        self.reply = self.connection.getresponse()
        self.session = self.reply.headers.get("simlink-session", "")

    def hello(self, *, sender=b"r" * 16, incarnation=b"", **changes):
        self.ask(urlencode({"producer": sender.hex(), "incarnation": incarnation.hex(), "mode": "queue", **changes}))
        return self.hear(Welcome)

    def hear(self, kind):
        """The next frame of this kind, of a reply or the stream; None when the stream ends first."""
        while True:
            while self.answers:
                frame = self.answers.popleft()
                if isinstance(frame, kind):
                    return frame
            try:
                more = self.reply.read1(65536)
            except (http.client.IncompleteRead, ConnectionError):
                return None
            if not more:
                return None
            self.reader.feed(more)
            while (frame := self.reader.next_frame()) is not None:
                self.answers.append(frame)

    def post(self, *frames):
        """``(status, frames or problem)`` of a post of frames, or of bytes as they are."""
        body = b"".join(frame if isinstance(frame, bytes) else encode(frame) for frame in frames)
        status, _, said = ask(
            self.port, "POST", "/orders", body, {"content-type": FRAMES, "simlink-session": self.session}
        )
        return status, read_frames(said) if status == 202 else said

    def say(self, *frames):
        """The same, as one who hears of it by `hear`."""
        status, said = self.post(*frames)
        if status == 202:
            self.answers.extend(said)


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
