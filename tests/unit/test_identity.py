"""The identity header: whole batches and single rows say the same, in both directions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlink.channels.identity import FEW, WIDTH, format_identities, parse_identities
from simlink.message import Same

PRODUCER = bytes(range(16))
producers = st.binary(min_size=16, max_size=16)
usual = st.integers(0, 10**16 - 1)
wide = st.integers(0, 2**63 - 1)
stamps = st.none() | st.integers(1, 10**16 - 1)


def plain(column):
    return [None if x is None else x if isinstance(x, bytes) else int(x) for x in column]


@given(st.lists(st.tuples(producers, wide, st.none() | st.integers(1, 2**63 - 1)), max_size=60))
def test_what_is_written_is_read_back(rows):
    columns = [[r[i] for r in rows] for i in range(3)]

    written = format_identities(*columns)
    read = parse_identities(written)

    assert columns == [plain(c) for c in read]


@given(producers, st.lists(st.tuples(usual, stamps), min_size=FEW, max_size=80))
def test_a_whole_batch_is_written_as_its_rows_are(producer, rows):
    sequences = np.array([s for s, _ in rows], np.int64)
    times = [t for _, t in rows]

    expected = [f"{producer.hex()}/{s:016d}/{t or 0:016d}".encode() for s, t in rows]

    assert expected == list(format_identities(Same(producer, len(rows)), sequences, times))


@given(producers, st.integers(0, 10**15), st.integers(FEW, 200), stamps)
def test_a_run_of_sequences_comes_back_as_a_range(producer, first, count, stamp):
    written = format_identities(Same(producer, count), range(first, first + count), Same(stamp, count))

    read = parse_identities(written)

    assert {WIDTH} == set(map(len, written))
    assert Same(producer, count) == read.producers
    assert range(first, first + count) == read.sequences
    assert [stamp] * count == plain(read.timestamps)


@given(
    st.lists(
        st.none() | st.binary(max_size=80) | st.text("0123456789abcdef/ ", max_size=70).map(str.encode), max_size=40
    )
)
def test_foreign_values_read_as_none_and_never_raise(values):
    read = parse_identities(values)

    for i, value in enumerate(values):
        alone = parse_identities([value])
        assert (read.producers[i], read.sequences[i], read.timestamps[i]) == (
            alone.producers[0],
            alone.sequences[0],
            alone.timestamps[0],
        )


@pytest.mark.parametrize("spoilt", [b"x", b" ", b"/", b"\xff", b":", b"g"])
@pytest.mark.parametrize("at", range(0, WIDTH, 5))
def test_one_spoilt_value_costs_no_other(spoilt, at):
    good = list(format_identities(Same(PRODUCER, 20), range(20), Same(7, 20)))
    values = list(good)
    values[5] = good[5][:at] + spoilt + good[5][at + 1 :]
    legal = values[5] == good[5]

    read = parse_identities(values)

    expected = [i if i != 5 or legal else None for i in range(20)]
    assert expected == plain(read.sequences)


def test_rows_of_odd_lengths_that_add_up_are_not_mistaken_for_aligned_ones():
    head = b"%s" % PRODUCER.hex().encode()
    values = [head + b"/0000000000000001/000000000000005", head + b"/0000000000000002/00000000000000006"] * 10

    read = parse_identities(values)

    expected = ([1, 2] * 10, [5, 6] * 10)
    assert expected == (plain(read.sequences), plain(read.timestamps))


@pytest.mark.parametrize("count", [2, FEW + 1])
def test_a_row_without_producer_or_sequence_has_no_identity(count):
    nothing = [None] * count
    one = b"%s/0000000000000003/0000000000000000" % PRODUCER.hex().encode()

    assert nothing == list(format_identities(Same(None, count), range(count), Same(1, count)))
    assert nothing == list(format_identities(Same(PRODUCER, count), Same(None, count), Same(1, count)))
    assert [*nothing, one] == list(format_identities([PRODUCER] * (count + 1), [*nothing, 3], [None] * (count + 1)))
