"""Trailers: what is written is read, and any damage shows."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgserve.adapters.cache import trailer
from imgserve.adapters.cache.trailer import FOOTER_BYTES, STAMP_FROM_END, Torn, Trailer
from imgserve.disk.files import LocalDisk
from imgserve.interfaces import FileMeta

METAS = st.builds(
    FileMeta,
    content_type=st.sampled_from(["image/avif", ""]),
    etag=st.text(max_size=30),
    created_s=st.integers(0, 2**40),
    stamp=st.integers(0, 2**63 - 1),
    body_bytes=st.just(0),
    location=st.text(max_size=1000),
    is_missing=st.booleans(),
)


def whole_file(body: bytes, meta: FileMeta, boot: int = 5) -> tuple[bytes, FileMeta]:
    hasher = trailer.hasher()
    hasher.update(body)
    meta = FileMeta(
        content_type=meta.content_type,
        etag=meta.etag,
        created_s=meta.created_s,
        stamp=meta.stamp,
        body_bytes=len(body),
        location=meta.location,
        is_missing=meta.is_missing,
    )
    return body + trailer.pack(hasher, meta, boot), meta


def read(file: bytes) -> Trailer:
    fd = os.memfd_create("file")
    try:
        os.write(fd, file)
        return trailer.read(LocalDisk(), fd)
    finally:
        os.close(fd)


def holds(file: bytes) -> bool:
    """Whether the file passes all checks, the whole checksum included."""
    try:
        found = read(file)
    except Torn:
        return False
    hasher = trailer.hasher()
    hasher.update(file[: found.meta.body_bytes])
    return trailer.is_whole(found, hasher)


@given(body=st.binary(max_size=300), meta=METAS)
def test_what_is_packed_is_read_again(body: bytes, meta: FileMeta) -> None:
    """Long locations included; the footer lies at a multiple of its size."""
    file, meta = whole_file(body, meta)

    assert meta == read(file).meta
    assert 5 == read(file).boot
    assert 0 == len(file) % FOOTER_BYTES
    assert holds(file)


@given(body=st.binary(min_size=1, max_size=200), meta=METAS, data=st.data())
def test_any_flipped_bit_outside_stamp_and_boot_shows(body: bytes, meta: FileMeta, data: st.DataObject) -> None:
    """In the body by the checksum, elsewhere already at the open; zeros of the padding carry nothing."""
    file, meta = whole_file(body, meta)
    description_end = len(body) + len(read(file).description)
    footer = len(file) - FOOTER_BYTES
    at = data.draw(
        st.integers(0, description_end - 1) | st.integers(footer, footer + 23) | st.integers(footer + 40, len(file) - 1)
    )
    damaged = bytearray(file)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))

    assert not holds(bytes(damaged))


@given(body=st.binary(max_size=200), meta=METAS, data=st.data())
def test_any_cut_or_hole_shows(body: bytes, meta: FileMeta, data: st.DataObject) -> None:
    """A file that a power loss left short, long, or with zeros where its bytes were."""
    file, meta = whole_file(body + b"\1" * 64, meta)

    assert not holds(file[: data.draw(st.integers(0, len(file) - 1))])
    assert not holds(file + bytes(data.draw(st.integers(1, 200))))
    assert not holds(bytes(64) + file[64:])


def test_a_body_of_another_length_shows_at_the_open() -> None:
    """Without reading it."""
    file, _ = whole_file(bytes(500), FileMeta(content_type="", etag="", created_s=0, stamp=0, body_bytes=500))
    for other in (file[10:], bytes(10) + file):
        with pytest.raises(Torn):
            read(other)


def test_a_stamp_is_rewritten_by_eight_bytes() -> None:
    """And the checks still hold."""
    file, _ = whole_file(b"body", FileMeta(content_type="image/png", etag="e", created_s=1, stamp=7, body_bytes=4))
    at = len(file) - STAMP_FROM_END
    restamped = file[:at] + trailer.pack_word(2**40) + file[at + 8 :]

    assert 2**40 == read(restamped).meta.stamp
    assert holds(restamped)
    with pytest.raises(ValueError, match="64-bit"):
        trailer.pack_word(2**64)


def test_a_description_without_bounds_is_refused() -> None:
    """Locations are bounded by the URL, long before."""
    with pytest.raises(ValueError, match="description"):
        whole_file(b"", FileMeta(content_type="", etag="", created_s=0, stamp=0, body_bytes=0, location="x" * 20_000))


def test_a_lying_length_reads_nothing_outside() -> None:
    """Lengths are checked against the file's size before anything is read by them."""
    file, _ = whole_file(b"body", FileMeta(content_type="", etag="", created_s=0, stamp=0, body_bytes=4))
    footer = bytearray(file[-FOOTER_BYTES:])
    footer[8:16] = (2**63).to_bytes(8, "little")
    with pytest.raises(Torn):
        read(file[:-FOOTER_BYTES] + bytes(footer))
