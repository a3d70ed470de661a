"""New images: a node that renders every request against pyvips alone in as many processes as the node has workers.

Both make the same images from the same files in the same order, with the same settings of the encoders, and the bytes
are compared. The node's way is the whole one: HTTP on loopback, parsing, the flight, the queue, the sandboxed worker,
publishing, answer, access log; the client shares its cores. *Original cached* asks for variants of originals that the
node has, made cold by a background colour that an opaque image never shows; *with fetch* adds a cache-buster, so that
the node also gets the original anew: from a folder, into its cache. CPU time is that of all processes of the node.
No file is deleted before the end: ext4 passes over inodes that were deleted lately, which makes each new one dearer.
"""

import contextlib
import itertools
import math
import operator
import os
import random
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from rich.console import Console
from rich.table import Table

from benchmarks import bare, harness, servers
from benchmarks.bare import Job

PHOTOS: Final = (
    "camera_spices_gps.jpg",
    "camera_iphone_gps.jpg",
    "camera_pigeon_3082px.jpg",
    "camera_nokia_gps_4608px.jpg",
    "camera_lake_progressive.jpg",
    "camera_dogs_portrait.jpg",
    "camera_tea_444.jpg",
    "camera_dog_orient6.jpg",
    "web_flower_444.jpg",
    "face_kodim15.png",
)
"""Of the corpus: opaque and in sRGB, baseline and progressive JPEG of 3 to 12 megapixels, and a PNG."""

DEMO_PHOTOS: Final = ("lake.jpg", "islands.jpg", "balloons.jpg")

WIDTHS: Final = {"jpeg": (400, 800, 1200), "webp": (400, 800), "avif": (400, 800)}
ROUNDS: Final = 5
_ROUND_S: Final = 1.5  # about; a round makes the whole set once or several times
_SETTLE_S: Final = 0.25  # the log goes to the keeper five times a second
_CONNECTIONS_PER_WORKER: Final = 4
_SCORED_WIDTH: Final = 800
_SSIM_SIGMA: Final = 1.5  # Wang, Bovik, Sheikh and Simoncelli 2004


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRow(harness.Row):
    """A row, with what it says beside time.

    ``ratio`` is throughput against bare pyvips, by pairs of rounds; ``others`` how much of the machine's cores other
    programs had in the worst round: above a few percent the row is worth little.
    """

    ratio: float
    ratio_low: float
    ratio_high: float
    cpu_ms_by_process: dict[str, float]
    image_bytes: int
    same_bytes: int
    images: int
    psnr_db: float
    ssim: float
    others: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Of one format's images by one side: how many are the other's too, their size, and how true they are."""

    images: int
    same: int
    size_bytes: int
    psnr_db: float
    ssim: float


class Connection:
    """A connection that stays open. It does no more than it must: it works on the cores that are measured."""

    _HEAD: Final = "".join(f"{name}: {value}\r\n" for name, value in servers.BROWSER.items())

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, target: str) -> bytes:
        """The body of a fresh render; raises RuntimeError for anything else."""
        self._socket.sendall(f"GET {target} HTTP/1.1\r\n{self._HEAD}\r\n".encode())
        seen = b""
        while (end := seen.find(b"\r\n\r\n")) < 0:
            piece = self._socket.recv(65_536)
            if not piece:
                raise RuntimeError(f"{target}: the connection was closed")
            seen += piece
        head = seen[:end]
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        if not head.startswith(b"HTTP/1.1 200 ") or b"fwd=miss" not in head or length is None:
            raise RuntimeError(f"{target}: {seen[:500]!r}")
        body = bytearray(int(length[1]))
        at = len(seen) - end - 4
        body[:at] = seen[end + 4 :]
        view = memoryview(body)
        while at < len(body):
            count = self._socket.recv_into(view[at:])
            if not count:
                raise RuntimeError(f"{target}: the body was cut")
            at += count
        return bytes(body)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()


class Client:
    """Asks a node for images over connections that stay open. Every answer must be a fresh render."""

    def __init__(self, node: servers.Node, jobs: Sequence[Job], connections: int) -> None:
        self._node = node
        self._jobs = jobs
        self._connections = connections
        self._serials = itertools.count(1)

    def target(self, index: int, *, with_fetch: bool) -> str:
        """A URL of the job that nobody has asked for."""
        job, serial = self._jobs[index], next(self._serials)
        name = Path(job.path).name
        buster = f"&v={serial}" if with_fetch else ""
        return f"/v7/_corpus_/{name}?w={job.width}&force_format={job.format}&bg_color={serial:06x}{buster}"

    def run(self, order: Sequence[int], *, with_fetch: bool) -> None:
        """Ask for all, several at a time; raises RuntimeError when one is refused or was not rendered."""
        targets = iter([self.target(index, with_fetch=with_fetch) for index in order])
        lock = threading.Lock()
        problems: list[Exception] = []

        def work() -> None:
            with Connection(self._node.port) as connection:
                while not problems:
                    with lock:
                        target = next(targets, None)
                    if target is None:
                        return
                    try:
                        connection.ask(target)
                    except Exception as error:  # noqa: BLE001 - a thread's top: told to the one who waits
                        problems.append(error)

        threads = [threading.Thread(target=work) for _ in range(self._connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise RuntimeError(f"the node failed: {problems[0]}") from problems[0]


class Measured:
    """One variant of a case; keeps every sample, for ratios by pairs."""

    def __init__(
        self, count: int, run: Callable[[], object], cpu_s: Callable[[], dict[str, float]], *, settle_s: float = 0
    ) -> None:
        """``settle_s`` is what the side still works behind its answers: that is CPU time, and not wall time."""
        self._count = count
        self._run = run
        self._cpu_s = cpu_s
        self._settle_s = settle_s
        self.rates: list[float] = []
        self.cpu_ms: defaultdict[str, list[float]] = defaultdict(list)
        self.others: list[float] = []

    def __call__(self) -> harness.Sample:
        """Take a sample."""
        before, own_s, busy_s = self._cpu_s(), servers.own_seconds(), servers.busy_seconds()
        began_s = time.perf_counter()
        self._run()
        wall_s = time.perf_counter() - began_s
        time.sleep(self._settle_s)
        spent = {name: after - before.get(name, 0.0) for name, after in self._cpu_s().items()}
        ours_s = sum(spent.values()) + servers.own_seconds() - own_s
        self.others.append(servers.share_of_others(servers.busy_seconds() - busy_s - ours_s, wall_s + self._settle_s))
        self.rates.append(self._count / wall_s)
        for name, seconds in spent.items():
            self.cpu_ms[name].append(seconds / self._count * 1e3)
        return harness.Sample(operations=self._count, wall_s=wall_s, cpu_s=sum(spent.values()))


def main() -> None:
    """Every format with cached originals, and JPEG with fetching."""
    workers = len(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        folder, names = originals(stack)
        jobs = _jobs(folder, names)
        outputs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imgserve-bench-")))
        pool = stack.enter_context(bare.Pool(jobs, workers, outputs))
        node = stack.enter_context(servers.Node(folder, processes=0, workers=workers))
        client = Client(node, jobs, workers * _CONNECTIONS_PER_WORKER)
        qualities = {form: _compare_images(form, jobs, pool, node, client) for form in WIDTHS}
        rows: list[NewRow] = []
        for form, with_fetch in (*((form, False) for form in WIDTHS), ("jpeg", True)):
            order = _order(form, jobs, pool)
            case = f"{form.upper() if form != 'webp' else 'WebP'}, {'with fetch' if with_fetch else 'original cached'}"
            node_side = Measured(
                len(order),
                partial(client.run, order, with_fetch=with_fetch),
                partial(servers.cpu_seconds, node.pid),
                settle_s=_SETTLE_S,
            )
            bare_side = Measured(len(order), partial(pool.run, order), lambda: {"bare": pool.cpu_s()})
            found = harness.compare(case, {"imgserve": node_side, "bare pyvips": bare_side}, rounds=ROUNDS)
            rows += _joined(found, (node_side, bare_side), qualities[form])
    about = f"new images on {workers} cores: a whole node against pyvips alone in {workers} processes"
    harness.report("new", rows, about=about)
    _show(rows)


def originals(stack: contextlib.ExitStack) -> tuple[Path, tuple[str, ...]]:
    """Where the originals lie, and which are used: the corpus, else what the demo draws."""
    if all((servers.CORPUS / name).exists() for name in PHOTOS):
        return servers.CORPUS, PHOTOS
    from imgserve.demo import folder

    print("no corpus: the demo's pictures are drawn instead", file=sys.stderr)
    drawn = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imgserve-bench-")))
    folder.make(drawn, lambda _: None)
    return drawn / "samples", DEMO_PHOTOS


def _jobs(folder: Path, names: Sequence[str]) -> list[Job]:
    """All originals at all widths that are smaller than they are."""
    import pyvips

    jobs = []
    for name in names:
        image = pyvips.Image.new_from_file(str(folder / name))
        smallest = min(image.width, image.height)
        for form, widths in WIDTHS.items():
            jobs += [Job(path=str(folder / name), width=width, format=form) for width in widths if width < smallest]
    return jobs


def _order(form: str, jobs: Sequence[Job], pool: bare.Pool) -> list[int]:
    """The jobs of a round: the format's, as often as bare pyvips makes them in the time of a round, shuffled."""
    indexes = [index for index, job in enumerate(jobs) if job.format == form]
    began_s = time.perf_counter()
    pool.run(indexes)
    times = max(1, round(_ROUND_S / (time.perf_counter() - began_s)))
    order = indexes * times
    random.Random(1).shuffle(order)
    return order


def _compare_images(
    form: str, jobs: Sequence[Job], pool: bare.Pool, node: servers.Node, client: Client
) -> tuple[Quality, Quality]:
    """Make each image once on both sides; this also brings the originals into the node's cache."""
    indexes = [index for index, job in enumerate(jobs) if job.format == form]
    paths = pool.run(indexes)
    with Connection(node.port) as connection:
        bodies = [connection.ask(client.target(index, with_fetch=False)) for index in indexes]
    bare_bodies = [path.read_bytes() for path in paths]
    same = sum(map(operator.eq, bodies, bare_bodies))
    quality = _quality([jobs[index] for index in indexes], bodies, same)
    if same == len(indexes):
        return quality, quality
    return quality, _quality([jobs[index] for index in indexes], bare_bodies, same)


def _quality(jobs: Sequence[Job], bodies: Sequence[bytes], same: int) -> Quality:
    """Sizes of all, and scores of one width."""
    scores = [_score(body, job) for job, body in zip(jobs, bodies, strict=True) if job.width == _SCORED_WIDTH]
    return Quality(
        images=len(jobs),
        same=same,
        size_bytes=sum(map(len, bodies)),
        psnr_db=statistics.fmean(psnr_db for psnr_db, _ in scores),
        ssim=statistics.fmean(ssim for _, ssim in scores),
    )


def _score(body: bytes, job: Job) -> tuple[float, float]:
    """PSNR and SSIM of luma against the original, decoded whole and then scaled, never compressed."""
    import pyvips

    image, reference = (
        one.colourspace("b-w").cast("float").copy_memory()
        for one in (pyvips.Image.new_from_buffer(body, ""), bare.scaled(job, may_shrink=False))
    )
    error = ((image - reference) ** 2).avg()
    psnr_db = 10 * math.log10(255**2 / max(error, 1e-9))
    return psnr_db, _ssim(image, reference)


def _ssim(image: Any, reference: Any) -> float:
    """Structural similarity, its mean over the image, in windows by a Gaussian."""

    def blur(one: Any) -> Any:
        return one.gaussblur(_SSIM_SIGMA, precision="float")

    steady, spread = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean, mean_reference = blur(image), blur(reference)
    variance = blur(image * image) - mean * mean
    variance_reference = blur(reference * reference) - mean_reference * mean_reference
    covariance = blur(image * reference) - mean * mean_reference
    likeness = (mean * mean_reference * 2 + steady) * (covariance * 2 + spread)
    scale = (mean * mean + mean_reference * mean_reference + steady) * (variance + variance_reference + spread)
    return float((likeness / scale).avg())


def _joined(rows: Sequence[harness.Row], sides: Sequence[Measured], qualities: Sequence[Quality]) -> Iterator[NewRow]:
    """The harness's rows with ratios and quality; the first sample of a side was its warm-up."""
    for row, side, quality in zip(rows, sides, qualities, strict=True):
        ratios = [own / bare_rate for own, bare_rate in zip(side.rates[1:], sides[-1].rates[1:], strict=True)]
        yield NewRow(
            **asdict(row),
            ratio=statistics.median(ratios),
            ratio_low=min(ratios),
            ratio_high=max(ratios),
            cpu_ms_by_process={name: round(statistics.fmean(each[1:]), 2) for name, each in side.cpu_ms.items()},
            image_bytes=quality.size_bytes // quality.images,
            same_bytes=quality.same,
            images=quality.images,
            psnr_db=quality.psnr_db,
            ssim=quality.ssim,
            others=max(side.others[1:]),
        )


def _show(rows: Sequence[NewRow]) -> None:
    """What the harness's table does not say."""
    table = Table(title="throughput against bare pyvips, and what was made", title_justify="left")
    for heading in (
        "case",
        "variant",
        "ratio",
        "lowest, highest",
        "CPU ms per image",
        "bytes",
        "same",
        "PSNR",
        "SSIM",
        "others",
    ):
        table.add_column(heading, justify="left" if heading in {"case", "variant"} else "right")
    for row in rows:
        by_process = sorted(row.cpu_ms_by_process.items(), key=lambda pair: -pair[1])
        table.add_row(
            row.case,
            row.variant,
            f"{row.ratio:.3f}",
            f"{row.ratio_low:.3f}, {row.ratio_high:.3f}",
            ", ".join(f"{name} {spent:.1f}" for name, spent in by_process if spent >= 0.05),
            f"{row.image_bytes:,}",
            f"{row.same_bytes} of {row.images}",
            f"{row.psnr_db:.2f} dB",
            f"{row.ssim:.4f}",
            f"{row.others:.0%}",
        )
    Console(stderr=True, width=150).print(table)


if __name__ == "__main__":
    main()
