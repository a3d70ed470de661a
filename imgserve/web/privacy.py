"""``POST /-/api/subjects/export`` and ``…/erase``: what the access log has about an address.

The address comes in the body, so that it is in no URL; no answer and no error repeats it.
"""

from contextlib import aclosing
from typing import Final

import orjson
from aiohttp import web

from imgserve.core import subjects
from imgserve.core.errors import BadKey, Misdirected, Overloaded
from imgserve.core.tenants import Scope, Tenant
from imgserve.services.privacy import Subjects, is_complete
from imgserve.web import callers, replies

_BODY_MAX_BYTES: Final = 4_096
_EXAMPLE: Final = '{"address": "…", "from": "2026-11-01", "to": "2026-11-23", "dry_run": true}'


class PrivacyHandlers:
    """Checks the key and its scope, bounds the body, and lets the service do the work."""

    def __init__(self, *, subjects: Subjects, callers: callers.Callers, region: str) -> None:
        self._subjects = subjects
        self._callers = callers
        self._region = region

    async def export(self, request: web.BaseRequest) -> web.StreamResponse:
        """The rows as JSON Lines, or with ``dry_run`` how many each day has.

        409 and those numbers where a day can't be looked through whole: nothing is shown that might pass for
        everything; the period can be asked for without that day.
        """
        tenant, body = await self._asked(request)
        if body is None:
            return replies.too_large(request, _BODY_MAX_BYTES)
        asked = subjects.parse(callers.decoded(body, _EXAMPLE))
        counted = await self._subjects.count(tenant.name, asked)
        if asked.is_dry_run:
            return replies.json(counted)
        if not is_complete(counted):
            return replies.json(counted, status=409)
        return await self._stream(request, tenant, asked)

    async def erase(self, request: web.BaseRequest) -> web.StreamResponse:
        """200 and the receipt once no byte is left, 202 and a receipt that says what is in the way."""
        tenant, body = await self._asked(request)
        if body is None:
            return replies.too_large(request, _BODY_MAX_BYTES)
        asked = subjects.parse(callers.decoded(body, _EXAMPLE))
        if asked.is_dry_run:
            return replies.json(await self._subjects.count(tenant.name, asked))
        receipt = await self._subjects.erase(tenant.name, asked)
        return replies.json(receipt, status=200 if is_complete(receipt) else 202)

    async def _asked(self, request: web.BaseRequest) -> tuple[Tenant, bytes | None]:
        tenant, key = self._callers.owner(request)
        if Scope.SUBJECTS not in key.scopes:
            raise BadKey(
                f"the key {key.name} lacks the scope {Scope.SUBJECTS}",
                public=f"This key lacks the scope '{Scope.SUBJECTS}'.",
            )
        if not tenant.may_be_served_in(self._region):
            raise Misdirected("the tenant's data may not lie in this region")
        return tenant, await callers.bounded_body(request, _BODY_MAX_BYTES)

    async def _stream(self, request: web.BaseRequest, tenant: Tenant, asked: subjects.Request) -> web.StreamResponse:
        """Rows as they come. What ends too early is cut off, so that nobody takes it for the whole."""
        headers = {**replies.PLAIN_HEADERS, "Content-Type": "application/jsonl", "Server": "imgserve"}
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            async with aclosing(self._subjects.rows(tenant.name, asked)) as portions:
                async for rows in portions:
                    await response.write(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        except Overloaded:
            if request.transport is not None:
                request.transport.abort()
            return response
        await response.write_eof()
        return response
