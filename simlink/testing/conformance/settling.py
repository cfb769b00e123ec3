"""Settling: what is acknowledged is gone, what is not comes again, and nothing is lost between."""

from __future__ import annotations

import time
from typing import Any

from simlink.channels.driver import Mode, Nack, Order
from simlink.channels.receiver import Receiver
from simlink.errors import AlreadySettled, DecodeError, NotSupported, ReceiveTimeout
from simlink.message import Batch
from simlink.testing.conformance.harness import Harness, case
from simlink.testing.conformance.queues import collect

Q = Mode.QUEUE


def nothing_more(receiver: object, h: Harness) -> None:
    try:
        found = receiver.get(timeout=h.quiet)  # type: ignore[attr-defined]
    except ReceiveTimeout:
        return
    raise AssertionError(f"something came again: {found}")


@case(Q)
def asking_for_the_next_acknowledges_the_previous(h: Harness) -> None:
    url = h.url()
    with h.queue(url) as channel:
        with channel.receiver() as rx:
            channel.send_many([1, 2, 3], key=lambda _: "k", timeout=h.patience)
            assert [rx.get(timeout=h.patience).value for _ in range(3)] == [1, 2, 3]
            nothing_more(rx, h)
        with channel.receiver() as rx:
            nothing_more(rx, h)


@case(Q)
def a_timeout_hands_nothing_back(h: Harness) -> None:
    with h.queue() as channel, channel.receiver() as rx:
        channel.send(1, timeout=h.patience)
        first = rx.get(timeout=h.patience)
        nothing_more(rx, h)

        assert first.attempt == 1
        assert rx.stats()["acked"] == 1


@case(Q, lambda c: c.nack is not Nack.NONE)
def a_nacked_message_comes_again_one_attempt_later(h: Harness) -> None:
    with h.queue() as channel, channel.receiver(settle="manual") as rx:
        channel.send("again", key="k", timeout=h.patience)
        first = rx.get(timeout=h.patience)
        asked = time.monotonic()
        assert first.nack()
        second = rx.get(timeout=h.patience)

        assert (first.value, first.attempt, second.value) == ("again", 1, "again")
        assert second.attempt >= 2
        assert time.monotonic() - asked >= 0.09, "the back-off starts at 0.1 s"
        assert second.ack()


@case(Q, lambda c: c.nack is not Nack.NONE and c.order is Order.EXCLUSIVE)
def a_nacked_message_holds_back_its_key(h: Harness) -> None:
    with h.queue() as channel, channel.receiver(settle="manual", prefetch=1) as rx:
        channel.send_many([{"k": "a", "i": i} for i in range(3)], key="k", timeout=h.patience)
        order: list[int] = []
        while len(order) < 4:
            delivery = rx.get(timeout=h.patience)
            order.append(delivery.value["i"])
            if len(order) == 1:
                delivery.nack()
            else:
                delivery.ack()

        assert order == [0, 0, 1, 2]


@case(Q)
def a_rejected_message_is_gone(h: Harness) -> None:
    with h.queue() as channel:
        with channel.receiver(settle="manual") as rx:
            channel.send_many([1, 2], key=lambda _: "k", timeout=h.patience)
            assert rx.get(timeout=h.patience).reject()
            assert rx.get(timeout=h.patience).ack()
            nothing_more(rx, h)
        with channel.receiver() as rx:
            nothing_more(rx, h)


@case(Q, lambda c: c.headers)
def a_dead_letter_arrives_with_reason_and_origin(h: Harness) -> None:
    with h.queue() as channel, h.queue() as dead, dead.receiver() as graves:
        with channel.receiver(settle="manual", dead_letter=dead) as rx:
            channel.send({"a": 1}, key="k", headers={"trace": "7f"}, timeout=h.patience)
            assert rx.get(timeout=h.patience).reject()
            letter = graves.get(timeout=h.patience)
            found = dict(letter.message.headers)
        with channel.receiver() as rx:
            nothing_more(rx, h)

    origin = found.pop("simlink-origin", "")
    assert letter.value == {"a": 1}
    assert origin.startswith(channel._producer.hex()) or not channel.capabilities.identity, origin
    assert found == {
        "trace": "7f",
        "simlink-reason": "rejected",
        "simlink-attempts": "1",
        "simlink-origin-url": channel.url,
    }


@case(Q)
def an_exclusive_receiver_reads_alone_or_is_refused(h: Harness) -> None:
    with h.queue() as channel:
        try:
            one = channel.receiver(exclusive=True, prefetch=1)
        except NotSupported:
            return
        with one, channel.receiver(exclusive=True, prefetch=1) as two:
            channel.send_many([{"i": i} for i in range(40)], key="i", timeout=h.patience)
            got = {rx: _one_or_none(rx, h) for rx in (one, two)}
            readers = [rx for rx, value in got.items() if value is not None]
            assert len(readers) == 1, f"{len(readers)} of two exclusive receivers got something"
            first, second = (one, two) if readers == [one] else (two, one)
            rest = collect(first, 39, h)
            nothing_more(second, h)
            first.close()
            channel.send_many([{"i": i} for i in range(40, 80)], key="i", timeout=h.patience)
            after = collect(second, 40, h)

    assert list(range(40)) == sorted(value["i"] for value in [got[first], *rest])
    assert list(range(40, 80)) == sorted(value["i"] for value in after)


def _one_or_none(receiver: Receiver, h: Harness) -> Any:
    try:
        return receiver.get(timeout=max(1.0, 2 * h.quiet)).value
    except ReceiveTimeout:
        return None


@case(Q)
def what_is_unsettled_at_close_comes_again(h: Harness) -> None:
    with h.queue() as channel:
        with channel.receiver(settle="manual") as rx:
            channel.send_many([1, 2, 3], key=lambda _: "k", timeout=h.patience)
            assert rx.get(timeout=h.patience).value == 1
        with channel.receiver() as rx:
            assert rx.take(3, timeout=h.patience) == [1, 2, 3]


@case(Q)
def settling_out_of_order_loses_nothing(h: Harness) -> None:
    with h.queue() as channel:
        with channel.receiver(settle="manual") as rx:
            channel.send_many([0, 1, 2, 3], key=lambda _: "k", timeout=h.patience)
            hand = [rx.get(timeout=h.patience) for _ in range(4)]
            assert hand[1].ack()
            assert hand[2].ack()
        with channel.receiver() as rx:
            again = collect(rx, 2, h)

        assert {0, 3} <= set(again), f"lost: {{0, 3}} - {set(again)}"
        assert sorted(again) == again


@case(Q)
def an_exception_hands_back_what_is_in_hand(h: Harness) -> None:
    with h.queue() as channel:
        try:
            with channel.receiver() as rx:
                channel.send_many([1, 2, 3], key=lambda _: "k", timeout=h.patience)
                assert rx.get(timeout=h.patience).value == 1
                assert rx.get(timeout=h.patience).value == 2
                raise KeyError("the handler failed")
        except KeyError:
            pass
        with channel.receiver() as rx:
            assert rx.take(2, timeout=h.patience) == [2, 3]


@case(Q)
def a_clean_exit_acknowledges_what_is_in_hand(h: Harness) -> None:
    with h.queue() as channel:
        with channel.receiver() as rx:
            channel.send_many([1, 2, 3], key=lambda _: "k", timeout=h.patience)
            for delivery in rx:
                if delivery.value == 2:
                    break
        with channel.receiver() as rx:
            assert rx.take(1, timeout=h.patience) == [3]


@case(Q)
def a_decode_error_that_escapes_rejects_its_message(h: Harness) -> None:
    with h.queue() as channel:
        try:
            with channel.receiver() as rx:
                channel.send_many(Batch([b"{bad", b"2"], keys=[b"k"] * 2), timeout=h.patience)
                _ = rx.get(timeout=h.patience).value
        except DecodeError:
            pass
        with channel.receiver() as rx:
            assert rx.take(1, timeout=h.patience) == [2]
            nothing_more(rx, h)


@case(Q)
def take_gives_all_or_hands_them_back(h: Harness) -> None:
    with h.queue() as channel, channel.receiver() as rx:
        channel.send_many([1, 2, 3], key=lambda _: "k", timeout=h.patience)
        try:
            rx.take(5, timeout=max(0.5, h.quiet))
        except ReceiveTimeout as error:
            assert "3 of 5" in str(error), error
        else:
            raise AssertionError("take(5) returned with three messages")

        assert rx.take(3, timeout=h.patience) == [1, 2, 3]


@case(Q)
def a_verdict_stands(h: Harness) -> None:
    with h.queue() as channel, channel.receiver(settle="manual") as rx:
        channel.send(1, timeout=h.patience)
        delivery = rx.get(timeout=h.patience)
        assert delivery.ack()
        assert delivery.ack(), "the same verdict again does nothing"
        try:
            delivery.nack()
        except AlreadySettled:
            pass
        else:
            raise AssertionError("a settled delivery was settled otherwise")


@case(Q)
def a_verdict_after_close_does_nothing(h: Harness) -> None:
    with h.queue() as channel:
        with channel.receiver(settle="manual") as rx:
            channel.send(1, key="k", timeout=h.patience)
            delivery = rx.get(timeout=h.patience)
        assert delivery.ack() is False
        with channel.receiver() as rx:
            assert rx.take(1, timeout=h.patience) == [1]


@case(Q)
def prefetch_bounds_what_is_unsettled(h: Harness) -> None:
    with h.queue() as channel, channel.receiver(settle="manual", prefetch=10) as rx:
        channel.send_many(list(range(30)), key=lambda _: "k", timeout=h.patience)
        hand = [rx.get(timeout=h.patience) for _ in range(10)]
        nothing_more(rx, h)
        for delivery in hand:
            delivery.ack()
        rest: list[int] = []
        while len(rest) < 20:
            delivery = rx.get(timeout=h.patience)
            rest.append(delivery.value)
            delivery.ack()

        assert list(range(10, 30)) == rest


@case(Q)
def a_settle_timeout_takes_the_message_back(h: Harness) -> None:
    with h.queue() as channel, channel.receiver(settle="manual", settle_timeout=0.3) as rx:
        channel.send("slow", key="k", timeout=h.patience)
        first = rx.get(timeout=h.patience)
        second = rx.get(timeout=h.patience)

        assert (first.value, second.value) == ("slow", "slow")
        assert second.attempt >= 2
        assert first.ack() is False
        assert second.ack()
