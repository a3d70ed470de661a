"""Names of images and files: fixed shapes, and no two lists of parts with one name."""

import hashlib
import re

from hypothesis import assume, given
from hypothesis import strategies as st

from imgserve.core import keys
from imgserve.core.originals import PlanKey
from imgserve.core.plan import Plan


def hasher(data: bytes) -> bytes:
    return hashlib.blake2b(data, key=b"test", digest_size=16).digest()


def test_names_have_their_fixed_shapes() -> None:
    """16 and 26 lower-case base32 letters, and the file names made of them."""
    key = keys.plan_key(hasher, Plan())
    assert re.fullmatch(r"[a-z2-7]{16}", keys.image_id(hasher, "demo", "https://example.com/a.jpg"))
    assert re.fullmatch(r"[a-z2-7]{26}", key)
    assert f"v-{key}.avif" == keys.variant_name(key, "avif")
    assert "o-main" == keys.original_name(hasher)
    assert re.fullmatch(r"o-[a-z2-7]{16}", keys.original_name(hasher, (("v", "1"),)))


def test_names_are_base32_of_the_first_bits_of_the_hash() -> None:
    """80 bits of an image, 128 of a plan."""
    zeros = bytes(10) + b"\xff" * 6
    assert "a" * 16 == keys.image_id(lambda _: zeros, "demo", "x")
    assert "aaaaaaaaaaaaaaaa7777777774" == keys.plan_key(lambda _: zeros, Plan())


def test_tenant_location_plan_and_busters_all_count() -> None:
    """Each alone changes the name."""
    images = {keys.image_id(hasher, tenant, place) for tenant in ("a", "b") for place in ("x", "y")}
    assert 4 == len(images)
    busters = [(), (("v", "1"),), (("v", "2"),), (("ver", "1"),), (("v", "1"), ("ver", "1"))]
    plans = {keys.plan_key(hasher, plan, pairs) for plan in (Plan(), Plan(gray=True)) for pairs in busters}
    assert 10 == len(plans)
    assert 5 == len({keys.original_name(hasher, pairs) for pairs in busters})


pairs = st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=3).map(tuple)


@given(one=st.tuples(st.text(), st.text()), other=st.tuples(st.text(), st.text()))
def test_parts_never_run_into_each_other(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Different parts, different hashed bytes: ``("ab", "c")`` is not ``("a", "bc")``."""
    assume(one != other)
    seen: list[bytes] = []

    def spy(data: bytes) -> bytes:
        seen.append(data)
        return hasher(data)

    keys.image_id(spy, *one)
    keys.image_id(spy, *other)
    assert seen[0] != seen[1]


@given(one=pairs, other=pairs)
def test_busters_never_run_into_each_other(one: keys.Busters, other: keys.Busters) -> None:
    """Also where names and values share their letters."""
    assume(one != other)
    assert keys.plan_key(hasher, Plan(), one) != keys.plan_key(hasher, Plan(), other)
    assert keys.original_name(hasher, one) != keys.original_name(hasher, other)


def test_every_accept_class_is_a_file_name_of_letters() -> None:
    """Two to eight lower-case letters, as the cache demands of an ending."""
    for name in keys.ACCEPT_CLASSES:
        assert re.fullmatch(r"v-k\.[a-z]{2,8}", keys.variant_name(PlanKey("k"), name))
