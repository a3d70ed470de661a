"""The keeper: every packet is handled once it can be, and none holds up the others for ever."""

import asyncio
import errno
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from imgserve.aio.clock import SystemClock
from imgserve.aio.mailbox import Sender, make_pair
from imgserve.aio.periodic import Periodic
from imgserve.core.errors import NoSpace
from imgserve.core.tenants import Tenant, Tenants
from imgserve.node import control, keeper
from imgserve.node.board import Board, Role, State
from imgserve.node.boot import KeeperBoot
from imgserve.settings import load

CONFIGURATION = '[[tenants]]\nname = "one"\nhosts = ["one.example"]\nallowed_origins = ["images.example.com"]\n'


class Parts:
    """Remembers what it was given; ``handle`` may raise."""

    def __init__(self, handle: Callable[[bytes], None] = lambda payload: None) -> None:
        self.handled: list[bytes] = []
        self.reloads: list[list[str]] = []
        self.closed = 0
        self.handlers = {b"L": self._take}
        self.jobs: Sequence[Periodic] = ()
        self._handle = handle

    async def _take(self, payload: bytes) -> None:
        self._handle(payload)
        self.handled.append(payload)

    def reload(self, tenants: Tenants) -> None:
        """Remember."""
        self.reloads.append([tenant.name for tenant in tenants])

    async def close(self) -> None:
        """Remember."""
        self.closed += 1

    async def build(self, boot: KeeperBoot) -> "Parts":
        """Be the parts of a keeper."""
        return self


class Around:
    """A keeper's surroundings: the supervisor's ends of its sockets."""

    def __init__(self, folder: Path) -> None:
        (folder / "imgserve.toml").write_text(CONFIGURATION)
        self.sending, receiving = make_pair()
        self.supervisor, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        self.sender = Sender(self.sending)
        self.boot = KeeperBoot(
            role=Role.KEEPER,
            number=0,
            configuration=load(folder / "imgserve.toml", {}).configuration,
            generation=1,
            board=Board(fronts=1, workers=1),
            control=theirs,
            slot_map=folder / "slots.map",
            mailbox=receiving,
        )

    def close(self) -> None:
        """Close all sockets."""
        for sock in (self.sending, self.supervisor, *self.boot.sockets()):
            sock.close()

    def count(self, counter: keeper.Count) -> int:
        """One of the keeper's counters."""
        return self.boot.slot.counted(counter)

    def live(self, parts: Parts, *, within_s: float = 5) -> None:
        """Be a keeper that is asked to stop at once: it handles what there is."""
        control.stop(self.supervisor, time.monotonic() + within_s)
        keeper.main(self.boot, parts.build)


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Around]:
    """A keeper's surroundings."""
    made = Around(tmp_path)
    yield made
    made.close()


def test_stopping_empties_the_mailbox(around: Around) -> None:
    """A keeper that is asked to stop handles all packets, in order, then closes."""
    parts = Parts()
    expected = [str(number).encode() for number in range(300)]
    for payload in expected:
        around.sender.try_send(b"L", payload)
    around.live(parts)

    assert expected == parts.handled
    assert (1, 300, State.DRAINING) == (parts.closed, around.count(keeper.Count.HANDLED), around.boot.slot.state)
    assert control.Ready() == control.received(around.supervisor)


def test_orphans_end_with_the_last_front(around: Around) -> None:
    """Without a supervisor the keeper goes on until no front can send any more."""
    parts = Parts()
    around.supervisor.close()

    def last_front() -> None:
        around.sender.try_send(b"L", b"late")
        around.sending.close()

    front = threading.Timer(0.2, last_front)
    front.start()
    try:
        keeper.main(around.boot, parts.build)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # the orphan's last resort
        front.join()

    assert ([b"late"], 1) == (parts.handled, parts.closed)


def _full() -> Exception:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


@pytest.mark.parametrize(
    "error", [NoSpace("full"), OSError(errno.ENOSPC, "full"), _full()], ids=["NoSpace", "OSError", "sqlite3"]
)
def test_what_may_pass_is_tried_again(around: Around, error: Exception) -> None:
    """A packet that finds the disk full waits first in the queue; nothing is lost or reordered."""
    failures = iter([error, error])

    def handle(payload: bytes) -> None:
        if (failure := next(failures, None)) is not None:
            raise failure

    parts = Parts(handle)
    for payload in (b"1", b"2"):
        around.sender.try_send(b"L", payload)
    around.live(parts)

    assert [b"1", b"2"] == parts.handled
    assert (2, 0) == (around.count(keeper.Count.RETRIED), around.count(keeper.Count.REFUSED))


@pytest.mark.parametrize(
    "error", [ValueError("bad"), FileNotFoundError(2, "gone"), sqlite3.OperationalError("no such table")], ids=repr
)
def test_a_bad_packet_is_refused_and_counted(around: Around, error: Exception) -> None:
    """A packet that can never be handled, or that nobody handles, does not hold up the next."""

    def handle(payload: bytes) -> None:
        if payload == b"bad":
            raise error

    parts = Parts(handle)
    for tag, payload in ((b"L", b"bad"), (b"?", b"whose"), (b"L", b"good")):
        around.sender.try_send(tag, payload)
    around.live(parts)

    assert [b"good"] == parts.handled
    assert 2 == around.count(keeper.Count.REFUSED)


def test_a_packet_that_kills_keepers_is_refused_in_the_end(around: Around) -> None:
    """Five keepers die of the same packet; the sixth leaves it out and handles the rest."""
    around.sender.try_send(b"L", b"poison")
    around.sender.try_send(b"L", b"good")

    def die(payload: bytes) -> None:
        if payload == b"poison":
            os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(5):
        pid = os.fork()
        if pid == 0:
            keeper.main(around.boot, Parts(die).build)
            os._exit(0)

        assert -signal.SIGKILL == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    parts = Parts()
    around.live(parts)

    assert ([b"good"], 1) == (parts.handled, around.count(keeper.Count.REFUSED))
    assert 0 == around.boot.slot.tries


def test_a_full_disk_does_not_hold_up_the_stop(around: Around) -> None:
    """When the time to stop in is over, the keeper gives up what it can't write, and still closes."""

    def handle(payload: bytes) -> None:
        raise NoSpace("full")

    parts = Parts(handle)
    around.sender.try_send(b"L", b"x")
    started_s = time.monotonic()
    around.live(parts, within_s=1)

    assert time.monotonic() - started_s < 1
    assert ([], 1) == (parts.handled, parts.closed)


def test_jobs_run_and_new_tenants_are_taken(around: Around) -> None:
    """Jobs run beside the packets; a new snapshot is taken and acknowledged."""
    parts = Parts()
    ran = 0

    async def job() -> None:
        nonlocal ran
        ran += 1
        if ran == 3:
            control.stop(around.supervisor, time.monotonic() + 5)
        raise ValueError

    parts.jobs = (Periodic("test", 0.001, job, clock=SystemClock()),)
    tenants = Tenants((*around.boot.configuration.tenants, Tenant(name="two", hosts=("two.example",))))
    snapshot = control.Snapshot(2, tenants)
    snapshot.send(around.supervisor)
    snapshot.close()
    keeper.main(around.boot, parts.build)

    assert [["one", "two"]] == parts.reloads
    assert control.Ready() == control.received(around.supervisor)
    assert control.Acknowledged(2) == control.received(around.supervisor)
    assert ran >= 3


async def test_messages_come_as_records(around: Around) -> None:
    """A child hears of new tenants, of the stop, of less time, and at last that it is an orphan."""
    tenants = Tenants(tuple(replace(tenant, name="two") for tenant in around.boot.configuration.tenants))
    with_salts = control.Snapshot(9, tenants)
    with_salts.send(around.supervisor)
    with_salts.close()
    with_salts.close()
    control.stop(around.supervisor, 100.0)
    control.stop(around.supervisor, 50.0)
    messages = control.Control(around.boot).messages()
    async with asyncio.timeout(5):
        reload = await anext(messages)
        assert isinstance(reload, control.Reload)
        assert (9, ["two"]) == (reload.generation, [tenant.name for tenant in reload.tenants])
        assert [control.Drain(deadline_s=100.0), control.Drain(deadline_s=50.0)] == [
            await anext(messages),
            await anext(messages),
        ]
        around.supervisor.close()
        last = await anext(messages)
        timer_s, _ = signal.setitimer(signal.ITIMER_REAL, 0)

        assert isinstance(last, control.Drain)
        assert last.is_orphan
        assert 0 < last.deadline_s - time.monotonic() < timer_s < 20
        assert [] == [message async for message in messages]
    assert State.DRAINING is around.boot.slot.state


def test_a_child_that_does_not_read_blocks_nobody(around: Around) -> None:
    """When a child's line is full, the supervisor is told so and goes on."""
    sent = 0
    while control.stop(around.supervisor, 1.0):
        sent += 1
        assert sent < 100_000

    assert sent > 0
