"""Checkpoints: states of a training on disk, from which it goes on as if it had never stopped."""
import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from ..state import Saved
from .places import SUFFIX, whole, write_tensors

KEPT = 2  # the newest, of those that a training of so many steps can go on from, and of the others
OLDER = 8  # of those before them, the LoRA alone, to compare with
LEFT = re.compile(rf"lora(\d+)-[0-9a-f]{{8}}{re.escape(SUFFIX)}")  # its step, and how its checksum begins


@dataclass(frozen=True)
class Place:
    """After which ``step`` of a training this is. In its cooldown, which depends on the ``length`` in steps, that is part
    of the place; before it the length is 0."""

    step: int
    length: int = 0

    def __str__(self) -> str:
        return f"{self.step:06}" + (f"-of-{self.length}" if self.length else "")

    def leads_to(self, steps: int, cooling: int) -> bool:
        """Whether a training of so many steps, the last ``cooling`` of them cooled down, goes through here."""
        return self.step <= steps if self.length == steps and cooling else not self.length and self.step <= steps - cooling


@dataclass(frozen=True)
class Best:
    """The LoRA with the lowest held-out ``loss`` so far, after ``step`` steps; its ``file``, and the checksum of that."""

    step: int
    loss: float
    file: str
    sha256: str


class Checkpoints:
    """Those of one run, in a folder. What is half written or damaged is never used."""

    def __init__(self, folder: Path):
        self.folder = folder

    def write(self, place: Place, saved: Saved, best: Best | None) -> None:
        """Raises OSError when it cannot be written; those before it are still there."""
        files = {f"step{place}{SUFFIX}": saved.lora, f"step{place}.state{SUFFIX}": saved.tensors}
        for name, tensors in files.items():
            write_tensors(self.folder / name, tensors, {"format": "pt"})
        state = {
            "step": place.step, "length": place.length, "numbers": saved.numbers,
            "best": best and asdict(best),
            "files": {name: digest(self.folder / name) for name in files},
        }  # fmt: skip
        with whole(self.folder / f"step{place}.json") as unfinished:
            unfinished.write_text(json.dumps({"state": state, "sha256": _signature(state)}), encoding="utf-8")

    def newest(self, steps: int, cooling: int, on_warning: Callable[[str], None]) -> tuple[Saved, Best | None] | None:
        """The last whole one on the way to so many steps; those that are damaged are named and set aside."""
        for place, file in sorted(self.places().items(), key=lambda found: found[0].step, reverse=True):
            if not place.leads_to(steps, cooling):
                continue
            try:
                return self._read(file)
            except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
                on_warning(f"The checkpoint {file} is damaged ({error}). It is set aside, and the one before it used.")
                self._set_aside(place)
        return None

    def places(self) -> dict[Place, Path]:
        """The JSON file of each, by its place."""
        found = {}
        for file in self.folder.glob("step*.json"):
            step, _, length = file.stem.removeprefix("step").partition("-of-")
            with contextlib.suppress(ValueError):
                found[Place(int(step), int(length or 0))] = file
        return found

    def _read(self, file: Path) -> tuple[Saved, Best | None]:
        state = _state(file)
        best = state["best"] and Best(**state["best"])
        for name, wanted in [*state["files"].items(), *([(best.file, best.sha256)] if best else [])]:
            if digest(self.folder / name) != wanted:
                raise ValueError(f"{name} is not what was written")
        lora, tensors = (safetensors.torch.load_file(self.folder / name) for name in state["files"])
        return Saved(state["step"], lora, tensors, state["numbers"]), best

    def write_best(self, place: Place, loss: float, lora: dict[str, torch.Tensor]) -> Best:
        """Under a name of its own, so that checkpoints which know another one are not harmed."""
        file = self.folder / f"best{place}{SUFFIX}"
        write_tensors(file, lora, {"format": "pt"})
        checksum = digest(file)
        file = file.replace(file.with_name(f"best{place}-{checksum[:8]}{SUFFIX}"))
        return Best(place.step, loss, file.name, checksum)

    def read_best(self, best: Best) -> dict[str, torch.Tensor]:
        return safetensors.torch.load_file(self.folder / best.file)

    def prune(self, steps: int, cooling: int) -> None:
        """Delete all but the newest ones, and what belongs to none of them. Of those before, some LoRAs are left."""
        groups: dict[tuple, list[Place]] = {}
        places = self.places()
        for place in sorted(places, key=lambda place: place.step):
            groups.setdefault((place.length, place.leads_to(steps, cooling)), []).append(place)
        kept = {place for group in groups.values() for place in group[-KEPT:]}
        wanted = {f"step{place}" for place in kept}
        for place in kept:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                if best := _state(places[place])["best"]:
                    wanted.add(Path(best["file"]).stem)
        for place in places.keys() - kept:
            self._leave(place, places[place])
        left = self.left()
        evenly = spread([*left], OLDER, max((place.step for place in kept), default=0))
        wanted |= {left[step].stem for step in evenly}
        for file in self.folder.glob("*"):
            if file.name.split(".")[0] not in wanted:
                with contextlib.suppress(OSError):
                    file.unlink()

    def left(self) -> dict[int, Path]:
        """The LoRAs of checkpoints that are no more, by their steps."""
        found = ((LEFT.fullmatch(file.name), file) for file in sorted(self.folder.glob("lora*")))
        return {int(match[1]): file for match, file in found if match}

    def _leave(self, place: Place, file: Path) -> None:
        """Of a checkpoint the LoRA alone, under a name that tells its checksum; but not of a cooldown, which goes as a
        whole when it has come to its end."""
        lora = self.folder / f"step{place}{SUFFIX}"
        if not place.length:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                checksum = _state(file)["files"][lora.name]
                lora.replace(self.folder / f"lora{place}-{checksum[:8]}{SUFFIX}")

    def drop_cooled(self, length: int) -> None:
        """Delete those of a cooldown that has come to its end."""
        for place in [place for place in self.places() if place.length == length]:
            for file in self.folder.glob(f"step{place}.*"):
                with contextlib.suppress(OSError):
                    file.unlink()

    def _set_aside(self, place: Place) -> None:
        for file in self.folder.glob(f"step{place}.*"):
            set_aside(file)


def set_aside(file: Path) -> None:
    """Move a damaged file of a folder of checkpoints away."""
    aside = file.parent.parent / "damaged"
    with contextlib.suppress(OSError):
        aside.mkdir(exist_ok=True)
        shutil.move(file, aside / f"{time.time_ns()}-{file.name}")


def spread(steps: list[int], most: int, last: int) -> list[int]:
    """So many of the steps, as evenly between 0 and ``last`` as can be: the one goes that leaves the smallest gap, one
    after the other, so that those which are left of a growing list stay even."""
    kept = sorted(steps)
    while len(kept) > most:
        ends = [0, *kept, max(last, kept[-1])]
        del kept[min(range(len(kept)), key=lambda i: ends[i + 2] - ends[i])]
    return kept


def _state(file: Path) -> dict:
    note = json.loads(file.read_text(encoding="utf-8"))
    if note["sha256"] != _signature(note["state"]):
        raise ValueError(f"{file.name} is not what was written")
    return note["state"]


def _signature(state: dict) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def digest(file: Path) -> str:
    """The checksum of a file's content."""
    with open(file, "rb") as opened:
        if hasattr(hashlib, "file_digest"):  # from Python 3.11 on
            return hashlib.file_digest(opened, "sha256").hexdigest()
        sha = hashlib.sha256()
        while part := opened.read(1 << 20):
            sha.update(part)
        return sha.hexdigest()
