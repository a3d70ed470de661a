"""Files appear at once and whole; a full disk and a kill leave nothing half-done."""

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imgserve.core.errors import Misconfigured, NoSpace
from imgserve.disk import files
from imgserve.disk.files import LocalDisk

Fork = Callable[[Callable[[], object]], int]
Wait = Callable[[int], int]


def write_and_publish(folder: Path, name: str, body: bytes) -> None:
    fd = files.unnamed(str(folder))
    try:
        files.write_all(fd, memoryview(body), 0)
        files.publish(fd, str(folder), name)
    finally:
        os.close(fd)


def test_publishing_replaces_what_had_the_name_and_makes_the_folder(tmp_path: Path) -> None:
    """Folders get mode 0700, files 0600; open readers keep what they had; no other name is left."""
    folder = tmp_path / "a" / "b"
    write_and_publish(folder, "file", b"old")
    with (folder / "file").open("rb") as reader:
        write_and_publish(folder, "file", b"new")
        assert b"old" == reader.read()

    assert b"new" == (folder / "file").read_bytes()
    assert ["file"] == os.listdir(folder)
    assert 0o700 == folder.stat().st_mode & 0o777
    assert 0o600 == (folder / "file").stat().st_mode & 0o777


def test_kill_9_in_mid_publish_never_shows_a_part_and_the_sweep_leaves_nothing_else(
    tmp_path: Path, fork: Fork, wait_for: Wait
) -> None:
    """Forty writers are killed while they publish; a reader looks all the time."""
    folder = tmp_path / "images"
    wholes = {bytes([number]) * 50_000 for number in range(8)}
    seen = 0

    def write_for_ever() -> None:
        while True:
            for number in range(8):
                write_and_publish(folder, "file", bytes([number]) * 50_000)

    for _ in range(40):
        child = fork(write_for_ever)
        looks = 0
        while looks < 10:
            try:
                assert (folder / "file").read_bytes() in wholes
            except FileNotFoundError:
                continue
            looks += 1
            seen += 1
        os.kill(child, signal.SIGKILL)
        assert -signal.SIGKILL == wait_for(child)
    assert 400 == seen
    left = [name for name in os.listdir(folder) if name != "file"]
    assert len(left) == files.sweep(str(tmp_path))
    assert ["file"] == os.listdir(folder)


def test_a_writer_stopped_between_link_and_rename_leaves_one_dot_name(tmp_path: Path) -> None:
    """The sweep takes it away by age, at any depth, with set-aside folders; named files stay."""
    deep = tmp_path / "tenants" / "acme" / "images" / "ab"
    write_and_publish(deep, "file", b"x")
    write_and_publish(deep, ".0123456789abcdef", b"half")
    write_and_publish(tmp_path / "tenants" / "acme" / ".dead-images" / "ab", "file", b"x")
    assert 0 == files.sweep(str(tmp_path), before_s=1.0)
    assert 2 == files.sweep(str(tmp_path))
    assert 0 == files.sweep(str(tmp_path))
    assert ["file"] == os.listdir(deep)
    assert ["images"] == os.listdir(tmp_path / "tenants" / "acme")
    assert 0 == files.sweep(str(tmp_path / "missing"))


def test_publishers_and_a_remover_of_empty_folders_do_not_hurt_each_other(tmp_path: Path, fork: Fork) -> None:
    """The folder may vanish between any two calls of a publisher: it makes it again."""
    folder = tmp_path / "images" / "ab"

    def remove_for_ever() -> None:
        disk = LocalDisk()
        while True:
            disk.unlink(f"{folder}/file")
            disk.remove_folder(str(folder))
            time.sleep(random.uniform(0, 0.0002))  # a remover that never rests could win every single turn

    fork(remove_for_ever)
    for _ in range(500):
        fd = files.unnamed(str(tmp_path))
        files.publish(fd, str(folder), "file")
        os.close(fd)
    assert ["images"] == os.listdir(tmp_path)


def test_a_full_disk_is_no_space_and_leaves_nothing(small_disk: Path) -> None:
    """A file system of 1 MB, filled for real."""
    with pytest.raises(NoSpace):
        write_and_publish(small_disk, "file", bytes(2_000_000))

    assert [] == os.listdir(small_disk)
    write_and_publish(small_disk, "file", bytes(500_000))
    assert files.LocalDisk().room(str(small_disk)).free_bytes < 600_000


def test_a_file_size_limit_is_no_space_too(tmp_path: Path, fork: Fork, wait_for: Wait) -> None:
    """RLIMIT_FSIZE answers EFBIG."""

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(NoSpace):
            write_and_publish(tmp_path, "file", bytes(2000))

    assert 0 == wait_for(fork(child))


def test_unlink_and_names_take_absence_for_an_answer(tmp_path: Path) -> None:
    """Whoever removes is never the only one."""
    disk = LocalDisk()
    write_and_publish(tmp_path / "a", "file", b"four")

    assert 4 == disk.unlink(f"{tmp_path}/a/file")
    assert None is disk.unlink(f"{tmp_path}/a/file")
    assert () == disk.names(f"{tmp_path}/missing")
    assert disk.remove_folder(f"{tmp_path}/missing")
    assert None is disk.set_aside(f"{tmp_path}/missing")
    disk.sync_folder(f"{tmp_path}/missing")
    assert (0, 0) == disk.remove_tree(f"{tmp_path}/missing")


def test_a_tree_is_removed_with_its_counts(tmp_path: Path) -> None:
    """Files and bytes go into the receipt."""
    for name in ("one", "two"):
        write_and_publish(tmp_path / "images" / name, "file", b"123")
    aside = LocalDisk().set_aside(str(tmp_path / "images"))

    assert aside is not None
    assert not (tmp_path / "images").exists()
    assert (2, 6) == files.remove_tree(aside)
    assert [] == os.listdir(tmp_path)


def test_a_symlink_is_not_opened(tmp_path: Path) -> None:
    """Nobody plants a name that leads out."""
    (tmp_path / "secret").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic"):
        LocalDisk().open_read(str(tmp_path / "link"))


def test_the_folder_check_passes_here_and_names_the_key_elsewhere(tmp_path: Path) -> None:
    """/proc has no unnamed files."""
    files.check(tmp_path)
    assert [] == os.listdir(tmp_path)
    with pytest.raises(Misconfigured, match=r"server\.data_dir"):
        files.check(Path("/proc"))


def test_the_boot_number_is_the_same_in_every_process(fork: Fork, wait_for: Wait) -> None:
    """It names the start of the kernel, not of the program."""
    here = files.boot()

    def child() -> None:
        files.boot.cache_clear()
        assert here == files.boot()

    assert 0 == wait_for(fork(child))
