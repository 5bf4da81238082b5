"""A run on disk: what was trained from what, so that nothing is trained twice or lost.

A run lives in OUTPUT/pairlora/NAME-IDENTITY and is keyed by everything it was trained from: the pairs' content and
captions, the base model with its patches, the settings and the learning rate. The number of steps is not part of the
key; each one that was finished has its own LoRA in the folder.
"""
import contextlib
import filecmp
import hashlib
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch

from . import encoding
from .data.dataset import PairedDataset
from .host import apply, families, memory
from .host.collect import CollectedDataset
from .host.fingerprint import fingerprint
from .host.store import Store
from .loop import Settings, train
from .lora import files, inject


@dataclass(frozen=True)
class Result:
    """A finished LoRA: its tensors, its file name in the loras folder, and a report for the user."""

    lora: dict[str, torch.Tensor]
    lora_name: str
    report: str


def name_error(name: str) -> str | None:
    """What is wrong with a LoRA's name, or None."""
    if not name.strip():
        return "The LoRA needs a name."
    if re.search(r'[\\/:*?"<>|\x00-\x1f]', name) or name.strip(". ") != name:
        return f"{name!r} cannot be a file name: leave out path separators, and dots or spaces at the ends."
    return None


def identity(base: list[str | int], dataset: str, settings: Settings, learning_rate: float) -> str:
    """A hash of everything a run is trained from, beyond the number of steps: ``base`` and ``dataset`` are fingerprints
    of the models and how they are asked, and of the samples."""
    parts = {"dataset": dataset, "base": base, "settings": asdict(settings), "learning_rate": learning_rate}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its place once it is complete."""
    unfinished = path.with_suffix(".part")
    yield unfinished
    os.replace(unfinished, path)


class Record:
    """What a run of so many steps has left on disk: its LoRA, and a note of what became of it. No file is ever seen
    half written, and none of the user's is overwritten."""

    def __init__(self, output: str, name: str, key: str, steps: int):
        runs = Path(output, "pairlora")
        folder = next(runs.glob(f"*-{key[:10]}"), runs / f"{name}-{key[:10]}")  # it may have been trained under another name
        self.note, self.weights = folder / f"step{steps}.json", folder / f"step{steps}.safetensors"

    def read(self) -> dict | None:
        """The note, or None when the run has not finished."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return note if self.weights.exists() and "files" in note else None

    def write(self, note: dict) -> None:
        with whole(self.note) as unfinished:
            unfinished.write_text(json.dumps(note), encoding="utf-8")

    def save(self, tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
        """Write the LoRA and its metadata."""
        self.weights.parent.mkdir(parents=True, exist_ok=True)
        with whole(self.weights) as unfinished:
            safetensors.torch.save_file(tensors, unfinished, header)

    def place(self, loras: str, name: str) -> str:
        """The LoRA's file name in the loras folder: there already, or copied under ``name``, numbered where that is
        taken by another file."""
        note, folder = self.read(), Path(loras)
        folder.mkdir(parents=True, exist_ok=True)
        first = folder / note["files"].get(name, f"{name}.safetensors")
        for file in itertools.chain([first], (first.with_stem(f"{first.stem}_{i:02}") for i in itertools.count(2))):
            if not file.exists():
                with whole(file) as unfinished:
                    shutil.copyfile(self.weights, unfinished)
            elif not filecmp.cmp(self.weights, file, shallow=False):
                continue
            if note["files"].get(name) != file.name:
                self.write({**note, "files": {**note["files"], name: file.name}})
            return file.name


def train_once(
    model, clip, vae, dataset: PairedDataset | CollectedDataset, settings: Settings, steps: int, learning_rate: float,
    name: str, *, output: str, loras: str, encodings: str, base_file: str, lora_files: list[str], graph: dict[str, object],
    on_step: Callable[[int, float], None], on_phase: Callable[[str], None], on_warning: Callable[[str], None],
) -> Result:  # fmt: skip
    """Train, or return at once what the same run gave before.

    ``output`` and ``loras`` are ComfyUI's folders, ``encodings`` is where encoded samples are kept. ``base_file``
    is what the model was loaded from, "" where that is not known, and ``lora_files`` are on it; ``graph`` is the prompt
    and workflow, kept in the file. ``on_step(step, loss)``, ``on_phase(text)`` and ``on_warning(text)`` tell the user.
    Raises DatasetError or ValueError before anything long starts when the input cannot be trained on.
    """
    if error := name_error(name):
        raise ValueError(error)
    if steps < 1:  # the node's own limits do not hold for linked values
        raise ValueError(f"steps is {steps}; train for at least 1. Start with 1000 for 20 pairs.")
    if not 0 < learning_rate <= 0.1:
        raise ValueError(f"learning_rate is {learning_rate:g}; it lies between 0 and 0.1. Start with 0.0001.")
    paired, about = isinstance(dataset, PairedDataset), dataset.about()
    family = families.family_of(model.model, base_file, max(about.inputs))
    base, encoders = fingerprint(model), encoding.encoders_fingerprint(clip, vae) if paired else []
    key = identity([base, family.name, families.REVISION, *encoders], dataset.fingerprint, settings, learning_rate)
    warnings = [families.distilled_warning(family, [base_file, *lora_files])]
    if paired:
        warnings += [families.release_warning(family, base_file, max(about.inputs)), encoding.caption_warning(clip, dataset)]
    warnings = [warning for warning in warnings if warning]
    record = Record(output, name, key, steps)

    def result(tensors: dict[str, torch.Tensor]) -> Result:
        file = record.place(loras, name)
        return Result(tensors, file, "\n".join([f"{file}: {record.read()['report']}", *warnings]))

    if record.read():
        return result(safetensors.torch.load_file(record.weights))

    inject.check_rank(model.model.diffusion_model, settings.rank)
    for warning in warnings:
        on_warning(warning)
    start = time.monotonic()
    samples = dataset.samples
    if paired:
        samples = encoding.encoded(model, clip, vae, dataset, Store(Path(encodings)), encoders, family, on_phase)
    else:
        encoding.check(model, max(samples, key=lambda sample: len(sample.references)))
    on_phase("loading the model")
    losses = []

    def step_done(step: int, loss: float) -> None:
        losses.append(loss)
        on_step(step, loss)
        memory.check_interrupted()

    lora = train(model, samples, settings, steps, learning_rate, step_done)
    seconds, tenth = time.monotonic() - start, max(1, steps // 10)
    tensors = files.named(lora, family.name)
    record.save(tensors, files.metadata(
        name, key, family.name, about, settings, steps, learning_rate, seconds, base, base_file, graph
    ))  # fmt: skip
    apply.prove(model, record.weights, lora)
    report = (
        f"{len(samples)} samples, {steps} steps of {settings.batch_size}, rank {settings.rank}, learning rate "
        f"{learning_rate:g}, {seconds:.0f} s; loss {sum(losses[:tenth]) / tenth:.4f} at first, "
        f"{sum(losses[-tenth:]) / tenth:.4f} at last"
    )
    record.write({"files": {}, "report": report, "seconds": seconds, "losses": losses})
    return result(tensors)
