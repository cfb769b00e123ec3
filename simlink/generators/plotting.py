"""Pictures of a generator: how its fields are distributed, and when its records are due."""

from __future__ import annotations

import datetime as dt
import html
import io
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simlink.block import FieldType, Kind
from simlink.errors import ConfigError, MissingExtra
from simlink.generators.describe import flat_columns, numbers_of, times_of

if TYPE_CHECKING:
    import os

    from simlink.generators.arrivals.schedule import Arrivals
    from simlink.generators.generator import Generator

__all__ = ["Plot", "plot"]

_COLUMNS = 3
_BARS = 10
_INK = "#2a6f97"
_SUFFIXES = ("png", "svg", "pdf", "html")


class Plot:
    """A picture; it shows itself in a notebook.

    Attributes:
        figure: a ``matplotlib.figure.Figure``, to go on with.
        panels: what is drawn of each field, by name: ``"numbers"``, ``"values"``, ``"ranks"``, ``"times"``,
            ``"texts"``, and ``"arrivals"``.
    """

    def __init__(self, title: str, figure: Any, panels: dict[str, str]) -> None:
        self.title, self.figure, self.panels = title, figure, panels

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write it as .png, .svg, .pdf, or .html (a page of its own, nothing is loaded from elsewhere).

        Raises:
            ConfigError: another suffix, or the file cannot be written.
        """
        path = Path(file)
        kind = path.suffix.removeprefix(".").lower()
        if kind not in _SUFFIXES:
            raise ConfigError(f"plot: a picture is .{', .'.join(_SUFFIXES)}, not {path.name!r}")
        body = self._page().encode() if kind == "html" else self._drawn(kind)
        try:
            path.write_bytes(body)
        except OSError as error:
            raise ConfigError(f"plot: cannot write {path}: {error.strerror}") from error

    def _drawn(self, kind: str) -> bytes:
        import matplotlib as mpl

        out = io.BytesIO()
        # Neither the day nor random names: the same picture is the same file.
        with mpl.rc_context({"svg.hashsalt": "simlink", "svg.fonttype": "none"}):
            self.figure.savefig(out, format=kind, metadata={"Date": None} if kind == "svg" else None)
        return out.getvalue()

    def _page(self) -> str:
        svg = self._drawn("svg").decode().partition("<svg")[2]
        title = html.escape(self.title)
        head = f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        return f"{head}<body><svg{svg}</body></html>\n"

    def _repr_png_(self) -> bytes:
        return self._drawn("png")

    def __repr__(self) -> str:
        return f"<Plot {self.title!r}: {', '.join(self.panels)}>"


def plot(generator: Generator, n: int, arrivals: Arrivals | None) -> Plot:
    """See `Generator.plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("plot", "plot", package="matplotlib") from error
    columns, rows = flat_columns(generator, n)
    title = f"{generator.name} · seed {generator.seed} · {rows:,} records"
    drawers: dict[str, tuple[str, Callable[[Any], None]]] = {}
    for name, (kind, values) in columns.items():
        drawers[name] = _drawer(name, kind, [v for v in values if v is not None])
    if arrivals is not None:
        drawers["arrivals"] = ("arrivals", _of_arrivals(arrivals, n, generator.seed))
    lines = math.ceil(len(drawers) / _COLUMNS)
    # Not pyplot: no window, no state that outlives this call.
    figure = Figure(figsize=(4 * min(_COLUMNS, len(drawers)), 2.4 * lines + 0.4), layout="constrained", dpi=80)
    figure.suptitle(title, fontsize=10)
    for i, (name, (_, draw)) in enumerate(drawers.items(), 1):
        axes = figure.add_subplot(lines, min(_COLUMNS, len(drawers)), i)
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
    return Plot(title, figure, {name: what for name, (what, _) in drawers.items()})


def _drawer(name: str, kind: FieldType, present: list[Any]) -> tuple[str, Callable[[Any], None]]:
    """What to draw of a field, and the function that does."""
    if not present:
        return "texts", lambda axes: _note(axes, "always None")
    times = times_of(name, present)
    if times is not None:
        return "times", lambda axes: _over_time(axes, times)
    numbers = numbers_of(kind, present)
    shown: list[Any] = present
    if kind.kind is Kind.LIST and numbers is not None:
        shown = numbers.astype(int).tolist()
    elif kind.kind in (Kind.ANY, Kind.RECORD):
        shown = list(map(repr, present))
    counts: Counter[Any] = Counter(shown)
    if numbers is not None and len(counts) > _BARS:
        repeated = kind.kind in (Kind.INT, Kind.UINT) and len(counts) * 2 < len(present)
        top = counts.most_common(1)[0][1]
        if repeated and top > 5 * len(present) / len(counts):
            return "ranks", lambda axes: _ranks(axes, counts)
        return "numbers", lambda axes: _histogram(axes, numbers)
    if len(counts) <= _BARS:
        return "values", lambda axes: _bars(axes, counts, len(present))
    if len(counts) == len(present):
        return "texts", lambda axes: _note(axes, f"all different, as\n{str(present[0])[:40]}")
    return "ranks", lambda axes: _ranks(axes, counts)


def _note(axes: Any, text: str) -> None:
    # Dollar signs are the data's own, no mathematics; here and wherever a name or a value is written.
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=8, transform=axes.transAxes, parse_math=False)
    axes.set_axis_off()


def _histogram(axes: Any, numbers: Any) -> None:
    low, high = np.quantile(numbers, [0.0, 0.995])
    # A long tail would leave one bar and nothing else.
    wide = high < numbers.max() - 2 * (high - low)
    axes.hist(numbers[numbers <= high] if wide else numbers, bins=40, color=_INK)
    if wide:
        axes.set_xlabel(f"0.5 % above {high:.4g}", fontsize=7)


def _bars(axes: Any, counts: Counter[Any], total: int) -> None:
    items = counts.most_common(_BARS)[::-1]
    # By place, not by label: two long texts may begin alike.
    axes.barh(range(len(items)), [100 * c / total for _, c in items], color=_INK)
    axes.set_yticks(range(len(items)), [str(v)[:24] for v, _ in items], parse_math=False)
    axes.set_xlabel("%", fontsize=7)


def _ranks(axes: Any, counts: Counter[Any]) -> None:
    frequency = sorted(counts.values(), reverse=True)
    axes.loglog(range(1, len(frequency) + 1), frequency, ".", markersize=3, color=_INK)
    axes.set_xlabel(f"rank of {len(frequency):,} values; records", fontsize=7)


def _over_time(axes: Any, seconds: Any) -> None:
    start, span = float(seconds.min()), float(np.ptp(seconds))
    unit, name = next(
        ((u, n) for u, n in ((86_400, "days"), (3_600, "hours"), (60, "minutes")) if span > 3 * u), (1, "seconds")
    )
    axes.hist((seconds - start) / unit, bins=40, color=_INK)
    began = dt.datetime.fromtimestamp(start, dt.UTC).isoformat(" ", "seconds").removesuffix("+00:00")
    axes.set_xlabel(f"{name} since {began}", fontsize=7)


def _of_arrivals(arrivals: Arrivals, n: int, seed: int) -> Callable[[Any], None]:
    due = arrivals.seeded(seed).due(0, n)
    if not len(due):
        raise ConfigError("plot: these arrivals are none")

    def draw(axes: Any) -> None:
        span = float(due[-1]) or 1.0
        counts, edges = np.histogram(due, bins=60, range=(0.0, span))
        axes.step(edges[:-1], counts / (edges[1] - edges[0]), where="post", color=_INK)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds; records a second", fontsize=7)

    return draw
