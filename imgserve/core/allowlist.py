"""Which places a tenant may fetch from: URLs of origins taken apart strictly, and the allow-list's rule.

Parsers that disagree about a URL are how guards are passed, so this one knows a single spelling of each host
and refuses the rest; what is sent to the origin is put together again from the parts that were checked.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final, Literal
from urllib.parse import quote, unquote, urljoin

from imgserve.core.addresses import Address, unwrapped
from imgserve.core.errors import Denied, OriginFailed
from imgserve.core.tenants import Tenant

location_chars_max: Final = 8192

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_WEB_PORTS: Final = frozenset(_DEFAULT_PORTS.values())
_LOCATION: Final = re.compile(r"(?i:(https?))://([^/?#]*)([^#]*)(?:#.*)?")
_AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([1-9][0-9]{0,4})?)?")
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))


class Permission(Enum):
    """How far a tenant's word reaches for a place."""

    REFUSED = auto()
    PUBLIC = auto()  # only at public addresses
    NAMED = auto()  # the tenant named this very host: also at the private addresses that the node allows


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An HTTP URL in its parts. ``host`` is lower-case without final dot, an IPv6 address without brackets;
    ``address`` is set where the host is an address; ``target`` is path and query exactly as given."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    target: str
    address: Address | None = None

    @property
    def location(self) -> str:
        """The URL again, with the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of ``allowed_origins``. ``host`` "*" is any host; ``ports`` None is any port."""

    host: str
    ports: frozenset[int] | None = _WEB_PORTS

    def matches_port(self, port: int) -> bool:
        """Whether this entry opens the port."""
        return self.ports is None or port in self.ports


def parse(location: str) -> Place:
    """Take an absolute http or https URL apart.

    Raises Denied for another scheme, credentials, a host that is no plain ASCII name or address, an IPv4
    address in any form but four decimal numbers, a zone, port 0, and characters that parsers disagree on.
    """
    if len(location) > location_chars_max:
        raise Denied("location is too long", public="The address of the original is too long.")
    match = _LOCATION.fullmatch(location)
    if match is None or "\\" in location or any(not "!" <= letter <= "~" for letter in location):
        raise Denied("location is no plain http or https URL", public="Only plain http and https URLs are fetched.")
    scheme: Literal["http", "https"] = "https" if match[1].lower() == "https" else "http"
    authority = _AUTHORITY.fullmatch(match[2])
    if authority is None:
        raise Denied("location has credentials or a malformed host", public="The host of the original is malformed.")
    host, address = _host(authority[2]) if authority[1] is None else _bracketed(authority[1])
    port = int(authority[3] or _DEFAULT_PORTS[scheme])
    if port > 65_535:
        raise Denied("location has an impossible port", public="The port of the original is impossible.")
    target = match[3] if match[3].startswith("/") else "/" + match[3]
    return Place(scheme=scheme, host=host, port=port, target=target, address=address)


def parse_entry(text: str) -> Entry:
    """Read one line of ``allowed_origins``: ``host``, ``host:port``, ``host:*`` or ``*``; IPv6 in brackets when
    a port follows. Raises ValueError with what to write instead."""
    if text == "*":
        return Entry(host="*")
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    has_any_port = text.endswith(":*")
    match = _AUTHORITY.fullmatch(text.removesuffix(":*"))
    if match is None or text.endswith(":"):
        raise ValueError("write a host without scheme, path or wildcard, then perhaps :port or :*")
    try:
        host, _ = _host(match[2]) if match[1] is None else _bracketed(match[1])
    except Denied as error:
        raise ValueError("write a host name in ASCII, or an address in its usual form") from error
    if has_any_port and match[3] is None:
        return Entry(host=host, ports=None)
    if has_any_port or int(match[3] or 1) > 65_535:
        raise ValueError("write a port from 1 to 65535")
    return Entry(host=host, ports=frozenset({int(match[3])}) if match[3] else _WEB_PORTS)


def permission(place: Place, tenant: Tenant, root: Place | None = None) -> Permission:
    """What the tenant's configuration says about this place; ``root`` is the alias that led here.

    Only an entry that names this very host (not its parent, not ``*``) or an alias to it makes it NAMED.
    """
    if root is not None and _is_same_site(place, root):
        return Permission.NAMED
    entries = [entry for entry in _entries(tenant.allowed_origins) if entry.matches_port(place.port)]
    if any(entry.host == place.host for entry in entries):
        return Permission.NAMED
    if any(entry.host == "*" or _is_subdomain(place, entry.host) for entry in entries):
        return Permission.PUBLIC
    return Permission.REFUSED


def is_allowed(place: Place, tenant: Tenant) -> bool:
    """Whether the tenant's allow-list opens this place at all."""
    return permission(place, tenant) is not Permission.REFUSED


def is_beneath(place: Place, root: Place) -> bool:
    """Whether a place lies under an alias's root, also for origins that decode or normalise paths themselves."""
    if (place.scheme, place.host, place.port) != (root.scheme, root.host, root.port):
        return False
    folder = root.path.rstrip("/") + "/"
    return place.path.startswith(folder) and not _has_dot_segments(place.path.removeprefix(folder))


def follow(place: Place, header: str) -> Place:
    """Where a redirect from this place leads (RFC 9110, section 10.2.2).

    Bytes outside ASCII and spaces are percent-encoded. Raises OriginFailed for a malformed Location, and
    Denied for a place that ``parse`` refuses or a step from https down to http: whoever listens on that
    hop could put any picture under the name of a secure origin, for as long as it stays in the cache.
    """
    if any(letter < " " or letter == "\x7f" for letter in header):
        raise OriginFailed("redirect with control characters")
    text = quote(header.strip(" ").encode("utf-8", "surrogateescape"), safe=_PRINTABLE)
    try:
        joined = urljoin(place.location, text)
    except ValueError as error:
        raise OriginFailed("redirect to a malformed location") from error
    target = parse(joined)
    if (place.scheme, target.scheme) == ("https", "http"):
        raise Denied("redirect from https down to http", public="The origin redirects to an unencrypted address.")
    return target


@lru_cache(maxsize=1024)
def _entries(texts: tuple[str, ...]) -> tuple[Entry, ...]:
    # The configuration was validated with parse_entry; one that was not opens nothing.
    entries = []
    for text in texts:
        try:
            entries.append(parse_entry(text))
        except ValueError:
            continue
    return tuple(entries)


def _host(text: str) -> tuple[str, Address | None]:
    """A host name or IPv4 address. A name whose last label is a number would be read as an address by some
    resolvers (WHATWG URL, "ends in a number"), so it has to be one in its usual form."""
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(0 < len(label) <= 63 for label in labels):
        raise Denied("host is malformed", public="The host of the original is malformed.")
    if not _NUMERIC_LABEL.fullmatch(labels[-1]):
        return host, None
    try:
        return host, ip_address(host)
    except ValueError as error:
        raise Denied(
            "host is an odd spelling of an address", public="The host of the original is malformed."
        ) from error


def _bracketed(text: str) -> tuple[str, Address | None]:
    try:
        address = unwrapped(IPv6Address(text))
    except ValueError as error:
        raise Denied("host is a malformed address", public="The host of the original is malformed.") from error
    return str(address), address


def _is_subdomain(place: Place, host: str) -> bool:
    return place.address is None and place.host.endswith("." + host)


def _is_same_site(place: Place, root: Place) -> bool:
    """Same host and port; a step up from http to https on the usual ports stays on the site."""
    if place.host != root.host:
        return False
    is_upgrade = root.port == _DEFAULT_PORTS["http"] and place.port == _DEFAULT_PORTS["https"]
    return place.port == root.port or is_upgrade


def _has_dot_segments(path: str) -> bool:
    for _ in range(3):
        if any(segment in {".", ".."} for segment in re.split(r"[/\\]", path)):
            return True
        path = unquote(path, errors="replace")
    return False
