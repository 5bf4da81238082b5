"""A folder of pairs together with how it is to be read."""
import hashlib
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from . import captions, images, pixels, report
from .cache import Cache
from .pairs import DatasetError, Finding, Match, Sample, match
from .report import Report
from .text import counted, printable, stripped


@dataclass(frozen=True)
class Reading:
    """How a folder is read: ``resolution`` in pixels, images are scaled to about its square; ``default_caption`` stands
    in for samples without a caption file; ``trigger_word`` is put in front of every caption; ``background`` is the
    colour that transparent images are put over, a name or #rrggbb, or images.AS_LOADED."""

    default_caption: str = ""
    trigger_word: str = ""
    resolution: int = 1024
    background: str = images.AS_LOADED


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

    def part(self, names: Collection[str]) -> "PairedDataset":
        """A dataset of some of the samples."""
        return replace(self, samples=tuple(sample for sample in self.samples if sample.name in names))

    def has_changed(self, sample: Sample) -> bool:
        """Whether a picture of the sample is another than when the dataset was opened."""
        with Cache() as forgetful:
            return _content(sample, self.reading, forgetful) != self.content[sample.name]

    def about(self) -> About:
        captions, inputs = Counter(map(self.caption, self.samples)), [len(sample.starts) for sample in self.samples]
        return About(printable(self.folder.name), inputs, captions, self.reading.resolution, self.reading.trigger_word)


def survey(folder: Path, reading: Reading, called: str = "") -> Report:
    """What names and captions tell, no image opened. ``called`` is what its user calls the folder, such as the zip that
    it was unpacked from.

    Raises:
        DatasetError: there is no such folder, or Pillow is too old for the images.
    """
    images.check_pillow()
    called = called or printable(str(folder))
    found, texts, errors = match(folder, called), {}, {}
    default, trigger = (stripped(printable(text)) for text in (reading.default_caption, reading.trigger_word))
    without = []
    for sample in found.samples:
        text = default
        if sample.caption is not None:
            text = stripped(printable(sample.caption))
        elif sample.caption_file is not None:
            file = found.relative(sample.caption_file)
            try:
                text, remark = captions.read(sample.caption_file)
            except DatasetError as error:
                message = printable(str(error)).replace(printable(str(sample.caption_file)), file)
                errors[sample.name] = Finding("error", "caption-encoding", sample.name, message)
                continue
            if remark:
                found.findings.append(Finding("warning", "caption-encoding", sample.name, f"{file} {remark}"))
            if not text:
                found.findings.append(Finding("warning", "empty-caption", sample.name, f"{file} is empty"))
        else:
            without.append(sample.name)
        texts[sample.name] = ", ".join(part for part in (trigger, text) if part)
    found.leave_out(errors)
    found.findings += report.caption_findings(texts, without, default, trigger)
    if any(sample.starts for sample in found.samples) and not all(sample.starts for sample in found.samples):
        message = "some samples have inputs and some have none; the latter teach only what a target looks like"
        found.findings.append(Finding("warning", "mixed", None, message))
    return Report(Path(called).name or Path(folder).resolve().name, found, texts, reading.resolution)


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


def read_pixels(
    surveyed: Report, reading: Reading, cache: Cache, on_progress: Callable[[int, int], None]
) -> None:
    """Add what decoding the images tells; samples with a truncated image are left out."""
    found, errors, background = surveyed.found, {}, images.colour(reading.background)
    for sample, measured in zip(found.samples, pixels.measure(found.samples, cache, on_progress, background)):
        if broken := [look.error for look in measured.looks if look.error]:
            errors[sample.name] = _unreadable(found, sample, broken[0])
        else:
            surveyed.measured[sample.name] = measured
            found.findings += report.pair_findings(sample, measured, surveyed.headers[sample.name][-1])
            found.findings += report.alpha_findings(sample, measured, background and reading.background.strip())
    found.leave_out(errors)
    found.findings += report.duplicate_findings(found.samples, surveyed.measured, found.relative)
    surveyed.headers = {sample.name: surveyed.headers[sample.name] for sample in found.samples}
    surveyed.checked = True


def _unreadable(found: Match, sample: Sample, message: str) -> Finding:
    message = printable(message)
    for path in sample.images:
        message = message.replace(printable(str(path)), found.relative(path))
    return Finding("error", "unreadable", sample.name, message)


def examine(
    folder: Path, reading: Reading, cache: Cache, on_progress: Callable[[int, int], None], called: str = ""
) -> Report:
    """The whole report on a folder; ``on_progress(images done, images in all)``. ``called`` as in ``survey``."""
    surveyed = survey(folder, reading, called)
    read_images(surveyed, reading, cache, on_progress)
    return surveyed


def read_images(surveyed: Report, reading: Reading, cache: Cache, on_progress: Callable[[int, int], None]) -> None:
    """Add what the images tell, so that the report is whole."""
    read_headers(surveyed)
    read_pixels(surveyed, reading, cache, on_progress)


def _content(sample: Sample, reading: Reading, cache: Cache) -> str:
    parts = reading.resolution, images.colour(reading.background), [cache.digest(path) for path in sample.images]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def state(folder: Path, reading: Reading, cache: Cache) -> str:
    """A hash of everything that the dataset and its report depend on, to tell whether anything has changed."""
    surveyed = survey(folder, reading)
    found = surveyed.found

    def content(sample: Sample) -> str:
        try:
            return _content(sample, reading, cache)
        except OSError as error:  # the report leaves the sample out
            return str(error)

    parts = [*map(content, found.samples)], surveyed.captions, found.unused, found.findings, reading
    return hashlib.sha256(repr(parts).encode(errors="backslashreplace")).hexdigest()


def open_dataset(
    surveyed: Report, reading: Reading, cache: Cache, on_progress: Callable[[int, int], None], strict: bool = False,
    called: str = "",
) -> PairedDataset:  # fmt: skip
    """The dataset in a folder that was ``surveyed``, a report that is made whole here. ``called`` as in ``survey``.

    Raises:
        DatasetError: there is nothing to train on or, if ``strict``, anything is wrong.
    """
    read_images(surveyed, reading, cache, on_progress)
    folder, errors, samples = surveyed.found.folder, surveyed.errors(), tuple(surveyed.found.samples)
    if errors and (strict or not samples):
        listed = "; ".join(f"{f.sample}: {f.message}" if f.sample else f.message for f in reversed(errors[-5:]))
        listed = listed.rstrip(".") + (f"; and {len(errors) - 5} more" if len(errors) > 5 else "")
        called = called or printable(str(folder))
        if not samples:
            raise DatasetError(f"{called} cannot be trained on. {listed}.")
        raise DatasetError(
            f"{called} has {counted(len(errors), 'error')}, and strict is on: {listed}. Mend what is wrong, or "
            "switch strict off to leave those samples out."
        )
    content = {sample.name: _content(sample, reading, cache) for sample in samples}
    return PairedDataset(folder, samples, surveyed.captions, content, reading)
