"""One endpoint of a pool: the end that sends to it, and what that end holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from simlink.channels.pool.flights import Flights

if TYPE_CHECKING:
    from simlink.balancing.pick import Pick, Verdict
    from simlink.channels.driver import SenderDriver
    from simlink.message import Batch

__all__ = ["Slot"]


class Slot:
    """Attributes:
    name, weight: as the user gave them.
    end: its sending end.
    flights: what it was given and has not resolved.
    next: the position that the end takes next.
    connected: the end is open, as far as is known.
    opening: the end is being opened, by another thread maybe: nothing else may be asked of it.
    forsaken: what the end holds was sent elsewhere while it was being opened, and the end must be told.
    retry_at, backoff: when to connect again, and the pause after that.
    pause: seconds after which the end is looked at, even if it does not ask for it.
    due: when the end must be asked for outcomes, whether or not it has something.
    leave_by: being drained: when what it holds is sent elsewhere; None otherwise.
    probe: it has the one batch that tries whether it is well again.
    sent: messages handed to it, ever; ``taken``: of them, those that were taken back.
    """

    def __init__(
        self,
        name: str,
        weight: float,
        end: SenderDriver,
        *,
        retains: bool,
        once: bool,
        resolved: Callable[[Slot, int, Sequence[bytes | None] | None, Verdict], None],
    ) -> None:
        self.name = name
        self.weight = weight
        self.end = end
        self.flights = Flights(
            retains=retains, once=once, resolved=lambda n, keys, verdict: resolved(self, n, keys, verdict)
        )
        self.next = 0
        self.to: tuple[str, ...] = ()
        self.connected = False
        self.opening = False
        self.forsaken = False
        self.retry_at = 0.0
        self.backoff = 0.0
        self.pause = math.inf
        self.due = 0.0
        self.leave_by: float | None = None
        self.probe = False
        self.sent = 0
        self.taken = 0
        self.signs = 0
        self.beats = 0
        self.error: Exception | None = None

    def submit(
        self,
        batch: Batch,
        where: int | Sequence[int],
        pick: Pick | None,
        keys: Sequence[bytes | None] | None = None,
        *,
        owner: object = None,
        to: tuple[str, ...] = (),
    ) -> None:
        """Hand messages over; ``where``, ``keys`` and ``owner`` as in `Flights.add`, ``to`` as in
        `SenderDriver.address`.

        Raises:
            TransportError: the connection broke; what became of them is told when it is made again.
        """
        count = len(batch.bodies)
        first = self.next
        self.flights.add(first, count, where, pick, keys, owner)
        self.next = first + count
        self.sent += count
        if to != self.to:
            self.to = to
            self.end.address(to)
        self.end.submit(batch, first)

    def __repr__(self) -> str:
        return f"Slot({self.name!r}, {self.flights.open} in flight)"
