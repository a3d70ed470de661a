"""What a plan leaves to the picture: the border to trim, the colour it has most of, the place where the eye falls.

Each looks at the original once more, by a source of its own, as far as its decoder can shrink it.
"""

import dataclasses
from collections import Counter
from typing import Final

import pyvips

from imgserve.adapters.render.sniff import Buffer
from imgserve.adapters.render.steps import colour, load, orient
from imgserve.adapters.render.steps.work import Header
from imgserve.core import attention, geometry
from imgserve.core.colours import Colour
from imgserve.core.geometry import Rect
from imgserve.core.plan import Gravity, GravityKind, Plan

_ATTENTION_SIDE_PX: Final = 96
_COLOUR_SIDE_PX: Final = 64
_VISIBLE: Final = 128  # alpha from which a pixel's colour counts


def resolved(plan: Plan, data: Buffer, header: Header) -> tuple[Plan, Rect | None]:
    """The plan with nothing left to the picture, and what trimming leaves of the upright original.

    Raises pyvips.Error where the original cannot be decoded, BadRequest where the corners enclose nothing.
    """
    size = header.oriented_size
    trimmed = None if plan.trim_percent is None else content(plan.trim_percent, data, header)
    if plan.gravity.kind is GravityKind.TRIM:
        assert trimmed is not None, "canonical plans have gravity=trim only with trim"
        plan = dataclasses.replace(plan, gravity=geometry.trimmed_gravity(plan, trimmed, *size))
    if plan.background_is_auto:
        layout = geometry.layout(plan, *size, trimmed)
        small = _small(data, header, layout.region, _COLOUR_SIDE_PX)
        plan = dataclasses.replace(plan, background=dominant(small), background_is_auto=False)
    if plan.gravity.kind is GravityKind.AUTO:
        plan = dataclasses.replace(plan, gravity=_attention(plan, data, header, trimmed))
    return plan, trimmed


def content(percent: float, data: Buffer, header: Header) -> Rect:
    """The upright original without its border: what is of the colour of its top left pixel, up to this many percent.

    Where that pixel cannot be seen the border is what cannot be seen. An original of nothing but border stays whole.
    """
    image = orient.upright(colour.roughly_srgb(load.original(data, header.kind)).copy_memory(), header.orientation)
    whole = Rect(left=0, top=0, width=image.width, height=image.height)
    corner = image.getpoint(0, 0)
    if image.hasalpha():
        if corner[-1] == 0:
            image, corner = image.extract_band(image.bands - 1), [0.0]
        else:
            image, corner = image.flatten(background=corner[:-1]), corner[:-1]
    differs = ((image - corner).abs() > percent * 255 / 100).bandor()
    columns, rows = differs.project()
    left, right = _ends(columns)
    top, bottom = _ends(rows)
    if right <= left or bottom <= top:
        return whole
    return Rect(left=left, top=top, width=right - left, height=bottom - top)


def dominant(image: pyvips.Image) -> Colour:
    """The mean of the colours in the fullest of 512 equal parts of sRGB; white if nothing can be seen."""
    if not image.hasalpha():
        image = image.bandjoin(255)
    samples = bytes(image.write_to_memory())
    pixels = [samples[at : at + 3] for at in range(0, len(samples), 4) if samples[at + 3] >= _VISIBLE]
    if not pixels:
        return 255, 255, 255
    parts = Counter((red >> 5, green >> 5, blue >> 5) for red, green, blue in pixels)
    # Of equally full parts the darkest is taken, so that the answer never hangs on the order of pixels.
    fullest = min(parts, key=lambda part: (-parts[part], part))
    inside = [pixel for pixel in pixels if (pixel[0] >> 5, pixel[1] >> 5, pixel[2] >> 5) == fullest]
    red, green, blue = (round(sum(pixel[band] for pixel in inside) / len(inside)) for band in range(3))
    return red, green, blue


def _attention(plan: Plan, data: Buffer, header: Header, trimmed: Rect | None) -> Gravity:
    """The point that catches the eye, in percent of the trimmed original; the centre where nothing is cut off."""
    layout = geometry.layout(plan, *header.oriented_size, trimmed)
    window = layout.window
    if window is None:
        return Gravity()
    region = layout.region
    small = colour.flattened(_small(data, header, region, _ATTENTION_SIDE_PX), (128, 128, 128))
    across, down = window.width, window.height
    scaled = layout.tilted or (layout.scaled_width, layout.scaled_height)
    if plan.rotate_ccw_degrees in (90, 270):
        across, down, scaled = down, across, (scaled[1], scaled[0])
    width = min(max(round(small.width * across / scaled[0]), 1), small.width)
    height = min(max(round(small.height * down / scaled[1]), 1), small.height)
    found_x, found_y = attention.focus(bytes(small.write_to_memory()), small.width, small.height, (width, height))
    origin = trimmed or Rect(left=0, top=0, width=header.oriented_size[0], height=header.oriented_size[1])
    x = region.left - origin.left + found_x * region.width / small.width
    y = region.top - origin.top + found_y * region.height / small.height
    return Gravity(kind=GravityKind.PERCENT, x=100 * x / origin.width, y=100 * y / origin.height)


def _small(data: Buffer, header: Header, region: Rect, side: int) -> pyvips.Image:
    """A part of the upright original in 8-bit sRGB, its longer side about this long, in memory."""
    ratio = max(max(region.width, region.height) / side, 1.0)
    image = load.preview(data, header, ratio)
    image = image.resize(
        max(round(header.width / ratio), 1) / image.width, vscale=max(round(header.height / ratio), 1) / image.height
    )
    image = orient.upright(colour.roughly_srgb(image).copy_memory(), header.orientation)
    left = min(round(region.left / ratio), image.width - 1)
    top = min(round(region.top / ratio), image.height - 1)
    width = min(max(round(region.width / ratio), 1), image.width - left)
    height = min(max(round(region.height / ratio), 1), image.height - top)
    return image.crop(left, top, width, height)


def _ends(sums: pyvips.Image) -> tuple[int, int]:
    """Where a row or column of sums first is above 0, and where it is so for the last time, plus 1."""
    values = memoryview(sums.write_to_memory()).cast("I")
    filled = [place for place, value in enumerate(values) if value]
    return (filled[0], filled[-1] + 1) if filled else (0, 0)
