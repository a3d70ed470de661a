"""Recognises a packet that holds one plain request; compiled unless IMGSERVE_PURE=1."""

from typing import TYPE_CHECKING

from imgserve.fast import IS_PURE

if TYPE_CHECKING or IS_PURE:
    from imgserve.fast._head_py import MAX_BYTES, MAX_HEADERS, Head, scan
else:
    from imgserve.fast._head import MAX_BYTES, MAX_HEADERS, Head, scan

__all__ = ["MAX_BYTES", "MAX_HEADERS", "Head", "scan"]
