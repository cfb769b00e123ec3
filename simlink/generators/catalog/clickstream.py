"""clickstream: what the visitors of a web shop do."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from simlink import fields
from simlink.block import Column, FieldType, Kind
from simlink.errors import ConfigError
from simlink.generators import seeding
from simlink.generators.field import Bound, Context, Field, Scope, as_field
from simlink.generators.fields.relations import Indexed
from simlink.generators.fields.rhythm import Rhythm
from simlink.generators.fields.sessions import Journey, Moment, Part, Sessions
from simlink.generators.fields.texts import hex_texts
from simlink.generators.fields.times import EPOCH, to_microseconds
from simlink.generators.record import Record
from simlink.generators.seeding import Floats

__all__ = ["FAULTS", "clickstream", "funnel"]

FAULTS: Final[Mapping[str, list[tuple[str, dict[str, Any]]]]] = MappingProxyType(
    {
        "mobile network": [("late", {"p": 0.02, "by": 30.0}), ("duplicate", {"p": 0.005})],
        "retrying client": [("duplicate", {"p": 0.02}), ("out_of_order", {"p": 0.01, "window": 64})],
        "ad blocker": [("drop", {"p": 0.08})],
        "wrong clocks": [("clock_skew", {"per": "user_id", "by": 120.0, "field": "timestamp"})],
        "broken release": [("wrong_type", {"p": 0.01, "field": "price_cents"}), ("corrupt", {"p": 0.001})],
        "bot": [("hot_key", {"p": 0.3, "field": "user_id", "value": 0})],
    }
)
"""Faults that a clickstream is known for: name → (fault, arguments), in the order in which they apply."""

_SHOP = "https://shop.example"
_SECTIONS = ("books", "garden", "kitchen", "music", "office", "outdoor", "toys", "travel")
_CURRENCIES = {"DE": "EUR", "FR": "EUR", "ES": "EUR", "IT": "EUR", "NL": "EUR", "GB": "GBP", "US": "USD", "JP": "JPY"}
_REFERRERS = {
    None: 55,
    "https://search.example/": 25,
    "https://social.example/": 12,
    "https://mail.example/": 5,
    "https://deals.example/": 3,
}
_WEBKIT = "(KHTML, like Gecko)"
_AGENTS = {
    f"Mozilla/5.0 (Linux; Android 14; K) AppleWebKit/537.36 {_WEBKIT} Chrome/126.0.0.0 Mobile Safari/537.36": 38,
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 {_WEBKIT} Version/17.5 "
    "Mobile/15E148 Safari/604.1": 24,
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 {_WEBKIT} Chrome/126.0.0.0 Safari/537.36": 22,
    f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 {_WEBKIT} Version/17.5 Safari/605.1.15": 9,
    "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0": 4,
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:127.0) Gecko/20100101 Firefox/127.0": 3,
}
# 198.18.0.0/15 is set aside for benchmarks (RFC 2544): nobody's address.
_ADDRESSES = [f"198.18.{i // 250}.{i % 250 + 1}" for i in range(20_000)]

# Europe's evening is the busiest time, its night (and America's) the quietest. In UTC.
_HOURS = (
    *(1.0, 0.95, 0.85, 0.7, 0.55, 0.5, 0.55, 0.65, 0.75, 0.85, 0.9, 0.95),
    *(1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.45, 1.55, 1.55, 1.4, 1.2, 1.05),
)
_DAYS = (1.0, 0.97, 1.0, 0.97, 0.93, 1.02, 1.11)
_THINK = 10.0
_SPREAD = 1.0
_EXIT = 0.25


def funnel(conversion: float) -> dict[str, dict[str | None, float]]:
    """The probabilities of what follows an action (None: the visitor leaves) where this share of the sessions has a
    purchase.

    The more convert, the more often a view leads to a click, a click to the cart, and the cart to a purchase. With
    ``r`` the probability that a click follows a run of views, the share that converts after a view solves
    ``h = r * (again * h + cart * (buy + back * h))``, which is solved here for ``cart``.

    Raises:
        ConfigError: it is not from 0 to 0.5.
    """
    if isinstance(conversion, bool) or not isinstance(conversion, int | float) or not 0 <= conversion <= 0.5:
        raise ConfigError(f"clickstream: conversion is a share of the sessions from 0 to 0.5, not {conversion!r}")
    h = float(conversion)
    view = 0.35 * (1 - h)
    click = 1 - _EXIT - view
    r = click / (1 - view)
    again = 0.3 * (1 - h)
    buy = 0.3 + 1.4 * h
    back = 0.3 * (1 - buy)
    cart = h * (1 - r * again) / (r * (buy + back * h))
    return {
        "view": {"view": view, "click": click, None: _EXIT},
        "click": {"view": again, "cart": cart, None: 1 - again - cart},
        "cart": {"view": back, "purchase": buy, None: 1 - back - buy},
        "purchase": {"view": 0.1, None: 0.9},
    }


def clickstream(
    seed: int | None = None,
    *,
    users: int = 50_000,
    products: int = 2_000,
    skew: float = 1.1,
    rate: float = 100.0,
    conversion: float = 0.03,
    think: float | None = None,
    start: dt.datetime | dt.date | str | float = EPOCH,
    format: str = "ms",
) -> Record:
    """The events of a web shop: sessions of its visitors, from the first view to a purchase or to nothing.

    ============ =========================================================================================
    event_id     0, 1, 2, …: the row
    user_id      0 … users - 1, by Zipf's law over the sessions: the first ones come again and again
    session_id   text; one visit of one user
    action       view, click, cart or purchase; see below
    timestamp    event time, ascending, as ``format`` says
    product_id   0 … products - 1, by Zipf's law over the views; what follows a view is about the same product
    page_url     the product's page; the checkout for a purchase
    price_cents  of the product, always the same; half of them between 13 and 30 units of the currency
    country      of the user, always the same
    currency     of the user's country
    quantity     1 to 5 in a purchase, None otherwise
    order_id     text in a purchase, None otherwise
    referrer     where the visit came from, or None; the same in the whole session
    user_agent   of the user, always the same
    ip           of the user, always the same (from 198.18.0.0/15, which is nobody's)
    ============ =========================================================================================

    A session begins with a view. The next action is drawn by a Markov chain, `funnel`; between two actions passes a
    log-normal think time. Sessions begin more often by day and at the weekend: the rate swings between 0.5 and 1.7
    times its mean. How sessions and blocks go together, and what it costs, is told in
    `simlink.generators.fields.sessions`.

    ``select("user_id", "action", …)`` makes some of the fields only.

    Args:
        seed: 0 … 2**64 - 1; a random one where none is given.
        users: how many there are.
        products: how many there are.
        skew: the exponent of both Zipf laws; 0 is even.
        rate: events a second of event time, on average over a week. It does not pace anything.
        conversion: the share of the sessions in which something is bought, 0 to 0.5.
        think: the median of the time between two events of a session, in seconds. By default 10; less where the rate is
            above some 400 a second, as much as then fits: sessions last a quarter of an epoch (65,536 rows) on average
            at most.
        start: when event time begins: a datetime or date (without a zone: UTC), ISO 8601 text, or seconds since 1970.
        format: of the timestamp: ``"ms"``, ``"us"``, ``"s"`` or ``"iso"``.

    Raises:
        ConfigError: an option that is not as said, or a think time that is too long for the rate.
    """
    if isinstance(products, bool) or not isinstance(products, int) or not 1 <= products <= 1_000_000:
        raise ConfigError(f"clickstream: products is an integer from 1 to 1,000,000, not {products!r}")
    if isinstance(users, bool) or not isinstance(users, int) or not 1 <= users <= 50_000_000:
        raise ConfigError(f"clickstream: users is an integer from 1 to 50,000,000, not {users!r}")
    if isinstance(skew, bool) or not isinstance(skew, int | float) or not 0 <= skew < math.inf:
        raise ConfigError(f"clickstream: skew is a finite number from 0 up, not {skew!r}")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1e6:
        raise ConfigError(f"clickstream: rate is a number above 0, at most 1,000,000 a second, not {rate!r}")
    rhythm = Rhythm(rate, to_microseconds(start), hours=_HOURS, days=_DAYS)
    pages = [f"{_SHOP}/{_SECTIONS[i % len(_SECTIONS)]}/{i}" for i in range(products)]
    hidden = {
        "visit": Sessions(_journey(conversion, think, rate), rhythm),
        "session": Part("visit", "session"),
        "turn": Part("visit", "turn"),
    }
    shown: dict[str, Any] = {
        "event_id": fields.sequence(),
        "user_id": fields.ref("session", fields.zipf(users, skew)),
        "session_id": _SessionId(),
        "action": Part("visit", "action"),
        "timestamp": Moment("clickstream", "visit", format),
        "product_id": fields.ref("turn", fields.zipf(products, skew)),
        "page_url": fields.when("action", "purchase", f"{_SHOP}/checkout", fields.ref("product_id", pages)),
        "price_cents": Indexed(
            "product_id", (fields.lognormal(7.6, 0.6, decimals=0) | _at_least_one).returns(int), products
        ),
        "country": Indexed("user_id", fields.choice(US=30, DE=18, FR=14, GB=14, JP=8, ES=6, IT=6, NL=4), users),
        "currency": fields.ref("country", _CURRENCIES),
        "purchase": fields.when("action", "purchase", fields.ref("event_id")),
        "quantity": fields.ref("purchase", fields.choice({1: 82, 2: 11, 3: 4, 4: 2, 5: 1})),
        "order_id": fields.ref("purchase", fields.text("ORD-########")),
        "referrer": fields.ref("session", fields.choice(_REFERRERS)),
        "user_agent": Indexed("user_id", fields.choice(_AGENTS), users),
        "ip": Indexed("user_id", fields.pool(_ADDRESSES), users),
    }
    made = {name: as_field(field) for name, field in (hidden | shown).items()}
    return Record("clickstream", made, seed=seed, shown=[name for name in shown if name != "purchase"])


def _journey(conversion: float, think: float | None, rate: float) -> Journey:
    """The funnel, with as long a think time as was asked for."""
    moves = funnel(conversion)
    journey = Journey({"view": 1.0}, moves, dict.fromkeys(moves, 1.0), _SPREAD, "view", frozenset({"view"}))
    room = journey.longest_pauses(rate)
    if think is None:
        return journey.paused(min(_THINK, room * 0.999))
    if isinstance(think, bool) or not isinstance(think, int | float) or not 0 < think < math.inf:
        raise ConfigError(f"clickstream: think is a number of seconds above 0, not {think!r}")
    if think > room:
        raise ConfigError(
            f"clickstream: at a rate of {rate:g} a median think time is {room:.3g} s at most, not {think}"
        )
    return journey.paused(float(think))


def _at_least_one(cents: Floats) -> npt.NDArray[np.int64]:
    """No product is free."""
    return np.maximum(cents, 1.0).astype(np.int64)


class _SessionId(Field):
    """The session as text that tells nothing."""

    def needs(self) -> Iterator[str]:
        yield "session"

    def bind(self, scope: Scope) -> Bound:
        scope.lookup("session")

        def make(context: Context) -> Column:
            return hex_texts(seeding.hash_words(context.seed, scope.path, np.asarray(context.column("session"))))

        return Bound(FieldType(Kind.STR), make)
