"""Draws one sample into a file: ``python -m imgserve.demo.draw NAME FILE``. Runs as a process of its own, because
it renders with the workers' code, and pyvips never enters a process that serves."""

import os
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from imgserve.core.plan import Plan
from imgserve.demo import scenes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A picture of the demo. ``orientation`` is what its EXIF says: its pixels are stored lying on their side."""

    scene: Callable[[], str]
    kind: Literal["jpeg", "png", "svg"]
    orientation: int = 1


SAMPLES: Final = {
    "lake.jpg": Sample(scene=scenes.lake, kind="jpeg"),
    "islands.jpg": Sample(scene=scenes.relief, kind="jpeg"),
    "balloons.jpg": Sample(scene=scenes.balloons, kind="jpeg", orientation=6),
    "logo.png": Sample(scene=scenes.logo, kind="png"),
    "poster.svg": Sample(scene=scenes.poster, kind="svg"),
}
_TURNED_CW: Final = 6  # EXIF: show it turned by 90 degrees clockwise
_QUALITY: Final = 90


def draw(sample: Sample) -> bytes:
    """The picture as a file's content."""
    drawing = sample.scene().encode()
    if sample.kind == "svg":
        return drawing
    turn = 90 if sample.orientation == _TURNED_CW else 0
    content = _rasterised(drawing, Plan(rotate_ccw_degrees=turn, quality=_QUALITY), sample.kind)
    return _with_orientation(content, sample.orientation) if sample.orientation > 1 else content


def _rasterised(drawing: bytes, plan: Plan, kind: str) -> bytes:
    """What the workers make of a drawing; ours needs no sandbox."""
    from imgserve.adapters.render import pipeline, wire

    pipeline.prepare()
    limits = wire.Limits(max_original_bytes=len(drawing), max_original_pixels=10_000_000, max_side_px=10_000)
    job = wire.Job(
        plan=plan, formats=(kind,), original_bytes=len(drawing), limits=limits, timeout_s=300, deadline_s=float("inf")
    )
    original, target = os.memfd_create("drawing"), os.memfd_create("picture")
    os.write(original, drawing)
    done = pipeline.Pipeline(allows_svg=True).render(job, original, target)
    return os.pread(target, done.size_bytes, 0)


def _with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The same JPEG with an Exif segment right behind its first marker (Exif 2.32, section 4.5)."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = struct.pack("<2sHIH", b"II", 42, 8, 1) + entry + struct.pack("<I", 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def main(name: str, path: Path) -> None:
    """Draw into a file that appears whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(draw(SAMPLES[name]))
    draft.replace(path)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
