"""What an invalidation asks for and names."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgserve.core import invalidation
from imgserve.core.errors import BadRequest
from imgserve.core.invalidation import Entry, Progress, Rule, Scope, State
from imgserve.core.originals import ImageId, PlanKey
from imgserve.core.tenants import Tenant

TENANT = Tenant(name="demo", hosts=("img.example.com", "[::1]:8080"))


@pytest.mark.parametrize(
    ("body", "scope", "urls"),
    [
        ({"scope": "all"}, Scope.ALL, ()),
        ({"scope": "all", "urls": []}, Scope.ALL, ()),
        ({"scope": "all", "urls": None}, Scope.ALL, ()),
        ({"scope": "original", "urls": ["/a.li/b.jpg", "a.li/c.jpg"]}, Scope.ORIGINAL, ("/a.li/b.jpg", "a.li/c.jpg")),
        (
            {"scope": "original", "urls": ["/a.li%2Fb.jpg?ci_url_encoded=1"]},
            Scope.ORIGINAL,
            ("/a.li%2Fb.jpg?ci_url_encoded=1",),
        ),
        ({"scope": "original", "urls": ["/a.li/b.jpg?"]}, Scope.ORIGINAL, ("/a.li/b.jpg?",)),
        ({"scope": "urls", "urls": ["/a.li/b.jpg?w=1"] * 3}, Scope.URLS, ("/a.li/b.jpg?w=1",)),
        (
            {"scope": "urls", "urls": [f"/a.li/{n}.jpg" for n in range(100)]},
            Scope.URLS,
            tuple(f"/a.li/{n}.jpg" for n in range(100)),
        ),
    ],
)
def test_bodies_that_are_understood(body: Any, scope: Scope, urls: tuple[str, ...]) -> None:
    """Cloudimage's bodies; the same URL twice counts once."""
    assert invalidation.Request(scope=scope, urls=urls) == invalidation.parse(body)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (None, "object"),
        ([], "object"),
        ("all", "object"),
        (7, "object"),
        ({}, "scope"),
        ({"scope": 1}, "scope"),
        ({"scope": "everything"}, "original"),
        ({"scope": "ALL"}, "original"),
        ({"scope": "original"}, "100"),
        ({"scope": "urls", "urls": []}, "100"),
        ({"scope": "urls", "urls": [f"/a.li/{n}.jpg" for n in range(101)]}, "100"),
        ({"scope": "urls", "urls": "/a.li/b.jpg"}, "list"),
        ({"scope": "urls", "urls": [1]}, "list"),
        ({"scope": "urls", "urls": [None]}, "list"),
        ({"scope": "all", "urls": ["/a.li/b.jpg"]}, "Leave"),
        ({"scope": "original", "urls": ["/a.li/*"]}, "wildcards"),
        ({"scope": "urls", "urls": ["/a.li/b.jpg?*"]}, "wildcards"),
        ({"scope": "original", "urls": ["/a.li/b.jpg"], "transformations": ["?w=200"]}, "transformations"),
        ({"scope": "all", "erase": True}, "only"),
        ({"scope": "all", 1: 2}, "only"),
        ({"scope": "original", "urls": ["/a.li/b.jpg?w=200"]}, "query"),
        ({"scope": "original", "urls": ["/a.li/b.jpg?ci_url_encoded=1&w=2"]}, "query"),
        ({"scope": "urls", "urls": [""]}, "characters"),
        ({"scope": "urls", "urls": ["/" + "a" * 4_096]}, "characters"),
        ({"scope": "urls", "urls": ["/a.li/b.jpg", "/a.li/\0.jpg"]}, "urls[1]"),
        ({"scope": "urls", "urls": ["/a.li/b\r\n.jpg"]}, "control"),
    ],
)
def test_bodies_that_are_refused(body: Any, word: str) -> None:
    """One sentence for each, which says what to change; nothing that was asked for is left out in silence."""
    with pytest.raises(BadRequest) as caught:
        invalidation.parse(body)

    assert word in caught.value.public
    assert 1 == len(caught.value.public.splitlines())


JSON: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["scope", "urls", "x"]) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_body_is_a_fault(body: object) -> None:
    """Any JSON at all is a request or a BadRequest."""
    try:
        request = invalidation.parse(body)
    except BadRequest:
        return
    assert (request.scope is Scope.ALL) == (not request.urls)


@pytest.mark.parametrize(
    ("url", "targets"),
    [
        ("/a.li/b.jpg", ("/a.li/b.jpg",)),
        ("a.li/b.jpg", ("/a.li/b.jpg",)),
        (" a.li/b.jpg ", ("/a.li/b.jpg",)),
        ("/v7/a.li/b.jpg?w=1", ("/v7/a.li/b.jpg?w=1",)),
        ("v7/a.li/b.jpg", ("/v7/a.li/b.jpg",)),
        ("_photos_/b.jpg", ("/_photos_/b.jpg",)),
        ("https://a.li/b.jpg", ("/https://a.li/b.jpg",)),
        ("/https://a.li/b.jpg", ("/https://a.li/b.jpg",)),
        ("HTTP:/a.li/b.jpg", ("/HTTP:/a.li/b.jpg",)),
        ("https://IMG.example.com:443/v7/https://a.li/b.jpg?w=1", ("/v7/https://a.li/b.jpg?w=1",)),
        ("http://img.example.com./_photos_/b.jpg", ("/_photos_/b.jpg",)),
        ("http://[::1]:8080/a.li/b.jpg", ("/a.li/b.jpg",)),
        ("https://img.example.com", ("/",)),
        ("https://other.example/v7/a.li/b.jpg?w=1", ("/https://other.example/v7/a.li/b.jpg?w=1", "/v7/a.li/b.jpg?w=1")),
        ("/a.li/Grüße 1.jpg#top", ("/a.li/Gr%C3%BC%C3%9Fe%201.jpg",)),
        ("/a.li/%20b.jpg", ("/a.li/%20b.jpg",)),
    ],
)
def test_spellings_of_one_image(url: str, targets: tuple[str, ...]) -> None:
    """With and without slash and version, by alias, whole, as the original's URL or as our own."""
    assert targets == invalidation.targets(url, TENANT)


@given(st.text(min_size=1, max_size=40))
def test_every_spelling_gives_a_request_target(url: str) -> None:
    """Each reading begins with a slash and is plain ASCII, as a request line holds it."""
    readings = invalidation.targets(url, TENANT)

    assert readings
    assert all(target.startswith("/") and target.isascii() and " " not in target for target in readings)


THIS, OTHER = ImageId("a" * 16), ImageId("b" * 16)
PLAN, ANOTHER = PlanKey("p" * 26), PlanKey("q" * 26)
MATRIX = [
    (Rule(), "v-" + PLAN + ".webp", True),
    (Rule(), "o-main", True),
    (Rule(image_id=THIS), "v-" + PLAN + ".webp", True),
    (Rule(image_id=THIS), "o-main", True),
    (Rule(image_id=THIS), "o-abcdefghijklmnop", True),
    (Rule(image_id=OTHER), "v-" + PLAN + ".webp", False),
    (Rule(image_id=OTHER), "o-main", False),
    (Rule(image_id=THIS, plan_key=PLAN), "v-" + PLAN + ".webp", True),
    (Rule(image_id=THIS, plan_key=PLAN), "v-" + PLAN + ".any", True),
    (Rule(image_id=THIS, plan_key=ANOTHER), "v-" + PLAN + ".webp", False),
    (Rule(image_id=THIS, plan_key=PLAN), "o-main", True),
    (Rule(image_id=THIS, plan_key=PLAN), "o-abcdefghijklmnop", True),
    (Rule(image_id=OTHER, plan_key=PLAN), "v-" + PLAN + ".webp", False),
]


@pytest.mark.parametrize(("rule", "name", "is_named"), MATRIX)
def test_what_a_rule_names(rule: Rule, name: str, is_named: bool) -> None:  # noqa: FBT001
    """All of the tenant, an image with its originals, or one variant in all its accept classes with the originals."""
    assert is_named == invalidation.names(rule, THIS, name)


def test_the_receipt_is_cloudimages() -> None:
    """The words and the time format that its clients expect."""
    entry = Entry(tenant="demo", uuid="u", at_us=1_795_435_200_000_042, scope=Scope.ALL, rules=(Rule(),))

    assert {
        "status": "success",
        "msg": "Your invalidation request has been received",
        "invalidation": {"status": "RECEIVED", "uuid": "u", "added_at": "2026-11-23 12:00:00.000042"},
    } == invalidation.receipt(entry)


def test_a_report_speaks_of_each_target() -> None:
    """Status, and what was removed."""
    progress = Progress(uuid="u", at_us=0, state=State.DONE, removed_files=3, removed_bytes=99)

    assert [{"target": "node-1", "status": "done", "removed_files": 3, "removed_bytes": 99}] == invalidation.report(
        progress, "node-1"
    )["invalidation"]["targets"]  # type: ignore[index]
