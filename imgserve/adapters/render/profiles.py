"""Reading of ICC profiles, as far as is needed to see that one is sRGB and costs no conversion (ICC.1:2022)."""

import struct
from functools import lru_cache
from typing import Final

_COLOURANTS: Final = {  # sRGB adapted to D50, as every sRGB profile has them
    b"rXYZ": (0.4361, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}
_CURVES: Final = (b"rTRC", b"gTRC", b"bTRC")
_COLOURANT_TOLERANCE: Final = 0.002
_CURVE_TOLERANCE: Final = 0.004
_SAMPLES: Final = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9)


@lru_cache(maxsize=64)
def is_srgb(profile: bytes) -> bool:
    """Whether colours under this profile are those of sRGB, within a rounding of 8 bits."""
    try:
        return _is_srgb(profile)
    except (struct.error, IndexError, ZeroDivisionError, OverflowError):
        return False


def _is_srgb(profile: bytes) -> bool:
    tags = _tags(profile)
    if profile[16:20] != b"RGB " or b"A2B0" in tags:
        return False
    if not {*_COLOURANTS, *_CURVES} <= tags.keys():
        return False
    for name, expected in _COLOURANTS.items():
        values = struct.unpack_from(">3i", tags[name], 8)
        if any(abs(v / 65536 - e) > _COLOURANT_TOLERANCE for v, e in zip(values, expected, strict=True)):
            return False
    curves = {tags[name] for name in _CURVES}
    return all(abs(_curve(c, x) - _srgb_to_linear(x)) <= _CURVE_TOLERANCE for c in curves for x in _SAMPLES)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = (struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(min(count, 100)))
    return {name: profile[at : at + size] for name, at, size in entries}


def _srgb_to_linear(x: float) -> float:
    return x / 12.92 if x <= 0.04045 else float(((x + 0.055) / 1.055) ** 2.4)


def _curve(tag: bytes, x: float) -> float:
    """The tone curve at ``x``: a table, a gamma, or a parametric curve of types 0 to 4."""
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return x
        if count == 1:
            return float(x ** (struct.unpack_from(">H", tag, 12)[0] / 256))
        at = min(int(x * (count - 1)), count - 2)
        low, high = struct.unpack_from(">2H", tag, 12 + 2 * at)
        return float(low + (high - low) * (x * (count - 1) - at)) / 65535
    (kind,) = struct.unpack_from(">H", tag, 8)
    numbers = [v / 65536 for v in struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind]}i", tag, 12)]
    numbers.extend([0.0] * (7 - len(numbers)))
    g, a, b, c, d, e, f = numbers
    match kind:
        case 0:
            return float(x**g)
        case 1 | 2:
            return float((a * x + b) ** g + c if x >= -b / a else c)
        case _:
            return float((a * x + b) ** g + e if x >= d else c * x + f)
