"""Scale to the exact size of the layout, before anything is turned."""

import pyvips

from imgserve.adapters.render.steps.work import Work


def scale(work: Work) -> pyvips.Image:
    """The image at the layout's size. Colours are weighted by alpha, so that hidden ones don't bleed in."""
    image = work.image
    width, height = work.raw_scaled_size
    if (image.width, image.height) == (width, height):
        return image
    if not image.hasalpha():
        return _to_size(image, width, height)
    plain = image.format
    weighted = image.premultiply()
    if width < image.width or height < image.height:
        # Five times as fast as in floats. Where pixels are spread out the rounding would show as steps.
        weighted = weighted.cast(plain)
    return _to_size(weighted, width, height).unpremultiply().cast(plain)


def _to_size(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    return image.resize(width / image.width, vscale=height / image.height)
