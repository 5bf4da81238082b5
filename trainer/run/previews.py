"""Pictures of held-out pairs while a LoRA is trained, and how near they come to their targets."""
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.dataset import PairedDataset
from ..data.writing import to_image
from ..host import preview
from ..host.encode import Encoded
from ..scores import PASSES
from ..similarity import by_region, changed
from .job import Job
from .places import whole

MOST = 4  # pairs
SHARE = 0.1  # of the time of training, that they take
SAMPLED = 20  # steps of the sampler
SEED = 0


@dataclass(frozen=True)
class Likeness:
    """Means over the pairs: PSNR in dB and SSIM to the target, also of the region that the edit should change and of the
    one that it should keep; None where no pair has such a region."""

    psnr: float
    psnr_changed: float | None
    psnr_kept: float | None
    ssim: float | None
    ssim_changed: float | None
    ssim_kept: float | None


def paired(job: Job) -> list[str]:
    """The names of the pairs that can be shown, which need a negative where the family wants one."""
    dataset, settings = job.held_out, job.settings
    if not isinstance(dataset, PairedDataset) or not settings.previews:
        return []
    passes = SAMPLED * (2 if job.wants_negative else 1) * settings.previews
    affordable = int(SHARE * job.steps * settings.samples * PASSES / passes)
    return [sample.name for sample in dataset.samples if sample.starts][: max(1, min(MOST, affordable))]


def when(job: Job) -> set[int]:
    """The steps after which there are pictures: at first, at last, and evenly between; one round is that at last."""
    rounds = job.settings.previews
    return {job.steps} if rounds == 1 else {round(i * job.steps / (rounds - 1)) for i in range(rounds)}


class Previews:
    """Those of one run, in a folder."""

    def __init__(self, job: Job, folder: Path, samples: Sequence[Encoded], negatives: dict[str, list]):
        """``samples`` are the held-out ones, of which those that are ``paired`` are shown."""
        self.job, self.folder, self.negatives = job, folder, negatives
        names = paired(job)
        self.samples = [sample for sample in samples if sample.name in names]
        found = {sample.name: sample for sample in job.held_out.samples}
        self.pictures = {name: job.held_out.images(found[name]) for name in names}
        self._paired = False

    def copied(self) -> Likeness:
        """How near the inputs themselves are to the targets."""
        return self._likeness({name: _fitted(first, target) for name, (first, *_, target) in self.pictures.items()})

    def make(self, step: int) -> tuple[list[Path], Likeness]:
        """Pictures of what the model, which computes with the LoRA, makes of the pairs now."""
        made = {
            sample.name: preview.sampled(
                self.job.model, self.job.vae, self.job.family, sample, self.negatives.get(sample.name), SEED, SAMPLED
            )
            for sample in self.samples
        }  # fmt: skip
        self._write_pairs()
        files = [self._write(f"step{step:06}-{i}.png", picture) for i, picture in enumerate(made.values(), 1)]
        return files, self._likeness(made)

    def _write_pairs(self) -> None:
        """What the pictures are made from and should become, once."""
        if not self._paired:
            for i, sample in enumerate(self.samples, 1):
                first, *_, target = self.pictures[sample.name]
                self._write(f"pair-{i}-input.png", first)
                self._write(f"pair-{i}-target.png", target)
        self._paired = True

    def _write(self, name: str, picture: np.ndarray) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole(file) as unfinished:
            to_image(picture).save(unfinished, "PNG")
        return file

    def _likeness(self, made: dict[str, np.ndarray]) -> Likeness:
        values: dict[str, list[float]] = {}
        for name, picture in made.items():
            first, *_, target = self.pictures[name]
            target = target[: picture.shape[0], : picture.shape[1]]  # a VAE may leave out the last rows
            for score, value in by_region(picture, target, changed(first, target)).items():
                values.setdefault(score, []).append(value)
        return Likeness(**{name: statistics.fmean(values[name]) if name in values else None for name in Likeness.__annotations__})


def _fitted(picture: np.ndarray, target: np.ndarray) -> np.ndarray:
    """``picture`` at the size of ``target``."""
    if picture.shape == target.shape:
        return picture
    image = to_image(picture).resize(target.shape[1::-1], Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.float32) / 255


def words(copied: Likeness, before: Likeness | None, after: Likeness, pairs: int) -> str:
    """A line of the report."""

    def row(called: str, likeness: Likeness) -> str:
        parts = [("changed", likeness.psnr_changed), ("kept", likeness.psnr_kept)]
        split = ", ".join(f"{name} {value:.1f}" for name, value in parts if value is not None)
        return f"{called} {likeness.psnr:.1f} dB ({split})" + (f" SSIM {likeness.ssim:.2f}" if likeness.ssim is not None else "")

    rows = [row("with the LoRA", after), *([row("without", before)] if before else []), row("input copied", copied)]
    return f"Edits of {pairs} held-out pairs, PSNR to the target, in its changed and kept region: " + "; ".join(rows)
