"""`verify`: make again what should have come, from the seed, and compare."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from simlink.block import Block
from simlink.channels.driver import Order
from simlink.errors import ConfigError, DecodeError, NotSupported
from simlink.generators.source import Source, as_source, key_column
from simlink.ledger import Ledger, RowSet
from simlink.ledger.accounts import by_producer, identified
from simlink.running.sheet import Sheet

if TYPE_CHECKING:
    from simlink.channels.receiver import Receiver
    from simlink.message import Batch
    from simlink.serializers.serializer import Serializer

__all__ = ["Difference", "Verification", "Verifier", "verify"]

_BLOCK = 4096
_CACHE_BYTES = 64 * 1024 * 1024
_SHOWN = 10
_Ints: TypeAlias = "npt.NDArray[np.int64]"


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that came with another body than it was sent with.

    Attributes:
        row: its index in the source.
        expected: the body that the source and the serializer make.
        got: the body that came.
    """

    row: int
    expected: bytes
    got: bytes

    def __str__(self) -> str:
        return f"row {self.row}: expected {_short(self.expected)}, got {_short(self.got)}"


def _short(body: bytes) -> str:
    return repr(body if len(body) <= 120 else body[:117] + b"...")


@dataclass(frozen=True, kw_only=True)
class Verification(Sheet):
    """What a comparison with the source found.

    Attributes:
        source, seed: what it was compared with.
        expected: how many records should have come.
        received: messages that came.
        unique: different records among them that were expected.
        lost: expected records that did not come.
        duplicated: messages whose record had come before.
        redelivered: messages that the transport had marked as handed out again: so many repeats it owns up to.
        reordered: records that came for the first time after a later one of the same sender and key; without a key, of
            the same sender.
        corrupt: messages with another body than the source makes.
        unexpected: messages that belong to no expected record: without an identity, or of a row that is not there.
        beyond: messages of later rows of the source than were asked for.
        order_kept: False when records of one key came out of order on a transport that promises their order.
        missing: the first lost rows, at most 10.
        differences: the first corrupt ones, at most 10.
        seconds, rate: from the first to the last message; messages a second.
        latency_ms: from the intended send time to the comparison: p50, p90, p99, max; None where nothing is stamped.
    """

    source: str
    seed: int | None
    expected: int
    received: int
    unique: int
    lost: int
    duplicated: int
    redelivered: int
    reordered: int
    corrupt: int
    unexpected: int
    beyond: int
    order_kept: bool
    missing: tuple[int, ...]
    differences: tuple[Difference, ...]
    seconds: float
    rate: float
    latency_ms: dict[str, float] | None

    @property
    def ok(self) -> bool:
        """Nothing is lost, corrupt or unexpected, no more is repeated than at-least-once allows, and the order that the
        transport promises was kept."""
        wrong = self.lost or self.corrupt or self.unexpected
        return not wrong and self.duplicated <= self.redelivered and self.order_kept

    def __bool__(self) -> bool:
        return self.ok

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as ``--json`` prints them."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["missing"] = list(self.missing)
        out["differences"] = [str(d) for d in self.differences]
        out["ok"] = self.ok
        return out

    def _rows(self) -> list[tuple[str, str]]:
        names = ("expected", "received", "unique", "lost", "duplicated", "reordered", "corrupt", "unexpected", "beyond")
        hidden = ("unexpected", "beyond")
        rows = [(name, f"{getattr(self, name):,}") for name in names if name not in hidden or getattr(self, name)]
        rows.append(("rate", f"{self.rate:,.1f}/s in {self.seconds:.3f} s"))
        if self.latency_ms is not None:
            rows.append(("latency", ", ".join(f"{n} {v:,.2f} ms" for n, v in self.latency_ms.items())))
        if self.missing:
            more = ", …" if self.lost > len(self.missing) else ""
            rows.append(("missing", "rows " + ", ".join(map(str, self.missing)) + more))
        rows += [("differs", str(d)) for d in self.differences]
        rows.append(("seed", "none" if self.seed is None else str(self.seed)))
        return rows

    def _title(self) -> str:
        return f"{self.source}: {'complete and unchanged' if self.ok else 'NOT as sent'}"


def verify(
    receiver: Receiver,
    source: Any,
    *,
    count: int | None = None,
    on: str | None = None,
    senders: int = 1,
    timeout: float | None = 30.0,
) -> Verification:
    """Read until every expected record has come, and compare each with what the source makes again.

    A message is found in the source by its sequence, which in a run is the row index. Its body is compared with what
    the receiver's serializer makes of that row, byte by byte; where it differs, the decoded values are compared.
    Messages are acknowledged after they are booked. Memory is bounded: the source is made again block by block, and at
    most 64 MiB of it are kept.

    Args:
        receiver: of the channel that was sent to; ``settle="auto"`` or ``"manual"``.
        source: the generator (with the seed) that was sent, or a list, a replay, a function that returns an iterator.
        count: how many of its rows were sent; not needed where the source has a length.
        on: the name of a field whose value tells the row, for messages of foreign senders; its values must differ from
            row to row. Costs 16 bytes a row besides.
        senders: how many runs each sent all of it. The workers of one run are one sender.
        timeout: seconds to wait for the next message, each time; then what has not come is lost. None waits for ever.

    Raises:
        ConfigError: no count for an endless source; an ``on`` field that is not there, or whose values repeat.
        NotSupported: the transport carries no identity, and ``on`` is not given.
        StateError, ConfigError: the source has been read, and cannot be made again, or it ends before ``count``.
        ReceiveError and its kind: the receiving end broke.
    """
    verifier = Verifier(receiver, source, count=count, on=on, senders=senders)
    # The receiver ends an iteration by itself after so many quiet seconds (while something is assigned to it).
    before, receiver.idle = receiver.idle, timeout
    try:
        for batch in receiver.batches():
            verifier.book(batch)
            if receiver.manual:
                batch.ack()
            if verifier.complete:
                break
        receiver.acknowledge()
    finally:
        receiver.idle = before
    return verifier.result()


class Verifier:
    """The comparison, a batch at a time, for those who read themselves. Arguments and errors as for `verify`."""

    def __init__(
        self, receiver: Receiver, source: Any, *, count: int | None = None, on: str | None = None, senders: int = 1
    ) -> None:
        origin = as_source(source)
        lengths = [n for n in (count, origin.length) if n is not None]
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
            raise ConfigError(f"count is a number of records from 0 up, not {count!r}")
        if not lengths:
            raise ConfigError(f"{origin.name} has no end: say with count= how many of its records were sent")
        if isinstance(senders, bool) or not isinstance(senders, int) or senders < 1:
            raise ConfigError(f"senders is a number from 1 up, not {senders!r}")
        if on is not None and senders > 1:
            raise ConfigError("on= tells rows, not senders: it goes with one sender")
        capabilities = receiver.channel.capabilities
        if on is None and not capabilities.identity:
            raise NotSupported(f"{receiver.channel.url} carries no identity: verify by a field, with on=")
        self.source = origin
        self.count = min(lengths)
        self.senders = senders
        self.ledger = Ledger()
        self._receiver = receiver
        self._serializer = receiver.serializer
        self._ordered = capabilities.order is Order.EXCLUSIVE
        self._redelivered = receiver.stats()["redelivered"]
        self._oracle = Oracle(origin, self._serializer, self.count)
        self._on = on
        self._index = None if on is None else _Index(self._oracle, on, self.count)
        # With one sender, rows are what counts, whichever of its workers (or of its lives) sent them.
        self._rows = RowSet()
        self._duplicated = 0
        self._corrupt = self._unexpected = self._beyond = 0
        self._differences: list[Difference] = []
        self._first = self._last = 0.0

    def book(self, batch: Batch) -> None:
        """Book and compare the messages of a batch."""
        if not len(batch):
            return
        now = time.monotonic()
        if not self.ledger.received:
            self._first = now
        self._last = now
        self.ledger.book(batch)
        if self._index is not None:
            self._by_field(batch, self._index)
            return
        for producer, chosen in by_producer(batch):
            if producer is None:
                self._unexpected += len(batch) if chosen is None else len(chosen)
                continue
            sequences, _ = identified(batch, chosen)
            bodies = batch.bodies if chosen is None else [batch.bodies[r] for r in chosen]
            self._compare(np.asarray(sequences, np.int64), bodies)

    def _compare(self, rows: _Ints, bodies: Sequence[bytes]) -> None:
        if int(rows.max()) >= self.count:
            # A longer run than was asked about is no fault; it is not compared either.
            inside = rows < self.count
            self._beyond += len(rows) - int(np.count_nonzero(inside))
            bodies = [bodies[i] for i in np.flatnonzero(inside).tolist()]
            rows = rows[inside]
            if not len(rows):
                return
        if self.senders == 1:
            firsts = self._rows.add(rows)
            if firsts is not None:
                self._duplicated += len(rows) - int(np.count_nonzero(firsts))
        expected = self._oracle.bodies(rows)
        if (bodies if isinstance(bodies, list) else list(bodies)) != expected:
            for row, want, got in zip(rows.tolist(), expected, bodies, strict=True):
                if want != got:
                    self._differ(row, want, got)

    def _differ(self, row: int, expected: bytes, got: bytes) -> None:
        values = self._serializer.loads_many([expected, got])
        if not isinstance(values[1], DecodeError) and bool(values[0] == values[1]):
            return
        self._corrupt += 1
        if len(self._differences) < _SHOWN:
            self._differences.append(Difference(row, expected, got))

    def _by_field(self, batch: Batch, index: _Index) -> None:
        values, bodies = [], []
        for value, body in zip(batch.outcomes, batch.bodies, strict=True):
            if isinstance(value, DecodeError):
                self._unexpected += 1
            else:
                values.append(value)
                bodies.append(body)
        if not values:
            return
        rows = index.rows_of(values)
        known = rows >= 0
        self._unexpected += len(rows) - int(np.count_nonzero(known))
        if known.any():
            self._compare(rows[known], [bodies[i] for i in np.flatnonzero(known).tolist()])

    @property
    def complete(self) -> bool:
        """Whether every expected record has come."""
        if self.senders == 1:
            return self._rows.count >= self.count
        accounts = list(self.ledger.accounts.values())
        whole = sum(1 for a in accounts if a.rows.count >= self.count and a.rows.below(self.count) == self.count)
        return whole >= self.senders

    def result(self) -> Verification:
        """What has been found so far."""
        ledger = self.ledger
        if self.senders == 1:
            unique, duplicated = self._rows.count, self._duplicated
            lost = self.count - unique
            missing = tuple(islice(self._rows.missing(self.count), _SHOWN))
        else:
            there = sorted((a.rows.below(self.count) for a in ledger.accounts.values()), reverse=True)
            unique, duplicated = sum(there), ledger.duplicated
            lost = self.count * self.senders - sum(there[: self.senders])
            gaps: Iterator[int] = (row for a in ledger.accounts.values() for row in a.rows.missing(self.count))
            missing = tuple(islice(gaps, _SHOWN))
        seconds = self._last - self._first
        return Verification(
            source=self.source.name,
            seed=self.source.seed,
            expected=self.count * self.senders,
            received=ledger.received,
            unique=unique,
            lost=lost,
            duplicated=duplicated,
            redelivered=self._receiver.stats()["redelivered"] - self._redelivered,
            reordered=ledger.reordered,
            corrupt=self._corrupt,
            unexpected=self._unexpected,
            beyond=self._beyond,
            order_kept=not (self._ordered and ledger.reordered_keyed),
            missing=missing,
            differences=tuple(self._differences),
            seconds=round(seconds, 6),
            rate=round(ledger.received / seconds, 3) if seconds > 0 else 0.0,
            latency_ms=ledger.latency.as_ms(),
        )


class Oracle:
    """The bodies that a source makes, row by row, in any order; at most 64 MiB of them are kept.

    Args:
        count: rows from there on are never asked for.
    """

    def __init__(self, source: Source, serializer: Serializer, count: int) -> None:
        self._source = source
        self._serializer = serializer
        self._count = count
        self._kept: OrderedDict[int, tuple[list[bytes], int]] = OrderedDict()
        self._nbytes = 0
        # Where a source is not seekable it is read from its beginning, and once more when a row is asked for that lies
        # behind what is kept.
        self._ahead: Iterator[tuple[int, list[Any] | Block]] | None = None
        self._at = 0

    def bodies(self, rows: _Ints) -> list[bytes]:
        """The bodies of these rows."""
        first, last = int(rows[0]), int(rows[-1])
        base = first // _BLOCK
        if last - first == len(rows) - 1 and base == last // _BLOCK and bool((np.diff(rows) == 1).all()):
            return self.block(base)[first - base * _BLOCK : last + 1 - base * _BLOCK]
        out: list[bytes] = []
        block, here = -1, []
        for row in rows.tolist():
            if row >> 12 != block:
                block = row >> 12
                here = self.block(block)
            out.append(here[row & (_BLOCK - 1)])
        return out

    def block(self, k: int) -> list[bytes]:
        """The bodies of the rows ``4096 k …``."""
        found = self._kept.get(k)
        if found is not None:
            self._kept.move_to_end(k)
            return found[0]
        for number, values in self._made(k):
            bodies = self._serializer.dumps_many(values)
            size = sum(map(len, bodies))
            self._kept[number] = (bodies, size)
            self._nbytes += size
            while self._nbytes > _CACHE_BYTES and len(self._kept) > 2:
                self._nbytes -= self._kept.popitem(last=False)[1][1]
            if number == k:
                return bodies
        raise ConfigError(f"{self._source.name} has no row {k * _BLOCK}: it ended before; give the count that was sent")

    def values(self, k: int) -> list[Any] | Block:
        """The rows ``4096 k …`` as the source makes them."""
        for number, values in self._made(k):
            if number == k:
                return values
        raise ConfigError(f"{self._source.name} has no row {k * _BLOCK}: it ended before; give the count that was sent")

    def _made(self, k: int) -> Iterator[tuple[int, list[Any] | Block]]:
        """Block ``k``; of a source that is not seekable, whatever comes before it too."""
        first = k * _BLOCK
        stop = min(first + _BLOCK, self._count)
        if self._source.seekable:
            yield k, _joined(list(self._source.chunks(first, stop, _BLOCK)))
            return
        if self._ahead is None or self._at > k:
            self._ahead = self._read()
        for number, values in self._ahead:
            self._at = number + 1
            yield number, values
            if number >= k:
                return

    def _read(self) -> Iterator[tuple[int, list[Any] | Block]]:
        self._at = number = 0
        rows: list[Any] = []
        for chunk in self._source.chunks(0, self._count, _BLOCK):
            rows += chunk.rows() if isinstance(chunk, Block) else chunk
            while len(rows) >= _BLOCK:
                yield number, rows[:_BLOCK]
                rows = rows[_BLOCK:]
                number += 1
        if rows:
            yield number, rows


def _joined(chunks: list[list[Any] | Block]) -> list[Any] | Block:
    if len(chunks) == 1:
        return chunks[0]
    return [row for chunk in chunks for row in (chunk.rows() if isinstance(chunk, Block) else chunk)]


class _Index:
    """From the value of a field to its row, 16 bytes a row: hashes, sorted."""

    def __init__(self, oracle: Oracle, field: str, count: int) -> None:
        self._field = field
        hashes = np.empty(count, np.int64)
        for first in range(0, count, _BLOCK):
            column = self._hashes(oracle.values(first // _BLOCK))
            hashes[first : first + len(column)] = column
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]
        same = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        if len(same):
            rows = sorted(self._order[same[0] : same[0] + 2].tolist())
            raise ConfigError(f"on={field!r} does not tell the rows: rows {rows[0]} and {rows[1]} have the same value")

    def _hashes(self, values: list[Any] | Block) -> _Ints:
        # As a key: text, bytes and integers, whatever they were decoded into.
        keys = key_column(values, self._field)
        return np.fromiter(map(hash, keys), np.int64, len(keys))

    def rows_of(self, values: list[Any]) -> _Ints:
        """The rows, -1 where there is none."""
        try:
            hashes = self._hashes(values)
        except ConfigError:
            # Some value has no such field; find out which one by one.
            return np.asarray([self._row_of(value) for value in values], np.int64)
        at = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        return np.where(self._sorted[at] == hashes, self._order[at], -1).astype(np.int64)

    def _row_of(self, value: Any) -> int:
        try:
            hashes = self._hashes([value])
        except ConfigError:
            return -1
        at = min(int(np.searchsorted(self._sorted, hashes[0])), len(self._sorted) - 1)
        return int(self._order[at]) if self._sorted[at] == hashes[0] else -1
