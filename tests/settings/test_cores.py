"""Usable cores: affinity, cut to the quota of the cgroup, as containers set it."""

import os
from pathlib import Path

import pytest

from imgserve.settings import usable_cores

CORES = len(os.sched_getaffinity(0))


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_without_quota_affinity_counts(tmp_path: Path) -> None:
    """No cgroup, or one without a limit."""
    assert CORES == usable_cores(tmp_path)
    write(tmp_path, {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"})
    assert CORES == usable_cores(tmp_path)


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "100000 100000\n"},
        {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"},  # of a parent; half a core
        {"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"},  # seen from a container
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/a\n1:memory:/a\n0::/\n",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
        },
    ],
    ids=["own", "parent", "container", "version 1"],
)
def test_a_quota_counts(tmp_path: Path, files: dict[str, str]) -> None:
    """Less than two cores of quota is one front, never none."""
    write(tmp_path, files)
    assert usable_cores(tmp_path) == 1


def test_version_1_without_quota(tmp_path: Path) -> None:
    """A quota of -1 is none."""
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert CORES == usable_cores(tmp_path)
