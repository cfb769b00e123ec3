"""Whatever is picked, closed, updated and excluded in whatever order: the books agree with counting by hand."""

from math import isnan
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from simlink import Member, NoEndpoints, SlowStart, Verdict
from simlink.balancing.registry import STRATEGIES, balancer

NAMES = [f"e{i}" for i in range(6)]


class Books(RuleBasedStateMachine):
    """One balancer, and beside it what must be true of it."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.open = []  # (pick, messages not closed yet)
        self.there = set()
        self.picks = {}  # of those that are there

    @initialize(name=st.sampled_from(sorted(STRATEGIES)), slow=st.booleans(), seed=st.integers(0, 1_000))
    def begin(self, name, slow, seed):
        made = balancer(name)
        self.weighted = made.weighted
        self.made = SlowStart(made) if slow else made
        self.made.bind(lambda: self.now, Random(seed))

    @rule(
        members=st.lists(
            st.tuples(st.sampled_from(NAMES), st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([0.1, 0.5, 1.0])),
            unique_by=lambda each: each[0],
        )
    )
    def update(self, members):
        before = dict(self.made.snapshot())
        self.made.update([Member(name, weight if self.weighted else 1.0, warm) for name, weight, warm in members])
        self.there = {name for name, _, _ in members}
        after = self.made.snapshot()
        assert set(after) == self.there
        for name in self.there & set(before):
            assert (after[name]["latency"], after[name]["picks"]) == (before[name]["latency"], before[name]["picks"])
        self.picks = {name: after[name]["picks"] for name in self.there}

    @rule(
        count=st.sampled_from([1, 1, 2, 500]),
        key=st.none() | st.binary(max_size=3),
        exclude=st.frozensets(st.sampled_from(NAMES), max_size=3),
    )
    def pick(self, count, key, exclude):
        try:
            pick = self.made.pick(count, key=key, exclude=exclude)
        except NoEndpoints:
            assert self.there <= exclude
            return
        assert pick.endpoint in self.there - exclude
        assert (pick.count, pick.left, pick.at) == (count, count, self.now)
        self.picks[pick.endpoint] += count
        self.open.append(pick)

    @precondition(lambda self: self.open)
    @rule(
        data=st.data(),
        verdict=st.sampled_from(Verdict),
        count=st.none() | st.integers(1, 600),
        took=st.sampled_from([0.0, 0.003, 2.0]),
    )
    def close(self, data, verdict, count, took):
        self.now += took
        pick = data.draw(st.sampled_from(self.open))
        left = pick.left
        before = self.made.snapshot().get(pick.endpoint)
        pick.close(verdict, count=count)
        assert pick.left == max(0, left - (left if count is None else count))
        if before is not None and verdict is Verdict.ABANDONED and not pick.failed:
            assert self.made.snapshot()[pick.endpoint]["latency"] == before["latency"]

    @precondition(lambda self: self.there)
    @rule(key=st.none() | st.binary(max_size=3))
    def plan(self, key):
        assert sorted(self.made.plan(key)) == sorted(self.there)

    @rule(seconds=st.sampled_from([0.01, 1.0, 1e5]))
    def wait(self, seconds):
        self.now += seconds

    @invariant()
    def books_agree(self):
        if not hasattr(self, "made"):
            return
        due = dict.fromkeys(self.there, 0)
        for pick in self.open:
            if pick.endpoint in due:
                due[pick.endpoint] += pick.left
        books = self.made.snapshot()
        assert {name: each["in_flight"] for name, each in books.items()} == due
        assert {name: each["picks"] for name, each in books.items()} == self.picks
        assert all(each["latency"] >= 0 and not isnan(each["cost"]) for each in books.values())

    def teardown(self):
        for pick in self.open:
            pick.close(Verdict.ABANDONED)
        if hasattr(self, "made"):
            assert [each["in_flight"] for each in self.made.snapshot().values()] == [0] * len(self.there)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBooks.pytestmark = [pytest.mark.timeout(120)]
