"""What of a batch goes into one frame: as many messages as fit, and at least one; with a head or without."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlink.channels.driver import Mode
from simlink.channels.link.sender import SenderLink, _fitting
from simlink.channels.wire.codec import decode, encode, encode_payload
from simlink.channels.wire.frames import BatchFrame, Heartbeat, Void, Welcome
from simlink.channels.wire.framing import read_frames
from simlink.message import Batch, Same

bodies = st.lists(st.binary(max_size=12), min_size=1, max_size=12)


@st.composite
def batches(draw):
    rows = draw(bodies)
    key = st.one_of(st.none(), st.binary(max_size=6))
    keys = draw(
        st.one_of(
            st.none(),
            st.builds(lambda k: Same(k, len(rows)), key),
            st.lists(key, min_size=len(rows), max_size=len(rows)),
        )
    )
    return Batch(rows, keys=keys)


@given(batches(), st.data())
def test_as_many_fit_as_have_no_more_bytes_than_there_is_room(batch, data):
    most = data.draw(st.integers(1, len(batch)))
    room = data.draw(st.integers(1, 150))
    fit = _fitting(batch, most, room)
    assert 1 <= fit <= most
    assert fit == 1 or batch[:fit].nbytes <= room
    assert fit == most or batch[: fit + 1].nbytes > room


class Bodies(list):
    """Counts how often somebody asks for one of them."""

    asked = 0

    def __getitem__(self, index):
        self.asked += not isinstance(index, slice)
        return super().__getitem__(index)


def test_the_interpreter_takes_no_step_for_each_message():
    rows = Bodies([b"x" * 10] * 1000)
    assert _fitting(Batch(rows), 1000, 5005) == 500
    assert rows.asked == 0


def produced(link, count):
    """What goes out for so many messages of ten bytes, the first of which is too long to be framed."""
    link.welcome(Welcome(b"i" * 16, credit=100, credit_bytes=10_000, max_frame_bytes=200))
    link.submit(Batch([b"y" * 300, *[b"x" * 10] * (count - 1)]), 0)
    out, failed = [], []
    while (data := link.produce(failed)) is not None:
        out.append(data)
    return out, failed


@pytest.mark.parametrize("headed", [True, False])
def test_frames_go_out_with_a_head_or_without(headed):
    link = SenderLink(b"s" * 16, "orders", Mode.QUEUE, headed=headed)
    out, failed = produced(link, 5)
    frames = [frame for data in out for frame in (read_frames(data) if headed else [decode(data)])]
    assert [(f.first, f.stop) for f in failed] == [(0, 1)]
    assert frames[0] == Void(0, 1)
    assert [body for frame in frames[1:] for body in frame.batch.bodies] == [b"x" * 10] * 4


@pytest.mark.parametrize("headed", [True, False])
def test_the_longest_frame_is_as_long_with_a_head_as_without(headed):
    fits = len(encode_payload(BatchFrame(0, Batch([b"x" * 50])))) + 1
    for limit, failures in ((fits, 0), (fits - 1, 1)):
        link = SenderLink(b"s" * 16, "orders", Mode.QUEUE, headed=headed)
        link.welcome(Welcome(b"i" * 16, credit=100, credit_bytes=10_000, max_frame_bytes=limit))
        link.submit(Batch([b"x" * 50]), 0)
        failed = []
        link.produce(failed)
        assert len(failed) == failures


def test_a_payload_is_what_is_behind_the_head():
    assert encode(Heartbeat(5)) == b"\0\0\0\x05\x01" + encode_payload(Heartbeat(5))
