"""``simlink generate SPEC``: records into a file."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from simlink.cli.output import say
from simlink.cli.spec import load_spec
from simlink.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from simlink.generators.source import Chunk, Source

_SUFFIXES = {".ndjson": "ndjson", ".jsonl": "ndjson", ".csv": "csv", ".parquet": "parquet"}


@click.command(help="Write records of SPEC to a file.")
@click.argument("spec")
@click.option("--count", type=click.IntRange(min=0), required=True, help="How many.")
@click.option("--out", required=True, metavar="FILE|-", help="Where to; - is standard output.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["ndjson", "csv", "parquet"]),
    help="By default what the file's suffix says, else ndjson.",
)
@click.option("--seed", type=click.IntRange(min=0), help="What to draw them from; a random one by default, printed.")
def command(spec: str, count: int, out: str, kind: str | None, seed: int | None) -> None:
    """Write them, block by block."""
    from simlink.generators.source import as_source

    source = as_source(load_spec(spec, seed))
    chosen = kind or _SUFFIXES.get(Path(out).suffix, "ndjson")
    if chosen == "parquet" and out == "-":
        raise ConfigError("--format parquet needs a file: it cannot be written to a pipe")
    rows = 0
    with _file(out) as file, _WRITERS[chosen](file) as write:
        for chunk in source.chunks(0, count):
            write(chunk)
            rows += len(chunk)
        if not rows:
            write(_empty(source))
    say(f"{rows:,} records of {source.name}{'' if source.seed is None else f', seed {source.seed}'} → {out}")


def _empty(source: Source) -> Chunk:
    """No rows, but the columns where they are known: a file without records still has its header."""
    from simlink.generators.source import GeneratorSource

    return source.generator.make_block(0)[:0] if isinstance(source, GeneratorSource) else []


@contextmanager
def _file(out: str) -> Iterator[IO[bytes]]:
    if out == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        file = Path(out).open("wb")  # noqa: SIM115 – closed below
    except OSError as error:
        raise ConfigError(f"--out: cannot write {out}: {error.strerror}") from error
    with file:
        yield file


@contextmanager
def _ndjson(file: IO[bytes]) -> Iterator[Callable[[Chunk], None]]:
    from simlink.serializers.json import Json

    json = Json()

    def write(chunk: Chunk) -> None:
        if len(chunk):
            file.write(b"\n".join(json.dumps_many(chunk)) + b"\n")

    yield write


@contextmanager
def _csv(file: IO[bytes]) -> Iterator[Callable[[Chunk], None]]:
    """Columns in the order of the fields; what is nested is JSON in its cell, None an empty cell."""
    from simlink.block import Block
    from simlink.serializers.json import Json

    json = Json()
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    names: list[str] | None = None

    def cell(value: Any) -> Any:
        if isinstance(value, dict | list | tuple):
            return json.dumps(value).decode()
        if isinstance(value, bool):
            return "true" if value else "false"
        return value

    def write(chunk: Chunk) -> None:
        nonlocal names
        rows = chunk.rows() if isinstance(chunk, Block) else chunk
        if names is None:
            if isinstance(chunk, Block):
                names = list(chunk.schema)
            else:
                names = list(rows[0]) if rows and isinstance(rows[0], dict) else []
            if names:
                writer.writerow(names)
        known = set(names)
        for row in rows:
            if not isinstance(row, dict) or not known.issuperset(row):
                raise ConfigError(f"--format csv: every record must have the fields {', '.join(names)}: {row!r:.200}")
            writer.writerow([cell(row.get(name)) for name in names])

    try:
        yield write
    finally:
        # The file is the caller's to close.
        text.detach()


@contextmanager
def _parquet(file: IO[bytes]) -> Iterator[Callable[[Chunk], None]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("--format parquet", "dataframe", package="pyarrow") from error
    from simlink.block import Block
    from simlink.generators.frames import _array, _type

    writer: Any = None

    def table(chunk: Chunk) -> Any:
        if not isinstance(chunk, Block):
            return pa.Table.from_pylist(list(chunk))
        columns = {}
        for name, kind in chunk.schema.fields.items():
            known = _type(pa, kind)
            columns[name] = (
                pa.array(chunk.columns[name].tolist()) if known is None else _array(pa, chunk.columns[name], kind)
            )
        return pa.table(columns)

    def write(chunk: Chunk) -> None:
        nonlocal writer
        part = table(chunk)
        if writer is None:
            writer = pq.ParquetWriter(file, part.schema)
        writer.write_table(part.cast(writer.schema))

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


_WRITERS = {"ndjson": _ndjson, "csv": _csv, "parquet": _parquet}
