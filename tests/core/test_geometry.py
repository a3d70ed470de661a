"""Geometry: exact sizes, nothing outside its image, nothing over the limit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgserve.core import geometry, plan
from imgserve.core.errors import BadRequest
from imgserve.core.geometry import Layout, Rect
from imgserve.core.options import SIDE_MAX_PX
from imgserve.core.plan import Gravity, GravityKind, Mode, Plan

CROP, FIT, BOUND, COVER = Mode.CROP, Mode.FIT, Mode.BOUND, Mode.COVER


def output(layout: Layout) -> tuple[int, int]:
    if layout.canvas is not None:
        return layout.canvas
    if layout.window is not None:
        return layout.window.width, layout.window.height
    return layout.scaled_width, layout.scaled_height


def sized(width: int | None, height: int | None, mode: Mode = BOUND, *, enlarge: bool = True) -> Plan:
    return plan.canonical(Plan(width_px=width, height_px=height, mode=mode, may_enlarge=enlarge))


@pytest.mark.parametrize(
    ("asked", "original", "expected"),
    [
        (Plan(), (640, 480), (640, 480)),
        (Plan(), (16384, 100), (8192, 50)),
        (Plan(), (16384, 1), (8192, 1)),
        (Plan(rotate_ccw_degrees=90), (640, 480), (480, 640)),
        (sized(320, None), (640, 480), (320, 240)),
        (sized(None, 240), (640, 480), (320, 240)),
        (sized(1280, None), (640, 480), (1280, 960)),
        (sized(1280, None, enlarge=False), (640, 480), (640, 480)),
        (sized(333, None), (1000, 667), (333, 222)),
        (sized(1, None), (1000, 10), (1, 1)),
        (sized(10000, None), (640, 480), (8192, 6144)),
        (sized(None, 8192), (16384, 10), (8192, 5)),
        (sized(300, 300), (640, 480), (300, 225)),
        (sized(1000, 1000), (640, 480), (1000, 750)),
        (sized(1000, 1000, enlarge=False), (640, 480), (640, 480)),
        (sized(20000, 20000), (640, 480), (8192, 6144)),
        (sized(300, 300, CROP), (640, 480), (300, 300)),
        (sized(1000, 1000, CROP), (640, 480), (1000, 1000)),
        (sized(1000, 1000, CROP, enlarge=False), (640, 480), (480, 480)),
        (sized(200, 200, CROP, enlarge=False), (300, 100), (100, 100)),
        (sized(200, 50, CROP, enlarge=False), (300, 100), (200, 50)),
        (sized(16384, 8192, CROP), (640, 480), (8192, 4096)),
        (sized(300, 300, COVER), (640, 480), (300, 300)),
        (sized(1000, 500, COVER, enlarge=False), (640, 480), (640, 320)),
        (sized(10000, 20, COVER), (640, 480), (8192, 16)),
        (sized(500, 200, FIT, enlarge=False), (400, 100), (500, 200)),
        (sized(10000, 10000, FIT), (640, 480), (8192, 8192)),
    ],
)
def test_outputs_have_the_size_that_is_meant(asked: Plan, original: tuple[int, int], expected: tuple[int, int]) -> None:
    """One size or both, every mode, with and without enlarging, at the limit."""
    assert expected == output(geometry.layout(asked, *original))


def test_fit_pads_and_does_not_enlarge_unless_asked() -> None:
    """The documented example: 400 x 100 into 500 x 200."""
    padded = geometry.layout(sized(500, 200, FIT, enlarge=False), 400, 100)
    assert ((400, 100), (500, 200), (50, 50)) == (
        (padded.scaled_width, padded.scaled_height),
        padded.canvas,
        (padded.left, padded.top),
    )
    enlarged = geometry.layout(sized(500, 200, FIT), 400, 100)
    assert ((500, 125), (0, 37)) == ((enlarged.scaled_width, enlarged.scaled_height), (enlarged.left, enlarged.top))
    exact = geometry.layout(sized(500, 125, FIT), 400, 100)
    assert None is exact.canvas


@pytest.mark.parametrize(
    ("x", "y", "place"),
    [(0.0, 0.0, (0, 0)), (0.5, 0.5, (50, 50)), (1.0, 0.5, (100, 50)), (0.5, 1.0, (50, 100))],
)
def test_gravity_places_in_fit(x: float, y: float, place: tuple[int, int]) -> None:
    """Where the free room goes."""
    asked = Plan(width_px=200, height_px=200, mode=FIT, gravity=Gravity(x=x, y=y), may_enlarge=False)
    layout = geometry.layout(asked, 100, 100)
    assert place == (layout.left, layout.top)


@pytest.mark.parametrize(
    ("gravity", "left"),
    [
        (Gravity(), 50),
        (Gravity(x=0.0, y=0.0), 0),
        (Gravity(x=1.0, y=0.5), 100),
        (Gravity(kind=GravityKind.PIXELS, x=100, y=0), 0),
        (Gravity(kind=GravityKind.PIXELS, x=150, y=0), 25),
        (Gravity(kind=GravityKind.PIXELS, x=9999, y=9999), 100),
        (Gravity(kind=GravityKind.PERCENT, x=40, y=0), 30),
        (Gravity(kind=GravityKind.PERCENT, x=50, y=50), 50),
    ],
)
def test_gravity_says_what_a_crop_keeps(gravity: Gravity, left: int) -> None:
    """400 x 200 to 100 x 100: the scaled image is 200 wide, and the window moves within it."""
    asked = Plan(width_px=100, height_px=100, mode=CROP, gravity=gravity)
    expected = Layout(
        region=Rect(left=0, top=0, width=400, height=200),
        scaled_width=200,
        scaled_height=100,
        window=Rect(left=left, top=0, width=100, height=100),
    )
    assert expected == geometry.layout(asked, 400, 200)


@pytest.mark.parametrize(
    ("corners", "region"),
    [
        ({"top_left_px": (10, 20)}, Rect(left=10, top=20, width=90, height=60)),
        ({"bottom_right_px": (10, 20)}, Rect(left=0, top=0, width=10, height=20)),
        ({"top_left_px": (10, 20), "bottom_right_px": (900, 30)}, Rect(left=10, top=20, width=90, height=10)),
        ({"top_left_px": (99, 79)}, Rect(left=99, top=79, width=1, height=1)),
    ],
)
def test_corners_are_clamped_to_the_image(corners: dict[str, tuple[int, int]], region: Rect) -> None:
    """Never padded; one corner is enough."""
    assert region == geometry.layout(Plan(**corners), 100, 80).region  # type: ignore[arg-type]


def test_corners_outside_the_image_are_refused() -> None:
    """The text names them, and the image's size."""
    with pytest.raises(BadRequest, match="100 x 80"):
        geometry.layout(Plan(top_left_px=(100, 0)), 100, 80)
    with pytest.raises(BadRequest, match="tl_px"):
        geometry.layout(Plan(top_left_px=(0, 500), bottom_right_px=(10, 600)), 100, 80)


TURNS = [
    Plan(flip_horizontal=horizontal, flip_vertical=vertical, rotate_ccw_degrees=degrees)
    for horizontal in (False, True)
    for vertical in (False, True)
    for degrees in (0, 90, 180, 270)
]


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("spot", [(2, 3), (17, 3), (10, 24), (27, 16)])
def test_a_focal_point_follows_corners_flips_and_turns(turn: Plan, spot: tuple[int, int]) -> None:
    """A marked pixel of the original is inside the window, at the middle where there is room: shown on pixels."""
    pixels = np.zeros((26, 30), dtype=np.int64)
    pixels[spot[1], spot[0]] = 1
    asked = Plan(
        top_left_px=(1, 2),
        bottom_right_px=(29, 25),
        flip_horizontal=turn.flip_horizontal,
        flip_vertical=turn.flip_vertical,
        rotate_ccw_degrees=turn.rotate_ccw_degrees,
        width_px=7,
        height_px=23 if turn.rotate_ccw_degrees in (0, 180) else 28,
        mode=CROP,
        gravity=Gravity(kind=GravityKind.PIXELS, x=spot[0] + 0.5, y=spot[1] + 0.5),
    )
    layout = geometry.layout(asked, 30, 26)
    region = layout.region
    part = pixels[region.top : region.top + region.height, region.left : region.left + region.width]
    part = part[:, ::-1] if turn.flip_horizontal else part
    part = part[::-1] if turn.flip_vertical else part
    part = np.rot90(part, turn.rotate_ccw_degrees // 90)
    assert (layout.scaled_height, layout.scaled_width) == part.shape
    window = layout.window
    assert window is not None
    x = int(np.argwhere(part)[0][1]) - window.left
    at_edge = window.left in (0, layout.scaled_width - window.width)
    assert 3 == x or (at_edge and 0 <= x < 7)


def test_a_line_blown_up_is_cut_before_it_is_scaled() -> None:
    """A scaled image is never millions of pixels long: the region is narrowed to what the window shows."""
    asked = Plan(width_px=100, height_px=8192, mode=CROP, gravity=Gravity(x=1.0, y=0.5))
    layout = geometry.layout(asked, 16000, 2)
    assert (100, 8192) == output(layout)
    assert Rect(left=15997, top=0, width=3, height=2) == layout.region
    assert (12288, 8192) == (layout.scaled_width, layout.scaled_height)
    assert Rect(left=12188, top=0, width=100, height=8192) == layout.window


@pytest.mark.parametrize("turn", TURNS)
def test_narrowing_keeps_the_place_under_flips_and_turns(turn: Plan) -> None:
    """What stands at the west of the turned image is taken from where it lies in the original."""
    upright = turn.rotate_ccw_degrees in (0, 180)
    size = (16000, 2) if upright else (2, 16000)
    pixels = np.arange(32000).reshape(size[1], size[0])
    asked = Plan(
        flip_horizontal=turn.flip_horizontal,
        flip_vertical=turn.flip_vertical,
        rotate_ccw_degrees=turn.rotate_ccw_degrees,
        width_px=100,
        height_px=8000,
        mode=CROP,
        gravity=Gravity(x=0.0, y=0.5),
    )
    region = geometry.layout(asked, *size).region
    whole = pixels[:, ::-1] if turn.flip_horizontal else pixels
    whole = whole[::-1] if turn.flip_vertical else whole
    west = np.rot90(whole, turn.rotate_ccw_degrees // 90)[:, :3]
    taken = pixels[region.top : region.top + region.height, region.left : region.left + region.width]
    assert sorted(west.ravel().tolist()) == sorted(taken.ravel().tolist())


sides = st.integers(1, 300) | st.integers(1, 16_384) | st.integers(8000, 1_000_000)
asked_sides = st.none() | sides
originals = st.integers(1, 40) | st.integers(1, 16_384) | st.integers(1, 65_500)
gravities = st.builds(
    Gravity, kind=st.just(GravityKind.COMPASS), x=st.sampled_from([0.0, 0.5, 1.0]), y=st.sampled_from([0.0, 0.5, 1.0])
) | st.builds(
    Gravity,
    kind=st.sampled_from([GravityKind.PIXELS, GravityKind.PERCENT]),
    x=st.floats(0, 100),
    y=st.floats(0, 100),
)
plans = st.builds(
    Plan,
    top_left_px=st.none() | st.tuples(st.integers(0, 40), st.integers(0, 40)),
    bottom_right_px=st.none() | st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
    flip_horizontal=st.booleans(),
    flip_vertical=st.booleans(),
    rotate_ccw_degrees=st.sampled_from([0, 90, 180, 270]),
    width_px=asked_sides,
    height_px=asked_sides,
    mode=st.sampled_from(list(Mode)),
    gravity=gravities,
    may_enlarge=st.booleans(),
)


def assert_inside(rect: Rect, width: int, height: int) -> None:
    assert 0 <= rect.left < rect.left + rect.width <= width
    assert 0 <= rect.top < rect.top + rect.height <= height


@given(asked=plans.map(plan.canonical), width=originals, height=originals)
@settings(deadline=None, max_examples=1000)
def test_whatever_is_asked_everything_lies_inside(asked: Plan, width: int, height: int) -> None:
    """Region in the original, window in the scaled image, image in the canvas, output within 1 and 8192."""
    try:
        layout = geometry.layout(asked, width, height)
    except BadRequest:
        assert asked.top_left_px is not None or asked.bottom_right_px is not None
        return
    assert_inside(layout.region, width, height)
    scaled = (layout.scaled_width, layout.scaled_height)
    assert min(scaled) >= 1
    if layout.window is not None:
        assert_inside(layout.window, *scaled)
        assert max(scaled) <= 16 * SIDE_MAX_PX
    if layout.canvas is not None:
        assert_inside(Rect(left=layout.left, top=layout.top, width=scaled[0], height=scaled[1]), *layout.canvas)
    assert 1 <= min(output(layout)) <= max(output(layout)) <= SIDE_MAX_PX


@given(asked=plans.map(plan.canonical), width=originals, height=originals)
@settings(deadline=None, max_examples=1000)
def test_asked_sizes_come_out_exact(asked: Plan, width: int, height: int) -> None:
    """crop, cover and fit give w x h to the pixel; bound touches its box and never leaves it."""
    try:
        layout = geometry.layout(asked, width, height)
    except BadRequest:
        return
    box = (asked.width_px, asked.height_px)
    if box[0] is None or box[1] is None or max(box[0], box[1]) > SIDE_MAX_PX:
        return
    if asked.mode in (FIT, Mode.CROPFIT) or (asked.mode in (CROP, COVER) and asked.may_enlarge):
        assert box == output(layout)
    if asked.mode is BOUND:
        out = output(layout)
        assert out[0] <= box[0]
        assert out[1] <= box[1]
        assert not asked.may_enlarge or out[0] == box[0] or out[1] == box[1]


@given(asked=plans.map(plan.canonical), width=originals, height=originals)
@settings(deadline=None, max_examples=500)
def test_nothing_is_enlarged_where_that_is_forbidden(asked: Plan, width: int, height: int) -> None:
    """No side of the scaled image is longer than it was."""
    if asked.may_enlarge:
        return
    try:
        layout = geometry.layout(asked, width, height)
    except BadRequest:
        return
    before = [layout.region.width, layout.region.height]
    if asked.rotate_ccw_degrees in (90, 270):
        before.reverse()
    assert layout.scaled_width <= before[0]
    assert layout.scaled_height <= before[1]


@given(asked=plans.map(plan.canonical), width=st.integers(50, 4000), height=st.integers(50, 4000))
@settings(deadline=None, max_examples=500)
def test_proportions_are_kept_within_half_a_pixel(asked: Plan, width: int, height: int) -> None:
    """All modes but cover scale both sides alike, up to rounding."""
    try:
        layout = geometry.layout(asked, width, height)
    except BadRequest:
        return
    if asked.mode is COVER or layout.region.width * layout.region.height < 100:
        return
    across, down = layout.region.width, layout.region.height
    if asked.rotate_ccw_degrees in (90, 270):
        across, down = down, across
    # One of the two scales is exact, the other is off by what rounding one side can do.
    wide, high = layout.scaled_width / across, layout.scaled_height / down
    assert abs(wide - high) * min(across, down) <= 1.0
