"""Generators from the user's types: each record is judged by the type's own library."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import io
import ipaddress
import multiprocessing
import pickle
import uuid
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Optional, TypedDict

import annotated_types as at
import fastavro
import jsonschema
import msgspec
import pydantic
import pytest
from google.protobuf import descriptor_pb2, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

import simlink
from simlink import fields
from simlink.errors import ConfigError

ROWS = 600


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Address:
    city: str
    code: Annotated[str, msgspec.Meta(pattern=r"^\d{5}$")]


@dataclasses.dataclass
class Everything:
    id: uuid.UUID
    count: int
    share: float
    open_share: Annotated[float, at.Gt(0), at.Lt(1e-5)]
    even: Annotated[int, at.Ge(-7), at.Le(9), at.MultipleOf(2)]
    colour: Colour
    at: dt.datetime
    day: dt.date
    clock: dt.time
    price: Decimal
    home: Address
    tags: list[str]
    names: Annotated[list[str], at.Len(2, 2)]
    stock: dict[str, int]
    pair: tuple[int, str]
    many: tuple[bool, ...]
    maybe: int | None
    either: int | str
    literal: Literal["x", 3]
    raw: bytes
    ok: bool
    short: Annotated[str, at.MinLen(2), at.MaxLen(3)]


class Struct(msgspec.Struct, rename="camel", tag_field="kind", tag="order"):
    order_id: int
    placed_at: dt.datetime
    half: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.0


class Typed(TypedDict):
    a: int
    b: NotRequired[str]


class Named(NamedTuple):
    x: float
    y: float | None


@pytest.mark.parametrize("kind", [Everything, Struct, Typed, Named])
def test_every_record_of_a_class_is_one_to_its_reader(kind):
    rows = simlink.from_type(kind, seed=7)[:ROWS]
    for row in rows:
        made = msgspec.convert(list(row.values()) if kind is Named else row, kind, strict=False)
        if dataclasses.is_dataclass(kind):
            assert dataclasses.asdict(made).keys() == row.keys()


def test_the_values_keep_to_what_the_class_says():
    rows = simlink.from_type(Everything, seed=7)[:4_000]
    assert {row["even"] for row in rows} == {-6, -4, -2, 0, 2, 4, 6, 8}
    assert {row["colour"] for row in rows} == {"red", "blue"}
    assert {row["literal"] for row in rows} == {"x", 3}
    assert {len(row["names"]) for row in rows} == {2}
    assert {type(row["either"]) for row in rows} == {int, str}
    assert {len(row["short"]) for row in rows} == {3}
    assert min(row["open_share"] for row in rows) > 0
    assert max(row["open_share"] for row in rows) < 1e-5
    assert 300 < sum(row["maybe"] is None for row in rows) < 500
    assert all(Decimal(row["price"]).as_tuple().exponent >= -2 for row in rows)


def test_a_struct_is_written_by_its_encoded_names_with_its_tag():
    row = simlink.from_type(Struct, seed=1)[0]
    assert list(row) == ["kind", "orderId", "placedAt", "half"]
    assert row["kind"] == "order"
    assert isinstance(msgspec.convert(row, Struct), Struct)


class Model(pydantic.BaseModel):
    even: int = pydantic.Field(gt=3, le=8, multiple_of=2, alias="Even", description="said for people")
    text: str = pydantic.Field(pattern=r"^[a-z]{1,3}@x$")
    price: Decimal = pydantic.Field(max_digits=5, decimal_places=2)
    word: Annotated[str, pydantic.StringConstraints(min_length=3, max_length=5)]
    positive: pydantic.PositiveInt
    two: pydantic.conlist(int, min_length=2, max_length=2)
    nested: list[Annotated[int, pydantic.Field(ge=1, le=2)]]
    address: ipaddress.IPv4Address
    when: Optional[pydantic.AwareDatetime] = None  # noqa: UP045 – the older way of writing it


def test_every_record_of_a_model_is_valid():
    class Plain(Model):
        when: dt.datetime | None = None

    rows = simlink.from_type(Plain, seed=7)[:ROWS]
    for row in rows:
        assert Plain.model_validate(row).even == row["Even"]
    assert {row["Even"] for row in rows} == {4, 6, 8}


def test_overrides_by_keyword_by_path_and_in_annotations():
    @dataclasses.dataclass
    class Visit:
        user: Annotated[int, fields.zipf(10)]
        home: Address
        seed: int
        anything: Any = None

    g = simlink.from_type(Visit, {"home.city": "Rome", "seed": fields.sequence()}, seed=3, anything=None)
    rows = g[:1_000]
    assert {row["home"]["city"] for row in rows} == {"Rome"}
    assert [row["seed"] for row in rows] == list(range(1_000))
    assert max(row["user"] for row in rows) < 10
    assert (g.name, g.seed) == ("Visit", 3)
    assert simlink.from_type(Visit, {"home.city": "Rome", "seed": 1}, name="v", seed=3, anything=1).name == "v"


def test_an_override_changes_no_other_field():
    plain = simlink.from_type(Everything, seed=7)[:100]
    for row, other in zip(plain, simlink.from_type(Everything, seed=7, count=1)[:100], strict=True):
        assert {**row, "count": 1} == other


def refusals():
    @dataclasses.dataclass
    class Node:
        next: Node | None

    Node.__annotations__["next"] = Node

    class Validated(pydantic.BaseModel):
        a: int

        @pydantic.field_validator("a")
        @classmethod
        def odd(cls, value):
            return value

    class Checked(pydantic.BaseModel):
        a: int

        @pydantic.model_validator(mode="after")
        def whole(self):
            return self

    @dataclasses.dataclass
    class Ordered:
        a: int
        b: int

        def __post_init__(self):
            if self.a > self.b:
                raise ValueError("a is above b")

    class Sorted(msgspec.Struct):
        a: int
        b: int
        __post_init__ = Ordered.__post_init__

    class Begun(pydantic.BaseModel):
        a: int
        b: int

        def model_post_init(self, context):
            Ordered.__post_init__(self)

    class AsArray(msgspec.Struct, array_like=True):
        a: int

    class Short(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(str_max_length=3)
        a: list[str]

    @dataclasses.dataclass
    class Taken:
        b: int
        a: dataclasses.InitVar[int]

    def one(annotation):
        return dataclasses.make_dataclass("One", [("a", annotation)])

    return [
        (Node, "holds itself"),
        (Validated, r"Validated\.a.*odd"),
        (Checked, "validator 'whole'"),
        (Ordered, r"Ordered: its __post_init__ may refuse any record: give at least one of the fields"),
        (dataclasses.make_dataclass("Outer", [("inside", Ordered)]), r"Outer\.inside: its __post_init__"),
        (Sorted, r"Sorted: its __post_init__"),
        (Begun, r"Begun: its model_post_init"),
        (AsArray, "array"),
        (Short, "str_max_length of its model_config"),
        (Taken, r"Taken\.a: the type .*InitVar.* is not supported; give"),
        (one(Any), r"One\.a: the type"),
        (one(set[int]), r"One\.a: the type set\[int\] is not supported"),
        (one(complex), "complex"),
        (one(list), "list of what"),
        (one(dict[int, str]), "names of type str"),
        (one(enum.Flag("F", "A B")), "no single values"),
        (one(Annotated[int, at.Gt(3), at.Lt(4)]), "no value keeps"),
        (one(Annotated[int, at.MultipleOf(0.5)]), "multiples of 1/2"),
        (one(Annotated[str, at.Predicate(str.isascii)]), "Predicate"),
        (one(Annotated[dt.datetime, at.Gt(3)]), "range"),
        (one(Annotated[str, msgspec.Meta(pattern="(?=a)")]), "look-ahead"),
        (one(Annotated[str, msgspec.Meta(pattern="a{5}", max_length=3)]), "5 to 5 characters"),
        (one(Annotated[dt.datetime, msgspec.Meta(tz=False)]), "tz=False"),
        (one(Annotated[str, pydantic.StringConstraints(to_upper=True)]), "to_upper"),
        (one(Annotated[int, pydantic.AfterValidator(abs)]), "AfterValidator"),
        (one(pydantic.FutureDate), "FutureDate"),
        (int, "from_type takes"),
        (Address("a", "b"), "an instance"),
        ({}, "properties"),
    ]


@pytest.mark.parametrize(("kind", "message"), refusals())
def test_what_cannot_be_honoured_is_named_and_refused(kind, message):
    with pytest.raises(ConfigError, match=message):
        simlink.from_type(kind)


def test_identifiers_that_are_asked_to_be_random_are():
    model = pydantic.create_model("Model", id=(pydantic.UUID4, ...))
    assert [model.model_validate(row).id.version for row in simlink.from_type(model, seed=1)[:50]] == [4] * 50


def test_an_instance_of_a_message_class_is_told_so():
    with pytest.raises(ConfigError, match="Timestamp is an instance: give its class"):
        simlink.from_type(timestamp_pb2.Timestamp())


def test_an_override_takes_the_place_of_what_is_refused():
    validated, checked = (kind for kind, _ in refusals()[1:3])
    assert simlink.from_type(validated, a=5)[0] == {"a": 5}
    assert simlink.from_type(checked, a=5)[0] == {"a": 5}


def test_who_gives_a_field_has_looked_at_what_checks_the_record():
    ordered, outer, kind, model = (kind for kind, _ in refusals()[3:7])
    for made, checked in ((ordered, ordered), (kind, kind), (model, model)):
        rows = simlink.from_type(made, a=fields.integer(0, 9), b=fields.integer(9, 99), seed=1)[:1000]
        assert all(msgspec.convert(row, checked).a == row["a"] for row in rows) if made is not model else True
        assert all(checked(**row).b >= 9 for row in rows)
    assert simlink.from_type(outer, {"inside.a": 0}, seed=1)[0]["inside"]["a"] == 0

    @dataclasses.dataclass
    class Annotated9(ordered):
        a: Annotated[int, fields.integer(0, 9)]

    assert 0 <= simlink.from_type(Annotated9, seed=1)[0]["a"] <= 9

    class Private(pydantic.BaseModel):
        a: int
        _secret: int = pydantic.PrivateAttr(default=1)

    assert simlink.from_type(Private, a=5)[0] == {"a": 5}
    assert isinstance(simlink.from_type(Private, seed=1)[0]["a"], int)


def test_an_override_of_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"no field 'home\.citi' to override.*home\.city"):
        simlink.from_type(Everything, {"home.citi": 1})


SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "title": "Order",
    "required": ["id"],
    "additionalProperties": False,
    "$defs": {"sku": {"type": "string", "pattern": "^SKU-[0-9]{4}$"}, "node": {"$ref": "#/$defs/sku"}},
    "properties": {
        "id": {"type": "integer", "minimum": 1, "format": "int32"},
        "sku": {"$ref": "#/$defs/node"},
        "part": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 0.5, "multipleOf": 0.25},
        "one": {"enum": ["a", 1, None]},
        "fixed": {"const": {"a": 1}},
        "when": {"type": "string", "format": "date-time"},
        "day": {"type": "string", "format": "date"},
        "time": {"type": "string", "format": "time"},
        "ip": {"type": "string", "format": "ipv4"},
        "mail": {"type": "string", "format": "email"},
        "key": {"type": "string", "format": "uuid"},
        "site": {"type": "string", "format": "uri"},
        "lines": {
            "type": "array",
            "items": {"type": "object", "properties": {"q": {"type": "integer", "multipleOf": 5, "maximum": 100}}},
            "minItems": 1,
            "maxItems": 2,
        },
        "either": {"oneOf": [{"type": "string"}, {"type": "boolean"}, {"type": "null"}]},
        "any": {"anyOf": [{"type": "integer"}, {"type": "number"}]},
        "names": {"type": "object", "additionalProperties": {"type": "integer"}},
        "all": {"allOf": [{"type": "integer"}, {"minimum": 7}]},
        "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]},
        "long": {"type": "string", "minLength": 12},
        "guessed": {"minLength": 2},
    },
}


def test_every_record_of_a_json_schema_is_valid():
    g = simlink.from_type(SCHEMA, seed=7)
    validator = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    for row in g[:ROWS]:
        validator.validate(row)
    assert (g.name, list(g.schema)) == ("Order", list(SCHEMA["properties"]))
    assert {row["part"] for row in g[:ROWS]} == {None, 0.25, 0.5}
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**g[0], "id": 0})


TAGGED = {"type": "object", "properties": {"k": {"const": "a"}}, "required": ["k"]}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"not": {"type": "string"}, "type": "string"}, r"T\.a: 'not' is not supported"),
        ({"type": "string", "format": "iban"}, "the format 'iban'"),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "uniqueItems"),
        ({"type": "array"}, "no schema"),
        ({"type": "object"}, "without properties"),
        ({"type": "object", "properties": {}, "patternProperties": {"a": {}}}, "patternProperties"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "no value keeps"),
        ({"type": "integer", "minimum": 2**31, "format": "int32"}, "reach beyond"),
        ({"type": "number", "minimum": 1e19, "multipleOf": 0.01}, r"T\.a: its limits are too far from 0"),
        ({"type": "string", "pattern": "("}, "not a regular expression"),
        ({"type": "interger"}, "not JSON's"),
        ({"$ref": "#/$defs/none"}, "names nothing"),
        ({"$ref": "other.json"}, "leaves the schema"),
        ({"$ref": "#"}, "holds itself"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "same value"),
        ({"oneOf": [{"minimum": 1}, {"type": "string"}]}, "types of their own"),
        ({"allOf": [{"minimum": 1}, {"minimum": 2}]}, "said twice"),
        ({"enum": []}, "enum of nothing"),
        ({"oneOf": [TAGGED, {"type": "object", "properties": {"z": {"type": "integer"}}}]}, "same value"),
        ({"oneOf": [TAGGED, {"properties": {"k": {"const": "a"}, "z": {}}, "required": ["k"]}]}, "same value"),
        ({"oneOf": [{"const": 3}, {"type": "integer"}]}, "same value"),
        ({"oneOf": [{"const": 3}, {"enum": [3.0, 4]}]}, "same value"),
        ({"oneOf": [{"type": ["integer", "null"]}, {"type": "null"}]}, "same value"),
        ({"oneOf": []}, r"T\.a: 'oneOf' is a list of schemas, of one at least, not \[\]"),
        ({"anyOf": {}}, "'anyOf' is a list of schemas"),
        ({"type": []}, r"'type' is the name of a type or a list, not \[\]"),
        ({"type": 5}, "'type' is the name of a type"),
        ({"type": "string", "minLength": "x"}, "'minLength' is a whole number from 0 up, not 'x'"),
        ({"type": "array", "items": {"type": "null"}, "maxItems": -1}, "'maxItems' is a whole number"),
        ({"type": "object", "properties": [1]}, "'properties' is an object"),
        ({"type": "object", "properties": {"q": {"type": "null"}}, "required": "q"}, "'required' is a list of names"),
        ({"enum": "abc"}, "'enum' is a list, not 'abc'"),
        ({"type": "string", "const": 1}, "no value of the type 'string' is among"),
        ({"$ref": "#/$defs/A"}, "#/.defs/A refers to itself and nothing else"),
        (True, "allows anything"),
        (False, "not a schema"),
        ({"description": "x"}, "no type"),
    ],
)
def test_what_a_json_schema_cannot_have_is_named(schema, message):
    loop = {"A": {"allOf": [{"$ref": "#/$defs/B"}]}, "B": {"$ref": "#/$defs/A"}}
    with pytest.raises(ConfigError, match=message):
        simlink.from_type({"title": "T", "type": "object", "properties": {"a": schema}, "$defs": loop})


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [{"enum": ["a", "b"]}, {"enum": ["c", 1]}, {"const": True}]},
        {"oneOf": [TAGGED, {"type": "object", "properties": {"m": {"type": "null"}}, "required": ["m"]}]},
        {"oneOf": [TAGGED, {"properties": {"k": {"enum": ["b", "c"]}}, "required": ["k"]}]},
        {"oneOf": [{"type": ["string", "null"]}, {"type": "integer"}]},
        {"type": "string", "enum": ["a", 1, "b"]},
        {"type": ["number", "null"], "enum": [1, 2.5, None, True, "x"]},
    ],
)
def test_what_is_listed_and_told_apart_is_valid(schema):
    whole = {"title": "T", "type": "object", "properties": {"a": schema}, "required": ["a"]}
    validator = jsonschema.Draft202012Validator(whole)
    rows = simlink.from_type(whole, seed=7)[:ROWS]
    assert [list(validator.iter_errors(row)) for row in rows] == [[]] * ROWS
    assert len({str(row["a"]) for row in rows}) > 1


def test_a_required_name_without_a_schema_is_refused():
    with pytest.raises(ConfigError, match=r"record\.b: required"):
        simlink.from_type({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["b"]})


AVRO = {
    "type": "record",
    "name": "shop.Click",
    "fields": [
        {"name": "a", "type": "int"},
        {"name": "f", "type": "float"},
        {"name": "d", "type": "double"},
        {"name": "u", "type": ["null", "string", {"type": "enum", "name": "E", "symbols": ["X", "Y"]}]},
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "fixed", "type": {"type": "fixed", "name": "F", "size": 16}},
        {"name": "m", "type": {"type": "map", "values": "double"}},
        {"name": "r", "type": {"type": "record", "name": "R", "fields": [{"name": "e", "type": "E"}]}},
        {"name": "l", "type": {"type": "array", "items": "bytes"}},
        {"name": "n", "type": "null"},
        {"name": "b", "type": "boolean"},
    ],
}


def test_every_record_of_an_avro_schema_goes_through_avro_and_back():
    stored = fastavro.parse_schema(_without_logical_types(AVRO))
    g = simlink.from_type(AVRO, seed=7)
    assert g.name == "Click"
    for row in g[:ROWS]:
        fastavro.validate(row, stored)
        file = io.BytesIO()
        fastavro.schemaless_writer(file, stored, row)
        file.seek(0)
        assert fastavro.schemaless_reader(file, stored, None) == row
        fastavro.schemaless_writer(io.BytesIO(), AVRO, row)


def _without_logical_types(schema):
    if isinstance(schema, list):
        return [_without_logical_types(s) for s in schema]
    if isinstance(schema, dict):
        return {k: _without_logical_types(v) for k, v in schema.items() if k != "logicalType"}
    return schema


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"type": "bytes", "logicalType": "decimal", "precision": 4}, "logical type 'decimal'"),
        ({"type": "enum", "name": "E", "symbols": []}, r"T\.a: an enum of nothing"),
        (["null", "T"], "holds itself"),
        ("strng", "not an Avro schema"),
    ],
)
def test_what_an_avro_schema_cannot_have_is_named(kind, message):
    with pytest.raises(ConfigError, match=message):
        simlink.from_type({"type": "record", "name": "T", "fields": [{"name": "a", "type": kind}]})


def message_class(**types):
    """A message with fields ``name=(type, label, type name)``; those named x_… are members of one oneof."""
    proto = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="own.proto",
        package="own",
        syntax="proto3",
        dependency=["google/protobuf/timestamp.proto", "google/protobuf/struct.proto"],
    )
    file.enum_type.add(name="Kind").value.add(name="NONE", number=0)
    file.enum_type[0].value.add(name="SOME", number=1)
    message = file.message_type.add(name="Own")
    if any(name.startswith("x_") for name in types):
        message.oneof_decl.add(name="choice")
    for number, (name, (kind, repeated, type_name)) in enumerate(types.items(), 1):
        number_of = getattr(proto, f"TYPE_{kind}")
        field = message.field.add(name=name, number=number, type=number_of, label=3 if repeated else 1)
        if type_name:
            field.type_name = type_name
        if name.startswith("x_"):
            field.oneof_index = 0
        if name.startswith("o_"):
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")
    entry = message.nested_type.add(name="CountsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=proto.TYPE_STRING, label=1)
    entry.field.add(name="value", number=2, type=proto.TYPE_INT32, label=1)
    pool = DescriptorPool()
    for known in (timestamp_pb2, struct_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName("own.Own"))


OWN = {
    "i": ("INT32", False, ""),
    "u": ("UINT64", False, ""),
    "f": ("FLOAT", False, ""),
    "d": ("DOUBLE", False, ""),
    "b": ("BOOL", False, ""),
    "s": ("STRING", False, ""),
    "raw": ("BYTES", False, ""),
    "kind": ("ENUM", False, "own.Kind"),
    "many": ("SINT64", True, ""),
    "at": ("MESSAGE", False, "google.protobuf.Timestamp"),
    "x_text": ("STRING", False, ""),
    "x_number": ("INT64", False, ""),
    "o_maybe": ("STRING", False, ""),
    "counts": ("MESSAGE", True, "own.Own.CountsEntry"),
}


def test_every_record_of_a_message_class_is_a_message():
    own = message_class(**OWN)
    g = simlink.from_type(own, seed=7)
    serializer = simlink.Protobuf(own)
    block = g.block(0)[:ROWS]
    oneofs = set()
    for row, body in zip(block.rows(), serializer.dumps_many(block), strict=True):
        message = serializer.loads(body)
        assert list(row) == list(OWN)
        assert [getattr(message, n) for n in ("i", "u", "f", "d", "b", "s", "raw")] == [
            row[n] for n in ("i", "u", "f", "d", "b", "s", "raw")
        ]
        assert list(message.many) == row["many"]
        assert dict(message.counts) == row["counts"]
        assert message.HasField("o_maybe") == (row["o_maybe"] is not None)
        oneofs.add(message.WhichOneof("choice"))
        assert row[message.WhichOneof("choice")] is not None
        assert message.at.ToDatetime().year == 2025
        assert message == serializer.loads(serializer.dumps(row))
    assert oneofs == {"x_text", "x_number"}


def test_a_message_that_holds_itself_is_refused():
    own = message_class(i=("INT32", False, ""), any=("MESSAGE", False, "google.protobuf.Value"))
    with pytest.raises(ConfigError, match=r"Own\.any.*holds itself"):
        simlink.from_type(own)
    assert simlink.from_type(own, any=None)[0]["any"] is None


def _digest(generator):
    return generator.digest(5_000)


def test_a_generator_from_a_type_travels_to_another_process():
    g = simlink.from_type(Everything, seed=7)
    assert pickle.loads(pickle.dumps(g)).digest(5_000) == g.digest(5_000)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(_digest, g.select("id", "share", "price", "stock", "home")).result(60) == g.select(
            "id", "share", "price", "stock", "home"
        ).digest(5_000)


NUMBERS = st.integers(-(10**6), 10**6)


@given(low=NUMBERS, high=NUMBERS, open_low=st.booleans(), multiple=st.none() | st.integers(1, 999))
def test_any_integer_limits_are_kept_or_refused(low, high, open_low, multiple):
    schema = {"type": "integer", "exclusiveMinimum" if open_low else "minimum": low, "maximum": high}
    if multiple is not None:
        schema["multipleOf"] = multiple
    step = multiple or 1
    first = low + open_low
    there = (high // step * step) >= first
    table = {"type": "object", "properties": {"a": schema}}
    if not there:
        with pytest.raises(ConfigError, match="no value keeps"):
            simlink.from_type(table)
        return
    rows = simlink.from_type(table, seed=1)[:50]
    assert all(first <= row["a"] <= high and row["a"] % step == 0 for row in rows)


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-6, 1e6), opened=st.booleans())
def test_any_real_limits_are_kept(low, width, opened):
    high = low + width
    schema = {"type": "number", "exclusiveMinimum" if opened else "minimum": low, "maximum": high}
    values = [r["a"] for r in simlink.from_type({"type": "object", "properties": {"a": schema}}, seed=1)[:50]]
    assert all((low < v if opened else low <= v) and v <= high for v in values)
