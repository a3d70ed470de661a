"""Subjects' rows by way of the keeper, the only process of a running node that opens day files.

The keeper listens on ``keeper.sock`` in the data folder, which nobody else may enter. One SOCK_SEQPACKET connection is
one request: its packet has pseudonyms and never an address; the answers are packets, the last of which says ``End``. A
connection that ends without it has failed, whatever came before. Requests are served one at a time.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec

from imgserve.core import tenants
from imgserve.core.errors import BadRequest, Overloaded
from imgserve.core.subjects import Day, Row, Search

log = logging.getLogger(__name__)

_NAME: Final = "keeper.sock"
_WAITING_MAX: Final = 8
_PACKET_BYTES_MAX: Final = 128 << 10  # as the kernel's smallest buffer of a sender holds
_ROWS_PER_PACKET: Final = 50  # of at most 700 characters each
_ASK_TIMEOUT_S: Final = 5.0
_SEND_TIMEOUT_S: Final = 30.0
_WORK_TIMEOUT_S: Final = 900.0
_ANSWER_TIMEOUT_S: Final = _WORK_TIMEOUT_S + 60.0


_What = Literal["count", "rows", "erase"]


class _Ask(msgspec.Struct, frozen=True, array_like=True):
    what: _What
    tenant: str
    first: date
    last: date
    names: list[tuple[date, list[tuple[int, bytes]]]]


class _Days(msgspec.Struct, frozen=True, array_like=True, tag="days"):
    days: list[Day]


class _Rows(msgspec.Struct, frozen=True, array_like=True, tag="rows"):
    rows: list[Row]


class _Late(msgspec.Struct, frozen=True, array_like=True, tag="late"):
    """The log could not be brought up to date: nothing was done."""


class _End(msgspec.Struct, frozen=True, array_like=True, tag="end"):
    """That was all."""


_ENCODER: Final = msgspec.msgpack.Encoder()
_ASKED: Final = msgspec.msgpack.Decoder(_Ask)
_ANSWERED: Final = msgspec.msgpack.Decoder(_Days | _Rows | _Late | _End)


class Store(Protocol):
    """What does the work in the keeper."""

    def count(self, search: Search) -> AsyncGenerator[Day, None]:
        """What each day has of the subject."""

    def rows(self, search: Search) -> AsyncGenerator[Sequence[Row], None]:
        """The rows, in bounded portions."""

    def erase(self, search: Search) -> AsyncGenerator[Day, None]:
        """Delete them."""


# ---- the keeper's side ---------------------------------------------------------------------------


class SubjectServer:
    """Serves requests one after the other. ``settle`` brings the log up to date first, or says that it can't."""

    def __init__(self, data_dir: Path, store: Store, settle: Callable[[], Awaitable[bool]]) -> None:
        self._data_dir = data_dir
        self._store = store
        self._settle = settle
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        self.failures = 0

    def listen(self) -> None:
        """Take requests from now on; they wait until ``run``. Raises OSError."""
        with _reachable(self._data_dir) as path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # of a keeper that was killed
            self._listener.bind(path)
        self._listener.listen(_WAITING_MAX)

    async def run(self) -> None:
        """Serve until cancelled; a failed request ends nothing."""
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._listener)
            with connection:
                try:
                    async with asyncio.timeout(_WORK_TIMEOUT_S):
                        await self._serve(connection)
                except (OSError, TimeoutError) as error:  # who asked has gone, or does not read
                    self.failures += 1
                    log.warning("subject_request_cut", extra={"error_kind": type(error).__name__})
                except Exception as error:  # noqa: BLE001 - a task's top: one failed request must not end the others
                    self.failures += 1
                    # The kind only: a traceback may quote values.
                    log.error("subject_request_failed", extra={"error_kind": type(error).__name__})  # noqa: TRY400

    def close(self) -> None:
        """Listen no more; may be called again."""
        self._listener.close()
        with contextlib.suppress(FileNotFoundError), _reachable(self._data_dir) as path:
            os.unlink(path)

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        async with asyncio.timeout(_ASK_TIMEOUT_S):
            packet = await loop.sock_recv(connection, _PACKET_BYTES_MAX)
        if not packet:  # somebody looked whether we are there
            return
        asked = _ASKED.decode(packet)
        if not tenants.is_name(asked.tenant):
            return
        names = {day: dict(pairs) for day, pairs in asked.names}
        search = Search(tenant=asked.tenant, first=asked.first, last=asked.last, names=names)
        if not await self._settle():
            await _send(connection, _ENCODER.encode(_Late()))
            return
        if asked.what == "rows":
            async for rows in self._store.rows(search):
                for start in range(0, len(rows), _ROWS_PER_PACKET):
                    portion = list(rows[start : start + _ROWS_PER_PACKET])
                    await _send(connection, _ENCODER.encode(_Rows(portion)))
        else:
            work = self._store.count if asked.what == "count" else self._store.erase
            async for day in work(search):
                await _send(connection, _ENCODER.encode(_Days([day])))
        await _send(connection, _ENCODER.encode(_End()))


async def _send(connection: socket.socket, packet: bytes) -> None:
    """One packet. Raises OSError or TimeoutError when nobody takes it."""
    async with asyncio.timeout(_SEND_TIMEOUT_S):
        await asyncio.get_running_loop().sock_sendall(connection, packet)


# ---- the side of fronts and commands -------------------------------------------------------------


class RemoteSubjects:
    """Asks the keeper of the node that uses the data folder. Every method raises Overloaded when it does not answer."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def is_there(self) -> bool:
        """Whether a keeper listens."""
        try:
            self._connect().close()
        except Overloaded:
            return False
        return True

    async def count(self, search: Search) -> AsyncGenerator[Day, None]:
        """What each day has of the subject."""
        async for day in self._days("count", search):
            yield day

    async def rows(self, search: Search) -> AsyncGenerator[Sequence[Row], None]:
        """The rows, in bounded portions."""
        async with contextlib.aclosing(self._ask("rows", search)) as answers:
            async for answer in answers:
                if isinstance(answer, _Rows):
                    yield answer.rows

    async def erase(self, search: Search) -> AsyncGenerator[Day, None]:
        """Delete them."""
        async for day in self._days("erase", search):
            yield day

    async def _days(self, what: Literal["count", "erase"], search: Search) -> AsyncGenerator[Day, None]:
        async with contextlib.aclosing(self._ask(what, search)) as answers:
            async for answer in answers:
                if isinstance(answer, _Days):
                    for day in answer.days:
                        yield day

    async def _ask(
        self, what: Literal["count", "rows", "erase"], search: Search
    ) -> AsyncGenerator[_Days | _Rows, None]:
        names = [(day, list(found.items())) for day, found in search.names.items()]
        packet = _ENCODER.encode(_Ask(what, search.tenant, search.first, search.last, names))
        if len(packet) > _PACKET_BYTES_MAX:
            raise BadRequest("The period has too many keys for one request; ask for a shorter one.")
        loop = asyncio.get_running_loop()
        with self._connect() as connection:
            try:
                await _send(connection, packet)
                while True:
                    async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                        received = await loop.sock_recv(connection, _PACKET_BYTES_MAX)
                    if not received:
                        raise Overloaded("the keeper went away before it was done")
                    answer = _ANSWERED.decode(received)
                    match answer:
                        case _End():
                            return
                        case _Late():
                            raise Overloaded("the log could not be brought up to date in time", retry_after_s=10)
                        case _:
                            yield answer
            except (OSError, TimeoutError, msgspec.MsgspecError) as error:
                raise Overloaded("the keeper does not answer") from error

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        try:
            with _reachable(self._data_dir) as path:
                connection.connect(path)
        except OSError as error:  # absent, refused, or too many wait
            connection.close()
            raise Overloaded("the keeper cannot be reached") from error
        return connection


@contextlib.contextmanager
def _reachable(data_dir: Path) -> Iterator[str]:
    """A path of the socket that is short enough for any folder: the kernel takes 107 bytes."""
    folder = os.open(data_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{_NAME}"
    finally:
        os.close(folder)
