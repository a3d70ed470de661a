"""What a node counts is shown to whoever scrapes it, for the whole node."""

import re
import time
from typing import Any


def scraped(node: Any) -> dict[str, float]:
    """Each metric's sum over its labels."""
    sums: dict[str, float] = {}
    for line in node.admin("/-/metrics").body.decode().splitlines():
        if not line.startswith("#"):
            name, value = line.partition("{")[0].partition(" ")[0], float(line.rsplit(" ", 1)[1])
            sums[name] = sums.get(name, 0.0) + value
    return sums


def test_every_metric_of_the_readme_is_there_and_tells_what_happened(node: Any, origin: Any, project: Any) -> None:
    """After a miss, a hit, a missing original and an invalidation; fronts and keeper publish once a second."""
    target = f"/{origin.base}/red.png?w=30"
    assert [200, 200, 404] == [node.get(one).status for one in (target, target, f"/{origin.base}/none.png?w=30")]
    assert 201 == node.invalidate({"scope": "original", "urls": [f"/{origin.base}/red.png"]}).status
    expected = {
        "imgserve_flights_total": 4,  # an original and a variant of each image, found or not
        "imgserve_origin_fetches_total": 2,
        "imgserve_origin_failures_total": 1,
        "imgserve_origin_fetched_bytes_total": len(origin.files["/red.png"]),
        "imgserve_invalidations_total": 1,
        "imgserve_cache_torn_total": 0,
        "imgserve_jobs_failed_total": 0,
    }
    give_up_s = time.monotonic() + 20
    while True:
        found = scraped(node)
        is_all = all(found.get(name) == value for name, value in expected.items())
        if (is_all and found.get("imgserve_keeper_packets_total")) or time.monotonic() > give_up_s:
            break
        time.sleep(0.1)
    assert expected == {name: found.get(name) for name in expected}
    assert found["imgserve_keeper_packets_total"] >= 1

    named = set(re.findall(r"`(imgserve_[a-z0-9_]+)`", (project / "README.md").read_text()))
    assert {name for name in named if name not in found and f"{name}_count" not in found} == set()
