"""Nested blocks written as one text: the same bytes as row by row, or left to the other way."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink.block import Block, Coded, FieldType, Kind, Masked, Pool, Ragged, Schema, Struct
from simlink.errors import EncodeError
from simlink.serializers.json import Json
from simlink.serializers.json_text import block_bodies

encode = msgspec.json.Encoder().encode


def block(rows, **columns):
    schema = Schema("r", dict.fromkeys(columns, FieldType(Kind.ANY)))
    return Block(schema, columns, 0, rows)


def objects(values):
    return np.fromiter(values, dtype=object, count=len(values))


def column_of(rows):
    """Any column of this many rows, that there is."""
    integers = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=rows, max_size=rows)
    floats = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=rows, max_size=rows)
    texts = st.lists(st.text(), min_size=rows, max_size=rows)
    pools = st.lists(st.one_of(st.text(), st.integers(), st.booleans(), st.none()), min_size=1, max_size=5)
    return st.one_of(
        integers.map(lambda v: np.array(v, np.int64)),
        floats.map(lambda v: np.array(v, np.float64)),
        st.lists(st.booleans(), min_size=rows, max_size=rows).map(lambda v: np.array(v, np.bool_)),
        texts.map(objects),
        pools.map(lambda p: Coded(np.arange(rows) % len(p), Pool(p))),
        integers.map(lambda v: Masked(np.arange(rows) % 2 == 0, np.array(v, np.int64))),
    )


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(0, 3))
def test_the_same_bytes_as_row_by_row(data, rows, many):
    names = data.draw(st.lists(st.text(), min_size=1, max_size=3, unique=True))
    inner = Struct({name: data.draw(column_of(rows * many)) for name in names}, rows * many)
    made = block(rows, a=data.draw(column_of(rows)), list=Ragged(np.arange(rows + 1) * many, inner), z=Struct({}, rows))
    expected = [encode(row) for row in made.rows()]
    written = block_bodies(made, encode)
    assert written is None or expected == written
    assert expected == Json().dumps_many(made)
    assert b"".join(body + b"\n" for body in expected) == Json().dumps_lines(made)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([1, 63, 64, 1024, 1500]))
def test_flat_records_that_are_looked_up_are_the_same_bytes(data, rows):
    values = st.one_of(st.text(), st.integers(-(2**63), 2**64 - 1), st.booleans(), st.none(), st.floats(-9, 9))
    pools = st.lists(values, min_size=1, max_size=5).map(lambda p: Coded(np.arange(rows) * 7 % len(p), Pool(p)))
    small = st.integers(0, 2**16 - 1).map(lambda v: np.arange(v, v + rows))
    some = st.integers(1, 9).map(lambda n: np.arange(rows) % n == 0)
    gaps = st.tuples(some, st.one_of(pools, small)).map(lambda pair: Masked(*pair))
    columns = {f"looked up {i}": data.draw(pools) for i in range(data.draw(st.integers(2, 7)))}
    columns |= {'"other"': data.draw(st.one_of(small, gaps)), "last": data.draw(pools)}
    for _ in range(3):  # at first the names around a pool's values are not kept with them
        made = block(rows, **columns)
        expected = [encode(row) for row in made.rows()]
        assert expected == Json().dumps_many(made)
        assert b"".join(body + b"\n" for body in expected) == Json().dumps_lines(made)


def test_readings_are_written_this_way():
    inner = Struct(
        {"t": np.arange(4), "x": objects(["a", 'b",', "", "d"]), "s": Coded(np.arange(4) % 2, Pool(["u", "ü\n"]))}, 4
    )
    good = block(2, list=Ragged(np.array([0, 2, 4]), inner))
    assert [encode(row) for row in good.rows()] == block_bodies(good, encode)  # a quote within a text
    inner.columns["x"] = objects(["a", "b", "", "d"])
    good = block(2, list=Ragged(np.array([0, 2, 4]), inner))
    assert [encode(row) for row in good.rows()] == block_bodies(good, encode)
    assert block_bodies(good[1:2], encode) == [encode(good.rows()[1])]


@pytest.mark.parametrize(
    "column",
    [np.array([1.0, np.nan]), objects([b"x", "y"]), objects(["\ud800", "x"]), Coded(np.array([0, 1]), Pool([b"", 1]))],
    ids=["NaN", "bytes", "surrogate", "pool of bytes"],
)
def test_what_is_not_json_is_refused_as_ever(column):
    bad = block(2, n=Struct({"x": column}, 2))
    assert block_bodies(bad, encode) is None
    with pytest.raises(EncodeError):
        Json().dumps_many(bad)


def test_flat_and_uneven_blocks_go_the_other_way():
    assert block_bodies(block(2, a=np.arange(2)), encode) is None
    uneven = block(2, a=Ragged(np.array([0, 1, 3]), np.arange(3)))
    assert block_bodies(uneven, encode) is None
    assert Json().dumps_many(uneven) == [b'{"a":[0]}', b'{"a":[1,2]}']
    assert json.loads(Json().dumps_many(block(1, a=Ragged(np.array([0, 0]), np.arange(0))))[0]) == {"a": []}
