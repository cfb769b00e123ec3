"""The cells that were chosen run beside each other, and the table is printed at the end."""

from __future__ import annotations

import time

import pytest

from tests.faults.faults import FAULTS
from tests.faults.page import render, seconds_of
from tests.faults.runner import Runner
from tests.faults.transports import TRANSPORTS

_runs = pytest.StashKey()


@pytest.fixture(scope="session")
def fault_results(request):
    """Gives the result of a cell. The first call starts all that this session has chosen."""
    chosen = [item.callspec.params["cell"] for item in request.session.items if "fault_results" in item.fixturenames]
    began = time.monotonic()
    runner = Runner(chosen)
    try:
        yield runner.result
    finally:
        results = runner.results()
        runner.close()
        request.config.stash[_runs] = (results, time.monotonic() - began)


def pytest_terminal_summary(terminalreporter, config):
    """The table."""
    found = config.stash.get(_runs, None)
    if found is None:
        return
    results, seconds = found
    rows = [row for row in TRANSPORTS if any(result.transport == row.name for result in results)]
    columns = [column for column in FAULTS if any(result.fault == column.name for result in results)]
    terminalreporter.section("faults: repeats seen / allowed (X + H)")
    terminalreporter.write_line(render(results, rows, columns, seconds))
    terminalreporter.write_line(seconds_of(results, rows, columns))
