"""Receipts: any change is noticed, whoever reads them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgserve.core import receipts
from imgserve.core.errors import BadRequest

KEY = b"k" * 32
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "signature"), VALUES, max_size=5
)


@given(document=DOCUMENTS, indent=st.sampled_from([None, 2]))
def test_a_receipt_survives_its_way(document: dict[str, object], indent: int | None) -> None:
    """However a reader spaces it or orders its names."""
    sealed = receipts.sealed(document, KEY)
    read = receipts.parse(json.dumps(dict(reversed(sealed.items())), indent=indent))

    assert receipts.is_genuine(read, KEY)
    assert not receipts.is_genuine(read, b"K" * 32)


@given(document=DOCUMENTS, name=st.text(min_size=1, max_size=8), value=VALUES)
def test_a_change_is_noticed(document: dict[str, object], name: str, value: object) -> None:
    """Another value, a name more or a name less."""
    sealed = receipts.sealed(document, KEY)
    changed = sealed | {name: value}

    assert receipts.is_genuine(changed, KEY) == (
        json.dumps(changed, sort_keys=True) == json.dumps(sealed, sort_keys=True)
    )
    for gone in sealed:
        assert not receipts.is_genuine({name: value for name, value in sealed.items() if name != gone}, KEY)


@pytest.mark.parametrize(
    "change", [{"algorithm": "none"}, {"key": ""}, {"value": ""}, {"value": None}, {"value": "\ud800"}, {"more": 1}]
)
def test_the_signature_itself_cannot_be_changed(change: dict[str, object]) -> None:
    """Neither what it says of itself nor its value."""
    sealed = receipts.sealed({"kind": "erasure"}, KEY)
    signature = sealed["signature"]
    assert isinstance(signature, dict)

    assert not receipts.is_genuine({**sealed, "signature": signature | change}, KEY)
    assert not receipts.is_genuine({**sealed, "signature": "x"}, KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "{}",
        '{"rows": 1, "rows": 2, "signature": {}}',
        '{"a": {"b": 1, "b": 1}, "signature": {}}',
        '{"rows": NaN, "signature": {}}',
        "[" * 100_000,
        '{"signature": {}, "a": "' + "x" * 1_000_000 + '"}',
    ],
)
def test_what_is_no_receipt_is_refused(text: str) -> None:
    """Also what two readers could understand differently."""
    with pytest.raises(BadRequest, match="no receipt"):
        receipts.parse(text)
