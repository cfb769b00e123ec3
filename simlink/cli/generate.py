"""``simlink generate SPEC``: records into a file."""

from __future__ import annotations

import csv
import io
import sys
from collections import deque
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
_TASK_ROWS = 16 * 4096


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
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that make them.")
def command(spec: str, count: int, out: str, kind: str | None, seed: int | None, workers: int) -> None:
    """Write them, block by block."""
    from simlink.generators.source import GeneratorSource, as_source

    source = as_source(load_spec(spec, seed))
    kind = kind or _SUFFIXES.get(Path(out).suffix, "ndjson")
    if kind == "parquet" and out == "-":
        raise ConfigError("--format parquet needs a file: it cannot be written to a pipe")
    if workers > 1 and not isinstance(source, GeneratorSource):
        raise ConfigError(f"--workers: only a generator can be divided among workers, not {source.name}")
    chunks = source.chunks(0, count)
    first = next(chunks, None)
    if first is None:
        # A file without records still has its columns, where they are known.
        first = source.generator.make_block(0)[:0] if isinstance(source, GeneratorSource) else []
    encode, open_writer = _format(kind, _names(first))
    rows = 0
    with _file(out) as file, open_writer(file) as write:
        parts = _one_by_one(first, chunks, encode) if workers == 1 else _by_workers(source, count, encode, workers)
        for length, part in parts:
            write(part)
            rows += length
    say(f"{rows:,} records of {source.name}{'' if source.seed is None else f', seed {source.seed}'} → {out}")


def _names(chunk: Chunk) -> list[str]:
    """The names of the fields, of records that have some."""
    from simlink.block import Block

    if isinstance(chunk, Block):
        return list(chunk.schema)
    return [str(name) for name in chunk[0]] if chunk and isinstance(chunk[0], dict) else []


def _one_by_one(first: Chunk, rest: Iterator[Chunk], encode: Callable[[Chunk], Any]) -> Iterator[tuple[int, Any]]:
    yield len(first), encode(first)
    for chunk in rest:
        yield len(chunk), encode(chunk)


def _by_workers(source: Source, count: int, encode: Callable[[Chunk], Any], workers: int) -> Iterator[tuple[int, Any]]:
    """The encoded parts in their order."""
    from concurrent.futures import Future, ProcessPoolExecutor
    from multiprocessing import get_context

    stop = count if source.length is None else min(count, source.length)
    waiting: deque[Future[tuple[int, Any]]] = deque()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for first in range(0, max(stop, 1), _TASK_ROWS):
            waiting.append(pool.submit(_make, source, first, min(first + _TASK_ROWS, stop), encode))
            # A few are made ahead of what is being written, no more.
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _make(source: Any, first: int, stop: int, encode: Callable[[Chunk], Any]) -> tuple[int, Any]:
    """In a worker: some blocks, encoded."""
    chunks = list(source.chunks(first, stop)) or [source.generator.make_block(0)[:0]]
    parts = [encode(chunk) for chunk in chunks]
    if isinstance(parts[0], bytes):
        return sum(map(len, chunks)), b"".join(parts)
    import pyarrow as pa

    return sum(map(len, chunks)), pa.concat_tables(parts)


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


# --- the formats: what encodes a chunk (in a worker, too), and what writes it


def _format(kind: str, names: list[str]) -> tuple[Callable[[Chunk], Any], Callable[[IO[bytes]], Any]]:
    if kind == "ndjson":
        return encode_ndjson, _plain
    if kind == "csv":
        encode = EncodeCsv(names)
        return encode, encode.open
    try:
        import pyarrow.parquet  # noqa: F401 – to see whether it is there
    except ImportError as error:
        raise MissingExtra("--format parquet", "dataframe", package="pyarrow") from error
    return encode_arrow, _parquet


@contextmanager
def _plain(file: IO[bytes]) -> Iterator[Callable[[bytes], object]]:
    yield file.write


def encode_ndjson(chunk: Chunk) -> bytes:
    """A line of JSON a record."""
    from simlink.serializers.json import Json

    return b"\n".join([*Json().dumps_many(chunk), b""])


class EncodeCsv:
    """Columns in the order of the fields; what is nested is JSON in its cell, None an empty cell."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __call__(self, chunk: Chunk) -> bytes:
        """The rows, without a header."""
        from simlink.block import Block

        known = set(self.names)
        rows = []
        for record in chunk.rows() if isinstance(chunk, Block) else chunk:
            if not isinstance(record, dict) or not known.issuperset(record):
                expected = f"the fields {', '.join(self.names)}" if self.names else "fields"
                raise ConfigError(f"--format csv: every record must have {expected}: {record!r:.200}")
            rows.append([_cell(record.get(name)) for name in self.names])
        return _lines(rows)

    @contextmanager
    def open(self, file: IO[bytes]) -> Iterator[Callable[[bytes], object]]:
        """Write the header; gives what writes rows."""
        if self.names:
            file.write(_lines([self.names]))
        yield file.write


def _lines(rows: list[list[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list | tuple):
        from simlink.serializers.json import Json

        return Json().dumps(value).decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def encode_arrow(chunk: Chunk) -> Any:
    """An Arrow table."""
    import pyarrow as pa

    from simlink.block import Block
    from simlink.generators.frames import _array, _type

    if not isinstance(chunk, Block):
        return pa.Table.from_pylist(list(chunk))
    columns = {}
    for name, kind in chunk.schema.fields.items():
        column = chunk.columns[name]
        columns[name] = pa.array(column.tolist()) if _type(pa, kind) is None else _array(pa, column, kind)
    return pa.table(columns)


@contextmanager
def _parquet(file: IO[bytes]) -> Iterator[Callable[[Any], None]]:
    import pyarrow.parquet as pq

    writer: Any = None

    def write(table: Any) -> None:
        nonlocal writer
        if writer is None:
            writer = pq.ParquetWriter(file, table.schema)
        writer.write_table(table.cast(writer.schema))

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
