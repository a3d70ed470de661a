"""Each twin test runs on the compiled module and on its Python twin."""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import imgserve.fast

NAMES = sorted(
    name.removeprefix("_").removesuffix("_py")
    for _, name, _ in pkgutil.iter_modules([str(Path(imgserve.fast.__file__).parent)])
    if name.startswith("_") and name.endswith("_py")
)


def compiled(name: str) -> ModuleType:
    return importlib.import_module(f"imgserve.fast._{name}")


def python(name: str) -> ModuleType:
    return importlib.import_module(f"imgserve.fast._{name}_py")


@pytest.fixture(params=["compiled", "python"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hashing(kind: str) -> ModuleType:
    return compiled("hashing") if kind == "compiled" else python("hashing")


@pytest.fixture
def head(kind: str) -> ModuleType:
    return compiled("head") if kind == "compiled" else python("head")


@pytest.fixture
def answers(kind: str) -> ModuleType:
    return compiled("answers") if kind == "compiled" else python("answers")


@pytest.fixture
def events(kind: str) -> ModuleType:
    return compiled("events") if kind == "compiled" else python("events")


@pytest.fixture(params=NAMES)
def twins(request: pytest.FixtureRequest) -> tuple[str, ModuleType, ModuleType]:
    """Name, compiled module and Python twin, of each pair."""
    return request.param, compiled(request.param), python(request.param)
