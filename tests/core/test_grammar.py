"""A request target is read in one way: bounds, tolerance, precedence, and the server's own paths."""

import hashlib
from base64 import urlsafe_b64encode

import pytest

from imgserve.core import grammar
from imgserve.core.errors import BadRequest, Denied
from imgserve.core.plan import Mode, Plan
from imgserve.core.tenants import Signing, Tenant

TENANT = Tenant(
    name="demo",
    aliases={"_photos_": "file:///srv/photos"},
    presets={"thumb": "w=200&h=200&func=crop", "odd": "p=thumb&gray=1&v=7"},
)


def parse(target: str, tenant: Tenant = TENANT) -> grammar.ImageRequest:
    return grammar.parse(target, tenant)


@pytest.mark.parametrize(
    "query",
    [
        "?w=200&org_if_sml=1",
        "?&w=200&&org_if_sml=1&",
        "?org_if_sml=14629&width=200.0",
        "?w=100&w=200&org_if_sml=1",
        "?width=100&w=200&org_if_sml=1",
        "?w=200&org_if_sml=1&wat_url=http://a.example/b.png?c=d&unknown&=&==&%zz=%zz",
        "?w=+200+&org%5Fif%5Fsml=%31",
        "?w=200&org_if_sml=1&h=&q=&force_format=&ci_sign=x&ci_seal=y&ci_eqs=z",
        "?func=fit&w=200&gravity=north&org_if_sml=1&fit_enlarge=1",
    ],
)
def test_degenerate_and_unknown_parameters_change_nothing(query: str) -> None:
    """Empty pairs, repeats (the last counts), escapes, and what we do not know."""
    expected = Plan(width_px=200, may_enlarge=False)
    assert expected == parse("/v7/example.com/a.jpg" + query).plan


@pytest.mark.parametrize("query", ["", "?", "?&", "?&&=", "?x=1", "?w="])
def test_a_query_may_ask_for_nothing(query: str) -> None:
    """Then the plan is the one that changes nothing."""
    assert Plan() == parse("/example.com/a.jpg" + query).plan


def test_cache_busters_are_sorted_decoded_and_part_of_the_request() -> None:
    """Each by its own name; an empty one is none."""
    request = parse("/example.com/a.jpg?vh=a076ef&ts=1%2f2&v=&version=16.04.2020")
    assert (("ts", "1/2"), ("version", "16.04.2020"), ("vh", "a076ef")) == request.busters
    assert request != parse("/example.com/a.jpg?vh=other")


def test_a_preset_wins_over_the_url() -> None:
    """What the preset does not say stays the URL's; a preset in a preset is not followed."""
    request = parse("/example.com/a.jpg?p=thumb&w=400&q=50")
    assert Plan(width_px=200, height_px=200, mode=Mode.CROP, quality=50) == request.plan
    assert request.is_preset
    assert not parse("/example.com/a.jpg?w=200").is_preset
    odd = parse("/example.com/a.jpg?v=1&p=odd")
    assert (Plan(gray=True), (("v", "7"),)) == (odd.plan, odd.busters)


def test_whether_a_preset_was_used_does_not_make_requests_differ() -> None:
    """They mean the same, so they share one file."""
    assert parse("/example.com/a.jpg?p=thumb") == parse("/example.com/a.jpg?w=200&h=200")


def test_sealed_values_win_over_preset_and_url() -> None:
    """Sealed before preset before URL; without sealing ci_eqs is nothing."""
    eqs = urlsafe_b64encode(b"w=300&gray=1").decode().rstrip("=")
    seal = hashlib.sha1(f"/example.com/a.jpg{eqs}salt".encode()).hexdigest()
    sealing = Tenant(name="s", presets=TENANT.presets, signing=Signing(mode="seal", salts=("salt",)))
    target = f"/v7/example.com/a.jpg?p=thumb&w=400&h=400&q=50&ci_eqs={eqs}&ci_seal={seal}"
    expected = Plan(width_px=300, height_px=200, mode=Mode.CROP, quality=50, gray=True)
    assert expected == parse(target, sealing).plan
    assert Plan(width_px=200, height_px=200, mode=Mode.CROP, quality=50) == parse(target).plan


def test_a_tenant_that_signs_refuses_other_urls_but_knows_its_own_in_invalidations() -> None:
    """Unsigned is Denied; ``must_be_signed`` False reads it, with what is sealed in it."""
    signing = Tenant(name="s", signing=Signing(mode="sign", salts=("salt",)))
    sealing = Tenant(name="s", signing=Signing(mode="seal", salts=("salt",)))
    for tenant in (signing, sealing):
        with pytest.raises(Denied):
            parse("/example.com/a.jpg?w=300", tenant)
        request = grammar.parse("/example.com/a.jpg?w=300", tenant, must_be_signed=False)
        assert Plan(width_px=300) == request.plan
    eqs = urlsafe_b64encode(b"w=300").decode().rstrip("=")
    request = grammar.parse(f"/example.com/a.jpg?w=9&ci_eqs={eqs}", sealing, must_be_signed=False)
    assert Plan(width_px=300) == request.plan


def test_a_target_of_8190_characters_is_read_and_a_longer_one_refused() -> None:
    """The bound itself is allowed."""
    stem = "/example.com/"
    assert parse(stem + "a" * (8190 - len(stem))).original.location.endswith("a")
    with pytest.raises(BadRequest, match="8190"):
        parse(stem + "a" * (8191 - len(stem)))


def test_64_parameters_are_read_and_more_refused() -> None:
    """Unknown ones count, empty pairs do not; sealed queries and presets have the same bound."""
    assert Plan(width_px=64) == parse("/example.com/a?" + "&&".join(f"w={n}" for n in range(1, 65))).plan
    with pytest.raises(BadRequest, match="64"):
        parse("/example.com/a?" + "&".join("x=1" for _ in range(65)))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/?w=1",
        "",
        "/-/live",
        "/-/",
        "/-",
        "/-/options.json?x=1",
        "/%2D/live",
        "/robots.txt",
        "/robots%2Etxt?x",
        "/favicon.ico",
        "/.well-known/security.txt",
        "/.well-known",
    ],
)
def test_the_servers_own_paths_are_never_originals(path: str) -> None:
    """Neither by the rule nor by the parser, whatever prefix the tenant has."""
    assert grammar.is_reserved(path)
    with pytest.raises(BadRequest):
        parse(path, Tenant(name="t", origin_prefix="https://example.com/"))


@pytest.mark.parametrize(
    "path", ["/example.com/robots.txt", "/robots.txt/a", "/-a/b", "/v7/-/live", "/_photos_/-/a", "/.well-knownx"]
)
def test_other_paths_are_not_reserved(path: str) -> None:
    """Only whole first segments count."""
    assert not grammar.is_reserved(path)


def test_printing_an_original_whose_alias_is_gone_is_an_error() -> None:
    """There is no URL for it any more."""
    request = parse("/_photos_/a.jpg")
    with pytest.raises(ValueError, match="alias"):
        grammar.print_request(request, Tenant(name="demo"))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/_photos_/a%20b.jpg?h=2&w=1.0", "/v7/_photos_/a%20b.jpg?w=1&h=2&func=crop"),
        ("/example.com", "/v7/https://example.com/"),
        (
            "/example.com%2Fa%3Fb?ci_url_encoded=1&v=%26",
            "/v7/https%3A%2F%2Fexample.com%2Fa%3Fb?v=%26&ci_url_encoded=1",
        ),
    ],
)
def test_a_request_is_printed_in_its_canonical_target(target: str, expected: str) -> None:
    """Parameters in a fixed order, defaults left out but for func."""
    assert expected == grammar.print_request(parse(target), TENANT)
