"""``python -m tests.faults``: run the table of transports × faults, print it, and keep it as a page.

python -m tests.faults [--transport NAME]… [--fault NAME]… [--write docs/reliability.md]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.faults.faults import FAULTS
from tests.faults.page import render, write
from tests.faults.runner import Runner, cells
from tests.faults.transports import TRANSPORTS


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--transport", action="append", help="only rows whose name has this in it")
    parser.add_argument("--fault", action="append", help="only columns whose name has this in it")
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep the table in this page")
    args = parser.parse_args()
    rows = [t for t in TRANSPORTS if not args.transport or any(part in t.name for part in args.transport)]
    columns = [f for f in FAULTS if not args.fault or any(part in f.name for part in args.fault)]
    if args.write and (args.transport or args.fault):
        parser.error("a page has the whole table: --write goes without --transport and --fault")
    began = time.monotonic()
    runner = Runner(chosen := cells(rows, columns))
    try:
        for transport, fault in chosen:
            result = runner.result(transport, fault)
            state = "failed" if result.error else "not run" if result.unavailable else "ok"
            told = result.error or result.unavailable or f"{result.account} {', '.join(result.notes)}"
            print(f"{transport.name:18} {fault.name:24} {state:8} {result.seconds:6.1f} s  {told}", flush=True)
        results = runner.results()
    finally:
        runner.close()
    seconds = time.monotonic() - began
    print(render(results, rows, columns, seconds))
    bad = [result for result in results if result.error or result.unavailable]
    if args.write and not bad:
        write(args.write, results, seconds)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
