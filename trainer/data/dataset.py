"""A folder of pairs together with how it is to be read."""
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import captions, images, pixels, report
from .cache import Cache
from .pairs import DatasetError, Finding, Match, Sample, match
from .report import Report


@dataclass(frozen=True)
class Reading:
    """How a folder is read: ``resolution`` in pixels, images are scaled to about its square; ``default_caption`` stands
    in for samples without a caption file; ``trigger_word`` is put in front of every caption; ``background`` is the
    colour that transparent images are put over, a name or #rrggbb."""

    default_caption: str = ""
    trigger_word: str = ""
    resolution: int = 1024
    background: str = "white"


@dataclass(frozen=True)
class About:
    """What a LoRA's file says of the dataset that it was trained on: ``inputs`` are how many each sample has,
    ``captions`` how many samples have each; ``resolution`` is 0 where none was set."""

    name: str
    inputs: list[int]
    captions: dict[str, int]
    resolution: int = 0
    trigger_word: str = ""


@dataclass(frozen=True)
class PairedDataset:
    """Samples on disk, decoded only when asked for. ``content`` is a hash of each sample's pictures, by its name, and of
    how they are read; ``fingerprint`` one of everything but names. Both are of the files as they were when the dataset was
    opened."""

    folder: Path
    samples: tuple[Sample, ...]
    captions: dict[str, str]
    content: dict[str, str]
    reading: Reading = field(default_factory=Reading)

    @property
    def fingerprint(self) -> str:
        parts = [(self.caption(sample), self.content[sample.name]) for sample in self.samples]
        return hashlib.sha256(repr(parts).encode(errors="surrogateescape")).hexdigest()

    def caption(self, sample: Sample) -> str:
        return self.captions[sample.name]

    def images(self, sample: Sample) -> list[np.ndarray]:
        """References in order and, last, the target: arrays of (height, width, 3) in 0..1."""
        background = images.colour(self.reading.background)
        return images.on_one_grid([images.load(path, background) for path in sample.images], self.reading.resolution)

    def has_changed(self, sample: Sample) -> bool:
        """Whether a picture of the sample is another than when the dataset was opened."""
        with Cache() as forgetful:
            return _content(sample, self.reading, forgetful) != self.content[sample.name]

    def about(self) -> About:
        captions, inputs = Counter(map(self.caption, self.samples)), [len(sample.starts) for sample in self.samples]
        return About(self.folder.name, inputs, captions, self.reading.resolution, self.reading.trigger_word)


def survey(folder: Path, reading: Reading) -> Report:
    """What names and captions tell, no image opened; raises DatasetError when there is no such folder."""
    found, texts, errors, own = match(folder), {}, {}, 0
    for sample in found.samples:
        text = reading.default_caption.strip()
        if sample.caption_file is not None:
            file = found.relative(sample.caption_file)
            try:
                text, remark = captions.read(sample.caption_file)
            except DatasetError as error:
                message = str(error).replace(str(sample.caption_file), file)
                errors[sample.name] = Finding("error", "caption-encoding", sample.name, message)
                continue
            own += 1
            if remark:
                found.findings.append(Finding("warning", "caption-encoding", sample.name, f"{file} {remark}"))
            if not text:
                found.findings.append(Finding("warning", "empty-caption", sample.name, f"{file} is empty"))
        texts[sample.name] = ", ".join(part for part in (reading.trigger_word.strip(), text) if part)
    found.leave_out(errors)
    if 0 < own < len(found.samples) and not reading.default_caption.strip():
        message = f"{len(found.samples) - own} samples have no caption; write them or set a default caption"
        found.findings.append(Finding("warning", "no-caption", None, message))
    if any(sample.starts for sample in found.samples) and not all(sample.starts for sample in found.samples):
        message = "some samples have inputs and some have none; the latter teach only what a target looks like"
        found.findings.append(Finding("warning", "mixed", None, message))
    return Report(Path(folder).resolve().name, found, texts, reading.resolution)


def read_headers(surveyed: Report) -> None:
    """Add what the images' headers tell; samples with an unreadable image are left out."""
    found, errors = surveyed.found, {}
    for sample in found.samples:
        try:
            headers = [images.header(path) for path in sample.images]
        except DatasetError as error:
            errors[sample.name] = _unreadable(found, sample, str(error))
        else:
            surveyed.headers[sample.name] = headers
            found.findings += report.header_findings(sample, headers, surveyed.resolution, found.relative)
    found.leave_out(errors)


def read_pixels(surveyed: Report, cache: Cache, on_progress: Callable[[int, int], None]) -> None:
    """Add what decoding the images tells; samples with a truncated image are left out."""
    found, errors = surveyed.found, {}
    for sample, measured in zip(found.samples, pixels.measure(found.samples, cache, on_progress)):
        broken = [(path, look.error) for path, look in zip(sample.images, measured.looks) if look.error]
        if broken:
            path, reason = broken[0]
            message = f"{path} cannot be read as an image ({reason}). Replace it or take it out."
            errors[sample.name] = _unreadable(found, sample, message)
        else:
            surveyed.measured[sample.name] = measured
            found.findings += report.pair_findings(sample, measured, surveyed.headers[sample.name][-1])
    found.leave_out(errors)
    found.findings += report.duplicate_findings(found.samples, surveyed.measured, found.relative)
    surveyed.headers = {sample.name: surveyed.headers[sample.name] for sample in found.samples}
    surveyed.checked = True


def _unreadable(found: Match, sample: Sample, message: str) -> Finding:
    for path in sample.images:
        message = message.replace(str(path), found.relative(path))
    return Finding("error", "unreadable", sample.name, message)


def examine(folder: Path, reading: Reading, cache: Cache, on_progress: Callable[[int, int], None]) -> Report:
    """The whole report on a folder; ``on_progress(images done, images in all)``."""
    surveyed = survey(folder, reading)
    read_headers(surveyed)
    read_pixels(surveyed, cache, on_progress)
    return surveyed


def contents(surveyed: Report, reading: Reading, cache: Cache) -> dict[str, str]:
    """A hash of the content of each sample's pictures and of how they are read, by the samples' names."""
    return {sample.name: _content(sample, reading, cache) for sample in surveyed.found.samples}


def _content(sample: Sample, reading: Reading, cache: Cache) -> str:
    parts = reading.resolution, images.colour(reading.background), [cache.digest(path) for path in sample.images]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def state(folder: Path, reading: Reading, cache: Cache) -> str:
    """A hash of everything that the dataset and its report depend on, to tell whether anything has changed."""
    surveyed = survey(folder, reading)
    found = surveyed.found
    parts = contents(surveyed, reading, cache), surveyed.captions, found.unused, found.findings, reading
    return hashlib.sha256(repr(parts).encode(errors="surrogateescape")).hexdigest()


def open_dataset(
    folder: Path, reading: Reading, cache: Cache, on_progress: Callable[[int, int], None], strict: bool = False
) -> tuple[PairedDataset, Report]:
    """The dataset in ``folder`` and the report on it.

    Raises:
        DatasetError: there is nothing to train on or, if ``strict``, anything is wrong.
    """
    examined = examine(folder, reading, cache, on_progress)
    errors, samples = examined.errors(), tuple(examined.found.samples)
    if errors and (strict or not samples):
        listed = "; ".join(f"{f.sample}: {f.message}" if f.sample else f.message for f in reversed(errors[-5:]))
        more = f"; and {len(errors) - 5} more" if len(errors) > 5 else ""
        raise DatasetError(f"{folder} cannot be trained on{' (strict)' if strict else ''}. {listed}{more}")
    return PairedDataset(Path(folder), samples, examined.captions, contents(examined, reading, cache), reading), examined
