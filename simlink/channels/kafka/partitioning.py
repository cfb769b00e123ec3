"""Which partition a message goes to: murmur2 of its key, as Kafka's own Java client has it, for both Python clients.

It is worked out here, a batch at a time, and not by the clients: they disagree with each other by default, and a
sender must know the partition to keep the order of what it sends again.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from simlink.message import Same

__all__ = ["choose_partitions", "murmur2", "murmur2_many"]

SEED = 0x9747B28C
M = 0x5BD1E995
R = 24
MASK = 0xFFFFFFFF
POSITIVE = 0x7FFFFFFF
FEW = 24
"""Below so many keys the remembered hashes of a loop are faster than NumPy's fixed costs."""
LONG = 256
"""Longer keys are hashed one by one: a matrix as wide as the longest would be mostly padding."""

Ints = npt.NDArray[np.int64]


@lru_cache(maxsize=16_384)
def murmur2(key: bytes) -> int:
    """MurmurHash2, 32 bits, with Kafka's seed (org.apache.kafka.common.utils.Utils.murmur2), as an unsigned number."""
    length = len(key)
    words = length // 4
    h = SEED ^ length
    for k in struct.unpack_from(f"<{words}I", key):
        mixed = k * M & MASK
        mixed = (mixed ^ mixed >> R) * M & MASK
        h = (h * M & MASK) ^ mixed
    if tail := key[words * 4 :]:
        h = (h ^ int.from_bytes(tail, "little")) * M & MASK
    h = (h ^ h >> 13) * M & MASK
    return h ^ h >> 15


def murmur2_many(keys: Sequence[bytes]) -> Ints:
    """`murmur2` of every key."""
    if len(keys) < FEW:
        return np.array([murmur2(k) for k in keys], np.int64)
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    longest = int(lengths.max())
    if longest > LONG:
        return np.array([murmur2(k) for k in keys], np.int64)
    # One word of padding more than the longest key fills, so that every key has a last, partial word (perhaps empty).
    width = longest // 4 * 4 + 4
    padded = b"".join([k.ljust(width, b"\0") for k in keys])
    words = np.frombuffer(padded, "<u4").reshape(len(keys), width // 4)
    m = np.uint32(M)
    h = np.uint32(SEED) ^ lengths.astype(np.uint32)
    full = lengths // 4
    shortest = int(full.min())
    for i in range(longest // 4):
        k = words[:, i] * m
        k ^= k >> np.uint32(R)
        k *= m
        mixed = (h * m) ^ k
        h = mixed if i < shortest else np.where(full > i, mixed, h)
    tail = words[np.arange(len(keys)), full]
    h = np.where(lengths % 4 != 0, (h ^ tail) * m, h)
    h ^= h >> np.uint32(13)
    h *= m
    h ^= h >> np.uint32(15)
    return h.astype(np.int64)


def choose_partitions(
    keys: Sequence[bytes | None],
    producers: Sequence[bytes | None],
    sequences: Sequence[int | None],
    position: int,
    count: int,
) -> Ints:
    """The partition of every row, from 0 to ``count - 1``.

    With a key: its hash. Without: in turn by the sequence number, from a start that depends on the producer, so that
    the same message goes to the same partition when it is sent again. (Rows without an identity go by ``position``.)
    """
    n = len(keys)
    if isinstance(keys, Same):
        if keys.value is None:
            return _in_turn(producers, sequences, position, count)
        return np.full(n, (murmur2(keys.value) & POSITIVE) % count, np.int64)
    if None not in keys:
        return (murmur2_many(keys) & POSITIVE) % count  # type: ignore[arg-type]  # there is no None
    turns = _in_turn(producers, sequences, position, count)
    keyed = [i for i, key in enumerate(keys) if key is not None]
    turns[keyed] = (murmur2_many([keys[i] for i in keyed]) & POSITIVE) % count  # type: ignore[misc]  # nor here
    return turns


def _in_turn(producers: Sequence[bytes | None], sequences: Sequence[int | None], position: int, count: int) -> Ints:
    n = len(sequences)
    if isinstance(producers, Same):
        start = _start(producers.value)
        if isinstance(sequences, range):
            return (np.arange(sequences.start, sequences.stop, sequences.step, dtype=np.int64) + start) % count
        if isinstance(sequences, np.ndarray):
            return (sequences.astype(np.int64) + start) % count
    rows = zip(producers, sequences, range(position, position + n), strict=True)
    return np.array([((at if s is None else int(s)) + _start(p)) % count for p, s, at in rows], np.int64)


def _start(producer: bytes | None) -> int:
    return 0 if producer is None else int.from_bytes(producer[:3], "little")
