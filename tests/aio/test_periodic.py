"""A job that is done again and again, fails at times, and ends when it is cancelled."""

import asyncio
import logging

import pytest

from imgserve.aio.clock import SystemClock
from imgserve.aio.periodic import Periodic


class SteppedClock:
    """A clock that stands still until it is moved; its pauses move it."""

    def __init__(self) -> None:
        self.at_s = 1000.0
        self.pauses: list[float] = []

    def now_s(self) -> float:
        return self.at_s

    def monotonic_s(self) -> float:
        return self.at_s

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.at_s += seconds
        await asyncio.sleep(0)


async def test_turns_keep_their_rhythm_and_a_long_one_leaves_turns_out() -> None:
    """Every 10 s: work of 3 s is followed by 7 s of rest, work of 25 s by none."""
    clock = SteppedClock()
    starts: list[float] = []
    lengths = iter([3.0, 25.0, 0.0, 0.0])

    async def job() -> None:
        starts.append(clock.at_s)
        clock.at_s += next(lengths)
        if len(starts) == 4:
            raise asyncio.CancelledError

    periodic = Periodic("job", 10.0, job, clock=clock, pause=clock.pause)
    with pytest.raises(asyncio.CancelledError):
        await periodic.run()

    assert [1000.0, 1010.0, 1035.0, 1045.0] == starts
    assert [7.0, 0.0, 10.0] == clock.pauses


async def test_a_failure_is_logged_and_counted_and_the_job_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """The group of its owner does not fall."""
    clock = SteppedClock()
    runs = 0

    async def job() -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            raise OSError("no disk")
        if runs == 3:
            raise asyncio.CancelledError

    periodic = Periodic("sweep", 1.0, job, clock=clock, pause=clock.pause)
    with caplog.at_level(logging.ERROR):
        async with asyncio.TaskGroup() as group:
            group.create_task(periodic.run())

    assert (3, 1) == (periodic.runs, periodic.failures)
    assert [("periodic_job_failed", "sweep")] == [
        (record.getMessage(), vars(record)["job"]) for record in caplog.records
    ]


async def test_cancelling_passes_through() -> None:
    """A cancelled owner is not a failed job."""

    async def job() -> None:
        await asyncio.Event().wait()

    periodic = Periodic("job", 1.0, job, clock=SystemClock())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(periodic.run())
        await asyncio.sleep(0.01)
        task.cancel()
    assert task.cancelled()
    assert 0 == periodic.failures
