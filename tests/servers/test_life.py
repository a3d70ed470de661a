"""Processes die and come back; signals drain, reload and stop."""

import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import pytest


@pytest.mark.parametrize("role", ["front", "worker", "keeper"])
def test_a_killed_process_is_replaced_within_a_second(node: Any, origin: Any, role: str) -> None:
    """The replacement serves, and the restart is counted."""
    before = node.children(role)
    os.kill(before[0], signal.SIGKILL)
    deadline = time.monotonic() + 1.0
    while len(set(node.children(role)) - {before[0]}) < len(before) and time.monotonic() < deadline:
        time.sleep(0.01)

    assert len(before) == len(set(node.children(role)) - {before[0]})
    replies = [node.get(f"/{origin.base}/red.png?w={width}") for width in range(1, 12)]
    assert {200} == {reply.status for reply in replies}
    assert 1 == node.metric("imgserve_restarts_total")


def test_sigterm_finishes_what_is_under_way_and_exits_0(node: Any, origin: Any) -> None:
    """The running request gets its image, readiness goes down, the log is complete."""
    origin.gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(node.get, f"/{origin.base}/red.png?w=33")
        assert origin.entered.wait(10)
        node.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        origin.gate.set()
        reply = running.result(20)

    assert 200 == reply.status
    assert 0 == node.process.wait(20)


def test_a_signal_to_all_processes_recycles_no_worker(start_node: Any, origin: Any) -> None:
    """systemd signals the whole control group: the supervisor alone decides who ends when, so what is under way
    still finds the workers of before."""
    node = start_node(workers=2, server="drain_delay_s = 1")
    before = node.children("worker")
    for pid in (*before, *node.children("front"), *node.children("keeper")):
        os.kill(pid, signal.SIGTERM)
    assert 200 == node.get(f"/{origin.base}/red.png?w=34").status
    assert before == node.children("worker")

    for pid in (*before, node.process.pid):
        os.kill(pid, signal.SIGTERM)
    assert 200 == node.get(f"/{origin.base}/red.png?w=35").status
    assert 0 == node.process.wait(20)
    assert "child_recycled" not in node.log
    assert "child_died" not in node.log


def test_readiness_is_false_while_draining(start_node: Any, origin: Any) -> None:
    """A load balancer has drain_delay_s to look away before listening ends."""
    node = start_node(server="drain_delay_s = 2")
    assert 200 == node.get("/-/ready").status
    node.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 1.5
    statuses = set()
    while time.monotonic() < deadline and 503 not in statuses:
        statuses.add(node.get("/-/ready").status)
        time.sleep(0.02)

    assert 503 in statuses
    assert 200 == node.get(f"/{origin.base}/red.png?w=5").status
    assert 0 == node.process.wait(20)


def test_sighup_swaps_tenants_without_dropping_a_request(node: Any, origin: Any) -> None:
    """Requests under way and after are all answered; the new tenant's rules hold."""
    target = f"/{origin.base}/red.png?w=12"
    assert 200 == node.get(target).status
    failures: list[object] = []
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            try:
                reply = node.get(target)
            except OSError as error:
                failures.append(error)
                continue
            if reply.status not in (200, 403):
                failures.append(reply.status)

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    config = node.folder / "imgserve.toml"
    original = config.read_text()
    config.write_text(
        original.replace(f'allowed_origins = ["127.0.0.1:{origin.port}"]', 'allowed_origins = ["other.example"]')
    )
    node.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 5
    while node.get(f"/{origin.base}/new.png?w=13").status != 403 and time.monotonic() < deadline:
        time.sleep(0.02)
    refused = {node.get(f"/{origin.base}/red.png?w=14").status for _ in range(8)}
    config.write_text("this is = not [ toml")
    node.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    still_refused = {node.get(f"/{origin.base}/red.png?w=15").status for _ in range(8)}
    stop.set()
    for thread in threads:
        thread.join()

    assert ([], {403}, {403}) == (failures, refused, still_refused)
    assert node.process.poll() is None


def test_pipelined_and_split_requests_are_answered_in_order(node: Any, origin: Any) -> None:
    """Two requests in one packet, and one request in many packets."""
    head = f"GET /{origin.base}/red.png?w=%d HTTP/1.1\r\nHost: x\r\n\r\n"
    for width in (3, 4):
        node.get(f"/{origin.base}/red.png?w={width}")
    with socket.create_connection(("127.0.0.1", node.port)) as connection, connection.makefile("rb") as answers:
        connection.sendall((head % 3 + head % 4).encode())
        widths = [width_of_next(answers), width_of_next(answers)]
        for byte in (head % 3).encode():
            connection.sendall(bytes([byte]))
        widths.append(width_of_next(answers))

    assert [3, 4, 3] == widths


def width_of_next(answers: BinaryIO) -> int:
    """Read one answer off a connection; the width of its PNG."""
    headers = b""
    while not headers.endswith(b"\r\n\r\n"):
        headers += answers.readline()
    length = int(re.search(rb"(?i)content-length: (\d+)", headers).group(1))  # type: ignore[union-attr]
    return int.from_bytes(answers.read(length)[16:20], "big")
