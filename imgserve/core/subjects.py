"""A data subject's rights: which rows a request is about, and what became of them.

An address may be many people (NAT, a shared line), and says nothing about who asks: the tenant, as the controller,
decides that. We find the rows again by computing the address's pseudonyms under the keys that are still held.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from ipaddress import ip_address
from typing import Final

from imgserve.core import privacy
from imgserve.core.addresses import canonical16
from imgserve.core.errors import BadRequest
from imgserve.core.privacy import DayKey

DAYS_MAX: Final = 366
"""The longest period of one request: what one packet to the keeper holds."""

_ADDRESS_CHARS_MAX: Final = 64
_FIELDS: Final = frozenset({"address", "from", "to", "dry_run"})


Row = Mapping[str, int | str]
"""One row of the subject as an export shows it, by column; bytes in hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for. ``address16`` is personal data and never leaves the process that was asked."""

    address16: bytes = field(repr=False)
    first: date
    last: date
    is_dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Where to look. ``names`` has, for each day with keys, the subject's pseudonym by the key's id."""

    tenant: str
    first: date
    last: date
    names: Mapping[date, Mapping[int, bytes]] = field(repr=False)


class Obstacle(StrEnum):
    """Why a day may still hold what was asked for."""

    KEY_MISSING = "key missing"  # rows whose key is not held can't be told to be the subject's or not
    UNREADABLE = "unreadable"  # the file is damaged, locked, or the disk failed
    BUSY = "busy"  # another process has the file open: older copies of its pages could not be overwritten
    BYTES_LEFT = "bytes left"  # the pseudonym was found in the bytes of the file


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What was found, or deleted, in the rows of one day. Without an obstacle that is everything."""

    day: date
    rows: int
    rows_without_key: int = 0
    obstacles: tuple[Obstacle, ...] = ()


def parse(body: object) -> Request:
    """Read the decoded body of a request. Raises BadRequest, whose text never repeats the address."""
    if not isinstance(body, dict) or not body.keys() <= _FIELDS:
        raise BadRequest('Send {"address": …, "from": "YYYY-MM-DD", "to": "YYYY-MM-DD", "dry_run": true or false}.')
    is_dry_run = body.get("dry_run", False)
    if not isinstance(is_dry_run, bool):
        raise BadRequest('"dry_run" is true or false.')
    return request(body.get("address"), _day(body, "from"), _day(body, "to"), is_dry_run=is_dry_run)


def request(address: object, first: date, last: date, *, is_dry_run: bool) -> Request:
    """A checked request. Raises BadRequest."""
    if not 0 <= (last - first).days < DAYS_MAX:
        raise BadRequest(f"The period begins before it ends, and is of at most {DAYS_MAX} days.")
    return Request(address16=_address16(address), first=first, last=last, is_dry_run=is_dry_run)


def search(tenant: str, asked: Request, keys: Mapping[date, Iterable[DayKey]]) -> Search:
    """Compute the subject's pseudonyms under all keys that are held of the period."""
    names = {
        day: {key.id: privacy.pseudonym(asked.address16, key.secret) for key in held} for day, held in keys.items()
    }
    return Search(tenant=tenant, first=asked.first, last=asked.last, names=names)


def _address16(text: object) -> bytes:
    """The canonical bytes of an address, as those of visitors are made: v4-mapped is IPv4, a zone does not count."""
    if isinstance(text, str) and len(text) <= _ADDRESS_CHARS_MAX:
        try:
            return canonical16(ip_address(text.strip().partition("%")[0]))
        except ValueError:
            pass  # its text repeats what was given
    raise BadRequest("The address is one IPv4 or IPv6 address, without a prefix length.")


def _day(body: Mapping[object, object], name: str) -> date:
    text = body.get(name)
    try:
        if isinstance(text, str) and date.fromisoformat(text).isoformat() == text:
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise BadRequest(f'"{name}" is a day in UTC, such as "2026-11-23".')
