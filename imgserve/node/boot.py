"""What a child process gets at birth: all it shares with others, as inherited objects.

The sockets are the child's own copies; whatever is not named here was closed before the child's main began.
File status flags are shared with all holders of a socket: nobody may change whether it blocks.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from imgserve.node.board import Board, Role, Slot
from imgserve.settings import Configuration, Loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What every child gets.

    ``configuration`` holds the newest tenants, those of ``generation``; its other keys are those of the
    node's start. ``control`` is the child's end of its line to the supervisor (see ``node.control``)."""

    role: Role
    number: int
    configuration: Configuration = field(repr=False)
    generation: int
    board: Board = field(repr=False)
    control: socket.socket
    slot_map: Path

    @property
    def name(self) -> str:
        """``front0``, ``worker3``, ``keeper0``: the same for all who follow in this slot."""
        return f"{self.role}{self.number}"

    @property
    def slot(self) -> Slot:
        """This child's cells of the board."""
        return self.board.slot(self.role, self.number)

    def sockets(self) -> tuple[socket.socket, ...]:
        """All sockets of the child; everything else is closed at birth."""
        return (self.control,)


class BootFields(TypedDict):
    """The fields of a Boot, by name."""

    role: Role
    number: int
    configuration: Configuration
    generation: int
    board: Board
    control: socket.socket
    slot_map: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontBoot(Boot):
    """``delivery`` are listening sockets in the order of ``server.listen``: a TCP socket is this slot's own,
    a unix socket is shared. ``admin`` is shared by all fronts. ``jobs`` is the sending end of the workers'
    queue, ``mailbox`` that of the keeper's."""

    delivery: tuple[socket.socket, ...]
    admin: socket.socket
    jobs: socket.socket
    mailbox: socket.socket

    def sockets(self) -> tuple[socket.socket, ...]:
        """See Boot."""
        return (self.control, *self.delivery, self.admin, self.jobs, self.mailbox)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperBoot(Boot):
    """``mailbox`` is the receiving end."""

    mailbox: socket.socket

    def sockets(self) -> tuple[socket.socket, ...]:
        """See Boot."""
        return (self.control, self.mailbox)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerBoot(Boot):
    """``jobs`` is the receiving end, which all workers share and which blocks. End of file: the node stops."""

    jobs: socket.socket

    def sockets(self) -> tuple[socket.socket, ...]:
        """See Boot."""
        return (self.control, self.jobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mains:
    """What each kind of child runs. Returning means exit status 0; an exception is logged and means 1."""

    front: Callable[[FrontBoot], None]
    keeper: Callable[[KeeperBoot], None]
    worker: Callable[[WorkerBoot], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the supervisor runs; tests give tiny mains.

    ``prepare`` makes the data folder ready (old metrics wiped, map of slots rebuilt): it runs once, after the folder
    is owned and before any child. ``make_jobs`` makes the workers' queue: sending and receiving end."""

    mains: Mains
    load: Callable[[Path], Loaded]
    prepare: Callable[[], None]
    make_jobs: Callable[[], tuple[socket.socket, socket.socket]]
    slot_map: Path
