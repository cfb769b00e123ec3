"""Consistent hashing with bounded load: a key goes to its own endpoint, unless that has far more than its share."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from itertools import repeat
from math import isfinite
from struct import unpack
from typing import ClassVar

from simlink.balancing.balancer import NOBODY, Balancer, burden
from simlink.balancing.pick import EndpointLoad, Pick
from simlink.errors import ConfigError

_MOST = 4_000_000
"""Points on a ring at most: 32 MB of integers."""

_MASK = (1 << 64) - 1


class ConsistentHash(Balancer):
    """Sends a key to the endpoint that owns its place on a ring; messages without a key go to random places.

    Endpoints own ``points`` × weight places each, hashed from their names by BLAKE2b: every sender, in every process,
    agrees. When one leaves, only its own keys move; when one comes, it takes only what becomes its own.

    With bounded load, an endpoint that already has in flight ``bound`` times its share (or more) of all that is, is
    passed over; the key then goes to further places that are drawn from its hash, so the overflow of one endpoint is
    spread over all others and not heaped on the next one. Each message of a failed pick counts as 8 in flight for a
    second.

    Args:
        bound: above 1, by default 1.25; None lets a hot key have its endpoint without limit.
        points: places per unit of weight, by default 160: about 6 % between the largest of ten shares and the mean.

    Raises:
        ConfigError: ``bound`` is not above 1, or ``points`` is not at least 1.
    """

    name: ClassVar[str] = "consistent_hash"

    def __init__(self, bound: float | None = 1.25, points: int = 160) -> None:
        if bound is not None and not (isfinite(bound) and bound > 1):
            raise ConfigError(f"consistent_hash: bound is {bound!r}; give a number above 1, or None for no bound")
        if points < 1:
            raise ConfigError(f"consistent_hash: points is {points!r}; give at least 1")
        self.bound = bound
        self.points = points

    def _forget(self) -> None:
        super()._forget()
        self._size = 0
        self._factor = 0.0
        self._members: Sequence[EndpointLoad] = ()
        self._ring: list[int] = []
        self._owners: list[EndpointLoad] = []
        self._drawn: dict[str, tuple[int, ...]] = {}
        self._view: list[tuple[str, int]] = []
        # All messages in flight to the eligible, as a board of one place that all of them share.
        self._board = [0]

    def _arrange(self) -> None:
        ready = self._ready
        self._size = len(ready)
        self._board = [sum(load.in_flight for load in ready)]
        for load in ready:
            load.board = self._board
            load.index = 0
        self._factor = (self.bound or 0.0) / (sum(load.weight for load in ready) or 1.0)
        view = [(load.name, max(1, round(self.points * load.weight))) for load in ready]
        if view == self._view and all(a is b for a, b in zip(self._members, ready, strict=True)):
            return
        if sum(places for _, places in view) > _MOST:
            raise ConfigError(
                f"consistent_hash: these weights ask for more than {_MOST:,} places on the ring; only their ratios "
                "count, so give smaller ones"
            )
        self._view = view
        self._members = ready
        self._drawn = {name: self._places(name, places) for name, places in view}
        pairs: list[tuple[int, int]] = []
        for index, (name, _) in enumerate(view):
            pairs.extend(zip(self._drawn[name], repeat(index)))
        # A place that two names hash to is the first name's, on every sender.
        pairs.sort(key=lambda pair: (pair[0], ready[pair[1]].name))
        self._ring = [place for place, _ in pairs]
        self._owners = [ready[index] for _, index in pairs]

    def _places(self, name: str, count: int) -> tuple[int, ...]:
        known = self._drawn.get(name, ())
        if len(known) >= count:
            return known[:count]
        drawn = list(known)
        while len(drawn) < count:
            # One digest makes eight places, always the same ones from the beginning: more weight only adds places.
            body = blake2b(f"{name}#{len(drawn) // 8}".encode()).digest()
            drawn.extend(unpack("<8Q", body)[len(drawn) % 8 :])
        return tuple(drawn[:count])

    def pick(self, count: int = 1, key: bytes | None = None, exclude: AbstractSet[str] = NOBODY) -> Pick:
        if exclude or count < 1 or not self._size:
            offered = self._offered(count, exclude)
            return self._take(self._walk(self._hash(key), offered, count), count)
        place = self._hash(key)
        at = bisect_left(self._ring, place)
        owners = self._owners
        load = owners[at] if at < len(owners) else owners[0]
        board = self._board
        # Strictly below the bound, as HAProxy has it; whole messages below a fraction are below its ceiling as well.
        factor = self._factor
        if factor and (load.penalty or load.in_flight >= (board[0] + count) * factor * load.weight):
            load = self._walk(place, self._ready, count)
        board[0] += count
        load.in_flight += count
        load.picks += count
        clock = self._clock
        return Pick(load, clock(), count, count)

    def choose(self, endpoints: Sequence[EndpointLoad], key: bytes | None) -> EndpointLoad:
        return self._walk(self._hash(key), endpoints, 1)

    def _hash(self, key: bytes | None) -> int:
        if key is None:
            return self._random.getrandbits(64)
        return int.from_bytes(blake2b(key, digest_size=8).digest(), "little")

    def _walk(self, place: int, endpoints: Sequence[EndpointLoad], count: int) -> EndpointLoad:
        """The first of these, along the places drawn from a key's, that has room; or the least loaded of them."""
        ring, owners, factor = self._ring, self._owners, self._factor
        total = self._board[0]
        allowed: AbstractSet[int] | None = None
        if len(endpoints) != self._size:
            allowed = {id(load) for load in endpoints}
            total = sum(load.in_flight for load in endpoints)
            factor = (self.bound or 0.0) / sum(load.weight for load in endpoints)
        room = (total + count) * factor
        for _ in range(4 * self._size + 16):
            at = bisect_left(ring, place)
            load = owners[at] if at < len(owners) else owners[0]
            if (allowed is None or id(load) in allowed) and (not room or burden(load) < room * load.weight):
                return load
            # A linear congruential step (Knuth's MMIX constants): the same further places on every sender.
            place = (place * 6364136223846793005 + 1442695040888963407) & _MASK
        return min(endpoints, key=self._cost)
