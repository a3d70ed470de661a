"""One computation per key, in this process and on the node, also when callers leave or holders are killed."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from imgserve.aio.flight import Flights, NodeFlights, offset
from imgserve.core.errors import NotFound, Overloaded
from imgserve.disk.locks import LockFile

PROCESS = """
import asyncio, os, sys
from pathlib import Path
from imgserve.aio.flight import NodeFlights
from imgserve.disk.locks import LockFile

folder, what = Path(sys.argv[1]), sys.argv[2]

async def look():
    try:
        return (folder / "result").read_text()
    except FileNotFoundError:
        return None

async def work():
    with (folder / "works").open("a") as works:
        works.write(f"{os.getpid()}\\n")
    print("working", flush=True)
    if what == "hang":
        await asyncio.sleep(600)
    await asyncio.sleep(0.05)
    dot = folder / f"result.{os.getpid()}"
    dot.write_text("made")
    dot.rename(folder / "result")
    return "made"

async def main():
    async with NodeFlights(LockFile(folder / "locks")) as flights:
        results = await asyncio.gather(*(flights.run(b"key", look, work) for _ in range(20)))
        print(sorted(results)[0][0], sum(led for _, led in results), len(results), flush=True)

asyncio.run(main())
"""


class Shared:
    """A result that its receivers close, and that counts its handles."""

    open_handles = 0

    def __init__(self) -> None:
        Shared.open_handles += 1
        self.is_open = True

    def close(self) -> None:
        assert self.is_open
        self.is_open = False
        Shared.open_handles -= 1


async def test_callers_of_one_key_get_one_computation() -> None:
    """A hundred at once; one of them led; the next call computes anew."""
    calls = 0

    async def work() -> int:
        nonlocal calls
        calls += 1
        number = calls
        await asyncio.sleep(0.01)
        return number

    async with Flights[int]() as flights, asyncio.TaskGroup() as group:
        tasks = [group.create_task(flights.run(b"k", work)) for _ in range(100)]
        other = group.create_task(flights.run(b"other", work))
        await asyncio.wait(tasks)
        assert {1} == {task.result()[0] for task in tasks}
        assert 1 == sum(task.result()[1] for task in tasks)
        assert (2, True) == await other
        assert (3, True) == await flights.run(b"k", work)
        assert 0 == len(flights)
    assert (3, 99) == (flights.led, flights.joined)


async def test_a_failure_is_the_outcome_of_every_caller_and_ends_nothing_else() -> None:
    """The group goes on."""

    async def fail() -> int:
        await asyncio.sleep(0)
        raise NotFound("gone")

    async def succeed() -> int:
        return 7

    async with Flights[int]() as flights:
        outcomes = await asyncio.gather(*(flights.run(b"k", fail) for _ in range(3)), return_exceptions=True)
        assert [NotFound] * 3 == [type(outcome) for outcome in outcomes]
        assert (7, True) == await flights.run(b"k", succeed)


async def test_a_caller_that_is_cancelled_takes_nobody_with_it() -> None:
    """Not even the one who started it."""
    gate = asyncio.Event()

    async def work() -> str:
        await gate.wait()
        return "made"

    async with Flights[str]() as flights, asyncio.TaskGroup() as group:
        first = group.create_task(flights.run(b"k", work))
        second = group.create_task(flights.run(b"k", work))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        gate.set()
        assert ("made", False) == await second
    assert first.cancelled()


async def test_work_is_cancelled_when_nobody_waits_any_more() -> None:
    """And who comes then starts anew, also while the old work still tidies up."""
    entered, cancelled, tidied = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hang() -> str:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
            await tidied.wait()
        raise AssertionError

    async def make() -> str:
        return "made"

    async with Flights[str]() as flights, asyncio.TaskGroup() as group:
        callers = [group.create_task(flights.run(b"k", hang)) for _ in range(3)]
        await entered.wait()
        for caller in callers:
            assert not cancelled.is_set()
            caller.cancel()
            await asyncio.wait([caller])
        await cancelled.wait()
        assert ("made", True) == await flights.run(b"k", make)
        tidied.set()


async def test_each_caller_gets_a_handle_of_its_own_and_none_is_left() -> None:
    """Also those of callers that are cancelled before, and in the very turn in which the result lands."""
    gate = asyncio.Event()

    async def work() -> Shared:
        await gate.wait()
        return Shared()

    async with Flights[Shared](share=lambda _: Shared(), release=Shared.close) as flights:
        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(flights.run(b"k", work)) for _ in range(10)]
            await asyncio.sleep(0)
            callers[1].cancel()
            gate.set()
            while len(flights):
                await asyncio.sleep(0)
            callers[0].cancel()
            callers[2].cancel()
            await asyncio.wait(callers)
        handles = [caller.result()[0] for caller in callers if not caller.cancelled()]
        assert 7 == len(handles) == len({id(handle) for handle in handles})
        for handle in handles:
            handle.close()
    assert 0 == Shared.open_handles


async def test_a_handle_that_cannot_be_made_fails_its_own_caller_only() -> None:
    """The others get theirs, and nobody waits for ever."""

    def share(result: str) -> str:
        raise Overloaded("no descriptor left")

    async def work() -> str:
        await asyncio.sleep(0)
        return "made"

    async with Flights[str](share=share) as flights, asyncio.timeout(5):
        outcomes = await asyncio.gather(*(flights.run(b"k", work) for _ in range(3)), return_exceptions=True)
    assert ("made", True) == outcomes[0]
    assert [Overloaded, Overloaded] == [type(outcome) for outcome in outcomes[1:]]


async def test_the_end_cancels_what_still_flies_and_its_callers() -> None:
    """No task outlives the group; a closed one refuses."""
    cancelled = asyncio.Event()

    async def hang() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with asyncio.TaskGroup() as group:
        async with Flights[str]() as flights:
            caller = group.create_task(flights.run(b"k", hang))
            await asyncio.sleep(0.01)
        assert cancelled.is_set()
        await asyncio.wait([caller])
    assert caller.cancelled()
    with pytest.raises(RuntimeError):
        await flights.run(b"k", hang)


def node_flights(folder: Path, flights_max: int = 512) -> NodeFlights[str]:
    return NodeFlights(LockFile(folder / "locks"), flights_max=flights_max)


async def test_what_look_finds_is_not_made(tmp_path: Path) -> None:
    """Nobody led then."""

    async def look() -> str:
        return "found"

    async def work() -> str:
        raise AssertionError

    async with node_flights(tmp_path) as flights:
        assert ("found", False) == await flights.run(b"k", look, work)
    assert (0, 1) == (flights.led, flights.found)


async def test_two_flights_objects_on_one_file_make_it_once(tmp_path: Path) -> None:
    """As two processes would: the second waits, looks again and finds."""
    made: list[str] = []

    async def look() -> str | None:
        return made[0] if made else None

    async def work() -> str:
        await asyncio.sleep(0.02)
        made.append("made")
        return "made"

    async with node_flights(tmp_path) as here, node_flights(tmp_path) as there:
        outcomes = await asyncio.gather(*(side.run(b"k", look, work) for side in (here, there) for _ in range(5)))
    assert {"made"} == {result for result, _ in outcomes}
    assert 1 == sum(led for _, led in outcomes) == len(made)
    assert 8 == here.joined + there.joined


async def test_a_failure_gives_the_byte_back(tmp_path: Path) -> None:
    """The other process may try at once."""

    async def look() -> None:
        return None

    async def fail() -> str:
        raise NotFound("gone")

    locks = LockFile(tmp_path / "locks")
    async with NodeFlights[str](locks) as flights:
        with pytest.raises(NotFound):
            await flights.run(b"k", look, fail)
        assert 0 == locks.held


async def test_too_many_keys_are_refused_but_never_a_flight_inside_a_flight(tmp_path: Path) -> None:
    """A variant's flight needs its original's: if that waited for a place, all places could wait for it."""
    gate = asyncio.Event()

    async def look() -> None:
        return None

    async def inner() -> str:
        await gate.wait()
        return "original"

    async with node_flights(tmp_path, flights_max=3) as flights, asyncio.TaskGroup() as group:

        async def outer() -> str:
            return (await flights.run(b"original", look, inner))[0]

        callers = [group.create_task(flights.run(b"v%d" % n, look, outer)) for n in range(3)]
        while flights.joined < 2:
            await asyncio.sleep(0.001)
        with pytest.raises(Overloaded):
            await flights.run(b"v3", look, outer)
        gate.set()
        assert {"original"} == {(await caller)[0] for caller in callers}
        assert ("original", True) == await flights.run(b"v3", look, outer)
    assert 1 == flights.refused


def test_offsets_fit_the_kernel_and_differ() -> None:
    """62 bits; the same key gives the same byte in every process."""
    offsets = {offset(b"%d" % number) for number in range(10_000)}

    assert 10_000 == len(offsets)
    assert max(offsets) < 2**62
    assert offset(b"key") == offset(b"key")


async def start(folder: Path, what: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROCESS, str(folder), what, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().strip()


async def test_four_processes_with_twenty_callers_each_make_it_once(tmp_path: Path) -> None:
    """Eighty callers, one work, one leader."""
    processes = [await start(tmp_path, "make") for _ in range(4)]
    outputs = [(await process.communicate())[0].decode().split("\n") for process in processes]
    summaries = [output[-2].split() for output in outputs]

    assert [["made", "20"]] * 4 == [[result, count] for result, _, count in summaries]
    assert 1 == sum(int(led) for _, led, _ in summaries)
    assert 1 == len((tmp_path / "works").read_text().split())


async def test_another_process_takes_over_when_the_leader_is_killed(tmp_path: Path) -> None:
    """Kill -9 in the middle of the work: the waiting process does it, at once."""
    leader = await start(tmp_path, "hang")
    assert "working" == await line(leader)
    follower = await start(tmp_path, "make")
    locks = LockFile(tmp_path / "locks")
    assert locks.is_locked(offset(b"key"))
    leader.kill()
    assert -signal.SIGKILL == await leader.wait()

    assert "working" == await line(follower)
    assert "made 1 20" == await line(follower)
    assert [str(leader.pid), str(follower.pid)] == (tmp_path / "works").read_text().split()
    assert 0 == await follower.wait()
