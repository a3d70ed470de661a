"""Filters that change each colour by itself, one after the other."""

from collections.abc import Callable
from typing import Final

import pyvips

from imgserve.adapters.render.steps.work import Work
from imgserve.core.colours import Colour
from imgserve.core.filters import Filters

_LUMA: Final = (0.2126, 0.7152, 0.0722)  # of ITU-R BT.709
# Filter Effects Module Level 1, section 9.
_SEPIA: Final = ((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131))


def tones(work: Work) -> pyvips.Image:
    """The image in the colours that the plan's filters make; alpha stays."""
    filters = work.job.plan.filters
    changes = _changes(filters)
    if not changes:
        return work.image
    image = work.image
    if image.bands < 3 and _gives_colour(filters):
        image = image.colourspace("srgb")
    alpha = image.extract_band(image.bands - 1) if image.hasalpha() else None
    plain = image if alpha is None else image.extract_band(0, n=image.bands - 1)
    for change in changes:
        plain = change(plain).rint().cast("uchar")
    plain = plain.copy(interpretation=image.interpretation)
    return plain if alpha is None else plain.bandjoin(alpha)


_Change = Callable[[pyvips.Image], pyvips.Image]


def _changes(filters: Filters) -> list[_Change]:
    """The asked changes in the order in which they work."""
    changes: list[_Change] = []
    if filters.bright:
        changes.append(lambda image: image + filters.bright)
    if filters.contrast:
        changes.append(lambda image: _spread(image, filters.contrast))
    if filters.saturation:
        changes.append(lambda image: _saturated(image, 1 + filters.saturation / 100))
    if filters.sepia:
        changes.append(lambda image: image.recomb(pyvips.Image.new_from_array([list(row) for row in _SEPIA])))
    if filters.duotone is not None:
        dark, light = filters.duotone
        changes.append(lambda image: _duotone(image, dark, light))
    if filters.colorize is not None:
        colour, opacity = filters.colorize
        changes.append(lambda image: covered(image, colour, opacity))
    if filters.invert:
        changes.append(lambda image: 255 - image)
    return changes


def covered(image: pyvips.Image, colour: Colour, opacity: float) -> pyvips.Image:
    """An image of three bands, or of gray and a gray colour, under a colour of this opacity."""
    return image * (1 - opacity) + [value * opacity for value in colour[: image.bands]]


def _gives_colour(filters: Filters) -> bool:
    colours = [*(filters.duotone or ()), *(filters.colorize or ())[:1]]
    return filters.sepia or any(len(set(colour)) > 1 for colour in colours if isinstance(colour, tuple))


def _spread(image: pyvips.Image, contrast: int) -> pyvips.Image:
    factor = (1 + contrast / 100) ** 2
    return (image - 127.5) * factor + 127.5


def _saturated(image: pyvips.Image, amount: float) -> pyvips.Image:
    """saturate() of CSS: for each band, itself times the amount and luma for the rest."""
    if image.bands < 3:
        return image
    rows = [
        [weight * (1 - amount) + (amount if band == own else 0.0) for own, weight in enumerate(_LUMA)]
        for band in range(3)
    ]
    return image.recomb(pyvips.Image.new_from_array(rows))


def _duotone(image: pyvips.Image, dark: Colour, light: Colour) -> pyvips.Image:
    luma = image.recomb(pyvips.Image.new_from_array([list(_LUMA)])) if image.bands == 3 else image
    bands = [(luma / 255) * (light[band] - dark[band]) + dark[band] for band in range(min(image.bands, 3))]
    return bands[0].bandjoin(bands[1:]) if len(bands) > 1 else bands[0]
