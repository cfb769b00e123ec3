"""Frames ↔ bytes: ``4 bytes length, big-endian | 1 byte version | Protobuf Frame``; length counts what follows it.

How a stream of bytes is cut into frames is for `framing`.
"""

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

__all__ = ["HEAD", "MAX_FRAME_BYTES", "VERSION", "decode", "encode", "encode_payload"]

VERSION = 1
MAX_FRAME_BYTES = 8 * 1024 * 1024
"""The default for the longest frame, its five bytes of head not counted."""
HEAD = struct.Struct(">IB")
_MAX_NAMES = 1024
"""A batch for more subscriptions is for all of them."""
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
