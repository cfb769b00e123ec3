"""100,000 events through Kafka, and the receiver killed without warning at one third and at two: all arrive.

What was written but not yet committed comes again; how much that may be is read from Kafka after each kill.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest

import simlink
from tests.support.command import Command, Tail, lines_of, wait_until
from tests.support.kafka import committed, create, topic_of
from tests.support.spring import SpringReceiver

COUNT = 100_000
SEED = 20_150_517
POLL = 500
"""What a Kafka consumer's poll brings at most, unless told otherwise."""


def send(url):
    return Command("send", "clickstream", "--to", url, "--key", "user_id", "--seed", SEED, "--count", COUNT, "--json")


def delivered(sender):
    """The sender's report, if it is what this test is about: all of it is confirmed, once."""
    report = sender.done().report
    assert (report["sent"], report["confirmed"], report["resent"]) == (COUNT, COUNT, 0)
    return report


def test_the_java_receiver_acknowledges_exactly_what_was_sent(kafka_broker, fresh, tmp_path, record_property):
    url = fresh()
    topic = topic_of(url)
    create(kafka_broker, topic)
    address = f"{kafka_broker.host}:{kafka_broker.port}"
    sent = {str(record["event_id"]) for record in simlink.generators.catalog.clickstream(seed=SEED)[:COUNT]}
    third = sum(len(i) + 1 for i in sent) // 3
    allowed = 0
    # The sender is ahead, so that the receiver's hands are full when it is killed.
    with send(url) as sender, SpringReceiver(address, topic, tmp_path) as receiver:
        for life in (1, 2):
            wait_until(lambda: size(receiver.out) >= life * third, f"{life} thirds")  # noqa: B023
            receiver.kill()
            uncommitted = len(set(receiver.ids())) - committed(kafka_broker, topic)
            # One poll is written before it is committed, and nothing is committed before it is written.
            assert 0 <= uncommitted <= POLL
            allowed += uncommitted
            receiver.start()
        delivered(sender)
        receiver.wait_for(COUNT, 120)
        # A clean end, which acknowledges what is in hand: what was written is what was acknowledged.
        assert receiver.stop() == 143
        assert committed(kafka_broker, topic) == COUNT
        ids = receiver.ids()
    assert set(ids) == sent
    repeats = len(ids) - COUNT
    print(f"{COUNT:,} events, 2 kills of the Java receiver, {repeats} repeats, {allowed} allowed")
    record_property("repeats", repeats)
    assert repeats <= allowed


def test_simlinks_own_receiver_loses_nothing(kafka_broker, fresh, tmp_path, record_property):
    # A killed member's partitions are free when its session is over.
    url = fresh(session_timeout=6, heartbeat=2)
    topic = topic_of(url)
    outs = [tmp_path / f"life-{life}.ndjson" for life in (1, 2, 3)]
    written = Tail(*outs)
    allowed = 0
    with send(url) as sender:
        for life, out in enumerate(outs[:2], 1):
            with Command("receive", url, "--out", out) as receiver:
                receiver.ready()
                receiver.until(lambda: written.unique >= life * COUNT // 3, f"{life} thirds")  # noqa: B023
                receiver.kill()
            uncommitted = written.unique - committed(kafka_broker, topic)
            # A fast reader does not wait for `commit_interval`, in which it reads ten thousands.
            assert 0 <= uncommitted < COUNT // 10
            allowed += uncommitted
        options = ("--verify", "clickstream", "--seed", SEED, "--count", COUNT)
        with Command("receive", url, "--out", outs[2], "--idle", 6, "--json", *options) as receiver:
            receiver.ready()
            delivered(sender)
            wait_until(lambda: written.unique >= COUNT, "all of them")
            # Its own verdict is that the other lives' part is lost to it, which is status 1.
            report = receiver.done(1).report
    records = [json.loads(line) for line in lines_of(*outs)]
    times = Counter(record["event_id"] for record in records)
    sent = simlink.generators.catalog.clickstream(seed=SEED)[:COUNT]
    expected = {record["event_id"]: record for record in sent}
    assert times.keys() == expected.keys()
    assert all(expected[record["event_id"]] == record for record in records)
    last = len(lines_of(outs[2]))
    assert (last, 0, 0) == (report["received"], report["corrupt"], report["duplicated"])
    assert report["lost"] == COUNT - last
    repeats = len(records) - COUNT
    print(f"{COUNT:,} events, 2 kills of simlink's receiver, {repeats} repeats, {allowed} allowed")
    record_property("repeats", repeats)
    assert repeats <= allowed
    assert committed(kafka_broker, topic) == COUNT


def size(file):
    return file.stat().st_size if file.exists() else 0


@pytest.fixture(autouse=True)
def _told(capsys):
    """What a test prints is shown with its result, also where it passes."""
    yield
    said = capsys.readouterr().out
    with capsys.disabled():
        print(said, end="")
