"""Pseudonyms, retention, and the catalogue of what is held about persons.

Whoever holds the day's key can find a visitor's rows again, so pseudonyms are personal data
(GDPR Art. 4(5)); so is every column beside one, for as long as the row stands.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from imgserve.core.days import DAY_S

KEY_BYTES: Final = 32
PSEUDONYM_BYTES: Final = 16
_ADDRESS_BYTES: Final = 16

_EPOCH: Final = date(1970, 1, 1)


# ---- pseudonyms ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DayKey:
    """A usable key. ``id`` is what rows carry, so that a key can be replaced within its day."""

    id: int
    secret: bytes = field(repr=False)


def day_key(secret: bytes) -> DayKey:
    """The key of these bytes; its id follows from them and tells nothing about them."""
    return DayKey(id=int.from_bytes(sha256(b"imgserve key id\0" + secret).digest()[:4]), secret=secret)


def pseudonym(address16: bytes, key: bytes) -> bytes:
    """Keyed 16-byte stand-in for an address; equal only under the same key.

    HMAC-SHA-256 (RFC 2104) over ``addresses.canonical16``, cut to 128 bits.
    Raises ValueError if the key is under 32 bytes or the address is not of 16.
    """
    if len(key) < KEY_BYTES:
        raise ValueError(f"a pseudonym needs a key of at least {KEY_BYTES} bytes")
    if len(address16) != _ADDRESS_BYTES:
        raise ValueError("an address is pseudonymised in its canonical 16 bytes")
    return hmac.digest(key, address16, "sha256")[:PSEUDONYM_BYTES]


# ---- retention -----------------------------------------------------------------------------------


def day_number(unix_s: int) -> int:
    """Days between 1970-01-01 and the UTC day of this time."""
    return unix_s // DAY_S


def date_of(day: int) -> date:
    """The date of a day number. Raises OverflowError outside the years 1 to 9999."""
    return _EPOCH + timedelta(days=day)


def day_of(unix_s: float) -> date:
    """The UTC day of a Unix time: every such day has 86,400 seconds (POSIX)."""
    return date_of(int(unix_s // DAY_S))


def start_of(day: date) -> int:
    """The Unix time at which a UTC day begins."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def is_expired(day: date, today: date, retention_days: int) -> bool:
    """Whether what was written on ``day`` must be gone: from the moment ``day + retention_days`` begins."""
    return (today - day).days >= retention_days


# ---- the catalogue -------------------------------------------------------------------------------


class Personal(StrEnum):
    """How a column relates to a natural person."""

    IDENTIFIER = "identifier"  # stands for the person: who holds the key can find the rows again
    LINKED = "linked"  # says something about the person, because an identifier stands beside it
    NONE = "none"  # about no visitor


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What a stored column is. ``is_exported``: a person's export shows it."""

    personal: Personal
    meaning: str
    is_exported: bool = False


def _linked(meaning: str) -> Column:
    return Column(personal=Personal.LINKED, meaning=meaning, is_exported=True)


def _plain(meaning: str) -> Column:
    return Column(personal=Personal.NONE, meaning=meaning)


CATALOGUE: Final[Mapping[str, Mapping[str, Column]]] = MappingProxyType(
    {
        "accesslog.requests": MappingProxyType(
            {
                "at_s": _linked("when the request was answered, to the second"),
                "pseudonym": Column(
                    personal=Personal.IDENTIFIER,
                    meaning="the visitor's address under the key of the tenant and day (HMAC-SHA-256, 128 bits)",
                    is_exported=True,
                ),
                "key_id": _plain("which of the day's keys made the pseudonym"),
                "method": _linked("the request's method"),
                "image_id": _linked("the opaque id of the image"),
                "operations": _linked("what was done to the image, in its normal form"),
                "status": _linked("the answer's status"),
                "sent_bytes": _linked("the size of the answer's body"),
                "outcome": _linked("how the cache answered"),
                "duration_us": _linked("how long the answer took"),
            }
        ),
        "accesslog.state": MappingProxyType(
            {"last_batch": _plain("random number of the last batch, so that none is written twice")}
        ),
        "index.files": MappingProxyType(
            {
                "tenant": _plain("whose file it is"),
                "image": _plain("the opaque id of the image"),
                "name": _plain("the opaque name of the file"),
                "size_bytes": _plain("what it takes on the disk"),
                "created_s": _plain("when its original was fetched"),
                "used_s": _plain("when it was last read for an answer, whoever asked"),
            }
        ),
        "index.total": MappingProxyType(
            {"files": _plain("how many files there are"), "size_bytes": _plain("what they take on the disk")}
        ),
        "invalidations.rules": MappingProxyType(
            {
                "id": _plain("row number"),
                "uuid": _plain("the request that the rule came with"),
                "at_us": _plain("when the request was accepted"),
                "scope": _plain("what the request asked for: original, urls or all"),
                "seq": _plain("the node's sequence number: files stamped before it are named"),
                "image_id": _plain("the opaque id of the named image"),
                "plan_key": _plain("the opaque key of the named variant"),
                "state": _plain("pending, done or failed"),
                "removed_files": _plain("how many files were removed"),
                "removed_bytes": _plain("their size"),
            }
        ),
    }
)
"""Every column of every table that may hold data of a tenant's visitors: ``store.table``, then column.

A column that is missing here fails a test: nobody adds one without saying what it is.
"""
