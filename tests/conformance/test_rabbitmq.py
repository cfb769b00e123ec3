"""RabbitMQ keeps every promise, over a real broker."""

from typing import ClassVar

import pytest

from simlink.testing import conformance


class RabbitMQHarness(conformance.Harness):
    """Over the session's broker, with classic queues."""

    base = "amqp://127.0.0.1:1"
    patience = 30.0

    def url(self):
        return f"{self.base}/{self.fresh_name()}"

    def unreachable(self):
        return "amqp://127.0.0.1:1/nobody"


class QuorumHarness(RabbitMQHarness):
    options: ClassVar = {"queue_type": "quorum"}


QUEUES = {"classic": RabbitMQHarness, "quorum": QuorumHarness}


@pytest.mark.parametrize("queues", QUEUES)
@pytest.mark.parametrize("case", conformance.cases(RabbitMQHarness, broker=True), ids=str)
def test_conformance(case, queues, rabbitmq_broker):
    harness = QUEUES[queues]()
    harness.base = rabbitmq_broker.url
    harness.broker = rabbitmq_broker
    case.run(harness)
