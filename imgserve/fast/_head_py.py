"""What a packet must look like to be one plain request, in Python: the specification of ``ext/head.pyx``.

RFC 9112 sections 2 to 5, read strictly: where two parsers might disagree about where a request ends, the
packet is not recognised, and aiohttp's parser has the word.
"""

import re
from dataclasses import dataclass
from typing import Final

MAX_BYTES: Final = 8190  # as aiohttp limits one line; here the whole head
MAX_HEADERS: Final = 128  # as aiohttp limits them

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TEXT: Final = rb"[\t\x20-\x7e\x80-\xff]*"
_REQUEST: Final = re.compile(rb'(GET|HEAD) (/[!"$-~]*) HTTP/1\.1\r\n((?:' + _TOKEN + rb":" + _TEXT + rb"\r\n)*)\r\n")
_HOST: Final = re.compile(rb"[A-Za-z0-9\-._:\[\]]+")

# They say that bytes follow the head, or that the connection ends or becomes another protocol; or they are none
# of a request's, and aiohttp refuses some of them.
_FOREIGN: Final = frozenset(
    {b"transfer-encoding", b"expect", b"upgrade", b"trailer", b"proxy-connection", b"etag", b"server", b"max-forwards"}
    | {b"sec-websocket-key1"}
)
# They change the answer, not the framing.
_ASIDE: Final = frozenset({b"range", b"authorization", b"proxy-authorization"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One bodyless GET or HEAD request.

    ``key`` is the method's first letter, the Host value and the raw target in one: no Host holds a slash, and
    every target begins with one. ``accept`` is the exact value of Accept, empty without one. ``forwarded`` is
    the value of the header that was asked for. ``is_replayable`` is False where the answer may depend on more
    than key and Accept.
    """

    key: bytes
    accept: bytes
    forwarded: bytes | None
    is_replayable: bool


def scan(packet: bytes, forwarded_header: bytes = b"") -> Head | None:
    """The request that the packet holds whole and alone; None for everything else.

    ``forwarded_header`` is the lower-case name of the header to report, empty for none.
    """
    shape = _REQUEST.fullmatch(packet) if len(packet) <= MAX_BYTES else None
    if shape is None:
        return None
    method, target, block = shape.groups()
    lines = block.split(b"\r\n")[:-1]
    fields: dict[bytes, list[bytes]] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields.setdefault(name.lower(), []).append(value.strip(b" \t"))
    hosts, accepts = fields.get(b"host", []), fields.get(b"accept", [])
    forwarded = fields.get(forwarded_header, [])
    if len(lines) > MAX_HEADERS or len(hosts) != 1 or not _HOST.fullmatch(hosts[0]) or not _is_plain(fields):
        return None
    return Head(
        key=method[:1] + hosts[0] + target,
        accept=accepts[-1] if accepts else b"",
        forwarded=forwarded[-1] if forwarded else None,
        is_replayable=len(accepts) <= 1
        and accepts != [b""]
        and len(forwarded) <= 1
        and not any(name in _ASIDE or name.startswith(b"if-") for name in fields),
    )


def _is_plain(fields: dict[bytes, list[bytes]]) -> bool:
    """Nothing follows the head, the connection stays, and aiohttp's parser takes it too."""
    return (
        [value.lower() for value in fields.get(b"connection", [])] in ([], [b"keep-alive"])
        and len(fields.get(b"user-agent", [])) <= 1
        and not any(name in _FOREIGN or name.startswith(b"content-") for name in fields)
    )
