"""Text → value, for expressions on the command line: calls of a few known functions, numbers, and little else.

The text is parsed by Python's own parser and never run: only what is named here is evaluated. Whatever is wrong is
shown with a caret under it.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from simlink.errors import ConfigError, did_you_mean

__all__ = ["evaluate"]

_LONGEST = 10_000
_DEEPEST = 100
_NESTING = re.compile(r"[^\w\s,]|\b(?:not|lambda|if|await)\b")
_MOST = 1_000
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {ast.Add: operator.add, ast.Mult: operator.mul}


def evaluate(
    text: str, functions: Mapping[str, Callable[..., Any]], methods: frozenset[str], noun: str, like: str
) -> Any:
    """The value of an expression: ``functions`` by name, their ``methods`` behind a dot, ``+`` and ``*``, numbers,
    texts, True, False, None, tuples and lists.

    Args:
        text: the expression; line breaks are spaces.
        functions: what may be called, by name.
        methods: what may be called behind a dot.
        noun: what the functions make, for the error.
        like: an example, for the error.

    Raises:
        ConfigError: it is no such expression; with the text, and a caret under what is wrong.
    """
    reader = _Reader(text, functions, methods, noun, like)
    return reader.read()


class _Reader:
    def __init__(
        self, text: str, functions: Mapping[str, Callable[..., Any]], methods: frozenset[str], noun: str, like: str
    ) -> None:
        self.text = " ".join(text.split())
        self.functions, self.methods, self.noun, self.like = functions, methods, noun, like

    def read(self) -> Any:
        if len(self.text) > _LONGEST:
            raise ConfigError(f"an expression of {len(self.text):,} characters is too long: at most {_LONGEST:,}")
        # Whatever can be nested needs one of these. A parse that runs out of stack leaves the interpreter's own count
        # of it wrong (CPython 3.11), and a later one fails for that: it must not come so far.
        if len(_NESTING.findall(self.text)) > _MOST:
            raise ConfigError(f"an expression of more than {_MOST:,} operators and brackets is too long")
        try:
            tree = ast.parse(self.text, mode="eval")
        except SyntaxError as error:
            if not error.offset:  # the parser's word for the end of the text
                what = "something is missing at the end" if self.text else "it is empty"
                raise self._wrong(what, len(self.text)) from error
            raise self._wrong(error.msg, error.offset - 1) from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise self._wrong(str(error) or "nested too deeply", 0) from error
        return self._value(tree.body, 0)

    def _wrong(self, what: str, column: int) -> ConfigError:
        width = 100
        start = max(0, column - width // 2)
        shown = self.text[start : start + width]
        return ConfigError(f"{what}; expected something like {self.like!r}\n  {shown}\n  {' ' * (column - start)}^")

    def _at(self, node: ast.AST, what: str) -> ConfigError:
        # The parser counts bytes of UTF-8.
        offset = getattr(node, "col_offset", 0)
        return self._wrong(what, len(self.text.encode()[:offset].decode(errors="replace")))

    def _value(self, node: ast.expr, depth: int) -> Any:
        if depth > _DEEPEST:
            raise self._at(node, "nested too deeply")
        deeper = depth + 1
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | None):
            return node.value
        if isinstance(node, ast.Tuple | ast.List):
            return tuple(self._value(item, deeper) for item in node.elts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self._value(node.operand, deeper)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise self._at(node, "only a number can be negative")
            return -value
        if isinstance(node, ast.BinOp):
            return self._binary(node, deeper)
        if isinstance(node, ast.Call):
            return self._call(node, deeper)
        if isinstance(node, ast.Name):
            raise self._at(node, f"{node.id!r} stands alone: give it its arguments, as {node.id}(…)")
        raise self._at(node, f"{ast.unparse(node)!r} has no place in here")

    def _binary(self, node: ast.BinOp, depth: int) -> Any:
        left, right = self._value(node.left, depth), self._value(node.right, depth)
        operation = _OPERATORS.get(type(node.op))
        plain = all(isinstance(side, int | float) and not isinstance(side, bool) for side in (left, right))
        if operation is None or any(isinstance(side, str | tuple | None) for side in (left, right)):
            raise self._at(node, f"{ast.unparse(node)!r}: only + and * of schedules and numbers are known")
        try:
            return float(operation(left, right)) if plain else operation(left, right)
        except ConfigError as error:
            raise self._at(node, str(error)) from error
        except (TypeError, OverflowError) as error:
            raise self._at(node, f"{ast.unparse(node)!r} makes no sense: {error}") from error

    def _call(self, node: ast.Call, depth: int) -> Any:
        function = self._function(node.func, depth)
        arguments = [self._value(a, depth) for a in node.args]
        named = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self._at(keyword.value, "** has no place in here")
            named[keyword.arg] = self._value(keyword.value, depth)
        try:
            return function(*arguments, **named)
        except ConfigError as error:
            raise self._at(node, str(error)) from error
        except (TypeError, ValueError, OverflowError) as error:
            raise self._at(node, f"{ast.unparse(node.func)}: {_reason(error)}") from error

    def _function(self, node: ast.expr, depth: int) -> Callable[..., Any]:
        if isinstance(node, ast.Name):
            found = self.functions.get(node.id)
            if found is None:
                raise self._at(node, f"no {self.noun} {node.id!r}{did_you_mean(node.id, self.functions)}")
            return found
        if isinstance(node, ast.Attribute):
            owner = self._value(node.value, depth)
            method = getattr(owner, node.attr, None) if node.attr in self.methods else None
            if method is None or isinstance(owner, str | tuple | int | float | None):
                raise self._at(node, f"there is no .{node.attr}(){did_you_mean(node.attr, self.methods)}")
            made: Callable[..., Any] = method
            return made
        raise self._at(node, f"{ast.unparse(node)!r} cannot be called")


def _reason(error: Exception) -> str:
    """Python's own words of a wrong call, without the function's name, which stands there already."""
    text = str(error)
    return text.partition("() ")[2] or text
