"""Remembered answers, in Python: the specification of ``ext/answers.pyx``.

It decides nothing: whoever puts an answer says how long it may be replayed, which stamp it carries and which
class its Accept header has.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

EVERY_ACCEPT: Final = 0  # the class of answers that do not vary by Accept
MAX_CLASSES: Final = 32
OVERHEAD_BYTES: Final = 512  # what an entry costs beside its bytes, roughly
MAX_ACCEPT_BYTES: Final = 512
LEARNT_MAX: Final = 1024  # values of Accept in each of two generations
LARGEST_SHARE: Final = 16  # no answer may take more than this part of the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that can be sent again as it is, but for its date.

    ``before_date`` and ``after_date`` are the head around the value of Date. ``expires_s`` is a monotonic time.
    ``stamp`` is the invalidation log's head before the original was fetched: the answer is alive while neither
    slot is above it. Slots are indices into the words of the map. ``template`` is what the access event of a
    replay is made from.
    """

    before_date: bytes
    after_date: bytes
    body: bytes
    status: int
    expires_s: float
    stamp: int
    image_slot: int
    tenant_slot: int
    template: object


class Answers:
    """The answers of one front, by request key and class of Accept; bounded, least recently used goes first.

    ``words`` are the native 64-bit words of the shared map of slots, which other processes raise.
    """

    def __init__(self, max_bytes: int, words: memoryview) -> None:
        self.max_bytes = max_bytes
        self.max_entry_bytes = max_bytes // LARGEST_SHARE
        self.used_bytes = 0
        self.epoch = 0
        self._words: memoryview | None = words
        self._entries: OrderedDict[tuple[int, bytes], Answer] = OrderedDict()
        self._young: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}
        self._hits = self._misses = self._expired = self._invalidated = self._evicted = self._refused = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, accept: bytes, now_s: float) -> Answer | None:
        """The answer to this request if there is one that is fresh and alive. A dead one is dropped."""
        accept_class = self._class_of(accept)
        place = (EVERY_ACCEPT if accept_class is None else accept_class, key)
        answer = self._entries.get(place)
        if answer is None and place[0] != EVERY_ACCEPT:
            place = (EVERY_ACCEPT, key)
            answer = self._entries.get(place)
        if answer is None:
            self._misses += 1
        elif now_s >= answer.expires_s:
            self._drop(place)
            self._expired += 1
        elif not self._is_alive(answer):
            self._drop(place)
            self._invalidated += 1
        else:
            self._entries.move_to_end(place)
            self._hits += 1
            return answer
        return None

    def put(self, key: bytes, accept: bytes, accept_class: int, answer: Answer, epoch: int) -> bool:
        """Remember an answer, and that ``accept`` is of this class. ``epoch`` is the one in which it was begun.

        False when it was not taken: begun before the last ``clear``, too large, or ``accept`` is too long or was
        taught another class. Raises ValueError for a class or a slot that can't be.
        """
        if not 0 <= accept_class < MAX_CLASSES:
            raise ValueError(f"an accept class is 0 to {MAX_CLASSES - 1}, not {accept_class}")
        if self._words is None:
            return False
        if not (0 <= answer.image_slot < len(self._words) and 0 <= answer.tenant_slot < len(self._words)):
            raise ValueError(f"no such slot: image {answer.image_slot}, tenant {answer.tenant_slot}")
        size = _size(key, answer)
        if epoch != self.epoch or size > self.max_entry_bytes or not self._learn(accept, accept_class):
            self._refused += 1
            return False
        place = (accept_class, key)
        if place in self._entries:
            self._drop(place)
        self._entries[place] = answer
        self.used_bytes += size
        while self.used_bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))
            self._evicted += 1
        return True

    def forget(self, key: bytes) -> int:
        """Drop the answers to this request in all classes; how many there were."""
        places = [place for place in ((number, key) for number in range(MAX_CLASSES)) if place in self._entries]
        for place in places:
            self._drop(place)
        return len(places)

    def clear(self) -> None:
        """Drop everything, and refuse what was begun before: the configuration has changed."""
        self._entries.clear()
        self._young.clear()
        self._old.clear()
        self.used_bytes = 0
        self.epoch += 1

    def close(self) -> None:
        """Drop everything, take nothing more, and let go of the map; may be called again."""
        self.clear()
        self._words = None

    def counters(self) -> dict[str, int]:
        """How often ``get`` and ``put`` ended how, since the start."""
        return {
            "hits": self._hits,
            "misses": self._misses,
            "expired": self._expired,
            "invalidated": self._invalidated,
            "evicted": self._evicted,
            "refused": self._refused,
        }

    def _class_of(self, accept: bytes) -> int | None:
        found = self._young.get(accept)
        if found is None and self._old:
            found = self._old.get(accept)
            if found is not None:
                self._keep_learnt(accept, found)
        return found

    def _learn(self, accept: bytes, accept_class: int) -> bool:
        if accept_class == EVERY_ACCEPT:
            return True
        known = self._class_of(accept)
        if known is None and len(accept) <= MAX_ACCEPT_BYTES:
            self._keep_learnt(accept, accept_class)
            return True
        return known == accept_class

    def _keep_learnt(self, accept: bytes, accept_class: int) -> None:
        """Two generations: what is used survives however many other values pass by."""
        if len(self._young) >= LEARNT_MAX:
            self._old = self._young
            self._young = {}
        self._young[accept] = accept_class

    def _is_alive(self, answer: Answer) -> bool:
        words = self._words
        assert words is not None, "nothing is remembered without the map"
        return bool(words[answer.image_slot] <= answer.stamp and words[answer.tenant_slot] <= answer.stamp)

    def _drop(self, place: tuple[int, bytes]) -> None:
        self.used_bytes -= _size(place[1], self._entries.pop(place))


def _size(key: bytes, answer: Answer) -> int:
    return len(key) + len(answer.before_date) + len(answer.after_date) + len(answer.body) + OVERHEAD_BYTES
