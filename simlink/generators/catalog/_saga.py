"""What can happen to an order, step by step, and the books that must balance afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np

from simlink.errors import ConfigError
from simlink.generators import portable
from simlink.generators.fields.sessions import Journey

__all__ = ["STEPS", "Books", "Step", "journey"]


class Step(NamedTuple):
    """An event of an order.

    Attributes:
        type: as ``payment.captured``; what stands before the dot is the service.
        attempt: 1, or 2 where it is tried again.
        money: whether it has the amount.
        goods: whether it has the quantity.
        status: of the order after it.
    """

    type: str
    attempt: int = 1
    money: bool = False
    goods: bool = False
    status: str = "open"

    @property
    def service(self) -> str:
        return self.type.partition(".")[0]


STEPS: Final = {
    "rejected": Step("order.rejected", money=True, goods=True, status="rejected"),
    "placed": Step("order.placed", money=True, goods=True),
    "timeout": Step("payment.timeout"),
    "captured": Step("payment.captured", money=True),
    "captured lost": Step("payment.captured", money=True),
    "captured again": Step("payment.captured", 2, money=True),
    "declined": Step("payment.declined"),
    "reserved": Step("inventory.reserved", goods=True),
    "reserved lost": Step("inventory.reserved", goods=True),
    "reserved again": Step("inventory.reserved", 2, goods=True),
    "out of stock": Step("inventory.failed"),
    "dispatched": Step("shipment.dispatched", goods=True),
    "undelivered": Step("shipment.failed"),
    "released": Step("inventory.released", goods=True),
    "refunded": Step("payment.refunded", money=True),
    "cancelled": Step("order.cancelled"),
    "told": Step("notification.sent", status="completed"),
    "told lost": Step("notification.sent"),
    "told again": Step("notification.sent", 2, status="completed"),
    "excused": Step("notification.sent", status="cancelled"),
    "excused lost": Step("notification.sent"),
    "excused again": Step("notification.sent", 2, status="cancelled"),
}
"""What the states of the chain are. A state that is lost is done, but its answer does not arrive, so it comes again."""

_DELAYS: Final = {"payment": 0.8, "inventory": 0.3, "shipment": 20.0, "notification": 1.0, "order": 0.1}
"""The median of the time before an event of this service, in seconds."""
_TIMEOUT: Final = 5.0
_SHOWN: Final = 10


def journey(rejected: float, failures: float, retries: float) -> Journey:
    """The chain of the steps.

    Args:
        rejected: the share of the orders that are rejected at once.
        failures: the share of the placed orders that are undone: a third each, roughly, by the payment, the inventory
            and the shipment.
        retries: the probability of each payment, reservation and notification to be tried again.
    """
    cube_root = float(portable.power(np.array([1 - failures]), 1 / 3)[0]) if failures < 1 else 0.0
    fails = 1 - cube_root
    paid: dict[str | None, float] = {
        "out of stock": fails,
        "reserved": (1 - fails) * (1 - retries),
        "reserved lost": (1 - fails) * retries,
    }
    stocked: dict[str | None, float] = {"dispatched": 1 - fails, "undelivered": fails}
    told: dict[str | None, float] = {"told": 1 - retries, "told lost": retries}
    excused: dict[str | None, float] = {"excused": 1 - retries, "excused lost": retries}
    moves: dict[str, Mapping[str | None, float]] = {
        "rejected": {None: 1.0},
        "placed": {
            "declined": fails,
            "captured": (1 - fails) * (1 - retries),
            "timeout": (1 - fails) * retries / 2,
            "captured lost": (1 - fails) * retries / 2,
        },
        "timeout": {"captured again": 1.0},
        "captured": paid,
        "captured lost": {"captured again": 1.0},
        "captured again": paid,
        "declined": {"cancelled": 1.0},
        "reserved": stocked,
        "reserved lost": {"reserved again": 1.0},
        "reserved again": stocked,
        "out of stock": {"refunded": 1.0},
        "dispatched": told,
        "undelivered": {"released": 1.0},
        "released": {"refunded": 1.0},
        "refunded": {"cancelled": 1.0},
        "cancelled": excused,
        "told": {None: 1.0},
        "told lost": {"told again": 1.0},
        "told again": {None: 1.0},
        "excused": {None: 1.0},
        "excused lost": {"excused again": 1.0},
        "excused again": {None: 1.0},
    }
    pauses = {name: _TIMEOUT if step.attempt > 1 else _DELAYS[step.service] for name, step in STEPS.items()}
    start = {"rejected": rejected, "placed": 1 - rejected}
    return Journey(start, moves, pauses, 0.5, "rejected", frozenset())


@dataclass
class _Account:
    """What is known of an order that is not complete."""

    steps: set[int] = field(default_factory=set)
    length: int = 0
    status: str = "open"
    done: dict[str, tuple[str, int | None, int | None]] = field(default_factory=dict)
    wrong: str = ""

    def balance(self) -> tuple[str, int, int, int]:
        """What is wrong, or nothing; what was paid, refunded, and what is due for what was dispatched."""
        money: dict[str, int] = {}
        goods: dict[str, int] = {}
        for kind, amount, quantity in self.done.values():
            money[kind] = money.get(kind, 0) + (amount or 0)
            goods[kind] = goods.get(kind, 0) + (quantity or 0)
        paid, refunded = money.get("payment.captured", 0), money.get("payment.refunded", 0)
        sent = goods.get("shipment.dispatched", 0)
        due = money.get("order.placed", 0) if "shipment.dispatched" in goods else 0
        held = goods.get("inventory.reserved", 0) - goods.get("inventory.released", 0)
        wrong = self.wrong
        if paid - refunded != due:
            wrong = f"paid {paid}, refunded {refunded}, but {due} is due"
        elif held != sent:
            wrong = f"{held} pieces are reserved, but {sent} were dispatched"
        return wrong, paid, refunded, due


class Books:
    """The accounts of orders: whether money and goods are conserved across services.

    ``add`` takes events in any order. An order is complete when its last event and all steps before it are there; then
    it must hold, with an operation that was tried again counted once (by its idempotency key):

    - paid minus refunded is the amount of the order if it was dispatched, and nothing if it was not;
    - reserved minus released is what was dispatched;
    - the amounts of one operation are the same in every try.

    Of complete orders nothing is kept but sums, so that memory grows with those that are open only. An event that comes
    again later than that counts as an order of its own that stays open: read without repeats, or compare `open` early.
    `simlink.verify` takes books as ``invariants=``, and enters no message twice.

    Attributes:
        completed, cancelled, rejected: complete orders by how they ended.
        repeated: operations that were tried again.
        paid, refunded: money in complete orders, in cents.
        dispatched: the amounts of those that were.
        wrong: how many complete orders do not balance.
        first_wrong: of the first hundred of them, order → what is wrong.
    """

    name = "amounts are conserved"

    def __init__(self) -> None:
        self.completed = self.cancelled = self.rejected = 0
        self.repeated = self.paid = self.refunded = self.dispatched = 0
        self.wrong = 0
        self.first_wrong: dict[str, str] = {}
        self._open: dict[str, _Account] = {}

    @property
    def open(self) -> int:
        """Orders that something is missing of."""
        return len(self._open)

    @property
    def ok(self) -> bool:
        """Whether every complete order balances, and the money in all of them does."""
        return not self.wrong and self.paid - self.refunded == self.dispatched

    def violations(self) -> tuple[int, list[str]]:
        """How many orders do not balance, or have ended without all their steps; and of the first ten, what is wrong.

        An order whose last event is not there may simply go on: it is counted as `open`, and is no violation.
        """
        ended = {order: account for order, account in self._open.items() if account.length}
        told = [f"order {order}: {wrong}" for order, wrong in islice(self.first_wrong.items(), _SHOWN)]
        for order, account in islice(ended.items(), _SHOWN - len(told)):
            missing = [str(step) for step in range(account.length) if step not in account.steps]
            wrong = account.balance()[0]
            told.append(
                f"order {order}: it is {account.status}, without step {', '.join(missing)}{wrong and f': {wrong}'}"
            )
        return self.wrong + len(ended), told

    def add(self, events: Iterable[Mapping[str, Any]]) -> Books:
        """Enter these, and return the books.

        Raises:
            ConfigError: one is not an event of `orders`.
        """
        for event in events:
            try:
                order, step, kind, key = event["order_id"], event["step"], event["type"], event["idempotency_key"]
                amount, quantity, status = event["amount_cents"], event["quantity"], event["status"]
            except (KeyError, TypeError) as error:
                raise ConfigError(f"not an event of an order: {event!r}") from error
            account = self._open.setdefault(order, _Account())
            if step in account.steps:
                continue
            account.steps.add(step)
            known = account.done.setdefault(key, (kind, amount, quantity))
            if known != (kind, amount, quantity):
                # A payment that timed out has no amount; the next try has.
                if known[0] == "payment.timeout":
                    account.done[key] = (kind, amount, quantity)
                elif kind != "payment.timeout":
                    account.wrong = f"{kind} with the key of {known[0]}, or another amount"
            if event["attempt"] > 1:
                self.repeated += 1
            if status != "open":
                account.length, account.status = step + 1, status
            if account.length and len(account.steps) == account.length:
                self._close(order, self._open.pop(order))
        return self

    def _close(self, order: str, account: _Account) -> None:
        wrong, paid, refunded, due = account.balance()
        if wrong:
            self.wrong += 1
            if len(self.first_wrong) < 100:
                self.first_wrong[order] = wrong
        self.paid += paid
        self.refunded += refunded
        self.dispatched += due
        self.completed += account.status == "completed"
        self.cancelled += account.status == "cancelled"
        self.rejected += account.status == "rejected"
