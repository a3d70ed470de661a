"""Where a request is going: its authority and its target, raw, whichever form the client chose."""

import re
from typing import Final

from aiohttp import web

_ABSOLUTE: Final = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)


def of(request: web.BaseRequest) -> tuple[str, str]:
    """Authority and raw target. A target in absolute form brings its own authority, which overrules Host.

    RFC 9112 section 3.2.2. An original that is a URL is no absolute form: it stands behind a slash.
    """
    raw = request.raw_path
    absolute = None if raw.startswith("/") else _ABSOLUTE.fullmatch(raw)
    if absolute is None:
        return request.headers.get("Host", ""), raw
    authority, target = absolute.groups()
    return authority, target if target.startswith("/") else "/" + target


def path_of(request: web.BaseRequest) -> str:
    """The raw path of the target."""
    return of(request)[1].partition("?")[0]
