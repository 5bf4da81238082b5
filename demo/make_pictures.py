"""The icon and the banner of the Comfy registry, made of the pictures in samples/: `python demo/make_pictures.py`.

Each pair is one picture, its input above a diagonal and its target below. The registry wants an icon of at most 400x400
pixels and a banner of 21:9.
"""
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / ".github"
ICON, BANNER = 400, (1260, 540)
PAIRS = [  # of the held-out samples: folder, name
    ("background-removal-held-out", 0), ("try-on-held-out", 0), ("background-removal-held-out", 2), ("try-on-held-out", 3),
]  # fmt: skip
DARK, LIGHT = (32, 30, 38), (244, 244, 246)
GAP = 36  # pixels around the pictures of the banner


def pair(folder: str, number: int, side: int) -> Image.Image:
    """A pair as one square picture, a light line between its halves."""
    start = sorted((ROOT / "samples" / folder).glob("*_start.png"))[number]
    above, below = (
        Image.open(file).convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        for file in (start, start.with_name(start.name.replace("_start", "_end")))
    )
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).polygon([(side, 0), (side, side), (0, side)], fill=255)
    picture = Image.composite(below, above, mask)
    ImageDraw.Draw(picture).line([(0, side), (side, 0)], fill=LIGHT, width=max(2, side // 60))
    return picture


def banner() -> Image.Image:
    picture = Image.new("RGB", BANNER, DARK)
    side = (BANNER[0] - GAP * (len(PAIRS) + 1)) // len(PAIRS)
    for i, (folder, number) in enumerate(PAIRS):
        picture.paste(pair(folder, number, side), (GAP + i * (side + GAP), BANNER[1] - GAP - side))
    draw = ImageDraw.Draw(picture)
    draw.text((GAP, 34), "PairLoRA", LIGHT, ImageFont.load_default(84))
    draw.text((GAP, 140), "Show it before and after. It learns the edit, in your graph.", LIGHT, ImageFont.load_default(34))
    return picture


def main() -> None:
    pair(*PAIRS[0], ICON).save(OUT / "icon.png", optimize=True)
    banner().save(OUT / "banner.png", optimize=True)


if __name__ == "__main__":
    main()
