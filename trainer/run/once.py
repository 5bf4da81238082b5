"""Training a LoRA once: from where an earlier try has come to, or not at all where it has been done."""
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from .. import encoding
from ..data.dataset import PairedDataset
from ..host import apply, compat, families, memory, sampling
from ..host.encode import Encoded
from ..host.store import Store
from ..loop import largest_of, train
from ..lora import files, inject
from ..plan import Plan, choose, gigabytes
from ..scores import alike
from ..state import State
from .copies import Copies
from .folder import Folder, Metrics
from .job import Dataset, Job
from .keeper import Keeper
from .listener import Listener
from .places import Places, lora_path
from .previews import Likeness, Previews, paired, words
from .record import Record
from .runs import size
from .verdict import verdict


@dataclass(frozen=True)
class Result:
    """A finished LoRA: its tensors, its file name in the loras folder (its full path if it could not be put there), and
    a report for the user. ``stopped`` is whether the training was asked to end before its last step."""

    lora: dict[str, torch.Tensor]
    lora_name: str
    report: str
    stopped: bool = False


class Remembering:
    """A listener whose warnings are kept, for the report."""

    def __init__(self, listener: Listener):
        self.listener, self.warnings = listener, []

    def __getattr__(self, name: str):
        return getattr(self.listener, name)

    def warning(self, text: str) -> None:
        self.warnings.append(text)
        self.listener.warning(text)


def train_once(job: Job, places: Places, listener: Listener) -> Result:
    """Train, or return at once what the same run gave before.

    Raises DatasetError, ValueError, OSError or RuntimeError before anything long starts when the input cannot be trained
    on, or a LoRA not be saved or loaded. Whatever ends a training, it goes on from there when it is wanted again.
    """
    name, warnings, listener = str(lora_path(job.name)), job.warnings(), Remembering(listener)
    record = _record(job, places, name, job.steps)
    listener.run(record.folder)
    if note := record.read():
        return _result(job, record, note, places, name, warnings)

    network, settings = job.model.model.diffusion_model, job.settings
    inject.check(network, settings.rank, settings.trained)
    sampling.check_loss(job.model, settings.loss)
    untrained = inject.untrained(network, settings.rank, settings.trained)
    if job.start:
        job.start.check(untrained)
    with record.tried(files.named(untrained, job.family.name), places.loras, name) as trial:
        apply.check_loads(job.model, trial, untrained)
        del untrained
        for warning in warnings:
            listener.warning(warning)
        trained, held_out, negatives = _samples(job, places, listener)
        listener.phase("loading the model")
        plan = _plan(job, largest := largest_of(trained))
        encoding.check(job.model, largest, plan.needed)
        folder = Folder(record.folders[0])
        with folder.locked(lambda text: (listener.phase(text), memory.check_interrupted())):
            if note := record.read():  # whoever was waited for has trained it
                return _result(job, record, note, places, name, warnings)
            if changed := folder.describe(job.words()):
                listener.warning(changed)
            with Metrics(folder.path) as metrics:
                previews = Previews(job, folder.previews, held_out, negatives) if paired(job) else None
                return _trained(job, folder, metrics, places, name, trained, held_out, previews, plan, listener)


def _record(job: Job, places: Places, name: str, steps: int) -> Record:
    label = f"{steps}-cooled-{job.cooling}" if job.cooling and steps > job.steps - job.cooling else str(steps)
    return Record(places.output, name, job.key, label, places.spare)


def _plan(job: Job, sample: Encoded) -> Plan:
    settings = job.settings
    return choose(job.model, sample, settings.batch_size, settings.rank, settings.accumulation, settings.trained)


def _samples(
    job: Job, places: Places, listener: Listener
) -> tuple[Sequence[Encoded], Sequence[Encoded], dict[str, list]]:  # fmt: skip
    """What is trained on and what is held out, encoded, and negatives of those that are shown, by their names."""
    store, guided = Store(Path(places.encodings)), paired(job) if job.wants_negative else []

    def look(sample: Encoded) -> bool:  # a class that is in no list may read no references, or not fit the encoders
        return _plan(job, sample).counted is not None and job.family is not families.GENERIC

    def encoded(dataset: Dataset, guided: list[str]) -> Sequence[Encoded]:
        if not isinstance(dataset, PairedDataset):
            return dataset.samples
        return encoding.encoded(
            job.model, job.clip, job.vae, dataset, store, job.encoders, job.family, listener.phase, look, guided
        )  # fmt: skip

    if job.given:
        held_out = encoded(job.given, guided)
        trained = encoded(job.dataset, [])
    elif job.held_out and isinstance(job.dataset, PairedDataset):
        samples = encoded(job.dataset, guided)
        trained, held_out = (samples.part({s.name for s in dataset.samples}) for dataset in (job.trained, job.held_out))
    else:
        trained, held_out = encoded(job.trained, []), job.held_out.samples if job.held_out else ()
    return trained, held_out, encoding.negatives(held_out, guided) if guided else {}


def _trained(
    job: Job, folder: Folder, metrics: Metrics, places: Places, name: str, trained: Sequence[Encoded],
    held_out: Sequence[Encoded], previews: Previews | None, plan: Plan, listener: Remembering,
) -> Result:  # fmt: skip
    """Train to the end, or to where it is asked to stop, and save what has become of it."""
    state, best, before = State(job.model, job.settings, job.learning_rate, averaged=bool(held_out)), None, 0.0
    if found := folder.checkpoints.newest(job.steps, job.cooling, listener.warning):
        saved, best = found
        if saved.numbers.get("scored_on") != job.scored_on:
            best = None
        state.load(saved)
        before = saved.numbers.get("seconds", 0.0)
        logging.info(f"PairLoRA: goes on from step {saved.step}")
        del found, saved  # tensors read from a file keep it in use, and Windows would not delete it
    elif job.start:
        state.begin_with(job.start)
    begun, same = state.step, alike(trained)
    copies = Copies(job, folder, Path(places.loras), name)
    keeper = Keeper(job, folder, metrics, held_out, previews, copies, listener, best, before, same)
    try:
        train(job.model, trained, job.settings, job.steps, job.learning_rate, keeper, plan, state)
        stopped, record = state.step < job.steps, _record(job, places, name, state.step)
        note = _finish(job, record, keeper, name, begun, same)
    except FloatingPointError as error:
        kept = f" The checkpoint of step {keeper.kept} is kept." if keeper.kept > 0 else ""
        raise FloatingPointError(f"{error}{kept}") from error
    except BaseException:
        try:
            keeper.keep()
        except OSError as error:
            listener.warning(str(error))
        raise
    try:
        keeper.keep()
    except OSError as error:  # the LoRA is there all the same
        logging.warning(f"PairLoRA: {error}")
    if not stopped:
        folder.checkpoints.drop_cooled(job.steps)
    return _result(job, record, note, places, name, listener.warnings, stopped)


def _finish(job: Job, record: Record, keeper: Keeper, name: str, begun: int, same: float) -> dict:
    """Save the LoRA of the last step, and the best one where that is another; returns the note of the run."""
    step, seconds = keeper.state.step, keeper.seconds
    tensors = keeper.state.lora.state_dict()
    loras, chosen, told = {record.last: tensors}, "the last step", keeper.metrics.read(job.steps, job.cooling, job.scored_on)
    if keeper.held_out:
        candidates = keeper.candidates()
        chosen = min(candidates, key=lambda name: candidates[name][0])
        if chosen != "the last step":
            loras[record.last.replace(".safetensors", ".best.safetensors")] = candidates[chosen][1]
    header = job.header(name, step, seconds, keeper.used)
    checksums = record.save({file: files.named(lora, job.family.name) for file, lora in loras.items()}, header)
    losses = [values["loss"] for at, values in told.items() if 0 < at <= step and "loss" in values]
    tenth = max(1, len(losses) // 10)
    report = (
        f"{job.summary(step)}, {seconds:.0f} s; loss {sum(losses[:tenth]) / tenth:.4f} at first, "
        f"{sum(losses[-tenth:]) / tenth:.4f} at last"
    )
    found = verdict(told, job.learning_rate, same)
    keeper.listener.verdict(found.text)
    note = {
        "files": {}, "report": report, "memory": f"Memory: {keeper.used}", "seconds": seconds, "sha256": checksums,
        "resumed_from": begun, "spent": keeper.spent, "scored_on": job.scored_on, "best": list(loras)[-1], "verdict": found.kind, "lines": [found.text],
    }  # fmt: skip
    if keeper.held_out:
        scores = {name: round(loss, 6) for name, (loss, _) in candidates.items()}
        note |= {"best_step": keeper.best_step(chosen), "scores": scores, "held_out_loss_first": told.get(0, {}).get("held_out")}
        note["lines"].append(_comparison(chosen, scores))
    if (after := told.get(step, {}).get("preview")) and keeper.previews:
        before, copied = told.get(0, {}).get("preview"), keeper.previews.copied()
        note["lines"].append(words(copied, before and Likeness(**before), Likeness(**after), len(keeper.previews.samples)))
    try:
        for file, lora in loras.items():
            apply.prove(job.model, record.folder / file, lora)
    except Exception as error:
        if memory.is_interrupt(error) or compat.is_out_of_memory(error):
            raise
        note["refused"] = f"{error} The LoRA is kept as {record.weights}; delete {record.note} to try again."
    record.write(note)
    if "refused" not in note and job.settings.save_as != "float32":  # how far rounding is off, rounded has looked at
        record.choose(note, job.settings.hand_on)
        with contextlib.suppress(OSError):  # the result says where it is then
            half = files.rounded(loras[record.file], job.settings.save_as)
            apply.prove(job.model, record.saved_as(job.settings.save_as), half)
    return note


def _comparison(chosen: str, scores: dict[str, float]) -> str:
    """Which LoRA does best on held-out pairs, and by how much."""
    others = ", ".join(f"{name} {loss:.4f}" for name, loss in scores.items() if name != chosen)
    return f"Best on held-out pairs: {chosen}, {scores[chosen]:.4f}" + (f" ({others})" if others else "")


def _result(
    job: Job, record: Record, note: dict, places: Places, name: str, warnings: list[str], stopped: bool = False
) -> Result:  # fmt: skip
    """A finished run's LoRA, in the loras folder where that can be; raises RuntimeError when it has failed the proof."""
    if "refused" in note:
        raise RuntimeError(note["refused"])
    record.choose(note, job.settings.hand_on)
    if job.held_out and note.get("scored_on") != job.scored_on:
        warnings = [*warnings, "It was trained before, and scored on other pairs than those that are held out now."]
    try:
        file = record.place(places.loras, name, job.settings.save_as)
    except OSError as error:
        file = str(record.weights)
        reason = error.strerror or error
        warnings = [
            *warnings, f"The LoRA could not be put into {places.loras} ({reason}). It is kept as {file}; Load LoRA takes that path."
        ]  # fmt: skip
    if record.folder != record.folders[0]:
        warnings = [*warnings, f"{record.folders[0]} could not be written, so the run is kept in {record.folder}."]
    read = safetensors.torch.load_file(record.weights)
    tensors = {key: value.clone() for key, value in files.rounded(read, job.settings.save_as).items()}  # the file is free again
    room = f"Run: {record.folder}, {gigabytes(size(record.folder))}; all runs {gigabytes(size(record.folder.parent))}"
    lines = [f"{file}: {note['report']}", *warnings, *note.get("lines", []), room, note.get("memory", "")]
    return Result(tensors, file, "\n".join(filter(None, lines)), stopped)
