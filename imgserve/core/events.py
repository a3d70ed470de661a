"""What happened, as records. Fields that are personal data say so."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address


class Outcome(StrEnum):
    """How the cache answered; the words of RFC 9211 where it has them."""

    HIT = "hit"
    MISS = "miss"
    REVALIDATED = "revalidated"  # 304 to a conditional request
    COLLAPSED = "collapsed"  # waited for another request's flight
    BYPASS = "bypass"  # no cache was asked: pages, invalidations, refused requests
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessEvent:
    """One request, as the front knows it. ``visitor`` is personal data and never leaves the front's memory."""

    at_s: int
    tenant: str
    visitor: IPv4Address | IPv6Address
    method: str
    image_id: str
    operations: str
    status: int
    sent_bytes: int
    outcome: Outcome
    duration_us: int


LogEntry = tuple[int, str, bytes, str, str, str, int, int, str, int]
"""An event in the access log's ring: at_s, tenant, visitor (canonical 16 bytes, personal data), method, image_id,
operations, status, sent_bytes, outcome, duration_us."""
