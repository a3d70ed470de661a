"""When everything that was recorded is known to be written."""

import asyncio
import socket
from collections.abc import Coroutine, Iterator

import pytest

from imgserve.node.board import Board, Role, State
from imgserve.node.handover import Handover, now_ms


@pytest.fixture
def mailbox() -> Iterator[tuple[socket.socket, socket.socket]]:
    sending, receiving = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    receiving.setblocking(False)
    with sending, receiving:
        yield sending, receiving


@pytest.fixture
def board() -> Board:
    """Two fronts that serve and have just handed over."""
    board = Board(fronts=2, workers=1)
    for slot in board.slots(Role.FRONT):
        slot.state = State.READY
        slot.handed_over_ms = now_ms()
    return board


async def ticked(board: Board, number: int) -> None:
    """A front that hands over a moment later."""
    await asyncio.sleep(0.05)
    board.slot(Role.FRONT, number).handed_over_ms = now_ms()


async def settled_while(handover: Handover, fronts: Coroutine[None, None, None]) -> bool:
    """What settling says while the fronts do their part."""
    async with asyncio.TaskGroup() as group:
        settling = group.create_task(handover.settle())
        group.create_task(fronts)
    return settling.result()


async def test_every_front_is_waited_for(board: Board, mailbox: tuple[socket.socket, socket.socket]) -> None:
    """What one handed over before it was asked counts for nothing; a front that is gone has nothing left."""
    handover = Handover(board, mailbox[1], patience_s=0.3)
    await ticked(board, 0)
    assert not await handover.settle()
    assert await settled_while(handover, _both(board))
    assert not await settled_while(handover, ticked(board, 0))
    board.slot(Role.FRONT, 1).state = State.GONE
    assert await settled_while(handover, ticked(board, 0))
    board.slot(Role.FRONT, 1).state = State.STARTING
    assert not await settled_while(handover, ticked(board, 0))


async def _both(board: Board) -> None:
    await ticked(board, 0)
    await ticked(board, 1)


async def test_the_mailbox_must_have_been_empty(board: Board, mailbox: tuple[socket.socket, socket.socket]) -> None:
    """A packet leaves it only when it is durable, so while one waits nothing is settled."""
    sending, receiving = mailbox
    handover = Handover(board, receiving, patience_s=0.3)
    sending.send(b"rows")
    assert not await settled_while(handover, _both(board))
    assert b"rows" == receiving.recv(10)
    assert await settled_while(handover, _both(board))
    sending.close()
    assert await settled_while(handover, _both(board))
