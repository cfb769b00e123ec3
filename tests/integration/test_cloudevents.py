"""CloudEvents on the wire: what stock clients and the official SDK see and send, with simlink at the other end."""

from __future__ import annotations

import json
import threading
import urllib.request
import uuid
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pika
import pytest
from cloudevents.core.bindings import amqp, http, kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Consumer, Producer, TopicPartition

import simlink
from tests.support.rabbitmq import plain

PATIENCE = 30.0
FORMAT = JSONFormat()
OPTIONS = {"envelope": "cloudevents", "event_source": "/shop", "event_type": "com.example.login"}
WHEN = datetime(2025, 11, 13, 2, 13, 20, 123000, tzinfo=UTC)  # AMQP's timestamps have milliseconds
GIVEN = {
    "specversion": "1.0",
    "id": "7",
    "source": "/sdk",
    "type": "com.example.logout",
    "subject": "größe 7%",
    "time": WHEN,
    "datacontenttype": "application/json",
}


def sent_by(channel):
    channel.send({"user": 7}, key="ann", headers={"ce-subject": "größe 7%", "traceparent": "00-7f"}, timeout=PATIENCE)


def check_sent(event, channel):
    """What the SDK read of `sent_by`."""
    found = event.get_attributes()
    assert event.get_data() == {"user": 7}
    assert found.pop("time").tzinfo is not None
    assert found == {
        "specversion": "1.0",
        "id": f"{channel._producer.hex()}-0",
        "source": "/shop",
        "type": "com.example.login",
        "subject": "größe 7%",
        "datacontenttype": "application/json",
        "partitionkey": "ann",
    }


def check_received(message):
    """What simlink read of the event of the SDK's."""
    headers = {name: value for name, value in message.headers.items() if name.startswith("ce-")}
    assert (json.loads(message.body), message.content_type) == ({"user": 7}, "application/json")
    assert datetime.fromisoformat(headers.pop("ce-time")) == WHEN
    assert headers == {f"ce-{name}": value for name, value in GIVEN.items() if name not in {"time", "datacontenttype"}}


def from_sdk():
    return CloudEvent(attributes=dict(GIVEN), data={"user": 7})


@pytest.mark.parametrize("scheme", ["kafka+confluent", "kafka+python"])
def test_kafka(kafka_broker, scheme):
    address, name = kafka_broker.url.partition("://")[2], f"t-{uuid.uuid4().hex[:12]}"
    with simlink.queue(f"{scheme}://{address}/{name}", partitions=1, **OPTIONS) as logins:
        sent_by(logins)
        client = Consumer({"bootstrap.servers": address, "group.id": name + "x", "auto.offset.reset": "earliest"})
        client.assign([TopicPartition(name, 0, 0)])
        record = client.poll(PATIENCE)
        client.close()
        raw = kafka.KafkaMessage(dict(record.headers()), record.key(), record.value())

        assert raw.headers["traceparent"] == b"00-7f"
        check_sent(kafka.from_binary(raw, FORMAT), logins)

        found = kafka.to_binary(from_sdk(), FORMAT)
        producer = Producer({"bootstrap.servers": address})
        producer.produce(name, found.value, b"bob", headers=list(found.headers.items()))
        producer.flush()
        with logins.receiver() as rx:
            ours, theirs = rx.get(timeout=PATIENCE).message, rx.get(timeout=PATIENCE).message
        logins.delete()

    assert (ours.key, ours.headers["ce-source"], ours.headers["traceparent"]) == (b"ann", "/shop", "00-7f")
    assert theirs.key == b"bob"
    check_received(theirs)


def test_rabbitmq(rabbitmq_broker):
    name = f"t-{uuid.uuid4().hex[:12]}"
    with simlink.queue(f"{rabbitmq_broker.url}/{name}", **OPTIONS) as logins:
        sent_by(logins)
        with plain(rabbitmq_broker) as client:
            _, properties, body = client.basic_get(name, auto_ack=True)
            found = amqp.to_binary(from_sdk(), FORMAT)
            client.basic_publish(
                "",
                name,
                found.application_data,
                pika.BasicProperties(
                    content_type=found.properties["content-type"], headers=found.application_properties
                ),
            )
        with logins.receiver() as rx:
            theirs = rx.get(timeout=PATIENCE).message
        logins.delete()

    raw = amqp.AMQPMessage({"content-type": properties.content_type}, properties.headers, body)
    check_sent(amqp.from_binary(raw, FORMAT), logins)
    check_received(theirs)


class Endpoint:
    """Somebody's REST endpoint: keeps what it was posted."""

    def __enter__(self):
        self.seen = seen = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                seen.append(http.HTTPMessage({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(202)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join(5)
        self.server.server_close()


def test_http_to_any_endpoint():
    with Endpoint() as endpoint:
        url = f"http://127.0.0.1:{endpoint.server.server_port}/logins"
        with simlink.queue(url, rest=True, **OPTIONS) as logins:
            sent_by(logins)

    (posted,) = endpoint.seen
    assert posted.headers["traceparent"] == "00-7f"
    assert posted.headers["ce-subject"] == "gr%C3%B6%C3%9Fe%207%25"
    check_sent(http.from_binary(posted, FORMAT), logins)


def test_http_from_any_client():
    with simlink.queue("http://127.0.0.1:0/logins", **OPTIONS) as logins, logins.receiver() as rx:
        found = http.to_binary(from_sdk(), FORMAT)
        posted = urllib.request.Request(rx.url.partition("?")[0], data=found.body, headers=found.headers)
        with urllib.request.urlopen(posted, timeout=PATIENCE) as reply:
            assert reply.status == 202
        check_received(rx.get(timeout=PATIENCE).message)

        sent_by(logins)
        ours = rx.get(timeout=PATIENCE).message

    assert (ours.headers["ce-subject"], ours.headers["ce-partitionkey"], ours.key) == ("größe 7%", "ann", b"ann")
