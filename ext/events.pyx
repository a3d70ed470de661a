"""A ring of hit events. Its specification is imgserve/fast/_events_py.py.

Numbers lie in one block of C structs, references in lists of the same length, so that a push allocates
nothing; tuples are built when the ring is drained.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t, int64_t

HitEvent = tuple[int, object, object, bytes | None, int, int, int]

cdef struct Numbers:
    int64_t time_s
    int64_t duration_us
    int64_t sent_bytes
    int32_t status


@cython.final
cdef class EventRing:
    """Events in the order they came; a fixed number of them. When it is full, new ones are dropped and counted."""

    cdef readonly Py_ssize_t capacity
    cdef readonly Py_ssize_t dropped
    cdef Py_ssize_t _first
    cdef Py_ssize_t _count
    cdef Numbers* _numbers
    cdef list _templates
    cdef list _peers
    cdef list _forwarded

    def __cinit__(self, Py_ssize_t capacity) -> None:
        """Raises ValueError for less than one."""
        if capacity < 1:
            raise ValueError(f"a ring has room for at least one event, not {capacity}")
        self._numbers = <Numbers*>PyMem_Calloc(<size_t>capacity, sizeof(Numbers))
        if self._numbers is NULL:
            raise MemoryError
        self.capacity = capacity
        self._templates = [None] * capacity
        self._peers = [None] * capacity
        self._forwarded = [None] * capacity

    def __init__(self, Py_ssize_t capacity) -> None:
        """Raises ValueError for less than one."""

    def __dealloc__(self):
        PyMem_Free(self._numbers)

    def __len__(self) -> int:
        return self._count

    def push(self, int64_t time_s, template, peer, bytes forwarded, int64_t duration_us, int32_t status,
             int64_t sent_bytes) -> None:
        """Take one event, or count it as dropped."""
        cdef Py_ssize_t at
        cdef Numbers* numbers
        if self._count >= self.capacity:
            self.dropped += 1
            return
        at = self._first + self._count
        if at >= self.capacity:
            at -= self.capacity
        self._count += 1
        numbers = &self._numbers[at]
        numbers.time_s = time_s
        numbers.duration_us = duration_us
        numbers.sent_bytes = sent_bytes
        numbers.status = status
        self._templates[at] = template
        self._peers[at] = peer
        self._forwarded[at] = forwarded

    def drain(self, Py_ssize_t max_events) -> list:
        """The oldest events, at most so many; they leave the ring."""
        cdef list drained = []
        cdef Py_ssize_t at
        cdef Numbers* numbers
        while len(drained) < max_events and self._count:
            at = self._first
            numbers = &self._numbers[at]
            drained.append((numbers.time_s, self._templates[at], self._peers[at], self._forwarded[at],
                            numbers.duration_us, numbers.status, numbers.sent_bytes))
            self._templates[at] = self._peers[at] = self._forwarded[at] = None
            self._first = 0 if at + 1 == self.capacity else at + 1
            self._count -= 1
        return drained
