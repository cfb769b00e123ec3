"""Balancing strategies: every gate that is asked of them, as one table, and the picks per second beside plain floors.

    python bench/balancing.py [--quick] [--json] [--out docs/balancing.md] [--plots docs/images]

All but the picks per second is virtual time: the same figures on every machine. Each floor is the same strategy by hand
in one small class that keeps no books: it tells what a pick, two readings of the clock and the closing cost. Floor and
ours take turns in chunks of some 0.2 ms, and the best chunk of each counts: what else runs on the machine only
ever adds. All of it is gone through three times, some 15 s apart: a neighbour who shares the processor's caches may
stay for seconds, and costs the books of a thousand endpoints more than the floor's thousand numbers. ``--quick``
shortens everything, for a look. ``--plots`` needs matplotlib (``pip install 'simlink[plot]'``).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from math import exp
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from simlink.balancing.balancer import Balancer
from simlink.balancing.member import Member
from simlink.balancing.pick import Verdict
from simlink.balancing.registry import balancer
from simlink.testing import strategies
from simlink.testing.service import Fault

LOAD_AWARE = ("least_connections", "power_of_two", "peak_ewma", "least_estimated_delay")
SIZES = (10, 100, 1_000)
SCANNING = ("weighted_round_robin", "least_connections")
WEIGHTS = ([5, 1, 1], [1] * 10, list(range(1, 11)), [100, *[1] * 20], [0.3, 0.7, 2.5, 9.1], [20] * 10 + [1] * 10)


@dataclass
class Row:
    """One line of the table."""

    what: str
    who: str
    measured: str
    gate: str
    met: bool | None


# --- floors: the same rule, no books --------------------------------------------------------------------------------


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


FLOORS: dict[str, tuple[Callable[[list[str]], Any], float]] = {
    # strategy: (its floor, the share of the floor's rate to reach)
    "round_robin": (FloorRoundRobin, 1 / 8),
    "random": (FloorRandom, 1 / 5),
    "weighted_round_robin": (FloorWeighted, 1 / 3),
    "least_connections": (FloorLeast, 1 / 3),
    "power_of_two": (FloorTwo, 1 / 3),
    "peak_ewma": (FloorEwma, 1 / 3),
    "least_estimated_delay": (FloorDelay, 1 / 3),
    "consistent_hash": (FloorHash, 1 / 3),
}


def loaded(name_of: str, size: int) -> Balancer:
    """A balancer with the same numbers in flight as its floor has, on the machine's own clock.

    With consistent hashing each endpoint has one in flight: the floor knows no bound, so nobody is above it here.
    """
    made = balancer(name_of)
    made.bind(time.monotonic, random.Random(1))
    names = [f"endpoint-{i}:7000" for i in range(size)]
    made.update([Member(name) for name in names])
    for level, name in zip(levels(size), names, strict=True):
        others = frozenset(names) - {name}
        for _ in range(level if name_of != "consistent_hash" else 1):
            made.pick(exclude=others)
    return made


def picking(name: str, size: int, seconds: float) -> tuple[float, float]:
    """(picks per second, each closed at once; the floor's)."""
    ours = loaded(name, size)
    floor = FLOORS[name][0]([f"endpoint-{i}:7000" for i in range(size)])
    chunk = 20 if size >= 100 and name in SCANNING else 250
    # The keys are made beforehand, and are the same for both.
    keys = [f"key-{i}".encode() for i in range(chunk)] if name == "consistent_hash" else None
    mine = other = float("inf")
    end = time.monotonic() + seconds
    rounds = 0
    while rounds < 5 or time.monotonic() < end:
        mine = min(mine, time_ours(ours, keys, chunk))
        other = min(other, time_floor(floor, keys, chunk))
        rounds += 1
    return chunk / mine, chunk / other


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


def time_floor(floor: Any, keys: list[bytes] | None, count: int) -> float:
    start = time.perf_counter()
    if keys is None:
        for _ in range(count):
            floor.pick()
    else:
        for key in keys:
            floor.pick(key)
    return time.perf_counter() - start


# --- the gates ------------------------------------------------------------------------------------------------------


def evenness(quick: bool) -> Iterator[Row]:
    picks = 20_000 if quick else 100_000
    gap = strategies.spread("round_robin", picks=picks)
    yield Row(f"evenness, {picks:,} picks: max − min", "round_robin", f"{gap}", "≤ 1", gap <= 1)
    chi = strategies.chi_square("random", picks=picks)
    yield Row("evenness: χ², 9 degrees of freedom", "random", f"{chi:.2f}", "1.15 … 27.88", 1.15 <= chi <= 27.88)
    for name in LOAD_AWARE:
        most = strategies.imbalance(name, picks=picks)
        gate = 1.03 if name in {"least_connections", "power_of_two"} else None
        yield row("evenness: max / mean", name, most, gate, "{:.3f}")
    worst = max(strategies.drift("weighted_round_robin", weights, picks=2_000) for weights in WEIGHTS)
    yield row("by weight, every prefix: picks off the exact share", "weighted_round_robin", worst, 1.5, "{:.2f}")


def tails(quick: bool) -> Iterator[Row]:
    size: dict[str, Any] = {"requests": 20_000, "seeds": range(2)} if quick else {"requests": 100_000}
    turns = strategies.tail("S2", "round_robin", **size)
    yield Row("S2: p99", "round_robin", f"{turns * 1e3:.1f} ms", "", None)
    for name, gate in zip(LOAD_AWARE, (3, 2, 4.5, 4.5), strict=True):
        p99 = strategies.tail("S2", name, **size)
        better = turns / p99
        yield Row(
            "S2: p99 against round robin", name, f"{better:.1f}× ({p99 * 1e3:.1f} ms)", f"≥ {gate:g}×", better >= gate
        )
    for which, gate in (("S1", 60.0), ("C20", 100.0)):
        for name in LOAD_AWARE:
            p99 = strategies.tail(which, name, **size) * 1e3
            asked = gate if name == "least_estimated_delay" else None
            yield row(f"{which}: p99", name, p99, asked, "{:.1f} ms")


def faults(quick: bool) -> Iterator[Row]:
    seeds = range(5 if quick else 50)
    everybody = ("round_robin", *LOAD_AWARE)
    for name in everybody:
        lost = strategies.swallowed(name, seeds=seeds)
        gate = 5.0 if name in {"least_connections", "least_estimated_delay"} else None
        yield row("went silent: swallowed of 407", name, lost, gate, "{:.1f}")
    for name in everybody:
        lost = strategies.swallowed(name, Fault.FAILING, seeds=seeds)
        yield row("fails fast: attracted of 407", name, lost, 2.0 if name in LOAD_AWARE else None, "{:.1f}")
    for name in everybody:
        share = strategies.rejoin(name, seeds=seeds)
        yield row("comes back: share of the next 100 ms", name, share, 0.15, "{:.1%}")
    share = strategies.rejoin("least_connections", warm=1.0, seeds=seeds)
    yield row("comes back, without slow start", "least_connections", share, None, "{:.1%}")


def crashes(quick: bool) -> Iterator[Row]:
    """The whole pool, over the simulated network of the tests: one of ten crashes under load."""
    from tests.simulation.scene import crash

    what = "one of ten crashes at 637/s"
    seeds = 3 if quick else 20
    for kind, how, laden in (
        ("kill", "connections reset", False),
        ("power", "silence", False),
        ("power", "silence", True),
    ):
        costs = [crash(seed, kind, laden=laden) for seed in range(seeds)]
        who = f"round_robin, that one ten times slower before; {how}" if laden else f"least_connections; {how}"
        lost = sum(len(cost.problems) for cost in costs)
        held, repeated, stray = (sum(getattr(cost, name) for cost in costs) for name in ("held", "repeated", "stray"))
        yield Row(f"{what}, {seeds} runs: lost, or repeated uncounted", who, f"{lost}", "0", lost == 0)
        yield Row(
            f"{what}: repeated, of those not settled at the crash",
            who,
            f"{repeated} of {held}; of others {stray}",
            "of others 0",
            stray == 0,
        )
        last = max(cost.last for cost in costs) * 1e3
        yield row(f"{what}: the last resent, after it", who, last, 800.0, "{:.0f} ms")


def row(what: str, who: str, found: float, most: float | None, form: str) -> Row:
    gate = "" if most is None else f"≤ {form.format(most)}"
    return Row(what, who, form.format(found), gate, None if most is None else found <= most)


def picks(quick: bool) -> Iterator[Row]:
    asked = [(name, size) for name in FLOORS for size in SIZES]
    passes = [{each: picking(*each, 0.3 if quick else 0.7) for each in asked} for _ in range(1 if quick else 3)]
    for name, (_, gate) in FLOORS.items():
        for size in SIZES:
            ours, floor = (max(found[name, size][which] for found in passes) for which in (0, 1))
            measured = f"{ours / 1e3:,.0f} k/s; floor {floor / 1e3:,.0f} k/s; {ours / floor:.2f}×"
            yield Row(f"picks/s, n = {size:,}", name, measured, f"≥ {gate:.2f}×", ours >= floor * gate)


def table(rows: list[Row]) -> str:
    lines = ["| what | strategy | measured | gate | met |", "|---|---|---|---|---|"]
    for each in rows:
        met = "" if each.met is None else "yes" if each.met else "**no**"
        lines.append(f"| {each.what} | {each.who} | {each.measured} | {each.gate} | {met} |")
    return "\n".join(lines)


# --- plots ----------------------------------------------------------------------------------------------------------

PLOTTED = ("round_robin", "random", *LOAD_AWARE)


def plots(folder: Path, requests: int) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "simlink", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    titles = {
        "S2": "S2: one of ten only delays",
        "S1": "S1: one of ten is slow, queues",
        "C20": "C20: S1 from 20 clients",
    }
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True, layout="constrained")
    for axis, (which, title) in zip(axes, titles.items(), strict=True):
        for name in PLOTTED:
            simulation = strategies.scenario(which, name)
            simulation.run(requests)
            ordered = sorted(simulation.latencies[requests // 20 :])
            # The share above a latency, at 200 places evenly spread on its logarithmic scale.
            above = [10 ** (-3.5 * place / 200) for place in range(201)]
            axis.plot([ordered[int((1 - share) * (len(ordered) - 1))] * 1e3 for share in above], above, label=name)
        axis.set(title=title, xscale="log", yscale="log", xlabel="latency, ms", xlim=(1, 1e4))
        axis.axhline(0.01, color="grey", linewidth=0.5, linestyle=":")
    axes[0].set_ylabel("share of requests above (dotted: p99)")
    axes[0].legend(fontsize=7)
    figure.savefig(folder / "balancing-latency.svg", metadata={"Date": None})

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), sharey=True, layout="constrained")
    for axis, which in zip(axes, ("S1", "S2"), strict=True):
        for place, name in enumerate(PLOTTED):
            found = strategies.shares(which, name, requests=requests)
            slow = found.pop(strategies.SLOW)
            axis.barh(place, slow * 100, color="tab:red")
            inside = slow > 0.05
            axis.text(0.2 if inside else slow * 100 + 0.2, place, f"{slow:.2%}", va="center", fontsize=7)
            axis.plot([share * 100 for share in found.values()], [place] * len(found), "k|")
        axis.set(title=f"{which}: the slow one (bar), the others (ticks)", xlabel="% of requests", xlim=(0, 13))
    axes[0].set_yticks(range(len(PLOTTED)), PLOTTED)
    axes[0].invert_yaxis()
    figure.savefig(folder / "balancing-share.svg", metadata={"Date": None})


BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--json", action="store_true", help="the rows as one JSON object on the last line")
    options.add_argument("--out", type=Path, help=f"a page whose part between {BEGIN} and {END} becomes the table")
    options.add_argument("--plots", type=Path, help="a folder for the plots")
    options.add_argument("--only-plots", action="store_true")
    given = options.parse_args()
    rows: list[Row] = []
    if not given.only_plots:
        for question in (evenness, tails, faults, crashes, picks):
            print(f"{question.__name__} …", file=sys.stderr, flush=True)
            rows.extend(question(given.quick))
        print(table(rows))
    if given.out and rows:
        page = given.out.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        given.out.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}", encoding="utf-8")
    if given.plots:
        plots(given.plots, 20_000 if given.quick else 100_000)
    if given.json:
        print(json.dumps({"rows": [asdict(each) for each in rows]}, ensure_ascii=False))
    return 0 if all(each.met is not False for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
