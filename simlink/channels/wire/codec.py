"""Frames ↔ bytes: ``4 bytes length, big-endian | 1 byte version | Protobuf Frame``; length counts what follows it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import DecodeError as ProtobufError

from simlink.channels.driver import Mode
from simlink.channels.wire import wire_pb2 as pb
from simlink.channels.wire.columns import MAX_SEQUENCE, read_batch, write_batch
from simlink.channels.wire.frames import (
    Accept,
    BatchFrame,
    Bye,
    Challenge,
    Code,
    ErrorFrame,
    Frame,
    FrameError,
    Heartbeat,
    Hello,
    Moved,
    Proof,
    Returned,
    Run,
    Settle,
    Subscribed,
    Void,
    Welcome,
)
from simlink.channels.wire.lone import BATCH_TAG, read_lone, write_lone
from simlink.channels.wire.terse import TERSE_TAGS, read_terse, write_terse

__all__ = ["MAX_FRAME_BYTES", "VERSION", "FrameReader", "decode", "encode", "encode_payload", "read_frames"]

VERSION = 1
MAX_FRAME_BYTES = 8 * 1024 * 1024
"""The default for the longest frame, its five bytes of head not counted."""
HEAD = struct.Struct(">IB")
_HEAD_SIZE = HEAD.size
_MAX_NAMES = 1024
"""A batch for more subscriptions is for all of them."""
_TLS = (0x1503, 0x1603)
"""How TLS begins: an alert, or a handshake."""
_ROOM = 16384
"""Bytes that a `FrameReader` has room for at least when it reads."""
_MODES = {Mode.QUEUE: pb.MODE_QUEUE, Mode.TOPIC: pb.MODE_TOPIC}
_MODES_READ = {value: mode for mode, value in _MODES.items()}


# --- writing --------------------------------------------------------------------------------------------------------


def encode(frame: Frame) -> bytes:
    """The frame's bytes, head included.

    Raises:
        ValueError: a cell of its batch cannot be written.
    """
    payload = encode_payload(frame)
    return HEAD.pack(len(payload) + 1, VERSION) + payload


def encode_payload(frame: Frame) -> bytes:
    """The frame's bytes without a head, as `decode` takes them.

    Raises:
        ValueError: as `encode`.
    """
    if type(frame) is BatchFrame:
        by_hand = write_lone(frame) if len(frame.batch.bodies) == 1 else None
    else:
        by_hand = write_terse(frame)
    if by_hand is not None:
        return by_hand
    out = pb.Frame()
    _WRITERS[type(frame)](frame, out)
    try:
        payload: bytes = out.SerializeToString()
    except Exception as error:  # the runtime's own error types differ between its implementations
        raise ValueError(f"cannot be written: {error}") from error
    return payload


def _write_runs(runs: Iterable[Run], out: pb.Runs) -> None:
    for first, stop in runs:
        out.firsts.append(first)
        out.counts.append(stop - first)


def _write_hello(f: Hello, out: pb.Frame) -> None:
    out.hello.CopyFrom(
        pb.Hello(
            sender=f.sender,
            destination=f.destination,
            mode=_MODES[f.mode],
            subscription=f.subscription,
            incarnation=f.incarnation,
            low=f.low,
            next=f.next,
            heartbeat_ms=f.heartbeat_ms,
            max_frame_bytes=f.max_frame_bytes,
            nonce=f.nonce,
            lease_ms=f.lease_ms,
        )
    )


def _write_challenge(f: Challenge, out: pb.Frame) -> None:
    out.challenge.SetInParent()
    out.challenge.nonce = f.nonce
    out.challenge.proof = f.proof


def _write_proof(f: Proof, out: pb.Frame) -> None:
    out.proof.SetInParent()
    out.proof.proof = f.proof


def _write_welcome(f: Welcome, out: pb.Frame) -> None:
    w = out.welcome
    w.incarnation = f.incarnation
    w.accepted = f.accepted
    w.settled = f.settled
    _write_runs(f.settled_runs, w.settled_runs)
    _write_runs(f.rejected, w.rejected)
    _write_runs(f.returned, w.returned)
    _write_runs(f.returned_handed, w.returned_handed)
    w.credit = f.credit
    w.credit_bytes = f.credit_bytes
    w.heartbeat_ms = f.heartbeat_ms
    w.max_frame_bytes = f.max_frame_bytes
    w.subscriptions.extend(f.subscriptions)
    w.addressable = f.addressable


def _write_subscribed(f: Subscribed, out: pb.Frame) -> None:
    out.subscribed.SetInParent()
    out.subscribed.subscriptions.extend(f.subscriptions)


def _write_batch(f: BatchFrame, out: pb.Frame) -> None:
    b = out.batch
    b.position = f.position
    b.low = f.low
    if f.subscriptions:
        b.subscriptions.extend(f.subscriptions)
    try:
        write_batch(f.batch, f.lows, b)
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)) from error


def _write_accept(f: Accept, out: pb.Frame) -> None:
    a = out.accept
    a.below = f.below
    a.credit = f.credit
    a.credit_bytes = f.credit_bytes
    out.accept.SetInParent()


def _write_settle(f: Settle, out: pb.Frame) -> None:
    s = out.settle
    s.SetInParent()
    s.below = f.below
    _write_runs(f.settled, s.settled)
    _write_runs(f.rejected, s.rejected)
    s.credit = f.credit
    s.credit_bytes = f.credit_bytes


def _write_returned(f: Returned, out: pb.Frame) -> None:
    out.returned.SetInParent()
    _write_runs(f.fresh, out.returned.fresh)
    _write_runs(f.handed, out.returned.handed)


def _write_void(f: Void, out: pb.Frame) -> None:
    out.void.SetInParent()
    out.void.first = f.first
    out.void.count = f.stop - f.first


def _write_moved(f: Moved, out: pb.Frame) -> None:
    out.moved.SetInParent()
    _write_runs(f.positions, out.moved.positions)


def _write_heartbeat(f: Heartbeat, out: pb.Frame) -> None:
    out.heartbeat.SetInParent()
    out.heartbeat.low = f.low


def _write_bye(_: Bye, out: pb.Frame) -> None:
    out.bye.SetInParent()


def _write_error(f: ErrorFrame, out: pb.Frame) -> None:
    out.error.SetInParent()
    out.error.code = f.code  # type: ignore[assignment]  # the numbers are the same
    out.error.message = f.message
    out.error.retryable = f.retryable


_WRITERS: dict[type, Callable[[Any, pb.Frame], None]] = {
    Hello: _write_hello,
    Challenge: _write_challenge,
    Proof: _write_proof,
    Welcome: _write_welcome,
    Subscribed: _write_subscribed,
    BatchFrame: _write_batch,
    Accept: _write_accept,
    Settle: _write_settle,
    Returned: _write_returned,
    Void: _write_void,
    Moved: _write_moved,
    Heartbeat: _write_heartbeat,
    Bye: _write_bye,
    ErrorFrame: _write_error,
}


# --- reading --------------------------------------------------------------------------------------------------------


def decode(payload: bytes | memoryview) -> Frame | None:
    """The frame of these bytes (behind the head); None for a kind that is newer than this program, to be skipped.

    Raises:
        FrameError: they are not a frame.
    """
    tag = payload[:1]
    if tag == BATCH_TAG:
        if type(payload) is bytes and (lone := read_lone(payload)) is not None:
            return lone
    elif tag in TERSE_TAGS and tag and type(payload) is bytes and (terse := read_terse(payload)) is not None:
        return terse
    wire = pb.Frame()
    try:
        wire.ParseFromString(payload)  # type: ignore[arg-type]  # the runtime takes any buffer
    except ProtobufError as error:
        raise FrameError("a frame that is not Protobuf, or not of this schema") from error
    kind = wire.WhichOneof("kind")
    return None if kind is None else _READERS[kind](wire)


def _number(value: int) -> int:
    if value > MAX_SEQUENCE:
        raise FrameError("a position beyond 2^63 - 1")
    return value


def _read_runs(wire: pb.Runs) -> list[Run]:
    firsts, counts = list(wire.firsts), list(wire.counts)
    if len(firsts) != len(counts):
        raise FrameError(f"{len(firsts)} runs with {len(counts)} lengths")
    return [(f, _number(f + c)) for f, c in zip(firsts, counts, strict=True) if c]


def _read_hello(w: pb.Frame) -> Hello:
    h = w.hello
    if len(h.sender) != 16:
        raise FrameError(f"a sender's name is 16 bytes, not {len(h.sender)}")
    mode = _MODES_READ.get(h.mode)
    if mode is None:
        raise FrameError(f"the mode {h.mode} is neither queue nor topic")
    return Hello(
        h.sender,
        h.destination,
        mode,
        h.subscription,
        h.incarnation,
        _number(h.low),
        _number(h.next),
        h.heartbeat_ms,
        h.max_frame_bytes,
        h.nonce,
        h.lease_ms,
    )


def _read_challenge(w: pb.Frame) -> Challenge:
    return Challenge(w.challenge.nonce, w.challenge.proof)


def _read_proof(w: pb.Frame) -> Proof:
    return Proof(w.proof.proof)


def _read_welcome(frame: pb.Frame) -> Welcome:
    w = frame.welcome
    return Welcome(
        w.incarnation,
        _number(w.accepted),
        _number(w.settled),
        _read_runs(w.settled_runs),
        _read_runs(w.rejected),
        _read_runs(w.returned),
        _read_runs(w.returned_handed),
        _number(w.credit),
        _number(w.credit_bytes),
        w.heartbeat_ms,
        w.max_frame_bytes,
        list(w.subscriptions),
        w.addressable,
    )


def _read_subscribed(w: pb.Frame) -> Subscribed:
    return Subscribed(list(w.subscribed.subscriptions))


def _read_batch(w: pb.Frame) -> BatchFrame:
    batch, lows = read_batch(w.batch)
    _number(w.batch.position + len(batch))
    names = tuple(w.batch.subscriptions)
    if names and (len(names) > _MAX_NAMES or sum(map(len, names)) > _MAX_NAMES * 64):
        raise FrameError(f"a batch for {len(names)} subscriptions by name")
    return BatchFrame(w.batch.position, batch, _number(w.batch.low), lows, names)


def _read_accept(w: pb.Frame) -> Accept:
    a = w.accept
    return Accept(_number(a.below), _number(a.credit), _number(a.credit_bytes))


def _read_settle(w: pb.Frame) -> Settle:
    s = w.settle
    # Most say no more than how far everything is settled; looking into what is not there would cost as much again.
    return Settle(
        _number(s.below),
        _read_runs(s.settled) if s.HasField("settled") else [],
        _read_runs(s.rejected) if s.HasField("rejected") else [],
        _number(s.credit),
        _number(s.credit_bytes),
    )


def _read_returned(w: pb.Frame) -> Returned:
    return Returned(_read_runs(w.returned.fresh), _read_runs(w.returned.handed))


def _read_void(w: pb.Frame) -> Void:
    return Void(w.void.first, _number(w.void.first + w.void.count))


def _read_moved(w: pb.Frame) -> Moved:
    return Moved(_read_runs(w.moved.positions))


def _read_heartbeat(w: pb.Frame) -> Heartbeat:
    return Heartbeat(_number(w.heartbeat.low))


def _read_bye(_: pb.Frame) -> Bye:
    return Bye()


def _read_error(w: pb.Frame) -> ErrorFrame:
    try:
        code = Code(w.error.code)
    except ValueError:
        code = Code.PROTOCOL  # a newer peer's reason; its sentence tells more
    # One line, whatever the peer sent.
    return ErrorFrame(code, " ".join(w.error.message.split())[:500], w.error.retryable)


_READERS: dict[str, Callable[[pb.Frame], Frame]] = {
    "hello": _read_hello,
    "challenge": _read_challenge,
    "proof": _read_proof,
    "welcome": _read_welcome,
    "subscribed": _read_subscribed,
    "batch": _read_batch,
    "accept": _read_accept,
    "settle": _read_settle,
    "returned": _read_returned,
    "void": _read_void,
    "moved": _read_moved,
    "heartbeat": _read_heartbeat,
    "bye": _read_bye,
    "error": _read_error,
}


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
