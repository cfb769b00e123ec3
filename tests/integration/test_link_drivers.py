"""tcp, http and grpc are one link over three carriers: both ends ours, over real sockets and processes."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from simlink.channels.channel import queue, topic
from simlink.channels.driver import Mode, OutcomeKind, Settlement
from simlink.channels.url import parse_url
from simlink.errors import ConnectError, SendError
from simlink.message import Batch, Verdict
from tests.support.brokerless import (
    LOCAL,
    PATIENCE,
    Proxy,
    bodies,
    free_port,
    listen_for,
    numbered,
    receiving,
    receiving_process,
    sending,
    take,
    until,
)

# --- the usual way ---------------------------------------------------------------------------------------------------


def test_accepted_first_and_settled_later(link):
    d = link.driver()
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(numbered(0, 3), 0)
        assert [(o.kind, o.first, o.stop) for o in listen_for(tx, OutcomeKind.CONFIRMED, 3)] == [
            (OutcomeKind.CONFIRMED, 0, 3)
        ]
        assert take(rx, 3) == [(b"0", 1), (b"1", 1), (b"2", 1)]
        assert [(o.kind, o.first, o.stop) for o in listen_for(tx, OutcomeKind.SETTLED, 3)] == [
            (OutcomeKind.SETTLED, 0, 3)
        ]


def test_a_rejection_is_told_apart(link):
    d = link.driver()
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(numbered(0, 4), 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 4)
        assert rx.stats()["subscriptions"]["orders"]["messages"] == 4
        (incoming,) = rx.receive(4, 5.0)
        rx.settle([Settlement(incoming.lease, Verdict.REJECT, 1, 1), Settlement(incoming.lease, Verdict.ACK, 0, 3)])
        seen = listen_for(tx, OutcomeKind.SETTLED, 3)
        assert {(o.kind, p) for o in seen for p in range(o.first, o.stop)} == {
            (OutcomeKind.SETTLED, 0),
            (OutcomeKind.REJECTED, 1),
            (OutcomeKind.SETTLED, 2),
            (OutcomeKind.SETTLED, 3),
        }


def test_everything_of_a_message_arrives(link):
    batch = Batch(
        [b"a", b"b"],
        keys=[b"k", None],
        headers=[{"trace": "7f"}, {}],
        content_types=["text/plain", "text/plain"],
        producers=[b"p" * 16, b"q" * 16],
        sequences=[5, 6],
        timestamps=[1_000_000, 2_000_000],
    )
    d = link.driver()
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(batch, 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 2)
        (incoming,) = rx.receive(2, 5.0)
        assert list(incoming.batch) == list(batch)


def test_receivers_of_one_process_share_the_listener_and_compete(link):
    d = link.driver()
    with receiving(d) as one:
        with receiving(link.driver(d.bound_port)) as two, sending(d) as tx:
            assert one.native is two.native
            assert one.address == two.address == f"{LOCAL}:{d.bound_port}"
            tx.submit(numbered(0, 2), 0)
            seen = []
            until(
                lambda: (
                    seen.extend(b for rx in (one, two) for i in rx.receive(1, 0.01) for b in i.batch.bodies)
                    or len(seen) == 2
                ),
                "receiving",
                lambda: tx.outcomes(0.01),
            )
            assert sorted(seen) == [b"0", b"1"]


def test_every_subscription_of_a_topic_gets_a_copy_and_settles_it(link):
    d = link.driver(mode=Mode.TOPIC, name=link.events)
    with receiving(d, "audit") as audit, receiving(d) as live, sending(d) as tx:
        tx.submit(numbered(0, 3), 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 3)
        assert bodies(audit, 3) == [b"0", b"1", b"2"]
        assert [o for o in tx.outcomes(0.05) if o.kind is OutcomeKind.SETTLED] == []
        assert bodies(live, 3) == [b"0", b"1", b"2"]
        listen_for(tx, OutcomeKind.SETTLED, 3)


def test_a_topic_over_channels(link):
    with topic(link.url(name=link.events)) as events, events.receiver("audit") as audit, events.receiver() as live:
        events.send({"kind": "login"}, key="ann", headers={"trace": "7f"})
        for rx in (audit, live):
            delivery = rx.get()
            assert (delivery.value, delivery.message.key, dict(delivery.message.headers)) == (
                {"kind": "login"},
                b"ann",
                {"trace": "7f"},
            )
            assert json.loads(delivery.message.body) == {"kind": "login"}


def test_a_subscription_that_drops_and_is_not_read_holds_up_nobody(link):
    url = link.url(name=link.events)
    with topic(f"{url}?buffer_messages=100") as events, events.receiver("live", overflow="drop") as live:
        with topic(live.url, window=100) as sender:
            sender.send_many(range(1_000), timeout=PATIENCE)
            until(lambda: sender.stats()["rejected"] == 950, "all that found no room is rejected")
            assert [live.stats()["driver"]["subscriptions"]["live"]["dropped"], live.take(50)] == [950, [*range(50)]]


def test_many_senders_at_once_each_in_order(link):
    count, senders = 2_000, 8
    with queue(link.url()) as channel, channel.receiver() as rx:
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


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_a_receiver_that_does_not_read_stops_the_sender(link):
    d = link.driver(buffer_messages=100)
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(numbered(0, 1000), 0)
        listen_for(tx, OutcomeKind.CONFIRMED, 100)
        tx.outcomes(0.05)
        assert rx.stats()["subscriptions"]["orders"]["messages"] == 100
        stats = tx.stats()
        assert {name: stats[name] for name in ("queued", *link.unsent)} == {"queued": 900, **link.unsent}
        assert bodies(rx, 1000, tx) == [b"%d" % i for i in range(1000)]


def test_the_buffer_is_bounded_in_bytes(link):
    d = link.driver(buffer_bytes=100_000)
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(Batch([b"x" * 10_000] * 100), 0)
        seen = listen_for(tx, OutcomeKind.CONFIRMED, 10)
        seen += tx.outcomes(0.1)
        accepted = sum(o.stop - o.first for o in seen)
        assert 10 <= accepted <= 11
        assert len(take(rx, 100, tx)) == 100


def test_a_body_that_fits_no_frame_fails_alone(link):
    d = link.driver(**{link.longest: 10_000})
    with receiving(d) as rx, sending(d) as tx:
        tx.submit(Batch([b"a", b"x" * 20_000, b"b", b"y" * 10_000, b"c"]), 0)
        seen = listen_for(tx, OutcomeKind.CONFIRMED, 3)
        failed = [o for o in seen if o.kind is OutcomeKind.FAILED]
        assert [(o.first, o.stop) for o in failed] == [(1, 2), (3, 4)]
        frame = 10_000 - 4 * (link.scheme == "http")  # where the length of a frame is in the body, too
        assert str(failed[0].error) == (
            f"a message of 20000 bytes does not fit into a frame of {frame} bytes, which is the receiver's limit"
            f" ({link.longest})"
        )
        assert bodies(rx, 3) == [b"a", b"b", b"c"]
        assert sum(o.stop - o.first for o in listen_for(tx, OutcomeKind.SETTLED, 3)) == 3


def test_bodies_of_megabytes_pass_up_to_the_limit_of_simlink(link):
    # gRPC's own is 4 MiB.
    with queue(link.url()) as channel, channel.receiver() as rx:
        body = "x" * 6_000_000
        channel.send(body)
        assert rx.take(1) == [body]
        with pytest.raises(SendError):
            channel.send("x" * 9_000_000)


# --- cuts and deaths -------------------------------------------------------------------------------------------------


def test_a_connection_cut_within_a_frame_loses_and_repeats_nothing(link):
    # So large that every limit is reached, whatever of it had been accepted before.
    sent = [f"{i:0200}" for i in range(2_000)]
    options = {"connections": 1} if link.scheme == "http" else {}
    with queue(link.url()) as here, here.receiver() as rx:
        with Proxy(parse_url(rx.url).hosts[0].port, link.cuts, link.start) as proxy:
            with queue(link.url(proxy.port), **options) as there:
                for start in range(0, len(sent), 250):
                    there.send_many(sent[start : start + 250])
                assert rx.take(len(sent), timeout=PATIENCE) == sent
                assert proxy.cuts == len(link.cuts)
                assert there.stats()["reconnects"] >= len(link.cuts)
                assert rx.stats()["driver"]["duplicates"] == 0


def test_a_receiver_killed_and_started_again_loses_nothing(link, tmp_path):
    url, path, each = link.url(port := free_port()), tmp_path / "got", 2_000
    path.touch()

    def got():
        return [int(line) for line in path.read_text().splitlines()]

    with queue(url) as channel:
        for run in (1, 2, 3):
            with receiving_process(url, path):
                # Nobody else may listen there, which gRPC would allow by itself.
                with pytest.raises(ConnectError, match="Address already in use"), receiving(link.driver(port)):
                    pass
                channel.send_many(range((run - 1) * each, run * each))
                until(lambda run=run: len(got()) > run * 1_000, "receiving")
                if run == 3:
                    until(lambda: len(set(got())) == 3 * each, "receiving")
                    until(lambda: channel.stats()["in_flight"] == 0, "settling")
    assert set(got()) == set(range(3 * each))


def test_a_closing_receiver_gives_back_and_the_next_one_gets_it(link):
    d = link.driver()
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
        assert bodies(rx, 8, tx) == [b"%d" % i for i in range(2, 10)]
    tx.close(1.0)


def test_nothing_is_left_of_many_channels(link):
    def everything():
        return len(list(Path("/proc/self/fd").iterdir())), {t for t in threading.enumerate() if t.is_alive()}

    def once():
        with queue(link.url()) as channel, channel.receiver() as rx:
            channel.send_many(range(10))
            rx.take(10)

    once()
    files, threads = everything()
    for _ in range(10):
        once()
    until(lambda: everything()[1] <= threads, "the end of every thread")
    until(lambda: everything()[0] <= files + 1, "the end of every socket")
