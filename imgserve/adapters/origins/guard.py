"""The network guard: a connection is opened only to an address that was checked.

Two hooks of aiohttp, both needed. The resolver sees all answers for a name and refuses it if one of them may
not be reached. The socket factory sees every address right before its connect, also literal ones that aiohttp
never resolves, so what was checked and what is connected to are the same thing and DNS has no second word.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Final

from aiohttp import AddrInfoType, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from imgserve.core.addresses import Address, Network, is_public, unwrapped
from imgserve.core.errors import Overloaded

answers_max: Final = 64
keepalive_s: Final = 10.0


class Refused(PermissionError):
    """A connection that the guard did not open. An OSError, because that is what aiohttp carries through."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "the address is not public, nor allowed and named")


class Guard:
    """Says which addresses may be connected to; counts in ``refused`` how often it said no."""

    def __init__(self, allow_private: Iterable[Network]) -> None:
        self._allow_private = tuple(allow_private)
        self.refused = 0

    def check(self, text: str, *, is_named: bool) -> None:
        """Raise Refused unless the address is public, or inside ``allow_private`` and its host was named
        literally by the tenant. What isn't an address in its usual spelling is refused."""
        try:
            address = unwrapped(ip_address(text))
        except ValueError:
            address = None
        if address is None or not self._may_be_reached(address, is_named=is_named):
            self.refused += 1
            raise Refused

    def _may_be_reached(self, address: Address, *, is_named: bool) -> bool:
        return is_public(address) or (is_named and any(address in network for network in self._allow_private))


class ThreadResolver(AbstractResolver):
    """The system's resolver in threads of its own: a slow name server holds up no other work of the process.

    ``getaddrinfo`` can't be interrupted, so a look-up may outlive its fetch; at most ``limit`` run at a time,
    more are Overloaded.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._threads: ThreadPoolExecutor | None = None
        self._running = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """See ``AbstractResolver``. Raises Overloaded when all threads are taken."""
        if self._running >= self._limit:
            raise Overloaded("all look-ups of host names are waiting for the name server")
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._limit, "resolve")
        self._running += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host, port, family)
        future.add_done_callback(self._finished)
        return await asyncio.shield(future)

    def _finished(self, future: "asyncio.Future[list[ResolveResult]]") -> None:
        self._running -= 1
        if not future.cancelled():
            future.exception()  # Marks it as seen where nobody waits any more.

    async def close(self) -> None:
        """Let the threads go; may be called again."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


def _look_up(host: str, port: int, family: int) -> list[ResolveResult]:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return [
        ResolveResult(hostname=host, host=str(address[0]), port=port, family=found, proto=protocol, flags=flags)
        for found, _, protocol, _, address in socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    ]


class CheckedResolver(AbstractResolver):
    """Another resolver, all of whose answers must pass the guard: one bad address condemns the name."""

    def __init__(self, inner: AbstractResolver, guard: Guard, *, is_named: bool) -> None:
        self._inner = inner
        self._guard = guard
        self._is_named = is_named

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """See ``AbstractResolver``. Raises Refused."""
        answers = (await self._inner.resolve(host, port, family))[:answers_max]
        for answer in answers:
            self._guard.check(answer["host"], is_named=self._is_named)
        return answers

    async def close(self) -> None:
        """The inner resolver belongs to whoever made it."""


def connector(
    guard: Guard,
    resolver: AbstractResolver,
    *,
    is_named: bool,
    is_kept: bool,
    dns_cache_s: int,
    tls: ssl.SSLContext | None,
) -> TCPConnector:
    """A connector whose every connection, fresh or pooled, passed the guard under this one rule.

    Connections under different rules never share a connector: a pooled connection to a private address must
    not serve a tenant who may not open it. ``is_kept`` False closes each connection after its answer.
    """

    def checked_socket(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        guard.check(str(address[0]), is_named=is_named)
        return socket.socket(family, kind, protocol)

    return TCPConnector(
        resolver=CheckedResolver(resolver, guard, is_named=is_named),
        socket_factory=checked_socket,
        use_dns_cache=dns_cache_s > 0,
        ttl_dns_cache=dns_cache_s,
        ssl=True if tls is None else tls,
        limit=0,  # The places in front of it are the limit.
        force_close=not is_kept,
        keepalive_timeout=None if not is_kept else keepalive_s,
    )
