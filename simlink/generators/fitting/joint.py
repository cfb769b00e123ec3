"""How columns go together: what belongs to a key, what is missing with what, and what rises with what."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simlink.generators.fitting.calls import Call
from simlink.generators.fitting.laws import Law, canonical

__all__ = ["coupled", "couplings", "determinants", "presence"]

_EVIDENCE = 20.0
"""A dependency must be less likely than e**-20 among independent columns."""


def determinants(
    columns: Mapping[str, Sequence[Any]], laws: Mapping[str, Law]
) -> dict[str, tuple[str, dict[Any, Any]]]:
    """Column → the one with the fewest values that it belongs to, and the table key → value; for those that belong to
    one. It never leads in a circle: a column belongs to one with more values, or as many and further to the left."""
    codes = {name: [canonical(v) for v in values] for name, values in columns.items()}
    counts = {name: len(set(column) - {None}) for name, column in codes.items()}
    place = {name: i for i, name in enumerate(columns)}
    keys = sorted((n for n, law in laws.items() if law.category), key=lambda n: (counts[n], -place[n]))
    found: dict[str, tuple[str, dict[Any, Any]]] = {}
    for name, values in columns.items():
        if name not in laws or counts[name] < 2:
            continue
        for key in keys:
            if (counts[key], -place[key]) <= (counts[name], -place[name]):
                continue
            table = _table(columns[key], codes[key], values, codes[name])
            if table is not None:
                found[name] = (key, table)
                break
    return found


def _table(
    keys: Sequence[Any], key_codes: Sequence[Any], values: Sequence[Any], codes: Sequence[Any]
) -> dict[Any, Any] | None:
    """Key → value, where each key has one, and independent columns would hardly look so."""
    known: dict[Any, Any] = {}
    table: dict[Any, Any] = {}
    for key, key_code, value, code in zip(keys, key_codes, values, codes, strict=True):
        if key_code is None:
            if code is not None:
                return None
            continue
        if known.setdefault(key_code, code) != code:
            return None
        table.setdefault(key, value)
    shares = np.array(list(Counter(codes).values())) / len(codes)
    repeats = sum(code is not None for code in key_codes) - len(known)
    same = float((shares**2).sum())
    return table if repeats * -math.log(same) > _EVIDENCE else None


def presence(
    name: str, columns: Mapping[str, Sequence[Any]], laws: Mapping[str, Law], few: int = 50
) -> tuple[str, list[Any]] | None:
    """The column whose value says whether this one is there, and the values for which it is; None where there is
    none."""
    there = [v is not None for v in columns[name]]
    share = sum(there) / len(there)
    for other, law in laws.items():
        if other == name or not law.category or None in columns[other]:
            continue
        says: dict[Any, bool] = {}
        seen: dict[Any, Any] = {}
        agree = len(set(map(canonical, columns[other]))) <= few and all(
            says.setdefault(canonical(v), t) == t for v, t in zip(columns[other], there, strict=True)
        )
        repeats = len(there) - len(says)
        if agree and repeats * -math.log(share**2 + (1 - share) ** 2) > _EVIDENCE:
            for value in columns[other]:
                seen.setdefault(canonical(value), value)
            return other, [seen[code] for code, yes in says.items() if yes]
    return None


def couplings(names: Sequence[str], laws: Mapping[str, Law]) -> dict[str, dict[str, float]]:
    """Numeric column → weights of earlier ones, for `fields.coupled`; for those that rise or fall with another.

    Spearman's rank correlation of the rows where both are there, those within three standard errors of 0 left out; the
    normal numbers' correlation from it (see `simlink.generators.fields.coupling`); the nearest such matrix that is
    positive definite, by raising its eigenvalues to 1e-6 and scaling its diagonal back to 1 (Rebonato and Jäckel,
    *The most general methodology to create a valid correlation matrix*, 1999); its Cholesky factor, row by row.
    """
    numeric = [name for name in names if laws[name].numeric]
    size = len(numeric)
    matrix = np.eye(size)
    order = [np.array(laws[name].order) for name in numeric]
    for i in range(size):
        for j in range(i):
            both = ~(np.isnan(order[i]) | np.isnan(order[j]))
            n = int(both.sum())
            if n < 10:
                continue
            r = _spearman(order[i][both], order[j][both])
            if abs(r) > 3 / math.sqrt(n - 1):
                matrix[i, j] = matrix[j, i] = 2 * math.sin(math.pi / 6 * r)
    if size < 2 or not (matrix - np.eye(size)).any():
        return {}
    eigenvalues, vectors = np.linalg.eigh(matrix)
    repaired = vectors @ np.diag(np.maximum(eigenvalues, 1e-6)) @ vectors.T
    scale = 1 / np.sqrt(np.diag(repaired))
    factor = np.linalg.cholesky(repaired * np.outer(scale, scale))
    out: dict[str, dict[str, float]] = {}
    for i, name in enumerate(numeric):
        weights = {numeric[j]: round(float(factor[i, j]), 4) for j in range(i) if abs(factor[i, j]) >= 0.005}
        if weights:
            total = math.sqrt(sum(w * w for w in weights.values()))
            out[name] = weights if total <= 1 else {n: math.floor(w / total * 1e4) / 1e4 for n, w in weights.items()}
    for name in {other for weights in out.values() for other in weights}:
        out.setdefault(name, {})
    return out


def _spearman(a: Any, b: Any) -> float:
    ra, rb = _ranks(a), _ranks(b)
    if ra.std() == 0 or rb.std() == 0:
        return 0.0
    return float(np.corrcoef(ra, rb)[0, 1])


def _ranks(values: Any) -> Any:
    """Ranks, equal values sharing the mean of theirs."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[where]


def coupled(call: Call, weights: Mapping[str, float]) -> Call:
    """The call, coupled."""
    return Call("fields.coupled", (call, dict(weights)) if weights else (call,))
