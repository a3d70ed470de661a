"""A cache in a real folder, with a clock that the test moves."""

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imgserve.adapters.cache.settings import Settings
from imgserve.adapters.cache.store import DiskCache
from imgserve.core.originals import ImageId, ImageRef
from imgserve.disk.slots import SlotMap
from imgserve.interfaces import CachedFile, FileMeta

NOW_S = 1_800_000_000


@dataclass
class Bench:
    """A cache and all that it stands on."""

    data_dir: Path
    slots: SlotMap
    removed: list[tuple[str, str]] = field(default_factory=list)
    removed_tenants: list[str] = field(default_factory=list)
    at_s: float = NOW_S

    def __post_init__(self) -> None:
        self.settings = Settings(data_dir=self.data_dir)
        self.cache = DiskCache(self.settings, slots=self.slots, clock=self, removals=_Removals(self))

    def now_s(self) -> float:
        return self.at_s

    def monotonic_s(self) -> float:
        return self.at_s

    def image(self, letter: str = "a", tenant: str = "acme") -> ImageRef:
        return ImageRef(tenant=tenant, id=ImageId(letter * 16))

    def folder(self, image: ImageRef) -> Path:
        return self.data_dir / "tenants" / image.tenant / "images" / image.id[:2] / image.id

    async def put(
        self, name: str, body: bytes, *, image: ImageRef | None = None, in_memory: bool = False, **meta: object
    ) -> CachedFile:
        """Draft, write, publish."""
        facts = {
            "content_type": "image/png",
            "etag": "",
            "created_s": int(self.at_s),
            "stamp": self.slots.head(),
        } | meta
        draft = await self.cache.draft((image or self.image()).tenant, in_memory=in_memory)
        try:
            os.pwrite(draft.fd, body, 0)
            return await self.cache.publish(
                draft,
                image or self.image(),
                name,
                FileMeta(body_bytes=len(body), **facts),  # type: ignore[arg-type]
            )
        finally:
            draft.close()

    async def body(self, name: str, image: ImageRef | None = None) -> bytes | None:
        """What a reader gets; None when it is absent."""
        file = await self.cache.open(image or self.image(), name)
        if file is None:
            return None
        try:
            return os.pread(file.fd, file.meta.body_bytes, 0)
        finally:
            file.close()


class _Removals:
    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def removed(self, image: ImageRef, name: str) -> None:
        self._bench.removed.append((image.id, name))

    def removed_all(self, tenant: str) -> None:
        self._bench.removed_tenants.append(tenant)


@pytest.fixture
def make_bench() -> Iterator[Callable[[Path], Bench]]:
    """Build a cache in any folder."""
    maps: list[SlotMap] = []

    def make(data_dir: Path) -> Bench:
        data_dir.mkdir(exist_ok=True)
        map_folder = data_dir.parent / f"{data_dir.name}-map"
        map_folder.mkdir()
        maps.append(SlotMap.rebuild(map_folder / "slots.map", [], now_s=0))
        return Bench(data_dir=data_dir, slots=maps[-1])

    yield make
    for slot_map in maps:
        slot_map.close()


@pytest.fixture
def bench(tmp_path: Path, make_bench: Callable[[Path], Bench]) -> Bench:
    """A cache in a folder of its own."""
    return make_bench(tmp_path / "var")


@pytest.fixture
def small_bench(tmp_path: Path, make_bench: Callable[[Path], Bench]) -> Iterator[Bench]:
    """A cache on a real file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        refuse = pytest.fail if os.environ.get("REQUIRE_SERVERS") == "1" else pytest.skip
        refuse("a small file system needs the right to mount")
    try:
        yield make_bench(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
