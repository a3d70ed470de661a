"""Real workers for tests: each a fresh process on one queue, replaced when it dies, as the supervisor does."""

import dataclasses
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from imgserve.adapters.render.pool import WorkerPool, make_queue
from imgserve.adapters.render.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PROCESS = Path(__file__).with_name("worker_process.py")


class Fleet:
    """A queue, its workers, and pools for as many fronts as are wanted. Use as a context manager."""

    def __init__(
        self,
        *,
        workers: int = 1,
        render: str = "pipeline",
        settings: Settings | None = None,
        depth: int = 64,
        recycling: dict[str, float] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self._wanted = workers
        self._render = render
        self._recycling = recycling or {}
        self.sending, self.receiving = make_queue(depth)
        self.statuses: list[int] = []  # of the workers that have ended
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._quit_reading, self._quit_writing = os.pipe()
        self._keeper = threading.Thread(target=self._keep, name="fleet")

    def __enter__(self) -> Self:
        for _ in range(self._wanted):
            self.start_worker()
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._quit_writing)
        if self._keeper.is_alive():
            self._keeper.join(30)
        for process in self._processes.values():
            process.kill()
            process.wait()
        for pidfd in self._processes:
            os.close(pidfd)
        os.close(self._quit_reading)
        self.sending.close()
        self.receiving.close()

    def pool(self, *, queue_wait_s: float = 60.0) -> WorkerPool:
        """A front's end of the queue. It is patient: machines that test are slow."""
        return WorkerPool(self.sending, self.settings, queue_wait_s=queue_wait_s)

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the workers that are alive."""
        return tuple(process.pid for process in self._processes.values())

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start one and wait until it is ready."""
        reading, writing = os.pipe()
        arguments: Sequence[str] = (
            sys.executable,
            str(PROCESS),
            str(self.receiving.fileno()),
            str(writing),
            json.dumps(dataclasses.asdict(self.settings)),
            json.dumps(self._recycling),
            self._render,
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(arguments, pass_fds=(self.receiving.fileno(), writing), env=environment)
        os.close(writing)
        try:
            if os.read(reading, 1) != b"!":
                raise RuntimeError(f"a worker did not start: {process.wait()}")
        finally:
            os.close(reading)
        self._processes[os.pidfd_open(process.pid)] = process
        return process

    def _keep(self) -> None:
        while True:
            ready, _, _ = select.select([self._quit_reading, *self._processes], [], [])
            if self._quit_reading in ready:
                return
            for pidfd in ready:
                self.statuses.append(self._processes.pop(pidfd).wait())
                os.close(pidfd)
                self.start_worker()
