"""The board: one small page of memory that all processes of a node see.

Every cell is an aligned 64-bit word that one process writes at a time, so neither locks nor copies are needed:
the supervisor writes the head, and a slot while nobody lives in it; a child writes its own slot.
"""

import mmap
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Final


class Role(StrEnum):
    """What a child process does."""

    FRONT = "front"
    WORKER = "worker"
    KEEPER = "keeper"


class State(IntEnum):
    """Where a child is in its life."""

    GONE = 0
    STARTING = 1
    READY = 2
    DRAINING = 3


_ROLES: Final = tuple(Role)
_CELL_BYTES: Final = 8

# Cells of the head.
_STARTED_AT, _IS_ABLE, _IS_DRAINING, _GENERATION, _RESTARTS = 0, 1, 2, 3, 4
_HEAD_CELLS: Final = 16

# Cells of a slot. A slot is a multiple of a cache line, so that busy counters do not disturb a neighbour's.
_STATE, _PID, _TRIES, _HANDED_OVER, _COUNTERS = 0, 1, 2, 3, 8
_SLOT_CELLS: Final = 32
COUNTERS: Final = _SLOT_CELLS - _COUNTERS


class Slot:
    """The cells of one child. They outlive it: its replacement goes on counting."""

    def __init__(self, cells: memoryview, start: int) -> None:
        self._cells = cells
        self._start = start

    @property
    def state(self) -> State:
        """Where the child is in its life."""
        return State(self._cells[self._start + _STATE])

    @state.setter
    def state(self, state: State) -> None:
        self._cells[self._start + _STATE] = state

    @property
    def pid(self) -> int:
        """Process id of the child; 0 while there is none."""
        return self._cells[self._start + _PID]

    @pid.setter
    def pid(self, pid: int) -> None:
        self._cells[self._start + _PID] = pid

    @property
    def tries(self) -> int:
        """How often this slot's processes have begun what they are at, without getting through it."""
        return self._cells[self._start + _TRIES]

    @tries.setter
    def tries(self, tries: int) -> None:
        self._cells[self._start + _TRIES] = tries

    @property
    def handed_over_ms(self) -> int:
        """A front's: everything it recorded before this time (CLOCK_MONOTONIC) is on its way to the keeper."""
        return self._cells[self._start + _HANDED_OVER]

    @handed_over_ms.setter
    def handed_over_ms(self, at_ms: int) -> None:
        self._cells[self._start + _HANDED_OVER] = at_ms

    def count(self, counter: int, amount: int = 1) -> None:
        """Add to one of the ``COUNTERS`` counters; their meaning belongs to the role."""
        assert 0 <= counter < COUNTERS
        self._cells[self._start + _COUNTERS + counter] += amount

    def counted(self, counter: int) -> int:
        """Value of one of the counters."""
        assert 0 <= counter < COUNTERS
        return self._cells[self._start + _COUNTERS + counter]


class Board:
    """The whole board. Made by the supervisor before it forks; children inherit the mapping, not a descriptor."""

    def __init__(self, *, fronts: int, workers: int) -> None:
        self._counts = {Role.FRONT: fronts, Role.WORKER: workers, Role.KEEPER: 1}
        cells = _HEAD_CELLS + _SLOT_CELLS * sum(self._counts.values())
        # A cast view stores a word by one machine instruction; struct with a byte order stores byte by byte.
        self._cells = memoryview(mmap.mmap(-1, cells * _CELL_BYTES)).cast("Q")
        self._slots: dict[Role, tuple[Slot, ...]] = {}
        start = _HEAD_CELLS
        for role, count in self._counts.items():
            self._slots[role] = tuple(Slot(self._cells, start + _SLOT_CELLS * number) for number in range(count))
            start += _SLOT_CELLS * count

    @property
    def started_at_s(self) -> int:
        """When the supervisor started, in Unix seconds."""
        return self._cells[_STARTED_AT]

    @started_at_s.setter
    def started_at_s(self, at_s: int) -> None:
        self._cells[_STARTED_AT] = at_s

    @property
    def is_able(self) -> bool:
        """Whether every role is filled; one that is empty for a moment, while a child is replaced, counts as filled."""
        return self._cells[_IS_ABLE] != 0

    @is_able.setter
    def is_able(self, value: bool) -> None:
        self._cells[_IS_ABLE] = value

    @property
    def is_draining(self) -> bool:
        """Whether the node has been asked to stop."""
        return self._cells[_IS_DRAINING] != 0

    @is_draining.setter
    def is_draining(self, value: bool) -> None:
        self._cells[_IS_DRAINING] = value

    @property
    def is_ready(self) -> bool:
        """Whether the node may be sent requests: what ``/-/ready`` answers."""
        return self.is_able and not self.is_draining

    @property
    def generation(self) -> int:
        """Number of the newest snapshot of the tenants; 1 at the start, one more with each reload."""
        return self._cells[_GENERATION]

    @generation.setter
    def generation(self, generation: int) -> None:
        self._cells[_GENERATION] = generation

    def ready(self, role: Role) -> int:
        """Children of a role that are ready now."""
        return sum(slot.state is State.READY for slot in self._slots[role])

    def slot(self, role: Role, number: int) -> Slot:
        """The slot of one child."""
        return self._slots[role][number]

    def slots(self, role: Role) -> tuple[Slot, ...]:
        """All slots of a role."""
        return self._slots[role]

    def count_restart(self, role: Role) -> None:
        """One more child of this role died unasked."""
        self._cells[_RESTARTS + _ROLES.index(role)] += 1

    def restarts(self) -> Mapping[str, int]:
        """Per role, how many children died unasked and were replaced."""
        return {role.value: self._cells[_RESTARTS + _ROLES.index(role)] for role in _ROLES}
