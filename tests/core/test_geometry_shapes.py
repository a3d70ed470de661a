"""Geometry of tilts, percent, ratios, margins, trimming and radii: exact where it can be, inside and bounded always."""

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from imgserve.core import geometry, plan
from imgserve.core.errors import BadRequest
from imgserve.core.geometry import Layout, Rect
from imgserve.core.options import SIDE_MAX_PX
from imgserve.core.plan import AUTO, Gravity, GravityKind, Mode, Plan

PIXELS_MAX = 50_000_000


def output(layout: Layout) -> tuple[int, int]:
    if layout.canvas is not None:
        return layout.canvas
    if layout.window is not None:
        return layout.window.width, layout.window.height
    return layout.tilted or (layout.scaled_width, layout.scaled_height)


@pytest.mark.parametrize(
    ("trimmed", "crop", "fit"),
    [
        (Rect(left=1, top=2, width=90, height=80), Gravity(), Gravity()),
        (Rect(left=0, top=0, width=100, height=100), AUTO, Gravity()),
        (Rect(left=5, top=0, width=95, height=100), Gravity(x=0.0, y=0.5), Gravity(x=1.0, y=0.5)),
        (Rect(left=0, top=0, width=95, height=100), Gravity(x=1.0, y=0.5), Gravity(x=0.0, y=0.5)),
        (Rect(left=0, top=9, width=100, height=91), Gravity(x=0.5, y=0.0), Gravity(x=0.5, y=1.0)),
        (Rect(left=0, top=0, width=95, height=95), Gravity(x=1.0, y=1.0), Gravity(x=0.0, y=0.0)),
        (Rect(left=9, top=0, width=80, height=100), Gravity(), Gravity()),
    ],
)
def test_gravity_trim_goes_by_the_sides_that_were_cut(trimmed: Rect, crop: Gravity, fit: Gravity) -> None:
    """All: centre; none: what stands out; some: crop keeps to them, fit to the others."""
    assert crop == geometry.trimmed_gravity(Plan(mode=Mode.CROP), trimmed, 100, 100)
    assert fit == geometry.trimmed_gravity(Plan(mode=Mode.FIT), trimmed, 100, 100)


@pytest.mark.parametrize(
    ("radii", "expected"),
    [
        ((10, 20, 15, 35), (10, 20, 15, 35)),
        ((8192, 0, 0, 0), (50, 0, 0, 0)),
        ((8192, 8192, 8192, 8192), (25, 25, 25, 25)),
        ((50, 25, 0, 0), (100 / 3, 50 / 3, 0, 0)),
        ((0, 0, 0, 0), (0, 0, 0, 0)),
    ],
)
def test_radii_that_overlap_shrink_alike(radii: tuple[int, int, int, int], expected: tuple[float, ...]) -> None:
    """Of an image of 100 x 50, by the rule of CSS."""
    assert list(expected) == pytest.approx(list(geometry.corner_radii(radii, 100, 50)))


def test_a_tilt_never_multiplies_the_pixels_at_work() -> None:
    """A long line, blown up: it is tilted about as large as it is."""
    asked = plan.canonical(Plan(tilt_ccw_degrees=0.01, width_px=100, height_px=8192, mode=Mode.CROP))
    layout = geometry.layout(asked, 16_000, 2)
    assert (100, 8192) == output(layout)
    assert layout.scaled_width * layout.scaled_height <= SIDE_MAX_PX * SIDE_MAX_PX // 4 + 40_000


gravities = st.sampled_from(
    [
        Gravity(),
        Gravity(x=0.0, y=1.0),
        Gravity(kind=GravityKind.PIXELS, x=10, y=9000),
        Gravity(kind=GravityKind.PERCENT, x=10, y=90),
        Gravity(kind=GravityKind.SCALED, x=70, y=0),
        AUTO,
    ]
)
percents = st.none() | st.floats(0.01, 1_000_000)
lengths = st.none() | st.integers(1, 300) | st.integers(1, 1_000_000)
ratios = st.floats(0.01, 100)
plans = st.builds(
    Plan,
    top_left_px=st.none() | st.tuples(st.integers(0, 40), st.integers(0, 40)),
    bottom_right_px=st.none() | st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
    flip_horizontal=st.booleans(),
    rotate_ccw_degrees=st.sampled_from([0, 90, 180, 270]),
    tilt_ccw_degrees=st.just(0.0) | st.sampled_from([0.01, -45.0, 44.99]) | st.floats(-45, 44.99),
    width_px=lengths,
    height_px=lengths,
    width_percent=percents,
    height_percent=percents,
    aspect=st.none() | ratios.map(lambda one: (one, one)) | st.tuples(ratios, ratios).map(lambda p: (min(p), max(p))),
    mode=st.sampled_from(list(Mode)),
    gravity=gravities,
    may_enlarge=st.booleans(),
    margin_px=st.just(0) | st.integers(0, 1_000_000),
)
originals = st.integers(1, 40) | st.integers(1, 16_384)


def one_kind_of_size(asked: Plan) -> Plan:
    """A side is in pixels or in percent, as a URL gives it."""
    return plan.canonical(
        replace(
            asked,
            width_percent=None if asked.width_px is not None else asked.width_percent,
            height_percent=None if asked.height_px is not None else asked.height_percent,
        )
    )


@given(asked=plans.map(one_kind_of_size), width=originals, height=originals, border=st.sampled_from([0, 1]))
@settings(deadline=None, max_examples=1500)
def test_whatever_is_asked_everything_lies_inside_and_is_bounded(
    asked: Plan, width: int, height: int, border: int
) -> None:
    """Region in the original, window in the tilted image, image in the canvas; no output side under 1 or over 8192."""
    assume(width * height <= PIXELS_MAX and max(width, height) <= 4096 * min(width, height))
    trimmed = Rect(left=1, top=2, width=width - 3, height=height - 4) if border and min(width, height) > 5 else None
    try:
        layout = geometry.layout(asked, width, height, trimmed)
    except BadRequest:
        assert asked.top_left_px is not None or asked.bottom_right_px is not None
        return
    whole = trimmed or Rect(left=0, top=0, width=width, height=height)
    region = layout.region
    assert whole.left <= region.left < region.left + region.width <= whole.left + whole.width
    assert whole.top <= region.top < region.top + region.height <= whole.top + whole.height
    assert (layout.tilted is not None) == bool(asked.tilt_ccw_degrees)
    frame = layout.tilted or (layout.scaled_width, layout.scaled_height)
    if layout.window is not None:
        window = layout.window
        assert 0 <= window.left < window.left + window.width <= frame[0]
        assert 0 <= window.top < window.top + window.height <= frame[1]
    if layout.canvas is not None:
        assert 0 <= layout.left <= layout.left + frame[0] <= layout.canvas[0]
        assert 0 <= layout.top <= layout.top + frame[1] <= layout.canvas[1]
    assert 1 <= min(output(layout)) <= max(output(layout)) <= SIDE_MAX_PX
    if layout.tilted is not None:
        area = max(region.width * region.height, SIDE_MAX_PX * SIDE_MAX_PX // 4)
        assert 1 <= layout.scaled_width * layout.scaled_height <= 1.01 * area + 40_000


@given(degrees=st.floats(-45, 44.99), width=st.integers(1, 4000), height=st.integers(1, 4000))
@settings(deadline=None)
def test_the_box_around_a_tilted_image_is_that_of_its_corners(degrees: float, width: int, height: int) -> None:
    """Within the rounding to whole pixels."""
    angle = math.radians(degrees)
    corners = [(x * width / 2, y * height / 2) for x in (-1, 1) for y in (-1, 1)]
    across = [x * math.cos(angle) + y * math.sin(angle) for x, y in corners]
    down = [y * math.cos(angle) - x * math.sin(angle) for x, y in corners]
    size = geometry.tilted_size(Plan(tilt_ccw_degrees=degrees), (width, height))
    assert abs(size[0] - (max(across) - min(across))) <= 0.51
    assert abs(size[1] - (max(down) - min(down))) <= 0.51
