"""The receiving channel's books, against a broker that closes the channel over any tag it does not know."""

from hypothesis import given
from hypothesis import strategies as st

from simlink.channels.rabbitmq.tags import Tags, Word, shortened
from simlink.message import Verdict

ACK, NACK, REJECT = Verdict.ACK, Verdict.NACK, Verdict.REJECT

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.integers(1, 10), st.just(0), st.just(ACK)),
        st.tuples(st.just("settle"), st.integers(1, 40), st.integers(0, 10), st.sampled_from([ACK, NACK, REJECT])),
        st.tuples(st.just("later"), st.integers(1, 40), st.integers(0, 5), st.just(NACK)),
        st.tuples(st.just("due"), st.integers(0, 5), st.just(0), st.just(NACK)),
    ),
    max_size=40,
)


class Broker:
    """What is unacknowledged, and what became of the rest (`rabbit_channel:collect_acks`)."""

    def __init__(self):
        self.open = set()
        self.fate = {}

    def hear(self, words):
        for verdict, tag, multiple in words:
            told = {t for t in self.open if t <= tag} if multiple else {tag}
            assert tag in self.open, f"PRECONDITION_FAILED - unknown delivery tag {tag}"
            self.open -= told
            self.fate.update(dict.fromkeys(told, verdict))


@given(STEPS, st.booleans())
def test_the_broker_hears_each_verdict_once_and_nothing_else(steps, at_once):
    tags, broker = Tags(), Broker()
    said, waiting, kept = {}, [], []
    delivered = 0
    for kind, a, b, verdict in steps:
        if kind == "deliver":
            assert tags.hand_out(a) == range(delivered + 1, delivered + 1 + a)
            delivered += a
            broker.open |= set(range(delivered - a + 1, delivered + 1))
            continue
        if kind == "due":
            words = tags.due(waiting.pop(a)) if a < len(waiting) else []
        else:
            fresh = [t for t in range(a, a + b + 1) if t <= delivered and t not in said]
            said.update(dict.fromkeys(fresh, verdict))
            words = tags.settle(verdict, a, a + b, later=kind == "later")
            if kind == "later":
                assert [word.tag for word in words] == fresh
                waiting.append(words)
                words = []
        kept += words
        if at_once:
            broker.hear(words)
        assert tags.in_hand == delivered - len(said)
    if not at_once:
        broker.hear(shortened(kept))
    untold = {word.tag for words in waiting for word in words}

    assert broker.fate == {tag: verdict for tag, verdict in said.items() if tag not in untold}
    assert broker.open == set(range(1, delivered + 1)) - broker.fate.keys()
    assert tags.base == min(broker.open, default=delivered + 1)


def test_a_batch_in_order_is_one_word():
    tags = Tags()
    tags.hand_out(500)

    assert tags.settle(ACK, 1, 200) == [Word(ACK, 200, multiple=True)]
    assert tags.settle(ACK, 201, 500) == [Word(ACK, 500, multiple=True)]


def test_words_that_say_the_same_are_one():
    first, second = Word(ACK, 200, multiple=True), Word(ACK, 500, multiple=True)
    nack = Word(NACK, 300)

    assert shortened([first, second]) == [second]
    assert shortened([first, nack, second]) == [first, nack, second]


def test_a_nack_that_waits_is_not_acknowledged_by_what_comes_behind_it():
    tags = Tags()
    tags.hand_out(5)
    later = tags.settle(NACK, 2, 2, later=True)

    assert tags.settle(ACK, 1, 5) == [Word(ACK, 1), Word(ACK, 3), Word(ACK, 4), Word(ACK, 5)]
    assert tags.due(later) == [Word(NACK, 2)]
    assert tags.due(later) == []
    assert tags.base == 6
