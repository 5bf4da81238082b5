"""A run on disk: what was trained from what, so that nothing is trained twice or lost.

A run lives in OUTPUT/pairlora/NAME-IDENTITY and is keyed by everything it was trained from: the pairs' content and
captions, the base model with its patches, the settings and the learning rate. The number of steps is not part of the
key; each one that was finished has its own LoRA in the folder.
"""
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch

from . import encoding
from .data.dataset import PairedDataset
from .host import apply, families, memory
from .host.collect import CollectedDataset
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


def identity(bases: list, dataset, settings: Settings, learning_rate: float) -> str:
    """A hash of everything a run is trained from, beyond the number of steps."""
    parts = {
        "dataset": dataset.fingerprint, "base": bases, "settings": asdict(settings), "learning_rate": learning_rate
    }  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def free_path(path: Path) -> Path:
    """``path``, or with the first number that is free behind its stem."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_stem(f"{path.stem}_{number:02}")
    return candidate


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
    paired = isinstance(dataset, PairedDataset)
    family = families.family_of(model.model, base_file, max(dataset.about().inputs))
    base, encoders = memory.fingerprint(model), encoding.fingerprint(clip, vae) if paired else []
    key = identity([base, family.name, *encoders], dataset, settings, learning_rate)
    folder = Path(output, "pairlora", f"{name}-{key[:10]}")
    record, weights = folder / f"step{steps}.json", folder / f"step{steps}.safetensors"
    warnings = [families.distilled_warning(family, [base_file, *lora_files])]
    warnings += [encoding.caption_warning(clip, dataset)] if paired else []
    warnings = [warning for warning in warnings if warning]
    if record.exists() and weights.exists():
        done = json.loads(record.read_text(encoding="utf-8"))
        file = Path(loras, done["lora_name"])
        if not file.exists() or file.read_bytes() != weights.read_bytes():  # moved away; the run still has it
            file = free_path(file)
            shutil.copyfile(weights, file)
            record.write_text(json.dumps({**done, "lora_name": file.name}), encoding="utf-8")
        return Result(safetensors.torch.load_file(weights), file.name, "\n".join([done["report"], *warnings]))

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
    folder.mkdir(parents=True, exist_ok=True)
    Path(loras).mkdir(parents=True, exist_ok=True)
    seconds, tenth = time.monotonic() - start, max(1, steps // 10)
    header = files.metadata(
        name, key, family.name, dataset.about(), settings, steps, learning_rate, seconds, base, base_file, graph
    )
    tensors = files.named(lora, family.name)
    safetensors.torch.save_file(tensors, weights, header)
    apply.prove(model, weights, lora)
    file = free_path(Path(loras, f"{name}.safetensors"))
    shutil.copyfile(weights, file)
    report = (
        f"{file.name}: {len(samples)} samples, {steps} steps of {settings.batch_size}, rank {settings.rank}, learning "
        f"rate {learning_rate:g}, {seconds:.0f} s; loss {sum(losses[:tenth]) / tenth:.4f} at first, "
        f"{sum(losses[-tenth:]) / tenth:.4f} at last"
    )
    done = {"lora_name": file.name, "report": report, "seconds": seconds, "losses": losses}
    record.write_text(json.dumps(done), encoding="utf-8")
    return Result(tensors, file.name, "\n".join([report, *warnings]))
