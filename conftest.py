"""README and the documentation are tests: every Python block in them is run."""

from __future__ import annotations

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

# Blocks of one page share a namespace, so that a page reads as one session. ```python no-run``` is shown only.
pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    excludes=["docs/design/*"],
).pytest()
