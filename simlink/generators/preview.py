"""A few records as a table."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Sequence
from typing import Any

__all__ = ["Preview"]

_WIDEST = 40


class Preview:
    """Some records as a table: text in a terminal, HTML in a notebook.

    Attributes:
        rows: the records.
    """

    def __init__(self, name: str, seed: int | None, fields: Sequence[str], rows: list[dict[str, Any]]) -> None:
        self.name = name
        self.seed = seed
        self.fields = list(fields)
        self.rows = rows

    def _title(self) -> str:
        seed = "" if self.seed is None else f" · seed {self.seed}"
        return f"{self.name}{seed} · {len(self.rows)} rows"

    def __str__(self) -> str:
        numeric = [all(_is_number(row.get(f)) for row in self.rows) for f in self.fields]
        table = [self.fields, *([_shown(row.get(f)) for f in self.fields] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [self._title()]
        for part in _parts(widths, max(shutil.get_terminal_size((120, 24)).columns, 20)):
            for cells in table:
                line = "  ".join(
                    cells[i].rjust(widths[i]) if numeric[i] and self.rows else cells[i].ljust(widths[i]) for i in part
                )
                lines.append(line.rstrip())
            lines.append("")
        return "\n".join(lines).rstrip()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(f)}</th>" for f in self.fields)
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(_shown(row.get(f)))}</td>' for f in self.fields)}</tr>"
            for row in self.rows
        )
        return (
            f"<table><caption>{html.escape(self._title())}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _shown(value: Any) -> str:
    """One line of at most 40 characters; text without its quotes, None as nothing."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    text = "".join(c if c.isprintable() else "·" for c in text)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _parts(widths: Sequence[int], space: int) -> list[list[int]]:
    """The columns in groups that fit beside one another."""
    parts: list[list[int]] = []
    used = space + 1
    for i, width in enumerate(widths):
        if used + 2 + width > space:
            parts.append([])
            used = -2
        parts[-1].append(i)
        used += 2 + width
    return parts
