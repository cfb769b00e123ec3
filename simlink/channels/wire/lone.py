"""The frame of one message, which somebody waits for, written and read by hand: a third of what the Protobuf runtime
takes, whose message and column objects each cost more than the few bytes behind them.

Only the one form that the runtime gives a plain message is known here: each field at most once, in ascending order, of
one entry. Anything else is left to the runtime, so that what is written, read and refused is the same.
"""

from __future__ import annotations

from simlink.channels.wire.frames import BatchFrame
from simlink.message import EMPTY_HEADERS, Batch, Same

__all__ = ["BATCH_TAG", "read_lone", "write_lone"]

BATCH_TAG = b"\x1a"
"""What a Frame that holds a Batch begins with."""

_NO_KEY: Same[bytes | None] = Same(None, 1)
_NO_HEADERS = Same(EMPTY_HEADERS, 1)
_POSITION, _LOW, _BODY, _TYPE = 0x08, 0x10, 0x1A, 0x32
_PRODUCER, _LOWS, _FIRSTS, _COUNT, _STAMP = b"\x42\x10", 0x52, 0x5A, b"\x62\x01\x01", 0x72
_types: dict[bytes, Same[str | None]] = {}
_MAX_TYPES = 64
_MOST = 2**56
"""Numbers from here on are the runtime's, whose limits are its own to check."""


def write_lone(frame: BatchFrame) -> bytes | None:
    """The payload of a frame of exactly one message as `read_lone` reads it, for every subscription; None for all
    others."""
    batch = frame.batch
    body, headers, keys, types = batch.bodies[0], batch.headers, batch.keys, batch.content_types
    producers, sequences, stamps = batch.producers, batch.sequences, batch.timestamps
    if (
        type(body) is not bytes
        or type(headers) is not Same
        or headers.value is not EMPTY_HEADERS
        or type(keys) is not Same
        or keys.value is not None
        or type(types) is not Same
        or type(producers) is not Same
        or type(sequences) is not range
        or type(stamps) is not Same
        or frame.subscriptions
    ):
        return None
    producer, stamp, name, sequence = producers.value, stamps.value, types.value, sequences[0]
    position, low = frame.position, frame.low
    if type(producer) is not bytes or len(producer) != 16 or type(stamp) is not int:
        return None
    least = frame.lows.get(producer, 0)
    if not (0 <= position < _MOST and 0 <= low < _MOST and 0 <= least < _MOST and 0 <= sequence < _MOST):
        return None
    if not 0 <= stamp < _MOST >> 1:
        return None
    if name and (len(name) > 127 or not name.isascii()):
        return None
    first, begin, time = _written(least), _written(sequence), _written(stamp << 1)
    out = b"%b%b\x1a%b%b%b\x42\x10%bR%c%bZ%c%bb\x01\x01r%c%b" % (
        b"\x08" + _written(position) if position else b"",
        b"\x10" + _written(low) if low else b"",
        _written(len(body)),
        body,
        b"2%c%b" % (len(name), name.encode()) if name else b"",
        producer,
        len(first),
        first,
        len(begin),
        begin,
        len(time),
        time,
    )
    return BATCH_TAG + _written(len(out)) + out


def _written(number: int) -> bytes:
    """A number as `_varint` reads it."""
    if number < 128:
        return bytes((number,))
    if number < 16384:
        return bytes((number & 127 | 128, number >> 7))
    out = []
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_lone(data: bytes) -> BatchFrame | None:
    """The frame of exactly one message with an identity and a time, without key and headers; None for all others."""
    end = len(data)
    try:
        if data[:1] != BATCH_TAG:
            return None
        size, at = _varint(data, 1)
        if at + size != end or at > 5:
            return None
        position = low = 0
        if data[at] == _POSITION:
            position, at = _varint(data, at + 1)
        if data[at] == _LOW:
            low, at = _varint(data, at + 1)
        if data[at] != _BODY:
            return None
        size, start = _varint(data, at + 1)
        if start - at > 5:
            return None
        at = start + size
        body = data[start:at]
        if data[at] == _TYPE:
            stop = at + 2 + data[at + 1]
            name = data[at:stop]
            content_types = _types.get(name)
            if content_types is None:
                if data[at + 1] > 127 or not name[2:].isascii() or stop >= end:
                    return None
                content_types = Same(name[2:].decode() or None, 1)
                if len(_types) < _MAX_TYPES:
                    _types[name] = content_types
            at = stop
        else:
            content_types = Same(None, 1)
        if data[at : at + 2] != _PRODUCER:
            return None
        producer = data[at + 2 : at + 18]
        at += 18
        if data[at] != _LOWS:
            return None
        stop = at + 2 + data[at + 1]
        least, at = _varint(data, at + 2)
        if at != stop or data[at] != _FIRSTS:
            return None
        stop = at + 2 + data[at + 1]
        sequence, at = _varint(data, at + 2)
        if at != stop or data[at : at + 3] != _COUNT or data[at + 3] != _STAMP:
            return None
        stop = at + 5 + data[at + 4]
        stamp, at = _varint(data, at + 5)
    except IndexError:
        return None
    if at != stop or at != end:
        return None
    batch = Batch(
        [body],
        keys=_NO_KEY,
        headers=_NO_HEADERS,
        content_types=content_types,
        producers=Same(producer, 1),
        sequences=range(sequence, sequence + 1),
        timestamps=Same(stamp >> 1 ^ -(stamp & 1), 1),
    )
    return BatchFrame(position, batch, low, {producer: least})


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at an offset, and the offset behind it. Those of more than 8 bytes are as good as the end: the limits
    of what is larger are the runtime's to check."""
    byte = data[at]
    at += 1
    if byte < 128:
        return byte, at
    number = byte & 127
    for shift in (7, 14, 21, 28, 35, 42, 49):
        byte = data[at]
        at += 1
        if byte < 128:
            return number | byte << shift, at
        number |= (byte & 127) << shift
    raise IndexError(at)
