"""Equal meaning gives equal plans; the log's text and the hashed bytes are stable."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from imgserve.core import plan
from imgserve.core.plan import Gravity, GravityKind, Mode, Plan

FOCUS = Gravity(kind=GravityKind.PIXELS, x=10.0, y=20.0)
NORTH = Gravity(x=0.5, y=0.0)


def turned(pixels: NDArray[np.int64], asked: Plan) -> list[list[int]]:
    if asked.flip_horizontal:
        pixels = pixels[:, ::-1]
    if asked.flip_vertical:
        pixels = pixels[::-1]
    turned_pixels: list[list[int]] = np.rot90(pixels, asked.rotate_ccw_degrees // 90).tolist()
    return turned_pixels


def test_flips_and_turns_have_eight_canonical_forms_that_show_the_same() -> None:
    """All 16 spellings lead to 8 plans, each of which moves every pixel as the spelling did."""
    pixels = np.arange(6).reshape(2, 3)
    found = set()
    for horizontal, vertical, degrees in itertools.product((False, True), (False, True), (0, 90, 180, 270)):
        asked = Plan(flip_horizontal=horizontal, flip_vertical=vertical, rotate_ccw_degrees=degrees)
        form = plan.canonical(asked)
        assert turned(pixels, asked) == turned(pixels, form)
        found.add(form)
    assert 8 == len(found)
    assert Plan() == plan.canonical(Plan(flip_horizontal=True, flip_vertical=True, rotate_ccw_degrees=180))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Plan(mode=Mode.CROP, gravity=NORTH, may_enlarge=False), Plan()),
        (Plan(width_px=5, mode=Mode.FIT, gravity=NORTH), Plan(width_px=5)),
        (Plan(width_px=5, may_enlarge=False), Plan(width_px=5, may_enlarge=False)),
        (
            Plan(width_px=5, height_px=5, mode=Mode.COVER, gravity=NORTH),
            Plan(width_px=5, height_px=5, mode=Mode.COVER),
        ),
        (Plan(width_px=5, height_px=5, mode=Mode.BOUND, gravity=FOCUS), Plan(width_px=5, height_px=5)),
        (Plan(width_px=5, height_px=5, mode=Mode.FIT, gravity=FOCUS), Plan(width_px=5, height_px=5, mode=Mode.FIT)),
        (Plan(top_left_px=(0, 0)), Plan()),
        (Plan(rotate_ccw_degrees=-360), Plan()),
        (Plan(quality=5, formats=("png",)), Plan(formats=("png",))),
        (Plan(quality=5, formats=("png", "webp")), Plan(formats=("png",))),
        (Plan(quality=5, formats=("webp", "png")), Plan(quality=5, formats=("webp", "png"))),
        (Plan(formats=("webp", "_webp", "avif", "webp", "jpeg", "png")), Plan(formats=("webp", "avif", "jpeg"))),
        (Plan(formats=("original", "webp")), Plan(formats=("original",))),
    ],
)
def test_what_has_no_effect_is_not_in_the_plan(asked: Plan, expected: Plan) -> None:
    """Gravity, mode, enlarging, quality and formats that can change nothing are set to their defaults."""
    assert expected == plan.canonical(asked)
    assert expected == plan.canonical(expected)


def test_percent_at_the_edges_is_compass_only_where_both_mean_the_same() -> None:
    """With corners, a flip or a turn, percent of the original is another point."""
    edge = Gravity(kind=GravityKind.PERCENT, x=0.0, y=50.0)
    whole = Plan(width_px=5, height_px=5, mode=Mode.CROP, gravity=edge)
    assert Gravity(x=0.0, y=0.5) == plan.canonical(whole).gravity
    for other in (
        Plan(width_px=5, height_px=5, mode=Mode.CROP, gravity=edge, flip_horizontal=True),
        Plan(width_px=5, height_px=5, mode=Mode.CROP, gravity=edge, rotate_ccw_degrees=90),
        Plan(width_px=5, height_px=5, mode=Mode.CROP, gravity=edge, top_left_px=(1, 1)),
    ):
        assert edge == plan.canonical(other).gravity


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Plan(), ""),
        (Plan(width_px=400), "w=400"),
        (Plan(width_px=400, height_px=300, mode=Mode.CROP), "w=400&h=300&func=crop"),
        (Plan(height_px=300, may_enlarge=False), "h=300&org_if_sml=1"),
        (Plan(width_px=4, height_px=3, mode=Mode.FIT, may_enlarge=False), "w=4&h=3&func=fit"),
        (
            Plan(width_px=4, height_px=3, mode=Mode.FIT, gravity=Gravity(x=1.0, y=1.0)),
            "w=4&h=3&func=fit&gravity=southeast&fit_enlarge=1",
        ),
        (
            Plan(
                top_left_px=(1, 2),
                bottom_right_px=(30, 40),
                flip_vertical=True,
                rotate_ccw_degrees=90,
                width_px=4,
                height_px=3,
                mode=Mode.CROP,
                gravity=Gravity(kind=GravityKind.PERCENT, x=33.3333, y=20.0),
                background=(1, 2, 255),
                gray=True,
                quality=50,
                formats=("_webp", "jpeg"),
            ),
            (
                "tl_px=1,2&br_px=30,40&flip=v&r=90&w=4&h=3&func=crop&gravity=33.3333p,20p"
                "&bg_color=0102ff&gray=1&q=50&force_format=_webp,jpeg"
            ),
        ),
    ],
)
def test_operations_are_written_for_people_and_stay_the_same(asked: Plan, expected: str) -> None:
    """The text is in the access log, and its bytes decide the names of cached files: a change empties caches."""
    assert asked == plan.canonical(asked)
    assert expected == plan.operations_text(asked)
    assert b"plan 1\n" + expected.encode() == plan.encode(asked)
