"""Pseudonyms, retention and the catalogue of personal data."""

import hashlib
import hmac
import sqlite3
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgserve.adapters.accesslog import schema
from imgserve.adapters.cache.index import Index
from imgserve.adapters.invalidation import database
from imgserve.core import privacy
from imgserve.core.addresses import canonical16
from imgserve.disk import sqlite

DAYS = st.dates(date(1990, 1, 1), date(2200, 12, 31))


def test_a_pseudonym_is_hmac_sha_256_cut_to_128_bits() -> None:
    """RFC 4231, test case 1's construction with our input: the same as the standard library's long form."""
    key, address = bytes(range(32)), canonical16(ip_address("203.0.113.9"))

    assert hmac.new(key, address, hashlib.sha256).digest()[:16] == privacy.pseudonym(address, key)


@given(st.binary(max_size=31))
def test_a_short_key_is_refused(key: bytes) -> None:
    """Below 32 bytes there is no pseudonym."""
    with pytest.raises(ValueError, match="32 bytes"):
        privacy.pseudonym(bytes(16), key)


@given(st.binary(max_size=40).filter(lambda address: len(address) != 16))
def test_only_canonical_addresses_are_pseudonymised(address: bytes) -> None:
    """Four bytes would be a second name for the same visitor."""
    with pytest.raises(ValueError, match="16 bytes"):
        privacy.pseudonym(address, bytes(32))


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_pseudonyms_link_only_under_one_key(address: bytes, one: bytes, other: bytes) -> None:
    """Equal under the same key, unequal under another, and never the address itself."""
    assert privacy.pseudonym(address, one) == privacy.pseudonym(address, one)
    assert (one == other) == (privacy.pseudonym(address, one) == privacy.pseudonym(address, other))
    assert address != privacy.pseudonym(address, one)


@given(DAYS, st.integers(0, 86_399))
def test_a_second_belongs_to_one_day(day: date, second: int) -> None:
    """The UTC day of a time, its number and its start agree with the calendar."""
    at_s = privacy.start_of(day) + second

    assert datetime.fromtimestamp(at_s, UTC).date() == privacy.day_of(at_s)
    assert day == privacy.date_of(privacy.day_number(at_s))
    assert at_s - second == privacy.start_of(privacy.day_of(at_s + 0.999))


@given(DAYS, st.integers(-100, 4_000), st.integers(1, 3_650))
def test_a_day_expires_when_its_term_begins(day: date, later: int, retention_days: int) -> None:
    """At ``day + retention_days``, not before, and for good."""
    assert (later >= retention_days) == privacy.is_expired(day, day + timedelta(days=later), retention_days)


@given(DAYS, st.integers(0, 86_399), st.integers(1, 400))
def test_no_row_gets_older_than_its_term(day: date, second: int, retention_days: int) -> None:
    """The first second in which the day is expired comes no later than ``retention_days`` after any of its rows."""
    written_s = privacy.start_of(day) + second
    at_term = privacy.day_of(written_s + retention_days * 86_400)

    assert privacy.is_expired(day, at_term, retention_days)


def columns(path: Path) -> dict[str, set[str]]:
    """Tables and columns of a database file."""
    connection = sqlite3.connect(path)
    try:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: {row[1] for row in connection.execute(f"PRAGMA table_info({table})")} for table in tables}
    finally:
        connection.close()


def uncatalogued(store: str, found: dict[str, set[str]]) -> set[str]:
    """What differs between a store's tables and the catalogue, in either direction."""
    known = {
        f"{table}.{column}"
        for table, inside in privacy.CATALOGUE.items()
        if table.startswith(store + ".")
        for column in inside
    }
    return known ^ {f"{store}.{table}.{column}" for table, inside in found.items() for column in inside}


def test_every_column_is_in_the_catalogue(tmp_path: Path) -> None:
    """Nobody adds a column without saying whether it is about a person; nothing is listed that is not there."""
    schema.open_for_writing(tmp_path / "accesslog").close()
    sqlite.connect(tmp_path / "invalidations", database.MIGRATIONS).close()
    Index(tmp_path / "index").close()

    for store in ("accesslog", "invalidations", "index"):
        assert set() == uncatalogued(store, columns(tmp_path / store))
    assert {"accesslog", "invalidations", "index"} == {table.partition(".")[0] for table in privacy.CATALOGUE}


def test_a_new_column_is_noticed(tmp_path: Path) -> None:
    """The check above does fail when somebody adds one."""
    connection = schema.open_for_writing(tmp_path / "accesslog")
    connection.execute("ALTER TABLE requests ADD COLUMN referer TEXT")
    connection.close()

    assert {"accesslog.requests.referer"} == uncatalogued("accesslog", columns(tmp_path / "accesslog"))


def test_whoever_stands_beside_a_pseudonym_is_personal() -> None:
    """A table with an identifier has no column that says something of the request and is called impersonal."""
    for name, table in privacy.CATALOGUE.items():
        kinds = {column.personal for column in table.values()}
        if privacy.Personal.IDENTIFIER in kinds:
            assert {"key_id"} == {key for key, column in table.items() if column.personal is privacy.Personal.NONE}, (
                name
            )
        else:
            assert {privacy.Personal.NONE} == kinds, name
    assert all(
        column.is_exported
        for table in privacy.CATALOGUE.values()
        for column in table.values()
        if column.personal != "none"
    )
