"""After the 201 no process of the node serves the old bytes."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest


def test_the_answer_is_that_of_the_vendor(node: Any, origin: Any) -> None:
    """201, success, RECEIVED, a uuid and a time; its progress says done with counts."""
    node.get(f"/{origin.base}/red.png?w=10")
    reply = node.invalidate({"scope": "original", "urls": [f"/{origin.base}/red.png"]})
    receipt = json.loads(reply.body)

    assert (201, "success", "RECEIVED") == (reply.status, receipt["status"], receipt["invalidation"]["status"])
    uuid = receipt["invalidation"]["uuid"]
    progress = json.loads(node.get(f"/-/invalidations/{uuid}", X_Client_Key="test-key").body)
    assert "done" in json.dumps(progress)
    assert 401 == node.get(f"/-/invalidations/{uuid}", X_Client_Key="wrong").status
    assert 404 == node.get("/-/invalidations/00000000-0000-0000-0000-000000000000", X_Client_Key="test-key").status


@pytest.mark.parametrize(
    "spelling", ["/{base}/red.png", "{base}/red.png", "/v7/{base}/red.png", "127.0.0.1:{port}/red.png"]
)
def test_scope_original_takes_every_variant(node: Any, origin: Any, make_png: Any, spelling: str) -> None:
    """The original and all its variants are fetched and rendered anew, on each front, however it is spelt."""
    targets = [f"/{origin.base}/red.png?w={width}" for width in (10, 11)] + [f"/{origin.base}/red.png?w=10&vh=1"]
    for target in targets * 4:
        node.get(target)
    origin.files["/red.png"] = origin.files["/blue.png"] = make_png(64, 48, (0, 0, 255))
    body = {"scope": "original", "urls": [spelling.format(base=origin.base, port=origin.port)]}
    assert 201 == node.invalidate(body).status

    fresh = node.get(f"/{origin.base}/blue.png?w=10").body
    assert {fresh} == {node.get(targets[0]).body for _ in range(8)}
    assert {fresh} == {node.get(targets[2]).body for _ in range(8)}


def test_scope_urls_takes_that_variant_only(node: Any, origin: Any) -> None:
    """Other variants stay; the named one is made anew from a fresh original."""
    for width in (10, 11):
        node.get(f"/{origin.base}/red.png?w={width}")
    assert 201 == node.invalidate({"scope": "urls", "urls": [f"/{origin.base}/red.png?width=10"]}).status

    assert "imgserve; hit" == node.get(f"/{origin.base}/red.png?w=11").headers["cache-status"]
    assert "imgserve; hit" != node.get(f"/{origin.base}/red.png?w=10").headers["cache-status"]
    assert 2 == origin.fetches["/red.png"]


def test_scope_all_takes_everything_of_the_tenant_alone(start_node: Any, origin: Any) -> None:
    """The other tenant keeps its cache."""
    tenants = "\n".join(
        f'[[tenants]]\nname = "t{n}"\nhosts = ["t{n}.example.com"]\nallowed_origins = ["127.0.0.1:{origin.port}"]\n'
        f'[[tenants.keys]]\nname = "k"\nkey = "key-{n}"\nscopes = ["invalidate:all"]'
        for n in range(2)
    )
    node = start_node(tenants=tenants)
    target = f"/{origin.base}/red.png?w=10"
    for n in (0, 1) * 4:
        node.get(target, Host=f"t{n}.example.com")
    assert 201 == node.invalidate({"scope": "all"}, key="key-0").status

    assert "imgserve; hit" != node.get(target, Host="t0.example.com").headers["cache-status"]
    assert {"imgserve; hit"} == {node.get(target, Host="t1.example.com").headers["cache-status"] for _ in range(6)}
    assert 401 == node.invalidate({"scope": "original", "urls": ["/a.example/x.jpg"]}, key="key-0").status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"scope": "everything"}',
        b'{"scope": "original"}',
        b'{"scope": "urls", "urls": [1]}',
        b"\xff\xfe",
    ],
)
def test_a_body_that_cannot_be_meant_is_400(node: Any, body: bytes) -> None:
    """One sentence that says what to change."""
    reply = node.request("POST", "/invalidate", headers={"X-Client-Key": "test-key"}, body=body)

    assert (400, 1) == (reply.status, len(reply.body.decode().splitlines()))


def test_a_body_over_its_bound_is_413(node: Any) -> None:
    """It is not read to the end."""
    reply = node.request("POST", "/invalidate", headers={"X-Client-Key": "test-key"}, body=b"x" * 300_000)

    assert 413 == reply.status


def test_no_reader_ever_sees_an_old_version_after_the_201(start_node: Any, origin: Any, make_png: Any) -> None:
    """Readers on all fronts against an invalidator: no read that starts after an acknowledgement is older."""
    node = start_node(fronts=3, workers=2)
    target = f"/{origin.base}/v.png?w=16&force_format=png"
    bodies: dict[bytes, int] = {}
    rounds = 25
    for number in range(rounds):
        origin.files[f"/probe{number}.png"] = make_png(64, 48, (number * 10, 0, 255 - number * 10))
        bodies[node.get(f"/{origin.base}/probe{number}.png?w=16&force_format=png").body] = number
    assert rounds == len(bodies)
    acknowledged = 0
    violations: list[tuple[int, int]] = []
    reads = [0]
    stop = threading.Event()
    origin.files["/v.png"] = origin.files["/probe0.png"]

    def read() -> None:
        while not stop.is_set():
            floor = acknowledged
            reply = node.get(target)
            if reply.status == 503:
                continue
            reads[0] += 1
            if bodies[reply.body] < floor:
                violations.append((floor, bodies[reply.body]))

    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read) for _ in range(6)]
        for number in range(1, rounds):
            origin.files["/v.png"] = origin.files[f"/probe{number}.png"]
            assert 201 == node.invalidate({"scope": "original", "urls": [f"/{origin.base}/v.png"]}).status
            acknowledged = number
            enough = reads[0] + 12
            deadline = time.monotonic() + 10
            while reads[0] < enough and time.monotonic() < deadline:
                time.sleep(0.001)
        stop.set()
        for reader in readers:
            reader.result()

    assert [] == violations
    assert reads[0] >= 12 * (rounds - 1)
