"""A source with faults, and the ground truth of what was done to it.

What is sent is a stream of its own: without what is dropped, with copies, in another order, with changed fields and
damaged bodies. It is a function of the seed as the source is, so a receiver can make it again; the identity of a
message is its place in this stream. So nothing that was done here looks like a loss, a repeat or a disorder of the
transport.

A row goes to the place of its own row number plus what puts it off; the stream is these places in order. What is sent
around block k of the source comes from that block and the few before it from which something was put off.
"""

from __future__ import annotations

import bisect
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simlink.block import Schema
from simlink.errors import ConfigError
from simlink.generators import seeding
from simlink.generators.faults.fault import Fault
from simlink.generators.faults.stretches import Altered, Reader
from simlink.generators.field import BLOCK_ROWS
from simlink.generators.source import GeneratorSource, Source, as_source, check_range

if TYPE_CHECKING:
    from simlink.generators.preview import Preview

__all__ = ["Altered", "FaultySource", "Label", "apply"]


@dataclass(frozen=True, slots=True)
class Label:
    """What was done to one record.

    Attributes:
        row: of the record in the source.
        place: of the message in what is sent, which is its sequence; of what is not sent, the place of what comes next.
        fault: its name.
        detail: what exactly: the field and the value that ``was`` there, how many ``places`` later, …
    """

    row: int
    place: int
    fault: str
    detail: dict[str, Any]


class FaultySource(Source):
    """A source with faults; made by `apply`, or ``source | fault``.

    Sent by `run`, and verified by `verify`, as any source: ``count`` counts what is sent.

    Attributes:
        base: the source without faults.
        faults: in the order in which they apply: first what becomes of whole records, then of fields, then of bodies.
        seed: of the base, or of the faults where the base has none.
        endless: whether there is no end.
    """

    def __init__(self, base: Source, faults: Sequence[Fault], seed: int | None) -> None:
        self.base = base
        self.given = tuple(faults)
        self._seed_given = seed
        own = base.seed if seed is None else seed
        self.seed = seeding.check_seed(own)
        self.name = base.name
        self.seekable, self.waits = base.seekable, base.waits
        self.endless = base.endless
        names = list(base.generator.schema) if isinstance(base, GeneratorSource) else None
        for fault in self.given:
            if not isinstance(fault, Fault):
                raise ConfigError(f"a fault comes from simlink.faults, not {fault!r}")
            fault.check(names)
        self.faults = tuple(f.placed(self.seed, f"fault.{i}.{f.name}") for i, f in enumerate(self.given))
        self._begin()
        if self.seekable:
            self._shared()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._reader: Reader | None = None
        self._ends: list[int] = []
        self._tallies: dict[int, tuple[int, ...]] = {}

    def __getstate__(self) -> dict[str, Any]:
        gone = {"_lock", "_reader", "_ends", "_tallies"}
        return {name: value for name, value in self.__dict__.items() if name not in gone}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def schema(self) -> Schema | None:
        """Of the records, where the source knows it."""
        return getattr(self.base, "schema", None) or getattr(getattr(self.base, "generator", None), "schema", None)

    @property
    def message_schema(self) -> Schema | None:
        """Of all records, where their schema evolves."""
        return getattr(getattr(self.base, "generator", None), "message_schema", None)

    def __or__(self, fault: Fault) -> FaultySource:
        return apply(self, fault)

    def __repr__(self) -> str:
        return f"<{self.name} with {', '.join(map(repr, self.given))}, seed={self.seed}>"

    def with_seed(self, seed: int | None) -> FaultySource:
        """The same faults of the same records drawn from another seed.

        Raises:
            ConfigError: the base is not drawn from a seed, or no seed.
        """
        if not isinstance(self.base, GeneratorSource):
            raise ConfigError(f"{self.name} is not drawn from a seed")
        return FaultySource(GeneratorSource(self.base.generator.with_seed(seed)), self.given, self._seed_given)

    def _shared(self) -> Reader:
        if self._reader is None:
            self._reader = Reader(self.base, self.faults)
        return self._reader

    def _start(self, stretch: int) -> int:
        """The place of a stretch's first message."""
        reader = self._shared()
        while len(self._ends) < stretch:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(reader.sent(len(self._ends)).rows))
        return self._ends[stretch - 1] if stretch else 0

    def _stretches(self, start: int, first: int = 0, step: int = 1) -> Iterator[tuple[int, Altered, list[Any]]]:
        """(stretch, values, what was done) from the one on that has place ``start``; places are those of the stream."""
        if not self.seekable:
            yield from self._read_through()
            return
        with self._lock:
            reader = self._shared()
            stretch = first
            if start:  # shards are read from their beginning
                stretch = max(stretch, len(self._ends) - 1)
                while not reader.ended(stretch) and self._start(stretch + 1) <= start:
                    stretch += 1
                stretch = min(stretch, bisect.bisect_right(self._ends, start))
        while True:
            with self._lock:
                if reader.ended(stretch):
                    return
                place = self._start(stretch)
                values, marks = reader.made(stretch)
                self._tally(stretch, marks)
            values.start = place
            yield stretch, values, marks
            stretch += step

    def stretches(self) -> Iterator[tuple[int, Altered, list[Any]]]:
        """(its number, its values, what was done as in `stretch`) of every stretch, with its place as the values'
        ``start``."""
        return self._stretches(0)

    def _read_through(self) -> Iterator[tuple[int, Altered, list[Any]]]:
        reader = Reader(self.base, self.faults)
        stretch = place = 0
        while not reader.ended(stretch):
            values, marks = reader.made(stretch)
            values.start = place
            with self._lock:
                self._tally(stretch, marks)
            yield stretch, values, marks
            place += len(values)
            stretch += 1

    def _tally(self, stretch: int, marks: list[Any]) -> None:
        if stretch not in self._tallies:
            counted = Counter(mark[2] for mark in marks)
            self._tallies[stretch] = tuple(counted[name] for name in self._names())

    def _names(self) -> list[str]:
        return list(dict.fromkeys(fault.name for fault in self.given))

    def chunks(self, start: int = 0, stop: int | None = None, size_hint: int = BLOCK_ROWS) -> Iterator[Any]:
        size = check_range(start, stop, size_hint)
        return self._chunks(start, stop, size, 0, 1)

    def _chunks(self, start: int, stop: int | None, size: int, first: int, step: int) -> Iterator[Altered]:
        for made in self._in_steps(start, stop, size, first, step):
            if not isinstance(made, str):
                yield made

    def in_steps(self, stop: int | None = None, size_hint: int = BLOCK_ROWS) -> Iterator[Any]:
        size = check_range(0, stop, size_hint)
        return self._in_steps(0, stop, size, 0, 1)

    def _in_steps(self, start: int, stop: int | None, size: int, first: int, step: int) -> Iterator[str | Altered]:
        # A block is sent in pieces of the asked size, which a Block's own source need not do: values are made already.
        stretches = self._stretches(start, first, step)
        stretch = first
        while True:
            if self.seekable and not start:
                yield from self._ahead(stretch)
            yield f"{self.name}: faults"
            found = next(stretches, None)
            if found is None:
                return
            stretch, values, _ = found
            stretch += step
            if stop is not None and values.start >= stop:
                return
            low = max(0, start - values.start)
            high = len(values) if stop is None else min(len(values), stop - values.start)
            for at in range(low, high, size):
                yield values[at : min(at + size, high)]
            if stop is not None and values.start + len(values) >= stop:
                return

    def _ahead(self, stretch: int) -> Iterator[str]:
        """The steps in which a stretch is made; the lock is not held between them."""
        with self._lock:
            steps = self._shared().ahead(stretch)
        while True:
            with self._lock:
                step = next(steps, None)
            if step is None:
                return
            yield step

    def total(self) -> int:
        """How many messages are sent in all. Draws the faults of every block, and where a fault depends on the values
        (`faults.gap`, `faults.late` by seconds) makes them.

        Raises:
            ConfigError: there is no end.
        """
        if self.endless:
            raise ConfigError(f"{self.name} has no end: say how many are sent")
        if not self.seekable:
            return sum(len(values) for _, values, _ in self._read_through())
        with self._lock:
            reader = self._shared()
            stretch = 0
            while not reader.ended(stretch):
                stretch += 1
            return self._start(stretch)

    def stretches_of(self, count: int | None) -> tuple[int, int | None]:
        """How many stretches (what is sent in the places of one block) hold the first ``count`` messages (all for
        None), and how many of the last one's are among them; None for whatever it has. Costs what `total` does.

        Raises:
            ConfigError: None, and there is no end.
        """
        if count is None and self.endless:
            raise ConfigError(f"{self.name} has no end: say how many are sent")
        with self._lock:
            reader = self._shared()
            stretch = 0
            while not reader.ended(stretch) and (count is None or self._start(stretch + 1) <= count):
                stretch += 1
            if count is None or reader.ended(stretch):
                return stretch, None
            kept = count - self._start(stretch)
            # Labels of a place belong to the message there: those of the next one are not of the first ``count``.
            return (stretch + 1, kept) if kept else (stretch, len(reader.sent(stretch - 1).rows) if stretch else None)

    def stretch(self, number: int) -> tuple[Altered, list[Any]]:
        """What is sent in one stretch, and what was done to it, with places from its own first message on."""
        with self._lock:
            return self._shared().made(number)

    def labels(self, start: int = 0, stop: int | None = None) -> Iterator[Label]:
        """What was done, in the order of the places from ``start`` up to ``stop`` (to the end for None).

        Raises:
            ConfigError: a negative place.
        """
        check_range(start, stop, 1)
        return self._labels(start, stop)

    def _labels(self, start: int, stop: int | None, first: int = 0) -> Iterator[Label]:
        last = None
        # What is dropped at the end of a stretch has the place of what comes after it.
        for _, values, marks in self._stretches(max(0, start - 1), first):
            for at, row, name, detail in marks:
                place = values.start + at
                if place >= start and (stop is None or place < stop):
                    yield Label(row, place, name, detail)
                elif stop is not None and place == stop:
                    last = (last or []) + [Label(row, place, name, detail)]
            if stop is not None and values.start + len(values) > stop:
                return
        # What is dropped at the very end stands before nothing: it belongs to the whole.
        for label in last or ():
            if label.fault in ("drop", "gap"):
                yield label

    def injected(self, count: int | None = None) -> dict[str, int]:
        """How often each fault was done among the first ``count`` messages (all for None): the number of labels by
        name.
        What has been made already is not made again."""
        names = self._names()
        sums = Counter(dict.fromkeys(names, 0))
        done = 0
        with self._lock:
            while self.seekable and done in self._tallies and (count is None or self._start(done + 1) < count):
                sums.update(dict(zip(names, self._tallies[done], strict=True)))
                done += 1
        for label in self._labels(0, count, done):
            sums[label.fault] += 1
        return dict(sums)

    def preview(self, n: int = 5, *, faulty: bool = False) -> Preview:
        """The first ``n`` messages as a table, with the place of each in what is sent and what was done to it; rows
        that are not sent are named at what comes after them. Damage to a body is named, and not shown: it comes with
        the encoding. Of what is read only once the first 4,096 values are used up by it.

        Args:
            n: how many.
            faulty: only those with a fault, of the first million.

        Raises:
            ConfigError: ``n`` is not an integer from 0 up.
        """
        from simlink.generators.faults.shown import preview

        return preview(self, n, faulty)

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the first messages, where looking does not use them up."""
        return self.preview()._repr_html_() if self.seekable else None

    def write(
        self,
        file: str | os.PathLike[str],
        n: int | None = None,
        *,
        format: str | None = None,
        labels: str | os.PathLike[str] | None = None,
        workers: int = 1,
        progress: Callable[[int, int | None], object] | None = None,
    ) -> int:
        """Write the first ``n`` messages (all, where there is an end) to a file, as `Generator.write`; how many.

        `corrupt` and `truncate` damage the lines of NDJSON and CSV. A damaged line stays one line: a byte that would
        end it becomes 0x0B.

        Args:
            file: a path; what is there is replaced. ``"-"`` is standard output (not for Parquet).
            n: how many; None for all.
            format: as of `Generator.write`.
            workers: as of `Generator.write`, where the faults are those of a generator. The labels are the same for any
                number, too. Where a fault depends on the values (`faults.gap`, `faults.late` by seconds), this
                process makes all records to know how many are sent: then more workers gain little.
            progress: as of `Generator.write`.
            labels: a file for what was done, a line of JSON a label: ``row``, ``place`` (the line's number, from 0,
                without the header), ``fault`` and ``detail``; of a damaged line also which byte ``was`` what and is
                ``now``, or how many were ``kept``.

        Raises:
            ConfigError: as `Generator.write`; damage and wrong types for Parquet or Arrow.
            EncodeError: values that the columns of Parquet or Arrow cannot hold.
        """
        from simlink.generators.output.files import write_records

        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 0):
            raise ConfigError(f"expected a number of records from 0 up, not {n!r}")
        return write_records(self, file, n, format, workers, progress, labels)

    def take(self, n: int) -> Source:
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ConfigError(f"take: expected a number of messages from 0 up, not {n!r}")
        return _Part(self, n, 0, 1)

    def shard(self, i: int, n: int) -> Source:
        return _Part(self, None, 0, 1).shard(i, n)

    def shares(self, n: int, most: int | None = None) -> list[int] | None:
        return _Part(self, None, 0, 1).shares(n, most)

    def _shares(self, n: int, stop: int | None, most: int | None) -> list[int]:
        counts = [0] * n
        stretch = done = 0
        with self._lock:
            while not self._shared().ended(stretch) and done != stop and (most is None or min(counts) <= most):
                end = self._start(stretch + 1)
                end = end if stop is None else min(end, stop)
                counts[stretch % n] += end - done
                stretch, done = stretch + 1, end
        return counts


class _Part(Source):
    """The first messages of a source with faults, or the stretches of one worker."""

    def __init__(self, whole: FaultySource, stop: int | None, i: int, n: int) -> None:
        self.whole, self.stop, self.i, self.n = whole, stop, i, n
        self.name, self.seed, self.waits = whole.name, whole.seed, whole.waits
        self.endless = whole.endless and stop is None

    def chunks(self, start: int = 0, stop: int | None = None, size_hint: int = BLOCK_ROWS) -> Iterator[Any]:
        size = check_range(start, stop, size_hint)
        return (made for made in self._in_steps(start, stop, size) if not isinstance(made, str))

    def in_steps(self, stop: int | None = None, size_hint: int = BLOCK_ROWS) -> Iterator[Any]:
        size = check_range(0, stop, size_hint)
        return self._in_steps(0, stop, size)

    def _in_steps(self, start: int, stop: int | None, size: int) -> Iterator[str | Altered]:
        at = 0
        for chunk in self.whole._in_steps(0, self.stop, size, self.i, self.n):
            if isinstance(chunk, str):
                yield chunk
                continue
            low, high = max(0, start - at), len(chunk) if stop is None else min(len(chunk), stop - at)
            if low < high:
                yield chunk[low:high]
            at += len(chunk)
            if stop is not None and at >= stop:
                return

    def shard(self, i: int, n: int) -> Source:
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in (i, n)) or not 0 <= i < n:
            raise ConfigError(f"shard: expected 0 <= i < n, not i={i!r}, n={n!r}")
        if not self.whole.seekable or self.n > 1:
            return super().shard(i, n)
        return _Part(self.whole, self.stop, i, n)

    def shares(self, n: int, most: int | None = None) -> list[int] | None:
        self.shard(0, n)  # refuses what cannot be divided
        return None if self.endless else self.whole._shares(n, self.stop, most)


def apply(source: Any, *faults: Fault, seed: int | None = None) -> FaultySource:
    """A source with faults.

    Args:
        source: whatever `run` sends. Of what is read only once, 4,096 values are read ahead.
        faults: of `simlink.faults`, in any order and number.
        seed: what the faults are drawn from; by default the source's, where it has one, else a random one.

    Raises:
        ConfigError: no faults, or what a fault needs is not in the source.
    """
    if not faults:
        raise ConfigError("apply takes at least one fault, as simlink.faults.drop(0.001)")
    if isinstance(source, FaultySource):
        if seed is not None:
            raise ConfigError("this source has faults, and a seed for them, already")
        return FaultySource(source.base, (*source.given, *faults), source._seed_given)
    base = as_source(source)
    if seed is None and base.seed is None:
        seed = seeding.random_seed()
    return FaultySource(base, faults, seed)
