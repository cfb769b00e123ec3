"""Other versions of Python, each in a virtual environment with the core dependencies, made once and kept.

The environments lie in the folder that brokers are kept in (`simlink.testing.brokers.tools.cache_folder`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from simlink.testing.brokers.tools import cache_folder, locked

ROOT = Path(__file__).resolve().parents[2]


class Unavailable(Exception):
    """There is no such interpreter here, or its packages cannot be had; the message says which."""


def dependencies() -> list[str]:
    """What pyproject.toml says that simlink needs."""
    return list(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"])


def oldest() -> list[str]:
    """The oldest versions of it that pyproject.toml allows."""
    return [requirement.replace(">=", "==").partition(",")[0] for requirement in dependencies()]


def _candidates(version: str) -> Iterator[str]:
    yield sys.executable
    found = shutil.which(f"python{version}")
    if found is not None:
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python")))


def find(version: str) -> str:
    """An interpreter of this version ("3.12"): the running one, on the PATH, or one of pyenv's.

    Raises:
        Unavailable: there is none that runs.
    """
    ask = "import sys, ensurepip; print('%d.%d' % sys.version_info[:2])"
    for program in _candidates(version):
        try:
            told = subprocess.run([program, "-c", ask], capture_output=True, text=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError):
            continue  # as pyenv's own stand-in for a version that is not chosen
        if told.stdout.strip() == version:
            return program
    raise Unavailable(f"Python {version} is not here: neither python{version} on the PATH nor one of pyenv's versions")


def environment(version: str, packages: Sequence[str]) -> Path:
    """The Python of a virtual environment that has these packages and what they need; made if it is not there.

    Raises:
        Unavailable: no such interpreter, or the packages cannot be installed.
    """
    program = find(version)
    name = hashlib.blake2b("\n".join(sorted(packages)).encode(), digest_size=6).hexdigest()
    folder = cache_folder() / "interpreters" / f"{version}-{name}"
    python = folder / "bin" / "python"
    with locked(folder.with_name(folder.name + ".lock")):
        if (folder / "complete").is_file() and subprocess.run([python, "-c", ""], check=False).returncode == 0:
            return python
        shutil.rmtree(folder, ignore_errors=True)
        # The programs of this environment must not lead the way to its packages.
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
        try:
            for command in ([program, "-m", "venv", str(folder)], [*install, *packages]):
                subprocess.run(command, env=clean, capture_output=True, text=True, timeout=240, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            told = (getattr(error, "stderr", None) or str(error)).strip().splitlines() or [str(error)]
            raise Unavailable(f"no environment of Python {version} with {', '.join(packages)}: {told[-1]}") from error
        (folder / "complete").touch()
    return python
