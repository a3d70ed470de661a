"""Turn by what a rotation has beyond quarter turns; the corners that this opens are filled or stay clear."""

import math

import pyvips

from imgserve.adapters.render.steps.work import Work


def tilt(work: Work) -> pyvips.Image:
    """The image tilted, at the layout's size, and cut to its window at once: only what is kept is computed."""
    target = work.layout.tilted
    if target is None:
        return work.image
    image = _with_corners(work)
    angle = math.radians(work.job.plan.tilt_ccw_degrees)
    sine, cosine = math.sin(angle), math.cos(angle)
    box = (
        image.width * cosine + image.height * abs(sine),
        image.width * abs(sine) + image.height * cosine,
    )
    scales = (target[0] / box[0], target[1] / box[1])
    # Where one side is scaled otherwise than the other, that is left to a resize, which filters as it shrinks.
    is_distorted = max(scales) > 1.1 * min(scales) and min(target) > 8
    size = (max(round(box[0]), 1), max(round(box[1]), 1)) if is_distorted else target
    across, down = (size[0] / box[0], size[1] / box[1]) if is_distorted else scales
    matrix = [across * cosine, across * sine, -down * sine, down * cosine]
    window = None if is_distorted else work.layout.window
    left, top, width, height = (0, 0, *size) if window is None else window_of(work)
    # Coordinates are of the middles of pixels: the middle of the image stays the middle.
    x, y = (image.width - 1) / 2, (image.height - 1) / 2
    turned = image.copy_memory().affine(
        matrix,
        interpolate=pyvips.Interpolate.new("bicubic"),
        oarea=[left, top, width, height],
        odx=(size[0] - 1) / 2 - (matrix[0] * x + matrix[1] * y),
        ody=(size[1] - 1) / 2 - (matrix[2] * x + matrix[3] * y),
        background=_ink(image, work),
        extend="background",
    )
    turned = turned.cast("uchar")
    if not is_distorted:
        return turned
    resized = turned.resize(target[0] / turned.width, vscale=target[1] / turned.height)
    return resized if work.layout.window is None else resized.crop(*window_of(work))


def window_of(work: Work) -> tuple[int, int, int, int]:
    """The layout's window as libvips takes it: left, top, width, height."""
    window = work.layout.window
    assert window is not None, "asked for only where there is one"
    return window.left, window.top, window.width, window.height


def _with_corners(work: Work) -> pyvips.Image:
    """The image with bands in which its corners can be what they are to be."""
    image, background = work.image, work.job.plan.background
    if background is None:
        return image if image.hasalpha() else image.bandjoin(255)
    is_gray = image.bands < 3 and len(set(background)) == 1
    return image if image.bands >= 3 or is_gray else image.colourspace("srgb")


def _ink(image: pyvips.Image, work: Work) -> list[float]:
    """The corners' colour; clear where the image has alpha, behind which the background is laid later."""
    if image.hasalpha():
        return [0.0] * image.bands
    background = work.job.plan.background
    assert background is not None, "an image without a background has alpha here"
    return [float(value) for value in background[: image.bands]]
