"""A dataset of what the nodes of a graph have made of its samples, for models that the pack has no nodes for."""
import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import torch

from ..data.dataset import About
from ..data.text import counted
from .encode import Encoded, copied, tensors
from .fingerprint import summary

# What a CONDITIONING can carry that ComfyUI's sampler applies and training does not.
NOT_TRAINED = "control", "area", "mask", "gligen", "hooks", "start_percent", "end_percent", "clip_start_percent"


@dataclass(frozen=True)
class CollectedDataset:
    """Samples that are encoded already."""

    samples: tuple[Encoded, ...]

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for sample in self.samples:
            _add(digest, sample)
        return digest.hexdigest()

    @property
    def content(self) -> dict[str, str]:
        """A hash of each sample, by its name."""
        found = {}
        for sample in self.samples:
            _add(digest := hashlib.sha256(), sample)
            found[sample.name] = digest.hexdigest()
        return found

    def part(self, names: Collection[str]) -> "CollectedDataset":
        """A dataset of some of the samples."""
        return CollectedDataset(tuple(sample for sample in self.samples if sample.name in names))

    def about(self) -> About:
        return About("collected", [len(sample.references) for sample in self.samples], {"": len(self.samples)})


def _add(digest, sample: Encoded) -> None:
    for tensor in tensors([sample.latent, sample.conditioning]):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    digest.update(repr(summary(sample.conditioning)).encode())


def collect(conditionings: list[list], latents: list[dict]) -> CollectedDataset:
    """A dataset from lists in step with each other; a single CONDITIONING serves for all latents.

    Raises:
        ValueError: the lists do not match, or a sample has something that would not be trained on.
    """
    if not latents:
        raise ValueError("There are no samples to collect: the lists that are connected are empty.")
    if len(conditionings) == 1:
        conditionings = conditionings * len(latents)
    if len(conditionings) != len(latents):
        raise ValueError(
            f"There are {counted(len(conditionings), 'conditioning')} and {counted(len(latents), 'latent')}; connect one of each for every "
            "sample, or a single conditioning for all."
        )
    return CollectedDataset(tuple(map(_sample, range(1, len(latents) + 1), latents, conditionings)))


def _sample(number: int, latent: dict, conditioning: list) -> Encoded:
    name = f"sample {number}"
    if len(latent["samples"]) != 1:
        raise ValueError(f"The latent of {name} holds {len(latent['samples'])} images; encode one image at a time.")
    if "noise_mask" in latent:
        raise ValueError(f"The latent of {name} has a mask, which training would ignore. Encode the image without one.")
    if len(conditioning) != 1:
        raise ValueError(f"The conditioning of {name} has {len(conditioning)} parts; train on one, not combined ones.")
    if ignored := [key for key in NOT_TRAINED if conditioning[0][1].get(key) is not None]:
        raise ValueError(f"The conditioning of {name} has {ignored[0]!r}, which training would ignore. Leave it out.")
    return Encoded(name, *copied((latent["samples"], conditioning), "cpu"))
