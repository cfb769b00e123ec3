"""The sending end: batches in, ranges of confirmed positions out, and what to do when the client gives up.

Recovery (rule 19 of the semantics). At the first ambiguous report nothing more is fed. What the client still has queued
is withdrawn, what is on the wire gets a moment for its answer, and the client is replaced by a new one, so that no old
retry can come between. Then everything from the first ambiguous position of a lane on, and whatever was submitted
meanwhile, is given back in order. All lanes take part, as neither client can withdraw one partition's records alone.
What was never given to the client is surely not there; whatever was may be.

``delivery_timeout`` is kept here and not by the client. A client gives up record by record: the next one, a little
younger, may still go out in the moment before we hear of it, and so stand in the log before the one that was given up.
Withdrawing what is queued all at once leaves no such gap: what is stored is always the lane's beginning.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.channels.driver import Outcome, OutcomeKind, SenderDriver
from simlink.channels.identity import CONTENT_TYPE_HEADER, ID_HEADER, format_identities
from simlink.channels.kafka.admin import ensure_topic
from simlink.channels.kafka.clients import Client, ProducerClient, Rows
from simlink.channels.kafka.lanes import Lane
from simlink.channels.kafka.partitioning import choose_partitions
from simlink.channels.kafka.settings import Settings
from simlink.errors import ConnectError, StateError
from simlink.message import EMPTY_HEADERS, Batch, Same

__all__ = ["KafkaSender", "merge_ranges"]

SLICE = 0.01
"""The longest wait inside the client, so that `wake` is heard."""
FEW = 256
"""So few messages under way are sent at once when somebody waits for them; so few confirmations soon told."""
HOLD = 0.25
"""How long confirmed positions wait for lower ones of other partitions, so that ranges stay long: with keys, a
partition's own positions are hardly ever neighbours, and a range for each costs a fast sender 12 % (measured)."""
SHORT_HOLD = 0.02
"""The same for few of them, for which somebody may be waiting."""
GRACE = 1.0
"""What recovery grants to the requests on the wire."""

Ints = npt.NDArray[np.int64]
_NOTHING: Ints = np.empty(0, np.int64)


class KafkaSender(SenderDriver):
    """Made by `KafkaDriver.sender`."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._library = client
        self._settings = settings
        self._producer: ProducerClient | None = None
        self._lanes: list[Lane] = []
        self._held: deque[tuple[int, Rows]] = deque()  # (position of the first row, rows) that wait to be fed
        self._ready: list[Outcome] = []
        self._confirmed: list[Ints] = []
        self._confirmed_since = 0.0
        self._woken = threading.Event()
        self._recoveries = 0
        self._full = 0
        self._closed = False

    # --- SenderDriver -------------------------------------------------------------------------------------------

    def open(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        if not self._lanes:
            count = ensure_topic(self._library, self._settings, timeout)
            self._lanes = [Lane() for _ in range(count)]
        if self._producer is None:
            self._producer = self._library.producer(self._settings, max(0.1, deadline - time.monotonic()))
        self._closed = False

    def submit(self, batch: Batch, position: int) -> None:
        if not self._lanes or self._closed:
            raise StateError("this Kafka sender is not open")
        rows = self._rows(batch, position)
        if self._held or self._producer is None or any(lane.broken for lane in self._lanes):
            self._held.append((position, rows))
            return
        self._feed(position, rows)
        if self._producer is not None:
            self._producer.poll(0)

    def outcomes(self, timeout: float) -> Sequence[Outcome]:
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            self._serve(max(0.0, left))
            out = self._collect()
            if out or left <= 0 or self._woken.is_set():
                self._woken.clear()
                return out

    def wake(self) -> None:
        self._woken.set()

    def withdraw(self) -> Sequence[Outcome]:
        out = self._collect()
        if self._producer is not None:
            self._recover(self._producer, out)
        for position, rows in self._held:
            out.append(Outcome(OutcomeKind.RETURNED, position, position + len(rows.bodies)))
        self._held.clear()
        # The next open asks the broker for its partitions again, and so finds out whether it is there.
        self._lanes = []
        return out

    def close(self, timeout: float) -> None:
        self._closed = True
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout)
        self._held.clear()

    @property
    def native(self) -> Any:
        return None if self._producer is None else self._producer.native

    def stats(self) -> Mapping[str, Any]:
        return {
            "client": self._library.name,
            "partitions": len(self._lanes),
            "in_flight": sum(lane.outstanding for lane in self._lanes),
            "held": sum(len(rows.bodies) for _, rows in self._held),
            "recoveries": self._recoveries,
            "queue_full": self._full,
        }

    # --- in -----------------------------------------------------------------------------------------------------

    def _rows(self, batch: Batch, position: int) -> Rows:
        partitions = choose_partitions(batch.keys, batch.producers, batch.sequences, position, len(self._lanes))
        return Rows(
            batch.bodies, batch.keys, self._headers(batch), partitions.tolist(), _milliseconds(batch.timestamps)
        )

    def _headers(self, batch: Batch) -> Sequence[list[tuple[str, bytes]]]:
        n = len(batch)
        ids: Sequence[bytes | None] = Same(None, n)
        if self._settings.identity:
            ids = format_identities(batch.producers, batch.sequences, batch.timestamps)
        types, users = batch.content_types, batch.headers
        plain = isinstance(users, Same) and not users.value
        if plain and isinstance(types, Same) and not isinstance(ids, Same) and None not in ids:
            if types.value is None:
                return [[(ID_HEADER, i)] for i in ids]  # type: ignore[list-item]  # there is no None
            kind = (CONTENT_TYPE_HEADER, types.value.encode())
            return [[(ID_HEADER, i), kind] for i in ids]  # type: ignore[list-item]  # nor here
        if plain and isinstance(types, Same) and isinstance(ids, Same) and ids.value is None:
            return Same([] if types.value is None else [(CONTENT_TYPE_HEADER, types.value.encode())], n)
        out = []
        for i, kind_of, own in zip(ids, types, users, strict=True):
            row = [] if i is None else [(ID_HEADER, i)]
            if kind_of is not None:
                row.append((CONTENT_TYPE_HEADER, kind_of.encode()))
            if own is not EMPTY_HEADERS:
                row.extend((name, value.encode()) for name, value in own.items())
            out.append(row)
        return out

    def _feed(self, position: int, rows: Rows) -> None:
        """Give rows to the client; what it does not take is held."""
        assert self._producer is not None
        now = time.monotonic()
        taken, refused = self._producer.produce(rows, self._lanes)
        if taken:
            chosen = np.array(rows.partitions[:taken], np.int64)
            positions = np.arange(position, position + taken, dtype=np.int64)
            if refused:
                keep = np.ones(taken, bool)
                keep[list(refused)] = False
                chosen, positions = chosen[keep], positions[keep]
                for row, error in sorted(refused.items()):
                    at = position + row
                    self._ready.append(Outcome(OutcomeKind.FAILED, at, at + 1, error=error))
            if len(chosen) == 1:
                self._lanes[int(chosen[0])].push(positions, now)
            elif len(chosen):
                order = np.argsort(chosen, kind="stable")
                chosen, positions = chosen[order], positions[order]
                cuts = np.flatnonzero(np.diff(chosen)) + 1
                for part, which in zip(np.split(positions, cuts), chosen[np.r_[0, cuts]], strict=True):
                    self._lanes[int(which)].push(part, now)
        if taken < len(rows.bodies):
            self._full += 1
            self._held.appendleft((position + taken, rows.behind(taken)))

    # --- out ----------------------------------------------------------------------------------------------------

    def _serve(self, timeout: float) -> None:
        """Let reports in, and feed what is held."""
        if self._producer is None:
            self._rebuild(timeout)
        producer = self._producer
        if producer is None:
            return
        if self._ready:
            timeout = 0.0
        outstanding = sum(lane.outstanding for lane in self._lanes)
        if not outstanding and not self._held and not self._confirmed:
            self._woken.wait(timeout)
            timeout = 0.0
        producer.poll(min(timeout, SLICE), hurry=timeout > 0 and 0 < outstanding <= FEW)
        while self._held and self._producer is not None and not producer.broken:
            position, rows = self._held.popleft()
            self._feed(position, rows)
            if self._held and self._held[0][0] != position + len(rows.bodies):
                break  # the client is full again

    def _collect(self) -> list[Outcome]:
        out, self._ready = self._ready, []
        producer = self._producer
        if producer is None:
            return out
        fresh: list[Ints] = []
        for lane in self._lanes:
            if lane.reported or lane.errors:
                confirmed, refused = lane.collect(producer.judge)
                if len(confirmed):
                    fresh.append(confirmed)
                out.extend(Outcome(OutcomeKind.FAILED, at, at + 1, error=error) for at, error in refused)
        broken = producer.broken or any(lane.broken for lane in self._lanes) or self._overdue()
        self._confirm(fresh, out, everything=broken)
        if broken:
            self._recover(producer, out)
        return out

    def _overdue(self) -> bool:
        oldest = min((since for lane in self._lanes if (since := lane.since) is not None), default=None)
        return oldest is not None and time.monotonic() - oldest > self._settings.delivery_timeout

    def _confirm(self, fresh: list[Ints], out: list[Outcome], *, everything: bool) -> None:
        """Report confirmed positions as few long ranges: those above the lowest open one wait a little for it."""
        now = time.monotonic()
        if fresh:
            if not self._confirmed:
                self._confirmed_since = now
            self._confirmed.extend(fresh)
        if not self._confirmed:
            return
        positions = self._confirmed[0]
        if len(self._confirmed) > 1:
            positions = np.sort(np.concatenate(self._confirmed), kind="stable")  # fast on what is nearly sorted
        heads = [head for lane in self._lanes if (head := lane.head) is not None]
        ready, rest = positions, _NOTHING
        patience = SHORT_HOLD if len(positions) <= FEW else HOLD
        if heads and not everything and now - self._confirmed_since < patience:
            cut = int(np.searchsorted(positions, min(heads)))
            ready, rest = positions[:cut], positions[cut:]
        out.extend(Outcome(OutcomeKind.CONFIRMED, first, stop) for first, stop in merge_ranges(ready))
        self._confirmed = [rest] if len(rest) else []
        if len(ready):
            self._confirmed_since = now

    # --- recovery -----------------------------------------------------------------------------------------------

    def _recover(self, producer: ProducerClient, out: list[Outcome]) -> None:
        self._recoveries += 1
        self._producer = None
        producer.abandon(GRACE)
        late, given = [_NOTHING], [_NOTHING]
        for lane in self._lanes:
            confirmed, refused = lane.collect(producer.judge)
            late.append(confirmed)
            out.extend(Outcome(OutcomeKind.FAILED, at, at + 1, error=error) for at, error in refused)
            given.append(lane.rest())
        self._confirm(late, out, everything=True)
        returned = [
            Outcome(OutcomeKind.RETURNED, first, stop, ambiguous=True)
            for first, stop in merge_ranges(np.sort(np.concatenate(given)))
        ]
        returned.extend(
            Outcome(OutcomeKind.RETURNED, position, position + len(rows.bodies)) for position, rows in self._held
        )
        self._held.clear()
        # New ones: a report of the old client that comes after all must not count for what the new one is given.
        self._lanes = [Lane() for _ in self._lanes]
        producer.close(0.0)
        out.extend(sorted(returned, key=lambda outcome: outcome.first))

    def _rebuild(self, timeout: float) -> None:
        """A new client after a recovery; without a broker the next call tries again, and everything is held."""
        if self._closed or not self._lanes:
            self._woken.wait(timeout)
            return
        started = time.monotonic()
        try:
            self._producer = self._library.producer(self._settings, max(timeout, 1.0))
        except ConnectError:
            self._woken.wait(max(0.0, timeout - (time.monotonic() - started)))


def merge_ranges(positions: Ints) -> list[tuple[int, int]]:
    """Ascending positions → ``(first, stop)`` of every run without a gap."""
    if len(positions) < 2:  # none, or a waiting send's one
        return [(at, at + 1) for at in positions.tolist()]
    cuts = np.flatnonzero(np.diff(positions) != 1)
    firsts = positions[np.r_[0, cuts + 1]].tolist()
    stops = (positions[np.r_[cuts, len(positions) - 1]] + 1).tolist()
    return list(zip(firsts, stops, strict=True))


def _milliseconds(timestamps: Sequence[int | None]) -> Sequence[int | None]:
    if isinstance(timestamps, Same):
        return Same(None if timestamps.value is None else timestamps.value // 1000, len(timestamps))
    if isinstance(timestamps, np.ndarray):
        return (timestamps // 1000).tolist()
    return [None if t is None else t // 1000 for t in timestamps]
