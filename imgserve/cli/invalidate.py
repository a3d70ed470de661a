"""``imgserve invalidate``: a client of POST /invalidate."""

import http.client
import json
import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from imgserve.cli import shared
from imgserve.settings import Listen

_TIMEOUT_S: Final = 30.0
_ANSWER_BYTES_MAX: Final = 1_000_000
_VARIABLE: Final = "IMGSERVE_KEY"


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the path instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(self._path)


@click.command("invalidate")
@shared.with_config
@click.option("--original", "originals", multiple=True, metavar="PATH", help="All variants of this original.")
@click.option("--url", "urls", multiple=True, metavar="PATH?OPTIONS", help="This variant only.")
@click.option("--all", "everything", is_flag=True, help="All images of the key's tenant.")
@click.option("--server", metavar="URL", help="The node to ask.  [default: the first listener of the configuration]")
def command(
    config_path: Path, originals: tuple[str, ...], urls: tuple[str, ...], everything: bool, server: str
) -> None:
    """Make the node forget images, at once.

    The API key names the tenant. It is taken from $IMGSERVE_KEY, else asked for, or read from standard input; it is
    never an argument, where other users could see it.

    \b
      imgserve invalidate --original /_photos_/lake.jpg
      imgserve invalidate --url '/_photos_/lake.jpg?w=400'
    """  # noqa: D301 (click wants the control character itself)
    if sum((bool(originals), bool(urls), everything)) != 1:
        raise click.UsageError("give --original, --url or --all: one kind at a time")
    body: dict[str, object] = {"scope": "original" if originals else "urls" if urls else "all"}
    if originals or urls:
        body["urls"] = list(originals or urls)
    connection = _to_url(server) if server else _to_listener(shared.loaded(config_path).configuration.server.listen[0])
    _print(*_post(connection, json.dumps(body).encode(), _key()))


def _key() -> str:
    """The key from the environment, a hidden question, or standard input."""
    key = os.environ.get(_VARIABLE, "").strip()
    if not key:
        key = click.prompt("Key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not key or not key.isascii() or not key.isprintable():
        raise click.UsageError(f"the key is empty or no plain text; set {_VARIABLE} or pipe it in")
    return str(key)


def _to_url(text: str) -> http.client.HTTPConnection:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise click.UsageError("write --server as http://host:port or https://host:port")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, parts.port, timeout=_TIMEOUT_S)


def _to_listener(listener: Listen) -> http.client.HTTPConnection:
    if listener.family == socket.AF_UNIX:
        return _UnixConnection(listener.path)
    host = listener.host
    if ip_address(host).is_unspecified:  # a listener on all addresses is reached over loopback
        host = "::1" if listener.family == socket.AF_INET6 else "127.0.0.1"
    return http.client.HTTPConnection(host, listener.port, timeout=_TIMEOUT_S)


def _post(connection: http.client.HTTPConnection, body: bytes, key: str) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/json", "Accept": "application/json", "X-Client-Key": key}
    try:
        connection.request("POST", "/invalidate", body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(_ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException) as error:
        raise click.ClickException(f"the node does not answer: {error}; is it running? see --server") from None
    finally:
        connection.close()


def _print(status: int, answer: bytes) -> None:
    """The receipt's number on standard output, or the node's reason as a failure."""
    try:
        document = json.loads(answer)
        uuid = str(document["invalidation"]["uuid"]) if status == http.client.CREATED else ""
    except (ValueError, KeyError, TypeError):
        document, uuid = {}, ""
    if not uuid:
        reason = document.get("detail") if isinstance(document, dict) else None
        raise click.ClickException(f"the node refused with status {status}: {reason or 'no reason given'}")
    shared.say("received; no process of this node serves the old images from now on")
    click.echo(uuid)
