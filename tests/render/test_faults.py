"""A worker that crashes, hangs or eats memory costs exactly one request."""

import asyncio
import random
from collections.abc import Callable

import pytest
import uvloop

from imgserve.adapters.render.settings import Settings
from imgserve.core.errors import ImgserveError, RenderFailed, TimedOut
from imgserve.core.plan import Plan
from tests.render.fleet import Fleet

EXPECTED: dict[str, type[ImgserveError]] = {"crash": RenderFailed, "hang": TimedOut, "eat": RenderFailed}


@pytest.mark.parametrize("mischief", EXPECTED)
def test_exactly_those_jobs_fail(mischief: str, memory_file: Callable[[bytes], int]) -> None:
    """Twenty of a kind among four hundred jobs under way on four workers: those twenty fail, no other."""
    names = [mischief] * 20 + ["ok 4"] * 380
    random.Random(7).shuffle(names)
    original, target = memory_file(b"x"), memory_file(b"")

    async def go() -> list[ImgserveError | None]:
        # Two fronts, which hold no more than the queue may hold.
        pools, room = (fleet.pool(), fleet.pool()), asyncio.Semaphore(24)

        async def one(number: int, name: str) -> ImgserveError | None:
            async with room:
                try:
                    await pools[number % 2].render(Plan(), (name,), original, target)
                except ImgserveError as error:
                    return error
                return None

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number, name)) for number, name in enumerate(names)]
        assert 0 == sum(pool.in_flight for pool in pools)
        return [task.result() for task in tasks]

    # A hang must be ended soon; eating takes its time.
    settings = Settings(timeout_s=0.3 if mischief == "hang" else 60.0, memory_bytes=256_000_000)
    with (
        Fleet(render="mischief", settings=settings, workers=4) as fleet,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        outcomes = runner.run(go())
    expected = EXPECTED[mischief]
    seen = [(name, type(error) if error else None) for name, error in zip(names, outcomes, strict=True)]
    assert [(name, expected if name == mischief else None) for name in names] == seen


@pytest.mark.parametrize("mischief", ["abort", "eat_in_c"])
def test_other_ways_to_die(mischief: str, memory_file: Callable[[bytes], int]) -> None:
    """An abort of the C library, and memory that malloc did not give, are the same to a front."""
    original, target = memory_file(b"x"), memory_file(b"")

    async def go() -> None:
        pool = fleet.pool()
        with pytest.raises(RenderFailed):
            await pool.render(Plan(), (mischief,), original, target)
        await pool.render(Plan(), ("ok",), original, target)

    with Fleet(render="mischief", settings=Settings(memory_bytes=256_000_000)) as fleet:
        asyncio.run(go())
        assert len(fleet.statuses) == 1
