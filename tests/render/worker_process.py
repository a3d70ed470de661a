"""One real worker as a process of its own: ``worker_process.py QUEUE_FD READY_FD SETTINGS_JSON RENDER``.

RENDER names what takes the pipeline's place, or is ``pipeline``. The others do what their first job format says, from
inside the sandbox, so that tests can make a real worker crash, hang, eat memory or try to break out.
"""

import ctypes
import fcntl  # noqa: F401 - what tests use inside the sandbox is loaded before it
import json
import os
import signal
import socket
import sys
import termios  # noqa: F401
import time
from collections.abc import Callable

import msgspec

from imgserve.adapters.render import wire
from imgserve.adapters.render.settings import Settings
from imgserve.core import errors
from imgserve.node import worker


def crash(job: wire.Job) -> None:
    """A wild pointer, as a decoder's bug would give."""
    ctypes.string_at(0)


def hang(job: wire.Job) -> None:
    """Compute for ever."""
    while True:
        pass


def hang_deaf(job: wire.Job) -> None:
    """Compute for ever, with the alarm blocked: only the front's hard kill ends this."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    while True:
        pass


def abort(job: wire.Job) -> None:
    """As the C library does when its heap is damaged."""
    os.abort()


def eat(job: wire.Job) -> None:
    """Take memory and touch it, without end; a part is only taken, so that the end is soon."""
    hoard = [bytes(400_000_000)]
    while True:
        hoard.append(b"x" * 50_000_000)


def eat_in_c(job: wire.Job) -> None:
    """As a decoder takes it: malloc gives nothing at the limit, and the pointer is used."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    while True:
        ctypes.memset(libc.malloc(ctypes.c_size_t(50_000_000)) or 0, 1, 50_000_000)


def raise_bug(job: wire.Job) -> None:
    raise ZeroDivisionError


def fail_disk(job: wire.Job) -> None:
    raise errors.NoSpace("full")


def sleep(job: wire.Job) -> None:
    time.sleep(0.3)


MISCHIEF: dict[str, Callable[[wire.Job], None]] = {
    action.__name__: action for action in (crash, hang, hang_deaf, abort, eat, eat_in_c, raise_bug, fail_disk, sleep)
}


def mischief(job: wire.Job, original_fd: int, target_fd: int) -> wire.Done:
    """Do what the first format names; ``ok`` copies the original; ``ok 5`` takes 5 ms for it."""
    name, _, argument = job.formats[0].partition(" ")
    if name in MISCHIEF:
        MISCHIEF[name](job)
    time.sleep(float(argument or 0) / 1000)
    body = os.pread(original_fd, job.original_bytes, 0)
    os.pwrite(target_fd, body, 0)
    os.lseek(target_fd, len(body), os.SEEK_SET)
    return wire.Done(content_type="image/png", size_bytes=len(body), width_px=1, height_px=os.getpid(), render_us=1)


def escape(job: wire.Job, original_fd: int, target_fd: int) -> wire.Done:
    """Run the code in the original and write what it printed, or the error it met, into the target."""
    scope: dict[str, object] = {}
    try:
        exec(os.pread(original_fd, job.original_bytes, 0), scope)
        said = str(scope.get("result", "done"))
    except OSError as error:
        said = f"{type(error).__name__} {error.errno}"
    os.pwrite(target_fd, said.encode(), 0)
    return wire.Done(content_type="text/plain", size_bytes=len(said), width_px=1, height_px=1)


RENDERS: dict[str, worker.Render | None] = {"pipeline": None, "mischief": mischief, "escape": escape}


def main() -> None:
    queue_fd, ready_fd, settings, recycling, name = sys.argv[1:]

    def on_ready() -> None:
        os.write(int(ready_fd), b"!")
        os.close(int(ready_fd))

    worker.main(
        socket.socket(fileno=int(queue_fd)),
        Settings(**json.loads(settings)),
        on_ready,
        render=RENDERS[name],
        recycling=msgspec.convert(json.loads(recycling), worker.Recycling),
    )


if __name__ == "__main__":
    main()
