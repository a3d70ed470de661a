"""Remembered answers. Its specification is imgserve/fast/_answers_py.py.

One dict for each class of Accept, so that a look-up builds no key; a ring of entries in the order of their
use. The map of slots is written by other processes: each value is loaded once, whole.
"""

cimport cython
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t load_word(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
    """
    uint64_t load_word(const uint64_t* at) noexcept nogil

cdef enum:
    _MAX_CLASSES = 32
    _OVERHEAD_BYTES = 512
    _MAX_ACCEPT_BYTES = 512
    _LEARNT_MAX = 1024
    _LARGEST_SHARE = 16

EVERY_ACCEPT = 0
MAX_CLASSES = _MAX_CLASSES
OVERHEAD_BYTES = _OVERHEAD_BYTES
MAX_ACCEPT_BYTES = _MAX_ACCEPT_BYTES
LEARNT_MAX = _LEARNT_MAX
LARGEST_SHARE = _LARGEST_SHARE


@cython.final
cdef class Answer:
    """An answer that can be sent again as it is, but for its date."""

    cdef readonly bytes before_date
    cdef readonly bytes after_date
    cdef readonly bytes body
    cdef readonly int status
    cdef readonly double expires_s
    cdef readonly uint64_t stamp
    cdef readonly Py_ssize_t image_slot
    cdef readonly Py_ssize_t tenant_slot
    cdef readonly object template

    def __init__(self, *, bytes before_date not None, bytes after_date not None, bytes body not None, int status,
                 double expires_s, uint64_t stamp, Py_ssize_t image_slot, Py_ssize_t tenant_slot,
                 template) -> None:
        self.before_date = before_date
        self.after_date = after_date
        self.body = body
        self.status = status
        self.expires_s = expires_s
        self.stamp = stamp
        self.image_slot = image_slot
        self.tenant_slot = tenant_slot
        self.template = template


@cython.final
cdef class _Entry:
    """An answer at its place in the ring; the ring's root has none.

    The neighbours are borrowed: the dicts own the entries, and an entry leaves the ring before its dict.
    """

    cdef Answer answer
    cdef bytes key
    cdef int number
    cdef void* older
    cdef void* newer


@cython.final
cdef class Answers:
    """The answers of one front, by request key and class of Accept; bounded, least recently used goes first."""

    cdef readonly Py_ssize_t max_bytes
    cdef readonly Py_ssize_t max_entry_bytes
    cdef readonly Py_ssize_t used_bytes
    cdef readonly Py_ssize_t epoch
    cdef const uint64_t[::1] _view
    cdef const uint64_t* _words
    cdef Py_ssize_t _word_count
    cdef list _by_class
    cdef _Entry _root
    cdef Py_ssize_t _count
    cdef dict _young
    cdef dict _old
    cdef uint64_t _hits, _misses, _expired, _invalidated, _evicted, _refused

    def __init__(self, Py_ssize_t max_bytes, const uint64_t[::1] words not None) -> None:
        self.max_bytes = max_bytes
        self.max_entry_bytes = max_bytes // _LARGEST_SHARE
        self._view = words
        self._words = &words[0]
        self._word_count = words.shape[0]
        self._by_class = [{} for _ in range(_MAX_CLASSES)]
        self._root = _Entry()
        self._root.older = self._root.newer = <void*>self._root
        self._young = {}
        self._old = {}

    def __len__(self) -> int:
        return self._count

    def get(self, bytes key not None, bytes accept not None, double now_s):
        """The answer to this request if there is one that is fresh and alive. A dead one is dropped."""
        cdef object number = self._class_of(accept)
        cdef object found = None
        cdef _Entry entry
        cdef Answer answer
        if number is not None:
            found = (<dict>self._by_class[<int>number]).get(key)
        if found is None:
            found = (<dict>self._by_class[0]).get(key)
            if found is None:
                self._misses += 1
                return None
        entry = <_Entry>found
        answer = entry.answer
        if now_s >= answer.expires_s:
            self._drop(entry)
            self._expired += 1
            return None
        if not self._is_alive(answer):
            self._drop(entry)
            self._invalidated += 1
            return None
        if entry.newer is not <void*>self._root:
            _unlink(entry)
            self._link(entry)
        self._hits += 1
        return answer

    def put(self, bytes key not None, bytes accept not None, int accept_class, Answer answer not None,
            Py_ssize_t epoch) -> bool:
        """Remember an answer, and that ``accept`` is of this class. ``epoch`` is the one in which it was begun."""
        cdef Py_ssize_t size
        cdef dict place
        cdef _Entry entry
        if not 0 <= accept_class < _MAX_CLASSES:
            raise ValueError(f"an accept class is 0 to {_MAX_CLASSES - 1}, not {accept_class}")
        if self._words is NULL:
            return False
        if not (0 <= answer.image_slot < self._word_count and 0 <= answer.tenant_slot < self._word_count):
            raise ValueError(f"no such slot: image {answer.image_slot}, tenant {answer.tenant_slot}")
        size = _size(key, answer)
        if epoch != self.epoch or size > self.max_entry_bytes or not self._learn(accept, accept_class):
            self._refused += 1
            return False
        place = <dict>self._by_class[accept_class]
        if key in place:
            self._drop(<_Entry>place[key])
        entry = _Entry()
        entry.answer = answer
        entry.key = key
        entry.number = accept_class
        place[key] = entry
        self._link(entry)
        self._count += 1
        self.used_bytes += size
        while self.used_bytes > self.max_bytes:
            self._drop(<_Entry>self._root.newer)
            self._evicted += 1
        return True

    def forget(self, bytes key not None) -> int:
        """Drop the answers to this request in all classes; how many there were."""
        cdef int dropped = 0
        cdef dict place
        for place in self._by_class:
            if key in place:
                self._drop(<_Entry>place[key])
                dropped += 1
        return dropped

    def clear(self) -> None:
        """Drop everything, and refuse what was begun before: the configuration has changed."""
        while self._root.newer is not <void*>self._root:
            self._drop(<_Entry>self._root.newer)
        self._young = {}
        self._old = {}
        self.epoch += 1

    def close(self) -> None:
        """Drop everything, take nothing more, and let go of the map; may be called again."""
        self.clear()
        self._words = NULL
        self._view = None

    def counters(self) -> dict:
        """How often ``get`` and ``put`` ended how, since the start."""
        return {
            "hits": self._hits,
            "misses": self._misses,
            "expired": self._expired,
            "invalidated": self._invalidated,
            "evicted": self._evicted,
            "refused": self._refused,
        }

    cdef object _class_of(self, bytes accept):
        cdef object found = self._young.get(accept)
        if found is None and self._old:
            found = self._old.get(accept)
            if found is not None:
                self._keep_learnt(accept, found)
        return found

    cdef bint _learn(self, bytes accept, int accept_class) except -1:
        cdef object known
        if accept_class == 0:
            return True
        known = self._class_of(accept)
        if known is None and len(accept) <= _MAX_ACCEPT_BYTES:
            self._keep_learnt(accept, accept_class)
            return True
        return known is not None and <int>known == accept_class

    cdef int _keep_learnt(self, bytes accept, object accept_class) except -1:
        """Two generations: what is used survives however many other values pass by."""
        if len(self._young) >= _LEARNT_MAX:
            self._old = self._young
            self._young = {}
        self._young[accept] = accept_class
        return 0

    cdef inline bint _is_alive(self, Answer answer) noexcept:
        # put has checked both slots.
        return (load_word(self._words + answer.image_slot) <= answer.stamp
                and load_word(self._words + answer.tenant_slot) <= answer.stamp)

    cdef inline void _link(self, _Entry entry) noexcept:
        """As the newest, just before the root."""
        entry.older = self._root.older
        entry.newer = <void*>self._root
        (<_Entry>self._root.older).newer = <void*>entry
        self._root.older = <void*>entry

    cdef int _drop(self, _Entry entry) except -1:
        _unlink(entry)
        entry.older = entry.newer = NULL
        del (<dict>self._by_class[entry.number])[entry.key]
        self._count -= 1
        self.used_bytes -= _size(entry.key, entry.answer)
        return 0


cdef inline void _unlink(_Entry entry) noexcept:
    (<_Entry>entry.older).newer = entry.newer
    (<_Entry>entry.newer).older = entry.older


cdef inline Py_ssize_t _size(bytes key, Answer answer):
    return len(key) + len(answer.before_date) + len(answer.after_date) + len(answer.body) + _OVERHEAD_BYTES
