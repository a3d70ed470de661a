"""How a worker starts, is recycled and stops, without losing a job that it took."""

import ast
import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imgserve.adapters.render.settings import Settings
from imgserve.core.errors import RenderFailed
from imgserve.core.plan import Plan
from tests.render import images
from tests.render.fleet import ROOT, Fleet

SMALL = Settings(memory_bytes=256_000_000)
MakeFile = Callable[[bytes], int]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


@pytest.mark.parametrize("recycling", [{"jobs_max": 15}, {"age_max_s": 0.05}, {"rss_fraction": 0.0}])
def test_recycling_loses_no_job(recycling: dict[str, float], memory_file: MakeFile) -> None:
    """By jobs, age and memory: hundreds of jobs over workers that come and go, and each is done."""
    count = 8 if "rss_fraction" in recycling else 150
    original, target = memory_file(b"x"), memory_file(b"")

    async def go() -> set[int]:
        pool, room, pids = fleet.pool(), asyncio.Semaphore(16), set[int]()

        async def one() -> None:
            async with room:
                pids.add((await pool.render(Plan(), ("ok 1",), original, target)).height_px)

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(one())
        assert (count, 0, 0) == (pool.submitted, pool.died, pool.timed_out)
        return pids

    with Fleet(render="mischief", settings=SMALL, workers=2, recycling=recycling) as fleet:
        pids = asyncio.run(go())
        assert {0} == set(fleet.statuses)
    assert len(pids) > 2


def test_sigterm_finishes_the_job(memory_file: MakeFile) -> None:
    """A worker told to stop answers what it is on, takes nothing more, and exits with 0."""
    original, target = memory_file(b"x"), memory_file(b"")

    async def go() -> None:
        pool = fleet.pool()
        async with asyncio.TaskGroup() as group:
            job = group.create_task(pool.render(Plan(), ("sleep",), original, target))
            await asyncio.sleep(0.1)
            os.kill(fleet.pids[0], signal.SIGTERM)
            assert (await job).size_bytes == 1
        assert pool.died == 0

    with Fleet(render="mischief", settings=SMALL) as fleet:
        asyncio.run(go())
        wait_until(lambda: fleet.statuses == [0])


def test_sigterm_ends_an_idle_worker() -> None:
    """At once, with 0."""
    with Fleet(render="mischief", settings=SMALL) as fleet:
        os.kill(fleet.pids[0], signal.SIGTERM)
        wait_until(lambda: fleet.statuses == [0])


def test_the_end_of_the_queue_ends_a_worker() -> None:
    """When all who send are gone there is nothing to wait for."""
    with Fleet(render="mischief", settings=SMALL, workers=0) as fleet:
        process = fleet.start_worker()
        fleet.sending.close()
        assert 0 == process.wait(10)


def test_a_broken_packet_costs_nothing(memory_file: MakeFile) -> None:
    """Something that is no job is dropped; the next one is done."""
    original, target = memory_file(b"x"), memory_file(b"")

    async def go() -> None:
        fleet.sending.sendmsg([b"nonsense"])
        await fleet.pool().render(Plan(), ("ok",), original, target)

    with Fleet(render="mischief", settings=SMALL) as fleet:
        asyncio.run(go())
        assert [] == fleet.statuses


def test_jobs_are_shared_by_the_workers(memory_file: MakeFile) -> None:
    """One queue: while one worker is busy the other takes what two fronts send."""
    original, target = memory_file(b"x"), memory_file(b"")

    async def go() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(pool.render(Plan(), ("sleep",), original, target))
                for pool in (fleet.pool(), fleet.pool())
            ]
        assert set(fleet.pids) == {task.result().height_px for task in tasks}

    with Fleet(render="mischief", settings=SMALL, workers=2) as fleet:
        asyncio.run(go())


def test_a_memory_bomb_costs_one_request(memory_file: MakeFile) -> None:
    """An interlaced image, which is decoded as a whole, that needs more than the worker has is RenderFailed: its
    original is not to blame. The next job is done."""
    # 90 megapixels of 8 bytes; the pixels themselves are missing, but nobody comes to see that.
    bomb = images.png_of(10_000, 9_000, depth=16, colour=6, rows=b"\0", interlaced=True)
    original, target = memory_file(bomb), memory_file(b"")
    good = memory_file(images.png_of(20, 20))
    generous = Settings(memory_bytes=256_000_000, max_original_pixels=100_000_000)

    async def go() -> None:
        pool = fleet.pool()
        with pytest.raises(RenderFailed):
            await pool.render(Plan(width_px=100), ("webp",), original, target)
        await pool.render(Plan(width_px=10), ("webp",), good, target)

    with Fleet(settings=generous) as fleet:
        asyncio.run(go())


def test_no_other_module_imports_libvips() -> None:
    """pyvips exists in the pipeline and its steps only, and importing the worker's module does not bring it."""
    importers = {
        str(path.relative_to(ROOT))
        for path in Path(ROOT, "imgserve").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(alias.name.startswith("pyvips") for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and str(node.module).startswith("pyvips"))
    }
    allowed = {name for name in importers if name.startswith("imgserve/adapters/render/steps/")}
    # The inventory is a process of its own, without a single original.
    assert {f"imgserve/adapters/render/{name}.py" for name in ("pipeline", "inventory")} == importers - allowed
    code = "import sys, imgserve.node.worker, imgserve.adapters.render.pool; print('pyvips' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout
    assert b"False\n" == said


def test_nothing_of_libvips_runs_before_the_sandbox() -> None:
    """The import alone starts no thread: the filter is put up while the process has one."""
    code = (
        "import os, imgserve.adapters.render.pipeline as p; before = len(os.listdir('/proc/self/task'));print(before)"
    )
    environment = {**os.environ, "VIPS_CONCURRENCY": "1"}
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True
    ).stdout
    assert b"1\n" == said


def test_a_worker_serves_what_a_socket_can_carry(memory_file: MakeFile) -> None:
    """The wake-up of one worker per job: a job sent straight to the queue is answered on its own socket."""
    from imgserve.adapters.render import wire

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    job = wire.Job(
        plan=Plan(),
        formats=("ok",),
        original_bytes=1,
        limits=wire.Limits(max_original_bytes=1, max_original_pixels=1, max_side_px=1),
        timeout_s=1.0,
        deadline_s=time.monotonic() + 5,
    )
    late = wire.Job(**{name: getattr(job, name) for name in job.__struct_fields__} | {"deadline_s": 1.0})
    with Fleet(render="mischief", settings=SMALL) as fleet, ours:
        for sent in (late, job):
            wire.send_job(
                fleet.sending,
                sent,
                original_fd=memory_file(b"x"),
                target_fd=memory_file(b""),
                reply_fd=theirs.fileno(),
            )
        theirs.close()
        answers = []
        ours.settimeout(5)
        while packet := ours.recv(4096):
            answers.append(packet)
        # The late one was skipped without a word.
        assert 2 == len(answers)
