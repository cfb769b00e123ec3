"""The portable sending end over a scripted driver: what it does when the link breaks, fills up, dies or is shared."""

import itertools
import math
import threading
import time
from collections import deque

import pytest

import simlink.channels.sender
from simlink.channels.driver import Outcome, OutcomeKind, SenderDriver
from simlink.channels.sender import Sender
from simlink.channels.window import State, Window
from simlink.errors import ChannelClosed, ConnectError, ConnectTimeout, SendError, SendTimeout, TransportError
from simlink.message import Batch

PATIENCE = 20.0
CONFIRMED, RETURNED, SETTLED = OutcomeKind.CONFIRMED, OutcomeKind.RETURNED, OutcomeKind.SETTLED


def refused(*, retryable=True):
    return ConnectError("refused", url="fake://x", retryable=retryable)


def broken(*, retryable=True):
    return TransportError("reset by peer", url="fake://x", retryable=retryable)


class Driver(SenderDriver):
    """Does what it is told. ``script`` holds what `open` raises (None: nothing) and, after that, ``otherwise``."""

    def __init__(self, *, script=(), otherwise=None, confirms=False, idle=math.inf):
        self.script = deque(script)
        self.otherwise = otherwise
        self.confirms = confirms
        self.idle = idle
        self.opened_at = []
        self.submitted = []
        self.closed = False
        self.at_close = []
        self.news = deque()
        self.changed = threading.Condition()
        self.inside = 0

    @property
    def idle_interval(self):
        return self.idle

    def open(self, timeout):
        self.opened_at.append(time.monotonic())
        problem = self.script.popleft() if self.script else self.otherwise
        if problem is not None:
            raise problem

    def submit(self, batch, position):
        assert self.submitted_messages == position, "positions are dense"
        self.submitted.append((list(batch.sequences), position))
        if self.confirms:
            self.say(Outcome(CONFIRMED, position, position + len(batch)))

    def outcomes(self, timeout):
        with self.changed:
            self.inside += 1
            assert self.inside == 1, "two threads in the driver"
            if not self.news:
                self.changed.wait(timeout)
            self.inside -= 1
            out = []
            while self.news:
                if isinstance(self.news[0], Exception):
                    if out:
                        break
                    raise self.news.popleft()
                out.append(self.news.popleft())
            return out

    def close(self, timeout):
        self.closed = True
        self.news += self.at_close

    def wake(self):
        with self.changed:
            self.changed.notify_all()

    def say(self, *news):
        with self.changed:
            self.news += news
            self.changed.notify_all()

    @property
    def submitted_messages(self):
        return sum(len(numbers) for numbers, _ in self.submitted)

    @property
    def numbers(self):
        return [number for numbers, _ in self.submitted for number in numbers]


@pytest.fixture
def make():
    senders = []

    def build(driver, *, max_messages=100, retains=False):
        window = Window(max_messages=max_messages, max_bytes=10_000, retains=retains)
        sender = Sender(driver, window, url="fake://x")
        senders.append(sender)
        return sender

    yield build
    for sender in senders:
        sender.close(0.0)
        assert sender._backstop is None or not sender._backstop.is_alive()


def messages(*numbers):
    return Batch([b"x"] * len(numbers), sequences=list(numbers))


def eventually(done, what):
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.002)


# --- connecting -----------------------------------------------------------------------------------------------------


def test_the_first_submit_opens_and_waits_for_a_peer_with_growing_pauses(make):
    driver = Driver(script=[refused(), refused(), refused(), None], confirms=True)
    sender = make(driver)
    entry = sender.submit(messages(0), PATIENCE)

    assert sender.wait(entry, PATIENCE)
    pauses = [b - a for a, b in itertools.pairwise(driver.opened_at)]
    assert [pause >= least for pause, least in zip(pauses, [0.01, 0.02, 0.04], strict=True)] == [True] * 3


def test_nobody_there_in_time_is_a_connect_timeout_and_leaves_nothing_in_the_window(make):
    sender = make(Driver(otherwise=refused()))
    with pytest.raises(ConnectTimeout, match="refused") as caught:
        sender.submit(messages(0), 0.05)

    assert isinstance(caught.value.__cause__, ConnectError)
    assert sender.window.messages == 0


def test_what_the_last_whole_attempt_came_to_is_told_and_not_that_the_next_was_cut_short(make, monkeypatch):
    silent = ConnectTimeout("does not answer", url="fake://x", retryable=True)
    with pytest.raises(ConnectTimeout, match="refused"):
        make(Driver(script=[refused()], otherwise=silent)).submit(messages(0), 0.05)

    monkeypatch.setattr(simlink.channels.sender, "_OPEN_SLICE", 1e-6)
    with pytest.raises(ConnectTimeout, match="does not answer"):
        make(Driver(script=[refused()], otherwise=silent)).submit(messages(0), 0.05)


def test_a_refusal_for_good_is_told_at_once(make):
    driver = Driver(otherwise=refused(retryable=False))
    with pytest.raises(ConnectError, match="refused"):
        make(driver).submit(messages(0), PATIENCE)

    assert len(driver.opened_at) == 1


def test_what_the_operating_system_says_is_a_connect_error(make):
    with pytest.raises(ConnectError, match=r"fake://x: .*No route") as caught:
        make(Driver(otherwise=OSError(113, "No route to host"))).submit(messages(0), PATIENCE)

    assert isinstance(caught.value.__cause__, OSError)


def test_closing_ends_a_wait_for_a_peer(make):
    driver = Driver(otherwise=refused())
    sender = make(driver)
    raised = []

    def send():
        try:
            sender.submit(messages(0), PATIENCE)
        except ChannelClosed as error:
            raised.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    eventually(lambda: len(driver.opened_at) > 1, "the sender tries")
    sender.close(1.0)
    thread.join(PATIENCE)

    assert len(raised) == 1
    assert driver.closed


# --- a link that breaks ---------------------------------------------------------------------------------------------


def test_what_comes_back_goes_out_again_in_order_and_ahead_of_anything_new(make):
    driver = Driver()
    sender = make(driver)
    first = sender.submit(messages(0, 1), PATIENCE)
    second = sender.submit(messages(2, 3), PATIENCE)
    driver.say(broken())
    sender.pump()
    third = sender.submit(messages(4), PATIENCE)
    assert driver.numbers == [0, 1, 2, 3], "nothing is submitted while the link is down"
    driver.say(Outcome(RETURNED, 2, 4), Outcome(RETURNED, 0, 2, ambiguous=True))
    eventually(lambda: driver.submitted_messages == 9, "all is sent again")

    assert driver.numbers == [0, 1, 2, 3, 0, 1, 2, 3, 4]
    driver.say(Outcome(CONFIRMED, 4, 9))
    assert all(sender.wait(entry, PATIENCE) for entry in (first, second, third))
    totals = sender.window.totals
    assert (totals.resent, totals.returned, totals.confirmed) == (2, 4, 5)
    assert sender.reconnects == 1


def test_reconnecting_backs_off(make):
    driver = Driver(script=[None, refused(), refused(), None])
    sender = make(driver)
    entry = sender.submit(messages(0), PATIENCE)
    driver.say(broken())
    sender.pump()
    driver.say(Outcome(RETURNED, 0, 1))
    eventually(lambda: driver.submitted_messages == 2, "it is sent again")
    driver.say(Outcome(CONFIRMED, 1, 2))

    assert sender.wait(entry, PATIENCE)
    pauses = [b - a for a, b in itertools.pairwise(driver.opened_at[1:])]
    assert [pause >= least for pause, least in zip(pauses, [0.02, 0.04], strict=True)] == [True] * 2
    assert (sender.reconnects, sender.window.totals.resent) == (1, 0)


def test_a_link_that_is_broken_for_good_leaves_everything_unknown(make):
    driver = Driver()
    sender = make(driver)
    entry = sender.submit(messages(0, 1), PATIENCE)
    driver.say(broken(retryable=False))

    assert sender.wait(entry, PATIENCE)
    assert entry.counts[State.UNKNOWN] == 2
    assert "reset by peer" in str(entry.error)
    with pytest.raises(TransportError, match="reset by peer"):
        sender.submit(messages(2), PATIENCE)
    assert sender.close(PATIENCE) == 0
    assert driver.closed


def test_a_defect_in_a_driver_reaches_the_caller_also_from_the_backstop(make):
    driver = Driver()
    sender = make(driver)
    entry = sender.submit(messages(0), PATIENCE)
    driver.say(ZeroDivisionError("a defect"))
    eventually(lambda: entry.pending == 0, "the backstop meets the defect")

    with pytest.raises(SendError, match="a defect") as caught:
        sender.submit(messages(1), PATIENCE)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_a_full_window_blocks_and_then_times_out(make):
    driver = Driver()
    sender = make(driver, max_messages=2)
    sender.submit(messages(0, 1), PATIENCE)
    assert not sender.has_room()
    with pytest.raises(SendTimeout, match=r"2 messages, 2 bytes.*read concurrently"):
        sender.submit(messages(2), 0.05)
    driver.say(Outcome(CONFIRMED, 0, 1))

    assert sender.has_room()
    sender.submit(messages(2), 0.05)
    assert driver.numbers == [0, 1, 2]


def test_a_full_window_over_a_broken_link_says_so(make):
    driver = Driver(script=[None], otherwise=refused())
    sender = make(driver, max_messages=1)
    sender.submit(messages(0), PATIENCE)
    driver.say(broken())
    sender.pump()
    with pytest.raises(SendTimeout, match=r"the link is down: (reset by peer|refused)"):
        sender.submit(messages(1), 0.05)


def test_what_is_accepted_counts_until_it_is_settled(make):
    driver = Driver(confirms=True)
    sender = make(driver, max_messages=2, retains=True)
    entry = sender.submit(messages(0, 1), PATIENCE)
    assert sender.wait(entry, PATIENCE)
    with pytest.raises(SendTimeout):
        sender.submit(messages(2), 0.05)
    driver.say(Outcome(SETTLED, 0, 2))

    sender.submit(messages(2), PATIENCE)
    assert sender.wait_confirmed(PATIENCE)
    driver.say(Outcome(SETTLED, 2, 3))
    assert sender.wait_resolved(PATIENCE)


# --- the backstop ---------------------------------------------------------------------------------------------------


def test_confirmations_are_read_while_no_caller_is_there(make):
    driver = Driver(confirms=True)
    sender = make(driver)
    first = sender.submit(messages(0), PATIENCE)
    eventually(lambda: first.pending == 0, "the backstop reads the confirmation")
    # It has nothing to do now, and must come back when there is something again.
    eventually(lambda: sender._dozing, "the backstop rests")
    second = sender.submit(messages(1), PATIENCE)
    eventually(lambda: second.pending == 0, "the backstop is awake again")


def test_there_is_no_backstop_where_nothing_needs_it(make):
    sender = make(Driver())
    assert sender._backstop is None
    sender.submit(messages(0), PATIENCE)
    backstop = sender._backstop
    assert backstop.is_alive()
    sender.close(0.0)

    assert not backstop.is_alive()


# --- closing --------------------------------------------------------------------------------------------------------


def test_close_waits_for_what_is_in_flight(make):
    driver = Driver()
    sender = make(driver)
    entry = sender.submit(messages(0), PATIENCE)
    closing = threading.Thread(target=lambda: left.append(sender.close(PATIENCE)))
    left = []
    closing.start()
    eventually(lambda: sender._closing, "close() begins")
    driver.say(Outcome(CONFIRMED, 0, 1))
    closing.join(PATIENCE)

    assert (left, entry.counts[State.CONFIRMED], driver.closed) == ([0], 1, True)


def test_close_without_a_peer_does_not_wait(make):
    driver = Driver(script=[None], otherwise=refused())
    sender = make(driver)
    entry = sender.submit(messages(0, 1), PATIENCE)
    driver.say(broken())
    sender.pump()
    started = time.monotonic()

    assert sender.close(600.0) == 2
    assert time.monotonic() - started < PATIENCE
    assert entry.counts[State.UNKNOWN] == 2


def test_close_before_anything_was_sent_opens_nothing(make):
    driver = Driver()
    assert make(driver).close(PATIENCE) == 0
    assert (driver.opened_at, driver.closed) == ([], True)


def test_what_a_driver_learns_while_it_closes_still_counts(make):
    driver = Driver()
    driver.at_close = [Outcome(CONFIRMED, 0, 1)]
    sender = make(driver)
    entry = sender.submit(messages(0, 1), PATIENCE)

    assert sender.close(0.0) == 1
    assert (entry.counts[State.CONFIRMED], entry.counts[State.UNKNOWN]) == (1, 1)


def test_after_close_nothing_is_sent_and_closing_again_does_nothing(make):
    sender = make(Driver())
    sender.close(PATIENCE)
    with pytest.raises(ChannelClosed):
        sender.submit(messages(0), PATIENCE)
    assert sender.close(PATIENCE) == 0


# --- many threads ---------------------------------------------------------------------------------------------------


def test_many_threads_share_one_sender_and_a_small_window(make):
    driver = Driver(confirms=True)
    sender = make(driver, max_messages=7)
    entries, problems = [], []

    def send(thread):
        try:
            for n in range(40):
                entry = sender.submit(messages(thread * 1_000 + 2 * n, thread * 1_000 + 2 * n + 1), PATIENCE)
                entries.append(entry)
                if n % 10 == 0:
                    assert sender.wait(entry, PATIENCE)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert problems == []
    assert sender.wait_confirmed(PATIENCE)
    assert [entry.counts[State.CONFIRMED] for entry in entries] == [2] * 240
    for n in range(6):
        mine = [number for number in driver.numbers if number // 1_000 == n]
        assert mine == list(range(n * 1_000, n * 1_000 + 80)), "a thread's messages go out in its order"
