"""How soon a child that died is replaced."""

from imgserve.node.restarts import Restarts


def test_an_old_child_is_replaced_at_once() -> None:
    """A child that has lived for a while is replaced without a pause, however often it dies."""
    restarts = Restarts()

    assert [0.0] * 20 == [restarts.delay_s("front0", lived_s=1.0, was_ready=True) for _ in range(20)]


def test_a_stillborn_child_waits_longer_each_time() -> None:
    """Pauses double from 0.1 to 5 s; another slot has its own count; being ready once begins anew."""
    restarts = Restarts()
    pauses = [restarts.delay_s("front0", lived_s=9, was_ready=False) for _ in range(10)]

    assert [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5] == pauses
    assert restarts.is_hopeless
    assert 0 == restarts.delay_s("front1", lived_s=9, was_ready=False)
    assert 0 == restarts.delay_s("front0", lived_s=9, was_ready=True)
    assert not restarts.is_hopeless


def test_a_child_that_dies_of_its_work_is_back_within_a_second() -> None:
    """One that was ready and dies young is soon replaced, even the hundredth time: others wait for it."""
    restarts = Restarts()
    pauses = [restarts.delay_s("worker0", lived_s=0.05, was_ready=True) for _ in range(100)]

    assert [0.0] * 3 + [0.25] * 97 == pauses
    assert not restarts.is_hopeless
    assert 0 == restarts.delay_s("worker0", lived_s=5, was_ready=True)
    assert 0 == restarts.delay_s("worker0", lived_s=0.05, was_ready=True)
