"""What a receiver holds of a partition: a machine of polls, hand-outs, verdicts and due times against a model."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from simlink.channels.kafka.holds import Hold
from simlink.message import Batch, Same, Verdict

ALWAYS = 10**9
SPAN = 25


def body(offset):
    return b"%04d" % offset


def key_of(offset):
    return None if offset % 4 == 3 else b"%d" % (offset % 4)


def records(offsets):
    return Batch([body(o) for o in offsets], keys=[key_of(o) for o in offsets])


class HoldMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.hold = Hold(0, "t[0]")
        self.next = 5
        self.now = 0.0
        self.polled = []
        self.attempts = {}
        self.hand = set()  # what the application holds
        self.nacked = {}  # offset → when it is due
        self.done = set()
        self.first_outs = []

    @rule(gap=st.integers(0, 2), count=st.integers(1, 10), hole=st.booleans())
    def poll(self, gap, count, hole):
        offsets = list(range(self.next + gap, self.next + gap + count))
        if hole and count > 2:
            del offsets[1]
        self.next = offsets[-1] + 1
        dense = offsets[-1] - offsets[0] == len(offsets) - 1
        self.hold.add(range(offsets[0], offsets[-1] + 1) if dense else offsets, records(offsets))
        self.polled += offsets

    @rule(limit=st.integers(1, 12))
    def hand_out(self, limit):
        held_back = {key_of(o) for o in self.nacked if self.nacked[o] > self.now} - {None}

        out = self.hold.hand_out(limit, ALWAYS, SPAN, self.now)

        given = [(o, a, b) for i in out for o, a, b in zip(i.tokens, i.attempts, i.batch.bodies, strict=True)]
        assert len(given) <= limit
        for offset, attempt, content in given:
            assert body(offset) == content
            assert self.attempts.get(offset, 0) + 1 == attempt
            assert offset not in self.hand
            assert offset not in self.done
            if attempt == 1:
                assert key_of(offset) not in held_back
                self.first_outs.append(offset)
            else:
                assert self.nacked.pop(offset) <= self.now
            self.attempts[offset] = attempt
            self.hand.add(offset)

    @precondition(lambda self: self.hand)
    @rule(data=st.data(), verdict=st.sampled_from(list(Verdict)), delay=st.integers(0, 5))
    def settle(self, data, verdict, delay):
        first = data.draw(st.sampled_from(sorted(self.hand)))
        last = data.draw(st.sampled_from([o for o in sorted(self.hand) if o >= first]))
        meant = {o for o in self.hand if first <= o <= last}

        count = self.hold.settle(verdict, first, last, self.now + delay)

        assert len(meant) == count
        self.hand -= meant
        if verdict is Verdict.NACK:
            self.nacked.update(dict.fromkeys(meant, self.now + delay))
        else:
            self.done |= meant

    @rule(seconds=st.integers(1, 6))
    def wait(self, seconds):
        self.now += seconds

    @invariant()
    def in_hand_is_counted(self):
        assert len(self.hand) == self.hold.in_hand
        assert (self.hold.in_hand_bytes > 0) == bool(self.hand)

    @invariant()
    def nothing_unfinished_can_be_committed(self):
        if self.hold.prefix is not None:
            open_ones = [o for o in self.polled if o not in self.done and o in self.attempts]
            assert self.hold.prefix.start <= min(open_ones, default=self.next)
            assert self.hold.prefix.start in {*self.polled, self.hold.prefix.stop}

    @invariant()
    def the_span_is_bounded(self):
        if self.hold.prefix is not None:
            assert self.hold.prefix.span <= SPAN

    @invariant()
    def first_hand_outs_of_a_key_are_in_order(self):
        for key in (b"0", b"1", b"2"):
            seen = [o for o in self.first_outs if key_of(o) == key]
            assert sorted(seen) == seen

    def teardown(self):
        # Whatever happened, patience delivers every record and finishes the partition.
        for _ in range(len(self.polled) + 5):
            self.now += 10
            out = self.hold.hand_out(1000, ALWAYS, SPAN, self.now)
            for incoming in out:
                self.hold.settle(Verdict.ACK, incoming.tokens[0], incoming.tokens[-1], 0)
                self.done.update(incoming.tokens)
            for offset in sorted(self.hand):
                self.hold.settle(Verdict.ACK, offset, offset, 0)
                self.done.add(offset)
            self.hand.clear()
        assert set(self.polled) == self.done
        if self.polled:
            assert self.next == self.hold.prefix.start


TestHold = HoldMachine.TestCase
TestHold.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_offsets_seen_in_an_earlier_assignment_are_second_attempts():
    hold = Hold(0, "t[0]", seen=6)
    hold.add(range(5, 9), records(range(5, 9)))

    (incoming,) = hold.hand_out(10, ALWAYS, SPAN, 0.0)

    assert list(incoming.attempts) == [2, 2, 1, 1]


def test_a_verdict_over_a_range_leaves_out_what_is_held_back():
    hold = Hold(0, "t[0]")
    batch = Batch([b"a", b"b", b"c"], keys=[b"k", b"k", b"x"])
    hold.add(range(1), Batch([b"0"], keys=[b"k"]))
    hold.hand_out(1, ALWAYS, SPAN, 0.0)
    hold.settle(Verdict.NACK, 0, 0, 5.0)
    hold.add(range(1, 4), batch)

    (free,) = hold.hand_out(10, ALWAYS, SPAN, 0.0)
    hold.settle(Verdict.ACK, 0, 3, 0.0)

    assert list(free.tokens) == [3]
    assert hold.prefix.start == 0
    again = hold.hand_out(10, ALWAYS, SPAN, 6.0)
    assert [list(i.tokens) for i in again] == [[0], [1], [2]]
    assert [i.attempts[0] for i in again] == [2, 1, 1]


def test_bytes_bound_what_goes_out_but_one_large_message_passes():
    hold = Hold(0, "t[0]")
    hold.add(range(4), Batch([b"x" * 100] * 4, keys=Same(None, 4)))

    first = hold.hand_out(10, 250, SPAN, 0.0)
    nothing = hold.hand_out(10, 50, SPAN, 0.0)
    hold.settle(Verdict.ACK, 0, 1, 0.0)
    large = hold.hand_out(10, 50, SPAN, 0.0)

    assert tuple([len(i.tokens) for i in out] for out in (first, nothing, large)) == ([2], [], [1])


def test_the_offset_that_blocks_is_named():
    hold = Hold(0, "t[0]")
    hold.add(range(50), records(range(50)))
    hold.hand_out(100, ALWAYS, SPAN, 0.0)
    hold.settle(Verdict.ACK, 1, SPAN, 0.0)

    assert hold.hand_out(100, ALWAYS, SPAN, 0.0) == []
    assert hold.blocked_by(SPAN) == 0


def outs(hold):
    return [o for incoming in hold.hand_out(100, ALWAYS, 1000, 0.0) for o in incoming.tokens]


def test_what_was_settled_before_the_partition_was_lost_goes_out_once():
    # The group had 10 when the partition was lost; everything below 20 was settled, and 20 … 22 were out.
    hold = Hold(0, "t[0]", 22, settled=20, stored=10)
    hold.add(range(10, 15), records(range(10, 15)))
    hold.add([17, 19, 21, 22, 23], records([17, 19, 21, 22, 23]))
    given = hold.hand_out(100, ALWAYS, 1000, 0.0)
    assert [(o, a) for i in given for o, a in zip(i.tokens, i.attempts, strict=True)] == [(21, 2), (22, 2), (23, 1)]
    # The group is told of it as soon as somebody asks.
    assert hold.to_commit == 21
    hold.settle(Verdict.ACK, 21, 23, 0.0)
    assert hold.to_commit == 24


def test_a_group_that_was_moved_back_gets_everything_again():
    hold = Hold(0, "t[0]", 22, settled=20, stored=10)
    hold.add(range(9, 12), records(range(9, 12)))
    assert outs(hold) == [9, 10, 11]


def test_a_topic_that_was_made_anew_is_read_from_its_start():
    hold = Hold(0, "t[0]", 22, settled=20, stored=10)
    hold.move_to(0)
    hold.add(range(3), records(range(3)))
    assert outs(hold) == [0, 1, 2]


def test_what_is_settled_and_not_committed_is_counted():
    hold = Hold(0, "t[0]")
    assert hold.uncommitted == 0
    hold.add(range(5, 15), records(range(5, 15)))
    assert outs(hold) == list(range(5, 15))
    hold.settle(Verdict.ACK, 5, 7, 0.0)
    hold.settle(Verdict.ACK, 9, 9, 0.0)
    assert hold.uncommitted == 3
    hold.committed = 8
    assert hold.uncommitted == 0
    hold.committed = -1  # a commit failed: nobody knows
    assert hold.uncommitted == 0
