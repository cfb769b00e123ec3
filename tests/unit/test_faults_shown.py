"""Sources with faults as tables."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simlink
from simlink import faults, fields
from simlink.errors import ConfigError


def numbers(rows=None, **more):
    made = simlink.record("numbers", n=fields.sequence(), x=fields.normal(20, 2, decimals=2), **more, seed=7)
    return made if rows is None else made.take(rows)


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 9_000), n=st.integers(0, 9_000), faulty=st.booleans())
def test_what_is_shown_is_what_is_sent_and_what_the_labels_say(rows, n, faulty):
    given_ones = faults.drop(0.05), faults.duplicate(0.05), faults.late(0.05, places=9), faults.corrupt(0.05)
    bad = faults.apply(numbers(rows), *given_ones)
    sent = [value for chunk in bad.chunks() for value in chunk]
    labels = Counter((label.place, label.fault) for label in bad.labels())
    shown = bad.preview(n, faulty=faulty).rows
    named = Counter((row["place"], what.split()[0]) for row in shown for what in row["faults"].split(", ") if what)
    assert [{"n": row["n"], "x": row["x"]} for row in shown] == [sent[row["place"]] for row in shown]
    places = {row["place"] for row in shown}
    assert named == Counter({label: times for label, times in labels.items() if label[0] in places})
    if faulty:
        assert sorted(places) == sorted({place for place, _ in labels if place < len(sent)})[:n]
    else:
        assert sorted(places) == list(range(min(n, len(sent))))


def test_it_is_a_table_in_a_terminal_and_in_a_notebook():
    bad = numbers(100) | faults.spike(0.2, field="x")
    text = str(bad.preview(10, faulty=True))
    assert re.search(r"^place +n +x +faults$", text, re.MULTILINE)
    assert re.search(r"^ +\d+ +\d+ +\d+\.?\d* +spike field=x was=\d+\.\d+$", text, re.MULTILINE)
    assert "<th>faults</th>" in bad._repr_html_()


def test_fields_of_these_names_keep_them():
    named = numbers(10, place=fields.constant("here"), faults=fields.constant("none"))
    row = (named | faults.drop(0.5)).preview(1).rows[0]
    assert list(row) == ["place_", "n", "x", "place", "faults", "faults_"]
    assert (row["place"], row["faults"]) == ("here", "none")


def test_values_that_are_no_records_have_a_column_of_their_own():
    bad = faults.apply(["a", "b", "c"], faults.duplicate(1.0), seed=1)
    assert [(row["value"], row["faults"]) for row in bad.preview(4).rows] == [
        ("a", ""),
        ("a", "duplicate"),
        ("b", ""),
        ("b", "duplicate"),
    ]


def test_a_notebook_does_not_use_up_what_is_read_once():
    bad = faults.apply(iter("abc"), faults.duplicate(1.0), seed=1)
    assert bad._repr_html_() is None
    assert len(bad.preview(10).rows) == 6


@pytest.mark.parametrize("n", [-1, 1.5, True, "3"])
def test_a_number_of_messages_is_an_integer_from_0_up(n):
    with pytest.raises(ConfigError, match="from 0 up"):
        (numbers() | faults.drop(0.1)).preview(n)
