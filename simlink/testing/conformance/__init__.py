"""The conformance suite: what every transport must do, as plain functions over a `Harness`.

A transport's own test file is only a harness::

    from simlink.testing import conformance

    class SpoolHarness(conformance.Harness):
        def url(self) -> str:
            return f"spool://{self.folder}/{self.fresh_name()}"

    @pytest.mark.parametrize("case", conformance.cases(SpoolHarness), ids=str)
    def test_conformance(case):
        case.run(SpoolHarness())

Which cases apply follows from the driver's Capabilities and from nothing else: a driver cannot leave out a case, it can
only promise less. Nothing in here imports a test framework; a broken promise is an AssertionError.
"""

from __future__ import annotations

from simlink.testing.conformance import lifecycle, queues, settling, topics
from simlink.testing.conformance.harness import Case, Harness, all_cases

__all__ = ["Case", "Harness", "cases"]

_ROOMS = (queues, topics, settling, lifecycle)


def cases(harness: type[Harness], *, broker: bool = False) -> list[Case]:
    """The cases that the capabilities of the harness's transport call for, in order.

    ``broker`` includes those that need one to stop and start, where the harness gets it only when a test runs.
    """
    probe = harness()
    try:
        return [case for case in all_cases() if case.applies(probe, broker=broker)]
    finally:
        probe.close()
