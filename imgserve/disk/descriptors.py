"""What happens where a process may open no more files: that passes, and so is no failure of what is opened."""

import contextlib
import errno
import resource
from collections.abc import Iterator
from typing import Final

from imgserve.core.errors import Overloaded

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""The errors that say: no descriptor or memory is left just now."""

_LIMIT_MIN: Final = 1_024  # a front needs one or two for each client, and some for each new image


@contextlib.contextmanager
def exhausted_is_overloaded() -> Iterator[None]:
    """Raise Overloaded where no descriptor is left: there are some again as soon as requests have ended."""
    try:
        yield
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise Overloaded(f"a file cannot be opened: {error.strerror}") from error
        raise


def warning() -> str | None:
    """What to tell the operator where a process may open too few files, else None."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= _LIMIT_MIN:
        return None
    return (
        f"a process may open only {hard} files here, so that few clients at once will find the server busy: "
        f"raise the hard limit to {_LIMIT_MIN:,} or more (ulimit -Hn, LimitNOFILE= of systemd)"
    )
