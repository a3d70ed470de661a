"""The cache on disk: what a reader may see after deaths, full disks, damage, time, and invalidations."""

import asyncio
import base64
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from imgserve.adapters.cache import rules
from imgserve.adapters.cache.store import DiskCache
from imgserve.adapters.cache.trailer import BOOT_FROM_END
from imgserve.core.errors import Overloaded, Superseded
from imgserve.core.originals import ImageId, ImageRef
from imgserve.disk import files
from imgserve.disk.slots import NUMBERS_PER_S
from imgserve.interfaces import FileMeta

VARIANT = "v-" + "a" * 26 + ".webp"
OTHER = "v-" + "b" * 26 + ".webp"
ORIGINAL = "o-main"
Make = Callable[[Path], Any]


def fill(path: Path) -> None:
    """Leave no block of the file system free."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert 0 == os.statvfs(path).f_bavail


async def test_a_file_gets_the_hash_of_its_body_as_tag(bench: Any) -> None:
    """Unless a tag is given."""
    file = await bench.put(VARIANT, b"body")
    digest = blake2b(b"body", digest_size=16).digest()
    assert base64.b32encode(digest).decode().strip("=").lower() == file.meta.etag
    file = await bench.put(VARIANT, b"body", etag="given")
    assert "given" == file.meta.etag


async def test_a_cached_file_cannot_be_written_through_its_descriptor(bench: Any) -> None:
    """It goes to workers, which read bytes from outside."""
    for file in (await bench.put(VARIANT, b"body"), await bench.cache.open(bench.image(), VARIANT)):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(file.fd, b"evil", 0)
        file.close()


@pytest.mark.parametrize(
    "name", ["../x", "o-", "v-short.webp", VARIANT + "/..", ".dot", "o-main\n", "v-" + "A" * 26 + ".x"]
)
async def test_no_name_leads_out_of_the_folder(bench: Any, name: str) -> None:
    """Names, ids and tenants are checked by shape."""
    with pytest.raises(ValueError, match="not a"):
        await bench.cache.open(bench.image(), name)
    with pytest.raises(ValueError, match="not a"):
        await bench.put(name, b"x")
    for image in (ImageRef(tenant="..", id=ImageId("a" * 16)), ImageRef(tenant="a", id=ImageId("../" * 6))):
        with pytest.raises(ValueError, match="not a"):
            await bench.cache.open(image, VARIANT)


async def test_age_counts_from_the_fetch_to_the_second(bench: Any) -> None:
    """Thirty days means thirty; from the future beyond five minutes means expired."""
    (await bench.put(VARIANT, b"body")).close()
    bench.at_s += 30 * 86_400 - 1
    assert b"body" == await bench.body(VARIANT)
    bench.at_s += 1
    assert None is await bench.body(VARIANT)
    assert 1 == bench.cache.expired

    (await bench.put(VARIANT, b"body")).close()
    bench.at_s -= 300
    assert b"body" == await bench.body(VARIANT)
    bench.at_s -= 1
    assert None is await bench.body(VARIANT)


async def test_a_404_is_remembered_for_a_minute_and_then_removed(bench: Any) -> None:
    """It has no body, and its file does not stay behind."""
    (await bench.put(ORIGINAL, b"", is_missing=True)).close()
    bench.at_s += 59
    assert b"" == await bench.body(ORIGINAL)
    bench.at_s += 1
    assert None is await bench.body(ORIGINAL)
    assert [] == os.listdir(bench.folder(bench.image()))
    assert [(bench.image().id, ORIGINAL)] == bench.removed


async def test_what_was_invalidated_while_it_was_made_is_born_dead(bench: Any) -> None:
    """Superseded, and no name appears; the same with a stamp from after is fine."""
    stamp = bench.slots.head()
    bench.slots.raise_image(bench.image(), 0)
    with pytest.raises(Superseded):
        await bench.put(VARIANT, b"old", stamp=stamp)
    assert not bench.folder(bench.image()).exists()

    (await bench.put(VARIANT, b"new")).close()
    assert b"new" == await bench.body(VARIANT)
    stamp = bench.slots.head()
    bench.slots.raise_tenant("acme", 0)
    with pytest.raises(Superseded):
        await bench.put(VARIANT, b"old", stamp=stamp)
    with pytest.raises(Superseded):
        await bench.put(VARIANT, b"old", stamp=stamp, in_memory=True)
    assert b"new" == await bench.body(VARIANT)
    assert 3 == bench.cache.superseded


async def test_readers_never_see_older_bytes_after_an_invalidation_returns(bench: Any) -> None:
    """Publishers stamp, dawdle and publish in a loop; each invalidation raises and removes, then looks."""
    stop = asyncio.Event()

    async def publish_for_ever() -> None:
        while not stop.is_set():
            stamp = bench.slots.head()
            await asyncio.sleep(0)
            try:
                (await bench.put(VARIANT, stamp.to_bytes(8, "little"), stamp=stamp)).close()
            except Superseded:
                continue

    seen = 0
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(publish_for_ever())
        for _ in range(200):
            raised = bench.slots.raise_image(bench.image(), 0)
            await bench.cache.remove(bench.image(), None)
            body = await bench.body(VARIANT)
            if body is not None:
                seen += 1
                assert raised <= int.from_bytes(body, "little")
        stop.set()
    assert seen > 0


async def test_a_stamp_is_rewritten_in_place(bench: Any) -> None:
    """In the file, in the open record, and for files that have no trailer in the record only."""
    (await bench.put(VARIANT, b"body")).close()
    stamp = bench.slots.raise_image(bench.image(), 0)
    file = await bench.cache.open(bench.image(), VARIANT)
    await bench.cache.restamp(file, stamp)
    assert stamp == file.meta.stamp
    file.close()
    file = await bench.cache.open(bench.image(), VARIANT)
    assert stamp == file.meta.stamp
    assert bench.slots.is_alive(bench.image(), file.meta.stamp)

    file = await bench.put(VARIANT, b"body", in_memory=True)
    await bench.cache.restamp(file, stamp + 1)
    assert (stamp + 1, 4) == (file.meta.stamp, os.fstat(file.fd).st_size)


async def test_a_stamp_that_this_node_never_gave_out_makes_a_file_absent(bench: Any) -> None:
    """No invalidation here could reach it."""
    (await bench.put(VARIANT, b"body", stamp=bench.slots.head() + NUMBERS_PER_S)).close()

    assert None is await bench.body(VARIANT)
    assert [] == os.listdir(bench.folder(bench.image()))


@pytest.mark.parametrize("damage", ["short", "long", "empty", "footer", "symlink"])
async def test_a_torn_trailer_makes_a_file_absent_and_removes_it(bench: Any, damage: str, tmp_path: Path) -> None:
    """And the image can be published again."""
    (await bench.put(VARIANT, b"body")).close()
    path = bench.folder(bench.image()) / VARIANT
    whole = path.read_bytes()
    broken = {
        "short": whole[:-1],
        "long": whole + b"x",
        "empty": b"",
        "footer": whole[:-64] + bytes(64),
        "symlink": b"",
    }
    path.unlink()
    if damage == "symlink":
        (tmp_path / "elsewhere").write_bytes(whole)
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_bytes(broken[damage])

    assert None is await bench.body(VARIANT)
    assert damage == "symlink" or not path.exists()
    (await bench.put(VARIANT, b"new")).close()
    assert b"new" == await bench.body(VARIANT)


async def test_a_body_is_checked_once_in_each_boot(bench: Any) -> None:
    """Holes that a power loss left in a body are found at the first open after it, whole bodies are read once."""
    (await bench.put(VARIANT, b"body")).close()
    (await bench.put(OTHER, b"body")).close()
    for name, change in ((VARIANT, b"body"), (OTHER, bytes(4))):
        path = bench.folder(bench.image()) / name
        with path.open("r+b") as file:
            file.write(change)
            file.seek(-BOOT_FROM_END, os.SEEK_END)
            file.write(bytes(8))  # as if it came from another boot

    assert b"body" == await bench.body(VARIANT)
    assert b"body" == await bench.body(VARIANT)
    assert 1 == bench.cache.verified
    assert None is await bench.body(OTHER)
    assert 1 == bench.cache.torn
    assert [VARIANT] == os.listdir(bench.folder(bench.image()))


async def test_removing_plans_leaves_the_others_and_the_original(bench: Any) -> None:
    """All classes of a plan go; counts and bytes come back; the keeper is told."""
    for name in (ORIGINAL, VARIANT, VARIANT.replace("webp", "avif"), OTHER):
        (await bench.put(name, b"12345")).close()
    size_bytes = (bench.folder(bench.image()) / VARIANT).stat().st_size

    removed = await bench.cache.remove(bench.image(), frozenset({"a" * 26}))
    assert (2, 2 * size_bytes) == (removed.files, removed.size_bytes)
    assert [ORIGINAL, OTHER] == sorted(os.listdir(bench.folder(bench.image())))
    removed = await bench.cache.remove(bench.image(), None)
    assert 2 == removed.files
    assert not bench.folder(bench.image()).exists()
    assert 4 == len(bench.removed)
    assert 0 == (await bench.cache.remove(bench.image(), None)).files


async def test_a_removal_takes_what_a_killed_publisher_left(bench: Any) -> None:
    """A dot-name may hold the very bytes that must be gone."""
    (await bench.put(VARIANT, b"body")).close()
    (bench.folder(bench.image()) / ".0123456789abcdef").write_bytes(b"old bytes")

    await bench.cache.remove(bench.image(), frozenset({"z" * 26}))
    assert [VARIANT] == os.listdir(bench.folder(bench.image()))


@pytest.mark.parametrize("scope", ["image", "tenant"])
async def test_a_removal_waits_for_a_publisher_between_link_and_rename(bench: Any, scope: str) -> None:
    """Else it would take the dot-name from under it."""
    done = threading.Event()

    def remove() -> None:
        asyncio.run(bench.cache.remove(bench.image(), None) if scope == "image" else bench.cache.remove_all("acme"))
        done.set()

    thread = threading.Thread(target=remove)
    with bench.slots.publishing(bench.image()):
        thread.start()
        assert not done.wait(0.1)
    thread.join()


async def test_removing_a_tenant_takes_all_its_images_and_nobody_elses(bench: Any) -> None:
    """Also while its publishers go on."""
    for letter in "abc":
        (await bench.put(VARIANT, b"body", image=bench.image(letter))).close()
    (await bench.put(VARIANT, b"body", image=bench.image("a", "other"))).close()
    bench.slots.raise_tenant("acme", 0)
    removed = await bench.cache.remove_all("acme")

    assert 3 == removed.files
    assert removed.size_bytes > 12
    assert [] == os.listdir(bench.data_dir / "tenants" / "acme")
    assert b"body" == await bench.body(VARIANT, bench.image("a", "other"))
    assert ["acme"] == bench.removed_tenants
    assert 0 == (await bench.cache.remove_all("nobody")).files
    (await bench.put(VARIANT, b"new")).close()
    assert b"new" == await bench.body(VARIANT)


async def test_on_a_full_disk_drafts_live_in_memory_and_are_served(small_bench: Any) -> None:
    """A file system of 1 MB, filled for real: before the draft, at the trailer, and emptied again."""
    bench = small_bench
    filler = bench.data_dir / "filler"
    (await bench.put(VARIANT, b"kept")).close()

    filler.write_bytes(bytes(900_000))
    draft = await bench.cache.draft("acme")
    os.pwrite(draft.fd, bytes(4000), 0)  # a part of the trailer still fits into its last block
    assert draft.is_stored
    fill(filler)
    image = bench.image()
    file = await bench.cache.publish(draft, image, OTHER, (await bench.put(OTHER, b"x", in_memory=True)).meta)
    assert not draft.is_stored
    assert (bytes(4000), 4000) == (os.pread(file.fd, 9000, 0), file.meta.body_bytes)
    assert None is await bench.body(OTHER)

    draft = await bench.cache.draft("acme")
    assert not draft.is_stored
    os.pwrite(draft.fd, b"from memory", 0)
    file = await bench.cache.publish(draft, image, OTHER, file.meta)
    assert b"from memory" == os.pread(file.fd, 100, 0)
    assert b"kept" == await bench.body(VARIANT)
    assert 2 == bench.cache.without_room

    filler.unlink()
    (await bench.put(OTHER, b"stored")).close()
    assert b"stored" == await bench.body(OTHER)


async def test_the_last_part_of_a_disk_is_left_to_the_logs(small_bench: Any) -> None:
    """A draft is in memory before the disk is full to the last byte."""
    bench = small_bench
    room = files.LocalDisk().room(str(bench.data_dir))
    (bench.data_dir / "filler").write_bytes(bytes(room.free_bytes - rules.room_to_keep(room.total_bytes) // 2))
    assert files.LocalDisk().room(str(bench.data_dir)).free_bytes > 0
    assert not (await bench.cache.draft("acme")).is_stored


def test_kill_9_in_mid_publish_leaves_whole_files_only(bench: Any) -> None:
    """Twenty processes publish through the real cache until they are killed: all is whole, and the rest is swept."""
    names = ["v-" + letter * 26 + ".webp" for letter in "abcd"]
    bodies = {bytes([number]) * 30_000 for number in range(4)}

    async def publish_for_ever() -> None:
        while True:
            for number, name in enumerate(names):
                (await bench.put(name, bytes([number]) * 30_000)).close()

    async def look() -> int:
        found = [await bench.body(name) for name in names]
        assert set(found) <= bodies | {None}
        return len(found) - found.count(None)

    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(publish_for_ever())
            finally:
                os._exit(1)
        looks = 0
        while looks < 5:
            looks += 4 == asyncio.run(look())
        os.kill(pid, signal.SIGKILL)
        assert -signal.SIGKILL == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    files.sweep(str(bench.data_dir))
    assert 0 == bench.cache.torn
    assert set(names) == set(os.listdir(bench.folder(bench.image())))


async def test_a_cancelled_publish_touches_no_other_file(bench: Any) -> None:
    """The thread works on a descriptor of its own, so the caller's number may be given to another file at once."""
    victims = []
    for number in range(30):
        draft = await bench.cache.draft("acme")
        os.pwrite(draft.fd, b"body", 0)
        meta = (await bench.put(OTHER, b"x", in_memory=True)).meta
        task = asyncio.ensure_future(bench.cache.publish(draft, bench.image(), VARIANT, meta))
        for _ in range(number % 3):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        draft.close()
        victim = os.memfd_create("victim")
        victims.append(victim)
    await asyncio.get_running_loop().shutdown_default_executor()
    assert [0] * 30 == [os.fstat(victim).st_size for victim in victims]
    for victim in victims:
        os.close(victim)


async def test_running_out_of_descriptors_is_overload_and_not_absence(bench: Any, descriptors_left: Any) -> None:
    """Else a burst would render what is cached."""
    (await bench.put(VARIANT, b"body")).close()
    with descriptors_left(0), pytest.raises(Overloaded):
        await bench.cache.open(bench.image(), VARIANT)
    assert b"body" == await bench.body(VARIANT)


@pytest.mark.parametrize("in_memory", [False, True])
async def test_making_a_file_without_descriptors_is_overload(
    bench: Any, descriptors_left: Any, *, in_memory: bool
) -> None:
    """At whichever step they run out; the same draft is published once there are some again."""
    with descriptors_left(0), pytest.raises(Overloaded):
        await bench.cache.draft("acme", in_memory=in_memory)
    draft = await bench.cache.draft("acme", in_memory=in_memory)
    meta = FileMeta(
        content_type="image/png", etag="", created_s=int(bench.at_s), stamp=bench.slots.head(), body_bytes=0
    )
    failures = 0
    file = None
    while file is None:
        try:
            with descriptors_left(failures):
                file = await bench.cache.publish(draft, bench.image(), VARIANT, meta)
        except Overloaded:
            failures += 1
    with descriptors_left(0), pytest.raises(Overloaded):
        bench.cache.share(file)
    file.close()
    draft.close()
    assert failures >= 2


async def test_a_stamp_that_cannot_be_written_for_lack_of_descriptors_is_no_failure(
    bench: Any, descriptors_left: Any
) -> None:
    """The file at hand is alive all the same."""
    file = await bench.put(VARIANT, b"body")
    with descriptors_left(0):
        await bench.cache.restamp(file, bench.slots.head() + 1)
    assert bench.slots.head() + 1 == file.meta.stamp
    file.close()


async def test_a_shared_handle_outlives_the_first(bench: Any) -> None:
    """Each receiver closes its own; a handle that nobody closed is closed when it is forgotten."""
    first = await bench.put(VARIANT, b"body")
    second = bench.cache.share(first)
    first.close()
    first.close()
    assert b"body" == os.pread(second.fd, 4, 0)
    third = bench.cache.share(second)
    number = third.fd
    del third
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_the_cache_is_built_without_touching_the_disk(tmp_path: Path, bench: Any) -> None:
    """A constructor stores, it does not start."""
    DiskCache(
        type(bench.settings)(data_dir=tmp_path / "absent"),
        slots=bench.slots,
        clock=bench,
        removals=bench.cache._removals,
    )
    assert not (tmp_path / "absent").exists()
