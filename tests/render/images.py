"""Makes originals, renders them in this process, and reads variants back as arrays."""

import os
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pyvips

from imgserve.adapters.render import wire
from imgserve.adapters.render.pipeline import Pipeline, prepare
from imgserve.core.plan import Plan

Array = npt.NDArray[np.float64]

LIMITS = wire.Limits(max_original_bytes=30_000_000, max_original_pixels=50_000_000, max_side_px=16_384)

prepare()
_pipeline = Pipeline(allows_svg=True)


def render(
    original: bytes,
    plan: Plan | None = None,
    *formats: str,
    limits: wire.Limits = LIMITS,
    pipeline: Pipeline = _pipeline,
) -> tuple[wire.Done, bytes]:
    """The worker's answer and the variant's bytes; PNG where no format is asked. Raises as the pipeline does."""
    source, target = os.memfd_create("original"), os.memfd_create("variant")
    try:
        os.write(source, original + b"a cached file's trailer")
        job = wire.Job(
            plan=plan or Plan(),
            formats=formats or ("png",),
            original_bytes=len(original),
            limits=limits,
            timeout_s=10.0,
            deadline_s=0.0,
        )
        done = pipeline.render(job, source, target)
        return done, os.pread(target, done.size_bytes + 1, 0)
    finally:
        os.close(source)
        os.close(target)


_LOADERS = {
    b"\xff\xd8": pyvips.Image.jpegload_buffer,
    b"\x89P": pyvips.Image.pngload_buffer,
    b"RI": pyvips.Image.webpload_buffer,
    b"\0\0": pyvips.Image.heifload_buffer,
}


def image(variant: bytes) -> pyvips.Image:
    """A variant, opened."""
    return _LOADERS[variant[:2]](variant, fail_on="warning")


def array(variant: bytes) -> Array:
    """A variant's samples, height x width x bands, 0 to 255."""
    opened = image(variant)
    return np.asarray(opened.numpy(), dtype=np.float64).reshape(opened.height, opened.width, opened.bands)


def from_array(samples: npt.NDArray[np.generic], interpretation: str = "srgb") -> pyvips.Image:
    """An image of these samples."""
    return pyvips.Image.new_from_array(samples, interpretation=interpretation)


def noise(width: int, height: int, bands: int = 3, seed: int = 1) -> pyvips.Image:
    """Smooth random colours: what no codec, cut or turn leaves equal by chance."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 8 + 2, width // 8 + 2, bands)).astype(np.uint8)
    grown = from_array(coarse, "srgb" if bands > 2 else "b-w").resize(9, kernel="cubic")
    return grown.crop(0, 0, width, height)


def png_of(
    width: int, height: int, *, depth: int = 8, colour: int = 2, rows: bytes | None = None, interlaced: bool = False
) -> bytes:
    """A PNG made of its header fields alone; without rows it has pixels of zero."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    if rows is None:
        rows = bytes(height * (1 + (width * samples * depth + 7) // 8))
    body = zlib.compress(rows, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
