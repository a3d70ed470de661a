"""The map of slots: no lost update, no old file after a raise, no number given twice."""

import os
import random
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from imgserve.core.errors import Misconfigured, NoSpace
from imgserve.core.originals import ImageId, ImageRef
from imgserve.disk import files, slots
from imgserve.disk.slots import HEADER_WORDS, IMAGE_SLOTS, NUMBERS_PER_S, SlotMap

Fork = Callable[[Callable[[], object]], int]
Wait = Callable[[int], int]

CAT = ImageRef(tenant="acme", id=ImageId("cat2222222222222"))
DOG = ImageRef(tenant="acme", id=ImageId("dog3333333333333"))


def new_map(folder: Path) -> SlotMap:
    return SlotMap.rebuild(folder / "slots.map", [], now_s=1000)


def test_an_image_slot_is_the_first_20_bits_of_the_id() -> None:
    """A is 0 and 7 is 31, as in base32; the tail of the id does not count."""
    assert HEADER_WORDS == slots.image_slot(ImageId("aaaa777777777777"))
    assert HEADER_WORDS + 1 == slots.image_slot(ImageId("aaab777777777777"))
    assert HEADER_WORDS + IMAGE_SLOTS - 1 == slots.image_slot(ImageId("7777aaaaaaaaaaaa"))
    assert HEADER_WORDS + (1 << 15) == slots.image_slot(ImageId("baaaaaaaaaaaaaaa"))
    assert HEADER_WORDS + IMAGE_SLOTS <= slots.tenant_slot("acme") < HEADER_WORDS + IMAGE_SLOTS + slots.TENANT_SLOTS


def test_a_stamp_is_alive_until_its_image_or_its_tenant_is_raised(tmp_path: Path) -> None:
    """And a stamp taken after the raise is alive again."""
    slot_map = new_map(tmp_path)
    stamp = slot_map.head()
    assert slot_map.is_alive(CAT, stamp)

    raised = slot_map.raise_image(CAT, slot_map.next_sequence())
    assert not slot_map.is_alive(CAT, stamp)
    assert slot_map.is_alive(DOG, stamp)
    assert raised == slot_map.head() == slot_map.read(slot_map.image_slot(CAT))
    assert slot_map.is_alive(CAT, slot_map.head())

    stamp = slot_map.head()
    slot_map.raise_tenant("acme", slot_map.next_sequence())
    assert not slot_map.is_alive(DOG, stamp)
    assert slot_map.is_alive(DOG, slot_map.head())


def test_a_stamp_taken_before_the_raise_is_dead_even_with_the_number_of_the_row(tmp_path: Path) -> None:
    """A reader may see the number in head before the row is committed, and stamp an old file with it."""
    slot_map = new_map(tmp_path)
    row = slot_map.next_sequence()
    stamp = slot_map.head()

    assert row == stamp
    assert slot_map.raise_image(CAT, row) > row
    assert not slot_map.is_alive(CAT, stamp)


def test_a_late_raise_with_a_small_number_lowers_nothing(tmp_path: Path) -> None:
    """Slots only rise."""
    slot_map = new_map(tmp_path)
    high = slot_map.raise_image(CAT, 5000 * NUMBERS_PER_S)

    assert 5000 * NUMBERS_PER_S == high
    assert high <= slot_map.raise_image(CAT, 1)


def test_raises_of_many_processes_lose_nothing_and_no_number_is_given_twice(
    tmp_path: Path, fork: Fork, wait_for: Wait
) -> None:
    """Four processes, 100,000 raises over three slots: each slot ends at its highest, head at the count."""
    slot_map = new_map(tmp_path)
    start = slot_map.head()
    images = [ImageRef(tenant="acme", id=ImageId(letter * 16)) for letter in "abc"]

    def raise_many(process: int) -> None:
        dice = random.Random(process)
        own = SlotMap.open(tmp_path / "slots.map")
        highest = {image.id: 0 for image in images}
        for _ in range(25_000):
            image = dice.choice(images)
            before = own.read(own.image_slot(image))
            value = own.raise_image(image, 0)
            assert value > max(before, highest[image.id])
            highest[image.id] = value
        for image in images:
            assert own.read(own.image_slot(image)) >= highest[image.id]

    children = [fork(partial(raise_many, process)) for process in range(4)]
    assert [0, 0, 0, 0] == [wait_for(child) for child in children]
    assert start + 100_000 == slot_map.head()
    assert start + 100_000 == max(slot_map.read(slot_map.image_slot(image)) for image in images)


def test_threads_of_one_process_give_no_number_twice(tmp_path: Path) -> None:
    """Each critical section opens the file anew, so its lock holds inside a process too."""
    slot_map = new_map(tmp_path)
    given: list[int] = []
    threads = [
        threading.Thread(target=lambda: given.extend(slot_map.next_sequence() for _ in range(2000))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 8000 == len(set(given))


def test_no_old_file_appears_after_a_raise_whatever_the_race(tmp_path: Path, fork: Fork, wait_for: Wait) -> None:
    """Publishers stamp, compare and link for ever; after a raise and a removal no older stamp is seen."""
    slot_map = new_map(tmp_path)
    target = tmp_path / "file"

    def publish_for_ever() -> None:
        own = SlotMap.open(tmp_path / "slots.map")
        while True:
            stamp = own.head()
            fd = files.unnamed(str(tmp_path))
            files.write_all(fd, memoryview(stamp.to_bytes(8, "little")), 0)
            with own.publishing(CAT):
                if own.is_alive(CAT, stamp):
                    files.publish(fd, str(tmp_path), "file")
            os.close(fd)

    publishers = [fork(publish_for_ever) for _ in range(3)]
    seen = 0
    for _ in range(1500):
        raised = slot_map.raise_image(CAT, 0)
        target.unlink(missing_ok=True)
        for _ in range(5):
            try:
                stamp = int.from_bytes(target.read_bytes(), "little")
            except FileNotFoundError:
                continue
            seen += 1
            assert raised <= stamp
    for child in publishers:
        os.kill(child, signal.SIGKILL)
        assert -signal.SIGKILL == wait_for(child)
    assert seen > 0


@pytest.mark.parametrize("scope", ["image", "tenant"])
def test_a_raise_waits_for_a_publisher_of_the_same_process(tmp_path: Path, scope: str) -> None:
    """Otherwise a front could take an invalidation between another thread's comparison and its link."""
    slot_map = new_map(tmp_path)
    raised = threading.Event()

    def raise_it() -> None:
        if scope == "image":
            slot_map.raise_image(CAT, 0)
        else:
            slot_map.raise_tenant(CAT.tenant, 0)
        raised.set()

    thread = threading.Thread(target=raise_it)
    with slot_map.publishing(CAT), slot_map.publishing(CAT):
        thread.start()
        assert not raised.wait(0.1)
    thread.join()
    assert raised.is_set()


def test_the_map_outlives_its_processes(tmp_path: Path, fork: Fork, wait_for: Wait) -> None:
    """A process raises and is killed at once; another one opens the file and sees it."""
    new_map(tmp_path).close()

    def raise_and_die() -> None:
        SlotMap.open(tmp_path / "slots.map").raise_image(CAT, 7777 * NUMBERS_PER_S)
        os.kill(os.getpid(), signal.SIGKILL)

    assert -signal.SIGKILL == wait_for(fork(raise_and_die))
    assert SlotMap.open(tmp_path / "slots.map").read(slots.image_slot(CAT.id)) == 7777 * NUMBERS_PER_S


def test_rebuilding_takes_slots_from_the_rows_and_head_beyond_all(tmp_path: Path) -> None:
    """Rows of images and of tenants; what the old map said of slots is not believed."""
    old = new_map(tmp_path)
    old.raise_image(DOG, 0)
    stale = old.head()
    rows = [("acme", CAT.id, 40), ("acme", CAT.id, 30), ("other", None, 50)]
    slot_map = SlotMap.rebuild(tmp_path / "slots.map", rows, now_s=0)

    assert 40 == slot_map.read(slot_map.image_slot(CAT))
    assert 50 == slot_map.read(slot_map.tenant_slot("other"))
    assert 0 == slot_map.read(slot_map.image_slot(DOG))
    assert stale + NUMBERS_PER_S == slot_map.head()


def test_numbers_that_a_power_loss_undid_are_not_given_again(tmp_path: Path) -> None:
    """The map is lost with its newest numbers, the log knows only old rows: head still ends above."""
    slot_map = SlotMap.rebuild(tmp_path / "slots.map", [], now_s=1_000_000)
    stamp = max(slot_map.next_sequence() for _ in range(100))
    slot_map.close()
    (tmp_path / "slots.map").unlink()

    assert SlotMap.rebuild(tmp_path / "slots.map", [("acme", CAT.id, 3)], now_s=1_000_001).head() > stamp


@pytest.mark.parametrize("damage", [b"", b"short", bytes(8 * (HEADER_WORDS + IMAGE_SLOTS + slots.TENANT_SLOTS))])
def test_a_file_that_is_no_map_is_refused_and_rebuilt(tmp_path: Path, damage: bytes) -> None:
    """One sentence; a rebuild replaces it."""
    (tmp_path / "slots.map").write_bytes(damage)

    with pytest.raises(Misconfigured, match="damaged"):
        SlotMap.open(tmp_path / "slots.map")
    new_map(tmp_path).close()
    SlotMap.open(tmp_path / "slots.map").close()


@pytest.mark.parametrize("head", [2**64 - 1, 2**63 - 1, 2**53])
def test_a_head_that_was_never_given_out_is_damage(tmp_path: Path, head: int) -> None:
    """It does not end the start, nor do numbers go on from there."""
    new_map(tmp_path).close()
    with (tmp_path / "slots.map").open("r+b") as file:
        file.seek(8 * slots.HEAD_WORD)
        file.write(head.to_bytes(8, "little"))
    slot_map = SlotMap.rebuild(tmp_path / "slots.map", [], now_s=1_000)

    assert 1_000 * NUMBERS_PER_S == slot_map.head()


def test_a_head_of_a_clock_that_was_decades_ahead_is_kept(tmp_path: Path) -> None:
    """Also by a machine that begins at 1970: numbers never go back for that."""
    SlotMap.rebuild(tmp_path / "slots.map", [], now_s=4_000_000_000).close()
    slot_map = SlotMap.rebuild(tmp_path / "slots.map", [], now_s=0)

    assert 4_000_000_001 * NUMBERS_PER_S == slot_map.head()


def test_a_missing_map_is_refused(tmp_path: Path) -> None:
    """Only the node's start makes one."""
    with pytest.raises(Misconfigured, match="missing"):
        SlotMap.open(tmp_path / "slots.map")


def test_on_a_full_disk_a_map_is_an_error_and_no_later_bus_error(small_disk: Path) -> None:
    """All its bytes are written before it is mapped; the old map stays."""
    with pytest.raises(NoSpace):
        new_map(small_disk)
    assert [] == list(small_disk.iterdir())


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    """As with every resource."""
    slot_map = new_map(tmp_path)
    slot_map.close()
    slot_map.close()
