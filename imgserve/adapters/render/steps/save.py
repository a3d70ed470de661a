"""Choose the format and write the variant; no metadata leaves by any of these doors."""

import os
from typing import Final

import pyvips

from imgserve.adapters.render import bareness, wire
from imgserve.adapters.render.sniff import Format
from imgserve.adapters.render.steps import colour
from imgserve.adapters.render.steps.crop import WHITE
from imgserve.adapters.render.steps.work import Work
from imgserve.core import filters

_AVIF_OUTPUT_PIXELS_MAX: Final = 4_000_000  # beyond it encoding takes seconds
_LARGE_PIXELS: Final = 4_000_000
"""From here effort gives way to time, so that no size that may be asked for runs into the alarm: 8192 x 8192 takes 2 s
as WebP or PNG instead of 17 s and 7 s, for 7 % and 27 % more bytes (measured)."""

_WEBP_SIDE_MAX_PX: Final = 16_383
_LOSSLESS: Final = frozenset({Format.PNG, Format.GIF, Format.SVG})
_SAME: Final = {Format.JPEG: "jpeg", Format.PNG: "png", Format.WEBP: "webp", Format.AVIF: "avif"}
_QUALITY: Final = {"jpeg": 80, "webp": 79, "avif": 60}


def write(work: Work, target_fd: int) -> wire.Done:
    """Encode into the target from offset 0; the original's own bytes where they are the better answer."""
    name = choose(work)
    os.lseek(target_fd, 0, os.SEEK_SET)
    _encode(work, name, target_fd)
    size_bytes = os.lseek(target_fd, 0, os.SEEK_CUR)
    is_original = size_bytes > len(work.data) and _may_send_original(work, name)
    if is_original:
        size_bytes = _copy(work, target_fd)
    return wire.Done(
        content_type=f"image/{name}",
        size_bytes=size_bytes,
        width_px=work.image.width,
        height_px=work.image.height,
        is_original=is_original,
    )


def choose(work: Work) -> str:
    """The first asked format that can hold the image: ``avif``, ``webp``, ``jpeg`` or ``png``."""
    image, kind = work.image, work.header.kind
    # Corners that were cut off a photograph don't make it a PNG: a JPEG shows white there.
    keeps_alpha = image.hasalpha() and work.header.has_alpha
    plain = "png" if keeps_alpha or kind in _LOSSLESS else "jpeg"
    for asked in work.job.formats:
        name = {"plain": plain, "original": _SAME.get(kind, "png")}.get(asked, asked)
        if name == "avif" and image.width * image.height > _AVIF_OUTPUT_PIXELS_MAX:
            continue
        if name == "webp" and max(image.width, image.height) > _WEBP_SIDE_MAX_PX:
            continue
        return name
    return plain


def _encode(work: Work, name: str, target_fd: int) -> None:
    image, plan = work.image, work.job.plan
    quality = plan.quality or _QUALITY.get(name, 0)
    is_large = image.width * image.height > _LARGE_PIXELS
    target = pyvips.Target.new_to_descriptor(target_fd)
    match name:
        case "jpeg":
            colour.flattened(image, WHITE).jpegsave_target(
                target,
                Q=quality,
                interlace=plan.is_progressive,
                optimize_coding=True,
                subsample_mode="auto",
                keep="none",
            )
        case "webp":
            image.webpsave_target(target, Q=quality, effort=2 if is_large else 4, keep="none")
        case "avif":
            image.heifsave_target(target, compression="av1", Q=quality, effort=1, keep="none")
        case _:
            compression, row_filter = (3, "sub") if is_large else (6, "all")
            image.pngsave_target(target, compression=compression, filter=row_filter, keep="none")


def _may_send_original(work: Work, name: str) -> bool:
    """The plan changes no pixel, and the file carries nothing but pixels."""
    plan, layout, header = work.job.plan, work.layout, work.header
    size = (header.width, header.height)
    return (
        _SAME.get(header.kind) == name
        and header.is_plain_rgb
        and (layout.region.width, layout.region.height) == size
        and (layout.scaled_width, layout.scaled_height) == size
        and layout.window is None
        and layout.tilted is None
        and plan.filters == filters.NONE
        and plan.radii_px is None
        and layout.canvas is None
        and not (plan.flip_horizontal or plan.flip_vertical or plan.rotate_ccw_degrees % 360 or plan.gray)
        and (plan.background is None or not work.image.hasalpha())
        and bareness.is_bare(work.data, header.kind)
    )


def _copy(work: Work, target_fd: int) -> int:
    """Put the original's bytes into the target instead of what was encoded."""
    os.lseek(target_fd, 0, os.SEEK_SET)
    os.ftruncate(target_fd, 0)
    body = memoryview(work.data)
    at = 0
    while at < len(body):
        at += os.write(target_fd, body[at : at + 1_000_000])
    return at
