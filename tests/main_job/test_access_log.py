"""A recorded access log goes to another process over TCP, and through Kafka: every field and every order is kept.

What should come is parsed here by other means than `replay` uses.
"""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import datetime
from itertools import pairwise

import pytest

from tests.support.command import Command, lines_of, run_simlink
from tests.support.kafka import records_in, topic_of

SAMPLE = r"""
83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /a/logo.png HTTP/1.1" 200 203023 "http://shop.example/" "Mozilla/5.0"
10.0.0.7 - frank [17/May/2015:10:05:43 +0000] "GET /x?q=%22a%22 HTTP/1.0" 304 - "-" "Mozilla/5.0 (X11; \"quoted\")"
83.149.9.216 - - [17/May/2015:10:05:12 +0000] "POST /b HTTP/1.1" 500 12 "-" "curl/7.30"
2001:db8::1 - - [17/May/2015:10:05:50 +0200] "HEAD / HTTP/1.1" 200 - "-" "-"
this line is no access log's
10.0.0.7 - frank [17/May/2015:10:05:44 +0000] "-" 408 0 "-" "-"
83.149.9.216 - - [17/May/2015:10:05:12 +0000] "GET /grüße HTTP/1.1" 404 99 "http://ä.example/" "Mozilla/5.0"
""".lstrip()


def parsed(file):
    """The records by hand, without a regular expression; and the numbers of the lines that are none."""
    records, bad = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            address, ident, user, rest = line.split(" ", 3)
            time, rest = rest.removeprefix("[").split("] ", 1)
            texts = quoted(rest)
            request, counts, referer, agent = texts
            status, size = counts.split()
            stamp = datetime.strptime(time, "%d/%b/%Y:%H:%M:%S %z").isoformat()
        except ValueError:
            bad.append(number)
            continue
        words = request.split(" ")
        whole = len(words) == 3
        records.append(
            {
                "address": address,
                "ident": ident,
                "user": user,
                "timestamp": stamp,
                "method": words[0] if whole else None,
                "path": words[1] if whole else None,
                "protocol": words[2] if whole else None,
                "request": None if whole else request,
                "status": int(status),
                "bytes": None if size == "-" else int(size),
                "referer": referer,
                "agent": agent,
            }
        )
    return records, bad


def quoted(text):
    """``"a" 1 2 "b" "c"`` → ``["a", "1 2", "b", "c"]``; a backslash takes the next character's meaning away."""
    parts, current, inside, skip = [], "", False, False
    for character in text:
        if skip or character != '"':
            current += character
            skip = character == "\\" and not skip
            continue
        if current.strip() or inside:
            parts.append(current if inside else current.strip())
        current, inside = "", not inside
    if inside or current.strip():
        raise ValueError(text)
    return parts


def steps_back(records):
    times = [datetime.fromisoformat(record["timestamp"]) for record in records]
    return sum(b < a for a, b in pairwise(times))


def by_address(records):
    found = defaultdict(list)
    for record in records:
        found[record["address"]].append(record)
    return found


@pytest.fixture
def sample(tmp_path):
    file = tmp_path / "sample.log"
    file.write_text(SAMPLE, encoding="utf-8")
    return file


@pytest.fixture(params=["sample", "access_log"])
def log(request):
    """The file, how often time steps back in it, and the lines that do not parse."""
    file = request.getfixturevalue(request.param)
    # What is known of the recorded file, so that a mistake in the parser above cannot hide one in the library.
    known = {"sample": (6, 3, [5]), "access_log": (9_999, 4_915, [8_899])}
    records, bad = parsed(file)
    assert (len(records), steps_back(records), bad) == known[request.param]
    return file, records, bad


def replayed(log, url, out, *more):
    """Send the log to a receiver in another process, a hundred thousand times as fast as it was recorded; what came,
    and the sender's report."""
    file, records, bad = log
    with Command("receive", url, "--count", len(records), "--idle", 30, "--out", out, "--json", *more) as receiver:
        to = receiver.ready()
        options = ("--key", "address", "--speed", 100_000, "--on-error", "skip", "--json")
        sent = run_simlink("send", f"replay:{file}", "--to", to, *options)
        received = receiver.done()
    for number in bad:
        text = file.read_text(encoding="utf-8").splitlines()[number - 1]
        assert f"line {number} does not parse (not the Combined Log Format), skipped: {text[:200]}" in sent.stderr
    assert sent.stderr.count("does not parse") == len(bad)
    report = sent.report
    expected = {
        "sent": len(records),
        "confirmed": len(records),
        "failed": 0,
        "unknown": 0,
        "unsettled": 0,
        "resent": 0,
        "bad_lines": len(bad),
        "negative_gaps": steps_back(records),
        "seed": None,
    }
    assert expected == {name: report[name] for name in expected}
    found = received.report
    assert (len(records), len(records), 0) == (found["received"], found["unique"], found["duplicated"])
    return [json.loads(line) for line in lines_of(out)]


def test_over_tcp_everything_comes_in_the_files_order(log, tmp_path):
    assert replayed(log, "tcp://127.0.0.1:0/visits", tmp_path / "visits.ndjson") == log[1]


@pytest.mark.parametrize("client", ["kafka+confluent", "kafka+python"])
def test_through_kafka_everything_comes_in_order_for_each_address(client, log, fresh, kafka_broker, tmp_path):
    url = fresh(client, partitions=6)
    came = replayed(log, url, tmp_path / "visits.ndjson")
    assert by_address(came) == by_address(log[1])

    # And so it stands in the topic, for anybody: keyed by the address, each address in one of the six partitions.
    partitions = defaultdict(set)
    stored = defaultdict(list)
    for partition, key, body in records_in(kafka_broker, topic_of(url)):
        record = json.loads(body)
        assert key.decode() == record["address"]
        partitions[record["address"]].add(partition)
        stored[record["address"]].append(record)
    assert stored == by_address(log[1])
    assert {len(where) for where in partitions.values()} == {1}
    if len(partitions) > 100:
        assert set().union(*partitions.values()) == set(range(6))
