"""The URL table: every path of the server's own, one line each; all else is an image."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from aiohttp import web

from imgserve.core import grammar
from imgserve.web import replies, targets
from imgserve.web.health import HealthHandlers
from imgserve.web.images import ImageHandlers
from imgserve.web.invalidation import InvalidationHandlers
from imgserve.web.pages.documents import DocumentHandlers
from imgserve.web.privacy import PrivacyHandlers

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_READ: Final = ("GET", "HEAD")


class Routes:
    """Finds the handler of a request by method and raw path."""

    def __init__(
        self,
        exact: Mapping[str, tuple[tuple[str, ...], Handler]],
        prefixes: Mapping[str, tuple[tuple[str, ...], Handler]],
        image: Handler | None,
    ) -> None:
        self._exact = MappingProxyType(dict(exact))
        self._prefixes = MappingProxyType(dict(prefixes))
        self._image = image

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer the request with the handler of its path."""
        path = targets.path_of(request)
        methods, handler = self._find(path)
        if handler is None:
            return replies.not_served(request)
        if request.method not in methods:
            return replies.method_refused(request, ", ".join(methods))
        return await handler(request)

    def _find(self, path: str) -> tuple[tuple[str, ...], Handler | None]:
        found = self._exact.get(path)
        if found is not None:
            return found
        for prefix, row in self._prefixes.items():
            if path.startswith(prefix):
                return row
        if self._image is None or grammar.is_reserved(path):
            return _READ, None
        return _READ, self._image


def delivery(
    *,
    images: ImageHandlers,
    invalidation: InvalidationHandlers,
    privacy: PrivacyHandlers,
    health: HealthHandlers,
    documents: DocumentHandlers,
) -> Routes:
    """The table of the delivery listener."""
    return Routes(
        exact={
            "/invalidate": (("POST",), invalidation.invalidate),
            "/-/api/subjects/export": (("POST",), privacy.export),
            "/-/api/subjects/erase": (("POST",), privacy.erase),
            "/-/live": (_READ, health.live),
            "/-/ready": (_READ, health.ready),
            "/-/options.json": (_READ, documents.options),
            "/robots.txt": (_READ, documents.robots),
        },
        prefixes={"/-/invalidations/": (_READ, invalidation.progress)},
        image=images.get,
    )


def admin(*, health: HealthHandlers) -> Routes:
    """The table of the admin listener: never an image, never a tenant."""
    return Routes(
        exact={
            "/-/live": (_READ, health.live),
            "/-/ready": (_READ, health.ready),
            "/-/metrics": (_READ, health.metrics),
        },
        prefixes={},
        image=None,
    )
