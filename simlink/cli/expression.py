"""``--arrivals EXPR``: a schedule as text, as ``poisson(5000)``. Only schedules and numbers can be written."""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING, Any

from simlink.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from simlink.generators.arrivals import Arrivals

__all__ = ["parse_arrivals"]

_OPERATORS = {ast.Add: operator.add, ast.Mult: operator.mul}


def parse_arrivals(text: str) -> Arrivals:
    """The schedule that an expression describes: a function of `simlink.arrivals` with numbers and texts as arguments,
    and ``+`` and ``*`` where schedules know them.

    Raises:
        ConfigError: it is no such expression.
    """
    from simlink.generators.arrivals import Arrivals

    try:
        tree = ast.parse(text.strip(), mode="eval")
        value = _value(tree.body, text)
    except (SyntaxError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"--arrivals {text!r}: expected something like 'poisson(5000)': {error}") from error
    if not isinstance(value, Arrivals):
        raise ConfigError(f"--arrivals {text!r}: expected something like 'poisson(5000)'")
    return value


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, text)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left, text), _value(node.right, text))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        arguments = [_value(a, text) for a in node.args]
        named = {k.arg: _value(k.value, text) for k in node.keywords if k.arg is not None}
        return _process(node.func.id)(*arguments, **named)
    raise ConfigError(f"--arrivals {text!r}: expected something like 'poisson(5000)', not {ast.unparse(node)!r}")


def _process(name: str) -> Any:
    from simlink import arrivals

    # A list of times is written in a file, and is what --speed is for.
    known = sorted(set(arrivals.__all__) - {"Arrivals", "from_timestamps"})
    if name not in known:
        raise ConfigError(f"--arrivals: no schedule {name!r}{did_you_mean(name, known)}")
    return getattr(arrivals, name)
