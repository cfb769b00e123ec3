"""The same digests in fresh interpreters, on other CPUs, with other versions of Python and of the packages.

Each case is a process of its own that makes everything anew: some four seconds of one core.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache

import pytest

from tests.support import digests, interpreters


def printed(python=sys.executable, **environment):
    """What the program of tests.support.digests prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NPY_"))}
    run = subprocess.run(
        [str(python), "-m", "tests.support.digests"],
        cwd=interpreters.ROOT,
        env=clean | {"PYTHONPATH": str(interpreters.ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert (run.returncode, run.stderr) == (0, "")
    return json.loads(run.stdout)


@cache
def here():
    """Of a fresh interpreter like this one."""
    return printed(PYTHONHASHSEED="1")


def of_the_seed(made):
    return {name: made[name] for name in ("values", "hashed", "bodies")}


def test_another_hash_seed_changes_nothing():
    assert of_the_seed(here()) == of_the_seed(printed(PYTHONHASHSEED="4242"))


def test_another_process_makes_what_this_one_makes():
    made = {name: make().digest(digests.ROWS) for name, make in digests.CATALOG.items()}
    assert made | {"everything": digests.everything().digest(digests.ROWS)} == here()["values"]
    assert {written: digests.body_digests(written) for written in digests.WRITTEN} == here()["bodies"]


@pytest.mark.parametrize("what", ["AVX-512", "all"])
def test_another_cpu_makes_the_same(what):
    # What NumPy compiles several times and chooses from at run time; the rest cannot be told apart from outside.
    features = [f for f in digests.enabled() if what == "all" or f == "X86_V4" or f.startswith("AVX512")]
    if not features:
        pytest.skip(f"there is no {what} to switch off here: NumPy uses {', '.join(digests.enabled()) or 'none'}")
    without = printed(NPY_DISABLE_CPU_FEATURES=" ".join(features))
    assert set(features).isdisjoint(without["features"])
    assert of_the_seed(here()) == of_the_seed(without)


@pytest.mark.parametrize(
    ("version", "packages"),
    [
        pytest.param("3.11", interpreters.oldest, id="3.11, the oldest packages"),
        pytest.param("3.11", interpreters.dependencies, id="3.11"),
        pytest.param("3.12", interpreters.dependencies, id="3.12"),
        pytest.param("3.13", interpreters.dependencies, id="3.13"),
    ],
)
def test_another_python_makes_the_same(version, packages):
    if packages is interpreters.dependencies and version == "{}.{}".format(*sys.version_info):
        pytest.skip(f"this is Python {version}")
    try:
        python = interpreters.environment(version, packages())
    except interpreters.Unavailable as error:
        pytest.skip(str(error))
    made = printed(python)
    assert made["python"].startswith(f"{version}.")
    assert of_the_seed(here()) == of_the_seed(made)
