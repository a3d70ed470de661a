from typing import Final, final

KEY_BYTES: Final[int]

def siphash128(key: bytes, data: bytes) -> bytes: ...

@final
class Hasher:
    def __init__(self, key: bytes) -> None: ...
    def __call__(self, data: bytes) -> bytes: ...
