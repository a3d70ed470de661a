from typing import Final, final

MAX_BYTES: Final[int]
MAX_HEADERS: Final[int]

@final
class Head:
    key: Final[bytes]
    accept: Final[bytes]
    forwarded: Final[bytes | None]
    is_replayable: Final[bool]
    def __init__(self, *, key: bytes, accept: bytes, forwarded: bytes | None, is_replayable: bool) -> None: ...

def scan(packet: bytes, forwarded_header: bytes = b"") -> Head | None: ...
