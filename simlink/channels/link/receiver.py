"""The receiving end of a link: what of one sender was accepted and settled here, and what it must still be told."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Protocol

from simlink.channels.link.runs import Runs
from simlink.channels.wire.frames import (
    Accept,
    BatchFrame,
    Frame,
    FrameError,
    Hello,
    Returned,
    Run,
    Settle,
    Subscribed,
    Void,
    Welcome,
)
from simlink.message import Batch, Verdict

__all__ = ["ReceiverLink"]


class _Weighed(Protocol):
    nbytes: int


class ReceiverLink:
    """What one receiver knows of one sender. Positions are the link's own, dense from 0. No I/O, no clock.

    Attributes:
        scope: who the sender is, where that is proven. Names that peers give themselves and their messages mean
            something only within it, so that nobody can pass for another, nor have another's messages dropped.
        incarnation: 16 random bytes; the sender's positions mean something only under them.
        accepted: every position below is held, settled or voided.
        parked: messages that came and found no room yet (voided runs keep their place among them).
        heard: when the sender was last heard, by the clock of whoever carries the frames.
        gone: the sender said that it will send nothing again.
        orphaned: it has been unreachable for so long that what it left is handed out regardless.
    """

    def __init__(self, sender: bytes, scope: bytes = b"") -> None:
        self.sender = sender
        self.scope = scope
        self.incarnation = os.urandom(16)
        self.accepted = 0
        self.resolved = Runs()
        self.parked: deque[tuple[int, int, Batch | None]] = deque()
        self.expected = 0
        """The position that the next batch must have."""
        self.credit = 0
        self.credit_bytes = 0
        self.received_bytes = 0
        self.connected = False
        self.heard = 0.0
        self.subscriptions: list[str] = []
        """What of a topic is subscribed to here, private ones as empty text."""
        self.subscription = ""
        """What it feeds where a batch says nothing of that; empty: all."""
        self.addressed = False
        """Something came, or comes, that is not for all of them."""
        self._for: deque[tuple[int, tuple[str, ...]]] = deque()  # from which position on it is for which subscriptions
        self.lease = 0.0
        """Seconds of silence after which the sender may give to others what it left here; 0 for never."""
        self.stale = False
        """The lease has run out: nothing of this sender counts before it has joined anew."""
        self.resuming = False
        """It has joined anew, and has yet to say what it gave to others."""
        self.gone = False
        self.orphaned = False
        self.blocked = False
        """Somebody was refused messages because the sender was silent for too long."""
        self.ready: Callable[[], bool] | None = None
        """Whether its messages may be handed out; kept here so that it is made once."""
        self.early: _Weighed | None = None
        """What came before its turn, where a transport may let frames overtake one another."""
        self.wants = 0
        """So many bytes were refused at once, at most, and have not come since: less credit is of no use to it."""
        self.asked = 0.0
        """When that was first."""
        self.granted = 0.0
        """When it was last given credit for it."""
        self._low = 0
        self._rejected: list[Run] = []  # at or above `_low`: the sender may not have heard
        self._returned: list[tuple[int, int, bool]] = []
        self._told_subscriptions = self.subscriptions
        self._told_accepted = 0
        self._told_credit = (0, 0)
        self._told_settled = 0
        self._new_settled: list[Run] = []
        self._new_rejected: list[Run] = []
        self._new_returned: list[tuple[int, int, bool]] = []

    # --- hearing ------------------------------------------------------------------------------------------------

    def resume(self, hello: Hello) -> None:
        """A (new) connection of the same sender; what was parked is the sender's again.

        Raises:
            FrameError: it does not know of what it has sent.
        """
        if hello.next < self.accepted:
            raise FrameError(f"a sender at position {hello.next} resumes a link that has accepted {self.accepted}")
        self.parked.clear()
        self.early = None
        self.expected = self.accepted
        self.subscription = hello.subscription
        self.addressed = self.addressed or bool(hello.subscription)
        self._for.clear()
        self.received_bytes = 0
        self.credit_bytes = 0
        self.credit = self.accepted
        self.connected = True
        self.gone = self.orphaned = self.stale = False
        self.lease = hello.lease_ms / 1000
        self.resuming = self.lease > 0 and not self.idle
        self.forget_below(hello.low)

    def welcome(self, *, heartbeat_ms: int, max_frame_bytes: int) -> Welcome:
        """The answer to `resume`, after the first credit was granted."""
        self._told_accepted = self.accepted
        self._told_credit = (self.credit, self.credit_bytes)
        self._told_settled = self.resolved.mark
        self._new_settled.clear()
        self._new_rejected.clear()
        self._new_returned.clear()
        self._told_subscriptions = self.subscriptions
        return Welcome(
            incarnation=self.incarnation,
            accepted=self.accepted,
            settled=self.resolved.mark,
            settled_runs=self.resolved.runs(),
            rejected=list(self._rejected),
            returned=[(a, b) for a, b, handed in self._returned if not handed],
            returned_handed=[(a, b) for a, b, handed in self._returned if handed],
            credit=self.credit,
            credit_bytes=self.credit_bytes,
            heartbeat_ms=heartbeat_ms,
            max_frame_bytes=max_frame_bytes,
            subscriptions=self.subscriptions,
            addressable=True,
        )

    def park(self, frame: BatchFrame) -> None:
        """Take in a batch, for whoever finds room for it.

        Raises:
            FrameError: a gap, or more than the credit.
        """
        batch, first = frame.batch, frame.position
        stop = first + len(batch.bodies)
        if first > self.expected:
            raise FrameError(f"position {first} came, and {self.expected} is the next one")
        if stop > self.credit or (self.received_bytes >= self.credit_bytes and stop > first):
            raise FrameError(f"position {stop - 1} exceeds the credit")
        if first < self.expected:
            batch = batch[self.expected - first :]
        if stop > self.expected:
            if (self._for or frame.subscriptions) and frame.subscriptions != (self._for[-1][1] if self._for else ()):
                self._for.append((self.expected, frame.subscriptions))
                self.addressed = True
            self.received_bytes += batch.nbytes
            self.parked.append((self.expected, stop, batch))
            self.expected = stop
        self.forget_below(frame.low)

    def address(self, position: int) -> tuple[str, ...]:
        """What the parked message at a position is for, private ones as empty text; none: for all that are subscribed
        to. Positions ascend."""
        marks = self._for
        while len(marks) > 1 and marks[1][0] <= position:
            marks.popleft()
        if marks and marks[0][0] <= position and marks[0][1]:
            return marks[0][1]
        return (self.subscription,) if self.subscription else ()

    def void(self, frame: Void) -> None:
        """Positions that will not come.

        Raises:
            FrameError: a gap.
        """
        if frame.first > self.expected:
            raise FrameError(f"position {frame.first} is voided, and {self.expected} is the next one")
        if frame.stop > self.expected:
            # They take no room, and so no credit either: what comes after them has as much as before.
            self.credit += frame.stop - self.expected
            self.parked.append((self.expected, frame.stop, None))
            self.expected = frame.stop

    def forget_below(self, low: int) -> None:
        """The sender knows of everything below ``low``."""
        if low > self._low:
            self._low = low
            if self._rejected:
                self._rejected = [run for run in self._rejected if run[1] > low]
            if self._returned:
                self._returned = [run for run in self._returned if run[1] > low]

    # --- what became of them ------------------------------------------------------------------------------------

    def accept(self, position: int) -> None:
        """Everything below ``position`` has found its place."""
        self.accepted = position

    def settle(self, first: int, stop: int, verdict: Verdict) -> None:
        """What the application said; a second word on the same position changes nothing."""
        new = self.resolved.add(first, stop)
        if verdict is Verdict.REJECT:
            self._rejected += new
            self._new_rejected += new
        else:
            # Below the mark, the mark says it.
            self._new_settled += [run for run in new if run[1] > self.resolved.mark]

    def give_back(self, first: int, stop: int, *, handed: bool) -> None:
        """Unsettled, and not kept here any more."""
        for a, b in self.resolved.add(first, stop):
            self._returned.append((a, b, handed))
            self._new_returned.append((a, b, handed))

    def skip(self, first: int, stop: int) -> None:
        """Voided or moved elsewhere: nothing to tell."""
        self.resolved.add(first, stop)

    @property
    def waiting_bytes(self) -> int:
        """Of what came and has not found its place."""
        early = 0 if self.early is None else self.early.nbytes
        return early + sum(batch.nbytes for _, _, batch in self.parked if batch is not None)

    @property
    def overdrawn(self) -> bool:
        """More came than it had credit for, by its last message."""
        early = 0 if self.early is None else self.early.nbytes
        return self.received_bytes + early > self.credit_bytes

    @property
    def idle(self) -> bool:
        """Nothing of this sender is left here."""
        return not self.parked and self.resolved.mark >= self.accepted

    # --- telling ------------------------------------------------------------------------------------------------

    def news(self) -> list[Frame]:
        """The frames that tell the sender what is new since the last call."""
        out: list[Frame] = []
        if self.subscriptions is not self._told_subscriptions:
            # Before anything new is accepted for them.
            self._told_subscriptions = self.subscriptions
            out.append(Subscribed(list(self.subscriptions)))
        credit = (self.credit, self.credit_bytes)
        if self.accepted != self._told_accepted:
            # First of all: nothing is settled or returned that was not accepted.
            out.append(Accept(self.accepted, *credit))
            self._told_credit = credit
            self._told_accepted = self.accepted
        if self._new_returned:
            out.append(
                Returned(
                    [(a, b) for a, b, handed in self._new_returned if not handed],
                    [(a, b) for a, b, handed in self._new_returned if handed],
                )
            )
            self._new_returned.clear()
        if self._new_settled or self._new_rejected or self.resolved.mark > self._told_settled:
            mark = self.resolved.mark
            settled = [(max(a, mark), b) for a, b in self._new_settled if b > mark]
            out.append(Settle(mark, settled, self._new_rejected.copy(), *credit))
            self._told_credit = credit
            self._told_settled = mark
            self._new_settled.clear()
            self._new_rejected.clear()
        if credit != self._told_credit:
            out.append(Accept(self.accepted, *credit))
            self._told_credit = credit
        return out
