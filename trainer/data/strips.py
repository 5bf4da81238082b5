"""A small picture of each sample, inputs -> target, for the contact sheet in the node."""
from pathlib import Path

from PIL import Image, ImageDraw

from . import images
from .pairs import DatasetError, Sample

HEIGHT, WIDEST = 112, 224  # pixels of one picture of the strip
GAP, ARROW = 4, 28  # pixels
INK, MISSING = (150, 150, 155), (90, 30, 30)


def strip(sample: Sample, background: tuple[int, int, int]) -> Image.Image:
    """Inputs, an arrow and the target side by side in RGBA; an image that cannot be read shows as a dark red square."""
    pictures = [_picture(path, background) for path in sample.images]
    widths = [picture.width + GAP for picture in pictures]
    result = Image.new("RGBA", (sum(widths) + (ARROW if sample.starts else 0), HEIGHT))
    x = 0
    for i, picture in enumerate(pictures):
        if sample.starts and i == len(pictures) - 1:
            middle, left = HEIGHT // 2, x + GAP
            draw = ImageDraw.Draw(result)
            draw.line([(left, middle), (left + ARROW - 12, middle)], INK, 3)
            draw.polygon([(left + ARROW - 16, middle - 7), (left + ARROW - 16, middle + 7), (left + ARROW - 6, middle)], INK)
            x += ARROW
        result.paste(picture, (x, (HEIGHT - picture.height) // 2))
        x += widths[i]
    return result


def _picture(path: Path, background: tuple[int, int, int]) -> Image.Image:
    try:
        picture = images.thumbnail(path, WIDEST, background)
    except DatasetError:
        return Image.new("RGB", (HEIGHT, HEIGHT), MISSING)
    picture.thumbnail((WIDEST, HEIGHT), Image.Resampling.LANCZOS)
    return picture
