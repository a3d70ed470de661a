"""Thirty days mean thirty."""

import os
import shutil
import sqlite3
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgserve.adapters.accesslog import schema
from imgserve.core import privacy

DAY_S = 86_400


def log_some(node: Any, event: Any, at_s: float, *tenants: str) -> None:
    """Rows of that second for each tenant, written by both sides as usual."""
    for tenant in tenants or ("demo",):
        node.recorder.record(event(at_s=int(at_s), tenant=tenant))
    node.deliver()


def logs(node: Any) -> list[str]:
    return sorted(path.name for path in node.settings.data_dir.glob("tenants/*/accesslog/*"))


def keys(node: Any) -> list[str]:
    return sorted(path.name for path in node.settings.keys_dir.glob("*/*"))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(retention=st.integers(1, 60), second=st.integers(0, DAY_S - 1), jump_s=st.integers(0, 70 * DAY_S))
def test_a_day_goes_when_its_term_begins(new_node: Any, event: Any, retention: int, second: int, jump_s: int) -> None:
    """File and key are there until ``day + retention_days`` begins, and gone from that second on."""
    node = new_node(retention_days=retention)
    start_s = privacy.start_of(date(2026, 11, 23))
    node.clock.wall_s = start_s + second
    log_some(node, event, start_s + second)
    sweeper = node.retention()
    sweeper.sweep()
    node.clock.advance(jump_s)
    sweeper.sweep()
    is_gone = start_s + second + jump_s >= start_s + retention * DAY_S

    assert ([] if is_gone else ["2026-11-23.key"]) == keys(node)
    assert is_gone == (not [name for name in logs(node) if name.startswith("2026-11-23")])
    node.day_files.close()
    shutil.rmtree(node.settings.data_dir)
    shutil.rmtree(node.settings.keys_dir)


def test_the_last_second_and_the_first(node: Any, event: Any) -> None:
    """One second before midnight nothing goes; at midnight the day of thirty days ago does, alone."""
    start_s = privacy.start_of(date(2026, 11, 23))
    for days in (31, 30, 29):
        node.clock.wall_s = start_s - days * DAY_S
        log_some(node, event, node.clock.wall_s)
    node.clock.wall_s = start_s - 1
    sweeper = node.retention()
    first = sweeper.sweep()
    node.clock.advance(1)
    second = sweeper.sweep()

    assert (1, 1, 1, 1) == (first.days_removed, first.keys_destroyed, second.days_removed, second.keys_destroyed)
    assert (["2026-10-25.db"], ["2026-10-25.key"]) == (logs(node), keys(node))
    assert date(2026, 10, 25) == second.oldest_day


def test_everything_beside_the_database_goes_too(node: Any, event: Any) -> None:
    """An open day file is closed first; WAL and shared memory go with it; rows that come later start a new file."""
    log_some(node, event, node.clock.wall_s, "demo", "other")
    assert 6 == len(logs(node))
    node.clock.advance(30 * DAY_S)
    swept = node.retention().sweep()

    assert (2, 2, 0) == (swept.days_removed, swept.keys_destroyed, swept.failures)
    assert ([], []) == (logs(node), keys(node))
    assert 0 == node.day_files.open_files
    log_some(node, event, node.clock.wall_s)
    assert (
        1
        == sqlite3.connect(schema.day_file(node.settings.data_dir, "demo", date(2026, 12, 23)))
        .execute("SELECT count(*) FROM requests")
        .fetchone()[0]
    )


def test_a_tenant_nobody_configures_any_more_is_swept(node: Any, event: Any) -> None:
    """What counts is what lies on the disk."""
    log_some(node, event, node.clock.wall_s - 30 * DAY_S, "gone")
    old = schema.folder(node.settings.data_dir, "forgotten")
    old.mkdir(parents=True)
    (old / "2026-01-01.db").write_bytes(b"rows")
    (node.settings.keys_dir / "forgotten").mkdir(parents=True)
    (node.settings.keys_dir / "forgotten" / "2026-01-01.key").write_bytes(b"k" * 32)
    node.retention().sweep()

    assert ([], []) == (list(old.iterdir()), keys(node))


@pytest.mark.parametrize("left", ["2026-01-01.db-wal", "2026-01-01.db-shm", "2026-01-01.db-journal", "2026-01-01.db"])
def test_a_sweep_that_was_killed_is_finished(node: Any, left: str) -> None:
    """Whatever part of a day is left, the next sweep removes it, and then the key."""
    folder = schema.folder(node.settings.data_dir, "demo")
    folder.mkdir(parents=True)
    (folder / left).write_bytes(b"rows")
    (node.settings.keys_dir / "demo").mkdir(parents=True)
    (node.settings.keys_dir / "demo" / "2026-01-01.key").write_bytes(b"k" * 32)
    swept = node.retention().sweep()

    assert ([], [], 1, 1) == (logs(node), keys(node), swept.days_removed, swept.keys_destroyed)


def test_a_key_without_rows_goes_in_time(node: Any) -> None:
    """A key that was made for a day without a row, or whose rows went before a crash, is destroyed too."""
    for days in (30, 29):
        node.keys.key("demo", date(2026, 11, 23) - timedelta(days=days))
    node.retention().sweep()

    assert ["2026-10-25.key"] == keys(node)


def test_what_is_no_day_file_is_counted_and_left(node: Any, event: Any) -> None:
    """Nobody's copies are not ours to delete, but the operator is told of them."""
    log_some(node, event, node.clock.wall_s)
    folder = schema.folder(node.settings.data_dir, "demo")
    for name in ("2026-01-01.db.bak", "notes.txt", "2026-13-01.db", "2026-1-1.db"):
        (folder / name).write_bytes(b"")
    swept = node.retention().sweep()

    assert (4, 0) == (swept.strangers, swept.days_removed)


def test_a_file_that_cannot_be_removed_keeps_no_other(node: Any) -> None:
    """The failure is counted and tried again; everything else of that sweep is done, its key included."""
    for tenant in ("a", "b"):
        folder = schema.folder(node.settings.data_dir, tenant)
        folder.mkdir(parents=True)
        (folder / "2026-01-01.db").write_bytes(b"rows")
        (node.settings.keys_dir / tenant).mkdir(parents=True)
        (node.settings.keys_dir / tenant / "2026-01-01.key").write_bytes(b"k" * 32)
    stuck = schema.folder(node.settings.data_dir, "a") / "2026-01-01.db-wal"
    stuck.mkdir()
    sweeper = node.retention()
    first = sweeper.sweep()
    assert (1, 2, 1) == (first.days_removed, first.keys_destroyed, first.failures)
    stuck.rmdir()
    second = sweeper.sweep()

    assert (1, 0, []) == (second.days_removed, second.failures, logs(node))


def test_a_clock_set_back_keeps_nothing_longer(node: Any, event: Any) -> None:
    """After 20 true days the clock falls back by 15; 10 true days later the day is gone, over restarts too."""
    log_some(node, event, node.clock.wall_s)
    sweeper = node.retention()
    sweeper.sweep()
    node.clock.advance(20 * DAY_S)
    sweeper.sweep()
    node.clock.wall_s -= 15 * DAY_S
    sweeper = node.retention()
    for _ in range(9):
        node.clock.advance(DAY_S)
        sweeper.sweep()
    assert ["2026-11-23.db"] == logs(node)
    node.clock.advance(DAY_S)
    node.retention().sweep()

    assert ([], []) == (logs(node), keys(node))


def test_a_day_of_a_false_future_goes_in_time(node: Any, event: Any) -> None:
    """Rows of an hour in which the clock said 2030 go thirty true days later, not in 2030."""
    today_s = node.clock.wall_s
    node.clock.wall_s = privacy.start_of(date(2030, 1, 1)) + 60
    log_some(node, event, node.clock.wall_s)
    node.clock.wall_s = today_s
    sweeper = node.retention()
    sweeper.sweep()
    node.clock.advance(29 * DAY_S)
    sweeper.sweep()
    assert ["2030-01-01.db"] == logs(node)
    node.clock.advance(DAY_S)
    sweeper.sweep()

    assert ([], []) == (logs(node), keys(node))


def test_time_without_power_counts_by_the_wall_clock(node: Any, event: Any) -> None:
    """Switched off for 31 days: gone at the first sweep. A wrong clock at boot, set right, deletes nothing early."""
    log_some(node, event, node.clock.wall_s)
    node.retention().sweep()
    node.boot, node.clock.passed_s = 2, 5.0
    true_s, node.clock.wall_s = node.clock.wall_s + DAY_S, 0.0
    sweeper = node.retention()
    sweeper.sweep()
    node.clock.wall_s = true_s
    sweeper.sweep()
    assert ["2026-11-23.db"] == logs(node)
    node.boot, node.clock.passed_s = 3, 5.0
    node.clock.wall_s += 30 * DAY_S
    node.retention().sweep()

    assert ([], []) == (logs(node), keys(node))


def test_a_machine_that_slept_wakes_to_an_expired_day(node: Any, event: Any) -> None:
    """The clock that never jumps stands still while the machine is suspended; the wall clock does not."""
    log_some(node, event, node.clock.wall_s)
    sweeper = node.retention()
    sweeper.sweep()
    node.clock.wall_s += 30 * DAY_S
    sweeper.sweep()

    assert ([], []) == (logs(node), keys(node))


def test_time_without_power_is_not_forgotten_when_the_clock_falls_back(node: Any, event: Any) -> None:
    """Off for 28 days, then the clock is set back by 20: two true days later the day is gone."""
    log_some(node, event, node.clock.wall_s)
    node.clock.passed_s = 5.0
    node.retention().sweep()
    node.boot, node.clock.passed_s = 2, 9.0
    node.clock.wall_s += 28 * DAY_S
    sweeper = node.retention()
    sweeper.sweep()
    node.clock.wall_s -= 20 * DAY_S
    node.clock.advance(DAY_S)
    sweeper.sweep()
    assert ["2026-11-23.db"] == logs(node)
    node.clock.advance(DAY_S)
    sweeper.sweep()

    assert ([], []) == (logs(node), keys(node))


@pytest.mark.parametrize("content", [b"", b"{", b'{"boot": "x"}', os.urandom(50)])
def test_a_lost_memory_of_time_is_no_failure(node: Any, event: Any, content: bytes) -> None:
    """Then the wall clock decides alone."""
    log_some(node, event, node.clock.wall_s)
    (node.settings.data_dir / "retention.json").write_bytes(content)
    node.clock.advance(30 * DAY_S)
    swept = node.retention().sweep()

    assert (1, 0) == (swept.days_removed, swept.failures)


def test_links_are_not_followed(node: Any, tmp_path: Path) -> None:
    """A link in a tenant's place leads the sweep nowhere."""
    elsewhere = tmp_path / "elsewhere" / "accesslog"
    elsewhere.mkdir(parents=True)
    (elsewhere / "2026-01-01.db").write_bytes(b"not ours")
    (node.settings.data_dir / "tenants").mkdir()
    (node.settings.data_dir / "tenants" / "demo").symlink_to(tmp_path / "elsewhere")
    node.retention().sweep()

    assert (elsewhere / "2026-01-01.db").exists()
