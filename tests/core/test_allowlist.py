"""Claims about core.allowlist: one strict reading of an origin's URL, and what a tenant's allow-list opens."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from imgserve.core import allowlist
from imgserve.core.allowlist import Permission
from imgserve.core.errors import Denied, OriginFailed
from imgserve.core.tenants import Tenant


def tenant(*allowed: str) -> Tenant:
    return Tenant(name="t", allowed_origins=allowed)


READ = [
    ("https://images.example.com/a.jpg", ("https", "images.example.com", 443, "/a.jpg")),
    ("http://images.example.com", ("http", "images.example.com", 80, "/")),
    ("http://images.example.com?x=1", ("http", "images.example.com", 80, "/?x=1")),
    ("HTTP://Images.EXAMPLE.com./A%2fb?Q#frag", ("http", "images.example.com", 80, "/A%2fb?Q")),
    ("https://a_b.example.com:8443/", ("https", "a_b.example.com", 8443, "/")),
    ("https://example.com:/x", ("https", "example.com", 443, "/x")),
    ("http://8.8.8.8/", ("http", "8.8.8.8", 80, "/")),
    ("http://8.8.8.8./", ("http", "8.8.8.8", 80, "/")),
    ("http://[2606:4700::0:1111]:81/", ("http", "2606:4700::1111", 81, "/")),
    ("http://[::ffff:808:808]/", ("http", "8.8.8.8", 80, "/")),
    ("http://xn--mnchen-3ya.de/%C3%BC//b/../c", ("http", "xn--mnchen-3ya.de", 80, "/%C3%BC//b/../c")),
]


@pytest.mark.parametrize(("location", "parts"), READ)
def test_a_plain_url_is_taken_apart(location: str, parts: tuple[str, str, int, str]) -> None:
    """Scheme and host are made canonical, path and query are kept to the byte."""
    place = allowlist.parse(location)
    assert (place.scheme, place.host, place.port, place.target) == parts


REFUSED = [
    "", "/a.jpg", "//example.com/", "example.com/a.jpg", "ftp://example.com/", "file:///etc/passwd", "gopher://a.b/",
    "data:image/png;base64,AA", "https:/example.com/", "https:example.com", "http:///a", "http://", "http://:80/",
    "http://user@example.com/", "http://user:pw@example.com/", "http://@example.com/", "http://a.b@c.d@e.f/",
    "http://example.com\\@127.0.0.1/", "http://example.com\\.other.com/", "http://exa mple.com/", "http://example.com/\x00",
    "http://example.com/a b", "http://example.com/\n", "http://example.com/ü", "http://münchen.de/", "http://１２７.0.0.1/",
    "http://127。0。0。1/", "http://①②⑦.⓪.⓪.①/", "http://%31%32%37.0.0.1/", "http://127.0.0.1%00/", "http://exam%70le.com/",
    "http://2130706433/", "http://0x7f000001/", "http://0X7F.1/", "http://017700000001/", "http://0177.0.0.1/",
    "http://127.1/", "http://127.0.1/", "http://0/", "http://127.0.0.01/", "http://127.0.0.256/", "http://127.0.0.1.1/",
    "http://a.0x7f/", "http://a.1/", "http://a.0x/", "http://example..com/", "http://.example.com/", "http://example.com../",
    "http://./", "http://../", "http://[::1/", "http://::1/", "http://[::1]a/", "http://[fe80::1%25lo]/", "http://[::1%lo]/",
    "http://[v1.x]/", "http://[127.0.0.1]/", "http://[::12345]/", "http://example.com:0/", "http://example.com:65536/",
    "http://example.com:080/", "http://example.com:8a/", "http://example.com:-1/", "http://example.com:80:80/",
    "http://" + "a" * 64 + ".com/", "http://" + "a." * 127 + "com/", "http://example.com/" + "a" * 9000, "http://a,b/",
    "http://example.com\t/", "\thttp://example.com/", " http://example.com/", "http://a;b/", "http://(a)/", "http://a*b/",
]  # fmt: skip


@pytest.mark.parametrize("location", REFUSED)
def test_what_parsers_disagree_on_is_refused(location: str) -> None:
    """Other schemes, credentials, odd spellings of addresses and hosts that are no plain ASCII never get further."""
    with pytest.raises(Denied):
        allowlist.parse(location)


HOSTS = st.from_regex(r"[a-z0-9._\[\]:@%\\/?#-]{1,30}", fullmatch=True)


@given(HOSTS, st.from_regex(r"[!-~]{0,20}", fullmatch=True))
def test_other_parsers_read_what_is_accepted_alike(authority: str, rest: str) -> None:
    """The client's URL type and the standard library see the same host, port and target as this parser."""
    try:
        place = allowlist.parse(f"http://{authority}/{rest}")
    except Denied:
        return
    url = URL(place.location, encoded=True)
    assert (url.host, url.port) == (place.host, place.port)
    parts = urlsplit(place.location)
    assert (parts.hostname, parts.port or 80) == (place.host, place.port)
    assert allowlist.parse(place.location) == place


RULES = [
    # allowed origins, URL, permission
    ((), "http://example.com/", Permission.REFUSED),
    (("example.com",), "http://example.com/", Permission.NAMED),
    (("example.com",), "https://example.com/", Permission.NAMED),
    (("example.com",), "http://example.com:443/", Permission.NAMED),
    (("example.com",), "http://example.com:8080/", Permission.REFUSED),
    (("example.com",), "http://cdn.example.com/", Permission.PUBLIC),
    (("example.com",), "http://a.b.example.com/", Permission.PUBLIC),
    (("example.com",), "http://badexample.com/", Permission.REFUSED),
    (("example.com",), "http://example.com.evil.net/", Permission.REFUSED),
    (("example.com",), "http://com/", Permission.REFUSED),
    (("Example.COM.",), "http://example.com/", Permission.NAMED),
    (("example.com:8080",), "http://example.com:8080/", Permission.NAMED),
    (("example.com:8080",), "http://example.com/", Permission.REFUSED),
    (("example.com:8080",), "http://cdn.example.com:8080/", Permission.PUBLIC),
    (("example.com:*",), "http://example.com:1/", Permission.NAMED),
    (("example.com:*",), "http://cdn.example.com:65535/", Permission.PUBLIC),
    (("*",), "http://example.com/", Permission.PUBLIC),
    (("*",), "http://127.0.0.1/", Permission.PUBLIC),
    (("*",), "http://example.com:8080/", Permission.REFUSED),
    (("*", "example.com:8080"), "http://example.com/", Permission.PUBLIC),
    (("127.0.0.1:8080",), "http://127.0.0.1:8080/", Permission.NAMED),
    (("127.0.0.1:8080",), "http://[::ffff:127.0.0.1]:8080/", Permission.NAMED),
    (("127.0.0.1",), "http://127.0.0.2/", Permission.REFUSED),
    (("::1",), "http://[::1]/", Permission.NAMED),
    (("[::1]:81",), "http://[0:0::1]:81/", Permission.NAMED),
    (("[::1]:*",), "http://[::1]:9/", Permission.NAMED),
    (("http://example.com", "exa mple", "example.com/x"), "http://example.com/", Permission.REFUSED),
]


@pytest.mark.parametrize(("allowed", "location", "expected"), RULES)
def test_the_allow_list(allowed: tuple[str, ...], location: str, expected: Permission) -> None:
    """An entry opens its host on 80 and 443 or the ports it names, and subdomains only at public addresses."""
    place = allowlist.parse(location)
    assert allowlist.permission(place, tenant(*allowed)) == expected
    assert allowlist.is_allowed(place, tenant(*allowed)) == (expected is not Permission.REFUSED)


@pytest.mark.parametrize(
    "text",
    ["", "http://example.com", "example.com/x", "*.example.com", "*:80", "a b", "example.com:", "example.com:0",
     "example.com:99999", "example.com:80:*", "2130706433", "127.1", "münchen.de", "user@example.com", "[::1",
     "[x]:80"],
)  # fmt: skip
def test_a_line_that_can_not_be_meant_is_refused(text: str) -> None:
    """The configuration learns what to write instead."""
    with pytest.raises(ValueError, match="write a"):
        allowlist.parse_entry(text)


ROOT = allowlist.parse("http://photos.internal:8080/shop/")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("http://photos.internal:8080/other", Permission.NAMED),
        ("http://photos.internal/shop/a.jpg", Permission.REFUSED),
        ("http://cdn.photos.internal:8080/", Permission.REFUSED),
        ("http://elsewhere.example.com/", Permission.REFUSED),
    ],
)
def test_a_redirect_of_an_alias_stays_on_its_host(location: str, expected: Permission) -> None:
    """What an alias opens is its own host and port; for others the allow-list is asked."""
    assert allowlist.permission(allowlist.parse(location), tenant(), ROOT) == expected


def test_an_alias_may_step_up_to_https() -> None:
    """http on port 80 to https on port 443 of the same host is the same site, the way back is not."""
    plain, secure = allowlist.parse("http://a.example.com/x"), allowlist.parse("https://a.example.com/x")
    assert allowlist.permission(secure, tenant(), plain) == Permission.NAMED
    assert allowlist.permission(plain, tenant(), secure) == Permission.REFUSED


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("http://photos.internal:8080/shop/a.jpg", True),
        ("http://photos.internal:8080/shop/a..b/c.jpg", True),
        ("http://photos.internal:8080/shop/a.jpg?x=../..", True),
        ("http://photos.internal:8080/shopping/a.jpg", False),
        ("http://photos.internal:8080/shop", False),
        ("http://photos.internal:8080/shop/../secret", False),
        ("http://photos.internal:8080/shop/%2e%2E/secret", False),
        ("http://photos.internal:8080/shop/%2e%2e%2fsecret", False),
        ("http://photos.internal:8080/shop/..%5csecret", False),
        ("http://photos.internal:8080/shop/%252e%252e/secret", False),
        ("http://photos.internal:8080/shop/x/..", False),
        ("http://photos.internal/shop/a.jpg", False),
        ("https://photos.internal:8080/shop/a.jpg", False),
        ("http://other.internal:8080/shop/a.jpg", False),
    ],
)
def test_what_lies_beneath_an_alias(*, location: str, expected: bool) -> None:
    """An alias opens its folder; no dots lead out of it, encoded or not."""
    assert allowlist.is_beneath(allowlist.parse(location), ROOT) is expected


HERE = allowlist.parse("https://example.com:444/a/b.jpg?x")

REDIRECTS = [
    ("/c", "https://example.com:444/c"),
    ("c?y", "https://example.com:444/a/c?y"),
    ("../c", "https://example.com:444/c"),
    ("?z", "https://example.com:444/a/b.jpg?z"),
    ("//other.example/c#f", "https://other.example/c"),
    ("https://other.example", "https://other.example/"),
    (" https://other.example/ü b ", "https://other.example/%C3%BC%20b"),
    ("https://other.example/\udcff", "https://other.example/%FF"),
    ("/%2e%2F%C3%BC", "https://example.com:444/%2e%2F%C3%BC"),
]


@pytest.mark.parametrize(("header", "expected"), REDIRECTS)
def test_a_redirect_is_followed_as_the_standard_says(header: str, expected: str) -> None:
    """Relative references are resolved, bytes outside ASCII encoded, escapes left alone."""
    assert allowlist.follow(HERE, header).location == expected


@pytest.mark.parametrize(
    "header",
    ["http://example.com/", "http://example.com:444/c", "//user@example.com/", "ftp://example.com/", "file:///etc/passwd",
     "javascript:alert(1)", "//127.1/", "\\\\example.com/", "/\\example.com", "https://ｅxample.com/", "https://[::1",
     "\x01"],
)  # fmt: skip
def test_a_redirect_that_is_refused(header: str) -> None:
    """From https down to http, with credentials, to another scheme, or malformed."""
    with pytest.raises((Denied, OriginFailed)):
        allowlist.follow(HERE, header)
