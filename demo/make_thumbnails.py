"""The recipe of the thumbnails in example_workflows/: `python3 demo/host.py demo/make_thumbnails.py`.

Workflows of the demo model show what it made (demo/pictures/, from demo/run.py). The others show a pair that they are set
to train on, or the like, and the model's name: nobody has made pictures with those here.
"""
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from host import ROOT
from make_workflows import WORKFLOWS, template

SIZE, PICTURE = (800, 450), 330  # pixels
CELL, EDGE, HEAD = 136, 8, 28  # of the sheets in demo/pictures: a row of input, before, after and target for each sample
BACKGROUND, INK = (24, 26, 32), (245, 245, 245)

# By the name of the prompt: the line below, and what is shown: rows of before and after in the sheets of demo/pictures/, or
# pictures of samples/ with what they are.
REMOVAL = ("samples/background-removal/photo001", ("start", "end"))
TRY_ON = ("samples/try-on/photo001", ("start", "start1", "start2", "end"))
STYLE = ("samples/try-on/photo00{}", ("end",))
SHOWN = {
    "background-removal": ("made with the tiny demo model", ("background-removal", 1)),
    "try-on": ("made with the tiny demo model", ("try-on", 4)),
    "continue": ("go on from a LoRA", ("background-removal", 3)),
    "checkpoints": ("every checkpoint at every strength", ("background-removal", 4)),
    "kontext": ("FLUX.1 Kontext", REMOVAL),
    "flux2-klein": ("FLUX.2 klein base 4B", REMOVAL),
    "flux2-dev": ("FLUX.2 dev", REMOVAL),
    "longcat": ("LongCat-Image-Edit", REMOVAL),
    "pix2pix": ("SD 1.5 InstructPix2Pix", REMOVAL),
    "qwen-2509": ("Qwen-Image-Edit 2509, three inputs", TRY_ON),
    "qwen-2511": ("Qwen-Image-Edit 2511, three inputs", TRY_ON),
    "style": ("a style LoRA on Z-Image", STYLE),
    "training-adapter": ("a style LoRA on Z-Image Turbo", STYLE),
    "build": ("pairs out of good pictures", "worse"),
    "caption": ("captions by a language model", "captioned"),
}
ROLES = {"start": "input", "start1": "input 2", "start2": "input 3", "end": "target"}


def text(draw: ImageDraw.ImageDraw, at: tuple[int, int], words: str, size: int, colour=INK, anchor="mm") -> None:
    draw.text(at, words, colour, ImageFont.load_default(size), anchor)


def opened(file: str) -> Image.Image:
    """A picture of the samples, over white."""
    with Image.open(ROOT / f"{file}.png") as picture:
        whole = Image.new("RGBA", picture.size, "white")
        whole.alpha_composite(picture.convert("RGBA"))
    return whole.convert("RGB")


def pictures(shown) -> list[tuple[str, Image.Image]]:
    """Pictures with what they are."""
    match shown:
        case (str(slug), int(row)):
            with Image.open(ROOT / f"demo/pictures/{slug}.jpg") as sheet:
                boxes = ((EDGE + column * CELL, HEAD + row * CELL) for column in (1, 2))
                return [(label, sheet.crop((x, y, x + 128, y + 128))) for label, (x, y) in zip(("before", "after"), boxes)]
        case "worse":
            good = opened("samples/try-on/photo003_end")
            worse = good.filter(ImageFilter.GaussianBlur(2)).reduce(2).resize(good.size, Image.Resampling.BICUBIC)
            return [("worsened copy", worse), ("good picture", good)]
        case "captioned":
            file = "samples/background-removal/photo001"
            caption = (ROOT / f"{file}.txt").read_text(encoding="utf-8").strip()
            return [("start", opened(f"{file}_start")), (f"\u201c{caption}\u201d", opened(f"{file}_end"))]
        case (name, ("end",)):
            return [("your pictures" if i == 2 else "", opened(name.format(i) + "_end")) for i in (1, 2, 3)]
        case (name, roles):
            return [(ROLES[role], opened(f"{name}_{role}")) for role in roles]


def thumbnail(line: str, shown) -> Image.Image:
    card = Image.new("RGB", SIZE, BACKGROUND)
    draw = ImageDraw.Draw(card)
    found = pictures(shown)
    width = min(PICTURE, (SIZE[0] - 40) // len(found) - 20)
    left = (SIZE[0] - len(found) * (width + 20) + 20) // 2
    top = 56 + (PICTURE - width) // 2
    for i, (label, picture) in enumerate(found):
        x = left + i * (width + 20)
        card.paste(picture.resize((width, width), Image.Resampling.LANCZOS), (x, top))
        text(draw, (x + width // 2, top - 24), label, 26)
    text(draw, (SIZE[0] // 2, 420), line, 32)
    return card


def main() -> None:
    for slug in WORKFLOWS:
        thumbnail(*SHOWN[slug]).save(template(slug).with_suffix(".jpg"), quality=88)


if __name__ == "__main__":
    main()
