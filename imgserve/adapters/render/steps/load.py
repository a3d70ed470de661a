"""Open the original: loaders by name from an allow-list, limits from the header, shrink while decoding."""

from typing import Final

import pyvips

from imgserve.adapters.render import profiles, wholeness, wire
from imgserve.adapters.render.sniff import Buffer, Format, sniff
from imgserve.adapters.render.steps import orient
from imgserve.adapters.render.steps.work import Header, Work
from imgserve.core.errors import OverLimit, Undecodable

_LOADERS: Final = {
    Format.JPEG: ("VipsForeignLoadJpeg", "jpegload_source"),
    Format.PNG: ("VipsForeignLoadPng", "pngload_source"),
    Format.GIF: ("VipsForeignLoadNsgif", "gifload_source"),
    Format.WEBP: ("VipsForeignLoadWebp", "webpload_source"),
    Format.AVIF: ("VipsForeignLoadHeif", "heifload_source"),
    Format.TIFF: ("VipsForeignLoadTiff", "tiffload_source"),
    Format.SVG: ("VipsForeignLoadSvg", "svgload_source"),
}
_SVG_SIDE_MAX_PX: Final = 32_000  # cairo's surfaces end at 32,767
_AVIF_PIXELS_MAX: Final = 25_000_000  # 50 megapixels take 0.8 to 1.4 GB
_FRAMES_MAX: Final = 2_000
_BANDS_MAX: Final = 5  # CMYK and alpha
_BYTES_PER_PIXEL_MAX: Final = 8  # RGBA of 16 bits, at the largest number of pixels
_ASPECT_MAX: Final = 4_096  # long side to short side
_SAMPLE_BYTES: Final = {"uchar": 1, "char": 1, "ushort": 2, "short": 2, "uint": 4, "int": 4, "float": 4, "double": 8}


def allow_loaders() -> None:
    """Block every loader of libvips but the named ones; to be called once, before the first original."""
    pyvips.operation_block_set("VipsForeignLoad", True)
    for family, _ in _LOADERS.values():
        pyvips.operation_block_set(family, False)


def opened(data: Buffer, limits: wire.Limits, *, allows_svg: bool) -> tuple[Header, pyvips.Image]:
    """Read and judge the header, and the image at its full size; no pixel is decoded.

    Raises Undecodable for what is no image, is cut or is of an unknown kind, OverLimit for a limit.
    """
    kind = sniff(data)
    if kind is None:
        raise Undecodable("unknown magic bytes", public="The original is not of a format that this server reads.")
    if kind is Format.SVG and not allows_svg:
        raise Undecodable("SVG needs Landlock", public="This server does not read SVG.")
    try:
        wholeness.check(data, kind)
    except wholeness.Cut as error:
        raise Undecodable(str(error), public="The original is cut short.") from error
    image = _open(data, kind)
    _check_limits(image, kind, limits)
    profile = image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else b""
    header = Header(
        kind=kind,
        width=image.width,
        height=image.height,
        orientation=_orientation(image, kind),
        has_alpha=image.hasalpha(),
        is_plain_rgb=image.format == "uchar"
        and image.interpretation in ("srgb", "b-w")
        and (not profile or profiles.is_srgb(profile)),
    )
    return header, image


def _orientation(image: pyvips.Image, kind: Format) -> int:
    """EXIF orientation; an AVIF is turned by its own boxes, which its decoder has applied."""
    if kind is Format.AVIF or not image.get_typeof("orientation"):
        return 1
    value = image.get("orientation")
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _check_limits(image: pyvips.Image, kind: Format, limits: wire.Limits) -> None:
    width, height = image.width, image.height
    pixels = width * height
    frames = image.get("n-pages") if image.get_typeof("n-pages") else 1
    bytes_max = limits.max_original_pixels * _BYTES_PER_PIXEL_MAX
    if max(width, height) > limits.max_side_px:
        problem = f"{width} x {height} pixels; a side may have {limits.max_side_px} (render.max_side_px)."
    elif pixels > limits.max_original_pixels:
        problem = f"{pixels} pixels; {limits.max_original_pixels} are allowed (render.max_original_pixels)."
    elif kind is Format.AVIF and pixels > _AVIF_PIXELS_MAX:
        problem = f"{pixels} pixels; an AVIF may have {_AVIF_PIXELS_MAX}."
    elif max(width, height) > _ASPECT_MAX * min(width, height):
        problem = f"{width} x {height} pixels; a side may be {_ASPECT_MAX} times as long as the other."
    elif image.bands > _BANDS_MAX:
        problem = f"{image.bands} bands; {_BANDS_MAX} are allowed."
    elif pixels * image.bands * _SAMPLE_BYTES.get(image.format, 16) > bytes_max:
        problem = f"more than {bytes_max} bytes of pixels."
    elif isinstance(frames, int) and frames > _FRAMES_MAX:
        problem = f"{frames} frames; {_FRAMES_MAX} are allowed."
    else:
        return
    raise OverLimit(f"the original has {problem}", public=f"The original has {problem}")


def pixels(work: Work) -> pyvips.Image:
    """The image, shrunk while decoding as far as quality allows: at least twice the target's size remains."""
    region = orient.raw_region(work)
    width, height = work.raw_scaled_size
    if work.header.kind is Format.SVG:
        # Vectors are drawn at the target's size at once, enlarged or not.
        return _drawn(work.data, work.header, max(width / region.width, height / region.height))
    ratio = min(region.width / width, region.height / height)  # above 1 shrinks
    return _shrunk(work.data, work.header.kind, ratio) or work.image


def preview(data: Buffer, header: Header, ratio: float) -> pyvips.Image:
    """The whole original, opened anew and shrunk by at most this ratio, to be looked at."""
    if header.kind is Format.SVG:
        return _drawn(data, header, 1 / ratio)
    return _shrunk(data, header.kind, ratio) or original(data, header.kind)


def original(data: Buffer, kind: Format) -> pyvips.Image:
    """The original at its full size, opened anew."""
    return _open(data, kind)


def _shrunk(data: Buffer, kind: Format, ratio: float) -> pyvips.Image | None:
    """The original shrunk while decoding, at least twice the size that the ratio asks for; None where that can't be."""
    if kind is Format.JPEG and ratio >= 4:
        return _open(data, kind, shrink=max(n for n in (2, 4, 8) if n * 2 <= ratio))
    if kind is Format.WEBP and ratio > 2:
        return _open(data, kind, scale=2 / ratio)
    return None


def _drawn(data: Buffer, header: Header, scale: float) -> pyvips.Image:
    largest = _SVG_SIDE_MAX_PX / max(header.width, header.height)
    return _open(data, Format.SVG, scale=min(scale, largest))


def _open(data: Buffer, kind: Format, **options: object) -> pyvips.Image:
    """``fail_on`` is honoured only by loaders that are called by name."""
    source = pyvips.Source.new_from_memory(data)
    loader = getattr(pyvips.Image, _LOADERS[kind][1])
    image: pyvips.Image = loader(source, access="sequential", fail_on="warning", **options)
    return image
