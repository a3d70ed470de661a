"""SVG in a real worker: text has ink, nothing outside is loaded, and vectors are drawn at the asked size."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from imgserve.adapters.render import sandbox
from imgserve.core.errors import ImgserveError, Undecodable
from imgserve.core.plan import Plan
from imgserve.interfaces import Rendered
from tests.render import images
from tests.render.fleet import Fleet

pytestmark = pytest.mark.skipif(sandbox.probe().landlock_abi == 0, reason="SVG needs Landlock, which is missing")

Render = Callable[[bytes, Plan], images.Array]


@pytest.fixture(scope="module")
def draw() -> Iterator[Render]:
    """Renders in a sandboxed worker to PNG."""
    with Fleet() as fleet:

        def draw(svg: bytes, plan: Plan) -> images.Array:
            async def go() -> tuple[Rendered, bytes]:
                original, target = os.memfd_create("original"), os.memfd_create("variant")
                try:
                    os.write(original, svg)
                    rendered = await fleet.pool().render(plan, ("png",), original, target)
                    return rendered, os.pread(target, rendered.size_bytes, 0)
                finally:
                    os.close(original)
                    os.close(target)

            return images.array(asyncio.run(go())[1])

        yield draw


def text(family: str, words: str = "Waffles") -> bytes:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="200" height="60"><rect width="200" height="60" fill="#fff"/>'
        f'<text x="10" y="40" font-family="{family}" font-size="32">{words}</text></svg>'
    ).encode()


def ink(picture: images.Array) -> float:
    """Part of the picture that is dark."""
    return float((picture[..., 0] < 128).mean())


@pytest.mark.parametrize("family", ["sans-serif", "serif", "monospace", "DejaVu Sans", "No Such Font", "Arial"])
def test_text_has_ink(family: str, draw: Render) -> None:
    """Without fonts it would vanish without an error: any family finds one."""
    assert ink(draw(text(family), Plan())) > 0.02


def test_fonts_are_told_apart(draw: Render) -> None:
    """Monospace is another face; and so is bold."""
    assert not np.array_equal(draw(text("sans-serif", "mill"), Plan()), draw(text("monospace", "mill"), Plan()))
    bold = text("sans-serif").replace(b"<text", b'<text font-weight="bold"')
    assert ink(draw(bold, Plan())) > ink(draw(text("sans-serif"), Plan()))


def test_scripts_beyond_latin_have_ink(draw: Render) -> None:
    """Greek, Cyrillic, and symbols."""
    assert ink(draw(text("sans-serif", "Ωμέγα Ж ☂"), Plan())) > 0.02


@pytest.mark.parametrize(
    "reference",
    [
        '<image href="{path}" width="100" height="100"/>',
        '<image xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="file://{path}" width="100" height="100"/>',
        '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{path}" parse="text"/>',
        '<text y="50"><xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{path}" parse="text"/></text>',
        '<style>@import url("{path}");</style>',
        '<use href="{path}#a"/>',
    ],
)
def test_nothing_outside_is_loaded(reference: str, draw: Render, tmp_path: Path) -> None:
    """References to files and other places draw nothing."""
    outside = tmp_path / "red.png"
    outside.write_bytes(images.render(images.png_of(50, 50))[1])
    body = reference.format(path=outside)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100">{body}</svg>'.encode()
    try:
        picture = draw(svg, Plan())
    except Undecodable:
        return
    assert 0 == picture[..., 3].max()


def test_entities_from_files_are_not_read(draw: Render) -> None:
    """An external entity is refused or empty."""
    svg = (
        b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
        b'<svg xmlns="http://www.w3.org/2000/svg" width="300" height="60"><text y="40" font-size="30">&x;</text></svg>'
    )
    try:
        picture = draw(svg, Plan())
    except Undecodable:
        return
    assert 0 == picture[..., 3].max()


def test_entities_do_not_explode(draw: Render) -> None:
    """The billion laughs end as an error, soon."""
    levels = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    svg = (
        f'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a0 "lol">{levels}]>'
        '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><text>&a9;</text></svg>'
    )
    with pytest.raises(ImgserveError):
        draw(svg.encode(), Plan())


def test_vectors_are_drawn_at_the_asked_size(draw: Render) -> None:
    """An icon of 16 px enlarged to 512 has edges of one pixel, not of thirty-two."""
    svg = (
        b'<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16"><rect width="16" height="16" fill="#fff"/>'
        b'<path d="M0 0L16 16H0z"/></svg>'
    )
    picture = draw(svg, Plan(width_px=512))
    assert (512, 512) == picture.shape[:2]
    between = ((picture[..., 0] > 10) & (picture[..., 0] < 245)).sum(axis=1)
    assert between.max() <= 3


def test_a_part_of_a_vector_is_drawn_sharp(draw: Render) -> None:
    """The corners count in the SVG's own pixels."""
    svg = (
        b'<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16"><rect width="16" height="16" fill="#fff"/>'
        b'<rect x="8" width="8" height="16"/></svg>'
    )
    picture = draw(svg, Plan(top_left_px=(4, 4), bottom_right_px=(12, 12), width_px=400))
    assert (400, 400) == picture.shape[:2]
    assert (255, 0) == (picture[200, 195, 0], picture[200, 205, 0])
