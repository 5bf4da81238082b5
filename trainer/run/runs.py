"""The runs in ComfyUI's output folder: what each is, the room that it takes, and removing one."""
import contextlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import filelock

from ..data.moving import replace


@dataclass(frozen=True)
class Run:
    """A run's folder and its size in bytes; the steps it has come to, those of its finished LoRAs, and what it was made
    from in words, nothing of which is known of runs of older versions."""

    path: Path
    size: int
    step: int
    finished: tuple[int, ...]
    words: dict


def runs(output: Path) -> list[Run]:
    """All of them, by name."""
    found = []
    for path in sorted(folder for folder in Path(output, "pairlora").glob("*-*") if folder.is_dir()):
        finished = sorted({number for file in path.glob("step*.safetensors") if (number := _number(file)) is not None})
        reached = [number for file in path.glob("checkpoints/step*.json") if (number := _number(file)) is not None]
        words = {}
        with contextlib.suppress(OSError, ValueError):
            words = json.loads((path / "run.json").read_text(encoding="utf-8"))
        if finished or words:
            found.append(Run(path, size(path), max([0, *finished, *reached]), tuple(finished), words))
    return found


def remove(run: Run) -> None:
    """Delete a run; LoRAs that were put into the loras folder stay.

    Raises:
        ValueError: it is being trained.
        PermissionError: a file of it is open; all of it is still there.
    """
    lock = filelock.FileLock(run.path / "lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(f"{run.path} is being trained. Cancel that first.") from None
    lock.release()
    removed = run.path.with_name(f"{run.path.name}.removed")  # at once or not at all, where a file of it is open
    replace(run.path, removed)
    shutil.rmtree(removed)


def size(folder: Path) -> int:
    """Bytes of all files in it."""
    found = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found += os.stat(os.path.join(root, name)).st_size
    return found


def _number(file: Path) -> int | None:
    number = re.match(r"step(\d+)", file.name)
    return number and int(number[1])
