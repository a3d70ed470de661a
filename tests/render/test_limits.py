"""Limits are read from the header: nothing that exceeds one is decoded."""

import time

import numpy as np
import pytest

from imgserve.adapters.render import wire
from imgserve.adapters.render.pipeline import Pipeline
from imgserve.core.errors import OverLimit, RenderFailed, Undecodable
from imgserve.core.plan import Plan
from tests.render import images


def limits(**changed: int) -> wire.Limits:
    defaults = {"max_original_bytes": 30_000_000, "max_original_pixels": 50_000_000, "max_side_px": 16_384}
    return wire.Limits(**{**defaults, **changed})


BOMBS = {
    # Valid headers found in the fuzz corpus of a PNG decoder: seconds of work, and a gigabyte of memory.
    "1 x 1057024 grey": lambda: images.png_of(1, 1_057_024, colour=0, rows=b"\0"),
    "786464 x 32 RGBA 16 bit": lambda: images.png_of(786_464, 32, depth=16, colour=6, rows=b"\0"),
    "2 x 16384": lambda: images.png_of(2, 16_384, colour=0, rows=b"\0"),
    "16384 x 16384": lambda: images.png_of(16_384, 16_384, colour=0, rows=b"\0"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_before_they_are_decoded(bomb: str) -> None:
    """Within a tenth of a second, and the answer names the limit."""
    original = BOMBS[bomb]()
    began_s = time.perf_counter()
    with pytest.raises(OverLimit, match="pixels") as caught:
        images.render(original, Plan(width_px=256))
    assert time.perf_counter() - began_s < 0.1
    assert str(caught.value) == caught.value.public.replace("The", "the", 1)


@pytest.mark.parametrize(
    ("width", "height", "changed", "named"),
    [
        (101, 50, {"max_side_px": 100}, "render.max_side_px"),
        (50, 101, {"max_side_px": 100}, "render.max_side_px"),
        (100, 51, {"max_original_pixels": 5000}, "render.max_original_pixels"),
        (10, 10, {"max_original_bytes": 50}, "render.max_original_bytes"),
    ],
)
def test_the_public_text_names_the_setting(width: int, height: int, changed: dict[str, int], named: str) -> None:
    """A user can tell the operator which limit it was."""
    with pytest.raises(OverLimit) as caught:
        images.render(images.png_of(width, height), limits=limits(**changed))
    assert named in caught.value.public


def test_at_the_limit_is_allowed() -> None:
    """The limits themselves are inside."""
    allowed = limits(max_side_px=100, max_original_pixels=5000)
    assert (100, 50) == images.array(images.render(images.png_of(100, 50), limits=allowed)[1]).shape[1::-1]


def test_bytes_of_pixels_are_bounded() -> None:
    """Many bands of wide samples are refused though their pixels are few: CVE-2026-69242 was of that kind."""
    wide = np.zeros((100, 100, 3), dtype=np.float32)
    with pytest.raises(OverLimit, match="bytes of pixels"):
        images.render(images.from_array(wide, "scrgb").tiffsave_buffer(), limits=limits(max_original_pixels=10_000))
    six = np.zeros((100, 100, 6), dtype=np.uint8)
    with pytest.raises(OverLimit, match="6 bands"):
        images.render(images.from_array(six, "multiband").tiffsave_buffer())


def test_avif_has_its_own_limit() -> None:
    """Its decoder takes up to 28 bytes of memory a pixel."""
    large = images.from_array(np.zeros((5_001, 5_000, 3), dtype=np.uint8))
    with pytest.raises(OverLimit, match="AVIF"):
        images.render(large.heifsave_buffer(compression="av1", effort=0))


def test_frames_are_bounded() -> None:
    """A GIF of more frames than are sensible is refused, though only its first one is shown."""
    one = images.noise(16, 16).gifsave_buffer()
    begin = one.index(b",", 13 + 3 * (2 << (one[10] & 7)) * (one[10] >> 7))
    frame = one[begin:-1]
    assert images.render(one[:begin] + frame * 2000 + b";")[0].width_px == 16
    with pytest.raises(OverLimit, match="frames"):
        images.render(one[:begin] + frame * 2001 + b";")


@pytest.mark.parametrize(
    "original",
    [
        b"",
        b"GIF89a",
        b"<html><svg",
        b"P6 1 1 255 abc",
        b"%PDF-1.7",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"\xff\xd8\xff",
        b"BM" + bytes(60),
    ],
)
def test_what_is_no_listed_image_is_undecodable(original: bytes) -> None:
    """Formats are allowed by name; the rest never reaches a decoder."""
    with pytest.raises(Undecodable):
        images.render(original)


def test_svg_is_refused_where_its_fonts_cannot_be_opened() -> None:
    """Without Landlock a worker may open no file, and text would vanish without an error."""
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>'
    assert images.render(svg)[0].width_px == 10
    with pytest.raises(Undecodable) as caught:
        images.render(svg, pipeline=Pipeline(allows_svg=False))
    assert "SVG" in caught.value.public


def test_failures_near_the_memory_limit_are_not_the_originals() -> None:
    """A decoder that fails for lack of room says nothing about the image."""
    damaged = images.noise(64, 64).pngsave_buffer()
    damaged = damaged[:-400] + bytes(20) + damaged[-380:]
    with pytest.raises(Undecodable):
        images.render(damaged)
    with pytest.raises(RenderFailed):
        images.render(damaged, pipeline=Pipeline(allows_svg=True, is_near_limit=lambda: True))
