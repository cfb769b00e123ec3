"""The fields of a record: how each column of it is made.

``from simlink import fields``, then ``fields.sequence()``, ``fields.choice(view=80, click=20)`` and so on. Every field
is a pure function of (seed, path, block, earlier columns): the same seed gives the same values, in any slice and on any
machine. ``field | function`` maps a whole column, ``field.map(function)`` each value.
"""

from __future__ import annotations

from simlink.generators.field import Field
from simlink.generators.fields.chains import markov
from simlink.generators.fields.coupling import coupled
from simlink.generators.fields.draws import (
    boolean,
    choice,
    constant,
    integer,
    lognormal,
    normal,
    pool,
    sequence,
    uniform,
    zipf,
)
from simlink.generators.fields.fakes import faker
from simlink.generators.fields.foreign import foreign
from simlink.generators.fields.nesting import list_ as list  # noqa: A004 – read as fields.list, next to fields.record
from simlink.generators.fields.nesting import nested as record
from simlink.generators.fields.options import maybe, one_of
from simlink.generators.fields.patterns import matching
from simlink.generators.fields.quantiles import moment, quantiles
from simlink.generators.fields.relations import ref, when
from simlink.generators.fields.seasons import season
from simlink.generators.fields.states import ar1, walk
from simlink.generators.fields.texts import text, uuid
from simlink.generators.fields.times import event_time

__all__ = [
    "Field",
    "ar1",
    "boolean",
    "choice",
    "constant",
    "coupled",
    "event_time",
    "faker",
    "foreign",
    "integer",
    "list",
    "lognormal",
    "markov",
    "matching",
    "maybe",
    "moment",
    "normal",
    "one_of",
    "pool",
    "quantiles",
    "record",
    "ref",
    "season",
    "sequence",
    "text",
    "uniform",
    "uuid",
    "walk",
    "when",
    "zipf",
]
