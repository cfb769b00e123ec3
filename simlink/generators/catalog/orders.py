"""orders: what the services of a shop tell each other about an order, until it is shipped or undone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from simlink import fields
from simlink.block import Coded, Column, FieldType, Kind, Masked, Pool, Struct
from simlink.errors import ConfigError
from simlink.generators import seeding
from simlink.generators.catalog._saga import STEPS, Books, journey
from simlink.generators.field import Bound, Context, Field, Scope, as_field
from simlink.generators.fields.rhythm import Rhythm
from simlink.generators.fields.sessions import Moment, Part, Sessions
from simlink.generators.fields.texts import hex_texts
from simlink.generators.fields.times import EPOCH, to_microseconds
from simlink.generators.invariant import Invariant
from simlink.generators.record import Record
from simlink.generators.seeding import Floats

__all__ = ["FAULTS", "Orders", "orders"]

FAULTS: Final[Mapping[str, list[tuple[str, dict[str, Any]]]]] = MappingProxyType(
    {
        "at least once": [("duplicate", {"p": 0.02})],
        "lost message": [("drop", {"p": 0.001})],
        "services overtake": [("out_of_order", {"p": 0.05, "window": 64}), ("late", {"p": 0.01, "by": 10.0})],
        "wrong clocks": [("clock_skew", {"per": "service", "by": 5.0, "field": "timestamp"})],
        "cents as text": [("wrong_type", {"p": 0.002, "field": "amount_cents"})],
        "big customer": [("hot_key", {"p": 0.2, "field": "customer_id", "value": 0})],
    }
)
"""Faults that such events are known for: name → (fault, arguments), in the order in which they apply."""

_PART = 0.125
"""Of what `Sessions` takes, how long an order may last: so short that none is cut by the end of an epoch."""


def orders(
    seed: int | None = None,
    *,
    rate: float = 50.0,
    rejected: float = 0.1,
    failures: float = 0.1,
    retries: float = 0.04,
    customers: int = 20_000,
    start: dt.datetime | dt.date | str | float = EPOCH,
    format: str = "ms",
) -> Orders:
    """The events of orders across services: order, payment, inventory, shipment, notification.

    =============== ====================================================================================
    event_id        text, of this event only
    caused_by       the event before it of the same order, or None
    correlation_id  text, the same in all events of an order
    order_id        text
    step            0, 1, 2, … within the order
    service         order, payment, inventory, shipment or notification
    type            as ``payment.captured``
    attempt         1, or 2 where the same operation is tried again
    idempotency_key text, the same in every attempt of an operation
    customer_id     0 … customers - 1, by Zipf's law
    sku             text, by Zipf's law
    quantity        of the order, where goods are moved; None otherwise
    amount_cents    of the order, where money is moved; None otherwise
    timestamp       event time, ascending, as ``format`` says
    status          open; completed, cancelled or rejected in the last event
    =============== ====================================================================================

    An order is placed, paid, reserved, dispatched, and the customer is told. What fails is undone: what was reserved is
    released, what was paid is refunded, the order is cancelled, and the customer is told too. So amounts are conserved;
    `Orders.books` checks that. A payment may time out, and any answer may be lost; then the same operation comes again,
    with the same idempotency key. Each step has a log-normal delay, with a median of 0.1 s (order) to 20 s (shipment).

    Orders are sessions, as told in `simlink.generators.fields.sessions`: the events of many go on at a time, any block
    can be made alone, and rejected orders make up an epoch's rows. None is cut.

    Args:
        seed: 0 … 2**64 - 1; a random one where none is given.
        rate: events a second of event time. It does not pace anything. Delays are shortened above some 90 a second, as
            much as is needed for orders to end within an epoch (65,536 rows).
        rejected: the share of the orders that are rejected at once, 0.02 … 0.5; right on average, and a few per cent
            more or less in an epoch.
        failures: the share of the placed orders that are cancelled, 0 … 1.
        retries: the probability that a payment, a reservation, a notification is tried again, 0 … 0.5.
        customers: how many.
        start: when event time begins.
        format: of the timestamp: ``"ms"``, ``"us"``, ``"s"`` or ``"iso"``.

    Raises:
        ConfigError: an option that is not as said.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1e6:
        raise ConfigError(f"orders: rate is a number above 0, at most 1,000,000 a second, not {rate!r}")
    if isinstance(customers, bool) or not isinstance(customers, int) or not 1 <= customers <= 50_000_000:
        raise ConfigError(f"orders: customers is an integer from 1 to 50,000,000, not {customers!r}")
    bounds = {"rejected": (0.02, rejected, 0.5), "failures": (0.0, failures, 1.0), "retries": (0.0, retries, 0.5)}
    for name, (least, value, most) in bounds.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ConfigError(f"orders: {name} is a share from {least} to {most}, not {value!r}")
    saga = journey(float(rejected), float(failures), float(retries))
    saga = saga.paused(min(1.0, saga.longest_pauses(rate) * _PART))
    hidden = {
        "saga": Sessions(saga, Rhythm(rate, to_microseconds(start))),
        "order": Part("saga", "session"),
        "pieces": fields.ref("order", fields.choice({1: 70, 2: 18, 3: 7, 4: 3, 5: 2})),
        "item": fields.ref("order", fields.zipf(500, 0.9)),
        "price": fields.ref("item", fields.lognormal(7.6, 0.6, decimals=0) | _at_least_one),
        "total": _Total(),
    }
    shown: dict[str, Any] = {
        "event_id": _Event(0),
        "caused_by": _Event(1),
        "correlation_id": fields.ref("order", fields.text("^^^^^^^^^^^^^^^^")),
        "order_id": _OrderId(),
        "step": Part("saga", "step"),
        "service": _Told([step.service for step in STEPS.values()], Kind.STR),
        "type": _Told([step.type for step in STEPS.values()], Kind.STR),
        "attempt": _Told([step.attempt for step in STEPS.values()], Kind.INT),
        "idempotency_key": _Operation(),
        "customer_id": fields.ref("order", fields.zipf(customers)),
        "sku": fields.ref("item", fields.text("SKU-####-??")),
        "quantity": _Moved("pieces", [step.goods for step in STEPS.values()]),
        "amount_cents": _Moved("total", [step.money for step in STEPS.values()]),
        "timestamp": Moment("orders", "saga", format),
        "status": _Told([step.status for step in STEPS.values()], Kind.STR),
    }
    made = {name: as_field(value) for name, value in (hidden | shown).items()}
    return Orders("orders", made, seed=seed, shown=list(shown))


def _at_least_one(cents: Floats) -> npt.NDArray[np.int64]:
    """Nothing is free."""
    return np.maximum(cents, 1.0).astype(np.int64)


class Orders(Record):
    """The generator that `orders` makes."""

    def books(self) -> Books:
        """Empty books, to enter events in: those of this generator, or those that were received."""
        return Books()

    def invariants(self) -> list[Invariant]:
        """That amounts are conserved."""
        return [self.books()]


_OPERATIONS: Final = sorted({step.type.replace("timeout", "captured") for step in STEPS.values()})
"""A payment that timed out and the one that is tried again are the same operation."""


def _state(context: Context) -> npt.NDArray[np.integer[Any]]:
    """The state of each row, as an index of `STEPS`."""
    saga = context.column("saga")
    assert isinstance(saga, Struct)
    action = saga.columns["action"]
    assert isinstance(action, Coded)
    return action.codes


class _OfSaga(Field):
    def needs(self) -> Iterator[str]:
        yield "saga"


class _Told(_OfSaga):
    """What the step says by itself."""

    def __init__(self, values: list[Any], kind: Kind) -> None:
        self.values, self.kind = values, kind

    def bind(self, scope: Scope) -> Bound:
        scope.lookup("saga")
        distinct = list(dict.fromkeys(self.values))
        pool, index = Pool(distinct), np.array([distinct.index(value) for value in self.values])
        return Bound(FieldType(self.kind), lambda context: Coded(index[_state(context)], pool))


class _Moved(_OfSaga):
    """A number of the order, in the steps that move it."""

    def __init__(self, field: str, moves: list[bool]) -> None:
        self.field, self.moves = field, np.array(moves)

    def needs(self) -> Iterator[str]:
        yield from ("saga", self.field)

    def bind(self, scope: Scope) -> Bound:
        scope.lookup("saga")
        scope.lookup(self.field)

        def make(context: Context) -> Column:
            return Masked(self.moves[_state(context)], context.column(self.field))

        return Bound(FieldType(Kind.INT, optional=True), make)


class _Total(Field):
    """Pieces times price."""

    def needs(self) -> Iterator[str]:
        yield from ("pieces", "price")

    def bind(self, scope: Scope) -> Bound:
        scope.lookup("pieces")
        scope.lookup("price")

        def make(context: Context) -> Column:
            pieces = context.column("pieces")
            many = pieces.pool.array[pieces.codes].astype(np.int64) if isinstance(pieces, Coded) else np.asarray(pieces)
            total: Column = many * np.asarray(context.column("price"))
            return total

        return Bound(FieldType(Kind.INT), make)


class _Event(_OfSaga):
    """A name for the event of this row, or of the one before it of the same order."""

    def __init__(self, back: int) -> None:
        self.back = back

    def bind(self, scope: Scope) -> Bound:
        scope.lookup("saga")
        path = f"{scope.path.rpartition('.')[0]}#event"

        def make(context: Context) -> Column:
            saga = context.column("saga")
            assert isinstance(saga, Struct)
            event = np.asarray(saga.columns["event"]) - np.uint64(self.back)
            texts = hex_texts(seeding.hash_words(context.seed, path, event))
            return Masked(np.asarray(saga.columns["step"]) > 0, texts) if self.back else texts

        return Bound(FieldType(Kind.STR, optional=bool(self.back)), make)


class _OrderId(Field):
    """The order as text that no other order has."""

    def needs(self) -> Iterator[str]:
        yield "order"

    def bind(self, scope: Scope) -> Bound:
        scope.lookup("order")
        return Bound(FieldType(Kind.STR), lambda context: hex_texts(np.asarray(context.column("order"))))


class _Operation(Field):
    """What an attempt is an attempt of."""

    def needs(self) -> Iterator[str]:
        yield from ("saga", "order")

    def bind(self, scope: Scope) -> Bound:
        scope.lookup("saga")
        scope.lookup("order")
        kinds = [_OPERATIONS.index(step.type.replace("timeout", "captured")) for step in STEPS.values()]
        index = np.array(kinds, np.uint64)

        def make(context: Context) -> Column:
            # An order's number is far below 2**58.
            key = np.asarray(context.column("order")) * np.uint64(64) + index[_state(context)]
            return hex_texts(seeding.hash_words(context.seed, scope.path, key))

        return Bound(FieldType(Kind.STR), make)
