"""Geometry: crop, fit, bound, cover and focal rectangles; integers in, integers out.

Ratios are kept as pairs of whole numbers, so that an asked side comes out exact however odd the other one is.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from imgserve.core.errors import BadRequest
from imgserve.core.options import SIDE_MAX_PX
from imgserve.core.plan import AUTO, Gravity, GravityKind, Mode, Plan, side_of

SCALED_MAX_PX: Final = 4 * SIDE_MAX_PX
"""Longest side of a scaled image of which only a window is kept; beyond it the region is narrowed instead."""

_MARGIN_PX: Final = 2
_TILTED_UP_TO_PIXELS: Final = SIDE_MAX_PX * SIDE_MAX_PX // 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Rect:
    """A rectangle of pixels; its corners are inside the image it belongs to."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a plan means for one image, step by step, in pixels.

    ``region``: the part of the EXIF-oriented original to keep, before flip and rotation.
    ``scaled_width``, ``scaled_height``: the size of that part after flip, quarter turns and resize.
    ``tilted``: the size that tilting by the rest of the rotation, and scaling once more, gives it; None: no tilt.
    ``window``: the part of the scaled and tilted image to keep; None keeps all.
    ``canvas``: final size with the image placed at ``left``, ``top`` upon the background; None: no padding.
    """

    region: Rect
    scaled_width: int
    scaled_height: int
    tilted: tuple[int, int] | None = None
    window: Rect | None = None
    canvas: tuple[int, int] | None = None
    left: int = 0
    top: int = 0


_Size = tuple[int, int]
_Ratio = tuple[int, int]  # numerator and denominator


def layout(plan: Plan, width_px: int, height_px: int, trimmed: Rect | None = None) -> Layout:
    """What a canonical plan means for an EXIF-oriented original of this size (both sides at least 1).

    ``trimmed`` is what trimming leaves of it: all that the plan says is measured there. No output side is over 8192 px:
    what would be is scaled down, shape kept. Without enlarging, crop and cover keep the asked shape at the largest size
    that the original has. A gravity that is left to the picture counts as the centre. Raises BadRequest if the corners
    enclose nothing.
    """
    if trimmed is not None:
        inner = layout(plan, trimmed.width, trimmed.height)
        region = replace(inner.region, left=inner.region.left + trimmed.left, top=inner.region.top + trimmed.top)
        return replace(inner, region=region)
    region = _region(plan, width_px, height_px)
    turned = _turned(plan, region)
    frame = tilted_size(plan, turned)
    plan = _resolved(plan, frame)
    found = _layout(plan, (width_px, height_px), region, frame)
    if not plan.tilt_ccw_degrees:
        return found
    tilted = (found.scaled_width, found.scaled_height)
    width, height = _before_tilt(plan, turned, frame, tilted)
    return replace(found, scaled_width=width, scaled_height=height, tilted=tilted)


def tilted_size(plan: Plan, size: _Size) -> _Size:
    """The size of the box around an image of this size that is tilted as the plan says."""
    if not plan.tilt_ccw_degrees:
        return size
    sine, cosine = _sine_cosine(plan)
    width, height = size
    return (
        max(round(width * cosine + height * abs(sine)), 1),
        max(round(width * abs(sine) + height * cosine), 1),
    )


def trimmed_gravity(plan: Plan, trimmed: Rect, width_px: int, height_px: int) -> Gravity:
    """What gravity=trim means where trimming leaves this of an original of that size.

    The centre if all sides were cut, left to the picture if none was. Else a crop keeps the sides that were cut, and a
    fit places the image at the others, so that the room comes where there was some.
    """
    west, north = trimmed.left > 0, trimmed.top > 0
    east, south = trimmed.left + trimmed.width < width_px, trimmed.top + trimmed.height < height_px
    if not (west or north or east or south):
        return Gravity() if plan.mode is Mode.FIT else AUTO
    x = 0.5 + (east - west) / 2
    y = 0.5 + (south - north) / 2
    return Gravity(x=1 - x, y=1 - y) if plan.mode is Mode.FIT else Gravity(x=x, y=y)


def corner_radii(radii: tuple[int, int, int, int], width_px: int, height_px: int) -> tuple[float, float, float, float]:
    """Radii of top left, bottom left, bottom right and top right as an image of this size can have them.

    None is over the shorter side, and where two would overlap all shrink alike (CSS Backgrounds 3, section 4.5).
    """
    top_left, bottom_left, bottom_right, top_right = (min(radius, width_px, height_px) for radius in radii)
    sums = (
        (top_left + top_right, width_px),
        (bottom_left + bottom_right, width_px),
        (top_left + bottom_left, height_px),
        (top_right + bottom_right, height_px),
    )
    factor = min([1.0, *(side / total for total, side in sums if total)])
    return top_left * factor, bottom_left * factor, bottom_right * factor, top_right * factor


def _layout(plan: Plan, original: _Size, region: Rect, turned: _Size) -> Layout:
    """The same for sizes in pixels, and a region of which this is the size after all turns."""
    if plan.width_px is None or plan.height_px is None or plan.mode is Mode.BOUND:
        width, height = _scaled(turned, _bounding_ratio(plan, turned))
        return Layout(region=region, scaled_width=width, scaled_height=height)
    asked = (plan.width_px, plan.height_px)
    if plan.mode is Mode.BOUNDMIN:
        width, height = _scaled(turned, _limited(plan, _covering_ratio(asked, turned), turned))
        return Layout(region=region, scaled_width=width, scaled_height=height)
    box = _capped(asked)
    if plan.mode is Mode.FIT or (plan.mode is Mode.CROPFIT and (turned[0] < box[0] or turned[1] < box[1])):
        return _fit(plan, region, turned, box)
    if not plan.may_enlarge and plan.mode is not Mode.CROPFIT:
        box = _shrunk(box, turned)
    if plan.mode is Mode.COVER:
        return Layout(region=region, scaled_width=box[0], scaled_height=box[1])
    return _crop(plan, original, region, turned, box)


def _turned(plan: Plan, region: Rect) -> _Size:
    is_upright = plan.rotate_ccw_degrees in (0, 180)
    return (region.width, region.height) if is_upright else (region.height, region.width)


def _resolved(plan: Plan, frame: _Size) -> Plan:
    """The plan with percentages and aspect ratio as sides in pixels, for an image of this size after all turns."""
    width, height = plan.width_px, plan.height_px
    if plan.width_percent is not None:
        width = side_of(frame[0] * plan.width_percent / 100)
    if plan.height_percent is not None:
        height = side_of(frame[1] * plan.height_percent / 100)
    if plan.aspect is not None:
        own = frame[0] / frame[1]
        ratio = min(max(own, plan.aspect[0]), plan.aspect[1])
        if width is not None:
            height = None if ratio == own else side_of(width / ratio)
        elif height is not None:
            width = None if ratio == own else side_of(height * ratio)
        elif ratio < own:
            width, height = side_of(frame[1] * ratio), frame[1]
        elif ratio > own:
            width, height = frame[0], side_of(frame[0] / ratio)
    return replace(plan, width_px=width, height_px=height)


def _before_tilt(plan: Plan, turned: _Size, frame: _Size, tilted: _Size) -> _Size:
    """The size at which an image is tilted that then becomes ``tilted``.

    Never much larger than it was, so that a small window of something huge costs no more than the original did; and if
    both sides are not scaled alike, no larger than an output.
    """
    scale = max(tilted[0] / frame[0], tilted[1] / frame[1])
    if plan.mode is Mode.COVER and plan.width_px is not None and plan.height_px is not None:
        scale = min(scale, 1.0, SIDE_MAX_PX / max(frame))
    else:
        area = turned[0] * turned[1]
        scale = min(scale, math.sqrt(max(_TILTED_UP_TO_PIXELS / area, 1.0)), SCALED_MAX_PX / max(turned))
    return max(round(turned[0] * scale), 1), max(round(turned[1] * scale), 1)


def _sine_cosine(plan: Plan) -> tuple[float, float]:
    angle = math.radians(plan.tilt_ccw_degrees)
    return math.sin(angle), math.cos(angle)


def _region(plan: Plan, width: int, height: int) -> Rect:
    left, top = plan.top_left_px or (0, 0)
    right, bottom = plan.bottom_right_px or (width, height)
    left, top = max(left, 0), max(top, 0)
    right, bottom = min(right, width), min(bottom, height)
    if right <= left or bottom <= top:
        raise BadRequest(f"tl_px and br_px enclose nothing of this image, which is {width} x {height} pixels.")
    return Rect(left=left, top=top, width=right - left, height=bottom - top)


def _bounding_ratio(plan: Plan, turned: _Size) -> _Ratio:
    """The largest scale at which every asked side, and the limit of outputs, is kept."""
    asked = [(side, own) for side, own in zip((plan.width_px, plan.height_px), turned, strict=True) if side is not None]
    ratio = min(asked, key=lambda pair: pair[0] / pair[1]) if asked else (1, 1)
    return _limited(plan, ratio, turned)


def _limited(plan: Plan, ratio: _Ratio, turned: _Size) -> _Ratio:
    """The scale, or a smaller one where the plan forbids enlarging or an output side would be too long."""
    if not plan.may_enlarge and ratio[0] > ratio[1]:
        ratio = (1, 1)
    limit = (SIDE_MAX_PX, max(turned))
    return limit if _is_less(limit, ratio) else ratio


def _covering_ratio(box: _Size, turned: _Size) -> _Ratio:
    """The smallest scale at which the image fills the box."""
    wide, high = (box[0], turned[0]), (box[1], turned[1])
    return high if _is_less(wide, high) else wide


def _fit(plan: Plan, region: Rect, turned: _Size, box: _Size) -> Layout:
    inner = tuple(max(side - 2 * plan.margin_px, 1) for side in box)
    wide, high = (inner[0], turned[0]), (inner[1], turned[1])
    ratio = wide if _is_less(wide, high) else high
    if not plan.may_enlarge and ratio[0] > ratio[1]:
        ratio = (1, 1)
    width, height = _scaled(turned, ratio)
    if (width, height) == box:
        return Layout(region=region, scaled_width=width, scaled_height=height)
    return Layout(
        region=region,
        scaled_width=width,
        scaled_height=height,
        canvas=box,
        left=_placed(plan, box[0] - width, plan.gravity.x),
        top=_placed(plan, box[1] - height, plan.gravity.y),
    )


def _placed(plan: Plan, free: int, fraction: float) -> int:
    """Where the image begins in this much free room, the margins included."""
    margin = min(plan.margin_px, free // 2)
    fraction = fraction if plan.gravity.kind is GravityKind.COMPASS else 0.5
    return margin + int((free - 2 * margin) * fraction)


def _crop(plan: Plan, original: _Size, region: Rect, turned: _Size, box: _Size) -> Layout:
    scaled = _scaled(turned, _covering_ratio(box, turned))
    left, top = _offsets(plan, original, region, turned, scaled, box)
    if max(scaled) > SCALED_MAX_PX and not plan.tilt_ccw_degrees:
        return _narrowed(plan, region, turned, scaled, Rect(left=left, top=top, width=box[0], height=box[1]))
    window = None if scaled == box else Rect(left=left, top=top, width=box[0], height=box[1])
    return Layout(region=region, scaled_width=scaled[0], scaled_height=scaled[1], window=window)


def _offsets(plan: Plan, original: _Size, region: Rect, turned: _Size, scaled: _Size, box: _Size) -> tuple[int, int]:
    """Where the window of this size begins in the scaled image."""
    free = (scaled[0] - box[0], scaled[1] - box[1])
    gravity = plan.gravity
    if gravity.kind in (GravityKind.AUTO, GravityKind.TRIM):
        return free[0] // 2, free[1] // 2
    if gravity.kind is GravityKind.COMPASS:
        return int(free[0] * gravity.x), int(free[1] * gravity.y)
    if gravity.kind is GravityKind.SCALED:
        focus = (gravity.x * turned[0] / 100, gravity.y * turned[1] / 100)
    else:
        focus = _turn(plan, _focus(gravity, original, region), (region.width, region.height))
        focus = _tilt(plan, focus, _turned(plan, region), turned)
    offsets = (int(max(focus[axis] * scaled[axis] / turned[axis] - box[axis] / 2, 0) + 1e-9) for axis in (0, 1))
    left, top = (min(offset, room) for offset, room in zip(offsets, free, strict=True))
    return left, top


def _focus(gravity: Gravity, original: _Size, region: Rect) -> tuple[float, float]:
    """The focal point within the region, moved to its edge if it lies outside."""
    x, y = gravity.x, gravity.y
    if gravity.kind is GravityKind.PERCENT:
        x, y = x * original[0] / 100, y * original[1] / 100
    return min(max(x - region.left, 0), region.width), min(max(y - region.top, 0), region.height)


def _turn(plan: Plan, point: tuple[float, float], size: _Size) -> tuple[float, float]:
    """Where a point of an image of this size is after the plan's flips and rotation."""
    x, y = point
    width, height = size
    if plan.flip_horizontal:
        x = width - x
    if plan.flip_vertical:
        y = height - y
    match plan.rotate_ccw_degrees:
        case 90:
            return y, width - x
        case 180:
            return width - x, height - y
        case 270:
            return height - y, x
    return x, y


def _tilt(plan: Plan, point: tuple[float, float], size: _Size, frame: _Size) -> tuple[float, float]:
    """Where a point of a turned image of this size is in the box around it after the plan's tilt."""
    if not plan.tilt_ccw_degrees:
        return point
    sine, cosine = _sine_cosine(plan)
    x, y = point[0] - size[0] / 2, point[1] - size[1] / 2
    return x * cosine + y * sine + frame[0] / 2, y * cosine - x * sine + frame[1] / 2


def _turn_back(plan: Plan, rect: Rect, size: _Size) -> Rect:
    """The rectangle of an unturned image of this size that becomes ``rect`` by the plan's flips and rotation."""
    width, height = size
    x, y, wide, high = rect.left, rect.top, rect.width, rect.height
    match plan.rotate_ccw_degrees:
        case 90:
            x, y, wide, high = width - y - high, x, high, wide
        case 180:
            x, y = width - x - wide, height - y - high
        case 270:
            x, y, wide, high = y, height - x - wide, high, wide
    if plan.flip_horizontal:
        x = width - x - wide
    if plan.flip_vertical:
        y = height - y - high
    return Rect(left=x, top=y, width=wide, height=high)


def _narrowed(plan: Plan, region: Rect, turned: _Size, scaled: _Size, window: Rect) -> Layout:
    """The same crop from a smaller region. A line of pixels blown up to fill a box would be millions of
    pixels long, of which the window keeps a few; the region is cut to what the window needs, and a margin around it.

    The margin makes up for the rounding of both ends, as long as no side of the original is over 65,536 px.
    """
    starts, sides, lengths, offsets = [], [], [], []
    for axis, (begin, size) in enumerate(((window.left, window.width), (window.top, window.height))):
        first = max(begin * turned[axis] // scaled[axis] - _MARGIN_PX, 0)
        last = min(-(-(begin + size) * turned[axis] // scaled[axis]) + _MARGIN_PX, turned[axis])
        starts.append(first)
        sides.append(last - first)
        lengths.append(_rounded((last - first) * scaled[axis], turned[axis]))
        offsets.append(begin - _rounded(first * scaled[axis], turned[axis]))
    part = _turn_back(
        plan,
        Rect(left=starts[0], top=starts[1], width=sides[0], height=sides[1]),
        (region.width, region.height),
    )
    return Layout(
        region=Rect(left=region.left + part.left, top=region.top + part.top, width=part.width, height=part.height),
        scaled_width=lengths[0],
        scaled_height=lengths[1],
        window=Rect(left=offsets[0], top=offsets[1], width=window.width, height=window.height),
    )


def _shrunk(box: _Size, turned: _Size) -> _Size:
    """The box in its own shape, at most as large as lets the image fill it without being enlarged."""
    numerator, denominator = _covering_ratio(box, turned)
    return box if numerator <= denominator else _scaled(box, (denominator, numerator))


def _capped(box: _Size) -> _Size:
    longest = max(box)
    return box if longest <= SIDE_MAX_PX else _scaled(box, (SIDE_MAX_PX, longest))


def _scaled(size: _Size, ratio: _Ratio) -> _Size:
    return max(_rounded(size[0] * ratio[0], ratio[1]), 1), max(_rounded(size[1] * ratio[0], ratio[1]), 1)


def _rounded(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


def _is_less(one: _Ratio, other: _Ratio) -> bool:
    return one[0] * other[1] < other[0] * one[1]
