"""The group of commands, and what becomes of their errors."""

from __future__ import annotations

import difflib
import io
import os
import signal
import sys
import threading
from contextlib import suppress
from importlib import import_module

import click

from simlink.cli.output import emit, say
from simlink.cli.overview import COMMANDS
from simlink.errors import ConfigError, MissingExtra, SimlinkError

__all__ = ["invoke"]


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"simlink.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            close = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command {name!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)


group = _Lazy(
    name="simlink",
    help="Send simulated data between machines, and prove that it arrived.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def invoke(arguments: list[str]) -> int:
    """Run a command line; the exit status. Whatever goes wrong is one line on stderr."""
    # SIGTERM is Ctrl-C from the first moment on, also before a run drains by itself.
    free = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if free:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _invoke(arguments)
    finally:
        _let_go_of_output()
        if free:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _invoke(arguments: list[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without the letters of a record shows a '?' for each, and no error.
        sys.stdout.reconfigure(errors="replace")
    try:
        result = group.main(arguments, prog_name="simlink", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return int(result or 0)
    except click.ClickException as error:
        where = getattr(error, "ctx", None)
        hint = f" (see {where.command_path} --help)" if where is not None else ""
        message = error.format_message()
        _complain(f"{message}{hint}")
        _emit_error(message, arguments)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        # A command that has something to report by then has done so, and given its status.
        _complain("interrupted")
        _emit_error("interrupted", arguments)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone, and wants to hear nothing.
        return 1
    except Exception as error:
        if isinstance(error, SimlinkError | OSError):
            message = str(error) or type(error).__name__
        elif os.environ.get("SIMLINK_DEBUG"):
            raise
        else:
            message = f"{type(error).__name__}: {error} (SIMLINK_DEBUG=1 shows where)"
        _complain(message)
        if not getattr(error, "reported", False):
            _emit_error(message, arguments)
        return 2 if isinstance(error, ConfigError | MissingExtra) else 1


def _let_go_of_output() -> None:
    """What standard output and error could not take is lost: Python would try again as it ends, complain, and end with
    120."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _emit_error(message: str, arguments: list[str]) -> None:
    if "--json" in arguments:
        # What is wrong may be standard output itself.
        with suppress(OSError):
            emit({"error": message})


def _complain(message: str) -> None:
    # One line, whatever the error says; and where an expression is wrong, the expression with a caret under it.
    lines = message.splitlines()
    pointer = lines[-2:] if lines and lines[-1].strip() == "^" else []
    line = " ".join(" ".join(lines[: len(lines) - len(pointer)]).split())
    say("\n".join([f"simlink: {line}", *pointer]))
