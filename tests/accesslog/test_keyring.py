"""Day keys."""

import multiprocessing
import os
import stat
from datetime import date, timedelta
from pathlib import Path

import pytest

from imgserve.adapters.accesslog.keyring import KeyRing
from imgserve.core.errors import Misconfigured

DAY = date(2026, 11, 23)


def _ask(
    keys_dir: Path, start: "multiprocessing.synchronize.Barrier", answers: "multiprocessing.Queue[tuple[int, bytes]]"
) -> None:
    ring = KeyRing(keys_dir)
    for days in range(20):
        start.wait(30)
        key = ring.key("demo", DAY + timedelta(days=days))
        assert key is not None
        answers.put((days, key.secret))


def test_racing_processes_agree(tmp_path: Path) -> None:
    """Eight processes that ask for a new day's key at once all get the same one, on each of twenty days."""
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(8), context.Queue()
    racers = [context.Process(target=_ask, args=(tmp_path, start, answers)) for _ in range(8)]
    for racer in racers:
        racer.start()
    given = [answers.get(timeout=30) for _ in range(160)]
    for racer in racers:
        racer.join()

    assert 20 == len(set(given))
    assert 20 == len({secret for _, secret in given})


def test_a_key_is_private_and_32_random_bytes(tmp_path: Path) -> None:
    """Mode 0600 in a folder of mode 0700, whatever the umask; other days and tenants have others."""
    umask = os.umask(0)
    try:
        ring = KeyRing(tmp_path / "keys")
        secrets = {ring.key(tenant, day).secret for tenant in "ab" for day in (DAY, DAY + timedelta(days=1))}  # type: ignore[union-attr]
    finally:
        os.umask(umask)
    path = tmp_path / "keys" / "a" / "2026-11-23.key"

    assert 4 == len(secrets)
    assert (0o600, 32) == (stat.S_IMODE(path.stat().st_mode), path.stat().st_size)
    assert {0o700} == {stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, path.parent.parent)}
    assert ["2026-11-23.key", "2026-11-24.key"] == sorted(os.listdir(path.parent))


def test_a_key_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    """A copy restored with loose rights is used, and tightened."""
    path = tmp_path / "demo" / "2026-11-23.key"
    path.parent.mkdir()
    path.write_bytes(b"k" * 32)
    path.chmod(0o644)

    assert KeyRing(tmp_path).key("demo", DAY) is not None
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("content", [b"", b"k" * 31, b"k" * 33, bytes(32)])
def test_a_damaged_key_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    """Short, long, empty and zeroed keys are unusable: no key is better than a second one for the same day."""
    path = tmp_path / "demo" / "2026-11-23.key"
    path.parent.mkdir()
    path.write_bytes(content)
    ring = KeyRing(tmp_path)

    assert (None, None, 2) == (ring.key("demo", DAY), ring.key("demo", DAY), ring.keys_unusable)
    assert content == path.read_bytes()


def test_a_link_is_no_key(tmp_path: Path) -> None:
    """A symbolic link in a key's place is not followed."""
    (tmp_path / "elsewhere").write_bytes(b"k" * 32)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "2026-11-23.key").symlink_to(tmp_path / "elsewhere")

    assert KeyRing(tmp_path).key("demo", DAY) is None


def test_no_folder_no_key(tmp_path: Path) -> None:
    """Where keys cannot be stored there are none; nothing is made up in memory."""
    (tmp_path / "keys").write_text("a file where the folder should be")
    ring = KeyRing(tmp_path / "keys")

    assert (None, 1) == (ring.key("demo", DAY), ring.keys_unusable)


@pytest.mark.parametrize("tenant", ["", ".", "..", "../demo", "a/b", "A", "a\0", "ä"])
def test_only_names_of_tenants_are_paths(tmp_path: Path, tenant: str) -> None:
    """A name that would lead elsewhere is refused before any file is touched."""
    with pytest.raises(ValueError, match="tenant"):
        KeyRing(tmp_path).key(tenant, DAY)


def test_a_destroyed_key_is_gone_for_all_processes(tmp_path: Path) -> None:
    """Another ring that still holds the key notices, and does not use it again; its bytes were overwritten."""
    one, other = KeyRing(tmp_path), KeyRing(tmp_path)
    before = other.key("demo", DAY)
    witness = os.open(tmp_path / "demo" / "2026-11-23.key", os.O_RDONLY)

    assert [True, False] == [one.destroy("demo", DAY), one.destroy("demo", DAY)]
    assert bytes(32) == os.read(witness, 64)
    os.close(witness)
    assert before != other.key("demo", DAY)


def test_only_keys_of_neighbouring_days_stay_in_memory(tmp_path: Path) -> None:
    """A front that runs for months does not keep what the disk has forgotten."""
    ring = KeyRing(tmp_path)
    for days in range(40):
        ring.key("demo", DAY + timedelta(days=days))

    assert {DAY + timedelta(days=38), DAY + timedelta(days=39)} == {day for _, day in ring._held}


def test_rows_can_tell_keys_of_one_day_apart(tmp_path: Path) -> None:
    """The id follows the key: replaced within its day, it is another one; read by another process, the same."""
    first = KeyRing(tmp_path).key("demo", DAY)
    again = KeyRing(tmp_path).key("demo", DAY)
    KeyRing(tmp_path).destroy("demo", DAY)
    second = KeyRing(tmp_path).key("demo", DAY)

    assert first is not None
    assert second is not None
    assert first == again
    assert first.id != second.id
    assert "secret" not in repr(first)


# ---- replacing a key within its day --------------------------------------------------------------


def _rotate(
    keys_dir: Path, start: "multiprocessing.synchronize.Barrier", answers: "multiprocessing.Queue[set[int]]"
) -> None:
    ring, seen = KeyRing(keys_dir), set()
    for _ in range(15):
        start.wait(30)
        seen.add(ring.rotate("demo", DAY).id)
        key = ring.key("demo", DAY)
        assert key is not None
        seen.add(key.id)
    answers.put(seen)


def test_replaced_keys_are_kept_whoever_replaces_them(tmp_path: Path) -> None:
    """Four processes that replace one key at once: every key that any of them ever saw in use is still held."""
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(4), context.Queue()
    racers = [context.Process(target=_rotate, args=(tmp_path, start, answers)) for _ in range(4)]
    for racer in racers:
        racer.start()
    seen = set().union(*(answers.get(timeout=30) for _ in racers))
    for racer in racers:
        racer.join()
    held = KeyRing(tmp_path).held("demo", DAY, DAY)[DAY]

    assert set() == seen - {key.id for key in held}
    assert 60 <= len(held) <= 61
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "demo").iterdir()}


def test_others_take_a_new_key_at_their_next_look(tmp_path: Path) -> None:
    """A ring that holds the old key sees that its file is another one."""
    one, other = KeyRing(tmp_path), KeyRing(tmp_path)
    before = other.key("demo", DAY)
    new = one.rotate("demo", DAY)

    assert new == other.key("demo", DAY)
    assert {before, new} == set(one.held("demo", DAY, DAY)[DAY])
    assert "secret" not in repr(one.held("demo", DAY, DAY))


def test_a_day_without_a_key_gets_one(tmp_path: Path) -> None:
    """Replacing what is not there makes it; a damaged key is replaced and not kept."""
    ring = KeyRing(tmp_path)
    new = ring.rotate("demo", DAY)
    assert new == ring.key("demo", DAY)
    (tmp_path / "demo" / "2026-11-24.key").write_bytes(b"short")
    mended = ring.rotate("demo", DAY + timedelta(days=1))

    assert mended == ring.key("demo", DAY + timedelta(days=1))
    assert (mended,) == ring.held("demo", DAY + timedelta(days=1), DAY + timedelta(days=1))[DAY + timedelta(days=1)]


def test_looking_for_keys_makes_none(tmp_path: Path) -> None:
    """Only the days asked for, only what can be used, and nothing new on disk."""
    ring = KeyRing(tmp_path)
    assert {} == ring.held("demo", DAY, DAY)
    for days in range(4):
        ring.key("demo", DAY + timedelta(days=days))
    (tmp_path / "demo" / "2026-11-24.key").write_bytes(b"short")
    before = sorted(os.listdir(tmp_path / "demo"))

    assert [DAY + timedelta(days=2)] == list(ring.held("demo", DAY + timedelta(days=1), DAY + timedelta(days=2)))
    assert (1, before) == (ring.keys_unusable, sorted(os.listdir(tmp_path / "demo")))


def test_all_keys_of_a_day_are_destroyed_together(tmp_path: Path) -> None:
    """Replaced ones too, their bytes overwritten; a day is named once however many keys it has."""
    ring = KeyRing(tmp_path)
    for _ in range(3):
        ring.rotate("demo", DAY)
    ring.key("demo", DAY + timedelta(days=1))
    witnesses = [os.open(path, os.O_RDONLY) for path in (tmp_path / "demo").glob("2026-11-23.*")]
    assert [("demo", DAY), ("demo", DAY + timedelta(days=1))] == list(ring.days())

    assert [True, False] == [ring.destroy("demo", DAY), ring.destroy("demo", DAY)]
    assert {bytes(32)} == {os.read(witness, 64) for witness in witnesses}
    assert ["2026-11-24.key"] == os.listdir(tmp_path / "demo")
    for witness in witnesses:
        os.close(witness)


def test_the_receipt_key_is_made_once(tmp_path: Path) -> None:
    """32 private bytes, the same for all; one that is damaged signs nothing."""
    ring = KeyRing(tmp_path / "keys")
    assert ring.known_receipt_key() is None
    key = ring.receipt_key()
    path = tmp_path / "keys" / "receipt.key"

    assert (32, key, key) == (len(key), KeyRing(tmp_path / "keys").receipt_key(), ring.known_receipt_key())
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    path.write_bytes(bytes(32))
    with pytest.raises(Misconfigured, match="damaged"):
        ring.receipt_key()
