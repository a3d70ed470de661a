"""Which format is written, how, and when the original's own bytes are sent."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imgserve.adapters.render import wire
from imgserve.adapters.render.pipeline import Pipeline
from imgserve.core.errors import NoSpace
from imgserve.core.plan import Mode, Plan
from tests.render import images


def transparent(width: int = 64, height: int = 48) -> bytes:
    alpha = images.from_array(np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1)), "b-w")
    return bytes(images.noise(width, height).bandjoin(alpha).pngsave_buffer())


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><rect width="40" height="30"/></svg>'


@pytest.mark.parametrize(
    ("make", "asked", "expected"),
    [
        (lambda: images.noise(64, 48).jpegsave_buffer(), "plain", "image/jpeg"),
        (lambda: images.noise(64, 48).pngsave_buffer(), "plain", "image/png"),
        (lambda: images.noise(64, 48).gifsave_buffer(), "plain", "image/png"),
        (lambda: images.noise(64, 48).tiffsave_buffer(), "plain", "image/jpeg"),
        (lambda: images.noise(64, 48).webpsave_buffer(), "plain", "image/jpeg"),
        (lambda: images.noise(64, 48, 4).webpsave_buffer(), "plain", "image/png"),
        (lambda: SVG, "plain", "image/png"),
        (lambda: images.noise(64, 48).jpegsave_buffer(), "original", "image/jpeg"),
        (lambda: images.noise(64, 48).pngsave_buffer(), "original", "image/png"),
        (lambda: images.noise(64, 48).webpsave_buffer(), "original", "image/webp"),
        (lambda: images.noise(64, 48).heifsave_buffer(compression="av1"), "original", "image/avif"),
        (lambda: images.noise(64, 48).gifsave_buffer(), "original", "image/png"),
        (lambda: images.noise(64, 48).tiffsave_buffer(), "original", "image/png"),
        (lambda: SVG, "original", "image/png"),
        (transparent, "jpeg", "image/jpeg"),
        (transparent, "webp", "image/webp"),
        (transparent, "avif", "image/avif"),
    ],
)
def test_the_asked_format_is_written(make: Callable[[], bytes], asked: str, expected: str) -> None:
    """The type says what the bytes are."""
    done, variant = images.render(make(), Plan(width_px=20), asked)
    magic = {"image/jpeg": b"\xff\xd8", "image/png": b"\x89P", "image/webp": b"RI", "image/avif": b"\0\0"}
    assert (expected, magic[expected]) == (done.content_type, variant[:2])


def test_a_format_that_cannot_hold_the_image_is_passed_over() -> None:
    """AVIF ends at four megapixels, WebP at 16,383 px a side; after the last wish comes the plain one."""
    wide = images.png_of(3000, 2000)
    assert "image/webp" == images.render(wide, Plan(), "avif", "webp", "plain")[0].content_type
    assert "image/avif" == images.render(wide, Plan(width_px=2000), "avif", "webp")[0].content_type
    assert "image/png" == images.render(wide, Plan(), "avif")[0].content_type


def test_jpeg_is_progressive_and_subsampled() -> None:
    """SOF2, and chroma of half the size in both directions."""
    _, variant = images.render(images.noise(64, 64).pngsave_buffer(), Plan(), "jpeg")
    at = variant.index(b"\xff\xc2")
    assert (b"\x22", b"\x11", b"\x11") == tuple(variant[at + 11 + 3 * i : at + 12 + 3 * i] for i in range(3))


def test_quality_is_obeyed(corpus: Path) -> None:
    """Less quality, fewer bytes, in all three lossy formats."""
    original = (corpus / "web_china.jpg").read_bytes()
    for asked in ("jpeg", "webp", "avif"):
        sizes = [images.render(original, Plan(width_px=200, quality=q), asked)[0].size_bytes for q in (20, 50, 90)]
        assert sorted(sizes) == sizes
        assert len(set(sizes)) == 3


def test_alpha_is_kept_or_lies_on_a_background() -> None:
    """WebP and PNG keep it; JPEG gets white, or the asked colour, which every format gets when asked."""
    original = transparent()
    for asked in ("png", "webp", "avif"):
        assert images.array(images.render(original, Plan(), asked)[1]).shape[2] == 4
    corner = images.array(images.render(original, Plan(), "jpeg")[1])[20, 0]
    assert np.abs(corner - 255).max() < 12
    for asked in ("jpeg", "png"):
        red = images.array(images.render(original, Plan(background=(200, 10, 20)), asked)[1])
        assert red.shape[2] == 3
        assert np.abs(red[20, 0] - (200, 10, 20)).max() < 25


def test_padding_is_transparent_coloured_or_white() -> None:
    """A canvas has the asked colour, else none where there is alpha, else white."""
    box = Plan(width_px=50, height_px=100, mode=Mode.FIT)
    red = Plan(width_px=50, height_px=100, mode=Mode.FIT, background=(200, 10, 20))
    gray_on_red = Plan(width_px=50, height_px=100, mode=Mode.FIT, background=(200, 10, 20), gray=True)
    opaque = images.noise(64, 48).pngsave_buffer()
    assert [0] == images.array(images.render(transparent(), box)[1])[0, 0, 3:].tolist()
    assert [255, 255, 255] == images.array(images.render(opaque, box)[1])[0, 0].tolist()
    assert [200, 10, 20] == images.array(images.render(opaque, red)[1])[0, 0].tolist()
    assert [200, 10, 20] == images.array(images.render(opaque, gray_on_red)[1])[0, 0].tolist()
    gray = Plan(width_px=50, height_px=100, mode=Mode.FIT, gray=True)
    assert [255] == images.array(images.render(opaque, gray)[1])[0, 0].tolist()


BARE: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: images.noise(64, 48).jpegsave_buffer(Q=20, keep="none", optimize_coding=True),
    "png": lambda: images.noise(64, 48).pngsave_buffer(palette=True, bitdepth=4, compression=9, effort=10, keep="none"),
    "webp": lambda: images.noise(64, 48).webpsave_buffer(Q=10, keep="none"),
    "avif": lambda: images.noise(64, 48).heifsave_buffer(compression="av1", Q=10, effort=4, keep="none"),
}


@pytest.mark.parametrize("kind", BARE)
@pytest.mark.parametrize("asked", ["original", "own"])
def test_never_larger_than_a_bare_original(kind: str, asked: str) -> None:
    """A plan that changes no pixel answers with the original's own bytes where they are fewer."""
    original = BARE[kind]()
    for plan in (Plan(), Plan(width_px=64), Plan(width_px=64, height_px=48, mode=Mode.CROP)):
        done, variant = images.render(original, plan, kind if asked == "own" else asked)
        assert (True, original, len(original)) == (done.is_original, variant, done.size_bytes)


CHANGES = {
    "smaller": Plan(width_px=63),
    "flip": Plan(flip_horizontal=True),
    "turn": Plan(rotate_ccw_degrees=180),
    "gray": Plan(gray=True),
    "corner": Plan(top_left_px=(1, 0)),
    "padded": Plan(width_px=64, height_px=64, mode=Mode.FIT),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", BARE)
def test_a_changed_image_is_encoded(kind: str, change: str) -> None:
    """Every change of pixels, however small, makes a new file."""
    assert not images.render(BARE[kind](), CHANGES[change], kind)[0].is_original


def _with_exif(jpeg: bytes) -> bytes:
    return jpeg[:2] + b"\xff\xe1\x00\x0aExif\0\0xx" + jpeg[2:]


def _with_late_comment(jpeg: bytes) -> bytes:
    """A comment between two scans of a progressive file."""
    second = jpeg.index(b"\xff\xda", jpeg.index(b"\xff\xda") + 2)
    return jpeg[:second] + b"\xff\xfe\x00\x05Ada" + jpeg[second:]


def _with_chunk(png: bytes, name: bytes) -> bytes:
    return png[:33] + struct.pack(">I", 3) + name + b"Ada" + struct.pack(">I", zlib.crc32(name + b"Ada")) + png[33:]


DRESSED: dict[str, Callable[[], tuple[str, bytes]]] = {
    "jpeg EXIF": lambda: ("jpeg", _with_exif(BARE["jpeg"]())),
    "jpeg comment": lambda: ("jpeg", BARE["jpeg"]()[:2] + b"\xff\xfe\x00\x05Ada" + BARE["jpeg"]()[2:]),
    "jpeg late comment": lambda: (
        "jpeg",
        _with_late_comment(images.noise(64, 48).jpegsave_buffer(Q=20, keep="none", interlace=True)),
    ),
    "jpeg tail": lambda: ("jpeg", BARE["jpeg"]() + b"Ada"),
    "png text": lambda: ("png", _with_chunk(BARE["png"](), b"tEXt")),
    "png unknown": lambda: ("png", _with_chunk(BARE["png"](), b"adAa")),
    "png tail": lambda: ("png", BARE["png"]() + b"Ada"),
    "webp tail": lambda: ("webp", BARE["webp"]() + b"Ada"),
    "avif profile": lambda: (
        "avif",
        images.noise(64, 48)
        .icc_transform("p3", input_profile="srgb")
        .heifsave_buffer(compression="av1", Q=10, effort=4, keep="icc"),
    ),
    # Few bytes, and no profile; but its colours are not what browsers take them for.
    "jpeg CMYK": lambda: (
        "jpeg",
        images.from_array(np.full((48, 64, 4), 90, np.uint8), "cmyk").jpegsave_buffer(Q=5, keep="none"),
    ),
    "png 16 bit": lambda: ("png", images.noise(64, 48).colourspace("rgb16").pngsave_buffer(keep="none")),
}


@pytest.mark.parametrize("dress", DRESSED)
def test_an_original_with_more_than_pixels_is_never_sent(dress: str) -> None:
    """Anything beside pixels, known or not, and the own bytes stay at home, even when they are fewer."""
    kind, original = DRESSED[dress]()
    done, variant = images.render(original, Plan(), kind)
    assert not done.is_original
    assert b"Ada" not in variant


def test_a_full_disk_is_no_space() -> None:
    """Every saver's failure to write is told from a bad original."""
    body = images.noise(256, 256).pngsave_buffer()
    original, full = os.memfd_create("original"), os.open("/dev/full", os.O_RDWR)
    os.write(original, body)
    try:
        for asked in ("jpeg", "png", "webp", "avif"):
            job = wire.Job(
                plan=Plan(),
                formats=(asked,),
                original_bytes=len(body),
                limits=images.LIMITS,
                timeout_s=1.0,
                deadline_s=0.0,
            )
            with pytest.raises(NoSpace):
                Pipeline(allows_svg=True).render(job, original, full)
    finally:
        os.close(original)
        os.close(full)


def test_the_shared_offset_of_the_original_is_left_alone() -> None:
    """Two jobs may read one open file: neither moves the other's place."""
    body = images.noise(64, 64).jpegsave_buffer()
    original, target = os.memfd_create("original"), os.memfd_create("variant")
    try:
        os.write(original, body)
        os.lseek(original, 7, os.SEEK_SET)
        job = wire.Job(
            plan=Plan(width_px=16),
            formats=("webp",),
            original_bytes=len(body),
            limits=images.LIMITS,
            timeout_s=1.0,
            deadline_s=0.0,
        )
        Pipeline(allows_svg=True).render(job, original, target)
        assert 7 == os.lseek(original, 0, os.SEEK_CUR)
    finally:
        os.close(original)
        os.close(target)
