"""The how-to shows the code of the package, all of it, in its order; and the package is as small as it says."""

import re

from tests.support.spool import PACKAGE

ROOT = PACKAGE.parents[1]
PAGE = (ROOT / "docs" / "how-to" / "write-a-transport.md").read_text()
MODULE = (PACKAGE / "simlink_spool" / "__init__.py").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def lines(text):
    return [line for line in text.splitlines() if line.strip()]


def test_the_page_shows_the_whole_module_in_its_order():
    *driver, harness = blocks("python")
    assert lines("\n".join(driver)) == lines(MODULE)
    assert lines(harness)[0] == "class SpoolHarness(conformance.Harness):"


def test_the_page_shows_the_harness_as_it_is():
    test = (ROOT / "tests" / "conformance" / "test_spool.py").read_text()
    assert blocks("python")[-1] in test
    assert len(test.splitlines()) <= 60


def test_the_page_shows_the_packages_metadata_as_it_is():
    assert blocks("toml") == [(PACKAGE / "pyproject.toml").read_text()]


def test_a_driver_takes_at_most_200_lines():
    assert len(MODULE.splitlines()) <= 200


def test_the_page_counts_the_cases_right():
    from simlink.testing import conformance
    from tests.conformance.test_spool import SpoolHarness

    counted = re.search(r"This driver runs (\d+) of them", PAGE)
    assert counted is not None
    assert int(counted[1]) == len(conformance.cases(SpoolHarness))
