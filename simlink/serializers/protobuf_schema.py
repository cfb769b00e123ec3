"""A record's fields as a Protobuf file: the descriptor for this process, the ``.proto`` text for everybody else.

How each kind of field is written (proto3):

=============================  ==================================================================
field of the record            field of the message
=============================  ==================================================================
int, uint, float, bool         ``int64``, ``uint64``, ``double``, ``bool``
str, bytes                     ``string``, ``bytes``
may be None                    ``optional``
nested record                  a nested message named after the field
list                           ``repeated``
list that may be None          ``optional`` nested message ``…List`` with the list in ``values``
list of lists, or with Nones   ``repeated`` nested message ``…Item`` with the element in ``value``
=============================  ==================================================================

The number of a field is its position in the record, from 1. It stays the same as long as new fields are put at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from simlink.block import FieldType, Kind, Schema
from simlink.errors import ConfigError

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

__all__ = ["Node", "build_file", "check_package", "message_name", "nodes_of", "write_proto"]

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TYPES = {
    Kind.INT: "int64",
    Kind.UINT: "uint64",
    Kind.FLOAT: "double",
    Kind.BOOL: "bool",
    Kind.STR: "string",
    Kind.BYTES: "bytes",
}
_MAX_FIELDS = 18_999
"""Protobuf keeps the numbers from 19,000 for itself."""


@dataclass(frozen=True, slots=True)
class Node:
    """One field of a derived message.

    Attributes:
        name: its name in the message.
        kind: a scalar kind, or RECORD for a nested message.
        optional: whether it may be absent (None in the record).
        repeated: whether it is a list of ``kind``.
        fields: of a nested message: its fields.
        boxed: the nested message stands for the value of its only field: Protobuf cannot say it directly.
    """

    name: str
    kind: Kind
    optional: bool = False
    repeated: bool = False
    fields: tuple[Node, ...] = ()
    boxed: bool = False


def nodes_of(schema: Schema, where: str = "") -> tuple[Node, ...]:
    """The fields of the message that holds this record.

    Raises:
        ConfigError: a field has no Protobuf form; it is named.
    """
    nodes: list[Node] = []
    json_names: dict[str, str] = {}
    if len(schema) > _MAX_FIELDS:
        raise ConfigError(f"Protobuf: {where or schema.name} has {len(schema)} fields, more than {_MAX_FIELDS}")
    for name, kind in schema.fields.items():
        path = f"{where}.{name}" if where else name
        if not _IDENTIFIER.fullmatch(name):
            raise ConfigError(
                f"Protobuf: {path!r} cannot be a field name: it has letters, digits and _ only; rename the field"
            )
        twin = json_names.setdefault(_json_name(name), name)
        if twin != name:
            # The compiler refuses such a message, so nobody else could read it.
            raise ConfigError(f"Protobuf: the fields {twin!r} and {path!r} differ in underscores only; rename one")
        nodes.append(_node(name, kind, path))
    return tuple(nodes)


def _node(name: str, kind: FieldType, path: str) -> Node:
    if kind.kind is Kind.RECORD:
        if kind.fields is None:
            raise ConfigError(f"Protobuf: {path}: a record whose fields are not known cannot be a message")
        return Node(name, Kind.RECORD, kind.optional, fields=nodes_of(kind.fields, path))
    if kind.kind is Kind.LIST:
        item = kind.item
        if item is None:
            raise ConfigError(f"Protobuf: {path}: a list whose elements are not known cannot be a field")
        if kind.optional:
            inner = _node("values", replace(kind, optional=False), path)
            return Node(name, Kind.RECORD, optional=True, fields=(inner,), boxed=True)
        if item.optional or item.kind is Kind.LIST:
            inner = _node("value", item, f"{path}[]")
            return Node(name, Kind.RECORD, repeated=True, fields=(inner,), boxed=True)
        return replace(_node(name, item, f"{path}[]"), repeated=True)
    if kind.kind not in _TYPES:
        raise ConfigError(
            f"Protobuf: {path} may hold anything ({kind.kind.value}), and a message needs a type for each field; "
            "declare it, or use Json"
        )
    return Node(name, kind.kind, kind.optional)


def _json_name(name: str) -> str:
    """The name that the compiler gives the field in JSON: lowerCamelCase."""
    head, *rest = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in rest)


def message_name(text: str) -> str:
    """A message name made of any text: ``"page view"`` → ``"PageView"``."""
    name = "".join(word[:1].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", text))
    return name if _IDENTIFIER.fullmatch(name) else f"Record{name}"


def check_package(package: str) -> str:
    """The package, if it is dotted names.

    Raises:
        ConfigError: it is not.
    """
    if not all(_IDENTIFIER.fullmatch(part) for part in package.split(".")):
        raise ConfigError(f"Protobuf: {package!r} is not a package; expected dotted names, as in 'shop.events'")
    return package


def build_file(nodes: Sequence[Node], *, package: str, name: str) -> FileDescriptorProto:
    """The file with this one top-level message."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    file = FileDescriptorProto(name=f"{package.replace('.', '/')}/{name}.proto", package=package, syntax="proto3")
    _fill(file.message_type.add(name=name), nodes, f".{package}.{name}")
    return file


def _fill(message: DescriptorProto, nodes: Sequence[Node], full_name: str) -> None:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto

    # Fields, nested messages and the oneofs behind `optional` share one scope.
    taken = {node.name for node in nodes}
    for number, node in enumerate(nodes, 1):
        field = message.field.add(name=node.name, number=number)
        field.label = FieldDescriptorProto.LABEL_REPEATED if node.repeated else FieldDescriptorProto.LABEL_OPTIONAL
        if node.kind is Kind.RECORD:
            suffix = ("Item" if node.repeated else "List") if node.boxed else ""
            nested = _unique(message_name(node.name) + suffix, taken, "{}Record")
            field.type = FieldDescriptorProto.TYPE_MESSAGE
            field.type_name = f"{full_name}.{nested}"
            _fill(message.nested_type.add(name=nested), node.fields, field.type_name)
        else:
            field.type = FieldDescriptorProto.Type.Value(f"TYPE_{_TYPES[node.kind].upper()}")
    for field, node in zip(message.field, nodes, strict=True):
        if node.optional:
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            # The compiler's own rule, so that its reading of the text is this very descriptor.
            oneof = node.name if node.name.startswith("_") else f"_{node.name}"
            message.oneof_decl.add(name=_unique(oneof, taken, "X{}"))


def _unique(name: str, taken: set[str], pattern: str) -> str:
    while name in taken:
        name = pattern.format(name)
    taken.add(name)
    return name


def write_proto(file: FileDescriptorProto) -> str:
    """The text that the compilers of other languages read."""
    lines = [
        "// Written by simlink from the fields of a record.",
        "// A field's number is its position: put new fields at the end, and never reuse a number.",
        'syntax = "proto3";',
        "",
        f"package {file.package};",
    ]
    for message in file.message_type:
        lines += ["", *_write_message(message, "")]
    return "\n".join(lines) + "\n"


def _write_message(message: DescriptorProto, indent: str) -> Iterable[str]:
    if not message.field:
        yield f"{indent}message {message.name} {{}}"
        return
    yield f"{indent}message {message.name} {{"
    for nested in message.nested_type:
        yield from _write_message(nested, indent + "  ")
    for field in message.field:
        yield f"{indent}  {_label(field)}{_type(field)} {field.name} = {field.number};"
    yield f"{indent}}}"


def _label(field: FieldDescriptorProto) -> str:
    if field.label == field.LABEL_REPEATED:
        return "repeated "
    return "optional " if field.proto3_optional else ""


def _type(field: FieldDescriptorProto) -> str:
    # A nested message is found by its own name, because names are looked up from the inside out.
    if field.type == field.TYPE_MESSAGE:
        return field.type_name.rpartition(".")[2]
    return field.Type.Name(field.type).removeprefix("TYPE_").lower()
