"""Source: what a run sends, wherever it comes from, in chunks.

`as_source` takes a `Generator`, a `Replay`, a list, an iterator or a generator function. A chunk is a `Block` (a
generator's columns) or a list of values, of at most 4,096 rows; row indices are the sequence numbers of a run.
"""

from __future__ import annotations

import inspect
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from simlink.block import Block, Coded, Column, Lines, Masked, Pool, Struct, as_list
from simlink.errors import ConfigError, StateError, did_you_mean
from simlink.generators.arrivals.schedule import Arrivals
from simlink.generators.generator import BLOCK_ROWS, Generator
from simlink.message import encode_key, has_line_break

__all__ = ["Chunk", "Source", "as_source", "field_of", "key_column"]

Chunk: TypeAlias = "Block | list[Any]"
KeyOf: TypeAlias = "str | Callable[[Any], Any]"


class Source(ABC):
    """Values in order, in chunks.

    Attributes:
        name: for reports.
        seed: of a generator; None where the values do not come from one.
        length: how many values there are, or None where that is not known, or where there is no end.
        endless: whether it surely has no end. How long a file or an iterator is may be unknown, but it has one.
        seekable: whether `chunks` may be called again, and from any row, without reading what comes before.
        waits: whether asking for the next rows may mean to wait for somebody. A run asks such a source for no more than
            the chunk after the one that it is sending; of another one it has some thousand rows ready.
    """

    name: str = "values"
    seed: int | None = None
    length: int | None = None
    endless: bool = False
    seekable: bool = False
    waits: bool = True

    @abstractmethod
    def chunks(self, start: int = 0, stop: int | None = None, size_hint: int = BLOCK_ROWS) -> Iterator[Chunk]:
        """The rows ``start … stop - 1`` (to the end for None), in order, as non-empty chunks of at most
        ``min(size_hint, 4096)`` rows.

        Raises:
            ConfigError: a negative row, or a hint below 1.
            StateError: the rows were read before and cannot be read again.
        """

    def in_steps(self, stop: int | None = None, size_hint: int = BLOCK_ROWS) -> Iterator[str | Chunk]:
        """The rows from 0 on as `chunks` gives them, with the name of each step of the work before it is done: for a
        reader with a deadline. Where the work can be divided, chunks may be longer than the hint.

        Raises:
            As `chunks`.
        """
        return _named(f"{self.name}: rows", self.chunks(0, stop, size_hint))

    def arrivals_of(self, speed: float = 1.0) -> Arrivals | None:
        """The recorded schedule of a replay, ``speed`` times as fast; None where there is none.

        Raises:
            ConfigError: a recording whose times cannot be told, or a bad speed.
        """
        return None

    def shard(self, i: int, n: int) -> Source:
        """The part of worker ``i`` of ``n``.

        Raises:
            ConfigError: only generators can be divided.
        """
        raise ConfigError(f"{self.name}: only a generator can be divided among workers")

    def shares(self, n: int, most: int | None = None) -> list[int] | None:
        """How many rows each of ``n`` shards has (of one that has more than ``most``, at least so many); None where
        there is no end.

        Raises:
            ConfigError: as `shard`.
        """
        lengths = [self.shard(i, n).length for i in range(n)]
        known = [length for length in lengths if length is not None]
        return known if len(known) == n else None

    def take(self, n: int) -> Source:
        """The first ``n`` rows as a source of their own; only for what can be divided, see `shard`.

        Raises:
            ConfigError: only generators can be cut.
        """
        raise ConfigError(f"{self.name}: only a generator can be cut to a length")


def _named(step: str, chunks: Iterator[Chunk]) -> Iterator[str | Chunk]:
    while True:
        yield step
        chunk = next(chunks, None)
        if chunk is None:
            return
        yield chunk


def check_range(start: int, stop: int | None, size_hint: int) -> int:
    """The rows of a chunk.

    Raises:
        ConfigError: a negative row, or a hint below 1.
    """
    if start < 0 or (stop is not None and stop < 0) or size_hint < 1:
        raise ConfigError(f"chunks: expected rows from 0 and a size from 1, not {start}, {stop}, {size_hint}")
    return min(size_hint, BLOCK_ROWS)


class GeneratorSource(Source):
    """A generator, block by block."""

    seekable = True
    waits = False

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.name = generator.name
        self.seed = generator.seed
        self.length = generator.length
        self.endless = generator.length is None

    def chunks(self, start: int = 0, stop: int | None = None, size_hint: int = BLOCK_ROWS) -> Iterator[Chunk]:
        size = check_range(start, stop, size_hint)
        return self._chunks(start, stop, size)

    def _chunks(self, start: int, stop: int | None, size: int) -> Iterator[Block]:
        for block in self.generator.blocks(start, stop):
            if len(block) <= size:
                yield block
            else:
                for first in range(0, len(block), size):
                    yield block[first : first + size]

    def in_steps(self, stop: int | None = None, size_hint: int = BLOCK_ROWS) -> Iterator[str | Chunk]:
        check_range(0, stop, size_hint)
        return self._in_steps(stop)

    def _in_steps(self, stop: int | None) -> Iterator[str | Chunk]:
        length = self.generator.length
        end = length if stop is None else stop if length is None else min(stop, length)
        k = 0
        while end is None or k * BLOCK_ROWS < end:
            block = yield from self.generator.block_steps(k)
            k += 1
            yield block if end is None else block[: end - (k - 1) * BLOCK_ROWS]

    def shard(self, i: int, n: int) -> Source:
        return GeneratorSource(self.generator.shard(i, n))

    def take(self, n: int) -> Source:
        return GeneratorSource(self.generator.take(n))


class SequenceSource(Source):
    """A list, a tuple, or anything else with a length and slices."""

    seekable = True
    waits = False

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values
        self.length = len(values)

    def chunks(self, start: int = 0, stop: int | None = None, size_hint: int = BLOCK_ROWS) -> Iterator[Chunk]:
        size = check_range(start, stop, size_hint)
        return self._chunks(start, len(self.values) if stop is None else min(stop, len(self.values)), size)

    def _chunks(self, start: int, stop: int, size: int) -> Iterator[list[Any]]:
        for first in range(start, stop, size):
            yield list(self.values[first : min(first + size, stop)])


class IterableSource(Source):
    """A generator function or another iterable that begins anew on every pass, or an iterator that has one pass only.

    How long the next value takes is not known before it is there. So the first 64 values come one by one, and so do the
    64 after every wait of more than a millisecond; while values come at once, chunks double up to the hint. Of a source
    that waits, a value is held back only if it came in a quick run of more than 64, and at most with the others of its
    own chunk.
    """

    def __init__(self, make: Callable[[], Iterable[Any]], name: str, *, once: bool) -> None:
        self._make = make
        self._once = once
        self._read = False
        self._lock = threading.Lock()
        self.name = name

    def chunks(self, start: int = 0, stop: int | None = None, size_hint: int = BLOCK_ROWS) -> Iterator[Chunk]:
        size = check_range(start, stop, size_hint)
        with self._lock:
            if self._once and self._read:
                raise StateError(f"{self.name}: an iterator is read once; give a list or a generator function instead")
            self._read = True
        return self._chunks(start, stop, size)

    def _chunks(self, start: int, stop: int | None, size: int) -> Iterator[list[Any]]:
        values = iter(self._make())
        try:
            yield from gather(islice(values, start, stop), size)
        finally:
            # A generator function's `finally` runs now, and not when the garbage collector comes. An iterator that was
            # given as it is stays its owner's.
            close = None if self._once else getattr(values, "close", None)
            if close is not None:
                close()


_SINGLES = 64
_SLOW = 0.001


def gather(values: Iterator[Any], size: int, clock: Callable[[], float] = time.perf_counter) -> Iterator[list[Any]]:
    """Values → lists of at most ``size``, as `IterableSource` says."""
    limit, singles = 1, _SINGLES
    while True:
        before = clock()
        chunk: list[Any] = []
        try:
            chunk.extend(islice(values, limit))
        except Exception:
            # What came before the error is sent; `extend` has kept it.
            if chunk:
                yield chunk
            raise
        if not chunk:
            return
        # One clock reading a chunk: a chunk that took long has waited somewhere in it.
        quick = clock() - before <= _SLOW + 1e-5 * limit
        yield chunk
        if not quick:
            limit, singles = 1, _SINGLES
        elif singles > 0:
            singles -= 1
        else:
            limit = min(limit * 2, size)


def as_source(source: Any) -> Source:
    """Anything that can be sent, as a `Source`.

    A `Generator`, a `Replay` or another `Source`; a list, a tuple or another sequence of values; an iterator (one pass)
    or another iterable; a function without arguments that returns one of them, called anew for every pass.

    Raises:
        ConfigError: it is none of these. A single text, bytes or dict is refused too: it would be taken apart.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, Generator):
        return GeneratorSource(source)
    if isinstance(source, str | bytes | bytearray | Mapping):
        raise ConfigError(f"a source is many values: to send one {type(source).__name__}, put it in a list")
    if hasattr(source, "iterrows"):
        raise ConfigError("a DataFrame is read by its columns: give its to_dict('records'), or fit() it")
    if isinstance(source, AsyncIterable) or inspect.isasyncgenfunction(source) or inspect.iscoroutinefunction(source):
        raise ConfigError("a source is read without an event loop: give an iterator, not an async one")
    if isinstance(source, Sequence):
        return SequenceSource(source)
    if isinstance(source, Iterator):
        return IterableSource(lambda: source, _name_of(source), once=True)
    if isinstance(source, Iterable):
        return IterableSource(lambda: source, _name_of(source), once=False)
    if callable(source) and not isinstance(source, type):
        return IterableSource(lambda: _called(source), _name_of(source), once=False)
    raise ConfigError(f"a source is a generator, a replay, a list, an iterator or a function, not {source!r}")


def _name_of(source: Any) -> str:
    return str(getattr(source, "__name__", None) or type(source).__name__)


def _called(function: Callable[[], Any]) -> Iterable[Any]:
    made = function()
    if not isinstance(made, Iterable) or isinstance(made, str | bytes | Mapping):
        raise ConfigError(f"{_name_of(function)}() returned {type(made).__name__}: a source is many values")
    return made


def key_column(chunk: Chunk, key: KeyOf) -> list[bytes | None]:
    """The key of every row, as the bytes that travel.

    Args:
        chunk: of a source.
        key: the name of a field, with dots into nested records (a field whose own name has dots comes first), or a
            function value → str, bytes, int or None.

    Raises:
        ConfigError: no such field in some row, or a key that is neither str, bytes, int nor None.
    """
    if not isinstance(key, str):
        if not callable(key):
            raise ConfigError(f"a key is a field's name or a function of the value, not {key!r}")
        return [encode_key(key(value)) for value in (chunk.rows() if isinstance(chunk, Block) else chunk)]
    if isinstance(chunk, Lines):
        chunk = chunk.origin
    if isinstance(chunk, Block):
        return _encoded(_column(chunk.columns, key))
    return [encode_key(field_of(value, key)) for value in chunk]


def _column(columns: Mapping[str, Column], key: str) -> Column:
    if key in columns:
        return columns[key]
    name, dot, rest = key.partition(".")
    inner = columns.get(name)
    if dot and isinstance(inner, Struct):
        return _column(inner.columns, rest)
    raise ConfigError(f"no field {key!r}{did_you_mean(key, columns)}")


def _encoded(column: Column) -> list[bytes | None]:
    if isinstance(column, Coded):
        out: list[bytes | None] = _keys_of(column.pool)[column.codes].tolist()
        return out
    if isinstance(column, np.ndarray) and column.dtype.kind in "iu":
        return [b"%d" % value for value in column.tolist()]
    if isinstance(column, Masked):
        keys: list[bytes | None] = [None] * len(column)
        rows = np.flatnonzero(column.present)
        for row, encoded in zip(rows.tolist(), _encoded(column.values.take(rows)), strict=True):
            keys[row] = encoded
        return keys
    values: list[Any] = as_list(column)
    try:
        texts: list[bytes | None] = [value.encode() for value in values]
    except (AttributeError, UnicodeEncodeError):
        return [encode_key(value) for value in values]
    # Looked through at once: one by one it would take longer than the encoding.
    if has_line_break("".join(values)):
        return [encode_key(value) for value in values]
    return texts


def _keys_of(pool: Pool) -> Any:
    known = pool.cache.get("key")
    if known is None:
        keys = [encode_key(value) for value in pool.values]
        known = pool.cache["key"] = np.fromiter(keys, dtype=object, count=len(keys))
    return known


def field_of(value: Any, key: str) -> Any:
    """A field of one value: an item of a mapping or an attribute of an object; dots go into nested ones.

    Raises:
        ConfigError: there is none.
    """
    if isinstance(value, Mapping):
        if key in value:
            return value[key]
        name, dot, rest = key.partition(".")
        if dot and name in value:
            return field_of(value[name], rest)
        raise ConfigError(f"a record has no field {key!r}{did_you_mean(key, map(str, value))}")
    name, dot, rest = key.partition(".")
    try:
        inner = getattr(value, name)
    except AttributeError as error:
        raise ConfigError(f"a {type(value).__name__} has no field {key!r}") from error
    return field_of(inner, rest) if dot else inner
