"""Detection: how soon each detector declares a death, and how often one that did not happen.

    python bench/detection.py [--hours 10] [--seed 1]

One endpoint, in virtual time, watched by the detectors themselves: a beat each 100 ms, spread normally by 20 ms; one
gap in a hundred is 500 ms longer, a stall that passes. A crash falls evenly within a gap; what counts is the time
from it until the detector's deadline. A false death is a gap that ends after that deadline. ``table`` returns the rows,
so that another program may print them in a table of its own.

Phi without a pause comes out slower than in the reference, and more often right under loss: there a gap that convicted
was not learnt, here every gap that ends is.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

import numpy as np

from simlink import EmpiricalAccrual, FailureDetector, Heartbeat, PhiAccrual
from simlink.health.detector import Level
from simlink.health.membership import Membership

INTERVAL, JITTER, STALL = 0.1, 0.02, 0.5
PER_HOUR = 3600 / INTERVAL


class Row(NamedTuple):
    name: str
    reference: str  # measured with other code, before this was written
    figure: str
    gate: str  # empty: printed for comparison
    ok: bool


class Watched(NamedTuple):
    """What a detector did in a stretch of simulated time. Times in seconds."""

    false_deaths: int
    hours: float
    dead: np.ndarray  # per gap: crash → declared dead
    suspect: np.ndarray  # per gap: crash → declared suspect

    @property
    def per_hour(self) -> float:
        return self.false_deaths / self.hours


def gaps(rng: np.random.Generator, hours: float, *, stalls: float = 0.01, loss: float = 0.0) -> np.ndarray:
    """Seconds between the beats that arrive, for so many hours."""
    count = int(hours * PER_HOUR)
    sent = np.maximum(rng.normal(INTERVAL, JITTER, count), 0.001) + STALL * (rng.random(count) < stalls)
    arrives = np.cumsum(sent)[rng.random(count) >= loss]
    return np.diff(arrives, prepend=0.0)


def deadlines(detector: FailureDetector, times: list[float]) -> Iterator[tuple[float, float]]:
    """What the detector allows, suspect and dead, as each of the beats is awaited: moments of time."""
    detector = detector.fresh()
    detector.reset(0.0)
    for at in times:
        yield detector.deadline(Level.SUSPECT), detector.deadline(Level.DEAD)
        detector.heartbeat(at)


def watch(detector: FailureDetector, between: np.ndarray, rng: np.random.Generator) -> Watched:
    """Let the detector see the beats."""
    arrives = np.cumsum(between)
    found = np.fromiter(deadlines(detector, arrives.tolist()), dtype=(float, 2), count=len(arrives))
    life = arrives - between
    crash = life + rng.random(len(arrives)) * between
    suspect, dead = np.maximum(found - crash[:, None], 0.0).T
    return Watched(int((arrives >= found[:, 1]).sum()), arrives[-1] / 3600, dead, suspect)


def longest_of_window(values: np.ndarray, window: int) -> np.ndarray:
    """For each place the maximum of the ``window`` values before it, 0 where there are none; by doubling."""
    best, width = values, 1
    while 2 * width <= window:
        best = np.maximum(best, np.concatenate([np.zeros(width), best[:-width]]))
        width *= 2
    rest = window - width
    if rest:
        best = np.maximum(best, np.concatenate([np.zeros(rest), best[:-rest]]))
    return np.concatenate([[0.0], best[:-1]])


def empirical(detector: EmpiricalAccrual, between: np.ndarray) -> np.ndarray:
    """What an EmpiricalAccrual allows, in seconds, as each gap is awaited: the same rule over whole columns.

    Rates of one in a hundred hours take thousands of hours; a test holds that it agrees with the detector itself.
    """
    beats = np.where(np.arange(len(between)) < detector.window // 3, max(7.0, detector.dead), detector.dead)
    allowed = longest_of_window(between, detector.window) * detector.margin
    return np.minimum(np.maximum(allowed, beats * detector.interval), detector.cap * detector.interval)


def false_deaths(
    detector: EmpiricalAccrual, rng: np.random.Generator, hours: float, **world: float
) -> tuple[int, float]:
    """``(false deaths, hours)`` of a life of so many hours."""
    between = gaps(rng, hours, **world)
    return int((between >= empirical(detector, between)).sum()), float(between.sum() / 3600)


def cost(endpoints: int = 100, beats: int = 300) -> float:
    """Microseconds of CPU for one beat heard and one tick, by a membership of so many endpoints."""
    members = Membership(EmpiricalAccrual(INTERVAL), random=Random(1))
    names = [f"host-{number}:7001" for number in range(endpoints)]
    for name in names:
        members.add(name, 0.0)
        members.connected(name, 0.0, 1)
    started = time.process_time()
    for beat in range(1, beats + 1):
        for number, name in enumerate(names):
            now = (beat + number / endpoints) * INTERVAL
            members.heard(name, now, beat, now)
            members.tick(now)
    return (time.process_time() - started) / (beats * endpoints) * 1e6


REFERENCE = {  # detector: (mean ms, false deaths per hour, per hour at 5 % loss, mean ms without stalls)
    "fixed, 7 beats": (648, 0.00, 18.5, 650),
    "phi 8, no pause": (155, 344, 459, 156),
    "phi 8": (831, 0.00, 0.26, 656),
    "empirical": (672, 0.00, 4.39, 250),
}

DETECTORS: dict[str, FailureDetector] = {
    "fixed, 7 beats": Heartbeat(INTERVAL, suspect=3, dead=7),
    "phi 8, no pause": PhiAccrual(INTERVAL, pause=0.0, suspect=1),
    "phi 8": PhiAccrual(INTERVAL),
    "empirical": EmpiricalAccrual(INTERVAL),
}


def table(*, hours: float = 10.0, long: float = 1000.0, seed: int = 1, only: str = "") -> list[Row]:
    """All rows. ``hours`` are seen by each detector itself, ``long`` by the rule of the default one, over columns.

    ``only`` is the one detector to look at; default all of them.
    """
    rows = []
    for number, (name, detector) in enumerate(DETECTORS.items()):
        if only not in {"", name}:
            continue
        gated = name == "empirical"
        reference = REFERENCE[name]
        rng = np.random.default_rng([seed, number])
        stalling = watch(detector, gaps(rng, hours), rng)
        lossy = watch(detector, gaps(rng, hours, loss=0.05), rng)
        even = watch(detector, gaps(rng, hours, stalls=0.0), rng)
        mean, calm = stalling.dead.mean() * 1e3, even.dead.mean() * 1e3
        suspect = stalling.suspect.mean() * 1e3
        figures = [
            ("dead after", f"{reference[0]} ms", f"{mean:.0f} ms", "≤ 700 ms", mean <= 700),
            ("dead after, no stalls", f"{reference[3]} ms", f"{calm:.0f} ms", "≤ 260 ms", calm <= 260),
            ("suspect after", "", f"{suspect:.0f} ms", "≤ 300 ms", suspect <= 300),
            ("false deaths", f"{reference[1]:g}/h", f"{stalling.per_hour:.2f}/h", "", True),
            ("false deaths, 5 % loss", f"{reference[2]:g}/h", f"{lossy.per_hour:.2f}/h", "≤ 5/h", lossy.per_hour <= 5),
        ]
        for what, known, figure, gate, ok in figures:
            rows.append(Row(f"{name}: {what}", known, figure, gate if gated else "", bool(ok) or not gated))
    rng = np.random.default_rng([seed, len(DETECTORS)])
    default = EmpiricalAccrual(INTERVAL)
    lives = [false_deaths(default, rng, 100.0) for _ in range(max(1, round(long / 100)))]
    rate = sum(deaths for deaths, _ in lives) / sum(took for _, took in lives)
    asked = f"empirical: false deaths, {len(lives)} lives of 100 h"
    rows.append(Row(asked, "0/h in 60 h", f"{rate:.4f}/h", "≤ 0.01/h", rate <= 0.01))
    micros = cost()
    share = micros * 1e-6 * 100 / 1.0 * 100
    rows.append(Row("membership: a beat heard, 100 endpoints", "", f"{micros:.1f} µs", "", True))
    rows.append(Row("membership: CPU, 100 endpoints, 1 s beats", "", f"{share:.2f} %", "≤ 1 %", share <= 1.0))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=10.0, help="of simulated time for each detector and world")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print("| what | measured beforehand | measured | gate | |")
    print("|---|---|---|---|---|")
    for row in table(hours=options.hours, seed=options.seed):
        print(f"| {row.name} | {row.reference} | {row.figure} | {row.gate} | {'ok' if row.ok else 'MISSED'} |")


if __name__ == "__main__":
    main()
