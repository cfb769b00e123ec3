"""Many processes at both ends of Kafka: three senders; receivers that compete, and subscriptions that do not."""

from __future__ import annotations

import json
import signal
from collections import Counter
from contextlib import ExitStack

import pytest

import simlink
from tests.support.command import Command, Tail, lines_of, wait_until
from tests.support.kafka import committed, topic_of

SEEDS = (1, 2, 3)
EACH = 10_000
ALL = len(SEEDS) * EACH


@pytest.fixture(scope="module")
def sent():
    """What the three senders send, as a multiset: their event ids are the same, the rest of most records is not."""
    rows = [row for seed in SEEDS for row in simlink.generators.catalog.clickstream(seed=seed)[:EACH]]
    return Counter(map(frozen, rows))


def frozen(record):
    return json.dumps(record, sort_keys=True)


def receivers(stack, count, url, folder, *options):
    """So many receiving processes, started; and the files that they write."""
    name = "-".join(str(option).strip("-") for option in options) or "queue"
    outs = [folder / f"{name}-{number}.ndjson" for number in range(count)]
    return [(stack.enter_context(Command("receive", url, *options, "--out", out, "--json")), out) for out in outs]


def send(stack, url, *options):
    senders = [
        stack.enter_context(
            Command(
                "send",
                "clickstream",
                "--to",
                url,
                "--key",
                "user_id",
                "--seed",
                seed,
                "--count",
                EACH,
                "--json",
                *options,
            )
        )
        for seed in SEEDS
    ]
    for sender in senders:
        report = sender.done().report
        assert (report["sent"], report["confirmed"], report["resent"]) == (EACH, EACH, 0)


def received(group):
    """The records of some receivers, once all have come, and how many each had. They are ended by SIGTERM."""
    written = Tail(*(out for _, out in group))
    wait_until(lambda: written.count >= ALL, f"{ALL} records")
    records, shares = Counter(), []
    for receiver, out in group:
        receiver.signal(signal.SIGTERM)
        report = receiver.done(130).report
        lines = lines_of(out)
        assert (report["received"], report["unique"], report["duplicated"]) == (len(lines), len(lines), 0)
        records.update(frozen(json.loads(line)) for line in lines)
        shares.append(len(lines))
    return records, shares


def test_three_receivers_of_a_queue_share_what_three_senders_send(fresh, kafka_broker, tmp_path, sent):
    url = fresh()
    with ExitStack() as stack:
        group = receivers(stack, 3, url, tmp_path)
        # Each has its share before anything is sent: none of them sees a rebalance while messages flow.
        for receiver, _ in group:
            receiver.ready()
        send(stack, url)
        records, shares = received(group)
    assert records == sent
    # Two partitions of six each; and nothing is left that has not been acknowledged.
    assert all(shares)
    assert sum(shares) == committed(kafka_broker, topic_of(url)) == ALL


def test_each_of_two_subscriptions_gets_all_that_three_senders_send(fresh, kafka_broker, tmp_path, sent):
    url = fresh()
    with ExitStack() as stack:
        billing = receivers(stack, 2, url, tmp_path, "--topic", "--subscription", "billing")
        audit = receivers(stack, 1, url, tmp_path, "--topic", "--subscription", "audit")
        for receiver, _ in billing + audit:
            receiver.ready()
        send(stack, url, "--topic")
        records, shares = received(billing)
        assert records == sent
        assert all(shares)
        assert received(audit) == (sent, [ALL])
    assert sum(shares) == committed(kafka_broker, f"{topic_of(url)}.billing") == ALL
    assert committed(kafka_broker, f"{topic_of(url)}.audit") == ALL
