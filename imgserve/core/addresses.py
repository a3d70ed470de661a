"""Internet addresses: which are public, how they are written down, and which one is the visitor's."""

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
HeaderKind = Literal["x-forwarded-for", "forwarded", "cf-connecting-ip", "none"]

UNKNOWN: Final = IPv6Address("::")
"""Stands for a visitor that nothing names: a peer on a unix socket that sent no usable header."""

hops_max: Final = 32
header_chars_max: Final = 4096

# The IANA special-purpose registries (RFC 6890 and its updates), minus the anycast services in them that
# are globally reachable but no place for images. `ipaddress.is_global` is no substitute: it calls NAT64,
# 6to4 and IPv4-compatible forms of private addresses global.
_NOT_PUBLIC_V4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; holds a metadata service (100.100.100.200)
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's host agent: public by number, internal by routing
        "169.254.0.0/16",  # link-local, holds the metadata services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocol assignments, holds a metadata service (192.0.0.192)
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and 255.255.255.255
    )
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # IETF protocol assignments: benchmarking, ORCHID, anycast; Teredo is looked at before
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_COMPATIBLE: Final = IPv6Network("::/96")
_TRANSLATED: Final = IPv6Network("::ffff:0:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_TEREDO: Final = IPv6Network("2001::/32")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})


def unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped one (RFC 4291, section 2.5.5.2); any other as it is."""
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def canonical16(address: Address) -> bytes:
    """The address as 16 bytes, IPv4 in its mapped form: an IPv4 address and its mapped twin are equal. No zone."""
    if isinstance(address, IPv4Address):
        return b"\0" * 10 + b"\xff\xff" + address.packed
    return address.packed


def is_public(address: Address) -> bool:
    """Whether anybody on the internet may be reached at this address. What is not known to be public is not.

    An IPv6 address that embeds IPv4 ones (mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP) is
    public only where all of them are, since a gateway may deliver it there. The local NAT64 range
    64:ff9b:1::/48 (RFC 8215) and addresses with a zone never are.
    """
    address = unwrapped(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    if address.scope_id is not None or not all(is_public(inner) for inner in _embedded(address)):
        return False
    if any(address in network for network in (_COMPATIBLE, _TRANSLATED, _NAT64, _TEREDO)):
        return True
    return address in _GLOBAL_UNICAST and not any(address in network for network in _NOT_PUBLIC_V6)


def _embedded(address: IPv6Address) -> Iterator[IPv4Address]:
    number = int(address)
    low = number & 0xFFFF_FFFF
    if address in _COMPATIBLE or address in _TRANSLATED or address in _NAT64:
        yield IPv4Address(low)
    if address in _TEREDO:  # RFC 4380: the server in clear, the client with its bits turned round
        yield IPv4Address(number >> 64 & 0xFFFF_FFFF)
        yield IPv4Address(low ^ 0xFFFF_FFFF)
    if address in _SIX_TO_FOUR:  # RFC 3056
        yield IPv4Address(number >> 80 & 0xFFFF_FFFF)
    if number >> 32 & 0xFFFF_FFFF in _ISATAP:  # RFC 5214, with either value of the universal bit
        yield IPv4Address(low)


class TrustedProxies:
    """The hops whose word about their peer is believed. An empty list trusts none but unix sockets."""

    def __init__(self, networks: Iterable[str | Network] = ()) -> None:
        """Take addresses and networks. Raises ValueError for what is neither, or has host bits set."""
        parsed = [ip_network(network) if isinstance(network, str) else network for network in networks]
        self._networks = tuple(network for network in parsed if network.num_addresses > 1)
        self._single = frozenset(unwrapped(network[0]) for network in parsed if network.num_addresses == 1)

    def __contains__(self, address: Address) -> bool:
        address = unwrapped(address)
        return address in self._single or any(address in network for network in self._networks)


def visitor(
    peer: Address | None, header_name: HeaderKind, header_value: str | None, trusted: TrustedProxies
) -> Address:
    """The visitor's address: the first hop from the right that is not a trusted proxy.

    ``peer`` is the connection's other end, None on a unix socket: who may open that is trusted.
    ``header_value`` is the one header that is read, its lines joined by commas. The peer's word counts only
    if the peer is trusted. A malformed hop, or one that hides its address, ends the walk: then the last
    valid hop is the answer, so nothing that a visitor wrote to the left of it ever counts. Where every hop is
    trusted the leftmost is. ``UNKNOWN`` where nothing names an address. Looks at no more than ``hops_max``
    hops and ``header_chars_max`` characters.
    """
    nearest = UNKNOWN if peer is None else unwrapped(peer)
    if header_name == "none" or not header_value or (peer is not None and nearest not in trusted):
        return nearest
    for hop in _HOPS[header_name](header_value):
        if hop is None:
            break
        nearest = hop
        if hop not in trusted:
            break
    return nearest


def _hops_of_list(value: str) -> Iterator[Address | None]:
    """Hops of X-Forwarded-For, from the right; None for a malformed one."""
    floor = max(0, len(value) - header_chars_max)
    end = len(value)
    for _ in range(hops_max):
        comma = value.rfind(",", floor, end)
        if comma < 0 and floor > 0:
            yield None  # The rest was cut off in the middle.
            return
        text = value[comma + 1 : end].strip(" \t")
        if text:  # RFC 9110, section 5.6.1: empty elements of a list count for nothing.
            yield _hop(text)
        if comma < 0:
            return
        end = comma


def _hops_of_forwarded(value: str) -> Iterator[Address | None]:
    """Hops of Forwarded (RFC 7239), from the right; None for a malformed, unknown or obfuscated one.

    Read from the right also inside quoted strings: an unbalanced quote that a visitor sent can't swallow
    what the proxies appended.
    """
    floor = max(0, len(value) - header_chars_max)
    end = len(value)
    is_quoted = False
    seen = 0
    for index in range(len(value) - 1, floor - 1, -1):
        letter = value[index]
        if letter == '"' and not (is_quoted and _is_escaped(value, index, floor)):
            is_quoted = not is_quoted
        elif letter == "," and not is_quoted:
            if element := value[index + 1 : end].strip(" \t"):
                yield _for_parameter(element)
            end = index
            seen += 1
            if seen == hops_max:
                return
    yield None if is_quoted or floor else _for_parameter(value[:end].strip(" \t"))


def _hop_of_single(value: str) -> Iterator[Address | None]:
    yield _hop(value.strip(" \t"))


_HOPS: Final = {
    "x-forwarded-for": _hops_of_list,
    "forwarded": _hops_of_forwarded,
    "cf-connecting-ip": _hop_of_single,
}

_PARAMETER: Final = re.compile(
    r"""[ \t]* (?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+) = (?: "(?P<quoted>(?:[^"\\]|\\.)*)" | (?P<token>[^\s",;]+) )
    [ \t]* (?:;|$)""",
    re.VERBOSE | re.ASCII,
)
_NODE: Final = re.compile(r"(?: \[(?P<v6>[0-9A-Fa-f:.]+)\] | (?P<v4>[0-9.]+) ) (?: :[0-9]{1,5} )?", re.VERBOSE)


def _is_escaped(value: str, index: int, floor: int) -> bool:
    start = index
    while start > floor and value[start - 1] == "\\":
        start -= 1
    return (index - start) % 2 == 1


def _for_parameter(element: str) -> Address | None:
    """The address in the only ``for=`` of one element of Forwarded."""
    found: list[str] = []
    position = 0
    while position < len(element):
        match = _PARAMETER.match(element, position)
        if match is None:
            return None
        if match["name"].lower() == "for":
            quoted = match["quoted"]
            found.append(match["token"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        position = match.end()
    return _hop(found[0]) if len(found) == 1 else None


def _hop(text: str) -> Address | None:
    """One hop: an address, IPv4 or bracketed IPv6 perhaps with a port. Zones and names are no addresses."""
    if len(text) > 64 or "%" in text:
        return None
    match = _NODE.fullmatch(text)
    literal = (match["v6"] or match["v4"]) if match else text
    try:
        return unwrapped(ip_address(literal))
    except ValueError:
        return None
