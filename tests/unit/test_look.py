"""To look at a generator: describe, plot, its schema; and to write it to a file."""

from __future__ import annotations

import html.parser
import math

import jsonschema
import pytest

import simlink
from simlink import fields
from simlink.errors import ConfigError, EncodeError
from simlink.generators import catalog


def sample():
    return simlink.record(
        "look",
        id=fields.sequence(1),
        kind=fields.choice({"a<b>": 3, "c": 1}),
        amount=fields.when("kind", "c", fields.normal(100, 10)),
        tags=fields.list(fields.text("?"), 0, 2),
        inside={"x": fields.boolean(0.25), "y$_$": fields.uuid()},
        key=fields.zipf(500),
        time=fields.event_time(),
        at=fields.event_time(format="iso"),
        never=None,
        mixed=fields.one_of([1, "x"]),
        seed=7,
    )


def test_describe_has_the_statistics_of_every_field():
    about = sample().describe(8_000)
    assert list(about.fields) == [
        "id", "kind", "amount", "tags", "tags[]", "inside.x", "inside.y$_$", "key", "time", "at", "never", "mixed",
    ]  # fmt: skip
    id_, kind, amount = about["id"], about["kind"], about["amount"]
    assert (id_.type, id_.missing, id_.distinct, id_.min, id_.max, id_.mean) == ("int", 0, 8_000, 1, 8_000, 4_000.5)
    assert (id_.median, round(id_.p05, 2), id_.top) == (4_000.5, 400.95, ())
    assert (kind.distinct, kind.mean, [value for value, _ in kind.top]) == (2, None, ["a<b>", "c"])
    assert abs(kind.top[0][1] - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 8_000)
    assert amount.missing == kind.top[0][1]
    assert abs(amount.mean - 100) < 4 * 10 / math.sqrt(2_000)
    assert (about["tags"].type, about["tags"].min, about["tags"].max) == ("list", 0, 2)
    assert about["tags[]"].distinct == 26
    assert (about["never"].missing, about["never"].distinct, about["never"].top) == (1, 0, ())
    assert about["mixed"].distinct == 2


def test_the_elements_of_lists_are_fields_of_their_own():
    about = catalog.ijinus(seed=7, batch=3, typed=True).describe(1_000)
    assert list(about.fields)[:2] == ["datas", "datas[].channel"]
    assert (about["datas"].min, about["datas"].max, about["datas[].sn"].distinct) == (3, 3, 1_000)
    readings = [
        reading["value"] for row in catalog.ijinus(seed=7, batch=3, typed=True)[:1_000] for reading in row["datas"]
    ]
    assert about["datas[].value"].mean == pytest.approx(sum(readings) / 3_000)
    deep = simlink.record("r", n=fields.list(fields.list(fields.integer(0, 9))), e=fields.list(1, 0, 0), seed=7)
    assert deep.describe(50)["n[][]"].max == max(x for row in deep[:50] for inner in row["n"] for x in inner)
    assert (deep.describe(50)["e[]"].distinct, deep.describe(50)["e[]"].missing) == (0, 0)


def test_a_description_is_a_table():
    about = sample().describe(100)
    text = str(about)
    assert text.splitlines()[0] == "look · seed 7 · 100 records"
    assert len(text.splitlines()) == 2 + len(about.fields)
    page = about._repr_html_()
    assert ("a&lt;b&gt;" in page, "a<b>" in page) == (True, False)
    assert about.to_pandas().loc["id", "max"] == 100
    assert [field.field for field in about] == list(about.fields)


@pytest.mark.parametrize("call", ["describe", "plot"])
def test_nothing_to_look_at_is_an_error(call):
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match="from 1 up"):
        getattr(sample(), call)(0)
    with pytest.raises(ConfigError, match="has no records"):
        getattr(sample().take(0), call)()


def test_a_picture_has_a_panel_a_field():
    pytest.importorskip("matplotlib")
    picture = sample().plot(2_000, arrivals=simlink.arrivals.poisson(50))
    assert picture.panels == {
        "id": "numbers", "kind": "values", "amount": "numbers", "tags": "values", "tags[]": "ranks",
        "inside.x": "values", "inside.y$_$": "texts", "key": "ranks", "time": "times", "at": "times",
        "never": "texts", "mixed": "values", "arrivals": "arrivals",
    }  # fmt: skip
    titles = [axes.get_title() for axes in picture.figure.axes]
    assert titles == list(picture.panels)
    bars = picture.figure.axes[1].patches
    shares = sorted(bar.get_width() for bar in bars)
    about = sample().describe(2_000)["kind"]
    assert shares == pytest.approx([100 * about.top[1][1], 100 * about.top[0][1]])
    histogram = picture.figure.axes[0].patches
    assert sum(bar.get_height() for bar in histogram) == 2_000


class _Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        assert not any(name == "src" for name, _ in attrs)


def test_a_picture_is_the_same_file_again_and_a_page_of_its_own(tmp_path):
    pytest.importorskip("matplotlib")
    small = sample().select("kind", "inside")  # drawing is slow, panel by panel
    for suffix in ("svg", "png", "html"):
        for name in ("a", "b"):
            small.plot(300).save(tmp_path / f"{name}.{suffix}")
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    tags = _Tags()
    tags.feed((tmp_path / "a.html").read_text())
    assert tags.seen[:5] == ["html", "meta", "title", "body", "svg"]
    assert small.plot(300)._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="a picture is"):
        small.plot(10).save(tmp_path / "a.gif")


@pytest.mark.parametrize("name", catalog.names())
def test_every_entry_of_the_catalog_is_valid_under_its_schema_and_can_be_drawn(name):
    pytest.importorskip("matplotlib")
    g = catalog.get(name)(seed=7)
    validator = jsonschema.Draft202012Validator(g.json_schema())
    validator.check_schema(g.json_schema())
    for row in g[:300]:
        validator.validate(row)
    assert not validator.is_valid({})
    assert not validator.is_valid({**g[0], "one more": 1})
    assert g.plot(300).panels.keys() == g.describe(300).fields.keys()


def test_a_schema_makes_a_generator_of_the_same_fields():
    g = catalog.clickstream(seed=7)
    again = simlink.from_type(g.json_schema(), seed=1)
    jsonschema.validate(again[0], g.json_schema())
    assert (again.name, list(again.schema)) == (g.name, list(g.schema))


def test_bytes_have_no_json_schema():
    with pytest.raises(ConfigError, match=r"a\.b: JSON has no bytes"):
        simlink.record("r", a={"b": b"x"}).json_schema()


def test_a_generator_shows_itself_in_a_notebook():
    page = sample()._repr_html_()
    assert page.startswith("<table>")
    assert "look · seed 7 · 5 rows" in page


def test_write_says_how_far_it_is(tmp_path):
    seen = []
    assert sample().write(tmp_path / "x.ndjson", 9_000, progress=lambda *at: seen.append(at)) == 9_000
    assert seen == [(4_096, 9_000), (8_192, 9_000), (9_000, 9_000)]
    assert len((tmp_path / "x.ndjson").read_text().splitlines()) == 9_000
    assert sample().take(10).write(tmp_path / "y.csv") == 10
    assert list(simlink.replay(tmp_path / "x.ndjson"))[:50] == sample()[:50]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x.csv",), "has no end"),
        (("x.csv", -1), "from 0 up"),
        (("-", 1, "parquet"), "needs a file"),
        (("x.csv", 1, "cvs"), "did you mean 'csv'"),
        (("missing/x.csv", 1), "cannot write"),
        (("x.csv", 1, None, 0), "workers"),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    names = ("file", "n", "format", "workers")
    options = dict(zip(names, arguments, strict=False))
    with pytest.raises(ConfigError, match=message):
        sample().write(options.pop("file"), options.pop("n", None), **options)


def test_a_record_that_json_cannot_hold_stops_the_writing(tmp_path):
    with pytest.raises(EncodeError):
        simlink.record("r", a=b"x").write(tmp_path / "x.ndjson", 1)
