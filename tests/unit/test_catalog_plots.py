"""The pictures of the catalog's pages: one an entry, drawn by one program, which still runs."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from simlink.generators import catalog

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def plots():
    pytest.importorskip("matplotlib")
    pytest.importorskip("pandas")
    spec = importlib.util.spec_from_file_location("catalog_plots", ROOT / "scripts" / "catalog_plots.py")
    module = sys.modules["catalog_plots"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_entry_has_its_picture_on_its_page(plots):
    assert sorted(plots.DRAWN) == catalog.names()
    for name in catalog.names():
        page = (ROOT / "docs" / "catalog" / f"{name}.md").read_text(encoding="utf-8")
        marked = re.findall(r"<!-- plot: ([^>]*) -->\n!\[([^\]]*)\]\(([^)]*)\)", page)
        (what, alternative, file) = marked[0]
        assert (len(marked), alternative, file) == (1, f"{what}; seed {plots.SEED}", f"{name}.png")
        assert (ROOT / "docs" / "catalog" / file).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["numbers", "ijinus"])
def test_a_picture_is_drawn_anew(plots, name, tmp_path):
    # The same seed draws the same; the file depends on the version of matplotlib too.
    for file in ("new.png", "again.png"):
        figure = plots.DRAWN[name]()
        assert all(axes.has_data() for axes in figure.axes)
        figure.savefig(tmp_path / file)
    assert (tmp_path / "new.png").read_bytes() == (tmp_path / "again.png").read_bytes()
