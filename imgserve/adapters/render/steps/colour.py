"""Bring every original to 8-bit sRGB or grey, with or without alpha."""

import pyvips

from imgserve.adapters.render import profiles
from imgserve.adapters.render.steps.work import Work

_GREYS = ("b-w", "grey16")


def to_srgb(work: Work) -> pyvips.Image:
    """Apply the embedded profile, or the usual one of the colour space, and leave 8 bits a sample."""
    image = _known_space(work.image)
    was_grey = image.interpretation in _GREYS
    has_profile = image.get_typeof("icc-profile-data") != 0
    if image.interpretation == "cmyk":
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", black_point_compensation=True)
    elif has_profile and not profiles.is_srgb(image.get("icc-profile-data")):
        image = _through_profile(image)
    if was_grey:
        image = image.colourspace("b-w")
    elif image.interpretation != "srgb":
        image = image.colourspace("srgb")
    return image if image.format == "uchar" else image.cast("uchar")


def _known_space(image: pyvips.Image) -> pyvips.Image:
    """Bands without a meaning are read as grey, grey with alpha, RGB or RGBA; a fifth one is dropped."""
    if image.interpretation != "multiband":
        return image
    bands = min(image.bands, 4)
    if bands < image.bands:
        image = image.extract_band(0, n=bands)
    is_wide = image.format == "ushort"
    grey, rgb = ("grey16", "rgb16") if is_wide else ("b-w", "srgb")
    return image.copy(interpretation=grey if bands < 3 else rgb)


def _through_profile(image: pyvips.Image) -> pyvips.Image:
    """Colours by the embedded profile. One that does not fit the image is ignored, as browsers do."""
    try:
        return image.icc_transform("srgb", embedded=True, black_point_compensation=True)
    except pyvips.Error:
        return image


def roughly_srgb(image: pyvips.Image) -> pyvips.Image:
    """The image in 8-bit sRGB with its alpha, without regard to profiles: for looking at, not for sending."""
    image = _known_space(image)
    if image.interpretation != "srgb":
        image = image.colourspace("srgb")
    return image if image.format == "uchar" else image.cast("uchar")


def gray(work: Work) -> pyvips.Image:
    """Luminance only, where the plan asks for it."""
    return work.image.colourspace("b-w") if work.job.plan.gray and work.image.bands > 2 else work.image


def background(work: Work) -> pyvips.Image:
    """An asked background colour lies behind the whole image."""
    colour = work.job.plan.background
    return work.image if colour is None else flattened(work.image, colour)


def flattened(image: pyvips.Image, colour: tuple[int, int, int]) -> pyvips.Image:
    """The image without alpha, upon this colour."""
    if not image.hasalpha():
        return image
    if image.bands < 3 and len(set(colour)) > 1:
        image = image.colourspace("srgb")
    return image.flatten(background=list(colour[: 1 if image.bands < 3 else 3]))
