"""The clock of this machine."""

import logging
import time
from typing import Final

from imgserve.interfaces import Clock

log = logging.getLogger(__name__)

_JUMP_S: Final = 60.0


class SystemClock:
    """Implements ``interfaces.Clock``."""

    def now_s(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def monotonic_s(self) -> float:
        """A time that never jumps."""
        return time.monotonic()


class JumpWatch:
    """Notices when Unix time and monotonic time come apart: the clock was set, or the machine slept.

    What was reckoned in monotonic time before, like the end of an image's life, is wrong by as much.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._apart_s = self._now_apart_s()

    def has_jumped(self) -> bool:
        """Whether they have come apart by over a minute since the last True, or since the beginning."""
        apart_s = self._now_apart_s()
        if abs(apart_s - self._apart_s) <= _JUMP_S:
            return False
        log.warning("clock_jumped", extra={"ahead_s": round(apart_s - self._apart_s)})
        self._apart_s = apart_s
        return True

    def _now_apart_s(self) -> float:
        return self._clock.now_s() - self._clock.monotonic_s()
