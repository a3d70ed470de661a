"""The demo's pictures, drawn as SVG: the same seed gives the same picture on every machine."""

import math
from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Final

Point = tuple[float, float]

_NS: Final = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
# One tile of noise is computed and repeated: a whole picture of it takes seconds.
_GRAIN: Final = (
    '<filter id="grain" x="0" y="0" width="100%" height="100%" filterUnits="objectBoundingBox">'
    '<feTurbulence type="fractalNoise" baseFrequency="0.9" numOctaves="2" seed="11" x="0" y="0" width="400" height="400" '
    'stitchTiles="stitch"/><feTile/>'
    '<feColorMatrix values="0 0 0 0 0.5  0 0 0 0 0.5  0 0 0 0 0.5  0.9 0.9 0 0 -0.82"/></filter>'
)


def _svg(width: int, height: int, body: str) -> str:
    """A drawing of at most 2000 pixels a side: libvips draws larger ones tile by tile, all filters anew for each."""
    scale = min(1.0, 1980 / max(width, height))
    size = f'width="{width * scale:.0f}" height="{height * scale:.0f}"'
    return f'<svg {_NS} {size} viewBox="0 0 {width} {height}">{body}</svg>'


def _gradient(name: str, *stops: tuple[float, str]) -> str:
    """A vertical gradient of (offset, colour) stops."""
    inner = "".join(f'<stop offset="{offset}" stop-color="{colour}"/>' for offset, colour in stops)
    return f'<linearGradient id="{name}" x1="0" y1="0" x2="0" y2="1">{inner}</linearGradient>'


def _ridge(random: Random, width: int, level: float, height: float, roughness: float) -> list[Point]:
    """A mountain line by midpoint displacement, from the left edge to the right."""
    points: list[Point] = [
        (0.0, level - height * random.random() * 0.6),
        (float(width), level - height * random.random()),
    ]
    spread = height
    while len(points) < 2**9:
        finer: list[Point] = []
        for (x1, y1), (x2, y2) in pairwise(points):
            finer += [(x1, y1), ((x1 + x2) / 2, (y1 + y2) / 2 + random.uniform(-spread, spread) * 0.5)]
        points = [*finer, points[-1]]
        spread *= roughness
    return points


def _area(points: list[Point], bottom: float, fill: str, extra: str = "") -> str:
    line = " ".join(f"{x:.0f},{y:.1f}" for x, y in points)
    return f'<polygon points="{points[0][0]:.0f},{bottom} {line} {points[-1][0]:.0f},{bottom}" fill="{fill}" {extra}/>'


def _pine(random: Random, x: float, foot: float, height: float) -> str:
    """A dark spruce of ragged layers."""
    left: list[Point] = []
    right: list[Point] = []
    layers = 11
    for layer in range(layers):
        y = foot - height + height * layer / layers
        reach = height * 0.03 + height * 0.17 * (layer + 1) / layers * random.uniform(0.75, 1.15)
        drop = height / layers * 0.9
        left += [(x - reach * 0.35, y), (x - reach, y + drop)]
        right += [(x + reach * 0.35, y), (x + reach * random.uniform(0.85, 1.1), y + drop)]
    outline = [
        (x, foot - height * 1.05),
        *right,
        (x + height * 0.012, foot),
        (x - height * 0.012, foot),
        *reversed(left),
    ]
    return "M" + " L".join(f"{px:.1f},{py:.1f}" for px, py in outline) + "Z"


def lake() -> str:
    """Evening at a mountain lake, 1980 by 1320."""
    random = Random(20)
    width, height, shore = 2400, 1600, 960
    ridges = [
        (720, 300, 0.52, "#b98ba8", "#e6b3a6"),
        (780, 300, 0.53, "#8f6d97", "#c99aa5"),
        (850, 240, 0.54, "#6a5684", "#9d7d9b"),
        (915, 150, 0.56, "#473f6b", "#6d5c86"),
        (955, 70, 0.6, "#2a2a4d", "#3d3a62"),
    ]
    defs = _gradient("sky", (0, "#27305f"), (0.3, "#6a5a93"), (0.55, "#d98b8b"), (0.8, "#ffc07f"), (1, "#ffe2a8"))
    scene = f'<rect width="{width}" height="{shore}" fill="url(#sky)"/>'
    scene += "".join(
        f'<circle cx="{random.uniform(0, width):.0f}" cy="{random.uniform(0, 330):.0f}" r="{random.uniform(0.8, 2.2):.1f}" '
        f'fill="#fff" opacity="{random.uniform(0.2, 0.8):.2f}"/>'
        for _ in range(130)
    )
    clouds = '<g filter="url(#cloud)">' + "".join(_clouds(random, width)) + "</g>"
    sky, scene = scene, ""
    scene += '<circle cx="1390" cy="500" r="520" fill="url(#glow)"/><circle cx="1390" cy="500" r="74" fill="#fff6d8"/>'
    for number, (level, tall, roughness, top, bottom) in enumerate(ridges):
        defs += _gradient(f"r{number}", (0, top), (1, bottom))
        scene += _area(_ridge(random, width, level, tall, roughness), shore, f"url(#r{number})")
    defs += (
        '<radialGradient id="glow"><stop offset="0" stop-color="#fff3c4" stop-opacity="0.95"/>'
        '<stop offset="0.25" stop-color="#ffd58a" stop-opacity="0.55"/><stop offset="1" stop-color="#ff9f6b" stop-opacity="0"/>'
        "</radialGradient>"
        '<filter id="cloud" x="-10%" y="-50%" width="120%" height="200%"><feGaussianBlur stdDeviation="26 7"/></filter>'
        '<filter id="water" filterUnits="userSpaceOnUse" x="0" y="960" width="2400" height="640"><feTurbulence type="turbulence" '
        'baseFrequency="0.0035 0.06" numOctaves="2" seed="5" result="n"/><feDisplacementMap in="SourceGraphic" in2="n" '
        'scale="46" xChannelSelector="R" yChannelSelector="G"/><feGaussianBlur stdDeviation="2.2 0.6"/></filter>'
        f'<clipPath id="below"><rect y="{shore}" width="{width}" height="{height - shore}"/></clipPath>'
    )
    defs += _gradient("depth", (0, "#4c3f6e"), (0.5, "#2c2c57"), (1, "#10132f"))
    # Stars and clouds are too faint to be seen in the water, and blurring them twice takes seconds.
    plain_sky = f'<rect width="{width}" height="{shore}" fill="url(#sky)"/>'
    mirrored = f'<g transform="translate(0 {2 * shore}) scale(1 -1)">{plain_sky}{scene}</g>'
    water = (
        f'<g clip-path="url(#below)"><g filter="url(#water)"><rect y="{shore}" width="{width}" height="700" fill="#2c2c57"/>'
        f'{mirrored}</g><rect y="{shore}" width="{width}" height="{height - shore}" fill="url(#depth)" opacity="0.5"/></g>'
    )
    glints = "".join(_glints(random, shore, height))
    trees = "".join(_forest(random, width, height))
    body = f'<defs>{defs}{_GRAIN}</defs>{sky}{clouds}{scene}{water}{glints}<path d="{trees}" fill="#0b0d20"/>'
    return _svg(width, height, f'{body}<rect width="{width}" height="{height}" filter="url(#grain)" opacity="0.28"/>')


def _clouds(random: Random, width: int) -> Iterator[str]:
    for _ in range(26):
        x, y = random.uniform(-200, width), random.triangular(150, 620, 470)
        colour = random.choice(("#ffd9b0", "#f7a98f", "#e58f93", "#fff0d0"))
        yield (
            f'<ellipse cx="{x:.0f}" cy="{y:.0f}" rx="{random.uniform(90, 420):.0f}" ry="{random.uniform(6, 22):.0f}" '
            f'fill="{colour}" opacity="{random.uniform(0.25, 0.7):.2f}"/>'
        )


def _glints(random: Random, shore: int, height: int) -> Iterator[str]:
    """The sun's road upon the water."""
    for _ in range(300):
        depth = random.random() ** 1.6
        y = shore + 6 + depth * (height - shore - 170)
        x = 1390 + random.gauss(0, 26 + depth * 90)
        yield (
            f'<ellipse cx="{x:.0f}" cy="{y:.0f}" rx="{6 + depth * random.uniform(10, 46):.1f}" ry="{1 + depth * 2.4:.1f}" '
            f'fill="#ffe9b8" opacity="{random.uniform(0.12, 0.62) * (1 - depth * 0.6):.2f}"/>'
        )


def _forest(random: Random, width: int, height: int) -> Iterator[str]:
    yield f"M0,{height} L0,{height - 120} C500,{height - 60} 900,{height - 10} 1300,{height - 26} S2100,{height - 70} {width},{height - 150} L{width},{height} Z "
    for _ in range(70):
        side = random.random()
        x = side**2.2 * 760 if random.random() < 0.55 else width - side**2.2 * 640
        edge = min(x, width - x)
        yield (
            _pine(random, x, height - 20 + random.uniform(-20, 20), random.uniform(0.6, 1.0) * (620 - edge * 0.52))
            + " "
        )


def balloons() -> str:
    """Hot-air balloons above a misty valley, upright: 1320 by 1980."""
    random = Random(8)
    width, height = 1600, 2400
    defs = _gradient("sky", (0, "#2f7fb8"), (0.45, "#8fc7dc"), (0.72, "#fde7c2"), (0.85, "#f9c9a3"), (1, "#f2b48f"))
    defs += (
        '<filter id="soft" x="-20%" y="-60%" width="140%" height="220%"><feGaussianBlur stdDeviation="42 16"/></filter>'
    )
    body = f'<rect width="{width}" height="{height}" fill="url(#sky)"/>'
    layers = ((1760, 200, "#9fb4b4", "#d9cdb4"), (1900, 190, "#6f9488", "#b5bf9f"), (2080, 160, "#456f5c", "#7f9a6d"), (2260, 130, "#234a3d", "#3d6647"))  # fmt: skip
    clouds = "".join(
        f'<ellipse cx="{random.uniform(0, width):.0f}" cy="{random.uniform(250, 1500):.0f}" rx="{random.uniform(160, 420):.0f}" '
        f'ry="{random.uniform(14, 46):.0f}" fill="#fff" opacity="{random.uniform(0.2, 0.6):.2f}"/>'
        for _ in range(16)
    )
    body += f'<g filter="url(#soft)">{clouds}</g>'
    flights = [(1230, 560, 0.5), (330, 1010, 0.42), (1330, 1260, 0.3), (880, 1430, 0.2), (180, 1500, 0.16)]
    palettes = [
        ("#1f6f8b", "#f4f1de", "#e07a5f"),
        ("#81b29a", "#3d405b", "#f2cc8f"),
        ("#d1495b", "#edae49", "#00798c"),
        ("#5f4b8b", "#e69a8d", "#f6e7cb"),
        ("#ef476f", "#ffd166", "#118ab2"),
    ]
    for number, (level, tall, top, bottom) in enumerate(layers):
        if number == 1:
            body += "".join(
                _balloon(x, y, size, palette) for (x, y, size), palette in zip(flights, palettes, strict=True)
            )
        defs += _gradient(f"h{number}", (0, top), (1, bottom))
        body += _area(_ridge(random, width, level, tall, 0.46), height, f"url(#h{number})")
        mist = "".join(
            f'<ellipse cx="{random.uniform(0, width):.0f}" cy="{level + random.uniform(70, 130):.0f}" rx="{random.uniform(260, 560):.0f}" '
            f'ry="{random.uniform(18, 40):.0f}" fill="#fff4e0" opacity="{0.55 - number * 0.11:.2f}"/>'
            for _ in range(7)
        )
        body += f'<g filter="url(#soft)">{mist}</g>'
    body += _balloon(720, 900, 1.0, ("#c8102e", "#ffb81c", "#fff4d6"))
    grain = f'<rect width="{width}" height="{height}" filter="url(#grain)" opacity="0.22"/>'
    return _svg(width, height, f"<defs>{defs}{_shade()}{_GRAIN}</defs>{body}{grain}")


def _shade() -> str:
    return (
        '<linearGradient id="shade" x1="0" x2="1" y1="0" y2="0.25"><stop offset="0" stop-color="#fff" stop-opacity="0.38"/>'
        '<stop offset="0.4" stop-color="#fff" stop-opacity="0"/><stop offset="1" stop-color="#10122a" stop-opacity="0.5"/>'
        "</linearGradient>"
    )


def _balloon(x: float, y: float, size: float, colours: tuple[str, str, str]) -> str:
    """An envelope of twelve gores with its basket, hanging at (x, y)."""
    gores = 12
    parts = []
    for number in range(gores):
        # Meridians of a turned body, seen from the side: x goes by the sine of their angle.
        a, b = (math.sin(math.pi * (edge / gores - 0.5)) for edge in (number, number + 1))
        parts.append(
            f'<path d="M0,-400 C{a * 420:.1f},-400 {a * 420:.1f},-10 {a * 60:.1f},240 L{b * 60:.1f},240 '
            f'C{b * 420:.1f},-10 {b * 420:.1f},-400 0,-400Z" fill="{colours[number % 3]}"/>'
        )
    hull = "M0,-400 C420,-400 420,-10 60,240 L-60,240 C-420,-10 -420,-400 0,-400Z"
    ropes = "".join(
        f'<path d="M{end},240 L{end * 0.62},330" stroke="#2b2118" stroke-width="4"/>' for end in (-58, -20, 20, 58)
    )
    basket = '<rect x="-40" y="328" width="80" height="62" rx="10" fill="#7a4e2b"/><rect x="-44" y="324" width="88" height="14" rx="7" fill="#5a371d"/>'
    band = f'<path d="M-60,240 L60,240 L52,262 L-52,262Z" fill="{colours[0]}"/>'
    return f'<g transform="translate({x} {y}) scale({size})">{ropes}{basket}{"".join(parts)}<path d="{hull}" fill="url(#shade)"/>{band}</g>'


def relief() -> str:
    """An island chain from above, from lit noise: 1980 by 1320."""
    steps = {
        "R": "0.02 0.03 0.04 0.06 0.12 0.25 0.93 0.62 0.36 0.25 0.22 0.42 0.58 0.66 0.88 0.96",
        "G": "0.10 0.14 0.20 0.32 0.50 0.70 0.87 0.70 0.56 0.47 0.40 0.42 0.50 0.60 0.86 0.97",
        "B": "0.26 0.34 0.44 0.56 0.66 0.72 0.68 0.38 0.26 0.21 0.18 0.28 0.40 0.54 0.86 0.99",
    }
    colours = "".join(f'<feFunc{channel} type="table" tableValues="{values}"/>' for channel, values in steps.items())
    height_map = (
        '<feTurbulence type="fractalNoise" baseFrequency="0.0018 0.0025" numOctaves="7" seed="42"/>'
        '<feColorMatrix values="2 0 0 0 -0.57  2 0 0 0 -0.57  2 0 0 0 -0.57  0 0 0 0 1" result="h"/>'
    )
    filters = (
        f'<filter id="land" x="0" y="0" width="100%" height="100%" color-interpolation-filters="sRGB">{height_map}'
        f'<feComponentTransfer in="h" result="c">{colours}</feComponentTransfer>'
        '<feColorMatrix in="h" values="0 0 0 0 0  0 0 0 0 0  0 0 0 0 0  1.35 0 0 0 -0.28" result="a"/>'
        '<feDiffuseLighting in="a" surfaceScale="60" diffuseConstant="1.15" lighting-color="#fff6e2" result="l">'
        '<feDistantLight azimuth="225" elevation="42"/></feDiffuseLighting>'
        '<feComposite in="c" in2="l" operator="arithmetic" k1="1.05" k2="0.16" k3="0" k4="0"/></filter>'
    )
    return _svg(2100, 1400, f'<defs>{filters}</defs><rect width="2100" height="1400" filter="url(#land)"/>')


def poster() -> str:
    """A chart as a poster, with text in four sizes: 1584 by 1980."""
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    sun = (58, 79, 128, 166, 193, 196, 216, 214, 155, 117, 69, 51)
    rain = (51, 41, 48, 53, 65, 55, 63, 43, 55, 60, 51, 59)
    bars = []
    for number, (month, hours, water) in enumerate(zip(months, sun, rain, strict=True)):
        x = 170 + number * 106
        tall = hours * 3.9
        warmth = (hours - min(sun)) / (max(sun) - min(sun))
        colour = "#" + "".join(f"{round(a + (b - a) * warmth):02x}" for a, b in ((58, 255), (160, 179), (232, 71)))
        bars.append(
            f'<rect x="{x}" y="{1460 - tall:.0f}" width="70" height="{tall:.0f}" rx="35" fill="{colour}"/>'
            f'<circle cx="{x + 35}" cy="{1495 - tall:.0f}" r="22" fill="#fff" opacity="0.9"/>'
            f'<text x="{x + 35}" y="{1502 - tall:.0f}" font-size="20" text-anchor="middle" fill="#10243f">{hours}</text>'
            f'<rect x="{x + 29}" y="1500" width="12" height="{water * 2.2:.0f}" rx="6" fill="#5aa9e6"/>'
            f'<text x="{x + 35}" y="1690" font-size="30" text-anchor="middle" fill="#b8c9e0">{month}</text>'
        )
    rings = "".join(
        f'<circle cx="1350" cy="300" r="{radius}" fill="none" stroke="#ffd166" stroke-width="{3 + radius / 60:.1f}" '
        f'stroke-dasharray="{2 + radius / 22:.0f} {10 + radius / 16:.0f}" opacity="{1 - radius / 460:.2f}"/>'
        for radius in range(120, 420, 26)
    )
    body = (
        f'<defs>{_gradient("paper", (0, "#0b1d3a"), (1, "#16335f"))}</defs><rect width="1600" height="2000" fill="url(#paper)"/>'
        f'{rings}<circle cx="1350" cy="300" r="96" fill="#ffd166"/>'
        '<g font-family="DejaVu Sans, Liberation Sans, sans-serif">'
        '<text x="160" y="300" font-size="150" font-weight="bold" fill="#fff">Sun</text>'
        '<text x="160" y="450" font-size="150" font-weight="bold" fill="#5aa9e6">&amp; rain</text>'
        '<text x="164" y="540" font-size="42" fill="#b8c9e0">A year in hours and millimetres</text>'
        f'{"".join(bars)}<path d="M150,1478 H1450" stroke="#b8c9e0" stroke-width="2" opacity="0.5"/>'
        '<text x="164" y="1850" font-size="30" fill="#b8c9e0">Hours of sunshine above the line, rainfall below it.</text>'
        '<text x="164" y="1900" font-size="24" fill="#7f97ba">This poster is a drawing of 7 kB; the pixels you see were made for your screen.</text></g>'
    )
    return _svg(1600, 2000, body)


def logo() -> str:
    """An emblem upon nothing: 1200 by 1200, transparent around and inside."""
    blades = 7
    hues = (348, 22, 44, 150, 188, 218, 276)
    petals = []
    for number, hue in enumerate(hues):
        turn = number * 360 / blades
        petals.append(
            f'<path d="M600,600 m0,-150 C760,-40 990,40 1030,250 C1060,420 900,470 730,520 C700,470 660,450 600,450Z" '
            f'transform="rotate({turn:.2f} 600 600) translate(0 0)" fill="hsl({hue},82%,58%)" fill-opacity="0.86"/>'
        )
    body = "".join(petals)
    return _svg(
        1200,
        1200,
        f'<g transform="translate(48 48) scale(0.92)">{body}<circle cx="600" cy="600" r="146" fill="none" stroke="#fff" stroke-width="14"/></g>',
    )
