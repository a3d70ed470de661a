"""The fronts' end of the render queue, against real workers that do what they are told."""

import asyncio
import os
import resource
import socket
import time
from collections.abc import Callable, Coroutine

import pytest

from imgserve.adapters.render import pool as pool_module
from imgserve.adapters.render import wire
from imgserve.adapters.render.pool import WorkerPool, make_queue
from imgserve.adapters.render.settings import Settings
from imgserve.core.errors import NoSpace, Overloaded, RenderFailed, TimedOut
from imgserve.core.plan import Plan
from tests.render.fleet import Fleet

Run = Callable[[Coroutine[object, object, None]], None]
MakeFile = Callable[[bytes], int]

QUICK = Settings(timeout_s=0.4, memory_bytes=256_000_000)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_job_is_done_and_leaves_no_descriptor(run: Run, memory_file: MakeFile) -> None:
    """The target holds what the worker wrote, the record says what it is, the counters agree."""
    original, target = memory_file(b"abc and a trailer"), memory_file(b"")

    async def go() -> None:
        pool = fleet.pool()
        await pool.render(Plan(), ("ok",), original, target, original_bytes=3)
        before = descriptors()
        rendered = await pool.render(Plan(), ("ok",), original, target, original_bytes=3)
        assert (before, b"abc") == (descriptors(), os.pread(target, 100, 0))
        assert ("image/png", 3, 1) == (rendered.content_type, rendered.size_bytes, rendered.render_us)
        assert (2, 0, 0, 0, 0) == (pool.submitted, pool.refused, pool.died, pool.timed_out, pool.in_flight)

    with Fleet(render="mischief", settings=QUICK) as fleet:
        run(go())


def test_a_dead_worker_is_render_failed(run: Run, memory_file: MakeFile) -> None:
    """A crash costs the job, and is counted as a death."""

    async def go() -> None:
        pool = fleet.pool()
        with pytest.raises(RenderFailed):
            await pool.render(Plan(), ("crash",), memory_file(b"x"), memory_file(b""))
        await pool.render(Plan(), ("ok",), memory_file(b"x"), memory_file(b""))
        assert (1, 0) == (pool.died, pool.timed_out)

    with Fleet(render="mischief", settings=QUICK) as fleet:
        run(go())


@pytest.mark.parametrize("how", ["hang", "hang_deaf"])
def test_a_hanging_worker_is_timed_out(how: str, run: Run, memory_file: MakeFile) -> None:
    """Its own alarm ends it; where that is blocked, the front's kill by pidfd does."""

    async def go() -> None:
        pool = fleet.pool()
        began_s = time.monotonic()
        with pytest.raises(TimedOut):
            await pool.render(Plan(), (how,), memory_file(b"x"), memory_file(b""))
        took_s = time.monotonic() - began_s
        assert QUICK.timeout_s <= took_s < QUICK.timeout_s + pool_module.KILL_GRACE_S + 2
        await pool.render(Plan(), ("ok",), memory_file(b"x"), memory_file(b""))
        assert (0, 1) == (pool.died, pool.timed_out)

    with Fleet(render="mischief", settings=QUICK) as fleet:
        run(go())
        assert [-14 if how == "hang" else -9] == fleet.statuses


def test_a_failure_is_raised_as_the_worker_raised_it(run: Run, memory_file: MakeFile) -> None:
    """An error of the tree keeps its kind; an unforeseen one is RenderFailed, and the worker lives."""

    async def go() -> None:
        pool = fleet.pool()
        with pytest.raises(NoSpace):
            await pool.render(Plan(), ("fail_disk",), memory_file(b"x"), memory_file(b""))
        with pytest.raises(RenderFailed, match="ZeroDivisionError"):
            await pool.render(Plan(), ("raise_bug",), memory_file(b"x"), memory_file(b""))
        assert 0 == pool.died

    with Fleet(render="mischief", settings=QUICK) as fleet:
        run(go())
        assert [] == fleet.statuses


def test_a_full_queue_is_overloaded_at_once(run: Run, memory_file: MakeFile) -> None:
    """Without a worker jobs pile up to the depth, then are refused without waiting, and counted."""
    sending, receiving = make_queue(8)

    async def go() -> None:
        pool = WorkerPool(sending, QUICK)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(pool.render(Plan(), ("ok",), original, target)) for _ in range(40)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            refused = [task for task in tasks if task.done()]
            assert pool.refused == len(refused) == 40 - pool.in_flight
            assert {Overloaded} == {type(task.exception()) for task in refused}
            assert 8 <= pool.in_flight <= 12
            for task in tasks:
                task.cancel()

    original, target = memory_file(b"x"), memory_file(b"")
    with sending, receiving, pytest.raises(BaseExceptionGroup) as caught:
        run(go())
    assert caught.value.split(Overloaded)[1] is None


@pytest.mark.parametrize("depth", [16, 64, 150])
def test_the_queue_holds_about_its_depth(depth: int, memory_file: MakeFile) -> None:
    """As many jobs fit as were asked for, and not many more."""
    sending, receiving = make_queue(depth)
    job = wire.Job(
        plan=Plan(top_left_px=(10, 20), width_px=100, height_px=50),
        formats=("avif", "webp", "plain"),
        original_bytes=1_000_000,
        limits=wire.Limits(max_original_bytes=30_000_000, max_original_pixels=50_000_000, max_side_px=16_384),
        timeout_s=10.0,
        deadline_s=time.monotonic(),
    )
    descriptor, sent = memory_file(b""), 0
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with sending, receiving, ours, theirs, pytest.raises(BlockingIOError):
        while sent < 1000:
            wire.send_job(sending, job, original_fd=descriptor, target_fd=descriptor, reply_fd=theirs.fileno())
            sent += 1
    assert depth <= sent <= depth * 1.1 + 2


def test_a_job_that_nobody_takes_is_given_up(run: Run, memory_file: MakeFile) -> None:
    """Waiting in the queue is bounded, and a late worker skips the job."""

    async def go() -> None:
        pool = fleet.pool(queue_wait_s=0.1)
        with pytest.raises(Overloaded):
            await pool.render(Plan(), ("ok",), original, skipped)
        fleet.start_worker()
        await fleet.pool().render(Plan(), ("ok",), original, target)
        assert (1, b"", b"x") == (pool.refused, os.pread(skipped, 9, 0), os.pread(target, 9, 0))

    original, skipped, target = memory_file(b"x"), memory_file(b""), memory_file(b"")
    with Fleet(render="mischief", settings=QUICK, workers=0) as fleet:
        run(go())


def test_a_cancelled_job_is_skipped(run: Run, memory_file: MakeFile) -> None:
    """A client that has gone away costs no rendering, and leaves nothing behind in the front."""

    async def go() -> None:
        pool = fleet.pool()
        await pool.render(Plan(), ("ok",), memory_file(b"x"), target)
        before = descriptors()
        busy = asyncio.ensure_future(pool.render(Plan(), ("sleep",), original, target))
        async with asyncio.timeout(5):
            while pool.in_flight < 1:
                await asyncio.sleep(0)
        cancelled = asyncio.ensure_future(pool.render(Plan(), ("ok",), original, skipped))
        async with asyncio.timeout(5):
            while pool.in_flight < 2:
                await asyncio.sleep(0)
        cancelled.cancel()
        await busy
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await pool.render(Plan(), ("ok",), original, target)
        assert (0, b"", before) == (pool.in_flight, os.pread(skipped, 9, 0), descriptors())

    original, skipped, target = memory_file(b"x"), memory_file(b""), memory_file(b"")
    with Fleet(render="mischief", settings=QUICK) as fleet:
        run(go())


def test_out_of_descriptors_is_overloaded(run: Run, memory_file: MakeFile) -> None:
    """A front that can open no more sockets is busy, not broken."""

    async def go() -> None:
        pool = WorkerPool(sending, QUICK)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            with pytest.raises(Overloaded):
                await pool.render(Plan(), ("ok",), original, target)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (0, 1, 0) == (pool.submitted, pool.refused, pool.in_flight)

    original, target = memory_file(b"x"), memory_file(b"")
    sending, receiving = make_queue(8)
    with sending, receiving:
        run(go())
