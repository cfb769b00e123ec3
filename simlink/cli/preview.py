"""``simlink preview SPEC``."""

from __future__ import annotations

import itertools
from typing import Any

import click

from simlink.cli.spec import load_spec, with_faults
from simlink.errors import ConfigError


@click.command(help="Show the first records of SPEC as a table.")
@click.argument("spec")
@click.option("-n", "rows", type=click.IntRange(min=0), default=5, show_default=True, help="How many records.")
@click.option("--seed", type=click.IntRange(min=0), help="What to draw them from; a random one by default.")
@click.option("--faults", metavar="EXPR", help="Faults on purpose, as 'drop(0.001), late(0.01, by=30)'.")
@click.option("--faulty", is_flag=True, help="Only messages with a fault, of the first million.")
def command(spec: str, rows: int, seed: int | None, faults: str | None, faulty: bool) -> None:
    """Print the table."""
    from simlink.block import Block
    from simlink.generators.faults.faulty import FaultySource
    from simlink.generators.generator import Generator
    from simlink.generators.preview import Preview
    from simlink.generators.source import as_source

    found = with_faults(load_spec(spec, seed), faults)
    if isinstance(found, FaultySource):
        click.echo(str(found.preview(rows, faulty=faulty)))
        return
    if faulty:
        raise ConfigError("--faulty: SPEC has no faults; give some with --faults")
    if isinstance(found, Generator):
        click.echo(str(found.preview(rows)))
        return
    source = as_source(found)
    values: list[Any] = []
    for chunk in source.chunks(0, rows, max(rows, 1)) if rows else ():
        values += chunk.rows() if isinstance(chunk, Block) else chunk
    if all(isinstance(value, dict) for value in values):
        names = list(dict.fromkeys(itertools.chain.from_iterable(values)))
        click.echo(str(Preview(source.name, source.seed, names, values)))
    else:
        for value in values:
            click.echo(repr(value))
