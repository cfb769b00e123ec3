"""``python -m tests.simulation --seeds 1000 [--first 0] [--verbose]``: runs in virtual time, one a seed."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.scene import Schedule, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="show each run's transitions")
    given = parser.parse_args()
    begun = time.monotonic()
    bad = []
    sent = repeats = 0
    for seed in range(given.first, given.first + given.seeds):
        schedule = Schedule.of(seed)
        books = run(schedule)
        sent += books.sent
        repeats += len(books.handed) - len({hand.identity for hand in books.handed})
        if given.verbose:
            print(schedule)
            for transition in books.transitions:
                print(f"  {transition.at - 1000:.3f} {transition}")
            print(f"  trace {books.trace}")
        if books.problems:
            bad.append(seed)
            print(f"seed {seed}: {schedule}")
            for problem in books.problems[:5]:
                print(f"  {problem}")
    print(
        f"{given.seeds} runs, {sent:,} messages, {repeats:,} repeats, {len(bad)} bad: {bad[:50]},"
        f" {time.monotonic() - begun:.1f} s"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
