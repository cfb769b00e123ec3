"""The hub against a model of it: competing readers, order per key, redelivery, bounds, and books that close."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from simlink.channels.driver import Mode, Settlement
from simlink.channels.hub import Hub, Origin
from simlink.message import Batch, Verdict

BOUND = 24
KEYS = st.sampled_from([None, b"a", b"b", b"c"])


def batch_of(numbers, keys):
    return Batch([b"%d" % n for n in numbers], keys=list(keys))


@dataclass
class Row:
    """One message, as the model knows it."""

    number: int
    key: bytes | None
    state: str = "waiting"  # waiting, held, delayed, settled
    holder: object = None
    due: float = 0.0
    handouts: int = 0


@dataclass(eq=False)
class ModelReader:
    reader: object
    tokens: dict = field(default_factory=dict)  # token → Row, of what it holds
    leases: dict = field(default_factory=dict)


class HubMachine(RuleBasedStateMachine):
    """Rows of a queue travel between readers; the model knows where each is and what must hold of it."""

    readers = Bundle("readers")

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.hub = Hub("q", Mode.QUEUE, max_messages=BOUND, clock=lambda: self.now)
        self.subscription = self.hub.subscriptions["q"]
        self.rows = []
        self.told = {}
        self.open = []
        self.first_out = {}

    # --- rules ------------------------------------------------------------------------------------------------------

    @rule(keys=st.lists(KEYS, min_size=1, max_size=8))
    def put(self, keys):
        numbers = list(range(len(self.rows), len(self.rows) + len(keys)))
        room = BOUND - self.unsettled()

        def settled(first, stop, verdict):
            for row in range(first, stop):
                assert numbers[row] not in self.told, "told twice"
                self.told[numbers[row]] = verdict

        taken = self.hub.offer(batch_of(numbers, keys), Origin(settled))

        assert min(len(keys), room) == taken
        self.rows += [Row(n, k) for n, k in zip(numbers[:taken], keys[:taken], strict=True)]

    @precondition(lambda self: len(self.open) < 3)
    @rule(target=readers, capacity=st.integers(1, 12))
    def attach(self, capacity):
        model = ModelReader(self.hub.subscribe(None, capacity=capacity))
        self.open.append(model)
        return model

    @rule(model=readers, limit=st.integers(1, 10))
    def receive(self, model, limit):
        room = min(limit, max(model.reader.capacity - len(model.tokens), 0 if model.tokens else 1))
        self.release_due()
        incoming = model.reader.receive(limit, 0.0)
        got = [
            (part.lease, token, int(body), key, attempt)
            for part in incoming
            for token, body, key, attempt in zip(
                part.tokens, part.batch.bodies, part.batch.keys, part.attempts, strict=True
            )
        ]
        if model not in self.open:
            assert not got, "a closed reader was handed something"
            return
        assert len(got) <= room, "more than the reader's bound"
        if room:
            could = [row.number for row in self.rows if self.eligible(row, model)]
            assert got or not could, f"nothing was handed out, and {could} were waiting"
        for lease, token, number, key, attempt in got:
            row = self.rows[number]
            assert row.state == "waiting", f"{number} was {row.state} and was handed out"
            assert row.key == key
            assert self.eligible(row, model), f"{number} was handed out out of order"
            row.state, row.holder = "held", model
            row.handouts += 1
            assert attempt == row.handouts
            if row.handouts == 1 and key is not None:
                assert self.first_out.get(key, -1) < number, "first hand-outs of a key are out of order"
                self.first_out[key] = number
            assert token not in model.tokens, "a token twice"
            model.tokens[token], model.leases[token] = row, lease

    @rule(
        model=readers,
        a=st.integers(0, 20),
        length=st.integers(1, 6),
        verdict=st.sampled_from(list(Verdict)),
        delay=st.sampled_from([0.0, 1.0, 5.0]),
    )
    def settle(self, model, a, length, verdict, delay):
        tokens = sorted(model.tokens)[a : a + length]
        if not tokens:
            return
        # One settlement is over a run of tokens that were handed out, as far as they follow one another.
        run = [tokens[0]]
        for token in tokens[1:]:
            if token == run[-1] + 1:
                run.append(token)
        lease = model.leases[run[0]]
        stale = model.reader.settle([Settlement(lease, verdict, run[0], run[-1], delay)])

        assert stale == (0 if model in self.open else 1)
        for token in run:
            row = model.tokens.pop(token)
            del model.leases[token]
            if model not in self.open:
                continue
            row.holder = None
            if verdict is Verdict.NACK:
                row.state, row.due = "delayed", self.now + delay
            else:
                row.state = "settled"
                assert self.told.get(row.number) == verdict, "the sender was not told"

    @rule(model=consumes(readers))
    def close(self, model):
        model.reader.close()
        if model in self.open:
            self.open.remove(model)
        for row in model.tokens.values():
            if row.holder is model:
                row.state, row.holder = "waiting", None
        # Late verdicts change nothing and are counted.
        for token, lease in model.leases.items():
            assert model.reader.settle([Settlement(lease, Verdict.ACK, token, token)]) == 1

    @rule(seconds=st.sampled_from([0.5, 1.0, 10.0]))
    def advance(self, seconds):
        self.now += seconds

    @rule()
    def purge(self):
        gone = self.hub.purge()
        mine = [row for row in self.rows if row.state in {"waiting", "delayed"}]
        for row in mine:
            row.state = "settled"
            assert self.told.get(row.number) == Verdict.REJECT
        assert len(mine) == gone

    # --- the model --------------------------------------------------------------------------------------------------

    def unsettled(self):
        return sum(row.state != "settled" for row in self.rows)

    def release_due(self):
        for row in self.rows:
            if row.state == "delayed" and row.due <= self.now:
                row.state = "waiting"

    def eligible(self, row, model):
        """Whether this reader may have it now: nobody else holds its key, and nothing earlier of its key waits."""
        if row.state != "waiting":
            return False
        if row.key is None:
            return True
        for other in self.rows:
            if other.key != row.key or other is row:
                continue
            if other.state == "held" and other.holder is not model:
                return False
            if other.number < row.number and other.state in {"waiting", "delayed"}:
                return False
            if other.state == "delayed":
                return False
        return True

    @invariant()
    def the_books_agree(self):
        live = [row for row in self.rows if row.state != "settled"]
        stats = self.subscription.stats()
        assert len(live) == stats["messages"] <= BOUND
        assert sum(len(b"%d" % row.number) + len(row.key or b"") for row in live) == stats["bytes"]
        assert sum(row.state == "held" for row in live) == stats["held"]
        assert len(self.open) == stats["readers"]
        for model in self.open:
            assert len(model.tokens) == model.reader.holding

    @invariant()
    def no_key_is_in_two_hands(self):
        holders = {}
        for row in self.rows:
            if row.state == "held" and row.key is not None:
                assert holders.setdefault(row.key, row.holder) is row.holder

    def teardown(self):
        """Everything unsettled still comes out, and nothing is left in any corner."""
        for model in list(self.open):
            model.reader.close()
        self.now += 1_000.0
        expected = sorted(row.number for row in self.rows if row.state != "settled")
        reader = self.hub.subscribe(None, capacity=BOUND)
        seen = []
        while incoming := reader.receive(BOUND, 0.0):
            for part in incoming:
                seen += [int(body) for body in part.batch.bodies]
                reader.settle([Settlement(part.lease, Verdict.ACK, part.tokens[0], part.tokens[-1])])
        assert expected == sorted(seen)
        assert len(self.rows) == len(self.told)
        s = self.subscription
        corners = (s.count, s.nbytes, len(s._fresh), len(s._first), len(s._delayed), len(s._blocked), len(s._parked))
        assert corners == (0,) * 7
        assert not s._owner
        assert (reader.holding, reader.held, reader.firsts) == (0, {}, [])
        reader.close()


HubMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestHubMachine = HubMachine.TestCase


# --- topics ---------------------------------------------------------------------------------------------------------


def numbers_in(incoming):
    return [int(body) for part in incoming for body in part.batch.bodies]


def acknowledge(reader, incoming):
    reader.settle([Settlement(p.lease, Verdict.ACK, p.tokens[0], p.tokens[-1]) for p in incoming])


@pytest.fixture
def topic():
    return Hub("t", Mode.TOPIC, max_messages=4, clock=lambda: 0.0)


def test_a_topic_tells_the_sender_when_every_subscription_has_settled(topic):
    one, two = topic.subscribe("one", capacity=9), topic.subscribe(None, capacity=9)
    told = []
    topic.offer(batch_of([0, 1, 2], [None] * 3), Origin(lambda a, b, v: told.append((a, b, v))))
    acknowledge(one, one.receive(9, 0.0))
    assert told == []
    acknowledge(two, two.receive(9, 0.0))

    assert [row for first, stop, _ in told for row in range(first, stop)] == [0, 1, 2]


def test_a_private_subscription_goes_with_its_reader_and_settles_what_it_held(topic):
    named, private = topic.subscribe("named", capacity=9), topic.subscribe(None, capacity=9)
    told = []
    topic.offer(batch_of([0, 1], [None] * 2), Origin(lambda a, b, v: told.append((a, b))))
    private.receive(1, 0.0)
    topic.unsubscribe(private)
    acknowledge(named, named.receive(9, 0.0))

    assert list(topic.subscriptions) == ["named"]
    assert sorted(row for first, stop in told for row in range(first, stop)) == [0, 1]


def test_a_named_subscription_outlives_its_reader_and_keeps_what_came_since(topic):
    topic.unsubscribe(topic.subscribe("audit", capacity=9))
    topic.offer(batch_of([0, 1], [None] * 2))

    assert numbers_in(topic.subscribe("audit", capacity=9).receive(9, 0.0)) == [0, 1]


def test_the_slowest_subscription_bounds_a_topic(topic):
    slow, quick = topic.subscribe("slow", capacity=9), topic.subscribe("quick", capacity=9)
    assert topic.offer(batch_of(range(6), [None] * 6)) == 4
    acknowledge(quick, quick.receive(9, 0.0))
    assert topic.offer(batch_of([4], [None])) == 0
    assert topic.wait_for_room(0.0) is False
    acknowledge(slow, slow.receive(9, 0.0))

    assert topic.offer(batch_of([4], [None])) == 1
    assert (numbers_in(slow.receive(9, 0.0)), numbers_in(quick.receive(9, 0.0))) == ([4], [4])


def test_a_dropping_subscription_drops_for_itself_and_counts(topic):
    dropping = topic.subscribe("dropping", capacity=9, overflow="drop")
    told = []
    origin = Origin(lambda a, b, v: told.append((a, b, v)))
    assert topic.offer(batch_of(range(4), [None] * 4)) == 4
    assert topic.offer(batch_of([4, 5], [None] * 2), origin) == 2

    assert told == [(0, 2, Verdict.REJECT)]
    assert topic.stats()["subscriptions"]["dropping"]["dropped"] == 2
    assert numbers_in(dropping.receive(9, 0.0)) == [0, 1, 2, 3]


def test_a_topic_without_subscriptions_settles_at_once_and_counts(topic):
    told = []
    assert topic.offer(batch_of([0, 1], [None] * 2), Origin(lambda a, b, v: told.append((a, b, v)))) == 2

    assert told == [(0, 2, Verdict.ACK)]
    assert topic.stats()["unrouted"] == 2


def test_a_deleted_subscription_settles_what_nobody_held(topic):
    topic.subscribe("gone", capacity=9)
    told = []
    topic.offer(batch_of([0, 1], [None] * 2), Origin(lambda a, b, v: told.append((a, b, v))))
    topic.delete_subscription("gone")

    assert sum(stop - first for first, stop, _ in told) == 2
    assert topic.subscriptions == {}


def test_bytes_bound_a_queue_too_and_one_batch_always_fits():
    hub = Hub("q", Mode.QUEUE, max_bytes=10, clock=lambda: 0.0)
    reader = hub.subscribe(None, capacity=9)
    assert hub.offer(Batch([b"x" * 50])) == 1
    assert hub.offer(Batch([b"y"])) == 0
    acknowledge(reader, reader.receive(9, 0.0))

    assert hub.offer(Batch([b"y"])) == 1


def test_rows_whose_origin_is_not_ready_stay_and_hold_up_nobody():
    hub = Hub("q", Mode.QUEUE, clock=lambda: 0.0)
    reader = hub.subscribe(None, capacity=9)
    ready = []
    hub.offer(batch_of([0, 1], [None] * 2), Origin(None, ready=lambda: bool(ready)))
    hub.offer(batch_of([2], [None]))
    assert numbers_in(reader.receive(9, 0.0)) == [2]
    ready.append(True)

    assert numbers_in(reader.receive(9, 0.0)) == [0, 1]


def test_waking_ends_a_wait():
    hub = Hub("q", Mode.QUEUE)
    reader = hub.subscribe(None, capacity=9)
    reader.wake()

    assert reader.receive(9, 3_600.0) == []
