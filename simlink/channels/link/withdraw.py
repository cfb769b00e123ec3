"""Taking a link's messages back out of a hub: moved elsewhere, orphaned, or given back at the end.

This knows the inside of `Hub`, whose log it edits under the hub's lock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from simlink.channels.hub import Hub, Segment, Subscription
from simlink.channels.link.runs import Runs
from simlink.channels.wire.frames import Run
from simlink.message import Batch, Same

if TYPE_CHECKING:
    from simlink.channels.link.receiver import ReceiverLink

__all__ = ["count_an_attempt", "drop_moved", "give_back_all", "held_identities", "unowned"]


def drop_moved(hub: Hub, link: ReceiverLink, positions: Sequence[Run]) -> list[tuple[int, int, Batch, str]]:
    """Drop those of the link's messages at ``positions`` that were never handed out: what was dropped, by position,
    and of which subscription."""
    moved = Runs.of(positions)
    out: list[tuple[int, int, Batch, str]] = []

    def keep(name: str, segment: Segment) -> Iterator[Segment]:
        base = _position(segment)
        at = 0
        for first, stop in _overlap(moved, base, base + len(segment)):
            if first - base > at:
                yield segment.part(at, first - base)
            at = stop - base
            out.append((first, stop, segment.batch[first - base : at], name))
        if at < len(segment):
            yield segment.part(at, len(segment))

    with hub.changed:
        for subscription in hub.subscriptions.values():
            _rework(subscription, lambda s: _of(s, link) and _fresh(s), partial(keep, subscription.name))
    return out


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
                link = getattr(segment.origin, "link", None)
                if link is None:
                    continue
                base = _position(segment)
                if isinstance(segment.attempts, Same):
                    if segment.attempts.value > 1:
                        out.setdefault(link, []).append((base, base + len(segment)))
                else:
                    runs = [(base + row, base + row + 1) for row, n in enumerate(segment.attempts) if n > 1]
                    out.setdefault(link, []).extend(runs)
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
    yield from subscription._fresh
    yield from (s for _, s in subscription._first)
    yield from (s for _, _, s in subscription._delayed)
    for parked in subscription._parked.values():
        yield from parked
    for reader in subscription.readers:
        for held in reader.held.values():
            if held.marks is None:
                yield held.segment
            else:
                yield from (held.segment.part(r, r + 1) for r, mark in enumerate(held.marks) if not mark)


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
