"""The clock, and what is noticed of its jumps."""

import pytest

from imgserve.aio.clock import JumpWatch, SystemClock


class SetClock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.unix_s = 1_800_000_000.0
        self.running_s = 5_000.0

    def now_s(self) -> float:
        """Unix time."""
        return self.unix_s

    def monotonic_s(self) -> float:
        """Time since some moment."""
        return self.running_s


@pytest.mark.parametrize("jump_s", [61, -61, 86_400, -86_400])
def test_a_jump_is_noticed_once(jump_s: float) -> None:
    """Ahead, as after a sleep, and back; time that merely passes is none."""
    clock = SetClock()
    watch = JumpWatch(clock)
    clock.unix_s += 3_600
    clock.running_s += 3_600
    assert not watch.has_jumped()

    clock.unix_s += jump_s
    assert [True, False] == [watch.has_jumped(), watch.has_jumped()]


def test_small_steps_count_together() -> None:
    """A clock that is corrected by seconds again and again is noticed once they are a minute."""
    clock = SetClock()
    watch = JumpWatch(clock)
    found = []
    for _ in range(7):
        clock.unix_s += 10
        found.append(watch.has_jumped())

    assert [False] * 6 + [True] == found


def test_the_clock_of_this_machine_does_not_jump() -> None:
    """Not within a test, at least."""
    assert not JumpWatch(SystemClock()).has_jumped()
