"""Partitions: Kafka's own hash, one by one and by columns, and the same place for the same message."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlink.channels.kafka.partitioning import FEW, LONG, choose_partitions, murmur2, murmur2_many
from simlink.message import Same

# From Apache Kafka's UtilsTest.testMurmur2, there as signed numbers.
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}

keys = st.binary(max_size=40)
producer = bytes(range(16))


@pytest.mark.parametrize("key", JAVA)
def test_the_hash_is_the_one_of_the_java_client(key):
    assert JAVA[key] % 2**32 == murmur2(key)


@given(st.lists(keys, min_size=FEW, max_size=120))
def test_a_column_hashes_as_its_rows_do(column):
    assert [murmur2(k) for k in column] == murmur2_many(column).tolist()


@given(st.lists(st.binary(min_size=6, max_size=6), min_size=FEW, max_size=60))
def test_a_column_of_equal_lengths_hashes_as_its_rows_do(column):
    assert [murmur2(k) for k in column] == murmur2_many(column).tolist()


def test_a_very_long_key_hashes_among_short_ones():
    column = [b"x" * i for i in range(FEW)] + [b"y" * (LONG + 3)]

    assert [murmur2(k) for k in column] == murmur2_many(column).tolist()


@given(
    st.lists(st.tuples(st.none() | keys, st.integers(0, 2**40)), min_size=1, max_size=80),
    st.integers(1, 12),
    st.integers(0, 1000),
    st.integers(0, 1000),
)
def test_a_message_goes_to_the_same_partition_whatever_batch_and_position_it_has(rows, count, position, other):
    def chosen(some, at):
        batch = [k for k, _ in some], Same(producer, len(some)), np.array([s for _, s in some], np.int64)
        return choose_partitions(*batch, at, count).tolist()

    together = chosen(rows, position)

    assert [chosen([row], other)[0] for row in rows] == together
    assert all(0 <= p < count for p in together)


def test_messages_without_a_key_go_round_evenly():
    chosen = choose_partitions(Same(None, 600), Same(producer, 600), range(600), 0, 6)

    assert np.bincount(chosen, minlength=6).tolist() == [100] * 6


def test_rows_without_identity_go_round_by_position():
    chosen = choose_partitions(Same(None, 4), Same(None, 4), Same(None, 4), 9, 3)

    assert chosen.tolist() == [0, 1, 2, 0]


def test_an_empty_key_is_a_key():
    expected = (murmur2(b"") & 0x7FFFFFFF) % 6

    assert [expected] * 3 == choose_partitions([b""] * 3, Same(producer, 3), range(3), 0, 6).tolist()


def test_both_clients_agree_with_us():
    kafka = pytest.importorskip("kafka.partitioner")
    column = [b"key-%d" % i for i in range(200)]

    assert [kafka.murmur2(k) % 2**32 for k in column] == murmur2_many(column).tolist()
