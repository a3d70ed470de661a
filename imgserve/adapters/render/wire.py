"""What fronts and workers say to each other: one packet each, over SOCK_SEQPACKET sockets.

A job goes through the node's queue with three descriptors (original, target, reply); the answers come
back on the job's own reply socket: ``Started`` with the worker's pidfd, then ``Done`` or ``Failed``.
End of file before that means that the worker died.
"""

import array
import os
import socket
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from imgserve.core import errors
from imgserve.core.plan import Plan

JOB_MAX_BYTES: Final = 4096
ANSWER_MAX_BYTES: Final = 4096
_TEXT_MAX: Final = 1000  # characters of a message: an answer always fits its packet

Kind = Literal["bad_request", "undecodable", "over_limit", "render_failed", "timed_out", "no_space"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What an original may ask of a worker. All sizes are read from its header, before it is decoded."""

    max_original_bytes: int
    max_original_pixels: int
    max_side_px: int


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One variant to make. ``deadline_s`` is CLOCK_MONOTONIC, which all processes of a node share."""

    plan: Plan
    formats: tuple[str, ...]
    original_bytes: int
    limits: Limits
    timeout_s: float
    deadline_s: float


class Started(msgspec.Struct, frozen=True, tag="started", kw_only=True):
    """A worker took the job; its pidfd comes along. ``at_s`` is CLOCK_MONOTONIC."""

    at_s: float


class Done(msgspec.Struct, frozen=True, tag="done", kw_only=True):
    """The variant lies in the target, from offset 0."""

    content_type: str
    size_bytes: int
    width_px: int
    height_px: int
    render_us: int = 0
    is_original: bool = False


class Failed(msgspec.Struct, frozen=True, tag="failed", kw_only=True):
    """The worker lives, and the job has failed."""

    kind: Kind
    message: str
    public: str


Answer = Started | Done | Failed

_ERRORS: Final[dict[Kind, type[errors.ImgserveError]]] = {
    "bad_request": errors.BadRequest,
    "undecodable": errors.Undecodable,
    "over_limit": errors.OverLimit,
    "render_failed": errors.RenderFailed,
    "timed_out": errors.TimedOut,
    "no_space": errors.NoSpace,
}
_KINDS: Final[dict[type[errors.ImgserveError], Kind]] = {error: kind for kind, error in _ERRORS.items()}

_encoder: Final = msgspec.msgpack.Encoder()
_job_decoder: Final = msgspec.msgpack.Decoder(Job)
_answer_decoder: Final = msgspec.msgpack.Decoder(Started | Done | Failed)


class Malformed(ValueError):
    """A packet that no part of this package sends."""


def failure(error: errors.ImgserveError) -> Failed:
    """The packet that tells a front of this error; an error of another kind becomes ``render_failed``."""
    kind = _KINDS.get(type(error), "render_failed")
    return Failed(kind=kind, message=str(error)[:_TEXT_MAX], public=error.public[:_TEXT_MAX])


def error_of(failed: Failed) -> errors.ImgserveError:
    """The error that a worker told of."""
    if failed.kind == "bad_request":
        return errors.BadRequest(failed.public)
    return _ERRORS[failed.kind](failed.message, public=failed.public)


def send_job(queue: socket.socket, job: Job, *, original_fd: int, target_fd: int, reply_fd: int) -> None:
    """Put a job into the queue without waiting. The descriptors stay the caller's.

    Raises BlockingIOError when the queue is full, OSError with ETOOMANYREFS when too many
    descriptors of this user are under way.
    """
    packet = _encoder.encode(job)
    if len(packet) > JOB_MAX_BYTES:
        raise Malformed(f"a job of {len(packet)} bytes")
    _send(queue, packet, (original_fd, target_fd, reply_fd), socket.MSG_DONTWAIT)


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A job with its descriptors, which the worker owns now."""

    job: Job
    original_fd: int
    target_fd: int
    reply: socket.socket

    def close(self) -> None:
        """Give the descriptors back; the front sees the end of the talk."""
        os.close(self.original_fd)
        os.close(self.target_fd)
        self.reply.close()


def take_job(queue: socket.socket) -> Taken | None:
    """Take one job without waiting; None when all senders are gone.

    Raises BlockingIOError when there is none, Malformed for a packet that is no job.
    """
    packet, descriptors = _receive(queue, JOB_MAX_BYTES, 3, socket.MSG_DONTWAIT)
    if not packet and not descriptors:
        return None
    try:
        if len(descriptors) != 3:
            raise Malformed(f"a job with {len(descriptors)} descriptors")
        job = _job_decoder.decode(packet)
        reply = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=descriptors[2])
    except (msgspec.DecodeError, Malformed) as error:
        _close_all(descriptors)
        raise Malformed(str(error)) from error
    return Taken(job=job, original_fd=descriptors[0], target_fd=descriptors[1], reply=reply)


def answer(reply: socket.socket, packet: Answer, descriptors: Sequence[int] = ()) -> bool:
    """Tell the front; False when it has gone away."""
    try:
        _send(reply, _encoder.encode(packet), descriptors, socket.MSG_DONTWAIT)
    except (BrokenPipeError, ConnectionResetError, BlockingIOError):
        return False
    return True


def hear(reply: socket.socket) -> tuple[Answer | None, int | None]:
    """One answer, or None at the end of file, and the pidfd that came along, which is the caller's now.

    Raises BlockingIOError when nothing has been said yet, Malformed for a packet that is no answer.
    """
    try:
        packet, descriptors = _receive(reply, ANSWER_MAX_BYTES, 1, socket.MSG_DONTWAIT)
    except ConnectionResetError:  # the worker died with the job unread in its queue
        return None, None
    pidfd = descriptors[0] if descriptors else None
    if not packet:
        return None, pidfd
    try:
        return _answer_decoder.decode(packet), pidfd
    except msgspec.DecodeError as error:
        _close_all(descriptors)
        raise Malformed(str(error)) from error


def _send(channel: socket.socket, packet: bytes, descriptors: Sequence[int], flags: int) -> None:
    """sendmsg, never sendto: the sandbox forbids the latter."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    channel.sendmsg([packet], rights, flags | socket.MSG_NOSIGNAL)


def _receive(channel: socket.socket, bytes_max: int, descriptors_max: int, flags: int) -> tuple[bytes, list[int]]:
    """One whole packet and its descriptors. Raises Malformed, and keeps none, when it was cut."""
    item_size = array.array("i").itemsize
    packet, ancillary, answer_flags, _ = channel.recvmsg(
        bytes_max, socket.CMSG_SPACE(descriptors_max * item_size), flags | socket.MSG_CMSG_CLOEXEC
    )
    descriptors: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array.array("i")
            received.frombytes(data[: len(data) - len(data) % item_size])
            descriptors.extend(received)
    if answer_flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        _close_all(descriptors)
        raise Malformed("a packet that was cut")
    return packet, descriptors


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
