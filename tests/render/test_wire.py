"""Jobs and answers between fronts and workers."""

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgserve.adapters.render import wire
from imgserve.core import errors
from imgserve.core.plan import Gravity, GravityKind, Mode, Plan

LIMITS = wire.Limits(max_original_bytes=1, max_original_pixels=2, max_side_px=3)

_pairs = st.tuples(st.integers(0, 70_000), st.integers(0, 70_000))
_sides = st.none() | st.integers(1, 70_000)
_plans = st.builds(
    Plan,
    top_left_px=st.none() | _pairs,
    bottom_right_px=st.none() | _pairs,
    flip_horizontal=st.booleans(),
    rotate_ccw_degrees=st.sampled_from((0, 90, 180, 270)),
    width_px=_sides,
    height_px=_sides,
    mode=st.sampled_from(Mode),
    gravity=st.builds(Gravity, kind=st.sampled_from(GravityKind), x=st.floats(0, 70_000), y=st.floats(allow_nan=False)),
    background=st.none() | st.tuples(*(st.integers(0, 255),) * 3),
    quality=st.none() | st.integers(1, 100),
    formats=st.lists(st.sampled_from(("avif", "webp", "jpeg", "png")), max_size=6).map(tuple),
)


def job(plan: Plan | None = None) -> wire.Job:
    return wire.Job(
        plan=plan or Plan(), formats=("webp",), original_bytes=5, limits=LIMITS, timeout_s=1.5, deadline_s=2.5
    )


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def put(sending: socket.socket, sent: wire.Job, reply: socket.socket) -> None:
    with open(os.devnull, "rb") as original, open(os.devnull, "wb") as target:
        wire.send_job(sending, sent, original_fd=original.fileno(), target_fd=target.fileno(), reply_fd=reply.fileno())


@given(_plans)
def test_every_plan_arrives_as_it_was(plan: Plan) -> None:
    """What a worker takes equals what a front sent, and fits the packet that the queue is measured for."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        put(ours, job(plan), ours)
        taken = wire.take_job(theirs)
    assert taken is not None
    taken.close()
    assert job(plan) == taken.job


def test_descriptors_are_the_sent_files(
    channel: tuple[socket.socket, socket.socket], tmp_path: os.PathLike[str]
) -> None:
    """Original, target and reply arrive in this order."""
    original_path, target_path = (os.path.join(tmp_path, name) for name in ("original", "target"))
    reply, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with open(original_path, "wb+") as original, open(target_path, "wb+") as target, reply, ours:
        wire.send_job(
            channel[0], job(), original_fd=original.fileno(), target_fd=target.fileno(), reply_fd=reply.fileno()
        )
        taken = wire.take_job(channel[1])
        assert taken is not None
        same = [os.path.samestat(os.fstat(taken.original_fd), os.fstat(original.fileno()))]
        same.append(os.path.samestat(os.fstat(taken.target_fd), os.fstat(target.fileno())))
        pidfd = os.pidfd_open(os.getpid())
        assert wire.answer(taken.reply, wire.Started(at_s=3.0), (pidfd,))
        os.close(pidfd)
        answer, received = wire.hear(ours)
        assert received is not None
        os.close(received)
        taken.close()
    assert ([True, True], wire.Started(at_s=3.0)) == (same, answer)


@pytest.mark.parametrize(
    "error",
    [
        errors.BadRequest("b"),
        errors.Undecodable("u", public="p"),
        errors.OverLimit("o", public="too wide"),
        errors.RenderFailed("r"),
        errors.TimedOut("t"),
        errors.NoSpace("n"),
    ],
)
def test_errors_keep_their_kind_and_texts(error: errors.ImgserveError) -> None:
    """A front raises what the worker raised, with both texts."""
    heard = wire.error_of(wire.failure(error))
    assert (type(error), str(error), error.public) == (type(heard), str(heard), heard.public)


def test_an_unforeseen_error_becomes_render_failed() -> None:
    """Of other errors a front learns that rendering failed."""
    assert wire.failure(errors.Superseded("x")).kind == "render_failed"


def test_long_messages_fit_a_packet(channel: tuple[socket.socket, socket.socket]) -> None:
    """libvips can say a great deal; an answer never exceeds its packet."""
    assert wire.answer(channel[0], wire.failure(errors.Undecodable("é" * 100_000)))
    answer, _ = wire.hear(channel[1])
    assert isinstance(answer, wire.Failed)


@pytest.mark.parametrize("packet", [b"\xc1", b"{}", b"x" * (wire.JOB_MAX_BYTES + 1)])
def test_what_is_no_job_is_refused_and_leaves_no_descriptor(
    packet: bytes, channel: tuple[socket.socket, socket.socket]
) -> None:
    """Malformed packets, cut ones too, are refused, and what came along is closed."""
    before = len(os.listdir("/proc/self/fd"))
    with open(os.devnull, "rb") as file:
        socket.send_fds(channel[0], [packet], [file.fileno()] * 3)
    with pytest.raises(wire.Malformed):
        wire.take_job(channel[1])
    assert before == len(os.listdir("/proc/self/fd"))


def test_the_end_of_the_queue_is_none(channel: tuple[socket.socket, socket.socket]) -> None:
    """All senders gone: no job, and no error."""
    channel[0].close()
    assert wire.take_job(channel[1]) is None


def test_an_empty_queue_does_not_wait(channel: tuple[socket.socket, socket.socket]) -> None:
    """Another worker may have been faster."""
    with pytest.raises(BlockingIOError):
        wire.take_job(channel[1])


def test_an_answer_to_nobody_is_false(channel: tuple[socket.socket, socket.socket]) -> None:
    """A worker learns that its front has gone away, without a signal."""
    channel[1].close()
    assert not wire.answer(channel[0], wire.Started(at_s=0.0))
