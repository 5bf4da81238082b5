"""Decoding images and bringing the images of a sample onto one grid."""
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .pairs import DatasetError

GRID = 16  # pixels; the VAE's 8 times the patch of 2 that most transformers use
SAME_RATIO = 0.02  # relative difference of aspect ratios below which a reference takes the target's crop


def load(path: Path) -> Image.Image:
    """An upright RGB image; transparent parts are put over white.

    Raises:
        DatasetError: the file is not a readable image (it is named).
    """
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image)
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} cannot be read as an image ({error}). Replace it or take it out.") from error


def bucket(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """Width and height in pixels, multiples of 16, of about ``resolution`` squared pixels and the ratio of ``size``."""
    ratio = math.sqrt(size[0] / size[1])
    return tuple(max(GRID, round(resolution * r / GRID) * GRID) for r in (ratio, 1 / ratio))


def to_array(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The image scaled to cover ``size`` and cropped at the centre: (height, width, 3) float32 in 0..1."""
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.float32) / 255


def on_one_grid(images: list[Image.Image], resolution: int) -> list[np.ndarray]:
    """References and, last, the target as arrays of (height, width, 3) in 0..1.

    A reference with the target's aspect ratio gets exactly the target's size and crop, so that the LoRA never learns a
    shift or a zoom (QwenLM/Qwen-Image issues 160 and 229); another keeps its own ratio.
    """
    target = images[-1]
    size = bucket(target.size, resolution)

    def fitting(image: Image.Image) -> tuple[int, int]:
        relative = image.width * target.height / (image.height * target.width)
        return size if abs(relative - 1) < SAME_RATIO else bucket(image.size, resolution)

    return [to_array(image, fitting(image)) for image in images]
