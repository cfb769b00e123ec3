"""Listeners bind the address that the URL names, and nothing else: loopback unless another one is written there."""

from __future__ import annotations

import os

import psutil
import pytest

pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'simlink[grpc]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'simlink[http]'")

from simlink.channels.channel import queue  # behind the skip
from simlink.errors import InvalidURL


def listening(port):
    """The addresses of this process that are listened on at a port."""
    connections = psutil.Process(os.getpid()).net_connections("tcp")
    return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN and c.laddr.port == port}


@pytest.mark.parametrize("scheme", ["tcp", "http", "grpc"])
@pytest.mark.parametrize(
    ("host", "bound"),
    [("127.0.0.1", {"127.0.0.1"}), ("localhost", {"127.0.0.1"}), ("0.0.0.0", {"0.0.0.0"})],
)
def test_what_is_bound_is_what_is_written(scheme, host, bound):
    with queue(f"{scheme}://{host}:0/orders") as channel, channel.receiver() as rx:
        port = int(rx.url.partition("://")[2].partition("/")[0].rpartition(":")[2])
        found = {ip.removeprefix("::ffff:") for ip in listening(port)}
        # gRPC takes "all of IPv4" for all of IPv6 as well.
        allowed = {("grpc", "0.0.0.0"): {"0.0.0.0", "::"}}.get((scheme, host), bound)
        assert found <= allowed | ({"::1"} if host == "localhost" else set())
        assert len(found) == 1


@pytest.mark.parametrize("scheme", ["tcp", "http", "grpc"])
@pytest.mark.parametrize("authority", ["", ":0"])
def test_no_address_is_no_invitation_to_all(scheme, authority):
    with pytest.raises(InvalidURL):
        queue(f"{scheme}://{authority}/orders")
