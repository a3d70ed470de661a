from typing import Final, final

EVERY_ACCEPT: Final[int]
MAX_CLASSES: Final[int]
OVERHEAD_BYTES: Final[int]
MAX_ACCEPT_BYTES: Final[int]
LEARNT_MAX: Final[int]
LARGEST_SHARE: Final[int]

@final
class Answer:
    before_date: Final[bytes]
    after_date: Final[bytes]
    body: Final[bytes]
    status: Final[int]
    expires_s: Final[float]
    stamp: Final[int]
    image_slot: Final[int]
    tenant_slot: Final[int]
    template: Final[object]
    def __init__(
        self,
        *,
        before_date: bytes,
        after_date: bytes,
        body: bytes,
        status: int,
        expires_s: float,
        stamp: int,
        image_slot: int,
        tenant_slot: int,
        template: object,
    ) -> None: ...

@final
class Answers:
    max_bytes: Final[int]
    max_entry_bytes: Final[int]
    used_bytes: Final[int]
    epoch: Final[int]
    def __init__(self, max_bytes: int, words: memoryview) -> None: ...
    def __len__(self) -> int: ...
    def get(self, key: bytes, accept: bytes, now_s: float) -> Answer | None: ...
    def put(self, key: bytes, accept: bytes, accept_class: int, answer: Answer, epoch: int) -> bool: ...
    def forget(self, key: bytes) -> int: ...
    def clear(self) -> None: ...
    def close(self) -> None: ...
    def counters(self) -> dict[str, int]: ...
