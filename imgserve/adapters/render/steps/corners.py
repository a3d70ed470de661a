"""Round corners: those of the image within plain padding, else those of the output.

A plain padding has the colour that would be seen beyond the corners, so that rounding it would show nothing.
"""

import pyvips

from imgserve.adapters.render.steps.work import Work
from imgserve.core import geometry


def before_padding(work: Work) -> pyvips.Image:
    """The image with its corners rounded, unless a copy of itself is laid behind it."""
    return work.image if _has_backdrop(work) else _rounded(work)


def after_padding(work: Work) -> pyvips.Image:
    """The whole output with its corners rounded, where a copy of the image fills it."""
    return _rounded(work) if _has_backdrop(work) else work.image


def _has_backdrop(work: Work) -> bool:
    return work.job.plan.backdrop is not None and work.layout.canvas is not None


def _rounded(work: Work) -> pyvips.Image:
    """The image with corners that are clear from their circles outwards; a background is laid behind them later."""
    radii = work.job.plan.radii_px
    if radii is None:
        return work.image
    image = work.image
    mask = _mask(image.width, image.height, geometry.corner_radii(radii, image.width, image.height))
    if not image.hasalpha():
        return image.bandjoin(mask)
    alpha = (image.extract_band(image.bands - 1) * mask / 255).rint().cast("uchar")
    return image.extract_band(0, n=image.bands - 1).bandjoin(alpha)


def _mask(width: int, height: int, radii: tuple[float, float, float, float]) -> pyvips.Image:
    """255 inside, 0 outside, a pixel's width in between. The order of radii is the service's own."""
    mask = (pyvips.Image.black(width, height) + 255).cast("uchar")
    for radius, is_right, is_bottom in zip(radii, (False, False, True, True), (False, True, True, False), strict=True):
        side = min(int(radius + 0.999), width, height)
        if side == 0:
            continue
        corner = _quarter(side, radius)
        corner = corner.fliphor() if is_right else corner
        corner = corner.flipver() if is_bottom else corner
        mask = mask.insert(corner, width - side if is_right else 0, height - side if is_bottom else 0)
    return mask


def _quarter(side: int, radius: float) -> pyvips.Image:
    """The top left part of a disc."""
    places = pyvips.Image.xyz(side, side) + (0.5 - radius)
    distance = (places[0] ** 2 + places[1] ** 2) ** 0.5
    return ((radius + 0.5 - distance) * 255).rint().cast("uchar")
