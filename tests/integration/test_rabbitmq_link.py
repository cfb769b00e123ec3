"""The link to RabbitMQ where nobody answers: whatever it was in the middle of, nothing of it stays open."""

from __future__ import annotations

import gc
import socket
import threading

import pytest

from simlink.channels.driver import Mode
from simlink.channels.rabbitmq import RabbitMQDriver
from simlink.channels.url import parse_url
from simlink.errors import ConnectError

PATIENCE = 20.0
HEADER = b"AMQP\x00\x00\x09\x01"


@pytest.fixture
def no_garbage_collection():
    """What is left to the garbage collector stays open, and is seen."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def heard(server):
    """What the next client says until it closes."""
    peer, _ = server.accept()
    with peer:
        peer.settimeout(PATIENCE)
        said = b""
        while data := peer.recv(4096):
            said += data
    return said


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
def test_a_broker_that_never_answers_is_left(scheme, no_garbage_collection):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        url = f"{scheme}://ann:x@127.0.0.1:{server.getsockname()[1]}/orders"
        end = RabbitMQDriver(parse_url(url), mode=Mode.QUEUE).sender()
        for _ in range(3):
            with pytest.raises(ConnectError) as caught:
                end.open(0.2)
            assert caught.value.retryable is True
            # Read here, and not beside: the connection was taken by the kernel.
            said = heard(server)
            # Either it stood in the login, or in the handshake of TLS (22 is its first byte).
            assert said[:8] == HEADER if scheme == "amqp" else said[0] == 22
    end.close(1.0)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("simlink-amqp")] == []
