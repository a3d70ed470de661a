"""Claims about HttpOrigin: it delivers whole originals or the right error, within its limits, whatever origins do."""

import asyncio
import contextlib
import errno
import gzip
import os
import ssl
import zlib
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network
from typing import Any

import pytest
import uvloop

from imgserve import __version__
from imgserve.adapters.origins.http import HttpOrigin, kept_hosts_max
from imgserve.adapters.origins.settings import Settings
from imgserve.core.errors import (
    Denied,
    ImgserveError,
    NoSpace,
    NotFound,
    OriginFailed,
    OverLimit,
    Overloaded,
    TimedOut,
)
from imgserve.core.originals import Original
from imgserve.core.tenants import Tenant

BODY = bytes(range(256)) * 300
Fetch = Callable[..., Awaitable[bytes]]
Serve = Callable[..., Awaitable[Any]]
MakeSettings = Callable[..., Settings]
Reply = Callable[..., bytes]


async def test_an_original_arrives_whole(serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply) -> None:
    """The bytes are the origin's, and the counters tell of them."""
    site = await serve(reply(BODY))
    async with HttpOrigin(settings()) as origin:
        assert BODY == await fetch(origin, site.base + "/a.jpg")
        assert (1, 0, len(BODY)) == (origin.fetches, origin.failures, origin.fetched_bytes)


async def test_the_request_carries_nothing_but_fixed_headers(
    serve: Serve,
    settings: MakeSettings,
    fetch: Fetch,
    reply: Reply,
    names: Any,
    resolver: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Path and query reach the origin byte for byte; no proxy variable, cookie or credential plays a part."""
    site = await serve(reply(BODY, "200 OK", "Set-Cookie: a=b; Path=/"))
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.9:9")
    target = "/%7Euser/%e4%C3%BC/a%2Fb//c/./d+e;f=1,2?x=%20&y=a+b&y=%26&&z"
    names.zone["photos.test"] = [["127.0.0.2"]]
    base = f"http://photos.test:{site.port}"
    async with HttpOrigin(settings(), resolver=resolver) as origin:
        for _ in range(2):
            await fetch(origin, base + target, allowed=("photos.test:*",))
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: photos.test:{site.port}",
        f"User-Agent: imgserve/{__version__}",
        "Accept: image/*, */*;q=0.1",
        "Accept-Encoding: identity",
    ]
    heads = [sorted(head.decode().strip().split("\r\n")) for head in site.heads]
    assert [sorted(lines)] * 2 == heads


async def test_connections_are_kept_for_the_next_fetch(
    serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply
) -> None:
    """Twenty fetches from one host, one connection."""
    site = await serve(reply(BODY))
    async with HttpOrigin(settings()) as origin:
        for _ in range(20):
            await fetch(origin, site.base + "/a.jpg")
    assert 1 == site.connections


async def test_idle_connections_are_bounded(
    serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply, names: Any, resolver: Any
) -> None:
    """Fetching from very many hosts leaves connections to a few of them open."""
    site = await serve(reply(BODY))
    async with HttpOrigin(settings(), resolver=resolver) as origin:
        for number in range(kept_hosts_max + 20):
            host = f"h{number}.test"
            names.zone[host] = [["127.0.0.2"]]
            await fetch(origin, f"http://{host}:{site.port}/", allowed=(f"{host}:*",))
        await _until(lambda: site.open_now <= kept_hosts_max)
        assert kept_hosts_max == site.open_now


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("404 Not Found", NotFound),
        ("410 Gone", NotFound),
        ("401 Unauthorized", OriginFailed),
        ("403 Forbidden", OriginFailed),
        ("429 Too Many Requests", OriginFailed),
        ("500 Oops", OriginFailed),
        ("502 Bad Gateway", OriginFailed),
        ("503 Busy", OriginFailed),
        ("206 Partial Content", OriginFailed),
        ("201 Created", OriginFailed),
        ("203 Transformed", OriginFailed),
        ("300 Multiple Choices", OriginFailed),
        ("304 Not Modified", OriginFailed),
        ("400 Bad Request", OriginFailed),
        ("418 Teapot", OriginFailed),
        ("999 What", OriginFailed),
    ],
)
async def test_only_200_is_an_original(
    status: str, expected: type[ImgserveError], serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply
) -> None:
    """404 and 410 are the origin's own word that there is no such image; all else is its failure."""
    site = await serve(reply(BODY, status))
    async with HttpOrigin(settings()) as origin:
        with pytest.raises(ImgserveError) as caught:
            await fetch(origin, site.base + "/a.jpg")
    assert expected is type(caught.value)
    assert not any(part in caught.value.public for part in ("127.0", str(site.port), "a.jpg"))


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"

BROKEN = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 20",
    "half a header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "no body": PLAIN % 100,
    "half a body": PLAIN % 100 + b"x" * 50,
    "90 % of a body": PLAIN % 100 + b"x" * 90,
    "99 % of a body": PLAIN % 100 + b"x" * 99,
    "a long body but its last byte": PLAIN % 300_000 + b"x" * 299_999,
    "chunked, no chunk": CHUNKED,
    "chunked, half a size": CHUNKED + b"1",
    "chunked, half a chunk": CHUNKED + b"64\r\n" + b"x" * 50,
    "chunked, no last chunk": CHUNKED + b"64\r\n" + b"x" * 100 + b"\r\n",
    "chunked, half a last chunk": CHUNKED + b"64\r\n" + b"x" * 100 + b"\r\n0\r\n",
    "chunked, bad size": CHUNKED + b"zz\r\nxx\r\n0\r\n\r\n",
    "chunked, too long a chunk": CHUNKED + b"2\r\nxxxx\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "length and chunked": CHUNKED.replace(b"Tr", b"Content-Length: 3\r\nTr", 1) + b"1\r\nx\r\n0\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
    "length in words": b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\nx",
    "empty body": PLAIN % 0,
    "empty chunked body": CHUNKED + b"0\r\n\r\n",
    "no HTTP": b"\x89PNG\r\n\x1a\n" + b"x" * 100 + b"\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
    "an endless header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    "very many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    "only 1xx": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3,
    "switching protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    "brotli": b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\nabc",
    "zstd": b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\nContent-Length: 3\r\n\r\nabc",
    "gzip twice": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: 3\r\n\r\nabc",
    "not gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\n\x89PNG\r\n\x1a\nx",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_connection_cut_in_any_phase_fails(
    name: str, serve: Serve, settings: MakeSettings, fetch: Fetch
) -> None:
    """Short, malformed and mislabelled answers are the origin's failure, never an original."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(BROKEN[name])
        await writer.drain()
        writer.close()

    site = await serve(answer)
    async with HttpOrigin(settings()) as origin:
        with pytest.raises(OriginFailed):
            await fetch(origin, site.base + "/a.jpg")
    assert 0 == origin.limit.running == origin.limit.waiting == len(origin.per_host)


async def test_a_refused_connection_fails(serve: Serve, settings: MakeSettings, fetch: Fetch) -> None:
    """Nobody listens there."""
    async with HttpOrigin(settings()) as origin:
        with pytest.raises(OriginFailed):
            await fetch(origin, "http://127.0.0.2:1/a.jpg")


async def test_an_unknown_name_fails(settings: MakeSettings, fetch: Fetch, names: Any, resolver: Any) -> None:
    """The name server knows no such host."""
    async with HttpOrigin(settings(), resolver=resolver) as origin:
        with pytest.raises(OriginFailed):
            await fetch(origin, "http://nowhere.test/a.jpg", allowed=("nowhere.test",))


@pytest.mark.parametrize("kind", ["chunked", "until close"])
async def test_a_body_of_unknown_length_arrives(kind: str, serve: Serve, settings: MakeSettings, fetch: Fetch) -> None:
    """Chunked, or delimited by the end of the connection."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if kind == "chunked":
            writer.write(CHUNKED + b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)
            await writer.drain()
            writer.close()

    site = await serve(answer)
    async with HttpOrigin(settings()) as origin:
        assert BODY == await fetch(origin, site.base + "/a.jpg")


async def test_an_announced_size_over_the_limit_is_refused_at_once(
    serve: Serve, settings: MakeSettings, fetch: Fetch
) -> None:
    """Content-Length is believed when it is too large: no body is waited for."""
    site = await serve(PLAIN % 1_000_001)
    async with HttpOrigin(settings(fetch_timeout_s=60.0)) as origin:
        with pytest.raises(OverLimit, match="max_original_bytes"):
            await fetch(origin, site.base + "/a.jpg")


async def test_an_endless_body_is_stopped_at_the_limit(serve: Serve, settings: MakeSettings) -> None:
    """What is over the limit is never written, and the origin is hung up on."""
    stopped = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        try:
            while not writer.is_closing():
                writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
                await writer.drain()
        finally:
            stopped.set()

    site = await serve(answer)
    fd = os.memfd_create("original")
    try:
        async with HttpOrigin(settings()) as origin:
            with pytest.raises(OverLimit):
                tenant = Tenant(name="demo", allowed_origins=("127.0.0.2:*",))
                await origin.fetch(Original(location=site.base + "/a"), tenant, fd)
            async with asyncio.timeout(5):
                await stopped.wait()
        assert os.fstat(fd).st_size <= 1_000_000
    finally:
        os.close(fd)


async def test_an_endless_compressed_body_that_unpacks_to_nothing_is_stopped(
    serve: Serve, settings: MakeSettings, fetch: Fetch
) -> None:
    """What arrives is counted as well as what it unpacks to: a gzip header may hold a name without end."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + b"\x1f\x8b\x08\x08" + bytes(6))
        while not writer.is_closing():
            writer.write(b"x" * 65_536)
            await writer.drain()

    site = await serve(answer)
    async with HttpOrigin(settings(fetch_timeout_s=20.0)) as origin:
        with pytest.raises(OverLimit):
            await fetch(origin, site.base + "/a.svg")


async def test_a_body_of_exactly_the_limit_is_taken(
    serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply
) -> None:
    """The limit is the largest size that is allowed."""
    site = await serve(reply(BODY))
    async with HttpOrigin(settings(max_original_bytes=len(BODY))) as origin:
        assert BODY == await fetch(origin, site.base + "/a.jpg")
    async with HttpOrigin(settings(max_original_bytes=len(BODY) - 1)) as origin:
        with pytest.raises(OverLimit):
            await fetch(origin, site.base + "/a.jpg")


@pytest.mark.parametrize("coding", ["gzip", "X-GZIP", "deflate", "identity, gzip"])
async def test_a_compressed_body_is_unpacked(
    coding: str, serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply
) -> None:
    """Stores of ready-compressed SVG send it although it was not asked for."""
    packed = zlib.compress(BODY) if coding == "deflate" else gzip.compress(BODY)
    site = await serve(reply(packed, "200 OK", f"Content-Encoding: {coding}"))
    async with HttpOrigin(settings()) as origin:
        assert BODY == await fetch(origin, site.base + "/a.svg")


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(BODY)[:-1], gzip.compress(BODY)[:-9], gzip.compress(BODY) + b"x", gzip.compress(BODY) * 2,
     gzip.compress(BODY)[:-8] + b"\0" * 8, b"\x1f\x8b"],
)  # fmt: skip
async def test_a_damaged_compressed_body_fails(
    packed: bytes, serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply
) -> None:
    """Cut before its end, with a wrong checksum, or with bytes behind it."""
    site = await serve(reply(packed, "200 OK", "Content-Encoding: gzip"))
    async with HttpOrigin(settings()) as origin:
        with pytest.raises(OriginFailed):
            await fetch(origin, site.base + "/a.svg")


async def test_a_compression_bomb_is_stopped_at_the_limit(serve: Serve, settings: MakeSettings, reply: Reply) -> None:
    """200 MB of zeros in 200 KB: no more than the limit is ever unpacked."""
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(200)) + packer.flush()
    site = await serve(reply(bomb, "200 OK", "Content-Encoding: gzip"))
    fd = os.memfd_create("original")
    try:
        async with HttpOrigin(settings()) as origin:
            with pytest.raises(OverLimit):
                tenant = Tenant(name="demo", allowed_origins=("127.0.0.2:*",))
                await origin.fetch(Original(location=site.base + "/a"), tenant, fd)
        assert os.fstat(fd).st_size <= 1_000_000
    finally:
        os.close(fd)


@pytest.mark.parametrize("phase", ["accept", "head", "body", "redirect"])
async def test_a_slow_origin_times_out(phase: str, serve: Serve, settings: MakeSettings, fetch: Fetch) -> None:
    """Bytes that trickle in, in whatever phase, don't stretch the limit of the whole fetch."""
    hop = 0

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal hop
        hop += 1
        if phase == "redirect":
            await asyncio.sleep(0.15)
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: /%d\r\nContent-Length: 0\r\n\r\n" % hop)
            return
        text = {"accept": b"", "head": b"HTTP/1.1 200 OK\r\n", "body": PLAIN % 1000}[phase]
        writer.write(text)
        while not writer.is_closing():
            writer.write(b"x" if phase != "accept" else b"")
            await asyncio.sleep(0.02)

    site = await serve(answer)
    started = asyncio.get_running_loop().time()
    async with HttpOrigin(settings(fetch_timeout_s=0.4, connect_timeout_s=0.3)) as origin:
        with pytest.raises(TimedOut):
            await fetch(origin, site.base + "/a.jpg")
    assert 0.39 <= asyncio.get_running_loop().time() - started < 2.0
    assert 0 == origin.limit.running == len(origin.per_host)


async def test_a_silent_name_server_times_out(settings: MakeSettings, fetch: Fetch, names: Any, resolver: Any) -> None:
    """The look-up counts as part of connecting."""
    names.is_silent = True
    async with HttpOrigin(settings(connect_timeout_s=0.2, fetch_timeout_s=5.0), resolver=resolver) as origin:
        started = asyncio.get_running_loop().time()
        with pytest.raises(TimedOut):
            await fetch(origin, "http://slow.test/a.jpg", allowed=("slow.test",))
        assert asyncio.get_running_loop().time() - started < 2.0


async def test_a_cancelled_fetch_gives_its_place_back(serve: Serve, settings: MakeSettings, fetch: Fetch) -> None:
    """The place, the connection and the queue are as before."""
    asked = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.sleep(30)

    site = await serve(answer)
    async with HttpOrigin(settings()) as origin:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_swallow(fetch(origin, site.base + "/a.jpg")))
            await asked.wait()
            assert 1 == origin.limit.running
            task.cancel()
        assert 0 == origin.limit.running == len(origin.per_host)
        await _until(lambda: site.open_now <= 1)


async def test_redirects_are_followed_up_to_the_limit(
    serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply
) -> None:
    """Three by default, of each kind; a fourth is too many, and so is a loop."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        left = int(head.split(b" ")[1].removeprefix(b"/"))
        code = (301, 302, 303, 307, 308)[left % 5]
        writer.write(reply(b"moved", f"{code} Moved", f"Location: {left - 1}") if left else reply(BODY))

    site = await serve(answer)
    async with HttpOrigin(settings()) as origin:
        for count in range(4):
            assert BODY == await fetch(origin, f"{site.base}/{count}")
        with pytest.raises(OriginFailed, match="redirects"):
            await fetch(origin, f"{site.base}/4")

    loop = await serve(reply(b"", "302 Found", "Location: /a.jpg"))
    async with HttpOrigin(settings()) as origin:
        with pytest.raises(OriginFailed, match="redirects"):
            await fetch(origin, loop.base + "/a.jpg")
    assert 4 == len(loop.heads)


@pytest.mark.parametrize(
    "header", ["", "Location: ", "Location: http://[::1", "Location: ftp://a.b/", "Location: \x01"]
)
async def test_a_redirect_to_nowhere_fails(
    header: str, serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply
) -> None:
    """No Location, or one that names no HTTP place."""
    site = await serve(reply(b"", "302 Found", *([header] if header else [])))
    async with HttpOrigin(settings(redirects_max=1)) as origin:
        with pytest.raises((OriginFailed, Denied)):
            await fetch(origin, site.base + "/a.jpg")


async def test_every_hop_is_checked_against_the_allow_list(
    serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply
) -> None:
    """An allowed origin can't lead to one that isn't, and never learns that it was asked for."""
    other = await serve(reply(BODY))
    site = await serve(reply(b"", "302 Found", f"Location: {other.base}/b.jpg"))
    async with HttpOrigin(settings()) as origin:
        with pytest.raises(Denied):
            await fetch(origin, site.base + "/a.jpg", allowed=(f"127.0.0.2:{site.port}",))
        assert 0 == other.connections
        both = (f"127.0.0.2:{site.port}", f"127.0.0.2:{other.port}")
        assert BODY == await fetch(origin, site.base + "/a.jpg", allowed=both)


async def test_an_alias_is_allowed_by_itself_and_stays_on_its_host(
    serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply
) -> None:
    """No allow-list is needed for it; its redirects may go about its own host, elsewhere only by the list."""
    other = await serve(reply(BODY))

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        path = head.split(b" ")[1]
        if path == b"/shop/here":
            writer.write(reply(b"", "302 Found", "Location: /moved/a.jpg"))
        elif path == b"/shop/away":
            writer.write(reply(b"", "302 Found", f"Location: {other.base}/b.jpg"))
        else:
            writer.write(reply(BODY))

    site = await serve(answer)
    root = site.base + "/shop"
    async with HttpOrigin(settings()) as origin:
        assert BODY == await fetch(origin, root + "/a.jpg", allowed=(), root=root)
        assert BODY == await fetch(origin, root + "/here", allowed=(), root=root)
        with pytest.raises(Denied):
            await fetch(origin, root + "/away", allowed=(), root=root)
        assert 0 == other.connections
        assert BODY == await fetch(origin, root + "/away", allowed=(f"127.0.0.2:{other.port}",), root=root)
        for path in ("/../secret", "/%2e%2e/secret", "ping/a.jpg"):
            with pytest.raises(Denied):
                await fetch(origin, root + path, allowed=("127.0.0.2:*",), root=root)


async def test_a_slow_host_takes_neither_the_places_nor_the_queue_of_others(
    serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply
) -> None:
    """With its own places and its share of the queue full a host is Overloaded, while another one is served."""
    asked: asyncio.Queue[None] = asyncio.Queue(100)

    async def hang(head: bytes, writer: asyncio.StreamWriter) -> None:
        asked.put_nowait(None)
        await asyncio.sleep(30)

    slow = await serve(hang, host="127.0.0.3")
    site = await serve(reply(BODY))
    networks = (IPv4Network("127.0.0.2/31"),)
    limits = settings(allow_private=networks, concurrent_max=3, concurrent_per_host_max=2, queue_max=8)
    async with HttpOrigin(limits) as origin, asyncio.TaskGroup() as group:
        url = f"http://127.0.0.3:{slow.port}/"
        tasks = [group.create_task(_swallow(fetch(origin, url, allowed=("127.0.0.3:*",)))) for _ in range(4)]
        await asked.get()
        await asked.get()
        assert (2, 0) == (origin.limit.running, origin.limit.waiting)
        with pytest.raises(Overloaded):
            await fetch(origin, url, allowed=("127.0.0.3:*",))
        assert BODY == await fetch(origin, site.base + "/a.jpg")
        for task in tasks:
            task.cancel()


async def test_the_queue_of_all_hosts_is_bounded(serve: Serve, settings: MakeSettings, fetch: Fetch) -> None:
    """One place, one that waits; the third is told at once."""
    asked = asyncio.Event()

    async def hang(head: bytes, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.sleep(30)

    site = await serve(hang)
    limits = settings(concurrent_max=1, concurrent_per_host_max=4, queue_max=1)
    async with HttpOrigin(limits) as origin, asyncio.TaskGroup() as group:
        tasks = [group.create_task(_swallow(fetch(origin, site.base + "/a.jpg"))) for _ in range(2)]
        await asked.wait()
        await _until(lambda: origin.limit.waiting == 1)
        with pytest.raises(Overloaded):
            await fetch(origin, site.base + "/a.jpg")
        for task in tasks:
            task.cancel()


async def test_a_full_disk_is_no_space(serve: Serve, settings: MakeSettings, reply: Reply) -> None:
    """/dev/full answers every write as a full disk does."""
    site = await serve(reply(BODY))
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        async with HttpOrigin(settings()) as origin:
            with pytest.raises(NoSpace) as caught:
                tenant = Tenant(name="demo", allowed_origins=("127.0.0.2:*",))
                await origin.fetch(Original(location=site.base + "/a"), tenant, fd)
        assert isinstance(caught.value.__cause__, OSError)
        assert errno.ENOSPC == caught.value.__cause__.errno
    finally:
        os.close(fd)


async def test_https_is_verified(
    serve: Serve,
    settings: MakeSettings,
    fetch: Fetch,
    reply: Reply,
    tls_server: ssl.SSLContext,
    tls_client: ssl.SSLContext,
    names: Any,
    resolver: Any,
) -> None:
    """A certificate of an unknown authority, or for another name, fails; the right one is served."""
    site = await serve(reply(BODY), tls=tls_server)
    names.zone["secure.test"] = names.zone["other.test"] = [["127.0.0.2"]]
    allowed = ("secure.test:*", "other.test:*")
    async with HttpOrigin(settings(), resolver=resolver) as origin:
        with pytest.raises(OriginFailed):
            await fetch(origin, f"https://secure.test:{site.port}/", allowed=allowed)
    async with HttpOrigin(settings(), resolver=resolver, tls=tls_client) as origin:
        assert BODY == await fetch(origin, f"https://secure.test:{site.port}/", allowed=allowed)
        with pytest.raises(OriginFailed, match="certificate"):
            await fetch(origin, f"https://other.test:{site.port}/", allowed=allowed)


async def test_https_does_not_lead_down_to_http(
    serve: Serve,
    settings: MakeSettings,
    fetch: Fetch,
    reply: Reply,
    tls_server: ssl.SSLContext,
    tls_client: ssl.SSLContext,
) -> None:
    """Nothing is asked over the unencrypted hop, although the allow-list opens it."""
    plain = await serve(reply(BODY))
    site = await serve(reply(b"", "302 Found", f"Location: {plain.base}/a.jpg"), tls=tls_server)
    async with HttpOrigin(settings(), tls=tls_client) as origin:
        with pytest.raises(Denied, match="https"):
            await fetch(origin, f"https://127.0.0.2:{site.port}/a.jpg")
    assert 0 == plain.connections


async def test_after_closing_nothing_is_fetched(
    serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply
) -> None:
    """Closing twice is closing once; a late fetch fails instead of opening a connection that nobody closes."""
    site = await serve(reply(BODY))
    origin = HttpOrigin(settings())
    await fetch(origin, site.base + "/a.jpg")
    await origin.close()
    await origin.close()
    with pytest.raises(OriginFailed):
        await fetch(origin, site.base + "/a.jpg")
    await _until(lambda: site.open_now == 0)


def test_it_runs_on_uvloop(settings: MakeSettings, fetch: Fetch, reply: Reply) -> None:
    """The loop of the fronts: a fetch, a refusal by the guard, a name from the system's resolver."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(BODY, "200 OK", "Connection: close"))
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(connected, "127.0.0.2", 0)
        port = server.sockets[0].getsockname()[1]
        async with HttpOrigin(settings()) as origin:
            assert BODY == await fetch(origin, f"http://127.0.0.2:{port}/a.jpg")
            for host in ("127.0.0.1", "localhost"):
                with pytest.raises(Denied):
                    await fetch(origin, f"http://{host}:{port}/a.jpg", allowed=(f"{host}:*",))
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def _swallow(work: Awaitable[bytes]) -> None:
    with contextlib.suppress(ImgserveError):
        await work


async def test_running_out_of_descriptors_is_overload(
    serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply, descriptors_left: Any
) -> None:
    """The origin did not fail: a socket could not be made."""
    site = await serve(reply(BODY))
    original = Original(location=site.base + "/a.jpg", root="", by_alias=False)
    tenant = Tenant(name="demo", allowed_origins=("127.0.0.2:*",))
    async with HttpOrigin(settings()) as origin:
        fd = os.memfd_create("original")
        with descriptors_left(0), pytest.raises(Overloaded):
            await origin.fetch(original, tenant, fd)
        os.close(fd)
        assert BODY == await fetch(origin, site.base + "/a.jpg")
