"""The generator: slices, ends, shards, previews, frames, and the catalog."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink import fields
from simlink.block import Block
from simlink.errors import ConfigError, MissingExtra
from simlink.generators import catalog
from simlink.generators.generator import BLOCK_ROWS, Generator
from simlink.generators.record import record

CLICKS = record("click", seed=7, n=fields.sequence(), user=fields.zipf(1000), action=fields.choice(view=8, click=2))
FIRST = CLICKS[0:10_000]


def test_a_record_is_a_dict_of_plain_values():
    assert {"n", "user", "action"} == set(CLICKS[5])
    assert [int, int, str] == [type(v) for v in CLICKS[5].values()]
    assert list(CLICKS.schema) == ["n", "user", "action"]


@settings(deadline=None)  # the machine may be busy
@given(st.slices(10_000))
def test_any_slice_is_a_part_of_the_whole(part):
    whole = CLICKS.take(10_000)
    assert FIRST[part] == whole[part]
    if (part.start or 0) >= 0 and part.stop is not None and part.stop >= 0 and (part.step or 1) > 0:
        assert FIRST[part] == CLICKS[part]


def test_a_row_far_ahead_needs_nothing_before_it():
    made = []

    class Counting(type(CLICKS)):
        def make_block(self, k):
            made.append(k)
            return super().make_block(k)

    generator = Counting("click", CLICKS.fields, seed=7)
    row = 10**12 + 3
    assert [row, row + 1] == [r["n"] for r in generator[row : row + 2]]
    assert [row // BLOCK_ROWS] == made


def test_rows_are_of_their_own():
    row = CLICKS[3]
    row["user"] = "changed"
    CLICKS[0:5][3]["user"] = "changed"
    assert FIRST[3] == CLICKS[3]


def test_blocks_are_cut_at_the_edges():
    blocks = list(CLICKS.blocks(4000, 9000))
    assert [(b.start, len(b)) for b in blocks] == [(4000, 96), (4096, 4096), (8192, 808)]
    assert FIRST[4000:9000] == [row for b in blocks for row in b]
    assert list(CLICKS.blocks(5, 5)) == []


def test_an_end_is_kept_everywhere():
    whole = CLICKS.take(5000)
    assert 5000 == len(whole) == len(list(whole)) == sum(map(len, whole.blocks()))
    assert FIRST[4999] == whole[-1] == whole[4999]
    assert len(whole.block(1)) == 904
    assert 100 == len(whole.take(100)) == len(whole.take(100).take(200))
    for bad in (5000, -5001):
        with pytest.raises(IndexError):
            whole[bad]
    with pytest.raises(IndexError):
        whole.block(2)
    assert not CLICKS.take(0)
    assert list(CLICKS.take(0)) == []


def test_what_has_no_end_says_so():
    assert CLICKS
    for wrong, error in (
        (lambda: CLICKS[5:], ConfigError),
        (lambda: CLICKS[-1], IndexError),
        (lambda: CLICKS[-5:3], IndexError),
        (lambda: len(CLICKS), TypeError),
        (CLICKS.to_pandas, ConfigError),
        (lambda: CLICKS.take(-1), ConfigError),
        (lambda: CLICKS.blocks(-1), ConfigError),
        (lambda: CLICKS.block(-1), IndexError),
    ):
        with pytest.raises(error):
            wrong()


def test_another_seed_gives_other_values_and_the_seed_is_kept():
    other = CLICKS.with_seed(8)
    assert (CLICKS.seed, other.seed) == (7, 8)
    assert FIRST[:100] != other[:100]
    assert FIRST[:100] == other.with_seed(7)[:100]
    random = record("click", n=fields.uuid())
    assert 0 <= random.seed < 2**63
    assert random[:3] == random.with_seed(random.seed)[:3]
    assert random.seed != record("click", n=1).seed


@pytest.mark.parametrize(("length", "n"), [(None, 3), (20_000, 3), (8192, 2), (100, 4), (8193, 2)])
def test_shards_divide_the_rows(length, n):
    whole = CLICKS if length is None else CLICKS.take(length)
    upto = 30_000 if length is None else length
    rows = {}
    for i in range(n):
        shard = whole.shard(i, n)
        for block in shard.blocks(0, 40_000 if length is None else None):
            assert i == block.start // BLOCK_ROWS % n
            for at, row in enumerate(block, block.start):
                assert at not in rows
                rows[at] = row
        if length is not None:
            assert len(shard) == sum(map(len, shard.blocks()))
    assert CLICKS[:upto] == [rows[at] for at in range(upto)]
    if length is not None:
        assert length == len(rows)


def test_a_shard_keeps_its_part_under_another_seed():
    assert CLICKS.with_seed(8).shard(1, 2)[:5] == CLICKS.shard(1, 2).with_seed(8)[:5]
    with pytest.raises(ConfigError, match="0 <= i < n"):
        CLICKS.shard(2, 2)


def test_select_makes_some_fields_with_the_same_values():
    whole = record("r", seed=1, a=fields.zipf(9), b=fields.uuid(), c=fields.ref("a", fields.uuid()), d=fields.ref("c"))
    part = whole.select("d", "b")
    assert [{"d": row["d"], "b": row["b"]} for row in whole[:100]] == part[:100]
    assert list(part.fields) == ["a", "b", "c", "d"]
    assert list(part.select("b").fields) == ["b"]
    for bad, message in ((["e"], "no field 'e'"), ([], "at least one"), (["b", "b"], "once")):
        with pytest.raises(ConfigError, match=message):
            whole.select(*bad)
    with pytest.raises(ConfigError, match="no field 'a'"):
        part.select("a")


def test_adding_moving_or_removing_a_field_changes_no_other():
    a, b, c = fields.uuid(), fields.list(fields.normal(), 0, 4), fields.ref("a", fields.zipf(1000))
    whole = record("r", seed=1, a=a, b=b, c=c)[:5000]
    moved = record("r", seed=1, new=fields.uuid(), b=b, other=fields.zipf(5), a=a, c=c)[:5000]
    alone = record("r", seed=1, b=b)[:5000]
    assert whole == [{name: row[name] for name in "abc"} for row in moved]
    assert [row["b"] for row in whole] == [row["b"] for row in alone]


def test_the_records_name_is_part_of_the_path_and_dots_do_not_fold():
    draw = {"x": fields.uuid()}
    assert record("a", seed=1, **draw)[0] != record("b", seed=1, **draw)[0]
    dotted = record("r", seed=1, **{"a.b": fields.uuid()})[0]["a.b"]
    assert dotted != record("r", seed=1, a={"b": fields.uuid()})[0]["a"]["b"]


def test_a_generator_of_ones_own_needs_a_schema_and_a_block():
    schema = record("squares", seed=1, n=0).schema

    class Squares(Generator):
        @property
        def schema(self):
            return schema

        def make_block(self, k):
            rows = np.arange(k * BLOCK_ROWS, (k + 1) * BLOCK_ROWS)
            return Block(schema, {"n": rows**2}, k * BLOCK_ROWS, BLOCK_ROWS)

    assert Squares("squares")[5000:5002] == [{"n": 25_000_000}, {"n": 25_010_001}]


def test_pickles_and_copies_make_the_same():
    for generator in (CLICKS, CLICKS.take(9), CLICKS.shard(1, 2), catalog.clickstream(7), CLICKS.select("user")):
        assert generator[2:6] == pickle.loads(pickle.dumps(generator))[2:6] == copy.deepcopy(generator)[2:6]


# --- looking at it


def test_the_preview_is_a_table_in_a_terminal_and_in_a_notebook(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    shop = record("shop", seed=1, item=fields.choice({"<mug>": 1}), n=fields.sequence(9), note=None, tags=["a"])
    assert "shop · seed 1 · 2 rows\n" in str(shop.preview(2))
    lines = str(shop.preview(2)).splitlines()
    assert lines[1:] == ["item    n  note  tags", '<mug>   9        ["a"]', '<mug>  10        ["a"]']
    assert "<td>&lt;mug&gt;</td><td>10</td>" in shop.preview(2)._repr_html_()
    assert len(shop.take(3).preview().rows) == 3


def test_a_wide_preview_is_broken_into_parts(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    wide = record("wide", seed=1, **{f"field_{i}": "x" * 30 for i in range(3)})
    lines = str(wide.preview(1)).splitlines()
    assert [line for line in lines if line.startswith("field_")] == ["field_0", "field_1", "field_2"]
    assert max(map(len, lines)) <= 40


def test_repr_shows_fields_and_seed():
    assert repr(CLICKS) == "<Record 'click' (n, user, action), seed=7>"
    assert repr(CLICKS.take(5)).endswith("length=5>")


RICH = record(
    "rich",
    seed=3,
    i=fields.sequence(),
    big=fields.integer(2**63, 2**64 - 1),
    f=fields.normal(),
    b=fields.boolean(),
    s=fields.choice(a=1, b=1),
    gap=fields.when("s", "a", fields.zipf(9)),
    text_gap=fields.when("s", "a", fields.uuid()),
    inner=fields.record(x=fields.zipf(5), y=fields.text("???")),
    items=fields.list(fields.record(n=fields.sequence(), p=fields.uniform()), 0, 3),
    odd=fields.sequence().map(str),
    raw=b"\x00\xff",
)


def test_the_data_frame_has_the_rows():
    pandas = pytest.importorskip("pandas")
    frame = RICH.take(5000).to_pandas()
    assert frame.shape == (5000, 11)
    assert [str(t) for t in frame.dtypes[:4]] == ["int64", "uint64", "float64", "bool"]
    assert [str(frame["gap"].dtype)] == ["Int64"]
    rows = frame.iloc[4090:4100].to_dict("records")
    for row in rows:
        for name in ("gap", "text_gap"):
            row[name] = None if pandas.isna(row[name]) else row[name]
    assert RICH[4090:4100] == rows


def test_the_arrow_table_has_the_rows():
    pytest.importorskip("pyarrow")
    table = RICH.to_arrow(5000)
    assert RICH[:5000] == table.to_pylist()
    assert table.schema == RICH.to_arrow(0).schema.set(9, table.schema.field(9))
    assert RICH.to_arrow(0).num_rows == 0


@pytest.mark.parametrize(("package", "method"), [("pandas", "to_pandas"), ("pyarrow", "to_arrow")])
def test_without_the_package_the_extra_is_named(monkeypatch, package, method):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"pip install 'simlink\[dataframe\]'"):
        getattr(CLICKS, method)(1)


# --- the catalog


def test_the_catalog_is_there_once_it_is_asked_for():
    program = "import simlink; print(simlink.generators.catalog.clickstream(seed=1)[0]['event_id'])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "0\n"


def test_the_catalog_is_looked_up_by_name():
    assert catalog.names() == ["access_log", "clickstream", "ijinus", "numbers", "orders", "sensors"]
    assert catalog.clickstream is catalog.get("clickstream")
    with pytest.raises(ConfigError, match="did you mean 'clickstream'"):
        catalog.get("clickstraem")
    with pytest.raises(AttributeError, match="did you mean 'clickstream'"):
        catalog.clickstreams  # noqa: B018 – the look-up is the point


def test_fields_may_have_any_name():
    given = record("r", {"seed": fields.integer(0, 9), "class": "a"}, seed=1, last=fields.boolean())
    assert list(given.schema) == ["seed", "class", "last"]
    assert given.select("last")[:9] == record("r", last=fields.boolean(), seed=1)[:9]
    with pytest.raises(ConfigError, match="'last' is given twice"):
        record("r", {"last": 1}, last=2)
    with pytest.raises(ConfigError, match="fields are given by name"):
        record("r", [1])
