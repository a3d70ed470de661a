"""Log lines: one JSON object each, on standard error.

A call names the event and gives fields: ``log.info("child_ready", extra={"child": "front0"})``.
Lines carry no personal data: libraries put peers' addresses into their texts and into their exceptions, so
their texts lose all addresses, and of an exception that is not ours only its type and place are shown.
"""

import logging
import os
import re
import sys
import time
import traceback
from types import TracebackType
from typing import Final, TextIO

import orjson

from imgserve.core.errors import ImgserveError

_OWN_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_IPV4: Final = r"\d{1,3}(?:\.\d{1,3}){3}"
# Rather a time of day too many than an address too few.
_ADDRESS: Final = re.compile(rf"(?:[0-9A-Fa-f]{{0,4}}:){{2,7}}(?:{_IPV4}|[0-9A-Fa-f]{{0,4}})|{_IPV4}")
_FOREIGN_TEXT_MAX: Final = 200
_FRAMES_MAX: Final = 8


class JsonFormatter(logging.Formatter):
    """``process`` names the process in each line: ``supervisor``, ``front0``."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line without its end."""
        line: dict[str, object] = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
        }
        if _is_ours(record.name):
            line["event"] = record.getMessage()
            line |= {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
        else:
            line["event"] = "library_message"
            line["text"] = _without_addresses(record.getMessage())
        if record.exc_info is not None and record.exc_info[1] is not None:
            line |= _described(record.exc_info[1])
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # a file name that is no UTF-8, a number over 64 bits
            return orjson.dumps({name: ascii(value) for name, value in line.items()}).decode()


def configure(process: str, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send all log lines of this process to standard error; again after a fork, under the child's name."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    # What cannot be logged is left out: the standard complaint about it would print all arguments.
    logging.raiseExceptions = False


def _is_ours(logger: str) -> bool:
    return logger.partition(".")[0] == "imgserve"


def _timestamp(at_s: float) -> str:
    whole, milliseconds = divmod(int(at_s * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03}Z"


def _without_addresses(text: str) -> str:
    """First line of a text, cut, with everything that looks like an IP address struck out."""
    return _ADDRESS.sub("(address)", text.partition("\n")[0])[:_FOREIGN_TEXT_MAX]


def _described(error: BaseException) -> dict[str, object]:
    """Type and place of an exception and of its cause. The text only where it is ours, or the system's own."""
    described: dict[str, object] = {"error": type(error).__qualname__, "where": _frames(error.__traceback__)}
    if isinstance(error, ImgserveError):
        described["reason"] = str(error)
    elif isinstance(error, OSError) and error.errno is not None:
        described["reason"] = os.strerror(error.errno)
    if isinstance(error, BaseExceptionGroup):
        described["errors"] = [_described(inner) for inner in error.exceptions]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        described["cause"] = type(cause).__qualname__
    return described


def _frames(innermost: TracebackType | None) -> list[str]:
    """The innermost places of a traceback, as ``file:line function``, the last call last."""
    frames = traceback.extract_tb(innermost)[-_FRAMES_MAX:]
    return [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames]


def _short(filename: str) -> str:
    return "/".join(filename.rsplit("/", 3)[-3:])
