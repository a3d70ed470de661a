"""Which format a requester gets: the Accept header of RFC 9110 section 12.5.1, and the URL's wish.

Wildcards never stand for AVIF or WebP: ``*/*`` is what programs send that read only JPEG and PNG.
Plain ``webp`` and ``_webp`` come out alike here; that the former may be replaced by a smaller file of
another format is the caller's business.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

HEADER_MAX_CHARS: Final = 2048
"""What follows in a longer Accept header is not read."""

_MODERN: Final = ("avif", "webp")
_PLAIN: Final = ("jpeg", "png")
_QUALITY: Final = re.compile(r"0(?:\.[0-9]{0,9})?|1(?:\.0{0,9})?|\.[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to render for a requester.

    ``formats`` is the order of wish for the renderer, never empty; a later one is for when an earlier cannot be made.
    ``accept_class`` names the variant's file: of one plan, an equal class means equal formats. It is the first format
    where the choice was negotiated, ``avifonly`` where AVIF was accepted but the WebP behind it was not, and ``any``
    where the URL leaves no choice. ``varies`` says whether another Accept header could have given another answer.
    """

    formats: tuple[str, ...]
    accept_class: str
    varies: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """All that this server wants to know of an Accept header; equal profiles get equal answers to every URL.

    ``modern``: which of AVIF and WebP are accepted. ``negotiated``: the choice where the URL asks for no format.
    """

    modern: frozenset[str]
    negotiated: Choice


def choose(formats: tuple[str, ...], accept_header: str | None) -> Choice:
    """The choice for a canonical plan's formats and a requester's Accept header (None: there was none)."""
    return choose_for(formats, profile(accept_header))


def choose_for(formats: tuple[str, ...], requester: Profile) -> Choice:
    """The same for an Accept header that was read before."""
    if not formats:
        return requester.negotiated
    chain = tuple(name.removeprefix("_") for name in formats)
    if len(chain) == 1:
        return Choice(formats=_with_way_out(chain), accept_class="any", varies=False)
    order = tuple(name for name in chain if name not in _MODERN or name in requester.modern) or ("plain",)
    is_cut = order[0] == "avif" and "webp" in chain and "webp" not in order
    return Choice(
        formats=_with_way_out(order),
        accept_class="avifonly" if is_cut else "plain" if order[0] == "original" else order[0],
        varies=any(name in _MODERN for name in chain),
    )


def profile(accept_header: str | None) -> Profile:
    """Read an Accept header. No header, an empty or a useless one means: plain formats."""
    header = accept_header or ""
    if len(header) > HEADER_MAX_CHARS:
        header = header[:HEADER_MAX_CHARS].rpartition(",")[0]
    return _profile(header)


@lru_cache(maxsize=1024)
def _profile(header: str) -> Profile:
    qualities = _qualities(header)
    wishes = {name: qualities.get(f"image/{name}", 0.0) for name in _MODERN}
    wildcard = qualities.get("image/*", qualities.get("*/*", 0.0))
    plain = {name: qualities.get(f"image/{name}", wildcard) for name in _PLAIN}
    readable = [name for name in _PLAIN if plain[name] > 0]
    wishes[readable[0] if len(readable) == 1 else "plain"] = max(plain.values())
    modern = frozenset(name for name in _MODERN if wishes[name] > 0)
    # The order of insertion is the server's own preference, and max takes the first of equals.
    first = max(wishes, key=wishes.__getitem__)
    if not wishes[first]:
        first = "plain"
    order = tuple(name for name in _MODERN[_MODERN.index(first) :] if name in modern) if first in _MODERN else (first,)
    return Profile(
        modern=modern,
        negotiated=Choice(
            formats=_with_way_out(order),
            accept_class="avifonly" if order == ("avif",) else first,
            varies=True,
        ),
    )


def _qualities(header: str) -> dict[str, float]:
    """Media ranges with their q; the highest counts where one is named twice. What is malformed is passed over."""
    found: dict[str, float] = {}
    for element in header.lower().split(","):
        media, *parameters = (part.strip() for part in element.split(";"))
        texts = [
            value.strip() for name, _, value in (part.partition("=") for part in parameters) if name.strip() == "q"
        ]
        if not texts:
            quality = 1.0
        elif _QUALITY.fullmatch(texts[0]):
            quality = float(texts[0])
        else:
            continue
        found[media] = max(quality, found.get(media, 0.0))
    return found


def _with_way_out(order: tuple[str, ...]) -> tuple[str, ...]:
    """The order with ``plain`` behind formats that can't hold every image: AVIF is refused for big outputs,
    and an original's own format may be one that is only read here."""
    if order[-1] in ("avif", "original"):
        return (*order, "plain")
    if len(order) > 1 and order[-1] == "webp":
        return (*order, "plain")
    return order
