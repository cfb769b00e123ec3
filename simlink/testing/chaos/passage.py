"""One connection through the proxy: two sockets, and the bytes on their way in each direction.

No clock and no thread of its own: the proxy's loop says what time it is, and when a socket is ready.
"""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["Direction", "Passage", "Pipe", "Shape"]

Direction = Literal["up", "down"]
"""``up`` is from the client to the server, ``down`` the way back."""

LIMIT: Final = 256 * 1024
"""Bytes that wait in the proxy in one direction of one connection; then it reads no more."""
READ: Final = 64 * 1024
PIECES: Final = 512
"""Pieces written in one go, so that a sliced connection does not keep the others waiting."""
SLICE_OF_TIME: Final = 0.01
"""Seconds' worth of bytes that a throttled direction passes at once."""


@dataclass
class Shape:
    """How bytes pass at present; the same for all connections.

    Attributes:
        pieces: the shortest and the longest piece, or None for as it comes.
        rate: bytes a second, each way of each connection; None for no limit.
        stalled_until: nothing passes before this time.
        silent: new connections lead nowhere.
        every: of the replies, this one is lost; 0 for none.
        cuts: how many connections are still to be cut in each direction.
        counts: what happened so far.
    """

    rng: random.Random
    pieces: tuple[int, int] | None = None
    rate: float | None = None
    stalled_until: float = 0.0
    silent: bool = False
    every: int = 0
    replies: int = 0
    cuts: dict[Direction, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    counts: Counter[str] = field(default_factory=Counter)


class Pipe:
    """The bytes on their way in one direction."""

    __slots__ = ("blocked", "direction", "ended", "not_before", "severed", "shut", "waiting")

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.waiting = bytearray()
        self.ended = False
        """The source has closed its half."""
        self.shut = False
        """The sink was told so."""
        self.severed = False
        """What waits is the last that passes: the connection was cut behind it."""
        self.blocked = False
        """The sink takes nothing now."""
        self.not_before = 0.0

    def push(self, sink: socket.socket, shape: Shape, now: float) -> int:
        """Write what may be written; how many bytes that were. Raises OSError when the sink is gone."""
        self.blocked = False
        total = 0
        for _ in range(PIECES):
            if not self.waiting or now < self.not_before:
                break
            size = len(self.waiting)
            if shape.pieces is not None:
                size = min(size, shape.rng.randint(*shape.pieces))
            if shape.rate is not None:
                size = min(size, max(1, int(shape.rate * SLICE_OF_TIME)))
            try:
                with memoryview(self.waiting) as view:
                    count = sink.send(view[:size])
            except (BlockingIOError, InterruptedError):
                self.blocked = True
                break
            del self.waiting[:count]
            total += count
            shape.counts["pieces"] += 1
            if shape.rate is not None:
                self.not_before = now + count / shape.rate
        return total


class Passage:
    """A client's connection and the one to the server that answers it.

    Attributes:
        open: False once it is over: `close` it.
        connecting: the server has not answered yet.
        silenced: what either says is swallowed; such a connection is of no use any more.
    """

    def __init__(self, client: socket.socket, server: socket.socket | None, shape: Shape) -> None:
        self.client = client
        self.server = server
        self.shape = shape
        self.up, self.down = Pipe("up"), Pipe("down")
        self.open = True
        self.connecting = server is not None
        self.silenced = server is None
        self._asked = False
        self._reset = False

    def begin(self, address: tuple[str, int]) -> bool:
        """Start to connect to the server; False when it refuses at once."""
        assert self.server is not None
        return self.server.connect_ex(address) in {0, errno.EINPROGRESS, errno.EAGAIN}

    def connected(self) -> bool:
        """Whether the server took the connection, now that it has answered."""
        assert self.server is not None
        self.connecting = False
        return self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0

    def wants_read(self, pipe: Pipe, now: float) -> bool:
        """Whether its source shall be read now."""
        if pipe.ended or pipe.severed:
            return False
        if self.silenced:
            return True
        return now >= self.shape.stalled_until and len(pipe.waiting) < LIMIT and not (self.connecting and pipe.waiting)

    def due(self, pipe: Pipe) -> float:
        """When what waits may pass, however long ago; infinity where nothing does or the sink is full."""
        if not pipe.waiting or pipe.blocked or self.connecting or self.silenced:
            return float("inf")
        return max(pipe.not_before, self.shape.stalled_until)

    def pull(self, pipe: Pipe) -> None:
        """Read from a source that has something, and let the faults have their way with it."""
        source = self.client if pipe is self.up else self.server
        if source is None:
            return
        try:
            data = source.recv(READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.end(reset=True)
            return
        shape = self.shape
        if not data:
            pipe.ended = True
            return
        if self.silenced:
            shape.counts["swallowed"] += len(data)
            return
        if pipe is self.down and self._lose(shape):
            return
        if shape.cuts[pipe.direction] and len(data) > 1:
            shape.cuts[pipe.direction] -= 1
            data = data[: shape.rng.randrange(1, len(data))]
            pipe.severed = True
        pipe.waiting += data

    def _lose(self, shape: Shape) -> bool:
        """Count a reply: the first that the server says after the client said something. Whether this one is lost."""
        if not self._asked:
            return False
        self._asked = False
        shape.replies += 1
        shape.counts["replies"] += 1
        if not shape.every or shape.replies % shape.every:
            return False
        shape.counts["lost_replies"] += 1
        self.end()
        return True

    def push(self, pipe: Pipe, now: float) -> None:
        """Write to a sink, and tell it of an end when everything before it has passed."""
        sink = self.server if pipe is self.up else self.client
        if sink is None or self.connecting or self.silenced or now < self.shape.stalled_until:
            return
        try:
            count = pipe.push(sink, self.shape, now)
        except OSError:
            self.end(reset=True)
            return
        self.shape.counts[f"bytes_{pipe.direction}"] += count
        if count and pipe is self.up:
            self._asked = True
        if pipe.waiting:
            return
        if pipe.severed:
            self.shape.counts["cut"] += 1
            self.end()
        elif pipe.ended and not pipe.shut:
            pipe.shut = True
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
            if self.up.shut and self.down.shut:
                self.end()

    def end(self, *, reset: bool = False) -> None:
        """It is over; `close` does it. The sockets must leave the selector first, lest their numbers be reused."""
        if self.open:
            self.open = False
            self._reset = reset

    def close(self) -> None:
        """Close both sockets, with a reset if that is how it ended. Idempotent."""
        self.open = False
        for sock in (self.client, self.server):
            if sock is None:
                continue
            with contextlib.suppress(OSError):
                if self._reset:
                    # A linger time of 0 makes close() send RST.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    sock.shutdown(socket.SHUT_WR)
            sock.close()
