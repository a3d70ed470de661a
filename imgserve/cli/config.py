"""``imgserve config``: write a sample file, hash a key."""

import os
import sys
from hashlib import sha256
from pathlib import Path

import click

from imgserve.cli import shared
from imgserve.settings.sample import sample

_KEY_LENGTH_MIN = 16


@click.group("config")
def command() -> None:
    """Write a configuration file, or what goes into it."""


@command.command("init")
@shared.with_config
def init(config_path: Path) -> None:
    """Write a commented configuration file that is valid as it is.

    An existing file is never overwritten.
    """
    try:
        descriptor = os.open(config_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.ClickException(f"{config_path} is there already; name another with --config") from None
    except OSError as error:
        raise click.ClickException(f"{config_path} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(sample())
    click.echo(str(config_path))


@command.command("hash-key")
def hash_key() -> None:
    """Print the "sha256:…" line for an API key.

    The key is asked for, or read from standard input; it is never an argument, where other users could see it.
    """
    key = click.prompt("Key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    if len(key) < _KEY_LENGTH_MIN:
        raise click.ClickException(
            f"use a key of at least {_KEY_LENGTH_MIN} random characters: a short one can be found from its hash"
        )
    click.echo(f"sha256:{sha256(key.encode()).hexdigest()}")
