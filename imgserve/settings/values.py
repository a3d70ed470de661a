"""Single values of the configuration: sizes, listeners, networks, secrets. All raise Misconfigured."""

import os
import re
import socket
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final

from imgserve.core.errors import Misconfigured
from imgserve.settings.records import Listen
from imgserve.settings.schema import Secret

_UNITS: Final = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_SECRET_BYTES_MAX: Final = 64_000


def size_bytes(key: str, text: str) -> int:
    """Bytes of a text such as ``10GB`` (10^9) or ``64MiB`` (2^20); ``0`` needs no unit."""
    if text.strip() == "0":
        return 0
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2] not in _UNITS:
        raise Misconfigured(key, text, "write a number and one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB, as in 10GB")
    return int(float(match[1]) * _UNITS[match[2]]) if "." in match[1] else int(match[1]) * _UNITS[match[2]]


def listen(key: str, text: str, folder: Path) -> Listen:
    """A listener: ``127.0.0.1:8080``, ``localhost:8080``, ``[::]:8080`` or ``unix:/run/imgserve.sock``."""
    if text.startswith("unix:"):
        return _listen_unix(key, text, folder)
    host, colon, port_text = text.rpartition(":")
    is_port = port_text.isascii() and port_text.isdigit() and int(port_text) <= 65_535
    if not colon or not is_port:
        raise Misconfigured(
            key, text, "write ADDRESS:PORT with a port up to 65535 (0 = any free one), [IPV6]:PORT or unix:PATH"
        )
    if host == "localhost":
        host = "127.0.0.1"
    is_bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ip_address(host[1:-1] if is_bracketed else host)
    except ValueError:
        raise Misconfigured(key, text, "write an IP address, such as 0.0.0.0 for all of IPv4 or [::] for all") from None
    if (address.version == 6) != is_bracketed:
        raise Misconfigured(key, text, f"brackets are for IPv6 only: write {_bracketed(str(address))}:{port_text}")
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    return Listen(family=family, host=str(address), port=int(port_text))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listen_unix(key: str, text: str, folder: Path) -> Listen:
    path = folder / text.removeprefix("unix:")
    if path == folder:
        raise Misconfigured(key, text, "write the socket's path after unix:")
    if not path.parent.is_dir():
        raise Misconfigured(key, text, f"create the folder {path.parent}")
    if len(os.fsencode(path)) > 107:
        raise Misconfigured(key, text, "use a shorter path: a socket's path has at most 107 bytes")
    return Listen(family=socket.AF_UNIX, path=str(path))


def networks(key: str, texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Addresses and networks such as ``10.0.0.0/8``."""
    return tuple(_network(key, text) for text in texts)


def _network(key: str, text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        fix = f"write {ip_network(text, strict=False)}: bits behind the prefix are set"
    except ValueError:
        fix = "write an address or a network, such as 10.0.0.0/8 or fd00::/8"
    raise Misconfigured(key, text, fix)


def name(key: str, text: str) -> str:
    """A short name of letters, digits, dots, hyphens and underscores."""
    if _NAME.fullmatch(text) is None:
        raise Misconfigured(key, text, "use 1 to 63 letters, digits, dots, hyphens or underscores")
    return text


def secret_file(secret: Secret, folder: Path) -> Path | None:
    """The file that a ``file:PATH`` secret lies in."""
    return folder / secret.text.removeprefix("file:") if secret.text.startswith("file:") else None


def reveal(key: str, secret: Secret, folder: Path, environ: Mapping[str, str]) -> str:
    """The text of a secret: the value itself, the stripped content of ``file:PATH``, or the variable ``env:NAME``."""
    text = secret.text
    path = secret_file(secret, folder)
    if path is not None:
        try:
            with path.open(encoding="utf-8") as file:
                text = file.read(_SECRET_BYTES_MAX).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise Misconfigured(key, secret.text, f"the file cannot be read: {reason}") from None
    elif secret.text.startswith("env:"):
        variable = secret.text.removeprefix("env:")
        text = environ.get(variable, "")
        if not text:
            raise Misconfigured(key, secret.text, f"set the environment variable {variable}")
    if not text:
        raise Misconfigured(key, "", "is empty; give the secret itself, file:PATH or env:NAME")
    return text


def is_in_clear(secret: Secret) -> bool:
    """Whether the configuration file itself holds the secret."""
    return not secret.text.startswith(("file:", "env:"))
