"""Notices of fronts: batched, bounded, and the last word about a file counts."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgserve.adapters.cache import journal
from imgserve.adapters.cache.journal import NOTICES_PER_BATCH, Batch, Journal
from imgserve.aio.mailbox import PAYLOAD_BYTES_MAX
from imgserve.core.originals import ImageId, ImageRef

VARIANT = "v-" + "a" * 26 + ".webp"
CAT = ImageRef(tenant="acme", id=ImageId("c" * 16))
DOG = ImageRef(tenant="other", id=ImageId("d" * 16))


class Mailbox:
    """Keeps what it is given, unless it is full."""

    def __init__(self) -> None:
        self.is_full = False
        self.payloads: list[bytes] = []

    def try_send(self, tag: bytes, payload: bytes) -> bool:
        assert b"C" == tag
        if not self.is_full:
            self.payloads.append(payload)
        return not self.is_full

    def now_s(self) -> float:
        return 5000.9

    def monotonic_s(self) -> float:
        return 0.0

    def batches(self) -> list[Batch]:
        return [journal.decode(payload) for payload in self.payloads]


def pair() -> tuple[Mailbox, Journal]:
    mailbox = Mailbox()
    return mailbox, Journal(mailbox.try_send, mailbox)


def test_a_flush_sends_one_batch_and_a_use_is_told_once() -> None:
    """A thousand uses of a hot image are one notice."""
    mailbox, notices = pair()
    for _ in range(1000):
        notices.used(CAT, VARIANT)
    notices.stored(CAT, "o-main", 77, 4000)
    assert [] == mailbox.payloads
    assert notices.flush()
    assert notices.flush()

    place = ("acme", CAT.id, VARIANT)
    assert [Batch(at_s=5000, stored=(("acme", CAT.id, "o-main", 77, 4000),), used=(place,))] == mailbox.batches()
    assert (0, 2, 0) == (notices.pending, notices.sent, notices.dropped)


def test_the_last_word_about_a_file_counts() -> None:
    """Stored then removed, removed then stored, all removed then stored."""
    mailbox, notices = pair()
    notices.stored(CAT, VARIANT, 1, 1)
    notices.used(CAT, VARIANT)
    notices.removed(CAT, VARIANT)
    notices.stored(CAT, "o-main", 1, 1)
    notices.removed(CAT, "o-main")
    notices.stored(CAT, "o-main", 2, 2)
    notices.stored(DOG, VARIANT, 3, 3)
    notices.used(DOG, VARIANT)
    notices.removed_all("other")
    notices.stored(DOG, "o-main", 4, 4)
    notices.flush()

    assert [
        Batch(
            at_s=5000,
            emptied=("other",),
            removed=(("acme", CAT.id, VARIANT),),
            stored=(("acme", CAT.id, "o-main", 2, 2), ("other", DOG.id, "o-main", 4, 4)),
        )
    ] == mailbox.batches()


def test_a_full_batch_goes_at_once_and_fits_a_packet() -> None:
    """With the longest names there are."""
    mailbox, notices = pair()
    for number in range(NOTICES_PER_BATCH):
        image = ImageRef(tenant="t" * 63, id=ImageId("a" * 16))
        name = "v-" + "".join("abcdefghij"[int(digit)] for digit in f"{number:026d}") + ".abcdefgh"
        notices.stored(image, name, 2**40, 2**40)
    assert 1 == len(mailbox.payloads)
    assert len(mailbox.payloads[0]) < PAYLOAD_BYTES_MAX
    assert NOTICES_PER_BATCH == len(mailbox.batches()[0].stored)


def test_a_full_mailbox_loses_nothing_until_the_bound_and_then_counts() -> None:
    """Notices wait; what comes beyond the bound is dropped; nothing blocks."""
    mailbox, notices = pair()
    mailbox.is_full = True
    for number in range(journal._PENDING_MAX + 5):
        notices.used(ImageRef(tenant=f"t{number}", id=CAT.id), VARIANT)
    assert not notices.flush()
    assert (journal._PENDING_MAX, 5) == (notices.pending, notices.dropped)
    mailbox.is_full = False
    assert notices.flush()
    assert journal._PENDING_MAX == sum(len(batch.used) for batch in mailbox.batches()) == notices.sent


@pytest.mark.parametrize(
    "batch",
    [
        Batch(at_s=1, emptied=("../..",)),
        Batch(at_s=1, removed=(("acme", "../../../../../x", VARIANT),)),
        Batch(at_s=1, used=(("acme", CAT.id, "../../passwd"),)),
        Batch(at_s=1, stored=(("acme", CAT.id, VARIANT, -1, 0),)),
    ],
)
def test_a_batch_that_names_no_cached_file_is_refused(batch: Batch) -> None:
    """The keeper builds paths from it."""
    with pytest.raises(ValueError, match=r"not a|negative"):
        journal.decode(msgspec.msgpack.encode(batch))


@given(st.binary(max_size=100) | st.from_type(type(None)).map(lambda _: msgspec.msgpack.encode({"at_s": "x"})))
def test_bytes_that_are_no_batch_are_refused(payload: bytes) -> None:
    """With one kind of error."""
    try:
        batch: Any = journal.decode(payload)
    except ValueError:
        return
    assert isinstance(batch, Batch)
