"""The keeper's side of the log."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from imgserve.adapters.accesslog import schema
from imgserve.core.addresses import canonical16


def rows(path: Path) -> list[tuple[Any, ...]]:
    """What the file holds, seen by a reader of its own."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT * FROM requests ORDER BY rowid").fetchall()
    finally:
        connection.close()


def packet(number: int, *groups: tuple[str, int, list[schema.Row]]) -> bytes:
    """A batch as a front would send it."""
    made = [schema.Group(tenant=tenant, day=day, rows=given) for tenant, day, given in groups]
    return msgspec.msgpack.encode(schema.Batch(version=schema.BATCH_VERSION, id=number, groups=made))


def row(at_s: int, status: int = 200) -> schema.Row:
    return (at_s, bytes(16), 7, "GET", "abcdefgh234567ab", "w=1", status, 10, "hit", 5)


def test_rows_lie_in_the_file_of_their_tenant_and_day(node: Any, event: Any) -> None:
    """One file per tenant and UTC day, mode 0600, that says its schema's version."""
    for seen in (event(), event(tenant="other"), event(at_s=event().at_s - 86_400), event(operations="w=9")):
        node.recorder.record(seen)
    node.deliver()
    tenants = node.settings.data_dir / "tenants"
    files = sorted(str(path.relative_to(tenants)) for path in tenants.glob("*/accesslog/*.db"))

    assert ["demo/accesslog/2026-11-22.db", "demo/accesslog/2026-11-23.db", "other/accesslog/2026-11-23.db"] == files
    assert ["w=200", "w=9"] == [found[5] for found in rows(tenants / files[1])]
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in tenants.glob("*/accesslog/*")}
    assert (1,) == sqlite3.connect(tenants / files[0]).execute("PRAGMA user_version").fetchone()
    assert (4, 0) == (node.day_files.rows_written, node.day_files.rows_failed)


def test_the_open_day_has_no_index(node: Any, event: Any) -> None:
    """A row costs one insert and nothing else."""
    node.recorder.record(event())
    node.deliver()
    connection = sqlite3.connect(schema.day_file(node.settings.data_dir, "demo", date(2026, 11, 23)))

    assert [] == connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'").fetchall()
    connection.close()


def test_no_file_holds_an_address(node: Any, event: Any) -> None:
    """Not as text, packed, hexadecimal or decimal; in no database, WAL, key or other file, open or closed."""
    addresses = ["203.0.113.9", "198.51.100.201", "2001:db8:77::1234", "::ffff:192.0.2.44"]
    for number in range(400):
        node.recorder.record(event(addresses[number % 4], tenant=f"t{number % 3}"))
    node.deliver()
    node.retention().sweep()
    written = [
        path
        for folder in (node.settings.data_dir, node.settings.keys_dir)
        for path in folder.rglob("*")
        if path.is_file()
    ]
    before = {path: path.read_bytes() for path in written}
    node.day_files.close()
    everything = b"".join(before.values()) + b"".join(path.read_bytes() for path in written if path.exists())

    assert any(path.name.endswith("-wal") for path in written)
    assert 400 == node.day_files.rows_written
    for address in (event(text).visitor for text in addresses):
        inner = getattr(address, "ipv4_mapped", None) or address
        for form in (
            str(address).encode(),
            str(inner).encode(),
            inner.packed,
            canonical16(address),
            inner.packed.hex().encode(),
            inner.packed.hex().upper().encode(),
            str(int(inner)).encode(),
            inner.exploded.encode(),
        ):
            assert form not in everything


@pytest.mark.parametrize("tenant", ["..", "../../x", "/etc", "", "a/b", "A", "x" * 64, "demo\0"])
def test_a_strange_tenant_makes_no_file(node: Any, tenant: str) -> None:
    """What is no tenant's name never becomes a path; the other rows of the packet are written."""
    day = int(node.clock.now_s()) // 86_400
    node.day_files.write(packet(1, (tenant, day, [row(1)]), ("demo", day, [row(day * 86_400)])))
    made = list(node.settings.data_dir.parent.rglob("*.db"))

    assert [schema.day_file(node.settings.data_dir, "demo", date(2026, 11, 23))] == made
    assert (1, 1) == (node.day_files.rows_refused, node.day_files.rows_written)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff", b"\x93\x02\x01\x90", msgspec.msgpack.encode([1, 5, [["demo", "today", []]]]), os.urandom(300)],
)
def test_a_batch_that_cannot_be_read_is_counted(node: Any, payload: bytes) -> None:
    """Garbage, another version, a wrong type: one counter, no file, no exception."""
    node.day_files.write(payload)

    assert (1, []) == (node.day_files.batches_refused, list(node.settings.data_dir.rglob("*.db")))


@pytest.mark.parametrize("day", [-(10**9), 10**9, 2**62])
def test_a_day_beyond_the_calendar_is_refused(node: Any, day: int) -> None:
    """No such file, no exception."""
    node.day_files.write(packet(1, ("demo", day, [row(1)])))

    assert 1 == node.day_files.rows_refused


def test_rows_that_come_after_their_sweep_stay_gone(node: Any) -> None:
    """A batch that was long on its way does not bring an expired day back."""
    day = int(node.clock.now_s()) // 86_400
    node.day_files.write(packet(1, ("demo", day - 30, [row(1)]), ("demo", day - 29, [row(2)])))

    assert ["2026-10-25.db"] == [path.name for path in node.settings.data_dir.rglob("*.db")]
    assert (1, 1) == (node.day_files.rows_expired, node.day_files.rows_written)


def test_a_batch_that_comes_again_is_not_written_twice(new_node: Any) -> None:
    """The keeper may die between writing and consuming; its successor sees the packet once more."""
    day = int(new_node().clock.now_s()) // 86_400
    both = packet(77, ("demo", day, [row(1)] * 3), ("other", day, [row(1)] * 2))
    first, second = new_node(), new_node()
    first.day_files.write(both)
    second.day_files.write(both)
    second.day_files.write(packet(78, ("demo", day, [row(1)])))

    assert (5, 1, 2) == (first.day_files.rows_written, second.day_files.rows_written, second.day_files.batches_repeated)
    assert 4 == len(rows(schema.day_file(first.settings.data_dir, "demo", date(2026, 11, 23))))


def test_open_files_are_bounded(new_node: Any) -> None:
    """Many tenants share few handles; every row arrives."""
    node = new_node(handles_max=4)
    day = int(node.clock.now_s()) // 86_400
    for number in range(30):
        node.day_files.write(packet(number, (f"t{number % 10}", day, [row(1)])))
        assert node.day_files.open_files <= 4

    assert 30 == node.day_files.rows_written
    assert {3} == {len(rows(path)) for path in node.settings.data_dir.rglob("*.db")}


def test_a_day_that_is_being_removed_is_closed_and_stays_closed(node: Any) -> None:
    """Rows that come meanwhile wait, and then start a new file: none goes into one that has no name any more."""
    day = int(node.clock.now_s()) // 86_400
    path = schema.day_file(node.settings.data_dir, "demo", date(2026, 11, 23))
    node.day_files.write(packet(1, ("demo", day, [row(1)])))
    late = threading.Thread(target=node.day_files.write, args=(packet(2, ("demo", day, [row(2)] * 2)),))
    with node.day_files.closed("demo", date(2026, 11, 23)):
        assert 0 == node.day_files.open_files
        late.start()
        for part in schema.parts_of(path):
            part.unlink(missing_ok=True)
        assert not path.exists()
    late.join(30)

    assert 2 == len(rows(path))


def test_a_locked_file_is_waited_for_and_holds_up_no_other(new_node: Any) -> None:
    """The rows of other files are written at once; those of the locked one when the batch comes again, none twice."""
    node = new_node(patience_s=30)
    day = int(node.clock.now_s()) // 86_400
    node.day_files.write(packet(1, ("demo", day, [row(1)])))
    path = schema.day_file(node.settings.data_dir, "demo", date(2026, 11, 23))
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    batch = packet(2, ("demo", day, [row(1)]), ("other", day, [row(1)]))

    with pytest.raises(sqlite3.OperationalError, match="locked"):
        node.day_files.write(batch)
    assert (2, 0) == (node.day_files.rows_written, node.day_files.rows_failed)
    stranger.execute("ROLLBACK")
    stranger.close()
    node.day_files.write(batch)
    assert (2, 1) == tuple(
        len(rows(schema.day_file(node.settings.data_dir, name, date(2026, 11, 23)))) for name in ("demo", "other")
    )


def test_patience_with_a_locked_file_ends(new_node: Any) -> None:
    """After a while its rows are given up and counted, without an error, until the file works again."""
    node = new_node(patience_s=30)
    day = int(node.clock.now_s()) // 86_400
    node.day_files.write(packet(1, ("demo", day, [row(1)])))
    stranger = sqlite3.connect(
        schema.day_file(node.settings.data_dir, "demo", date(2026, 11, 23)), isolation_level=None
    )
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        node.day_files.write(packet(2, ("demo", day, [row(1)])))
    node.clock.advance(31)
    node.day_files.write(packet(2, ("demo", day, [row(1)])))
    node.day_files.write(packet(3, ("demo", day, [row(1)])))
    assert (1, 2) == (node.day_files.rows_written, node.day_files.rows_failed)
    stranger.execute("ROLLBACK")
    stranger.close()
    node.day_files.write(packet(4, ("demo", day, [row(1)])))

    assert (2, 2) == (node.day_files.rows_written, node.day_files.rows_failed)


def test_a_full_disk_loses_whole_batches_only(new_node: Any) -> None:
    """A file that may not grow fails the transaction, which leaves nothing of it behind; what fitted is there."""
    node = new_node()
    day = int(node.clock.now_s()) // 86_400
    node.day_files.write(packet(1, ("demo", day, [row(1)] * 10)))
    place = ("demo", date(2026, 11, 23))
    node.day_files._handles[place].execute("PRAGMA max_page_count = 8")
    node.day_files.write(packet(2, ("demo", day, [row(1)] * 5_000)))

    assert (10, 5_000) == (node.day_files.rows_written, node.day_files.rows_failed)
    node.day_files.write(packet(3, ("demo", day, [row(1)] * 7)))
    assert 17 == len(rows(schema.day_file(node.settings.data_dir, *place)))


def test_a_damaged_or_newer_file_costs_only_its_own_rows(node: Any) -> None:
    """What is no database, and what a newer program wrote, is left as it is."""
    day = int(node.clock.now_s()) // 86_400
    folder = schema.folder(node.settings.data_dir, "demo")
    folder.mkdir(parents=True)
    (folder / "2026-11-23.db").write_bytes(b"this is no database" * 100)
    newer = sqlite3.connect(folder / "2026-11-22.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    node.day_files.write(packet(1, ("demo", day, [row(1)]), ("demo", day - 1, [row(1)]), ("other", day, [row(1)])))

    assert (1, 2) == (node.day_files.rows_written, node.day_files.rows_failed)


def test_the_schema_refuses_what_is_no_pseudonym(node: Any) -> None:
    """Text where 16 bytes belong is refused by the table itself."""
    node.day_files.write(packet(1, ("demo", int(node.clock.now_s()) // 86_400, [row(1)])))
    connection = node.day_files._handles["demo", date(2026, 11, 23)]

    for value in ("203.0.113.9 and", b"\xcb\x00\x71\x09"):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(schema.INSERT, (1, value, *row(1)[2:]))


WRITER = """
import sys, msgspec
from pathlib import Path
from imgserve.adapters.accesslog import schema
from imgserve.adapters.accesslog.settings import Settings
from imgserve.adapters.accesslog.writer import DayFiles
from imgserve.aio.clock import SystemClock

clock = SystemClock()
day = int(clock.now_s()) // 86_400
files = DayFiles(Settings(data_dir=Path(sys.argv[1]), keys_dir=Path(sys.argv[2])), clock)
for number in range(1, 1_000_000):
    rows = [(number, bytes(16), 1, "GET", "", "", 200, 0, "hit", place) for place in range(50)]
    groups = [schema.Group(tenant="demo", day=day, rows=rows)]
    files.write(msgspec.msgpack.encode(schema.Batch(version=schema.BATCH_VERSION, id=number, groups=groups)))
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    """kill -9 at any time: every batch that was acknowledged is there, at most one more, and none in half."""
    for life in range(5):
        data_dir = tmp_path / f"var{life}"
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(data_dir), str(tmp_path / "keys")], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(20 + 37 * life)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
        process.wait()
        acknowledged = int(lines[-1])
        process.stdout.close()
        (path,) = data_dir.rglob("*.db")
        connection = sqlite3.connect(path)
        counts = dict(connection.execute("SELECT at_s, count(*) FROM requests GROUP BY at_s").fetchall())
        connection.close()

        assert {50} == set(counts.values())
        assert list(range(1, len(counts) + 1)) == sorted(counts)
        assert acknowledged <= len(counts) <= acknowledged + 1
