"""Generator: records in blocks, any of them made alone."""

from __future__ import annotations

import copy
import hashlib
import json
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

from simlink.block import Block, Schema
from simlink.errors import ConfigError
from simlink.generators.field import BLOCK_ROWS
from simlink.generators.seeding import check_seed
from simlink.generators.steps import Steps

if TYPE_CHECKING:
    import os

    import pandas as pd
    import pyarrow as pa

    from simlink.generators.arrivals.schedule import Arrivals
    from simlink.generators.describe import Description
    from simlink.generators.invariant import Invariant
    from simlink.generators.plotting import Plot
    from simlink.generators.preview import Preview

__all__ = ["BLOCK_ROWS", "Generator"]

_ROWS = 2**63


class Generator(ABC):
    """Records as a pure function of a seed, in blocks of 4,096 rows.

    ``g[i]`` is one record as a dict of plain JSON values, ``g[i:j]`` a list of them; neither makes more than the blocks
    in which they stand. Iterating gives all records, for ever where ``length`` is None. It can be pickled (as far as
    the functions given to it can), shared by threads, and used after a fork.

    To write one: `schema` and `make_block`. A block depends on nothing but the seed and its number.

    Attributes:
        name: of the record; its fields' random streams are named after it.
        seed: what everything is drawn from.
        length: how many records there are, or None for no end.
    """

    BLOCK_ROWS = BLOCK_ROWS

    def __init__(self, name: str, seed: int | None = None) -> None:
        self.name = name
        self.seed = check_seed(seed)
        self.length: int | None = None
        self._recent: tuple[int, Block] | None = None

    @property
    @abstractmethod
    def schema(self) -> Schema:
        """The names and types of the fields."""

    @abstractmethod
    def make_block(self, k: int) -> Block:
        """The whole block ``k``: 4,096 rows from row ``4096 * k`` on, whatever `length` says."""

    def make_steps(self, k: int) -> Steps[Block]:
        """The same as `make_block`, in steps; in a single one where a generator cannot be divided."""
        yield f"{self.name}: block"
        return self.make_block(k)

    def block(self, k: int) -> Block:
        """Block ``k``; the last one of a generator with an end may be shorter.

        Raises:
            IndexError: there is no such block.
        """
        rows = self._rows_in(k)
        recent = self._recent
        if recent is None or recent[0] != k:
            # One block is kept, so that g[0], g[1], … do not make it again and again. A tuple is swapped at once: a
            # thread sees the old one or the new one.
            recent = self._recent = (k, self.make_block(k))
        return recent[1][:rows]

    def block_steps(self, k: int) -> Steps[Block]:
        """As `block`, in steps.

        Raises:
            IndexError: there is no such block.
        """
        rows = self._rows_in(k)
        recent = self._recent
        if recent is None or recent[0] != k:
            recent = self._recent = (k, (yield from self.make_steps(k)))
        return recent[1][:rows]

    def _rows_in(self, k: int) -> int:
        if k < 0:
            raise IndexError(f"block {k} of {self.name}")
        if self.length is None:
            return BLOCK_ROWS
        rows = min(self.length - k * BLOCK_ROWS, BLOCK_ROWS)
        if rows <= 0:
            raise IndexError(f"block {k} of {self.name}, which has {self.length} records")
        return rows

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        """The records ``start … stop - 1`` in order, as blocks; those at the edges are cut.

        Raises:
            ConfigError: ``start`` or ``stop`` is negative.
        """
        if start < 0 or (stop is not None and stop < 0):
            raise ConfigError(f"blocks are counted from 0: start={start}, stop={stop}")
        if self.length is not None:
            stop = self.length if stop is None else min(stop, self.length)
        return self._blocks(start, stop)

    def _blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        k = start // BLOCK_ROWS
        while stop is None or k * BLOCK_ROWS < stop:
            first = k * BLOCK_ROWS
            upto = BLOCK_ROWS if stop is None else min(BLOCK_ROWS, stop - first)
            if (low := max(0, start - first)) < upto:
                yield self.block(k)[low:upto]
            k += 1

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """One record, or a list of records.

        Raises:
            IndexError: a row beyond the end, or counted from the end of a generator that has none.
            TypeError: neither a row nor a slice.
            ConfigError: a slice without a stop of a generator without an end.
        """
        if isinstance(index, slice):
            return self._slice(index)
        try:
            row = operator.index(index)
        except TypeError:
            raise TypeError(f"{self.name}: [row] or [start:stop] gives records, not {index!r}") from None
        if row < 0:
            if self.length is None:
                raise IndexError(f"{self.name} has no end to count from: {index}")
            row += self.length
        if row < 0 or (self.length is not None and row >= self.length):
            raise IndexError(f"row {index} of {self.name}, which has {self.length} records")
        if row >= _ROWS:
            raise IndexError(f"row {index} of {self.name}: rows are counted in 63 bits")
        k, at = divmod(row, BLOCK_ROWS)
        return self.block(k)[at : at + 1].rows()[0]

    def _slice(self, index: slice) -> list[dict[str, Any]]:
        if self.length is not None:
            start, stop, step = index.indices(self.length)
        else:
            start = 0 if index.start is None else index.start
            step = 1 if index.step is None else index.step
            if index.stop is None:
                raise ConfigError(f"{self.name} has no end: give the slice a stop, or take(n)")
            stop = index.stop
            if start < 0 or stop < 0:
                raise IndexError(f"{self.name} has no end to count from: [{start}:{stop}]")
        if step == 0:
            raise ValueError("slice step cannot be zero")
        chosen = range(start, stop, step)
        if not chosen:
            return []
        low, high = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1]) + 1
        rows: list[dict[str, Any]] = []
        for block in self.blocks(low, high):
            rows.extend(block.rows())
        if step > 0:
            return rows if step == 1 else rows[::step]
        return rows[::-1][::-step]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for block in self.blocks():
            yield from block.rows()

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError(f"{self.name} has no end; take(n) gives it one")
        return self.length

    def __bool__(self) -> bool:
        return self.length != 0

    def _copy(self) -> Self:
        other = copy.copy(self)
        other._recent = None
        return other

    def take(self, n: int) -> Self:
        """The first ``n`` records, as a generator with an end.

        Raises:
            ConfigError: ``n`` is not an integer from 0 up.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ConfigError(f"take: expected a number of records from 0 up, not {n!r}")
        other = self._copy()
        other.length = n if self.length is None else min(n, self.length)
        return other

    def with_seed(self, seed: int | None) -> Self:
        """The same records drawn from another seed; None draws a random one.

        Raises:
            ConfigError: it is not an integer from 0 to 2**64 - 1.
        """
        other = self._copy()
        other.seed = check_seed(seed)
        return other

    def shard(self, i: int, n: int) -> Generator:
        """The part of worker ``i`` of ``n``: the blocks k with k ≡ i (mod n), in order. Every record is in exactly one
        shard, and its block's ``start`` is still its row in the whole.

        Raises:
            ConfigError: not 0 <= i < n.
        """
        from simlink.generators.shard import Shard

        return Shard(self, i, n)

    def preview(self, n: int = 5) -> Preview:
        """The first ``n`` records as a table: text in a terminal, HTML in a notebook."""
        from simlink.generators.preview import Preview

        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ConfigError(f"preview: expected a number of records from 0 up, not {n!r}")
        return Preview(
            self.name, self.seed, list(self.schema), self[: n if self.length is None else min(n, self.length)]
        )

    def to_pandas(self, n: int | None = None) -> pd.DataFrame:
        """The first ``n`` records as a DataFrame, one column a field; all of them for None, where there is an end.
        Numbers that are None in some rows become pandas' nullable types (``Int64``, ``Float64``, ``boolean``).

        Raises:
            MissingExtra: pandas is not installed.
            ConfigError: None for a generator without an end.
        """
        from simlink.generators.output.frames import to_pandas

        return to_pandas(self, n)

    def to_arrow(self, n: int | None = None) -> pa.Table:
        """The first ``n`` records as an Arrow table, one column a field; all of them for None, where there is an end.

        Raises:
            MissingExtra: pyarrow is not installed.
            ConfigError: None for a generator without an end.
        """
        from simlink.generators.output.frames import to_arrow

        return to_arrow(self, n)

    def describe(self, n: int = 10_000) -> Description:
        """Statistics of the first ``n`` records, a line a field: what is missing, how many different values, mean,
        spread and quantiles of numbers, the most frequent values. Text in a terminal, HTML in a notebook.

        Raises:
            ConfigError: ``n`` is not an integer from 1 up, or there are no records.
        """
        from simlink.generators.describe import describe

        return describe(self, n)

    def plot(self, n: int = 10_000, *, arrivals: Arrivals | None = None) -> Plot:
        """A picture of the first ``n`` records: a histogram of numbers, bars of categories, rank and frequency of keys,
        records over event time, and the rate of ``arrivals`` if given. It shows itself in a notebook; ``save(file)``
        writes .png, .svg, .pdf or .html, ``figure`` is matplotlib's.

        Raises:
            MissingExtra: matplotlib is not installed.
            ConfigError: ``n`` is not an integer from 1 up, or there are no records.
        """
        from simlink.generators.plotting import plot

        return plot(self, n, arrivals)

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema (draft 2020-12) that every record is valid under. ``simlink.Protobuf(g).proto_text()`` is the
        same for Protobuf.

        Raises:
            ConfigError: a field of bytes, which JSON has not.
        """
        from simlink.generators.json_schemas import json_schema

        return json_schema(self.schema)

    def write(
        self,
        file: str | os.PathLike[str],
        n: int | None = None,
        *,
        format: str | None = None,
        workers: int = 1,
        progress: Callable[[int, int | None], object] | None = None,
    ) -> int:
        """Write the first ``n`` records (all, where there is an end) to a file; how many they were. No more than some
        blocks are in memory; with workers, 64 MiB and a block in each.

        Args:
            file: a path; what is there is replaced. ``"-"`` is standard output (not for Parquet).
            n: how many; None for all.
            format: ``"ndjson"``, ``"csv"`` (what is nested is JSON in its cell, None an empty cell), ``"parquet"`` or
                ``"arrow"`` (IPC); by default what the suffix says, else NDJSON.
            workers: processes that make them, this one among them. The others are forked on Linux where this process
                has no other threads, and spawned otherwise (a script then needs ``if __name__ == "__main__":``). The
                file is the same for any number: byte for byte, of Parquet and Arrow the same table.
            progress: called with (records written, records in all) after every part.

        Raises:
            ConfigError: an unknown format, None for a generator without an end, a file that cannot be written.
            MissingExtra: pyarrow is not installed, for Parquet and Arrow.
            EncodeError: a record that the format cannot hold.
            StateError: a worker process ended early. The file then ends with the last record before which none is
                missing.
        """
        from simlink.generators.output.files import write_records
        from simlink.generators.source import GeneratorSource

        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 0):
            raise ConfigError(f"expected a number of records from 0 up, not {n!r}")
        return write_records(GeneratorSource(self), file, n, format, workers, progress)

    def invariants(self) -> Sequence[Invariant]:
        """What holds over all its records together, as empty books for `simlink.verify`; nothing by default."""
        return ()

    def _repr_html_(self) -> str:
        """What a notebook shows: the first records."""
        return self.preview()._repr_html_()

    def digest(self, n: int) -> str:
        """blake2b-128, in hexadecimal, over the first ``n`` records in a canonical form: the JSON of each (fields in
        order, no spaces, ASCII, Python's shortest text of a double, bytes as {"hex": …}) and a newline. For a test."""
        state = hashlib.blake2b(digest_size=16)
        encode = json.JSONEncoder(separators=(",", ":"), default=_canonical, allow_nan=True).encode
        for block in self.blocks(0, n):
            state.update("".join(f"{encode(row)}\n" for row in block.rows()).encode())
        return state.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recent": None}

    def __repr__(self) -> str:
        end = "" if self.length is None else f", length={self.length}"
        return f"<{type(self).__name__} {self.name!r} ({', '.join(self.schema)}), seed={self.seed}{end}>"


def _canonical(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    raise ConfigError(f"a record holds plain values, not {type(value).__name__}: {value!r}")
