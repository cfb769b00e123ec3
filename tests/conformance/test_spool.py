"""A third party's transport, found by its entry point, keeps the promises that its capabilities make."""

import shutil
import tempfile

import pytest

from simlink.testing import conformance
from tests.support import spool

spool.installed()


class SpoolHarness(conformance.Harness):
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="simlink-spool-test-")

    def url(self):
        return f"spool://{self.folder}/{self.fresh_name()}"

    def unreachable(self):
        return "spool:///proc/no-folder-can-be-made-here/orders"

    def close(self):
        shutil.rmtree(self.folder)


@pytest.mark.parametrize("case", conformance.cases(SpoolHarness), ids=str)
def test_conformance(case):
    case.run(SpoolHarness())
