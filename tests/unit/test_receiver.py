"""The portable receiving end over a scripted driver: holds that are lost, second copies, verdicts on their way."""

import itertools
import threading
import time
from collections import deque
from types import SimpleNamespace

import pytest

from simlink.channels.driver import Capabilities, Incoming, Kept, Lease, Nack, Order, ReceiverDriver
from simlink.channels.receiver import Receiver
from simlink.errors import (
    ChannelClosed,
    ConfigError,
    ConnectError,
    ConnectTimeout,
    DecodeError,
    ReceiveError,
    ReceiveTimeout,
    TransportError,
)
from simlink.message import Batch, Same, Verdict
from simlink.serializers.json import Json

PATIENCE = 20.0
PRODUCER = bytes(16)
ACK, NACK, REJECT = Verdict.ACK, Verdict.NACK, Verdict.REJECT


class Driver(ReceiverDriver):
    """Hands out what it is given, as a driver does; records the verdicts."""

    def __init__(self, *, script=()):
        self.script = deque(script)
        self.opens = 0
        self.up = False
        self.closed = False
        self.tended = 0
        self.reserved = []
        self.limits = []
        self.waits = 0
        self.news = deque()
        self.verdicts = []
        self.changed = threading.Condition()
        self.woken = False
        self.assigned_now = True

    @property
    def assigned(self):
        return self.assigned_now

    def open(self, timeout):
        self.opens += 1
        self.granted = timeout
        problem = self.script.popleft() if self.script else None
        if problem is not None:
            raise problem
        self.up = True

    def receive(self, limit, timeout):
        assert self.up, "received from while it is not open"
        self.limits.append(limit)
        with self.changed:
            if not self.news:
                self.waits += 1
                self.changed.notify_all()
                self.changed.wait_for(lambda: self.news or self.woken, timeout)
                self.woken = False
            if not self.news:
                return []
            found = self.news.popleft()
            if isinstance(found, Exception):
                self.up = False
                raise found
            return [found]

    def settle(self, settlements):
        # As the contract says: of a lost lease nothing reaches the wire.
        self.verdicts += [
            (s.verdict, token, s.lease.name)
            for s in settlements
            if s.lease.valid
            for token in range(s.first, s.last + 1)
        ]
        self.delays = [s.delay for s in settlements]

    def tend(self):
        assert self.up, "tended while it is not open"
        self.tended += 1

    def wake(self):
        with self.changed:
            self.woken = True
            self.changed.notify_all()

    def reserve(self, count):
        self.reserved.append(count)

    def close(self, timeout):
        self.closed = True

    def give(self, *news):
        with self.changed:
            self.news += news
            self.changed.notify_all()


def incoming(numbers, lease, *, token=None, attempt=1, body=b"%d", identified=True):
    numbers = list(numbers)
    first = numbers[0] if token is None else token
    batch = Batch(
        [body % n if b"%" in body else body for n in numbers],
        producers=Same(PRODUCER, len(numbers)) if identified else None,
        sequences=numbers if identified else None,
    )
    return Incoming(batch, range(first, first + len(numbers)), Same(attempt, len(numbers)), lease)


@pytest.fixture
def make():
    receivers = []

    def build(driver, *, manual=False, kept=Kept.DURABLE, **options):
        caps = Capabilities(kept=kept, order=Order.EXCLUSIVE, nack=Nack.EMULATED)
        channel = SimpleNamespace(url="fake://x", capabilities=caps)
        given = {"subscription": None, "prefetch": 500, "idle": None, "settle_timeout": None, **options}
        receiver = Receiver(channel, driver, Json(), manual=manual, **given)
        receivers.append(receiver)
        return receiver

    yield build
    for receiver in receivers:
        receiver.close()
        assert receiver._tender is None or not receiver._tender.is_alive()


def eventually(done, what):
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.002)


# --- holds that are lost --------------------------------------------------------------------------------------------


def test_a_verdict_under_a_lost_hold_does_nothing_says_so_and_is_counted(make):
    driver, lease = Driver(), Lease("old")
    rx = make(driver, manual=True)
    driver.give(incoming([0, 1], lease))
    first, second = rx.get(), rx.get()
    assert first.ack() is True
    lease.valid = False

    assert (second.ack(), second.reject(), second.nack()) == (False, False, False)
    rx.close()
    assert [v for v in driver.verdicts if v[1] == 1] == []
    assert rx.stats()["stale"] == 3


def test_what_comes_again_while_it_is_held_is_adopted_and_not_delivered_twice(make):
    driver, old, new = Driver(), Lease("old"), Lease("new")
    rx = make(driver, manual=True)
    driver.give(incoming([0, 1], old))
    held = [rx.get(), rx.get()]
    old.valid = False
    driver.give(incoming([0, 1, 2], new, token=70, attempt=2))

    third = rx.get()
    assert (third.value, third.attempt) == (2, 2)
    assert [delivery.ack() for delivery in (*held, third)] == [True] * 3
    rx.close()
    assert sorted(driver.verdicts) == [(ACK, 70, "new"), (ACK, 71, "new"), (ACK, 72, "new")]


def test_what_was_settled_under_a_lost_hold_is_not_adopted(make):
    driver, old, new = Driver(), Lease("old"), Lease("new")
    rx = make(driver, manual=True)
    driver.give(incoming([0], old))
    rx.get().ack()
    old.valid = False
    driver.give(incoming([0], new, token=70, attempt=2))

    assert rx.get().attempt == 2


@pytest.mark.parametrize("verdict", ["ack", "nack", "reject"])
def test_what_got_its_verdict_too_late_comes_again_and_is_not_adopted(make, verdict):
    driver, old, new = Driver(), Lease("old"), Lease("new")
    rx = make(driver, manual=True)
    driver.give(incoming([0, 1, 2], old))
    done, kept, last = rx.get(), rx.get(), rx.get()
    assert last.ack() is True
    old.valid = False
    assert getattr(done, verdict)() is False
    assert rx.stats()["in_hand"] == 1
    driver.give(incoming([0, 1], new, token=70, attempt=2))

    # The one that the application has done with comes again; the one that it still holds does not.
    again = rx.get()
    assert (again.value, again.attempt) == (0, 2)
    assert (done.ack(), again.ack(), kept.ack()) == (False, True, True)
    assert rx.stats()["in_hand"] == 0
    rx.close()
    assert sorted(v for v in driver.verdicts if v[2] == "new") == [(ACK, 70, "new"), (ACK, 71, "new")]


def test_an_adopted_hold_can_be_lost_again_and_adopted_anew(make):
    driver, leases = Driver(), [Lease("a"), Lease("b"), Lease("c")]
    rx = make(driver, manual=True)
    driver.give(incoming([0], leases[0]))
    held = rx.get()
    for token, (old, new) in zip((70, 80), itertools.pairwise(leases), strict=True):
        old.valid = False
        driver.give(incoming([0], new, token=token, attempt=2), incoming([token], new, token=token + 1))
        assert rx.get().value == token
    assert held.ack() is True
    rx.close()

    assert (ACK, 80, "c") in driver.verdicts


def test_what_waits_in_the_buffer_under_a_lost_hold_is_dropped_and_not_handed_out_late(make):
    driver, old, new = Driver(), Lease("old"), Lease("new")
    rx = make(driver)
    driver.give(incoming(range(5), old))
    assert [rx.get().value, rx.get().value] == [0, 1]
    old.valid = False
    driver.give(incoming([2, 3, 4], new, token=70))

    assert [(d.value, d.attempt) for d in (rx.get(), rx.get(), rx.get())] == [(2, 1), (3, 1), (4, 1)]
    assert rx.stats()["revoked"] == 3
    assert rx.stats()["duplicates"] == 0, "they were never seen, so they are no second copies"


@pytest.mark.parametrize("way", ["iterate", "batches", "take"])
def test_every_way_of_reading_drops_what_waits_under_a_lost_hold(make, way):
    driver, old, new = Driver(), Lease("old"), Lease("new")
    rx = make(driver, idle=0.0)
    driver.give(incoming(range(5), old))
    first = next(iter(rx)) if way == "iterate" else rx.get()
    assert first.value == 0
    old.valid = False
    driver.give(incoming([7], new))

    if way == "iterate":
        assert next(iter(rx)).value == 7
    elif way == "batches":
        assert next(rx.batches()).values == [7]
    else:
        assert rx.take(1) == [7]


def test_iteration_stops_handing_out_in_the_middle_of_a_batch(make):
    driver, lease = Driver(), Lease("old")
    rx = make(driver, idle=0.0)
    driver.give(incoming(range(5), lease))
    seen = []
    for delivery in rx:
        seen.append(delivery.value)
        if delivery.value == 2:
            lease.valid = False

    assert seen == [0, 1, 2]


# --- second copies --------------------------------------------------------------------------------------------------


def test_a_second_copy_is_acknowledged_at_once_counted_and_never_seen(make):
    driver, lease = Driver(), Lease("a")
    rx = make(driver, manual=True)
    driver.give(incoming([0, 1], lease, token=10), incoming([0, 1, 2], lease, token=20))

    assert [rx.get().value for _ in range(3)] == [0, 1, 2]
    assert sorted(driver.verdicts) == [(ACK, 20, "a"), (ACK, 21, "a")]
    assert rx.stats()["duplicates"] == 2


def test_a_redelivery_is_no_second_copy(make):
    driver, lease = Driver(), Lease("a")
    rx = make(driver)
    driver.give(incoming([0], lease), incoming([0], lease, token=20, attempt=2))

    assert [(d.value, d.attempt) for d in (rx.get(), rx.get())] == [(0, 1), (0, 2)]
    assert (rx.stats()["redelivered"], rx.stats()["duplicates"]) == (1, 0)


@pytest.mark.parametrize("verdict", ["nack", "stale nack"])
def test_what_was_handed_back_is_no_second_copy_when_it_comes_again(make, verdict):
    driver, lease, new = Driver(), Lease("a"), Lease("b")
    rx = make(driver, manual=True)
    driver.give(incoming([0], lease))
    delivery = rx.get()
    if verdict == "stale nack":
        lease.valid = False
    delivery.nack()
    driver.give(incoming([0], new, token=30))

    assert rx.get().value == 0


def test_messages_without_an_identity_are_never_second_copies(make):
    driver, lease = Driver(), Lease("a")
    rx = make(driver)
    driver.give(incoming([5], lease, identified=False), incoming([5], lease, token=9, identified=False))

    assert [rx.get().value, rx.get().value] == [5, 5]


def test_in_process_nothing_is_looked_for(make):
    driver, lease = Driver(), Lease("a")
    rx = make(driver, kept=Kept.IN_PROCESS)
    driver.give(incoming([5], lease), incoming([5], lease, token=9))

    assert [rx.get().value, rx.get().value] == [5, 5]


# --- verdicts on their way ------------------------------------------------------------------------------------------


def test_acknowledgements_go_out_while_the_application_is_busy(make):
    driver = Driver()
    rx = make(driver, manual=True)
    driver.give(incoming([0, 1], Lease("a")))
    deliveries = [rx.get(), rx.get()]
    for delivery in deliveries[:1]:
        delivery.ack()

    eventually(lambda: driver.verdicts == [(ACK, 0, "a")], "the thread sends it")
    eventually(lambda: driver.tended > 1, "and tends the driver")


def test_what_was_iterated_past_is_acknowledged_while_the_application_is_busy_with_the_next(make):
    driver = Driver()
    rx = make(driver)
    driver.give(incoming(range(8), Lease("a")))
    for delivery in rx:
        if delivery.value == 5:
            break
    eventually(lambda: len(driver.verdicts) == 5, "the thread sends them")
    tended = driver.tended
    eventually(lambda: driver.tended > tended + 1, "and looks again")

    assert driver.verdicts == [(ACK, n, "a") for n in range(5)], "and neither the one in hand nor those behind it"


def test_a_batch_that_is_read_through_is_one_settlement(make):
    driver, settled = Driver(), []
    driver.settle = settled.append
    rx = make(driver)
    driver.give(incoming(range(100), Lease("a")))
    assert len(next(rx.batches()).values) == 100
    rx.close()

    assert [(s.verdict, s.first, s.last) for part in settled for s in part] == [(ACK, 0, 99)]


def test_a_nack_is_sent_at_once_with_a_back_off_that_doubles(make):
    driver, lease = Driver(), Lease("a")
    rx = make(driver, manual=True)
    delays = []
    for attempt in (1, 2, 3, 20):
        driver.give(incoming([0], lease, token=attempt, attempt=attempt))
        rx.get().nack()
        assert driver.verdicts[-1] == (NACK, attempt, "a")
        delays += driver.delays

    assert delays == [0.1, 0.2, 0.4, 30.0]


def test_take_hands_everything_back_when_it_cannot_have_all(make):
    driver = Driver()
    rx = make(driver)
    driver.give(incoming([0, 1], Lease("a")))
    with pytest.raises(ReceiveTimeout, match=r"2 of 3 .* handed back"):
        rx.take(3, timeout=0.01)

    assert driver.verdicts == [(NACK, 0, "a"), (NACK, 1, "a")]
    assert driver.reserved == [500, 500]


def test_take_reserves_what_it_is_asked_for_and_gives_it_up_again(make):
    driver = Driver()
    rx = make(driver, prefetch=2)
    driver.give(incoming(range(3), Lease("a")))
    assert rx.take(3) == [0, 1, 2]
    with pytest.raises(ConfigError, match="above the receiver's bound of 65536"):
        rx.take(65_537)

    assert driver.reserved == [3, 2]
    assert driver.verdicts == [(ACK, n, "a") for n in range(3)]


def test_take_rejects_a_body_that_cannot_be_read_and_hands_back_the_others(make):
    driver, lease = Driver(), Lease("a")
    rx = make(driver)
    driver.give(incoming([0], lease), incoming([1], lease, body=b"{bad"), incoming([2], lease))
    with pytest.raises(DecodeError):
        rx.take(3)
    rx.close()

    assert sorted(driver.verdicts) == [(NACK, 0, "a"), (REJECT, 1, "a")]
    assert rx.stats()["undecodable"] == 1


# --- a connection that breaks ---------------------------------------------------------------------------------------


def test_a_broken_connection_is_joined_again_without_the_application_noticing(make):
    problem = ConnectError("refused", retryable=True)
    driver = Driver(script=[None, problem, problem, None])
    rx = make(driver)
    driver.give(TransportError("reset", retryable=True))
    driver.give(incoming([0], Lease("a")))

    # As long as it cannot be opened again, nothing else is asked of the driver: it may have nothing to ask with.
    assert rx.get(timeout=PATIENCE).value == 0
    assert driver.opens == 4


def test_joining_again_has_time_for_a_handshake_however_short_the_wait(make):
    driver = Driver()
    rx = make(driver)
    driver.give(TransportError("reset", retryable=True))
    with pytest.raises(ReceiveTimeout):
        rx.get(timeout=0.01)

    assert driver.opens == 2
    assert driver.granted >= 2.0


def test_a_failure_for_good_reaches_the_application_now_and_at_every_later_call(make):
    driver = Driver()
    rx = make(driver)
    driver.give(TransportError("not allowed", retryable=False))

    for _ in range(2):
        with pytest.raises(TransportError, match="not allowed"):
            rx.get()


def test_what_the_operating_system_says_is_a_receive_error(make):
    driver = Driver()
    driver.give(OSError(5, "Input/output error"))
    with pytest.raises(ReceiveError, match=r"fake://x: .*Input/output") as caught:
        make(driver).get()

    assert isinstance(caught.value.__cause__, OSError)


def test_a_defect_while_tending_reaches_the_application(make):
    driver = Driver()
    driver.tend = lambda: 1 / 0
    rx = make(driver, manual=True)
    driver.give(incoming([0], Lease("a")))
    rx.get()
    eventually(lambda: rx._failure is not None, "the thread meets it")

    with pytest.raises(ZeroDivisionError):
        rx.get()


def test_opening_waits_for_a_peer_and_then_says_that_nobody_came(make):
    problem = ConnectError("refused", retryable=True)
    rx = make(Driver(script=[problem] * 100))
    with pytest.raises(ConnectTimeout, match="refused"):
        rx.open(timeout=0.01)
    with pytest.raises(ConnectError, match="in use"):
        make(Driver(script=[ConnectError("address in use")])).open()


# --- waiting and ending ---------------------------------------------------------------------------------------------


def test_closing_and_stopping_wake_a_waiting_get(make):
    for end in ("close", "stop"):
        driver = Driver()
        rx = make(driver)
        raised = []

        def wait(rx=rx, raised=raised):
            try:
                rx.get(timeout=None)
            except ChannelClosed as error:
                raised.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        eventually(lambda driver=driver: driver.waits, "it waits")
        getattr(rx, end)()
        thread.join(PATIENCE)
        assert len(raised) == 1, end


def test_idle_counts_only_while_something_is_assigned(make):
    driver = Driver()
    driver.assigned_now = False
    rx = make(driver, idle=0.01)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (list(rx), done.set()))
    thread.start()
    eventually(lambda: driver.waits > 5, "it has waited for longer than it may be idle")
    assert not done.is_set()
    driver.assigned_now = True

    assert done.wait(PATIENCE)
    thread.join(PATIENCE)


def test_a_quick_application_is_given_more_at_a_time_and_a_slow_one_less(make):
    driver, lease = Driver(), Lease("a")
    rx = make(driver)
    driver.give(*(incoming([n], lease) for n in range(8)))
    for _ in range(7):
        rx.get()
    quick = driver.limits[-1]
    rx._hand.handed_at -= 1.0  # as if the application had held it for a second
    rx.get()

    assert quick > driver.limits[0]
    assert driver.limits[-1] == quick // 2


def test_leaving_by_an_exception_gives_back_what_is_in_hand_and_rejects_what_cannot_be_read(make):
    driver, lease = Driver(), Lease("a")
    driver.give(incoming([0], lease), incoming([1], lease, body=b"{bad"))

    def read():
        with make(driver) as rx:
            return [rx.get().value, rx.get().value]

    with pytest.raises(DecodeError):
        read()

    assert driver.verdicts == [(ACK, 0, "a"), (REJECT, 1, "a")]


def test_a_settle_timeout_takes_back_what_the_application_was_given_and_not_what_it_has_not_seen(make):
    driver, lease = Driver(), Lease("a")
    rx = make(driver, manual=True, settle_timeout=0.05)
    driver.give(incoming([0], lease))
    late = rx.get()
    eventually(lambda: driver.verdicts, "it is taken back")

    assert driver.verdicts == [(NACK, 0, "a")]
    assert late.ack() is False
    assert rx.stats()["stale"] == 1
