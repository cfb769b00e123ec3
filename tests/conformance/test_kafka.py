"""Kafka keeps every promise, with each client, over a real broker."""

import pytest

from simlink.testing import conformance


class KafkaHarness(conformance.Harness):
    """Over the session's broker; `client` is the scheme that forces one."""

    base = "127.0.0.1:1"
    client = "kafka+confluent"
    patience = 40.0
    quiet = 1.0

    def url(self):
        return f"{self.client}://{self.base}/{self.fresh_name()}"

    def unreachable(self):
        return f"{self.client}://127.0.0.1:1/nobody"


class PythonHarness(KafkaHarness):
    client = "kafka+python"


CLIENTS = {"confluent": KafkaHarness, "python": PythonHarness}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("case", conformance.cases(KafkaHarness, broker=True), ids=str)
def test_conformance(case, client, kafka_broker):
    harness = CLIENTS[client]()
    harness.base = kafka_broker.url.partition("://")[2]
    harness.broker = kafka_broker
    case.run(harness)
