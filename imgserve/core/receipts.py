"""Signed receipts: a JSON document and an HMAC-SHA-256 (RFC 2104) over its canonical form.

Who holds the node's receipt key can check one, and could make one: it proves to the operator what this node did, not
to a stranger.
"""

import hmac
import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from imgserve.core.errors import BadRequest

_DOMAIN: Final = b"imgserve receipt 1\0"  # the key signs nothing else
_ALGORITHM: Final = "HMAC-SHA-256"
_SIGNATURE: Final = "signature"
_RECEIPT_CHARS_MAX: Final = 1_000_000


def sealed(document: Mapping[str, object], key: bytes) -> dict[str, object]:
    """The document with its signature. It must hold nothing but JSON's own kinds of value."""
    value = hmac.digest(key, _canonical(document), "sha256").hex()
    return {**document, _SIGNATURE: {"algorithm": _ALGORITHM, "key": _key_id(key), "value": value}}


def is_genuine(receipt: Mapping[str, object], key: bytes) -> bool:
    """Whether this key signed exactly this document."""
    document = {name: value for name, value in receipt.items() if name != _SIGNATURE}
    signature = receipt.get(_SIGNATURE)
    if not isinstance(signature, dict) or not isinstance(signature.get("value"), str):
        return False
    expected = sealed(document, key)[_SIGNATURE]
    assert isinstance(expected, dict)
    is_equal = hmac.compare_digest(expected["value"].encode(), signature["value"].encode("utf-8", "replace"))
    return is_equal and signature == expected


def parse(text: str) -> dict[str, object]:
    """Read a receipt. Raises BadRequest for what is none, and for a name that stands twice: readers would differ."""
    try:
        is_short = len(text) <= _RECEIPT_CHARS_MAX
        receipt = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse) if is_short else None
    except (ValueError, RecursionError):
        receipt = None
    if not isinstance(receipt, dict) or _SIGNATURE not in receipt:
        raise BadRequest("This is no receipt.")
    return receipt


def _canonical(document: Mapping[str, object]) -> bytes:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return _DOMAIN + text.encode("ascii")


def _key_id(key: bytes) -> str:
    return sha256(b"imgserve receipt key id\0" + key).hexdigest()[:16]


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def _refuse(name: str) -> object:
    raise ValueError(f"{name} is no JSON (RFC 8259)")
