"""``simlink schema SPEC``."""

from __future__ import annotations

import json

import click

from simlink.cli.spec import load_generator


@click.command(help="Print the schema of SPEC's records, for other languages.")
@click.argument("spec")
@click.option("--format", "kind", type=click.Choice(["json", "proto"]), default="json", show_default=True)
def command(spec: str, kind: str) -> None:
    """Print a JSON Schema, or a .proto."""
    generator = load_generator(spec, None)
    if kind == "json":
        click.echo(json.dumps(generator.json_schema(), indent=2, ensure_ascii=False))
        return
    from simlink.serializers.protobuf import Protobuf

    click.echo(Protobuf(generator).proto_text().rstrip())
