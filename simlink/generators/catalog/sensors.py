"""sensors: temperature, humidity and light of many devices."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from simlink.block import Coded, Column, FieldType, Kind, Masked, Pool, Schema, Struct
from simlink.errors import ConfigError
from simlink.generators import portable
from simlink.generators.catalog._climate import Climate, Fleet, Ints, Place, shares_of
from simlink.generators.field import Bound, Context, Field, Scope
from simlink.generators.fields.sessions import Moment, Part
from simlink.generators.fields.times import EPOCH, to_microseconds
from simlink.generators.record import Record
from simlink.generators.seeding import Floats

__all__ = ["FAULTS", "LIMITS", "sensors"]

FAULTS: Final[Mapping[str, list[tuple[str, dict[str, Any]]]]] = MappingProxyType(
    {
        "loose contact": [
            ("flap", {"p": 0.0002, "field": "temperature", "by": 10.0, "per": "device_id", "length": 20_000}),
            ("gap", {"p": 0.0001}),
        ],
        "radio interference": [("drop", {"p": 0.02}), ("duplicate", {"p": 0.01}), ("truncate", {"p": 0.001})],
        "buffered upload": [("late", {"p": 0.05, "by": 900.0}), ("out_of_order", {"p": 0.05, "window": 512})],
        "broken probe": [
            ("stuck", {"p": 0.0002, "field": "temperature", "per": "device_id", "length": 20_000}),
            ("spike", {"p": 0.001, "field": "temperature"}),
        ],
        "ageing probe": [
            ("drift", {"p": 0.0002, "field": "humidity", "by": 20.0, "per": "device_id", "length": 60_000})
        ],
        "wrong clocks": [("clock_skew", {"per": "device_id", "by": 300.0, "field": "timestamp"})],
        "new firmware": [("wrong_type", {"p": 0.01, "field": "temperature"})],
        "chatty device": [("hot_key", {"p": 0.2, "field": "device_id", "value": "sensor-00000"})],
    }
)
"""Faults that sensors are known for: name → (fault, arguments), in the order in which they apply."""

LIMITS: Final = (5.0, 35.0)
"""The temperatures that a device of the profile ``ok`` stays within, in degrees Celsius."""

_PLACE = Place(mean=21.0, yearly=4.0, daily=2.0, spread=0.8, drift=0.2, noise=0.6)


def sensors(
    seed: int | None = None,
    *,
    devices: int = 1_000,
    interval: float = 60.0,
    profile: str | Mapping[str, float] = "ok",
    start: dt.datetime | dt.date | str | float = EPOCH,
    format: str = "ms",
) -> Record:
    """The readings of many devices in a greenhouse: temperature, humidity and light, which belong together.

    =========== ================================================================================
    device_id   text
    reading     0, 1, 2, … of the device
    timestamp   event time, ascending, as ``format`` says
    temperature in degrees Celsius, two decimals; None of a silent device
    humidity    relative, in per cent, one decimal; None of a silent device
    light       in lux, 0 at night; None of a silent device
    =========== ================================================================================

    Temperature has a daily and a yearly season, humidity is lower where it is warmer, light follows the sun at 48
    degrees north and the clouds. Each device has AR(1) noise (0.9 from one reading to the next), an offset and a drift.
    The noise is made by epochs of 64 readings that meet without a seam; see `simlink.generators.catalog._climate`. A
    row that is asked for alone needs an epoch of up to 1,024 devices, some milliseconds; in order each is made once,
    and kept where it is used again (some 0.4 MB for 1,024 devices).

    Profiles: ``ok`` stays within `LIMITS`; ``breach`` rises by 25 degrees and comes back, once in 64 readings; ``hot``
    is 18 degrees too warm; ``cold`` 22 too cold; ``silent`` is reached, but has no values.

    Args:
        seed: 0 … 2**64 - 1; a random one where none is given.
        devices: how many, 1 … 100,000. They report one after another.
        interval: seconds of event time between two readings of a device. It does not pace anything.
        profile: one for all devices, or weights, as ``{"ok": 90, "breach": 10}``, of which each device draws one.
        start: when event time begins: a datetime or date (without a zone: UTC), ISO 8601 text, or seconds since 1970.
        format: of the timestamp: ``"ms"``, ``"us"``, ``"s"`` or ``"iso"``.

    Raises:
        ConfigError: an option that is not as said.
    """
    fleet = Fleet.checked("sensors", devices, interval, to_microseconds(start))
    shares = shares_of("sensors", profile)
    hidden: dict[str, Field] = {"report": _Report(fleet), "air": _Air(fleet, shares)}
    shown: dict[str, Field] = {
        "device_id": _Name(devices),
        "reading": Part("report", "reading"),
        "timestamp": Moment("sensors", "report", format),
        "temperature": _Temperature(fleet, shares),
        "humidity": _Humidity(fleet, shares),
        "light": _Light(fleet, shares),
    }
    return Record("sensors", hidden | shown, seed=seed, shown=list(shown))


class _Report(Field):
    """Whose reading a row is, which of its own, and when."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def bind(self, scope: Scope) -> Bound:
        if scope.counts != "stream":
            raise ConfigError(f"{scope.path}: sensors follow the stream's rows: they have no place in a list or entity")

        def make(context: Context) -> Column:
            device, reading = self.fleet.reports(context.positions())
            at = self.fleet.times(device, reading)
            return Struct({"device": device, "reading": reading, "at": at}, context.length)

        schema = Schema("report", dict.fromkeys(("device", "reading", "at"), FieldType(Kind.INT)))
        return Bound(FieldType(Kind.RECORD, fields=schema), make)


class _Name(Field):
    """The name of the device."""

    def __init__(self, devices: int) -> None:
        self.devices = devices

    def needs(self) -> Iterator[str]:
        yield "report"

    def bind(self, scope: Scope) -> Bound:
        pool = Pool([f"sensor-{device:05d}" for device in range(self.devices)])
        device = Part("report", "device").bind(scope)
        return Bound(FieldType(Kind.STR), lambda context: Coded(np.asarray(device.make(context)), pool))


class _Measured(Field):
    """Something that the climate says about the reading."""

    kind = Kind.FLOAT

    def __init__(self, fleet: Fleet, shares: Floats) -> None:
        self.fleet, self.shares = fleet, shares

    def needs(self) -> Iterator[str]:
        yield "report"

    def bind(self, scope: Scope) -> Bound:
        scope.lookup("report")
        climate = Climate(scope.seed, f"{scope.path.rpartition('.')[0]}#climate", self.fleet, _PLACE, self.shares)
        silent = climate.silent

        def make(context: Context) -> Column:
            report = context.column("report")
            assert isinstance(report, Struct)
            device, reading, at = (np.asarray(report.columns[name]) for name in ("device", "reading", "at"))
            values = self.measure(climate, context, device, reading, at)
            return Masked(~silent[device], values) if gaps else values

        gaps = bool(silent.any()) and not isinstance(self, _Air)
        return Bound(FieldType(self.kind, optional=gaps), make)

    def measure(self, climate: Climate, context: Context, device: Ints, reading: Ints, at: Ints) -> Column:
        """The values, also where the device is silent."""
        raise NotImplementedError


class _Air(_Measured):
    """The temperature before it is rounded."""

    def measure(self, climate: Climate, context: Context, device: Ints, reading: Ints, at: Ints) -> Column:
        return climate.temperature(device, reading, at)


class _Temperature(_Measured):
    def needs(self) -> Iterator[str]:
        yield from ("report", "air")

    def measure(self, climate: Climate, context: Context, device: Ints, reading: Ints, at: Ints) -> Column:
        return portable.round_to(np.asarray(context.column("air")), 2)


class _Humidity(_Measured):
    def needs(self) -> Iterator[str]:
        yield from ("report", "air")

    def measure(self, climate: Climate, context: Context, device: Ints, reading: Ints, at: Ints) -> Column:
        return portable.round_to(climate.humidity(device, reading, np.asarray(context.column("air"))), 1)


class _Light(_Measured):
    kind = Kind.INT

    def measure(self, climate: Climate, context: Context, device: Ints, reading: Ints, at: Ints) -> Column:
        return climate.light(device, reading, at)
