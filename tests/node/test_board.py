"""The board: memory that all processes of a node see."""

import os
import struct

from imgserve.node.board import COUNTERS, Board, Role, State


def test_what_a_child_writes_all_see() -> None:
    """A forked child's state and counters reach the parent without any call."""
    board = Board(fronts=2, workers=3)
    pid = os.fork()
    if pid == 0:
        slot = board.slot(Role.WORKER, 2)
        slot.state = State.READY
        slot.count(COUNTERS - 1, 2**40)
        slot.count(0)
        os._exit(0)
    os.waitpid(pid, 0)
    slot = board.slot(Role.WORKER, 2)

    assert (State.READY, 2**40, 1) == (slot.state, slot.counted(COUNTERS - 1), slot.counted(0))
    assert (0, 1, 0) == tuple(board.ready(role) for role in (Role.FRONT, Role.WORKER, Role.KEEPER))


def test_no_two_cells_are_the_same() -> None:
    """Every cell of the head and of every slot keeps its own value."""
    board = Board(fronts=2, workers=2)
    board.started_at_s, board.generation, board.is_able = 1_700_000_000, 7, True
    for role in Role:
        for _ in range(10 + list(Role).index(role)):
            board.count_restart(role)
    slots = [slot for role in Role for slot in board.slots(role)]
    for number, slot in enumerate(slots):
        slot.state, slot.pid, slot.tries = State.DRAINING, 1000 + number, 2000 + number
        for counter in range(COUNTERS):
            slot.count(counter, 10_000 * number + counter)

    assert (1_700_000_000, 7, True, False) == (board.started_at_s, board.generation, board.is_able, board.is_draining)
    assert {"front": 10, "worker": 11, "keeper": 12} == board.restarts()
    for number, slot in enumerate(slots):
        assert (State.DRAINING, 1000 + number, 2000 + number) == (slot.state, slot.pid, slot.tries)
        assert [10_000 * number + counter for counter in range(COUNTERS)] == [
            slot.counted(counter) for counter in range(COUNTERS)
        ]


def test_ready_means_able_and_not_draining() -> None:
    """Readiness needs all roles filled, and ends with draining."""
    board = Board(fronts=1, workers=1)
    seen = [board.is_ready]
    board.is_able = True
    seen.append(board.is_ready)
    board.is_draining = True
    seen.append(board.is_ready)

    assert [False, True, False] == seen


def test_a_word_is_never_seen_half_written() -> None:
    """A reader in another process sees the old or the new value of a cell, never a mixture of their bytes."""
    board = Board(fronts=1, workers=1)
    slot = board.slot(Role.FRONT, 0)
    values = struct.unpack("2Q", b"\x11" * 8 + b"\xee" * 8)
    slot.pid = values[0]
    pid = os.fork()
    if pid == 0:
        for number in range(300_000):
            slot.pid = values[number % 2]
        os._exit(0)
    seen = set()
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        seen |= {slot.pid for _ in range(1000)}

    assert seen <= set(values)
