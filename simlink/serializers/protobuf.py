"""Protobuf: with a compiled message class, or with one derived from a record's fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from simlink.block import Block, Lines, Schema
from simlink.errors import ConfigError, DecodeError, EncodeError, NotSupported
from simlink.serializers.serializer import Serializer

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.message import Message

    from simlink.serializers.protobuf_codec import Codec
    from simlink.serializers.schema_registry import Framing

__all__ = ["DEFAULT_PACKAGE", "Protobuf"]

DEFAULT_PACKAGE = "simlink.generated"
_OPTIONAL, _REQUIRED, _REPEATED = 1, 2, 3
_REFUSED = (TypeError, ValueError, OverflowError, AttributeError)


class Protobuf(Serializer):
    """Messages, or records, ↔ Protobuf's binary form.

    With a **compiled message class** ``dumps`` takes an instance of it, or a dict that its constructor takes (nested
    dicts, enum labels, None for what is left unset), and ``loads`` returns an instance.

    With a **record** (a generator, or its Schema) a message class is derived from the fields: ``dumps`` takes a record,
    all its fields present and of the declared types, and ``loads`` returns a record equal to it. `proto_text` writes
    the same message for other languages. Of a record that evolves (`simlink.evolve`) the message has the fields of all
    its blocks; those that a record does not have are None in what ``loads`` returns.
    `simlink.serializers.protobuf_schema` has the table of how fields are written.

    Args:
        message: a message class, a generator (anything with a ``schema``), or a Schema.
        package: the package of a derived message. Default: ``simlink.generated``.
        name: the name of a derived message. Default: the record's name in CamelCase.
        registry: the URL of a Confluent Schema Registry, ``http[s]://[user:password@]host[:port]``. Every body then has
            that company's frame (`simlink.serializers.schema_registry`). The schema is registered when the first
            message is written; those of what comes are looked up, and must be of this message. Ids are kept.
        subject: what it is registered under. Default: the message's full name (Confluent's RecordNameStrategy); for its
            TopicNameStrategy, which is its clients' default, give ``"TOPIC-value"``.
        schema_id: the id to write, where it is known: nothing is registered, and without ``registry`` nothing is asked;
            what comes is then taken with any id, at this message's index.

    Attributes:
        message_class: the message class, given or derived.

    Raises:
        ConfigError: neither a class nor a record; a field whose type is not known, or whose name is no identifier (it
            is named); ``package`` or ``name`` given beside a class; a registry's URL that is none.
        ConnectError: from ``dumps`` and ``loads``: the registry does not answer.
    """

    content_type: ClassVar[str] = "application/protobuf"

    def __init__(
        self,
        message: Any,
        *,
        package: str | None = None,
        name: str | None = None,
        registry: str | None = None,
        subject: str | None = None,
        schema_id: int | None = None,
    ) -> None:
        from google.protobuf.message import Message

        self._framing: Framing | None = None
        if (registry, subject, schema_id) != (None, None, None):
            self._frame(Protobuf(message, package=package, name=name), registry, subject, schema_id)
            return
        self._codec: Codec | None = None
        self._file: FileDescriptorProto | None = None
        if isinstance(message, type) and issubclass(message, Message):
            if package is not None or name is not None:
                raise ConfigError("Protobuf: package and name are those of the class; give them with a record only")
            self.message_class: type[Message] = message
            self._remake: tuple[Any, ...] = (message,)
        else:
            schema = message if isinstance(message, Schema) else getattr(message, "message_schema", None)
            if schema is None:
                schema = getattr(message, "schema", None)
            if not isinstance(schema, Schema):
                raise ConfigError(
                    "Protobuf needs a compiled message class, or a record to derive one from, "
                    f"not {message if isinstance(message, type) else type(message).__name__}"
                )
            self._derive(schema, package, name)
            self._remake = (schema, package, name)
        descriptor = self.message_class.DESCRIPTOR
        facts = _facts(descriptor, set())
        # Maps have no order of their own; the same record must give the same bytes.
        self._serialize: Callable[[Message], bytes] = (
            partial(self.message_class.SerializeToString, deterministic=True)
            if "map" in facts
            else self.message_class.SerializeToString
        )
        self._required = "required" in facts
        self._parse: Callable[[bytes], Message] = self.message_class.FromString
        self._writers: dict[tuple[tuple[str, bool], ...], Callable[..., list[bytes]]] = {}

    def _frame(self, plain: Protobuf, registry: str | None, subject: str | None, schema_id: int | None) -> None:
        """The same, every body in a frame: ``plain`` does the work, and knows nothing of it."""
        from simlink.serializers.schema_registry import Framing

        descriptor: Any = plain.message_class.DESCRIPTOR
        self._plain, self._file, self.message_class = plain, plain._file, plain.message_class
        self._framing = Framing(descriptor, registry=registry, subject=subject, schema_id=schema_id)
        self._remake = (*plain._remake, *(None,) * (3 - len(plain._remake)), registry, subject, schema_id)
        # A body in a frame is no Protobuf message to those who do not know of the frame.
        self.content_type = "application/octet-stream"  # type: ignore[misc]  # the class's own is that of all others

    @classmethod
    def derive(cls, record: Any, *, package: str = DEFAULT_PACKAGE, name: str | None = None) -> Protobuf:
        """The serializer for a record: a generator, or its Schema; like ``Protobuf(record)``, but never a class."""
        if isinstance(record, type):
            raise ConfigError(f"Protobuf.derive needs a record, not the class {record.__name__}")
        return cls(record, package=package, name=name)

    def _derive(self, schema: Schema, package: str | None, name: str | None) -> None:
        from google.protobuf.descriptor_pool import DescriptorPool

        from simlink.serializers.protobuf_codec import Codec
        from simlink.serializers.protobuf_schema import build_file, check_package, message_name, nodes_of

        if name is not None and name != message_name(name):
            raise ConfigError(
                f"Protobuf: {name!r} is not a message name; expected something like {message_name(name)!r}"
            )
        package = check_package(DEFAULT_PACKAGE if package is None else package)
        name = name or message_name(schema.name)
        nodes = nodes_of(schema)
        self._file = build_file(nodes, package=package, name=name)
        # A pool of its own: two records of the same name never meet.
        pool = DescriptorPool()
        try:
            pool.AddSerializedFile(self._file.SerializeToString())
        except TypeError as error:
            raise ConfigError(f"Protobuf: {schema.name!r} cannot be a message: {error}") from error
        descriptor = pool.FindMessageTypeByName(f"{package}.{name}")
        self._codec = Codec(descriptor, nodes, boxed=False, serialize=True, absent=schema.absent)
        self.message_class = self._codec.message_class

    def __repr__(self) -> str:
        return f"Protobuf({self.message_class.DESCRIPTOR.full_name})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Derived classes do not pickle; a worker process derives its own.
        return (_make, self._remake)

    def proto_text(self) -> str:
        """The derived message as a ``.proto`` file for other languages; the same text for the same fields.

        Raises:
            NotSupported: the class was given; its ``.proto`` is wherever it came from.
        """
        from simlink.serializers.protobuf_schema import write_proto

        if self._file is None:
            raise NotSupported(
                f"{self!r} has a class of its own, compiled from {self.message_class.DESCRIPTOR.file.name}"
            )
        return write_proto(self._file)

    def dumps(self, value: Any) -> bytes:
        if self._framing is not None:
            body = self._plain.dumps(value)
            return self._framing.prefix + body
        from google.protobuf.message import EncodeError as LibraryError
        from google.protobuf.message import Message

        try:
            if type(value) is self.message_class:
                return self._serialize(value)
            if isinstance(value, Message):
                raise EncodeError(
                    f"expected {self.message_class.DESCRIPTOR.full_name}, not {value.DESCRIPTOR.full_name} (message)"
                )
            if self._codec is not None:
                return self._serialize(self._codec.from_row(value))
            if not isinstance(value, dict):
                raise EncodeError(
                    f"expected {self.message_class.DESCRIPTOR.full_name} or a dict, not {type(value).__name__}"
                )
            return self._serialize(self.message_class(**value))
        except EncodeError:
            raise
        except LibraryError as error:
            raise EncodeError(str(error)) from error
        except (*_REFUSED, RecursionError) as error:
            raise self._refusal(value, error) from error

    def loads(self, body: bytes) -> Any:
        if self._framing is not None:
            return self._plain.loads(self._framing.strip(body))
        from google.protobuf.message import DecodeError as LibraryError

        try:
            message = self._parse(body)
        except (LibraryError, ValueError, RecursionError) as error:
            raise DecodeError(f"not {self.message_class.DESCRIPTOR.full_name}: {error}", body=bytes(body)) from error
        if self._required and not message.IsInitialized():
            # Parsing alone does not look.
            raise DecodeError(
                f"not {self.message_class.DESCRIPTOR.full_name}: a required field is missing", body=bytes(body)
            )
        return message if self._codec is None else self._codec.to_row(message)

    def dumps_many(self, values: Block | Sequence[Any]) -> list[bytes]:
        if self._framing is not None:
            bodies = self._plain.dumps_many(values)
            prefix = self._framing.prefix if bodies else b""
            return [prefix + body for body in bodies]
        try:
            if isinstance(values, Block):
                return super().dumps_many(values) if isinstance(values, Lines) else self._block(values)
            columns = self._columns(values)
            if columns is not None and self._codec is not None:
                return self._codec.from_columns(columns, len(values))
        except _REFUSED as error:
            if isinstance(values, Block):
                # Rare, so it may be slow: the row loop finds the first row that is at fault.
                super().dumps_many(values)
                raise EncodeError(f"{values!r}: {error}") from error
        return super().dumps_many(values)

    def loads_many(self, bodies: Sequence[bytes]) -> list[Any]:
        if self._framing is not None:
            try:
                return self._plain.loads_many([self._framing.strip(body) for body in bodies])
            except DecodeError:
                return super().loads_many(bodies)
        from google.protobuf.message import DecodeError as LibraryError

        if not self._required:
            try:
                messages = map(self._parse, bodies)
                return list(messages) if self._codec is None else self._codec.to_rows(messages)
            except (LibraryError, ValueError, RecursionError):
                pass
        return super().loads_many(bodies)

    def _columns(self, values: Sequence[Any]) -> dict[str, Any] | None:
        """Records with the same fields in the same order, as columns; None where they are anything else."""
        if self._codec is None or not self._codec.names or set(map(type, values)) != {dict}:
            return None
        names = self._codec.names
        if list(chain.from_iterable(values)) != list(names) * len(values):
            return None
        return dict(zip(names, map(list, zip(*map(dict.values, values), strict=True)), strict=True))

    def _block(self, block: Block) -> list[bytes]:
        if self._codec is not None:
            return self._codec.from_columns(block.columns, block.length)
        from simlink.serializers.protobuf_codec import row_writer

        if not block.columns:
            return [self._serialize(self.message_class()) for _ in range(block.length)]
        # Cells that may be None leave the field unset, as in the constructor; a typed array has none.
        shape = tuple((n, not (isinstance(c, np.ndarray) and c.dtype.kind in "iufb")) for n, c in block.columns.items())
        writer = self._writers.get(shape)
        if writer is None:
            fields = self.message_class.DESCRIPTOR.fields_by_name
            if unknown := [n for n in block.columns if n not in fields]:
                raise ValueError(f"{self.message_class.DESCRIPTOR.full_name} has no field {unknown[0]!r}")
            hows = [(n, _how(fields[n], maybe=maybe)) for n, maybe in shape]
            writer = self._writers[shape] = row_writer(self.message_class, hows, self._serialize)
        return writer(*(c.tolist() for c in block.columns.values()))

    def _refusal(self, value: Any, error: BaseException) -> EncodeError:
        """What to say when the class refused a dict: which field it was, for the library rarely tells."""
        name = self.message_class.DESCRIPTOR.full_name
        if self._codec is None and isinstance(value, dict):
            for key, cell in value.items():
                try:
                    self.message_class(**{key: cell})
                except (*_REFUSED, RecursionError) as cause:
                    return EncodeError(f"{key}: {type(cell).__name__} cannot be written into {name}: {cause}")
        return EncodeError(f"{type(value).__name__} cannot be written as {name}: {error}")


def _make(
    message: Any,
    package: str | None = None,
    name: str | None = None,
    registry: str | None = None,
    subject: str | None = None,
    schema_id: int | None = None,
) -> Protobuf:
    return Protobuf(message, package=package, name=name, registry=registry, subject=subject, schema_id=schema_id)


def _facts(descriptor: Any, seen: set[str]) -> set[str]:
    """Of "map" and "required", those that some field reachable from here is."""
    facts: set[str] = set()
    if descriptor.full_name in seen:
        return facts
    seen.add(descriptor.full_name)
    for field in descriptor.fields:
        if _label(field) == _REQUIRED:
            facts.add("required")
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                facts.add("map")
            facts |= _facts(field.message_type, seen)
    return facts


def _label(field: Any) -> int:
    """The field's label. Newer libraries have properties for it, older ones the number."""
    if hasattr(field, "is_repeated"):
        return _REPEATED if field.is_repeated else _REQUIRED if field.is_required else _OPTIONAL
    return int(field.label)


def _how(field: Any, *, maybe: bool) -> str:
    if field.message_type is not None or _label(field) == _REPEATED or field.enum_type is not None:
        return "construct"
    return "maybe" if maybe else "set"
