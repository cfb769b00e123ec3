"""What a seed decides, as digests. A program too, for other interpreters, CPUs and processes: it needs the core
dependencies only, and prints one JSON object.

    python -m tests.support.digests
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from simlink import arrivals, fields
from simlink.generators import catalog
from simlink.generators.record import record
from simlink.generators.source import as_source
from simlink.serializers.lookup import serializer_for

ROWS = 10_000
BODIES = 4_500
"""How many bodies a digest of bodies is of: more than a block."""


def everything():
    """A record with every field that needs no other package."""
    return record(
        "everything",
        seed=42,
        sequence=fields.sequence(5, 3),
        integer=fields.integer(-10, 10),
        wide=fields.integer(0, 2**64 - 1),
        uniform=fields.uniform(-5, 5),
        normal=fields.normal(20, 3),
        lognormal=fields.lognormal(3, 0.5),
        exact=fields.lognormal(0, 2, decimals=None),
        choice=fields.choice(view=80, click=17, purchase=3),
        pool=fields.pool(["red", "green", "blue"]),
        zipf=fields.zipf(50_000),
        flat=fields.zipf(100, 0.5, start=1),
        boolean=fields.boolean(0.2),
        uuid=fields.uuid(),
        sku=fields.text("SKU-####"),
        token=fields.text("^^^^-????-####-^^^^^^^^^^^^^^^^"),
        at=fields.event_time(step=0.25),
        at_iso=fields.event_time("2024-02-28T23:59:00Z", arrivals=arrivals.poisson(50), format="iso"),
        country=fields.ref("zipf", fields.choice(FR=3, DE=2, JP=1)),
        currency=fields.ref("country", {"FR": "EUR", "DE": "EUR", "JP": "JPY"}),
        price=fields.when("choice", "purchase", fields.uniform(1, 100, decimals=2)),
        nested=fields.record(a=fields.uuid(), b={"c": fields.zipf(7)}),
        items=fields.list(fields.record(no=fields.sequence(1), sku=fields.text("??-##")), 0, 4),
        mapped=fields.zipf(100).map(lambda v: v * v),
        constant={"v": 1},
    )


CATALOG: Mapping[str, Callable[[], Any]] = {
    "clickstream": lambda: catalog.clickstream(seed=7),
    "access_log": lambda: catalog.access_log(seed=7),
    "access_log as lines": lambda: catalog.access_log(seed=7, format="combined"),
    "sensors": lambda: catalog.sensors(seed=7, profile={"ok": 6, "breach": 2, "hot": 1, "cold": 1, "silent": 1}),
    "ijinus": lambda: catalog.ijinus(seed=7, batch=2),
    "numbers": lambda: catalog.numbers(seed=7, weights=[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    "orders": lambda: catalog.orders(seed=7),
}
WRITTEN = {"json": tuple(CATALOG), "protobuf": tuple(name for name in CATALOG if "lines" not in name)}
"""Serializer → what it writes; a line is no message."""


def digest_of(bodies: Iterable[bytes]) -> str:
    """Of the bodies, each with its length."""
    state = hashlib.blake2b(digest_size=16)
    for body in bodies:
        state.update(len(body).to_bytes(8, "little") + body)
    return state.hexdigest()


def bodies(name: str, written: str, start: int = 0, stop: int = BODIES, size: int = 4096) -> list[bytes]:
    """The bodies of an entry of the catalog, as a run makes them, by batches of at most so many."""
    generator = CATALOG[name]()
    serializer = serializer_for(written, generator)
    return [body for chunk in as_source(generator).chunks(start, stop, size) for body in serializer.dumps_many(chunk)]


def body_digests(written: str) -> dict[str, str]:
    """Entry → the digest of its first bodies."""
    return {name: digest_of(bodies(name, written)) for name in WRITTEN[written]}


def enabled() -> list[str]:
    """The CPU features that NumPy uses where the CPU has them, and may be told not to."""
    try:
        from numpy._core import _multiarray_umath as core
    except ImportError:  # before NumPy 2
        from numpy.core import _multiarray_umath as core
    return [feature for feature in core.__cpu_dispatch__ if core.__cpu_features__.get(feature)]


def main() -> None:
    """Print the digests of values and of bodies, and what made them."""
    made: dict[str, Any] = {name: make().digest(ROWS) for name, make in CATALOG.items()}
    made["everything"] = everything().digest(ROWS)
    # Attributes of a text are drawn from a hash of it, which must not be Python's.
    hashed = record("r", seed=1, k=fields.text("????"), v=fields.ref("k", fields.uuid()), s={"a": fields.uuid()})
    print(
        json.dumps(
            {
                "python": sys.version.split()[0],
                "numpy": np.__version__,
                "features": enabled(),
                "values": made,
                "hashed": hashed.digest(ROWS),
                "bodies": {written: body_digests(written) for written in WRITTEN},
            }
        )
    )


if __name__ == "__main__":
    main()
