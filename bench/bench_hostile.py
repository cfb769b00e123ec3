"""What does a waiting send take while 1,500 slow peers hold on to the receiver?

    python bench/bench_hostile.py [--each 500] [--json]

For tcp, http and grpc: a receiver in a process of its own, 500 peers each that drip their head, drip a body, and say
nothing, in another, and a client here that sends one small message after the other, each waiting for its confirmation:
first alone, then from when all the peers are connected until the last one was closed. Allowances are 2 s.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.bystander import GoodClient, Victim, crowd  # the crowd of the tests, so that both mean the same

ALLOWANCE = 2.0
SHORT = {
    "tcp": {"hello_timeout": ALLOWANCE, "frame_timeout": ALLOWANCE},
    "http": {"header_timeout": ALLOWANCE, "body_timeout": ALLOWANCE},
    "grpc": {"hello_timeout": ALLOWANCE, "frame_timeout": ALLOWANCE, "heartbeat": 0.5, "dead": ALLOWANCE},
}


def measure(scheme: str, each: int) -> dict[str, Any]:
    with Victim(scheme, **SHORT[scheme], max_connections=4 * each) as victim:
        with GoodClient(victim.url) as alone:
            alone.until(500)
        with GoodClient(victim.url) as beside, crowd(scheme, victim.port, each, ALLOWANCE + 20.0) as became:
            beside.waits.clear()
            closed = became()
        if beside.failure is not None:
            raise beside.failure
        return {
            "alone": {"p50": alone.p(0.5), "p99": alone.p(0.99)},
            "beside": {"p50": beside.p(0.5), "p99": beside.p(0.99), "sends": len(beside.waits)},
            "closed": {kind: count for kind, (count, _) in closed.items()},
            "slowest": max(slowest for _, slowest in closed.values()),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=500, help="peers of each of the three kinds")
    parser.add_argument("--json", action="store_true", help="one line of JSON, for all.py")
    options = parser.parse_args()
    found = {scheme: measure(scheme, options.each) for scheme in SHORT}
    if options.json:
        print(json.dumps({"each": options.each, "transports": found}))
        return
    for scheme, row in found.items():
        a, b = row["alone"], row["beside"]
        for when, of in (("alone", a), ("beside", b)):
            print(f"{scheme:5} {when:6} p50 {of['p50']:7.2f} ms  p99 {of['p99']:7.2f} ms")
        closed = sum(row["closed"].values())
        print(f"      {b['sends']} sends; {closed} of {3 * options.each} closed, slowest {row['slowest']:.1f} s")


if __name__ == "__main__":
    main()
