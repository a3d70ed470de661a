"""One cold URL costs one fetch and one render on the whole node, whatever happens."""

import os
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any


def ask(node: Any, target: str) -> int:
    """Status of one request; 0 when its connection broke."""
    try:
        status: int = node.get(target).status
    except (OSError, HTTPException):
        return 0
    return status


def test_two_hundred_requests_over_several_fronts_are_one_fetch_and_one_render(start_node: Any, origin: Any) -> None:
    """All 200 get the image; the origin is asked once and a worker is asked once."""
    node = start_node(fronts=3, workers=2)
    origin.delays_s["/red.png"] = 0.5
    with ThreadPoolExecutor(200) as pool:
        statuses = Counter(pool.map(lambda _: ask(node, f"/{origin.base}/red.png?w=40"), range(200)))

    assert {200: 200} == dict(statuses)
    assert 1 == origin.fetches["/red.png"]
    assert 1 == node.metric("imgserve_render_seconds_count")


def test_many_variants_of_one_cold_original_fetch_it_once(start_node: Any, origin: Any) -> None:
    """The original has a flight of its own."""
    node = start_node(fronts=3, workers=2)
    origin.delays_s["/red.png"] = 0.3
    with ThreadPoolExecutor(30) as pool:
        statuses = set(pool.map(lambda n: ask(node, f"/{origin.base}/red.png?w={n}"), range(1, 31)))

    assert {200} == statuses
    assert 1 == origin.fetches["/red.png"]


def test_when_the_leader_is_killed_the_others_still_get_the_image(start_node: Any, origin: Any) -> None:
    """Only requests of the killed front fail; another takes the flight over."""
    node = start_node(fronts=3)
    origin.gate = threading.Event()
    with ThreadPoolExecutor(120) as pool:
        answers = [pool.submit(ask, node, f"/{origin.base}/red.png?w=41") for _ in range(120)]
        assert origin.entered.wait(10)
        leader = next(pid for pid in node.children("front") if has_connection_to(pid, origin.port))
        os.kill(leader, signal.SIGKILL)
        origin.gate.set()
        statuses = Counter(answer.result(30) for answer in answers)

    assert {0, 200} >= set(statuses)
    assert statuses[200] >= 20
    assert origin.fetches["/red.png"] <= 2
    assert 200 == ask(node, f"/{origin.base}/red.png?w=41")


def has_connection_to(pid: int, port: int) -> bool:
    """Whether a process holds a TCP connection to the port, by /proc."""
    inodes = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        link = os.readlink(entry.path)
        if link.startswith("socket:["):
            inodes.add(link[8:-1])
    with open(f"/proc/{pid}/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return any(row[2].endswith(f":{port:04X}") and row[9] in inodes for row in rows)
