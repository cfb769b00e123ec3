"""Dead letters over memory: what goes there, what it carries, and what is acknowledged when."""

import threading
import time

import pytest

import simlink
from simlink.channels.driver import Capabilities
from simlink.channels.identity import format_identities
from simlink.errors import ConfigError, DecodeError, NotSupported, ReceiveTimeout, UnknownScheme
from simlink.message import Batch, Message

PATIENCE = 20.0
PRODUCER = bytes(range(16))


@pytest.fixture
def names(request):
    name = request.node.name.translate(str.maketrans("[]", "--"))
    return f"memory://{name}", f"memory://{name}-dead"


def until(done, what):
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.002)


def messages(receiver, count):
    """So many, as they came."""
    return [receiver.get(timeout=PATIENCE).message for _ in range(count)]


def nothing(receiver):
    with pytest.raises(ReceiveTimeout):
        receiver.get(timeout=0.2)


def test_a_rejected_message_goes_there_with_all_it_had(names):
    url, dead_url = names
    sent = Message(
        body=b'{"a":1}',
        key=b"ann",
        headers={"traceparent": "00-7f-01", "trace": "7f"},
        content_type="application/json",
        producer=PRODUCER,
        sequence=41,
        timestamp=1_700_000_000_123_456,
    )
    with simlink.queue(url) as orders, simlink.queue(dead_url) as dead, dead.receiver() as graves:
        with orders.receiver(settle="manual", dead_letter=dead_url) as rx:
            orders.send(sent)
            assert rx.get(timeout=PATIENCE).reject()
            (letter,) = messages(graves, 1)
            until(lambda: rx.stats()["dead_letters"]["waiting"] == 0, "it is acknowledged")
            stats = rx.stats()
        with orders.receiver() as rx:
            nothing(rx)

    assert (letter.body, letter.key, letter.content_type) == (sent.body, sent.key, sent.content_type)
    assert dict(letter.headers) == {
        "traceparent": "00-7f-01",
        "trace": "7f",
        "simlink-reason": "rejected",
        "simlink-attempts": "1",
        "simlink-origin": format_identities([PRODUCER], [41], [1_700_000_000_123_456])[0].decode(),
        "simlink-origin-url": url,
    }
    assert (letter.producer, letter.sequence) != (PRODUCER, 41)
    assert (stats["rejected"], stats["dead_letters"]) == (1, {"sent": 1, "failures": 0, "stale": 0, "waiting": 0})


def test_a_message_without_identity_has_no_origin_of_its_own(names):
    url, dead_url = names
    with simlink.topic(url) as events, simlink.queue(dead_url) as dead, dead.receiver() as graves:
        with events.receiver("audit", settle="manual", dead_letter=dead_url) as rx:
            events.submit(Batch([b"1"]), PATIENCE)  # a foreign sender's
            rx.get(timeout=PATIENCE).reject()
            (letter,) = messages(graves, 1)

    assert "simlink-origin" not in letter.headers
    assert letter.headers["simlink-origin-url"] == f"{url}#audit"


def test_a_letter_says_which_port_its_message_came_to(names):
    _, dead_url = names
    with (
        simlink.queue("tcp://127.0.0.1:0/orders") as orders,
        simlink.queue(dead_url) as dead,
        dead.receiver() as graves,
    ):
        with orders.receiver(settle="manual", dead_letter=dead) as rx:
            orders.send(1, timeout=PATIENCE)
            rx.get(timeout=PATIENCE).reject()
            (letter,) = messages(graves, 1)
            assert letter.headers["simlink-origin-url"] == rx.url


@pytest.mark.parametrize("way", ["iterate", "batches", "escape"])
def test_what_cannot_be_read_goes_there_however_it_is_met(names, way):
    url, dead_url = names
    with simlink.queue(url) as orders, simlink.queue(dead_url) as dead, dead.receiver() as graves:
        orders.send_many(Batch([b"1", b"{bad", b"3"], keys=[b"k"] * 3))
        with orders.receiver(idle=0.2, dead_letter=dead_url) as rx:
            if way == "iterate":
                found = [d.message.body for d in rx]
            elif way == "batches":
                found = [body for batch in rx.batches() for body, _ in zip(batch.bodies, batch.outcomes, strict=True)]
        if way == "escape":
            found = [b"{bad"]
            with pytest.raises(DecodeError), orders.receiver(dead_letter=dead_url) as rx:
                rx.take(3, timeout=PATIENCE)
            with orders.receiver() as rx:
                assert rx.take(2, timeout=PATIENCE) == [1, 3]
        (letter,) = messages(graves, 1)
        nothing(graves)

    assert b"{bad" in found
    assert letter.body == b"{bad"
    assert letter.headers["simlink-reason"].startswith("undecodable: not JSON")


def test_what_fails_too_often_goes_there(names):
    url, dead_url = names
    with simlink.queue(url) as orders, simlink.queue(dead_url) as dead, dead.receiver() as graves:
        with orders.receiver(settle="manual", dead_letter=dead_url, max_attempts=3) as rx:
            orders.send("poison", key="k")
            attempts = []
            for _ in range(3):
                delivery = rx.get(timeout=PATIENCE)
                attempts.append(delivery.attempt)
                assert delivery.nack()
                assert delivery.nack(), "the same verdict again does nothing"
            (letter,) = messages(graves, 1)
            orders.send("next", key="k")
            assert rx.get(timeout=PATIENCE).value == "next"

    assert attempts == [1, 2, 3]
    assert (letter.headers["simlink-reason"], letter.headers["simlink-attempts"]) == ("handed out too often", "3")


def test_what_is_in_hand_when_an_exception_ends_the_receiver_has_failed(names):
    url, dead_url = names
    seen = []
    with simlink.queue(url) as orders, simlink.queue(dead_url) as dead, dead.receiver() as graves:
        orders.send_many(["poison", "fine"])
        for _ in range(2):
            rx = orders.receiver(dead_letter=dead_url, max_attempts=2, prefetch=1)
            with pytest.raises(RuntimeError), rx:  # noqa: PT012  # what is in hand as the block ends is what is tried
                delivery = rx.get(timeout=PATIENCE)
                seen.append((delivery.value, delivery.attempt))
                raise RuntimeError("the handler fell over")
        (letter,) = messages(graves, 1)
        with orders.receiver(dead_letter=dead_url, max_attempts=2, prefetch=1) as rx:
            assert rx.take(1, timeout=PATIENCE) == ["fine"]
        nothing(graves)

    assert seen == [("poison", 1), ("poison", 2)]
    assert (letter.body, letter.headers["simlink-attempts"]) == (b'"poison"', "2")


def test_what_takes_its_receiver_with_it_is_not_seen_again_and_its_neighbours_are(names):
    """Nobody is left to say nack. What was held behind the poison comes again as often, and is not at fault."""
    url, dead_url = names
    with simlink.queue(url) as orders, simlink.queue(dead_url) as dead, dead.receiver() as graves:
        orders.send_many(["poison", "fine", "good"])
        for attempt in (1, 2):
            with orders.receiver(settle="manual", dead_letter=dead_url, max_attempts=2) as rx:
                delivery = rx.get(timeout=PATIENCE)
                assert (delivery.value, delivery.attempt) == ("poison", attempt)
        with orders.receiver(dead_letter=dead_url, max_attempts=2) as rx:
            assert rx.take(2, timeout=PATIENCE) == ["fine", "good"]
        (letter,) = messages(graves, 1)
        nothing(graves)

    assert (letter.body, letter.headers["simlink-attempts"]) == (b'"poison"', "3")
    assert letter.headers["simlink-reason"] == "handed out too often"


def test_without_a_bound_a_message_may_fail_for_ever(names):
    url, dead_url = names
    with simlink.queue(url) as orders, orders.receiver(settle="manual", dead_letter=dead_url) as rx:
        orders.send(1)
        for attempt in range(1, 4):
            delivery = rx.get(timeout=PATIENCE)
            assert delivery.attempt == attempt
            delivery.nack()


def test_nothing_is_acknowledged_before_the_letter_is_confirmed(names):
    url, dead_url = names
    with simlink.queue(url) as orders, simlink.queue(f"{dead_url}?max_messages=1") as dead:
        dead.send("in the way")  # the other side is full: nothing is confirmed there
        with orders.receiver(settle="manual", dead_letter=f"{dead_url}?max_messages=1") as rx:
            orders.send_many([1, 2])
            for _ in range(2):
                assert rx.get(timeout=PATIENCE).reject()
            until(lambda: rx.stats()["dead_letters"]["waiting"] == 2, "both wait")
            assert rx.stats()["driver"]["messages"] == 2

            with dead.receiver() as graves:
                assert graves.take(1, timeout=PATIENCE) == ["in the way"]
                assert [graves.take(1, timeout=PATIENCE) for _ in range(2)] == [[1], [2]]
            until(lambda: rx.stats()["dead_letters"]["sent"] == 2, "both are confirmed")
            until(lambda: rx.stats()["driver"]["messages"] == 0, "both are acknowledged")


def test_what_could_not_be_sent_by_the_end_comes_again(names):
    url, dead_url = names
    with simlink.queue(url) as orders, simlink.queue(f"{dead_url}?max_messages=1") as dead:
        dead.send("in the way")
        rx = orders.receiver(settle="manual", dead_letter=f"{dead_url}?max_messages=1")
        orders.send(1)
        rx.get(timeout=PATIENCE).reject()
        rx.close(timeout=0.4)
        dead.purge()

        with orders.receiver() as again:
            delivery = again.get(timeout=PATIENCE)
            assert (delivery.value, delivery.attempt) == (1, 2)


def test_one_that_is_refused_over_there_holds_up_no_other(names):
    url, dead_url = names
    small = simlink.queue(dead_url, max_message_bytes=10)
    with simlink.queue(url) as orders, small, small.receiver() as graves:
        with orders.receiver(settle="manual", dead_letter=small) as rx:
            orders.send_many(["x" * 20, "a", "b"])
            for _ in range(3):
                assert rx.get(timeout=PATIENCE).reject()
            found = graves.take(2, timeout=PATIENCE)
            until(lambda: rx.stats()["dead_letters"]["sent"] == 2, "the others are gone")
            stats = rx.stats()["dead_letters"]
            rx.close(timeout=0.2)
        assert small.capabilities is not None, "a channel that was given stays open"
        small.send("open")

    assert sorted(found) == ["a", "b"]
    assert stats["failures"] > 0
    assert stats["waiting"] == 1


def test_a_letter_sent_again_keeps_its_identity(names):
    """The confirmation was lost: a second copy must be known as one."""
    url, dead_url = names
    with simlink.queue(url) as orders, simlink.queue(dead_url) as dead, dead.receiver() as graves:
        with orders.receiver(settle="manual", dead_letter=dead) as rx:
            real, calls = dead.send_many, []

            def lost_once(batch, **options):
                receipt = real(batch, **options)
                calls.append((batch.producers[0], batch.sequences[0]))
                if len(calls) == 1:
                    raise simlink.SendTimeout("the answer was lost")
                return receipt

            dead.send_many = lost_once
            orders.send(1)
            rx.get(timeout=PATIENCE).reject()
            letters = messages(graves, 2)
            until(lambda: rx.stats()["dead_letters"]["sent"] == 1, "it is confirmed")

    assert calls[0] == calls[1]
    assert {(m.producer, m.sequence) for m in letters} == {calls[0]}


def test_what_makes_no_sense_is_refused_at_once(names):
    url, dead_url = names
    with simlink.queue(url) as orders:
        with pytest.raises(ConfigError, match="the channel that the letters come from"):
            orders.receiver(dead_letter=url)
        with pytest.raises(ConfigError, match="at least 1"):
            orders.receiver(dead_letter=dead_url, max_attempts=0)
        with pytest.raises(ConfigError, match="goes with dead_letter="):
            orders.receiver(max_attempts=3)
        with pytest.raises(UnknownScheme):
            orders.receiver(dead_letter="carrier-pigeon://h/x")
        with simlink.queue(dead_url) as deaf:
            deaf.capabilities = Capabilities(
                kept=deaf.capabilities.kept, order=deaf.capabilities.order, nack=deaf.capabilities.nack, headers=False
            )
            with pytest.raises(NotSupported, match="carries no headers"):
                orders.receiver(dead_letter=deaf)
