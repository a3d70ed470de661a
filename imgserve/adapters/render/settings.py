"""Settings of rendering."""

from dataclasses import dataclass

from imgserve.core.errors import Misconfigured


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Limits of the workers. ``workers`` 0 means one per usable core."""

    workers: int = 0
    timeout_s: float = 10.0
    memory_bytes: int = 2_000_000_000
    max_original_bytes: int = 30_000_000
    max_original_pixels: int = 50_000_000
    max_side_px: int = 16_384

    def __post_init__(self) -> None:
        if not 0 <= self.workers <= 256:
            raise Misconfigured("render.workers", self.workers, "use 0 (one per core) to 256")
        if not 0.1 <= self.timeout_s <= 120:
            raise Misconfigured("render.timeout_s", self.timeout_s, "use 0.1 to 120 seconds")
        if self.memory_bytes < 256_000_000:
            raise Misconfigured("render.memory", self.memory_bytes, "give each worker at least 256MB")
        if self.max_original_bytes < 1_000:
            raise Misconfigured("render.max_original_bytes", self.max_original_bytes, "use at least 1KB")
        if self.max_original_pixels < 1_000:
            raise Misconfigured("render.max_original_pixels", self.max_original_pixels, "use at least 1000")
        if not 16 <= self.max_side_px <= 65_500:
            raise Misconfigured("render.max_side_px", self.max_side_px, "use 16 to 65500 pixels")
