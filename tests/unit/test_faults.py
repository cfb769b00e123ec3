"""Faults on purpose: what is sent, what the labels say, and what verify() makes of it."""

from __future__ import annotations

import importlib
import pickle
import re
import threading
import uuid
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simlink
from simlink import faults, fields
from simlink.generators import catalog
from simlink.message import Batch, Same


def readings(rows=None, seed=7):
    made = simlink.record(
        "reading",
        id=fields.sequence(),
        device=fields.choice(a=1, b=1, c=1),
        value=fields.normal(20, 2, decimals=2),
        timestamp=fields.event_time(format="iso"),
        seed=seed,
    )
    return made if rows is None else made.take(rows)


EVERY = [
    faults.drop(0.01),
    faults.duplicate(0.01, within=50),
    faults.late(0.01, by=3000),
    faults.out_of_order(0.01, window=64),
    faults.corrupt(0.01),
    faults.truncate(0.01),
    faults.wrong_type(0.01, "value"),
    faults.wrong_type(0.01),
    faults.clock_skew(0.01, 60, "timestamp"),
    faults.hot_key(0.01, "device"),
    faults.spike(0.01, "value"),
    faults.stuck(0.0005, "value", per="device"),
    faults.drift(0.0005, "value", 5, per="device"),
    faults.flap(0.0005, "value", 3),
    faults.gap(0.0005, per="device", length=5000),
]
JSON = simlink.Json()


def sent(source, start=0, stop=None):
    """(place, body) of what is sent."""
    out = []
    for chunk in source.chunks(start, stop):
        out += zip(range(chunk.start, chunk.start + len(chunk)), chunk.encode(JSON), strict=True)
    return out


def by_fault(source):
    found = {}
    for label in source.labels():
        found.setdefault(label.fault, []).append(label)
    return found


@pytest.fixture
def url():
    return f"memory://faults-{uuid.uuid4().hex[:8]}"


def test_of_a_million_records_every_fault_is_counted_as_labelled(url, request):
    """With --full, as in CI; without it of one in five: the whole takes 20 s on an idle core."""
    rows = 1_000_000 if request.config.getoption("--full") else 200_000
    source = faults.apply(readings(rows), *at_a_tenth_of_a_percent())
    # Everything is imported before there are two threads: pytest rewrites modules as they are imported, and CPython
    # 3.11 cannot parse in two threads at once.
    with simlink.queue(f"{url}-first") as channel, channel.receiver() as receiver:
        simlink.run(readings(10) | faults.drop(0.0), channel, progress=False)
        simlink.verify(receiver, readings(10) | faults.drop(0.0))
    with simlink.queue(url) as channel, channel.receiver() as receiver:
        found = []
        reader = threading.Thread(target=lambda: found.append(simlink.verify(receiver, source)), name="verify")
        reader.start()
        report = simlink.run(source, channel, key="device", progress=False)
        reader.join()
    (result,) = found
    assert result.ok, str(result)
    assert (result.received, result.lost, result.duplicated, result.reordered, result.corrupt) == (
        *(report.sent, 0, 0, 0, 0),
    )
    labels = Counter(label.fault for label in source.labels())
    assert labels == result.injected
    assert report.sent == rows - labels["drop"] - labels["gap"] + labels["duplicate"]
    # Each at its rate, within four standard deviations.
    expected = rows / 1000
    for name in ("drop", "duplicate", "late", "out_of_order", "corrupt", "truncate", "clock_skew", "hot_key", "spike"):
        assert abs(labels[name] - expected) < 4 * expected**0.5, name


def at_a_tenth_of_a_percent():
    p = 0.001
    return [
        *(faults.drop(p), faults.duplicate(p), faults.late(p, by=30), faults.out_of_order(p, 64), faults.corrupt(p)),
        *(faults.truncate(p), faults.wrong_type(p, "value"), faults.clock_skew(p, 60), faults.hot_key(p, "device")),
        *(faults.spike(p, "value"), faults.stuck(p / 100, "value", per="device"), faults.gap(p / 100, per="device")),
        *(faults.drift(p / 100, "value", 5, per="device"), faults.flap(p / 100, "value", 3)),
    ]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.sampled_from(EVERY), min_size=1, max_size=6),
    st.integers(0, 14_000),
    st.integers(1, 5_000),
    st.integers(0, 2**64 - 1),
)
def test_seeking_is_scanning_for_any_composition(chosen, start, count, seed):
    whole = sent(faults.apply(readings(13_000, seed=seed), *chosen))
    assert [place for place, _ in whole] == list(range(len(whole)))
    fresh = faults.apply(readings(13_000, seed=seed), *chosen)
    assert whole[start : start + count] == sent(fresh, start, start + count)
    assert fresh.total() == len(whole)
    labels = list(fresh.labels())
    assert labels == sorted(labels, key=lambda label: label.place)
    inside = [label for label in labels if start <= label.place < start + count]
    assert inside == [label for label in fresh.labels(start, start + count) if label.place < start + count]
    assert Counter(label.fault for label in labels) == {k: v for k, v in fresh.injected().items() if v}


@settings(deadline=None, max_examples=10)
@given(st.lists(st.sampled_from(EVERY), min_size=1, max_size=6))
def test_labels_are_the_whole_difference(chosen):
    """Undo what the labels say, and the rest is what the source makes."""
    plain = readings(9_000)
    source = faults.apply(plain, *chosen)
    touched = {label.row for label in source.labels()}
    bodies = JSON.dumps_many(plain[:9_000])
    expected = [body for row, body in enumerate(bodies) if row not in touched]
    clean = set(expected)
    assert [body for _, body in sent(source) if body in clean] == expected


@pytest.mark.parametrize("chosen", ["drop(1)", "drop(0.9)", "gap(0.0003, length=9000)"])
def test_labels_from_a_place_on_and_their_number_where_whole_blocks_are_not_sent(chosen):
    def fresh():
        return faults.apply(readings(9_000), *faults.parse(chosen))

    every = list(fresh().labels())
    ends = [values.start for _, values, _ in fresh().stretches()]
    for start in (*ends, fresh().total()):
        assert list(fresh().labels(start)) == [label for label in every if label.place >= start]
    read = fresh()
    for _ in read.chunks():
        assert sum(read.injected().values()) == len(every)
    assert sum(read.injected().values()) == len(every)


def test_adding_a_fault_behind_the_others_changes_no_other():
    one = by_fault(readings(20_000) | faults.drop(0.01) | faults.spike(0.01, "value"))
    two = by_fault(readings(20_000) | faults.drop(0.01) | faults.spike(0.01, "value") | faults.hot_key(0.01, "device"))
    assert [label.row for label in one["spike"]] == [label.row for label in two["spike"]]
    assert [label.row for label in one["drop"]] == [label.row for label in two["drop"]]


def test_what_is_dropped_and_what_is_sent_twice():
    source = readings(5_000) | faults.drop(0.01, seed=1) | faults.duplicate(0.01, seed=2)
    ids = [JSON.loads(body)["id"] for _, body in sent(source)]
    marks = by_fault(source)
    dropped, twice = ({label.row for label in marks[name]} for name in ("drop", "duplicate"))
    assert Counter(ids) == {row: 1 + (row in twice) for row in range(5_000) if row not in dropped}
    # Right behind the original, as a message of its own.
    assert all(ids[label.place - 1] == ids[label.place] == label.row for label in marks["duplicate"])
    assert dropped
    assert twice


@pytest.mark.parametrize("ends", [faults.drop(0.2), faults.gap(0.002)])
@pytest.mark.parametrize("within", [0, 300])
def test_what_is_dropped_is_not_sent_twice_either(ends, within):
    source = readings(5_000) | faults.duplicate(0.2, within=within) | ends
    ids = Counter(JSON.loads(body)["id"] for _, body in sent(source))
    marks = by_fault(source)
    dropped, twice = ({label.row for label in marks[name]} for name in (ends.name, "duplicate"))
    assert ids == {row: 1 + (row in twice) for row in range(5_000) if row not in dropped}


def test_late_records_keep_their_time_and_their_order_among_the_others():
    source = readings(20_000) | faults.late(0.01, by=500)
    ids = [JSON.loads(body)["id"] for _, body in sent(source)]
    late = by_fault(source)["late"]
    rows = {label.row for label in late}
    assert [i for i in ids if i not in rows] == [i for i in range(20_000) if i not in rows]
    # One record a second: 500 places.
    assert {label.detail["places"] for label in late} == {500}
    inner = [label for label in late if label.row < 19_000]
    assert all(abs(label.place - label.row - 500) <= 20 and ids[label.place] == label.row for label in inner)


def test_records_move_across_blocks_and_back_to_nothing_lost():
    source = readings(10_000) | faults.late(0.05, places=6_000) | faults.out_of_order(0.05, window=3_000)
    assert sorted(JSON.loads(body)["id"] for _, body in sent(source)) == list(range(10_000))


def test_bodies_are_damaged_after_they_were_made():
    source = readings(5_000) | faults.corrupt(0.01) | faults.truncate(0.01)
    plain = JSON.dumps_many(readings()[:5_000])
    bodies = [body for _, body in sent(source)]
    marks = by_fault(source)
    both = {label.row for label in marks["corrupt"]} & {label.row for label in marks["truncate"]}
    for label in marks["corrupt"]:
        if label.row not in both:
            assert [
                sum(a != b for a, b in zip(bodies[label.place], plain[label.row], strict=True)),
            ] == [1]
    for label in marks["truncate"]:
        if label.row not in both:
            assert plain[label.row].startswith(bodies[label.place])
            assert len(bodies[label.place]) < len(plain[label.row])


def test_fields_are_changed_as_the_labels_say():
    source = (
        readings(20_000)
        | faults.wrong_type(0.01, "value")
        | faults.clock_skew(0.01, -90.5)
        | faults.hot_key(0.01, "device", "z")
        | faults.spike(0.01, "id", factor=3)
    )
    records = [JSON.loads(body) for _, body in sent(source)]
    plain = readings()[:20_000]
    marks = by_fault(source)
    for label in marks["wrong_type"]:
        assert (records[label.place]["value"], label.detail["was"]) == (
            str(plain[label.row]["value"]),
            plain[label.row]["value"],
        )
    for label in marks["clock_skew"]:
        was, now = plain[label.row]["timestamp"], records[label.place]["timestamp"]
        assert faults_times(now) - faults_times(was) == -90.5e6
        assert len(was) == len(now)
    assert {records[label.place]["device"] for label in marks["hot_key"]} == {"z"}
    assert all(records[label.place]["id"] == (3 * label.row or 3) for label in marks["spike"])
    # And the key is that of the changed record.
    assert "z" in {row["device"] for chunk in source.chunks() for row in chunk}


def faults_times(text):
    from simlink.generators.faults.times import micros_of

    return micros_of(text)


@pytest.mark.parametrize("per", [None, "device"])
def test_a_clock_passes_over_a_time_that_is_none_any_more(per):
    fault = (
        faults.clock_skew(1.0, 60, "timestamp")
        if per is None
        else faults.clock_skew(per=per, by=60.0, field="timestamp")
    )
    source = readings(5_000) | faults.wrong_type(0.1, "timestamp") | fault
    marks = by_fault(source)
    struck = {label.row for label in marks["wrong_type"]}
    assert struck | {label.row for label in marks["clock_skew"]} == set(range(5_000))
    assert not struck & {label.row for label in marks["clock_skew"]}


def test_every_device_has_a_clock_of_its_own():
    source = readings(5_000) | faults.clock_skew(per="device", by=120.0, field="timestamp")
    plain = readings()[:5_000]
    by_device = {}
    for label in source.labels():
        device = plain[label.row]["device"]
        by_device.setdefault(device, set()).add(label.detail["by"])
    assert {len(by) for by in by_device.values()} == {1}
    assert len(by_device) == len({*map(tuple, by_device.values())}) == 3
    assert source.total() == source.injected()["clock_skew"] == 5_000


def test_sensors_stick_drift_flap_and_fall_silent():
    plain = readings()[:30_000]
    for fault, check in (
        (faults.stuck(0.001, "value", per="device"), lambda was, now: True),
        (faults.drift(0.001, "value", 5, per="device"), lambda was, now: 0 < now - was <= 5.01),
        (faults.flap(0.001, "value", 3, per="device"), lambda was, now: abs(now - was - 3) < 0.01),
    ):
        source = readings(30_000) | fault
        records = [row for chunk in source.chunks() for row in chunk]
        labels = list(source.labels())
        assert len(labels) > 100
        assert all(check(label.detail["was"], records[label.place]["value"]) for label in labels)
        assert all(label.detail["was"] == plain[label.row]["value"] for label in labels)
    source = readings(30_000) | faults.stuck(0.0001, "value", per="device", length=300)
    records = [row for chunk in source.chunks() for row in chunk]
    rows = [label.row for label in source.labels()]
    first = [row for row in rows if row < rows[0] + 290 and plain[row]["device"] == plain[rows[0]]["device"]]
    assert len({records[row]["value"] for row in first}) == 1
    silent = by_fault(readings(30_000) | faults.gap(0.001, per="device"))["gap"]
    assert len({plain[label.row]["device"] for label in silent}) == 3


def test_times_keep_their_form():
    from simlink.generators.faults.times import later

    forms = {
        "2025-01-01T00:00:59.500Z": "2025-01-01T00:01:01.000Z",
        "2025-01-01T00:00:59Z": "2025-01-01T00:01:00Z",
        "2025-01-01 00:00:59.123456+02:00": "2025-01-01 00:01:00.623456+02:00",
        "10/Oct/2025:23:59:59 +0200": "11/Oct/2025:00:00:00 +0200",
        "1735689600000": "1735689601500",
        1_735_689_600: 1_735_689_602,
        1_735_689_600.25: 1_735_689_601.75,
        1_735_689_600_000: 1_735_689_601_500,
        1_735_689_600_000_000: 1_735_689_601_500_000,
        1_735_689_600_000_000_000: 1_735_689_601_500_000_000,
    }
    assert {time: later(time, 1.5) for time in forms} == forms
    for wrong in ("soon", None, True, [1]):
        with pytest.raises(simlink.ConfigError):
            later(wrong, 1)


def test_only_what_the_system_did_is_reported(url):
    source = faults.apply(readings(3_000), *EVERY[:6])
    bodies = sent(source)
    with simlink.queue(url) as channel, channel.receiver() as receiver:
        places = [place for place, _ in bodies if place not in (5, 6)]
        texts = [bodies[place][1] for place in places]
        texts[100] = b'{"id":1}'
        channel.send_many(Batch(texts, producers=Same(b"a" * 16, len(places)), sequences=places))
        found = simlink.verify(receiver, source, timeout=0.2)
    assert (found.lost, found.missing, found.corrupt, found.duplicated) == (2, (5, 6), 1, 0)
    assert found.injected == source.injected()
    assert found.differences[0].row == places[100]
    assert "injected" in str(found)


def test_lists_and_functions_have_faults_too(url):
    values = [{"i": i, "at": 1_735_689_600_000 + i * 1000} for i in range(9_000)]

    def function():
        return iter(values)

    chosen = [faults.drop(0.01), faults.late(0.01, by=100, field="at"), faults.corrupt(0.01)]
    one, two = (faults.apply(source, *chosen, seed=3) for source in (values, function))
    assert sent(one) == sent(two)
    assert one.injected() == two.injected()
    with simlink.queue(url) as channel, channel.receiver() as receiver:
        report = simlink.run(two, channel, progress=False)
        assert simlink.verify(receiver, two, count=report.sent).ok
    once = faults.apply(iter(values), *chosen, seed=3)
    assert sent(once) == sent(one)


def test_workers_share_the_stretches():
    source = faults.apply(readings(20_000), *EVERY)
    whole = sent(source)
    parts = [row for i in range(3) for row in sent(pickle.loads(pickle.dumps(source)).shard(i, 3))]
    assert sorted(parts) == whole
    halves = [sent(source.take(5_000).shard(i, 2)) for i in (0, 1)]
    assert sorted(halves[0] + halves[1]) == whole[:5_000]


def test_an_endless_source_stays_endless(url):
    source = readings() | faults.drop(0.5)
    with pytest.raises(simlink.ConfigError, match="no end"):
        simlink.run(source, url, progress=False)
    assert simlink.run(source, url, count=10, progress=False).sent == 10
    with pytest.raises(simlink.ConfigError, match="no end"):
        source.total()


def test_text_and_presets_make_faults():
    texts = "drop(0.001), late(0.01, by=30), hot_key(0.3, field='device', value='a'), clock_skew(per='device', by=9)"
    made = faults.parse(texts)
    assert [fault.name for fault in made] == ["drop", "late", "hot_key", "clock_skew"]
    assert repr(made) == repr(faults.parse(", ".join(map(repr, made))))
    assert repr(faults.named([("late", {"p": 0.01, "by": 30.0})])) == "(late(0.01, by=30),)"
    for text in ("drop", "dorp(1)", "poisson(1)", "drop(2)", "1", "drop(0.1) + drop(0.2)", "()"):
        with pytest.raises(simlink.ConfigError):
            faults.parse(text)
    for wrong in ([("dorp", {})], [("drop", {"q": 1})]):
        with pytest.raises(simlink.ConfigError):
            faults.named(wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda: faults.apply(readings()),
        lambda: faults.apply(readings(), "drop"),
        lambda: faults.drop(1.5),
        lambda: faults.drop(True),
        lambda: faults.drop(0.1, seed=-1),
        lambda: faults.late(0.1),
        lambda: faults.late(0.1, by=1, places=1),
        lambda: faults.late(0.1, places=100_000),
        lambda: readings() | faults.late(0.1, by=1, field="device"),
        lambda: readings().select("id") | faults.late(0.1, by=1),
        lambda: readings() | faults.spike(0.1, "valeu"),
        lambda: readings() | faults.stuck(0.1, "value", per="devise"),
        lambda: faults.out_of_order(0.1, window=0),
        lambda: faults.clock_skew(0.1, by=0),
        lambda: faults.drift(0.1, "value", by=float("nan")),
        lambda: faults.stuck(0.1, "value", length=0),
        lambda: faults.spike(0.1, ""),
        lambda: faults.apply([1, 2], faults.drop(0.1)).with_seed(3),
        lambda: faults.apply([1, 2], faults.drop(0.1)).take(-1),
        lambda: list(faults.apply([1, 2], faults.spike(1.0, "a")).chunks()),
    ],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(simlink.ConfigError):
        make()


NESTED = {"list": [{"value": "1.5", "who": "a"}], "inside": {"when": 1_735_689_600_000}}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (faults.wrong_type(1e-9, "list.0.valeu"), "wrong_type: a record has no field 'valeu'; did you mean 'value'[?]"),
        (faults.hot_key(1e-9, "list.3.value"), "hot_key: none of the first records has 'list.3.value'"),
        (faults.spike(1e-9, "list.0.who"), "spike: 'list.0.who' is no number: 'a'"),
        (faults.flap(1e-9, "inside", 1), "flap: 'inside' is no number: .*"),
        (faults.drift(1e-9, "list", 1), "drift: 'list' is no number: .*"),
        (faults.clock_skew(1e-9, 5, "list.0.who"), "clock_skew: 'list.0.who': 'a' is not an ISO 8601 time"),
        (faults.clock_skew(1e-9, 5, "inside.when", per="list.0.wo"), "clock_skew: a record has no field 'wo'.*"),
        (faults.stuck(1e-9, "list.0.value", per="inside.wo"), "stuck: a record has no field 'wo'.*"),
        (faults.gap(1e-9, per="wo"), "gap: a record has no field 'wo'.*"),
    ],
)
def test_a_field_deep_inside_is_looked_for_before_the_first_record(fault, said):
    """At such a rate nothing would be said for the first hundred million records."""
    with pytest.raises(simlink.ConfigError) as caught:
        simlink.record("r", **NESTED, seed=1) | fault
    assert re.fullmatch(said, str(caught.value))


def test_clocks_are_not_put_off_by_ages():
    with pytest.raises(simlink.ConfigError, match="at most 1e11"):
        faults.clock_skew(1.0, by=1e12)
    with pytest.raises(simlink.ConfigError, match="only the years 1 to 9999"):
        simlink.record("r", at="2025-01-01T00:00:00Z", seed=1) | faults.clock_skew(1.0, -9e10, "at")
    with pytest.raises(simlink.ConfigError, match="only the years 1 to 9999"):
        simlink.record("r", at="2025-01-01T00:00:00Z", seed=1) | faults.clock_skew(1.0, 9e10, "at", per="at")


@pytest.mark.parametrize("behind", [faults.wrong_type(1.0, "list.0.value"), faults.hot_key(1.0, "list.0.value", "x"),
                                    faults.stuck(1.0, "list.0.value"), faults.drift(1.0, "list.0.value", 1),
                                    faults.clock_skew(1.0, 5, "inside.when"),
                                    faults.clock_skew(1.0, 5, "inside.when", per="list.0.who")])  # fmt: skip
def test_what_is_made_text_of_has_nothing_inside_to_change(behind):
    """A fault of a field that an earlier one took away with what it stood in."""
    source = simlink.record("r", **NESTED, seed=1).take(100) | faults.wrong_type(0.5) | behind
    rows = [row for chunk in source.chunks() for row in chunk]
    gone = [row for row in rows if isinstance(row[behind.field.partition(".")[0]], str)]
    assert 10 < len(gone) < 90
    assert Counter(label.fault for label in source.labels()) == source.injected()


def test_a_number_that_would_be_none_is_left():
    source = simlink.record("r", x=5.0, y="nan", seed=1).take(10) | faults.spike(1.0, "x", 1e308)
    assert source.injected() == {"spike": 0}


def test_on_a_field_is_refused(url):
    with simlink.queue(url) as channel, channel.receiver() as receiver, pytest.raises(simlink.ConfigError, match="on="):
        simlink.verify(receiver, readings(10) | faults.drop(0.1), on="id")


@pytest.mark.parametrize("name", catalog.names())
def test_every_preset_of_the_catalog_fits_its_records(name):
    module = importlib.import_module(f"simlink.generators.catalog.{name}")
    made = catalog.get(name)(seed=7).take(4_500)
    assert module.FAULTS
    for preset, chosen in module.FAULTS.items():
        source = faults.apply(made, *faults.named(chosen))
        assert sum(source.injected().values()) > 0, preset
