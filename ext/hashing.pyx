"""SipHash-2-4 with 128 bits of output. Its specification is imgserve/fast/_hashing_py.py."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef extern from "<endian.h>" nogil:
    uint64_t le64toh(uint64_t word)
    uint64_t htole64(uint64_t word)

KEY_BYTES = 16

cdef struct State:
    uint64_t v0
    uint64_t v1
    uint64_t v2
    uint64_t v3


def siphash128(bytes key not None, bytes data not None) -> bytes:
    """Keyed 16-byte hash of ``data``. Raises ValueError unless the key has 16 bytes."""
    _check(key)
    return _hash(<const uint8_t*>PyBytes_AS_STRING(key), data)


@cython.final
cdef class Hasher:
    """SipHash-2-4-128 under one key: call it with the data."""

    cdef uint8_t _key[16]

    def __init__(self, bytes key not None) -> None:
        """Raises ValueError unless the key has 16 bytes."""
        _check(key)
        memcpy(self._key, PyBytes_AS_STRING(key), 16)

    def __call__(self, bytes data not None) -> bytes:
        """Keyed 16-byte hash of ``data``."""
        return _hash(self._key, data)


cdef int _check(bytes key) except -1:
    if PyBytes_GET_SIZE(key) != 16:
        raise ValueError(f"a SipHash key has 16 bytes, not {PyBytes_GET_SIZE(key)}")
    return 0


cdef inline bytes _hash(const uint8_t* key, bytes data):
    cdef bytes digest = PyBytes_FromStringAndSize(NULL, 16)
    _siphash(key, <const uint8_t*>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data),
             <uint8_t*>PyBytes_AS_STRING(digest))
    return digest


cdef void _siphash(const uint8_t* key, const uint8_t* data, size_t length, uint8_t* digest) noexcept nogil:
    cdef uint64_t k0 = _word(key), k1 = _word(key + 8)
    cdef State s
    cdef size_t i, whole = length & ~(<size_t>7)
    cdef uint64_t last = (<uint64_t>(length & 0xff)) << 56
    s.v0 = k0 ^ <uint64_t>0x736f6d6570736575
    s.v1 = k1 ^ <uint64_t>0x646f72616e646f6d ^ 0xee
    s.v2 = k0 ^ <uint64_t>0x6c7967656e657261
    s.v3 = k1 ^ <uint64_t>0x7465646279746573
    for i in range(0, whole, 8):
        _absorb(&s, _word(data + i))
    for i in range(whole, length):
        last |= (<uint64_t>data[i]) << (8 * (i - whole))
    _absorb(&s, last)
    s.v2 ^= 0xee
    _store(&s, digest)
    s.v1 ^= 0xdd
    _store(&s, digest + 8)


cdef inline void _absorb(State* s, uint64_t word) noexcept nogil:
    s.v3 ^= word
    _round(s)
    _round(s)
    s.v0 ^= word


cdef inline void _store(State* s, uint8_t* out) noexcept nogil:
    cdef uint64_t word
    _round(s)
    _round(s)
    _round(s)
    _round(s)
    word = htole64(s.v0 ^ s.v1 ^ s.v2 ^ s.v3)
    memcpy(out, &word, 8)


cdef inline void _round(State* s) noexcept nogil:
    s.v0 += s.v1
    s.v1 = _turn(s.v1, 13) ^ s.v0
    s.v0 = _turn(s.v0, 32)
    s.v2 += s.v3
    s.v3 = _turn(s.v3, 16) ^ s.v2
    s.v0 += s.v3
    s.v3 = _turn(s.v3, 21) ^ s.v0
    s.v2 += s.v1
    s.v1 = _turn(s.v1, 17) ^ s.v2
    s.v2 = _turn(s.v2, 32)


cdef inline uint64_t _turn(uint64_t word, int bits) noexcept nogil:
    return (word << bits) | (word >> (64 - bits))


cdef inline uint64_t _word(const uint8_t* at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, 8)
    return le64toh(word)
