"""An original has one spelling, and no URL leads out of where it may lead."""

import pytest

from imgserve.core import grammar, locations
from imgserve.core.errors import BadRequest, Misconfigured
from imgserve.core.originals import Original
from imgserve.core.tenants import Tenant

TENANT = Tenant(
    name="demo",
    aliases={
        "_photos_": "file:///srv/my photos",
        "_cdn_": "https://CDN.example.com/pre",
        "_b.io_": "http://b.io:8080",
        "_demo_": "https://one.example",
        "_demo_one_": "https://two.example",
    },
)
PREFIXED = Tenant(name="shop", origin_prefix="http://127.0.0.1:9000/media", aliases={"_photos_": "file:///srv/photos"})


def original_of(target: str, tenant: Tenant = TENANT) -> Original:
    return grammar.parse(target, tenant).original


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v7/https://example.com/a.jpg", "https://example.com/a.jpg"),
        ("/https://example.com/a.jpg", "https://example.com/a.jpg"),
        ("/v7/http://example.com/a.jpg", "http://example.com/a.jpg"),
        ("/v7/https:/example.com/a.jpg", "https://example.com/a.jpg"),
        ("/HTTPS://Example.COM./a.jpg", "https://example.com/a.jpg"),
        ("/example.com/a.jpg", "https://example.com/a.jpg"),
        ("/v7/example.com:8443/a.jpg", "https://example.com:8443/a.jpg"),
        ("/https://example.com:443/a.jpg", "https://example.com/a.jpg"),
        ("/http://example.com:080/a.jpg", "http://example.com/a.jpg"),
        ("/http://example.com:443/a.jpg", "http://example.com:443/a.jpg"),
        ("/https://example.com:/a.jpg", "https://example.com/a.jpg"),
        ("/https://example.com", "https://example.com/"),
        ("/example.com", "https://example.com/"),
        ("/https://[2001:DB8::0001]:8080/a", "https://[2001:db8::1]:8080/a"),
        ("/http://127.0.0.1:9000/a.jpg", "http://127.0.0.1:9000/a.jpg"),
        ("/https://b\u00fccher.example/a.jpg", "https://xn--bcher-kva.example/a.jpg"),
        ("/https://b%C3%BCcher.example/a.jpg", "https://xn--bcher-kva.example/a.jpg"),
        ("/https://stra\u00dfe.example/a.jpg", "https://xn--strae-oqa.example/a.jpg"),
        ("/https://my_bucket.example/a.jpg", "https://my_bucket.example/a.jpg"),
        ("/example.com/%7euser/%41b%2fc%e4.jpg", "https://example.com/~user/Ab%2Fc%E4.jpg"),
        ("/example.com/\u00e4 b.jpg", "https://example.com/%C3%A4%20b.jpg"),
        ("/example.com/a.jpg?x=1&w=20", "https://example.com/a.jpg"),
        ("/example.com/a%3Fx=1.jpg", "https://example.com/a%3Fx=1.jpg"),
        ("/example.com/a%23b.jpg", "https://example.com/a%23b.jpg"),
        ("/example.com/a//b.jpg", "https://example.com/a//b.jpg"),
        ("/example.com/a%2C,+%2B'(1).jpg", "https://example.com/a%2C,+%2B'(1).jpg"),
        ("/example.com/...jpg/.hidden/a..b", "https://example.com/...jpg/.hidden/a..b"),
        ("/v7/v7.example/a.jpg", "https://v7.example/a.jpg"),
        ("/sample.li%2Fboat.jpg%3Fw%3D22?ci_url_encoded=1&w=450", "https://sample.li/boat.jpg?w=22"),
        ("/https%3A%2F%2Fsample.li%2Fa%2520b.jpg?ci_url_encoded=1", "https://sample.li/a%20b.jpg"),
        ("/https%3A%2Fsample.li%2Fa%20b.jpg%3F?ci_url_encoded=1", "https://sample.li/a%20b.jpg"),
        ("/https://sample.li/a.jpg%3Fr%3D%C3%A4?ci_url_encoded=1", "https://sample.li/a.jpg?r=%C3%A4"),
    ],
)
def test_an_original_has_one_canonical_location(target: str, expected: str) -> None:
    """Scheme, host, port, escapes and query come out in normal form; the allow-list is to be asked."""
    assert Original(location=expected) == original_of(target)


def test_the_scheme_of_an_original_without_one_is_the_tenants() -> None:
    """``origin_scheme`` counts there, and only there."""
    tenant = Tenant(name="old", origin_scheme="http")
    assert "http://example.com/a.jpg" == original_of("/example.com/a.jpg", tenant).location
    assert "https://example.com/a.jpg" == original_of("/https://example.com/a.jpg", tenant).location


@pytest.mark.parametrize(
    ("target", "root", "rest"),
    [
        ("/_photos_/a%20b.jpg", "file:///srv/my%20photos/", "a%20b.jpg"),
        ("/v7/_photos_//deep///a.jpg", "file:///srv/my%20photos/", "deep/a.jpg"),
        ("/%5Fphotos%5f/a.jpg", "file:///srv/my%20photos/", "a.jpg"),
        ("/_photos_%2Fa.jpg?ci_url_encoded=1", "file:///srv/my%20photos/", "a.jpg"),
        ("/_cdn_/uuid/uuid", "https://cdn.example.com/pre/", "uuid/uuid"),
        ("/_cdn_%2Fa.jpg%3Fx%3D1?ci_url_encoded=1", "https://cdn.example.com/pre/", "a.jpg?x=1"),
        ("/_cdn_/https://evil.example/a.jpg", "https://cdn.example.com/pre/", "https://evil.example/a.jpg"),
        ("/_cdn_/@evil.example/a.jpg", "https://cdn.example.com/pre/", "@evil.example/a.jpg"),
        ("/_cdn_", "https://cdn.example.com/pre/", ""),
        ("/_b.io_/a.jpg", "http://b.io:8080/", "a.jpg"),
        ("/_demo_one_/a.jpg", "https://two.example/", "a.jpg"),
        ("/_demo_/one_/a.jpg", "https://one.example/", "one_/a.jpg"),
    ],
)
def test_an_alias_is_a_whole_first_segment_and_allowed_by_itself(target: str, root: str, rest: str) -> None:
    """Its target becomes the root, whatever follows; a longer alias is never shadowed by a shorter one."""
    assert Original(location=root + rest, root=root, by_alias=True) == original_of(target)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/photos/paris.jpg", Original(location="http://127.0.0.1:9000/media/photos/paris.jpg")),
        ("/example.com/a.jpg", Original(location="http://127.0.0.1:9000/media/example.com/a.jpg")),
        ("/_other_/a.jpg", Original(location="http://127.0.0.1:9000/media/_other_/a.jpg")),
        ("/v7/-/a.jpg", Original(location="http://127.0.0.1:9000/media/-/a.jpg")),
        ("/v7/v7/a.jpg", Original(location="http://127.0.0.1:9000/media/v7/a.jpg")),
    ],
)
def test_all_but_urls_and_aliases_lies_under_the_prefix(target: str, expected: Original) -> None:
    """The prefix is the tenant's own word, like an alias."""
    root = "http://127.0.0.1:9000/media/"
    assert Original(location=expected.location, root=root, by_alias=True) == original_of(target, PREFIXED)


def test_urls_and_aliases_do_not_lie_under_the_prefix() -> None:
    """``https?:/`` and aliases keep their meaning."""
    assert Original(location="https://example.com/a.jpg") == original_of("/https:/example.com/a.jpg", PREFIXED)
    assert Original(location="https://example.com/a.jpg") == original_of("/%68ttps://example.com/a.jpg", PREFIXED)
    assert "file:///srv/photos/" == original_of("/_photos_/a.jpg", PREFIXED).root


@pytest.mark.parametrize(
    "target",
    [
        "/photos/a.jpg",
        "/localhost/a.jpg",
        "/_unknown_/a.jpg",
        "/v7",
        "/v7/",
        "/ftp://example.com/a.jpg",
        "/file:///etc/passwd",
        "//example.com/a.jpg",
    ],
)
def test_a_first_segment_without_a_dot_is_refused(target: str) -> None:
    """The text says what to write instead."""
    with pytest.raises(BadRequest, match=r"host with a dot|names no original"):
        original_of(target)


@pytest.mark.parametrize(
    "target",
    [
        # user information, fragments, other targets than origin-form
        "/https://user@example.com/a.jpg",
        "/https://user:pw@example.com/a.jpg",
        "/user@example.com/a.jpg",
        "/https://user%40example.com/a.jpg",
        "/https%3A%2F%2Fuser%40example.com%2Fa.jpg?ci_url_encoded=1",
        "/example.com/a.jpg#x",
        "/example.com%2Fa.jpg%23x?ci_url_encoded=1",
        "https://example.com/a.jpg",
        "xexample.com/a.jpg",
        "*",
        "",
        # bytes that no URL may hold
        "/example.com/a\x00.jpg",
        "/example.com/a\n.jpg",
        "/example.com/a\x7f.jpg",
        "/example.com/a\\b.jpg",
        "/example.com/a%00.jpg",
        "/example.com/a%0D.jpg",
        "/example.com/a%7F.jpg",
        "/example.com/a%5cb.jpg",
        "/example.com/a%255cb.jpg",
        "/example.com/a%2500.jpg",
        "/example.com/\ud800.jpg",
        "/example.com%2Fa.jpg%3Fx%3D%00?ci_url_encoded=1",
        # escapes
        "/example.com/a%.jpg",
        "/example.com/a%zz.jpg",
        "/example.com/a%4",
        "/example.com%2Fa%25zz.jpg?ci_url_encoded=1",
        "/example.com%2Fa%zz.jpg?ci_url_encoded=1",
        "/example.com%2Fa%%341.jpg?ci_url_encoded=1",
        "/sample.li%2Fboat.jpg",
        "/https%3A%2F%2Fsample.li%2Fboat.jpg",
        # dot segments, encoded up to four times and more
        "/example.com/../a.jpg",
        "/example.com/a/..",
        "/example.com/./a.jpg",
        "/example.com/%2e%2E/a.jpg",
        "/example.com/.%2e/a.jpg",
        "/example.com/..%2fa.jpg",
        "/example.com/%252e%252e/a.jpg",
        "/example.com/%25252e%25252e%252fa.jpg",
        "/example.com/%2525252525252e.jpg",
        "/example.com%2F..%2Fa.jpg?ci_url_encoded=1",
        "/_photos_/../../etc/passwd",
        "/_photos_/..",
        "/_photos_/%2e%2e/etc/passwd",
        "/_photos_/%252e%252e/etc/passwd",
        "/_photos_/%2e%2e%2fetc%2fpasswd",
        "/_photos_/a%2fb.jpg",
        "/_photos_/..%5cetc",
        "/_photos_/..%255cetc",
        "/_photos_%2F..%2Fetc%2Fpasswd?ci_url_encoded=1",
        "/_photos_%2F%252e%252e%2Fetc?ci_url_encoded=1",
        "/_photos_/",
        "/_photos_",
        "/_photos_/folder/",
        "/_photos_%2Fa.jpg%3Fx=1?ci_url_encoded=1",
        # hosts and ports
        "/https:///a.jpg",
        "/https://",
        "/https://exa mple.com/a.jpg",
        "/https://exa<mple.com/a.jpg",
        "/https://-%00.com/a.jpg",
        "/https://a..b/a.jpg",
        "/https://.b/a.jpg",
        "/https://" + "a" * 64 + ".com/a.jpg",
        "/https://" + "a." * 130 + "com/a.jpg",
        "/https://example.com:0/a.jpg",
        "/https://example.com:65536/a.jpg",
        "/https://example.com:8a/a.jpg",
        "/https://example.com:80:80/a.jpg",
        "/https://[::1/a.jpg",
        "/https://[::1%25eth0]/a.jpg",
        "/https://[::1]x/a.jpg",
        "/https://[nonsense]/a.jpg",
        "/https://xn--a/a.jpg",
        "/https://a\u2044b.example/a.jpg",
        "/https://%ff.example/a.jpg",
        # addresses in spellings that only some readers take for addresses
        "/https://127.1/a.jpg",
        "/https://0x7f.0.0.1/a.jpg",
        "/https://0177.0.0.1/a.jpg",
        "/https://2130706433/a.jpg",
        "/https://0x7f000001/a.jpg",
        "/https://1.2.3.4.5/a.jpg",
        "/https://example.256/a.jpg",
    ],
)
def test_what_is_ambiguous_or_leads_elsewhere_is_refused(target: str) -> None:
    """Always a BadRequest with a sentence, never another original."""
    with pytest.raises(BadRequest) as caught:
        original_of(target)
    assert caught.value.public.endswith(".")


@pytest.mark.parametrize("target", ["/https://user@example.com/a.jpg", "/user:pw@example.com/a.jpg"])
def test_user_information_is_refused_by_name(target: str) -> None:
    """The sentence says what is not allowed, and repeats nothing of it."""
    with pytest.raises(BadRequest, match="user name or password") as caught:
        original_of(target)
    assert "pw" not in caught.value.public


def test_digits_of_other_scripts_are_the_address_they_look_like() -> None:
    """Full-width digits and dots become ASCII before the host is judged."""
    assert "https://127.0.0.1/a" == original_of("/https://\uff11\uff12\uff17\u3002\uff10\uff0e0.1/a").location


def test_dot_segments_are_refused_under_an_http_alias_and_a_prefix_too() -> None:
    """Neither can be left upwards."""
    for target, tenant in (("/_cdn_/../x", TENANT), ("/a/%2e%2e/%252e./x", PREFIXED), ("/../x", PREFIXED)):
        with pytest.raises(BadRequest):
            original_of(target, tenant)


@pytest.mark.parametrize(
    "tenant",
    [
        Tenant(name="t", aliases={"photos": "file:///srv"}),
        Tenant(name="t", aliases={"_photos": "file:///srv"}),
        Tenant(name="t", aliases={"__": "file:///srv"}),
        Tenant(name="t", aliases={"_a/b_": "file:///srv"}),
        Tenant(name="t", aliases={"_a_": "s3://bucket"}),
        Tenant(name="t", aliases={"_a_": "file://host/srv"}),
        Tenant(name="t", aliases={"_a_": "file:///srv/../etc"}),
        Tenant(name="t", aliases={"_a_": "https://example.com/?x="}),
        Tenant(name="t", aliases={"_a_": ""}),
        Tenant(name="t", origin_prefix="https://user@example.com/"),
        Tenant(name="t", presets={"thumb": "w=none"}),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(tenant: Tenant) -> None:
    """``check`` says which key of which tenant."""
    with pytest.raises(Misconfigured) as caught:
        grammar.check(tenant)
    assert caught.value.key.startswith("tenants.t.")


def test_a_usable_configuration_passes() -> None:
    """Folders, hosts with paths, and prefixes with or without scheme."""
    grammar.check(TENANT)
    grammar.check(PREFIXED)
    grammar.check(Tenant(name="t", origin_prefix="example.com/photos", presets={"thumb": "?w=20&h=20"}))


def test_an_alias_that_cannot_be_used_fails_as_misconfigured() -> None:
    """Not as the visitor's mistake."""
    with pytest.raises(Misconfigured):
        original_of("/_a_/x.jpg", Tenant(name="t", aliases={"_a_": "s3://bucket"}))


def test_a_url_in_canonical_form_stays_as_it_is() -> None:
    """Also with a query; a fragment goes."""
    assert "https://a.example/b?c=%20" == locations.canonical_url("https://a.example/b?c=%20")
    assert "https://a.example/b?c" == locations.canonical_url("https://a.example/b?c#d")
    with pytest.raises(BadRequest):
        locations.canonical_url("ftp://a.example/b")
