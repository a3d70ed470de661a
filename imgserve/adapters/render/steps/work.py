"""The record that the steps hand on."""

from dataclasses import dataclass

import pyvips

from imgserve.adapters.render import wire
from imgserve.adapters.render.sniff import Buffer, Format
from imgserve.core.geometry import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What an original says about itself. Sizes are of its pixels as stored, before orientation."""

    kind: Format
    width: int
    height: int
    orientation: int  # EXIF, 1 to 8
    has_alpha: bool
    is_plain_rgb: bool  # 8-bit sRGB or grey without a profile that would have to be applied

    @property
    def is_turned(self) -> bool:
        """Whether the orientation swaps width and height."""
        return self.orientation >= 5

    @property
    def oriented_size(self) -> tuple[int, int]:
        """Width and height as people see them."""
        return (self.height, self.width) if self.is_turned else (self.width, self.height)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An image on its way from original to variant. ``image`` is lazy: pixels flow when it is saved."""

    job: wire.Job
    data: Buffer
    header: Header
    layout: Layout
    image: pyvips.Image

    @property
    def raw_scaled_size(self) -> tuple[int, int]:
        """The size to scale to before orientation and rotation are applied."""
        size = (self.layout.scaled_width, self.layout.scaled_height)
        is_turned = self.header.is_turned != (self.job.plan.rotate_ccw_degrees in (90, 270))
        return (size[1], size[0]) if is_turned else size
