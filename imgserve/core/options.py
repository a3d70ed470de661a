"""The one table of URL options: what a URL may say, how it is read, and what README shows of it.

The names and meanings are those of the Cloudimage v7 API. ``Mark`` says how sure we are of each row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from imgserve.core.plan import NUMBER_MAX

SIDE_MAX_PX: Final = 8192
"""Longest side of an output; what would be larger is scaled down."""

BUSTER_MAX_CHARS: Final = 64
"""Longest value of a cache-buster."""


class Kind(StrEnum):
    """How the text of an option is read."""

    PIXELS = "pixels"
    NUMBER = "number"
    DEGREES = "degrees"
    RATIO = "ratio"
    CHOICE = "choice"
    GRAVITY = "gravity"
    POINT = "point"
    FLAG = "flag"
    COLOUR = "colour"
    COLOURS = "colours"
    CORNERS = "corners"
    FILTERS = "filters"
    FORMATS = "formats"
    NAME = "name"
    BUSTER = "buster"
    CONTROL = "control"


class Mark(StrEnum):
    """How sure it is that the service behaves like this."""

    CONFIRMED = "confirmed"  # the vendor documents it, or its own code does it
    INFERRED = "inferred"  # follows from what is confirmed
    OWN = "own"  # our choice, where the service's is unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One URL option. ``low`` and ``high`` bound numbers, both included. ``is_filter``: ``f=`` may name it."""

    name: str
    synonyms: tuple[str, ...] = ()
    kind: Kind
    range: str
    default: str = ""
    doc: str
    mark: Mark = Mark.CONFIRMED
    low: float = 0
    high: float = NUMBER_MAX
    is_filter: bool = False


OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        name="w",
        synonyms=("width",),
        kind=Kind.PIXELS,
        range="a number of pixels above 0, or a percentage such as 50p or 50%",
        doc="Width of the output. Alone: height in proportion, enlarging unless org_if_sml. At most 8192 after dpr; "
        "more is scaled down. Percent is of the image after trim, corners and rotation.",
    ),
    Option(
        name="h",
        synonyms=("height",),
        kind=Kind.PIXELS,
        range="a number of pixels above 0, or a percentage such as 50p or 50%",
        doc="Height of the output; like w.",
    ),
    Option(
        name="func",
        kind=Kind.CHOICE,
        range="crop, fit, cropfit, bound, boundmin, cover or face",
        default="crop",
        doc="How both w and h are met: crop fills and cuts, fit pads, cropfit crops what is large enough for both and "
        "pads the rest, bound stays inside, boundmin is as small as covers both, cover distorts, face is crop with "
        "gravity=auto where no gravity is given. Without both it changes nothing.",
    ),
    Option(
        name="ar",
        synonyms=("aspect_ratio",),
        kind=Kind.RATIO,
        range="1.778, 16:9, or the two ends of a range with a comma; each 0.01 to 100",
        doc="Width to height. With one of w and h it gives the other; with neither it crops without resizing; with "
        "both it is ignored. A shape within the range stays, another is cropped to the nearer end.",
    ),
    Option(
        name="gravity",
        kind=Kind.GRAVITY,
        range="north, northeast, east … center, auto, smart, face, trim, or X,Y in pixels, Xp,Yp in percent, Xc,Yc in "
        "0 to 1 of the original, Xs,Ys in percent of the resized image",
        default="center",
        doc="The part that crop keeps, or where fit places the image. auto, smart and face are one for now: what "
        "catches the eye by detail, saturated colours and those of skin. trim keeps to the sides that trim has cut. "
        "Points are of the trimmed image.",
    ),
    Option(
        name="org_if_sml",
        kind=Kind.FLAG,
        range="1",
        default="off",
        doc="Never enlarge. With crop and cover the asked shape is kept, at the largest size the original has.",
    ),
    Option(
        name="fit_enlarge",
        kind=Kind.FLAG,
        range="1",
        default="off",
        doc="Lets func=fit enlarge; org_if_sml still forbids it.",
    ),
    Option(
        name="dpr",
        kind=Kind.NUMBER,
        range="0.1 to 10",
        default="1",
        low=0.1,
        high=10,
        doc="Multiplies w and h.",
    ),
    Option(
        name="margin",
        kind=Kind.NUMBER,
        range="a number of pixels",
        default="0",
        doc="With func=fit: the least room around the image, within w and h. Multiplied by dpr.",
        mark=Mark.INFERRED,
    ),
    Option(
        name="trim",
        kind=Kind.NUMBER,
        range="0 to 100",
        default="off",
        high=100,
        doc="Removes a border of one colour, or of full transparency, before everything else. The value is how many "
        "percent a colour may differ from the top left pixel's; 0 to 10 are usual.",
        mark=Mark.INFERRED,
    ),
    Option(
        name="tl_px",
        kind=Kind.POINT,
        range="X,Y in pixels of the original",
        default="0,0",
        doc="Top left corner of the part to use, before everything else; clamped to the image.",
    ),
    Option(
        name="br_px",
        kind=Kind.POINT,
        range="X,Y in pixels of the original, right of and below tl_px",
        default="the far corner",
        doc="Bottom right corner of the part to use, itself not included; clamped to the image.",
    ),
    Option(name="flip", kind=Kind.CHOICE, range="h, v or hv", doc="Mirrors left-right, top-bottom or both, before r."),
    Option(
        name="r",
        synonyms=("rotate",),
        kind=Kind.DEGREES,
        range="degrees",
        default="0",
        doc="Turns counter-clockwise, before resizing. Other angles than multiples of 90, taken to a hundredth, give "
        "corners of bg_color, else transparent where the format can, else white.",
    ),
    Option(
        name="bg_color",
        synonyms=("bg_colour",),
        kind=Kind.COLOUR,
        range="3 or 6 hex digits, a CSS colour name, or auto",
        doc="Colour of padding and corners, and behind transparency. auto is the image's most frequent colour.",
    ),
    Option(
        name="bg_img_fit",
        kind=Kind.FLAG,
        range="1",
        default="off",
        doc="With func=fit: the padding is a blurred copy of the image that fills w and h.",
    ),
    Option(
        name="bg_blur",
        kind=Kind.NUMBER,
        range="0 to 100",
        default="20",
        high=100,
        doc="With bg_img_fit: how much that copy is blurred, as blur.",
        mark=Mark.INFERRED,
    ),
    Option(
        name="bg_opacity",
        kind=Kind.NUMBER,
        range="0 to 1",
        default="1",
        high=1,
        doc="With bg_img_fit: how much of that copy is seen before bg_color, else white.",
        mark=Mark.INFERRED,
    ),
    Option(
        name="bg_colorize",
        synonyms=("bg_colourise", "bg_colorise", "bg_colourize"),
        kind=Kind.COLOUR,
        range="3 or 6 hex digits, or a CSS colour name; an opacity of 0 to 1 may follow with a comma",
        doc="With bg_img_fit: a tint upon that copy; without an opacity it is 0.5.",
        mark=Mark.INFERRED,
    ),
    Option(
        name="radius",
        kind=Kind.CORNERS,
        range="a number of pixels or max, or four with commas: top left, bottom left, bottom right, top right",
        default="0",
        is_filter=True,
        doc="Rounds the corners of the output, or of the image where func=fit pads it with a colour; "
        "multiplied by dpr. What is cut off has bg_color, else is transparent "
        "where the format can, else white. max is the shorter side; radii that overlap shrink alike, as in CSS.",
    ),
    Option(
        name="gray",
        synonyms=("grey",),
        kind=Kind.FLAG,
        range="1",
        default="off",
        is_filter=True,
        doc="Shades of gray.",
    ),
    Option(
        name="sharp",
        synonyms=("sharpen",),
        kind=Kind.NUMBER,
        range="0 or more; above 10 counts as 10",
        default="0",
        is_filter=True,
        doc="Sharpens after the resize: so many times the difference to a blur of 1 pixel is added.",
        mark=Mark.INFERRED,
    ),
    Option(
        name="blur",
        kind=Kind.NUMBER,
        range="0 to 100",
        default="0",
        high=100,
        is_filter=True,
        doc="Gaussian blur; the value is its sigma in pixels of the output, multiplied by dpr up to 100.",
        mark=Mark.INFERRED,
    ),
    Option(
        name="pixelate",
        synonyms=("pixellate",),
        kind=Kind.NUMBER,
        range="0 to 100",
        default="0",
        high=100,
        is_filter=True,
        doc="Squares of one colour, so many pixels of the output wide, multiplied by dpr up to 100.",
        mark=Mark.INFERRED,
    ),
    Option(
        name="bright",
        kind=Kind.NUMBER,
        range="-255 to 255",
        default="0",
        low=-255,
        high=255,
        is_filter=True,
        doc="Added to red, green and blue.",
        mark=Mark.INFERRED,
    ),
    Option(
        name="contrast",
        kind=Kind.NUMBER,
        range="-100 to 100",
        default="0",
        low=-100,
        high=100,
        is_filter=True,
        doc="Spreads red, green and blue around the middle, by (1 + value / 100) squared.",
        mark=Mark.INFERRED,
    ),
    Option(
        name="saturation",
        synonyms=("saturate",),
        kind=Kind.NUMBER,
        range="-100 to 100",
        default="0",
        low=-100,
        high=100,
        is_filter=True,
        doc="Spreads colours away from gray, as saturate() of CSS filters with 1 + value / 100.",
        mark=Mark.OWN,
    ),
    Option(
        name="sepia",
        kind=Kind.FLAG,
        range="1",
        default="off",
        is_filter=True,
        doc="Brown like an old photograph, as sepia(1) of CSS filters.",
        mark=Mark.OWN,
    ),
    Option(
        name="duotone",
        kind=Kind.COLOURS,
        range="two colours with a comma, as hex digits or CSS names",
        is_filter=True,
        doc="Shades from the first colour, in place of black, to the second, in place of white.",
        mark=Mark.OWN,
    ),
    Option(
        name="colorize",
        synonyms=("colourise", "colorise", "colourize"),
        kind=Kind.COLOUR,
        range="3 or 6 hex digits, or a CSS colour name; an opacity of 0 to 1 may follow with a comma",
        is_filter=True,
        doc="Lays a colour upon the image; without an opacity it is 0.5.",
        mark=Mark.OWN,
    ),
    Option(
        name="invert",
        kind=Kind.FLAG,
        range="1",
        default="off",
        is_filter=True,
        doc="The negative of red, green and blue, after all other filters.",
        mark=Mark.OWN,
    ),
    Option(
        name="f",
        kind=Kind.FILTERS,
        range="filters with commas, such as bright:10,contrast:20,grey",
        doc="The same as writing each filter as a parameter of its own, which wins where both are given. Unknown names "
        "are skipped; face is func=face.",
        mark=Mark.INFERRED,
    ),
    Option(
        name="q",
        kind=Kind.NUMBER,
        range="1 to 100",
        default="JPEG 80, WebP 79, AVIF 60",
        low=1,
        high=100,
        doc="Quality of a lossy format; PNG has none.",
    ),
    Option(
        name="force_format",
        kind=Kind.FORMATS,
        range="jpeg, jpg, png, webp, _webp, avif, original, plain, auto, or a list of them with commas",
        default="auto",
        doc="One name forces it. Of a list the first is taken that the requester accepts; unknown names are skipped. "
        "_webp is WebP even where that is larger, original the original's format, plain JPEG or PNG, auto by Accept.",
    ),
    Option(
        name="prog",
        kind=Kind.FLAG,
        range="0 or 1",
        default="on",
        doc="Whether a JPEG is progressive.",
        mark=Mark.OWN,
    ),
    Option(
        name="force_download",
        kind=Kind.FLAG,
        range="1",
        default="off",
        doc="Browsers save the image instead of showing it.",
        mark=Mark.INFERRED,
    ),
    Option(
        name="p",
        kind=Kind.NAME,
        range="the name of a preset of this tenant",
        doc="Adds the preset's parameters; they win over the URL's.",
    ),
    *(
        Option(
            name=name,
            kind=Kind.BUSTER,
            range=f"at most {BUSTER_MAX_CHARS} characters",
            doc="Cache-buster: another value is another image, fetched anew; no effect on pixels.",
            mark=mark,
        )
        for name, mark in (
            ("vh", Mark.CONFIRMED),
            ("v", Mark.INFERRED),
            ("ver", Mark.INFERRED),
            ("version", Mark.INFERRED),
            ("ts", Mark.INFERRED),
        )
    ),
    Option(
        name="ci_url_encoded",
        kind=Kind.FLAG,
        range="1",
        default="off",
        doc="The original is percent-encoded as a whole; it is decoded once, and may then have a query of its own.",
    ),
    Option(name="ci_sign", kind=Kind.CONTROL, range="hex digits", doc="Signature of the URL, where signing is on."),
    Option(
        name="ci_seal", kind=Kind.CONTROL, range="hex digits", doc="Seal of the path and ci_eqs, where sealing is on."
    ),
    Option(
        name="ci_eqs",
        kind=Kind.CONTROL,
        range="base64",
        doc="The sealed parameters; they win over all others.",
    ),
)

_BY_SPELLING: Final[Mapping[str, Option]] = MappingProxyType(
    {spelling: option for option in OPTIONS for spelling in (option.name, *option.synonyms)}
)


def lookup(spelling: str) -> Option | None:
    """The option of that name or synonym, exactly as written; None if there is none."""
    return _BY_SPELLING.get(spelling)


def spellings() -> tuple[str, ...]:
    """Every name and synonym."""
    return tuple(_BY_SPELLING)


def as_records() -> list[dict[str, str | list[str]]]:
    """The table as plain values, for JSON."""
    return [
        {
            "name": option.name,
            "synonyms": list(option.synonyms),
            "kind": option.kind.value,
            "range": option.range,
            "default": option.default,
            "doc": option.doc,
            "certainty": option.mark.value,
        }
        for option in OPTIONS
    ]


def markdown_table() -> str:
    """The table as Markdown, one row per option, for README."""
    lines = ["| parameter | values | default | what it does | certainty |", "|---|---|---|---|---|"]
    for option in OPTIONS:
        names = ", ".join(f"`{spelling}`" for spelling in (option.name, *option.synonyms))
        lines.append(f"| {names} | {option.range} | {option.default or '-'} | {option.doc} | {option.mark.value} |")
    return "\n".join(lines) + "\n"
