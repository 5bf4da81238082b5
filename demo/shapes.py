"""Generic pictures for the recipe of the tiny base model: plain shapes on patterns.

There are no people, glasses, hats or cut-outs here, so whatever a LoRA learns about those it learned from its pairs.
"""
import colorsys
import math
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = 128  # pixels, width and height of every picture
SCALE = 2  # supersampling while drawing


def color(rng: Random, value=(0.25, 1.0)) -> tuple[int, int, int]:
    """A random RGB colour whose HSV value lies in ``value``; one in six is grey, black or white."""
    if rng.random() < 1 / 6:
        grey = int(255 * rng.choice([0, 0.1, rng.random(), 1]))
        return grey, grey, grey
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 1), rng.uniform(*value))
    return tuple(int(255 * c) for c in rgb)


def pattern(rng: Random) -> Image.Image:
    """An RGB picture filled with one pattern: plain, gradient, stripes, dots, checks or waves."""
    size = SIZE * SCALE
    angle, period = rng.uniform(0, math.pi), rng.uniform(14, 48) * SCALE
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    u = x * math.cos(angle) + y * math.sin(angle) + rng.uniform(0, size)
    v = y * math.cos(angle) - x * math.sin(angle) + rng.uniform(0, size)
    kind = rng.choice(["plain", "gradient", "stripes", "dots", "checks", "waves"])
    if kind == "plain":
        mask = np.zeros_like(u)
    elif kind == "gradient":
        mask = (u - u.min()) / (np.ptp(u) + 1)
    elif kind == "stripes":
        mask = (u % period < period * rng.uniform(0.3, 0.7)).astype(np.float32)
    elif kind == "dots":
        mask = (np.hypot(u % period - period / 2, v % period - period / 2) < period * rng.uniform(0.2, 0.4)).astype(
            np.float32
        )
    elif kind == "checks":
        mask = ((u % (2 * period) < period) ^ (v % (2 * period) < period)).astype(np.float32)
    else:
        mask = ((v + np.sin(u / period * 4) * period / 4) % period < period / 2).astype(np.float32)
    a, b = np.array(color(rng)), np.array(color(rng))
    return Image.fromarray((a + mask[..., None] * (b - a)).astype(np.uint8))


def outline(rng: Random) -> list[tuple[float, float]]:
    """The corners, in units of the shape's radius, of a random closed outline around (0, 0)."""
    kind = rng.choice(["ellipse", "polygon", "star", "blob", "blob", "rounded"])
    points = 72
    turn = rng.uniform(0, 2 * math.pi)
    if kind in ("polygon", "star"):
        corners = rng.randint(3, 8)
        inner = rng.uniform(0.45, 0.7) if kind == "star" else None
        count = corners * 2 if inner else corners
        radii = [1 if inner is None or i % 2 == 0 else inner for i in range(count)]
    elif kind == "blob":
        waves = [(k, rng.uniform(0, 0.25) / k**0.5, rng.uniform(0, 6.3)) for k in (2, 3, 4)]
        radii = [1 + sum(w * math.cos(k * 2 * math.pi * i / points + p) for k, w, p in waves) for i in range(points)]
    elif kind == "rounded":
        power = rng.uniform(3, 6)
        radii = []
        for i in range(points):
            t = 2 * math.pi * i / points
            radii.append((abs(math.cos(t)) ** power + abs(math.sin(t)) ** power) ** (-1 / power))
    else:
        radii = [1] * points
    squeeze, lean = rng.uniform(0.5, 1), rng.uniform(0, math.pi)
    corners = []
    for i, r in enumerate(radii):
        t = 2 * math.pi * i / len(radii) + turn
        x, y = r * math.cos(t), squeeze * r * math.sin(t)
        corners.append((x * math.cos(lean) - y * math.sin(lean), x * math.sin(lean) + y * math.cos(lean)))
    return corners


def shape(rng: Random, radius=(14, 44), spread=0.3) -> Image.Image:
    """An RGBA picture of one or two joined shapes with a fill, often an outline, a soft shade and a highlight."""
    size = SIZE * SCALE
    r = rng.uniform(*radius) * SCALE
    cx, cy = (size / 2 + rng.uniform(-spread, spread) * size for _ in range(2))
    mask = Image.new("L", (size, size))
    draw = ImageDraw.Draw(mask)
    for part in range(rng.choice([1, 1, 2, 3])):
        k, ox, oy = (1, 0, 0) if part == 0 else (rng.uniform(0.4, 0.8), rng.uniform(-r, r), rng.uniform(-r, r))
        draw.polygon([(cx + ox + k * r * x, cy + oy + k * r * y) for x, y in outline(rng)], fill=255)
    if rng.random() < 0.15:  # a hole
        hole = r * rng.uniform(0.3, 0.5)
        draw.ellipse([cx - hole, cy - hole, cx + hole, cy + hole], fill=0)

    fill = pattern(rng) if rng.random() < 0.35 else Image.new("RGB", mask.size, color(rng))
    if rng.random() < 0.6:  # shade: darker towards the lower right
        light = Image.new("L", mask.size, rng.randint(0, 80))
        ImageDraw.Draw(light).ellipse([cx - 1.3 * r, cy - 1.3 * r, cx + 0.7 * r, cy + 0.7 * r], fill=0)
        fill.paste((0, 0, 0), mask=light.filter(ImageFilter.GaussianBlur(r / 3)))
    if rng.random() < 0.4:  # a highlight
        light = Image.new("L", mask.size)
        ImageDraw.Draw(light).ellipse([cx - 0.6 * r, cy - 0.6 * r, cx - 0.1 * r, cy - 0.2 * r], fill=rng.randint(60, 200))
        fill.paste((255, 255, 255), mask=light.filter(ImageFilter.GaussianBlur(SCALE * 2)))
    if rng.random() < 0.6:
        inside = mask.filter(ImageFilter.MinFilter(2 * rng.randint(1, 4) * SCALE // 2 + 1))
        fill.paste(color(rng, (0.0, 0.35)), mask=ImageChops.subtract(mask, inside))
    fill.putalpha(mask)
    return fill


def scene(rng: Random) -> Image.Image:
    """A picture at drawing size: a pattern with up to eight shapes on it."""
    picture = pattern(rng).convert("RGBA")
    for _ in range(rng.choice([0, 1, 1, 2, 4, 8])):
        picture.alpha_composite(shape(rng, (8, 46), 0.5))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.choice([0, 0, 2, 5])):
        stroke(rng, draw)
    return picture


def stroke(rng: Random, draw: ImageDraw.ImageDraw) -> None:
    """A thin curve, most often dark."""
    x, y, radius, turn = (rng.uniform(0, n) for n in (SIZE, SIZE, 30, 360))
    box = [(c + s * radius) * SCALE for s in (-1, 1) for c in (x, y)]
    draw.arc(box, turn, turn + rng.uniform(60, 360), color(rng, (0.0, 0.4)), round(rng.uniform(1, 4) * SCALE))


def finish(picture: Image.Image) -> np.ndarray:
    """The picture reduced to (SIZE, SIZE, 3) uint8."""
    return np.asarray(picture.convert("RGB").resize((SIZE, SIZE), Image.LANCZOS))


def combination(rng: Random, shapes: int) -> tuple[np.ndarray, ...]:
    """A scene, ``shapes`` product-like pictures of one shape on a plain backdrop, and the scene with them on it.

    Returns 2 + ``shapes`` arrays of (SIZE, SIZE, 3) uint8. Every shape keeps its place.
    """
    ground = scene(rng)
    result, references = ground.copy(), []
    for _ in range(shapes):
        item = shape(rng)
        backdrop = Image.new("RGBA", item.size, color(rng, (0.85, 1.0)) if rng.random() < 0.3 else (244, 244, 246))
        references.append(finish(Image.alpha_composite(backdrop, item)))
        result.alpha_composite(item)
    return finish(ground), *references, finish(result)
