"""Claims about LocalFolder: it serves the regular files beneath an alias's folder, and nothing else on the disk."""

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from imgserve.adapters.origins import local
from imgserve.adapters.origins.local import LocalFolder
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
Fetch = Callable[..., Coroutine[None, None, bytes]]
MakeSettings = Callable[..., Settings]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of photos beside a secret."""
    (tmp_path / "secret.txt").write_bytes(b"secret")
    folder = tmp_path / "photos"
    (folder / "summer").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(BODY)
    (folder / "summer" / "b c%41é.jpg").write_bytes(BODY)
    return folder


@pytest.mark.parametrize("path", ["a.jpg", "summer/b%20c%2541%C3%A9.jpg", "%61.jp%67"])
async def test_a_file_arrives_whole(path: str, photos: Path, settings: MakeSettings, fetch: Fetch) -> None:
    """Names are decoded once."""
    root = photos.as_uri()
    async with LocalFolder(settings()) as origin:
        assert BODY == await fetch(origin, f"{root}/{path}", root=root)
        assert BODY == await fetch(origin, f"{root}/{path}", root=root + "/")
        assert (2, 0, 2 * len(BODY)) == (origin.fetches, origin.failures, origin.fetched_bytes)


ESCAPES = [
    "..", "../secret.txt", "summer/../../secret.txt", "./a.jpg", "summer/./b", "summer/..", "../photos/a.jpg",
    "%2e%2e/secret.txt", "%2E%2e/secret.txt", ".%2e/secret.txt", "..%2fsecret.txt", "%2e%2e%2fsecret.txt",
    "summer%2f..%2f..",
    "%252e%252e/secret.txt", "%252e%252e%252fsecret.txt", "..%252fsecret.txt", "..%c0%afsecret.txt", "..%5csecret.txt",
    "..\\secret.txt", "%00", "a.jpg%00", "a.jpg%00.png", "../secret.txt%00.jpg", "", "/", "//a.jpg", "/etc/passwd",
    "%2fetc%2fpasswd", "summer//b", "a.jpg/", "a.jpg?", "a.jpg?x", "a.jpg#x", "summer", "summer/", "a.jpg/x",
    "missing.jpg",
    "out", "out-relative", "out-folder/secret.txt", "loop", "out-absolute/passwd", "up/photos/a.jpg", "fifo", "socket",
    "proc-root/etc/passwd", "x" * 300, "/".join(["x"] * 3000),
]  # fmt: skip


@pytest.mark.parametrize("opener", ["best", "step by step"])
async def test_nothing_leads_out_of_the_folder(
    opener: str, photos: Path, settings: MakeSettings, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dots, slashes and NULs in any encoding, links, folders, pipes, sockets: Denied or NotFound, and no bytes."""
    if opener == "step by step":
        monkeypatch.setattr(local, "open_beneath", _openat2_is_missing)
    _plant_traps(photos)
    root = photos.as_uri()
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(photos)  # A socket's path must be short.
        listener.bind("socket")
        async with LocalFolder(settings()) as origin:
            results = {}
            for path in ESCAPES:
                try:
                    results[path] = await fetch(origin, f"{root}/{path}", root=root)
                except (Denied, NotFound):
                    continue
        assert {} == results


def _openat2_is_missing(root_fd: int, names: tuple[bytes, ...]) -> int:
    raise OSError(38, "Function not implemented")


def _plant_traps(photos: Path) -> None:
    (photos / "out").symlink_to(photos.parent / "secret.txt")
    (photos / "out-relative").symlink_to("../secret.txt")
    (photos / "out-folder").symlink_to("..")
    (photos / "out-absolute").symlink_to("/etc")
    (photos / "up").symlink_to(photos.parent)
    (photos / "loop").symlink_to("loop")
    (photos / "proc-root").symlink_to(f"/proc/{os.getpid()}/root")
    os.mkfifo(photos / "fifo")


async def test_a_link_that_stays_inside_is_followed(photos: Path, settings: MakeSettings, fetch: Fetch) -> None:
    """Folders that are organised by links work, where the kernel can tell inside from outside."""
    (photos / "summer" / "link.jpg").symlink_to("../a.jpg")
    (photos / "winter").symlink_to("summer")
    root = photos.as_uri()
    async with LocalFolder(settings()) as origin:
        assert BODY == await fetch(origin, f"{root}/winter/link.jpg", root=root)


def test_both_openers_agree(photos: Path) -> None:
    """The way for old kernels opens the same plain files, and refuses every link."""
    _plant_traps(photos)
    (photos / "inside").symlink_to("a.jpg")
    root_fd = os.open(photos, os.O_PATH)
    try:
        for names in ((b"a.jpg",), (b"summer", "b c%41é.jpg".encode())):
            for opener in (local.open_beneath, local.open_step_by_step):
                fd = opener(root_fd, names)
                assert BODY == os.pread(fd, len(BODY) + 1, 0)
                os.close(fd)
        for names in ((b"out",), (b"out-folder", b"secret.txt"), (b"out-absolute", b"passwd"), (b"loop",)):
            for opener in (local.open_beneath, local.open_step_by_step):
                with pytest.raises(OSError, match=r"link|directory"):
                    opener(root_fd, names)
        with pytest.raises(OSError, match="symbolic links"):
            local.open_step_by_step(root_fd, (b"inside",))
    finally:
        os.close(root_fd)


async def test_only_an_alias_names_a_file(photos: Path, settings: MakeSettings, fetch: Fetch) -> None:
    """A visitor's URL can't, whatever the allow-list says; nor can an alias to another folder or place."""
    root, location = photos.as_uri(), photos.as_uri() + "/a.jpg"
    tenant = Tenant(name="demo", allowed_origins=("*",))
    async with LocalFolder(settings()) as origin:
        for original in (
            Original(location=location),
            Original(location=location, root=root, by_alias=False),
            Original(location=location, root="", by_alias=True),
            Original(location=location, root=root + "/summer", by_alias=True),
            Original(location=location, root=root[:-1], by_alias=True),
            Original(location="file://host/a.jpg", root="file://host", by_alias=True),
            Original(location="http://host/a.jpg", root="http://host", by_alias=True),
        ):
            with pytest.raises(Denied):
                await origin.fetch(original, tenant, 99)


async def test_size_is_limited(photos: Path, settings: MakeSettings, fetch: Fetch) -> None:
    """The limit is the largest size that is allowed; an empty file is no original."""
    (photos / "empty.jpg").touch()
    root = photos.as_uri()
    async with LocalFolder(settings(max_original_bytes=len(BODY))) as origin:
        assert BODY == await fetch(origin, f"{root}/a.jpg", root=root)
        with pytest.raises(OriginFailed):
            await fetch(origin, f"{root}/empty.jpg", root=root)
    async with LocalFolder(settings(max_original_bytes=len(BODY) - 1)) as origin:
        with pytest.raises(OverLimit):
            await fetch(origin, f"{root}/a.jpg", root=root)


async def test_a_file_that_changes_while_it_is_copied_fails(settings: MakeSettings, fetch: Fetch, photos: Path) -> None:
    """A half-written upload is not an original: a writer that never rests is noticed in the end."""
    path = photos / "growing.jpg"
    path.write_bytes(bytes(20_000_000))
    done = threading.Event()

    def keep_writing() -> None:
        with path.open("ab") as file:
            while not done.is_set():
                file.write(b"x")
                file.flush()

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        async with LocalFolder(settings(max_original_bytes=500_000_000)) as origin:
            with pytest.raises(OriginFailed, match="changed"):
                await fetch(origin, f"{photos.as_uri()}/growing.jpg", root=photos.as_uri())
    finally:
        done.set()
        writer.join()


async def test_an_unreadable_folder_or_disk_is_told_apart(photos: Path, settings: MakeSettings, fetch: Fetch) -> None:
    """A folder that went away is the origin's failure, a full disk is ours."""
    gone = (photos / "gone").as_uri()
    full = os.open("/dev/full", os.O_WRONLY)
    tenant = Tenant(name="demo")
    try:
        async with LocalFolder(settings()) as origin:
            with pytest.raises(OriginFailed):
                await fetch(origin, gone + "/a.jpg", root=gone)
            with pytest.raises(NoSpace):
                original = Original(location=photos.as_uri() + "/a.jpg", root=photos.as_uri(), by_alias=True)
                await origin.fetch(original, tenant, full)
    finally:
        os.close(full)


async def test_a_copy_that_outlives_its_fetch_writes_into_no_strangers_file(
    photos: Path, settings: MakeSettings, tmp_path: Path
) -> None:
    """After a timeout the caller closes its descriptor and the number is given to another file at once."""
    big = photos / "big.jpg"
    with big.open("wb") as file:
        file.truncate(400_000_000)
    original = Original(location=photos.as_uri() + "/big.jpg", root=photos.as_uri(), by_alias=True)
    limits = settings(fetch_timeout_s=0.01, max_original_bytes=500_000_000)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    async with LocalFolder(limits) as origin:
        with pytest.raises(TimedOut):
            await origin.fetch(original, Tenant(name="demo"), target)
        os.close(target)
        stranger = os.open(tmp_path / "stranger", os.O_RDWR | os.O_CREAT)
        assert target == stranger
        try:
            async with asyncio.timeout(10):
                while any(thread.name.startswith("local") and _is_busy(tmp_path) for thread in threading.enumerate()):
                    await asyncio.sleep(0.01)
            assert 0 == os.fstat(stranger).st_size
        finally:
            os.close(stranger)


def _is_busy(folder: Path) -> bool:
    """Whether this process still has the first target open."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return str(folder / "target") in links


async def test_descriptors_are_given_back(photos: Path, settings: MakeSettings, fetch: Fetch) -> None:
    """After successes, failures and cancellations as many are open as before."""
    root = photos.as_uri()
    async with LocalFolder(settings()) as origin:
        await fetch(origin, root + "/a.jpg", root=root)
        before = len(os.listdir("/proc/self/fd"))
        for path in ("a.jpg", "missing", "summer", "../x"):
            try:
                await fetch(origin, f"{root}/{path}", root=root)
            except ImgserveError:
                continue
        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                task = group.create_task(fetch(origin, root + "/a.jpg", root=root))
                asyncio.get_running_loop().call_soon(task.cancel)
        async with asyncio.timeout(5):
            while len(os.listdir("/proc/self/fd")) > before:
                await asyncio.sleep(0.005)
        assert 0 == origin.limit.running == origin.limit.waiting
    await origin.close()


def test_the_location_of_a_root_may_be_encoded(tmp_path: Path) -> None:
    """An alias's folder with spaces and umlauts is found."""
    root = "file://" + quote(str(tmp_path / "Fotos für den Shop"))
    original = Original(location=root + "/a.jpg", root=root, by_alias=True)
    assert (os.fsencode(tmp_path / "Fotos für den Shop"), (b"a.jpg",)) == local.split(original)


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_running_out_of_descriptors_is_overload(
    count: int, photos: Path, settings: MakeSettings, fetch: Fetch, descriptors_left: Any
) -> None:
    """For the target, the folder or the file: the folder did not fail."""
    root = photos.as_uri()
    async with LocalFolder(settings()) as origin:
        fd = os.memfd_create("original")
        with descriptors_left(count), pytest.raises(Overloaded):
            await origin.fetch(Original(location=f"{root}/a.jpg", root=root, by_alias=True), Tenant(name="demo"), fd)
        os.close(fd)
        assert BODY == await fetch(origin, f"{root}/a.jpg", root=root)
