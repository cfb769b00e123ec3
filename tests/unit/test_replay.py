"""Replay: the records of a file, exactly; what does not parse is reported; the pace at which they were recorded."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import threading
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink.errors import ConfigError, DecodeError, StateError
from simlink.generators.replay import lines
from simlink.generators.replay.formats import log_time
from simlink.generators.replay.lines import BadLine, CutLine, read_lines
from simlink.generators.replay.replay import replay
from simlink.generators.source import as_source, key_column

LOG = """\
10.0.0.1 - ann [17/May/2015:10:05:03 +0200] "GET /a?b=1 HTTP/1.1" 200 512 "-" "curl/8.0"
10.0.0.2 - - [17/May/2015:10:05:13 +0200] "POST /orders HTTP/2" 201 - "https://x.example/" "an \\"odd\\" agent"
10.0.0.1 - - [17/May/2015:10:05:08 +0200] "\\x16\\x03\\x01" 400 0 "-" "-"
"""


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_log_has_named_fields(tmp_path):
    records = list(replay(write(tmp_path, "access.log", LOG)))
    assert records[0] == {
        "address": "10.0.0.1",
        "ident": "-",
        "user": "ann",
        "timestamp": "2015-05-17T10:05:03+02:00",
        "method": "GET",
        "path": "/a?b=1",
        "protocol": "HTTP/1.1",
        "request": None,
        "status": 200,
        "bytes": 512,
        "referer": "-",
        "agent": "curl/8.0",
    }
    assert tuple(records[1][f] for f in ("bytes", "referer", "agent")) == (
        None,
        "https://x.example/",
        'an \\"odd\\" agent',
    )
    assert tuple(records[2][f] for f in ("method", "path", "protocol", "request")) == (
        None,
        None,
        None,
        "\\x16\\x03\\x01",
    )


@pytest.mark.parametrize(
    "text", ["31/Feb/2015:10:05:03 +0000", "17/Mai/2015:10:05:03 +0000", "17/May/2015:25:05:03 +0000", ""]
)
def test_a_logs_time_is_checked(text):
    with pytest.raises(ValueError, match=r".+"):
        log_time(text)


def test_csv_keeps_columns_and_text_as_they_stand(tmp_path):
    text = '\ufeffb, a,c\r\n1,"x, ""y""\r\nz",\r\n007, 1.50 ,é\r\n\r\n'
    records = list(replay(write(tmp_path, "data.csv", text)))
    assert records == [{"b": "1", " a": 'x, "y"\r\nz', "c": ""}, {"b": "007", " a": " 1.50 ", "c": "é"}]
    assert list(records[0]) == ["b", " a", "c"]


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@settings(deadline=None)
@given(st.lists(st.lists(cells, min_size=2, max_size=2), max_size=20))
def test_csv_reads_what_csv_writes(rows):
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    stream = io.BytesIO(out.getvalue().encode())
    assert [dict(zip("ab", row, strict=True)) for row in rows] == list(replay(stream, format="csv"))


def test_ndjson_is_kept_exactly(tmp_path):
    text = (
        '{"z":{"y":[1,{"x":null}]},"a":18446744073709551616,"b":-9223372036854775809,"c":1.5,"d":"\\u00e9"}\n[1]\n\n"t"'
    )
    records = list(replay(write(tmp_path, "data.ndjson", text)))
    assert [json.loads(line) for line in text.split("\n") if line] == records
    assert list(records[0]) == ["z", "a", "b", "c", "d"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.lists(json_values, max_size=10), st.booleans())
def test_ndjson_reads_what_json_writes(values, broken):
    text = "".join(f"{json.dumps(v)}\n" for v in values) + ("{broken\n" if broken else "")
    source = replay(io.BytesIO(text.encode()), format="ndjson", on_error="skip")
    assert values == list(source)
    assert int(broken) == source.bad_count


@pytest.mark.parametrize(
    "lines", [(b'{"a":1}{"a":2}', b'{"a":'), (b'{"a":1} {"a":2}',), (b'{"a":', b"1}"), (b'{"a":1}\r{"a":2}',)]
)
@pytest.mark.parametrize("more", [(), (b"what",)])
def test_a_line_of_ndjson_is_one_value_whatever_stands_around_it(lines, more):
    text = b"\n".join([b'{"a":0}', *lines, b"", b" ", *more, b'{"a":9}\r', b""])
    source = replay(io.BytesIO(text), format="ndjson", on_error="skip")
    assert list(source) == [{"a": 0}, {"a": 9}]
    assert [bad.line for bad in source.bad_lines] == [*range(2, 2 + len(lines)), *(4 + len(lines) for _ in more)]


def test_gzip_is_opened(tmp_path):
    path = tmp_path / "data.ndjson.gz"
    with gzip.open(path, "wb") as file:
        file.write(b"1\n2\n")
    assert list(replay(path)) == [1, 2]
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(DecodeError, match="cannot be read on"):
        list(replay(path))


# --- what does not parse

BROKEN = {
    "a.log": (LOG + "nonsense é\n" + LOG, 4, "nonsense é", "Combined Log"),
    "b.ndjson": ('{"a":1}\n{"a":2}\n{"a":3}\n{"a":\n{"a":4}\n{"a":5}\n{"a":6}\n', 4, '{"a":', "truncated"),
    "c.csv": ("a,b\n1,2\n3,4\n5,6\n7\n8,9\n10,11\n12,13\n", 5, "7", "1 values for 2 columns"),
    "d.csv": ('a,b\n1,2\n3,4\n5,6\n"7"x,8\n9,0\n1,2\n3,4\n', 5, '"7"x,8', "expected after"),
    "e.csv": (b"a,b\n1,2\n3,4\n5,6\n\xff,8\n9,0\n1,2\n3,4\n", 5, "\\xff,8", "not UTF-8"),
    "f.ndjson": (b'1\n2\n3\n"\xff"\n4\n5\n6\n', 4, '"\\xff"', "UTF-8"),
    "g.log": (LOG.encode() + b"\xff\n" + LOG.encode(), 4, "\\xff", "not UTF-8"),
    "h.ndjson": ("1\n2\n3\n1e999\n4\n5\n6\n", 4, "1e999", "out of range"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_line_stops_after_the_records_before_it(tmp_path, name):
    content, number, text, reason = BROKEN[name]
    source = replay(write(tmp_path, name, content))
    seen = []
    with pytest.raises(DecodeError) as caught:
        seen.extend(source)  # list.extend keeps what came before the error
    assert len(seen) == 3
    assert f"{name}: line {number} does not parse (" in str(caught.value)
    assert str(caught.value).endswith(f": {text}")
    assert reason in str(caught.value)
    assert source.bad_count == 1


@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_line_is_skipped_counted_and_reported_once(tmp_path, name):
    content, number, text, _ = BROKEN[name]
    reported = []
    source = replay(write(tmp_path, name, content), on_error="skip", on_bad_line=reported.append)
    assert 6 == len(list(source)) == len(list(source))
    assert source.bad_count == 1
    assert [(number, text)] == [(line.line, line.text) for line in reported]
    assert reported == source.bad_lines
    assert [len(c) for c in source.chunks(0, 6)] + [len(c) for c in source.chunks(3, 5)] == [6, 2]


def test_the_list_of_bad_lines_is_bounded_and_the_count_is_not(tmp_path):
    source = replay(write(tmp_path, "bad.ndjson", "{\n" * 250), on_error="skip")
    assert list(source) == []
    assert (source.bad_count, len(source.bad_lines)) == (250, 100)


def test_a_file_without_records_is_empty(tmp_path):
    for name in ("a.csv", "b.ndjson", "c.log"):
        assert list(replay(write(tmp_path, name, ""))) == []
    assert list(replay(write(tmp_path, "d.csv", "a,b\n"))) == []


@pytest.mark.parametrize("header", ["a,a\n1,2\n", '"a\n1,2\n', b"\xff,b\n1,2\n"])
def test_a_bad_header_cannot_be_skipped(tmp_path, header):
    with pytest.raises(DecodeError, match="not a header"):
        list(replay(write(tmp_path, "a.csv", header), on_error="skip"))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.csv", {"format": "cvs"}, "did you mean 'csv'"),
        ("a.txt", {}, "say format="),
        ("a", {}, "say format="),
        ("a.csv", {"on_error": "ignore"}, "'stop' or 'skip'"),
        ("a.csv", {"timestamp": 5}, "timestamp is"),
    ],
)
def test_what_cannot_be_replayed_is_refused_at_once(tmp_path, name, options, message):
    path = write(tmp_path, name, "")
    with pytest.raises(ConfigError, match=message):
        replay(path, **options)


def test_a_file_that_is_not_there_is_refused_at_once(tmp_path):
    for path in (tmp_path / "no.csv", tmp_path):
        with pytest.raises(ConfigError, match="cannot read"):
            replay(path, format="csv")
    with pytest.raises(ConfigError, match="path or an open binary stream"):
        replay(5)


# --- lines


@settings(deadline=None)
@given(
    st.binary(max_size=300) | st.lists(st.sampled_from([b"\n", b"\xef\xbb\xbf", b"a"])).map(b"".join),
    st.integers(1, 50),
)
def test_lines_are_the_same_however_they_come(data, size):
    class Trickle(io.BytesIO):
        def read1(self, _):
            return self.read(size)

    expected = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    number, got = 1, []
    for batch in read_lines(Trickle(data)):
        assert number == batch.first
        number += len(batch.lines)
        got += batch.lines
    assert expected == got


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_line_beyond_the_limit_is_cut_and_its_neighbours_stay(size):
    class Trickle(io.BytesIO):
        def read1(self, _):
            return self.read(size)

    data = b"short\n" + b"x" * 5000 + b"\nnext\n" + b"y" * 3000
    got = [line for batch in read_lines(Trickle(data), limit=2500) for line in batch.lines]
    assert got == [b"short", b"x" * 2000, b"next", b"y" * 2000]
    assert [type(line) is CutLine for line in got] == [False, True, False, True]


@pytest.mark.parametrize(("format", "good"), [("csv", [{"a": "1"}, {"a": "2"}]), ("ndjson", ["a", "1", "2"])])
def test_an_overlong_line_does_not_parse(monkeypatch, format, good):
    monkeypatch.setattr(lines.read_lines, "__defaults__", (50,))
    data = b'"a"\n"1"\n"' + b"x" * 100 + b'"\n"2"\n'
    source = replay(io.BytesIO(data), format=format, on_error="skip")
    assert good == list(source)
    assert [(line.line, line.reason) for line in source.bad_lines] == [(3, "the line is too long")]


def test_a_text_stream_is_refused():
    with pytest.raises(ConfigError, match="binary"):
        list(replay(io.StringIO("1\n"), format="ndjson"))


def test_a_pipe_gives_its_lines_as_they_come():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream:
        source = replay(stream, format="ndjson")
        with os.fdopen(writing, "wb", buffering=0) as feed:
            chunks = source.chunks()
            for line in ([1, 2], [3]):
                feed.write("".join(f"{n}\n" for n in line).encode())
                # The pipe stays open and silent: the chunk must not wait for more.
                got = []
                reader = threading.Thread(target=lambda got=got: got.append(next(chunks)))
                reader.start()
                reader.join(30)
                assert [line] == got
        assert list(chunks) == []


def test_a_stream_is_read_once():
    source = replay(io.BytesIO(b"1\n"), format="ndjson")
    assert not source.seekable
    assert list(source) == [1]
    with pytest.raises(StateError, match="read once"):
        list(source)
    with pytest.raises(ConfigError, match="second time"):
        source.arrivals()


# --- the pace


def test_the_recorded_gaps_are_the_schedule(tmp_path):
    source = replay(write(tmp_path, "access.log", LOG * 2))
    due = source.arrivals_of(2.0)
    assert due.due(0, 100).tolist() == [0.0, 5.0, 5.0, 5.0, 5.0, 5.0]
    # Back by 5 s, back by 5 s, on by 10 s, back by 5 s.
    assert 3 == due.negative_gaps == source.negative_gaps
    assert due.due(1, 2).tolist() == [5.0]
    assert source.arrivals().negative_gaps == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50), st.data())
def test_the_schedule_may_be_asked_for_in_any_parts(tmp_path_factory, times, data):
    path = tmp_path_factory.getbasetemp() / "times.ndjson"
    path.write_text("".join(f'{{"ts": {t}}}\n' for t in times))
    schedule = replay(path).arrivals(4)
    expected = [(max(times[: i + 1]) - times[0]) / 4 for i in range(len(times))]
    for _ in range(4):
        start = data.draw(st.integers(0, 60))
        stop = start + data.draw(st.integers(0, 60))
        assert expected[start:stop] == schedule.due(start, stop).tolist()
    schedule.due(0, 1000)
    assert sum(b < a for a, b in pairwise(times)) == schedule.negative_gaps


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1735689600", "1735689601.5"),
        ("1735689600000", "1735689601500"),
        ("1735689600000000", "1735689601500000"),
        ("1735689600000000000", "1735689601500000000"),
        ('"1735689600"', '"1735689601.5"'),
        ('"2025-01-01T00:00:00Z"', '"2025-01-01T01:00:01.5+01:00"'),
        ('"2025-01-01 00:00:00"', '"2025-01-01 00:00:01.500"'),
    ],
)
def test_times_are_read_in_their_usual_forms(tmp_path, first, second):
    path = write(tmp_path, "a.ndjson", f'{{"a":{{"when":{first}}}}}\n{{"a":{{"when":{second}}}}}\n')
    assert replay(path, timestamp="a.when").arrivals().due(0, 9).tolist() == [0.0, 1.5]
    by_function = replay(path, timestamp=lambda value: value["a"]["when"])
    assert by_function.arrivals().due(0, 9).tolist() == [0.0, 1.5]


def test_a_time_that_is_none_is_an_error(tmp_path):
    path = write(tmp_path, "a.ndjson", '{"time":1}\n{"time":"soon"}\n')
    with pytest.raises(DecodeError, match=r"record 1 .* no time"):
        replay(path).arrivals().due(0, 9)
    with pytest.raises(ConfigError, match="no field 'tiem'; did you mean 'time'"):
        replay(path, timestamp="tiem").arrivals().due(0, 9)
    with pytest.raises(ConfigError, match="say timestamp="):
        replay(write(tmp_path, "b.ndjson", '{"x":1}\n')).arrivals().due(0, 9)
    with pytest.raises(ConfigError, match="speed"):
        replay(path).arrivals(0)


def test_the_schedule_ends_where_the_records_stop(tmp_path):
    source = replay(write(tmp_path, "a.ndjson", '{"time":1}\n{"time":2}\n{\n{"time":3}\n'))
    assert source.arrivals().due(0, 9).tolist() == [0.0, 1.0]
    skipping = replay(write(tmp_path, "a.ndjson", '{"time":1}\n{"time":2}\n{\n{"time":3}\n'), on_error="skip")
    assert skipping.arrivals().due(0, 9).tolist() == [0.0, 1.0, 2.0]
    assert skipping.bad_count == 0  # the records' own pass reports them


# --- the real files


def data_file(name):
    root = Path(__file__).resolve().parents[2]
    folders = [Path(f) for f in (os.environ.get("SIMLINK_DATA"), root.parent / "shared" / "data") if f]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    if os.environ.get("SIMLINK_DATA") or os.environ.get("CI"):
        pytest.fail(f"{name} is required here, and is in none of {[str(f) for f in folders]}")
    pytest.skip(f"{name} is not there: set SIMLINK_DATA to the folder that has it")


def test_the_apache_log_is_what_it_is_known_to_be():
    path = data_file("apache_access.log")
    source = replay(path, on_error="skip")
    records = list(source)
    assert len(records) == 9_999
    text = path.read_text().splitlines()
    assert [BadLine(8_899, text[8_898], "not the Combined Log Format")] == source.bad_lines
    due = source.arrivals().due(0, 20_000)
    assert source.negative_gaps == 4_915
    stamps = [datetime.fromisoformat(r["timestamp"]).timestamp() for r in records]
    assert (np.maximum.accumulate(stamps) - stamps[0]).tolist() == due.tolist()
    del text[8_898]
    for line, record in zip(text, records, strict=True):
        stamp = datetime.fromisoformat(record["timestamp"]).strftime("%d/%b/%Y:%H:%M:%S %z")
        request = record["request"] or f"{record['method']} {record['path']} {record['protocol']}"
        size = "-" if record["bytes"] is None else record["bytes"]
        rebuilt = (
            f"{record['address']} {record['ident']} {record['user']} [{stamp}] "
            f'"{request}" {record["status"]} {size} "{record["referer"]}" "{record["agent"]}"'
        )
        assert line == rebuilt
    assert [r["address"].encode() for r in records[:100]] == key_column(
        next(as_source(source).chunks(0, 100)), "address"
    )


def test_the_apache_log_stops_at_its_bad_line():
    source = replay(data_file("apache_access.log"))
    seen = []
    with pytest.raises(DecodeError, match=r"line 8899 does not parse .*46\.118\.127\.106"):
        seen.extend(source)
    assert len(seen) == 8_898


def test_the_temperatures_are_what_the_standard_library_reads():
    path = data_file("ambient_temperature.csv")
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == list(replay(path))
