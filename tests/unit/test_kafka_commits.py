"""The contiguous prefix against the plainest model there is: a set of offsets."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from simlink.channels.kafka.commits import Prefix


class PrefixMachine(RuleBasedStateMachine):
    """`done` and `out` are sets; what may be committed is the lowest offset that is not done."""

    def __init__(self):
        super().__init__()
        self.start = 100
        self.prefix = Prefix(self.start)
        self.stop = self.start
        self.out = set()
        self.done = set()

    @rule(gap=st.integers(0, 4), count=st.integers(1, 12))
    def hand_out(self, gap, count):
        first = self.stop + gap
        self.prefix.hand_out(first, first + count - 1)
        self.done.update(range(self.stop, first))
        self.out.update(range(first, first + count))
        self.stop = first + count

    @precondition(lambda self: self.stop > self.start)
    @rule(data=st.data())
    def hand_out_again(self, data):
        first = data.draw(st.integers(self.start, self.stop - 1))
        self.prefix.hand_out(first, data.draw(st.integers(first, self.stop - 1)))

    @rule(back=st.integers(-5, 60), count=st.integers(1, 20))
    def finish(self, back, count):
        first = self.stop - back
        wanted = set(range(first, first + count)) & (self.out | self.done)

        fresh = self.prefix.finish(first, first + count - 1)

        assert len(wanted - self.done) == fresh
        self.done |= wanted

    @invariant()
    def only_what_is_done_can_be_committed(self):
        expected = self.start
        while expected in self.done:
            expected += 1

        assert (expected, self.stop) == (self.prefix.start, self.prefix.stop)
        assert self.stop - expected == self.prefix.span
        assert (expected if expected < self.stop else None) == self.prefix.blocked_by

    @invariant()
    def every_offset_knows_whether_it_is_done(self):
        expected = [o < self.start or o in self.done for o in range(self.start - 2, self.stop + 2)]

        assert expected == [self.prefix.is_done(o) for o in range(self.start - 2, self.stop + 2)]


TestPrefix = PrefixMachine.TestCase
TestPrefix.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_prefix_moves_over_runs_that_were_finished_out_of_order():
    prefix = Prefix(0)
    prefix.hand_out(0, 9)

    moves = [prefix.finish(5, 9) and prefix.start, prefix.finish(1, 3) and prefix.start]
    prefix.finish(0, 0)
    moves.append(prefix.start)
    prefix.finish(4, 4)
    moves.append(prefix.start)

    assert moves == [0, 0, 4, 10]


def test_holes_in_the_log_hold_nothing_up():
    prefix = Prefix(10)
    prefix.hand_out(10, 11)
    prefix.hand_out(20, 21)

    prefix.finish(10, 11)

    assert prefix.start == 20
