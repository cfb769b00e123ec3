"""A title and labelled values, as text in a terminal and as a table in a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence

__all__ = ["Sheet"]


class Sheet:
    """What is shown as a sheet: give it `_title` and `_rows`, and it has ``__str__`` and ``_repr_html_``."""

    __slots__ = ()

    def _title(self) -> str:
        raise NotImplementedError

    def _rows(self) -> Sequence[tuple[str, str]]:
        raise NotImplementedError

    def __str__(self) -> str:
        rows = self._rows()
        width = max(len(label) for label, _ in rows)
        return "\n".join([self._title(), *(f"  {label:<{width}}  {value}" for label, value in rows)])

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(label)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for label, value in self._rows()
        )
        return f"<table><caption>{html.escape(self._title())}</caption>{cells}</table>"
