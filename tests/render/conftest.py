"""Where the real images lie, descriptors that close themselves, and event loops of both kinds."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from tests.render.fleet import ROOT

CORPUS = ROOT.parent / "shared" / "corpus"


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real images."""
    if not CORPUS.is_dir():
        if os.environ.get("REQUIRE_SERVERS") == "1":
            pytest.fail(f"no real images in {CORPUS}")
        pytest.skip(f"no real images in {CORPUS}")
    return CORPUS


@pytest.fixture
def memory_file() -> Iterator[Callable[[bytes], int]]:
    """Makes unnamed files with the given content; they are closed at the test's end."""
    opened: list[int] = []

    def make(content: bytes = b"") -> int:
        opened.append(os.memfd_create("test"))
        os.write(opened[-1], content)
        return opened[-1]

    yield make
    for descriptor in opened:
        os.close(descriptor)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[..., object]:
    """Runs a coroutine on each kind of event loop."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def go(coroutine: object) -> object:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(coroutine)  # type: ignore[arg-type]

    return go
