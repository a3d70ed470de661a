"""The URL grammar: from a raw request target to what is asked, and back.

This is the only place that parses a URL of an image. Of a parameter given twice the last counts, whichever of its
names was used. Stronger than the URL is the preset, and stronger than that what is sealed. An empty value is the same
as none; an unknown parameter changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final
from urllib.parse import quote, unquote_plus

from imgserve.core import locations, options, signature, values
from imgserve.core.errors import BadRequest, Misconfigured
from imgserve.core.filters import Filters
from imgserve.core.keys import Busters
from imgserve.core.options import Kind, Option
from imgserve.core.originals import Original
from imgserve.core.plan import (
    AUTO,
    BACKDROP_BLUR,
    CENTRE,
    NUMBER_MAX,
    Backdrop,
    Gravity,
    Mode,
    Plan,
    canonical,
    operations_text,
    side_of,
)
from imgserve.core.tenants import Tenant

TARGET_MAX_CHARS: Final = 8190
"""Longest request target that is read."""

PAIRS_MAX: Final = 64
"""Most parameters that a query may have, known or not."""

_SHARP_MAX: Final = 10.0
_SPREAD_MAX_PX: Final = 100.0  # of blurs and squares, dpr included

_RESERVED: Final = frozenset({"", "robots.txt", "favicon.ico"})
_RESERVED_FOLDERS: Final = frozenset({"-", ".well-known"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """What a URL asks for. Equal requests are answered with the same file.

    ``busters``: cache-busters, sorted. ``is_preset``: the URL used a preset, so its plan is one of the tenant's own.
    ``is_download``: browsers are to save the image, not to show it.
    """

    original: Original
    plan: Plan
    busters: Busters = ()
    is_preset: bool = field(default=False, compare=False)
    is_download: bool = field(default=False, compare=False)


def parse(target: str, tenant: Tenant, *, must_be_signed: bool = True) -> ImageRequest:
    """Read a raw request target (origin-form, undecoded, RFC 9112 section 3.2.1).

    Bytes that are not UTF-8 are expected as surrogates (PEP 383). ``must_be_signed`` False is for targets that the
    tenant itself sends, in an invalidation; what is sealed counts there too. Raises BadRequest; Denied if the tenant
    demands a signature and it is wrong; Misconfigured if an alias or the prefix of the tenant cannot be used.
    """
    escaped = _escaped(target)
    sealed = (signature.verify if must_be_signed else signature.sealed_query)(target, tenant.signing)
    path, _, query = escaped.partition("?")
    if is_reserved(path):
        raise BadRequest("This path is the server's own, and never an image.")
    given = _given(query) | _given(sealed)
    encoded = given.get("ci_url_encoded", "")
    original = locations.resolve(_without_version(path), tenant, is_encoded=values.flag(encoded))
    preset = given.get("p")
    if preset is not None:
        given = given | _preset(preset, tenant) | _given(sealed)
    return ImageRequest(
        original=original,
        plan=_plan(given),
        busters=_busters(given),
        is_preset=preset is not None,
        is_download=_is_on(given, "force_download"),
    )


def is_reserved(path: str) -> bool:
    """Whether a raw path, with or without a query, is the server's own and never an original."""
    first, slash, _ = locations.decode_unreserved(path.partition("?")[0].removeprefix("/")).partition("/")
    return first in _RESERVED_FOLDERS or (not slash and first in _RESERVED)


def print_request(request: ImageRequest, tenant: Tenant) -> str:
    """A target that ``parse`` reads as this request; unsigned, always with ``/v7/``.

    Raises ValueError if the original's alias is no longer the tenant's.
    """
    path = locations.spelling(request.original, tenant)
    pairs = [f"{name}={quote(value, safe='')}" for name, value in request.busters]
    if request.is_download:
        pairs.append("force_download=1")
    if "?" in path:
        path = quote(path, safe="")
        pairs.append("ci_url_encoded=1")
    query = "&".join(part for part in (operations_text(request.plan), *pairs) if part)
    return f"/v7/{path}" + (f"?{query}" if query else "")


def check(tenant: Tenant) -> None:
    """Raise Misconfigured unless the tenant's aliases, prefix and presets can be used in URLs."""
    locations.check(tenant)
    for name, query in tenant.presets.items():
        key = f"tenants.{tenant.name}.presets.{name}"
        try:
            _plan(_preset(name, tenant))
            unknown = [spelling for spelling, _ in _pairs(query.removeprefix("?")) if options.lookup(spelling) is None]
        except BadRequest as error:
            raise Misconfigured(key, query, str(error)) from error
        if unknown:  # an URL may bring anything, a preset is the operator's own
            near = get_close_matches(unknown[0], options.spellings(), 1)
            fix = f"did you mean {near[0]}?" if near else "README has the table of options"
            raise Misconfigured(key, query, f"there is no option {values.shown(unknown[0])}; {fix}")


def _escaped(target: str) -> str:
    """The target in ASCII; refused if it is too long or holds what no target may hold."""
    if len(target) > TARGET_MAX_CHARS:
        raise BadRequest(f"The URL is longer than {TARGET_MAX_CHARS} characters.")
    if not target.startswith("/"):
        raise BadRequest("The request target must begin with a slash.")
    if any(char < " " or char in "\x7f\\#" for char in target):
        raise BadRequest("The URL may not hold control characters, backslashes or a fragment.")
    if target.isascii():
        return target
    try:
        raw = target.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BadRequest("The URL holds characters that cannot be encoded.") from error
    return locations.escape(raw)


def _without_version(path: str) -> str:
    return path[4:] if path.startswith("/v7/") else path[1:]


def _pairs(query: str) -> list[tuple[str, str]]:
    """Every parameter as written, decoded."""
    pieces = [piece.partition("=") for piece in query.split("&") if piece]
    if len(pieces) > PAIRS_MAX:
        raise BadRequest(f"The URL has more than {PAIRS_MAX} parameters.")
    return [(unquote_plus(name), unquote_plus(value)) for name, _, value in pieces]


def _given(query: str) -> dict[str, str]:
    """The known parameters that have a value, by their first names; filters of ``f`` are parameters of their own."""
    found: dict[str, str] = {}
    for spelling, value in _pairs(query):
        option = options.lookup(spelling)
        if option is not None:
            found[option.name] = value
    found = {name: value for name, value in found.items() if value.strip()}
    return values.filters(found.pop("f", "")) | found


def _preset(name: str, tenant: Tenant) -> dict[str, str]:
    query = tenant.presets.get(name)
    if query is None:
        raise BadRequest(f"p={values.shown(name)}: this tenant has no such preset.")
    return _given(query.removeprefix("?"))


def _busters(given: Mapping[str, str]) -> Busters:
    found = ((_option(name), text) for name, text in given.items())
    return tuple(sorted((one.name, values.buster(one, text)) for one, text in found if one.kind is Kind.BUSTER))


def _plan(given: Mapping[str, str]) -> Plan:
    dpr = values.number(_option("dpr"), given["dpr"]) if "dpr" in given else 1.0
    top_left, bottom_right = _corners(given)
    horizontal, vertical = values.flips(_option("flip"), given["flip"]) if "flip" in given else (False, False)
    degrees, tilt = values.angle(_option("r"), given["r"]) if "r" in given else (0, 0.0)
    mode = values.mode(_option("func"), given["func"]) if "func" in given else Mode.CROP
    width, width_percent = _side(given, "w", dpr)
    height, height_percent = _side(given, "h", dpr)
    aspect = values.ratio(_option("ar"), given["ar"]) if "ar" in given else None
    has_box = ("w" in given) + ("h" in given) + (aspect is not None) >= 2
    may_enlarge = not _is_on(given, "org_if_sml")
    if mode in (Mode.FIT, Mode.CROPFIT) and has_box:
        may_enlarge = may_enlarge and _is_on(given, "fit_enlarge")
    is_auto = given.get("bg_color", "").strip().lower() == "auto"
    has_colour = "bg_color" in given and not is_auto
    return canonical(
        Plan(
            trim_percent=_number(given, "trim") if "trim" in given else None,
            top_left_px=top_left,
            bottom_right_px=bottom_right,
            flip_horizontal=horizontal,
            flip_vertical=vertical,
            rotate_ccw_degrees=degrees,
            tilt_ccw_degrees=tilt,
            width_px=width,
            height_px=height,
            width_percent=width_percent,
            height_percent=height_percent,
            aspect=aspect,
            mode=mode,
            gravity=_gravity(given),
            may_enlarge=may_enlarge,
            margin_px=min(int(_number(given, "margin") * dpr + 0.5), NUMBER_MAX),
            background=values.colour(_option("bg_color"), given["bg_color"]) if has_colour else None,
            background_is_auto=is_auto,
            backdrop=_backdrop(given, dpr),
            gray=_is_on(given, "gray"),
            filters=_filters(given, dpr),
            radii_px=values.radii(_option("radius"), given["radius"], dpr) if "radius" in given else None,
            quality=int(values.number(_option("q"), given["q"]) + 0.5) if "q" in given else None,
            is_progressive="prog" not in given or _is_on(given, "prog"),
            formats=values.formats(_option("force_format"), given["force_format"]) if "force_format" in given else (),
        )
    )


def _corners(given: Mapping[str, str]) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    top_left = values.point(_option("tl_px"), given["tl_px"]) if "tl_px" in given else None
    bottom_right = values.point(_option("br_px"), given["br_px"]) if "br_px" in given else None
    if bottom_right is not None:
        left, top = top_left or (0, 0)
        if bottom_right[0] <= left or bottom_right[1] <= top:
            raise BadRequest("br_px must be right of and below tl_px.")
    return top_left, bottom_right


def _side(given: Mapping[str, str], name: str, dpr: float) -> tuple[int | None, float | None]:
    """A side in whole pixels or else in percent, dpr multiplied in."""
    if name not in given:
        return None, None
    length, percent = values.side(_option(name), given[name])
    return (
        None if length is None else side_of(length * dpr),
        None if percent is None else min(max(round(percent * dpr, 4), 0.0001), NUMBER_MAX),
    )


def _gravity(given: Mapping[str, str]) -> Gravity:
    if "gravity" in given:
        return values.gravity(_option("gravity"), given["gravity"])
    return AUTO if given.get("func", "").strip().lower() == "face" else CENTRE


def _filters(given: Mapping[str, str], dpr: float) -> Filters:
    return Filters(
        sharp=min(_number(given, "sharp"), _SHARP_MAX),
        blur=round(min(_number(given, "blur") * dpr, _SPREAD_MAX_PX), 2),
        pixelate=int(min(_number(given, "pixelate") * dpr, _SPREAD_MAX_PX) + 0.5),
        bright=values.whole(_option("bright"), given["bright"]) if "bright" in given else 0,
        contrast=values.whole(_option("contrast"), given["contrast"]) if "contrast" in given else 0,
        saturation=values.whole(_option("saturation"), given["saturation"]) if "saturation" in given else 0,
        sepia=_is_on(given, "sepia"),
        duotone=values.two_colours(_option("duotone"), given["duotone"]) if "duotone" in given else None,
        colorize=values.tint(_option("colorize"), given["colorize"]) if "colorize" in given else None,
        invert=_is_on(given, "invert"),
    )


def _backdrop(given: Mapping[str, str], dpr: float) -> Backdrop | None:
    if not _is_on(given, "bg_img_fit"):
        return None
    tint = values.tint(_option("bg_colorize"), given["bg_colorize"]) if "bg_colorize" in given else None
    blur = _number(given, "bg_blur") if "bg_blur" in given else BACKDROP_BLUR
    return Backdrop(
        blur=round(min(blur * dpr, _SPREAD_MAX_PX), 2),
        opacity=_number(given, "bg_opacity") if "bg_opacity" in given else 1.0,
        tint=tint if tint is not None and tint[1] else None,
    )


def _number(given: Mapping[str, str], name: str) -> float:
    """A number that is 0 where it is not given, to four decimals."""
    return round(values.number(_option(name), given[name]), 4) + 0.0 if name in given else 0.0


def _is_on(given: Mapping[str, str], name: str) -> bool:
    return values.flag(given.get(name, ""))


def _option(name: str) -> Option:
    option = options.lookup(name)
    assert option is not None, name
    return option
