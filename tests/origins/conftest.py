"""Real origins on raw sockets, a real name server, and a watch over every connection that is attempted."""

import asyncio
import errno
import os
import socket
import ssl
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Network, ip_address
from typing import Any

import pytest
import trustme
from aiohttp.abc import AbstractResolver, ResolveResult

from imgserve.adapters.origins.settings import Settings
from imgserve.core.originals import Original
from imgserve.core.tenants import Tenant
from imgserve.interfaces import Origin

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
HOST = "127.0.0.2"  # the one address that tests allow; all others are forbidden


@dataclass
class RawOrigin:
    """An origin that answers each request head with whatever bytes ``answer`` writes."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0

    @property
    def base(self) -> str:
        return f"http://{HOST}:{self.port}"


def response(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole HTTP/1.1 answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[RawOrigin]]]:
    """Start origins: ``await serve(answer)``, where answer is bytes for every request, or a coroutine function."""
    servers: list[asyncio.Server] = []
    tasks: set[asyncio.Task[Any]] = set()

    async def start(
        answer: Answer | bytes, *, host: str = HOST, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> RawOrigin:
        origin = RawOrigin()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            origin.connections += 1
            origin.open_now += 1
            try:
                while not writer.is_closing():
                    head = await reader.readuntil(b"\r\n\r\n")
                    origin.heads.append(head)
                    if isinstance(answer, bytes):
                        writer.write(answer)
                    else:
                        await answer(head, writer)
                    await writer.drain()
            except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                pass
            finally:
                origin.open_now -= 1
                writer.transport.abort()
                tasks.discard(task)

        server = await asyncio.start_server(connected, host, port, ssl=tls)
        servers.append(server)
        origin.port = server.sockets[0].getsockname()[1]
        return origin

    yield start
    for server in servers:
        server.close()
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def settings() -> Callable[..., Settings]:
    """Settings that allow 127.0.0.2 and nothing else private, with short limits."""

    def make(**changes: Any) -> Settings:
        defaults: dict[str, Any] = {
            "allow_private": (IPv4Network(f"{HOST}/32"),),
            "connect_timeout_s": 2.0,
            "fetch_timeout_s": 4.0,
            "max_original_bytes": 1_000_000,
        }
        return Settings(**defaults | changes)

    return make


@pytest.fixture
def fetch() -> Callable[..., Awaitable[bytes]]:
    """Fetch a location into an unnamed file and give back its bytes."""

    async def run(origin: Origin, location: str, *, allowed: tuple[str, ...] = (f"{HOST}:*",), root: str = "") -> bytes:
        tenant = Tenant(name="demo", allowed_origins=allowed)
        fd = os.memfd_create("original")
        try:
            original = Original(location=location, root=root, by_alias=bool(root))
            fetched = await origin.fetch(original, tenant, fd)
            assert fetched.size_bytes == os.fstat(fd).st_size
            return os.pread(fd, fetched.size_bytes, 0)
        finally:
            os.close(fd)

    return run


@pytest.fixture
def reply() -> Callable[..., bytes]:
    """The maker of whole answers."""
    return response


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """An authority that only these tests know."""
    return trustme.CA()


@pytest.fixture
def tls_server(authority: trustme.CA) -> ssl.SSLContext:
    """A server's context with the certificate of secure.test and of this machine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("secure.test", "127.0.0.1", "127.0.0.2", "localhost").configure_cert(context)
    return context


@pytest.fixture
def tls_client(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that knows the authority of that certificate."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


# ---- every connection that Python attempts ---------------------------------------------------------

_watchers: list[list[tuple[str, int]]] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event != "socket.connect" or not _watchers or args[0].type != socket.SOCK_STREAM:
        return
    if args[0].family not in {socket.AF_INET, socket.AF_INET6}:
        return
    host, port = str(args[1][0]), int(args[1][1])
    for watcher in _watchers:
        watcher.append((host, port))
    address = ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    if not any(found.is_loopback or found.is_unspecified for found in (address, mapped or address)):
        raise OSError(errno.ENETUNREACH, "tests open no connection to the outside")


@cache
def _install_audit() -> None:
    sys.addaudithook(_audit)  # Can't be taken away again; idle without a watcher.


@pytest.fixture
def attempts() -> Iterator[list[tuple[str, int]]]:
    """Address and port of every TCP connect of this process. Those that would leave the machine are recorded,
    then stopped before the kernel sees them."""
    _install_audit()
    seen: list[tuple[str, int]] = []
    _watchers.append(seen)
    yield seen
    _watchers.remove(seen)


@dataclass
class Tripwire:
    """Listeners on all local addresses, IPv4 and IPv6, at one port; nobody may ever connect."""

    port: int
    sockets: list[socket.socket]

    def count(self) -> int:
        """How many connections came, also those that were closed meanwhile."""
        count = 0
        for listener in self.sockets:
            while True:
                try:
                    connection, _ = listener.accept()
                except BlockingIOError:
                    break
                connection.close()
                count += 1
        return count


@pytest.fixture
def tripwire() -> Iterator[Tripwire]:
    """The tripwire. The kernel completes each connect before the client goes on, so a count misses none."""
    with socket.socket() as first, socket.socket(socket.AF_INET6) as second:
        first.bind(("0.0.0.0", 0))
        port = first.getsockname()[1]
        listeners = [first]
        try:
            second.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            second.bind(("::", port))
            listeners.append(second)
        except OSError:
            pass  # No IPv6 here.
        for listener in listeners:
            listener.listen(1024)
            listener.setblocking(False)
        yield Tripwire(port, listeners)


# ---- a name server ---------------------------------------------------------------------------------


class NameServer(asyncio.DatagramProtocol):
    """Answers A and AAAA over UDP (RFC 1035). A name's answers take turns from query to query."""

    def __init__(self) -> None:
        self.zone: dict[str, list[list[str]]] = {}
        self.queries: Counter[str] = Counter()
        self.port = 0
        self.is_silent = False
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, address: Any) -> None:
        labels, position = [], 12
        while length := data[position]:
            labels.append(data[position + 1 : position + 1 + length].decode("latin-1"))
            position += 1 + length
        kind = struct.unpack_from(">H", data, position + 1)[0]
        name = ".".join(labels).lower()
        turns = self.zone.get(name, [[]])
        version, key = (4, f"{name} A") if kind == 1 else (6, f"{name} AAAA")
        turn = turns[self.queries[key] % len(turns)]
        self.queries[key] += 1
        if self.is_silent or self._transport is None:
            return
        packed = [found.packed for found in map(ip_address, turn) if found.version == version]
        records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 0, len(address)) + address for address in packed)
        code = 0 if name in self.zone else 3
        header = data[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(packed), 0, 0)
        self._transport.sendto(header + data[12 : position + 5] + records, address)


class UdpResolver(AbstractResolver):
    """A resolver that asks one name server over UDP, A and AAAA each time."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = [*await self._ask(host, 1), *await self._ask(host, 28)]
        if not found:
            raise OSError(errno.ENOENT, "no such name")
        return [
            ResolveResult(
                hostname=host,
                host=text,
                port=port,
                family=socket.AF_INET6 if ":" in text else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for text in found
        ]

    async def _ask(self, host: str, kind: int) -> list[str]:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", self._port))
            labels = [label.encode() for label in host.rstrip(".").split(".")]
            if not all(0 < len(label) < 64 for label in labels):
                raise OSError(errno.EINVAL, "no name")
            name = b"".join(bytes([len(label)]) + label for label in labels)
            await loop.sock_sendall(
                sock, struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + name + b"\0" + struct.pack(">HH", kind, 1)
            )
            data = await loop.sock_recv(sock, 4096)
        count = struct.unpack_from(">H", data, 6)[0]
        position, texts = 12 + len(name) + 5, []
        for _ in range(count):
            size = struct.unpack_from(">H", data, position + 10)[0]
            texts.append(str(ip_address(data[position + 12 : position + 12 + size])))
            position += 12 + size
        return texts

    async def close(self) -> None:
        pass


@pytest.fixture
async def names() -> AsyncIterator[NameServer]:
    """A name server on loopback."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    yield server
    transport.close()


@pytest.fixture
def resolver(names: NameServer) -> UdpResolver:
    """A resolver that asks the name server."""
    return UdpResolver(names.port)
