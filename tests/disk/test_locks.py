"""Byte-range locks: who excludes whom, and what a death frees."""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from imgserve.core.errors import Misconfigured, Overloaded
from imgserve.disk import locks
from imgserve.disk.locks import FORMAT_VERSION, LockFile

Fork = Callable[[Callable[[], object]], int]
FAR = 2**62 - 1


def test_without_a_descriptor_for_the_first_lock_the_process_is_overloaded(
    tmp_path: Path, descriptors_left: Callable[[int], AbstractContextManager[None]]
) -> None:
    """And it takes the lock once there is one again."""
    lock_file = LockFile(tmp_path / "locks")
    with descriptors_left(0), pytest.raises(Overloaded):
        lock_file.try_lock(FAR)

    assert lock_file.try_lock(FAR)


def test_a_folder_is_shared_or_held_alone(tmp_path: Path) -> None:
    """Each takes a descriptor of its own, so that threads of one process exclude each other too."""
    with locks.folder_lock(tmp_path, shared=True), locks.folder_lock(tmp_path, shared=True):
        entered = threading.Event()

        def enter() -> None:
            with locks.folder_lock(tmp_path):
                entered.set()

        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.1)
    thread.join(5)
    assert entered.is_set()


def test_two_opens_of_one_file_exclude_each_other_in_one_process(tmp_path: Path) -> None:
    """The lock belongs to the open file, so a second LockFile of the same process is refused."""
    first, second = LockFile(tmp_path / "locks"), LockFile(tmp_path / "locks")

    assert first.try_lock(FAR)
    assert not second.try_lock(FAR)
    assert second.try_lock(FAR - 1)
    assert second.is_locked(FAR)
    assert not second.is_locked(FAR - 1)
    first.unlock(FAR)
    assert second.try_lock(FAR)
    assert 0 == (tmp_path / "locks").stat().st_size


def test_one_object_does_not_lock_the_same_byte_twice(tmp_path: Path) -> None:
    """The kernel would grant it to itself again; two tasks of one process would both believe they have it."""
    file = LockFile(tmp_path / "locks")

    assert file.try_lock(10, 5)
    assert not file.try_lock(14)
    assert file.try_lock(15)
    assert 2 == file.held
    with pytest.raises(RuntimeError):
        file.lock(12)
    with pytest.raises(KeyError):
        file.unlock(99)


def test_shared_locks_go_together_and_keep_an_exclusive_one_out(tmp_path: Path) -> None:
    """Publishers do not wait for each other, a raise waits for all."""
    one, two, three = (LockFile(tmp_path / "locks") for _ in range(3))

    assert one.try_lock(7, shared=True)
    assert two.try_lock(7, shared=True)
    assert not three.try_lock(7)
    one.close()
    assert not three.try_lock(7)
    two.close()
    assert three.try_lock(7)


def test_kill_9_frees_the_lock_and_lock_waits_for_that(
    tmp_path: Path, fork: Fork, wait_for: Callable[[int], int]
) -> None:
    """A holder that dies without a word leaves nothing locked."""
    reads, writes = os.pipe()

    def hold() -> None:
        assert LockFile(tmp_path / "locks").try_lock(FAR)
        os.write(writes, b"x")
        signal.pause()

    child = fork(hold)
    os.read(reads, 1)
    mine = LockFile(tmp_path / "locks")
    assert not mine.try_lock(FAR)
    os.kill(child, signal.SIGKILL)
    mine.lock(FAR)

    assert 1 == mine.held
    assert -signal.SIGKILL == wait_for(child)


def test_a_forked_child_does_not_own_what_its_parent_locked(
    tmp_path: Path, fork: Fork, wait_for: Callable[[int], int]
) -> None:
    """A fork shares the open file; a LockFile opens its own there, and closing it frees nothing of the parent's."""
    mine = LockFile(tmp_path / "locks")
    assert mine.try_lock(5)

    def child() -> None:
        assert not mine.try_lock(5)
        assert mine.try_lock(6)
        mine.close()

    assert 0 == wait_for(fork(child))
    assert not LockFile(tmp_path / "locks").try_lock(5)


def test_what_a_forked_child_locks_excludes_its_parent(tmp_path: Path, fork: Fork) -> None:
    """With the descriptor of the parent both would own the same open file, and so each other's locks."""
    mine = LockFile(tmp_path / "locks")
    assert mine.try_lock(4)
    reads, writes = os.pipe()

    def hold() -> None:
        assert mine.try_lock(5)
        os.write(writes, b"x")
        signal.pause()

    fork(hold)
    os.read(reads, 1)
    assert not mine.try_lock(5)


def test_a_second_node_on_the_same_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    """Until the first one lets go."""
    owner = locks.own(tmp_path / "var")

    with pytest.raises(Misconfigured, match="another node uses this folder"):
        locks.own(tmp_path / "var")
    owner.close()
    owner.close()
    locks.own(tmp_path / "var").close()
    assert 0o700 == (tmp_path / "var").stat().st_mode & 0o777
    assert 0o600 == (tmp_path / "var" / "FORMAT").stat().st_mode & 0o777
    assert f"{FORMAT_VERSION}\n" == (tmp_path / "var" / "FORMAT").read_text()


def test_the_folder_is_owned_while_any_child_of_the_owner_lives(
    tmp_path: Path, fork: Fork, wait_for: Callable[[int], int]
) -> None:
    """After the death of a supervisor no second node may start beside its old fronts."""
    owner = locks.own(tmp_path / "var")
    child = fork(signal.pause)
    owner.close()

    with pytest.raises(Misconfigured):
        locks.own(tmp_path / "var")
    os.kill(child, signal.SIGKILL)
    wait_for(child)
    locks.own(tmp_path / "var").close()


@pytest.mark.parametrize(
    ("text", "sentence"), [("2\n", "a newer imgserve wrote it"), ("999", "upgrade"), ("what", "is damaged")]
)
def test_a_newer_or_damaged_format_is_refused_and_left_as_it_is(tmp_path: Path, text: str, sentence: str) -> None:
    """An older program never writes into a newer folder; the refusal holds no lock."""
    (tmp_path / "FORMAT").write_text(text)

    for _ in range(2):
        with pytest.raises(Misconfigured, match=sentence):
            locks.own(tmp_path)
    assert text == (tmp_path / "FORMAT").read_text()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    """The key is named."""
    (tmp_path / "file").write_text("")

    with pytest.raises(Misconfigured, match=r"server\.data_dir"):
        locks.own(tmp_path / "file" / "var")
