"""Which image format bytes claim to be, by their magic numbers alone: names and types from outside count nothing."""

import mmap
import re
from enum import StrEnum
from typing import Final

Buffer = bytes | mmap.mmap
"""An original in memory. A slice of it is bytes; nothing here writes to it."""


class Format(StrEnum):
    """The formats that are read; all others are refused."""

    JPEG = "jpeg"
    PNG = "png"
    GIF = "gif"
    WEBP = "webp"
    AVIF = "avif"
    TIFF = "tiff"
    SVG = "svg"


_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_TIFF_MAGICS: Final = (b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0")
_SVG_HEAD_BYTES: Final = 4096
_SVG_ROOT: Final = re.compile(rb"<(?:[A-Za-z_][\w.-]{0,40}:)?svg[\s>/]")


def sniff(data: Buffer) -> Format | None:
    """The format that the first bytes announce, or None."""
    head = data[:32]
    if head.startswith(b"\xff\xd8\xff"):
        return Format.JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return Format.PNG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return Format.GIF
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Format.WEBP
    if head[4:8] == b"ftyp":
        return Format.AVIF if _has_avif_brand(data) else None
    if head.startswith(_TIFF_MAGICS):
        return Format.TIFF
    return Format.SVG if _is_svg(data[:_SVG_HEAD_BYTES]) else None


def _has_avif_brand(data: Buffer) -> bool:
    """Major or compatible brands of ISO/IEC 14496-12 section 4.3; HEIC has others."""
    size = min(int.from_bytes(data[:4], "big"), 1024)
    brands = (data[8:12], *(data[at : at + 4] for at in range(16, size, 4)))
    return not _AVIF_BRANDS.isdisjoint(brands)


def _is_svg(head: bytes) -> bool:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return text.startswith(b"<") and _SVG_ROOT.search(text) is not None
