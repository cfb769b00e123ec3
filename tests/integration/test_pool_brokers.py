"""A pool over two real brokers of a kind: sent through both, and one of them is gone for a while."""

import uuid
from contextlib import ExitStack

import pytest

import simlink
from simlink.testing.brokers import KafkaBroker, RabbitMQBroker, RedisBroker
from tests.integration.test_pool_processes import until

TIMEOUT = 60.0


@pytest.fixture(scope="module", params=[RedisBroker, RabbitMQBroker, KafkaBroker], ids=["redis", "rabbitmq", "kafka"])
def brokers(request):
    # Two of our own, since they are stopped; for all tests of a kind, since they are slow to start.
    with request.param(own=True) as left, request.param(own=True) as right:
        yield left, right


@pytest.fixture
def urls(brokers):
    name = f"t-{uuid.uuid4().hex[:12]}"
    return [f"{broker.url}/{name}" for broker in brokers]


def values_at(urls):
    """All that stands at each, read by each url's own receiver."""
    with ExitStack() as stack:
        channels = [stack.enter_context(simlink.queue(url)) for url in urls]
        return [[d.value for d in stack.enter_context(channel.receiver(idle=2.0))] for channel in channels]


def test_messages_go_to_both_and_each_is_received_once(urls):
    # A busy machine may make one wait for its broker: that is not silence here, and no reason to leave the turn.
    calm = simlink.Heartbeat(interval=1.0, suspect=TIMEOUT, dead=2 * TIMEOUT)
    with simlink.pool(urls, balancer="round_robin", slow_start=0, detector=calm) as channel:
        # What is sent first goes to whoever is connected first.
        assert channel.send(0, timeout=TIMEOUT).state == "confirmed"
        until(lambda: [end.state for end in channel.endpoints] == ["up", "up"], "both to be up", TIMEOUT)
        before = [end.sent for end in channel.endpoints]
        for number in range(1, 21):
            assert channel.send(number, timeout=TIMEOUT).state == "confirmed"
        left, right = values_at(urls)
        assert sorted(left + right) == list(range(21))
        assert (len(left), len(right)) == tuple(count + 10 for count in before)


def test_while_one_is_gone_the_other_takes_all_and_nothing_is_lost(brokers, urls):
    with simlink.pool(urls, slow_start=0) as channel:
        channel.send_many(list(range(100)), timeout=TIMEOUT)
        brokers[0].kill()
        # What it was given since comes back, after its connection broke or, from Kafka's client, which tells nothing of
        # that, after the seconds in which an answer was due.
        for first in range(100, 200, 10):
            assert channel.send_many(list(range(first, first + 10)), timeout=TIMEOUT).state == "confirmed"
        brokers[0].start()
        until(lambda: channel.endpoints[0].state in {"up", "half open"}, "its return", TIMEOUT)
        before = channel.endpoints[0].sent
        for number in range(200, 240):
            channel.send(number, timeout=TIMEOUT)
        assert channel.endpoints[0].sent > before
        got = [value for values in values_at(urls) for value in values]
    assert set(got) == set(range(240))
