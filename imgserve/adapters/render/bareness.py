"""Whether a file carries nothing but its pixels, so that its own bytes may be sent on.

An allow-list per format: what is not known to be harmless counts as metadata.
"""

from typing import Final

from imgserve.adapters.render import wholeness
from imgserve.adapters.render.sniff import Buffer, Format

_PNG_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"sRGB", b"pHYs"})
_WEBP_CHUNKS: Final = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH"})
_AVIF_BOXES: Final = frozenset({b"ftyp", b"meta", b"mdat"})
_AVIF_ITEMS: Final = frozenset({b"av01", b"grid"})
_JFIF: Final = b"JFIF\0"
_JPEG_STRUCTURE: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD})


def is_bare(data: Buffer, kind: Format) -> bool:
    """True when the file is whole and holds no metadata, profile, orientation, animation or trailing bytes."""
    try:
        match kind:
            case Format.JPEG:
                return _is_bare_jpeg(data)
            case Format.PNG:
                return _is_bare_png(data)
            case Format.WEBP:
                return all(name in _WEBP_CHUNKS for name, _, _ in wholeness.webp_chunks(data)) and (
                    int.from_bytes(data[4:8], "little") + 8 == len(data)
                )
            case Format.AVIF:
                return _is_bare_avif(data)
            case _:
                return False
    except wholeness.Cut:
        return False


def _is_bare_jpeg(data: Buffer) -> bool:
    """Tables, frames and scans, a JFIF header without a thumbnail, an Adobe marker; nothing behind EOI."""
    scan = 0
    for marker, begin, end in wholeness.jpeg_segments(data):
        scan = end
        is_jfif = marker == 0xE0 and end - begin == 14 and data[begin : begin + 5] == _JFIF
        is_adobe = marker == 0xEE and end - begin == 12 and data[begin : begin + 5] == b"Adobe"
        if not (is_jfif or is_adobe or marker in _JPEG_STRUCTURE):
            return False
    return _scans_are_bare(data, scan)


def _scans_are_bare(data: Buffer, at: int) -> bool:
    """Walk what lies between the scans: a comment may hide there too."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 2 > len(data):
            return False
        marker = data[at + 1]
        if marker == 0xD9:
            return at + 2 == len(data)
        if marker == 0 or 0xD0 <= marker <= 0xD7:
            at += 2
        elif marker == 0xFF:
            at += 1
        elif marker in _JPEG_STRUCTURE:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        else:
            return False


def _is_bare_png(data: Buffer) -> bool:
    chunks = list(wholeness.png_chunks(data))
    return all(name in _PNG_CHUNKS for name, _, _ in chunks) and chunks[-1][2] + 4 == len(data)


def _is_bare_avif(data: Buffer) -> bool:
    """Coded images only, no ICC profile, no turning or mirroring (ISO/IEC 23008-12 section 6)."""
    for name, begin, end in wholeness.boxes(data, 0, len(data)):
        if name not in _AVIF_BOXES:
            return False
        if name == b"meta" and not _is_bare_meta(data, begin + 4, end):
            return False
    return True


def _is_bare_meta(data: Buffer, start: int, stop: int) -> bool:
    for name, begin, end in wholeness.boxes(data, start, stop):
        if name == b"iinf":
            entries = begin + (6 if data[begin] == 0 else 8)
            for item, item_begin, _ in wholeness.boxes(data, entries, end):
                # infe version 2: flags, id (16 bit), protection (16 bit), type; version 3 has a 32-bit id.
                at = item_begin + (8 if data[item_begin] == 2 else 10)
                if item != b"infe" or data[at : at + 4] not in _AVIF_ITEMS:
                    return False
        elif name == b"iprp" and any(mark in data[begin:end] for mark in (b"prof", b"rICC", b"irot", b"imir")):
            return False
    return True
