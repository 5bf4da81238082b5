"""Decoding images and bringing the images of a sample onto one grid."""
import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageFile, ImageOps

from .pairs import DatasetError

GRID = 16  # pixels; the VAE's 8 times the patch of 2 that most transformers use
SAME_RATIO = 0.02  # relative difference of aspect ratios below which a reference takes the target's crop
LARGE = 64e6  # pixels; a larger image is reduced while or right after it is decoded ...
ENOUGH = 16.8e6  # pixels; ... to no fewer than these, the largest bucket (4096 x 4096)
LARGEST = 512e6  # pixels; decoding one takes 4 bytes a pixel, so 2 GB at most
ROTATED = {5, 6, 7, 8}  # EXIF orientations that exchange width and height
ORIENTATION = 0x0112  # the EXIF tag

_lock, _large = threading.Lock(), threading.Lock()
_users, _limits = 0, None


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file opened by Pillow, with our limits in place of its global ones; every failure names the file.

    Other node packs let Pillow fill up truncated files (LOAD_TRUNCATED_IMAGES), which would train on grey areas.
    """
    global _users, _limits
    with _lock:
        if _users == 0:
            _limits = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
        _users += 1
    try:
        with Image.open(path) as image:
            if image.width * image.height > LARGEST:
                size = f"{image.width}x{image.height} pixels, more than {LARGEST / 1e6:.0f} megapixels"
                raise DatasetError(f"{path} has {size}. Scale it down.")
            if min(image.size) < 2:
                raise DatasetError(f"{path} is {image.width}x{image.height} pixels. Replace it or take it out.")
            yield image
    except DatasetError:
        raise
    except Exception as error:  # on damaged files decoders raise anything: struct.error, KeyError, SyntaxError
        reason = str(error) or type(error).__name__
        raise DatasetError(f"{path} cannot be read as an image ({reason}). Replace it or take it out.") from error
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = _limits


@dataclass(frozen=True)
class Header:
    """What a file says of its image without being decoded: upright width and height in pixels, and whether only the
    first of several frames is used."""

    width: int
    height: int
    animated: bool = False


def header(path: Path) -> Header:
    """Read the header only; raises DatasetError when the file is no image, or one of a single pixel."""
    with _opened(path) as image:
        exif = Image.Image.getexif(image) if image.format != "TIFF" else {}  # PNG's own would decode; TIFF is upright
        width, height = reversed(image.size) if exif.get(ORIENTATION) in ROTATED else image.size
        # the frames of a phone's MPO are previews and depth maps of one picture
        return Header(width, height, image.format != "MPO" and getattr(image, "is_animated", False))


def colour(text: str) -> tuple[int, int, int]:
    """Red, green and blue in 0..255 of a colour name or #rrggbb; raises DatasetError when it is neither."""
    try:
        return ImageColor.getrgb(text.strip())[:3]
    except ValueError as error:
        raise DatasetError(f"{text!r} is no colour. Write a name like white, or #rrggbb.") from error


def load(path: Path, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """An upright image in 8-bit RGB; transparent parts are put over ``background``, of several frames the first counts.

    Images over 64 megapixels are reduced by a whole number. Colour profiles are applied where the colours would be
    wrong without (CMYK), as ComfyUI's LoadImage does not read them elsewhere either.

    Raises:
        DatasetError: the file is not a readable image (it is named).
    """
    with _opened(path) as image:
        pixels, factor = image.width * image.height, 1
        if pixels > LARGE:
            factor = max(1, int(math.sqrt(pixels / ENOUGH)))
            width = image.width
            image.draft(None, (-(-image.width // factor), -(-image.height // factor)))  # JPEG decodes at 1/2, 1/4, 1/8
            factor //= round(width / image.width)
        with _large if pixels > LARGE else nullcontext():  # one at a time, for the sake of memory
            image.load()
        image = _reduced(image, factor, background) if factor > 1 else _rgb(image, background)
        ImageOps.exif_transpose(image, in_place=True)
        return image


def thumbnail(path: Path, size: int, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """The image in RGB, ``size`` pixels on its long side or fewer, read as quickly as the format allows."""
    with _opened(path) as image:
        image.draft(None, (2 * size, 2 * size))
        with _large if image.width * image.height > LARGE else nullcontext():
            image.load()
            image = _reduced(image, max(1, min(image.size) // (2 * size)), background)
        ImageOps.exif_transpose(image, in_place=True)
        image.thumbnail((size, size), Image.Resampling.LANCZOS)
        return image


def _reduced(image: Image.Image, factor: int, background: tuple[int, int, int]) -> Image.Image:
    """The image in RGB at 1/``factor`` of its size, made in strips so that no second copy of all pixels exists."""
    strip = factor * max(1, 2_000_000 // (image.width * factor))
    scale = _scale(image)
    result = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, image.height, strip):
        part = image.crop((0, top, image.width, min(top + strip, image.height)))
        result.paste(_rgb(part, background, scale).reduce(factor), (0, top // factor))
    result.info = image.info  # the orientation
    return result


def _scale(image: Image.Image) -> float | None:
    """What brings 16-bit, 32-bit and floating-point grey to 0..255; Pillow alone would clip it to white."""
    if image.mode == "F":
        return 255.0 if image.getextrema()[1] <= 1 else 1.0
    if image.mode == "I":  # 16-bit values more often than not
        return 255 / (65535 if image.getextrema()[1] <= 65535 else 2**31 - 1)
    return 255 / 65535 if image.mode.startswith("I;16") else None


def _rgb(image: Image.Image, background: tuple[int, int, int], scale: float | None = None) -> Image.Image:
    if scale := scale or _scale(image):
        values = np.nan_to_num(np.asarray(image).astype(np.float32) * scale)
        grey = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
        grey.info = {key: value for key, value in image.info.items() if key != "transparency"}
        image = grey
    info = image.info
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    elif image.mode in ("CMYK", "LAB") and "icc_profile" in info:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(info["icc_profile"]))
            image = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a broken profile: the plain conversion is the best there is
    if image.mode != "RGB":
        image = image.convert("RGB")
    image.info = info
    return image


def bucket(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """Width and height in pixels, multiples of 16, of about ``resolution`` squared pixels and the ratio of ``size``."""
    ratio = math.sqrt(size[0] / size[1])
    return tuple(max(GRID, round(resolution * r / GRID) * GRID) for r in (ratio, 1 / ratio))


def to_array(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The image scaled to cover ``size`` and cropped at the centre: (height, width, 3) float32 in 0..1."""
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.float32) / 255


def same_ratio(a: tuple[int, int], b: tuple[int, int], tolerance: float = SAME_RATIO) -> bool:
    return abs(a[0] * b[1] / (a[1] * b[0]) - 1) < tolerance


def on_one_grid(images: list[Image.Image], resolution: int) -> list[np.ndarray]:
    """References and, last, the target as arrays of (height, width, 3) in 0..1.

    A reference with the target's aspect ratio gets exactly the target's size and crop, so that the LoRA never learns a
    shift or a zoom (QwenLM/Qwen-Image issues 160 and 229); another keeps its own ratio.
    """
    target = images[-1].size
    size = bucket(target, resolution)
    return [to_array(i, size if same_ratio(i.size, target) else bucket(i.size, resolution)) for i in images]
