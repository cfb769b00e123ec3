"""access_log: lines that are read back as its records, visits that hang together, and the laws of a recorded log."""

from __future__ import annotations

import io
import json
import pickle
import re
from collections import Counter
from datetime import datetime

import numpy as np
import pytest

import simlink
from simlink.errors import ConfigError, EncodeError
from simlink.generators import catalog
from simlink.generators.catalog import _site as site
from simlink.generators.catalog.access_log import FAULTS
from simlink.generators.fields.sessions import EPOCH_ROWS
from simlink.generators.record import Record
from simlink.generators.source import as_source, key_column
from tests.support.recorded import recorded
from tests.support.statistics import chi_square, kolmogorov, normal_cdf

ROWS = 20_000
ROBOTS = re.compile("bot|spider|crawl|slurp|feed|reader|wget|curl", re.IGNORECASE)


@pytest.fixture(scope="module")
def rows():
    return catalog.access_log(seed=7)[:ROWS]


@pytest.fixture(scope="module")
def lines():
    return catalog.access_log(seed=7, format="combined")


def visits(rows, **options):
    """The records with what they are made from."""
    log = catalog.access_log(**{"seed": 7, **options})
    return Record("access_log", log.fields, seed=log.seed)[:rows]


# --- lines


def test_lines_are_read_back_as_the_records(rows, lines):
    file = io.BytesIO("".join(f"{line}\n" for line in lines[:ROWS]).encode())
    assert rows == list(simlink.replay(file, format="clf"))
    assert list(rows[0]) == list(catalog.access_log().schema)


def test_lines_are_text_for_the_serializer_of_text(lines):
    block = lines.block(1)
    assert simlink.Text().dumps_many(block) == [line.encode() for line in block.rows()]
    assert simlink.Text().dumps_many(block[5:7]) == [line.encode() for line in lines[4101:4103]]
    assert simlink.Text().dumps_many(block[5:5]) == []
    assert simlink.Json().dumps_many(block[:3]) == [json.dumps(line).encode() for line in lines[4096:4099]]
    with pytest.raises(EncodeError):
        simlink.Protobuf(catalog.access_log()).dumps_many(block[:3])


def test_a_carriage_return_within_a_line_is_refused(lines):
    block = lines.block(0)[:3]
    for bad in ("\r", "\ud800"):
        block.text = f"a{bad}b\nc\nd"
        with pytest.raises(EncodeError):
            simlink.Text().dumps_many(block)


def test_any_slice_of_the_lines_is_a_part_of_the_whole(lines):
    whole = lines[:10_000]
    assert whole[4090:4100] == lines[4090:4100]
    assert whole[5] == lines[5] == lines.take(10)[5]
    assert whole[::-1] == lines[:10_000][::-1]
    assert [line for chunk in as_source(lines).chunks(100, 5000, 700) for line in chunk.rows()] == whole[100:5000]
    assert [lines.shard(i, 2)[0] for i in (0, 1)] == [whole[0], whole[4096]]
    assert whole[:5] == pickle.loads(pickle.dumps(lines))[:5]
    assert lines.with_seed(8)[:5] == catalog.access_log(seed=8, format="combined")[:5] != whole[:5]


def test_a_key_may_be_a_field_of_the_request(rows, lines):
    chunk = next(as_source(lines).chunks(0, 50))
    assert [row["address"].encode() for row in rows[:50]] == key_column(chunk, "address")
    assert [line[:9].encode() for line in lines[:50]] == key_column(chunk, lambda line: line[:9])


def test_lines_are_looked_at(lines):
    assert "line" in str(lines.preview(2))
    assert lines.to_pandas(3)["line"].tolist() == lines[:3]
    assert lines.to_arrow(3)["line"].to_pylist() == lines[:3]


def test_lines_are_sent_and_proven(lines):
    with simlink.queue("memory://lines", serializer=simlink.Text()) as queue, queue.receiver() as receiver:
        simlink.run(lines, queue, count=6_000, key="address", progress=False)
        result = simlink.verify(receiver, lines, count=6_000)
    assert result.ok
    assert (result.received, result.corrupt) == (6_000, 0)


# --- visits


def test_a_visit_has_one_address_agent_and_protocol():
    seen = {}
    for row in visits(ROWS):
        who = tuple(row[name] for name in ("address", "agent", "protocol"))
        assert seen.setdefault(row["visit"]["session"], who) == who
    assert len(set(seen.values())) < len(seen)
    by_address = {}
    for address, *rest in seen.values():
        assert by_address.setdefault(address, rest) == rest


def test_what_belongs_to_a_page_says_so():
    page, checked = {}, 0
    for row in visits(ROWS):
        visit = row["visit"]
        if visit["action"] == "page":
            page[visit["session"]] = row["path"]
            outside = row["referer"] != f"{site.SITE}/"
            assert outside == (visit["step"] == 0)
        elif visit["action"] in ("style", "script", "image", "icon"):
            assert row["referer"] == site.SITE + page[visit["session"]]
            checked += 1
    assert checked > ROWS / 4


def test_seconds_never_step_back(rows):
    times = [datetime.fromisoformat(row["timestamp"]) for row in rows]
    assert times == sorted(times)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", row["timestamp"]) for row in rows)


@pytest.mark.parametrize("rate", [0.001, 50, 1e5])
def test_rows_a_second_are_about_the_rate(rate):
    at = np.concatenate([b.columns["visit"].columns["at"] for b in _blocks(rate)])
    assert (np.diff(at) >= 0).all()
    assert abs(EPOCH_ROWS / ((at[-1] - at[0]) / 1e6) / rate - 1) < 0.25


def _blocks(rate):
    log = catalog.access_log(seed=7, rate=rate)
    return Record("access_log", {"visit": log.fields["visit"]}, seed=7).blocks(0, EPOCH_ROWS)


# --- status and size


def test_the_status_depends_on_the_path():
    by_path = {}
    for row in catalog.access_log(seed=7, bursts=0)[: 3 * ROWS]:
        by_path.setdefault(row["path"], Counter())[row["status"]] += 1
    assert {status for counts in by_path.values() for status in counts} == {200, 206, 301, 304, 404}
    assert {404} == {status for path in site._SCANS for status in by_path.get(path, {404})}
    for status in (301, 404):
        # What is moved or gone is so for everybody.
        assert all(len(counts) == 1 for counts in by_path.values() if status in counts)
    script = sum((counts for path, counts in by_path.items() if path.endswith(".js")), Counter())
    assert chi_square([script[200], script[304]], [83, 17]) > 1e-3


def test_errors_come_in_bursts():
    rows = visits(6 * 4096, rate=2, bursts=40)
    status = site.Status(40)
    at = np.array([row["visit"]["at"] for row in rows])
    burst = status.in_burst(7, "access_log.status", at)
    assert 0.03 < burst.mean() < 0.1  # 40 times 165 s a day, 0.076
    failed = np.array([row["status"] >= 500 for row in rows])
    made = np.array([row["visit"]["action"] in ("page", "crawl", "feed") for row in rows])
    assert not failed[~burst | ~made].any()
    share = failed[burst & made].mean()
    assert abs(share - 0.7) < 4 * (0.21 / (burst & made).sum()) ** 0.5
    kinds = Counter(row["status"] for row in rows if row["status"] >= 500)
    assert chi_square([kinds[s] for s in (500, 502, 503)], [70, 15, 15]) > 1e-3


def test_a_page_varies_log_normally_and_a_file_does_not():
    sizes = {}
    for row in catalog.access_log(seed=7, rate=10)[:100_000]:
        if row["status"] == 200 and row["bytes"] is not None:
            sizes.setdefault(row["path"], []).append(row["bytes"])
    page = np.log(sizes["/"])
    median = float(site._sizes(site.files()["page"])[0])
    # 4,096 levels of size and whole bytes: a step of a thousandth at most.
    assert kolmogorov((page - np.log(median)) / 0.1, normal_cdf) < 1.95
    assert all(len(set(sizes[path])) == 1 for path in sizes if path.startswith(("/css", "/images", "/favicon")))


def test_sizes_are_log_normal_over_the_files():
    for kind, spread in (("page", 0.7), ("image", 1.4)):
        files = site.files()[kind]
        levels = (np.log(site._sizes(files)) - np.log(files.median)) / spread
        assert kolmogorov(levels, normal_cdf) < 0.5


def test_nothing_is_sent_where_there_is_nothing(rows):
    for row in rows:
        if row["status"] == 304 or row["method"] == "HEAD" or (row["path"], row["status"]) == ("/robots.txt", 200):
            assert row["bytes"] is None
        else:
            assert row["bytes"] > 0


# --- the recorded log


@pytest.fixture(scope="module")
def real():
    return list(simlink.replay(recorded("apache_access.log"), on_error="skip"))


@pytest.fixture(scope="module", params=[1, 2])
def alike(request):
    """As many, at the same rate, of two seeds."""
    return catalog.access_log(seed=request.param, rate=10_000 / (83 * 3600))[20_000:30_000]


def share(rows, of):
    return sum(map(of, rows)) / len(rows)


@pytest.mark.parametrize(
    ("status", "tolerance"), [(200, 0.02), (304, 0.01), (404, 0.01), (301, 0.01), (206, 0.005), (500, 0.005)]
)
def test_statuses_are_mixed_as_recorded(real, alike, status, tolerance):
    shares = [share(rows, lambda row: row["status"] == status) for rows in (real, alike)]
    assert abs(shares[0] - shares[1]) < tolerance


@pytest.mark.parametrize(
    ("quantile", "factor"),
    [(0.01, 2), (0.1, 1.5), (0.25, 1.5), (0.5, 1.3), (0.75, 1.5), (0.9, 1.5), (0.95, 1.5), (0.99, 2.5)],
)
def test_bytes_have_the_recorded_quantiles(real, alike, quantile, factor):
    there, here = (
        np.quantile([row["bytes"] for row in rows if row["bytes"] is not None], quantile) for rows in (real, alike)
    )
    assert 1 / factor < here / there < factor


def test_as_many_bodies_are_empty_as_recorded(real, alike):
    assert abs(share(real, lambda row: row["bytes"] is None) - share(alike, lambda row: row["bytes"] is None)) < 0.02


@pytest.mark.parametrize(
    ("rank", "factor"), [(1, 1.6), (2, 1.6), (5, 1.6), (10, 2.5), (20, 2), (50, 2.2), (100, 1.5), (200, 2), (500, 1.5)]
)
def test_addresses_come_as_often_as_recorded(real, alike, rank, factor):
    there, here = (
        sorted(Counter(row["address"] for row in rows).values(), reverse=True)[rank - 1] for rows in (real, alike)
    )
    assert 1 / factor < here / there < factor


def test_there_are_as_many_addresses_as_recorded(real, alike):
    there, here = (len({row["address"] for row in rows}) for rows in (real, alike))
    assert 0.9 < here / there < 1.1


def test_requests_arrive_as_recorded(real):
    # The recording has one minute of every hour only, about two requests a second, in whole seconds, and within it they
    # are spread evenly; the simulated ones are a little more together, as those of one page are.
    hours = {}
    for row in real:
        time = datetime.fromisoformat(row["timestamp"])
        hours.setdefault(time.replace(minute=0, second=0), []).append(time.timestamp())
    there = np.concatenate([np.diff(sorted(times)) for times in hours.values()])
    times = [
        datetime.fromisoformat(row["timestamp"])
        for row in catalog.access_log(seed=1, rate=2).select("timestamp")[:ROWS]
    ]
    here = np.diff([time.timestamp() for time in times])
    for most, tolerance in ((0, 0.06), (1, 0.08), (2, 0.05), (4, 0.02)):
        assert abs((there <= most).mean() - (here <= most).mean()) < tolerance
    assert abs(there.mean() - here.mean()) < 0.1


def test_methods_and_crawlers_are_as_many_as_recorded(real, alike):
    for of, tolerance in (
        (lambda row: row["method"] == "GET", 0.01),
        (lambda row: row["protocol"] == "HTTP/1.0", 0.05),
        (lambda row: bool(ROBOTS.search(row["agent"])), 0.06),
        (lambda row: row["referer"] == "-", 0.12),
        (lambda row: row["path"].endswith((".png", ".jpg", ".gif")), 0.05),
        (lambda row: row["path"].endswith(".css"), 0.03),
        (lambda row: row["path"].endswith(".ico"), 0.03),
    ):
        assert abs(share(real, of) - share(alike, of)) < tolerance


# --- what is refused


@pytest.mark.parametrize(
    "options",
    [
        *({"format": "clf"}, {"rate": 0}, {"rate": "x"}, {"visitors": 0}, {"visitors": 100_001}, {"visitors": True}),
        *({"bursts": -1}, {"bursts": 145}, {"bursts": None}, {"seed": -1}, {"start": "noon"}),
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError):
        catalog.access_log(**options)


def test_faults_name_fields_that_are_there():
    schema = catalog.access_log().schema.fields
    for preset in FAULTS.values():
        for _, arguments in preset:
            assert {arguments.get("field", "address"), arguments.get("per", "address")} <= set(schema)
