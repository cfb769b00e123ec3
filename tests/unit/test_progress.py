"""What a run shows of itself where there is no terminal."""

from __future__ import annotations

import io
import sys

import pytest

import simlink
from simlink.running.progress import Bar, Lines, Progress, Table, chosen, watching


def at(seconds, *, done=False):
    sent = int(seconds * 100)
    return Progress(
        source="clicks",
        url="memory://x",
        sent=sent,
        confirmed=sent,
        failed=0,
        unknown=0,
        dropped=0,
        total=1_000,
        seconds=seconds,
        limit=None,
        rate=100.0,
        report=lambda: None,
        done=done,
    )


def told(show, *moments):
    for moment in moments:
        show(moment)


def test_without_a_terminal_a_line_is_printed_every_two_seconds_and_one_at_the_end(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    show = chosen(True)

    told(show, at(0.1), at(1.9), at(2.1), at(3.0), at(4.2), at(10.0, done=True))

    assert sys.stderr.getvalue().splitlines() == [
        "clicks: 210 of 1,000 sent, 210 confirmed, 100/s, 8 s to go",
        "clicks: 420 of 1,000 sent, 420 confirmed, 100/s, 6 s to go",
        "clicks: 1,000 of 1,000 sent, 1,000 confirmed, 100/s",
    ]


def test_a_short_run_says_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    told(chosen(True), at(0.5), at(1.0, done=True))
    assert sys.stderr.getvalue() == ""


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [None, Full()], ids=["closed", "full"])
def test_a_run_goes_on_where_nobody_can_be_told(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    with simlink.queue("memory://progress") as channel, channel.receiver() as receiver:
        report = simlink.run([1, 2, 3], channel, progress=Lines(every=0.0))
        assert (report.confirmed, receiver.take(3)) == (3, [1, 2, 3])


class Gone(Full):
    def isatty(self):
        return True


@pytest.mark.parametrize("make", [lambda: chosen(True), watching])
def test_a_run_goes_on_where_the_terminal_has_gone(monkeypatch, make):
    monkeypatch.setattr(sys, "stderr", Gone())
    show = make()
    assert isinstance(show, Bar | Table)
    report = simlink.run([1, 2, 3], "memory://gone", progress=show)
    assert (report.sent, report.error) == (3, None)
