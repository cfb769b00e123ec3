"""The fields of Protobuf messages, in the form that a message class takes in its constructor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simlink.generators.field import Field
from simlink.generators.fields.draws import boolean, choice, integer
from simlink.generators.fields.nesting import nested as record
from simlink.generators.fields.options import maybe
from simlink.generators.fields.relations import when
from simlink.generators.own_types import limits as make
from simlink.generators.own_types.fields_of import Overrides, nested
from simlink.generators.own_types.limits import Limits, refuse

__all__ = ["read_protobuf"]

_YEAR_2025 = 1_735_689_600


def read_protobuf(message: Any, overrides: Overrides) -> tuple[str, dict[str, Field]]:
    """The name and the fields of a message class. An enum's value is its label; of a oneof one member is there and the
    others are None, all members equally often."""
    descriptor = message.DESCRIPTOR
    return descriptor.name, _Messages(overrides).fields(descriptor, descriptor.name)


class _Messages:
    def __init__(self, overrides: Overrides) -> None:
        self.overrides = overrides
        self._inside: list[str] = []

    def fields(self, descriptor: Any, path: str) -> dict[str, Field]:
        """The fields of a message, and before them, with a # in their names, what decides about its oneofs."""
        if descriptor.full_name in self._inside:
            raise refuse(path, f"{descriptor.full_name} holds itself, without an end")
        self._inside.append(descriptor.full_name)
        try:
            hidden: dict[str, Field] = {}
            out: dict[str, Field] = {}
            for field in descriptor.fields:
                where = f"{path}.{field.name}"
                out[field.name] = self.overrides.field(where, self._maker(field, where))
            for oneof in descriptor.oneofs:
                members = [member.name for member in oneof.fields]
                if len(members) < 2:  # `optional` is one of its own
                    continue
                which = f"#{oneof.name}"
                hidden[which] = choice(members)
                for name in members:
                    out[name] = when(which, name, out[name])
            return {**hidden, **out}
        finally:
            self._inside.pop()

    def _maker(self, field: Any, path: str) -> Callable[[], Field]:
        return lambda: self._field(field, path)

    def _field(self, field: Any, path: str) -> Field:
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            if entry.fields_by_name["key"].type != field.TYPE_STRING:
                raise refuse(path, "a map whose keys are not text is not supported")
            return make.mapping(self._single(entry.fields_by_name["value"], f"{path}[]"), Limits(), path)
        single = self._single(field, path)
        if _repeated(field):
            return make.each(single, Limits(), path)
        # Where the message says itself that the field may be absent.
        oneof = field.containing_oneof
        alone = oneof is not None and len(oneof.fields) == 1
        return maybe(single) if alone else single

    def _single(self, field: Any, path: str) -> Field:
        if field.message_type is not None:
            return self._message(field, path)
        if field.enum_type is not None:
            return choice(list(field.enum_type.values_by_name))
        kinds: dict[int, Callable[[], Field]] = {
            field.CPPTYPE_INT32: lambda: make.whole(Limits(), path),
            field.CPPTYPE_INT64: lambda: make.whole(Limits(), path),
            field.CPPTYPE_UINT32: lambda: make.whole(Limits(), path),
            field.CPPTYPE_UINT64: lambda: make.whole(Limits(), path),
            field.CPPTYPE_DOUBLE: lambda: make.number(Limits(), path),
            field.CPPTYPE_FLOAT: make.float32,
            field.CPPTYPE_BOOL: boolean,
            field.CPPTYPE_STRING: lambda: (
                make.words(Limits(), path) if field.type == field.TYPE_STRING else make.binary(Limits(), path)
            ),
        }
        return kinds[field.cpp_type]()

    def _message(self, field: Any, path: str) -> Field:
        if field.type == field.TYPE_GROUP:
            raise refuse(path, "a group is not supported")
        name = field.message_type.full_name
        if name == "google.protobuf.Timestamp":
            return record(seconds=integer(_YEAR_2025, _YEAR_2025 + 365 * 86_400 - 1), nanos=_nanos())
        if name == "google.protobuf.Duration":
            return record(seconds=integer(0, 3_600), nanos=_nanos())
        if name in ("google.protobuf.Any", "google.protobuf.FieldMask"):
            raise refuse(path, f"{name} may hold what no schema tells")
        made = self.fields(field.message_type, path)
        shown = {n: f for n, f in made.items() if not n.startswith("#")}
        return nested(shown, path, {n: f for n, f in made.items() if n not in shown})


def _nanos() -> Field:
    """Whole milliseconds."""
    return make.whole(
        Limits(multiple=make.exact(1_000_000, ""), low=make.exact(0, ""), high=make.exact(999_000_000, "")), ""
    )


def _repeated(field: Any) -> bool:
    # Newer runtimes say it, and complain about the old way.
    known = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if known is None else known)
