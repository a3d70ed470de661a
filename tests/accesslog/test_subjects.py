"""A subject's rows: found under every key, shown as the catalogue says, erased to the last byte or not called so."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgserve.adapters.accesslog import schema, subjects
from imgserve.adapters.accesslog.subjects import DayFileSubjects
from imgserve.core import privacy
from imgserve.core import subjects as rights
from imgserve.core.subjects import Day, Obstacle, Row, Search

TODAY = date(2026, 11, 23)
SUBJECT, OTHER = "203.0.113.9", "203.0.113.10"


@pytest.fixture
def store(node: Any) -> DayFileSubjects:
    """The node's rows; it does not wait long for who is in the way."""
    return DayFileSubjects(node.settings, node.day_files, busy_patience_s=0.1)


@pytest.fixture
def write(node: Any, event: Any) -> Callable[..., None]:
    """Writes that many rows of a visitor, by both sides of the log."""

    def make(visitor: str, rows: int, *, days_ago: int = 0, tenant: str = "demo") -> None:
        for number in range(rows):
            at_s = int(node.clock.wall_s) - days_ago * 86_400
            node.recorder.record(event(visitor, at_s=at_s, operations=f"w={number}", tenant=tenant))
        node.deliver()

    return make


def search_of(node: Any, visitor: str = SUBJECT, *, first: date = TODAY, last: date = TODAY) -> Search:
    asked = rights.request(visitor, first, last, is_dry_run=False)
    return rights.search("demo", asked, node.keys.held("demo", first, last))


async def counted(store: DayFileSubjects, search: Search) -> list[Day]:
    return [day async for day in store.count(search)]


async def exported(store: DayFileSubjects, search: Search) -> list[Row]:
    return [row async for rows in store.rows(search) for row in rows]


async def erased(store: DayFileSubjects, search: Search) -> list[Day]:
    return [day async for day in store.erase(search)]


def holds(node: Any, search: Search) -> bool:
    """Whether any file of the log has one of the pseudonyms; its own way of looking."""
    folder = schema.folder(node.settings.data_dir, "demo")
    names = [name for found in search.names.values() for name in found.values()]
    return any(name in path.read_bytes() for path in folder.iterdir() for name in names)


@contextmanager
def reader(path: Path) -> Iterator[None]:
    """Another process that has the file open and is reading it."""
    script = (
        "import sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1])\n"
        "database.execute('BEGIN')\n"
        "database.execute('SELECT * FROM requests').fetchone()\n"
        "print('reading', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert b"reading\n" == process.stdout.readline()
        yield
        assert process.stdin is not None
        process.stdin.close()


# ---- finding and showing -------------------------------------------------------------------------


async def test_rows_are_found_under_every_key_of_each_day(node: Any, store: Any, write: Any) -> None:
    """Replaced keys too; other visitors, tenants and days are not counted."""
    write(SUBJECT, 3, days_ago=1)
    write(SUBJECT, 2)
    node.keys.rotate("demo", TODAY)
    write(SUBJECT, 4)
    write(OTHER, 5)
    write(SUBJECT, 6, tenant="other")
    yesterday = TODAY - timedelta(days=1)

    assert [Day(day=yesterday, rows=3), Day(day=TODAY, rows=6)] == await counted(
        store, search_of(node, first=yesterday)
    )
    assert [Day(day=TODAY, rows=5)] == await counted(store, search_of(node, OTHER))
    assert [Day(day=TODAY, rows=0)] == await counted(store, search_of(node, "::1"))
    assert [] == await counted(store, search_of(node, first=date(2026, 1, 1), last=date(2026, 1, 31)))


async def test_an_export_shows_what_the_catalogue_says(node: Any, store: Any, write: Any) -> None:
    """Every exported column and no other, in the order of writing, as JSON can hold it."""
    write(SUBJECT, 3)
    write(OTHER, 1)
    rows = await exported(store, search_of(node))

    columns = [name for name, column in privacy.CATALOGUE["accesslog.requests"].items() if column.personal != "none"]
    assert [columns] * 3 == [list(row) for row in rows]
    assert ["w=0", "w=1", "w=2"] == [row["operations"] for row in rows]
    assert [next(iter(search_of(node).names[TODAY].values())).hex()] * 3 == [row["pseudonym"] for row in rows]
    assert rows == json.loads(json.dumps(rows))


async def test_a_long_file_is_read_in_pieces(node: Any, store: Any, write: Any) -> None:
    """No portion is larger than the bound, and none is lost or doubled at its edges."""
    with closing(schema.open_for_writing(schema.day_file(node.settings.data_dir, "demo", TODAY))) as database:
        key = node.keys.key("demo", TODAY)
        name = privacy.pseudonym(rights.request(SUBJECT, TODAY, TODAY, is_dry_run=False).address16, key.secret)
        rows = ((number, name, key.id, "GET", "a", "", 200, 1, "hit", 1) for number in range(50_001))
        database.execute("BEGIN")
        database.executemany(schema.INSERT, rows)
        database.execute("COMMIT")
    portions = [rows async for rows in store.rows(search_of(node))]

    assert list(range(50_001)) == [row["at_s"] for rows in portions for row in rows]
    assert [20_000, 20_000, 10_001] == [len(rows) for rows in portions]
    assert [Day(day=TODAY, rows=50_001)] == await counted(store, search_of(node))
    assert [Day(day=TODAY, rows=50_001)] == await erased(store, search_of(node))
    assert not holds(node, search_of(node))


async def test_rows_of_a_lost_key_are_named(node: Any, store: Any, write: Any) -> None:
    """They can't be told to be the subject's or not: neither a count nor an erasure passes over them in silence."""
    write(SUBJECT, 2)
    os.unlink(node.settings.keys_dir / "demo" / "2026-11-23.key")
    write(SUBJECT, 3)
    expected = Day(day=TODAY, rows=3, rows_without_key=2, obstacles=(Obstacle.KEY_MISSING,))

    assert [expected] == await counted(store, search_of(node))
    assert [expected] == await erased(store, search_of(node))
    os.unlink(node.settings.keys_dir / "demo" / "2026-11-23.key")
    expected = Day(day=TODAY, rows=0, rows_without_key=2, obstacles=(Obstacle.KEY_MISSING,))
    assert [expected] == await erased(store, search_of(node))


async def test_a_damaged_file_is_named(node: Any, store: Any, write: Any) -> None:
    """It keeps no other day from being looked through, or erased."""
    write(SUBJECT, 2, days_ago=1)
    write(SUBJECT, 3)
    node.day_files.close()
    yesterday = TODAY - timedelta(days=1)
    schema.day_file(node.settings.data_dir, "demo", yesterday).write_bytes(b"no database" * 1000)
    search = search_of(node, first=yesterday)
    broken = Day(day=yesterday, rows=0, obstacles=(Obstacle.UNREADABLE,))

    assert [broken, Day(day=TODAY, rows=3)] == await counted(store, search)
    assert 3 == len(await exported(store, search))
    assert [broken, Day(day=TODAY, rows=3)] == await erased(store, search)


async def test_looking_makes_no_file(node: Any, store: Any, write: Any) -> None:
    """A day whose term ends between two looks does not come back."""
    write(SUBJECT, 1)
    search = search_of(node)
    assert [Day(day=TODAY, rows=1)] == await counted(store, search)
    node.clock.advance(30 * 86_400)
    node.retention().sweep()

    assert ([], 0) == (await erased(store, search), store._clear("demo", TODAY, search.names[TODAY])[0])
    with node.day_files.opened("demo", TODAY) as connection:
        assert connection is None
    assert [] == list(schema.folder(node.settings.data_dir, "demo").iterdir())


# ---- erasing -------------------------------------------------------------------------------------


async def test_nothing_is_left_of_the_subject_and_all_of_the_others(node: Any, store: Any, write: Any) -> None:
    """In the database, its WAL and its shared memory; the log goes on being written."""
    for _ in range(5):
        write(SUBJECT, 40)
        write(OTHER, 40)
    search = search_of(node)
    assert holds(node, search)

    assert [Day(day=TODAY, rows=200)] == await erased(store, search)
    assert not holds(node, search)
    assert [Day(day=TODAY, rows=200)] == await counted(store, search_of(node, OTHER))
    write(SUBJECT, 1)
    assert [Day(day=TODAY, rows=1)] == await counted(store, search)
    assert [Day(day=TODAY, rows=1)] == await erased(store, search)
    assert [Day(day=TODAY, rows=0)] == await erased(store, search)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(parts=st.lists(st.tuples(st.sampled_from([SUBJECT, OTHER, "::1"]), st.integers(1, 300)), max_size=12))
async def test_no_order_of_rows_leaves_a_byte(node: Any, store: Any, write: Any, parts: list[tuple[str, int]]) -> None:
    """However rows of several visitors lie between each other on the pages, and are erased one after the other."""
    for visitor, rows in parts:
        write(visitor, rows)
    for visitor in (SUBJECT, "::1"):
        search = search_of(node, visitor)
        for day in await erased(store, search):
            assert () == day.obstacles
        assert not parts or not holds(node, search)


async def test_what_came_meanwhile_goes_with_the_last_look(node: Any, store: Any, write: Any) -> None:
    """Between the pieces and the search the writer may have added rows, under numbers that were used before."""
    write(SUBJECT, 2)
    search = search_of(node)
    assert [Day(day=TODAY, rows=2)] == await erased(store, search)
    write(SUBJECT, 3)

    assert (3, set()) == store._clear("demo", TODAY, search.names[TODAY])
    assert not holds(node, search)


async def test_a_reader_in_the_way_is_not_called_done(node: Any, store: Any, write: Any) -> None:
    """While another process reads, older pages can't be overwritten: that is said, and true; later it can be done."""
    write(OTHER, 300)
    write(SUBJECT, 30)
    search = search_of(node)
    with reader(schema.day_file(node.settings.data_dir, "demo", TODAY)):
        (day,) = await erased(store, search)
        assert (30, {Obstacle.BUSY, Obstacle.BYTES_LEFT}) == (day.rows, set(day.obstacles))
        assert holds(node, search)
        assert [Day(day=TODAY, rows=0)] == await counted(store, search)
    assert [Day(day=TODAY, rows=0)] == await erased(store, search)
    assert not holds(node, search)


async def test_a_reader_that_ends_in_time_is_waited_for(node: Any, store: Any, write: Any) -> None:
    """A short look by somebody else costs a moment, not the receipt."""
    write(SUBJECT, 30)
    patient = DayFileSubjects(node.settings, node.day_files, busy_patience_s=20)
    search = search_of(node)
    async with asyncio.TaskGroup() as group:
        with reader(schema.day_file(node.settings.data_dir, "demo", TODAY)):
            erasing = group.create_task(erased(patient, search))
            while [Day(day=TODAY, rows=0)] != await counted(store, search):
                assert not erasing.done()
                await asyncio.sleep(0.01)
            assert not erasing.done()
    assert [Day(day=TODAY, rows=30)] == erasing.result()
    assert not holds(node, search)


async def test_the_bytes_decide(node: Any, store: Any, write: Any) -> None:
    """Rows deleted and checkpointed are not enough: a copy that no query of ours knows of is found all the same."""
    write(SUBJECT, 1)
    search = search_of(node)
    node.day_files.close()
    path = schema.day_file(node.settings.data_dir, "demo", TODAY)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA secure_delete = ON")
        database.execute("CREATE TABLE copies (name BLOB)")
        database.execute("INSERT INTO copies SELECT pseudonym FROM requests")
    assert [Day(day=TODAY, rows=1, obstacles=(Obstacle.BYTES_LEFT,))] == await erased(store, search)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA secure_delete = ON")
        database.execute("DROP TABLE copies")
    assert [Day(day=TODAY, rows=0)] == await erased(store, search)


def test_bytes_are_found_across_the_edge_of_two_pieces(tmp_path: Path) -> None:
    """Wherever the file is cut for reading; a file that is not there holds nothing."""
    name = os.urandom(16)
    path = tmp_path / "file"
    for before in range(subjects._SEARCH_BYTES - 17, subjects._SEARCH_BYTES + 2):
        path.write_bytes(bytes(before) + name + b"end")
        assert subjects._holds(path, [b"x" * 16, name])
        assert not subjects._holds(path, [name[::-1]])
    assert not subjects._holds(tmp_path / "absent", [name])
