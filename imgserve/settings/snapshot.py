"""The tenants' snapshot as bytes, for the running fronts. Secrets are in it: it goes through a private socket only."""

from dataclasses import replace
from types import MappingProxyType

import msgspec

from imgserve.core.tenants import Tenant, Tenants


def _as_plain(value: object) -> object:
    if isinstance(value, MappingProxyType):
        return dict(value)
    raise NotImplementedError(f"no message holds a {type(value).__name__}")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_as_plain)
_DECODER = msgspec.msgpack.Decoder(tuple[Tenant, ...])


def encode_tenants(tenants: Tenants) -> bytes:
    """The whole snapshot, salts and key digests included."""
    return _ENCODER.encode(tuple(tenants))


def decode_tenants(payload: bytes) -> Tenants:
    """The snapshot again, frozen as it was. Raises msgspec.DecodeError for other bytes."""
    return Tenants(tuple(_frozen(tenant) for tenant in _DECODER.decode(payload)))


def _frozen(tenant: Tenant) -> Tenant:
    aliases, presets = MappingProxyType(dict(tenant.aliases)), MappingProxyType(dict(tenant.presets))
    return replace(tenant, aliases=aliases, presets=presets)
