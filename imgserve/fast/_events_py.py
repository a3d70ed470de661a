"""A ring of hit events, in Python: the specification of ``ext/events.pyx``."""

from collections import deque
from typing import TypeAlias

# Unix second, template, peer, forwarded header or None, microseconds, status, bytes sent.
HitEvent: TypeAlias = tuple[int, object, object, bytes | None, int, int, int]


class EventRing:
    """Events in the order they came; a fixed number of them. When it is full, new ones are dropped and counted.

    ``template`` and ``peer`` are kept as they are, by reference.
    """

    def __init__(self, capacity: int) -> None:
        """Raises ValueError for less than one."""
        if capacity < 1:
            raise ValueError(f"a ring has room for at least one event, not {capacity}")
        self.capacity = capacity
        self.dropped = 0
        self._events: deque[HitEvent] = deque()

    def __len__(self) -> int:
        return len(self._events)

    def push(  # noqa: PLR0913, PLR0917  a record would be one more allocation for each hit
        self,
        time_s: int,
        template: object,
        peer: object,
        forwarded: bytes | None,
        duration_us: int,
        status: int,
        sent_bytes: int,
    ) -> None:
        """Take one event, or count it as dropped."""
        if len(self._events) >= self.capacity:
            self.dropped += 1
            return
        self._events.append((time_s, template, peer, forwarded, duration_us, status, sent_bytes))

    def drain(self, max_events: int) -> list[HitEvent]:
        """The oldest events, at most so many; they leave the ring."""
        return [self._events.popleft() for _ in range(min(max_events, len(self._events)))]
