"""Foreign keys: what belongs to a record of another generator, without keeping its records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from simlink.block import Coded, Column, FieldType, Kind, Masked, Pool
from simlink.errors import ConfigError, did_you_mean
from simlink.generators import seeding
from simlink.generators.field import Bound, Context, Field, Scope
from simlink.generators.record import Record

__all__ = ["foreign"]


def foreign(parent: Record, field: str, by: str) -> Field:
    """A field of the record of another generator whose row an earlier field gives: a foreign key, or any attribute.

    ``user=fields.zipf(10_000), email=fields.foreign(users, "email", by="user")`` has in ``email`` what
    ``users[row["user"]]["email"]`` is, with any skew, on any machine, without a table: it is computed from the row. So
    the parent's field must be a function of its row: a `sequence`, an `event_time` with a step, a constant, or a `ref`
    to one of these, and not drawn for its row.

    The parent keeps its own seed. Where the row is None, so is the value. Identical everywhere, as far as the parent's
    field is.

    Args:
        parent: a generator from `record`, or of the catalog.
        field: the name of one of its fields.
        by: the name of an integer field before this one, the row of the parent from 0.

    Raises:
        ConfigError: no such field of either, a parent's field that is drawn for its row, or (when made) a row that the
            parent does not have.
    """
    return _Foreign(parent, field, by)


class _RowsContext(Context):
    """Any rows of the parent: they have positions, and no random words of their own."""

    contiguous = False

    def __init__(self, seed: int, rows: npt.NDArray[np.int64], outer: Context | None = None) -> None:
        super().__init__(seed, len(rows), outer)
        self._rows = rows

    def words(self, path: str) -> seeding.Words:
        raise ConfigError(f"{path.partition('#')[0]} is drawn for its row")

    def positions(self) -> npt.NDArray[np.int64]:
        return self._rows

    def nested(self) -> Context:
        return _RowsContext(self.seed, self._rows, self)

    def _draws(self, lengths: npt.NDArray[np.int64]) -> Context:
        raise ConfigError("a list is drawn for its row")


class _Foreign(Field):
    def __init__(self, parent: Record, field: str, by: str) -> None:
        if not isinstance(parent, Record):
            raise ConfigError(f"foreign: the parent is a generator from simlink.record, not {type(parent).__name__}")
        if field not in parent.schema.fields:
            raise ConfigError(f"foreign: {parent.name} has no field {field!r}{did_you_mean(str(field), parent.schema)}")
        if not isinstance(by, str):
            raise ConfigError(f"foreign: by= is the name of an earlier field, not {by!r}")
        self.parent, self.field, self.by = parent.select(field), field, by
        try:
            self._column(np.array([0, 1], np.int64))
        except ConfigError as error:
            raise ConfigError(
                f"foreign: {parent.name}.{field} cannot be told from a row alone ({error}): "
                f"make it fields.ref(key, …) to a field that counts rows"
            ) from error

    def needs(self) -> Iterator[str]:
        yield self.by

    def _column(self, rows: npt.NDArray[np.int64]) -> Column:
        context = _RowsContext(self.parent.seed, rows)
        self.parent.fill(context)
        return context.columns[self.field]

    def bind(self, scope: Scope) -> Bound:
        key = scope.lookup(self.by)
        if key.kind not in (Kind.INT, Kind.UINT):
            raise ConfigError(f"{scope.path}: {self.by!r} is {key.kind.value}, and the row of a parent is an integer")
        made: FieldType = self.parent.schema.fields[self.field]

        def make(context: Context) -> Column:
            keys = context.column(self.by)
            if isinstance(keys, Masked):
                present = np.flatnonzero(keys.present)
                if not len(present):
                    return Coded(np.zeros(len(keys), np.intp), Pool([None]))
                filler = np.zeros(len(keys), np.intp)
                filler[present] = np.arange(len(present))
                return Masked(keys.present, self._checked(keys.values.take(present), scope.path).take(filler))
            return self._checked(keys, scope.path)

        return Bound(replace(made, optional=made.optional or key.optional), make)

    def _checked(self, keys: Column, path: str) -> Column:
        rows = np.asarray(keys if isinstance(keys, np.ndarray) else keys.tolist())
        if rows.dtype.kind not in "iu":
            raise ConfigError(f"{path}: the row of a parent is an integer, not {rows[:1].tolist()!r}")
        length = self.parent.length
        if len(rows) and (int(rows.min()) < 0 or (length is not None and int(rows.max()) >= length)):
            wrong = int(rows.min()) if int(rows.min()) < 0 else int(rows.max())
            raise ConfigError(f"{path}: {self.parent.name} has no row {wrong}")
        return self._column(rows.astype(np.int64))
