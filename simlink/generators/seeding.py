"""Where random numbers come from: a pure function of (seed, path, block).

A path names one use of randomness, as ``"click.user_id"``. Its numbers in block ``k`` are the raw 64-bit output of
Philox-4x64-10 (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, 2011) with the key (seed, blake2b-64 of
the path) and a 256-bit counter that starts at ``k`` in its highest word. Blocks are 2**192 steps apart, so that any of
them is made alone, in any order, by any worker.

Everything else is computed from these integers by our own arithmetic, never by a sampling method of NumPy's, which may
change between versions: NumPy promises the output of a bit generator, not that of ``Generator.normal``.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.errors import ConfigError

__all__ = [
    "Floats",
    "Words",
    "check_seed",
    "derive_seed",
    "hash_words",
    "path_key",
    "random_seed",
    "stream",
    "to_open_uniform",
    "to_uniform",
    "words",
]

Words = npt.NDArray[np.uint64]
"""Random 64-bit words."""
Floats = npt.NDArray[np.float64]

_HALF_STEP = 2.0**-53


def check_seed(seed: int | None) -> int:
    """The seed to use: the given one, or a random one of 63 bits where none was given.

    Raises:
        ConfigError: it is not an integer from 0 to 2**64 - 1.
    """
    if seed is None:
        return random_seed()
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= int(seed) < 2**64:
        raise ConfigError(f"a seed is an integer from 0 to 2**64 - 1, not {seed!r}")
    return int(seed)


def random_seed() -> int:
    """A fresh seed of 63 bits, which fits a signed 64-bit integer in every language."""
    return secrets.randbits(63)


@lru_cache(maxsize=4096)
def path_key(path: str) -> int:
    """blake2b-64 of the path, little-endian. Not ``hash()``, which differs between interpreters."""
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little")


def derive_seed(seed: int, path: str, block: int | None = None) -> int:
    """A 64-bit seed for a foreign random source (Faker), from (seed, path) or (seed, path, block)."""
    text = f"{seed}\0{path}" if block is None else f"{seed}\0{path}\0{block}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class _Reused(threading.local):
    """A bit generator of each thread: to set its state takes a fifth of the time of making one."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=np.zeros(2, np.uint64), counter=np.zeros(4, np.uint64))
        self.state = self.philox.state


_reused = _Reused()


def _philox(seed: int, path: str, block: int) -> np.random.Philox:
    return np.random.Philox(
        key=np.array([seed, path_key(path)], np.uint64), counter=np.array([0, 0, 0, block], np.uint64)
    )


def stream(seed: int, path: str, block: int) -> np.random.Generator:
    """NumPy's generator over the numbers of (seed, path, block). Its ``random()`` gives what `to_uniform` makes of
    `words`; anything but ``random()`` may change with the NumPy version."""
    return np.random.Generator(_philox(seed, path, block))


def words(seed: int, path: str, block: int, count: int) -> Words:
    """The first ``count`` 64-bit words of (seed, path, block)."""
    philox, state = _reused.philox, _reused.state
    state["state"] = {
        "key": np.array([seed, path_key(path)], np.uint64),
        "counter": np.array([0, 0, 0, block], np.uint64),
    }
    philox.state = state  # with an empty buffer, as that of a new one
    return np.asarray(philox.random_raw(count), np.uint64)


def to_uniform(raw: Words) -> Floats:
    """Words → doubles in [0, 1), multiples of 2**-53."""
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def to_open_uniform(raw: Words) -> Floats:
    """Words → doubles in (0, 1): never 0, whose logarithm is not finite, and never 1."""
    # 52 bits and a half step: with 53 the topmost value would round to 1.
    return (raw >> np.uint64(12)).astype(np.float64) * 2.0**-52 + _HALF_STEP


_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(x: Words) -> Words:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, 2014), a bijection of 64-bit words."""
    mixed: Words = x >> np.uint64(30)
    mixed ^= x
    mixed *= _MIX_1
    shifted = mixed >> np.uint64(27)
    mixed ^= shifted
    mixed *= _MIX_2
    np.right_shift(mixed, np.uint64(31), out=shifted)
    mixed ^= shifted
    return mixed


def hash_words(seed: int, path: str, keys: Words) -> Words:
    """One random word a key: equal keys give equal words, wherever they stand."""
    first, second = _salts(seed, path)
    once = _mix(keys + first)
    once ^= second
    return _mix(once)


@lru_cache(maxsize=4096)
def _salts(seed: int, path: str) -> tuple[np.uint64, np.uint64]:
    salt = hashlib.blake2b(f"{seed}\0{path}".encode(), digest_size=16).digest()
    return np.uint64(int.from_bytes(salt[:8], "little")), np.uint64(int.from_bytes(salt[8:], "little"))


def hash_value(value: Any) -> int:
    """A 64-bit word for a value used as a key; integers stand for themselves, so that ``1`` in a list and ``1`` in an
    array are the same key."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value & (2**64 - 1)
    text = f"{type(value).__name__}\0{value!r}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
