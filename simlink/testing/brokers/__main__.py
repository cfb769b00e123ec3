"""``python -m simlink.testing.brokers``: say which brokers can be had here, and download what the first start would."""

from __future__ import annotations

import sys

from simlink.testing.brokers import BROKERS, BrokerUnavailable


def main() -> int:
    """Print one line a broker; returns 1 if one cannot be had."""
    missing = 0
    for name, broker in BROKERS.items():
        try:
            broker.fetch()
            line = f"yes {broker.source()}"
        except BrokerUnavailable as error:
            missing += 1
            line = f"no  {error}"
        sys.stdout.write(f"{name:<8} {line}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
