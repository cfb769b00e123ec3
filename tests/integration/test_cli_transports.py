"""``simlink send`` and ``simlink receive`` over every URL: two processes, and the proof that all of it arrived."""

import pytest

from simlink.channels.registry import known_schemes
from simlink.testing.brokers.ports import free_ports
from tests.support.certificates import Authority
from tests.support.command import Command

COUNT = 2_000
BROKERLESS = ("tcp", "http", "grpc")
SECURED = {"tcps": "secret", "https": "token", "grpcs": "token"}
BROKERS = {
    "kafka+confluent": "kafka_broker",
    "kafka+python": "kafka_broker",
    "amqp": "rabbitmq_broker",
    "redis": "redis_broker",
}


def url_of(scheme, request):
    name = f"cli-{request.node.name.partition('[')[2].rstrip(']').replace('+', '-')}"
    if scheme in BROKERLESS:
        return f"{scheme}://127.0.0.1:{free_ports(1)[0]}/{name}"
    broker = request.getfixturevalue(BROKERS[scheme])
    return f"{scheme}://{broker.url.partition('://')[2]}/{name}"


def test_every_transport_is_tried():
    """Brokers over TLS apart, which are in the conformance suite: it is the same code that reads their URLs."""
    tried = {scheme.partition("+")[0] for scheme in (*BROKERLESS, *SECURED, *BROKERS)}
    secured = {f"{scheme}s" for scheme in BROKERS} | {"kafkas"}
    others = {scheme for scheme in known_schemes() if scheme.partition("+")[0] not in tried | secured}
    assert others <= {"memory", "spool"}


@pytest.mark.parametrize("mode", ["queue", "topic"])
@pytest.mark.parametrize("scheme", [*BROKERLESS, *BROKERS])
def test_what_is_sent_is_received(scheme, mode, request):
    url = url_of(scheme, request)
    topic = ["--topic"] if mode == "topic" else []
    # RabbitMQ keeps the order of the log for one receiver, which is what there is here.
    proof = ("--verify", "clickstream", "--seed", 7, "--count", COUNT, "--idle", 30, "--json")
    with Command("receive", url, *topic, *proof) as receiver:
        receiver.ready()  # what it prints has no password
        with Command(
            "send", "clickstream", "--to", url, *topic, "--count", COUNT, "--seed", 7, "--key", "user_id", "--json"
        ) as sender:
            sent = sender.done().report
        received = receiver.done().report
    names = ("sent", "confirmed", "failed", "unknown", "resent")
    assert {name: sent[name] for name in names} == dict(zip(names, (COUNT, COUNT, 0, 0, 0), strict=True))
    names = ("received", "unique", "lost", "duplicated", "reordered", "corrupt")
    assert {name: received[name] for name in names} == dict(zip(names, (COUNT, COUNT, 0, 0, 0, 0), strict=True))


@pytest.mark.parametrize("scheme", SECURED)
def test_what_is_sent_encrypted_is_received(scheme, tmp_path):
    """With certificates of both sides and a secret, all of it in the URL; and nothing of the secret in what is said."""
    authority = Authority(tmp_path)
    leaf = authority.issue("127.0.0.1")
    hidden = "hush" * 5
    files = f"?ca={authority.ca}&cert={leaf.cert}&key={leaf.key}"
    url = f"{scheme}://127.0.0.1:{free_ports(1)[0]}/cli{files}&{SECURED[scheme]}={hidden}"
    proof = ("--verify", "numbers", "--seed", 7, "--count", 200, "--idle", 30, "--json")
    with Command("receive", url, *proof) as receiver:
        assert hidden not in receiver.ready()
        with Command("send", "numbers", "--to", url, "--count", 200, "--seed", 7, "--json") as sender:
            sent = sender.done()
        received = receiver.done()
    assert hidden not in sent.stdout + sent.stderr + received.stdout + received.stderr
    assert (sent.report["confirmed"], received.report["unique"], received.report["lost"]) == (200, 200, 0)


def test_what_is_published_without_a_promise_is_received(redis_broker):
    url = f"redis+pubsub://{redis_broker.url.partition('://')[2]}/cli?delivery=at-most-once"
    with Command("receive", url, "--topic", "--count", 200, "--idle", 30, "--json") as receiver:
        receiver.ready()
        with Command("send", "numbers", "--to", url, "--topic", "--count", 200, "--seed", 7, "--json") as sender:
            assert sender.done().report["confirmed"] == 200
        assert receiver.done().report["received"] == 200
