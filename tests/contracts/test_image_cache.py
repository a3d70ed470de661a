"""What every ImageCache must do, whatever it stands on; each implementation adds one builder."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from imgserve.adapters.cache.settings import Settings
from imgserve.adapters.cache.store import DiskCache
from imgserve.core.errors import Superseded
from imgserve.core.originals import ImageId, ImageRef
from imgserve.disk.slots import SlotMap
from imgserve.interfaces import CachedFile, FileMeta, ImageCache, Removed

VARIANT = "v-" + "a" * 26 + ".webp"
OTHER = "v-" + "b" * 26 + ".avif"
ORIGINAL = "o-main"
CAT = ImageRef(tenant="acme", id=ImageId("cat2222222222222"))
DOG = ImageRef(tenant="acme", id=ImageId("dog2222222222222"))


@dataclass
class Subject:
    """An implementation under test and the two things around it that a test moves."""

    cache: ImageCache
    raise_image: Callable[[ImageRef], int]
    head: Callable[[], int]
    at_s: float = 1_800_000_000

    def now_s(self) -> float:
        return self.at_s

    def monotonic_s(self) -> float:
        return self.at_s

    def removed(self, image: ImageRef, name: str) -> None:
        """Nobody is told."""

    def removed_all(self, tenant: str) -> None:
        """Nobody is told."""

    def meta(self, **facts: object) -> FileMeta:
        defaults: dict[str, object] = {
            "content_type": "image/webp",
            "etag": "",
            "created_s": int(self.at_s),
            "stamp": self.head(),
            "body_bytes": 0,
        }
        return FileMeta(**(defaults | facts))  # type: ignore[arg-type]

    async def put(self, image: ImageRef, name: str, body: bytes, **facts: object) -> CachedFile:
        draft = await self.cache.draft(image.tenant)
        os.pwrite(draft.fd, body, 0)
        file = await self.cache.publish(draft, image, name, self.meta(**facts))
        draft.close()
        draft.close()
        return file


def on_disk(folder: Path) -> Subject:
    slots = SlotMap.rebuild(folder / "slots.map", [], now_s=1)
    settings = Settings(data_dir=folder)
    subject = Subject(cache=None, raise_image=lambda image: slots.raise_image(image, 0), head=slots.head)  # type: ignore[arg-type]
    subject.cache = DiskCache(settings, slots=slots, clock=subject, removals=subject)
    return subject


@pytest.fixture(params=[on_disk])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    """Each implementation in turn."""
    build: Callable[[Path], Subject] = request.param
    return build(tmp_path)


def body_of(file: CachedFile | None) -> bytes | None:
    """Read and close."""
    if file is None:
        return None
    body = os.pread(file.fd, file.meta.body_bytes, 0)
    file.close()
    file.close()
    return body


async def test_what_was_published_is_opened_with_its_facts(subject: Subject) -> None:
    """Body from offset 0, type, tag, times, location; the tag is the same in every handle."""
    published = await subject.put(CAT, ORIGINAL, b"bytes", location="https://example.com/cat.jpg", content_type="")
    opened = await subject.cache.open(CAT, ORIGINAL)

    assert opened is not None
    assert published.meta == opened.meta
    assert ("https://example.com/cat.jpg", 5, False) == (
        opened.meta.location,
        opened.meta.body_bytes,
        opened.meta.is_missing,
    )
    assert len(opened.meta.etag) > 16
    assert b"bytes" == body_of(opened) == body_of(published)


async def test_absent_files_are_none(subject: Subject) -> None:
    """Other images and other names too."""
    (await subject.put(CAT, VARIANT, b"x")).close()

    assert None is await subject.cache.open(DOG, VARIANT)
    assert None is await subject.cache.open(CAT, OTHER)
    assert None is await subject.cache.open(ImageRef(tenant="other", id=CAT.id), VARIANT)


async def test_a_draft_is_seen_by_nobody_until_it_is_published(subject: Subject) -> None:
    """And by nobody when it is given up."""
    draft = await subject.cache.draft("acme")
    os.pwrite(draft.fd, b"x", 0)
    assert None is await subject.cache.open(CAT, VARIANT)
    draft.close()
    assert None is await subject.cache.open(CAT, VARIANT)


async def test_publishing_again_replaces_and_open_readers_keep_theirs(subject: Subject) -> None:
    """A name shows one whole file or the other."""
    old = await subject.put(CAT, VARIANT, b"old")
    (await subject.put(CAT, VARIANT, b"newer")).close()

    assert b"newer" == body_of(await subject.cache.open(CAT, VARIANT))
    assert b"old" == body_of(old)


async def test_equal_bodies_have_equal_tags_and_others_differ(subject: Subject) -> None:
    """A strong validator, as RFC 9110 section 8.8.3 has it."""
    tags = [(await subject.put(CAT, VARIANT, body)).meta.etag for body in (b"a", b"b", b"a")]

    assert tags[0] == tags[2] != tags[1]


async def test_a_superseded_stamp_publishes_nothing(subject: Subject) -> None:
    """What was invalidated while it was made is born dead; neighbours are not touched."""
    stamp = subject.head()
    subject.raise_image(CAT)

    with pytest.raises(Superseded):
        await subject.put(CAT, VARIANT, b"old", stamp=stamp)
    assert None is await subject.cache.open(CAT, VARIANT)
    assert b"dog" == body_of(await subject.put(DOG, VARIANT, b"dog", stamp=stamp))


async def test_liveness_is_the_callers_question(subject: Subject) -> None:
    """An open does not compare stamps; a restamp is seen by the next open."""
    (await subject.put(CAT, VARIANT, b"x")).close()
    raised = subject.raise_image(CAT)
    file = await subject.cache.open(CAT, VARIANT)

    assert file is not None
    assert file.meta.stamp < raised
    await subject.cache.restamp(file, raised)
    assert raised == file.meta.stamp
    file.close()
    file = await subject.cache.open(CAT, VARIANT)
    assert file is not None
    assert raised == file.meta.stamp
    assert b"x" == body_of(file)


async def test_thirty_days_and_no_longer(subject: Subject) -> None:
    """From the fetch of the original."""
    (await subject.put(CAT, VARIANT, b"x")).close()
    subject.at_s += 30 * 86_400 - 1
    assert b"x" == body_of(await subject.cache.open(CAT, VARIANT))
    subject.at_s += 1
    assert None is await subject.cache.open(CAT, VARIANT)


async def test_removals_count_and_leave_open_readers_alone(subject: Subject) -> None:
    """By plan, by image, by tenant."""
    held = await subject.put(CAT, VARIANT, b"held")
    for image, name in ((CAT, ORIGINAL), (CAT, OTHER), (DOG, VARIANT)):
        (await subject.put(image, name, b"12345")).close()

    assert 1 == (await subject.cache.remove(CAT, frozenset({"a" * 26}))).files
    assert None is await subject.cache.open(CAT, VARIANT)
    assert b"held" == body_of(held)
    removed = await subject.cache.remove(CAT, None)
    assert 2 == removed.files
    assert removed.size_bytes >= 10
    assert 1 == (await subject.cache.remove_all("acme")).files
    assert None is await subject.cache.open(DOG, VARIANT)
    assert Removed() == await subject.cache.remove_all("acme")


async def test_a_draft_in_memory_is_served_and_never_published(subject: Subject) -> None:
    """It comes back as a file with the same facts."""
    draft = await subject.cache.draft("acme", in_memory=True)
    assert not draft.is_stored
    os.pwrite(draft.fd, b"memory", 0)
    file = await subject.cache.publish(draft, CAT, VARIANT, subject.meta())
    draft.close()

    assert 6 == file.meta.body_bytes
    assert b"memory" == body_of(file)
    assert None is await subject.cache.open(CAT, VARIANT)
