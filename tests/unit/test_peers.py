"""Who a client without a link is."""

from __future__ import annotations

import pytest

pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'simlink[grpc]'")

from simlink.channels.grpc.guard import caller  # behind the skip
from simlink.channels.peers import plain_scope


def test_a_certificate_counts_alone():
    assert {plain_scope(b"c" * 16, token, host) for token in (b"", b"t") for host in ("", "h")} == {b"c" * 16}


def test_without_one_every_difference_counts():
    scopes = [plain_scope(b"", token, host) for token in (b"", b"t", b"th") for host in ("", "h", "th")]
    assert len(set(scopes)) == 9
    assert {len(scope) for scope in scopes} == {16}
    assert plain_scope(b"", b"t", "h") == plain_scope(b"", b"t", "h")


class Context:
    def __init__(self, peer, *metadata):
        self._peer = peer
        self._metadata = metadata

    def auth_context(self):
        return {}

    def invocation_metadata(self):
        return self._metadata

    def peer(self):
        return self._peer


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ipv4:10.0.0.1:50000", "ipv4:10.0.0.1:50001", True),
        ("ipv4:10.0.0.1:50000", "ipv4:10.0.0.2:50000", False),
        ("ipv6:%5B::1%5D:50000", "ipv6:%5B::1%5D:50001", True),
        ("ipv6:%5B::1%5D:50000", "ipv6:%5B::2%5D:50000", False),
    ],
)
def test_a_caller_is_its_address_without_the_port(one, other, same):
    assert (caller(Context(one)) == caller(Context(other))) is same


def test_a_caller_is_its_credentials_too():
    peer = "ipv4:10.0.0.1:50000"
    tokens = [(("authorization", token),) for token in ("Bearer a", "Bearer b")]
    assert len({caller(Context(peer, *metadata)) for metadata in ((), *tokens)}) == 3
