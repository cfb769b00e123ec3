"""Frames that are small on the wire and would be huge, or slow, behind it."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from simlink.channels.dedup import Deduplicator
from simlink.channels.wire import wire_pb2 as pb
from simlink.channels.wire.codec import encode
from simlink.channels.wire.columns import MAX_HEADERS
from simlink.channels.wire.frames import BatchFrame, Code, FrameError
from simlink.channels.wire.framing import FrameReader, read_frames
from simlink.message import Batch, Same

MIB = 1024 * 1024


def wire(batch):
    payload = pb.Frame(batch=batch).SerializeToString()
    return (len(payload) + 1).to_bytes(4, "big") + b"\1" + payload


def multiplied():
    """Below 8 MiB: 300,000 headers that all of 100,000 messages share, and one that each has itself."""
    batch = pb.Batch(bodies=[b""] * 100_000)
    for number in range(300_000):
        batch.headers.add(name=f"{number:x}", values=["v"])
    batch.headers.add(name="own", values=[""] * 100_000)
    return wire(batch)


def shared_by_many():
    batch = pb.Batch(bodies=[b""] * 100_000)
    for number in range(1_000):
        batch.headers.add(name=f"{number:x}", values=["v"])
    batch.headers.add(name="own", values=[""] * 100_000)
    return wire(batch)


def each_its_own():
    batch = pb.Batch(bodies=[b""] * 1_000)
    for number in range(1_000):
        batch.headers.add(name=f"{number:x}", values=[""] * 1_000)
    return wire(batch)


@pytest.mark.parametrize("make", [multiplied, shared_by_many, each_its_own])
def test_headers_that_would_multiply_are_refused(make):
    data = make()
    assert len(data) < 8 * MIB
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match=f"at most {MAX_HEADERS} are allowed") as caught:
            read_frames(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code is Code.TOO_LARGE
    assert peak < 100 * MIB


def test_a_batch_of_a_million_headers_cannot_be_framed():
    headers = {f"h{i}": "v" for i in range(1_000_000)}
    with pytest.raises(ValueError, match=f"1000000 headers, and a frame takes at most {MAX_HEADERS}"):
        encode(BatchFrame(0, Batch([b"x"], headers=Same(headers, 1))))


def test_as_many_headers_as_are_allowed_pass():
    headers = [{f"h{i}": str(row) for i in range(MAX_HEADERS // 1024)} for row in range(1024)]
    (frame,) = read_frames(encode(BatchFrame(0, Batch([b"x"] * 1024, headers=headers))))
    assert [dict(h) for h in frame.batch.headers] == headers


@pytest.mark.parametrize("length", [2**31, 2**32 - 1])
def test_a_declared_length_allocates_nothing(length):
    reader = FrameReader()
    tracemalloc.start()
    try:
        reader.feed(length.to_bytes(4, "big") + b"\1")
        with pytest.raises(FrameError, match=f"a frame of {length} bytes, and at most 8388608") as caught:
            reader.next_frame()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code is Code.TOO_LARGE
    assert peak < MIB


def test_sequences_spread_over_as_many_blocks_as_there_are_cost_no_product():
    seen = Deduplicator()
    spread = np.arange(65_536, dtype=np.int64) * 4096
    tracemalloc.start()
    try:
        since = time.process_time()
        assert seen.check(b"p" * 16, spread) is None
        seen.mark(b"p" * 16, spread)
        again = seen.check(b"p" * 16, spread)
        took = time.process_time() - since
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # What lies more than the window below the highest counts as fresh.
    assert again.sum() == seen.window // 4096
    assert peak < 32 * MIB
    assert took < 5.0


def test_sparse_sequences_of_many_producers_cost_no_more_than_the_bound():
    # 50 producers with a mark in each block of their window would take 50 MiB.
    seen = Deduplicator()
    sparse = np.arange(0, seen.window, 4096, dtype=np.int64)
    tracemalloc.start()
    try:
        for number in range(50):
            seen.mark(number.to_bytes(16, "big"), sparse)
        sparse_held = tracemalloc.get_traced_memory()[0]
        # And as many producers as there is room for, each with one mark.
        for number in range(50, 10_000):
            seen.mark(number.to_bytes(16, "big"), range(number, number + 1))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 24 * MIB < sparse_held < seen.max_bytes
    assert held < seen.max_bytes
    assert peak < seen.max_bytes + 4 * MIB
    # The last ones are known still; of the first nothing is, and what comes of it is delivered.
    assert seen.check((9_999).to_bytes(16, "big"), range(9_999, 10_000)).tolist() == [True]
    assert seen.check((0).to_bytes(16, "big"), sparse) is None
