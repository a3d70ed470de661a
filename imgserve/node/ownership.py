"""One node per data folder, also just after a supervisor was killed."""

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Final

from imgserve.disk import locks
from imgserve.node.control import ORPHAN_DRAIN_S

log = logging.getLogger(__name__)

_WAIT_S: Final = ORPHAN_DRAIN_S * 1.5 + 1
_POLL_S: Final = 0.05


def own(data_dir: Path) -> locks.Owner:
    """Become the owner of the folder, and write the process id to ``supervisor.pid`` in it.

    The children of a killed supervisor still own it while they finish what they have under way: they are
    waited for. Raises Held when another node lives in it, Misconfigured when its FORMAT is not known."""
    pid_file = _pid_file(data_dir)
    deadline_s = time.monotonic() + _WAIT_S
    is_waiting = False
    while True:
        try:
            owner = locks.own(data_dir)
        except locks.Held:
            if not _has_died(pid_file) or time.monotonic() > deadline_s:
                raise
            if not is_waiting:
                is_waiting = True
                log.warning(
                    "waiting_for_orphans", extra={"reason": "children of a killed supervisor still use the folder"}
                )
            time.sleep(_POLL_S)  # the lock tells nobody when it becomes free, except who blocks for ever
        else:
            pid_file.write_text(f"{os.getpid()}\n")
            return owner


def disown(owner: locks.Owner, data_dir: Path) -> None:
    """Let go of the folder once no child is left; who comes next has nobody to wait for."""
    if is_owned_by(owner.fileno(), data_dir):
        with contextlib.suppress(OSError):
            _pid_file(data_dir).unlink(missing_ok=True)
    owner.close()


def is_owned_by(owner_fd: int, data_dir: Path) -> bool:
    """Whether the folder of this name is still the one that the owner's descriptor belongs to."""
    try:
        facts = (data_dir / "FORMAT").stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # a disk that fails says nothing about it
        return True
    return os.path.samestat(facts, os.fstat(owner_fd))


def _pid_file(data_dir: Path) -> Path:
    return data_dir / "supervisor.pid"


def _has_died(pid_file: Path) -> bool:
    """Whether the file names a supervisor that is no more."""
    with contextlib.suppress(OSError, ValueError):
        try:
            os.kill(int(pid_file.read_text()), 0)
        except ProcessLookupError:
            return True
    return False
