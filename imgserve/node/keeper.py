"""The keeper: writes the access log and the cache's index, and looks after what is old.

Packets are handled one at a time: the next is looked at when the last is durable. A handler may well block the loop,
as the insert of a batch of rows into SQLite does. The keeper answers nobody, so nobody waits: meanwhile packets
queue in the mailbox, which is bounded and counted, and a change of thread for each batch would buy nothing. What takes
longer, like a sweep, runs in a thread or gives way between its steps.
"""

import asyncio
import errno
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import IntEnum
from typing import Final, Protocol

import uvloop

from imgserve.aio.mailbox import Receiver
from imgserve.core.errors import NoSpace, Overloaded
from imgserve.core.tenants import Tenants
from imgserve.disk import descriptors, files
from imgserve.node.boot import KeeperBoot
from imgserve.node.control import Control, Drain, Reload

log = logging.getLogger(__name__)

_TRIES_MAX: Final = 5
_PAUSES_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
_DRAIN_MARGIN_S: Final = 0.5  # kept of the time to stop in, to close the files

_PASSING_ERRORS: Final = files.FULL | descriptors.EXHAUSTED | {errno.EIO}
_PASSING_CODES: Final = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
)


class Count(IntEnum):
    """The keeper's counters on its slot of the board: what became of packets."""

    HANDLED = 0
    REFUSED = 1  # thrown away because they could not be handled
    RETRIED = 2  # after a full disk, or a database that somebody held


Handler = Callable[[bytes], Awaitable[None]]
"""Takes the payload of a packet, and returns when it is durable."""


class Job(Protocol):
    """What goes on beside the packets, until the keeper stops."""

    async def run(self) -> None:
        """Work until cancelled; never raises."""


class KeeperParts(Protocol):
    """What the keeper is made of."""

    @property
    def handlers(self) -> Mapping[bytes, Handler]:
        """Per tag of a packet, what takes its payload: returns when that is durable.

        An error that may pass (NoSpace, a full disk, a busy database) means *later*: the packet stays first in
        the queue; any other throws it away. A packet may come twice: when the keeper was killed right after."""

    @property
    def jobs(self) -> Sequence[Job]:
        """What is done again and again, or served; the keeper runs and stops them."""

    def reload(self, tenants: Tenants) -> None:
        """Know these tenants from now on."""

    async def close(self) -> None:
        """Close all files; called once, at the end."""


Build = Callable[[KeeperBoot], Awaitable[KeeperParts]]


def main(boot: KeeperBoot, build: Build) -> None:
    """Be the keeper until the supervisor says that no packet will come any more."""
    uvloop.run(_keep(boot, build))


async def _keep(boot: KeeperBoot, build: Build) -> None:
    parts = await build(boot)
    try:
        control = Control(boot)
        control.ready()
        keeper = _Keeper(boot, parts)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(keeper.obey(control))]
            tasks += [group.create_task(job.run()) for job in parts.jobs]
            await keeper.consume()
            for task in tasks:
                task.cancel()
    finally:
        await parts.close()


class _Keeper:
    """Handles packets, and obeys."""

    def __init__(self, boot: KeeperBoot, parts: KeeperParts) -> None:
        self._slot = boot.slot
        self._parts = parts
        self._receiver = Receiver(boot.mailbox)
        self._deadline_s = float("inf")

    async def consume(self) -> None:
        """Handle packets until the mailbox has ended."""
        async for tag, payload in self._receiver.packets():
            if not await self._handle(tag, payload):
                log.error("packets_lost", extra={"reason": "not handled in the time there was to stop"})
                return
            self._slot.tries = 0
            self._slot.count(Count.HANDLED)

    async def obey(self, control: Control) -> None:
        """Do what the supervisor says. When it was killed, the end of all fronts ends the mailbox."""
        async for message in control.messages():
            match message:
                case Reload(generation=generation, tenants=tenants):
                    self._parts.reload(tenants)
                    control.acknowledge(generation)
                case Drain(deadline_s=deadline_s, is_orphan=is_orphan):
                    self._deadline_s = deadline_s - _DRAIN_MARGIN_S
                    if not is_orphan:
                        self._receiver.finish()

    async def _handle(self, tag: bytes, payload: bytes) -> bool:
        """Handle or refuse one packet; False when time is up."""
        # A packet that kills the keeper would be looked at first by each replacement too, and hold up all others.
        if self._slot.tries >= _TRIES_MAX:
            self._refuse(tag, payload, "keepers died of it")
            return True
        handler = self._parts.handlers.get(tag)
        if handler is None:
            self._refuse(tag, payload, "no handler")
            return True
        retries = 0
        while True:
            self._slot.tries += 1
            try:
                await handler(payload)
                return True
            except Exception as error:
                if not _may_pass(error):
                    log.exception("packet_failed")
                    self._refuse(tag, payload, "handler failed")
                    return True
                if retries == 0:
                    log.exception("packet_waits")
            self._slot.tries = 0  # waiting is not dying
            pause_s = _PAUSES_S[min(retries, len(_PAUSES_S) - 1)]
            if time.monotonic() + pause_s > self._deadline_s:
                return False
            retries += 1
            self._slot.count(Count.RETRIED)
            await asyncio.sleep(pause_s)

    def _refuse(self, tag: bytes, payload: bytes, reason: str) -> None:
        self._slot.count(Count.REFUSED)
        fields = {"tag": tag.decode("ascii", "replace"), "size_bytes": len(payload), "reason": reason}
        log.error("packet_refused", extra=fields)


def _may_pass(error: Exception) -> bool:
    """Whether the same packet may be handled later: a full disk, a database held by a command of the operator."""
    match error:
        case NoSpace() | Overloaded():
            return True
        case sqlite3.OperationalError():
            code: int = getattr(error, "sqlite_errorcode", 0)  # missing when the module itself complains
            return code & 0xFF in _PASSING_CODES
        case OSError():
            return error.errno in _PASSING_ERRORS
    return False
