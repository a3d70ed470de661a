"""Log lines: JSON, and no personal data."""

import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from imgserve.core.errors import NoSpace
from imgserve.node import logs

VISITORS = ("203.0.113.77", "2001:db8::77", "::ffff:203.0.113.77", "fe80::1")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the lines go; logging is as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("front3", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    logging.raiseExceptions = True


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [orjson.loads(text) for text in stream.getvalue().splitlines()]


def test_a_line_is_event_and_fields(stream: io.StringIO) -> None:
    """Our lines have time, level, process, logger, event, and exactly the fields that were given."""
    logging.getLogger("imgserve.node.test").warning("it_happened", extra={"child": "front0", "took_ms": 7})
    (line,) = _lines(stream)

    assert line.pop("time").endswith("Z")
    assert {
        "level": "warning",
        "process": "front3",
        "logger": "imgserve.node.test",
        "event": "it_happened",
        "child": "front0",
        "took_ms": 7,
    } == line


@pytest.mark.parametrize("visitor", VISITORS)
def test_libraries_cannot_write_addresses(stream: io.StringIO, visitor: str) -> None:
    """What asyncio and aiohttp say about their peers loses the address, in text, arguments and exceptions."""
    log = logging.getLogger("asyncio")
    log.error("socket.send() raised exception: raddr=('%s', 5123)", visitor)
    log.error("Error handling request from %s", visitor)
    log.error("Exception in callback <socket raddr=('%s', 1)>\nprotocol: of %s", visitor, visitor)
    try:
        raise ConnectionError(f"lost {visitor}")
    except ConnectionError:
        log.exception("Task exception was never retrieved")
        logging.getLogger("imgserve.web").exception("request_failed")

    lines = _lines(stream)

    assert visitor not in stream.getvalue()
    assert "protocol" not in stream.getvalue()
    assert "Error handling request from (address)" == lines[1]["text"]
    assert "ConnectionError" == lines[-1]["error"]
    assert lines[-1]["where"][-1].endswith("test_libraries_cannot_write_addresses")


def test_our_own_errors_are_told_in_full(stream: io.StringIO) -> None:
    """An error of our tree says its reason, the system's its standard text, and a group all its members."""
    log = logging.getLogger("imgserve.cache")
    for error in (
        NoSpace("no room left under var"),
        OSError(28, "secret"),
        ExceptionGroup("two", [ValueError("secret"), NoSpace("none")]),
    ):
        try:
            raise error
        except (NoSpace, OSError, ExceptionGroup):
            log.exception("failed")
    first, second, third = _lines(stream)

    assert ("NoSpace", "no room left under var") == (first["error"], first["reason"])
    assert ("OSError", "No space left on device") == (second["error"], second["reason"])
    assert ["ValueError", "NoSpace"] == [inner["error"] for inner in third["errors"]]
    assert "secret" not in stream.getvalue()


def test_warnings_and_odd_values_become_lines(stream: io.StringIO) -> None:
    """A Python warning is a line, and a field of any type does not lose its line."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    logging.getLogger("imgserve").info("odd", extra={"value": object(), "keys": {1: {2}}, "text": "\ud800"})
    lines = _lines(stream)

    assert ["library_message", "'odd'"] == [line["event"] for line in lines]
