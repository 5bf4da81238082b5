"""Measuring by how much a target is shifted or zoomed against its input, though it was edited.

A LoRA learns such an offset as if it were part of the edit (QwenLM/Qwen-Image issues 160 and 229). The shift and zoom
are those under which most of the picture agrees; what was edited counts as outliers of a robust registration from
coarse to fine (Black and Anandan 1996, with the Geman-McClure function).
"""
from dataclasses import dataclass

import numpy as np
from PIL import Image

LONG_SIDE = 256  # pixels; what images are scaled down to before they are measured
SMALLEST = 32  # pixels on the short side; there is too little to measure on less
COARSEST = 24  # pixels on the short side of the smallest level
ITERATIONS = 10  # at most, on each level
TOLERANCE = 0.5  # difference of local contrasts, in local standard deviations, that still agrees
TEXTURE = 0.02  # local standard deviation, of 0..1, below which an area is as good as flat
AGREES = 0.25  # share of the texture that must agree for the measurement to count ...
BETTER = 1.15  # ... and how much more of it than without any shift or zoom


@dataclass(frozen=True)
class Alignment:
    """The target against its input: moved right by ``x`` and down by ``y``, fractions of the width and height, and
    enlarged about the centre by ``zoom`` (1 is unchanged)."""

    x: float
    y: float
    zoom: float


def measure(start: Image.Image, end: Image.Image) -> Alignment | None:
    """Compare two grey images of one size (mode L).

    All zeros where they lie on each other as well as at any other place; None where too little of them agrees.
    """
    if min(start.size) < SMALLEST:
        return None
    level, sizes = min(start.size), [start.size]
    while (level := level / 2) >= COARSEST:
        sizes.append((round(sizes[-1][0] / 2), round(sizes[-1][1] / 2)))
    found = np.zeros(3)  # x and y as fractions of the long side, zoom - 1
    for size in reversed(sizes):
        a, b = (_contrast(image.resize(size, Image.Resampling.BOX)) for image in (start, end))
        found = _refine(a, b, found)
    unmoved, moved = _agreement(a, b, np.zeros(3)), _agreement(a, b, found)
    if max(unmoved, moved) < AGREES:
        return None
    if moved < BETTER * unmoved:
        return Alignment(0.0, 0.0, 1.0)
    long = max(start.size)
    return Alignment(float(found[0]) * long / start.width, float(found[1]) * long / start.height, 1 + float(found[2]))


def _contrast(image: Image.Image) -> np.ndarray:
    """The image without local brightness and contrast, so that a change of light does not matter: (height, width)."""
    grey = np.asarray(image, dtype=np.float32) / 255
    radius = max(2, min(image.size) // 32)

    def local_mean(values: np.ndarray) -> np.ndarray:
        for _ in range(2):  # along the columns, then along the rows
            sums = np.cumsum(np.pad(values, ((radius + 1, radius), (0, 0)), "edge"), 0, dtype=np.float64)
            values = ((sums[2 * radius + 1 :] - sums[: -2 * radius - 1]) / (2 * radius + 1)).T.astype(np.float32)
        return values

    mean = local_mean(grey)
    return (grey - mean) / (np.sqrt(local_mean((grey - mean) ** 2)) + TEXTURE)


def _refine(a: np.ndarray, b: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Gauss-Newton steps, each pixel weighted by how well it agrees."""
    height, width = a.shape
    long = max(a.shape)
    ys, xs = (np.arange(length, dtype=np.float32) - (length - 1) / 2 for length in (height, width))
    for _ in range(ITERATIONS):
        warped, inside = _warped(b, found)
        dy, dx = np.gradient(warped)
        rest = (warped - a) * inside
        weight = inside / (1 + (rest / np.float32(TOLERANCE)) ** 2) ** 2
        jacobian = np.stack([dx * long, dy * long, dx * xs + dy * ys[:, None]]).reshape(3, -1)
        weighted = jacobian * weight.reshape(-1)
        normal = weighted @ jacobian.T + 1e-3 * np.eye(3)
        step = -np.linalg.solve(normal, weighted @ rest.reshape(-1))
        found = (found + step).clip([-0.3, -0.3, -0.3], [0.3, 0.3, 0.3])
        if np.abs(step).max() * long < 0.02:
            break
    return found


def _warped(b: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``b`` moved back by ``found``, sampled bilinearly, and where that is inside of it."""
    long = max(b.shape)

    def sampled(values: np.ndarray, shift: float) -> tuple[np.ndarray, np.ndarray]:  # along the first axis
        size = len(values)
        centre = (size - 1) / 2
        at = (np.arange(size) - centre) * (1 + found[2]) + centre + shift * long
        low = np.floor(at).astype(int).clip(0, size - 2)
        part = (at.clip(0, size - 1) - low)[:, None].astype(np.float32)
        return values[low] * (1 - part) + values[low + 1] * part, (at >= 0) & (at <= size - 1)

    rows, inside_y = sampled(b, found[1])
    both, inside_x = sampled(rows.T, found[0])
    return both.T, inside_y[:, None] & inside_x[None]


def _agreement(a: np.ndarray, b: np.ndarray, found: np.ndarray) -> float:
    """The share of the texture of ``a`` that ``b``, moved back, agrees with."""
    warped, inside = _warped(b, found)
    dy, dx = np.gradient(a)
    texture = np.hypot(dx, dy) * inside
    return float((texture * (np.abs(warped - a) < TOLERANCE)).sum() / max(texture.sum(), 1e-6))
