"""Every seam of the system, on one screen: what services need, and adapters give.

Times named ``_s`` are Unix seconds or durations in seconds. File descriptors that are passed in stay
the caller's; descriptors inside returned records are owned by the record, which is closed by its holder.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from imgserve.core.events import AccessEvent, LogEntry
from imgserve.core.originals import ImageRef, Original
from imgserve.core.plan import Plan
from imgserve.core.tenants import Tenant


class Clock(Protocol):
    """Time as the cache and the logs see it; a simulator may give another."""

    def now_s(self) -> float:
        """Unix time in seconds."""

    def monotonic_s(self) -> float:
        """A time that never jumps."""


# ---- origins -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What an origin delivered into the given descriptor."""

    size_bytes: int


class Origin(Protocol):
    """A kind of place that originals come from."""

    async def fetch(self, original: Original, tenant: Tenant, into_fd: int) -> Fetched:
        """Write the original's bytes from offset 0 of ``into_fd``; bounded in size and time.

        Raises NotFound, Denied, OriginFailed, TimedOut, OverLimit, Overloaded or NoSpace.
        """


# ---- rendering -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What a worker wrote into the target descriptor."""

    content_type: str
    size_bytes: int
    width_px: int
    height_px: int
    render_us: int
    is_original: bool  # the original's own bytes were sent, decision "never larger"


class Renderer(Protocol):
    """Turns an original into a variant, outside this process."""

    async def render(
        self,
        plan: Plan,
        formats: tuple[str, ...],
        original_fd: int,
        target_fd: int,
        *,
        original_bytes: int | None = None,
    ) -> Rendered:
        """Render into ``target_fd`` from offset 0. ``original_bytes`` is the length of the image in
        ``original_fd``, from offset 0: a cached file has a trailer behind it; None means the whole file.
        ``formats`` is the order of wish, never empty:
        ``avif``, ``webp``, ``jpeg``, ``png``, or ``original``; ``plain`` means PNG where the image has
        alpha or came without loss, else JPEG.

        Raises Undecodable, OverLimit, RenderFailed, TimedOut, Overloaded or NoSpace.
        """


# ---- cache ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeta:
    """What a cached file's trailer says."""

    content_type: str
    etag: str  # without quotes
    created_s: int  # when the original was fetched: age counts from here
    stamp: int  # head of the invalidation log before the original was fetched
    body_bytes: int
    location: str = ""  # of an original: its canonical location; "" in a variant
    is_missing: bool = False  # remembers the origin's 404, and has no body


class CachedFile(Protocol):
    """An open cached file; stays readable after it has been unlinked."""

    fd: int
    meta: FileMeta

    def close(self) -> None:
        """Close the descriptor; may be called again."""


class Draft(Protocol):
    """An unnamed file that is being written: nobody can see it yet."""

    fd: int
    is_stored: bool  # False: lives in memory because the disk is full, and can't be published

    def close(self) -> None:
        """Give it up; may be called again, and after publishing."""


class ImageCache(Protocol):
    """Files of images. Names: ``o-HASH`` originals, ``v-PLANKEY.CLASS`` variants."""

    async def draft(self, tenant: str, *, in_memory: bool = False) -> Draft:
        """A new unnamed file beside the tenant's images; in memory where the disk has no room."""

    async def open(self, image: ImageRef, name: str) -> CachedFile | None:
        """The file if it is whole and younger than the maximum age. Liveness is the caller's question."""

    async def publish(self, draft: Draft, image: ImageRef, name: str, meta: FileMeta) -> CachedFile:
        """Write the trailer and show the file under its name, at once and whole.

        Raises Superseded when the image was invalidated since ``meta.stamp``. ``meta.etag`` may be empty:
        then the body's checksum becomes the tag. ``meta.body_bytes`` is taken from the draft.
        A draft in memory is returned as a file without being published.
        """

    async def count(self, image: ImageRef) -> int:
        """How many files of the image are stored."""

    async def restamp(self, file: CachedFile, stamp: int) -> None:
        """Remember that this file was looked at and is alive as of ``stamp``."""

    async def remove(self, image: ImageRef, plan_keys: frozenset[str] | None) -> "Removed":
        """Unlink all files of the image, or only the variants of these plans."""

    async def remove_all(self, tenant: str) -> "Removed":
        """Unlink all images of the tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What a removal took away."""

    files: int = 0
    size_bytes: int = 0


class CacheJournal(Protocol):
    """Tells the keeper what the cache holds and uses. Never blocks; what is lost is counted, a sweep finds it."""

    def stored(self, image: ImageRef, name: str, size_bytes: int, created_s: int) -> None:
        """A file was published."""

    def used(self, image: ImageRef, name: str) -> None:
        """A file was read for an answer."""


# ---- invalidation --------------------------------------------------------------------------------


class Slots(Protocol):
    """Which sequence number last touched an image: a memory map shared by all processes of the node."""

    def head(self) -> int:
        """The newest sequence number given out on this node."""

    def is_alive(self, image: ImageRef, stamp: int) -> bool:
        """False means: look again in the log."""


class InvalidationLog(Protocol):
    """The durable record of what was invalidated."""

    async def was_named(self, image: ImageRef, name: str, since: int) -> bool:
        """Whether the image, this file of it, or all of the tenant was invalidated after ``since``."""


# ---- access log ----------------------------------------------------------------------------------


class AccessLog(Protocol):
    """Takes events without waiting; pseudonymises and hands over in batches."""

    def record(self, event: AccessEvent) -> None:
        """Take one event; when the ring is full it is dropped and counted."""

    def extend(self, entries: Iterable[LogEntry]) -> None:
        """Take many events at once, such as those of the fast path."""
