"""Where the eye falls: the place of a window that shows most of what catches it.

Each pixel is scored by its detail, its saturation and how near it is to the colours of skin, as smartcrop.js does; a
window by the pixels in it, those in its middle more than those at its edge.
"""

import math
from collections.abc import Sequence
from typing import Final

_SKIN: Final = (0.78, 0.57, 0.44)  # a direction: shades of it differ in brightness only
_SKIN_FROM: Final = 0.8
_SATURATED_FROM: Final = 0.4
_DETAIL_WEIGHT: Final = 0.2
_SKIN_WEIGHT: Final = 1.8
_SATURATION_WEIGHT: Final = 0.1


def focus(rgb: bytes, width: int, height: int, window: tuple[int, int]) -> tuple[float, float]:
    """The middle of the best window of this size in an image of 8-bit red, green, blue, in its pixels.

    Where nothing stands out it is the image's middle. The time taken is in proportion to the pixels, some 3 us each.
    """
    scores = _scores(rgb, width, height)
    columns = [math.fsum(scores[x::width]) for x in range(width)]
    rows = [math.fsum(scores[y * width : (y + 1) * width]) for y in range(height)]
    return _best(columns, window[0]), _best(rows, window[1])


def _scores(rgb: bytes, width: int, height: int) -> list[float]:
    lights = [_light(*rgb[at : at + 3]) for at in range(0, 3 * width * height, 3)]
    scores = []
    for y in range(height):
        above, below = max(y - 1, 0) * width, min(y + 1, height - 1) * width
        for x in range(width):
            at = y * width + x
            left, right = at - (x > 0), at + (x < width - 1)
            detail = min(abs(4 * lights[at] - lights[left] - lights[right] - lights[above + x] - lights[below + x]), 1)
            red, green, blue = rgb[3 * at : 3 * at + 3]
            scores.append(
                _DETAIL_WEIGHT * detail
                + _SKIN_WEIGHT * _skin(red, green, blue, lights[at]) * (detail + 0.01)
                + _SATURATION_WEIGHT * _saturation(red, green, blue, lights[at]) * (detail + 0.2)
            )
    return scores


def _best(scores: Sequence[float], length: int) -> float:
    """The middle of the window of this length with the highest sum; of equal ones that nearest to the middle."""
    weights = [math.sin(math.pi * (place + 0.5) / length) for place in range(length)]
    free = len(scores) - length

    def rank(first: int) -> tuple[float, float]:
        total = math.fsum(weight * scores[first + place] for place, weight in enumerate(weights))
        return round(total, 6), -abs(first - free / 2)

    return max(range(free + 1), key=rank) + length / 2


def _light(red: int, green: int, blue: int) -> float:
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


def _skin(red: int, green: int, blue: int, light: float) -> float:
    length = math.sqrt(red * red + green * green + blue * blue)
    if length == 0 or not 0.2 <= light < 1:
        return 0.0
    nearness = 1 - math.dist((red / length, green / length, blue / length), _SKIN)
    return max(nearness - _SKIN_FROM, 0.0) / (1 - _SKIN_FROM)


def _saturation(red: int, green: int, blue: int, light: float) -> float:
    top, bottom = max(red, green, blue), min(red, green, blue)
    if top == bottom or not 0.05 <= light <= 0.9:
        return 0.0
    total = top + bottom
    saturation = (top - bottom) / (total if total <= 255 else 510 - total)
    return max(saturation - _SATURATED_FROM, 0.0) / (1 - _SATURATED_FROM)
