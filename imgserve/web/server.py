"""The two HTTP servers of a front: delivery, behind the fast path, and admin."""

import asyncio
import logging
from typing import Any, Final

from aiohttp import web

from imgserve.core.errors import ImgserveError
from imgserve.fast.answers import Answers
from imgserve.fast.events import EventRing
from imgserve.web import fast_path, recording, replies
from imgserve.web.routes import Handler, Routes

log = logging.getLogger(__name__)


class Delivery:
    """The delivery listener's protocol factory: fast paths in front of aiohttp."""

    def __init__(
        self,
        routes: Routes,
        requests: recording.RequestLog,
        answers: Answers,
        *,
        forwarded_header: str,
        ring_max: int,
    ) -> None:
        server = fast_path.server(
            _guarded(routes),
            access_log_class=recording.access_log_class(requests.answered),
            server_class=_Server,
        )
        name = b"" if forwarded_header == "none" else forwarded_header.encode("ascii")
        self._server = server
        self._requests = requests
        self.paths: Final = fast_path.FastPaths(
            server, answers, EventRing(ring_max), fast_path.Settings(forwarded_header=name)
        )

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return self.paths()

    def record_replays(self, limit: int) -> int:
        """Record up to ``limit`` answers of the fast path; how many there were."""
        events = self.paths.events.drain(limit)
        self._requests.replayed(events)
        return len(events)

    def close_idle(self) -> int:
        """Close connections that wait for nothing, the others once they are answered."""
        return self.paths.close_idle()

    async def shutdown(self, timeout_s: float) -> None:
        """Wait for running handlers, then cut what is left."""
        await self._server.shutdown(timeout_s)


class Admin:
    """The admin listener's protocol factory."""

    def __init__(self, routes: Routes) -> None:
        self._server = _Server(_guarded(routes), access_log=None, auto_decompress=False)

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return self._server()

    def close_idle(self) -> int:
        """Close connections that wait for nothing."""
        connections = len(self._server.connections)
        self._server.pre_shutdown()
        return connections

    async def shutdown(self, timeout_s: float) -> None:
        """Wait for running handlers, then cut what is left."""
        await self._server.shutdown(timeout_s)


class _Connection(web.RequestHandler):
    """aiohttp's handler of a connection, with the server's own words for what its parser refuses."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  it repeats what was sent
    ) -> web.StreamResponse:
        """Answer a request that could not be parsed; the connection ends: nobody knows where the next begins."""
        if status < 500:
            response = replies.malformed(request)
        else:
            response = replies.internal(request)
            extra = {"request_id": response.headers["Request-Id"]}
            log.error("request_failed", exc_info=exc, extra=extra)
        response.headers["Server"] = "imgserve"
        response.force_close()
        return response


class _Server(web.Server):
    """Makes our kind of connection handlers."""

    def __init__(self, handler: Handler, **options: Any) -> None:
        super().__init__(handler, **options)
        self._options = options

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=asyncio.get_running_loop(), **self._options)


def _guarded(handler: Handler) -> Handler:
    """Every failure becomes a reply; only a fault of the program is a 500, and is logged."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        recording.facts_of(request)  # now, while the connection is known to be open: its other end is noted
        try:
            response = await handler(request)
        except ImgserveError as error:
            response = replies.failure(error, request)
        except ConnectionError:
            raise  # the client has left, or part of the answer has: aiohttp ends the connection
        except Exception:
            response = replies.internal(request)
            log.exception("request_failed", extra={"request_id": response.headers["Request-Id"]})
        response.headers.setdefault("Server", "imgserve")
        return response

    return answer
