"""Faults in files: damaged lines stay lines, the labels say what was done, and what a format cannot hold is refused."""

from __future__ import annotations

import csv
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simlink
from simlink import faults, fields
from simlink.errors import ConfigError, EncodeError
from simlink.generators.faults.fault import BodyFault
from simlink.generators.faults.files import damaged_lines
from simlink.generators.faults.stretches import Altered
from tests.support.command import run_simlink

ROWS = 9_000
DAMAGE = (faults.corrupt(0.01), faults.truncate(0.01))
OTHERS = (faults.drop(0.01), faults.duplicate(0.01), faults.late(0.01, places=3000), faults.wrong_type(0.01, "value"))


def readings(rows=ROWS):
    return simlink.record(
        "reading",
        id=fields.sequence(),
        value=fields.normal(20, 2, decimals=2),
        note=fields.pool(["plain", "two\nlines", 'a "quote", and a comma', ""]),
        seed=7,
    ).take(rows)


def lines_of(path):
    return path.read_bytes().split(b"\n")[:-1]


def labels_of(path):
    return [json.loads(line) for line in lines_of(path)]


def test_lines_are_the_bodies_that_would_be_sent(tmp_path):
    source = faults.apply(readings(), *DAMAGE, *OTHERS)
    count = source.write(tmp_path / "x.ndjson", labels=tmp_path / "labels")
    bodies = [body for chunk in source.chunks() for body in chunk.encode(simlink.Json())]
    lines = lines_of(tmp_path / "x.ndjson")
    assert count == len(bodies) == len(lines) == source.total()
    # A damaged body may have an end of line in its middle; a line may not.
    assert [body.replace(b"\n", b"\x0b").replace(b"\r", b"\x0b") for body in bodies] == lines
    written = labels_of(tmp_path / "labels")
    assert Counter(label["fault"] for label in written) == source.injected()
    told = [(label.row, label.place, label.fault) for label in source.labels()]
    assert [(label["row"], label["place"], label["fault"]) for label in written] == told


def test_the_labels_undo_the_damage(tmp_path):
    source = faults.apply(readings(), *DAMAGE)
    source.write(tmp_path / "x.ndjson", labels=tmp_path / "labels")
    clean = simlink.Json().dumps_many(readings()[:ROWS])
    lines = lines_of(tmp_path / "x.ndjson")
    seen = Counter()
    for label in reversed(labels_of(tmp_path / "labels")):
        place, detail = label["place"], label["detail"]
        if label["fault"] == "truncate":
            assert (len(lines[place]), len(clean[place])) == (detail["kept"], detail["of"])
            lines[place] += clean[place][detail["kept"] :]
        elif detail["at"] < len(lines[place]):
            was = bytes([detail["was"]])
            lines[place] = lines[place][: detail["at"]] + was + lines[place][detail["at"] + 1 :]
        seen[label["fault"]] += 1
    assert lines == clean
    assert seen == source.injected()
    assert min(seen.values()) > 50


def test_csv_has_its_rows_damaged_too(tmp_path):
    source = readings().select("id", "value") | faults.corrupt(0.02) | faults.drop(0.02)
    source.write(tmp_path / "x.csv", 5_000, labels=tmp_path / "labels")
    readings().select("id", "value").write(tmp_path / "clean.csv")
    header, *rows = lines_of(tmp_path / "x.csv")
    clean = lines_of(tmp_path / "clean.csv")[1:]
    assert (header, len(rows)) == (b"id,value", 5_000)
    dropped, damaged = set(), {}
    for label in labels_of(tmp_path / "labels"):
        if label["fault"] == "drop":
            dropped.add(label["row"])
        else:
            damaged[label["place"]] = label["detail"]
    kept = [line for row, line in enumerate(clean) if row not in dropped][:5_000]
    differing = {place for place, (line, other) in enumerate(zip(rows, kept, strict=True)) if line != other}
    assert differing == set(damaged)
    for place, detail in damaged.items():
        assert (kept[place][detail["at"]], rows[place][detail["at"]]) == (detail["was"], detail["now"])


def test_csv_keeps_rows_of_several_lines(tmp_path):
    source = readings(2_000) | faults.truncate(0.0) | faults.drop(0.0)
    source.write(tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        assert [row["note"] for row in csv.DictReader(file)] == [row["note"] for row in readings(2_000)]


class Sets(BodyFault):
    """Damage of the test's own choice: the byte at ``word``, 8 bits, becomes what the rest says."""

    name = "sets"

    def __init__(self):
        super().__init__(0.1, None)

    def damage(self, body, word):
        at, value = word % len(body), word >> 32 & 255
        return body[:at] + bytes([value]) + body[at + 1 :]


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=20), st.lists(st.tuples(st.integers(0, 19), st.sampled_from(b"\r\n\x0bx"))))
def test_no_damage_makes_a_line_of_two(body, changes):
    line = body.replace(b"\n", b"").replace(b"\r", b"") or b"x"
    chunk = Altered([0], 0, {0: [(Sets(), at | value << 32) for at, value in changes]})
    (now,) = damaged_lines(chunk, [line])
    assert not set(now) & set(b"\r\n")
    assert len(now) == len(line)
    assert len(chunk.done.get((0, "sets"), [])) == len(changes)


def test_what_is_dropped_at_the_very_end_has_its_label(tmp_path):
    source = readings(1_000) | faults.drop(1.0)
    assert source.write(tmp_path / "x.ndjson", labels=tmp_path / "labels") == 0
    assert len(labels_of(tmp_path / "labels")) == 1_000
    assert (tmp_path / "x.ndjson").read_bytes() == b""


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_tables_hold_what_has_their_types(tmp_path, suffix):
    pytest.importorskip("pyarrow")
    out = tmp_path / f"x.{suffix}"
    for fault in (*DAMAGE, faults.wrong_type(0.1, "value")):
        with pytest.raises(ConfigError, match=rf"format {suffix} .* cannot hold {fault.name}; write ndjson or csv"):
            (readings() | fault).write(out)
    assert not out.exists()
    source = readings() | faults.drop(0.1) | faults.spike(0.1, "value")
    assert source.write(out, labels=tmp_path / "labels") == source.total()
    assert len(labels_of(tmp_path / "labels")) == sum(source.injected().values())


def test_a_table_of_mixed_records_is_refused_in_words(tmp_path):
    pytest.importorskip("pyarrow")
    from simlink.generators.output.files import write_records
    from simlink.generators.source import as_source

    for values in ([{"a": 1}, {"a": "x"}], [{"a": 1}] * 4096 + [{"b": 1}]):
        with pytest.raises(EncodeError, match="a column has one type"):
            write_records(as_source(values), tmp_path / "x.parquet", None, None, 1, None)


def test_what_makes_no_sense_is_refused(tmp_path):
    endless = simlink.record("r", id=fields.sequence(), seed=1) | faults.drop(0.1)
    with pytest.raises(ConfigError, match="no end: say how many"):
        endless.write(tmp_path / "x.ndjson")
    with pytest.raises(ConfigError, match="expected a number"):
        endless.write(tmp_path / "x.ndjson", -1)
    with pytest.raises(ConfigError, match="cannot write"):
        endless.write(tmp_path / "x.ndjson", 5, labels=tmp_path)


def test_generate_writes_faults_and_labels(tmp_path):
    out, labels = tmp_path / "x.ndjson", tmp_path / "labels.ndjson"
    expression = "corrupt(0.01), drop(0.01)"
    done = run_simlink(
        *("generate", "sensors", "--count", 5_000, "--seed", 7, "--out", out),
        *("--faults", expression, "--labels", labels),
    )
    assert "5,000 records of sensors, seed 7" in done.stderr
    source = faults.apply(simlink.generators.catalog.sensors(seed=7), *faults.parse(expression))
    source.write(tmp_path / "python.ndjson", 5_000, labels=tmp_path / "python.labels")
    assert out.read_bytes() == (tmp_path / "python.ndjson").read_bytes()
    assert labels.read_bytes() == (tmp_path / "python.labels").read_bytes() != b""


def test_generate_writes_faults_with_several_workers(tmp_path):
    written = []
    for workers in (1, 2):
        out, labels = tmp_path / f"{workers}.ndjson", tmp_path / f"{workers}.labels"
        run_simlink(
            *("generate", "numbers", "--count", 140_000, "--seed", 7, "--out", out, "--workers", workers),
            *("--faults", "late(0.01, places=500), corrupt(0.01)", "--labels", labels),
        )
        written.append((out.read_bytes(), labels.read_bytes()))
    assert written[1] == written[0]


SEVERAL = (
    faults.gap(0.00002, length=9_000),
    faults.drop(0.01),
    faults.duplicate(0.01),
    faults.late(0.01, places=30_000),
)


@pytest.mark.parametrize(
    ("rows", "count", "suffix"),
    [(300_000, None, "ndjson"), (None, 200_001, "csv"), (300_000, 200_000, "arrow"), (140_000, 138_000, "ndjson")],
)
def test_several_workers_write_the_same_lines_and_labels(tmp_path, rows, count, suffix):
    """Stretches in which all, nothing or more than a block is sent, cut anywhere; two workers need 65,536 rows."""
    plain = simlink.record("r", id=fields.sequence(), value=fields.integer(0, 99), seed=7)
    chosen = SEVERAL if suffix == "arrow" else (*SEVERAL, *DAMAGE, faults.wrong_type(0.001, "value"))
    source = faults.apply(plain if rows is None else plain.take(rows), *chosen)
    written = []
    for workers in (1, 3):
        out, labels = tmp_path / f"{workers}.{suffix}", tmp_path / f"{workers}.labels"
        told = []
        sent = source.write(out, count, labels=labels, workers=workers, progress=lambda *at, told=told: told.append(at))
        assert told[-1][0] == sent
        written.append((sent, out.read_bytes(), labels.read_bytes()))
    assert written[1] == written[0]
    assert sent == (count if source.endless else min(source.total(), count or 10**9))


def test_nothing_at_all_is_left_of_what_several_workers_make(tmp_path):
    source = simlink.record("r", id=fields.sequence(), seed=7).take(140_000) | faults.drop(1.0)
    assert source.write(tmp_path / "x.ndjson", labels=tmp_path / "labels", workers=2) == 0
    assert (tmp_path / "x.ndjson").read_bytes() == b""
    assert [label["row"] for label in labels_of(tmp_path / "labels")] == list(range(140_000))


def test_what_is_no_generator_is_not_divided(tmp_path):
    with pytest.raises(ConfigError, match="only a generator can be divided among workers"):
        faults.apply([{"a": 1}], faults.drop(0.1)).write(tmp_path / "x.ndjson", workers=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--out", "x.parquet", "--faults", "corrupt(0.1)"), "cannot hold corrupt; write ndjson or csv"),
        (("--out", "x.ndjson", "--labels", "x"), "nothing was done to sensors: give faults"),
        (("--out", "x", "--faults", "drop(0.1)", "--labels", "./x"), "x is the file of the records"),
        (("--out", "x.ndjson", "--faults", "corupt(0.1)"), "no fault 'corupt'; did you mean 'corrupt'"),
    ],
)
def test_generate_refuses_what_it_cannot_do(tmp_path, options, said):
    done = run_simlink("generate", "sensors", "--count", 5, *options, status=2, cwd=tmp_path)
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []
