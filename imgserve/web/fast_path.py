"""The fast path: replays remembered answers before aiohttp has seen the request.

Each connection has a ``FastPath`` in front of aiohttp's own handler. A packet that holds exactly one plain GET or
HEAD whose answer is remembered, fresh and alive is answered by one write; every other byte goes to aiohttp
untouched. It neither parses options nor verifies anything: a handler that has built an answer says, with a
``Replay``, for how long and against which slots the same bytes may be sent to the same request again.

No answer overtakes an earlier one. ``_owed`` counts the requests that aiohttp has and has not answered; the fast path
speaks only while it is 0. It can only be counted while every packet is one whole request, so a packet of any other
shape retires the fast path for its connection, for good.

aiohttp's keep-alive timer does not see what is answered here, so ``server`` sets it out of reach, and each connection
has a watch of its own: for idle clients, heads that never end, and readers that stopped reading.
"""

import asyncio
import logging
import math
import socket
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, cast

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from imgserve.fast.answers import EVERY_ACCEPT, MAX_CLASSES, Answer, Answers
from imgserve.fast.events import EventRing
from imgserve.fast.head import Head, scan

log = logging.getLogger(__name__)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

INNER_KEEPALIVE_S: Final = 1e8
"""For aiohttp's keep-alive, which closes at once when it is 0."""

UNIX_PEER: Final = "unix"
"""The peer of every connection over a unix socket."""

_JOIN_MAX_BYTES: Final = 8_192
"""Up to here one joined buffer costs less than two (measured with uvloop, whose writelines does not copy)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How long a connection may keep us waiting, and which header names the visitor."""

    head_timeout_s: float = 20.0  # for the first request of a connection, and for a head that comes in pieces
    idle_timeout_s: float = 75.0  # between requests
    request_timeout_s: float = 60.0  # on a retired connection, for a request to arrive whole
    stall_timeout_s: float = 60.0  # for a reader that takes nothing of what waits for it
    forwarded_header: bytes = b""  # lower case, reported in events; empty for none

    def __post_init__(self) -> None:
        for name in ("head_timeout_s", "idle_timeout_s", "request_timeout_s", "stall_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a handler knows of its answer, so that the same bytes can be sent again without asking it.

    ``body`` is what a GET gets. ``expires_s`` is a monotonic time: the headers must be true until then.
    ``stamp`` was read before the original was fetched; the slots are words of the map. ``accept_class`` is equal for
    equal treatment of Accept, None where the answer does not vary by it; it must depend on the header alone.
    ``epoch`` is ``FastPaths.epoch`` when the request was begun. ``template`` comes back in each hit event.
    ``headers`` take the place of those in the response, for what only the first answer may say.
    """

    body: bytes = field(repr=False)
    expires_s: float
    stamp: int
    image_slot: int
    tenant_slot: int
    accept_class: Hashable | None
    epoch: int
    template: object
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


REPLAY: Final = web.RequestKey("replay", Replay)
"""Where a handler leaves its Replay in the request; it is remembered once the response has been sent."""


class FastPaths:
    """What the fast paths of one front share, and the protocol factory of its listeners."""

    def __init__(
        self,
        make_handler: Callable[[], asyncio.Protocol],
        answers: Answers,
        events: EventRing,
        settings: Settings,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``make_handler`` is a server that ``server`` below has made."""
        self.answers: Final = answers
        self.events: Final = events
        self.settings: Final = settings
        self.forwarded_header: Final = settings.forwarded_header
        self.monotonic: Final = monotonic
        self.connections: Final[set[FastPath]] = set()
        self.is_draining = False
        self.handed_over = 0  # recognised requests that aiohttp got
        self.retired = 0  # connections that left the fast path for good
        self.timed_out = 0  # connections that the watch has closed
        self.second = 0
        self._make_handler = make_handler
        self._now = now
        self._date = b""
        self._classes: dict[Hashable, int] = {}

    def __call__(self) -> "FastPath":
        """The protocol of a new connection."""
        return FastPath(self, self._make_handler())

    @property
    def epoch(self) -> int:
        """Changes with ``clear``; a handler reads it before it reads the configuration."""
        return self.answers.epoch

    def clear(self) -> None:
        """Forget all answers, those that are being made included: the configuration has changed."""
        self.answers.clear()
        self._classes.clear()

    def close_idle(self) -> int:
        """Stop replaying, close the connections that wait for nothing, and the others when nothing is owed to them.

        How many were closed at once. Retired connections are left to the runner's own ``cleanup``.
        """
        self.is_draining = True
        idle = [connection for connection in self.connections if connection.is_idle]
        for connection in idle:
            connection.close()
        return len(idle)

    def counters(self) -> dict[str, int]:
        """All that was counted since the start."""
        return {
            **self.answers.counters(),
            "handed_over": self.handed_over,
            "retired": self.retired,
            "timed_out": self.timed_out,
            "events_dropped": self.events.dropped,
        }

    def date(self) -> bytes:
        """The value of Date now; sets ``second``."""
        second = int(self._now())
        if second != self.second:
            self.second = second
            self._date = formatdate(second, usegmt=True).encode("ascii")
        return self._date

    def remember(self, request: web.BaseRequest, response: web.StreamResponse, replay: Replay) -> bool:
        """Send these bytes again to the same request. The response must have been prepared.

        False where that can't be: the request is not one that the fast path recognises, the response is not a whole
        200 that leaves the connection open, its length is not the body's, or the memory refuses it.
        """
        head = _seen_by_the_scan(request)
        if head is None or not head.is_replayable:
            return False
        if response.status != HTTPStatus.OK or not response.keep_alive or response.content_length != len(replay.body):
            return False
        accept_class = self._number(replay.accept_class)
        if accept_class is None:
            return False
        before_date, after_date = _head_around_date(response, replay.headers)
        answer = Answer(
            before_date=before_date,
            after_date=after_date,
            body=b"" if request.method == "HEAD" else replay.body,
            status=response.status,
            expires_s=replay.expires_s,
            stamp=replay.stamp,
            image_slot=replay.image_slot,
            tenant_slot=replay.tenant_slot,
            template=replay.template,
        )
        return self.answers.put(head.key, head.accept, accept_class, answer, replay.epoch)

    def _number(self, accept_class: Hashable | None) -> int | None:
        if accept_class is None:
            return EVERY_ACCEPT
        if accept_class not in self._classes and len(self._classes) + 1 >= MAX_CLASSES:
            return None
        return self._classes.setdefault(accept_class, len(self._classes) + 1)


class FastPath(asyncio.Protocol):
    """One connection: the fast path, with aiohttp's handler behind it."""

    __slots__ = (
        "_asked_s",
        "_has_spoken",
        "_inner",
        "_is_paused",
        "_is_retired",
        "_is_working",
        "_open_head",
        "_owed",
        "_peer",
        "_progress_s",
        "_shared",
        "_stalled",
        "_timer",
        "_transport",
    )

    _transport: asyncio.Transport

    def __init__(self, shared: FastPaths, inner: asyncio.Protocol) -> None:
        self._shared = shared
        self._inner = inner
        self._peer = ""
        self._owed = 0
        self._is_working = False  # a handler is at work for this connection
        self._is_paused = False
        self._is_retired = False
        self._has_spoken = False
        self._progress_s = 0.0  # when the connection was made, or last got an answer
        self._asked_s = math.inf  # when the request that a retired connection waits for began
        self._open_head: bytes | None = None  # the end of what came, while the head it retired with is not whole
        self._stalled: tuple[int, float] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give the transport to both: aiohttp switches Nagle off and keep-alive probes on."""
        transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of asyncio's
        self._transport = transport
        self._peer = peer_of(transport)
        self._progress_s = self._shared.monotonic()
        self._shared.connections.add(self)
        self._inner.connection_made(transport)
        self._look_again(self._shared.settings.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, for whatever reason."""
        if self._timer is not None:
            self._timer.cancel()
        self._shared.connections.discard(self)
        self._inner.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """The client sends no more; what that means is aiohttp's to say."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """A slow reader: from here aiohttp answers, which waits before it sends more."""
        self._is_paused = True
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """The reader has caught up."""
        self._is_paused = False
        self._inner.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Answer the packet, or hand it over."""
        shared = self._shared
        if self._is_retired:
            self._note_bytes(data)
            self._inner.data_received(data)
            return
        started_s = shared.monotonic()
        head = scan(data, shared.forwarded_header)
        if head is None:
            self._retire(data)
            self._inner.data_received(data)
            return
        if head.is_replayable and not self._owed and not self._is_paused and not shared.is_draining:
            answer = shared.answers.get(head.key, head.accept, started_s)
            if answer is not None:
                self._replay(head, answer, started_s)
                return
        self._owed += 1
        shared.handed_over += 1
        self._inner.data_received(data)

    def request_begun(self) -> None:
        """A handler has been called."""
        self._is_working = True

    def response_ended(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """The last byte of a response by aiohttp has been written."""
        if self._owed:
            self._owed -= 1
        self._is_working = False
        self._has_spoken = True
        self._progress_s = self._shared.monotonic()
        self._asked_s = math.inf
        replay = request.get(REPLAY)
        if replay is not None:
            self._shared.remember(request, response, replay)
        if not response.keep_alive:
            # It said "Connection: close": nothing may follow (RFC 9112 section 9.6), and aiohttp closes in a moment.
            self._is_retired = True
        elif self._shared.is_draining and self.is_idle:
            self.close()

    @property
    def is_idle(self) -> bool:
        """Nobody waits for an answer here, as far as can be known."""
        return not self._owed and not self._is_retired

    def close(self) -> None:
        """Close once all that was written has left."""
        self._transport.close()

    def _replay(self, head: Head, answer: Answer, started_s: float) -> None:
        shared = self._shared
        date = shared.date()
        body = answer.body
        if len(body) > _JOIN_MAX_BYTES:
            start = b"".join((answer.before_date, date, answer.after_date))
            sent_bytes = len(start) + len(body)
            self._transport.writelines((start, body))
        else:
            start = b"".join((answer.before_date, date, answer.after_date, body))
            sent_bytes = len(start)
            self._transport.write(start)
        self._progress_s = started_s
        self._has_spoken = True
        duration_us = int((shared.monotonic() - started_s) * 1e6)
        shared.events.push(
            shared.second, answer.template, self._peer, head.forwarded, duration_us, answer.status, sent_bytes
        )

    def _retire(self, data: bytes) -> None:
        self._is_retired = True
        self._shared.retired += 1
        # All packets before were whole requests, so a head begins here.
        self._open_head = b""
        self._note_bytes(data)
        if self._open_head is not None:
            self._look_again(self._shared.settings.head_timeout_s)

    def _note_bytes(self, data: bytes) -> None:
        if self._asked_s == math.inf:
            self._asked_s = self._shared.monotonic()
        if self._open_head is not None:
            seen = self._open_head + data
            self._open_head = None if b"\r\n\r\n" in seen or b"\n\n" in seen else seen[-3:]

    def _look_again(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._watch)

    def _watch(self) -> None:
        """Close a connection that has kept us waiting too long, else look again when that may be so."""
        settings = self._shared.settings
        unsent = self._transport.get_write_buffer_size()
        if unsent:
            state = (unsent, self._progress_s)
            if state == self._stalled:
                self._shared.timed_out += 1
                self._transport.abort()
                return
            self._stalled = state
            self._look_again(settings.stall_timeout_s)
            return
        self._stalled = None
        left_s = self._patience_ends_s() - self._shared.monotonic()
        if left_s <= 0:
            self._shared.timed_out += 1
            self.close()
        else:
            self._look_again(min(left_s, settings.idle_timeout_s))

    def _patience_ends_s(self) -> float:
        """While aiohttp works on a request, its handler's own time limits hold."""
        settings = self._shared.settings
        if self._owed or self._is_working:
            return math.inf
        if self._asked_s != math.inf:
            is_whole = self._open_head is None
            return self._asked_s + (settings.request_timeout_s if is_whole else settings.head_timeout_s)
        return self._progress_s + (settings.idle_timeout_s if self._has_spoken else settings.head_timeout_s)


class ResponseEnds(AbstractAccessLogger):
    """Tells a connection's fast path that a response has ended: aiohttp calls its access logger just then.

    The paths on which it does not (the handler was cancelled, or failed after its first byte) end the connection.
    """

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:  # noqa: ARG002  theirs
        """Called by aiohttp after the last byte of a response was written."""
        fast_path = _fast_path_of(request)
        if fast_path is not None:
            fast_path.response_ended(request, response)


def server(
    handler: Handler,
    *,
    access_log_class: type[ResponseEnds] = ResponseEnds,
    head_line_max_bytes: int = 8190,
    server_class: type[web.Server] = web.Server,
) -> web.Server:
    """aiohttp's low-level server that can stand behind FastPaths: it tells them when a request begins and ends."""

    async def tracked(request: web.BaseRequest) -> web.StreamResponse:
        fast_path = _fast_path_of(request)
        if fast_path is not None:
            fast_path.request_begun()
        return await handler(request)

    return server_class(
        tracked,
        access_log=log,
        access_log_class=access_log_class,
        keepalive_timeout=INNER_KEEPALIVE_S,
        auto_decompress=False,
        max_line_size=head_line_max_bytes,
        max_field_size=head_line_max_bytes,
    )


def _fast_path_of(request: web.BaseRequest) -> FastPath | None:
    """The fast path that the request's connection has, if it has one and is not over."""
    transport = request.transport
    protocol = None if transport is None else transport.get_protocol()
    return protocol if isinstance(protocol, FastPath) else None


def peer_of(transport: asyncio.BaseTransport | None) -> str:
    """The address at the connection's other end, ``UNIX_PEER`` for a unix socket, "" where it is not known any more."""
    if transport is None:
        return ""
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        return str(peer[0])
    sock = transport.get_extra_info("socket")
    return UNIX_PEER if sock is not None and sock.family == socket.AF_UNIX else ""


def _seen_by_the_scan(request: web.BaseRequest) -> Head | None:
    """What ``scan`` makes of this request's own bytes, so that there is one definition of a request's key."""
    version = f"HTTP/{request.version.major}.{request.version.minor}"
    first = f"{request.method} {request.raw_path} {version}".encode("utf-8", "surrogateescape")
    return scan(b"\r\n".join((first, *(name + b":" + value for name, value in request.raw_headers), b"", b"")))


def _head_around_date(response: web.StreamResponse, replaced: Mapping[str, str]) -> tuple[bytes, bytes]:
    """The response's head as aiohttp has serialised it, before and after the value of Date."""
    headers = response.headers.copy()
    headers.update(replaced)
    lines = [f"{name}: {value}" for name, value in headers.items()]
    at = next(i for i, line in enumerate(lines) if line.lower().startswith("date:"))
    before = "\r\n".join((f"HTTP/1.1 {response.status} {response.reason}", *lines[:at], "Date: "))
    return before.encode(), "\r\n".join(("", *lines[at + 1 :], "", "")).encode()
