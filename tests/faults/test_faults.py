"""Transports × faults, over real processes: each cell is a test. `make reliability` keeps the table."""

from __future__ import annotations

import os

import pytest

from tests.faults.runner import cells

REQUIRED = os.environ.get("SIMLINK_REQUIRE_BROKERS", "0") not in {"", "0"}


# All cells run from the first one's beginning on; a test waits for its own, however long the ones before it took.
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "cell", [pytest.param(cell, id=f"{cell[1].name}-{cell[0].name}".replace(" ", "_")) for cell in cells()]
)
def test_what_is_promised_is_kept(cell, fault_results):
    result = fault_results(*cell)
    if result.unavailable and not REQUIRED:
        pytest.skip(result.unavailable)
    assert not result.unavailable, result.unavailable
    assert not result.error, result.error
