"""Where the recorded files are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def recorded(name: str) -> Path:
    """A recorded file. Where it is not there the test skips; in CI, which must have it, it fails."""
    named = os.environ.get("SIMLINK_DATA")
    file = (Path(named) if named else REPOSITORY.parent / "shared" / "data") / name
    if not file.is_file():
        message = f"{name} is not there: SIMLINK_DATA names the folder that has it"
        if os.environ.get("CI") and os.environ.get("SIMLINK_REQUIRE_BROKERS", "0") not in {"", "0"}:
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    return file
