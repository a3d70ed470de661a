"""The window that catches the eye: what stands out is in it, and where nothing does it stays in the middle."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgserve.core import attention

DULL, SKIN, VIVID = (120, 122, 125), (224, 172, 140), (230, 30, 30)


def picture(width: int, height: int, spots: dict[tuple[int, int], tuple[int, int, int]], side: int = 6) -> bytes:
    """A dull ground with striped squares of these colours, at these left top corners."""
    pixels = [[DULL] * width for _ in range(height)]
    for (left, top), colour in spots.items():
        for y in range(top, top + side):
            for x in range(left, left + side):
                pixels[y][x] = colour if (x + y) % 3 else DULL
    return bytes(value for row in pixels for pixel in row for value in pixel)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (20, 20)])
def test_where_nothing_stands_out_it_is_the_middle(size: tuple[int, int]) -> None:
    """Of equal windows the one nearest to it; of the whole image there is one."""
    assert (15.0, 10.0) == attention.focus(picture(30, 20, {}), 30, 20, (10, 10))
    assert (size[0] / 2, size[1] / 2) == attention.focus(picture(*size, {}), *size, size)


@pytest.mark.parametrize(("left", "top"), [(0, 0), (3, 22), (33, 5), (34, 24), (17, 12)])
@pytest.mark.parametrize("colour", [SKIN, VIVID])
def test_what_stands_out_is_in_the_window(left: int, top: int, colour: tuple[int, int, int]) -> None:
    """Whole, and as near to its middle as the image's edges let it."""
    x, y = attention.focus(picture(40, 30, {(left, top): colour}), 40, 30, (12, 10))
    assert abs(x - min(max(left + 3, 6), 34)) <= 2
    assert abs(y - min(max(top + 3, 5), 25)) <= 2


def test_skin_counts_more_than_a_vivid_colour() -> None:
    """People first."""
    x, _ = attention.focus(picture(60, 20, {(5, 7): VIVID, (45, 7): SKIN}), 60, 20, (16, 20))
    assert 37 <= x <= 60


@given(data=st.data(), width=st.integers(1, 12), height=st.integers(1, 12))
@settings(deadline=None)
def test_the_window_lies_in_the_image(data: st.DataObject, width: int, height: int) -> None:
    """Whatever the pixels; and the answer is the same again."""
    pixels = data.draw(st.binary(min_size=3 * width * height, max_size=3 * width * height))
    window = (data.draw(st.integers(1, width)), data.draw(st.integers(1, height)))
    x, y = attention.focus(pixels, width, height, window)
    assert window[0] / 2 <= x <= width - window[0] / 2
    assert window[1] / 2 <= y <= height - window[1] / 2
    assert (x, y) == attention.focus(pixels, width, height, window)
