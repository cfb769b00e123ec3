"""What commands there are; ``simlink --help`` is this text, and loads nothing else."""

from __future__ import annotations

__all__ = ["COMMANDS", "overview"]

COMMANDS = {
    "preview": "Show the first records of a SPEC.",
    "catalog": "List the ready-made records and their fields.",
    "generate": "Write records to a file.",
    "plot": "Draw how the fields of a SPEC are distributed.",
    "schema": "Print the JSON Schema or the .proto of a SPEC.",
    "send": "Send records to a URL, and report what became of each.",
    "receive": "Receive from a URL, and verify what came.",
    "demo": "Send between two processes, and prove that all arrived.",
    "brokers": "Start and stop real brokers on this machine.",
    "doctor": "What is installed, and the command that adds the rest.",
}
"""Name → one line. The file of a command has its name."""


def overview() -> str:
    """The help."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {about}" for name, about in COMMANDS.items())
    return f"""\
Usage: simlink COMMAND [OPTIONS]

  Send simulated data between machines, and prove that it arrived.

Commands:
{commands}

Options:
  --version   Show the version.
  -h, --help  Show this; behind a command, what that takes.

  SPEC is a name of the catalog, also with options as 'clickstream(users=100)',
  module:object, replay:FILE, or - (NDJSON from standard input).

  Exit status: 0 done, 1 something was lost or failed, 2 bad usage, 130
  interrupted.
"""
