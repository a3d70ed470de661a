"""Waiting for descriptors, times and signals, in one thread and without a library's event loop."""

import heapq
import itertools
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Final

Action = Callable[[], None]

_NEVER_S: Final = float("inf")
_SIGNALS_MAX: Final = 64


class Reactor:
    """Calls an action per readable descriptor, per time that has come, and per signal."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Action]] = []
        self._numbers = itertools.count()  # timers of the same time go in the order they were set

    def watch(self, fd: int, action: Action) -> None:
        """Call the action whenever the descriptor is readable."""
        self._selector.register(fd, selectors.EVENT_READ, action)

    def unwatch(self, fd: int) -> None:
        """Stop watching; before the descriptor is closed. May be called again."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def later(self, delay_s: float, action: Action) -> None:
        """Call the action once, after that time."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._numbers), action))

    def watch_signals(self, numbers: Iterable[int], action: Callable[[int], None]) -> None:
        """Call the action with the number of each of these signals; for the main thread, for good."""
        reading, writing = socket.socketpair()
        for end in (reading, writing):
            end.setblocking(False)
        signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, _ignore)

        def deliver() -> None:
            for number in reading.recv(_SIGNALS_MAX):
                action(number)

        self.watch(reading.fileno(), deliver)

    def run(self, until: Callable[[], bool], deadline_s: float = _NEVER_S) -> bool:
        """React until the condition holds: True; or until the deadline on CLOCK_MONOTONIC has passed: False."""
        while not until():
            now_s = time.monotonic()
            if now_s >= deadline_s:
                return False
            if self._timers and self._timers[0][0] <= now_s:
                heapq.heappop(self._timers)[2]()
                continue
            wake_s = min(deadline_s, self._timers[0][0] if self._timers else _NEVER_S)
            for key, _ in self._selector.select(None if wake_s == _NEVER_S else wake_s - now_s):
                # An earlier action of this round may have ended what this one is about.
                if key.fd in self._selector.get_map() and self._selector.get_key(key.fd) is key:
                    key.data()
        return True


def _ignore(number: int, frame: FrameType | None) -> None:
    """The byte in the socket says it all; a signal without a handler would write none."""
