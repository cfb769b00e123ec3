"""The wire codec: what is written is read back, and nothing that is read does harm."""

from __future__ import annotations

import struct
from dataclasses import asdict, is_dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink.channels.driver import Mode
from simlink.channels.wire import wire_pb2 as pb
from simlink.channels.wire.codec import HEAD, VERSION, decode, encode
from simlink.channels.wire.columns import MAX_SEQUENCE
from simlink.channels.wire.frames import (
    Accept,
    BatchFrame,
    Bye,
    Code,
    ErrorFrame,
    FrameError,
    Heartbeat,
    Hello,
    Moved,
    Returned,
    Settle,
    Subscribed,
    Void,
    Welcome,
)
from simlink.channels.wire.framing import FrameReader, read_frames
from simlink.message import EMPTY_HEADERS, Batch, Same

numbers = st.integers(0, 2**62)
ids = st.binary(min_size=16, max_size=16)
text = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=8)
runs = st.lists(st.tuples(numbers, st.integers(1, 2**20)).map(lambda r: (r[0], r[0] + r[1])), max_size=5)
small = st.integers(0, 2**31)


@st.composite
def columns(draw, n, cells):
    """Alike, or one each."""
    if draw(st.booleans()):
        return Same(draw(cells), n)
    return draw(st.lists(cells, min_size=n, max_size=n))


@st.composite
def sequence_columns(draw, n):
    first = draw(numbers)
    each = st.lists(numbers, min_size=n, max_size=n)
    return draw(
        st.one_of(
            st.just(range(first, first + n)),
            each.map(lambda s: np.array(s, np.int64)),
            each,
            st.lists(st.none() | numbers, min_size=n, max_size=n),
            st.just(Same(None, n)),
        )
    )


@st.composite
def batches(draw):
    n = draw(st.integers(0, 12))
    stamps = st.integers(-(2**60), 2**60)
    return Batch(
        draw(st.lists(st.binary(max_size=20), min_size=n, max_size=n)),
        keys=draw(columns(n, st.none() | st.binary(max_size=5))),
        headers=draw(columns(n, st.just(EMPTY_HEADERS) | st.dictionaries(text, text, max_size=3))),
        content_types=draw(columns(n, st.none() | st.sampled_from(["application/json", "text/plain", "ünï"]))),
        producers=draw(columns(n, st.none() | ids)),
        sequences=draw(sequence_columns(n)),
        timestamps=draw(st.one_of(columns(n, st.none() | stamps), st.just(np.arange(n, dtype=np.int64) * 1000))),
    )


control_frames = st.one_of(
    st.builds(Hello, ids, text, st.sampled_from(Mode), text, st.just(b"") | ids, numbers, numbers, small, small),
    st.builds(
        Welcome,
        ids,
        numbers,
        numbers,
        runs,
        runs,
        runs,
        runs,
        numbers,
        numbers,
        small,
        small,
        st.lists(text, max_size=3),
        st.booleans(),
    ),
    st.builds(Subscribed, st.lists(text, max_size=3)),
    st.builds(Accept, numbers, numbers, numbers),
    st.builds(Settle, numbers, runs, runs, numbers, numbers),
    st.builds(Returned, runs, runs),
    st.tuples(numbers, st.integers(0, 1000)).map(lambda v: Void(v[0], v[0] + v[1])),
    st.builds(Moved, runs),
    st.builds(Heartbeat, numbers),
    st.builds(Bye),
    st.builds(ErrorFrame, st.sampled_from(Code), st.just("one line"), st.booleans()),
)
batch_frames = st.builds(BatchFrame, numbers, batches(), numbers, subscriptions=st.lists(text, max_size=3).map(tuple))
frames = control_frames | batch_frames


def plain(frame):
    """A form that compares: columns as lists of cells."""
    if isinstance(frame, BatchFrame):
        return {
            "position": frame.position,
            "low": frame.low,
            "subscriptions": frame.subscriptions,
            "rows": [
                (m.body, m.key, dict(m.headers), m.content_type, m.producer, m.sequence, m.timestamp)
                for m in frame.batch
            ],
        }
    assert is_dataclass(frame)
    return asdict(frame)


def payload(data):
    length, version = HEAD.unpack_from(data)
    assert (len(data) - 4, VERSION) == (length, version)
    return data[HEAD.size :]


@given(control_frames)
def test_a_control_frame_comes_back_as_it_was(frame):
    assert decode(payload(encode(frame))) == frame


@given(batch_frames)
def test_a_batch_comes_back_row_by_row(frame):
    assert plain(decode(payload(encode(frame)))) == plain(frame)


@given(batch_frames)
def test_a_batch_that_was_read_is_written_the_same(frame):
    once = encode(frame)
    assert encode(decode(payload(once))) == once


@given(st.lists(ids, min_size=1, max_size=4, unique=True), st.data())
def test_lows_come_back_by_producer(producers, data):
    lows = {p: data.draw(numbers) for p in producers}
    n = len(producers)
    batch = Batch([b""] * n, producers=producers, sequences=range(n))
    assert decode(payload(encode(BatchFrame(0, batch, 0, lows)))).lows == lows


def test_sequences_that_follow_one_another_stay_a_range():
    batch = Batch([b"a", b"b"], producers=Same(b"p" * 16, 2), sequences=np.array([5, 6]))
    assert decode(payload(encode(BatchFrame(0, batch)))).batch.sequences == range(5, 7)


def test_columns_that_are_alike_stay_one_object():
    n = 100
    batch = Batch(
        [b"x"] * n,
        keys=Same(b"k", n),
        headers=[{"trace": "7f"}] * n,
        content_types=["application/json"] * n,
        timestamps=[7] * n,
    )
    back = decode(payload(encode(BatchFrame(0, batch)))).batch
    assert [type(c) for c in (back.keys, back.headers, back.content_types, back.timestamps)] == [Same] * 4
    assert back[n - 1] == batch[0]


@given(st.binary(max_size=300))
def test_arbitrary_payloads_raise_frame_errors_only(data):
    problem = ""
    try:
        decode(data)
    except FrameError as error:
        problem = str(error)
    assert "\n" not in problem


@given(frames, st.data())
def test_damaged_frames_raise_frame_errors_only(frame, data):
    good = bytearray(payload(encode(frame)))
    for _ in range(data.draw(st.integers(1, 4))):
        if good:
            good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    try:
        back = decode(bytes(good[:cut]))
    except FrameError:
        return
    if isinstance(back, BatchFrame):
        plain(back)  # what was let through can be read


@given(st.binary(max_size=400), st.integers(1, 50))
def test_arbitrary_streams_raise_frame_errors_only(data, piece):
    reader = FrameReader(max_frame_bytes=200)
    code = None
    try:
        for at in range(0, len(data), piece):
            reader.feed(data[at : at + piece])
            reader.frames()
    except FrameError as error:
        code = error.code
    assert code in {None, Code.VERSION, Code.TOO_LARGE, Code.PROTOCOL}


@given(st.lists(frames, max_size=5), st.data())
def test_any_cut_of_the_stream_gives_the_same_frames(sent, data):
    stream = b"".join(map(encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = FrameReader()
    got = []
    for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.feed(stream[a:b])
        got += reader.frames()
    assert [plain(f) for f in got] == [plain(f) for f in sent]
    assert reader.pending == 0


@settings(deadline=None)
@given(st.lists(frames, max_size=5), st.data())
def test_a_body_of_frames_is_read_as_the_stream_is_and_whole_ones_only(sent, data):
    stream = b"".join(encode(frame) for frame in sent)
    reader = FrameReader()
    reader.feed(stream)
    assert [encode(f) for f in read_frames(stream)] == [encode(f) for f in reader.frames()]
    if stream:
        ends = {len(b"".join(encode(f) for f in sent[:n])) for n in range(len(sent) + 1)}
        cut = data.draw(st.integers(0, len(stream)).filter(lambda n: n not in ends))
        with pytest.raises(FrameError):
            read_frames(stream[:cut])


def test_a_frame_larger_than_every_buffer_is_read():
    big = BatchFrame(0, Batch([b"x" * 3_000_000, b"y"]))
    reader = FrameReader()
    reader.feed(encode(Heartbeat(1)) + encode(big) + encode(Heartbeat(2)))
    first, second, third = reader.frames()
    assert (first, third) == (Heartbeat(1), Heartbeat(2))
    assert list(second.batch.bodies) == list(big.batch.bodies)


def test_an_oversized_frame_is_refused_at_its_length():
    reader = FrameReader(max_frame_bytes=1000)
    reader.feed(struct.pack(">IB", 1001, VERSION))
    with pytest.raises(FrameError, match=r"a frame of 1001 bytes, and at most 1000 are allowed here") as caught:
        reader.next_frame()
    assert caught.value.code is Code.TOO_LARGE


def test_a_length_alone_takes_no_memory():
    reader = FrameReader(max_frame_bytes=2**31)
    reader.feed(struct.pack(">IB", 2**30, VERSION))
    assert reader.next_frame() is None
    with reader.buffer() as room:
        assert len(room) < 200_000


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (struct.pack(">IB", 100, 2), "a frame of version 2, and version 1 is what is read here"),
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak simlink at all"),
    ],
)
def test_another_version_is_named(start, says):
    reader = FrameReader()
    reader.feed(start)
    with pytest.raises(FrameError, match=says) as caught:
        reader.next_frame()
    assert caught.value.code is Code.VERSION


def test_a_frame_without_a_version_is_refused():
    reader = FrameReader()
    reader.feed(struct.pack(">IB", 0, VERSION))
    with pytest.raises(FrameError, match="without a version"):
        reader.next_frame()


def test_frames_before_a_bad_one_are_read():
    reader = FrameReader()
    reader.feed(encode(Heartbeat(1)) + b"\xff" * 10)
    assert reader.next_frame() == Heartbeat(1)
    with pytest.raises(FrameError):
        reader.next_frame()


def test_a_kind_that_is_not_known_yet_is_skipped():
    # Field 999 of Frame, as a later program of the same version may send it.
    unknown = b"\xba\x3e\x02hi"
    reader = FrameReader()
    reader.feed(HEAD.pack(len(unknown) + 1, VERSION) + unknown + encode(Bye()))
    assert reader.frames() == [Bye()]


def wire_batch(**fields):
    out = pb.Frame()
    out.batch.MergeFrom(pb.Batch(**fields))
    return out.SerializeToString()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"bodies": [b"a"] * 3, "keys": [b"k"] * 2}, "keys has 2 entries for 3 messages"),
        ({"bodies": [b"a"] * 3, "keys": [b"k"] * 3, "keys_present": b"\1\1"}, "2 bytes of presence"),
        ({"bodies": [b"a"] * 3, "keys": [b"k"], "keys_present": b"\1"}, "needs 3 entries"),
        ({"bodies": [b"a"] * 3, "content_types": ["x", "y"]}, "content_types has 2 entries"),
        ({"bodies": [b"a"], "producers": [b"short"]}, "a producer is not 16 bytes"),
        ({"bodies": [b"a"], "producers": [b"p" * 16], "producer_of": [2]}, "producer 2 of 1"),
        ({"bodies": [b"a"], "producers": [b"p" * 16, b"q" * 16]}, "nothing says whose"),
        ({"bodies": [b"a"], "producers": [b"p" * 16], "lows": [1, 2]}, "2 lows for 1 producers"),
        ({"bodies": [b"a"], "sequence_firsts": [0], "sequence_counts": [2**40]}, "runs of altogether 1099511627776"),
        ({"bodies": [b"a"], "sequence_firsts": [0, 1], "sequence_counts": [1]}, "2 runs"),
        ({"bodies": [b"a"], "sequence_firsts": [2**63], "sequence_counts": [1]}, "beyond 2\\^63"),
        ({"bodies": [b"a"] * 3, "timestamps": [1, 2]}, "timestamps has 2 entries"),
        ({"bodies": [b"a"], "position": 2**63 - 1}, "beyond 2\\^63"),
        ({"bodies": [], "content_types": ["x"]}, "content_types has 1 entries for 0 messages"),
        ({"bodies": [b"a"], "headers": [{"name": "h"}]}, "has no value"),
    ],
)
def test_columns_that_do_not_fit_together_are_refused(fields, says):
    with pytest.raises(FrameError, match=says):
        decode(wire_batch(**fields))


@pytest.mark.parametrize(
    "batch",
    [
        Batch([b"a"], headers=[{"h": "\ud800"}]),
        Batch([b"a"], producers=[b"short"], sequences=[1]),
        Batch([b"a"], producers=[b"p" * 16], sequences=[-1]),
        Batch([b"a"], producers=[b"p" * 16], sequences=[MAX_SEQUENCE + 1]),
        Batch(["text"]),
    ],
)
def test_a_cell_that_cannot_be_written_is_a_value_error(batch):
    with pytest.raises(ValueError):
        encode(BatchFrame(0, batch))


def test_a_peers_message_is_one_short_line():
    shown = decode(payload(encode(ErrorFrame(Code.PROTOCOL, "a\nb\t\x0b c" + "x" * 1000)))).message
    assert shown.startswith("a b c")
    assert len(shown) == 500
