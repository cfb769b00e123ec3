"""The hub: a token names one held message, and a message is settled when every subscription has settled it."""

from __future__ import annotations

from simlink.channels.driver import Mode, Settlement
from simlink.channels.hub import Hub, Origin
from simlink.message import Batch, Verdict


def settle(reader, verdict, first, last):
    reader.settle([Settlement(reader.lease, verdict, first, last)])


def test_what_stands_behind_a_redelivered_message_can_be_settled():
    hub = Hub("q", Mode.QUEUE)
    reader = hub.subscribe(None, capacity=100)
    hub.offer(Batch([b"%d" % i for i in range(10)]))
    reader.receive(10, 0.0)
    settle(reader, Verdict.NACK, 5, 5)
    (again,) = reader.receive(10, 0.0)
    assert (list(again.tokens), list(again.attempts)) == ([5], [2])
    settle(reader, Verdict.ACK, 7, 7)
    settle(reader, Verdict.ACK, 0, 9)
    assert (hub.stats()["subscriptions"]["q"]["messages"], reader.holding, reader.held) == (0, 0, {})


def test_the_first_of_a_batch_may_be_nacked_and_come_again_while_the_rest_is_held():
    hub = Hub("q", Mode.QUEUE)
    reader = hub.subscribe(None, capacity=100)
    hub.offer(Batch([b"a", b"b"]))
    reader.receive(10, 0.0)
    settle(reader, Verdict.NACK, 0, 0)
    reader.receive(10, 0.0)
    settle(reader, Verdict.ACK, 1, 1)
    settle(reader, Verdict.ACK, 0, 0)
    assert (reader.holding, reader.held, reader.firsts) == (0, {}, [])


def test_an_origin_hears_once_all_subscriptions_have_settled():
    hub = Hub("t", Mode.TOPIC)
    one, two = hub.subscribe("one", capacity=9), hub.subscribe("two", capacity=9)
    heard = []
    hub.offer(Batch([b"a", b"b"]), Origin(lambda *what: heard.append(what)))
    for reader in (one, two):
        reader.receive(9, 0.0)
    settle(one, Verdict.ACK, 0, 1)
    assert heard == []
    settle(two, Verdict.ACK, 1, 1)
    assert heard == [(1, 2, Verdict.ACK)]
    settle(two, Verdict.ACK, 0, 0)
    assert heard == [(1, 2, Verdict.ACK), (0, 1, Verdict.ACK)]
