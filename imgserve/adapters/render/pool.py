"""The fronts' end of the render queue. One queue for the whole node; a worker belongs to no front."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Final

from imgserve.adapters.render import wire
from imgserve.adapters.render.settings import Settings
from imgserve.core.errors import Overloaded, RenderFailed, TimedOut
from imgserve.core.plan import Plan
from imgserve.interfaces import Rendered

QUEUE_WAIT_S: Final = 5.0  # a job that no worker takes for so long is given up
KILL_GRACE_S: Final = 0.5  # the worker's own alarm comes first; the hard kill is for one that blocks it
_JOB_FOOTPRINT_BYTES: Final = 1280  # measured: what a job of up to 704 bytes takes from SO_SNDBUF
_FULL: Final = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def make_queue(depth: int) -> tuple[socket.socket, socket.socket]:
    """The node's queue: the end that fronts send on and the end that workers take from.

    About ``depth`` jobs fit. The kernel also bounds descriptors under way by RLIMIT_NOFILE of the user;
    beyond it sending fails with ETOOMANYREFS, which is Overloaded as well.
    """
    sending, receiving = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # The kernel doubles the value that is set, and bounds it by net.core.wmem_max.
    sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(depth, 1) * _JOB_FOOTPRINT_BYTES // 2)
    return sending, receiving


class WorkerPool:
    """Renders in the node's workers. A worker that crashes, hangs or eats memory costs its one job.

    ``on_rendered`` hears the microseconds of every finished rendering.
    """

    def __init__(
        self,
        queue: socket.socket,
        settings: Settings,
        *,
        on_rendered: Callable[[int], None] = lambda _: None,
        queue_wait_s: float = QUEUE_WAIT_S,
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._queue_wait_s = queue_wait_s
        self._on_rendered = on_rendered
        self._limits = wire.Limits(
            max_original_bytes=settings.max_original_bytes,
            max_original_pixels=settings.max_original_pixels,
            max_side_px=settings.max_side_px,
        )
        self.submitted = 0
        self.refused = 0
        self.died = 0
        self.timed_out = 0
        self.in_flight = 0

    async def render(
        self,
        plan: Plan,
        formats: tuple[str, ...],
        original_fd: int,
        target_fd: int,
        *,
        original_bytes: int | None = None,
    ) -> Rendered:
        """Hand over to a worker and wait for what it says.

        Raises Overloaded when the queue is full or nobody took the job in time, TimedOut when it ran too
        long, RenderFailed when the worker died, and the worker's own Undecodable, OverLimit or NoSpace.
        """
        now_s = time.monotonic()
        job = wire.Job(
            plan=plan,
            formats=formats,
            original_bytes=os.fstat(original_fd).st_size if original_bytes is None else original_bytes,
            limits=self._limits,
            timeout_s=self._settings.timeout_s,
            deadline_s=now_s + self._queue_wait_s + self._settings.timeout_s,
        )
        conversation = self._submit(job, original_fd, target_fd)
        self.in_flight += 1
        try:
            done = await conversation.outcome
        except TimedOut:
            self.timed_out += 1
            raise
        except Overloaded:
            self.refused += 1
            raise
        except _Died as died:
            self.died += 1
            raise RenderFailed(str(died)) from died
        finally:
            self.in_flight -= 1
            conversation.close()
        self._on_rendered(done.render_us)
        return Rendered(
            content_type=done.content_type,
            size_bytes=done.size_bytes,
            width_px=done.width_px,
            height_px=done.height_px,
            render_us=done.render_us,
            is_original=done.is_original,
        )

    def _submit(self, job: wire.Job, original_fd: int, target_fd: int) -> "_Conversation":
        with contextlib.ExitStack() as stack:
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                stack.callback(theirs.close)
                on_refusal = contextlib.ExitStack()
                with on_refusal:
                    on_refusal.callback(ours.close)
                    wire.send_job(
                        self._queue, job, original_fd=original_fd, target_fd=target_fd, reply_fd=theirs.fileno()
                    )
                    on_refusal.pop_all()
            except BlockingIOError as error:
                self.refused += 1
                raise Overloaded("the render queue is full") from error
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self.refused += 1
                raise Overloaded(f"no descriptor can be handed over: {error.strerror}") from error
        self.submitted += 1
        return _Conversation(ours, job, asyncio.get_running_loop())


class _Died(Exception):
    """The worker went away without a word."""


class _Conversation:
    """The talk about one job. An answer, the end of file or a deadline settles ``outcome``, once."""

    def __init__(self, reply: socket.socket, job: wire.Job, loop: asyncio.AbstractEventLoop) -> None:
        self._reply = reply
        self._job = job
        self._loop = loop
        self._pidfd: int | None = None
        self._ends_s = 0.0  # when the worker's own alarm rings; 0 before it has started
        self.outcome: Final[asyncio.Future[wire.Done]] = loop.create_future()
        self._timer = loop.call_later(job.deadline_s - job.timeout_s - time.monotonic(), self._give_up)
        loop.add_reader(reply.fileno(), self._listen)

    def close(self) -> None:
        """Hang up; the worker skips a job whose asker is gone. May be called again."""
        self._timer.cancel()
        if self._reply.fileno() >= 0:
            self._loop.remove_reader(self._reply.fileno())
            self._reply.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _listen(self) -> None:
        """Hear all that has been said."""
        try:
            while not self.outcome.done():
                answer, pidfd = wire.hear(self._reply)
                self._settle(answer, pidfd)
        except BlockingIOError:
            return
        except (wire.Malformed, OSError) as error:
            self._fail(_Died(f"the worker's answer is broken: {error}"))
        if self._reply.fileno() >= 0:  # no more is expected; an end of file would wake us for ever
            self._loop.remove_reader(self._reply.fileno())

    def _settle(self, answer: wire.Answer | None, pidfd: int | None) -> None:
        if pidfd is not None:
            if self._pidfd is not None:
                os.close(self._pidfd)
            self._pidfd = pidfd
        match answer:
            case wire.Started():
                self._ends_s = min(answer.at_s + self._job.timeout_s, self._job.deadline_s)
                self._timer.cancel()
                self._timer = self._loop.call_later(self._ends_s + KILL_GRACE_S - time.monotonic(), self._kill)
            case wire.Done():
                self.outcome.set_result(answer)
            case wire.Failed():
                self.outcome.set_exception(wire.error_of(answer))
            case None if self._ends_s and time.monotonic() >= self._ends_s:
                self._fail(TimedOut(f"the worker's alarm rang after {self._job.timeout_s} s"))
            case None:
                self._fail(_Died("the worker died under this job"))

    def _give_up(self) -> None:
        """No worker took the job in time. It stays in the queue, where a worker will skip it."""
        self._listen()
        if not self._ends_s:
            self._fail(Overloaded("no worker was free in time"))

    def _kill(self) -> None:
        """End a worker that outlived its own alarm, unless it has just answered and is on another job."""
        self._listen()
        if self.outcome.done():
            return
        if self._pidfd is not None:
            with contextlib.suppress(OSError):  # it has ended already
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._fail(TimedOut(f"the worker was killed after {self._job.timeout_s} s"))

    def _fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)
