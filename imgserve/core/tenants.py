"""Tenants: who is served, from where, and what their keys may do."""

import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import Final, Literal

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)


class Scope(StrEnum):
    """What a key may do."""

    INVALIDATE = "invalidate"
    INVALIDATE_ALL = "invalidate:all"
    ANALYTICS = "analytics"
    LOGS = "logs"
    SUBJECTS = "subjects"
    EXPORT = "export"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An API key, held only as the SHA-256 of its text."""

    name: str
    digest: bytes = field(repr=False)
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """How a tenant's URLs must be signed."""

    mode: Literal["off", "sign", "seal"] = "off"
    salts: tuple[str, ...] = field(default=(), repr=False)
    min_length: int = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A customer of the node. An immutable part of one snapshot of the configuration."""

    name: str
    hosts: tuple[str, ...] = ()
    is_default: bool = False
    allowed_origins: tuple[str, ...] = ()
    open_proxy: bool = False
    origin_prefix: str = ""
    origin_scheme: Literal["http", "https"] = "https"
    regions: frozenset[str] = frozenset()
    signing: Signing = Signing()
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    presets: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    keys: tuple[Key, ...] = ()

    def may_be_served_in(self, region: str) -> bool:
        """Whether this region is one the tenant chose; no choice means the node's own only."""
        return not self.regions or region in self.regions


def is_name(text: str) -> bool:
    """Whether a tenant may be called so. The name is a folder's too: no separator, no dot, no - in front."""
    return _NAME.fullmatch(text) is not None


def canonical_host(header: str) -> str:
    """A Host header without case, port and final dot, as RFC 9110 section 4.2.3 compares hosts."""
    host = header.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].removesuffix(".")


class Tenants:
    """One immutable snapshot of all tenants; a reload makes a new one."""

    def __init__(self, tenants: tuple[Tenant, ...]) -> None:
        self._all = tenants
        self._by_name = {tenant.name: tenant for tenant in tenants}
        self._by_host = {canonical_host(host): tenant for tenant in tenants for host in tenant.hosts}
        self._default = next((tenant for tenant in tenants if tenant.is_default), None)
        self._keys = tuple((key, tenant) for tenant in tenants for key in tenant.keys)

    def __iter__(self) -> Iterator[Tenant]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def named(self, name: str) -> Tenant | None:
        """The tenant of that name."""
        return self._by_name.get(name)

    def for_host(self, header: str) -> Tenant | None:
        """The tenant that the Host header names, else the default one, else none."""
        return self._by_host.get(canonical_host(header), self._default)

    def for_key(self, text: str) -> tuple[Tenant, Key] | None:
        """Owner of an API key. Looks at every key, so that the time tells nothing."""
        digest = sha256(text.encode("utf-8", "surrogateescape")).digest()  # a header may hold any bytes
        found = None
        for key, tenant in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = (tenant, key)
        return found
