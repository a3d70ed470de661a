"""The command line as a user has it: a process of its own, in a folder of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path, project: Path) -> Run:
    """Runs ``imgserve ARGUMENTS`` in ``tmp_path``."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("IMGSERVE_")}

    def start(
        *arguments: str, stdin: str = "", environ: dict[str, str] | None = None, **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "imgserve", *arguments],
            cwd=tmp_path,
            env={**clean, "PYTHONPATH": str(project), **(environ or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    return start


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """A valid ``imgserve.toml`` in ``tmp_path`` with one tenant, an alias, a preset and a key."""
    (tmp_path / "photos").mkdir()
    path = tmp_path / "imgserve.toml"
    path.write_text(f"""
[[tenants]]
name = "shop"
hosts = ["shop.example"]
allowed_origins = ["images.example.com"]
[tenants.aliases]
_photos_ = "file://{tmp_path}/photos"
[tenants.presets]
thumb = "w=200&h=200&func=crop"
[[tenants.keys]]
name = "all"
key = "shop-key"
scopes = ["invalidate"]
""")
    return path
