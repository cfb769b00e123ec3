"""The frame of one message, by hand: the same as the Protobuf runtime writes and reads, or left to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlink.channels.wire import codec
from simlink.channels.wire import wire_pb2 as pb
from simlink.channels.wire.codec import HEAD, encode
from simlink.channels.wire.frames import BatchFrame, FrameError
from simlink.channels.wire.lone import read_lone, write_lone
from simlink.message import Batch, Same

numbers = st.integers(0, 2**56 - 1)
stamps = st.integers(-(2**54), 2**54)
types = st.one_of(st.none(), st.text("abc/-+.", min_size=1, max_size=100))


def framed(position, low, least, body, producer, sequence, stamp, content_type):
    batch = Batch(
        [body],
        content_types=Same(content_type, 1),
        producers=Same(producer, 1),
        sequences=range(sequence, sequence + 1),
        timestamps=Same(stamp, 1),
    )
    return BatchFrame(position, batch, low, {producer: least})


def written_by_the_runtime(frame):
    out = pb.Frame()
    codec._WRITERS[BatchFrame](frame, out)
    return out.SerializeToString()


def payload(*cells):
    return written_by_the_runtime(framed(*cells))


lone = st.builds(
    framed,
    numbers,
    numbers,
    numbers,
    st.binary(max_size=300),
    st.binary(min_size=16, max_size=16),
    numbers,
    stamps,
    types,
)
frames = st.builds(written_by_the_runtime, lone)


def by_the_runtime(data):
    wire = pb.Frame()
    wire.ParseFromString(data)
    return codec._READERS["batch"](wire)


def columns(frame):
    b = frame.batch
    return (
        *(frame.position, frame.low, frame.lows, b.bodies, b.sequences, b.nbytes),
        *map(list, (b.keys, b.headers, b.content_types, b.producers, b.timestamps)),
    )


@given(lone)
def test_what_is_written_by_hand_is_what_the_runtime_writes(frame):
    data = write_lone(frame)
    if frame.batch.timestamps[0] < 0:
        assert data is None
    else:
        assert data == written_by_the_runtime(frame)
    assert encode(frame)[HEAD.size :] == written_by_the_runtime(frame)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("bodies", [bytearray(b"a")]),
        ("keys", Same(b"k", 1)),
        ("keys", [None]),
        ("headers", Same({"h": "v"}, 1)),
        ("content_types", ["a/b"]),
        ("content_types", Same("é", 1)),
        ("content_types", Same("a" * 128, 1)),
        ("producers", [b"p" * 16]),
        ("producers", Same(b"p" * 15, 1)),
        ("producers", Same(None, 1)),
        ("sequences", [5]),
        ("sequences", range(2**56, 2**56 + 1)),
        ("timestamps", [5]),
        ("timestamps", Same(None, 1)),
        ("timestamps", Same(2**55, 1)),
    ],
)
def test_what_is_unusual_is_the_runtimes_to_write(column, value):
    frame = framed(1, 1, 1, b"a", b"p" * 16, 1, 1, "a/b")
    assert write_lone(frame) is not None
    setattr(frame.batch, column, value)
    assert write_lone(frame) is None


@pytest.mark.parametrize("place", ["position", "low", "lows", "subscriptions"])
def test_what_is_unusual_of_a_frame_is_the_runtimes_to_write(place):
    frame = framed(1, 1, 1, b"a", b"p" * 16, 1, 1, "a/b")
    values = {"lows": {b"p" * 16: 2**56}, "subscriptions": ("audit",)}
    setattr(frame, place, values.get(place, 2**56))
    assert write_lone(frame) is None


@given(frames)
def test_what_is_read_by_hand_is_what_the_runtime_reads(data):
    frame = read_lone(data)
    assert frame is not None
    assert columns(frame) == columns(by_the_runtime(data))


@given(frames, st.data())
def test_whatever_is_changed_in_it_both_still_agree(data, draw):
    at = draw.draw(st.integers(0, len(data) - 1))
    piece = draw.draw(st.binary(max_size=3))
    changed = data[:at] + piece + data[at + draw.draw(st.integers(0, 3)) :]
    frame = read_lone(changed)
    if frame is not None:
        assert columns(frame) == columns(by_the_runtime(changed))


@given(st.binary(max_size=80))
def test_garbage_is_left_to_the_runtime(data):
    frame = read_lone(data)
    if frame is not None:
        assert columns(frame) == columns(by_the_runtime(data))


@pytest.mark.parametrize(
    "batch",
    [
        Batch([]),
        Batch([b"a", b"b"], producers=Same(b"p" * 16, 2), sequences=range(2), timestamps=Same(1, 2)),
        Batch([b"a"], producers=Same(b"p" * 16, 1), sequences=range(1)),
        Batch([b"a"], timestamps=Same(1, 1)),
        Batch([b"a"], keys=[b"k"], producers=Same(b"p" * 16, 1), sequences=range(1), timestamps=Same(1, 1)),
        Batch([b"a"], headers=[{"h": "v"}], producers=Same(b"p" * 16, 1), sequences=range(1), timestamps=Same(1, 1)),
    ],
    ids=["none", "two", "no time", "no identity", "a key", "a header"],
)
def test_other_batches_are_the_runtimes(batch):
    data = encode(BatchFrame(0, batch, 0, {b"p" * 16: 0}))[HEAD.size :]
    assert read_lone(data) is None
    assert list(codec.decode(data).batch.bodies) == batch.bodies


def test_an_overlong_length_is_the_runtimes_to_refuse():
    data = payload(1, 1, 1, b"body", b"p" * 16, 1, 1, None)
    overlong = data[:1] + bytes([data[1] | 0x80, *[0x80] * 4, 0]) + data[2:]
    assert read_lone(overlong) is None
    with pytest.raises(FrameError):
        codec.decode(overlong[:-1])
