"""Images: from a parsed request to an open file, by the cache or by one flight on the node."""

from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Protocol

from imgserve.core import allowlist, keys, negotiation
from imgserve.core.errors import Denied, NoSpace, NotFound, Overloaded, Superseded
from imgserve.core.events import Outcome
from imgserve.core.grammar import ImageRequest
from imgserve.core.originals import ImageRef, Original
from imgserve.core.tenants import Tenant
from imgserve.interfaces import (
    CachedFile,
    CacheJournal,
    Clock,
    Draft,
    FileMeta,
    ImageCache,
    InvalidationLog,
    Origin,
    Renderer,
    Slots,
)

FILES_PER_IMAGE: Final = 200
"""Of one image: beyond it variants, and originals by cache-busters, are made and sent but not stored."""

_ATTEMPTS: Final = 3  # how often a flight starts anew because its image was invalidated under it


class Flights(Protocol):
    """One computation per key on the node."""

    async def run(
        self,
        key: bytes,
        look: Callable[[], Awaitable[CachedFile | None]],
        work: Callable[[], Awaitable[CachedFile]],
    ) -> tuple[CachedFile, bool]:
        """What ``look`` finds, else what one ``work`` makes for all who ask; True: this caller did the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An open variant and what the reply must say about it. The receiver closes the file."""

    image: ImageRef
    name: str
    file: CachedFile
    outcome: Outcome
    varies: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """What images are served with."""

    cache: ImageCache
    journal: CacheJournal
    origin: Origin
    renderer: Renderer
    slots: Slots
    log: InvalidationLog
    flights: Flights
    hasher: keys.Hasher
    clock: Clock


class Images:
    """Serves variants: from the cache, else by fetching, rendering and publishing them once."""

    def __init__(self, seams: Seams) -> None:
        self._cache = seams.cache
        self._journal = seams.journal
        self._origin = seams.origin
        self._renderer = seams.renderer
        self._slots = seams.slots
        self._log = seams.log
        self._flights = seams.flights
        self._hasher = seams.hasher
        self._clock = seams.clock

    def image_ref(self, tenant: Tenant, original: Original) -> ImageRef:
        """The image that an original and its variants make up."""
        return ImageRef(tenant=tenant.name, id=keys.image_id(self._hasher, tenant.name, original.location))

    async def get(self, request: ImageRequest, tenant: Tenant, accept: str | None) -> Answer:
        """The variant that the request and its Accept header ask for.

        The allow-list is asked before the cache, so that an origin which a reload took away is not served from memory
        of better days. Raises Denied, the errors of origins and rendering, and Overloaded when the image is invalidated
        again and again while it is made.
        """
        _check_allowed(request.original, tenant)
        choice = negotiation.choose(request.plan.formats, accept)
        image = self.image_ref(tenant, request.original)
        plan_key = keys.plan_key(self._hasher, request.plan, request.busters)
        name = keys.variant_name(plan_key, choice.accept_class)

        async def look() -> CachedFile | None:
            return await self._find(image, name)

        async def work() -> CachedFile:
            return await self._make(request, tenant, image, name, choice.formats)

        file = await look()
        outcome = Outcome.HIT
        if file is None:
            file, led = await self._flights.run(f"{image.tenant}/{image.id}/{name}".encode(), look, work)
            outcome = Outcome.MISS if led else Outcome.COLLAPSED
        self._journal.used(image, name)
        return Answer(image=image, name=name, file=file, outcome=outcome, varies=choice.varies)

    async def _find(self, image: ImageRef, name: str) -> CachedFile | None:
        """The cached file if nothing has invalidated it. A neighbour's invalidation costs one look in the log."""
        file = await self._cache.open(image, name)
        if file is None or self._slots.is_alive(image, file.meta.stamp):
            return file
        head = self._slots.head()
        if not await self._log.was_named(image, name, file.meta.stamp):
            await self._cache.restamp(file, head)
            return file
        file.close()
        return None

    async def _make(
        self, request: ImageRequest, tenant: Tenant, image: ImageRef, name: str, formats: tuple[str, ...]
    ) -> CachedFile:
        """Render and publish; start anew when the image was invalidated meanwhile."""
        in_memory = await self._is_full(image)
        for _ in range(_ATTEMPTS):
            try:
                with closing(await self._original(request, tenant, image)) as original:
                    return await self._render(request, image, name, formats, original, in_memory=in_memory)
            except Superseded:
                continue
            except NoSpace:
                if in_memory:
                    raise
                in_memory = True
        raise Overloaded("the image was invalidated at every attempt to make it")

    async def _is_full(self, image: ImageRef) -> bool:
        """Whether this image has as many files as one may have, so that no visitor fills the disk with widths."""
        return await self._cache.count(image) >= FILES_PER_IMAGE

    async def _render(
        self,
        request: ImageRequest,
        image: ImageRef,
        name: str,
        formats: tuple[str, ...],
        original: CachedFile,
        *,
        in_memory: bool,
    ) -> CachedFile:
        with closing(await self._cache.draft(image.tenant, in_memory=in_memory)) as draft:
            rendered = await self._renderer.render(
                request.plan, formats, original.fd, draft.fd, original_bytes=original.meta.body_bytes
            )
            meta = FileMeta(
                content_type=rendered.content_type,
                etag="",
                created_s=original.meta.created_s,
                stamp=original.meta.stamp,
                body_bytes=rendered.size_bytes,
            )
            return await self._publish(draft, image, name, meta)

    async def _original(self, request: ImageRequest, tenant: Tenant, image: ImageRef) -> CachedFile:
        """The original, on disk or fetched by one flight on the node. Raises NotFound for a remembered 404."""
        name = keys.original_name(self._hasher, request.busters)

        async def look() -> CachedFile | None:
            return await self._find(image, name)

        async def work() -> CachedFile:
            if request.busters and await self._is_full(image):
                return await self._fetch(request.original, tenant, image, name, in_memory=True)
            try:
                return await self._fetch(request.original, tenant, image, name, in_memory=False)
            except NoSpace:
                return await self._fetch(request.original, tenant, image, name, in_memory=True)

        file = await look()
        if file is None:
            file, _ = await self._flights.run(f"{image.tenant}/{image.id}/{name}".encode(), look, work)
        if file.meta.is_missing:
            file.close()
            raise NotFound("the origin's 404 is remembered")
        self._journal.used(image, name)
        return file

    async def _fetch(
        self, original: Original, tenant: Tenant, image: ImageRef, name: str, *, in_memory: bool
    ) -> CachedFile:
        stamp = self._slots.head()  # read before the fetch: what is invalidated from here on is born dead
        with closing(await self._cache.draft(image.tenant, in_memory=in_memory)) as draft:
            created_s = int(self._clock.now_s())
            is_missing = False
            size_bytes = 0
            try:
                size_bytes = (await self._origin.fetch(original, tenant, draft.fd)).size_bytes
            except NotFound:
                is_missing = True
            meta = FileMeta(
                content_type="",
                etag="",
                created_s=created_s,
                stamp=stamp,
                body_bytes=size_bytes,
                location=original.location,
                is_missing=is_missing,
            )
            return await self._publish(draft, image, name, meta)

    async def _publish(self, draft: Draft, image: ImageRef, name: str, meta: FileMeta) -> CachedFile:
        file = await self._cache.publish(draft, image, name, meta)
        if draft.is_stored:
            self._journal.stored(image, name, file.meta.body_bytes, file.meta.created_s)
        return file


def _check_allowed(original: Original, tenant: Tenant) -> None:
    """Raise Denied for a place that the tenant's allow-list does not open; an alias is allowed by itself."""
    if original.by_alias:
        return
    if not allowlist.is_allowed(allowlist.parse(original.location), tenant):
        raise Denied("the allow-list does not open this origin")
