"""A link over HTTP: one stream towards the sender, any number of posts from it. No I/O.

The stream is what a connection is to tcp://: it opens with a Welcome, and when it ends the link is down until the
sender opens another one. Posts name it by a token that only its sender knows, so a post that was long on its way cannot
speak for a stream that has ended. Posts may overtake one another: what comes early waits until the positions before it
are there.
"""

from __future__ import annotations

import heapq
import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from simlink.channels.wire.codec import encode
from simlink.channels.wire.frames import BatchFrame, Frame, FrameError, Void

if TYPE_CHECKING:
    from simlink.channels.link.destination import Destination
    from simlink.channels.link.receiver import ReceiverLink

__all__ = ["Early", "Session"]

_MAX_EARLY = 1024
"""So many frames may wait for those before them; their messages are bounded by the credit."""
_MAX_OUT = 4 * 1024 * 1024
"""A peer that leaves this much unread does not read at all: what it is told is absolute, and small."""


class Early:
    """Frames that came before their turn, by position."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, BatchFrame | Void]] = []
        self._count = 0
        self.nbytes = 0
        """Of bodies and keys of those that wait."""

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, position: int, frame: BatchFrame | Void) -> None:
        """Keep one.

        Raises:
            FrameError: there are too many.
        """
        if len(self._heap) >= _MAX_EARLY:
            raise FrameError(f"{_MAX_EARLY} frames came before their turn")
        self._count += 1
        self.nbytes += frame.batch.nbytes if isinstance(frame, BatchFrame) else 0
        heapq.heappush(self._heap, (position, self._count, frame))

    def due(self, link: ReceiverLink) -> Iterator[BatchFrame | Void]:
        """Those whose turn it is, one after the other; the link moves on between them."""
        while self._heap and self._heap[0][0] <= link.expected:
            frame = heapq.heappop(self._heap)[2]
            self.nbytes -= frame.batch.nbytes if isinstance(frame, BatchFrame) else 0
            yield frame


class Session:
    """A stream of settlements and the posts that belong to it.

    Attributes:
        token: what its posts say to belong to it.
        out: frames that the stream has not sent yet, as bytes.
        ended: nothing more will be put into ``out``, and its posts are refused.
        sent: when something was last put into ``out``.
        wake: called when there is something in ``out``, or it has ended.
    """

    def __init__(self, name: str, destination: Destination, link: ReceiverLink, beat: float) -> None:
        self.token = secrets.token_hex(16)
        self.name = name
        self.destination = destination
        self.link = link
        self.beat = beat
        self.early = Early()
        self.out = bytearray()
        self.ended = False
        self.sent = 0.0
        self.wake: Callable[[], None] = lambda: None

    def push(self, frame: Frame, now: float) -> bool:
        """Put a frame into the stream; False when its reader does not read."""
        if self.ended:
            return True
        self.out += encode(frame)
        self.sent = now
        self.wake()
        return len(self.out) <= _MAX_OUT

    def check_early(self, frame: BatchFrame, slack: int) -> None:
        """What waits for its turn must be within the credit, like what does not; in bytes the last message of those
        that were sent may exceed it, wherever it stands among those that came: by ``slack`` at most.

        Raises:
            FrameError: it is not.
        """
        link = self.link
        if link.received_bytes + self.early.nbytes > link.credit_bytes + slack:
            raise FrameError(f"position {frame.position} exceeds the credit in bytes")
        if frame.position + len(frame.batch.bodies) > link.credit:
            raise FrameError(f"position {frame.position} exceeds the credit")

    def end(self) -> None:
        """Nothing more comes; what was pushed is still sent."""
        self.ended = True
        self.wake()
