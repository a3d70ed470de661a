"""SipHash-2-4-128, compiled unless IMGSERVE_PURE=1: the keyed hash of image ids and variant keys."""

from typing import TYPE_CHECKING

from imgserve.fast import IS_PURE

if TYPE_CHECKING or IS_PURE:
    from imgserve.fast._hashing_py import KEY_BYTES, Hasher, siphash128
else:
    from imgserve.fast._hashing import KEY_BYTES, Hasher, siphash128

__all__ = ["KEY_BYTES", "Hasher", "siphash128"]
