"""The table of promises in the documentation is what the drivers say."""

import runpy
from dataclasses import fields
from pathlib import Path

import simlink
from simlink.channels.driver import Capabilities

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_has_what_the_code_says(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["make-capability-table", "--check"])
    script = runpy.run_path(str(ROOT / "scripts" / "make-capability-table"))
    assert script["main"]() == 0, capsys.readouterr().out


def test_every_promise_has_a_row_with_its_meaning():
    page = (ROOT / "docs" / "explanation" / "transports.md").read_text(encoding="utf-8")
    table = page.partition("<!-- made by")[2].partition("<!-- end -->")[0]
    rows = {cells[1].strip(" `"): cells[2:-1] for line in table.splitlines() if len(cells := line.split("|")) == 8}
    assert {f.name for f in fields(Capabilities)} <= rows.keys()
    assert all(meaning.strip() for meaning, *_ in rows.values())
    assert rows["takeover"][1:] == [
        " – ",
        " 5 s ",
        " 5 s ",
        f" {simlink.queue('kafka://h/n').capabilities.takeover:g} s ",
    ]
