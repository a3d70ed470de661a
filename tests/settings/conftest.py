"""A configuration in a folder of its own, changed by each test where it matters."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from imgserve.core.errors import Misconfigured
from imgserve.settings import Loaded, load

Load = Callable[..., Loaded]
Refusal = Callable[..., str]


@pytest.fixture
def load_toml(tmp_path: Path) -> Load:
    """Loads a text as the configuration file of ``tmp_path``."""

    def run(text: str = "", environ: Mapping[str, str] | None = None) -> Loaded:
        path = tmp_path / "imgserve.toml"
        path.write_text(text, encoding="utf-8")
        return load(path, environ or {})

    return run


@pytest.fixture
def refusal(load_toml: Load) -> Refusal:
    """The one line with which a configuration is refused."""

    def run(text: str, environ: Mapping[str, str] | None = None) -> str:
        with pytest.raises(Misconfigured) as caught:
            load_toml(text, environ)
        line = str(caught.value)
        assert "\n" not in line
        return line

    return run
