"""Turn the image upright, then flip, then rotate.

Decoders give rows from the top, so that the original is cropped and scaled as it is stored, and only the
small result is turned, in memory. Rectangles are mapped the other way for that.
"""

import pyvips

from imgserve.adapters.render.steps.work import Work
from imgserve.core.geometry import Rect


def raw_region(work: Work) -> Rect:
    """The layout's region, given in the oriented image, in the pixels as they are stored."""
    region = work.layout.region
    width, height = work.header.width, work.header.height
    is_turned = work.header.is_turned
    left, top = (region.top, region.left) if is_turned else (region.left, region.top)
    across, down = (region.height, region.width) if is_turned else (region.width, region.height)
    if work.header.orientation in (2, 3, 7, 8):
        left = width - left - across
    if work.header.orientation in (3, 4, 6, 7):
        top = height - top - down
    return Rect(left=left, top=top, width=across, height=down)


def turn(work: Work) -> pyvips.Image:
    """The image upright, flipped and rotated, and no longer said to be otherwise."""
    plan = work.job.plan
    image = work.image
    if image.get_typeof("orientation"):
        # The AVIF saver would have the viewer turn the image a second time, whatever metadata it is told to keep.
        image = image.copy()
        image.remove("orientation")
    is_upright = work.header.orientation == 1
    if is_upright and not (plan.flip_horizontal or plan.flip_vertical or plan.rotate_ccw_degrees % 360):
        return image
    image = upright(image.copy_memory(), work.header.orientation)
    if plan.flip_horizontal:
        image = image.fliphor()
    if plan.flip_vertical:
        image = image.flipver()
    match plan.rotate_ccw_degrees % 360:  # libvips counts clockwise
        case 90:
            return image.rot270()
        case 180:
            return image.rot180()
        case 270:
            return image.rot90()
        case _:
            return image


def upright(image: pyvips.Image, orientation: int) -> pyvips.Image:
    """An image in memory, upright: undo what EXIF 2.32 (tag 274) says that the camera did."""
    match orientation:
        case 2:
            return image.fliphor()
        case 3:
            return image.rot180()
        case 4:
            return image.flipver()
        case 5:
            return image.rot90().fliphor()
        case 6:
            return image.rot90()
        case 7:
            return image.rot90().flipver()
        case 8:
            return image.rot270()
        case _:
            return image
