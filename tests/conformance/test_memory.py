"""The memory transport keeps every promise."""

import pytest

from simlink.testing import conformance


class MemoryHarness(conformance.Harness):
    def url(self):
        return f"memory://{self.fresh_name()}"


@pytest.mark.parametrize("case", conformance.cases(MemoryHarness), ids=str)
def test_conformance(case):
    case.run(MemoryHarness())
