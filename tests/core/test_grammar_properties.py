"""What holds for every URL: printing and reading are inverse, meaning decides, nothing else is raised."""

import hashlib
from random import Random
from string import ascii_letters, digits
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from imgserve.core import grammar, keys, plan
from imgserve.core.errors import BadRequest, ImgserveError, Misconfigured
from imgserve.core.options import OPTIONS
from imgserve.core.tenants import Signing, Tenant

TENANT = Tenant(
    name="demo",
    aliases={"_photos_": "file:///srv/photos", "_cdn_": "https://cdn.example.com/x", "_bad_": "s3://bucket"},
    presets={"thumb": "w=200&h=200"},
)
PREFIXED = Tenant(name="shop", origin_prefix="https://cdn.example.com/media", aliases={"_photos_": "file:///srv"})
SIGNED = Tenant(name="signed", signing=Signing(mode="sign", salts=("salt",)))
SEALED = Tenant(name="sealed", signing=Signing(mode="seal", salts=("salt",)))
SEVERAL = [TENANT, PREFIXED, SIGNED, SEALED]
TENANTS = st.sampled_from(SEVERAL)


def hasher(data: bytes) -> bytes:
    return hashlib.blake2b(data, key=b"test", digest_size=16).digest()


sizes = st.integers(1, 9000).map(str) | st.decimals(1, 9000, places=2).map(str)
points = st.tuples(st.integers(-5, 40), st.integers(-5, 40)).map(lambda point: f"{point[0]},{point[1]}")
corners = st.tuples(st.integers(50, 4000), st.integers(50, 4000)).map(lambda point: f"{point[0]},{point[1]}")
percents = st.tuples(st.decimals(0, 100, places=3), st.decimals(0, 100, places=3)).map(
    lambda point: f"{point[0]}p,{point[1]}p"
)
options = st.fixed_dictionaries(
    {},
    optional={
        "w": sizes,
        "h": sizes,
        "func": st.sampled_from(["crop", "fit", "bound", "cover"]),
        "gravity": st.sampled_from(["north", "southeast", "westnorth", "centre", "10,20.25"]) | percents,
        "org_if_sml": st.sampled_from(["0", "1", "false", "118130"]),
        "fit_enlarge": st.sampled_from(["0", "1"]),
        "dpr": st.sampled_from(["1", "1.5", "2.0", "0.5"]),
        "tl_px": points,
        "br_px": corners,
        "flip": st.sampled_from(["h", "v", "hv", "vh"]),
        "r": st.sampled_from(["0", "90", "180.0", "-90", "720"]),
        "bg_color": st.sampled_from(["fff", "0a0B0c", "#123456"]),
        "gray": st.sampled_from(["0", "1"]),
        "q": st.integers(1, 100).map(str),
        "force_format": st.lists(
            st.sampled_from(["jpg", "jpeg", "png", "webp", "_webp", "avif", "original"]), min_size=1, max_size=4
        ).map(",".join),
        "vh": st.text(max_size=20),
        "version": st.text(ascii_letters, max_size=20),
    },
)
segments = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4)
places = st.sampled_from(["https://example.com/", "http://b.example:8080/", "_photos_/", "_cdn_/", "c.example/"])


def target_of(place: str, path: list[str], pairs: dict[str, str]) -> str:
    query = "&".join(f"{name}={quote(value, safe=',')}" for name, value in pairs.items())
    return f"/v7/{place}" + "/".join(quote(segment, safe="") for segment in path) + "?" + query


@given(place=places, path=segments, pairs=options, query=st.text(ascii_letters + digits + "=&%/?\u00e4", max_size=9))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.filter_too_much])
@pytest.mark.parametrize("tenant", [TENANT, PREFIXED], ids=["aliases", "prefix"])
def test_reading_what_is_printed_gives_the_request_back(
    tenant: Tenant, place: str, path: list[str], pairs: dict[str, str], query: str
) -> None:
    """For all that can be read, encoded originals with queries included; and the print is canonical."""
    encoded = f"/{quote(place + '/'.join(map(quote, path)) + '?' + query, safe='')}?ci_url_encoded=1"
    for target in (target_of(place, path, pairs), encoded):
        try:
            request = grammar.parse(target, tenant)
        except BadRequest:
            continue
        printed = grammar.print_request(request, tenant)
        assert request == grammar.parse(printed, tenant)
        assert printed == grammar.print_request(grammar.parse(printed, tenant), tenant)
        assert printed.isascii()


SYNONYMS = {"w": "width", "h": "height", "r": "rotate", "gray": "grey", "bg_color": "bg_colour"}


@given(pairs=options, data=st.data())
@settings(deadline=None, max_examples=300)
def test_equal_meaning_gives_equal_plans_and_keys(pairs: dict[str, str], data: st.DataObject) -> None:
    """Order, synonyms, unknown parameters, empty values and encoded commas make no other file."""
    first = target_of("example.com/", ["a"], pairs)
    order = data.draw(st.permutations(list(pairs.items())))
    varied = [(data.draw(st.sampled_from([name, SYNONYMS.get(name, name)])), value) for name, value in order]
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in [*varied, ("utm_source", "x"), ("q2", "")])
    second = f"/EXAMPLE.com:443/%61?&{query}&"
    one, other = grammar.parse(first, TENANT), grammar.parse(second, TENANT)
    assert one == other
    assert keys.plan_key(hasher, one.plan, one.busters) == keys.plan_key(hasher, other.plan, other.busters)
    assert plan.encode(one.plan) == plan.encode(other.plan)


DEFAULTS = {
    "func": "crop",
    "gravity": "center",
    "org_if_sml": "0",
    "fit_enlarge": "false",
    "dpr": "1.0",
    "tl_px": "0,0",
    "r": "360",
    "gray": "0",
    "force_format": "auto",
}


@given(pairs=options)
@settings(deadline=None)
def test_saying_a_default_is_saying_nothing(pairs: dict[str, str]) -> None:
    """Each documented default may be left out."""
    bare = grammar.parse(target_of("example.com/", ["a"], pairs), TENANT)
    full = grammar.parse(target_of("example.com/", ["a"], DEFAULTS | pairs), TENANT)
    assert bare == full


@given(one=options, other=options)
@settings(deadline=None)
def test_different_plans_have_different_bytes(one: dict[str, str], other: dict[str, str]) -> None:
    """The encoding forgets nothing."""
    first = grammar.parse(target_of("example.com/", ["a"], one), TENANT).plan
    second = grammar.parse(target_of("example.com/", ["a"], other), TENANT).plan
    assume(first != second)
    assert plan.encode(first) != plan.encode(second)


NAMES = [option.name for option in OPTIONS]
FRAGMENTS = [
    *("/", "//", ".", "..", "%2e", "%2F", "%25", "%00", "%", "\\", "@", ":", "?", "&", "=", "#", "-", ",", "p"),
    *("_photos_", "_cdn_", "_bad_", "https:/", "http://", "v7/", "[::1]", "a.example", "127.1", "xn--"),
    *("\u00e4", "\udc80", "\ud800", "\u0663", "\u3002", "1", "-1", "1e9", "nan"),
    *("ci_url_encoded=1", "ci_eqs=", "ci_seal="),
]
mixed = st.lists(st.sampled_from([*FRAGMENTS, *NAMES]) | st.text(max_size=5), max_size=14).map("".join)
targets = st.text(max_size=60) | mixed | mixed.map(lambda text: "/" + text) | mixed.map(lambda text: "/a.io/x?" + text)


@given(target=targets, tenant=TENANTS)
@settings(deadline=None, max_examples=1000, suppress_health_check=list(HealthCheck))
@example(target="/_bad_/a", tenant=TENANT)
@example(target="/a.io/\ud800?ci_sign=aaaaaaaaaaaaaaaaaaaa", tenant=SIGNED)
@example(target="/a.io/?ci_eqs=\ud800&ci_seal=aaaaaaaaaaaaaaaaaaaa", tenant=SEALED)
def test_whatever_the_target_only_errors_of_ours_are_raised(target: str, tenant: Tenant) -> None:
    """Arbitrary text: a request, or one of our errors with a one-line public text."""
    assert_read_or_refused(target, tenant)


def test_ten_thousand_targets_of_the_worst_pieces_are_read_or_refused() -> None:
    """The same for many more, drawn with a fixed seed from what parsers stumble over."""
    draw = Random(2616)
    pieces = [*FRAGMENTS, *NAMES, "a", "b.c", " ", "\x85", "%c3%a4", "%252e"]
    for _ in range(10_000):
        start = draw.choice(["", "/", "/", "/v7/", "/a.io/", "/a.io/x?", "/_photos_/", "/https:/"])
        target = start + "".join(draw.choices(pieces, k=draw.randrange(12)))
        assert_read_or_refused(target, draw.choice(SEVERAL))


def assert_read_or_refused(target: str, tenant: Tenant) -> None:
    """Read one target, and look at what came out."""
    try:
        request = grammar.parse(target, tenant)
    except ImgserveError as error:
        public = error.public
        is_our_fault = isinstance(error, Misconfigured)
    else:
        public, is_our_fault = "", False
        location = request.original.location
        assert location.isascii()
        assert location.startswith(("https://", "http://", "file:///srv/"))
        assert location.startswith(request.original.root)
        assert not {".", ".."} & set(location.split("?")[0].split("/"))
    assert public.isprintable()
    assert not is_our_fault or "_bad_" in unquote(unquote(target))
