"""Kafka's own console tools at the other end: what simlink sends they read, and what they send simlink reads."""

from __future__ import annotations

import subprocess
import uuid

import pytest

import simlink
from simlink.testing.brokers import KafkaBroker

TIMEOUT = 120.0
"""Seconds; a Java tool starts in two on an idle machine."""

pytestmark = pytest.mark.broker("kafka")


@pytest.fixture
def name():
    return f"tools-{uuid.uuid4().hex[:12]}"


def console(broker, tool, *options, given=None):
    """What a tool of Kafka's printed, by line."""
    command = [*KafkaBroker(own=True)._find_java(), tool, "--bootstrap-server", address(broker), *options]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def address(broker):
    return broker.url.partition("://")[2].partition("/")[0]


def test_kafka_console_consumer_reads_what_simlink_sends(kafka_broker, name):
    with simlink.queue(f"kafka://{address(kafka_broker)}/{name}?partitions=1") as orders:
        orders.send({"id": 1, "total": 9.5}, key="ann", headers={"trace": "7f"}, timeout=TIMEOUT)
        orders.send({"id": 2, "total": 3.0}, key="bob", timeout=TIMEOUT)
    options = ["--topic", name, "--from-beginning", "--max-messages", "2", "--property", "print.key=true"]
    lines = console(kafka_broker, "org.apache.kafka.tools.consumer.ConsoleConsumer", *options)
    assert lines == ['ann\t{"id":1,"total":9.5}', 'bob\t{"id":2,"total":3.0}']


def test_simlink_reads_what_kafka_console_producer_sends(kafka_broker, name):
    given = 'ann\t{"id":1}\nbob\t{"id":2}\n'
    with simlink.queue(f"kafka://{address(kafka_broker)}/{name}?partitions=1") as orders, orders.receiver() as rx:
        options = ["--topic", name, "--property", "parse.key=true"]
        console(kafka_broker, "org.apache.kafka.tools.ConsoleProducer", *options, given=given)
        found = [rx.get(timeout=TIMEOUT) for _ in range(2)]
        assert [(d.message.key, d.value) for d in found] == [(b"ann", {"id": 1}), (b"bob", {"id": 2})]
