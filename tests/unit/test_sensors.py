"""sensors and ijinus: readings that belong together, and the laws that their pages claim."""

from __future__ import annotations

import json
import math
import pickle
from collections import Counter

import numpy as np
import pytest

from simlink.block import Kind
from simlink.errors import ConfigError
from simlink.generators import catalog
from simlink.generators.catalog import _climate
from simlink.generators.catalog.ijinus import FAULTS as UPLOAD_FAULTS
from simlink.generators.catalog.ijinus import MALFORMED
from simlink.generators.catalog.sensors import _PLACE, FAULTS, LIMITS
from simlink.serializers.json import Json
from tests.support.statistics import chi_square, kolmogorov, normal_cdf

DAY = 86_400_000


def columns(rows, first=0, **options):
    """The columns of whole blocks, None as NaN."""
    generator = catalog.sensors(**{"seed": 7, **options})
    blocks = list(generator.blocks(first, first + rows))
    out = {}
    for name in generator.schema:
        parts = [block.columns[name] for block in blocks]
        out[name] = np.concatenate([np.array(p.tolist(), object if name == "device_id" else float) for p in parts])
    return out


@pytest.fixture(scope="module")
def year():
    """Fifty devices, every three hours, for a year."""
    return columns(50 * 8 * 365, devices=50, interval=10_800)


def test_devices_report_one_after_another_and_time_ascends():
    rows = catalog.sensors(seed=7, devices=3, interval=60)[:7]
    assert [row["device_id"] for row in rows[:6]] == ["sensor-00000", "sensor-00001", "sensor-00002"] * 2
    assert [row["reading"] for row in rows] == [0, 0, 0, 1, 1, 1, 2]
    assert [row["timestamp"] - rows[0]["timestamp"] for row in rows[:4]] == [0, 20_000, 40_000, 60_000]


def test_temperature_has_a_day_and_a_year(year):
    hour = year["timestamp"] % DAY / 3_600_000
    warm, cold = (year["temperature"][np.abs(hour - at) < 1.6].mean() for at in (15, 3))
    assert abs(warm - cold - 2 * _PLACE.daily) < 0.35  # the means of three hours, not the tips
    day = (year["timestamp"] - year["timestamp"][0]) / DAY
    july, january = (
        year["temperature"][np.abs(day - 200) < 10].mean(),
        year["temperature"][np.abs(day - 18) < 10].mean(),
    )
    assert abs(july - january - 2 * _PLACE.yearly) < 0.2
    assert abs(year["temperature"].mean() - _PLACE.mean) < 0.4


def test_it_is_damper_where_it_is_colder(year):
    for device in range(0, 50, 7):
        own = slice(device, None, 50)
        assert np.corrcoef(year["temperature"][own], year["humidity"][own])[0, 1] < -0.8
    assert 5 <= year["humidity"].min() < year["humidity"].max() <= 100


def test_it_is_dark_at_night_and_days_are_longer_in_summer(year):
    hour, day = year["timestamp"] % DAY / 3_600_000, (year["timestamp"] - year["timestamp"][0]) / DAY
    assert year["light"][(hour < 3) | (hour > 21)].max() == 0
    assert year["light"][np.abs(hour - 12) < 2].min() > 0
    # At 48 degrees north the sun is up for eight and a half hours in December, for sixteen in June.
    fine = columns(1440 * 2, devices=2, interval=60, start="2025-12-21")["light"]
    assert abs((fine > 0).sum() / 120 - 8.4) < 0.3
    fine = columns(1440 * 2, devices=2, interval=60, start="2025-06-21")["light"]
    assert abs((fine > 0).sum() / 120 - 15.9) < 0.3
    assert year["light"][np.abs(day - 172) < 30].mean() > 2 * year["light"][np.abs(day - 355) < 10].mean()


@pytest.mark.parametrize("devices", [1, 3, 1000, 1500])
def test_noise_is_normal_and_remembers_also_where_epochs_meet(devices):
    noise = _climate.Noise(5, "noise", devices)
    readings = np.repeat(np.arange(64 * 12), min(devices, 300))
    whose = np.tile(np.arange(min(devices, 300)) * (devices // min(devices, 300)), 64 * 12)
    z = noise(whose, readings).reshape(64 * 12, -1)
    assert kolmogorov(z[::64].ravel(), normal_cdf) < 1.95
    news = (z[1:] - _climate.PHI * z[:-1]) / math.sqrt(1 - _climate.PHI**2)
    assert kolmogorov(news.ravel()[:20_000], normal_cdf) < 1.95
    assert kolmogorov(news[63::64].ravel(), normal_cdf) < 1.95
    size = math.sqrt(19 / z.size)
    for lag in (1, 2, 8):
        assert abs(np.mean(z[lag:] * z[:-lag]) - _climate.PHI**lag) < 4 * size
    if z.shape[1] > 1:
        assert abs(np.corrcoef(z[:, 0], z[:, 1])[0, 1]) < 4 * size * math.sqrt(z.shape[1])


def test_devices_have_offsets_and_drift():
    place = _PLACE._replace(drift=3.0)
    fleet = _climate.Fleet(2_000, 60_000_000, 0)
    climate = _climate.Climate(7, "x", fleet, place, _climate.shares_of("t", "ok"))
    assert kolmogorov(climate.offset / place.spread, normal_cdf) < 1.95
    assert kolmogorov(climate.drift / place.drift, normal_cdf) < 1.95
    device, reading = np.arange(2_000), np.zeros(2_000, np.int64)
    year = 8766 * 3_600_000_000
    then, later = (climate.temperature(device, reading, np.full(2_000, at)) for at in (0, year))
    assert np.allclose(later - then, climate.drift)


def test_ok_stays_within_the_limits_and_the_others_do_not(year):
    low, high = LIMITS
    assert low < year["temperature"].min() < year["temperature"].max() < high
    breach = columns(64 * 40, devices=40, profile="breach")["temperature"].reshape(64, 40)
    assert (breach.max(axis=0) > high).all()
    assert ((breach > high).sum(axis=0) < 24).all()
    assert columns(4096, devices=40, profile="hot", start="2025-07-20")["temperature"].min() > high - 2
    assert columns(4096, devices=40, profile="cold")["temperature"].max() < low


def test_a_silent_device_has_no_values():
    generator = catalog.sensors(seed=7, profile="silent")
    assert {(None, None, None)} == {(r["temperature"], r["humidity"], r["light"]) for r in generator[:50]}
    assert generator.schema.fields["light"].optional
    assert not catalog.sensors(seed=7).schema.fields["light"].optional


def test_profiles_are_drawn_by_their_weights():
    weights = {"ok": 70, "silent": 20, "cold": 10}
    rows = catalog.sensors(seed=3, devices=5_000, profile=weights)[:5_000]
    seen = Counter("silent" if r["light"] is None else "cold" if r["temperature"] < 5 else "ok" for r in rows)
    assert chi_square([seen[name] for name in weights], list(weights.values())) > 1e-3


def test_a_profile_changes_no_other_value():
    ok, hot = catalog.sensors(seed=7)[:200], catalog.sensors(seed=7, profile="hot")[:200]
    assert [row["light"] for row in ok] == [row["light"] for row in hot]
    assert {18.0} == {round(b["temperature"] - a["temperature"], 1) for a, b in zip(ok, hot, strict=True)}


def test_a_part_of_the_fields_and_far_ahead():
    whole = catalog.sensors(seed=7)
    some = whole.select("light", "device_id")
    assert [{n: row[n] for n in ("light", "device_id")} for row in whole[8190:8200]] == some[8190:8200]
    assert pickle.loads(pickle.dumps(whole))[10**9] == whole[10**9]


def test_humidity_of_a_part_is_that_of_the_whole():
    whole = catalog.sensors(seed=7)
    assert [row["humidity"] for row in whole[:9]] == [row["humidity"] for row in whole.select("humidity")[:9]]


# --- ijinus


def test_the_envelope_is_as_seen_in_the_wild():
    first = catalog.ijinus(seed=7)[0]
    reading = first["datas"][0]
    assert list(first) == ["datas", "ver"]
    assert list(reading) == ["channel", "metric", "producer", "sn", "time", "value"]
    assert (
        reading["channel"],
        reading["metric"],
        reading["producer"],
        first["ver"],
    ) == ("", "temperature", "ijinus", "1.0")
    assert {str} == set(map(type, reading.values()))
    assert (reading["sn"], reading["time"]) == ("IJA0101-00000001", "1735689600000")
    assert len("IJA0101-00002245") == len(reading["sn"])


def test_typed_envelopes_have_the_same_numbers():
    for text, number in zip(
        catalog.ijinus(seed=7, batch=3)[:50], catalog.ijinus(seed=7, batch=3, typed=True)[:50], strict=True
    ):
        again = [{**r, "time": str(r["time"]), "value": str(r["value"])} for r in number["datas"]]
        assert text["datas"] == again
        assert {int} == {type(r[name]) for r in number["datas"] for name in ("time", "value")}


def test_a_batch_holds_consecutive_readings_of_one_logger():
    rows = catalog.ijinus(seed=7, devices=4, batch=10, interval=60, typed=True)[:8]
    assert [4 * [f"IJA0101-0000000{d}"] for d in (1,)] == [[r["sn"] for r in rows[0]["datas"][:4]]]
    assert {60_000} == {
        b["time"] - a["time"] for row in rows for a, b in zip(row["datas"], row["datas"][1:], strict=False)
    }
    assert rows[0]["datas"][-1]["time"] + 60_000 == rows[4]["datas"][0]["time"]


def test_readings_are_the_same_in_any_batch():
    one = catalog.ijinus(seed=7, devices=5, interval=60)[:500]
    ten = catalog.ijinus(seed=7, devices=5, interval=60, batch=10)[:50]

    def readings(rows):
        return sorted((r["sn"], r["time"], r["value"]) for row in rows for r in row["datas"])

    assert readings(one) == readings(ten)


def test_malformed_envelopes_are_as_frequent_as_asked_for_and_the_others_unchanged():
    shares = dict.fromkeys(MALFORMED, 0.02)
    good, bad = catalog.ijinus(seed=7)[:20_000], catalog.ijinus(seed=7, malformed=shares)[:20_000]
    seen = Counter()
    for before, after in zip(good, bad, strict=True):
        if before == after:
            seen[""] += 1
        elif not after["datas"]:
            seen["empty"] += 1
        elif after["ver"] != "1.0":
            seen["version"] += 1
        elif "sn" not in after["datas"][0]:
            seen["no sn"] += 1
        elif after["datas"][0]["value"] == "NaN":
            seen["NaN"] += 1
        else:
            assert before["datas"][0]["time"] == after["datas"][0]["time"] + before["datas"][0]["time"][-3:]
            seen["seconds"] += 1
    assert chi_square([seen[k] for k in [*MALFORMED, ""]], [*shares.values(), 0.9]) > 1e-3


@pytest.mark.parametrize(
    "generator",
    [
        catalog.sensors(seed=7),
        catalog.sensors(seed=7, profile={"ok": 1, "silent": 1}),
        catalog.ijinus(seed=7),
        catalog.ijinus(seed=7, typed=True, batch=3),
        catalog.ijinus(seed=7, malformed={"no sn": 0.3, "version": 0.2}),
    ],
    ids=["sensors", "silent", "ijinus", "typed", "malformed"],
)
def test_blocks_are_written_as_their_rows_are(generator):
    block = generator.block(3)
    expected = [json.dumps(row, separators=(",", ":")).encode() for row in block.rows()]
    assert expected == Json().dumps_many(block)


def test_the_types_are_told():
    kinds = {name: type.kind for name, type in catalog.sensors(seed=7).schema.fields.items()}
    assert list(kinds.values()) == [Kind.STR, Kind.INT, Kind.INT, Kind.FLOAT, Kind.FLOAT, Kind.INT]
    item = catalog.ijinus(seed=7, typed=True).schema.fields["datas"].item
    assert (item.fields.fields["time"].kind, item.fields.fields["value"].kind) == (Kind.INT, Kind.INT)


def test_fault_presets_are_well_formed_and_name_fields_that_are_there():
    for made, presets in ((catalog.sensors(seed=7), FAULTS), (catalog.ijinus(seed=7), UPLOAD_FAULTS)):
        for preset in presets.values():
            assert preset
            for fault, arguments in preset:
                assert isinstance(fault, str)
                for key in {"field", "per"} & set(arguments):
                    # A field within a list of records stands behind the list's name and a place in it.
                    assert arguments[key].partition(".")[0] in made.schema.fields


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: catalog.sensors(devices=0), "devices"),
        (lambda: catalog.sensors(devices=True), "devices"),
        (lambda: catalog.sensors(interval=0), "interval"),
        (lambda: catalog.sensors(interval=math.nan), "interval"),
        (lambda: catalog.sensors(profile="hott"), "did you mean 'hot'"),
        (lambda: catalog.sensors(profile={"ok": -1}), "weights"),
        (lambda: catalog.sensors(profile={"ok": math.nan}), "weights"),
        (lambda: catalog.sensors(profile={"ok": 0}), "weights"),
        (lambda: catalog.sensors(profile=3), "profile"),
        (lambda: catalog.sensors(format="isoo"), "format"),
        (lambda: catalog.ijinus(batch=0), "batch"),
        (lambda: catalog.ijinus(typed="yes"), "typed"),
        (lambda: catalog.ijinus(profile="silent"), "silent"),
        (lambda: catalog.ijinus(malformed="nan"), "malformed"),
        (lambda: catalog.ijinus(malformed={"NaN": 0.6, "no sn": 0.6}), "more than 1"),
        (lambda: catalog.ijinus(malformed={"NaN": -0.6}), "weights"),
    ],
)
def test_bad_options_are_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()
