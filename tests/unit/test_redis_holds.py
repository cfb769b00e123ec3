"""What a receiver holds of a stream: no entry is lost, none is out twice, a nacked one holds its key back."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from simlink.channels.redis.holds import ClaimLease, Hold
from simlink.channels.redis.lanes import Lane
from simlink.message import Batch, Verdict

PLENTY = 1_000_000


def lease(life=None, clock=lambda: 0.0):
    return ClaimLease("s", life, 0.0, clock)


def ids(*numbers):
    return [b"%d-0" % n for n in numbers]


def batch(*numbers, key=b"k"):
    return Batch([b"%d" % n for n in numbers], keys=[key] * len(numbers))


def bodies(incoming):
    return [int(body) for part in incoming for body in part.batch.bodies]


class Holding(RuleBasedStateMachine):
    """Against a plain model: each entry is buffered, out, waiting or settled, and its attempts are counted."""

    out = Bundle("out")

    def __init__(self):
        super().__init__()
        self.hold = Hold(lease())
        self.now = 0.0
        self.next = 0
        self.key = {}
        self.attempts = {}
        self.in_hand = {}  # token → number
        self.settled = set()
        self.blocked = {}  # number that is nacked → its key

    @rule(keys=st.lists(st.none() | st.sampled_from([b"a", b"b"]), min_size=1, max_size=6))
    def fetch(self, keys):
        numbers = range(self.next, self.next + len(keys))
        self.next += len(keys)
        self.key.update(zip(numbers, keys, strict=True))
        self.hold.add(ids(*numbers), Batch([b"%d" % n for n in numbers], keys=keys))

    @rule(target=out, limit=st.integers(1, 8), nbytes=st.sampled_from([0, 3, PLENTY]))
    def hand_out(self, limit, nbytes):
        given = self.hold.hand_out(limit, nbytes, self.now)
        handed = []
        for part in given:
            for token, body, attempt in zip(part.tokens, part.batch.bodies, part.attempts, strict=True):
                number = int(body)
                assert number not in self.in_hand.values()
                assert number not in self.settled
                again = self.blocked.pop(number, None) is not None or number in self.attempts
                key = self.key[number]
                if not again and key is not None:
                    assert key not in self.blocked.values(), "it overtook a nacked message of its key"
                self.attempts[number] = self.attempts.get(number, 0) + 1
                assert attempt == self.attempts[number]
                self.in_hand[token] = number
                handed.append(token)
        assert len(handed) <= limit
        return multiple(*handed)

    @rule(token=consumes(out), verdict=st.sampled_from([Verdict.ACK, Verdict.REJECT]))
    def settle(self, token, verdict):
        number = self.in_hand.pop(token)
        assert self.hold.settle(verdict, token, token, self.now) == ids(number)
        assert self.hold.settle(verdict, token, token, self.now) == []
        self.settled.add(number)

    @rule(token=consumes(out), delay=st.sampled_from([0.0, 1.0]))
    def nack(self, token, delay):
        number = self.in_hand.pop(token)
        assert self.hold.settle(Verdict.NACK, token, token, self.now + delay) == []
        self.blocked[number] = self.key[number]

    @rule()
    def wait(self):
        self.now += 1.0

    @invariant()
    def nothing_is_lost(self):
        assert sorted(self.hold.ids()) == sorted(ids(*(n for n in range(self.next) if n not in self.settled)))
        assert self.hold.in_hand == len(self.in_hand)
        assert self.hold.count == self.next - len(self.settled)

    def teardown(self):
        for token in list(self.in_hand):
            self.settle(token, Verdict.ACK)
        for _ in range(self.next + 1):
            self.wait()
            for part in self.hold.hand_out(PLENTY, PLENTY, self.now):
                self.hold.settle(Verdict.ACK, part.tokens[0], part.tokens[-1], self.now)
        assert self.hold.count == 0
        assert self.hold.in_hand_bytes == 0


TestHolding = Holding.TestCase
TestHolding.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_run_of_verdicts_crosses_pieces():
    hold = Hold(lease())
    hold.add(ids(1, 2), batch(1, 2))
    hold.add(ids(3, 4), batch(3, 4))
    hold.hand_out(10, PLENTY, 0.0)
    assert hold.settle(Verdict.ACK, 1, 2, 0.0) == ids(2, 3)
    assert hold.settle(Verdict.ACK, 0, 3, 0.0) == ids(1, 4)


def test_bytes_bound_what_goes_out_but_one_always_does():
    hold = Hold(lease())
    hold.add(ids(1, 2, 3), Batch([b"x" * 10] * 3))
    assert [len(part.batch) for part in hold.hand_out(10, 5, 0.0)] == [1]
    assert hold.hand_out(10, 5, 0.0) == []
    assert [len(part.batch) for part in hold.hand_out(10, 20, 0.0)] == [2]


def test_a_lease_ends_by_itself_and_stays_ended():
    now = [0.0]
    held = lease(1.0, lambda: now[0])
    now[0] = 1.0
    assert held.valid
    now[0] = 1.1
    assert not held.valid
    held.renewed = 1.1
    assert not held.valid


# --- a lane, after its connection or its hold was lost --------------------------------------------------------------


def entry(n):
    return [b"%d-0" % n, [b"body", b"%d" % n]]


def test_only_what_got_lost_on_its_way_is_new_where_the_hold_goes_on():
    lane = Lane("s", None)
    lane.take([entry(1), entry(2)])
    (first,) = lane.hand_out(10, PLENTY, 0.0)
    lane.resume([entry(1), entry(2), entry(3)], {b"3-0": 1}, 0.0)
    (more,) = lane.hand_out(10, PLENTY, 0.0)
    assert first.lease is more.lease
    assert (first.lease.valid, bodies([more]), list(more.attempts)) == (True, [3], [1])


def test_everything_comes_under_a_new_lease_where_some_of_it_is_gone():
    lane = Lane("s", None)
    lane.take([entry(1), entry(2)])
    (first,) = lane.hand_out(10, PLENTY, 0.0)
    lane.resume([entry(2)], {b"2-0": 1}, 0.0)
    (again,) = lane.hand_out(10, PLENTY, 0.0)
    assert (first.lease.valid, again.lease.valid) == (False, True)
    assert (bodies([again]), list(again.attempts)) == ([2], [2])


def test_what_was_settled_is_acknowledged_again_and_not_delivered():
    lane = Lane("s", None)
    lane.take([entry(1), entry(2)])
    lane.hand_out(10, PLENTY, 0.0)
    lane.settled = lane.hold.settle(Verdict.ACK, 0, 0, 0.0)
    assert lane.acknowledging() == [b"1-0"]
    lane.resume([entry(1), entry(2)], {}, 0.0)
    assert lane.hand_out(10, PLENTY, 0.0) == []
    assert lane.acknowledging() == [b"1-0"]
    lane.acknowledged(1)
    lane.resume([entry(2)], {}, 0.0)
    assert lane.acknowledging() == []


def test_claimed_entries_are_not_taken_twice_and_trimmed_ones_are_counted():
    lane = Lane("s", None)
    lane.take([entry(1)])
    lane.take_claimed([entry(1), entry(2), [b"3-0", None]], [5, 4, 2])
    fresh, claimed = lane.hand_out(10, PLENTY, 0.0)
    assert (bodies([fresh]), list(fresh.attempts)) == ([1], [1])
    assert (bodies([claimed]), list(claimed.attempts)) == ([2], [4])
    assert (lane.gaps, lane.acknowledging()) == (1, [b"3-0"])
