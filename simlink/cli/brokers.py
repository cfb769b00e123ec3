"""``simlink brokers up | down | status``."""

from __future__ import annotations

import click


# Without a command it says so in one line, as everything that is wrong; click's default is its whole help.
@click.group(
    help="Real brokers on this machine, without containers; they stay until they are told to end.",
    no_args_is_help=False,
)
def command() -> None:
    """The group."""


_names = click.argument("names", nargs=-1, metavar="[kafka] [rabbitmq] [redis]")


@command.command(help="Start brokers, all of them by default, and print their URLs.")
@_names
def up(names: tuple[str, ...]) -> None:
    """Start."""
    from simlink.testing.brokers import detached

    for broker in detached.up(names):
        click.echo(f"{broker.name:<9}{broker.url}  (tests use it with {broker.variable}={broker.url})")


@command.command(help="Stop brokers, all of them by default, and remove their data.")
@_names
def down(names: tuple[str, ...]) -> None:
    """Stop."""
    from simlink.testing.brokers import detached

    stopped = detached.down(names)
    click.echo(f"stopped {', '.join(stopped)}" if stopped else "none was up")


@command.command(help="What is up.")
@_names
def status(names: tuple[str, ...]) -> None:
    """Tell."""
    from simlink.testing.brokers import detached

    for broker in detached.status(names):
        click.echo(f"{broker.name:<9}{broker.state:<9}{broker.url or ''}".rstrip())
