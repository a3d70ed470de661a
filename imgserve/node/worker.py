"""A worker: renders one job after the other inside the sandbox, and tells the asking front."""

import ctypes
import logging
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from imgserve.adapters.render import sandbox, wire
from imgserve.adapters.render.settings import Settings
from imgserve.core.errors import ImgserveError, RenderFailed

log = logging.getLogger(__name__)

Render = Callable[[wire.Job, int, int], wire.Done]
"""Makes the variant of a job in the target (second descriptor) from the original (first one)."""

_PAGE_BYTES: Final = resource.getpagesize()
_NEAR_LIMIT: Final = 0.6  # of the address space: a decoder that failed beyond it may have failed for lack of room
_M_ARENA_MAX: Final = -8  # mallopt(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recycling:
    """When a worker makes room for a fresh one, between two jobs. ``rss_fraction`` is of ``render.memory``."""

    jobs_max: int = 5_000
    age_max_s: float = 3_600.0
    rss_fraction: float = 0.5


def main(
    queue: socket.socket,
    settings: Settings,
    on_ready: Callable[[], None],
    *,
    render: Render | None = None,
    recycling: Recycling = Recycling(),
) -> None:
    """Serve the queue until its end or old age; then return, with no job taken. SIGTERM, where it is not ignored, ends
    it too: a supervisor's children ignore it, since their order of ending is the supervisor's to choose.

    Runs in a freshly forked, single-threaded process that has never imported pyvips. ``render`` takes the
    place of the pipeline. ``on_ready`` is called once, when the sandbox stands and libvips works.
    """
    os.environ.update(VIPS_CONCURRENCY="1", FONTCONFIG_FILE=str(sandbox.fonts_folder() / "fonts.conf"))
    from imgserve.adapters.render import pipeline  # no other process may import libvips

    stopping = _Stopping()
    memory = _Memory(settings.memory_bytes + sandbox.MEMORY_SLACK_BYTES)
    pidfd = os.pidfd_open(os.getpid())
    layers = sandbox.enter(settings.memory_bytes, (sandbox.fonts_folder(),))
    pipeline.prepare()
    serving = _Serving(
        queue=queue,
        render=render or pipeline.Pipeline(allows_svg=layers.allows_svg, is_near_limit=memory.is_near_limit).render,
        pidfd=pidfd,
    )
    log.info("worker_ready", extra={"sandbox": layers.describe()})
    on_ready()
    born_s = time.monotonic()
    rss_max = int(settings.memory_bytes * recycling.rss_fraction)
    while stopping.wait_for(queue):
        if not serving.take_one():
            return
        is_old = serving.jobs >= recycling.jobs_max or time.monotonic() - born_s >= recycling.age_max_s
        if is_old or memory.rss_bytes() > rss_max or memory.is_near_limit():
            log.info("worker_recycled", extra={"jobs": serving.jobs, "rss_bytes": memory.rss_bytes()})
            return


class _Stopping:
    """SIGTERM, waited for together with the queue, so that none arrives between a look and a wait. Stays ignored where
    it is."""

    def __init__(self) -> None:
        self._reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGALRM})
        self._events = select.epoll()
        self._events.register(self._reading, select.EPOLLIN)
        self._queue: socket.socket | None = None

    def wait_for(self, queue: socket.socket) -> bool:
        """True when the queue may have a job, False when the worker is to stop."""
        if self._queue is None:
            # One worker is woken by a job, not all of them.
            self._events.register(queue, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            self._queue = queue
        return all(descriptor != self._reading for descriptor, _ in self._events.poll())


class _Serving:
    """Takes jobs and answers them."""

    def __init__(self, *, queue: socket.socket, render: Render, pidfd: int) -> None:
        self._queue = queue
        self._render = render
        self._pidfd = pidfd
        self.jobs = 0

    def take_one(self) -> bool:
        """Do one job if there is one; False at the end of the queue."""
        try:
            taken = wire.take_job(self._queue)
        except BlockingIOError:  # another worker was faster
            return True
        except wire.Malformed:
            log.warning("job_malformed")
            return True
        if taken is None:
            return False
        try:
            self._do(taken)
        finally:
            taken.close()
        return True

    def _do(self, taken: wire.Taken) -> None:
        """Render unless the asker has gone away or nobody waits any more; the alarm ends this process."""
        now_s = time.monotonic()
        remaining_s = min(taken.job.timeout_s, taken.job.deadline_s - now_s)
        if remaining_s <= 0 or not wire.answer(taken.reply, wire.Started(at_s=now_s), (self._pidfd,)):
            return
        self.jobs += 1
        signal.setitimer(signal.ITIMER_REAL, remaining_s)
        answer = self._rendered(taken)
        signal.setitimer(signal.ITIMER_REAL, 0)
        wire.answer(taken.reply, answer)

    def _rendered(self, taken: wire.Taken) -> wire.Done | wire.Failed:
        try:
            return self._render(taken.job, taken.original_fd, taken.target_fd)
        except ImgserveError as error:
            return wire.failure(error)
        except Exception as error:
            log.exception("render_crashed")
            return wire.failure(RenderFailed(f"{type(error).__name__} in the pipeline"))


class _Memory:
    """How much memory this process has, read from files that were opened before the sandbox closed the door."""

    def __init__(self, address_space_bytes: int) -> None:
        self._sizes = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        self._near_bytes = int(address_space_bytes * _NEAR_LIMIT)
        # Each thread's arena would reserve 64 MB of address space, which is what is limited.
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)

    def rss_bytes(self) -> int:
        """Resident bytes now."""
        return int(os.pread(self._sizes, 256, 0).split()[1]) * _PAGE_BYTES

    def is_near_limit(self) -> bool:
        """Whether this process has ever come near its limit of address space."""
        for line in os.pread(self._status, 4096, 0).splitlines():
            if line.startswith(b"VmPeak:"):
                return int(line.split()[1]) * 1024 > self._near_bytes
        return False
