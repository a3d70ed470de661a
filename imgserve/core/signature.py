"""Signed and sealed URLs, as the clients of Cloudimage v7 make them.

Signature: hex SHA-1 of salt and URI, ``ci_sign`` taken out. Seal: hex SHA-1 of path, ``ci_eqs`` and salt.
Clients cut both, and some hash without the leading slash, or before the browser percent-encodes the URL.

Limits of the scheme, which clients fix: it is plain SHA-1 over a secret prefix, and nothing separates the path from
``ci_eqs`` in a seal, so that a path ending in base64 letters can trade them with ``ci_eqs``. A whole 40-digit
signature could be extended only by bytes that no target may hold: control characters are refused here.
"""

import hmac
import re
from base64 import b64decode
from binascii import Error as Base64Error
from hashlib import sha1
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from imgserve.core.errors import Denied
from imgserve.core.tenants import Signing

_HEX: Final = re.compile(r"[0-9a-f]{1,40}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Space, quotes, angle, square and curly brackets, caret, backtick, bar, and all beyond ASCII.
_BROWSER_ENCODED: Final = re.compile(
    r"(?:%(?:2[027]|3[CE]|5[BDE]|60|7[BCD]|[89A-F][0-9A-F]))+", re.ASCII | re.IGNORECASE
)

_MISSING: Final = "This URL must be signed: its {} is missing."
_WRONG: Final = "This URL's {} is wrong or too short."


def sign(uri: str, salt: str) -> str:
    """The whole signature of a URI (path and query, without ``/v7`` and ``ci_sign``): 40 hex digits."""
    return sha1(_bytes(salt + uri)).hexdigest()  # noqa: S324 - the clients' scheme


def seal(path: str, eqs: str, salt: str) -> str:
    """The whole seal of a path (no query, no ``/v7``) and the base64 text of its sealed query: 40 hex digits."""
    return sha1(_bytes(path + eqs + salt)).hexdigest()  # noqa: S324 - the clients' scheme


def verify(target: str, signing: Signing) -> str:
    """Check a raw request target as the tenant demands; the sealed query, or "" where nothing is sealed.

    With ``signing.mode`` off nothing is checked, and nothing can be sealed. Raises Denied.
    """
    if signing.mode == "sign":
        _verify_signature(target, signing)
        return ""
    if signing.mode == "seal":
        _verify_seal(target, signing)
    return sealed_query(target, signing)


def sealed_query(target: str, signing: Signing) -> str:
    """The query that ``ci_eqs`` holds, unchecked: for targets that come from the tenant itself. Raises Denied."""
    eqs = _single(target.partition("?")[2], "ci_eqs") if signing.mode == "seal" else None
    return _decoded_eqs(_form_decoded(eqs)) if eqs else ""


def _verify_signature(target: str, signing: Signing) -> None:
    path, _, query = target.partition("?")
    given = _single(query, "ci_sign")
    if given is None:
        raise _denied(_MISSING, "ci_sign")
    left = "&".join(pair for pair in query.split("&") if pair.partition("=")[0] != "ci_sign")
    uris = _spellings(path + ("?" + left if left else ""))
    _compare(given, [sign(uri, salt) for salt in signing.salts if salt for uri in uris], signing, "ci_sign")


def _verify_seal(target: str, signing: Signing) -> None:
    path, _, query = target.partition("?")
    given = _single(query, "ci_seal")
    if given is None:
        raise _denied(_MISSING, "ci_seal")
    eqs = _single(query, "ci_eqs") or ""
    texts = dict.fromkeys((eqs, _form_decoded(eqs)))
    paths = _spellings(path)
    wanted = [seal(uri, text, salt) for salt in signing.salts if salt for uri in paths for text in texts]
    _compare(given, wanted, signing, "ci_seal")


def _compare(given: str, wanted: list[str], signing: Signing, parameter: str) -> None:
    """Compare a cut digest with all that it may be, in a time that tells nothing of them."""
    text = given.lower()
    if not _HEX.fullmatch(text) or len(text) < signing.min_length:
        raise _denied(_WRONG, parameter)
    is_right = False
    for digest in wanted:
        is_right |= hmac.compare_digest(digest[: len(text)], text)
    if not is_right:
        raise _denied(_WRONG, parameter)


def _spellings(uri: str) -> list[str]:
    """What a client may have hashed for this URI: with and without leading slash, before and after the browser
    encoded it."""
    if not uri.startswith("/") or _CONTROL.search(uri):
        raise Denied("control characters in a signed target", public=_WRONG.format("signature"))
    uri = uri[3:] if uri.startswith("/v7/") else uri
    found = [uri, uri[1:]]
    try:
        decoded = _BROWSER_ENCODED.sub(_before_browser, uri)
    except UnicodeDecodeError:
        return found
    if decoded != uri and not _CONTROL.search(decoded):
        found += [decoded, decoded[1:]]
    return found


def _before_browser(match: re.Match[str]) -> str:
    # Only escapes that a browser adds by itself are undone. Undoing %3F or %26 would let one signature
    # stand for another URL, in which a signed parameter has become part of the path.
    return unquote_to_bytes(match[0]).decode("utf-8")


def _single(query: str, name: str) -> str | None:
    """The raw value of a parameter, None if it is absent. Two of it are denied: which one counts is nobody's guess."""
    values = [value for key, _, value in (pair.partition("=") for pair in query.split("&")) if key == name]
    if len(values) > 1:
        raise _denied(_WRONG, name)
    return values[0] if values else None


def _form_decoded(eqs: str) -> str:
    return unquote(eqs).replace(" ", "+")


def _decoded_eqs(eqs: str) -> str:
    text = eqs.translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        query = b64decode(text + "=" * (-len(text) % 4), validate=True).decode("utf-8")
    except (Base64Error, ValueError) as error:
        raise _denied(_WRONG, "ci_eqs") from error
    if _CONTROL.search(query):
        raise _denied(_WRONG, "ci_eqs")
    return query


def _denied(sentence: str, parameter: str) -> Denied:
    public = sentence.format(parameter)
    return Denied(public, public=public)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
