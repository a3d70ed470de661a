"""The fast path in front of a real aiohttp application, over real sockets, on both event loops."""

import asyncio
import mmap
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from imgserve.fast.answers import Answers
from imgserve.fast.events import EventRing
from imgserve.web import fast_path
from imgserve.web.fast_path import REPLAY, FastPaths, Replay, Settings

IMAGE_SLOT, TENANT_SLOT, STAMP = 8, 40, 7
DEADLINE_S = 10.0


@pytest.fixture
def words(tmp_path: Path) -> Iterator[memoryview]:
    """The words of a real map, as another process would raise them."""
    path = tmp_path / "slots.map"
    path.write_bytes(bytes(64 * 8))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        view = memoryview(mapped).cast("Q")
        yield view
        view.release()


class Front:
    """An application whose images can be replayed, behind a fast path."""

    def __init__(self, words: memoryview, settings: Settings) -> None:
        self.calls: list[str] = []
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()
        self.answers = Answers(64_000_000, words)
        self.events = EventRing(1000)
        self.settings = settings
        self.replay: Callable[[Replay], Replay] = lambda replay: replay
        self.adjust: Callable[[web.Response], object] = lambda response: response
        self.now_s = 1_700_000_000.0

    async def run(self) -> None:
        self.inner = fast_path.server(self.handle)
        self.paths = FastPaths(self.inner, self.answers, self.events, self.settings, now=lambda: self.now_s)
        self.server = await asyncio.get_running_loop().create_server(self.paths, "127.0.0.1", 0)
        self.port: int = self.server.sockets[0].getsockname()[1]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        name = request.path.split("/")[1]
        if name not in {"image", "slow", "last", "broken", "stream", "post"}:
            raise web.HTTPNotFound
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] = getattr(self, name)
        return await handler(request)

    async def image(self, request: web.BaseRequest) -> web.Response:
        self.calls.append(request.raw_path)
        body = bytes(range(256)) * (int(request.path.rpartition("/")[2]) // 256)
        negotiated = request.headers.get("Accept", "")
        request[REPLAY] = self.replay(
            Replay(
                body=body,
                expires_s=time.monotonic() + 60,
                stamp=STAMP,
                image_slot=IMAGE_SLOT,
                tenant_slot=TENANT_SLOT,
                accept_class=negotiated,
                epoch=self.paths.epoch,
                template=request.raw_path,
                headers={"Cache-Status": "imgserve; hit"},
            )
        )
        headers = {"ETag": '"x"', "Cache-Status": "imgserve; fwd=miss", "X-Range": request.headers.get("Range", "")}
        response = web.Response(body=body, content_type="image/webp", headers=headers)
        self.adjust(response)
        return response

    async def stream(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "20"})
        await response.prepare(request)
        for _ in range(20):
            await response.write(b"x")
            await asyncio.sleep(0.05)
        return response

    async def slow(self, request: web.BaseRequest) -> web.Response:
        self.calls.append(request.raw_path)
        self.started.set()
        await self.go_on.wait()
        return web.Response(text="slow")

    post = slow

    async def last(self, request: web.BaseRequest) -> web.Response:
        response = web.Response(text="last")
        response.force_close()
        return response

    async def broken(self, request: web.BaseRequest) -> web.Response:
        raise web.HTTPConflict(text="broken")

    async def stop(self) -> None:
        self.go_on.set()
        self.server.close()
        await self.inner.shutdown(1.0)
        await until(lambda: not self.paths.connections)
        self.answers.close()


@asynccontextmanager
async def running(words: memoryview, settings: Settings) -> AsyncIterator[Front]:
    front = Front(words, settings)
    await front.run()
    try:
        yield front
    finally:
        await front.stop()


@pytest.fixture
async def front(words: memoryview) -> AsyncIterator[Front]:
    async with running(words, Settings(forwarded_header=b"x-forwarded-for")) as front:
        yield front


async def until(is_so: Callable[[], object]) -> None:
    """Poll, with a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not is_so():
            await asyncio.sleep(0.001)


def has_got(front: Front, requests: int) -> bool:
    """Whether so many single requests have arrived, however they were answered."""
    return front.paths.handed_over + front.paths.counters()["hits"] == requests


class Client:
    """One connection; each ``send`` is one packet, as nothing else is under way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, packet: bytes) -> None:
        self.writer.write(packet)

    async def response(self, *, has_body: bool = True) -> tuple[bytes, bytes]:
        async with asyncio.timeout(DEADLINE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            assert found is not None
            return head, await self.reader.readexactly(int(found[1]) if has_body else 0)

    async def ask(self, packet: bytes, *, has_body: bool = True) -> tuple[bytes, bytes]:
        self.send(packet)
        return await self.response(has_body=has_body)

    async def is_closed(self) -> bool:
        """Waits for the end of the connection; False when more bytes come."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


@asynccontextmanager
async def connected(front: Front, *, receive_buffer_bytes: int = 0) -> AsyncIterator[Client]:
    plug = socket.socket()
    if receive_buffer_bytes:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    plug.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plug, ("127.0.0.1", front.port))
    reader, writer = await asyncio.open_connection(sock=plug, limit=1 << 17)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def packet(target: str = "/image/1024", *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {target} HTTP/1.1", "Host: a.example", *lines, "", "")).encode()


def without_date(head: bytes) -> bytes:
    return re.sub(rb"\r\nDate: [^\r]+", b"", head)


@pytest.mark.parametrize("size", [256, 1 << 20])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_replay_has_the_same_bytes(front: Front, method: str, size: int) -> None:
    """What is replayed is what aiohttp sent, header for header, but for the date and what the handler replaced."""
    async with connected(front) as client:
        request, has_body = packet(f"/image/{size}", method=method), method == "GET"
        slow = await client.ask(request, has_body=has_body)
        fast = await client.ask(request, has_body=has_body)
        assert fast == await client.ask(request, has_body=has_body)
    assert [f"/image/{size}"] == front.calls
    assert without_date(slow[0]).replace(b"fwd=miss", b"hit") == without_date(fast[0])
    assert b"\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n" in fast[0]
    assert slow[1] == fast[1]
    assert (size if method == "GET" else 0) == len(fast[1])
    names = [line.partition(b":")[0] for line in fast[0].split(b"\r\n")]
    assert names == [line.partition(b":")[0] for line in slow[0].split(b"\r\n")]


async def test_the_date_goes_on(front: Front) -> None:
    """Each replay carries the date of its own second."""
    async with connected(front) as client:
        await client.ask(packet())
        await client.ask(packet())
        front.now_s += 61
        assert b"Date: Tue, 14 Nov 2023 22:14:21 GMT\r\n" in (await client.ask(packet()))[0]


async def test_a_hit_becomes_an_event(front: Front) -> None:
    """Time, template, peer, forwarded header, duration, status and size of the replay; none for aiohttp's answers."""
    async with connected(front) as client:
        request = packet("/image/1024", "X-Forwarded-For: 203.0.113.7")
        await client.ask(request)
        assert [] == front.events.drain(10)
        head, body = await client.ask(request)
    ((time_s, template, peer, forwarded, duration_us, status, sent_bytes),) = front.events.drain(10)
    assert (1_700_000_000, "/image/1024", "127.0.0.1", b"203.0.113.7") == (time_s, template, peer, forwarded)
    assert (200, len(head) + len(body)) == (status, sent_bytes)
    assert 0 <= duration_us < 1_000_000


async def test_an_answer_is_for_its_own_request_only(front: Front) -> None:
    """Another method, Host, target or Accept is another request."""
    async with connected(front) as client:
        await client.ask(packet())
        others = (
            packet(method="HEAD"),
            packet().replace(b"a.example", b"b.example"),
            packet("/image/1024?w=1"),
            packet("/image/1024", "Accept: image/webp"),
        )
        for number, other in enumerate(others):
            await client.ask(other, has_body=number > 0)
            assert number + 2 == len(front.calls)


async def test_cookies_do_not_count(front: Front) -> None:
    """A site's cookies come with every image, and change nothing."""
    async with connected(front) as client:
        await client.ask(packet("/image/1024", "Cookie: a=1"))
        await client.ask(packet("/image/1024", "Cookie: a=2", "User-Agent: x"))
    assert 1 == len(front.calls)


@pytest.mark.parametrize("line", ["Range: bytes=0-9", "If-None-Match: *", "Authorization: Basic eDp5"])
async def test_what_changes_the_answer_goes_to_aiohttp_and_back(front: Front, line: str) -> None:
    """Such a request gets aiohttp's answer, which is not remembered; the connection keeps its fast path."""
    async with connected(front) as client:
        await client.ask(packet())
        for _ in range(2):
            await client.ask(packet("/image/1024", line))
        assert 3 == len(front.calls)
        head, _ = await client.ask(packet())
        assert b"X-Range: \r\n" in head
    assert (3, 0) == (len(front.calls), front.paths.retired)


@pytest.mark.parametrize("slot", [IMAGE_SLOT, TENANT_SLOT])
async def test_a_raised_slot_kills_the_answer(front: Front, words: memoryview, slot: int) -> None:
    """After another process has raised the image's or the tenant's slot, the old bytes are not sent again."""
    async with connected(front) as client:
        await client.ask(packet())
        words[slot] = STAMP
        await client.ask(packet())
        assert 1 == len(front.calls)
        words[slot] = STAMP + 1
        await client.ask(packet())
        assert 2 == len(front.calls)
        await client.ask(packet())
    assert (3, 1) == (len(front.calls), front.paths.counters()["hits"])


async def test_an_expired_answer_is_not_sent(front: Front) -> None:
    """The handler's time limit holds."""
    front.replay = lambda replay: replace(replay, expires_s=time.monotonic())
    async with connected(front) as client:
        await client.ask(packet())
        await client.ask(packet())
    assert (2, 1) == (len(front.calls), front.paths.counters()["expired"])


async def test_what_was_begun_before_a_reload_is_not_remembered(front: Front) -> None:
    """A response of the old configuration that ends after clear() is forgotten at once."""
    async with connected(front) as client:
        old_epoch = front.paths.epoch
        front.replay = lambda replay: replace(replay, epoch=old_epoch)
        front.paths.clear()
        await client.ask(packet())
        await client.ask(packet())
    assert (2, 2) == (len(front.calls), front.paths.counters()["refused"])


async def test_a_wrong_length_is_not_remembered(front: Front) -> None:
    """A body that is not the one that was sent would break the framing of all that follows."""
    front.replay = lambda replay: replace(replay, body=replay.body + b"x")
    async with connected(front) as client:
        await client.ask(packet())
        await client.ask(packet())
    assert 2 == len(front.calls)


async def test_an_error_is_not_remembered(front: Front) -> None:
    """Only a whole 200 is sent again."""
    front.adjust = lambda response: response.set_status(404)
    async with connected(front) as client:
        await client.ask(packet())
        await client.ask(packet())
    assert 2 == len(front.calls)


async def test_a_last_response_is_not_remembered(front: Front) -> None:
    """A "Connection: close" is for the one connection that got it."""
    front.adjust = lambda response: response.force_close()
    for _ in range(2):
        async with connected(front) as client:
            assert b"Connection: close" in (await client.ask(packet()))[0]
    assert 2 == len(front.calls)


async def test_more_classes_than_there_is_room_for_are_not_remembered(front: Front) -> None:
    """The number of classes of Accept is bounded; what is over it is answered by aiohttp."""
    async with connected(front) as client:
        for number in range(40):
            await client.ask(packet("/image/1024", f"Accept: image/{number}"))
        assert 40 == len(front.calls)
        await client.ask(packet("/image/1024", "Accept: image/30"))
        assert 40 == len(front.calls)
        await client.ask(packet("/image/1024", "Accept: image/31"))
    assert 41 == len(front.calls)


async def test_no_answer_overtakes_an_earlier_one(front: Front) -> None:
    """While aiohttp owes a response, remembered answers wait behind it; then the fast path speaks again."""
    async with connected(front) as client:
        await client.ask(packet())
        client.send(packet("/slow"))
        await front.started.wait()
        client.send(packet())
        await until(lambda: front.paths.handed_over == 3)
        front.go_on.set()
        assert [b"slow", bytes(range(256)) * 4] == [(await client.response())[1] for _ in range(2)]
        assert 3 == len(front.calls)
        await client.ask(packet())
    assert (3, 0) == (len(front.calls), front.paths.retired)


async def test_pipelined_requests_retire_the_fast_path(front: Front) -> None:
    """Two requests in one packet are aiohttp's, in their order, and so is all that follows."""
    async with connected(front) as client:
        await client.ask(packet())
        client.send(packet() + packet("/image/512"))
        assert [1024, 512] == [len((await client.response())[1]) for _ in range(2)]
        await client.ask(packet())
    assert (4, 1) == (len(front.calls), front.paths.retired)


@pytest.mark.parametrize("cut", [1, 5, 20, -1])
async def test_a_request_in_two_packets_is_aiohttps(front: Front, cut: int) -> None:
    """A head that comes in pieces is answered by aiohttp, and nothing is answered twice."""
    async with connected(front) as client:
        await client.ask(packet())
        client.send(packet()[:cut])
        await until(lambda: front.paths.retired)
        client.send(packet()[cut:])
        await client.response()
        await client.ask(packet())
    assert (3, 0) == (len(front.calls), front.paths.counters()["hits"])


async def test_a_body_is_never_taken_for_a_request(front: Front) -> None:
    """A body that looks like a remembered request is a body: the packet before it retired the fast path."""
    async with connected(front) as client:
        await client.ask(packet())
        smuggled = packet()
        client.send(packet("/post", f"Content-Length: {len(smuggled)}", method="POST"))
        await front.started.wait()
        client.send(smuggled)
        front.go_on.set()
        assert b"slow" == (await client.response())[1]
        assert b"slow" == (await client.ask(packet("/slow")))[1]
    assert ["/image/1024", "/post", "/slow"] == front.calls


async def test_connection_close_is_obeyed(front: Front) -> None:
    """A client that asks for the end gets aiohttp's answer and the end."""
    async with connected(front) as client:
        await client.ask(packet())
        head, _ = await client.ask(packet("/image/1024", "Connection: close"))
        assert b"Connection: close" in head
        assert await client.is_closed()


async def test_nothing_follows_a_last_response(front: Front) -> None:
    """After our own "Connection: close" no remembered answer is sent (RFC 9112 section 9.6)."""
    async with connected(front) as client:
        await client.ask(packet())
        connection = next(iter(front.paths.connections))
        client.send(packet("/last"))
        head, _ = await client.response()
        assert b"Connection: close" in head
        client.send(packet())
        assert await client.is_closed()
        # Even a packet that came before aiohttp closed, in the same turn of the loop.
        connection.data_received(packet())
    assert 1 == len(front.calls)
    assert 0 == front.paths.counters()["hits"]


async def test_errors_are_counted_like_other_responses(front: Front) -> None:
    """A handler's error leaves nothing owed; a head that only aiohttp refuses ends the connection."""
    async with connected(front) as client:
        await client.ask(packet())
        assert (await client.ask(packet("/broken")))[0].startswith(b"HTTP/1.1 409")
        assert (await client.ask(packet("/missing")))[0].startswith(b"HTTP/1.1 404")
        await client.ask(packet())
        assert (1, 1) == (len(front.calls), front.paths.counters()["hits"])
        assert (await client.ask(b"NONSENSE\r\n\r\n"))[0].startswith(b"HTTP/1.0 400")
        assert await client.is_closed()


async def test_a_slow_reader_is_not_fed_from_memory(front: Front) -> None:
    """While a reader does not keep up aiohttp answers it, one response at a time; in the end it has got them all."""
    count, size = 24, 1 << 20  # aiohttp stops reading at 32 requests
    async with connected(front, receive_buffer_bytes=4096) as client:
        await client.ask(packet(f"/image/{size}"))
        connection = next(iter(front.paths.connections))
        for number in range(count):
            client.send(packet(f"/image/{size}"))
            await until(partial(has_got, front, number + 2))
            assert connection._transport.get_write_buffer_size() < 2 * size + (1 << 17)
        for _ in range(count):
            assert size == len((await client.response())[1])
        await until(lambda: not connection._is_paused and not connection._owed)
    assert 1 <= front.paths.counters()["hits"] < count


async def test_a_client_that_leaves_is_forgotten(front: Front) -> None:
    """A connection that ends while aiohttp works, or before it said anything, leaves nothing behind."""
    async with connected(front) as client, connected(front):
        client.send(packet("/slow"))
        await front.started.wait()
        await until(lambda: len(front.paths.connections) == 2)
    await until(lambda: not front.paths.connections)
    front.go_on.set()
    async with connected(front) as client:
        await client.ask(packet())


async def test_small_packets_leave_at_once(front: Front) -> None:
    """Nagle's algorithm is off."""
    async with connected(front) as client:
        await client.ask(packet())
        plug = next(iter(front.paths.connections))._transport.get_extra_info("socket")
        assert 0 != plug.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


SHORT = Settings(head_timeout_s=0.1, idle_timeout_s=0.3, request_timeout_s=0.3, stall_timeout_s=0.2)


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(words: memoryview) -> None:
    """Replays count as life: only silence for the idle timeout ends a connection."""
    async with running(words, SHORT) as front, connected(front) as client:
        began = time.monotonic()
        await client.ask(packet())
        while time.monotonic() - began < 3 * SHORT.idle_timeout_s:
            await client.ask(packet())
            await asyncio.sleep(SHORT.idle_timeout_s / 10)
        assert 1 == len(front.calls)
        last = time.monotonic()
        assert await client.is_closed()
        assert SHORT.idle_timeout_s * 0.8 < time.monotonic() - last < SHORT.idle_timeout_s * 3
        assert 1 == front.paths.timed_out


async def test_a_client_that_says_nothing_is_closed(words: memoryview) -> None:
    """The first request must come soon."""
    async with running(words, SHORT) as front, connected(front) as client:
        assert await client.is_closed()


async def drip(client: Client) -> float:
    """Send a head byte by byte for as long as the connection lasts; how long that was."""
    began = time.monotonic()
    closed = asyncio.ensure_future(client.is_closed())
    while not closed.done() and time.monotonic() - began < DEADLINE_S:
        client.send(b"x")
        await asyncio.wait([closed], timeout=0.02)
    assert await closed
    return time.monotonic() - began


PATIENT = Settings(head_timeout_s=0.1)


@pytest.mark.parametrize("before", ["nothing", "a hit", "a response that comes later"])
async def test_a_head_that_never_ends_is_cut_off(words: memoryview, before: str) -> None:
    """Sending a head byte by byte keeps no connection open, whatever was asked before it."""
    async with running(words, PATIENT) as front, connected(front) as client:
        if before == "a hit":
            await client.ask(packet())
        elif before == "a response that comes later":
            client.send(packet("/slow"))
            await front.started.wait()
        if before != "nothing":
            # Long enough for the watch to settle for the idle timeout.
            await asyncio.sleep(3 * PATIENT.head_timeout_s)
        client.send(b"GET / HTTP/1.1\r\nX: ")
        await until(lambda: front.paths.retired)
        if before == "a response that comes later":
            front.go_on.set()
            await client.response()
        assert await drip(client) < 1.0


async def test_later_slow_heads_are_cut_off_too(words: memoryview) -> None:
    """On a retired connection a request has the request timeout, however many bytes drip in."""
    async with running(words, SHORT) as front, connected(front) as client:
        client.send(packet() * 2)
        await client.response()
        await client.response()
        client.send(b"GET / HTTP/1.1\r\nX: ")
        assert await drip(client) < 2.0


async def test_a_long_response_is_not_cut_off(words: memoryview) -> None:
    """A response that has begun may take its time, on a retired connection too."""
    async with running(words, SHORT) as front, connected(front) as client:
        client.send(packet("/stream", "Connection: close"))
        assert b"x" * 20 == (await client.response())[1]


async def test_a_slow_handler_is_waited_for(words: memoryview) -> None:
    """How long aiohttp may work is its handler's business, not the watch's."""
    async with running(words, SHORT) as front, connected(front) as client:
        client.send(packet("/slow"))
        await asyncio.sleep(3 * SHORT.idle_timeout_s)
        front.go_on.set()
        assert b"slow" == (await client.response())[1]


async def test_a_reader_that_stops_is_cut_off(words: memoryview) -> None:
    """Bytes that nobody takes are not kept for ever."""
    async with running(words, SHORT) as front, connected(front, receive_buffer_bytes=4096) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for asked in range(1, 4):
            client.send(packet("/image/4194304"))
            await until(partial(has_got, front, asked))
        await until(lambda: not front.paths.connections)
        assert 1 == front.paths.timed_out


async def test_close_idle_lets_the_busy_finish(front: Front) -> None:
    """When draining, silent connections end at once, others with their last response; nothing is replayed any more."""
    async with connected(front) as silent, connected(front) as busy:
        await silent.ask(packet())
        busy.send(packet("/slow"))
        await front.started.wait()
        assert 1 == front.paths.close_idle()
        assert await silent.is_closed()
        front.go_on.set()
        assert b"slow" == (await busy.response())[1]
        assert await busy.is_closed()
    async with connected(front) as late:
        await late.ask(packet())
    assert 0 == front.paths.counters()["hits"]


async def test_close_idle_leaves_what_it_cannot_know(front: Front) -> None:
    """A retired connection may have a request under way: it is not closed over its answer."""
    async with connected(front) as client:
        client.send(packet("/post", "Content-Length: 1", method="POST") + b"x")
        await front.started.wait()
        assert 0 == front.paths.close_idle()
        front.go_on.set()
        assert b"slow" == (await client.response())[1]


def test_settings_must_make_sense() -> None:
    """A time limit of nothing is a mistake."""
    with pytest.raises(ValueError, match="head_timeout_s = 0: must be above 0"):
        Settings(head_timeout_s=0)
