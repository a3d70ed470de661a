"""The line between the supervisor and each child: a SOCK_SEQPACKET pair.

Child to supervisor: ``Ready``, ``Acknowledged``. Supervisor to child: ``NewTenants`` with a descriptor of the
snapshot, ``Stop``. End of file on the child's end means that the supervisor was killed.
"""

import array
import asyncio
import fcntl
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from imgserve.core.tenants import Tenants
from imgserve.node.board import State
from imgserve.node.boot import Boot
from imgserve.settings.snapshot import decode_tenants, encode_tenants

ORPHAN_DRAIN_S: Final = 10.0
"""How long children may still work after their supervisor was killed."""

_MESSAGE_BYTES_MAX: Final = 256
_F_ADD_SEALS: Final = 1033  # fcntl(2); F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
_ALL_SEALS: Final = 0b1111


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The child serves."""


class Acknowledged(msgspec.Struct, frozen=True, tag="acknowledged"):
    """The child serves by this snapshot and by no older one."""

    generation: int


class NewTenants(msgspec.Struct, frozen=True, tag="tenants"):
    """A new snapshot; comes with one descriptor, from which it is read at offset 0."""

    generation: int


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Finish what is under way and end before the deadline on CLOCK_MONOTONIC. May come again, with less time."""

    deadline_s: float


_ENCODER: Final = msgspec.msgpack.Encoder()
_FROM_CHILD: Final = msgspec.msgpack.Decoder(Ready | Acknowledged)
_FROM_SUPERVISOR: Final = msgspec.msgpack.Decoder(NewTenants | Stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """Serve by these tenants from now on, then ``Control.acknowledge`` the generation."""

    generation: int
    tenants: Tenants = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Finish what is under way, flush, and return from main before ``deadline_s`` (CLOCK_MONOTONIC).

    A second one means: sooner. ``is_orphan``: the supervisor is gone."""

    deadline_s: float
    is_orphan: bool = False


# ---- the supervisor's side -----------------------------------------------------------------------


def received(sock: socket.socket) -> Ready | Acknowledged | None:
    """The next message of a child; None when it has closed its end. Raises BlockingIOError when there is none."""
    try:
        packet = sock.recv(_MESSAGE_BYTES_MAX)
    except ConnectionError:
        return None
    return _FROM_CHILD.decode(packet) if packet else None


def stop(sock: socket.socket, deadline_s: float) -> bool:
    """Ask a child to end; False when it does not read its messages."""
    return _send(sock, Stop(deadline_s))


class Snapshot:
    """A snapshot of the tenants in a sealed memory file, so that its size is not bound to a socket's buffer."""

    def __init__(self, generation: int, tenants: Tenants) -> None:
        self.generation: Final = generation
        self._fd = os.memfd_create("tenants", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(self._fd, "wb", closefd=False) as file:
            file.write(encode_tenants(tenants))
        fcntl.fcntl(self._fd, _F_ADD_SEALS, _ALL_SEALS)

    def send(self, sock: socket.socket) -> bool:
        """Hand it to a child; False when it does not read its messages."""
        return _send(sock, NewTenants(self.generation), self._fd)

    def close(self) -> None:
        """Give up this process's descriptor; may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


# ---- the child's side ----------------------------------------------------------------------------


def say_ready(boot: Boot) -> None:
    """Tell the supervisor and the board that this child serves. Two system calls at most, open to a sandbox."""
    boot.slot.state = State.READY
    _send(boot.control, Ready())


class Control:
    """The child's end for an event loop."""

    def __init__(self, boot: Boot) -> None:
        self._boot = boot
        self._sock = boot.control

    def ready(self) -> None:
        """This child serves."""
        say_ready(self._boot)

    def acknowledge(self, generation: int) -> None:
        """No request is served by an older snapshot any more."""
        _send(self._sock, Acknowledged(generation))

    async def messages(self) -> AsyncIterator[Reload | Drain]:
        """What the supervisor asks for. Ends after the ``Drain`` of an orphan."""
        while True:
            await _readable(self._sock)
            try:
                packet, fds, _, _ = socket.recv_fds(self._sock, _MESSAGE_BYTES_MAX, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                continue
            except ConnectionError:
                packet, fds = b"", []
            if not packet:
                yield self._orphaned()
                return
            match _FROM_SUPERVISOR.decode(packet):
                case NewTenants(generation):
                    yield Reload(generation=generation, tenants=_read_snapshot(fds[0]))
                case Stop(deadline_s):
                    self._boot.slot.state = State.DRAINING
                    yield Drain(deadline_s=deadline_s)

    def _orphaned(self) -> Drain:
        """Nobody is left to kill a child that does not end: a timer of the kernel does."""
        self._boot.slot.state = State.DRAINING
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, ORPHAN_DRAIN_S * 1.5)
        return Drain(deadline_s=time.monotonic() + ORPHAN_DRAIN_S, is_orphan=True)


def _read_snapshot(fd: int) -> Tenants:
    """Decode a snapshot and close its descriptor. The file offset is shared with other children, so it is not used."""
    try:
        return decode_tenants(os.pread(fd, os.fstat(fd).st_size, 0))
    finally:
        os.close(fd)


async def _readable(sock: socket.socket) -> None:
    """Wait until there is a message or the other end is closed."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, lambda: None if waiting.done() else waiting.set_result(None))
    try:
        await waiting
    finally:
        loop.remove_reader(sock)


def _send(sock: socket.socket, message: msgspec.Struct, fd: int | None = None) -> bool:
    """Send one message, whole or not at all."""
    rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    try:
        sock.sendmsg((_ENCODER.encode(message),), rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except (BlockingIOError, ConnectionError):
        return False
    return True
