"""What the conformance suite cannot see of the memory transport: when its hub lives, and that it is bounded."""

import pytest

import simlink
from simlink.channels import memory


def test_a_hub_lives_while_a_channel_on_its_name_is_entered():
    with simlink.queue("memory://lives") as first:
        with simlink.queue("memory://lives") as second:
            second.send("kept")
        with first.receiver() as rx:
            assert rx.take(1, timeout=5) == ["kept"]


def test_a_hub_ends_with_the_last_channel():
    with simlink.queue("memory://ends") as channel:
        channel.send("gone with the hub")

    assert memory._hubs == {}
    with simlink.queue("memory://ends") as channel, channel.receiver() as rx, pytest.raises(simlink.ReceiveTimeout):
        rx.get(timeout=0.05)


def test_two_bounds_on_one_name_are_refused():
    with (
        simlink.queue("memory://bounds?max_messages=10"),
        pytest.raises(simlink.ConfigError, match="max_messages=10"),
        simlink.queue("memory://bounds?max_messages=20"),
    ):
        pass


def test_a_queue_and_a_topic_of_one_name_are_two_destinations():
    with simlink.queue("memory://both") as queue, simlink.topic("memory://both") as topic, topic.receiver() as live:
        queue.send("for the queue")
        topic.send("for the topic")

        assert live.take(1, timeout=5) == ["for the topic"]
        with queue.receiver() as rx:
            assert rx.take(1, timeout=5) == ["for the queue"]


def test_a_topic_that_drops_for_a_slow_reader_counts_what_it_dropped():
    with simlink.topic("memory://drops?max_messages=10") as topic, topic.receiver(overflow="drop") as slow:
        for number in range(25):
            topic.send(number, timeout=5)

        assert slow.take(10, timeout=5) == list(range(10))
        assert slow.stats()["driver"]["dropped"] == 15
