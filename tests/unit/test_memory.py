"""What the conformance suite cannot see of the memory transport: when its hub lives, and that it is bounded."""

import pytest

import simlink
from simlink.channels import memory
from simlink.errors import ConfigError, ReceiveTimeout


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


def test_exclusive_receivers_take_over_in_the_order_they_came(request):
    with simlink.queue(f"memory://{request.node.name}") as orders:
        one, two, three = (orders.receiver(exclusive=True, settle="manual") for _ in range(3))
        for receiver in (one, two, three):
            receiver.open()
        orders.send_many([1, 2, 3])
        assert one.get().value == 1
        for idle in (two, three):
            with pytest.raises(ReceiveTimeout):
                idle.get(timeout=0.05)
        one.close()

        # What the first had in hand comes again, ahead of what is new.
        assert [(d.value, d.attempt > 1) for d in (two.get(), two.get())] == [(1, True), (2, True)]
        with pytest.raises(ReceiveTimeout):
            three.get(timeout=0.05)
        two.close()
        assert three.get().value == 1


def test_exclusive_receivers_and_others_do_not_mix(request):
    with simlink.topic(f"memory://{request.node.name}") as events, events.receiver("audit", exclusive=True):
        with pytest.raises(ConfigError, match="exclusive=True; one with exclusive=False"):
            events.receiver("audit").open()
        with events.receiver("other"), events.receiver("other"):
            pass
