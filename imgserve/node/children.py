"""Birth and death of a child process."""

import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from imgserve.core.errors import ImgserveError
from imgserve.node import logs
from imgserve.node.board import Role
from imgserve.node.boot import Boot

log = logging.getLogger(__name__)

BootT = TypeVar("BootT", bound=Boot)

_PR_SET_DUMPABLE: Final = 4  # prctl(2)
_PR_SET_NAME: Final = 15  # at most 15 bytes
_HANDLED: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

# A worker's work is long and can wait a little, a front's is short and cannot. With both of two cores busy, the 99th
# percentile of an answer that takes 0.1 ms falls from 2.6 to 0.2 ms. Idle cores still are the workers' alone; where
# fronts fill all cores, workers keep a quarter of them. At 10 that would be a tenth, and jobs would time out.
_WORKER_NICENESS: Final = 5
# Where memory runs out, a worker costs one request, a front all of its own.
_WORKER_OOM_SCORE: Final = 500


@dataclass(slots=True, kw_only=True)
class Child:
    """A child as the supervisor knows it."""

    role: Role
    number: int
    pid: int
    pidfd: int
    control: socket.socket
    generation: int  # of the tenants that it is known to serve by
    born_s: float = field(default_factory=time.monotonic)
    is_ready: bool = False

    @property
    def name(self) -> str:
        """``front0``, as in its Boot."""
        return f"{self.role}{self.number}"

    def kill(self) -> None:
        """SIGKILL, by a descriptor that cannot mean another process."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> int:
        """Exit status of a child that has ended, negative for a signal; closes both descriptors."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        os.close(self.pidfd)
        self.control.close()
        assert result is not None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def forbid_core_dumps() -> None:
    """Keep this process's memory out of files. The limit alone does not bind a core_pattern that is a program."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _set_dumpable(is_dumpable=False)


def name_process(name: str) -> None:
    """Show as ``img:NAME`` in process lists."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(f"img:{name}".encode()))


def spawn(boot: BootT, main: Callable[[BootT], None], *, also_keep: Iterable[int] = ()) -> tuple[int, int]:
    """Fork a child that runs main with its boot; pid and pidfd. Raises OSError when there is no room for one.

    Of the descriptors the child has 0 to 2, the sockets of its boot, and ``also_keep``."""
    # Only the calling thread lives on in a child; a lock held by another would stay locked for ever.
    assert threading.active_count() == 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # else each child would write it again
    gc.freeze()  # a collection in a child would write to, and so copy, the pages it shares with the others
    # Signals wait: until the child has its own dispositions it would report them as the supervisor.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            _live(boot, main, also_keep)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
    try:
        return pid, os.pidfd_open(pid)
    except OSError:  # a child that cannot be watched is none
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _live(boot: BootT, main: Callable[[BootT], None], also_keep: Iterable[int]) -> NoReturn:
    """The whole life of a child. It never returns into the supervisor's frames, which keep their objects alive:
    none of them is collected and closes a descriptor number that has a new meaning here."""
    status = 1
    try:
        _settle(boot, also_keep)
        main(boot)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except ImgserveError as error:
        log.critical("child_failed", extra={"reason": str(error)})
    except BaseException:
        log.critical("child_failed", exc_info=True)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _settle(boot: Boot, also_keep: Iterable[int]) -> None:
    """Turn the copy of a supervisor into a process of its own."""
    # Ctrl-C reaches the whole process group, and systemd stops the whole control group: the supervisor alone
    # decides in which order its children end, so they do not listen to either.
    signal.set_wakeup_fd(-1)
    for number in _HANDLED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
    _close_all_but({0, 1, 2, *(sock.fileno() for sock in boot.sockets()), *also_keep})
    logs.configure(boot.name)
    name_process(boot.name)
    if boot.role is Role.WORKER:
        os.nice(_WORKER_NICENESS)
        _set_dumpable(is_dumpable=True)  # else the next file belongs to root
        with contextlib.suppress(OSError):  # a container may forbid it
            Path("/proc/self/oom_score_adj").write_text(str(_WORKER_OOM_SCORE))
        _set_dumpable(is_dumpable=False)


def _close_all_but(keep: set[int]) -> None:
    """Close every other descriptor; each gap is one close_range(2)."""
    first = 0
    for fd in sorted(keep):
        if first < fd:  # os.closerange(0, 0) would close everything: its last descriptor becomes 2^32 - 1
            os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, 2**31 - 1)


def _set_dumpable(*, is_dumpable: bool) -> None:
    """Whether the kernel may dump this process's memory, and others of this user may trace it; children inherit it."""
    _prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(is_dumpable))


def _prctl(option: int, value: ctypes.c_ulong | ctypes.c_char_p) -> None:
    """prctl(2) with one argument. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")
