"""Text, Bytes, the default loops, and finding a serializer by name or content type."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from google.protobuf import timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

import simlink.serializers as room
from simlink.block import Block, FieldType, Kind, Schema
from simlink.errors import ConfigError, DecodeError, EncodeError
from simlink.serializers import Bytes, Json, Protobuf, Serializer, Text, serializer_for, serializer_for_content_type

RECORD = Schema("r", {"n": FieldType(Kind.INT)})
BLOCK = Block(RECORD, {"n": np.arange(2)}, 0, 2)
LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))


@given(st.lists(LINES))
def test_lines_come_back_as_they_were(lines):
    bodies = Text().dumps_many(lines)
    assert bodies == [line.encode() for line in lines]
    assert lines == Text().loads_many(bodies)


@given(st.lists(st.binary()))
def test_bytes_pass_as_they_are(bodies):
    assert bodies == Bytes().dumps_many(bodies) == Bytes().loads_many(bodies)


def test_bytes_takes_other_buffers_and_makes_bytes_of_them():
    got = Bytes().dumps_many([bytearray(b"a"), memoryview(b"b"), b"c"])
    assert got == [b"a", b"b", b"c"]
    assert set(map(type, got)) == {bytes}


@pytest.mark.parametrize(
    ("serializer", "good", "bad", "says"),
    [
        (Text(), "a", "a\nb", "line break"),
        (Text(), "a", "a\r", "line break"),
        (Text(), "a", b"a", "not bytes"),
        (Text(), "a", {"n": 1}, "not dict"),
        (Text(), "a", "\ud800", "UTF-8"),
        (Bytes(), b"a", "a", "not str"),
        (Bytes(), b"a", {"n": 1}, "not dict"),
        (Bytes(), b"a", 5, "not int"),
    ],
)
def test_what_is_refused_is_named_with_its_row(serializer, good, bad, says):
    with pytest.raises(EncodeError, match=says) as caught:
        serializer.dumps(bad)
    assert caught.value.row is None
    with pytest.raises(EncodeError, match=rf"^row 1: .*{says}") as caught:
        serializer.dumps_many([good, bad])
    assert caught.value.row == 1


@pytest.mark.parametrize("serializer", [Text(), Bytes()])
def test_records_are_refused_where_there_is_no_place_for_fields(serializer):
    with pytest.raises(EncodeError, match="use Json") as caught:
        serializer.dumps_many(BLOCK)
    assert caught.value.row == 0
    assert serializer.dumps_many(BLOCK[0:0]) == []


def test_a_body_that_is_not_text_costs_no_good_one():
    values = Text().loads_many([b"a", b"\xff", "é".encode(), b"with\nnewline"])
    assert [values[0], *values[2:]] == ["a", "é", "with\nnewline"]
    assert isinstance(values[1], DecodeError)
    assert values[1].body == b"\xff"


class Doubling(Serializer):
    def dumps(self, value):
        if not isinstance(value, dict):
            raise EncodeError("no dict")
        return b"%d" % (2 * value["n"])

    def loads(self, body):
        try:
            return {"n": int(body) // 2}
        except ValueError as error:
            raise DecodeError("no number", body=body) from error


def test_a_serializer_of_ones_own_needs_only_two_methods():
    assert Doubling().dumps_many(BLOCK) == [b"0", b"2"]
    values = Doubling().loads_many([b"4", b"x", b"6"])
    assert [values[0], values[2]] == [{"n": 2}, {"n": 3}]
    assert values[1].body == b"x"
    with pytest.raises(EncodeError, match="row 1: no dict") as caught:
        Doubling().dumps_many([{"n": 1}, None])
    assert caught.value.row == 1


@pytest.mark.parametrize(
    ("name", "kind"), [("json", Json), ("JSON", Json), ("text", Text), ("bytes", Bytes), ("protobuf", Protobuf)]
)
def test_a_serializer_by_name(name, kind):
    assert type(serializer_for(name, RECORD)) is kind


def test_a_serializer_by_object():
    given_one = Json()
    assert given_one is serializer_for(given_one)
    assert type(serializer_for(Text)) is Text
    assert serializer_for(timestamp_pb2.Timestamp).message_class is timestamp_pb2.Timestamp
    assert serializer_for("protobuf", RECORD).loads(serializer_for("protobuf", RECORD).dumps({"n": 5})) == {"n": 5}


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("jsn", "did you mean 'json'"),
        ("protobuff", "did you mean 'protobuf'"),
        ("zzz", "known: json, protobuf, text, bytes"),
        ("protobuf", "without knowing the fields"),
        (Protobuf, "make it first"),
        (5, "not int"),
        (None, "not NoneType"),
        (dict, "not type"),
    ],
)
def test_what_is_no_serializer_is_refused(what, says):
    with pytest.raises(ConfigError, match=says):
        serializer_for(what)


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/json", Json),
        ("Application/JSON; charset=utf-8", Json),
        ("application/cloudevents+json", Json),
        ("application/protobuf", Protobuf),
        ("application/x-protobuf", Protobuf),
        ("text/plain; charset=utf-8", Text),
        ("text/csv", Text),
        ("application/octet-stream", Bytes),
        ("image/png", type(None)),
        ("", type(None)),
        (None, type(None)),
    ],
)
def test_a_serializer_by_content_type(content_type, kind):
    assert type(serializer_for_content_type(content_type, RECORD)) is kind


@pytest.mark.parametrize("serializer", [Json(), Text(), Bytes(), Protobuf(RECORD)])
def test_every_serializer_is_found_by_its_own_content_type(serializer):
    assert type(serializer_for_content_type(serializer.content_type, RECORD)) is type(serializer)


def test_a_protobuf_body_of_unknown_type_has_no_reader():
    assert serializer_for_content_type("application/protobuf") is None


def test_the_room_loads_nothing_until_it_is_asked():
    program = (
        "import sys, simlink.serializers as s\n"
        "heavy = {'numpy', 'msgspec', 'google.protobuf'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "s.Json\n"
        "assert 'google.protobuf' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert set(room.__all__) <= set(dir(room))
    with pytest.raises(AttributeError, match="Jsom"):
        room.Jsom  # noqa: B018
