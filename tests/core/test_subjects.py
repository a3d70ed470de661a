"""What a subject's request may be, and that nothing repeats its address."""

from datetime import date
from typing import Any

import pytest

from imgserve.core import privacy, subjects
from imgserve.core.errors import BadRequest

BODY = {"address": "203.0.113.9", "from": "2026-11-01", "to": "2026-11-23"}
DAY = date(2026, 11, 23)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("203.0.113.9", "::ffff:203.0.113.9"),
        ("203.0.113.9", " ::ffff:cb00:7109\n"),
        ("2001:db8::1", "2001:0db8:0000:0000:0000:0000:0000:0001"),
        ("fe80::1", "fe80::1%eth0"),
    ],
)
def test_spellings_of_an_address_are_one(one: str, other: str) -> None:
    """The canonical bytes are those that visitors' pseudonyms are made from."""
    assert subjects.parse(BODY | {"address": one}) == subjects.parse(BODY | {"address": other})


def test_a_body_is_read() -> None:
    """Period and dry run; the address is not in the repr."""
    asked = subjects.parse(BODY | {"dry_run": True})

    assert (date(2026, 11, 1), DAY, True) == (asked.first, asked.last, asked.is_dry_run)
    assert b"\xcb\x00\x71\x09" == asked.address16[-4:]
    assert "address" not in repr(asked)
    assert not subjects.parse(BODY).is_dry_run


@pytest.mark.parametrize(
    "change",
    [
        {"address": "198.51.100.777"},
        {"address": "198.51.100.0/24"},
        {"address": 3405803785},
        {"address": None},
        {"address": "198.51.100.7" + " " * 60},
        {"from": "2026-11-24"},
        {"from": "2025-11-22"},
        {"from": "2026-W47-1"},
        {"from": "20261101"},
        {"from": "2026-02-30"},
        {"from": None},
        {"to": 20261123},
        {"dry_run": "yes"},
        {"dry_run": 1},
        {"ip": "198.51.100.7"},
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, Any]) -> None:
    """One sentence, in which nothing of the address stands, nor in what caused it."""
    with pytest.raises(BadRequest) as refused:
        subjects.parse(BODY | change)
    assert "198.51.100" not in f"{refused.value} {refused.value.__cause__}"


@pytest.mark.parametrize("body", [None, [], "203.0.113.9", 1])
def test_a_body_is_an_object(body: object) -> None:
    with pytest.raises(BadRequest):
        subjects.parse(body)


def test_the_longest_period() -> None:
    """366 days are one request, 367 are not."""
    subjects.request("::1", date(2025, 11, 23), DAY, is_dry_run=False)
    with pytest.raises(BadRequest, match="366"):
        subjects.request("::1", date(2025, 11, 22), DAY, is_dry_run=False)


def test_a_search_has_one_name_for_each_key() -> None:
    """Of every key of each day, and never the address itself."""
    keys = {DAY: (privacy.day_key(b"a" * 32), privacy.day_key(b"b" * 32)), date(2026, 11, 22): ()}
    asked = subjects.parse(BODY)
    search = subjects.search("demo", asked, keys)

    expected = {key.id: privacy.pseudonym(asked.address16, key.secret) for key in keys[DAY]}
    assert {DAY: expected, date(2026, 11, 22): {}} == search.names
    assert 2 == len(set(expected.values()))
    assert "names" not in repr(search)
