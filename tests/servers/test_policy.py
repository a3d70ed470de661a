"""Regions, overload, the cache's bounds, a full stop of the origin, and a proxy in front."""

import os
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest


def test_a_foreign_region_is_421_before_anything_is_touched(start_node: Any, origin: Any) -> None:
    """No fetch, no file, no folder, no row, no key of that tenant."""
    tenants = f"""
[[tenants]]
name = "abroad"
default = true
regions = ["sg"]
allowed_origins = ["127.0.0.1:{origin.port}"]
"""
    node = start_node(tenants=tenants, server='region = "fr"')
    reply = node.get(f"/{origin.base}/red.png?w=10")
    assert 0 == node.stop()

    assert (421, 0) == (reply.status, sum(origin.fetches.values()))
    assert [] == [path for path in node.folder.rglob("*") if "abroad" in str(path.relative_to(node.folder))]


def test_overload_is_503_with_retry_after_and_hits_go_on(start_node: Any, origin: Any) -> None:
    """More cold images than the queue holds: some are refused at once, none hangs, cached ones are served."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + os.urandom(3 * 1500)) * 1500
    header = struct.pack(">IIBBBBB", 1500, 1500, 8, 2, 0, 0, 0)
    origin.files["/big.png"] = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    )
    node = start_node(fronts=1, workers=1)
    hot = f"/{origin.base}/red.png?w=10"
    assert 200 == node.get(hot).status
    assert 200 == node.get(f"/{origin.base}/big.png?w=20").status
    with ThreadPoolExecutor(150) as pool:
        cold = [
            pool.submit(node.get, f"/{origin.base}/big.png?w={width}&force_format=webp") for width in range(700, 850)
        ]
        hits = [node.get(hot).status for _ in range(50)]
        replies = [answer.result(40) for answer in cold]

    statuses = {reply.status for reply in replies}
    assert {200} == set(hits)
    assert {200, 503} >= statuses
    assert {"1"} >= {reply.headers["retry-after"] for reply in replies if reply.status == 503}
    assert 503 in statuses


def test_a_slow_origin_takes_no_worker(start_node: Any, origin: Any) -> None:
    """While many fetches hang, another cold image is fetched and rendered."""
    node = start_node(fronts=1, workers=1)
    for number in range(10):
        origin.files[f"/slow{number}.png"] = origin.files["/red.png"]
        origin.delays_s[f"/slow{number}.png"] = 3
    with ThreadPoolExecutor(10) as pool:
        slow = [pool.submit(node.get, f"/{origin.base}/slow{number}.png") for number in range(10)]
        origin.entered.wait(5)
        started = time.monotonic()
        status = node.get(f"/{origin.base}/red.png?w=7").status
        took_s = time.monotonic() - started
        assert {200} == {answer.result(20).status for answer in slow}

    assert 200 == status
    assert took_s < 2.5


def test_an_origin_404_is_remembered_and_a_5xx_never(node: Any, origin: Any) -> None:
    """One fetch for many requests of a missing image; each request of a failing one asks again."""
    origin.statuses["/fails.png"] = 503
    missing = {node.get(f"/{origin.base}/missing.png?w={width}").status for width in range(1, 9)}
    failing = {node.get(f"/{origin.base}/fails.png").status for _ in range(3)}

    assert ({404}, {502}) == (missing, failing)
    assert (1, 3) == (origin.fetches["/missing.png"], origin.fetches["/fails.png"])


def test_the_cache_stays_within_its_size(start_node: Any, origin: Any) -> None:
    """Least recently used variants go; the one in use stays."""
    import random

    noise = random.Random(1).randbytes
    node = start_node(cache='size = "10MB"')
    for number in range(40):
        origin.files[f"/n{number}.svg"] = (
            b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><desc>'
            + noise(200_000).hex().encode()
            + b"</desc></svg>"
        )
    keep = f"/{origin.base}/red.png?w=10"
    node.get(keep)
    for number in range(40):
        assert 200 == node.get(f"/{origin.base}/n{number}.svg").status
        node.get(keep)

    def size() -> int:
        total = 0
        for path in node.folder.glob("var/tenants/*/images/*/*/*"):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue
        return total

    deadline = time.monotonic() + 15
    while size() > 10_000_000 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert size() <= 10_000_000
    assert "imgserve; hit" == node.get(keep).headers["cache-status"]
    assert 1 == origin.fetches["/red.png"]


def test_nothing_half_written_survives_a_kill(start_node: Any, origin: Any) -> None:
    """The whole node is killed -9 under load again and again; the next one serves whole images only."""
    node = start_node()
    for number in range(3):
        stop = threading.Event()

        def load(node: Any = node, stop: threading.Event = stop, number: int = number) -> None:
            width = 0
            while not stop.is_set():
                width += 1
                try:
                    node.get(f"/{origin.base}/red.png?w={width}&vh={number}")
                except OSError:
                    return

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.4)
        pids = [node.process.pid, *node.children("front"), *node.children("worker"), *node.children("keeper")]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        node.process.wait()
        stop.set()
        for thread in threads:
            thread.join()
        node = start_node(folder=node.folder)
        assert [] == list(node.folder.glob("var/tenants/*/images/*/*/.*"))
        for width in range(1, 10):
            assert 200 == node.get(f"/{origin.base}/red.png?w={width}&vh={number}").status


def test_behind_a_real_nginx_that_merges_slashes(node: Any, origin: Any, tmp_path: Path) -> None:
    """nginx with its defaults in front: the image arrives, and the visitor is nginx's peer."""
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(nginx).exists():
        if os.environ.get("REQUIRE_SERVERS") == "1":
            pytest.fail("nginx is required and not installed")
        pytest.skip("nginx is not installed")
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "nginx.conf").write_text(f"""
daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {tmp_path}; proxy_temp_path {tmp_path}; fastcgi_temp_path {tmp_path};
  uwsgi_temp_path {tmp_path}; scgi_temp_path {tmp_path};
  server {{ listen 127.0.0.1:{port}; location / {{
    proxy_pass http://127.0.0.1:{node.port}/; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}
}}""")
    proxy = subprocess.Popen(
        [nginx, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)], stderr=subprocess.DEVNULL
    )
    try:
        front = type(node)(node.folder, node.process, port, node.admin_port)
        deadline = time.monotonic() + 10
        reply = None
        while reply is None:
            try:
                reply = front.get(f"/v7/{origin.base}/red.png?w=21")
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert (200, "image/png") == (reply.status, reply.headers["content-type"])
        assert "imgserve; hit" == node.get(f"/v7/{origin.base}/red.png?w=21").headers["cache-status"]
    finally:
        proxy.terminate()
        proxy.wait(10)


def test_one_image_cannot_fill_the_disk(start_node: Any, origin: Any) -> None:
    """Beyond 200 files of an image, widths and cache-busters are served all the same, and not stored."""
    node = start_node(fronts=1, workers=2)
    folder = "var/tenants/*/images/*/*/*"
    with ThreadPoolExecutor(8) as pool:
        widths = [f"/{origin.base}/red.png?w={width}" for width in range(1, 215)]
        busted = [f"/{origin.base}/red.png?w=8&vh={number}" for number in range(40)]
        statuses = {reply.status for reply in pool.map(node.get, widths + busted)}

    assert {200} == statuses
    assert 195 <= len(list(node.folder.glob(folder))) <= 200 + 8  # as many as were under way at the same moment
