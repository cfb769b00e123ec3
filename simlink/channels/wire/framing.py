"""A stream of bytes, cut into frames: whatever the pieces that it arrives in."""

from __future__ import annotations

from simlink.channels.wire.codec import HEAD, MAX_FRAME_BYTES, VERSION, decode
from simlink.channels.wire.frames import Code, Frame, FrameError

__all__ = ["FrameReader", "read_frames"]

_HEAD_SIZE = HEAD.size
_TLS = (0x1503, 0x1603)
"""How TLS begins: an alert, or a handshake."""
_ROOM = 16384
"""Bytes that a `FrameReader` has room for at least when it reads."""


def read_frames(data: bytes, max_frame_bytes: int = MAX_FRAME_BYTES) -> list[Frame]:
    """The frames of bytes that are nothing but whole frames.

    Raises:
        FrameError: they are not, or one is oversized or of another version.
    """
    out: list[Frame] = []
    at = 0
    while at < len(data):
        if len(data) - at < HEAD.size:
            raise FrameError(f"{len(data) - at} bytes behind the last frame")
        length, version = HEAD.unpack_from(data, at)
        stop = at + _frame_size(length, version, max_frame_bytes)
        if stop > len(data):
            raise FrameError(f"the last frame lacks {stop - len(data)} bytes")
        frame = decode(data[at + HEAD.size : stop])
        if frame is not None:
            out.append(frame)
        at = stop
    return out


def _frame_size(length: int, version: int, limit: int) -> int:
    """All the bytes of a frame with this head.

    Raises:
        FrameError: no such frame is read here.
    """
    if version != VERSION or not 0 < length <= limit:
        raise _unreadable(length, version, limit)
    return 4 + length


def _unreadable(length: int, version: int, limit: int) -> FrameError:
    if version != VERSION:
        return FrameError(_of_another_version(length, version), Code.VERSION)
    if length > limit:
        return FrameError(f"a frame of {length} bytes, and at most {limit} are allowed here", Code.TOO_LARGE)
    return FrameError("a frame without a version")


def _of_another_version(length: int, version: int) -> str:
    if length >> 16 in _TLS:
        return "TLS, which is not spoken at this address, or needs a URL with tcps://"
    hint = "" if version < 32 else " (or the peer does not speak simlink at all)"
    return f"a frame of version {version}, and version {VERSION} is what is read here{hint}"


class FrameReader:
    """Cuts a byte stream into frames, whatever the pieces it arrives in.

    ``buffer()`` gives where to receive into, ``received(n)`` says how much came, `frames` what is complete. The
    memory is one frame at most, and grows only as bytes really arrive: a length alone allocates nothing.

    Args:
        max_frame_bytes: a longer frame is an error as soon as its length is read.
        managed: somebody else says when it may grow, by `grow`; `buffer` may then be asked only while it is not
            `cramped`.

    Attributes:
        needs: bytes of the frame that is incomplete, all in all; 0 where its length has not come yet.
        busy: what came last filled all the room there was, and larger pieces would be of use.
        ahead: it may read beyond the end of a frame that is incomplete. Otherwise no more is read behind one than the
            buffer has room for when it is as short as it can be.
    """

    BASE = 65536
    """Bytes of its buffer while nothing large comes."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES, *, managed: bool = False) -> None:
        self.max_frame_bytes = max_frame_bytes
        self.managed = managed
        self.needs = 0
        self.busy = False
        self.ahead = True
        self._buffer = bytearray(self.BASE)
        self._start = 0
        self._end = 0

    @property
    def pending(self) -> int:
        """How many bytes of an incomplete frame are here."""
        return self._end - self._start

    @property
    def capacity(self) -> int:
        """Bytes of the buffer."""
        return len(self._buffer)

    @property
    def cramped(self) -> bool:
        """Whether `buffer` has to grow."""
        return len(self._buffer) - self.pending < _ROOM

    @property
    def growth(self) -> int:
        """By how many bytes `grow` makes it longer: no further than the frame needs."""
        size = 2 * len(self._buffer)
        if self.cramped and self.pending + _ROOM <= self.needs + self.BASE < size:
            size = self.needs + self.BASE
        return size - len(self._buffer)

    def grow(self) -> None:
        """Make the buffer longer."""
        self._buffer.extend(bytes(self.growth))

    def compact(self) -> None:
        """Give back what is not in use: all beyond `BASE`, or at least a half."""
        size = self.BASE
        while size - self.pending < _ROOM:
            size *= 2
        if size <= len(self._buffer) // 2 or size == self.BASE < len(self._buffer):
            rest = self._buffer[self._start : self._end]
            self._buffer = bytearray(size)
            self._start, self._end = 0, len(rest)
            self._buffer[: len(rest)] = rest

    def discard(self) -> None:
        """Give everything back: nothing is read any more."""
        self._buffer = bytearray()
        self._start = self._end = 0

    def buffer(self) -> memoryview:
        """Where to put what comes next; at least 16 KiB where it may read `ahead`. Release it before the next call."""
        if len(self._buffer) - self._end < _ROOM:
            if self._start:
                rest = self._buffer[self._start : self._end]
                self._buffer[: len(rest)] = rest
                self._start, self._end = 0, len(rest)
            if len(self._buffer) - self._end < _ROOM:
                self.grow()
        if self.ahead:
            return memoryview(self._buffer)[self._end :]
        stop = self._start + max(self.needs, self.BASE - _ROOM)
        return memoryview(self._buffer)[self._end : stop if stop > self._end else None]

    def received(self, count: int) -> None:
        self._end += count
        self.busy = self._end == len(self._buffer) < 1024 * 1024
        if self.busy and not self.managed:
            self._buffer.extend(bytes(len(self._buffer)))  # a busy stream is read in larger pieces

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Like `buffer` and `received`, for bytes that are somewhere already."""
        at = 0
        while at < len(data):
            with self.buffer() as room:
                n = min(len(room), len(data) - at)
                room[:n] = data[at : at + n]
            self._end += n
            at += n

    def payloads(self, data: bytes) -> list[bytes]:
        """What `decode` takes of the whole frames in ``data``, which came while nothing was `pending`: a few short
        frames need no buffer. What is behind the last of them, be it a bad frame, is fed."""
        out: list[bytes] = []
        at, end = 0, len(data)
        while end - at >= _HEAD_SIZE:
            length, version = HEAD.unpack_from(data, at)
            stop = at + 4 + length
            if version != VERSION or not 0 < length <= self.max_frame_bytes or stop > end:
                break
            out.append(data[at + _HEAD_SIZE : stop])
            at = stop
        if at < end:
            self.feed(data[at:] if at else data)
        return out

    def frames(self) -> list[Frame]:
        """Every complete frame, in order. What comes behind a bad one is never read.

        Raises:
            FrameError: a frame is oversized, of another version, or garbage. The good ones before it are lost with
                the call; use `next_frame` to have them.
        """
        out: list[Frame] = []
        while (frame := self.next_frame()) is not None:
            out.append(frame)
        return out

    def next_frame(self) -> Frame | None:
        """The next complete frame, None if there is none yet.

        Raises:
            FrameError: as `frames`.
        """
        while True:
            start, end = self._start, self._end
            if end - start < _HEAD_SIZE:
                self.needs = 0
                self._shrink()
                return None
            length, version = HEAD.unpack_from(self._buffer, start)
            if version != VERSION or not 0 < length <= self.max_frame_bytes:
                raise _unreadable(length, version, self.max_frame_bytes)
            stop = start + 4 + length
            if stop > end:
                self.needs = 4 + length
                return None
            # A copy into bytes reads twice as fast as a view does (measured: 56 against 99 ns a message).
            payload = bytes(memoryview(self._buffer)[start + _HEAD_SIZE : stop])
            self._start = stop
            frame = decode(payload)
            if frame is not None:
                return frame

    def _shrink(self) -> None:
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > 4 * 1024 * 1024:
                self._buffer = bytearray(65536)  # one huge frame shall not cost its memory for ever
