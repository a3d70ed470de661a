"""Real nodes with tiny mains, each in a process group of its own."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("tiny_node.py")

CONFIGURATION = """
[server]
listen = [{listen}]
admin_listen = "127.0.0.1:0"
processes = {fronts}
data_dir = "var"
drain_delay_s = {drain_delay_s}
node = "{node}"
[render]
workers = {workers}
[[tenants]]
name = "{tenant}"
hosts = ["{tenant}.example"]
allowed_origins = ["images.example.com"]
"""

DEFAULTS = {
    "listen": '"127.0.0.1:0"',
    "fronts": 2,
    "workers": 2,
    "drain_delay_s": 0,
    "tenant": "one",
    "node": "node-1",
}
NOBODY = 65_534

SeenT = TypeVar("SeenT")


def wait_for(look: Callable[[], SeenT], what: str, timeout_s: float = 10) -> SeenT:
    """Look until what is seen is true; fail naming what was awaited."""
    deadline_s = time.monotonic() + timeout_s
    while not (seen := look()):
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited {timeout_s} s in vain for {what}")
        time.sleep(0.005)
    return seen


@dataclass
class TinyNode:
    """A running node of ``tiny_node.py``."""

    folder: Path
    options: dict[str, Any]
    process: "subprocess.Popen[str]" = field(init=False)
    port: int = 0
    line: str = ""

    @property
    def data_dir(self) -> Path:
        """Where the children tell what they did."""
        return self.folder / "var"

    def configure(self, **options: Any) -> None:
        """Write the configuration file."""
        self.options = self.options | options
        (self.folder / "imgserve.toml").write_text(CONFIGURATION.format(**self.options))

    def start(self, **popen: Any) -> None:
        """Start, and wait for the line that says ready; an empty line when it ended instead.

        With another ``stdout``: return at once."""
        with (self.folder / "stderr.log").open("a") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), str(self.folder / "imgserve.toml"), *popen.pop("args", ())],
                stdout=popen.pop("stdout", subprocess.PIPE),
                stderr=stderr,
                text=True,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                **popen,
            )
        if self.process.stdout is None:
            return
        timer = threading.Timer(20, self.process.kill)
        timer.start()
        self.line = self.process.stdout.readline()
        timer.cancel()
        timer.join()
        found = re.search(r"on http://127\.0\.0\.1:(\d+)", self.line)
        self.port = int(found.group(1)) if found else 0

    def ask(self, line: str) -> str:
        """One line to any front, and its answer."""
        with self.asking(line) as sock:
            return answer_of(sock)

    def asking(self, line: str) -> socket.socket:
        """A connection on which a line has been sent."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        sock.sendall(line.encode() + b"\n")
        return sock

    def board(self) -> dict[str, Any]:
        """What the board says."""
        answer: dict[str, Any] = orjson.loads(self.ask("board"))
        return answer

    def told(self, what: str, **fields: object) -> list[dict[str, Any]]:
        """What the children told, in order."""
        return _lines(self.data_dir / "told.log", "what", what, fields)

    def logged(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """What the node logged, in order."""
        return _lines(self.folder / "stderr.log", "event", event, fields)

    def child(self, name: str) -> int:
        """Process id of the newest ready child of a slot."""
        wait_for(lambda: bool(self.logged("child_ready", child=name)), f"{name} to be ready")
        pid: int = self.logged("child_ready", child=name)[-1]["pid"]
        return pid

    def kill(self, name: str) -> float:
        """Kill -9 a child; the seconds until its replacement was ready."""
        pid = self.child(name)
        killed_s = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self.child(name) != pid, f"a new {name}")
        return time.monotonic() - killed_s

    def pids(self) -> list[int]:
        """All children that are alive."""
        return [pid for told in self.told("born") if is_alive(pid := told["pid"])]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the supervisor, and its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(25)

    def clean_up(self) -> None:
        """Leave no process behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process.stdout is not None:
            self.process.stdout.close()


def answer_of(sock: socket.socket) -> str:
    """Everything until the other side closes."""
    received = b""
    while packet := sock.recv(1000):
        received += packet
    return received.decode().strip()


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    return _state(pid) not in ("", "Z")


def freeze(pid: int) -> None:
    """Stop the process where it is; returns when it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: _state(pid) == "T", f"{pid} to stop")


def _state(pid: int) -> str:
    """The state of a process, as in proc(5); empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _lines(path: Path, key: str, value: str, fields: dict[str, object]) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    texts = [
        text for text in path.read_text().splitlines(keepends=True) if text.startswith("{") and text.endswith("\n")
    ]
    wanted = {key: value, **fields}
    return [line for line in map(orjson.loads, texts) if wanted.items() <= line.items()]
