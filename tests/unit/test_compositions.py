"""Random compositions: any fields in any record, put together in any way, with any faults. To seek is to scan, and
verify() finds exactly what was done to the messages on the way, and nothing of what was injected."""

from __future__ import annotations

import pickle
import uuid
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

import simlink
from simlink import arrivals, faults, fields
from simlink.message import Batch, Same

JSON = simlink.Json()
seeds = st.integers(0, 2**64 - 1)
numbers = st.floats(-1e6, 1e6)
positive = st.floats(0.01, 3)


def drawn_fields():
    """Fields that are drawn row by row, and so may be an entity's attributes too."""
    return st.one_of(
        st.tuples(st.integers(-(2**40), 0), st.integers(0, 2**40)).map(lambda ab: fields.integer(*ab)),
        st.tuples(numbers, positive, st.integers(0, 6)).map(lambda v: fields.normal(v[0], v[1], decimals=v[2])),
        st.tuples(st.floats(0, 3), positive).map(lambda v: fields.lognormal(*v)),
        st.tuples(numbers, st.floats(0, 1e6)).map(lambda v: fields.uniform(v[0], v[0] + v[1] + 1, decimals=3)),
        st.tuples(st.integers(1, 100_000), st.floats(0.2, 2.5)).map(lambda v: fields.zipf(*v)),
        st.dictionaries(st.text(min_size=1, max_size=4), st.integers(1, 9), min_size=1, max_size=5).map(fields.choice),
        st.floats(0, 1).map(fields.boolean),
        st.sampled_from(["SKU-####", "??-^^", "plain"]).map(fields.text),
        st.sampled_from([r"[a-f]{2,4}-\d", "(x|yy)+", r"\w?z*"]).map(fields.matching),
        st.just(fields.uuid()),
        st.text(max_size=3).map(lambda text: fields.choice([text])),
    )


def plain_fields():
    """Fields that need no other."""
    return st.one_of(
        drawn_fields(),
        st.tuples(st.integers(-9, 9), st.integers(1, 9)).map(lambda v: fields.sequence(*v)),
        st.tuples(st.floats(0.1, 5), st.floats(-0.99, 0.99)).map(lambda v: fields.ar1(0, *v)),
        st.floats(0.1, 5).map(lambda sd: fields.walk(0, sd)),
        st.floats(1, 1000).map(lambda rate: fields.event_time(arrivals=arrivals.poisson(rate), format="us")),
        st.none() | st.integers() | st.text(max_size=3),
    )


def dependent_fields():
    """Fields that look at ``key``, an integer, or at ``side``, a word."""
    return st.one_of(
        drawn_fields().map(lambda field: fields.ref("key", field)),
        drawn_fields().map(lambda field: fields.when("side", "buy", field)),
        drawn_fields().map(lambda field: fields.maybe(field, 0.3)),
        st.tuples(drawn_fields(), drawn_fields()).map(lambda ab: fields.record(a=ab[0], b=ab[1])),
        st.tuples(drawn_fields(), st.integers(0, 3)).map(lambda v: fields.list(fields.record(v=v[0]), 0, v[1])),
        st.just(fields.markov({"up": {"up": 1, "down": 1}, "down": {"up": 1}}, by="key")),
    )


@st.composite
def records(draw):
    chosen = draw(st.lists(st.one_of(plain_fields(), dependent_fields()), max_size=4))
    return simlink.record(
        draw(st.sampled_from(["r", "s"])),
        seed=draw(seeds),
        id=fields.sequence(),
        key=fields.zipf(20),
        side=fields.choice(buy=1, sell=2),
        value=fields.normal(20, 2, decimals=2),
        at=fields.event_time(step=1, format="iso"),
        **{f"f{i}": field for i, field in enumerate(chosen)},
    )


@st.composite
def compositions(draw):
    """A record, or several put together."""
    one = draw(records())
    how = draw(st.sampled_from(["alone", "take", "mix", "concat", "cycle", "evolve", "select"]))
    if how == "take":
        return one.take(draw(st.integers(0, 9_000)))
    if how == "mix":
        return simlink.mix((draw(st.integers(1, 4)), one), (draw(st.integers(1, 4)), draw(records())))
    if how == "concat":
        return simlink.concat(one.take(draw(st.integers(0, 6_000))), draw(records()))
    if how == "cycle":
        return simlink.cycle(one.take(draw(st.integers(1, 6_000))))
    if how == "evolve":
        added = {"more": draw(plain_fields())}
        return simlink.evolve(
            one, draw(st.integers(1, 2)), add=added, rename={"f0": "g0"} if "f0" in one.schema else {}
        )
    if how == "select":
        return one.select("id", "key", "side", "value", "at")
    return one


def share():
    return st.floats(0, 0.02)


def some_faults():
    episode = st.floats(0, 0.0005)
    return st.one_of(
        share().map(faults.drop),
        st.tuples(share(), st.integers(0, 60)).map(lambda v: faults.duplicate(v[0], within=v[1])),
        st.tuples(share(), st.integers(1, 5_000)).map(lambda v: faults.late(v[0], places=v[1])),
        st.tuples(share(), st.integers(1, 300)).map(lambda v: faults.out_of_order(v[0], window=v[1])),
        share().map(faults.corrupt),
        share().map(faults.truncate),
        share().map(lambda p: faults.wrong_type(p, "value")),
        st.tuples(share(), st.integers(1, 90)).map(lambda v: faults.clock_skew(v[0], v[1], "at")),
        share().map(lambda p: faults.hot_key(p, "key")),
        share().map(lambda p: faults.spike(p, "value")),
        episode.map(lambda p: faults.stuck(p, "value", per="key")),
        episode.map(lambda p: faults.gap(p, per="key", length=500)),
        episode.map(lambda p: faults.drift(p, "value", 5, per="key")),
        episode.map(lambda p: faults.flap(p, "value", 3)),
    )


def sent(source, start=0, stop=None):
    """(place, body) of what is sent."""
    out = []
    for chunk in source.chunks(start, stop):
        out += zip(range(chunk.start, chunk.start + len(chunk)), chunk.encode(JSON), strict=True)
    return out


@settings(max_examples=25)
@given(compositions(), st.integers(0, 9_000), st.integers(0, 300))
def test_to_seek_is_to_scan(generator, start, many):
    end = 9_300 if generator.length is None else min(9_300, generator.length)
    bodies = [body for block in generator.blocks(0, end) for body in JSON.dumps_many(block)]
    assert len(bodies) == end
    stop = min(end, start + many)
    assert JSON.dumps_many(generator[start:stop]) == bodies[start:stop]
    assert [body for b in generator.blocks(start, stop) for body in JSON.dumps_many(b)] == bodies[start:stop]
    if start < end:
        assert JSON.dumps(generator[start]) == bodies[start]
    fresh = pickle.loads(pickle.dumps(generator))
    assert JSON.dumps_many(fresh[start:stop]) == bodies[start:stop]


@settings(max_examples=20)
@given(records(), st.lists(some_faults(), min_size=1, max_size=6), st.integers(0, 9_000), st.integers(1, 2_000))
def test_with_faults_to_seek_is_to_scan(generator, chosen, start, many):
    whole = sent(faults.apply(generator.take(9_000), *chosen))
    assert [place for place, _ in whole] == list(range(len(whole)))
    assert sent(faults.apply(generator.take(9_000), *chosen), start, start + many) == whole[start : start + many]


@settings(max_examples=20)
@given(records(), st.lists(some_faults(), min_size=1, max_size=6), st.data())
def test_exactly_what_was_done_on_the_way_is_found(generator, chosen, data):
    source = faults.apply(generator.take(6_000), *chosen)
    bodies = [body for _, body in sent(source)]
    places = st.sets(st.integers(0, len(bodies) - 1), max_size=9)
    lost, changed, twice = data.draw(places), data.draw(places), data.draw(places)
    changed, twice = changed - lost, twice - lost
    order = [place for place in range(len(bodies)) if place not in lost]
    texts = [b'{"other":1}' if place in changed else bodies[place] for place in order]
    with simlink.queue(f"memory://composed-{uuid.uuid4().hex[:8]}") as channel, channel.receiver() as receiver:
        # Repeats stand before the end, where they are read, and are of no other sender.
        again = [bodies[place] for place in sorted(twice - changed)]
        numbered = [*sorted(twice - changed), *order]
        batch = Batch([*again, *texts], producers=Same(b"a" * 16, len(numbered)), sequences=numbered)
        channel.send_many(batch)
        found = simlink.verify(receiver, source, timeout=0.1 if lost else 30.0)
    assert found.expected == len(bodies)
    assert (found.lost, found.corrupt, found.duplicated) == (len(lost), len(changed), len(twice - changed))
    assert found.missing == tuple(sorted(lost))
    assert [difference.row for difference in found.differences] == sorted(changed)
    labels = Counter(label.fault for label in source.labels())
    assert {name: n for name, n in found.injected.items() if n} == labels
    assert found.ok is not bool(lost or changed or (twice - changed))
