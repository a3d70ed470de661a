"""Colours come out as sRGB, compared with formulas of the standards that are written down here.

Differences are CIE76 delta E in CIELAB (D65); below 2.3 the eye sees none.
"""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pyvips

from imgserve.adapters.render import profiles
from imgserve.core.plan import Plan
from tests.render import images
from tests.render.images import Array

SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
ADOBE_TO_XYZ = np.array(
    [[0.5767309, 0.1855540, 0.1881852], [0.2973769, 0.6273491, 0.0752741], [0.0270343, 0.0706872, 0.9911085]]
)
P3_TO_XYZ = np.array(
    [[0.4865709, 0.2656677, 0.1982173], [0.2289746, 0.6917385, 0.0792869], [0.0000000, 0.0451134, 1.0439444]]
)
D50_TO_D65 = np.array(  # Bradford
    [[0.9555766, -0.0230393, 0.0631636], [-0.0282895, 1.0099416, 0.0210077], [0.0122982, -0.0204830, 1.3299098]]
)
D65, D50 = np.array([0.95047, 1.0, 1.08883]), np.array([0.9642, 1.0, 0.8249])


def linear(srgb: Array) -> Array:
    value = srgb / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def companded(value: Array) -> Array:
    value = np.clip(value, 0, 1)
    return 255 * np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)


def lab(srgb: Array) -> Array:
    ratio = linear(srgb) @ SRGB_TO_XYZ.T / D65
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def delta_e(left: Array, right: Array) -> Array:
    return np.asarray(np.linalg.norm(lab(left) - lab(right), axis=-1))


def patches(seed: int, count: int = 400) -> Array:
    """sRGB colours, all over the cube."""
    return np.random.default_rng(seed).integers(0, 256, (20, count // 20, 3)).astype(np.float64)


def adobe(srgb: Array) -> Array:
    """The same colours in Adobe RGB (1998), whose cube holds that of sRGB but for a corner."""
    value = linear(srgb) @ SRGB_TO_XYZ.T @ np.linalg.inv(ADOBE_TO_XYZ).T
    return np.asarray(255 * np.clip(value, 0, 1) ** (256 / 563))


def display_p3(srgb: Array) -> Array:
    """The same colours in Display P3, which has the curve of sRGB."""
    return companded(linear(srgb) @ SRGB_TO_XYZ.T @ np.linalg.inv(P3_TO_XYZ).T)


def with_profile(samples: Array, profile: bytes) -> pyvips.Image:
    image = images.from_array(np.round(samples).astype(np.uint8))
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    return image


def profile_of(path: Path) -> bytes:
    return bytes(pyvips.Image.jpegload(str(path)).get("icc-profile-data"))


def builtin(name: str) -> bytes:
    return bytes(pyvips.Operation.call("profile_load", name))


@pytest.mark.parametrize("save", ["pngsave_buffer", "tiffsave_buffer", "webpsave_buffer"])
def test_adobe_rgb(save: str, corpus: Path) -> None:
    """A camera's profile is applied: mean 0.6, at most 2.3 (8 bits in the wide space are coarse)."""
    colours = patches(1)
    options = {"lossless": True} if save.startswith("webp") else {}
    image = with_profile(adobe(colours), profile_of(corpus / "camera_wren_adobergb.jpg"))
    seen = images.array(images.render(getattr(image, save)(**options))[1])
    difference = delta_e(seen, colours)
    assert difference.mean() <= 0.6
    assert difference.max() <= 2.3
    assert delta_e(adobe(colours), colours).mean() > 3  # what ignoring the profile would give


@pytest.mark.parametrize("source", ["corpus", "libvips"])
def test_display_p3(source: str, corpus: Path) -> None:
    """Phones' wide colours: mean 0.6, at most 2.3."""
    colours = patches(2)
    profile = profile_of(corpus / "derived_spices_displayp3_1600.jpg") if source == "corpus" else builtin("p3")
    seen = images.array(images.render(with_profile(display_p3(colours), profile).pngsave_buffer())[1])
    difference = delta_e(seen, colours)
    assert difference.mean() <= 0.6
    assert difference.max() <= 2.3


def test_a_real_photo_in_display_p3(corpus: Path) -> None:
    """The photo that was converted from sRGB shows the same colours as its source, but for JPEG: mean below 2."""
    plan = Plan(width_px=400)
    seen = images.array(images.render((corpus / "derived_spices_displayp3_1600.jpg").read_bytes(), plan)[1])
    source = images.array(images.render((corpus / "camera_spices_gps.jpg").read_bytes(), plan)[1])
    rows = min(len(seen), len(source))
    assert delta_e(seen[:rows], source[:rows]).mean() <= 2.0


def test_an_srgb_profile_changes_nothing(corpus: Path) -> None:
    """It is recognised by its numbers, and costs no conversion."""
    colours = patches(3)
    for profile in (builtin("srgb"), profile_of(corpus / "camera_tea_444.jpg")):
        assert profiles.is_srgb(profile)
        seen = images.array(images.render(with_profile(colours, profile).pngsave_buffer())[1])
        assert np.array_equal(colours, seen)


@pytest.mark.parametrize("kind", ["p3", "cmyk", "cut", "empty", "curve", "matrix"])
def test_other_profiles_are_not_taken_for_srgb(kind: str) -> None:
    """A wide or damaged profile, or one with another curve or matrix, is applied, not skipped."""
    genuine = builtin("srgb")
    curve_at, entry = genuine.index(b"para"), genuine.index(b"rXYZ")
    (matrix_at,) = struct.unpack_from(">I", genuine, entry + 4)
    made = {
        "p3": builtin("p3"),
        "cmyk": builtin("cmyk"),
        "cut": genuine[:200],
        "empty": b"",
        "curve": genuine[: curve_at + 12] + struct.pack(">i", 65536 * 18 // 10) + genuine[curve_at + 16 :],
        "matrix": genuine[: matrix_at + 8] + struct.pack(">i", 20_000) + genuine[matrix_at + 12 :],
    }
    assert not profiles.is_srgb(made[kind])


def cmyk_to_srgb(samples: Array, profile: bytes) -> Array:
    """By the profile's own table (ICC.1 lut16Type, colorimetric), multilinear between its points."""
    at = next(
        struct.unpack_from(">I", profile, 136 + 12 * i)[0] for i in range(20) if profile[132 + 12 * i :][:4] == b"A2B1"
    )
    inks, outputs, points = profile[at + 8], profile[at + 9], profile[at + 10]
    entries_in, entries_out = struct.unpack_from(">2H", profile, at + 48)
    numbers = np.frombuffer(profile, ">u2", offset=at + 52, count=inks * entries_in + points**4 * 3 + 3 * entries_out)
    curves = numbers[: inks * entries_in].reshape(inks, entries_in)
    table = numbers[inks * entries_in :][: points**inks * outputs].reshape((points,) * inks + (outputs,)).astype(float)
    last = numbers[-outputs * entries_out :].reshape(outputs, entries_out)
    grid = np.arange(entries_in) / (entries_in - 1)
    places = np.stack([np.interp(samples[..., i] / 255, grid, curves[i] / 65535) for i in range(inks)], axis=-1)
    places *= points - 1
    low = np.minimum(places.astype(int), points - 2)
    part = places - low
    pcs = np.zeros((*samples.shape[:-1], outputs))
    for corner in np.ndindex(*(2,) * inks):
        weight = np.prod([part[..., i] if c else 1 - part[..., i] for i, c in enumerate(corner)], axis=0)
        pcs += weight[..., None] * table[tuple(low[..., i] + c for i, c in enumerate(corner))]
    grid = np.arange(entries_out) / (entries_out - 1)
    pcs = np.stack([np.interp(pcs[..., i] / 65535, grid, last[i]) for i in range(outputs)], axis=-1)
    lightness, a, b = pcs[..., 0] * 100 / 65280, pcs[..., 1] / 256 - 128, pcs[..., 2] / 256 - 128
    fy = (lightness + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200], axis=-1)
    xyz = np.where(f**3 > 216 / 24389, f**3, (116 * f - 16) * 27 / 24389) * D50
    value = xyz @ D50_TO_D65.T @ np.linalg.inv(SRGB_TO_XYZ).T
    inside = (value >= 0).all(axis=-1) & (value <= 1).all(axis=-1) & (lightness > 60)
    return np.where(inside[..., None], companded(value), np.nan)


@pytest.mark.parametrize("embedded", [False, True])
def test_cmyk(*, embedded: bool) -> None:
    """By the embedded profile, else by the usual one: mean 1.5, at most 4, where sRGB has the colour and
    black point compensation does nothing to it."""
    samples = np.random.default_rng(4).integers(0, 160, (20, 20, 4)).astype(np.uint8)
    image = images.from_array(samples, "cmyk")
    if embedded:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", builtin("cmyk"))
    seen = images.array(images.render(image.tiffsave_buffer())[1])
    expected = cmyk_to_srgb(samples.astype(np.float64), builtin("cmyk"))
    known = ~np.isnan(expected[..., 0])
    difference = delta_e(seen[known], expected[known])
    assert known.sum() > 50
    assert difference.mean() <= 1.5
    assert difference.max() <= 4.0


def test_cmyk_white_and_black() -> None:
    """No ink is white, all inks are black: also in JPEG, where Adobe stores them upside down."""
    samples = np.zeros((16, 32, 4), dtype=np.uint8)
    samples[:, 16:] = 255
    for original in (
        images.from_array(samples, "cmyk").tiffsave_buffer(),
        images.from_array(samples, "cmyk").jpegsave_buffer(Q=95),
    ):
        seen = images.array(images.render(original)[1])
        assert seen[8, 4].min() >= 250
        assert seen[8, 28].max() <= 20


def test_a_real_cmyk_photo_with_gps(corpus: Path) -> None:
    """Its flower is not the negative of itself: as bright as its RGB twin."""
    seen = images.array(images.render((corpus / "derived_tea_cmyk_1600.jpg").read_bytes(), Plan(width_px=200))[1])
    twin = images.array(images.render((corpus / "camera_tea_444.jpg").read_bytes(), Plan(width_px=200))[1])
    rows = min(len(seen), len(twin))
    light = np.stack([lab(picture[:rows])[..., 0].ravel() for picture in (seen, twin)])
    together = np.asarray(np.corrcoef(light))
    assert together[0, 1] > 0.9


@pytest.mark.parametrize("make", ["png", "tiff"])
def test_sixteen_bits(make: str) -> None:
    """The high byte is what is shown, to one level; alpha too."""
    samples = np.random.default_rng(5).integers(0, 65536, (40, 30, 4)).astype(np.uint16)
    image = images.from_array(samples, "rgb16")
    original = image.pngsave_buffer() if make == "png" else image.tiffsave_buffer()
    seen = images.array(images.render(original)[1])
    assert np.abs(seen - samples / 257).max() <= 1.0


def test_sixteen_bits_with_a_profile(corpus: Path) -> None:
    """Both at once: a wide profile over 16-bit samples."""
    colours = patches(6)
    wide = images.from_array(np.round(adobe(colours) * 257).astype(np.uint16), "rgb16")
    wide.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile_of(corpus / "camera_wren_adobergb.jpg"))
    difference = delta_e(images.array(images.render(wide.pngsave_buffer())[1]), colours)
    assert difference.mean() <= 0.4


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_stays_grey(bits: int) -> None:
    """One band in, one band out, the same levels."""
    levels = np.tile(np.arange(256, dtype=np.uint16), (8, 1))
    image = (
        images.from_array(levels.astype(np.uint8), "b-w") if bits == 8 else images.from_array(levels * 257, "grey16")
    )
    seen = images.array(images.render(image.pngsave_buffer())[1])
    assert seen.shape[2] == 1
    assert np.abs(seen[..., 0] - levels).max() <= 0.5


GRAYS: dict[str, Callable[[], pyvips.Image]] = {
    "colour": lambda: images.from_array(patches(7).astype(np.uint8)),
    "with alpha": lambda: images.from_array(np.dstack([patches(7), patches(8)[..., :1]]).astype(np.uint8)),
}


@pytest.mark.parametrize("kind", GRAYS)
def test_gray_is_luminance(kind: str) -> None:
    """``gray`` keeps the lightness: within 1.5 L*; alpha is kept."""
    image = GRAYS[kind]()
    seen = images.array(images.render(image.pngsave_buffer(), Plan(gray=True))[1])
    assert seen.shape[2] == image.bands - 2
    light = lab(patches(7))[..., 0]
    assert np.abs(lab(np.repeat(seen[..., :1], 3, axis=-1))[..., 0] - light).max() <= 1.5


def test_a_profile_of_another_kind_is_ignored() -> None:
    """A CMYK profile in an RGB file: its colours are shown as sRGB, as browsers do."""
    colours = patches(9)
    seen = images.array(images.render(with_profile(colours, builtin("cmyk")).pngsave_buffer())[1])
    assert np.array_equal(colours, seen)


def test_floating_point_and_lab_are_read() -> None:
    """TIFF can hold anything: it comes out as 8-bit sRGB."""
    colours = patches(10)
    image = images.from_array(colours.astype(np.uint8))
    for space in ("scrgb", "lab"):
        seen = images.array(images.render(image.colourspace(space).tiffsave_buffer())[1])
        assert delta_e(seen, colours).max() <= 2.3, space
