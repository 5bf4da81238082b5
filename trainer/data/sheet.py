"""Many pictures as one, to look at and to share."""
import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 8  # pixels between pictures
LARGEST = 4096  # pixels a side of the sheet
SMALLEST_TEXT = 12  # pixels
BACKGROUND, INK = (24, 24, 27), (235, 235, 240)


def contact_sheet(sides: dict[str, list[np.ndarray]], names: list[str], captions: bool) -> Image.Image:
    """One column for each side, one row for each sample, in several blocks beside each other where that shows them larger.

    ``sides`` are uint8 pictures (height, width, 3), equally many each; ``names`` of the samples may be fewer. No side of the
    sheet is larger than 4096 pixels.
    """
    rows, columns = max(map(len, sides.values())), len(sides)
    height, width = (max(image.shape[axis] for images in sides.values() for image in images) for axis in (0, 1))

    def measures(blocks: int) -> tuple[float, int, int]:
        """By how much pictures are scaled, the rows of a block, and the height of a text."""
        deep = -(-rows // blocks)
        scale = min(1.0, max((LARGEST - GAP) / (blocks * columns) - GAP, 1) / width)
        text = max(SMALLEST_TEXT, int(width * scale) // 16) + GAP if captions else 0
        room = (LARGEST - GAP - text) / deep - GAP - text
        return min(scale, max(room, 1) / height), deep, text

    blocks = max(range(1, rows + 1), key=lambda blocks: (measures(blocks)[0], -blocks))
    scale, deep, text = measures(blocks)
    across, down = max(1, int(width * scale)), max(1, int(height * scale))
    blocks = -(-rows // deep)
    size = (GAP + blocks * columns * (across + GAP), GAP + text + deep * (down + GAP + text))
    sheet = Image.new("RGB", size, BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(max(text - GAP, 1)) if captions else None
    for column, (label, images) in enumerate(sides.items()):
        for row, image in enumerate(images):
            block, line = divmod(row, deep)
            x = GAP + (block * columns + column) * (across + GAP)
            y = GAP + text + line * (down + GAP + text)
            picture = Image.fromarray(image)
            picture.thumbnail((across, down), Image.Resampling.LANCZOS)
            sheet.paste(picture, (x, y))
            if captions and not line:
                draw.text((x + across / 2, GAP), label, INK, font, anchor="ma")
            if captions and not column and row < len(names):
                draw.text((x, y + down + GAP / 2), names[row], INK, font)
    return sheet
