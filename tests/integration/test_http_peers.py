"""http:// and those that are not simlink: curl, browsers, garbage, slow peers, an application around it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest

import simlink
from simlink.channels.channel import queue
from simlink.channels.driver import OutcomeKind
from simlink.channels.url import parse_url
from simlink.channels.wire.codec import HEAD, encode
from simlink.channels.wire.frames import Accept, ErrorFrame, Heartbeat
from tests.support import brokerless
from tests.support.brokerless import (
    LOCAL,
    PATIENCE,
    QUICK,
    bodies,
    listen_for,
    numbered,
    receiving,
    sending,
    take,
    until,
)
from tests.support.http import JSON, Raw, ask, curl, http_raw

driver = partial(brokerless.driver, "http")

# --- plain clients ---------------------------------------------------------------------------------------------------


def test_curl_sends_one_value_an_array_and_lines():
    with queue(f"http://{LOCAL}:0/orders") as channel, channel.receiver() as rx:
        url = rx.url
        assert curl(url, "--json", '{"a": 1}') == (202, {"destination": "orders", "accepted": 1, "duplicates": 0})
        assert curl(url, "--json", '[{"a": 2}, {"a": 3}]')[1]["accepted"] == 2
        lines = b'{"a": 4}\n{"a": 5}\n'
        assert curl(url, "-H", "content-type: application/x-ndjson", "--data-binary", "@-", stdin=lines)[0] == 202
        assert rx.take(5) == [{"a": i} for i in range(1, 6)]
        assert curl(url, "-d", "a=1")[0] == 415
        assert curl(url, "--json", "{")[0] == 400
        assert curl(url + "x", "--json", "1")[1]["type"] == "urn:simlink:problem:no-receiver"


OFFER = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
ORDER = b"POST /orders HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\n"


def test_an_offered_upgrade_is_declined_and_the_body_is_read():
    # Java's own client makes the offer with each request without TLS.
    with queue(f"http://{LOCAL}:0/orders") as channel, channel.receiver() as rx:
        assert curl(rx.url, "--http2", "--json", '{"a": 1}')[0] == 202
        assert rx.take(1) == [{"a": 1}]


@pytest.mark.parametrize(
    "requests",
    [
        ORDER + OFFER + b"content-length: 5\r\n\r\nhello",
        ORDER + OFFER + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        ORDER + OFFER + b"expect: 100-continue\r\ncontent-length: 5\r\n\r\nhello",
        b"GET /orders HTTP/1.1\r\nhost: x\r\n" + OFFER + b"\r\n" + ORDER + b"content-length: 5\r\n\r\nhello",
    ],
    ids=["length", "chunked", "expect", "no body"],
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_an_offered_upgrade_changes_nothing_wherever_the_bytes_are_cut(requests, step):
    last = ORDER + b"connection: close\r\ncontent-length: 4\r\n\r\nlast"
    stream = requests + ORDER + OFFER + b"content-length: 0\r\n\r\n" + last
    with queue(f"http://{LOCAL}:0/orders", serializer=simlink.Bytes()) as channel, channel.receiver() as rx:
        with socket.create_connection((LOCAL, parse_url(rx.url).hosts[0].port), timeout=PATIENCE) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(stream), step):
                sock.sendall(stream[at : at + step])
            while sock.recv(65536):
                pass
        assert rx.take(3) == [b"hello", b"", b"last"]


def test_an_offered_upgrade_smuggles_nothing():
    twice = b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    with queue(f"http://{LOCAL}:0/orders") as channel, channel.receiver() as rx:
        with http_raw(parse_url(rx.url).hosts[0].port, ORDER + OFFER + twice) as raw:
            assert raw.startswith(b"HTTP/1.1 400 ")


def test_a_body_that_a_server_dropped_is_no_message():
    gate, told = simlink.asgi_app(), []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/orders",
        "query_string": b"",
        "headers": [(b"content-type", b"text/plain"), (b"content-length", b"5")],
    }

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        told.append(message)

    with queue(f"http://{LOCAL}:8000/orders", app=gate) as channel, channel.receiver() as rx:
        asyncio.run(gate(scope, receive, send))
        assert (told[0]["status"], rx.stats()["driver"]["plain"]) == (400, 0)
        assert json.loads(told[1]["body"])["detail"] == "0 of the 5 bytes of the body came"


def test_the_commands_of_the_page_work():
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "http.md").read_text(encoding="utf-8")
    commands = page.partition("```console\n")[2].partition("```")[0]
    with queue(f"http://{LOCAL}:0/orders") as channel, channel.receiver() as rx:
        port = parse_url(rx.url).hosts[0].port
        script = commands.replace("127.0.0.1:8000", f"{LOCAL}:{port}").replace("curl ", "curl -sS --fail-with-body ")
        subprocess.run(["sh", "-ec", script], check=True, capture_output=True, timeout=60)
        assert [v["id"] for v in rx.take(6)] == [2, 3, 4, 5, 6, 7]


def test_a_key_and_headers_of_a_plain_client_arrive():
    with queue(f"http://{LOCAL}:0/orders") as channel, channel.receiver() as rx:
        port = parse_url(rx.url).hosts[0].port
        ask(port, "POST", "/orders", "1", {**JSON, "simlink-key": "k", "traceparent": "00-ab", "user-agent": "x"})
        message = rx.get().message
        assert (message.key, dict(message.headers)) == (b"k", {"traceparent": "00-ab"})


def test_an_idempotency_key_is_taken_once():
    with queue(f"http://{LOCAL}:0/orders") as channel, channel.receiver() as rx:
        port = parse_url(rx.url).hosts[0].port
        headers = {**JSON, "idempotency-key": "order-1"}
        said = [ask(port, "POST", "/orders", "[1,2]", headers)[2] for _ in range(3)]
        assert [(s["accepted"], s["duplicates"]) for s in said] == [(2, 0), (2, 2), (2, 2)]
        assert ask(port, "POST", "/orders", "[3]", headers)[0] == 422
        ask(port, "POST", "/orders", "[4]", JSON)
        assert rx.take(3) == [1, 2, 4]


def test_limits_are_problems():
    with queue(f"http://{LOCAL}:0/orders", buffer_messages=3, max_body_bytes=2_000) as channel:
        with channel.receiver(settle="manual") as rx:
            port = parse_url(rx.url).hosts[0].port
            assert ask(port, "POST", "/orders", "[1,2,3]", JSON)[0] == 202
            status, headers, said = ask(port, "POST", "/orders", "[4]", JSON)
            assert (status, headers["retry-after"], headers["content-type"]) == (429, "1", "application/problem+json")
            assert (said["type"], said["status"]) == ("urn:simlink:problem:no-room", 429)
            status, _, said = ask(port, "POST", "/orders", json.dumps("x" * 3_000), JSON)
            assert (status, said["limit"]) == (413, 2_000)
            with http_raw(port, b"POST /orders HTTP/1.1\r\nhost: x\r\ncontent-length: 2147483648\r\n\r\n") as raw:
                assert raw.startswith(b"HTTP/1.1 413 ")
            chunked = (
                b"POST /orders HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            with http_raw(port, chunked + b"fa0\r\n" + b"x" * 4_000 + b"\r\n0\r\n\r\n") as raw:
                assert raw.startswith(b"HTTP/1.1 413 ")
            assert ask(port, "POST", "/orders", b"x", {**JSON, "content-encoding": "gzip"})[0] == 415
            assert ask(port, "GET", "/orders")[0] == 405
            for _ in range(3):
                rx.get().ack()
            until(lambda: ask(port, "POST", "/orders", "[4]", JSON)[0] == 202, "room")


@pytest.mark.parametrize("more", [[], ["-H", "transfer-encoding: chunked"], ["-H", "expect:"]], ids=str)
def test_a_client_that_sends_far_too_much_is_told(more):
    with queue(f"http://{LOCAL}:0/orders", max_body_bytes=100_000) as channel, channel.receiver() as rx:
        kind = ["-H", "content-type: text/plain", *more]
        status, said = curl(rx.url, *kind, "--data-binary", "@-", stdin=b"x" * 20_000_000)
        assert (status, said["limit"]) == (413, 100_000)


def test_large_bodies_that_are_announced_and_dripped_keep_nobody_out():
    d = driver()
    with receiving(d) as rx, contextlib.ExitStack() as open_:
        for _ in range(40):
            sock = open_.enter_context(socket.create_connection((LOCAL, d.bound_port)))
            sock.sendall(
                b"POST /orders HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 8000000\r\n\r\nx"
            )
        with queue(f"http://{LOCAL}:{d.bound_port}/orders") as channel:
            channel.send_many(["x" * 1_000] * 1_000)
            assert len(take(rx, 1_000)) == 1_000


def test_pages_of_other_origins_may_not_post_unless_they_are_named():
    page = {**JSON, "origin": "https://shop.example"}
    with queue(f"http://{LOCAL}:0/orders") as channel, channel.receiver() as rx:
        port = parse_url(rx.url).hosts[0].port
        assert ask(port, "POST", "/orders", "1", page)[0] == 403
        assert ask(port, "POST", "/orders", "1", {**JSON, "origin": f"http://{LOCAL}:{port}"})[0] == 202
    with queue(f"http://{LOCAL}:0/orders", origins="https://shop.example") as channel, channel.receiver() as rx:
        port = parse_url(rx.url).hosts[0].port
        status, headers, _ = ask(port, "POST", "/orders", "1", page)
        assert (status, headers["access-control-allow-origin"]) == (202, "https://shop.example")
        own = http.client.HTTPConnection(LOCAL, port)
        own.request("OPTIONS", "/orders", headers={"origin": "https://shop.example"})
        assert own.getresponse().status == 204
        own.close()


# --- bad and slow peers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01garbage\r\n\r\n", 400),
        (b"GET / HTTP/x\r\n\r\n", 400),
        (b"POST /orders HTTP/1.1\r\nhost: x\r\n" + b"x-a: yyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 10_000 + b"\r\n", 431),
    ],
    ids=["garbage", "no version", "headers without end"],
)
def test_garbage_is_told_and_cut_off_and_the_others_notice_nothing(data, status):
    d = driver()
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(numbered(0, 5), 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 5)
        with socket.create_connection((LOCAL, d.bound_port), timeout=PATIENCE) as bad:
            with contextlib.suppress(ConnectionError):
                bad.sendall(data)
            said = b""
            with contextlib.suppress(ConnectionError):
                while more := bad.recv(65536):
                    said += more
            assert said.startswith(b"HTTP/1.1 %d " % status) or said == b""
        tx.submit(numbered(5, 5), 5)
        assert bodies(rx, 10, tx) == [b"%d" % i for i in range(10)]


@pytest.mark.parametrize(
    "raw", [b"\xff" * 30, encode(Heartbeat())[:-1], encode(Accept(1, 1, 1)), HEAD.pack(10, 2) + b"x" * 9]
)
def test_bad_frames_end_their_session_alone(raw):
    d = driver()
    with receiving(d) as rx, sending(d) as tx, Raw(d.bound_port) as bad:
        bad.hello()
        status, said = bad.post(raw)
        assert (status, said["type"]) == (400, "urn:simlink:problem:frames")
        assert bad.hear(ErrorFrame) is not None
        assert bad.hear(ErrorFrame) is None
        tx.submit(numbered(0, 2), 0)
        assert len(take(rx, 2, tx)) == 2
        assert rx.stats()["garbage"] == 1


@pytest.mark.parametrize("query", ["mode=nonsense", "mode=queue&after=-1", "mode=queue&incarnation=xyz"])
def test_a_stream_that_makes_no_sense_is_refused(query):
    d = driver()
    with receiving(d), Raw(d.bound_port) as bad:
        bad.ask(f"producer={(b'r' * 16).hex()}&{query}")
        assert (bad.reply.status, json.loads(bad.reply.read())["type"]) == (400, "urn:simlink:problem:hello")


def test_slow_and_silent_connections_are_cut_while_a_good_client_works():
    each = 60
    d = driver(header_timeout=0.5, body_timeout=0.5, max_connections=100)
    starts = [
        b"",
        b"POST /orders HTTP/1.1\r\nhost: x\r\n",
        b"POST /orders HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n",
    ]
    with receiving(d) as rx, contextlib.ExitStack() as open_:
        good = http.client.HTTPConnection(LOCAL, d.bound_port, timeout=PATIENCE)
        open_.callback(good.close)
        bad = []
        for start in starts * each:
            sock = open_.enter_context(socket.create_connection((LOCAL, d.bound_port), timeout=PATIENCE))
            sock.sendall(start)
            sock.setblocking(False)
            bad.append(sock)
        sent = 0

        def drip():
            """A byte more from everybody, and a whole request from the good one; whether all of the bad are cut."""
            nonlocal sent
            assert ask(d.bound_port, "POST", "/orders", "1", JSON, connection=good)[0] == 202
            sent += 1
            for sock in list(bad):
                try:
                    sock.send(b"x")
                    if sock.recv(65536) == b"":
                        bad.remove(sock)
                except BlockingIOError:
                    pass
                except OSError:
                    bad.remove(sock)
            return not bad

        until(drip, "all are cut")
        assert sent > 1
        assert ask(d.bound_port, "POST", "/orders", "1", JSON)[0] == 202
        assert len(take(rx, sent + 1)) == sent + 1
        stats = rx.stats()
        assert stats["opened"] == len(starts) * each + 2
        assert stats["evicted"] >= 80  # more than its places: the oldest that had said nothing whole made room


def test_a_peer_that_does_not_read_its_stream_is_cut():
    d = driver(**QUICK, body_timeout=0.5)
    with receiving(d) as rx:
        with socket.create_connection((LOCAL, d.bound_port)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(b"GET /orders/~settled?producer=%b HTTP/1.1\r\nhost: x\r\n\r\n" % (b"ab" * 16))
            until(lambda: rx.stats()["sessions"] == 1, "the stream")
            until(lambda: rx.stats()["sessions"] == 0, "its end")


# --- mounted ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(app):
    """An application of the user's on a server of the user's: its port."""
    import uvicorn

    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind((LOCAL, 0))
    sock.listen()
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    until(lambda: server.started, "the server")
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def test_the_app_is_mounted_in_another_one():
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    app = simlink.asgi_app()
    site = Starlette(routes=[Route("/", lambda _: PlainTextResponse("home")), Mount("/in", app)])
    with queue(f"http://{LOCAL}:1/in/orders", app=app) as receiving_:
        with receiving_.receiver() as rx:  # before anything is served
            with served(site) as port:
                assert ask(port, "GET", "/")[2] == b"home"
                assert ask(port, "POST", "/in/orders", '{"a": 1}', JSON)[0] == 202
                with queue(f"http://{LOCAL}:{port}/in/orders") as sender:
                    sender.send_many([{"a": i} for i in range(2, 1_000)])
                    assert rx.take(999) == [{"a": i} for i in range(1, 1_000)]
                    until(lambda: sender.stats()["in_flight"] == 0, "settling")
                    assert rx.url is None or str(port) not in rx.url
            with served(site) as port:  # another loop: the first one is gone
                assert ask(port, "POST", "/in/orders", "7", JSON)[0] == 202
                assert rx.take(1) == [7]
                assert ask(port, "POST", "/in/others", "7", JSON)[0] == 404
