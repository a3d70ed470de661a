"""Where the real images lie."""

import os
from pathlib import Path

import pytest

from tests.render.fleet import ROOT


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real images."""
    folder = ROOT.parent / "shared" / "corpus"
    if not folder.is_dir():
        if os.environ.get("REQUIRE_SERVERS") == "1":
            pytest.fail(f"no real images in {folder}")
        pytest.skip(f"no real images in {folder}")
    return folder
