"""Filters: what a plan does to colours and sharpness, after the resize."""

from dataclasses import dataclass, replace
from typing import Final

from imgserve.core.colours import Colour, text_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Strengths of all filters, in the order in which they work; the defaults change nothing.

    ``blur`` is the sigma of a Gaussian in pixels of the output, ``pixelate`` the side of a block in the same, both with
    dpr multiplied in. ``duotone`` is the colour of black and that of white, ``colorize`` a colour and its opacity.
    """

    sharp: float = 0.0
    blur: float = 0.0
    pixelate: int = 0
    bright: int = 0
    contrast: int = 0
    saturation: int = 0
    sepia: bool = False
    duotone: tuple[Colour, Colour] | None = None
    colorize: tuple[Colour, float] | None = None
    invert: bool = False


NONE: Final = Filters()


def canonical(filters: Filters, *, is_gray: bool) -> Filters:
    """The same without what changes nothing. ``is_gray``: the image has lost its colours before."""
    return replace(
        filters,
        pixelate=0 if filters.pixelate <= 1 else filters.pixelate,
        saturation=0 if is_gray else filters.saturation,
        colorize=None if filters.colorize is not None and not filters.colorize[1] else filters.colorize,
    )


def operations(filters: Filters) -> list[tuple[str, str]]:
    """The filters as URL parameters in a fixed order; defaults are left out."""
    strengths = (
        ("sharp", filters.sharp),
        ("blur", filters.blur),
        ("pixelate", filters.pixelate),
        ("bright", filters.bright),
        ("contrast", filters.contrast),
        ("saturation", filters.saturation),
    )
    pairs = [(name, decimal(value)) for name, value in strengths if value]
    if filters.sepia:
        pairs.append(("sepia", "1"))
    if filters.duotone is not None:
        pairs.append(("duotone", ",".join(map(text_of, filters.duotone))))
    if filters.colorize is not None:
        colour, opacity = filters.colorize
        pairs.append(("colorize", f"{text_of(colour)},{decimal(opacity)}"))
    if filters.invert:
        pairs.append(("invert", "1"))
    return pairs


def decimal(value: float) -> str:
    """A number with at most four decimals, and none that say nothing."""
    return f"{value:.4f}".rstrip("0").rstrip(".")
