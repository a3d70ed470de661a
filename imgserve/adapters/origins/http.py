"""Originals from HTTP servers."""

import asyncio
import os
import ssl
import zlib
from collections.abc import Iterator
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from imgserve import __version__
from imgserve.adapters.origins import guard
from imgserve.adapters.origins.settings import Settings
from imgserve.aio.limits import KeyedLimits, Limit
from imgserve.core import allowlist
from imgserve.core.allowlist import Permission, Place
from imgserve.core.errors import Denied, NoSpace, NotFound, OriginFailed, OverLimit, Overloaded, TimedOut
from imgserve.core.originals import Original
from imgserve.core.tenants import Tenant
from imgserve.disk import descriptors
from imgserve.interfaces import Fetched

chunk_bytes: Final = 65_536
inflate_bytes: Final = 262_144
kept_hosts_max: Final = 32

# The only headers an origin ever sees beside Host; nothing of the visitor's request comes this far. Accept names
# no modern format, so that an origin which negotiates sends its source and not a conversion of it.
_HEADERS: Final = {
    "User-Agent": f"imgserve/{__version__}",
    "Accept": "image/*, */*;q=0.1",
    "Accept-Encoding": "identity",
}
_REDIRECTS: Final = frozenset(
    {
        HTTPStatus.MOVED_PERMANENTLY,
        HTTPStatus.FOUND,
        HTTPStatus.SEE_OTHER,
        HTTPStatus.TEMPORARY_REDIRECT,
        HTTPStatus.PERMANENT_REDIRECT,
    }
)
_WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class HttpOrigin:
    """Fetches over HTTP and HTTPS, each hop checked against the tenant's allow-list and the network guard.

    Rules of its own: no proxy variables, cookies or credentials; https never leads down to http; 404 and 410
    are NotFound, while 401 and 403 are OriginFailed: the origin refuses this server, it doesn't say that the
    image is missing, so nobody must remember that; only a plain 200 is an original, 206 above all isn't.
    A body delimited only by the end of its connection is taken, since nothing in HTTP tells whether it is
    whole: the decoder has to see that.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        dns_cache_s: int = 10,
    ) -> None:
        """``resolver`` replaces the system's, and ``tls`` its authorities; ``dns_cache_s`` 0 asks each time."""
        self._settings = settings
        self._resolver = resolver or guard.ThreadResolver(settings.concurrent_max)
        self._tls = tls
        self._dns_cache_s = dns_cache_s
        self._guard = guard.Guard(settings.allow_private)
        self._sessions: dict[tuple[bool, bool], aiohttp.ClientSession] = {}
        self._kept_until: dict[str, float] = {}
        self._is_closed = False
        # A host's place is taken before a common one, so that those who wait for a slow host hold nothing that
        # others need; and no host may fill more than a quarter of the queue.
        self.per_host = KeyedLimits(
            "fetches from one host",
            running_max=settings.concurrent_per_host_max,
            queue_max=settings.queue_max // 4,
        )
        self.limit = Limit("fetches", running_max=settings.concurrent_max, queue_max=settings.queue_max)
        self.fetches = 0
        self.failures = 0
        self.fetched_bytes = 0

    @property
    def refused(self) -> int:
        """How many connections the network guard did not open."""
        return self._guard.refused

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; may be called again. A fetch after it fails."""
        self._is_closed = True
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.close()
        await self._resolver.close()

    async def fetch(self, original: Original, tenant: Tenant, into_fd: int) -> Fetched:
        """See ``interfaces.Origin``. The time limit holds for queue, redirects and body together."""
        self.fetches += 1
        try:
            fetched = await self._fetch(original, tenant, into_fd)
        except BaseException:
            self.failures += 1
            raise
        self.fetched_bytes += fetched.size_bytes
        return fetched

    async def _fetch(self, original: Original, tenant: Tenant, into_fd: int) -> Fetched:
        try:
            async with asyncio.timeout(self._settings.fetch_timeout_s):
                return await self._follow(original, tenant, into_fd)
        except TimeoutError as error:
            raise TimedOut("the origin took too long") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise OriginFailed("the origin's certificate is not valid") from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, guard.Refused):
                raise Denied(f"network guard: {error.os_error.strerror}") from error
            if error.os_error.errno in descriptors.EXHAUSTED:
                raise Overloaded(f"no connection can be opened: {error.os_error.strerror}") from error
            raise OriginFailed(f"no connection to the origin: {type(error.os_error).__name__}") from error
        except aiohttp.ClientError as error:
            raise OriginFailed(f"the origin broke off: {type(error).__name__}") from error

    async def _follow(self, original: Original, tenant: Tenant, into_fd: int) -> Fetched:
        place = allowlist.parse(original.location)
        root = _root(original, place)
        for _ in range(self._settings.redirects_max + 1):
            permission = allowlist.permission(place, tenant, root)
            if permission is Permission.REFUSED:
                raise Denied("the place is not in allowed_origins")
            async with self.per_host.slot(place.host), self.limit:
                answer = await self._ask(place, permission, into_fd)
            if isinstance(answer, Fetched):
                return answer
            place = answer
        raise OriginFailed(f"more than {self._settings.redirects_max} redirects")

    async def _ask(self, place: Place, permission: Permission, into_fd: int) -> Fetched | Place:
        """One request: the original, or where a redirect leads."""
        session = self._session(place, is_named=permission is Permission.NAMED)
        response = await session.get(URL(place.location, encoded=True), allow_redirects=False)
        try:
            if response.status in _REDIRECTS:
                return allowlist.follow(place, response.headers.get("Location", ""))
            _check_status(response.status)
            return Fetched(size_bytes=await self._receive(response, into_fd))
        finally:
            response.close()  # Does nothing after a whole body: its connection is back in the pool.

    async def _receive(self, response: aiohttp.ClientResponse, into_fd: int) -> int:
        """Write the body as it comes; its decoded size.

        The writes are inline: a chunk goes to the page cache in some 20 µs, less than a thread's round trip.
        """
        limit = self._settings.max_original_bytes
        announced = response.content_length
        if announced is not None and announced > limit:
            raise _too_large(limit)
        decoder = _decoder(response.headers.getall("Content-Encoding", []))
        received = written = 0
        async for chunk in response.content.iter_chunked(chunk_bytes):
            received += len(chunk)
            if received > limit:
                raise _too_large(limit)
            for part in decoder.decode(chunk):
                if written + len(part) > limit:
                    raise _too_large(limit)
                _write(into_fd, part, written)
                written += len(part)
                if len(part) == inflate_bytes:
                    await asyncio.sleep(0)  # A bomb must not hold the loop until its limit.
        decoder.finish()
        if announced is not None and received != announced:
            raise OriginFailed(f"body of {received} bytes, {announced} announced")
        if written == 0:
            raise OriginFailed("empty body")
        return written

    def _session(self, place: Place, *, is_named: bool) -> aiohttp.ClientSession:
        if self._is_closed:
            raise OriginFailed("the client is closed")
        kind = (is_named, self._is_kept(place.host))
        session = self._sessions.get(kind)
        if session is None:
            session = self._sessions[kind] = self._new_session(is_named=kind[0], is_kept=kind[1])
        return session

    def _new_session(self, *, is_named: bool, is_kept: bool) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=guard.connector(
                self._guard,
                self._resolver,
                is_named=is_named,
                is_kept=is_kept,
                dns_cache_s=self._dns_cache_s,
                tls=self._tls,
            ),
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._settings.connect_timeout_s),
            auto_decompress=False,
            trust_env=False,
        )

    def _is_kept(self, host: str) -> bool:
        """Whether connections to this host stay open. Only for a few hosts at a time: each name under an
        allowed domain is another host, and idle connections to thousands of them would use up descriptors."""
        now_s = asyncio.get_running_loop().time()
        if host not in self._kept_until and len(self._kept_until) >= kept_hosts_max:
            self._kept_until = {name: until_s for name, until_s in self._kept_until.items() if until_s > now_s}
            if len(self._kept_until) >= kept_hosts_max:
                return False
        self._kept_until[host] = now_s + guard.keepalive_s + self._settings.fetch_timeout_s
        return True


class _Identity:
    """A body that comes as it is."""

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        yield chunk

    def finish(self) -> None:
        pass


class _Inflate:
    """A compressed body, taken apart in parts of bounded size."""

    def __init__(self, window_bits: int) -> None:
        self._zlib = zlib.decompressobj(window_bits)

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        try:
            while chunk:
                if self._zlib.eof:
                    raise OriginFailed("bytes after the end of the compressed body")
                part = self._zlib.decompress(chunk, inflate_bytes)
                chunk = self._zlib.unconsumed_tail or self._zlib.unused_data
                if part:
                    yield part
        except zlib.error as error:
            raise OriginFailed("the body is not compressed as its Content-Encoding says") from error

    def finish(self) -> None:
        if not self._zlib.eof:
            raise OriginFailed("the compressed body ends too early")


def _decoder(encodings: list[str]) -> _Identity | _Inflate:
    """Decoder of a body. One was not asked for, but stores of ready-compressed SVG send it all the same."""
    names = [name.strip().lower() for line in encodings for name in line.split(",")]
    applied = [name for name in names if name not in {"", "identity"}]
    if not applied:
        return _Identity()
    if len(applied) > 1 or applied[0] not in _WINDOW_BITS:
        raise OriginFailed("the body has a Content-Encoding that was not asked for")
    return _Inflate(_WINDOW_BITS[applied[0]])


def _root(original: Original, place: Place) -> Place | None:
    """The alias's root, if one named the place; the place must lie beneath it."""
    if not original.by_alias:
        return None
    root = allowlist.parse(original.root)
    if not allowlist.is_beneath(place, root):
        raise Denied("the place is not beneath its alias")
    return root


def _check_status(status: int) -> None:
    if status == HTTPStatus.OK:
        return
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        raise NotFound(f"the origin answered {status}")
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise OriginFailed(f"the origin answered {status}", public="The origin refuses this image to the server.")
    raise OriginFailed(f"the origin answered {status}")


def _too_large(limit: int) -> OverLimit:
    return OverLimit(
        f"original over render.max_original_bytes = {limit}",
        public=f"The original is larger than {limit:,} bytes, the limit of this server.",
    )


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    try:
        while view:
            count = os.pwrite(fd, view, offset)
            view, offset = view[count:], offset + count
    except OSError as error:
        raise NoSpace(f"the original can't be stored: {error.strerror}") from error
