"""What the demo and the tests measure on the pictures of a before/after workflow."""
import shutil
from pathlib import Path

import numpy as np

from host import ROOT


def add_previews(prompt: dict, sheet: str) -> dict[str, str]:
    """Give each picture input of the Before / After node a PreviewImage node; returns their ids by input."""
    roles = ("input", "before", "after", "target")
    for role in roles:
        inputs = {"images": prompt[sheet]["inputs"][role]}
        prompt[f"preview_{role}"] = {"class_type": "PreviewImage", "inputs": inputs}
    return {role: f"preview_{role}" for role in roles}


def psnr(images: list[np.ndarray], targets: list[np.ndarray], masks: list[np.ndarray] | None = None) -> float:
    """Mean PSNR in dB of (height, width, 3) images in 0..1, over the pixels of (height, width) masks where given."""
    values = []
    for i, (image, target) in enumerate(zip(images, targets, strict=True)):
        error = (image - target) ** 2
        values.append(-10 * np.log10(max(error[masks[i]].mean() if masks else error.mean(), 1e-10)))
    return float(np.mean(values))


def white_part(image: np.ndarray) -> np.ndarray:
    """Which pixels of a (height, width, 3) image in 0..1 are white: (height, width) booleans."""
    return image.min(axis=-1) > 0.98


def exchange_references(base: Path, dataset: str) -> str:
    """A copy of the held-out samples, in ComfyUI's input folder, in which each has the next one's further references."""
    source, copy = ROOT / "samples" / f"{dataset}-held-out", base / "input" / f"{dataset}-swapped"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)
    names = sorted(path.stem.removesuffix("_end") for path in source.glob("*_end.png"))
    for name, following in zip(names, [*names[1:], names[0]]):
        for role in ("start1", "start2"):
            shutil.copyfile(source / f"{following}_{role}.png", copy / f"{name}_{role}.png")
    return copy.name
