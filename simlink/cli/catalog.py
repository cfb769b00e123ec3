"""``simlink catalog``."""

from __future__ import annotations

import datetime as dt
import inspect
from typing import Any

import click


@click.command(help="List the ready-made records and their fields.")
def command() -> None:
    """Print a name, what it is, and its fields, for each."""
    from simlink.generators import catalog
    from simlink.generators.describe import flat_fields

    for name in catalog.names():
        make = catalog.get(name)
        about = (make.__doc__ or "").strip().partition("\n")[0]
        schema = make(seed=0).schema
        click.echo(f"{name}: {about}" if about else name)
        options = [p for p in inspect.signature(make).parameters.values() if p.name != "seed"]
        if options:
            click.echo(f"  options: {', '.join(f'{p.name}={_shown(p.default)}' for p in options)}")
        shown = [leaf for field, kind in schema.fields.items() for leaf in flat_fields(field, kind)]
        width = max(len(field) for field, _ in shown)
        for field, kind in shown:
            click.echo(f"  {field:<{width}}  {kind.kind.value}{' or null' if kind.optional else ''}")


def _shown(default: Any) -> str:
    """A default as it can be typed."""
    return repr(default.isoformat()) if isinstance(default, dt.date) else repr(default)
