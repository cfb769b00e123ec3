"""The same bytes, as JSON and as Protobuf, whichever way they are asked for: by batches, slices, shards, processes.

`tests.support.digests` has the entries and what their bodies are; other interpreters and CPUs are in
test_determinism_elsewhere.
"""

from __future__ import annotations

import multiprocessing
import threading
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simlink
from simlink import fields
from simlink.generators import catalog
from simlink.generators.field import BLOCK_ROWS
from simlink.generators.output.crew import STRETCH
from simlink.generators.record import Record
from simlink.serializers.lookup import serializer_for
from tests.support.digests import BODIES, CATALOG, WRITTEN, bodies, body_digests, digest_of

EVERY = [(name, written) for written, names in WRITTEN.items() for name in names]
whole = cache(bodies)


@pytest.mark.parametrize(("name", "written"), EVERY)
def test_batches_of_any_size_have_the_same_bytes(name, written):
    expected = whole(name, written)
    assert len(expected) == BODIES
    for size in (333, 4095, 100_000):
        assert bodies(name, written, size=size) == expected
    # One by one, across the end of a block.
    assert bodies(name, written, 4090, 4110, 1) == expected[4090:4110]


@pytest.mark.parametrize("written", WRITTEN)
@settings(max_examples=40)
@given(data=st.data())
def test_slices_have_the_same_bytes(written, data):
    name = data.draw(st.sampled_from(WRITTEN[written]))
    start = data.draw(st.integers(0, BODIES - 1))
    stop = min(BODIES, start + data.draw(st.integers(0, 200)))
    expected = whole(name, written)[start:stop]
    generator = CATALOG[name]()
    serializer = serializer_for(written, generator)
    # Rows as dicts, all together and one by one; blocks, which are encoded by columns.
    assert serializer.dumps_many(generator[start:stop]) == expected
    assert [serializer.dumps(row) for row in generator[start : min(stop, start + 3)]] == expected[:3]
    assert bodies(name, written, start, stop, data.draw(st.integers(1, 300))) == expected


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize(("name", "written"), EVERY)
def test_shards_have_the_same_bytes(name, written, workers):
    generator = CATALOG[name]().take(BODIES)
    serializer = serializer_for(written, generator)
    parts = {}
    for i in range(workers):
        for block in generator.shard(i, workers).blocks():
            parts[block.start] = serializer.dumps_many(block)
    assert [body for start in sorted(parts) for body in parts[start]] == whole(name, written)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_have_the_same_bytes(method):
    expected = {written: {name: digest_of(whole(name, written)) for name in WRITTEN[written]} for written in WRITTEN}
    with multiprocessing.get_context(method).Pool(2) as pool:
        made = dict(zip(WRITTEN, pool.map(body_digests, WRITTEN, chunksize=1), strict=True))
        pool.close()
        pool.join()
    assert made == expected


@pytest.mark.parametrize(("workers", "written"), [(1, "json"), (2, "protobuf"), (3, "json"), (4, "protobuf")])
def test_a_runs_workers_send_the_same_bytes(workers, written):
    """The processes of a run, and what came out at the other end."""
    generator = catalog.clickstream(seed=7)
    count = 3 * BLOCK_ROWS + 100  # blocks for four workers, the last of which is not whole
    came = {}
    with simlink.queue("tcp://127.0.0.1:0/bytes", serializer=serializer_for(written, generator)) as channel:
        with channel.receiver() as receiver:
            ended = threading.Event()

            def read():
                while len(came) < count and not ended.is_set():
                    try:
                        batch = next(receiver.batches())
                    except StopIteration:
                        return
                    came.update(zip(batch.sequences, batch.bodies, strict=True))
                    batch.ack()

            reader = threading.Thread(target=read, name="reader")
            reader.start()
            try:
                report = simlink.run(
                    generator,
                    receiver.url,
                    count=count,
                    workers=workers,
                    serializer=serializer_for(written, generator),
                    progress=False,
                )
            finally:
                reader.join(60)
                ended.set()
                receiver.stop()
                reader.join()
    assert (report.sent, report.confirmed) == (count, count)
    assert [came[row] for row in range(count)] == bodies("clickstream", written, 0, count)


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_the_workers_of_a_file_write_the_same_bytes(tmp_path, workers, alone):
    out = tmp_path / "shared.ndjson"
    numbers().write(out, LINES, workers=workers)
    assert out.read_bytes() == alone


LINES = 5 * STRETCH + 1
"""Parts for four workers."""


def numbers():
    return catalog.numbers(seed=7)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "alone.ndjson"
    numbers().write(out, LINES)
    return out.read_bytes()


@pytest.mark.parametrize("name", [name for name, make in CATALOG.items() if isinstance(make(), Record)])
def test_another_field_changes_no_other_of_the_catalog(name):
    made = CATALOG[name]()
    shown = list(made.schema)
    more = Record(
        made.name,
        {"first": fields.uuid(), **made.fields, "last": fields.normal(0, 1)},
        seed=made.seed,
        shown=["first", *shown, "last"],
    )
    rows = more[: BLOCK_ROWS + 100]
    assert [{field: row[field] for field in shown} for row in rows] == made[: BLOCK_ROWS + 100]


FIELDS = {
    "key": fields.zipf(50),
    "id": fields.uuid(),
    "amount": fields.lognormal(3, 0.5),
    "side": fields.choice(buy=1, sell=2),
    "country": fields.ref("key", fields.choice(FR=3, DE=2)),
    "tip": fields.when("side", "buy", fields.uniform(0, 9, decimals=2)),
    "lines": fields.list(fields.record(sku=fields.text("??-##")), 0, 3),
    "level": fields.ar1(20, 2),
    "mood": fields.markov({"up": {"up": 1, "down": 1}, "down": {"up": 1}}, by="key"),
    "at": fields.event_time(),
}
NEEDS = {"country": "key", "tip": "side", "mood": "key"}


@settings(max_examples=40)
@given(st.sets(st.sampled_from(sorted(FIELDS)), min_size=1), st.integers(0, 2**64 - 1), st.randoms())
def test_a_field_does_not_know_which_others_there_are(chosen, seed, random):
    chosen |= {NEEDS[name] for name in chosen & set(NEEDS)}
    shuffled = sorted(chosen)
    random.shuffle(shuffled)
    # What is referred to stands before.
    shuffled.sort(key=lambda name: name in NEEDS)
    few = simlink.record("r", seed=seed, **{name: FIELDS[name] for name in shuffled})
    many = simlink.record("r", seed=seed, **FIELDS)
    assert many.select(*shuffled)[4000:4200] == few[4000:4200]
    full = many[4000:4200]
    assert [{name: row[name] for name in shuffled} for row in full] == few[4000:4200]


@pytest.mark.parametrize(
    ("where", "workers", "said"),
    [
        ("memory://x", 0, "workers is a number from 1 up, not 0"),
        ("memory://x", True, "workers is a number from 1 up, not True"),
        ("memory://x", 2, "stays in one process: it cannot have workers"),
        (None, 2, "workers open the channel themselves: give its URL"),
    ],
)
def test_workers_that_cannot_be_are_refused(where, workers, said):
    with simlink.queue("memory://workers") as channel, pytest.raises(simlink.ConfigError, match=said):
        simlink.run(numbers(), where or channel, count=1, workers=workers, progress=False)
