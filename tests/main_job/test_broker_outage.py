"""The broker is stopped for ten seconds in the middle of a paced run: the run goes on, nothing is lost, and the stall
shows in the latency from the intended time."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from simlink.running.pacing import LAG_BOUND
from simlink.testing.brokers import BrokerUnavailable, KafkaBroker
from tests.support.command import Command, Tail, wait_until
from tests.support.kafka import records_in, topic_of

CLIENTS = ("kafka+confluent", "kafka+python")
RATE = 1_000
SECONDS = 24
COUNT = RATE * SECONDS
SEED = 11
OUTAGE = 10.0
LOST = "session_timeout=6&heartbeat=2"
"""So that the receivers lose their hold of the partitions as well, whatever time the broker takes to stop."""


@pytest.fixture
def broker(kafka_broker):
    """A Kafka of this test's own, which it may stop. (The session's tells whether there can be one.)"""
    try:
        with KafkaBroker(own=True) as broker:
            yield broker
    except BrokerUnavailable as error:
        # The session's is somebody else's server, and none can be started here.
        pytest.skip(str(error))


def test_ten_seconds_without_a_broker_cost_time_and_nothing_else(broker, tmp_path):
    with ExitStack() as stack:
        runs = []
        # Both clients at once: ten seconds are long.
        for client in CLIENTS:
            url = broker.url.replace("kafka://", f"{client}://") + f"/clicks-{client[6:]}?{LOST}"
            out = tmp_path / f"{client}.ndjson"
            verify = ("--verify", "clickstream", "--seed", SEED, "--count", COUNT, "--idle", 40)
            receiver = stack.enter_context(Command("receive", url, *verify, "--out", out, "--json"))
            receiver.ready()
            pace = ("--seed", SEED, "--count", COUNT, "--rate", RATE, "--key", "user_id")
            sender = stack.enter_context(Command("send", "clickstream", "--to", url, *pace, "--json"))
            runs.append((url, Tail(out), sender, receiver))

        def alive():
            for _, _, sender, receiver in runs:
                sender.check()
                receiver.check()

        def came():
            return min(written.count for _, written, _, _ in runs)

        wait_until(lambda: came() >= COUNT // 5, "a fifth", while_=alive)
        broker.stop()
        stopped = time.monotonic()
        wait_until(lambda: time.monotonic() >= stopped + OUTAGE, "the outage", while_=alive)
        before = came()
        assert before < COUNT * 4 // 5  # otherwise it was not in the middle
        broker.start()
        for url, _, sender, receiver in runs:
            sent = sender.done().report
            came_back = receiver.done().report
            whole = {name: sent[name] for name in ("sent", "confirmed", "failed", "unknown", "dropped", "behind")}
            assert whole == {"sent": COUNT, "confirmed": COUNT, "failed": 0, "unknown": 0, "dropped": 0, "behind": 0}
            # The outage was shorter than the client's delivery timeout: nothing is doubtful or there twice.
            assert sent["resent"] == 0
            assert len(records_in(broker, topic_of(url))) == COUNT
            # The schedule went on meanwhile; whatever was due in the outage waited for its end. A slow machine may lag
            # behind the schedule, but a sender that stood still would be late by the whole outage.
            assert sent["rate"] > COUNT / (SECONDS + OUTAGE / 2)
            assert sent["send_lag_ms"]["max"] < OUTAGE * 1_000 / 2
            # A machine that is too slow for the pace makes a run invalid; an outage does not.
            assert sent["valid"] or sent["send_lag_ms"]["p99"] > LAG_BOUND * 1_000
            assert sent["latency_ms"]["max"] > OUTAGE * 1_000 * 0.9
            assert sent["latency_ms"]["p99"] > OUTAGE * 1_000 / 2
            assert came_back["latency_ms"]["p99"] > OUTAGE * 1_000 / 2
            names = ("expected", "unique", "lost", "corrupt", "unexpected", "order_kept", "ok")
            assert {name: came_back[name] for name in names} == {
                "expected": COUNT,
                "unique": COUNT,
                "lost": 0,
                "corrupt": 0,
                "unexpected": 0,
                "order_kept": True,
                "ok": True,
            }
            # What a receiver had settled is not handed to it again, though it could not commit it in time.
            assert came_back["duplicated"] <= sent["resent"]
            print(f"{url}: {came_back['duplicated']} repeats, latency {sent['latency_ms']}, valid: {sent['valid']}")
