"""Temperature, humidity and light of a fleet of devices, which belong together.

A device reports every so often, one after another: reading ``n`` of device ``d`` is row ``n * devices + d``. What is
random about a reading is three sequences of AR(1) noise for each device. They are made by epochs of 64 readings: the
first value of an epoch is drawn by itself, and what lies between two of them under the condition that it leads from
one to the other. So there is no seam, and any block can be made alone. Epochs are made for some thousand readings at
once, a tile, and the last tiles are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from simlink.errors import ConfigError, did_you_mean
from simlink.generators import portable, seeding
from simlink.generators.fields.draws import cumulative
from simlink.generators.fields.rhythm import Micros
from simlink.generators.fields.states import finite
from simlink.generators.seeding import Floats

__all__ = ["EPOCH", "PHI", "PROFILES", "Climate", "Fleet", "Ints", "Noise", "Place", "shares_of"]

Ints = npt.NDArray[np.int64]

EPOCH: Final = 64
"""Readings of a device in an epoch. Part of the data's definition: never changes."""
PHI: Final = 0.9
"""The correlation of the noise of two readings that follow one another."""
_LANES: Final = 1024
_KEPT: Final = 128
_MOST: Final = 100_000
_STEP: Final = 1 / 4096
"""Noise is kept in steps of this part of its standard deviation."""
PROFILES: Final = ("ok", "breach", "hot", "cold", "silent")
_SHIFTS: Final = np.array([0.0, 0.0, 18.0, -22.0, 0.0])
_BREACH: Final = 25.0
_YEAR_HOURS: Final = 8766
_LATITUDE: Final = 48.0 / 360.0
_SIN_TILT: Final = 0.3978
"""The sine of 23.44 degrees, by which the axis of the earth is tilted."""
_FULL_SUN: Final = 100_000.0
_HOUR: Final = 3_600_000_000
_MINUTE: Final = 60_000_000


class Fleet(NamedTuple):
    """Which device reports when.

    Attributes:
        devices: how many, 1 … 100,000.
        interval: microseconds between two reports of a device.
        start: of the first report, in microseconds since 1970 UTC.
    """

    devices: int
    interval: int
    start: int

    @classmethod
    def checked(cls, what: str, devices: int, interval: float, start: int) -> Fleet:
        """The same from an interval in seconds.

        Raises:
            ConfigError: devices or the interval are out of range.
        """
        if isinstance(devices, bool) or not isinstance(devices, int) or not 1 <= devices <= _MOST:
            raise ConfigError(f"{what}: devices is an integer from 1 to {_MOST:,}, not {devices!r}")
        if not 0.001 <= finite(f"{what}: interval", interval) <= 1e6:
            raise ConfigError(f"{what}: interval is from 0.001 to 1,000,000 seconds, not {interval!r}")
        return cls(devices, round(interval * 1e6), start)

    def reports(self, rows: Ints) -> tuple[Ints, Ints]:
        """The device and the number of its report, row by row."""
        number, device = np.divmod(rows, self.devices)
        return device, number

    def times(self, device: Ints, number: Ints) -> Micros:
        """When, in microseconds since 1970 UTC.

        Raises:
            ConfigError: one is too far ahead for 64 bits.
        """
        if (int(number.max(initial=0)) + 1) * self.interval + self.start >= 2**62:
            raise ConfigError("a time this far ahead does not fit 64 bits of microseconds")
        out: Micros = number * self.interval + device * self.interval // self.devices + self.start
        return out


@lru_cache(maxsize=1)
def _normals() -> Floats:
    """The normal number of each of 65,536 equal shares; its middle one."""
    return portable.normal_quantile((np.arange(1 << 16) + 0.5) / (1 << 16))


def _normal(words: seeding.Words) -> Floats:
    return _normals()[(words >> np.uint64(48)).view(np.int64)]


class Noise:
    """AR(1) noise of each device: every reading is standard normal, neighbours are correlated by `PHI`.

    Args:
        seed, path: where its random numbers come from.
        devices: how many there are.
    """

    def __init__(self, seed: int, path: str, devices: int) -> None:
        self.seed, self.path, self.devices = seed, path, devices
        self.groups = -(-devices // _LANES)
        self.epochs = max(1, _LANES // devices)  # in a tile
        self._tile = lru_cache(maxsize=_KEPT)(self._make)
        fade = np.cumprod(np.full(EPOCH, PHI))
        rest = 1 - fade * fade
        self._bridge = np.zeros(EPOCH)
        self._bridge[1:] = fade[-2::-1] * rest[:-1] / rest[-1]

    def __call__(self, device: Ints, reading: Ints) -> Floats:
        """The noise of these readings."""
        epoch, within = reading >> 6, reading & (EPOCH - 1)
        if self.groups == 1:
            tile, lane = np.divmod(epoch, self.epochs)
            lane = lane * self.devices + device
        else:
            tile, lane = epoch * self.groups + device // _LANES, device % _LANES
        cell = within * _LANES + lane
        first, last = int(tile.min(initial=2**62)), int(tile.max(initial=0))
        if first == last:
            steps = self._tile(first)[cell]
        else:
            steps = np.empty(len(cell), np.int16)
            for one in np.unique(tile).tolist():
                rows = np.flatnonzero(tile == one)
                steps[rows] = self._tile(one)[cell[rows]]
        noise: Floats = steps.astype(np.float64) * _STEP
        return noise

    def _make(self, tile: int) -> npt.NDArray[np.int16]:
        """A tile: EPOCH rows of _LANES steps, flat."""
        lanes = np.arange(_LANES)
        if self.groups == 1:
            part, device = np.divmod(lanes, self.devices)
            epoch = tile * self.epochs + part
        else:
            number, group = divmod(tile, self.groups)
            device = group * _LANES + lanes
            epoch = np.full(_LANES, number)
        key = (epoch << 17) + device
        here = _normal(seeding.hash_words(self.seed, f"{self.path}#epoch", key.view(np.uint64)))
        there = _normal(seeding.hash_words(self.seed, f"{self.path}#epoch", (key + (1 << 17)).view(np.uint64)))
        words = seeding.words(self.seed, self.path, tile, EPOCH * _LANES // 4)
        # Sixteen bits are enough to tell 65,536 normal numbers apart: a word has four, the lowest first.
        shocks = _normals()[words.astype("<u8").view("<u2")].reshape(EPOCH, _LANES)
        shocks *= math.sqrt(1 - PHI * PHI)
        values = np.empty((EPOCH, _LANES))
        value = values[0] = here
        for place in range(1, EPOCH):
            value = values[place] = value * PHI + shocks[place]
        values += self._bridge[:, None] * (there - (value * PHI + shocks[0]))
        return np.rint(values / _STEP).astype(np.int16).ravel()


class Place(NamedTuple):
    """Where the devices are.

    Attributes:
        mean: of the temperature, in degrees Celsius.
        yearly, daily: by how much it rises and falls over a year, and over a day.
        spread: the standard deviation of the devices' offsets.
        drift: the standard deviation of what a device goes wrong by in a year.
        noise: the standard deviation of the noise.
    """

    mean: float
    yearly: float
    daily: float
    spread: float
    drift: float
    noise: float


class Climate:
    """The readings of a fleet.

    Args:
        seed, path: where their random numbers come from.
        fleet: which devices.
        place: where they are.
        shares: the share of the devices that have each profile, of `PROFILES`; see `shares_of`.
    """

    def __init__(self, seed: int, path: str, fleet: Fleet, place: Place, shares: Floats) -> None:
        self.seed, self.path, self.fleet, self.place = seed, path, fleet, place
        self._noise = {what: Noise(seed, f"{path}#{what}", fleet.devices) for what in ("air", "damp", "cloud")}
        devices = np.arange(fleet.devices, dtype=np.uint64)

        def drawn(what: str) -> Floats:
            return seeding.to_open_uniform(seeding.hash_words(seed, f"{path}#{what}", devices))

        self.profile = np.searchsorted(shares, drawn("profile"), side="right")
        """Of each device, as an index of `PROFILES`."""
        self.silent = self.profile == PROFILES.index("silent")
        self._breaches = bool((self.profile == PROFILES.index("breach")).any())
        self.offset = portable.normal_quantile(drawn("offset")) * place.spread
        """Of each device, in degrees."""
        self.drift = portable.normal_quantile(drawn("drift")) * place.drift
        """Of each device, in degrees a year."""
        self._damp = portable.normal_quantile(drawn("damp offset")) * 3.0
        # By minute of the day and hour of the year; January the first 1970 is hour 0.
        day = np.arange(1440) / 1440
        year = np.arange(_YEAR_HOURS) / _YEAR_HOURS
        self._by_minute = portable.cosine(day - 15 / 24) * place.daily  # warmest at 15 h
        self._by_hour = portable.cosine(year - 0.55) * place.yearly + place.mean  # and in the third week of July
        self._sun = portable.cosine(day - 0.5)
        sine = portable.cosine(year - 0.472) * _SIN_TILT  # of the declination; the solstice is on the 21st of June
        self._rise = sine * float(portable.cosine(np.array([_LATITUDE - 0.25]))[0])
        self._lift = np.sqrt(1 - sine * sine) * float(portable.cosine(np.array([_LATITUDE]))[0])

    def expected(self, at: Micros) -> Floats:
        """The temperature that is usual at these times."""
        return self._by_minute[at // _MINUTE % 1440] + self._by_hour[at // _HOUR % _YEAR_HOURS]

    def temperature(self, device: Ints, reading: Ints, at: Micros) -> Floats:
        """In degrees Celsius, not rounded."""
        years = (at - self.fleet.start) / (_YEAR_HOURS * _HOUR)
        own = self.offset + _SHIFTS[self.profile]
        out: Floats = self.expected(at) + own[device] + self.drift[device] * years
        out += self._noise["air"](device, reading) * self.place.noise
        if self._breaches:
            rows = np.flatnonzero(self.profile[device] == PROFILES.index("breach"))
            out[rows] += self._excursion(device[rows], reading[rows])
        return out

    def _excursion(self, device: Ints, reading: Ints) -> Floats:
        """Once in an epoch it rises by 25 degrees and comes back, over 8 to 24 readings."""
        key = ((reading >> 6 << 17) + device).view(np.uint64)
        words = seeding.hash_words(self.seed, f"{self.path}#breach", key).view(np.int64)
        long = 8 + ((words >> 8) & 15) + ((words >> 12) & 1)
        begin = (words & 255) * (EPOCH - long) >> 8
        part = ((reading & (EPOCH - 1)) - begin + 0.5) / long
        out: Floats = np.where((part > 0) & (part < 1), _BREACH * 4 * part * (1 - part), 0.0)
        return out

    def humidity(self, device: Ints, reading: Ints, temperature: Floats) -> Floats:
        """Relative, in per cent, not rounded: lower where it is warmer."""
        noise = self._noise["damp"](device, reading) * 3.0
        warmer = temperature - (self.place.mean + self.offset[device])
        out: Floats = np.clip(55.0 + self._damp[device] - 2.0 * warmer + noise, 5.0, 100.0)
        return out

    def light(self, device: Ints, reading: Ints, at: Micros) -> Ints:
        """In lux: the height of the sun at 48 degrees north, times what the clouds let through; 0 at night."""
        hour = at // _HOUR % _YEAR_HOURS
        height = self._rise[hour] + self._lift[hour] * self._sun[at // _MINUTE % 1440]
        clear = np.clip(0.6 + 0.25 * self._noise["cloud"](device, reading), 0.05, 1.0)
        out: Ints = np.rint(np.maximum(height, 0.0) * clear * _FULL_SUN).astype(np.int64)
        return out


def shares_of(what: str, profile: str | Mapping[str, float]) -> Floats:
    """A profile, or weights of several → the limits of their shares, for `Climate`.

    Raises:
        ConfigError: an unknown profile, or weights that `choice` refuses.
    """
    weights = {profile: 1.0} if isinstance(profile, str) else profile
    if not isinstance(weights, Mapping):
        raise ConfigError(f"{what}: profile is a name, or a mapping of names to weights, not {profile!r}")
    for name in weights:
        if name not in PROFILES:
            raise ConfigError(f"{what}: unknown profile {name!r}{did_you_mean(str(name), PROFILES)}")
    return cumulative(f"{what}: profile", [weights.get(name, 0.0) for name in PROFILES])
