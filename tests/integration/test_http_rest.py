"""http:// with rest=True: one request a record, to a server written by hand that answers as it is told."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import simlink
from simlink.channels.channel import queue
from simlink.channels.driver import Mode, OutcomeKind
from simlink.channels.http import HttpDriver
from simlink.channels.url import parse_url
from simlink.errors import BatchError, ConnectError, SendError, SendTimeout
from simlink.message import Batch, Message, Same
from simlink.testing.brokers.ports import free_ports

LOCAL = "127.0.0.1"
PATIENCE = 20.0
HANG, RESET = "hang", "reset"


class Endpoint:
    """A server that keeps what it is asked, and answers by a script: (status, headers), HANG or RESET; then 200."""

    def __init__(self, *script):
        self.script = list(script)
        self.seen = []
        self.over = threading.Event()
        self.lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                with endpoint.lock:
                    endpoint.seen.append((time.monotonic(), self.command, self.path, dict(self.headers), body))
                    action = endpoint.script.pop(0) if endpoint.script else (200, {})
                if action == HANG:
                    endpoint.over.wait(PATIENCE)
                if isinstance(action, str):
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, headers = action
                said = b'{"detail": "no such thing"}' if status >= 400 else b""
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)
                if headers.get("connection") == "close":
                    self.close_connection = True

            do_POST = do_PUT = do_PATCH = answer  # noqa: N815 – the base class looks for these

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer((LOCAL, 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def bodies(self):
        return [body for *_, body in self.seen]

    def queue(self, **options):
        return queue(f"http://{LOCAL}:{self.port}/v1/orders", rest=True, **options)


def test_each_record_is_a_request_with_what_was_chosen():
    with Endpoint() as endpoint:
        options = {"method": "PUT", "headers": {"X-Tenant": "a"}, "path": "/v1/items/?dry=1", "token": "t0k"}
        with endpoint.queue(**options, connections=1) as channel:
            receipt = channel.send_many([{"a": 1}, {"a": 2}], key="a", headers={"trace": "7f"})
            assert (receipt.confirmed, len(receipt)) == (2, 2)
            _, method, path, headers, body = endpoint.seen[0]
            assert (method, path, body) == ("PUT", "/v1/items/?dry=1", b'{"a":1}')
            assert {name: headers[name] for name in ("X-Tenant", "trace", "content-type", "authorization")} == {
                "X-Tenant": "a",
                "trace": "7f",
                "content-type": "application/json",
                "authorization": "Bearer t0k",
            }
            assert headers["simlink-key"] == "1"
            names = [seen[3]["idempotency-key"] for seen in endpoint.seen]
            assert len(set(names)) == 2
            assert all(name.startswith('"') and name.endswith('"') for name in names)
            assert channel.stats()["settled"] == 0
            assert channel.stats()["in_flight"] == 0


def test_without_an_identity_there_is_no_idempotency_key():
    with Endpoint() as endpoint, endpoint.queue(identity=False) as channel:
        channel.send(1)
        assert "idempotency-key" not in endpoint.seen[0][3]


def test_a_receiver_of_ours_takes_them_once():
    with queue(f"http://{LOCAL}:0/orders") as here, here.receiver() as rx:
        with queue(rx.url, rest=True) as rest:
            message = Message(
                body=b"1",
                content_type="application/json",
                key="ü/".encode(),
                producer=b"p" * 16,
                sequence=7,
                timestamp=1_700_000_000_000_000,
            )
            rest.send(message)
            rest.send(message)
            got = rx.get().message
            assert (got.body, got.key, got.producer, got.sequence, got.timestamp) == (
                b"1",
                message.key,
                message.producer,
                message.sequence,
                message.timestamp,
            )
            rest.send("last")
            assert rx.get().value == "last"
            assert rx.stats()["driver"]["duplicates"] == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_time_is_given_it_and_asked_again_with_the_same_id(status):
    with Endpoint((200, {}), (status, {"retry-after": "1"})) as endpoint, endpoint.queue(connections=1) as channel:
        channel.send_many([1, 2, 3])
        assert endpoint.bodies == [b"1", b"2", b"2", b"3"]
        refused, again = endpoint.seen[1], endpoint.seen[2]
        assert again[0] - refused[0] >= 1.0
        assert refused[3]["idempotency-key"] == again[3]["idempotency-key"]
        stats = channel.stats()
        assert (stats["confirmed"], stats["returned"], stats["resent"]) == (3, 2, 0)


def test_a_refusal_is_a_failure_of_that_record_alone():
    with Endpoint((200, {}), (422, {}), (302, {"location": "/other"})) as endpoint:
        with endpoint.queue(connections=1) as channel:
            with pytest.raises(BatchError) as caught:
                channel.send_many([1, 2, 3, 4])
            assert set(caught.value.failed) == {1, 2}
            assert "302: it is at '/other'" in str(caught.value)
            endpoint.script.append((400, {}))
            with pytest.raises(SendError, match="was answered by 400: no such thing"):
                channel.send(5)
            assert endpoint.bodies == [b"1", b"2", b"3", b"4", b"5"]


@pytest.mark.parametrize("action", [(500, {}), (503, {}), RESET], ids=str)
def test_what_may_have_been_done_is_unknown_and_not_sent_again(action):
    with Endpoint(action) as endpoint, endpoint.queue(connections=1) as channel:
        with pytest.raises(SendTimeout, match="may or may not be there"):
            channel.send(1)
        channel.send(2)
        assert endpoint.bodies == [b"1", b"2"]
        assert channel.stats()["unknown"] == 1


def test_a_reply_that_does_not_come_leaves_it_unknown():
    with Endpoint(HANG) as endpoint, endpoint.queue(request_timeout=0.2) as channel:
        with pytest.raises(SendTimeout, match=r"no reply within 0\.2 s"):
            channel.send(1)
        endpoint.over.set()
        assert channel.send(2).state == "confirmed"


@pytest.mark.parametrize("action", [(500, {}), RESET], ids=str)
def test_retry_always_sends_it_again_and_counts_it(action):
    with Endpoint(action) as endpoint, endpoint.queue(retry="always") as channel:
        channel.send(1)
        assert endpoint.bodies == [b"1", b"1"]
        assert endpoint.seen[0][3]["idempotency-key"] == endpoint.seen[1][3]["idempotency-key"]
        assert channel.stats()["resent"] == 1


def test_a_server_that_closes_after_each_reply_costs_a_connection_and_no_record():
    with Endpoint(*[(200, {"connection": "close"})] * 20) as endpoint, endpoint.queue() as channel:
        channel.send_many(range(20))
        assert sorted(endpoint.bodies, key=int) == [b"%d" % i for i in range(20)]
        assert channel.stats()["driver"]["connects"] >= 20


def test_an_idle_connection_that_was_closed_is_found_before_it_is_used():
    with socket.create_server((LOCAL, 0)) as server:
        bodies = []

        def serve():
            for _ in range(2):
                peer, _ = server.accept()
                with peer:
                    bodies.append(peer.recv(65536).rpartition(b"\r\n\r\n")[2])
                    peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with queue(f"http://{LOCAL}:{server.getsockname()[1]}/orders", rest=True) as channel:
            assert channel.send(1).state == "confirmed"
            deadline = time.monotonic() + PATIENCE
            while channel.native and time.monotonic() < deadline:
                with contextlib.suppress(BlockingIOError):
                    if channel.native[0].recv(1, socket.MSG_PEEK) == b"":
                        break
            assert channel.send(2).state == "confirmed"
        thread.join()
        assert bodies == [b"1", b"2"]


def test_a_header_that_http_cannot_carry_fails_its_record_alone():
    with Endpoint() as endpoint, endpoint.queue(headers={"x-fixed": "1"}) as channel:
        for headers in ({"a": "1\x01"}, {"content-length": "5"}, {"X-Fixed": "2"}, {"a b": "1"}):
            with pytest.raises(SendError, match="cannot be sent over HTTP"):
                channel.send(1, headers=headers)
        channel.send(2, headers={"a": "ü ☃"})
        assert endpoint.bodies == [b"2"]


def test_nobody_there_is_waited_for_and_named():
    with queue(f"http://{LOCAL}:{free_ports(1)[0]}/orders", rest=True) as channel:
        with pytest.raises(ConnectError, match="nobody listens there"):
            channel.send(1, timeout=0.3)


def test_an_endpoint_that_goes_and_comes_back_gets_the_rest():
    first = Endpoint()
    with first:
        port = first.port
        tx = HttpDriver(parse_url(f"http://{LOCAL}:{port}/orders"), mode=Mode.QUEUE, rest=True, connections=1).sender()
        tx.open(5.0)
        tx.submit(Batch([b"1"], producers=Same(b"p" * 16, 1), sequences=range(1)), 0)
        deadline = time.monotonic() + PATIENCE
        seen = []
        while not seen and time.monotonic() < deadline:
            seen += tx.outcomes(0.1)
        assert [(o.kind, o.first, o.stop) for o in seen] == [(OutcomeKind.CONFIRMED, 0, 1)]
        for sock in tx.native:
            sock.shutdown(socket.SHUT_RDWR)
    tx.submit(Batch([b"2", b"3"], producers=Same(b"p" * 16, 2), sequences=range(1, 3)), 1)
    seen = []

    def listen():
        while time.monotonic() < deadline:
            seen.extend(tx.outcomes(0.05))

    with pytest.raises(ConnectError, match="nobody listens there") as caught:
        listen()
    assert caught.value.retryable
    back = sorted((o.first, o.stop) for o in seen if o.kind is OutcomeKind.RETURNED and not o.ambiguous)
    assert [p for first, stop in back for p in range(first, stop)] == [1, 2]
    tx.close(1.0)


def test_closing_waits_for_what_is_under_way():
    with Endpoint() as endpoint:
        with endpoint.queue() as channel:
            receipt = channel.send_many(range(200), wait=False)
        assert (receipt.confirmed, len(endpoint.seen)) == (200, 200)


def test_a_pool_sends_nothing_twice_where_a_silent_endpoint_may_have_it():
    with Endpoint(HANG) as silent, Endpoint() as quick:
        urls = [f"http://{LOCAL}:{endpoint.port}/orders" for endpoint in (silent, quick)]
        quickly = simlink.Heartbeat(interval=0.1, suspect=3, dead=7)
        with simlink.pool(urls, rest=True, connections=1, detector=quickly, balancer=First()) as channel:
            receipts = [channel.send(number, wait=False) for number in range(3)]
            for receipt in receipts:
                receipt.wait(30)
            # The second and the third waited behind the first, and nobody had begun to ask for them.
            assert [receipt.state for receipt in receipts] == ["unknown", "confirmed", "confirmed"]
            assert channel.stats()["resent"] == 0
            assert (silent.bodies, quick.bodies) == ([b"0"], [b"1", b"2"])


class First(simlink.Balancer):
    """The first that is there."""

    def choose(self, endpoints, key):
        return endpoints[0]
