"""How long do `import simlink` and `simlink --help` take? Beside `import numpy`, in fresh interpreters.

python bench/bench_import.py [--repeats 11] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

REACH = {"import simlink": 60.0, "simlink --help": 250.0}


def commands() -> dict[str, list[str]]:
    script = str(Path(sys.executable).with_name("simlink"))
    return {
        "python, nothing": [sys.executable, "-c", "pass"],
        "import simlink": [sys.executable, "-c", "import simlink"],
        "import numpy": [sys.executable, "-c", "import numpy"],
        "simlink --help": [script, "--help"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    took: dict[str, list[float]] = {name: [] for name in commands()}
    for _ in range(options.repeats):
        for name, command in commands().items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            took[name].append((time.perf_counter() - started) * 1_000)
    median = {name: statistics.median(values) for name, values in took.items()}
    # An import's own time is what it adds to an interpreter that does nothing; the command is timed as a user waits.
    for name in ("import simlink", "import numpy"):
        median[name] -= median["python, nothing"]
    if options.json:
        print(json.dumps({"ms": median, "reach": REACH}))
        return
    for name, ms in median.items():
        print(f"{name:20} {ms:7.1f} ms" + (f"   reach {REACH[name]:.0f}" if name in REACH else ""))


if __name__ == "__main__":
    main()
