"""Messages of a topic that are for some of the subscriptions here only: what each of these has had.

A pool sends so where the subscriptions at its endpoints overlap: of one name each message goes to one endpoint, and
which one may differ from name to name. The same message may then come several times, for others each time.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from simlink.channels.link.origin import LinkOrigin, Twin
from simlink.channels.link.stretches import Identities, identities_of
from simlink.channels.link.withdraw import held_identities
from simlink.message import Verdict

if TYPE_CHECKING:
    from simlink.channels.link.destination import Destination
    from simlink.channels.link.receiver import ReceiverLink
    from simlink.channels.wire.frames import BatchFrame
    from simlink.message import Batch

__all__ = ["forget_below", "narrow", "offer_to", "unmark"]

_NOBODY = ("\0",)
"""No subscription's name."""


def _named(producer: bytes, name: str) -> bytes:
    """What stands for a producer among what one subscription has had."""
    return producer + b"\0" + name.encode()


def narrow(destination: Destination, frame: BatchFrame) -> None:
    """Keep, of those a batch is for, whom there is here: what a peer writes must not pile up beside its messages."""
    if frame.subscriptions:
        with destination.hub.changed:
            here = {"" if s.private else name for name, s in destination.hub.subscriptions.items()}
        frame.subscriptions = tuple(name for name in sorted(here) if name in frame.subscriptions) or _NOBODY


def _meant(destination: Destination, to: tuple[str, ...]) -> list[str]:
    """The subscriptions that are there of those a message is for, by the hub's names."""
    with destination.hub.changed:
        there = destination.hub.subscriptions.items()
        return [name for name, s in there if not to or ("" if s.private else name) in to]


def offer_to(destination: Destination, link: ReceiverLink, first: int, batch: Batch, to: tuple[str, ...]) -> int:
    """How many of the first messages found their place: with each of these subscriptions, or beside the copy that it
    has. ``to`` is empty for all."""
    names = _meant(destination, to)
    count = len(batch.bodies)
    if not names:
        # Whom it was for is not here any more.
        with destination.hub.changed:
            destination.hub.unrouted += count
        link.settle(first, first + count, Verdict.ACK)
        return count
    had = _had(destination, identities_of(link, batch), names, count)
    edges = [0, *(np.flatnonzero((had[:, 1:] != had[:, :-1]).any(axis=0)) + 1).tolist(), count]
    for start, stop in pairwise(edges):
        fresh = frozenset(name for row, name in enumerate(names) if not had[row, start])
        if len(fresh) == len(names):
            taken = _place(destination, link, first + start, batch[start:stop], fresh, 0)[0]
        else:
            taken = _place_beside(destination, link, first + start, batch[start:stop], fresh, {*names} - fresh)
        if start + taken < stop:
            return start + taken
    return count


def _had(
    destination: Destination, identities: Identities, names: list[str], count: int
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """By subscription and row: whether it has had this."""
    out = np.zeros((len(names), count), np.bool_)
    for producer, sequences, rows in identities:
        everybody = destination.dedup.check(producer, sequences)
        for row, name in enumerate(names):
            for seen in (everybody, destination.dedup.check(_named(producer, name), sequences)):
                if seen is not None:
                    out[row, rows] |= seen
    return out


def _place(
    destination: Destination, link: ReceiverLink, first: int, batch: Batch, names: frozenset[str], more: int
) -> tuple[int, LinkOrigin]:
    """Into the buffers of these subscriptions, as far as there is room; settled when ``more`` others are as well."""
    origin = destination.origin(link, first, batch, names)
    taken = destination.hub.offer(batch, origin, announce=False, names=names, more=more)
    if taken:
        destination.unannounced = True
        part = batch if taken == len(batch.bodies) else batch[:taken]
        for producer, sequences, _ in identities_of(link, part):
            for name in names:
                destination.dedup.mark(_named(producer, name), sequences)
    return taken, origin


def _place_beside(
    destination: Destination, link: ReceiverLink, first: int, batch: Batch, fresh: frozenset[str], had: set[str]
) -> int:
    """The same where ``had`` have a copy already: with that of theirs that is not settled, these wait."""
    held = {name: held_identities(destination.hub, name) for name in had}
    for row in range(len(batch.bodies)):
        one = batch[row : row + 1]
        producer, sequence = one.producers[0], one.sequences[0]
        assert producer is not None
        assert sequence is not None
        identity = (link.scope + producer, int(sequence))
        beside = {name for name in had if identity in held[name]}
        if fresh:
            taken, origin = _place(destination, link, first + row, one, fresh, len(beside))
            if not taken:
                return row
        else:
            destination.duplicates += 1
            if not beside:
                link.settle(first + row, first + row + 1, Verdict.ACK)
                continue
            origin = destination.origin(link, first + row, one, fresh)
            origin.expect(0, 1, len(beside))
        if beside:
            destination.twins.setdefault(identity, []).append(Twin(beside, partial(_settled, destination, origin)))
    return len(batch.bodies)


def _settled(destination: Destination, origin: LinkOrigin, verdict: Verdict) -> None:
    with destination.hub.changed:
        origin.settled(0, 1, verdict)


def forget_below(destination: Destination, link: ReceiverLink, frame: BatchFrame) -> None:
    """What the sender will not send these subscriptions again. Others of them may be far behind."""
    names = _meant(destination, frame.subscriptions)
    for producer, low in frame.lows.items():
        for name in names:
            destination.dedup.forget_below(_named(link.scope + producer, name), low)


def unmark(destination: Destination, link: ReceiverLink, batch: Batch, name: str) -> None:
    """A subscription's copies were dropped unread, and may rightly come again."""
    for producer, sequences, _ in identities_of(link, batch):
        destination.dedup.unmark(producer, sequences)
        if link.addressed:
            destination.dedup.unmark(_named(producer, name), sequences)
