"""TCP with TLS keeps every promise that TCP keeps, with certificates asked of both sides."""

from typing import ClassVar

import pytest

from simlink.testing import conformance
from simlink.testing.brokers.ports import free_ports
from tests.support.certificates import Authority


class TcpsHarness(conformance.Harness):
    """One certificate serves both ends of a channel; ``ca`` at the listener makes it ask for the sender's."""

    options: ClassVar[dict[str, str]] = {}

    def url(self):
        return f"tcps://127.0.0.1:{free_ports(1)[0]}/{self.fresh_name()}"

    def unreachable(self):
        return f"tcps://127.0.0.1:{free_ports(1)[0]}/nobody"


@pytest.fixture(scope="module", autouse=True)
def certificates(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("tls"))
    files = authority.issue("127.0.0.1")
    TcpsHarness.options = {"ca": authority.ca, "cert": files.cert, "key": files.key}


@pytest.mark.parametrize("case", conformance.cases(TcpsHarness), ids=str)
def test_conformance(case):
    case.run(TcpsHarness())
