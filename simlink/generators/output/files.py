"""Records into files: NDJSON, CSV, Parquet and Arrow, block by block, by one process or by several."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from simlink.block import Block
from simlink.errors import ConfigError, EncodeError, MissingExtra, did_you_mean
from simlink.generators.output.crew import STRETCH, Crew
from simlink.generators.output.stretches import place_in

if TYPE_CHECKING:
    from simlink.generators.source import Chunk, Source

__all__ = ["FORMATS", "write_records"]

FORMATS = ("ndjson", "csv", "parquet", "arrow")
_SUFFIXES = {".ndjson": "ndjson", ".jsonl": "ndjson", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow",
             ".feather": "arrow"}  # fmt: skip
_TEXT = ("ndjson", "csv")
Progress = Callable[[int, "int | None"], object]


def write_records(
    source: Source,
    out: str | os.PathLike[str],
    count: int | None,
    kind: str | None,
    workers: int,
    progress: Progress | None,
    labels: str | os.PathLike[str] | None = None,
) -> int:
    """The first ``count`` records of a source (all for None, where there is an end) into a file; how many they were.
    ``"-"`` is standard output. See `Generator.write`, and `FaultySource.write` for ``labels``.

    Raises:
        ConfigError: an unknown format, one that needs a file for standard output, a source that cannot be divided
            among workers or has no end, a file that cannot be written, faults that the format has no place for, labels
            of a source without faults.
        MissingExtra: pyarrow is not installed.
    """
    from simlink.generators.faults.faulty import FaultySource
    from simlink.generators.source import GeneratorSource

    kind = kind or _SUFFIXES.get(Path(out).suffix.lower(), "ndjson")
    if kind not in FORMATS:
        raise ConfigError(f"unknown format {kind!r}{did_you_mean(str(kind), FORMATS)}: there are {', '.join(FORMATS)}")
    if kind == "parquet" and str(out) == "-":
        raise ConfigError("the format parquet needs a file: it cannot be written to a pipe")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ConfigError(f"workers: expected a number from 1 up, not {workers!r}")
    base = source.base if isinstance(source, FaultySource) else source
    if workers > 1 and not isinstance(base, GeneratorSource):
        raise ConfigError(f"workers: only a generator can be divided among workers, and {source.name} is none")
    if kind in ("parquet", "arrow") and hasattr(getattr(base, "generator", None), "all_names"):
        raise ConfigError(f"the format {kind} has one schema, and that of {source.name} evolves: write ndjson or csv")
    if isinstance(source, FaultySource):
        from simlink.generators.faults.files import refuse_what_has_no_place

        refuse_what_has_no_place(source, kind)
        same = labels is not None and Path(labels).resolve() == Path(out).resolve()
        if same and (Path(out).is_file() or not Path(out).exists()):  # two may share a device
            raise ConfigError(f"labels: {os.fspath(out)} is the file of the records: give another one")
    elif labels is not None:
        raise ConfigError(f"labels: nothing was done to {source.name}: give faults")
    if count is None and source.endless:
        raise ConfigError(f"{source.name} has no end: say how many records")
    total = source.length if count is None else count if source.length is None else min(count, source.length)
    share = None if isinstance(source, FaultySource) else total
    chunks = source.chunks(0, count)
    first = next(chunks, None)
    if first is None:
        # A file without records still has its columns, where they are known.
        first = source.generator.make_block(0)[:0] if isinstance(source, GeneratorSource) else []
    encode, open_writer = _format(kind, _names(first, base))
    rows = 0
    noted = None
    with ExitStack() as stack:
        if isinstance(source, FaultySource):
            from simlink.generators.faults import files as file_faults

            if workers > 1:
                # What the workers divide: rows of what the faults are done to. How many are sent, they tell.
                parts = file_faults.InStretches(source, count)
                if parts.rows > STRETCH:
                    source, share = parts, parts.rows
            if labels is not None and isinstance(source, FaultySource):
                encode = stack.enter_context(file_faults.labelled(source, encode, labels, count))
            elif labels is not None:
                encode = file_faults.Noting(encode)
                noted = file_faults.writes_labels(stack.enter_context(file_faults.label_file(labels)))
        file = stack.enter_context(_file(out))
        write = stack.enter_context(open_writer(file))

        def told(more: int) -> None:
            nonlocal rows
            rows += more
            if progress is not None:
                progress(rows, total)

        if workers > 1 and share is not None and share > STRETCH:
            at = place_in(file) if kind in _TEXT else None
            place = None if at is None else file
            Crew(source, share, encode, workers, file=place, at=at or 0, write=write, noted=noted).run(told)
        else:
            for chunk in chain([first], chunks):
                write(encode(chunk))
                told(len(chunk))
    return rows


def _names(chunk: Chunk, source: Source) -> list[str]:
    """The names of the fields, of records that have some."""
    evolving = getattr(getattr(source, "generator", None), "all_names", None)
    if evolving is not None:
        return list(evolving)
    if isinstance(chunk, Block):
        return list(chunk.schema)
    return [str(name) for name in chunk[0]] if chunk and isinstance(chunk[0], dict) else []


@contextmanager
def _file(out: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    if str(out) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        file = Path(out).open("wb")  # noqa: SIM115 – closed below
    except OSError as error:
        raise ConfigError(f"cannot write {os.fspath(out)}: {error.strerror}") from error
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
        raise MissingExtra(f"the format {kind}", "dataframe", package="pyarrow") from error
    return encode_arrow, (_parquet if kind == "parquet" else _arrow)


@contextmanager
def _plain(file: IO[bytes]) -> Iterator[Callable[[bytes], object]]:
    yield file.write


def encode_ndjson(chunk: Chunk) -> bytes:
    """A line of JSON a record."""
    from simlink.serializers.json import Json

    if not getattr(chunk, "damage", None):
        return Json().dumps_lines(chunk)
    return b"\n".join([*_damaged(chunk, Json().dumps_many(chunk)), b""])


def _damaged(chunk: Chunk, lines: list[bytes]) -> list[bytes]:
    """As the faults of a source do to bodies."""
    from simlink.generators.faults.files import damaged_lines
    from simlink.generators.faults.stretches import Altered

    assert isinstance(chunk, Altered)
    return damaged_lines(chunk, lines)


class EncodeCsv:
    """Columns in the order of the fields; what is nested is JSON in its cell, None an empty cell."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __call__(self, chunk: Chunk) -> bytes:
        """The rows, without a header."""
        if isinstance(chunk, Block):
            empty = [None] * len(chunk)
            columns = (chunk.columns[n].tolist() if n in chunk.columns else empty for n in self.names)
            return _lines(zip(*([_cell(v) for v in column] for column in columns), strict=True))
        known = set(self.names)
        rows = []
        for record in chunk:
            if not isinstance(record, dict) or not known.issuperset(record):
                expected = f"the fields {', '.join(self.names)}" if self.names else "fields"
                raise ConfigError(f"the format csv: every record must have {expected}: {record!r:.200}")
            rows.append([_cell(record.get(name)) for name in self.names])
        if getattr(chunk, "damage", None):
            return b"\n".join([*_damaged(chunk, [_lines([row])[:-1] for row in rows]), b""])
        return _lines(rows)

    @contextmanager
    def open(self, file: IO[bytes]) -> Iterator[Callable[[bytes], object]]:
        """Write the header; gives what writes rows."""
        if self.names:
            file.write(_lines([self.names]))
        with _plain(file) as write:
            yield write


def _lines(rows: Any) -> bytes:
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

    from simlink.generators.output.frames import _array, _type, looked_at

    if not isinstance(chunk, Block):
        try:
            return pa.Table.from_pylist(list(chunk))
        except pa.ArrowException as error:
            raise EncodeError(f"a column has one type, and these records have others: {error}") from error
    columns = {}
    for name, kind in chunk.schema.fields.items():
        column = chunk.columns[name]
        looked = _type(pa, kind) is None
        columns[name] = looked_at(pa, name, column.tolist()) if looked else _array(pa, column, kind)
    return pa.table(columns)


@contextmanager
def _parquet(file: IO[bytes]) -> Iterator[Callable[[Any], None]]:
    import pyarrow.parquet as pq

    with _tables(lambda schema: pq.ParquetWriter(file, schema)) as write:
        yield write


@contextmanager
def _arrow(file: IO[bytes]) -> Iterator[Callable[[Any], None]]:
    """Arrow's IPC: a file, which can be read from any batch on; to a pipe its stream."""
    import pyarrow as pa

    make = pa.ipc.new_stream if file is sys.stdout.buffer else pa.ipc.new_file
    with _tables(lambda schema: make(file, schema)) as write:
        yield write


@contextmanager
def _tables(open_writer: Callable[[Any], Any]) -> Iterator[Callable[[Any], None]]:
    import pyarrow as pa

    writer: Any = None
    schema: Any = None

    def write(table: Any) -> None:
        nonlocal writer, schema
        if writer is None:
            schema = table.schema
            try:
                writer = open_writer(schema)
            except pa.ArrowException as error:
                raise EncodeError(f"this format does not hold such a column: {error}") from error
        try:
            writer.write_table(table.cast(schema))
        except (pa.ArrowException, ValueError) as error:  # ValueError: other names
            raise EncodeError(f"a column has one type, and these records have others: {error}") from error

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
