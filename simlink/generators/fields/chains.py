"""Markov chains: the next state depends on the one before, and on nothing else.

A chain is walked without a loop over rows. Each row's random number makes a function from state to state; functions
compose, so that stretches of rows are composed side by side, and only the stretches are gone through one by one
(a parallel prefix: Hillis and Steele, *Data parallel algorithms*, 1986). A restart is a function like any other: one
that forgets the state it is given.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from simlink.block import Coded, Column, Pool
from simlink.errors import ConfigError, did_you_mean
from simlink.generators import seeding
from simlink.generators.field import Bound, Context, Field, Scope, infer, plain
from simlink.generators.fields.draws import cumulative
from simlink.generators.fields.relations import key_words

__all__ = ["Chain", "Shelves", "draws_of", "markov", "stationary"]

Codes = npt.NDArray[np.int64]
_BITS = 48
"""A draw is an integer of this many bits: probabilities hold to 2**-48, and a weight of 0 is never drawn."""
_STATES = 256
_STRETCH = 64


class Chain:
    """What follows each state, as tables to draw from.

    Args:
        rows: one row of weights a state, all equally long; where there are more columns than rows, the last ones are
            ends, which nothing follows.
    """

    def __init__(self, what: str, rows: Sequence[Sequence[float]]) -> None:
        self.states = len(rows)
        self.targets = len(rows[0])
        self._limits = np.concatenate([_limits(what, row) + (i << _BITS) for i, row in enumerate(rows)])

    def step(self, states: Codes, draws: Codes) -> Codes:
        """The states that follow these, one draw (`draws_of`) each."""
        found = np.searchsorted(self._limits, draws + (states << _BITS), side="right")
        following: Codes = found - states * self.targets
        return following

    def walk(self, draws: Codes, begins: Codes, first: npt.NDArray[np.bool_]) -> Codes:
        """Row by row the state that follows the one of the row before; where ``first`` is true, ``begins`` instead.
        The first row is always such a beginning."""
        rows, n = len(draws), self.states
        count = -(-rows // _STRETCH)
        draws, begins, first = (_rectangle(values, count) for values in (draws, begins, first))
        states = np.tile(np.arange(n), (count, 1))
        paths = np.empty((_STRETCH, count, n), np.int64)
        for place in range(_STRETCH):
            states = self.step(states, draws[:, place, None])
            anew = np.flatnonzero(first[:, place])
            states[anew] = begins[anew, place, None]
            paths[place] = states
        state, entered = 0, []
        for stretch in range(count):
            entered.append(state)
            state = int(paths[-1, stretch, state])
        out: Codes = paths[:, np.arange(count), entered].T.ravel()[:rows]
        return out


class Shelves:
    """Values that stand on shelves, numbered through: which one of its shelf, by weight.

    A guide table over equal parts of each shelf (Chen and Asau, 1974) leaves a step or two of the search.

    Args:
        weights: those of the values of each shelf.
    """

    def __init__(self, what: str, weights: Sequence[Sequence[float]]) -> None:
        limits = [_limits(what, row) + (i << _BITS) for i, row in enumerate(weights)]
        self._limits = np.concatenate(limits)
        self._shift = _BITS - min(max(map(len, weights)).bit_length() + 1, 16)
        parts = np.arange(len(weights) << (_BITS - self._shift), dtype=np.int64) << self._shift
        self._guide = np.searchsorted(self._limits, parts, side="right")

    def __call__(self, shelves: Codes, words: seeding.Words) -> Codes:
        """The number of a value of each of these shelves."""
        draws = draws_of(words) + (shelves << _BITS)
        # `take` is faster than an index in brackets.
        found: Codes = self._guide.take(draws >> self._shift)
        found += self._limits.take(found) <= draws
        wrong = np.flatnonzero(self._limits.take(found) <= draws)
        if len(wrong):
            found[wrong] = np.searchsorted(self._limits, draws[wrong], side="right")
        return found


def _limits(what: str, weights: Sequence[float]) -> Codes:
    # The least integer that no draw below the limit reaches; exact, for a limit has 53 bits at most.
    return np.ceil(cumulative(what, weights) * 2.0**_BITS).astype(np.int64)


def _rectangle(values: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    padded = np.zeros(count * _STRETCH, values.dtype)
    padded[: len(values)] = values
    return padded.reshape(count, _STRETCH)


def draws_of(words: seeding.Words) -> Codes:
    """Random words → draws of a chain."""
    return (words >> np.uint64(64 - _BITS)).view(np.int64)


def stationary(rows: Sequence[Sequence[float]]) -> list[float] | None:
    """The shares of the states in the long run; None where they depend on the beginning.

    The elimination of Grassmann, Taksar and Heyman (1985): it never subtracts, so nothing cancels, and every operation
    is one that IEEE 754 fixes.
    """
    n = len(rows)
    shares = np.array([[w / math.fsum(row) for w in row] for row in rows])
    if not _one_class(shares > 0):
        return None
    sums = [1.0] * n
    for k in range(n - 1, 0, -1):
        sums[k] = math.fsum(shares[k, :k].tolist())
        shares[:k, :k] += shares[:k, k, None] * (shares[k, :k] / sums[k])
    out = [1.0]
    for k in range(1, n):
        out.append(math.fsum(p * q for p, q in zip(out, shares[:k, k].tolist(), strict=True)) / sums[k])
    total = math.fsum(out)
    return [value / total for value in out]


def _one_class(leads: npt.NDArray[np.bool_]) -> bool:
    """Whether every state leads to every other one."""
    for edges in (leads, leads.T):
        seen, waiting = {0}, [0]
        while waiting:
            for state in np.flatnonzero(edges[waiting.pop()]).tolist():
                if state not in seen:
                    seen.add(state)
                    waiting.append(state)
        if len(seen) < len(leads):
            return False
    return True


def markov(
    transitions: Mapping[Any, Mapping[Any, float]],
    start: Any = None,
    *,
    by: str | None = None,
) -> Field:
    """A Markov chain: what comes next depends on what came before.

    ``markov({"up": {"up": 99, "down": 1}, "down": {"down": 9, "up": 1}})`` goes from row to row; with ``by="host"``
    each host has a chain of its own, which moves on the rows of that host.

    Every block of 4,096 rows (inside `list`: every list) begins anew, so that any block can be made alone. By default
    its first state is drawn from the stationary law, the shares of the states in the long run: then every row has these
    shares, and what the seam costs is one transition in 4,096 that is independent of the state before (with ``by``: one
    an entity and block). Identical everywhere.

    Args:
        transitions: for each state the weights of the states that follow it, relative as in `choice`.
        start: a state, or weights by state as a mapping, to begin every block with, instead of the stationary law.
        by: the name of a field before this one, whose every value has a chain of its own.

    Raises:
        ConfigError: no states or more than 256, a state that nothing is said about, weights as in `choice` refused,
            no stationary law (some state does not lead to every other) and no ``start``, or ``by`` in a list.
    """
    return _Markov(transitions, start, by)


class _Markov(Field):
    def __init__(self, transitions: Mapping[Any, Mapping[Any, float]], start: Any, by: str | None) -> None:
        if not isinstance(transitions, Mapping) or not transitions:
            raise ConfigError("markov: transitions are a mapping state → {next state: weight}, with a state at least")
        if len(transitions) > _STATES:
            raise ConfigError(f"markov: at most {_STATES} states, not {len(transitions)}")
        if by is not None and not isinstance(by, str):
            raise ConfigError(f"markov: by= is the name of an earlier field, not {by!r}")
        self.by = by
        self.states = [plain(state) for state in transitions]
        index = {state: i for i, state in enumerate(transitions)}
        rows = [_weights(f"markov: after {state!r}", index, row) for state, row in transitions.items()]
        self.chain = Chain("markov", rows)
        if start is None:
            law = stationary(rows)
            if law is None:
                raise ConfigError("markov: not every state leads to every other: say start=, a state or weights")
        elif isinstance(start, Mapping):
            law = _weights("markov: start", index, start)
        else:
            law = _weights("markov: start", index, {start: 1.0})
        self.law = _limits("markov: start", law)

    def needs(self) -> Iterator[str]:
        if self.by is not None:
            yield self.by

    def bind(self, scope: Scope) -> Bound:
        if not scope.counts:
            raise ConfigError(
                f"{scope.path}: a Markov chain is not an attribute of an entity: it needs rows to go along"
            )
        if self.by is not None:
            if scope.counts != "stream":
                raise ConfigError(f"{scope.path}: markov(by=…) follows the stream's rows: it has no place in a list")
            scope.lookup(self.by)
        pool = Pool(self.states)

        def make(context: Context) -> Column:
            draws = draws_of(context.words(scope.path))
            begins = np.searchsorted(self.law, draws_of(context.words(f"{scope.path}#start")), side="right")
            if self.by is not None:
                return Coded(self._by(context.column(self.by), draws, begins), pool)
            first = context.positions() == 0
            first[:1] = True
            return Coded(self.chain.walk(draws, begins, first), pool)

        return Bound(infer(pool.values), make)

    def _by(self, keys: Column, draws: Codes, begins: Codes) -> Codes:
        words = keys.codes if isinstance(keys, Coded) else key_words(keys)
        order = np.argsort(words, kind="stable")
        grouped = words[order]
        first = np.ones(len(order), np.bool_)
        first[1:] = grouped[1:] != grouped[:-1]
        out = np.empty(len(order), np.int64)
        out[order] = self.chain.walk(draws[order], begins[order], first)
        return out


def _weights(what: str, index: Mapping[Any, int], row: Any) -> list[float]:
    if not isinstance(row, Mapping):
        raise ConfigError(f"{what}: expected a mapping state → weight, not {row!r}")
    weights = [0.0] * len(index)
    for state, weight in row.items():
        if state not in index:
            near = did_you_mean(str(state), map(str, index))
            raise ConfigError(f"{what}: nothing is said about the state {state!r}{near}")
        weights[index[state]] = weight
    cumulative(what, weights)
    if sum(weights) > sys.float_info.max:
        raise ConfigError(f"{what}: weights have a sum that is finite: {list(row.values())!r}")
    return weights
