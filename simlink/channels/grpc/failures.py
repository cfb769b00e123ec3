"""What gRPC says went wrong, as one error of ours. The one place where statuses are read."""

from __future__ import annotations

import re
from typing import Any

import grpc

from simlink.channels import tls
from simlink.channels.wire.frames import Code
from simlink.errors import ConnectError

__all__ = ["STATUS_OF", "connect_error", "status_name"]

STATUS_OF = {
    Code.VERSION: grpc.StatusCode.FAILED_PRECONDITION,
    Code.PROTOCOL: grpc.StatusCode.INVALID_ARGUMENT,
    Code.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Code.NO_RECEIVER: grpc.StatusCode.NOT_FOUND,
    Code.MODE: grpc.StatusCode.FAILED_PRECONDITION,
    Code.CLOSING: grpc.StatusCode.UNAVAILABLE,
    Code.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.REPLACED: grpc.StatusCode.ABORTED,
    Code.SECRET: grpc.StatusCode.UNAUTHENTICATED,
}
"""The status that ends a call whose last frame was an Error."""

_FOR_GOOD = {
    grpc.StatusCode.UNIMPLEMENTED: "is a gRPC server, but no receiver of simlink",
    grpc.StatusCode.UNAUTHENTICATED: "refuses",
    grpc.StatusCode.PERMISSION_DENIED: "refuses",
    grpc.StatusCode.INVALID_ARGUMENT: "refuses what it was sent",
    grpc.StatusCode.FAILED_PRECONDITION: "refuses",
}
_REFUSED = re.compile(r"connection refused", re.IGNORECASE)
_CUT = re.compile(r"socket closed|connection reset|broken pipe", re.IGNORECASE)
_NAME = re.compile(r"(?:dns|address|domain|name).*(?:resol|look ?up|not found)", re.IGNORECASE)
_REASON = re.compile(r"(?:last error: |errors: \[?)(.*)", re.DOTALL)


def status_name(error: Any) -> str:
    """The status of a call's error, in words."""
    code = error.code()
    return "no status" if code is None else str(code.name)


def connect_error(
    error: grpc.RpcError, endpoint: str, url: str, *, secure: bool = False, shown: bool = False
) -> ConnectError:
    """A failed call as a ConnectError, which says whether calling again may help. It becomes the cause. ``secure`` is
    whether it was over TLS, ``shown`` whether we had a certificate to show there."""
    # Nothing here is of a promise to last: codes decide, and texts only choose between two sentences.
    call: Any = error
    code = call.code()
    details = _one_line(call.details() or "")
    if secure and code is grpc.StatusCode.UNAVAILABLE:
        # Its text need not say that it is about TLS, but here it can be.
        refused = tls.refusal(f"TLS: {details}", endpoint=endpoint, url=url)
        if refused is not None:
            refused.__cause__ = error
            return refused
    retryable = code not in _FOR_GOOD
    if code in _FOR_GOOD:
        what = _FOR_GOOD[code] + (f": {details}" if details else "")
    elif code is grpc.StatusCode.UNAVAILABLE and _REFUSED.search(details):
        what = "cannot be reached: nobody listens there"
    elif code is grpc.StatusCode.UNAVAILABLE and _NAME.search(details):
        what = f"cannot be reached: its name cannot be resolved: {details}"
    elif code is grpc.StatusCode.UNAVAILABLE:
        found = _REASON.search(details)
        what = f"cannot be reached, or not any more: {found.group(1) if found else details or 'no reason given'}"
        if secure and _CUT.search(details):
            # A server that asks for certificates (TLS 1.3) judges ours after the handshake, and only hangs up.
            what += "; it may not trust our certificate" if shown else "; it may want a client certificate"
    else:
        what = f"ended the stream: {status_name(error)}: {details}"
    found_error = ConnectError(f"{endpoint} {what}", url=url, endpoint=endpoint, retryable=retryable)
    found_error.__cause__ = error
    return found_error


def _one_line(text: str) -> str:
    # Whatever a peer sends as its details.
    return " ".join(text.split())[:500]
