"""What comes from a driver, on its way into the application's hands: adopted, de-duplicated, counted, decoded.

De-duplication here is for brokers, where a sender's retry can leave a second copy at another place of the log. It
lives as long as the receiver, is bounded per producer, and drops only what this receiver holds or has settled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from simlink.channels.driver import Incoming, Settlement
from simlink.channels.hands import Hands, Held
from simlink.errors import DecodeError
from simlink.message import Batch, Same, Verdict

if TYPE_CHECKING:
    from simlink.channels.dedup import Deduplicator
    from simlink.serializers.serializer import Serializer

__all__ = ["Intake"]


class Intake:
    """Args:
    settle: the driver's; second copies are acknowledged at once.
    serializer: what decodes, a batch at a time and not before somebody reads it.
    deduplicates: whether to look for second copies.
    """

    def __init__(
        self, settle: Callable[[Sequence[Settlement]], None], serializer: Serializer, *, deduplicates: bool
    ) -> None:
        self.hands = Hands(settle, self._forget)
        self.counts = dict.fromkeys(("received", "redelivered", "duplicates", "undecodable"), 0)
        self._settle = settle
        self._serializer = serializer
        self._seen: Deduplicator | None = None
        if deduplicates:
            from simlink.channels.dedup import Deduplicator

            self._seen = Deduplicator()

    def take(self, incoming: Incoming) -> Held | None:
        """The hand of what the application is to see of it; None where it is to see nothing."""
        batch = incoming.batch
        if not len(batch):
            return None
        fresh = isinstance(incoming.attempts, Same) and incoming.attempts.value == 1
        again = 0 if fresh else sum(1 for attempt in incoming.attempts if attempt > 1)
        self.counts["received"] += len(batch)
        self.counts["redelivered"] += again
        gone = set(self.hands.adopt(incoming)) if again else set()
        if self._seen is not None:
            gone |= self._second_copies(incoming, self._seen, gone)
        if gone:
            keep = [row for row in range(len(batch)) if row not in gone]
            if not keep:
                return None
            tokens = [incoming.tokens[row] for row in keep]
            attempts = [incoming.attempts[row] for row in keep]
            incoming = Incoming(batch.take(keep), tokens, attempts, incoming.lease)
        incoming.batch._decode = self._decode
        return self.hands.add(incoming)

    def _decode(self, bodies: Sequence[bytes]) -> list[Any]:
        values = self._serializer.loads_many(bodies)
        bad = sum(1 for value in values if type(value) is DecodeError)
        if bad:
            self.counts["undecodable"] += bad
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
