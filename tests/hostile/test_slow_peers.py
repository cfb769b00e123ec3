"""Peers by the hundred that drip, or say nothing: each is closed in time, and a good client goes on."""

from __future__ import annotations

import pytest

pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'simlink[grpc]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'simlink[http]'")

from tests.support.bystander import GoodClient, Victim, crowd  # behind the skip

EACH = 500
ALLOWANCE = 2.0
LATE = 10.0
OPTIONS = {
    "tcp": {"hello_timeout": ALLOWANCE, "frame_timeout": ALLOWANCE, "max_connections": 2000},
    "http": {"header_timeout": ALLOWANCE, "body_timeout": ALLOWANCE, "max_connections": 2000},
    "grpc": {
        "hello_timeout": ALLOWANCE,
        "frame_timeout": ALLOWANCE,
        "heartbeat": 0.5,
        "dead": ALLOWANCE,
        "max_connections": 2000,
    },
}


@pytest.mark.parametrize("scheme", ["tcp", "http", "grpc"])
def test_each_slow_peer_is_closed_in_time_and_a_good_client_goes_on(scheme):
    with Victim(scheme, **OPTIONS[scheme]) as victim, GoodClient(victim.url) as good:
        assert good.failure is None
        with crowd(scheme, victim.port, EACH, ALLOWANCE + LATE) as became:
            closed = became()
        before = len(good.waits)
        grown = victim.grown()
    print(f"\n{scheme}: {closed}, +{grown:.0f} MiB, {before} sends, p50 {good.p(0.5):.1f} p99 {good.p(0.99):.1f} ms")
    assert good.failure is None
    assert {kind: count for kind, (count, _) in closed.items()} == {"head": EACH, "body": EACH, "silent": EACH}
    assert before > 0
    # The bench holds it to 100 ms on a machine that does nothing else.
    assert good.p(0.99) < 2_000
    assert grown < 300
