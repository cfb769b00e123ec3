"""The command line: ``simlink COMMAND``. Each command is a file of this folder, loaded when it is called."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(args: list[str] | None = None) -> int:
    """Run a command; the exit status: 0 done, 1 something was lost or failed, 2 bad usage, 130 interrupted."""
    arguments = sys.argv[1:] if args is None else args
    if arguments in ([], ["-h"], ["--help"]):
        # The first thing that anybody types needs no command line library.
        from simlink.cli.overview import overview

        sys.stdout.write(overview())
        return 0
    if arguments == ["--version"]:
        from simlink import __version__

        sys.stdout.write(f"simlink {__version__}\n")
        return 0
    try:
        try:
            import click  # noqa: F401 – to see whether it is there
        except ImportError:
            sys.stderr.write("simlink: its commands need click: pip install 'simlink[cli]'\n")
            return 2
        from simlink.cli.app import invoke
    except KeyboardInterrupt:
        # While its own libraries load nothing has begun yet.
        if "--json" in arguments:
            sys.stdout.write('{"error": "interrupted"}\n')
        return 130

    return invoke(arguments)
