"""A destination as its receiving process keeps it: the hub, the links of its senders, and the duplicates told apart.

No I/O. Whoever carries the frames calls everything in here from one thread, except `Origin.ready` and what the hub
calls back, which come from the threads of the readers.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from simlink.channels.dedup import Deduplicator
from simlink.channels.driver import Mode
from simlink.channels.hub import Hub
from simlink.channels.link import addressed
from simlink.channels.link.crowding import BEYOND, check_room, grant_in_turn
from simlink.channels.link.origin import LinkOrigin, Twin
from simlink.channels.link.receiver import ReceiverLink
from simlink.channels.link.stretches import Identities, identities_of, split, stretches
from simlink.channels.link.withdraw import count_an_attempt, drop_moved, give_back_all, held_identities
from simlink.channels.wire.frames import BatchFrame, FrameError, Heartbeat, Hello, Moved, Void
from simlink.message import Batch, Verdict

__all__ = ["PAUSE", "STALE", "Destination", "LinkOrigin"]

_FLOOR = 64
"""A link with nothing granted gets this much while there is room at all, even if others hold more than there is."""
_MAX_LOST_LINKS = 4096
STALE = "silent for longer than what you sent is yours: join anew"
"""Said to a sender whose lease has run out."""
_SHALLOW = 16_384
"""While readers keep settling, so many messages wait for them at most: what waits longer has left the processor's
caches when it is decoded (two pairs of runs on a busy machine, with the buffer's bound itself at this: 1.8 and 2.0
against 2.1 µs of CPU a message). When they stop, the buffer fills to its bound."""
PAUSE = 0.02
"""Seconds without a settlement after which readers are held to have stopped."""


class Destination:
    """One name that is received here.

    Args:
        name, mode: what senders ask for.
        max_messages, max_bytes: the bound of each subscription's buffer, held messages included.
        beyond: bytes that may wait beside the buffers, of all links together, without a credit; see `crowding`.
        dead: seconds of silence after which a sender's messages are not handed out before it is heard again.
        orphan_after: seconds of silence after which they are handed out nevertheless, as a repeated attempt.
        notify: called, from any thread and under the hub's lock, when something was settled while nobody looked.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        name: str,
        mode: Mode,
        *,
        max_messages: int = 65_536,
        max_bytes: int = 16 * 1024 * 1024,
        beyond: int = BEYOND,
        dead: float = 5.0,
        orphan_after: float = 10.0,
        notify: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hub = Hub(name, mode, max_messages=max_messages, max_bytes=max_bytes, clock=clock)
        self.dead = dead
        self.orphan_after = orphan_after
        self.dedup = Deduplicator()
        self.links: dict[bytes, ReceiverLink] = {}
        self._plain: OrderedDict[bytes, ReceiverLink] = OrderedDict()
        """By scope, the one who came last at the end: stands for those who publish without a link; nobody hears what
        it would tell."""
        self._addressed = False
        """Something came that was not for all: what a subscription has had is noted by its name since then."""
        self.beyond = beyond
        self.duplicates = 0
        self.crowded = 0
        self.orphans = 0
        self._notify = notify
        self._clock = clock
        self._last_settled = -math.inf
        self.holding_back = False
        """Credit is kept back because the readers keep settling: look again soon, in case they stop."""
        share, share_bytes = max(max_messages // 2, 1), max(max_bytes // 2, 1)
        crumb = max(share // 8, 1)
        self._alone = share - crumb, _SHALLOW - crumb, share_bytes - max(share_bytes // 8, 1)
        """For the only link: with so much credit it gets no more; the same while credit is kept back; and in bytes."""
        self._settled: deque[tuple[LinkOrigin, int, int, Verdict]] = deque()
        self.twins: dict[tuple[bytes, int], list[Twin]] = {}
        self.unannounced = False

    # --- links --------------------------------------------------------------------------------------------------

    def hello(self, hello: Hello, scope: bytes = b"") -> ReceiverLink:
        """The link of a sender, resumed if it is known, new otherwise. Call `pump` and then its `welcome`.

        ``scope`` is who the peer is, where that is proven (a certificate), else empty.

        Raises:
            FrameError: what it says of itself cannot be.
        """
        link = self.links.pop(scope + hello.sender, None)
        if link is None or hello.incarnation != link.incarnation:
            if link is not None:
                self.bye(link)  # its sender does not know of it, so it will never send any of it again
            link = ReceiverLink(hello.sender, scope)
            link.addressed = self._addressed
            hello = Hello(hello.sender, hello.destination, hello.mode, hello.subscription, lease_ms=hello.lease_ms)
        self.links[scope + hello.sender] = link
        link.resume(hello)
        if self.hub.mode is Mode.TOPIC:
            link.subscriptions = self._subscriptions()
        link.heard = self._clock()
        if not link.resuming:
            self._unblock(link)
        return link

    def _subscriptions(self) -> list[str]:
        with self.hub.changed:
            return ["" if s.private else s.name for s in self.hub.subscriptions.values()]

    def subscribed(self) -> None:
        """What of a topic is subscribed to here may have changed: `ReceiverLink.news` tells the senders."""
        if self.hub.mode is Mode.TOPIC:
            now = self._subscriptions()
            for link in self.links.values():
                if link.connected and link.subscriptions != now:
                    link.subscriptions = now

    def heard(self, link: ReceiverLink) -> bool:
        """Something came from this sender just now; before it is looked at. False: it was silent for longer than its
        lease, so that what it left, and what it said before it noticed, may be with others. It must join anew."""
        now = self._clock()
        if link.lease and (link.stale or now - link.heard >= link.lease):
            link.stale = True
            return False
        link.heard = now
        if not link.resuming:
            self._unblock(link)
        return True

    def _resumed(self, link: ReceiverLink) -> None:
        """The sender has said what became of the messages it left here."""
        if link.resuming:
            link.resuming = False
            self._unblock(link)

    def _unblock(self, link: ReceiverLink) -> None:
        if link.blocked:
            link.blocked = False
            with self.hub.changed:
                self.hub.changed.notify_all()

    def lost(self, link: ReceiverLink) -> None:
        """Its connection is gone. What it left is kept, for it may come back."""
        link.connected = False
        link.parked.clear()
        link.early = None
        link.expected = link.accepted
        name = link.scope + link.sender
        if self.links.get(name) is link:
            if link.gone and link.idle:
                del self.links[name]
            elif len(self.links) > _MAX_LOST_LINKS:
                oldest = next((s for s, known in self.links.items() if not known.connected), None)
                if oldest is not None:
                    self.bye(self.links.pop(oldest))

    def bye(self, link: ReceiverLink) -> None:
        """The sender goes for good: what it left is this receiver's alone."""
        link.gone = True
        self._unblock(link)

    def _ready(self, link: ReceiverLink) -> bool:
        """Whether what this sender left may be handed out: it was heard lately, or will not be heard again."""
        if self._open(link):
            return True
        # Asked again: it may have been heard meanwhile, by a thread that looked at `blocked` before this.
        link.blocked = True
        return self._open(link)

    def _open(self, link: ReceiverLink) -> bool:
        if link.gone or link.orphaned:
            return True
        if link.stale or link.resuming:
            return False
        return self._clock() - link.heard < (min(self.dead, link.lease) if link.lease else self.dead)

    def tick(self) -> float:
        """Take care of silent senders; call at least every `dead` seconds, or after the seconds that it returns."""
        now = self._clock()
        wait = PAUSE if self.holding_back else self.dead
        for link in list(self.links.values()):
            if link.gone and link.idle and not link.connected:
                del self.links[link.scope + link.sender]
            if not link.blocked or link.orphaned:
                continue
            left = link.heard + self.orphan_after - now
            if left > 0:
                wait = min(wait, left)
                continue
            self.orphans += count_an_attempt(self.hub, link)
            link.orphaned = True
            link.blocked = False
            with self.hub.changed:
                self.hub.changed.notify_all()
        return wait

    # --- what senders say ---------------------------------------------------------------------------------------

    def batch(self, link: ReceiverLink, frame: BatchFrame) -> None:
        """Messages came; what finds no room waits in the link.

        Raises:
            FrameError: out of place or beyond the credit; or, BUSY, no room for it now.
        """
        self._resumed(link)
        addressed.narrow(self, frame)
        link.park(frame)
        self._unpark(link)
        if link.parked:
            self.check_room(link, frame)
        elif link.received_bytes >= link.wants:
            link.wants = 0
        if link.addressed:
            self._addressed = True
            addressed.forget_below(self, link, frame)
            return
        for producer, low in frame.lows.items():
            self.dedup.forget_below(link.scope + producer, low)

    def check_room(self, link: ReceiverLink, frame: BatchFrame) -> None:
        """Whether what has just come may wait for its turn or its place.

        Raises:
            FrameError: not now (BUSY).
        """
        try:
            check_room(link, frame.batch.nbytes, self.links.values(), self.beyond, self._clock())
        except FrameError:
            self.crowded += 1
            raise

    def void(self, link: ReceiverLink, frame: Void) -> None:
        """Positions will not come."""
        link.void(frame)
        self._unpark(link)

    def moved(self, link: ReceiverLink, frame: Moved) -> None:
        """Messages were sent elsewhere meanwhile: drop those that nobody was handed."""
        if any(stop > link.accepted for _, stop in frame.positions):
            raise FrameError("a position was moved that never came")
        for first, stop, batch, name in drop_moved(self.hub, link, frame.positions):
            link.skip(first, stop)
            addressed.unmark(self, link, batch, name)
        self._resumed(link)

    def heartbeat(self, link: ReceiverLink, frame: Heartbeat) -> None:
        self._resumed(link)
        link.forget_below(frame.low)

    # --- somebody without a link ----------------------------------------------------------------------------------

    def publish(self, batch: Batch, scope: bytes = b"") -> bool:
        """Take messages from somebody who is told of their acceptance only: all of them, or none while there is no
        room. Call `announce` soon. ``scope`` is who that is (`plain_scope`)."""
        with self.hub.changed:
            room = min((s.room() for s in self.hub.subscriptions.values()), default=self.hub.max_messages)
        if len(batch) > room:
            return False
        link = self._plain_link(scope)
        link.accept(link.accepted + self._offer(link, link.accepted, batch))
        link.news()
        link.forget_below(link.accepted)
        return True

    def _plain_link(self, scope: bytes) -> ReceiverLink:
        link = self._plain.get(scope)
        if link is None:
            link = self._plain[scope] = ReceiverLink(bytes(16), scope)
            link.gone = True
            # Addresses are without number. Who has nothing open is forgotten; the others have messages in the buffer,
            # which is bounded. Two for each that comes, so that it ends.
            for _ in range(2 if len(self._plain) > _MAX_LOST_LINKS else 0):
                oldest, known = self._plain.popitem(last=False)
                if not known.idle:
                    self._plain[oldest] = known
        self._plain.move_to_end(scope)
        return link

    def published_and_open(self) -> int:
        """How many messages that came by `publish` are not settled."""
        return sum(
            stop - first for link in self._plain.values() for first, stop in link.resolved.missing(0, link.accepted)
        )

    # --- into the hub -------------------------------------------------------------------------------------------

    def _unpark(self, link: ReceiverLink) -> None:
        while link.parked:
            first, stop, batch = link.parked[0]
            if batch is None:
                taken = stop - first
                link.skip(first, stop)
            else:
                taken = self._offer(link, first, batch)
            link.accepted = first + taken
            if taken < stop - first:
                link.parked[0] = (first + taken, stop, batch[taken:] if batch is not None else None)
                return
            link.parked.popleft()

    def _offer(self, link: ReceiverLink, first: int, batch: Batch) -> int:
        """How many of the first messages found their place: in the hub, or beside a copy of their own."""
        if link.addressed:
            return addressed.offer_to(self, link, first, batch, link.address(first))
        identities = identities_of(link, batch)
        duplicate = self._check(identities, len(batch.bodies))
        if duplicate is None:
            return self._offer_fresh(link, first, batch, identities)
        held = held_identities(self.hub)
        taken = 0
        for start, stop, seen in stretches(duplicate):
            if seen:
                for row in range(start, stop):
                    self._beside(link, first + row, batch, row, held)
                self.duplicates += stop - start
                taken = stop
                continue
            part = batch[start:stop]
            taken = start + self._offer_fresh(link, first + start, part, identities_of(link, part))
            if taken < stop:
                break
        return taken

    def _offer_fresh(self, link: ReceiverLink, first: int, batch: Batch, identities: Identities) -> int:
        taken = self.hub.offer(batch, self.origin(link, first, batch), announce=False)
        if taken:
            self.unannounced = True
            for producer, sequences, _ in (
                identities if taken == len(batch.bodies) else identities_of(link, batch[:taken])
            ):
                self.dedup.mark(producer, sequences)
        return taken

    def origin(
        self, link: ReceiverLink, position: int, batch: Batch, names: frozenset[str] = frozenset()
    ) -> LinkOrigin:
        """What tells the link when these messages are settled, which begin at ``position``."""
        link.ready = ready = link.ready or partial(self._ready, link)
        return LinkOrigin(link, position, batch, self._on_settled, ready, names)

    def _check(self, identities: Identities, n: int) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        out = None
        for producer, sequences, rows in identities:
            seen = self.dedup.check(producer, sequences)
            if seen is not None:
                if out is None:
                    out = np.zeros(n, np.bool_)
                out[rows] = seen
        return out

    def _beside(self, link: ReceiverLink, position: int, batch: Batch, row: int, held: set[tuple[bytes, int]]) -> None:
        """A second copy is settled with the first: at once if that was settled."""
        producer, sequence = batch.producers[row], batch.sequences[row]
        assert producer is not None
        assert sequence is not None
        identity = (link.scope + producer, int(sequence))
        if identity in held:
            twin = Twin(None, partial(link.settle, position, position + 1))
            self.twins.setdefault(identity, []).append(twin)
        else:
            link.settle(position, position + 1, Verdict.ACK)

    def announce(self) -> None:
        """Wake the readers for what came. After the acceptance went out: waking them first would put their work, and
        the interpreter lock that it takes, between a sender and the answer it waits for."""
        if self.unannounced:
            self.unannounced = False
            self.hub.announce()

    # --- out of the hub -----------------------------------------------------------------------------------------

    def _on_settled(self, origin: LinkOrigin, first: int, stop: int, verdict: Verdict) -> None:
        self._settled.append((origin, first, stop, verdict))
        self._notify()

    @property
    def has_settled(self) -> bool:
        """Whether `pump` would find something settled."""
        return bool(self._settled)

    def pump(self, *, settlements: bool = True) -> None:
        """Book what was settled, find places for what waits, and grant credit for the room there is. Without
        ``settlements`` those stay for the next time."""
        if self._settled:
            self._last_settled = self._clock()
        while settlements and self._settled:
            origin, first, stop, verdict = self._settled.popleft()
            origin.link.settle(origin.position + first, origin.position + stop, verdict)
            if self.twins:
                self._settle_twins(origin, first, stop, verdict)
        links = [link for link in self.links.values() if link.connected]
        for link in links:
            if link.parked:
                self._unpark(link)
        if len(links) != 1 or self._short(links[0]):
            self._grant(links)

    def _settle_twins(self, origin: LinkOrigin, first: int, stop: int, verdict: Verdict) -> None:
        for producer, sequences, _ in identities_of(origin.link, origin.batch[first:stop]):
            for sequence in sequences:
                twins = self.twins.pop((producer, int(sequence)), [])
                wait = [twin for twin in twins if not twin.told(origin.names, verdict)]
                if wait:
                    self.twins[producer, int(sequence)] = wait

    def _short(self, link: ReceiverLink) -> bool:
        """Whether the only link wants more than a crumb of credit."""
        enough, crumb, enough_bytes = self._alone
        self.holding_back = crumb < enough and self._clock() - self._last_settled < PAUSE
        if self.holding_back:
            # It would get no more than a crumb of what `_grant` holds back: this is the common case.
            enough = crumb
        return link.credit - link.expected <= enough or link.credit_bytes - link.received_bytes <= enough_bytes

    def _grant(self, links: list[ReceiverLink]) -> None:
        """Credit: each link its share of half the bound, as far as the room goes that is not promised to others."""
        if not links:
            return
        now = self._clock()
        self.holding_back = False
        share = max(self.hub.max_messages // (2 * len(links)), 1)
        share_bytes = max(self.hub.max_bytes // (2 * len(links)), 1)
        enough, enough_bytes = share - max(share // 8, 1), share_bytes - max(share_bytes // 8, 1)
        for link in links:
            if link.credit - link.expected <= enough or link.credit_bytes - link.received_bytes <= enough_bytes:
                break
        else:
            return  # nobody wants more than a crumb
        with self.hub.changed:
            subscriptions = list(self.hub.subscriptions.values())
            room = min((s.room() for s in subscriptions), default=self.hub.max_messages)
            if now - self._last_settled < PAUSE:
                waiting = max((s.count - sum(r.holding for r in s.readers) for s in subscriptions), default=0)
                shallow = max(_SHALLOW - waiting, 0)
                self.holding_back = shallow < room
                room = min(room, shallow)
            room_bytes = self.hub.max_bytes - max((s.nbytes for s in subscriptions if s.overflow != "drop"), default=0)
        free = room - sum(max(0, link.credit - link.accepted) for link in links)
        free_bytes = room_bytes - sum(max(0, link.credit_bytes - link.received_bytes) for link in links)
        large = [link for link in links if link.wants > share_bytes]
        if large and grant_in_turn(large, room_bytes, now):
            self.holding_back = True
        for link in links:
            grant = _top_up(link.credit - link.expected, share, room, free, _FLOOR)
            link.credit += grant
            free -= grant
            if link.wants > share_bytes:
                continue
            if room_bytes > 0 and link.credit_bytes < link.received_bytes:
                link.credit_bytes = link.received_bytes  # what was overdrawn is in the buffer, and promised to nobody
            grant = _top_up(link.credit_bytes - link.received_bytes, share_bytes, room_bytes, free_bytes, _FLOOR * 1024)
            link.credit_bytes += grant
            free_bytes -= grant

    def close(self) -> None:
        """Nobody receives here any more: give back everything that is unsettled. `ReceiverLink.news` tells it."""
        self.pump()
        handed = give_back_all(self.hub)
        for link in self.links.values():
            link.parked.clear()
            link.expected = link.accepted
            for first, stop in link.resolved.missing(0, link.accepted):
                for position, end, again in split(first, stop, handed.get(link, [])):
                    link.give_back(position, end, handed=again)

    def stats(self) -> dict[str, Any]:
        return {
            **self.hub.stats(),
            "senders": len(self.links),
            "connected": sum(link.connected for link in self.links.values()),
            "parked": sum(b - a for link in self.links.values() for a, b, _ in link.parked),
            "parked_bytes": sum(link.waiting_bytes for link in self.links.values()),
            "crowded": self.crowded,
            "duplicates": self.duplicates,
            "undecided": self.dedup.forgotten,
            "evicted": self.dedup.evicted,
            "orphans": self.orphans,
        }


def _top_up(outstanding: int, share: int, room: int, free: int, floor: int) -> int:
    """What to add to a link's credit. Crumbs are kept back, unless the link has nothing at all."""
    if room <= 0 or outstanding >= share:
        return 0
    grant = min(share - outstanding, max(free, 0))
    if outstanding > 0:
        return grant if grant >= max(share // 8, 1) else 0
    return grant or min(floor, share, room)
