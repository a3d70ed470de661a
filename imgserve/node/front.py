"""A front: answers HTTP on its sockets, and hands events and notices to the keeper.

Stopping keeps every promise in turn: listening ends, what is under way is answered, then the log is handed over whole.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import uvloop

from imgserve.core.tenants import Tenants
from imgserve.node.boot import FrontBoot
from imgserve.node.control import Control, Drain, Reload

log = logging.getLogger(__name__)

_BACKLOG: Final = 4096  # as the supervisor has set it: listening again would lower it
_TICK_S: Final = 0.2
_UNREAD_S: Final = 0.2  # a connection that was just accepted is not idle: its request is on the way
_LOG_SHARE_S: Final = 2.0  # kept of the time to stop in, to hand the log over


class Service(Protocol):
    """A listener's protocol factory that can be drained."""

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a new connection."""

    def close_idle(self) -> int:
        """Close connections that wait for nothing, the others once they are answered; how many were closed."""

    async def shutdown(self, timeout_s: float) -> None:
        """Wait for running handlers, then cut what is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontParts:
    """What a front is made of.

    ``tick`` is called several times a second: it moves events on and publishes counts. ``drain`` hands over all
    that waits for the keeper, within its seconds. ``reload`` swaps the tenants."""

    delivery: Service
    admin: Service
    reload: Callable[[Tenants], None]
    tick: Callable[[], Awaitable[None]]
    drain: Callable[[float], Awaitable[None]]


Build = Callable[[FrontBoot], contextlib.AbstractAsyncContextManager[FrontParts]]


def main(boot: FrontBoot, build: Build) -> None:
    """Be a front until the supervisor says stop."""
    uvloop.run(_serve(boot, build))


async def _serve(boot: FrontBoot, build: Build) -> None:
    control = Control(boot)
    async with build(boot) as parts:
        loop = asyncio.get_running_loop()
        servers = [await _listen(loop, parts.admin, boot.admin)]
        servers += [await _listen(loop, parts.delivery, sock) for sock in boot.delivery]
        control.ready()
        messages = control.messages()
        async with asyncio.TaskGroup() as group:
            ticking = group.create_task(_tick(parts.tick))
            deadline_s = await _obey(control, messages, parts.reload)
            stopping = group.create_task(_stop(parts, servers, deadline_s))
            hastening = group.create_task(_hasten(messages, stopping))
            await asyncio.wait([stopping])
            hastening.cancel()
            ticking.cancel()
        await parts.drain(_LOG_SHARE_S)


async def _listen(loop: asyncio.AbstractEventLoop, service: Service, sock: socket.socket) -> asyncio.Server:
    if sock.family == socket.AF_UNIX:
        return await loop.create_unix_server(service, sock=sock, backlog=_BACKLOG)
    return await loop.create_server(service, sock=sock, backlog=_BACKLOG)


async def _tick(tick: Callable[[], Awaitable[None]]) -> None:
    """Move things on for ever; a failure is logged and ends nothing."""
    while True:
        await asyncio.sleep(_TICK_S)
        try:
            await tick()
        except Exception:
            log.exception("tick_failed")


async def _obey(control: Control, messages: AsyncIterator[Reload | Drain], reload: Callable[[Tenants], None]) -> float:
    """Take new tenants as they come; the deadline once the node stops."""
    async for message in messages:
        match message:
            case Reload(generation=generation, tenants=tenants):
                reload(tenants)
                control.acknowledge(generation)
            case Drain(deadline_s=deadline_s):
                return deadline_s
    raise AssertionError("messages end with a Drain")


async def _hasten(messages: AsyncIterator[Reload | Drain], stopping: asyncio.Task[None]) -> None:
    """A second Drain means now: what is still under way is cut."""
    async for message in messages:
        if isinstance(message, Drain):
            stopping.cancel()
            return


async def _stop(parts: FrontParts, servers: list[asyncio.Server], deadline_s: float) -> None:
    """Answer what is under way; cut what is left when the time is over."""
    for server in servers:
        server.close()
    await asyncio.sleep(_UNREAD_S)
    parts.delivery.close_idle()
    parts.admin.close_idle()
    left_s = max(0.1, deadline_s - time.monotonic() - _LOG_SHARE_S)
    await parts.delivery.shutdown(left_s)
    await parts.admin.shutdown(0.1)
