"""A folder of pairs together with how it is to be read."""
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import images
from .pairs import DatasetError, Sample, match


@dataclass(frozen=True)
class PairedDataset:
    """Samples on disk, decoded only when asked for.

    ``resolution`` is in pixels: images are scaled to about its square. ``default_caption`` stands in for samples
    without a caption file; ``trigger_word`` is put in front of every caption.
    """

    folder: Path
    samples: tuple[Sample, ...]
    default_caption: str = ""
    trigger_word: str = ""
    resolution: int = 1024

    def caption(self, sample: Sample) -> str:
        text = self.default_caption
        if sample.caption_file is not None:
            try:
                text = sample.caption_file.read_text(encoding="utf-8-sig").strip()
            except UnicodeDecodeError as error:
                raise DatasetError(f"{sample.caption_file} is not UTF-8 text. Save it as UTF-8.") from error
        return ", ".join(part for part in (self.trigger_word.strip(), text) if part)

    def images(self, sample: Sample) -> list[np.ndarray]:
        """References in order and, last, the target: arrays of (height, width, 3) in 0..1."""
        return images.on_one_grid([images.load(path) for path in sample.images], self.resolution)

    def check(self) -> None:
        """Decode every image once, so that an unreadable one is named before anything long starts."""
        for sample in self.samples:
            for path in sample.images:
                images.load(path)

    def fingerprint(self) -> str:
        """A hash of the content of every file in use and of how it is read."""
        digest = hashlib.sha256(f"{self.resolution}".encode())
        for sample in self.samples:
            digest.update(repr((sample.name, self.caption(sample))).encode())
            for path in sample.images:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def match_dataset(folder: Path, default_caption="", trigger_word="", resolution=1024) -> tuple[PairedDataset, str]:
    """The dataset in ``folder`` and the report on it, no image decoded; raises DatasetError when there is no pair."""
    found = match(folder)
    return PairedDataset(found.folder, tuple(found.samples), default_caption, trigger_word, resolution), found.report()


def open_dataset(folder: Path, default_caption="", trigger_word="", resolution=1024) -> tuple[PairedDataset, str]:
    """The same, with every image decoded once; raises DatasetError when there is nothing to train on."""
    dataset, report = match_dataset(folder, default_caption, trigger_word, resolution)
    dataset.check()
    return dataset, report
