"""Filters, shapes and backgrounds in URLs: read as clients mean them, printed and read back, refused by name."""

import hashlib
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from imgserve.core import colours, grammar, keys, plan
from imgserve.core.errors import BadRequest
from imgserve.core.filters import Filters
from imgserve.core.options import OPTIONS
from imgserve.core.plan import AUTO, Backdrop, Gravity, GravityKind, Mode, Plan
from imgserve.core.tenants import Tenant

TENANT = Tenant(name="demo", presets={"old": "f=sepia,bright:5&radius=max", "sharp": "sharp=1"})
BLUE, RED = (0, 0, 255), (255, 0, 0)


def request_of(query: str) -> grammar.ImageRequest:
    return grammar.parse(f"/example.com/a.jpg?{query}", TENANT)


def plan_of(query: str) -> Plan:
    return request_of(query).plan


def hasher(data: bytes) -> bytes:
    return hashlib.blake2b(data, key=b"test", digest_size=16).digest()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("blur=5", Filters(blur=5.0)),
        ("blur=2.505&dpr=2", Filters(blur=5.01)),
        ("sharp=0.8", Filters(sharp=0.8)),
        ("sharpen=1", Filters(sharp=1.0)),
        ("sharp=400", Filters(sharp=10.0)),
        ("bright=-255", Filters(bright=-255)),
        ("bright=10.6", Filters(bright=11)),
        ("contrast=-100", Filters(contrast=-100)),
        ("saturation=50", Filters(saturation=50)),
        ("saturate=50", Filters(saturation=50)),
        ("pixelate=12", Filters(pixelate=12)),
        ("pixellate=12&dpr=1.5", Filters(pixelate=18)),
        ("pixelate=1", Filters()),
        ("sepia=1", Filters(sepia=True)),
        ("sepia=0", Filters()),
        ("invert=yes", Filters(invert=True)),
        ("duotone=f00,00f", Filters(duotone=(RED, BLUE))),
        ("duotone=Red%2C%230000ff", Filters(duotone=(RED, BLUE))),
        ("colorize=red", Filters(colorize=(RED, 0.5))),
        ("colourise=ff0000,0.25", Filters(colorize=(RED, 0.25))),
        ("colorize=f00,0", Filters()),
        ("blur=0&sharp=0&bright=0&contrast=-0&saturation=0.0&pixelate=0", Filters()),
    ],
)
def test_filters_are_read_as_clients_mean_them(query: str, expected: Filters) -> None:
    """Synonyms, decimals, colour names, dpr; what changes nothing is not in the plan."""
    assert Plan(filters=expected) == plan_of(query)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bright:10,contrast:20,grey", Plan(gray=True, filters=Filters(bright=10, contrast=20))),
        ("bright%3A10%2Ccontrast%3A20", Plan(filters=Filters(bright=10, contrast=20))),
        ("bright%253A10%252Ccontrast%253A20", Plan(filters=Filters(bright=10, contrast=20))),
        ("gray", Plan(gray=True)),
        ("GREY:1, Sepia", Plan(gray=True, filters=Filters(sepia=True))),
        ("grey:0", Plan()),
        ("sharp", Plan(filters=Filters(sharp=1.0))),
        ("saturate:20,pixellate:4", Plan(filters=Filters(saturation=20, pixelate=4))),
        ("duotone:f00:00f,invert", Plan(filters=Filters(duotone=(RED, BLUE), invert=True))),
        ("duotone:f00,00f,invert", Plan(filters=Filters(duotone=(RED, BLUE), invert=True))),
        ("colorize:red,0.5", Plan(filters=Filters(colorize=(RED, 0.5)))),
        ("radius:5", Plan(radii_px=(5, 5, 5, 5))),
        ("radius:1,2,3,4,sepia", Plan(radii_px=(1, 2, 3, 4), filters=Filters(sepia=True))),
        ("vignette:3,,glow,:,bright", Plan()),
        ("w:5,q:3,func:fit", Plan()),
        ("bright:10,bright:20", Plan(filters=Filters(bright=20))),
    ],
)
def test_a_list_of_filters_is_the_same_as_each_alone(text: str, expected: Plan) -> None:
    """Raw or encoded once or twice; unknown names, and what is no filter, change nothing."""
    assert expected == plan_of(f"f={text}")


def test_a_parameter_wins_over_the_list_and_a_preset_over_both() -> None:
    """Whatever stands first in the URL; the rest of the list stays."""
    assert Filters(bright=3, contrast=4) == plan_of("bright=3&f=bright:9,contrast:4").filters
    assert Filters(bright=3, contrast=4) == plan_of("f=bright:9,contrast:4&bright=3").filters
    old = plan_of("p=old&bright=99&sharp=1&radius=4")
    assert (Filters(bright=5, sepia=True, sharp=1.0), (8192,) * 4) == (old.filters, old.radii_px)
    assert Filters(sharp=1.0) == plan_of("p=sharp&f=sharp:3").filters


@pytest.mark.parametrize("query", ["func=face", "f=face", "func=face&f=face", "gravity=face", "gravity=smart"])
def test_faces_are_attention_for_now(query: str) -> None:
    """One plan, hence one file; a gravity that is given counts."""
    expected = Plan(width_px=9, height_px=9, mode=Mode.CROP, gravity=AUTO)
    assert expected == plan_of(f"w=9&h=9&{query}") == plan_of("w=9&h=9&gravity=auto")


def test_f_face_leaves_a_mode_and_a_gravity_alone() -> None:
    """What is said elsewhere wins."""
    assert Mode.FIT is plan_of("w=9&h=9&func=fit&f=face").mode
    assert Gravity(x=0.5, y=0.0) == plan_of("w=9&h=9&f=face&gravity=north").gravity


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("radius=20", Plan(radii_px=(20, 20, 20, 20))),
        ("radius=7.5&dpr=2", Plan(radii_px=(15, 15, 15, 15))),
        ("radius=max", Plan(radii_px=(8192,) * 4)),
        ("radius=999999", Plan(radii_px=(8192,) * 4)),
        ("radius=max,0,0,MAX", Plan(radii_px=(8192, 0, 0, 8192))),
        ("radius=0", Plan()),
        ("radius=0,0,0,0", Plan()),
        ("trim=10", Plan(trim_percent=10.0)),
        ("trim=0", Plan(trim_percent=0.0)),
        ("r=45", Plan(rotate_ccw_degrees=90, tilt_ccw_degrees=-45.0)),
        ("r=337.5", Plan(tilt_ccw_degrees=-22.5)),
        ("r=-22.5", Plan(tilt_ccw_degrees=-22.5)),
        ("r=697.5", Plan(tilt_ccw_degrees=-22.5)),
        ("r=359.999", Plan()),
        ("r=90.004", Plan(rotate_ccw_degrees=90)),
        ("r=135.25", Plan(rotate_ccw_degrees=180, tilt_ccw_degrees=-44.75)),
        ("flip=h&r=190", Plan(flip_vertical=True, tilt_ccw_degrees=10.0)),
        ("w=50p", Plan(width_percent=50.0)),
        ("w=50%25", Plan(width_percent=50.0)),
        ("w=50%", Plan(width_percent=50.0)),
        ("h=12.5P&dpr=2", Plan(height_percent=25.0)),
        ("h=100%", Plan()),
        ("w=100p&h=100p&func=cover", Plan()),
        ("w=100p&h=9", Plan(width_percent=100.0, height_px=9, mode=Mode.CROP)),
        ("ar=16:9&w=1920", Plan(width_px=1920, height_px=1080, mode=Mode.CROP)),
        ("ar=1.5&h=100", Plan(width_px=150, height_px=100, mode=Mode.CROP)),
        ("ar=1.5&w=90&h=100", Plan(width_px=90, height_px=100, mode=Mode.CROP)),
        ("aspect_ratio=3:2", Plan(aspect=(1.5, 1.5), mode=Mode.CROP)),
        ("ar=3:2&func=fit", Plan(aspect=(1.5, 1.5), mode=Mode.CROP)),
        ("ar=2,4:3", Plan(aspect=(1.333333, 2.0), mode=Mode.CROP)),
        ("ar=2,1&w=50", Plan(aspect=(1.0, 2.0), width_px=50, mode=Mode.CROP)),
        ("ar=2&w=50p", Plan(aspect=(2.0, 2.0), width_percent=50.0, mode=Mode.CROP)),
        ("w=9&h=9&func=boundmin&gravity=north", Plan(width_px=9, height_px=9, mode=Mode.BOUNDMIN)),
        ("w=9&h=9&func=cropfit", Plan(width_px=9, height_px=9, mode=Mode.CROPFIT, may_enlarge=False)),
        ("w=9&h=9&func=cropfit&fit_enlarge=1", Plan(width_px=9, height_px=9, mode=Mode.CROPFIT)),
        ("w=9&func=cropfit", Plan(width_px=9)),
        ("w=9&h=9&gravity=10s,20.5s", Plan(
            width_px=9, height_px=9, mode=Mode.CROP, gravity=Gravity(kind=GravityKind.PERCENT, x=10.0, y=20.5)
        )),
        ("r=90&w=9&h=9&gravity=10s,20s", Plan(
            rotate_ccw_degrees=90, width_px=9, height_px=9, mode=Mode.CROP,
            gravity=Gravity(kind=GravityKind.SCALED, x=10.0, y=20.0),
        )),
        ("r=90&w=9&h=9&gravity=0s,50s", Plan(
            rotate_ccw_degrees=90, width_px=9, height_px=9, mode=Mode.CROP, gravity=Gravity(x=0.0, y=0.5)
        )),
        ("w=9&h=9&gravity=trim", Plan(width_px=9, height_px=9, mode=Mode.CROP, gravity=AUTO)),
        ("w=9&h=9&func=fit&gravity=trim&fit_enlarge=1", Plan(width_px=9, height_px=9, mode=Mode.FIT)),
        ("trim=1&w=9&h=9&gravity=trim", Plan(
            trim_percent=1.0, width_px=9, height_px=9, mode=Mode.CROP, gravity=Gravity(kind=GravityKind.TRIM)
        )),
        ("w=9&h=9&func=fit&margin=3.4&dpr=2&fit_enlarge=1", Plan(
            width_px=18, height_px=18, mode=Mode.FIT, margin_px=7
        )),
        ("w=9&h=9&margin=3", Plan(width_px=9, height_px=9, mode=Mode.CROP)),
        ("bg_color=red", Plan(background=RED)),
        ("bg_colour=RebeccaPurple", Plan(background=(102, 51, 153))),
        ("bg_color=auto", Plan(background_is_auto=True)),
        ("bg_img_fit=1", Plan()),
        ("w=9&h=9&func=fit&bg_blur=9", Plan(width_px=9, height_px=9, mode=Mode.FIT, may_enlarge=False)),
        ("w=9&h=9&func=fit&bg_img_fit=1&bg_blur=20", Plan(
            width_px=9, height_px=9, mode=Mode.FIT, may_enlarge=False, backdrop=Backdrop()
        )),
        ("w=9&h=9&func=fit&bg_img_fit=1&bg_blur=3&bg_opacity=0.5&bg_colourise=blue,0.2", Plan(
            width_px=9, height_px=9, mode=Mode.FIT, may_enlarge=False,
            backdrop=Backdrop(blur=3.0, opacity=0.5, tint=(BLUE, 0.2)),
        )),
        ("prog=1", Plan()),
        ("prog=0", Plan(is_progressive=False)),
        ("prog=0&force_format=png", Plan(formats=("png",))),
        ("gray=1&saturation=50", Plan(gray=True)),
    ],
)  # fmt: skip
def test_shapes_sizes_and_backgrounds(query: str, expected: Plan) -> None:
    """Each becomes the canonical plan that is meant, which is its own canonical form."""
    assert expected == plan_of(query)
    assert expected == plan.canonical(expected)


def test_force_download_is_of_the_answer_and_not_of_the_file() -> None:
    """Equal requests, one file; the flag is printed and read back."""
    plain, download = request_of("w=9"), request_of("w=9&force_download=1")
    assert plain == download
    assert (False, True) == (plain.is_download, download.is_download)
    assert grammar.parse(grammar.print_request(download, TENANT), TENANT).is_download


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("blur=101", "0 to 100"),
        ("blur=-1", "0 to 100"),
        ("blur=a", "0 to 100"),
        ("sharp=-1", "0 or more"),
        ("bright=256", "-255 to 255"),
        ("contrast=101", "-100 to 100"),
        ("saturation=-101", "-100 to 100"),
        ("pixelate=200", "0 to 100"),
        ("duotone=red", "two colours"),
        ("duotone=red,blue,green", "two colours"),
        ("duotone=red,nocolour", "two colours"),
        ("colorize=nocolour", "CSS"),
        ("colorize=red,2", "0 to 1"),
        ("colorize=red,", "0 to 1"),
        ("radius=-1", "pixels or max"),
        ("radius=1,2", "pixels or max"),
        ("radius=1,2,3,4,5", "pixels or max"),
        ("radius=big", "pixels or max"),
        ("trim=101", "0 to 100"),
        ("trim=-1", "0 to 100"),
        ("margin=-1", "pixels"),
        ("ar=0", "16:9"),
        ("ar=101", "16:9"),
        ("ar=16:0", "16:9"),
        ("ar=1,2,3", "16:9"),
        ("ar=a:b", "16:9"),
        ("w=0p", "percentage"),
        ("w=%25", "percentage"),
        ("h=5pp", "percentage"),
        ("r=left", "degrees"),
        ("bg_color=redd", "auto"),
        ("bg_blur=101&bg_img_fit=1", "0 to 100"),
        ("bg_opacity=1.5&bg_img_fit=1", "0 to 1"),
        ("bg_colorize=auto&bg_img_fit=1", "CSS"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name_and_range(query: str, values: str) -> None:
    """Parameter, value and what it takes."""
    with pytest.raises(BadRequest) as caught:
        plan_of(query)
    name, _, value = query.partition("&")[0].partition("=")
    assert name in caught.value.public
    assert value.replace("%25", "%") in caught.value.public
    assert values in caught.value.public


def test_a_bad_value_in_a_list_names_its_filter() -> None:
    """Only names are tolerated."""
    with pytest.raises(BadRequest, match="bright=foo"):
        plan_of("f=contrast:5,bright:foo")


def test_the_named_colours_are_those_of_css() -> None:
    """148 names; some by the specification's own table."""
    assert 148 == len(colours.NAMES)
    assert all(colours.parse(name) is not None for name in colours.NAMES)
    expected = {"hotpink": (255, 105, 180), "SlateGrey": (112, 128, 144), "tan": (210, 180, 140), " navy ": (0, 0, 128)}
    assert expected == {name: colours.parse(name) for name in expected}
    assert colours.parse("grey") == colours.parse("gray")


def test_every_default_of_the_table_means_nothing() -> None:
    """A parameter at its documented default leaves the plan, hence the key, as it is."""
    for option in OPTIONS:
        if option.default and option.default.replace(".", "").isdigit() and option.name not in ("dpr", "bg_blur"):
            assert Plan() == plan_of(f"{option.name}={option.default}"), option.name


numbers = st.integers(-100, 100).map(str)
strengths = st.integers(0, 100).map(str) | st.decimals(0, 100, places=2).map(str)
names = st.sampled_from(["red", "0f0", "#123456", "SlateBlue", "ABCDEF"])
opacities = st.sampled_from(["", ",0", ",0.25", ",1"])
lengths = st.sampled_from(["0", "3", "7.5", "max", "100000"])
ratios = st.sampled_from(["1", "1.778", "16:9", "0.5", "4:3"])
options = st.fixed_dictionaries(
    {},
    optional={
        "w": st.sampled_from(["100", "50p", "33.3%", "100p", "8000"]),
        "h": st.sampled_from(["70", "100%", "12.5p"]),
        "func": st.sampled_from(["crop", "fit", "cropfit", "bound", "boundmin", "cover", "face"]),
        "gravity": st.sampled_from(["auto", "smart", "trim", "north", "10s,20s", "0s,100s", "10p,20p", "5,6"]),
        "dpr": st.sampled_from(["1", "2", "1.5"]),
        "tl_px": st.just("3,4"),
        "flip": st.sampled_from(["h", "v", "hv"]),
        "r": st.integers(-720, 720).map(str) | st.decimals(0, 360, places=3).map(str),
        "ar": ratios | st.tuples(ratios, ratios).map(",".join),
        "org_if_sml": st.just("1"),
        "fit_enlarge": st.just("1"),
        "margin": st.sampled_from(["0", "5", "12.5"]),
        "trim": strengths,
        "bg_color": names | st.just("auto"),
        "bg_img_fit": st.sampled_from(["0", "1"]),
        "bg_blur": strengths,
        "bg_opacity": st.sampled_from(["0", "0.5", "1"]),
        "bg_colorize": st.tuples(names, opacities).map("".join),
        "radius": lengths | st.tuples(lengths, lengths, lengths, lengths).map(",".join),
        "gray": st.sampled_from(["0", "1"]),
        "sharp": strengths,
        "blur": strengths,
        "pixelate": strengths,
        "bright": st.integers(-255, 255).map(str),
        "contrast": numbers,
        "saturation": numbers,
        "sepia": st.sampled_from(["0", "1"]),
        "invert": st.sampled_from(["0", "1"]),
        "duotone": st.tuples(names, names).map(",".join),
        "colorize": st.tuples(names, opacities).map("".join),
        "prog": st.sampled_from(["0", "1"]),
        "force_format": st.sampled_from(["png", "webp", "jpeg", "webp,jpeg"]),
    },
)
SYNONYMS = {option.name: (option.name, *option.synonyms) for option in OPTIONS}
LISTED = [option.name for option in OPTIONS if option.is_filter]


def query_of(pairs: dict[str, str]) -> str:
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs.items())


@given(pairs=options)
@settings(deadline=None, max_examples=500)
def test_reading_what_is_printed_gives_the_plan_back(pairs: dict[str, str]) -> None:
    """For all combinations; the print is canonical, and what it says is in the log."""
    first = plan_of(query_of(pairs))
    text = plan.operations_text(first)
    assert first == plan_of(text) == plan.canonical(first)
    assert text == plan.operations_text(plan_of(text))
    assert text.isascii() and len(text) <= 512


@given(pairs=options, data=st.data())
@settings(deadline=None, max_examples=300)
def test_order_synonyms_and_lists_make_no_other_file(pairs: dict[str, str], data: st.DataObject) -> None:
    """Any order, any synonym, and any filters moved into f= give the same key."""
    moved = [name for name in pairs if name in LISTED and data.draw(st.booleans())]
    listed = data.draw(st.permutations([f"{data.draw(st.sampled_from(SYNONYMS[n]))}:{pairs[n]}" for n in moved]))
    rest = [(data.draw(st.sampled_from(SYNONYMS[name])), value) for name, value in pairs.items() if name not in moved]
    shuffled = data.draw(
        st.permutations([*rest, *([("f", ",".join(["unknown:1", *listed, "glow"]))] if listed else [])])
    )
    other = plan_of("&".join(f"{name}={quote(value, safe=':,')}" for name, value in shuffled))
    first = plan_of(query_of(pairs))
    assert first == other
    assert keys.plan_key(hasher, first) == keys.plan_key(hasher, other)


@given(one=options, other=options)
@settings(deadline=None, max_examples=300)
def test_different_plans_have_different_bytes(one: dict[str, str], other: dict[str, str]) -> None:
    """The encoding forgets nothing."""
    first, second = plan_of(query_of(one)), plan_of(query_of(other))
    assume(first != second)
    assert plan.encode(first) != plan.encode(second)
