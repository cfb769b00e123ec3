"""`verify`: make again what should have come, from the seed, and compare."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from simlink.channels.driver import Order
from simlink.channels.receiver import Receiver
from simlink.errors import ConfigError, DecodeError, NotSupported
from simlink.generators.faults.faulty import FaultySource
from simlink.generators.source import as_source
from simlink.ledger import Ledger, RowSet
from simlink.ledger.accounts import by_producer, identified
from simlink.verification.oracle import Index, Oracle
from simlink.verification.result import Difference, Verification, field_differences

if TYPE_CHECKING:
    from simlink.generators.invariant import Invariant
    from simlink.message import Batch

__all__ = ["Verifier", "verify"]

_SHOWN = 10
_Ints: TypeAlias = "npt.NDArray[np.int64]"


def verify(
    receiver: Receiver | Sequence[Receiver],
    source: Any,
    *,
    count: int | None = None,
    on: str | None = None,
    senders: int = 1,
    invariants: Sequence[Invariant] = (),
    timeout: float | None = 30.0,
) -> Verification:
    """Read until every expected record has come, and compare each with what the source makes again.

    A message is found in the source by its sequence, which in a run is the row index. Its body is compared with what
    the receiver's serializer makes of that row, byte by byte; where it differs, the decoded values are compared.
    Messages are acknowledged after they are booked. Memory is bounded: the source is made again block by block, and at
    most 64 MiB of it are kept.

    Args:
        receiver: of the channel that was sent to; ``settle="auto"`` or ``"manual"``. Or several that share its
            messages, on one or several channels with serializers alike: each is read in a thread of its own (so none
            may have been read before) and is stopped at the end.
        source: the generator (with the seed) that was sent, or a list, a replay, a function that returns an iterator.
        count: how many of its rows were sent; not needed where the source has a length.
        on: the name of a field whose value tells the row, for messages of foreign senders; its values must differ from
            row to row. Costs 16 bytes a row besides.
        senders: how many runs each sent all of it. The workers of one run are one sender.
        invariants: books that must balance over what came, as ``catalog.orders(…).invariants()`` or your own (see
            `simlink.generators.invariant.Invariant`): every record that can be read is entered once, as it came. What
            does not hold is told in `Verification.violations`.
        timeout: seconds to wait for the next message, each time; then what has not come is lost. None waits for ever.

    Raises:
        ConfigError: no count for an endless source; an ``on`` field that is not there, or whose values repeat;
            what is no receiver or no timeout; invariants of several senders, or of a source with faults, which break
            them on purpose.
        NotSupported: the transport carries no identity, and ``on`` is not given.
        StateError, ConfigError: the source has been read, and cannot be made again, or it ends before ``count``.
        ReceiveError and its kind: the receiving end broke.
    """
    receivers = _each(receiver)
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0):
        raise ConfigError(f"timeout is a number of seconds, or None to wait for ever, not {timeout!r}")
    verifier = Verifier(receivers, source, count=count, on=on, senders=senders, invariants=invariants)
    if verifier.complete:
        return verifier.result()
    if len(receivers) == 1:
        _read(verifier, receivers[0], timeout)
    else:
        _read_all(verifier, receivers, timeout)
    return verifier.result()


def _each(receiver: Receiver | Sequence[Receiver]) -> list[Receiver]:
    alone = isinstance(receiver, Receiver | str) or not isinstance(receiver, Iterable)
    receivers: list[Any] = [receiver] if alone else list(receiver)
    for one in receivers:
        if not isinstance(one, Receiver):
            raise ConfigError(f"verify reads receivers, as channel.receiver() makes them, not {one!r:.80}")
    return receivers


def _read(verifier: Verifier, receiver: Receiver, timeout: float | None) -> None:
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


def _read_all(verifier: Verifier, receivers: Sequence[Receiver], timeout: float | None) -> None:
    """A thread for each; until all is there, or nobody has had anything for ``timeout`` seconds."""
    errors: list[BaseException] = []

    def read(receiver: Receiver) -> None:
        try:
            _read(verifier, receiver, None)
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=read, args=(receiver,), name=f"simlink-verify-{i}")
        for i, receiver in enumerate(receivers)
    ]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        while not verifier.complete and not errors and any(thread.is_alive() for thread in threads):
            quiet = time.monotonic() - max(begun, verifier.last)
            if timeout is not None and quiet >= timeout:
                break
            time.sleep(0.02)
    finally:
        for receiver in receivers:
            receiver.stop()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


class Verifier:
    """The comparison, a batch at a time, for those who read themselves; `book` is for any thread. Arguments and errors
    as for `verify`.

    Attributes:
        last: when the last message was booked, on the monotonic clock; 0 before the first.
    """

    def __init__(
        self,
        receiver: Receiver | Sequence[Receiver],
        source: Any,
        *,
        count: int | None = None,
        on: str | None = None,
        senders: int = 1,
        invariants: Sequence[Invariant] = (),
    ) -> None:
        origin = as_source(source)
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
            raise ConfigError(f"count is a number of records from 0 up, not {count!r}")
        length = origin.length
        if isinstance(origin, FaultySource) and not origin.endless:
            length = origin.total()
        lengths = [n for n in (count, length) if n is not None]
        if not lengths:
            raise ConfigError(f"{origin.name} has no end: say with count= how many of its records were sent")
        if isinstance(senders, bool) or not isinstance(senders, int) or senders < 1:
            raise ConfigError(f"senders is a number from 1 up, not {senders!r}")
        if on is not None and senders > 1:
            raise ConfigError("on= tells rows, not senders: it goes with one sender")
        if on is not None and isinstance(origin, FaultySource):
            raise ConfigError("on= looks rows up by a field, which faults repeat and change: verify by identity")
        if invariants and senders > 1:
            raise ConfigError("invariants= are of one sender's records")
        if invariants and isinstance(origin, FaultySource):
            raise ConfigError("invariants= do not hold where faults break them on purpose: verify without one of them")
        for invariant in invariants:
            if not (hasattr(invariant, "add") and hasattr(invariant, "violations") and hasattr(invariant, "name")):
                raise ConfigError(f"an invariant has name, add() and violations(), which {invariant!r} has not")
        self._receivers = _each(receiver)
        if not self._receivers:
            raise ConfigError("verify reads at least one receiver")
        receiver = self._receivers[0]
        capabilities = receiver.channel.capabilities
        if on is None and not all(r.channel.capabilities.identity for r in self._receivers):
            raise NotSupported(f"{receiver.channel.url} carries no identity: verify by a field, with on= (--on)")
        self.source = origin
        self.count = min(lengths)
        self.senders = senders
        self.ledger = Ledger()
        self._lock = threading.Lock()
        self._serializer = receiver.serializer
        self._ordered = capabilities.order is Order.EXCLUSIVE
        self._redelivered = self._again()
        self._oracle = Oracle(origin, self._serializer, self.count)
        self._on = on
        self._index = None if on is None else Index(self._oracle, on, self.count)
        # With one sender, rows are what counts, whichever of its workers (or of its lives) sent them.
        self._rows = RowSet()
        self._duplicated = 0
        self._corrupt = self._unexpected = self._beyond = 0
        self._differences: list[Difference] = []
        self._invariants = list(invariants)
        self._first = self.last = 0.0

    def _again(self) -> int:
        return sum(int(receiver.stats()["redelivered"]) for receiver in self._receivers)

    def book(self, batch: Batch) -> None:
        """Book and compare the messages of a batch."""
        if not len(batch):
            return
        # The outcomes are decoded outside the lock, where they are needed at all.
        if self._index is not None:
            _ = batch.outcomes
        with self._lock:
            self._book(batch)

    def _book(self, batch: Batch) -> None:
        now = time.monotonic()
        if not self.ledger.received:
            self._first = now
        self.last = now
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
            if self._invariants:
                self._enter(bodies if firsts is None else [bodies[i] for i in np.flatnonzero(firsts).tolist()])
        expected = self._oracle.bodies(rows)
        if (bodies if isinstance(bodies, list) else list(bodies)) != expected:
            for row, want, got in zip(rows.tolist(), expected, bodies, strict=True):
                if want != got:
                    self._differ(row, want, got)

    def _enter(self, bodies: Sequence[bytes]) -> None:
        for value in self._serializer.loads_many(bodies):
            if isinstance(value, DecodeError):
                continue  # counted as corrupt
            for invariant in self._invariants:
                # One at a time: what is no such record (it is corrupt) must not keep the others out.
                with suppress(ConfigError):
                    invariant.add((value,))

    def _violations(self) -> tuple[int | None, tuple[str, ...]]:
        if not self._invariants:
            return None, ()
        found = [(invariant.name, *invariant.violations()) for invariant in self._invariants]
        told = [f"{name}: {text}" for name, _, texts in found for text in texts]
        return sum(number for _, number, _ in found), tuple(told[:_SHOWN])

    def _differ(self, row: int, expected: bytes, got: bytes) -> None:
        values = self._serializer.loads_many([expected, got])
        if not isinstance(values[1], DecodeError) and bool(values[0] == values[1]):
            return
        self._corrupt += 1
        if len(self._differences) < _SHOWN:
            told = () if isinstance(values[1], DecodeError) else field_differences(*values)
            self._differences.append(Difference(row, expected, got, told))

    def _by_field(self, batch: Batch, index: Index) -> None:
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
            unique = sum(there)
            # Whatever came of the expected rows and not for the first time; not what came twice beyond them.
            duplicated = ledger.received - self._unexpected - self._beyond - unique
            lost = self.count * self.senders - sum(there[: self.senders])
            gaps: Iterator[int] = (row for a in ledger.accounts.values() for row in a.rows.missing(self.count))
            missing = tuple(islice(gaps, _SHOWN))
        seconds = self.last - self._first
        violated, violations = self._violations()
        return Verification(
            source=self.source.name,
            seed=self.source.seed,
            expected=self.count * self.senders,
            received=ledger.received,
            unique=unique,
            lost=lost,
            duplicated=duplicated,
            redelivered=self._again() - self._redelivered,
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
            injected=self.source.injected(self.count) if isinstance(self.source, FaultySource) else None,
            violated=violated,
            violations=violations,
        )
