"""Protobuf: derived messages give back the record that was sent, and other languages read the same file."""

from __future__ import annotations

import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, struct_pb2, timestamp_pb2, type_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink.block import Block, Coded, FieldType, Kind, Masked, Pool, Ragged, Schema, Struct
from simlink.errors import CodecError, ConfigError, DecodeError, EncodeError, NotSupported
from simlink.serializers.protobuf import Protobuf

INT, UINT, FLOAT, BOOL, STR, BYTES, RECORD, LIST, ANY = Kind

I64 = st.integers(-(2**63), 2**63 - 1)
U64 = st.integers(0, 2**64 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
CELLS = {
    INT: I64,
    UINT: U64,
    FLOAT: st.floats(allow_nan=False),
    BOOL: st.booleans(),
    STR: TEXT,
    BYTES: st.binary(max_size=8),
}
# Names that a compiler, Python or a message's own methods might trip over.
NAMES = [
    "a",
    "b",
    "_c",
    "message",
    "optional",
    "repeated",
    "oneof",
    "class",
    "from",
    "None",
    "string",
    "DESCRIPTOR",
    "SerializeToString",
    "HasField",
    "A",
    "ARecord",
    "_a",
    "X_a",
    "AList",
    "AItem",
    "__class__",
    "m",
    "self",
    "reserved",
]


def same(a, b):
    return a == b and repr(a) == repr(b)


@st.composite
def types(draw, depth=2):
    kind = draw(st.sampled_from([*CELLS, *([RECORD, LIST] if depth else [])]))
    optional = draw(st.booleans())
    if kind is RECORD:
        return FieldType(RECORD, optional, fields=draw(schemas(depth - 1)))
    if kind is LIST:
        return FieldType(LIST, optional, item=draw(types(depth - 1)))
    return FieldType(kind, optional)


@st.composite
def schemas(draw, depth=2):
    names = draw(st.lists(st.sampled_from(NAMES), unique_by=lambda n: n.strip("_").lower(), max_size=5))
    return Schema("page view", {name: draw(types(depth)) for name in names})


def values_of(kind):
    if kind.kind is RECORD:
        values = records_of(kind.fields)
    elif kind.kind is LIST:
        values = st.lists(values_of(kind.item), max_size=3)
    else:
        values = CELLS[kind.kind]
    return st.none() | values if kind.optional else values


def records_of(schema):
    return st.tuples(*map(values_of, schema.fields.values())).map(lambda cells: dict(zip(schema, cells, strict=True)))


def objects(values):
    array = np.empty(len(values), object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def column_of(draw, kind, values):
    """One of the columns that a generator may make of these values."""
    if draw(st.integers(0, 3)) == 0:
        return objects(values)
    if kind.optional:
        present = np.array([v is not None for v in values], bool)
        filler = draw(values_of(FieldType(kind.kind, fields=kind.fields, item=kind.item)))
        filled = [filler if v is None else v for v in values]
        return Masked(present, column_of(draw, FieldType(kind.kind, fields=kind.fields, item=kind.item), filled))
    if kind.kind is RECORD:
        return Struct(
            {n: column_of(draw, t, [v[n] for v in values]) for n, t in kind.fields.fields.items()}, len(values)
        )
    if kind.kind is LIST:
        offsets = np.concatenate(([0], np.cumsum([len(v) for v in values]))).astype(np.int64)
        return Ragged(offsets, column_of(draw, kind.item, [x for v in values for x in v]))
    if values and draw(st.booleans()):
        return Coded(np.arange(len(values)), Pool(values))
    dtypes = {INT: np.int64, UINT: np.uint64, FLOAT: np.float64, BOOL: np.bool_}
    return np.array(values, dtypes[kind.kind]) if kind.kind in dtypes else objects(values)


@st.composite
def blocks(draw):
    schema = draw(schemas())
    rows = draw(st.lists(records_of(schema), max_size=4))
    columns = {n: column_of(draw, t, [row[n] for row in rows]) for n, t in schema.fields.items()}
    return Block(schema, columns, 0, len(rows)), rows


@given(st.data())
def test_a_derived_message_gives_back_the_record(data):
    schema = data.draw(schemas())
    record = data.draw(records_of(schema))
    codec = Protobuf(schema)
    assert same(record, codec.loads(codec.dumps(record)))


@settings(max_examples=200)
@given(blocks())
def test_a_block_is_encoded_as_its_rows_and_comes_back(made):
    block, rows = made
    codec = Protobuf(block.schema)
    expected = [codec.dumps(row) for row in rows]
    assert expected == codec.dumps_many(block)
    assert expected == codec.dumps_many(rows)
    assert expected[1:] == codec.dumps_many(block[1:])
    assert same(rows, codec.loads_many(expected))


def compiled(text, tmp_path):
    """The file as protoc understands it."""
    from grpc_tools import protoc

    (tmp_path / "record.proto").write_text(text)
    out = tmp_path / "record.desc"
    status = protoc.main(["protoc", f"-I{tmp_path}", f"--descriptor_set_out={out}", str(tmp_path / "record.proto")])
    assert status == 0, text
    return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]


def without_json_names(message):
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        without_json_names(nested)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_written_text_means_the_same_message_to_protoc(tmp_path_factory, data):
    schema = data.draw(schemas())
    codec = Protobuf(schema)
    file = compiled(codec.proto_text(), tmp_path_factory.mktemp("proto"))
    expected = codec._file.message_type[0]
    for message in file.message_type:
        without_json_names(message)
    assert [expected] == list(file.message_type)
    assert codec._file.package == file.package
    # An independent class, built from what protoc read, takes the bytes apart and puts them together again.
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    theirs = GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{expected.name}"))
    record = data.draw(records_of(schema))
    body = theirs.SerializeToString(theirs.FromString(codec.dumps(record)))
    assert same(record, codec.loads(body))


ADDRESS = Schema("address", {"city": FieldType(STR), "zip": FieldType(INT, optional=True)})
ORDER = Schema(
    "shop order",
    {
        "order_id": FieldType(INT),
        "big": FieldType(UINT),
        "price": FieldType(FLOAT, optional=True),
        "paid": FieldType(BOOL),
        "note": FieldType(STR),
        "raw": FieldType(BYTES),
        "tags": FieldType(LIST, item=FieldType(STR)),
        "address": FieldType(RECORD, fields=ADDRESS),
        "lines": FieldType(LIST, item=FieldType(RECORD, fields=ADDRESS)),
        "matrix": FieldType(LIST, item=FieldType(LIST, item=FieldType(FLOAT))),
        "maybe": FieldType(LIST, optional=True, item=FieldType(INT)),
    },
)
ORDERED = {
    "order_id": 2**53 + 1,
    "big": 2**64 - 1,
    "price": None,
    "paid": True,
    "note": "é\n",
    "raw": b"\x00\xff",
    "tags": ["a", ""],
    "address": {"city": "", "zip": None},
    "lines": [{"city": "x", "zip": 0}],
    "matrix": [[1.5], []],
    "maybe": [],
}
TEXT_OF_ORDER = """\
// Written by simlink from the fields of a record.
// A field's number is its position: put new fields at the end, and never reuse a number.
syntax = "proto3";

package simlink.generated;

message ShopOrder {
  message Address {
    string city = 1;
    optional int64 zip = 2;
  }
  message Lines {
    string city = 1;
    optional int64 zip = 2;
  }
  message MatrixItem {
    repeated double value = 1;
  }
  message MaybeList {
    repeated int64 values = 1;
  }
  int64 order_id = 1;
  uint64 big = 2;
  optional double price = 3;
  bool paid = 4;
  string note = 5;
  bytes raw = 6;
  repeated string tags = 7;
  Address address = 8;
  repeated Lines lines = 9;
  repeated MatrixItem matrix = 10;
  optional MaybeList maybe = 11;
}
"""


def test_the_text_that_other_languages_get():
    assert Protobuf(ORDER).proto_text() == TEXT_OF_ORDER
    theirs = Protobuf.derive(ORDER, package="shop.events", name="Order")
    assert "package shop.events;\n\nmessage Order {\n" in theirs.proto_text()
    assert theirs.message_class.DESCRIPTOR.full_name == "shop.events.Order"


def test_a_program_generated_by_protoc_reads_what_was_sent_and_answers(tmp_path):
    codec = Protobuf(ORDER)
    (tmp_path / "order.proto").write_text(codec.proto_text())
    (tmp_path / "body").write_bytes(codec.dumps(ORDERED))
    build = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", "order.proto"]
    subprocess.run(build, cwd=tmp_path, check=True, timeout=60)
    program = (
        "import order_pb2\n"
        "m = order_pb2.ShopOrder.FromString(open('body', 'rb').read())\n"
        "assert not m.HasField('price') and m.order_id == 2**53 + 1, m\n"
        "m.price = 9.5\n"
        "open('answer', 'wb').write(m.SerializeToString())\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)
    assert codec.loads((tmp_path / "answer").read_bytes()) == {**ORDERED, "price": 9.5}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("order_id", 1.0, "order_id: expected int, not float"),
        ("order_id", True, "order_id: expected int, not bool"),
        ("order_id", 2**63, "order_id: 9223372036854775808 (int) does not fit"),
        ("order_id", None, "order_id: None, and the field is not optional"),
        ("big", -1, "big: -1 (int) does not fit"),
        ("price", 2**53 + 1, "price: 9007199254740993 (int) is not exactly a double"),
        ("price", 10**400, "is not exactly a double"),
        ("price", "1", "price: expected float, not str"),
        ("paid", 1, "paid: expected bool, not int"),
        ("note", b"x", "note: expected str, not bytes"),
        ("note", "\ud800", "note: str cannot be written as UTF-8"),
        ("raw", "x", "raw: expected bytes, not str"),
        ("tags", "abc", "tags: expected a list, not str"),
        ("tags", ["a", None], "tags[1]: None, and the field is not optional"),
        ("address", None, "address: a record is a dict, not NoneType"),
        ("address", {"city": "x"}, "address: the record has no field 'zip'"),
        ("lines", [{"city": "x", "zip": None, "oops": 1}], "lines[0]: the record has an unknown field 'oops'"),
        ("matrix", [[1.0], ["x"]], "matrix[1][0]: expected float, not str"),
        ("maybe", [None], "maybe[0]: None, and the field is not optional"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(field, value, says):
    codec = Protobuf(ORDER)
    bad = {**ORDERED, field: value}
    with pytest.raises(EncodeError) as caught:
        codec.dumps(bad)
    assert says in str(caught.value)
    with pytest.raises(EncodeError, match=r"^row 1: ") as caught:
        codec.dumps_many([ORDERED, bad, ORDERED])
    assert caught.value.row == 1
    assert says in str(caught.value)
    columns = {name: objects([ORDERED[name], bad[name]]) for name in ORDERED}
    with pytest.raises(EncodeError, match=r"^row 1: ") as caught:
        codec.dumps_many(Block(ORDER, columns, 0, 2))
    assert says in str(caught.value)


def test_a_block_whose_columns_are_of_another_type_than_declared_is_refused():
    schema = Schema("r", {"n": FieldType(INT)})
    codec = Protobuf(schema)
    for column, says in (
        (np.array([1.0, 2.0]), "n: expected int, not float"),
        (np.array([True, False]), "n: expected int, not bool"),
        (np.array([2**63], np.uint64), "does not fit"),
        (Masked(np.array([False]), np.array([1])), "n: None"),
        (Coded(np.array([0]), Pool(["x"])), "n: expected int, not str"),
        (Struct({"n": np.array([1])}, 1), "n: expected int, not dict"),
    ):
        with pytest.raises(EncodeError) as caught:
            codec.dumps_many(Block(schema, {"n": column}, 0, len(column)))
        assert says in str(caught.value)
        assert caught.value.row == 0
    with pytest.raises(EncodeError, match="no field 'n'"):
        codec.dumps_many(Block(schema, {"other": np.array([1])}, 0, 1))


def test_whole_numbers_and_numpy_scalars_are_taken_where_nothing_is_lost():
    codec = Protobuf(Schema("r", {"x": FieldType(FLOAT), "n": FieldType(INT)}))
    assert codec.loads(codec.dumps({"x": 3, "n": np.int64(4)})) == {"x": 3.0, "n": 4}
    assert codec.loads(codec.dumps({"x": np.float64(0.1), "n": 4})) == {"x": 0.1, "n": 4}
    bodies = codec.dumps_many(Block(Schema("r"), {"x": np.array([1, 2]), "n": np.array([3, 4], np.uint64)}, 0, 2))
    assert codec.loads_many(bodies) == [{"x": 1.0, "n": 3}, {"x": 2.0, "n": 4}]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"a": FieldType(ANY)}, "a may hold anything"),
        ({"a": FieldType(RECORD, fields=Schema("x", {"b": FieldType(LIST, item=FieldType(ANY))}))}, r"a\.b\[\]"),
        ({"a": FieldType(RECORD)}, "a: a record whose fields"),
        ({"a": FieldType(LIST)}, "a: a list whose elements"),
        ({"page url": FieldType(INT)}, "'page url' cannot be a field name"),
        ({"é": FieldType(INT)}, "'é' cannot be a field name"),
        ({"a\n": FieldType(INT)}, "cannot be a field name"),
        ({"foo_bar": FieldType(INT), "fooBar": FieldType(INT)}, "'foo_bar' and 'fooBar' differ in underscores only"),
    ],
)
def test_a_field_without_a_protobuf_form_is_refused_by_name(fields, says):
    with pytest.raises(ConfigError, match=says):
        Protobuf(Schema("r", fields))


def test_what_cannot_be_a_message_is_refused():
    for wrong in (None, int, 3, "Order", SimpleNamespace(schema=None)):
        with pytest.raises(ConfigError, match="needs a compiled message class, or a record"):
            Protobuf(wrong)
    with pytest.raises(ConfigError, match="not a package"):
        Protobuf(ORDER, package="a..b")
    with pytest.raises(ConfigError, match="not a message name"):
        Protobuf(ORDER, name="a b")
    with pytest.raises(ConfigError, match="those of the class"):
        Protobuf(timestamp_pb2.Timestamp, name="T")
    with pytest.raises(ConfigError, match="not the class"):
        Protobuf.derive(timestamp_pb2.Timestamp)


def test_a_generator_stands_for_its_schema_and_the_serializer_travels_to_a_worker_process():
    codec = Protobuf(SimpleNamespace(schema=ORDER))
    body = codec.dumps(ORDERED)
    assert pickle.loads(pickle.dumps(codec)).loads(body) == ORDERED
    assert body == codec.dumps(codec.message_class.FromString(body))
    assert repr(codec) == "Protobuf(simlink.generated.ShopOrder)"


def test_a_record_without_fields():
    codec = Protobuf(Schema("empty"))
    assert codec.dumps_many(Block(Schema("empty"), {}, 0, 2)) == [b"", b""]
    assert codec.loads_many([b"", b""]) == [{}, {}]
    assert codec.dumps_many([{}, {}]) == [b"", b""]


@given(st.binary(max_size=40))
def test_arbitrary_bytes_give_a_record_or_a_decode_error(body):
    codec = Protobuf(ORDER)
    got = codec.loads_many([codec.dumps(ORDERED), body, codec.dumps(ORDERED)])
    assert ORDERED == got[0] == got[2]
    caught = None
    try:
        value = codec.loads(body)
    except CodecError as error:
        caught = error
    if caught is None:
        assert same(value, got[1])
        return
    assert [DecodeError, DecodeError] == [type(caught), type(got[1])]
    assert body == caught.body == got[1].body


def test_a_body_nested_too_deeply_is_a_decode_error():
    # Value.list_value.values[0] and so on: a hostile peer nests as deep as it likes.
    hostile = b""
    for _ in range(200):
        hostile = b"\x0a" + _varint(len(hostile)) + hostile
        hostile = b"\x32" + _varint(len(hostile)) + hostile
    with pytest.raises(DecodeError):
        Protobuf(struct_pb2.Value).loads(hostile)


def _varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


# --- compiled classes


def test_a_compiled_class_takes_its_messages_and_dicts():
    codec = Protobuf(timestamp_pb2.Timestamp)
    message = timestamp_pb2.Timestamp(seconds=5, nanos=7)
    assert message == codec.loads(codec.dumps(message))
    assert message == codec.loads(codec.dumps({"seconds": 5, "nanos": 7}))
    assert message.SerializeToString() == codec.dumps(message)
    assert codec.content_type == "application/protobuf"
    with pytest.raises(NotSupported, match=r"compiled from google/protobuf/timestamp\.proto"):
        codec.proto_text()


def test_a_compiled_class_takes_nested_dicts_lists_and_enum_labels():
    codec = Protobuf(type_pb2.Field)
    record = {"kind": "TYPE_INT64", "number": 3, "name": "n", "options": [{"name": "o"}], "json_name": None}
    message = codec.loads(codec.dumps(record))
    got = [message.kind, message.number, message.name, message.options[0].name, message.json_name]
    assert got == [3, 3, "n", "o", ""]


def test_a_block_goes_through_a_compiled_class():
    codec = Protobuf(type_pb2.Field)
    columns = {
        "name": Coded(np.array([1, 0, 1]), Pool(["x", "y"])),
        "number": np.array([1, 2, 3]),
        "packed": Masked(np.array([True, False, True]), np.array([True, True, False])),
        "kind": objects(["TYPE_BOOL", "TYPE_INT64", None]),
        "options": Ragged(np.array([0, 1, 1, 2]), Struct({"name": objects(["a", "b"])}, 2)),
    }
    block = Block(Schema("f"), columns, 0, 3)
    bodies = codec.dumps_many(block)
    assert [codec.dumps(row) for row in block.rows()] == bodies
    assert [type_pb2.Field(**row) for row in block.rows()] == codec.loads_many(bodies)
    assert codec.dumps_many(Block(Schema("f"), {}, 0, 2)) == [b"", b""]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"seconds": "x"}, "seconds: str cannot be written"),
        ({"seconds": 1, "nanos": 2**40}, "nanos: int cannot be written"),
        ({"secnds": 1}, "secnds"),
        ({1: 2}, "1: int cannot be written"),
        ([1], "or a dict, not list"),
        (None, "or a dict, not NoneType"),
        (struct_pb2.Value(), "not google.protobuf.Value"),
    ],
)
def test_what_a_compiled_class_does_not_take_is_refused_by_name(value, says):
    codec = Protobuf(timestamp_pb2.Timestamp)
    with pytest.raises(EncodeError) as caught:
        codec.dumps(value)
    assert says in str(caught.value)
    with pytest.raises(EncodeError) as caught:
        codec.dumps_many([{"seconds": 1}, value])
    assert caught.value.row == 1


def test_a_block_that_does_not_fit_the_class_names_row_and_field():
    codec = Protobuf(timestamp_pb2.Timestamp)
    for column, name in ((np.array([1, 2**40]), "nanos"), (objects([1, "x"]), "seconds")):
        with pytest.raises(EncodeError, match=rf"^row 1: {name}") as caught:
            codec.dumps_many(Block(Schema("t"), {name: column}, 0, 2))
        assert caught.value.row == 1
    with pytest.raises(EncodeError, match="secs"):
        codec.dumps_many(Block(Schema("t"), {"secs": np.array([1])}, 0, 1))


def test_required_fields_are_checked_both_ways():
    codec = Protobuf(descriptor_pb2.UninterpretedOption.NamePart)
    good = codec.dumps({"name_part": "a", "is_extension": True})
    with pytest.raises(EncodeError, match="required"):
        codec.dumps({"name_part": "a"})
    with pytest.raises(DecodeError, match="required"):
        codec.loads(b"")
    values = codec.loads_many([good, b"", good])
    assert [values[0].name_part, values[1].body, values[2].name_part] == ["a", b"", "a"]


def test_maps_are_written_in_one_order():
    codec = Protobuf(struct_pb2.Struct)
    names = [f"k{i}" for i in range(50)]
    one, other = struct_pb2.Struct(), struct_pb2.Struct()
    for name in names:
        one[name] = 1
    for name in reversed(names):
        other[name] = 1
    assert codec.dumps(one) == codec.dumps(other)
    assert one == codec.loads(codec.dumps(one))
