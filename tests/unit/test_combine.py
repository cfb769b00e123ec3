"""Generators made of generators: the rows are those that the definition says, wherever one begins to read."""

from __future__ import annotations

import copy
import itertools
import json
import pickle

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simlink
from simlink import arrivals, faults, fields
from simlink.block import Kind
from simlink.errors import ConfigError, EncodeError, StateError
from simlink.generators import catalog
from simlink.generators.generator import BLOCK_ROWS
from simlink.generators.record import record
from simlink.generators.source import as_source
from simlink.serializers.json import Json

A = record("a", seed=1, n=fields.sequence(), kind="a", tag=fields.pool(["x", "y"]), both=fields.zipf(9))
B = record("b", seed=2, n=fields.sequence(100), kind="b", inner={"v": fields.uuid()}, both=fields.pool(["p"]))
C = record("c", seed=3, n=fields.sequence(), kind="c", parts=fields.list(fields.zipf(5)))


def filled(row, names):
    return {name: row.get(name) for name in names}


def mixed_by_hand(shares, rows):
    """Row by row: of each period, every generator's rows at the middles of equal parts."""
    order = sorted((((j + 0.5) / many, i) for i, (many, _) in enumerate(shares) for j in range(many)))
    counts = [0] * len(shares)
    for _, whose in itertools.islice(itertools.cycle(order), rows):
        yield whose, counts[whose]
        counts[whose] += 1


@pytest.mark.parametrize("ratio", [(3, 1), (1, 1, 1), (5, 3, 2), (4096, 1), (7, 11)])
def test_a_mix_has_the_exact_ratio_and_each_ones_rows_in_order(ratio):
    shares = list(zip(ratio, (A, B, C), strict=False))
    whole = simlink.mix(*shares)
    rows = whole[:10_000]
    sources = [generator[:10_000] for _, generator in shares]
    names = list(whole.schema)
    expected = [filled(sources[whose][row], names) for whose, row in mixed_by_hand(shares, 10_000)]
    assert expected == rows
    period = sum(ratio)
    for first in range(0, 10_000 - period, period):
        kinds = [row["kind"] for row in rows[first : first + period]]
        assert list(ratio) == [kinds.count(kind) for kind in "abc"[: len(ratio)]]


def test_a_mix_is_spread_evenly():
    assert "".join(row["kind"] for row in simlink.mix((3, A), (1, B))[:13]) == "aabaaabaaabaa"


@pytest.mark.parametrize(("lengths", "expected"), [((9, 9), 12), ((300, 2), 10), ((0, 5), 0), ((5, 1), 6)])
def test_a_mix_ends_where_one_of_them_does(lengths, expected):
    shares = [(3, A.take(lengths[0])), (1, B.take(lengths[1]))]
    whole = simlink.mix(*shares)
    by_hand = list(itertools.takewhile(lambda v: v[1] < lengths[v[0]], mixed_by_hand(shares, 1000)))
    assert (expected, len(by_hand)) == (len(by_hand), len(whole))
    assert len(whole) == len(list(whole))


def test_a_mix_of_generators_alike_keeps_their_types():
    one, other = catalog.numbers(seed=1), catalog.numbers(seed=2)
    whole = simlink.mix((1, one), (1, other))
    assert one.schema.fields == whole.schema.fields
    assert [one[0], other[0], one[1]] == whole[:3]
    assert list(one[10_000:10_003]) == whole[20_000:20_006:2]


def test_types_that_differ():
    kinds = simlink.mix((1, A), (1, B)).schema.fields
    assert (kinds["both"].kind, kinds["both"].optional) == (Kind.ANY, False)
    assert (kinds["tag"].kind, kinds["tag"].optional) == (Kind.STR, True)
    assert (kinds["n"].kind, kinds["n"].optional) == (Kind.INT, False)


def test_one_after_another():
    whole = simlink.concat(A.take(5000), B.take(1), C)
    names = list(whole.schema)
    expected = [filled(row, names) for row in [*A[:5000], B[0], *C[:5000]]]
    assert expected == whole[:10_001]
    assert filled(C[10**9 - 5001], names) == whole[10**9]
    assert len(simlink.concat(A.take(5000), B.take(1))) == 5001


@pytest.mark.parametrize("period", [1, 3, 4096, 4097, 10_000])
def test_again_and_again(period):
    whole = simlink.cycle(A.take(period))
    rows = A[:period]
    assert [rows[i % period] for i in range(13_000)] == whole[:13_000]
    assert rows[(10**9) % period] == whole[10**9]


GENERATORS = st.recursive(
    st.sampled_from([A, B, C, catalog.numbers(seed=4)]),
    lambda inner: st.one_of(
        st.lists(st.tuples(st.integers(1, 5), inner), min_size=1, max_size=3).map(lambda s: simlink.mix(*s)),
        st.tuples(inner, st.integers(0, 9000), inner).map(lambda v: simlink.concat(v[0].take(v[1]), v[2])),
        st.tuples(inner, st.integers(1, 9000)).map(
            lambda v: simlink.cycle(v[0].take(v[1])) if v[0].length != 0 else v[0]
        ),
    ),
    max_leaves=4,
)


@settings(max_examples=25, deadline=None)
@given(GENERATORS, st.integers(0, 14_000), st.integers(1, 5000))
def test_to_seek_is_to_scan(generator, first, many):
    end = 20_000 if generator.length is None else min(generator.length, 20_000)
    scanned = [row for block in generator.blocks(0, end) for row in block.rows()]
    assert scanned[first : first + many] == generator[first : min(first + many, end)]
    again = pickle.loads(pickle.dumps(generator))
    for i in range(3):
        if i * BLOCK_ROWS < end:
            assert (
                scanned[i * BLOCK_ROWS : (i + 1) * BLOCK_ROWS]
                == again.shard(i, 3).block(0)[: end - i * BLOCK_ROWS].rows()
            )
    block = generator.block(0) if end else None
    if block is not None:
        expected = [json.dumps(row, separators=(",", ":")).encode() for row in copy.copy(block).rows()]
        assert expected == Json().dumps_many(block)


def test_a_new_seed_is_given_to_all_of_them():
    whole = simlink.mix((1, A), (1, C)).with_seed(9)
    assert (9, A.with_seed(9)[0]["tag"]) == (whole.seed, whole[0]["tag"])
    assert C.with_seed(9)[0]["parts"] == whole[1]["parts"]
    assert A.seed == 1


def test_a_mix_travels():
    whole = simlink.concat(simlink.mix((2, A), (1, B)).take(5000), C).take(6000)
    with simlink.queue("memory://mixed") as queue, queue.receiver() as receiver:
        assert simlink.run(whole, queue, progress=False).confirmed == 6000
        assert simlink.verify(receiver, whole, count=6000).ok


def test_a_table_of_a_mix():
    pytest.importorskip("pandas")
    table = simlink.mix((1, A), (1, C)).to_pandas(4)
    assert table["kind"].tolist() == ["a", "c", "a", "c"]
    assert table["tag"].notna().tolist() == [True, False, True, False]


# --- where


def test_where_chooses_in_order_on_every_pass():
    chosen = simlink.where(A, "tag", "x")
    expected = [row for row in A[:9000] if row["tag"] == "x"]
    assert expected[:3000] == list(itertools.islice(chosen, 3000))
    assert expected[:3000] == list(chosen.take(3000))
    assert expected[1000:1500] == [row for chunk in chosen.chunks(1000, 1500, 64) for row in chunk.rows()]
    starts = [(chunk.start, len(chunk)) for chunk in chosen.chunks(10, 200, 64)]
    assert starts == [(10, 64), (74, 64), (138, 62)]
    assert list(chosen.chunks(5, 5)) == []


@pytest.mark.parametrize("matches", [[1, 2], {1, 2}, lambda v: v in (1, 2)])
def test_where_takes_what_when_takes(matches):
    assert {1, 2} == {row["both"] for row in simlink.where(A, "both", matches).take(100)}


def test_where_is_declared_not_seekable_and_refused_where_it_matters():
    chosen = as_source(simlink.where(A, "tag", "x"))
    assert not chosen.seekable
    with pytest.raises(ConfigError, match=r"where: which records of .* cannot be divided"):
        chosen.shard(0, 2)
    for call in (simlink.cycle, simlink.concat, lambda g: simlink.mix((1, g))):
        with pytest.raises(ConfigError, match="generators"):
            call(chosen)
    with pytest.raises(TypeError):
        chosen[0]


def test_where_is_sent_and_verified():
    chosen = simlink.where(A, "tag", "y")
    with simlink.queue("memory://chosen") as queue, queue.receiver() as receiver:
        assert simlink.run(chosen, queue, count=5000, progress=False).confirmed == 5000
        assert simlink.verify(receiver, chosen, count=5000).ok


def test_where_nothing_matches_it_says_so(monkeypatch):
    monkeypatch.setattr("simlink.generators.filtered._PATIENCE", 3)
    with pytest.raises(StateError, match="matches in 12,288 rows"):
        next(iter(simlink.where(A, "kind", "z")))


# --- foreign keys

CITY = fields.choice(Rome=2, Oslo=1)
USERS = record(
    "user",
    seed=5,
    id=fields.sequence(1000),
    city=fields.ref("id", CITY),
    since=fields.event_time(step=60),
    note={"plan": fields.ref("id", fields.choice(free=9, pro=1)), "const": 1},
    drawn=fields.uuid(),
)


def test_a_foreign_key_is_computed_from_its_row():
    visits = record(
        "visit",
        seed=6,
        row=fields.zipf(50_000, 1.2),
        user=fields.foreign(USERS, "id", by="row"),
        city=fields.foreign(USERS, "city", by="row"),
        since=fields.foreign(USERS, "since", by="row"),
        note=fields.foreign(USERS, "note", by="row"),
    )
    for row in visits[5000:5200]:
        own = USERS[row["row"]]
        assert [own["id"], own["city"], own["since"], own["note"]] == [
            row[n] for n in ("user", "city", "since", "note")
        ]
    assert visits.with_seed(1)[0]["user"] == 1000 + visits.with_seed(1)[0]["row"]


def test_a_foreign_key_far_ahead_and_of_the_catalog():
    sensors = catalog.sensors(seed=7)
    alarms = record(
        "alarm", seed=1, row=fields.integer(0, 10**9), t=fields.foreign(sensors, "temperature", by="row")
    ).take(3)
    assert [sensors[row["row"]]["temperature"] for row in alarms] == [row["t"] for row in alarms]


def test_where_there_is_no_row_there_is_no_value():
    rows = record(
        "r",
        seed=1,
        kind=fields.choice(a=1, b=1),
        row=fields.when("kind", "a", fields.zipf(10)),
        city=fields.foreign(USERS, "city", by="row"),
    )[:100]
    assert {True} == {(row["row"] is None) == (row["city"] is None) for row in rows}


def test_children_only_of_parents_that_there_are():
    child = record("c", seed=1, row=fields.sequence(), city=fields.foreign(USERS.take(5000), "city", by="row"))
    assert len(child[:4096]) == 4096
    with pytest.raises(ConfigError, match="has no row 8191"):
        child[4096]


# --- evolution


def evolved():
    base = record("order", seed=8, id=fields.sequence(), price=fields.integer(1, 99), shop="north")
    second = simlink.evolve(base, 2, add={"vip": fields.ref("id", fields.boolean(0.5))}, rename={"shop": "store"})
    return base, simlink.evolve(second, 5, widen={"price": float, "id": str})


def test_a_schema_changes_at_its_block_and_nothing_else_does():
    base, generator = evolved()
    edges = [0, 2, 5, 6]
    rows = generator[: 6 * BLOCK_ROWS]
    before, now, then = (rows[a * BLOCK_ROWS : b * BLOCK_ROWS] for a, b in itertools.pairwise(edges))
    plain = base[: 6 * BLOCK_ROWS]
    assert plain[: 2 * BLOCK_ROWS] == before
    assert ["id", "price", "store", "vip"] == list(now[0]) == list(then[0])
    assert [(r["id"], r["price"], r["shop"]) for r in plain[2 * BLOCK_ROWS : 5 * BLOCK_ROWS]] == [
        (r["id"], r["price"], r["store"]) for r in now
    ]
    assert [(str(r["id"]), float(r["price"])) for r in plain[5 * BLOCK_ROWS :]] == [(r["id"], r["price"]) for r in then]
    assert {float} == {type(r["price"]) for r in then}
    assert rows[5 * BLOCK_ROWS - 1 : 5 * BLOCK_ROWS + 2] == generator[5 * BLOCK_ROWS - 1 : 5 * BLOCK_ROWS + 2]
    kinds = [generator.schema_at(k).fields["price"].kind for k in (0, 2, 4, 5, 99)]
    assert kinds == [Kind.INT, Kind.INT, Kind.INT, Kind.FLOAT, Kind.FLOAT]


def test_what_evolves_travels_and_is_verified():
    _, generator = evolved()
    count = 6 * BLOCK_ROWS
    with simlink.queue("memory://evolving") as queue, queue.receiver() as receiver:
        simlink.run(generator, queue, count=count, progress=False)
        assert simlink.verify(receiver, generator, count=count).ok
    assert pickle.loads(pickle.dumps(generator)).digest(count) == generator.digest(count)
    assert generator.with_seed(1).digest(count) != generator.digest(count)


def test_protobuf_writes_what_evolves_as_one_message():
    base = evolved()[0]
    tax = fields.uniform(0, 1, decimals=2)
    generator = simlink.evolve(base, 1, add={"tax": tax}, rename={"shop": "store"}, widen={"price": float})
    generator = simlink.evolve(generator, 2, add={"note": fields.text("??")})
    serializer = simlink.Protobuf(generator)
    names = ["id", "price", "shop", "store", "tax", "note"]
    assert list(generator.message_schema) == names
    assert "  optional string shop = 3;\n" in serializer.proto_text()
    rows = [row for first in (0, 4090, 8190) for row in generator[first : first + 12]]
    blocks = [b for first in (0, 4090, 8190) for b in generator.blocks(first, first + 12)]
    bodies = [body for block in blocks for body in serializer.dumps_many(block)]
    # Rows are written as columns are, together and alone; what a record does not have is None.
    assert serializer.dumps_many(rows) == bodies == [serializer.dumps(row) for row in rows]
    assert serializer.loads_many(bodies) == [{name: row.get(name) for name in names} for row in rows]
    assert pickle.loads(pickle.dumps(serializer)).dumps_many(rows) == bodies
    with pytest.raises(simlink.EncodeError, match="no field 'id'"):
        serializer.dumps({"price": 1.0})


@pytest.mark.parametrize("damage", [False, True])
def test_what_evolves_is_verified_as_protobuf(damage):
    base = evolved()[0].take(3 * BLOCK_ROWS)
    source = simlink.evolve(base, 1, add={"tax": fields.uniform(0, 1, decimals=2)}, rename={"shop": "store"})
    if damage:
        source = source | faults.duplicate(0.01) | faults.truncate(0.01)
    serializer = simlink.Protobuf(source)
    with simlink.queue("memory://evolving-bytes", serializer=serializer) as queue, queue.receiver() as receiver:
        report = simlink.run(source, queue, progress=False)
        found = simlink.verify(receiver, source)
    assert found.ok
    assert found.received == report.sent >= 3 * BLOCK_ROWS


def test_protobuf_refuses_a_number_that_becomes_text():
    base = evolved()[0]
    with pytest.raises(simlink.ConfigError, match="'id' is int before block 1 and str from there on: no message holds"):
        simlink.Protobuf(simlink.evolve(base, 1, widen={"id": str}))


def test_a_rename_may_swap():
    base, _ = evolved()
    swapped = simlink.evolve(base, 1, rename={"id": "price", "price": "id"})
    assert (base[5000]["price"], base[5000]["id"]) == (swapped[5000]["id"], swapped[5000]["price"])


def test_a_file_and_a_description_have_the_fields_of_all_blocks(tmp_path):
    plain = simlink.record("r", id=fields.sequence(), seed=7).take(70_000)
    grown = simlink.evolve(plain, 1, add={"z": fields.integer(1, 9)}, rename={"id": "key"})
    for workers, made in ((1, grown), (2, grown), (1, grown | simlink.faults.drop(0.0))):
        made.write(tmp_path / "x.csv", workers=workers)
        lines = (tmp_path / "x.csv").read_text().splitlines()
        assert (lines[0], lines[4096], lines[4097]) == ("id,key,z", "4095,,", f",4096,{grown[4096]['z']}")
    for suffix in ("parquet", "arrow"):
        with pytest.raises(ConfigError, match=f"{suffix} has one schema, and that of r evolves"):
            grown.write(tmp_path / f"x.{suffix}")
    about = grown.describe(8_192)
    assert (about["key"].missing, about["z"].missing, about["z"].min) == (0.5, 0.5, 1)
    spiked = (grown | simlink.faults.spike(1.0, "z")).injected(8_192)
    assert spiked == {"spike": 4_096}


def test_a_table_has_one_schema():
    _, generator = evolved()
    for call in (generator.to_pandas, generator.to_arrow):
        with pytest.raises(ConfigError, match="one schema"):
            call(5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (simlink.mix, "nothing"),
        (lambda: simlink.mix((0, A)), "whole number"),
        (lambda: simlink.mix((-1, A)), "whole number"),
        (lambda: simlink.mix((0.5, A)), "whole number"),
        (lambda: simlink.mix((True, A)), "whole number"),
        (lambda: simlink.mix(A), "how many, generator"),
        (lambda: simlink.mix((1, [1, 2])), "generators"),
        (lambda: simlink.mix((65_536, A), (1, B)), "65,536"),
        (lambda: simlink.mix((1, catalog.access_log(seed=1, format="combined"))), "lines"),
        (lambda: simlink.mix((1, evolved()[1])), "several schemas"),
        (lambda: simlink.mix((1, A), name=""), "name"),
        (simlink.concat, "nothing"),
        (lambda: simlink.concat(A, B), "no end"),
        (lambda: simlink.cycle(A), "no end"),
        (lambda: simlink.cycle(A.take(0)), "no records"),
        (lambda: simlink.where(A, "tga", "x"), "did you mean 'tag'"),
        (lambda: simlink.where([1], "x", 1), "generator's records"),
        (lambda: simlink.where(evolved()[1], "id", 1), "several schemas"),
        (lambda: simlink.where(A, "tag", "x").take(-1), "take"),
        (lambda: fields.foreign(USERS, "ctiy", by="r"), "did you mean 'city'"),
        (lambda: fields.foreign(USERS, "drawn", by="r"), "user.drawn is drawn for its row"),
        (lambda: fields.foreign(catalog.orders(seed=1), "sku", by="r"), "cannot be told from a row alone"),
        (lambda: fields.foreign(record("e", t=fields.event_time(arrivals=arrivals.poisson(1))), "t", by="r"), "alone"),
        (lambda: fields.foreign([1], "x", by="r"), "simlink.record"),
        (lambda: fields.foreign(USERS, "id", by=3), "name of an earlier field"),
        (lambda: record("r", x=fields.foreign(USERS, "id", by="row"), row=1), "comes after"),
        (lambda: record("r", row="1", x=fields.foreign(USERS, "id", by="row")), "integer"),
        (lambda: simlink.evolve(A, 1), "say what changes"),
        (lambda: simlink.evolve(A, 0, rename={"n": "m"}), "a block after 0"),
        (lambda: simlink.evolve([1], 1, rename={"n": "m"}), "simlink.record"),
        (lambda: simlink.evolve(A, 1, rename={"m": "k"}), "no field 'm'"),
        (lambda: simlink.evolve(A, 1, rename={"n": "kind"}), "one name"),
        (lambda: simlink.evolve(A, 1, add={"n": 1}), "already"),
        (lambda: simlink.evolve(A, 1, add={"z": fields.ref("zz")}), "no earlier field"),
        (lambda: simlink.evolve(A, 1, widen={"tag": float}), "not wider"),
        (lambda: simlink.evolve(A, 1, widen={"n": int}), "not wider"),
        (lambda: simlink.evolve(evolved()[1], 5, widen={"vip": str}), "a block after 5"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_built(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


MAYBES = {
    "chosen": fields.maybe(fields.choice([1.5, None]), 0.5),
    "twice": fields.maybe(fields.maybe(fields.integer(0, 9), 0.3), 0.3),
    "inside": fields.maybe(fields.record(a=fields.maybe(fields.choice([1, None]), 0.5)), 0.5),
    "of a key": fields.maybe(fields.ref("key", fields.choice(["x", None])), 0.5),
}


@pytest.mark.parametrize("field", MAYBES.values(), ids=MAYBES)
@pytest.mark.parametrize("how", ["alone", "concat", "mix"])
def test_what_may_be_missing_for_two_reasons_is_a_message(field, how):
    one = record("a", key=fields.zipf(9), may=field, seed=1)
    other = record("b", key=fields.zipf(9), seed=2)
    made = {"alone": one, "concat": simlink.concat(other.take(4_100), one), "mix": simlink.mix((1, one), (1, other))}
    protobuf = simlink.Protobuf(made[how])
    bodies = [body for block in made[how].blocks(4_090, 4_200) for body in protobuf.dumps_many(block)]
    assert protobuf.loads_many(bodies) == made[how][4_090:4_200]


def test_records_before_and_after_a_change_are_valid_under_one_json_schema():
    first = record("r", n=fields.sequence(), old=fields.uuid(), seed=1)
    evolved = simlink.evolve(simlink.evolve(first, 1, rename={"old": "new"}), 2, add={"more": 1}, widen={"n": float})
    schema = jsonschema.Draft202012Validator(evolved.json_schema())
    for row in (0, 4_095, 4_096, 8_191, 8_192):
        schema.validate(evolved[row])
    assert not schema.is_valid({**evolved[0], "more": 1})
    assert schema.schema["title"] == first.json_schema()["title"] == "r"


@pytest.mark.parametrize("change", [{"add": ["b"]}, {"rename": {"a": 5}}, {"widen": [("a", float)]}])
def test_a_change_that_is_none_is_refused(change):
    with pytest.raises(ConfigError, match="evolve: "):
        simlink.evolve(record("r", a=fields.sequence()), 1, **change)


def test_a_column_of_several_types_is_refused_by_name_where_one_is_needed(tmp_path):
    mixed = record("r", id=fields.sequence(), what=fields.one_of([1, {"a": 2}]), seed=1)
    for call in (
        lambda: mixed.to_arrow(50),
        lambda: mixed.write(tmp_path / "x.parquet", 50),
        lambda: mixed.write(tmp_path / "x.arrow", 50),
    ):
        with pytest.raises(EncodeError, match="what: a column of Arrow has one type"):
            call()
    with pytest.raises(EncodeError, match="one type"):
        record("r", a=2**80, seed=1).to_arrow(5)
    with pytest.raises(EncodeError, match="does not hold such a column"):
        record("r", a=fields.constant({}), seed=1).write(tmp_path / "x.parquet", 5)
