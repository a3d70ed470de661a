"""``imgserve url``: what a URL means here."""

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
from rich.markup import escape

from imgserve.cli import shared
from imgserve.core import allowlist, grammar, keys, negotiation
from imgserve.core.errors import BadRequest
from imgserve.core.grammar import ImageRequest
from imgserve.core.plan import operations_text
from imgserve.core.tenants import Tenant, Tenants
from imgserve.fast import hashing
from imgserve.settings import Configuration

_BROWSER: Final = "image/avif,image/webp,*/*;q=0.8"


@click.group("url")
def command() -> None:
    """Look at image URLs."""


@command.command("explain")
@shared.with_config
@click.argument("url")
@click.option("--tenant", "name", metavar="NAME", help="Read it as this tenant's.  [default: the host's]")
@click.option("--accept", default=_BROWSER, show_default=True, help="Accept header of the asking browser.")
@click.option("--unsigned", is_flag=True, help="Do not verify a signature.")
def explain(config_path: Path, url: str, name: str | None, accept: str, unsigned: bool) -> None:
    """Say what URL asks for: the original, the plan, and the names of the files that hold it.

    URL is a whole address or only its path with the options. Nothing is fetched.
    """
    configuration = shared.loaded(config_path).configuration
    host, target = _split(url)
    tenant = _tenant(configuration.tenants, name, host)
    request = grammar.parse(target, tenant, must_be_signed=not unsigned)
    choice = negotiation.choose(request.plan.formats, accept)
    rows = [
        ("tenant", tenant.name),
        ("original", request.original.location),
        ("allowed", _permission(request, tenant)),
        ("plan", operations_text(request.plan) or "as it is"),
        ("formats", " or else ".join(choice.formats) + (", by the Accept header" if choice.varies else "")),
        ("same as", grammar.print_request(request, tenant)),
        *_names(request, tenant, choice, configuration),
    ]
    table = shared.table("", "")
    for title, value in rows:
        table.add_row(title, escape(value))
    shared.results().print(table)


def _split(url: str) -> tuple[str, str]:
    """Host and request target. A text without scheme is a target already."""
    if not url.startswith(("http://", "https://")):
        return "", url if url.startswith("/") else f"/{url}"
    parts = urlsplit(url)
    target = url[len(parts.scheme) + 3 + len(parts.netloc) :].partition("#")[0]
    return parts.netloc, target if target.startswith("/") else f"/{target}"


def _tenant(tenants: Tenants, name: str | None, host: str) -> Tenant:
    if name is not None:
        found = tenants.named(name)
        problem = f"there is no tenant {name}"
    elif host:
        found = tenants.for_host(host)
        problem = f"the host {host} belongs to no tenant"
    else:
        found = next(iter(tenants)) if len(tenants) == 1 else None
        problem = "give the whole URL, or --tenant: there are several tenants" if len(tenants) else "there is no tenant"
    if found is None:
        raise click.UsageError(problem)
    return found


def _permission(request: ImageRequest, tenant: Tenant) -> str:
    if request.original.by_alias:
        return "yes, by the tenant's own alias or prefix"
    permission = allowlist.permission(allowlist.parse(request.original.location), tenant)
    return {
        allowlist.Permission.REFUSED: "no: its host is not in allowed_origins",
        allowlist.Permission.PUBLIC: "yes, at public addresses",
        allowlist.Permission.NAMED: "yes",
    }[permission]


def _names(
    request: ImageRequest, tenant: Tenant, choice: negotiation.Choice, configuration: Configuration
) -> list[tuple[str, str]]:
    """Image id and file names; they need the node's own hash key, which its first start makes."""
    path = configuration.hash_key
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return [("image", "not known before the first start of the node")]
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}") from None
    if len(key) != hashing.KEY_BYTES:
        raise BadRequest(f"{path} is not a key of this server")

    def hasher(data: bytes) -> bytes:
        return hashing.siphash128(key, data)

    plan_key = keys.plan_key(hasher, request.plan, request.busters)
    return [
        ("image", keys.image_id(hasher, tenant.name, request.original.location)),
        ("original's file", keys.original_name(hasher, request.busters)),
        ("variant's file", keys.variant_name(plan_key, choice.accept_class)),
    ]
