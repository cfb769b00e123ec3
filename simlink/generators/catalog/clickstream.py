"""clickstream: what the visitors of a web shop do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from simlink import fields
from simlink.block import Column, FieldType, Kind
from simlink.errors import ConfigError
from simlink.generators import seeding
from simlink.generators.field import Bound, Context, Field, Scope
from simlink.generators.record import Record, record
from simlink.generators.seeding import Floats
from simlink.generators.texts import hex_texts

__all__ = ["clickstream"]

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


def clickstream(
    seed: int | None = None,
    *,
    users: int = 50_000,
    products: int = 2_000,
    skew: float = 1.1,
    rate: float = 100.0,
    format: str = "ms",
) -> Record:
    """The events of a web shop: views, clicks and purchases.

    ============ =========================================================================================
    event_id     0, 1, 2, …: the row
    user_id      0 … users - 1, by Zipf's law
    session_id   text; a user's events within one half hour (of event time) share it
    action       view 80 %, click 17 %, purchase 3 %
    timestamp    event time, one event each 1 / rate seconds from 2025-01-01T00:00:00Z on, as ``format`` says
    product_id   0 … products - 1, by Zipf's law
    page_url     the product's page; the checkout for a purchase
    price_cents  of the product, always the same; half of them between 13 and 30 units of the currency
    country      of the user, always the same
    currency     of the user's country
    quantity     1 to 5 in a purchase, None otherwise
    order_id     text in a purchase, None otherwise
    referrer     where the visit came from, or None
    user_agent   of the user, always the same
    ip           of the user, always the same (from 198.18.0.0/15, which is nobody's)
    ============ =========================================================================================

    ``select("user_id", "action", …)`` makes some of the fields only.

    Args:
        seed: 0 … 2**64 - 1; a random one where none is given.
        users: how many there are.
        products: how many there are.
        skew: the exponent of both Zipf laws; 0 is even.
        rate: events a second of event time. It does not pace anything.
        format: of the timestamp: ``"ms"``, ``"us"``, ``"s"`` or ``"iso"``.

    Raises:
        ConfigError: an option that is not as said.
    """
    if isinstance(products, bool) or not isinstance(products, int) or not 1 <= products <= 1_000_000:
        raise ConfigError(f"clickstream: products is an integer from 1 to 1,000,000, not {products!r}")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1e6:
        raise ConfigError(f"clickstream: rate is a number above 0, at most 1,000,000 a second, not {rate!r}")
    pages = [f"{_SHOP}/{_SECTIONS[i % len(_SECTIONS)]}/{i}" for i in range(products)]
    return record(
        "clickstream",
        seed=seed,
        event_id=fields.sequence(),
        user_id=fields.zipf(users, skew),
        session_id=_SessionId("user_id", rate),
        action=fields.choice(view=80, click=17, purchase=3),
        timestamp=fields.event_time(step=1 / rate, format=format),
        product_id=fields.zipf(products, skew),
        page_url=fields.when("action", "purchase", f"{_SHOP}/checkout", fields.ref("product_id", pages)),
        price_cents=fields.ref("product_id", fields.lognormal(7.6, 0.6, decimals=0) | _at_least_one).returns(int),
        country=fields.ref("user_id", fields.choice(US=30, DE=18, FR=14, GB=14, JP=8, ES=6, IT=6, NL=4)),
        currency=fields.ref("country", _CURRENCIES),
        quantity=fields.when("action", "purchase", fields.choice({1: 82, 2: 11, 3: 4, 4: 2, 5: 1})),
        order_id=fields.when("action", "purchase", fields.text("ORD-########")),
        referrer=fields.choice(_REFERRERS),
        user_agent=fields.ref("user_id", fields.choice(_AGENTS)),
        ip=fields.ref("user_id", fields.pool(_ADDRESSES)),
    )


def _at_least_one(cents: Floats) -> npt.NDArray[np.int64]:
    """No product is free."""
    return np.maximum(cents, 1.0).astype(np.int64)


_SESSION_SECONDS = 1800


class _SessionId(Field):
    """One id for a user's events in one half hour of event time.

    The half hours of different users begin at different times. They are fixed, so that a block needs nothing from the
    one before it; the price is that a session may be cut in two at its boundary.
    """

    def __init__(self, user: str, rate: float) -> None:
        self.user = user
        self.rows = max(1, round(_SESSION_SECONDS * rate))

    def needs(self) -> Iterator[str]:
        yield self.user

    def bind(self, scope: Scope) -> Bound:
        scope.lookup(self.user)

        def make(context: Context) -> Column:
            user = seeding.hash_words(
                context.seed, f"{scope.path}#user", np.asarray(context.column(self.user)).view(np.uint64)
            )
            offset = (user % np.uint64(self.rows)).view(np.int64)
            slot = (context.positions() + offset) // self.rows
            return hex_texts(seeding.hash_words(context.seed, scope.path, user + slot.view(np.uint64)))

        return Bound(FieldType(Kind.STR), make)
