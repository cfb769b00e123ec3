"""The brokers over TLS, with a client certificate and a password, keep the promises that those could break.

Not the whole suite, which would cost minutes: what TLS and a login touch is opening, reconnecting (a restart in
mid-stream), closing while something waits, bodies of every size, a second connection (dead letters, a topic's
administration) and refusal. Kafka logs in by SCRAM.
"""

from typing import ClassVar

import pytest

from simlink.testing import brokers, conformance
from simlink.testing.brokers import Certificates, KafkaBroker, RabbitMQBroker, RedisBroker
from tests.support.certificates import Authority

PASSWORD = "hidden w#1;pass"
CASES = {
    "closing_twice_and_from_several_threads",
    "closing_wakes_a_waiting_receiver",
    "a_channel_is_dead_after_a_fork",
    "nobody_there_is_one_clear_error_in_time",
    "a_repr_and_stats_tell_what_is_going_on",
    "bodies_arrive_as_they_are",
    "all_that_a_message_has_arrives_together",
    "many_are_sent_without_waiting_for_each",
    "a_message_above_the_limit_is_refused",
    "a_broker_restart_in_mid_stream_loses_nothing",
    "a_dead_letter_arrives_with_reason_and_origin",
    "what_is_unsettled_at_close_comes_again",
    "a_deleted_subscription_is_forgotten",
}


class SecuredHarness(conformance.Harness):
    """Over a broker of this module; the options are filled in when it runs."""

    kind: ClassVar = KafkaBroker
    scheme = "kafka+confluent"
    more: ClassVar[dict[str, str]] = {}
    options: ClassVar[dict[str, str]] = {"ca": "ca.pem"}  # for the capabilities alone, which open nothing
    patience = 40.0
    quiet = 1.0
    base = "127.0.0.1:1"

    def url(self):
        return f"{self.scheme}://{self.base}/{self.fresh_name()}"

    def unreachable(self):
        return f"{self.scheme}://{self.base.rpartition('@')[0]}@127.0.0.1:1/nobody"


class KafkaConfluent(SecuredHarness):
    scheme = "kafkas+confluent"
    more: ClassVar = {"sasl": "scram-sha-512"}


class KafkaPython(SecuredHarness):
    scheme = "kafkas+python"
    more: ClassVar = {"sasl": "scram-sha-256"}


class RabbitMQ(SecuredHarness):
    kind: ClassVar = RabbitMQBroker
    scheme = "amqps"


class Redis(SecuredHarness):
    kind: ClassVar = RedisBroker
    scheme = "rediss"
    quiet = 0.5


HARNESSES = {"kafka-confluent": KafkaConfluent, "kafka-python": KafkaPython, "rabbitmq": RabbitMQ, "redis": Redis}
NAMES = {KafkaBroker: "kafka", RabbitMQBroker: "rabbitmq", RedisBroker: "redis"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def files(authority):
    mine = authority.issue("client.example")
    return {"ca": authority.ca, "cert": mine.cert, "key": mine.key}


@pytest.fixture(scope="module")
def running(authority):
    """Starts each broker when it is first asked for: kind → broker."""
    server = authority.issue("127.0.0.1")
    started = {}

    def get(kind):
        if kind not in started:
            here, how = brokers.available()[NAMES[kind]]
            if not here:
                pytest.skip(how)
            started[kind] = kind(tls=Certificates(server.cert, server.key, authority.ca), user="ann", password=PASSWORD)
            started[kind].__enter__()
        return started[kind]

    yield get
    for broker in started.values():
        broker.__exit__(None, None, None)


CHOSEN = [
    pytest.param(name, case, id=f"{name}-{case}", marks=pytest.mark.broker(NAMES[harness.kind]))
    for name, harness in HARNESSES.items()
    for case in conformance.cases(harness, broker=True)
    if case.name in CASES
]


def test_the_names_of_the_cases_are_right():
    assert {case.name for case in conformance.all_cases()} >= CASES


@pytest.mark.parametrize(("name", "case"), CHOSEN)
def test_conformance(name, case, running, files):
    harness = HARNESSES[name]()
    broker = running(harness.kind)
    harness.base = broker.url.partition("://")[2].rstrip("/")
    harness.options = {**files, **harness.more}
    harness.broker = broker
    case.run(harness)
