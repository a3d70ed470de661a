"""Where every pixel of a variant comes from: func x gravity x orientation x alpha x format.

The originals are ramps: red is the place from the left, green from the top, of the upright image. A variant's colours
therefore say which place of the original they show, whatever kernel scaled them. The expected places are computed
here, in floats, from the URL's meaning, by none of the project's geometry.

Tolerances: sizes are exact. A place is within 1.2 pixels of the variant plus 1.5 of 255 levels (rounding of 8 bits), 3
levels where a lossy format is on the way; the two outermost pixels, which kernels mirror, are not looked at.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import pyvips

from imgserve.core.plan import CENTRE, Gravity, GravityKind, Mode, Plan
from tests.render import images

Samples = npt.NDArray[np.uint8]

UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}
STORED = {**UPRIGHT, 6: UPRIGHT[8], 8: UPRIGHT[6]}  # what a camera does is undone by its opposite


def ramp(width: int, height: int, *, has_alpha: bool = False) -> Samples:
    across = np.tile((np.arange(width) + 0.5) * 255 / width, (height, 1))
    down = np.tile(((np.arange(height) + 0.5) * 255 / height)[:, None], (1, width))
    bands = [across, down, np.full_like(across, 128.0)] + [np.full_like(across, 200.0)] * has_alpha
    return np.round(np.stack(bands, axis=2)).astype(np.uint8)


def encoded(upright: Samples, orientation: int, kind: str) -> bytes:
    """The picture as a camera held that way would have stored it."""
    image = pyvips.Image.new_from_array(np.ascontiguousarray(STORED[orientation](upright)), interpretation="srgb")
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    match kind:
        case "jpeg":
            return bytes(image.jpegsave_buffer(Q=98, subsample_mode="off"))
        case "webp":
            return bytes(image.webpsave_buffer(lossless=True, exact=True))
        case "tiff":
            return bytes(image.tiffsave_buffer())
        case _:
            return bytes(image.pngsave_buffer())


@dataclass(frozen=True)
class Expected:
    """The variant's size, and the place ``start + x * step`` of the upright original that its pixel x shows."""

    size: tuple[int, int]
    start: tuple[float, float]
    step: tuple[float, float]
    inner: tuple[int, int, int, int]  # left, top, right, bottom of what shows the original


Pair = tuple[float, float]


def expected(plan: Plan, width: int, height: int) -> Expected:
    """By the meaning of w, h, func, gravity and the corners, for plans without flip and rotation."""
    left, top = plan.top_left_px or (0, 0)
    right, bottom = plan.bottom_right_px or (width, height)
    start, own = (left, top), (min(right, width) - left, min(bottom, height) - top)
    if plan.mode is Mode.BOUND or plan.width_px is None or plan.height_px is None:
        ratios = (
            *((plan.width_px / own[0],) if plan.width_px else ()),
            *((plan.height_px / own[1],) if plan.height_px else ()),
        )
        ratio = min(ratios, default=1.0)
        size = (max(round(own[0] * ratio), 1), max(round(own[1] * ratio), 1))
        return Expected(size, start, (own[0] / size[0], own[1] / size[1]), (0, 0, *size))
    box = (plan.width_px, plan.height_px)
    steps = (own[0] / box[0], own[1] / box[1])
    if plan.mode is Mode.COVER:
        return Expected(box, start, steps, (0, 0, *box))
    if plan.mode is Mode.FIT:
        step = max(steps) if plan.may_enlarge else max(*steps, 1.0)
        size = (max(round(own[0] / step), 1), max(round(own[1] / step), 1))
        at = (int((box[0] - size[0]) * plan.gravity.x), int((box[1] - size[1]) * plan.gravity.y))
        begin = (left - at[0] * step, top - at[1] * step)
        return Expected(box, begin, (step, step), (*at, at[0] + size[0], at[1] + size[1]))
    step = min(steps)
    free = (own[0] - box[0] * step, own[1] - box[1] * step)
    if plan.gravity.kind is GravityKind.COMPASS:
        offset: Pair = (free[0] * plan.gravity.x, free[1] * plan.gravity.y)
    else:
        part = (1.0, 1.0) if plan.gravity.kind is GravityKind.PIXELS else (width / 100, height / 100)
        focus = (plan.gravity.x * part[0] - left, plan.gravity.y * part[1] - top)
        offset = (
            min(max(focus[0] - box[0] * step / 2, 0), free[0]),
            min(max(focus[1] - box[1] * step / 2, 0), free[1]),
        )
    return Expected(box, (left + offset[0], top + offset[1]), (step, step), (0, 0, *box))


def check(variant: bytes, want: Expected, width: int, height: int, levels: float) -> None:
    seen = images.array(variant)
    assert want.size == (seen.shape[1], seen.shape[0])
    left, top, right, bottom = want.inner
    for axis, side, first, last in ((0, width, left, right), (1, height, top, bottom)):
        places = np.arange(first + 2, last - 2)
        if not places.size:
            continue
        colours = (want.start[axis] + (places + 0.5) * want.step[axis]) * 255 / side
        line = seen[(top + bottom) // 2, places, 0] if axis == 0 else seen[places, (left + right) // 2, 1]
        tolerance = 1.2 * want.step[axis] * 255 / side + levels
        assert np.abs(line - np.clip(colours, 0, 255)).max() <= tolerance, f"axis {axis}"


COMPASS = {
    "north": Gravity(x=0.5, y=0.0),
    "southeast": Gravity(x=1.0, y=1.0),
    "west": Gravity(x=0.0, y=0.5),
    "centre": CENTRE,
    "pixels": Gravity(kind=GravityKind.PIXELS, x=70.0, y=30.0),
    "percent": Gravity(kind=GravityKind.PERCENT, x=80.0, y=10.0),
}
BOXES = ((90, 90), (120, 40), (37, 101))
ORIENTATIONS = tuple(range(1, 9))


@pytest.mark.parametrize("gravity", COMPASS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_crop(orientation: int, gravity: str) -> None:
    """Fills the box, in its proportions, and keeps what the gravity names, counted in the upright image."""
    for has_alpha in (False, True):
        original = encoded(ramp(255, 170, has_alpha=has_alpha), orientation, "png")
        for width, height in BOXES:
            plan = Plan(width_px=width, height_px=height, mode=Mode.CROP, gravity=COMPASS[gravity])
            variant = images.render(original, plan)[1]
            check(variant, expected(plan, 255, 170), 255, 170, 1.5)
            assert images.array(variant).shape[2] == 3 + has_alpha


@pytest.mark.parametrize("mode", [Mode.BOUND, Mode.COVER, Mode.FIT])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_other_modes(orientation: int, mode: Mode) -> None:
    """Bound keeps all, cover distorts, fit pads by gravity; smaller and larger than the original."""
    for has_alpha in (False, True):
        original = encoded(ramp(255, 170, has_alpha=has_alpha), orientation, "webp")
        for box in (*BOXES, (400, 300), (300, None), (None, 33)):
            for gravity in (CENTRE, Gravity(x=1.0, y=0.0)):
                plan = Plan(width_px=box[0], height_px=box[1], mode=mode, gravity=gravity)
                check(images.render(original, plan)[1], expected(plan, 255, 170), 255, 170, 1.5)


@pytest.mark.parametrize("width", [20, 61, 100, 200, 333, 500])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_shrinking_while_decoding_keeps_the_place(orientation: int, width: int) -> None:
    """JPEG is decoded at 1, 1/2, 1/4 or 1/8: corners and focal points stay where they were, to a pixel."""
    original = encoded(ramp(1021, 683), orientation, "jpeg")
    corner = Plan(width_px=width, top_left_px=(211, 97), bottom_right_px=(997, 611))
    focus = Plan(
        width_px=width,
        height_px=width,
        mode=Mode.CROP,
        gravity=Gravity(kind=GravityKind.PIXELS, x=800.0, y=200.0),
        top_left_px=(101, 3),
    )
    for plan in (Plan(width_px=width), corner, focus):
        check(images.render(original, plan)[1], expected(plan, 1021, 683), 1021, 683, 3.0)


@pytest.mark.parametrize("scaled", [40, 170, 300])
def test_webp_scaled_while_decoding(scaled: int) -> None:
    """libwebp scales to any size: the place is kept."""
    original = encoded(ramp(1021, 683), 1, "webp")
    plan = Plan(width_px=scaled, top_left_px=(211, 97), bottom_right_px=(997, 611))
    check(images.render(original, plan)[1], expected(plan, 1021, 683), 1021, 683, 3.0)


@pytest.mark.parametrize("asked", ["jpeg", "webp", "avif", "png"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_format_is_upright(orientation: int, asked: str) -> None:
    """No saver writes an orientation that turns the upright image again."""
    original = encoded(ramp(255, 170), orientation, "jpeg")
    plan = Plan(width_px=200, quality=95)
    variant = images.render(original, plan, asked)[1]
    check(variant, expected(plan, 255, 170), 255, 170, 5.0)
    opened = images.image(variant)
    assert opened.get_typeof("orientation") == 0 or opened.get("orientation") == 1


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_flip_then_rotation_after_orientation(orientation: int, rotation: int, kind: str) -> None:
    """Upright first, then corners, then flip, then counter-clockwise quarter turns, then the resize."""
    picture = ramp(96, 64)
    original = encoded(picture, orientation, kind)
    for horizontal, vertical in ((False, False), (True, False), (False, True), (True, True)):
        plan = Plan(
            top_left_px=(16, 0),
            flip_horizontal=horizontal,
            flip_vertical=vertical,
            rotate_ccw_degrees=rotation,
        )
        wanted = picture[:, 16:]
        wanted = wanted[:, ::-1] if horizontal else wanted
        wanted = wanted[::-1] if vertical else wanted
        wanted = np.rot90(wanted, rotation // 90)
        seen = images.array(images.render(original, plan)[1])
        assert wanted.shape == seen.shape
        assert np.abs(seen - wanted).max() <= (4 if kind == "jpeg" else 1)


@pytest.mark.parametrize(
    ("name", "orientation"),
    [
        ("web_landscape_orient3.jpg", 3),
        ("web_paris_orient5.jpg", 5),
        ("web_landscape_orient6.jpg", 6),
        ("web_portrait_orient7.jpg", 7),
        ("web_landscape_orient8.jpg", 8),
        ("web_china.jpg", 1),
        ("web_flower_gray.jpg", 1),
        ("web_alpha_photo.png", 1),
        ("derived_alpha_photo.webp", 1),
        ("web_fox.avif", 1),
    ],
)
def test_real_images(name: str, orientation: int, corpus: Path) -> None:
    """A real image, scaled, shows the mean of the pixels that each new one covers: 3 levels off in the mean, 99 % of
    the samples within 20."""
    original = (corpus / name).read_bytes()
    upright = UPRIGHT[orientation](images.array(original))
    factor = 8 if min(upright.shape[:2]) > 600 else 4
    height, width = (side // factor * factor for side in upright.shape[:2])
    blocks = upright[:height, :width].reshape(height // factor, factor, width // factor, factor, -1)
    plan = Plan(width_px=width // factor, height_px=height // factor, mode=Mode.COVER, bottom_right_px=(width, height))
    seen = images.array(images.render(original, plan)[1])
    if upright.shape[2] == 4:
        weights = blocks[..., 3:] / 255
        colour = (blocks[..., :3] * weights).sum(axis=(1, 3)) / np.maximum(weights.sum(axis=(1, 3)), 1e-9)
        visible = weights.mean(axis=(1, 3))[..., 0] > 0.5
        difference = np.abs(seen[..., :3] - colour)[visible]
    else:
        difference = np.abs(seen - blocks.mean(axis=(1, 3)))
    assert difference.mean() <= 3.0
    assert np.percentile(difference, 99) <= 20.0
