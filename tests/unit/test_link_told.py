"""Whoever waits for something hears of it, whatever a listener is doing just then, and without waiting for a beat: the
listeners of tcp, HTTP and gRPC side by side."""

import pytest

from simlink.channels.driver import Mode, OutcomeKind
from simlink.channels.link import destination
from tests.support.carriers import CARRIERS, Clock
from tests.support.linked import LONGEST, Linked

NEVER = 10_000.0
"""Seconds: a beat that would put right what was forgotten does not come."""


@pytest.fixture(params=CARRIERS)
def made(request, monkeypatch):
    """Makes a carrier."""
    carriers = []

    def make(heartbeat=NEVER):
        carrier = CARRIERS[request.param](
            Clock(), heartbeat=heartbeat, dead=4 * heartbeat, max_frame_bytes=LONGEST, patch=monkeypatch.setattr
        )
        carriers.append(carrier)
        return carrier

    yield make
    for carrier in carriers:
        carrier.close()


def linked(carrier, **options):
    return Linked(carrier, **{"heartbeat": NEVER, **options})


def send(link, sender, count, size=0, to=()):
    sender.make(count, size, to)
    link.submit(sender)
    link.write(sender)
    while sender.up and sender.wire.posts:
        link.carry(sender)


def test_one_queue_that_is_always_busy_does_not_keep_back_what_was_settled_of_another(made):
    carrier = made()
    busy, quiet = linked(carrier, name="busy", bounds=(1000, 100_000)), linked(carrier, name="quiet")
    busy.join("r"), quiet.join("r")
    one, other = busy.senders[0], quiet.senders[0]
    busy.connect(one), quiet.connect(other)
    send(quiet, other, 1)
    quiet.receive("r", 1)
    quiet.settle_all("r")
    for _ in range(50):
        carrier.clock.now += 0.001
        send(busy, one, 1)
        busy.receive("r", 1)
        busy.settle_all("r")
        busy.hear(one)
    quiet.hear(other)
    assert other.done == {0: "settled"}


def test_what_was_settled_is_told_though_another_sender_comes_just_then(made):
    carrier = made()
    link = linked(carrier)
    link.join("r")
    one, other = link.senders
    link.connect(one)
    send(link, one, 1)
    link.receive("r", 1)
    link.pass_time(1.0)
    hold = carrier.run
    carrier.run = lambda: None  # it has not looked yet when the other one comes
    link.settle_all("r")
    carrier.run = hold
    link.connect(other)
    link.pass_time(0.05)
    link.hear(one)
    assert one.done == {0: "settled"}


def test_what_was_settled_is_told_though_another_sender_says_goodbye_just_then(made):
    carrier = made()
    link = linked(carrier)
    link.join("r")
    one, other = link.senders
    link.connect(one), link.connect(other)
    send(link, one, 1)
    link.receive("r", 1)
    link.pass_time(1.0)
    hold = carrier.run
    carrier.run = lambda: None
    link.settle_all("r")
    carrier.run = hold
    link.bye(other)
    link.pass_time(0.05)
    link.hear(one)
    assert one.done == {0: "settled"}


def test_room_in_the_one_subscription_that_had_none_is_given_though_others_have_not_settled(made):
    carrier = made()
    link = linked(carrier, mode=Mode.TOPIC, bounds=(4, 1000))
    link.join("reads", "reads"), link.join("idle", "idle", "drop")
    sender = link.senders[0]
    link.connect(sender)
    sender.make(20, 0, ())
    for _ in range(5):
        link.round([])
    link.drain(60, whole=["reads"], idle=["idle"])
    assert len(sender.done) == 20


def test_credit_that_is_kept_back_while_readers_settle_is_given_when_they_stop(made, monkeypatch):
    monkeypatch.setattr(destination, "_SHALLOW", 4)
    carrier = made()
    link = linked(carrier, bounds=(100, 100_000))
    link.join("r")
    sender = link.senders[0]
    link.connect(sender)
    sender.make(200, 0, ())
    for _ in range(10):
        link.round([])
    assert sender.link.accepted == 100
    link.receive("r", 60)
    link.settle_all("r")
    for _ in range(10):
        link.round([])
    assert sender.link.accepted == 160


def test_what_the_readers_of_one_subscription_had_goes_back_as_handed_out(made):
    carrier = made()
    link = linked(carrier, mode=Mode.TOPIC)
    link.join("a", "a"), link.join("b", "b")
    sender = link.senders[0]
    link.connect(sender)
    send(link, sender, 5)
    link.hear(sender)
    link.receive("a", 3)
    link.settle_all("a")
    outcomes = []
    book = link.book
    link.book = lambda who, new: (outcomes.extend(new), book(who, new))
    link.leave("a"), link.leave("b")
    link.hear(sender)
    back = [(o.first, o.stop, o.ambiguous) for o in outcomes if o.kind is OutcomeKind.RETURNED]
    assert sorted(back) == [(0, 3, True), (3, 5, False)]


def test_what_was_sent_elsewhere_and_comes_again_is_not_new_to_the_subscription_that_had_it(made):
    carrier = made()
    link = linked(carrier, mode=Mode.TOPIC, lease=NEVER)
    link.join("a", "a"), link.join("b", "b")
    sender = link.senders[0]
    link.connect(sender)
    send(link, sender, 4)
    link.hear(sender)
    link.receive("a", 2)
    link.settle_all("a")
    link.withdraw(sender, lambda sequence: False)
    link.drain(60, whole=["a", "b"])
    counts = carrier.destination("orders").stats()["subscriptions"]
    assert [counts[name]["messages"] for name in ("a", "b")] == [0, 0]


def test_a_sender_that_was_elsewhere_is_not_new_to_a_subscription_that_was_addressed_alone(made):
    carrier = made()
    link = linked(carrier, mode=Mode.TOPIC)
    link.join("a", "a"), link.join("b", "b")
    sender = link.senders[0]
    link.connect(sender)
    send(link, sender, 1, to=("a",))
    link.receive("a", 1)
    link.settle_all("a")
    link.pass_time(0.05)
    link.hear(sender)
    assert sender.done == {0: "settled"}
    send(link, sender, 1)
    link.receive("a", 1)
    link.settle_all("a")
    link.cut(sender)
    sender.link.incarnation = b"elsewhere" + bytes(7)  # another receiver answered at this address meanwhile
    link.drain(60, whole=["a", "b"])
    assert sender.done == {0: "settled", 1: "settled"}
