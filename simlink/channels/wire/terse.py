"""Heartbeats, acceptances and settlements, read and written by hand: a tenth of what the Protobuf runtime takes.

They are what an idle link says all the time, and what a busy one is answered with: a tag, a length and up to three
numbers. Only the one form that the runtime gives them is known here: each field at most once, ascending, and no runs.
Anything else is left to the runtime, so that what is written, what is read and what is refused is the same.
"""

from __future__ import annotations

from functools import lru_cache

from simlink.channels.wire.frames import Accept, Frame, Heartbeat, Settle

__all__ = ["TERSE_TAGS", "read_terse", "write_terse"]

_ACCEPT, _SETTLE, _HEARTBEAT = 0x22, 0x2A, 0x4A
TERSE_TAGS = bytes([_ACCEPT, _SETTLE, _HEARTBEAT])
"""What the Frames that are known here begin with."""
_BELOW, _LOW = 0x08, 0x08
_ACCEPT_CREDIT, _ACCEPT_BYTES = 0x10, 0x18
_SETTLE_CREDIT, _SETTLE_BYTES = 0x20, 0x28
_MOST = 2**56
"""Numbers from here on are the runtime's, whose limits are its own to check."""


def write_terse(frame: Frame) -> bytes | None:
    """The frame's payload, without its head; None for a frame that is left to the runtime."""
    kind = type(frame)
    if kind is Heartbeat:
        tag, body = _HEARTBEAT, _field(_LOW, frame.low)  # type: ignore[union-attr]  # it is a Heartbeat
    elif kind is Accept:
        tag, body = _ACCEPT, _three(frame, _ACCEPT_CREDIT, _ACCEPT_BYTES)  # type: ignore[arg-type]  # an Accept
    elif kind is Settle and not frame.settled and not frame.rejected:  # type: ignore[union-attr]  # a Settle
        tag, body = _SETTLE, _three(frame, _SETTLE_CREDIT, _SETTLE_BYTES)  # type: ignore[arg-type]  # a Settle
    else:
        return None
    return None if body is None else bytes((tag, len(body))) + body


def _three(frame: Accept | Settle, credit: int, credit_bytes: int) -> bytes | None:
    first, rest = _field(_BELOW, frame.below), _credits(credit, frame.credit, credit_bytes, frame.credit_bytes)
    return None if first is None or rest is None else first + rest


@lru_cache(128)  # credit is granted in large pieces, and said again with every message that is accepted
def _credits(tag: int, credit: int, tag_bytes: int, credit_bytes: int) -> bytes | None:
    first, second = _field(tag, credit), _field(tag_bytes, credit_bytes)
    return None if first is None or second is None else first + second


def _field(tag: int, number: int) -> bytes | None:
    """A number and its tag; nothing for 0, as Protobuf has it."""
    if 0 < number < 128:
        return bytes((tag, number))
    if not 0 < number < _MOST:
        return b"" if number == 0 else None
    out = [tag]
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_terse(data: bytes) -> Accept | Settle | Heartbeat | None:
    """The frame of a payload; None for one that is left to the runtime."""
    end = len(data)
    if end < 2 or data[1] != end - 2 or end > 129:
        return None
    tag = data[0]
    low = credit = credit_bytes = 0
    at = 2
    try:
        if at < end and data[at] == _BELOW:
            low, at = _varint(data, at + 1)
        if tag == _HEARTBEAT:
            return Heartbeat(low) if at == end else None
        if tag == _ACCEPT:
            second, third = _ACCEPT_CREDIT, _ACCEPT_BYTES
        elif tag == _SETTLE:
            second, third = _SETTLE_CREDIT, _SETTLE_BYTES
        else:
            return None
        if at < end and data[at] == second:
            credit, at = _varint(data, at + 1)
        if at < end and data[at] == third:
            credit_bytes, at = _varint(data, at + 1)
    except IndexError:
        return None
    if at != end:
        return None
    return Accept(low, credit, credit_bytes) if tag == _ACCEPT else Settle(low, [], [], credit, credit_bytes)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at an offset, and the offset behind it. One of more than 8 bytes is as good as the end."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        if byte < 128:
            return number | byte << shift, at
        number |= (byte & 127) << shift
        shift += 7
        if shift > 49:
            raise IndexError(at)
