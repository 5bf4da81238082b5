"""Pictures drawn for tests."""
import numpy as np
from PIL import Image


def textured(seed: int = 0, size: tuple[int, int] = (320, 240), grain: int = 8) -> Image.Image:
    """Noise in RGB with detail of every size from ``grain`` pixels on, as a photograph has."""
    random, total = np.random.default_rng(seed), np.zeros((size[1], size[0], 3))
    while grain < min(size):
        small = random.integers(0, 256, (-(-size[1] // grain) + 1, -(-size[0] // grain) + 1, 3), np.uint8)
        total += np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC), np.float64) - 127.5
        grain *= 2
    return Image.fromarray((127.5 + 48 * total / total.std()).clip(0, 255).astype(np.uint8))


def moved(image: Image.Image, right: float = 0, down: float = 0, zoom: float = 1) -> Image.Image:
    """The picture shifted by pixels and enlarged about its centre; what comes from outside repeats its edge."""
    padded = Image.fromarray(np.pad(np.asarray(image), ((64, 64), (64, 64), (0, 0)), "edge"))
    (width, height), (w, h) = padded.size, image.size
    x, y = ((1 - 1 / zoom) * (width - 1) / 2 - right / zoom, (1 - 1 / zoom) * (height - 1) / 2 - down / zoom)
    coefficients = (1 / zoom, 0, x + 0.5 - 0.5 / zoom, 0, 1 / zoom, y + 0.5 - 0.5 / zoom)  # centres of pixels
    turned = padded.transform(padded.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    return turned.crop((64, 64, 64 + w, 64 + h))


def edited(image: Image.Image, seed: int = 99) -> Image.Image:
    """Another texture on the left 40 % of the picture, and everything a little brighter."""
    other = textured(seed, image.size, 5)
    result = image.point(lambda value: min(255, int(value * 0.9 + 25)))
    result.paste(other.crop((0, 0, int(0.4 * image.width), image.height)), (0, 0))
    return result
