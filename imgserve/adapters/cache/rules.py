"""What the cache decides without looking: when a file is too old, how much must go, and which.

Age counts from the fetch of the original, whatever the use. A file from the future, by more than five minutes, counts
as expired too: it was made under a wrong clock, its true age is unknown, and by its own date it might stay for
years; a fetch is cheaper than a broken promise. For the same reason a clock that jumps ahead empties the cache.
"""

from collections.abc import Iterable
from typing import Final, Protocol, TypeVar

from imgserve.disk.files import Room

AHEAD_MAX_S: Final = 300
"""How far in the future a file may have been fetched: what clocks are set back by in normal life."""

_BLOCK_BYTES: Final = 4096
_KEPT_SHARE: Final = 20
_HYSTERESIS_SHARE: Final = 20
_KEPT_MAX_BYTES: Final = 1_000_000_000


class Sized(Protocol):
    """Something that takes room."""

    @property
    def size_bytes(self) -> int:
        """How much."""


S = TypeVar("S", bound=Sized)


def has_expired(created_s: float, now_s: float, life_s: float) -> bool:
    """Whether what was fetched then is past its life now, or claims to come from the future."""
    return not -AHEAD_MAX_S <= now_s - created_s < life_s


def occupied_bytes(file_bytes: int) -> int:
    """What a file takes on the disk: whole blocks."""
    return -(-file_bytes // _BLOCK_BYTES) * _BLOCK_BYTES


def room_to_keep(total_bytes: int) -> int:
    """How much of a disk stays free of cached files: a twentieth, at most 1 GB, for logs and invalidations."""
    return min(total_bytes // _KEPT_SHARE, _KEPT_MAX_BYTES)


def is_nearly_full(room: Room) -> bool:
    """Whether new files should not even be tried: eviction, which starts at twice this, does not keep up."""
    return room.free_bytes < room_to_keep(room.total_bytes) // 2


def bytes_to_free(cache_bytes: int, size_max_bytes: int, room: Room) -> int:
    """How much eviction must take away now; 0 while all is within its bounds.

    Once it starts it goes a twentieth of the cache further, so that not each new file evicts one.
    """
    over_bytes = max(cache_bytes - size_max_bytes, room_to_keep(room.total_bytes) - room.free_bytes)
    if over_bytes <= 0:
        return 0
    return min(cache_bytes, over_bytes + min(cache_bytes, size_max_bytes) // _HYSTERESIS_SHARE)


def choose(candidates: Iterable[S], need_bytes: int) -> tuple[S, ...]:
    """The first candidates, in their order, that together make up the need; all of them if they do not."""
    chosen: list[S] = []
    for candidate in candidates:
        if need_bytes <= 0:
            break
        chosen.append(candidate)
        need_bytes -= candidate.size_bytes
    return tuple(chosen)
