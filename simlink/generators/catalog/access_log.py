"""access_log: what a web server writes down about its visitors."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from simlink import fields
from simlink.errors import ConfigError
from simlink.generators.catalog import _site as site
from simlink.generators.catalog._combined import CombinedLog, LogTime
from simlink.generators.field import as_field
from simlink.generators.fields.rhythm import Rhythm
from simlink.generators.fields.sessions import Journey, Sessions
from simlink.generators.fields.times import EPOCH, to_microseconds
from simlink.generators.generator import Generator
from simlink.generators.record import Record

__all__ = ["FAULTS", "access_log"]

FAULTS: Final[Mapping[str, list[tuple[str, dict[str, Any]]]]] = MappingProxyType(
    {
        "several servers": [("out_of_order", {"p": 0.05, "window": 256})],
        "log shipper restarted": [("duplicate", {"p": 0.01}), ("late", {"p": 0.01, "by": 60.0})],
        "disk full": [("truncate", {"p": 0.002}), ("drop", {"p": 0.01})],
        "wrong clocks": [("clock_skew", {"per": "address", "by": 300.0, "field": "timestamp"})],
        "garbage": [("corrupt", {"p": 0.002})],
        "one busy address": [("hot_key", {"p": 0.3, "field": "address", "value": "198.18.0.1"})],
    }
)
"""Faults that access logs are known for: name → (fault, arguments), in the order in which they apply."""

_HOURS = (
    *(0.85, 0.82, 0.8, 0.78, 0.78, 0.8, 0.82, 0.85, 0.9, 0.95, 1.05, 1.1),
    *(1.12, 1.15, 1.18, 1.2, 1.18, 1.18, 1.16, 1.16, 1.14, 1.08, 0.98, 0.9),
)
_DAYS = (1.03, 1.06, 1.06, 1.05, 1.0, 0.9, 0.9)

_JOURNEY = Journey(
    start={"page": 34, "download": 2, "feed": 22, "robots": 2.5, "crawl": 9.5, "scan": 0.3},
    moves={
        "page": {"style": 0.34, "image": 0.16, "script": 0.04, "page": 0.14, "download": 0.01, None: 0.31},
        "style": {"style": 0.44, "image": 0.40, "script": 0.04, "icon": 0.05, "page": 0.03, None: 0.04},
        "script": {"script": 0.35, "image": 0.45, "icon": 0.05, "page": 0.05, None: 0.10},
        "image": {"image": 0.62, "icon": 0.19, "page": 0.07, None: 0.12},
        "icon": {"page": 0.22, "image": 0.02, None: 0.76},
        "download": {"download": 0.25, "page": 0.15, None: 0.60},
        "feed": {"feed": 0.08, None: 0.92},
        "robots": {"crawl": 0.5, "robots": 0.1, None: 0.4},
        "crawl": {"crawl": 0.5, "robots": 0.01, None: 0.49},
        "scan": {"scan": 0.85, None: 0.15},
    },
    pauses={
        "page": 20.0,
        "style": 0.2,
        "script": 0.2,
        "image": 0.3,
        "icon": 0.5,
        "download": 15.0,
        "feed": 60.0,
        "robots": 5.0,
        "crawl": 20.0,
        "scan": 0.5,
    },
    spread=1.0,
    single="feed",
    turns=frozenset({"page", "download"}),
)


def access_log(
    seed: int | None = None,
    *,
    format: Literal["json", "combined"] = "json",
    rate: float = 10.0,
    visitors: int = 20_000,
    bursts: float = 2.0,
    start: dt.datetime | dt.date | str | float = EPOCH,
) -> Generator:
    """The requests that a web server answered: visitors with browsers, feed readers, crawlers and scanners.

    ========= ============================================================================================
    address   the visitor's; a few of crawlers and feed readers come again and again, by Zipf's law
    ident     ``-``
    user      ``-``
    timestamp ISO 8601 with the offset +00:00, whole seconds, ascending
    method    GET, HEAD or POST
    path      what was asked for
    protocol  HTTP/1.1 or HTTP/1.0, of the visitor
    request   None: the request is always ``method path protocol``
    status    200, 206, 301, 304, 404, or 500, 502, 503; it depends on the path and on error bursts
    bytes     of the body; None where there is none (304, HEAD)
    referer   the page that an image or style belongs to, where a visit came from, or ``-``
    agent     of the visitor
    ========= ============================================================================================

    These are the fields that `simlink.replay` reads from a log. With ``format="combined"`` a record is the line itself,
    text in the Combined Log Format for the serializer `simlink.Text`, and its fields are the same as of the JSON twin
    with the same seed.

    A visit is a session: a page, its styles, scripts and images with short pauses, then perhaps another page. Address,
    agent and protocol are the visitor's. Scanners ask for what is not there. The site is the same for every seed: sizes
    are log-normal over the files of a kind; a file has one size, while that of a page, which is made anew for each
    request, is log-normal around the page's own. In an error burst, half a minute to five minutes long, most pages
    fail.

    The addresses are nobody's: 198.18.0.0/15 (RFC 2544) and the three networks of RFC 5737.

    Args:
        seed: 0 … 2**64 - 1; a random one where none is given.
        format: ``"json"`` for records, ``"combined"`` for lines.
        rate: requests a second of event time, on average over a week. Above some 950 a second the pauses of a visit are
            shortened as much as is needed for visits to fit an epoch (65,536 rows); see
            `simlink.generators.fields.sessions`.
        visitors: addresses with browsers, 1 … 100,000.
        bursts: error bursts a day, on average, 0 … 144.
        start: when event time begins: a datetime or date (without a zone: UTC), ISO 8601 text, or seconds since 1970.

    Raises:
        ConfigError: an option that is not as said.
    """
    if format not in ("json", "combined"):
        raise ConfigError(f"access_log: format is 'json' or 'combined', not {format!r}")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1e6:
        raise ConfigError(f"access_log: rate is a number above 0, at most 1,000,000 a second, not {rate!r}")
    if isinstance(visitors, bool) or not isinstance(visitors, int) or not 1 <= visitors <= site.VISITORS:
        raise ConfigError(f"access_log: visitors is an integer from 1 to {site.VISITORS:,}, not {visitors!r}")
    if isinstance(bursts, bool) or not isinstance(bursts, int | float) or not 0 <= bursts <= 144:
        raise ConfigError(f"access_log: bursts is a number a day, from 0 to 144, not {bursts!r}")
    rhythm = Rhythm(rate, to_microseconds(start), hours=_HOURS, days=_DAYS)
    hidden: dict[str, Any] = {
        "visit": Sessions(_JOURNEY.paused(min(1.0, _JOURNEY.longest_pauses(rate) * 0.999)), rhythm),
        "visitor": site.Visitor(visitors),
        "resource": site.Resource(),
    }
    shown: dict[str, Any] = {
        "address": site.Address(visitors),
        "ident": "-",
        "user": "-",
        "timestamp": LogTime(),
        "method": site.Method(),
        "path": site.Path(),
        "protocol": site.protocol(visitors),
        "request": fields.constant(None).returns(str),
        "status": site.Status(bursts),
        "bytes": site.Size(),
        "referer": site.Referer(),
        "agent": site.agent(visitors),
    }
    made = {name: as_field(field) for name, field in (hidden | shown).items()}
    log = Record("access_log", made, seed=seed, shown=list(shown))
    return log if format == "json" else CombinedLog(log)
