"""README and the documentation are tests: every Python block in them is run."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from hypothesis import settings
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

if TYPE_CHECKING:
    import pytest

# A property holds or it does not; how long an example takes says how busy the machine is.
settings.register_profile("simlink", deadline=None)
settings.load_profile("simlink")

# Whoever starts the suite in the background (nohup, a shell's &) has it ignore Ctrl-C, and all that it starts; the
# tests of Ctrl-C are not about that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many seeds the simulation of pools takes, and whether long proofs run in full."""
    parser.addoption("--seeds", type=int, default=1000, help="runs of the simulated pools (tests/simulation)")
    full = "a million records with faults, and a recording of 329 days at 100,000 times its pace: minutes more. "
    # Where nothing may be left out, as in CI, that may not either.
    required = bool(os.environ.get("SIMLINK_REQUIRE_BROKERS"))
    parser.addoption(
        "--full", action="store_true", default=required, help=f"{full}Always with SIMLINK_REQUIRE_BROKERS=1."
    )


# Blocks of one page share a namespace, so that a page reads as one session. ```python no-run``` is shown only.
pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    excludes=["docs/design/*"],
).pytest()
