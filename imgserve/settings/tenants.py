"""The rules of tenants: names, hosts, origins, aliases, keys, signing; from the file's tables to core's records."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote_to_bytes

from imgserve.core import allowlist, grammar
from imgserve.core.errors import Denied, Misconfigured
from imgserve.core.tenants import Key, Scope, Signing, Tenant, Tenants, canonical_host, is_name
from imgserve.settings import values
from imgserve.settings.records import Server
from imgserve.settings.schema import KeyTable, SigningTable, TenantTable

_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_DIGEST: Final = re.compile(r"sha256:([0-9a-fA-F]{64})", re.ASCII)
_CREDENTIALS: Final = re.compile(r"//[^/?#]*@")
_SIGNATURE_LENGTH_MIN: Final = 6
_SIGNATURE_LENGTH_SAFE: Final = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the rules need to know besides the tenants. Warnings are added to ``warnings``."""

    server: Server
    folder: Path
    environ: Mapping[str, str]
    warnings: list[str] = field(default_factory=list)


def compose(tables: tuple[TenantTable, ...], around: Surroundings) -> Tenants:
    """The snapshot of all tenants. Raises Misconfigured."""
    for number, table in enumerate(tables):
        if not is_name(table.name):
            raise Misconfigured(f"tenants[{number}].name", table.name, "use 1 to 63 of a-z, 0-9 and -, no - in front")
    _refuse_twice("tenants.name", (table.name for table in tables), "give each tenant its own name")
    if len(tables) > 1 and (default := next((table for table in tables if table.default), None)):
        fix = "there are several tenants: remove it, so that an unknown host is refused"
        raise Misconfigured(f"tenants.{default.name}.default", True, fix)
    if not tables:
        around.warnings.append("tenants: there is none, so every request will be refused; add a [[tenants]] table")
    tenants = tuple(_tenant(table, around) for table in tables)
    hosts = (host for tenant in tenants for host in tenant.hosts)
    _refuse_twice("tenants.hosts", hosts, "a host belongs to one tenant")
    digests = [(key.digest, f"tenants.{tenant.name}.keys.{key.name}") for tenant in tenants for key in tenant.keys]
    for number, (digest, name) in enumerate(digests):
        if digest in [other for other, _ in digests[:number]]:
            raise Misconfigured(name, "the same key again", "give each key of all tenants its own text")
    return Tenants(tenants)


def _refuse_twice(key: str, texts: Iterator[str], fix: str) -> None:
    seen = set()
    for text in texts:
        if text in seen:
            raise Misconfigured(key, text, f"is there twice; {fix}")
        seen.add(text)


def _tenant(table: TenantTable, around: Surroundings) -> Tenant:
    at = f"tenants.{table.name}"
    hosts = tuple(_host(f"{at}.hosts", text) for text in table.hosts)
    if not hosts and not table.default:
        around.warnings.append(f"{at}.hosts: is empty and the tenant is not the default, so no image of it is served")
    tenant = Tenant(
        name=table.name,
        hosts=hosts,
        is_default=table.default,
        allowed_origins=tuple(_allowed_origin(f"{at}.allowed_origins", text) for text in table.allowed_origins),
        open_proxy=table.open_proxy,
        origin_prefix=_origin_prefix(f"{at}.origin_prefix", table),
        origin_scheme=table.origin_scheme,
        regions=frozenset(_region(f"{at}.regions", text) for text in table.regions),
        signing=_signing(f"{at}.signing", table.signing, around),
        aliases=MappingProxyType({name: _alias(at, name, target) for name, target in table.aliases.items()}),
        presets=MappingProxyType(dict(table.presets)),
        keys=_keys(at, table.keys, around),
    )
    grammar.check(tenant)
    _check_proxy(at, tenant, around)
    if not tenant.may_be_served_in(around.server.region):
        around.warnings.append(
            f"{at}.regions: {', '.join(sorted(tenant.regions))} without this node's region "
            f"{around.server.region}, so its requests are answered with 421 here"
        )
    return tenant


# ---- hosts and origins ---------------------------------------------------------------------------


def _is_host(text: str) -> bool:
    """A DNS name or an IPv4 address in lower case, or an IPv6 address in brackets."""
    if text.startswith("[") and text.endswith("]"):
        try:
            return ip_address(text[1:-1]).version == 6
        except ValueError:
            return False
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))


def _host(key: str, text: str) -> str:
    host = canonical_host(text)
    if "*" in text:
        raise Misconfigured(key, text, "name each host; a pattern is not understood here")
    if not text.isascii():
        raise Misconfigured(key, text, "write the host in its xn-- form")
    if not _is_host(host) or host != text.strip().lower().removesuffix("."):
        raise Misconfigured(key, text, "write the host alone, without scheme, port or path")
    return host


def _allowed_origin(key: str, text: str) -> str:
    if text.startswith("*."):
        raise Misconfigured(key, text, f"write {text[2:]}: a host allows its subdomains")
    try:
        allowlist.parse_entry(text)
    except ValueError as error:
        raise Misconfigured(key, text, str(error)) from None
    return text


def _check_proxy(at: str, tenant: Tenant, around: Surroundings) -> None:
    """An unsigned "*" makes an open proxy: refused, or at least said aloud."""
    if "*" not in tenant.allowed_origins or tenant.signing.mode != "off":
        return
    if not tenant.open_proxy:
        fix = "anyone could fetch anything through this server: list hosts, or sign the URLs, or set open_proxy = true"
        raise Misconfigured(f"{at}.allowed_origins", "*", fix)
    around.warnings.append(f"{at}.open_proxy: anyone can fetch any public image through this server")


def _region(key: str, text: str) -> str:
    if not is_name(text):  # regions are named alike
        raise Misconfigured(key, text, "use 1 to 63 of a-z, 0-9 and -, no - in front")
    return text


def _origin_prefix(key: str, table: TenantTable) -> str:
    text = table.origin_prefix
    if text:
        _check_web_prefix(key, text, text if "://" in text else f"{table.origin_scheme}://{text}")
    return text


def _check_web_prefix(key: str, text: str, url: str) -> None:
    """A URL that originals lie under, as strictly read as every URL that is fetched."""
    shown = _CREDENTIALS.sub("//…@", url)
    if shown != url:
        raise Misconfigured(key, shown, "take the user name and password out of the URL")
    try:
        allowlist.parse(url)
    except Denied as error:
        raise Misconfigured(key, text, f"write https://host/path, percent-encoded: {error}") from None
    if "#" in text:
        raise Misconfigured(key, text, "take out # and what follows it")


# ---- aliases ---------------------------------------------------------------------------------------


def _alias(at: str, name: str, target: str) -> str:
    key = f"{at}.aliases.{name}"
    if target.startswith(("http://", "https://")):
        _check_web_prefix(key, target, target)
    elif target.startswith("file://"):
        alias_root(key, target)
    elif target.startswith("s3://"):
        raise Misconfigured(key, target, "buckets are not read by this version; use file:///… or https://…")
    else:
        raise Misconfigured(key, target, "write file:///folder, https://host/path or http://host/path")
    return target


def alias_root(key: str, target: str) -> Path:
    """The folder of a ``file:///`` alias, which must be there. Raises Misconfigured."""
    path = target.removeprefix("file://")
    if not path.startswith("/"):
        raise Misconfigured(key, target, "write three slashes and the whole path: file:///srv/photos")
    if "?" in path or "#" in path:
        raise Misconfigured(key, target, "write ? as %3F and # as %23")
    decoded = unquote_to_bytes(path)
    if b"\0" in decoded:
        raise Misconfigured(key, target, "take the %00 out")
    root = Path(decoded.decode("utf-8", "surrogateescape"))
    if not root.is_dir():
        raise Misconfigured(key, target, f"create the folder {root}, or correct the path")
    return root


# ---- keys and signing ----------------------------------------------------------------------------


def _keys(at: str, tables: tuple[KeyTable, ...], around: Surroundings) -> tuple[Key, ...]:
    for number, table in enumerate(tables):
        if not table.name:
            raise Misconfigured(f"{at}.keys[{number}].name", "", "give the key a name")
        values.name(f"{at}.keys[{number}].name", table.name)
    _refuse_twice(f"{at}.keys.name", (table.name for table in tables), "give each key its own name")
    return tuple(_key(f"{at}.keys.{table.name}", table, around) for table in tables)


def _key(at: str, table: KeyTable, around: Surroundings) -> Key:
    if (table.key is None) == (not table.hash):
        raise Misconfigured(at, "key" if table.hash else "", "give either key or hash")
    if table.key is None:
        match = _DIGEST.fullmatch(table.hash)
        if match is None:
            raise Misconfigured(f"{at}.hash", table.hash, 'write "sha256:" and the 64 hex digits of the key\'s SHA-256')
        digest = bytes.fromhex(match[1])
    else:
        text = values.reveal(f"{at}.key", table.key, around.folder, around.environ)
        digest = sha256(text.encode()).digest()
        if values.is_in_clear(table.key) and not around.server.is_loopback_only:
            fix = (
                "server.listen is not loopback only; write the hash that this prints instead: imgserve config hash-key"
            )
            raise Misconfigured(f"{at}.key", "(in clear)", fix)
    return Key(name=table.name, digest=digest, scopes=frozenset(_scope(f"{at}.scopes", text) for text in table.scopes))


def _scope(key: str, text: str) -> Scope:
    try:
        return Scope(text)
    except ValueError:
        near = get_close_matches(text, list(Scope), 1)
        fix = f"did you mean {near[0]}?" if near else f"use some of {', '.join(Scope)}"
        raise Misconfigured(key, text, fix) from None


def _signing(at: str, table: SigningTable, around: Surroundings) -> Signing:
    salts = tuple(values.reveal(f"{at}.salts", salt, around.folder, around.environ) for salt in table.salts)
    if table.mode != "off" and not salts:
        raise Misconfigured(f"{at}.salts", [], f"signing.mode is {table.mode}: give at least one salt")
    if table.min_length < _SIGNATURE_LENGTH_MIN:
        raise Misconfigured(f"{at}.min_length", table.min_length, f"use {_SIGNATURE_LENGTH_SAFE} or more")
    if table.mode != "off" and table.min_length < _SIGNATURE_LENGTH_SAFE:
        around.warnings.append(
            f"{at}.min_length: {table.min_length} characters can be guessed; use {_SIGNATURE_LENGTH_SAFE} or more"
        )
    return Signing(mode=table.mode, salts=salts, min_length=table.min_length)
