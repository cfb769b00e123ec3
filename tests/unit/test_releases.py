"""When a run releases what is due, on a clock that moves only when it is told to."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

import simlink
from simlink import arrivals, fields
from simlink.generators.source import as_source
from simlink.running import engine
from simlink.running.engine import Engine


class Clock:
    def __init__(self):
        self.now = 0.0  # so that sums of times are as exact as the times

    def sleep(self, seconds):
        assert seconds >= 0.0
        self.now += seconds


def released(monkeypatch, rate, count, takes):
    """A run of so many rows, each release of which ``takes`` seconds: (the times of its releases, the lags)."""
    clock = Clock()
    times = []
    submit = Engine._submit

    def slow(self, batch):
        times.append(clock.now)
        clock.now += takes
        return submit(self, batch)

    monkeypatch.setattr(Engine, "_submit", slow)
    monkeypatch.setattr(engine, "time", SimpleNamespace(sleep=clock.sleep, time=time.time, time_ns=time.time_ns))
    with simlink.queue("memory://releases") as channel:
        run = Engine(
            as_source(simlink.record("n", n=fields.sequence(), seed=1)),
            channel,
            count=count,
            duration=None,
            arrivals=arrivals.constant(rate),
            asked_rate=rate,
            key=None,
            headers={},
            on_overload="lag",
            timeout=30.0,
            close=False,
            show=None,
            clock=lambda: clock.now,
        )
        run.execute()
        assert (run.error, run.totals.confirmed) == (None, count)
        channel.purge()
    return times, run.latencies()[0]


def test_who_was_late_is_not_late_again(monkeypatch):
    # 0.7 of the 1 ms between two rows are gone when a release is done: the rest is slept, and no more.
    times, lag = released(monkeypatch, rate=1_000, count=20, takes=0.000_7)

    assert times == pytest.approx([n / 1_000 for n in range(20)])
    assert lag.maximum == pytest.approx(0.000_7)


def test_what_falls_due_within_half_a_millisecond_goes_out_together(monkeypatch):
    times, lag = released(monkeypatch, rate=20_000, count=100, takes=0.000_01)

    assert times == pytest.approx([n * 0.000_5 for n in range(len(times))])
    assert lag.count == 100
    assert lag.maximum <= 0.000_51 + 1e-9


def test_a_hand_over_longer_than_the_gap_does_not_make_releases_smaller(monkeypatch):
    # 50 µs between two rows, and 0.1 ms to hand some over: ten go out at a time, and not two or three.
    times, lag = released(monkeypatch, rate=20_000, count=100, takes=0.000_1)

    assert times == pytest.approx([n * 0.000_5 for n in range(len(times))])
    assert lag.maximum <= 0.000_6 + 1e-9
