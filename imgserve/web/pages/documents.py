"""Small documents of the server's own."""

from aiohttp import web

from imgserve.core import options
from imgserve.web import replies


class DocumentHandlers:
    """Documents that are the same for every tenant."""

    async def options(self, _: web.BaseRequest) -> web.StreamResponse:
        """Every URL parameter that this version knows, from the one table."""
        return replies.json({"options": options.as_records()})

    async def robots(self, _: web.BaseRequest) -> web.StreamResponse:
        """Images may be indexed; the server's own paths have nothing to find (RFC 9309)."""
        return replies.text("User-agent: *\nDisallow: /-/\n")
