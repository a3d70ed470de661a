"""Whole servers to measure: a node of ours and nginx, started with a configuration of their own on loopback.

All files lie in one temporary folder, and what was started is ended by its pid. CPU time is that of the whole tree of
processes, by the name of each, so that a result says where time went.
"""

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Final, Self

from benchmarks import harness

PROJECT: Final = Path(__file__).resolve().parents[1]
CORPUS: Final = PROJECT.parent / "shared" / "corpus"

BROWSER: Final = {
    "Host": "bench.localhost",
    "sec-ch-ua": '"Chromium";v="130", "Google Chrome";v="130", "Not?A_Brand";v="99"',
    "sec-ch-ua-mobile": "?0",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 "
    "Safari/537.36",
    "sec-ch-ua-platform": '"Linux"',
    "Accept": "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
    "Sec-Fetch-Site": "same-site",
    "Sec-Fetch-Mode": "no-cors",
    "Sec-Fetch-Dest": "image",
    "Referer": "https://shop.example.com/products/42",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9,fr;q=0.8",
    "Cookie": "session=0123456789abcdef0123456789abcdef; theme=dark",
}
"""What a browser sends with an ``img`` of another site's page."""

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 25.0
_SETTLE_S: Final = 0.6  # what a server still does for the last requests, such as writing its log

_NODE: Final = """\
[server]
listen = ["127.0.0.1:0"]
admin_listen = "127.0.0.1:0"
processes = {processes}
data_dir = "var"

[cache]
memory = "{memory}"

[render]
workers = {workers}

[privacy]
keys_dir = "keys"

[[tenants]]
name = "bench"
hosts = ["bench.localhost"]
default = true

[tenants.aliases]
_corpus_ = "{originals}"
"""

_NGINX: Final = """\
user {user};
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    sendfile on;
    tcp_nopush on;
    server_tokens off;
    keepalive_requests 1000000000;
    open_file_cache max=1000 inactive=60s;
    access_log {folder}/access.log combined buffer=64k flush=1s;
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=images:10m max_size=1g inactive=1h use_temp_path=off;
    client_body_temp_path {folder}/client;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{origin_port};
            proxy_cache images;
            proxy_cache_lock on;
            add_header X-Cache $upstream_cache_status;
        }}
    }}
    server {{
        listen 127.0.0.1:{origin_port};
        access_log off;
        root {folder}/bodies;
        default_type {content_type};
{headers}
    }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One round of wrk against a server.

    ``cpu_s`` is the server's, by process name; ``others`` the share of all cores that went to nobody of ours.
    """

    sample: harness.Sample
    cpu_s: Mapping[str, float]
    others: float


def cpu_seconds(pid: int) -> dict[str, float]:
    """User and system time so far of a process and all below it, by name; what has ended counts for its parent."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    names: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            text = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")
        fields = rest.split()
        parents[int(entry)] = int(fields[1])
        seconds[int(entry)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        names[int(entry)] = name.removeprefix("img:").rstrip("0123456789")
    total: defaultdict[str, float] = defaultdict(float)
    for one in parents:
        above = one
        while above not in (0, pid):
            above = parents.get(above, 0)
        if above == pid:
            total[names[one]] += seconds[one]
    return total


def busy_seconds() -> float:
    """Time that all cores have worked since the machine started, for whomever."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    user, nice, system, _idle, _waiting, *interrupts_and_steal = map(int, fields[1:9])
    return (user + nice + system + sum(interrupts_and_steal)) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """CPU time of this process and of its children that have ended: the load's side."""
    return sum(os.times()[:4])


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Have what is started inside run on this core only; None leaves it free."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Node:
    """A running ``imgserve serve`` with an alias ``_corpus_``; a context manager."""

    def __init__(self, originals: Path, *, processes: int, workers: int, memory: str = "256MB") -> None:
        self._stack = contextlib.ExitStack()
        self.folder: Final = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="imgserve-bench-")))
        configuration = self.folder / "imgserve.toml"
        configuration.write_text(
            _NODE.format(processes=processes, workers=workers, memory=memory, originals=originals.as_uri()),
            encoding="utf-8",
        )
        environ = {name: value for name, value in os.environ.items() if not name.startswith("IMGSERVE_")}
        log = self._stack.enter_context((self.folder / "log").open("wb"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "imgserve", "serve", "--config", str(configuration)],
            cwd=PROJECT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        self._stack.callback(_stop, self._process)
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        addresses = re.findall(r"http://([\d.]+):(\d+)", ready)
        if len(addresses) != 2:
            last = (self.folder / "log").read_text(encoding="utf-8")[-2000:]
            self.close()
            raise RuntimeError(f"the node did not start: {ready}{last}")
        self.port = int(addresses[0][1])
        self._admin_port = int(addresses[1][1])

    @property
    def pid(self) -> int:
        """Of the supervisor, the root of its processes."""
        return self._process.pid

    def metric(self, name: str) -> float:
        """The sum over all samples of a metric."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._admin_port}/-/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{re.escape(name)}[{{ ]", line))

    def close(self) -> None:
        """Stop it and remove its files."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Nginx:
    """A running nginx: one worker with proxy_cache in front of files that it serves itself; a context manager."""

    def __init__(self, bodies: Mapping[str, bytes], headers: Mapping[str, str], content_type: str) -> None:
        self._stack = contextlib.ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="imgserve-bench-")))
        (folder / "bodies").mkdir()
        for name, body in bodies.items():
            (folder / "bodies" / name).write_bytes(body)
        self.port, origin_port = _free_ports(2)
        lines = (f"        add_header {name} {_quoted(value)};" for name, value in headers.items())
        configuration = folder / "nginx.conf"
        configuration.write_text(
            _NGINX.format(
                user=pwd.getpwuid(os.geteuid()).pw_name,
                folder=folder,
                port=self.port,
                origin_port=origin_port,
                content_type=content_type,
                headers="\n".join(lines),
            ),
            encoding="utf-8",
        )
        arguments = ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(configuration)]
        self._process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL)
        self._stack.callback(_stop, self._process)
        try:
            _wait_for(self.port, self._process)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the master, the root of its processes."""
        return self._process.pid

    def close(self) -> None:
        """Stop it and remove its files."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def get(port: int, target: str, headers: Mapping[str, str] = BROWSER) -> tuple[Mapping[str, str], bytes]:
    """One request on a connection of its own. Raises RuntimeError for all but a 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", target, headers=dict(headers))
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{target}: {answer.status} {body[:200]!r}")
        return dict(answer.getheaders()), body
    finally:
        connection.close()


def wrk(port: int, target: str, *, pid: int, seconds: int, connections: int, core: int | None) -> Load:
    """Load a server by wrk on a core of its own, with a browser's headers; ``pid`` is the server's."""
    headers = [part for name, value in BROWSER.items() for part in ("-H", f"{name}: {value}")]
    url = f"http://127.0.0.1:{port}{target}"
    before, own_s, busy_s, began_s = cpu_seconds(pid), own_seconds(), busy_seconds(), time.perf_counter()
    with on_core(core):
        done = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *headers, url],
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + 30,
        )
    time.sleep(_SETTLE_S)
    spent = {name: after - before.get(name, 0.0) for name, after in cpu_seconds(pid).items()}
    ours_s = sum(spent.values()) + own_seconds() - own_s
    others = share_of_others(busy_seconds() - busy_s - ours_s, time.perf_counter() - began_s)
    found = re.search(r"(\d+) requests in (\d+(?:\.\d+)?)s", done.stdout)
    if found is None or re.search(r"Socket errors|Non-2xx", done.stdout):
        raise RuntimeError(f"the load failed: {done.stdout}")
    sample = harness.Sample(operations=int(found[1]), wall_s=float(found[2]), cpu_s=sum(spent.values()))
    return Load(sample=sample, cpu_s=spent, others=others)


def share_of_others(seconds: float, wall_s: float) -> float:
    """What that CPU time is of all cores in that time; below 0 is the clock's grain."""
    return max(0.0, seconds / (wall_s * (os.cpu_count() or 1)))


def missing(programs: Iterable[str]) -> Sequence[str]:
    """Those that are not installed."""
    return [name for name in programs if shutil.which(name) is None]


def _quoted(value: str) -> str:
    """A value as nginx's configuration writes it."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < give_up_s and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.02)
    raise RuntimeError("nginx did not start")


def _stop(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Ask it to end, and kill it when it does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
