"""Decoding images and bringing the images of a sample onto one grid."""
import hashlib
import io
import itertools
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageCms, ImageColor, ImageFile, ImageOps, PngImagePlugin

from .pairs import DatasetError

Colour = tuple[int, int, int]

AS_LOADED = "as LoadImage"  # the background that is none: the pixels that ComfyUI's LoadImage gives
GRID = 16  # pixels; the VAE's 8 times the patch of 2 that most transformers use
SAME_RATIO = 0.02  # relative difference of aspect ratios below which a reference takes the target's crop
LARGE = 64e6  # pixels; a larger image is reduced while or right after it is decoded ...
ENOUGH = 16.8e6  # pixels; ... to no fewer than these, the largest bucket (4096 x 4096)
LARGEST = 512e6  # pixels; decoding one takes 4 bytes a pixel, so 2 GB at most
ROTATED = {5, 6, 7, 8}  # EXIF orientations that exchange width and height
WIDTH, HEIGHT, ORIENTATION = 0x0100, 0x0101, 0x0112  # EXIF and TIFF tags
UPRIGHT = dict(zip(range(2, 9), (
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
)))  # fmt: skip
COLOURS = list(itertools.product((32, 96, 160, 224), repeat=3))  # by which colour profiles are compared
LEAST_PILLOW = (10, 1)
UNSEEN = 8  # of 255; profiles that differ by less show the same colours
TEXTS = 256 << 20  # bytes of text in a PNG
# What Pillow refuses, in ours: module, name, value.
LIMITS = [(Image, "MAX_IMAGE_PIXELS", None), (ImageFile, "LOAD_TRUNCATED_IMAGES", False),
          (PngImagePlugin, "MAX_TEXT_CHUNK", TEXTS), (PngImagePlugin, "MAX_TEXT_MEMORY", TEXTS)]  # fmt: skip

_lock, _large = threading.Lock(), threading.Lock()
_users, _theirs = 0, []


def check_pillow() -> None:
    """Raises DatasetError where Pillow is too old; ComfyUI asks for no version."""
    if tuple(map(int, PIL.__version__.split(".")[:2])) < LEAST_PILLOW:
        least = ".".join(map(str, LEAST_PILLOW))
        raise DatasetError(
            f"PairLoRA needs Pillow {least} or newer, and this is {PIL.__version__}. Install it with ComfyUI's Python: "
            f'python -m pip install "pillow>={least}"'
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever a decoder raises on a damaged file becomes a DatasetError that names it. Only Pillow belongs in here: a
    mistake of this program is no damaged image."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything: struct.error, KeyError, SyntaxError
        if isinstance(error, OSError) and error.strerror:
            raise DatasetError(f"{path} cannot be read ({error.strerror}).") from error
        reason = str(error) or type(error).__name__
        raise DatasetError(f"{path} cannot be read as an image ({reason}). Replace it or take it out.") from error


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file opened by Pillow, with our limits in place of its global ones.

    Other node packs let Pillow fill up truncated files (LOAD_TRUNCATED_IMAGES), which would train on grey areas; and
    they save workflows of several MB into PNG files, which ComfyUI's LoadImage reads as well.
    """
    global _users, _theirs
    with _lock:
        if _users == 0:
            _theirs = [getattr(module, name) for module, name, _ in LIMITS]
            for module, name, ours in LIMITS:
                setattr(module, name, ours)
        _users += 1
    try:
        with _reading(path):
            image = Image.open(path)
        with image:
            if image.width * image.height > LARGEST:
                size = f"{image.width}x{image.height} pixels, more than {LARGEST / 1e6:.0f} megapixels"
                raise DatasetError(f"{path} has {size}. Scale it down.")
            if min(image.size) < 2:
                raise DatasetError(f"{path} is {image.width}x{image.height} pixels. Replace it or take it out.")
            yield image
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                for (module, name, _), theirs in zip(LIMITS, _theirs):
                    setattr(module, name, theirs)


@dataclass(frozen=True)
class Header:
    """What a file says of its image without being decoded: upright width and height in pixels; whether only the first
    of several frames is used; whether it is grey of more than 8 bits; the name of an embedded colour profile that shows
    its colours otherwise than sRGB does, and how it shows some of them."""

    width: int
    height: int
    animated: bool = False
    deep: bool = False
    profile: str = ""
    shown: tuple[int, ...] = ()


def header(path: Path) -> Header:
    """Read the header only; raises DatasetError when the file is no image, or one of a single pixel."""
    with _opened(path) as image, _reading(path):
        tiff = image.format == "TIFF"  # newer Pillow tells the upright size of it
        tags = image.tag_v2 if tiff else Image.Image.getexif(image)  # PNG's own would decode
        size = (tags[WIDTH], tags[HEIGHT]) if tiff else image.size
        width, height = reversed(size) if tags.get(ORIENTATION) in ROTATED else size
        # the frames of a phone's MPO are previews and depth maps of one picture
        animated = image.format != "MPO" and getattr(image, "is_animated", False)
        deep, profile = image.mode in ("I", "F") or image.mode.startswith("I;16"), image.info.get("icc_profile")
    return Header(width, height, animated, deep, *(_shown(profile) if profile else ()))


@lru_cache(maxsize=64)  # a dataset has one or two
def _shown(profile: bytes) -> tuple[str, tuple[int, ...]]:
    """The name of a colour profile and what it makes of some colours, in sRGB; nothing where that is sRGB itself, or
    the profile is broken. What is not RGB or grey has a hash of the profile in place of the colours."""
    try:
        theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name, space = ImageCms.getProfileDescription(theirs).strip(), theirs.profile.xcolor_space.strip()
        if (mode := {"RGB": "RGB", "GRAY": "L"}.get(space)) is None:
            return name, tuple(hashlib.sha256(profile).digest())
        colours = Image.frombytes("RGB", (len(COLOURS), 1), bytes(sum(COLOURS, ()))).convert(mode)
        plain = tuple(colours.convert("RGB").tobytes())
        seen = ImageCms.profileToProfile(colours, theirs, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "", ()
    seen = tuple(seen.tobytes())
    return ("", ()) if _alike(seen, plain) else (name, seen)


def _alike(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return len(a) == len(b) and all(abs(x - y) <= UNSEEN for x, y in zip(a, b))


def same_profile(a: Header, b: Header) -> bool:
    """Whether one number means one colour in both."""
    return _alike(a.shown, b.shown)


def colour(text: str) -> Colour | None:
    """Red, green and blue in 0..255 of a colour name or #rrggbb, None for AS_LOADED; raises DatasetError otherwise."""
    if text.strip().casefold() == AS_LOADED.casefold():
        return None
    try:
        return ImageColor.getrgb(text.strip())[:3]
    except ValueError as error:
        raise DatasetError(f"{text!r} is no colour. Write {AS_LOADED}, a name like white, or #rrggbb.") from error


def load(path: Path, background: Colour | None = None) -> Image.Image:
    """An upright image in 8-bit RGB, with the pixels that ComfyUI's LoadImage gives for it: colour profiles are not
    read, of several frames the first counts, and alpha is left out, so that what lies under it shows.

    Two things are otherwise. With a ``background``, transparent parts are put over it. Grey of more than 8 bits keeps
    its tones, which LoadImage may clip to white, depending on its version. Images over 64 megapixels are reduced by a
    whole number.

    Raises:
        DatasetError: the file is not a readable image (it is named).
    """
    return load_with_alpha(path, background)[0]


def load_with_alpha(path: Path, background: Colour | None = None) -> tuple[Image.Image, bool]:
    """What ``load`` gives, and whether any part of the image is transparent."""
    with _opened(path) as image:
        pixels, factor = image.width * image.height, 1
        if pixels > LARGE:
            factor = max(1, int(math.sqrt(pixels / ENOUGH)))
            width = image.width
            image.draft(None, (-(-image.width // factor), -(-image.height // factor)))  # JPEG decodes at 1/2, 1/4, 1/8
            factor //= round(width / image.width)
        with _large if pixels > LARGE else nullcontext():  # one at a time, for the sake of memory
            orientation = _decode(path, image)
        transparent = _is_transparent(image)
        image = _reduced(image, factor, background) if factor > 1 else _rgb(image, background)
        return _upright(image, orientation), transparent


def thumbnail(path: Path, size: int, background: Colour | None = None) -> Image.Image:
    """The image in RGB, ``size`` pixels on its long side or fewer, read as quickly as the format allows."""
    with _opened(path) as image:
        image.draft(None, (2 * size, 2 * size))
        with _large if image.width * image.height > LARGE else nullcontext():
            orientation = _decode(path, image)
            image = _reduced(image, max(1, min(image.size) // (2 * size)), background)
        image = _upright(image, orientation)
        image.thumbnail((size, size), Image.Resampling.LANCZOS)
        return image


def _decode(path: Path, image: Image.Image) -> int:
    """Decode the image; returns its EXIF orientation."""
    with _reading(path):
        image.load()
        return image.getexif().get(ORIENTATION, 1)


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    return image.getchannel("A").getextrema()[0] < 255


def _reduced(image: Image.Image, factor: int, background: Colour | None) -> Image.Image:
    """The image in RGB at 1/``factor`` of its size, made in strips so that no second copy of all pixels exists."""
    strip = factor * max(1, 2_000_000 // (image.width * factor))
    scale = _scale(image)
    result = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, image.height, strip):
        part = image.crop((0, top, image.width, min(top + strip, image.height)))
        result.paste(_rgb(part, background, scale).reduce(factor), (0, top // factor))
    return result


def _scale(image: Image.Image) -> float | None:
    """What brings 16-bit, 32-bit and floating-point grey to 0..255; Pillow alone would clip it to white."""
    if image.mode == "F":
        return 255.0 if image.getextrema()[1] <= 1 else 1.0
    if image.mode == "I":  # 16-bit values more often than not
        return 255 / (65535 if image.getextrema()[1] <= 65535 else 2**31 - 1)
    return 255 / 65535 if image.mode.startswith("I;16") else None


def _rgb(image: Image.Image, background: Colour | None, scale: float | None = None) -> Image.Image:
    if scale := scale or _scale(image):
        values = np.nan_to_num(np.asarray(image).astype(np.float32) * scale)
        return Image.fromarray(values.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if background and image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


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
