"""The durable log."""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from imgserve.adapters.invalidation.database import NOT_NUMBERED, LogFile
from imgserve.adapters.invalidation.log import SqliteInvalidationLog, replay
from imgserve.core import invalidation
from imgserve.core.errors import Overloaded
from imgserve.core.invalidation import Entry, Result, Rule, Scope, State
from imgserve.core.originals import ImageId, ImageRef, PlanKey
from imgserve.disk import files
from imgserve.disk.slots import NUMBERS_PER_S

THIS, OTHER = ImageId("a" * 16), ImageId("b" * 16)
PLAN, ANOTHER = PlanKey("p" * 26), PlanKey("q" * 26)
NAMES = ("o-main", "o-abcdefghijklmnop", f"v-{PLAN}.webp", f"v-{PLAN}.any", f"v-{ANOTHER}.avif")
RULES = (
    Rule(),
    Rule(image_id=THIS),
    Rule(image_id=OTHER),
    Rule(image_id=THIS, plan_key=PLAN),
    Rule(image_id=THIS, plan_key=ANOTHER),
    Rule(image_id=OTHER, plan_key=PLAN),
)


def entry(*rules: Rule, tenant: str = "demo", at_us: int = 1_000) -> Entry:
    return Entry(tenant=tenant, uuid=str(uuid.uuid4()), at_us=at_us, scope=Scope.URLS, rules=rules)


def results(sequence: int, *rules: Rule, state: State = State.DONE) -> list[Result]:
    return [Result(rule=rule, sequence=sequence, state=state, removed_files=2, removed_bytes=30) for rule in rules]


@pytest.fixture
async def new_log(tmp_path: Path) -> AsyncIterator[Callable[..., SqliteInvalidationLog]]:
    """Logs in the test's folder; their threads end with the test, however it ends."""
    opened: list[SqliteInvalidationLog] = []

    def new(**options: Any) -> SqliteInvalidationLog:
        opened.append(SqliteInvalidationLog(tmp_path, **options))
        return opened[-1]

    yield new
    for log in opened:
        await log.close()


@pytest.fixture
def log(new_log: Any) -> Any:
    """One log."""
    return new_log()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NAMES)
async def test_the_log_names_what_the_rule_names(log: Any, rule: Rule, name: str) -> None:
    """The query and ``core.invalidation.names`` agree on every rule and file; other tenants are never touched."""
    accepted = entry(rule)
    image = ImageRef(tenant="demo", id=THIS)
    expected = invalidation.names(rule, THIS, name)
    await log.append(accepted)
    assert expected == await log.was_named(image, name, 10**15)  # not numbered yet: newer than every stamp
    await log.complete("demo", accepted.uuid, results(50, rule))

    assert [expected, False, False] == [await log.was_named(image, name, since) for since in (49, 50, 51)]
    assert not await log.was_named(ImageRef(tenant="other", id=THIS), name, 0)


async def test_the_newest_rule_counts(log: Any) -> None:
    """Named by any rule after the stamp, however many older or foreign ones there are."""
    for sequence, rule in enumerate(
        (Rule(image_id=THIS), Rule(image_id=OTHER), Rule(image_id=THIS, plan_key=PLAN)), start=10
    ):
        accepted = entry(rule)
        await log.append(accepted)
        await log.complete("demo", accepted.uuid, results(sequence, rule))
    image = ImageRef(tenant="demo", id=THIS)

    assert [True, False] == [await log.was_named(image, "v-other.webp", since) for since in (9, 10)]
    assert [True, True, False] == [await log.was_named(image, f"v-{PLAN}.webp", since) for since in (9, 11, 12)]


async def test_looking_makes_no_file(log: Any, tmp_path: Path) -> None:
    """A tenant that never invalidated anything has no log, and gets none."""
    assert not await log.was_named(ImageRef(tenant="demo", id=THIS), "o-main", 0)
    assert await log.progress("demo", "no such uuid") is None
    assert [] == list(tmp_path.iterdir())


def log_path(folder: Path, tenant: str = "demo") -> Path:
    return folder / "tenants" / tenant / "invalidations.db"


def damage(path: Path, size_bytes: int = 8192) -> None:
    """Overwrite the beginning of the file, as a dying disk does."""
    with path.open("r+b") as file:
        file.write(random.Random(0).randbytes(size_bytes))


async def test_a_log_that_cannot_be_read_names_everything(new_log: Any, tmp_path: Path) -> None:
    """A file too many is made anew; none is served that is gone. Also when the map is rebuilt."""
    log_path(tmp_path).mkdir(parents=True)  # no file at all, and so not to be replaced either
    unreadable = new_log()

    assert await unreadable.was_named(ImageRef(tenant="demo", id=THIS), "o-main", 10**15)
    assert 1 == unreadable.lookups_failed
    assert [("demo", None, 1_001 * NUMBERS_PER_S)] == list(replay(tmp_path, 1_000))
    for refused in (unreadable.append(entry(Rule())), unreadable.progress("demo", "uuid")):
        with pytest.raises(Overloaded):
            await refused


@pytest.mark.parametrize("content", [b"", b"this is no database" * 100, None], ids=["empty", "foreign", "overwritten"])
async def test_a_damaged_log_is_replaced_when_the_node_starts(
    log: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    """The new one names all of its tenant, is told of once, and what the old one held is put aside under a dot-name."""
    await log.append(entry(Rule(image_id=THIS)))
    await log.close()
    if content is None:
        damage(log_path(tmp_path))
    else:
        log_path(tmp_path).write_bytes(content)
    damaged = log_path(tmp_path).read_bytes()

    assert [("demo", None, 1_001 * NUMBERS_PER_S)] * 2 == [*replay(tmp_path, 1_000), *replay(tmp_path, 1_000)]
    assert ["invalidation_log_damaged"] == [record.message for record in caplog.records]
    (aside,) = tmp_path.glob("tenants/demo/.*-damaged")
    assert damaged == (aside / "invalidations.db").read_bytes()
    assert await log.was_named(ImageRef(tenant="demo", id=OTHER), "o-main", 10**15)
    assert [(Rule(),)] == [found.rules for found in await log.unfinished(int(1_000 * 1e6) - 30_000_000)]
    assert 1 == files.sweep(str(tmp_path / "tenants"))


@pytest.mark.parametrize(
    "statement",
    ["UPDATE rules SET seq = 9223372036854775806", "UPDATE rules SET image_id = '0'", "UPDATE rules SET image_id = ''"],
)
async def test_rows_that_no_node_has_written_are_damage(log: Any, tmp_path: Path, statement: str) -> None:
    """A number that was never given out, or an id that is none, does not end the start."""
    await log.append(entry(Rule(image_id=THIS)))
    with contextlib.closing(sqlite3.connect(log_path(tmp_path))) as connection, connection:
        connection.execute(statement)

    assert [("demo", None, 101 * NUMBERS_PER_S)] == list(replay(tmp_path, 100))


USES: dict[str, Callable[[SqliteInvalidationLog], Any]] = {
    "append": lambda log: log.append(entry(Rule(image_id=OTHER))),
    "complete": lambda log: log.complete("demo", "uuid", results(7, Rule())),
    "was_named": lambda log: log.was_named(ImageRef(tenant="demo", id=OTHER), "o-main", 10**15),
    "progress": lambda log: log.progress("demo", "uuid"),
    "unfinished": lambda log: log.unfinished(10**18),
    "compact": lambda log: log.compact(0),
}


@pytest.mark.parametrize("use", USES)
async def test_a_damaged_log_is_replaced_at_its_first_use(
    new_log: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, use: str
) -> None:
    """Whoever meets the damage heals it, and gets an answer; from then on all is named, and accepted."""
    first, second = new_log(), new_log()
    await first.append(entry(Rule(image_id=THIS)))
    await first.close()
    damage(log_path(tmp_path))
    await USES[use](second)

    assert ["invalidation_log_damaged"] == [record.message for record in caplog.records]
    assert await first.was_named(ImageRef(tenant="demo", id=OTHER), "o-main", 10**15)
    accepted = entry(Rule(image_id=THIS))
    await first.append(accepted)
    assert State.PENDING is (await second.progress("demo", accepted.uuid)).state


async def test_who_has_the_damaged_log_open_writes_into_the_new_one(new_log: Any, tmp_path: Path) -> None:
    """A row in the file that was put aside would be read by nobody."""
    old, other = new_log(), new_log()
    await old.append(entry(Rule(image_id=THIS)))
    await old.close()  # all is in the file now, and nothing in its WAL
    await old.progress("demo", "uuid")
    damage(log_path(tmp_path))
    await other.append(entry(Rule(image_id=THIS)))
    accepted = entry(Rule(image_id=OTHER))
    await old.append(accepted)

    assert accepted.uuid in {found.uuid for found in await other.unfinished(10**18)}
    assert await old.was_named(ImageRef(tenant="demo", id=ImageId("c" * 16)), "o-main", 10**15)


async def test_a_row_that_went_into_a_replaced_log_is_written_again(log: Any, tmp_path: Path) -> None:
    """The log is put aside while the writer waits for its turn in it: what it was told it wrote, all can read."""
    await log.append(entry(Rule(image_id=THIS)))
    file = LogFile(log_path(tmp_path))
    accepted = entry(Rule(image_id=OTHER))
    with contextlib.closing(file.connect()) as connection:
        connection.execute("BEGIN IMMEDIATE")
        writing = asyncio.ensure_future(log.append(accepted))
        await asyncio.sleep(0.2)
        assert not writing.done()
        file.replace("test", 1_000)
        connection.execute("COMMIT")
        await writing

    assert accepted.uuid in {found.uuid for found in await log.unfinished(10**18)}


def test_a_log_is_replaced_once(tmp_path: Path) -> None:
    """Of two that found the same damage the second leaves the new log as it is."""
    first, second = LogFile(log_path(tmp_path)), LogFile(log_path(tmp_path))
    for file in (first, second):
        file.connect().close()
    first.replace("test", 1_000)
    with contextlib.closing(first.connect()) as connection:
        before = connection.execute("SELECT uuid FROM rules").fetchall()
    second.replace("test", 1_000)
    with contextlib.closing(second.connect()) as connection:
        assert before == connection.execute("SELECT uuid FROM rules").fetchall()


async def test_a_log_that_vanishes_under_its_user_is_not_begun_empty(log: Any, tmp_path: Path) -> None:
    """An operator who removes the file by hand gets back no image that was gone."""
    await log.append(entry(Rule(image_id=THIS)))
    log_path(tmp_path).unlink()
    await log.append(entry(Rule(image_id=THIS)))

    assert await log.was_named(ImageRef(tenant="demo", id=OTHER), "o-main", 10**15)


HEALER = """
import asyncio, sys
from pathlib import Path
from imgserve.adapters.invalidation.log import SqliteInvalidationLog
from imgserve.core.invalidation import Entry, Rule, Scope
from imgserve.core.originals import ImageId

async def main():
    log = SqliteInvalidationLog(Path(sys.argv[1]))
    sys.stdin.readline()
    for number in range(20):
        entry = Entry(tenant="demo", uuid=f"{sys.argv[2]}-{number}", at_us=1, scope=Scope.ORIGINAL,
                      rules=(Rule(image_id=ImageId("a" * 16)),))
        await log.append(entry)
    await log.close()

asyncio.run(main())
"""


def append_from_processes(folder: Path) -> list[int]:
    """Have four processes append 20 rows each, all at once; their exit statuses."""
    healers = [
        subprocess.Popen([sys.executable, "-c", HEALER, str(folder), str(number)], stdin=subprocess.PIPE)
        for number in range(4)
    ]
    for healer in healers:
        assert healer.stdin is not None
        healer.stdin.write(b"\n")
        healer.stdin.close()
    return [healer.wait() for healer in healers]


async def test_processes_that_meet_the_damage_at_once_agree_on_one_new_log(log: Any, tmp_path: Path) -> None:
    """One of them replaces it, and no row that was accepted is in the wrong file."""
    await log.append(entry(Rule(image_id=THIS)))
    await log.close()
    damage(log_path(tmp_path))

    assert [0] * 4 == await asyncio.to_thread(append_from_processes, tmp_path)

    found = {accepted.uuid for accepted in await log.unfinished(10**18)}
    assert {f"{healer}-{number}" for healer in range(4) for number in range(20)} <= found
    assert 81 == len(found)
    assert 1 == len(list(tmp_path.glob("tenants/demo/.*-damaged")))


async def test_progress_adds_up(log: Any) -> None:
    """Pending until all is done; failed as long as anything is; counts summed; another tenant sees nothing."""
    rules = (Rule(image_id=THIS), Rule(image_id=OTHER, plan_key=PLAN))
    accepted = entry(*rules)
    await log.append(accepted)
    seen = [await log.progress("demo", accepted.uuid)]
    for state in (State.FAILED, State.DONE):
        await log.complete("demo", accepted.uuid, results(7, rules[0], state=state))
        seen.append(await log.progress("demo", accepted.uuid))
    await log.complete("demo", accepted.uuid, results(8, rules[1]))
    seen.append(await log.progress("demo", accepted.uuid))

    assert [State.PENDING, State.FAILED, State.PENDING, State.DONE] == [found.state for found in seen]
    assert [(0, 0), (2, 30), (4, 60), (6, 90)] == [(found.removed_files, found.removed_bytes) for found in seen]
    assert await log.progress("other", accepted.uuid) is None


async def test_what_is_unfinished_is_found_again(log: Any) -> None:
    """Only the rules that are left, only up to the time asked for, of every tenant."""
    rules = (Rule(image_id=THIS), Rule(image_id=OTHER, plan_key=PLAN))
    half, young, other = entry(*rules), entry(Rule(), at_us=9_000), entry(Rule(), tenant="other")
    for accepted in (half, young, other):
        await log.append(accepted)
    await log.complete("demo", half.uuid, results(7, rules[0]))

    assert {half.uuid: rules[1:], other.uuid: (Rule(),)} == {
        found.uuid: found.rules for found in await log.unfinished(8_999)
    }


async def test_compaction_forgets_and_overwrites(log: Any, tmp_path: Path) -> None:
    """Rows past their term are gone from the file's bytes; younger ones stay."""
    old, young = entry(Rule(image_id=THIS), at_us=1_000), entry(Rule(image_id=OTHER), at_us=2_000)
    for accepted in (old, young):
        await log.append(accepted)
        await log.complete("demo", accepted.uuid, results(7, *accepted.rules))

    assert 1 == await log.compact(2_000)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("invalidations.db*"))
    assert (False, True) == (THIS.encode() in written, OTHER.encode() in written)
    assert (False, True) == (old.uuid.encode() in written, young.uuid.encode() in written)


async def test_replay_gives_the_map_its_rows(log: Any, tmp_path: Path) -> None:
    """The newest number of each image; one above all numbers given out for what has none."""
    for sequence in (5, 9):
        accepted = entry(Rule(image_id=THIS), Rule(image_id=THIS, plan_key=PLAN))
        await log.append(accepted)
        await log.complete("demo", accepted.uuid, results(sequence, *accepted.rules))
    await log.append(entry(Rule(image_id=OTHER)))
    await log.append(entry(Rule(), tenant="other"))

    assert {("demo", THIS, 9), ("demo", OTHER, 101 * NUMBERS_PER_S), ("other", None, 101 * NUMBERS_PER_S)} == set(
        replay(tmp_path, 100)
    )


async def test_every_connection_keeps_its_promises(log: Any, tmp_path: Path) -> None:
    """FULL, WAL and secure_delete on the connections that write; mode 0600."""
    await log.append(entry(Rule()))
    connection = log._handles["demo"].connection
    found = []
    for pragma in ("synchronous", "journal_mode", "secure_delete"):
        async with connection.execute(f"PRAGMA {pragma}") as cursor:
            found.append((await cursor.fetchone())[0])

    assert [2, "wal", 1] == found
    assert {0o600} == {path.stat().st_mode & 0o777 for path in tmp_path.rglob("invalidations.db*")}


async def test_handles_are_bounded_also_under_load(new_log: Any) -> None:
    """Twenty tenants at once over three handles: everything is written, and no more stay open."""
    log = new_log(handles_max=3)
    async with asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(log.append(entry(Rule(), tenant=f"t{number % 20}")))
            group.create_task(log.was_named(ImageRef(tenant=f"t{number % 20}", id=THIS), "o-main", 0))
    assert len(log._handles) <= 3

    assert 60 == len(await log.unfinished(10**18))
    await log.close()
    await log.close()


async def test_a_cancelled_append_is_whole_or_not_there(log: Any) -> None:
    """A caller that goes away at any point leaves all rules of its request or none, and the handle is usable."""
    rules = tuple(Rule(image_id=ImageId(f"{number:016}")) for number in range(40))
    await log.append(entry(Rule()))
    for steps in range(12):
        task = asyncio.ensure_future(log.append(entry(*rules)))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await log.append(entry(*rules))

    assert {1, 40} == {len(found.rules) for found in await log.unfinished(10**18)}


WRITER = """
import asyncio, sys, uuid
from pathlib import Path
from imgserve.adapters.invalidation.log import SqliteInvalidationLog
from imgserve.core.invalidation import Entry, Rule, Scope
from imgserve.core.originals import ImageId

async def main():
    log = SqliteInvalidationLog(Path(sys.argv[1]))
    for number in range(1_000_000):
        rules = tuple(Rule(image_id=ImageId(f"{number:08}{place:08}")) for place in range(10))
        await log.append(Entry(tenant="demo", uuid=str(number), at_us=number, scope=Scope.ORIGINAL, rules=rules))
        print(number, flush=True)

asyncio.run(main())
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """Every request that returned is there, whole; at most one more."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, env=dict(os.environ)
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(30)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.read().splitlines()
    process.wait()
    process.stdout.close()
    connection = sqlite3.connect(tmp_path / "tenants" / "demo" / "invalidations.db")
    found = dict(connection.execute("SELECT uuid, count(*) FROM rules GROUP BY uuid").fetchall())
    (least,) = connection.execute("SELECT min(seq) FROM rules").fetchone()
    connection.close()

    assert {10} == set(found.values())
    assert int(lines[-1]) + 1 <= len(found) <= int(lines[-1]) + 2
    assert NOT_NUMBERED == least


@pytest.mark.parametrize("tenant", ["..", "a/b", "", "../other", "A"])
async def test_only_names_of_tenants_are_paths(log: Any, tenant: str) -> None:
    """A name that would lead elsewhere is refused."""
    with pytest.raises(ValueError, match="tenant"):
        await log.append(entry(Rule(), tenant=tenant))
