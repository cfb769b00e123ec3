"""Taking a link's messages back out of a hub: moved elsewhere, orphaned, or given back at the end.

This knows the inside of `Hub`, whose log it edits under the hub's lock.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from simlink.channels.hub import Hub, Origin, Segment, Subscription
from simlink.channels.link.origin import LinkOrigin
from simlink.channels.link.runs import Runs
from simlink.channels.link.stretches import stretches
from simlink.channels.wire.frames import Run
from simlink.message import Batch, Same

if TYPE_CHECKING:
    from simlink.channels.link.receiver import ReceiverLink

__all__ = ["count_an_attempt", "drop_moved", "give_back_all", "held_identities", "unowned"]


def drop_moved(hub: Hub, link: ReceiverLink, positions: Sequence[Run]) -> list[tuple[int, int, Batch, str]]:
    """Drop those of the link's messages at ``positions`` that were never handed out: what was dropped, by position,
    and of which subscription. What the readers of one subscription were handed stays with the others as well, as a
    repeated attempt: were it forgotten and came again, the first would be handed it as new."""
    moved = Runs.of(positions)
    out: list[tuple[int, int, Batch, str]] = []
    unread: Counter[tuple[Origin, int]] = Counter()

    def keep(name: str, segment: Segment) -> Iterator[Segment]:
        base = _position(segment)
        at = 0
        for first, stop in _overlap(moved, base, base + len(segment)):
            if first - base > at:
                yield segment.part(at, first - base)
            at = stop - base
            for start, end, whole in _alike(segment, first - base, at, unread):
                part = segment.part(start, end)
                if whole:
                    out.append((base + start, base + end, part.batch, name))
                else:
                    yield part.again()
        if at < len(segment):
            yield segment.part(at, len(segment))

    def wanted(segment: Segment) -> bool:
        return _of(segment, link) and _fresh(segment)

    with hub.changed:
        for subscription in hub.subscriptions.values():
            for segment in filter(wanted, _waiting(subscription)):
                if segment.origin is not None and segment.origin.shared:
                    unread.update((segment.origin, row) for row in range(segment.row, segment.row + len(segment)))
        for subscription in hub.subscriptions.values():
            _rework(subscription, wanted, partial(keep, subscription.name))
    return out


def _alike(
    segment: Segment, first: int, stop: int, unread: Counter[tuple[Origin, int]]
) -> Iterator[tuple[int, int, bool]]:
    """Cut rows where it changes whether nobody has read a message, in any subscription."""
    origin = segment.origin
    if origin is None or not origin.shared:
        yield first, stop, True
        return
    whole = [unread[origin, segment.row + row] == origin.copies for row in range(first, stop)]
    for a, b, each in stretches(np.array(whole)):
        yield first + a, first + b, each


def count_an_attempt(hub: Hub, link: ReceiverLink) -> int:
    """Nobody knows whether another receiver has them too: hand out what is left of a link as a repeated attempt."""
    count = 0

    def again(segment: Segment) -> Iterator[Segment]:
        nonlocal count
        count += len(segment)
        yield segment.again()

    with hub.changed:
        for subscription in hub.subscriptions.values():
            _rework(subscription, lambda s: _of(s, link) and _fresh(s), again)
    return count


def give_back_all(hub: Hub) -> dict[ReceiverLink, list[Run]]:
    """Empty the hub, whose readers have left: which positions the application once held."""
    out: dict[ReceiverLink, list[Run]] = {}
    with hub.changed:
        for subscription in hub.subscriptions.values():
            for segment in subscription.withdraw(lambda _: True):
                origin, attempts = segment.origin, segment.attempts
                if not isinstance(origin, LinkOrigin):
                    continue
                base = _position(segment)
                if not isinstance(attempts, Same) or (attempts.value == 1 and origin.shared):
                    # By this subscription's readers, or by those of one that is through with it.
                    begun = [n > 1 or origin.begun(segment.row + row) for row, n in enumerate(attempts)]
                    runs = [(base + a, base + b) for a, b, each in stretches(np.array(begun)) if each]
                    out.setdefault(origin.link, []).extend(runs)
                elif attempts.value > 1:
                    out.setdefault(origin.link, []).append((base, base + len(segment)))
    return out


def held_identities(hub: Hub, name: str | None = None) -> set[tuple[bytes, int]]:
    """The identities of everything in the hub, or in one subscription, that is not settled, producers within the scope
    of their link. Slow, for the rare duplicate."""
    out: set[tuple[bytes, int]] = set()
    with hub.changed:
        for subscription in hub.subscriptions.values():
            if name not in {None, subscription.name}:
                continue
            for segment in _segments(subscription):
                batch = segment.batch
                scope: bytes = getattr(getattr(segment.origin, "link", None), "scope", b"")
                for producer, sequence in zip(batch.producers, batch.sequences, strict=True):
                    if producer is not None and sequence is not None:
                        out.add((scope + producer, int(sequence)))
    return out


def unowned(hub: Hub) -> int:
    """How many unsettled messages in the hub no sender can be told of: those of clients without a link."""
    with hub.changed:
        return sum(
            len(segment) for s in hub.subscriptions.values() for segment in _segments(s) if segment.origin is None
        )


def _segments(subscription: Subscription) -> Iterator[Segment]:
    yield from _waiting(subscription)
    for reader in subscription.readers:
        for held in reader.held.values():
            if held.marks is None:
                yield held.segment
            else:
                yield from (held.segment.part(r, r + 1) for r, mark in enumerate(held.marks) if not mark)


def _waiting(subscription: Subscription) -> Iterator[Segment]:
    """What no reader holds."""
    yield from subscription._fresh
    yield from (s for _, s in subscription._first)
    yield from (s for _, _, s in subscription._delayed)
    for parked in subscription._parked.values():
        yield from parked


def _rework(
    subscription: Subscription, wanted: Callable[[Segment], bool], change: Callable[[Segment], Iterable[Segment]]
) -> None:
    """Replace the waiting segments that are ``wanted`` by what ``change`` makes of them, at their old places."""
    for segment in subscription.withdraw(wanted):
        for part in change(segment):
            heapq.heappush(subscription._first, (part.first, part))
            subscription.count += len(part)
            subscription.nbytes += part.batch.nbytes


def _of(segment: Segment, link: ReceiverLink) -> bool:
    return getattr(segment.origin, "link", None) is link


def _fresh(segment: Segment) -> bool:
    """Whether none of it was ever handed out."""
    attempts = segment.attempts
    return attempts.value == 1 if isinstance(attempts, Same) else max(attempts) == 1


def _position(segment: Segment) -> int:
    position: int = getattr(segment.origin, "position", 0)
    return position + segment.row


def _overlap(runs: Runs, first: int, stop: int) -> Iterator[Run]:
    """The parts of ``[first, stop)`` that are in."""
    at = first
    for a, b in runs.missing(first, stop):
        if a > at:
            yield at, a
        at = b
    if at < stop:
        yield at, stop
