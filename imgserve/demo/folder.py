"""Makes the demo's folder: configuration, samples, and room for data and keys."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

from imgserve.core.errors import ImgserveError
from imgserve.demo.draw import SAMPLES

_AT_A_TIME: Final = 2
_DRAWING_TIMEOUT_S: Final = 300

PATHS: Final = (
    "/_samples_/lake.jpg?w=1200",
    "/_samples_/balloons.jpg?w=600&h=600&func=crop",
    "/_samples_/logo.png?w=400&bg_color=f4f1de",
)
"""What is worth opening: a photo scaled, a portrait turned and cropped, transparency upon a colour."""

_CONFIGURATION: Final = """\
# The demo, on this machine only. A configuration of your own begins with: imgserve config init

[server]
listen = ["127.0.0.1:8080"]
admin_listen = "127.0.0.1:8081"
data_dir = "var"

[cache]
size = "1GB"

[privacy]
keys_dir = "keys"

[operator]
name = "imgserve demo"

[[tenants]]
name = "demo"
hosts = ["demo.localhost"]
default = true
allowed_origins = []

[tenants.aliases]
_samples_ = "{samples}"

[tenants.presets]
thumb = "w=200&h=200&func=crop"

[[tenants.keys]]
name = "demo"
key = "demo-key"
scopes = ["invalidate", "invalidate:all"]
"""


class DemoFailed(ImgserveError):
    """The demo's folder could not be made."""


def make(folder: Path, say: Callable[[str], None]) -> Path:
    """Make what is missing in the folder; the path of its configuration. Raises DemoFailed."""
    samples = folder.absolute() / "samples"
    configuration = folder.absolute() / "imgserve.toml"
    try:
        samples.mkdir(parents=True, exist_ok=True)
        if not configuration.exists():
            target = f"file://{quote(os.fsencode(samples))}"
            configuration.write_text(_CONFIGURATION.format(samples=target), encoding="utf-8")
    except OSError as error:
        raise DemoFailed(f"{folder} cannot be written: {error.strerror}") from error
    _draw_missing(samples, say)
    return configuration


def _draw_missing(samples: Path, say: Callable[[str], None]) -> None:
    missing = [name for name in SAMPLES if not (samples / name).exists()]
    if missing:
        say(f"drawing {len(missing)} sample pictures into {samples}, once")
    running: list[tuple[str, subprocess.Popen[bytes]]] = []
    try:
        while missing or running:
            while missing and len(running) < _AT_A_TIME:
                name = missing.pop(0)
                arguments = [sys.executable, "-m", "imgserve.demo.draw", name, str(samples / name)]
                running.append((name, subprocess.Popen(arguments, stdin=subprocess.DEVNULL)))
            name, process = running.pop(0)
            if process.wait(_DRAWING_TIMEOUT_S):
                raise DemoFailed(f"{name} could not be drawn; what is above says why")
    finally:
        for _, process in running:
            process.kill()
            process.wait()
