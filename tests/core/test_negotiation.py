"""The format follows the requester's wish, then ours; a class of answers never hides a difference."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgserve.core import negotiation
from imgserve.core.keys import ACCEPT_CLASSES
from imgserve.core.negotiation import Choice

CHROME = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
FIREFOX = "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"
SAFARI = "image/webp,image/avif,image/jxl,image/heic,video/*;q=0.8,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"
OLD_SAFARI = "image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5"
PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"
AVIF = ("avif", "webp", "plain")


@pytest.mark.parametrize(
    ("header", "formats", "accept_class"),
    [
        (CHROME, AVIF, "avif"),
        (FIREFOX, AVIF, "avif"),
        (SAFARI, AVIF, "avif"),
        (PAGE, AVIF, "avif"),
        (OLD_SAFARI, ("plain",), "plain"),
        ("*/*", ("plain",), "plain"),
        ("image/*", ("plain",), "plain"),
        (None, ("plain",), "plain"),
        ("", ("plain",), "plain"),
        ("text/html", ("plain",), "plain"),
        ("image/jxl", ("plain",), "plain"),
        ("image/webp", ("webp",), "webp"),
        ("image/webp,*/*", ("webp",), "webp"),
        ("IMAGE/WEBP ; Q=0.5", ("webp",), "webp"),
        ("image/avif", ("avif", "plain"), "avifonly"),
        ("image/avif,image/webp;q=0", ("avif", "plain"), "avifonly"),
        ("image/avif;q=0,image/webp", ("webp",), "webp"),
        ("image/avif;q=0.5,image/webp;q=0.9", ("webp",), "webp"),
        ("image/avif;q=0.9,image/webp;q=0.9", AVIF, "avif"),
        ("image/avif;q=0.8,image/webp;q=0.8,*/*;q=0.9", ("plain",), "plain"),
        ("image/webp;q=0.5,image/jpeg", ("jpeg",), "jpeg"),
        ("image/jpeg", ("jpeg",), "jpeg"),
        ("image/png", ("png",), "png"),
        ("image/jpeg,image/png", ("plain",), "plain"),
        ("image/*,image/png;q=0", ("jpeg",), "jpeg"),
        ("*/*,image/jpeg;q=0", ("png",), "png"),
        ("*/*;q=0", ("plain",), "plain"),
        ("image/*;q=0,*/*", ("plain",), "plain"),
        ("image/webp;q=nonsense,*/*", ("plain",), "plain"),
        ("image/webp;q=2,image/png", ("png",), "png"),
        ("image/webp;q=.5", ("webp",), "webp"),
        ("image/webp;q=1.000;x=y", ("webp",), "webp"),
        (";;,,=;q=,image/webp,q=1", ("webp",), "webp"),
    ],
)
def test_the_format_is_the_requesters_wish_then_ours(
    header: str | None, formats: tuple[str, ...], accept_class: str
) -> None:
    """The highest q decides, equal q means AVIF, WebP, plain; wildcards stand for neither AVIF nor WebP."""
    assert Choice(formats=formats, accept_class=accept_class, varies=True) == negotiation.choose((), header)


@pytest.mark.parametrize(
    ("formats", "expected"),
    [
        (("jpeg",), ("jpeg",)),
        (("png",), ("png",)),
        (("webp",), ("webp",)),
        (("_webp",), ("webp",)),
        (("avif",), ("avif", "plain")),
        (("original",), ("original", "plain")),
        (("plain",), ("plain",)),
    ],
)
@pytest.mark.parametrize("header", [None, CHROME, "image/png", "image/webp;q=0,image/avif;q=0"])
def test_a_forced_format_asks_nobody(formats: tuple[str, ...], expected: tuple[str, ...], header: str | None) -> None:
    """One answer for all, so no Vary."""
    assert Choice(formats=expected, accept_class="any", varies=False) == negotiation.choose(formats, header)


@pytest.mark.parametrize(
    ("formats", "header", "expected", "accept_class"),
    [
        (("webp", "jpeg"), CHROME, ("webp", "jpeg"), "webp"),
        (("webp", "jpeg"), "*/*", ("jpeg",), "jpeg"),
        (("_webp", "png"), "*/*", ("png",), "png"),
        (("_webp", "png"), CHROME, ("webp", "png"), "webp"),
        (("webp", "original"), None, ("original", "plain"), "plain"),
        (("webp", "original"), CHROME, ("webp", "original", "plain"), "webp"),
        (("avif", "jpeg"), CHROME, ("avif", "jpeg"), "avif"),
        (("avif", "jpeg"), "image/avif", ("avif", "jpeg"), "avif"),
        (("avif", "webp", "plain"), CHROME, ("avif", "webp", "plain"), "avif"),
        (("avif", "webp", "plain"), "image/avif", ("avif", "plain"), "avifonly"),
        (("avif", "webp", "plain"), "image/webp", ("webp", "plain"), "webp"),
        (("webp", "avif", "plain"), "image/avif", ("avif", "plain"), "avifonly"),
        (("avif", "webp"), "*/*", ("plain",), "plain"),
        (("webp", "jpeg"), "image/webp;q=0.1,image/jpeg", ("webp", "jpeg"), "webp"),
    ],
)
def test_a_chain_skips_what_the_requester_does_not_accept(
    formats: tuple[str, ...], header: str | None, expected: tuple[str, ...], accept_class: str
) -> None:
    """The URL's order counts, not q; the answer varies."""
    assert Choice(formats=expected, accept_class=accept_class, varies=True) == negotiation.choose(formats, header)


def test_a_header_is_read_up_to_its_bound() -> None:
    """What is beyond is not read, and an element that is cut is not misread."""
    padding = "text/plain," * 185
    assert len(padding) < negotiation.HEADER_MAX_CHARS
    cut = padding + "image/webp" + " " * 10 + ";q=0"
    assert "plain" == negotiation.choose((), cut).accept_class
    assert "webp" == negotiation.choose((), "image/webp," + padding * 50).accept_class
    assert "plain" == negotiation.choose((), padding * 50 + "image/webp").accept_class


def test_other_headers_of_the_same_meaning_share_a_profile() -> None:
    """So a fast path may learn them as one."""
    assert negotiation.profile(CHROME) == negotiation.profile(PAGE)
    assert negotiation.profile("*/*") == negotiation.profile(None)
    assert negotiation.profile("*/*") != negotiation.profile("image/webp")


def test_there_are_few_profiles() -> None:
    """A table of them stays small, whatever headers are sent: 16 in all."""
    names = ("image/avif", "image/webp", "image/jpeg", "image/png", "*/*")
    found = set()
    for weights in product(("", ";q=0", ";q=0.5"), repeat=len(names)):
        found.add(negotiation.profile(",".join(name + weight for name, weight in zip(names, weights, strict=True))))
        named = [name + weight for name, weight in zip(names, weights, strict=True) if weight != ";q=0"]
        found.add(negotiation.profile(",".join(named)))
    assert len(found) <= 16


medias = st.sampled_from(["image/avif", "image/webp", "image/jpeg", "image/png", "image/*", "*/*", "text/html"])
weights = st.sampled_from(["", ";q=0", ";q=0.3", ";q=0.7", ";q=1", ";q=x"])
headers = st.lists(st.tuples(medias, weights).map("".join), max_size=8).map(",".join) | st.text(max_size=40)
chains = st.sampled_from(
    [(), ("webp",), ("webp", "jpeg"), ("avif", "webp", "plain"), ("webp", "avif", "png"), ("avif", "original")]
)


@given(formats=chains, header=headers)
@settings(deadline=None, max_examples=500)
def test_whatever_the_header_there_is_an_answer_in_a_known_class(formats: tuple[str, ...], header: str) -> None:
    """Never empty, never an unknown name, never AVIF or WebP for who refuses it unless it is forced."""
    choice = negotiation.choose(formats, header)
    assert choice.formats
    assert set(choice.formats) <= {"avif", "webp", "jpeg", "png", "plain", "original"}
    assert choice.accept_class in ACCEPT_CLASSES
    if len(formats) != 1:
        for name in ("avif", "webp"):
            if f"image/{name}" not in header.lower():
                assert name not in choice.formats


@given(formats=chains, one=headers, other=headers)
@settings(deadline=None, max_examples=500)
def test_equal_classes_of_one_url_mean_equal_formats(formats: tuple[str, ...], one: str, other: str) -> None:
    """The file of a class fits everyone who is sent to it. Only what stands behind WebP, which is never refused,
    may differ."""
    first, second = negotiation.choose(formats, one), negotiation.choose(formats, other)
    if first.accept_class == second.accept_class:
        if first.accept_class == "webp":
            assert first.formats[0] == second.formats[0]
        else:
            assert first.formats == second.formats
    if negotiation.profile(one) == negotiation.profile(other):
        assert first == second
