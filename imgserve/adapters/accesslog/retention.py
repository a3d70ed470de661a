"""What makes thirty days mean thirty: day files past their term are unlinked, then their keys.

Two clocks must agree that a day may stay. The wall clock: a day is gone once ``day + retention_days`` begins.
And time that passed while we were running, by a clock that never jumps: each day's age is noted when it is first
seen and grows from there, so that setting the wall clock back keeps nothing longer, nor does a file
that was dated in a future which never came.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final

import msgspec

from imgserve.adapters.accesslog import schema
from imgserve.adapters.accesslog.keyring import KeyRing
from imgserve.adapters.accesslog.settings import Settings
from imgserve.adapters.accesslog.writer import DayFiles
from imgserve.core import privacy
from imgserve.core.days import DAY_S
from imgserve.core.errors import NoSpace
from imgserve.disk import files
from imgserve.interfaces import Clock

log = logging.getLogger(__name__)

_MEMORY_NAME: Final = "retention.json"
_SAVE_EVERY_S: Final = 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep did and saw."""

    days_removed: int = 0
    keys_destroyed: int = 0
    failures: int = 0
    strangers: int = 0  # files in a log folder that are no day file: nobody removes them
    oldest_day: date | None = None  # of what is left


class _Memory(msgspec.Struct):
    """How long ago each day was, in time that passed. ``births`` count on the same scale as ``passed_s``."""

    boot: int
    monotonic_s: float
    wall_s: float
    passed_s: float = 0.0
    births: dict[str, float] = msgspec.field(default_factory=dict)


@dataclass(slots=True)
class _Found:
    """Day files and keys on disk."""

    logs: list[tuple[str, date]] = field(default_factory=list)
    keys: list[tuple[str, date]] = field(default_factory=list)
    strangers: int = 0


class Retention:
    """Sweeps all tenants' folders, those of tenants that are no longer configured too. Runs in the keeper."""

    def __init__(
        self, settings: Settings, day_files: DayFiles, keys: KeyRing, clock: Clock, *, boot: int | None = None
    ) -> None:
        self._settings = settings
        self._day_files = day_files
        self._keys = keys
        self._clock = clock
        self._boot = files.boot() if boot is None else boot
        self._memory_path = settings.data_dir / _MEMORY_NAME
        self._memory: _Memory | None = None
        self._saved_s = float("-inf")
        self.days_removed = 0
        self.keys_destroyed = 0
        self.failures = 0

    def sweep(self) -> Swept:
        """Remove what is past its term; may be killed at any point and run again. Blocks on files.

        A failure to remove one file keeps no other: it is counted, logged, and tried again by the next sweep.
        """
        today = privacy.day_of(self._clock.now_s())
        self._day_files.close_all_but(today)
        found = self._find()
        expired = self._expired({day for _, day in found.logs + found.keys}, today)
        days_removed = keys_destroyed = failures = 0
        for tenant, day in found.logs:
            if day in expired:
                is_gone = self._try(self._unlink, tenant, day)
                days_removed, failures = days_removed + is_gone, failures + (not is_gone)
        for tenant, day in found.keys:
            if day in expired:
                is_gone = self._try(self._keys.destroy, tenant, day)
                keys_destroyed, failures = keys_destroyed + is_gone, failures + (not is_gone)
        self.days_removed += days_removed
        self.keys_destroyed += keys_destroyed
        self.failures += failures
        return Swept(
            days_removed=days_removed,
            keys_destroyed=keys_destroyed,
            failures=failures,
            strangers=found.strangers,
            oldest_day=min((day for _, day in found.logs if day not in expired), default=None),
        )

    def _find(self) -> _Found:
        found = _Found()
        for tenant_dir in schema.tenant_folders(self._settings.data_dir / "tenants"):
            days = set()
            for name in _names(schema.folder(self._settings.data_dir, tenant_dir.name)):
                day = schema.day_of_file(name)
                if day is None:
                    found.strangers += 1
                else:
                    days.add(day)
            found.logs += [(tenant_dir.name, day) for day in sorted(days)]
        found.keys = list(self._keys.days())
        return found

    def _expired(self, days: set[date], today: date) -> set[date]:
        memory = self._remember(days)
        term_s = self._settings.retention_days * DAY_S
        return {
            day
            for day in days
            if privacy.is_expired(day, today, self._settings.retention_days)
            or memory.passed_s - memory.births[day.isoformat()] >= term_s
        }

    def _remember(self, days: set[date]) -> _Memory:
        """Bring the memory of passed time up to date, with a birth for each day on disk and for no other."""
        wall_s, monotonic_s = self._clock.now_s(), self._clock.monotonic_s()
        memory = self._memory or _load(self._memory_path)
        if memory is None:
            memory = _Memory(boot=self._boot, monotonic_s=monotonic_s, wall_s=wall_s)
        if memory.boot == self._boot and monotonic_s >= memory.monotonic_s:
            memory.passed_s += monotonic_s - memory.monotonic_s
        else:  # the machine was off: only the wall clock can say for how long
            memory.passed_s += max(0.0, wall_s - memory.wall_s)
        memory.boot, memory.monotonic_s, memory.wall_s = self._boot, monotonic_s, wall_s
        known = memory.births
        memory.births = {
            text: known[text] if text in known else memory.passed_s - max(0.0, wall_s - privacy.start_of(day))
            for text, day in ((day.isoformat(), day) for day in sorted(days))
        }
        if memory.births.keys() != known.keys() or monotonic_s - self._saved_s >= _SAVE_EVERY_S:
            self._save(memory)
            self._saved_s = monotonic_s
        self._memory = memory
        return memory

    def _save(self, memory: _Memory) -> None:
        """Write the memory beside the data; without room for it the wall clock alone decides after a restart."""
        try:
            descriptor = files.unnamed(str(self._settings.data_dir))
            try:
                files.write_all(descriptor, memoryview(msgspec.json.encode(memory)), 0)
                os.fsync(descriptor)
                files.publish(descriptor, str(self._settings.data_dir), _MEMORY_NAME)
            finally:
                os.close(descriptor)
        except (OSError, NoSpace) as error:
            self.failures += 1
            log.warning("retention_memory_not_saved", extra={"error_kind": type(error).__name__})

    def _try(self, remove: Callable[[str, date], object], tenant: str, day: date) -> bool:
        try:
            remove(tenant, day)
        except OSError as error:
            log.warning("expired_day_not_removed", extra={"tenant": tenant, "day": str(day), "errno": error.errno})
            return False
        return True

    def _unlink(self, tenant: str, day: date) -> None:
        path = schema.day_file(self._settings.data_dir, tenant, day)
        with self._day_files.closed(tenant, day):
            for part in schema.parts_of(path):
                part.unlink(missing_ok=True)
            files.sync_folder(str(path.parent))


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _load(path: Path) -> _Memory | None:
    """The saved memory; None when there is none, or none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Memory)
    except (OSError, msgspec.MsgspecError):
        return None
