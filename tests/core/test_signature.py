"""Signatures and seals are those of the real clients, and nothing else passes."""

import hashlib
from base64 import b64encode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgserve.core import signature
from imgserve.core.errors import Denied
from imgserve.core.tenants import Signing

SIGN = Signing(mode="sign", salts=("salt",))
SEAL = Signing(mode="seal", salts=("salt",))
E5_EQS = (
    "d2F0PTEmd2F0X3VybD1odHRwOi8vc2FtcGxlLmxpL2xvdWlzLXZ1aXR0b24tbG9nby13aGl0ZS5wbmcmd2F0X3NjYWxlPTQ1JndhdF9ncmF2aXR5"
    "PXNvdXRod2VzdCZ3YXRfcGFkPTE1"
)
SIGNED = [  # salt, hashed URI, whole signature
    ("salt", "/assets/image.jpg", "8e71efd440164f3cc8e3c6a48eeb6ec272a6d2a8"),
    ("salt", "/assets/image.jpg?w=200", "84c81ef20852013046efd7ba6b62f20b12b1c1bb"),
    ("salt", "/assets/image.jpg?ci_info=1&h=100&w=200", "40bd5a1d99455fe5cfb8f37e5fcfbb3719c3c204"),
    ("mysecretsalt", "/assets/image.png?h=400&w=200", "79cfbc458bc1d57b25c3b783e9c58346c0e041e0"),
    ("salt", "https://shop.example/img.jpg?q=90&org_if_sml=1", "c2846cb9452443f927390ff95c9a6322c19617a4"),
    ("salt", "https://shop.example/img.jpg?q=90&org_if_sml=1&w=320", "0e6c942522f43da067104295bad502b3751a5eab"),
    ("salt", "/sample.li/boat.jpg?w=300", "81e0bf288149a8d9ee3d05bc15ccc1f54b757db7"),
    ("salt", "sample.li/boat.jpg?w=300", "4185490d1bae8a45e7ca0d80ed496542eacd944a"),
    ("salt", "/assets/image.jpg?f=bright%3A15%2Ccontrast%3A30%2Cgrey", "918ca1dde0d250a04f65a965b23b03d8666106ad"),
]
LEGACY = [
    ("/cdn/n/n/http://www.example.tld/my-image.jpg", "921317a9b00dc0b5a29e6b32a832361db582fd70"),
    ("/width/640/n/http://www.example.tld/my-image.jpg", "58c34876a7ce6684d578903c0d420c5448bdd6be"),
    ("/crop/640x480/q50.r90/http://www.example.tld/my-image.jpg", "19cb88863ff0ac5185773ffcec9b0cf522b367b5"),
]
SEALED = [  # path, ci_eqs, salt, whole seal, sealed query
    ("/assets/image.jpg", "", "salt", "57e9278520bd99de507df2d404d5876e27cf0c0c", ""),
    (
        "/assets/image.jpg",
        "Ymx1cj0yMCZoPTMwMCZ3PTMwMA",
        "salt",
        "b7b7a8fde707bed4b47a706d52475c15234c77dd",
        "blur=20&h=300&w=300",
    ),
    ("/assets/image.jpg", "Ymx1cj0yMCZoPTMwMA", "salt", "a49adc8f592ef99188611966e621932ee5b41a1c", "blur=20&h=300"),
    (
        "/sample.li/birds.jpg",
        "Zj1icmlnaHQlM0ExMCUyQ2NvbnRyYXN0JTNBMjAmdz0zMDA",
        "test",
        "67dd8cc44f6ba44ee5e8a2d13237212127dab82d",
        "f=bright%3A10%2Ccontrast%3A20&w=300",
    ),
    (
        "sample.li/birds.jpg",
        E5_EQS,
        "test",
        "a355cce069fbfb18a4c39113067bf626ead2ebab",
        "wat=1&wat_url=http://sample.li/louis-vuitton-logo-white.png&wat_scale=45&wat_gravity=southwest&wat_pad=15",
    ),
]


def with_parameter(uri: str, parameter: str) -> str:
    return "/" + uri.removeprefix("/") + ("&" if "?" in uri else "?") + parameter


@pytest.mark.parametrize(("salt", "uri", "expected"), SIGNED)
def test_signatures_are_those_of_the_clients(salt: str, uri: str, expected: str) -> None:
    """Vectors S1 to S9: whole, cut to 18, with and without ``/v7``, with and without leading slash."""
    assert expected == signature.sign(uri, salt)
    signing = Signing(mode="sign", salts=("another", salt))
    for text in (expected, expected[:18], expected.upper()):
        target = with_parameter(uri, f"ci_sign={text}")
        assert "" == signature.verify(target, signing)
        assert "" == signature.verify("/v7" + target, signing)


@pytest.mark.parametrize(("uri", "expected"), LEGACY)
def test_signatures_of_the_older_grammar_are_made_alike(uri: str, expected: str) -> None:
    """Vectors L1 to L3."""
    assert expected == signature.sign(uri, "abcdefgh")


@pytest.mark.parametrize(("path", "eqs", "salt", "expected", "query"), SEALED)
def test_seals_are_those_of_the_clients(path: str, eqs: str, salt: str, expected: str, query: str) -> None:
    """Vectors E1 to E5: the sealed query comes out, whatever else the URL asks for."""
    assert expected == signature.seal(path, eqs, salt)
    signing = Signing(mode="seal", salts=(salt,))
    pairs = f"ci_eqs={eqs}&ci_seal=" if eqs else "ci_seal="
    for text in (expected, expected[:18]):
        assert query == signature.verify(f"{with_parameter(path, pairs)}{text}&w=100", signing)
        assert query == signature.verify(f"/v7{with_parameter(path, 'w=100')}&{pairs}{text}", signing)


def test_the_signature_may_stand_anywhere_in_the_query() -> None:
    """It is taken out as text; order and empty pairs of the rest stay."""
    for uri, target in (
        ("/a.b/c?ci_info=1&h=1&w=2", "/a.b/c?ci_info=1&ci_sign={}&h=1&w=2"),
        ("/a.b/c?w=2", "/a.b/c?ci_sign={}&w=2"),
        ("/a.b/c?&w=2", "/a.b/c?&w=2&ci_sign={}"),
        ("/a.b/c", "/a.b/c?ci_sign={}"),
    ):
        assert "" == signature.verify(target.format(signature.sign(uri, "salt")), SIGN)


def test_a_client_may_sign_before_the_browser_encodes() -> None:
    """Spaces and accents; what the client encoded itself stays encoded."""
    digest = signature.sign("https://shop.example/mein bild \u00e4.jpg?f=a%2Cb", "salt")
    target = f"/v7/https://shop.example/mein%20bild%20%C3%A4.jpg?f=a%2Cb&ci_sign={digest}"
    assert "" == signature.verify(target, SIGN)


@pytest.mark.parametrize(
    "target",
    [
        "/a.b/c.jpg%3Fw=200?ci_sign={}",  # the parameter would become part of the path
        "/a.b/c.jpg?w%3D200&ci_sign={}",
        "/a.b%2Fc.jpg?w=200&ci_sign={}",
        "/a.b/c.jpg?w=20%30&ci_sign={}",
        "/a.b/c.jpg?w=300&ci_sign={}",
        "/a.b/c.jpg?w=200&h=1&ci_sign={}",
        "/a.b/c.jpg?ci_sign={}",
        "/a.b/d.jpg?w=200&ci_sign={}",
        "/a.b/c.jpg?w=200&ci_sign={}&ci_sign={}",
        "/a.b/c.jpg?w=200&ci%5Fsign={}",
        "/a.b/c.jpg?w=200&ci_sign=",
        "/a.b/c.jpg?w=200&ci_sign={}0",
        "/a.b/c.jpg?w=200&ci_sign=%{}",
        "/a.b/c.jpg?w=200",
        "/v7/v7/a.b/c.jpg?w=200&ci_sign={}",
        "/a.b/c.jpg\x80?w=200&ci_sign={}",
    ],
)
def test_a_signature_stands_for_no_other_url(target: str) -> None:
    """Nothing that the server would read differently passes with it."""
    digest = signature.sign("/a.b/c.jpg?w=200", "salt")
    with pytest.raises(Denied) as caught:
        signature.verify(target.format(digest, digest), SIGN)
    assert "sign" in caught.value.public


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/a.b/c\x00", "/a.b/c\x00"),
        ("/a.b/c\x0a", "/a.b/c\x0a"),
        ("/a.b/c\u0085", "/a.b/c\u0085"),
        ("/a.b/c\u0085", "/a.b/c%C2%85"),  # as the browser would encode it
        ("/a.b/c\udc80\x00", "/a.b/c%80%00"),  # the bytes that would extend a whole SHA-1
    ],
)
def test_control_characters_are_never_signed(uri: str, path: str) -> None:
    """Not even with the right signature: what extends a hash needs them."""
    with pytest.raises(Denied):
        signature.verify(f"{path}?ci_sign={signature.sign(uri, 'salt')}", SIGN)


def test_a_short_signature_is_refused_unless_the_tenant_takes_it() -> None:
    """``min_length`` counts, and a prefix alone is enough above it."""
    digest = signature.sign("/a.b/c", "salt")
    with pytest.raises(Denied, match="too short"):
        signature.verify(f"/a.b/c?ci_sign={digest[:17]}", SIGN)
    short = Signing(mode="sign", salts=("salt",), min_length=6)
    assert "" == signature.verify(f"/a.b/c?ci_sign={digest[:6]}", short)
    with pytest.raises(Denied):
        signature.verify(f"/a.b/c?ci_sign={digest[:5]}", short)
    with pytest.raises(Denied):
        signature.verify("/a.b/c?ci_sign=", Signing(mode="sign", salts=("salt",), min_length=0))


def test_without_a_salt_nothing_passes() -> None:
    """Neither with none nor with an empty one."""
    target = f"/a.b/c?ci_sign={signature.sign('/a.b/c', '')}"
    for salts in ((), ("",)):
        with pytest.raises(Denied):
            signature.verify(target, Signing(mode="sign", salts=salts))


def test_where_nothing_is_signed_the_parameters_are_ignored() -> None:
    """Wrong, missing or doubled: no matter, and nothing is sealed."""
    for query in ("", "?ci_sign=x", "?ci_seal=x&ci_eqs=dz0x", "?ci_sign=&ci_sign="):
        assert "" == signature.verify("/a.b/c" + query, Signing())
    sealed = f"/a.b/c?ci_eqs=dz0x&ci_sign={signature.sign('/a.b/c?ci_eqs=dz0x', 'salt')}"
    assert "" == signature.verify(sealed, SIGN)


@pytest.mark.parametrize("text", ["w=300&f=a>b?c", "w=1", "w=12", "w=123", "wat_text=\u00e4\u00f6~~"])
def test_every_spelling_of_base64_is_read(text: str) -> None:
    """Both alphabets, padded or not, percent-encoded, and with ``+`` turned to a space on the way."""
    raw = text.encode()
    for eqs in (b64encode(raw).decode(), urlsafe_b64encode(raw).decode(), b64encode(raw).decode().rstrip("=")):
        digest = signature.seal("/a.b/c", eqs, "salt")
        for sent in (eqs, eqs.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"), eqs.replace("+", "%20")):
            assert text == signature.verify(f"/a.b/c?ci_eqs={sent}&ci_seal={digest}", SEAL)


@pytest.mark.parametrize(
    "eqs",
    ["w=300", "!!!!", "A", "dz0x\u00e4", urlsafe_b64encode(b"w=1\n").decode(), urlsafe_b64encode(b"\xff").decode()],
)
def test_a_sealed_query_that_is_none_is_refused(eqs: str) -> None:
    """Also when its seal is right."""
    with pytest.raises(Denied):
        signature.verify(f"/a.b/c?ci_eqs={eqs}&ci_seal={signature.seal('/a.b/c', eqs, 'salt')}", SEAL)


@pytest.mark.parametrize(
    "target",
    [
        "/a.b/c?w=1",
        "/a.b/c?ci_eqs=dz0x",
        "/a.b/c?ci_eqs=dz0x&ci_seal={}0",
        "/a.b/c?ci_eqs=dz0y&ci_seal={}",
        "/a.b/d?ci_eqs=dz0x&ci_seal={}",
        "/a.b/c?ci_seal={}",
        "/a.b/c?ci_eqs=dz0x&ci_eqs=dz0x&ci_seal={}",
        "/a.b/c?ci_eqs=dz0x&ci_seal={}&ci_seal={}",
    ],
)
def test_a_seal_stands_for_no_other_path_or_sealed_query(target: str) -> None:
    """Missing, wrong, moved or doubled."""
    digest = signature.seal("/a.b/c", "dz0x", "salt")
    with pytest.raises(Denied):
        signature.verify(target.format(digest, digest), SEAL)


def test_an_unchecked_sealed_query_is_read_for_the_tenant_itself() -> None:
    """Only where the tenant seals."""
    assert "w=1" == signature.sealed_query("/a.b/c?ci_eqs=dz0x", SEAL)
    assert "" == signature.sealed_query("/a.b/c?ci_eqs=dz0x", SIGN)


@given(message=st.binary(max_size=40), length=st.integers(18, 40))
def test_a_random_digest_never_passes(message: bytes, length: int) -> None:
    """Guessing 72 bits does not work."""
    guess = hashlib.sha1(message).hexdigest()[:length]
    with pytest.raises(Denied):
        signature.verify(f"/a.b/c?ci_sign={guess}", SIGN)
