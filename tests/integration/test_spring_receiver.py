"""The Java receiver by itself: killed and restarted it loses nothing, and it ends when it is told to."""

from __future__ import annotations

import json
import threading

import pytest

from tests.support.spring import SpringReceiver

COUNT = 30_000


@pytest.fixture
def topic(kafka_broker, request):
    from kafka import KafkaAdminClient
    from kafka.admin import NewTopic

    name = f"spring-{request.node.name}"
    admin = KafkaAdminClient(bootstrap_servers=f"{kafka_broker.host}:{kafka_broker.port}")
    admin.create_topics([NewTopic(name, 6, 1)])
    yield name
    admin.delete_topics([name])
    admin.close()


@pytest.fixture
def send(kafka_broker, topic):
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=f"{kafka_broker.host}:{kafka_broker.port}", acks="all")

    def send(ids, **more):
        for i in ids:
            body = json.dumps({"event_id": i, **more}).encode() if isinstance(i, int) else i
            producer.send(topic, body, key=str(i).encode())
        producer.flush(60)

    yield send
    producer.close()


def test_killed_twice_it_writes_every_id(kafka_broker, topic, send, tmp_path):
    address = f"{kafka_broker.host}:{kafka_broker.port}"
    with SpringReceiver(address, topic, tmp_path) as receiver:
        sender = threading.Thread(target=send, args=(range(COUNT),))
        sender.start()
        for third in (1, 2):
            receiver.wait_for(third * COUNT // 3)
            receiver.restart()
        sender.join()
        ids = receiver.wait_for(COUNT)
        assert set(ids) == {str(i) for i in range(COUNT)}
        # At most what one poll brought, for each kill.
        assert len(ids) - COUNT <= 2 * 500
        # A clean end acknowledges, so nothing comes again.
        assert receiver.stop() == 143
        receiver.start()
        send([COUNT])
        assert receiver.wait_for(COUNT + 1)[-1] == str(COUNT)
        assert len(receiver.ids()) == len(ids) + 1


def test_what_it_cannot_read_stops_nothing(kafka_broker, topic, send, tmp_path):
    address = f"{kafka_broker.host}:{kafka_broker.port}"
    with SpringReceiver(address, topic, tmp_path, instance=None, properties={"receiver.id-field": "id"}) as receiver:
        send([b"not json", b'{"other": 1}', b'{"id": "good"}'])
        assert receiver.wait_for(1) == ["good"]
        assert receiver.stop() == 143
    assert "no JSON object with a field 'id'" in receiver.log.read_text()
