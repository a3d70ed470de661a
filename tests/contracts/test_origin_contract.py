"""What every Origin promises, whatever kind of place it is."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from urllib.parse import quote

import pytest

from imgserve.adapters.origins.http import HttpOrigin
from imgserve.adapters.origins.local import LocalFolder
from imgserve.adapters.origins.router import Origins
from imgserve.adapters.origins.settings import Settings
from imgserve.core.errors import Denied, NoSpace, NotFound, OriginFailed, OverLimit
from imgserve.core.originals import Original
from imgserve.core.tenants import Tenant
from imgserve.interfaces import Origin

BODY = bytes(range(256)) * 1000
SETTINGS = Settings(allow_private=(IPv4Network("127.0.0.2/32"),), max_original_bytes=len(BODY), fetch_timeout_s=5.0)
TENANT = Tenant(name="demo")


@dataclass
class Site:
    """An origin and the root of an alias into it, under which ``put`` places originals."""

    origin: Origin
    root: str
    put: Callable[[str, bytes], None]

    def original(self, name: str) -> Original:
        return Original(location=f"{self.root}/{quote(name)}", root=self.root, by_alias=True)


@pytest.fixture(params=["http", "local", "router to http", "router to local"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """Each kind of origin, with the same originals."""
    files: dict[str, bytes] = {}

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = files.get(head.split(b" ")[1].decode())
        status = "404 Not Found" if body is None else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body or b'')}\r\nConnection: close\r\n\r\n".encode())
        writer.write(body or b"")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    def put_file(name: str, body: bytes) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(body)

    def put_answer(name: str, body: bytes) -> None:
        files["/shop/" + quote(name)] = body

    server = await asyncio.start_server(connected, "127.0.0.2", 0)
    port = server.sockets[0].getsockname()[1]
    async with HttpOrigin(SETTINGS) as web, LocalFolder(SETTINGS) as folder:
        routed = Origins({"http": web, "file": folder})
        kind: str = request.param
        if kind.endswith("http"):
            yield Site(routed if "router" in kind else web, f"http://127.0.0.2:{port}/shop", put_answer)
        else:
            yield Site(routed if "router" in kind else folder, tmp_path.as_uri(), put_file)
    server.close()
    await server.wait_closed()


@pytest.fixture
def target() -> Iterator[int]:
    """An empty unnamed file."""
    fd = os.memfd_create("original")
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    "name", ["a.jpg", "summer/a.jpg", "a b.jpg", "ü.jpg", "100%.jpg", "a%2Fb.jpg", "a+b&c=d.jpg", "a?b.jpg"]
)
async def test_the_bytes_arrive_from_offset_zero(site: Site, name: str, target: int) -> None:
    """Whole, counted, wherever the descriptor's own position is, which is left alone."""
    site.put(name, BODY)
    os.lseek(target, 1000, os.SEEK_SET)
    fetched = await site.origin.fetch(site.original(name), TENANT, target)
    assert len(BODY) == fetched.size_bytes == os.fstat(target).st_size
    assert BODY == os.pread(target, len(BODY), 0)
    assert 1000 == os.lseek(target, 0, os.SEEK_CUR)


async def test_the_descriptor_stays_the_callers(site: Site, target: int) -> None:
    """It is open after success and after failure."""
    site.put("a.jpg", BODY)
    await site.origin.fetch(site.original("a.jpg"), TENANT, target)
    with pytest.raises(NotFound):
        await site.origin.fetch(site.original("missing.jpg"), TENANT, target)
    os.fstat(target)


async def test_a_missing_original_is_not_found(site: Site, target: int) -> None:
    """And nothing is written."""
    with pytest.raises(NotFound):
        await site.origin.fetch(site.original("missing.jpg"), TENANT, target)
    assert 0 == os.fstat(target).st_size


async def test_an_original_over_the_limit_is_refused(site: Site, target: int) -> None:
    """No byte beyond the limit is written, and the public text names the limit."""
    site.put("a.jpg", BODY + b"x")
    with pytest.raises(OverLimit) as caught:
        await site.origin.fetch(site.original("a.jpg"), TENANT, target)
    assert f"{len(BODY):,}" in caught.value.public
    assert os.fstat(target).st_size <= len(BODY)


async def test_an_empty_original_is_a_failure(site: Site, target: int) -> None:
    """It is no image, and must not be remembered as one."""
    site.put("a.jpg", b"")
    with pytest.raises(OriginFailed):
        await site.origin.fetch(site.original("a.jpg"), TENANT, target)


@pytest.mark.parametrize("path", ["../a.jpg", "%2e%2e/a.jpg", "x/../../a.jpg", "..%2fa.jpg"])
async def test_no_original_lies_outside_its_alias(site: Site, path: str, target: int) -> None:
    """Dots don't lead out of the root."""
    site.put("a.jpg", BODY)
    original = Original(location=f"{site.root}/{path}", root=site.root, by_alias=True)
    with pytest.raises(Denied):
        await site.origin.fetch(original, TENANT, target)


async def test_an_alias_is_believed_only_about_its_own_root(site: Site, target: int) -> None:
    """A root that the location doesn't lie under opens nothing; nor does the location without alias."""
    site.put("a.jpg", BODY)
    location = site.original("a.jpg").location
    for original in (
        Original(location=location, root=site.root + "/summer", by_alias=True),
        Original(location=location, root=site.root, by_alias=False),
        Original(location=location),
    ):
        with pytest.raises(Denied):
            await site.origin.fetch(original, TENANT, target)


async def test_a_full_disk_is_told(site: Site) -> None:
    """NoSpace, so that the caller may serve from memory."""
    site.put("a.jpg", BODY)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(NoSpace):
            await site.origin.fetch(site.original("a.jpg"), TENANT, full)
    finally:
        os.close(full)


async def test_many_fetches_at_once(site: Site) -> None:
    """Each gets its own bytes."""

    async def one(number: int) -> bool:
        fd = os.memfd_create("original")
        try:
            await site.origin.fetch(site.original(f"{number}.jpg"), TENANT, fd)
            return os.pread(fd, 100, 0) == b"%d" % number
        finally:
            os.close(fd)

    for number in range(40):
        site.put(f"{number}.jpg", b"%d" % number)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(40)]
    assert [True] * 40 == [task.result() for task in tasks]
