"""The recipe of the thumbnails in example_workflows/: `python3 demo/host.py demo/make_thumbnails.py`.

Workflows of the demo model show what it made (demo/pictures/, from demo/run.py); the others show a pair that they are set
to train on, and the model's name: nobody has made pictures with those here.
"""
from PIL import Image, ImageDraw, ImageFont

from host import ROOT
from make_workflows import WORKFLOWS, template

SIZE, PICTURE = (800, 450), 330  # pixels
CELL, EDGE, HEAD = 136, 8, 28  # of the sheets in demo/pictures: a row of input, before, after and target for each sample
BACKGROUND, INK, FAINT = (24, 26, 32), (245, 245, 245), (170, 176, 190)

# By the name of the prompt: a line below the title, and what is shown. A number is a row of a sheet of the demo's pictures.
SHOWN = {
    "background-removal": ("after 1,000 steps of the tiny demo model", 1),
    "try-on": ("after 1,000 steps of the tiny demo model", 4),
}


def text(draw: ImageDraw.ImageDraw, at: tuple[int, int], words: str, size: int, colour=INK, anchor="mm") -> None:
    draw.text(at, words, colour, ImageFont.load_default(size), anchor)


def made(slug: str, row: int) -> list[tuple[str, Image.Image]]:
    """Before and after of a row of the demo's picture."""
    with Image.open(ROOT / f"demo/pictures/{slug}.jpg") as sheet:
        boxes = ((EDGE + column * CELL, HEAD + row * CELL) for column in (1, 2))
        return [(label, sheet.crop((x, y, x + 128, y + 128))) for label, (x, y) in zip(("before", "after"), boxes)]


def thumbnail(pictures: list[tuple[str, Image.Image]], line: str) -> Image.Image:
    card = Image.new("RGB", SIZE, BACKGROUND)
    draw = ImageDraw.Draw(card)
    width = PICTURE * 2 // len(pictures)
    left = (SIZE[0] - len(pictures) * width - 30 * (len(pictures) - 1)) // 2
    for i, (label, picture) in enumerate(pictures):
        x = left + i * (width + 30)
        card.paste(picture.resize((width, width), Image.Resampling.LANCZOS), (x, 56))
        text(draw, (x + width // 2, 32), label, 26)
    text(draw, (SIZE[0] // 2, 420), line, 24, FAINT)
    return card


def main() -> None:
    for slug in WORKFLOWS:
        line, row = SHOWN[slug]
        thumbnail(made(slug, row), line).save(template(slug).with_suffix(".jpg"), quality=88)


if __name__ == "__main__":
    main()
