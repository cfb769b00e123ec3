"""What a user sees of a pool's endpoints, and does with them: ``channel.endpoints``."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

from simlink.channels.pool.core import PoolSender
from simlink.channels.pool.endpoint import HEAD, Endpoint
from simlink.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from simlink.channels.sender import Sender

__all__ = ["Endpoint", "Endpoints"]


class Endpoints(Sequence[Endpoint]):
    """The endpoints of a channel as they are now: a sequence of `Endpoint`, by index or by name, that prints as a
    table.

    Every look is a new one. Thread-safe.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    # --- looking --------------------------------------------------------------------------------------------------

    def _list(self) -> list[Endpoint]:
        pool = self._pool
        with self._sender.entered():
            return pool.endpoints()

    @property
    def _pool(self) -> PoolSender:
        pool = self._sender.driver
        assert isinstance(pool, PoolSender)
        return pool

    @overload
    def __getitem__(self, which: int | str) -> Endpoint: ...
    @overload
    def __getitem__(self, which: slice) -> list[Endpoint]: ...
    def __getitem__(self, which: int | str | slice) -> Endpoint | list[Endpoint]:
        endpoints = self._list()
        if not isinstance(which, str):
            return endpoints[which]
        for endpoint in endpoints:
            if endpoint.name == which:
                return endpoint
        raise KeyError(f"no endpoint {which!r}{did_you_mean(which, [endpoint.name for endpoint in endpoints])}")

    def __len__(self) -> int:
        return len(self._pool.slots)

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._list())

    def rows(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """The table as text: its head, and a row for each endpoint."""
        return HEAD, [endpoint.cells() for endpoint in self._list()]

    def __repr__(self) -> str:
        head, rows = self.rows()
        widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        head, rows = self.rows()
        top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"

    # --- changing -------------------------------------------------------------------------------------------------

    def add(self, name: str, *, weight: float = 1.0) -> None:
        """One more endpoint: ``host:port`` where the channel was opened with hosts, a URL where it was with URLs.

        Raises:
            ConfigError: it is there already, cannot be one, or its weight is not above 0.
        """
        if not isinstance(name, str):
            raise ConfigError(f"an endpoint is named by text, as 'host:port', not {name!r}")
        pool = self._pool
        with self._sender.entered():
            pool.add(name, weight)
        self._sender.look_after()

    def drain(self, name: str, *, timeout: float = 30.0) -> None:
        """Give an endpoint nothing more. It leaves when what it holds is settled, or after ``timeout`` seconds, and
        what it then still holds is sent elsewhere. Returns at once.

        Raises:
            ConfigError: it is not there.
        """
        pool = self._pool
        with self._sender.entered():
            pool.drain(name, timeout)
        self._sender.look_after()

    def remove(self, name: str) -> None:
        """An endpoint leaves at once; what it holds is sent elsewhere.

        Raises:
            ConfigError: it is not there.
        """
        pool = self._pool
        with self._sender.entered():
            pool.remove(name)
        self._sender.look_after()
