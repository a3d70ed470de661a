"""The use case on a real log, map of slots and cache."""

import asyncio
import json
from typing import Any

import pytest

from imgserve.core.errors import BadKey, BadRequest, NotFound, Overloaded
from imgserve.core.originals import ImageRef
from imgserve.core.tenants import Key, Scope, Signing, Tenant
from imgserve.interfaces import CachedFile, Draft, FileMeta, Removed

TENANT = Tenant(name="demo", hosts=("img.example.com",), allowed_origins=("a.li",))
OTHER = Tenant(name="other", allowed_origins=("a.li",))
KEY = Key(name="shop", digest=b"", scopes=frozenset({Scope.INVALIDATE, Scope.INVALIDATE_ALL}))
ORIGINAL = {"scope": "original", "urls": ["/a.li/b.jpg"]}


class BrokenCache:
    """A cache whose files can't be unlinked while it is broken; all else is the real one's."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self.is_broken = True

    async def draft(self, tenant: str, *, in_memory: bool = False) -> Draft:
        return await self._cache.draft(tenant, in_memory=in_memory)  # type: ignore[no-any-return]

    async def open(self, image: ImageRef, name: str) -> CachedFile | None:
        return await self._cache.open(image, name)  # type: ignore[no-any-return]

    async def publish(self, draft: Draft, image: ImageRef, name: str, meta: FileMeta) -> CachedFile:
        return await self._cache.publish(draft, image, name, meta)  # type: ignore[no-any-return]

    async def restamp(self, file: CachedFile, stamp: int) -> None:
        await self._cache.restamp(file, stamp)

    async def remove(self, image: ImageRef, plan_keys: frozenset[str] | None) -> Removed:
        if self.is_broken:
            raise PermissionError("this file stays")
        return await self._cache.remove(image, plan_keys)  # type: ignore[no-any-return]

    async def remove_all(self, tenant: str) -> Removed:
        if self.is_broken:
            raise PermissionError("these files stay")
        return await self._cache.remove_all(tenant)  # type: ignore[no-any-return]


async def progress_of(service: Any, receipt: Any, tenant: Tenant = TENANT) -> dict[str, Any]:
    report = await service.progress(tenant, receipt["invalidation"]["uuid"])
    return report["invalidation"]["targets"][0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "spelling",
    [
        "/a.li/b.jpg",
        "a.li/b.jpg",
        "/v7/a.li/b.jpg",
        "https://a.li/b.jpg",
        "/https://a.li/b.jpg",
        "/v7/https://a.li/b.jpg",
        "https:/a.li/b.jpg",
        "https://img.example.com/v7/https://a.li/b.jpg",
        "http://10.1.2.3:8080/v7/a.li/b.jpg",
    ],
)
async def test_an_original_goes_with_its_variants(node: Any, spelling: str) -> None:
    """However it is spelt: its original and every variant are gone from the disk before the receipt, others are not."""
    named = [await node.store(f"/a.li/b.jpg{query}") for query in ("?w=10", "?w=20", "?w=10&vh=1")]
    others = [await node.store("/a.li/c.jpg?w=10"), await node.store("/a.li/b.jpg?w=10", tenant=OTHER)]
    receipt = await node.service.invalidate(TENANT, KEY, {"scope": "original", "urls": [spelling]})

    for image, original, variant in named:
        assert (None, None) == (await node.cache.open(image, original), await node.cache.open(image, variant))
    for image, original, variant in others:
        assert await node.serves(image, original)
        assert await node.serves(image, variant)
    target = await progress_of(node.service, receipt)
    assert ("node-1", "done", 5) == (target["target"], target["status"], target["removed_files"])
    assert target["removed_bytes"] > 0


async def test_a_url_goes_alone(node: Any) -> None:
    """Synonyms name the same variant; other variants stay, and the originals are fetched anew."""
    image, original, variant = await node.store("/a.li/b.jpg?w=10&h=20")
    _, _, wider = await node.store("/a.li/b.jpg?w=11&h=20")
    _, busted, other = await node.store("/a.li/b.jpg?w=10&h=20&vh=1")
    await node.service.invalidate(
        TENANT, KEY, {"scope": "urls", "urls": ["a.li/b.jpg?height=20&width=10.0&utm_source=x"]}
    )

    assert [False, False, False, True, True] == [
        await node.serves(image, name) for name in (variant, original, busted, wider, other)
    ]


async def test_all_is_all_of_one_tenant(node: Any) -> None:
    """Every image of the tenant, none of another."""
    stored = [await node.store(f"/a.li/{number}.jpg?w=10") for number in range(5)]
    image, _, variant = await node.store("/a.li/0.jpg?w=10", tenant=OTHER)
    receipt = await node.service.invalidate(TENANT, KEY, {"scope": "all"})

    assert {False} == {await node.serves(gone, name) for gone, _, name in stored}
    assert await node.serves(image, variant)
    assert 10 == (await progress_of(node.service, receipt))["removed_files"]


async def test_old_files_are_dead_although_they_cannot_be_removed(node: Any) -> None:
    """The slot decides, not the unlinking: nothing old is served; the report says failed; a later try finishes it."""
    image, original, variant = await node.store("/a.li/b.jpg?w=10")
    cache = BrokenCache(node.cache)
    service = node.with_cache(cache)
    receipt = await service.invalidate(TENANT, KEY, ORIGINAL)

    assert "RECEIVED" == receipt["invalidation"]["status"]
    assert (False, False) == (await node.serves(image, original), await node.serves(image, variant))
    assert "failed" == (await progress_of(service, receipt))["status"]
    cache.is_broken = False
    assert 1 == await service.resume(min_age_s=0)
    target = await progress_of(service, receipt)
    assert ("done", 2) == (target["status"], target["removed_files"])
    assert 0 == await service.resume(min_age_s=0)


async def test_a_crash_after_the_rows_is_made_good_at_the_next_start(node: Any, start_node: Any) -> None:
    """Rows without effect: dead from the start, since the map is rebuilt from them; removed by the first resume."""
    image, original, variant = await node.store("/a.li/b.jpg?w=10")
    kept, _, kept_variant = await node.store("/a.li/c.jpg?w=10")
    never = node.with_cache(node.cache)
    never._apply = _die
    with pytest.raises(Overloaded):
        await never.invalidate(TENANT, KEY, ORIGINAL)
    await node.log.close()
    again = start_node()

    assert (False, False) == (await again.serves(image, original), await again.serves(image, variant))
    assert await again.serves(kept, kept_variant)
    assert 1 == await again.service.resume(min_age_s=0)
    assert await again.cache.open(image, variant) is None
    await again.log.close()


async def _die(entry: object) -> None:
    raise Overloaded("as if the process had been killed here")


async def test_an_invalidation_holds_over_a_restart(node: Any, start_node: Any) -> None:
    """With the map lost, files that could not be removed stay dead: the rows say so."""
    image, original, variant = await node.store("/a.li/b.jpg?w=10")
    await node.with_cache(BrokenCache(node.cache)).invalidate(TENANT, KEY, ORIGINAL)
    await node.log.close()
    (node.data_dir / "slots.map").unlink()
    again = start_node()

    assert (False, False) == (await again.serves(image, original), await again.serves(image, variant))
    await again.log.close()


async def test_a_look_between_the_row_and_the_raise_saves_no_old_file(node: Any) -> None:
    """A reader that re-stamps while an invalidation is half-way is overtaken: its stamp is under the raise."""
    image, original, variant = await node.store("/a.li/b.jpg?w=10")
    neighbour = ImageRef(tenant="other", id=image.id[:4] + "a" * 12)
    reached, go_on = asyncio.Event(), asyncio.Event()

    class SlowLog:
        """The real log, which waits before the rows are durable and again after."""

        def __getattr__(self, name: str) -> Any:
            return getattr(node.log, name)

        async def append(self, entry: Any) -> None:
            reached.set()
            await go_on.wait()
            await node.log.append(entry)

    service = node.with_cache(BrokenCache(node.cache))
    service._log = SlowLog()
    async with asyncio.TaskGroup() as group:
        group.create_task(service.invalidate(TENANT, KEY, ORIGINAL))
        await reached.wait()
        node.slots.raise_image(neighbour, 0)
        assert await node.serves(image, variant)  # looked at and re-stamped just before the rows are there
        go_on.set()

    assert (False, False) == (await node.serves(image, original), await node.serves(image, variant))


async def test_what_is_fetched_afterwards_stays(node: Any) -> None:
    """Neither the finished invalidation nor a neighbour's later one in the same slot costs a fresh file."""
    image, _, _ = await node.store("/a.li/b.jpg?w=10")
    await node.service.invalidate(TENANT, KEY, ORIGINAL)
    _, original, variant = await node.store("/a.li/b.jpg?w=10", b"new")
    node.slots.raise_image(ImageRef(tenant="other", id=image.id[:4] + "a" * 12), 0)

    assert (True, True) == (await node.serves(image, original), await node.serves(image, variant))


@pytest.mark.parametrize(
    ("scopes", "body"),
    [
        ({Scope.INVALIDATE}, {"scope": "all"}),
        ({Scope.INVALIDATE_ALL}, ORIGINAL),
        (set(), ORIGINAL),
        ({Scope.LOGS, Scope.ANALYTICS}, {"scope": "urls", "urls": ["/a.li/b.jpg?w=1"]}),
    ],
)
async def test_a_key_without_the_scope_changes_nothing(node: Any, scopes: set[Scope], body: object) -> None:
    """Refused, and neither row nor slot is touched."""
    head = node.slots.head()
    with pytest.raises(BadKey, match="scope"):
        await node.service.invalidate(TENANT, Key(name="k", digest=b"", scopes=frozenset(scopes)), body)

    assert (head, ()) == (node.slots.head(), await node.log.unfinished(10**18))


@pytest.mark.parametrize("url", ["/nodot/b.jpg", "/", "/-/live", "/robots.txt", "", "/a.li/../b.jpg", "https://"])
async def test_one_bad_url_refuses_all_of_them(node: Any, url: str) -> None:
    """The sentence names the entry; what came with it is untouched."""
    image, _, variant = await node.store("/a.li/b.jpg?w=10")
    with pytest.raises(BadRequest, match=r"urls\[1\]"):
        await node.service.invalidate(TENANT, KEY, {"scope": "original", "urls": ["/a.li/b.jpg", url]})

    assert await node.serves(image, variant)


async def test_a_tenant_that_signs_its_urls_need_not_sign_here(node: Any) -> None:
    """The key is proof enough: an invalidation names URLs as they are, without their signatures."""
    signer = Tenant(name="demo", allowed_origins=("a.li",), signing=Signing(mode="sign", salts=("salt",)))
    image, _, variant = await node.store("/a.li/b.jpg?w=10")
    await node.service.invalidate(signer, KEY, {"scope": "urls", "urls": ["/a.li/b.jpg?w=10"]})

    assert not await node.serves(image, variant)


async def test_progress_is_for_the_tenant_that_asked(node: Any) -> None:
    """Another tenant's uuid, and none, are not found."""
    receipt = await node.service.invalidate(TENANT, KEY, ORIGINAL)

    for tenant, uuid in ((OTHER, receipt["invalidation"]["uuid"]), (TENANT, "0"), (TENANT, "' OR 1=1 --")):
        with pytest.raises(NotFound):
            await node.service.progress(tenant, uuid)


async def test_no_url_is_written(node: Any) -> None:
    """The log knows opaque ids only: not the host, not the path, not the parameters."""
    urls = ["/secret-host.a.li/patient-4711.jpg?w=10&vh=buster99"]
    receipt = await node.service.invalidate(TENANT, KEY, {"scope": "urls", "urls": urls})
    written = b"".join(path.read_bytes() for path in node.data_dir.rglob("invalidations.db*"))

    assert receipt["invalidation"]["uuid"].encode() in written
    for text in (b"secret-host", b"patient", b"buster99", b"w=10"):
        assert text not in written
    assert "patient" not in json.dumps(receipt)


async def test_racing_invalidations_and_readers_end_fresh(node: Any) -> None:
    """Many at once on one image: each receipt means gone; no number is given twice."""
    image, _, variant = await node.store("/a.li/b.jpg?w=10")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(node.service.invalidate(TENANT, KEY, ORIGINAL)) for _ in range(20)]
        tasks += [group.create_task(node.serves(image, variant)) for _ in range(20)]

    assert not await node.serves(image, variant)
    assert () == await node.log.unfinished(10**18)
    assert 20 == len({task.result()["invalidation"]["uuid"] for task in tasks[:20]})
