"""Whether an original reaches to its own end. Decoders paint grey over what is missing, and say nothing.

Only lengths and markers are walked; pixels are the decoder's business. Every walk is bounded by the data.
"""

import itertools
from collections.abc import Iterator
from typing import Final, Literal

from imgserve.adapters.render.sniff import Buffer, Format

_TIFF_DIRECTORIES_MAX: Final = 1000
_TIFF_EXTENTS_MAX: Final = 1_000_000  # strips or tiles of one directory
_TIFF_TYPE_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_TIFF_EXTENTS: Final = ((273, 279), (324, 325))  # strips and tiles: the tags of offsets and of byte counts


class Cut(Exception):
    """The data ends before the image does; says where it was noticed."""


def check(data: Buffer, kind: Format) -> None:
    """Raise Cut when the image ends early. SVG is left to its parser, which refuses an open element."""
    match kind:
        case Format.JPEG:
            _check_jpeg(data)
        case Format.PNG:
            for _ in png_chunks(data):
                pass
        case Format.GIF:
            _check_gif(data)
        case Format.WEBP:
            if int.from_bytes(data[4:8], "little") + 8 > len(data):
                raise Cut("the RIFF container is longer than the file")
        case Format.AVIF:
            for _ in boxes(data, 0, len(data)):
                pass
        case Format.TIFF:
            _check_tiff(data)
        case Format.SVG:
            pass


def _check_jpeg(data: Buffer) -> None:
    """Each image in the file ends with EOI (ITU-T T.81 annex B); phones append a second one."""
    start = 0
    while data[start : start + 3] == b"\xff\xd8\xff":
        scan = max(end for _, _, end in jpeg_segments(data, start))
        end = data.find(b"\xff\xd9", scan)
        if end < 0:
            raise Cut("no end-of-image marker")
        start = end + 2


def jpeg_segments(data: Buffer, start: int = 0) -> Iterator[tuple[int, int, int]]:
    """Marker, begin and end of each segment's body, from SOI to the first SOS inclusive."""
    at = start + 2
    while True:
        if at + 4 > len(data) or data[at] != 0xFF:
            raise Cut("a segment is missing")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in (0x01, *range(0xD0, 0xD8)):  # these have no length
            at += 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xD9 or end < at + 4 or end > len(data):
            raise Cut("a segment is cut")
        yield marker, at + 4, end
        if marker == 0xDA:
            return
        at = end


def png_chunks(data: Buffer) -> Iterator[tuple[bytes, int, int]]:
    """Type, begin and end of each chunk's body, up to IEND (PNG specification section 5.3)."""
    at = 8
    while True:
        head = data[at : at + 8]
        end = at + 8 + int.from_bytes(head[:4], "big")
        if len(head) < 8 or end + 4 > len(data):
            raise Cut("a chunk is cut")
        yield head[4:], at + 8, end
        if head[4:] == b"IEND":
            return
        at = end + 4


def _check_gif(data: Buffer) -> None:
    """Walk the blocks from the header to the trailer (GIF89a appendix A)."""
    at = 13 + _colour_table_bytes(data, 10)
    while True:
        introducer = data[at : at + 1]
        if introducer == b";":
            return
        if introducer == b"!":
            at = _after_sub_blocks(data, at + 2)
        elif introducer == b",":
            at = _after_sub_blocks(data, at + 11 + _colour_table_bytes(data, at + 9))
        else:
            raise Cut("no GIF trailer")


def _colour_table_bytes(data: Buffer, flags_at: int) -> int:
    flags = data[flags_at : flags_at + 1]
    if not flags:
        raise Cut("a GIF header is cut")
    return 3 << ((flags[0] & 7) + 1) if flags[0] & 0x80 else 0


def _after_sub_blocks(data: Buffer, at: int) -> int:
    length_max = len(data)
    while at < length_max:
        size = data[at]
        at += size + 1
        if size == 0:
            return at
    raise Cut("a GIF block is cut")


def webp_chunks(data: Buffer) -> Iterator[tuple[bytes, int, int]]:
    """Type, begin and end of each chunk's body (RFC 9649 section 2.3)."""
    at = 12
    end_of_all = int.from_bytes(data[4:8], "little") + 8
    while at + 8 <= end_of_all:
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if end > len(data):
            raise Cut("a chunk is cut")
        yield data[at : at + 4], at + 8, end
        at = end + (end - at) % 2


def boxes(data: Buffer, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, begin and end of each box's body (ISO/IEC 14496-12 section 4.2)."""
    at = start
    while at < end:
        head = data[at : min(at + 16, end)]
        size, body = int.from_bytes(head[:4], "big"), at + 8
        if size == 1:
            size, body = int.from_bytes(head[8:16], "big"), at + 16
        elif size == 0:
            size = end - at
        if len(head) < 8 or at + size > end or at + size < body:
            raise Cut("a box is cut")
        yield head[4:8], body, at + size
        at += size


def _check_tiff(data: Buffer) -> None:
    """Every strip and tile of every directory lies inside the file (TIFF 6.0 section 2, and BigTIFF)."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    is_big = data[2:4] in (b"+\0", b"\0+")
    word = 8 if is_big else 4
    at = int.from_bytes(data[8:16] if is_big else data[4:8], order)
    seen: set[int] = set()
    while at and at not in seen and len(seen) < _TIFF_DIRECTORIES_MAX:
        seen.add(at)
        at = _check_directory(data, at, order, word)


def _check_directory(data: Buffer, at: int, order: Literal["little", "big"], word: int) -> int:
    """Check one directory; where the next one lies, 0 after the last."""
    count_bytes, entry_bytes = (8, 20) if word == 8 else (2, 12)
    count = int.from_bytes(data[at : at + count_bytes], order)
    first = at + count_bytes
    following = first + count * entry_bytes
    if following + word > len(data):
        raise Cut("a TIFF directory is cut")
    values: dict[int, tuple[int, ...]] = {}
    wanted = set(itertools.chain.from_iterable(_TIFF_EXTENTS))
    for entry in range(first, following, entry_bytes):
        tag = int.from_bytes(data[entry : entry + 2], order)
        _value_place(data, entry, order, word)  # a profile that is cut decodes to wrong colours
        if tag in wanted:
            values[tag] = _tiff_values(data, entry, order, word)
    for offsets, counts in _TIFF_EXTENTS:
        for offset, size in zip(values.get(offsets, ()), values.get(counts, ()), strict=False):
            if offset + size > len(data):
                raise Cut("a TIFF strip is cut")
    return int.from_bytes(data[following : following + word], order)


def _value_place(data: Buffer, entry: int, order: Literal["little", "big"], word: int) -> tuple[int, int, int]:
    """Where the values of a directory entry lie: in it when they fit, else elsewhere. Place, size and number."""
    size = _TIFF_TYPE_BYTES.get(int.from_bytes(data[entry + 2 : entry + 4], order), 1)
    count = int.from_bytes(data[entry + 4 : entry + 4 + word], order)
    at = entry + 4 + word
    if size * count > word:
        at = int.from_bytes(data[at : at + word], order)
    if at + size * count > len(data):
        raise Cut("a TIFF value is cut")
    return at, size, count


def _tiff_values(data: Buffer, entry: int, order: Literal["little", "big"], word: int) -> tuple[int, ...]:
    """The numbers of one directory entry."""
    at, size, count = _value_place(data, entry, order, word)
    if count > _TIFF_EXTENTS_MAX:
        raise Cut("a TIFF has more strips than are followed")
    body = data[at : at + size * count]
    return tuple(int.from_bytes(body[i : i + size], order) for i in range(0, size * count, size))
