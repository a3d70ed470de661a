"""What the cache decides: ages, bounds, and the order of leaving."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from imgserve.adapters.cache import rules
from imgserve.disk.files import Room

ROOMY = Room(free_bytes=500 * 10**9, total_bytes=10**12)


@dataclass(frozen=True)
class Item:
    """Something that takes room."""

    size_bytes: int


@given(age_s=st.integers(-(10**10), 10**10), life_s=st.integers(1, 10**9))
def test_a_file_lives_from_five_minutes_ahead_to_its_life(age_s: int, life_s: int) -> None:
    """Neither side has a gap."""
    assert (age_s < -300 or age_s >= life_s) == rules.has_expired(10**11, 10**11 + age_s, life_s)


def test_nothing_goes_below_the_bound_and_a_twentieth_more_above_it() -> None:
    """So that not each new file evicts one."""
    assert 0 == rules.bytes_to_free(1000, 1000, ROOMY)
    assert 51 == rules.bytes_to_free(1001, 1000, ROOMY)


def test_a_disk_that_others_fill_makes_the_cache_smaller() -> None:
    """A twentieth of it stays free, at most 1 GB."""
    full = Room(free_bytes=0, total_bytes=20_000)
    assert 1000 + 500 == rules.bytes_to_free(10_000, 40_000, full)
    assert 900 == rules.bytes_to_free(900, 40_000, full)
    assert 10**9 == rules.room_to_keep(10**12)
    assert rules.is_nearly_full(Room(free_bytes=499, total_bytes=20_000))
    assert not rules.is_nearly_full(Room(free_bytes=500, total_bytes=20_000))


@given(sizes=st.lists(st.integers(1, 100)), need=st.integers(-5, 2000))
def test_the_first_are_chosen_and_no_more_than_needed(sizes: list[int], need: int) -> None:
    """In order; without the last one it would not be enough."""
    items = [Item(size) for size in sizes]
    chosen = rules.choose(items, need)

    assert tuple(items[: len(chosen)]) == chosen
    total = sum(item.size_bytes for item in chosen)
    assert total >= min(need, sum(sizes))
    if chosen:
        assert total - chosen[-1].size_bytes < need


@given(st.integers(0, 10**12))
def test_files_take_whole_blocks(file_bytes: int) -> None:
    """Never less than their length, never a block more."""
    assert 0 <= rules.occupied_bytes(file_bytes) - file_bytes < 4096
