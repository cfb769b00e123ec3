"""http:// over real sockets and processes: both ends ours, cut, killed, lost, encrypted."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from simlink.channels.channel import queue, topic
from simlink.channels.driver import Mode, OutcomeKind, ReceiverOptions, Settlement
from simlink.channels.http import HttpDriver
from simlink.channels.url import parse_url
from simlink.channels.wire.codec import encode
from simlink.channels.wire.frames import BatchFrame, Bye, Code, ErrorFrame, Welcome
from simlink.errors import ConfigError, ConnectError, NotSupported
from simlink.message import Batch, Verdict
from tests.support.certificates import Authority
from tests.support.http import (
    JSON,
    LOCAL,
    PATIENCE,
    QUICK,
    Stream,
    ask,
    driver,
    free_port,
    listen_for,
    numbered,
    receiving,
    sending,
    take,
    until,
)

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
                # Only a cut uses a limit up: a client may give a connection up before so much went over it.
                if counted and left is None and self.limits and data.startswith(b"POST"):
                    left = self.limits[0]
                if left is not None and len(data) >= left and self.limits:
                    self.limits.pop(0)
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
                with pytest.raises(ConnectError, match="it does not trust our certificate") as caught:
                    stranger.send(1, timeout=PATIENCE)
            assert not caught.value.retryable
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
        with pytest.raises(ConfigError, match="is listened on with"), receiving(driver(d.bound_port, token="t")):
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
