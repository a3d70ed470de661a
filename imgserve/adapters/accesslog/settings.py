"""Settings of the access log."""

from dataclasses import dataclass
from pathlib import Path

from imgserve.core.errors import Misconfigured


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How long rows live, and where the day keys lie: never inside the data folder."""

    data_dir: Path
    keys_dir: Path
    retention_days: int = 30
    flush_interval_s: float = 1.0
    ring_max: int = 100_000

    def __post_init__(self) -> None:
        if not 1 <= self.retention_days <= 3650:
            raise Misconfigured("privacy.retention_days", self.retention_days, "use 1 to 3650 days")
        if not 0 < self.flush_interval_s <= 60:
            raise Misconfigured("privacy.flush_interval_s", self.flush_interval_s, "use up to 60 seconds")
        if self.keys_dir.resolve().is_relative_to(self.data_dir.resolve()):
            raise Misconfigured(
                "privacy.keys_dir", str(self.keys_dir), "move it out of server.data_dir: the two want different backups"
            )
