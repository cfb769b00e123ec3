"""Pace: how well a run holds 1,000, 20,000 and 200,000 records a second, beside a loop that does nothing but sleep.

    python bench/bench_pace.py [--seconds 5] [--repeat 3] [--clumps]

The floor sleeps until each record is due on an absolute schedule (everything that is due counts as sent) and sends
nothing: what it is late by, the machine is late by. `run` makes records of four fields, encodes them as JSON and sends
them, keyed, to a queue in memory that a second thread reads. Medians over the repeats, floor and run by turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from typing import Any

import numpy as np

import simlink
from simlink import fields

RATES = (1_000, 20_000, 200_000)


def floor(rate: int, seconds: float) -> tuple[float, float]:
    """(rate reached, p99 of the lag in ms)."""
    total = int(rate * seconds)
    due = np.arange(total) / rate
    lags = []
    start = time.monotonic()
    at = 0
    while at < total:
        now = time.monotonic() - start
        stop = int(np.searchsorted(due, now, side="right"))
        if stop > at:
            lags.append(now - due[at:stop])
            at = stop
        if at < total:
            time.sleep(max(due[at] - (time.monotonic() - start), 0.0005 if rate > 2_000 else 0.0))
    elapsed = time.monotonic() - start
    return (total - 1) / elapsed, float(np.percentile(np.concatenate(lags), 99)) * 1e3


def paced(rate: int, seconds: float) -> simlink.Report:
    """A run at that rate, its messages read meanwhile."""
    clicks = simlink.record(
        "click",
        user_id=fields.zipf(50_000),
        action=fields.choice(view=80, click=17, purchase=3),
        page_url=fields.text("https://shop.example/p/####"),
        timestamp=fields.event_time(),
        seed=7,
    )
    with simlink.queue("memory://pace") as channel, channel.receiver() as receiver:

        def read() -> None:
            for _ in receiver.batches():
                pass

        reader = threading.Thread(target=read)
        reader.start()
        try:
            return simlink.run(clicks, channel, rate=rate, duration=seconds, key="user_id", progress=False)
        finally:
            receiver.stop()
            reader.join()


class Taps:
    """Notes when a channel was handed which messages: how many, and how late in seconds each of them was."""

    def __init__(self, channel: simlink.Channel) -> None:
        self.times: list[float] = []
        self.counts: list[int] = []
        self.late: list[float] = []
        self._submit = channel.submit
        channel.submit = self  # type: ignore[method-assign]  # what the run calls, seen from outside

    def __call__(self, batch: simlink.Batch, *arguments: Any) -> Any:
        self.times.append(time.monotonic())
        self.counts.append(len(batch))
        now = time.time()
        self.late += [now - stamp / 1e6 for stamp in batch.timestamps]
        return self._submit(batch, *arguments)


def first_record() -> tuple[float, float]:
    """Milliseconds from the call of run(), at one record a second, to the first record's hand-over, with everything
    that is made first; and how late it was by its schedule, which begins when that is made."""
    with simlink.queue("memory://first") as channel, channel.receiver():
        taps = Taps(channel)
        records = simlink.generators.catalog.clickstream(seed=7)
        begun = time.monotonic()
        report = simlink.run(records, channel, rate=1, count=1, progress=False)
        return (taps.times[0] - begun) * 1e3, (report.send_lag_ms or {})["max"]


def figures(times: list[float], late: list[float]) -> dict[str, float]:
    """Of the gaps between sends, and of how late the rows were: p99 and maximum in ms; the share of rows that were more
    than a millisecond late, in per cent."""
    gap, lag = np.diff(times) * 1e3, np.array(late) * 1e3
    return {
        "gap_p99_ms": float(np.percentile(gap, 99)),
        "gap_max_ms": float(gap.max()),
        "lag_p99_ms": float(np.percentile(lag, 99)),
        "lag_max_ms": float(lag.max()),
        "late_percent": float((lag > 1.0).mean() * 100),
    }


BUSY = 0.000_2
"""Seconds of work on a row, for the loop that has some: about what a run takes for one that goes out alone."""


def loop(seconds: float, busy: float) -> dict[str, float]:
    """`figures` of a loop that sleeps until the next of 1,000 a second is due, and is busy for so long then."""
    times, late = [], []
    start = time.monotonic()
    for i in range(int(seconds * 1_000)):
        due = start + i / 1_000
        time.sleep(max(0.0, due - time.monotonic()))
        now = time.monotonic()
        times.append(now)
        late.append(now - due)
        while time.monotonic() < now + busy:
            pass
    return figures(times, late)


def gaps(seconds: float) -> tuple[dict[str, float], dict[str, float], dict[str, float], int]:
    """`figures` of all 15 fields of the clickstream at 1,000 a second, those of a loop that only sleeps and of one that
    works as well, and the largest batch. They run one after the other."""
    with simlink.queue("memory://gaps") as channel, channel.receiver() as receiver:
        taps = Taps(channel)
        reader = threading.Thread(target=lambda: [None for _ in receiver.batches()], name="read")
        reader.start()
        try:
            records = simlink.generators.catalog.clickstream(seed=7)
            simlink.run(records, channel, rate=1_000, duration=seconds, progress=False)
        finally:
            receiver.stop()
            reader.join()
    return figures(taps.times, taps.late), loop(seconds, 0.0), loop(seconds, BUSY), max(taps.counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="a list of one object a rate instead of the table")
    parser.add_argument("--clumps", action="store_true", help="only the first record, and gaps and lags at 1,000/s")
    options = parser.parse_args()
    if options.clumps:
        firsts = [first_record() for _ in range(max(options.repeat, 1))]
        calls, lags = zip(*firsts, strict=True)
        if options.json:
            runs, floors, works, _ = zip(*(gaps(options.seconds) for _ in range(options.repeat)), strict=True)
            first = {"first_after_call_ms": statistics.median(calls), "first_lag_ms": statistics.median(lags)}
            ours = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            floor_ = {f"floor_{name}": statistics.median(f[name] for f in floors) for name in floors[0]}
            work = {f"busy_{name}": statistics.median(f[name] for f in works) for name in works[0]}
            print(json.dumps(first | ours | floor_ | work))
            return
        print(f"first record at 1/s: {statistics.median(calls):.1f} ms after the call (at most {max(calls):.1f})")
        print(f"    by its schedule {statistics.median(lags):.2f} ms late (at most {max(lags):.2f})")
        print("| clickstream at 1,000/s | gap p99 | max | lag p99 | max | later than 1 ms |")
        print("|---|---|---|---|---|---|")
        for _ in range(options.repeat):
            run, slept, worked, most = gaps(options.seconds)
            loops = ("a loop that sleeps", slept), (f"and is busy for {BUSY * 1e3:g} ms", worked)
            for what, found in ((f"run, at most {most} at once", run), *loops):
                print(
                    f"| {what} | {found['gap_p99_ms']:.2f} ms | {found['gap_max_ms']:.2f} ms "
                    f"| {found['lag_p99_ms']:.2f} ms | {found['lag_max_ms']:.2f} ms | {found['late_percent']:.2f} % |"
                )
        return
    rows = []
    if not options.json:
        head()
    for rate in RATES:
        floors, reports = [], []
        for _ in range(options.repeat):
            floors.append(floor(rate, options.seconds))
            reports.append(paced(rate, options.seconds))
        reached = statistics.median(report.rate for report in reports)
        lags = [report.send_lag_ms or {} for report in reports]
        row = {
            "asked": rate,
            "floor_reached": statistics.median(f[0] for f in floors),
            "floor_lag_p99_ms": statistics.median(f[1] for f in floors),
            "reached": reached,
            "lag_p50_ms": statistics.median(lag["p50"] for lag in lags),
            "lag_p99_ms": statistics.median(lag["p99"] for lag in lags),
            "valid": sum(report.valid for report in reports),
        }
        rows.append(row)
        if not options.json:
            print(
                f"| {rate:,}/s | {row['floor_reached']:,.0f}/s | {row['floor_lag_p99_ms']:.2f} ms | {reached:,.0f}/s "
                f"| {(reached / rate - 1) * 100:+.2f} % | {row['lag_p50_ms']:.2f} ms | {row['lag_p99_ms']:.2f} ms "
                f"| {row['valid']}/{len(reports)} |"
            )
    if options.json:
        print(json.dumps(rows))


def head() -> None:
    print("| asked | floor: reached | floor: lag p99 | run: reached | off by | run: send lag p50 | p99 | valid |")
    print("|---|---|---|---|---|---|---|---|")


if __name__ == "__main__":
    main()
