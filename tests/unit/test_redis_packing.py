"""The bytes of an append, read back as the server reads them, and entries read back into a batch."""

from __future__ import annotations

from zlib import crc32

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlink.channels.redis.entries import header_field, read_entries
from simlink.channels.redis.packing import RECORD_LIFE, append_command, choose_streams
from simlink.channels.redis.publish import publish_command
from simlink.channels.redis.scripts import APPEND
from simlink.channels.redis.starts import before, check_start
from simlink.errors import ConfigError
from simlink.message import EMPTY_HEADERS, Batch, Message, Same

KEYS = [b"orders"]


def words(packed):
    """A packed command, taken apart by another reader than ours."""
    reader = hiredis.Reader()
    reader.feed(packed)
    found = reader.gets()
    assert reader.gets() is False
    return found


def packed(batch, first=0, *, keys=KEYS, retention=None, identity=True):
    return words(
        append_command(batch, first, record=b"record", keys=keys, epoch=b"7", retention=retention, identity=identity)
    )


def appended(command):
    """What the script would append, by its own rules: (stream, fields) of each row."""
    assert command[:2] == [b"EVALSHA", APPEND.sha.encode()]
    count = int(command[2])
    streams, arguments = command[4 : 3 + count], command[3 + count :]
    rows, columns = int(arguments[2]), int(arguments[5])
    at, out = 6, []
    constants, names = [], []
    if columns:
        many = int(arguments[6])
        constants, names = arguments[7 : 7 + many], arguments[7 + many : 7 + many + columns]
        at = 7 + many + columns
    for _ in range(rows):
        stream = streams[0]
        if len(streams) > 1:
            stream, at = streams[int(arguments[at]) - 1], at + 1
        if columns:
            fields = [x for pair in zip(names, arguments[at : at + columns], strict=True) for x in pair] + constants
            at += columns
        else:
            length = int(arguments[at])
            fields, at = arguments[at + 1 : at + 1 + length], at + 1 + length
        out.append((stream, fields))
    assert at == len(arguments)
    return out


text = st.text(max_size=20)
messages = st.builds(
    Message,
    body=st.binary(max_size=50),
    key=st.none() | st.binary(max_size=20),
    headers=st.just(EMPTY_HEADERS) | st.dictionaries(text, text, min_size=1, max_size=3),
    content_type=st.none() | st.sampled_from(["application/json", "text/plain"]),
    producer=st.just(bytes(range(16))),
    sequence=st.integers(0, 2**62),
    timestamp=st.none() | st.integers(1, 2**62),
)


@given(rows=st.lists(messages, min_size=1, max_size=30), streams=st.integers(1, 3))
def test_what_is_appended_is_what_is_read(rows, streams):
    keys = [b"s%d" % i for i in range(streams)]
    found = appended(packed(Batch.of(rows), keys=keys))
    assert list(read_entries([fields for _, fields in found])) == rows
    homes = [keys[crc32(row.key) % streams if row.key is not None else row.sequence % streams] for row in rows]
    assert [stream for stream, _ in found] == homes


@pytest.mark.parametrize("n", [1, 5, 40])
@pytest.mark.parametrize("keyed", [True, False])
def test_rows_alike_travel_as_columns(n, keyed):
    batch = Batch(
        [b"%d" % i for i in range(n)],
        keys=[b"k%d" % (i % 3) for i in range(n)] if keyed else None,
        content_types=Same("application/json", n),
        producers=Same(bytes(16), n),
        sequences=range(n),
        timestamps=Same(5, n),
    )
    command = packed(batch, 9, retention=100)
    assert command[3:5] == [b"record", b"orders"]
    assert command[5:11] == [b"7", b"9", b"%d" % n, b"%d" % RECORD_LIFE, b"100", b"3" if keyed else b"2"]
    assert list(read_entries([fields for _, fields in appended(command)])) == list(batch)


def test_without_identity_nothing_of_it_travels():
    batch = Batch([b"1"], producers=Same(bytes(16), 1), sequences=range(1))
    assert appended(packed(batch, identity=False)) == [(b"orders", [b"body", b"1"])]


def test_a_row_keeps_its_stream_when_it_is_sent_again():
    batch = Batch([b""] * 6, keys=[b"a", None] * 3, producers=Same(bytes(16), 6), sequences=range(10, 16))
    assert choose_streams(batch, 0, 4) == choose_streams(batch, 77, 4)
    assert choose_streams(Batch([b""] * 4), 2, 4) == [2, 3, 0, 1]


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=10), st.text(min_size=1, max_size=10))
def test_publishing(bodies, name):
    reader = hiredis.Reader()
    reader.feed(publish_command(name.encode(), bodies))
    assert [reader.gets() for _ in bodies] == [[b"PUBLISH", name.encode(), body] for body in bodies]
    assert reader.gets() is False


# --- reading ------------------------------------------------------------------------------------------------------


def test_entries_of_different_senders_in_one_batch():
    batch = read_entries([[b"body", b"1", b"key", b"k"], [b"x", b"y"], [b"body", b"2", b"content-type", b"text/plain"]])
    assert list(batch) == [
        Message(body=b"1", key=b"k"),
        Message(body=b"", headers={"x": "y"}),
        Message(body=b"2", content_type="text/plain"),
    ]


@pytest.mark.parametrize("rows", [1, 3])
def test_fields_in_any_order_and_content_types_that_differ(rows):
    batch = read_entries([[b"content-type", b"a/%d" % i, b"body", b"%d" % i] for i in range(rows)])
    assert list(batch) == [Message(body=b"%d" % i, content_type=f"a/{i}") for i in range(rows)]


def test_an_identity_that_cannot_be_read_is_none():
    (message,) = read_entries([[b"body", b"1", b"simlink-id", b"what"]])
    assert (message.producer, message.sequence, message.timestamp) == (None, None, None)


def test_headers_that_are_no_text_show_as_escapes():
    (message,) = read_entries([[b"body", b"", b"x", b"\xff\xfe"]])
    assert dict(message.headers) == {"x": "\\xff\\xfe"}


@pytest.mark.parametrize(
    ("name", "field"),
    [("trace", b"trace"), ("body", b"header:body"), ("key", b"header:key"), ("header:a", b"header:header:a")],
)
def test_header_fields(name, field):
    assert header_field(name) == field


# --- starts -------------------------------------------------------------------------------------------------------

LAST = 2**64 - 1


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("earliest", "0"),
        ("new", "$"),
        (0, "0"),
        (5, f"4-{LAST}"),
        ("5", f"4-{LAST}"),
        ("5-0", f"4-{LAST}"),
        ("5-7", "5-6"),
        ("0-0", "0"),
        ("0-1", "0-0"),
    ],
)
def test_the_id_below_the_first_that_is_read(start, expected):
    assert before(start, end="$") == expected


@pytest.mark.parametrize("start", ["latest", "5-", "-5", -1, True, 1.5, "5-7-9"])
def test_what_is_no_start(start):
    with pytest.raises(ConfigError, match="is not 'earliest'"):
        check_start(start)
