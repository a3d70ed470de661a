"""Filters that look at a pixel's neighbours: sharpening, blurring, squares of one colour."""

import math
from collections.abc import Callable
from typing import Final

import pyvips

from imgserve.adapters.render.steps.work import Work

_SHRUNK_FROM_SIGMA: Final = 3.0
_SMALLEST_PART: Final = 0.01  # of its peak, where a Gaussian's mask ends


def soften(work: Work) -> pyvips.Image:
    """The image sharpened, then blurred, then cut into squares, as far as the plan asks for each."""
    image, filters = work.image, work.job.plan.filters
    if filters.sharp:
        image = weighted(image, lambda plain: _sharpened(plain, filters.sharp))
    if filters.blur:
        image = blurred(image, filters.blur)
    if filters.pixelate:
        image = weighted(image, lambda plain: _squares(plain, filters.pixelate))
    return image


def blurred(image: pyvips.Image, sigma: float) -> pyvips.Image:
    """The image under a Gaussian of this sigma in pixels. A wide one is made of a shrunken image: it costs no more."""
    return weighted(image, lambda plain: _gauss(plain, sigma))


def weighted(image: pyvips.Image, change: Callable[[pyvips.Image], pyvips.Image]) -> pyvips.Image:
    """What a change makes of the image, its colours weighted by alpha, so that hidden ones don't come to light."""
    if not image.hasalpha():
        return change(image).rint().cast("uchar")
    return change(image.premultiply()).unpremultiply().rint().cast("uchar").copy(interpretation=image.interpretation)


def _gauss(image: pyvips.Image, sigma: float) -> pyvips.Image:
    if sigma < 0.2:  # narrower than a pixel: its mask would be a single 1
        return image
    factor = 1
    while sigma / factor >= _SHRUNK_FROM_SIGMA:
        factor *= 2
    if factor == 1:
        return _smooth(image, sigma)
    small = _means(image.cast("float"), factor)
    # A box of n pixels blurs, too: its variance is (n^2 - 1) / 12.
    rest = math.sqrt(sigma**2 - (factor**2 - 1) / 12) / factor
    # Not by resize, which puts what it enlarges half a pixel too far to the right and below.
    return _smooth(small, rest).affine(
        [factor, 0, 0, factor],
        interpolate=pyvips.Interpolate.new("bicubic"),
        oarea=[0, 0, image.width, image.height],
        odx=(factor - 1) / 2,
        ody=(factor - 1) / 2,
        extend="copy",
        premultiplied=True,
    )


def _smooth(image: pyvips.Image, sigma: float) -> pyvips.Image:
    # With whole numbers in its mask a narrow Gaussian darkens or lightens the image by up to four levels.
    return image.gaussblur(sigma, min_ampl=_SMALLEST_PART, precision="float")


def _means(image: pyvips.Image, side: int) -> pyvips.Image:
    """The means of squares from the top left; the last ones are filled up with the nearest pixels."""
    width, height = (-(-length // side) * side for length in (image.width, image.height))
    return image.embed(0, 0, width, height, extend="copy").shrink(side, side)


def _sharpened(image: pyvips.Image, strength: float) -> pyvips.Image:
    return image + (image - _smooth(image, 1.0)) * strength


def _squares(image: pyvips.Image, side: int) -> pyvips.Image:
    """Squares of their mean colour, from the top left; the last ones are cut."""
    return _means(image, side).zoom(side, side).crop(0, 0, image.width, image.height)
