"""The one header that carries a message's identity through a broker: ``simlink-id``.

Its value is ``producer/sequence/time``: the producer as 32 hexadecimal digits, the sequence as decimal digits, and the
intended send time in microseconds since 1970 UTC as decimal digits, 0 where nobody stamped one. Numbers are padded to
16 digits, so that the usual value is 66 bytes long and whole batches are written and read with NumPy. Readers take
numbers of any length, so that other languages need not pad.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simlink.message import Same

__all__ = ["CONTENT_TYPE_HEADER", "ID_HEADER", "WIDTH", "Identities", "format_identities", "parse_identities"]

ID_HEADER = "simlink-id"
CONTENT_TYPE_HEADER = "content-type"

DIGITS = 16
HEX = 32
WIDTH = HEX + 1 + DIGITS + 1 + DIGITS
LIMIT = 10**DIGITS
FEW = 12
"""Below so many rows a plain loop is faster than NumPy's fixed costs (measured)."""
SLASH = ord("/")
ZERO = ord("0")

_PATTERN = re.compile(rb"([0-9a-fA-F]{32})/([0-9]{1,19})/([0-9]{1,19})\Z")
_TOP = 2**63

Bytes2D = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class Identities(NamedTuple):
    """Three columns of equal length, as a Batch takes them; None in the rows that have no identity."""

    producers: Sequence[bytes | None]
    sequences: Sequence[int | None]
    timestamps: Sequence[int | None]


# --- writing --------------------------------------------------------------------------------------------------------


def format_identities(
    producers: Sequence[bytes | None], sequences: Sequence[int | None], timestamps: Sequence[int | None]
) -> Sequence[bytes | None]:
    """The header's value for every row; None where the producer or the sequence is missing.

    Args:
        producers: 16 bytes each.
        sequences: not negative.
        timestamps: microseconds since 1970 UTC; None is written as 0.
    """
    n = len(producers)
    if any(isinstance(column, Same) and column.value is None for column in (producers, sequences)):
        return Same(None, n)
    if n >= FEW and isinstance(producers, Same):
        fast = _format_columns(producers.value, sequences, timestamps)
        if fast is not None:
            return fast
    return [_format_one(p, s, t) for p, s, t in zip(producers, sequences, timestamps, strict=True)]


def _format_one(producer: bytes | None, sequence: int | None, timestamp: int | None) -> bytes | None:
    if producer is None or sequence is None:
        return None
    return b"%s/%016d/%016d" % (producer.hex().encode(), sequence, timestamp or 0)


def _format_columns(
    producer: bytes, sequences: Sequence[int | None], timestamps: Sequence[int | None]
) -> list[bytes] | None:
    numbers = _integers(sequences)
    times = _integers(timestamps)
    if numbers is None or times is None:
        return None
    n = len(numbers)
    rows = np.empty((n, WIDTH), np.uint8)
    rows[:, :HEX] = np.frombuffer(producer.hex().encode(), np.uint8)
    rows[:, HEX] = rows[:, HEX + 1 + DIGITS] = SLASH
    rows[:, HEX + 1 : HEX + 1 + DIGITS] = _digits(numbers)
    rows[:, HEX + DIGITS + 2 :] = _digits(times)
    raw = rows.tobytes()
    return [raw[i : i + WIDTH] for i in range(0, n * WIDTH, WIDTH)]


def _integers(column: Sequence[int | None]) -> Ints | None:
    """The column as an array of numbers that fit the width, or None if a row is not such a number."""
    if isinstance(column, range):
        array: Ints = np.arange(column.start, column.stop, column.step, dtype=np.int64)
    elif isinstance(column, Same):
        array = np.full(len(column), column.value or 0, np.int64)
    elif isinstance(column, np.ndarray) and column.dtype.kind in "iu":
        array = column.astype(np.int64, copy=False)
    else:
        try:
            array = np.array(column, dtype=np.int64)
        except (TypeError, OverflowError):  # a None among them, or a number beyond 64 bits
            return None
    if len(array) and (int(array.max()) >= LIMIT or int(array.min()) < 0):
        return None
    return array


def _digits(numbers: Ints) -> Bytes2D:
    """Sixteen decimal digits a row, as text, by a table of four digits at a time."""
    table = _four_digits()
    groups = np.empty((len(numbers), 4), np.uint32)
    rest = numbers
    for column in (3, 2, 1):
        rest, low = np.divmod(rest, 10_000)
        groups[:, column] = table[low]
    groups[:, 0] = table[rest]
    return groups.view(np.uint8)


@cache
def _four_digits() -> npt.NDArray[np.uint32]:
    return np.frombuffer(b"".join(b"%04d" % i for i in range(10_000)), np.uint32)


# --- reading --------------------------------------------------------------------------------------------------------


def parse_identities(values: Sequence[bytes | None]) -> Identities:
    """The three columns from the header's values; a value that cannot be read counts as none."""
    n = len(values)
    if n >= FEW:
        fast = _parse_columns(values)
        if fast is not None:
            return fast
    parsed = [_parse_one(v) for v in values]
    producers = [p for p, _, _ in parsed]
    sequences = [s for _, s, _ in parsed]
    if n and producers[0] is not None and producers.count(producers[0]) == n:
        ordered: Sequence[int | None] = sequences
        if all(a is not None and b == a + 1 for a, b in pairwise(sequences)):
            ordered = range(sequences[0] or 0, (sequences[0] or 0) + n)
        return Identities(Same(producers[0], n), ordered, [t for _, _, t in parsed])
    return Identities(producers, sequences, [t for _, _, t in parsed])


def _parse_one(value: bytes | None) -> tuple[bytes | None, int | None, int | None]:
    found = _PATTERN.match(value) if value is not None else None
    if found is None:
        return None, None, None
    sequence, timestamp = int(found[2]), int(found[3])
    if sequence >= _TOP or timestamp >= _TOP:
        return None, None, None
    return bytes.fromhex(found[1].decode()), sequence, timestamp or None


def _parse_columns(values: Sequence[bytes | None]) -> Identities | None:
    n = len(values)
    try:
        if set(map(len, values)) != {WIDTH}:  # type: ignore[arg-type]  # a None among them is the TypeError below
            return None
    except TypeError:
        return None
    rows = np.frombuffer(b"".join(values), np.uint8).reshape(n, WIDTH)  # type: ignore[arg-type]
    if not (rows[:, HEX :: DIGITS + 1] == SLASH).all():
        return None
    # Both numbers at once: of a few hundred rows it is NumPy's fixed costs that count.
    digits = np.concatenate((rows[:, HEX + 1 : HEX + 1 + DIGITS], rows[:, HEX + DIGITS + 2 :]))
    numbers = _numbers(digits)
    if numbers is None:
        return None
    sequences, timestamps = numbers[:n], numbers[n:]
    heads = np.ascontiguousarray(rows[:, :HEX])
    words = heads.view(np.uint64)
    producers: Sequence[bytes | None]
    try:
        if (words == words[0]).all():
            producers = Same(_producer(heads[0].tobytes()), n)
        else:
            raw = heads.tobytes()
            known: dict[bytes, bytes] = {}
            producers = []
            for i in range(0, n * HEX, HEX):
                text = raw[i : i + HEX]
                found = known.get(text)
                if found is None:
                    found = known[text] = _producer(text)
                producers.append(found)
    except ValueError:
        return None
    first = int(sequences[0])
    ordered: Any = sequences
    if int(sequences[-1]) == first + n - 1 and bool((sequences[1:] - sequences[:-1] == 1).all()):
        ordered = range(first, first + n)
    times: Any = timestamps
    if not timestamps.all():
        times = Same(None, n) if not timestamps.any() else [int(t) or None for t in timestamps]
    return Identities(producers, ordered, times)


def _producer(text: bytes) -> bytes:
    # bytes.fromhex skips blanks, which no writer of ours makes.
    if not text.isalnum():
        raise ValueError(text)
    return bytes.fromhex(text.decode("ascii"))


def _numbers(digits: Bytes2D) -> Ints | None:
    """Sixteen digits a row, without gaps → numbers, eight digits at a time; None if anything is not a digit.

    Eight ASCII digits in one 64-bit word are folded in pairs, as in D. Lemire, "Quickly parsing eight digits" (2018).
    """
    values = digits - np.uint8(ZERO)
    if values.max() > 9:
        return None
    words = values.view("<u8")
    words = words * np.uint64(10) + (words >> np.uint64(8))
    mask = np.uint64(0x000000FF000000FF)
    folded = (
        (words & mask) * np.uint64(0x000F424000000064)
        + ((words >> np.uint64(16)) & mask) * np.uint64(0x0000271000000001)
    ) >> np.uint64(32)
    halves = (folded & np.uint64(0xFFFFFFFF)).astype(np.int64)
    result: Ints = halves[:, 0] * 100_000_000 + halves[:, 1]
    return result
