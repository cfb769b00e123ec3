"""Redis keeps every promise, over a real server."""

from typing import ClassVar

import pytest

from simlink.channels.driver import Mode
from simlink.testing import conformance


class RedisHarness(conformance.Harness):
    """Over the session's server."""

    base = "127.0.0.1:1"
    patience = 30.0
    quiet = 0.5

    def url(self):
        return f"redis://{self.base}/{self.fresh_name()}"

    def unreachable(self):
        return "redis://127.0.0.1:1/nobody"


class StreamsHarness(RedisHarness):
    """Keys spread over several streams, each leased to one receiver."""

    options: ClassVar = {"streams": 4}


class PubSubHarness(RedisHarness):
    """What Pub/Sub can promise: topics, at most once."""

    options: ClassVar = {"delivery": "at-most-once"}
    modes = frozenset({Mode.TOPIC})

    def url(self):
        return f"redis+pubsub://{self.base}/{self.fresh_name()}"


def run(case, harness, broker):
    harness.base = broker.url.partition("://")[2]
    harness.broker = broker
    case.run(harness)


@pytest.mark.parametrize("case", conformance.cases(RedisHarness, broker=True), ids=str)
def test_conformance(case, redis_broker):
    run(case, RedisHarness(), redis_broker)


@pytest.mark.parametrize("case", conformance.cases(StreamsHarness, broker=True), ids=str)
def test_conformance_of_several_streams(case, redis_broker):
    run(case, StreamsHarness(), redis_broker)


@pytest.mark.parametrize("case", conformance.cases(PubSubHarness), ids=str)
def test_conformance_of_pubsub(case, redis_broker):
    run(case, PubSubHarness(), redis_broker)
