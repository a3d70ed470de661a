"""No variant carries a byte of metadata, whatever the original had and the plan asked."""

import re
import struct
import zlib
from pathlib import Path

import pytest

from imgserve.adapters.render import bareness
from imgserve.adapters.render.sniff import sniff
from imgserve.core.plan import Mode, Plan
from tests.render import images

ORIGINALS = (
    "web_paris_exif_xmp_icc_gps.jpg",
    "web_gps_640.jpg",
    "web_iphone_displayp3_gainmap_gps.jpg",
    "web_flower_cmyk_gps.jpg",
    "web_paris.avif",
    "derived_iphone_gps_orient6.jpg",
)
PLANS = {
    "nothing": Plan(),
    "bound": Plan(width_px=100),
    "crop": Plan(width_px=90, height_px=60, mode=Mode.CROP),
    "fit": Plan(width_px=90, height_px=90, mode=Mode.FIT),
    "gray": Plan(width_px=100, gray=True),
    "rotated": Plan(width_px=100, rotate_ccw_degrees=90),
}
FORMATS = ("jpeg", "png", "webp", "avif", "original", "plain")
MARKS = re.compile(
    rb"Exif\0|ns\.adobe\.com|<x:xmpmeta|rdf:RDF|xpacket|ICC_PROFILE|Photoshop|iCCP|hdrgm|gainmap|Apple|NIKON|libvips"
)


@pytest.mark.parametrize("name", ORIGINALS)
def test_no_metadata_leaves(name: str, corpus: Path) -> None:
    """Every output format, every kind of plan: no EXIF, GPS, XMP, IPTC, ICC, comment or maker's mark."""
    original = (corpus / name).read_bytes()
    assert MARKS.search(original) is not None
    found = {}
    for title, plan in PLANS.items():
        # A large one need not be encoded at its full size.
        sized = Plan(width_px=800) if title == "nothing" and len(original) > 200_000 else plan
        for asked in FORMATS:
            done, variant = images.render(original, sized, asked)
            assert (False, done.size_bytes) == (done.is_original, len(variant))
            kind = sniff(variant)
            assert kind is not None
            found[title, asked] = (MARKS.findall(variant), bareness.is_bare(variant, kind))
    assert {key: ([], True) for key in found} == found


def test_fields_are_gone_too(corpus: Path) -> None:
    """The decoder finds no metadata field in a variant: what the marks might miss."""
    original = (corpus / "web_paris_exif_xmp_icc_gps.jpg").read_bytes()
    for asked in ("jpeg", "png", "webp", "avif"):
        variant = images.image(images.render(original, Plan(width_px=64), asked)[1])
        fields = {field for field in variant.get_fields() if field.endswith("-data") or "exif" in field.lower()}
        assert set() == fields, asked


def test_png_text_and_jpeg_comments_are_gone() -> None:
    """Metadata that is neither EXIF nor XMP."""
    png = images.noise(32, 32).pngsave_buffer(keep="none")
    body = b"tEXtAuthor\0Ada"
    noted = png[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + png[33:]
    jpeg = images.noise(32, 32).jpegsave_buffer(keep="none")
    commented = jpeg[:2] + b"\xff\xfe\x00\x05Ada" + jpeg[2:]
    for original in (noted, commented):
        for asked in ("png", "jpeg", "webp"):
            assert b"Ada" not in images.render(original, Plan(), asked)[1]
