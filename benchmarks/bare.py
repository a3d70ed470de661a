"""Scaling images with nothing but pyvips, in as many processes as a node has workers: what a node is measured against.

Each process takes the next job from a pipe that all share, so none idles while there is work, as with a node's queue.
It does what anybody would write who wants the same bytes: the loader by name, shrinking while it decodes, one resize,
the turn that EXIF asks for, and the saver with the same settings, from file to file.
``python -m benchmarks.bare JOBS FOLDER`` is such a process.
"""

import contextlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from benchmarks import servers

SAVERS: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "jpeg": ("jpegsave", {"Q": 80, "interlace": True, "optimize_coding": True, "subsample_mode": "on"}),
    "webp": ("webpsave", {"Q": 79, "effort": 4}),
    "avif": ("heifsave", {"Q": 60, "effort": 1, "compression": "av1"}),
}

_RECORD: Final = struct.Struct("=II")  # a serial number, which names the output, and the job's index
_END: Final = 0xFFFFFFFF
_NICENESS: Final = 5  # as a node's workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An image to make. ``height`` is in proportion; ``path`` names a JPEG or a PNG in sRGB."""

    path: str
    width: int
    format: str


class Pool:
    """The processes; a context manager."""

    def __init__(self, jobs: Sequence[Job], processes: int, folder: Path) -> None:
        self._jobs = jobs
        self._folder = folder
        self._serial = 0
        self._stack = contextlib.ExitStack()
        description = folder / "jobs.json"
        description.write_text(json.dumps([asdict(job) for job in jobs]), encoding="utf-8")
        jobs_reading, self._jobs_writing = os.pipe()
        self._done_reading, done_writing = os.pipe()
        # Unbounded work would block us here; a round fits the pipe many times over.
        arguments = [sys.executable, "-m", "benchmarks.bare", str(description), str(folder)]
        self._processes = [
            subprocess.Popen(
                arguments,
                cwd=servers.PROJECT,
                stdin=jobs_reading,
                stdout=done_writing,
                env={**os.environ, "VIPS_CONCURRENCY": "1"},
            )
            for _ in range(processes)
        ]
        os.close(jobs_reading)
        os.close(done_writing)

    def run(self, order: Sequence[int]) -> list[Path]:
        """Make these jobs, by their indexes; where the outputs lie."""
        serials = range(self._serial, self._serial + len(order))
        self._serial += len(order)
        os.write(self._jobs_writing, b"".join(map(_RECORD.pack, serials, order)))
        self._await(len(order))
        return [self._folder / str(serial) for serial in serials]

    def cpu_s(self) -> float:
        """User and system time so far."""
        return sum(sum(servers.cpu_seconds(process.pid).values()) for process in self._processes)

    def close(self) -> None:
        """End the processes."""
        if self._jobs_writing >= 0:
            os.write(self._jobs_writing, _RECORD.pack(_END, _END) * len(self._processes))
            os.close(self._jobs_writing)
            os.close(self._done_reading)
            self._jobs_writing = -1
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _await(self, count: int) -> None:
        while count:
            done = os.read(self._done_reading, count)
            if not done:
                raise RuntimeError("a bare process failed; what is above says why")
            count -= len(done)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def scaled(job: Job, *, may_shrink: bool = True) -> Any:
    """The image at the job's size, lazily. ``may_shrink`` False decodes every pixel, for a reference."""
    import pyvips

    is_jpeg = not job.path.endswith(".png")
    load = pyvips.Image.jpegload if is_jpeg else pyvips.Image.pngload
    options: dict[str, object] = {"access": "sequential", "fail_on": "warning"}
    image = load(job.path, **options)
    orientation = image.get("orientation") if image.get_typeof("orientation") else 1
    width, height = image.width, image.height
    is_turned = orientation >= 5
    across = job.width / (height if is_turned else width)
    target = (int(width * across + 0.5), int(height * across + 0.5))
    if may_shrink and is_jpeg and across <= 1 / 4:
        image = load(job.path, shrink=max(n for n in (2, 4, 8) if across * n * 2 <= 1), **options)
    image = image.resize(target[0] / image.width, vscale=target[1] / image.height)
    return image.copy_memory().autorot() if orientation > 1 else image


def main(description: Path, folder: Path) -> None:
    """Take jobs from standard input until the end, and say one byte on standard output for each."""
    import pyvips

    os.nice(_NICENESS)
    pyvips.cache_set_max(0)
    jobs = [Job(**one) for one in json.loads(description.read_text(encoding="utf-8"))]
    while len(record := os.read(0, _RECORD.size)) == _RECORD.size:
        serial, index = _RECORD.unpack(record)
        if serial == _END:
            return
        saver, options = SAVERS[jobs[index].format]
        getattr(scaled(jobs[index]), saver)(str(folder / str(serial)), keep="none", **options)
        os.write(1, b".")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
