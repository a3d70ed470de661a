"""Invalidations: what a request asks for, what a rule names, and what the caller is told.

The body is Cloudimage's: ``{"scope": "original" | "urls" | "all", "urls": [...]}``. Prefixes (``/folder/*``) and
lists of transformations are refused with a sentence: half of an invalidation would be worse than none.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import quote

import msgspec

from imgserve.core.errors import BadRequest
from imgserve.core.originals import ImageId, PlanKey
from imgserve.core.tenants import Tenant, canonical_host

URLS_MAX: Final = 100  # Cloudimage's console takes 10
URL_CHARS_MAX: Final = 4_096

_ABSOLUTE: Final = re.compile(r"https?:/{1,2}([^/?]*)([^?]*)", re.ASCII | re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_AS_IS: Final = "".join(map(chr, range(0x21, 0x7F)))  # what a request target holds as it is
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Scope(StrEnum):
    """What a request wants gone."""

    ORIGINAL = "original"  # the originals and all their variants
    URLS = "urls"  # exactly these variants, made anew from fresh originals; other variants stay
    ALL = "all"  # every image of the tenant


class State(StrEnum):
    """How far a rule has come on this node."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"  # nothing old is served, but files could not be removed: tried again


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A checked body; ``urls`` are still the caller's spelling."""

    scope: Scope
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is named: all of the tenant (no image), an image, or one variant of it."""

    image_id: ImageId | None = None
    plan_key: PlanKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An accepted request, as the log keeps it."""

    tenant: str
    uuid: str
    at_us: int  # Unix time in microseconds
    scope: Scope
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one rule on this node. Files stamped with ``sequence`` or later are not named by it."""

    rule: Rule
    sequence: int
    state: State
    removed_files: int = 0
    removed_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an accepted request has come on this node."""

    uuid: str
    at_us: int
    state: State
    removed_files: int
    removed_bytes: int


class _Body(msgspec.Struct, frozen=True):
    scope: str
    urls: list[str] | None = None


_FIELDS: Final = frozenset(_Body.__struct_fields__)


def parse(body: object) -> Request:
    """Check a decoded JSON body. Raises BadRequest with one sentence that says what to change."""
    if not isinstance(body, dict):
        raise BadRequest('Send a JSON object such as {"scope": "original", "urls": ["/example.com/photo.jpg"]}.')
    _refuse_unknown(body)
    try:
        given = msgspec.convert(body, _Body)
    except msgspec.ValidationError as error:
        raise BadRequest("Give 'scope' as a text, and 'urls' as a list of texts.") from error
    try:
        scope = Scope(given.scope)
    except ValueError as error:
        raise BadRequest("Use 'original', 'urls' or 'all' as the scope.") from error
    urls = tuple(dict.fromkeys(given.urls or ()))
    if scope is Scope.ALL:
        if urls:
            raise BadRequest("Leave 'urls' out with the scope 'all': it names every image.")
        return Request(scope=scope)
    if not 1 <= len(urls) <= URLS_MAX:
        raise BadRequest(f"Give 1 to {URLS_MAX} entries in 'urls'.")
    for position, url in enumerate(urls):
        _check_url(scope, url, position)
    return Request(scope=scope, urls=urls)


def _refuse_unknown(body: Mapping[object, object]) -> None:
    if "transformations" in body:
        raise BadRequest("'transformations' is not offered: name the exact URLs with the scope 'urls'.")
    if not body.keys() <= _FIELDS:
        raise BadRequest("Send only 'scope' and 'urls': no other field is understood.")


def _check_url(scope: Scope, url: str, position: int) -> None:
    place = f"urls[{position}]"
    if not 1 <= len(url) <= URL_CHARS_MAX:
        raise BadRequest(f"{place}: use 1 to {URL_CHARS_MAX} characters.")
    if _CONTROL.search(url):
        raise BadRequest(f"{place}: remove the control characters.")
    if url.endswith("*"):
        raise BadRequest(f"{place}: wildcards are not offered; name each URL, or use the scope 'all'.")
    if scope is Scope.ORIGINAL and not _names_original(url):
        raise BadRequest(f"{place}: leave the query out with the scope 'original', or use the scope 'urls'.")


def _names_original(url: str) -> bool:
    """An original has no query, but for what says how its own URL is written or signed."""
    query = url.partition("#")[0].partition("?")[2]
    return all(not pair or pair.startswith("ci_") for pair in query.split("&"))


def targets(url: str, tenant: Tenant) -> tuple[str, ...]:
    """The request targets that a spelling may mean, the likeliest first; never empty.

    ``photo.jpg`` and ``/photo.jpg`` are one. A whole URL is an original's, unless its host is the tenant's.
    Where the host says nothing and the path begins as a delivery URL's does, both readings are named:
    one image too many is made anew, none is forgotten.
    """
    # As a browser sends it: without the fragment, and nothing raw but ASCII.
    written = quote(url.strip().partition("#")[0], safe=_AS_IS, errors="replace")
    whole = _ABSOLUTE.match(written)
    if whole is None:
        return ("/" + written.removeprefix("/"),)
    as_original = "/" + written
    as_delivered = written[whole.end(1) :] or "/"
    if canonical_host(whole[1]) in {canonical_host(host) for host in tenant.hosts}:
        return (as_delivered,)
    return (as_original, as_delivered) if whole[2].startswith("/v7/") else (as_original,)


def variant_of(name: str) -> str | None:
    """The plan key in the file name of a variant, whatever its accept class; None for other files."""
    return name[2:].partition(".")[0] if name.startswith("v-") else None


def names(rule: Rule, image_id: str, name: str) -> bool:
    """Whether a rule names this file of this image. A rule for one variant names the original too, which that variant
    would else be made from again, and leaves the other variants alone."""
    if rule.image_id is None:
        return True
    if rule.image_id != image_id:
        return False
    return rule.plan_key is None or variant_of(name) in (None, rule.plan_key)


def written_time(at_us: int) -> str:
    """``YYYY-MM-DD HH:MM:SS.ffffff`` in UTC, as Cloudimage writes it."""
    return (_EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%d %H:%M:%S.%f")


def receipt(entry: Entry) -> dict[str, object]:
    """The answer to an accepted request, in Cloudimage's words."""
    return {
        "status": "success",
        "msg": "Your invalidation request has been received",
        "invalidation": {"status": "RECEIVED", "uuid": entry.uuid, "added_at": written_time(entry.at_us)},
    }


def report(progress: Progress, node: str) -> dict[str, object]:
    """What has been done of an invalidation, per target."""
    return {
        "status": "success",
        "invalidation": {
            "status": progress.state.value.upper(),
            "uuid": progress.uuid,
            "added_at": written_time(progress.at_us),
            "targets": [
                {
                    "target": node,
                    "status": progress.state.value,
                    "removed_files": progress.removed_files,
                    "removed_bytes": progress.removed_bytes,
                }
            ],
        },
    }
