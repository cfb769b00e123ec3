"""Fuzz the decoders:  python -m tests.fuzz [TARGET ...] [--seconds 60] [--keep]

Every target runs in a process of its own, guided by coverage (atheris, which is libFuzzer for Python), for its share of
the seconds. It begins with its seeds and with what ``tests/fuzz/corpus/TARGET`` holds; ``--keep`` adds there what
reached new code, smallest inputs first. An input that breaks a promise is kept in that folder too, and tried first
from then on. Ends with 1 if there was one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
ONE_INPUT = 5
"""Seconds that a single input may take."""
MEMORY = 1024
"""MiB that a target may use."""


def fuzz(name: str, seconds: int, *, keep: bool) -> bool:
    """Run one target; whether it withstood."""
    kept = CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="simlink-fuzz-") as folder:
        fresh, seeds = Path(folder) / "fresh", Path(folder) / "seeds"
        fresh.mkdir()
        seeds.mkdir()
        command = [
            # A process inherits the peak of the memory of the one that started it, and libFuzzer would count that: so
            # it is started by one that is small.
            *("/bin/sh", "-c", '"$@"; exit "$?"', "sh"),
            *(sys.executable, "-m", "tests.fuzz", "--child", name, str(seeds)),
            *(f"-max_total_time={seconds}", f"-timeout={ONE_INPUT}", f"-rss_limit_mb={MEMORY}"),
            *(f"-artifact_prefix={kept}/", "-print_final_stats=1", "-verbosity=1"),
            *(str(fresh), str(kept), str(seeds)),
        ]
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            # libFuzzer ends by itself; the limit is for a target that hangs in a way which it cannot see.
            told, _ = process.communicate(timeout=seconds + 120)
        finally:
            # The target itself, too, and not only who started it.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        runs = [line.split()[-1] for line in told.splitlines() if "number_of_executed_units" in line]
        sound = process.returncode == 0 and bool(runs)
        new = sorted(fresh.iterdir(), key=lambda path: path.stat().st_size)
        print(f"{name:14} {runs[0] if runs else '?':>9} inputs, {len(new)} reached new code", flush=True)
        if not sound:
            print(told[-6000:], flush=True)
        if keep:
            for path in new:
                shutil.copy(path, kept / path.name)
        if not any(kept.iterdir()):
            kept.rmdir()
        return sound


def child(name: str, seeds: Path, arguments: list[str]) -> None:
    """Inside the process of one target: does not return."""
    import atheris

    with atheris.instrument_imports(include=["simlink"]):
        from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    for at, seed in enumerate(target.seeds):
        (seeds / f"seed-{at}").write_bytes(seed)
    atheris.Setup([name, f"-max_len={target.longest}", *arguments], target.run)
    atheris.Fuzz()


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for all of them together (default 60)")
    parser.add_argument("--keep", action="store_true", help="add to the corpus what reached new code")
    args = parser.parse_args()
    names = args.targets or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no such target: {', '.join(unknown)}")
    results = [fuzz(name, max(1, args.seconds // len(names)), keep=args.keep) for name in names]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
