"""The composed configuration, as the processes hold it: frozen, checked, without secrets in its repr."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Literal

from imgserve.adapters.accesslog.settings import Settings as AccessLogSettings
from imgserve.adapters.cache.settings import Settings as CacheSettings
from imgserve.adapters.origins.settings import Settings as OriginsSettings
from imgserve.adapters.render.settings import Settings as RenderSettings
from imgserve.core.tenants import Tenants
from imgserve.settings.cores import usable_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """A listener: ``host`` and ``port`` for AF_INET and AF_INET6, ``path`` for AF_UNIX."""

    family: socket.AddressFamily
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        match self.family:
            case socket.AF_UNIX:
                return f"unix:{self.path}"
            case socket.AF_INET6:
                return f"[{self.host}]:{self.port}"
            case _:
                return f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it; a unix socket counts as such."""
        return self.family == socket.AF_UNIX or ip_address(self.host).is_loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where the node listens, what it is called, and where its data lies."""

    listen: tuple[Listen, ...]
    admin_listen: Listen
    processes: int
    data_dir: Path
    node: str
    region: str
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    forwarded_header: Literal["x-forwarded-for", "forwarded", "cf-connecting-ip", "none"]
    drain_delay_s: float

    @property
    def is_loopback_only(self) -> bool:
        """Whether images are delivered to this machine only."""
        return all(listener.is_loopback for listener in self.listen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """What the privacy page and the analytics need; retention lies with the access log."""

    country_db: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Who runs the server."""

    name: str
    contact: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubProcessor:
    """Someone who processes data for the operator."""

    name: str
    purpose: str
    location: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Everything that was configured. ``effective`` holds the plain keys as written, for comparing two of them."""

    path: Path
    server: Server
    cache: CacheSettings
    render: RenderSettings
    origins: OriginsSettings
    accesslog: AccessLogSettings
    privacy: Privacy
    operator: Operator
    sub_processors: tuple[SubProcessor, ...]
    tenants: Tenants = field(repr=False)
    effective: Mapping[str, object] = field(repr=False)

    @property
    def hash_key(self) -> Path:
        """The file with the key of all cache names; it is there after the first start."""
        return self.accesslog.keys_dir / "hash.key"

    @property
    def front_count(self) -> int:
        """Fronts to start; counts the usable cores now when the file leaves it to us."""
        return self.server.processes or usable_cores()

    @property
    def worker_count(self) -> int:
        """Workers to start; counts the usable cores now when the file leaves it to us."""
        return self.render.workers or usable_cores()


def changed_outside_tenants(old: Configuration, new: Configuration) -> tuple[str, ...]:
    """Keys that differ and that a reload does not take up: the node must be restarted for them."""
    changed = [key for key in new.effective if old.effective.get(key) != new.effective[key]]
    if old.sub_processors != new.sub_processors:
        changed.append("sub_processors")
    return tuple(changed)
