"""Where an original lies: from the path of a URL to one canonical, absolute location.

Canonical (RFC 3986 section 6.2): scheme and host in lower case, the host in ASCII (IDNA, UTS 46), no default port,
no final dot, no user information, no fragment; percent-encoding only where needed, in upper case; an empty path
is ``/``. What is ambiguous between servers is refused rather than repaired: dot segments, backslashes and control
bytes, however often they are encoded.
"""

import re
from contextlib import suppress
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

import idna

from imgserve.core.errors import BadRequest, ImgserveError, Misconfigured
from imgserve.core.originals import Original
from imgserve.core.tenants import Tenant

_SCHEME: Final = re.compile(r"(https?):/{1,2}", re.ASCII | re.IGNORECASE)
_PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/-]*", re.ASCII)
_ODD: Final = re.compile(r"%(?:[0-9A-Fa-f]{2})?|[^A-Za-z0-9._~!$&'()*+,;=:@/?-]", re.ASCII)
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})", re.ASCII)
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})", re.ASCII)
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f\\]")
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PORT_MAX: Final = 65_535
_DECODINGS_MAX: Final = 4
_ASCII: Final = "".join(map(chr, range(0x20, 0x7F)))
_ALIAS: Final = re.compile(r"_[A-Za-z0-9._~-]+_", re.ASCII)


def resolve(path: str, tenant: Tenant, *, is_encoded: bool = False) -> Original:
    """The original that a raw path names (no query; ``/v7/`` and the leading slash taken off).

    ``is_encoded``: the whole was percent-encoded once more, and may hold the original's own query.
    Raises BadRequest, and Misconfigured if the tenant's alias or prefix cannot be used.
    """
    rest, query = path, ""
    if is_encoded:
        rest, _, query = _decode_once(path).partition("?")
    rest = decode_unreserved(rest)
    if not rest:
        raise BadRequest("The URL names no original: put its address or an alias after the host.")
    suffix = "?" + normalise(query) if query else ""
    if _SCHEME.match(rest):
        return Original(location=canonical_url(rest) + suffix)
    first, _, tail = rest.partition("/")
    if first in tenant.aliases:
        return _beneath(_alias_root(tenant, first), tail, suffix)
    if tenant.origin_prefix:
        return _beneath(prefix_root(tenant), rest, suffix)
    if "." not in first:
        raise BadRequest(
            "The URL's first part is neither a host with a dot nor an alias of this tenant: "
            "write /host.example/path, /https://host.example/path or /_alias_/path."
        )
    return Original(location=canonical_url(f"{tenant.origin_scheme}://{rest}") + suffix)


def canonical_url(url: str) -> str:
    """An absolute http or https URL in its one spelling; a query is kept, if there is one.

    Takes a merged slash (``https:/host``) too; a fragment is dropped. Raises BadRequest.
    """
    url = url.partition("#")[0]
    match = _SCHEME.match(url)
    if match is None:
        raise BadRequest("The original's address must begin with http:// or https://.")
    scheme = match[1].lower()
    hierarchy, _, query = url[match.end() :].partition("?")
    authority, _, path = hierarchy.partition("/")
    path = normalise("/" + path)
    _refuse_traversal(path)
    suffix = "?" + normalise(query) if query else ""
    return f"{scheme}://{_canonical_authority(authority, scheme)}{path}{suffix}"


@lru_cache(maxsize=4096)
def root_of(target: str, scheme: str = "https") -> str:
    """The canonical prefix of all originals under an alias' or prefix' target; ends in ``/``.

    ``scheme`` is for a target without one. Raises BadRequest if it is no folder, host or host with a path.
    """
    if target.startswith("file:"):
        match = re.fullmatch(r"file://(?:localhost)?(/.*)", target)
        if match is None:
            raise BadRequest("A folder is written file:///path.")
        path = normalise(match[1]).replace("?", "%3F")
        _refuse_traversal(path)
        return "file://" + re.sub("/+", "/", path + "/")
    if "://" in target and not _SCHEME.match(target):
        raise BadRequest("Only file://, http:// and https:// can be used.")
    if "?" in target or "#" in target:
        raise BadRequest("It can't have a query or a fragment.")
    root = canonical_url(target if "://" in target else f"{scheme}://{target}")
    return root if root.endswith("/") else root + "/"


def prefix_root(tenant: Tenant) -> str:
    """The root of originals under the tenant's origin prefix. Raises Misconfigured."""
    return _configured_root(f"tenants.{tenant.name}.origin_prefix", tenant.origin_prefix, tenant.origin_scheme)


def spelling(original: Original, tenant: Tenant) -> str:
    """The shortest path, without leading slash, that ``resolve`` reads as this original; a query is left in it.

    Raises ValueError if the original was under an alias or prefix that the tenant has no longer.
    """
    if not original.by_alias:
        return original.location
    rest = original.location[len(original.root) :]
    for alias in sorted(tenant.aliases):
        with suppress(Misconfigured):  # another alias than the one that was used may be broken
            if _alias_root(tenant, alias) == original.root:
                return f"{alias}/{rest}"
    if tenant.origin_prefix and prefix_root(tenant) == original.root:
        return rest
    raise ValueError("no alias of the tenant leads to this original")


def check(tenant: Tenant) -> None:
    """Raise Misconfigured unless every alias and the prefix of the tenant can be used."""
    for name in tenant.aliases:
        key = f"tenants.{tenant.name}.aliases.{name}"
        if not _ALIAS.fullmatch(name):
            fix = "name the alias with letters, digits, '-', '.', '_' and '~', an underscore at both ends"
            raise Misconfigured(key, tenant.aliases[name], fix)
        _alias_root(tenant, name)
    if tenant.origin_prefix:
        prefix_root(tenant)


def normalise(text: str) -> str:
    """A path or query with its percent-encoding in normal form. Raises BadRequest for what may not be in one."""
    return text if _PLAIN_PATH.fullmatch(text) else _ODD.sub(_normal_character, text)


def escape(raw: bytes) -> str:
    """Bytes as ASCII text; those that are not printable ASCII are percent-encoded."""
    return quote(raw, safe=_ASCII)


def decode_unreserved(text: str) -> str:
    """Text with the escapes of letters, digits and ``-._~`` undone: they never mean anything else."""
    return _ESCAPE.sub(_unreserved_character, text) if "%" in text else text


def _beneath(root: str, rest: str, suffix: str) -> Original:
    path = normalise(rest)
    _refuse_traversal(path)
    if root.startswith("file:"):
        path = re.sub("/+", "/", path).removeprefix("/")
        if suffix or "%2F" in path or not path or path.endswith("/"):
            raise BadRequest("The URL must name one file under this alias, without a query of its own.")
    return Original(location=root + path + suffix, root=root, by_alias=True)


def _alias_root(tenant: Tenant, name: str) -> str:
    return _configured_root(f"tenants.{tenant.name}.aliases.{name}", tenant.aliases[name], "https")


def _configured_root(key: str, target: str, scheme: str) -> str:
    try:
        return root_of(target, scheme)
    except ImgserveError as error:
        raise Misconfigured(key, target, f"{error} Use file:///folder or https://host/path.") from error


def _canonical_authority(authority: str, scheme: str) -> str:
    if "@" in authority:
        raise BadRequest("The original's address may not hold a user name or password.")
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::([0-9]{0,5}))?", authority, re.ASCII)
    if match is None:
        raise BadRequest("The original's host or port is malformed.")
    port = int(match[2] or _DEFAULT_PORTS[scheme])
    if not 1 <= port <= _PORT_MAX:
        raise BadRequest("The original's port must be 1 to 65535.")
    host = _canonical_host(match[1])
    return host if port == _DEFAULT_PORTS[scheme] else f"{host}:{port}"


@lru_cache(maxsize=4096)
def _canonical_host(text: str) -> str:
    if text.startswith("["):
        return _canonical_ipv6(text)
    try:
        host = unquote(text, errors="strict")
        if not host.isascii() or "xn--" in host.lower():
            host = idna.encode(host, uts46=True).decode("ascii")
    except (UnicodeError, idna.IDNAError):
        return _bad_host()
    host = host.lower().removesuffix(".")
    if not _HOST.fullmatch(host):
        return _bad_host()
    if _NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
        # Browsers and C libraries read 127.1, 0x7f.1 and 2130706433 as addresses; only one spelling is let through.
        try:
            return str(IPv4Address(host))
        except AddressValueError:
            return _bad_host()
    return host


def _canonical_ipv6(text: str) -> str:
    if "%" in text:
        return _bad_host()  # a zone means something only on the machine that wrote it
    try:
        return f"[{IPv6Address(text[1:-1]).compressed}]"
    except AddressValueError:
        return _bad_host()


def _bad_host() -> str:
    raise BadRequest(
        "The original's host is not a valid name or address; an original that is percent-encoded as a whole "
        "needs ci_url_encoded=1."
    )


def _decode_once(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise BadRequest("The URL holds an invalid percent escape.")
    decoded = escape(unquote_to_bytes(text))
    if "#" in decoded:
        raise BadRequest("The encoded original may not hold a fragment: write # as %23 before encoding it.")
    return decoded


def _normal_character(match: re.Match[str]) -> str:
    text = match[0]
    if text == "%":
        raise BadRequest("The URL holds an invalid percent escape.")
    if text.startswith("%"):
        char = chr(int(text[1:], 16))
        encoded = char if char in _UNRESERVED else text.upper()
    else:
        char, encoded = text, quote(text, safe="")
    if _FORBIDDEN.match(char):
        raise BadRequest("The URL may not hold control characters or backslashes.")
    return encoded


def _unreserved_character(match: re.Match[str]) -> str:
    char = chr(int(match[1], 16))
    return char if char in _UNRESERVED else match[0]


def _refuse_traversal(path: str) -> None:
    # Decoded again and again: an origin, or a layer in front of it, may decode once more than it should.
    refusal = "The original's path may not hold '.' or '..' segments, control characters or backslashes."
    text = path
    for _ in range(_DECODINGS_MAX):
        if _FORBIDDEN.search(text) or any(segment in (".", "..") for segment in text.split("/")):
            raise BadRequest(refusal)
        if "%" not in text:
            return
        decoded = unquote(text, errors="replace")
        if decoded == text:
            return
        text = decoded
    raise BadRequest("The original's path is percent-encoded too often.")
