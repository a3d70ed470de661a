"""Requests by way of the keeper's socket, over the real one."""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path

import pytest

from imgserve.adapters.accesslog.remote import RemoteSubjects, SubjectServer
from imgserve.core.errors import BadRequest, Overloaded
from imgserve.core.subjects import Day, Obstacle, Row, Search

DAY = date(2026, 11, 23)
SEARCH = Search(
    tenant="demo", first=DAY, last=DAY + timedelta(days=1), names={DAY: {1: b"a" * 16, 2**32 - 1: b"b" * 16}}
)


class Told:
    """A store that answers what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Search]] = []
        self.days = [
            Day(day=DAY, rows=3, rows_without_key=2, obstacles=(Obstacle.BUSY, Obstacle.KEY_MISSING)),
            Day(day=DAY + timedelta(days=1), rows=0),
        ]
        self.portions: list[list[Row]] = [
            [{"at_s": number, "operations": "ä" * 512} for number in range(101)],
            [{"at_s": 1}],
        ]
        self.failure: Exception | None = None

    async def count(self, search: Search) -> AsyncGenerator[Day, None]:
        self.asked.append(("count", search))
        for day in self.days:
            yield day
        if self.failure is not None:
            raise self.failure

    async def rows(self, search: Search) -> AsyncGenerator[Sequence[Row], None]:
        self.asked.append(("rows", search))
        for rows in self.portions:
            yield rows

    async def erase(self, search: Search) -> AsyncGenerator[Day, None]:
        self.asked.append(("erase", search))
        yield self.days[1]


@pytest.fixture
def store() -> Told:
    return Told()


@asynccontextmanager
async def serving(
    folder: Path, store: Told, settle: Callable[[], bool] = lambda: True
) -> AsyncIterator[RemoteSubjects]:
    """A running server, and who asks it."""

    async def settled() -> bool:
        return settle()

    server = SubjectServer(folder, store, settled)
    server.listen()
    task = asyncio.ensure_future(server.run())
    try:
        yield RemoteSubjects(folder)
    finally:
        task.cancel()
        await asyncio.wait([task])
        server.close()


async def test_what_is_asked_arrives_and_what_is_answered_comes_back(tmp_path: Path, store: Told) -> None:
    """All three kinds, whole and in order, one after the other."""
    async with serving(tmp_path, store) as remote:
        assert store.days == [day async for day in remote.count(SEARCH)]
        assert [row for rows in store.portions for row in rows] == [
            row async for rows in remote.rows(SEARCH) for row in rows
        ]
        assert [store.days[1]] == [day async for day in remote.erase(SEARCH)]

    assert [("count", SEARCH), ("rows", SEARCH), ("erase", SEARCH)] == store.asked


async def test_nothing_is_done_before_the_log_is_up_to_date(tmp_path: Path, store: Told) -> None:
    """A request that can't cover what came before it is refused, not half answered."""
    async with serving(tmp_path, store, lambda: False) as remote:
        with pytest.raises(Overloaded, match="up to date"):
            _ = [day async for day in remote.erase(SEARCH)]
    assert [] == store.asked


async def test_an_answer_without_its_end_has_failed(tmp_path: Path, store: Told) -> None:
    """Whatever came before; the server goes on with the next request."""
    store.failure = RuntimeError("203.0.113.9")
    async with serving(tmp_path, store) as remote:
        with pytest.raises(Overloaded, match="went away"):
            _ = [day async for day in remote.count(SEARCH)]
        assert [store.days[1]] == [day async for day in remote.erase(SEARCH)]


async def test_who_asks_nonsense_or_goes_away_ends_nothing(tmp_path: Path, store: Told) -> None:
    """Strange packets, an early hang-up, and somebody who leaves in the middle."""
    async with serving(tmp_path, store) as remote:
        for packet in (b"", b"\xff", b"nonsense"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
                stranger.connect(str(tmp_path / "keeper.sock"))
                stranger.send(packet)
        leaving = remote.rows(SEARCH)
        await anext(leaving)
        await leaving.aclose()
        assert [store.days[1]] == [day async for day in remote.erase(SEARCH)]


async def test_nobody_there(tmp_path: Path, store: Told) -> None:
    """No socket, one that a killed keeper left, and a new keeper in its place; a clean end leaves none."""
    remote = RemoteSubjects(tmp_path)
    assert not remote.is_there()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as killed:
        killed.bind(str(tmp_path / "keeper.sock"))
    assert not remote.is_there()
    with pytest.raises(Overloaded, match="reached"):
        _ = [day async for day in remote.count(SEARCH)]
    async with serving(tmp_path, store):
        assert remote.is_there()
        assert [store.days[1]] == [day async for day in remote.erase(SEARCH)]
    assert [] == os.listdir(tmp_path)


async def test_any_folder_will_do(tmp_path: Path, store: Told) -> None:
    """However long its path, which the kernel would not take as a socket's."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    async with serving(deep, store) as remote:
        assert [store.days[1]] == [day async for day in remote.erase(SEARCH)]


async def test_more_keys_than_a_packet_holds(tmp_path: Path, store: Told) -> None:
    """A year of days with three keys each is asked for at once; a period with too many is refused with the reason."""

    def with_keys(number: int) -> Search:
        days = {DAY + timedelta(days=day): {key: os.urandom(16) for key in range(number)} for day in range(366)}
        return Search(tenant="demo", first=DAY, last=DAY + timedelta(days=365), names=days)

    async with serving(tmp_path, store) as remote:
        assert [store.days[1]] == [day async for day in remote.erase(with_keys(3))]
        with pytest.raises(BadRequest, match="shorter"):
            _ = [day async for day in remote.erase(with_keys(30))]
    assert [("erase", 366)] == [(what, len(search.names)) for what, search in store.asked]
