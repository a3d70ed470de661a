"""How many cores this process may really use."""

import os
from collections.abc import Callable
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Cores by affinity, cut to the CPU quota of the cgroup (version 2 or 1) and of its parents; at least 1.

    ``root`` is where ``proc`` and ``sys`` lie."""
    cores = len(os.sched_getaffinity(0))
    quota = _quota(root)
    return cores if quota is None else max(1, min(cores, int(quota)))


def _quota(root: Path) -> float | None:
    """The smallest CPU quota on the way from this process's groups up, in cores; None without one."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for group in groups:
        hierarchy, controllers, path = group.split(":", 2)
        if hierarchy == "0":
            quotas += _quotas_upwards(root / "sys/fs/cgroup", path, _quota_v2)
        elif "cpu" in controllers.split(","):
            for mount in (controllers, "cpu"):
                quotas += _quotas_upwards(root / "sys/fs/cgroup" / mount, path, _quota_v1)
    return min(quotas, default=None)


def _quotas_upwards(mount: Path, group: str, read: Callable[[Path], float | None]) -> list[float]:
    """Quotas of a group and of all above it. Inside a container the group's path may not exist
    below the mount: then the mount itself is the container's group."""
    folder = mount / group.strip("/")
    folders = [folder, *(parent for parent in folder.parents if parent.is_relative_to(mount))]
    return [quota for one in folders if (quota := read(one)) is not None]


def _quota_v2(folder: Path) -> float | None:
    """``cpu.max`` holds quota and period in microseconds, or ``max`` for no quota."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float | None:
    """``cpu.cfs_quota_us`` is -1 for no quota."""
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return None if quota <= 0 or period <= 0 else quota / period
