"""A peer of tcp:// that says what it likes."""

from __future__ import annotations

import socket

from simlink.channels.driver import Mode
from simlink.channels.wire.codec import encode
from simlink.channels.wire.frames import Hello, Welcome
from simlink.channels.wire.framing import FrameReader
from tests.support.brokerless import LOCAL, PATIENCE


class Raw:
    """A connection by hand."""

    code = None  # a connection ends without one

    def __init__(self, port):
        self.sock = socket.create_connection((LOCAL, port), timeout=PATIENCE)
        self.reader = FrameReader()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def say(self, *frames):
        """Frames, or bytes as they are."""
        self.sock.sendall(b"".join(frame if isinstance(frame, bytes) else encode(frame) for frame in frames))

    def hear(self, kind):
        """The next frame of this kind; None when the other side closes first."""
        while True:
            while (frame := self.reader.next_frame()) is not None:
                if isinstance(frame, kind):
                    return frame
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.reader.feed(data)

    def hello(self, **changes):
        self.say(Hello(**{"sender": b"r" * 16, "destination": "orders", "mode": Mode.QUEUE, **changes}))
        return self.hear(Welcome)
