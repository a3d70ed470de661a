"""Replies: failures become statuses here, in one table, and every reply gets its fixed headers."""

import re
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

import orjson
from aiohttp import web

from imgserve.core import errors

STATUS: Final[Mapping[type[errors.ImgserveError], tuple[int, str]]] = MappingProxyType(
    {
        errors.BadRequest: (400, "Bad request"),
        errors.BadKey: (401, "Key refused"),
        errors.Denied: (403, "Refused"),
        errors.NotFound: (404, "Not found"),
        errors.Gone: (410, "Removed"),
        errors.Misdirected: (421, "Misdirected request"),
        errors.Undecodable: (422, "Cannot be decoded"),
        errors.OverLimit: (422, "Over a limit"),
        errors.OriginFailed: (502, "Origin failed"),
        errors.Overloaded: (503, "Busy"),
        errors.Superseded: (503, "Busy"),
        errors.RenderFailed: (503, "Rendering failed"),
        errors.NoSpace: (503, "No room"),
        errors.TimedOut: (504, "Timed out"),
    }
)
"""Failure to status and title. A failure that is missing here is a fault of the program: 500."""

IMAGE_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
)
"""On every image: it may be shown anywhere, and run nothing."""

PLAIN_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
)
"""On everything that is not an image: errors, receipts, health. Never cached, not for other sites."""


def status_of(error: errors.ImgserveError) -> tuple[int, str]:
    """Status and title of a failure; subclasses count as their nearest listed ancestor."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 500, "Internal error"


def attachment(location: str, content_type: str) -> str:
    """A Content-Disposition that has browsers save the image (RFC 6266), under the original's name as far as that is
    made of plain letters, with the ending of what is sent."""
    stem = location.partition("?")[0].rpartition("/")[2].rpartition(".")[0]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", unquote(stem)).strip("-")[:80] or "image"
    ending = content_type.partition("/")[2].partition("+")[0]
    return f'attachment; filename="{name}.{"jpg" if ending == "jpeg" else ending}"'


def failure(error: errors.ImgserveError, request: web.BaseRequest) -> web.Response:
    """The reply to a failed request: one sentence, or problem details (RFC 9457) for who asks for JSON."""
    status, title = status_of(error)
    reply = _problem(status, title, error.public, request)
    if isinstance(error, errors.Overloaded):
        reply.headers["Retry-After"] = str(error.retry_after_s)
    elif status == 503:
        reply.headers["Retry-After"] = "1"
    return reply


def not_served(request: web.BaseRequest) -> web.Response:
    """The reply for a path of the server's own that has nothing to show."""
    return _problem(404, "Not found", "There is nothing at this path.", request)


def method_refused(request: web.BaseRequest, allowed: str) -> web.Response:
    """The reply for a method that the path does not know (RFC 9110 section 15.5.6)."""
    reply = _problem(405, "Method not allowed", f"Use {allowed} here.", request)
    reply.headers["Allow"] = allowed
    return reply


def too_large(request: web.BaseRequest, limit_bytes: int) -> web.Response:
    """The reply for a request body over its bound."""
    return _problem(413, "Body too large", f"Send at most {limit_bytes} bytes.", request)


def malformed(request: web.BaseRequest) -> web.Response:
    """The reply for bytes that are no request (RFC 9112), without repeating any of them."""
    return _problem(400, "Bad request", "The request is malformed.", request)


def internal(request: web.BaseRequest) -> web.Response:
    """The reply for a fault of the program, which has been logged under its Request-Id by the caller."""
    return _problem(500, "Internal error", "The server failed; the operator has been told.", request)


def json(value: object, status: int = 200) -> web.Response:
    """A JSON document of the server's own."""
    return web.Response(
        status=status, body=orjson.dumps(value), content_type="application/json", headers=dict(PLAIN_HEADERS)
    )


def text(content: str, status: int = 200) -> web.Response:
    """A line of plain text."""
    return web.Response(status=status, text=content, headers=dict(PLAIN_HEADERS))


def _problem(status: int, title: str, detail: str, request: web.BaseRequest) -> web.Response:
    headers = {**PLAIN_HEADERS, "Request-Id": secrets.token_hex(8)}
    if "json" in request.headers.get("Accept", "")[:1000]:
        body = orjson.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail})
        return web.Response(status=status, body=body, content_type="application/problem+json", headers=headers)
    return web.Response(status=status, text=detail + "\n", headers=headers)
