"""Settings of the cache."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from imgserve.core.errors import Misconfigured

_SIZE_MIN_BYTES: Final = 10_000_000
_AGE_MAX_DAYS: Final = 3650


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where cached files lie, how much room they get, and how old they may be."""

    data_dir: Path
    size_bytes: int = 10_000_000_000
    memory_bytes: int = 256_000_000
    max_age_days: int = 30

    def __post_init__(self) -> None:
        if self.size_bytes < _SIZE_MIN_BYTES:
            raise Misconfigured("cache.size", self.size_bytes, "give the cache at least 10MB")
        if self.memory_bytes < 0:
            raise Misconfigured("cache.memory", self.memory_bytes, "use 0 to switch it off")
        if not 1 <= self.max_age_days <= _AGE_MAX_DAYS:
            raise Misconfigured("cache.max_age_days", self.max_age_days, "use 1 to 3650 days")
