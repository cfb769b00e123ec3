"""The window against a model of single messages: bounds, totals, receipts that only go forward, order of what goes
out again."""

from dataclasses import dataclass

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from simlink.channels.driver import Outcome, OutcomeKind
from simlink.channels.window import State, Totals, Window
from simlink.message import Batch

FORWARD = {
    State.PENDING: set(State),
    State.CONFIRMED: {State.CONFIRMED, State.SETTLED, State.REJECTED},
    State.UNKNOWN: {State.UNKNOWN, State.CONFIRMED, State.SETTLED, State.REJECTED},
    State.FAILED: {State.FAILED},
    State.SETTLED: {State.SETTLED},
    State.REJECTED: {State.REJECTED},
}
FINAL = {
    OutcomeKind.CONFIRMED: State.CONFIRMED,
    OutcomeKind.FAILED: State.FAILED,
    OutcomeKind.UNKNOWN: State.UNKNOWN,
    OutcomeKind.SETTLED: State.SETTLED,
    OutcomeKind.REJECTED: State.REJECTED,
}


@dataclass
class Row:
    """One message, as the model knows it."""

    number: int
    size: int
    entry: object
    at: int  # its row in the entry
    state: State = State.PENDING
    position: int | None = None  # where it is in flight; None while it waits to be submitted
    ambiguous: bool = False
    late: bool = False  # accepted after it had counted as unknown


class WindowMachine(RuleBasedStateMachine):
    retains = False

    @initialize(max_messages=st.integers(1, 30), max_bytes=st.integers(1, 60))
    def make(self, max_messages, max_bytes):
        self.window = Window(max_messages=max_messages, max_bytes=max_bytes, retains=self.retains)
        self.rows = []
        self.next_position = 0
        self.resent = self.returned = 0
        self.run_totals = Totals()
        self.run_rows = []

    # --- rules ------------------------------------------------------------------------------------------------------

    @rule(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8), of_a_run=st.booleans(), at_once=st.booleans())
    def add(self, sizes, of_a_run, at_once):
        sizes = sizes[: self.window.room()]
        if not sizes:
            return
        first = len(self.rows)
        batch = Batch([bytes(size) for size in sizes], sequences=range(first, first + len(sizes)))
        totals = self.run_totals if of_a_run else None
        position = None
        if at_once and not self.window.waiting:
            entry, position = self.window.launch(batch, totals)
            assert position == self.next_position, "positions are dense"
            self.next_position += len(batch)
        else:
            entry = self.window.add(batch, totals)
        new = [Row(first + at, size, entry, at) for at, size in enumerate(sizes)]
        if position is not None:
            for at, row in enumerate(new):
                row.position = position + at
        self.rows += new
        if of_a_run:
            self.run_rows += new

    @rule(flights=st.integers(1, 4))
    def submit(self, flights):
        for _ in range(flights):
            waiting = [row for row in self.rows if self.waits(row)]
            assert bool(waiting) == self.window.waiting
            flight = self.window.next_flight()
            if flight is None:
                assert not waiting
                return
            batch, position = flight
            assert position == self.next_position, "positions are dense"
            self.next_position += len(batch)
            numbers = list(batch.sequences)
            assert numbers == [row.number for row in waiting][: len(numbers)], "not in the original order"
            for at, number in enumerate(numbers):
                row = self.rows[number]
                row.position = position + at
                if row.ambiguous:
                    self.resent += 1
                    row.ambiguous = False

    @precondition(lambda self: self.next_position)
    @rule(
        kind=st.sampled_from(list(OutcomeKind)),
        first=st.integers(0, 200),
        length=st.integers(1, 12),
        ambiguous=st.booleans(),
    )
    def report(self, kind, first, length, ambiguous):
        if not self.retains and kind in {OutcomeKind.SETTLED, OutcomeKind.REJECTED}:
            return  # a broker's driver never says so
        first %= self.next_position
        stop = min(first + length, self.next_position)
        error = ValueError("why") if kind in {OutcomeKind.FAILED, OutcomeKind.UNKNOWN} else None
        self.window.apply([Outcome(kind, first, stop, ambiguous=ambiguous, error=error)])
        for row in self.rows:
            if row.position is None or not first <= row.position < stop:
                continue
            if kind is OutcomeKind.RETURNED:
                if self.holds(row):
                    row.position, row.ambiguous = None, ambiguous
                    self.returned += 1
            elif kind is OutcomeKind.RESENT:
                self.resent += self.holds(row)
            elif FINAL[kind] in FORWARD[row.state]:
                row.late = row.late or row.state is State.UNKNOWN
                row.state = FINAL[kind]

    # --- the model --------------------------------------------------------------------------------------------------

    def holds(self, row):
        """Whether the window still keeps it."""
        return row.state is State.PENDING or (self.retains and row.state is State.CONFIRMED)

    def waits(self, row):
        return row.position is None and self.holds(row)

    @invariant()
    def the_books_agree(self):
        if not hasattr(self, "window"):
            return
        held = [row for row in self.rows if self.holds(row)]
        assert len(held) == self.window.messages
        assert sum(row.size for row in held) == self.window.nbytes
        assert sum(row.state is State.PENDING for row in self.rows) == self.window.unconfirmed
        # A message that counted as unknown and was accepted after all is kept, whatever took its place meanwhile.
        assert self.window.messages - sum(row.late for row in held) <= self.window.max_messages
        self.totals_agree(self.window.totals, self.rows)
        assert (self.window.totals.resent, self.window.totals.returned) == (self.resent, self.returned)
        self.totals_agree(self.run_totals, self.run_rows)

    @staticmethod
    def totals_agree(totals, rows):
        def count(*states):
            return sum(row.state in states for row in rows)

        assert (totals.sent, totals.bytes) == (len(rows), sum(row.size for row in rows))
        assert totals.failed == count(State.FAILED)
        assert totals.unknown == count(State.UNKNOWN)
        assert totals.confirmed == count(State.CONFIRMED, State.SETTLED, State.REJECTED)
        assert (totals.settled, totals.rejected) == (count(State.SETTLED), count(State.REJECTED))

    @invariant()
    def every_entry_knows_its_rows(self):
        if not hasattr(self, "window"):
            return
        for entry in {id(row.entry): row.entry for row in self.rows}.values():
            mine = [row for row in self.rows if row.entry is entry]
            for state in State:
                assert [row.at for row in mine if row.state is state] == entry.rows_in(state)
                assert entry.counts[state] == len(entry.rows_in(state))
            assert entry.pending == sum(row.state is State.PENDING for row in mine)
            assert entry.unresolved == sum(self.holds(row) for row in mine)
            if entry.counts[State.FAILED] or entry.counts[State.UNKNOWN]:
                assert isinstance(entry.error, ValueError)

    @invariant()
    def the_lowest_that_may_come_again_is_known(self):
        if not hasattr(self, "window"):
            return
        low = self.window.low()
        held = [row.number for row in self.rows if self.holds(row)]
        if held:
            assert low is not None
            assert low <= min(held)

    def teardown(self):
        """When everything is resolved nothing is kept, not even the places where it was."""
        if not hasattr(self, "window"):
            return
        while self.window.next_flight():
            pass
        last = OutcomeKind.SETTLED if self.retains else OutcomeKind.CONFIRMED
        self.window.apply([Outcome(last, 0, self.window.next_position)])
        assert (self.window.messages, self.window.nbytes, self.window.unconfirmed) == (0, 0, 0)
        assert self.window.low() is None
        assert len(self.window._flights) - self.window._head == 0


class RetainingWindowMachine(WindowMachine):
    retains = True


def sent(window, count, *, first=0):
    entry = window.add(Batch([b"x"] * count, sequences=range(first, first + count)))
    window.next_flight()
    return entry


def test_one_unknown_message_does_not_keep_all_that_came_after_it():
    window = Window(max_messages=10, max_bytes=1_000, retains=False)
    entry = sent(window, 1)
    window.apply([Outcome(OutcomeKind.UNKNOWN, 0, 1, error=TimeoutError())])
    for n in range(1, 5_000):
        sent(window, 1, first=n)
        window.apply([Outcome(OutcomeKind.CONFIRMED, n, n + 1)])

    assert len(window._flights) <= 300
    assert window.low() is None, "nothing will be sent again"
    window.apply([Outcome(OutcomeKind.CONFIRMED, 0, 1)])
    assert entry.counts[State.CONFIRMED] == 1, "a late report still finds it"


def test_what_stays_unknown_for_ever_is_bounded():
    window = Window(max_messages=10, max_bytes=1_000, retains=False)
    for n in range(5_000):
        sent(window, 1, first=n)
        window.apply([Outcome(OutcomeKind.UNKNOWN, n, n + 1, error=TimeoutError())])

    assert window.totals.unknown == 5_000
    assert len(window._flights) <= 300


def test_a_cumulative_report_does_not_settle_what_was_given_back_below_it():
    window = Window(max_messages=10, max_bytes=1_000, retains=True)
    entry = sent(window, 4)
    window.apply([Outcome(OutcomeKind.RETURNED, 1, 3, ambiguous=True)])
    window.apply([Outcome(OutcomeKind.SETTLED, 0, 4)])

    assert entry.rows_in(State.PENDING) == [1, 2]
    batch, position = window.next_flight()
    assert (list(batch.sequences), position) == ([1, 2], 4)


def test_giving_back_twice_sends_again_once():
    window = Window(max_messages=10, max_bytes=1_000, retains=True)
    sent(window, 4)
    window.apply([Outcome(OutcomeKind.RETURNED, 1, 3), Outcome(OutcomeKind.RETURNED, 0, 4)])
    out = []
    while flight := window.next_flight():
        out += flight[0].sequences

    assert out == [0, 1, 2, 3]


def test_an_unknown_message_that_was_accepted_after_all_is_kept_until_it_is_settled():
    window = Window(max_messages=10, max_bytes=1_000, retains=True)
    sent(window, 2)
    window.apply([Outcome(OutcomeKind.UNKNOWN, 0, 2, error=TimeoutError())])
    assert window.messages == 0
    window.apply([Outcome(OutcomeKind.CONFIRMED, 0, 2)])
    assert window.messages == 2
    window.apply([Outcome(OutcomeKind.SETTLED, 0, 2)])

    assert (window.messages, window.nbytes) == (0, 0)


def test_abandoning_tells_what_surely_failed_from_what_nobody_knows():
    window = Window(max_messages=10, max_bytes=1_000, retains=False)
    out, back, again = sent(window, 1), sent(window, 1, first=1), sent(window, 1, first=2)
    window.apply([Outcome(OutcomeKind.RETURNED, 1, 2), Outcome(OutcomeKind.RETURNED, 2, 3, ambiguous=True)])
    never = window.add(Batch([b"x"]))
    window.abandon(ConnectionError("the end"))

    states = [State(next(i for i, n in enumerate(e.counts) if n)) for e in (out, back, again, never)]
    assert states == [State.UNKNOWN, State.FAILED, State.UNKNOWN, State.FAILED]
    assert (window.messages, window.unconfirmed) == (0, 0)


for machine in (WindowMachine, RetainingWindowMachine):
    machine.TestCase.settings = settings(
        max_examples=150, stateful_step_count=40, deadline=None, phases=set(Phase) - {Phase.explain}
    )
TestWindow = WindowMachine.TestCase
TestRetainingWindow = RetainingWindowMachine.TestCase
