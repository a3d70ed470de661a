"""Bounds on work: order, refusal, and places that come back whatever happens."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgserve.aio.limits import KeyedLimits, Limit
from imgserve.core.errors import Overloaded


async def test_so_many_run_so_many_wait_in_order_and_the_next_is_refused_at_once() -> None:
    """Two places, two in the queue, the fifth is Overloaded with its Retry-After."""
    limit = Limit("renders", running_max=2, queue_max=2, retry_after_s=7)
    gate = asyncio.Event()
    order: list[int] = []

    async def body(number: int) -> None:
        async with limit:
            order.append(number)
            await gate.wait()

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(body(number))
        await asyncio.sleep(0)
        assert (2, 2) == (limit.running, limit.waiting)
        with pytest.raises(Overloaded, match="renders") as caught:
            await body(4)
        assert 7 == caught.value.retry_after_s
        gate.set()
    assert [0, 1, 2, 3] == order
    assert (0, 0, 1) == (limit.running, limit.waiting, limit.refused)


async def test_a_queue_of_none_refuses_whatever_cannot_run_now() -> None:
    """And lets the next in when the place is free."""
    limit = Limit("x", running_max=1, queue_max=0)
    async with limit:
        with pytest.raises(Overloaded):
            await limit.__aenter__()
    async with limit:
        assert 1 == limit.running


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=40))
def test_places_come_back_when_callers_fail_or_are_cancelled(steps: list[tuple[bool, int]]) -> None:
    """Whoever is cancelled, waiting or running, in whatever order: in the end all places are free."""

    async def scenario() -> None:
        limit = Limit("x", running_max=2, queue_max=3)

        async def body(*, fails: bool) -> None:
            async with limit:
                await asyncio.sleep(0)
                if fails:
                    raise KeyError

        async def quiet(*, fails: bool) -> None:
            with contextlib.suppress(KeyError, Overloaded):
                await body(fails=fails)

        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[None]] = []
            for starts, number in steps:
                if starts:
                    tasks.append(group.create_task(quiet(fails=number % 3 == 0)))
                elif tasks:
                    tasks[number % len(tasks)].cancel()
                if number % 2:
                    await asyncio.sleep(0)
                assert limit.running <= 2
                assert limit.waiting <= 5  # those woken this turn still count
        assert (0, 0) == (limit.running, limit.waiting)
        async with limit, limit:
            assert 2 == limit.running

    asyncio.run(scenario())


async def test_each_key_has_its_own_limit_and_idle_keys_are_forgotten() -> None:
    """A slow host keeps its own visitors waiting only."""
    limits = KeyedLimits("hosts", running_max=1, queue_max=0)
    async with limits.slot("slow"):
        async with limits.slot("fast"):
            assert 2 == len(limits)
        with pytest.raises(Overloaded):
            async with limits.slot("slow"):
                raise AssertionError
        assert 1 == limits.refused
    assert 0 == len(limits)
    assert 1 == limits.refused


@pytest.mark.parametrize(("running_max", "queue_max"), [(0, 1), (1, -1)])
def test_impossible_bounds_are_refused(running_max: int, queue_max: int) -> None:
    """At construction."""
    with pytest.raises(ValueError, match="running_max"):
        Limit("x", running_max=running_max, queue_max=queue_max)
