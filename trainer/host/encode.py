"""From decoded images and a caption to what the model is conditioned on, by the very nodes a generation graph uses."""
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import comfy.sd
import numpy as np
import torch

import nodes as comfy_nodes

from .families import Edit, Family

REFERENCES = ("reference_latents", "concat_latent_image")  # where a CONDITIONING has the latents of references


@dataclass(frozen=True)
class Encoded:
    """A sample as the nodes of a graph give it, on the CPU: the target's ``latent`` (1, channels, ..., height, width) as
    the VAE makes it, and a CONDITIONING."""

    name: str
    latent: torch.Tensor
    conditioning: list

    @property
    def references(self) -> list[torch.Tensor]:
        """The latents of the references, (1, channels, ..., height, width), however the model takes them."""
        return list(tensors([self.conditioning[0][1].get(key) for key in REFERENCES]))

    def with_other_references(self) -> "Encoded":
        """The same sample with other pictures as references: the negatives of their latents."""

        return Encoded(self.name, self.latent, self._with_references(torch.neg))

    def resized(self, factor: float) -> "Encoded":
        """A sample whose latents have sides ``factor`` times as long, in steps of two, for its shapes only."""

        def other_size(latent: torch.Tensor) -> torch.Tensor:
            return latent.new_zeros(*latent.shape[:-2], *(max(2, round(side * factor / 2) * 2) for side in latent.shape[-2:]))

        return Encoded(self.name, other_size(self.latent), self._with_references(other_size))

    def _with_references(self, change: Callable[[torch.Tensor], torch.Tensor]) -> list:
        """The conditioning with other latents of references."""

        def changed(value):
            return change(value) if isinstance(value, torch.Tensor) else [changed(v) for v in value]

        return [
            [text, {k: changed(v) if k in REFERENCES else v for k, v in options.items()}] for text, options in self.conditioning
        ]


def encode(
    family: Family, clip: comfy.sd.CLIP, vae: comfy.sd.VAE, name: str, images: list[np.ndarray], caption: str
) -> Encoded:
    """A sample from images of (height, width, 3) in 0..1, references first and target last."""
    *references, target = (torch.from_numpy(image)[None] for image in images)
    with torch.inference_mode():
        conditioning = family.condition(clip, vae, Edit(caption, references, tuple(target.shape[1:3])))
        latent = comfy_nodes.VAEEncode().encode(vae, target)[0]["samples"]
    return Encoded(name, *copied((latent, conditioning), "cpu"))


def copied(value, device):
    """``value`` with every tensor in it copied to ``device``; made outside inference mode, autograd can use the copies."""
    if isinstance(value, torch.Tensor):
        with torch.inference_mode(False), torch.no_grad():
            return value.clone().to(device)
    if isinstance(value, (list, tuple)):
        return type(value)(copied(v, device) for v in value)
    return {k: copied(v, device) for k, v in value.items()} if isinstance(value, dict) else value


def tensors(value) -> Iterator[torch.Tensor]:
    """Every tensor in nested lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for child in value.values() if isinstance(value, dict) else value:
            yield from tensors(child)


def split_caption(clip: comfy.sd.CLIP, caption: str) -> tuple[int, int] | None:
    """Into how many parts the text encoder splits a caption that it cannot read in one go, and how many tokens a part
    has; None when it reads all at once, or one of several encoders does (FLUX.1 follows T5, which reads any length).

    ComfyUI leaves nothing out: CLIP reads 77 tokens at a time and the model sees all parts, one behind the other.
    """
    tokens = clip.tokenize(caption)
    parts = list(tokens.values()) if isinstance(tokens, dict) else []
    return max((len(part), len(part[0])) for part in parts) if parts and all(len(part) > 1 for part in parts) else None
