"""Topics: every subscription gets every message; receivers of one subscription share it."""

from __future__ import annotations

from simlink.channels.driver import Kept, Mode
from simlink.errors import ConfigError, ReceiveTimeout
from simlink.testing.conformance.harness import Harness, case
from simlink.testing.conformance.queues import collect

T = Mode.TOPIC


@case(T)
def every_subscription_gets_every_message(h: Harness) -> None:
    name = "audit" if h.capabilities[T].subscriptions else None
    with h.topic() as channel, channel.receiver(name) as audit, channel.receiver() as live:
        channel.send_many([{"i": i} for i in range(200)], key=lambda _: "k", timeout=h.patience)

        assert list(range(200)) == [v["i"] for v in audit.take(200, timeout=h.patience)]
        assert list(range(200)) == [v["i"] for v in live.take(200, timeout=h.patience)]


@case(T, lambda c: c.subscriptions)
def receivers_of_one_subscription_share_it(h: Harness) -> None:
    with h.topic() as channel, channel.receiver("audit") as one, channel.receiver("audit") as two:
        channel.send_many([{"i": i} for i in range(400)], key="i", timeout=h.patience)
        rows: list[int] = []
        deadline_rounds = 50
        while len(rows) < 400 and deadline_rounds:
            deadline_rounds -= 1
            for rx in (one, two):
                rx.idle = h.quiet
                rows += [d.value["i"] for d in rx]

        assert list(range(400)) == sorted(rows)


@case(T)
def an_unnamed_subscription_starts_when_it_is_entered(h: Harness) -> None:
    name = "first" if h.capabilities[T].subscriptions else None
    with h.topic() as channel, channel.receiver(name) as first:
        channel.send("before", timeout=h.patience)
        assert first.take(1, timeout=h.patience) == ["before"]
        with channel.receiver() as live:
            channel.send("after", timeout=h.patience)
            assert live.take(1, timeout=h.patience) == ["after"]
            try:
                live.get(timeout=h.quiet)
            except ReceiveTimeout:
                pass
            else:
                raise AssertionError("a private subscription was handed more than came since it was entered")


@case(T, lambda c: c.subscriptions and c.kept is not Kept.NO)
def a_named_subscription_is_remembered(h: Harness) -> None:
    with h.topic() as channel:
        with channel.receiver("audit"):
            pass
        channel.send_many([1, 2, 3], key=lambda _: "k", timeout=h.patience)
        with channel.receiver("audit") as audit:
            assert audit.take(3, timeout=h.patience) == [1, 2, 3]


@case(T, lambda c: c.subscriptions and c.kept is not Kept.NO)
def a_deleted_subscription_is_forgotten(h: Harness) -> None:
    with h.topic() as channel:
        with channel.receiver("audit"):
            pass
        channel.send("lost on purpose", timeout=h.patience)
        channel.delete_subscription("audit")
        with channel.receiver("audit") as audit:
            channel.send("new", timeout=h.patience)
            assert collect(audit, 1, h) == ["new"]


@case(T, lambda c: not c.brokerless)
def a_topic_without_subscriptions_confirms(h: Harness) -> None:
    with h.topic() as channel:
        assert channel.send("nobody listens", timeout=h.patience).state == "confirmed"


@case(Mode.QUEUE)
def a_queue_has_no_subscriptions(h: Harness) -> None:
    with h.queue() as channel:
        try:
            channel.receiver("audit")
        except ConfigError as error:
            assert "topic" in str(error), error
        else:
            raise AssertionError("a queue took a subscription")
