"""Claims about the network guard: over the whole bypass list not one connection to a forbidden address is opened."""

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver
from yarl import URL

from imgserve.adapters.origins import guard
from imgserve.adapters.origins.http import HttpOrigin
from imgserve.adapters.origins.settings import Settings
from imgserve.core import allowlist
from imgserve.core.errors import Denied, ImgserveError, OriginFailed, Overloaded

Fetch = Callable[..., Awaitable[bytes]]
Serve = Callable[..., Awaitable[Any]]
MakeSettings = Callable[..., Settings]
Reply = Callable[..., bytes]

HASTY = {"connect_timeout_s": 0.2, "fetch_timeout_s": 0.2}  # so that a hole is found soon: the tripwire never answers
EVERYTHING = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


def words(text: str) -> list[str]:
    """A list, written as a table."""
    return text.split()


# Spellings of hosts that some parser, resolver or kernel takes for an internal address.
LOOPBACK_V4 = words("""
127.0.0.1 127.0.0.1. 127.0.0.1.. 127.0.0.0 127.0.0.3 127.0.0.53 127.0.1.1 127.1.2.3 127.127.127.127
127.255.255.254 127.1 127.0.1 127.1. 127.000.000.001 127.0.0.01 127.0.0.001 0127.0.0.1 0177.0.0.1 00177.0.0.1
0177.0000.0000.0001 0177.1 0177.0.1 0177.00.01 0177.01 017700000001 0000000017700000001 0x7f.0.0.1
0x7f.0x0.0x0.0x1 0x7F.0X0.0X0.0X1 0x7f.1 0x7f.0.1 0x7f.0x1 0x7f000001 0X7F000001 0x007f000001 0x7f.0.0.01
0x7f.0x0.1 127.0x1 127.0.0x1 2130706433 2130706433. 02130706433 6425673729 10720640001 0x17f000001 o177.0.0.1
0o177.0.0.1 q177.0.0.1 127.0.0.257 127.0.0.1.1 127..0.0.1 .127.0.0.1 0 0. 00 0x0 0.0 0.0.0.0 000.000.000.000
0.0.0.1 0x0.0 localhost LOCALHOST LocalHost. localhost.. localhost.localdomain ip6-localhost ip6-loopback
127.0.0.1%00 127.0.0.1%20 127.0.0.1%0d%0a 127.0.0.1%2f %31%32%37.0.0.1 %31%32%37%2e0%2e0%2e1 127%2e0%2e0%2e1
127.0.0.1%2523 loc%61lhost １２７.０.０.１ 127。0。0。1 127．0．0．1 127｡0｡0｡1 ①②⑦.⓪.⓪.① ⑴㉗.0.0.1
١٢٧.0.0.1 ๑๒๗.0.0.1 ⓛⓞⓒⓐⓛⓗⓞⓢⓣ ｌｏｃａｌｈｏｓｔ loc\u00adalhost 127.0.0.1\u200b ℓocalhost locaⅼhost
""")
LOOPBACK_V6 = words("""
[::1] [0:0:0:0:0:0:0:1] [0000:0000:0000:0000:0000:0000:0000:0001] [::0001] [0::1] [::0:0:1] [::]
[0:0:0:0:0:0:0:0] [::0] [::ffff:127.0.0.1] [::ffff:7f00:1] [::FFFF:7F00:0001] [0:0:0:0:0:ffff:127.0.0.1]
[0:0:0:0:0:ffff:7f00:1] [::ffff:127.1.2.3] [::ffff:0.0.0.0] [::ffff:0:0] [::ffff:0:127.0.0.1]
[::ffff:0:7f00:1] [::127.0.0.1] [::7f00:1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b:1::7f00:1]
[64:ff9b:1:7f00:0:100::] [2002:7f00:1::] [2002:7f00:1::1] [2001:0:808:808::80ff:fffe]
[2001:0:7f00:1::f7f7:f7f7] [fe80::5efe:7f00:1] [2606:4700::5efe:7f00:1] [2606:4700::200:5efe:7f00:1] [::1%lo]
[::1%25lo] [::1%1] [::1%251] [::1]. [::1].. ::1 0000::1 [::1 ::1] [127.0.0.1] [::ffff:0177.0.0.1]
[::ffff:127.1] [v1.127.0.0.1] [::1,] [[::1]]
""")
INTERNAL = words("""
10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 192.168.255.255 100.64.0.1 100.100.100.200
169.254.169.254 169.254.170.2 169.254.0.1 192.0.0.192 168.63.129.16 198.18.0.1 192.0.2.1 198.51.100.1
203.0.113.1 224.0.0.1 240.0.0.1 255.255.255.255 0xa9fea9fe 2852039166 0251.0376.0251.0376 169.254.43518
[::ffff:169.254.169.254] [::ffff:a9fe:a9fe] [64:ff9b::169.254.169.254] [2002:a9fe:a9fe::1] [fd00:ec2::254]
[fd20:ce::254] [fc00::1] [fe80::1] [fec0::1] [ff02::1] [2001:db8::1] [100::1] [2001:2::1] [5f00::1] [4000::1]
""")
AUTHORITIES = [
    "good.test@127.0.0.1", "good.test:80@127.0.0.1", "a:b@127.0.0.1", "127.0.0.1@127.0.0.1", "@127.0.0.1",
    ":@127.0.0.1",
    "good.test%40127.0.0.1", "good.test@@127.0.0.1", "good.test@good.test@127.0.0.1", "127.0.0.1\\@good.test",
    "127.0.0.1:80\\@good.test", "good.test\\@127.0.0.1", "good.test\\.127.0.0.1", "127.0.0.1#@good.test",
    "127.0.0.1?@good.test",
    "127.0.0.1;@good.test", "127.0.0.1,good.test", "127.0.0.1 @good.test", "127.0.0.1\t", "\t127.0.0.1", "127.0.0.1\n",
    "127.0.0.1\x00good.test", "127.0.0.1&@good.test", "127.0.0.1(good.test)", "/127.0.0.1", "//127.0.0.1",
    "\\127.0.0.1",
    "good.test@[::1]", "[::1]@good.test", "localhost@good.test@localhost",
]  # fmt: skip
BYPASSES = [*LOOPBACK_V4, *LOOPBACK_V6, *INTERNAL, *AUTHORITIES]

# Names that lead to internal addresses; the last ones have a permitted address beside the forbidden one.
ZONE = {
    "loopback.test": [["127.0.0.1"]],
    "other-loopback.test": [["127.3.3.3"]],
    "zero.test": [["0.0.0.0"]],
    "six.test": [["::1"]],
    "unspecified.test": [["::"]],
    "mapped.test": [["::ffff:127.0.0.1"]],
    "mapped-zero.test": [["::ffff:0.0.0.0"]],
    "compatible.test": [["::127.0.0.1"]],
    "nat64.test": [["64:ff9b::7f00:1"]],
    "6to4.test": [["2002:7f00:1::1"]],
    "private.test": [["10.0.0.1", "192.168.1.1"]],
    "metadata.test": [["169.254.169.254"]],
    "metadata6.test": [["fd00:ec2::254"]],
    "127.0.0.1.nip.test": [["127.0.0.1"]],
    "xn--lcalhost-n1a.test": [["127.0.0.1"]],
    "mixed.test": [["127.0.0.2", "127.0.0.1"]],
    "mixed-first.test": [["127.0.0.1", "127.0.0.2"]],
    "mixed-families.test": [["127.0.0.2", "::1"]],
    "mixed-public.test": [["8.8.8.8", "127.0.0.1"]],
}


def allowing(*hosts: str) -> tuple[str, ...]:
    """An allow-list that opens every port of each host that can be written into one at all."""
    entries = ["*"]
    for host in hosts:
        try:
            allowlist.parse_entry(host + ":*")
        except ValueError:
            continue
        entries.append(host + ":*")
    return tuple(entries)


async def outcomes(work: dict[str, Awaitable[bytes]]) -> list[str]:
    """Run one after the other; those that delivered something."""
    delivered = []
    for name, fetching in work.items():
        try:
            await fetching
        except ImgserveError:
            continue
        delivered.append(name)
    return delivered


def test_the_list_is_long() -> None:
    """Enough spellings to mean something."""
    assert len(set(BYPASSES)) == len(BYPASSES) >= 200


async def test_no_spelling_reaches_a_forbidden_address(
    tripwire: Any, attempts: list[Any], settings: MakeSettings, fetch: Fetch, names: Any, resolver: Any
) -> None:
    """Directly, with an allow-list that opens everything it can: no connect is even attempted."""
    names.zone.update(ZONE)
    allowed = allowing(*BYPASSES, *ZONE)
    async with HttpOrigin(settings(**HASTY), resolver=resolver, dns_cache_s=0) as origin:
        urls = [f"http://{host}:{tripwire.port}/a.jpg" for host in [*BYPASSES, *ZONE]]
        urls += [f"http://{host}/a.jpg" for host in [*BYPASSES, *ZONE]]
        assert [] == await outcomes({url: fetch(origin, url, allowed=allowed) for url in urls})
    assert ([], 0) == (attempts, tripwire.count())


async def test_no_alias_reaches_a_forbidden_address(
    tripwire: Any, attempts: list[Any], settings: MakeSettings, fetch: Fetch, names: Any, resolver: Any
) -> None:
    """An alias names its host literally and asks no allow-list, yet ``allow_private`` doesn't hold these."""
    names.zone.update(ZONE)
    async with HttpOrigin(settings(**HASTY), resolver=resolver, dns_cache_s=0) as origin:
        roots = [f"http://{host}:{tripwire.port}" for host in [*BYPASSES, *ZONE]]
        assert [] == await outcomes({root: fetch(origin, root + "/a.jpg", root=root) for root in roots})
    assert ([], 0) == (attempts, tripwire.count())


async def test_no_redirect_reaches_a_forbidden_address(
    tripwire: Any,
    attempts: list[Any],
    serve: Serve,
    settings: MakeSettings,
    fetch: Fetch,
    reply: Reply,
    names: Any,
    resolver: Any,
) -> None:
    """A permitted origin that sends the server everywhere: only that origin is ever connected to."""
    names.zone.update(ZONE)
    hosts = [*BYPASSES, *ZONE]

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        number = int(head.split(b" ")[1].removeprefix(b"/"))
        form = "http://{}:{}/" if number < len(hosts) else "//{}:{}/"
        location = form.format(hosts[number % len(hosts)], tripwire.port)
        if "\n" not in location and "\x00" not in location:
            writer.write(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
        else:
            writer.write(reply(b"", "302 Found"))

    site = await serve(answer)
    allowed = (*allowing(*hosts), "127.0.0.2:*")
    async with HttpOrigin(settings(**HASTY), resolver=resolver, dns_cache_s=0) as origin:
        urls = [f"{site.base}/{number}" for number in range(2 * len(hosts))]
        assert [] == await outcomes({url: fetch(origin, url, allowed=allowed) for url in urls})
    assert {("127.0.0.2", site.port)} == set(attempts)
    assert 0 == tripwire.count()


async def test_the_connector_alone_holds(
    tripwire: Any, attempts: list[Any], settings: MakeSettings, names: Any, resolver: Any
) -> None:
    """Even where no URL is parsed strictly first, the client library with the guard opens nothing."""
    names.zone.update(ZONE)
    for is_named in (False, True):
        connector = guard.connector(
            guard.Guard(settings().allow_private), resolver, is_named=is_named, is_kept=True, dns_cache_s=0, tls=None
        )
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=0.1)) as session:
            for host in [*BYPASSES, *ZONE]:
                for is_encoded in (False, True):
                    try:
                        url = URL(f"http://{host}:{tripwire.port}/", encoded=is_encoded)
                        async with session.get(url):
                            pass
                    except (aiohttp.ClientError, ValueError, OSError, TypeError, TimeoutError):
                        continue
                    finally:
                        assert [] == attempts, host
    assert ([], 0) == (attempts, tripwire.count())


async def test_the_tripwire_is_live(
    tripwire: Any, attempts: list[Any], settings: MakeSettings, fetch: Fetch, names: Any, resolver: Any
) -> None:
    """With every network allowed the same list does trip it: a count of 0 elsewhere is the guard's doing."""
    names.zone.update(ZONE)
    loose = settings(allow_private=EVERYTHING, connect_timeout_s=0.05, fetch_timeout_s=0.05)
    async with HttpOrigin(loose, resolver=resolver, dns_cache_s=0) as origin:
        roots = [f"http://{host}:{tripwire.port}" for host in [*BYPASSES, *ZONE]]
        await outcomes({root: fetch(origin, root + "/a.jpg", root=root) for root in roots})
    assert tripwire.count() >= 15
    assert {"127.0.0.1", "0.0.0.0", "::1", "169.254.169.254", "64:ff9b::7f00:1"} <= {host for host, _ in attempts}


PUBLIC = words("""
1.1.1.1 8.8.8.8 93.184.216.34 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1
169.253.255.255 169.255.0.1 172.15.255.255 172.32.0.1 192.167.255.255 192.169.0.1 198.17.255.255 198.20.0.1
223.255.255.255 [2606:4700:4700::1111] [2a00:1450:4001::200e] [2620:fe::fe] [64:ff9b::8.8.8.8]
[2002:808:808::1]
""")


async def test_public_addresses_are_connected_to(
    attempts: list[Any], settings: MakeSettings, fetch: Fetch, names: Any, resolver: Any
) -> None:
    """The must-pass list: each one is tried, at the very address that was named or resolved, by ``*`` alone."""
    async with HttpOrigin(settings(allow_private=()), resolver=resolver, dns_cache_s=0) as origin:
        expected = []
        for number, host in enumerate(PUBLIC):
            address = str(ip_address(host.strip("[]")))
            names.zone[f"p{number}.test"] = [[address]]
            for name in (host, f"p{number}.test"):
                expected.append((address, 80))
                with pytest.raises(OriginFailed):
                    await fetch(origin, f"http://{name}/a.jpg", allowed=("*",))
        with pytest.raises(OriginFailed):
            await fetch(origin, "http://[::ffff:8.8.8.8]/a.jpg", allowed=("*",))
    assert [*expected, ("8.8.8.8", 80)] == attempts


@pytest.mark.parametrize(
    "location", ["http://8.8.8.8/", "http://8.8.8.8:8080/", "https://other.test/", "http://[2606:4700::1]/"]
)
async def test_no_public_place_outside_the_allow_list_is_connected_to(
    location: str,
    attempts: list[Any],
    serve: Serve,
    settings: MakeSettings,
    fetch: Fetch,
    reply: Reply,
    names: Any,
    resolver: Any,
) -> None:
    """Neither directly, nor by the redirect of a permitted origin or of an alias."""
    names.zone["other.test"] = [["8.8.8.8"]]
    site = await serve(reply(b"", "302 Found", f"Location: {location}"))
    async with HttpOrigin(settings(), resolver=resolver) as origin:
        for url, root in ((location, ""), (site.base + "/a.jpg", ""), (site.base + "/a.jpg", site.base)):
            with pytest.raises(Denied, match="allowed_origins"):
                await fetch(origin, url, allowed=("127.0.0.2:*", "good.test", "8.8.8.8:81"), root=root)
    assert {("127.0.0.2", site.port)} == set(attempts)


async def test_a_name_that_changes_between_check_and_use_gains_nothing(
    tripwire: Any, attempts: list[Any], settings: MakeSettings, fetch: Fetch, names: Any, resolver: Any
) -> None:
    """Rebinding: each query is answered public, then loopback, in turn. What was checked is what is connected
    to, so the public address is tried, and whenever the other is answered nothing is."""
    names.zone["flip.test"] = [["8.8.8.8"], ["127.0.0.1"]]
    names.zone["flip6.test"] = [["2606:4700::1"], ["::1"]]
    allowed = ("flip.test:*", "flip6.test:*")
    async with HttpOrigin(settings(**HASTY), resolver=resolver, dns_cache_s=0) as origin:
        kinds = []
        for name in ("flip.test", "flip6.test"):
            for _ in range(6):
                with pytest.raises(ImgserveError) as caught:
                    await fetch(origin, f"http://{name}:{tripwire.port}/a.jpg", allowed=allowed)
                kinds.append(type(caught.value))
    assert [OriginFailed, Denied] * 6 == kinds
    assert [("8.8.8.8", tripwire.port)] * 3 + [("2606:4700::1", tripwire.port)] * 3 == attempts
    assert 0 == tripwire.count()


async def test_a_name_that_changes_between_two_hops_gains_nothing(
    tripwire: Any,
    attempts: list[Any],
    serve: Serve,
    settings: MakeSettings,
    fetch: Fetch,
    reply: Reply,
    names: Any,
    resolver: Any,
) -> None:
    """The first hop of a redirect to itself is permitted, then the name turns to the tripwire's address."""
    site = await serve(reply(b"", "302 Found", f"Location: http://turn.test:{tripwire.port}/"))
    names.zone["turn.test"] = [["127.0.0.2"], ["127.0.0.1"]]
    async with HttpOrigin(settings(**HASTY), resolver=resolver, dns_cache_s=0) as origin:
        with pytest.raises(Denied):
            await fetch(origin, f"http://turn.test:{site.port}/", allowed=("turn.test:*",))
    assert [("127.0.0.2", site.port)] == attempts
    assert 0 == tripwire.count()


async def test_one_forbidden_answer_condemns_the_name(
    attempts: list[Any], settings: MakeSettings, fetch: Fetch, names: Any, resolver: Any
) -> None:
    """All answers are checked, also those that would have been tried last."""
    names.zone["mixed.test"] = [["8.8.8.8", "1.1.1.1", "2606:4700::1", "10.0.0.1"]]
    async with HttpOrigin(settings(), resolver=resolver) as origin:
        with pytest.raises(Denied):
            await fetch(origin, "http://mixed.test/", allowed=("*",))
    assert [] == attempts


@pytest.mark.parametrize(
    ("allowed", "is_delivered"),
    [
        (("inside.test:*",), True),
        (("INSIDE.test.:*",), True),
        (("test:*",), False),  # its parent
        (("*",), False),
        (("127.0.0.2:*",), False),  # its address, under another name
        (("*", "inside.test:1"), False),  # its name, on another port
        ((), False),
    ],
)
async def test_a_private_origin_must_be_named_literally(
    *,
    allowed: tuple[str, ...],
    is_delivered: bool,
    serve: Serve,
    settings: MakeSettings,
    fetch: Fetch,
    reply: Reply,
    names: Any,
    resolver: Any,
) -> None:
    """``allow_private`` alone opens nothing: the tenant must have named this very host."""
    site = await serve(reply(b"private"))
    names.zone["inside.test"] = [["127.0.0.2"]]
    async with HttpOrigin(settings(), resolver=resolver) as origin:
        url = f"http://inside.test:{site.port}/"
        assert ([url] if is_delivered else []) == await outcomes({url: fetch(origin, url, allowed=allowed)})
    assert int(is_delivered) == site.connections


async def test_a_private_origin_must_be_in_allow_private(
    serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply
) -> None:
    """The tenant's word alone opens nothing either."""
    site = await serve(reply(b"private"))
    async with HttpOrigin(settings(allow_private=())) as origin:
        for root in ("", site.base):
            with pytest.raises(Denied):
                await fetch(origin, site.base + "/a.jpg", root=root)
    assert 0 == site.connections


async def test_no_tenant_rides_on_the_connection_of_another(
    attempts: list[Any], serve: Serve, settings: MakeSettings, fetch: Fetch, reply: Reply, names: Any, resolver: Any
) -> None:
    """While one tenant's connection to a private origin lies open in the pool, a tenant who reaches the same
    host and port only as a subdomain is refused, and the origin sees nothing of it."""
    site = await serve(reply(b"private"))
    names.zone["inside.example.test"] = [["127.0.0.2"]]
    url = f"http://inside.example.test:{site.port}/"
    for dns_cache_s in (0, 10):
        async with HttpOrigin(settings(), resolver=resolver, dns_cache_s=dns_cache_s) as origin:
            for _ in range(3):
                assert b"private" == await fetch(origin, url, allowed=("inside.example.test:*",))
                with pytest.raises(Denied):
                    await fetch(origin, url, allowed=("example.test:*",))
    assert (2, 6) == (site.connections, len(site.heads))
    assert [("127.0.0.2", site.port)] * 2 == attempts


async def test_refusals_are_counted_and_tell_no_address(settings: MakeSettings, fetch: Fetch) -> None:
    """The caller learns that the origin is not allowed, not where it lies."""
    async with HttpOrigin(settings()) as origin:
        with pytest.raises(Denied) as caught:
            await fetch(origin, "http://10.1.2.3/", allowed=("10.1.2.3",))
        assert 1 == origin.refused
    assert "10.1.2.3" not in caught.value.public + str(caught.value)


async def test_the_system_resolver_is_bounded() -> None:
    """More look-ups than threads are refused instead of queued: getaddrinfo can't be interrupted."""
    resolver = guard.ThreadResolver(1)
    first = asyncio.ensure_future(resolver.resolve("localhost", 80))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await resolver.resolve("localhost", 80)
    assert {"127.0.0.1", "::1"} >= {answer["host"] for answer in await first} != set()
    assert [] != await resolver.resolve("localhost", 80)
    await resolver.close()
    await resolver.close()


async def test_a_failing_resolver_is_the_origins_failure(settings: MakeSettings, fetch: Fetch) -> None:
    """An error of the resolver is no crash."""

    class Failing(AbstractResolver):
        async def resolve(self, *_: Any) -> Any:
            raise OSError("no name server")

        async def close(self) -> None:
            pass

    async with HttpOrigin(settings(), resolver=Failing()) as origin:
        with pytest.raises(OriginFailed):
            await fetch(origin, "http://any.test/", allowed=("*",))
