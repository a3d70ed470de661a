"""What every folder of tests shares: real images, real servers, free ports, and what happens when one is missing."""

import contextlib
import os
import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
CORPUS = PROJECT.parent / "shared" / "corpus"


def missing(reason: str) -> None:
    """Skip with the reason; fail instead where REQUIRE_SERVERS=1 says that everything must be there."""
    if os.environ.get("REQUIRE_SERVERS") == "1":
        pytest.fail(f"required: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root."""
    return PROJECT


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real images."""
    if not CORPUS.is_dir():
        missing(f"no real images in {CORPUS}")
    return CORPUS


@pytest.fixture(scope="session")
def require_server() -> Callable[[str], str]:
    """Gives the path of a server's program, or skips: ``require_server("nginx")``."""

    def require(name: str) -> str:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if found is None:
            missing(f"{name} is not installed")
        assert found is not None
        return found

    return require


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Gives a TCP port of 127.0.0.1 that nobody listened on a moment ago."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    return find


@pytest.fixture
def descriptors_left() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """Inside ``descriptors_left(2)`` this process can open two more files, and no third."""

    @contextlib.contextmanager
    def limit(count: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = [os.dup(0) for _ in range(count + 1)]
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1], hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return limit
