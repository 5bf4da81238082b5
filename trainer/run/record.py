"""What is left of a run that has come to its end: a LoRA, and a note of what became of it."""
import contextlib
import filecmp
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import safetensors
import safetensors.torch
import torch

from ..lora import files
from .checkpoints import digest
from .places import KEYED, SUFFIX, flush, folders, holds, numbered, saving_to, whole, write_tensors

NOTE = 1 << 20  # bytes on the disk that a run's note has room in
LONGEST = len(f"checkpoints/best000000-of-0-00000000{SUFFIX}.part")  # of the paths in a run's folder, but for its steps


class Record:
    """What a run of so many steps has left on disk. No file is ever seen half written, and none of the user's is
    overwritten. ``which`` LoRA it is about, that of the last step or the best one, is chosen once both are there."""

    def __init__(self, output: str, name: str, key: str, steps: str | int, spare: tuple[str, ...] = ()):
        runs, own = [Path(output, "pairlora"), *map(Path, spare)], f"{PurePosixPath(name).name}-{key[:KEYED]}"
        self.folders = [next(folders(folder, key), folder / own) for folder in runs]  # perhaps of another name
        self.file = self.last = f"step{steps}{SUFFIX}"
        self.folder = next((folder for folder in self.folders if (folder / self.file).exists()), self.folders[0])

    @property
    def weights(self) -> Path:
        return self.folder / self.file

    @property
    def note(self) -> Path:
        return (self.folder / self.last).with_suffix(".json")

    @property
    def trial(self) -> Path:
        """Its path is as long as any that the run will need: Windows may take no more than 259 characters."""
        padding = "-" * (LONGEST - len(f"step0.trial{SUFFIX}"))
        return self.folder / f"{self.last.removesuffix(SUFFIX)}{padding}.trial{SUFFIX}"

    def choose(self, note: dict, which: str) -> None:
        """Be about the "best" LoRA or the "last"; without held-out pairs these are the same."""
        self.file = note.get("best", self.last) if which == "best" else self.last

    def read(self) -> dict | None:
        """The note, or None when the run has not finished, or what it left is damaged."""
        note = self._noted()
        try:
            for name in {self.last, note.get("best", self.last)} if note else ():
                with safetensors.safe_open(self.folder / name, "pt"):  # it is whole
                    if note.get("sha256", {}).get(name, "") not in ("", digest(self.folder / name)):
                        return None
            return note
        except (OSError, ValueError, TypeError, AttributeError, safetensors.SafetensorError):
            return None

    def _noted(self) -> dict | None:
        """The note, where it is whole, whatever has become of the LoRA since."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return note if "files" in note else None
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
                flush(self.trial)
            with saving_to(Path(loras, name)):
                free = next(file for file in numbered(Path(loras, name + SUFFIX)) if not file.exists())
                free.parent.mkdir(parents=True, exist_ok=True)
                probe = free.with_suffix(".trial-write-part")  # as long as that of its .part
                try:
                    shutil.copyfile(self.trial, probe)
                finally:
                    probe.unlink(missing_ok=True)
            yield self.trial
        finally:
            with contextlib.suppress(OSError):
                self.trial.unlink(missing_ok=True)
                self.trial.parent.rmdir()  # where nothing else is in it

    def save(self, loras: dict[str, dict[str, torch.Tensor]], header: dict[str, str]) -> dict[str, str]:
        """Write LoRAs, by their files' names, into the first of the folders that takes them; returns their checksums.
        Raises OSError when none does."""
        with contextlib.suppress(OSError):
            self.trial.unlink(missing_ok=True)
        for self.folder in self.folders:
            try:
                with saving_to(self.folder):
                    for name, tensors in loras.items():
                        write_tensors(self.folder / name, tensors, header)
                    return {name: digest(self.folder / name) for name in loras}
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
        if holds(file, tensors):
            return file
        with safetensors.safe_open(self.weights, "pt") as opened:
            header = opened.metadata()
        write_tensors(file, tensors, header)
        return file

    def place(self, loras: str, name: str, dtype: str = "float32") -> str:
        """The LoRA's file name in the loras folder: there already, or copied under ``name``, numbered where that is
        taken by another file."""
        known_note, folder, source = self._noted(), Path(loras), self.saved_as(dtype)
        note = known_note or {"files": {}}
        kind = [dtype] * (dtype != "float32") + ["last"] * (self.file == self.last != note.get("best", self.last))
        known = " ".join([name, *kind])
        first = folder / note["files"].get(known, name + SUFFIX)
        first.parent.mkdir(parents=True, exist_ok=True)
        for file in numbered(first):
            if not file.exists():
                with whole(file) as unfinished:
                    shutil.copyfile(source, unfinished)
            elif not filecmp.cmp(source, file, shallow=False):
                continue
            found = file.relative_to(folder)
            if known_note and note["files"].get(known) != found.as_posix():
                self.write({**note, "files": {**note["files"], known: found.as_posix()}})
            return str(found)
