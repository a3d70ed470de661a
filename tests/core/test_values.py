"""Values are read as tolerantly as clients need, and refused with parameter, value and range else."""

import pytest

from imgserve.core import grammar
from imgserve.core.errors import BadRequest
from imgserve.core.plan import Gravity, GravityKind, Mode, Plan
from imgserve.core.tenants import Tenant

TENANT = Tenant(name="demo")
PIXELS = GravityKind.PIXELS
PERCENT = GravityKind.PERCENT


def plan_of(query: str) -> Plan:
    return grammar.parse(f"/example.com/a.jpg?{query}", TENANT).plan


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", Plan()),
        ("w=400", Plan(width_px=400)),
        ("width=1120.0", Plan(width_px=1120)),
        ("h=+300", Plan(height_px=300)),
        ("w=0.2", Plan(width_px=1)),
        ("w=400&h=300", Plan(width_px=400, height_px=300, mode=Mode.CROP)),
        ("w=400&h=300&func=BOUND", Plan(width_px=400, height_px=300, mode=Mode.BOUND)),
        ("w=400&h=300&func=cover", Plan(width_px=400, height_px=300, mode=Mode.COVER)),
        ("w=400&h=300&func=fit", Plan(width_px=400, height_px=300, mode=Mode.FIT, may_enlarge=False)),
        ("w=400&h=300&func=fit&fit_enlarge=1", Plan(width_px=400, height_px=300, mode=Mode.FIT)),
        (
            "w=400&h=300&func=fit&fit_enlarge=1&org_if_sml=1",
            Plan(width_px=400, height_px=300, mode=Mode.FIT, may_enlarge=False),
        ),
        ("w=400&func=fit", Plan(width_px=400)),
        ("w=400&org_if_sml=118130", Plan(width_px=400, may_enlarge=False)),
        ("w=400&org_if_sml=0", Plan(width_px=400)),
        ("w=400&org_if_sml=False", Plan(width_px=400)),
        ("w=400&org_if_sml=", Plan(width_px=400)),
        ("w=400&dpr=2", Plan(width_px=800)),
        ("w=33&h=10&dpr=1.5&func=bound", Plan(width_px=50, height_px=15)),
        ("w=1000000&dpr=10", Plan(width_px=1_000_000)),
        ("w=999999999999", Plan(width_px=1_000_000)),
        ("dpr=3", Plan()),
        ("tl_px=10%2C20", Plan(top_left_px=(10, 20))),
        ("tl_px=-5,20.6&br_px=200,300", Plan(top_left_px=(0, 21), bottom_right_px=(200, 300))),
        ("flip=h", Plan(flip_horizontal=True)),
        ("flip=V", Plan(flip_vertical=True)),
        ("flip=hv", Plan(rotate_ccw_degrees=180)),
        ("r=90.0", Plan(rotate_ccw_degrees=90)),
        ("rotate=-90", Plan(rotate_ccw_degrees=270)),
        ("r=450", Plan(rotate_ccw_degrees=90)),
        ("r=360", Plan()),
        ("bg_color=fff", Plan(background=(255, 255, 255))),
        ("bg_colour=%230A0b0C", Plan(background=(10, 11, 12))),
        ("bg_color=%2523abc", Plan(background=(170, 187, 204))),
        ("gray=1", Plan(gray=True)),
        ("grey=yes", Plan(gray=True)),
        ("gray", Plan()),
        ("q=85.5", Plan(quality=86)),
        ("q=100", Plan(quality=100)),
        ("force_format=JPG", Plan(formats=("jpeg",))),
        ("force_format=webp%2Cjpg%2Cpng", Plan(formats=("webp", "jpeg"))),
        ("force_format=webp%252Coriginal", Plan(formats=("webp", "original"))),
        ("force_format=_webp", Plan(formats=("_webp",))),
        ("force_format=awebp,webp", Plan(formats=("webp", "plain"))),
        ("force_format=avif,webp", Plan(formats=("avif", "webp", "plain"))),
        ("force_format=auto", Plan()),
        ("force_format=png&q=80", Plan(formats=("png",))),
    ],
)
def test_a_value_is_read_as_clients_mean_it(query: str, expected: Plan) -> None:
    """Decimals, junk flags, escapes and spellings lead to the plan that is meant."""
    assert expected == plan_of(query)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("north", Gravity(x=0.5, y=0.0)),
        ("southwest", Gravity(x=0.0, y=1.0)),
        ("westsouth", Gravity(x=0.0, y=1.0)),
        ("East", Gravity(x=1.0, y=0.5)),
        ("center", Gravity()),
        ("centre", Gravity()),
        ("auto", Gravity(kind=GravityKind.AUTO)),
        ("120,80.5", Gravity(kind=PIXELS, x=120.0, y=80.5)),
        ("33.3p,20p", Gravity(kind=PERCENT, x=33.3, y=20.0)),
        ("0.25c,0.333333c", Gravity(kind=PERCENT, x=25.0, y=33.3333)),
        ("50p,50p", Gravity()),
        ("100p,0p", Gravity(x=1.0, y=0.0)),
    ],
)
def test_gravity_is_a_compass_point_or_a_focal_point(text: str, expected: Gravity) -> None:
    """Names in both orders, pixels, percent and fractions; percent at an edge is the compass point."""
    assert expected == plan_of(f"w=10&h=10&gravity={text}").gravity


@pytest.mark.parametrize(
    "query",
    [
        "w=0",
        "w=-5",
        "w=abc",
        "w=NaN",
        "w=inf",
        "w=1e3",
        "w=1_000",
        "w=\u0663",  # a digit, but not an ASCII one
        "w=1e9999",
        "func=zoom",
        "gravity=up",
        "gravity=10",
        "gravity=10,20,30",
        "gravity=10p,20",
        "gravity=10s,20",
        "gravity=101s,20s",
        "gravity=10,20p",
        "gravity=101p,20p",
        "gravity=1.1c,0c",
        "gravity=-1,20",
        "dpr=0",
        "dpr=10.5",
        "tl_px=10",
        "tl_px=10p,20p",
        "br_px=0,10",
        "tl_px=10,10&br_px=10,20",
        "flip=x",
        "r=left",
        "bg_color=ffff",
        "bg_color=ggg",
        "q=0",
        "q=101",
        "q=0.5",
        "force_format=tiff",
        "force_format=,",
        "p=unknown",
        "vh=" + "x" * 65,
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(query: str) -> None:
    """The public text names the parameter; nothing is guessed."""
    with pytest.raises(BadRequest) as caught:
        plan_of(query)
    assert query.partition("=")[0] in caught.value.public


def test_a_refusal_names_value_and_range_and_is_one_printable_line() -> None:
    """What was sent is shown cut and harmless."""
    with pytest.raises(BadRequest) as caught:
        plan_of("q=%0d%0aSet-Cookie:%20a" + "b" * 100)
    assert "use 1 to 100" in caught.value.public
    assert caught.value.public.isprintable()
    assert len(caught.value.public) < 120


def test_a_cache_buster_of_64_characters_is_let_in() -> None:
    """The bound itself is allowed."""
    request = grammar.parse("/example.com/a.jpg?ts=" + "x" * 64, TENANT)
    assert (("ts", "x" * 64),) == request.busters
