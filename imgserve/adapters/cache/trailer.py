"""The end of a cached file: what the file is, and whether it is whole.

Layout: body | description (msgpack) | zeros | footer. The footer is 64 bytes at a multiple of 64, so that its words
lie in one disk sector and are written whole. Little endian:

    0  magic    8  body length   16 description length   24 stamp   32 boot
    40 checksum: BLAKE2b-128 of body, description and bytes 0 to 24
    56 CRC-32 of bytes 0 to 24, 40 to 56 and the description        60 end mark

Stamp and boot are outside the checksum: each is rewritten alone, by one 8-byte write. Boot names the start of the
kernel in which the checksum was last known to hold.
"""

import base64
import struct
import zlib
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final, TypeAlias

import msgspec

from imgserve.disk.files import Disk
from imgserve.interfaces import FileMeta

Hash: TypeAlias = blake2b

VERSION: Final = 1
FOOTER_BYTES: Final = 64
STAMP_FROM_END: Final = FOOTER_BYTES - 24
BOOT_FROM_END: Final = FOOTER_BYTES - 32
TAIL_BYTES: Final = 512
"""So much of a file's end holds the whole trailer in nearly every file."""

_FOOTER: Final = struct.Struct("<4sHHQIIQQ16sI4s")
_MAGIC: Final = b"imgc"
_END: Final = b"cgmi"
_DESCRIPTION_BYTES_MAX: Final = 16_384
_WORD_MAX: Final = (1 << 64) - 1


class Torn(ValueError):
    """The file does not end in a whole trailer that fits it."""


class _Description(msgspec.Struct, frozen=True, array_like=True):
    content_type: str
    etag: str
    created_s: int
    location: str
    is_missing: bool


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Description)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trailer:
    """What a trailer says."""

    meta: FileMeta
    boot: int
    checksum: bytes
    description: bytes


def hasher() -> Hash:
    """The hash that the body goes through, once, for the tag and for the checksum."""
    return blake2b(digest_size=16)


def etag(body: Hash) -> str:
    """The strong tag of a body: its hash as 26 lower-case base32 letters."""
    return base64.b32encode(body.digest()).decode().rstrip("=").lower()


def pack(body: Hash, meta: FileMeta, boot: int) -> bytes:
    """The trailer of a file whose body went through ``body``. Raises ValueError for a description that is too long."""
    description = _encoder.encode(
        _Description(meta.content_type, meta.etag, meta.created_s, meta.location, meta.is_missing)
    )
    if len(description) > _DESCRIPTION_BYTES_MAX:
        raise ValueError(f"a description of {len(description)} bytes")
    fields = (_MAGIC, VERSION, 0, meta.body_bytes, len(description), 0)
    head = _FOOTER.pack(*fields, meta.stamp, boot, b"", 0, _END)[:24]
    checksum = _checksum(body, description, head)
    crc = _crc(head, checksum, description)
    footer = _FOOTER.pack(*fields, meta.stamp, boot, checksum, crc, _END)
    return description + bytes(_padding(meta.body_bytes + len(description))) + footer


def read(disk: Disk, fd: int) -> Trailer:
    """What the trailer of an open file says. Raises Torn, OSError."""
    file_bytes = disk.size_bytes(fd)
    wanted = min(TAIL_BYTES, file_bytes)
    found = unpack(disk.read(fd, wanted, file_bytes - wanted), file_bytes)
    if isinstance(found, int):
        found = unpack(disk.read(fd, found, file_bytes - found), file_bytes)
    if isinstance(found, int):
        raise Torn("the file was cut while it was read")
    return found


def unpack(tail: bytes, file_bytes: int) -> Trailer | int:
    """What the end of a file of that size says; or how many bytes of it are needed, when ``tail`` is too short.

    Raises Torn. Says nothing about the body: see ``is_whole``.
    """
    if file_bytes < FOOTER_BYTES or len(tail) < FOOTER_BYTES:
        raise Torn("shorter than a footer")
    footer = tail[-FOOTER_BYTES:]
    magic, version, _, body_bytes, description_bytes, _, stamp, boot, checksum, crc, end = _FOOTER.unpack(footer)
    if magic != _MAGIC or version != VERSION or end != _END or description_bytes > _DESCRIPTION_BYTES_MAX:
        raise Torn("no footer of this version")
    content_bytes: int = body_bytes + description_bytes
    if file_bytes != content_bytes + _padding(content_bytes) + FOOTER_BYTES:
        raise Torn("lengths do not make up the file's size")
    needed: int = file_bytes - body_bytes
    if len(tail) < needed:
        return needed
    start = len(tail) - needed
    description = tail[start : start + description_bytes]
    if crc != _crc(footer[:24], checksum, description):
        raise Torn("the description is damaged")
    try:
        said = _decoder.decode(description)
    except msgspec.MsgspecError as error:
        raise Torn("the description cannot be read") from error
    meta = FileMeta(
        content_type=said.content_type,
        etag=said.etag,
        created_s=said.created_s,
        stamp=stamp,
        body_bytes=body_bytes,
        location=said.location,
        is_missing=said.is_missing,
    )
    return Trailer(meta=meta, boot=boot, checksum=checksum, description=description)


def is_whole(trailer: Trailer, body: Hash) -> bool:
    """Whether the body that went through ``body`` is the one that the trailer was written for."""
    fields = (_MAGIC, VERSION, 0, trailer.meta.body_bytes, len(trailer.description), 0)
    head = _FOOTER.pack(*fields, 0, 0, b"", 0, _END)[:24]
    return _checksum(body, trailer.description, head) == trailer.checksum


def pack_word(value: int) -> bytes:
    """A stamp or a boot as it lies in the footer. Raises ValueError when it has more than 64 bits."""
    if not 0 <= value <= _WORD_MAX:
        raise ValueError("not a 64-bit number")
    return value.to_bytes(8, "little")


def stamped(meta: FileMeta, stamp: int) -> FileMeta:
    """The same description under another stamp."""
    return replace(meta, stamp=stamp)


def _checksum(body: Hash, description: bytes, head: bytes) -> bytes:
    whole = body.copy()
    whole.update(description)
    whole.update(head)
    return whole.digest()


def _crc(head: bytes, checksum: bytes, description: bytes) -> int:
    return zlib.crc32(description, zlib.crc32(checksum, zlib.crc32(head)))


def _padding(content_bytes: int) -> int:
    return -content_bytes % FOOTER_BYTES
