"""Every filter against its formula, computed here in numpy; alpha, gray images and the bounds of their cost.

Originals are PNG and so are variants: what differs is the filter's own. Tolerances are in levels of 255.
"""

import time

import numpy as np
import pytest

from imgserve.core.filters import Filters
from imgserve.core.plan import Plan
from tests.render import images

Array = images.Array


def picture(width: int = 96, height: int = 64, bands: int = 3, seed: int = 3) -> tuple[bytes, Array]:
    """Smooth random colours as a PNG, and their samples."""
    made = images.noise(width, height, bands, seed)
    return bytes(made.pngsave_buffer()), np.asarray(made.numpy(), dtype=np.float64).reshape(height, width, bands)


def filtered(original: bytes, filters: Filters, *, gray: bool = False) -> Array:
    return images.array(images.render(original, Plan(filters=filters, gray=gray))[1])


def clipped(samples: Array) -> Array:
    result: Array = np.clip(np.rint(samples), 0, 255)
    return result


def luma(samples: Array) -> Array:
    result: Array = samples @ np.array([0.2126, 0.7152, 0.0722])
    return result


def kernel(sigma: float) -> Array:
    reach = int(4 * sigma) + 1
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    result: Array = weights / weights.sum()
    return result


def gauss(samples: Array, sigma: float) -> Array:
    """A separable Gaussian; what lies outside is the nearest pixel."""
    weights = kernel(sigma)
    reach = len(weights) // 2
    for axis in (0, 1):
        widths = [(reach, reach) if axis == own else (0, 0) for own in range(3)]
        padded = np.pad(samples, widths, mode="edge")
        samples = np.apply_along_axis(lambda line: np.convolve(line, weights, mode="valid"), axis, padded)
    return samples


@pytest.mark.parametrize("value", [-255, -60, 10, 255])
def test_bright_is_added(value: int) -> None:
    """Exactly, and cut at both ends."""
    original, samples = picture()
    assert np.array_equal(clipped(samples + value), filtered(original, Filters(bright=value)))


@pytest.mark.parametrize("value", [-100, -40, 20, 100])
def test_contrast_spreads_around_the_middle(value: int) -> None:
    """By (1 + value / 100) squared: flat at -100, four times at 100. Within one level of rounding."""
    original, samples = picture()
    expected = clipped((samples - 127.5) * (1 + value / 100) ** 2 + 127.5)
    assert np.abs(expected - filtered(original, Filters(contrast=value))).max() <= 1


@pytest.mark.parametrize("value", [-100, -50, 30, 100])
def test_saturation_spreads_from_luma(value: int) -> None:
    """saturate() of CSS: away from luma, or towards it. Within one level."""
    original, samples = picture()
    gray = luma(samples)[..., None]
    expected = clipped(gray + (samples - gray) * (1 + value / 100))
    assert np.abs(expected - filtered(original, Filters(saturation=value))).max() <= 1


def test_sepia_is_the_matrix_of_css() -> None:
    """Within one level."""
    original, samples = picture()
    matrix = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
    assert np.abs(clipped(samples @ matrix.T) - filtered(original, Filters(sepia=True))).max() <= 1


def test_invert_is_the_negative() -> None:
    """Exactly, and twice as good as nothing."""
    original, samples = picture()
    assert np.array_equal(255 - samples, filtered(original, Filters(invert=True)))


def test_duotone_goes_from_the_first_colour_to_the_second() -> None:
    """Black and white become the two colours, and luma is drawn between them. Within one level."""
    original, samples = picture()
    dark, light = np.array([10.0, 0.0, 80.0]), np.array([255.0, 220.0, 100.0])
    expected = clipped(dark + (light - dark) * luma(samples)[..., None] / 255)
    seen = filtered(original, Filters(duotone=((10, 0, 80), (255, 220, 100))))
    assert np.abs(expected - seen).max() <= 1


@pytest.mark.parametrize("opacity", [0.25, 0.5, 1.0])
def test_colorize_lays_a_colour_upon_the_image(opacity: float) -> None:
    """Within one level."""
    original, samples = picture()
    expected = clipped(samples * (1 - opacity) + np.array([255.0, 0.0, 128.0]) * opacity)
    assert np.abs(expected - filtered(original, Filters(colorize=((255, 0, 128), opacity)))).max() <= 1


@pytest.mark.parametrize("side", [2, 7, 40, 100])
def test_pixelate_gives_squares_of_the_mean(side: int) -> None:
    """From the top left; the last squares of a row and column repeat the edge in their mean. Within one level."""
    original, samples = picture(90, 61)
    height, width = samples.shape[:2]
    padded = np.pad(samples, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    down, across = padded.shape[0] // side, padded.shape[1] // side
    means = padded.reshape(down, side, across, side, 3).mean(axis=(1, 3))
    expected = np.repeat(np.repeat(means, side, axis=0), side, axis=1)[:height, :width]
    assert np.abs(expected - filtered(original, Filters(pixelate=side))).max() <= 1


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 2.9])
def test_blur_is_a_gaussian_of_that_sigma(sigma: float) -> None:
    """Within two levels."""
    original, samples = picture()
    assert np.abs(gauss(samples, sigma) - filtered(original, Filters(blur=sigma))).max() <= 2


@pytest.mark.parametrize("sigma", [3.0, 5.9, 15.0, 33.0])
def test_a_wide_blur_made_from_a_shrunken_image_is_the_same_gaussian(sigma: float) -> None:
    """Within two levels, and less in the mean; but at the edges a mean of some pixels stands for what lies outside."""
    original, samples = picture(501, 411)
    difference = np.abs(gauss(samples, sigma) - filtered(original, Filters(blur=sigma)))
    edge = int(2.5 * sigma)
    assert difference[edge:-edge, edge:-edge].max() <= 2
    assert difference[edge:-edge, edge:-edge].mean() <= 0.5


def test_sharp_adds_what_a_blur_takes_away() -> None:
    """Within three levels at strength 2."""
    original, samples = picture()
    expected = clipped(samples + 2 * (samples - gauss(samples, 1.0)))
    assert np.abs(expected - filtered(original, Filters(sharp=2.0))).max() <= 3


def test_filters_work_one_after_the_other_each_on_whole_levels() -> None:
    """bright before contrast before invert, as the table says, whatever the URL's order."""
    original, samples = picture()
    expected = clipped((clipped(samples + 100) - 127.5) * 2.25 + 127.5)
    seen = filtered(original, Filters(bright=100, contrast=50, invert=True))
    assert np.abs(255 - expected - seen).max() <= 1


ALL = (
    Filters(sharp=1.0),
    Filters(blur=3.0),
    Filters(blur=20.0),
    Filters(pixelate=9),
    Filters(bright=30),
    Filters(contrast=-30),
    Filters(saturation=50),
    Filters(sepia=True),
    Filters(duotone=((0, 0, 90), (255, 255, 0))),
    Filters(duotone=((9, 9, 9), (200, 200, 200))),
    Filters(colorize=((255, 0, 0), 0.5)),
    Filters(colorize=((50, 50, 50), 0.5)),
    Filters(invert=True),
)


@pytest.mark.parametrize("filters", ALL)
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("asked", ["png", "jpeg", "webp", "avif"])
def test_every_filter_takes_every_kind_of_image(filters: Filters, bands: int, asked: str) -> None:
    """Gray and colours, with and without alpha, to every format: the size stays."""
    original = picture(41, 23, bands)[0]
    done, variant = images.render(original, Plan(filters=filters), asked)
    opened = images.image(variant)
    assert (41, 23) == (opened.width, opened.height) == (done.width_px, done.height_px)


@pytest.mark.parametrize("filters", [one for one in ALL if not (one.sharp or one.blur or one.pixelate)])
def test_alpha_is_left_alone_by_filters_of_colour(filters: Filters) -> None:
    """Each pixel stays as clear as it was, and its colour is that of the opaque image."""
    original, samples = picture(bands=4)
    opaque = bytes(images.from_array(samples[..., :3].astype(np.uint8)).pngsave_buffer())
    seen = filtered(original, filters)
    assert np.array_equal(samples[..., 3], seen[..., 3])
    assert np.array_equal(filtered(opaque, filters), seen[..., :3])


@pytest.mark.parametrize("filters", [Filters(blur=3.0), Filters(blur=20.0), Filters(pixelate=16)])
def test_a_hidden_colour_does_not_come_to_light(filters: Filters) -> None:
    """Red that is fully clear beside opaque blue: nothing that can be seen is red."""
    samples = np.zeros((64, 64, 4), dtype=np.uint8)
    samples[:, :30] = (255, 0, 0, 0)
    samples[:, 30:] = (0, 0, 255, 255)
    seen = filtered(bytes(images.from_array(samples).pngsave_buffer()), filters)
    visible = seen[seen[..., 3] > 8]
    assert visible.size
    assert visible[:, 0].max() <= 8


def test_gray_comes_before_filters_of_colour() -> None:
    """gray and colorize give one hue: red is never under blue."""
    original, _ = picture()
    seen = filtered(original, Filters(colorize=((255, 0, 0), 0.5)), gray=True)
    assert np.array_equal(seen[..., 1], seen[..., 2])
    assert (seen[..., 0] - seen[..., 1]).min() >= 126


def test_filters_work_on_the_output_not_on_the_original() -> None:
    """Squares are measured in the resized image."""
    original, _ = picture(400, 400)
    seen = images.array(images.render(original, Plan(width_px=100, filters=Filters(pixelate=10)))[1])
    blocks = seen.reshape(10, 10, 10, 10, 3)
    assert np.array_equal(blocks, np.broadcast_to(blocks[:, :1, :, :1], blocks.shape))


def test_the_originals_bytes_are_not_sent_where_a_filter_works() -> None:
    """However large the variant is beside a small original."""
    original = images.png_of(64, 64)
    assert images.render(original)[0].is_original is (images.render(original)[0].size_bytes == len(original))
    for plan in (Plan(filters=Filters(sharp=1.0)), Plan(radii_px=(9, 9, 9, 9)), Plan(tilt_ccw_degrees=10.0)):
        assert not images.render(original, plan)[0].is_original


def test_a_wide_blur_costs_no_more_than_a_narrow_one() -> None:
    """Sigma 1000 on four megapixels: at most three times as long as sigma 2.9, and a second."""
    original = images.png_of(2000, 2000)
    taken = []
    for sigma in (2.9, 1000.0):
        started = time.perf_counter()
        images.render(original, Plan(filters=Filters(blur=sigma)), "jpeg")
        taken.append(time.perf_counter() - started)
    assert taken[1] <= 3 * taken[0] + 1


def test_prog_is_whether_a_jpeg_is_progressive() -> None:
    """SOF2 by default, SOF0 with prog=0."""
    original, _ = picture()
    assert b"\xff\xc2" in images.render(original, Plan(), "jpeg")[1]
    baseline = images.render(original, Plan(is_progressive=False), "jpeg")[1]
    assert (True, False) == (b"\xff\xc0" in baseline, b"\xff\xc2" in baseline)
