"""``simlink plot SPEC``."""

from __future__ import annotations

import click

from simlink.cli.output import say
from simlink.cli.spec import load_generator


@click.command(help="Draw how the fields of SPEC are distributed.")
@click.argument("spec")
@click.option("--out", required=True, metavar="FILE", help="A .png, .svg, .pdf or .html.")
@click.option("--count", type=click.IntRange(min=1), default=10_000, show_default=True, help="Of how many records.")
@click.option("--arrivals", metavar="EXPR", help="Draw this schedule as well, as 'poisson(200)'.")
@click.option("--seed", type=click.IntRange(min=0), help="What to draw them from; a random one by default, printed.")
def command(spec: str, out: str, count: int, arrivals: str | None, seed: int | None) -> None:
    """Write the picture."""
    from simlink.cli.expression import parse_arrivals

    generator = load_generator(spec, seed)
    schedule = None if arrivals is None else parse_arrivals(arrivals)
    generator.plot(count, arrivals=schedule).save(out)
    say(f"{generator.name}, seed {generator.seed} → {out}")
