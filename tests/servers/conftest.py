"""A real node in its own process group, and a real origin that counts, delays and fails on demand."""

import contextlib
import http.client
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

READY_TIMEOUT_S = 40.0


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    """Poll until the condition holds; fail naming what was awaited."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s} s in vain for {what}")
        time.sleep(0.02)


def png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """A PNG of one colour, made without any image library."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(colour) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture
def make_png() -> Callable[[int, int, tuple[int, int, int]], bytes]:
    """The maker of one-coloured PNGs."""
    return png


@dataclass
class Origin:
    """An HTTP origin under the test's control."""

    port: int
    files: dict[str, bytes] = field(default_factory=dict)
    delays_s: dict[str, float] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    fetches: Counter[str] = field(default_factory=Counter)
    seen_headers: list[dict[str, str]] = field(default_factory=list)
    entered: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event | None = None

    @property
    def base(self) -> str:
        """The origin's URL without a final slash."""
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def origin() -> Iterator[Origin]:
    """A running origin with one 64x48 red PNG at /red.png."""
    state: Origin

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.fetches[self.path] += 1
            state.seen_headers.append({key.lower(): value for key, value in self.headers.items()})
            state.entered.set()
            if state.gate is not None:
                state.gate.wait(20)
            time.sleep(state.delays_s.get(self.path, 0))
            status = state.statuses.get(self.path, 200 if self.path in state.files else 404)
            body = state.files.get(self.path, b"") if status == 200 else b"no"
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

    server = Server(("127.0.0.1", 0), Handler)
    state = Origin(port=server.server_port)
    state.files["/red.png"] = png(64, 48, (255, 0, 0))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield state
    if state.gate is not None:
        state.gate.set()
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Reply:
    """A complete HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Node:
    """A running node."""

    folder: Path
    process: "subprocess.Popen[str]"
    port: int
    admin_port: int

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30,
    ) -> Reply:
        """One request on a connection of its own; the target goes out as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True, skip_host="Host" in (headers or {}))
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return Reply(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, target: str, **headers: str) -> Reply:
        """GET with headers given as keywords, underscores for hyphens."""
        return self.request("GET", target, headers={key.replace("_", "-"): value for key, value in headers.items()})

    def invalidate(self, body: object, key: str = "test-key") -> Reply:
        """POST /invalidate."""
        return self.request(
            "POST",
            "/invalidate",
            headers={"X-Client-Key": key, "Content-Type": "application/json"},
            body=json.dumps(body).encode(),
        )

    def admin(self, path: str) -> Reply:
        """GET on the admin listener."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return Reply(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """Sum of a metric over its labels."""
        total = 0.0
        for line in self.admin("/-/metrics").body.decode().splitlines():
            if re.match(re.escape(name) + r"(\{[^}]*\})? ", line):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def children(self, role: str) -> list[int]:
        """Pids of the node's processes of one role: front, worker, keeper."""
        pids = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            for pid in (task / "children").read_text().split():
                with contextlib.suppress(FileNotFoundError):
                    if role in Path(f"/proc/{pid}/comm").read_text():
                        pids.append(int(pid))
        return sorted(pids)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    @property
    def log(self) -> str:
        """What the node wrote to standard error."""
        return (self.folder / "stderr.log").read_text()

    def files(self) -> list[Path]:
        """Every regular file below the node's folder."""
        return [path for path in self.folder.rglob("*") if path.is_file()]


StartNode = Callable[..., Node]


@pytest.fixture
def start_node(tmp_path: Path, origin: Origin) -> Iterator[StartNode]:
    """Start a node whose tenant may fetch from the origin; more TOML and environment can be given."""
    started: list[Node] = []

    def start(
        extra: str = "",
        *,
        tenants: str | None = None,
        fronts: int = 2,
        workers: int = 1,
        server: str = "",
        trusted: str = '["127.0.0.1"]',
        cache: str = "",
        render: str = "",
        privacy: str = "",
        env: dict[str, str] | None = None,
        folder: Path | None = None,
        **popen: Any,
    ) -> Node:
        place = folder or tmp_path / f"node{len(started)}"
        place.mkdir(exist_ok=True)
        if tenants is None:
            tenants = TENANT.format(port=origin.port)
        (place / "imgserve.toml").write_text(
            CONFIGURATION.format(
                fronts=fronts,
                workers=workers,
                server=server,
                trusted=trusted,
                cache=cache,
                render=render,
                privacy=privacy,
                extra=extra,
                tenants=tenants,
            )
        )
        with (place / "stderr.log").open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "imgserve", "serve", "--config", str(place / "imgserve.toml")],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **(env or {})},
                **popen,
            )
        assert process.stdout is not None
        timer = threading.Timer(READY_TIMEOUT_S, process.kill)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        ports = [int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", line)]
        if len(ports) < 2:
            process.kill()
            process.wait()
            pytest.fail(f"the node did not start: {line!r} {(place / 'stderr.log').read_text()[-3000:]}")
        node = Node(place, process, ports[0], ports[-1])
        started.append(node)
        return node

    yield start
    for node in started:
        if node.process.poll() is None:
            node.process.terminate()
            try:
                node.process.wait(25)
            except subprocess.TimeoutExpired:
                node.process.kill()
                node.process.wait()
        assert node.process.stdout is not None
        node.process.stdout.close()


@pytest.fixture
def node(start_node: StartNode) -> Node:
    """A node with two fronts and one worker."""
    return start_node()


CONFIGURATION = """
[server]
listen = ["127.0.0.1:0"]
admin_listen = "127.0.0.1:0"
processes = {fronts}
trusted_proxies = {trusted}
{server}
[cache]
memory = "64MB"
{cache}
[render]
workers = {workers}
{render}
[origins]
allow_private = ["127.0.0.0/8"]
[privacy]
{privacy}
{extra}
{tenants}
"""

TENANT = """
[[tenants]]
name = "test"
default = true
allowed_origins = ["127.0.0.1:{port}"]
origin_scheme = "http"
[[tenants.keys]]
name = "all"
key = "test-key"
scopes = ["invalidate", "invalidate:all"]
"""
