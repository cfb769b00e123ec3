"""Both recorded files, replayed with their own gaps: at 1× on a clock that passes over the nights, at 100,000× on the
real one, and without a pace; each to the last record.

What is due when is read here by other means than `replay` has.
"""

from __future__ import annotations

import csv
import re
import time
import uuid
from datetime import datetime
from itertools import accumulate
from types import SimpleNamespace

import pytest

import simlink
from simlink.generators.source import as_source
from simlink.running import engine
from simlink.running.engine import Engine
from tests.support.recorded import recorded

HOUR, DAY = 3600.0, 86400.0


def stamps_of_the_log(path):
    for line in path.read_text().splitlines():
        # One line has no agent's closing quotation mark, and is no record.
        if line.endswith('"') and (found := re.search(r"\[([^]]+)\]", line)):
            yield datetime.strptime(found[1], "%d/%b/%Y:%H:%M:%S %z").timestamp()


def stamps_of_the_table(path):
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            yield datetime.fromisoformat(row["timestamp"] + "+00:00").timestamp()


class Recording:
    """A file, and when each of its records is due, in seconds after the first."""

    def __init__(self, name, stamps):
        self.path = recorded(name)
        times = list(stamps(self.path))
        # A record that was written late is due with the one before it.
        self.due = [latest - times[0] for latest in accumulate(times, max)]
        self.bodies = simlink.Json().dumps_many(list(self.replay()))
        assert len(self.due) == len(self.bodies)

    def replay(self):
        return simlink.replay(self.path, on_error="skip")


KNOWN = {
    "apache_access.log": (stamps_of_the_log, 9_999, 83 * HOUR),
    "ambient_temperature.csv": (stamps_of_the_table, 7_267, 329 * DAY),
}


@pytest.fixture(scope="module", params=KNOWN)
def recording(request):
    stamps, records, lasts = KNOWN[request.param]
    made = Recording(request.param, stamps)
    assert len(made.due) == records
    assert made.due[-1] == pytest.approx(lasts, rel=0.015)
    return made


def received(receiver, count):
    """(bodies, stamped times in µs after the first), in order."""
    bodies, stamps = [], []
    while len(bodies) < count:
        batch = next(receiver.batches())
        bodies += batch.bodies
        stamps += batch.timestamps
        batch.ack()
    return bodies, [stamp - stamps[0] for stamp in stamps]


class Leaps:
    """A clock that nothing moves but waiting, and that passes over a long wait at once: over its own slices, to just
    before what is due next."""

    def __init__(self, due):
        self.now = 0.0
        self._due = due
        self._next = 0

    def sleep(self, seconds):
        assert seconds >= 0.0
        self.now += seconds

    def wait(self, seconds):
        while self._next < len(self._due) and self._due[self._next] <= self.now:
            self._next += 1
        leap = self._due[self._next] - 0.3 if self._next < len(self._due) else 0.0
        self.now = max(self.now + seconds, leap)
        return False

    def is_set(self):
        return False

    def set(self):
        raise AssertionError("nobody stops this run")


def test_at_its_own_pace_each_record_leaves_at_its_time(recording, monkeypatch):
    clock = Leaps(recording.due)
    released = []
    submit = Engine._submit

    def noted(self, batch):
        released.extend([clock.now] * len(batch))
        return submit(self, batch)

    monkeypatch.setattr(Engine, "_submit", noted)
    monkeypatch.setattr(engine, "time", SimpleNamespace(sleep=clock.sleep, time=time.time, time_ns=time.time_ns))
    source = as_source(recording.replay())
    with simlink.queue(f"memory://paced-{uuid.uuid4().hex[:8]}") as channel, channel.receiver() as receiver:
        run = Engine(
            source,
            channel,
            count=None,
            duration=None,
            arrivals=source.arrivals_of(1.0),
            asked_rate=None,
            key=None,
            headers={},
            on_overload="lag",
            timeout=30.0,
            close=False,
            show=None,
            clock=lambda: clock.now,
        )
        run._stop = clock
        run.execute()
        assert run.error is None
        report = run.report()
        bodies, stamps = received(receiver, len(recording.bodies))
    assert bodies == recording.bodies
    assert (report.sent, report.confirmed, report.valid) == (len(bodies), len(bodies), True)
    assert released == pytest.approx(recording.due, abs=1e-6)
    assert stamps == pytest.approx([due * 1e6 for due in recording.due], abs=2)
    assert report.seconds == pytest.approx(recording.due[-1], abs=1e-3)
    assert report.send_lag_ms["max"] < 0.1


def test_a_hundred_thousand_times_as_fast_the_gaps_are_as_recorded(recording, request):
    # 83 hours last 3 s, and 329 days 4 min 44 s: of these, without --full (CI has it), the first ten days.
    full = request.config.getoption("--full") or recording.due[-1] < 100 * HOUR
    count = len(recording.due) if full else sum(due < 10 * DAY for due in recording.due)
    with simlink.queue(f"memory://paced-{uuid.uuid4().hex[:8]}") as channel, channel.receiver() as receiver:
        report = simlink.run(recording.replay(), channel, count=count, speed=100_000, progress=False)
        bodies, stamps = received(receiver, count)
    assert bodies == recording.bodies[:count]
    assert (report.sent, report.confirmed) == (count, count)
    assert stamps == pytest.approx([due * 10 for due in recording.due[:count]], abs=2)
    assert report.seconds >= recording.due[count - 1] / 100_000


def test_without_a_pace_all_records_come_and_are_proved(recording):
    with simlink.queue(f"memory://paced-{uuid.uuid4().hex[:8]}") as channel, channel.receiver() as receiver:
        report = simlink.run(recording.replay(), channel, progress=False)
        found = simlink.verify(receiver, recording.replay(), count=len(recording.due))
    assert found.ok
    assert (report.sent, found.received) == (len(recording.due), len(recording.due))
    # Nothing is read from the files' own times.
    assert report.seconds < recording.due[-1] / 1000
