"""From a plan to a variant: a list of steps over one lazy image. Only workers import this."""

import dataclasses
import errno
import logging
import mmap
import os
import time
from collections.abc import Callable
from typing import Final

import msgspec
import pyvips

from imgserve.adapters.render import wire
from imgserve.adapters.render.sniff import Buffer
from imgserve.adapters.render.steps import (
    colour,
    corners,
    crop,
    load,
    looks,
    orient,
    resize,
    save,
    soften,
    tilt,
    tones,
)
from imgserve.adapters.render.steps.work import Work
from imgserve.core import geometry
from imgserve.core.errors import ImgserveError, NoSpace, OverLimit, RenderFailed, Undecodable

VIPS_MIN: Final = (8, 18, 3)  # older ones have known holes

_STEPS: Final[tuple[Callable[[Work], pyvips.Image], ...]] = (
    load.pixels,
    crop.region,
    resize.scale,
    colour.to_srgb,
    orient.turn,
    tilt.tilt,
    crop.window,
    colour.gray,
    soften.soften,
    tones.tones,
    corners.before_padding,
    colour.background,
    crop.canvas,
    corners.after_padding,
    colour.background,
)
_OUT_OF_MEMORY: Final = ("out of memory", "cannot allocate memory", "unable to allocate", "insufficient memory")
_SAVERS: Final = ("heifsave:", "webpsave:", "vips2webp:", "jpegsave:", "vips2jpeg:")
"""Who is to blame when an encoder fails. PNG's is not here: it speaks up for a decoder that fails under it, too."""


def prepare() -> None:
    """Make the first libvips calls: versions, allow-list, no cache. After the sandbox is up.

    Raises RenderFailed for a libvips that is too old.
    """
    version = tuple(pyvips.version(part) for part in range(3))
    if version < VIPS_MIN:
        raise RenderFailed(f"libvips {version} is older than {VIPS_MIN}; install pyvips-binary")
    load.allow_loaders()
    # What libvips remarks about strangers' images, in words from those images, is not for our log.
    logging.getLogger("pyvips").setLevel(logging.CRITICAL)
    pyvips.cache_set_max(0)
    pyvips.cache_set_max_mem(0)
    pyvips.cache_set_max_files(0)


class Pipeline:
    """Renders jobs one after the other. ``is_near_limit`` says whether memory may have been what failed."""

    def __init__(self, *, allows_svg: bool, is_near_limit: Callable[[], bool] = lambda: False) -> None:
        self._allows_svg = allows_svg
        self._is_near_limit = is_near_limit

    def render(self, job: wire.Job, original_fd: int, target_fd: int) -> wire.Done:
        """Make the variant in ``target_fd`` from offset 0; both descriptors stay the caller's.

        Raises Undecodable, OverLimit, RenderFailed or NoSpace.
        """
        started_s = time.perf_counter()
        try:
            done = self._render(job, original_fd, target_fd)
        except pyvips.Error as error:
            raise self._translated(error) from error
        except MemoryError as error:
            raise RenderFailed("the worker has no memory left") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace("the disk is full") from error
            raise RenderFailed(f"the worker can't read or write: {error.strerror}") from error
        return msgspec.structs.replace(done, render_us=int((time.perf_counter() - started_s) * 1e6))

    def _render(self, job: wire.Job, original_fd: int, target_fd: int) -> wire.Done:
        data = _map(original_fd, job)
        header, image = load.opened(data, job.limits, allows_svg=self._allows_svg)
        plan, trimmed = looks.resolved(job.plan, data, header)
        job = msgspec.structs.replace(job, plan=plan)
        layout = geometry.layout(plan, *header.oriented_size, trimmed)
        work = Work(job=job, data=data, header=header, layout=layout, image=image)
        for step in _STEPS:
            work = dataclasses.replace(work, image=step(work))
        return save.write(work, target_fd)

    def _translated(self, error: pyvips.Error) -> ImgserveError:
        """Who is to blame: the disk, the memory, the encoder, else the original."""
        text = f"{error.message} {error.detail}".strip()
        lower = text.lower()
        if os.strerror(errno.ENOSPC).lower() in lower:
            return NoSpace("the disk is full")
        if any(phrase in lower for phrase in _OUT_OF_MEMORY) or self._is_near_limit():
            return RenderFailed(f"the worker has no memory left: {text}")
        if str(error.detail).startswith(_SAVERS):
            return RenderFailed(text)
        return Undecodable(text)


def _map(original_fd: int, job: wire.Job) -> Buffer:
    """The original's bytes, without a copy, and without moving the offset that others may share."""
    if job.original_bytes > job.limits.max_original_bytes:
        raise OverLimit(
            f"an original of {job.original_bytes} bytes",
            public=f"The original has more than {job.limits.max_original_bytes} bytes (render.max_original_bytes).",
        )
    if not 0 < job.original_bytes <= os.fstat(original_fd).st_size:
        raise Undecodable("an empty original")
    return mmap.mmap(original_fd, job.original_bytes, prot=mmap.PROT_READ)
