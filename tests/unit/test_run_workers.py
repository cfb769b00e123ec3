"""Runs in several processes, over TCP: what only all of them together can show."""

from __future__ import annotations

import multiprocessing
import threading
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pytest

import simlink
from simlink import faults, fields
from simlink.cli import main
from simlink.generators.source import as_source
from simlink.ledger.latency import Latencies
from simlink.running.report import Report
from simlink.running.workers import _NOTHING, _Team


@contextmanager
def reading():
    """The URL of a receiver, and the messages that came to it."""
    messages = []
    with simlink.queue("tcp://127.0.0.1:0/workers") as channel, channel.receiver() as receiver:

        def read():
            messages.extend(delivery.message for delivery in receiver)

        # A receiver belongs to one thread: it is entered here and first read there.
        reader = threading.Thread(target=read, name="reader")
        reader.start()
        try:
            yield receiver.url, messages
        finally:
            receiver.stop()
            reader.join()


def numbers():
    return simlink.record("numbers", n=fields.sequence(), seed=5)


def test_who_has_no_rows_holds_up_no_schedule():
    """All of these are in the one block of the first worker."""
    with reading() as (url, messages):
        report = simlink.run(numbers(), url, count=150, rate=300, duration=0.5, workers=2, progress=False)
    assert (report.sent, report.behind) == (150, 0)
    stamps = sorted(message.timestamp for message in messages)
    assert {3333, 3334, 3332} >= {b - a for a, b in pairwise(stamps)}


def test_the_rate_of_workers_is_over_the_whole_run():
    """The second one has a few rows only, and is done long before the first."""
    with reading() as (url, messages):
        report = simlink.run(numbers(), url, count=4_496, rate=9_000, workers=2, progress=False)
    assert (report.sent, len(messages)) == (4_496, 4_496)
    assert report.rate <= 9_010


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("count", [None, 0, 5_000, 12_345])
def test_shares_are_what_the_shards_have(n, count):
    generator = numbers().take(20_000)
    for source in (generator, faults.apply(generator, faults.drop(0.1), faults.late(0.05, places=300))):
        whole = as_source(source)
        part = whole if count is None else whole.take(count)
        made = [sum(map(len, part.shard(i, n).chunks())) for i in range(n)]
        assert part.shares(n) == made
        assert all(a == b or b > a > 2_000 for a, b in zip(part.shares(n, 2_000), made, strict=True))


def test_what_has_no_end_has_no_shares():
    assert as_source(numbers()).shares(2) is None
    assert faults.apply(numbers(), faults.drop(0.1)).shares(2) is None
    with pytest.raises(simlink.ConfigError, match="only a generator can be divided"):
        as_source([1, 2]).shares(2)
    with pytest.raises(simlink.ConfigError, match="only a generator can be divided"):
        faults.apply(lambda: iter([1, 2]), faults.drop(0.1)).shares(2)


def test_of_a_worker_that_was_killed_its_last_word_counts():
    told = []

    def show(progress):
        told.append((progress, progress.report()))
        if progress.sent >= 40 and not killed:
            victim = min(multiprocessing.active_children(), key=lambda process: process.name)
            killed.append(victim.name)
            victim.kill()

    killed = []
    with reading() as (url, messages), pytest.raises(simlink.SendError, match="worker 0 ended with status -9") as error:
        simlink.run(numbers(), url, rate=200, duration=1, workers=2, progress=show)
    report = error.value.report
    assert killed == ["simlink-worker-0"]
    assert (report.error, report.workers, report.ok) == ("worker 0 ended with status -9", 2, False)
    assert report.sent == report.confirmed + report.failed + report.unknown
    # The other one went on.
    (other,) = report.producer
    its = sum(message.producer.hex() == other for message in messages)
    assert its == 100
    assert its < report.sent <= len(messages)
    # What is told meanwhile has a report too, also before a worker has come to its end.
    assert all((r.sent, r.source, r.seed, r.asked_rate) == (p.sent, "numbers", 5, 200) for p, r in told)
    assert [r.running for _, r in told] == [*[True] * (len(told) - 1), False]


def test_counts_are_newer_than_the_last_report_of_a_worker():
    blank = Report(**_NOTHING, source="numbers", url="tcp://h:1/q", seed=5, asked_rate=100, workers=1)
    team = _Team(1, blank, paced=True)
    so_far = replace(blank, sent=10, confirmed=7, settled=5, producer="p", seconds=1.0)
    team._told[0] = (so_far, 0, (0.0, 1.0), Latencies(), Latencies())
    team._counts[0] = (15, 12, 1, 0, 0)
    report = team.report()
    assert (report.sent, report.confirmed, report.failed, report.unknown, report.settled) == (15, 12, 1, 2, 5)


def test_workers_are_watched(capfd):
    with reading() as (url, messages):
        status = main(
            ["send", "numbers", "--to", url, "--rate", "100", "--duration", "1.5", "--workers", "2", "--watch"]
        )
    assert (status, len(messages)) == (0, 150)
    # A second into the run their percentiles are there.
    assert "latency p50" in capfd.readouterr().err
