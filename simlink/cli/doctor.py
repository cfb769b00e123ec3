"""``simlink doctor``: what is here, and the command that adds the rest."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from simlink import __version__

_WITH = {
    "faker": ("faker",),
    "kafka": ("kafka-python",),
    "confluent": ("confluent-kafka",),
    "grpc": ("grpcio", "grpcio-health-checking", "grpcio-reflection"),
    "http": ("uvicorn", "httptools"),
    "rabbitmq": ("pika",),
    "redis": ("redis", "hiredis"),
    "cli": ("click", "rich"),
    "dataframe": ("pandas", "pyarrow"),
}
"""Extra → the packages that it brings, for an installation that does not say (a bare source tree)."""


@click.command(help="What is installed, which brokers can be started, and the command that adds what is missing.")
def command() -> None:
    """Print the three lists."""
    from simlink.channels.registry import known_schemes
    from simlink.testing.brokers import available

    click.echo(f"simlink {__version__}, Python {platform.python_version()}, NumPy {metadata.version('numpy')}")
    click.echo(f"transports: {', '.join(known_schemes())}")
    click.echo("extras:")
    for extra, packages in _extras().items():
        versions = {package: _version(package) for package in packages}
        missing = [package for package, version in versions.items() if version is None]
        here = ", ".join(f"{package} {version}" for package, version in versions.items() if version is not None)
        if missing:
            click.echo(f"  {extra:<11}missing {', '.join(missing)}: pip install 'simlink[{extra}]'")
        else:
            click.echo(f"  {extra:<11}{here}")
    click.echo("brokers:")
    for name, (there, where) in available().items():
        click.echo(f"  {name:<11}{where}" if there else f"  {name:<11}missing: {where}")


def _extras() -> dict[str, tuple[str, ...]]:
    """What this installation says of its extras."""
    import re

    try:
        told = metadata.requires("simlink") or []
    except metadata.PackageNotFoundError:
        told = []
    found: dict[str, list[str]] = {}
    for requirement in told:
        match = re.match(r"([A-Za-z0-9._-]+).*;\s*extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        if match and match.group(1).lower() != "simlink" and match.group(2) != "all":
            found.setdefault(match.group(2), []).append(match.group(1))
    return {extra: tuple(packages) for extra, packages in found.items()} or _WITH


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
