"""How long answers may be kept elsewhere, and whether the caller's copy is still the one.

Whatever is promised to browsers and shared caches ends before the image's own life does:
freshness (RFC 9111) plus the stale windows after it (RFC 5861).
"""

import re
from dataclasses import dataclass
from typing import Final

from imgserve.core.events import Outcome

BROWSER_S: Final = 3_600
SHARED_S: Final = 86_400
REVALIDATE_S: Final = 60  # browsers honour this window too, and they cannot be purged: so it is short
ERROR_S: Final = 3_600

_ENTITY_TAG: Final = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"', re.ASCII)  # RFC 9110 section 8.8.3
_BETWEEN_TAGS: Final = re.compile(r"[ \t]*(?:,[ \t]*)+", re.ASCII)  # RFC 9110 section 5.6.1: empty elements are skipped

_CACHE_STATUS: Final = {
    Outcome.HIT: "imgserve; hit",
    Outcome.REVALIDATED: "imgserve; hit",
    Outcome.MISS: "imgserve; fwd=miss",
    Outcome.COLLAPSED: "imgserve; fwd=miss; collapsed",
    Outcome.BYPASS: "imgserve; fwd=bypass",
    Outcome.ERROR: "imgserve; fwd=miss",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Seconds for which a copy may be used. The stale windows begin when freshness ends, side by side."""

    browser_s: int
    shared_s: int
    revalidate_s: int
    error_s: int

    @property
    def longest_s(self) -> int:
        """The age at which no cache may use the copy any more."""
        return max(self.browser_s, self.shared_s) + max(self.revalidate_s, self.error_s)


_FULL: Final = Windows(browser_s=BROWSER_S, shared_s=SHARED_S, revalidate_s=REVALIDATE_S, error_s=ERROR_S)


def windows(life_left_s: int) -> Windows:
    """The windows of an answer whose image lives ``life_left_s`` more seconds; none outlasts it."""
    life_left_s = max(0, life_left_s)
    shared_s = min(SHARED_S, life_left_s)
    stale_s = life_left_s - shared_s
    return Windows(
        browser_s=min(BROWSER_S, life_left_s),
        shared_s=shared_s,
        revalidate_s=min(REVALIDATE_S, stale_s),
        error_s=min(ERROR_S, stale_s),
    )


def cache_control(life_left_s: int) -> str:
    """The Cache-Control of an image. At the end of its life nobody may keep it."""
    allowed = windows(life_left_s)
    if allowed.shared_s == 0:
        return "no-store"
    directives = ["public", f"max-age={allowed.browser_s}", f"s-maxage={allowed.shared_s}"]
    if allowed.revalidate_s:
        directives.append(f"stale-while-revalidate={allowed.revalidate_s}")
    if allowed.error_s:
        directives.append(f"stale-if-error={allowed.error_s}")
    return ", ".join(directives)


def replayable_s(life_left_s: int) -> int:
    """For how long the same Cache-Control may be sent again word for word before it would promise too much."""
    return max(0, life_left_s - _FULL.longest_s)


def etag_matches(condition: str, etag: str) -> bool:
    """Whether If-None-Match names this entity tag (given without quotes), by weak comparison.

    RFC 9110 section 13.1.2: a list of tags, or ``*`` for any. A malformed list matches nothing.
    """
    condition = condition.strip(" \t")
    if condition == "*":
        return True
    is_named = False
    position = _skip_commas(condition, 0)
    while position < len(condition):
        tag = _ENTITY_TAG.match(condition, position)
        if tag is None:
            return False
        is_named = is_named or tag[1] == etag
        position = tag.end()
        if position < len(condition):
            after = _skip_commas(condition, position)
            if after == position:
                return False
            position = after
    return is_named


def _skip_commas(text: str, position: int) -> int:
    found = _BETWEEN_TAGS.match(text, position)
    return found.end() if found else position


def cache_status(outcome: Outcome, *, is_stored: bool = False, life_left_s: int | None = None) -> str:
    """The Cache-Status member of this cache (RFC 9211)."""
    value = _CACHE_STATUS[outcome]
    if is_stored and outcome is Outcome.MISS:
        value += "; stored"
    if life_left_s is not None:
        value += f"; ttl={life_left_s}"
    return value
