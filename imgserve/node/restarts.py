"""How soon a child that died is replaced."""

from typing import Final

_YOUNG_S: Final = 1.0
_FIRST_DELAY_S: Final = 0.1
_DELAY_MAX_S: Final = 5.0
_YOUNG_DEATHS_FREE: Final = 3
_YOUNG_DELAY_S: Final = 0.25
_HOPELESS_DEATHS: Final = 3


class Restarts:
    """Counts, per slot, the early deaths in a row.

    A child that dies before it is ready will most likely do so again: the pause doubles from 0.1 to 5 s.
    One that was ready and dies within its first second is killed by what it is given to do (a worker by one image
    after the other, say), and whoever waits for its replacement has done nothing wrong: the pause
    stays at 0.25 s, from the fourth time on. All others are replaced at once.
    """

    def __init__(self) -> None:
        self._stillborn: dict[str, int] = {}
        self._died_young: dict[str, int] = {}

    @property
    def is_hopeless(self) -> bool:
        """Whether some slot's child died three times in a row without ever being ready."""
        return any(deaths >= _HOPELESS_DEATHS for deaths in self._stillborn.values())

    def delay_s(self, name: str, *, lived_s: float, was_ready: bool) -> float:
        """Note the death of a slot's child; seconds to wait before it is replaced."""
        if not was_ready:
            deaths = self._stillborn[name] = self._stillborn.get(name, 0) + 1
            return min(_DELAY_MAX_S, _FIRST_DELAY_S * 2 ** min(deaths - 2, 10)) if deaths > 1 else 0.0
        self._stillborn.pop(name, None)
        if lived_s >= _YOUNG_S:
            self._died_young.pop(name, None)
            return 0.0
        deaths = self._died_young[name] = self._died_young.get(name, 0) + 1
        return _YOUNG_DELAY_S if deaths > _YOUNG_DEATHS_FREE else 0.0
