"""Bodies as Confluent's clients frame them, and a small client of the Schema Registry.

The wire format (https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/#wire-format)::

    0x00 | schema id, 4 bytes, big-endian | message index | the message

The message index says which message of the schema's file it is, as a path: the top-level message, then the one nested
in it, and so on, each counted from 0 in the order of declaration. It is written as the path's length and its numbers,
variable-length zig-zag integers as in Protobuf; the path ``[0]``, by far the most common, as the single byte 0.
"""

from __future__ import annotations

import base64
import json
import threading
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from simlink.errors import ConfigError, ConnectError, DecodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import Descriptor

__all__ = ["Framing", "Registry", "index_of", "read_frame", "write_frame"]

MAGIC = 0
_ID_BYTES = 4
_DEEPEST = 32
"""Nested messages in an index; Protobuf's own parsers allow 100 levels of nesting in all."""
_LONGEST = 10
"""Bytes of a 64-bit variable-length integer."""
_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
_TIMEOUT = 10.0
_MOST = 16 * 1024 * 1024
"""Bytes of an answer."""
_BUILT_IN = ("google/protobuf/", "google/type/", "confluent/")
"""Imports that every registry knows."""


# --- frames -----------------------------------------------------------------------------------------------------------


def write_frame(schema_id: int, index: Sequence[int]) -> bytes:
    """What stands before every message of this schema and index."""
    head = bytes([MAGIC]) + schema_id.to_bytes(_ID_BYTES, "big")
    if list(index) == [0]:
        return head + b"\x00"
    return head + b"".join(map(_varint, [len(index), *index]))


def read_frame(body: bytes) -> tuple[int, list[int], int]:
    """The schema's id, the message index, and where the message begins.

    Raises:
        DecodeError: there is no such frame.
    """
    if len(body) < 1 + _ID_BYTES + 1 or body[0] != MAGIC:
        raise DecodeError("no Schema Registry frame: it begins with the byte 0, a schema id and a message index",
                          body=bytes(body))  # fmt: skip
    schema_id = int.from_bytes(body[1 : 1 + _ID_BYTES], "big")
    count, at = _read_varint(body, 1 + _ID_BYTES)
    if count == 0:
        return schema_id, [0], at
    if not 0 < count <= _DEEPEST:
        raise DecodeError(f"no Schema Registry frame: a message index of {count} numbers", body=bytes(body))
    index = []
    for _ in range(count):
        number, at = _read_varint(body, at)
        if not 0 <= number < 2**31:
            raise DecodeError(f"no Schema Registry frame: a message index of {number}", body=bytes(body))
        index.append(number)
    return schema_id, index, at


def _varint(number: int) -> bytes:
    number = number << 1 ^ number >> 63
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _LONGEST, 7):
        if at >= len(body):
            break
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value >> 1 ^ -(value & 1), at
    raise DecodeError("no Schema Registry frame: its message index is cut short, or has no end", body=bytes(body))


def index_of(descriptor: Descriptor) -> list[int]:
    """The path to a message in its file."""
    path: list[int] = []
    here = descriptor
    while here.containing_type is not None:
        path.insert(0, [nested.name for nested in here.containing_type.nested_types].index(here.name))
        here = here.containing_type
    return [list(here.file.message_types_by_name).index(here.name), *path]


class Framing:
    """The frame of one message class: writes its own schema's, and takes off those of others with the same message.

    Args:
        descriptor: of the message.
        registry: where schemas are known; None takes every id that comes, and needs ``schema_id`` to write.
        subject: what the schema is registered under when the first message is written.
        schema_id: the schema's id, where it is known; nothing is registered then.

    Raises:
        ConfigError: neither an id nor a registry; an id that fits no frame; an import that would have to be registered.
    """

    def __init__(
        self, descriptor: Descriptor, *, registry: str | None, subject: str | None, schema_id: int | None
    ) -> None:
        if registry is None and schema_id is None:
            raise ConfigError("Protobuf: subject= goes with registry=, the URL of a Schema Registry")
        if schema_id is not None and not 0 <= schema_id < 2**31:
            raise ConfigError(f"Protobuf: a schema id is a number from 0 to 2,147,483,647, not {schema_id}")
        if subject is not None and schema_id is not None:
            raise ConfigError("Protobuf: subject= says what to register, schema_id= that it was; give one of them")
        self._descriptor = descriptor
        self._index = index_of(descriptor)
        self._registry = None if registry is None else Registry(registry)
        self._subject = subject or descriptor.full_name
        self._prefix = None if schema_id is None else write_frame(schema_id, self._index)
        self._right: set[int] = set()
        if self._prefix is None:
            _check_imports(descriptor)

    @property
    def prefix(self) -> bytes:
        """What stands before a message; registers the schema when it is first asked for.

        Raises:
            ConnectError: the registry does not answer. ConfigError: it refuses the schema.
        """
        if self._prefix is None:
            assert self._registry is not None
            schema = base64.b64encode(self._descriptor.file.serialized_pb).decode()
            self._prefix = write_frame(self._registry.register(self._subject, schema), self._index)
        return self._prefix

    def strip(self, body: bytes) -> bytes:
        """The message without its frame.

        Raises:
            DecodeError: there is none, or it is of another message. ConnectError: the registry does not answer.
        """
        schema_id, index, at = read_frame(body)
        if self._registry is None or schema_id in self._right:
            if self._registry is None and index != self._index:
                raise self._other(body, f"the message at {index} of schema {schema_id}")
        else:
            name = self._registry.message_name(schema_id, index)
            if name is None:
                raise DecodeError(f"schema {schema_id} is not known to the registry, or has no message at {index}",
                                  body=bytes(body))  # fmt: skip
            if name != self._descriptor.full_name:
                raise self._other(body, name)
            if index == self._index:
                self._right.add(schema_id)
        return body[at:]

    def _other(self, body: bytes, what: str) -> DecodeError:
        return DecodeError(f"not {self._descriptor.full_name}, which is at {self._index}, but {what}", body=bytes(body))


def _check_imports(descriptor: Descriptor) -> None:
    foreign = [d.name for d in descriptor.file.dependencies if not d.name.startswith(_BUILT_IN)]
    if foreign:
        raise ConfigError(
            f"Protobuf: {descriptor.file.name} imports {foreign[0]!r}, which would have to be registered first; "
            "register both with your own tools and give schema_id="
        )


# --- the registry -----------------------------------------------------------------------------------------------------


class Registry:
    """The few questions that framing asks a Schema Registry, over its REST interface. Thread-safe; answers are kept.

    Args:
        url: ``http[s]://[user:password@]host[:port][/path]``. Certificates are verified by the system's authorities.

    Raises:
        ConfigError: it is no such URL.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError("Protobuf: registry= is the http:// or https:// URL of a Schema Registry")
        host = parts.netloc.rpartition("@")[2]
        self.url = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self._headers = {"Accept": _CONTENT_TYPE, "Content-Type": _CONTENT_TYPE}
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(secret).decode()}"
        self._guard = threading.Lock()
        self._ids: dict[tuple[str, str], int] = {}
        self._files: dict[int, Any] = {}

    def __repr__(self) -> str:
        return f"Registry({self.url})"

    def register(self, subject: str, schema: str) -> int:
        """The id of a Protobuf schema (its file descriptor in base64), which is registered where it is not yet.

        Raises:
            ConnectError: no answer. ConfigError: refused, such as for being incompatible.
        """
        with self._guard:
            known = self._ids.get((subject, schema))
            if known is None:
                answer = self._ask(
                    f"/subjects/{quote(subject, safe='')}/versions", {"schemaType": "PROTOBUF", "schema": schema}
                )
                known = self._ids[subject, schema] = _checked_id(answer, self.url)
            return known

    def message_name(self, schema_id: int, index: Sequence[int]) -> str | None:
        """The full name of a schema's message; None where there is no such schema, or no such message in it.

        Raises:
            ConnectError: no answer.
        """
        from google.protobuf.descriptor_pb2 import FileDescriptorProto

        with self._guard:
            file = self._files.get(schema_id)
            if file is None:
                answer = self._ask(f"/schemas/ids/{schema_id}?format=serialized")
                if answer is None:
                    return None  # not kept: it may be registered yet
                file = self._files[schema_id] = FileDescriptorProto()
                try:
                    if answer.get("schemaType") == "PROTOBUF":
                        file.ParseFromString(base64.b64decode(answer["schema"], validate=True))
                except Exception as error:
                    del self._files[schema_id]
                    raise ConnectError(f"{self.url}: schema {schema_id} is no file descriptor", url=self.url) from error
        messages, names = file.message_type, [file.package] if file.package else []
        for number in index:
            if number >= len(messages):
                return None
            names.append(messages[number].name)
            messages = messages[number].nested_type
        return ".".join(names)

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data=data, headers=self._headers)  # noqa: S310 – http(s), checked above
        try:
            with urlopen(request, timeout=_TIMEOUT) as reply:  # noqa: S310 – as above
                return json.loads(reply.read(_MOST))
        except HTTPError as error:
            with error:
                said = error.read(2000).decode("utf-8", "replace")
            if error.code == 404 and body is None:
                return None
            if error.code in {409, 422}:
                raise ConfigError(f"the registry at {self.url} refused the schema: {said:.500}") from error
            raise ConnectError(
                f"the registry at {self.url} answered {error.code}: {said:.200}",
                url=self.url,
                retryable=error.code >= 500,
            ) from error
        except (URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise ConnectError(
                f"no answer from the registry at {self.url}: {reason}", url=self.url, retryable=True
            ) from error


def _checked_id(answer: Any, url: str) -> int:
    found = answer.get("id") if isinstance(answer, dict) else None
    if not isinstance(found, int):
        raise ConnectError(f"the registry at {url} gave no id", url=url)
    return found
