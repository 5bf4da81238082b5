"""HTTP for what the page does with single samples of a dataset: looking at them large, captions, leaving them out.

Requests name a folder as the dataset node does, and a sample; files are only found by matching the folder, so that no
request can name one itself.
"""
import io
from pathlib import Path

import numpy as np
from PIL import Image
from server import PromptServer

from ..trainer.data import captions, images, lists, pixels, report, writing
from ..trainer.data.pairs import LEFT_OUT, DatasetError, Match, Sample, match
from ..trainer.data.text import printable
from ..trainer.similarity import changed
from . import in_use
from .answers import answer
from .dataset import cache, called, read_only, resolve, unpacked

TINT = (255, 0, 160)  # of the region that changes, half transparent
UNALIGNED = {"misaligned", "ratios-differ", "start-equals-end"}  # findings with which that region says nothing

routes = PromptServer.instance.routes


def field(asked, name: str) -> str:
    value = asked.get(name, "") if isinstance(asked, dict) else None
    if not isinstance(value, str):
        raise DatasetError(f"A request about a sample is an object of texts; {name} is {value!r}.")
    return value


def find(asked: dict) -> tuple[Match, Sample]:
    """The folder and the sample that a request names; raises DatasetError."""
    chosen = resolve(field(asked, "folder"), field(asked, "path"))
    found, name = match(unpacked(chosen)[0], called(chosen)), field(asked, "sample")
    for sample in (*found.samples, *found.left_out):
        if sample.name == name:
            return found, sample
    raise DatasetError(f"{called(chosen)} has no sample {printable(name)!r} any more.")


def writable(asked: dict) -> None:
    """Raises DatasetError where the page may not change what a request names."""
    chosen = resolve(field(asked, "folder"), field(asked, "path"))
    if why := read_only(chosen):
        raise DatasetError(why)
    if in_use.is_read(chosen):
        raise DatasetError(
            f"A queue is reading {called(chosen)}. Wait for it, or cancel it; a training goes on when it is queued again."
        )


def aligned(sample: Sample, background: images.Colour | None) -> bool:
    """Whether the pair doctor finds that the target lies on its first input."""
    if not sample.starts:
        return False
    headers = [images.header(path) for path in sample.images]
    with cache() as remembered:
        (measured,) = pixels.measure([sample], remembered, lambda done, total: None, background)
    if measured.comparison is None or measured.comparison.alignment is None:
        return False
    found = report.header_findings(sample, headers, 1024, str) + report.pair_findings(sample, measured, headers[-1])
    return not UNALIGNED & {finding.code for finding in found}


def sides(asked: dict) -> dict:
    """{"sides": [{"label", "which"}, ...]}: the pictures that there are of a sample."""
    _, sample = find(asked)
    inputs = [f"input {number + 1}" if number else "input" for number in range(len(sample.starts))]
    found = [{"label": label, "which": str(number)} for number, label in enumerate([*inputs, "target"])]
    if aligned(sample, images.colour(field(asked, "background") or images.AS_LOADED)):
        found.append({"label": "what changes", "which": "changes"})
    return {"sides": found}


def picture(asked: dict) -> bytes:
    """A whole picture of a sample, upright and over the background as it is trained on: ``which`` is its number, or
    `changes`, the target with the region that differs from the first input tinted."""
    _, sample = find(asked)
    background = images.colour(field(asked, "background") or images.AS_LOADED)
    which = field(asked, "which")
    if which == "changes" and sample.starts:
        result = tinted(*(images.load(path, background) for path in (sample.starts[0], sample.end)))
    elif which in map(str, range(len(sample.images))):
        result = images.load(sample.images[int(which)], background)
    else:
        raise DatasetError(f"{sample.name} has no picture {printable(which)!r}.")
    file = io.BytesIO()
    result.save(file, "PNG", compress_level=1)
    return file.getvalue()


def tinted(start: Image.Image, end: Image.Image) -> Image.Image:
    region = changed(*(np.asarray(image, np.float32) / 255 for image in (start, end)))
    mask = Image.fromarray(region.astype(np.uint8) * 128)
    return Image.composite(Image.new("RGB", end.size, TINT), end, mask)


def caption_file(sample: Sample) -> Path:
    """Where the caption of a sample stands, or would; raises DatasetError where no file of its own can hold it."""
    if sample.caption is not None:
        raise DatasetError(f"The caption of {sample.name} stands in the list that names its images. Edit it there.")
    if sample.caption_file:
        return sample.caption_file
    return sample.end.with_name(f"{Path(sample.name).name}.txt")


def caption(asked: dict) -> dict:
    """{"file", "text", "version", "remark"}: the caption of a sample as it stands in its file; "version" is null where
    there is none."""
    found, sample = find(asked)
    file = caption_file(sample)
    version = writing.version(file)
    text, remark = captions.read(file) if version else ("", None)
    return {"file": found.relative(file), "text": text, "version": version, "remark": remark}


def save_caption(asked: dict) -> dict:
    """Write ``text`` into the caption file of a sample, if that is still the ``version`` shown; raises DatasetError."""
    with in_use.writing:
        writable(asked)
        found, sample = find(asked)
        shown = field(asked, "version") if asked.get("version") is not None else None
        writing.rewrite(caption_file(sample), captions.encoded(field(asked, "text")), shown)
    return caption(asked)


def leave_out(asked: dict) -> dict:
    """Add a sample to the folder's list of those left out, or, without ``out``, take it from there."""
    with in_use.writing:
        writable(asked)
        found, sample = find(asked)
        file = found.left_out.get(sample) or found.folder / LEFT_OUT
        version = writing.version(file)
        lines = [line for line in lines_of(file) if lists.name(line) != sample.name] if version else []
        if asked.get("out") is True:
            if len(sample.name.splitlines()) > 1 or lists.name(sample.name) != sample.name:
                raise DatasetError(f"{sample.name!r} cannot stand on a line of {LEFT_OUT}. Rename its files first.")
            lines.append(sample.name)
        writing.rewrite(file, "".join(f"{line}\n" for line in lines).encode(), version)
    return {}


def lines_of(file: Path) -> list[str]:
    try:
        return file.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file.name} is not UTF-8 text. Save it as UTF-8.") from error


answer("/pairlora/sides", routes.get, sides)
answer("/pairlora/picture", routes.get, picture)
answer("/pairlora/caption", routes.get, caption)
answer("/pairlora/caption", routes.post, save_caption)
answer("/pairlora/left_out", routes.post, leave_out)
