"""Heartbeats, acceptances and settlements by hand: the same as the Protobuf runtime writes and reads, or left to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlink.channels.wire import codec
from simlink.channels.wire import wire_pb2 as pb
from simlink.channels.wire.codec import HEAD, encode
from simlink.channels.wire.frames import Accept, Bye, FrameError, Heartbeat, Settle
from simlink.channels.wire.terse import read_terse, write_terse

numbers = st.one_of(st.integers(0, 300), st.integers(0, 2**56 - 1))
frames = st.one_of(
    st.builds(Heartbeat, numbers),
    st.builds(Accept, numbers, numbers, numbers),
    st.builds(Settle, numbers, st.just([]), st.just([]), numbers, numbers),
)


def written_by_the_runtime(frame):
    out = pb.Frame()
    codec._WRITERS[type(frame)](frame, out)
    return out.SerializeToString()


def read_by_the_runtime(data):
    wire = pb.Frame()
    wire.ParseFromString(data)
    kind = wire.WhichOneof("kind")
    return None if kind is None else codec._READERS[kind](wire)


@given(frames)
def test_what_is_written_and_read_by_hand_is_the_runtimes(frame):
    data = write_terse(frame)
    assert data == written_by_the_runtime(frame)
    assert read_terse(data) == frame
    assert codec.decode(encode(frame)[HEAD.size :]) == frame


@given(frames, st.data())
def test_whatever_is_changed_in_it_both_still_agree(frame, draw):
    data = write_terse(frame)
    at = draw.draw(st.integers(0, len(data) - 1))
    piece = draw.draw(st.binary(max_size=3))
    changed = data[:at] + piece + data[at + draw.draw(st.integers(0, 3)) :]
    found = read_terse(changed)
    if found is not None:
        assert found == read_by_the_runtime(changed)


@given(st.sampled_from([b"\x22", b"\x2a", b"\x4a"]), st.binary(max_size=40))
def test_garbage_is_left_to_the_runtime(tag, rest):
    for data in (tag + rest, tag + bytes([len(rest)]) + rest):
        found = read_terse(data)
        if found is not None:
            assert found == read_by_the_runtime(data)


@pytest.mark.parametrize(
    "frame",
    [
        Bye(),
        Settle(3, [(5, 7)], [], 1, 1),
        Settle(3, [], [(5, 7)], 1, 1),
        Heartbeat(2**56),
        Accept(1, 2**63 - 1, 1),
        Settle(1, [], [], 1, 2**60),
    ],
    ids=["bye", "settled runs", "rejected runs", "a high low", "a high credit", "many bytes"],
)
def test_others_are_the_runtimes(frame):
    assert write_terse(frame) is None
    data = encode(frame)[HEAD.size :]
    assert read_terse(data) is None
    assert codec.decode(data) == frame


@pytest.mark.parametrize("frame", [Heartbeat(-1), Accept(1, 2**64, 1), Settle(-5)], ids=["low", "credit", "below"])
def test_what_cannot_be_written_is_refused_as_before(frame):
    with pytest.raises(ValueError, match="range"):
        encode(frame)


def test_a_position_that_cannot_be_is_the_runtimes_to_refuse():
    data = b"\x4a\x0b\x08" + b"\xff" * 9 + b"\x01"
    assert read_terse(data) is None
    with pytest.raises(FrameError, match="beyond 2"):
        codec.decode(data)


def test_nothing_is_not_a_frame():
    assert codec.decode(b"") is None
