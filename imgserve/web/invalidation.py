"""``POST /invalidate`` and its progress, as clients of the Cloudimage invalidation API expect them."""

from typing import Final

from aiohttp import web

from imgserve.services.invalidation import Invalidations
from imgserve.web import callers, replies, targets

_BODY_MAX_BYTES: Final = 256 * 1024
_EXAMPLE: Final = '{"scope": "all"}'


class InvalidationHandlers:
    """Checks the key, bounds the body, and lets the service do the work. The tenant is the key's; Host is ignored."""

    def __init__(self, *, invalidations: Invalidations, callers: callers.Callers) -> None:
        self._invalidations = invalidations
        self._callers = callers

    async def invalidate(self, request: web.BaseRequest) -> web.StreamResponse:
        """201 once no process of this node serves the old bytes."""
        tenant, key = self._callers.owner(request)
        body = await callers.bounded_body(request, _BODY_MAX_BYTES)
        if body is None:
            return replies.too_large(request, _BODY_MAX_BYTES)
        receipt = await self._invalidations.invalidate(tenant, key, callers.decoded(body, _EXAMPLE))
        return replies.json(receipt, status=201)

    async def progress(self, request: web.BaseRequest) -> web.StreamResponse:
        """What has been done of an invalidation, per target."""
        tenant, _ = self._callers.owner(request)
        uuid = targets.path_of(request).removeprefix("/-/invalidations/")
        return replies.json(await self._invalidations.progress(tenant, uuid))
