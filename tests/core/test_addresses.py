"""Claims about core.addresses: what is public, how an address is written down, whose address a request has."""

import itertools
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgserve.core.addresses import (
    UNKNOWN,
    HeaderKind,
    TrustedProxies,
    canonical16,
    header_chars_max,
    hops_max,
    is_public,
    unwrapped,
    visitor,
)


def words(text: str) -> list[str]:
    """A list, written as a table."""
    return text.split()


NOT_PUBLIC = words("""
0.0.0.0 0.0.0.1 0.255.255.255 10.0.0.0 10.0.0.1 10.255.255.255 100.64.0.0 100.64.0.1 100.100.100.200 100.127.255.255
127.0.0.0 127.0.0.1 127.0.0.53 127.1.2.3 127.255.255.255 168.63.129.16 169.254.0.0 169.254.169.254 169.254.170.2
169.254.255.255 172.16.0.0 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.0.8 192.0.2.1 192.88.99.1 192.168.0.0
192.168.1.1 192.168.255.255 198.18.0.0 198.19.255.255 198.51.100.1 203.0.113.7 224.0.0.1 239.255.255.250 240.0.0.1
255.255.255.254 255.255.255.255
:: ::1 ::2 ::127.0.0.1 ::10.0.0.1 ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0.0.0.0
::ffff:0:127.0.0.1 ::ffff:0:10.1.2.3 64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b::192.168.0.1
64:ff9b:1::7f00:1 64:ff9b:1::8.8.8.8 64:ff9b:1:ffff::1 2002:7f00:1:: 2002:a00:1::1 2002:c0a8:101::1 2002:a9fe:a9fe::
2001:0:7f00:1::f7f7:f7f7 2001:0:808:808::80ff:fffe 2001:0:808:808::f5ff:fffe 2606:4700::5efe:7f00:1
2606:4700::200:5efe:a00:1 fe80::5efe:8.8.8.8
fc00:: fc00::1 fd00:ec2::254 fd20:ce::254 fdff:ffff::1 fe80:: fe80::1 febf::1 fec0::1 feff::1 ff02::1 ff05::1:3 ff0e::1
2001:db8::1 3fff::1 3fff:fff::1 2001:2::1 2001:10::1 2001:20::1 2001:1::1 100::1 100:0:0:1::1 5f00::1 4000::1 8000::1
fe80::1%lo ::1%lo 2606:4700::1111%eth0
""")

PUBLIC = words("""
1.0.0.1 1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 93.184.216.34 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1
168.63.129.15 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.1 192.167.255.255 192.169.0.0 198.17.255.255
198.20.0.0 203.0.112.255 203.0.114.0 223.255.255.255
::ffff:8.8.8.8 64:ff9b::8.8.8.8 64:ff9b::5db8:d822 2002:808:808::1 2001:0:808:808::fefe:fefe 2606:4700::5efe:808:808
2000::1 2001:200::1 2001:4860:4860::8888 2606:4700:4700::1111 2a00:1450:4001::200e 2620:fe::fe 2c0f:fe98::1 3ffe::1
""")


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_what_is_internal_or_reserved_is_not_public(text: str) -> None:
    """No private, local, shared, documentation, multicast or reserved address is public, in whatever wrapping."""
    assert is_public(ip_address(text)) is False


@pytest.mark.parametrize("text", PUBLIC)
def test_global_unicast_is_public(text: str) -> None:
    """Addresses right beside the special ranges, and ordinary ones, are public."""
    assert is_public(ip_address(text)) is True


@given(st.sampled_from(["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
                        "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3"]), st.integers(0, 2**32 - 1))  # fmt: skip
def test_no_wrapping_makes_a_private_ipv4_address_public(network: str, number: int) -> None:
    """Every IPv6 form that embeds an IPv4 address is as private as that address."""
    net = IPv4Network(network)
    inner = int(net[0]) | number & int(net.hostmask)
    wrapped = [
        inner,
        0xFFFF << 32 | inner,
        0xFFFF << 48 | inner,
        0x0064_FF9B << 96 | inner,
        0x0064_FF9B_0001 << 80 | inner,
        0x2002 << 112 | inner << 80,
        0x2001_0000 << 96 | 0x0808_0808 << 64 | inner ^ 0xFFFF_FFFF,
        0x2001_0000 << 96 | inner << 64 | 0xF7F7_F7F7,
        0x2606_4700 << 96 | 0x5EFE << 32 | inner,
        0x2606_4700 << 96 | 0x0200_5EFE << 32 | inner,
    ]
    assert not is_public(IPv4Address(inner))
    assert [number for number in wrapped if is_public(IPv6Address(number))] == []


@given(st.ip_addresses(v=6))
def test_outside_global_unicast_only_gateways_are_public(address: IPv6Address) -> None:
    """What IANA has not assigned as global unicast is denied, so a range that is handed out later is too."""
    gateways = ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")
    if address not in IPv6Network("2000::/3") and not any(address in IPv6Network(text) for text in gateways):
        assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_and_its_mapped_twin_are_written_alike(address: IPv4Address) -> None:
    """A dual-stack listener sees a visitor as ::ffff:a.b.c.d, another one as a.b.c.d: both are one person."""
    twin = IPv6Address(f"::ffff:{address}")
    assert canonical16(address) == canonical16(twin)
    assert unwrapped(twin) == address
    assert is_public(twin) == is_public(address)


@given(st.ip_addresses(), st.ip_addresses())
def test_canonical_bytes_are_sixteen_and_tell_addresses_apart(first: IPv4Address, second: IPv4Address) -> None:
    """Different addresses never share their bytes."""
    assert len(canonical16(first)) == 16
    assert (canonical16(first) == canonical16(second)) == (unwrapped(first) == unwrapped(second))


def test_a_zone_is_not_part_of_the_bytes() -> None:
    """The zone says on which link, not who."""
    assert canonical16(ip_address("fe80::1%eth0")) == canonical16(ip_address("fe80::1"))


TRUSTED = TrustedProxies(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"])
PROXY = IPv4Address("127.0.0.1")

VISITS = [
    # kind, header, visitor
    ("x-forwarded-for", "198.51.100.7", "198.51.100.7"),
    ("x-forwarded-for", "203.0.113.9, 198.51.100.7", "198.51.100.7"),
    ("x-forwarded-for", "203.0.113.9, 198.51.100.7, 10.1.1.1, 10.2.2.2", "198.51.100.7"),
    ("x-forwarded-for", "127.0.0.1, 198.51.100.7", "198.51.100.7"),
    ("x-forwarded-for", "10.9.9.9, 10.1.1.1", "10.9.9.9"),
    ("x-forwarded-for", "198.51.100.7:4711", "198.51.100.7"),
    ("x-forwarded-for", "[2001:db9::7]:4711", "2001:db9::7"),
    ("x-forwarded-for", "2001:db9::7", "2001:db9::7"),
    ("x-forwarded-for", "[2001:db9::7]", "2001:db9::7"),
    ("x-forwarded-for", "::ffff:198.51.100.7", "198.51.100.7"),
    ("x-forwarded-for", "203.0.113.9, ::ffff:10.1.1.1", "203.0.113.9"),
    ("x-forwarded-for", " 203.0.113.9 ,\t198.51.100.7 ", "198.51.100.7"),
    ("x-forwarded-for", "203.0.113.9,,198.51.100.7, ,", "198.51.100.7"),
    ("x-forwarded-for", "203.0.113.9, garbage, 10.1.1.1", "10.1.1.1"),
    ("x-forwarded-for", "203.0.113.9, garbage", "127.0.0.1"),
    ("x-forwarded-for", "203.0.113.9, unknown", "127.0.0.1"),
    ("x-forwarded-for", "203.0.113.9, 198.51.100.07", "127.0.0.1"),
    ("x-forwarded-for", "203.0.113.9, 3325256711", "127.0.0.1"),
    ("x-forwarded-for", "203.0.113.9, 198.51.100.7%eth0", "127.0.0.1"),
    ("x-forwarded-for", "203.0.113.9, fe80::1%eth0", "127.0.0.1"),
    ("x-forwarded-for", "203.0.113.9, 198.51.100.7:x", "127.0.0.1"),
    ("x-forwarded-for", "203.0.113.9, 198.51.100.7:123456", "127.0.0.1"),
    ("x-forwarded-for", '203.0.113.9, "198.51.100.7"', "127.0.0.1"),
    ("x-forwarded-for", "203.0.113.9 198.51.100.7", "127.0.0.1"),
    ("x-forwarded-for", "", "127.0.0.1"),
    ("x-forwarded-for", ",,,", "127.0.0.1"),
    ("x-forwarded-for", "١٩٨.51.100.7", "127.0.0.1"),
    ("forwarded", "for=198.51.100.7", "198.51.100.7"),
    ("forwarded", "For=198.51.100.7;proto=https;by=10.0.0.1", "198.51.100.7"),
    ("forwarded", "proto=https; FOR=198.51.100.7 ;host=example.com", "198.51.100.7"),
    ("forwarded", 'for="198.51.100.7:4711"', "198.51.100.7"),
    ("forwarded", 'for="[2001:db9::7]"', "2001:db9::7"),
    ("forwarded", 'for="[2001:db9::7]:4711"', "2001:db9::7"),
    ("forwarded", 'for="[2001:db9::7]:4711", for=10.1.1.1', "2001:db9::7"),
    ("forwarded", "for=203.0.113.9, for=198.51.100.7;proto=http, for=10.1.1.1", "198.51.100.7"),
    ("forwarded", r'for="198.51.\100.7"', "198.51.100.7"),
    ("forwarded", 'host="a,for=203.0.113.9,b";for=198.51.100.7', "198.51.100.7"),
    ("forwarded", r'host="a\",for=203.0.113.9,b";for=198.51.100.7', "198.51.100.7"),
    ("forwarded", "for=203.0.113.9, for=_hidden, for=10.1.1.1", "10.1.1.1"),
    ("forwarded", "for=203.0.113.9, for=unknown", "127.0.0.1"),
    ("forwarded", "for=203.0.113.9, proto=https", "127.0.0.1"),
    ("forwarded", "for=203.0.113.9, for=198.51.100.7;for=198.51.100.8", "127.0.0.1"),
    ("forwarded", "for=203.0.113.9, for=198.51.100.7 junk", "127.0.0.1"),
    # What a visitor sends on the left can't swallow what the proxy appends on the right.
    ("forwarded", 'for="203.0.113.9, for=198.51.100.7', "198.51.100.7"),
    ("forwarded", 'for="203.0.113.9\\, for=198.51.100.7', "198.51.100.7"),
    ("forwarded", 'for=203.0.113.9;host=", for="[2001:db9::7]"', "2001:db9::7"),
    ("forwarded", 'for=203.0.113.9, for=198.51.100.7"', "127.0.0.1"),
    ("forwarded", "198.51.100.7", "127.0.0.1"),
    ("cf-connecting-ip", "198.51.100.7", "198.51.100.7"),
    ("cf-connecting-ip", "2001:db9::7", "2001:db9::7"),
    ("cf-connecting-ip", "203.0.113.9, 198.51.100.7", "127.0.0.1"),
    ("cf-connecting-ip", "garbage", "127.0.0.1"),
    ("none", "198.51.100.7", "127.0.0.1"),
]


@pytest.mark.parametrize(("kind", "header", "expected"), VISITS)
def test_the_visitor_is_the_first_untrusted_hop_from_the_right(kind: HeaderKind, header: str, expected: str) -> None:
    """Trusted hops are passed over, a malformed one ends the walk at the last valid hop."""
    assert visitor(PROXY, kind, header, TRUSTED) == ip_address(expected)


@pytest.mark.parametrize("kind", ["x-forwarded-for", "forwarded", "cf-connecting-ip", "none"])
def test_an_untrusted_peer_is_the_visitor_whatever_it_says(kind: HeaderKind) -> None:
    """Only a trusted proxy's word about its peer counts."""
    peer = IPv4Address("198.51.100.1")
    for header in ("203.0.113.9", "for=203.0.113.9", "127.0.0.1", None):
        assert visitor(peer, kind, header, TRUSTED) == peer


def test_a_mapped_peer_is_trusted_like_its_twin() -> None:
    """A dual-stack listener shows the trusted proxy 127.0.0.1 as ::ffff:127.0.0.1."""
    peer = IPv6Address("::ffff:127.0.0.1")
    assert visitor(peer, "x-forwarded-for", "198.51.100.7", TRUSTED) == IPv4Address("198.51.100.7")
    assert visitor(peer, "none", None, TRUSTED) == PROXY
    mapped = TrustedProxies(["::ffff:127.0.0.1"])
    assert visitor(PROXY, "x-forwarded-for", "198.51.100.7", mapped) == IPv4Address("198.51.100.7")


def test_a_unix_socket_is_a_trusted_proxy() -> None:
    """Who may open the socket's file was let in by the operator."""
    assert visitor(None, "x-forwarded-for", "198.51.100.7", TrustedProxies()) == IPv4Address("198.51.100.7")
    assert visitor(None, "x-forwarded-for", None, TrustedProxies()) == UNKNOWN
    assert visitor(None, "x-forwarded-for", "garbage", TrustedProxies()) == UNKNOWN


@given(st.sampled_from(["x-forwarded-for", "forwarded"]), st.text(st.characters(codec="latin-1"), max_size=200))
def test_nothing_that_a_visitor_sends_changes_whom_the_proxy_saw(kind: HeaderKind, sent: str) -> None:
    """A proxy appends its peer to what came in, so every spoofed left part must be without effect."""
    seen = "198.51.100.7" if kind == "x-forwarded-for" else "for=198.51.100.7"
    assert visitor(PROXY, kind, f"{sent}, {seen}", TRUSTED) == IPv4Address("198.51.100.7")


@given(st.sampled_from(["x-forwarded-for", "forwarded", "cf-connecting-ip"]), st.text(max_size=300))
def test_any_header_gives_some_address(kind: HeaderKind, header: str) -> None:
    """Malformed input is never an error."""
    assert isinstance(visitor(PROXY, kind, header, TRUSTED), IPv4Address | IPv6Address)


@pytest.mark.parametrize("kind", ["x-forwarded-for", "forwarded"])
def test_work_is_bounded(kind: HeaderKind) -> None:
    """Beyond so many trusted hops or characters nothing is looked at: the last hop seen is the answer."""
    hop = "10.0.0.1" if kind == "x-forwarded-for" else "for=10.0.0.1"
    visitor_hop = hop.replace("10.0.0.1", "198.51.100.7")
    inside = ", ".join([visitor_hop, *itertools.repeat(hop, hops_max - 1)])
    outside = ", ".join([visitor_hop, *itertools.repeat(hop, hops_max)])
    assert visitor(PROXY, kind, inside, TRUSTED) == IPv4Address("198.51.100.7")
    assert visitor(PROXY, kind, outside, TRUSTED) == IPv4Address("10.0.0.1")
    padded = f"{visitor_hop},{' ' * header_chars_max}{hop}"
    assert visitor(PROXY, kind, padded, TRUSTED) in {PROXY, IPv4Address("10.0.0.1")}
    assert visitor(PROXY, kind, '"\\' * 500_000, TRUSTED) == PROXY


def test_trusted_proxies_refuse_what_is_no_network() -> None:
    """A typing error in the configuration is found when it is read."""
    for text in ("example.com", "10.0.0.1/8", "10.0.0.0/33", ""):
        with pytest.raises(ValueError, match=r"."):
            TrustedProxies([text])
