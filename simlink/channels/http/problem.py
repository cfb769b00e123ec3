"""What was not accepted, as application/problem+json (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

__all__ = ["Problem", "read_problem"]

CONTENT_TYPE = "application/problem+json"
_TYPES = "urn:simlink:problem:"


class Problem(Exception):
    """A refused request; raised on the way, and told to the client as it is.

    Args:
        status: the HTTP status.
        kind: what went wrong, in one word that programs can compare; the last part of ``type``.
        detail: what went wrong this time, in a sentence.
        headers: more headers of the reply, such as Retry-After.
        more: more members of the JSON object.
    """

    def __init__(
        self, status: int, kind: str, detail: str, *, headers: tuple[tuple[str, str], ...] = (), **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = headers
        self.more = more

    def body(self) -> bytes:
        """The JSON object."""
        return msgspec.json.encode(
            {
                "type": _TYPES + self.kind,
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": self.detail,
                **self.more,
            }
        )


def read_problem(content_type: str, body: bytes) -> str:
    """One line of what a server says of a request that it refused, whoever the server is; empty if it says nothing."""
    text = ""
    if "json" in content_type:
        try:
            found = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            found = None
        if isinstance(found, dict):
            said = (str(found.get(name) or "").strip() for name in ("detail", "title", "message", "error"))
            text = next(filter(None, said), "")
    elif content_type.startswith("text/plain"):
        text = body.decode("utf-8", "replace")
    return " ".join(text.split())[:300]
