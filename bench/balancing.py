"""Balancing strategies: every gate that is asked of them, as one table, and the picks per second beside plain floors.

    python bench/balancing.py [--quick] [--json] [--out docs/balancing-figures.md] [--plots docs/images]

All but the picks per second is virtual time: the same figures on every machine. Each floor is the same strategy by hand
in one small class, that keeps no books: what it is held against is what a pick, its clock readings and its closing cost.
Floor and ours take turns in chunks of a few milliseconds; a rate is the median over the chunks, a ratio the median of the
ratios of neighbours, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from math import exp
from pathlib import Path

from simlink.balancing.balancer import Balancer
from simlink.balancing.member import Member
from simlink.balancing.pick import Verdict
from simlink.balancing.registry import STRATEGIES, balancer
from simlink.testing import strategies
from simlink.testing.service import Fault

LOAD_AWARE = ("least_connections", "power_of_two", "peak_ewma", "least_estimated_delay")
SIZES = (10, 100, 1_000)


@dataclass
class Row:
    """One line of the table."""

    what: str
    who: str
    measured: str
    gate: str
    met: bool


# --- floors: the same rule, no books ------------------------------------------------------------------------------------


class FloorRoundRobin:
    def __init__(self, names: list[str]) -> None:
        self.names, self.size, self.at = names, len(names), 0

    def pick(self) -> str:
        self.at = at = (self.at + 1) % self.size
        return self.names[at]


class FloorRandom:
    def __init__(self, names: list[str]) -> None:
        self.names, self.size, self.uniform = names, len(names), random.Random(1).random

    def pick(self) -> str:
        return self.names[int(self.uniform() * self.size)]


class FloorWeighted:
    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.weights = [1.0] * len(names)
        self.credits = [0.0] * len(names)
        self.total = sum(self.weights)

    def pick(self) -> str:
        self.credits = credits = [credit + weight for credit, weight in zip(self.credits, self.weights, strict=True)]
        place = credits.index(max(credits))
        credits[place] -= self.total
        return self.names[place]


class FloorLeast:
    def __init__(self, names: list[str]) -> None:
        self.names, self.uniform = names, random.Random(1).random
        self.loads = levels(len(names))

    def pick(self) -> str:
        loads = self.loads
        least = min(loads)
        ties = [place for place, load in enumerate(loads) if load == least]
        return self.names[ties[int(self.uniform() * len(ties))]]


class FloorTwo(FloorLeast):
    def pick(self) -> str:
        uniform, loads = self.uniform, self.loads
        size = len(loads)
        first = int(uniform() * size)
        second = int(uniform() * (size - 1))
        if second >= first:
            second += 1
        return self.names[first if loads[first] <= loads[second] else second]


class FloorEwma(FloorLeast):
    def __init__(self, names: list[str]) -> None:
        super().__init__(names)
        self.latency = [0.010] * len(names)
        self.stamp = [time.monotonic()] * len(names)

    def cost(self, place: int, now: float) -> float:
        return self.latency[place] * exp((self.stamp[place] - now) / 10.0) * (self.loads[place] + 1)

    def pick(self) -> str:
        uniform = self.uniform
        size = len(self.loads)
        first = int(uniform() * size)
        second = int(uniform() * (size - 1))
        if second >= first:
            second += 1
        now = time.monotonic()
        return self.names[first if self.cost(first, now) <= self.cost(second, now) else second]


class FloorDelay(FloorEwma):
    def pick(self) -> str:
        uniform, loads, latency = self.uniform, self.loads, self.latency
        size = len(loads)
        places = range(size) if size <= 32 else [int(uniform() * size) for _ in range(3)]
        costs = [(loads[place] + 1) * latency[place] * (1 + 0.02 * uniform()) for place in places]
        return self.names[places[costs.index(min(costs))]]


class FloorHash:
    def __init__(self, names: list[str]) -> None:
        pairs = sorted(
            (int.from_bytes(blake2b(f"{name}#{i}".encode(), digest_size=8).digest(), "little"), name)
            for name in names
            for i in range(160)
        )
        self.ring = [place for place, _ in pairs]
        self.owners = [name for _, name in pairs]

    def pick(self, key: bytes) -> str:
        at = bisect_left(self.ring, int.from_bytes(blake2b(key, digest_size=8).digest(), "little"))
        return self.owners[at] if at < len(self.owners) else self.owners[0]


def levels(size: int) -> list[int]:
    """What is in flight while picks are timed: the same for floor and ours."""
    draw = random.Random(7)
    return [draw.randrange(4) for _ in range(size)]


FLOORS: dict[str, tuple[Callable[[list[str]], FloorRoundRobin | FloorRandom | FloorWeighted | FloorLeast], float]] = {
    "round_robin": (FloorRoundRobin, 1 / 8),
    "random": (FloorRandom, 1 / 5),
    "weighted_round_robin": (FloorWeighted, 1 / 3),
    "least_connections": (FloorLeast, 1 / 3),
    "power_of_two": (FloorTwo, 1 / 3),
    "peak_ewma": (FloorEwma, 1 / 3),
    "least_estimated_delay": (FloorDelay, 1 / 3),
    "consistent_hash": (FloorHash, 1 / 3),
}


def loaded(name: str, size: int) -> Balancer:
    """A balancer with the same numbers in flight as its floor has, on the machine's own clock."""
    made = balancer(name)
    made.bind(time.monotonic, random.Random(1))
    names = [f"endpoint-{i}:7000" for i in range(size)]
    made.update([Member(name) for name in names])
    for level, name in zip(levels(size), names, strict=True):
        others = frozenset(names) - {name}
        for _ in range(level):
            made.pick(exclude=others)
    return made


def picking(name: str, size: int, chunk: int, chunks: int) -> tuple[float, float, float]:
    """(picks per second, the floor's, their ratio), each pick closed at once."""
    ours = loaded(name, size)
    floor = FLOORS[name][0]([f"endpoint-{i}:7000" for i in range(size)])
    # The keys are made beforehand, and are the same for both.
    keys = [f"key-{i}".encode() for i in range(chunk)] if name == "consistent_hash" else None
    rates, floors = [], []
    for number in range(chunks + 1):
        pair = {}
        for which in ("ours", "floor") if number % 2 else ("floor", "ours"):
            run = time_ours(ours, keys, chunk) if which == "ours" else time_floor(floor, keys, chunk)
            pair[which] = chunk / run
        if number:  # the first round warms up
            rates.append(pair["ours"])
            floors.append(pair["floor"])
    ratio = statistics.median(mine / other for mine, other in zip(rates, floors, strict=True))
    return statistics.median(rates), statistics.median(floors), ratio


def time_ours(ours: Balancer, keys: list[bytes] | None, count: int) -> float:
    done = Verdict.OK
    start = time.perf_counter()
    if keys is None:
        for _ in range(count):
            ours.pick().close(done)
    else:
        for key in keys:
            ours.pick(1, key).close(done)
    return time.perf_counter() - start


def time_floor(floor: FloorRoundRobin | FloorHash, keys: list[bytes] | None, count: int) -> float:
    start = time.perf_counter()
    if keys is None:
        for _ in range(count):
            floor.pick()
    else:
        for key in keys:
            floor.pick(key)
    return time.perf_counter() - start
