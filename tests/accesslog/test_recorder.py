"""The front's side of the log."""

import tracemalloc
from typing import Any

import msgspec

from imgserve.adapters.accesslog import schema
from imgserve.core import privacy
from imgserve.core.addresses import canonical16


def rows_of(packets: list[bytes]) -> list[tuple[str, int, schema.Row]]:
    """Tenant, day and row of everything in the packets."""
    batches = [msgspec.msgpack.decode(packet, type=schema.Batch) for packet in packets]
    return [(group.tenant, group.day, row) for batch in batches for group in batch.groups for row in group.rows]


def test_a_row_says_what_happened_and_who_by_pseudonym(node: Any, event: Any) -> None:
    """Every field of the event arrives; the address only under its day's key."""
    node.recorder.record(event("203.0.113.9"))
    node.recorder.flush()
    key = node.keys.key("demo", privacy.day_of(node.clock.now_s()))
    name = privacy.pseudonym(canonical16(event("203.0.113.9").visitor), key.secret)
    at_s = int(node.clock.now_s())

    assert [
        ("demo", at_s // 86_400, (at_s, name, key.id, "GET", "abcdefgh234567ab", "w=200", 200, 1_234, "hit", 56))
    ] == rows_of(node.mailbox.packets)
    assert (1, 0) == (node.recorder.rows_handed_over, node.recorder.rows_dropped)


def test_one_visitor_is_one_pseudonym_a_day_and_tenant(node: Any, event: Any) -> None:
    """IPv4 and its mapped form are one visitor; another day, tenant or address is another pseudonym."""
    for seen in (
        event("203.0.113.9"),
        event("::ffff:203.0.113.9"),
        event("203.0.113.10"),
        event("203.0.113.9", tenant="other"),
        event("203.0.113.9", at_s=event().at_s - 86_400),
    ):
        node.recorder.record(seen)
    node.recorder.flush()
    names = [row[1] for _, _, row in rows_of(node.mailbox.packets)]

    assert 5 == len(names)
    assert 4 == len(set(names))
    assert {16} == {len(name) for name in names}


def test_midnight_parts_rows_and_keys(node: Any, event: Any) -> None:
    """A row belongs to the UTC day of its own second, and is named by that day's key, whenever it is flushed."""
    midnight_s = privacy.start_of(privacy.day_of(node.clock.now_s())) + 86_400
    for at_s in (midnight_s - 1, midnight_s):
        node.recorder.record(event(at_s=at_s))
    node.clock.wall_s = midnight_s + 5
    node.recorder.flush()
    rows = rows_of(node.mailbox.packets)

    assert [midnight_s // 86_400 - 1, midnight_s // 86_400] == sorted(day for _, day, _ in rows)
    for tenant, day, row in rows:
        key = node.keys.key(tenant, privacy.date_of(day))
        assert (key.id, privacy.pseudonym(canonical16(event().visitor), key.secret)) == (row[2], row[1])


def test_a_full_ring_drops_and_counts(new_node: Any, event: Any) -> None:
    """Beyond the bound nothing is taken, one by one or as a batch."""
    node = new_node(ring_max=3)
    for _ in range(5):
        node.recorder.record(event())
    node.recorder.extend([(int(node.clock.now_s()), "demo", bytes(16), "GET", "", "", 200, 0, "hit", 1)] * 4)

    assert (3, 6, 6) == (node.recorder.waiting, node.recorder.rows_dropped_ring, node.recorder.rows_dropped)


def test_without_a_key_rows_are_dropped_and_counted(node: Any, event: Any) -> None:
    """No second choice: not another key, not the plain address."""
    node.settings.keys_dir.joinpath("demo").mkdir(parents=True)
    node.settings.keys_dir.joinpath("demo", "2026-11-23.key").write_bytes(b"short")
    node.recorder.record(event())
    node.recorder.record(event(tenant="other"))
    node.recorder.record(event(tenant=""))
    node.recorder.flush()

    assert ["other"] == [tenant for tenant, _, _ in rows_of(node.mailbox.packets)]
    assert (2, 1) == (node.recorder.rows_dropped_key, node.recorder.rows_handed_over)


def test_a_destroyed_day_does_not_come_back(node: Any, event: Any) -> None:
    """A row of a day past its term is dropped, and makes no new key for it."""
    node.recorder.record(event(at_s=event().at_s - 30 * 86_400))
    node.recorder.record(event(at_s=event().at_s - 29 * 86_400))
    node.recorder.flush()

    assert (1, 1) == (node.recorder.rows_dropped_expired, node.recorder.rows_handed_over)
    assert ["2026-10-25.key"] == [path.name for path in node.settings.keys_dir.glob("*/*")]


def test_packets_keep_to_their_size(node: Any, event: Any) -> None:
    """However long the operations are, and in whatever letters: at most 60,000 bytes a packet, and no row is lost."""
    for number in range(2_000):
        node.recorder.record(
            event(f"10.0.{number // 250}.{number % 250}", operations="é" * (number % 700), tenant=f"t{number % 3}")
        )
    while node.recorder.flush(2_000):
        pass

    assert 2_000 == len(rows_of(node.mailbox.packets))
    assert len(node.mailbox.packets) > 10
    for packet in node.mailbox.packets:
        batch = msgspec.msgpack.decode(packet, type=schema.Batch)
        places = [(group.tenant, group.day) for group in batch.groups]
        assert len(places) == len(set(places))


def test_an_unknown_method_is_not_copied(node: Any, event: Any) -> None:
    """A method is free text of the caller's: only the known ones are named."""
    node.recorder.record(event(method="SECRET-OF-MINE"))
    node.recorder.record(event(method="HEAD"))
    node.recorder.flush()

    assert ["OTHER", "HEAD"] == [row[3] for _, _, row in rows_of(node.mailbox.packets)]


def test_a_full_mailbox_delays_and_then_drops(node: Any, event: Any) -> None:
    """What finds no room waits as pseudonyms, in order, up to a bound; the rest is counted. The ring is emptied."""
    node.mailbox.is_full = True
    for number in range(70):
        node.recorder.record(event(status=number))
        node.recorder.flush()

    assert (0, 6) == (node.recorder.waiting, node.recorder.rows_dropped_mailbox)
    node.mailbox.is_full = False
    node.recorder.flush()
    assert list(range(64)) == [row[6] for _, _, row in rows_of(node.mailbox.packets)]
    assert 64 == node.recorder.rows_handed_over


def test_the_address_is_forgotten_after_the_flush(node: Any, event: Any) -> None:
    """Neither the ring nor the memo holds it, even while packets wait."""
    node.mailbox.is_full = True
    seen = event("198.51.100.77")
    packed = canonical16(seen.visitor)
    node.recorder.record(seen)
    assert packed in flat(node.recorder)
    node.recorder.flush()

    assert packed not in flat(node.recorder)
    assert b"198.51.100.77" not in flat(node.recorder)


def flat(recorder: Any) -> bytes:
    """All bytes and texts that the recorder's own structures hold."""
    pieces: list[bytes] = []

    def walk(value: Any) -> None:
        if isinstance(value, bytes):
            pieces.append(value)
        elif isinstance(value, str):
            pieces.append(value.encode())
        elif isinstance(value, dict):
            for key, inner in value.items():
                walk(key)
                walk(inner)
        elif isinstance(value, (list, tuple)) or type(value).__name__ == "deque":
            for inner in value:
                walk(inner)
        elif hasattr(value, "__slots__") and type(value).__name__ == "_Day":
            for name in value.__slots__:
                walk(getattr(value, name))

    walk(recorder._ring)
    walk(recorder._days)
    walk(recorder._pending)
    return b"|".join(pieces)


async def test_draining_hands_over_everything(node: Any, event: Any) -> None:
    """At shutdown nothing is lost that the mailbox takes in time."""
    for _ in range(3_000):
        node.recorder.record(event())

    assert await node.recorder.drain(5)
    assert (3_000, 0) == (node.recorder.rows_handed_over, node.recorder.rows_dropped)


async def test_draining_ends_at_its_deadline(node: Any, event: Any) -> None:
    """A keeper that takes nothing holds up no shutdown; what is lost is counted."""
    node.mailbox.is_full = True
    for _ in range(10):
        node.recorder.record(event())

    assert not await node.recorder.drain(0)
    assert (0, 10) == (node.recorder.waiting, node.recorder.rows_dropped)


def test_memory_is_bounded_however_long_the_keeper_is_away(node: Any, event: Any) -> None:
    """The ring and the waiting packets have bounds, and nothing else grows."""
    node.mailbox.is_full = True
    tracemalloc.start()
    try:
        for number in range(20_000):
            node.recorder.record(event(f"10.1.{number // 250 % 250}.{number % 250}"))
            if number % 500 == 0:
                node.recorder.flush()
        used_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert used_bytes < 64 * 60_000 + 2_000_000
    assert node.recorder.waiting < 500
