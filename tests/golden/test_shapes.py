"""Shapes: any angle, rounded corners, trimming, padding, percent, ratios, and gravity that is left to the picture.

What is expected is computed here from the meaning of the URL's parameters, by none of the project's geometry.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import pyvips

from imgserve.core import grammar
from imgserve.core.plan import Plan
from imgserve.core.tenants import Tenant
from tests.render import images

Array = images.Array
TENANT = Tenant(name="demo")


def plan_of(query: str) -> Plan:
    return grammar.parse(f"/example.com/a.jpg?{query}", TENANT).plan


def png(samples: Array) -> bytes:
    return bytes(
        images.from_array(samples.astype(np.uint8), "srgb" if samples.shape[2] > 2 else "b-w").pngsave_buffer()
    )


def jpeg(samples: Array) -> bytes:
    return bytes(images.from_array(samples.astype(np.uint8)).jpegsave_buffer(Q=98, subsample_mode="off"))


def shown(original: bytes, query: str, asked: str = "png") -> Array:
    return images.array(images.render(original, plan_of(query), asked)[1])


def ramp(width: int, height: int) -> Array:
    """Red is the place from the left, green from the top, blue half."""
    across = np.tile((np.arange(width) + 0.5) * 255 / width, (height, 1))
    down = np.tile(((np.arange(height) + 0.5) * 255 / height)[:, None], (1, width))
    samples = np.stack([across, down, np.full_like(across, 128.0)], axis=2)
    return np.asarray(np.round(samples), dtype=np.float64)


def plain(width: int, height: int, colour: tuple[int, ...] = (200, 100, 50)) -> Array:
    return np.tile(np.array(colour, dtype=np.float64), (height, width, 1))


# ---- any angle ---------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0.5, 10, 30, 44.9, 45, 60, 100, 135, 200.25, 337.5])
def test_each_pixel_of_a_tilted_image_comes_from_where_it_was(degrees: float) -> None:
    """Counter-clockwise around the middle, in the box around it. Within two levels, away from the edges."""
    width, height = 160, 90
    seen = shown(png(ramp(width, height)), f"r={degrees}")
    angle = math.radians(degrees)
    across = abs(width * math.cos(angle)) + abs(height * math.sin(angle))
    down = abs(width * math.sin(angle)) + abs(height * math.cos(angle))
    assert abs(seen.shape[1] - across) <= 1
    assert abs(seen.shape[0] - down) <= 1
    y, x = np.mgrid[: seen.shape[0], : seen.shape[1]]
    right, low = x + 0.5 - seen.shape[1] / 2, y + 0.5 - seen.shape[0] / 2
    from_left = right * math.cos(angle) - low * math.sin(angle) + width / 2
    from_top = right * math.sin(angle) + low * math.cos(angle) + height / 2
    margin = np.minimum.reduce([from_left, from_top, width - from_left, height - from_top])
    inside, outside = margin > 2, margin < -2
    assert inside.sum() > 10_000
    assert np.abs(seen[..., 0] - from_left * 255 / width)[inside].max() <= 2.5
    assert np.abs(seen[..., 1] - from_top * 255 / height)[inside].max() <= 4
    assert {255.0} == set(seen[..., 3][inside])
    assert not outside.any() or {0.0} == set(seen[..., 3][outside])


@pytest.mark.parametrize("kind", ["jpeg", "png"])
@pytest.mark.parametrize(
    ("query", "asked", "corner"),
    [
        ("r=30&bg_color=red", "png", (255, 0, 0)),
        ("r=30&bg_color=red", "jpeg", (254, 0, 0)),
        ("r=30", "jpeg", (255, 255, 255)),
        ("r=30", "webp", (0,)),
        ("r=30", "png", (0,)),
        ("r=30", "plain", None),
    ],
)
def test_corners_of_a_tilted_image(kind: str, query: str, asked: str, corner: tuple[int, ...] | None) -> None:
    """bg_color; else clear where the format can, else white. A JPEG stays a JPEG where a plain format is asked."""
    original = jpeg(plain(80, 60)) if kind == "jpeg" else png(plain(80, 60))
    if corner is None:
        corner = (255, 255, 255) if kind == "jpeg" else (0,)
    done, variant = images.render(original, plan_of(query), asked)
    assert ("image/jpeg" == done.content_type) == (asked == "jpeg" or (asked, kind) == ("plain", "jpeg"))
    seen = images.array(variant)
    for place in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert np.abs(seen[place][-len(corner) :] - corner).max() <= 2
    assert np.abs(seen[seen.shape[0] // 2, seen.shape[1] // 2, :3] - (200, 100, 50)).max() <= 3


@pytest.mark.parametrize(
    ("query", "size"),
    [
        ("r=45&w=100", (100, 100)),
        ("r=30&w=200&h=100&func=crop", (200, 100)),
        ("r=30&w=200&h=100&func=fit", (200, 100)),
        ("r=-75&w=50&h=300&func=cover", (50, 300)),
        ("r=20&w=300&h=40&func=cover", (300, 40)),
        ("r=1&w=9000", (8192, 8192)),
    ],
)
def test_sizes_are_those_of_the_box_around_the_tilted_image(query: str, size: tuple[int, int]) -> None:
    """w and h are met exactly, and the limit of outputs holds."""
    original = png(ramp(120, 120))
    done, _ = images.render(original, plan_of(query), "jpeg")
    assert size == (done.width_px, done.height_px)


def test_a_tilted_crop_shows_the_middle() -> None:
    """The crop of a tilted ramp has the ramp's middle in its own, and its slope. Within three levels."""
    seen = shown(png(ramp(400, 400)), "r=30&w=60&h=60&func=crop")
    assert np.abs(seen[29:31, 29:31, :2].mean(axis=(0, 1)) - 127.5).max() <= 3
    # 60 pixels are the box of 546.4 pixels; one of the output is 9.1 of the original, across and down.
    slope = (seen[30, 40, 0] - seen[30, 20, 0]) / 20 * 400 / 255
    assert abs(slope - 546.4 / 60 * math.cos(math.radians(30))) <= 0.3


# ---- rounded corners ---------------------------------------------------------------------------


def disc_alpha(width: int, height: int, radii: tuple[float, float, float, float]) -> Array:
    """Clear where a corner's circle is left; the order is top left, bottom left, bottom right, top right."""
    y, x = np.mgrid[:height, :width] + 0.5
    alpha = np.full((height, width), 255.0)
    for radius, right, bottom in zip(radii, (0, 0, 1, 1), (0, 1, 1, 0), strict=True):
        across = x if not right else width - x
        down = y if not bottom else height - y
        corner = (across < radius) & (down < radius)
        distance = np.hypot(radius - across, radius - down)
        alpha = np.where(corner, np.clip(radius + 0.5 - distance, 0, 1) * 255, alpha)
    return alpha


@pytest.mark.parametrize(
    ("value", "radii"),
    [
        ("20", (20, 20, 20, 20)),
        ("max", (30, 30, 30, 30)),
        ("500", (30, 30, 30, 30)),
        ("max,0,0,0", (60, 0, 0, 0)),
        ("0,max,0,0", (0, 60, 0, 0)),
        ("5,10,20,25", (5, 10, 20, 25)),
        ("0,0,30,0", (0, 0, 30, 0)),
        ("0%2C0%2C0%2C30", (0, 0, 0, 30)),
        ("45,30,0,0", (36, 24, 0, 0)),
    ],
)
def test_each_corner_has_its_own_radius_in_the_services_order(value: str, radii: tuple[float, ...]) -> None:
    """Alpha within one level of a disc's; overlapping radii shrink alike."""
    seen = shown(png(plain(100, 60)), f"radius={value}")
    assert len(radii) == 4
    assert np.abs(disc_alpha(100, 60, (radii[0], radii[1], radii[2], radii[3])) - seen[..., 3]).max() <= 1
    assert {(200.0, 100.0, 50.0)} == {tuple(pixel[:3]) for pixel in seen[seen[..., 3] == 255]}


@pytest.mark.parametrize(
    ("query", "asked", "corner"),
    [
        ("radius=20&bg_color=00f", "png", (0, 0, 255)),
        ("radius=20&bg_color=00f", "webp", (0, 0, 255)),
        ("radius=20&bg_color=00f", "jpeg", (0, 0, 255)),
        ("radius=20", "jpeg", (255, 255, 255)),
        ("radius=20", "webp", (0,)),
        ("w=80&h=80&func=fit&radius=20&bg_color=00f", "png", (0, 0, 255)),
    ],
)
def test_what_is_cut_off_a_corner(query: str, asked: str, corner: tuple[int, ...]) -> None:
    """bg_color, else clear, else white."""
    seen = shown(jpeg(plain(100, 60)), query + "&q=95", asked)
    assert np.abs(seen[0, 0][-len(corner) :] - corner).max() <= 20  # colours are kept at half the size


def test_within_padding_of_a_colour_the_image_is_rounded() -> None:
    """Where a copy of the image is the padding, the whole output is."""
    original = png(plain(100, 50, (200, 0, 0)))
    seen = shown(original, "w=100&h=100&func=fit&radius=20&bg_color=00f")
    inside = seen[25:75]
    assert np.abs(disc_alpha(100, 50, (20, 20, 20, 20)) / 255 * 200 - inside[..., 0]).max() <= 2
    assert {(0.0, 0.0, 255.0)} == {tuple(pixel) for pixel in seen[:25].reshape(-1, 3)}
    whole = shown(original, "w=100&h=100&func=fit&radius=20&bg_img_fit=1")
    assert np.abs(disc_alpha(100, 100, (20, 20, 20, 20)) - whole[..., 3]).max() <= 1


def test_radius_is_of_the_output_and_multiplied_by_dpr() -> None:
    """Beside dpr, resizing does not change it."""
    original = png(plain(400, 400))
    for query, radius in (("w=100&radius=10", 10), ("w=50&radius=10&dpr=2", 20)):
        assert np.abs(disc_alpha(100, 100, (radius,) * 4) - shown(original, query)[..., 3]).max() <= 1


def test_alpha_of_the_image_and_of_its_corners_multiply() -> None:
    """Half clear stays half clear inside."""
    seen = shown(png(plain(60, 60, (10, 20, 30, 128))), "radius=15")
    assert np.abs(disc_alpha(60, 60, (15, 15, 15, 15)) * 128 / 255 - seen[..., 3]).max() <= 1


# ---- trim --------------------------------------------------------------------------------------


def framed(left: int, top: int, right: int, bottom: int, border: tuple[int, ...] = (250, 250, 250)) -> Array:
    inside = ramp(50, 40) * 0.5
    height, width = 40 + top + bottom, 50 + left + right
    samples = plain(width, height, border[:3])
    samples[top : top + 40, left : left + 50] = inside
    return samples


@pytest.mark.parametrize("border", [(9, 0, 0, 0), (0, 4, 0, 0), (10, 20, 30, 40), (7, 0, 5, 0), (1, 0, 0, 1)])
def test_trim_takes_off_a_border_of_one_colour(border: tuple[int, int, int, int]) -> None:
    """To the pixel, on each side that has one."""
    seen = shown(png(framed(*border)), "trim=5")
    expected = ramp(50, 40) * 0.5
    assert expected.shape == seen.shape
    assert np.array_equal(np.floor(expected), np.floor(seen))


def test_trim_is_as_bold_as_it_is_told() -> None:
    """A border that strays by 3 % is taken by trim=5, and stays with trim=1 and trim=0."""
    samples = framed(10, 10, 10, 10)
    samples[2, :] = 242  # 8 levels of 250
    assert (40, 50) == shown(png(samples), "trim=5").shape[:2]
    assert (48, 70) == shown(png(samples), "trim=1").shape[:2]
    assert (48, 70) == shown(png(samples), "trim=0").shape[:2]


def test_trim_takes_off_what_cannot_be_seen() -> None:
    """A clear border goes, whatever its hidden colours; alpha inside stays."""
    samples = np.random.default_rng(1).integers(0, 256, (60, 80, 4)).astype(np.float64)
    samples[..., 3] = 0
    samples[10:50, 15:75, 3] = 255
    seen = shown(png(samples), "trim=10")
    assert np.array_equal(samples[10:50, 15:75], seen)


def test_an_image_of_one_colour_is_not_trimmed_away() -> None:
    """It stays whole."""
    assert (30, 40) == shown(png(plain(40, 30)), "trim=10").shape[:2]


def test_corners_percent_and_focus_count_from_the_trimmed_image() -> None:
    """trim comes before everything else."""
    original = png(framed(20, 10, 5, 5))
    assert np.array_equal(shown(png(ramp(50, 40) * 0.5), "tl_px=5,6"), shown(original, "trim=3&tl_px=5,6"))
    assert (20, 25) == shown(original, "trim=3&w=50p").shape[:2]
    query = "w=20&h=40&gravity=40,20"
    assert np.abs(shown(png(ramp(50, 40) * 0.5), query) - shown(original, "trim=3&" + query)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_trim_sees_the_upright_image(orientation: int) -> None:
    """The same size of every orientation, and the same pixels but for JPEG's noise."""
    upright = framed(12, 0, 0, 8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    image = images.from_array(np.ascontiguousarray(stored).astype(np.uint8))
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    seen = shown(bytes(image.pngsave_buffer()), "trim=5")
    assert np.array_equal(np.floor(ramp(50, 40) * 0.5), np.floor(seen))


@pytest.mark.parametrize(
    ("border", "query", "expected"),
    [
        ((20, 10, 20, 10), "func=crop", "center"),
        ((20, 0, 0, 0), "func=crop", "west"),
        ((20, 0, 0, 0), "func=fit", "east"),
        ((20, 10, 0, 0), "func=crop", "northwest"),
        ((20, 10, 20, 0), "func=fit", "south"),
    ],
)
def test_gravity_trim_keeps_to_the_sides_that_were_cut(
    border: tuple[int, int, int, int], query: str, expected: str
) -> None:
    """As the service documents it, for crop and fit."""
    samples = framed(*border)
    samples[0, 0] = 250
    original = png(samples)
    box = f"trim=5&w=30&h=30&{query}&bg_color=00f"
    assert np.array_equal(shown(original, f"{box}&gravity={expected}"), shown(original, f"{box}&gravity=trim"))


# ---- sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "size"),
    [
        ("w=50p", (100, 50)),
        ("w=50%25", (100, 50)),
        ("h=100%", (200, 100)),
        ("w=200p", (400, 200)),
        ("w=25p&dpr=2", (100, 50)),
        ("w=50p&h=50&func=cover", (100, 50)),
        ("w=50p&h=80p&func=crop", (100, 80)),
        ("w=200p&org_if_sml=1", (200, 100)),
        ("r=90&w=50p", (50, 100)),
        ("tl_px=100,0&w=50p", (50, 50)),
        ("ar=1", (100, 100)),
        ("ar=16:9", (178, 100)),
        ("ar=4", (200, 50)),
        ("ar=1:1&w=60", (60, 60)),
        ("aspect_ratio=4&h=20", (80, 20)),
        ("ar=1&w=60&h=20", (60, 20)),
        ("ar=1.5,2.5", (200, 100)),
        ("ar=1.5,2.5&w=60", (60, 30)),
        ("ar=1,1.5", (150, 100)),
        ("ar=5,2.5", (200, 80)),
        ("ar=1,1.5&w=60", (60, 40)),
        ("ar=1%2C1.5&h=40", (60, 40)),
        ("ar=1&w=50p", (100, 100)),
        ("w=100&h=100&func=boundmin", (200, 100)),
        ("w=50&h=10&func=boundmin", (50, 25)),
        ("w=500&h=100&func=boundmin&org_if_sml=1", (200, 100)),
        ("w=100&h=90&func=cropfit", (100, 90)),
        ("w=300&h=90&func=cropfit", (300, 90)),
        ("w=100&h=90&func=face", (100, 90)),
    ],
)
def test_sizes_in_percent_by_ratio_and_by_the_new_modes(query: str, size: tuple[int, int]) -> None:
    """Of an original of 200 x 100."""
    done, _ = images.render(png(ramp(200, 100)), plan_of(query))
    assert size == (done.width_px, done.height_px)


def test_cropfit_crops_what_is_large_enough_and_pads_the_rest() -> None:
    """The documented examples: 650 x 500 and 400 x 250 to 500 x 350."""
    cropped = shown(png(ramp(650, 500)), "w=500&h=350&func=cropfit&bg_color=00f")
    assert (350, 500) == cropped.shape[:2]
    assert np.abs(cropped[..., 2] - 128).max() <= 1
    padded = shown(png(ramp(400, 250)), "w=500&h=350&func=cropfit&bg_color=00f")
    assert np.array_equal(padded[50:300, 50:450], ramp(400, 250))
    assert {(0.0, 0.0, 255.0)} == {tuple(pixel) for pixel in padded[:50].reshape(-1, 3)}


def test_ar_cuts_without_resizing_and_by_gravity() -> None:
    """The pixels are the original's own."""
    samples = ramp(200, 100)
    assert np.array_equal(samples[:, 50:150], shown(png(samples), "ar=1"))
    assert np.array_equal(samples[:, :100], shown(png(samples), "ar=1&gravity=west"))
    assert np.array_equal(samples[60:], shown(png(samples), "ar=5&gravity=south"))


@pytest.mark.parametrize(
    ("query", "inner"),
    [
        ("margin=10", (20, 35, 100, 70)),
        ("margin=10&gravity=northwest", (10, 10, 100, 70)),
        ("margin=10&gravity=southeast", (30, 60, 100, 70)),
        ("margin=30", (30, 42, 80, 56)),
        ("margin=15&dpr=2&w=70&h=70", (30, 42, 80, 56)),
    ],
)
def test_margin_is_the_least_room_in_a_fit(query: str, inner: tuple[int, int, int, int]) -> None:
    """100 x 70 into 140 x 140: placed by gravity within the margins, scaled where they leave too little."""
    box = "" if "w=" in query else "w=140&h=140&"
    seen = shown(png(plain(100, 70, (255, 0, 0))), f"{box}func=fit&bg_color=00f&{query}")
    ys, xs = np.nonzero(seen[..., 0] > 128)
    left, top = xs.min(), ys.min()
    assert (140, 140) == seen.shape[:2]
    assert inner == (left, top, xs.max() - left + 1, ys.max() - top + 1)


def test_xs_ys_is_percent_of_the_resized_image() -> None:
    """Whatever corners and turns come before."""
    original = png(ramp(400, 100))
    seen = shown(original, "tl_px=200,0&r=180&w=50&h=50&gravity=25s,0s")
    # The right half is 200 x 100, turned by half, scaled to 100 x 50; the focus is at 25, so that the window is at 0.
    assert np.array_equal(shown(original, "tl_px=200,0&r=180&w=50&h=50&gravity=west"), seen)
    assert not np.array_equal(shown(original, "tl_px=200,0&r=180&w=50&h=50&gravity=60s,0s"), seen)


# ---- backgrounds -------------------------------------------------------------------------------


def test_bg_color_auto_is_the_most_frequent_colour() -> None:
    """Padding in the colour of most of the picture; what cannot be seen does not count."""
    samples = plain(100, 50, (30, 90, 200))
    samples[:20, :40] = (255, 0, 0)
    seen = shown(png(samples), "w=200&h=200&func=fit&bg_color=auto")
    assert np.abs(seen[0, 0] - (30, 90, 200)).max() <= 2
    clear = np.concatenate([samples, np.full((50, 100, 1), 255.0)], axis=2)
    clear[:, 40:, 3] = 0
    clear[20:, :, 3] = 0
    assert np.abs(shown(png(clear), "bg_color=auto")[49, 99] - (255, 0, 0)).max() <= 2


def test_the_padding_is_a_blurred_copy_that_fills_the_canvas() -> None:
    """The copy is as if cover-cropped and blurred; the image lies on it untouched."""
    samples = ramp(100, 50)
    seen = shown(png(samples), "w=100&h=100&func=fit&bg_img_fit=1&bg_blur=3")
    assert np.array_equal(samples, seen[25:75])
    # At twice the size the copy shows 25 to 75 of the original from left to right.
    assert np.abs(seen[10, 20:80, 0] - (25 + (np.arange(20, 80) + 0.5) / 2) * 2.55).max() <= 3
    assert np.abs(seen[12:20, 50, 1] - (np.arange(12, 20) + 0.5) * 2.55).max() <= 6


def test_opacity_and_tint_of_the_copy() -> None:
    """Towards bg_color, and towards the tint. Within two levels."""
    original = png(plain(100, 50, (100, 100, 100)))
    box = "w=100&h=100&func=fit&bg_img_fit=1"
    assert np.abs(shown(original, f"{box}&bg_opacity=0.25&bg_color=00f")[0, 0] - (25, 25, 216)).max() <= 2
    assert np.abs(shown(original, f"{box}&bg_opacity=0")[0, 0] - 255).max() <= 1
    assert np.abs(shown(original, f"{box}&bg_colorize=f00,0.4")[0, 0] - (162, 60, 60)).max() <= 2
    assert np.abs(shown(original, f"{box}&bg_colourise=red")[0, 0] - (178, 50, 50)).max() <= 2


# ---- where the eye falls -----------------------------------------------------------------------


@pytest.mark.parametrize(("x", "y"), [(60, 50), (320, 60), (200, 150), (350, 250)])
@pytest.mark.parametrize("query", ["w=100&h=100", "w=60&h=100", "tl_px=10,10&w=100&h=100", "ar=1"])
def test_auto_keeps_what_stands_out(x: int, y: int, query: str) -> None:
    """A saturated, detailed spot on a dull ground is inside the crop, where the centre's would miss some."""
    samples = plain(400, 300, (120, 122, 125))
    samples[y - 20 : y + 20, x - 20 : x + 20] = (230, 60, 40)
    samples[y - 20 : y + 20 : 4, x - 20 : x + 20] = (255, 220, 60)
    seen = shown(png(samples), f"{query}&gravity=auto")
    whole = ((samples[..., 0] > 200).mean() * samples.shape[0] * samples.shape[1]) * (seen.shape[0] / 300) ** 2
    assert (seen[..., 0] > 200).sum() >= 0.8 * whole


@pytest.mark.parametrize("turn", ["", "&flip=h", "&flip=v&r=90", "&r=180", "&r=270", "&r=20"])
def test_auto_follows_flips_and_turns(turn: str) -> None:
    """The spot is found in the original, and kept wherever it goes."""
    samples = plain(400, 200, (120, 122, 125))
    samples[20:60, 330:370] = (230, 60, 40)
    seen = shown(png(samples), f"w=80&h=80&gravity=auto&bg_color=777{turn}")
    assert (seen[..., 0] > 200).sum() >= 80


def test_auto_smart_and_face_are_one_and_always_the_same(corpus: Path) -> None:
    """On a real photograph: equal bytes, twice; and not the centre's."""
    original = (corpus / "face_obama_official.jpg").read_bytes()
    box = "w=200&h=100"
    variants = {
        images.render(original, plan_of(f"{box}{end}"), "jpeg")[1]
        for end in ("&gravity=auto", "&gravity=smart", "&gravity=face", "&func=face", "&f=face")
        for _ in range(2)
    }
    assert 1 == len(variants)
    assert images.render(original, plan_of(box), "jpeg")[1] not in variants


@pytest.mark.parametrize(
    ("name", "face"),
    [
        ("face_obama_official.jpg", (0.12, 0.30)),
        ("face_biden_official.jpg", (0.09, 0.18)),
        ("face_grace_hopper.jpg", (0.22, 0.45)),
    ],
)
def test_auto_keeps_the_face_of_a_portrait(name: str, face: tuple[float, float], corpus: Path) -> None:
    """A strip of the whole width has the rows between the brows and the chin, as they were measured by eye."""
    original = (corpus / name).read_bytes()
    whole = images.array(images.render(original, plan_of("w=200"))[1])
    height = len(whole)
    rows = int((face[1] - face[0]) * height) + 30
    strip = images.array(images.render(original, plan_of(f"w=200&h={rows}&gravity=auto"))[1])
    offsets = [np.abs(whole[top : top + rows] - strip).mean() for top in range(height - rows + 1)]
    top = int(np.argmin(offsets))
    assert min(offsets) <= 2
    assert top <= face[0] * height + 1
    assert top + rows >= face[1] * height - 1
