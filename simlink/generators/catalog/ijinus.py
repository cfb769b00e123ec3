"""ijinus: temperatures as the envelopes that IJINUS loggers upload."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from simlink.block import Coded, Column, FieldType, Kind, Pool, Ragged, Schema, Struct
from simlink.errors import ConfigError, did_you_mean
from simlink.generators.catalog._climate import Climate, Fleet, Ints, Place, shares_of
from simlink.generators.field import Bound, Context, Field, Scope, object_array
from simlink.generators.fields.draws import cumulative
from simlink.generators.fields.times import EPOCH, to_microseconds
from simlink.generators.record import Record
from simlink.generators.seeding import Floats

__all__ = ["FAULTS", "MALFORMED", "ijinus"]

FAULTS: Final[Mapping[str, list[tuple[str, dict[str, Any]]]]] = MappingProxyType(
    {
        "bad reception": [
            ("drop", {"p": 0.02}),
            ("duplicate", {"p": 0.02}),
            ("late", {"p": 0.05, "by": 3600.0, "field": "datas.0.time"}),
        ],
        "cut off": [("truncate", {"p": 0.01})],
        "garbage": [("corrupt", {"p": 0.005})],
        "uploads pile up": [
            ("late", {"p": 0.2, "by": 86_400.0, "field": "datas.0.time"}),
            ("out_of_order", {"p": 0.2, "window": 1024}),
        ],
    }
)
"""Faults that such uploads are known for: name → (fault, arguments), in the order in which they apply."""

MALFORMED: Final = MappingProxyType(
    {
        "no sn": "the key ``sn`` is missing in every reading",
        "NaN": "every value is the text ``NaN``",
        "seconds": "times are in seconds instead of milliseconds",
        "version": "``ver`` is ``2.0``",
        "empty": "``datas`` is an empty list",
    }
)
"""What may be wrong with an envelope that is still JSON, for ``malformed=``."""

_PLACE = Place(mean=12.0, yearly=5.0, daily=0.6, spread=1.5, drift=0.2, noise=0.3)
_LEAST, _MOST = -999, 1999
_BATCH = 1_000


def ijinus(
    seed: int | None = None,
    *,
    devices: int = 1_000,
    batch: int = 1,
    typed: bool = False,
    interval: float = 900.0,
    profile: str | Mapping[str, float] = "ok",
    malformed: str | Mapping[str, float] | None = None,
    start: dt.datetime | dt.date | str | float = EPOCH,
) -> Record:
    """The envelopes in which loggers upload temperatures, with texts where one expects numbers.

    ``{"datas":[{"channel":"","metric":"temperature","producer":"ijinus","sn":"IJA0101-00002245",
    "time":"1735689600000","value":"80"}],"ver":"1.0"}``

    ===== ===========================================================================================
    datas ``batch`` readings of one logger, in the order of time: ``channel`` (empty), ``metric``,
          ``producer``, ``sn`` (the logger), ``time`` (milliseconds since 1970), ``value`` (tenths of a
          degree Celsius, a whole number: the envelope does not say its unit, this is our choice)
    ver   ``1.0``
    ===== ===========================================================================================

    Loggers upload one after another. The temperatures are those of `sensors` in a cooler place: seasons, AR(1) noise
    from reading to reading, and an offset and a drift for each logger.

    Args:
        seed: 0 … 2**64 - 1; a random one where none is given.
        devices: how many loggers, 1 … 100,000.
        batch: readings in an envelope, 1 … 1,000.
        typed: ``time`` and ``value`` as numbers instead of text.
        interval: seconds of event time between two readings of a logger.
        profile: as of `sensors`, without ``silent`` (a logger without a value does not upload one).
        malformed: a kind of `MALFORMED` that one envelope in a hundred has, or the share of the envelopes for each of
            several kinds, as ``{"no sn": 0.01, "NaN": 0.001}``; together at most 1.
        start: when event time begins.

    Raises:
        ConfigError: an option that is not as said.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= _BATCH:
        raise ConfigError(f"ijinus: batch is an integer from 1 to {_BATCH:,}, not {batch!r}")
    if not isinstance(typed, bool):
        raise ConfigError(f"ijinus: typed is True or False, not {typed!r}")
    if profile == "silent" or (isinstance(profile, Mapping) and "silent" in profile):
        raise ConfigError("ijinus: a logger without a value does not upload one: there is no profile 'silent'")
    fleet = Fleet.checked("ijinus", devices, interval, to_microseconds(start))
    kinds, shares = _malformed(malformed)
    made: dict[str, Field] = {
        "datas": _Datas(fleet, shares_of("ijinus", profile), batch, kinds, shares, typed=typed),
        "ver": _Version(kinds, shares),
    }
    return Record("ijinus", made, seed=seed)


def _malformed(asked: str | Mapping[str, float] | None) -> tuple[list[str], Floats | None]:
    """The kinds, of which the last one is none, and the limits of their shares."""
    if asked is None:
        return [], None
    shares = {asked: 0.01} if isinstance(asked, str) else asked
    if not isinstance(shares, Mapping):
        raise ConfigError(f"ijinus: malformed is a name, or a mapping of names to shares, not {asked!r}")
    for name in shares:
        if name not in MALFORMED:
            raise ConfigError(f"ijinus: unknown kind of malformed {name!r}{did_you_mean(str(name), MALFORMED)}")
    cumulative("ijinus: malformed", list(shares.values()))
    if sum(shares.values()) > 1:
        raise ConfigError(f"ijinus: the shares of malformed envelopes are more than 1 together: {dict(shares)!r}")
    kinds = [*shares, ""]
    return kinds, cumulative("ijinus: malformed", [*shares.values(), max(0.0, 1 - sum(shares.values()))])


def _which(context: Context, path: str, shares: Floats) -> npt.NDArray[np.int64]:
    """Row by row what is wrong, as an index of the kinds."""
    return np.searchsorted(shares, context.uniform(f"{path.rpartition('.')[0]}#malformed"), side="right")


def _texts(numbers: Ints) -> npt.NDArray[np.object_]:
    """Integers as text, all at once."""
    return object_array(msgspec.json.encode(numbers.tolist())[1:-1].decode().split(","))


class _Version(Field):
    def __init__(self, kinds: list[str], shares: Floats | None) -> None:
        self.kinds, self.shares = kinds, shares

    def bind(self, scope: Scope) -> Bound:
        pool = Pool(["1.0", "2.0"])

        def make(context: Context) -> Column:
            if self.shares is None or "version" not in self.kinds:
                return Coded(np.zeros(context.length, np.intp), pool)
            wrong = _which(context, scope.path, self.shares) == self.kinds.index("version")
            return Coded(wrong.astype(np.intp), pool)

        return Bound(FieldType(Kind.STR), make)


class _Datas(Field):
    """The readings of an envelope."""

    def __init__(
        self, fleet: Fleet, profiles: Floats, batch: int, kinds: list[str], shares: Floats | None, *, typed: bool
    ) -> None:
        self.fleet, self.profiles, self.batch, self.typed = fleet, profiles, batch, typed
        self.kinds, self.shares = kinds, shares

    def bind(self, scope: Scope) -> Bound:
        if scope.counts != "stream":
            raise ConfigError(f"{scope.path}: loggers follow the stream's rows: they have no place in a list or entity")
        readings = self._readings(scope)
        number = FieldType(Kind.INT if self.typed else Kind.STR)
        text = FieldType(Kind.STR)
        types = {"channel": text, "metric": text, "producer": text, "sn": text, "time": number, "value": number}
        item = FieldType(Kind.RECORD, fields=Schema("datas", types))
        loose = set(self.kinds) & {"no sn", "NaN", "seconds", "empty"}

        def make(context: Context) -> Column:
            values = readings(context)
            return self._spoilt(values.tolist(), context, scope.path) if loose else values

        # Where a key may be missing there is no one type of the readings.
        return Bound(FieldType(Kind.ANY) if loose else FieldType(Kind.LIST, item=item), make)

    def _readings(self, scope: Scope) -> Callable[[Context], Ragged]:
        fleet, batch = self.fleet, self.batch
        climate = Climate(scope.seed, f"{scope.path}#climate", fleet, _PLACE, self.profiles)
        channels, metrics, producers = Pool([""]), Pool(["temperature"]), Pool(["ijinus"])
        names = Pool([f"IJA0101-{device + 1:08d}" for device in range(fleet.devices)])
        values = Pool([str(value) for value in range(_LEAST, _MOST + 1)])

        def make(context: Context) -> Ragged:
            device, upload = fleet.reports(context.positions())
            if batch > 1:
                device = np.repeat(device, batch)
                upload = (upload[:, None] * batch + np.arange(batch)).ravel()
            at = fleet.times(device, upload)
            tenths = np.rint(climate.temperature(device, upload, at) * 10).astype(np.int64)
            tenths = np.clip(tenths, _LEAST, _MOST)
            same = np.zeros(len(device), np.intp)
            columns: dict[str, Column] = {
                "channel": Coded(same, channels),
                "metric": Coded(same, metrics),
                "producer": Coded(same, producers),
                "sn": Coded(device, names),
                "time": at // 1000 if self.typed else _texts(at // 1000),
                "value": tenths if self.typed else Coded(tenths - _LEAST, values),
            }
            offsets = np.arange(context.length + 1, dtype=np.int64) * batch
            return Ragged(offsets, Struct(columns, len(device)))

        return make

    def _spoilt(self, rows: list[list[dict[str, Any]]], context: Context, path: str) -> npt.NDArray[np.object_]:
        assert self.shares is not None
        which = _which(context, path, self.shares)
        for row in np.flatnonzero(which < len(self.kinds) - 1).tolist():
            kind = self.kinds[which[row]]
            if kind == "empty":
                rows[row] = []
            for reading in rows[row]:
                if kind == "no sn":
                    del reading["sn"]
                elif kind == "NaN":
                    reading["value"] = "NaN"
                elif kind == "seconds":
                    seconds = int(reading["time"]) // 1000
                    reading["time"] = seconds if self.typed else str(seconds)
        return object_array(rows)
