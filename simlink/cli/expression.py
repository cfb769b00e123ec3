"""``--arrivals EXPR``: a schedule as text, as ``poisson(200)*diurnal(0.6)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simlink.errors import ConfigError

if TYPE_CHECKING:
    from simlink.generators.arrivals.schedule import Arrivals

__all__ = ["parse_arrivals"]


def parse_arrivals(text: str) -> Arrivals:
    """The schedule that an expression describes; see `simlink.arrivals.parse`.

    Raises:
        ConfigError: it is no such expression; shows where.
    """
    from simlink.generators.arrivals.text import parse

    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError(f"--arrivals: {error}") from error
