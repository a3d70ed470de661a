"""Packets from many processes to one, over an AF_UNIX SOCK_SEQPACKET pair.

A packet is looked at first and taken off the queue only after it has been dealt with: a receiver that is
killed in between leaves it to its successor. So a packet may be seen twice, but is never lost.
The queue lives in the kernel as long as any process holds both ends.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Final

TAG_BYTES: Final = 1
PAYLOAD_BYTES_MAX: Final = 60_000

_SO_SNDBUFFORCE: Final = 32  # socket(7); the socket module does not name it
_PACKET_BYTES_MAX: Final = TAG_BYTES + PAYLOAD_BYTES_MAX


def make_pair(capacity_bytes: int = 32 << 20) -> tuple[socket.socket, socket.socket]:
    """Sending and receiving end; both non-blocking, for all processes that inherit them.

    Unix sockets charge what is queued to the sender, so only its buffer counts, of which the kernel gives twice
    what is asked for, and books a packet at up to twice its size. 32 MiB hold 15,000 packets of 2 KB or 1,000
    of 60 KB. Without CAP_NET_ADMIN the limit is net.core.wmem_max: 212,992 where nobody raised it, which hold
    7 packets of 60 KB. So a sender whose packet is refused does well to keep it and to try again."""
    sending, receiving = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (sending, receiving):
        end.setblocking(False)
    try:
        sending.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, capacity_bytes)
    except PermissionError:
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, capacity_bytes)
    return sending, receiving


class Sender:
    """The end that any number of processes share. Never blocks."""

    max_payload_bytes: Final = PAYLOAD_BYTES_MAX

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.sent = 0
        self.dropped = 0

    def try_send(self, tag: bytes, payload: bytes) -> bool:
        """Queue one packet, whole or not at all; False when the queue is full, which is counted.

        Raises ValueError for a tag that is not one byte or a payload over ``max_payload_bytes``."""
        if len(tag) != TAG_BYTES or len(payload) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"a packet is one tag byte and up to {PAYLOAD_BYTES_MAX} bytes")
        try:
            self._sock.sendmsg((tag, payload), (), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:  # EAGAIN and ENOBUFS: full; EPIPE: nobody will ever read it
            self.dropped += 1
            return False
        self.sent += 1
        return True


class Receiver:
    """The end that one process reads."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._is_finishing = False
        self._waiting: asyncio.Future[None] | None = None

    def finish(self) -> None:
        """Let ``packets`` end once the queue is empty, instead of waiting for more."""
        self._is_finishing = True
        self._wake()

    async def packets(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """Tag and payload of each packet, in order; a packet is consumed when the next one is asked for.

        Ends when all senders are gone and the queue is empty, or after ``finish``. Other tasks get a turn
        between two packets."""
        while True:
            try:
                packet = self._sock.recv(_PACKET_BYTES_MAX, socket.MSG_PEEK)
            except BlockingIOError:
                if self._is_finishing:
                    return
                await self._readable()
                continue
            if not packet:
                return
            yield packet[:TAG_BYTES], packet[TAG_BYTES:]
            self._sock.recv(TAG_BYTES)  # takes the whole packet: what does not fit is discarded
            await asyncio.sleep(0)

    async def _readable(self) -> None:
        """Wait for a packet, the end of all senders, or ``finish``."""
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        loop.add_reader(self._sock, self._wake)
        try:
            await self._waiting
        finally:
            self._waiting = None
            with contextlib.suppress(ValueError):  # closed meanwhile
                loop.remove_reader(self._sock)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
