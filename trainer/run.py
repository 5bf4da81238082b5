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

from .data.dataset import PairedDataset
from .host import apply, encode, families, memory
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


def identity(model, clip, vae, dataset: PairedDataset, settings: Settings, learning_rate: float) -> str:
    """A hash of everything a run is trained from, beyond the number of steps."""
    parts = {
        "dataset": dataset.fingerprint,
        "base": [memory.fingerprint(patcher) for patcher in (model, clip.patcher, vae.patcher)],
        "clip_layer": clip.layer_idx,
        "settings": asdict(settings),
        "learning_rate": learning_rate,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def free_path(path: Path) -> Path:
    """``path``, or with the first number that is free behind its stem."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_stem(f"{path.stem}_{number:02}")
    return candidate


def train_once(
    model, clip, vae, dataset: PairedDataset, settings: Settings, steps: int, learning_rate: float, name: str, *,
    output: str, loras: str, graph: dict[str, object],
    on_step: Callable[[int, float], None], on_phase: Callable[[str], None],
) -> Result:  # fmt: skip
    """Train, or return at once what the same run gave before.

    ``output`` and ``loras`` are ComfyUI's folders, ``graph`` the prompt and workflow, kept in the file. ``on_step(step, loss)`` and ``on_phase(text)`` report progress.
    Raises DatasetError or ValueError before anything long starts when the input cannot be trained on.
    """
    if error := name_error(name):
        raise ValueError(error)
    if steps < 1:  # the node's own limits do not hold for linked values
        raise ValueError(f"steps is {steps}; train for at least 1. Start with 1000 for 20 pairs.")
    if not 0 < learning_rate <= 0.1:
        raise ValueError(f"learning_rate is {learning_rate:g}; it lies between 0 and 0.1. Start with 0.0001.")
    key = identity(model, clip, vae, dataset, settings, learning_rate)
    folder = Path(output, "pairlora", f"{name}-{key[:10]}")
    record, weights = folder / f"step{steps}.json", folder / f"step{steps}.safetensors"
    if record.exists() and weights.exists():
        done = json.loads(record.read_text(encoding="utf-8"))
        file = Path(loras, done["lora_name"])
        if not file.exists() or file.read_bytes() != weights.read_bytes():  # moved away; the run still has it
            file = free_path(file)
            shutil.copyfile(weights, file)
            record.write_text(json.dumps({**done, "lora_name": file.name}), encoding="utf-8")
        return Result(safetensors.torch.load_file(weights), file.name, done["report"])

    inject.check_rank(model.model.diffusion_model, settings.rank)
    families.check_counts(model.model, {sample.name: len(sample.starts) for sample in dataset.samples})
    start = time.monotonic()
    samples = _encode(model, clip, vae, dataset, on_phase)
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
    family, base = families.family_of(model.model).name, memory.fingerprint(model)
    header = files.metadata(name, key, family, dataset, settings, steps, learning_rate, seconds, base, graph)
    safetensors.torch.save_file(lora, weights, header)
    apply.prove(model, weights, lora)
    file = free_path(Path(loras, f"{name}.safetensors"))
    shutil.copyfile(weights, file)
    report = (
        f"{file.name}: {len(samples)} pairs, {steps} steps of {settings.batch_size}, rank {settings.rank}, learning "
        f"rate {learning_rate:g}, {seconds:.0f} s; loss {sum(losses[:tenth]) / tenth:.4f} at first, "
        f"{sum(losses[-tenth:]) / tenth:.4f} at last"
    )
    done = {"lora_name": file.name, "report": report, "seconds": seconds, "losses": losses}
    record.write_text(json.dumps(done), encoding="utf-8")
    return Result(lora, file.name, report)


def _encode(model, clip, vae, dataset: PairedDataset, on_phase: Callable[[str], None]) -> list:
    """Every sample as the model takes it; the first pair shows whether the model reads references at all."""
    several = any(len(sample.starts) > 1 for sample in dataset.samples)
    samples, reads_references = [], False
    for i, sample in enumerate(dataset.samples, 1):
        on_phase(f"encoding {i}/{len(dataset.samples)}  {sample.name}")
        *references, target = dataset.images(sample)
        caption = dataset.caption(sample)
        samples.append(encode.encode(model, clip, vae, sample.name, [*references, target], caption, several))
        if references and not reads_references:
            other = [1 - reference for reference in references]
            changed = encode.encode(model, clip, vae, sample.name, [*other, target], caption, several)
            families.check_reads_references(model, samples[-1], changed)
            reads_references = True
        memory.check_interrupted()
    return samples
