"""A clock that the test sets, a mailbox that is a list, and settings in a temporary folder."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from imgserve.adapters.accesslog.keyring import KeyRing
from imgserve.adapters.accesslog.recorder import Recorder
from imgserve.adapters.accesslog.retention import Retention
from imgserve.adapters.accesslog.settings import Settings
from imgserve.adapters.accesslog.writer import DayFiles
from imgserve.core import privacy
from imgserve.core.events import AccessEvent, Outcome

TODAY = date(2026, 11, 23)
NOON_S = privacy.start_of(TODAY) + 43_200


@dataclass
class SetClock:
    """Wall time that the test sets; ``advance`` moves both times, as real time does."""

    wall_s: float = NOON_S
    passed_s: float = 1_000.0

    def now_s(self) -> float:
        return self.wall_s

    def monotonic_s(self) -> float:
        return self.passed_s

    def advance(self, seconds: float) -> None:
        self.wall_s += seconds
        self.passed_s += seconds


@dataclass
class ListMailbox:
    """Keeps packets; refuses them while it is full."""

    packets: list[bytes] = field(default_factory=list)
    is_full: bool = False

    def try_send(self, tag: bytes, payload: bytes) -> bool:
        assert b"L" == tag
        assert len(payload) <= 60_000
        if not self.is_full:
            self.packets.append(payload)
        return not self.is_full


@dataclass
class Node:
    """Both sides of the log, as one front and the keeper have them."""

    settings: Settings
    clock: SetClock
    mailbox: ListMailbox
    keys: KeyRing
    recorder: Recorder
    day_files: DayFiles
    boot: int = 1

    def retention(self) -> Retention:
        """As a keeper that has just started sees it."""
        return Retention(self.settings, self.day_files, self.keys, self.clock, boot=self.boot)

    def deliver(self) -> None:
        """Flush and write everything."""
        while self.recorder.flush():
            pass
        for packet in self.mailbox.packets:
            self.day_files.write(packet)
        self.mailbox.packets.clear()


NewNode = Callable[..., Node]
Event = Callable[..., AccessEvent]


@pytest.fixture
def new_node(tmp_path: Path, request: pytest.FixtureRequest) -> NewNode:
    """A node's log in the test's folder; several share the files."""

    def new(*, ring_max: int = 10_000, retention_days: int = 30, handles_max: int = 64, patience_s: float = 0) -> Node:
        settings = Settings(
            data_dir=tmp_path / "var", keys_dir=tmp_path / "keys", ring_max=ring_max, retention_days=retention_days
        )
        settings.data_dir.mkdir(mode=0o700, exist_ok=True)
        clock, mailbox, keys = SetClock(), ListMailbox(), KeyRing(settings.keys_dir)
        day_files = DayFiles(settings, clock, handles_max=handles_max, patience_s=patience_s)
        request.addfinalizer(day_files.close)
        return Node(settings, clock, mailbox, keys, Recorder(settings, keys, mailbox, clock), day_files)

    return new


@pytest.fixture
def node(new_node: NewNode) -> Node:
    """A node with a roomy ring."""
    return new_node()


@pytest.fixture
def event() -> Event:
    """Events that differ only in what the test says."""

    def make(
        visitor: str | IPv4Address | IPv6Address = "203.0.113.9",
        *,
        at_s: int = NOON_S,
        tenant: str = "demo",
        method: str = "GET",
        operations: str = "w=200",
        status: int = 200,
    ) -> AccessEvent:
        return AccessEvent(
            at_s=at_s,
            tenant=tenant,
            visitor=ip_address(visitor),
            method=method,
            image_id="abcdefgh234567ab",
            operations=operations,
            status=status,
            sent_bytes=1_234,
            outcome=Outcome.HIT,
            duration_us=56,
        )

    return make
