"""Little that comes is read without the buffer: the frames are the same, however they were cut."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink.channels.tcp.connection import Connection
from simlink.channels.tcp.unread import Unread
from simlink.channels.wire.codec import decode, encode
from simlink.channels.wire.frames import Accept, BatchFrame, Bye, FrameError, Heartbeat
from simlink.channels.wire.framing import FrameReader
from simlink.message import Batch

frames = st.one_of(
    st.builds(Heartbeat, st.integers(0, 1000)),
    st.builds(Accept, *[st.integers(0, 1000)] * 3),
    st.just(Bye()),
    st.builds(lambda n: BatchFrame(0, Batch([b"x" * n])), st.sampled_from([0, 100, 4000, 4096, 9000])),
)


def drained(reader, out=None):
    out = [] if out is None else out
    while (frame := reader.next_frame()) is not None:
        out.append(frame)
    return out


@given(st.lists(frames, max_size=8), st.binary(max_size=9), st.data())
def test_whole_frames_need_no_buffer_and_the_rest_is_fed(sent, rest, data):
    stream = b"".join(map(encode, sent)) + rest
    cut = data.draw(st.integers(0, len(stream)))
    beside, through = FrameReader(20_000), FrameReader(20_000)
    through.feed(stream[:cut])
    payloads = beside.payloads(stream[:cut])
    taken = [frame for payload in payloads if (frame := decode(payload)) is not None]
    assert beside.pending == cut - sum(5 + len(payload) for payload in payloads)
    for reader in (beside, through):
        reader.feed(stream[cut:])
    ends = []
    for reader, out in ((beside, taken), (through, [])):
        error = None
        try:
            drained(reader, out)
        except FrameError as caught:
            error = str(caught)
        ends.append((list(map(encode, out)), error, reader.pending))
    assert ends[0] == ends[1]


@pytest.fixture
def pair():
    here, there = socket.socketpair()
    here.setblocking(False)
    with here, there:
        yield here, there


def heard(connection):
    assert connection.receive(0.0)
    return drained(connection)


@settings(deadline=None)
@given(st.lists(frames, max_size=8), st.data())
def test_a_connection_has_the_same_frames_however_they_were_cut(sent, data):
    stream = b"".join(map(encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    here, there = socket.socketpair()
    here.setblocking(False)
    with here, there:
        connection = Connection(here, "peer", 0.0, 20_000, Unread(1 << 20, 30.0))
        got = []
        for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            there.sendall(stream[a:b])
            while b > a:
                before = len(got), connection.reader.pending
                got += heard(connection)
                if (len(got), connection.reader.pending) == before:
                    break
        assert list(map(encode, got)) == list(map(encode, sent))
        assert not connection.pending


def test_a_peer_that_has_closed_is_told_of_after_what_it_said(pair):
    here, there = pair
    connection = Connection(here, "peer", 0.0, 20_000, Unread(1 << 20, 30.0))
    for said in (Heartbeat(1), Heartbeat(2)):
        there.sendall(encode(said))
        assert heard(connection) == [said]
    there.sendall(encode(Heartbeat(3)))
    there.close()
    assert heard(connection) == [Heartbeat(3)]
    assert not connection.receive(0.0)


def test_frames_before_a_bad_one_are_taken(pair):
    here, there = pair
    connection = Connection(here, "peer", 0.0, 20_000, Unread(1 << 20, 30.0))
    there.sendall(encode(Heartbeat(1)))
    assert heard(connection) == [Heartbeat(1)]
    there.sendall(encode(Heartbeat(2)) + encode(Heartbeat(3)) + b"\xff" * 10)
    assert connection.receive(0.0)
    assert [connection.next_frame(), connection.next_frame()] == [Heartbeat(2), Heartbeat(3)]
    with pytest.raises(FrameError):
        connection.next_frame()


def test_nothing_is_taken_behind_a_goodbye(pair):
    here, there = pair
    connection = Connection(here, "peer", 0.0, 20_000, Unread(1 << 20, 30.0))
    there.sendall(encode(Heartbeat(1)))
    assert heard(connection) == [Heartbeat(1)]
    there.sendall(encode(Heartbeat(2)) + encode(Heartbeat(3)))
    assert connection.receive(0.0)
    assert connection.next_frame() == Heartbeat(2)
    assert connection.pending
    connection.say_goodbye(None, "", 0.0)
    assert not connection.pending
    assert connection.next_frame() is None
