"""Json: what it writes, what it refuses, and that blocks and rows give the same bytes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
import pickle
import uuid
from decimal import Decimal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlink.block import Block, Coded, FieldType, Kind, Masked, Pool, Ragged, Schema, Struct
from simlink.errors import CodecError, ConfigError, DecodeError, EncodeError
from simlink.serializers.json import Json
from simlink.serializers.json_cells import bodies_of

JSON = Json()
NAN, INF = math.nan, math.inf


def text():
    return st.text(st.characters(exclude_categories=["Cs"]))


def json_values():
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | text()
    )
    return st.recursive(
        leaves, lambda c: st.lists(c, max_size=4) | st.dictionaries(text(), c, max_size=4), max_leaves=12
    )


def same(a, b):
    """Equal, and of the same types: 1, 1.0 and True are three values."""
    return a == b and repr(a) == repr(b)


@given(json_values())
def test_a_json_value_comes_back_as_it_was(value):
    body = JSON.dumps(value)
    assert same(value, JSON.loads(body))
    assert same(value, json.loads(body))


@given(st.lists(json_values(), max_size=6))
def test_many_values_are_encoded_as_one_by_one(values):
    bodies = JSON.dumps_many(values)
    assert [JSON.dumps(v) for v in values] == bodies
    assert same(values, JSON.loads_many(bodies))


@given(st.binary(max_size=40) | text().map(str.encode))
def test_arbitrary_bytes_give_a_value_or_a_decode_error(body):
    try:
        JSON.loads(body)
    except CodecError as error:
        caught = error
    else:
        return
    assert isinstance(caught, DecodeError)
    assert body == caught.body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e400",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b"{",
        b"1 2",
        b"\xef\xbb\xbf1",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 1_000_000,
    ],
    ids=lambda b: repr(b[:12]),
)
def test_bad_bodies_are_decode_errors_that_carry_the_body(body):
    with pytest.raises(DecodeError) as caught:
        JSON.loads(body)
    assert body == caught.value.body


def test_a_key_that_stands_twice_counts_the_last_time():
    assert JSON.loads(b'{"a":1,"a":2}') == {"a": 2}


@pytest.mark.parametrize("number", [2**53 + 1, 2**63, 2**64 - 1, -(2**63), 2**64, -(2**63) - 1, 10**40])
def test_integers_survive_exactly(number):
    assert {"n": number} == JSON.loads(JSON.dumps({"n": number}))


@dataclasses.dataclass
class Order:
    id: int
    price: float
    tags: list[str]


class Point(msgspec.Struct):
    x: float
    y: float


class Colour(enum.Enum):
    RED = "red"


class Shout(str):
    __slots__ = ()

    def __str__(self):
        return "overridden"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Order(1, 2.5, ["a"]), {"id": 1, "price": 2.5, "tags": ["a"]}),
        (Point(1.0, 2.0), {"x": 1.0, "y": 2.0}),
        ({"at": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)}, {"at": "2026-01-02T03:04:05Z"}),
        ({"day": dt.date(2026, 1, 2)}, {"day": "2026-01-02"}),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Decimal("1.10"), "1.10"),
        (Colour.RED, "red"),
        ((1, "a"), [1, "a"]),
        ({"n": np.int64(3), "x": np.float64(1.5), "b": np.bool_(True)}, {"n": 3, "x": 1.5, "b": True}),
        (np.array([1, 2]), [1, 2]),
        (Shout("quiet"), "quiet"),
    ],
)
def test_what_else_can_be_written(value, expected):
    assert expected == JSON.loads(JSON.dumps(value))
    assert [expected] == JSON.loads_many(JSON.dumps_many([value]))


@pytest.mark.parametrize(
    ("value", "where", "kind"),
    [
        ({"a": 1, "price": NAN}, "price", "float"),
        ({"price": INF}, "price", "float"),
        ({"items": [{"price": 1.0}, {"price": -INF}]}, "items[1].price", "float"),
        ({"price": np.float64("nan")}, "price", "float64"),
        ({"raw": b"x"}, "raw", "bytes"),
        ({"raw": [bytearray(b"x")]}, "raw[0]", "bytearray"),
        ({"raw": memoryview(b"x")}, "raw", "memoryview"),
        ({"raw": msgspec.Raw(b"oops")}, "raw", "Raw"),
        ({"x": np.array([1.0, NAN])}, "x[1]", "float"),
        ({"d": Decimal("NaN")}, "d", "Decimal"),
        (Order(1, NAN, []), "price", "float"),
        (Point(1.0, INF), "y", "float"),
        ({1: 2}, "key", "int"),
        ({"a": {b"k": 1}}, "a", "bytes"),
        ({"s": "\ud800"}, "s", "str"),
        ({"a": 1, "\udfff": 1}, "key", "str"),
        ({"o": object()}, "o", "object"),
        ({"c": 1j}, "c", "complex"),
        (NAN, "", "float"),
        (b"x", "", "bytes"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_name(value, where, kind):
    with pytest.raises(EncodeError) as caught:
        JSON.dumps(value)
    assert where in str(caught.value)
    assert kind in str(caught.value)
    assert caught.value.row is None
    with pytest.raises(EncodeError, match=r"^row 2: ") as caught:
        JSON.dumps_many([{"a": 1}, {"a": 2.5}, value])
    assert caught.value.row == 2
    assert where in str(caught.value)


def test_a_value_that_contains_itself_or_is_too_deep_is_refused():
    loop: list[object] = []
    loop.append(loop)
    deep: object = 1
    for _ in range(5_000):
        deep = {"a": deep}
    for value in (loop, {"x": loop}, deep):
        with pytest.raises(EncodeError, match="nested too deeply"):
            JSON.dumps(value)


def test_typed_decoding():
    typed = Json(type=Order)
    order = Order(1, 2.5, ["a"])
    assert order == typed.loads(typed.dumps(order))
    values = typed.loads_many([typed.dumps(order), b'{"id":"no"}', typed.dumps(order)])
    assert [Order, DecodeError, Order] == [type(v) for v in values]
    assert [order, order] == typed.loads_many(typed.dumps_many([order, order]))
    with pytest.raises(ConfigError):
        Json(type=3)


def test_a_serializer_travels_to_a_worker_process():
    assert pickle.loads(pickle.dumps(JSON)).loads(b'{"a":1}') == {"a": 1}
    assert Order(1, 1.0, []) == pickle.loads(pickle.dumps(Json(type=Order))).loads(b'{"id":1,"price":1,"tags":[]}')


# --- many bodies at once


@pytest.mark.parametrize(
    "bodies",
    [
        [b"[1,", b"2]", b"3 4"],
        [b'{"a":{"b":1}', b'{"c":2}}', b'{"d":3} {"e":4}'],
        [b'{"a":1}\n', b'{"b":2}'],
        [b'{"a":1}', b"", b'{"b":2}\n{"c":3}'],
        [b'{"a":1}', b'{"a"\n:1}'],
        [b'{"a":"}', b'{"}'],
        [b'{"a":1}\n{"b":1}', b"{}", b"{"],
        [b"", b""],
        [b"{}", b" {} "],
    ],
)
def test_bodies_never_run_into_one_another(bodies):
    assert_one_by_one(bodies)


poison = st.sampled_from(
    [b"", b"{", b"}", b"{}{}", b'{"a":', b"\n", b"{}\n{}", b'{"a":{}', b"{}}", b"NaN", b'"', b"\xff"]
)


@given(st.lists(st.dictionaries(text(), json_values(), max_size=2).map(JSON.dumps) | poison | st.binary(max_size=4)))
def test_a_poison_body_costs_no_good_one(bodies):
    assert_one_by_one(bodies)


@given(st.lists(st.text('{}[]",:1 \n', max_size=6).map(str.encode), max_size=6))
def test_fragments_never_run_into_one_another(bodies):
    assert_one_by_one(bodies)


@given(st.lists(st.lists(st.sampled_from([*'{}",[]:1\n \\', '"a":']), max_size=4).map("".join), min_size=2, max_size=4))
def test_what_looks_like_objects_never_runs_into_one_another(insides):
    assert_one_by_one([f"{{{inside}}}".encode() for inside in insides])


def assert_one_by_one(bodies):
    got = JSON.loads_many(bodies)
    assert len(bodies) == len(got)
    for body, value in zip(bodies, got, strict=True):
        try:
            expected = JSON.loads(body)
        except DecodeError:
            assert isinstance(value, DecodeError)
            assert body == value.body
        else:
            assert same(expected, value)


# --- blocks


def block_of(columns, length, name="r"):
    # Json reads the columns; the schema's types are for those who need them.
    return Block(Schema(name, {n: FieldType(Kind.ANY) for n in columns}), columns, 0, length)


@st.composite
def columns(draw, n, depth=2):
    kind = draw(st.sampled_from(["i", "u", "f", "b", "O", "any", "coded", "masked", "struct", "ragged"][: 7 + depth]))
    floats = st.floats(allow_nan=False, allow_infinity=False)
    if kind == "coded":
        pool = draw(st.lists(json_values(), min_size=1, max_size=4))
        return Coded(
            np.array(draw(st.lists(st.integers(0, len(pool) - 1), min_size=n, max_size=n)), np.int64), Pool(pool)
        )
    if kind == "masked":
        present = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
        return Masked(present, draw(columns(n, depth - 1)))
    if kind == "struct":
        names = draw(st.lists(text(), unique=True, max_size=3))
        return Struct({name: draw(columns(n, depth - 1)) for name in names}, n)
    if kind == "ragged":
        lengths = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        return Ragged(offsets, draw(columns(int(offsets[-1]), depth - 1)))
    cells = {
        "i": st.integers(-(2**63), 2**63 - 1),
        "u": st.integers(0, 2**64 - 1),
        "f": floats,
        "b": st.booleans(),
        "O": text(),
        "any": json_values(),
    }[kind]
    values = draw(st.lists(cells, min_size=n, max_size=n))
    if kind in "iufb":
        return np.array(values, {"i": np.int64, "u": np.uint64, "f": np.float64, "b": np.bool_}[kind])
    array = np.empty(n, object)
    for i, value in enumerate(values):
        array[i] = value
    return array


@st.composite
def blocks(draw):
    n = draw(st.integers(0, 5))
    names = draw(
        st.lists(st.sampled_from(["a", "b", 'q"', "page url", "é", "\\", "", "class"]), unique=True, max_size=4)
    )
    return block_of({name: draw(columns(n)) for name in names}, n)


@given(blocks(), st.data())
def test_a_block_is_encoded_as_its_rows(block, data):
    expected = [JSON.dumps(row) for row in block.rows()]
    assert expected == JSON.dumps_many(block)
    assert expected == JSON.dumps_many(block), "the second time, from the pools' caches"
    stop = data.draw(st.integers(0, len(block)))
    start = data.draw(st.integers(0, stop))
    assert expected[start:stop] == JSON.dumps_many(block[start:stop])


def objects(*values):
    array = np.empty(len(values), object)
    for i, value in enumerate(values):
        array[i] = value
    return array


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (np.array([1.0, 2.0, NAN]), "float"),
        (np.array([1.0, 2.0, INF], np.float32), "float"),
        (objects(1.0, None, NAN), "float"),
        (objects("a", "b", b"c"), "bytes"),
        (objects("a", "b", "\ud800"), "str"),
        (objects("a", [], [{"x": -INF}]), "float"),
        (Coded(np.array([0, 0, 1]), Pool(["a", b"b"])), "bytes"),
        (Masked(np.array([False, True, True]), np.array([NAN, 1.0, NAN])), "float"),
        (Struct({"c": np.array([1.0, 2.0, NAN])}, 3), "float"),
        (Ragged(np.array([0, 0, 1, 3]), np.array([1.0, 2.0, NAN])), "float"),
    ],
)
def test_a_block_names_the_row_and_the_field_that_cannot_be_written(column, kind):
    block = block_of({"id": np.arange(3), "bad": column}, 3)
    with pytest.raises(EncodeError, match=r"^row 2: .*bad") as caught:
        JSON.dumps_many(block)
    assert caught.value.row == 2
    assert kind in str(caught.value)
    good = [JSON.dumps(row) for row in block[:2]]
    assert good == JSON.dumps_many(block[:2]), "what the other rows hold is no fault of theirs"


def test_what_a_mask_hides_may_be_anything():
    hidden = Masked(np.array([False, True]), np.array([NAN, 1.0]))
    assert JSON.dumps_many(block_of({"x": hidden}, 2)) == [b'{"x":null}', b'{"x":1.0}']


def test_a_small_slice_of_a_huge_pool_does_not_encode_the_pool():
    pool = Pool([f"value {i}" for i in range(100_000)])
    block = block_of({"v": Coded(np.array([99_999]), pool)}, 1)
    assert JSON.dumps_many(block) == [b'{"v":"value 99999"}']
    assert pool.cache == {}


def test_bodies_are_one_a_value_even_where_somebody_wrote_a_line_end_into_one():
    values = [{"a": "x\ny"}, msgspec.Raw(b"[1,\n2]"), 3]
    assert bodies_of(values, msgspec.json.Encoder()) == [b'{"a":"x\\ny"}', b"[1,\n2]", b"3"]
    assert bodies_of([], msgspec.json.Encoder()) == []
