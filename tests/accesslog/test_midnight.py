"""Around midnight: several fronts, keys made early, late or replaced, and every row under its own day's key."""

import multiprocessing
import socket
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import date, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from imgserve.adapters.accesslog import schema
from imgserve.adapters.accesslog.keyring import KeyRing
from imgserve.adapters.accesslog.recorder import Recorder
from imgserve.adapters.accesslog.settings import Settings
from imgserve.aio import mailbox
from imgserve.aio.clock import SystemClock
from imgserve.core import privacy
from imgserve.core.addresses import canonical16
from imgserve.core.events import AccessEvent, Outcome
from imgserve.services import maintenance

FRONTS = 8
SECONDS = range(-10, 10)
TODAY = date(2026, 11, 23)
TOMORROW = TODAY + timedelta(days=1)
MIDNIGHT_S = privacy.start_of(TOMORROW)


class WallClock:
    """The time of day of one front, and real time that passes."""

    def __init__(self, wall_s: float) -> None:
        self.wall_s = wall_s
        self.monotonic_s = SystemClock().monotonic_s

    def now_s(self) -> float:
        return self.wall_s


def _front(
    number: int, settings: Settings, sending: socket.socket, start: "multiprocessing.synchronize.Barrier"
) -> None:
    """Log one request of each of three visitors a second; all fronts come to midnight together."""
    clock = WallClock(MIDNIGHT_S + SECONDS[0])
    recorder = Recorder(settings, KeyRing(settings.keys_dir), mailbox.Sender(sending), clock)
    for second in SECONDS:
        start.wait(30)
        clock.wall_s = MIDNIGHT_S + second
        for visitor in range(3):
            recorder.record(
                AccessEvent(
                    at_s=MIDNIGHT_S + second - visitor,  # some were answered just before, and are flushed just after
                    tenant="demo",
                    visitor=IPv4Address(f"203.0.113.{10 * number + visitor}"),
                    method="GET",
                    image_id="abcdefgh234567ab",
                    operations="",
                    status=200,
                    sent_bytes=1,
                    outcome=Outcome.HIT,
                    duration_us=number,  # so that the row says who wrote it
                )
            )
        while recorder.flush() or not recorder.is_empty:
            pass


@pytest.mark.parametrize("is_rotated", [False, True], ids=["undisturbed", "replaced meanwhile"])
def test_every_row_is_under_its_own_days_key(node: Any, *, is_rotated: bool) -> None:
    """Eight processes log over midnight without a key for tomorrow, which they race to make; with keys replaced on
    both days meanwhile every row still verifies, by its key's id, under a key that is held of its day."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(FRONTS + 1)
    sending, receiving = mailbox.make_pair()
    fronts = [context.Process(target=_front, args=(number, node.settings, sending, start)) for number in range(FRONTS)]
    for front in fronts:
        front.start()
    for second in SECONDS:
        start.wait(30)
        if is_rotated:
            KeyRing(node.settings.keys_dir).rotate("demo", privacy.day_of(MIDNIGHT_S + second))
        _deliver(node, receiving)
    for front in fronts:
        while front.is_alive():
            _deliver(node, receiving)
            front.join(0.01)
        assert 0 == front.exitcode
    _deliver(node, receiving)
    node.day_files.close()
    sending.close()
    receiving.close()

    keys = KeyRing(node.settings.keys_dir).held("demo", TODAY, TOMORROW)
    counts = {day: _verified(node.settings.data_dir, day, keys[day]) for day in (TODAY, TOMORROW)}
    assert FRONTS * 3 * len(SECONDS) == sum(sum(rows.values()) for rows in counts.values())
    assert {TODAY: 1, TOMORROW: 1} == {day: len(held) for day, held in keys.items()} or is_rotated
    if is_rotated:
        assert all(len(rows) > 1 for rows in counts.values())
        assert all(10 <= len(held) <= 12 for held in keys.values())


def _deliver(node: Any, receiving: socket.socket) -> None:
    """Write all packets that wait, as the keeper does."""
    while True:
        try:
            packet = receiving.recv(70_000)
        except BlockingIOError:
            return
        node.day_files.write(packet[1:])


def _verified(data_dir: Path, day: date, held: tuple[privacy.DayKey, ...]) -> Counter[int]:
    """How many rows of the day each key made; fails for a row that no key of the day made, or of another day."""
    keys = {key.id: key.secret for key in held}
    with closing(sqlite3.connect(schema.day_file(data_dir, "demo", day))) as database:
        rows = database.execute("SELECT at_s, pseudonym, key_id, duration_us FROM requests").fetchall()
    for at_s, pseudonym, key_id, number in rows:
        assert day == privacy.day_of(at_s)
        visitors = [canonical16(IPv4Address(f"203.0.113.{10 * number + visitor}")) for visitor in range(3)]
        assert pseudonym in {privacy.pseudonym(visitor, keys[key_id]) for visitor in visitors}
    return Counter(row[2] for row in rows)


async def test_keys_are_made_an_hour_early(node: Any) -> None:
    """Not a second before; then for every tenant, and fronts take what they find."""
    job = maintenance.early_keys(node.keys, lambda: ["demo", "other"], node.clock)
    node.clock.wall_s = MIDNIGHT_S - 3_601
    await job.run()
    assert {("demo", TODAY), ("other", TODAY)} == set(node.keys.days())
    node.clock.advance(1)
    await job.run()
    early = node.keys.key("demo", TOMORROW)
    await job.run()

    assert {(tenant, day) for tenant in ("demo", "other") for day in (TODAY, TOMORROW)} == set(node.keys.days())
    assert early == KeyRing(node.settings.keys_dir).key("demo", TOMORROW)


def test_a_front_that_is_never_idle_takes_a_new_key_within_a_second(node: Any, event: Any) -> None:
    """Its ring is never empty between flushes, so what it knows of the day would otherwise stay."""
    for _ in range(30):
        node.recorder.record(event())
    node.recorder.flush(10)
    KeyRing(node.settings.keys_dir).rotate("demo", TODAY)
    node.clock.advance(0.9)
    node.recorder.flush(10)
    assert 10 == node.recorder.waiting
    for packet in node.mailbox.packets:
        node.day_files.write(packet)
    node.day_files.close()
    with closing(sqlite3.connect(schema.day_file(node.settings.data_dir, "demo", TODAY))) as database:
        found = database.execute("SELECT key_id, count(*) FROM requests GROUP BY key_id").fetchall()

    assert [10, 10] == [rows for _, rows in found]
    assert {key.id for key in node.keys.held("demo", TODAY, TODAY)[TODAY]} == {key_id for key_id, _ in found}


def test_keys_go_with_the_rows_of_their_day(node: Any, event: Any) -> None:
    """Replaced ones too, in the sweep that removes the rows, and not before."""
    node.recorder.record(event())
    node.deliver()
    node.keys.rotate("demo", TODAY)
    node.clock.wall_s = privacy.start_of(TODAY + timedelta(days=30)) - 1
    sweeper = node.retention()
    sweeper.sweep()
    assert 2 == len(node.keys.held("demo", TODAY, TODAY)[TODAY])
    node.clock.advance(1)
    sweeper.sweep()

    assert [] == list((node.settings.keys_dir / "demo").iterdir())
    assert [] == list(schema.folder(node.settings.data_dir, "demo").glob("2026-11-23*"))
