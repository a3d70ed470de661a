"""Cut out: the region before scaling, the window after it; and place upon a canvas."""

import pyvips

from imgserve.adapters.render.steps import colour, orient, soften, tones
from imgserve.adapters.render.steps.work import Work
from imgserve.core.plan import Backdrop

WHITE = (255, 255, 255)


def region(work: Work) -> pyvips.Image:
    """The asked part of the original, as it is stored; the decoder may have shrunk it."""
    raw = orient.raw_region(work)
    image = work.image
    if (raw.width, raw.height) == (work.header.width, work.header.height):
        return image
    across, down = image.width / work.header.width, image.height / work.header.height
    left = min(round(raw.left * across), image.width - 1)
    top = min(round(raw.top * down), image.height - 1)
    width = min(max(round(raw.width * across), 1), image.width - left)
    height = min(max(round(raw.height * down), 1), image.height - top)
    return image.crop(left, top, width, height)


def window(work: Work) -> pyvips.Image:
    """The asked part of the scaled image; tilting has cut it out already."""
    part = work.layout.window
    return (
        work.image
        if part is None or work.layout.tilted is not None
        else work.image.crop(part.left, part.top, part.width, part.height)
    )


def canvas(work: Work) -> pyvips.Image:
    """The image placed upon a canvas: of the asked colour, else transparent where it can be, else white."""
    if work.layout.canvas is None:
        return work.image
    if work.job.plan.backdrop is not None:
        return _before_itself(work, work.job.plan.backdrop)
    image = work.image
    paint = work.job.plan.background or WHITE
    if image.bands < 3 and len(set(paint)) > 1:
        image = image.colourspace("srgb")
    ink = list(paint[: 1 if image.bands < 3 else 3])
    if image.hasalpha():
        ink.append(0 if work.job.plan.background is None else 255)
    width, height = work.layout.canvas
    return image.embed(work.layout.left, work.layout.top, width, height, extend="background", background=ink)


def _before_itself(work: Work, backdrop: Backdrop) -> pyvips.Image:
    """The image before a blurred copy of itself that fills the canvas."""
    assert work.layout.canvas is not None, "there is padding to fill"
    width, height = work.layout.canvas
    image = work.image if work.image.bands >= 3 else work.image.colourspace("srgb")
    image = image.copy_memory()
    behind = work.job.plan.background or WHITE
    plain = colour.flattened(image, behind)
    ratio = max(width / plain.width, height / plain.height)
    grown = plain.resize(ratio, vscale=ratio)
    copy = grown.embed((width - grown.width) // 2, (height - grown.height) // 2, width, height, extend="copy")
    if backdrop.blur:
        copy = soften.blurred(copy, backdrop.blur)
    if backdrop.tint is not None:
        copy = tones.covered(copy, *backdrop.tint)
    if backdrop.opacity < 1:
        copy = tones.covered(copy, behind, 1 - backdrop.opacity)
    copy = copy.rint().cast("uchar").copy(interpretation="srgb")
    left, top = work.layout.left, work.layout.top
    if not image.hasalpha():
        return copy.insert(image, left, top)
    return copy.composite2(image, "over", x=left, y=top).extract_band(0, n=3).cast("uchar")
