"""Reading the value of one URL option.

As tolerant as clients need (decimals, any truthy flag, encoded lists); everything else is a
BadRequest that names the parameter, what was given and what it takes. An empty value means "not given",
so it never comes here.
"""

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

from imgserve.core import colours, options
from imgserve.core.colours import Colour
from imgserve.core.errors import BadRequest
from imgserve.core.options import BUSTER_MAX_CHARS, Kind, Option
from imgserve.core.plan import (
    ALWAYS_ACCEPTED,
    AUTO,
    CENTRE,
    NUMBER_MAX,
    RADIUS_MAX_PX,
    TINT_OPACITY,
    Gravity,
    GravityKind,
    Mode,
)

_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15})", re.ASCII)

_ROWS: Final = {"north": 0.0, "": 0.5, "south": 1.0}
_COLUMNS: Final = {"west": 0.0, "": 0.5, "east": 1.0}
COMPASS: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        **{row + column: (x, y) for row, y in _ROWS.items() for column, x in _COLUMNS.items() if row + column},
        **{column + row: (x, y) for row, y in _ROWS.items() for column, x in _COLUMNS.items() if row + column},
        **dict.fromkeys(("center", "centre"), (0.5, 0.5)),
    }
)
"""Names of gravity as fractions of the free room, from west and from north."""

_FORMATS: Final[Mapping[str, str]] = MappingProxyType(
    {"jpg": "jpeg"} | {name: name for name in ("jpeg", "png", "webp", "_webp", "avif", "original", "plain")}
)

_SEVERAL: Final = frozenset({Kind.COLOUR, Kind.COLOURS, Kind.CORNERS})


def shown(text: str) -> str:
    """Text from outside, cut and made printable, for use inside a message."""
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in text[:40])


def refused(option: Option, text: str) -> BadRequest:
    """The error for a value that cannot be meant."""
    return BadRequest(f"{option.name}={shown(text)} is not understood: use {option.range}.")


def flag(text: str) -> bool:
    """Whether a flag is on: anything but ``0`` and ``false``, since clients send junk for true."""
    return text.strip().lower() not in ("", "0", "false")


def number(option: Option, text: str) -> float:
    """A number within the option's bounds; decimals are allowed. Raises BadRequest."""
    value = _number(option, text.strip(), text)
    if not option.low <= value <= option.high:
        raise refused(option, text)
    return value


def whole(option: Option, text: str) -> int:
    """The same, rounded. Raises BadRequest."""
    return math.floor(number(option, text) + 0.5)


def at_most(option: Option, text: str, limit: float) -> float:
    """A number from 0; what is above the limit counts as the limit. Raises BadRequest."""
    return min(number(option, text), limit)


def side(option: Option, text: str) -> tuple[float | None, float | None]:
    """A length above 0, at most NUMBER_MAX, in pixels or else in percent. Raises BadRequest."""
    part = text.strip().lower()
    is_percent = part.endswith(("p", "%"))
    value = _number(option, part[:-1] if is_percent else part, text)
    if value <= 0:
        raise refused(option, text)
    value = min(value, NUMBER_MAX)
    return (None, value) if is_percent else (value, None)


def angle(option: Option, text: str) -> tuple[int, float]:
    """Degrees as a quarter turn of 0, 90, 180 or 270, and what is added to it, from -45 to under 45 in hundredths.

    Negative and full turns are folded in. Raises BadRequest.
    """
    degrees = round(_number(option, text.strip(), text) % 360, 2)
    quarters = math.floor((degrees + 45) / 90)
    return quarters * 90 % 360, round(degrees - quarters * 90, 2) + 0.0


def ratio(option: Option, text: str) -> tuple[float, float]:
    """The least and the greatest ratio of width to height; equal for a single one. Raises BadRequest."""
    ends = [_ratio(option, part, text) for part in unquote(text).split(",")]
    if len(ends) > 2:
        raise refused(option, text)
    return min(ends), max(ends)


def mode(option: Option, text: str) -> Mode:
    """A resize mode; ``face`` is a crop. Raises BadRequest."""
    name = text.strip().lower()
    try:
        return Mode.CROP if name == "face" else Mode(name)
    except ValueError as error:
        raise refused(option, text) from error


def flips(option: Option, text: str) -> tuple[bool, bool]:
    """Whether to mirror left-right, and top-bottom. Raises BadRequest."""
    axes = text.strip().lower()
    if axes not in ("h", "v", "hv", "vh"):
        raise refused(option, text)
    return "h" in axes, "v" in axes


def point(option: Option, text: str) -> tuple[int, int]:
    """A corner in whole pixels; what lies left of or above the image is moved to its edge. Raises BadRequest."""
    x, y = _two(option, text)
    return _coordinate(_number(option, x, text)), _coordinate(_number(option, y, text))


def colour(option: Option, text: str) -> Colour:
    """Red, green and blue, 0 to 255. Raises BadRequest."""
    return _colour(option, text, text)


def two_colours(option: Option, text: str) -> tuple[Colour, Colour]:
    """Two colours with a comma. Raises BadRequest."""
    first, second = _two(option, unquote(text))
    return _colour(option, first, text), _colour(option, second, text)


def tint(option: Option, text: str) -> tuple[Colour, float]:
    """A colour, and its opacity where one follows. Raises BadRequest."""
    name, comma, opacity = unquote(text).partition(",")
    value = round(_number(option, opacity.strip(), text), 4) if comma else TINT_OPACITY
    if not 0 <= value <= 1:
        raise refused(option, text)
    return _colour(option, name, text), value + 0.0


def radii(option: Option, text: str, dpr: float) -> tuple[int, int, int, int]:
    """Radii of four corners in pixels, or one for all of them; ``max`` is RADIUS_MAX_PX. Raises BadRequest."""
    found = [_radius(option, part.strip().lower(), text, dpr) for part in unquote(text).split(",")]
    if len(found) == 1:
        found *= 4
    if len(found) != 4:
        raise refused(option, text)
    return found[0], found[1], found[2], found[3]


def filters(text: str) -> dict[str, str]:
    """A list of filters as the parameters that it stands for, by their first names.

    A number, ``max`` or a colour belongs to the filter before it where that takes several values. Unknown names change
    nothing.
    """
    found: dict[str, str] = {}
    several = ""
    for part in unquote(text).split(","):
        name, colon, value = (piece.strip() for piece in part.partition(":"))
        if name.lower() == "face":
            found["func"] = "face"
            continue
        option = options.lookup(name.lower())
        if option is None and name and colon:
            several = ""
        elif option is not None and option.is_filter:
            several = option.name if option.kind in _SEVERAL and colon else ""
            if value or option.kind is Kind.FLAG or option.name == "sharp":
                found[option.name] = value.replace(":", ",") if option.kind in _SEVERAL else value or "1"
        elif several and not colon and _is_value(name):
            found[several] = f"{found[several]},{name}"
    return found


def gravity(option: Option, text: str) -> Gravity:
    """A compass point, a focal point in pixels or percent, or what is left to the picture. Raises BadRequest."""
    name = text.strip().lower()
    if name in ("auto", "smart", "face"):
        return AUTO
    if name == "trim":
        return Gravity(kind=GravityKind.TRIM)
    if name in COMPASS:
        x, y = COMPASS[name]
        return CENTRE if (x, y) == (0.5, 0.5) else Gravity(x=x, y=y)
    horizontal, vertical = _two(option, name)
    unit = horizontal[-1:] if horizontal[-1:] in ("p", "s", "c") else ""
    if unit:
        if not vertical.endswith(unit):
            raise refused(option, text)
        horizontal, vertical = horizontal[:-1], vertical[:-1]
    factor = 100 if unit == "c" else 1
    focal_x = round(_number(option, horizontal, text) * factor, 4)
    focal_y = round(_number(option, vertical, text) * factor, 4)
    limit = 100 if unit else NUMBER_MAX
    if min(focal_x, focal_y) < 0 or (unit and max(focal_x, focal_y) > limit):
        raise refused(option, text)
    kind = {"": GravityKind.PIXELS, "s": GravityKind.SCALED}.get(unit, GravityKind.PERCENT)
    # The + 0.0 turns a negative zero into zero, so that equal points print equally.
    return Gravity(kind=kind, x=min(focal_x, limit) + 0.0, y=min(focal_y, limit) + 0.0)


def formats(option: Option, text: str) -> tuple[str, ...]:
    """Known format names in the asked order; empty means by Accept. Raises BadRequest if none is known.

    A list of which a requester may accept nothing ends in ``plain``. Decoded once more, since clients send
    lists that are encoded twice.
    """
    names = [name for name in (part.strip() for part in unquote(text).lower().split(",")) if name]
    if "auto" in names:
        return ()
    known = tuple(_FORMATS[name] for name in names if name in _FORMATS)
    if not known:
        raise refused(option, text)
    is_certain = len(names) == 1 or not ALWAYS_ACCEPTED.isdisjoint(known)
    return known if is_certain else (*known, "plain")


def buster(option: Option, text: str) -> str:
    """A cache-buster as it is. Raises BadRequest if it is too long."""
    if len(text) > BUSTER_MAX_CHARS:
        raise refused(option, text)
    return text


def _number(option: Option, part: str, whole: str) -> float:
    if not _NUMBER.fullmatch(part):
        raise refused(option, whole)
    return float(part)


def _is_value(part: str) -> bool:
    return bool(_NUMBER.fullmatch(part)) or part.lower() == "max" or colours.parse(part) is not None


def _ratio(option: Option, part: str, whole: str) -> float:
    across, colon, down = part.strip().partition(":")
    width = _number(option, across.strip(), whole)
    height = _number(option, down.strip(), whole) if colon else 1.0
    value = round(width / height, 6) if height > 0 else 0.0
    if not 0.01 <= value <= 100:
        raise refused(option, whole)
    return value


def _radius(option: Option, part: str, whole: str, dpr: float) -> int:
    if part == "max":
        return RADIUS_MAX_PX
    value = _number(option, part, whole)
    if value < 0:
        raise refused(option, whole)
    return min(int(value * dpr + 0.5), RADIUS_MAX_PX)


def _colour(option: Option, part: str, whole: str) -> Colour:
    found = colours.parse(part)
    if found is None:
        raise refused(option, whole)
    return found


def _two(option: Option, text: str) -> tuple[str, str]:
    first, comma, second = text.partition(",")
    if not comma:
        raise refused(option, text)
    return first.strip(), second.strip()


def _coordinate(value: float) -> int:
    return min(max(int(value + 0.5), 0), NUMBER_MAX)
