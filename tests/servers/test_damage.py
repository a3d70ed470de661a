"""What a node makes of its own files when they were damaged, or are gone."""

import json
import random
import subprocess
import sys
from typing import Any


def test_a_node_begins_a_damaged_invalidation_log_anew(start_node: Any, origin: Any) -> None:
    """It starts, serves nothing of before without looking again, and takes and reports invalidations as ever."""
    node = start_node()
    targets = [f"/{origin.base}/red.png?w={width}" for width in (10, 11)]
    for target in targets:
        node.get(target)
    assert 201 == node.invalidate({"scope": "urls", "urls": targets[:1]}).status
    assert 0 == node.stop()
    with (node.folder / "var/tenants/test/invalidations.db").open("r+b") as file:
        file.write(random.Random(0).randbytes(8192))
    again = start_node(folder=node.folder)

    assert 1 == again.log.count("invalidation_log_damaged")
    assert "imgserve; hit" != again.get(targets[1]).headers["cache-status"]
    reply = again.invalidate({"scope": "original", "urls": [f"/{origin.base}/red.png"]})
    assert 201 == reply.status
    uuid = json.loads(reply.body)["invalidation"]["uuid"]
    assert "DONE" in again.get(f"/-/invalidations/{uuid}", X_Client_Key="test-key").body.decode()
    assert "periodic_job_failed" not in again.log


def test_a_damaged_log_is_no_failure_of_a_running_node(node: Any, origin: Any) -> None:
    """Neither for the front that meets it first nor for the others, which have it open or not."""
    body = {"scope": "original", "urls": [f"/{origin.base}/red.png"]}
    path = node.folder / "var/tenants/test/invalidations.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database at all" * 1_000)
    replies = [node.invalidate(body) for _ in range(8)]
    uuids = [json.loads(reply.body)["invalidation"]["uuid"] for reply in replies]

    assert {201} == {reply.status for reply in replies}
    assert {200} == {node.get(f"/-/invalidations/{uuid}", X_Client_Key="test-key").status for uuid in uuids * 4}
    assert 1 == node.log.count("invalidation_log_damaged")


def test_a_lost_key_of_the_cache_is_not_replaced_silently(start_node: Any, origin: Any) -> None:
    """With another key no invalidation would find what is cached: one sentence says what to restore or to remove."""
    node = start_node()
    node.get(f"/{origin.base}/red.png?w=10")
    assert 0 == node.stop()
    (node.folder / "keys/hash.key").unlink()
    program = (sys.executable, "-m", "imgserve", "serve", "--config", str(node.folder / "imgserve.toml"))
    refused = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)

    assert 1 == refused.returncode
    assert "restore hash.key, or remove the cached images" in refused.stderr
    assert not (node.folder / "keys/hash.key").exists()

    subprocess.run(["rm", "-r", node.folder / "var/tenants/test/images"], check=True)
    assert 200 == start_node(folder=node.folder).get(f"/{origin.base}/red.png?w=10").status


def test_a_map_of_slots_with_an_impossible_head_is_rebuilt(start_node: Any, origin: Any) -> None:
    """The node starts and serves."""
    node = start_node()
    assert 0 == node.stop()
    with (node.folder / "var/slots.map").open("r+b") as file:
        file.seek(16)
        file.write(b"\xff" * 8)

    assert 200 == start_node(folder=node.folder).get(f"/{origin.base}/red.png?w=10").status
