from typing import Final, TypeAlias, final

HitEvent: TypeAlias = tuple[int, object, object, bytes | None, int, int, int]

@final
class EventRing:
    capacity: Final[int]
    dropped: Final[int]
    def __init__(self, capacity: int) -> None: ...
    def __len__(self) -> int: ...
    def push(
        self,
        time_s: int,
        template: object,
        peer: object,
        forwarded: bytes | None,
        duration_us: int,
        status: int,
        sent_bytes: int,
    ) -> None: ...
    def drain(self, max_events: int) -> list[HitEvent]: ...
