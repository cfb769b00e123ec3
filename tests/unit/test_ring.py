"""What is made ahead of a paced run: in order, within bounds, and in steps that fit between two rows."""

from __future__ import annotations

import threading
import time
import uuid
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simlink
from simlink import arrivals, faults, fields
from simlink.generators import catalog
from simlink.generators.record import Record
from simlink.generators.source import Source, as_source
from simlink.generators.steps import Kept, at_once
from simlink.running import engine
from simlink.running.engine import Engine
from simlink.running.feed import Encoder
from simlink.running.ring import Costs, Ring


class Clock:
    """Moves when it is told to, and a microsecond whenever it is read, as a real one."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1e-6
        return self.now

    def pass_(self, seconds):
        assert seconds >= 0.0
        self.now += seconds


# --- steps that fit


def costing(clock, seconds):
    """A function of a column that takes so long."""

    def work(column):
        clock.pass_(seconds)
        return column

    return work


def lags(monkeypatch, clock, generator, *, rate, count, a_row=0.000_002):
    """A run on the clock, on which to encode a row takes ``a_row`` seconds: the lags of the rows."""

    class Costly(simlink.Json):
        def dumps_many(self, values):
            clock.pass_(a_row * len(values))
            return super().dumps_many(values)

    monkeypatch.setattr(engine, "time", SimpleNamespace(sleep=clock.pass_, time=time.time, time_ns=time.time_ns))
    with simlink.queue(f"memory://ring-{uuid.uuid4().hex[:8]}", serializer=Costly()) as channel:
        run = Engine(
            as_source(generator),
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
            clock=clock,
        )
        run.execute()
        assert (run.error, run.totals.sent) == (None, count)
        channel.purge()
    return run.latencies()[0]


def test_a_block_that_takes_ten_gaps_makes_no_row_late(monkeypatch):
    # 20 columns of half a millisecond and 8 ms of encoding: 18 ms a block, and 1 ms between two rows.
    clock = Clock()
    columns = {f"f{i}": fields.integer(0, 9) | costing(clock, 0.000_5) for i in range(20)}
    lag = lags(monkeypatch, clock, simlink.record("r", seed=1, **columns), rate=1_000, count=9_000)

    assert lag.maximum < 0.000_1


def test_a_step_longer_than_every_gap_delays_rows_by_itself_and_no_more(monkeypatch):
    clock = Clock()
    columns = {f"f{i}": fields.integer(0, 9) | costing(clock, 0.000_3) for i in range(10)}
    columns |= {f"long{i}": fields.integer(0, 9) | costing(clock, 0.004) for i in range(3)}
    lag = lags(monkeypatch, clock, simlink.record("r", seed=1, **columns), rate=1_000, count=9_000)

    # Two blocks are made while it runs. A step of 4 ms begins with the gap before it: three rows are late.
    assert 0.002_9 < lag.maximum < 0.003_1
    assert lag.count == 9_000


def test_what_cannot_be_divided_delays_rows_by_all_of_it(monkeypatch):
    """The same cost in one step: what the two tests above would see if nothing were divided."""
    clock = Clock()
    whole = simlink.record("r", seed=1, f=fields.integer(0, 9) | costing(clock, 0.018))
    lag = lags(monkeypatch, clock, whole, rate=1_000, count=9_000)

    assert 0.016_9 < lag.maximum < 0.017_1


def test_a_fast_run_is_late_by_the_batches_it_encodes(monkeypatch):
    # Ten microseconds between two rows: what is due goes out each half millisecond, and slices take up to 4 ms worth.
    clock = Clock()
    columns = {f"f{i}": fields.integer(0, 9) | costing(clock, 0.000_2) for i in range(10)}
    lag = lags(monkeypatch, clock, simlink.record("r", seed=1, **columns), rate=100_000, count=50_000)

    assert lag.maximum < 0.002


def test_a_step_that_was_interrupted_once_costs_as_before():
    costs = Costs()
    for seconds in (0.1, 9.0, 0.2, 0.1):
        costs.add("a", seconds)
    assert costs.of("a") == 0.1


def test_of_many_steps_the_oldest_are_forgotten():
    costs = Costs()
    for i in range(1_025):
        costs.add(str(i), 1.0)
    assert (costs.of("1"), costs.of("1024")) == (1.0, 1.0)
    assert costs.of("0") < 0.001


# --- order, content and bounds


class Made(Source):
    """Numbers in chunks of these sizes; each chunk after some steps, and each step takes a while."""

    name = "made"
    waits = False

    def __init__(self, clock, chunks, waits=False):
        self.clock, self.given, self.waits = clock, chunks, waits
        self.asked = 0

    def chunks(self, start=0, stop=None, size_hint=4096):
        raise AssertionError("a ring asks for steps")

    def in_steps(self, stop=None, size_hint=4096):
        row = 0
        for size, steps in self.given:
            for number, seconds in enumerate(steps):
                yield f"step {number}"
                self.clock.pass_(seconds)
            self.asked += 1
            yield list(range(row, row + size))
            row += size


def ring_of(source, clock=time.perf_counter, *, rate=1_000.0, limit=(8_192, 1 << 22), rows=64, key=None, stop=None):
    return Ring(
        source, Encoder(simlink.Json(), key), stop=stop, rows=rows, rate=rate, clock=clock, limit=limit, reading=id
    )


chunk_list = st.lists(st.tuples(st.integers(1, 300), st.lists(st.floats(0, 0.01), max_size=4)), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(
    chunks=chunk_list,
    limit=st.tuples(st.integers(1, 600), st.integers(10, 2_000)),
    rate=st.sampled_from([0.0, 1.0, 1_000.0, 1e6]),
    waits=st.booleans(),
    a_row=st.floats(0, 0.001),
    data=st.data(),
)
def test_whatever_is_done_the_rows_come_in_order_and_within_bounds(chunks, limit, rate, waits, a_row, data):
    clock = Clock()
    source = Made(clock, chunks, waits)
    ring = ring_of(source, clock, rate=rate, limit=limit, key=lambda value: value)
    encode = ring._encoder._encode
    ring._encoder._encode = lambda values, first: clock.pass_(a_row * len(values)) or encode(values, first)
    total = sum(size for size, _ in chunks)
    largest = max(size for size, _ in chunks)
    ring.begin()
    row = 0
    while True:
        before = ring.rows
        for _ in range(data.draw(st.integers(0, 9), label="steps")):
            if ring.worth(data.draw(st.sampled_from([0.0, 0.001, 9.0]), label="left"), fresh=True):
                assert not ring.full
                ring.step()
        assert ring.rows >= before
        assert ring.rows <= (2 * largest if waits else max(limit[0], 64) + largest)
        ring.prepare()
        if not ring.check():
            break
        count = data.draw(st.integers(1, ring.rows), label="count")
        if data.draw(st.booleans(), label="skip"):
            ring.skip(count)
        else:
            got = ring.take(count)
            assert [str(value).encode() for value in range(row, row + count)] == [b for c in got for b in c.bodies]
            assert [str(value).encode() for value in range(row, row + count)] == [k for c in got for k in c.keys]
            assert [(row, count)] == [(c.first, len(c)) for c in got]
        row += count
    assert (total, 0, 0) == (row, ring.rows, ring.nbytes)


def test_rows_that_do_not_follow_one_another_are_chunks_of_their_own():
    shard = simlink.record("n", n=fields.sequence(), seed=1).take(9_000).shard(0, 2)
    ring = ring_of(as_source(shard))
    while not ring.over:
        ring.step()
    assert ring.rows == 4_096 + 808
    ring.skip(4_000)
    assert [(c.first, len(c)) for c in ring.take(200)] == [(4_000, 96), (8_192, 104)]
    assert ring.take(1)[0].bodies == [b'{"n":8296}']


def test_large_records_are_few():
    ring = ring_of(as_source([{"body": "x" * 100_000}] * 500))
    for _ in range(1_000):
        if ring.worth(9.0, fresh=True):
            ring.step()
    # 4 MiB, and the last slice: the first of 64, for nothing is known yet, or 256 KiB.
    assert 4 * 1024 * 1024 <= ring.nbytes <= 64 * 100_011 + 256 * 1024
    assert not ring.over


def emptied(ring, seen):
    """Take everything, seven rows at most at a time; ``seen`` gets their numbers."""
    ring.begin()
    while ring.check():
        seen += [c.first + i for c in ring.take(min(7, ring.rows)) for i in range(len(c))]
        ring.prepare()


def test_what_comes_before_an_error_is_handed_out_first():
    values = [{"x": i} for i in range(700)]
    values[650] = {"x": float("nan")}
    ring = ring_of(as_source(values))
    seen = []
    with pytest.raises(simlink.EncodeError, match="record 650") as caught:
        emptied(ring, seen)
    assert list(range(650)) == seen
    assert caught.value.row == 650


def test_an_error_of_the_source_comes_last():
    def source():
        yield from range(10)
        raise LookupError("out of stock")

    ring = ring_of(as_source(source))
    seen = []
    with pytest.raises(LookupError):
        emptied(ring, seen)
    assert list(range(10)) == seen


def test_a_source_that_waits_is_asked_for_one_chunk_beyond_the_current_one():
    source = Made(Clock(), [(2, [])] * 20, waits=True)
    ring = ring_of(source)
    ring.begin()
    assert source.asked == 1
    for _ in range(10):
        if ring.worth(9.0, fresh=True):
            ring.step()
    assert (source.asked, ring.rows) == (2, 4)
    ring.take(1)
    assert not ring.worth(9.0, fresh=True)
    ring.take(1)
    assert ring.worth(9.0, fresh=True)


def test_which_sources_wait(tmp_path):
    file = tmp_path / "r.ndjson"
    file.write_text('{"a": 1}\n')
    numbers = simlink.record("n", n=fields.sequence(), seed=1)
    waits = [as_source(s).waits for s in (iter([1]), lambda: [1], simlink.replay(file), faults_of(iter([1])))]
    ready = [as_source(s).waits for s in (numbers, [1], simlink.where(numbers, "n", [1]), faults_of(numbers))]
    assert waits == [True] * 4
    assert ready == [False] * 4


def faults_of(source):
    return faults.apply(source, faults.drop(0.01), seed=1) if not hasattr(source, "seed") else source | faults.drop(0.1)


# --- the same in steps


def plain():
    return simlink.record(
        "plain",
        n=fields.sequence(),
        inner={"a": fields.integer(0, 9), "b": fields.list(fields.integer(0, 9))},
        seed=3,
    )


GENERATORS = {
    "clickstream": lambda: catalog.clickstream(seed=7),
    "access_log": lambda: catalog.access_log(seed=7),
    "lines": lambda: catalog.access_log(seed=7, format="combined"),
    "orders": lambda: catalog.orders(seed=7),
    "sensors": lambda: catalog.sensors(seed=7),
    "nested": plain,
    "shard": lambda: plain().shard(1, 3),
    "evolved": lambda: simlink.evolve(plain(), 1, rename={"n": "number"}),
    "mix": lambda: simlink.mix((3, plain()), (1, catalog.numbers(seed=1))),
    "concat": lambda: simlink.concat(plain().take(5_000), catalog.numbers(seed=1)),
    "cycle": lambda: simlink.cycle(plain().take(1_000)),
    "cycle of blocks": lambda: simlink.cycle(plain().take(5_000)),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_a_block_in_steps_is_the_block(name):
    # Block 16 is where an epoch of sessions begins.
    for k in (0, 1, 16):
        assert GENERATORS[name]().make_block(k).rows() == at_once(GENERATORS[name]().make_steps(k)).rows()


def test_a_generator_names_its_steps_and_keeps_the_block():
    numbers = plain()
    assert list(numbers.block_steps(1)) == ["plain.n", "plain.inner", "plain.inner.a", "plain.inner.b"]
    assert list(numbers.block_steps(1)) == []
    with pytest.raises(IndexError):
        next(plain().take(10).block_steps(1))


def test_a_record_with_a_make_block_of_its_own_is_made_by_it():
    class Doubled(Record):
        def make_block(self, k):
            block = super().make_block(k)
            block.columns["n"] = block.columns["n"] * 2
            return block

    doubled = Doubled("d", {"n": fields.sequence()}, seed=1)
    ring = ring_of(as_source(doubled))
    ring.begin()
    assert ring.take(3)[0].bodies == [b'{"n":0}', b'{"n":2}', b'{"n":4}']


@pytest.mark.parametrize("stop", [None, 0, 1, 4_096, 4_097, 9_000])
@pytest.mark.parametrize(
    "make",
    [
        lambda: plain().take(10_000),
        lambda: simlink.where(plain(), "n", lambda n: n % 3 == 0).take(4_500),
        lambda: plain().take(9_500) | faults.drop(0.1) | faults.duplicate(0.1) | faults.truncate(0.05),
        lambda: (plain() | faults.late(0.1, places=9)).take(9_000).shard(1, 2),
        lambda: list(range(5_000)),
        lambda: iter(range(5_000)),
    ],
    ids=["generator", "where", "faults", "part", "list", "iterator"],
)
def test_a_source_in_steps_gives_its_rows(make, stop):
    def rows(chunks):
        return [value for chunk in chunks if not isinstance(chunk, str) for value in chunk]

    assert rows(as_source(make()).chunks(0, stop, 100)) == rows(as_source(make()).in_steps(stop, 100))


def test_results_are_kept_as_long_as_told():
    made = []

    def make(number):
        yield "step"
        made.append(number)
        return number * 2

    kept = Kept(make, 2)
    assert [kept(1), kept(2), kept(1), kept(3), kept(1)] == [2, 4, 2, 6, 2]
    assert made == [1, 2, 3, 1]
    assert list(kept.steps(9)) == ["step"]


# --- a run that ends early


@pytest.mark.parametrize("policy", ["lag", "block", "drop"])
def test_what_was_only_made_ahead_is_not_sent(policy):
    numbers = simlink.record("n", n=fields.sequence(), seed=1)
    with simlink.queue(f"memory://ring-{uuid.uuid4().hex[:8]}") as channel, channel.receiver() as rx:
        sent = threading.Event()
        job = simlink.start(
            numbers, channel, rate=500, on_overload=policy, progress=lambda p: sent.set() if p.sent > 20 else None
        )
        assert sent.wait(30)
        report = job.stop()
        assert (report.sent, report.unknown) == (report.confirmed, 0)
        rows = rx.take(report.sent, timeout=5.0)
        assert report.dropped + report.sent >= rows[-1]["n"] + 1
        if policy != "drop":
            assert numbers[: report.sent] == rows
        with pytest.raises(simlink.ReceiveTimeout):
            rx.get(timeout=0.0)
