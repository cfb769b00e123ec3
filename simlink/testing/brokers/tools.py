"""Build tools on this machine, and the cache folder that downloads go to."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from simlink.testing.brokers.base import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cache_folder", "copy_dependencies", "find_java", "find_maven", "java_version", "locked"]


def cache_folder() -> Path:
    """Where downloads are kept: ``$XDG_CACHE_HOME/simlink``, by default ``~/.cache/simlink``. Not created."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "simlink"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes on the file ``path``, which is created; a dead holder's lock is free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def java_version(java: str) -> int | None:
    """The major version of a ``java`` program, or None if it does not tell."""
    # A JDK says it in a file, which is read faster than a virtual machine starts.
    try:
        text = (Path(java).resolve().parent.parent / "release").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    match = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', text, re.MULTILINE)
    if match is None:
        try:
            told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        match = re.search(r'version "(?:1\.)?(\d+)', told.stderr + told.stdout)
    return int(match.group(1)) if match else None


def find_java(minimum: int = 17) -> str:
    """The ``java`` of JAVA_HOME or of the PATH. Raises BrokerUnavailable if there is none from ``minimum`` on."""
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    on_path = shutil.which("java")
    if on_path:
        candidates.append(on_path)
    seen = []
    for java in candidates:
        version = java_version(java) if os.access(java, os.X_OK) else None
        if version is not None and version >= minimum:
            return java
        seen.append(f"{java} is version {version}" if version else f"{java} does not run")
    found = f" ({', '.join(seen)})" if seen else ""
    raise BrokerUnavailable(f"Java {minimum} or newer is needed{found}: apt-get install openjdk-17-jre-headless")


def find_maven() -> str:
    """The ``mvn`` program. Raises BrokerUnavailable if it is not on the PATH."""
    found = shutil.which("mvn")
    if found is None:
        raise BrokerUnavailable("Maven is needed: apt-get install maven")
    return found


def copy_dependencies(pom: Path, target: Path, *, timeout: float = 600.0) -> None:
    """Download what ``pom`` depends on into the folder ``target``, which appears complete or not at all.

    Safe to be called by several processes at once; nothing happens if the folder is there.

    Args:
        pom: a Maven project file.
        target: the folder for the jars.
        timeout: seconds for the download. Default 600.

    Raises:
        BrokerUnavailable: Maven is missing, or could not download.
    """
    if target.is_dir():
        return
    with locked(target.with_name(target.name + ".lock")):
        if target.is_dir():
            return
        part = target.with_name(f"{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        # Maven writes next to the project file, which may belong to another user.
        shutil.copyfile(pom, part / "pom.xml")
        command = [
            *(find_maven(), "-B", "-q", "-ntp", "-f", str(part / "pom.xml"), "dependency:copy-dependencies"),
            *("-DincludeScope=runtime", f"-DoutputDirectory={part}"),
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout, cwd=part)
        except subprocess.TimeoutExpired as error:
            raise BrokerUnavailable(f"Maven could not download {target.name} within {timeout:g} s") from error
        except subprocess.CalledProcessError as error:
            lines = [line for line in (error.stdout + error.stderr).splitlines() if line.strip()]
            shutil.rmtree(part, ignore_errors=True)
            reason = lines[0] if lines else f"status {error.returncode}"
            raise BrokerUnavailable(f"Maven could not download {target.name}: {reason}") from error
        part.rename(target)
