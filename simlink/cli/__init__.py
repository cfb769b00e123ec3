"""The command line: ``simlink COMMAND``. Each command is a file of this folder, loaded when it is called."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(args: list[str] | None = None) -> int:
    """Run a command; the exit status: 0 done, 1 something was lost or failed, 2 bad usage, 130 interrupted."""
    try:
        import click  # noqa: F401 – to see whether it is there
    except ImportError:
        sys.stderr.write("simlink's command line needs click: pip install 'simlink[cli]'\n")
        return 2
    from simlink.cli.app import invoke

    return invoke(args)
