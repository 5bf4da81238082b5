"""Where the things of a run lie, and writing them so that none is ever seen half written."""
import contextlib
import itertools
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import safetensors
import safetensors.torch
import torch

from ..data.moving import replace
from ..data.names import safe_name
from ..data.pairs import DatasetError

SUFFIX = ".safetensors"
LONGEST = 259  # characters of a path on Windows, until its "long paths" are turned on
KEYED = 10  # characters of a run's key at the end of its folder's name


@dataclass(frozen=True)
class Places:
    """ComfyUI's ``output`` folder, its ``loras`` folder, and ``encodings``, where encoded samples are kept; a LoRA that
    can no longer be saved in output is kept in the first of the ``spare`` folders that takes it."""

    output: str
    loras: str
    encodings: str
    spare: tuple[str, ...] = ()


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


def folders(runs: Path, key: str) -> Iterator[Path]:
    """Those of the run of that key in a folder of runs, whatever its LoRA was called then."""
    return runs.glob(f"*-{key[:KEYED]}")


def key_of(folder: Path) -> str:
    """What of a run's key its folder's name has."""
    return folder.name[-KEYED:]


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its place once it is complete and on the disk, and else is deleted."""
    unfinished = path.with_name(f"{path.name}.part")
    try:
        yield unfinished
        flush(unfinished)
        replace(unfinished, path)
        flush(path.parent)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk, so that a loss of power leaves it whole."""
    if path.is_dir() and os.name == "nt":  # which cannot, and need not
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    """A .safetensors file, whole or not at all.

    Raises:
        OSError: it cannot be written; where there is too little room, with how much is needed.
    """
    size = sum(t.nbytes for t in tensors.values())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as unfinished:
            safetensors.torch.save_file(tensors, unfinished, header)
    except (OSError, safetensors.SafetensorError) as error:
        free = math.inf
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(path.parent).free
        short = f"{size / 1e6:.0f} MB are needed there and {free / 1e6:.0f} MB are free" if free < size else str(error)
        raise OSError(f"{path} cannot be written: {short}.") from error


def holds(path: Path, tensors: dict[str, torch.Tensor]) -> bool:
    """Whether a .safetensors file is there, whole, with just these."""
    try:
        there = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError):
        return False
    return there.keys() == tensors.keys() and all(torch.equal(there[key], value) for key, value in tensors.items())


@contextlib.contextmanager
def saving_to(place: Path) -> Iterator[None]:
    """Errors name the place and say what to do."""
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, FileNotFoundError) and (length := len(str(error.filename))) > LONGEST:
            reason = f"{reason}: a path of {length} characters, where Windows takes {LONGEST}; a shorter name or folder will do"
        raise OSError(
            f"The LoRA cannot be saved in {place}: {reason}. Make room there, allow ComfyUI to write there, or choose "
            "another name or folder."
        ) from error


def numbered(first: Path) -> Iterator[Path]:
    """The file, and then others with a number behind its name."""
    return itertools.chain([first], (first.with_stem(f"{first.stem}_{i:02}") for i in itertools.count(2)))
