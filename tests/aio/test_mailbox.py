"""The mailbox: packets from many processes to one."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

import pytest
import uvloop

from imgserve.aio.mailbox import PAYLOAD_BYTES_MAX, Receiver, Sender, make_pair

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A sending and a receiving end."""
    ends = make_pair()
    yield ends
    for end in ends:
        end.close()


LOOPS = pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


def _run(make_loop: Callable[[], asyncio.AbstractEventLoop], work: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(work)


async def _take(packets: AsyncIterator[tuple[bytes, bytes]], count: int) -> list[bytes]:
    """The next payloads; all but the last are consumed."""
    return [(await anext(packets))[1] for _ in range(count)]


@LOOPS
def test_order_and_tags_are_kept(pair: Pair, make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Packets arrive in order, with their tags, and the stream ends when all senders are gone."""
    sender = Sender(pair[0])
    expected = [(bytes([65 + number % 2]), str(number).encode()) for number in range(500)]

    async def work() -> None:
        assert all(sender.try_send(tag, payload) for tag, payload in expected)
        pair[0].close()

        assert expected == [packet async for packet in Receiver(pair[1]).packets()]

    _run(make_loop, work())
    assert (500, 0) == (sender.sent, sender.dropped)


@LOOPS
def test_a_waiting_receiver_hears_of_a_new_packet(
    pair: Pair, make_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A receiver that found nothing wakes up for the next packet, and for the request to finish."""

    async def work() -> None:
        receiver = Receiver(pair[1])
        packets = receiver.packets()
        async with asyncio.timeout(5):
            first = asyncio.ensure_future(anext(packets))
            await asyncio.sleep(0)  # it waits now
            Sender(pair[0]).try_send(b"L", b"news")

            assert (b"L", b"news") == await first

            ending = asyncio.ensure_future(anext(packets, None))
            await asyncio.sleep(0)
            receiver.finish()

            assert await ending is None

    _run(make_loop, work())


async def test_what_was_not_dealt_with_is_seen_again(pair: Pair) -> None:
    """A packet is consumed only when the next one is asked for: a successor sees the unfinished one first."""
    sender = Sender(pair[0])
    for number in range(3):
        sender.try_send(b"L", str(number).encode())
    first = Receiver(pair[1]).packets()

    assert [b"0", b"1"] == await _take(first, 2)

    await first.aclose()  # type: ignore[attr-defined]

    assert [b"1", b"2"] == await _take(Receiver(pair[1]).packets(), 2)


def test_a_killed_keeper_loses_nothing(pair: Pair) -> None:
    """After a kill -9 between looking and consuming, the next process sees the same packet, and all that follow."""
    Sender(pair[0]).try_send(b"L", b"one")
    Sender(pair[0]).try_send(b"L", b"two")
    told, telling = os.pipe()

    async def look_only() -> None:
        async for _, payload in Receiver(pair[1]).packets():
            os.write(telling, payload)
            signal.pause()

    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(look_only())
        finally:
            os._exit(1)

    assert b"one" == os.read(told, 10)

    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(told)
    os.close(telling)

    async def succeed() -> None:
        assert [b"one", b"two"] == await _take(Receiver(pair[1]).packets(), 2)

    asyncio.run(succeed())


def test_a_full_mailbox_refuses_and_counts(pair: Pair) -> None:
    """A full queue neither blocks nor cuts: the packet is refused as a whole, and counted."""
    sender = Sender(pair[0])
    while sender.try_send(b"L", bytes(PAYLOAD_BYTES_MAX)):
        assert sender.sent < 100_000

    assert 1 == sender.dropped
    assert sender.sent > 0

    pair[1].recv(1)

    assert sender.try_send(b"L", bytes(PAYLOAD_BYTES_MAX))


def test_what_is_no_packet_is_an_error(pair: Pair) -> None:
    """A payload over the limit and a tag of another length raise ValueError and send nothing."""
    sender = Sender(pair[0])
    for tag, payload in ((b"L", bytes(PAYLOAD_BYTES_MAX + 1)), (b"", b"x"), (b"LL", b"x")):
        with pytest.raises(ValueError, match="one tag byte"):
            sender.try_send(tag, payload)

    assert (0, 0) == (sender.sent, sender.dropped)


async def test_nobody_reads_any_more(pair: Pair) -> None:
    """When the receiving end is gone for good, sending is refused without a signal."""
    pair[1].close()
    sender = Sender(pair[0])

    assert not sender.try_send(b"L", b"x")
    assert 1 == sender.dropped


def test_many_processes_send(pair: Pair) -> None:
    """Packets of many processes arrive whole, each process's in its own order."""
    pids = []
    for sending in range(4):
        pid = os.fork()
        if pid == 0:
            sender = Sender(pair[0])
            done = all(sender.try_send(b"C", b"%d %d " % (sending, number) + bytes(1000)) for number in range(200))
            os._exit(0 if done else 1)
        pids.append(pid)
    pair[0].close()
    numbers: dict[int, list[int]] = {sending: [] for sending in range(4)}

    async def receive() -> None:
        async for _, payload in Receiver(pair[1]).packets():
            process, number, rest = payload.split(b" ", 2)
            assert bytes(1000) == rest
            numbers[int(process)].append(int(number))

    asyncio.run(receive())

    assert {sending: list(range(200)) for sending in range(4)} == numbers
    assert [0] * 4 == [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


async def test_other_tasks_get_a_turn(pair: Pair) -> None:
    """A full mailbox does not starve the other tasks of the loop."""
    for _ in range(100):
        Sender(pair[0]).try_send(b"L", b"x")
    receiver = Receiver(pair[1])
    seen_at_turn = []

    async def other() -> None:
        while True:
            seen_at_turn.append(seen)
            await asyncio.sleep(0)

    seen = 0
    async with asyncio.TaskGroup() as group:
        task = group.create_task(other())
        receiver.finish()
        async for _ in receiver.packets():
            seen += 1
        task.cancel()

    assert 100 == seen
    assert len(seen_at_turn) >= 90
