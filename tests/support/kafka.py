"""What a plain client sees of a topic: independent of the driver that is tested."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice

__all__ = ["committed", "create", "records_in", "topic_of"]


def topic_of(url):
    """The topic of a simlink URL."""
    return url.rpartition("/")[2].partition("?")[0]


@contextmanager
def admin_of(broker):
    from kafka import KafkaAdminClient

    admin = KafkaAdminClient(bootstrap_servers=f"{broker.host}:{broker.port}")
    try:
        yield admin
    finally:
        admin.close()


def create(broker, topic, partitions=6):
    from kafka.admin import NewTopic

    with admin_of(broker) as admin:
        admin.create_topics([NewTopic(topic, partitions, 1)])


def committed(broker, group):
    """How many messages of a topic a group has acknowledged, where every partition's log begins at 0."""
    with admin_of(broker) as admin:
        return sum(found.offset for found in admin.list_group_offsets({group: None})[group].values())


def records_in(broker, topic):
    """All that a topic holds, as (partition, key, body), in order for each partition."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=f"{broker.host}:{broker.port}", consumer_timeout_ms=20_000)
    try:
        everything = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
        count = sum(consumer.end_offsets(everything).values())
        consumer.assign(everything)
        consumer.seek_to_beginning(*everything)
        return [(record.partition, record.key, record.value) for record in islice(consumer, count)]
    finally:
        consumer.close()
