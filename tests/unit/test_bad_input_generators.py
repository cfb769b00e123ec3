"""What cannot be generated is refused when it is built, in a sentence that helps: from Python, and where it can be said
there, on the command line."""

from __future__ import annotations

import math

import pytest

import simlink
from simlink import arrivals, fields
from simlink.cli import main
from simlink.errors import ConfigError
from simlink.generators import catalog

WEIGHTS = "weights must be finite, not negative, and not all 0"
CHAIN = {"a": {"a": 1}}


def record(**made):
    return simlink.record("r", seed=1, **made)


@pytest.mark.parametrize("weight", [-1, math.nan, math.inf, 0, None])
@pytest.mark.parametrize(
    ("make", "who"),
    [
        (lambda w: fields.choice(a=w), "choice"),
        (lambda w: fields.pool(["x", "y"], weights=[w, w]), "pool"),
        (lambda w: fields.markov({"a": {"a": w}}), "markov: after 'a'"),
        (lambda w: catalog.numbers(weights=[w] * 10), "numbers"),
        (lambda w: catalog.numbers(weights={1: w}), "numbers"),
        (lambda w: catalog.sensors(profile={"ok": w}), "sensors: profile"),
        (lambda w: catalog.ijinus(malformed={"empty": w}), "ijinus: malformed"),
        (lambda w: simlink.mix((w, catalog.numbers()), (1, catalog.numbers())), "mix"),
    ],
)
def test_weights_that_are_none(make, who, weight):
    said = rf"mix: .* a whole number from 1, not {weight}" if who == "mix" else f"{who}: {WEIGHTS}"
    with pytest.raises(ConfigError, match=said):
        make(weight)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: record(a=fields.ref("b", fields.uuid()), b=fields.zipf(5)), r"r\.a: 'b' comes after 'a'.* move it"),
        (lambda: record(a=fields.when("b", 1, 2), b=fields.zipf(5)), r"r\.a: 'b' comes after 'a'.* move it"),
        (lambda: record(bee=fields.zipf(5), a=fields.ref("be", fields.uuid())), r"r\.a: no earlier field 'be'.*bee"),
        (lambda: record(bee=fields.zipf(5), a=fields.when("c", 1, 2)), r"no earlier field 'c'; known: bee"),
        (lambda: record(a=fields.ref("a", fields.uuid())), "refers to itself"),
        (lambda: record(a=fields.markov(CHAIN, by="zz")), "no earlier field 'zz'"),
        (lambda: record(a=fields.season("zz", "day", 1)), "no earlier field 'zz'"),
        (
            lambda: simlink.from_type({"type": "object", "properties": {"a": {"type": "string", "not": {}}}}),
            r"\.a: 'not' is not supported",
        ),
        (lambda: catalog.numbers(weights=5), "numbers: weights are ten, of the digits 0 to 9, not 5"),
        (lambda: catalog.clickstream(users=0), "clickstream: users is an integer from 1"),
        (lambda: catalog.clickstream(skew=-1), "clickstream: skew is a finite number from 0 up, not -1"),
        (lambda: catalog.orders(customers=1.5), "orders: customers is an integer from 1"),
        (lambda: catalog.sensors(start=1e300), "a time of 1e[+]300 seconds since 1970 does not fit"),
        (
            lambda: fields.markov({"a": {"a": 1e308, "b": 1e308}, "b": {"a": 1}}),
            "after 'a': weights have a sum that is",
        ),
        (lambda: simlink.fit([]), "the sample is empty"),
        (lambda: simlink.fit([{"a": 1}] * 10), "the sample is constant: its 10 records are all the same"),
    ],
)
def test_fields_schemas_and_samples_that_cannot_be(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


EXPRESSIONS = [
    ("poisson(200)*", "something is missing at the end", 13),
    ("", "it is empty", 0),
    ("poisson(", "'(' was never closed", 7),
    ("constant(5) + poison(3)", "no schedule 'poison'; did you mean 'poisson'", 14),
    ("poisson(200)*diurnal(7)", "depth is from 0 to 1", 13),
    ("constant(1) + poisson(-1)", "a finite number above 0, not -1", 14),
    ("poisson(5) + burst(every=60)", "missing 1 required positional argument: 'size'", 13),
]


@pytest.mark.parametrize(("text", "said", "column"), EXPRESSIONS)
def test_an_arrivals_expression_shows_where_it_is_wrong(text, said, column, capsys):
    with pytest.raises(ConfigError) as caught:
        arrivals.parse(text)
    told = str(caught.value)
    assert said in told
    assert told.splitlines()[-2:] == [f"  {text}", f"  {' ' * column}^"]
    # The command line shows the same.
    assert main(["send", "numbers", "--to", "memory://x", "--count", "1", "--arrivals", text]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.splitlines()[-2:] == told.splitlines()[-2:]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["preview", "numbers(weights=[1, 2, -3, 4, 5, 6, 7, 8, 9, 10])"], WEIGHTS),
        (["generate", "numbers(weights={1: 0})", "--count", "1", "--out", "-"], WEIGHTS),
        (["send", "sensors(profile={'ok': -1})", "--to", "memory://x", "--count", "1"], WEIGHTS),
        (["preview", "sensors(profile='okay')"], "did you mean 'ok'"),
        (["plot", "ijinus(malformed='emty')", "--out", "x.png"], "did you mean 'empty'"),
        (["preview", "tests.unit.test_bad_input_generators:later"], "'b' comes after 'a'"),
        (["schema", "tests.unit.test_bad_input_generators:schema"], "'not' is not supported"),
        (["generate", "tests.unit.test_bad_input_generators:sample", "--count", "1", "--out", "-"], "sample is empty"),
    ],
)
def test_the_command_line_refuses_the_same(arguments, said, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert (out, "Traceback" in err) == ("", False)


def later(seed=None):
    return record(a=fields.ref("b", fields.uuid()), b=fields.zipf(5))


def schema(seed=None):
    return simlink.from_type({"type": "object", "properties": {"a": {"type": "string", "not": {}}}}, seed=seed)


def sample(seed=None):
    return simlink.fit([], seed=seed)
