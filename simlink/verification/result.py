"""What a verification found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, ClassVar

from simlink.running.sheet import Sheet

__all__ = ["Difference", "Verification", "field_differences"]


class _Missing:
    """Stands for a field that is not there."""

    def __repr__(self) -> str:
        return "missing"

    def __reduce__(self) -> str:
        return "_MISSING"


_MISSING = _Missing()


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that came with another body than it was sent with.

    Attributes:
        row: its index in the source.
        expected: the body that the source and the serializer make.
        got: the body that came.
        fields: where both can be read: (field, expected value, value that came) of the first fields that differ, at
            most 10; a field that is not there is `Difference.MISSING`. Empty where the body that came cannot be read.
    """

    row: int
    expected: bytes
    got: bytes
    fields: tuple[tuple[str, Any, Any], ...] = ()

    MISSING: ClassVar[Any] = _MISSING

    def __str__(self) -> str:
        if self.fields:
            told = ", ".join(f"{name} is {_brief(got)} instead of {_brief(want)}" for name, want, got in self.fields)
            return f"row {self.row}: {told}"
        return f"row {self.row}: expected {_short(self.expected)}, got {_short(self.got)}"


def field_differences(expected: Any, got: Any, most: int = 10) -> tuple[tuple[str, Any, Any], ...]:
    """(field, expected, got) of the fields that differ, nested ones with dots, in the expected record's order."""
    return tuple(islice(_differing("", expected, got), most))


def _differing(path: str, expected: Any, got: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        for name in dict.fromkeys((*expected, *got)):
            yield from _differing(
                f"{path}.{name}" if path else str(name), *(v.get(name, _MISSING) for v in (expected, got))
            )
    elif isinstance(expected, list) and isinstance(got, list) and path:
        for i in range(max(len(expected), len(got))):
            yield from _differing(f"{path}.{i}", *(v[i] if i < len(v) else _MISSING for v in (expected, got)))
    elif bool(expected != got):
        yield path or "value", expected, got


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _short(body: bytes) -> str:
    return repr(body if len(body) <= 120 else body[:117] + b"...")


@dataclass(frozen=True, kw_only=True)
class Verification(Sheet):
    """What a comparison with the source found.

    Attributes:
        source, seed: what it was compared with.
        expected: how many records should have come.
        received: messages that came.
        unique: different records among them that were expected.
        lost: expected records that did not come.
        duplicated: messages whose record had come before.
        redelivered: messages that the transport had marked as handed out again: so many repeats it owns up to.
        reordered: records that came for the first time after a later one of the same sender and key; without a key, of
            the same sender.
        corrupt: messages with another body than the source makes.
        unexpected: messages that belong to no expected record: without an identity, or of a row that is not there.
        beyond: messages of later rows of the source than were asked for.
        order_kept: False when records of one key came out of order on a transport that promises their order.
        missing: the first lost rows, at most 10.
        differences: the first corrupt ones, at most 10.
        seconds, rate: from the first to the last message; messages a second.
        injected: of a source with faults: how often each was done to what is expected, by name; nothing of it is
            counted as lost, duplicated, reordered or corrupt. None for a source without faults.
        violated: how often an invariant does not hold; None where none was asked for.
        violations: the first of these, at most 10, in words.
        latency_ms: from the intended send time to the comparison: p50, p90, p99, max; None where nothing is stamped.
    """

    source: str
    seed: int | None
    expected: int
    received: int
    unique: int
    lost: int
    duplicated: int
    redelivered: int
    reordered: int
    corrupt: int
    unexpected: int
    beyond: int
    order_kept: bool
    missing: tuple[int, ...]
    differences: tuple[Difference, ...]
    seconds: float
    rate: float
    latency_ms: dict[str, float] | None
    injected: dict[str, int] | None = None
    violated: int | None = None
    violations: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Nothing is lost, corrupt or unexpected, no more is repeated than at-least-once allows, the order that the
        transport promises was kept, and so were the invariants."""
        wrong = self.lost or self.corrupt or self.unexpected or self.violated
        return not wrong and self.duplicated <= self.redelivered and self.order_kept

    def __bool__(self) -> bool:
        return self.ok

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as ``--json`` prints them."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["missing"] = list(self.missing)
        out["differences"] = [str(d) for d in self.differences]
        out["violations"] = list(self.violations)
        out["ok"] = self.ok
        return out

    def _rows(self) -> list[tuple[str, str]]:
        names = ("expected", "received", "unique", "lost", "duplicated", "reordered", "corrupt", "unexpected", "beyond")
        hidden = ("unexpected", "beyond")
        rows = [(name, f"{getattr(self, name):,}") for name in names if name not in hidden or getattr(self, name)]
        rows.append(("rate", f"{self.rate:,.1f}/s in {self.seconds:.3f} s"))
        if self.latency_ms is not None:
            rows.append(("latency", ", ".join(f"{n} {v:,.2f} ms" for n, v in self.latency_ms.items())))
        if self.injected is not None:
            rows.append(("injected", ", ".join(f"{name} {n:,}" for name, n in self.injected.items())))
        if self.missing:
            more = ", …" if self.lost > len(self.missing) else ""
            rows.append(("missing", "rows " + ", ".join(map(str, self.missing)) + more))
        rows += [("differs", str(d)) for d in self.differences]
        if self.violated is not None:
            rows.append(("violated", f"{self.violated:,}"))
        rows += [("violates", text) for text in self.violations]
        rows.append(("seed", "none" if self.seed is None else str(self.seed)))
        return rows

    def _title(self) -> str:
        return f"{self.source}: {'complete and unchanged' if self.ok else 'NOT as sent'}"
