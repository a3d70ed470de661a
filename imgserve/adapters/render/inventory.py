"""What this installation reads and writes, and with which libraries: ``python -m imgserve.adapters.render.inventory``.

Run as a process of its own: asking libvips loads it, and who asks is no worker.
"""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from imgserve.core.errors import RenderFailed

_TIMEOUT_S: Final = 30.0
_LIBRARY_BYTES_MAX: Final = 200_000_000


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """A format, and the library that decodes it: its version where it can be known."""

    name: str
    reads: bool
    writes: bool
    decoder: str


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """All formats, the version of libvips, and the package it came in ("" when it is the system's)."""

    libvips: str
    package: str
    formats: tuple[Format, ...]


# Loader, saver, and the decoding library with the text that it leaves its version in, if it does.
_FORMATS: Final[dict[str, tuple[str, str, str, bytes]]] = {
    "JPEG": ("jpegload_source", "jpegsave_target", "mozjpeg", rb"mozjpeg version (\d+\.\d+\.\d+)"),
    "PNG": ("pngload_source", "pngsave_target", "libpng", rb"\0(1\.6\.\d+)\0"),
    "GIF": ("gifload_source", "", "libnsgif", b""),
    "WebP": ("webpload_source", "webpsave_target", "libwebp", b""),
    "AVIF": ("heifload_source", "heifsave_target", "libheif with aom", rb"AV1 Encoder v(\d+\.\d+\.\d+)"),
    "TIFF": ("tiffload_source", "", "libtiff", b""),
    "SVG": ("svgload_source", "", "librsvg", b""),
}


def take() -> Inventory:
    """Ask libvips in a child process. Raises RenderFailed when it cannot be loaded."""
    arguments = [sys.executable, "-m", "imgserve.adapters.render.inventory"]
    try:
        child = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=True)
        return msgspec.json.decode(child.stdout, type=Inventory)
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise RenderFailed(f"libvips cannot be loaded: {reason}") from error
    except (subprocess.TimeoutExpired, msgspec.DecodeError) as error:
        raise RenderFailed("libvips does not answer") from error


def _look() -> Inventory:
    import pyvips

    library = _library()
    formats = tuple(
        Format(
            name=name,
            reads=bool(pyvips.type_find("VipsForeignLoad", loader)),
            writes=bool(saver) and bool(pyvips.type_find("VipsForeignSave", saver)),
            decoder=_decoder(decoder, pattern, library),
        )
        for name, (loader, saver, decoder, pattern) in _FORMATS.items()
    )
    return Inventory(
        libvips=".".join(str(pyvips.version(part)) for part in range(3)), package=_package(), formats=formats
    )


def _decoder(name: str, pattern: bytes, library: bytes) -> str:
    """The library's name, and its version if it says one."""
    match = re.search(pattern, library) if pattern else None
    return f"{name} {match[1].decode()}" if match else name


def _package() -> str:
    try:
        return f"pyvips-binary {metadata.version('pyvips-binary')}"
    except metadata.PackageNotFoundError:
        return ""


def _library() -> bytes:
    """The bytes of the libvips that this process has loaded: the decoders are linked into it."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        path = Path(line.partition("/")[1] + line.partition("/")[2])
        if path.name.startswith("libvips") and path.is_file() and path.stat().st_size <= _LIBRARY_BYTES_MAX:
            return path.read_bytes()
    return b""


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_look()))
