"""A Batch ↔ the columns of the wire's Batch message.

A column has no entry (none of the messages has the thing), one (all have this one) or one a message; a bit a message
tells who has it where only some do. Decoding trusts nothing: every length is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from simlink.channels.wire import wire_pb2 as pb
from simlink.channels.wire.frames import Code, FrameError
from simlink.message import EMPTY_HEADERS, Batch, Same, has_line_break

__all__ = ["MAX_HEADERS", "MAX_SEQUENCE", "PRODUCER_BYTES", "read_batch", "write_batch"]

PRODUCER_BYTES = 16
MAX_SEQUENCE = 2**63 - 1
"""Sequences and positions stay below 2^63, so that every language and NumPy has them as signed integers."""

MAX_HEADERS = 2**18
"""Headers in one frame, those of all its messages together; where all messages have the same ones, these count once.
A header costs two bytes on the wire, and one that all messages share none at all for a message, but a hundred in memory
for each: the length of a frame does not bound what it becomes."""


# --- writing --------------------------------------------------------------------------------------------------------


def write_batch(batch: Batch, lows: Mapping[bytes, int], out: pb.Batch) -> None:
    """Fill ``bodies`` and every column that the batch has.

    Raises:
        ValueError: a cell cannot be written: a text that is not Unicode, a number out of range, a producer that is
            not 16 bytes.
    """
    n = len(batch)
    out.bodies.extend(batch.bodies)
    _write_keys(batch.keys, n, out)
    _write_content_types(batch.content_types, n, out)
    headers = batch.headers
    if not (isinstance(headers, Same) and headers.value is EMPTY_HEADERS):
        _write_headers(headers, n, out)
    _write_producers(batch.producers, lows, n, out)
    _write_sequences(batch.sequences, n, out)
    _write_timestamps(batch.timestamps, n, out)


def _bits(column: Sequence[Any]) -> bytes | None:
    """A bit a row that is not None; None where every row is there."""
    if None not in column:
        return None
    return np.packbits(np.fromiter((c is not None for c in column), np.bool_, len(column)), bitorder="little").tobytes()


def _write_keys(keys: Sequence[bytes | None], n: int, out: pb.Batch) -> None:
    if isinstance(keys, Same):
        if keys.value is not None and n:
            out.keys.append(keys.value)
        return
    try:
        # The common case is a key on every message: the runtime refuses a None, which is cheaper than looking for one.
        out.keys.extend(keys)  # type: ignore[arg-type]
    except TypeError:
        present = _bits(keys)
        if present is None:
            raise
        del out.keys[:]
        if any(present):
            out.keys.extend([k or b"" for k in keys])
            out.keys_present = present


def _write_content_types(types: Sequence[str | None], n: int, out: pb.Batch) -> None:
    if not n:
        return
    if isinstance(types, Same):
        if types.value:
            out.content_types.append(types.value)
        return
    first = types[0]
    if all(t == first for t in types):
        if first:
            out.content_types.append(first)
        return
    out.content_types.extend([t or "" for t in types])


def _write_headers(headers: Sequence[Mapping[str, str]], n: int, out: pb.Batch) -> None:
    if not n:
        return
    first = headers[0]
    alike = isinstance(headers, Same) or all(h is first or h == first for h in headers)
    names = dict.fromkeys(first) if alike else dict.fromkeys(name for h in headers for name in h)
    # Absent ones are written as well, as empty texts, where other messages have them.
    if (count := len(names) * (1 if alike else n)) > MAX_HEADERS:
        raise ValueError(f"{count} headers, and a frame takes at most {MAX_HEADERS}")
    if alike:
        for name, value in first.items():
            out.headers.add(name=name, values=[value])
        return
    for name in names:
        column = [h.get(name) for h in headers]
        present = _bits(column)
        out.headers.add(name=name, values=[c or "" for c in column], present=present or b"")


def _write_producers(producers: Sequence[bytes | None], lows: Mapping[bytes, int], n: int, out: pb.Batch) -> None:
    if not n:
        return
    if isinstance(producers, Same):
        table: dict[bytes, int] = {} if producers.value is None else {producers.value: 0}
    else:
        table = {p: i for i, p in enumerate(dict.fromkeys(p for p in producers if p is not None))}
        if len(table) > 1 or (table and None in producers):
            out.producer_of.extend([0 if p is None else table[p] + 1 for p in producers])
    for producer in table:
        if len(producer) != PRODUCER_BYTES:
            raise ValueError(f"a producer is {PRODUCER_BYTES} bytes, not {len(producer)}")
        out.producers.append(producer)
        out.lows.append(lows.get(producer, 0))


def _write_sequences(sequences: Sequence[int | None], n: int, out: pb.Batch) -> None:
    if isinstance(sequences, range) and sequences.step == 1 and n:
        out.sequence_firsts.append(sequences.start)
        out.sequence_counts.append(n)
        return
    if isinstance(sequences, np.ndarray):
        numbers = sequences.astype(np.int64)
    else:
        present = _bits(sequences)
        if present is not None:
            if not any(present):
                return
            out.sequences_present = present
        numbers = np.array([s for s in sequences if s is not None], np.int64)
    if not len(numbers):
        return
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 2) != 1)
    out.sequence_firsts.extend(numbers[starts].tolist())
    out.sequence_counts.extend(np.diff(starts, append=len(numbers)).tolist())


def _write_timestamps(stamps: Sequence[int | None], n: int, out: pb.Batch) -> None:
    if isinstance(stamps, Same):
        if stamps.value is not None and n:
            out.timestamps.append(stamps.value)
        return
    if isinstance(stamps, np.ndarray):
        numbers = stamps.astype(np.int64)
    else:
        present = _bits(stamps)
        if present is not None:
            if not any(present):
                return
            out.timestamps_present = present
        numbers = np.array([s or 0 for s in stamps], np.int64)
    if len(numbers) > 1 and out.timestamps_present == b"" and (numbers == numbers[0]).all():
        numbers = numbers[:1]
    if len(numbers):
        out.timestamps.append(int(numbers[0]))
        out.timestamps.extend(np.diff(numbers).tolist())


# --- reading --------------------------------------------------------------------------------------------------------


def read_batch(wire: pb.Batch) -> tuple[Batch, dict[bytes, int]]:
    """The batch, and the lows of its producers.

    Raises:
        FrameError: the columns do not fit together.
    """
    bodies = wire.bodies[:]
    n = len(bodies)
    # Most columns are absent or alike in most batches, and many batches are one message: the columns that are not
    # there cost a look each, and no more.
    none: Same[None] = Same(None, n)
    producers: Sequence[bytes | None] = none
    lows: dict[bytes, int] = {}
    if wire.producers or wire.producer_of or wire.lows:
        producers, lows = _read_producers(wire, n)
    batch = Batch(
        bodies,
        keys=_read_keys(wire, n) if wire.keys or wire.keys_present else none,
        headers=_read_headers(wire, n) if wire.headers else Same(EMPTY_HEADERS, n),
        content_types=_read_content_types(wire, n) if wire.content_types else none,
        producers=producers,
        sequences=_read_sequences(wire, n) if wire.sequence_counts or wire.sequence_firsts else _no_sequences(wire, n),
        timestamps=_read_timestamps(wire, n) if wire.timestamps or wire.timestamps_present else none,
    )
    return batch, lows


def _length(what: str, length: int, n: int) -> None:
    if length not in {0, 1, n} or (length == 1 and n == 0):
        raise FrameError(f"the column {what} has {length} entries for {n} messages")


def _present(what: str, bits: bytes, n: int) -> list[bool] | None:
    if not bits:
        return None
    if len(bits) != (n + 7) // 8:
        raise FrameError(f"the column {what} has {len(bits)} bytes of presence for {n} messages")
    out: list[bool] = np.unpackbits(np.frombuffer(bits, np.uint8), count=n, bitorder="little").astype(np.bool_).tolist()
    return out


def _whole(what: str, length: int, n: int, present: list[bool] | None) -> None:
    if present is not None and length != n:
        raise FrameError(f"the column {what} has a presence, so it needs {n} entries, not {length}")


def _read_keys(wire: pb.Batch, n: int) -> Sequence[bytes | None]:
    count = len(wire.keys)
    _length("keys", count, n)
    present = _present("keys", wire.keys_present, n)
    _whole("keys", count, n, present)
    keys = list(wire.keys)
    if present is not None:
        return [k if p else None for k, p in zip(keys, present, strict=True)]
    return keys if count == n else Same(keys[0], n)


def _read_content_types(wire: pb.Batch, n: int) -> Sequence[str | None]:
    count = len(wire.content_types)
    _length("content_types", count, n)
    if count == 1:
        return Same(wire.content_types[0] or None, n)
    return [t or None for t in wire.content_types]


def _read_headers(wire: pb.Batch, n: int) -> Sequence[Mapping[str, str]]:
    if not n:
        raise FrameError("headers without messages")
    if len(wire.headers) > MAX_HEADERS:
        raise FrameError(
            f"a frame with {len(wire.headers)} headers, and at most {MAX_HEADERS} are allowed", Code.TOO_LARGE
        )
    shared: dict[str, str] = {}
    own: list[tuple[str, list[str], list[bool] | None]] = []
    for column in wire.headers:
        count = len(column.values)
        _length("headers", count, n)
        if not count:
            raise FrameError(f"the header {column.name!r} has no value")
        if has_line_break("".join([column.name, *column.values])):
            raise FrameError("a header with CR, LF or NUL")
        present = _present("headers", column.present, n)
        _whole("headers", count, n, present)
        if count == 1 and present is None:
            shared[column.name] = column.values[0]
        else:
            own.append((column.name, list(column.values), present))
    cells = len(shared) * (n if own else 1) + sum(len(values) for _, values, _ in own)
    if cells > MAX_HEADERS:
        raise FrameError(f"a frame with {cells} headers, and at most {MAX_HEADERS} are allowed", Code.TOO_LARGE)
    if not own:
        return Same(MappingProxyType(shared), n)
    rows: list[dict[str, str]] = [dict(shared) for _ in range(n)]
    for name, values, present in own:
        for row, value in enumerate(values):
            if present is None or present[row]:
                rows[row][name] = value
    return [MappingProxyType(row) if row else EMPTY_HEADERS for row in rows]


def _read_producers(wire: pb.Batch, n: int) -> tuple[Sequence[bytes | None], dict[bytes, int]]:
    table = wire.producers[:]
    lows = wire.lows[:]
    if len(table) == len(lows) == 1 and len(table[0]) == PRODUCER_BYTES and not wire.producer_of:
        _numbers("lows", lows)
        return Same(table[0], n), {table[0]: lows[0]}
    if any(len(p) != PRODUCER_BYTES for p in table):
        raise FrameError(f"a producer is not {PRODUCER_BYTES} bytes")
    if lows and len(lows) != len(table):
        raise FrameError(f"{len(lows)} lows for {len(table)} producers")
    _numbers("lows", lows)
    which = list(wire.producer_of)
    if which:
        if len(which) != n:
            raise FrameError(f"the column producer_of has {len(which)} entries for {n} messages")
        if max(which) > len(table):
            raise FrameError(f"producer {max(which)} of {len(table)}")
        column: Sequence[bytes | None] = [table[i - 1] if i else None for i in which]
    else:
        if len(table) > 1:
            raise FrameError(f"{len(table)} producers, and nothing says whose messages these are")
        column = Same(table[0] if table else None, n)
    return column, dict(zip(table, lows, strict=False))


def _numbers(what: str, numbers: list[int]) -> None:
    if numbers and max(numbers) > MAX_SEQUENCE:
        raise FrameError(f"{what} beyond 2^63 - 1")


def _no_sequences(wire: pb.Batch, n: int) -> Sequence[int | None]:
    if wire.sequences_present:
        return _read_sequences(wire, n)
    return Same(None, n)


def _read_sequences(wire: pb.Batch, n: int) -> Sequence[int | None]:
    firsts, counts = wire.sequence_firsts[:], wire.sequence_counts[:]
    if counts == [n] and len(firsts) == 1 and n and not wire.sequences_present:
        first = firsts[0]
        _numbers("sequences", [first + n])
        return range(first, first + n)
    present = _present("sequences", wire.sequences_present, n)
    rows = n if present is None else sum(present)
    # The sum is checked before anything of that length is made.
    if len(firsts) != len(counts) or sum(counts) != rows or 0 in counts:
        raise FrameError(f"the sequences of {rows} messages have {len(firsts)} runs of altogether {sum(counts)}")
    _numbers("sequences", [f + c for f, c in zip(firsts, counts, strict=True)])
    offsets = np.arange(rows, dtype=np.int64)
    lengths = np.array(counts, np.int64)
    begins = np.cumsum(lengths) - lengths
    numbers = np.repeat(np.array(firsts, np.int64) - begins, lengths) + offsets
    if present is None:
        return cast("Sequence[int | None]", numbers)  # an array is what Batch documents for a column with gaps
    each = iter(numbers.tolist())
    return [next(each) if p else None for p in present]


def _read_timestamps(wire: pb.Batch, n: int) -> Sequence[int | None]:
    count = len(wire.timestamps)
    _length("timestamps", count, n)
    present = _present("timestamps", wire.timestamps_present, n)
    _whole("timestamps", count, n, present)
    if count == 1 and present is None:
        return Same(wire.timestamps[0], n)
    # Wraps around at 64 bits for nonsense, which is as good an answer as any.
    numbers = np.cumsum(np.fromiter(wire.timestamps, np.int64, count))
    if present is None:
        return cast("Sequence[int | None]", numbers)
    return [t if p else None for t, p in zip(numbers.tolist(), present, strict=True)]
