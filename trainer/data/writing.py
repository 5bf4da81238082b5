"""Writing pairs into a folder under the dataset rule, for graphs that make their own dataset, and texts beside them."""
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .moving import replace
from .pairs import DatasetError
from .text import printable, stripped

NUMBERED = re.compile(r"pair(\d{4,})", re.IGNORECASE)


def write_pairs(folder: Path, inputs: Sequence[np.ndarray], target: np.ndarray, caption: str = "") -> list[str]:
    """Write `pair0001_start.png`, `_start1`, ..., `_end` and `pair0001.txt`, numbering on from what is there.

    ``target`` holds a picture a pair: (pairs, height, width, channels) in 0..1, with 1, 3 or 4 channels. Each of
    ``inputs``, in order, holds as many, or one for all pairs. An empty ``caption`` writes no file. The folder is made
    where it is missing.

    Returns:
        The names of the pairs.

    Raises:
        DatasetError: the counts do not agree or a picture holds no numbers; nothing is written then. When writing
            fails, the files of that pair are removed again. No file is ever overwritten.
    """
    pairs, counts = len(target), [len(batch) for batch in inputs]
    if not pairs or any(count not in (1, pairs) for count in counts):
        raise DatasetError(
            f"Of targets there are {pairs}, of inputs {' and '.join(map(str, counts))}. Give as many inputs as targets, or one "
            "for all."
        )
    if not all(np.isfinite(batch).all() for batch in (*inputs, target)):
        raise DatasetError("A picture holds no numbers (NaN). If a VAE made it, start ComfyUI with --fp32-vae.")
    folder.mkdir(parents=True, exist_ok=True)
    first = 1 + max((int(used[1]) for path in folder.iterdir() if (used := NUMBERED.match(path.name))), default=0)
    names = [f"pair{first + i:04}" for i in range(pairs)]
    for i, name in enumerate(names):
        files = {f"{name}_start{number or ''}.png": batch[i % len(batch)] for number, batch in enumerate(inputs)}
        files[f"{name}_end.png"] = target[i]
        if stripped(caption):
            files[f"{name}.txt"] = printable(caption)
        _write(folder, files)
    return names


def _write(folder: Path, files: dict[str, np.ndarray | str]) -> None:
    """All of the files, or none."""
    written = []
    try:
        for name, content in files.items():
            with (folder / name).open("xb") as file:
                written.append(folder / name)
                if isinstance(content, str):
                    file.write(content.encode())
                else:
                    to_image(content).save(file, "PNG")
    except BaseException:
        for path in written:
            path.unlink()
        raise


def to_image(picture: np.ndarray) -> Image.Image:
    """An 8-bit image of (height, width, 1, 3 or 4) in 0..1."""
    pixels = (picture.clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


class Changed(DatasetError):
    """A file is another than the one that was shown."""


def version(path: Path) -> str | None:
    """A hash of a file's bytes, or None where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def rewrite(path: Path, data: bytes, shown: str | None) -> None:
    """Put ``data`` into a file, all or nothing; ``shown`` is its version as it was read, None where there was no file.

    Raises:
        Changed: the file is another by now; it stays as it is.
        DatasetError: the file is a link.
        OSError: it cannot be written.
    """
    if path.is_symlink():
        raise DatasetError(f"{printable(path.name)} is a link. Edit the file that it leads to.")
    unfinished = path.with_name(f".pairlora-{os.urandom(8).hex()}")  # hidden, so that no report names it
    try:
        with unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if version(path) != shown:
            raise Changed(f"{printable(path.name)} has changed on disk meanwhile, so it was not saved. Look at it again first.")
        replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
