"""A queue over several endpoints: each message goes to the one that the balancer picks."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simlink.channels.driver import Outcome, OutcomeKind
from simlink.channels.pool.core import PoolSender
from simlink.errors import NoEndpoints, TransportError
from simlink.health.states import State

if TYPE_CHECKING:
    from simlink.channels.pool.slot import Slot
    from simlink.message import Batch

__all__ = ["CHUNK", "QueuePool"]

log = logging.getLogger("simlink")

CHUNK = 1024
"""Messages that go to one endpoint at once. A pick costs the same for one as for many, and a small chunk costs frames;
a large one makes the balance coarse, so that is for endpoints that have done with it soon: see `_chunk`."""
_LARGE = 4096
_LARGE_BYTES = 512 * 1024
"""The longest chunk; as long as a link's frame is, or it would be cut again."""
_SOON = 0.1
"""Seconds that an endpoint may take to settle a chunk that is larger than `CHUNK`."""
_MEASURED = 0.05
"""Seconds, at least, over which it is measured how fast endpoints settle; the mean with what was measured before
counts, since settlements come in lumps."""

_TRIAL = 16
"""Messages that an endpoint on trial gets."""


class QueuePool(PoolSender):
    """Args:
    balancer: bound already.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._waiting: deque[tuple[int | Sequence[int], Batch]] = deque()
        self._trials: list[str] = []
        self._settled = 0  # messages since `_since`, and before it so many a second
        self._since = 0.0
        self._pace = 0.0
        super().__init__(*args, **options)

    def submit(self, batch: Batch, position: int) -> None:
        """Raises what a user's balancer raises; the batch is kept, and goes out when the balancer picks again."""
        self._waiting.append((position, batch))
        self._hand_out()
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble

    def _dispatch(self) -> None:
        if self._waiting and not self._done and self.world.now() >= self._retry_trouble:
            self._hand_out()

    def _hand_out(self) -> None:
        waiting = self._waiting
        while waiting:
            position, batch = waiting[0]
            assert isinstance(position, int)
            row, rows = 0, len(batch.bodies)
            chunk = CHUNK if rows <= CHUNK else self._chunk(batch)
            try:
                while row < rows:
                    others = self._others_than_on_trial()
                    count = min(rows - row, _TRIAL if others else chunk)
                    pick = self.balancer.pick(count, exclude=others)
                    part = batch if count == rows else batch[row : row + count]
                    self._give(self.slots[pick.endpoint], part, position + row, pick)
                    row += count
            except NoEndpoints:
                return
            except Exception as error:
                self._failed(self.balancer, error)
                return
            finally:
                if row == rows:
                    waiting.popleft()
                elif row:
                    waiting[0] = (position + row, batch[row:])

    def _chunk(self, batch: Batch) -> int:
        """How many messages of a long batch go to one endpoint at once.

        One batch now and then is spread over many, which work on it at the same time. In a stream of them each has
        enough to do, and it pays to keep a batch in few pieces: every piece is a frame, a wake-up or two, and a start
        with cold caches (four receivers on two cores took 2.1 µs of CPU a message in pieces of 1,024, and 1.4 in
        pieces of 4,096). So a piece is what an endpoint settles in `_SOON`, by how fast all of them did it of late.
        """
        now = self.world.now()
        if now - self._since >= _MEASURED:
            self._pace = (self._pace + self._settled / (now - self._since)) / 2
            self._settled, self._since = 0, now
        rows = len(batch.bodies)
        soon = int(_SOON * self._pace / max(len(self._view or ()), 1))
        most = min(soon, _LARGE, _LARGE_BYTES * rows // max(batch.nbytes, 1))
        # In pieces of the same length, not long ones and a rest.
        return CHUNK if most <= CHUNK else -(-rows // -(-rows // most))

    def _others_than_on_trial(self) -> frozenset[str]:
        """Whom not to pick, so that an endpoint on trial gets its batch: by its small share it might wait for ever."""
        if not self._trials:
            return frozenset()
        return frozenset(member.name for member in self._view or () if member.name != self._trials[0])

    def _give(self, slot: Slot, batch: Batch, where: int | Sequence[int], pick: Any, keys: Any = None) -> None:
        self._touched.add(slot.name)
        if self.membership.state(slot.name) is State.HALF_OPEN:
            # An endpoint that is being tried gets one batch, and is out of the view meanwhile.
            slot.probe = True
            now = self.world.now()
            self.membership.probe_taken(slot.name, now)
            self._after(now)
        try:
            slot.submit(batch, where, pick, keys)
        except TransportError as error:
            now = self.world.now()
            self._lost(slot, error, now)
            self._after(now)

    def _members_changed(self) -> None:
        view = self._view or ()
        self.balancer.update(view)
        # Where too few are well, those that are not are used all the same, without a trial.
        self._trials = [member.name for member in view if self.membership.state(member.name) is State.HALF_OPEN]

    def _report(self, slot: Slot, outcomes: Sequence[Outcome]) -> None:
        held = slot.flights.open
        slot.flights.apply(outcomes, self._done)
        self._settled += held - slot.flights.open

    def _take_back(self, slot: Slot, *, ambiguous: bool) -> None:
        slot.flights.take_back(self._done, ambiguous=ambiguous)

    def _loads(self) -> Mapping[str, Mapping[str, float]]:
        return self.balancer.snapshot()

    def _waits(self) -> list[tuple[int | Sequence[int], int]]:
        """Where what was handed to nobody stands, and how many messages each time."""
        return [(where, len(batch.bodies)) for where, batch in self._waiting]

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        super().close(timeout)
        # What was never handed to an endpoint is surely not there.
        for where, count in self._waits():
            for at in (where,) if isinstance(where, int) else where:
                self._done.append(Outcome(OutcomeKind.RETURNED, at, at + (count if isinstance(where, int) else 1)))
        self._waiting.clear()

    def stats(self) -> Mapping[str, Any]:
        waiting = sum(count for _, count in self._waits())
        return {**super().stats(), "waiting": waiting, "balancer": self.balancer.snapshot()}
