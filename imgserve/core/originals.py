"""Originals: where an image comes from, in one canonical spelling."""

from dataclasses import dataclass
from typing import NewType

ImageId = NewType("ImageId", str)
"""16 lower-case base32 letters: a keyed hash of tenant and canonical location."""

PlanKey = NewType("PlanKey", str)
"""26 lower-case base32 letters: a keyed hash of a plan and a cache-buster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """An image at an origin.

    ``location`` is canonical and absolute: ``https://host/path?query``, ``http://…`` or
    ``file:///folder/path``; path bytes are percent-encoded in one normal form. ``root`` is the
    prefix of ``location`` that an alias or the origin prefix gave ("" without one): a file never leaves it.
    ``by_alias`` says that the tenant's own configuration named the place, so the allow-list is not asked.
    """

    location: str
    root: str = ""
    by_alias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """An image (an original and all its variants) of a tenant, as every floor names it."""

    tenant: str
    id: ImageId
