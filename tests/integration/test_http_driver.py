"""http:// over real sockets and processes: cuts, kills, garbage, slow peers, plain clients, and TLS."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import simlink
from simlink.channels.channel import queue, topic
from simlink.channels.driver import Mode, OutcomeKind, ReceiverOptions, Settlement
from simlink.channels.http import HttpDriver
from simlink.channels.url import parse_url
from simlink.channels.wire.codec import HEAD, encode, read_frames
from simlink.channels.wire.frames import Accept, BatchFrame, Bye, Code, ErrorFrame, Heartbeat, Welcome
from simlink.errors import ConfigError, ConnectError, NotSupported
from simlink.message import Batch, Same, Verdict
from tests.support.certificates import Authority

LOCAL = "127.0.0.1"
PATIENCE = 20.0
QUICK = {"heartbeat": 0.05, "dead": 0.4, "orphan_after": 0.8}
JSON = {"content-type": "application/json"}
FRAMES = "application/vnd.simlink.frames"


def until(condition, what="it", tick=lambda: threading.Event().wait(0.002)):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE} s"
        tick()
    return found


def driver(port=0, *, name="orders", mode=Mode.QUEUE, **options):
    return HttpDriver(parse_url(f"http://{LOCAL}:{port}/{name}"), mode=mode, **options)


@contextlib.contextmanager
def receiving(d, subscription=None, **options):
    rx = d.receiver(subscription, ReceiverOptions(**{"prefetch": 100_000, **options}))
    rx.open(5.0)
    try:
        yield rx
    finally:
        rx.close(5.0)


@contextlib.contextmanager
def sending(d):
    tx = d.sender()
    try:
        tx.open(5.0)
        yield tx
    finally:
        tx.close(1.0)


def numbered(first, count, producer=b"p" * 16):
    return Batch(
        [b"%d" % i for i in range(first, first + count)],
        producers=Same(producer, count),
        sequences=range(first, first + count),
    )


def take(rx, count, *, settle=True, meanwhile=lambda: None):
    """``(body, attempt)`` of the next messages."""
    got = []

    def more():
        meanwhile()
        for incoming in rx.receive(count - len(got), 0.02):
            got.extend(zip(incoming.batch.bodies, incoming.attempts, strict=True))
            if settle:
                rx.settle([Settlement(incoming.lease, Verdict.ACK, incoming.tokens[0], incoming.tokens[-1])])
        return len(got) >= count

    until(more, f"receiving {count}")
    return got


def listen_for(tx, kind, count):
    """Every outcome until ``count`` messages had one of this kind."""
    seen = []

    def enough():
        seen.extend(tx.outcomes(0.05))
        return sum(o.stop - o.first for o in seen if o.kind is kind) >= count

    until(enough, f"{count} × {kind.value}")
    return seen


def ask(port, method, path, body=None, headers=None, *, connection=None):
    """``(status, headers, JSON or bytes)`` of one request."""
    own = connection or http.client.HTTPConnection(LOCAL, port, timeout=PATIENCE)
    try:
        own.request(method, path, body, headers or {})
        reply = own.getresponse()
        data = reply.read()
        return (
            reply.status,
            dict(reply.getheaders()),
            json.loads(data) if "json" in reply.headers["content-type"] else data,
        )
    finally:
        if connection is None:
            own.close()


def curl(*arguments, stdin=b""):
    """``(status, JSON)`` of a request by curl."""
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", *arguments],
        input=stdin,
        capture_output=True,
        check=True,
    )
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), json.loads(body)


class Stream:
    """A sender that says what it likes: a stream of settlements, and posts of frames."""

    def __init__(self, port, *, name="orders", sender=b"r" * 16, query="mode=queue"):
        self.port = port
        self.name = name
        self.connection = http.client.HTTPConnection(LOCAL, port, timeout=PATIENCE)
        self.connection.request("GET", f"/{name}/~settled?producer={sender.hex()}&{query}")
        self.reply = self.connection.getresponse()
        self.session = self.reply.headers.get("simlink-session", "")
        self.data = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.reply.close()
        self.connection.close()

    def hear(self, kind):
        """The next frame of this kind; None when the stream ends first."""
        while True:
            while len(self.data) >= 5 and len(self.data) >= (size := 4 + HEAD.unpack_from(self.data)[0]):
                (frame,) = read_frames(self.data[:size])
                self.data = self.data[size:]
                if isinstance(frame, kind):
                    return frame
            try:
                more = self.reply.read1(65536)
            except (http.client.IncompleteRead, ConnectionError):
                return None
            if not more:
                return None
            self.data += more

    def post(self, *frames, raw=None):
        body = b"".join(map(encode, frames)) if raw is None else raw
        status, _, said = ask(
            self.port, "POST", f"/{self.name}", body, {"content-type": FRAMES, "simlink-session": self.session}
        )
        return status, read_frames(said) if status == 202 else said


def free_port():
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        return probe.getsockname()[1]


# --- the usual way ---------------------------------------------------------------------------------------------------


def test_accepted_first_and_settled_later():
    d = driver()
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(numbered(0, 3), 0)
        assert [(o.kind, o.first, o.stop) for o in listen_for(tx, OutcomeKind.CONFIRMED, 3)] == [
            (OutcomeKind.CONFIRMED, 0, 3)
        ]
        assert take(rx, 3) == [(b"0", 1), (b"1", 1), (b"2", 1)]
        assert [(o.kind, o.first, o.stop) for o in listen_for(tx, OutcomeKind.SETTLED, 3)] == [
            (OutcomeKind.SETTLED, 0, 3)
        ]


def test_everything_of_a_message_arrives():
    batch = Batch(
        [b"a", b"b"],
        keys=[b"k", None],
        headers=[{"trace": "7f"}, {}],
        content_types=["text/plain", "text/plain"],
        producers=[b"p" * 16, b"q" * 16],
        sequences=[5, 6],
        timestamps=[1_000_000, 2_000_000],
    )
    d = driver()
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(batch, 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 2)
        (incoming,) = rx.receive(2, 5.0)
        assert list(incoming.batch) == list(batch)


def test_what_is_queued_goes_out_in_few_posts():
    d = driver()
    with receiving(d) as rx, sending(d) as tx:
        for start in range(0, 5_000, 10):
            tx.submit(numbered(start, 10), start)
        seen = []
        got = take(rx, 5_000, meanwhile=lambda: seen.extend(tx.outcomes(0.0)))
        assert [b for b, _ in got] == [b"%d" % i for i in range(5_000)]
        assert tx.stats()["posts"] < 100


def test_many_senders_at_once_each_in_order():
    count, senders = 2_000, 8
    with queue(f"http://{LOCAL}:0/orders") as channel, channel.receiver() as rx:
        url = rx.url

        def send(number):
            with queue(url) as mine:
                for start in range(0, count, 100):
                    mine.send_many([{"n": number, "i": i} for i in range(start, start + 100)])

        threads = [threading.Thread(target=send, args=(n,)) for n in range(senders)]
        for thread in threads:
            thread.start()
        got = rx.take(count * senders, timeout=60)
        for thread in threads:
            thread.join()
    for number in range(senders):
        assert [v["i"] for v in got if v["n"] == number] == list(range(count))


def test_every_subscription_of_a_topic_gets_a_copy():
    with topic(f"http://{LOCAL}:0/in/events") as events, events.receiver("audit") as audit, events.receiver() as live:
        events.send({"kind": "login"}, key="ann", headers={"trace": "7f"})
        for rx in (audit, live):
            delivery = rx.get()
            assert (delivery.value, delivery.message.key, dict(delivery.message.headers)) == (
                {"kind": "login"},
                b"ann",
                {"trace": "7f"},
            )


def test_a_receiver_that_does_not_read_stops_the_sender():
    d = driver(buffer_messages=100)
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(numbered(0, 1000), 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 100)
        tx.outcomes(0.05)
        assert rx.stats()["subscriptions"]["orders"]["messages"] == 100
        assert tx.stats()["queued"] == 900
        got = take(rx, 1000, meanwhile=lambda: tx.outcomes(0.0))
        assert [b for b, _ in got] == [b"%d" % i for i in range(1000)]


def test_a_body_that_fits_no_frame_fails_alone():
    d = driver(max_body_bytes=10_000)
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(Batch([b"a", b"x" * 20_000, b"b", b"y" * 10_000, b"c"]), 0)
        seen = listen_for(tx, OutcomeKind.CONFIRMED, 3)
        failed = [o for o in seen if o.kind is OutcomeKind.FAILED]
        assert [(o.first, o.stop) for o in failed] == [(1, 2), (3, 4)]
        assert [b for b, _ in take(rx, 3)] == [b"a", b"b", b"c"]


# --- cuts and deaths -------------------------------------------------------------------------------------------------

RECEIVER = """
import sys
from simlink.channels.channel import queue
with queue(sys.argv[1]) as channel, channel.receiver() as rx, open(sys.argv[2], "a") as out:
    print("ready", flush=True)
    for delivery in rx:
        out.write(f"{delivery.value}\\n")
        out.flush()
"""


def start_receiver(url, path):
    child = subprocess.Popen([sys.executable, "-c", RECEIVER, url, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


def test_a_receiver_killed_and_started_again_loses_nothing(tmp_path):
    url, path, count = f"http://{LOCAL}:{free_port()}/orders", tmp_path / "got", 6_000
    path.touch()

    def got():
        return [int(line) for line in path.read_text().splitlines()]

    child = start_receiver(url, path)
    try:
        with queue(url) as channel:
            for kills in (1, 2):
                channel.send_many(range((kills - 1) * 2_000, kills * 2_000))
                until(lambda kills=kills: len(got()) > kills * 1_000, "receiving")
                child.send_signal(signal.SIGKILL)
                child.wait()
                child.stdout.close()
                child = start_receiver(url, path)
            channel.send_many(range(4_000, count))
            until(lambda: len(set(got())) == count, "receiving")
            until(lambda: channel.stats()["in_flight"] == 0, "settling")
        assert set(got()) == set(range(count))
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


class Proxy:
    """Passes bytes both ways, and cuts a connection when ``limit`` bytes went towards the receiver."""

    def __init__(self, port, limits):
        self.server = socket.create_server((LOCAL, 0))
        self.port = self.server.getsockname()[1]
        self.target = port
        self.limits = list(limits)
        self.cuts = 0
        self.threads = [threading.Thread(target=self.run)]
        self.threads[0].start()

    def run(self):
        while True:
            try:
                here, _ = self.server.accept()
            except OSError:
                return
            there = socket.create_connection((LOCAL, self.target))
            for way in ((here, there, True), (there, here, False)):
                self.threads.append(threading.Thread(target=self.pass_on, args=way))
                self.threads[-1].start()

    def pass_on(self, source, sink, counted):
        left = None
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                # Only posts are cut: the stream's request is shorter than any limit.
                if counted and left is None and data.startswith(b"POST"):
                    left = self.limits.pop(0) if self.limits else 1 << 60
                if left is not None and len(data) >= left:
                    sink.sendall(data[:left])
                    self.cuts += 1
                    break
                sink.sendall(data)
                if left is not None:
                    left -= len(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self):
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        for thread in self.threads:
            thread.join()


def test_a_post_cut_at_any_place_loses_and_repeats_nothing():
    sent = [f"{i:0200}" for i in range(2_000)]
    with queue(f"http://{LOCAL}:0/orders") as here, here.receiver() as rx:
        proxy = Proxy(parse_url(rx.url).hosts[0].port, [777, 3_000, 5_555, 8_001])
        try:
            with queue(f"http://{LOCAL}:{proxy.port}/orders", connections=1) as there:
                for start in range(0, len(sent), 250):
                    there.send_many(sent[start : start + 250])
                assert rx.take(len(sent), timeout=PATIENCE) == sent
                assert proxy.cuts == 4
                assert there.stats()["reconnects"] >= 4
                assert rx.stats()["driver"]["duplicates"] == 0
        finally:
            proxy.close()


def test_a_closing_receiver_gives_back_and_the_next_one_gets_it():
    d = driver()
    tx = d.sender()
    with receiving(d) as rx:
        tx.open(5.0)
        tx.submit(numbered(0, 10), 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 10)
        (incoming,) = rx.receive(4, 5.0)
        rx.settle([Settlement(incoming.lease, Verdict.ACK, 0, 1)])
    seen = listen_for(tx, OutcomeKind.RETURNED, 8)
    back = [(o.first, o.stop, o.ambiguous) for o in seen if o.kind is OutcomeKind.RETURNED]
    assert sorted(back) == [(2, 4, True), (4, 10, False)]
    assert sum(o.stop - o.first for o in seen if o.kind is OutcomeKind.SETTLED) == 2
    with pytest.raises(ConnectError, match="was closed") as caught:
        until(lambda: tx.outcomes(0.05), "the error")
    assert caught.value.retryable
    with receiving(d) as rx:
        tx.open(5.0)
        tx.submit(numbered(2, 8), 10)
        got = take(rx, 8, meanwhile=lambda: tx.outcomes(0.0))
        assert [b for b, _ in got] == [b"%d" % i for i in range(2, 10)]
    tx.close(1.0)


def test_what_a_lost_sender_left_is_handed_out_again_after_a_while():
    d = driver(**QUICK)
    with receiving(d) as rx:
        with Stream(d.bound_port) as lost:
            lost.hear(Welcome)
            assert [f.below for f in lost.post(BatchFrame(0, numbered(0, 2)))[1]] == [2]
        assert take(rx, 1) == [(b"0", 1)]  # heard just now: a fresh hand-out
        until(lambda: rx.stats()["connected"] == 0, "the loss")
        time_of_loss = time.monotonic()
        until(lambda: time.monotonic() - time_of_loss > QUICK["dead"], "silence")
        assert take(rx, 1) == [(b"1", 2)]
        assert rx.stats()["orphans"] == 1


def test_a_silent_sender_is_given_up():
    d = driver(**QUICK)
    with receiving(d) as rx, Stream(d.bound_port) as silent:
        assert silent.hear(ErrorFrame).code is Code.TIMEOUT
        assert silent.hear(ErrorFrame) is None
        assert rx.stats()["timed_out"] == 1


def test_a_sender_that_only_beats_is_kept():
    d = driver(**QUICK)
    with receiving(d) as rx, sending(d) as tx:
        since = time.monotonic()
        until(lambda: time.monotonic() - since > 3 * QUICK["dead"], "time", lambda: tx.outcomes(0.02))
        assert rx.stats()["connected"] == 1
        tx.submit(numbered(0, 1), 0)
        assert take(rx, 1, meanwhile=lambda: tx.outcomes(0.0)) == [(b"0", 1)]


def test_a_stream_that_is_resumed_knows_what_was_taken():
    d = driver()
    with receiving(d) as rx:
        with Stream(d.bound_port) as first:
            welcome = first.hear(Welcome)
            first.post(BatchFrame(0, numbered(0, 3)))
            take(rx, 1)
        with Stream(d.bound_port, query=f"incarnation={welcome.incarnation.hex()}&next=5") as second:
            again = second.hear(Welcome)
            assert (again.incarnation, again.accepted) == (welcome.incarnation, 3)
            # A post that was long on its way speaks for a stream that has ended.
            status, said = first.post(BatchFrame(3, numbered(3, 1)))
            assert (status, said["type"]) == (409, "urn:simlink:problem:session")


def test_a_silent_receiver_is_given_up():
    with socket.create_server((LOCAL, 0)) as server:
        tx = driver(server.getsockname()[1], **QUICK).sender()
        opening = threading.Thread(target=tx.open, args=(5.0,))
        opening.start()
        peer, _ = server.accept()
        with peer:
            data = encode(Welcome(b"i" * 16, credit=10, credit_bytes=1000))
            peer.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.simlink.frames\r\nsimlink-session: abc\r\n"
                b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(data), data)
            )
            opening.join()
            with pytest.raises(ConnectError, match=r"was silent for 0\.4 s") as caught:
                until(lambda: tx.outcomes(0.05), "silence")
            assert caught.value.retryable
            tx.close(0.0)


@pytest.mark.parametrize(
    ("answer", "says", "retryable"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "is not a receiver: not HTTP", False),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi", "it streams 'text/html'", False),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "refuses a stream with 404", True),
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "refuses a stream with 403", False),
        (b"", "closed the connection", True),
    ],
    ids=["garbage", "another server", "404", "403", "closed"],
)
def test_a_bad_receiver_is_named_in_one_line(answer, says, retryable):
    with socket.create_server((LOCAL, 0)) as server:

        def serve():
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        tx = driver(server.getsockname()[1]).sender()
        with pytest.raises(ConnectError, match=says) as caught:
            tx.open(5.0)
        thread.join()
        tx.close(0.0)
        assert (caught.value.retryable, "\n" in str(caught.value)) == (retryable, False)


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


@contextlib.contextmanager
def http_raw(port, data):
    """What the server says to these bytes until it closes."""
    with socket.create_connection((LOCAL, port), timeout=PATIENCE) as sock:
        sock.sendall(data)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while more := sock.recv(65536):
                said += more
        yield said


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
        assert [b for b, _ in take(rx, 10, meanwhile=lambda: tx.outcomes(0.0))] == [b"%d" % i for i in range(10)]


@pytest.mark.parametrize(
    "raw", [b"\xff" * 30, encode(Heartbeat())[:-1], encode(Accept(1, 1, 1)), HEAD.pack(10, 2) + b"x" * 9]
)
def test_bad_frames_end_their_session_alone(raw):
    d = driver()
    with receiving(d) as rx, sending(d) as tx, Stream(d.bound_port) as bad:
        bad.hear(Welcome)
        status, said = bad.post(raw=raw)
        assert (status, said["type"]) == (400, "urn:simlink:problem:frames")
        assert bad.hear(ErrorFrame) is not None
        assert bad.hear(ErrorFrame) is None
        tx.submit(numbered(0, 2), 0)
        assert len(take(rx, 2, meanwhile=lambda: tx.outcomes(0.0))) == 2
        assert rx.stats()["garbage"] == 1


@pytest.mark.parametrize("query", ["mode=nonsense", "mode=queue&after=-1", "mode=queue&incarnation=xyz"])
def test_a_stream_that_makes_no_sense_is_refused(query):
    d = driver()
    with receiving(d), Stream(d.bound_port, query=query) as bad:
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


# --- credentials and encryption --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"token": "s3cret"}, {"credentials": lambda: ("ann", "s3cret")}])
def test_only_who_has_the_credentials_gets_in(options):
    with queue(f"http://{LOCAL}:0/orders", **options) as channel, channel.receiver() as rx:
        port = parse_url(rx.url).hosts[0].port
        channel.send(1)
        assert rx.take(1) == [1]
        status, headers, said = ask(port, "POST", "/orders", "1", JSON)
        assert (status, said["detail"]) == (401, "the credentials are missing")
        assert headers["www-authenticate"].partition(" ")[0] in {"Bearer", "Basic"}
        wrong = {**JSON, "authorization": headers["www-authenticate"].partition(" ")[0] + " wrong"}
        assert ask(port, "POST", "/orders", "1", wrong)[2]["detail"] == "the credentials are wrong"
        with queue(f"http://{LOCAL}:{port}/orders", token="wr0ng") as stranger:
            with pytest.raises(ConnectError, match="refuses a stream with 401: the credentials are wrong") as caught:
                stranger.send(1, timeout=5)
            assert not caught.value.retryable
        shown = f"{channel!r}{rx!r}{rx.stats()}{channel.stats()}{caught.value}{channel._driver.server_settings()!r}"
        assert "s3cret" not in shown
        assert "wr0ng" not in shown


def test_tls_with_a_client_certificate(tmp_path):
    authority = Authority(tmp_path)
    server, client = authority.issue(LOCAL), authority.issue("ann")
    options = {"ca": authority.ca}
    with queue(f"https://{LOCAL}:0/orders", **options, cert=server.cert, key=server.key) as here:
        with here.receiver() as rx:
            port = parse_url(rx.url).hosts[0].port
            assert rx.url.startswith("https://")
            url = f"https://{LOCAL}:{port}/orders"
            with queue(url, **options, cert=client.cert, key=client.key) as there:
                there.send_many([f"{i:0200}" for i in range(5_000)])
                assert rx.take(5_000, timeout=PATIENCE)[-1] == f"{4_999:0200}"
            with queue(url, **options, cert=client.cert, key=client.key, rest=True) as rest:
                rest.send("by rest")
                assert rx.take(1) == ["by rest"]
            nobody = Authority(tmp_path, "other").issue("ann")
            with queue(url, **options, cert=nobody.cert, key=nobody.key) as stranger:
                with pytest.raises(ConnectError, match="may not trust our certificate"):
                    stranger._driver.sender().open(5.0)
            with queue(url, **options) as stranger, pytest.raises(ConnectError, match="client certificate") as caught:
                stranger.send(1, timeout=5)
            assert not caught.value.retryable
            with queue(url) as trusting, pytest.raises(ConnectError, match="not signed by a trusted CA"):
                trusting.send(1, timeout=5)


# --- the rest --------------------------------------------------------------------------------------------------------


def test_a_name_that_nobody_receives_may_come():
    d = driver()
    with receiving(d):
        tx = driver(d.bound_port, name="other").sender()
        with pytest.raises(ConnectError, match="nobody receives 'other'") as caught:
            tx.open(1.0)
        tx.close(0.0)
    assert caught.value.retryable


def test_a_queue_is_no_topic():
    d = driver()
    with receiving(d):
        tx = driver(d.bound_port, mode=Mode.TOPIC).sender()
        with pytest.raises(ConnectError, match="'orders' is a queue at") as caught:
            tx.open(1.0)
        tx.close(0.0)
    assert not caught.value.retryable


def test_a_port_in_use_is_one_clear_line():
    with socket.create_server((LOCAL, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConnectError) as caught, receiving(driver(port)):
            pass
    assert str(caught.value) == f"cannot listen at {LOCAL}:{port}: Address already in use"


def test_receivers_that_share_a_server_agree_and_leave_no_thread():
    d = driver()
    with receiving(d) as one:
        with receiving(driver(d.bound_port)) as two:
            assert one.native is two.native
        with (
            pytest.raises(ConfigError, match="max_body_bytes=5000"),
            receiving(driver(d.bound_port, max_body_bytes=5000)),
        ):
            pass
        with pytest.raises(ConfigError, match="is served with"), receiving(driver(d.bound_port, token="t")):
            pass
    assert [t.name for t in threading.enumerate() if t.name.startswith("simlink-http")] == []


def test_several_endpoints_are_refused_for_sending_and_chosen_for_receiving():
    d = HttpDriver(parse_url(f"http://{LOCAL}:0,127.0.0.2:0/orders"), mode=Mode.QUEUE)
    with pytest.raises(NotSupported, match="several endpoints"):
        d.sender()
    with pytest.raises(ConfigError, match="at="):
        d.receiver(None, ReceiverOptions())
    with receiving(d, at="127.0.0.2") as rx:
        assert rx.address.startswith("127.0.0.2:")


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"x-a": "1"}},
        {"path": "/x"},
        {"method": "PUT"},
        {"retry": "always"},
        {"identity": False},
        {"app": object()},
        {"token": "t", "credentials": lambda: ("a", "b")},
        {"dead": 0.5},
        {"dead": 20.0},
        {"rest": True, "headers": {"x-a": "1\r\n"}},
        {"rest": True, "headers": {"host": "x"}},
        {"rest": True, "path": "no slash"},
        {"cert": "x.pem"},
    ],
    ids=str,
)
def test_options_that_cannot_be_honoured_are_refused(options):
    with pytest.raises(ConfigError):
        driver(**options)


def test_options_of_receivers_that_cannot_be_honoured_are_refused():
    for options in ({"start": "earliest"}, {"start": "new"}, {"exclusive": True}):
        with pytest.raises(NotSupported):
            driver().receiver(None, ReceiverOptions(**options))
    with pytest.raises(NotSupported):
        driver(rest=True).receiver(None, ReceiverOptions())
    with pytest.raises(NotSupported):
        driver(rest=True, mode=Mode.TOPIC)


def test_a_goodbye_lets_go_of_the_link():
    d = driver()
    with receiving(d) as rx, Stream(d.bound_port) as leaving:
        leaving.hear(Welcome)
        leaving.post(BatchFrame(0, numbered(0, 2)), Bye())
        assert leaving.hear(ErrorFrame) is None  # the stream ends
        assert take(rx, 2) == [(b"0", 1), (b"1", 1)]
        until(lambda: rx.stats()["senders"] == 0, "the end of the link")
