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
    page = (ROOT / "docs" / "choosing-a-transport.md").read_text(encoding="utf-8")
    table = page.partition("<!-- made by")[2].partition("<!-- end -->")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    head, rows = lines[0], {cells[0].strip("`"): cells[1:] for cells in lines[2:]}
    assert {f.name for f in fields(Capabilities)} <= rows.keys()
    assert all(meaning for meaning, *_ in rows.values())
    # Asked of a driver itself, not of the script that made the table.
    kafka = head.index("`kafka://`") - 1
    assert rows["takeover"][kafka] == f"{simlink.queue('kafka://h/n').capabilities.takeover:g} s"
    assert rows["modes"][head.index("`redis+pubsub://`") - 1] == "topic"
