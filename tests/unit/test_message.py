"""Messages, batches and columns: a batch of messages reads like the list of them, however it is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlink.errors import AlreadySettled, ConfigError, DecodeError, StateError
from simlink.message import EMPTY_HEADERS, Batch, Hand, Message, Same, Verdict, encode_key

MESSAGES = st.builds(
    Message,
    body=st.binary(max_size=5),
    key=st.none() | st.binary(max_size=3),
    headers=st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=2),
    content_type=st.none() | st.just("application/json"),
    producer=st.none() | st.just(bytes(16)),
    sequence=st.none() | st.integers(0, 9),
    timestamp=st.none() | st.integers(0, 9),
)
SLICES = st.slices(8)


@given(st.lists(MESSAGES, max_size=8), SLICES)
def test_a_batch_reads_like_the_list_of_its_messages(messages, part):
    batch = Batch.of(messages)
    assert (len(batch), list(batch)) == (len(messages), messages)
    assert list(batch[part]) == messages[part]
    assert batch.nbytes == sum(len(m.body) + len(m.key or b"") for m in messages)
    assert batch[part].nbytes == sum(len(m.body) + len(m.key or b"") for m in messages[part])


@given(st.lists(st.lists(MESSAGES, max_size=4), min_size=1, max_size=4))
def test_batches_can_be_joined(parts):
    assert list(Batch.concat([Batch.of(part) for part in parts])) == [m for part in parts for m in part]


@given(st.lists(MESSAGES, min_size=1, max_size=6), st.data())
def test_rows_can_be_picked(messages, data):
    rows = data.draw(st.lists(st.integers(0, len(messages) - 1), max_size=6))
    assert list(Batch.of(messages).take(rows)) == [messages[row] for row in rows]


def test_columns_that_are_alike_stay_one_object():
    batch = Batch([b"a"] * 3, keys=Same(b"k", 3))
    joined = Batch.concat([batch, batch])
    for part in (batch[1:], batch.take([2, 0]), joined):
        assert isinstance(part.keys, Same)
        assert isinstance(part.headers, Same)
    assert (joined.keys, joined.headers.value) == (Same(b"k", 6), EMPTY_HEADERS)
    assert joined.nbytes == 12


@given(st.integers(0, 6), SLICES)
def test_same_is_a_sequence(length, part):
    column, model = Same("x", length), ["x"] * length
    assert (len(column), list(column), list(column[part])) == (length, model, model[part])
    assert [column[i] for i in range(-length, length)] == model * 2
    for outside in (length, -length - 1):
        with pytest.raises(IndexError):
            column[outside]


@pytest.mark.parametrize(
    ("key", "expected"), [(None, None), ("é", "é".encode()), (b"\xff", b"\xff"), (17, b"17"), (-3, b"-3")]
)
def test_a_key_is_text_bytes_or_a_whole_number(key, expected):
    assert encode_key(key) == expected


@pytest.mark.parametrize("key", [True, 1.5, ("a",), ["a"]])
def test_anything_else_is_no_key(key):
    with pytest.raises(ConfigError, match="a key is str, bytes or int"):
        encode_key(key)


# --- values ---------------------------------------------------------------------------------------------------------


def decode(bodies):
    return [DecodeError("bad", body=b) if b == b"bad" else b.decode() for b in bodies]


def test_values_are_decoded_once_and_only_when_they_are_read():
    calls = []
    batch = Batch([b"a", b"b"], decode=lambda bodies: calls.append(1) or decode(bodies))
    assert calls == []
    assert (batch.values, batch.values, batch[1:].values, calls) == (["a", "b"], ["a", "b"], ["b"], [1])


def test_the_first_body_that_cannot_be_read_is_raised_and_the_others_can_be_had():
    batch = Batch([b"a", b"bad", b"c"], decode=decode)
    with pytest.raises(DecodeError):
        _ = batch.values
    assert [type(outcome).__name__ for outcome in batch.outcomes] == ["str", "DecodeError", "str"]


def test_a_batch_that_comes_from_nowhere_has_neither_values_nor_verdicts():
    with pytest.raises(StateError, match="no decoder"):
        _ = Batch([b"a"]).values
    with pytest.raises(StateError, match="does not come from a receiver"):
        Batch([b"a"]).ack()


# --- verdicts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hand():

    def on_settle(hand, row, verdict):
        if hand.taken_back:
            return False
        hand.marks[row] = verdict
        return True

    return Hand(Batch([b"a", b"b"]), Same(1, 2), on_settle)


def test_the_same_verdict_again_does_nothing_and_another_one_is_refused(hand):
    assert hand.settle(0, Verdict.ACK) is True
    assert hand.settle(0, Verdict.ACK) is True
    with pytest.raises(AlreadySettled, match=r"settled before, by ack\(\)"):
        hand.settle(0, Verdict.NACK)
    assert hand.settle(1, Verdict.REJECT) is True


def test_a_verdict_over_what_was_taken_back_comes_too_late_and_is_no_contradiction(hand):
    hand.marks[0] = Verdict.NACK
    hand.taken_back = True
    assert hand.settle(0, Verdict.ACK) is False


def test_a_message_shows_itself_in_short():
    shown = repr(Message(body=b"x" * 100, key=b"k", headers={"a": "b"}, producer=bytes(16), sequence=3))
    assert (
        shown == f"Message(body={b'x' * 57 + b'...'!r}, key=b'k', headers={{'a': 'b'}}, producer=00000000…, sequence=3)"
    )
    assert repr(Message(body=b"")) == "Message(body=b'')"
