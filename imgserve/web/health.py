"""Liveness, readiness and metrics."""

from collections.abc import Callable

from aiohttp import web

from imgserve.web import replies


class HealthHandlers:
    """Answers for the process and for the node."""

    def __init__(self, *, is_ready: Callable[[], bool], metrics: Callable[[], bytes]) -> None:
        self._is_ready = is_ready
        self._metrics = metrics

    async def live(self, _: web.BaseRequest) -> web.StreamResponse:
        """This process answers."""
        return replies.text("live\n")

    async def ready(self, _: web.BaseRequest) -> web.StreamResponse:
        """Whether the node may be sent requests: all parts up, and not draining."""
        if self._is_ready():
            return replies.text("ready\n")
        return replies.text("not ready\n", status=503)

    async def metrics(self, _: web.BaseRequest) -> web.StreamResponse:
        """Prometheus text format, version 0.0.4."""
        return web.Response(
            body=self._metrics(),
            headers={**replies.PLAIN_HEADERS, "Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )
