"""Settings of origins."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from imgserve.core.errors import Misconfigured


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Limits of fetching. ``allow_private`` lists networks that are reached although not public."""

    allow_private: tuple[IPv4Network | IPv6Network, ...] = ()
    connect_timeout_s: float = 3.0
    fetch_timeout_s: float = 8.0
    redirects_max: int = 3
    max_original_bytes: int = 30_000_000
    concurrent_max: int = 64
    concurrent_per_host_max: int = 16
    queue_max: int = 256

    def __post_init__(self) -> None:
        if self.connect_timeout_s <= 0 or self.fetch_timeout_s <= 0:
            raise Misconfigured("origins.fetch_timeout_s", self.fetch_timeout_s, "use more than 0 seconds")
