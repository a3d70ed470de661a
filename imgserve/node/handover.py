"""When the keeper knows that it has written everything that the fronts had recorded.

Each front notes on the board the time before which nothing of its is left in its own memory. The mailbox keeps
the order, and a packet leaves it once it is durable: so after every front's note has passed a moment and the mailbox
was seen empty once, every request that was answered before that moment has its row, or was dropped and counted.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Final

from imgserve.node.board import Board, Role, Slot, State

_PATIENCE_S: Final = 10.0
_POLL_S: Final = 0.02


def now_ms() -> int:
    """The time that fronts note: CLOCK_MONOTONIC, which all processes share."""
    return int(time.monotonic() * 1000)


class Handover:
    """The keeper's view of what is still under way."""

    def __init__(self, board: Board, mailbox: socket.socket, *, patience_s: float = _PATIENCE_S) -> None:
        self._fronts = board.slots(Role.FRONT)
        self._mailbox = mailbox
        self._patience_s = patience_s

    async def settle(self) -> bool:
        """Wait until all rows of requests that were answered before this call are durable; False: it took too long."""
        asked_ms = now_ms() + 1
        try:
            async with asyncio.timeout(self._patience_s):
                await _until(lambda: all(_has_handed_over(slot, asked_ms) for slot in self._fronts))
                await _until(self._is_empty)
        except TimeoutError:
            return False
        return True

    def _is_empty(self) -> bool:
        """Whether nothing waits; the end of all senders counts as empty."""
        with contextlib.suppress(BlockingIOError):
            return not self._mailbox.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return True


def _has_handed_over(front: Slot, asked_ms: int) -> bool:
    """A front that is gone has nothing left to hand over; one that is starting may have answered already."""
    return front.state is State.GONE or front.handed_over_ms >= asked_ms


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - other processes' memory sets no event
        await asyncio.sleep(_POLL_S)
