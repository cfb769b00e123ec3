"""The CloudEvents envelope: against the official SDK for each binding, both ways, and its own rules."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cloudevents.core.bindings import amqp, http, kafka, rabbitmq
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

import simlink
from simlink.channels.cloudevents import CloudEvents
from simlink.errors import ConfigError, EncodeError
from simlink.message import EMPTY_HEADERS, Batch, Message, Same

FORMAT = JSONFormat()
PRODUCER = bytes(range(16))
STAMP = 1_763_000_000_123_456
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WHEN = datetime(2025, 11, 13, 2, 13, 20, 123456, tzinfo=UTC)
SCHEMES = ["kafka", "kafka+python", "kafkas", "http", "https", "amqp", "amqps", "memory", "tcp", "grpc", "redis"]

# What a CloudEvents String may hold.
VALUES = st.text(
    st.characters(
        exclude_categories=["Cc", "Cs"], exclude_characters=[*map(chr, range(0xFDD0, 0xFDF0)), "\ufffe", "\uffff"]
    ),
    min_size=1,
    max_size=12,
)
NAMES = st.from_regex(r"[a-z0-9]{1,10}", fullmatch=True).filter(
    lambda name: (
        name not in {"specversion", "time", "datacontenttype", "data", "id", "source", "type", "subject", "dataschema"}
    )
)


def message(**changed):
    return Message(
        **{
            "body": b'{"a":1}',
            "key": b"ann",
            "content_type": "application/json",
            "producer": PRODUCER,
            "sequence": 41,
            "timestamp": STAMP,
            **changed,
        }
    )


def read_by_sdk(scheme, sent):
    """What the official SDK makes of a message as it is on the wire."""
    headers, body = dict(sent.headers), sent.body
    family = scheme.partition("+")[0].removesuffix("s")
    if family == "kafka":
        raw = {name: value.encode() for name, value in headers.items()} | {"content-type": sent.content_type.encode()}
        return kafka.from_binary(kafka.KafkaMessage(raw, sent.key, body), FORMAT)
    if family == "amqp":
        return amqp.from_binary(amqp.AMQPMessage({"content-type": sent.content_type}, headers, body), FORMAT)
    if family == "http":
        return http.from_binary(http.HTTPMessage({**headers, "content-type": sent.content_type}, body), FORMAT)
    return rabbitmq.from_binary(rabbitmq.RabbitMQMessage(headers, sent.content_type, body), FORMAT)


def written_by_sdk(scheme, event):
    """A message as the official SDK writes it, as the transport's driver would give it to us."""
    family = scheme.partition("+")[0].removesuffix("s")
    if family == "kafka":
        found = kafka.to_binary(event, FORMAT)
        headers = {name: value.decode() for name, value in found.headers.items()}
        key = found.key.encode() if isinstance(found.key, str) else found.key
        return Message(body=found.value, key=key, content_type=headers.pop("content-type", None), headers=headers)
    if family == "amqp":
        found = amqp.to_binary(event, FORMAT)
        # A number in AMQP; the driver makes text of it.
        headers = {name: str(value) for name, value in found.application_properties.items()}
        return Message(body=found.application_data, content_type=found.properties["content-type"], headers=headers)
    if family == "http":
        found = http.to_binary(event, FORMAT)
        headers = dict(found.headers)
        return Message(body=found.body, content_type=headers.pop("content-type", None), headers=headers)
    found = rabbitmq.to_binary(event, FORMAT)
    return Message(body=found.body, content_type=found.content_type, headers=found.headers)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_sdk_reads_what_is_written(scheme):
    (sent,) = CloudEvents(scheme, "orders").wrap(Batch.of([message(headers={"ce-subject": "größe 7%", "trace": "7f"})]))

    event = read_by_sdk(scheme, sent)

    assert sent.headers["trace"] == "7f"
    assert event.get_data() == {"a": 1}
    assert event.get_attributes() == {
        "specversion": "1.0",
        "id": f"{PRODUCER.hex()}-41",
        "source": "/orders",
        "type": "simlink.message",
        "subject": "größe 7%",
        "time": WHEN,
        "datacontenttype": "application/json",
        "partitionkey": "ann",
    }


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_the_sdk_writes_is_read(scheme):
    event = CloudEvent(
        attributes={
            "id": "7",
            "source": "https://shop.example/ü?a=b",
            "type": "com.example.login",
            "subject": 'a "quoted" 100 %',
            "time": datetime(2025, 11, 13, 4, 13, 20, 123456, tzinfo=timezone(timedelta(hours=2))),
            "datacontenttype": "application/json",
            "partitionkey": "ann",
            "comexampleext": "x",
        },
        data={"a": 1},
    )

    (found,) = CloudEvents(scheme, "orders").unwrap(Batch.of([written_by_sdk(scheme, event)]))

    headers = dict(found.headers)
    stamp = STAMP // 1000 * 1000 if scheme.startswith("amqp") else STAMP  # its timestamps have milliseconds
    assert datetime.fromisoformat(headers.pop("ce-time")) == EPOCH + timedelta(microseconds=stamp)
    assert found.timestamp == stamp
    assert (json.loads(found.body), found.key, found.content_type) == ({"a": 1}, b"ann", "application/json")
    assert headers == {
        "ce-specversion": "1.0",
        "ce-id": "7",
        "ce-source": "https://shop.example/ü?a=b",
        "ce-type": "com.example.login",
        "ce-subject": 'a "quoted" 100 %',
        "ce-partitionkey": "ann",
        "ce-comexampleext": "x",
    }


@given(st.sampled_from(SCHEMES), st.dictionaries(NAMES, VALUES, max_size=4), VALUES, VALUES)
def test_attributes_come_back_as_they_were(scheme, extensions, source, kind):
    given = {**{f"ce-{name}": value for name, value in extensions.items()}, "ce-source": source, "ce-type": kind}
    envelope = CloudEvents(scheme, "orders")

    wrapped = envelope.wrap(Batch.of([message(headers={**given, "x-other": "kept"}, key=None)]))
    (found,) = envelope.unwrap(wrapped)

    assert {name: value for name, value in found.headers.items() if name in given} == given
    assert found.headers["x-other"] == "kept"
    event = read_by_sdk(scheme, wrapped[0]).get_attributes()
    assert {name: event[name] for name in extensions} == extensions
    assert (event["source"], event["type"]) == (source, kind)


@pytest.mark.parametrize(
    ("scheme", "written"),
    [("kafka", "ce_type"), ("http", "ce-type"), ("amqp", "cloudEvents_type"), ("tcp", "ce-type")],
)
def test_attributes_are_written_as_the_binding_has_them_however_they_were_given(scheme, written):
    for form in ("ce-type", "ce_type", "cloudEvents_type", "cloudEvents:type", "CE-Type"):
        (sent,) = CloudEvents(scheme, "orders").wrap(Batch.of([message(headers={form: "com.example.login"})]))

        assert {name for name in sent.headers if name.lower().endswith("type")} == {written}
        assert sent.headers[written] == "com.example.login"


def test_http_values_are_percent_encoded():
    """The example of the HTTP binding, 3.1.3.2."""
    (sent,) = CloudEvents("http", "orders").wrap(Batch.of([message(headers={"ce-subject": "Euro € 😀"})]))

    assert sent.headers["ce-subject"] == "Euro%20%E2%82%AC%20%F0%9F%98%80"


def test_what_is_no_event_stays_as_it_is():
    envelope = CloudEvents("kafka", "orders")
    plain = [Message(body=b"1"), Message(body=b"2", headers={"ce_type": "half an event"}), Message(body=b"3")]
    batch, bare = Batch.of(plain), Batch([b"1"], headers=Same(EMPTY_HEADERS, 1))

    assert [dict(m.headers) for m in envelope.unwrap(batch)] == [dict(m.headers) for m in plain]
    assert envelope.unwrap(bare) is bare


def test_what_a_message_has_of_its_own_is_not_overwritten():
    event = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/s", "ce_type": "t", "ce_partitionkey": "other",
             "ce_time": "2001-02-03T04:05:06Z"}  # fmt: skip
    own, none = message(headers=event), Message(body=b"", headers=event)

    found = CloudEvents("kafka", "orders").unwrap(Batch.of([own, none]))

    assert [(m.key, m.timestamp) for m in found] == [(b"ann", STAMP), (b"other", 981_173_106_000_000)]
    assert (own.headers, none.headers) == (event, event)


def test_the_batch_that_was_given_stays_as_it_is():
    given = Batch.of([message(headers={"ce-type": "t"})])

    wrapped = CloudEvents("amqp", "orders").wrap(given)

    assert dict(given[0].headers) == {"ce-type": "t"}
    assert (wrapped.bodies, wrapped.keys) == (given.bodies, given.keys)


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"ce-type": ""}, "needs a type"),
        ({"ce-id": ""}, "needs a id"),
        ({"ce-subject": "a\nb"}, "character that none may have"),
        ({"ce-subject": "\ufffe"}, "character that none may have"),
        ({"ce-specversion": "0.3"}, "1.0 are"),
        ({"ce-datacontenttype": "text/plain"}, "content type"),
        ({"ce-time": "yesterday"}, "RFC 3339"),
        ({"ce-time": "2025-02-30T00:00:00Z"}, "RFC 3339"),
    ],
)
def test_what_no_event_may_have_is_refused(headers, says):
    with pytest.raises(EncodeError, match=says) as caught:
        CloudEvents("kafka", "orders").wrap(Batch.of([message(), message(headers=headers)]))
    assert caught.value.row == 1


@given(st.integers(0, 4_102_444_800_000_000))
def test_times_come_back_to_the_microsecond(microseconds):
    envelope = CloudEvents("tcp", "orders")
    wrapped = envelope.wrap(Batch.of([message(timestamp=microseconds)]))
    wrapped.timestamps = Same(None, 1)

    assert envelope.unwrap(wrapped)[0].timestamp == microseconds


HOSTILE = (
    st.text(max_size=20)
    | st.from_regex(r"[0-9]{1,30}", fullmatch=True)
    | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|\\+[0-9]{2}:[0-9]{2})", fullmatch=True)
)


@given(
    st.sampled_from(SCHEMES),
    st.lists(
        st.dictionaries(
            st.sampled_from(["ce_time", "ce-partitionkey", "ce_specversion", "cloudEvents:id", "x"]), HOSTILE
        )
    ),
)
def test_whatever_comes_is_given_on(scheme, headers):
    """A stranger's headers cost nobody the receiver."""
    batch = Batch.of([Message(body=b"%d" % row, headers=found) for row, found in enumerate(headers)])

    assert CloudEvents(scheme, "orders").unwrap(batch).bodies == batch.bodies


def test_a_time_that_no_calendar_has_is_refused():
    with pytest.raises(EncodeError, match="no time that can be written"):
        CloudEvents("kafka", "orders").wrap(Batch.of([message(timestamp=10**18)]))


# --- on a channel -----------------------------------------------------------------------------------------------------


def test_through_a_channel(request):
    url = f"memory://{request.node.name}"
    options = {"envelope": "cloudevents", "event_source": "/shop", "event_type": "com.example.order"}
    with simlink.queue(url, **options) as orders, orders.receiver() as rx:
        orders.send({"a": 1}, key="ann", headers={"traceparent": "00-7f", "ce-subject": "s"})
        orders.send_many([{"a": 2}], headers={"ce-type": "com.example.other"})
        one, two = rx.get().message, rx.get().message

    assert dict(one.headers) == {
        "traceparent": "00-7f",
        "ce-specversion": "1.0",
        "ce-id": f"{one.producer.hex()}-0",
        "ce-source": "/shop",
        "ce-type": "com.example.order",
        "ce-subject": "s",
        "ce-time": one.headers["ce-time"],
        "ce-partitionkey": "ann",
    }
    assert (two.headers["ce-id"], two.headers["ce-type"]) == (f"{two.producer.hex()}-1", "com.example.other")


def test_a_run_sends_events_too(request):
    source = [{"i": i} for i in range(20)]
    url = f"memory://{request.node.name}?envelope=cloudevents"
    with simlink.queue(url) as orders, orders.receiver() as rx:
        report = simlink.run(source, orders, progress=False)
        found = [rx.get() for _ in range(20)]

    assert report.confirmed == 20
    assert [d.value for d in found] == source
    assert len({d.message.headers["ce-id"] for d in found}) == 20


def test_a_message_passed_on_stays_the_same_event(request):
    first, second = f"memory://{request.node.name}-1", f"memory://{request.node.name}-2"
    options = {"envelope": "cloudevents"}
    with (
        simlink.queue(first, **options) as here,
        simlink.queue(second, **options) as there,
        here.receiver() as rx,
        there.receiver() as after,
    ):
        here.send(1, key="k")
        there.send(rx.get().message)

        assert dict(after.get().message.headers)["ce-source"] == f"/{here.name}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"envelope": "cloudevent"}, "not one of none, cloudevents"),
        ({"event_source": "/x"}, "go with envelope='cloudevents'"),
        ({"envelope": "cloudevents", "event_type": ""}, "needs a type"),
        ({"envelope": "cloudevents", "event_source": "a\0"}, "character that none may have"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(options, says):
    with pytest.raises(ConfigError, match=says):
        simlink.queue("memory://x", **options)
