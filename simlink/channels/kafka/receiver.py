"""The receiving end: joining, handing out, taking verdicts, committing, and letting partitions go.

Everything happens in the caller's thread, inside `receive` and `tend`; only `settle` and `wake` may come from others,
and they merely leave a note. The client calls the hooks of a rebalance from inside its poll (kafka-python on a thread
of its own, while ours waits in that poll), so nothing else of this object runs at the same time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simlink.channels.driver import Incoming, Mode, ReceiverDriver, ReceiverOptions, Settlement
from simlink.channels.kafka.admin import ensure_topic
from simlink.channels.kafka.clients import Client, ConsumerClient, GroupBusy, Hooks
from simlink.channels.kafka.holds import Hold
from simlink.channels.kafka.settings import Settings
from simlink.channels.kafka.starts import check_start, start_positions
from simlink.errors import ConfigError, ConnectTimeout, StateError, TransportError

__all__ = ["KafkaReceiver"]

logger = logging.getLogger("simlink.kafka")

SLICE = 0.05
"""The longest wait inside the client, so that `wake`, verdicts and delayed messages are noticed."""
BATCH = 1000
"""The most that is asked of the client at once; 100 to 1,000 is fastest (measured)."""
AHEAD = 2
"""Of what may be handed out now, how much is asked of the client: the rest goes out without another poll, each of which
costs kafka-python a visit of its own thread (7 % of a fast reader's time, measured)."""
COMMIT_PAUSE = 0.02
"""The least seconds between a fast reader's commits; one for each 500 messages costs it 10 % of its speed."""
AWAY = 0.5
"""Seconds without `receive` after which `tend` polls in the application's place."""


class KafkaReceiver(ReceiverDriver):
    """Made by `KafkaDriver.receiver`."""

    def __init__(self, client: Client, settings: Settings, group: str | None, options: ReceiverOptions) -> None:
        check_start(options.start)
        self._library = client
        self._settings = settings
        self._group = group
        self._options = options
        self._prefetch = max(1, options.prefetch)
        self._consumer: ConsumerClient | None = None
        self._holds: dict[int, Hold] = {}
        self._seen: dict[int, int] = {}
        self._settled: dict[int, tuple[int, int]] = {}
        """Of partitions that were let go: below which offset all is settled, and which offset the group has."""
        self._paused: set[int] = set()
        self._regained: set[int] = set()
        self._verdicts: deque[Settlement] = deque()
        self._nudge = threading.Event()
        self._woken = False
        self._closing = False
        self._turn = 0
        self._last_receive = 0.0
        self._last_commit = 0.0
        self._committing = False
        self._last_look = 0.0
        self._stale = 0
        self._gaps = 0
        self._rewinds = 0
        self._rebalances = 0
        self._commit_failures = 0

    # --- joining ------------------------------------------------------------------------------------------------

    def open(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._abandon()
        count = ensure_topic(self._library, self._settings, timeout)
        consumer = self._library.consumer(self._settings, self._group, _left(deadline))
        self._closing = self._committing = False
        try:
            if self._group is None:
                positions = start_positions(consumer, self._options.start or "new", range(count), _left(deadline))
                self._consumer = consumer
                self._adopt(positions)
                consumer.assign(positions)
            else:
                self._settle_start(consumer, range(count), deadline)
                self._consumer = consumer
                consumer.subscribe(Hooks(self._on_assigned, self._on_revoking, self._on_revoked, self._on_lost))
                self._join(consumer, deadline, timeout)
        except BaseException:
            self._consumer = None
            consumer.close(max(1.0, _left(deadline)))
            raise
        self._last_receive = self._last_look = time.monotonic()

    def _settle_start(self, consumer: ConsumerClient, partitions: Sequence[int], deadline: float) -> None:
        """Give a new group its position in every partition before anybody joins, so that nothing can slip through
        between entering and the first fetch, whoever gets the partition."""
        start = self._options.start
        committed = consumer.committed(partitions, _left(deadline))
        if start is not None:
            if committed and not self._options.reset:
                raise ConfigError(
                    f"{self._settings.url}: the group {self._group!r} has a position already, which start={start!r} "
                    "would move: pass reset=True to do that"
                )
        elif committed:
            return
        else:
            start = "earliest" if self._settings.mode is Mode.QUEUE else "new"
        positions = start_positions(consumer, start, partitions, _left(deadline))
        try:
            consumer.commit_now(positions, _left(deadline))
        except GroupBusy:
            # Somebody joined in this moment, who did the same before; but what was asked for by name must hold.
            if self._options.start is not None:
                raise

    def _join(self, consumer: ConsumerClient, deadline: float, timeout: float) -> None:
        """Poll until the assignment is known. A second member's first one is empty: the others give up their share
        at their next heartbeat, so that much more time is granted before "nothing" is believed."""
        empty_until: float | None = None
        while True:
            now = time.monotonic()
            if consumer.joined():
                if self._holds:
                    return
                if empty_until is None:
                    empty_until = now + 2 * self._settings.heartbeat + 1
                if now >= empty_until:
                    return
            if now >= deadline:
                if consumer.joined():
                    return
                raise ConnectTimeout(
                    f"the group {self._group!r} at {', '.join(self._settings.servers)} gave no assignment within "
                    f"{timeout:g} s",
                    url=self._settings.url,
                    endpoint=self._settings.servers[0],
                    retryable=True,
                )
            self._poll(consumer, 1, min(SLICE, max(0.0, deadline - now)))

    # --- ReceiverDriver -----------------------------------------------------------------------------------------

    def receive(self, limit: int, timeout: float) -> Sequence[Incoming]:
        consumer = self._opened()
        deadline = time.monotonic() + timeout
        while True:
            now = time.monotonic()
            self._last_receive = now
            self._apply()
            self._commit_some(consumer, now)
            out = self._hand_out(limit, now)
            if out or self._woken or now >= deadline:
                self._woken = False
                return out
            wait = min(SLICE, deadline - now, *[max(0.0, due - now) for due in self._dues()])
            room = self._room()
            if room <= 0:
                # Full: only verdicts can help; rebalances are looked after meanwhile.
                self._nudge.wait(wait)
                self._nudge.clear()
                self._mind(consumer)
                continue
            self._set_paused(consumer, self._stuck())
            self._poll(consumer, min(AHEAD * min(limit, room), BATCH), wait)

    def settle(self, settlements: Sequence[Settlement]) -> None:
        self._verdicts.extend(settlements)
        self._nudge.set()

    def tend(self) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        now = time.monotonic()
        self._apply()
        self._commit_some(consumer, now)
        if now - self._last_receive >= AWAY:
            self._mind(consumer)

    def wake(self) -> None:
        self._woken = True
        self._nudge.set()

    def reserve(self, count: int) -> None:
        self._prefetch = max(1, count)

    def close(self, timeout: float) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        deadline = time.monotonic() + timeout
        self._closing = True
        try:
            self._apply()
            offsets = self._to_commit(self._holds)
            if offsets:
                self._committed(offsets)
                consumer.commit_now(offsets, _left(deadline))
        except (TransportError, ConfigError) as error:
            # Close raises nothing for this: what is not committed comes again to the next receiver.
            logger.warning("the last commit of %s failed: %s", self._settings.url, error)
        finally:
            self._let_go(list(self._holds))
            consumer.close(_left(deadline))

    @property
    def assigned(self) -> bool:
        return bool(self._holds)

    @property
    def native(self) -> Any:
        return None if self._consumer is None else self._consumer.native

    def stats(self) -> Mapping[str, Any]:
        holds = list(self._holds.values())
        blocked = {h.partition: at for h in holds if (at := h.blocked_by(self._prefetch)) is not None}
        return {
            "client": self._library.name,
            "group": self._group,
            "partitions": sorted(h.partition for h in holds),
            "in_hand": sum(h.in_hand for h in holds),
            "buffered": sum(h.buffered for h in holds),
            "delayed": sum(h.delayed for h in holds),
            "span": {h.partition: h.prefix.span for h in holds if h.prefix is not None and h.prefix.span},
            "blocked_by": blocked,
            "paused": sorted(self._paused),
            "stale": self._stale,
            "gaps": self._gaps,
            "rewinds": self._rewinds,
            "rebalances": self._rebalances,
            "commit_failures": self._commit_failures,
        }

    # --- handing out --------------------------------------------------------------------------------------------

    def _room(self) -> int:
        """How many more messages may be in the application's hands; at least one where there are none."""
        held = size = 0
        for hold in self._holds.values():
            held += hold.in_hand
            size += hold.in_hand_bytes
        if held == 0:
            return self._prefetch
        return 0 if size >= self._options.prefetch_bytes else self._prefetch - held

    def _hand_out(self, limit: int, now: float) -> list[Incoming]:
        room = min(limit, self._room())
        out: list[Incoming] = []
        if room <= 0 or not self._holds:
            return out
        holds = list(self._holds.values())
        nbytes = self._options.prefetch_bytes - sum(h.in_hand_bytes for h in holds)
        # Another partition begins each time, so that a full one starves no other.
        self._turn += 1
        for i in range(len(holds)):
            hold = holds[(self._turn + i) % len(holds)]
            given = hold.hand_out(room, nbytes, self._prefetch, now)
            for incoming in given:
                room -= len(incoming.tokens)
                nbytes -= incoming.batch.nbytes
            out += given
            if room <= 0 or (out and nbytes <= 0):
                break
        return out

    def _dues(self) -> list[float]:
        return [due for hold in self._holds.values() if (due := hold.next_due) is not None]

    def _stuck(self) -> set[int]:
        """Partitions with something polled that cannot be handed out: polling more of them would only pile up."""
        return {p for p, hold in self._holds.items() if hold.buffered}

    def _set_paused(self, consumer: ConsumerClient, wanted: set[int]) -> None:
        if wanted == self._paused:
            return
        held = self._holds.keys()
        if more := sorted((wanted - self._paused) & held):
            consumer.pause(more)
        if less := sorted((self._paused - wanted) & held):
            consumer.resume(less)
        self._paused = set(wanted)

    def _mind(self, consumer: ConsumerClient) -> None:
        """Poll without handing out, so that the group goes on. A little is buffered before everything is paused:
        resuming costs a fetch, which an application that is merely slow should not pay each time."""
        buffered = sum(hold.buffered for hold in self._holds.values())
        room = min(self._prefetch, 100) - buffered
        if room <= 0:
            self._set_paused(consumer, set(self._holds))
        self._poll(consumer, max(1, room), 0.0)

    def _poll(self, consumer: ConsumerClient, limit: int, timeout: float) -> None:
        polled = consumer.poll(limit, timeout)
        if self._regained:
            # A client remembers a pause through a rebalance: a partition that was lost while paused comes back so.
            consumer.resume(sorted(self._regained & self._holds.keys()))
            self._regained.clear()
        for records in polled.records:
            hold = self._holds.get(records.partition)
            if hold is not None:
                hold.add(records.offsets, records.batch)
        for partition in polled.adrift:
            if partition in self._holds:
                self._anchor(consumer, partition)
        if self._group is None:
            self._look_for_more(consumer)

    # --- verdicts and commits -----------------------------------------------------------------------------------

    def _apply(self) -> None:
        """Take the verdicts that were left for us."""
        verdicts = self._verdicts
        now = time.monotonic()
        while verdicts:
            settlement = verdicts.popleft()
            hold = self._of(settlement) if settlement.lease.valid else None
            if hold is None:
                self._stale += 1
                continue
            hold.settle(settlement.verdict, settlement.first, settlement.last, now + settlement.delay)

    def _of(self, settlement: Settlement) -> Hold | None:
        lease = settlement.lease
        for hold in self._holds.values():
            if hold.lease is lease:
                return hold
        return None

    def _to_commit(self, partitions: Iterable[int]) -> dict[int, int]:
        if self._group is None:
            return {}
        found = ((p, self._holds[p].to_commit) for p in partitions if p in self._holds)
        return {p: offset for p, offset in found if offset is not None}

    def _committed(self, offsets: Mapping[int, int]) -> None:
        for partition, offset in offsets.items():
            self._holds[partition].committed = offset

    def _commit_some(self, consumer: ConsumerClient, now: float) -> None:
        since = now - self._last_commit
        if since < self._settings.commit_interval and (
            since < COMMIT_PAUSE or self._committing or not self._much_settled()
        ):
            return
        self._last_commit = now
        offsets = self._to_commit(self._holds)
        if not offsets:
            return
        self._committed(offsets)
        holds = {p: self._holds[p] for p in offsets}
        self._committing = True

        def done(error: Exception | None) -> None:
            self._committing = False
            if error is None:
                for partition, offset in offsets.items():
                    holds[partition].stored = max(holds[partition].stored, offset)
                return
            self._commit_failures += 1
            logger.info("a commit of %s failed: %s", self._settings.url, error)
            for partition in offsets:
                if partition in self._holds:
                    self._holds[partition].committed = -1  # so that the next round tries again

        consumer.commit(offsets, done)

    def _much_settled(self) -> bool:
        """Whether a fast reader should not wait with its commit: after a crash, all that would come again."""
        return any(hold.uncommitted >= self._prefetch for hold in self._holds.values())

    # --- positions ----------------------------------------------------------------------------------------------

    def _adopt(self, positions: Mapping[int, int]) -> None:
        for partition in positions:
            self._holds[partition] = self._hold(partition)

    def _hold(self, partition: int) -> Hold:
        settled, stored = self._settled.get(partition, (-1, -1))
        return Hold(partition, self._name(partition), self._seen.get(partition, -1), settled=settled, stored=stored)

    def _anchor(self, consumer: ConsumerClient, partition: int) -> None:
        """A partition without a valid position: it is new, or the log has moved on without us."""
        timeout = self._settings.request_timeout
        hold = self._holds[partition]
        low, high = consumer.bounds([partition], timeout)[partition]
        position = hold.position
        if position is None and self._group is not None:
            position = consumer.committed([partition], timeout).get(partition)
        if position is not None and position < low:
            self._gaps += low - position
            logger.warning("%s: offsets %d … %d of partition %d are gone unread", self._settings.url, position, low - 1,
                           partition)  # fmt: skip
        elif position is not None and position > high:
            # The topic was made anew, or its log was cut: all of it is unread, and the old tokens mean nothing.
            self._rewinds += 1
            logger.warning("%s: partition %d ends at %d, before our position %d: reading it from its start",
                           self._settings.url, partition, high, position)  # fmt: skip
            self._let_go([partition])
            self._seen.pop(partition, None)
            self._settled.pop(partition, None)
            self._adopt({partition: low})
            hold = self._holds[partition]
        hold.move_to(low)
        consumer.seek(partition, low)
        if partition in self._paused:
            consumer.pause([partition])

    def _look_for_more(self, consumer: ConsumerClient) -> None:
        """Without a group nobody tells of new partitions: look, and read them from their start."""
        now = time.monotonic()
        if now - self._last_look < self._settings.metadata_age:
            return
        self._last_look = now
        count = consumer.count(self._settings.request_timeout)
        found = [p for p in range(count) if p not in self._holds]
        if found:
            bounds = consumer.bounds(found, self._settings.request_timeout)
            positions = {p: low for p, (low, _) in bounds.items()}
            self._adopt(positions)
            consumer.assign(positions)

    def _name(self, partition: int) -> str:
        return f"{self._settings.topic}[{partition}]"

    # --- rebalances ---------------------------------------------------------------------------------------------

    def _on_assigned(self, partitions: Sequence[int]) -> None:
        self._rebalances += 1
        for partition in partitions:
            if partition not in self._holds:
                self._holds[partition] = self._hold(partition)
                self._paused.discard(partition)
                self._regained.add(partition)

    def _on_revoking(self, partitions: Sequence[int]) -> bool:
        self._apply()
        return self._closing or not any(self._holds[p].in_hand for p in partitions if p in self._holds)

    def _on_revoked(self, partitions: Sequence[int]) -> Mapping[int, int]:
        self._rebalances += 1
        self._apply()
        offsets = self._to_commit(partitions)
        self._let_go(partitions)
        return offsets

    def _on_lost(self, partitions: Sequence[int]) -> None:
        self._rebalances += 1
        self._apply()
        self._let_go(partitions)

    def _let_go(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            hold = self._holds.pop(partition, None)
            if hold is not None:
                hold.lease.valid = False
                self._seen[partition] = hold.seen
                if hold.prefix is not None and self._group is not None:
                    self._settled[partition] = (max(hold.prefix.start, hold.settled), hold.stored)
            self._paused.discard(partition)

    # --- helpers ------------------------------------------------------------------------------------------------

    def _opened(self) -> ConsumerClient:
        if self._consumer is None:
            raise StateError("this Kafka receiver is not open")
        return self._consumer

    def _abandon(self) -> None:
        """What is left of an earlier, broken connection."""
        consumer, self._consumer = self._consumer, None
        self._closing = True
        self._let_go(list(self._holds))
        if consumer is not None:
            consumer.close(1.0)


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())
