"""What comes from a driver, on its way into the application's hands: adopted, de-duplicated, counted, decoded.

De-duplication here is for brokers, where a sender's retry can leave a second copy at another place of the log. It
lives as long as the receiver, is bounded per producer, and drops only what this receiver holds or has settled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from simlink.channels.driver import Incoming, Lease, Settlement
from simlink.channels.hands import Hands, Held
from simlink.errors import DecodeError
from simlink.message import Batch, Same, Verdict

if TYPE_CHECKING:
    from simlink.channels.cloudevents import CloudEvents
    from simlink.channels.deadletters import DeadLetters
    from simlink.channels.dedup import Deduplicator
    from simlink.serializers.serializer import Serializer

__all__ = ["Intake"]


class Intake:
    """Args:
    settle: the driver's; second copies are acknowledged at once.
    serializer: what decodes, a batch at a time and not before somebody reads it.
    deduplicates: whether to look for second copies.
    dead: the dead letters, where there are some.
    envelope: what messages are wrapped in, where they are.
    """

    def __init__(
        self,
        settle: Callable[[Sequence[Settlement]], None],
        serializer: Serializer,
        *,
        deduplicates: bool,
        dead: DeadLetters | None = None,
        envelope: CloudEvents | None = None,
    ) -> None:
        self.hands = Hands(settle, self._forget, dead)
        self.counts = dict.fromkeys(("received", "redelivered", "duplicates", "undecodable"), 0)
        self._settle = settle
        self._begun: list[Lease] = []
        self._serializer = serializer
        self._envelope = envelope
        self._seen: Deduplicator | None = None
        if deduplicates:
            from simlink.channels.dedup import Deduplicator

            self._seen = Deduplicator()

    def take(self, incoming: Incoming) -> Held | None:
        """The hand of what the application is to see of it; None where it is to see nothing."""
        batch = incoming.batch
        if not len(batch):
            return None
        if self._envelope is not None:
            batch = incoming.batch = self._envelope.unwrap(batch)
        fresh = isinstance(incoming.attempts, Same) and incoming.attempts.value == 1
        again = 0 if fresh else sum(1 for attempt in incoming.attempts if attempt > 1)
        self.counts["received"] += len(batch)
        self.counts["redelivered"] += again
        gone = set(self.hands.adopt(incoming)) if again else set()
        if self._seen is not None:
            gone |= self._second_copies(incoming, self._seen, gone)
        if (late := self._came_too_often(incoming, gone)) is not None:
            self.hands.bury(_rows(incoming, [late]))
            gone.add(late)
        if gone:
            keep = [row for row in range(len(batch)) if row not in gone]
            if not keep:
                return None
            incoming = _rows(incoming, keep)
        incoming.batch._decode = self._decode
        return self.hands.add(incoming)

    def _came_too_often(self, incoming: Incoming, gone: set[int]) -> int | None:
        """The row to bury unseen: the first under a hold, where it was handed out too often before.

        Whoever was killed by a message held others behind it, which come again as often and are not at fault; so only
        the first one is judged, and each in its turn, should it be the next to kill.
        """
        dead, lease = self.hands.dead, incoming.lease
        if dead is None or dead.max_attempts is None or any(known is lease for known in self._begun):
            return None
        self._begun = [known for known in self._begun if known.valid]
        self._begun.append(lease)
        first = next((row for row in range(len(incoming.batch)) if row not in gone), None)
        return first if first is not None and incoming.attempts[first] > dead.max_attempts else None

    def _decode(self, bodies: Sequence[bytes]) -> list[Any]:
        values = self._serializer.loads_many(bodies)
        # The set of the types is a third of the time of looking at each.
        if DecodeError in set(map(type, values)):
            self.counts["undecodable"] += sum(1 for value in values if type(value) is DecodeError)
        return values

    def _forget(self, producer: bytes, sequence: int) -> None:
        """What is handed back will come again, and must not count as a second copy then."""
        if self._seen is not None:
            self._seen.unmark(producer, [sequence])

    def _second_copies(self, incoming: Incoming, seen: Deduplicator, adopted: set[int]) -> set[int]:
        rows: set[int] = set()
        for producer, run, sequences in _by_producer(incoming.batch):
            found = seen.check(producer, sequences)
            if found is not None:
                for at, duplicate in enumerate(found):
                    row = at if run is None else run[at]
                    # The same identity at the same position of the log is a redelivery, not a second copy.
                    if duplicate and incoming.attempts[row] == 1 and row not in adopted:
                        rows.add(row)
            seen.mark(producer, sequences)
        if rows:
            self.counts["duplicates"] += len(rows)
            tokens = [incoming.tokens[row] for row in sorted(rows)]
            self._settle([Settlement(incoming.lease, Verdict.ACK, token, token) for token in tokens])
        return rows


def _rows(incoming: Incoming, rows: Sequence[int]) -> Incoming:
    tokens = [incoming.tokens[row] for row in rows]
    attempts = [incoming.attempts[row] for row in rows]
    return Incoming(incoming.batch.take(rows), tokens, attempts, incoming.lease)


def _by_producer(batch: Batch) -> Iterator[tuple[bytes, list[int] | None, Any]]:
    """The identified rows by producer, with their sequences; None stands for all rows, in the common case of one
    producer."""
    producers = batch.producers
    if isinstance(producers, Same):
        if producers.value is not None:
            yield producers.value, None, batch.sequences
        return
    runs: dict[bytes, list[int]] = {}
    for row, producer in enumerate(producers):
        if producer is not None and batch.sequences[row] is not None:
            runs.setdefault(producer, []).append(row)
    for producer, rows in runs.items():
        yield producer, rows, [batch.sequences[row] for row in rows]
