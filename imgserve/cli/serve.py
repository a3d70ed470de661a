"""``imgserve serve``: be a node until told to stop."""

import sys
from pathlib import Path

import click

from imgserve.cli import shared


@click.command("serve")
@shared.with_config
def command(config_path: Path) -> None:
    """Serve images until SIGTERM or Ctrl-C.

    SIGTERM and SIGINT drain and stop. SIGHUP takes up changed tenants; when the changed file has a mistake, the
    running configuration stays.
    """
    loaded = shared.loaded(config_path)
    # Only this command needs the server's libraries; the others start in a fraction of the time.
    from imgserve.node import supervisor

    sys.exit(supervisor.run(config_path.absolute(), loaded))
