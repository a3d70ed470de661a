"""What fronts tell the keeper about cached files: batches of notices through the mailbox.

A batch is one msgpack message under the tag ``C``. Inside a batch the last word about a file counts, so its parts
are applied in a fixed order: emptied tenants, removed, stored, used.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from imgserve.adapters.cache import names
from imgserve.core.originals import ImageRef
from imgserve.interfaces import Clock

TAG: Final = b"C"
NOTICES_PER_BATCH: Final = 300
"""A notice has up to 150 bytes, so a batch stays below the 60,000 bytes of a packet."""

_PENDING_MAX: Final = 20 * NOTICES_PER_BATCH

Place = tuple[str, str, str]
"""Tenant, image id, name of the file."""

Stored = tuple[str, str, str, int, int]
"""A place, the size of the body in bytes, and when the original was fetched."""


class Batch(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Notices of one front."""

    at_s: int
    emptied: tuple[str, ...] = ()
    removed: tuple[Place, ...] = ()
    stored: tuple[Stored, ...] = ()
    used: tuple[Place, ...] = ()


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Batch)


class Journal:
    """A front's side; implements ``interfaces.CacheJournal`` and what the store tells of removals.

    ``try_send`` is the mailbox's. Call ``flush`` every second and before the end; a full batch goes at once. When the
    mailbox is full notices stay here; beyond a bound new ones are dropped and counted (the keeper's
    next scan of the disk finds what they would have said).
    """

    def __init__(self, try_send: Callable[[bytes, bytes], bool], clock: Clock) -> None:
        self._try_send = try_send
        self._clock = clock
        self._emptied: set[str] = set()
        self._changed: dict[Place, tuple[int, int] | None] = {}  # size and created; None: removed
        self._used: dict[Place, None] = {}
        self.sent = 0
        self.dropped = 0

    @property
    def pending(self) -> int:
        """How many notices wait."""
        return len(self._emptied) + len(self._changed) + len(self._used)

    def stored(self, image: ImageRef, name: str, size_bytes: int, created_s: int) -> None:
        """A file was published, with a body of that size."""
        self._note_change((image.tenant, image.id, name), (size_bytes, created_s))

    def used(self, image: ImageRef, name: str) -> None:
        """A file was read for an answer."""
        place = (image.tenant, image.id, name)
        if place not in self._used:
            if not self._has_room():
                return
            self._used[place] = None
            self._flush_if_full()

    def removed(self, image: ImageRef, name: str) -> None:
        """A file was unlinked."""
        self._note_change((image.tenant, image.id, name), None)

    def removed_all(self, tenant: str) -> None:
        """All files of the tenant were unlinked; notices about them that wait are void."""
        self._changed = {place: change for place, change in self._changed.items() if place[0] != tenant}
        self._used = {place: None for place in self._used if place[0] != tenant}
        self._emptied.add(tenant)  # at most one for each tenant of the node

    def flush(self) -> bool:
        """Send what waits; False when the mailbox was full and something still waits."""
        while self.pending:
            if not self._send_one():
                return False
        return True

    def _note_change(self, place: Place, change: tuple[int, int] | None) -> None:
        if place not in self._changed and not self._has_room():
            return
        self._changed[place] = change
        if change is None:
            self._used.pop(place, None)
        self._flush_if_full()

    def _has_room(self) -> bool:
        if self.pending < _PENDING_MAX:
            return True
        self.dropped += 1
        return False

    def _flush_if_full(self) -> None:
        # At each multiple, so that a mailbox that is full is not asked again for each notice.
        if self.pending % NOTICES_PER_BATCH == 0:
            self.flush()

    def _send_one(self) -> bool:
        """Send the oldest notices; changes of a batch go before uses, so that a use finds its row."""
        emptied = tuple(self._emptied)[:NOTICES_PER_BATCH]
        room = NOTICES_PER_BATCH - len(emptied)
        changed = tuple(self._changed.items())[:room]
        used = tuple(self._used)[: room - len(changed)]
        batch = Batch(
            at_s=int(self._clock.now_s()),
            emptied=emptied,
            removed=tuple(place for place, change in changed if change is None),
            stored=tuple((*place, *change) for place, change in changed if change is not None),
            used=used,
        )
        if not self._try_send(TAG, _encoder.encode(batch)):
            return False
        self._emptied.difference_update(emptied)
        for place, _ in changed:
            del self._changed[place]
        for place in used:
            del self._used[place]
        self.sent += len(emptied) + len(changed) + len(used)
        return True


def decode(payload: bytes) -> Batch:
    """A batch as the keeper got it. Raises ValueError when it is none, or names what is no cached file."""
    try:
        batch = _decoder.decode(payload)
    except msgspec.MsgspecError as error:
        raise ValueError("not a batch of the cache journal") from error
    for tenant in batch.emptied:
        names.images_folder("", tenant)
    for tenant, image, name in (*batch.removed, *batch.used):
        names.reference(tenant, image)
        names.check_file(name)
    for tenant, image, name, size_bytes, _ in batch.stored:
        names.reference(tenant, image)
        names.check_file(name)
        if size_bytes < 0:
            raise ValueError("a negative size")
    return batch
