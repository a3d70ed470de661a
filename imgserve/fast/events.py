"""The ring of hit events between the fast path and the access log; compiled unless IMGSERVE_PURE=1."""

from typing import TYPE_CHECKING

from imgserve.fast import IS_PURE

if TYPE_CHECKING or IS_PURE:
    from imgserve.fast._events_py import EventRing, HitEvent
else:
    from imgserve.fast._events import EventRing, HitEvent

__all__ = ["EventRing", "HitEvent"]
