"""Confluent's frame around Protobuf, both ways, with a registry and without."""

from __future__ import annotations

import base64
import pickle

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, type_pb2
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

import simlink
from simlink.block import FieldType, Kind, Schema
from simlink.errors import ConfigError, ConnectError, DecodeError, EncodeError
from simlink.serializers.protobuf import Protobuf
from simlink.serializers.schema_registry import Registry, index_of, read_frame, write_frame
from tests.support.schema_registry import SchemaRegistry

ORDER = Schema("order", {"id": FieldType(Kind.INT), "user": FieldType(Kind.STR)})
ROWS = [{"id": i, "user": f"u{i}"} for i in range(3)]

IDS = st.integers(0, 2**31 - 1)
INDEXES = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=8)


@pytest.fixture
def registry():
    with SchemaRegistry() as one:
        yield one


@pytest.fixture(scope="module")
def nested():
    """The classes of a file with two messages, the second with one nested in one nested in it."""
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    file.message_type.add(name="First")
    second = file.message_type.add(name="Second")
    second.nested_type.add(name="Other")
    inner = second.nested_type.add(name="Inner").nested_type.add(name="Innermost")
    for message in (file.message_type[0], second, inner):
        message.field.add(name="n", number=1, type=descriptor_pb2.FieldDescriptorProto.TYPE_INT32, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("shop.First", "shop.Second", "shop.Second.Inner.Innermost")
    return {name: GetMessageClass(pool.FindMessageTypeByName(name)) for name in names}


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema_id", "index", "frame"),
    [
        (1, [0], "00 00000001 00"),
        (0x01020304, [0], "00 01020304 00"),
        (7, [1], "00 00000007 02 02"),  # a length of 1 and the number 1, zig-zag
        (7, [1, 0], "00 00000007 04 02 00"),  # the example of Confluent's documentation
        (7, [64, 300], "00 00000007 04 8001 d804"),
        (7, [0, 0], "00 00000007 04 00 00"),
    ],
)
def test_the_frame_is_confluents(schema_id, index, frame):
    head = bytes.fromhex(frame)

    assert write_frame(schema_id, index) == head
    assert read_frame(head + b"rest") == (schema_id, index, len(head))


@given(IDS, INDEXES, st.binary(max_size=20))
def test_what_is_written_is_read(schema_id, index, message):
    frame = write_frame(schema_id, index)

    assert read_frame(frame + message) == (schema_id, index, len(frame))


@given(st.binary(max_size=40))
def test_anything_else_is_a_frame_or_an_error(body):
    try:
        found = read_frame(body)
    except DecodeError as error:
        found = error.body
    if isinstance(found, bytes):
        assert found == body
        return
    schema_id, index, at = found
    assert (schema_id, 0 < at <= len(body)) == (int.from_bytes(body[1:5], "big"), True)
    assert min(index) >= 0


@given(IDS, INDEXES, st.data())
def test_a_frame_cut_short_is_refused(schema_id, index, data):
    frame = write_frame(schema_id, index)
    cut = data.draw(st.integers(0, len(frame) - 1))

    with pytest.raises(DecodeError, match="no Schema Registry frame"):
        read_frame(frame[:cut])


@pytest.mark.parametrize(
    "body",
    [
        b"\x01\0\0\0\1\0",
        b"\0\0\0\0\1\x7f",
        b"\0\0\0\0\1" + b"\xff" * 11,
        b"\0\0\0\0\1\x02\x01",
        b"\0\0\0\0\1\x02\x80\x80\x80\x80\x10",
        b"{}",
    ],
    ids=["magic", "negative count", "endless", "negative index", "index of 2^31", "json"],
)
def test_what_is_no_frame_is_refused(body):
    with pytest.raises(DecodeError, match="no Schema Registry frame"):
        read_frame(body)


def test_the_index_is_the_path_in_the_file(nested):
    assert [index_of(c.DESCRIPTOR) for c in nested.values()] == [[0], [1], [1, 1, 0]]


# --- with an id -------------------------------------------------------------------------------------------------------


def test_with_an_id_nothing_is_asked(nested):
    inner = nested["shop.Second.Inner.Innermost"]
    codec = Protobuf(inner, schema_id=9)
    body = codec.dumps({"n": 5})

    assert body == bytes.fromhex("00 00000009 06 02 02 00") + inner(n=5).SerializeToString()
    assert codec.loads(body) == inner(n=5)
    # Another version of the schema has another id.
    assert Protobuf(inner, schema_id=10).loads(body) == inner(n=5)
    with pytest.raises(DecodeError, match=r"not shop.First, which is at \[0\], but the message at \[1, 1, 0\]"):
        Protobuf(nested["shop.First"], schema_id=9).loads(body)


@given(IDS, st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_records_come_back_one_by_one_and_many(schema_id, numbers):
    codec = Protobuf(ORDER, schema_id=schema_id)
    rows = [{"id": n, "user": str(n)} for n in numbers]
    plain = Protobuf(ORDER)

    bodies = codec.dumps_many(rows)

    assert bodies == [codec.dumps(row) for row in rows]
    assert [body[6:] for body in bodies] == plain.dumps_many(rows)
    assert codec.loads_many(bodies) == rows == [codec.loads(body) for body in bodies]


def test_one_bad_body_costs_no_good_one():
    codec = Protobuf(ORDER, schema_id=1)
    good = codec.dumps_many(ROWS)

    found = codec.loads_many([good[0], b"\1nonsense", good[2]])

    assert [found[0], found[2]] == [ROWS[0], ROWS[2]]
    assert isinstance(found[1], DecodeError)


def test_what_cannot_be_encoded_has_its_row():
    with pytest.raises(EncodeError) as caught:
        Protobuf(ORDER, schema_id=1).dumps_many([ROWS[0], {"id": "x", "user": 1}])
    assert caught.value.row == 1


def test_a_framed_body_is_not_called_protobuf():
    assert Protobuf(ORDER, schema_id=1).content_type == "application/octet-stream"
    assert Protobuf(ORDER).content_type == "application/protobuf"


# --- with a registry --------------------------------------------------------------------------------------------------


def test_the_schema_is_registered_once_and_looked_up_once(registry):
    writer = Protobuf(ORDER, registry=registry.url, subject="orders-value")
    reader = Protobuf(ORDER, registry=registry.url)
    assert registry.asked == []

    bodies = [*writer.dumps_many(ROWS), writer.dumps(ROWS[0])]

    assert reader.loads_many(bodies) == [*ROWS, ROWS[0]]
    assert reader.loads(bodies[0]) == ROWS[0]
    assert registry.asked == ["POST /subjects/orders-value/versions", "GET /schemas/ids/1?format=serialized"]
    assert registry.subjects == {"orders-value": [1]}
    kind, schema = registry.schemas[1]
    file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(schema))
    assert (kind, [m.name for m in file.message_type]) == ("PROTOBUF", ["Order"])
    assert {body[:6] for body in bodies} == {write_frame(1, [0])}


def test_the_subject_is_the_messages_name_unless_given(registry):
    Protobuf(ORDER, registry=registry.url).dumps(ROWS[0])

    assert registry.subjects == {"simlink.generated.Order": [1]}


def test_a_schema_of_another_message_is_refused_and_a_moved_one_is_not(registry, nested):
    """Whose file declares the same message at another place is read all the same."""
    other = descriptor_pb2.FileDescriptorProto(name="moved.proto", package="shop", syntax="proto3")
    other.message_type.add(name="New")
    other.message_type.add(name="First")
    registry.schemas[1] = ("PROTOBUF", base64.b64encode(other.SerializeToString()).decode())
    codec = Protobuf(nested["shop.First"], registry=registry.url)
    message = nested["shop.First"](n=3)

    assert codec.loads(write_frame(1, [1]) + message.SerializeToString()) == message
    with pytest.raises(DecodeError, match=r"not shop.First, which is at \[0\], but shop.New"):
        codec.loads(write_frame(1, [0]) + message.SerializeToString())
    for unknown in (write_frame(1, [2]), write_frame(8, [0])):
        with pytest.raises(DecodeError, match="not known to the registry, or has no message"):
            codec.loads(unknown)


def test_a_schema_of_another_kind_has_no_message(registry):
    registry.schemas[1] = ("AVRO", '"string"')

    with pytest.raises(DecodeError, match="schema 1 is not known"):
        Protobuf(ORDER, registry=registry.url).loads(write_frame(1, [0]))


def test_a_registry_that_does_not_answer_condemns_no_message(registry):
    """A DecodeError would send good messages to the dead letters."""
    codec = Protobuf(ORDER, registry=registry.url)
    body = Protobuf(ORDER, schema_id=1).dumps(ROWS[0])
    registry.refuses = 503

    with pytest.raises(ConnectError, match="answered 503") as caught:
        codec.loads_many([body])
    assert caught.value.retryable
    with pytest.raises(ConnectError):
        codec.dumps(ROWS[0])
    with pytest.raises(ConnectError, match=r"no answer from the registry at http://127\.0\.0\.1:9:"):
        Protobuf(ORDER, registry="http://127.0.0.1:9").dumps(ROWS[0])

    registry.refuses = None
    assert codec.dumps(ROWS[0]) == body
    assert codec.loads_many([body]) == [ROWS[0]]


def test_a_schema_that_is_refused_is_a_matter_of_configuration(registry):
    registry.refuses = 409

    with pytest.raises(ConfigError, match="refused the schema"):
        Protobuf(ORDER, registry=registry.url).dumps(ROWS[0])


def test_credentials_are_sent_and_never_shown(registry):
    registry.secret = "Basic " + base64.b64encode(b"me:p@ss").decode()
    url = registry.url.replace("http://", "http://me:p%40ss@")

    assert Protobuf(ORDER, registry=url).dumps(ROWS[0])[:5] == b"\0\0\0\0\1"
    assert repr(Registry(url)) == f"Registry({registry.url})"
    with pytest.raises(ConnectError) as caught:
        Protobuf(ORDER, registry=url.replace("p%40ss", "wr0ng")).dumps(ROWS[0])
    assert "wr0ng" not in f"{caught.value} {caught.value.url}"


def test_it_travels_to_a_worker_process(registry):
    codec = pickle.loads(pickle.dumps(Protobuf(ORDER, registry=registry.url, subject="s")))

    assert codec.loads(codec.dumps(ROWS[0])) == ROWS[0]
    assert registry.subjects == {"s": [1]}


def test_through_a_channel(registry, request):
    codec = Protobuf(ORDER, registry=registry.url)
    with simlink.queue(f"memory://{request.node.name}", serializer=codec) as orders, orders.receiver() as rx:
        orders.send_many(ROWS)

        assert rx.take(3) == ROWS


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"subject": "s"}, "goes with registry="),
        ({"schema_id": -1}, "a schema id is"),
        ({"schema_id": 2**31}, "a schema id is"),
        ({"schema_id": 1, "subject": "s", "registry": "http://h"}, "give one of them"),
        ({"registry": "kafka://h"}, "http:// or https://"),
        ({"registry": "http://"}, "http:// or https://"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(options, says):
    with pytest.raises(ConfigError, match=says):
        Protobuf(ORDER, **options)


def test_imports_that_a_registry_does_not_know_are_refused():
    # type.proto imports only what is built in.
    assert Protobuf(type_pb2.Type, registry="http://h") is not None
    file = descriptor_pb2.FileDescriptorProto(name="b.proto", dependency=["a.proto"])
    file.message_type.add(name="B")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptor_pb2.FileDescriptorProto(name="a.proto"))
    pool.Add(file)

    with pytest.raises(ConfigError, match=r"b.proto imports 'a.proto'"):
        Protobuf(GetMessageClass(pool.FindMessageTypeByName("B")), registry="http://h")
