"""Plans: what to do with an original, with every default filled in."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from imgserve.core import filters
from imgserve.core.colours import Colour, text_of
from imgserve.core.filters import Filters, decimal


class Mode(StrEnum):
    """How an image is brought to the asked size."""

    CROP = "crop"
    FIT = "fit"
    CROPFIT = "cropfit"
    BOUND = "bound"
    BOUNDMIN = "boundmin"
    COVER = "cover"


class GravityKind(StrEnum):
    """How a gravity's two numbers are meant."""

    COMPASS = "compass"  # fractions of the free room: 0 is west or north, 0.5 the centre, 1 east or south
    PIXELS = "pixels"  # a focal point in pixels of the original, after EXIF orientation
    PERCENT = "percent"  # the same in percent of its sides
    SCALED = "scaled"  # in percent of the sides of the resized image
    AUTO = "auto"  # where the eye falls; the numbers say nothing
    TRIM = "trim"  # by the sides that trimming has cut; the numbers say nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Gravity:
    """The part of an image that a crop keeps, or where a fit places it."""

    kind: GravityKind = GravityKind.COMPASS
    x: float = 0.5
    y: float = 0.5


CENTRE = Gravity()
AUTO = Gravity(kind=GravityKind.AUTO)

RADIUS_MAX_PX: Final = 8192
"""A radius that stands for the shorter side, whatever it is: no output is larger."""

BACKDROP_BLUR: Final = 20.0
TINT_OPACITY: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdrop:
    """What a fit has for padding instead of a colour: a copy of the image.

    ``blur``: sigma in pixels of the output. ``opacity``: of the copy upon the background. ``tint``: colour and opacity.
    """

    blur: float = BACKDROP_BLUR
    opacity: float = 1.0
    tint: tuple[Colour, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do with an original. Equal meaning gives equal plans, hence one key and one file.

    Order of work: EXIF orientation, trim, corners, flip, rotation, resize by mode, gray, filters, radii, padding,
    background, encoding. Each step measures in the image that the one before it gives.
    ``trim_percent`` is how far a colour may be from the border's; None: no trimming. ``rotate_ccw_degrees`` is a
    quarter turn, ``tilt_ccw_degrees`` what is added, from -45 to under 45. ``width_px`` and ``height_px`` include dpr,
    as do ``width_percent`` and ``height_percent``, which stand in their place. ``aspect`` is the least and the
    greatest ratio of width to height. ``radii_px`` are those of top left, bottom left, bottom right and top right.
    ``quality`` None means the format's default. ``formats`` is the asked priority chain of format names; empty means
    negotiated by Accept.
    """

    trim_percent: float | None = None
    top_left_px: tuple[int, int] | None = None
    bottom_right_px: tuple[int, int] | None = None
    flip_horizontal: bool = False
    flip_vertical: bool = False
    rotate_ccw_degrees: int = 0
    tilt_ccw_degrees: float = 0.0
    width_px: int | None = None
    height_px: int | None = None
    width_percent: float | None = None
    height_percent: float | None = None
    aspect: tuple[float, float] | None = None
    mode: Mode = Mode.BOUND
    gravity: Gravity = CENTRE
    may_enlarge: bool = True
    margin_px: int = 0
    background: Colour | None = None
    background_is_auto: bool = False
    backdrop: Backdrop | None = None
    gray: bool = False
    filters: Filters = filters.NONE
    radii_px: tuple[int, int, int, int] | None = None
    quality: int | None = None
    is_progressive: bool = True
    formats: tuple[str, ...] = ()


ALWAYS_ACCEPTED: Final = frozenset({"jpeg", "png", "original", "plain"})
"""Formats that no requester is asked about, so that what follows them in a chain is never reached."""

_NEVER_PROGRESSIVE: Final = (("png",), ("webp",), ("_webp",))
NUMBER_MAX: Final = 1_000_000
"""Larger sizes and coordinates mean the same as this one."""

_HALF_TURN: Final = 180
_ENCODING_VERSION: Final = b"plan 1\n"

_COMPASS_NAMES: Final[Mapping[tuple[float, float], str]] = MappingProxyType(
    {
        (0.0, 0.0): "northwest",
        (0.5, 0.0): "north",
        (1.0, 0.0): "northeast",
        (0.0, 0.5): "west",
        (0.5, 0.5): "center",
        (1.0, 0.5): "east",
        (0.0, 1.0): "southwest",
        (0.5, 1.0): "south",
        (1.0, 1.0): "southeast",
    }
)


def canonical(plan: Plan) -> Plan:
    """The one plan that stands for all plans of this meaning; its own canonical form.

    Gravity is compass of the nine names, a focal point, or left to the picture.
    """
    plan = _sized(plan)
    has_width, has_height = _has_sides(plan)
    has_box = (has_width and has_height) or plan.aspect is not None
    mode = plan.mode if has_box and (has_width or has_height) else Mode.CROP if has_box else Mode.BOUND
    chain = _reachable(plan.formats)
    horizontal, vertical, degrees = _simplest_turn(plan)
    turned = replace(
        plan,
        top_left_px=None if plan.top_left_px == (0, 0) else plan.top_left_px,
        flip_horizontal=horizontal,
        flip_vertical=vertical,
        rotate_ccw_degrees=degrees,
        mode=mode,
        may_enlarge=plan.may_enlarge or not (has_width or has_height),
        margin_px=plan.margin_px if mode in (Mode.FIT, Mode.CROPFIT) else 0,
        backdrop=plan.backdrop if mode in (Mode.FIT, Mode.CROPFIT) else None,
        background=None if plan.background_is_auto else plan.background,
        filters=filters.canonical(plan.filters, is_gray=plan.gray),
        radii_px=plan.radii_px if plan.radii_px is not None and any(plan.radii_px) else None,
        quality=None if chain == ("png",) else plan.quality,
        is_progressive=plan.is_progressive or chain in _NEVER_PROGRESSIVE,
        formats=chain,
    )
    return replace(turned, gravity=_gravity_that_counts(turned))


def operations(plan: Plan) -> tuple[tuple[str, str], ...]:
    """A canonical plan as URL parameters in a fixed order; defaults are left out. Reading them gives the plan."""
    pairs: list[tuple[str, str]] = []
    if plan.trim_percent is not None:
        pairs.append(("trim", decimal(plan.trim_percent)))
    if plan.top_left_px is not None:
        pairs.append(("tl_px", "{},{}".format(*plan.top_left_px)))
    if plan.bottom_right_px is not None:
        pairs.append(("br_px", "{},{}".format(*plan.bottom_right_px)))
    if plan.flip_horizontal or plan.flip_vertical:
        pairs.append(("flip", "h" * plan.flip_horizontal + "v" * plan.flip_vertical))
    if plan.rotate_ccw_degrees or plan.tilt_ccw_degrees:
        pairs.append(("r", decimal((plan.rotate_ccw_degrees + plan.tilt_ccw_degrees) % 360)))
    pairs.extend(_size_operations(plan))
    pairs.extend(_background_operations(plan))
    if plan.gray:
        pairs.append(("gray", "1"))
    pairs.extend(filters.operations(plan.filters))
    if plan.radii_px is not None:
        radii = plan.radii_px[:1] if len(set(plan.radii_px)) == 1 else plan.radii_px
        pairs.append(("radius", ",".join("max" if radius >= RADIUS_MAX_PX else str(radius) for radius in radii)))
    if plan.quality is not None:
        pairs.append(("q", str(plan.quality)))
    if not plan.is_progressive:
        pairs.append(("prog", "0"))
    if plan.formats:
        pairs.append(("force_format", ",".join(plan.formats)))
    return tuple(pairs)


def operations_text(plan: Plan) -> str:
    """A canonical plan for people and for the access log, such as ``w=400&h=300&func=crop``; "" changes nothing.

    Holds nothing of the URL's own text: no origin, no cache-buster, no unknown parameter.
    """
    return "&".join(f"{name}={value}" for name, value in operations(plan))


def encode(plan: Plan) -> bytes:
    """A canonical plan as bytes for hashing: equal bytes, equal plan. An option left at its default adds nothing,
    so that a later option leaves the keys of today's plans as they are."""
    return _ENCODING_VERSION + operations_text(plan).encode("ascii")


def _simplest_turn(plan: Plan) -> tuple[bool, bool, int]:
    # Flips and quarter turns make eight different images. Both flips are half a turn; a half turn after one flip
    # is the other flip. What remains: four turns, two flips, and two flips with a turn by 90.
    horizontal, vertical, degrees = plan.flip_horizontal, plan.flip_vertical, plan.rotate_ccw_degrees % 360
    if horizontal and vertical:
        return False, False, (degrees + _HALF_TURN) % 360
    if (horizontal or vertical) and degrees >= _HALF_TURN:
        return vertical, horizontal, degrees - _HALF_TURN
    return horizontal, vertical, degrees


def _reachable(chain: tuple[str, ...]) -> tuple[str, ...]:
    reached: list[str] = []
    for name in chain:
        if name.removeprefix("_") not in {earlier.removeprefix("_") for earlier in reached}:
            reached.append(name)
        if name in ALWAYS_ACCEPTED:
            break
    return tuple(reached)


def _has_sides(plan: Plan) -> tuple[bool, bool]:
    return (
        plan.width_px is not None or plan.width_percent is not None,
        plan.height_px is not None or plan.height_percent is not None,
    )


def _sized(plan: Plan) -> Plan:
    """The plan with its aspect ratio turned into a side where that can be known, and without sizes of no effect."""
    if all(_has_sides(plan)):
        plan = replace(plan, aspect=None)
    elif plan.aspect is not None and plan.aspect[0] == plan.aspect[1]:
        ratio = plan.aspect[0]
        if plan.width_px is not None:
            plan = replace(plan, height_px=side_of(plan.width_px / ratio), aspect=None)
        elif plan.height_px is not None:
            plan = replace(plan, width_px=side_of(plan.height_px * ratio), aspect=None)
    only_percent = {plan.width_percent, plan.height_percent} - {None}
    if plan.aspect is None and plan.width_px is None and plan.height_px is None and only_percent == {100.0}:
        plan = replace(plan, width_percent=None, height_percent=None)
    return plan


def side_of(length: float) -> int:
    """A length as a side in whole pixels, at least 1."""
    return min(max(int(length + 0.5), 1), NUMBER_MAX)


def _gravity_that_counts(plan: Plan) -> Gravity:
    gravity, mode = plan.gravity, plan.mode
    if mode not in (Mode.CROP, Mode.FIT, Mode.CROPFIT):
        return CENTRE
    if gravity.kind is GravityKind.TRIM and plan.trim_percent is None:
        gravity = AUTO  # nothing is trimmed
    if gravity.kind in (GravityKind.COMPASS, GravityKind.TRIM):
        return gravity
    if mode is Mode.FIT:
        return CENTRE  # a focal point says what to keep, and fit keeps everything
    if gravity.kind not in (GravityKind.PERCENT, GravityKind.SCALED):
        return gravity
    is_whole = plan.top_left_px is None and plan.bottom_right_px is None
    is_turned = plan.flip_horizontal or plan.flip_vertical or plan.rotate_ccw_degrees or plan.tilt_ccw_degrees
    is_same_frame = is_whole and not is_turned
    fractions = (gravity.x / 100, gravity.y / 100)
    if mode is Mode.CROP and fractions in _COMPASS_NAMES and (is_same_frame or gravity.kind is GravityKind.SCALED):
        return Gravity(x=fractions[0], y=fractions[1])
    return replace(gravity, kind=GravityKind.PERCENT) if is_same_frame else gravity


def _size_operations(plan: Plan) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    sides = (("w", plan.width_px, plan.width_percent), ("h", plan.height_px, plan.height_percent))
    for name, length, percent in sides:
        if length is not None:
            pairs.append((name, str(length)))
        elif percent is not None:
            pairs.append((name, f"{decimal(percent)}p"))
    if plan.aspect is not None:
        low, high = plan.aspect
        pairs.append(("ar", _ratio_text(low) if low == high else f"{_ratio_text(low)},{_ratio_text(high)}"))
    if len(pairs) == 2:
        pairs.append(("func", plan.mode.value))
    if plan.gravity != CENTRE:
        pairs.append(("gravity", _gravity_text(plan.gravity)))
    if plan.mode in (Mode.FIT, Mode.CROPFIT):
        if plan.may_enlarge:
            pairs.append(("fit_enlarge", "1"))
    elif not plan.may_enlarge:
        pairs.append(("org_if_sml", "1"))
    if plan.margin_px:
        pairs.append(("margin", str(plan.margin_px)))
    return pairs


def _background_operations(plan: Plan) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    if plan.background_is_auto:
        pairs.append(("bg_color", "auto"))
    elif plan.background is not None:
        pairs.append(("bg_color", text_of(plan.background)))
    if plan.backdrop is not None:
        pairs.append(("bg_img_fit", "1"))
        if plan.backdrop.blur != BACKDROP_BLUR:
            pairs.append(("bg_blur", decimal(plan.backdrop.blur)))
        if plan.backdrop.opacity != 1:
            pairs.append(("bg_opacity", decimal(plan.backdrop.opacity)))
        if plan.backdrop.tint is not None:
            colour, opacity = plan.backdrop.tint
            pairs.append(("bg_colorize", f"{text_of(colour)},{decimal(opacity)}"))
    return pairs


def _gravity_text(gravity: Gravity) -> str:
    if gravity.kind in (GravityKind.AUTO, GravityKind.TRIM):
        return gravity.kind.value
    if gravity.kind is GravityKind.COMPASS:
        return _COMPASS_NAMES[gravity.x, gravity.y]
    unit = {GravityKind.PERCENT: "p", GravityKind.SCALED: "s"}.get(gravity.kind, "")
    return f"{decimal(gravity.x)}{unit},{decimal(gravity.y)}{unit}"


def _ratio_text(ratio: float) -> str:
    return f"{ratio:.6f}".rstrip("0").rstrip(".")
