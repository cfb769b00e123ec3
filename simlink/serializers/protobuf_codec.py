"""Records ↔ messages of a derived class: strict about every value, and without a dict between columns and messages."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from simlink.block import Coded, Column, Kind, Masked, Pool, Ragged, Struct
from simlink.errors import EncodeError
from simlink.serializers.protobuf_schema import Node

__all__ = ["Codec", "row_writer"]

Make = Callable[[Message], Any]
_NONE = type(None)
_TYPES: dict[Kind, type] = {
    Kind.INT: int,
    Kind.UINT: int,
    Kind.FLOAT: float,
    Kind.BOOL: bool,
    Kind.STR: str,
    Kind.BYTES: bytes,
}
_DTYPES = {Kind.INT: "i", Kind.UINT: "u", Kind.FLOAT: "f", Kind.BOOL: "b"}
_CACHE = "protobuf"


def row_writer(
    message_class: type[Message], fields: Sequence[tuple[str, str]], finish: Callable[[Message], Any]
) -> Callable[..., list[Any]]:
    """A function from one list of cells a field to ``[finish(message), …]``.

    Setting attributes is a sixth faster than naming them in the constructor, so scalars are set ("set", or "maybe"
    where None leaves the field absent) and only the rest is constructed ("construct").
    """
    names = ", ".join(f"c{i}" for i in range(len(fields)))
    cells = "".join(f"v{i}, " for i in range(len(fields)))
    constructed, statements = [], []
    for i, (name, how) in enumerate(fields):
        if how == "construct" or keyword.iskeyword(name):
            constructed.append(f"{name!r}: v{i}")
        elif how == "maybe":
            statements.append(f"        if v{i} is not None: m.{name} = v{i}\n")
        else:
            statements.append(f"        m.{name} = v{i}\n")
    # Field names are identifiers: a descriptor has no others.
    source = (
        f"def write({names}):\n"
        "    out = []\n"
        "    add = out.append\n"
        f"    for {cells} in zip({names}, strict=True):\n"
        f"        m = M({'**{' + ', '.join(constructed) + '}' if constructed else ''})\n"
        f"{''.join(statements)}"
        "        add(finish(m))\n"
        "    return out\n"
    )
    scope: dict[str, Any] = {"M": message_class, "finish": finish, "zip": zip}
    exec(source, scope)  # noqa: S102 – see the comment on names
    write: Callable[..., list[Any]] = scope["write"]
    return write


class Codec:
    """What a derived message class and its nested ones need to take records in and give them back.

    Attributes:
        message_class: the class.
        nodes: its fields.
        absent: those that a record may lack: None, then.
        to_row: message → record; of a box: message → the value inside.
        to_rows: the same for many messages, without a call a message.
    """

    def __init__(
        self,
        descriptor: Any,
        nodes: Sequence[Node],
        *,
        boxed: bool,
        serialize: bool,
        absent: frozenset[str] = frozenset(),
    ) -> None:
        self.message_class: type[Message] = GetMessageClass(descriptor)
        self.nodes = tuple(nodes)
        self.boxed = boxed
        self.absent = absent
        self.names = tuple(node.name for node in nodes)
        self._inner: dict[str, Codec] = {
            node.name: Codec(
                descriptor.fields_by_name[node.name].message_type, node.fields, boxed=node.boxed, serialize=False
            )
            for node in nodes
            if node.kind is Kind.RECORD
        }
        # The class's own method, not the instance's attribute: a field may have that very name.
        self._finish: Make = self.message_class.SerializeToString if serialize else _as_is
        self._write = (
            row_writer(self.message_class, [(n.name, _how(n)) for n in nodes], self._finish) if nodes else None
        )
        self.to_row, self.to_rows = self._readers()

    def from_row(self, record: Any, where: str = "") -> Message:
        """One record → its message.

        Raises:
            EncodeError: it does not have exactly these fields and types; the field is named.
        """
        if self.boxed:
            return self.message_class(**{self.names[0]: self._value(self.nodes[0], record, where)})
        if not isinstance(record, Mapping):
            raise EncodeError(f"{where + ': ' if where else ''}a record is a dict, not {type(record).__name__}")
        if self.absent and not self.absent.issubset(record):
            record = dict.fromkeys(self.absent) | dict(record)
        if len(record) != len(self.names) or not all(name in record for name in self.names):
            missing = [n for n in self.names if n not in record]
            unknown = [n for n in record if n not in self.names]
            what = f"no field {missing[0]!r}" if missing else f"an unknown field {unknown[0]!r}"
            raise EncodeError(f"{where + ': ' if where else ''}the record has {what}")
        prefix = f"{where}." if where else ""
        return self.message_class(**{n.name: self._value(n, record[n.name], prefix + n.name) for n in self.nodes})

    def from_columns(self, columns: Mapping[str, Column | list[Any]], length: int) -> list[Any]:
        """Columns → one finished message a row.

        Raises:
            EncodeError, ValueError, TypeError: some row does not fit; which one is for the caller to find out.
        """
        if self.absent and not self.absent.issubset(columns):
            columns = {name: [None] * length for name in self.absent} | dict(columns)
        if set(columns) != set(self.names):
            raise EncodeError("the columns are not the fields of the message")
        if self._write is None:
            return [self._finish(self.message_class()) for _ in range(length)]
        return self._write(*(self._cells(node, columns[node.name]) for node in self.nodes))

    def _value(self, node: Node, value: Any, where: str) -> Any:
        if value is None and node.optional:
            return None
        if not node.repeated:
            return self._single(node, value, where)
        if not isinstance(value, list | tuple):
            raise EncodeError(f"{where}: {_wrong(value, 'a list')}")
        return [self._single(node, item, f"{where}[{index}]") for index, item in enumerate(value)]

    def _single(self, node: Node, value: Any, where: str) -> Any:
        if node.kind is Kind.RECORD:
            return self._inner[node.name].from_row(value, where)
        return _scalar(node.kind, value, where)

    def _cells(self, node: Node, column: Column | list[Any]) -> list[Any]:
        """The column as what the message takes, fast where the column's own type already proves the values right."""
        if isinstance(column, Masked) and node.optional and not node.boxed:
            present: list[Any] = [None] * len(column)
            rows = np.flatnonzero(column.present)
            inner = column.values.take(rows)
            # Those that are there may be None once more, but for an array of numbers.
            sure = isinstance(inner, np.ndarray) and inner.dtype != object
            cells = self._cells(replace(node, optional=False) if sure else node, inner)
            for row, cell in zip(rows.tolist(), cells, strict=True):
                present[row] = cell
            return present
        if isinstance(column, Ragged) and node.repeated and not node.boxed:
            first = int(column.offsets[0])
            cells = self._cells(replace(node, repeated=False), column.values[first : int(column.offsets[-1])])
            return [cells[a - first : b - first] for a, b in pairwise(column.offsets.tolist())]
        if isinstance(column, Struct) and node.kind is Kind.RECORD and not (node.repeated or node.boxed):
            return self._inner[node.name].from_columns(column.columns, column.length)
        cells = column if isinstance(column, list) else column.tolist()
        if node.kind is not Kind.RECORD and not node.repeated:
            if isinstance(column, np.ndarray) and column.dtype.kind == _DTYPES.get(node.kind):
                return cells
            kinds = _pool_types(column.pool) if isinstance(column, Coded) else frozenset(map(type, cells))
            if kinds <= {_TYPES[node.kind], *((_NONE,) if node.optional else ())}:
                return cells
        return [self._value(node, cell, node.name) for cell in cells]

    def _readers(self) -> tuple[Callable[[Message], Any], Callable[[Iterable[Message]], list[Any]]]:
        scope: dict[str, Any] = {"has": self.message_class.HasField, "list": list, "getattr": getattr}
        parts: list[str] = []
        for i, node in enumerate(self.nodes):
            read = f"getattr(m, {node.name!r})" if keyword.iskeyword(node.name) else f"m.{node.name}"
            if node.kind is Kind.RECORD:
                scope[f"r{i}"], scope[f"rs{i}"] = self._inner[node.name].to_row, self._inner[node.name].to_rows
                read = f"rs{i}({read})" if node.repeated else f"r{i}({read})"
            elif node.repeated:
                read = f"list({read})"
            if node.optional:
                read = f"{read} if has(m, {node.name!r}) else None"
            parts.append(read if self.boxed else f"{node.name!r}: {read}")
        source = parts[0] if self.boxed else "{" + ", ".join(parts) + "}"
        # Field names are identifiers: `nodes_of` refuses all others.
        return eval(f"lambda m: {source}", scope), eval(f"lambda ms: [{source} for m in ms]", scope)  # noqa: S307


def _as_is(message: Message) -> Message:
    return message


def _how(node: Node) -> str:
    if node.kind is Kind.RECORD or node.repeated:
        return "construct"
    return "maybe" if node.optional else "set"


def _pool_types(pool: Pool) -> frozenset[type]:
    kinds: frozenset[type] | None = pool.cache.get(_CACHE)
    if kinds is None:
        kinds = pool.cache[_CACHE] = frozenset(map(type, pool.values))
    return kinds


def _scalar(kind: Kind, value: Any, where: str) -> Any:
    """The value, if the field holds it exactly. The library is more lenient: it would take bytes for text, true for
    1.0 and large integers for the nearest double, and hand back something else than was sent."""
    if isinstance(value, np.generic):
        value = value.item()
    if kind in (Kind.INT, Kind.UINT):
        if isinstance(value, int) and not isinstance(value, bool):
            low, high = (-(2**63), 2**63) if kind is Kind.INT else (0, 2**64)
            if low <= value < high:
                return value
            raise EncodeError(f"{where}: {value} (int) does not fit into 64 bits, {'' if low else 'un'}signed")
    elif kind is Kind.FLOAT:
        if isinstance(value, float):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            try:
                if int(float(value)) == value:
                    return float(value)
            except OverflowError:
                pass
            raise EncodeError(f"{where}: {value} (int) is not exactly a double")
    elif kind is Kind.BOOL:
        if isinstance(value, bool):
            return value
    elif kind is Kind.STR:
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise EncodeError(f"{where}: str cannot be written as UTF-8: {error}") from error
            return value
    elif isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise EncodeError(f"{where}: {_wrong(value, kind.value)}")


def _wrong(value: Any, expected: str) -> str:
    if value is None:
        return f"None, and the field is not optional ({expected})"
    return f"expected {expected}, not {type(value).__name__}"
