"""An original that is cut short is refused by every loader: decoders would paint grey and say nothing."""

from pathlib import Path

import pytest

from imgserve.adapters.render import wholeness
from imgserve.adapters.render.sniff import Format, sniff
from imgserve.core.errors import Undecodable
from imgserve.core.plan import Plan
from tests.render import images

FILES = (
    "web_china.jpg",
    "camera_lake_progressive.jpg",
    "web_iphone_displayp3_gainmap_gps.jpg",
    "face_kodim04.png",
    "web_weld_16bit.png",
    "anim_newtons_cradle.gif",
    "derived_tea_1600.webp",
    "derived_alpha_photo.webp",
    "derived_newtons_cradle.webp",
    "web_fox.avif",
    "web_paris.avif",
    "derived_tea_1600.tif",
    "vector_flag_br.svg",
    "vector_matplotlib.svg",
)
TOP_LEFT = Plan(bottom_right_px=(16, 16))


@pytest.mark.parametrize("percent", [50, 90, 99])
@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_refused(name: str, percent: int, corpus: Path) -> None:
    """Also where only its first lines are asked for, which are there."""
    whole = (corpus / name).read_bytes()
    cut = whole[: len(whole) * percent // 100]
    for plan in (Plan(width_px=64), TOP_LEFT):
        with pytest.raises(Undecodable):
            images.render(cut, plan)


@pytest.mark.parametrize("name", FILES)
def test_the_whole_file_is_served(name: str, corpus: Path) -> None:
    """What is refused is refused for the cut."""
    assert images.render((corpus / name).read_bytes(), TOP_LEFT)[0].width_px == 16


def test_every_format_is_covered(corpus: Path) -> None:
    """No loader is without its cut files."""
    assert set(Format) == {sniff((corpus / name).read_bytes()) for name in FILES}


MADE = {
    "jpeg": lambda: images.noise(160, 120).jpegsave_buffer(),
    "jpeg restart": lambda: images.noise(160, 120).jpegsave_buffer(restart_interval=1),
    "png interlaced": lambda: images.noise(160, 120).pngsave_buffer(interlace=True),
    "png palette": lambda: images.noise(160, 120).pngsave_buffer(palette=True),
    "webp lossless": lambda: images.noise(160, 120).webpsave_buffer(lossless=True),
    "gif": lambda: images.noise(160, 120).gifsave_buffer(),
    "tiff strips": lambda: images.noise(160, 120).tiffsave_buffer(),
    "tiff tiles": lambda: images.noise(160, 120).tiffsave_buffer(tile=True, tile_width=32, tile_height=32),
    "tiff deflate": lambda: images.noise(160, 120).tiffsave_buffer(compression="deflate"),
    "tiff jpeg": lambda: images.noise(160, 120).tiffsave_buffer(compression="jpeg"),
    "big tiff": lambda: images.noise(160, 120).tiffsave_buffer(bigtiff=True),
}


@pytest.mark.parametrize("kind", MADE)
def test_cuts_of_other_encodings(kind: str) -> None:
    """The variants of each format, cut at fifty places: refused at all of them."""
    whole = MADE[kind]()
    assert images.render(whole)[0].width_px == 160
    accepted = []
    for step in range(1, 50):
        cut = whole[: len(whole) * step // 50]
        try:
            images.render(cut, TOP_LEFT)
        except Undecodable:
            continue
        accepted.append(step)
    assert [] == accepted


def test_garbage_behind_the_end_is_no_cut() -> None:
    """Cameras append data; it is ignored."""
    whole = images.noise(64, 64).jpegsave_buffer()
    assert images.render(whole + bytes(100))[0].width_px == 64


def test_damage_inside_is_refused() -> None:
    """Pixels that do not decode without a warning are an error, not a grey field."""
    for whole in (images.noise(256, 256).pngsave_buffer(), images.noise(256, 256).jpegsave_buffer()):
        middle = len(whole) // 2
        with pytest.raises(Undecodable):
            images.render(whole[:middle] + b"\xff\xc4\0" + bytes(60) + whole[middle + 63 :])


def test_a_directory_that_points_at_itself_ends() -> None:
    """A chain of TIFF directories is walked once."""
    whole = bytearray(images.noise(32, 32).tiffsave_buffer())
    order = "little" if whole[:2] == b"II" else "big"
    first = int.from_bytes(whole[4:8], order)  # type: ignore[arg-type]
    count = int.from_bytes(whole[first : first + 2], order)  # type: ignore[arg-type]
    whole[first + 2 + count * 12 : first + 6 + count * 12] = whole[4:8]
    wholeness.check(bytes(whole), Format.TIFF)


def test_a_profile_that_is_cut_is_a_cut(corpus: Path) -> None:
    """A TIFF whose last bytes are its profile decodes without it, to other colours: refused, not served."""
    import pyvips

    image = pyvips.Image.new_from_buffer((corpus / "derived_spices_displayp3_1600.jpg").read_bytes(), "")
    whole = image.tiffsave_buffer(tile=True, compression="deflate")
    images.render(whole, TOP_LEFT)
    with pytest.raises(Undecodable):
        images.render(whole[:-100], TOP_LEFT)


@pytest.mark.parametrize("format_name", ["png", "webp", "jpeg", "avif"])
def test_a_loader_that_fails_late_is_not_taken_for_its_encoder(format_name: str, corpus: Path) -> None:
    """Damage that shows only at the pixels is the original's fault in every output format: nobody should try again."""
    damaged = bytearray((corpus / "derived_tea_1600.tif").read_bytes())
    at = len(damaged) // 2
    damaged[at : at + 4000] = b"\xff" * 4000
    with pytest.raises(Undecodable):
        images.render(bytes(damaged), Plan(), format_name)
