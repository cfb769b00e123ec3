"""The web site whose access log is simulated, and the fields of a request to it.

What the site has is fixed: its files, how often each is asked for, how large it is, and how it is answered. The figures
come from a recorded log of a small public site.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from simlink.block import Coded, Column, FieldType, Kind, Masked, Pool, Schema, Struct
from simlink.generators import portable, seeding
from simlink.generators.catalog import _agents as agents
from simlink.generators.field import Bound, Context, Field, Scope
from simlink.generators.fields.chains import Shelves

__all__ = [
    "KINDS",
    "VISITORS",
    "Address",
    "Method",
    "Path",
    "Referer",
    "Resource",
    "Size",
    "Status",
    "Visitor",
    "agent",
    "protocol",
]

Ints = npt.NDArray[np.int64]
KINDS: Final = ("page", "style", "script", "image", "icon", "download", "feed", "robots", "crawl", "scan")
SITE: Final = "https://www.site.example"
STATUSES: Final = (200, 206, 301, 304, 404, 500, 502, 503)
VISITORS: Final = 100_000
_TOPICS = ("notes", "projects", "articles", "talks", "photos", "recipes")
_SCANS = (
    *("/wp-login.php", "/wp-admin/", "/xmlrpc.php", "/administrator/index.php", "/phpmyadmin/index.php", "/.env"),
    *("/.git/config", "/admin.php", "/login.php", "/shell.php", "/cgi-bin/test.cgi", "/backup.zip", "/config.php.bak"),
    *("/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php", "/server-status", "/manager/html", "/owa/auth/logon.aspx"),
)


class _Files(NamedTuple):
    """The files of one kind: their paths, how often each is asked for, the median and spread of the sizes over them,
    how much the size of one varies, and how each is answered (200, 206, 301, 304, 404)."""

    paths: Sequence[str]
    weights: Sequence[float]
    median: float
    spread: float
    varies: float
    answers: Sequence[Sequence[float]]


def _zipf(n: int, s: float) -> list[float]:
    weights: list[float] = portable.power(np.arange(1, n + 1, dtype=np.float64), -s).tolist()
    return weights


def _pages() -> list[str]:
    made = [f"/{_TOPICS[i % len(_TOPICS)]}/{i}.html" for i in range(1, 300)]
    return ["/", *(path.removesuffix(".html") if _moved(i) else path for i, path in enumerate(made, 1))]


def _moved(i: int) -> bool:
    """A folder that is linked to without its slash: the server says where it is."""
    return i % 17 == 5


def _answers(kind: str, n: int) -> list[Sequence[float]]:
    usual = {
        "page": (0.985, 0, 0, 0.015, 0),
        "style": (0.945, 0, 0, 0.055, 0),
        "script": (0.83, 0, 0, 0.17, 0),
        "image": (0.925, 0.005, 0, 0.07, 0),
        "icon": (0.985, 0, 0, 0.015, 0),
        "download": (0.75, 0.22, 0, 0.03, 0),
        "feed": (0.95, 0, 0, 0.05, 0),
        "robots": (1, 0, 0, 0, 0),
        "scan": (0, 0, 0, 0, 1),
    }
    kind = "page" if kind == "crawl" else kind
    out: list[Sequence[float]] = [usual[kind]] * n
    for i in range(n):
        if kind == "page" and _moved(i):
            out[i] = (0, 0, 1, 0, 0)
        if (kind == "page" and i % 90 == 60) or (kind == "image" and i % 60 == 14) or (kind == "download" and i == 1):
            out[i] = (0, 0, 0, 0, 1)
    return out


def _files(
    kind: str, paths: Sequence[str], weights: Sequence[float], median: float, spread: float, varies: float = 0.0
) -> _Files:
    return _Files(paths, weights, median, spread, varies, _answers(kind, len(paths)))


@lru_cache(maxsize=1)
def files() -> dict[str, _Files]:
    """The site, by kind of file."""
    pages = _pages()
    images = [f"/images/{'layout' if i < 3 else 'photo'}-{i}.{('png', 'png', 'jpg')[i % 3]}" for i in range(400)]
    downloads = [f"/files/release-1.{i}.{('tar.gz', 'pdf', 'zip')[i % 3]}" for i in range(40)]
    feeds = ["/feed.xml", *(f"/{topic}/feed.xml" for topic in _TOPICS)]
    return {
        "page": _files("page", pages, _zipf(len(pages), 0.9), 13_500, 0.7, 0.1),
        "style": _files("style", ["/css/reset.css", "/css/site.css", "/css/print.css"], [5, 5, 1], 2_300, 0.9),
        "script": _files(
            "script", [f"/js/{n}.js" for n in ("site", "menu", "chart", "maps")], [4, 3, 2, 1], 9_000, 1.2
        ),
        "image": _files("image", images, _zipf(len(images), 0.8), 46_000, 1.4),
        "icon": _files("icon", ["/favicon.ico"], [1], 3_638, 0.0),
        "download": _files("download", downloads, _zipf(len(downloads), 1.0), 900_000, 1.8),
        "feed": _files("feed", feeds, _zipf(len(feeds), 1.0), 30_000, 0.5, 0.05),
        "robots": _files("robots", ["/robots.txt"], [1], 0, 0.0),
        "crawl": _files("crawl", pages, _zipf(len(pages), 0.2), 13_500, 0.7, 0.1),
        "scan": _files("scan", _SCANS, _zipf(len(_SCANS), 0.6), 0, 0.0),
    }


class _Tables(NamedTuple):
    """The files of all kinds in one row, in the order of `KINDS`."""

    paths: Pool
    draw: Shelves
    """By kind: which file."""
    median: seeding.Floats
    varies: seeding.Floats
    length: Ints
    """Of the path, in characters."""
    manner: Ints
    """Of each file, the number of the way in which it is answered."""
    answer: Shelves
    """By way: which status."""


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    kinds = [files()[kind] for kind in KINDS]
    paths = list(itertools.chain.from_iterable(k.paths for k in kinds))
    answers = [tuple(row) for k in kinds for row in k.answers]
    ways = list(dict.fromkeys(answers))
    return _Tables(
        paths=Pool(paths),
        draw=Shelves("access_log: files", [k.weights for k in kinds]),
        median=np.concatenate([_sizes(k) for k in kinds]),
        varies=np.concatenate([np.full(len(k.paths), k.varies) for k in kinds]),
        length=np.array([len(path) for path in paths]),
        manner=np.array([ways.index(row) for row in answers]),
        answer=Shelves("access_log: answers", ways),
    )


def _sizes(of: _Files) -> seeding.Floats:
    """Log-normal over the files, and evenly spread from the first ones on (the sequence of van der Corput), so that the
    few that are asked for most are small and large ones alike."""
    levels = np.zeros(len(of.paths))
    for i in range(len(levels)):
        digits = f"{i + 1:b}"
        levels[i] = int(digits[::-1], 2) / 2 ** len(digits)
    sizes = portable.exp(portable.normal_quantile(levels) * of.spread) * of.median
    return np.rint(sizes)


def _column(context: Context, field: str, name: str) -> Any:
    struct = context.column(field)
    assert isinstance(struct, Struct)
    return struct.columns[name]


def _state(context: Context) -> Ints:
    codes: Ints = _column(context, "visit", "action").codes
    return codes


class _Request(Field):
    """A field of a request; refers to the hidden ones."""

    type = FieldType(Kind.STR)
    refers: tuple[str, ...] = ("visit",)

    def needs(self) -> Iterator[str]:
        yield from self.refers

    def bind(self, scope: Scope) -> Bound:
        for name in self.refers:
            scope.lookup(name)
        return Bound(self.type, lambda context: self.make(context, scope.path))

    def make(self, context: Context, path: str) -> Column:
        raise NotImplementedError


class Visitor(_Request):
    """Who it is: browsers first, then feed readers, crawlers and scanners. Of the session."""

    type = FieldType(Kind.INT)

    def __init__(self, visitors: int) -> None:
        self.draw = Shelves("access_log: visitors", [_zipf(*law) for law in agents.populations(visitors)])

    def make(self, context: Context, path: str) -> Column:
        words = seeding.hash_words(context.seed, path, _column(context, "visit", "session"))
        return self.draw(agents.WHO[_state(context)], words)


class OfVisitor(_Request):
    """What belongs to a visitor: made for all of them once, and looked up."""

    refers = ("visitor",)

    def __init__(self, visitors: int, values: Sequence[str], weights: Sequence[Sequence[float]]) -> None:
        self.sizes = [n for n, _ in agents.populations(visitors)]
        self.pool = Pool(values)
        self.draw = Shelves("access_log", weights)
        self._codes = lru_cache(maxsize=4)(self._all)

    def _all(self, seed: int, path: str) -> Ints:
        who = np.repeat(np.arange(len(self.sizes)), self.sizes)
        words = seeding.hash_words(seed, path, np.arange(len(who), dtype=np.uint64))
        return self.draw(who, words) - who * len(self.pool)

    def make(self, context: Context, path: str) -> Column:
        return Coded(self._codes(context.seed, path)[np.asarray(context.column("visitor"))], self.pool)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_codes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._codes = lru_cache(maxsize=4)(self._all)


class Address(_Request):
    """Of the visitor."""

    refers = ("visitor",)

    def __init__(self, visitors: int) -> None:
        self.pool = Pool(agents.addresses(visitors))

    def make(self, context: Context, path: str) -> Column:
        return Coded(np.asarray(context.column("visitor")), self.pool)


class Resource(_Request):
    """What is asked for, ``file``, and the page that it is asked for by, ``page`` (where there is one)."""

    type = FieldType(Kind.RECORD, fields=Schema("resource", dict.fromkeys(("file", "page"), FieldType(Kind.INT))))

    def make(self, context: Context, path: str) -> Column:
        event, turn = (
            seeding.hash_words(context.seed, path, _column(context, "visit", name)) for name in ("event", "turn")
        )
        draw = _tables().draw
        # The page of a turn is drawn from the turn, which is also the number of the event that began it.
        columns = {"file": draw(_state(context), event), "page": draw(np.zeros(len(turn), np.int64), turn)}
        return Struct(columns, context.length)


class Path(_Request):
    """The path of what is asked for."""

    refers = ("resource",)

    def make(self, context: Context, path: str) -> Column:
        return Coded(_column(context, "resource", "file"), _tables().paths)


class Method(_Request):
    """GET, mostly."""

    _POOL = Pool(["GET", "HEAD", "POST"])
    _WEIGHTS = Shelves(
        "access_log: methods",
        [{"crawl": (96, 4, 0), "scan": (70, 5, 25), "page": (9992, 0, 8)}.get(kind, (1, 0, 0)) for kind in KINDS],
    )

    def make(self, context: Context, path: str) -> Column:
        state = _state(context)
        return Coded(self._WEIGHTS(state, context.words(path)) - 3 * state, self._POOL)


class Status(_Request):
    """How it is answered: after the path, and after whether there is an error burst."""

    type = FieldType(Kind.INT)
    refers = ("visit", "resource")
    _SLOT = 600_000_000
    _FAILS = np.array([kind in ("page", "crawl", "feed") for kind in KINDS])
    """What is made anew for each request; files are served on."""
    _SHARE = 0.7

    def __init__(self, bursts: float) -> None:
        self.probability = bursts / 144

    def in_burst(self, seed: int, path: str, at: Ints) -> npt.NDArray[np.bool_]:
        """Whether there is an error burst at these times: at most one in every ten minutes, 30 to 300 s long."""
        slot = at // self._SLOT
        # Times ascend, so that the ten minutes of a block are few and side by side.
        changes = np.flatnonzero(slot[1:] != slot[:-1]) + 1
        lengths = np.diff(changes, prepend=0, append=len(slot))
        slots = slot[np.concatenate(([0], changes))]
        word = seeding.hash_words(seed, f"{path}#burst", slots.view(np.uint64))
        shape = seeding.hash_words(seed, f"{path}#shape", slots.view(np.uint64))
        begin = slots * self._SLOT + (shape & np.uint64(0xFFFF)).astype(np.int64) * (300_000_000 >> 16)
        length = 30_000_000 + ((shape >> np.uint64(16)) & np.uint64(0xFFFF)).astype(np.int64) * (270_000_000 >> 16)
        length[seeding.to_uniform(word) >= self.probability] = 0
        within: npt.NDArray[np.bool_] = (at >= np.repeat(begin, lengths)) & (at < np.repeat(begin + length, lengths))
        return within

    def make(self, context: Context, path: str) -> Column:
        resource = _column(context, "resource", "file")
        manner = _tables().manner[resource]
        codes = _tables().answer(manner, context.words(path)) - 5 * manner
        fails = self._FAILS[_state(context)] & self.in_burst(context.seed, path, _column(context, "visit", "at"))
        rows = np.flatnonzero(fails)
        if len(rows):
            u = context.uniform(f"{path}#failure")[rows]
            code = np.searchsorted([0.7 * self._SHARE, 0.85 * self._SHARE, self._SHARE], u, side="right") + 5
            codes[rows] = np.where(code < len(STATUSES), code, codes[rows])
        statuses: Ints = np.array(STATUSES)[codes]
        return statuses


class Size(_Request):
    """The bytes of the body; None where there is none."""

    type = FieldType(Kind.INT, optional=True)
    refers = ("resource", "status", "method")

    def make(self, context: Context, path: str) -> Column:
        tables = _tables()
        resource, status = _column(context, "resource", "file"), np.asarray(context.column("status"))
        size = tables.median[resource]
        varies = tables.varies[resource]
        words = context.words(path)
        rows = np.flatnonzero(varies)
        level = (words[rows] >> np.uint64(64 - 12)).view(np.int64)
        size[rows] *= portable.exp(varies[rows] * _normal()[level])
        part = np.flatnonzero(status == 206)
        size[part] *= seeding.to_uniform(words[part])
        told = np.flatnonzero((status != 200) & (status != 206))
        # The server's own pages say what was asked for.
        size[told] = tables.length[resource[told]] + np.where(status[told] >= 500, 530, 200)
        whole = np.rint(size).astype(np.int64)
        method = context.column("method")
        assert isinstance(method, Coded)
        return Masked((whole > 0) & (status != 304) & (method.codes != 1), whole)


@lru_cache(maxsize=1)
def _normal() -> seeding.Floats:
    """4,096 quantiles of the normal distribution: enough for the size of a page."""
    return portable.normal_quantile((np.arange(1 << 12) + 0.5) / (1 << 12))


class Referer(_Request):
    """Where the link stood that was followed."""

    refers = ("visit", "resource")
    _OUTSIDE = ("-", "https://search.example/", "https://social.example/", "https://news.example/")
    _LAW = Shelves("access_log: referers", [(52, 34, 8, 6)])
    _ASSETS = np.array([kind in ("style", "script", "image", "icon") for kind in KINDS])
    _LINKED = np.array([kind in ("page", "download") for kind in KINDS])

    def __init__(self) -> None:
        self.pool = Pool([*self._OUTSIDE, f"{SITE}/", *(SITE + path for path in files()["page"].paths)])

    def make(self, context: Context, path: str) -> Column:
        state, step = _state(context), _column(context, "visit", "step")
        words = seeding.hash_words(context.seed, path, _column(context, "visit", "session"))
        came = self._LAW(np.zeros(len(words), np.int64), words)
        page = _column(context, "resource", "page") + len(self._OUTSIDE) + 1
        codes = np.where(self._LINKED[state], np.where(step == 0, came, len(self._OUTSIDE)), 0)
        return Coded(np.where(self._ASSETS[state], page, codes), self.pool)


def agent(visitors: int) -> Field:
    """Of the visitor."""
    return OfVisitor(visitors, agents.AGENTS, agents.agent_weights())


def protocol(visitors: int) -> Field:
    """Of the visitor."""
    return OfVisitor(visitors, ["HTTP/1.1", "HTTP/1.0"], [(97, 3), (70, 30), (96, 4), (60, 40)])
