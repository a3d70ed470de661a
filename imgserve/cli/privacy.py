"""``imgserve privacy``: a data subject's rights, receipts, and the keys of pseudonyms."""

import asyncio
import json
import os
import sys
import time
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from imgserve.adapters.accesslog import schema
from imgserve.adapters.accesslog.keyring import KeyRing
from imgserve.cli import shared
from imgserve.core import privacy, receipts, subjects, tenants
from imgserve.core.errors import Misconfigured
from imgserve.services.privacy import is_complete
from imgserve.settings import Configuration

_DAY: Final = click.DateTime(formats=["%Y-%m-%d"])


@click.group("privacy")
def command() -> None:
    """Help with requests of data subjects; keys of pseudonyms."""


def _subject_options(function: Any) -> Any:
    for option in (
        click.option("--dry-run", is_flag=True, help="Only count the rows of each day."),
        click.option("--to", "last", type=_DAY, required=True, metavar="DAY", help="Last day, in UTC."),
        click.option("--from", "first", type=_DAY, required=True, metavar="DAY", help="First day, in UTC."),
        click.option(
            "--ip",
            "address",
            required=True,
            metavar="ADDRESS",
            help='"-" reads it from standard input; other users can see an address that stands here.',
        ),
        click.option("--tenant", required=True, metavar="NAME", help="Whose access log."),
        shared.with_config,
    ):
        function = option(function)
    return function


@command.command("export")
@_subject_options
def export(config_path: Path, tenant: str, address: str, first: datetime, last: datetime, *, dry_run: bool) -> None:
    """Print what the access log has about an address, as JSON Lines.

    One address may be many people, and none proves who asks: count with --dry-run first. The rows are found by the
    address's pseudonyms under the keys that are still held. Exit 1 where a day could not be looked through whole.

    \b
      imgserve privacy export --tenant shop --ip - --from 2026-11-01 --to 2026-11-23 < address.txt
    """  # noqa: D301 (click wants the control character itself)
    asked = _asked(address, first, last, is_dry_run=dry_run)
    configuration = _configuration(config_path, tenant)
    sys.exit(0 if asyncio.run(_export(configuration, tenant, asked)) else 1)


@command.command("erase")
@_subject_options
def erase(config_path: Path, tenant: str, address: str, first: datetime, last: datetime, *, dry_run: bool) -> None:
    """Delete what the access log has about an address, and print a signed receipt.

    Covers every request that was answered before this command, today's too. The receipt says "complete", with exit 0,
    once the files hold no byte of the pseudonyms any more; else what is in the way, with exit 1: then run it again.
    """
    asked = _asked(address, first, last, is_dry_run=dry_run)
    configuration = _configuration(config_path, tenant)
    sys.exit(0 if asyncio.run(_erase(configuration, tenant, asked)) else 1)


@command.command("verify")
@shared.with_config
@click.argument("receipt", type=click.File("r", encoding="utf-8"))
def verify(config_path: Path, receipt: Any) -> None:
    """Check that this node signed RECEIPT, a file or "-", and that nobody changed it."""
    keys_dir = shared.loaded(config_path).configuration.accesslog.keys_dir
    try:
        document = receipts.parse(receipt.read())
    except UnicodeDecodeError:
        raise click.ClickException("this is no receipt") from None
    key = KeyRing(keys_dir).known_receipt_key()
    if key is None or not receipts.is_genuine(document, key):
        raise click.ClickException("the signature is not this node's, or the receipt was changed")
    click.echo(f"genuine: {document['kind']} {document['id']}, {document['status']}")


@command.group("keys")
def keys() -> None:
    """Keys of pseudonyms."""


@keys.command("rotate")
@shared.with_config
@click.option("--tenant", required=True, metavar="NAME", help="Whose key.")
@click.option("--now", is_flag=True, help="Replace today's key within its day.")
def rotate(config_path: Path, tenant: str, *, now: bool) -> None:
    """Replace today's key of a tenant; all fronts take the new one within a second.

    Every day has a key of its own anyway, so this is for a key that may have been seen. The replaced one is kept until
    its day's term ends, so that its rows can still be exported and erased. Prints the id of the new key.
    """
    if not now:
        raise click.UsageError("keys change by themselves at midnight UTC; --now replaces today's")
    configuration = _configuration(config_path, tenant)
    keys_dir = configuration.accesslog.keys_dir
    day = privacy.day_of(time.time())
    try:
        made = KeyRing(keys_dir).rotate(tenant, day)
    except OSError as error:
        raise click.ClickException(f"{keys_dir} cannot be written: {error.strerror}") from None
    shared.say(f"replaced the key of {tenant} for {day}")
    click.echo(f"{made.id:08x}")


def _asked(address: str, first: datetime, last: datetime, *, is_dry_run: bool) -> subjects.Request:
    if address == "-":
        address = sys.stdin.readline(256).strip()
    else:
        shared.say("warning: an address on the command line can be seen by other users of this machine; use --ip -")
    return subjects.request(address, first.date(), last.date(), is_dry_run=is_dry_run)


def _configuration(config_path: Path, tenant: str) -> Configuration:
    """The configuration, once it is sure that the tenant is known and that files stay their owner's."""
    configuration = shared.loaded(config_path).configuration
    data_dir, keys_dir = configuration.server.data_dir, configuration.accesslog.keys_dir
    # One that is no longer configured may still have rows.
    has_rows = tenants.is_name(tenant) and schema.folder(data_dir, tenant).is_dir()
    if configuration.tenants.named(tenant) is None and not has_rows:
        raise click.UsageError(f"there is no tenant {tenant}")
    for key, folder in (("server.data_dir", data_dir), ("privacy.keys_dir", keys_dir)):
        if not folder.is_dir():
            raise Misconfigured(key, str(folder), "no node has ever run with this configuration: check the path")
        if folder.stat().st_uid != os.geteuid():
            raise Misconfigured(key, str(folder), "run this command as the user that owns the folder")
    return configuration


async def _export(configuration: Configuration, tenant: str, asked: subjects.Request) -> bool:
    from imgserve import wiring

    async with wiring.build_subjects(configuration) as service:
        counted = await service.count(tenant, asked)
        if asked.is_dry_run:
            click.echo(json.dumps(counted))
        else:
            async with aclosing(service.rows(tenant, asked)) as portions:
                async for rows in portions:
                    click.echo("\n".join(map(json.dumps, rows)))
    return _is_whole(counted)


async def _erase(configuration: Configuration, tenant: str, asked: subjects.Request) -> bool:
    from imgserve import wiring

    async with wiring.build_subjects(configuration) as service:
        answer = await (service.count if asked.is_dry_run else service.erase)(tenant, asked)
    click.echo(json.dumps(answer))
    return _is_whole(answer)


def _is_whole(answer: dict[str, object]) -> bool:
    """Whether nothing was in the way; each day where something was is named on standard error."""
    shared.say(f"{answer['rows']} rows")
    days = answer["days"]
    assert isinstance(days, list)
    for day in days:
        if day["obstacles"]:
            shared.say(f"not complete: {day['day']}: {', '.join(day['obstacles'])}")
    return is_complete(answer)
