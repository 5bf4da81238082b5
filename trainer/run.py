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
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import safetensors
import safetensors.torch
import torch

from . import encoding
from .data.dataset import PairedDataset
from .data.names import safe_name
from .data.pairs import DatasetError
from .data.text import counted
from .host import apply, families, memory, patches
from .host.collect import CollectedDataset
from .host.encode import Encoded
from .host.fingerprint import fingerprint
from .host.store import Store
from .loop import Settings, largest_of, train
from .lora import files, inject
from .plan import Plan, choose

SUFFIX = ".safetensors"
NOTE = 1 << 20  # bytes on the disk that a run's note has room in


@dataclass(frozen=True)
class Places:
    """ComfyUI's ``output`` folder, its ``loras`` folder, and ``encodings``, where encoded samples are kept; a LoRA that
    can no longer be saved in output is kept in the first of the ``spare`` folders that takes it."""

    output: str
    loras: str
    encodings: str
    spare: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """A finished LoRA: its tensors, its file name in the loras folder (its full path if it could not be put there), and
    a report for the user."""

    lora: dict[str, torch.Tensor]
    lora_name: str
    report: str


def lora_path(name: str) -> PurePosixPath:
    """Where in the loras folder a LoRA of that name goes, without its suffix; folders may come before it.

    Raises:
        ValueError: some system cannot keep it, or it leads out of the folder.
    """
    bare = name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name
    if not bare.strip():
        raise ValueError("The LoRA needs a name.")
    try:
        return safe_name(bare)
    except DatasetError as error:
        raise ValueError(f"{error} In a LoRA's name path separators follow folders of the loras folder only.") from error


def identity(base: list[str | int], dataset: str, settings: Settings, learning_rate: float) -> str:
    """A hash of everything a run is trained from, beyond the number of steps: ``base`` and ``dataset`` are fingerprints
    of the models and how they are asked, and of the samples."""
    parts = {"dataset": dataset, "base": base, "settings": settings.of_training(), "learning_rate": learning_rate}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its place once it is complete and else is deleted."""
    unfinished = path.with_suffix(".part")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def saving_to(place: Path) -> Iterator[None]:
    """Errors name the place and say what to do."""
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"The LoRA cannot be saved in {place}: {reason}. Make room there, allow ComfyUI to write there, or choose "
            "another name or folder."
        ) from error


class Record:
    """What a run of so many steps has left on disk: its LoRA, and a note of what became of it. No file is ever seen
    half written, and none of the user's is overwritten."""

    def __init__(self, output: str, name: str, key: str, steps: int, spare: tuple[str, ...] = ()):
        runs, own = [Path(output, "pairlora"), *map(Path, spare)], f"{PurePosixPath(name).name}-{key[:10]}"
        self.folders = [next(folder.glob(f"*-{key[:10]}"), folder / own) for folder in runs]  # perhaps of another name
        self.file = f"step{steps}{SUFFIX}"
        self.folder = next((folder for folder in self.folders if (folder / self.file).exists()), self.folders[0])

    @property
    def weights(self) -> Path:
        return self.folder / self.file

    @property
    def note(self) -> Path:
        return self.weights.with_suffix(".json")

    @property
    def trial(self) -> Path:
        return self.weights.with_suffix(f".trial{SUFFIX}")

    def read(self) -> dict | None:
        """The note, or None when the run has not finished."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            with safetensors.safe_open(self.weights, "pt"):  # it is whole
                return note if "files" in note else None
        except (OSError, ValueError, TypeError, safetensors.SafetensorError):
            return None

    def write(self, note: dict) -> None:
        try:
            with whole(self.note) as unfinished:
                unfinished.write_text(json.dumps(note), encoding="utf-8")
        except OSError as error:  # the LoRA is there all the same
            logging.warning(f"PairLoRA: {self.note} cannot be written: {error}")

    @contextlib.contextmanager
    def tried(self, tensors: dict[str, torch.Tensor], loras: str, name: str) -> Iterator[Path]:
        """A file of these tensors in the run's folder, which holds the room on the disk while this is open.

        Raises:
            OSError: it cannot be written, or not into the loras folder under that name.
        """
        try:
            with saving_to(self.trial.parent):
                self.trial.parent.mkdir(parents=True, exist_ok=True)
                safetensors.torch.save_file(tensors, self.trial, {"room for the note": " " * NOTE})
            with saving_to(Path(loras, name)):
                free = next(file for file in _numbered(Path(loras, name + SUFFIX)) if not file.exists())
                free.parent.mkdir(parents=True, exist_ok=True)
                probe = free.with_suffix(".trial-write")  # a name of the same length
                try:
                    shutil.copyfile(self.trial, probe)
                finally:
                    probe.unlink(missing_ok=True)
            yield self.trial
        finally:
            with contextlib.suppress(OSError):
                self.trial.unlink(missing_ok=True)
                self.trial.parent.rmdir()  # where nothing else is in it

    def save(self, tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
        """Write the LoRA and its metadata into the first of the folders that takes them; raises OSError when none does."""
        with contextlib.suppress(OSError):
            self.trial.unlink(missing_ok=True)
        for self.folder in self.folders:
            try:
                with saving_to(self.folder):
                    self.folder.mkdir(parents=True, exist_ok=True)
                    with whole(self.weights) as unfinished:
                        safetensors.torch.save_file(tensors, unfinished, header)
                return
            except OSError as error:
                logging.warning(f"PairLoRA: {error}")
                failure = error
        raise failure

    def saved_as(self, dtype: str) -> Path:
        """The file of the weights in one of ``files.DTYPES``, made anew where the one that is there is damaged or of an
        earlier training; raises ValueError as ``files.rounded`` does."""
        if dtype == "float32":
            return self.weights
        file = self.weights.with_suffix(f".{dtype}{SUFFIX}")
        tensors = files.rounded(safetensors.torch.load_file(self.weights), dtype)
        with contextlib.suppress(OSError, safetensors.SafetensorError):
            there = safetensors.torch.load_file(file)
            if there.keys() == tensors.keys() and all(torch.equal(there[key], value) for key, value in tensors.items()):
                return file
        with safetensors.safe_open(self.weights, "pt") as opened:
            header = opened.metadata()
        with whole(file) as unfinished:
            safetensors.torch.save_file(tensors, unfinished, header)
        return file

    def place(self, loras: str, name: str, dtype: str = "float32") -> str:
        """The LoRA's file name in the loras folder: there already, or copied under ``name``, numbered where that is
        taken by another file."""
        note, folder, source = self.read() or {"files": {}}, Path(loras), self.saved_as(dtype)
        known = name if dtype == "float32" else f"{name} {dtype}"
        first = folder / note["files"].get(known, name + SUFFIX)
        first.parent.mkdir(parents=True, exist_ok=True)
        for file in _numbered(first):
            if not file.exists():
                with whole(file) as unfinished:
                    shutil.copyfile(source, unfinished)
            elif not filecmp.cmp(source, file, shallow=False):
                continue
            found = file.relative_to(folder)
            if note["files"].get(known) != found.as_posix():
                self.write({**note, "files": {**note["files"], known: found.as_posix()}})
            return str(found)


def _numbered(first: Path) -> Iterator[Path]:
    """The file, and then others with a number behind its name."""
    return itertools.chain([first], (first.with_stem(f"{first.stem}_{i:02}") for i in itertools.count(2)))


def train_once(
    model, clip, vae, dataset: PairedDataset | CollectedDataset, settings: Settings, steps: int, learning_rate: float,
    name: str, *, places: Places, base_file: str, lora_files: list[str], graph: dict[str, object] | None,
    on_step: Callable[[int, float], None], on_phase: Callable[[str], None], on_warning: Callable[[str], None],
) -> Result:  # fmt: skip
    """Train, or return at once what the same run gave before.

    ``name`` is the LoRA's in the loras folder. ``base_file`` is what the model was loaded from, "" where that is not
    known, and ``lora_files`` are on it; ``graph`` is the prompt and workflow, kept in the file, or None for a file that
    says nothing of what the user wrote. ``on_step(step, loss)``, ``on_phase(text)`` and ``on_warning(text)`` tell the
    user. Raises DatasetError, ValueError, OSError or RuntimeError before anything long starts when the input cannot be
    trained on, or a LoRA not be saved or loaded.
    """
    name = str(lora_path(name))
    paired, about = isinstance(dataset, PairedDataset), dataset.about()
    family = families.family_of(model.model, base_file, max(about.inputs))
    base, encoders = fingerprint(model), encoding.encoders_fingerprint(clip, vae) if paired else []
    key = identity([base, family.name, families.REVISION, *encoders], dataset.fingerprint, settings, learning_rate)
    warnings = [families.distilled_warning(family, [base_file, *lora_files]), *patches.warnings(model)]
    if patches.strangers(model) and fingerprint(model) != base:
        warnings.append("What is on the model cannot be known again, so each queue that runs this node trains anew.")
    if paired:
        warnings += [families.release_warning(family, base_file, max(about.inputs)), encoding.caption_warning(clip, dataset)]
    warnings = [warning for warning in warnings if warning]
    record = Record(places.output, name, key, steps, places.spare)
    if note := record.read():
        return _result(record, note, settings.save_as, places.loras, name, warnings)

    inject.check_rank(model.model.diffusion_model, settings.rank)
    untrained = inject.untrained(model.model.diffusion_model, settings.rank)
    with record.tried(files.named(untrained, family.name), places.loras, name) as trial:
        apply.check_loads(model, trial, untrained)
        del untrained
        for warning in warnings:
            on_warning(warning)
        start = time.monotonic()
        samples = dataset.samples

        def planned(sample: Encoded) -> Plan:
            return choose(model, sample, settings.batch_size, settings.rank, settings.accumulation)

        def look(sample: Encoded) -> bool:  # a class that is in no list may read no references, or not fit the encoders
            return planned(sample).counted is not None and family is not families.GENERIC

        if paired:
            store = Store(Path(places.encodings))
            samples = encoding.encoded(model, clip, vae, dataset, store, encoders, family, on_phase, look)
        on_phase("loading the model")
        plan = planned(largest := largest_of(samples))
        encoding.check(model, largest, plan.needed)
        losses = []

        def step_done(step: int, loss: float) -> None:
            losses.append(loss)
            on_step(step, loss)
            memory.check_interrupted()

        def say(warning: str) -> None:
            warnings.append(warning)
            on_warning(warning)

        def use(chosen: Plan) -> None:
            nonlocal plan
            plan = chosen
            logging.info(f"PairLoRA: memory: {plan}")

        lora = train(model, samples, settings, steps, learning_rate, step_done, plan, on_warning=say, on_plan=use)
        seconds, tenth = time.monotonic() - start, max(1, steps // 10)
        tensors = files.named(lora, family.name)
        record.save(tensors, files.metadata(
            name, key, family.name, about, settings, steps, learning_rate, seconds, base, base_file, graph, str(plan)
        ))  # fmt: skip
    report = (
        f"{counted(len(samples), 'sample')}, {counted(steps, 'step')} of {settings.samples}, rank {settings.rank}, learning rate "
        f"{learning_rate:g}, {seconds:.0f} s; loss {sum(losses[:tenth]) / tenth:.4f} at first, "
        f"{sum(losses[-tenth:]) / tenth:.4f} at last"
    )
    note = {"files": {}, "report": report, "memory": f"Memory: {plan}", "seconds": seconds, "losses": losses}
    try:
        apply.prove(model, record.weights, lora)
    except Exception as error:
        note["refused"] = f"{error} The LoRA is kept as {record.weights}; delete that folder to train again."
    record.write(note)
    if "refused" not in note and settings.save_as != "float32":  # how far rounding is off, rounded has looked at
        with contextlib.suppress(OSError):  # the result says where it is then
            apply.prove(model, record.saved_as(settings.save_as), files.rounded(lora, settings.save_as))
    return _result(record, note, settings.save_as, places.loras, name, warnings)


def _result(record: Record, note: dict, save_as: str, loras: str, name: str, warnings: list[str]) -> Result:
    """A finished run's LoRA, in the loras folder where that can be; raises RuntimeError when it has failed the proof."""
    if "refused" in note:
        raise RuntimeError(note["refused"])
    try:
        file = record.place(loras, name, save_as)
    except OSError as error:
        file = str(record.weights)
        reason = error.strerror or error
        warnings = [*warnings, f"The LoRA could not be put into {loras} ({reason}). It is kept as {file}; Load LoRA takes that path."]
    if record.folder != record.folders[0]:
        warnings = [*warnings, f"{record.folders[0]} could not be written, so the run is kept in {record.folder}."]
    tensors = files.rounded(safetensors.torch.load_file(record.weights), save_as)
    lines = [f"{file}: {note['report']}", *warnings, note.get("memory", "")]
    return Result(tensors, file, "\n".join(filter(None, lines)))
