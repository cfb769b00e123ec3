"""The Redis driver against a real server: sending, what stands in the stream, refusals, encryption."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
import redis

import simlink
from simlink.channels.redis.packing import append_command
from simlink.channels.redis.scripts import APPEND, FENCE
from simlink.errors import (
    ConfigError,
    ConnectError,
    ConnectTimeout,
    InvalidURL,
    NotSupported,
    ReceiveTimeout,
    SendError,
)
from simlink.message import Batch, Message, Same
from simlink.testing.brokers import RedisBroker
from tests.support.certificates import Authority
from tests.support.redis import GuardedRedis, LossyProxy, client_of

TIMEOUT = 30.0
STAMP = 1_700_000_000_123_456


@pytest.fixture
def name():
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def url(redis_broker, name):
    return f"{redis_broker.url}/{name}"


@pytest.fixture
def client(redis_broker):
    with client_of(redis_broker) as one:
        yield one


def bodies_in(client, key):
    return [fields[b"body"] for _, fields in client.xrange(key)]


# --- what stands in the stream ------------------------------------------------------------------------------------


def test_an_entry_can_be_read_by_anybody(url, name, client):
    producer = bytes(range(16))
    with simlink.queue(url) as orders:
        orders.send(Message(body=b"1", key=b"ann", producer=producer, sequence=41, timestamp=STAMP))
        orders.send({"a": 1}, headers={"trace": "7f", "body": "own", "header:x": "y"})

    first, second = [fields for _, fields in client.xrange(name)]
    assert first == {
        b"body": b"1",
        b"key": b"ann",
        b"simlink-id": f"{producer.hex()}/{41:016d}/{STAMP:016d}".encode(),
    }
    assert {field: value for field, value in second.items() if field != b"simlink-id"} == {
        b"body": b'{"a":1}',
        b"content-type": b"application/json",
        b"trace": b"7f",
        b"header:body": b"own",
        b"header:header:x": b"y",
    }


def test_a_foreigners_entry_is_read(url, name, client):
    with simlink.queue(url) as orders, orders.receiver() as rx:
        client.xadd(name, {"body": '{"a":1}', "key": "ann", "trace": "7f"})
        client.xadd(name, {"user": "ann", "amount": "3"})
        first = rx.get(timeout=TIMEOUT)
        assert (first.value, first.message.key, dict(first.message.headers)) == ({"a": 1}, b"ann", {"trace": "7f"})
        second = rx.get(timeout=TIMEOUT)
        assert (second.message.body, dict(second.message.headers)) == (b"", {"user": "ann", "amount": "3"})


def test_the_path_names_the_database(redis_broker, name):
    with simlink.queue(f"{redis_broker.url}/3/{name}") as orders:
        orders.send(1)
    with client_of(redis_broker, 3) as client:
        assert bodies_in(client, name) == [b"1"]


@pytest.mark.parametrize("path", ["zero/orders", "0/1/orders", "-1/orders"])
def test_another_path_is_refused(path):
    with pytest.raises(InvalidURL, match="database"):
        simlink.queue(f"redis://h/{path}")


def test_a_closed_sender_leaves_nothing_beside_the_stream(url, name, client):
    with simlink.queue(url) as orders:
        orders.send(1)
        assert len(client.keys(f"{{{name}}}:*")) == 1
    assert client.keys(f"*{name}*") == [name.encode()]


def test_without_identity_there_is_no_such_field(url, name, client):
    with simlink.queue(url, identity=False) as orders:
        orders.send(1)
    assert [sorted(fields) for _, fields in client.xrange(name)] == [[b"body", b"content-type"]]


# --- once, however often it is sent -------------------------------------------------------------------------------


def test_every_tenth_reply_lost_costs_nothing_and_repeats_nothing(redis_broker, name, client):
    with LossyProxy(redis_broker, b"EVALSHA", 10) as proxy:
        with simlink.queue(f"redis://{proxy.address}/{name}") as orders:
            for i in range(100):
                orders.send(i, timeout=TIMEOUT)
            assert orders.stats()["confirmed"] == 100
            assert orders.stats()["resent"] == 0
        assert proxy.lost >= 10
    assert bodies_in(client, name) == [b"%d" % i for i in range(100)]


def test_lost_replies_in_a_stream_of_batches(redis_broker, name, client):
    with LossyProxy(redis_broker, b"EVALSHA", 7) as proxy:
        with simlink.queue(f"redis://{proxy.address}/{name}", streams=3) as orders:
            for at in range(0, 10_000, 200):
                orders.send_many(list(range(at, at + 200)), key=lambda i: i % 10, timeout=TIMEOUT)
        assert proxy.lost >= 3
    found = [list(map(int, bodies_in(client, f"{{{name}}}:{i}"))) for i in range(3)]
    assert sorted(i for rows in found for i in rows) == list(range(10_000))
    for key in range(10):
        (home,) = [rows for rows in found if key in rows]
        assert [i for i in home if i % 10 == key] == list(range(key, 10_000, 10))


def call(client, batch, first, epoch, name, streams=1, retention=None):
    keys = [name.encode()] if streams == 1 else [f"{{{name}}}:{i}".encode() for i in range(streams)]
    packed = append_command(
        batch, first, record=b"{%s}:r" % name.encode(), keys=keys, epoch=epoch, retention=retention, identity=False
    )
    connection = client.connection_pool.get_connection()
    try:
        connection.send_packed_command([packed])
        return connection.read_response()
    finally:
        client.connection_pool.release(connection)


@pytest.fixture
def scripted(client, name):
    client.script_load(APPEND.source)
    client.eval(FENCE.source, 1, f"{{{name}}}:r", "1", 60_000)
    return client


ROWS = [Batch([b"a", b"b", b"c"]), Batch([b"a", b"b", b"c"], headers=[{"h": "1"}, {}, {"i": "2", "j": "3"}])]


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("batch", ROWS, ids=["alike", "different"])
def test_a_call_that_comes_again_appends_only_what_is_missing(scripted, name, batch, streams):
    def all_bodies():
        keys = [name] if streams == 1 else [f"{{{name}}}:{i}" for i in range(streams)]
        return sorted(body for key in keys for body in bodies_in(scripted, key))

    assert call(scripted, batch[:2], 0, b"1", name, streams) == 2
    assert call(scripted, batch[:2], 0, b"1", name, streams) == 2
    assert all_bodies() == [b"a", b"b"]
    call(scripted, batch, 0, b"1", name, streams)
    assert all_bodies() == [b"a", b"b", b"c"]


def test_a_call_of_an_older_connection_is_refused(scripted, name):
    assert call(scripted, Batch([b"a"]), 0, b"1", name) == 1
    assert scripted.eval(FENCE.source, 1, f"{{{name}}}:r", "2", 60_000) == [1, b"0"]
    with pytest.raises(redis.ResponseError, match="SIMLINKSTOPPED"):
        call(scripted, Batch([b"late"]), 1, b"1", name)
    assert bodies_in(scripted, name) == [b"a"]


def test_what_stands_behind_a_refused_row_waits_until_the_sender_knows(scripted, name):
    scripted.set(f"{{{name}}}:1", "no stream")
    rows = Batch([b"a", b"b"], producers=Same(bytes(16), 2), sequences=range(2))
    with pytest.raises(redis.ResponseError, match="SIMLINKROW 1 WRONGTYPE"):
        call(scripted, rows, 0, b"1", name, 2)
    with pytest.raises(redis.ResponseError, match="SIMLINKSTOPPED"):
        call(scripted, Batch([b"c"]), 2, b"1", name)
    assert scripted.eval(FENCE.source, 1, f"{{{name}}}:r", "2", 60_000) == [1, b"0"]


def test_scripts_that_the_server_forgets_are_loaded_again(url, name, client):
    with simlink.queue(url) as orders, orders.receiver() as rx:
        for i in range(3):
            client.script_flush()
            orders.send(i, timeout=TIMEOUT)
            client.script_flush()
            assert rx.get(timeout=TIMEOUT).value == i
    assert len(client.xrange(name)) == 0


def test_single_sends_leave_together(url):
    with simlink.queue(url) as orders:
        receipts = [orders.send(i, wait=False) for i in range(500)]
        for receipt in receipts:
            receipt.wait(TIMEOUT)
        assert {receipt.state for receipt in receipts} == {"confirmed"}
        assert orders.stats()["driver"]["calls"] < 500


# --- refusals -----------------------------------------------------------------------------------------------------


def test_a_key_that_is_no_stream_is_told(url, name, client):
    client.set(name, "text")
    with simlink.queue(url) as orders:
        with pytest.raises(SendError, match="WRONGTYPE"):
            orders.send(1, timeout=TIMEOUT)
        with pytest.raises(ConnectError, match="WRONGTYPE") as caught, orders.receiver():
            pass
        assert not caught.value.retryable
        with pytest.raises(ConfigError, match="something else than a stream"):
            orders.purge()


def test_a_message_of_too_many_headers_fails_alone(url, name, client):
    rows = [Message(body=b"%d" % i, headers={f"h{j}": "" for j in range(1_001 if i == 1 else 900)}) for i in range(3)]
    with simlink.queue(url) as orders:
        receipt = orders.send_many(rows, timeout=TIMEOUT, wait=False).wait(TIMEOUT)
        assert receipt.failed_rows() == [1]
        assert "1001 headers, the limit is 1000" in str(receipt.error)
    assert bodies_in(client, name) == [b"0", b"2"]


def test_nobody_there(name):
    with simlink.queue(f"redis://127.0.0.1:1/{name}") as orders:
        with pytest.raises(ConnectTimeout, match=r"127\.0\.0\.1:1"):
            orders.send(1, timeout=0.3)


def test_the_next_host_of_the_list_is_tried(redis_broker, name, client):
    with simlink.queue(f"redis://127.0.0.1:1,{redis_broker.host}:{redis_broker.port}/{name}") as orders:
        orders.send(1, timeout=TIMEOUT)
    assert bodies_in(client, name) == [b"1"]


def test_what_makes_no_sense_is_refused():
    with simlink.queue("redis://h/orders") as orders:
        with pytest.raises(ConfigError, match="is not 'earliest'"):
            orders.receiver(start="yesterday")
    with simlink.queue("redis://h/orders", streams=2) as orders:
        with pytest.raises(NotSupported, match="of one stream"):
            orders.receiver(start="1-0")
    with pytest.raises(ConfigError, match="min_idle"):
        simlink.queue("redis://h/orders?min_idle=4000")
    with pytest.raises(InvalidURL, match="did you mean 'streams'"):
        simlink.queue("redis://h/orders?stream=4")


# --- credentials and encryption -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("redis"))


@pytest.fixture(scope="module")
def guarded(authority, tmp_path_factory):
    RedisBroker.locate()
    with GuardedRedis(authority, authority.issue("127.0.0.1", "localhost")) as broker:
        yield broker


@pytest.mark.parametrize("login", ["", ":wrong-word@", "nobody:wrong-word@"])
def test_a_wrong_password_is_one_clear_sentence(guarded, name, login):
    with simlink.queue(f"redis://{login}{guarded.host}:{guarded.port}/{name}") as orders:
        with pytest.raises(ConnectError) as caught:
            orders.send(1, timeout=TIMEOUT)
        with pytest.raises(ConnectError) as receiving, orders.receiver():
            pass
    for error in (caught.value, receiving.value):
        assert "refused the user or the password" in str(error)
        assert "\n" not in str(error)
        assert "wrong-word" not in str(error)
        assert not error.retryable


def test_the_right_password_opens(guarded, name):
    url = f"redis://:{quote(guarded.password, safe='')}@{guarded.host}:{guarded.port}/{name}"
    with simlink.queue(url) as orders, orders.receiver() as rx:
        orders.send(1, timeout=TIMEOUT)
        assert rx.take(1, timeout=TIMEOUT) == [1]
        assert guarded.password not in f"{orders!r} {orders.url} {rx!r} {orders.stats()}"


def test_credentials_may_be_a_function(guarded, name):
    address = f"redis://{guarded.host}:{guarded.port}/{name}"
    with simlink.queue(address, credentials=lambda: ("default", guarded.password)) as orders:
        assert orders.send(1, timeout=TIMEOUT).state == "confirmed"


def secure(guarded, authority, name, **more):
    ours = authority.issue("client")
    options = {"ca": authority.ca, "cert": ours.cert, "key": ours.key, **more}
    password = quote(guarded.password, safe="")
    return simlink.queue(f"rediss://:{password}@{guarded.tls_address}/{name}", **options)


def test_tls_carries_everything(guarded, authority, name):
    rows = [{"i": i, "pad": "x" * 500} for i in range(2_000)]
    with secure(guarded, authority, name) as orders, orders.receiver() as rx:
        orders.send_many(rows, timeout=TIMEOUT)
        assert rx.take(len(rows), timeout=TIMEOUT) == rows
        with pytest.raises(ReceiveTimeout):
            rx.get(timeout=0.2)
        orders.send("one more", timeout=TIMEOUT)
        assert rx.take(1, timeout=TIMEOUT) == ["one more"]


def test_tls_refuses_whom_it_does_not_know(guarded, authority, name, tmp_path):
    with secure(guarded, authority, name, ca=Authority(tmp_path, "other").ca) as orders:
        with pytest.raises(ConnectError, match="not signed by a trusted CA") as caught:
            orders.send(1, timeout=TIMEOUT)
    assert not caught.value.retryable


def test_tls_options_need_tls(name):
    with pytest.raises(ConfigError, match="without TLS"):
        simlink.queue(f"redis://h/{name}", ca="ca.pem")


# --- purging and deleting -----------------------------------------------------------------------------------------


def test_purge_spares_what_somebody_has_in_hand(url, name, client):
    with simlink.queue(url) as orders, orders.receiver(settle="manual", prefetch=2) as rx:
        orders.send_many(list(range(10)), timeout=TIMEOUT)
        first = rx.get(timeout=TIMEOUT)
        held = client.xpending(name, name)["pending"]
        assert orders.purge() == 10 - held
        assert bodies_in(client, name) == [b"%d" % i for i in range(held)]
        assert first.ack()


def test_delete_removes_everything(url, name, client):
    with simlink.topic(url) as events:
        with events.receiver("audit"):
            events.send(1, timeout=TIMEOUT)
        events.delete()
        assert client.exists(name) == 0
        events.delete()
        events.delete_subscription("audit")


# --- an outage ----------------------------------------------------------------------------------------------------


def test_what_was_confirmed_and_what_is_held_survive_a_killed_server(name):
    with RedisBroker(own=True) as broker:
        with simlink.queue(f"{broker.url}/{name}") as orders, orders.receiver(settle="manual") as rx:
            orders.send_many(list(range(100)), timeout=TIMEOUT)
            hand = [rx.get(timeout=TIMEOUT) for _ in range(10)]
            broker.kill()
            late = orders.send("later", wait=False)
            starting = threading.Thread(target=broker.start)
            starting.start()
            late.wait(TIMEOUT)
            starting.join()
            assert late.state == "confirmed"
            assert [delivery.ack() for delivery in hand] == [True] * 10
            rest = [rx.get(timeout=TIMEOUT) for _ in range(91)]
            assert [d.value for d in rest] == [*range(10, 100), "later"]
            assert {d.attempt for d in rest} == {1}
            assert all(d.ack() for d in rest)
        with simlink.queue(f"{broker.url}/{name}") as orders, orders.receiver() as rx:
            with pytest.raises(ReceiveTimeout):
                rx.get(timeout=0.3)


def test_a_datetime_without_a_zone_and_one_with_mean_the_same_instant():
    from simlink.channels.redis.starts import before

    instant = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert before(instant, end="$") == before(instant.astimezone().replace(tzinfo=None), end="$")
