"""A node's real log, map of slots and cache in a temporary folder."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imgserve.adapters.cache.settings import Settings
from imgserve.adapters.cache.store import DiskCache
from imgserve.adapters.invalidation.log import SqliteInvalidationLog, replay
from imgserve.aio.clock import SystemClock
from imgserve.core import grammar, keys
from imgserve.core.originals import ImageRef
from imgserve.core.tenants import Key, Scope, Tenant
from imgserve.disk.slots import SlotMap
from imgserve.fast.hashing import siphash128
from imgserve.interfaces import FileMeta, ImageCache
from imgserve.services.invalidation import Invalidations, LocalNode

TENANT = Tenant(name="demo", hosts=("img.example.com",), allowed_origins=("a.li",))
OTHER = Tenant(name="other", allowed_origins=("a.li",))
KEY = Key(name="shop", digest=b"", scopes=frozenset({Scope.INVALIDATE, Scope.INVALIDATE_ALL}))


def hasher(data: bytes) -> bytes:
    return siphash128(bytes(16), data)


class Removals:
    """Takes notices for an index that is not there."""

    def removed(self, image: ImageRef, name: str) -> None:
        pass

    def removed_all(self, tenant: str) -> None:
        pass


@dataclass
class Node:
    """What one process of a node has."""

    data_dir: Path
    log: SqliteInvalidationLog
    slots: SlotMap
    cache: ImageCache
    service: Invalidations
    clock: SystemClock = field(default_factory=SystemClock)

    def with_cache(self, cache: ImageCache) -> Invalidations:
        """The service with another cache."""
        return Invalidations(
            log=self.log, node=LocalNode(name="node-1", slots=self.slots, cache=cache), hasher=hasher, clock=self.clock
        )

    async def store(self, url: str, body: bytes = b"old", tenant: Tenant = TENANT) -> tuple[ImageRef, str, str]:
        """Put an original and the URL's variant in the cache, stamped as of now; image, and both names."""
        request = grammar.parse(url, tenant)
        image = ImageRef(tenant=tenant.name, id=keys.image_id(hasher, tenant.name, request.original.location))
        original = keys.original_name(hasher, request.busters)
        variant = keys.variant_name(keys.plan_key(hasher, request.plan, request.busters), "webp")
        meta = FileMeta(
            content_type="image/webp",
            etag="",
            created_s=int(self.clock.now_s()),
            stamp=self.slots.head(),
            body_bytes=len(body),
        )
        for name in (original, variant):
            draft = await self.cache.draft(tenant.name)
            Path(f"/proc/self/fd/{draft.fd}").write_bytes(body)
            (await self.cache.publish(draft, image, name, meta)).close()
            draft.close()
        return image, original, variant

    async def serves(self, image: ImageRef, name: str) -> bool:
        """Whether a front would still answer with the file: there, alive by its stamp, or looked at and not named."""
        file = await self.cache.open(image, name)
        if file is None:
            return False
        try:
            if self.slots.is_alive(image, file.meta.stamp):
                return True
            head = self.slots.head()
            if await self.log.was_named(image, name, file.meta.stamp):
                return False
            await self.cache.restamp(file, head)
            return True
        finally:
            file.close()


StartNode = Callable[[], Node]


@pytest.fixture
def start_node(tmp_path: Path, request: pytest.FixtureRequest) -> StartNode:
    """Start the node, or start it again: the map is rebuilt from the logs."""

    def start() -> Node:
        data_dir = tmp_path / "var"
        data_dir.mkdir(exist_ok=True)
        clock = SystemClock()
        slots = SlotMap.rebuild(data_dir / "slots.map", replay(data_dir, clock.now_s()), now_s=clock.now_s())
        request.addfinalizer(slots.close)
        cache = DiskCache(Settings(data_dir=data_dir), slots=slots, clock=clock, removals=Removals())
        log = SqliteInvalidationLog(data_dir)
        service = Invalidations(
            log=log, node=LocalNode(name="node-1", slots=slots, cache=cache), hasher=hasher, clock=clock
        )
        return Node(data_dir, log, slots, cache, service)

    return start


@pytest.fixture
async def node(start_node: StartNode) -> AsyncIterator[Node]:
    """A started node."""
    started = start_node()
    yield started
    await started.log.close()
