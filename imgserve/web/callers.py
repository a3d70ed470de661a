"""Callers that show a key: whose they are, and what they send."""

import asyncio
from typing import Final

import orjson
from aiohttp import web

from imgserve.core.errors import BadKey, BadRequest, TimedOut
from imgserve.core.tenants import Key, Tenant
from imgserve.web import recording
from imgserve.web.images import TenantsView

_KEY_MAX_CHARS: Final = 512
_BODY_TIMEOUT_S: Final = 15.0


class Callers:
    """Finds the tenant by the key in ``X-Client-Key``; Host is ignored."""

    def __init__(self, tenants: TenantsView, region: str) -> None:
        self._tenants = tenants
        self._region = region

    def owner(self, request: web.BaseRequest) -> tuple[Tenant, Key]:
        """The key and its tenant, whose access log then has a row of the request. Raises BadKey."""
        text = request.headers.get("X-Client-Key", "")
        found = self._tenants.current().for_key(text) if 0 < len(text) <= _KEY_MAX_CHARS else None
        if found is None:
            raise BadKey("no tenant has this key")
        tenant, key = found
        if tenant.may_be_served_in(self._region):
            recording.facts_of(request).tenant = tenant.name
        return tenant, key


async def bounded_body(request: web.BaseRequest, limit_bytes: int) -> bytes | None:
    """The body, or None when it is longer than allowed. Raises TimedOut for one that comes too slowly."""
    if (request.content_length or 0) > limit_bytes:
        return None
    pieces = bytearray()
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            async for piece in request.content.iter_any():
                pieces += piece
                if len(pieces) > limit_bytes:
                    return None
    except TimeoutError as error:
        raise TimedOut("a body came too slowly", public="Send the body within 15 seconds.") from error
    return bytes(pieces)


def decoded(body: bytes, example: str) -> object:
    """The body's JSON value. Raises BadRequest with the example, and nothing of what was sent."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest(f"Send a JSON object, for example {example}.") from None
