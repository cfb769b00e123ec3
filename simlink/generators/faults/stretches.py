"""What is sent in one stretch of a source with faults, made from a few blocks of the source."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simlink.block import Block
from simlink.errors import ConfigError
from simlink.generators.faults.fault import BodyFault, Fault, Layout, OrderFault
from simlink.generators.faults.fields import FieldFault
from simlink.generators.field import BLOCK_ROWS
from simlink.generators.source import GeneratorSource, Source
from simlink.generators.steps import Steps

if TYPE_CHECKING:
    from simlink.serializers.serializer import Serializer

__all__ = ["Altered", "Reader"]

Ints = npt.NDArray[np.int64]
_ON_TIME, _COPY, _PUT_OFF = 0, 1, 2
_SLICE = 256


class Altered(list[Any]):
    """Values with changed fields, some of whose bodies are to be damaged.

    Attributes:
        start: the place of the first one in what is sent.
        damage: place in the list → what damages the body, and with which random bits.
        done: (place in the list, fault) → what the damage was, of lines that were written to a file.
        marks: what was done to them, (place in the list, row, fault, detail); only where somebody asked for it.
    """

    def __init__(self, values: Sequence[Any], start: int, damage: dict[int, list[tuple[BodyFault, int]]]) -> None:
        super().__init__(values)
        self.start = start
        self.damage = damage
        self.done: dict[tuple[int, str], list[dict[str, int]]] = {}
        self.marks: list[tuple[int, int, str, dict[str, Any]]] = []

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            return super().__getitem__(index)
        first, stop, _ = index.indices(len(self))
        damage = {at - first: how for at, how in self.damage.items() if first <= at < stop}
        return Altered(super().__getitem__(index), self.start + first, damage)

    def encode(self, serializer: Serializer) -> list[bytes]:
        """The bodies, damaged."""
        bodies = serializer.dumps_many(self)
        for at, how in self.damage.items():
            for fault, word in how:
                bodies[at] = fault.damage(bodies[at], word)
        return bodies


@dataclass(slots=True)
class _Sent:
    """What is sent in one stretch: the rows in order, and the labels with places from the stretch's first on."""

    rows: Ints
    copies: npt.NDArray[np.bool_]
    marks: list[tuple[int, int, str, dict[str, Any]]]


class Reader:
    """Makes the stretches of a source that can be sought, or of one that is read from its beginning.

    A few blocks are kept: those from which something may have been put off.
    """

    def __init__(self, source: Source, faults: Sequence[Fault]) -> None:
        self._source = source
        self._ordering = [f for f in faults if isinstance(f, OrderFault)]
        self._fields = [f for f in faults if isinstance(f, FieldFault)]
        self._bodies = [f for f in faults if isinstance(f, BodyFault)]
        self._base: OrderedDict[int, Sequence[Any]] = OrderedDict()
        self._layouts: OrderedDict[int, Layout] = OrderedDict()
        self._cooked: OrderedDict[int, tuple[list[Any], dict[int, list[Any]], dict[int, list[Any]]]] = OrderedDict()
        self._stretches: OrderedDict[int, _Sent] = OrderedDict()
        self._first: Any = None
        self._stream: Iterator[Any] | None = None if source.seekable else iter(source.chunks())
        self._buffer: list[Any] = []
        self._read = 0
        self._kept = 4
        for fault in faults:
            fault.ready(self)
        moves = sum(getattr(f, "most", 0) for f in faults)
        self.back = -(-moves // BLOCK_ROWS)
        self._kept = self.back + max([f.reach for f in faults], default=0) + 3

    def _keep(self, cache: OrderedDict[int, Any], block: int, value: Any) -> Any:
        cache[block] = value
        while len(cache) > self._kept:
            cache.popitem(last=False)
        return value

    def base(self, block: int) -> Sequence[Any]:
        """The source's own values of a block."""
        found = self._base.get(block)
        if found is None:
            if block < 0:
                return []
            values = self._seek(block) if self._stream is None else self._next(block)
            if not block:
                self._first = values[0] if values else None
            found = self._keep_base(block, values)
        return found

    def _keep_base(self, block: int, values: Sequence[Any]) -> Sequence[Any]:
        self._base[block] = values
        while len(self._base) > self._kept:
            self._base.popitem(last=False)
        return values

    def ahead(self, block: int) -> Steps[None]:
        """Of a generator: make what stretch ``block`` asks for that none before it did. It is kept."""
        if not isinstance(self._source, GeneratorSource) or not self.rows(block):
            return
        if block not in self._base:
            whole = yield from self._source.generator.block_steps(block)
            values: list[Any] = []
            for at in range(0, len(whole), _SLICE):
                yield "faults: rows"
                values += whole[at : at + _SLICE].rows()
            if not block:
                self._first = values[0]
            self._keep_base(block, values)
        yield "faults: layout"
        self.layout(block)
        yield "faults: fields"
        self._values(block)
        yield "faults: order"
        self.sent(block)

    def _seek(self, block: int) -> list[Any]:
        first = block * BLOCK_ROWS
        length = self._source.length
        if length is not None and first >= length:
            return []
        values: list[Any] = []
        for chunk in self._source.chunks(first, first + BLOCK_ROWS):
            values += chunk.rows() if isinstance(chunk, Block) else chunk
        return values

    def _next(self, block: int) -> list[Any]:
        if block != self._read:
            raise ConfigError(f"{self._source.name} is read from its beginning: block {block} is behind")
        assert self._stream is not None
        while len(self._buffer) < BLOCK_ROWS:
            chunk = next(self._stream, None)
            if chunk is None:
                break
            self._buffer += chunk.rows() if isinstance(chunk, Block) else chunk
        values, self._buffer = self._buffer[:BLOCK_ROWS], self._buffer[BLOCK_ROWS:]
        self._read += 1
        return values

    def first(self) -> Any:
        """The source's first value."""
        if self._first is None:
            self.base(0)
        return self._first

    def rows(self, block: int) -> int:
        """How many there are in a block."""
        if block < 0:
            return 0
        if self._source.seekable and isinstance(self._source, GeneratorSource):
            length = self._source.length
            return BLOCK_ROWS if length is None else max(0, min(BLOCK_ROWS, length - block * BLOCK_ROWS))
        return len(self.base(block))

    def layout(self, block: int) -> Layout:
        """What becomes of the rows of a block."""
        found = self._layouts.get(block)
        if found is None:
            found = Layout(self.rows(block))
            if len(found):
                for fault in self._ordering:
                    fault.arrange(self, block, found)
            self._keep(self._layouts, block, found)
        return found

    def sent(self, stretch: int) -> _Sent:
        """What is sent in the places of a block, and what was done to the order."""
        found = self._stretches.get(stretch)
        if found is None:
            found = self._keep(self._stretches, stretch, self._arranged(stretch))
        return found

    def _arranged(self, stretch: int) -> _Sent:
        low, high = stretch * BLOCK_ROWS, (stretch + 1) * BLOCK_ROWS
        places, rows, kinds = [], [], []
        marks: dict[tuple[int, bool], list[tuple[str, dict[str, Any]]]] = {}
        lost: list[tuple[int, str, dict[str, Any]]] = []
        for block in range(max(0, stretch - self.back), stretch + 1):
            layout = self.layout(block)
            if not len(layout):
                continue
            base = block * BLOCK_ROWS
            own = np.flatnonzero(layout.alive)
            place = own + layout.shift[own] + base
            here = (place >= low) & (place < high)
            own, place = own[here], place[here]
            places.append(place)
            rows.append(own + base)
            kinds.append(np.where(layout.shift[own] > 0, _PUT_OFF, _ON_TIME))
            for at, behind in layout.copies:
                if not layout.alive[at]:
                    continue  # what is dropped is never sent, whichever fault came first
                to = base + at + int(layout.shift[at]) + behind
                if low <= to < high:
                    places.append(np.array([to]))
                    rows.append(np.array([base + at]))
                    kinds.append(np.array([_COPY if not behind and not layout.shift[at] else _PUT_OFF + 1]))
            for at, name, detail, copy in layout.marks:
                if not layout.alive[at]:
                    if name in ("drop", "gap") and block == stretch:
                        lost.append((base + at, name, detail))
                else:
                    marks.setdefault((base + at, copy), []).append((name, detail))
        if not places:
            return _Sent(np.empty(0, np.int64), np.empty(0, np.bool_), [])
        place, row, kind = np.concatenate(places), np.concatenate(rows), np.concatenate(kinds)
        order = np.lexsort((row, kind, place))
        place, row, kind = place[order], row[order], kind[order]
        copies = (kind == _COPY) | (kind == _PUT_OFF + 1)
        out = [(int(np.searchsorted(place, at)), at, name, detail) for at, name, detail in lost]
        if marks:
            touched = np.flatnonzero(np.isin(row, np.fromiter({r for r, _ in marks}, np.int64)))
            for at in touched.tolist():
                for name, detail in marks.get((int(row[at]), bool(copies[at])), ()):
                    out.append((at, int(row[at]), name, detail))
        return _Sent(row.astype(np.int64), copies, out)

    def _values(self, block: int) -> tuple[list[Any], dict[int, list[Any]], dict[int, list[Any]]]:
        """The changed values of a block, what was changed where, and which bodies are to be damaged."""
        found = self._cooked.get(block)
        if found is not None:
            return found
        values, layout = list(self.base(block)), self.layout(block)
        marks: dict[int, list[Any]] = {}
        damage: dict[int, list[Any]] = {}
        for fault in self._fields:
            for at, value, detail in list(fault.edit(self, block, values, layout)):
                values[at] = value
                marks.setdefault(at, []).append((fault.name, detail))
        for body in self._bodies:
            struck = [at for at in body.hits(block, len(values)).tolist() if layout.alive[at]]
            words = body.draws(block, "how") if struck else None
            for at in struck:
                assert words is not None
                damage.setdefault(at, []).append((body, int(words[at])))
                marks.setdefault(at, []).append((body.name, body.detail()))
        made = (values, marks, damage)
        self._keep(self._cooked, block, made)
        return made

    def made(self, stretch: int) -> tuple[Altered, list[tuple[int, int, str, dict[str, Any]]]]:
        """The values of a stretch (``start`` is not set yet), and all that was done: (place, row, fault, detail)."""
        sent = self.sent(stretch)
        values: list[Any] = []
        marks = list(sent.marks)
        damage: dict[int, list[Any]] = {}
        blocks = sent.rows // BLOCK_ROWS
        parts = {block: self._values(block) for block in np.unique(blocks).tolist()}
        single = next(iter(parts.values()))[0] if len(parts) == 1 else None
        offsets = (sent.rows % BLOCK_ROWS).tolist()
        if single is not None:
            values = [single[at] for at in offsets]
        else:
            values = [parts[block][0][at] for block, at in zip(blocks.tolist(), offsets, strict=True)]
        for block, (_, done, bad) in parts.items():
            if not done:
                continue
            where = np.flatnonzero(blocks == block)
            mine = np.fromiter(done, np.int64) + block * BLOCK_ROWS
            for at in where[np.isin(sent.rows[where], mine)].tolist():
                offset = offsets[at]
                if offset in bad:
                    damage[at] = bad[offset]
                if not sent.copies[at]:
                    marks += [(at, int(sent.rows[at]), name, detail) for name, detail in done[offset]]
        marks.sort(key=lambda mark: mark[:2])
        return Altered(values, 0, damage), marks

    def ended(self, stretch: int) -> bool:
        """Whether nothing is sent from this stretch on."""
        return all(not self.rows(block) for block in range(max(0, stretch - self.back), stretch + 1))
