"""What a packet must look like to be one plain request. Its specification is imgserve/fast/_head_py.py.

A packet is bytes, because that is what the loop delivers and its pointer costs nothing. The scan never
reads past the byte that Python keeps behind them, a NUL: no line may contain it.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

cdef enum:
    _MAX_BYTES = 8190
    _MAX_HEADERS = 128

MAX_BYTES = _MAX_BYTES
MAX_HEADERS = _MAX_HEADERS

# What a byte may be part of.
cdef enum:
    TOKEN = 1
    TARGET = 2
    HOST = 4

cdef enum Kind:
    IGNORED, HOST_NAME, ACCEPT, CONNECTION, USER_AGENT, FORWARDED, ASIDE, FOREIGN

cdef struct Slice:
    const uint8_t* start
    Py_ssize_t length

cdef struct Found:
    Slice target
    Slice host
    Slice accept
    Slice forwarded
    bint is_head
    bint has_connection
    bint has_user_agent
    bint is_replayable

cdef uint8_t _class[256]


cdef void _fill_classes():
    cdef int byte
    for byte in range(256):
        _class[byte] = 0
        if 0x21 <= byte <= 0x7e and byte != c'#':
            _class[byte] |= TARGET
    for byte in b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz":
        _class[byte] |= TOKEN
    for byte in b"-._:[]0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz":
        _class[byte] |= HOST


_fill_classes()


@cython.final
@cython.freelist(16)
cdef class Head:
    """One bodyless GET or HEAD request."""

    cdef readonly bytes key
    cdef readonly bytes accept
    cdef readonly bytes forwarded
    cdef readonly bint is_replayable

    def __init__(self, *, bytes key not None, bytes accept not None, bytes forwarded, bint is_replayable) -> None:
        self.key = key
        self.accept = accept
        self.forwarded = forwarded
        self.is_replayable = is_replayable


def scan(bytes packet not None, bytes forwarded_header not None = b""):
    """The request that the packet holds whole and alone; None for everything else."""
    cdef Found found
    cdef Slice name
    cdef Head head
    cdef char* key
    name.start = <const uint8_t*>PyBytes_AS_STRING(forwarded_header)
    name.length = PyBytes_GET_SIZE(forwarded_header)
    if not _scan(<const uint8_t*>PyBytes_AS_STRING(packet), PyBytes_GET_SIZE(packet), name, &found):
        return None
    head = Head.__new__(Head)
    head.key = PyBytes_FromStringAndSize(NULL, 1 + found.host.length + found.target.length)
    key = PyBytes_AS_STRING(head.key)
    key[0] = c'H' if found.is_head else c'G'
    memcpy(key + 1, found.host.start, found.host.length)
    memcpy(key + 1 + found.host.length, found.target.start, found.target.length)
    head.accept = b"" if found.accept.start is NULL else _bytes(found.accept)
    head.forwarded = None if found.forwarded.start is NULL else _bytes(found.forwarded)
    head.is_replayable = found.is_replayable
    return head


cdef inline bytes _bytes(Slice part):
    return PyBytes_FromStringAndSize(<const char*>part.start, part.length)


cdef bint _scan(const uint8_t* at, Py_ssize_t length, Slice forwarded, Found* found) noexcept nogil:
    cdef const uint8_t* end = at + length
    cdef const uint8_t* start
    cdef Slice name, value
    cdef int headers = 0
    # 18 bytes are "GET / HTTP/1.1", its end of line and the empty line.
    if length < 18 or length > _MAX_BYTES:
        return False
    found.host.start = found.accept.start = found.forwarded.start = NULL
    found.has_connection = found.has_user_agent = False
    found.is_replayable = True
    found.is_head = at[0] == c'H'
    if memcmp(at, b"GET /", 5) == 0:
        at += 4
    elif memcmp(at, b"HEAD /", 6) == 0:
        at += 5
    else:
        return False
    start = at
    while _class[at[0]] & TARGET:
        at += 1
    found.target.start = start
    found.target.length = at - start
    if end - at < 13 or memcmp(at, b" HTTP/1.1\r\n", 11) != 0:
        return False
    at += 11
    while at[0] != c'\r':
        start = at
        while _class[at[0]] & TOKEN:
            at += 1
        name.start = start
        name.length = at - start
        if name.length == 0 or at[0] != c':':
            return False
        at = _read_value(at + 1, end, &value)
        headers += 1
        if at is NULL or headers > _MAX_HEADERS or not _note(_kind(name, forwarded), value, found):
            return False
    return end - at == 2 and at[1] == c'\n' and found.host.start is not NULL


cdef inline const uint8_t* _read_value(const uint8_t* at, const uint8_t* end, Slice* value) noexcept nogil:
    """Where the next line begins; NULL where this one is not text and CR LF."""
    cdef const uint8_t* stop = <const uint8_t*>memchr(at, c'\r', <size_t>(end - at))
    if stop is NULL or stop[1] != c'\n':
        return NULL
    if not _is_text(at, stop):
        return NULL
    value.start = at
    value.length = stop - at
    while value.length and (value.start[0] == c' ' or value.start[0] == c'\t'):
        value.start += 1
        value.length -= 1
    while value.length and (value.start[value.length - 1] == c' ' or value.start[value.length - 1] == c'\t'):
        value.length -= 1
    return stop + 2


cdef inline bint _is_text(const uint8_t* at, const uint8_t* stop) noexcept nogil:
    """No control byte but the tab. Eight bytes at a time, one by one where a word holds a suspect."""
    cdef uint64_t word, erased
    cdef const uint8_t* upto
    while at < stop:
        if stop - at >= 8:
            memcpy(&word, at, 8)
            erased = word ^ <uint64_t>0x7f7f7f7f7f7f7f7f
            if not (((word - <uint64_t>0x2020202020202020) & ~word | (erased - <uint64_t>0x0101010101010101) & ~erased)
                    & <uint64_t>0x8080808080808080):
                at += 8
                continue
            upto = at + 8
        else:
            upto = stop
        while at < upto:
            if (at[0] < 0x20 and at[0] != c'\t') or at[0] == 0x7f:
                return False
            at += 1
    return True


cdef bint _note(Kind kind, Slice value, Found* found) noexcept nogil:
    """Take a header into account; False hands the packet over."""
    cdef Py_ssize_t i
    if kind == IGNORED:
        return True
    if kind == HOST_NAME:
        if found.host.start is not NULL or value.length == 0:
            return False
        for i in range(value.length):
            if not _class[value.start[i]] & HOST:
                return False
        found.host = value
    elif kind == CONNECTION:
        if found.has_connection or not _is(value, b"keep-alive", 10):
            return False
        found.has_connection = True
    elif kind == USER_AGENT:
        if found.has_user_agent:
            return False
        found.has_user_agent = True
    elif kind == ACCEPT:
        if found.accept.start is not NULL or value.length == 0:
            found.is_replayable = False
        found.accept = value
    elif kind == FORWARDED:
        if found.forwarded.start is not NULL:
            found.is_replayable = False
        found.forwarded = value
    elif kind == ASIDE:
        found.is_replayable = False
    else:
        return False
    return True


cdef Kind _kind(Slice name, Slice forwarded) noexcept nogil:
    """What a header's name means here. No two names that count share length and first letter."""
    cdef uint8_t first = name.start[0] | 0x20
    cdef Py_ssize_t n = name.length
    if n >= 8 and first == c'c' and _starts(name, b"content-", 8):
        return FOREIGN
    if n == 4:
        if first == c'h' and _is(name, b"host", 4):
            return HOST_NAME
        if first == c'e' and _is(name, b"etag", 4):
            return FOREIGN
    elif n == 6:
        if first == c'a' and _is(name, b"accept", 6):
            return ACCEPT
        if (first == c'e' and _is(name, b"expect", 6)) or (first == c's' and _is(name, b"server", 6)):
            return FOREIGN
    elif n == 7:
        if (first == c'u' and _is(name, b"upgrade", 7)) or (first == c't' and _is(name, b"trailer", 7)):
            return FOREIGN
    elif n == 10:
        if first == c'c' and _is(name, b"connection", 10):
            return CONNECTION
        if first == c'u' and _is(name, b"user-agent", 10):
            return USER_AGENT
    elif n == 12 and first == c'm' and _is(name, b"max-forwards", 12):
        return FOREIGN
    elif n == 16 and first == c'p' and _is(name, b"proxy-connection", 16):
        return FOREIGN
    elif n == 17 and first == c't' and _is(name, b"transfer-encoding", 17):
        return FOREIGN
    elif n == 18 and first == c's' and _is(name, b"sec-websocket-key1", 18):
        return FOREIGN
    if n == forwarded.length and _is(name, <const char*>forwarded.start, n):
        return FORWARDED
    if (n == 5 and first == c'r' and _is(name, b"range", 5)) or (n >= 3 and first == c'i' and _starts(name, b"if-", 3)):
        return ASIDE
    if (n == 13 and first == c'a' and _is(name, b"authorization", 13)) \
            or (n == 19 and first == c'p' and _is(name, b"proxy-authorization", 19)):
        return ASIDE
    return IGNORED


cdef inline bint _is(Slice part, const char* lower, Py_ssize_t length) noexcept nogil:
    return part.length == length and _starts(part, lower, length)


cdef inline bint _starts(Slice part, const char* lower, Py_ssize_t length) noexcept nogil:
    """Whether it begins so, letters in any case. ``lower`` holds lower-case letters, digits and hyphens, so that
    setting bit 5 maps only their upper case onto them: the bytes that it would also map are in no token or text."""
    cdef Py_ssize_t i
    for i in range(length):
        if (part.start[i] | 0x20) != <uint8_t>lower[i]:
            return False
    return True
