"""gRPC keeps every promise."""

import pytest

from simlink.testing import conformance
from simlink.testing.brokers.ports import free_ports

pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'simlink[grpc]'")


class GrpcHarness(conformance.Harness):
    def url(self):
        return f"grpc://127.0.0.1:{free_ports(1)[0]}/{self.fresh_name()}"

    def unreachable(self):
        return f"grpc://127.0.0.1:{free_ports(1)[0]}/nobody"


@pytest.mark.parametrize("case", conformance.cases(GrpcHarness), ids=str)
def test_conformance(case):
    case.run(GrpcHarness())
