"""How long answers may be kept elsewhere."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgserve.core import freshness
from imgserve.core.events import Outcome

DAY_S = 86_400
LIVES = st.integers(-DAY_S, 60 * DAY_S) | st.integers(-5, 5) | st.integers(3_500, 3_700) | st.integers(86_300, 90_100)


def directives(value: str) -> dict[str, int]:
    """The directives with a number of seconds."""
    return {name: int(seconds) for name, seconds in re.findall(r"([a-z-]+)=(\d+)", value)}


@given(LIVES)
def test_nothing_promised_outlasts_the_image(life_left_s: int) -> None:
    """For every kind of cache: freshness and the longest stale window together fit into the life left."""
    value = freshness.cache_control(life_left_s)
    given_s = directives(value)
    stale_s = max(given_s.get("stale-while-revalidate", 0), given_s.get("stale-if-error", 0))

    if life_left_s <= 0:
        assert "no-store" == value
        return
    assert given_s["s-maxage"] + stale_s <= life_left_s
    assert given_s["max-age"] + stale_s <= life_left_s
    assert given_s["max-age"] <= 3_600
    assert given_s["s-maxage"] <= DAY_S
    assert freshness.windows(life_left_s).longest_s <= life_left_s


def test_a_young_image() -> None:
    """Browsers get an hour, shared caches a day, and short stale windows after that."""
    assert (
        "public, max-age=3600, s-maxage=86400, stale-while-revalidate=60, stale-if-error=3600"
        == freshness.cache_control(30 * DAY_S)
    )


@pytest.mark.parametrize(
    ("life_left_s", "value"),
    [
        (1, "public, max-age=1, s-maxage=1"),
        (3_601, "public, max-age=3600, s-maxage=3601"),
        (86_400, "public, max-age=3600, s-maxage=86400"),
        (86_401, "public, max-age=3600, s-maxage=86400, stale-while-revalidate=1, stale-if-error=1"),
        (0, "no-store"),
        (-1, "no-store"),
    ],
)
def test_at_the_end_of_a_life(life_left_s: int, value: str) -> None:
    """The stale windows go first, then the shared time, then the browsers'."""
    assert value == freshness.cache_control(life_left_s)


@given(LIVES, st.integers(0, 40 * DAY_S))
def test_an_answer_may_be_replayed_as_long_as_it_stays_true(life_left_s: int, later_s: int) -> None:
    """Within ``replayable_s`` the same header is still what would be said anew, so it still fits into the life left."""
    if later_s <= freshness.replayable_s(life_left_s) > 0:
        assert freshness.cache_control(life_left_s) == freshness.cache_control(life_left_s - later_s)
        assert freshness.windows(life_left_s).longest_s <= life_left_s - later_s


TAG = "mfrggzdfmztwq2lk"


@pytest.mark.parametrize(
    "condition",
    [
        f'"{TAG}"',
        f'W/"{TAG}"',
        "*",
        " * ",
        f'"x", "{TAG}"',
        f'"{TAG}","x"',
        f'"x",W/"{TAG}", "y"',
        f' "{TAG}" ',
        f', ,"{TAG}", ,',
        f'"a,b", "{TAG}"',
        f'\t"{TAG}"\t',
        f'"", "{TAG}"',
        f'"\xe9", "{TAG}"',
    ],
)
def test_conditions_that_name_the_tag(condition: str) -> None:
    """Single, weak, star, lists with empty elements and commas inside tags (RFC 9110 sections 8.8.3, 13.1.2, 5.6.1)."""
    assert freshness.etag_matches(condition, TAG)


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "x",
        TAG,
        f'"{TAG}',
        f'{TAG}"',
        '"x"',
        f'w/"{TAG}"',
        f'W/ "{TAG}"',
        f'"x{TAG}"',
        f'"{TAG}" "x"',
        "**",
        '*, "x"',
        f'"x" "{TAG}"',
        f'"{TAG.upper()}"',
        '"a"b"',
        f'"{TAG}";',
        f"'{TAG}'",
        f'"x""{TAG}"',
        ",",
        f'"{TAG} "',
    ],
)
def test_conditions_that_do_not(condition: str) -> None:
    """Other tags, and what is no list of entity tags."""
    assert not freshness.etag_matches(condition, TAG)


@given(st.text(max_size=60))
def test_no_condition_is_an_error(condition: str) -> None:
    """Whatever a client sends, the answer is yes or no; yes only if the tag is in it, or a star."""
    if freshness.etag_matches(condition, TAG):
        assert TAG in condition or "*" in condition


@pytest.mark.parametrize(
    ("outcome", "value"),
    [
        (Outcome.HIT, "imgserve; hit"),
        (Outcome.REVALIDATED, "imgserve; hit"),
        (Outcome.MISS, "imgserve; fwd=miss"),
        (Outcome.COLLAPSED, "imgserve; fwd=miss; collapsed"),
        (Outcome.BYPASS, "imgserve; fwd=bypass"),
        (Outcome.ERROR, "imgserve; fwd=miss"),
    ],
)
def test_cache_status(outcome: Outcome, value: str) -> None:
    """The member of RFC 9211 for each outcome; all outcomes have one."""
    assert value == freshness.cache_status(outcome)
    assert set(Outcome) == {
        Outcome.HIT,
        Outcome.REVALIDATED,
        Outcome.MISS,
        Outcome.COLLAPSED,
        Outcome.BYPASS,
        Outcome.ERROR,
    }


def test_cache_status_can_say_more() -> None:
    """Stored, and the life left."""
    assert "imgserve; fwd=miss; stored; ttl=60" == freshness.cache_status(Outcome.MISS, is_stored=True, life_left_s=60)
    assert "imgserve; hit; ttl=-3" == freshness.cache_status(Outcome.HIT, is_stored=True, life_left_s=-3)
