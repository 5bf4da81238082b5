"""The recipe of the sample datasets in samples/: `python demo/make_samples.py [--out FOLDER] [--check]`.

Draws two small datasets, each with held-out samples whose shapes, patterns and colours no training sample uses:
background removal (a subject on a busy background -> the same pixels on white) and try-on (a person, glasses alone,
a hat alone -> the person wearing both). Everything is drawn from the tables below in one sticker style: a dark line
around each part, light from the upper left. Each row of a table is one sample.

Coordinates are pixels of the finished picture, from its centre, x to the right and y down.
"""

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = 128  # pixels, width and height of every picture
SCALE = 4  # supersampling while drawing
INK = (98, 76, 116)  # the line around every part
LINE = 3.0  # its width, pixels
DIM = 0.46  # brightness of busy backgrounds: the light is on the subject
PUPIL = (48, 34, 60)  # eyes and mouths
WHITE = (255, 255, 255)
STUDIO = (244, 244, 246)  # behind the products
LIGHT, SHADE = (255, 248, 226), (52, 22, 84)  # what lit and shaded sides lean to
BLUSH = (240, 110, 120)

RGB = tuple[int, int, int]
Points = Sequence[tuple[float, float]]


# Paths ----------------------------------------------------------------------------------------------------------------


class Path2D(NamedTuple):
    """A closed outline (``width`` 0) or an open line of that width with round ends."""

    points: np.ndarray  # (n, 2)
    width: float = 0.0

    def turned(self, degrees: float, scale: float = 1.0, x: float = 0.0, y: float = 0.0) -> "Path2D":
        """Turned clockwise and scaled about (0, 0), then moved by (x, y)."""
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        return Path2D(self.points @ np.array([[c, s], [-s, c]]) * scale + (x, y), self.width * scale)

    def moved(self, x: float, y: float) -> "Path2D":
        return Path2D(self.points + (x, y), self.width)

    def edge(self, width: float) -> "Path2D":
        """The line along a closed outline."""
        return Path2D(np.concatenate([self.points, self.points[:2]]), width)

    def flipped(self) -> "Path2D":
        """Mirrored left to right."""
        return Path2D(self.points * (-1, 1), self.width)


def _spline(points: Points, closed: bool, steps: int = 10) -> np.ndarray:
    """A uniform Catmull-Rom spline through ``points``."""
    p = np.array(points, float)
    p = np.concatenate([p[-1:], p, p[:2]] if closed else [p[:1], p, p[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    spans = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:]):
        spans.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate([*spans, p[-2:-1]])


def blob(*points: tuple[float, float]) -> Path2D:
    """A smooth closed outline through the points."""
    return Path2D(_spline(points, closed=True))


def ribbon(width: float, *points: tuple[float, float]) -> Path2D:
    """A smooth open line through the points."""
    return Path2D(_spline(points, closed=False), width)


def mirrored(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """A right half, top to bottom, completed with its mirror image; points on the axis are not doubled."""
    half = list(points)
    return half + [(-x, y) for x, y in reversed(half) if x]


def ellipse(x: float, y: float, rx: float, ry: float | None = None, turn: float = 0.0) -> Path2D:
    t = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    ring = np.stack([rx * np.cos(t), (rx if ry is None else ry) * np.sin(t)], 1)
    return Path2D(ring).turned(turn, x=x, y=y)


def polygon(points: Points, r: float = 4.0) -> Path2D:
    """A polygon whose corners are rounded, starting ``r`` pixels (at most half the side) before each."""
    p = np.array(points, float)
    t = np.linspace(0, 1, 9)[:, None]
    corners = []
    for before, corner, after in zip(np.roll(p, 1, 0), p, np.roll(p, -1, 0)):
        a, b = (corner + (q - corner) * min(0.5, r / np.linalg.norm(q - corner)) for q in (before, after))
        corners.append((1 - t) ** 2 * a + 2 * t * (1 - t) * corner + t**2 * b)
    return Path2D(np.concatenate(corners))


def box(x0: float, y0: float, x1: float, y1: float, r: float = 6.0) -> Path2D:
    return polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], r)


def star(x: float, y: float, outer: float, inner: float, tips: int = 5, r: float = 3.0) -> Path2D:
    angles = [math.pi * k / tips - math.pi / 2 for k in range(2 * tips)]
    radii = [outer, inner] * tips
    return polygon([(x + q * math.cos(a), y + q * math.sin(a)) for q, a in zip(radii, angles)], r)


def heart(x: float, y: float, r: float) -> Path2D:
    half = [(0, -0.45), (0.35, -0.85), (0.85, -0.8), (1.0, -0.3), (0.65, 0.35), (0, 1.0)]
    outline = _spline(half, closed=False).tolist()
    return Path2D(np.array(mirrored(outline))).turned(0, r, x, y)


# Patterns: functions of pixel coordinates that give the number of the colour at each place ----------------------------

Array = np.ndarray
Pattern = Callable[[Array, Array], Array]


def _cell(x: Array, period: float) -> Array:
    """Coordinates from the centre of the cell that each place lies in."""
    return (x + period / 2) % period - period / 2


def plain(x: Array, y: Array) -> Array:
    return np.zeros(x.shape, int)


def stripes(x: Array, y: Array, period: float = 24) -> Array:
    return (x // (period / 2)).astype(int)


def bands(x: Array, y: Array, period: float = 20) -> Array:
    return stripes(y, x, period)


def dots(x: Array, y: Array, period: float = 30) -> Array:
    row = np.floor(y / period + 0.5).astype(int)
    return np.where(np.hypot(_cell(x + row % 2 * period / 2, period), _cell(y, period)) < period * 0.31, 1 + row % 2, 0)


def checks(x: Array, y: Array, period: float = 44) -> Array:
    return (x // (period / 2) + y // (period / 2)).astype(int)


def waves(x: Array, y: Array, period: float = 34) -> Array:
    return ((y + 6 * np.sin(x * 2 * math.pi / 44)) // (period / 2)).astype(int)


def zigzag(x: Array, y: Array, period: float = 36) -> Array:
    return ((y + np.abs(_cell(x, 40)) * 0.8) // (period / 2)).astype(int)


def bubbles(x: Array, y: Array) -> Array:
    """Large rings of discs on a wide grid."""
    r = np.hypot(_cell(x, 52), _cell(y, 52))
    return np.where(r < 12, 2, np.where(r < 22, 1, 0))


def hills(x: Array, y: Array) -> Array:
    """Overlapping mounds, row behind row."""
    level = np.zeros(x.shape, int)
    for row in range(-4, 4):
        top = row * 26 - 12 * np.cos((x + row * 23) * 2 * math.pi / 64)
        level = np.where(y > top, row + 4, level)
    return level


def tiles(x: Array, y: Array) -> Array:
    """Triangles: squares cut along alternate diagonals."""
    p = 38
    u, v, column, row = x % p, y % p, (x // p).astype(int), (y // p).astype(int)
    cut = np.where((column + row) % 2 == 0, u > v, u + v > p)
    return cut + (column + row) % 2


def rings(x: Array, y: Array) -> Array:
    return (np.hypot(x - 26, y + 22) // 13).astype(int)


def rays(x: Array, y: Array) -> Array:
    return ((np.arctan2(y - 8, x + 6) / math.pi * 9 + 9) // 1).astype(int)


def scallops(x: Array, y: Array) -> Array:
    """Fish scales."""
    level = np.zeros(x.shape, int)
    for row in range(6, -8, -1):
        r = np.hypot(_cell(x + row % 2 * 24, 48), y - row * 24)
        level = np.where(r < 25, row % 3 + (r < 13), level)
    return level


def diamonds(x: Array, y: Array) -> Array:
    u, v = np.abs(_cell(x, 40)) / 20, np.abs(_cell(y, 56)) / 28
    return np.where(u + v < 0.45, 2, np.where(u + v < 1, 1, 0))


def crosses(x: Array, y: Array) -> Array:
    row = np.floor(y / 42 + 0.5).astype(int)
    u, v = np.abs(_cell(x + row % 2 * 21, 42)), np.abs(_cell(y, 42))
    return np.where((np.minimum(u, v) < 6) & (np.maximum(u, v) < 17), 1 + row % 2, 0)


def spiral(x: Array, y: Array) -> Array:
    return ((np.hypot(x + 10, y + 4) / 30 + np.arctan2(y + 4, x + 10) / (2 * math.pi)) * 2 // 1).astype(int)


def polka(x: Array, y: Array) -> Array:
    return np.minimum(dots(x, y, 17), 1)


def slant(x: Array, y: Array) -> Array:
    return stripes(x + y, y, 26)


def gingham(x: Array, y: Array) -> Array:
    return (x // 10 % 2 + y // 10 % 2).astype(int)


def chevrons(x: Array, y: Array) -> Array:
    return ((y + np.abs(_cell(x, 28)) * 0.9) // 10).astype(int)


class Cloth(NamedTuple):
    """A fill with a pattern."""

    pattern: Pattern
    colors: tuple[RGB, ...]


Fill = RGB | Cloth


def render(cloth: Cloth, turn: float = 0.0, x: float = 0.0, y: float = 0.0) -> Image.Image:
    """The pattern over a whole canvas at drawing size, turned by ``turn`` degrees, its origin at (x, y)."""
    py, px = (np.mgrid[0 : SIZE * SCALE, 0 : SIZE * SCALE] + 0.5) / SCALE - SIZE / 2
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    u, v = c * (px - x) + s * (py - y), c * (py - y) - s * (px - x)
    return Image.fromarray(np.array(cloth.colors, np.uint8)[cloth.pattern(u, v) % len(cloth.colors)])


# Drawing --------------------------------------------------------------------------------------------------------------


class Drawing:
    """A transparent picture at drawing size to which parts are added from back to front.

    ``x``, ``y``, ``turn`` (degrees) and ``scale`` place everything that is drawn.
    """

    def __init__(self, x: float = 0.0, y: float = 0.0, turn: float = 0.0, scale: float = 1.0):
        self.x, self.y, self.turn, self.scale = x, y, turn, scale
        self.image = Image.new("RGBA", (SIZE * SCALE,) * 2)

    def _mask(self, path: Path2D, grow: float = 0.0) -> Image.Image:
        """The area of a path, ``grow`` pixels larger on each side."""
        path = path.turned(self.turn, self.scale, self.x, self.y)
        points = [tuple(p) for p in (path.points + SIZE / 2) * SCALE]
        mask = Image.new("L", self.image.size)
        draw = ImageDraw.Draw(mask)
        if not path.width:
            draw.polygon(points, fill=255)
        if radius := (path.width / 2 + grow * self.scale) * SCALE:
            line = points if path.width else [*points, points[0]]
            draw.line(line, fill=255, width=round(2 * radius))
            for px, py in points:  # round joints and ends
                draw.circle((px, py), radius - 0.5, fill=255)
        return mask.filter(ImageFilter.GaussianBlur(SCALE / 2)).point(lambda v: 255 * (v > 127))  # evens the edge

    def part(self, path: Path2D, fill: Fill, line: float = LINE, within: Path2D | None = None, volume: float = 1.0):
        """Add a part with its line around it and soft light and shade of strength ``volume``.

        With ``within`` only what lies inside that other path is drawn, without a line.
        """
        mask = self._mask(path)
        if within is not None:
            mask, line = ImageChops.multiply(mask, self._mask(within)), 0
        if line:
            self.image.paste(INK, mask=self._mask(path, line))
        cloth = render(fill, self.turn, self.x, self.y) if isinstance(fill, Cloth) else fill
        self.image.paste(cloth, mask=mask)
        if volume and (bounds := mask.getbbox()):
            self._shade(mask, bounds, volume)

    def _shade(self, mask: Image.Image, bounds: tuple[int, int, int, int], volume: float) -> None:
        """Light along the upper left edge and shade along the lower right one."""
        depth = min(6.0 * SCALE, 0.14 * min(bounds[2] - bounds[0], bounds[3] - bounds[1]))
        margin = int(3 * depth) + 1  # what wraps around in offset() stays outside the mask
        area = (bounds[0] - margin, bounds[1] - margin, bounds[2] + margin, bounds[3] + margin)
        mask = mask.crop(area)
        soft = mask.filter(ImageFilter.GaussianBlur(depth * 0.7))
        for color, strength, side in ((LIGHT, 0.42, 1), (SHADE, 0.46, -1)):
            rim = ImageChops.subtract(mask, ImageChops.offset(soft, round(side * depth)))
            rim = rim.point([min(255, round(volume * strength * v)) for v in range(256)])
            self.image.paste(color, area[:2], rim)

    def mark(self, path: Path2D, color: RGB, alpha: float = 1.0, within: Path2D | None = None) -> None:
        """Add a flat detail without line and light, where something is drawn already."""
        mask = self._mask(path)
        if within is not None:
            mask = ImageChops.multiply(mask, self._mask(within))
        self.image.paste(color, mask=mask.point([round(alpha * v) for v in range(256)]))

    def gleam(self, x: float, y: float, r: float, within: Path2D | None = None) -> None:
        """A highlight, as of a window, on the upper left of something glossy."""
        self.mark(ellipse(x, y, r, r * 0.55, -40), LIGHT, 0.5, within)

    def on(self, ground: Image.Image | RGB) -> Image.Image:
        """The drawing on a ground at drawing size."""
        back = Image.new("RGB", self.image.size, ground) if isinstance(ground, tuple) else ground.copy()
        back.paste(self.image, mask=self.image)
        return back


def smile(d: Drawing, x: float, y: float, half: float, depth: float, color: RGB = PUPIL, width: float = 3.0) -> None:
    """An arc that is open upwards."""
    arc = [(x + half * math.sin(t), y + depth * math.cos(t)) for t in np.linspace(-1.5, 1.5, 7)]
    d.mark(ribbon(width, *arc), color)


def finish(picture: Image.Image) -> Image.Image:
    return picture.reduce(SCALE)


def face(d: Drawing, x: float, y: float, gap: float = 13.0, cheeks: bool = True) -> None:
    """Two eyes and a smile, ``gap`` pixels from the middle to each eye."""
    for side in (-1, 1):
        d.mark(ellipse(x + side * gap, y, 3.7, 4.5), PUPIL)
        d.mark(ellipse(x + side * gap - 1.2, y - 1.6, 1.5), LIGHT, 0.85)
        if cheeks:
            d.mark(ellipse(x + side * (gap + 6.5), y + 6.5, 4.6, 3.1), BLUSH, 0.55)
    smile(d, x, y + 5, 4.6, 4.2)


# Subjects of background removal: each is drawn with three colours -----------------------------------------------------

SUBJECT_COLORS: dict[str, RGB] = {
    **{"red": (222, 66, 64), "coral": (242, 126, 98), "orange": (242, 146, 46), "amber": (246, 190, 74)},
    **{"lime": (164, 200, 72), "green": (84, 168, 88), "teal": (40, 156, 148), "sky": (98, 184, 220)},
    **{"blue": (66, 124, 214), "indigo": (98, 92, 196), "purple": (150, 96, 202), "magenta": (204, 78, 160)},
    **{"pink": (244, 146, 178), "brown": (150, 98, 68), "tan": (226, 182, 132), "wine": (142, 48, 82)},
    **{"navy": (58, 72, 132), "grey": (136, 146, 168), "lilac": (190, 158, 226), "mint": (128, 204, 168)},
    **{"slate": (92, 96, 122), "screen": (58, 58, 92), "glass": (74, 96, 150)},
}
HELD_OUT_SUBJECT_COLORS: dict[str, RGB] = {
    **{"vermilion": (226, 96, 44), "saffron": (220, 172, 36), "olive": (140, 154, 50), "emerald": (28, 142, 96)},
    **{"azure": (30, 148, 206), "cobalt": (52, 94, 176), "violet": (122, 70, 168), "orchid": (216, 118, 204)},
    **{"rose": (226, 92, 116), "umber": (112, 72, 52), "sand": (204, 164, 104), "aqua": (92, 204, 204)},
    **{"plum": (110, 46, 104), "peach": (250, 172, 128), "steel": (112, 128, 156), "butter": (238, 214, 118)},
    **{"optic": (84, 44, 76)},
}


def apple(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(ribbon(5, (0, -24), (2, -36), (8, -44)), c)
    body = blob(*mirrored([(0, -25), (17, -33), (38, -24), (44, 4), (32, 33), (13, 43), (0, 40)]))
    d.part(body, a)
    d.part(blob((5, -33), (16, -46), (34, -44), (27, -32), (14, -29)), b)
    d.gleam(-24, -14, 9)
    face(d, 0, 8, 14)


def mug(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(ribbon(9, (28, -14), (45, -14), (48, 8), (40, 22), (26, 22)), b)
    body = polygon([(-42, -34), (30, -34), (27, 42), (-39, 42)], 12)
    d.part(body, a)
    d.part(box(-50, 26, 40, 34, 1), b, within=body, volume=0)
    d.part(ellipse(-6, -32, 36, 9), b)
    d.part(ellipse(-6, -31, 27, 4.5), c, line=0, volume=0)
    d.gleam(-30, -12, 6)
    face(d, -6, 2, 13)


def fish(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(blob((24, 2), (44, -26), (54, -18), (47, 3), (53, 24), (43, 30)), b)
    d.part(blob((-16, -24), (-4, -42), (18, -38), (24, -20)), b)
    d.part(blob((-8, 24), (-2, 38), (12, 38), (18, 22)), b)
    body = ellipse(-8, 1, 42, 31)
    d.part(body, a)
    for x in (2, 20):
        d.part(ribbon(8, (x, -36), (x + 7, 1), (x, 36)), c, within=body, volume=0)
    d.part(blob((-2, 4), (12, 2), (17, 12), (4, 18)), b)
    d.mark(ellipse(-28, -6, 7.5), LIGHT, 0.7)
    d.mark(ellipse(-29, -5, 4.6), PUPIL)
    d.mark(ribbon(3, (-45, 9), (-40, 13), (-33, 12)), PUPIL)
    d.mark(ellipse(-22, 10, 5, 3.4), BLUSH, 0.55)


def chick(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    for x in (-13, 13):
        d.part(ellipse(x, 41, 9, 5), b)
    d.part(blob((-9, -36), (-6, -50), (0, -42), (7, -51), (9, -36)), b)
    d.part(blob(*mirrored([(0, -40), (24, -33), (37, -6), (42, 18), (28, 38), (0, 42)])), a)
    d.part(ellipse(0, 26, 23, 14), c, line=0, volume=0.5)
    for side in (-1, 1):
        wing = blob((33, 2), (48, 12), (44, 30), (34, 24))
        d.part(wing if side > 0 else wing.flipped(), b)
    for side in (-1, 1):
        d.mark(ellipse(side * 16, -8, 4, 5), PUPIL)
        d.mark(ellipse(side * 16 - 1.2, -10, 1.6), LIGHT, 0.85)
        d.mark(ellipse(side * 24, 0, 5, 3.4), BLUSH, 0.55)
    d.part(polygon([(-9, -3), (9, -3), (0, 8)], 4), b, line=2.5)


def cactus(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    for side in (-1, 1):
        arm = ribbon(15, (10, 6), (32, 4 - side * 3), (34, -14 - side * 3))
        d.part(arm if side > 0 else arm.flipped(), a)
    body = box(-21, -40, 21, 30, 20)
    d.part(body, a)
    for x in (-12, 12):
        for y in (-24, 14):
            d.mark(ellipse(x, y, 2, 3.4), SHADE, 0.45)
    for k in range(5):
        d.part(ellipse(0, -6.5, 4.6, 6).turned(72 * k, x=4, y=-39), c, line=2)
    d.mark(ellipse(4, -39, 3.6), b)
    face(d, 0, -6, 10)
    d.part(polygon([(-30, 22), (30, 22), (23, 47), (-23, 47)], 6), b)
    d.part(box(-34, 15, 34, 26, 5), b)


def mushroom(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(blob(*mirrored([(0, -8), (20, -4), (21, 18), (26, 36), (14, 43), (0, 44)])), b)
    cap = blob(*mirrored([(0, -44), (24, -39), (43, -18), (47, 2), (30, 9), (0, 9)]))
    d.part(cap, a)
    for x, y, r in ((-4, -24, 10), (25, -16, 7.5), (-31, -6, 8), (9, 2, 5.5)):
        d.part(ellipse(x, y, r, r * 0.9), c, within=cap, volume=0.4)
    d.gleam(-24, -28, 6)
    face(d, 0, 22, 9.5)


def car(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    cabin = blob((-32, 0), (-29, -24), (-16, -35), (12, -35), (26, -25), (32, 0))
    d.part(cabin, a)
    d.part(box(-24, -26, -3, -2, 8), b, line=2.5)
    d.part(polygon([(4, -26), (15, -26), (24, -2), (4, -2)], 6), b, line=2.5)
    body = blob((-48, 6), (-42, -5), (0, -6), (40, -4), (49, 10), (47, 27), (0, 29), (-46, 27))
    d.part(body, a)
    d.part(box(-60, 10, 60, 16, 0), c, within=body, volume=0)
    d.part(ellipse(42, 5, 5, 5), c, line=2.5)
    for x in (-26, 26):
        d.part(ellipse(x, 27, 13.5), SUBJECT_COLORS["slate"])
        d.part(ellipse(x, 27, 5.5), c, line=0)
    d.gleam(-19, -18, 4)


def teapot(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(ribbon(7, (-30, -10), (-50, -14), (-50, 14), (-30, 22)), b)
    d.part(blob((26, 24), (37, 6), (40, -13), (52, -16), (49, 8), (36, 30)), b)
    d.part(ellipse(0, -40, 6), b)
    body = ellipse(0, 8, 39, 34)
    d.part(body, a)
    d.part(blob((-24, -22), (-18, -33), (0, -36), (18, -33), (24, -22), (0, -17)), b)
    for x in (-26, 0, 26):
        d.part(ellipse(x, 31 - abs(x) * 0.12, 5), c, within=body, volume=0)
    d.gleam(-22, -6, 7)
    face(d, 0, 8, 13)


def boat(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(ribbon(4, (0, -46), (0, 18)), SUBJECT_COLORS["slate"])
    d.part(polygon([(5, -44), (5, 12), (40, 12)], 6), b)
    left = polygon([(-5, -36), (-5, 12), (-36, 12)], 6)
    d.part(left, c)
    d.part(box(-40, -8, 0, 1, 0), b, within=left, volume=0)
    hull = blob((-46, 16), (0, 19), (46, 16), (40, 33), (24, 43), (-24, 43), (-40, 33))
    d.part(hull, a)
    d.part(ribbon(7, (-60, 27), (0, 30), (60, 27)), c, within=hull, volume=0)


def cupcake(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    wrapper = polygon([(-36, 6), (36, 6), (26, 46), (-26, 46)], 6)
    d.part(wrapper, b)
    for x in (-1, 0, 1):
        d.part(ribbon(7, (x * 23, 0), (x * 17, 50)), c, within=wrapper, volume=0)
    d.part(ellipse(0, -41, 8), c)
    d.part(blob(*mirrored([(0, -36), (14, -34), (22, -21), (36, -12), (46, 4), (34, 15), (17, 10), (0, 16)])), a)
    d.mark(ribbon(3.5, (-24, -15), (0, -10), (18, -17)), SHADE, 0.25)
    face(d, 0, -4, 13)
    d.gleam(-3, -43, 3)


def cat(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    for side in (-1, 1):
        outer, inner = polygon([(6, -20), (39, -47), (43, 0)], 8), polygon([(19, -22), (35, -35), (37, -12)], 6)
        d.part(outer if side > 0 else outer.flipped(), a)
        d.mark(inner if side > 0 else inner.flipped(), c)
    head = blob(*mirrored([(0, -31), (25, -27), (44, -4), (45, 18), (26, 37), (0, 41)]))
    d.part(head, a)
    for x in (-11, 0, 11):
        d.part(ribbon(6, (x, -44), (x * 0.8, -17 + abs(x) * 0.4)), b, within=head, volume=0)
    d.part(ellipse(0, 21, 18, 13), c, line=0, volume=0.5)
    for side in (-1, 1):
        d.mark(ellipse(side * 20, 1, 5, 6.5), PUPIL)
        d.mark(ellipse(side * 20 - 1.6, -1.5, 2), LIGHT, 0.85)
        d.mark(ribbon(3, (0, 20), (side * 4, 25), (side * 9, 23)), PUPIL)
    d.mark(polygon([(-6, 12), (6, 12), (0, 19)], 3), PUPIL)


def turtle(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    for x in (-24, 18):
        d.part(box(x - 10, 14, x + 10, 39, 8), b)
    d.part(blob((-44, 18), (-54, 25), (-40, 28)), b)
    d.part(ellipse(40, -2, 16, 18), b)
    shell = blob((-44, 20), (-38, -10), (-16, -34), (10, -33), (28, -10), (33, 20), (0, 26))
    d.part(shell, a)
    for x, y, r in ((-6, -12, 11), (-28, 7, 8), (15, 7, 8)):
        d.part(star(x, y, r, r * 0.86, 6), c, within=shell, volume=0.5)
    d.part(ribbon(7, (-42, 22), (-5, 26), (31, 22)), c, line=2.5)
    d.mark(ellipse(44, -7, 3.6, 4.5), PUPIL)
    d.mark(ellipse(42.8, -8.6, 1.5), LIGHT, 0.85)
    d.mark(ribbon(3, (43, 5), (48, 6), (51, 3)), PUPIL)
    d.gleam(-24, -14, 6)


def backpack(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(ribbon(6, (-12, -34), (-10, -47), (10, -47), (12, -34)), b)
    for side in (-1, 1):
        d.part(box(side * 42 - 9, 4, side * 42 + 9, 36, 7), b)
    d.part(polygon(mirrored([(20, -42), (36, -20), (38, 44)]), 14), a)
    d.part(blob(*mirrored([(0, -40), (22, -36), (35, -12), (18, -4), (0, -2)])), b)
    d.part(box(-25, 12, 25, 37, 8), c)
    d.mark(box(-25, 19, 25, 22, 0), SHADE, 0.5)
    d.part(box(-5, -8, 5, 6, 3), c, line=2.5)
    d.gleam(-20, -27, 5)


def house(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(box(18, -40, 31, -10, 2), c)
    d.part(box(-34, -14, 34, 44, 4), a)
    d.part(polygon([(0, -47), (47, -6), (41, 3), (-41, 3), (-47, -6)], 6), b)
    d.part(ellipse(0, -17, 8), c, line=2.5)
    d.part(polygon([(-9, 45), (-9, 22), (0, 13), (9, 22), (9, 45)], 5), b)
    for x in (-22, 22):
        d.part(box(x - 7, 14, x + 7, 29, 3), c, line=2.5)
    d.mark(ellipse(4, 32, 2), LIGHT, 0.8)


def pumpkin(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(ribbon(9, (0, -22), (1, -34), (8, -42)), b)
    for x in (-27, 27):
        d.part(ellipse(x, 8, 19, 30), a)
    for x in (-15, 15):
        d.part(ellipse(x, 8, 19, 34), a, line=2.5)
    d.part(ellipse(0, 8, 15, 36), a, line=2.5)
    d.part(blob((7, -29), (20, -42), (36, -36), (24, -27)), c)
    d.gleam(-30, -8, 6)
    face(d, 0, 8, 14)


def robot(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(ribbon(4, (0, -30), (0, -40)), b)
    d.part(ellipse(0, -43, 6.5), c)
    for side in (-1, 1):
        d.part(box(side * 42 - 7, -12, side * 42 + 7, 16, 5), b)
    d.part(box(-38, -33, 38, 34, 15), a)
    d.part(box(-28, -19, 28, 12, 10), SUBJECT_COLORS["screen"])
    for side in (-1, 1):
        d.mark(ellipse(side * 12, -4, 6.5), c)
        d.mark(ellipse(side * 12 - 2, -6, 2.2), LIGHT, 0.7)
    for k in (-1, 0, 1):
        d.mark(box(k * 10 - 3.5, 19, k * 10 + 3.5, 26, 2), b)
    d.part(box(-20, 37, 20, 47, 4), b)
    d.gleam(-27, -25, 5)


def ghost(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(
        blob(*mirrored([(0, -44), (25, -36), (37, -10), (39, 22), (37, 42), (26, 46), (19, 35), (9, 46), (0, 38)])), a
    )
    for side in (-1, 1):
        d.part(ellipse(side * 38, 12, 10, 7, side * -25), a)
    d.part(blob(*mirrored([(0, 14), (10, 18), (8, 28), (0, 31)])), b, line=0)
    d.mark(ellipse(0, 27, 5, 3), c)
    for side in (-1, 1):
        d.mark(ellipse(side * 13, -4, 5, 7), PUPIL)
        d.mark(ellipse(side * 13 - 1.5, -6.5, 2.1), LIGHT, 0.85)
        d.mark(ellipse(side * 22, 8, 6, 4), c, 0.8)
    d.gleam(-18, -26, 7)


def whale(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(blob((34, 4), (32, -20), (22, -34), (40, -38), (46, -28), (56, -34), (54, -16), (47, -8), (44, 10)), a)
    side = [(-47, 4), (-38, -22), (-12, -31), (16, -22), (32, -4), (46, -2), (42, 22), (16, 36), (-24, 36), (-44, 24)]
    body = blob(*side)
    d.part(body, a)
    d.part(ellipse(-16, 40, 44, 21), b, within=body, volume=0.5)
    for x in (-26, -8, 10):
        d.mark(ribbon(3, (x, 24), (x + 1, 40)), SHADE, 0.3, within=body)
    d.part(blob((2, 14), (18, 12), (24, 28), (12, 26)), c)
    d.mark(ellipse(-29, 2, 4, 5), PUPIL)
    d.mark(ellipse(-30.2, 0, 1.6), LIGHT, 0.85)
    d.mark(ellipse(-20, 9, 5, 3.4), BLUSH, 0.55)
    d.gleam(-26, -16, 7)


def octopus(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    for x0, x1 in ((-30, -42), (30, 42), (-15, -18), (15, 18)):
        d.part(ribbon(15, (x0 * 0.6, 14), (x0, 28), (x1, 38)), a)
        d.mark(ellipse(x1, 40, 4, 3), b)
    d.part(blob(*mirrored([(0, -45), (26, -38), (40, -14), (34, 14), (18, 27), (0, 28)])), a)
    for x, y, r in ((-20, -25, 6), (14, -32, 5), (24, -20, 4)):
        d.mark(ellipse(x, y, r, r * 0.85), c)
    face(d, 0, 0, 14)


def clock(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    for side in (-1, 1):
        d.part(ribbon(8, (side * 24, 30), (side * 31, 43)), b)
        d.part(ellipse(side * 25, -31, 15, 11, side * 38), b)
    d.part(ribbon(6, (-6, -38), (0, -43), (6, -38)), b)
    d.part(ellipse(0, 5, 39), a)
    d.part(ellipse(0, 5, 28), c)
    for k in range(4):
        d.mark(ellipse(0, -22, 2.4).turned(90 * k, y=5), a)
    d.mark(ribbon(4, (0, 5), (0, -11)), PUPIL)
    d.mark(ribbon(4, (0, 5), (12, 12)), PUPIL)
    d.mark(ellipse(0, 5, 4), b)


def gift(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    for side in (-1, 1):
        loop = blob((2, -26), (10, -44), (30, -46), (32, -31), (16, -24))
        d.part(loop if side > 0 else loop.flipped(), b)
        d.mark(ellipse(side * 20, -35, 5.5, 4, side * -35), SHADE, 0.5)
    base = box(-35, -6, 35, 44, 5)
    d.part(base, a)
    for x in (-22, 22):
        for y in (10, 30):
            d.mark(ellipse(x, y, 5), c)
    d.part(box(-9, -8, 9, 46, 0), b, within=base, volume=0.6)
    lid = box(-41, -23, 41, -4, 5)
    d.part(lid, a)
    d.part(box(-9, -30, 9, 0, 0), b, within=lid, volume=0.6)
    d.part(ellipse(0, -25, 8, 7), b)


def snail(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    for x in (-42, -30):
        d.part(ribbon(4, (-33, 0), (x, -22)), b)
        d.part(ellipse(x, -24, 4.5), b)
    d.part(blob((-48, -4), (-36, -13), (-24, -4), (-20, 18), (20, 26), (50, 34), (40, 42), (-30, 42), (-46, 24)), b)
    d.part(ellipse(10, -4, 35), a)
    turns = np.linspace(0.4, 2.15, 30) * 2 * math.pi
    d.mark(ribbon(5.5, *[(10 + 2.1 * t * math.cos(t), -4 + 2.1 * t * math.sin(t)) for t in turns]), c)
    d.gleam(-8, -22, 6)
    d.mark(ellipse(-38, 4, 3.5, 4.3), PUPIL)
    d.mark(ellipse(-39, 2.4, 1.4), LIGHT, 0.85)
    d.mark(ribbon(3, (-41, 16), (-36, 19), (-31, 16)), PUPIL)


def bear(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    for side in (-1, 1):
        d.part(ellipse(side * 31, -29, 15), a)
        d.mark(ellipse(side * 31, -29, 8), c)
    d.part(blob(*mirrored([(0, -36), (27, -30), (44, -4), (43, 22), (24, 39), (0, 42)])), a)
    d.part(ellipse(0, 20, 20, 16), b, line=0, volume=0.6)
    d.mark(ellipse(0, 12, 7.5, 5.5), PUPIL)
    d.mark(ribbon(3, (0, 14), (0, 23)), PUPIL)
    d.mark(ribbon(3, (-8, 23), (0, 28), (8, 23)), PUPIL)
    for side in (-1, 1):
        d.mark(ellipse(side * 19, -4, 4, 5), PUPIL)
        d.mark(ellipse(side * 19 - 1.3, -6, 1.6), LIGHT, 0.85)
        d.mark(ellipse(side * 30, 8, 6, 4), c, 0.7)


def rocket(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(blob((-14, 28), (-9, 44), (0, 53), (9, 44), (14, 28)), c)
    for side in (-1, 1):
        fin = polygon([(18, -4), (42, 22), (40, 42), (16, 30)], 8)
        d.part(fin if side > 0 else fin.flipped(), b)
    body = blob(*mirrored([(0, -50), (16, -34), (26, -8), (25, 18), (17, 34), (0, 36)]))
    d.part(body, a)
    d.part(box(-30, -60, 30, -27, 0), b, within=body, volume=0.6)
    d.part(ellipse(0, -6, 13), c)
    d.part(ellipse(0, -6, 7), SUBJECT_COLORS["glass"], line=2.5)
    d.part(box(-30, 19, 30, 26, 0), b, within=body, volume=0.4)
    d.gleam(-3, -9, 3)


def lamp(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(ribbon(8, (0, 6), (0, 36)), b)
    d.part(blob(*mirrored([(0, 14), (14, 18), (17, 28), (8, 36), (0, 37)])), b)
    d.part(box(-26, 35, 26, 46, 5), b)
    shade = polygon([(-24, -46), (24, -46), (47, 10), (-47, 10)], 8)
    d.part(shade, a)
    for y in (-36, 2):
        d.part(box(-60, y - 4, 60, y + 4, 0), c, within=shade, volume=0)
    face(d, 0, -18, 12)


def owl(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    for x in (-12, 12):
        d.part(ellipse(x, 43, 8, 5), c)
    body = blob(*mirrored([(0, -34), (20, -36), (34, -46), (38, -20), (42, 12), (30, 37), (0, 44)]))
    d.part(body, a)
    d.part(ellipse(0, 26, 22, 17), b, line=0, volume=0.5)
    for x, y in ((-9, 22), (9, 22), (0, 33)):
        d.mark(ribbon(3.5, (x - 5, y - 2), (x, y + 2), (x + 5, y - 2)), a)
    for side in (-1, 1):
        wing = blob((32, -4), (46, 6), (44, 30), (32, 32))
        d.part(wing if side > 0 else wing.flipped(), b)
    for side in (-1, 1):
        d.part(ellipse(side * 15, -13, 15), b, line=2.5)
        d.mark(ellipse(side * 14, -12, 8), PUPIL)
        d.mark(ellipse(side * 14 - 3, -15, 2.8), LIGHT, 0.85)
    d.part(polygon([(-6, -6), (6, -6), (0, 7)], 3), c, line=2.5)


def guitar(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(box(-6, -44, 6, 0, 2), b)
    d.part(polygon([(-10, -54), (10, -54), (7, -38), (-7, -38)], 4), c)
    d.part(blob(*mirrored([(0, -24), (22, -25), (31, -12), (25, 2), (37, 20), (31, 42), (0, 49)])), a)
    d.part(ellipse(0, 5, 12), b)
    d.part(box(-15, 29, 15, 37, 3), c, line=2.5)
    d.mark(ribbon(3.2, (0, -34), (0, 32)), LIGHT, 0.55)
    d.gleam(-20, -14, 5)
    d.gleam(-24, 18, 6)


def camera(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(box(-36, -38, -16, -20, 4), c)
    d.part(polygon([(-12, -26), (-7, -42), (19, -42), (24, -26)], 6), b)
    body = box(-47, -28, 47, 38, 12)
    d.part(body, a)
    d.part(box(-60, -6, 60, 20, 0), b, within=body, volume=0)
    d.part(ellipse(4, 6, 28), c)
    d.part(ellipse(4, 6, 19), HELD_OUT_SUBJECT_COLORS["optic"], line=2.5)
    d.part(ellipse(4, 6, 9), b, line=0)
    d.gleam(-4, -3, 5)
    d.mark(ellipse(37, -17, 4.5), c)


def butterfly(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    for side in (-1, 1):
        d.part(ribbon(3, (0, -20), (side * 7, -36), (side * 15, -41)), b)
        low = blob((2, 4), (26, 8), (36, 24), (24, 42), (8, 30))
        high = blob((2, -2), (12, -26), (36, -40), (49, -26), (42, 0), (20, 10))
        for path, spot, color in ((low, ellipse(side * 21, 24, 8, 9), a), (high, ellipse(side * 31, -17, 10, 11), c)):
            d.part(path if side > 0 else path.flipped(), a if path is high else c)
            d.part(spot, color, line=0)
    d.part(blob(*mirrored([(0, -24), (8, -18), (7, 10), (0, 34)])), b)
    for side in (-1, 1):
        d.mark(ellipse(side * 3.5, -15, 1.8, 2.4), PUPIL)


def acorn(d: Drawing, a: RGB, b: RGB, c: RGB) -> None:
    d.part(ribbon(7, (0, -34), (3, -46)), c)
    d.part(blob(*mirrored([(0, -10), (34, -10), (36, 8), (24, 32), (6, 43), (0, 48)])), a)
    cap = blob(*mirrored([(0, -38), (26, -34), (44, -16), (42, -5), (22, -1), (0, 0)]))
    d.part(cap, b)
    for x, y in ((-28, -15), (-10, -14), (10, -14), (28, -15), (-19, -26), (0, -26), (19, -26)):
        d.mark(ellipse(x, y, 4.6, 3.6), c, within=cap)
    face(d, 0, 17, 12)


DRAW: dict[str, Callable[[Drawing, RGB, RGB, RGB], None]] = {
    f.__name__: f
    for f in (
        *(apple, mug, fish, chick, cactus, mushroom, car, teapot, boat, cupcake, cat, turtle, backpack, house, pumpkin),
        *(robot, ghost, whale, octopus, clock, gift, snail, bear, rocket),
        *(lamp, owl, guitar, camera, butterfly, acorn),
    )
}


# Tables ---------------------------------------------------------------------------------------------------------------

GROUNDS: dict[str, tuple[RGB, ...]] = {
    "ocean": ((38, 86, 148), (45, 132, 181), (31, 61, 119)),
    "berry": ((152, 42, 104), (195, 63, 121), (109, 36, 103)),
    "forest": ((41, 119, 86), (76, 155, 85), (34, 88, 88)),
    "ember": ((186, 68, 51), (217, 110, 45), (141, 45, 61)),
    "grape": ((98, 60, 162), (140, 82, 192), (68, 46, 124)),
    "rust": ((166, 91, 49), (203, 128, 55), (122, 63, 53)),
    "lagoon": ((26, 132, 141), (51, 169, 154), (36, 94, 126)),
    "dusk": ((91, 70, 150), (198, 90, 110), (56, 56, 115)),
    "meadow": ((107, 146, 45), (164, 172, 51), (69, 115, 64)),
    "cherry": ((189, 42, 63), (223, 82, 80), (134, 33, 76)),
    "honey": ((189, 137, 34), (217, 162, 45), (145, 96, 40)),
    "storm": ((79, 99, 130), (110, 132, 159), (58, 68, 103)),
}
HELD_OUT_GROUNDS: dict[str, tuple[RGB, ...]] = {
    "carnival": ((176, 54, 140), (92, 62, 176), (112, 38, 126)),
    "moss": ((134, 124, 38), (83, 134, 74), (78, 92, 48)),
    "lava": ((202, 85, 67), (155, 63, 81), (105, 44, 57)),
    "reef": ((36, 140, 162), (96, 110, 186), (26, 102, 156)),
    "jungle": ((54, 141, 108), (146, 155, 36), (26, 98, 109)),
    "royal": ((72, 77, 176), (118, 66, 176), (38, 43, 130)),
}

# subject with its three colours | the background's pattern and colours, and the shapes that overlap it
BACKGROUND_REMOVAL = """
    apple red green brown        | stripes ocean discs
    mug sky amber brown          | dots ember squares
    fish orange coral amber      | waves grape discs
    chick amber orange tan       | checks berry squares
    cactus green coral pink      | bubbles honey discs
    mushroom magenta tan pink    | zigzag forest squares
    car teal sky amber           | hills cherry discs
    teapot purple pink amber     | tiles meadow squares
    boat blue red amber          | stripes rust squares
    cupcake pink mint red        | dots lagoon discs
    cat grey navy pink           | waves ember squares
    turtle lime green brown      | checks dusk discs
    backpack indigo coral amber  | bubbles forest squares
    house coral wine sky         | zigzag storm discs
    pumpkin orange green lime    | hills ocean squares
    robot mint teal red          | tiles berry discs
    ghost lilac wine pink        | stripes meadow discs
    whale blue sky navy          | dots honey squares
    octopus wine pink magenta    | waves lagoon squares
    clock red grey tan           | checks grape discs
    gift green red amber         | bubbles dusk discs
    snail brown tan amber        | zigzag cherry squares
    bear brown tan coral         | hills storm discs
    rocket navy red amber        | tiles rust discs
"""
BACKGROUND_REMOVAL_HELD_OUT = """
    lamp saffron umber vermilion   | rings royal triangles
    owl violet orchid saffron      | rays moss triangles
    guitar vermilion umber butter  | scallops reef triangles
    camera aqua steel rose         | diamonds lava triangles
    butterfly azure plum peach     | crosses carnival triangles
    acorn sand umber emerald       | spiral jungle triangles
"""

PATTERNS: dict[str, Pattern] = {
    f.__name__: f
    for f in (
        *(plain, stripes, bands, polka, dots, checks, waves, zigzag, bubbles, hills, tiles),
        *(rings, rays, scallops, diamonds, crosses, spiral, slant, gingham, chevrons),
    )
}

SKINS: dict[str, RGB] = {
    **{"ivory": (252, 218, 190), "beige": (240, 190, 152), "honeyed": (222, 162, 114)},
    **{"bronze": (188, 124, 84), "cocoa": (142, 90, 62), "ebony": (106, 68, 52)},
}
HELD_OUT_SKINS: dict[str, RGB] = {"fair": (250, 204, 166), "olive": (206, 146, 98), "chestnut": (122, 76, 54)}

CLOTH_COLORS: dict[str, RGB] = {  # of hair, clothes, walls, glasses and hats
    **{"black": (56, 48, 66), "auburn": (150, 70, 48), "blond": (232, 184, 96), "chocolate": (96, 62, 52)},
    **{"ginger": (222, 116, 58), "silver": (176, 180, 196), "red": (214, 54, 60), "orange": (244, 140, 40)},
    **{"yellow": (250, 208, 62), "lime": (156, 200, 60), "green": (40, 140, 84), "teal": (22, 150, 150)},
    **{"sky": (110, 196, 232), "blue": (46, 104, 206), "navy": (38, 50, 104), "purple": (124, 70, 186)},
    **{"magenta": (206, 52, 140), "pink": (248, 150, 184), "cream": (248, 232, 200), "brown": (128, 82, 54)},
    **{"ice": (194, 224, 238), "lemon": (246, 228, 158), "mint": (180, 226, 200), "lavender": (210, 200, 240)},
    **{"apricot": (250, 208, 176), "blush": (246, 200, 208)},
}
HELD_OUT_CLOTH_COLORS: dict[str, RGB] = {
    **{"raven": (30, 40, 58), "copper": (186, 92, 50), "ash": (140, 132, 130), "crimson": (168, 26, 62)},
    **{"tangerine": (250, 112, 62), "mustard": (208, 164, 34), "pistachio": (186, 206, 114), "jade": (0, 164, 112)},
    **{"cyan": (34, 178, 222), "ultramarine": (64, 62, 176), "fuchsia": (232, 72, 186), "mulberry": (120, 30, 92)},
    **{"ecru": (228, 212, 172), "seafoam": (160, 218, 218), "mauve": (222, 180, 222), "melon": (252, 188, 148)},
}

# skin, hair and its colour, top and its colour, wall | glasses, frame, lenses | hat, its two colours, its pattern
TRY_ON = """
    beige bob chocolate crew teal apricot         | round red navy        | beanie blue yellow stripes
    cocoa curls black vee orange ice              | square yellow purple  | tophat purple lime bands
    ivory long ginger hoodie green lavender       | aviator navy orange   | cap yellow red plain
    bronze short black crew pink mint             | cateye magenta teal   | cowboy brown cream plain
    honeyed parted auburn vee navy lemon          | hexagon green black   | bucket pink navy polka
    ebony pigtails black hoodie yellow ice        | oval orange blue      | beret teal pink plain
    ivory short blond crew purple mint            | round black red       | party magenta yellow polka
    beige long black vee lime blush               | square cream green    | crown orange red plain
    cocoa parted chocolate hoodie sky apricot     | aviator sky red       | beanie yellow purple polka
    honeyed bob ginger crew navy ice              | cateye yellow navy    | tophat navy red bands
    bronze curls auburn vee cream lavender        | hexagon blue magenta  | cap red sky stripes
    ebony short black hoodie magenta lemon        | oval green purple     | cowboy sky navy plain
    ivory pigtails auburn crew orange ice         | round teal brown      | bucket green yellow stripes
    beige parted blond vee blue blush             | square purple orange  | beret red cream plain
    cocoa long black crew lime lavender           | aviator cream teal    | party blue orange bands
    honeyed curls chocolate hoodie red mint       | cateye black magenta  | crown yellow purple plain
    bronze bob black vee teal lemon               | hexagon orange navy   | beanie red cream bands
    ebony curls chocolate crew sky apricot        | oval yellow red       | tophat green orange bands
    ivory bob silver hoodie blue lemon            | round magenta black   | cap teal orange polka
    beige short auburn crew green lavender        | square red blue       | cowboy magenta black plain
    cocoa pigtails black vee pink mint            | aviator yellow sky    | bucket orange teal polka
    honeyed long ginger hoodie purple ice         | cateye blue green     | beret navy yellow plain
    bronze parted chocolate crew yellow blush     | hexagon pink purple   | party lime red stripes
    ebony bob black vee red lemon                 | oval cream magenta    | crown teal yellow plain
"""
TRY_ON_HELD_OUT = """
    olive braids raven turtleneck tangerine seafoam   | heart crimson mulberry   | bowler raven crimson slant
    fair wavy copper dungarees jade mauve             | star mustard ultramarine | witch ultramarine mustard chevrons
    chestnut quiff raven turtleneck cyan melon        | visor mustard cyan       | fez crimson mustard gingham
    fair quiff ash dungarees ultramarine pistachio    | moon fuchsia jade        | boater mustard ultramarine slant
    olive wavy mulberry turtleneck ecru seafoam       | flower tangerine cyan    | nightcap jade ecru chevrons
    chestnut braids copper dungarees fuchsia ecru     | shield cyan crimson      | viking fuchsia tangerine gingham
"""


# People, glasses and hats: the head reaches from y = -30 to 35, the eyes are at y = 6 ---------------------------------

HEAD = blob(*mirrored([(0, -31), (19, -26), (29, -8), (28, 12), (19, 28), (7, 35), (0, 36)]))


def shoulders(d: Drawing, top: str, color: RGB, skin: RGB) -> None:
    """Shoulders and neck in one of the tops."""
    torso = blob(*mirrored([(0, 39), (16, 41), (40, 49), (50, 66), (52, 90), (0, 92)]))
    dark = tuple(round(0.72 * v) for v in color)
    if top == "hoodie":
        d.part(ellipse(0, 43, 29, 12), dark)
    if top == "turtleneck":
        d.part(torso, color)
        d.part(box(-17, 30, 17, 51, 7), color)
        return
    d.part(torso, color)
    if top == "dungarees":
        for side in (-1, 1):
            d.part(ribbon(9, (side * 26, 38), (side * 23, 64)), dark, within=torso, volume=0.5)
    collar = {"vee": blob(*mirrored([(14, 38), (13, 48), (0, 62)]))}.get(top, ellipse(0, 42, 17, 10))
    d.part(collar, skin, volume=0)
    d.part(box(-11, 22, 11, 46, 4), skin, line=0, volume=0)
    if top == "hoodie":
        for side in (-1, 1):
            d.mark(ribbon(3.2, (side * 10, 52), (side * 11, 63)), LIGHT, 0.85)


def hair_behind(d: Drawing, style: str, color: RGB) -> None:
    """The part of a hairstyle behind the head."""
    if style == "bob":
        d.part(blob(*mirrored([(0, -37), (25, -31), (38, -6), (39, 22), (31, 33), (0, 34)])), color)
    elif style == "long":
        d.part(blob(*mirrored([(0, -37), (25, -31), (37, -6), (39, 30), (43, 56), (26, 58), (0, 50)])), color)
    elif style == "curls":
        for x, y in ((-33, -16), (33, -16), (-37, 2), (37, 2), (-34, 19), (34, 19)):
            d.part(ellipse(x, y, 12), color)
    elif style == "pigtails":
        for side in (-1, 1):
            tail = blob((28, 0), (44, -4), (51, 14), (45, 32), (36, 30), (33, 14))
            d.part(tail if side > 0 else tail.flipped(), color)
    elif style == "braids":
        for side in (-1, 1):
            for y, r in ((49, 6.5), (38, 8), (26, 8.5), (14, 8)):
                d.part(ellipse(side * 36, y, r + 1, r), color, line=2.5)
    elif style == "wavy":
        side = [(0, -37), (26, -31), (36, -12), (34, 2), (42, 14), (38, 26), (45, 40), (36, 52), (20, 46), (0, 46)]
        d.part(blob(*mirrored(side)), color)


def hair_front(d: Drawing, style: str, color: RGB) -> None:
    """The part of a hairstyle on the head."""
    cap = [(0, -37), (21, -32), (32, -14), (32, 4)]
    fringes = {
        "bob": [*cap, (26, -4), (16, -12), (0, -11)],
        "long": [*cap, (27, -3), (16, -16), (0, -23)],
        "curls": [(0, -38), (22, -33), (33, -16), (31, 0), (25, -10), (14, -16), (0, -15)],
        "pigtails": [*cap, (26, -6), (13, -14), (0, -20)],
        "short": [(0, -38), (22, -33), (32, -16), (31, -1), (26, -10), (14, -17), (0, -16)],
        "braids": [*cap, (27, 2), (18, -15), (0, -22)],
        "wavy": [*cap, (27, 4), (20, -10), (0, -19)],
    }
    if style == "parted":
        d.part(blob((-31, 4), (-33, -14), (-21, -33), (2, -38), (24, -32), (33, -14), (31, 4), (25, -8), (8, -20),
                    (-10, -10), (-25, -6)), color)  # fmt: skip
    elif style == "quiff":
        d.part(blob((-30, 0), (-33, -18), (-24, -34), (-4, -40), (18, -40), (32, -28), (31, 0), (26, -12), (10, -18),
                    (-8, -14), (-25, -13)), color)  # fmt: skip
    else:
        d.part(blob(*mirrored(fringes[style])), color)


def person(d: Drawing, skin: RGB, style: str, hair: RGB, top: str, color: RGB) -> None:
    """Head and shoulders from the front."""
    hair_behind(d, style, hair)
    shoulders(d, top, color, skin)
    d.mark(ellipse(0, 36, 15, 8), SHADE, 0.28, within=box(-11, 22, 11, 46, 4))
    for side in (-1, 1):
        d.part(ellipse(side * 29, 8, 6, 8), skin)
    d.part(HEAD, skin, volume=0.8)
    for side in (-1, 1):
        d.mark(ellipse(side * 18, 18, 6.5, 4.5), BLUSH, 0.42)
        d.mark(ellipse(side * 13, 7, 3.9, 5), PUPIL)
        d.mark(ellipse(side * 13 - 1.4, 5.2, 1.6), LIGHT, 0.85)
        d.mark(ribbon(3.2, (side * 8, -4.5), (side * 13, -6.5), (side * 18, -4.5)), tuple(v * 2 // 3 for v in hair))
    d.mark(ribbon(3.2, (-2.5, 16), (0, 17.5), (2.5, 16)), SHADE, 0.4)
    smile(d, 0, 22, 7.5, 5, (150, 40, 62), 3.3)
    hair_front(d, style, hair)


def lens(kind: str) -> Path2D:
    """The right lens about (0, 0), or the whole front of one-piece glasses."""
    if kind == "star":
        return star(0, 0.5, 16.5, 9.5, r=4)
    if kind == "flower":
        t = np.linspace(0, 2 * math.pi, 80, endpoint=False)
        r = 11.5 + 2.4 * np.cos(5 * t - math.pi / 2)
        return Path2D(np.stack([r * np.cos(t), r * np.sin(t)], 1))
    return {
        "round": ellipse(0, 0, 12.5),
        "square": box(-13, -10.5, 13, 11.5, 5),
        "aviator": blob((-12, -9), (0, -11), (13, -9), (13.5, 2), (5, 13), (-5, 11), (-12, 0)),
        "cateye": blob((-12.5, -5), (0, -8), (17, -14), (14, 3), (4, 10.5), (-8, 9), (-13, 3)),
        "hexagon": star(0, 0, 14, 12.5, 3, r=2).turned(90),
        "oval": ellipse(0, 0, 14, 9.5),
        "heart": heart(0, 0, 14.5),
        "moon": polygon([(-14, -8), (14, -8), (12, 6), (0, 13), (-12, 6)], 9),
        "visor": polygon(mirrored([(31, -10), (29, 8), (0, 8)]), 8),
        "shield": polygon(mirrored([(0, -11), (32, -11), (28, 9), (14, 14), (0, 2)]), 6),
    }[kind]


def glasses(d: Drawing, kind: str, frame: RGB, tint: RGB) -> None:
    """Thick-framed glasses with opaque lenses."""
    whole, shape = kind in ("visor", "shield"), lens(kind).moved(0, 6)
    right = shape if whole else shape.moved(16.5, 0)
    panes = (right,) if whole else (right.flipped(), right)
    for side in (-1, 1):
        d.part(ribbon(5, (side * 26, 2), (side * 34, 1)), frame, line=2.5)
    for pane in panes:
        d.part(pane.edge(8.8), frame, line=2.5)
    if not whole:
        d.part(ribbon(5.4, (-6, 3), (0, 1), (6, 3)), frame, line=2.5)
        for pane in panes:  # again, without the line where the bridge meets them
            d.part(pane.edge(8.8), frame, line=0)
    for pane in panes:
        d.part(pane, tint, line=0)
        x, y = pane.points.mean(0) - ((12, 1) if whole else (2, 1))
        d.mark(ribbon(4.2, (x - 5, y + 5), (x + 4, y - 6)), LIGHT, 0.5, within=pane)


def hat(d: Drawing, kind: str, a: RGB, b: RGB, pattern: Pattern) -> None:
    """A hat of two colours; its lower edge is at about y = -12."""
    d.y -= 2
    HATS[kind](d, a, b, Cloth(pattern, (a, b)) if pattern is not plain else a)


def beanie(d: Drawing, a: RGB, b: RGB, cloth: Fill) -> None:
    d.part(ellipse(0, -54, 8.5), b)
    d.part(blob(*mirrored([(0, -53), (22, -48), (36, -28), (38, -12), (0, -12)])), cloth)
    d.part(box(-41, -24, 41, -8, 7), b)


def tophat(d: Drawing, a: RGB, b: RGB, cloth: Fill) -> None:
    d.part(polygon([(-32, -60), (32, -60), (29, -12), (-29, -12)], 5), a)
    d.part(polygon([(-30.5, -32), (30.5, -32), (29.3, -17), (-29.3, -17)], 1), b, line=0)
    d.part(blob(*mirrored([(0, -18), (30, -19), (48, -22), (49, -14), (30, -7), (0, -5)])), a)


def cap(d: Drawing, a: RGB, b: RGB, cloth: Fill) -> None:
    d.part(blob(*mirrored([(0, -54), (24, -49), (37, -28), (37, -10), (0, -12)])), cloth)
    d.part(ellipse(0, -54, 5, 3.5), b, line=2.5)
    d.part(blob(*mirrored([(0, -24), (22, -22), (38, -14), (44, -4), (24, -9), (0, -10)])), b)


def cowboy(d: Drawing, a: RGB, b: RGB, cloth: Fill) -> None:
    d.part(blob(*mirrored([(0, -50), (14, -58), (27, -50), (31, -26), (33, -10), (0, -8)])), a)
    d.part(blob(*mirrored([(0, -26), (31, -29), (33, -18), (0, -14)])), b, line=2.5)
    d.part(blob(*mirrored([(0, -19), (30, -20), (46, -27), (58, -36), (57, -22), (40, -9), (0, -5)])), a)


def bucket(d: Drawing, a: RGB, b: RGB, cloth: Fill) -> None:
    d.part(polygon([(-25, -55), (25, -55), (36, -18), (-36, -18)], 10), cloth)
    d.part(polygon([(-36, -26), (36, -26), (49, -5), (-49, -5)], 8), b)


def beret(d: Drawing, a: RGB, b: RGB, cloth: Fill) -> None:
    d.part(ribbon(5, (2, -44), (5, -57)), b)
    puff = [(-34, -16), (-47, -26), (-42, -42), (-14, -51), (18, -52), (44, -46), (55, -30), (40, -17), (0, -12)]
    d.part(blob(*puff), a)
    d.part(blob(*mirrored([(0, -24), (24, -22), (34, -16), (33, -8), (0, -13)])), b)


def party(d: Drawing, a: RGB, b: RGB, cloth: Fill) -> None:
    d.part(polygon([(0, -66), (41, -14), (22, -8), (0, -7), (-22, -8), (-41, -14)], 5), cloth)
    d.part(ellipse(0, -56, 7.5), b)
    for x in range(-36, 37, 12):
        d.part(ellipse(x, -12 + (1 - (x / 40) ** 2) * 4, 8), b, line=2.5)


def crown(d: Drawing, a: RGB, b: RGB, cloth: Fill) -> None:
    d.part(polygon(mirrored([(0, -58), (13, -36), (26, -54), (31, -34), (43, -50), (36, -8)]), 3), a)
    for x, y in ((0, -56), (-26, -52), (26, -52), (-42, -48), (42, -48)):
        d.part(ellipse(x, y, 5), b, line=2.5)
    for x in (-22, 0, 22):
        d.part(ellipse(x, -24, 6), b, line=2.5)


def bowler(d: Drawing, a: RGB, b: RGB, cloth: Fill) -> None:
    d.part(blob(*mirrored([(0, -56), (22, -52), (33, -34), (33, -12), (0, -10)])), a)
    band = blob(*mirrored([(0, -28), (34, -30), (34, -16), (0, -12)]))
    d.part(band, cloth, line=2.5)
    d.part(blob(*mirrored([(0, -16), (32, -18), (47, -23), (49, -15), (32, -8), (0, -5)])), a)


def witch(d: Drawing, a: RGB, b: RGB, cloth: Fill) -> None:
    d.part(blob((-34, -12), (-20, -36), (-6, -56), (14, -60), (30, -50), (18, -46), (24, -30), (34, -12)), cloth)
    d.part(ellipse(0, -13, 56, 9), a)
    d.part(blob(*mirrored([(0, -24), (28, -25), (33, -15), (0, -11)])), b, line=2.5)


def fez(d: Drawing, a: RGB, b: RGB, cloth: Fill) -> None:
    d.part(polygon([(-24, -56), (24, -56), (36, -8), (-36, -8)], 6), cloth)
    d.part(ribbon(4, (0, -54), (26, -52), (37, -40)), b, line=2.5)
    d.part(box(32, -44, 43, -22, 4), b)


def boater(d: Drawing, a: RGB, b: RGB, cloth: Fill) -> None:
    d.part(box(-33, -49, 33, -12, 5), a)
    d.part(box(-32.5, -36, 32.5, -18, 0), cloth, line=0)
    d.part(box(-54, -20, 54, -7, 6), a)


def nightcap(d: Drawing, a: RGB, b: RGB, cloth: Fill) -> None:
    sack = [(-36, -14), (-30, -40), (-8, -56), (22, -56), (44, -40), (50, -10), (40, -14), (30, -26), (34, -12)]
    d.part(blob(*sack), cloth)
    d.part(ellipse(47, -4, 9), b)
    d.part(box(-42, -23, 42, -7, 8), b)


def viking(d: Drawing, a: RGB, b: RGB, cloth: Fill) -> None:
    for side in (-1, 1):
        horn = blob((28, -30), (44, -34), (48, -56), (57, -42), (52, -22), (36, -14))
        d.part(horn if side > 0 else horn.flipped(), b)
    d.part(blob(*mirrored([(0, -55), (22, -50), (36, -30), (37, -10), (0, -10)])), cloth)
    d.part(box(-41, -20, 41, -7, 5), a)


HATS: dict[str, Callable[[Drawing, RGB, RGB, Fill], None]] = {
    f.__name__: f
    for f in (
        *(beanie, tophat, cap, cowboy, bucket, beret, party, crown),
        *(bowler, witch, fez, boater, nightcap, viking),
    )
}


# Datasets -------------------------------------------------------------------------------------------------------------

Sample = dict[str, Image.Image]  # "start", "start1", ..., "end": finished pictures


def rows(table: str) -> list[list[list[str]]]:
    """The words of each column of each row of a table."""
    return [[column.split() for column in line.split("|")] for line in table.strip().splitlines()]


def overlaid(pattern: Pattern, shape: str, rng: Random) -> Pattern:
    """The pattern with its colours moved on by one inside a large shape in each corner, where no subject hides it."""
    spots = []
    for corner in range(4):
        angle = math.pi * (corner / 2 + 0.25) + rng.uniform(-0.4, 0.4)
        spots.append((62 * math.cos(angle), 62 * math.sin(angle), rng.uniform(20, 32)))

    def level(x: Array, y: Array) -> Array:
        number = pattern(x, y)
        for cx, cy, r in spots:
            u, v = x - cx, y - cy
            if shape == "discs":
                number = number + (np.hypot(u, v) < r)
            elif shape == "squares":
                number = number + (np.maximum(abs(u), abs(v)) < 0.85 * r)
            else:  # triangles
                number = number + (np.maximum(abs(u) * 0.87 + v / 2, -v) < 0.62 * r)
        return number

    return level


def backdrop(pattern: Pattern, colors: tuple[RGB, ...], shape: str, rng: Random) -> Image.Image:
    """A busy background, turned and moved at random."""
    cloth = Cloth(overlaid(pattern, shape, rng), colors)
    return render(cloth, rng.uniform(-35, 35), rng.uniform(-12, 12), rng.uniform(-12, 12))


def background_removal(table: str, subjects: dict[str, RGB], grounds: dict[str, tuple[RGB, ...]]) -> list[Sample]:
    samples = []
    for number, ((subject, *colors), (pattern, ground, overlay)) in enumerate(rows(table)):
        rng = Random(f"{subject} {number}")
        d = Drawing(rng.uniform(-6, 6), rng.uniform(-5, 5), rng.uniform(-7, 7), rng.uniform(0.93, 1.0))
        DRAW[subject](d, *(subjects[c] for c in colors))
        busy = backdrop(PATTERNS[pattern], grounds[ground], overlay, rng).point(lambda v: round(v * DIM))
        samples.append({"start": finish(d.on(busy)), "end": finish(d.on(WHITE))})
    return samples


def wall(color: RGB, rng: Random) -> Image.Image:
    """A plain wall with a large, lighter disc behind the person."""
    d = Drawing()
    d.mark(ellipse(rng.uniform(-8, 8), rng.uniform(-8, 4), 54), tuple(round(v + 0.45 * (255 - v)) for v in color))
    return d.on(color)


def try_on(table: str, skins: dict[str, RGB], colors: dict[str, RGB]) -> list[Sample]:
    """The samples; each also has ``exchanged``: the person wearing the next sample's accessories."""
    samples, table_rows = [], rows(table)
    for number, row in enumerate(table_rows):
        rng = Random(f"person {number} {row}")
        (skin, style, hair, top, dress, ground), worn = row[0], row[1:]
        pose = (rng.uniform(-2.5, 2.5), 3 + rng.uniform(-1.5, 1.5), rng.uniform(-2, 2), rng.uniform(0.98, 1.02))
        base = Drawing(*pose)
        person(base, skins[skin], style, colors[hair], top, colors[dress])
        start = base.on(wall(colors[ground], rng))
        sample = {"start": finish(start)}
        for key, items in (("end", worn), ("exchanged", table_rows[(number + 1) % len(table_rows)][1:])):
            (kind, frame, tint), (hat_kind, a, b, pattern) = items
            first, second = Drawing(*pose), Drawing(*pose)
            glasses(first, kind, colors[frame], colors[tint])
            hat(second, hat_kind, colors[a], colors[b], PATTERNS[pattern])
            if key == "end":
                sample |= {"start1": finish(first.on(STUDIO)), "start2": finish(second.on(STUDIO))}
            sample[key] = finish(second.on(first.on(start)))
        samples.append(sample)
    return samples


def small_region(table: str, skins: dict[str, RGB], colors: dict[str, RGB]) -> list[Sample]:
    """People of ``table`` before a bright wall; the edit puts a sticker on a cheek and colours the eyes, under 5 % of a picture."""
    samples = []
    for number, row in enumerate(rows(table)):
        rng = Random(f"sticker {number} {row}")
        (skin, style, hair, top, dress, _) = row[0]
        pose = (rng.uniform(-8, 8), 3 + rng.uniform(-3, 3), rng.uniform(-6, 6), rng.uniform(0.92, 1.02))
        before, after = Drawing(*pose), Drawing(*pose)
        for d in (before, after):
            person(d, skins[skin], style, colors[hair], top, colors[dress])
        for side in (-1, 1):
            after.mark(ellipse(side * 13, 7, 3.9, 5), (20, 150, 90))
            after.mark(ellipse(side * 13 - 1.4, 5.2, 1.6), LIGHT, 0.85)
        after.part(star(18, 20, 8, 4, r=1), (250, 208, 62), line=2)
        bright = wall((236, 238, 244), rng)
        samples.append({"start": finish(before.on(bright)), "end": finish(after.on(bright))})
    return samples


def write_small_region(folder: Path) -> None:
    """The set that benchmarks/recipes.py adds to those in samples/."""
    caption = "put a star on the cheek and make the eyes green"
    save(folder / "small-region", "photo", caption, small_region(TRY_ON, SKINS, CLOTH_COLORS))
    save(folder / "small-region-held-out", "test", caption, small_region(TRY_ON_HELD_OUT, HELD_OUT_SKINS, HELD_OUT_CLOTH_COLORS))


def assert_disjoint() -> None:
    """No held-out sample uses a shape, pattern or colour (or nearly that colour) of a training sample."""
    for train, held_out in ((BACKGROUND_REMOVAL, BACKGROUND_REMOVAL_HELD_OUT), (TRY_ON, TRY_ON_HELD_OUT)):
        names = [{word for row in rows(t) for column in row for word in column} for t in (train, held_out)]
        assert not names[0] & names[1], names[0] & names[1]
    apart = [
        (SUBJECT_COLORS.values(), HELD_OUT_SUBJECT_COLORS.values()),
        (sum(GROUNDS.values(), ()), sum(HELD_OUT_GROUNDS.values(), ())),
        (SKINS.values(), HELD_OUT_SKINS.values()),
        (CLOTH_COLORS.values(), HELD_OUT_CLOTH_COLORS.values()),
    ]
    for train, held_out in apart:
        for a in train:
            for b in held_out:
                assert math.dist(a, b) >= 14, f"{a} and {b} are too alike"


def save(folder: Path, prefix: str, caption: str, samples: list[Sample]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(samples, 1):
        name = f"{prefix}{number:03}"
        for role, picture in sample.items():
            if role != "exchanged":
                picture.save(folder / f"{name}_{role}.png", optimize=True)
        (folder / f"{name}.txt").write_text(caption + "\n", encoding="utf-8", newline="\n")


def psnr(a: Image.Image, b: Image.Image) -> float:
    """In dB, over all pixels and channels."""
    return -10 * math.log10(np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2) / 255**2)


def check(name: str, samples: list[Sample]) -> None:
    """Print the figures that the datasets are designed to, with their mean, least and greatest."""
    white = Image.new("RGB", (SIZE, SIZE), WHITE)
    figures: dict[str, list[float]] = {"PSNR(start, end) dB": [psnr(s["start"], s["end"]) for s in samples]}
    if "exchanged" in samples[0]:
        figures["PSNR(exchanged, end) dB"] = [psnr(s["exchanged"], s["end"]) for s in samples]
    else:
        ends = [np.asarray(s["end"]) for s in samples]
        figures["PSNR(white, end) dB"] = [psnr(white, s["end"]) for s in samples]
        figures["subject, % of picture"] = [100 * np.mean((e < 250).any(2)) for e in ends]
        figures["near-white in subject, %"] = [100 * np.mean(_opaque(s).min(1) > 225) for s in samples]
        figures["subject off centre, px"] = [_off_centre(e) for e in ends]
    for figure, values in figures.items():
        print(f"{name:28}{figure:26} mean {np.mean(values):6.2f}  {min(values):6.2f} .. {max(values):6.2f}")


def _opaque(sample: Sample) -> np.ndarray:
    """The (n, 3) pixels that are the same in start and end: the subject without its antialiased edge."""
    start, end = np.asarray(sample["start"]), np.asarray(sample["end"])
    return end[(start == end).all(2)]


def _off_centre(end: np.ndarray) -> float:
    """How far the middle of the subject's bounding box is from that of the picture, along x or y."""
    spans = [np.flatnonzero((end < 250).any(2).any(axis)) for axis in (0, 1)]
    return max(abs((s[0] + s[-1]) / 2 - (SIZE - 1) / 2) for s in spans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "samples", help="where to write")
    parser.add_argument("--check", action="store_true", help="print the figures the datasets are designed to")
    options = parser.parse_args()
    assert_disjoint()
    cut, wear = "remove the background", "put on the glasses and the hat"
    datasets = [
        ("background-removal", "photo", cut, background_removal(BACKGROUND_REMOVAL, SUBJECT_COLORS, GROUNDS)),
        ("background-removal-held-out", "test", cut,
         background_removal(BACKGROUND_REMOVAL_HELD_OUT, HELD_OUT_SUBJECT_COLORS, HELD_OUT_GROUNDS)),
        ("try-on", "photo", wear, try_on(TRY_ON, SKINS, CLOTH_COLORS)),
        ("try-on-held-out", "test", wear, try_on(TRY_ON_HELD_OUT, HELD_OUT_SKINS, HELD_OUT_CLOTH_COLORS)),
    ]  # fmt: skip
    for name, prefix, caption, samples in datasets:
        save(options.out / name, prefix, caption, samples)
        if options.check:
            check(name, samples)


if __name__ == "__main__":
    main()
