"""The group of commands, and what becomes of their errors."""

from __future__ import annotations

import difflib
import os
import sys
from importlib import import_module

import click

from simlink import __version__
from simlink.errors import ConfigError, MissingExtra, SimlinkError

__all__ = ["invoke"]

_COMMANDS = {
    "preview": "Show the first records of a SPEC.",
    "catalog": "List the ready-made records and their fields.",
    "generate": "Write records to a file.",
    "send": "Send records to a URL, and report what became of each.",
    "receive": "Receive from a URL, and verify what came.",
    "demo": "Send between two processes, and prove that all arrived.",
    "brokers": "Start and stop real brokers on this machine.",
    "doctor": "What is installed, and the command that adds the rest.",
}
"""Name → one line, so that ``--help`` loads no command. The file of a command has its name."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"simlink.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-"):
            close = difflib.get_close_matches(name, _COMMANDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(_COMMANDS)}"
            raise click.UsageError(f"no command {name!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


_EPILOG = """\
SPEC is a name of the catalog, module:object, replay:FILE, or - (NDJSON from standard input).

Exit status: 0 done, 1 something was lost or failed, 2 bad usage, 130 interrupted.
"""

group = _Lazy(
    name="simlink",
    help="Send simulated data between machines, and prove that it arrived.",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=lambda ctx, _param, value: _version(ctx) if value else None,
            help="Show the version.",
        )
    ],
)


def _version(ctx: click.Context) -> None:
    click.echo(f"simlink {__version__}")
    ctx.exit()


def invoke(args: list[str] | None = None) -> int:
    """Run a command line; the exit status. Whatever goes wrong is one line on stderr."""
    arguments = sys.argv[1:] if args is None else args
    try:
        result = group.main(arguments, prog_name="simlink", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        where = getattr(error, "ctx", None)
        hint = f" (see {where.command_path} --help)" if where is not None else ""
        _complain(error, f"{error.format_message()}{hint}")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (SimlinkError, OSError) as error:
        _complain(error)
        if "--json" in arguments and not getattr(error, "reported", False):
            from simlink.cli.output import emit

            emit({"error": str(error)})
        return 2 if isinstance(error, ConfigError | MissingExtra) else 1
    except Exception as error:
        if os.environ.get("SIMLINK_DEBUG"):
            raise
        _complain(error, f"{type(error).__name__}: {error} (SIMLINK_DEBUG=1 shows where)")
        if "--json" in arguments and not getattr(error, "reported", False):
            from simlink.cli.output import emit

            emit({"error": f"{type(error).__name__}: {error}"})
        return 1
    return int(result or 0)


def _complain(error: BaseException, message: str | None = None) -> None:
    # One line, whatever the error says.
    text = " ".join((message or str(error) or type(error).__name__).split())
    sys.stderr.write(f"simlink: {text}\n")
