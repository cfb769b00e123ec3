"""Makes the example package ``simlink-spool`` importable and its entry point findable, as its installation would.

Nothing is installed: a folder with the metadata that pip would write, made from the package's own pyproject.toml,
goes to the front of ``sys.path``, and ``importlib.metadata`` finds the driver there.
"""

import atexit
import os
import shutil
import sys
import tempfile
import tomllib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "examples" / "simlink-spool"


@cache
def installed() -> list[str]:
    """Add the package to this process; the folders to add to a child's PYTHONPATH."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    site = Path(tempfile.mkdtemp(prefix="simlink-spool-"))
    atexit.register(shutil.rmtree, site, ignore_errors=True)
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    paths = [str(site), str(PACKAGE)]
    sys.path[:0] = paths
    return paths


def environment() -> dict[str, str]:
    """The environment for a child process that speaks ``spool://``."""
    path = [*installed(), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
