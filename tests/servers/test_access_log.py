"""Every request becomes one row; no raw address is written anywhere."""

import base64
import hmac
import ipaddress
import sqlite3
from contextlib import closing
from typing import Any

import pytest


def rows_of(node: Any, columns: str = "*") -> list[tuple[Any, ...]]:
    """All rows of all day files of a stopped node's tenants."""
    rows: list[tuple[Any, ...]] = []
    for file in sorted(node.folder.glob("var/tenants/*/accesslog/*.db")):
        with closing(sqlite3.connect(file)) as database:
            rows += database.execute(f"SELECT {columns} FROM requests ORDER BY rowid").fetchall()
    return rows


def pseudonym_of(address: str, key: bytes) -> bytes:
    """HMAC-SHA-256 over the canonical 16 bytes, cut to 128 bits."""
    parsed = ipaddress.ip_address(address)
    packed = parsed.packed if parsed.version == 6 else ipaddress.ip_address(f"::ffff:{parsed}").packed
    return hmac.digest(key, packed, "sha256")[:16]


def traces_of(node: Any, address: str) -> list[str]:
    """Where a stopped node wrote an address, in any spelling."""
    parsed = ipaddress.ip_address(address)
    spellings = {
        address.encode(),
        parsed.exploded.encode(),
        parsed.packed,
        parsed.packed.hex().encode(),
        base64.b64encode(parsed.packed).rstrip(b"="),
        str(int(parsed)).encode(),
    }
    return [str(path) for path in node.files() for spelling in spellings if spelling in path.read_bytes()]


def test_every_request_is_one_row(node: Any, origin: Any) -> None:
    """Hits by the fast path, misses, conditions, HEAD, failures and invalidations: one row each, no more."""
    target = f"/{origin.base}/red.png?w=10"
    tag = node.get(target).headers["etag"]
    for _ in range(20):
        node.get(target)
    node.get(target, If_None_Match=tag)
    node.request("HEAD", target)
    node.get(f"/{origin.base}/missing.png")
    node.get("/nodot/x")
    node.invalidate({"scope": "all"})
    assert 0 == node.stop()

    rows = rows_of(node, "method, status, outcome, operations, image_id, sent_bytes, duration_us")
    assert 26 == len(rows)
    statuses = sorted(row[1] for row in rows)
    assert [200] * 22 + [201, 304, 400, 404] == statuses
    hits = [row for row in rows if row[2] == "hit" and row[0] == "GET"]
    assert 20 == len(hits)
    assert {("w=10", 16)} == {(row[3], len(row[4])) for row in hits}
    assert all(row[5] > 0 for row in hits)
    assert all(row[6] >= 0 for row in rows)


@pytest.mark.parametrize(
    ("header", "value", "visitor"),
    [
        ("X-Forwarded-For", "203.0.113.77", "203.0.113.77"),
        ("X-Forwarded-For", "198.51.100.1, 203.0.113.77", "203.0.113.77"),
        ("X-Forwarded-For", "203.0.113.77, 127.0.0.1", "203.0.113.77"),
        ("X-Forwarded-For", "2001:db8::77", "2001:db8::77"),
        ("X-Real-IP", "203.0.113.78", "127.0.0.1"),
        ("Forwarded", "for=203.0.113.79", "127.0.0.1"),
        ("CF-Connecting-IP", "203.0.113.80", "127.0.0.1"),
    ],
)
def test_the_visitor_is_found_as_configured_and_cannot_be_spoofed(
    start_node: Any, origin: Any, header: str, value: str, visitor: str
) -> None:
    """Its pseudonym equals the one computed from the day key and the true visitor, and from no other entry."""
    node = start_node()
    for _ in range(3):
        node.get(f"/{origin.base}/red.png?w=10", **{header.replace("-", "_"): value})
    assert 0 == node.stop()

    key = min(node.folder.glob("keys/test/*.key")).read_bytes()  # before midnight tomorrow's is there too
    assert [(pseudonym_of(visitor, key),)] * 3 == rows_of(node, "pseudonym")
    for part in value.removeprefix("for=").split(", "):
        if part != "127.0.0.1":
            assert [] == traces_of(node, part)


def test_errors_and_refusals_leave_no_address(node: Any, origin: Any) -> None:
    """Whatever the path, the visitor's address is in no file, no log line, no metric."""
    visitor = "203.0.113.99"
    for target in (
        f"/{origin.base}/red.png",
        f"/{origin.base}/none.png",
        "/nodot/a",
        "/-/nothing",
        "/http://10.0.0.1/a.jpg",
        "/%zz",
    ):
        node.get(target, X_Forwarded_For=visitor)
        node.request("HEAD", target, headers={"X-Forwarded-For": visitor})
    node.request("POST", "/invalidate", headers={"X-Client-Key": "bad", "X-Forwarded-For": visitor}, body=b"{}")
    metrics = node.admin("/-/metrics").body
    assert 0 == node.stop()

    assert visitor.encode() not in metrics
    assert [] == traces_of(node, visitor)


def test_the_keeper_killed_loses_at_most_a_batch(node: Any, origin: Any) -> None:
    """Rows go on being written by the replacement."""
    import os
    import signal

    target = f"/{origin.base}/red.png?w=10"
    for number in range(300):
        node.get(target)
        if number == 150:
            os.kill(node.children("keeper")[0], signal.SIGKILL)
    assert 0 == node.stop()

    assert 200 <= len(rows_of(node)) <= 300


def test_a_client_that_leaves_at_once_cannot_choose_its_visitor(start_node: Any, origin: Any) -> None:
    """Its connection is gone before its answer ends; an untrusted peer's header is not believed for that."""
    import socket

    strict = start_node(trusted='["192.0.2.1"]')
    origin.delays_s["/red.png"] = 0.5
    head = f"GET /{origin.base}/red.png?w=3 HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.66\r\n\r\n"
    with socket.create_connection(("127.0.0.1", strict.port)) as connection:
        connection.sendall(head.encode())
        assert origin.entered.wait(5)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    origin.delays_s.clear()
    strict.get(f"/{origin.base}/red.png?w=3", X_Forwarded_For="203.0.113.66")
    assert 0 == strict.stop()

    key = min(strict.folder.glob("keys/test/*.key")).read_bytes()
    spoofed = pseudonym_of("203.0.113.66", key)
    assert spoofed not in {row[0] for row in rows_of(strict, "pseudonym")}
    assert rows_of(strict)
