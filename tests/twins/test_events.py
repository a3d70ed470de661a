"""The ring of hit events."""

import gc
import weakref
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgserve.fast import _events, _events_py


def push(ring: Any, number: int) -> None:
    ring.push(number, f"template {number}", "192.0.2.1", b"x" if number % 2 else None, number + 1, 200, number + 2)


def expected(number: int) -> tuple[object, ...]:
    return number, f"template {number}", "192.0.2.1", b"x" if number % 2 else None, number + 1, 200, number + 2


def test_events_come_out_as_they_went_in(events: ModuleType) -> None:
    """First in, first out, also when the ring has gone round."""
    ring = events.EventRing(3)
    for start in range(0, 20, 2):
        push(ring, start)
        push(ring, start + 1)
        assert 2 == len(ring)
        assert [expected(start), expected(start + 1)] == ring.drain(10)
    assert [] == ring.drain(10)
    assert 0 == ring.dropped


def test_a_full_ring_drops_and_counts(events: ModuleType) -> None:
    """It never grows: what has no room is dropped, the older stay."""
    ring = events.EventRing(4)
    for number in range(10):
        push(ring, number)
    assert (4, 4, 6) == (len(ring), ring.capacity, ring.dropped)
    assert [expected(0), expected(1), expected(2)] == ring.drain(3)
    assert [expected(3)] == ring.drain(3)


def test_drained_events_are_let_go(events: ModuleType) -> None:
    """The ring keeps no reference to what has left it."""

    class Template:
        pass

    ring = events.EventRing(2)
    template = Template()
    gone = weakref.ref(template)
    ring.push(0, template, template, None, 0, 200, 0)
    del template
    ring.drain(1)
    gc.collect()
    assert None is gone()


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_ring_without_room_is_refused(events: ModuleType, capacity: int) -> None:
    """A capacity under one is a mistake."""
    with pytest.raises(ValueError, match="room for at least one event"):
        events.EventRing(capacity)


@given(capacity=st.integers(1, 6), steps=st.lists(st.integers(-3, 12)))
def test_the_twins_agree(capacity: int, steps: list[int]) -> None:
    """Any order of pushes and drains leaves both with the same events."""
    compiled, twin = _events.EventRing(capacity), _events_py.EventRing(capacity)
    for step in steps:
        if step > 6:
            assert twin.drain(step - 6) == compiled.drain(step - 6)
        else:
            push(twin, step)
            push(compiled, step)
        assert (len(twin), twin.dropped) == (len(compiled), compiled.dropped)
