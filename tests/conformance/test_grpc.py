"""gRPC keeps every promise."""

import socket

import pytest

from simlink.testing import conformance

pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'simlink[grpc]'")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class GrpcHarness(conformance.Harness):
    def url(self):
        return f"grpc://127.0.0.1:{free_port()}/{self.fresh_name()}"

    def unreachable(self):
        return f"grpc://127.0.0.1:{free_port()}/nobody"


@pytest.mark.parametrize("case", conformance.cases(GrpcHarness), ids=str)
def test_conformance(case):
    case.run(GrpcHarness())
