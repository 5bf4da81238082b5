"""The LoRAs of one run at several steps, to look at and to keep one of them."""
import contextlib
import json
import re
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from ..lora import files
from .checkpoints import LEFT, digest, set_aside, spread
from .places import SUFFIX, folders, holds, numbered, saving_to, write_tensors

KEY = re.compile(r"[0-9a-f]{10,}")
OF_STEP = re.compile(rf"(?:step|best|lora)(\d+)(?:-of-\d+)?(?:-([0-9a-f]{{8}}))?{re.escape(SUFFIX)}")
OF_RUN = ("checkpoints/lora*", "checkpoints/best*", "checkpoints/step*", "step*")  # of one step the last takes precedence


def header(lora: Path) -> dict[str, str]:
    """What a LoRA's file says of itself. Raises ValueError when it is no whole .safetensors file."""
    try:
        with safetensors.safe_open(lora, "pt") as file:
            return file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{lora.name} cannot be read ({error}). Train it again.") from error


def stages(output: Path, lora: Path) -> dict[int, Path]:
    """The files of the run that made ``lora``, by their steps, as far as they are still in ComfyUI's output folder.

    Raises:
        ValueError: no run is known to have made it, or nothing of that is left.
    """
    key = header(lora).get("pairlora_run", "")
    if not KEY.fullmatch(key):
        raise ValueError(f"{lora.name} was not trained by PairLoRA, so it has no checkpoints. Choose one that Train Edit LoRA made.")
    found = {}
    for folder in folders(Path(output, "pairlora"), key):
        for file in (file for names in OF_RUN for file in sorted(folder.glob(names))):
            if match := OF_STEP.fullmatch(file.name):
                found[int(match[1])] = file
    if not found:
        raise ValueError(f"The run that made {lora.name} is no longer in {Path(output, 'pairlora')}. Queue its training again.")
    return dict(sorted(found.items()))


def evenly(found: dict[int, Path], most: int) -> dict[int, Path]:
    """At most so many of them, the last step's and others spread over those before."""
    *before, last = found
    return {step: found[step] for step in (*spread(before, most - 1, last), last)}


def read(file: Path) -> dict[str, torch.Tensor]:
    """The LoRA in one of these files.

    Raises:
        ValueError: it is damaged. Where no training goes on from it, which would see to that, it is set aside.
    """
    try:
        if not digest(file).startswith(_checksum(file)):
            raise ValueError("its checksum is another")
        return safetensors.torch.load_file(file)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        if LEFT.fullmatch(file.name):
            set_aside(file)
        raise ValueError(f"{file} is damaged ({error}), so this checkpoint is left out.") from error


def _checksum(file: Path) -> str:
    """How that of a LoRA began when it was written; nothing where that is not known, as of old runs."""
    if match := OF_STEP.fullmatch(file.name)[2]:
        return match
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        return (note["state"]["files"] if "state" in note else note["sha256"])[file.name]
    return ""


def keep(output: Path, lora: Path, step: int) -> Path:
    """Write the LoRA of that step of the run that made ``lora`` beside it, as NAME_stepN; the file, which is the one that is
    there where it is the same. None is overwritten.

    Raises:
        ValueError: there is none of that step, or it is damaged.
        OSError: it cannot be written.
    """
    known = stages(output, lora)
    if step not in known:
        raise ValueError(f"The run of {lora.name} has no checkpoint of step {step} any more, but of {', '.join(map(str, known))}.")
    about = header(lora)
    tensors = read(known[step])
    if not any("lora_down" in name for name in tensors):  # a checkpoint has the names that training uses
        tensors = files.named(tensors, about.get("ss_base_model_version", ""))
    wanted = lora.with_name(f"{lora.stem}_step{step}{SUFFIX}")
    about |= {"modelspec.title": wanted.stem, "ss_output_name": wanted.stem, "ss_steps": str(step)}
    return beside(wanted, tensors, about)


def beside(wanted: Path, tensors: dict[str, torch.Tensor], about: dict[str, str]) -> Path:
    """Write a LoRA, numbered where another has that name; the file, which is the one that is there where it is the same.
    Raises OSError when it cannot be written."""
    for file in numbered(wanted):
        if not file.exists():
            with saving_to(file):
                write_tensors(file, tensors, about)
            return file
        if holds(file, tensors):
            return file
    raise AssertionError  # numbers do not end
