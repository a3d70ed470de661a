"""``imgserve demo``: a running server with pictures to look at, from nothing."""

import os
import signal
import subprocess
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final

import click

from imgserve.cli import shared
from imgserve.demo import folder as demo_folder
from imgserve.settings import Listen

_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOG_LINES_SHOWN: Final = 20


@click.command("demo")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder of the demo; created when missing, reused when there.",
)
def command(folder: Path) -> None:
    """Serve sample pictures on 127.0.0.1:8080, from nothing.

    Draws the pictures once, writes a configuration beside them, serves, and prints addresses to open. Ctrl-C stops it.
    The log of this run goes to imgserve.log in the folder.
    """
    configuration_path = demo_folder.make(folder, shared.say)
    listener = shared.loaded(configuration_path).configuration.server.listen[0]
    sys.exit(_serve(configuration_path, folder / "imgserve.log", listener))


def _serve(configuration_path: Path, log_path: Path, listener: Listen) -> int:
    """Run ``imgserve serve`` as a child and say when it is ready; its exit status."""
    arguments = [sys.executable, "-m", "imgserve", "serve", "--config", str(configuration_path)]
    with log_path.open("wb") as log:
        # In a group of its own, so that Ctrl-C reaches it once: by way of this process.
        server = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, process_group=0
        )

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(server.pid, number)

    previous = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    try:
        assert server.stdout is not None
        if server.stdout.readline():
            _welcome(listener, log_path)
            while server.stdout.readline():
                pass
        code = server.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        server.kill()
        server.wait()
    if code:
        _show_end_of(log_path)
    else:
        shared.say("stopped")
    return 1 if code else 0


def _welcome(listener: Listen, log_path: Path) -> None:
    click.echo("imgserve is ready. Open in a browser:\n")
    for path in demo_folder.PATHS:
        click.echo(f"  http://{listener}{path}")
    click.echo(f"\nCtrl-C stops it. The log is in {log_path}.")
    sys.stdout.flush()


def _show_end_of(log_path: Path) -> None:
    """Why it failed stands in the last lines."""
    with suppress(OSError), log_path.open(encoding="utf-8", errors="replace") as log:
        for line in deque(log, _LOG_LINES_SHOWN):
            shared.say(line.rstrip())
