"""Runs over the memory transport."""

from __future__ import annotations

import datetime as dt
import signal
import threading
import time
import uuid
from itertools import count as counter
from itertools import pairwise

import pytest

import simlink
from simlink import arrivals, fields
from simlink.running.signals import Interrupted, interruptible


@pytest.fixture
def url():
    return f"memory://run-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def numbers():
    return simlink.record("numbers", n=fields.sequence(), kind=fields.choice(a=1, b=1), seed=5)


def received(receiver, n):
    return receiver.take(n, timeout=5.0)


def test_a_run_sends_what_the_source_makes(url, numbers):
    with simlink.queue(url) as channel, channel.receiver() as rx:
        report = simlink.run(numbers, channel, count=10_000, key="kind", headers={"trace": "7"}, progress=False)
        assert numbers[:10_000] == received(rx, 10_000)
    assert (report.sent, report.confirmed, report.failed, report.unknown) == (10_000, 10_000, 0, 0)
    assert (5, "numbers", url, True, None) == (report.seed, report.source, report.url, report.valid, report.lost)
    assert 10_000 / report.seconds == pytest.approx(report.rate, rel=1e-3)
    assert report.ok
    assert not report.running


def test_messages_carry_the_run_and_the_row(url, numbers):
    with simlink.queue(url) as channel, channel.receiver() as rx:
        report = simlink.run(numbers, channel, count=5, key="kind", headers={"trace": "7"}, progress=False)
        again = simlink.run(numbers, channel, count=1, progress=False)
        messages = [rx.get().message for _ in range(6)]
    assert [report.producer] * 5 + [again.producer] == [m.producer.hex() for m in messages]
    assert [m.sequence for m in messages] == [0, 1, 2, 3, 4, 0]
    assert [row["kind"].encode() for row in numbers[:5]] == [m.key for m in messages[:5]]
    assert dict(messages[0].headers) == {"trace": "7"}
    assert messages[0].content_type == "application/json"
    assert report.producer != again.producer


def test_a_paced_run_stamps_the_intended_times(url, numbers):
    with simlink.queue(url) as channel, channel.receiver() as rx:
        report = simlink.run(numbers, channel, count=100, rate=1000.0, progress=False)
        stamps = [rx.get().message.timestamp for _ in range(100)]
    gaps = [b - a for a, b in pairwise(stamps)]
    # Whatever the machine did meanwhile: the schedule is exact, to the microsecond that rounding costs.
    assert {999, 1000, 1001} >= set(gaps)
    assert report.seconds >= 0.099
    assert report.asked_rate == 1000.0
    assert {"p50", "p90", "p99", "max"} == set(report.send_lag_ms) == set(report.latency_ms)


def test_a_paced_run_lasts_its_duration(url, numbers):
    report = simlink.run(numbers, url, rate=40, duration=0.25, progress=False)
    assert report.sent == 10
    assert report.seconds >= 0.25


def test_arrivals_without_a_seed_get_the_sources(url, numbers):
    with simlink.queue(url) as channel, channel.receiver() as rx:
        simlink.run(numbers, channel, count=20, arrivals=arrivals.poisson(2_000), progress=False)
        stamps = [rx.get().message.timestamp for _ in range(20)]
    due = arrivals.poisson(2_000, seed=5).due(0, 20)
    assert [round((d - due[0]) * 1e6) for d in due] == pytest.approx([s - stamps[0] for s in stamps], abs=2)


def test_a_replay_keeps_its_gaps(url, tmp_path):
    file = tmp_path / "r.ndjson"
    file.write_text("".join(f'{{"time": {t}}}\n' for t in (100.0, 100.2, 100.1, 100.4)))
    with simlink.queue(url) as channel, channel.receiver() as rx:
        report = simlink.run(simlink.replay(file), channel, speed=10.0, progress=False)
        stamps = [rx.get().message.timestamp for _ in range(4)]
    assert pytest.approx([s - stamps[0] for s in stamps], abs=2) == [0, 20_000, 20_000, 40_000]
    assert (report.sent, report.negative_gaps, report.bad_lines) == (4, 1, 0)
    assert None is report.seed


@pytest.mark.parametrize("recorded", ["file", "times"])
def test_only_steps_back_that_were_sent_are_counted(url, tmp_path, recorded):
    """A run looks ahead in its schedule; what it does not send then has not gone out at once either."""
    times = [100.0, 100.1, 100.0, *(900.0, 800.0) * 200]
    file = tmp_path / "r.ndjson"
    file.write_text("".join(f'{{"time": {t}}}\n' for t in times))
    pace = {"speed": 10.0} if recorded == "file" else {"arrivals": arrivals.from_timestamps(times, speed=10.0)}
    report = simlink.run(simlink.replay(file), url, duration=0.3, progress=False, **pace)
    assert (report.sent, report.negative_gaps) == (3, 1)


def test_a_source_that_makes_the_run_wait_is_no_latency_of_the_channel(url):
    """What another thread hears of meanwhile is confirmed then, and not when the run looks next."""
    with simlink.queue(url) as channel:

        def values():
            yield 0
            # That the source takes its time is what this is about; the confirmation comes some milliseconds in.
            threading.Event().wait(1.5)
            yield 1

        report = simlink.run(values, channel, progress=False)
    assert report.sent == 2
    assert report.latency_ms["max"] < 1_400


def test_bad_lines_are_reported(url, tmp_path):
    file = tmp_path / "r.ndjson"
    file.write_text('{"a": 1}\nnonsense\n{"a": 2}\n')
    report = simlink.run(simlink.replay(file, on_error="skip"), url, progress=False)
    assert (report.sent, report.bad_lines) == (2, 1)


@pytest.mark.parametrize(
    "source",
    [
        [{"i": i} for i in range(5_000)],
        lambda: ({"i": i} for i in range(5_000)),
        "iterator",
    ],
    ids=["list", "function", "iterator"],
)
def test_any_iterable_is_a_source(url, source):
    values = [{"i": i} for i in range(5_000)]
    with simlink.queue(url) as channel, channel.receiver() as rx:
        report = simlink.run(iter(values) if source == "iterator" else source, channel, progress=False)
        assert values == received(rx, 5_000)
    assert (report.sent, report.seed) == (5_000, None)


def test_a_live_source_is_not_held_back(url):
    with simlink.queue(url) as channel, channel.receiver() as rx:
        got = []

        def readings():
            for i in range(3):
                yield i
                # The next reading comes when the one before has arrived, or this would wait for ever.
                got.append(rx.get(timeout=5.0).value)

        report = simlink.run(readings(), channel, progress=False)
    assert (got, report.sent) == ([0, 1, 2], 3)


def test_a_record_that_cannot_be_encoded_ends_the_run_behind_those_before_it(url):
    values = [1, 2, {"x": float("nan")}, 4]
    with simlink.queue(url) as channel, channel.receiver() as rx:
        with pytest.raises(simlink.EncodeError, match="record 2") as caught:
            simlink.run(values, channel, progress=False)
        assert received(rx, 2) == [1, 2]
    assert caught.value.row == 2
    assert (2, 2, str(caught.value)) == (
        caught.value.report.sent,
        caught.value.report.confirmed,
        caught.value.report.error,
    )


def test_an_error_of_the_source_comes_out_with_the_report(url):
    def source():
        yield from range(10)
        raise LookupError("out of stock")

    with pytest.raises(LookupError, match="out of stock") as caught:
        simlink.run(source, url, progress=False)
    assert (
        caught.value.report.sent,
        caught.value.report.confirmed,
        caught.value.report.error,
    ) == (10, 10, "out of stock")
    assert not caught.value.report.ok


def test_an_unknown_key_field_is_refused(url, numbers):
    with pytest.raises(simlink.ConfigError, match="did you mean 'kind'"):
        simlink.run(numbers, url, count=1, key="knd", progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no end"),
        ({"count": -1}, "count is"),
        ({"count": True}, "count is"),
        ({"count": 1, "rate": 0}, "rate is"),
        ({"count": 1, "rate": float("inf")}, "rate is"),
        ({"duration": "1"}, "duration is"),
        ({"count": 1, "rate": 5, "speed": 2}, "rate and speed are two paces"),
        ({"count": 1, "speed": 2}, "plays a recording"),
        ({"count": 1, "arrivals": 5}, "arrivals is a schedule"),
        ({"count": 1, "on_overload": "blok", "rate": 1}, "did you mean 'block'"),
        ({"count": 1, "on_overload": "drop"}, "is about a pace"),
        ({"count": 1, "headers": {"a": 1}}, "headers are text"),
        ({"count": 1, "progress": "yes"}, "progress is"),
    ],
)
def test_options_that_make_no_sense_are_refused(url, numbers, options, message):
    with pytest.raises(simlink.ConfigError, match=message):
        simlink.run(numbers, url, **options)


def test_options_of_a_url_do_not_go_with_a_channel(url, numbers):
    with simlink.queue(url) as channel:
        for options in ({"topic": True}, {"serializer": simlink.Json()}):
            with pytest.raises(simlink.ConfigError, match="go with a URL"):
                simlink.run(numbers, channel, count=1, **options)
    with pytest.raises(simlink.ConfigError, match="a channel or a URL"):
        simlink.run(numbers, 7, count=1)


def test_a_url_is_opened_as_what_it_is(url, numbers):
    with simlink.topic(url) as events, events.receiver() as rx:
        simlink.run(numbers, url, count=2, topic=True, progress=False, serializer=simlink.Json())
        assert numbers[:2] == received(rx, 2)


def test_a_full_window_is_a_stall_that_ends_in_an_error(url, numbers):
    with simlink.queue(url, max_messages=10, window=10, close_timeout=0.1) as channel:
        with pytest.raises(simlink.SendTimeout, match="window is full") as caught:
            simlink.run(numbers, channel, count=1_000, timeout=0.3, progress=False)
        report = caught.value.report
        assert 0.2 < report.stall_seconds < 30
        assert report.sent == report.confirmed + report.unknown
        assert report.confirmed >= 10
        channel.purge()


def test_drop_skips_and_counts_while_there_is_no_room(url, numbers):
    with simlink.queue(url, max_messages=10, window=10, close_timeout=0.1) as channel:
        report = simlink.run(
            numbers, channel, count=3_000, rate=10_000, on_overload="drop", timeout=0.1, progress=False
        )
        assert report.sent + report.dropped == 3_000
        assert report.dropped > 2_500
        assert report.sent == report.confirmed + report.unknown
        channel.purge()


def test_drop_leaves_gaps_in_the_sequence_not_in_the_rows(url, numbers):
    with simlink.queue(url, max_messages=10, window=10, close_timeout=0.1) as channel, channel.receiver() as rx:
        simlink.run(numbers, channel, count=3_000, rate=10_000, on_overload="drop", timeout=0.1, progress=False)
        deliveries = [rx.get() for _ in range(10)]
        assert [numbers[d.message.sequence] for d in deliveries] == [d.value for d in deliveries]
        channel.purge()


def test_a_generator_that_is_too_slow_is_not_valid(url):
    def slow():
        for i in counter():
            # A reading that takes longer than the rate allows.
            threading.Event().wait(0.01)
            yield i

    report = simlink.run(slow, url, count=30, rate=1_000, progress=False)
    assert not report.valid
    assert report.send_lag_ms["max"] > 100
    assert "could not hold the rate" in str(report)


def test_a_duration_that_the_run_falls_behind_is_cut_and_told(url):
    def slow():
        for i in counter():
            threading.Event().wait(0.02)
            yield i

    report = simlink.run(slow, url, duration=0.2, rate=1_000, progress=False)
    assert report.sent + report.behind == 200
    assert report.behind > 0


def test_progress_is_told_to_a_function(url, numbers):
    told = []
    simlink.run(numbers, url, count=30, rate=100, progress=told.append)
    assert len(told) >= 3
    assert [False] * (len(told) - 1) + [True] == [p.done for p in told]
    last = told[-1]
    assert (last.sent, last.confirmed, last.total) == (30, 30, 30)
    assert sorted(p.sent for p in told) == [p.sent for p in told]
    assert last.report().sent == 30
    assert told[0].eta is None or told[0].eta <= 1.0


def test_progress_says_nothing_where_nobody_looks(url, numbers, capfd):
    simlink.run(numbers, url, count=10)
    assert capfd.readouterr() == ("", "")


# --- stopping


def test_a_signal_drains_and_reports(url):
    def source():
        for i in counter():
            if i == 100:
                signal.raise_signal(signal.SIGINT)
            yield i

    before = signal.getsignal(signal.SIGINT)
    with simlink.queue(url) as channel, channel.receiver() as rx:
        with pytest.raises(KeyboardInterrupt) as caught:
            simlink.run(source, channel, count=10**9, progress=False)
        report = caught.value.report
        assert list(range(report.sent)) == received(rx, report.sent)
    assert isinstance(caught.value, Interrupted)
    assert caught.value.number == signal.SIGINT
    assert report.interrupted
    assert 64 <= report.sent == report.confirmed
    assert before == signal.getsignal(signal.SIGINT)


def test_sigterm_leaves_a_wait_of_the_schedule(url, numbers):
    def told(progress):
        if progress.sent and not progress.done:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        simlink.run(numbers, url, rate=0.01, count=5, progress=told)
    assert (caught.value.number, caught.value.report.sent, caught.value.report.confirmed) == (signal.SIGTERM, 1, 1)


def test_a_second_signal_does_not_wait():
    told = []
    with interruptible(told.append):
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)
    assert told == [signal.SIGTERM]


def test_somebody_elses_handler_stays():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    try:
        with interruptible(lambda number: pytest.fail("not ours")):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


# --- jobs


def test_a_job_runs_until_it_is_stopped(url, numbers):
    with simlink.queue(url) as channel, channel.receiver() as rx:
        job = simlink.start(numbers, channel, rate=200)
        assert numbers[:3] == received(rx, 3)
        assert job.running
        assert "running" in repr(job)
        report = job.stop()
        assert job.report == report
        assert "done" in repr(job)
    assert report.sent == report.confirmed >= 3
    assert report.interrupted
    assert not [t for t in threading.enumerate() if t.name == "simlink-run-numbers"]


def test_a_job_ends_by_itself(url, numbers):
    job = simlink.start(numbers, url, count=100)
    report = job.wait(timeout=10)
    assert (report.confirmed, report.interrupted, job.running) == (100, False, False)
    assert report == job.stop()


def test_a_job_that_goes_on_is_not_waited_for_longer(url, numbers):
    job = simlink.start(numbers, url, rate=10)
    with pytest.raises(TimeoutError, match="goes on"):
        job.wait(timeout=0.01)
    job.stop()


def test_a_jobs_error_comes_out_of_stop_and_wait(url):
    def source():
        yield 1
        raise LookupError("out of stock")

    job = simlink.start(source, url)
    with pytest.raises(LookupError):
        job.wait(timeout=10)
    with pytest.raises(LookupError) as caught:
        job.stop()
    assert (caught.value.report.sent, type(job.error).__name__) == (1, "LookupError")
    assert "failed" in repr(job)


def test_a_job_refuses_wrong_options_at_once(url, numbers):
    with pytest.raises(simlink.ConfigError):
        simlink.start(numbers, url, rate=-1)


def test_a_job_shows_itself_in_a_notebook(url):
    source = simlink.record("<b>", n=fields.sequence(), seed=1)
    job = simlink.start(source, url, count=200, rate=1_000)
    job.wait(10)
    shown = job._repr_html_()
    assert "200 of 200 sent" in shown
    assert "&lt;b&gt;" in shown
    assert "<b>:" not in shown
    assert "<svg" in shown


# --- the report


def test_a_report_reads_as_text_html_and_plain_values(url, numbers):
    report = simlink.run(numbers, url, count=7, progress=False)
    assert "sent" in str(report)
    assert "confirmed  7" in str(report)
    assert "<td" in report._repr_html_()
    values = report.as_dict()
    required = {"sent", "confirmed", "failed", "unknown", "unsettled", "resent", "seconds", "rate", "bytes", "seed"}
    assert required | {"valid", "lost", "reordered", "corrupt"} <= set(values)
    assert [values[name] for name in ("lost", "duplicated", "reordered", "corrupt")] == [None] * 4
    assert 7 * len('{"n":0,"kind":"a"}') == values["bytes"]


def test_a_random_seed_is_reported(url):
    source = simlink.record("r", n=fields.integer(0, 10**9))
    with simlink.queue(url) as channel, channel.receiver() as rx:
        report = simlink.run(source, channel, count=10, progress=False)
        assert source.with_seed(report.seed)[:10] == received(rx, 10)


def test_the_past_is_sent_at_full_speed_and_then_the_run_is_live(url, numbers):
    """An hour of one a second, and what is due in the next two seconds: many times what the hour takes to send."""
    begun = time.time() - 3_600
    with simlink.queue(url) as channel, channel.receiver() as rx:
        report = simlink.run(numbers, channel, rate=1, since=begun, duration=2.0, progress=False)
        messages = rx.take(report.sent, timeout=30.0)
    assert report.sent - report.backfilled in range(5)
    assert report.backfilled >= 3_600
    assert messages == numbers[: report.sent]
    assert report.valid
    # The messages of the past are stamped with when they went out: none is an hour late.
    assert report.latency_ms["max"] < 600_000


def test_since_takes_an_instant_and_needs_a_pace(url, numbers):
    at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=2)
    for since in (at, at.isoformat()):
        report = simlink.run(numbers, url, rate=10, since=since, count=15, progress=False)
        assert (report.sent, report.backfilled) == (15, 15)
    with pytest.raises(simlink.ConfigError, match="give rate="):
        simlink.run(numbers, url, since=at, count=1, progress=False)
    with pytest.raises(simlink.ConfigError, match="ISO 8601"):
        simlink.run(numbers, url, since="yesterday", rate=1, count=1, progress=False)


def test_a_schedule_plays_faster(url, numbers):
    with simlink.queue(url) as channel, channel.receiver() as rx:
        simlink.run(numbers, channel, count=20, arrivals=arrivals.poisson(2), speed=1_000, progress=False)
        stamps = [rx.get().message.timestamp for _ in range(20)]
    due = arrivals.poisson(2, seed=5).due(0, 20) / 1_000
    assert [round((d - due[0]) * 1e6) for d in due] == pytest.approx([s - stamps[0] for s in stamps], abs=2)
    with pytest.raises(simlink.ConfigError, match="two paces"):
        simlink.run(numbers, url, count=1, rate=1, speed=2, progress=False)


@pytest.mark.parametrize("source", [lambda numbers: numbers.take(20), lambda _: [{"n": i} for i in range(20)]])
@pytest.mark.parametrize("count", [None, 10])
def test_a_paced_run_is_over_when_there_are_no_more_records(url, numbers, source, count):
    # An hour would be noticed.
    report = simlink.run(source(numbers), url, count=count, rate=1_000, duration=3_600, progress=False)
    assert (report.sent, report.behind) == (count or 20, 0)


@pytest.mark.parametrize("first", [False, True])
def test_an_error_of_who_is_told_of_progress_ends_the_run_with_its_report(url, numbers, first):
    told = []

    def show(progress):
        told.append(progress)
        if first or progress.done:
            raise LookupError("cannot show that")

    with pytest.raises(LookupError, match="cannot show that") as raised:
        simlink.run(numbers, url, rate=1_000, duration=0.3, progress=show)
    assert raised.value.report.error == "cannot show that"
    assert [p.done for p in told] == ([False] if first else [*[False] * (len(told) - 1), True])


def test_an_error_of_who_is_told_of_progress_comes_out_of_a_job(url, numbers):
    def show(_):
        raise LookupError("cannot show that")

    # An exception that left the thread would be a warning, and so an error of this test.
    job = simlink.start(numbers, url, rate=1_000, progress=show)
    with pytest.raises(LookupError, match="cannot show that"):
        job.wait()


def test_a_job_is_stopped_from_within(url, numbers):
    known = threading.Event()

    def show(progress):
        known.wait()
        if progress.sent:
            reports.append(job.stop())
            with pytest.raises(simlink.StateError, match="cannot wait for its own end"):
                job.wait()

    reports = []
    job = simlink.start(numbers, url, rate=1_000, progress=show)
    known.set()
    report = job.wait()
    assert reports[0].running
    assert (report.running, report.interrupted, report.error) == (False, True, None)
