"""Names under which images and their files are found: keyed hashes, so that a name tells nothing.

The hash is the caller's: a keyed 128-bit one, the same on every node of a region.
"""

from base64 import b32encode
from collections.abc import Callable
from typing import Final

from imgserve.core.originals import ImageId, PlanKey
from imgserve.core.plan import Plan, encode

Hasher = Callable[[bytes], bytes]
"""A keyed hash of 16 bytes."""

Busters = tuple[tuple[str, str], ...]
"""Cache-busters of a URL as sorted pairs of name and value."""

ACCEPT_CLASSES: Final = frozenset({"avif", "webp", "plain", "jpeg", "png", "any", "avifonly"})
"""What a variant may have been negotiated for; see core.negotiation."""


def image_id(hasher: Hasher, tenant_name: str, location: str) -> ImageId:
    """The 80-bit name of a tenant's image, from its canonical location."""
    return ImageId(_letters(hasher(_packed("image", tenant_name, location))[:10]))


def plan_key(hasher: Hasher, plan: Plan, busters: Busters = ()) -> PlanKey:
    """The 128-bit name of a canonical plan, together with the sorted cache-busters."""
    return PlanKey(_letters(hasher(_packed("plan", encode(plan), *_flat(busters)))))


def original_name(hasher: Hasher, busters: Busters = ()) -> str:
    """File name of an original within its image's folder."""
    if not busters:
        return "o-main"
    return "o-" + _letters(hasher(_packed("original", *_flat(busters)))[:10])


def variant_name(key: PlanKey, accept_class: str) -> str:
    """File name of a variant within its image's folder. ``accept_class`` is one of ACCEPT_CLASSES."""
    assert accept_class in ACCEPT_CLASSES, accept_class
    return f"v-{key}.{accept_class}"


def _flat(busters: Busters) -> list[str]:
    return [text for pair in busters for text in pair]


def _packed(*parts: str | bytes) -> bytes:
    """Parts with their lengths in front, so that no two lists of parts give the same bytes."""
    encoded = [part if isinstance(part, bytes) else part.encode() for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def _letters(digest: bytes) -> str:
    return b32encode(digest).decode("ascii").rstrip("=").lower()
